"""What layers refuse, with which error, and what they take however it lies in memory.

Each refusal names the argument, what was expected and what came; nothing is refused halfway: the layer, the tape and
the caller's arrays are as before.
"""

import copy
import os
import subprocess
import sys
import warnings

import helpers
import numpy as np
import pytest
from helpers import CELLS, DTYPES, LENGTHS, assert_same_bits, make_case, make_layer

import numba_pack as nbp

T, B, I, H, L = 5, 2, 3, 4, 2  # noqa: E741
F4 = np.float32


def case(id, error, message, *values):
    """One row of a table of wrong arguments; the message is a regular expression."""
    return pytest.param(*values, error, message, id=id)


# -- constructors ------------------------------------------------------------------------------------------------------

MAKERS = {"rnn": nbp.RNN, "lstm": nbp.LSTM, "gru": nbp.GRU}
SIZES = ("input_size", "hidden_size", "num_layers")
FLAGS = ("bias", "batch_first", "bidirectional")
WRONG_ARGUMENTS = [
    *(
        case(f"{name}-{value!r}", TypeError, rf"{name} must be an integer; got {value!r}$", {name: value})
        for name in SIZES
        for value in (3.0, "3", None, True)
    ),
    *(
        case(f"{name}-{value!r}", ValueError, rf"{name} must be at least 1; got {value}$", {name: value})
        for name in SIZES
        for value in (0, -2)
    ),
    *(
        case(f"{name}-{value!r}", TypeError, rf"{name} must be a bool; got {value!r}$", {name: value})
        for name in FLAGS
        for value in (1, 0, None, "yes", 0.5)
    ),
    *(
        case(f"dropout-{value!r}", TypeError, rf"dropout must be a number; got {value!r}$", {"dropout": value})
        for value in (None, "a", True)
    ),
    case("dropout-below-0", ValueError, "dropout must be at least 0 and finite; got -0.1", {"dropout": -0.1}),
    case("dropout-above-1", ValueError, "dropout must be at most 1; got 1.5", {"dropout": 1.5}),
    case("dropout-nan", ValueError, "dropout must be at least 0 and finite; got nan", {"dropout": np.nan}),
    case("dropout-inf", ValueError, "dropout must be at least 0 and finite; got inf", {"dropout": np.inf}),
    *(
        case(f"dtype-{value!r}", TypeError, "dtype must be float32 or float64; got ", {"dtype": value})
        for value in ("f2", "i4", "c8", ">f4", "nonsense", None, 3)
    ),
    case("rng-text", TypeError, "rng must be what numpy.random.default_rng takes; got 'a'", {"rng": "a"}),
    case("rng-float", TypeError, "rng must be what numpy.random.default_rng takes; got 1.5", {"rng": 1.5}),
    case("rng-negative", ValueError, "rng must be what numpy.random.default_rng takes; got -1", {"rng": -1}),
    case("too-many-layers", ValueError, "num_layers must be at most 4096; got 1000000000", {"num_layers": 10**9}),
    case(
        "too-large", ValueError,
        "input_size, hidden_size and num_layers must give weights that fit into memory; got .*'hidden_size': 10{9}",
        {"hidden_size": 10**9},
    ),
]  # fmt: skip


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS.keys())
@pytest.mark.parametrize(("argument", "error", "message"), WRONG_ARGUMENTS)
def test_wrong_arguments_of_a_layer_are_named(make, argument, error, message):
    with pytest.raises(error, match=f"^{message}"):
        make(**{"input_size": I, "hidden_size": H, "num_layers": L, **argument})


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        case("float", TypeError, r"proj_size must be an integer; got 1\.0", 1.0),
        case("bool", TypeError, "proj_size must be an integer; got True", True),
        case("negative", ValueError, "proj_size must be at least 0; got -1", -1),
        case("as-large-as-H", ValueError, "proj_size must be less than hidden_size, 4; got 4", 4),
        case("larger-than-H", ValueError, "proj_size must be less than hidden_size, 4; got 9", 9),
    ],
)
def test_a_wrong_projection_is_named(value, error, message):
    with pytest.raises(error, match=message):
        nbp.LSTM(I, H, proj_size=value)


