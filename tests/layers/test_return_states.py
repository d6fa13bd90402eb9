"""`return_states`: every state at every step, in the form of the input, and the gradients that come back to them."""

import helpers
import numpy as np
import pytest
from helpers import as_tuple, assert_same_bits
from test_cell_bits import make_case, make_layer, used  # noqa: F401  (a fixture)
from test_gradients import differences

import numba_pack as nbp

LENGTHS = (4, 0, 7, 1, 4)
#: cells and the number of their states besides h
CELLS = [("LSTM", 1), ("GRU", 0), ("RNNTanh", 0), ("PeepholeLSTM", 1), ("SLSTM", 3), ("MinGRU", 0)]


def make(name="LSTM", units=5, return_states=True, **options):
    return make_layer(name, 3, units, return_states=return_states, **options)


def unpacked(output):
    """For each state, its sequences."""
    return [nbp.unpack_sequence(part) for part in output]


# -- forward -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name, others", CELLS)
def test_the_output_is_a_tuple_of_all_states_of_which_h_is_what_it_was(name, others):
    layer = make(name, bidirectional=True)
    case = make_case(layer, LENGTHS)
    packed = nbp.pack_sequence(case.sequences)
    output, state = layer(packed, case.hx)
    plain, plain_state = make(name, bidirectional=True, return_states=False)(packed, case.hx)
    assert isinstance(output, tuple) and len(output) == 1 + others
    assert_same_bits(output[0].data, plain.data)
    assert_same_bits(as_tuple(state), as_tuple(plain_state))
    recorded, _, _ = layer.forward(packed, case.hx)
    assert_same_bits([part.data for part in recorded], [part.data for part in output])
    for part in output:
        assert_same_bits(list(part[1:]), list(packed[1:]))


@pytest.mark.parametrize("name", ["LSTM", "SLSTM"])
@pytest.mark.parametrize("num_layers", [1, 2])
def test_every_state_is_the_one_that_steps_with_the_state_carried_give(name, num_layers):
    layer = make(name, num_layers=num_layers)
    case = make_case(layer, LENGTHS)
    output, _ = layer(nbp.pack_sequence(case.sequences), case.hx)
    for b, sequence in enumerate(case.sequences):
        state = tuple(part[:, b] for part in case.hx)
        for t, x in enumerate(sequence):
            _, state = layer(x[None], state)
            for shown, part in zip(unpacked(output), state, strict=True):
                assert_same_bits(shown[b][t], part[-1])  # of the last layer


@pytest.mark.parametrize("dtype", helpers.DTYPES)
def test_of_both_directions_each_has_its_half_and_its_own_order(dtype):
    layer = make(num_layers=2, bidirectional=True, dtype=dtype)
    case = make_case(layer, LENGTHS)
    output, _ = layer(nbp.pack_sequence(case.sequences), case.hx)
    below, above = lstm_of(layer, "l0"), {end: one_way_of(layer, end) for end in ("l1", "l1_reverse")}
    H = layer.hidden_size
    for b, sequence in enumerate(case.sequences):
        hx = tuple(part[:, b] for part in case.hx)
        between, _ = below(sequence, tuple(part[:2] for part in hx))
        for half, (end, one_way) in enumerate(above.items()):
            steps = between[0][::-1] if end.endswith("reverse") else between[0]
            expected, _ = one_way(np.ascontiguousarray(steps), tuple(part[2 + half :][:1] for part in hx))
            for shown, part in zip(unpacked(output), expected, strict=True):
                got = shown[b][:, half * H : (half + 1) * H]
                assert_same_bits(got, part[::-1] if end.endswith("reverse") else part)


def lstm_of(layer, end):
    """Both directions of one layer of a stack."""
    one = make("LSTM", bidirectional=True, dtype=layer.dtype, num_layers=1)
    one.load_state_dict({key.replace(end, "l0"): v for key, v in layer.state_dict().items() if end in key})
    return one


def one_way_of(layer, end):
    """One direction of an upper layer, which goes forward."""
    inputs = layer.num_directions * layer.hidden_size
    one = nbp.LSTM(inputs, layer.hidden_size, return_states=True, dtype=layer.dtype)
    one.load_state_dict({k.removesuffix(end) + "l0": v for k, v in layer.state_dict().items() if k.endswith(end)})
    return one


@pytest.mark.parametrize("batch_first", [False, True], ids=["time-first", "batch-first"])
def test_packed_padded_and_single_input_give_the_same(batch_first):
    packed = make(num_layers=2, bidirectional=True)
    padded = make(num_layers=2, bidirectional=True, batch_first=batch_first)
    case = make_case(packed, (6, 6, 6))
    output, _, tape = packed.forward(nbp.pack_sequence(case.sequences), case.hx)
    d = [nbp.pack_sequence([(i + 1) * x for x in case.d_outputs]) for i in range(2)]
    expected = packed.backward(tape, tuple(d), case.d_state)

    axis = 0 if batch_first else 1
    shown, _, tape = padded.forward(np.stack(case.sequences, axis), case.hx)
    stacked = np.stack(case.d_outputs, axis)
    gradients = padded.backward(tape, (stacked, 2 * stacked), case.d_state)
    for part, of_packed in zip(shown, unpacked(output), strict=True):
        assert_same_bits(list(np.moveaxis(part, axis, 0)), of_packed)
    assert_same_bits(gradients.parameters, expected.parameters)
    assert_same_bits(gradients.hx, expected.hx)
    assert_same_bits(list(np.moveaxis(gradients.input, axis, 0)), nbp.unpack_sequence(expected.input))

    single, _ = packed(case.sequences[0], tuple(part[:, 0] for part in case.hx))
    assert_same_bits(list(single), [part[0] for part in unpacked(output)])


