"""The cells of ONNX's nodes against their definition (naive_onnx.py), forward and backward, and what else they are."""

import copy
import pickle

import naive_onnx
import numpy as np
import pytest
from helpers import assert_same_bits, largest, normal, tolerance
from hypothesis import given, settings
from hypothesis import strategies as st
from numba import njit

import numba_pack as nbp
from numba_pack import cells
from numba_pack.interop._both_ways import BothWays
from numba_pack.interop._onnx_cells import (
    ACTIVATIONS,
    DEFAULTS,
    GATES,
    PLACES,
    Composition,
    cell_of,
    composition_of,
    onnx_weights,
    state_dict,
)

#: unsorted, two alike, two empty
LENGTHS = (4, 0, 9, 1, 4, 0, 6)
K, H = 3, 19  # inputs; units: more than one vector in either dtype, and no whole number of them
#: none of them the default
ALPHA = {"Affine": 0.6, "LeakyRelu": 0.2, "ThresholdedRelu": 0.3, "ScaledTanh": 1.3, "HardSigmoid": 0.3, "Elu": 0.7}
BETA = {"Affine": 0.1, "ScaledTanh": 0.8, "HardSigmoid": 0.4}
CLIP = 0.3
NAMES = list(ACTIVATIONS)

RNN_CLIP = Composition("RNN", ("Tanh",), clip=True)
#: in which are every activation and every option
QUICK = [
    RNN_CLIP,
    Composition("GRU", DEFAULTS["GRU"]),
    Composition("GRU", ("HardSigmoid", "Softplus"), clip=True),
    Composition("GRU", ("Sigmoid", "Elu"), clip=True, linear_before_reset=True),
    Composition("LSTM", ("Affine", "ScaledTanh", "LeakyRelu"), clip=True),
    Composition("LSTM", ("Relu", "Softplus", "ThresholdedRelu"), peepholes=True),
    Composition("LSTM", ("HardSigmoid", "Softsign", "Elu"), clip=True, peepholes=True, input_forget=True),
]


def compositions():
    """Every activation alone, and every option with every other; activations in all places are in `QUICK`."""
    for name in NAMES:
        yield Composition("RNN", (name,))
    for clip in (False, True):
        for linear in (False, True):
            yield Composition("GRU", DEFAULTS["GRU"], clip=clip, linear_before_reset=linear)
        for peepholes in (False, True):
            for input_forget in (False, True):
                yield Composition("LSTM", DEFAULTS["LSTM"], clip, peepholes, input_forget)


EVERY = [
    *[pytest.param(of, id=str(of)) for of in QUICK],
    *[pytest.param(of, id=str(of), marks=pytest.mark.slow) for of in dict.fromkeys(compositions()) if of not in QUICK],
]
#: whose kernels the tests above have compiled
SOME = [RNN_CLIP, QUICK[2], QUICK[3], QUICK[-1]]


def weights(of, D=1, dtype=np.float32, inputs=K, units=H, rng=0):
    """W, R, B and P of ONNX, small enough for activations without bounds to stay in range; P may be None."""
    rng, G = np.random.default_rng(rng), len(GATES[of.operator]) * units
    shapes = [(D, G, inputs), (D, G, units), (D, 2 * G), (D, 3 * units)]
    W, R, B, P = ((0.5 / np.sqrt(units) * rng.standard_normal(shape)).astype(dtype) for shape in shapes)
    return W * 2, R, B, P if of.peepholes else None


def numbers(of):
    """The constants of the cell, as options of a layer."""
    found = {"clip": CLIP} if of.clip else {}
    for place, name in zip(PLACES, of.activations, strict=False):
        found |= {
            f"{place}_{label}": table[name] for label, table in (("alpha", ALPHA), ("beta", BETA)) if name in table
        }
    return found


def make(of, D=1, dtype=np.float32, units=H, inputs=K, reverse=False, **options):
    layer = cell_of(of)(
        inputs, units, bidirectional=D == 2, reverse=reverse, dtype=dtype, rng=0, **numbers(of), **options
    )
    W, R, B, P = weights(of, D, dtype, inputs, units)
    layer.load_state_dict(
        {
            name + end: value
            for d, end in enumerate(("_l0", "_l0_reverse")[:D])
            for name, value in state_dict(
                of.operator, layer.cell, W[d], R[d], B[d], None if P is None else P[d]
            ).items()
        }
    )
    return layer