@pytest.mark.parametrize(
    ("value", "error"), [("sigmoid", ValueError), ("", ValueError), (None, TypeError), (1, TypeError)]
)
def test_a_wrong_nonlinearity_is_named(value, error):
    with pytest.raises(error, match=f"nonlinearity must be 'tanh' or 'relu'; got {value!r}"):
        nbp.RNN(I, H, nonlinearity=value)


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS.keys())
def test_dropout_with_one_layer_is_warned_of_where_it_is_asked_for(make):
    with pytest.warns(
        UserWarning, match=r"dropout is between layers, of which there is one: 0\.5 does nothing"
    ) as seen:
        make(I, H, dropout=0.5)
    assert seen[0].filename == __file__


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS.keys())
def test_numpy_numbers_and_all_names_of_a_dtype_will_do(make):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        layer = make(np.int64(I), np.uint8(H), np.int32(2), bias=np.True_, dropout=np.float32(0.5), dtype="float64")
    assert layer.dtype == np.float64
    assert make(I, H, dtype=float).dtype == np.dtype("float64")


# -- input and state ---------------------------------------------------------------------------------------------------


def lstm(**options):
    return nbp.LSTM(I, H, L, rng=0, **options)


def gru(**options):
    return nbp.GRU(I, H, L, rng=0, **options)


def padded():
    return np.ones((T, B, I), F4)


def packed(columns=I, dtype=F4):
    return nbp.pack_sequence([np.ones((n, columns), dtype) for n in (2, 3)])


PADDED, PACKED = padded(), packed()
WRONG_INPUT = [
    case("list", TypeError, "input must be a PackedSequence or a NumPy array; got list", PADDED.tolist()),
    case("none", TypeError, "input must be a PackedSequence or a NumPy array; got NoneType", None),
    case("plain-tuple", TypeError, "input must be a PackedSequence or a NumPy array; got tuple", tuple(PACKED)),
    case("number", TypeError, "input must be a PackedSequence or a NumPy array; got numpy.float32", F4(1)),
    case(
        "one-axis", ValueError, r"input must be a PackedSequence or have 2 or 3 dimensions; got shape \(3,\)",
        PADDED[0, 0],
    ),
    case("four-axes", ValueError, r"input must be .* 2 or 3 dimensions; got shape \(1, 5, 2, 3\)", PADDED[None]),
    case("columns", ValueError, r"input must have shape .* = \(5, 2, 3\); got \(5, 2, 2\)", PADDED[..., :2]),
    case("more-columns", ValueError, r"input must have .* = \(5, 2, 3\); got \(5, 2, 6\)", np.ones((T, B, 6), F4)),
    case("single", ValueError, r"input must have shape \(T, input_size\) = \(5, 3\); got \(5, 2\)", PADDED[:, 0, :2]),
    case("float64", TypeError, "input must have dtype float32; got float64", PADDED.astype(float)),
    case("integers", TypeError, "input must have dtype float32; got int64", PADDED.astype(int)),
    case("complex", TypeError, "input must have dtype float32; got complex64", PADDED.astype("c8")),
    case("objects", TypeError, "input must have dtype float32; got object", PADDED.astype(object)),
    case("masked", TypeError, "input must be an array without a mask, .*; got a masked array", np.ma.array(PADDED)),
    case(
        "packed-columns", ValueError, r"input.data must have shape \(N, input_size\) = \(5, 3\); got \(5, 2\)",
        packed(2),
    ),
    case("packed-more-columns", ValueError, r"input.data must have shape .* = \(5, 3\); got \(5, 7\)", packed(7)),
    case(
        "packed-axes", ValueError, r"input.data must have shape .* = \(5, 3\); got \(5, 3, 1\)",
        PACKED._replace(data=PACKED.data[..., None]),
    ),
    case("packed-float64", TypeError, "input.data must have dtype float32; got float64", packed(dtype=float)),
    case(
        "packed-rows-missing", ValueError, "input.batch_sizes must sum to the rows of data: expected 4; got 5",
        PACKED._replace(data=PACKED.data[:-1]),
    ),
    case(
        "packed-growing", ValueError, "input.batch_sizes must not grow, .* expected at most 1; got 2 at index 1",
        PACKED._replace(batch_sizes=PACKED.batch_sizes[::-1]),
    ),
    case(
        "packed-no-permutation", ValueError, "input.sorted_indices must be a permutation: .* 1; got 2 at index 0",
        PACKED._replace(sorted_indices=np.array([2, 0])),
    ),
]  # fmt: skip


