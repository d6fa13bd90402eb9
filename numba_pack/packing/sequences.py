"""Packed sequences: ragged batches in one buffer with no padding, and the functions that pack, pad and unpack.

Shape letters: B sequences, of which the longest has T time steps; N rows, the sum of the lengths; ``*`` stands for the
trailing axes of a row, which may be none. Layouts: packed ``data (N, *)``, time step after time step; padded
``(T, B, *)``, or ``(B, T, *)`` with ``batch_first``; ragged ``values (N, *)``, sequence after sequence (see
`numba_pack.packing.ragged`).

Every function here can be called from Python and from ``@njit`` code, which compiles the same source: what differs
between the two, the checks of types above all, stands in pairs of a function and its overload (see `checks`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple, NoReturn

import numpy as np
from numba import literal_unroll, types
from numba.core.errors import TypingError
from numba.extending import overload_attribute

from .._arguments import kind_of, name_of
from .._backend import device, on_device
from .._jit import inner, overload
from .checks import (
    INT64,
    NO_LIMIT,
    ArgumentError,
    are_index,
    as_chosen,
    as_dtype,
    as_flag,
    as_integers,
    as_left,
    as_number,
    as_ragged,
    as_rows,
    as_sequences,
    as_steps,
    chosen_fault,
    constant,
    inverted,
    is_packed,
    native,
    packed_fault,
    padding_of,
    picked,
    refuse,
    total_of,
    typed_rows,
    typed_sequences,
)
from .display import draw, html_of, packed_table
from .foreign import Ragged, library_of
from .objects import find_rows
from .rows import (
    buffer_of,
    copy_bytes,
    empty_rows,
    lengths_in_order,
    movable,
    move,
    move_apart,
    offsets_in_order,
    offsets_of,
    padded_layout,
    row_bytes_of,
    sort_sequences,
)

__all__ = [
    "PackedSequence",
    "check_packed",
    "concatenate",
    "invert_permutation",
    "pack_padded_sequence",
    "pack_rows",
    "pack_sequence",
    "pad_packed_sequence",
    "pad_sequence",
    "rows_of",
    "select",
    "typed_packed",
    "unpack_into",
    "unpack_sequence",
    "unpad_sequence",
]


class PackedSequence(NamedTuple):
    """A ragged batch without padding: the rows of time step 0, then those of time step 1, and so on.

    Within a time step the rows stand by length, longest sequence first, so that the sequences that go on are always
    the first ones. Made by `pack_sequence`, `pack_padded_sequence` and `pack_ragged`. All four fields are always
    arrays, so that ``@njit`` code takes a PackedSequence as it is. It is a tuple of these four: to count its sequences
    take ``len(packed.lengths)``, to loop over them `unpack_sequence`, and to compute with its rows `map` or `each`.

    Attributes
    ----------
    data : ndarray, shape (N, *)
        The rows. N is the sum of the lengths. Where the backend is ``cuda``, they may be on the device; the other
        fields never are.
    batch_sizes : ndarray of int64, shape (T,)
        How many sequences have a row at each time step: positive, never growing, summing to N.
    sorted_indices : ndarray of int64, shape (B,)
        ``sorted_indices[r]`` is the place, in the caller's order, of the sequence of rank r. Sequences of length 0 are
        the last and have no rows.
    unsorted_indices : ndarray of int64, shape (B,)
        The inverse: ``unsorted_indices[i]`` is the rank of the caller's sequence i.

    Examples
    --------
    >>> import numpy as np
    >>> import numba_pack as nbp
    >>> packed = nbp.pack_sequence([np.array([1, 2]), np.array([3, 4, 5]), np.array([6])])
    >>> packed.data
    array([3, 1, 6, 4, 2, 5])
    >>> packed.batch_sizes
    array([3, 2, 1])
    >>> packed.lengths
    array([2, 3, 1])
    """

    data: np.ndarray
    batch_sizes: np.ndarray
    sorted_indices: np.ndarray
    unsorted_indices: np.ndarray

    @property
    def lengths(self) -> np.ndarray:
        """The lengths in the caller's order, int64, shape (B,); in ``@njit`` code, too."""
        packed = check_packed(self, "self")
        return lengths_in_order(packed.batch_sizes, packed.unsorted_indices)

    def astype(self, dtype: Any) -> PackedSequence:
        """The same batch with its data copied to another dtype. The index arrays are shared.

        Parameters
        ----------
        dtype : dtype
            A bool, integer, float or complex dtype.

        Returns
        -------
        PackedSequence

        Raises
        ------
        TypeError
            If the dtype is another one.

        Examples
        --------
        >>> import numpy as np
        >>> import numba_pack as nbp
        >>> nbp.pack_sequence([np.array([1, 2]), np.array([3])]).astype(np.float32).data
        array([1., 3., 2.], dtype=float32)
        """
        data = check_packed(self, "self").data
        if on_device(data):
            raise TypeError("astype needs rows on the host; these are on the device")
        with np.errstate(all="ignore"):
            return self._replace(data=data.astype(as_dtype(dtype)))

    def map(self, f: Callable[[np.ndarray], np.ndarray]) -> PackedSequence:
        """The same batch with ``f`` applied to all rows at once. The index arrays are shared.

        Parameters
        ----------
        f : callable, (N, *) -> (N, *)
            Sees the rows in packed order; may change the trailing shape and the dtype, not the number of rows.

        Returns
        -------
        PackedSequence

        Raises
        ------
        ValueError
            If ``f`` returns another number of rows.
        TypeError
            If ``f`` cannot be called, or does not return an array of numbers.

        Examples
        --------
        >>> import numpy as np
        >>> import numba_pack as nbp
        >>> nbp.pack_sequence([np.array([1, 2]), np.array([3])]).map(lambda rows: rows * 10).data
        array([10, 30, 20])
        """
        data = check_packed(self, "self").data
        _check_callable(f)
        rows = as_rows(f(data), "the result of f", 1)
        if len(rows) != len(data):
            raise ValueError(f"the result of f must have as many rows as data, {len(data)}; got shape {rows.shape}")
        if type(rows) is np.ndarray and np.may_share_memory(rows, data):
            rows = rows.copy()
        return self._replace(data=rows)

    def each(self, f: Callable[[np.ndarray], np.ndarray]) -> PackedSequence:
        """Apply ``f`` to each sequence, in the caller's order, and pack the results.

        Parameters
        ----------
        f : callable, (T_i, *) -> (T_i', *)
            May change the length, too. Sequences of length 0 are given to it as well.

        Returns
        -------
        PackedSequence

        Raises
        ------
        TypeError, ValueError
            If ``f`` cannot be called, or what it returned cannot be packed: see `pack_sequence`.

        Examples
        --------
        >>> import numpy as np
        >>> import numba_pack as nbp
        >>> packed = nbp.pack_sequence([np.array([1, 2]), np.array([3, 4, 5])])
        >>> nbp.unpack_sequence(packed.each(np.cumsum))
        [array([1, 3]), array([ 3,  7, 12])]
        """
        _check_callable(f)
        return pack_sequence([f(sequence) for sequence in unpack_sequence(self)])

    def plot(self, ax: Any = None) -> Any:
        """Draw the batch with matplotlib: each sequence a bar over the time steps, the longest at the top.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, optional
            Where to draw; a new figure if it is not given.

        Returns
        -------
        matplotlib.axes.Axes

        Raises
        ------
        ImportError
            If matplotlib is not installed.

        Examples
        --------
        >>> import numpy as np
        >>> import numba_pack as nbp
        >>> axes = nbp.pack_sequence([np.zeros(n) for n in (4, 6, 8, 5)]).plot()
        >>> axes.get_title()
        '4 sequences, 23 rows, 28% fewer than padded'
        """
        return draw(check_packed(self, "self"), ax)

    def __repr__(self) -> str:
        return "PackedSequence\n" + "\n".join(f"  {name:11}  {text}" for name, text in packed_table(self))

    def _repr_html_(self) -> str:
        return html_of(packed_table(self), "PackedSequence")


