"""Memory that is used again: a training step asks for the same buffers as the step before.

Fresh memory is not there until it is touched: the kernel of the operating system maps it page by page, which took up to
half as long as the forward pass that first wrote to it. So buffers that a backward pass is done with are kept for the
next forward pass. Large ones are offered to the system meanwhile, where it can be told so: it takes their pages before
it lets a program wait or fail for want of memory, and else they are there. Elsewhere they are not kept.

There is no lock: a signal handler, or what Python calls when it frees memory, would wait for ever if it interrupted the
holder, and so would a forked process if another thread was the holder. A buffer belongs to whoever got it from
``dict.pop``.
"""

from __future__ import annotations

import ctypes
import functools
import itertools
import sys
from typing import Any
from weakref import ref

import numpy as np

from ..packing.objects import address_of

__all__ = ["ALIGNMENT", "WORKSPACE", "Workspace"]

#: bytes of a vector register, at most, and of a cache line
ALIGNMENT = 64
#: bytes below which a buffer is not worth to be kept
SMALLEST = 4096
#: buffers larger than this are large: held only where the system may have their pages back
LARGEST = 16 << 20
#: bytes kept at most, in the whole process; and of large buffers
MOST, MOST_LARGE = 64 << 20, 256 << 20
#: the whole pages of a large buffer are offered, so that none of these has to be divided
HUGE_PAGE = 2 << 20
#: of madvise: the pages may be taken, without their contents, until they are next written to
_MADV_FREE = 8


def _madvise() -> Any:
    """The system's function, or None if there is none that offers pages."""
    if not sys.platform.startswith("linux"):
        return None
    found = getattr(ctypes.CDLL(None), "madvise", None)
    if found is not None:
        found.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    return found


_advise = _madvise()


def _offered(buffer: np.ndarray) -> bool:
    """Let the system have the pages of a buffer, whose contents are lost then; whether it was told so."""
    at = address_of(buffer)
    first, last = -(-at // HUGE_PAGE) * HUGE_PAGE, (at + buffer.size) // HUGE_PAGE * HUGE_PAGE
    return _advise is not None and first < last and _advise(first, last - first, _MADV_FREE) == 0


class Workspace:
    """Buffers that were given back, for whoever asks next for about their size."""

    def __init__(self) -> None:
        self._kept: dict[int, np.ndarray] = {}  # of uint8, oldest first
        self._numbers = itertools.count()
        #: those that someone has, by the addresses that they were given
        self._lent: dict[int, ref[np.ndarray]] = {}

    def take(self, count: int) -> np.ndarray:
        """So many bytes, uninitialised, on a cache line's boundary."""
        for number, kept in reversed(self._kept.copy().items() if count + ALIGNMENT > SMALLEST else ()):
            if count <= kept.size <= 2 * count:
                skip = -address_of(kept) % ALIGNMENT
                if skip + count <= kept.size and self._kept.pop(number, None) is not None:
                    return self._lend(kept, count)
        return self._lend(np.empty(count + ALIGNMENT, np.uint8), count)

    def _lend(self, buffer: np.ndarray, count: int) -> np.ndarray:
        at = address_of(buffer)
        skip = -at % ALIGNMENT
        if buffer.size > SMALLEST:  # and forget it when nobody has it any more, in one step
            self._lent[at + skip] = ref(buffer, functools.partial(self._lent.pop, at + skip))
        return buffer[skip : skip + count]

    def give(self, *arrays: np.ndarray) -> None:
        """Give back what `take` returned, in whatever form; nobody may use it any more. Other memory is left alone."""
        for array in arrays:
            lent = self._lent.pop(address_of(array), None)
            buffer = None if lent is None else lent()
            if buffer is None or buffer.size > MOST_LARGE:
                continue
            if buffer.size <= LARGEST or _offered(buffer):
                self._kept[next(self._numbers)] = buffer
        self._drop_oldest()

    def _drop_oldest(self) -> None:
        left, left_large = MOST, MOST_LARGE
        for number, kept in reversed(self._kept.copy().items()):
            if kept.size > LARGEST:
                left_large -= kept.size
            else:
                left -= kept.size
            if (left_large if kept.size > LARGEST else left) < 0:
                self._kept.pop(number, None)


WORKSPACE = Workspace()