@pytest.mark.parametrize("call", ["__call__", "forward"])
@pytest.mark.parametrize("make", [lstm, gru])
@pytest.mark.parametrize(("value", "error", "message"), WRONG_INPUT)
def test_wrong_input_is_named(make, call, value, error, message):
    with pytest.raises(error, match=f"^{message}"):
        getattr(make(), call)(value)


def test_the_message_names_the_axes_in_the_order_of_the_layer():
    with pytest.raises(ValueError, match=r"\(B, T, input_size\) = \(5, 2, 3\); got \(5, 2, 1\)"):
        gru(batch_first=True)(PADDED[..., :1])


STATE = np.ones((L, B, H), F4)
#: states of a GRU, and parts of those of an LSTM, that do not fit
WRONG_PARTS = [
    case("scans-missing", ValueError, r"must have shape .* = \(2, 2, 4\); got \(1, 2, 4\)", STATE[:1]),
    case("scans-more", ValueError, r"must have shape .* = \(2, 2, 4\); got \(3, 2, 4\)", np.ones((3, B, H), F4)),
    case("sequences-missing", ValueError, r"must have shape .* = \(2, 2, 4\); got \(2, 1, 4\)", STATE[:, :1]),
    case("sequences-more", ValueError, r"must have shape .* = \(2, 2, 4\); got \(2, 3, 4\)", np.ones((L, 3, H), F4)),
    case("units-missing", ValueError, r"must have shape .* = \(2, 2, 4\); got \(2, 2, 3\)", STATE[..., :3]),
    case("units-more", ValueError, r"must have shape .* = \(2, 2, 4\); got \(2, 2, 5\)", np.ones((L, B, 5), F4)),
    case("axes-missing", ValueError, r"must have shape .* = \(2, 2, 4\); got \(2, 4\)", STATE[:, 0]),
    case("axes-more", ValueError, r"must have shape .* = \(2, 2, 4\); got \(1, 2, 2, 4\)", STATE[None]),
    case("float64", TypeError, "must have dtype float32; got float64", STATE.astype(float)),
    case("integers", TypeError, "must have dtype float32; got int64", STATE.astype(int)),
    case("list", TypeError, "must be a NumPy array; got list", STATE.tolist()),
    case("masked", TypeError, "must be an array without a mask, .*; got a masked array", np.ma.array(STATE)),
]
#: what is no state of an LSTM whatever its parts are
NO_PAIRS = [
    case("array", TypeError, "must be a tuple of two arrays, h and c; got numpy.ndarray", STATE),
    case("one", TypeError, "must be a tuple of two arrays, h and c; got tuple of 1", (STATE,)),
    case("three", TypeError, "must be a tuple of two arrays, h and c; got tuple of 3", (STATE,) * 3),
    case("text", TypeError, "must be a tuple of two arrays, h and c; got str", "hc"),
    case("dict", TypeError, "must be a tuple of two arrays, h and c; got dict", {"h": STATE, "c": STATE}),
]
#: and of a GRU or an RNN
NO_ARRAYS = [
    case("pair", TypeError, "must be a NumPy array; got tuple", (STATE, STATE)),
    case("text", TypeError, "must be a NumPy array; got str", "h"),
]
no_arrays = pytest.mark.parametrize(("value", "error", "message"), NO_ARRAYS + WRONG_PARTS)
no_pairs = pytest.mark.parametrize(("value", "error", "message"), NO_PAIRS)
wrong_parts = pytest.mark.parametrize(("value", "error", "message"), WRONG_PARTS)
form_of_input = pytest.mark.parametrize("input", [PADDED, PACKED], ids=["padded", "packed"])


