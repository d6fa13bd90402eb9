"""PyTorch's modules taken over and given back; and this library's modules in the place of PyTorch's."""

import copy
import inspect
import itertools
import pickle
import re
import subprocess
import sys

import helpers
import numpy as np
import pytest

import numba_pack as nbp

torch = pytest.importorskip("torch", reason="what is tested here is the exchange with PyTorch")

from torch.nn.utils import parametrize  # noqa: E402
from torch.nn.utils.rnn import PackedSequence, pack_sequence  # noqa: E402

from numba_pack.cpu import engine, packer  # noqa: E402
from numba_pack.interop import torch as interop  # noqa: E402

KINDS = ["RNN", "LSTM", "GRU"]
DTYPES = [pytest.param(torch.float32, id="float32"), pytest.param(torch.float64, id="float64")]
LENGTHS = (4, 1, 7, 4, 6)
FORMS = ["packed", "packed-sorted", "padded", "batch-first", "single"]


# -- what the tests share ----------------------------------------------------------------------------------------------


def twins(kind, *sizes, **options):
    """PyTorch's module, and ours with the same parameters."""
    theirs = getattr(torch.nn, kind)(*sizes, **options)
    ours = getattr(interop, kind)(*sizes, **options)
    ours.load_state_dict(theirs.state_dict())
    return theirs, ours


def make_input(form, inputs, dtype):
    """Random input in one of FORMS, and the tensor in it that takes a gradient."""
    if form.startswith("packed"):
        lengths = sorted(LENGTHS, reverse=True) if form == "packed-sorted" else LENGTHS
        sequences = [torch.randn(n, inputs, dtype=dtype) for n in lengths]
        packed = pack_sequence(sequences, enforce_sorted=form == "packed-sorted")
        packed.data.requires_grad_()
        return packed, packed.data
    shape = {"padded": (7, 5, inputs), "batch-first": (5, 7, inputs), "single": (7, inputs)}[form]
    tensor = torch.randn(shape, dtype=dtype, requires_grad=True)
    return tensor, tensor


def make_state(module, form):
    """A random state that takes a gradient."""
    scans = module.num_layers * (2 if module.bidirectional else 1)
    batch = () if form == "single" else (len(LENGTHS),)
    sizes = (module.proj_size or module.hidden_size, module.hidden_size)
    h, c = (torch.randn(scans, *batch, size, dtype=module.weight_ih_l0.dtype, requires_grad=True) for size in sizes)
    return (h, c) if isinstance(module, torch.nn.LSTM) else h


def flat(value):
    """The tensors in results, one after the other."""
    if isinstance(value, PackedSequence):
        return [value.data]
    return [value] if isinstance(value, torch.Tensor) else list(itertools.chain.from_iterable(map(flat, value)))


def arrays(tensors):
    return [tensor.detach().numpy() for tensor in tensors]


def gradients(module, arguments, leaves):
    """Results of a call, and the gradients of a sum of them, each weighted by fixed random numbers."""
    results = flat(module(*arguments))
    generator = torch.Generator().manual_seed(1)
    weights = [torch.randn(result.shape, generator=generator, dtype=result.dtype) for result in results]
    loss = sum((result * weight).sum() for result, weight in zip(results, weights, strict=True))
    leaves = [*leaves, *module.parameters()]
    return results, torch.autograd.grad(loss, leaves, retain_graph=True)


def assert_alike(theirs, ours, arguments, leaves):
    """Both modules give the same results, of the same shapes, and the same gradients."""
    expected, got = gradients(theirs, arguments, leaves), gradients(ours, arguments, leaves)
    layer = interop.from_torch(theirs)
    for what, some, others in zip(("result", "gradient"), expected, got, strict=True):
        helpers.assert_near(
            layer, LENGTHS, [t.detach().numpy() for t in others], [t.detach().numpy() for t in some], what
        )


OPTIONS = [
    pytest.param({}, id="plain"),
    pytest.param({"bias": False}, id="no-bias"),
    pytest.param({"num_layers": 2, "bidirectional": True}, id="2layers-bi"),
]


# -- layers from modules and back --------------------------------------------------------------------------------------

MODULES = [
    pytest.param("RNN", {"nonlinearity": "relu", "num_layers": 2, "dropout": 0.25}, id="rnn-relu"),
    pytest.param("RNN", {"bias": False, "batch_first": True}, id="rnn-tanh"),
    pytest.param("LSTM", {"num_layers": 3, "bidirectional": True, "proj_size": 2}, id="lstm-proj"),
    pytest.param("GRU", {"bidirectional": True, "bias": False}, id="gru"),
    pytest.param("RNNCell", {"nonlinearity": "relu"}, id="rnn-cell"),
    pytest.param("LSTMCell", {"bias": False}, id="lstm-cell"),
    pytest.param("GRUCell", {}, id="gru-cell"),
]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("kind", "options"), MODULES)
def test_a_module_comes_in_and_goes_out_with_all_options_and_bits(kind, options, dtype):
    module = getattr(torch.nn, kind)(3, 5, dtype=dtype, **options)
    layer = interop.from_torch(module)
    assert type(layer) is getattr(nbp, kind)
    back = interop.to_torch(layer)
    assert type(back) is type(module)
    assert repr(back) == repr(module)
    for name, value in {**options, "input_size": 3, "hidden_size": 5}.items():
        assert getattr(layer, name) == getattr(back, name) == value
    assert list(layer.state_dict()) == list(module.state_dict()) == list(back.state_dict())
    for name, value in module.state_dict().items():
        assert torch.equal(back.state_dict()[name], value)
        assert back.state_dict()[name].dtype == dtype


@pytest.mark.parametrize("kind", KINDS)
def test_parameters_are_copied_and_not_shared(kind):
    module = getattr(torch.nn, kind)(3, 5)
    layer = interop.from_torch(module)
    back = interop.to_torch(layer)
    before = layer.parameters.copy()
    with torch.no_grad():
        module.weight_hh_l0.zero_()
        back.weight_hh_l0.zero_()
    np.testing.assert_array_equal(layer.parameters, before)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_layer_takes_a_state_dict_of_tensors(dtype):
    module = torch.nn.GRU(3, 5, dtype=dtype)
    for state_dict in (module.state_dict(), dict(module.named_parameters())):
        layer = nbp.GRU(3, 5, dtype=np.float64)
        layer.load_state_dict(state_dict)
        for name, value in layer.state_dict().items():
            np.testing.assert_array_equal(value, module.state_dict()[name].numpy())


def test_a_layer_says_which_tensors_it_cannot_read():
    from torch._subclasses import FakeTensorMode

    layer, ones = nbp.GRU(3, 5), torch.ones(15, 3)
    for value in (ones.to("meta"), ones.bfloat16().to("meta"), ones.to_sparse(), FakeTensorMode().from_tensor(ones)):
        with pytest.raises(TypeError, match=r"state_dict\['weight_ih_l0'\] must be an array; got torch\."):
            layer.load_state_dict({**layer.state_dict(), "weight_ih_l0": value})
    layer.load_state_dict({**layer.state_dict(), "weight_ih_l0": torch._neg_view(ones)})
    assert (layer.state_dict()["weight_ih_l0"] == -1).all()


def test_from_torch_reads_computed_parameters():
    module = torch.nn.LSTM(3, 5)
    torch.nn.utils.parametrizations.weight_norm(module, "weight_hh_l0")
    np.testing.assert_array_equal(
        interop.from_torch(module).state_dict()["weight_hh_l0"], module.weight_hh_l0.detach().numpy()
    )


