"""State dicts of whole models: which recurrent net is meant, what it is, and what is told of one that is none."""

import json
import struct
import warnings

import numpy as np
import pytest

import numba_pack as nbp
from numba_pack import cells
from numba_pack.interop._both_ways import BothWays
from numba_pack.layers import storage

LAYERS = {
    "rnn": lambda: nbp.RNN(3, 5, rng=0),
    "rnn, one unit": lambda: nbp.RNN(1, 1, bidirectional=True, rng=0),
    "rnn, 3 layers": lambda: nbp.RNN(3, 5, num_layers=3, bias=False, rng=0),
    "lstm": lambda: nbp.LSTM(3, 5, rng=0),
    "lstm, projected": lambda: nbp.LSTM(3, 5, 2, bidirectional=True, proj_size=2, bias=False, rng=0),
    "lstm, 12 layers": lambda: nbp.LSTM(5, 5, num_layers=12, proj_size=4, rng=0),
    "gru": lambda: nbp.GRU(7, 4, bidirectional=True, rng=0),
    "gru, float64": lambda: nbp.GRU(3, 5, 2, dtype=np.float64, rng=0),
    "layer_norm": lambda: nbp.LSTM(3, 5, 2, layer_norm=True, rng=0),
    "rnn cell": lambda: nbp.RNNCell(3, 5, bias=False, rng=0),
    "lstm cell": lambda: nbp.LSTMCell(3, 5, rng=0),
    "gru cell": lambda: nbp.GRUCell(3, 5, rng=0),
}
OTHERS = {"out.weight": np.ones((2, 5)), "encoder.norm.weight": np.ones(5), "steps": 7, 3: None}


def under(prefix, layer):
    return {prefix + name: value for name, value in layer.state_dict().items()}


def assert_same_layer(one, other):
    assert type(one) is type(other)
    assert repr(one) == repr(other)
    np.testing.assert_array_equal(one.parameters, other.parameters)


# -- which net, and what it is -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS)
@pytest.mark.parametrize("prefix", ["", "lstm.", "module.encoder.lstm.", "a.weight_ih_l0.", "new\nline."])
def test_a_layer_comes_back_from_its_names_and_shapes(prefix, make):
    layer = make()
    mapping = under(prefix, layer) | (OTHERS if prefix else {})
    assert_same_layer(nbp.from_state_dict(mapping, prefix, dtype=layer.dtype), layer)
    assert_same_layer(nbp.from_state_dict(mapping, prefix.removesuffix("."), dtype=layer.dtype), layer)
    assert_same_layer(nbp.from_state_dict(mapping, dtype=layer.dtype), layer)


def test_a_net_is_found_within_a_checkpoint():
    layer = nbp.LSTM(3, 5, rng=0)
    checkpoint = {"epoch": 3, "model": under("encoder.", layer), "optimizer": {"state": {0: {"exp_avg": np.ones(3)}}}}
    assert_same_layer(nbp.from_state_dict(checkpoint), layer)
    assert_same_layer(nbp.from_state_dict(checkpoint, "model.encoder"), layer)


def test_of_several_nets_the_prefix_tells_one():
    nets = {"lstm.": nbp.LSTM(3, 5), "lstm2.": nbp.GRU(3, 5), "decoder.deep.rnn.": nbp.RNN(3, 5)}
    mapping = {name: value for prefix, net in nets.items() for name, value in under(prefix, net).items()}
    for asked, prefix in (
        ("lstm", "lstm."), ("lstm.", "lstm."), ("lstm2", "lstm2."), ("decoder", "decoder.deep.rnn."),
        ("decoder.deep.", "decoder.deep.rnn."),
    ):  # fmt: skip
        assert_same_layer(nbp.from_state_dict(mapping, asked), nets[prefix])
        behind = {f"module.{name}": value for name, value in mapping.items()}
        for wrapped in (behind, {"state_dict": behind, "epoch": 3}):
            assert_same_layer(nbp.from_state_dict(wrapped, asked), nets[prefix])


