"""Layers in safetensors files: there and back, files of PyTorch, and files that are not what they should be."""

import json
import os
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import numba_pack as nbp
from numba_pack import cells
from numba_pack.layers import storage

safetensors = pytest.importorskip("safetensors.numpy", reason="the files are safetensors")

LAYERS = [
    pytest.param(lambda: nbp.RNN(3, 5, nonlinearity="relu", batch_first=True), id="rnn-relu"),
    pytest.param(lambda: nbp.RNN(3, 5, num_layers=3, dropout=0.25), id="rnn-tanh-3layers"),
    pytest.param(lambda: nbp.LSTM(3, 5, 2, bidirectional=True, proj_size=2, bias=False), id="lstm-proj"),
    pytest.param(lambda: nbp.LSTM(1, 1, dtype=np.float64), id="lstm-float64"),
    pytest.param(lambda: nbp.GRU(7, 4, bidirectional=True), id="gru-bi"),
    pytest.param(lambda: nbp.RNNCell(3, 5, nonlinearity="relu", bias=False), id="rnn-cell"),
    pytest.param(lambda: nbp.LSTMCell(3, 5, dtype=np.float64), id="lstm-cell"),
    pytest.param(lambda: nbp.GRUCell(3, 5), id="gru-cell"),
]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "layers.safetensors"


def assert_same_layer(one, other):
    assert type(one) is type(other)
    assert repr(one) == repr(other)
    assert one._options() == other._options()
    assert one.dtype == other.dtype
    np.testing.assert_array_equal(one.parameters, other.parameters)


# -- there and back ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", LAYERS)
def test_a_layer_comes_back_with_all_options_and_bits(make, path):
    layer = make()
    nbp.save(path, layer)
    assert_same_layer(nbp.load(path), layer)
    assert_same_layer(nbp.load(str(path)), layer)


@pytest.mark.filterwarnings("ignore:dropout is between layers")
@pytest.mark.parametrize("make", LAYERS)
def test_without_metadata_all_but_three_options_are_found(make, path):
    layer = make()
    safetensors.save_file(layer.state_dict(), path)
    told = {"nonlinearity": getattr(layer, "nonlinearity", "relu"), "batch_first": getattr(layer, "batch_first", True)}
    assert_same_layer(nbp.load(path, **told, dropout=getattr(layer, "dropout", 0.5)), layer)


def test_several_layers_come_back_by_name(path):
    layers = {"encoder\n": nbp.LSTM(3, 5), "deep.est.decoder": nbp.GRUCell(10, 5), "ö": nbp.RNN(1, 2, dtype=np.float64)}
    nbp.save(path, layers)
    back = nbp.load(path)
    assert list(back) == list(layers)
    for name, layer in layers.items():
        assert_same_layer(back[name], layer)
    nbp.save(path, back)  # over the file that they came from
    assert nbp.load(path).keys() == layers.keys()


def test_keys_are_those_of_pytorch_and_options_stand_in_the_metadata(path):
    nbp.save(path, {"encoder": nbp.LSTM(3, 5)})
    with safetensors.safe_open(path, framework="np") as file:
        assert sorted(file.keys()) == [f"encoder.{name}" for name in sorted(nbp.LSTM(3, 5).state_dict())]
        told = json.loads(file.metadata()["numba_pack"])
    assert told.keys() == {"encoder"}
    assert told["encoder"].items() >= {"kind": "LSTM", "input_size": 3, "num_layers": 1, "bias": True}.items()
    assert told["encoder"].keys() == {"kind", *nbp.LSTM(3, 5)._options()}


def test_other_tensors_of_a_model_are_left_alone(path):
    lstm, cell = nbp.LSTM(3, 5), nbp.GRUCell(3, 5)
    tensors = {f"module.lstm.{name}": value for name, value in lstm.state_dict().items()}
    tensors |= {f"cell.{name}": value for name, value in cell.state_dict().items()}
    tensors |= {"out.weight": np.ones((2, 5), np.float16), "steps": np.array(7), "out.bias": np.ones(2)}
    safetensors.save_file(tensors, path)
    layers = nbp.load(path)
    assert layers.keys() == {"module.lstm", "cell"}
    assert_same_layer(layers["module.lstm"], lstm)


