"""Layers from weights as Keras lays them out, against its equations (naive_keras.py). Keras is not needed."""

import pickle
import re
import subprocess
import sys

import naive_keras
import numpy as np
import pytest
from helpers import DTYPES, LENGTHS, as_tuple, assert_near, assert_same_bits, normal

import numba_pack as nbp
from numba_pack.cells import GRUResetBefore
from numba_pack.interop.keras import from_arrays, merge

K, H = 3, 19  # inputs; units: more than one vector in either dtype, and no whole number of them
GATES = {"SimpleRNN": 1, "LSTM": 4, "GRU": 3}
#: kind and reset_after
KINDS = [
    pytest.param("SimpleRNN", True, id="SimpleRNN"),
    pytest.param("LSTM", True, id="LSTM"),
    pytest.param("GRU", True, id="GRU-reset-after"),
    pytest.param("GRU", False, id="GRU-reset-before"),
]


def weights(kind, reset_after=True, dtype=np.float32, bias=True, inputs=K, units=H, rng=0):
    """kernel, recurrent_kernel and bias of Keras, random."""
    rng, G = np.random.default_rng(rng), GATES[kind] * units
    shapes = [(inputs, G), (units, G), (2, G) if kind == "GRU" and reset_after else (G,)]
    kernel, recurrent_kernel, b = (0.5 * normal(rng, shape, dtype) for shape in shapes)
    return kernel, recurrent_kernel / np.sqrt(units).astype(dtype), b if bias else None


def sequences(dtype, lengths=LENGTHS, inputs=K):
    rng = np.random.default_rng(1)
    return [normal(rng, (n, inputs), dtype) for n in lengths]


def assert_like_keras(layer, kind, of_directions, said, backwards=(False, True)):
    """Packed, each sequence has the outputs and the last states of each direction that Keras's equations give it."""
    given = sequences(layer.dtype)
    output, state = layer(nbp.pack_sequence(given))
    expected, states = [], []
    for sequence in given:
        found = [
            naive_keras.run(kind, of_one, sequence, backward=backward, **said)
            for of_one, backward in zip(of_directions, backwards, strict=False)
        ]
        expected.append(np.concatenate([outputs for outputs, _ in found], axis=1))
        states.append([last for _, last in found])
    assert_near(layer, LENGTHS, nbp.unpack_sequence(output), expected, "output")
    for i, part in enumerate(as_tuple(state)):
        exact = np.array([[directions[d][i] for directions in states] for d in range(len(of_directions))])
        assert_near(layer, LENGTHS, [part], [exact], f"state {i}")


# -- what is computed --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no-bias"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("kind", "reset_after"), KINDS)
def test_a_layer_computes_the_equations_of_keras(kind, reset_after, dtype, bias):
    arrays = weights(kind, reset_after, dtype, bias)
    layer = from_arrays(kind, *arrays, reset_after=reset_after)
    assert (layer.dtype, layer.bias, layer.batch_first) == (dtype, bias, True)
    assert_like_keras(layer, kind, [arrays], {"reset_after": reset_after})


@pytest.mark.parametrize(("kind", "reset_after"), KINDS)
def test_a_second_set_of_arrays_is_the_second_direction(kind, reset_after):
    both = [weights(kind, reset_after, rng=seed) for seed in (0, 1)]
    layer = from_arrays(kind, *both[0], backward=both[1], reset_after=reset_after)
    assert layer.bidirectional
    assert_like_keras(layer, kind, both, {"reset_after": reset_after})


@pytest.mark.parametrize(("kind", "reset_after"), KINDS)
def test_go_backwards_reads_from_the_last_step_and_keeps_the_order_of_the_input(kind, reset_after):
    arrays = weights(kind, reset_after)
    layer = from_arrays(kind, *arrays, reset_after=reset_after, go_backwards=True)
    assert layer.reverse
    assert_like_keras(layer, kind, [arrays], {"reset_after": reset_after}, backwards=[True])


QUICK = [
    ("SimpleRNN", True, {"activation": "relu"}),
    ("LSTM", True, {"recurrent_activation": "hard_sigmoid"}),
    ("LSTM", True, {"recurrent_activation": "hard_sigmoid_of_keras_2"}),
    ("GRU", False, {"recurrent_activation": "hard_sigmoid_of_keras_2"}),
]
SLOW = [
    ("GRU", True, {"recurrent_activation": "hard_sigmoid"}),
    ("LSTM", True, {"activation": "softsign", "recurrent_activation": "hard_sigmoid"}),
    ("LSTM", True, {"activation": "relu"}),
    ("GRU", True, {"activation": "linear"}),
    *[("SimpleRNN", True, {"activation": name}) for name in naive_keras.ACTIVATIONS if name not in ("tanh", "relu")],
]