def _refuse_arithmetic(*_: Any, **__: Any) -> NoReturn:
    raise TypeError("a PackedSequence must be computed with by map, of all rows, or each, of sequence after sequence")


for _operator in ("add", "radd", "sub", "rsub", "mul", "rmul", "truediv", "rtruediv", "array_ufunc"):
    setattr(PackedSequence, f"__{_operator}__", _refuse_arithmetic)  # a tuple would be joined or repeated


def _check_callable(f: Any) -> None:
    if not callable(f):
        raise TypeError(f"f must be a function of an array; got {f!r}")


# ---- checking --------------------------------------------------------------------------------------------------------


def check_packed(packed: PackedSequence, name: str = "packed") -> PackedSequence:
    """Check that a PackedSequence is one that the kernels may trust, as every function that takes one does first.

    Costs 1 µs for a small batch, O(B + T) in general, and never looks at the rows themselves.

    Parameters
    ----------
    packed : PackedSequence
    name : str
        What the caller calls it, for the error.

    Returns
    -------
    PackedSequence
        The same batch, as a rule the same object. Fields that were not C-contiguous, aligned and native are copied.

    Raises
    ------
    TypeError
        If it is not a PackedSequence, its data are not an array of numbers, or an index array is not int64.
    ValueError
        If batch_sizes are not positive, grow, exceed B or do not sum to N; if sorted_indices is not a permutation, or
        unsorted_indices is not its inverse.

    Examples
    --------
    >>> import numpy as np
    >>> import numba_pack as nbp
    >>> packed = nbp.pack_sequence([np.array([1, 2]), np.array([3])])
    >>> nbp.check_packed(packed._replace(batch_sizes=np.array([2])), "input")
    Traceback (most recent call last):
    ...
    ValueError: input.batch_sizes must sum to the rows of data: expected 3; got 2
    """
    if not isinstance(packed, PackedSequence):
        raise TypeError(f"{name} must be a PackedSequence; got {kind_of(packed, PackedSequence)}")
    data, batch_sizes, sorted_indices, unsorted_indices = packed
    rows, index = as_rows(data, f"{name}.data", 1), (id(batch_sizes), id(sorted_indices), id(unsorted_indices))
    if rows is data and are_index(*index, len(rows), id(np.ndarray), id(INT64)) and type(packed) is PackedSequence:
        return packed
    checked = PackedSequence(
        rows,
        _as_index(batch_sizes, name, "batch_sizes"),
        _as_index(sorted_indices, name, "sorted_indices"),
        _as_index(unsorted_indices, name, "unsorted_indices"),
    )
    if not is_packed(*checked[1:], len(checked.data)):
        refuse(packed_fault(*checked[1:], len(checked.data)), name)
    return checked


