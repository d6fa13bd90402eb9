"""A few rows in arrays that are just as the kernels take them go a shorter way, which gives what the long one gives."""

import copy

import numpy as np
import pytest
from divided import divisions
from helpers import as_tuple, assert_same_bits

import numba_pack as nbp
from numba_pack.cpu import engine
from numba_pack.layers import layer as layers
from numba_pack.layers import one_step, stack

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
#: of arrays, without their columns
SHAPES = {"padded": (4, 3), "one step": (1, 3), "one row": (1, 1), "single": (6,)}
FORMS = [*SHAPES, "packed", "packed, one", "packed, some empty"]
LENGTHS = {"packed": [2, 4, 1], "packed, one": [5], "packed, some empty": [0, 3, 0, 2]}


def no_form(*arguments):
    raise AssertionError("the long way")


def swapped(value):
    """The same numbers in the other byte order, which take the long way."""
    if isinstance(value, tuple):
        return tuple(map(swapped, value))
    return value.astype(value.dtype.newbyteorder())


def long_way(layer):
    """The same layer, whose calls go the long way."""
    other = copy.copy(layer)
    vars(other)["_may_be_few"] = False
    return other


def input_of(form, dtype, rng):
    """An input in a form; with dtype int64, of symbols."""

    def rows(*shape):
        if dtype == np.int64:
            return rng.integers(0, I, shape)
        return rng.standard_normal((*shape, I)).astype(dtype)

    if form in SHAPES:
        return rows(*SHAPES[form])
    return nbp.pack_sequence([rows(length) for length in LENGTHS[form]])


def state_for(layer, form, rng):
    """A state (L * D, B, H), for a single sequence without B; of a stack, a list of them."""
    if isinstance(layer, stack.Stack):
        return [state_for(each, form, rng) for each in layer.layers]
    B = [len(LENGTHS[form])] if form in LENGTHS else SHAPES[form][1:]
    scans = layer.num_layers * layer.num_directions
    sizes = (layer.output_size, *[layer.hidden_size] * layer.cell.others)
    parts = tuple(rng.standard_normal((scans, *B, size)).astype(layer.dtype) for size in sizes)
    return parts if len(parts) > 1 else parts[0]


def arrays_of(result):
    """All arrays of what a call gave."""
    if isinstance(result, (tuple, list)):
        return [array for part in result for array in arrays_of(part)]
    return [result]


def assert_same(layer, x, hx, monkeypatch):
    """With and without a first state, a layer gives by the short way what it gives by the long one."""
    expected = long_way(layer)(x, hx), long_way(layer)(x)
    for module in (layers, stack):
        monkeypatch.setattr(module, "form_of", no_form)
    for _ in range(2):  # panels are taken from the one end and the other
        for found, right in zip((layer(x, hx), layer(x)), expected, strict=True):
            assert type(found[0]) is type(right[0])
            assert_same_bits(arrays_of(found), arrays_of(right))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", LAYERS)
def test_a_layer_gives_the_same(kind, form, monkeypatch):
    layer, rng = LAYERS[kind](), np.random.default_rng(0)
    x, hx = input_of(form, layer.dtype, rng), state_for(layer, form, rng)
    assert_same(layer, x, hx, monkeypatch)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", ["LSTM", "GRU", "quantized"])
def test_a_layer_gives_the_same_of_symbols(kind, form, monkeypatch):
    layer, rng = LAYERS[kind](), np.random.default_rng(0)
    x, hx = input_of(form, np.int64, rng), state_for(layer, form, rng)
    assert_same(layer, nbp.symbols(x) if form in SHAPES else x, hx, monkeypatch)


@pytest.mark.parametrize("form", ["padded", "single", "packed"])
def test_a_stack_gives_the_same(form, monkeypatch):
    layer, rng = nbp.LSTM(I, [7, 64], rng=0), np.random.default_rng(0)
    x, hx = input_of(form, layer.dtype, rng), state_for(layer, form, rng)
    assert_same_bits(arrays_of(layer(x, [None, hx[1]])), arrays_of(layer(x, [None, hx[1]], resets=no_resets(x))))
    expected = [arrays_of(layer(x, given, resets=no_resets(x))) for given in (hx, None)]
    monkeypatch.setattr(stack, "form_of", no_form)
    for given, right in zip((hx, None), expected, strict=True):
        assert_same_bits(arrays_of(layer(x, given)), right)


