"""`matmul_precision` of layers: what it is, who shares it, and that results are as exact as it says."""

import copy
import json
import os
import pickle
import subprocess
import sys

import numpy as np
import pytest
from helpers import assert_same_bits
from numba import njit

import numba_pack as nbp
from numba_pack import cells
from numba_pack.layers.engine import engine
from numba_pack.serving import Streams

PRECISIONS = ("highest", "high", "medium")
LENGTHS = (9, 0, 14, 3, 14)
I, H = 5, 20  # noqa: E741

#: the largest error of an output of these small nets, whose values are at most 1, against float64
BOUNDS = {"highest": 2e-6, "high": 2e-4, "medium": 3e-2}

MAKERS = {
    "RNN": lambda **to: nbp.RNN(I, H, rng=0, **to),
    "LSTM": lambda **to: nbp.LSTM(I, H, rng=0, **to),
    "GRU": lambda **to: nbp.GRU(I, H, 2, bidirectional=True, rng=0, **to),
    "stack": lambda **to: nbp.LSTM(I, [H, 8], rng=0, **to),
    "peephole": lambda **to: cells.PeepholeLSTM(I, H, rng=0, **to),
    "RNNCell": lambda **to: nbp.RNNCell(I, H, rng=0, **to),
    "LSTMCell": lambda **to: nbp.LSTMCell(I, H, rng=0, **to),
    "GRUCell": lambda **to: nbp.GRUCell(I, H, rng=0, **to),
}


def sequences(seed=0, dtype=np.float32):
    rng = np.random.default_rng(seed)
    return [rng.standard_normal((length, I)).astype(dtype) for length in LENGTHS]


@pytest.fixture
def default():
    """A place to set the default of the process from."""
    before = nbp.get_float32_matmul_precision()
    yield nbp.set_float32_matmul_precision
    nbp.set_float32_matmul_precision(before)


# -- what it is --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MAKERS)
def test_it_is_an_attribute_that_a_repr_shows_if_it_is_not_highest(name, default):
    default("highest")
    make = MAKERS[name]
    assert make().matmul_precision == "highest" and repr(make()) == repr(make(matmul_precision="highest"))
    for precision in ("high", "medium"):
        layer = make(matmul_precision=precision)
        assert layer.matmul_precision == precision
        assert repr(layer) == repr(make())[:-1] + f", matmul_precision={precision!r})"
        with pytest.raises(AttributeError, match="matmul_precision is fixed"):
            layer.matmul_precision = "high"
    assert "matmul_precision" in make()._options()


@pytest.mark.parametrize("name", MAKERS)
def test_a_layer_that_is_not_given_one_has_what_was_the_default_when_it_was_made(name, default):
    make = MAKERS[name]
    default("medium")
    assert nbp.get_float32_matmul_precision() == "medium"
    layer = make()
    default("high")
    assert (layer.matmul_precision, make().matmul_precision) == ("medium", "high")
    assert make(matmul_precision="highest").matmul_precision == "highest"
    assert make(dtype=np.float64).matmul_precision == "highest"  # for which there is no other


@pytest.mark.parametrize("given", [None, *PRECISIONS])
def test_the_default_comes_from_the_environment(given):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    environment.pop("NUMBA_PACK_MATMUL_PRECISION", None)
    if given:
        environment["NUMBA_PACK_MATMUL_PRECISION"] = given
    script = "from numba_pack.layers import precision; print(precision.get_float32_matmul_precision())"
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == (given or "highest")


def test_what_the_environment_must_hold_is_told():
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    environment["NUMBA_PACK_MATMUL_PRECISION"] = "best"
    done = subprocess.run(
        [sys.executable, "-c", "import numba_pack"], env=environment, capture_output=True, text=True, check=False
    )
    expected = "NUMBA_PACK_MATMUL_PRECISION must be highest, high or medium; got 'best'"
    assert done.returncode and f"ImportError: the environment variable {expected}" in done.stderr


@pytest.mark.parametrize("name", MAKERS)
def test_float64_is_computed_in_float64_alone(name):
    make = MAKERS[name]
    assert make(dtype=np.float64, matmul_precision="highest").with_precision("highest").dtype == np.float64
    for precision in ("high", "medium"):
        for call in (
            lambda p=precision: make(dtype=np.float64, matmul_precision=p),
            lambda p=precision: make(dtype=np.float64).with_precision(p),
        ):
            with pytest.raises(ValueError, match="matmul_precision must be 'highest' for float64: others are for "):
                call()


