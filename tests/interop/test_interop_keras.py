"""Layers of Keras taken over: each computes what Keras computes, packed as Keras does with a mask."""

import os
import re

import helpers
import numpy as np
import pytest

import numba_pack as nbp
from numba_pack.cells import GRUResetBefore
from numba_pack.interop.keras import from_arrays, from_keras, merge

os.environ.setdefault("KERAS_BACKEND", "torch")  # which other tests of this folder need, too
keras = pytest.importorskip("keras", reason="what is tested here is the exchange with Keras", exc_type=ImportError)
layers = keras.layers

K, H, B, T = 3, 5, 4, 7
DTYPES = ["float32", "float64"]
#: which steps are there: all, the first ones, and any
MASKS = {
    "whole": np.ones((B, T), bool),
    "right-padded": np.arange(T) < np.array([[4], [7], [1], [4]]),
    "with-holes": np.random.default_rng(3).random((B, T)) < 0.6,
}
KINDS = {
    "SimpleRNN": layers.SimpleRNN,
    "LSTM": layers.LSTM,
    "GRU": layers.GRU,
    "GRU-reset-before": lambda *arguments, **options: layers.GRU(*arguments, reset_after=False, **options),
}
CELLS = {
    "SimpleRNN": layers.SimpleRNNCell,
    "LSTM": layers.LSTMCell,
    "GRU": layers.GRUCell,
    "GRU-reset-before": lambda units: layers.GRUCell(units, reset_after=False),
}


# -- what the tests share ----------------------------------------------------------------------------------------------


def with_random_weights(layer, inputs=K):
    """The layer, built, with weights that are random: biases, too, which begin as zeros or ones in Keras."""
    layer.build((None, None, inputs))
    rng = np.random.default_rng(0)
    layer.set_weights([rng.uniform(-0.6, 0.6, value.shape).astype(value.dtype) for value in layer.get_weights()])
    return layer


def make(kind, units=H, inputs=K, dtype="float32", **options):
    options = {"return_sequences": True, "return_state": True, **options}
    return with_random_weights(KINDS[kind](units, dtype=dtype, **options), inputs)


def padded(dtype="float32", inputs=K):
    return helpers.normal(np.random.default_rng(1), (B, T, inputs), dtype)


def called(layer, *arguments, **options):
    """What Keras's layer gives, as arrays."""
    found = layer(*arguments, **options)
    found = found if isinstance(found, (list, tuple)) else [found]
    return [keras.ops.convert_to_numpy(value) for value in keras.tree.flatten(found)]


def packed_rows(layer, x, mask):
    """What the layer here gives of the steps that are there: a list of outputs, and a list of states (L * D, B, H)."""
    output, state = layer(nbp.pack_sequence([row[there] for row, there in zip(x, mask, strict=True)]))
    return nbp.unpack_sequence(output), list(state) if isinstance(state, (tuple, list)) else [state]


def assert_near(layer, got, expected, what):
    """As near as float32 is: with PyTorch as its backend, Keras has products of float64 in float32."""
    alone = [layer] if isinstance(layer.hidden_size, int) else layer.layers
    bound = max(helpers.tolerance(one, [T] * B, helpers.largest(expected)) for one in alone)
    bound *= len(alone) * np.finfo(np.float32).eps / np.finfo(layer.dtype).eps
    for one, other in zip(got, expected, strict=True):
        assert (one.dtype, one.shape) == (layer.dtype, other.shape), what
        np.testing.assert_allclose(one, other, rtol=0, atol=bound, err_msg=what)