@pytest.mark.filterwarnings("ignore:.*_norm.*:FutureWarning")
@pytest.mark.parametrize("how", ["weight_norm", "spectral_norm", "pruned", "old weight_norm", "old spectral_norm"])
def test_from_torch_takes_what_the_next_call_computes_with_and_changes_nothing(how):
    utils, name = torch.nn.utils, "weight_hh_l0"
    module = torch.nn.LSTM(3, 5)
    {
        "weight_norm": lambda: utils.parametrizations.weight_norm(module, name),
        "spectral_norm": lambda: utils.parametrizations.spectral_norm(module, name),
        "pruned": lambda: utils.prune.random_unstructured(module, name, 0.5),
        "old weight_norm": lambda: utils.weight_norm(module, name),
        "old spectral_norm": lambda: utils.spectral_norm(module, name),
    }[how]()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.mul_(1.5)  # as an optimizer does: attributes that were computed before have not seen it
    before = copy.deepcopy(module.state_dict())
    layer = interop.from_torch(module)
    for key, value in module.state_dict().items():
        assert torch.equal(value, before[key])
    module.eval()(torch.zeros(1, 1, 3))
    np.testing.assert_array_equal(layer.state_dict()[name], getattr(module, name).detach().numpy())


class WithoutForget(torch.nn.LSTM):
    def forward(self, input, hx=None):
        return super().forward(2 * input, hx)


class Named(torch.nn.LSTM):
    """A subclass that computes the same."""

    def extra_repr(self):
        return "named"


def with_forward(module):
    module.forward = lambda *_: None
    return module


def with_hook(module, register):
    getattr(module, register)(lambda module, *arguments: None)
    return module


def without(module, name):
    delattr(module, name)
    return module


class Negative(torch.nn.Module):
    def forward(self, value):
        return torch._neg_view(value)


