"""Arrow: arrays of lists of numbers, or of rows, which are fixed-size lists; in one chunk or several, to and fro.

Whatever else has Arrow's C data interface is imported through it; a table is taken as rows of its columns. Read without
a copy: lists, large lists and fixed-size lists in one chunk, slices of them included, of integers and floats. Several
chunks are put together, Arrow's bools, which are bits, are unpacked, and list views put in order.

>>> import numba_pack as nbp
>>> import pyarrow as pa
>>> packed = nbp.pack_ragged(pa.array([[1, 2], [], [3]]))
>>> nbp.unpack_ragged(packed, like="pyarrow").type
ListType(list<item: int64>)
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from .._arguments import kind_of
from ..packing.foreign import Ragged, one_size, refuse_missing

try:
    import pyarrow as pa
except ImportError as error:
    raise ImportError("Arrow arrays need pyarrow: pip install pyarrow") from error

__all__ = ["form", "ragged", "rows"]


def ragged(array: Any, name: str) -> Ragged:
    """The sequences of an array of lists."""
    chunks = _Chunks(array, name)
    parts = [_ragged(chunk, chunks) for chunk in chunks.arrays]
    if len(parts) == 1:
        return parts[0]
    before = np.cumsum([0] + [len(part.values) for part in parts[:-1]])
    starts = [part.starts + first for part, first in zip(parts, before, strict=True)]
    lengths = [part.lengths for part in parts]
    return Ragged(_joined([part.values for part in parts]), np.concatenate(starts), np.concatenate(lengths))


def rows(array: Any, name: str) -> np.ndarray:
    """An array of numbers, or of rows of one size, or a table whose columns are all of numbers."""
    if isinstance(array, (pa.Table, pa.RecordBatch)):
        array = array.to_struct_array()
    chunks = _Chunks(array, name)
    return _joined([(_table if pa.types.is_struct(chunks.type) else _rows)(chunk, chunks) for chunk in chunks.arrays])


def form(values: np.ndarray, offsets: np.ndarray, like: Any) -> Any:
    """A ListArray, or a LargeListArray if the example is one or int32 offsets do not suffice; chunked as the example.

    Trailing axes become fixed-size lists. Offsets are copied where they become int32; values, if they are bools.
    """
    content = pa.array(values.reshape(-1))
    for size in reversed(values.shape[1:]):
        content = pa.FixedSizeListArray.from_arrays(content, size)
    large_example = isinstance(like, (pa.Array, pa.ChunkedArray)) and pa.types.is_large_list(like.type)
    large = large_example or len(values) >= 2**31
    kind, dtype = (pa.LargeListArray, np.int64) if large else (pa.ListArray, np.int32)
    array = kind.from_arrays(pa.array(offsets.astype(dtype, copy=False)), content)
    return pa.chunked_array([array]) if isinstance(like, pa.ChunkedArray) else array


class _Chunks:
    """The chunks of an array, and what an error needs to know of it."""

    def __init__(self, array: Any, name: str) -> None:
        if not isinstance(array, (pa.Array, pa.ChunkedArray, pa.Table, pa.RecordBatch)):
            if hasattr(array, "__arrow_c_array__"):
                array = pa.array(array)
            elif hasattr(array, "__arrow_c_stream__"):
                array = pa.chunked_array(array)
        if not isinstance(array, (pa.Array, pa.ChunkedArray)):
            raise TypeError(f"{name} must be an Arrow array, such as a column of a table; got {kind_of(array)}")
        chunked = isinstance(array, pa.ChunkedArray)
        self.arrays = (array.chunks or [pa.array([], array.type)]) if chunked else [array]
        self.type, self.name = array.type, name
        try:
            for chunk in self.arrays:
                chunk.validate()
        except pa.ArrowInvalid as error:
            raise ValueError(f"{name} must be a valid Arrow array: {error}") from error

    def __iter__(self) -> Iterator[Any]:
        return (entry.as_py() for chunk in self.arrays for entry in chunk)


def _joined(parts: list[np.ndarray]) -> np.ndarray:
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _ragged(array: Any, whole: _Chunks) -> Ragged:
    offsets, content = _lists(array, whole)
    if content is None:
        raise TypeError(f"{whole.name} must be an Arrow array of lists of numbers; got {array.type}")
    return Ragged.between(_rows(content, whole), offsets)


def _lists(array: Any, whole: _Chunks) -> tuple[np.ndarray, Any]:
    """Offsets, which start at 0, and content of an array of lists of any kind; no content for another array."""
    if array.null_count:
        refuse_missing(whole, whole.name)
    kind = array.type
    if pa.types.is_fixed_size_list(kind):
        return np.arange(len(array) + 1) * kind.list_size, array.flatten()
    if pa.types.is_list_view(kind) or pa.types.is_large_list_view(kind):
        return np.concatenate([[0], np.cumsum(array.sizes.to_numpy())]), array.flatten()
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        offsets = array.offsets.to_numpy() if len(array) else np.zeros(1, np.int64)
        return offsets - offsets[0], array.values.slice(offsets[0], offsets[-1] - offsets[0])
    return np.zeros(1, np.int64), None


def _table(array: Any, whole: _Chunks) -> np.ndarray:
    """The columns side by side (N, C), in the dtype that holds them all."""
    if array.null_count:
        refuse_missing(whole, whole.name)
    columns = [_rows(array.field(i), whole) for i in range(array.type.num_fields)]
    if not columns or any(column.ndim > 1 for column in columns):
        raise TypeError(f"{whole.name} must be a table whose columns hold numbers; got {array.type}")
    return np.stack(columns, axis=1)


def _rows(array: Any, whole: _Chunks) -> np.ndarray:
    """The numbers of an array, whose lists all have one length."""
    offsets, content = _lists(array, whole)
    kind = array.type
    if content is None:
        if pa.types.is_null(kind):  # the content of empty lists whose type was never said
            return np.empty(0)
        if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)):
            raise TypeError(f"{whole.name} must hold numbers, or rows of numbers; got {whole.type}")
        return array.to_numpy(zero_copy_only=False)
    found = one_size(np.diff(offsets), whole.name)
    size = kind.list_size if pa.types.is_fixed_size_list(kind) else found
    numbers = _rows(content, whole)
    return numbers.reshape(len(array), size, *numbers.shape[1:])