def test_arguments_are_for_the_layers_that_have_them(path):
    safetensors.save_file(
        {f"{name}.{key}": value for name in ("a", "b") for key, value in nbp.GRU(3, 5).state_dict().items()}
        | {f"c.{key}": value for key, value in nbp.RNNCell(3, 5).state_dict().items()},
        path,
    )
    layers = nbp.load(path, nonlinearity="relu", batch_first=True)
    assert layers["a"].batch_first
    assert layers["b"].batch_first
    assert layers["c"].nonlinearity == "relu"
    nbp.save(path, nbp.GRU(3, 5))
    assert nbp.load(path, batch_first=True).batch_first


# -- layers of other cells ---------------------------------------------------------------------------------------------

PUBLISHED = {name: value for name in cells.__all__ if isinstance(value := getattr(cells, name), cells.Cell)}


@cells.cell(sums="a", of_input="b", state="h c", unit_weights="p a_l1", constants="rate")
def Own(a, b, h, c, p, a_l1=0.5, rate=0.25):
    c = c + rate * (cells.tanh(a) + p * b - c)
    return a_l1 * c, c


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", PUBLISHED)
def test_a_layer_of_a_published_cell_comes_back_by_its_name(name, dtype, path):
    layer = PUBLISHED[name](
        3, 5, num_layers=2, bidirectional=True, dropout=0.5, zoneout=0.1, return_states=True, dtype=dtype
    )
    nbp.save(path, {"a.b": layer, "plain": nbp.GRU(3, 5)})
    back = nbp.load(path)["a.b"]
    assert_same_layer(back, layer)
    assert isinstance(back, PUBLISHED[name])


def test_constants_and_unit_weights_come_back(path):
    layer = Own(3, 5, num_layers=2, bias=False, recurrent_dropout=0.25, zoneout=(0.5, 0.0), rate=0.1)
    nbp.save(path, {"own": layer, "leaky": cells.LeakyRNN(3, 5, dt=0.7)})
    back = nbp.load(path, cells=(cell for cell in [Own]))
    assert_same_layer(back["own"], layer)
    assert (back["own"].rate, back["leaky"].dt) == (0.1, 0.7)
    assert isinstance(back["own"], Own)
    with safetensors.safe_open(path, framework="np") as file:
        assert {"own.p_l0", "own.a_l1_l1"} <= set(file.keys())
        told = json.loads(file.metadata()["numba_pack"])["own"]
    assert told.items() >= {"cell": "Own", "hidden_size": 5, "bias": False, "zoneout": [0.5, 0.0], "rate": 0.1}.items()
    assert told.keys() == {"cell", *layer._options()}


def test_a_cell_without_products_with_the_state_may_be_projected(path):
    layer = cells.QRNN(3, 5, num_layers=2, proj_size=2)
    nbp.save(path, layer)
    assert_same_layer(nbp.load(path), layer)


@pytest.mark.parametrize("make", [nbp.LSTM, nbp.RNN, cells.SLSTM])
def test_heads_come_back(make, path):
    layer = make(3, 6, num_layers=2, bidirectional=True, heads=3)
    nbp.save(path, layer)
    assert_same_layer(nbp.load(path), layer)
    for lie in (2, 10**30, -3, "3", True):
        write(path, json.dumps({"": {**storage._what(layer), "heads": lie}}), layer.state_dict())
        with pytest.raises(ValueError, match="the layer: "):
            nbp.load(path)


STACKS = {
    "rnn": lambda: nbp.RNN(3, [5, 4], nonlinearity="relu", dropout=0.25, batch_first=True),
    "lstm": lambda: nbp.LSTM(3, (6, 4, 8), bidirectional=True, proj_size=2, bias=False, heads=2, dtype=np.float64),
    "one width": lambda: nbp.GRU(3, [5]),
    "equal widths": lambda: nbp.GRU(3, [5, 5], return_states=True),
    "reverse": lambda: cells.SLSTM(3, [4, 2], heads=2, reverse=True),
    "own": lambda: Own(3, [5, 4], recurrent_dropout=0.25, zoneout=(0.5, 0.0), rate=0.1),
}


