"""What PyTorch's default exporter writes, loaded: at every batch size and length, and packed."""

import logging
import warnings

import numpy as np
import pytest

import numba_pack as nbp

onnx = pytest.importorskip("onnx", reason="what is tested here is the exchange with ONNX")
torch = pytest.importorskip("torch", reason="it writes the models")
pytest.importorskip("onnxscript", reason="PyTorch's exporter needs it")

from onnx import helper, numpy_helper  # noqa: E402

from numba_pack.interop import onnx as interop  # noqa: E402
from numba_pack.interop._onnx_axes import BATCH, TIME, loosened  # noqa: E402

K, H = 3, 4
B, T = torch.export.Dim("B"), torch.export.Dim("T")


class Stack(torch.nn.Module):
    """Two layers of unlike kinds, the second of which reads the first batch by batch."""

    def __init__(self):
        super().__init__()
        self.lstm = torch.nn.LSTM(K, H, 2, bidirectional=True, batch_first=True)
        self.gru = torch.nn.GRU(2 * H, 5)

    def forward(self, x):
        output, _ = self.lstm(x)
        return self.gru(output.transpose(0, 1))


#: the module, whether the first axis is the batch, and which axes are free
MODELS = {
    "LSTM, one shape": (lambda: torch.nn.LSTM(K, H), False, None),
    "LSTM, free batch and time": (lambda: torch.nn.LSTM(K, H), False, {0: T, 1: B}),
    "LSTM, both ways, free time": (lambda: torch.nn.LSTM(K, H, bidirectional=True), False, {0: T}),
    "LSTM, both ways, batch first, free batch and time": (
        lambda: torch.nn.LSTM(K, H, bidirectional=True, batch_first=True), True, {0: B, 1: T}),
    "GRU, two layers, both ways, free batch": (lambda: torch.nn.GRU(K, H, 2, bidirectional=True), False, {1: B}),
    "GRU, two layers, both ways, one shape": (lambda: torch.nn.GRU(K, H, 2, bidirectional=True), False, None),
    "two kinds, one shape": (Stack, True, None),
    "two kinds, free batch and time": (Stack, True, {0: B, 1: T}),
}  # fmt: skip


