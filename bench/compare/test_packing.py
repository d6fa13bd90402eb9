"""The packing functions: against PyTorch's, and against a copy of as many bytes."""

import pytest

from bench.compare.contenders_packing import PACKERS
from bench.tools.workloads import PACKING


@pytest.mark.parametrize("contender", PACKERS, ids=lambda contender: contender.name)
@pytest.mark.parametrize("workload", PACKING, ids=str)
def test_packing(compete, workload, contender):
    compete(PACKERS, contender, workload)
