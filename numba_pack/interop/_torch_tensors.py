"""Tensors as arrays that share their memory, and what is refused where there is no memory."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import torch
from torch.autograd import forward_ad

from .._arguments import kind_of

__all__ = [
    "DTYPES",
    "HALVES",
    "TORCH_DTYPES",
    "TRACED",
    "as_array",
    "as_bits",
    "refuse_tracing",
    "unreadable",
    "watched",
]

DTYPES = {torch.float32: np.dtype(np.float32), torch.float64: np.dtype(np.float64)}
#: what is computed in float32, and its products of factors in bfloat16 where nothing else is asked for
HALVES = (torch.bfloat16, torch.float16)
TORCH_DTYPES = {dtype: torch_dtype for torch_dtype, dtype in DTYPES.items()}

TRACED = (
    "numba_pack's modules cannot be traced, scripted or exported; "
    "do that with those of torch.nn, which the modules of a model are before `accelerate`"
)


def refuse_tracing(value: Any) -> None:
    """Refuse where PyTorch records what is computed, since what runs here would go in as a constant."""
    if type(value) is torch.Tensor and not watched():
        return
    fx, proxies = sys.modules.get("torch.fx"), sys.modules.get("torch.fx.experimental.proxy_tensor")
    if (
        torch.jit.is_tracing()
        or (proxies is not None and proxies.get_proxy_mode() is not None)
        or (fx is not None and isinstance(value, fx.Proxy))
        or type(value).__module__.startswith("torch._subclasses.")  # such as FakeTensor
        or (isinstance(value, torch.Tensor) and torch._is_functional_tensor(value))
    ):
        raise RuntimeError(TRACED)


_transforming = torch._C._are_functorch_transforms_active
_tracing, _dispatching = torch._C._get_tracing_state, torch._C._len_torch_dispatch_stack


def watched() -> bool:
    """Whether PyTorch does anything with tensors but compute: trace, transform, differentiate forward, or fake them."""
    return bool(
        _transforming() or _tracing() is not None or _dispatching() or getattr(forward_ad, "_current_level", -1) >= 0
    )


def unreadable(tensor: Any) -> str:
    """Why there is no array of a tensor's values; empty if there is."""
    if tensor.is_nested:
        return "is a nested tensor"
    if tensor.device.type == "meta" or type(tensor).__module__.startswith("torch._subclasses."):
        return "has no values"
    if tensor.layout != torch.strided:
        return f"is {tensor.layout}, not dense"
    if type(tensor).__torch_dispatch__ is not torch.Tensor.__torch_dispatch__:
        return f"is a {kind_of(tensor)}"
    return ""


def as_array(tensor: Any) -> np.ndarray:
    """The memory of a tensor, as an array; a copy only where rows are not contiguous."""
    if tensor.dtype not in DTYPES or tensor.device.type != "cpu":
        raise RuntimeError(
            "numba_pack computes in torch.float32 and torch.float64, on the CPU; "
            f"got a tensor of {tensor.dtype} on {tensor.device}"
        )
    return _memory(tensor)


def as_bits(tensor: Any) -> np.ndarray:
    """The bits of a tensor of floats, halves among them, as integers."""
    if tensor.dtype in HALVES and tensor.device.type == "cpu":
        return _memory(tensor.detach().resolve_neg().contiguous().view(torch.int16))
    return as_array(tensor).view(np.int32)


def _memory(tensor: Any) -> np.ndarray:
    try:
        array: np.ndarray = tensor.detach().contiguous().numpy()
    except (RuntimeError, TypeError) as error:
        if tensor.is_neg():  # a view of what has the other sign
            return _memory(tensor.resolve_neg())
        refuse_tracing(tensor)
        fault = unreadable(tensor) or str(error)
        raise RuntimeError(f"numba_pack computes with tensors in the CPU's memory; this one {fault}") from error
    return array
