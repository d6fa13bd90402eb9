"""Parameters that are compared by marks, or never: what calls of few steps see of a change, and what they give."""

import copy
import gc
import pickle
import weakref

import numpy as np
import pytest

import numba_pack as nbp

torch = pytest.importorskip("torch", reason="what is tested here is the exchange with PyTorch")

from numba_pack.interop import _torch_few  # noqa: E402
from numba_pack.interop import _torch_prepared as prepared  # noqa: E402
from numba_pack.interop import torch as interop  # noqa: E402

KINDS = ["RNN", "LSTM", "GRU"]
#: of which the weights have more entries than are compared
H = 40


def flat(results):
    output, state = results
    return [output, *(state if isinstance(state, tuple) else (state,))]


def equal(one, other):
    return all(torch.equal(a, b) for a, b in zip(flat(one), flat(other), strict=True))


def twins(kind, **options):
    """PyTorch's module, and the same on this library, which has made a call, so that its parameters are packed."""
    theirs = getattr(torch.nn, kind)(H, H, **options).eval()
    ours = copy.deepcopy(theirs)
    interop.accelerate(ours)
    with torch.no_grad():
        ours(torch.randn(1, 1, H))
    return theirs, ours


def states(module, *batch):
    h = torch.randn(module.num_layers * (1 + module.bidirectional), *batch, H)
    return (h, h.clone()) if isinstance(module, torch.nn.LSTM) else h


def step_of(make):
    def change(module):
        for parameter in module.parameters():
            parameter.grad = torch.linspace(-1, 1, parameter.numel()).view_as(parameter)
        make(module.parameters()).step()

    return change


def vector_into(module):
    vector = torch.nn.utils.parameters_to_vector(module.parameters())
    torch.nn.utils.vector_to_parameters(1.5 * vector, module.parameters())


def in_inference_mode(module):
    with torch.inference_mode():
        module.weight_hh_l0.mul_(1.5)


def through_an_array(module):
    weights = module.weight_hh_l0.detach().numpy()
    weights *= 1.5


def exchanged(module):
    module.weight_hh_l0 = torch.nn.Parameter(1.5 * module.weight_hh_l0)


def other_memory(module):
    for _ in range(3):  # so that an allocator comes back to the memory that was first
        module.weight_hh_l0.data = 1.1 * module.weight_hh_l0.data


