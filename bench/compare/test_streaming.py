"""A stream of samples: one step a call, the state carried over."""

import pytest

from bench.compare.contenders_streaming import STREAMS
from bench.tools.workloads import STREAMING


@pytest.mark.parametrize("contender", STREAMS, ids=lambda contender: contender.name)
@pytest.mark.parametrize("step", STREAMING, ids=str)
def test_streaming(compete, step, contender):
    compete(STREAMS, contender, step, rounding=100)
