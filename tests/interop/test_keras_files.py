"""Recurrent layers out of Keras's files.

The files of the first sections are made by hand, as each version of Keras lays them out, and compared with Keras's
equations in plain NumPy. The last one compares with Keras and its own files.
"""

import io
import json
import os
import re
import zipfile

import naive_keras
import numpy as np
import pytest
from helpers import LENGTHS, assert_near, assert_same_bits, normal

import numba_pack as nbp
from numba_pack.interop.keras import from_arrays, from_keras, load

h5py = pytest.importorskip("h5py", reason="it reads and writes the files of these tests")

K, H = 3, 5
GATES = {"SimpleRNN": 1, "LSTM": 4, "GRU": 3}


def weights(kind, reset_after=True, bias=True, inputs=K, units=H, rng=0, dtype=np.float32):
    rng, G = np.random.default_rng(rng), GATES[kind] * units
    found = [0.5 * normal(rng, (inputs, G), dtype), 0.3 * normal(rng, (units, G), dtype)]
    return found + [normal(rng, (2, G) if kind == "GRU" and reset_after else (G,), dtype)] * bias


def layer(kind, name, module="keras.layers", **options):
    return {"module": module, "class_name": kind, "config": {"name": name, **options}}


def sequential(*layers, name="model"):
    return {"module": "keras", "class_name": "Sequential", "config": {"name": name, "layers": list(layers)}}


def put(group, path, arrays, name=None):
    variables = group.create_group(f"{path}/vars")
    for i, array in enumerate(arrays):
        variables[str(i)] = array
    if name:
        variables.attrs["name"] = name


def h5_of_keras_3(cells):
    """The bytes of a ``.weights.h5`` file: arrays by group."""
    file = io.BytesIO()
    with h5py.File(file, "w") as h5:
        for path, arrays in cells.items():
            put(h5, path, arrays)
    return file.getvalue()


def keras_3(folder, config, cells, version="3.9.0"):
    path = folder / "model.keras"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("metadata.json", json.dumps({"keras_version": version}))
        archive.writestr("config.json", json.dumps(config))
        archive.writestr("model.weights.h5", h5_of_keras_3(cells))
    return path


def weights_alone(folder, cells):
    path = folder / "model.weights.h5"
    path.write_bytes(h5_of_keras_3(cells))
    return path


def legacy(folder, config, layers, version="2.11.0"):
    """An ``.h5`` file of a whole model, or of weights alone: by layer the names of weights, and the weights."""
    path = folder / "model.h5"
    with h5py.File(path, "w") as h5:
        group = h5 if config is None else h5.create_group("model_weights")
        group.attrs["layer_names"] = list(layers)
        group.attrs["keras_version"] = version
        if config is not None:
            h5.attrs["model_config"] = json.dumps(config)
        for name, of_layer in layers.items():
            within = group.create_group(name)
            within.attrs["weight_names"] = list(of_layer)
            for weight, array in of_layer.items():
                within[weight] = array
    return path


def named(path, arrays):
    return {
        f"{path}/{name}:0": array for name, array in zip(("kernel", "recurrent_kernel", "bias"), arrays, strict=False)
    }


def assert_computes(ours, kind, of_directions, backwards=(False, True), **said):
    """Packed, each sequence has the outputs of each direction that Keras's equations give it."""
    rng = np.random.default_rng(1)
    given = [normal(rng, (n, ours.input_size), ours.dtype) for n in LENGTHS]
    output, _ = ours(nbp.pack_sequence(given))
    expected = [
        np.concatenate(
            [
                naive_keras.run(kind, of_one, sequence, backward=backward, **said)[0]
                for of_one, backward in zip(of_directions, backwards, strict=False)
            ],
            axis=1,
        )
        for sequence in given
    ]
    assert_near(ours, LENGTHS, nbp.unpack_sequence(output), expected, "output")


# -- files with the configuration --------------------------------------------------------------------------------------

OPTIONS = [
    ("SimpleRNN", {"activation": "relu"}),
    ("LSTM", {"recurrent_activation": "hard_sigmoid"}),
    ("GRU", {"reset_after": True}),
    ("GRU", {"reset_after": False}),
]