def test_neighbours_and_threads_change_no_bit(used):  # noqa: F811
    layer = make(units=19, num_layers=2, bidirectional=True)
    case = make_case(layer, LENGTHS)

    def all_of(case):
        output, _, tape = layer.forward(nbp.pack_sequence(case.sequences), case.hx)
        d = nbp.pack_sequence(case.d_outputs)
        gradients = layer.backward(tape, (d, d), case.d_state)
        return unpacked(output), nbp.unpack_sequence(gradients.input), gradients.hx

    whole = all_of(case)
    with nbp.threads(2):
        assert_same_bits(all_of(case), whole)
    assert used[-1] == (2, 2)
    for b in range(len(LENGTHS)):
        states, d_input, d_hx = all_of(helpers.of_sequences(case, [b]))
        assert_same_bits([part[0] for part in states], [part[b] for part in whole[0]])
        assert_same_bits(d_input[0], whole[1][b])
        assert_same_bits(d_hx, tuple(part[:, [b]] for part in whole[2]))


# -- backward ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name, options",
    [
        ("LSTM", {"bidirectional": True}),
        ("GRU", {}),
        ("SLSTM", {"bidirectional": True}),
        ("PeepholeLSTM", {"num_layers": 1}),
    ],
)
def test_the_gradients_are_those_of_finite_differences(name, options):
    layer = make(name, units=3, **options)
    case = make_case(layer, (3, 0, 2))
    packed, rng = nbp.pack_sequence(case.sequences), np.random.default_rng(8)
    output, _, tape = layer.forward(packed, case.hx)
    d_output = tuple(rng.standard_normal(part.data.shape) for part in output)
    gradients = layer.backward(tape, d_output, case.d_state)
    parameters, hx = layer.parameters, as_tuple(case.hx)

    def loss(data=packed.data, states=hx, vector=parameters):
        layer.parameters = vector
        output, state = layer(packed._replace(data=data), states if len(states) > 1 else states[0])
        pairs = [(part.data, d) for part, d in zip(output, d_output, strict=True)]
        pairs += zip(as_tuple(state), as_tuple(case.d_state), strict=True)
        return sum(float((value * d).sum()) for value, d in pairs)

    def near(got, expected):
        scale = max(1.0, np.abs(expected).max())
        assert np.abs(expected).max() > 0.01
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-8 * scale)

    near(gradients.parameters, differences(lambda x: loss(vector=x), parameters))
    near(gradients.input.data, differences(lambda x: loss(data=x), packed.data))
    for i, got in enumerate(as_tuple(gradients.hx)):
        near(got, differences(lambda x, i=i: loss(states=(*hx[:i], x, *hx[i + 1 :])), hx[i]))


@pytest.mark.parametrize("name", ["LSTM", "SLSTM"])
def test_a_gradient_that_is_none_is_zero(name):
    layer = make(name, bidirectional=True)
    plain, case = make(name, bidirectional=True, return_states=False), make_case(layer, LENGTHS)
    packed, d = nbp.pack_sequence(case.sequences), nbp.pack_sequence(case.d_outputs)
    nones = (None,) * layer.cell.others
    zeros = tuple(np.zeros((sum(LENGTHS), 2 * layer.hidden_size)) for _ in nones)

    def back(of, d_output):
        return of.backward(of.forward(packed, case.hx)[2], d_output, case.d_state)

    assert_same_bits(back(layer, (d, *nones)), back(plain, d))
    assert_same_bits(back(layer, None), back(plain, None))
    assert_same_bits(back(layer, (None, *nones)), back(plain, None))
    assert_same_bits(back(layer, (d, *zeros)), back(plain, d))


def test_a_gradient_that_is_no_tuple_of_all_states_is_told():
    layer = make()
    case = make_case(layer, LENGTHS)
    packed, d = nbp.pack_sequence(case.sequences), nbp.pack_sequence(case.d_outputs)
    tape = layer.forward(packed, case.hx)[2]
    with pytest.raises(TypeError, match=r"d_output must be a tuple, as the output with return_states; got .*Packed"):
        layer.backward(tape, d)
    with pytest.raises(TypeError, match="d_output must be a tuple of 2; got a tuple of 1"):
        layer.backward(tape, (d,))
    with pytest.raises(ValueError, match=r"d_output\[1\]"):
        layer.backward(tape, (d, d.data[:, 1:]))
    with pytest.raises(TypeError, match=r"d_output\[1\]"):
        layer.backward(tape, (d, d.data.astype(np.float32)))
    layer.backward(tape, (d, d.data))  # none of which used the tape up


@pytest.mark.parametrize("value", [1, "yes", None])
def test_the_option_is_a_bool(value):
    with pytest.raises(TypeError, match="return_states must be"):
        nbp.LSTM(3, 2, return_states=value)


def test_it_is_shown_and_cannot_be_changed():
    layer = nbp.LSTM(3, 2, return_states=True)
    assert repr(layer) == "LSTM(3, 2, return_states=True)"
    with pytest.raises(AttributeError):
        layer.return_states = False
