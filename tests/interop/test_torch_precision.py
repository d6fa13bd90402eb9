"""PyTorch's modules in bfloat16 and float16, and precisions of modules and of layers that are made of them."""

import copy
import pickle

import numpy as np
import pytest

import numba_pack as nbp

torch = pytest.importorskip("torch", reason="what is tested here is the exchange with PyTorch")

from torch.nn.utils.rnn import pack_sequence  # noqa: E402

from numba_pack.interop import torch as interop  # noqa: E402

I, H, LENGTHS = 6, 24, (7, 2, 12)  # noqa: E741
HALVES = [pytest.param(torch.bfloat16, id="bfloat16"), pytest.param(torch.float16, id="float16")]
KINDS = ["LSTM", pytest.param("GRU", marks=pytest.mark.slow), pytest.param("RNN", marks=pytest.mark.slow)]
#: of values of about 1: a unit in the last place, and what sums of products of bfloat16 leave
BOUND = 2e-2


@pytest.fixture
def default():
    """A place to set the default of the process from."""
    before = nbp.get_float32_matmul_precision()
    yield nbp.set_float32_matmul_precision
    nbp.set_float32_matmul_precision(before)


def factors(module):
    """Of the products that a module has computed last."""
    return type(module._prepared.weights).cell.factors


def made(kind, dtype, **options):
    """PyTorch's module in a half, itself and on this library, and what both are in float64."""
    theirs = getattr(torch.nn, kind)(I, H, dtype=dtype, **options)
    ours = copy.deepcopy(theirs)
    assert interop.accelerate(ours).replaced == ("",)
    return theirs, ours, copy.deepcopy(theirs).double()


def results(module, input, hx):
    """Output, states and gradients of all that has one, of a loss that weighs the output."""
    leaves = [input.data, *(hx if isinstance(hx, tuple) else (hx,)), *module.parameters()]
    output, state = module(input, hx)
    weights = torch.linspace(-1, 1, output.data.numel(), dtype=torch.float64).to(output.data.dtype)
    loss = (output.data * weights.view_as(output.data)).sum()
    states = list(state) if isinstance(state, tuple) else [state]
    return [output.data, *states, *torch.autograd.grad(loss, leaves)]


def inputs(module, dtype):
    generator = torch.Generator().manual_seed(1)
    sequences = [torch.randn(n, I, generator=generator).to(dtype) for n in LENGTHS]
    states = [torch.randn(1, len(LENGTHS), H, generator=generator).to(dtype).requires_grad_() for _ in range(2)]
    packed = pack_sequence(sequences, enforce_sorted=False)
    packed.data.requires_grad_()
    return packed, tuple(states) if isinstance(module, torch.nn.LSTM) else states[0]


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("kind", KINDS)
def test_results_and_gradients_are_as_near_as_those_of_pytorch(kind, dtype):
    theirs, ours, exact = made(kind, dtype)
    input, hx = inputs(theirs, dtype)
    wide = input._replace(data=input.data.detach().double().requires_grad_())
    its = tuple(part.detach().double().requires_grad_() for part in (hx if isinstance(hx, tuple) else (hx,)))
    expected = results(exact, wide, its if isinstance(hx, tuple) else its[0])
    for found, right, other in zip(results(ours, input, hx), expected, results(theirs, input, hx), strict=True):
        assert found.dtype == dtype and found.shape == right.shape
        scale = max(1.0, right.abs().max().item())
        error, its_error = ((value.double() - right).abs().max().item() / scale for value in (found, other))
        assert error <= max(2 * its_error, BOUND), (error, its_error)
    assert factors(ours) == "bfloat16"


@pytest.mark.parametrize("dtype", HALVES)
def test_padded_and_single_input_and_steps_without_gradients_come_back_in_their_dtype(dtype):
    theirs, ours, _ = made("LSTM", dtype, bidirectional=True, batch_first=True)
    with torch.no_grad():
        for shape in ((2, 5, I), (5, I)):
            x = torch.randn(shape).to(dtype)
            (output, (h, c)), (expected, (its_h, its_c)) = ours(x), theirs(x)
            for found, right in ((output, expected), (h, its_h), (c, its_c)):
                assert found.dtype == dtype and found.shape == right.shape
                assert (found - right).abs().max() < 2 * BOUND
        kept = ours._prepared
        ours(x)
        assert ours._prepared is kept  # packed once
        ours.weight_hh_l0.mul_(2)
        ours(x)
        assert ours._prepared is not kept


