"""Device arrays at the border: what is taken for one, and packing on the device. It is what all outside see of CUDA.

Taken is whatever has a ``__cuda_array_interface__``: arrays of Numba, CuPy, PyTorch. What is returned are Numba's; in
between an array is an `Array`, which costs the host less. Rows stay on the device; the index arrays of a
`PackedSequence`, and lengths and offsets, are NumPy arrays on the host, where they are checked.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import cuda, from_dtype, int64

from .._arguments import kind_of
from . import device
from .device import (
    MOST_BLOCKS,
    SIMULATED,
    Array,
    Kernel,
    as_numba,
    can_read,
    ceil_div,
    copy,
    described,
    memoized,
    to_device,
    view_of,
    wait_for,
    zeros,
)

__all__ = [
    "as_array", "as_device", "as_input", "as_result", "concatenated", "described", "empty", "full", "is_device",
    "joined", "move_rows", "read_only", "stacked", "swapped", "zeros",
]  # fmt: skip

#: threads of a block
THREADS = 4 if SIMULATED else 256

# ---- what is taken ---------------------------------------------------------------------------------------------------


def is_device(value: Any) -> bool:
    """Whether a value is an array on a device."""
    return (
        type(value) is Array or getattr(value, "__cuda_ndarray__", False) or hasattr(value, "__cuda_array_interface__")
    )


def as_device(value: Any, name: str) -> Any:
    """A device array, checked, and enqueued behind the work that makes it: as it is, or an `Array` that shares it.

    It is Numba's as it is, and is an `Array` if it is of another library.
    """
    if type(value) is Array:
        return value
    if getattr(value, "__cuda_ndarray__", False):
        array, strides, made_on = value, value.strides, value.stream
    else:
        given = value.__cuda_array_interface__
        strides, pointer = given.get("strides"), given.get("stream")
        made_on = cuda.external_stream(pointer) if pointer else 0
        if not can_read(given["data"][0]):
            raise ValueError(f"{name} must be on the device of the current context; got the address {given['data'][0]}")
        array = view_of(value)
    if strides and not _is_contiguous(array, strides):
        raise ValueError(f"{name} must be C-contiguous on the device; got strides {strides}")
    wait_for(made_on)
    return array


def _is_contiguous(array: Any, strides: Any) -> bool:
    """As NumPy says: what is the stride of an axis of length 1 does not matter, and of an empty array none does."""
    expected = array.dtype.itemsize
    for length, stride in zip(reversed(array.shape), reversed(strides or ()), strict=False):
        if length != 1 and stride != expected:
            return 0 in array.shape
        expected *= length
    return True


def as_array(value: Any, name: str, shape: tuple[int, ...], dtype: np.dtype[Any], letters: str = "") -> Any:
    """A device array of this shape and dtype, as `numba_pack.layers.forms.as_array` is one of NumPy."""
    if not is_device(value):
        raise TypeError(f"{name} must be on the device, as the input is; got {kind_of(value)}")
    array = view_of(as_device(value, name))
    if array.dtype != dtype:
        raise TypeError(f"{name} must have dtype {dtype}; got {array.dtype}")
    if tuple(array.shape) != shape:
        raise ValueError(
            f"{name} must have shape {letters + ' = ' if letters else ''}{shape}; got {tuple(array.shape)}"
        )
    return array


#: the input of a layer: rows, for symbols are taken from the host only
as_input = as_array

# ---- what forms and packing need -------------------------------------------------------------------------------------


def as_result(array: Any) -> Any:
    """The array as the caller gets it: one of Numba's."""
    return as_numba(array)


def empty(shape: tuple[int, ...], dtype: Any) -> Any:
    """An uninitialised array for the caller."""
    return as_numba(device.empty(shape, dtype))


def full(shape: tuple[int, ...], value: np.generic) -> Any:
    """An array for the caller, filled with a value."""
    if not any(value.tobytes()):
        return as_numba(zeros(shape, value.dtype))
    array, size = device.empty(shape, value.dtype), math.prod(shape)
    if size:
        words = _words(array, 1, size * value.dtype.itemsize)
        pattern = to_device(np.frombuffer(value.tobytes(), words.dtype).copy())
        grid = min(ceil_div(words.shape[1], THREADS), 1 << 16)
        fill_kernel(words.dtype).launch(grid, THREADS, words, pattern)
    return as_numba(array)


