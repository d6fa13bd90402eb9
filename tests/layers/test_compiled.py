"""The layers inside a user's own compiled code give what they give from Python, bit for bit."""

import numba
import numpy as np
import pytest

import numba_pack as nbp

LENGTHS = (4, 6, 0, 5, 4, 3, 7, 8)
SHAPES = {"one-layer": (1, False), "three-layers": (3, False), "two-layers-both-directions": (2, True)}


@numba.njit
def lstm_pass(values, offsets, weights, h, c):
    packed = nbp.pack_ragged(values, offsets)
    output, (h_n, c_n), tape = nbp.lstm_forward(packed, weights, (h, c))
    gradients = nbp.lstm_backward(tape, output, (h_n, c_n))
    inferred, _ = nbp.lstm(packed, weights, (h, c))
    return nbp.unpack_ragged(inferred)[0], output.data, h_n, gradients.input.data, gradients.hx[0], gradients.parameters


@numba.njit
def gru_pass(values, offsets, weights, h):
    packed = nbp.pack_ragged(values, offsets)
    output, h_n, tape = nbp.gru_forward(packed, weights, h)
    gradients = nbp.gru_backward(tape, output, h_n)
    inferred, _ = nbp.gru(packed, weights, h)
    return nbp.unpack_ragged(inferred)[0], output.data, h_n, gradients.input.data, gradients.hx, gradients.parameters


@numba.njit
def rnn_pass(values, offsets, weights, h):
    packed = nbp.pack_ragged(values, offsets)
    output, h_n, tape = nbp.rnn_forward(packed, weights, h)
    gradients = nbp.rnn_backward(tape, output, h_n)
    inferred, _ = nbp.rnn(packed, weights, h)
    return nbp.unpack_ragged(inferred)[0], output.data, h_n, gradients.input.data, gradients.hx, gradients.parameters


@numba.njit
def last_state_alone(values, offsets, weights):
    """With no initial state, and no gradient of the output."""
    packed = nbp.pack_ragged(values, offsets)
    _, h_n, tape = nbp.gru_forward(packed, weights)
    gradients = nbp.gru_backward(tape, None, h_n)
    return nbp.gru(packed, weights)[1], gradients.parameters


def ragged(dtype):
    rng = np.random.default_rng(0)
    values = rng.standard_normal((sum(LENGTHS), 5)).astype(dtype)
    return values, np.concatenate([[0], np.cumsum(LENGTHS)])


def from_python(layer, values, offsets, hx):
    packed = nbp.pack_ragged(values, offsets)
    output, state, tape = layer.forward(packed, hx)
    gradients = layer.backward(tape, output, state)
    h_n, d_h = (state[0], gradients.hx[0]) if isinstance(state, tuple) else (state, gradients.hx)
    inferred = nbp.unpack_ragged(layer(packed, hx)[0])[0]
    return inferred, output.data, h_n, gradients.input.data, d_h, gradients.parameters


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize(
    ("kind", "options", "compiled", "dtype"),
    [
        (nbp.LSTM, {}, lstm_pass, np.float32),
        (nbp.LSTM, {"proj_size": 3}, lstm_pass, np.float32),
        pytest.param(nbp.LSTM, {}, lstm_pass, np.float64, marks=pytest.mark.slow),
        (nbp.GRU, {}, gru_pass, np.float32),
        (nbp.RNN, {}, rnn_pass, np.float32),
        pytest.param(nbp.RNN, {"nonlinearity": "relu"}, rnn_pass, np.float32, marks=pytest.mark.slow),
    ],
    ids=["LSTM", "LSTM-projected", "LSTM-float64", "GRU", "RNN-tanh", "RNN-relu"],
)
def test_a_layer_in_compiled_code_equals_the_layer(kind, options, compiled, dtype, shape):
    layers, both = shape
    layer = kind(5, 7, num_layers=layers, bidirectional=both, dtype=dtype, rng=1, **options)
    rng = np.random.default_rng(2)
    scans = layers * (2 if both else 1)
    h = rng.standard_normal((scans, len(LENGTHS), layer.output_size)).astype(dtype)
    hx = (h, rng.standard_normal((scans, len(LENGTHS), 7)).astype(dtype)) if kind is nbp.LSTM else h
    values, offsets = ragged(dtype)
    given = compiled(values, offsets, layer.weights, *(hx if kind is nbp.LSTM else (hx,)))
    for mine, expected in zip(given, from_python(layer, values, offsets, hx), strict=True):
        np.testing.assert_array_equal(mine, expected)


def test_states_and_gradients_may_be_left_out():
    layer = nbp.GRU(5, 7, rng=0)
    values, offsets = ragged(np.float32)
    h_n, gradient = last_state_alone(values, offsets, layer.weights)
    _, expected, tape = layer.forward(nbp.pack_ragged(values, offsets))
    np.testing.assert_array_equal(h_n, expected)
    np.testing.assert_array_equal(gradient, layer.backward(tape, None, expected).parameters)


