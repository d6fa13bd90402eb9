"""PyTorch's nested tensors, to and fro. They are read without a copy, of either layout, jagged or strided.

>>> import numba_pack as nbp
>>> import torch
>>> jagged = torch.nested.nested_tensor([torch.ones(2), torch.ones(3)], layout=torch.jagged)
>>> nbp.unpack_ragged(nbp.pack_ragged(jagged), like="torch").offsets()
tensor([0, 2, 5])
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .._arguments import kind_of
from ..packing.foreign import Ragged

try:
    import torch
except ImportError as error:
    raise ImportError("nested tensors need PyTorch: pip install torch") from error

__all__ = ["form", "ragged", "rows"]


def ragged(tensor: Any, name: str) -> Ragged | list[Any]:
    """The sequences of a nested tensor (B, j, *)."""
    if not isinstance(tensor, torch.Tensor) or not tensor.is_nested:
        raise TypeError(f"{name} must be a list of tensors or a nested tensor; got {kind_of(tensor)}")
    if tensor.requires_grad:
        raise TypeError(f"{name} must be a tensor that needs no gradient: tensor.detach(); got one that does")
    if tensor.layout != torch.jagged:
        return list(tensor.unbind())
    values, offsets, lengths = tensor.values(), tensor.offsets(), tensor.lengths()
    if isinstance(tensor.shape[1], int):
        raise TypeError(f"{name} must have its ragged dimension second, (B, j, *); got shape {tuple(tensor.shape)}")
    if tensor.device.type != "cpu":
        raise TypeError(f"{name} must be a tensor on the CPU: tensor.cpu(); got one on {tensor.device}")
    if lengths is None:
        return Ragged.between(values.numpy(), offsets.numpy())
    return Ragged(values.numpy(), offsets.numpy()[:-1], lengths.numpy())


def rows(tensor: Any, name: str) -> Any:
    """A tensor of numbers."""
    if not isinstance(tensor, torch.Tensor):  # such as a torch.Size, which is left to NumPy
        return tensor
    if tensor.dtype == torch.bfloat16:
        raise TypeError(f"{name} must be of a dtype that NumPy has: tensor.float(); got one of {tensor.dtype}")
    try:
        return tensor.numpy()
    except (TypeError, RuntimeError) as error:  # it needs a gradient, is on a device, is nested, ...
        raise TypeError(f"{name} must be an array; got {kind_of(tensor)}: {error}") from error


def form(values: np.ndarray, offsets: np.ndarray, like: Any) -> Any:
    """A nested tensor (B, j, *) of the jagged layout or, for a plain tensor, a tensor each of values and offsets.

    They share the memory of the arrays.
    """
    if isinstance(like, torch.Tensor) and like.device.type != "cpu":
        raise TypeError(f"it is on {like.device}, and the data are on the CPU")
    tensors = torch.from_numpy(values), torch.from_numpy(offsets)
    plain = isinstance(like, torch.Tensor) and not like.is_nested
    return tensors if plain else torch.nested.nested_tensor_from_jagged(*tensors)
