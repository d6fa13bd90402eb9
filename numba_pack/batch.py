"""What travels between the layers and an engine: the batch, the states, and what a forward pass records.

Letters as in ``cpu/scan.py``.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

__all__ = ["Batch", "Record", "States", "no_states"]


class Batch(NamedTuple):
    """A packed batch: `PackedSequence`, as far as the scans read it."""

    #: (N, I), or (N,) symbols in int64; of what a kernel is given, only the address counts
    data: np.ndarray
    #: (T,)
    batch_sizes: np.ndarray
    #: (B,) the caller's number of each sorted sequence
    order: np.ndarray
    #: N
    rows: int
    #: whether the data are symbols
    symbols: bool = False


class States(NamedTuple):
    """The states of a batch, in the caller's order of sequences; ``given`` is False for zeros (and empty arrays)."""

    #: (L * D, B, P)
    h: np.ndarray
    #: (L * D, B, H); for cells without c not read
    c: np.ndarray
    given: bool


class Record(NamedTuple):
    """What a forward pass keeps for the backward pass; empty arrays in inference. N rows in the order of the batch."""

    #: (L * D, N, W) the gates, as `Cell.step` leaves them; the backward pass turns them into their gradients
    gates: np.ndarray
    #: (L * D, N, H') c before each step; empty for cells without c
    cells: np.ndarray
    #: (L - 1, N, D * P) the outputs of the layers but the last
    outputs: np.ndarray
    #: (L * D, N, H') h before the projection; empty without one
    unprojected: np.ndarray


def no_states(dtype: np.dtype[Any]) -> States:
    """States that are zero, or gradients of states that are."""
    return _NO_STATES[dtype]


_NO_STATES = {
    np.dtype(dtype): States(np.empty((0, 0, 0), dtype), np.empty((0, 0, 0), dtype), False)
    for dtype in (np.float32, np.float64)
}