def test_the_layer_has_the_dtype_that_is_asked_for_and_a_copy_of_the_values():
    mapping = {name: value.astype(np.float64) for name, value in nbp.GRU(3, 5, rng=0).state_dict().items()}
    layer = nbp.from_state_dict(mapping)
    assert layer.dtype == np.float32
    mapping["weight_ih_l0"][...] = 7
    assert_same_layer(layer, nbp.GRU(3, 5, rng=0))
    halves = {name: value.astype(np.float16) for name, value in layer.state_dict().items()}
    layer = nbp.from_state_dict(halves, dtype=np.float64)
    assert layer.dtype == np.float64
    np.testing.assert_array_equal(layer.parameters, np.concatenate([value.ravel() for value in halves.values()]))


def test_the_arguments_say_what_weights_do_not():
    mapping = {**under("a.", nbp.RNN(3, 5, 2)), **under("b.", nbp.RNNCell(3, 5)), **under("c.", nbp.LSTM(3, 5, 2))}
    told = repr(nbp.from_state_dict(mapping, "a.", nonlinearity="relu", batch_first=True, dropout=0.5))
    assert told == "RNN(3, 5, num_layers=2, nonlinearity='relu', batch_first=True, dropout=0.5)"
    assert nbp.from_state_dict(mapping, "b.", nonlinearity="relu").nonlinearity == "relu"
    rows = np.ones((4, 2, 3), np.float32)
    one, other = (nbp.from_state_dict(mapping, "c.", dropout=0.5, rng=3) for _ in range(2))
    np.testing.assert_array_equal(one.forward(rows)[0], other.forward(rows)[0])


PYTORCH = [
    (kind, options)
    for kind in ("RNN", "LSTM", "GRU")
    for options in ({}, {"num_layers": 2, "bidirectional": True}, {"bias": False})
]


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
@pytest.mark.parametrize(("kind", "options"), [*PYTORCH, ("LSTM", {"proj_size": 2, "num_layers": 2})], ids=str)
def test_a_model_of_pytorch_computes_the_same(kind, options):
    torch = pytest.importorskip("torch", reason="PyTorch's state dict is what is read")
    net = getattr(torch.nn, kind)(3, 5, **options)
    model = torch.nn.DataParallel(torch.nn.ModuleDict({"net": net, "out": torch.nn.Linear(5, 2)}))
    layer = nbp.from_state_dict(model.state_dict(), "module.net.")
    rows = np.random.default_rng(0).standard_normal((6, 2, 3)).astype(np.float32)
    with torch.no_grad():
        expected = net(torch.from_numpy(rows))[0].numpy()
    np.testing.assert_allclose(layer(rows)[0], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["RNNCell", "LSTMCell", "GRUCell"])
def test_names_without_a_layer_are_those_of_one_step(kind):
    torch = pytest.importorskip("torch", reason="PyTorch's state dict is what is read")
    module = getattr(torch.nn, kind)(3, 5)
    step = nbp.from_state_dict({f"step.{name}": value for name, value in module.state_dict().items()})
    assert type(step) is getattr(nbp, kind)
    for name, value in module.state_dict().items():
        np.testing.assert_array_equal(step.state_dict()[name], value.numpy())


def test_bfloat16_is_taken_from_tensors_and_from_arrays_of_ml_dtypes():
    torch = pytest.importorskip("torch", reason="it has bfloat16")
    layer = nbp.LSTM(3, 5, rng=0)
    coarse = {name: torch.tensor(value).bfloat16() for name, value in layer.state_dict().items()}
    expected = np.concatenate([value.float().numpy().ravel() for value in coarse.values()])
    assert 0 < abs(expected - layer.parameters).max() < 2**-9
    np.testing.assert_array_equal(nbp.from_state_dict(coarse).parameters, expected)
    layer.load_state_dict(coarse)
    np.testing.assert_array_equal(layer.parameters, expected)
    bfloat16 = pytest.importorskip("ml_dtypes", reason="its dtype is what is read").bfloat16
    arrays = {name: value.float().numpy().astype(bfloat16) for name, value in coarse.items()}
    np.testing.assert_array_equal(nbp.from_state_dict(arrays).parameters, expected)


# -- parameters that PyTorch computes ----------------------------------------------------------------------------------


def normed(module, how, names, dim=0):
    """The module, each row of these parameters with a length of its own."""
    torch = pytest.importorskip("torch", reason="it puts the parts in place of the parameter")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the older one is the older one
        for name in names:
            if how == "weight_norm":
                torch.nn.utils.weight_norm(module, name, dim)
                lengths = getattr(module, f"{name}_g")
            else:
                torch.nn.utils.parametrizations.weight_norm(module, name, dim)
                lengths = module.parametrizations[name].original0
            lengths.data += torch.rand(lengths.shape)
    return module