def oracle(of, W, R, B, P, sequences, h_0, c_0, direction):
    """What ONNX says that outputs and last states are."""
    names = of.activations * len(W)
    return naive_onnx.forward(
        of.operator, W, R, B, np.zeros((len(W), 3 * R.shape[2])) if P is None else P, sequences, h_0, c_0, names,
        [ALPHA[name] for name in names if name in ALPHA], [BETA[name] for name in names if name in BETA], direction,
        CLIP if of.clip else None, of.input_forget, of.linear_before_reset,
    )  # fmt: skip


def parts_of(state):
    return state if isinstance(state, tuple) else (state,)


def state_of(of, h, c):
    return (h, c) if of.operator == "LSTM" else h


def run(layer, sequences, hx=None):
    output, state = layer(nbp.pack_sequence(sequences), hx)
    return nbp.unpack_sequence(output), parts_of(state)


# -- against the definition --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "of, dtype",
    [
        *(pytest.param(*one.values, np.float64, id=f"{one.id}-float64", marks=one.marks) for one in EVERY),
        *(pytest.param(of, np.float32, id=f"{of}-float32") for of in QUICK),
    ],
)
def test_outputs_and_states_are_those_of_the_definition(of, dtype):
    rng = np.random.default_rng(1)
    sequences = [normal(rng, (n, K), dtype) for n in LENGTHS]
    for direction, D in (("forward", 1), ("reverse", 1), ("bidirectional", 2)):
        h, c = normal(rng, (2, D, len(LENGTHS), H), dtype)
        layer = make(of, D, dtype, reverse=direction == "reverse")
        for hx, first in ((None, np.zeros_like([h, c])), (state_of(of, h, c), (h, c))):
            outputs, *states = oracle(of, *weights(of, D, dtype), sequences, *first, direction)
            got, state = run(layer, sequences, hx)
            for one, other in zip([*got, *state], [*outputs, *states], strict=of.operator == "LSTM"):
                assert (one.dtype, one.shape) == (np.dtype(dtype), other.shape)
                atol = tolerance(layer, LENGTHS, largest([other]))
                np.testing.assert_allclose(one, other, rtol=0, atol=atol, err_msg=direction)