def _as_index(array: Any, name: str, field: str) -> np.ndarray:
    if type(array) is np.ndarray and array.dtype == INT64 and array.ndim == 1 and array.flags.carray:
        return array
    if not isinstance(array, np.ndarray) or array.dtype.newbyteorder("=") != INT64:
        raise TypeError(f"{name}.{field} must be an int64 array; got {getattr(array, 'dtype', kind_of(array))}")
    return as_integers(array, f"{name}.{field}")


@overload(check_packed, prefer_literal=True)
def _check_packed_in_njit(packed, name="packed"):
    typed_packed(packed, constant(name))

    def compiled(packed, name="packed"):
        checked = PackedSequence(
            np.ascontiguousarray(packed.data),
            packed.batch_sizes.copy(),  # copied: for strided or read-only ones the kernels would be compiled anew
            packed.sorted_indices.copy(),
            packed.unsorted_indices.copy(),
        )
        _, batch_sizes, sorted_indices, unsorted_indices = checked
        refuse(packed_fault(batch_sizes, sorted_indices, unsorted_indices, len(checked.data)), name)
        return checked

    return compiled


def typed_packed(given, name):
    """Raise a TypingError unless the argument is a PackedSequence of numbers with int64 index arrays."""
    kind = getattr(given, "instance_class", None)
    if kind is not PackedSequence:
        raise TypingError(f"{name} must be a PackedSequence; got {name_of(kind, PackedSequence) if kind else given}")
    data, *indices = given.types
    typed_rows(data, f"{name}.data", 1)
    for field, index in zip(PackedSequence._fields[1:], indices, strict=True):
        if not isinstance(index, types.Array) or index.dtype != types.int64 or index.ndim != 1:
            raise TypingError(f"{name}.{field} must be a one-dimensional int64 array; got {index}")


def _lengths_of_checked(batch):
    batch = check_packed(batch, "self")
    return lengths_in_order(batch.batch_sizes, batch.unsorted_indices)


def _lengths_in_njit(batch):
    """``packed.lengths`` in ``@njit`` code; the field of this name in another named tuple stays what it is."""
    if batch.instance_class is PackedSequence:
        typed_packed(batch, "self")
        return _lengths_of_checked
    if "lengths" in batch.fields:
        at = batch.fields.index("lengths")
        return lambda batch: batch[at]
    return None


for _kind in (types.NamedTuple, types.NamedUniTuple):
    overload_attribute(_kind, "lengths")(_lengths_in_njit)


# ---- packing ---------------------------------------------------------------------------------------------------------