@pytest.mark.parametrize("make", STACKS.values(), ids=STACKS)
def test_layers_of_different_widths_come_back(make, path):
    stack = make()
    nbp.save(path, {"stack": stack, "plain": nbp.GRU(3, 5)})
    back = nbp.load(path, cells=[Own])["stack"]
    assert_same_layer(back, stack)
    for layer, expected in zip(back.layers, stack.layers, strict=True):
        assert_same_layer(layer, expected)


@pytest.mark.parametrize("hidden_size", [5, [5, 4]], ids=["layer", "stack"])
@pytest.mark.parametrize("cell", [cells.LSTM, cells.GRU, cells.RNNRelu], ids=lambda cell: cell.name)
def test_a_layer_of_a_plain_cell_in_reverse_comes_back(cell, hidden_size, path):
    layer = cell(3, hidden_size, reverse=True)
    nbp.save(path, layer)
    assert_same_layer(nbp.load(path), layer)


def test_widths_that_are_not_those_of_the_tensors_are_refused(path):
    stack = nbp.GRU(3, [5, 4])
    for widths, names, message in (
        ([5, 5], {}, r"its metadata tell hidden_size=\[5, 5\], its tensors \[5, 4\]"),
        ([5], {}, r"its metadata tell hidden_size=\[5\], its tensors \[5, 4\]"),
        ([], {}, r"its metadata tell hidden_size=\[\], its tensors \[5, 4\]"),
        ([5, 4], {"weight_hh_l1": "weight_hh_l7"}, "missing: weight_hh_l0"),
        ([5, 4], {"bias_hh_l1": "bias_hh"}, "bias_hh must end in the number of its layer"),
        ([5, 4], {"bias_ih_l1": "bias_ih_l1_reverse"}, "missing: "),
        ([5, 4], {"weight_ih_l0": "weight_ih_l1", "weight_ih_l1": "weight_ih_l0"}, "must have shape"),
        ([5, 4], {name: name.replace("_l1", "_l9") for name in stack.state_dict()}, "missing: .*l1.* not known: .*l9"),
    ):
        tensors = {names.get(name, name): value for name, value in stack.state_dict().items()}
        write(path, json.dumps({"": {"hidden_size": widths}}), tensors)
        with pytest.raises(ValueError, match=message) as error:
            nbp.load(path)
        assert str(path) in str(error.value)


@pytest.mark.parametrize("of_the_users_own", [(), (cells.MGU,)], ids=["none", "another"])
def test_a_cell_that_is_not_known_has_to_be_passed(of_the_users_own, path):
    nbp.save(path, {"own": Own(3, 5)})
    with pytest.raises(ValueError, match=r"layer 'own': its cell 'Own' is not known: pass it in cells=\[\.\.\.\]"):
        nbp.load(path, cells=of_the_users_own)


def test_a_cell_of_the_users_own_is_not_taken_for_a_published_one_of_its_name(path):
    @cells.cell(sums="f", of_input="n_x", of_state="n_h", state="h")
    def MGU(f, n_x, n_h, h):
        return cells.relu(f + n_x + n_h) + h

    nbp.save(path, MGU(3, 5))
    with pytest.raises(ValueError, match="its cell 'MGU' is not known"):
        nbp.load(path)
    assert nbp.load(path, cells=[MGU]).cell is MGU
    nbp.save(path, cells.MGU(3, 5))
    assert nbp.load(path, cells=[MGU]).cell is cells.MGU


def test_what_is_no_cell_is_refused(path):
    nbp.save(path, Own(3, 5))
    twin = cells.cell(sums="a", state="h")(lambda a, h: a)
    for wrong, error, message in (
        (Own, TypeError, "cells must be a list of cells; got numba_pack.cells.cell.Cell"),
        ([nbp.LSTM], TypeError, "cells must be a list of cells, as numba_pack.cells.cell makes; got type in it"),
        ([twin, cells.cell(sums="a", state="h")(lambda a, h: a)], ValueError, "got two that are called <lambda>"),
    ):
        with pytest.raises(error, match=message):
            nbp.load(path, cells=wrong)


