"""Where the rows of a packed batch lie, as the kernels read it: one array of integers on the device.

    ========================= =============================================================
    ``layout[t]``             the row at which step t begins, t from 0 to T (there N)
    ``layout[T + 1 + r]``     the caller's number of the sequence of rank r, r from 0 to B - 1
    ``layout[T + 1 + B + r]`` the row of its last step; -1 if it has none
    ========================= =============================================================

One array, because each that a kernel is given costs the launch some microseconds.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from .device import to_device

__all__ = ["BatchLayout", "batch_layout"]


class BatchLayout(NamedTuple):
    """The layout of a batch, and its sizes."""

    #: (T + 1 + 2 B,) int64, on the device
    rows: Any
    #: (T + 1,) its first part, on the host
    starts: np.ndarray
    T: int
    B: int
    #: sequences that are not empty
    active: int


def batch_layout(batch_sizes: np.ndarray, order: np.ndarray) -> BatchLayout:
    """The layout of a batch with these batch sizes (T,) and this order (B,)."""
    T, B = len(batch_sizes), len(order)
    starts = np.zeros(T + 1, np.int64)
    np.cumsum(batch_sizes, out=starts[1:])
    ranks = np.arange(B)
    last = T - 1 - np.searchsorted(batch_sizes[::-1], ranks, side="right")  # the last step of more rows than the rank
    ends = np.where(last >= 0, starts[last] + ranks, -1)
    return BatchLayout(to_device(np.concatenate([starts, order, ends])), starts, T, B, int(batch_sizes[0]) if T else 0)