@pytest.mark.parametrize("how", ["weight_norm", "parametrizations"])
@pytest.mark.parametrize("names", [("weight_hh_l0",), ("weight_ih_l0", "weight_hh_l1_reverse", "bias_hh_l1")], ids=str)
def test_weight_norm_is_put_together(names, how):
    torch = pytest.importorskip("torch", reason="it puts the parts in place of the parameter")
    module = normed(torch.nn.LSTM(3, 5, 2, bidirectional=True), how, names)
    rows = torch.randn(4, 2, 3)
    with torch.no_grad():
        expected = module(rows)[0].numpy()
    mapping = {f"net.{name}": value for name, value in module.state_dict().items()}
    assert not {f"net.{name}" for name in names} & mapping.keys()
    layer, other = nbp.from_state_dict(mapping, "net."), nbp.LSTM(3, 5, 2, bidirectional=True)
    other.load_state_dict(mapping, "net.")
    for loaded in (layer, other):
        np.testing.assert_allclose(loaded(rows.numpy())[0], expected, rtol=1e-5, atol=1e-6)
        for name in names:
            np.testing.assert_allclose(loaded.state_dict()[name], getattr(module, name).detach(), rtol=1e-6)


@pytest.mark.parametrize("how", ["weight_norm", "parametrizations"])
@pytest.mark.parametrize(("dim", "came"), [(1, r"\(1, 5\)"), (None, r"\(\)")], ids=["dim=1", "dim=None"])
def test_weight_norm_along_another_axis_is_refused(dim, came, how):
    torch = pytest.importorskip("torch", reason="it puts the parts in place of the parameter")
    mapping = normed(torch.nn.GRU(3, 5), how, ["weight_hh_l0"], dim).state_dict()
    name = "weight_hh_l0_g" if how == "weight_norm" else "parametrizations.weight_hh_l0.original0"
    message = rf"state_dict\['a.{name}'\] must have shape \(15, 1\), as weight_norm with dim=0.*; got {came}"
    mapping = {f"a.{name}": value for name, value in mapping.items()}
    with pytest.raises(ValueError, match=message):
        nbp.from_state_dict(mapping)
    with pytest.raises(ValueError, match=message):
        nbp.GRU(3, 5).load_state_dict(mapping, "a.")


def test_rows_of_zeros_which_have_no_direction_are_refused_as_not_finite():
    mapping = dict(nbp.GRU(3, 5).state_dict())
    mapping |= {"weight_hh_l0_g": np.ones((15, 1)), "weight_hh_l0_v": np.zeros((15, 5))}
    del mapping["weight_hh_l0"]
    with pytest.raises(ValueError, match=r"state_dict\['weight_hh_l0'\] must be finite in float32; got nan"):
        nbp.from_state_dict(mapping)


@pytest.mark.parametrize("how", ["spectral_norm", "orthogonal", "pruned", "twice"])
def test_other_computations_are_named(how):
    torch = pytest.importorskip("torch", reason="it puts the parts in place of the parameter")
    from torch.nn.utils import parametrizations, prune, spectral_norm

    module = torch.nn.GRU(3, 5)
    make, remedy = {
        "spectral_norm": (lambda: spectral_norm(module, "weight_hh_l0"), "remove_spectral_norm"),
        "orthogonal": (lambda: parametrizations.orthogonal(module, "weight_hh_l0"), "remove_parametrizations"),
        "pruned": (lambda: prune.random_unstructured(module, "weight_hh_l0", 0.5), "prune.remove"),
        "twice": (
            lambda: parametrizations.spectral_norm(
                parametrizations.weight_norm(module, "weight_hh_l0"), "weight_hh_l0", dim=0
            ),
            "remove_parametrizations",
        ),
    }[how]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        make()
    mapping = {f"a.{name}": value for name, value in module.state_dict().items()}
    with pytest.raises(
        ValueError, match=rf"state_dict\['a\..*'\] is no parameter: weight_hh_l0 is computed from it; .*{remedy}"
    ):
        nbp.from_state_dict(mapping)


# -- load_state_dict with a prefix -------------------------------------------------------------------------------------

