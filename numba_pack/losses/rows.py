"""What all losses but CTC share: the rows that they are of, their weights, and how they become one number."""

from __future__ import annotations

from typing import Any

import numpy as np

from .._arguments import check_floats, dtype_of, told
from ..packing.checks import as_flag
from ..packing.flat import Flat
from .passes import REDUCTIONS

__all__ = ["NO_WEIGHTS", "Rows", "as_reduction", "as_targets", "numbers_of", "readable"]

_BY_SEQUENCE = ("batchmean", "sequence_mean")
#: weights where none are given, and the sequences of rows where nobody asks
NO_WEIGHTS, _NOBODY = np.empty(0), np.empty(0, np.int64)


class Rows:
    """The rows (N, C) of a batch, which is packed, or padded (T, B, C), or rows alone; and the weight of each."""

    def __init__(self, value: Any, name: str, batch_first: bool, reduction: Any, weights: Any) -> None:
        self.batch_first = as_flag(batch_first, "batch_first")
        self.reduction = as_reduction(reduction, REDUCTIONS)
        self.flat = Flat(value, name)
        array, name = self.flat.array, self.flat.name
        check_floats(name, array, 3 if self.flat.packed is None and array.ndim == 3 else 2)
        if array.size == 0:
            raise ValueError(f"{name} must have at least one row and one column; got shape {array.shape}")
        if array.ndim == 2 and self.flat.packed is None and reduction in _BY_SEQUENCE:
            raise ValueError(
                f"{name} must be packed or padded, (T, B, C), where reduction is {reduction!r}; got shape {array.shape}"
            )
        self.shape = array.shape
        #: (N, C)
        self.data = readable(array.reshape(-1, array.shape[-1]))
        #: (N,), or `NO_WEIGHTS`
        self.weights = NO_WEIGHTS
        if weights is not None:
            given = self.like(weights, "weights")
            check_weights(given, "weights")
            self.weights = given.astype(np.float64)

    def like(self, value: Any, name: str, columns: bool = False) -> np.ndarray:
        """An array (N,), or (N, C), of what has this form as well.

        Of rows that are packed it must be packed: an array may hold its rows in any other order.
        """
        if self.flat.packed is not None and isinstance(value, np.ndarray) and len(self.flat.packed.sorted_indices) > 1:
            raise TypeError(
                f"{name} must be a PackedSequence, as {self.flat.name[:-5]} is: pack_sequence makes one of a list, and "
                f"{self.flat.name[:-5]}._replace(data=rows) of rows that lie in its order; got {told(value)}"
            )
        array, shape = self.flat.like(value, name), self.shape if columns else self.shape[:-1]
        if array.shape != shape:
            what = f"that of {self.flat.name}" if columns else f"one for each row of {self.flat.name}"
            raise ValueError(f"{name} must have shape {shape}, {what}; got {array.shape}")
        return array.reshape(-1, shape[-1]) if columns else array.reshape(-1)

    def computed(self, kernel: Any, *others: Any) -> tuple[Any, Any] | None:
        """The loss and its gradient in the form of the rows; None where the kernel finds a label or target wrong."""
        losses = np.empty(len(self.data) if self.reduction == "none" else 0)
        gradient = np.empty(self.data.shape, self.data.dtype)
        which, sequences = self._sequences() if self.reduction in _BY_SEQUENCE else (_NOBODY, 1)
        way = REDUCTIONS.index(self.reduction), sequences
        loss, right = kernel(self.data, *others, self.weights, which, way, losses, gradient)
        if not right:
            return None
        if self.reduction == "none":
            loss = self.flat.back(losses.reshape(self.shape[:-1]))
        return loss, self.flat.back(gradient.reshape(self.shape))

    def _sequences(self) -> tuple[np.ndarray, int]:
        """The sequence of each row, and how many there are."""
        packed = self.flat.packed
        if packed is not None:
            starts = np.cumsum(packed.batch_sizes) - packed.batch_sizes
            ranks = np.arange(len(self.data)) - np.repeat(starts, packed.batch_sizes)
            return ranks, len(packed.sorted_indices)
        T, B = self.shape[1::-1] if self.batch_first else self.shape[:2]
        return np.repeat(np.arange(B), T) if self.batch_first else np.tile(np.arange(B), T), B


def readable(array: np.ndarray) -> np.ndarray:
    """An array in the one form that kernels are compiled for: contiguous, and not for writing."""
    if not (array.flags.c_contiguous and array.flags.aligned):
        array = array.copy()
    array = array.view()
    array.flags.writeable = False
    return array


def as_targets(targets: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Targets for kernels: in the dtype of x if that holds them all, and else in float64."""
    dtype = x.dtype if np.can_cast(targets.dtype, x.dtype) else np.dtype(np.float64)
    return readable(targets.astype(dtype, copy=False))


def as_reduction(value: Any, known: tuple[str, ...]) -> str:
    """A word for how losses become one number."""
    if not isinstance(value, str) or value not in known:
        raise ValueError(f"reduction must be {', '.join(map(repr, known[:-1]))} or {known[-1]!r}; got {value!r}")
    return value


def check_weights(weights: np.ndarray, name: str) -> None:
    """Check for numbers, finite and at least 0."""
    if weights.dtype.kind not in "biuf":
        raise TypeError(f"{name} must be numbers; got {dtype_of(weights)}")
    if (weights.dtype.kind == "f" and not np.isfinite(weights).all()) or (weights < 0).any():
        wrong = weights[~np.isfinite(weights) | (weights < 0)]
        raise ValueError(f"{name} must be finite and at least 0; got {wrong[0]}")


def numbers_of(value: Any, name: str, columns: int) -> np.ndarray:
    """A number of each column, finite and at least 0; `NO_WEIGHTS` if there are none."""
    if value is None:
        return NO_WEIGHTS
    array = Flat(value, name).array
    check_weights(array, name)
    if array.shape != (columns,):
        raise ValueError(f"{name} must have shape ({columns},), one for each column; got {array.shape}")
    return array.astype(np.float64)