def pack_sequence(sequences: Iterable[np.ndarray], enforce_sorted: bool = False) -> PackedSequence:
    """Pack a list of sequences of different lengths.

    Parameters
    ----------
    sequences : list of B arrays, each of shape (T_i, *)
        In any order, of any lengths, 0 included; one dtype and one trailing shape. Or ragged data in another form, such
        as Awkward Array's or Arrow's: see `pack_ragged`. In ``@njit`` code a list, typed list or tuple of arrays.
    enforce_sorted : bool
        Refuse sequences that do not come longest first.

    Returns
    -------
    PackedSequence
        A copy: it shares no memory with the sequences.

    Raises
    ------
    TypeError
        If this is not a list of arrays of numbers, or they disagree in dtype.
    ValueError
        If the list is empty, something is missing in it, the trailing shapes disagree, or the sequences do not come
        longest first where that is enforced.

    Examples
    --------
    >>> import numpy as np
    >>> import numba_pack as nbp
    >>> nbp.pack_sequence([np.array([1, 2]), np.array([3, 4, 5]), np.array([6])]).data
    array([3, 1, 6, 4, 2, 5])
    """
    enforce = as_flag(enforce_sorted, "enforce_sorted")
    return pack_rows(rows_of(sequences, "sequences"), enforce)


@inner
def pack_rows(found, enforce_sorted):
    """Pack what `rows_of` found."""
    arrays, source, base, base_size, lengths = found
    rows, order = sort_sequences(lengths, len(lengths), NO_LIMIT, enforce_sorted, "the lengths of sequences")
    data = empty_rows(arrays[0], (rows, *arrays[0].shape[1:]))
    return pack_into(data, order, source, base, 1, base_size)


def rows_of(sequences: Any, name: str) -> tuple[list[Any], Any, np.ndarray, int, np.ndarray]:
    """The arrays, to be kept while rows are moved; source, base and row size for `move`; and the lengths."""
    library = None if type(sequences) is list else library_of(sequences)
    found = sequences if library is None else library.ragged(sequences, name)
    if isinstance(found, Ragged):
        values, starts, lengths = as_ragged(found, name)
        return [values], movable(values), starts, row_bytes_of(values), lengths
    arrays, lengths, addresses = as_sequences(found, name)
    if on_device(arrays[0]):
        values = device.concatenated(arrays, lengths)
        return [values], values, offsets_of(lengths), row_bytes_of(values), lengths
    return arrays, None, addresses, 1, lengths


@overload(rows_of, prefer_literal=True)
def _rows_of_in_njit(sequences, name):
    typed_sequences(sequences, constant(name))

    def of_list(sequences, name):
        return _concatenate(sequences, name)

    def of_tuple(sequences, name):  # its arrays may be of different types: some strided, some read-only
        arrays = [np.ascontiguousarray(sequences[0]).copy() for _ in range(0)]
        for sequence in literal_unroll(sequences):
            arrays.append(np.ascontiguousarray(sequence).copy())
        return _concatenate(arrays, name)

    return of_tuple if isinstance(sequences, types.BaseTuple) else of_list


@inner
def _concatenate(arrays, name):
    if len(arrays) == 0:
        raise ArgumentError(name, " must hold at least one array: expected a length of at least", 0, 1, -1)
    first = arrays[0]
    lengths = np.empty(len(arrays), np.int64)
    for i in range(len(arrays)):
        lengths[i] = len(arrays[i])
        for axis in range(1, first.ndim):
            size, expected = arrays[i].shape[axis], first.shape[axis]
            if size != expected:
                text = " must agree in shape after the first axis: expected size"
                raise ArgumentError(name, text, size, expected, i)
    offsets = offsets_of(lengths)
    values = np.empty((offsets[-1], *first.shape[1:]), first.dtype)
    target, size = buffer_of(values), row_bytes_of(values)
    for i in range(len(arrays)):
        copy_bytes(target, offsets[i] * size, buffer_of(arrays[i]), 0, lengths[i] * size)
    return [values], target, offsets, size, lengths


@inner
def pack_into(data, order, source, base, stride, of_size):
    """Move the rows of sorted sequences into ``data (N, *)``: see `move`."""
    batch_sizes, sorted_indices, unsorted_indices = order
    to, size = movable(data), row_bytes_of(data)
    move(to, unsorted_indices, 0, source, base, stride, of_size, size, batch_sizes, sorted_indices)
    return PackedSequence(data, batch_sizes, sorted_indices, unsorted_indices)