# -- parameters that are shared ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MAKERS)
def test_a_layer_in_another_precision_shares_its_parameters(name):
    layer = MAKERS[name]()
    other = layer.with_precision("medium")
    assert type(other) is type(layer) and other.cell is layer.cell and other.matmul_precision == "medium"
    assert layer.matmul_precision == nbp.get_float32_matmul_precision()
    third = other.with_precision("high")
    for one in (layer, other, third):
        one.parameters = 0.5 * one.parameters
        assert layer.parameters is other.parameters is third.parameters
    other.load_state_dict({name: np.ones_like(value) for name, value in layer.state_dict().items()})
    assert (layer.parameters == 1).all()
    x = sequences()[0]
    if not name.endswith("Cell"):
        found, expected = layer(x)[0], MAKERS[name]()
        expected.parameters = layer.parameters
        assert_same_bits(found, expected(x)[0])


@pytest.mark.parametrize("name", MAKERS)
def test_a_copy_shares_nothing_and_keeps_its_precision(name):
    layer = MAKERS[name](matmul_precision="medium")
    before = layer.parameters
    for twin in (copy.copy(layer), copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert twin.matmul_precision == "medium" and repr(twin) == repr(layer)
        twin.parameters = np.zeros_like(before)
        assert layer.parameters is before


def test_two_that_are_pickled_together_share_their_parameters_again():
    layer = MAKERS["LSTM"]()
    one, other = pickle.loads(pickle.dumps((layer, layer.with_precision("medium"))))
    one.parameters = np.zeros_like(one.parameters)
    assert other.parameters is one.parameters and other.matmul_precision == "medium"


def test_the_layers_of_a_stack_have_its_precision_and_their_part_of_its_parameters():
    stack = MAKERS["stack"]()
    medium = stack.with_precision("medium")
    assert {layer.matmul_precision for layer in medium.layers} == {"medium"}
    assert {layer.matmul_precision for layer in stack.layers} == {stack.matmul_precision}
    stack.parameters = np.ones_like(stack.parameters)
    assert all((layer.parameters == 1).all() for layer in medium.layers)


def test_what_is_computed_alike_is_packed_once():
    layer = MAKERS["LSTM"]()
    in_all = {precision: layer.with_precision(precision).weights for precision in PRECISIONS}
    for one in in_all.values():
        for other in in_all.values():
            assert (one is other) == (type(one) is type(other))


def test_a_folded_embedding_keeps_the_precision():
    for make in ("GRU", "stack"):
        folded = nbp.fold_embedding(MAKERS[make](matmul_precision="medium"), np.ones((7, I)))
        assert folded.matmul_precision == "medium"
        assert repr(folded).endswith("matmul_precision='medium')")


# -- what is computed --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", MAKERS)
def test_the_engine_says_which_factors_are_taken(name, precision):
    layer = MAKERS[name](matmul_precision=precision)
    for one in layer.layers if name == "stack" else [layer]:
        factors = engine.factors_for(precision, layer.dtype, one.hidden_size)
        assert type(one._packed()).cell is one.cell.with_factors(factors)
        assert one.cell is MAKERS[name](dtype=np.float64).cell  # which is the cell itself


def twin(layer):
    """The same layer in float64."""
    options = {**layer._options(), "matmul_precision": "highest", "dtype": np.float64}
    other = type(layer)(**options) if type(layer) in (nbp.RNN, nbp.LSTM, nbp.GRU) else layer.cell(**options)
    other.load_state_dict(layer.state_dict())
    return other


def near(found, expected, precision, what=""):
    """Whether arrays are so near to those of float64, by the largest of each."""
    assert len(found) == len(expected)
    for got, right in zip(found, expected, strict=True):
        scale = max(1.0, np.abs(right).max(initial=0.0))
        assert got.dtype == np.float32
        assert np.abs(got - right).max(initial=0.0) <= BOUNDS[precision] * scale, what


def leaves(value):
    return [value] if isinstance(value, np.ndarray) else [array for part in value for array in leaves(part)]


SLOW = pytest.mark.slow
TRAINED = ["LSTM", "GRU", *(pytest.param(name, marks=SLOW) for name in ("RNN", "peephole"))]


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", TRAINED)
def test_outputs_and_gradients_are_as_exact_as_it_says(name, precision):
    layer = MAKERS[name](matmul_precision=precision)
    exact, given = twin(layer), sequences()
    packed, wide = nbp.pack_sequence(given), nbp.pack_sequence([x.astype(float) for x in given])
    output, state, tape = layer.forward(packed)
    expected, its_state, its_tape = exact.forward(wide)
    near([output.data, *leaves(state)], [expected.data, *leaves(its_state)], precision, "output")
    assert_same_bits(layer(packed)[0].data, output.data)
    d = np.random.default_rng(1).standard_normal(expected.data.shape)
    gradients, its = layer.backward(tape, d.astype(np.float32)), exact.backward(its_tape, d)
    near([gradients.input.data, *leaves(gradients.hx)], [its.input.data, *leaves(its.hx)], precision, "input")
    near([gradients.parameters], [its.parameters], precision, "parameters")


@pytest.mark.parametrize("precision", ["high", "medium"])
@pytest.mark.parametrize("name", TRAINED)
def test_all_forms_give_the_bits_of_each_sequence_alone(name, precision):
    layer, given = MAKERS[name](matmul_precision=precision), sequences()
    packed = nbp.pack_sequence(given)
    together = nbp.unpack_sequence(layer(packed)[0])
    for x, output in zip(given, together, strict=True):
        assert_same_bits(layer(x)[0], output)
    same = [x for x in given if len(x) == 14]
    padded = layer(np.stack(same, axis=1))[0]
    assert_same_bits(padded[:, 0], layer(same[0])[0])
    with nbp.threads(2):
        assert_same_bits(layer(packed)[0].data, nbp.pack_sequence(together).data)


def test_symbols_are_computed_in_every_precision():
    text = np.random.default_rng(0).integers(0, I, 11)
    for precision in PRECISIONS:
        layer = MAKERS["LSTM"](matmul_precision=precision)
        near([layer(text)[0]], [twin(layer)(np.eye(I)[text])[0]], precision)


def test_one_step_after_the_other_is_the_layer():
    layer, step = MAKERS["LSTM"](matmul_precision="medium"), MAKERS["LSTMCell"](matmul_precision="medium")
    step.load_state_dict({name.removesuffix("_l0"): value for name, value in layer.state_dict().items()})
    x, state = sequences()[0], None
    for row, output in zip(x, layer(x)[0], strict=True):
        state = step(row, state)
        assert_same_bits(state[0], output)
    state, tape = step.forward(x)
    assert step.backward(tape, state).input.shape == x.shape


def test_streams_run_in_the_precision_of_their_layer():
    layer = MAKERS["LSTM"](matmul_precision="medium")
    streams, x = Streams(layer, 2), sequences()[0]
    id = streams.open()
    parts = [streams.feed({id: x[:4]})[id], *(streams.step([id], row[None]) for row in x[4:])]
    assert_same_bits(np.concatenate(parts), layer(x)[0])
    assert "matmul_precision='medium'" in repr(streams)
    nbp.warmup(layer)


@njit
def trained(packed, weights, d_output):
    output, _, tape = nbp.lstm_forward(packed, weights)
    gradients = nbp.lstm_backward(tape, d_output)
    return output.data, nbp.lstm(packed, weights)[0].data, gradients.parameters


@njit
def run(packed, weights):
    return nbp.run(packed, weights)[0].data


@pytest.mark.parametrize("precision", ["high", "medium"])
def test_compiled_code_takes_the_weights_of_every_precision(precision):
    layer, packed = MAKERS["LSTM"](matmul_precision=precision), nbp.pack_sequence(sequences())
    output, _, tape = layer.forward(packed)
    expected = layer.backward(tape, output).parameters
    assert_same_bits(trained(packed, layer.weights, output.data), (output.data, output.data, expected))
    assert_same_bits(run(packed, layer.weights), output.data)
    assert_same_bits(nbp.lstm(packed, layer.weights)[0].data, output.data)
    assert_same_bits(pickle.loads(pickle.dumps(layer.weights)).panels, layer.weights.panels)
    with pytest.raises(
        TypeError, match=r"weights of gru must be the weights of its layer, GRUWeights; got .*LSTMWeights"
    ):
        nbp.gru(packed, layer.weights)


# -- files -------------------------------------------------------------------------------------------------------------

pytest.importorskip("safetensors", reason="files are in its format")
import safetensors.numpy  # noqa: E402


@pytest.mark.parametrize("name", MAKERS)
def test_a_file_keeps_it_whatever_the_default_is(name, default, tmp_path):
    path = tmp_path / "layer"
    for precision in PRECISIONS:
        nbp.save(path, MAKERS[name](matmul_precision=precision))
        for other in PRECISIONS:
            default(other)
            assert nbp.load(path).matmul_precision == precision


def test_a_file_that_does_not_tell_it_was_made_for_the_highest(default, tmp_path):
    layer, path = MAKERS["LSTM"](), tmp_path / "layer"
    default("medium")
    older = {"kind": "LSTM", **{name: value for name, value in layer._options().items() if name != "matmul_precision"}}
    safetensors.numpy.save_file(layer.state_dict(), path, {"numba_pack": json.dumps({"": older})})
    assert nbp.load(path).matmul_precision == "highest"
    safetensors.numpy.save_file(layer.state_dict(), path)  # of no origin that we know
    assert nbp.load(path).matmul_precision == "medium"


def test_a_file_with_a_precision_that_there_is_not_is_refused(tmp_path):
    layer, path = MAKERS["LSTM"](), tmp_path / "layer"
    for lie, message in (("best", "'highest', 'high' or 'medium'; got 'best'"), (3, "'medium'; got 3")):
        told = {"kind": "LSTM", **layer._options(), "matmul_precision": lie}
        safetensors.numpy.save_file(layer.state_dict(), path, {"numba_pack": json.dumps({"": told})})
        with pytest.raises(ValueError, match=f"the layer: matmul_precision must be .*{message}"):
            nbp.load(path)