@form_of_input
@pytest.mark.parametrize("call", ["__call__", "forward"])
@pytest.mark.parametrize("make", [gru, lambda: nbp.RNN(I, H, L)], ids=["gru", "rnn"])
@no_arrays
def test_a_wrong_state_is_named(make, call, input, value, error, message):
    with pytest.raises(error, match=f"^hx {message}"):
        getattr(make(), call)(input, value)


@pytest.mark.parametrize("call", ["__call__", "forward"])
@no_pairs
def test_what_is_no_pair_is_no_state_of_an_lstm(call, value, error, message):
    with pytest.raises(error, match=f"^hx {message}"):
        getattr(lstm(), call)(PADDED, value)


@form_of_input
@pytest.mark.parametrize("part", [0, 1], ids=["h", "c"])
@pytest.mark.parametrize("call", ["__call__", "forward"])
@wrong_parts
def test_a_wrong_part_of_the_state_of_an_lstm_is_named(call, part, input, value, error, message):
    hx = (value, STATE) if part == 0 else (STATE, value)
    with pytest.raises(error, match=rf"^hx\[{part}\] {message}"):
        getattr(lstm(), call)(input, hx)


def test_a_missing_part_of_the_initial_state_is_refused():
    with pytest.raises(TypeError, match=r"^hx\[1\] must be a NumPy array; got NoneType"):
        lstm()(PADDED, (STATE, None))


def test_the_state_of_a_projection_has_its_own_size():
    layer = nbp.LSTM(I, H, L, proj_size=2)
    with pytest.raises(ValueError, match=r"hx\[0\] must have shape .* = \(2, 2, 2\); got \(2, 2, 4\)"):
        layer(PADDED, (STATE, STATE))
    with pytest.raises(ValueError, match=r"hx\[1\] must have shape .* = \(2, 2, 4\); got \(2, 2, 2\)"):
        layer(PADDED, (STATE[..., :2], STATE[..., :2]))


def test_the_state_of_a_single_sequence_has_no_axis_for_the_batch():
    with pytest.raises(ValueError, match=r"hx must have shape .* = \(2, 4\); got \(2, 1, 4\)"):
        gru()(PADDED[:, 0], STATE[:, :1])


# -- backward ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make_tape", "error", "message"),
    [
        case("none", TypeError, "tape must be what forward returned third; got NoneType", lambda: None),
        case(
            "all-of-forward", TypeError, "tape must be what forward returned third; got tuple",
            lambda: gru().forward(PADDED),
        ),
        case(
            "another-layer", ValueError, "tape must come from a forward call of this GRU; got one of another layer",
            lambda: gru().forward(PADDED)[2],
        ),
        case(
            "another-kind", ValueError, "tape must come from a forward call of this GRU; got one of another layer",
            lambda: lstm().forward(PADDED)[2],
        ),
    ],
)  # fmt: skip
def test_a_wrong_tape_is_named(make_tape, error, message):
    tape = make_tape()
    with pytest.raises(error, match=message):
        gru().backward(tape)


@pytest.mark.parametrize("make", [lstm, gru])
def test_a_tape_serves_one_backward(make):
    layer = make()
    tape = layer.forward(PADDED)[2]
    layer.backward(tape)
    with pytest.raises(ValueError, match="tape must not have been used: backward uses it up; got one"):
        layer.backward(tape)