def test_parameters_of_another_formula_are_refused(path):
    def changed(**kinds):
        names = " ".join(kinds.values()).split()
        function = eval(f"lambda {', '.join(names)}: {kinds['state']}")
        function.__name__ = "Own"
        return cells.cell(**kinds)(function)

    nbp.save(path, Own(4, 8))
    for other, message in (
        (changed(sums="a b", state="h"), "weight_hh_l0 must have shape"),
        (changed(sums="a", of_input="b", state="h", unit_weights="p a_l1 q"), r"missing: \['q_l0'\]"),
        (changed(sums="a", of_input="b", state="h", unit_weights="p a_l1"), "options that a Own has not: rate"),
        (changed(of_input="b", state="h"), r"too many: \['bias_hh_l0', 'weight_hh_l0'\]"),
    ):
        with pytest.raises(ValueError, match=message):
            nbp.load(path, cells=[other])


def test_no_code_that_a_file_names_is_run(path):
    for name in ("os.system", "tests", ["MGU"], None, 3):
        write(path, json.dumps({"": {"cell": name}}))
        with pytest.raises(ValueError, match="is not known: pass it in cells="):
            nbp.load(path)


# -- PyTorch's files ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["RNN", "LSTM", "GRU", "RNNCell", "LSTMCell", "GRUCell"])
def test_a_file_of_pytorch_loads(kind, path):
    torch = pytest.importorskip("torch", reason="PyTorch writes the file")
    import safetensors.torch

    module = getattr(torch.nn, kind)(3, 5, dtype=torch.float64)
    safetensors.torch.save_file(module.state_dict(), path)
    layer = nbp.load(path, nonlinearity="tanh")
    assert type(layer) is getattr(nbp, kind)
    for name, value in module.state_dict().items():
        np.testing.assert_array_equal(layer.state_dict()[name], value.numpy())


def test_a_model_of_pytorch_loads_and_takes_a_file_back(path):
    torch = pytest.importorskip("torch", reason="PyTorch writes the file")
    import safetensors.torch

    model = torch.nn.ModuleDict({"encoder": torch.nn.LSTM(3, 5, 2, proj_size=2), "out": torch.nn.Linear(2, 4)})
    safetensors.torch.save_model(model, path)
    layers = nbp.load(path)
    assert repr(layers) == "{'encoder': LSTM(3, 5, num_layers=2, proj_size=2)}"
    layers["encoder"].parameters = layers["encoder"].parameters * 2
    nbp.save(path, layers)
    expected = model["encoder"].weight_hr_l1 * 2
    missing, unexpected = safetensors.torch.load_model(model, path, strict=False)
    assert sorted(missing) == ["out.bias", "out.weight"]
    assert not unexpected
    assert torch.equal(model["encoder"].weight_hr_l1, expected)


# -- what is wrong is told ---------------------------------------------------------------------------------------------


def test_what_is_no_layer_is_not_saved(path):
    class Other(nbp.GRU):
        pass

    for layers, error, message in (
        (np.ones(3), TypeError, "layers must be made by RNN, LSTM, .* or a cell; got numpy.ndarray"),
        ({"a": nbp.GRU(3, 5), "b": None}, TypeError, r"layers\['b'\] must be made by RNN.*got NoneType"),
        (Other(3, 5), TypeError, r"got .*test_storage\..*Other"),
        ({1: nbp.GRU(3, 5)}, TypeError, "layers must have names that are strings; got 1"),
        ({"": nbp.GRU(3, 5)}, ValueError, "layers must have names that are not empty"),
        ({}, ValueError, "layers must hold at least one layer"),
        ({"\ud800": nbp.GRU(3, 5)}, ValueError, "layers must have names that are text"),
    ):
        with pytest.raises(error, match=message):
            nbp.save(path, layers)
    assert not path.exists()