def half_of_the_biases(module):
    module.bias_hh_l0.data[: H // 2].fill_(1.0)


def forget_gates(module):
    module.weight_hh_l0.data[H // 4 : H // 2].fill_(0.1)


CHANGES = {
    "in place": lambda module: module.weight_hh_l0.mul_(1.5),
    "one entry": lambda module: module.weight_hh_l0[7, 11].fill_(1.5),
    "one entry of .detach()": lambda module: module.weight_hh_l0.detach()[7, 11].fill_(1.5),
    "in inference mode": in_inference_mode,
    "sgd": step_of(lambda p: torch.optim.SGD(p, 0.1)),
    "sgd, fused": step_of(lambda p: torch.optim.SGD(p, 0.1, fused=True)),
    "adam, foreach": step_of(lambda p: torch.optim.Adam(p, 0.1, foreach=True)),
    "adam, fused": step_of(lambda p: torch.optim.Adam(p, 0.1, fused=True)),
    "adamw, fused": step_of(lambda p: torch.optim.AdamW(p, 0.1, fused=True)),
    "load_state_dict": lambda module: module.load_state_dict(type(module)(H, H).state_dict()),
    "load_state_dict, assigned": lambda module: module.load_state_dict(type(module)(H, H).state_dict(), assign=True),
    "vector_to_parameters": vector_into,
    "set_": lambda module: module.weight_hh_l0.set_(1.5 * module.weight_hh_l0),
    "other memory": other_memory,
    "exchanged": exchanged,
    "through .data": lambda module: module.weight_hh_l0.data.mul_(1.5),
    "through an array": through_an_array,
    "a run through .data": forget_gates,
    "biases through .data": half_of_the_biases,
}


@pytest.mark.parametrize("change", list(CHANGES))
def test_a_step_sees_a_change_however_it_is_made(change):
    theirs, ours = twins("GRU")
    x, h = torch.randn(1, 1, H), torch.randn(1, 1, H)
    with torch.no_grad():
        before = ours(x, h)
        CHANGES[change](ours)
        theirs.load_state_dict(ours.state_dict())
        assert not equal(ours(x, h), before)
        torch.testing.assert_close(ours(x, h), theirs(x, h))


def test_one_entry_that_short_calls_do_not_look_at_is_seen_by_those_that_compare_everything():
    x = torch.randn(2, 1, H)

    def seen(call):
        _, ours = twins("LSTM")
        before = ours(x)
        ours.weight_hh_l0.data[1, 3] += 1  # past PyTorch's count of changes
        call(ours)
        return not equal(ours(x), before)

    with torch.no_grad():
        assert not seen(lambda ours: ours(x))  # as is documented
        assert seen(lambda ours: ours(torch.randn(prepared.ALL_ROWS, 1, H)))
        assert seen(lambda ours: torch.optim.SGD([torch.zeros(1, requires_grad=True)], 0.1).step())
    assert seen(lambda ours: ours(x))  # which keeps what a backward pass needs


@pytest.mark.parametrize("size", [3, prepared.SMALL // 4])
def test_of_a_small_parameter_every_entry_is_compared(size):
    module = interop.RNN(1, size)
    with torch.no_grad():
        x = torch.ones(1, 1, 1)
        before = module(x)
        module.bias_hh_l0.data[size // 2] += 1
        assert not equal(module(x), before)


def test_what_is_the_same_again_is_not_packed_again():
    _, ours = twins("LSTM")
    x, packed = torch.randn(1, 1, H), ours._prepared
    with torch.no_grad():
        ours(x)
        marks = packed.marks
        assert ours._prepared is packed
        ours.load_state_dict(copy.deepcopy(ours.state_dict()))
        ours(x)
        assert ours._prepared is packed
        assert packed.marks is not marks
        ours.weight_hh_l0.mul_(2)
        ours(x)
        assert ours._prepared.weights is not packed.weights


def test_a_matrix_that_is_transposed_where_it_is_is_seen():
    _, ours = twins("RNN")
    x, h = torch.randn(1, 1, H), torch.randn(1, 1, H)
    with torch.no_grad():
        before = ours(x, h)
        ours.weight_hh_l0.data = ours.weight_hh_l0.data.t()
        theirs = torch.nn.RNN(H, H)
        theirs.load_state_dict(ours.state_dict())
        assert not equal(ours(x, h), before)
        torch.testing.assert_close(ours(x, h), theirs(x, h))


def test_parameters_without_a_count_of_changes_are_compared():
    with torch.inference_mode():
        ours = interop.GRU(H, H)
        x = torch.randn(2, 1, H)
        before = ours(x)
        assert equal(ours(x), before)
        ours.weight_hh_l0[1, 3] += 1
        assert not equal(ours(x), before)


# -- calls that want numbers alone -------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"num_layers": 2, "bidirectional": True, "batch_first": True}])
@pytest.mark.parametrize("kind", KINDS)
def test_numbers_alone_are_the_bits_that_a_call_with_gradients_gives(kind, options):
    _, ours = twins(kind, **options)
    for shape in ((1, 1, H), (6, 3, H), (6, H)):
        x, batch = torch.randn(shape), () if len(shape) == 2 else (shape[0 if ours.batch_first else 1],)
        for hx in ((), (states(ours, *batch),)):
            expected = ours(x, *hx)
            assert expected[0].requires_grad
            with torch.no_grad():
                assert ours._numbers(ours._prepared, x, *hx or (None,)) is not None
                assert equal(ours(x, *hx), expected)
            with torch.inference_mode():
                assert equal(ours(x, *hx), expected)


@pytest.mark.parametrize("sorted", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_numbers_alone_of_packed_input_are_those_bits_too(kind, sorted):
    _, ours = twins(kind, bidirectional=True)
    lengths = (5, 2, 1) if sorted else (2, 5, 1)
    packed = torch.nn.utils.rnn.pack_sequence([torch.randn(n, H) for n in lengths], enforce_sorted=sorted)
    hx = states(ours, 3)
    output, state = ours(packed, hx)
    with torch.no_grad():
        got, last = ours._numbers(ours._prepared, packed, hx)
    assert type(got) is type(packed) and got[1:] == packed[1:]
    assert equal((got.data, last), (output.data, state))


def test_what_is_wrong_is_told_as_pytorch_tells_it():
    theirs, ours = twins("LSTM")
    h = torch.zeros(1, 2, H)
    for arguments in (
        (torch.zeros(1, 2, H + 1),), (torch.zeros(H),), (torch.zeros(1, 1, 1, H),), (torch.zeros(1, 2, H).double(),),
        (torch.zeros(1, 2, H), (h[:, :1], h[:, :1])), (torch.zeros(1, 2, H), (h, h.double())),
        (torch.zeros(1, 2, H), (h[0], h[0])),
    ):  # fmt: skip
        with torch.no_grad():
            with pytest.raises((RuntimeError, ValueError)) as expected:
                theirs(*arguments)
            with pytest.raises(expected.type):
                ours(*arguments)


def test_integers_are_not_taken_for_symbols():
    _, ours = twins("GRU")
    with torch.no_grad(), pytest.raises((RuntimeError, ValueError)):
        ours(torch.zeros(1, 1, H, dtype=torch.int64))


def test_dropout_and_transforms_go_their_own_way():
    _, ours = twins("LSTM", num_layers=2, dropout=0.5)
    x = torch.randn(3, 1, H)
    with torch.no_grad():
        expected = ours(x)
        mapped = torch.vmap(lambda one: ours(one)[0])(torch.stack([x, x]))
        assert torch.equal(mapped[1], expected[0])
        assert not equal(ours.train()(x), expected)


# -- frozen ------------------------------------------------------------------------------------------------------------


def frozen(kind, **options):
    theirs = getattr(torch.nn, kind)(H, H, **options).eval()
    ours = copy.deepcopy(theirs)
    assert interop.accelerate(ours, frozen=True).replaced == ("",)
    return theirs, ours


@pytest.mark.parametrize("kind", KINDS)
def test_a_frozen_module_gives_what_the_module_gives_and_takes_no_gradient(kind):
    theirs, ours = frozen(kind, num_layers=2, batch_first=True)
    assert not any(parameter.requires_grad for parameter in ours.parameters())
    assert repr(ours) == repr(theirs)[:-1] + ", frozen)"
    packed = torch.nn.utils.rnn.pack_sequence([torch.randn(n, H) for n in (2, 4)], enforce_sorted=False)
    for input, batch in ((torch.randn(2, 1, H), (2,)), (torch.randn(5, H), ()), (packed, (2,))):
        hx = states(ours, *batch)
        (output, state), (expected, last) = ours(input, hx), theirs(input, hx)
        torch.testing.assert_close(output.data, expected.data.detach())
        torch.testing.assert_close(state, last)
        assert not output.data.requires_grad
    x = torch.randn(2, 3, H, requires_grad=True)
    gradients = [torch.autograd.grad(module(x)[0].sum(), x)[0] for module in (ours, theirs)]
    torch.testing.assert_close(*gradients)


def test_a_frozen_module_compares_nothing_but_takes_what_is_loaded():
    _, ours = frozen("GRU")
    x, packed = torch.randn(1, 1, H), ours._prepared
    before = ours(x)
    ours.weight_hh_l0.data.mul_(2)
    assert equal(ours(x), before)
    assert ours._prepared is packed
    other = torch.nn.GRU(H, H)
    ours.load_state_dict(other.state_dict())
    torch.testing.assert_close(ours(x), other(x))
    torch.testing.assert_close(ours.double()(x.double()), other.double()(x.double()))
    for again in (copy.deepcopy(ours), pickle.loads(pickle.dumps(ours))):
        assert again._frozen and equal(again(x.double()), ours(x.double()))


def test_what_is_accelerated_already_may_be_frozen():
    module = interop.LSTM(H, H)
    assert interop.accelerate(module).left == {"": "runs on numba_pack already"}
    assert interop.accelerate(module, frozen=True).replaced == ("",)
    assert interop.accelerate(module, frozen=True).left == {"": "runs on numba_pack already"}


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
def test_what_is_computed_before_each_call_is_not_frozen():
    module = torch.nn.utils.weight_norm(torch.nn.LSTM(3, 5), "weight_hh_l0")
    reason = "weight_hh_l0 is computed before each call, and what is frozen must not change"
    assert interop.accelerate(module, frozen=True) == ((), {"": reason})
    assert interop.accelerate(module).replaced == ("",)


def test_a_frozen_module_in_a_half_takes_and_gives_it():
    theirs = torch.nn.GRU(H, H).bfloat16()
    ours = copy.deepcopy(theirs)
    interop.accelerate(ours, frozen=True)
    x = torch.randn(4, 2, H).bfloat16()
    assert (ours(x)[0] - theirs(x)[0]).abs().max() < 0.02
    assert ours(x)[0].dtype == torch.bfloat16


# -- few rows ----------------------------------------------------------------------------------------------------------


def apart(module, input, hx, monkeypatch):
    """Results and gradients of a call that goes the way of all calls, and not that of those of few rows."""
    with monkeypatch.context() as patch:
        patch.setattr(interop.LSTM.__mro__[1], "_few", lambda *_: None)
        return results_and_gradients(module, input, hx)


def results_and_gradients(module, input, hx):
    module.zero_grad()
    leaves = [input] if hx is None else [input, *(hx if isinstance(hx, tuple) else (hx,))]
    leaves = [leaf.detach().clone().requires_grad_() for leaf in leaves]
    given = () if hx is None else (tuple(leaves[1:]) if isinstance(hx, tuple) else leaves[1],)
    results = flat(module(leaves[0], *given))
    loss = sum((result * torch.linspace(-1, 1, result.numel()).view_as(result)).sum() for result in results)
    loss.backward()
    return [result.detach() for result in results], [
        leaf.grad for leaf in (*leaves, *module.parameters())
    ]  # fmt: skip


def few_calls_of(module, monkeypatch):
    """A list that gets an entry for each call of few rows that can be differentiated."""
    made = []
    few = type(module._prepared.few)
    call = few.call
    monkeypatch.setattr(few, "call", lambda self, shape: made.append(shape) or call(self, shape))
    return made


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("options", [{}, {"num_layers": 2, "bidirectional": True}, {"batch_first": True}])
@pytest.mark.parametrize("kind", KINDS)
def test_few_rows_give_the_bits_of_the_way_of_all_calls(kind, options, dtype, monkeypatch):
    _, ours = twins(kind, **options)
    ours.to(dtype)(torch.randn(1, 1, H, dtype=dtype))
    made = few_calls_of(ours, monkeypatch)
    shapes = [(1, 1, H), (1, 3, H), (5, 1, H), (6, H)] + [(4, 3, H)] * (not ours.batch_first)
    for shape in shapes:
        x = torch.randn(shape, dtype=dtype)
        batch = () if x.dim() == 2 else (shape[0 if ours.batch_first else 1],)
        h = torch.randn(ours.num_layers * (1 + ours.bidirectional), *batch, H, dtype=dtype)
        for hx in (None, (h, torch.randn_like(h)) if kind == "LSTM" else h):
            expected = apart(ours, x, hx, monkeypatch)
            before = len(made)
            got = results_and_gradients(ours, x, hx)
            assert len(made) == before + 1
            for ones, others in zip(got, expected, strict=True):
                assert all(torch.equal(one, other) for one, other in zip(ones, others, strict=True))
                assert all(one.shape == other.shape for one, other in zip(ones, others, strict=True))


@pytest.mark.parametrize("result", [0, 1, 2])
def test_of_few_rows_any_result_alone_has_its_gradients(result):
    theirs, ours = twins("LSTM")
    for shape in ((1, 1, H), (3, 2, H)):
        x = torch.randn(shape)
        for module in (theirs, ours):
            module.zero_grad()
            flat(module(x))[result].sum().backward()
        for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
            torch.testing.assert_close(one.grad, other.grad)


def test_a_training_loop_of_single_steps_gives_the_gradients_of_the_sequence():
    _, ours = twins("GRU")
    x, h, outputs = torch.randn(7, 2, H), None, []
    whole = results_and_gradients(ours, x, None)[1][1:]
    ours.zero_grad()
    for step in x:
        output, h = ours(step[None], *(() if h is None else (h,)))
        outputs.append(output)
    results = torch.cat(outputs), h
    sum((result * torch.linspace(-1, 1, result.numel()).view_as(result)).sum() for result in results).backward()
    for parameter, expected in zip(ours.parameters(), whole, strict=True):
        torch.testing.assert_close(parameter.grad, expected, rtol=1e-4, atol=1e-4)


def test_few_rows_are_recorded_with_the_parameters_of_their_call():
    theirs, ours = twins("LSTM")
    x = torch.randn(2, 1, H)
    for module in (theirs, ours):
        optimizer = torch.optim.SGD(module.parameters(), 0.1)
        for _ in range(3):
            optimizer.zero_grad()
            module(x)[0].square().sum().backward()
            optimizer.step()
    for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(one, other)


def test_a_graph_of_few_rows_may_be_gone_through_twice_mapped_and_checkpointed():
    _, ours = twins("GRU")
    x = torch.randn(3, 2, H, requires_grad=True)
    output, _ = ours(x)
    leaves = [x, *ours.parameters()]
    first = torch.autograd.grad(output.sum(), leaves, retain_graph=True)
    again = torch.autograd.grad(output.sum(), leaves, retain_graph=True)
    assert all(map(torch.equal, first, again))
    ones = torch.ones_like(output)
    mapped = torch.vmap(lambda d: torch.autograd.grad(output, leaves, d, retain_graph=True))(torch.stack([ones, ones]))
    for one, other in zip(first, mapped, strict=True):
        assert one.shape == other[1].shape
        torch.testing.assert_close(one, other[1])
    (gradient,) = torch.autograd.grad(output.sum(), x, create_graph=True)
    assert torch.equal(gradient, first[0]) and gradient.requires_grad
    checkpointed, _ = torch.utils.checkpoint.checkpoint(ours, x, use_reentrant=False)
    assert all(map(torch.equal, first, torch.autograd.grad(checkpointed.sum(), leaves)))
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: tensor.clone(), lambda tensor: tensor):
        output, _ = ours(x)
    assert all(map(torch.equal, first, torch.autograd.grad(output.sum(), leaves)))


@pytest.mark.parametrize("case", ["transposed", "expanded", "negative", "offset"])
def test_few_rows_may_lie_in_memory_as_they_like(case):
    theirs, ours = twins("GRU")
    x = {
        "transposed": lambda: torch.randn(2, 3, H).transpose(0, 1),
        "expanded": lambda: torch.randn(1, 1, H).expand(3, 2, H),
        "negative": lambda: torch._neg_view(torch.randn(3, 2, H)),
        "offset": lambda: torch.randn(6 * H + 1)[1:].view(3, 2, H),
    }[case]()
    torch.testing.assert_close(ours(x), theirs(x))
    with torch.no_grad():
        torch.testing.assert_close(ours(x), theirs(x))


def test_a_wrapper_of_a_transform_that_is_over_is_read_through():
    theirs, ours = twins("GRU")
    escaped = []
    torch.func.grad(lambda x: escaped.append(x) or x.sum())(torch.randn(1, 1, H))
    torch.testing.assert_close(ours(escaped[0]), theirs(escaped[0]))
    with torch.no_grad():
        torch.testing.assert_close(ours(escaped[0]), theirs(escaped[0]))


@pytest.mark.parametrize("options", [{}, {"bidirectional": True}, {"num_layers": 2}])
@pytest.mark.parametrize("kind", KINDS)
def test_one_step_reads_nothing_that_was_not_written(kind, options, monkeypatch):
    module = getattr(interop, kind)(8, 8, **options)
    x = torch.randn(1, 2, 8)

    def gradients():
        module.zero_grad()
        output, _ = module(x)
        output.square().sum().backward()
        return [output.detach(), *(parameter.grad.clone() for parameter in module.parameters())]

    def poisoned(shape, dtype):
        array = np.empty(shape, dtype)
        array.view(np.uint8).fill(0xFF)  # which are no numbers
        return array

    expected = gradients()
    monkeypatch.setattr(_torch_few, "_empty", poisoned)
    assert all(map(torch.equal, gradients(), expected))


def test_one_thread_takes_many_rows_as_it_takes_few(monkeypatch):
    _, ours = twins("LSTM")
    x = torch.randn(20, 32, H)
    expected = apart(ours, x, None, monkeypatch)
    made = few_calls_of(ours, monkeypatch)
    assert x.shape[0] * x.shape[1] > ours._prepared.few.most
    with nbp.threads(1):
        got = results_and_gradients(ours, x, None)
    assert len(made) == 1
    for ones, others in zip(got, expected, strict=True):
        assert all(map(torch.equal, ones, others))


def test_weights_of_former_steps_are_kept_by_nobody():
    _, ours = twins("GRU")
    optimizer, former = torch.optim.SGD(ours.parameters(), 0.1), []
    for steps in range(1, 6):
        ours(torch.randn(steps, 1, H))[0].sum().backward()
        former.append(weakref.ref(ours._prepared.weights.panels))
        optimizer.step()
    ours(torch.randn(1, 1, H))
    gc.collect()
    assert [panels() for panels in former] == [None] * 5