def test_the_compiled_functions_can_be_called_from_python():
    layer = nbp.GRU(5, 7, rng=0)
    packed = nbp.pack_ragged(*ragged(np.float32))
    output, state, tape = nbp.gru_forward(packed, layer.weights)
    np.testing.assert_array_equal(output.data, layer(packed)[0].data)
    assert nbp.gru_backward(tape, output, state).parameters.shape == layer.parameters.shape


@pytest.mark.parametrize(
    "layer", [nbp.LSTM(5, 7, 3, bidirectional=True, proj_size=3, rng=0), nbp.GRU(5, 7, 2, rng=0)], ids=["LSTM", "GRU"]
)
def test_a_compiled_tape_holds_arrays_of_the_shapes_of_the_layers_own(layer):
    packed = nbp.pack_ragged(*ragged(np.float32))
    record = nbp.run_forward(packed, layer.weights)[2].record
    own = layer.forward(packed)[2].take().record
    assert [array.shape for array in record] == [array.shape for array in own]


# -- what may be None --------------------------------------------------------------------------------------------------


def states_in_chunks(chunks, function, weights):
    state = None
    for i in range(len(chunks)):
        _, state = function(nbp.pack_sequence([chunks[i]]), weights, state)
    return state


@numba.njit
def lstm_in_chunks(chunks, weights):
    state = None
    for i in range(len(chunks)):
        _, state = nbp.lstm(nbp.pack_sequence([chunks[i]]), weights, state)
    return state


@numba.njit
def gru_in_chunks(chunks, weights):
    state = None
    for i in range(len(chunks)):
        _, state = nbp.gru(nbp.pack_sequence([chunks[i]]), weights, state)
    return state


def chunks():
    return np.random.default_rng(0).standard_normal((4, 3, 5)).astype(np.float32)


@pytest.mark.parametrize(("kind", "compiled"), [("LSTM", lstm_in_chunks), ("GRU", gru_in_chunks)])
def test_a_state_may_be_none_at_first_in_a_loop_over_chunks(kind, compiled):
    layer = getattr(nbp, kind)(5, 7, num_layers=2, rng=0)
    for _ in range(100):  # as often as a reference counted wrongly takes to show
        found = compiled(chunks(), layer.weights)
    expected = states_in_chunks(chunks(), getattr(nbp, kind.lower()), layer.weights)
    np.testing.assert_array_equal(np.stack(found), np.stack(expected))
    np.testing.assert_array_equal(np.stack(found), np.stack(layer(chunks().reshape(12, 1, 5))[1]))


@numba.njit
def gru_training(packed, weights, given, h, d_rows, d_h):
    hx = d_output = d_state = d_packed = None
    if given:
        hx, d_output, d_state = h, d_rows, d_h
        d_packed = nbp.PackedSequence(d_rows, packed.batch_sizes, packed.sorted_indices, packed.unsorted_indices)
    by_rows = nbp.gru_backward(nbp.gru_forward(packed, weights, hx)[2], d_output, d_state)
    return by_rows, nbp.gru_backward(nbp.gru_forward(packed, weights, hx)[2], d_packed, d_state)


@pytest.mark.parametrize("given", [False, True], ids=["None", "given"])
def test_states_and_gradients_may_be_none_or_not(given):
    gru, packed = nbp.GRU(5, 3, rng=0), nbp.pack_ragged(*ragged(np.float32))
    h, d_rows = np.ones((1, len(LENGTHS), 3), np.float32), np.ones((sum(LENGTHS), 3), np.float32)
    tape = gru.forward(packed, h if given else None)[2]
    expected = gru.backward(tape, d_rows if given else None, 2 * h if given else None)
    for found in gru_training(packed, gru.weights, given, h, d_rows, 2 * h):
        np.testing.assert_array_equal(found.parameters, expected.parameters)
        np.testing.assert_array_equal(found.input.data, expected.input.data)
        np.testing.assert_array_equal(found.hx, expected.hx)


def test_what_may_be_none_is_of_the_right_type_where_it_is_not():
    @numba.njit
    def run(packed, weights, given, h):
        state = None
        if given:
            state = h
        return nbp.gru(packed, weights, state)[1]

    gru, packed = nbp.GRU(5, 3, rng=0), nbp.pack_ragged(*ragged(np.float32))
    with pytest.raises(numba.core.errors.TypingError, match="hx must be a float32 array"):
        run(packed, gru.weights, True, np.ones((1, len(LENGTHS), 3)))
    with pytest.raises(ValueError, match=r"hx.shape\[1\] must be the number of sequences: expected 8; got 2"):
        run(packed, gru.weights, True, np.ones((1, 2, 3), np.float32))


@numba.njit
def outputs(packed, weights):
    return nbp.run(packed, weights)[0].data


def test_one_function_is_not_taken_for_that_of_weights_whose_cell_has_the_same_name():
    # a cell and its variants have one name; Numba knows the types of arguments again by names
    packed = nbp.pack_sequence([np.ones((4, 5), np.float32)])
    layers = [nbp.GRU(5, 7, rng=0, **options) for options in ({}, {"zoneout": 0.3}, {"layer_norm": True})]
    for layer in [*layers, layers[0].with_precision("medium"), layers[0].quantize("int8"), *layers]:
        np.testing.assert_array_equal(outputs(packed, layer.weights), layer(packed)[0].data)