@pytest.mark.parametrize("go_backwards", [False, True])
@pytest.mark.parametrize(("kind", "said"), OPTIONS)
def test_a_keras_file_gives_the_layer_with_its_options(tmp_path, kind, said, go_backwards):
    arrays = weights(kind, said.get("reset_after", True))
    config = sequential(layer("Dense", "first"), layer(kind, "reader", go_backwards=go_backwards, **said))
    group = {"SimpleRNN": "simple_rnn", "LSTM": "lstm", "GRU": "gru"}[kind]
    found = load(keras_3(tmp_path, config, {f"layers/{group}/cell": arrays, "layers/dense": [np.ones((4, K))]}))
    assert list(found) == ["reader"]
    assert_computes(found["reader"], kind, [arrays], [go_backwards], **said)


@pytest.mark.parametrize(("version", "name"), [("2.15.0", "hard_sigmoid_of_keras_2"), ("3.0.1", "hard_sigmoid")])
def test_hard_sigmoid_is_that_of_the_version_that_wrote_the_file(tmp_path, version, name):
    arrays = weights("LSTM")
    config = sequential(layer("LSTM", "reader", recurrent_activation="hard_sigmoid"))
    for path in (
        keras_3(tmp_path, config, {"layers/lstm/cell": arrays}, version),
        legacy(tmp_path, config, {"reader": named("reader/lstm_cell", arrays)}, version),
    ):
        assert_computes(load(path)["reader"], "LSTM", [arrays], recurrent_activation=name)


def test_layers_of_one_class_are_told_apart_by_their_order(tmp_path):
    both = weights("LSTM"), weights("LSTM", inputs=H, rng=1)
    config = sequential(layer("LSTM", "z"), layer("LSTM", "a"))
    found = load(keras_3(tmp_path, config, {"layers/lstm/cell": both[0], "layers/lstm_1/cell": both[1]}))
    for name, arrays in zip("za", both, strict=True):
        assert_same_bits(found[name].state_dict(), from_arrays("LSTM", *arrays).state_dict())


def test_models_and_wrappers_are_looked_into_and_their_names_come_before(tmp_path):
    one, two = weights("GRU"), weights("SimpleRNN", rng=1)
    inner = sequential(layer("GRU", "reader", reset_after=True), name="encoder")
    config = sequential(inner, layer("TimeDistributed", "each", layer=sequential(layer("SimpleRNN", "it"), name="of")))
    places = {
        "layers/sequential/layers/gru/cell": one,
        "layers/time_distributed/layer/layers/simple_rnn/cell": two,
    }
    found = load(keras_3(tmp_path, config, places))
    assert list(found) == ["encoder/reader", "each/of/it"]
    weights_of = {"encoder": named("reader/gru_cell", one), "each": named("it/simple_rnn_cell", two)}
    again = load(legacy(tmp_path, config, weights_of))
    for name, ours in found.items():
        assert_same_bits(ours.state_dict(), again[name].state_dict())
    assert_computes(found["encoder/reader"], "GRU", [one])


@pytest.mark.parametrize("backward", [None, "its own"])
def test_both_directions_are_one_layer(tmp_path, backward):
    both = weights("LSTM"), weights("LSTM", rng=1)
    options = {"layer": layer("LSTM", "forward"), "merge_mode": "concat"}
    if backward:
        options["backward_layer"] = layer("LSTM", "backward", go_backwards=True)
    config = sequential(layer("Bidirectional", "both", **options))
    places = {f"layers/bidirectional/{w}_layer/cell": a for w, a in zip(("forward", "backward"), both, strict=True)}
    names = named("both/forward_lstm/lstm_cell", both[0]) | named("both/backward_lstm/lstm_cell", both[1])
    for path in (keras_3(tmp_path, config, places), legacy(tmp_path, config, {"both": names})):
        assert_computes(load(path)["both"], "LSTM", both)


def test_other_merge_modes_are_refused_unless_the_caller_merges(tmp_path):
    both = weights("GRU"), weights("GRU", rng=1)
    config = sequential(
        layer("Bidirectional", "both", merge_mode="sum", layer=layer("GRU", "forward", reset_after=True))
    )
    places = {f"layers/bidirectional/{w}_layer/cell": a for w, a in zip(("forward", "backward"), both, strict=True)}
    path = keras_3(tmp_path, config, places)
    with pytest.raises(ValueError, match=r"layer 'both': it must have merge_mode='concat'; got 'sum'.* merged=False"):
        load(path)
    assert_computes(load(path, merged=False)["both"], "GRU", both)