def pack_padded_sequence(
    input: np.ndarray,
    lengths: Any,
    batch_first: bool = False,
    enforce_sorted: bool = False,
    padding_side: str = "right",
) -> PackedSequence:
    """Pack a padded batch.

    Parameters
    ----------
    input : ndarray, shape (T, B, *), or (B, T, *) with ``batch_first``
        The padded batch. What stands behind a sequence's end, or before its start, is not read.
    lengths : array or list of int, shape (B,)
        Each from 0 to T.
    batch_first : bool
        Which axis of ``input`` is the batch.
    enforce_sorted : bool
        Refuse lengths that increase.
    padding_side : {"right", "left"}
        Whether the padding stands behind a sequence or before it.

    Returns
    -------
    PackedSequence
        A copy. Its T is the longest of the lengths, which may be less than that of ``input``.

    Raises
    ------
    TypeError
        If ``input`` is not an array of numbers, or the lengths are not integers.
    ValueError
        If ``input`` has fewer than two axes; if the number of lengths is not B, or is 0; if one is not in 0..T; if
        ``padding_side`` is neither of the two.

    Examples
    --------
    >>> import numpy as np
    >>> import numba_pack as nbp
    >>> nbp.pack_padded_sequence(np.array([[1, 2, 0], [3, 4, 5]]), [2, 3], batch_first=True).data
    array([3, 1, 4, 2, 5])
    >>> nbp.pack_padded_sequence(np.array([[0, 1, 2], [3, 4, 5]]), [2, 3], True, padding_side="left").data
    array([3, 1, 4, 2, 5])
    """
    left = as_left(padding_side)
    padded = as_rows(input, "input", 2)
    counts = as_integers(lengths, "lengths")
    first = as_flag(batch_first, "batch_first")
    sequences, steps = _batch_and_steps(padded, first)
    enforce = as_flag(enforce_sorted, "enforce_sorted")
    rows, order = sort_sequences(counts, sequences, steps, enforce, "lengths")
    data = empty_rows(padded, (rows, *padded.shape[2:]))
    base, stride = padded_layout(counts, steps, first, left)
    return pack_into(data, order, movable(padded), base, stride, row_bytes_of(data))


@inner
def _batch_and_steps(padded, batch_first):
    if batch_first:
        return padded.shape[0], padded.shape[1]
    return padded.shape[1], padded.shape[0]


# ---- unpacking -------------------------------------------------------------------------------------------------------


def pad_packed_sequence(
    sequence: PackedSequence,
    batch_first: bool = False,
    padding_value: float = 0.0,
    total_length: int | None = None,
    padding_side: str = "right",
) -> tuple[np.ndarray, np.ndarray]:
    """Unpack into a padded batch: the inverse of `pack_padded_sequence`.

    Parameters
    ----------
    sequence : PackedSequence
    batch_first : bool
        Which axis of the result is the batch.
    padding_value : number
        What fills the rest; the dtype of the data must be able to hold it.
    total_length : int, optional
        Time steps of the result, at least T; T if left out.
    padding_side : {"right", "left"}
        Whether the padding stands behind a sequence or before it.

    Returns
    -------
    padded : ndarray, shape (T, B, *), or (B, T, *) with ``batch_first``
        In the caller's order.
    lengths : ndarray of int64, shape (B,)

    Raises
    ------
    TypeError
        If ``sequence`` is not a PackedSequence, ``padding_value`` not a number, or ``total_length`` not an integer.
    ValueError
        If ``sequence`` is not valid (see `check_packed`), ``total_length`` is less than T or needs more memory than
        there is, the dtype cannot hold ``padding_value``, or ``padding_side`` is neither of the two.

    Examples
    --------
    >>> import numpy as np
    >>> import numba_pack as nbp
    >>> packed = nbp.pack_sequence([np.array([1, 2]), np.array([3, 4, 5])])
    >>> nbp.pad_packed_sequence(packed, batch_first=True, padding_value=-1)
    (array([[ 1,  2, -1],
           [ 3,  4,  5]]), array([2, 3]))
    """
    left = as_left(padding_side)
    first = as_flag(batch_first, "batch_first")
    value, total = as_number(padding_value, "padding_value"), as_steps(total_length)
    packed = check_packed(sequence, "sequence")
    data, batch_sizes, sorted_indices, unsorted_indices = packed
    size = row_bytes_of(data)
    steps = total_of(total, len(batch_sizes), len(sorted_indices) * size)
    padding = padding_of(value, data)
    lengths = lengths_in_order(batch_sizes, unsorted_indices)
    source, trailing = (movable(data), unsorted_indices, 0, size), data.shape[1:]
    return _pad(source, lengths, batch_sizes, sorted_indices, trailing, size, padding, steps, first, left), lengths


@inner
def _pad(source, lengths, batch_sizes, order, trailing, size, padding, steps, batch_first, left):
    """A padded batch of rows that come from a buffer with a base, a stride and a row size: see `move`."""
    sequences = len(lengths)
    shape = (sequences, steps) if batch_first else (steps, sequences)
    of, of_base, of_stride, of_size = source
    padded, blank = _padding(of, (*shape, *trailing), padding, not batch_first and not left)
    base, stride = padded_layout(lengths, steps, batch_first, left)
    move(movable(padded), base, stride, of, of_base, of_stride, of_size, size, batch_sizes, order, blank)
    return padded


