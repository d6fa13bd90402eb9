"""Forward and backward: the gradients of all parameters, of each shape with each library that has them."""

import pytest

from bench.compare.contenders import LAYERS, layer_rounding
from bench.tools.workloads import TRAINING, problem


@pytest.mark.parametrize("contender", [c for c in LAYERS if c.trains], ids=lambda contender: contender.name)
@pytest.mark.parametrize("workload", TRAINING, ids=str)
def test_training(compete, workload, contender):
    compete(LAYERS, contender, problem(workload), True, rounding=layer_rounding(problem(workload), True))
