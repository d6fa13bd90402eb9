"""What PyTorch makes of its modules: TorchScript and quantized ones; and its PackedSequence."""

import copy
import io
import pickle

import helpers
import numpy as np
import pytest

import numba_pack as nbp

torch = pytest.importorskip("torch", reason="what is tested here is the exchange with PyTorch")

from torch.nn.utils.rnn import pack_sequence, pad_packed_sequence  # noqa: E402

from numba_pack.interop import torch as interop  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")

MODULES = {
    "LSTM": {"num_layers": 2, "bidirectional": True, "batch_first": True, "dropout": 0.25},
    "projected LSTM": {"proj_size": 2, "bias": False},
    "GRU": {"batch_first": True},
    "RNN": {"nonlinearity": "relu", "bidirectional": True},
    "tanh RNN": {},
    "LSTMCell": {"bias": False},
    "GRUCell": {},
    "RNNCell": {"nonlinearity": "relu"},
}


@pytest.fixture(autouse=True)
def a_seed():
    torch.manual_seed(0)


def made(what):
    return getattr(torch.nn, what.rpartition(" ")[2])(3, 5, **MODULES[what]).eval()


class Holder(torch.nn.Module):
    """A model with one module in it, which it calls with what fits."""

    def __init__(self, inner):
        super().__init__()
        self.inner, self.shape = inner, (2, 3) if isinstance(inner, torch.nn.RNNCellBase) else (4, 2, 3)

    def forward(self, input):
        return self.inner(input)


def traced(model):
    return torch.jit.trace(model, torch.randn(model.shape))


def loaded(model):
    file = io.BytesIO()
    torch.jit.save(model, file)
    file.seek(0)
    return torch.jit.load(file)


SCRIPTS = {
    "scripted": torch.jit.script,
    "traced": traced,
    "scripted and loaded": lambda model: loaded(torch.jit.script(model)),
    "traced and loaded": lambda model: loaded(traced(model)),
}


@pytest.mark.parametrize("how", list(SCRIPTS))
@pytest.mark.parametrize("what", list(MODULES))
def test_a_module_in_torchscript_becomes_the_layer_that_the_module_itself_becomes(what, how):
    module = made(what)
    layer, expected = interop.from_torch(SCRIPTS[how](Holder(module)).inner), interop.from_torch(module)
    assert repr(layer).replace(", dropout=0.25", "") == repr(expected).replace(", dropout=0.25", "")
    assert layer.state_dict().keys() == expected.state_dict().keys()
    np.testing.assert_array_equal(layer.parameters, expected.parameters)


def test_in_torchscript_too_only_what_computes_as_pytorch_does_is_taken():
    def patched():
        module = torch.nn.LSTM(3, 5)
        own = module.forward
        module.forward = lambda input: own(2 * input)
        return module

    def hooked():
        module = torch.nn.LSTM(3, 5)
        module.register_forward_pre_hook(lambda module, arguments: (2 * arguments[0],))
        return module

    class LSTM(torch.nn.LSTM):
        def forward(self, input):
            return super().forward(2 * input)

    for make, message in (
        (patched, "its graph has 1 calls and mul besides"),
        (hooked, "its graph has 1 calls and mul besides"),
        (lambda: LSTM(3, 5), "a cell of these; got .*TorchScript"),
    ):
        with pytest.raises(TypeError, match=message):
            interop.from_torch(torch.jit.trace(make(), torch.randn(4, 2, 3)))


def test_a_model_in_torchscript_and_a_graph_of_constants_are_refused():
    model = torch.jit.script(Holder(torch.nn.LSTM(3, 5)).eval())
    with pytest.raises(TypeError, match=r"module must be a torch\.nn\.RNN, LSTM, GRU or a cell"):
        interop.from_torch(model)
    with pytest.raises(TypeError, match="TorchScript, which runs by itself"):
        interop.from_torch(torch.jit.freeze(model))


# -- quantized ---------------------------------------------------------------------------------------------------------


def quantized(module, dtype=torch.qint8):
    model = torch.nn.Sequential(module)
    return torch.ao.quantization.quantize_dynamic(model, {type(module)}, dtype=dtype)[0]