def _padding(source: Any, shape: tuple[int, ...], value: np.generic, in_order: bool) -> tuple[np.ndarray, int]:
    """An array filled with a value, on the host or on the device as the source of its rows is, and 0.

    But zeros in an array that is filled step after step, ``in_order``, are left to `move`: then the number of steps.
    """
    if on_device(source):
        return device.full(shape, value), 0
    if any(value.tobytes()):
        return np.full(shape, value, value.dtype), 0
    if in_order:
        return np.empty(shape, value.dtype), shape[0]
    return np.zeros(shape, value.dtype), 0  # no slower than filling the rest alone, and free where memory is fresh


@overload(_padding)
def _padding_in_njit(source, shape, value, in_order):
    return lambda source, shape, value, in_order: (np.full(shape, value), 0)


def unpack_sequence(packed: PackedSequence) -> list[np.ndarray]:
    """Unpack into the list of sequences: the inverse of `pack_sequence`.

    Parameters
    ----------
    packed : PackedSequence

    Returns
    -------
    list of B arrays, each of shape (T_i, *)
        In the caller's order. They are views of one new buffer, and share no memory with ``packed``.

    Raises
    ------
    TypeError, ValueError
        If ``packed`` is not valid: see `check_packed`.

    Examples
    --------
    >>> import numpy as np
    >>> import numba_pack as nbp
    >>> nbp.unpack_sequence(nbp.pack_sequence([np.array([1, 2]), np.array([3, 4, 5])]))
    [array([1, 2]), array([3, 4, 5])]
    """
    values, offsets = unpack_values(check_packed(packed, "packed"))
    return _split(values, offsets)


@inner
def unpack_values(packed):
    """The rows of a checked batch sequence after sequence, ``(N, *)``, and the offsets ``(B + 1,)``."""
    data, batch_sizes, sorted_indices, unsorted_indices = packed
    values, offsets = empty_rows(data, data.shape), offsets_in_order(batch_sizes, unsorted_indices)
    source, size = movable(data), row_bytes_of(data)
    target = movable(values)
    move(target, offsets, 1, source, unsorted_indices, 0, size, size, batch_sizes, sorted_indices)
    return values, offsets


def unpack_into(packed: PackedSequence, arrays: Sequence[np.ndarray], starts: Sequence[int]) -> None:
    """Write the rows of each sequence of a batch on the host into an array of its own, from a row on.

    Nothing is checked: the arrays, in the caller's order, are C-contiguous, have the dtype of the data and room.
    """
    data, batch_sizes, sorted_indices, unsorted_indices = packed
    lengths, addresses = np.empty(len(arrays), np.int64), np.empty(len(arrays), np.int64)
    find_rows(np.fromiter(map(id, arrays), np.int64, len(arrays)), lengths, addresses)
    size = row_bytes_of(data)
    addresses += np.array(starts, np.int64) * size
    move_apart(addresses, buffer_of(data), size, batch_sizes, sorted_indices, unsorted_indices)


def _split(values: np.ndarray, offsets: np.ndarray) -> list[np.ndarray]:
    return [values[start:end] for start, end in pairwise(offsets.tolist())]


@overload(_split)
def _split_in_njit(values, offsets):
    return lambda values, offsets: [values[offsets[i] : offsets[i + 1]] for i in range(len(offsets) - 1)]


# ---- padding ---------------------------------------------------------------------------------------------------------


def pad_sequence(
    sequences: Iterable[np.ndarray],
    batch_first: bool = False,
    padding_value: float = 0.0,
    padding_side: str = "right",
) -> np.ndarray:
    """Pad a list of sequences to the longest.

    Parameters
    ----------
    sequences : list of B arrays, each of shape (T_i, *)
        As for `pack_sequence`.
    batch_first : bool
        Which axis of the result is the batch.
    padding_value : number
        What fills the rest; the dtype of the sequences must be able to hold it.
    padding_side : {"right", "left"}
        Whether the padding stands behind a sequence or before it.

    Returns
    -------
    ndarray, shape (T, B, *), or (B, T, *) with ``batch_first``

    Raises
    ------
    TypeError
        If this is not a list of arrays of numbers, they disagree in dtype, or ``padding_value`` is not a number.
    ValueError
        If the list is empty, the trailing shapes disagree, ``padding_side`` is neither of the two, or the dtype cannot
        hold ``padding_value``.

    Examples
    --------
    >>> import numpy as np
    >>> import numba_pack as nbp
    >>> nbp.pad_sequence([np.array([1, 2]), np.array([3, 4, 5])], batch_first=True, padding_side="left")
    array([[0, 1, 2],
           [3, 4, 5]])
    """
    left = as_left(padding_side)
    first = as_flag(batch_first, "batch_first")
    value = as_number(padding_value, "padding_value")
    arrays, source, base, base_size, lengths = rows_of(sequences, "sequences")
    padding = padding_of(value, arrays[0])
    _, (batch_sizes, order, _) = sort_sequences(lengths, len(lengths), NO_LIMIT, False, "the lengths of sequences")
    layout, size, steps = (source, base, 1, base_size), row_bytes_of(arrays[0]), len(batch_sizes)
    return _pad(layout, lengths, batch_sizes, order, arrays[0].shape[1:], size, padding, steps, first, left)


