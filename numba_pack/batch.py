"""What travels between the layers and an engine: the batch, the states, and what a forward pass records.

Letters as in ``cpu/scan.py``.
"""

from typing import Any, NamedTuple

import numpy as np

__all__ = ["BackResults", "Batch", "Record", "Results", "States", "no_states"]


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
    #: steps before the first of these, where the batch is a piece of another
    since: int = 0


class States(NamedTuple):
    """The states of a batch, in the caller's order of sequences; ``given`` is False for zeros (and empty arrays)."""

    #: (L * D, B, P)
    h: np.ndarray
    #: (S - 1, L * D, B, H) those besides h, as the c of an LSTM
    others: np.ndarray
    given: bool


class Record(NamedTuple):
    """What a forward pass keeps for the backward pass; empty arrays in inference. N rows in the order of the batch."""

    #: (L * D, N, W) what `Cell.step` keeps, which the backward pass turns into the gradients of the gates
    gates: np.ndarray
    #: (kept states, L * D, N, H') the states besides h that the derivative reads, as they are before each step
    cells: np.ndarray
    #: (L - 1, N, D * P) the outputs of the layers but the last
    outputs: np.ndarray
    #: (L * D, N, H') h before the projection; empty without one
    unprojected: np.ndarray


class Results(NamedTuple):
    """What a forward pass returns."""

    #: (N, D * P)
    out: Any
    #: (L * D, B, P)
    h_n: Any
    #: (S - 1, L * D, B, H)
    others_n: Any
    #: (S - 1, N, D * H) the states besides h after each step of the last layer, if they are wanted
    shown: Any


class BackResults(NamedTuple):
    """What a backward pass returns: gradients."""

    #: (N, I); empty if it was not wanted
    data: Any
    #: (L * D, B, P)
    h_0: Any
    #: (S - 1, L * D, B, H)
    others_0: Any
    #: laid out like the parameters
    parameters: np.ndarray


def no_states(dtype: np.dtype[Any]) -> States:
    """States that are zero, or gradients of states that are."""
    return _NO_STATES[dtype]


_NO_STATES = {
    np.dtype(dtype): States(np.empty((0, 0, 0), dtype), np.empty((0, 0, 0, 0), dtype), False)
    for dtype in (np.float32, np.float64)
}
