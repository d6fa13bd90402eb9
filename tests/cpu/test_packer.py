"""Panels that several threads pack are those that one packs."""

import numpy as np
import pytest
from helpers import assert_same_bits

import numba_pack as nbp
from numba_pack import cells
from numba_pack.cells.parameters import weights_of
from numba_pack.cpu import packer
from numba_pack.cpu.precision import factors_for
from numba_pack.cpu.team import call_each
from numba_pack.cpu.threads import team

LAYERS = {
    "lstm": nbp.LSTM(5, 19, num_layers=2, bidirectional=True, rng=0),
    "projection": nbp.LSTM(33, 20, proj_size=7, rng=0),
    "gru, heads": nbp.GRU(9, 24, heads=3, rng=0),
    "normalised": nbp.GRU(9, 17, layer_norm=True, rng=0),
    "unit weights": cells.PeepholeLSTM(4, 21, rng=0),
    "product": cells.MGU(6, 18, rng=0),
    "bfloat16": nbp.LSTM(40, 33, matmul_precision="high", rng=0),
}


@pytest.fixture
def any_panel_is_worth_a_thread(monkeypatch):
    monkeypatch.setattr(packer, "WORTH_A_THREAD", 1)
    monkeypatch.setattr(packer, "_aligned", lambda nbytes: np.full(nbytes, 0xFF, np.uint8))  # NaN where nothing is put


def packed(layer, threads):
    """The panels of both passes, and what is to be zeros."""
    cell = layer.cell.with_factors(factors_for(layer.matmul_precision, layer.dtype, layer.hidden_size))
    with nbp.threads(threads):
        forward = packer.new_panels(cell, layer.parameters, layer._constants, layer._sizes)
        weights = weights_of(cell)(layer.parameters, forward, layer._constants, None, *layer._sizes)
        back = np.full(packer.back_panels_of(weights), np.nan, layer.dtype)
        zeros = np.ones(1001, layer.dtype)
        packing = packer.back_packing(weights, back.ctypes.data, True, zeros)
        call_each([packing.call], team(packing.threads))
    return forward, back, zeros


@pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS)
def test_panels_do_not_depend_on_the_number_of_threads(layer, any_panel_is_worth_a_thread):
    expected = packed(layer, 1)
    assert not expected[2].any()
    for threads in (2, 3, 9):
        assert_same_bits(expected, packed(layer, threads), f"{threads} threads")


def test_panels_lie_on_a_cache_lines_boundary():
    layer = LAYERS["lstm"]
    panels = packer.new_panels(layer.cell, layer.parameters, layer._constants, layer._sizes)
    assert panels.ctypes.data % 64 == 0 and panels.flags.c_contiguous