def unpad_sequence(
    padded: np.ndarray, lengths: Any, batch_first: bool = False, padding_side: str = "right"
) -> list[np.ndarray]:
    """Cut a padded batch back to its sequences: the inverse of `pad_sequence`.

    Parameters
    ----------
    padded : ndarray, shape (T, B, *), or (B, T, *) with ``batch_first``
    lengths : array or list of int, shape (B,)
        Each from 0 to T.
    batch_first : bool
        Which axis of ``padded`` is the batch.
    padding_side : {"right", "left"}
        Whether the padding stands behind a sequence or before it.

    Returns
    -------
    list of B arrays, each of shape (T_i, *)
        Views of one new buffer; they share no memory with ``padded``.

    Raises
    ------
    TypeError
        If ``padded`` is not an array of numbers, or the lengths are not integers.
    ValueError
        If ``padded`` has fewer than two axes; if the number of lengths is not B, or is 0; if one is not in 0..T; if
        ``padding_side`` is neither of the two.

    Examples
    --------
    >>> import numpy as np
    >>> import numba_pack as nbp
    >>> nbp.unpad_sequence(np.array([[1, 2, 0], [3, 4, 5]]), [2, 3], batch_first=True)
    [array([1, 2]), array([3, 4, 5])]
    """
    left = as_left(padding_side)
    batch = as_rows(padded, "padded", 2)
    counts = as_integers(lengths, "lengths")
    first = as_flag(batch_first, "batch_first")
    sequences, steps = _batch_and_steps(batch, first)
    rows, (batch_sizes, order, _) = sort_sequences(counts, sequences, steps, False, "lengths")
    values, offsets = empty_rows(batch, (rows, *batch.shape[2:])), offsets_of(counts)
    base, stride = padded_layout(counts, steps, first, left)
    source, size = movable(batch), row_bytes_of(values)
    move(movable(values), offsets, 1, source, base, stride, size, size, batch_sizes, order)
    return _split(values, offsets)


# ---- batches ---------------------------------------------------------------------------------------------------------


def concatenate(batches: Iterable[PackedSequence]) -> PackedSequence:
    """Put batches together: the sequences of the first, in the caller's order, then those of the next, and so on.

    Parameters
    ----------
    batches : list of PackedSequence
        Of one dtype and one trailing shape. In ``@njit`` code a list, typed list or tuple.

    Returns
    -------
    PackedSequence
        A copy: it shares no memory with the batches.

    Raises
    ------
    TypeError
        If this is not a list of PackedSequences, or they disagree in dtype.
    ValueError
        If the list is empty, a batch is not valid (see `check_packed`), or the trailing shapes disagree.

    See Also
    --------
    select : takes sequences out of a batch.

    Examples
    --------
    >>> import numpy as np
    >>> import numba_pack as nbp
    >>> one, other = nbp.pack_sequence([np.array([1, 2])]), nbp.pack_sequence([np.array([3]), np.array([4, 5, 6])])
    >>> nbp.unpack_sequence(nbp.concatenate([one, other]))
    [array([1, 2]), array([3]), array([4, 5, 6])]
    """
    return pack_rows(rows_of(sequences_of(batches, "batches"), "batches"), False)


def sequences_of(batches: Any, name: str) -> list[np.ndarray]:
    """The sequences of a list of batches, checked."""
    if isinstance(batches, PackedSequence) or not isinstance(batches, Iterable):
        raise TypeError(f"{name} must be a list of PackedSequences; got {kind_of(batches)}")
    first, sequences = None, []
    for i, batch in enumerate(batches):
        batch = check_packed(batch, f"{name}[{i}]")
        data = batch.data
        first = data if first is None else first
        if native(data.dtype) != native(first.dtype):
            raise TypeError(f"{name} must agree in dtype; got {first.dtype}, and {data.dtype} at index {i}")
        if data.shape[1:] != first.shape[1:]:
            expected = ("N", *first.shape[1:])
            raise ValueError(f"{name} must agree in shape: expected data {expected}; got {data.shape} at index {i}")
        sequences += _split(*unpack_values(batch))  # at once: what makes the next batch may change this one
    if first is None:
        raise ValueError(f"{name} must hold at least one PackedSequence; got none")
    return sequences


