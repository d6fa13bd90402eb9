"""Arrays of the caller: however they lie in memory and whatever code they run; none is changed, and none given back."""

import copy
import tracemalloc

import helpers
import numpy as np
import pytest
from helpers import CELLS, DTYPES, LENGTHS, assert_same_bits, make_case, make_layer

import numba_pack as nbp

I, H = 3, 4  # noqa: E741


def read_only(array):
    array = array.copy()
    array.flags.writeable = False
    return array


def every_other_element(array):
    wide = np.full((*array.shape[:-1], 2 * array.shape[-1]), 99, array.dtype)
    wide[..., ::2] = array
    return wide[..., ::2]


def unaligned(array):
    """One byte after where its elements should begin."""
    buffer = np.zeros(array.nbytes + 1, np.uint8)
    shifted = buffer[1:].view(array.dtype).reshape(array.shape)
    shifted[...] = array
    assert not shifted.flags.aligned or array.size == 0
    return shifted


LAYOUTS = {
    "read-only": read_only,
    "fortran": np.asfortranarray,
    "strided": every_other_element,
    "reversed": lambda array: np.ascontiguousarray(array[::-1])[::-1],
    "big-endian": lambda array: array.astype(array.dtype.newbyteorder(">")),
    "unaligned": unaligned,
    "subclass": lambda array: array.view(type("Sub", (np.ndarray,), {})),
}


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS.keys())
@pytest.mark.parametrize("form", ["packed", "padded", "single"])
@pytest.mark.parametrize("cell", ["lstm-proj", "gru"])
def test_arrays_will_do_however_they_lie_in_memory(cell, form, layout):
    layer = make_layer(cell, I, H, num_layers=2, bidirectional=True)
    lengths = {"packed": LENGTHS, "padded": (4, 4, 4), "single": (6,)}[form]
    data = make_case(layer, lengths)

    def state(value, convert):
        parts = [convert(part[:, 0] if form == "single" else part) for part in helpers.as_tuple(value)]
        return tuple(parts) if helpers.has_c(cell) else parts[0]

    def batch(sequences, convert):
        if form == "packed":
            return nbp.PackedSequence(*map(convert, nbp.pack_sequence(sequences)))
        return convert(sequences[0] if form == "single" else np.stack(sequences, 1))

    def run(convert):
        input, hx = batch(data.sequences, convert), state(data.hx, convert)
        output, after, tape = layer.forward(input, hx)
        plain = layer(input, hx)
        gradients = layer.backward(tape, batch(data.d_outputs, convert), state(data.d_state, convert))
        if form == "packed":
            output, plain, gradients = output.data, (plain[0].data, plain[1]), (gradients.input.data, *gradients[1:])
        return output, after, plain, tuple(gradients)

    results = run(layout)
    assert_same_bits(results, run(np.copy))
    assert type(results[0]) is np.ndarray


@pytest.mark.parametrize("layout", [read_only, every_other_element, LAYOUTS["big-endian"]])
def test_parameters_will_do_however_they_lie_in_memory(layout):
    layer = nbp.GRU(I, H, 2, rng=0)
    vector = layer.parameters * 2
    layer.parameters = layout(vector)
    np.testing.assert_array_equal(layer.parameters, vector)
    assert layer.parameters.dtype == np.float32 and layer.parameters.flags.c_contiguous
    layer.load_state_dict({name: layout(value) for name, value in layer.state_dict().items()})
    np.testing.assert_array_equal(layer.parameters, vector)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("form", ["packed", "padded", "batch-first", "single"])
@pytest.mark.parametrize("cell", CELLS)
def test_the_arrays_of_the_caller_are_not_changed_and_none_is_given_back(cell, form, dtype):
    layer = make_layer(
        cell, I, H, num_layers=2, bidirectional=True, dropout=0.5, batch_first=form == "batch-first", dtype=dtype
    )
    lengths = LENGTHS if form == "packed" else (6,) if form == "single" else (6, 6, 6)
    data = make_case(layer, lengths)
    hx, d_state = data.hx, data.d_state
    if form == "packed":
        input, d_output = nbp.pack_sequence(data.sequences), nbp.pack_sequence(data.d_outputs)
    elif form == "single":
        input, d_output = data.sequences[0], data.d_outputs[0]
        hx, d_state = (
            tuple(np.ascontiguousarray(part[:, 0]) for part in helpers.as_tuple(state)) for state in (hx, d_state)
        )
        if not helpers.has_c(cell):
            (hx,), (d_state,) = hx, d_state
    else:
        axis = 0 if form == "batch-first" else 1
        input, d_output = np.stack(data.sequences, axis), np.stack(data.d_outputs, axis)
    given = (input, hx, d_output, d_state)
    before = copy.deepcopy(given)
    plain = layer(input, hx)
    output, state, tape = layer.forward(input, hx)
    gradients = layer.backward(tape, d_output, d_state)
    assert_same_bits(given, before)

    def arrays(value):
        """All arrays of floats in a nest of tuples."""
        if isinstance(value, tuple):
            return [array for part in value for array in arrays(part)]
        return [value] if value.dtype.kind == "f" else []

    for result in arrays((plain, output, state, tuple(gradients))):
        assert not any(np.shares_memory(result, argument) for argument in arrays(given))


# -- objects that run code of their own --------------------------------------------------------------------------------


def test_a_state_is_read_without_running_code_that_could_change_what_is_checked():
    lstm = nbp.LSTM(3, 4, rng=0)
    packed = nbp.pack_sequence([np.ones((n, 3), np.float32) for n in (2, 5)])
    state = np.zeros((1, 2, 4), np.float32), np.zeros((1, 2, 4), np.float32)

    class Changing(tuple):
        def __iter__(self):
            packed.batch_sizes[:] = 2**40
            return super().__iter__()

    expected = lstm(packed, state)[0].data
    assert_same_bits(lstm(packed, Changing(state))[0].data, expected)


def test_what_the_gradient_of_the_output_changes_while_it_is_read_is_refused():
    gru = nbp.GRU(3, 4, rng=0)
    packed = nbp.pack_sequence([np.ones((n, 3), np.float32) for n in (2, 5)])
    output, _, tape = gru.forward(packed)

    class Changing:
        def __array__(self, dtype=None, copy=None):
            packed.batch_sizes[:] = 2**40
            return np.array([2, 2, 1, 1, 1])

    with pytest.raises(ValueError, match=r"batch_sizes"):
        gru.backward(tape, output._replace(batch_sizes=Changing()))


@pytest.mark.parametrize("of", ["a-mapped-file", "a-layer"])
def test_input_that_is_read_only_is_not_copied(of, tmp_path):
    """Outputs of `forward` are, and files that are mapped into memory to be read, which may be larger than that."""
    below, layer = nbp.GRU(8, 64, rng=0), nbp.GRU(64, 1, rng=0)
    rows, _, _ = below.forward(np.ones((2000, 8, 8), np.float32))
    expected = layer(rows.copy())
    if of == "a-mapped-file":
        np.save(tmp_path / "rows.npy", rows)
        rows = np.load(tmp_path / "rows.npy", mmap_mode="r")
    tracemalloc.start()
    try:
        output, h_n = layer(rows)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < rows.nbytes / 4
    assert_same_bits([output, h_n], list(expected))
    assert not rows.flags.writeable
