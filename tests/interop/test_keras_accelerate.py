"""A Keras model whose recurrent layers run here gives what it gave, in inference; what is trained is Keras's own."""

import os

import numpy as np
import pytest

import numba_pack as nbp
from numba_pack.interop._keras_accelerate import Loop
from numba_pack.interop._keras_layers import Replacement

os.environ.setdefault("KERAS_BACKEND", "torch")  # which other tests of this folder need, too
keras = pytest.importorskip("keras", reason="its models are what is accelerated", exc_type=ImportError)
layers = keras.layers

K, H, B, T = 3, 5, 4, 7


@pytest.fixture
def calls(monkeypatch):
    """A list that grows with each call of a layer that runs here."""
    found, here = [], Loop.here

    def counted(*arguments):
        found.append(1)
        return here(*arguments)

    monkeypatch.setattr(Loop, "here", counted)
    return found


def padded():
    """Rows of zeros, which Masking takes out: at the end of one, within one, and all of one."""
    x = np.random.default_rng(0).standard_normal((B, T, K)).astype(np.float32)
    x[1, 4:] = x[2, 1:3] = x[3] = 0
    return x


def model_of(*made, masked=False):
    model = keras.Sequential([keras.Input((None, K)), *[layers.Masking()] * masked, *made])
    rng = np.random.default_rng(1)
    model.set_weights([rng.uniform(-0.6, 0.6, value.shape).astype("f") for value in model.get_weights()])
    return model


def results(model, x):
    """What a call and what `predict` give."""
    both = model(x), model.predict(x, verbose=0)
    return [keras.ops.convert_to_numpy(one) for one in keras.tree.flatten(both)]


def assert_near(got, expected):
    for one, other in zip(got, expected, strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-6)


def assert_runs_here(model, calls, count=1, x=None):
    """Accelerated, the model gives what it gave, with so many layers run here a call."""
    x = padded() if x is None else x
    expected = results(model, x)
    accelerated = nbp.interop.keras.accelerate(model)
    assert (len(accelerated.taken), accelerated.left) == (count, {})
    assert_near(results(model, x), expected)
    if keras.config.backend() != "jax":  # where compiled calls of small layers are XLA's
        assert len(calls) == 2 * count


KINDS = {
    "SimpleRNN": layers.SimpleRNN,
    "LSTM": layers.LSTM,
    "GRU": layers.GRU,
    "GRU-reset-before": lambda units, **options: layers.GRU(units, reset_after=False, **options),
}
OPTIONS = [
    {},
    {"return_sequences": True},
    {"return_sequences": True, "go_backwards": True},
    {"return_sequences": True, "zero_output_for_mask": True},
    {"go_backwards": True, "use_bias": False},
]


@pytest.mark.parametrize("masked", [False, True], ids=["whole", "masked"])
@pytest.mark.parametrize("options", OPTIONS, ids=[" ".join(options) or "plain" for options in OPTIONS])
@pytest.mark.parametrize("kind", KINDS)
def test_a_layer_gives_what_it_gave(calls, kind, options, masked):
    assert_runs_here(model_of(KINDS[kind](H, **options), masked=masked), calls)


@pytest.mark.parametrize("masked", [False, True], ids=["whole", "masked"])
@pytest.mark.parametrize("mode", ["concat", "sum"])
def test_each_direction_is_a_layer(calls, mode, masked):
    model = model_of(layers.Bidirectional(layers.LSTM(H, return_sequences=True), merge_mode=mode), masked=masked)
    assert_runs_here(model, calls, count=2)


@pytest.mark.parametrize("cell", [layers.LSTMCell, layers.GRUCell])
def test_stacked_cells_run_here(calls, cell):
    assert_runs_here(model_of(layers.RNN([cell(4), cell(6)], return_sequences=True)), calls)


def test_states_go_in_and_out(calls):
    given, state = keras.Input((None, K)), [keras.Input((H,)), keras.Input((H,))]
    made = layers.LSTM(H, return_sequences=True, return_state=True)(given, initial_state=state)
    rng = np.random.default_rng(2)
    x = [padded(), *(rng.standard_normal((B, H)).astype(np.float32) for _ in range(2))]
    assert_runs_here(keras.Model([given, *state], made), calls, x=x)


