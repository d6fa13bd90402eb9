"""PackedSequences of PyTorch's as this library's, and back. Where dtypes allow, both share their memory."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from .._arguments import dtype_of, kind_of
from .._backend import on_device
from ..packing.sequences import PackedSequence, check_packed
from ._torch_tensors import unreadable

__all__ = ["packed_from_torch", "packed_to_torch"]


def packed_from_torch(packed: Any) -> PackedSequence:
    """A PackedSequence of this library with the rows of one of PyTorch's.

    Parameters
    ----------
    packed : torch.nn.utils.rnn.PackedSequence
        Of numbers, and without a gradient. Its tensors are shared if they are on the CPU, and copied from other
        devices; bfloat16, which NumPy has not, becomes float32.

    Returns
    -------
    PackedSequence
        Sequences stand in the same order. Where PyTorch has no ``sorted_indices``, they are 0, 1, 2, ...

    Raises
    ------
    TypeError, ValueError
        If it is no PackedSequence of PyTorch's, its data need a gradient or have no memory, or its parts do not fit.

    See Also
    --------
    packed_to_torch : the way back.

    Examples
    --------
    >>> import torch
    >>> import numba_pack as nbp
    >>> theirs = torch.nn.utils.rnn.pack_sequence([torch.ones(n, 3) for n in (2, 4)], enforce_sorted=False)
    >>> ours = nbp.interop.torch.packed_from_torch(theirs)
    >>> ours.lengths, ours.data.ctypes.data == theirs.data.data_ptr()
    (array([2, 4]), True)
    """
    if not isinstance(packed, torch.nn.utils.rnn.PackedSequence):
        raise TypeError(f"packed must be a torch.nn.utils.rnn.PackedSequence; got {kind_of(packed, PackedSequence)}")
    if isinstance(packed.data, torch.Tensor) and packed.data.requires_grad:
        raise TypeError(
            "packed.data must need no gradient: packed._replace(data=packed.data.detach()); got one that does"
        )
    data, sizes = _array(packed.data, "packed.data"), _array(packed.batch_sizes, "packed.batch_sizes")
    if packed.sorted_indices is None:
        order = inverse = np.arange(sizes[0] if len(sizes) else 0)
    else:
        order = _array(packed.sorted_indices, "packed.sorted_indices")
        inverse = _array(packed.unsorted_indices, "packed.unsorted_indices")
    return check_packed(PackedSequence(data, sizes, order, inverse), "packed")


def _array(tensor: Any, name: str) -> np.ndarray:
    if not isinstance(tensor, torch.Tensor):
        raise TypeError(f"{name} must be a tensor; got {kind_of(tensor)}")
    fault = unreadable(tensor)
    if fault:
        raise ValueError(f"{name} must be a dense tensor; it {fault}")
    tensor = tensor.detach().cpu().resolve_neg().resolve_conj()
    array: np.ndarray = (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()
    return array


def packed_to_torch(packed: Any) -> Any:
    """A PackedSequence of PyTorch's with the rows of one of this library.

    Parameters
    ----------
    packed : PackedSequence
        On the host, of at least one sequence, none of them of length 0, which PyTorch's cannot have. Its arrays are
        shared, but for those that are read-only.

    Returns
    -------
    torch.nn.utils.rnn.PackedSequence
        On the CPU. Sequences stand in the same order.

    Raises
    ------
    TypeError, ValueError
        If it is no PackedSequence of this library, is on the device, has a dtype that PyTorch has not, or has sequences
        of length 0.

    See Also
    --------
    packed_from_torch : the way back.

    Examples
    --------
    >>> import numpy as np
    >>> import torch
    >>> import numba_pack as nbp
    >>> ours = nbp.pack_sequence([np.ones((n, 3), np.float32) for n in (2, 4)])
    >>> torch.nn.utils.rnn.pad_packed_sequence(nbp.interop.torch.packed_to_torch(ours))[1]
    tensor([2, 4])
    """
    if not isinstance(packed, PackedSequence):
        raise TypeError(f"packed must be a PackedSequence of numba_pack; got {kind_of(packed, PackedSequence)}")
    packed = check_packed(packed, "packed")
    if on_device(packed.data):
        raise TypeError("packed.data must be an array on the host; got one on the device")
    running, B = int(packed.batch_sizes[0]) if len(packed.batch_sizes) else 0, len(packed.sorted_indices)
    if not running or running < B:
        raise ValueError(
            "packed must have sequences, and none of length 0, which PyTorch's PackedSequence cannot have; "
            f"got {B - running} of length 0 among {B}"
        )
    try:
        tensors = [torch.from_numpy(array if array.flags.writeable else array.copy()) for array in packed]
    except (TypeError, ValueError) as error:  # a dtype, or strides, that PyTorch has not
        raise TypeError(f"packed.data must have a dtype that PyTorch has; got {dtype_of(packed.data)}") from error
    return torch.nn.utils.rnn.PackedSequence(*tensors)
