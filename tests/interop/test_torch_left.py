"""Training calls of few steps, which are left to PyTorch: which ones, and that all else about a module is as it was."""

import copy

import pytest

torch = pytest.importorskip("torch", reason="what is tested here is what is left to PyTorch")

from numba_pack.interop import torch as interop  # noqa: E402

INPUTS, H, B = 6, 10, 3


@pytest.fixture
def nothing_is_left():
    """In place of the one of all other tests."""


def twins(kind, inputs=INPUTS, units=H, **options):
    theirs = getattr(torch.nn, kind)(inputs, units, **options)
    ours = copy.deepcopy(theirs)
    interop.accelerate(ours)
    return theirs, ours


def flat(results):
    output, state = results
    output = output.data if isinstance(output, torch.nn.utils.rnn.PackedSequence) else output
    return [output, *(state if isinstance(state, tuple) else (state,))]


def trained(module, *arguments):
    """The results of a call, and the gradients of its parameters."""
    module.zero_grad()
    results = flat(module(*arguments))
    sum((result * result).sum() for result in results).backward()
    return [*results, *(parameter.grad for parameter in module.parameters())]


def same(found, expected):
    return all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def is_theirs(results):
    """Whether PyTorch's own operators have computed them."""
    seen, ahead = set(), [result.grad_fn for result in flat(results)]
    while ahead:
        node = ahead.pop()
        if node is not None and node not in seen:
            seen.add(node)
            ahead += [following for following, _ in node.next_functions]
    return any(type(node).__name__.startswith(("Tanh", "Mkldnn", "ThnnFused")) for node in seen)


def packed(steps, kind="float32"):
    sequences = [torch.randn(n, INPUTS, dtype=getattr(torch, kind)) for n in (1, steps, 1)]
    return torch.nn.utils.rnn.pack_sequence(sequences, enforce_sorted=False)


@pytest.mark.parametrize("options", [{}, {"batch_first": True}, {"bidirectional": True, "bias": False}], ids=str)
@pytest.mark.parametrize("given", [False, True], ids=["zeros", "hx"])
def test_a_training_step_of_one_step_has_the_bits_of_pytorch(options, given):
    theirs, ours = twins("RNN", **options)
    scans = 2 if theirs.bidirectional else 1
    x, h = (
        torch.randn(B, 1, INPUTS).view((B, 1, INPUTS) if theirs.batch_first else (1, B, INPUTS)),
        torch.randn(scans, B, H),
    )
    arguments = (x, h) if given else (x,)
    assert same(trained(ours, *arguments), trained(theirs, *arguments))
    alone = x.reshape(B, INPUTS)[:1]
    assert same(trained(ours, alone), trained(theirs, alone))


@pytest.mark.parametrize("kind, steps", [("RNN", 7), ("GRU", 4), ("LSTM", 4)])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_packed_sequences_of_few_steps_are_left(kind, steps, dtype):
    theirs, ours = twins(kind, dtype=getattr(torch, dtype))
    few, more = packed(steps, dtype), packed(steps + 1, dtype)
    assert same(trained(ours, few), trained(theirs, few))
    assert is_theirs(ours(few)) and not is_theirs(ours(more))


def test_the_more_weights_the_more_steps_are_left():
    x = {steps: torch.randn(steps, 1, 200) for steps in (1, 2, 3)}
    _, rnn = twins("RNN", 200, 200)
    _, gru = twins("GRU", 200, 200)
    _, lstm = twins("LSTM", 200, 200)
    assert [is_theirs(rnn(x[steps])) for steps in x] == [True, False, False]
    assert [is_theirs(gru(x[steps])) for steps in x] == [True, True, False]
    assert [is_theirs(lstm(x[steps])) for steps in x] == [False, False, False]
    _, small = twins("GRU")
    assert not is_theirs(small(torch.randn(1, B, INPUTS)))


def test_inference_of_one_step_is_not_left_and_sees_what_training_made_of_the_parameters():
    _, ours = twins("RNN")
    optimizer, x = torch.optim.SGD(ours.parameters(), 0.1), torch.randn(5, B, INPUTS)
    for _ in range(3):
        trained(ours, x[:1])
        optimizer.step()
        with torch.no_grad():
            sequence, h = ours(x)[0], None
            for t in range(5):
                output, h = ours(x[t : t + 1], h)
                assert torch.equal(output[0], sequence[t])
    theirs = torch.nn.RNN(INPUTS, H)
    theirs.load_state_dict(ours.state_dict())
    torch.testing.assert_close(sequence, theirs(x)[0])


