"""Memory that is used again: a training step asks for the same buffers as the step before.

Fresh memory is not there until it is touched: the kernel of the operating system maps it page by page, which took up to
half as long as the forward pass that first wrote to it. So buffers that a backward pass is done with are kept for the
next forward pass. Large ones are not: NumPy asks for huge pages for those, which are mapped quickly.

There is no lock: a signal handler, or what Python calls when it frees memory, would wait for ever if it interrupted the
holder, and so would a forked process if another thread was the holder. A buffer belongs to whoever got it from
``dict.pop``.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

__all__ = ["WORKSPACE", "Workspace"]

#: bytes of a vector register, at most, and of a cache line
ALIGNMENT = 64
#: buffers larger than this are not kept
LARGEST = 16 << 20
#: bytes kept at most, in the whole process
MOST = 64 << 20


class Workspace:
    """Buffers that were given back, for whoever asks next for about their size."""

    def __init__(self) -> None:
        self._kept: dict[int, np.ndarray] = {}  # of uint8, oldest first
        self._numbers = itertools.count()

    def take(self, count: int, dtype: np.dtype[Any]) -> np.ndarray:
        """An uninitialised array (count,) on a cache line's boundary."""
        size = count * dtype.itemsize + ALIGNMENT
        buffer = None
        for number, kept in reversed(self._kept.copy().items()):
            if size <= kept.size <= 2 * size and (buffer := self._kept.pop(number, None)) is not None:
                break
        if buffer is None:
            buffer = np.empty(size, np.uint8)
        skip = -buffer.__array_interface__["data"][0] % ALIGNMENT
        return buffer[skip : skip + count * dtype.itemsize].view(dtype)

    def give(self, array: np.ndarray) -> None:
        """Give back what `take` returned; nobody may use it any more."""
        buffer = array
        while isinstance(buffer.base, np.ndarray):
            buffer = buffer.base
        if buffer.dtype != np.uint8 or buffer.ndim != 1 or not 4096 < buffer.size <= LARGEST:
            return  # not one of ours, or not worth it
        self._kept[next(self._numbers)] = buffer
        kept = self._kept.copy()
        total = sum(buffer.size for buffer in kept.values())
        for number, buffer in kept.items():
            if total <= MOST:
                break
            total -= buffer.size
            self._kept.pop(number, None)


WORKSPACE = Workspace()