D_PADDED, D_PACKED = np.ones((T, B, H), F4), packed(H)
WRONG_D_PADDED = [
    case("columns", ValueError, r"d_output must have shape .* = \(5, 2, 4\); got \(5, 2, 3\)", D_PADDED[..., :3]),
    case("more-columns", ValueError, r"d_output must .* = \(5, 2, 4\); got \(5, 2, 8\)", np.ones((T, B, 8), F4)),
    case("steps", ValueError, r"d_output must have shape .* = \(5, 2, 4\); got \(4, 2, 4\)", D_PADDED[:4]),
    case("sequences", ValueError, r"d_output must have shape .* = \(5, 2, 4\); got \(5, 1, 4\)", D_PADDED[:, :1]),
    case("rows", ValueError, r"d_output must have shape .* = \(5, 2, 4\); got \(10, 4\)", D_PADDED.reshape(-1, H)),
    case(
        "batch-first", ValueError, r"d_output must have shape \(T, B, .*\) = \(5, 2, 4\); got \(2, 5, 4\)",
        D_PADDED.swapaxes(0, 1),
    ),
    case("packed", TypeError, "d_output must be a NumPy array; got numba_pack.packing.sequences.Packed", D_PACKED),
    case("float64", TypeError, "d_output must have dtype float32; got float64", D_PADDED.astype(float)),
    case("list", TypeError, "d_output must be a NumPy array; got list", D_PADDED.tolist()),
    case("number", TypeError, "d_output must be a NumPy array; got float", 1.0),
    case("masked", TypeError, "d_output must be an array without a mask", np.ma.array(D_PADDED)),
]  # fmt: skip


def packed_d_output(*lengths):
    return nbp.pack_sequence([np.ones((n, H), F4) for n in lengths])


WRONG_D_PACKED = [
    case(
        "columns", ValueError, r"d_output.data must have shape \(N, .*\) = \(5, 4\); got \(5, 3\)",
        D_PACKED._replace(data=D_PACKED.data[:, :3]),
    ),
    case("data-columns", ValueError, r"d_output must have shape .* = \(5, 4\); got \(5, 3\)", D_PACKED.data[:, :3]),
    case("data-rows", ValueError, r"d_output must have shape .* = \(5, 4\); got \(4, 4\)", D_PACKED.data[:-1]),
    case("data-float64", TypeError, "d_output must have dtype float32; got float64", D_PACKED.data.astype(float)),
    case("padded", ValueError, r"d_output must have shape .* = \(5, 4\); got \(5, 2, 4\)", D_PADDED),
    case(
        "other-lengths", ValueError, r"d_output.batch_sizes must be those of the input, \[2 2 1\]; got \[2 1 1 1\]",
        packed_d_output(4, 1),
    ),
    case(
        "other-order", ValueError, r"d_output.sorted_indices must be those of the input, \[1 0\]; got \[0 1\]",
        packed_d_output(3, 2),
    ),
    case(
        "one-more-empty-sequence", ValueError, r"d_output.sorted_indices must be .* \[1 0\]; got \[1 0 2\]",
        packed_d_output(2, 3, 0),
    ),
    case(
        "no-array", TypeError, "d_output.data must be a NumPy array; got list",
        D_PACKED._replace(data=D_PACKED.data.tolist()),
    ),
]  # fmt: skip


def assert_refused_and_the_tape_still_good(layer, input, error, message, *arguments):
    """The tape is used up last, so that a wrong argument costs no forward pass."""
    tape = layer.forward(input)[2]
    with pytest.raises(error, match=f"^{message}"):
        layer.backward(tape, *arguments)
    assert_same_bits(layer.backward(tape), layer.backward(layer.forward(input)[2]))


@pytest.mark.parametrize(("value", "error", "message"), WRONG_D_PADDED)
def test_a_wrong_gradient_of_padded_output_is_named(value, error, message):
    assert_refused_and_the_tape_still_good(gru(), PADDED, error, message, value)


@pytest.mark.parametrize(("value", "error", "message"), WRONG_D_PACKED)
def test_a_wrong_gradient_of_packed_output_is_named(value, error, message):
    assert_refused_and_the_tape_still_good(gru(), PACKED, error, message, value)