@pytest.mark.parametrize(
    "change",
    [
        lambda module: module.requires_grad_(False),
        lambda module: module.bfloat16(),
        lambda module: torch.nn.utils.parametrizations.weight_norm(module, "weight_hh_l0"),
    ],
    ids=["no gradient", "halves", "computed"],
)
def test_what_is_not_usual_is_not_left(change):
    _, ours = twins("RNN")
    change(ours)
    assert not is_theirs(ours(torch.randn(1, B, INPUTS).to(ours.weight_ih_l0.dtype)))


def test_frozen_modules_give_the_gradient_of_their_input_here():
    ours = torch.nn.RNN(INPUTS, H)
    interop.accelerate(ours, frozen=True)
    assert not is_theirs(ours(torch.randn(1, B, INPUTS, requires_grad=True)))


def test_dropout_is_drawn_here_while_training():
    _, ours = twins("RNN", num_layers=2, dropout=0.5)
    x = torch.randn(1, B, INPUTS)
    assert not is_theirs(ours(x))
    assert is_theirs(ours.eval()(x))


def test_autocast_does_not_change_the_dtype():
    _, ours = twins("RNN")
    with torch.autocast("cpu", torch.bfloat16):
        results = ours(torch.randn(1, B, INPUTS))
    assert results[0].dtype == torch.float32 and not is_theirs(results)


def test_what_is_left_can_be_differentiated_again():
    theirs, ours = twins("RNN")
    x = torch.randn(1, B, INPUTS, requires_grad=True)
    second = []
    for module in (theirs, ours):
        (first,) = torch.autograd.grad(module(x)[0].sum(), x, create_graph=True)
        second.append(torch.autograd.grad((first * first).sum(), x)[0])
    assert torch.equal(*second)


def test_hooks_are_called_once():
    _, ours = twins("GRU", 100, 100)
    calls = []
    ours.register_forward_pre_hook(lambda *_: calls.append("before"))
    ours.register_forward_hook(lambda *_: calls.append("after"))
    ours.register_full_backward_hook(lambda *_: calls.append("back"))
    results = ours(torch.randn(1, B, 100, requires_grad=True))
    assert is_theirs(results)
    results[0].sum().backward()
    assert calls == ["before", "after", "back"]


def test_functional_call_computes_with_the_tensors_that_it_is_given():
    theirs, ours = twins("RNN")
    given = {name: (2 * value).detach().requires_grad_() for name, value in theirs.named_parameters()}
    x = torch.randn(1, B, INPUTS)
    found = [torch.func.functional_call(module, given, (x,))[0] for module in (theirs, ours)]
    torch.testing.assert_close(*found)
    gradients = [torch.autograd.grad(output.sum(), list(given.values())) for output in found]
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize(
    "arguments",
    [
        (torch.randn(1, B, INPUTS + 1),),
        (torch.randn(1, B, INPUTS).double(),),
        (torch.randn(1, B, INPUTS), torch.randn(1, B, H + 1)),
        (torch.randn(1, B, INPUTS), torch.randn(1, H)),
        (torch.randn(1, 1, B, INPUTS),),
    ],
    ids=["inputs", "dtype", "units", "dimensions of hx", "dimensions"],
)
def test_what_is_wrong_is_told_as_pytorch_tells_it(arguments):
    theirs, ours = twins("RNN")
    with pytest.raises((RuntimeError, ValueError)) as told:
        theirs(*arguments)
    with pytest.raises(type(told.value)):
        ours(*arguments)


@pytest.mark.parametrize("kind", ["RNN", "GRU", "LSTM"])
@pytest.mark.parametrize("sequences", [1, 3])
@pytest.mark.parametrize("given", [False, True], ids=["zeros", "hx"])
def test_packed_sequences_of_equal_lengths_have_the_bits_of_padded_ones(kind, sequences, given):
    _, ours = twins(kind)
    x, h = torch.randn(9, sequences, INPUTS), torch.randn(1, sequences, H)
    hx = (((h, h + 1) if kind == "LSTM" else h),) if given else ()
    trained(ours, x, *hx)
    as_packed = torch.nn.utils.rnn.pack_padded_sequence(x, torch.full((sequences,), 9), enforce_sorted=False)
    found, expected = trained(ours, as_packed, *hx), trained(ours, x, *hx)
    assert same(found, [expected[0].flatten(0, 1), *expected[1:]])
    assert not is_theirs(ours(as_packed, *hx))