def exported(module, path, free):
    """A file that is written for one batch of 7 by 2."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            shapes = None if free is None else (free,)
            torch.onnx.export(module.eval(), (torch.ones(7, 2, K),), path, dynamic_shapes=shapes, verbose=False)
    finally:
        logging.disable(before)
    return path


def flat(value):
    """The output, and the parts of the state."""
    output, state = value
    return [output, *(state if isinstance(state, tuple) else [state])]


@pytest.mark.parametrize("name", MODELS)
def test_models_run_at_every_batch_size_and_length_and_packed(name, tmp_path):
    make, batch_first, free = MODELS[name]
    torch.manual_seed(0)
    module = make()
    model = interop.load(exported(module, tmp_path / "model.onnx", free))
    for steps, sequences in ((7, 2), (2, 7), (5, 1), (1, 6)):
        shape = (sequences, steps, K) if batch_first else (steps, sequences, K)
        x = torch.randn(shape, generator=torch.Generator().manual_seed(steps))
        with torch.no_grad():
            expected = flat(module(x))
        for got, one in zip(model(x.numpy()).values(), expected, strict=True):
            np.testing.assert_allclose(got, one.numpy(), rtol=0, atol=1e-5)
    lengths = (4, 9, 1, 4)
    ragged = [np.random.default_rng(n).standard_normal((n, K)).astype(np.float32) for n in lengths]
    output, *states = model(nbp.pack_sequence(ragged)).values()
    for i, (sequence, rows) in enumerate(zip(ragged, nbp.unpack_sequence(output), strict=True)):
        with torch.no_grad():
            expected = flat(module(torch.from_numpy(sequence[None] if batch_first else sequence[:, None])))
        np.testing.assert_allclose(rows, expected[0].numpy().reshape(rows.shape), rtol=0, atol=1e-5)
        for got, one in zip(states, expected[1:], strict=True):
            np.testing.assert_allclose(got[:, i], one[:, 0].numpy(), rtol=0, atol=1e-5)


def test_layers_are_those_of_the_module(tmp_path):
    torch.manual_seed(0)
    module = torch.nn.GRU(K, H, 2, bidirectional=True)
    found = list(interop.layers(exported(module, tmp_path / "model.onnx", None)).values())
    assert list(map(repr, found)) == ["GRU(3, 4, bidirectional=True)", "GRU(8, 4, bidirectional=True)"]
    for number, layer in enumerate(found):
        for name, value in layer.state_dict().items():
            own = getattr(module, name.replace("_l0", f"_l{number}"))
            np.testing.assert_array_equal(value, own.detach().numpy())


def test_the_models_that_unroll_an_rnn_have_nothing_recurrent(tmp_path):
    path = exported(torch.nn.RNN(K, H), tmp_path / "model.onnx", None)
    with pytest.raises(ValueError, match=r"path_or_model must have RNN, LSTM, GRU .*it has none"):
        interop.layers(path)


@pytest.mark.parametrize("axes, shape, expected", [
    ((TIME, BATCH, 2, H), [7, 2, 2 * H], [0, 0, 2 * H]),
    ((TIME, BATCH, 2, H), [7, -1, 2 * H], [0, 0, 2 * H]),
    ((TIME, BATCH, 2, H), [7, 2, -1], [0, 0, -1]),
    ((TIME, BATCH, 2, H), [0, 2, 2 * H], [0, 0, 2 * H]),
    ((BATCH, 2, H), [2, 2 * H], [0, 2 * H]),
    ((2, BATCH, H), [2, 2, 2, 2], [2, 0, 2, 2]),
    # other things are meant
    ((TIME, BATCH, 2, H), [2, 7, 2 * H], None),
    ((TIME, BATCH, 2, H), [7, 4, H], None),
    ((TIME, BATCH, 2, H), [14, 2 * H], None),
    ((TIME, 1, BATCH, H), [7, 2, H], None),
    ((TIME, BATCH, None), [7, 2, 8], None),
    ((TIME, BATCH, 2, H), [0, 0, -1], None),
])  # fmt: skip
def test_numbers_where_time_and_batch_are_mean_those_of_the_call(axes, shape, expected):
    assert loosened(axes, shape, {TIME: 7, BATCH: 2}) == expected


def reshaped(nodes, constants, declared):
    """An RNN, and what comes after it."""
    rng = np.random.default_rng(0)
    constants = {"W": rng.standard_normal((1, H, K)), "R": rng.standard_normal((1, H, H))} | constants
    tensors = [numpy_helper.from_array(value.astype("f4") if value.dtype == "f8" else value, name)
               for name, value in constants.items()]  # fmt: skip
    graph = helper.make_graph(
        [helper.make_node("RNN", ["X", "W", "R"], ["Y"], hidden_size=H), *nodes],
        "test",
        [helper.make_tensor_value_info("X", onnx.TensorProto.FLOAT, declared)],
        [helper.make_tensor_value_info("Z", onnx.TensorProto.FLOAT, None)],
        tensors,
    )
    return interop.load(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))


def test_shapes_are_computed_of_the_batch_that_comes():
    """(2 * B - B) + B // B - 1 sequences, and units in the order that Range gives them."""
    nodes = [
        helper.make_node("Transpose", ["Y"], ["turned"], perm=[0, 2, 1, 3]),
        helper.make_node("Shape", ["turned"], ["shape"]),
        helper.make_node("Gather", ["shape", "one"], ["B"]),
        helper.make_node("Gather", ["shape", "zero"], ["T"]),
        helper.make_node("Mul", ["B", "two"], ["doubled"]),
        helper.make_node("Sub", ["doubled", "B"], ["again"]),
        helper.make_node("Div", ["B", "B"], ["unit"]),
        helper.make_node("Add", ["again", "unit"], ["more"]),
        helper.make_node("Sub", ["more", "one"], ["batch"]),
        helper.make_node("Equal", ["B", "two"], ["is_two"]),
        helper.make_node("Where", ["is_two", "two", "batch"], ["chosen"]),
        helper.make_node("Concat", ["T", "chosen", "rest"], ["wanted"], axis=0),
        helper.make_node("Reshape", ["turned", "wanted"], ["rows"]),
        helper.make_node("Range", ["start", "stop", "step"], ["order"]),
        helper.make_node("Identity", ["rows"], ["Z"]),
    ]
    constants = {"zero": np.array([0]), "one": np.array([1]), "two": np.array([2]), "rest": np.array([-1]),
                 "start": np.array(0), "stop": np.array(3), "step": np.array(1)}  # fmt: skip
    model = reshaped(nodes, constants, ["T", "B", K])
    for shape in ((5, 2, K), (1, 4, K)):
        assert model(np.ones(shape, np.float32))["Z"].shape == (*shape[:2], H)
    packed = model(nbp.pack_sequence([np.ones((n, K), np.float32) for n in (3, 1, 2)]))["Z"]
    assert packed.data.shape == (6, H)


def test_arithmetic_is_of_integers_alone():
    with pytest.raises(ValueError, match=r"Mul node 'double': inputs must be integers.*session runs models"):
        reshaped([helper.make_node("Mul", ["Y", "Y"], ["Z"], name="double")], {}, ["T", "B", K])(
            np.ones((2, 2, K), np.float32)
        )
    for other in ("Div", "Range"):
        takes = ["one", "zero"] if other == "Div" else ["one", "one", "zero"]
        node = helper.make_node(other, takes, ["Z"], name="bad")
        with pytest.raises(ValueError, match=f"{other} node 'bad': .* no.* 0"):
            reshaped([node], {"one": np.array(1), "zero": np.array(0)}, ["T", "B", K])
