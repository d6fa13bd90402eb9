"""Memory that is used again: a training step asks for the same buffers as the step before.

Fresh memory is not there until it is touched: the kernel of the operating system maps it page by page, which took up to
half as long as the forward pass that first wrote to it. So buffers that a backward pass is done with are kept for the
next forward pass. Large ones are not: NumPy asks for huge pages for those, which are mapped quickly.
"""

from __future__ import annotations

import os
import threading
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
    """Buffers given back, for the next who asks for about their size."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: list[np.ndarray] = []  # of uint8, oldest first

    def take(self, count: int, dtype: np.dtype[Any]) -> np.ndarray:
        """An uninitialised array (count,) on a cache line's boundary."""
        size = count * dtype.itemsize + ALIGNMENT
        with self._lock:
            fitting = [i for i, buffer in enumerate(self._kept) if size <= buffer.size <= 2 * size]
            buffer = self._kept.pop(fitting[-1]) if fitting else np.empty(size, np.uint8)
        skip = -buffer.__array_interface__["data"][0] % ALIGNMENT
        return buffer[skip : skip + count * dtype.itemsize].view(dtype)

    def give(self, array: np.ndarray) -> None:
        """Give back what `take` returned; nobody may use it any more."""
        buffer = array
        while isinstance(buffer.base, np.ndarray):
            buffer = buffer.base
        if buffer.dtype != np.uint8 or buffer.ndim != 1 or not 4096 < buffer.size <= LARGEST:
            return  # not one of ours, or not worth it
        with self._lock:
            self._kept.append(buffer)
            while sum(kept.size for kept in self._kept) > MOST:
                del self._kept[0]


WORKSPACE = Workspace()

if hasattr(os, "register_at_fork"):  # another thread may have held the lock
    os.register_at_fork(after_in_child=WORKSPACE.__init__)  # type: ignore[misc]