def lstm_tensors():
    return {name: value.copy() for name, value in nbp.LSTM(3, 5, num_layers=2, rng=0).state_dict().items()}


def without(*names):
    return {name: value for name, value in lstm_tensors().items() if name not in names}


def with_(**tensors):
    return {**lstm_tensors(), **tensors}


WRONG = {
    "nothing recurrent": ({"weight": np.ones(3)}, "there are no parameters of recurrent layers"),
    "a missing bias": (without("bias_hh_l1"), r"missing: \['bias_hh_l1'\], too many: nothing"),
    "a missing matrix": (without("weight_ih_l0"), "missing: weight_ih_l0; there are bias_hh_l0, bias_hh_l1"),
    "a missing layer": (with_(weight_hh_l3=np.ones((20, 5), np.float32)), "weight_hh_l3"),
    "a far layer": (with_(weight_hh_l999999999=np.ones((20, 5), np.float32)), "weight_hh_l999999999"),
    "a shape": (with_(weight_ih_l1=np.ones((20, 6), np.float32)), r"weight_ih_l1 must have shape \(20, 5\); it has"),
    "rows of no kind": (with_(weight_hh_l0=np.ones((10, 5), np.float32)), r"weight_hh_l0 must have H rows .* has 10"),
    "no rows": (with_(weight_hh_l0=np.ones((0, 0), np.float32)), "weight_hh_l0 must have H rows"),
    "no inputs": (with_(weight_ih_l0=np.ones((20, 0), np.float32)), "input_size must be at least 1"),
    "dimensions": (with_(weight_hh_l0=np.ones(100, np.float32)), "weight_hh_l0 must have two dimensions"),
    "integers": (with_(bias_hh_l0=np.ones(20, np.int32)), "'bias_hh_l0' must be F16, BF16, F32 or F64; it is I32"),
    "two dtypes": (with_(bias_hh_l0=np.ones(20)), "one dtype; they have float32, float64"),
    "nan": (with_(bias_hh_l0=np.full(20, np.nan, np.float32)), "must be finite"),
    "a projected gru": (
        {**nbp.GRU(3, 5).state_dict(), "weight_hr_l0": np.ones((2, 5), np.float32)},
        "the only one that may have a weight_hr",
    ),
    "a projected cell": (
        {**nbp.LSTMCell(3, 5).state_dict(), "weight_hr": np.ones((2, 5), np.float32)},
        r"too many: \['weight_hr'\]",
    ),
    "a cell and a layer": ({**nbp.LSTMCell(3, 5).state_dict(), **nbp.LSTM(3, 5).state_dict()}, "too many"),
    "an unknown nonlinearity": (nbp.RNN(3, 5).state_dict(), "the file does not tell its nonlinearity"),
}


@pytest.mark.parametrize("wrong", list(WRONG))
def test_tensors_that_make_no_layer_are_refused(wrong, path):
    tensors, message = WRONG[wrong]
    safetensors.save_file(tensors, path)
    with pytest.raises(ValueError, match=message) as error:
        nbp.load(path)
    assert str(path) in str(error.value)


def write(path, metadata, tensors=None):
    safetensors.save_file(lstm_tensors() if tensors is None else tensors, path, {"numba_pack": metadata})


@pytest.mark.filterwarnings("ignore:.*_norm.*:FutureWarning")
@pytest.mark.parametrize("how", ["parametrized", "spectral_norm", "pruned"])
@pytest.mark.parametrize("kind", ["LSTM", "GRUCell"])
def test_what_a_parameter_is_computed_from_is_no_parameter_and_says_how_to_get_one(kind, how, path):
    torch = pytest.importorskip("torch", reason="PyTorch writes the file")
    import safetensors.torch
    from torch.nn.utils import parametrizations, prune, spectral_norm

    module = getattr(torch.nn, kind)(3, 5)
    name = "weight_hh_l0" if kind == "LSTM" else "weight_hh"
    remedy = {
        "parametrized": (lambda: parametrizations.spectral_norm(module, name), "parametrize.remove_parametrizations"),
        "spectral_norm": (lambda: spectral_norm(module, name), "remove_spectral_norm"),
        "pruned": (lambda: prune.random_unstructured(module, name, 0.5), "prune.remove"),
    }
    make, words = remedy[how]
    make()
    message = rf"{name} is computed from it; torch\.nn\.utils\..*{words}.* leaves {name} itself"
    safetensors.torch.save_file(torch.nn.ModuleDict({"encoder": module}).state_dict(), path)
    with pytest.raises(ValueError, match=rf"{path}: 'encoder\..*' is no parameter: {message}"):
        nbp.load(path)
    with pytest.raises(ValueError, match=rf"missing: \['{name}'\], not known: .*{message}"):
        getattr(nbp, kind)(3, 5).load_state_dict(module.state_dict())