@pytest.mark.parametrize("of", QUICK, ids=str)
def test_gradients_are_those_of_finite_differences(of):
    """In float64, of a loss in which all outputs and last states are."""
    rng, lengths, D, units = np.random.default_rng(2), (3, 1), 2, 2
    layer = make(of, D, np.float64, units, inputs=2)
    sequences = [rng.standard_normal((n, 2)) for n in lengths]
    h, c = rng.standard_normal((2, D, len(lengths), units))
    d_outputs = [rng.standard_normal((n, D * units)) for n in lengths]
    d_h, d_c = rng.standard_normal((2, D, len(lengths), units))

    def loss(W, R, B, P, h, c, *sequences):
        outputs, h_n, c_n = oracle(of, W, R, B, P, sequences, h, c, "bidirectional")
        total = sum(np.sum(d * output) for d, output in zip(d_outputs, outputs, strict=True)) + np.sum(d_h * h_n)
        return total + (np.sum(d_c * c_n) if of.operator == "LSTM" else 0)

    W, R, B, P = weights(of, D, np.float64, 2, units)
    expected = naive_onnx.gradients(loss, [W, R, B, np.zeros((D, 3 * units)) if P is None else P, h, c, *sequences])

    _, _, tape = layer.forward(nbp.pack_sequence(sequences), state_of(of, h, c))
    d_output = nbp.pack_sequence(d_outputs)
    found = layer.backward(tape, d_output, state_of(of, d_h, d_c))
    own = [
        onnx_weights(of.operator, layer.cell, {
            name.removesuffix(end): value
            for name, value in layer.views(found.parameters).items() if name.endswith(end)
        })
        for end in ("_l0", "_l0_reverse")
    ]  # fmt: skip
    got = [np.stack([each[name] for each in own]) for name in "WRB" + "P" * of.peepholes]
    got += [*parts_of(found.hx), *nbp.unpack_sequence(found.input)]
    if not of.peepholes:
        expected.pop(3)
    if of.operator != "LSTM":
        expected.pop(4)  # of c
    for one, other in zip(got, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(
    "dtype",
    [pytest.param(np.float32, id="float32"), pytest.param(np.float64, id="float64", marks=pytest.mark.slow)],
)
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_limits_and_nan(name, dtype):
    """An RNN without weights but for the one of its input is its activation."""
    layer = cell_of(Composition("RNN", (name,)))(1, 1, bias=False, dtype=dtype, **numbers(Composition("RNN", (name,))))
    layer.load_state_dict({"weight_ih_l0": np.ones((1, 1)), "weight_hh_l0": np.zeros((1, 1))})
    x = np.array([-np.inf, -1e30, -200, -50, -0.0, 0.0, 50, 200, 1e30, np.inf], dtype)
    # each in a sequence of its own, as 0 * infinity in the step after it would be NaN
    got = [layer(np.array([[value]]))[0][0, 0] for value in x]
    expected = [naive_onnx.FORMULAS[name](float(value), ALPHA.get(name), BETA.get(name)) for value in x]
    if name == "Softsign":
        expected[0], expected[-1] = -1, 1  # where the formula is infinity over infinity
    np.testing.assert_allclose(got, np.array(expected, dtype), rtol=8 * np.finfo(dtype).eps, atol=1e-37)
    assert np.isnan(layer(np.array([[np.nan]], dtype))[0][0, 0])


def test_what_is_not_given_is_the_default_of_the_operator_of_that_name():
    for name, (alpha, beta) in naive_onnx.DEFAULTS.items():
        of = Composition("RNN", (name,))
        found = {"f_alpha": alpha} | ({"f_beta": beta} if name in BETA else {})
        assert cell_of(of).defaults == found


# -- which cell it is --------------------------------------------------------------------------------------------------


def test_equal_attributes_have_one_cell_and_other_numbers_the_same():
    of = Composition("GRU", ("HardSigmoid", "Elu"), clip=True)
    assert cell_of(of) is cell_of(Composition("GRU", ("HardSigmoid", "Elu"), True))
    one, other = cell_of(of)(3, 2, f_alpha=0.3, clip=1.0), cell_of(of)(3, 2)
    assert type(one.weights) is type(other.weights)
    assert cell_of(of._replace(clip=False)) is not cell_of(of)
    assert all(composition_of(cell_of(each)) == each for each in QUICK)
    assert composition_of(cells.SRU) is None


def test_cells_that_have_a_name_are_those_of_that_name():
    found = [cell_of(of) for of in (
        Composition("RNN", ("Tanh",)), Composition("RNN", ("Relu",)), Composition("GRU", DEFAULTS["GRU"]),
        Composition("GRU", DEFAULTS["GRU"], linear_before_reset=True), Composition("LSTM", DEFAULTS["LSTM"]),
        Composition("LSTM", DEFAULTS["LSTM"], peepholes=True), Composition("LSTM", DEFAULTS["LSTM"], input_forget=True),
    )]  # fmt: skip
    assert found == [
        cells.RNNTanh, cells.RNNRelu, cells.GRUResetBefore, cells.GRU, cells.LSTM, cells.PeepholeLSTM, cells.CIFG
    ]  # fmt: skip


@pytest.mark.parametrize("of, plain", [
    (RNN_CLIP, lambda: nbp.RNN(K, H, rng=3)),
    (Composition("LSTM", DEFAULTS["LSTM"], clip=True), lambda: nbp.LSTM(K, H, rng=3)),
], ids=["RNN", "LSTM"])  # fmt: skip
def test_a_bound_that_nothing_reaches_changes_no_bit(of, plain):
    plain, layer = plain(), cell_of(of)(K, H)
    layer.load_state_dict(plain.state_dict())
    sequences = [normal(np.random.default_rng(n), (n, K), np.float32) for n in LENGTHS]
    assert_same_bits(run(layer, sequences), run(plain, sequences))


def test_a_layer_prints_what_it_is_and_its_cell_what_it_computes():
    of = Composition("LSTM", ("HardSigmoid", "Tanh", "Elu"), clip=True, peepholes=True)
    layer = cell_of(of)(K, H, reverse=True, clip=2.5, f_alpha=0.25)
    assert repr(layer) == "LSTM[HardSigmoid, Tanh, Elu, clip, peepholes](3, 19, reverse=True, clip=2.5, f_alpha=0.25)"
    assert "maximum(p_i * c + i, -clip)" in str(layer.cell)


# -- what every layer can do -------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=40)
@given(
    of=st.sampled_from(SOME), lengths=st.lists(st.integers(0, 9), min_size=1, max_size=30), data=st.data(),
)  # fmt: skip
def test_a_sequence_gives_the_same_in_any_choice_and_order_of_the_others(of, lengths, data):
    layer = make(of, 2)
    sequences = [normal(np.random.default_rng(i), (n, K), np.float32) for i, n in enumerate(lengths)]
    h, c = normal(np.random.default_rng(1), (2, 2, len(lengths), H), np.float32)
    chosen = data.draw(st.lists(st.sampled_from(range(len(lengths))), min_size=1, unique=True), label="chosen")
    outputs, state = run(layer, sequences, state_of(of, h, c))
    expected = [outputs[i] for i in chosen], tuple(part[:, chosen] for part in state)
    assert_same_bits(run(layer, [sequences[i] for i in chosen], state_of(of, h[:, chosen], c[:, chosen])), expected)


@pytest.mark.parametrize("of", SOME, ids=str)
def test_it_is_copied_and_pickled_with_its_cell_and_numbers(of):
    layer = make(of)
    x = np.ones((4, K), np.float32)
    for again in (pickle.loads(pickle.dumps(layer)), copy.copy(layer), copy.deepcopy(layer)):
        assert again.cell is layer.cell
        assert repr(again) == repr(layer)
        assert_same_bits(again(x), layer(x))


@njit
def compiled(packed, hx, weights):
    output, state, tape = nbp.run_forward(packed, weights, hx)
    return nbp.run(packed, weights, hx), output, state, nbp.run_backward(tape, output.data, state)


@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
def test_compiled_code_runs_and_trains_it_to_the_same_bits(reverse):
    of = SOME[-1]
    layer = make(of, reverse=reverse)
    packed = nbp.pack_sequence([normal(np.random.default_rng(n), (n, K), np.float32) for n in LENGTHS])
    hx = tuple(normal(np.random.default_rng(1), (2, 1, len(LENGTHS), H), np.float32))
    output, state, tape = layer.forward(packed, hx)
    gradients = layer.backward(tape, output, state)
    inferred, out, last, found = compiled(packed, hx, layer.weights)
    assert_same_bits((inferred[0].data, inferred[1]), (output.data, state))
    assert_same_bits((out.data, last), (output.data, state))
    assert_same_bits((found.input.data, found.hx, found.parameters), (gradients.input.data, *gradients[1:]))


@pytest.mark.parametrize("of", SOME, ids=str)
def test_symbols_are_the_one_hot_rows_that_they_stand_for(of):
    layer, symbols = make(of), np.array([2, 0, 1, 1])
    assert_same_bits(layer(symbols), layer(np.eye(K, dtype=np.float32)[symbols]))


# -- two directions that are unlike ------------------------------------------------------------------------------------


def both_and_plain(dtype=np.float32, **options):
    """A layer of two directions in either form, of the same parameters."""
    plain = nbp.LSTM(K, H, bidirectional=True, dtype=dtype, rng=0, **options)
    both = BothWays(cells.LSTM(K, H, dtype=dtype, **options), cells.LSTM(K, H, reverse=True, dtype=dtype, **options))
    both.load_state_dict(plain.state_dict())
    return both, plain


def test_both_ways_of_one_cell_are_the_bidirectional_layer():
    both, plain = both_and_plain()
    assert_same_bits(both.state_dict(), plain.state_dict())
    assert_same_bits(both.parameters, plain.parameters)
    x = normal(np.random.default_rng(0), (5, 4, K), np.float32)
    h, c = normal(np.random.default_rng(1), (2, 2, 4, H), np.float32)
    packed = nbp.pack_sequence([normal(np.random.default_rng(n), (n, K), np.float32) for n in (3, 0, 6, 2)])
    for input, hx in ((x, None), (x, (h, c)), (packed, (h, c)), (x[:, 0], None), (x[:, 0], (h[:, 0], c[:, 0]))):
        assert_same_bits(flat(both(input, hx)), flat(plain(input, hx)))
        (output, state, tape), (expected, last, other) = both.forward(input, hx), plain.forward(input, hx)
        assert_same_bits(flat((output, state)), flat((expected, last)))
        for arguments in ((output, state), (None, state), (output, None), (output, (None, state[1]))):
            found, wanted = both.backward(tape, *arguments), plain.backward(other, *arguments)
            assert_same_bits(flat(found[1:]), flat(wanted[1:]))
            for got, expected_input in zip(flat(found.input), flat(wanted.input), strict=True):
                np.testing.assert_allclose(got, expected_input, rtol=0, atol=1e-6)  # a sum over both directions
            tape, other = both.forward(input, hx)[2], plain.forward(input, hx)[2]
        assert both.backward(tape, output, input_grad=False).input is None


def flat(value):
    """The arrays of a result."""
    if isinstance(value, nbp.PackedSequence):
        return [value.data]
    return [array for part in value for array in flat(part)] if isinstance(value, (tuple, list)) else [value]


@pytest.mark.parametrize("forward, reverse, error, words", [
    (3, nbp.RNN(K, H), TypeError, "forward must be a layer; got int"),
    (nbp.RNN(K, H), nbp.RNN(K, H), ValueError, r"reverse must be one layer .* with reverse=True; got RNN\(3, 19\)"),
    (nbp.RNN(K, H, num_layers=2), None, ValueError, "forward must be one layer of one direction"),
    (nbp.RNN(K, H), cells.LSTM(K, H, reverse=True), ValueError, "must have as many states; got RNN.* and LSTM"),
    (nbp.RNN(K, H), cells.RNNTanh(K, 2, reverse=True), ValueError, "forward and reverse must have one hidden_size"),
    (nbp.RNN(K, H), cells.RNNTanh(K, H, reverse=True, dtype="f8"), ValueError, "must have one dtype"),
], ids=lambda value: str(value)[:30])  # fmt: skip
def test_both_ways_are_of_two_layers_that_fit(forward, reverse, error, words):
    with pytest.raises(error, match=words):
        BothWays(forward, reverse)


def test_both_ways_keep_their_forms_when_copied_and_refuse_what_does_not_fit():
    both, _ = both_and_plain(batch_first=True)
    x = normal(np.random.default_rng(0), (2, 5, K), np.float32)
    for again in (pickle.loads(pickle.dumps(both)), copy.deepcopy(both)):
        assert_same_bits(again(x), both(x))
        assert (
            repr(again)
            == repr(both)
            == "BothWays(LSTM(3, 19, batch_first=True), LSTM(3, 19, batch_first=True, reverse=True))"
        )
    before = both.parameters
    with pytest.raises(AttributeError, match="layers is fixed"):
        both.layers = ()
    for value, error, words in (
        (before[1:], ValueError, r"parameters must have shape \(3648,\)"),
        (before.astype("f8"), TypeError, "parameters must have dtype float32"),
        (before * np.float32(np.nan), ValueError, "parameters must be finite; got nan"),
    ):
        with pytest.raises(error, match=words):
            both.parameters = value
    parameters = both.state_dict()
    with pytest.raises(ValueError, match="missing"):
        both.load_state_dict({name: value * 2 for name, value in parameters.items() if name != "bias_hh_l0_reverse"})
    with pytest.raises(TypeError, match="state_dict must be a mapping of names to arrays; got list"):
        both.load_state_dict([])
    assert_same_bits(both.parameters, before)
    with pytest.raises(ValueError, match=r"vector must be an array of shape \(3648,\)"):
        both.views(before[1:])
    h = np.zeros((1, 2, H), np.float32)
    with pytest.raises(ValueError, match=r"hx\[0\] must have shape \(2, B, H\), of both directions; got \(1, 2, 19\)"):
        both(x, (h, h))
    with pytest.raises(TypeError, match=r"hx must be a NumPy array; got int"):
        both(x, 3)
    output, _, tape = both.forward(x)
    with pytest.raises(ValueError, match=r"d_output must have 2 \* H = 38 columns; got shape"):
        both.backward(tape, output[..., 1:])
    with pytest.raises(TypeError, match="d_output must be a NumPy array; got list"):
        both.backward(tape, [1.0])
    with pytest.raises(TypeError, match="tape must be what forward returned third; got int"):
        both.backward(3)
