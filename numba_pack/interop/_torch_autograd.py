"""The layers as functions of PyTorch's autograd: what a call computes with, what it saves, and its gradients.

`Scan` runs the engine on rows and keeps the record; in the backward pass `ScanBack` runs the engine back. If its
gradients are differentiated again, PyTorch does that. Within transforms of `torch.func`, `Planned` and `PlannedBack`
run, which keep nothing.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any, NamedTuple, NoReturn

import numpy as np
import torch

from ..batch import Batch, States, no_states
from ..cells import gru, lstm, rnn
from ..cells.dropout import Dropout
from ..cells.parameters import Weights, named_shapes
from ..cpu import engine
from ..cpu.threads import get_num_threads, threads
from ..layers.vectors import parts_of
from ._torch_operators import Operators
from ._torch_tensors import as_array

__all__ = ["Call", "Plan", "Planned", "Scan", "engine_threads", "engine_threads_count", "scan"]

_TWICE = (
    "the gradients of numba_pack's RNN, LSTM and GRU cannot be differentiated again where units are dropped, nor where "
    "torch.vmap maps over torch.autograd.grad; there, use the modules of torch.nn"
)
_BATCHED = (
    "the gradients of numba_pack's modules cannot be asked for with is_grads_batched=True or vectorize=True; "
    "use torch.func.jacrev or torch.func.vmap"
)


def _refuse(*_: Any) -> NoReturn:
    raise RuntimeError(_TWICE)


#: of a cell, what PyTorch calls its mode
_MODES = {lstm.LSTM: "LSTM", gru.GRU: "GRU", rnn.RNNTanh: "RNN_TANH", rnn.RNNRelu: "RNN_RELU"}


def operators(call: Any) -> Operators:
    """A `Call`, or what has its fields, by PyTorch's own operators."""
    weights = call.weights
    mode = _MODES[engine.cell_of(weights).base]
    return Operators(mode, weights.num_layers, weights.num_directions == 2, call.batch_sizes, call.order)


_is_batched = torch._C._functorch.is_legacy_batchedtensor
_AS_IT_IS = nullcontext()


def engine_threads_count() -> int:
    """How many threads a call may use."""
    return min(torch.get_num_threads(), get_num_threads())


def engine_threads() -> Any:
    """A scope in which no more threads are used than PyTorch may use."""
    theirs = torch.get_num_threads()
    return threads(theirs) if theirs < get_num_threads() else _AS_IT_IS


class Call(NamedTuple):
    """What a call of a layer computes with, besides tensors."""

    weights: Weights
    #: (T,)
    batch_sizes: np.ndarray
    #: (B,) in sorted order, the numbers of the sequences in the caller's
    order: np.ndarray
    dropout: Dropout

    def batch(self, data: Any) -> Batch:
        """The rows (N, I) of a tensor as the engine takes them."""
        return Batch(as_array(data), self.batch_sizes, self.order, data.shape[0])

    def states(self, h: Any, c: Any) -> States:
        """States, or gradients of states, each (L * D, B, *) or None for zero."""
        weights, nothing = self.weights, no_states(self.weights.parameters.dtype)
        if h is None and c is None:
            return nothing

        def given(part: Any, size: int) -> np.ndarray:
            shape = (weights.num_layers * weights.num_directions, len(self.order), size)
            return np.zeros(shape, weights.parameters.dtype) if part is None else as_array(part)

        has_c = engine.cell_of(weights).states > 1
        return States(
            given(h, weights.output_size), given(c, weights.hidden_size)[None] if has_c else nothing.others, True
        )

    def infer(self, data: Any, h_0: Any, c_0: Any) -> tuple[Any, ...]:
        """Output (N, D * P), h_n (L * D, B, P) and c_n (L * D, B, H; empty where there is none)."""
        with engine_threads():
            results = engine.infer(self.weights, self.batch(data), self.states(h_0, c_0))
        return _tensors(*results[:3])

    def record(self, data: Any, h_0: Any, c_0: Any) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        """As `infer`, with dropout, and what the backward pass needs, as tensors."""
        with engine_threads():
            results, saved = engine.record(self.weights, self.batch(data), self.states(h_0, c_0), self.dropout)
        return _tensors(*results[:3]), (torch.from_numpy(saved.tape),)

    def back(
        self, kept: tuple[Any, ...], out: Any, data: Any, h_0: Any, c_0: Any, d_out: Any, d_h: Any, d_c: Any,
        input_grad: bool,
    ) -> tuple[Any, Any, Any, list[Any]]:  # fmt: skip
        """The gradients of data, empty if they are not wanted, of h_0, c_0, and of the parameters.

        Those of the parameters share the memory of one vector.

        Those of the results are None for zero. What was kept is used up.
        """
        (tape,), rows = kept, as_array(out)
        saved = engine.saved_on(
            tape.numpy(), self.weights, self.batch(data), self.states(h_0, c_0), self.dropout, rows
        )  # fmt: skip
        d_rows = np.zeros_like(rows) if d_out is None else as_array(d_out)
        with engine_threads():
            found = engine.replay_back(saved, d_rows, self.states(d_h, d_c), input_grad)
        shapes = named_shapes(engine.cell_of(self.weights), self.weights[4:])
        return *_tensors(*found[:3]), list(map(torch.from_numpy, parts_of(found.parameters, shapes).values()))

    def rows(self, tensor: Any) -> Any:
        """Rows (N, *) of a tensor in the form of the input or the output: these have it."""
        return tensor

    def scans(self, tensor: Any) -> Any:
        """(L * D, B, *) of one in the form of a state: these have it."""
        return tensor


