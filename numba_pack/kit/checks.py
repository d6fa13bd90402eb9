"""Checks of float rows and of batches that belong together, for functions of Python and of ``@njit`` code.

As in `numba_pack.packing.checks`, below each function stands its form for ``@njit`` code.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types
from numba.core.errors import TypingError

from .._arguments import dtype_of, kind_of
from .._jit import inner, jit, overload
from ..packing.checks import ArgumentError, as_rows, constant, refuse
from ..packing.sequences import PackedSequence, check_packed, typed_packed

__all__ = ["as_floats", "as_matrix", "as_rows_like", "as_step", "check_alike", "check_dtype", "in_form_of"]


def as_floats(rows: Any, name: str) -> Any:
    """Rows of float32 or float64, on the host; as a view that is read-only, so that kernels see one type of array."""
    if type(rows) is not np.ndarray:
        raise TypeError(f"{name} must be a NumPy array; got {kind_of(rows, np.ndarray)}")
    if rows.dtype not in (np.float32, np.float64):
        raise TypeError(f"{name} must have dtype float32 or float64; got {dtype_of(rows)}")
    shown = rows.view()
    shown.flags.writeable = False
    return shown


@overload(as_floats, prefer_literal=True)
def _as_floats_in_njit(rows, name):
    if not isinstance(rows, types.Array) or rows.dtype not in (types.float32, types.float64):
        raise TypingError(f"{constant(name)} must be an array of float32 or float64; got {rows}")
    return lambda rows, name: rows


def check_dtype(rows: Any, name: str, like: Any) -> None:
    """Check that rows have the dtype of those of queries, or of an output."""
    if rows.dtype != like.dtype:
        raise TypeError(f"{name} must have dtype {like.dtype}, as what comes before it has; got {dtype_of(rows)}")


@overload(check_dtype, prefer_literal=True)
def _check_dtype_in_njit(rows, name, like):
    if rows.dtype != like.dtype:
        raise TypingError(
            f"{constant(name)} must have dtype {like.dtype}, as what comes before it has; got {rows.dtype}"
        )
    return lambda rows, name, like: None


@inner
def _alike_fault(batch_sizes, sorted_indices, other_sizes, other_indices):
    if len(other_sizes) != len(batch_sizes):
        return ".batch_sizes must have the length of the other's: expected", len(other_sizes), len(batch_sizes), -1
    for t in range(len(batch_sizes)):
        if other_sizes[t] != batch_sizes[t]:
            return ".batch_sizes must be the other's: expected", other_sizes[t], batch_sizes[t], t
    if len(other_indices) != len(sorted_indices):
        got = len(other_indices)
        return ".sorted_indices must have the length of the other's: expected", got, len(sorted_indices), -1
    for r in range(len(sorted_indices)):
        if other_indices[r] != sorted_indices[r]:
            return ".sorted_indices must be the other's: expected", other_indices[r], sorted_indices[r], r
    return "", 0, 0, -1


@jit
def _alike(batch_sizes, sorted_indices, other_sizes, other_indices):
    return len(_alike_fault(batch_sizes, sorted_indices, other_sizes, other_indices)[0]) == 0


def check_alike(packed: PackedSequence, other: PackedSequence, name: str) -> None:
    """Check that a batch, called ``name``, is packed as another is: else rows would be taken for other sequences'."""
    if other.batch_sizes is not packed.batch_sizes or other.sorted_indices is not packed.sorted_indices:
        _check_alike(packed, other, name)


@inner
def _check_alike(packed, other, name):
    fields = packed.batch_sizes, packed.sorted_indices, other.batch_sizes, other.sorted_indices
    if not _alike(*fields):
        refuse(_alike_fault(*fields), name)


@overload(check_alike, prefer_literal=True)
def _check_alike_in_njit(packed, other, name):
    return lambda packed, other, name: _check_alike(packed, other, name)


def as_matrix(rows: Any, name: str) -> Any:
    """Floats (N, columns)."""
    rows = as_floats(rows, name)
    if rows.ndim != 2:
        raise ValueError(f"{name} must have shape (rows, columns); got {rows.shape}")
    return rows


@overload(as_matrix, prefer_literal=True)
def _as_matrix_in_njit(rows, name):
    if not isinstance(rows, types.Array) or rows.ndim != 2:
        raise TypingError(f"{constant(name)} must be an array of two axes; got {rows}")
    return lambda rows, name: as_floats(rows, name)


# What is asked of sequences is a row for each step of a decoder, packed, or one row for each sequence, (B, columns).


def as_step(given: Any, name: str) -> PackedSequence:
    """A checked PackedSequence: of an array (B, columns) the one of one step."""
    if isinstance(given, PackedSequence):
        return check_packed(given, name)
    rows = as_rows(given, name, 2)
    B = len(rows)
    order = np.arange(B)
    return PackedSequence(rows, np.full(min(B, 1), B), order, order)


@overload(as_step, prefer_literal=True)
def _as_step_in_njit(given, name):
    if not isinstance(given, types.Array):
        typed_packed(given, constant(name))
        return lambda given, name: check_packed(given, name)

    def of_array(given, name):
        rows, B = as_rows(given, name, 2), len(given)
        return PackedSequence(rows, np.full(min(B, 1), B), np.arange(B), np.arange(B))

    return of_array


def in_form_of(given: Any, packed: PackedSequence, rows: np.ndarray) -> Any:
    """Rows in the form of what `as_step` made a batch of."""
    return PackedSequence(rows, *packed[1:]) if isinstance(given, PackedSequence) else rows


@overload(in_form_of)
def _in_form_of_in_njit(given, packed, rows):
    if isinstance(given, types.Array):
        return lambda given, packed, rows: rows
    return lambda given, packed, rows: PackedSequence(rows, packed[1], packed[2], packed[3])


def as_rows_like(value: Any, name: str, packed: PackedSequence, columns: int) -> Any:
    """Rows (N, columns), in the dtype of a batch: of one that is packed in the same way, or the rows alone."""
    if isinstance(value, PackedSequence):
        value = check_packed(value, name)
        check_alike(packed, value, name)
        value, name = value.data, f"{name}.data"
    rows = as_matrix(as_rows(value, name, 2), name)
    check_dtype(rows, name, packed.data)
    check_shape(rows, name, len(packed.data), columns)
    return rows


@overload(as_rows_like, prefer_literal=True)
def _as_rows_like_in_njit(value, name, packed, columns):
    def of_rows(value, name, packed, columns):
        rows = as_matrix(as_rows(value, name, 2), name)
        check_dtype(rows, name, packed.data)
        check_shape(rows, name, len(packed.data), columns)
        return rows

    def of_packed(value, name, packed, columns):
        batch = check_packed(value, name)
        check_alike(packed, batch, name)
        return of_rows_inner(batch.data, name, packed, columns)

    of_rows_inner = inner(of_rows)
    if isinstance(value, types.Array):
        return of_rows
    typed_packed(value, constant(name))
    return of_packed


@inner
def check_shape(rows, name, count, columns):
    """Check for a shape (count, columns)."""
    if len(rows) != count:
        raise ArgumentError(name, " must have one row for each row of queries: expected", len(rows), count, -1)
    if rows.shape[1] != columns:
        raise ArgumentError(name, " must have as many columns as there are: expected", rows.shape[1], columns, -1)
