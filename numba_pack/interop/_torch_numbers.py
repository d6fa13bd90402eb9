"""Calls of which numbers alone are wanted: tensors as arrays into a layer of this library, and its arrays as tensors.

To rule out all else that PyTorch might be up to takes longer than a step. So what is usual is tried at once, and for
the rest the caller has a longer way, which also tells what is wrong in PyTorch's words.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from .._backend import backend
from ..packing.sequences import PackedSequence
from ._torch_autograd import engine_threads
from ._torch_tensors import watched

__all__ = ["numbers"]
_Packed = torch.nn.utils.rnn.PackedSequence


def numbers(
    layer: Any, pair: bool, batch_first: bool, input: Any, hx: Any, valid: Callable[[int], bool] | None = None
) -> tuple[Any, Any] | None:
    """Output and state of input as a module of PyTorch's gives them; None where it is not so simple.

    The layer takes padded input as (T, B, I), and its state is a pair or one array. ``valid`` is asked whether the
    layer, for so many rows, is the right one.
    """
    packed = type(input) is _Packed
    if (
        (type(input.data if packed else input) is not torch.Tensor)
        or not (hx is None or type(hx) is (tuple if pair else torch.Tensor))
        or watched()
        or backend == "cuda"  # where layers run on the device, which PyTorch's modules of the CPU do not
    ):
        return None
    try:  # tensors that take a gradient, or are no plain memory, give no array; nor does a layer take what is wrong
        given = () if hx is None else hx if pair else (hx,)
        states = tuple([part.numpy() for part in given if type(part) is torch.Tensor])
        swapped = False
        if packed:
            x: Any = _as_ours(input)
            rows, B, dtype = len(x.data), len(x.sorted_indices), x.data.dtype
        else:
            x = input.numpy()
            swapped = batch_first and x.ndim == 3
            if swapped:
                x = x.swapaxes(0, 1)
            B, dtype = x.shape[1] if x.ndim == 3 else 1, x.dtype
            rows = len(x) * B
        if not rows or dtype != layer.dtype or (B != 1 and any([part.shape[1] != B for part in states])):
            return None
        if valid is not None and not valid(rows):
            return None
        state: Any = None if hx is None else states if pair else states[0]
        if B == 1:  # one sequence is not divided among threads
            out, last = layer(x, state)
        else:
            with engine_threads():
                out, last = layer(x, state)
    except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError):
        return None
    if packed:
        output = input._replace(data=torch.from_numpy(out.data))
    else:
        output = torch.from_numpy(out.swapaxes(0, 1) if swapped else out)
    return output, (torch.from_numpy(last[0]), torch.from_numpy(last[1])) if pair else torch.from_numpy(last)


def _as_ours(packed: Any) -> PackedSequence:
    data, sizes = packed.data.numpy(), packed.batch_sizes.numpy()
    if packed.sorted_indices is None:
        order = inverse = np.arange(sizes[0] if len(sizes) else 0)
    else:
        order, inverse = packed.sorted_indices.numpy(), packed.unsorted_indices.numpy()
    return PackedSequence(data, sizes, order, inverse)