def off(one, other):
    return (one - other).square().mean().sqrt().item()


def tensors_of(layer, input, hx=None):
    return torch.from_numpy(layer(input.numpy(), hx)[0])


@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_a_quantized_module_becomes_the_layer_that_is_nearest_to_it(kind):
    """Nearer than integers again, and than the module that it was made of."""
    module = getattr(torch.nn, kind)(16, 48, num_layers=2, bidirectional=True, batch_first=True).eval()
    theirs, input = quantized(module), torch.randn(8, 30, 16)
    layer = interop.from_torch(theirs)
    assert repr(layer) == repr(interop.from_torch(module))
    with torch.no_grad():
        expected, original = theirs(input)[0], module(input)[0]
    error = off(tensors_of(layer, input), expected)
    assert error < off(tensors_of(layer.quantize("int8"), input), expected)
    assert error < off(original, expected) < 0.01


@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_weights_in_halves_give_what_pytorch_gives(kind):
    theirs, input = quantized(getattr(torch.nn, kind)(16, 48), torch.float16), torch.randn(30, 2, 16)
    torch.testing.assert_close(tensors_of(interop.from_torch(theirs), input), theirs(input)[0], rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", ["RNNCell", "LSTMCell", "GRUCell"])
def test_quantized_cells_become_cells(kind):
    module = getattr(torch.nn, kind)(16, 48)
    theirs, input = quantized(module), torch.randn(4, 16)
    cell, found = interop.from_torch(theirs), theirs(input)
    assert repr(cell) == repr(interop.from_torch(module))
    zeros = np.zeros((4, 48), np.float32)
    got = cell(input.numpy(), (zeros, zeros) if kind == "LSTMCell" else zeros)
    pairs = zip(got, found, strict=True) if kind == "LSTMCell" else [(got, found)]
    assert all(np.abs(one - other.numpy()).max() < 0.02 for one, other in pairs)


@pytest.mark.parametrize("how", ["scripted", "traced and loaded"])
@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNNCell"])
def test_quantized_modules_in_torchscript_become_the_same_layers(kind, how):
    model = Holder(getattr(torch.nn, kind)(3, 5).eval())
    model.inner = theirs = quantized(model.inner)
    layer, expected = interop.from_torch(SCRIPTS[how](model).inner), interop.from_torch(theirs)
    assert repr(layer) == repr(expected)
    np.testing.assert_array_equal(layer.parameters, expected.parameters)


@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_an_accelerated_quantized_module_is_called_as_it_was(kind):
    theirs = quantized(getattr(torch.nn, kind)(16, 48, batch_first=True, bidirectional=True))
    ours = copy.deepcopy(theirs)
    assert str(interop.accelerate(ours)) == "the model itself: replaced"
    assert isinstance(ours, type(theirs)) and repr(ours) == repr(theirs)
    packed = pack_sequence([torch.randn(n, 16) for n in (3, 7, 1)], enforce_sorted=False)
    hx = torch.randn(2, 3, 48)
    hx = (hx, hx) if kind == "LSTM" else hx
    for arguments in ((packed,), (packed, hx), (torch.randn(3, 5, 16),), (torch.randn(3, 5, 16), hx)):
        (output, state), (expected, last) = ours(*arguments), theirs(*arguments)
        assert type(output) is type(expected)
        for one, other in ((output.data, expected.data), *zip(state, last, strict=True)):
            assert one.shape == other.shape and off(one, other) < 0.02
    for again in (copy.deepcopy(ours), pickle.loads(pickle.dumps(ours))):
        assert torch.equal(again(packed)[0].data, ours(packed)[0].data)
    for wrong in (torch.randn(3, 16), torch.randn(3, 5, 15)):
        with pytest.raises(RuntimeError):
            ours(wrong)
    for transform in (torch.jit.script, lambda module: torch.jit.trace(module, torch.randn(3, 5, 16))):
        with pytest.raises(RuntimeError, match="cannot be traced, scripted or exported"):
            transform(ours)
    assert interop.accelerate(ours).left == {"": "runs on numba_pack already"}


@pytest.mark.parametrize("dtype", [torch.qint8, torch.float16])
def test_an_accelerated_quantized_module_is_in_integers_unless_a_precision_or_halves_say_other(dtype):
    theirs, input = quantized(torch.nn.LSTM(16, 48), dtype), torch.randn(30, 2, 16)
    layer = interop.from_torch(theirs)
    small = layer.quantize("int8") if dtype == torch.qint8 else layer
    for precision, expected in ((None, small), ("highest", layer)):
        ours = copy.deepcopy(theirs)
        interop.accelerate(ours, matmul_precision=precision)
        assert torch.equal(ours(input)[0], tensors_of(expected, input))


def test_an_accelerated_quantized_module_computes_with_what_is_loaded():
    ours, other, input = quantized(torch.nn.GRU(3, 5)), quantized(torch.nn.GRU(3, 5)), torch.randn(4, 2, 3)
    interop.accelerate(ours)
    ours(input)
    ours.load_state_dict(other.state_dict())
    assert off(ours(input)[0], other(input)[0]) < 0.02
    interop.accelerate(other)
    assert torch.equal(ours(input)[0], other(input)[0])


# -- packed sequences --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.int64, torch.bool])
@pytest.mark.parametrize("lengths", [(5, 3, 3), (2, 5, 1)], ids=["sorted", "unsorted"])
def test_a_packed_sequence_goes_both_ways_without_a_copy(lengths, dtype):
    sequences = [torch.arange(n * 2).view(n, 2).to(dtype) for n in lengths]
    theirs = pack_sequence(sequences, enforce_sorted=lengths == (5, 3, 3))
    ours = interop.packed_from_torch(theirs)
    helpers.assert_same_bits(
        nbp.unpack_sequence(ours), nbp.unpack_sequence(nbp.pack_sequence([s.numpy() for s in sequences]))
    )
    back = interop.packed_to_torch(ours)
    assert back.data.data_ptr() == theirs.data.data_ptr() == ours.data.ctypes.data
    assert back.batch_sizes.data_ptr() == theirs.batch_sizes.data_ptr()
    padded, found = pad_packed_sequence(back)
    assert found.tolist() == list(lengths)
    assert torch.equal(padded, pad_packed_sequence(theirs)[0])


def test_what_numpy_or_pytorch_cannot_share_is_copied():
    theirs = pack_sequence([torch.ones(3, 2, dtype=torch.bfloat16)])
    assert interop.packed_from_torch(theirs).data.dtype == np.float32
    negative = theirs._replace(data=torch._neg_view(torch.ones(3, 2)))
    assert (interop.packed_from_torch(negative).data == -1).all()
    ours = nbp.pack_sequence([np.ones((3, 2), np.float32)])
    ours.data.flags.writeable = False
    interop.packed_to_torch(ours).data.zero_()
    assert ours.data.all()


def test_a_packed_sequence_that_the_other_side_cannot_have_is_refused():
    theirs = pack_sequence([torch.ones(3, 2), torch.ones(1, 2)])
    for value, error, message in (
        (theirs.data, TypeError, r"must be a torch\.nn\.utils\.rnn\.PackedSequence; got torch\.Tensor"),
        (theirs._replace(data=torch.ones(4, 2, requires_grad=True)), TypeError, "packed.data must need no gradient"),
        (
            theirs._replace(data=torch.ones(4, 2, device="meta")),
            ValueError,
            "packed.data must be a dense tensor; it has",
        ),
        (theirs._replace(batch_sizes=torch.tensor([1, 3])), ValueError, "packed.batch_sizes"),
    ):
        with pytest.raises(error, match=message):
            interop.packed_from_torch(value)
    ours = nbp.pack_sequence([np.ones((3, 2), np.float32)])
    for value, error, message in (
        (theirs, TypeError, "must be a PackedSequence of numba_pack; got torch"),
        (nbp.pack_sequence([np.ones(2), np.ones(0)]), ValueError, "got 1 of length 0 among 2"),
        (
            ours._replace(data=np.ones((3, 2), np.longdouble)),
            TypeError,
            "packed.data must have a dtype that PyTorch has",
        ),
    ):
        with pytest.raises(error, match=message):
            interop.packed_to_torch(value)
