"""Numbers at the edge: NaN and infinity in one sequence, denormal, huge and tiny weights, saturated gates.

`test_bits.py` shows that NaN in one sequence leaves the others alone; here sequences are spoilt at any step, in any
number, in every form, and results are held against the definition in float64.
"""

import helpers
import numpy as np
import pytest
from helpers import CELLS, DTYPES, LENGTHS, assert_same_bits, infer, make_case, make_layer, oracle, train
from hypothesis import given, settings
from hypothesis import strategies as st

import numba_pack as nbp


def finite(results):
    """Whether all of a nest of arrays is finite."""
    if isinstance(results, dict):
        return all(map(finite, results.values()))
    if isinstance(results, (list, tuple)):
        return all(map(finite, results))
    return bool(np.isfinite(results).all())


# -- NaN and infinity --------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=100)
@given(
    cell=st.sampled_from(CELLS),
    lengths=st.lists(st.integers(0, 9), min_size=2, max_size=14),
    units=st.integers(2, 40),
    bad=st.sampled_from([np.nan, np.inf, -np.inf, 3e38]),
    data=st.data(),
)
def test_what_is_spoilt_at_any_step_of_any_sequences_stays_there(cell, lengths, units, bad, data):
    layer = make_layer(cell, 3, units, num_layers=2, bidirectional=True)
    case = make_case(layer, lengths)
    clean = infer(layer, case)
    spoilt = data.draw(st.sets(st.sampled_from(range(len(lengths))), max_size=len(lengths) - 1), label="spoilt")
    for i in spoilt:
        if lengths[i]:
            step = data.draw(st.integers(0, lengths[i] - 1), label="step")
            case.sequences[i][step, data.draw(st.integers(0, 2))] = bad
        for part in helpers.as_tuple(case.hx):
            part[:, i, 0] = bad
    others = [i for i in range(len(lengths)) if i not in spoilt]
    outputs, state = infer(layer, case)
    assert_same_bits([outputs[i] for i in others], [clean[0][i] for i in others])
    assert_same_bits(tuple(part[:, others] for part in state), tuple(part[:, others] for part in clean[1]))
    assert finite([outputs[i] for i in others])


@pytest.mark.parametrize("cell", CELLS)
def test_steps_before_the_spoilt_one_are_as_they_were(cell):
    layer = make_layer(cell, 3, 19)
    case = make_case(layer, LENGTHS)
    clean = infer(layer, case)[0]
    case.sequences[2][5] = np.nan
    spoilt = infer(layer, case)[0]
    assert_same_bits(spoilt[2][:5], clean[2][:5])
    assert np.isnan(spoilt[2][5:]).all()


def test_what_stands_behind_the_end_of_a_padded_sequence_is_not_read():
    layer = make_layer("lstm", 3, 19, bidirectional=True)
    padded = np.full((9, 3, 3), np.nan, np.float32)
    lengths = [4, 9, 0]
    for i, length in enumerate(lengths):
        padded[:length, i] = i + 1
    packed = nbp.pack_padded_sequence(padded, lengths)
    output, state = layer(packed)
    assert finite((output.data, state))