def assert_like_keras(theirs, x=None, mask=None, *, in_time=lambda y: y, layer=None):
    """Outputs at every step that is there, and last states: ours, packed, are those of Keras with a mask."""
    x = padded() if x is None else x
    mask = MASKS["whole"] if mask is None else mask
    layer = from_keras(theirs) if layer is None else layer
    output, *states = called(theirs, x, mask=mask if not mask.all() else None)
    rows, ours = packed_rows(layer, x, mask)
    assert_near(layer, rows, [y[there] for y, there in zip(in_time(output), mask, strict=True)], "output")
    if states:
        scans = layer.num_directions
        by_direction = [states[i : i + len(states) // scans] for i in range(0, len(states), len(states) // scans)]
        exact = [np.stack([of_one[i] for of_one in by_direction]) for i in range(len(ours))]
        assert_near(layer, ours, exact, "state")


def turned(y):
    return y[:, ::-1]


# -- one layer ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_layer_gives_what_keras_gives_packed_where_that_has_a_mask(kind, dtype, mask):
    theirs = make(kind, dtype=dtype)
    assert_like_keras(theirs, padded(dtype), MASKS[mask])
    assert from_keras(theirs).dtype == dtype


@pytest.mark.parametrize("kind", KINDS)
def test_padded_input_is_batch_first_as_in_keras(kind):
    theirs = make(kind)
    layer = from_keras(theirs)
    assert_near(layer, [layer(padded())[0]], called(theirs, padded())[:1], "output")


@pytest.mark.parametrize("directions", [1, 2])
def test_the_output_of_a_layer_without_return_sequences_is_the_last_state(directions):
    options = {"return_sequences": False, "return_state": False}
    theirs = make("GRU", **options) if directions == 1 else bidirectional("GRU", **options)
    layer = from_keras(theirs)
    _, states = packed_rows(layer, padded(), MASKS["right-padded"])
    expected = called(theirs, padded(), mask=MASKS["right-padded"])
    assert_near(layer, [np.concatenate(states[0], axis=1)], expected, "h_n")


OPTIONS = [
    {"use_bias": False},
    {"unroll": True},
    {"dropout": 0.5, "recurrent_dropout": 0.5},
    {"zero_output_for_mask": True},
    {"recurrent_initializer": "zeros"},
]


@pytest.mark.parametrize("options", OPTIONS, ids=[next(iter(options)) for options in OPTIONS])
@pytest.mark.parametrize("kind", KINDS)
def test_other_options_change_nothing_else(kind, options):
    theirs = make(kind, **options)
    assert from_keras(theirs).bias == options.get("use_bias", True)
    assert_like_keras(theirs, mask=MASKS["right-padded"])


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("kind", KINDS)
def test_go_backwards_gives_the_same_in_the_order_of_the_input(kind, mask):
    theirs = make(kind, go_backwards=True)
    assert from_keras(theirs).reverse
    assert_like_keras(theirs, mask=MASKS[mask], in_time=turned)


def test_a_stateful_layer_goes_on_from_the_state_that_is_passed():
    theirs = layers.LSTM(H, stateful=True, return_sequences=True)
    theirs.build((B, T, K))
    layer = from_keras(theirs)
    state = None
    for _ in range(2):
        output, state = layer(padded(), state)
        assert_near(layer, [output], called(theirs, padded()), "output")
    assert_near(layer, [state[0][0]], [keras.ops.convert_to_numpy(theirs.states[0])], "h_n")


QUICK = [
    ("LSTM", {"recurrent_activation": "hard_sigmoid"}),
    ("GRU-reset-before", {"recurrent_activation": "hard_sigmoid"}),
    ("SimpleRNN", {"activation": "relu"}),
]
SLOW = [
    *[("SimpleRNN", {"activation": name}) for name in
      ("linear", "sigmoid", "hard_sigmoid", "elu", "leaky_relu", "softplus", "softsign")],
    ("LSTM", {"activation": "softsign", "recurrent_activation": "hard_sigmoid"}),
    ("GRU", {"activation": "relu", "recurrent_activation": "hard_sigmoid"}),
    ("LSTM", {"activation": None}),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "options"), [*QUICK, *[pytest.param(*case, marks=pytest.mark.slow) for case in SLOW]])
def test_activations_are_those_of_keras_3(kind, options):
    assert_like_keras(make(kind, **options))


def test_the_hard_sigmoid_of_keras_2_is_refused_with_the_way_that_takes_it():
    def hard_sigmoid(x):
        return keras.ops.clip(0.2 * x + 0.5, 0, 1)

    theirs = make("LSTM", recurrent_activation=hard_sigmoid)
    with pytest.raises(ValueError, match=r"recurrent_activation of layer must be one of Keras's tanh, .*of_keras_2'"):
        from_keras(theirs)
    layer = from_arrays("LSTM", *theirs.get_weights(), recurrent_activation="hard_sigmoid_of_keras_2")
    assert_like_keras(theirs, layer=layer)


@pytest.mark.parametrize("kind", KINDS)
def test_what_get_weights_lists_gives_the_same_layer_bit_for_bit(kind):
    theirs = make(kind)
    name, before = kind.partition("-")[0], kind.endswith("before")
    layer = from_arrays(name, *theirs.get_weights(), reset_after=not before)
    helpers.assert_same_bits(layer.state_dict(), from_keras(theirs).state_dict())


def test_parameters_are_copied_and_not_shared():
    theirs = make("LSTM")
    layer = from_keras(theirs)
    before = layer.parameters.copy()
    theirs.set_weights([np.zeros_like(value) for value in theirs.get_weights()])
    np.testing.assert_array_equal(layer.parameters, before)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_weights_of_a_mixed_policy_are_computed_with_as_they_are(policy):
    mixed, plain = make("LSTM", dtype=policy), make("LSTM")
    helpers.assert_same_bits(from_keras(mixed).state_dict(), from_keras(plain).state_dict())


@pytest.mark.parametrize("policy", ["float16", "bfloat16"])
def test_weights_of_16_bits_become_float32(policy):
    theirs = make("GRU", dtype=policy, recurrent_initializer="glorot_uniform")
    layer = from_keras(theirs)
    assert layer.dtype == np.float32
    kernel = keras.ops.convert_to_numpy(keras.ops.cast(theirs.cell.kernel, "float32"))
    np.testing.assert_array_equal(layer.state_dict()["weight_ih_l0"][H : 2 * H].T, kernel[:, :H])


def test_a_class_of_the_callers_that_computes_the_same_is_taken():
    class Named(layers.LSTM):
        def __init__(self, units):
            super().__init__(units, return_sequences=True)

    assert_like_keras(with_random_weights(Named(H)))


# -- both directions ---------------------------------------------------------------------------------------------------


def bidirectional(kind="LSTM", merge_mode="concat", units=H, inputs=K, **options):
    options = {"return_sequences": True, "return_state": True, **options}
    return with_random_weights(layers.Bidirectional(KINDS[kind](units, **options), merge_mode=merge_mode), inputs)


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("kind", KINDS)
def test_bidirectional_is_a_bidirectional_layer(kind, mask):
    theirs = bidirectional(kind)
    assert from_keras(theirs).bidirectional
    assert_like_keras(theirs, mask=MASKS[mask])


def test_a_backward_layer_of_its_own_is_the_second_direction():
    theirs = layers.Bidirectional(
        layers.GRU(H, return_sequences=True, use_bias=False),
        backward_layer=layers.GRU(H, return_sequences=True, go_backwards=True),
    )
    assert_like_keras(with_random_weights(theirs))


@pytest.mark.parametrize("mode", ["sum", "mul", "ave", None])
def test_other_merge_modes_are_refused_unless_the_caller_merges(mode):
    theirs = bidirectional("GRU", mode, return_state=False)
    with pytest.raises(
        ValueError, match=rf"merge_mode='concat'; got {mode!r}.* merged=False .*merge\(output, {mode!r}"
    ):
        from_keras(theirs)
    layer = from_keras(theirs, merged=False)
    mask = MASKS["right-padded"]
    output, _ = layer(nbp.pack_sequence([row[there] for row, there in zip(padded(), mask, strict=True)]))
    ours = helpers.as_tuple(merge(output, mode)) if mode is None else [merge(output, mode)]
    theirs = called(theirs, padded(), mask=mask)
    assert len(ours) == len(theirs)
    for one, other in zip(ours, theirs, strict=True):
        expected = [y[there] for y, there in zip(other, mask, strict=True)]
        assert_near(layer, nbp.unpack_sequence(one), expected, "output")


# -- several layers ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backwards", [False, True], ids=["forward", "backward"])
@pytest.mark.parametrize("units", [[H, H], [H, 4, 6]], ids=["equal", "widths"])
@pytest.mark.parametrize("kind", KINDS)
def test_stacked_cells_are_one_layer(kind, units, backwards):
    stacked = layers.StackedRNNCells([CELLS[kind](width) for width in units])
    options = {"return_sequences": True, "return_state": True, "go_backwards": backwards}
    theirs = with_random_weights(layers.RNN(stacked, **options))
    layer, mask = from_keras(theirs), MASKS["right-padded"]
    assert (layer.num_layers, layer.reverse) == (len(units), backwards)
    output, *states = called(theirs, padded(), mask=mask)
    in_time = turned(output) if backwards else output
    rows, ours = packed_rows(layer, padded(), mask)
    assert_near(layer, rows, [y[there] for y, there in zip(in_time, mask, strict=True)], "output")
    if len(set(units)) == 1:  # h, and c of an LSTM, of all layers; else of each layer its own
        ours = [part[i] for i in range(layer.num_layers) for part in ours]
    else:
        ours = [part[0] for of_one in ours for part in helpers.as_tuple(of_one)]
    assert_near(layer, ours, states, "state")


def test_a_cell_in_an_rnn_is_its_layer():
    theirs = with_random_weights(layers.RNN(layers.GRUCell(H, reset_after=False), return_sequences=True))
    assert isinstance(from_keras(theirs), GRUResetBefore)
    assert_like_keras(theirs)


def sequential(*made, inputs=K):
    model = keras.Sequential([keras.Input((None, inputs)), *made])
    return with_random_weights(model)


def assert_model_like_keras(model, in_time=lambda y: y, **options):
    layer = from_keras(model.layers, **options)
    assert_near(layer, [layer(padded())[0]], [in_time(y) for y in called(model, padded())], "output")
    return layer


@pytest.mark.parametrize("widths", [(H, H), (6, 4)], ids=["equal", "widths"])
def test_the_layers_of_a_sequential_model_are_one_stack(widths):
    one, two = (layers.LSTM(width, return_sequences=True) for width in widths)
    layer = assert_model_like_keras(sequential(one, layers.Dropout(0.5), two, layers.GaussianNoise(0.5)))
    assert layer.num_layers == 2
    assert type(layer) is (nbp.LSTM if widths == (H, H) else type(nbp.LSTM(K, [6, 4])))


def test_the_bias_that_one_layer_has_not_is_zeros():
    made = [layers.GRU(H, return_sequences=True, use_bias=use_bias) for use_bias in (True, False)]
    assert_model_like_keras(sequential(*made))


@pytest.mark.parametrize("mode", ["concat", "sum", "ave"])
def test_directions_that_the_next_layer_reads_merged_are_merged_in_its_weights(mode):
    made = [layers.Bidirectional(layers.LSTM(H, return_sequences=True), merge_mode=m) for m in (mode, "concat")]
    layer = assert_model_like_keras(sequential(*made))
    assert (layer.num_layers, layer.bidirectional) == (2, True)


def test_a_layer_after_one_that_goes_backwards_reads_its_output_backwards():
    made = [layers.GRU(H, return_sequences=True, go_backwards=backwards) for backwards in (True, False)]
    layer = assert_model_like_keras(sequential(*made), in_time=turned)
    assert layer.reverse


# -- what is refused ---------------------------------------------------------------------------------------------------


class OwnCall(layers.LSTM):
    def call(self, sequences, **options):
        return 2 * super().call(sequences, **options)


class Counting(layers.Layer):
    """A cell that is none of Keras's."""

    def __init__(self, units):
        super().__init__()
        self.state_size = units

    def call(self, inputs, states):
        return inputs, [states[0] + 1]


class OwnCell(layers.GRUCell):
    def call(self, inputs, states, training=False):
        return super().call(inputs, states)


def changed(layer, **attributes):
    for name, value in attributes.items():
        setattr(layer, name, value)
    return layer


def not_finite():
    layer = make("SimpleRNN")
    layer.set_weights([value * np.nan for value in layer.get_weights()])
    return layer


def unlike_directions(forward, backward):
    return with_random_weights(layers.Bidirectional(forward, backward_layer=backward))


WHOLE = {"return_sequences": True}
REFUSED = {
    "no layer": (
        TypeError,
        "layer must be a SimpleRNN, LSTM, GRU, RNN or Bidirectional of Keras 3, or a list of these; got int",
        lambda: 3,
    ),
    "another layer": (TypeError, "list of these; got keras.src.layers.core.dense.Dense", lambda: layers.Dense(3)),
    "another in a list": (
        TypeError,
        "layer[1] must be a SimpleRNN, LSTM, GRU, RNN or Bidirectional of Keras 3, or a list of these; got keras.",
        lambda: [make("GRU"), layers.Masking()],
    ),
    "one that does nothing": (TypeError, "layer must be a SimpleRNN", lambda: layers.Dropout(0.5)),
    "a whole model": (TypeError, "Sequential", lambda: sequential(layers.GRU(H))),
    "none": (ValueError, "layer must have a recurrent layer among its layers; got none", lambda: []),
    "a wrapper": (
        TypeError,
        "layer must be a SimpleRNN",
        lambda: layers.TimeDistributed(layers.LSTM(3)),
    ),
    "convolutions": (
        TypeError,
        "layer must compute what Keras's RNN does; got keras.src.layers.rnn.conv_lstm1d.ConvLSTM1D, with its own call",
        lambda: layers.ConvLSTM1D(2, 3),
    ),
    "a cell of the caller's": (
        TypeError,
        "layer.cell.cells[1] must be of SimpleRNNCell, LSTMCell or GRUCell; got test_interop_keras.Counting",
        lambda: with_random_weights(layers.RNN([layers.GRUCell(H), Counting(H)])),
    ),
    "own call": (
        TypeError,
        "layer must compute what Keras's LSTM does; got test_interop_keras.OwnCall, with its own call",
        lambda: with_random_weights(OwnCall(H)),
    ),
    "own cell": (
        TypeError,
        "layer.cell.cells[1] must compute what Keras's GRUCell does; got test_interop_keras.OwnCell, with its own call",
        lambda: with_random_weights(layers.RNN([layers.GRUCell(H), OwnCell(H)])),
    ),
    "own call of one layer": (
        TypeError,
        "layer must compute what Keras's LSTM does; got keras.src.layers.rnn.lstm.LSTM, with its own call",
        lambda: changed(make("LSTM"), call=print),
    ),
    "not built": (
        ValueError,
        "layer must have its weights: call it once, or its build(input_shape); got one not built",
        lambda: layers.LSTM(H),
    ),
    "NaN": (ValueError, "recurrent_kernel of layer must be finite; got nan", not_finite),
    "an activation": (
        ValueError,
        "activation of layer must be one of Keras's tanh, sigmoid, relu, linear, hard_sigmoid, elu, leaky_relu, "
        "softplus, softsign; got selu, of which there is no cell here",
        lambda: make("GRU", activation="selu"),
    ),
    "the last step alone": (
        ValueError,
        "layer[0] must have return_sequences=True with another layer on it; got <LSTM",
        lambda: [make("LSTM", return_sequences=False), make("LSTM", inputs=H)],
    ),
    "kinds": (
        ValueError,
        "layer[1] must have the formula of the first layer, LSTM; got GRU[linear_before_reset]: each layer can",
        lambda: [make("LSTM"), make("GRU", inputs=H)],
    ),
    "activations": (
        ValueError,
        "layer[1] must have the formula of the first layer, LSTM; got LSTM[HardSigmoid, Tanh, Tanh](f_alpha=0.166667, ",
        lambda: [make("LSTM"), make("LSTM", inputs=H, recurrent_activation="hard_sigmoid")],
    ),
    "directions": (
        ValueError,
        "layer[1] must have the number of directions of the first layer, 1; got 2",
        lambda: [make("LSTM"), bidirectional("LSTM", inputs=H)],
    ),
    "directions in time": (
        ValueError,
        "layer[1] must have the direction in time of the first layer, forward; got backward",
        lambda: [make("LSTM"), make("LSTM", inputs=H, go_backwards=True)],
    ),
    "dtypes": (
        ValueError,
        "layer[1] must have the dtype of the first layer, float32; got float64",
        lambda: [make("LSTM"), make("LSTM", inputs=H, dtype="float64")],
    ),
    "sizes": (
        ValueError,
        "layer[1] must have the input size 5, the output of the one before; got 4",
        lambda: [make("LSTM"), make("LSTM", inputs=4)],
    ),
    "a product that is read": (
        ValueError,
        "layer[0] must have merge_mode 'concat', 'sum' or 'ave' with another layer on it; got 'mul'",
        lambda: [bidirectional("LSTM", "mul"), bidirectional("LSTM", inputs=H)],
    ),
    "stacks in both directions": (
        ValueError,
        "layer must have one cell in each direction",
        lambda: with_random_weights(layers.Bidirectional(layers.RNN([layers.GRUCell(3), layers.GRUCell(3)], **WHOLE))),
    ),
    "units of both directions": (
        ValueError,
        "backward must have the units of the forward direction, 5; got 4: each direction can be taken alone",
        lambda: unlike_directions(layers.GRU(5, **WHOLE), layers.GRU(4, go_backwards=True, **WHOLE)),
    ),
    "turned directions": (
        ValueError,
        "layer must have a forward_layer without go_backwards, and a backward_layer with it; got the reverse",
        lambda: unlike_directions(layers.GRU(5, go_backwards=True, **WHOLE), layers.GRU(5, **WHOLE)),
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_no_layer_here_computes_is_refused_by_name(what):
    error, message, make_layer = REFUSED[what]
    with pytest.raises(error, match=re.escape(message)):
        from_keras(make_layer())


def test_a_layer_of_keras_2_is_refused_with_the_way_that_takes_it(monkeypatch):
    theirs = make("LSTM")
    monkeypatch.setattr(keras, "__version__", "2.15.0")
    with pytest.raises(TypeError, match=r"of Keras 3; got .*LSTM of Keras 2.15.0, whose weights from_arrays takes"):
        from_keras(theirs)


def test_merged_is_a_flag():
    with pytest.raises(TypeError, match="merged must be"):
        from_keras(make("LSTM"), merged="sum")
