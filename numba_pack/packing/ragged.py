"""Ragged data: sequence after sequence in one array, with the offsets where each starts; and other forms of the same.

It is what Arrow, Awkward Array and PyTorch's nested tensors keep, each in its own form. Those forms are taken as they
are, and given back: `pack_ragged` lists them, and `numba_pack.packing.foreign` finds the module that reads one. Shape
letters are those of `numba_pack.packing.sequences`. Both functions can be called from Python and from ``@njit`` code,
which knows no other forms than arrays and lists of arrays.
"""

from __future__ import annotations

import typing
from typing import Any

import numpy as np
from numba import types
from numba.core.errors import TypingError

from .._jit import inner, overload
from .checks import as_integers, as_rows, lengths_between, offsets_fault, refuse
from .foreign import in_form_of
from .rows import movable, row_bytes_of
from .sequences import PackedSequence, check_packed, pack_rows, rows_of, unpack_values

__all__ = ["pack_ragged", "unpack_ragged"]


def pack_ragged(values: Any, offsets: Any = None) -> PackedSequence:
    """Pack a ragged buffer, or ragged data of another library.

    ================================================================== ========= ====================================
    form                                                               copied    given back by `unpack_ragged`
    ================================================================== ========= ====================================
    values ``(N, *)`` and offsets: NumPy's, or of any library whose    no        (values, offsets)
    arrays NumPy or DLPack takes (PyTorch, JAX, Arrow, ...)
    list, tuple or object array of arrays                              no        ``like="objects"``
    lists of lists of numbers, or of rows                              yes       ``like="lists"``
    Awkward Array: ``var * float32``, ``var * 12 * float32``, ...      no        ``like="awkward"``
    Arrow: ListArray, LargeListArray, FixedSizeListArray, ...          no        ``like="pyarrow"``
    Arrow: ChunkedArray of several chunks, list views, bools           yes       ``like="pyarrow"``
    pandas: a column of arrays, or of Arrow's lists                    no        ``like="pandas"``
    polars: a column of lists or arrays                                no        ``like="polars"``
    PyTorch: nested tensors (B, j, *)                                  no        ``like="torch"``
    ================================================================== ========= ====================================

    *Copied* tells what happens before the rows are packed; packing itself always moves them. Slices of the forms are
    forms as well. Rows of one size may be lists: Arrow's ``list<list<float>>`` will do for
    ``list<fixed_size_list<float>>``.

    Parameters
    ----------
    values : ndarray, shape (N, *), or one of the forms above
        The rows, sequence after sequence.
    offsets : array or list of int, shape (B + 1,), optional
        Sequence i is ``values[offsets[i]:offsets[i + 1]]``. Starts at 0, never falls, ends at N. Any integers will do,
        as int32 ``cu_seqlens`` do. Left out where the values have the form of sequences.

    Returns
    -------
    PackedSequence
        A copy: it shares no memory with ``values``. The dtype is kept. Lists of Python's numbers get the one that
        NumPy finds for all of them: int64, float64 or complex128.

    Raises
    ------
    TypeError
        If ``values`` is not an array of numbers, or the offsets are not integers; if the data hold anything else, such
        as records, strings or dates, or lie on a device that the backend does not run on.
    ValueError
        If ``values`` has no axes, or the offsets are not as above; at least one sequence is needed. If a sequence, a
        row or a number is missing (None, Arrow's null, pandas' NA): the error tells where.
    ImportError
        If a form needs a library that is not installed.

    See Also
    --------
    pack_sequence : takes the same forms, and can enforce the order.

    Examples
    --------
    >>> import numpy as np
    >>> import numba_pack as nbp
    >>> packed = nbp.pack_ragged(np.array([1, 2, 3, 4, 5, 6]), [0, 2, 5, 5, 6])
    >>> packed.lengths
    array([2, 3, 0, 1])
    >>> nbp.pack_ragged([[1.5, 2.5], [], [3.5]]).data
    array([1.5, 3.5, 2.5])
    """
    return pack_rows(ragged_rows(values, offsets), False)


def ragged_rows(values: Any, offsets: Any) -> Any:
    """What `rows_of` gives, for a ragged buffer."""
    if offsets is not None:
        return _between(values, offsets)
    if isinstance(values, np.ndarray) and values.dtype != object:
        raise TypeError("offsets must be given where values is one array; got None")
    return rows_of(values, "values")


@overload(ragged_rows)
def _ragged_rows_in_njit(values, offsets):
    if not isinstance(offsets, (types.NoneType, types.Omitted)):
        return lambda values, offsets: _between(values, offsets)
    if isinstance(values, types.Array):
        raise TypingError("offsets must be given where values is one array; got None")
    return lambda values, offsets: rows_of(values, "values")


@inner
def _between(values, offsets):
    rows = as_rows(values, "values", 1)
    starts = as_integers(offsets, "offsets")
    lengths = np.empty(max(len(starts) - 1, 0), np.int64)
    if not lengths_between(starts, len(rows), lengths):
        refuse(offsets_fault(starts, len(rows)), "offsets")
    return [rows], movable(rows), starts, row_bytes_of(rows), lengths


@typing.overload
def unpack_ragged(packed: PackedSequence, like: None = None) -> tuple[np.ndarray, np.ndarray]: ...


@typing.overload
def unpack_ragged(packed: PackedSequence, like: Any) -> Any: ...


def unpack_ragged(packed: PackedSequence, like: Any = None) -> Any:
    """Unpack into a ragged buffer, or into the form of another library: the inverse of `pack_ragged`.

    Parameters
    ----------
    packed : PackedSequence
    like : {"lists", "objects", "awkward", "pyarrow", "pandas", "polars", "torch"} or an array, optional
        The form of the result: its name, or an example, usually what was packed. It decides the form, but neither the
        dtype nor the shape. An example decides more than a name: whether an Arrow array is large or chunked; the name
        of a column, its index if it has as many sequences, and whether it is one of Arrow's. For a list of arrays the
        result is a list of arrays; for an array of another library with DLPack, values and offsets of that library.

    Returns
    -------
    values : ndarray, shape (N, *)
        The rows, sequence after sequence in the caller's order. A copy.
    offsets : ndarray of int64, shape (B + 1,)
        These two without ``like``. Otherwise one object of that form, which shares their memory wherever the form can.
        Lists cannot; nor can Arrow's bools, which are bits, and its offsets, unless they are large and not int32.

    Raises
    ------
    TypeError, ValueError
        If ``packed`` is not valid: see `check_packed`. If ``like`` is not a form, or cannot hold the dtype.
    ImportError
        If the form needs a library that is not installed.

    Examples
    --------
    >>> import numpy as np
    >>> import numba_pack as nbp
    >>> packed = nbp.pack_sequence([np.array([1, 2]), np.array([3, 4, 5])])
    >>> nbp.unpack_ragged(packed)
    (array([1, 2, 3, 4, 5]), array([0, 2, 5]))
    >>> nbp.unpack_ragged(packed, like="lists")
    [[1, 2], [3, 4, 5]]
    """
    return in_form(like, unpack_values(check_packed(packed, "packed")))


def in_form(like: Any, buffer: tuple[np.ndarray, np.ndarray]) -> Any:
    """Values and offsets, as they are or in another form."""
    return buffer if like is None else in_form_of(like, *buffer)


@overload(in_form)
def _in_form_in_njit(like, buffer):
    if not isinstance(like, (types.NoneType, types.Omitted)):
        raise TypingError(f"like must be None in compiled code, which knows no other forms; got {like}")
    return lambda like, buffer: buffer


for _function in (pack_ragged, unpack_ragged):
    inner(_function)
