"""Keras's loop on the torch backend: run here, and by Keras again for a gradient."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch.autograd import forward_ad
from torch.autograd.function import once_differentiable

from ..cpu.kernels import address_of
from ._keras_accelerate import Call, Loop
from ._torch_prepared import ALL_ROWS, _marks
from ._torch_tensors import as_array

__all__ = ["run"]


def run(loop: Loop, call: Call, x: Any, mask: Any, states: list[Any], weights: list[Any]) -> Any:
    """The last output, all outputs, and the last states; None where Keras runs it."""
    if torch.compiler.is_compiling():
        return None
    tensors = [x, *states, *weights]
    given = [one for one in tensors if one is not None]
    if (
        not all(type(one) in (torch.Tensor, torch.nn.Parameter) and one.device.type == "cpu" for one in given)
        or len({one.dtype for one in given}) > 1
        or torch.jit.is_tracing()
        or torch._C._are_functorch_transforms_active()
        or getattr(forward_ad, "_current_level", 0) >= 0
    ):
        return None
    if torch.is_grad_enabled() and any(one.requires_grad for one in given):
        return _Scan.apply(loop, call, mask, len(states), *tensors)
    return _here(loop, call, mask, len(states), tensors)


def _here(loop: Loop, call: Call, mask: Any, count: int, tensors: Any) -> tuple[Any, ...]:
    arrays: list[Any] = [None if one is None else as_array(one) for one in tensors]
    there = None if mask is None else np.asarray(mask.detach())
    weights = [one for one in tensors[count + 1 :] if one is not None]
    marks = _Marked(weights, surely=arrays[0].shape[0] * arrays[0].shape[1] >= ALL_ROWS)
    found = loop.here(call, arrays[0], there, arrays[1 : count + 1], arrays[count + 1 :], marks)
    return tuple(torch.from_numpy(one) for one in found)


class _Kept(NamedTuple):
    """Marks of weights, and these as they were, one behind the other."""

    marks: Any
    bits: np.ndarray
    at: int

    def hold(self, tensors: list[Any]) -> bool:
        held: bool = self.marks.hold(tensors, self.at)
        return held


class _Marked:
    """Marks of weights in PyTorch's tensors, as `_torch_prepared` has them."""

    def __init__(self, tensors: list[Any], surely: bool) -> None:
        self.tensors, self.surely = tensors, surely

    def are(self, kept: _Kept | None) -> bool:
        return kept is not None and (kept.marks.complete or not self.surely) and kept.hold(self.tensors)

    def kept(self, before: _Kept | None) -> _Kept | None:
        if before is not None and before.hold(self.tensors):
            return before
        marks = _marks(self.tensors)
        if marks is None:
            return None
        bits = np.concatenate(marks.memory)
        return _Kept(marks, bits, address_of(bits))


class _Scan(torch.autograd.Function):
    """The loop with a derivative: that of Keras's own, which runs then."""

    @staticmethod
    def forward(ctx: Any, loop: Loop, call: Call, mask: Any, count: int, *tensors: Any) -> tuple[Any, ...]:
        ctx.loop, ctx.mask, ctx.count = loop, mask, count
        ctx.save_for_backward(*tensors)
        return _here(loop, call, mask, count, tensors)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Any) -> tuple[Any, ...]:
        wanted = ctx.needs_input_grad[4:]
        with torch.enable_grad():
            tensors = [
                None if one is None else one.detach().requires_grad_(needed)
                for one, needed in zip(ctx.saved_tensors, wanted, strict=True)
            ]
            x, *rest = tensors
            results = ctx.loop.own_flat(x, ctx.mask, rest[: ctx.count], rest[ctx.count :])
        inputs = [one for one, needed in zip(tensors, wanted, strict=True) if needed]
        found = iter(torch.autograd.grad(results, inputs, gradients, allow_unused=True))
        return None, None, None, None, *(next(found) if needed else None for needed in wanted)