def test_weights_may_change_between_calls(calls):
    model = model_of(layers.GRU(H))
    before = nbp.interop.keras.accelerate(model).taken and results(model, padded())
    model.set_weights([2 * value for value in model.get_weights()])
    after = results(model, padded())
    assert not np.allclose(before[0], after[0])
    other = keras.models.clone_model(model)
    other.set_weights(model.get_weights())
    assert_near(after, results(other, padded()))


def test_undone_the_model_runs_as_before(calls):
    model = model_of(layers.LSTM(H))
    expected = results(model, padded())
    nbp.interop.keras.accelerate(model).undo()
    for one, other in zip(results(model, padded()), expected, strict=True):
        np.testing.assert_array_equal(one, other)
    assert not calls
    assert "inner_loop" not in vars(model.layers[0])


def test_training_is_that_of_keras(calls):
    x, y = padded(), np.ones((B, H), np.float32)
    models = [model_of(layers.LSTM(H, return_sequences=True), layers.GRU(H), masked=True) for _ in range(2)]
    nbp.interop.keras.accelerate(models[1])
    for model in models:
        model.compile("sgd", "mse")
        model.fit(x, y, epochs=2, shuffle=False, verbose=0)
    assert not calls
    for one, other in zip(*(model.get_weights() for model in models), strict=True):
        np.testing.assert_array_equal(one, other)
    assert_near(results(models[1], x), results(models[0], x))


@pytest.mark.skipif(keras.config.backend() != "torch", reason="gradients here are PyTorch's")
def test_a_call_that_is_differentiated_has_the_gradient_of_keras(calls):
    import torch

    model = model_of(layers.Bidirectional(layers.LSTM(H, return_sequences=True)), layers.GRU(H), masked=True)

    def gradients():
        x = torch.tensor(padded(), requires_grad=True)
        model.zero_grad()
        (model(x) ** 2).sum().backward()
        return [x.grad.numpy(), *(one.value.grad.numpy().copy() for one in model.trainable_variables)]

    expected = gradients()
    nbp.interop.keras.accelerate(model)
    found = gradients()
    assert len(calls) == 3
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-5)


def test_a_saved_model_is_as_before(calls, tmp_path):
    model = model_of(layers.LSTM(H))
    nbp.interop.keras.accelerate(model)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert not isinstance(vars(again.layers[0]).get("inner_loop"), Replacement)
    assert_near(results(again, padded()), results(model, padded()))
    assert repr(nbp.interop.keras.from_keras(model.layers[0])) == "LSTM(3, 5, batch_first=True)"


def test_the_report_tells_what_is_left_and_why():
    @keras.saving.register_keras_serializable()
    class Own(layers.LSTM):
        def call(self, sequences, initial_state=None, mask=None, training=False):
            return super().call(sequences, initial_state=initial_state, mask=mask, training=training)

    whole = {"return_sequences": True}
    model = model_of(
        keras.Sequential([layers.LSTM(H, name="reader", **whole)], name="encoder"),
        Own(H, name="own", **whole),
        layers.GRU(H, activation="gelu", name="gelu", **whole),
        layers.LSTM(H, dtype="mixed_bfloat16", name="short", **whole),
        layers.Dense(2),
    )
    accelerated = nbp.interop.keras.accelerate(model)
    assert accelerated.taken == ("encoder/reader",)
    assert list(accelerated.left) == ["own", "gelu", "short"]
    for name, words in (("own", "with its own call"), ("gelu", "got gelu"), ("short", "bfloat16")):
        assert words in accelerated.left[name]
    assert str(accelerated).startswith("encoder/reader: taken\nown: left, it must compute what Keras's LSTM does")
    assert repr(accelerated) == str(accelerated)
    again = nbp.interop.keras.accelerate(model)
    assert (again.taken, again.left["encoder/reader"]) == ((), "runs on numba_pack already")
    assert nbp.interop.keras.accelerate(layers.LSTMCell(H)).left == {
        "": "a cell, whose single steps would gain nothing"
    }
    assert str(nbp.interop.keras.accelerate(layers.Dense(2))) == "no recurrent layers"


def test_what_is_no_model_is_refused():
    with pytest.raises(TypeError, match="model must be a model or a layer of Keras 3; got list"):
        nbp.interop.keras.accelerate([layers.LSTM(H)])


