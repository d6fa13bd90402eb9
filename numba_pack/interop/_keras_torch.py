"""Keras's loop on the torch backend: run here, and by Keras again for a gradient."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch.autograd import forward_ad
from torch.autograd.function import once_differentiable

from ._keras_accelerate import Call, Loop
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
    found = loop.here(call, arrays[0], there, arrays[1 : count + 1], arrays[count + 1 :])
    return tuple(torch.from_numpy(one) for one in found)


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