@pytest.mark.parametrize(
    ("kind", "reset_after", "said"), [*QUICK, *[pytest.param(*case, marks=pytest.mark.slow) for case in SLOW]]
)
def test_other_activations_are_those_of_keras(kind, reset_after, said):
    arrays = weights(kind, reset_after)
    layer = from_arrays(kind, *arrays, reset_after=reset_after, **said)
    assert_like_keras(layer, kind, [arrays], {"reset_after": reset_after, **said})


# -- what is made ------------------------------------------------------------------------------------------------------


def test_with_the_activations_of_pytorch_the_layers_are_the_plain_ones():
    assert type(from_arrays("SimpleRNN", *weights("SimpleRNN"))) is nbp.RNN
    assert from_arrays("SimpleRNN", *weights("SimpleRNN"), activation="relu").nonlinearity == "relu"
    assert repr(from_arrays("LSTM", *weights("LSTM"))) == "LSTM(3, 19, batch_first=True)"
    assert type(from_arrays("GRU", *weights("GRU"))) is nbp.GRU
    assert isinstance(from_arrays("GRU", *weights("GRU", False), reset_after=False), GRUResetBefore)


def test_both_hard_sigmoids_have_one_cell_whose_layers_are_pickled():
    new, old = (
        from_arrays("LSTM", *weights("LSTM"), recurrent_activation=name)
        for name in ("hard_sigmoid", "hard_sigmoid_of_keras_2")
    )
    assert new.cell is old.cell
    assert (new.f_alpha, old.f_alpha) == (1 / 6, 0.2)
    again = pickle.loads(pickle.dumps(old))
    x = sequences(np.float32, [4])[0]
    assert_same_bits(again(x), old(x))


def test_the_bias_of_a_gru_that_resets_before_is_that_of_the_input_alone():
    arrays = weights("GRU", False)
    found = from_arrays("GRU", *arrays, reset_after=False).state_dict()
    z, r, h = np.split(arrays[2], 3)
    np.testing.assert_array_equal(found["bias_ih_l0"], np.concatenate([r, z, h]))
    np.testing.assert_array_equal(found["bias_hh_l0"], 0)


def test_arrays_are_copied():
    arrays = weights("LSTM")
    layer = from_arrays("LSTM", *arrays)
    before = layer.parameters.copy()
    for array in arrays:
        array[...] = 7
    np.testing.assert_array_equal(layer.parameters, before)


def test_a_bias_in_one_direction_is_zeros_in_the_other():
    one, other = weights("LSTM"), weights("LSTM", bias=False, rng=1)
    layer = from_arrays("LSTM", *one, backward=other[:2])
    assert_like_keras(layer, "LSTM", [one, other], {})


def test_the_module_does_not_import_keras():
    script = "import sys, numba_pack.interop.keras; assert 'keras' not in sys.modules"
    subprocess.run([sys.executable, "-c", script], check=True)


# -- merge -------------------------------------------------------------------------------------------------------------


def test_merge_does_what_its_mode_says_packed_and_padded():
    rng = np.random.default_rng(0)
    ones, others = ([normal(rng, (n, 4), np.float32) for n in (3, 5)] for _ in range(2))
    packed = nbp.pack_sequence([np.concatenate(pair, axis=1) for pair in zip(ones, others, strict=True)])
    expected = {"sum": np.add, "mul": np.multiply, "ave": lambda x, y: (x + y) / 2}
    for mode, function in expected.items():
        merged = merge(packed, mode)
        assert merged.data.dtype == np.float32
        for got, one, other in zip(nbp.unpack_sequence(merged), ones, others, strict=True):
            np.testing.assert_array_equal(got, function(one, other))
        padded = np.concatenate([ones[0], others[0]], axis=1)[:, None]
        np.testing.assert_array_equal(merge(padded, mode)[:, 0], function(ones[0], others[0]))
    assert_same_bits(list(merge(packed, "concat").data), list(packed.data))
    for parts, exact in zip(merge(packed, None), (ones, others), strict=True):
        assert_same_bits(nbp.unpack_sequence(parts), exact)


@pytest.mark.parametrize(
    ("error", "message", "arguments"),
    [
        (
            ValueError,
            "merge_mode must be one of 'concat', 'sum', 'mul', 'ave', None; got 'max'",
            (np.ones((1, 2)), "max"),
        ),
        (TypeError, "output must be a PackedSequence or a NumPy array; got list", ([1.0, 2.0], "sum")),
        (ValueError, "output must have an even number of columns, 2 * H; got shape (4, 3)", (np.ones((4, 3)), "sum")),
    ],
)
def test_merge_refuses(error, message, arguments):
    with pytest.raises(error, match=re.escape(message)):
        merge(*arguments)