def test_a_mask_of_all_steps_gives_the_bits_of_none(calls):
    x = padded() + 1
    plain, masked = model_of(layers.LSTM(H)), model_of(layers.LSTM(H), masked=True)
    for model in (plain, masked):
        nbp.interop.keras.accelerate(model)
    np.testing.assert_array_equal(results(plain, x), results(masked, x))
    assert len(calls) == 4


@pytest.mark.skipif(keras.config.backend() != "torch", reason="they are PyTorch's here")
def test_weights_may_change_in_place_between_long_calls_and_short_ones(calls):
    """Some of which look at marks, and some at all weights."""
    model, x = model_of(layers.GRU(60)), padded()
    nbp.interop.keras.accelerate(model)
    import torch

    kernel = model.layers[0].cell.recurrent_kernel.value
    for rows in (x, np.tile(x, (8, 3, 1)), x):
        before = results(model, rows)[0]
        with torch.no_grad():
            kernel.mul_(0.2)  # of which the first leaves nothing chaotic
        after = results(model, rows)[0]
        assert not np.allclose(before, after, atol=1e-3)
        other = keras.models.clone_model(model)
        other.set_weights(model.get_weights())
        np.testing.assert_allclose(after, results(other, rows)[0], rtol=0, atol=1e-5)


# -- jax ---------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_with_jax_compiled_and_differentiated_calls_give_what_they_gave():
    import subprocess
    import sys

    pytest.importorskip("jax", reason="the backend of this test")
    script = """
import gc, numpy as np, jax, keras, numba_pack as nbp
from numba_pack.interop import _keras_accelerate, _keras_jax
_keras_jax.is_worth_a_call = lambda *_: True
calls, here = [], _keras_accelerate.Loop.here
_keras_accelerate.Loop.here = lambda *arguments: calls.append(1) or here(*arguments)
x = np.random.default_rng(0).standard_normal((4, 7, 3)).astype("f")
x[1, 4:] = 0
layers = keras.layers
made = [layers.Masking(), layers.Bidirectional(layers.LSTM(5, return_sequences=True)), layers.GRU(3)]
model = keras.Sequential([keras.Input((None, 3)), *made])
def loss(weights, x):
    others = [one.value for one in model.non_trainable_variables]
    return (model.stateless_call(weights, others, x)[0] ** 2).sum()
def found():
    weights = [one.value for one in model.trainable_variables]
    gradients = jax.jit(jax.grad(loss, (0, 1)))(weights, x)
    return [np.asarray(one) for one in jax.tree.leaves((model(x), model.predict(x, verbose=0), gradients))]
before = found()
accelerated = nbp.interop.keras.accelerate(model)
assert len(accelerated.taken) == 3
after = found()
assert len(calls) == 6, calls
for one, other in zip(before, after, strict=True):
    np.testing.assert_allclose(one, other, rtol=0, atol=1e-5)

def predicted():
    return model.predict(x, verbose=0)
def assert_as_a_plain_model_predicts():
    other = keras.models.clone_model(model)
    other.set_weights(model.get_weights())
    np.testing.assert_allclose(predicted(), other.predict(x, verbose=0), rtol=0, atol=1e-6)
earlier = predicted()
model.set_weights([2 * one for one in model.get_weights()])
assert not np.allclose(earlier, predicted())
assert_as_a_plain_model_predicts()
model.compile("sgd", "mse")
model.fit(x, np.ones((4, 3), "f"), epochs=2, verbose=0)  # which gives the memory of the weights away
assert_as_a_plain_model_predicts()

def function(weights, x):
    return model.stateless_call(weights, [one.value for one in model.non_trainable_variables], x)[0]
weights, count = [one.value for one in model.trainable_variables], len(calls)
compiled = jax.jit(function)
result, several = compiled(weights, x), jax.jit(jax.vmap(function, (None, 0)))(weights, np.stack([x, 0 * x]))
np.testing.assert_allclose(several[0], result, rtol=0, atol=1e-6)
assert len(calls) == count + 9
accelerated.undo()
gc.collect()
np.testing.assert_array_equal(compiled(weights, x), result)  # what is compiled stays what it is
_keras_accelerate.Loop.here = lambda *arguments: 1 / 0
try:
    np.asarray(compiled(weights, x))
except (ValueError, RuntimeError) as error:  # which of them, jax has changed
    assert "division by zero" in str(error)
else:
    raise AssertionError
"""
    subprocess.run([sys.executable, "-c", script], check=True, env={**os.environ, "KERAS_BACKEND": "jax"})