@no_arrays
def test_a_wrong_gradient_of_the_state_is_named(value, error, message):
    assert_refused_and_the_tape_still_good(gru(), PADDED, error, f"d_state {message}", None, value)


@no_pairs
def test_what_is_no_pair_is_no_gradient_of_the_state_of_an_lstm(value, error, message):
    assert_refused_and_the_tape_still_good(lstm(), PADDED, error, f"d_state {message}", None, value)


@pytest.mark.parametrize("part", [0, 1], ids=["h", "c"])
@wrong_parts
def test_a_wrong_gradient_of_a_part_of_the_state_is_named(part, value, error, message):
    d_state = (value, None) if part == 0 else (None, value)
    assert_refused_and_the_tape_still_good(lstm(), PADDED, error, rf"d_state\[{part}\] {message}", None, d_state)


@pytest.mark.parametrize(
    ("field", "message"),
    [("batch_sizes", "must not grow, .* got 99"), ("sorted_indices", "must be a permutation.* got 99")],
)
def test_index_arrays_changed_since_the_forward_call_are_noticed(field, message):
    """The tape holds the caller's own: what was valid then must still be."""
    layer, input = gru(), packed()
    tape = layer.forward(input)[2]
    getattr(input, field)[0] = 99
    with pytest.raises(ValueError, match=rf"^the input on the tape\.{field} {message}"):
        layer.backward(tape)


@pytest.mark.parametrize("value", [1, None, "yes"])
def test_a_wrong_input_grad_is_named(value):
    message = f"input_grad must be a bool; got {value!r}"
    assert_refused_and_the_tape_still_good(gru(), PADDED, TypeError, message, None, None, value)


# -- parameters --------------------------------------------------------------------------------------------------------


def test_wrong_parameters_are_named_and_the_old_ones_kept():
    layer = gru()
    before = layer.parameters
    spoilt = before.copy()
    spoilt[[7, 9]] = np.nan, np.inf
    for value, error, message in (
        (before.tolist(), TypeError, "parameters must be a NumPy array; got list"),
        (None, TypeError, "parameters must be a NumPy array; got NoneType"),
        (before.astype(float), TypeError, "parameters must have dtype float32; got float64"),
        (before[:-1], ValueError, r"parameters must have shape \(228,\); got \(227,\)"),
        (np.append(before, F4(0)), ValueError, r"parameters must have shape \(228,\); got \(229,\)"),
        (before[None], ValueError, r"parameters must have shape \(228,\); got \(1, 228\)"),
        (np.ma.array(before), TypeError, "parameters must be an array without a mask"),
        (spoilt, ValueError, "parameters must be finite; got nan at index 7"),
    ):
        with pytest.raises(error, match=f"^{message}"):
            layer.parameters = value
        assert layer.parameters is before
    spoilt[7] = 0
    with pytest.raises(ValueError, match="parameters must be finite; got inf at index 9"):
        layer.parameters = spoilt


def test_a_vector_that_has_no_views_is_named():
    with pytest.raises(ValueError, match=r"vector must have shape \(228,\); got \(227,\)"):
        gru().views(np.zeros(227))
    with pytest.raises(TypeError, match="vector must be a NumPy array; got list"):
        gru().views([0.0] * 228)


def state_with(**values):
    return {**gru().state_dict(), **values}


def state_without(name):
    return {key: value for key, value in gru().state_dict().items() if key != name}