def _tensors(rows: np.ndarray, h: np.ndarray, others: np.ndarray) -> tuple[Any, ...]:
    """Rows, h and c, or their gradients, as tensors; c has no layers where there is none."""
    c = others.reshape(len(others) * others.shape[1], *others.shape[2:])
    return torch.from_numpy(rows), torch.from_numpy(h), torch.from_numpy(c)


class Scan(torch.autograd.Function):
    """Output, h_n and c_n of data, h_0, c_0 and the parameters, which are those of ``call.weights``.

    The call says in what form these are: a `Call` takes rows (N, I), and a `FewCall` what came.

    What the backward pass needs is kept as PyTorch keeps tensors: it is freed after that pass, a change in place is
    noticed, and checkpointing can do without it.
    """

    @staticmethod
    def forward(ctx: Any, call: Call, data: Any, h_0: Any, c_0: Any, *parameters: Any) -> tuple[Any, ...]:
        results, kept = call.record(data, h_0, c_0)
        ctx.call, ctx.used, ctx.kept = call, False, len(kept)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*kept, results[0], data, h_0, c_0, *parameters)
        return results

    @staticmethod
    def backward(ctx: Any, d_out: Any, d_h: Any, d_c: Any = None) -> tuple[Any, ...]:
        if torch._C._are_functorch_transforms_active():  # `torch.vmap` over `torch.autograd.grad`
            call, tensors = ctx.call, ctx.saved_tensors[ctx.kept + 1 :]
            plan = Plan(lambda _: call.weights, call.batch_sizes, call.order, call.dropout.rate)
            seed = torch.tensor([int(call.dropout.seed), int(call.dropout.call)])
            data, h_0, c_0, *parameters = tensors
            given = call.rows(d_out), *map(call.scans, (d_h, d_c)), call.rows(data), *map(call.scans, (h_0, c_0))
            found = PlannedBack.apply(plan, seed, *given, *parameters)
            shaped = [part if of is None else part.reshape(of.shape) for of, part in zip(tensors, found, strict=True)]
            return None, *_only(tensors, shaped)
        if torch.is_grad_enabled():  # with create_graph
            return ScanBack.apply(ctx, d_out, d_h, d_c, *ctx.saved_tensors)
        return ScanBack.forward(None, ctx, d_out, d_h, d_c, *ctx.saved_tensors)


#: `Scan.apply` of tensors that are no wrappers of a transform that is over, for which that looks at each
scan = super(torch.autograd.Function, Scan).apply


class ScanBack(torch.autograd.Function):
    """The gradients of a `Scan`: a function of its own, which PyTorch can go back through."""

    @staticmethod
    def forward(ctx: Any, scan: Any, d_out: Any, d_h: Any, d_c: Any, *saved_tensors: Any) -> tuple[Any, ...]:
        if any([d is not None and _is_batched(d) for d in (d_out, d_h, d_c)]):
            raise RuntimeError(_BATCHED)
        call, input_grad = scan.call, scan.needs_input_grad[1]
        if ctx is not None:
            ctx.call, ctx.kept = call, scan.kept
            ctx.set_materialize_grads(False)
            ctx.save_for_backward(d_out, d_h, d_c, *saved_tensors[scan.kept + 1 :])
        out, data, h_0, c_0 = saved_tensors[scan.kept : scan.kept + 4]
        # if an earlier backward pass has used up what was kept, the scan runs again for it
        kept = call.record(data, h_0, c_0)[1] if scan.used else saved_tensors[: scan.kept]
        scan.used = True
        d_data, d_h_0, d_c_0, gradients = call.back(kept, out, data, h_0, c_0, d_out, d_h, d_c, input_grad)
        return (
            None,
            d_data if input_grad else None,
            None if h_0 is None else d_h_0,
            None if c_0 is None else d_c_0,
            *gradients,
        )

    @staticmethod
    def backward(ctx: Any, _: Any, *d_gradients: Any) -> tuple[Any, ...]:
        call, again = ctx.call, torch.is_grad_enabled()
        if call.dropout.rate:
            _refuse()
        with torch.enable_grad():
            # views, since a tensor may have been computed from another, and that path is not of this function
            given = [None if tensor is None else tensor.view_as(tensor) for tensor in ctx.saved_tensors]
            d_results, (data, h_0, c_0, *parameters) = given[:3], given[3:]
            results = operators(call).run(call.rows(data), call.scans(h_0), call.scans(c_0), *parameters)
            parts = [(part.view(d.shape), d) for part, d in zip(results, d_results, strict=False) if d is not None]
            gradients = _gradients(parts, given[3:], True)
        wanted = [(first, d) for first, d in zip(gradients, d_gradients, strict=True) if first is not None]
        second = _gradients([(first, d) for first, d in wanted if d is not None and first.requires_grad], given, again)
        return None, *second[:3], *[None] * (ctx.kept + 1), *second[3:]