ALL = {
    **LAYERS,
    "own cell": lambda: cells.PeepholeLSTM(3, 5, num_layers=2, rng=0),
    "stack": lambda: nbp.GRU(3, [5, 4], rng=0),
    "both ways": lambda: BothWays(cells.LSTM(3, 5), cells.LSTM(3, 5, reverse=True)),
}


@pytest.mark.parametrize("make", ALL.values(), ids=ALL)
def test_every_layer_loads_what_begins_with_a_prefix_and_leaves_the_rest(make):
    layer = make()
    expected = layer.parameters * 2
    mapping = {f"encoder.net.{name}": value * 2 for name, value in layer.state_dict().items()} | OTHERS
    for prefix in ("encoder.net.", "encoder.net"):
        layer.parameters = expected * 0
        layer.load_state_dict(mapping, prefix=prefix)
        np.testing.assert_array_equal(layer.parameters, expected)


@pytest.mark.parametrize("make", [ALL["lstm"], ALL["stack"], ALL["own cell"]], ids=["lstm", "stack", "own cell"])
def test_errors_name_entries_as_the_mapping_does(make):
    layer = make()
    mapping, before = under("a.b.", layer), layer.parameters
    for wrong, error, message in (
        ({**mapping, "a.b.foo": 1}, ValueError, r"missing: none, not known: \['a\.b\.foo'\]"),
        ({**mapping, "a.b.weight_hh_l0": np.ones(3)}, ValueError, r"\['a\.b\.weight_hh_l0'\] must have shape"),
        ({**mapping, "a.b.bias_hh_l0": np.ones(20, int)}, TypeError, r"\['a\.b\.bias_hh_l0'\] must hold real floats"),
        ({**mapping, "a.b.bias_hh_l0": layer.state_dict()["bias_hh_l0"] * np.inf}, ValueError,
         r"\['a\.b\.bias_hh_l0'\] must be finite"),
        (layer.state_dict(), ValueError, r"missing: \['a\.b\.bias_hh_l0', "),
    ):  # fmt: skip
        with pytest.raises(error, match=message):
            layer.load_state_dict(wrong, "a.b.")
    with pytest.raises(TypeError, match="prefix must be a str; got int"):
        layer.load_state_dict(mapping, 3)
    np.testing.assert_array_equal(layer.parameters, before)


# -- what is wrong is told ---------------------------------------------------------------------------------------------

LSTM = under("a.", nbp.LSTM(3, 5, num_layers=2, rng=0))
ONES = np.ones((20, 5), np.float32)


def without(*names):
    return {name: value for name, value in LSTM.items() if name not in names}


