"""Layers of composed cells against their definition (naive_onnx.py), against the plain layers, and bit for bit."""

import pickle
from types import SimpleNamespace

import naive_onnx
import numpy as np
import pytest
from helpers import DTYPES, assert_same_bits, largest, normal, tolerance
from hypothesis import given, settings
from hypothesis import strategies as st

import numba_pack as nbp
from numba_pack.cells.composed import ACTIVATIONS
from numba_pack.cpu import engine
from numba_pack.cpu import threads as pool
from numba_pack.layers.composed import DEFAULTS, ComposedLayer

GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
#: unsorted, two alike, two empty
LENGTHS = (4, 0, 9, 1, 4, 0, 6)
K, H = 3, 19  # inputs; units: more than one vector in either dtype, and no whole number of them
#: alpha and beta of activations that have no default, or are tried with others than that
ALPHA = {"Affine": 0.6, "LeakyRelu": 0.2, "ThresholdedRelu": 0.3, "ScaledTanh": 1.3, "HardSigmoid": 0.3, "Elu": 0.7}
BETA = {"Affine": 0.1, "ScaledTanh": 0.8, "HardSigmoid": 0.4}
NO_DEFAULT = ("Affine", "ScaledTanh")


def weights(kind, D=1, peepholes=False, dtype=np.float32, inputs=K, units=H, rng=0):
    """W, R, B and P, small enough for activations without bounds to stay in range."""
    rng, G = np.random.default_rng(rng), GATES[kind] * units
    shapes = [(D, G, inputs), (D, G, units), (D, 2 * G), (D, 3 * units if peepholes else 0)]
    W, R, B, P = ((0.5 / np.sqrt(units) * rng.standard_normal(shape)).astype(dtype) for shape in shapes)
    return W * 2, R, B, P if peepholes else None


def states(kind, D, B, dtype, rng=1):
    """A first state as the layer takes it."""
    h, c = normal(np.random.default_rng(rng), (2, D, B, H), dtype)
    return (h, c) if kind == "LSTM" else h


def check(kind, options, dtype=np.float32, peepholes=False, lengths=LENGTHS, with_hx=True):
    """The layer is as near to the oracle as rounding lets it be; returns what it gives."""
    D = 2 if options.get("direction") == "bidirectional" else 1
    W, R, B, P = weights(kind, D, peepholes, dtype)
    layer = ComposedLayer(kind, W, R, B, P, **options)
    sequences = [normal(np.random.default_rng(i), (n, K), dtype) for i, n in enumerate(lengths)]
    hx = states(kind, D, len(lengths), dtype) if with_hx else None
    output, state = layer(nbp.pack_sequence(sequences), hx)
    h_0, c_0 = np.zeros((2, D, len(lengths), H)) if hx is None else hx if kind == "LSTM" else (hx, np.zeros_like(hx))
    options = {"activations": DEFAULTS[kind] * D, "activation_alpha": (), "activation_beta": (), **options}
    outputs, *expected = naive_onnx.forward(
        kind, W, R, B, np.zeros((D, 3 * H)) if P is None else P, sequences, h_0, c_0, options.pop("activations"),
        options.pop("activation_alpha"), options.pop("activation_beta"), **options,
    )  # fmt: skip
    sizes = SimpleNamespace(
        input_size=K, hidden_size=H, output_size=H, num_layers=1, num_directions=D, dtype=np.dtype(dtype)
    )
    got = [*nbp.unpack_sequence(output), *(state if kind == "LSTM" else (state,))]
    assert len(got) == len(lengths) + (2 if kind == "LSTM" else 1)
    for one, other in zip(got, [*outputs, *expected], strict=False):
        assert (one.dtype, one.shape) == (np.dtype(dtype), other.shape)
        np.testing.assert_allclose(one, other, rtol=0, atol=tolerance(sizes, lengths, largest([other])))
    return got


def values_of(names, table, given):
    """The alphas, or betas, of these activations; those with a default only if they are to be given."""
    return [table[name] for name in names if name in table and (given or name in NO_DEFAULT)]


def composition(names, given=True):
    return {
        "activations": names,
        "activation_alpha": values_of(names, ALPHA, given),
        "activation_beta": values_of(names, BETA, given),
    }


