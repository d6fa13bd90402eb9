"""Symbols: an embedding and an LSTM over it, forward, and forward and backward."""

import pytest

from bench.compare.contenders import layer_rounding
from bench.compare.contenders_symbols import EMBEDDED
from bench.tools.workloads import SYMBOLS, symbols_problem


@pytest.mark.parametrize("contender", EMBEDDED, ids=lambda contender: contender.name)
@pytest.mark.parametrize("workload", SYMBOLS, ids=str)
def test_symbols(compete, workload, contender):
    problem, training = symbols_problem(workload), workload.training
    compete(EMBEDDED, contender, problem, training, rounding=layer_rounding(problem, training))