@pytest.mark.parametrize("dtype", HALVES)
def test_a_module_of_ours_may_be_made_in_a_half_or_become_one(dtype):
    x = torch.randn(4, 2, I).to(dtype)
    for module in (interop.GRU(I, H, dtype=dtype), interop.GRU(I, H).to(dtype)):
        module(x)[0].sum().backward()
        assert module(x)[0].dtype == module.weight_ih_l0.grad.dtype == dtype
        assert factors(module) == "bfloat16"
    with pytest.raises(ValueError, match="dtype"):
        module(x.float())


def test_other_halves_in_one_module_are_refused():
    module = interop.GRU(I, H, dtype=torch.bfloat16)
    module.bias_hh_l0 = torch.nn.Parameter(module.bias_hh_l0.detach().half())
    with pytest.raises(RuntimeError, match=r"bias_hh_l0 must have .* dtype torch.bfloat16; got .* torch.float16"):
        module(torch.zeros(4, 2, I, dtype=torch.bfloat16))


def test_transforms_of_torch_func_go_through_halves():
    module = interop.GRU(I, H, dtype=torch.bfloat16)
    x = torch.randn(3, 4, I).bfloat16()
    mapped = torch.vmap(lambda one: module(one)[0])(x)
    assert torch.equal(mapped, torch.stack([module(one)[0] for one in x]))
    gradient = torch.func.grad(lambda one: module(one)[0].sum())(x[0])
    assert gradient.dtype == torch.bfloat16 and gradient.shape == x[0].shape


# -- precision ---------------------------------------------------------------------------------------------------------


def test_accelerated_modules_have_the_precision_that_was_asked_for():
    model = torch.nn.ModuleDict({"a": torch.nn.LSTM(I, H), "b": torch.nn.LSTM(I, H).double(), "c": torch.nn.LSTM(I, H)})
    model["c"].bfloat16()
    plain = copy.deepcopy(model)
    assert interop.accelerate(model, matmul_precision="medium").replaced == ("a", "b", "c")
    expected = {"a": "bfloat16", "b": "float", "c": "bfloat16"}  # float64 stays what it is
    for name, module in model.items():
        assert module.matmul_precision == "medium" and "matmul_precision=medium" in repr(module)
        x = torch.randn(4, 2, I).to(module.weight_ih_l0.dtype)
        assert (module(x)[0] - plain[name](x)[0]).abs().max() < BOUND
        assert factors(module) == expected[name]
        again = pickle.loads(pickle.dumps(module))
        assert again.matmul_precision == "medium" and torch.equal(again(x)[0], module(x)[0])


def test_it_may_be_changed_and_otherwise_follows_the_default(default):
    default("highest")
    module, x = interop.LSTM(I, H), torch.randn(4, 2, I)
    assert module.matmul_precision is None and "matmul_precision" not in repr(module)
    for set_to in (default, lambda precision: setattr(module, "matmul_precision", precision)):
        for precision, expected in (("medium", "bfloat16"), ("highest", "float")):
            set_to(precision)
            module(x)
            assert (factors(module) == "bfloat16") == (expected == "bfloat16")
    module.matmul_precision = "best"
    with pytest.raises(ValueError, match="matmul_precision must be 'highest', 'high' or 'medium'; got 'best'"):
        module(x)


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("kind", ["RNN", "LSTM", "GRU", "RNNCell", "LSTMCell", "GRUCell"])
def test_a_module_in_a_half_becomes_a_layer_in_medium(kind, dtype):
    module = getattr(torch.nn, kind)(I, H, dtype=dtype)
    layer = interop.from_torch(module)
    assert (layer.dtype, layer.matmul_precision) == (np.float32, "medium")
    for name, value in layer.state_dict().items():
        assert np.array_equal(value, getattr(module, name).detach().float().numpy())
    assert interop.from_torch(module, matmul_precision="highest").matmul_precision == "highest"
    assert interop.to_torch(layer).weight_hh_l0.dtype == torch.float32 if "Cell" not in kind else True


def test_layers_of_modules_have_the_precision_that_was_asked_for(default):
    module = torch.nn.LSTM(I, H)
    assert interop.from_torch(module, matmul_precision="high").matmul_precision == "high"
    default("medium")
    assert interop.from_torch(module).matmul_precision == "medium"
    assert interop.from_torch(module.double()).matmul_precision == "highest"
    assert repr(interop.to_torch(interop.from_torch(module.float()))) == repr(torch.nn.LSTM(I, H))
    with pytest.raises(TypeError, match="to_torch must be called of a layer in float"):
        interop.to_torch(nbp.LSTM(I, H).quantize("int8"))
