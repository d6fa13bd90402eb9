"""A few rows in arrays that are just as the kernels take them go a shorter way, which gives what the long one gives."""

import numpy as np
import pytest
from helpers import as_tuple, assert_same_bits

import numba_pack as nbp
from numba_pack.cpu import engine
from numba_pack.layers import layer as layers
from numba_pack.layers import one_step

I = 5  # noqa: E741

#: by a name, a layer of each kind
LAYERS = {
    "RNN": lambda: nbp.RNN(I, 7, rng=0),
    "LSTM": lambda: nbp.LSTM(I, 7, num_layers=2, bidirectional=True, rng=0),
    "GRU": lambda: nbp.GRU(I, 64, num_layers=2, dtype="f8", rng=0),
    "projection": lambda: nbp.LSTM(I, 64, proj_size=3, rng=0),
    "reverse": lambda: nbp.cells.GRU(I, 7, reverse=True, rng=0),
    "quantized": lambda: nbp.LSTM(I, 7, rng=0).quantize("int8"),
}
CELLS = {"RNN": nbp.RNNCell, "LSTM": nbp.LSTMCell, "GRU": nbp.GRUCell}
#: of inputs, without their columns
FORMS = {"padded": (4, 3), "one step": (1, 3), "one row": (1, 1), "single": (6,)}


def no_form(*arguments):
    raise AssertionError("the long way")


def swapped(value):
    """The same numbers in the other byte order, which take the long way."""
    if isinstance(value, tuple):
        return tuple(map(swapped, value))
    return value.astype(value.dtype.newbyteorder())


def state_for(layer, shape, rng):
    """A state (L * D, B, H), for a single sequence without B."""
    *B, scans = *shape[1:], layer.num_layers * layer.num_directions
    sizes = (layer.output_size, *[layer.hidden_size] * layer.cell.others)
    parts = tuple(rng.standard_normal((scans, *B, size)).astype(layer.dtype) for size in sizes)
    return parts if len(parts) > 1 else parts[0]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", LAYERS)
def test_a_layer_gives_the_same(kind, form, monkeypatch):
    layer, rng = LAYERS[kind](), np.random.default_rng(0)
    x = rng.standard_normal((*FORMS[form], I)).astype(layer.dtype)
    hx = state_for(layer, FORMS[form], rng)
    expected = layer(swapped(x), swapped(hx)), layer(swapped(x))
    monkeypatch.setattr(layers, "form_of", no_form)
    for _ in range(2):  # panels are taken from the one end and the other
        for (output, state), (right, right_state) in zip((layer(x, hx), layer(x)), expected, strict=True):
            assert_same_bits((output, *as_tuple(state)), (right, *as_tuple(right_state)))


@pytest.mark.parametrize("shape", [(3, I), (1, I), (I,)])
@pytest.mark.parametrize("kind", CELLS)
def test_a_cell_gives_the_same(kind, shape, monkeypatch):
    cell, rng = CELLS[kind](I, 64, rng=0), np.random.default_rng(0)
    x = rng.standard_normal(shape).astype(np.float32)
    h, c = rng.standard_normal((2, *shape[:-1], 64)).astype(np.float32)
    hx = (h, c) if kind == "LSTM" else h
    expected = cell(swapped(x), swapped(hx)), cell(swapped(x))
    monkeypatch.setattr(one_step, "OneStep", no_form)
    for _ in range(2):
        for state, right in zip((cell(x, hx), cell(x)), expected, strict=True):
            assert_same_bits(as_tuple(state), as_tuple(right))


def test_parameters_that_are_assigned_hold_from_the_next_call_on():
    gru, cell, x = nbp.GRU(I, 4, rng=0), nbp.GRUCell(I, 4, rng=0), np.ones((2, I), np.float32)
    quick = gru.with_precision("medium")
    for module in (gru, quick, cell):
        before = as_tuple(module(x))[0]
        module.parameters = -module.parameters
        after = as_tuple(module(x))[0]
        assert not np.array_equal(after, before)
        assert_same_bits((after,), (as_tuple(module(swapped(x)))[0],))
    assert not np.array_equal(gru(x)[0], quick(x)[0])


@pytest.mark.parametrize("shape", [(0, 3), (4, 0), (0, 0), (0,)])
def test_no_rows_go_the_long_way(shape):
    gru = nbp.GRU(I, 4, rng=0)
    output, h_n = gru(np.ones((*shape, I), np.float32), h := np.ones((1, *shape[1:], 4), np.float32))
    assert output.shape == (*shape, 4)
    assert_same_bits((h_n,), (h,))


def test_what_is_worth_two_threads_is_divided(monkeypatch):
    gru, x = nbp.GRU(I, 4, rng=0), np.ones((3, 4, I), np.float32)
    expected, divided = gru(x), []
    monkeypatch.setattr(engine, "WORTH_A_THREAD", 1e3)
    monkeypatch.setattr(engine, "divide", lambda *of: divided.append(of) or of[-1](0, 4))
    gru.parameters = gru.parameters
    assert_same_bits(gru(x), expected)
    assert divided