def joined(arrays: list[Any]) -> Any:
    """Vectors one after the other, in a new array for the caller."""
    return as_numba(concatenated(arrays, np.array([len(array) for array in arrays])))


def stacked(arrays: list[Any]) -> Any:
    """One array of all; a view, if it is one alone."""
    shape = arrays[0].shape
    if len(arrays) == 1 and arrays[0].size:
        return arrays[0].reshape((1, *shape))
    values = device.empty((len(arrays), *shape), arrays[0].dtype)
    for i, array in enumerate(arrays if math.prod(shape) else ()):
        copy(values[i], array)
    return values


def swapped(array: Any) -> Any:
    """A copy with the first two axes swapped."""
    m, n, *trailing = array.shape
    target = device.empty((n, m, *trailing), array.dtype)
    steps, each = np.full(m if n else 0, n), np.arange(n)  # as if they were m steps of n sequences
    row_bytes = math.prod(trailing) * array.dtype.itemsize
    move_rows(target, each * m, 1, array, each, n, row_bytes, steps, each)
    return target


def read_only(array: Any) -> Any:
    """The array: there is no such thing on a device."""
    return array


# ---- packing ---------------------------------------------------------------------------------------------------------


def _words(array: Any, rows: int, row_bytes: int) -> Any:
    """The array as rows of unsigned integers: bytes are moved, whatever they mean."""
    word = math.gcd(array.dtype.itemsize, 8)
    return array.view(np.dtype(f"u{word}")).reshape(rows, row_bytes // word)


@memoized
def fill_kernel(word: np.dtype[Any]) -> Kernel:
    """The kernel that writes a pattern again and again."""
    integer = from_dtype(word)

    @cuda.jit
    def fill(target, pattern):
        for i in range(cuda.grid(1), target.shape[1], cuda.gridsize(1)):
            target[0, i] = pattern[i % pattern.size]

    return Kernel(fill, (integer[:, ::1], integer[::1]))


@memoized
def move_kernel(word: np.dtype[Any]) -> Kernel:
    """The kernel that moves rows from one layout to another; see `numba_pack.packing.rows`."""
    integer = from_dtype(word)

    @cuda.jit
    def move(target, to_stride, source, of_stride, places, T):
        # places: where each step begins in a packed buffer (T + 1); and for each rank, the row at which its sequence
        # starts in the target and in the source (2, B)
        B, width = (places.size - T - 1) // 2, target.shape[1]
        item = cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x
        r, column = item // width, item % width
        for t in range(cuda.blockIdx.y, T, cuda.gridDim.y):
            if r < places[t + 1] - places[t]:
                to, of = places[T + 1 + r] + t * to_stride, places[T + 1 + B + r] + t * of_stride
                if to_stride == 0:
                    to += places[t]
                if of_stride == 0:
                    of += places[t]
                target[to, column] = source[of, column]

    return Kernel(move, (integer[:, ::1], int64, integer[:, ::1], int64, int64[::1], int64))


def move_rows(
    target: Any, to_base: np.ndarray, to_stride: int, source: Any, of_base: np.ndarray, of_stride: int,
    row_bytes: int, batch_sizes: np.ndarray, order: np.ndarray,
) -> None:  # fmt: skip
    """Copy the rows of all sequences from one layout to another: `numba_pack.packing.rows.move_rows` on the device."""
    T = len(batch_sizes)
    if T == 0 or row_bytes == 0:
        return
    to, of = (_words(view_of(array), array.nbytes // row_bytes, row_bytes) for array in (target, source))
    places = np.concatenate([[0], np.cumsum(batch_sizes), to_base[order], of_base[order]])
    grid = (ceil_div(int(batch_sizes[0]) * to.shape[1], THREADS), min(T, MOST_BLOCKS))
    move_kernel(to.dtype).launch(grid, THREADS, to, int(to_stride), of, int(of_stride), to_device(places), T)


def concatenated(arrays: list[Any], lengths: np.ndarray) -> Any:
    """Device arrays one after the other, in a new one."""
    values = device.empty((int(lengths.sum()), *arrays[0].shape[1:]), arrays[0].dtype)
    at = 0
    for array, length in zip(arrays, lengths.tolist(), strict=True):
        if length:
            copy(values[at : at + length], view_of(array))
        at += length
    return values