# -- against the definition --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("given", [False, True], ids=["defaults", "alpha-beta"])
@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("kind", GATES)
def test_every_activation_in_every_place(kind, name, given, dtype):
    for place in range(len(DEFAULTS[kind])):
        names = list(DEFAULTS[kind])
        names[place] = name
        check(kind, composition(names, given), dtype)


OPTIONS = {
    "RNN": [{}],
    "GRU": [{"linear_before_reset": False}, {"linear_before_reset": True}],
    "LSTM": [{"input_forget": False}, {"input_forget": True}],
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("with_hx", [False, True], ids=["no-hx", "hx"])
@pytest.mark.parametrize("clip", [None, 0.2])
@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("kind", GATES)
def test_every_option_with_every_other(kind, direction, clip, with_hx, dtype):
    names = ("Sigmoid", "Elu", "Softsign")[: len(DEFAULTS[kind])]
    if direction == "bidirectional":
        names += ("HardSigmoid", "Tanh", "Softplus")[: len(DEFAULTS[kind])]
    for options in OPTIONS[kind]:
        for peepholes in (False, True) if kind == "LSTM" else (False,):
            check(
                kind, {"direction": direction, "clip": clip, "activations": names, **options}, dtype, peepholes,
                with_hx=with_hx,
            )  # fmt: skip


def test_alphas_go_to_the_activations_that_have_one():
    names = ("Sigmoid", "LeakyRelu", "Tanh", "HardSigmoid", "Tanh", "Elu")
    options = {"direction": "bidirectional", "activations": names}
    some = check("LSTM", {**options, "activation_alpha": (0.3, 0.1), "activation_beta": (0.6,)})
    every = check("LSTM", {**options, "activation_alpha": (0.3, 0.1, 1.0), "activation_beta": (0.6,)})
    assert_same_bits(some, every)  # the last has its default


@pytest.mark.parametrize("kind", GATES)
def test_a_sequence_of_length_0_keeps_its_initial_state(kind):
    for direction in ("forward", "reverse", "bidirectional"):
        D = 2 if direction == "bidirectional" else 1
        layer = ComposedLayer(kind, *weights(kind, D), direction=direction)
        hx = states(kind, D, 3, np.float32)
        _output, state = layer(nbp.pack_sequence([np.ones((n, K), np.float32) for n in (0, 5, 0)]), hx)
        for before, after in zip(*((hx, state) if kind == "LSTM" else ([hx], [state])), strict=True):
            np.testing.assert_array_equal(after[:, [0, 2]], before[:, [0, 2]])
            assert not np.array_equal(after[:, 1], before[:, 1])
        only, _ = layer(nbp.pack_sequence([np.empty((0, K), np.float32)]))
        assert only.data.shape == (0, D * H)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_limits_and_nan(name, dtype):
    """An RNN without weights but for the one of its input is its activation."""
    layer = ComposedLayer("RNN", np.ones((1, 1, 1), dtype), np.zeros((1, 1, 1), dtype), **composition([name], False))
    x = np.array([-np.inf, -1e30, -200, -50, -0.0, 0.0, 50, 200, 1e30, np.inf], dtype)
    # each in a sequence of its own, as 0 * infinity in the step after it would be NaN
    got = [layer(np.array([[value]]))[0][0, 0] for value in x]
    a, b = naive_onnx.DEFAULTS.get(name, (ALPHA.get(name), BETA.get(name)))
    expected = np.array([naive_onnx.FORMULAS[name](float(value), a, b) for value in x], dtype)
    if name == "Softsign":
        expected[[0, -1]] = -1, 1  # where the formula is infinity over infinity
    np.testing.assert_allclose(got, expected, rtol=8 * np.finfo(dtype).eps, atol=1e-37)
    assert np.isnan(layer(np.array([[np.nan]], dtype))[0][0, 0])


# -- against the plain layers ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", GATES)
def test_with_default_options_the_bits_are_those_of_the_plain_layer(kind, dtype):
    order = {"RNN": [0], "GRU": [1, 0, 2], "LSTM": [0, 2, 3, 1]}[kind]
    W, R, B, _ = weights(kind, 2, dtype=dtype)
    plain = getattr(nbp, kind)(K, H, bidirectional=True, dtype=dtype)
    of_input, of_state = np.split(B, 2, axis=1)
    turned = [a.reshape(2, GATES[kind], H, -1)[:, order].reshape(a.shape) for a in (W, R, of_input, of_state)]
    names = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
    plain.load_state_dict(
        {name + end: a[d] for d, end in enumerate(("", "_reverse")) for name, a in zip(names, turned, strict=True)}
    )
    options = {"linear_before_reset": True} if kind == "GRU" else {}
    layer = ComposedLayer(kind, W, R, B, direction="bidirectional", **options)
    packed = nbp.pack_sequence([normal(np.random.default_rng(n), (n, K), dtype) for n in LENGTHS])
    hx = states(kind, 2, len(LENGTHS), dtype)
    for first in (None, hx):
        one, other = layer(packed, first), plain(packed, first)
        assert_same_bits(one[0].data, other[0].data)
        assert_same_bits(one[1], other[1])


# -- bit for bit -------------------------------------------------------------------------------------------------------

COMPOSED = [
    pytest.param("RNN", {"activations": ("Softplus",) * 2, "clip": 0.9}, id="rnn"),
    pytest.param("GRU", {"activations": ("HardSigmoid", "Elu") * 2}, id="gru"),
    pytest.param("GRU", {"linear_before_reset": True, "clip": 0.5}, id="gru-linear"),
    pytest.param("LSTM", {"activations": ("Sigmoid", "Softsign", "Tanh") * 2, "input_forget": True}, id="lstm"),
]


def make(kind, options, D=2, **sizes):
    options = dict(options)
    names = options.pop("activations", DEFAULTS[kind] * 2)[: D * len(DEFAULTS[kind])]
    return ComposedLayer(
        kind, *weights(kind, D, kind == "LSTM", **sizes), direction="bidirectional" if D == 2 else "forward",
        activations=names, **options,
    )  # fmt: skip


def run(layer, sequences, hx):
    output, state = layer(nbp.pack_sequence(sequences), hx)
    return nbp.unpack_sequence(output), state if layer.kind == "LSTM" else (state,)


@settings(deadline=None, max_examples=40)
@given(
    composed=st.sampled_from([param.values for param in COMPOSED]),
    lengths=st.lists(st.integers(0, 9), min_size=1, max_size=30),
    data=st.data(),
)
def test_a_sequence_gives_the_same_in_any_choice_and_order_of_the_others(composed, lengths, data):
    layer = make(*composed)
    sequences = [normal(np.random.default_rng(i), (n, K), np.float32) for i, n in enumerate(lengths)]
    hx = states(layer.kind, 2, len(lengths), np.float32)
    chosen = data.draw(st.lists(st.sampled_from(range(len(lengths))), min_size=1, unique=True), label="chosen")
    outputs, state = run(layer, sequences, hx)
    some = tuple(part[:, chosen] for part in hx) if layer.kind == "LSTM" else hx[:, chosen]
    expected = [outputs[i] for i in chosen], tuple(part[:, chosen] for part in state)
    assert_same_bits(run(layer, [sequences[i] for i in chosen], some), expected)


@pytest.mark.parametrize("kind, options", COMPOSED)
def test_any_number_of_threads_and_parts_gives_the_same(kind, options, monkeypatch):
    layer = make(kind, options)
    sequences = [normal(np.random.default_rng(n), (n, K), np.float32) for n in LENGTHS * 2]
    hx = states(kind, 2, len(sequences), np.float32)
    expected = run(layer, sequences, hx)
    calls, run_as_ever = [], pool.run
    monkeypatch.setattr(pool, "run", lambda tasks, workers: (calls.append(len(tasks)), run_as_ever(tasks, workers)))
    monkeypatch.setattr(engine, "WORTH_A_THREAD", 1.0)
    for n in (2, 3, 5):
        with nbp.threads(n):
            assert_same_bits(run(layer, sequences, hx), expected)
    assert calls == [2, 2, 3, 3, 5, 5]
    monkeypatch.setattr(engine, "SCRATCH_BYTES", 1000)
    with nbp.threads(1):
        assert_same_bits(run(layer, sequences, hx), expected)
    assert calls[-1] > 5


@pytest.mark.parametrize("kind, options", COMPOSED)
def test_chunks_with_the_state_carried_give_the_whole(kind, options):
    layer = make(kind, options, D=1)
    sequences = [normal(np.random.default_rng(n), (8, K), np.float32) for n in range(5)]
    whole = run(layer, sequences, None)
    first, state = run(layer, [sequence[:3] for sequence in sequences], None)
    second, state = run(layer, [sequence[3:] for sequence in sequences], state if kind == "LSTM" else state[0])
    assert_same_bits(([np.concatenate(pair) for pair in zip(first, second, strict=True)], state), whole)


@pytest.mark.parametrize("kind, options", COMPOSED)
def test_nan_in_one_sequence_reaches_no_other(kind, options):
    layer = make(kind, options)
    sequences = [normal(np.random.default_rng(n), (n, K), np.float32) for n in LENGTHS]
    clean, _ = run(layer, sequences, None)
    sequences[2][3] = np.nan
    spoilt, _ = run(layer, sequences, None)
    assert np.isnan(spoilt[2]).any()
    for i in set(range(len(LENGTHS))) - {2}:
        assert_same_bits(spoilt[i], clean[i])


@pytest.mark.parametrize("kind, options", COMPOSED)
def test_padded_single_and_packed_input_give_the_same(kind, options):
    layer, batch_first = make(kind, options), make(kind, {**options, "batch_first": True})
    x = normal(np.random.default_rng(0), (5, 4, K), np.float32)
    outputs, state = run(layer, list(x.swapaxes(0, 1)), None)
    padded, _ = layer(x)
    assert_same_bits(padded, np.stack(outputs, axis=1))
    assert_same_bits(batch_first(np.ascontiguousarray(x.swapaxes(0, 1)))[0], np.stack(outputs))
    single, last = layer(x[:, 1])
    assert_same_bits(single, outputs[1])
    assert_same_bits(last[0] if kind == "LSTM" else last, state[0][:, 1])


# -- what else it is ---------------------------------------------------------------------------------------------------


def test_it_is_pickled_without_what_is_good_in_one_process_only():
    layer = make("LSTM", {})
    x = np.ones((4, K), np.float32)
    expected = layer(x)
    again = pickle.loads(pickle.dumps(layer))
    assert again._packed is None
    assert not any(value.flags.writeable for value in again.state_dict().values())
    assert_same_bits(again(x)[0], expected[0])
    assert repr(again) == repr(layer)


def test_its_weights_are_copies_and_read_only():
    W, R, B, _ = weights("GRU")
    layer = ComposedLayer("GRU", W, R, B)
    x = np.ones((4, K), np.float32)
    expected = layer(x)[0]
    W[:] = 0
    assert_same_bits(layer(x)[0], expected)
    assert not any(value.flags.writeable for value in layer.state_dict().values())
    assert {name: value.shape for name, value in layer.state_dict().items()} == {
        "W": (1, 3 * H, K), "R": (1, 3 * H, H), "B": (1, 6 * H), "P": (1, 0),
    }  # fmt: skip


def test_warmup_takes_it():
    layer = make("GRU", {})
    nbp.warmup(layer, training=True)
    assert layer._packed is not None


def test_it_shows_its_options():
    W, R, B, P = weights("LSTM", 2, peepholes=True)
    layer = ComposedLayer("LSTM", W, R, B, P, direction="bidirectional", clip=2.5, input_forget=True)
    assert repr(layer) == (
        f"ComposedLayer('LSTM', input_size={K}, hidden_size={H}, direction='bidirectional', clip=2.5, peepholes, "
        "input_forget)"
    )


def test_what_it_is_does_not_change():
    layer = make("GRU", {})
    with pytest.raises(AttributeError, match="clip is fixed when the ComposedLayer is made"):
        layer.clip = 3.0


def test_training_is_refused_with_what_to_do():
    with pytest.raises(NotImplementedError, match=r"inference.*nbp\.RNN, LSTM and GRU"):
        make("GRU", {}).forward(np.ones((2, K), np.float32))
