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

from .._jit import jit
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
    rows = np.empty(T + 1 + 2 * B, np.int64)
    _fill(batch_sizes, order, rows)
    return BatchLayout(to_device(rows), rows[: T + 1], T, B, int(batch_sizes[0]) if T else 0)


@jit
def _fill(batch_sizes, order, rows):
    T, B = len(batch_sizes), len(order)
    rows[0] = 0
    for t in range(T):
        rows[t + 1] = rows[t] + batch_sizes[t]
    ends = T + 1 + B
    for r in range(B):
        rows[T + 1 + r], rows[ends + r] = order[r], -1
    for t in range(T):
        done = batch_sizes[t + 1] if t + 1 < T else 0
        for r in range(done, batch_sizes[t]):  # whose last step this is
            rows[ends + r] = rows[t] + r