def test_stacked_cells_are_one_layer(tmp_path):
    one, two = weights("LSTM"), weights("LSTM", inputs=H, units=4, rng=1)
    cells = [layer("LSTMCell", f"c{i}") for i in range(2)]
    config = sequential(layer("RNN", "deep", cell=layer("StackedRNNCells", "cells", cells=cells)))
    places = {"layers/rnn/cell/cells/lstm_cell": one, "layers/rnn/cell/cells/lstm_cell_1": two}
    names = named("deep/stacked_rnn_cells/lstm_cell", one) | named("deep/stacked_rnn_cells/lstm_cell_1", two)
    lower, upper = from_arrays("LSTM", *one), from_arrays("LSTM", *two)
    x = normal(np.random.default_rng(0), (2, 7, K), np.float32)
    for path in (keras_3(tmp_path, config, places), legacy(tmp_path, config, {"deep": names})):
        assert_near(lower, [7, 7], load(path)["deep"](x)[0], upper(lower(x)[0])[0], "output")


def test_sixteen_bits_become_float32(tmp_path):
    arrays = [array.astype(np.float16) for array in weights("LSTM")]
    config = sequential(layer("LSTM", "reader"))
    found = load(keras_3(tmp_path, config, {"layers/lstm/cell": arrays}))["reader"]
    assert_same_bits(found.state_dict(), from_arrays("LSTM", *[one.astype(np.float32) for one in arrays]).state_dict())
    bits = [(one.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16) for one in arrays]
    path = weights_alone(tmp_path, {"layers/lstm/cell": bits})
    with h5py.File(path, "a") as h5:
        for dataset in h5["layers/lstm/cell/vars"].values():
            dataset.attrs["dtype"] = "bfloat16"
    rounded = [(one.astype(np.uint32) << 16).view(np.float32) for one in bits]
    assert_same_bits(load(path, {})["lstm"].state_dict(), from_arrays("LSTM", *rounded).state_dict())


# -- weights alone -----------------------------------------------------------------------------------------------------


def test_weights_alone_take_the_configuration_that_to_json_gives(tmp_path):
    arrays = weights("GRU", False)
    config = sequential(layer("GRU", "reader", reset_after=False, activation="relu"))
    for path in (
        weights_alone(tmp_path, {"layers/gru/cell": arrays}),
        legacy(tmp_path, None, {"reader": named("reader/gru_cell", arrays)}),
    ):
        found = load(path, json.dumps(config))
        assert_computes(found["reader"], "GRU", [arrays], reset_after=False, activation="relu")


@pytest.mark.parametrize("kind", GATES)
def test_the_kind_of_weights_alone_is_seen_from_their_shapes(tmp_path, kind):
    arrays, both = weights(kind), (weights(kind), weights(kind, rng=1))
    path = weights_alone(
        tmp_path,
        {"encoder/cell": arrays, "blocks/x/forward_layer/cell": both[0], "blocks/x/backward_layer/cell": both[1]},
    )
    with pytest.raises(ValueError, match=r"config must tell the options of 'blocks/x', 'encoder', of which .* alone"):
        load(path)
    found = load(path, {})
    assert_computes(found["encoder"], kind, [arrays])
    assert_computes(found["blocks/x"], kind, both)
    assert_computes(load(path, {"activation": "relu"})["encoder"], kind, [arrays], activation="relu")


def test_in_layers_a_name_is_the_one_that_keras_wrote(tmp_path):
    path = weights_alone(tmp_path, {"layers/lstm/cell": weights("LSTM")})
    with h5py.File(path, "a") as h5:
        h5.create_group("layers/lstm/vars").attrs["name"] = "reader"
    assert list(load(path, {})) == ["reader"]


def test_legacy_weights_alone_are_named_by_their_layers(tmp_path):
    both = weights("GRU"), weights("GRU", rng=1)
    names = named("both/forward_gru/gru_cell", both[0]) | named("both/backward_gru/gru_cell", both[1])
    found = load(legacy(tmp_path, None, {"both": names, "lstm": named("lstm/lstm_cell", weights("LSTM"))}), {})
    assert set(found) == {"both", "lstm"}
    assert_computes(found["both"], "GRU", both)


def test_the_bias_tells_reset_after_and_without_one_the_caller(tmp_path):
    arrays = weights("GRU", False)
    assert_computes(load(weights_alone(tmp_path, {"a/cell": arrays}), {})["a"], "GRU", [arrays], reset_after=False)
    arrays = weights("GRU", bias=False)
    found = load(weights_alone(tmp_path, {"a/cell": arrays}), {"reset_after": False})
    assert_computes(found["a"], "GRU", [[*arrays, None]], reset_after=False)


