"""What all losses but CTC share: the rows that they are of, their weights, and how they become one number."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from .._arguments import check_floats, dtype_of
from ..packing.checks import as_flag
from ..packing.flat import Flat

__all__ = ["Rows", "as_reduction", "numbers_of"]

_BY_SEQUENCE = ("batchmean", "sequence_mean")
_REDUCTIONS = ("mean", "sum", "none", *_BY_SEQUENCE)
#: numbers that are computed at once in float64: they stay in the second cache, and the allocator gives the same memory
#: again, where it would take fresh pages from the system for 128 KiB
_BLOCK = 1 << 13


class Rows:
    """The rows (N, C) of a batch, which is packed, or padded (T, B, C), or rows alone."""

    def __init__(self, value: Any, name: str, batch_first: bool, reduction: Any) -> None:
        self.batch_first = as_flag(batch_first, "batch_first")
        self.reduction = as_reduction(reduction, _REDUCTIONS)
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
        self.data = array.reshape(-1, array.shape[-1])

    def like(self, value: Any, name: str, columns: bool = False) -> np.ndarray:
        """An array (N,), or (N, C), of what has this form as well."""
        array, shape = self.flat.like(value, name), self.shape if columns else self.shape[:-1]
        if array.shape != shape:
            what = f"that of {self.flat.name}" if columns else f"one for each row of {self.flat.name}"
            raise ValueError(f"{name} must have shape {shape}, {what}; got {array.shape}")
        return array.reshape(-1, shape[-1]) if columns else array.reshape(-1)

    def weights(self, value: Any) -> np.ndarray:
        """The weight of each row: 1 if none are given."""
        if value is None:
            return np.ones(len(self.data))
        weights = self.like(value, "weights")
        check_weights(weights, "weights")
        return weights.astype(np.float64)

    def computed(
        self,
        used: np.ndarray,
        counts: np.ndarray,
        block: Callable[[np.ndarray, slice, np.ndarray], tuple[np.ndarray, np.ndarray]],
    ) -> tuple[Any, Any]:
        """The loss and the gradient in the form of the rows.

        `block` gets rows (n, C), where they lie among all, and the factor of the gradient of each; it returns their
        losses, weighted, and the gradients. Rows that are not used may hold anything. In a mean each row counts as much
        as `counts` tell.
        """
        losses, gradient = np.empty(len(self.data)), np.empty(self.data.shape, self.data.dtype)
        scale, reduced = self._reduction(used, counts)
        size = max(1, _BLOCK // self.data.shape[1])
        for start in range(0, len(losses), size):
            part = slice(start, start + size)
            losses[part], gradient[part] = block(self.data[part], part, scale[part])
        if not used.all():
            losses[~used], gradient[~used] = 0, 0
        return reduced(losses), self.flat.back(gradient.reshape(self.shape))

    def _reduction(
        self, used: np.ndarray, counts: np.ndarray
    ) -> tuple[np.ndarray, Callable[[np.ndarray], float | np.ndarray]]:
        """The derivative of the loss with respect to that of each row, and what makes the loss of these."""
        counts = np.where(used, counts, 0.0)
        scale = np.ones(len(counts))
        if self.reduction == "none":
            return scale, lambda losses: self.flat.back(losses.reshape(self.shape[:-1]))
        if self.reduction == "mean":
            scale *= _inverse(counts.sum())
        elif self.reduction == "batchmean":
            scale /= self._sequences()[1]
        elif self.reduction == "sequence_mean":
            which, sequences = self._sequences()
            totals = np.bincount(which, counts, sequences)
            scale = (_inverse(totals) * _inverse(np.count_nonzero(totals)))[which]
        means = self.reduction in ("mean", "sequence_mean")
        nothing = means and not counts.any()
        return scale, lambda losses: math.nan if nothing else float((losses * scale).sum())

    def _sequences(self) -> tuple[np.ndarray, int]:
        """The sequence of each row, and how many there are."""
        packed = self.flat.packed
        if packed is not None:
            starts = np.cumsum(packed.batch_sizes) - packed.batch_sizes
            ranks = np.arange(len(self.data)) - np.repeat(starts, packed.batch_sizes)
            return ranks, len(packed.sorted_indices)
        T, B = self.shape[1::-1] if self.batch_first else self.shape[:2]
        return np.repeat(np.arange(B), T) if self.batch_first else np.tile(np.arange(B), T), B


def _inverse(totals: Any) -> Any:
    """The inverse, and 0 of 0."""
    totals = np.asarray(totals, np.float64)
    return np.where(totals > 0, 1 / totals, 0.0)


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
    """A number of each column, finite and at least 0."""
    array = Flat(value, name).array
    check_weights(array, name)
    if array.shape != (columns,):
        raise ValueError(f"{name} must have shape ({columns},), one for each column; got {array.shape}")
    return array.astype(np.float64)