def _gradients(pairs: list[tuple[Any, Any]], tensors: list[Any], again: bool) -> list[Any]:
    """The gradients of tensors by results and their gradients; None for what takes or has none."""
    of = [tensor for tensor in tensors if tensor is not None and tensor.requires_grad]
    if not pairs or not of:
        return [None] * len(tensors)
    results, d_results = zip(*pairs, strict=True)
    found = iter(torch.autograd.grad(results, of, d_results, create_graph=again, allow_unused=True))
    return [next(found) if tensor is not None and tensor.requires_grad else None for tensor in tensors]


# -- torch.func --------------------------------------------------------------------------------------------------------


class Plan:
    """A `Call` but for what depends on tensors, which may stand for others in a transform of `torch.func`.

    It is no tuple, in which such transforms would look for tensors.
    """

    def __init__(self, weights: Any, batch_sizes: np.ndarray, order: np.ndarray, rate: float) -> None:
        self.weights, self.batch_sizes, self.order, self.rate = weights, batch_sizes, order, rate

    def call(self, seed: Any, parameters: Any) -> Call:
        """What to compute with; the seed of dropout is a tensor of two integers."""
        first, second = map(np.uint32, seed.tolist())
        return Call(self.weights(parameters), self.batch_sizes, self.order, Dropout(self.rate, first, second))


def _only(tensors: Any, gradients: Any) -> tuple[Any, ...]:
    """The gradients of those tensors that there are."""
    return tuple(None if tensor is None else part for tensor, part in zip(tensors, gradients, strict=True))


def _one_by_one(function: Any, info: Any, in_dims: tuple[Any, ...], arguments: tuple[Any, ...]) -> Any:
    """`vmap`: the examples one after the other."""
    if not info.batch_size:
        raise RuntimeError("numba_pack's modules cannot be mapped over no examples")
    results = [
        function.apply(
            *(
                argument if axis is None else argument.select(axis, example)
                for argument, axis in zip(arguments, in_dims, strict=True)
            )
        )
        for example in range(info.batch_size)
    ]
    stacked = tuple(map(torch.stack, zip(*results, strict=True)))
    return stacked, (0,) * len(stacked)


class Planned(torch.autograd.Function):
    """`Scan` within transforms of `torch.func`: nothing is kept, and for the backward pass it runs again."""

    @staticmethod
    def forward(plan: Plan, seed: Any, data: Any, h_0: Any, c_0: Any, *parameters: Any) -> tuple[Any, ...]:
        call = plan.call(seed, parameters)
        return call.record(data, h_0, c_0)[0] if plan.rate else call.infer(data, h_0, c_0)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.plan, *tensors = inputs
        ctx.save_for_backward(*tensors)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Any, ...]:
        seed, *tensors = ctx.saved_tensors
        return None, None, *_only(tensors, PlannedBack.apply(ctx.plan, seed, *gradients, *tensors))

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *arguments: Any) -> Any:
        return _one_by_one(Planned, info, in_dims, arguments)


class PlannedBack(torch.autograd.Function):
    """The gradients of a `Planned` with respect to all of its tensors, whether they are given or not."""

    @staticmethod
    def forward(
        plan: Plan, seed: Any, d_out: Any, d_h: Any, d_c: Any, data: Any, h_0: Any, c_0: Any, *parameters: Any
    ) -> tuple[Any, ...]:
        call = plan.call(seed, parameters)
        (out, _, _), kept = call.record(data, h_0, c_0)
        *found, gradients = call.back(kept, out, data, h_0, c_0, d_out, d_h, d_c, True)
        return *found, *gradients

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        pass

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *arguments: Any) -> Any:
        return _one_by_one(PlannedBack, info, in_dims, arguments)

    backward = staticmethod(_refuse)