# -- what is refused ---------------------------------------------------------------------------------------------------

KERNEL, RECURRENT, BIAS = weights("LSTM", units=5)
GRU_AFTER, GRU_BEFORE = weights("GRU", True, units=5), weights("GRU", False, units=5)

REFUSED = {
    "kind": (ValueError, "kind must be one of SimpleRNN, LSTM, GRU; got 'lstm'", ["lstm", KERNEL, RECURRENT], {}),
    "list": (TypeError, "kernel must be a NumPy array; got list", ["LSTM", KERNEL.tolist(), RECURRENT], {}),
    "integers": (
        TypeError,
        "kernel must be float32 or float64; got int64",
        ["LSTM", KERNEL.astype(int), RECURRENT],
        {},
    ),
    "dimensions": (ValueError, "kernel must have 2 dimensions; got shape (20,)", ["LSTM", BIAS, RECURRENT], {}),
    "turned": (
        ValueError,
        "kernel must have shape (I, 4 * H) = (20, 20), and no size 0; got (20, 3)",
        ["LSTM", KERNEL.T, RECURRENT],
        {},
    ),
    "of another kind": (
        ValueError,
        "recurrent_kernel must have shape (H, 3 * H) = (5, 15), and no size 0; got (5, 20)",
        ["GRU", KERNEL, RECURRENT],
        {},
    ),
    "bias": (
        ValueError,
        "bias must have shape (4 * H,) = (20,), and no size 0; got (19,)",
        ["LSTM", KERNEL, RECURRENT, BIAS[1:]],
        {},
    ),
    "bias, number": (TypeError, "bias must be a NumPy array; got float", ["LSTM", KERNEL, RECURRENT, 0.0], {}),
    "reset after": (
        ValueError,
        "bias must have shape (2, 3 * H) = (2, 15) with reset_after=True; got (15,), which is that of "
        "reset_after=False",
        ["GRU", *GRU_BEFORE],
        {},
    ),
    "reset before": (
        ValueError,
        "bias must have shape (3 * H,) = (15,) with reset_after=False; got (2, 15), which is that of reset_after=True",
        ["GRU", *GRU_AFTER],
        {"reset_after": False},
    ),
    "dtypes": (
        TypeError,
        "recurrent_kernel must have the dtype of the kernel, float32; got float64",
        ["LSTM", KERNEL, RECURRENT.astype(float)],
        {},
    ),
    "NaN": (ValueError, "bias must be finite; got nan", ["LSTM", KERNEL, RECURRENT, BIAS * np.nan], {}),
    "activation": (
        ValueError,
        "activation must be one of tanh, sigmoid, relu, linear, hard_sigmoid, hard_sigmoid_of_keras_2, elu, "
        "leaky_relu, softplus, softsign; got 'gelu'",
        ["LSTM", KERNEL, RECURRENT],
        {"activation": "gelu"},
    ),
    "recurrent_activation": (
        ValueError,
        "recurrent_activation must be one of",
        ["LSTM", KERNEL, RECURRENT],
        {"recurrent_activation": None},
    ),
    "backward, array": (
        TypeError,
        "backward must be a list of kernel, recurrent_kernel and, if there is one, bias; got numpy.ndarray",
        ["LSTM", KERNEL, RECURRENT],
        {"backward": KERNEL},
    ),
    "backward, count": (TypeError, "got 1 of them", ["LSTM", KERNEL, RECURRENT], {"backward": [KERNEL]}),
    "backward, shape": (
        ValueError,
        "bias of backward must have shape (4 * H,) = (20,), and no size 0; got (3,)",
        ["LSTM", KERNEL, RECURRENT],
        {"backward": [KERNEL, RECURRENT, BIAS[:3]]},
    ),
    "backward, units": (
        ValueError,
        "backward must have the units of the forward direction, 5; got 19",
        ["LSTM", KERNEL, RECURRENT],
        {"backward": weights("LSTM")},
    ),
    "backward, twice": (
        ValueError,
        "go_backwards must be False with both directions; got True",
        ["LSTM", KERNEL, RECURRENT],
        {"backward": [KERNEL, RECURRENT], "go_backwards": True},
    ),
    "flag": (TypeError, "reset_after must be", ["LSTM", KERNEL, RECURRENT], {"reset_after": 1.5}),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_no_layer_of_keras_is_refused_by_name(what):
    error, message, arguments, options = REFUSED[what]
    with pytest.raises(error, match=re.escape(message)):
        from_arrays(*arguments, **options)
