"""Forward: the outputs of all steps, of each shape with each library."""

import pytest

from bench.compare.contenders import LAYERS, layer_rounding
from bench.tools.workloads import FORWARD, problem


@pytest.mark.parametrize("contender", LAYERS, ids=lambda contender: contender.name)
@pytest.mark.parametrize("workload", FORWARD, ids=str)
def test_forward(compete, workload, contender):
    compete(LAYERS, contender, problem(workload), False, rounding=layer_rounding(problem(workload), False))