METADATA = {
    "an option of no layer": ('{"": {"rng": 3}}', "options that a LSTM has not: rng"),
    "an argument that is none": ('{"": {"self": 3}}', "options that a LSTM has not: self"),
    "no json": ("{", "must be JSON"),
    "deep json": ("[" * 100_000, "must be JSON"),
    "a list": ("[]", "must be a mapping of names of layers to their options"),
    "options that are none": ('{"": 3}', "must be a mapping of names of layers to their options"),
    "another size": ('{"": {"hidden_size": 6}}', "its metadata tell hidden_size=6, its tensors 5"),
    "another kind": ('{"": {"kind": "GRU"}}', "its metadata tell kind='GRU', its tensors 'LSTM'"),
    "an unknown kind": ('{"": {"kind": "LSTN"}}', "its cell 'LSTN' is not known"),
    "no name of a kind": ('{"": {"kind": []}}', r"its cell \[\] is not known"),
    "a cell of other sizes": ('{"": {"kind": "MGU"}}', "weight_ih_l0 must have shape"),
    "an option of no cell": ('{"": {"kind": "PeepholeLSTM", "rng": 3}}', "missing: .*p_f_l0"),
    "an unknown option": ('{"": {"peephole": true}}', "peephole"),
    "a dtype": ('{"": {"dtype": "float32"}}', "dtype"),
    "a wrong value": ('{"": {"dropout": NaN}}', "dropout must be"),
    "a wrong type": ('{"": {"batch_first": "no"}}', "batch_first must be"),
    "another layer": ('{"encoder": {}}', "there are no parameters of layer 'encoder'"),
}


@pytest.mark.parametrize("wrong", list(METADATA))
def test_metadata_that_do_not_fit_are_refused(wrong, path):
    text, message = METADATA[wrong]
    write(path, text)
    with pytest.raises(ValueError, match=message) as error:
        nbp.load(path)
    assert str(path) in str(error.value)


def test_a_missing_file_is_told_as_such(path):
    with pytest.raises(FileNotFoundError):
        nbp.load(path)
    with pytest.raises(OSError, match=f"path must be that of a file; {path.parent} is none"):
        nbp.load(path.parent)


def raw(path, header, data=b""):
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def tensor(dtype="F32", shape=(20, 5), begin=0, end=400):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


HEADERS = {
    "more rows than bytes": (tensor(end=4), 4, "a damaged one"),
    "2**80 numbers": (tensor(shape=(2**40, 2**40)), 400, "a damaged one"),
    "no numbers, in an array too large for NumPy": (tensor(shape=(0, 2**62), end=0), 0, "too big|dimension"),
    "100 dimensions": (tensor(shape=(1,) * 100, end=4), 4, "dimension"),
    "no dimension": (tensor(shape=(), end=4), 4, "weight_ih_l0"),
    "bytes that overlap nothing": (tensor(begin=4, end=404), 404, "a damaged one"),
    "more rows of bfloat16 than bytes": (tensor("BF16", end=4), 4, "a damaged one"),
    "no numbers of bfloat16": (tensor("BF16", shape=(0, 2**62), end=0), 0, "too big|dimension"),
    "float8": (tensor("F8_E4M3", end=100), 100, "'weight_hh_l0' must be F16, BF16, F32 or F64; it is F8_E4M3"),
    "complex": (tensor("C64", end=800), 800, "'weight_hh_l0' must be F16, BF16, F32 or F64; it is C64"),
    "a dtype that there is not": (tensor("F31"), 400, "a damaged one"),
}