@pytest.mark.parametrize(
    ("state_dict", "error", "message"),
    [
        case("none", TypeError, "state_dict must be a mapping of names to arrays; got NoneType", None),
        case("list", TypeError, "state_dict must be a mapping of names to arrays; got list", []),
        case("empty", ValueError, r"state_dict must have the names of this layer; missing: \['bias_hh_l0', 'bias", {}),
        case("missing", ValueError, r".*; missing: \['bias_ih_l1'\], not known: none", state_without("bias_ih_l1")),
        case("extra", ValueError, r".*; missing: none, not known: \['foo'\]", state_with(foo=np.ones(3))),
        case(
            "other-layer", ValueError, r".*; missing: none, not known: \['weight_hh_l2', 'weight_ih_l2'\]",
            state_with(weight_ih_l2=np.ones(3), weight_hh_l2=np.ones(3)),
        ),
        case(
            "shape", ValueError, r"state_dict\['bias_ih_l0'\] must have shape \(12,\); got \(3,\)",
            state_with(bias_ih_l0=np.zeros(3)),
        ),
        case(
            "transposed", ValueError, r"state_dict\['weight_ih_l0'\] must have shape \(12, 3\); got \(3, 12\)",
            state_with(weight_ih_l0=np.zeros((3, 12))),
        ),
        case(
            "scalar", ValueError, r"state_dict\['bias_ih_l0'\] must have shape \(12,\); got \(\)",
            state_with(bias_ih_l0=1.0),
        ),
        case(
            "integers", TypeError, r"state_dict\['bias_ih_l0'\] must hold real floats; got dtype int64",
            state_with(bias_ih_l0=np.zeros(12, int)),
        ),
        case(
            "complex", TypeError, r"state_dict\['bias_ih_l0'\] must hold real floats; got dtype complex128",
            state_with(bias_ih_l0=np.zeros(12, complex)),
        ),
        case(
            "text", TypeError, r"state_dict\['bias_ih_l0'\] must hold real floats; got dtype <U1",
            state_with(bias_ih_l0="a"),
        ),
        case(
            "uneven", ValueError, r"state_dict\['bias_ih_l0'\] must be an array; got list",
            state_with(bias_ih_l0=[[1.0], [1.0, 2.0]]),
        ),
        case(
            "nan", ValueError, r"state_dict\['bias_hh_l1'\] must be finite in float32; got nan",
            state_with(bias_hh_l1=np.full(12, np.nan)),
        ),
        case(
            "too-large-for-float32", ValueError, r"state_dict\['bias_hh_l1'\] must be finite in float32; got 1e\+300",
            state_with(bias_hh_l1=np.full(12, 1e300)),
        ),
    ],
)  # fmt: skip
def test_a_wrong_state_dict_is_named_and_the_old_parameters_kept(state_dict, error, message):
    layer = gru()
    before = layer.parameters
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(error, match=f"^{message}"):
            layer.load_state_dict(state_dict)
    assert layer.parameters is before


# -- threads -----------------------------------------------------------------------------------------------------------

WRONG_COUNTS = [
    case("zero", ValueError, "n must be between 1 and 4096; got 0", 0),
    case("negative", ValueError, "n must be between 1 and 4096; got -1", -1),
    case("too-many", ValueError, "n must be between 1 and 4096; got 4097", 4097),
    case("float", TypeError, r"n must be an integer; got 2\.0", 2.0),
    case("text", TypeError, "n must be an integer; got '2'", "2"),
    case("none", TypeError, "n must be an integer; got None", None),
    case("bool", TypeError, "n must be an integer; got True", True),
]


@pytest.mark.parametrize(("n", "error", "message"), WRONG_COUNTS)
def test_a_wrong_number_of_threads_is_named_and_the_old_one_kept(n, error, message):
    before = nbp.get_num_threads()
    with pytest.raises(error, match=message):
        nbp.set_num_threads(n)
    with pytest.raises(error, match=message), nbp.threads(n):
        pass
    assert nbp.get_num_threads() == before


@pytest.mark.parametrize("value", ["0", "-3", "4097", "two", "1.5", ""], ids=repr)
def test_a_wrong_number_of_threads_in_the_environment_is_named_at_import(value):
    process = subprocess.run(
        [sys.executable, "-c", "import numba_pack"],
        env={**os.environ, "NUMBA_PACK_NUM_THREADS": value, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True, text=True,
    )  # fmt: skip
    expected = "the environment variable NUMBA_PACK_NUM_THREADS must be an integer from 1 to 4096"
    assert f"ValueError: {expected}; got {value!r}" in process.stderr


# -- what is not refused -----------------------------------------------------------------------------------------------


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
    layer = gru()
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