AT = r"state_dict must hold a recurrent net at 'a\.': "
WRONG = {
    "nothing": ({}, "state_dict must hold a recurrent net, with names such as 'weight_ih_l0'; there is none$"),
    "nothing recurrent": ({"weight": ONES, 3: ONES}, "state_dict must hold a recurrent net"),
    "two within": ({"model": LSTM, "ema": LSTM}, r"prefix must tell .*: one of 'ema.a.', 'model.a.'; got none"),
    "two nets": (LSTM | under("b.c.", nbp.GRU(3, 5)), r"prefix must tell .*: one of 'a\.', 'b\.c\.'; got none"),
    "a missing bias": (without("a.bias_hh_l1"), AT + r"missing: \['bias_hh_l1'\], too many: nothing"),
    "a missing matrix": (without("a.weight_hh_l0"), AT + "missing: weight_hh_l0; there are bias_hh_l0, bias_hh_l1"),
    "a missing layer": (LSTM | {"a.weight_hh_l3": ONES}, AT + r".*too many: \['weight_hh_l3'\]"),
    "a gap": (LSTM | {"a.weight_ih_l3": ONES}, AT + r"missing: \['bias_hh_l2', .*too many: \['weight_ih_l3'\]"),
    "half of a direction": (LSTM | {"a.weight_ih_l0_reverse": ONES}, AT + r"missing: \['bias_hh_l0_reverse', "),
    "a shape": (LSTM | {"a.weight_ih_l1": ONES[:, :4]}, AT + r"weight_ih_l1 must have shape \(20, 5\); it has"),
    "rows of two kinds": (
        LSTM | {"a.weight_ih_l0": np.ones((15, 3))}, AT + r"weight_ih_l0 must have shape \(20, 3\); it has \(15, 3\)"
    ),
    "rows of no kind": (LSTM | {"a.weight_hh_l0": ONES[:10]}, AT + "weight_hh_l0 must have H rows .* H = 5; it has 10"),
    "no rows": (LSTM | {"a.weight_hh_l0": ONES[:0, :0]}, AT + "weight_hh_l0 must have H rows"),
    "no inputs": (LSTM | {"a.weight_ih_l0": ONES[:, :0]}, AT + r"weight_ih_l0 must have columns: .* is \(20, 0\)"),
    "dimensions": (LSTM | {"a.weight_hh_l0": ONES[0]}, AT + r"weight_hh_l0 must have two dim.*; its shape is \(5,\)"),
    "a projected gru": (
        under("a.", nbp.GRU(3, 5)) | {"a.weight_hr_l0": np.ones((2, 5))}, AT + ".* only one that may have a weight_hr"
    ),
    "an unknown entry": (LSTM | {"a.h0": ONES}, r"state_dict\['a.h0'\] must be a parameter .*; it is not known"),
    "an entry further within": (LSTM | {"a.norm.weight": ONES}, r"state_dict\['a.norm.weight'\] must be a parameter"),
    "a cell and a layer": (LSTM | under("a.", nbp.LSTMCell(3, 5)), AT + ".*too many"),
    "nan": (LSTM | {"a.weight_hh_l0": ONES * np.nan}, r"state_dict\['a.weight_hh_l0'\] must be finite .*; got nan"),
    "beyond float32": (LSTM | {"a.weight_hh_l0": np.ones((20, 5)) * 1e300}, "must be finite in float32; got 1e.300"),
    "a half of weight_norm": (
        LSTM | {"a.weight_hh_l0_v": ONES}, r"state_dict\['a.weight_hh_l0_v'\] is no parameter: .*remove_weight_norm"
    ),
    "weight_norm beside what it computes": (
        LSTM | {"a.weight_hh_l0_v": ONES, "a.weight_hh_l0_g": ONES[:, :1]}, "is no parameter: .*remove_weight_norm"
    ),
}  # fmt: skip


@pytest.mark.parametrize("wrong", WRONG)
def test_what_makes_no_layer_is_refused(wrong):
    mapping, message = WRONG[wrong]
    with pytest.raises(ValueError, match=message):
        nbp.from_state_dict(mapping)


def test_a_prefix_of_several_or_none_is_answered_by_those_that_would_do():
    nets = {"a.x.": nbp.GRU(3, 5), "a.y.": nbp.GRU(3, 5), "b.": nbp.GRU(3, 5)}
    mapping = {name: value for prefix, net in nets.items() for name, value in under(prefix, net).items()}
    for asked, told in (
        ("a", r"one of 'a\.x\.', 'a\.y\.'; got 'a\.'"),
        ("", r"one of 'a\.x\.', 'a\.y\.', 'b\.'; got ''"),
        ("c.", r"one of 'a\.x\.', 'a\.y\.', 'b\.'; got 'c\.'"),
        ("y.weight", r"one of 'a\.x\.', 'a\.y\.', 'b\.'; got 'y\.weight\.'"),
        ("a.x.weight", r"one of 'a\.x\.', 'a\.y\.', 'b\.'; got"),
    ):
        with pytest.raises(ValueError, match="prefix must tell which recurrent net is meant: " + told):
            nbp.from_state_dict(mapping, asked)


def test_options_that_the_net_has_not_are_refused():
    for layer, options, message in (
        (nbp.LSTM(3, 5), {"nonlinearity": "relu"}, r"nonlinearity must be left out: the net at 'a\.' is a LSTM"),
        (nbp.GRUCell(3, 5), {"batch_first": True}, "batch_first must be left out: .* GRUCell; got True"),
        (nbp.RNNCell(3, 5), {"dropout": 0.5}, "dropout must be left out: .* RNNCell; got 0.5"),
    ):
        with pytest.raises(ValueError, match=message):
            nbp.from_state_dict(under("a.", layer), **options)


# -- files in half precision -------------------------------------------------------------------------------------------


def write(path, tensors):
    """A safetensors file, by hand: dtype, shape and bytes of each tensor."""
    header, data = {}, b""
    for name, (dtype, shape, content) in tensors.items():
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [len(data), len(data) + len(content)]}
        data += content
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def coarse(value, dtype):
    """The nearest numbers toward 0 of a narrow dtype, their bytes, and what they are in float32."""
    if dtype == "F16":
        half = value.astype("<f2")
        return half.tobytes(), half.astype(np.float32)
    upper = (np.ascontiguousarray(value, np.float32).view(np.uint32) >> 16).astype("<u2")
    return upper.tobytes(), (upper.astype(np.uint32) << 16).view(np.float32)