@pytest.mark.parametrize("what", list(HEADERS))
def test_a_header_that_lies_is_refused_with_the_path(what, path):
    header, size, message = HEADERS[what]
    raw(path, {"weight_hh_l0": header}, b"\0" * size)
    with pytest.raises(ValueError, match=message) as error:
        nbp.load(path)
    assert str(path) in str(error.value)


def test_paths_that_are_none():
    for wrong, error, message in (
        (3, TypeError, "path must be a str or a path; got int"),
        (b"x", TypeError, "path must be a str or a path; got bytes"),
        (None, TypeError, "path must be a str or a path; got NoneType"),
        ("a\0b", ValueError, "path must have no null character"),
    ):
        with pytest.raises(error, match=message):
            nbp.load(wrong)
        with pytest.raises(error, match=message):
            nbp.save(wrong, nbp.GRU(3, 5))


# -- files are written as a whole --------------------------------------------------------------------------------------


def test_a_save_that_is_interrupted_leaves_the_file_that_was_there_and_nothing_else(path, monkeypatch):
    nbp.save(path, nbp.LSTM(3, 5, rng=0))
    before = path.read_bytes()

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(storage.os, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        nbp.save(path, nbp.LSTM(3, 5, rng=1))
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.skipif(sys.platform == "win32", reason="modes and links are those of Unix")
def test_a_file_keeps_its_mode_and_a_link_leads_to_it(path):
    nbp.save(path, nbp.GRU(3, 5))
    plain = path.with_name("plain")
    plain.write_bytes(b"")
    assert path.stat().st_mode == plain.stat().st_mode  # as the umask says
    path.chmod(0o640)
    link = path.with_name("link")
    link.symlink_to(path)
    layer = nbp.LSTM(3, 5)
    nbp.save(link, layer)
    assert link.is_symlink()
    assert path.stat().st_mode & 0o777 == 0o640
    assert_same_layer(nbp.load(path), layer)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes with names are those of Unix")
def test_what_is_no_file_is_neither_read_nor_replaced(path):
    os.mkfifo(path)
    for call in (lambda: nbp.load(path), lambda: nbp.save(path, nbp.GRU(3, 5)), lambda: nbp.save("", nbp.GRU(3, 5))):
        with pytest.raises(OSError):
            call()
    with pytest.raises(OSError, match=f"{path.parent} is a folder"):
        nbp.save(path.parent, nbp.GRU(3, 5))
    with pytest.raises(FileNotFoundError, match="nowhere"):
        nbp.save(path.parent / "nowhere" / "x", nbp.GRU(3, 5))
    assert list(path.parent.iterdir()) == [path]


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("storage") / "layer.safetensors"
    nbp.save(path, nbp.LSTM(3, 5, rng=0))
    return path.read_bytes()


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_truncated_file_is_refused(saved, path, data):
    path.write_bytes(saved[: data.draw(st.integers(0, len(saved) - 1))])
    with pytest.raises(ValueError, match="not a safetensors file, or a damaged one"):
        nbp.load(path)


@settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_damaged_header_gives_a_layer_or_a_value_error(saved, path, data):
    damaged = bytearray(saved)
    (header,) = struct.unpack("<Q", saved[:8])
    for _ in range(data.draw(st.integers(1, 3))):
        damaged[data.draw(st.integers(0, 8 + header - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(bytes(damaged))
    try:
        loaded = nbp.load(path)
    except ValueError as error:
        assert str(path) in str(error)
    else:
        layers = loaded.values() if isinstance(loaded, dict) else [loaded]
        assert all(np.isfinite(layer.parameters).all() for layer in layers)


def test_without_safetensors_the_error_tells_what_to_install():
    code = "import sys; sys.modules['safetensors'] = None; import numba_pack; numba_pack.load('x')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "ImportError: files of layers need safetensors: pip install safetensors" in done.stderr


def test_the_package_does_not_import_safetensors():
    code = "import sys, numba_pack; assert 'safetensors' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])