@overload(sequences_of, prefer_literal=True)
def _sequences_of_in_njit(batches, name):
    name = constant(name)
    if isinstance(batches, (types.List, types.ListType)):
        kinds = [batches.dtype]
    elif isinstance(batches, (types.UniTuple, types.Tuple)):
        kinds = list(batches.types)
    else:
        raise TypingError(f"{name} must be a list or tuple of PackedSequences; got {batches}")
    if not kinds:
        raise TypingError(f"{name} must hold at least one PackedSequence; got an empty tuple")
    for kind in kinds:
        typed_packed(kind, name)
        if kind[0].dtype != kinds[0][0].dtype or kind[0].ndim != kinds[0][0].ndim:
            raise TypingError(f"{name} must agree in dtype and number of axes; got {kinds[0][0]} and {kind[0]}")

    def of_list(batches, name):
        if len(batches) == 0:
            raise ArgumentError(name, " must hold at least one PackedSequence: expected a length of at least", 0, 1, -1)
        sequences = unpack_sequence(batches[0])
        for i in range(1, len(batches)):
            sequences.extend(unpack_sequence(batches[i]))
        return sequences

    def of_tuple(batches, name):
        sequences = unpack_sequence(batches[0])[:0]
        for batch in literal_unroll(batches):
            sequences.extend(unpack_sequence(batch))
        return sequences

    return of_tuple if isinstance(batches, types.BaseTuple) else of_list


def select(packed: PackedSequence, indices: Any) -> PackedSequence:
    """Choose sequences of a batch: some of them, in another order, or several times.

    Parameters
    ----------
    packed : PackedSequence
    indices : array or list of int, or of bool, shape (B',) or (B,)
        The sequences wanted, counted in the caller's order, from the end if negative; or, as a mask of bools, whether
        each is wanted. At least one must be.

    Returns
    -------
    PackedSequence
        Those sequences, in the order of the indices. A copy.

    Raises
    ------
    TypeError, ValueError
        If ``packed`` is not valid (see `check_packed`), or ``indices`` are neither indices of its sequences nor a mask
        of its length.

    See Also
    --------
    concatenate : puts batches together.

    Examples
    --------
    >>> import numpy as np
    >>> import numba_pack as nbp
    >>> packed = nbp.pack_sequence([np.array([1, 2]), np.array([3, 4, 5]), np.array([6])])
    >>> nbp.unpack_sequence(nbp.select(packed, [2, 0, 2]))
    [array([6]), array([1, 2]), array([6])]
    >>> nbp.unpack_sequence(nbp.select(packed, packed.lengths > 1))
    [array([1, 2]), array([3, 4, 5])]
    """
    chosen, mask_length = as_chosen(indices, "indices")
    values, offsets = unpack_values(check_packed(packed, "packed"))
    starts, lengths = np.empty(len(chosen), np.int64), np.empty(len(chosen), np.int64)
    if not picked(offsets, chosen, mask_length, starts, lengths):
        refuse(chosen_fault(chosen, mask_length, len(offsets) - 1), "indices")
    return pack_rows(([values], movable(values), starts, row_bytes_of(values), lengths), False)


# ---- permutations ----------------------------------------------------------------------------------------------------


def invert_permutation(permutation: Any) -> np.ndarray:
    """The permutation that undoes another: ``inverse[permutation[i]] == i``.

    Parameters
    ----------
    permutation : array or list of int, shape (B,)

    Returns
    -------
    ndarray of int64, shape (B,)

    Raises
    ------
    TypeError
        If it does not hold integers.
    ValueError
        If it is not a permutation of 0..B-1.

    Examples
    --------
    >>> import numba_pack as nbp
    >>> nbp.invert_permutation([2, 0, 1])
    array([1, 2, 0])
    """
    fault, inverse = inverted(as_integers(permutation, "permutation"))
    refuse(fault, "permutation")
    return inverse


# Called from @njit code, these compile as they stand. `inner` is no decorator here: it would hide types from checkers.
for _function in (
    pack_sequence,
    pack_padded_sequence,
    pad_packed_sequence,
    unpack_sequence,
    pad_sequence,
    unpad_sequence,
    concatenate,
    select,
    invert_permutation,
):
    inner(_function)