@pytest.mark.parametrize("dtype", ["F16", "BF16"])
@pytest.mark.parametrize("make", [LAYERS["lstm, projected"], LAYERS["gru cell"]], ids=["lstm", "gru cell"])
def test_a_file_of_halves_gives_a_layer_of_float32(make, dtype, tmp_path):
    pytest.importorskip("safetensors", reason="it reads the file")
    path, layer = tmp_path / "halves", make()
    halves = {name: coarse(value, dtype) for name, value in layer.state_dict().items()}
    tensors = {f"net.{name}": (dtype, layer.state_dict()[name].shape, content) for name, (content, _) in halves.items()}
    write(path, {"first.weight": ("BF16", (3,), b"abcdef"), **tensors, "steps": ("I64", (1,), b"12345678")})
    loaded = nbp.load(path)["net"]
    assert type(loaded) is type(layer)
    assert loaded.dtype == np.float32
    for name, (_, expected) in halves.items():
        np.testing.assert_array_equal(loaded.state_dict()[name], expected)


def test_a_file_may_have_halves_beside_float32(tmp_path):
    pytest.importorskip("safetensors", reason="it reads the file")
    path, layer = tmp_path / "mixed", nbp.GRU(3, 5, rng=0)
    names = list(layer.state_dict())
    tensors = {name: ("F32", value.shape, value.tobytes()) for name, value in layer.state_dict().items()}
    content, expected = coarse(layer.state_dict()[names[1]], "BF16")
    write(path, {**tensors, names[1]: ("BF16", expected.shape, content)})
    layer.load_state_dict({**layer.state_dict(), names[1]: expected})
    assert_same_layer(nbp.load(path), layer)


def test_a_file_of_pytorch_in_bfloat16_with_weight_norm_loads(tmp_path):
    torch = pytest.importorskip("torch", reason="PyTorch writes the file")
    pytest.importorskip("safetensors", reason="it reads the file")
    from safetensors.torch import save_file

    module = normed(torch.nn.LSTM(3, 5, 2), "parametrizations", ["weight_hh_l0", "weight_ih_l1"]).bfloat16()
    save_file({f"net.{name}": value for name, value in module.state_dict().items()}, tmp_path / "file")
    layer = nbp.load(tmp_path / "file")["net"]
    assert_same_layer(layer, nbp.from_state_dict(module.state_dict()))
    np.testing.assert_allclose(
        layer.state_dict()["weight_hh_l0"], module.float().weight_hh_l0.detach().numpy(), rtol=1e-6
    )


def test_every_number_of_bfloat16_is_read_as_it_is_nan_and_infinities_too(tmp_path):
    bits = np.arange(2**16).astype("<u2")
    write(tmp_path / "file", {"before": ("U8", (3,), b"abc"), "all": ("BF16", (2**8, 2**8), bits.tobytes())})
    found = storage._bfloat16(str(tmp_path / "file"), "all", [2**8, 2**8])
    assert found.shape == (2**8, 2**8)
    np.testing.assert_array_equal(found.view(np.uint32).ravel(), np.arange(2**16, dtype=np.uint32) << 16)
    assert np.isnan(found).sum() == 2 * (2**7 - 1)
    assert np.isinf(found).sum() == 2


@pytest.mark.parametrize("dtype", ["F16", "BF16"])
@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf], ids=str)
def test_what_is_not_finite_in_a_file_of_halves_is_told_as_what_it_is(number, dtype, tmp_path):
    pytest.importorskip("safetensors", reason="it reads the file")
    tensors = dict(nbp.GRU(3, 5, rng=0).state_dict())
    tensors["bias_hh_l0"] = np.where(np.arange(15) == 7, np.float32(number), tensors["bias_hh_l0"])
    write(tmp_path / "file", {name: (dtype, value.shape, coarse(value, dtype)[0]) for name, value in tensors.items()})
    with pytest.raises(ValueError, match=rf"state_dict\['bias_hh_l0'\] must be finite in float32; got {number}"):
        nbp.load(tmp_path / "file")