@pytest.mark.parametrize("cell", ["rnn-tanh", "lstm", "gru"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_infinite_input_saturates_where_mathematics_does(cell, dtype):
    """With positive weights every gate is at a limit, and so are the outputs; none is NaN."""
    layer = make_layer(cell, 3, 5, dtype=dtype)
    layer.parameters = np.abs(layer.parameters)
    for sign in (1, -1):
        x = np.full((1, 1, 3), sign * np.inf, dtype)
        output = layer(x)[0]
        # LSTM: i = o = 1, g = 1, so c = 1; at -inf i = o = 0. GRU: z = 1 keeps h = 0; at -inf z = 0, and n = -1
        expected = {"rnn-tanh": (1, -1), "lstm": (np.tanh(dtype(1)), 0), "gru": (0, -1)}[cell][sign < 0]
        np.testing.assert_allclose(output, expected, rtol=4 * np.finfo(dtype).eps)


# -- weights, inputs and states of extreme size ------------------------------------------------------------------------


def tiny(dtype):
    return float(np.finfo(dtype).tiny)


SCALES = {
    "zero": lambda dtype: 0.0,
    "denormal": lambda dtype: tiny(dtype) / 64,
    "least-normal": tiny,
    "tiny": lambda dtype: np.sqrt(tiny(dtype)),
    "large": lambda dtype: 1e3,
    "huge": lambda dtype: np.sqrt(float(np.finfo(dtype).max)) / 1e4,
}
#: whose state and gradients are bounded, whatever the weights
BOUNDED = ["rnn-tanh", "lstm", "gru"]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("scale", ["zero", "denormal", "least-normal", "tiny"])
@pytest.mark.parametrize("cell", CELLS)
def test_small_weights_give_what_the_definition_gives(cell, dtype, scale):
    layer = make_layer(cell, 3, 19, num_layers=2, dtype=dtype)
    layer.parameters = (layer.parameters * SCALES[scale](dtype)).astype(dtype)
    case = make_case(layer, LENGTHS)
    got = train(layer, case)
    assert finite(got)
    if cell == "rnn-relu" and scale in ("denormal", "least-normal"):
        layer.parameters = layer.parameters * 0  # sums that are denormal numbers are zero, where relu has no slope
    helpers.assert_results_near(layer, LENGTHS, got, oracle(layer, case))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("cell", CELLS)
def test_inputs_and_states_of_any_size_give_finite_results_and_gradients(cell, dtype, scale):
    layer = make_layer(cell, 3, 19, num_layers=2, dtype=dtype)
    case = make_case(layer, LENGTHS)
    factor = dtype(SCALES[scale](dtype))
    for array in (*case.sequences, *helpers.as_tuple(case.hx)):
        array *= factor
    results = train(layer, case)
    assert finite(results)
    if scale in ("zero", "denormal", "least-normal", "tiny"):
        helpers.assert_results_near(layer, LENGTHS, results, oracle(layer, case))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("scale", ["large", "huge"])
@pytest.mark.parametrize("cell", BOUNDED)
def test_saturated_gates_give_finite_gradients_that_vanish(cell, dtype, scale):
    """Huge weights put every gate at a limit: its slope is 0, so nothing reaches the gates, and no 0 times infinity."""
    layer = make_layer(cell, 3, 19, dtype=dtype)
    layer.parameters = (layer.parameters * SCALES[scale](dtype)).astype(dtype)
    case = make_case(layer, LENGTHS)
    results = train(layer, case)
    assert finite(results)
    assert max(np.abs(output).max() for output in results.outputs if output.size) <= max(
        1.0, np.abs(helpers.as_tuple(case.hx)[0]).max()
    )
    if scale == "huge":
        settled = [array for array in results.d_parameters.values() if array.size]
        share = np.mean(np.concatenate([(array == 0).ravel() for array in settled]))
        assert share > 0.9, f"{share:.0%} of the gradients are 0"


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("gate", [-np.inf, np.inf], ids=["closed", "open"])
def test_an_lstm_whose_gates_are_closed_or_open_for_good(dtype, gate):
    """A bias of 1e4 for the forget gate keeps c for ever, and its gradient; of -1e4, forgets both at once."""
    layer = make_layer("lstm", 2, 3, dtype=dtype)
    bias = np.zeros((4, 3), dtype)
    bias[1] = np.copysign(dtype(1e4), gate)
    bias[0] = -1e4  # nothing comes in
    layer.load_state_dict({**layer.state_dict(), "bias_ih_l0": bias.ravel()})
    T = 500
    h, c = np.zeros((1, 1, 3), dtype), np.full((1, 1, 3), 0.5, dtype)
    _, (_, c_n), tape = layer.forward(np.ones((T, 1, 2), dtype), (h, c))
    d_c = np.full((1, 1, 3), 0.25, dtype)
    gradients = layer.backward(tape, None, (None, d_c))
    np.testing.assert_array_equal(c_n, c if gate > 0 else 0 * c)
    np.testing.assert_array_equal(gradients.hx[1], d_c if gate > 0 else 0 * d_c)
    assert finite(tuple(gradients))


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_denormal_gradients_are_zero_and_normal_ones_come_through(cell, dtype):
    """Kernels flush to zero what is too small to be a normal number, since computing with it is slow."""
    layer = make_layer(cell, 3, 5, dtype=dtype)
    case = make_case(layer, (1, 1))

    def scaled(factor):
        d_state = tuple(factor * d for d in helpers.as_tuple(case.d_state))
        d_state = d_state if isinstance(case.d_state, tuple) else d_state[0]
        return case._replace(d_outputs=[factor * d for d in case.d_outputs], d_state=d_state)

    full = train(layer, case).d_inputs
    normal = dtype(2.0**24 * tiny(dtype))
    for one, other in zip(full, train(layer, scaled(normal)).d_inputs, strict=True):
        np.testing.assert_allclose(other, one.astype(float) * float(normal), rtol=0, atol=1000 * tiny(dtype))
        assert np.any(other != 0)
    assert all(np.all(d == 0) for d in train(layer, scaled(dtype(tiny(dtype) / 2**10))).d_inputs)