def no_resets(x):
    """No resets at all: with them, every call goes the long way."""
    return np.zeros(len(x.data) if isinstance(x, nbp.PackedSequence) else x.shape[:-1], bool)


@pytest.mark.parametrize("shape", [(1, 4), (3, 1)])
def test_one_sequence_or_one_step_is_the_same_batch_first(shape, monkeypatch):
    layer, x = nbp.GRU(I, 64, batch_first=True, rng=0), np.random.default_rng(0).standard_normal((*shape, I), "f4")
    assert_same(layer, x, np.ones((1, shape[0], 64), np.float32), monkeypatch)


def test_a_batch_first_of_several_steps_is_turned():
    layer, x = nbp.GRU(I, 7, batch_first=True, rng=0), np.random.default_rng(0).standard_normal((3, 4, I), "f4")
    for output, one in zip(layer(x)[0], x, strict=True):
        assert_same_bits([output], [layer(one)[0]])


@pytest.mark.parametrize("field", ["batch_sizes", "sorted_indices", "unsorted_indices"])
def test_a_packed_sequence_that_is_none_is_refused_as_ever(field):
    gru, packed = nbp.GRU(I, 7, rng=0), input_of("packed", np.float32, np.random.default_rng(0))
    index = getattr(packed, field)
    for wrong in (index + 1, index[:-1], index[None], index.astype(np.int32), list(index), None):
        with pytest.raises((TypeError, ValueError), match=r"^input\."):
            gru(packed._replace(**{field: wrong}))
    for other in (np.repeat(index, 2)[::2], index.astype(">i8")):  # right, but not as the kernels take it
        assert_same_bits(arrays_of(gru(packed._replace(**{field: other}))), arrays_of(gru(packed)))


def test_symbols_beyond_the_columns_and_rows_of_another_size_are_refused_as_ever():
    gru = nbp.GRU(I, 7, rng=0)
    for wrong in (np.array([0, I]), np.array([-1])):
        for form in (wrong, nbp.symbols(wrong), nbp.pack_sequence([wrong])):
            with pytest.raises(ValueError, match=rf"must hold symbols of at least 0 and less than input_size = {I}"):
                gru(form)
    packed = nbp.pack_sequence([np.ones((3, I + 1), np.float32)])
    with pytest.raises(ValueError, match=r"^input\.data must have shape"):
        gru(packed)
    with pytest.raises(TypeError, match=r"^input must have dtype float32, or be said to be symbols"):
        gru(np.ones((3, I), np.int64))


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.uint64, ">i8"])
def test_symbols_may_be_integers_of_any_size(dtype, monkeypatch):
    gru, values = nbp.GRU(I, 7, rng=0), np.array([3, 0, 4])
    expected = arrays_of(gru(values))
    monkeypatch.setattr(layers, "form_of", no_form)
    assert_same_bits(arrays_of(gru(values.astype(dtype))), expected)


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


@pytest.mark.parametrize("kind", CELLS)
def test_a_cell_gives_the_same_of_symbols(kind, monkeypatch):
    cell = CELLS[kind](I, 64, rng=0)
    inputs = [3, np.array(3), np.array([3]), np.array([3, 0], np.uint8)]
    expected = [cell(np.eye(I, dtype=np.float32)[x]) for x in inputs]
    monkeypatch.setattr(one_step, "OneStep", no_form)
    for x, right in zip(inputs, expected, strict=True):
        assert_same_bits(as_tuple(cell(x)), as_tuple(right))


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
    expected, found = gru(x), divisions(monkeypatch)
    monkeypatch.setattr(engine, "WORTH_A_THREAD", 1e3)
    gru.parameters = gru.parameters
    with nbp.threads(2):
        assert_same_bits(gru(x), expected)
    assert found == [(2, 2)]


def test_what_is_missing_is_not_taken_for_what_is_left_out():
    """The index arrays of a padded batch, and states that are zeros."""
    layer, packed = nbp.LSTM(I, 7, rng=0), nbp.pack_sequence([np.ones((2, I), np.float32)])
    for field in ("batch_sizes", "sorted_indices", "unsorted_indices"):
        with pytest.raises(TypeError, match=field):
            layer(packed._replace(**{field: None}))
    with pytest.raises(TypeError, match=r"hx\[0\]"):
        layer(packed, (None, None))