REFUSED = {
    "its class's forward": (
        lambda: WithoutForget(3, 5),
        TypeError,
        "WithoutForget is a class of its own, whose forward",
    ),
    "its own forward": (lambda: with_forward(torch.nn.GRU(3, 5)), TypeError, "its forward is not that of its class"),
    "a cell's own forward": (lambda: with_forward(torch.nn.GRUCell(3, 5)), TypeError, "its forward is not that"),
    "of ours, its own forward": (lambda: with_forward(interop.GRU(3, 5)), TypeError, "its forward is not that"),
    "a hook": (
        lambda: with_hook(torch.nn.GRU(3, 5), "register_forward_hook"),
        TypeError,
        "no forward hooks.*with_hook",
    ),
    "a hook before": (
        lambda: with_hook(torch.nn.GRU(3, 5), "register_forward_pre_hook"),
        TypeError,
        "no forward hooks",
    ),
    "meta": (lambda: torch.nn.GRU(3, 5, device="meta"), ValueError, "weight_ih_l0 has no values"),
    "complex": (lambda: torch.nn.GRU(3, 5).to(torch.complex64), TypeError, "got torch.complex64"),
    "two dtypes": (
        lambda: setattr(m := torch.nn.GRU(3, 5), "bias_hh_l0", torch.nn.Parameter(torch.ones(15).double())) or m,
        TypeError,
        "one dtype; got torch.float32 and, in bias_hh_l0, torch.float64",
    ),
    "sparse": (
        lambda: setattr(m := torch.nn.GRU(3, 5), "weight_hh_l0", torch.nn.Parameter(torch.eye(15, 5).to_sparse())) or m,
        ValueError,
        "weight_hh_l0 is torch.sparse_coo, not dense",
    ),
    "a shape": (
        lambda: setattr(m := torch.nn.GRU(3, 5), "weight_hh_l0", torch.nn.Parameter(torch.eye(5))) or m,
        ValueError,
        r"weight_hh_l0.*\(15, 5\)",
    ),
    "nothing": (
        lambda: without(torch.nn.GRU(3, 5), "bias_hh_l0"),
        ValueError,
        "the parameter bias_hh_l0; got NoneType",
    ),
    "quantized in another way": (
        lambda: torch.ao.nn.quantizable.LSTM(3, 5),
        TypeError,
        r"got torch\.ao\.nn.*\.LSTM: quantized",
    ),
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:Complex modules:UserWarning")
@pytest.mark.parametrize("what", list(REFUSED))
def test_from_torch_takes_only_what_computes_as_the_class_of_pytorch_does(what):
    make, error, message = REFUSED[what]
    with pytest.raises(error, match=message):
        interop.from_torch(make())


def test_from_torch_takes_what_computes_the_same():
    x = torch.randn(4, 2, 3)
    negative = torch.nn.LSTM(3, 5)
    parametrize.register_parametrization(negative, "bias_hh_l0", Negative())
    for module in (Named(3, 5), interop.LSTM(3, 5), negative):
        np.testing.assert_allclose(
            interop.from_torch(module)(x.numpy())[0], module(x)[0].detach().numpy(), rtol=0, atol=1e-6
        )


def test_what_pytorch_has_no_module_for_is_refused():
    with pytest.raises(ValueError, match="layer must have return_states=False, for PyTorch has no such"):
        interop.to_torch(nbp.LSTM(3, 5, return_states=True))
    with pytest.raises(TypeError, match=r"layer must be an RNN, LSTM, GRU, .*got numba_pack\.layers\.layer\.Layer"):
        interop.to_torch(nbp.cells.MGU(3, 5))
    with pytest.raises(ValueError, match=r"layer must have one hidden_size, for .*; got LSTM\(3, \[5, 4\]\)"):
        interop.to_torch(nbp.LSTM(3, [5, 4]))


def test_public_names_are_those_of_the_public_module():
    assert {getattr(interop, name).__module__ for name in interop.__all__} == {"numba_pack.interop.torch"}


def test_what_is_no_recurrent_module_is_refused():
    with pytest.raises(
        TypeError,
        match=r"module must be a torch.nn.RNN, LSTM, GRU or a cell of these; got torch\.nn\.modules\.linear\.Linear",
    ):
        interop.from_torch(torch.nn.Linear(3, 5))
    with pytest.raises(TypeError, match=r"module must have dtype .*, bfloat16 or float16; got torch.complex64"):
        interop.from_torch(torch.nn.LSTMCell(3, 5, dtype=torch.complex64))
    with pytest.raises(TypeError, match=r"GRUCell of numba_pack; got torch\.nn\.modules\.rnn\.LSTM"):
        interop.to_torch(torch.nn.LSTM(3, 5))


# -- modules in the place of PyTorch's ---------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("kind", KINDS)
def test_results_and_gradients_are_those_of_pytorch(kind, options, dtype, form):
    theirs, ours = twins(kind, 3, 5, dtype=dtype, batch_first=form == "batch-first", **options)
    input, leaf = make_input(form, 3, dtype)
    assert_alike(theirs, ours, (input,), [leaf])
    hx = make_state(theirs, form)
    assert_alike(theirs, ours, (input, hx), [leaf, *flat(hx)])


def test_a_projection_and_relu_are_those_of_pytorch():
    for kind, options in (("LSTM", {"proj_size": 2}), ("RNN", {"nonlinearity": "relu"})):
        theirs, ours = twins(kind, 3, 5, num_layers=2, bidirectional=True, dtype=torch.float64, **options)
        input, leaf = make_input("packed", 3, torch.float64)
        hx = make_state(theirs, "packed")
        assert_alike(theirs, ours, (input, hx), [leaf, *flat(hx)])


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", KINDS)
def test_without_gradients_the_bits_are_the_same(kind, form):
    ours = getattr(interop, kind)(3, 5, num_layers=2, batch_first=form == "batch-first")
    input, _ = make_input(form, 3, torch.float32)
    expected = flat(ours(input))
    with torch.no_grad():
        helpers.assert_same_bits([t.numpy() for t in flat(ours(input))], [t.detach().numpy() for t in expected])
    with torch.inference_mode():
        assert all(torch.equal(one, other) for one, other in zip(flat(ours(input)), expected, strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_packed_output_keeps_the_batch_as_it_came(kind):
    ours = getattr(interop, kind)(3, 5)
    for form in ("packed", "packed-sorted"):
        packed, _ = make_input(form, 3, torch.float32)
        output, _ = ours(packed)
        assert type(output) is PackedSequence
        assert all(one is other for one, other in zip(output[1:], packed[1:], strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_only_the_gradients_that_are_asked_for_are_given(kind):
    ours = getattr(interop, kind)(3, 5)
    output, state = ours(torch.randn(4, 2, 3))  # an input without gradient
    output.sum().backward()
    assert all(parameter.grad is not None for parameter in ours.parameters())

    ours.requires_grad_(False)
    assert not ours(torch.randn(4, 2, 3))[0].requires_grad
    input = torch.randn(4, 2, 3, requires_grad=True)
    output, state = ours(input)
    flat(state)[0].sum().backward()  # and none through the output
    assert input.grad is not None


@pytest.mark.parametrize("options", [{}, {"num_layers": 2, "bidirectional": True}], ids=["plain", "2layers-bi"])
@pytest.mark.parametrize("kind", KINDS)
def test_gradcheck(kind, options):
    ours = getattr(interop, kind)(2, 3, dtype=torch.float64, **options)
    packed = pack_sequence([torch.randn(n, 2, dtype=torch.float64) for n in (2, 4, 1)], enforce_sorted=False)
    hx = make_state(ours, "single")
    hx = [h.unsqueeze(1).repeat(1, 3, 1).detach().requires_grad_() for h in flat(hx)]
    names = [name for name, _ in ours.named_parameters()]

    def call(data, *rest):
        states, parameters = rest[: len(hx)], dict(zip(names, rest[len(hx) :], strict=True))
        state = tuple(states) if kind == "LSTM" else states[0]
        output, state = torch.func.functional_call(ours, parameters, (packed._replace(data=data), state))
        return (output.data, *flat(state))

    data = packed.data.detach().requires_grad_()
    assert torch.autograd.gradcheck(call, (data, *hx, *ours.parameters()))


def test_a_graph_that_is_retained_gives_the_same_gradients_again():
    ours = interop.LSTM(3, 5, num_layers=2, dropout=0.5)
    input, leaf = make_input("packed", 3, torch.float32)
    output, _ = ours(input)
    leaves = [leaf, *ours.parameters()]
    first = torch.autograd.grad(output.data.sum(), leaves, retain_graph=True)
    again = torch.autograd.grad(output.data.sum(), leaves)
    helpers.assert_same_bits([t.numpy() for t in again], [t.numpy() for t in first])
    with pytest.raises(RuntimeError, match="second time"):
        torch.autograd.grad(output.data.sum(), leaves)


def test_gradients_of_parameters_share_one_vector():
    ours = interop.LSTM(3, 5, num_layers=2)
    ours(torch.randn(4, 2, 3))[0].sum().backward()
    gradients = [parameter.grad for parameter in ours.parameters()]
    for one, following in itertools.pairwise(gradients):
        assert one.data_ptr() + one.numel() * one.element_size() == following.data_ptr()
    gradients[0].zero_()  # as optimizers do
    assert gradients[1].abs().sum() > 0


@pytest.mark.parametrize("form", ["packed", "padded", "single"])
def test_input_and_output_share_memory_with_the_engine(form, monkeypatch):
    seen, infer = [], engine.infer

    def watched(weights, batch, states):
        results = infer(weights, batch, states)
        seen.extend([batch.data, results[0]])
        return results

    monkeypatch.setattr(engine, "infer", watched)
    ours = interop.GRU(3, 5)
    input, data = make_input(form, 3, torch.float32)
    with torch.no_grad():
        output = flat(ours._forward(input, None)[0])[0]  # the way of all calls
    assert [array.ctypes.data for array in seen] == [data.data_ptr(), output.data_ptr()]


@pytest.mark.parametrize("changed", ["input", "hx", "output", "parameter"])
def test_a_change_in_place_before_the_backward_pass_is_noticed(changed):
    ours = interop.GRU(3, 5)
    input, hx = torch.randn(4, 2, 3), torch.randn(1, 2, 5)
    output, _ = ours(input, hx)
    with torch.no_grad():
        {"input": input, "hx": hx, "output": output, "parameter": ours.bias_hh_l0}[changed].add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        output.sum().backward()


def test_batch_sizes_changed_before_the_backward_pass_do_no_harm():
    ours = interop.GRU(3, 5)
    packed, leaf = make_input("packed", 3, torch.float32)
    expected = torch.autograd.grad(ours(packed)[0].data.sum(), leaf)[0]
    output, _ = ours(packed)
    packed.batch_sizes.fill_(1000)
    packed.sorted_indices.fill_(1000)
    assert torch.equal(torch.autograd.grad(output.data.sum(), leaf)[0], expected)


def derived_twice(module, form, given):
    """Gradients, the gradients of their squares by all that they depend on, and the gradients of those."""
    torch.manual_seed(1)
    input, data = make_input(form, 3, torch.float64)
    hx = make_state(module, form) if given else None
    results = flat(module(input, hx))
    leaves = [data, *module.parameters(), *(flat(hx) if given else [])]
    factors = [torch.randn_like(result, requires_grad=True) for result in results]
    loss = sum((result * factor).sum() for result, factor in zip(results, factors, strict=True))
    first = torch.autograd.grad(loss, leaves, create_graph=True)
    second = torch.autograd.grad(
        sum(part.square().sum() for part in first) + results[0].square().sum(), [*leaves, *factors], create_graph=True
    )
    third = torch.autograd.grad(sum(part.square().sum() for part in second), leaves, materialize_grads=True)
    return [*first, *second, *third]


@pytest.mark.parametrize("given", [False, True], ids=["zeros", "hx"])
@pytest.mark.parametrize("form", ["packed", "padded", "single"])
@pytest.mark.parametrize(
    "kind, options",
    [("RNN", {}), ("GRU", {"num_layers": 2, "bidirectional": True}), ("LSTM", {"proj_size": 2})],
    ids=str,
)
def test_gradients_can_be_differentiated_again(kind, options, form, given):
    theirs, ours = twins(kind, 3, 5, dtype=torch.float64, **options)
    for expected, got in zip(derived_twice(theirs, form, given), derived_twice(ours, form, given), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-9)


def test_gradients_of_what_drops_units_cannot_be_differentiated_again():
    ours = interop.LSTM(3, 5, num_layers=2, dropout=0.5)
    input = torch.randn(4, 2, 3, requires_grad=True)
    (gradient,) = torch.autograd.grad(ours(input)[0].sum(), input, create_graph=True)
    with pytest.raises(RuntimeError, match="cannot be differentiated again where units are dropped"):
        gradient.sum().backward()


def test_gradients_with_a_graph_have_the_bits_of_those_without():
    ours = interop.LSTM(3, 5)
    input = torch.randn(20, 4, 3, requires_grad=True)
    with_graph, without = (
        torch.autograd.grad(ours(input)[0].sum(), [input, *ours.parameters()], create_graph=graph)
        for graph in (True, False)
    )
    assert all(torch.equal(one, other) for one, other in zip(with_graph, without, strict=True))


# -- transforms --------------------------------------------------------------------------------------------------------


def parameters_of(module):
    return {name: parameter.detach() for name, parameter in module.named_parameters()}


def loss_of(module):
    def loss(parameters, input):
        return torch.func.functional_call(module, parameters, (input,))[0].square().sum()

    return loss


def each_alone(function, inputs):
    return torch.stack([function(input) for input in inputs])


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("kind", KINDS)
def test_torch_func_grad_gives_the_gradients_of_backward(kind, options):
    ours = getattr(interop, kind)(3, 5, **options)
    input = torch.randn(4, 2, 3, requires_grad=True)
    leaves = [input, *ours.parameters()]
    expected = torch.autograd.grad(ours(input)[0].square().sum(), leaves)
    of_input = torch.func.grad(lambda input: ours(input)[0].square().sum())(input.detach())
    of_parameters = torch.func.grad(loss_of(ours))(parameters_of(ours), input.detach())
    helpers.assert_same_bits(arrays([of_input, *of_parameters.values()]), arrays(expected))


@pytest.mark.parametrize("kind", KINDS)
def test_torch_func_grad_goes_through_packed_input_and_states(kind):
    ours = getattr(interop, kind)(3, 5, num_layers=2)
    packed, leaf = make_input("packed", 3, torch.float32)
    hx = make_state(ours, "packed")

    def loss(data, hx):
        output, state = ours(packed._replace(data=data), hx)
        return output.data.square().sum() + sum(part.sum() for part in flat(state))

    expected = torch.autograd.grad(loss(leaf, hx), [leaf, *flat(hx)])
    detached = tuple(part.detach() for part in hx) if kind == "LSTM" else hx.detach()
    got = torch.func.grad(loss, argnums=(0, 1))(leaf.detach(), detached)
    helpers.assert_same_bits(arrays(flat(got)), arrays(expected))


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_of_each_example_by_vmap_are_those_of_the_examples_alone(kind):
    ours = getattr(interop, kind)(3, 5)
    inputs, parameters = torch.randn(6, 4, 1, 3), parameters_of(ours)
    gradient = torch.func.grad(loss_of(ours))
    got = torch.func.vmap(gradient, (None, 0))(parameters, inputs)
    for name, value in got.items():
        assert torch.equal(value, each_alone(lambda input, name=name: gradient(parameters, input)[name], inputs))


def test_vmap_maps_over_any_axis_over_models_and_within_itself():
    ours = interop.LSTM(3, 5)
    inputs = torch.randn(2, 6, 4, 3)
    with torch.no_grad():
        alone = torch.stack([each_alone(lambda input: ours(input)[0], some) for some in inputs])
        got = torch.vmap(torch.vmap(lambda input: ours(input)[0]))(inputs)
        assert torch.equal(got, alone)
        assert torch.equal(
            torch.vmap(lambda input: ours(input)[0], 1, 1)(inputs[0].movedim(0, 1)), alone[0].movedim(0, 1)
        )
    models = [interop.LSTM(3, 5), interop.LSTM(3, 5)]
    parameters, buffers = torch.func.stack_module_state(models)
    input = torch.randn(4, 2, 3)
    got = torch.vmap(lambda *state: torch.func.functional_call(ours, state, (input,))[0])(parameters, buffers)
    assert torch.equal(got, torch.stack([model(input)[0] for model in models]))
    torch.autograd.grad(got.sum(), list(parameters.values()))


def test_jacobians_are_those_of_rows_of_gradients():
    ours, input = interop.GRU(3, 5), torch.randn(4, 2, 3)

    def output(input):
        return ours(input)[0]

    expected = torch.autograd.functional.jacobian(output, input)
    assert torch.equal(torch.func.jacrev(output)(input), expected)
    value, pull = torch.func.vjp(output, input)
    assert torch.equal(value, output(input))
    torch.testing.assert_close(pull(torch.ones(4, 2, 5))[0].detach(), expected.sum((0, 1, 2)))

    leaf = input.clone().requires_grad_()
    result = output(leaf)
    units = torch.eye(40).view(40, 4, 2, 5)
    (rows,) = torch.vmap(lambda unit: torch.autograd.grad(result, leaf, unit, retain_graph=True))(units)
    assert torch.equal(rows.view(4, 2, 5, 4, 2, 3), expected)


def test_dropout_within_transforms_follows_what_vmap_says_of_randomness():
    ours = interop.LSTM(3, 40, num_layers=2, dropout=0.5)
    inputs = torch.randn(1, 4, 3).expand(3, 4, 3)

    def output(input):
        return ours(input)[0]

    same = torch.vmap(output, randomness="same")(inputs)
    assert torch.equal(same[0], same[1])
    different = torch.vmap(output, randomness="different")(inputs)
    assert not torch.equal(different[0], different[1])
    with pytest.raises(RuntimeError, match="randomness"):
        torch.vmap(output)(inputs)

    def gradient(input):
        torch.manual_seed(5)
        return torch.autograd.grad(output(input).sum(), input)[0]

    torch.manual_seed(5)
    got = torch.func.grad(lambda input: output(input).sum())(inputs[0])
    assert torch.equal(got, gradient(inputs[0].clone().requires_grad_()))


def tangent_of(call, primal):
    with torch.autograd.forward_ad.dual_level():
        result = call(torch.autograd.forward_ad.make_dual(primal, primal))
        return torch.autograd.forward_ad.unpack_dual(result).tangent


class Wrapped(torch.nn.Module):
    def __init__(self, recurrent):
        super().__init__()
        self.recurrent = recurrent

    def forward(self, input):
        return self.recurrent(input)[0].relu()


def make_fx(module, input):
    from torch.fx.experimental.proxy_tensor import make_fx

    return make_fx(module)(input)


def faked(module, input):
    from torch._subclasses import FakeTensorMode

    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        return module(mode.from_tensor(input))


DERIVED = {
    "jvp": lambda call, input: torch.func.jvp(call, (input,), (input,))[1],
    "jacfwd": lambda call, input: torch.func.jacfwd(call)(input),
    "hessian": lambda call, input: torch.func.hessian(lambda input: call(input).square().sum())(input),
    "grad of grad": lambda call, input: torch.func.grad(
        lambda input: torch.func.grad(lambda input: call(input).sum())(input).square().sum()
    )(input),
    "functional.hessian": lambda call, input: torch.autograd.functional.hessian(
        lambda input: call(input).square().sum(), input
    ),
    "dual input": tangent_of,
}


@pytest.mark.parametrize("how", list(DERIVED))
@pytest.mark.parametrize("kind", KINDS)
def test_forward_mode_and_second_derivatives_are_those_of_pytorch(kind, how):
    theirs, ours = twins(kind, 3, 5, dtype=torch.float64)
    input = torch.randn(4, 2, 3, dtype=torch.float64)
    with torch.backends.mkldnn.flags(enabled=False):  # which has no forward mode
        expected = DERIVED[how](lambda input: theirs(input)[0], input)
    got = DERIVED[how](lambda input: ours(input)[0], input)
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-9)


def test_forward_mode_goes_through_parameters_and_packed_input():
    theirs, ours = twins("GRU", 3, 5, dtype=torch.float64)
    packed, _ = make_input("packed", 3, torch.float64)

    def tangent(module):
        def call(*values):
            parameters = dict(zip(parameters_of(module), values, strict=True))
            return torch.func.functional_call(module, parameters, (packed,))[0].data

        with torch.autograd.forward_ad.dual_level():
            duals = [torch.autograd.forward_ad.make_dual(value, value) for value in parameters_of(module).values()]
            return torch.autograd.forward_ad.unpack_dual(call(*duals)).tangent

    torch.testing.assert_close(tangent(ours), tangent(theirs))


TRACED = "cannot be traced, scripted or exported"
REFUSED_TRANSFORMS = {
    "jit.trace": (TRACED, torch.jit.trace),
    "jit.script": (TRACED, lambda module, input: torch.jit.script(module)),
    "export": (TRACED, lambda module, input: torch.export.export(module, (input,), strict=False)),
    "strict export": (TRACED, lambda module, input: torch.export.export(module, (input,), strict=True)),
    "fx": (TRACED, lambda module, input: torch.fx.symbolic_trace(module)),
    "make_fx": (TRACED, make_fx),
    "fake tensors": (TRACED, faked),
    "functionalize": (TRACED, lambda module, input: torch.func.functionalize(module)(input)),
    "vectorized jacobian": (
        "with is_grads_batched=True or vectorize=True; use torch.func",
        lambda module, input: torch.autograd.functional.jacobian(module, input, vectorize=True),
    ),
    "no examples": ("over no examples", lambda module, input: torch.vmap(module)(input.new_zeros(0, 4, 2, 3))),
    "lengths": (
        "lengths of packed input cannot be mapped over",
        lambda module, input: torch.vmap(lambda sizes: module.recurrent(PackedSequence(input[0], sizes))[0].data)(
            torch.tensor([[1, 1], [1, 1]])
        ),
    ),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("how", list(REFUSED_TRANSFORMS))
def test_what_cannot_go_through_a_transform_says_so(how):
    message, transform = REFUSED_TRANSFORMS[how]
    with pytest.raises(RuntimeError, match=message):
        transform(Wrapped(interop.LSTM(3, 5)), torch.randn(4, 2, 3))


def test_inputs_that_are_not_contiguous():
    theirs, ours = twins("LSTM", 3, 5, dtype=torch.float64)
    input = torch.randn(3, 7, 5, dtype=torch.float64, requires_grad=True)
    hx = [torch.randn(5, 5, 1, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    strided = tuple(h.permute(2, 1, 0) for h in hx)
    assert_alike(theirs, ours, (input.permute(1, 2, 0), strided), [input, *hx])
    expanded = torch.randn(7, 1, 3, dtype=torch.float64, requires_grad=True)
    assert_alike(theirs, ours, (expanded.expand(7, 5, 3),), [expanded])
    with torch.no_grad():
        assert torch.equal(ours(torch._neg_view(expanded))[0], ours(-expanded)[0])


def test_no_sequences_and_no_steps():
    ours = interop.LSTM(3, 5)
    output, (h_n, _) = ours(torch.zeros(4, 0, 3))
    assert output.shape == (4, 0, 5)
    assert h_n.shape == (1, 0, 5)
    output.sum().backward()
    hx = (torch.randn(1, 2, 5), torch.randn(1, 2, 5))
    output, (h_n, _) = ours(torch.zeros(0, 2, 3), hx)
    assert output.shape == (0, 2, 5)
    assert torch.equal(h_n, hx[0])


# -- parameters, whoever changes them ----------------------------------------------------------------------------------

CHANGES = {
    "in place": lambda p: p.mul_(1.5),
    "through .data": lambda p: p.data.mul_(1.5),
    "through an array": lambda p: np.multiply(p.numpy(), 1.5, out=p.numpy()),
    "one entry": lambda p: p.view(-1)[-1].fill_(3.0),
    "other memory": lambda p: setattr(p, "data", p * 1.5),
}


@pytest.mark.parametrize("name", ["weight_ih_l0", "bias_hh_l1"])
@pytest.mark.parametrize("change", list(CHANGES))
def test_a_changed_parameter_is_seen_by_the_next_call(change, name):
    theirs, ours = twins("LSTM", 3, 5, num_layers=2)
    input = torch.randn(4, 2, 3)
    with torch.no_grad():
        before, _ = ours(input)
        for module in (theirs, ours):
            CHANGES[change](getattr(module, name))
        assert not torch.equal(ours(input)[0], before)
    assert_alike(theirs, ours, (input,), [])


def test_weights_are_packed_again_only_if_they_have_changed():
    ours = interop.LSTM(3, 5)
    input = torch.randn(4, 2, 3)
    ours(input)
    packed = ours._prepared.weights
    ours(input)
    assert ours._prepared.weights is packed
    with torch.no_grad():
        ours.weight_hh_l0.add_(1)
    ours(input)
    assert ours._prepared.weights is not packed


def test_an_exchanged_parameter_is_seen():
    theirs, ours = twins("GRU", 3, 5)
    ours(torch.randn(4, 2, 3))
    for module in (theirs, ours):
        module.weight_hh_l0 = torch.nn.Parameter(torch.eye(5).repeat(3, 1))
    assert_alike(theirs, ours, (torch.randn(4, 2, 3),), [])
    ours.weight_hh_l0 = torch.nn.Parameter(torch.eye(5))
    with pytest.raises(RuntimeError, match=r"weight_hh_l0 must have shape \(15, 5\)"):
        ours(torch.randn(4, 2, 3))


def test_another_dtype_is_seen():
    theirs, ours = twins("GRU", 3, 5)
    ours(torch.randn(4, 2, 3))
    assert_alike(theirs.double(), ours.double(), (torch.randn(4, 2, 3, dtype=torch.float64),), [])


def test_a_parameter_of_nan_gives_what_pytorch_gives():
    """So that a training run that diverges is seen to diverge; layers of this library refuse such parameters."""
    theirs, ours = twins("GRU", 3, 5)
    with torch.no_grad():
        for module in (theirs, ours):
            module.weight_hh_l0[1, 2] = torch.nan
        input, hx = torch.rand(4, 2, 3), torch.rand(1, 2, 5)
        torch.testing.assert_close(ours(input, hx), theirs(input, hx), equal_nan=True)


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
@pytest.mark.parametrize("norm", [torch.nn.utils.parametrizations.weight_norm, torch.nn.utils.weight_norm])
def test_computed_parameters_get_their_gradients(norm):
    theirs, ours = twins("LSTM", 3, 5, dtype=torch.float64)
    for module in (theirs, ours):
        norm(module, "weight_hh_l0")
    assert_alike(theirs, ours, (torch.randn(4, 2, 3, dtype=torch.float64),), [])
    assert parametrize.is_parametrized(ours) == (norm is torch.nn.utils.parametrizations.weight_norm)


def parametrized(module):
    torch.nn.utils.parametrizations.weight_norm(module, "weight_hh_l0")
    return module


def test_accelerate_takes_modules_with_parametrizations_and_leaves_their_copies_as_they_are():
    theirs = parametrized(torch.nn.LSTM(3, 5, dtype=torch.float64))
    ours = copy.deepcopy(theirs)
    assert interop.accelerate(ours).replaced == ("",)
    assert isinstance(ours, interop.LSTM) and not isinstance(theirs, interop.LSTM)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert_alike(theirs, ours, (torch.randn(4, 2, 3, dtype=torch.float64),), [])
    assert interop.accelerate(ours).left == {"": "runs on numba_pack already"}
    parametrize.remove_parametrizations(ours, "weight_hh_l0")
    assert type(ours) is interop.LSTM


def test_accelerate_takes_no_step_of_what_a_parametrization_iterates():
    theirs = torch.nn.utils.parametrizations.spectral_norm(torch.nn.GRU(3, 5), "weight_hh_l0")
    ours = copy.deepcopy(theirs)
    assert interop.accelerate(ours).replaced == ("",)
    expected = theirs.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in ours.state_dict().items())
    input = torch.randn(4, 2, 3)
    torch.testing.assert_close(ours.eval()(input), theirs.eval()(input))


def test_a_copy_of_a_module_with_parametrizations_has_nothing_prepared_in_the_memory_of_another():
    ours = parametrized(interop.GRU(3, 5))
    expected = ours(torch.ones(4, 2, 3))
    copied = copy.deepcopy(ours)
    assert ours._prepared is not None and copied._prepared is None
    torch.testing.assert_close(copied(torch.ones(4, 2, 3)), expected)


# -- as PyTorch's modules do -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_signatures_are_those_of_pytorch(kind):
    ours = inspect.signature(getattr(interop, kind))
    documented = re.search(r"__init__\(([^)]*)\)", getattr(torch.nn, kind).__doc__)[1]
    assert list(ours.parameters) == [part.split("=")[0].strip() for part in documented.split(",")]
    positional = [3, 5, 2] + ["relu"] * (kind == "RNN") + [False, True, 0.5, True] + [2] * (kind == "LSTM")
    assert repr(getattr(interop, kind)(*positional)) == repr(getattr(torch.nn, kind)(*positional))


@pytest.mark.parametrize("copied", [copy.deepcopy, copy.copy, lambda module: pickle.loads(pickle.dumps(module))])
def test_copies_and_pickles_work_alike_and_alone(copied, tmp_path):
    ours = interop.LSTM(3, 5, num_layers=2)
    input = torch.randn(4, 2, 3)
    expected, _ = ours(input)
    other = copied(ours)
    assert type(other) is interop.LSTM
    assert other._prepared is None
    assert torch.equal(other(input)[0], expected)
    torch.save(ours, tmp_path / "module.pt")
    assert torch.equal(torch.load(tmp_path / "module.pt", weights_only=False)(input)[0], expected)


def test_state_dicts_go_both_ways():
    theirs, ours = twins("LSTM", 3, 5, proj_size=2, bidirectional=True)
    assert list(theirs.state_dict()) == list(ours.state_dict())
    theirs.load_state_dict(ours.state_dict())
    assert type(interop.from_torch(ours)) is nbp.LSTM


def test_dropout_is_active_in_training_alone_and_follows_the_seed():
    ours = interop.GRU(3, 50, num_layers=2, dropout=0.5)
    input = torch.randn(4, 2, 3)

    def call():
        torch.manual_seed(5)
        return ours(input)[0].detach()

    first = call()
    assert torch.equal(call(), first)
    assert not torch.equal(ours(input)[0], first)
    with torch.no_grad():
        assert torch.equal(call(), first)  # without gradients, too
    ours.eval()
    assert torch.equal(ours(input)[0], ours(input)[0])
    ours.dropout = 0.0
    assert torch.equal(ours.train()(input)[0], ours.eval()(input)[0])


def test_checkpointing_gives_the_same_gradients():
    ours = interop.LSTM(3, 5, num_layers=2, dropout=0.5)
    input = torch.randn(4, 2, 3, requires_grad=True)

    def gradients(call):
        torch.manual_seed(5)
        return torch.autograd.grad(call(input)[0].sum(), [input, *ours.parameters()])

    expected = gradients(ours)
    for reentrant in (False, True):
        if reentrant:  # which knows backward() alone
            torch.manual_seed(5)
            torch.utils.checkpoint.checkpoint(ours, input, use_reentrant=True)[0].sum().backward()
            got = [input.grad, *(parameter.grad for parameter in ours.parameters())]
        else:
            got = gradients(lambda input: torch.utils.checkpoint.checkpoint(ours, input, use_reentrant=False))
        helpers.assert_same_bits([t.numpy() for t in got], [t.numpy() for t in expected])


@pytest.mark.parametrize("kind", KINDS)
def test_the_first_call_may_be_checkpointed(kind):
    """PyTorch wants the second to keep as many tensors; and so after the module was turned into another dtype."""
    ours = getattr(interop, kind)(3, 5)
    for dtype in (torch.float32, torch.float64):
        ours.to(dtype)
        input = torch.randn(4, 2, 3, dtype=dtype, requires_grad=True)
        output = torch.utils.checkpoint.checkpoint(lambda input: ours(input)[0], input, use_reentrant=False)
        (found,) = torch.autograd.grad(output.sum(), input)
        assert torch.equal(found, torch.autograd.grad(ours(input)[0].sum(), input)[0])


def test_what_is_kept_is_freed_by_the_backward_pass():
    ours = interop.LSTM(3, 5)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor.numel()) or tensor, lambda t: t):
        output, _ = ours(torch.randn(4, 2, 3))
    assert sum(kept) > 4 * 2 * 4 * 5  # gates are among what hooks see
    node = output.grad_fn
    while type(node).__name__ != "ScanBackward":
        node = node.next_functions[0][0]
    output.sum().backward()
    with pytest.raises(RuntimeError, match="freed"):
        _ = node.saved_tensors


def test_autocast_computes_in_the_dtype_of_the_parameters():
    ours = interop.GRU(3, 5)
    input = torch.randn(4, 2, 3, dtype=torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        output, _ = ours(input)
    assert torch.equal(output, ours(input.float())[0])
    assert output.dtype == torch.float32


def test_hooks_are_called():
    ours = interop.GRU(3, 5)
    called = []
    ours.register_forward_pre_hook(lambda module, arguments: called.append("before"))
    ours.register_forward_hook(lambda module, arguments, result: called.append("after"))
    ours.weight_ih_l0.register_hook(lambda gradient: called.append("gradient"))
    ours(torch.randn(4, 2, 3))[0].sum().backward()
    assert called == ["before", "after", "gradient"]


def test_torch_compile_leaves_it_as_it_is():
    ours = interop.GRU(3, 5)
    model = torch.nn.Sequential(torch.nn.Linear(3, 3), ours)
    compiled = torch.compile(model, backend="eager")
    input = torch.randn(4, 2, 3)
    assert torch.equal(compiled(input)[0], model(input)[0])
    compiled(input)[0].sum().backward()
    with torch.no_grad():
        ours.weight_ih_l0.mul_(2)
        assert torch.equal(compiled(input)[0], model(input)[0])


def test_no_more_threads_are_used_than_pytorch_may_use(monkeypatch):
    used, infer = [], engine.infer
    monkeypatch.setattr(engine, "infer", lambda *given: used.append(nbp.get_num_threads()) or infer(*given))
    with torch.no_grad(), nbp.threads(8):
        for n in (1, 2):
            torch.set_num_threads(n)
            interop.GRU(3, 5)._run(torch.zeros(0, 3), np.zeros(0, np.int64), np.zeros(0, np.int64), (None, None))
    assert used == [1, 2]


def test_parameters_are_packed_by_no_more_threads_than_pytorch_may_use(monkeypatch):
    used, parts = [], packer._parts
    monkeypatch.setattr(packer, "_parts", lambda nbytes: used.append(nbp.get_num_threads()) or parts(nbytes))
    with torch.no_grad(), nbp.threads(8):
        for n in (1, 2):
            torch.set_num_threads(n)
            used.clear()
            ours = interop.GRU(3, 5)
            ours(torch.zeros(4, 3))
            ours.weight_hh_l0.add_(1)
            ours(torch.zeros(4, 3))
            assert set(used) == {n}


# -- PyTorch's own samples ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def common_modules():
    reason = "PyTorch's samples of modules need expecttest"
    with pytest.MonkeyPatch.context() as patch:
        if sys.version_info < (3, 12):  # setuptools, which they import, refuses the distutils that a test has imported
            patch.setenv("SETUPTOOLS_USE_DISTUTILS", "stdlib")
        return pytest.importorskip("torch.testing._internal.common_modules", reason=reason, exc_type=ImportError)


def module_info(common_modules, kind):
    return next(info for info in common_modules.module_db if info.module_cls is getattr(torch.nn, kind))


@pytest.mark.parametrize("training", [True, False], ids=["training", "eval"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", KINDS)
def test_module_samples_of_pytorch(kind, dtype, training, common_modules):
    """As PyTorch's test_modules.py: forward against the reference, and here against PyTorch's module, gradients too."""
    info = module_info(common_modules, kind)
    samples = info.module_inputs_func(info, "cpu", dtype, True, training, with_packed_sequence=True)
    assert len(samples) >= 16
    for sample in samples:
        sizes, options = sample.constructor_input.args, sample.constructor_input.kwargs
        theirs, ours = (module.train(training) for module in twins(kind, *sizes, **options, dtype=dtype))
        arguments = sample.forward_input.args
        assert_alike(theirs, ours, arguments, flat(arguments))
        if not isinstance(arguments[0], PackedSequence):
            got, expected = ours(*arguments), sample.reference_fn(ours, *arguments)
            torch.testing.assert_close(flat(got), flat(expected))
        for copied in (copy.deepcopy(ours), pickle.loads(pickle.dumps(ours))):
            torch.testing.assert_close(flat(copied(*arguments)), flat(ours(*arguments)), rtol=0, atol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_module_samples_of_pytorch_pass_gradcheck(kind, common_modules):
    info = module_info(common_modules, kind)
    for sample in info.module_inputs_func(info, "cpu", torch.float64, True, True, with_packed_sequence=True):
        options = sample.constructor_input.kwargs
        ours = getattr(interop, kind)(*sample.constructor_input.args, **options, dtype=torch.float64)
        arguments = sample.forward_input.args

        def call(data, *parameters, ours=ours, arguments=arguments):
            first, *rest = arguments
            first = first._replace(data=data) if isinstance(first, PackedSequence) else data
            return flat(ours(first, *rest))

        data = flat(arguments)[0].detach().requires_grad_()
        assert torch.autograd.gradcheck(call, (data, *ours.parameters()), fast_mode=True)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", KINDS)
def test_error_samples_of_pytorch(kind, dtype, common_modules):
    info = module_info(common_modules, kind)
    for sample in info.module_error_inputs_func(info, "cpu", dtype, True, True):
        constructor, forward = sample.module_error_input.constructor_input, sample.module_error_input.forward_input

        def make(constructor=constructor):
            return getattr(interop, kind)(*constructor.args, **constructor.kwargs)

        module = make() if sample.error_on is common_modules.ModuleErrorEnum.FORWARD_ERROR else None
        with pytest.raises(sample.error_type, match=sample.error_regex):
            module(*forward.args, **forward.kwargs) if module else make()


WRONG = {
    "input of 4 dimensions": (torch.zeros(1, 4, 2, 3),),
    "input of another size": (torch.zeros(4, 2, 4),),
    "input of another dtype": (torch.zeros(4, 2, 3, dtype=torch.float64),),
    "hx of 2 dimensions": (torch.zeros(4, 2, 3), torch.zeros(1, 5)),
    "hx of 3 dimensions": (torch.zeros(4, 3), torch.zeros(1, 1, 5)),
    "hx of another batch": (torch.zeros(4, 2, 3), torch.zeros(1, 3, 5)),
    "hx of another dtype": (torch.zeros(4, 2, 3), torch.zeros(1, 2, 5, dtype=torch.float64)),
}


@pytest.mark.parametrize("wrong", list(WRONG))
@pytest.mark.parametrize("kind", KINDS)
def test_wrong_arguments_raise_as_in_pytorch(kind, wrong):
    theirs, ours = twins(kind, 3, 5)
    input, *hx = WRONG[wrong]
    arguments = (input, *([(hx[0], hx[0])] if hx and kind == "LSTM" else hx))
    with pytest.raises((RuntimeError, ValueError)) as expected:
        theirs(*arguments)
    with pytest.raises(expected.type):
        ours(*arguments)


def test_a_damaged_packed_sequence_is_refused():
    packed, _ = make_input("packed", 3, torch.float32)
    with pytest.raises(ValueError, match=r"input.batch_sizes must sum to the rows of data"):
        interop.LSTM(3, 5)(packed._replace(batch_sizes=packed.batch_sizes[:-1]))
    with pytest.raises(ValueError, match=r"input.unsorted_indices must be the inverse permutation"):
        interop.LSTM(3, 5)(packed._replace(sorted_indices=packed.sorted_indices.flip(0)))


def test_other_devices_and_dtypes_are_refused():
    with pytest.raises(ValueError, match="device must be the CPU"):
        interop.LSTM(3, 5, device="meta")
    with torch.device("meta"), pytest.raises(ValueError, match="device must be the CPU"):
        interop.LSTM(3, 5)
    with pytest.raises(TypeError, match=r"dtype must be torch.float32, .* or float16; got torch.complex64"):
        interop.LSTM(3, 5, dtype=torch.complex64)
    with pytest.raises(RuntimeError, match=r"got a tensor of torch.float32 on meta"):
        interop.LSTM(3, 5).to("meta")(torch.zeros(4, 2, 3, device="meta"))
    with pytest.raises(RuntimeError, match=r"got a tensor of torch.bfloat16 on meta"):
        interop.LSTM(3, 5).bfloat16().to("meta")(torch.zeros(4, 2, 3, dtype=torch.bfloat16, device="meta"))


def test_what_is_no_tensor_is_refused_with_the_place_that_it_is_from():
    ours = interop.LSTM(3, 5)
    for input, message in (
        (
            nbp.pack_sequence([np.ones((2, 3), np.float32)]),
            r"PackedSequence, as .*; got numba_pack\.packing\.sequences\.PackedSequence",
        ),
        (np.ones((4, 2, 3), np.float32), "PackedSequence, as .*; got numpy.ndarray"),
        (
            torch.nested.nested_tensor([torch.ones(2, 3), torch.ones(4, 3)]),
            "PackedSequence, as .*; got a nested tensor",
        ),
    ):
        with pytest.raises(TypeError, match=f"input must be a Tensor or PyTorch's {message}"):
            ours(input)
    for hx in (3, torch.ones(2, 1, 2, 5), (torch.ones(1, 2, 5), np.ones(3))):
        with pytest.raises(TypeError, match="hx must be a tuple of two tensors; got"):
            ours(torch.ones(4, 2, 3), hx)
    with pytest.raises(RuntimeError, match=r"this one is torch\.sparse_coo, not dense"):
        ours(torch.ones(4, 2, 3).to_sparse())


# -- a whole model -----------------------------------------------------------------------------------------------------


STEPS = 40


class Tagger(torch.nn.Module):
    """Words in, tags out; all of it packed."""

    def __init__(self, kind, words=8, tags=4):
        super().__init__()
        self.embedding = torch.nn.Embedding(words, 8)
        self.encoder = getattr(torch.nn, kind)(8, 6, num_layers=2, bidirectional=True, dropout=0.0)
        self.out = torch.nn.Linear(12, tags)

    def forward(self, words):
        packed = pack_sequence([self.embedding(sentence) for sentence in words], enforce_sorted=False)
        return self.out(self.encoder(packed)[0].data)


def training_run(model, optimizer, accelerate_at=None):
    """The losses of some steps on a few sentences; the tag of a word depends on the word before."""
    generator = torch.Generator().manual_seed(3)
    words = [torch.randint(8, (n,), generator=generator) for n in (5, 9, 1, 7)]
    tags = pack_sequence([torch.cat([word[:1], word[:-1]]) % 4 for word in words], enforce_sorted=False).data

    def closure():
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(words), tags)
        loss.backward()
        return loss

    losses = []
    for step in range(STEPS):
        if step == accelerate_at:
            interop.accelerate(model)
        losses.append(optimizer.step(closure).item())
    return losses


OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, 0.2, momentum=0.9),
    "adam": lambda p: torch.optim.Adam(p, 0.02),
    "adam-foreach": lambda p: torch.optim.Adam(p, 0.02, foreach=True),
    "adam-fused": lambda p: torch.optim.Adam(p, 0.02, fused=True),
    "lbfgs": lambda p: torch.optim.LBFGS(p, 0.1, max_iter=2),
}


@pytest.mark.parametrize("optimizer", list(OPTIMIZERS))
@pytest.mark.parametrize("kind", KINDS)
def test_training_follows_the_losses_of_the_original(kind, optimizer):
    """Accelerated on the way, with the optimizer and its moments as they are; float64, so that rounding stays small.

    A step of training may magnify what the steps before it rounded: here all steps together by less than 10**5.
    """
    original = Tagger(kind).double()
    model = copy.deepcopy(original)
    expected = training_run(original, OPTIMIZERS[optimizer](original.parameters()))
    got = training_run(model, OPTIMIZERS[optimizer](model.parameters()), accelerate_at=5)
    assert type(model.encoder) is getattr(interop, kind)
    assert expected[-1] < 0.9 * expected[0]
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e5 * np.finfo(np.float64).eps)


def test_accelerate_keeps_modules_parameters_and_hooks():
    model = Tagger("LSTM")
    encoder, parameters, state_dict = model.encoder, list(model.parameters()), copy.deepcopy(model.state_dict())
    called = []
    encoder.register_forward_hook(lambda *_: called.append("after"))
    report = interop.accelerate(model)
    assert report == (("encoder",), {})
    assert str(report) == "encoder: replaced"
    assert model.encoder is encoder
    assert type(encoder) is interop.LSTM
    assert all(one is other for one, other in zip(model.parameters(), parameters, strict=True))
    assert list(model.state_dict()) == list(state_dict)
    model([torch.tensor([1, 2])])
    assert called == ["after"]


def test_accelerate_takes_a_bare_module_and_finds_nothing_to_do_twice():
    lstm = torch.nn.LSTM(3, 5)
    assert str(interop.accelerate(lstm)) == "the model itself: replaced"
    assert interop.accelerate(lstm) == ((), {"": "runs on numba_pack already"})
    assert str(interop.accelerate(torch.nn.Linear(3, 5))) == "no recurrent modules"
    with pytest.raises(TypeError, match=r"model must be a torch.nn.Module; got list"):
        interop.accelerate([lstm])


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_accelerate_tells_what_it_leaves_and_why():
    class Peephole(torch.nn.LSTM):
        pass

    patched = torch.nn.GRU(3, 5)
    patched.forward = lambda *_: None
    model = torch.nn.ModuleDict(
        {
            "fine": torch.nn.RNN(3, 5),
            "linear": torch.nn.Linear(3, 5),
            "cell": torch.nn.LSTMCell(3, 5),
            "subclass": Peephole(3, 5),
            "patched": patched,
            "unreal": torch.nn.GRU(3, 5, dtype=torch.complex64),
            "elsewhere": torch.nn.GRU(3, 5, device="meta"),
            "parametrized subclass": parametrized(Peephole(3, 5)),
            "incomplete": without(torch.nn.LSTM(3, 5), "bias_hh_l0"),
            "quantized cell, in another way": torch.ao.nn.quantizable.LSTMCell(3, 5),
            "quantized, patched": with_forward(torch.ao.nn.quantized.dynamic.LSTM(3, 5)),
            "quantized cell": torch.ao.nn.quantized.dynamic.GRUCell(3, 5),
            "scripted": torch.jit.script(torch.nn.LSTM(3, 5)),
            "traced": torch.jit.trace(torch.nn.LSTM(3, 5), torch.ones(4, 2, 3)),
            "frozen": torch.jit.freeze(torch.jit.script(Wrapped(torch.nn.LSTM(3, 5)).eval())),
            "exported": torch.export.export(torch.nn.LSTM(3, 5), (torch.ones(4, 2, 3),)).module(),
        }
    )
    classes = {name: type(module) for name, module in model.items()}
    replaced, left = interop.accelerate(model)
    assert replaced == ("fine",)
    for name, reason in {
        "cell": "a cell",
        "subclass": "Peephole is a class of its own",
        "patched": "its forward is not that of its class",
        "unreal": "weight_ih_l0 is torch.complex64",
        "elsewhere": "weight_ih_l0 is on meta",
        "parametrized subclass": "ParametrizedPeephole is a class of its own",
        "incomplete": "bias_hh_l0 is NoneType, not a tensor",
        "quantized cell, in another way": "quantized: torch.ao.nn.quantizable.modules.rnn.LSTMCell",
        "quantized, patched": "its forward is not that of its class",
        "quantized cell": "a quantized cell",
        "scripted": "TorchScript, which runs by itself: use the model that it was made of, or layers that from_torch",
        "traced": "TorchScript",
        "frozen": "TorchScript",
        "exported": "a graph, which runs by itself",
    }.items():
        assert reason in left.pop(name)
        assert type(model[name]) is classes[name]
    assert not left


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_a_class_of_pytorch_whose_forward_was_exchanged_is_left(monkeypatch):
    own = torch.nn.GRU.forward
    monkeypatch.setattr(torch.nn.GRU, "forward", lambda self, *arguments: own(self, *arguments))
    module = torch.nn.GRU(3, 5)
    assert interop.accelerate(module) == ((), {"": "the forward of torch.nn.GRU is not PyTorch's own"})
    with pytest.raises(TypeError, match=r"the forward of torch\.nn\.GRU is not PyTorch's own"):
        interop.from_torch(module)


def test_in_a_scripted_model_each_recurrent_module_is_told():
    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn, self.cell = torch.nn.LSTM(4, 5), torch.nn.LSTMCell(4, 5)

        def forward(self, x):
            return self.rnn(x)[0], self.cell(x[0])

    assert list(interop.accelerate(torch.jit.script(Model())).left) == ["rnn", "cell"]
    assert not interop.accelerate(torch.jit.script(torch.nn.Linear(3, 5))).left


@pytest.mark.filterwarnings("ignore:torch.ao.quantization is deprecated:DeprecationWarning")
def test_to_quantize_what_is_accelerated_changes_nothing_and_warns():
    model = torch.nn.Sequential(torch.nn.LSTM(3, 4))
    interop.accelerate(model)
    with pytest.warns(UserWarning, match=r"numba_pack\.interop\.torch\.LSTM stays as it is.*before `accelerate`"):
        quantized = torch.ao.quantization.quantize_dynamic(model, {torch.nn.LSTM}, dtype=torch.qint8)
    assert type(quantized[0]) is interop.LSTM
    x = torch.randn(5, 2, 3)
    assert torch.equal(quantized(x)[0], model(x)[0])


def test_a_shared_module_is_replaced_wherever_it_stands():
    shared = torch.nn.GRU(3, 3)
    model = torch.nn.Sequential(shared, shared)
    assert interop.accelerate(model).replaced == ("0",)
    assert type(model[1]) is interop.GRU


# -- imports -----------------------------------------------------------------------------------------------------------


def run_python(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_the_package_does_not_import_pytorch():
    done = run_python("import sys, numba_pack; assert 'torch' not in sys.modules; numba_pack.interop.torch.LSTM(3, 5)")
    assert done.returncode == 0, done.stderr


def test_without_pytorch_the_error_tells_what_to_install():
    done = run_python("import sys; sys.modules['torch'] = None; import numba_pack; numba_pack.interop.torch")
    assert "ImportError: numba_pack.interop.torch needs PyTorch: pip install torch" in done.stderr