# -- what is refused ---------------------------------------------------------------------------------------------------

READER = sequential(layer("LSTM", "reader"))
PLACE = "layers/lstm/cell"
REFUSED = {
    "activation": (
        sequential(layer("LSTM", "reader", activation="gelu")),
        "layer 'reader': its activation must be one of tanh, sigmoid, relu",
    ),
    "a cell of another class": (
        sequential(layer("RNN", "reader", cell=layer("Own", "own"))),
        "layer 'reader': its cells must be of SimpleRNNCell, LSTMCell or GRUCell; got Own",
    ),
    "a cell of the caller's": (
        sequential(layer("RNN", "reader", cell=layer("LSTMCell", "own", module="mine"))),
        "layer 'reader': LSTMCell is a class of its own, which may compute something else",
    ),
    "cuDNN": (
        sequential(layer("CuDNNLSTM", "reader")),
        "layer 'reader': it must be a SimpleRNN, LSTM, GRU or RNN; got",
    ),
    "no weights": (sequential(layer("GRU", "other")), "layer 'other': its weights must be in the file, at layers/gru/"),
    "nothing recurrent": (sequential(layer("Dense", "first")), "config must tell the options of 'lstm'"),
    "no model": ([1], "the config in"),
    "no class": ({"class_name": "Sequential", "config": {"layers": [3]}}, "each layer in the config must have a class"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_no_layer_here_computes_is_refused_by_name(tmp_path, what):
    config, message = REFUSED[what]
    with pytest.raises(ValueError, match=re.escape(message)):
        load(keras_3(tmp_path, config, {PLACE: weights("LSTM")}))


def test_turned_directions_are_refused(tmp_path):
    turned = layer("LSTM", "forward", go_backwards=True)
    config = sequential(layer("Bidirectional", "reader", layer=turned, backward_layer=layer("LSTM", "backward")))
    places = {f"layers/bidirectional/{which}_layer/cell": weights("LSTM") for which in ("forward", "backward")}
    with pytest.raises(ValueError, match=r"layer 'reader': a Bidirectional must have a forward_layer without go_back"):
        load(keras_3(tmp_path, config, places))


def test_layers_within_classes_of_the_callers_are_not_passed_over(tmp_path):
    arrays, others = weights("LSTM"), weights("GRU", rng=1)
    config = sequential(layer("LSTM", "reader"), layer("Encoder", "own", module="mine"))
    places = {PLACE: arrays, "layers/encoder/rnn/cell": others}
    names = {"reader": named("reader/lstm_cell", arrays), "own": named("own/rnn/gru_cell", others)}
    for path in (keras_3(tmp_path, config, places), legacy(tmp_path, config, names)):
        with pytest.raises(ValueError, match=r"config must tell the options of '(encoder|own)/rnn', of which"):
            load(path)
        found = load(path, {})
        assert [type(one) for one in found.values()] == [nbp.LSTM, nbp.GRU]


def test_shapes_that_do_not_fit_are_refused_with_the_layer(tmp_path):
    kernel, recurrent_kernel, bias = weights("LSTM")
    path = keras_3(tmp_path, READER, {PLACE: [kernel, recurrent_kernel, bias[1:]]})
    with pytest.raises(ValueError, match=r"layer 'reader': bias must have shape \(4 \* H,\) = \(20,\)"):
        load(path)


def test_what_is_no_file_of_keras_is_refused(tmp_path):
    path = tmp_path / "model.keras"
    with pytest.raises(FileNotFoundError):
        load(path)
    for content in (b"", b"no file of Keras", h5_of_keras_3({PLACE: weights("LSTM")})[:700]):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"path must be that of a file of Keras; .* is something else, or damaged"):
            load(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", "{")
    with pytest.raises(ValueError, match=r"config.json must be JSON; it is something else, or damaged"):
        load(path)
    with pytest.raises(ValueError, match=r"path must be that of a file with recurrent layers of Keras; there are none"):
        load(weights_alone(tmp_path, {"layers/dense": [np.ones((2, 3))]}))


@pytest.mark.parametrize("kind", ["soft", "external"])
def test_links_to_elsewhere_are_not_followed(tmp_path, kind):
    (tmp_path / "other").mkdir()
    other = weights_alone(tmp_path / "other", {PLACE: weights("LSTM")})
    path = weights_alone(tmp_path, {"layers/dense": [np.ones((2, 3))]})
    with h5py.File(path, "a") as h5:
        h5["layers/lstm"] = (
            h5py.ExternalLink(str(other), "layers/lstm") if kind == "external" else h5py.SoftLink("/layers")
        )
    with pytest.raises(ValueError, match=r"the file must hold all that is in it; /layers/lstm is a link to elsewhere"):
        load(path, {})


def test_weights_that_are_claimed_and_not_there_are_refused(tmp_path):
    path = weights_alone(tmp_path, {})
    with h5py.File(path, "a") as h5:
        group = h5.create_group("a/cell/vars")
        group.create_dataset("0", (2**14, 2**20), "f4", chunks=(64, 64))
        group["1"] = np.ones((H, 4 * H), np.float32)
    with pytest.raises(ValueError, match=r"a/cell/vars/0 is not there as a whole"):
        load(path, {})


CONFIGS = {
    "a number": (TypeError, "config must be a mapping, or JSON of one; got int", 3),
    "no JSON": (ValueError, "config must be JSON; it is something else, or damaged", "{"),
    "an option": (ValueError, "or have options among activation, recurrent_activation", {"units": 3}),
    "an activation": (ValueError, "its activation must be one of tanh", {"activation": "gelu"}),
    "a merge mode": (ValueError, "config must have a merge_mode of Keras's; got 'max'", {"merge_mode": "max"}),
    "no flag": (TypeError, "go_backwards in config must be", {"go_backwards": "yes"}),
}


@pytest.mark.parametrize("what", CONFIGS)
def test_a_config_that_is_none_is_refused(tmp_path, what):
    error, message, config = CONFIGS[what]
    with pytest.raises(error, match=re.escape(message)):
        load(weights_alone(tmp_path, {PLACE: weights("LSTM")}), config)


def test_a_file_with_a_config_takes_no_other(tmp_path):
    with pytest.raises(ValueError, match="config must not be that of a model: the file has one of its own"):
        load(keras_3(tmp_path, READER, {PLACE: weights("LSTM")}), READER)


# -- Keras's own files -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def theirs():
    """A model with all that is looked into, and its recurrent layers by the names that they have here."""
    os.environ.setdefault("KERAS_BACKEND", "torch")
    keras = pytest.importorskip("keras", reason="these tests are about its files", exc_type=ImportError)
    layers, whole = keras.layers, {"return_sequences": True}
    inner = keras.Sequential(
        [
            keras.Input((None, 4)),
            layers.GRU(4, recurrent_activation="hard_sigmoid", name="gru", **whole),
            layers.Bidirectional(layers.SimpleRNN(3, **whole), merge_mode="sum", name="both"),
        ],
        name="inner",
    )
    given = keras.Input((None, 3))
    x = layers.Bidirectional(layers.LSTM(2, **whole), name="first")(given)
    x = layers.Dense(4)(inner(x))
    x = layers.RNN(layers.StackedRNNCells([layers.LSTMCell(3), layers.LSTMCell(4)]), name="deep", **whole)(x)
    x = layers.LSTM(3, name="b", **whole)(layers.LSTM(3, name="a", activation="relu", **whole)(x))
    x = layers.GRU(3, reset_after=False, use_bias=False, go_backwards=True, name="last")(x)
    model = keras.Model(given, x)
    rng = np.random.default_rng(0)
    model.set_weights([rng.uniform(-0.5, 0.5, value.shape).astype("f") for value in model.get_weights()])
    found = {name: model.get_layer(name) for name in ("first", "deep", "a", "b", "last")}
    return model, found | {f"inner/{name}": inner.get_layer(name) for name in ("gru", "both")}


@pytest.mark.parametrize("name", ["model.keras", "model.h5", "model.weights.h5"])
@pytest.mark.filterwarnings("ignore")
def test_files_that_keras_writes_give_what_its_layers_give(tmp_path, theirs, name):
    model, layers = theirs
    path = tmp_path / name
    model.save_weights(path) if name.endswith("weights.h5") else model.save(path)
    found = load(path, model.to_json() if name.endswith("weights.h5") else None, merged=False)
    assert set(found) == set(layers)
    for where, layer in layers.items():
        expected = from_keras(layer, merged=False)
        assert repr(found[where]) == repr(expected)
        assert_same_bits(found[where].state_dict(), expected.state_dict())
