"""Awkward Array: lists of numbers, or of rows of one size, to and fro.

Read without a copy: ``var * float32``, ``var * 12 * float32`` and the like, slices of them included. An array of
lists of lists whose inner lists all have one length is taken for rows, too. Layouts with an index or a mask are put in
order first, which copies.

Awkward Array extends Numba: where it is installed, Numba imports it with the first compiled function of a process,
whether it is used or not.

>>> import awkward as ak
>>> import numba_pack as nbp
>>> packed = nbp.pack_ragged(ak.Array([[1, 2], [], [3]]))
>>> nbp.unpack_ragged(packed, like="awkward")
<Array [[1, 2], [], [3]] type='3 * var * int64'>
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .._arguments import kind_of
from ..packing.foreign import Ragged, one_size, refuse_missing

try:
    import awkward as ak
except ImportError as error:
    raise ImportError("Awkward arrays need Awkward Array: pip install awkward") from error

__all__ = ["form", "ragged", "rows"]


def ragged(array: Any, name: str) -> Ragged:
    """The sequences of an array whose first two axes are sequences and steps."""
    lists = _present(_layout(array, name), array, name)
    if not _is_list(lists):
        raise TypeError(f"{name} must be an Awkward array of lists of numbers; got {ak.type(array)}")
    if isinstance(lists, ak.contents.ListArray) and isinstance(lists.content, ak.contents.NumpyArray):
        starts, stops = _index(lists.starts), _index(lists.stops)  # these may leave rows out, and take others twice
        return Ragged(_rows(lists.content, array, name), starts, stops - starts)
    lists = lists.to_ListOffsetArray64(False)
    offsets = _index(lists.offsets)
    content = lists.content[offsets[0] : offsets[-1]]
    return Ragged.between(_rows(content, array, name), offsets - offsets[0])


def rows(array: Any, name: str) -> np.ndarray:
    """An array of numbers, or of rows of one size."""
    return _rows(_layout(array, name), array, name)


def form(values: np.ndarray, offsets: np.ndarray, like: Any) -> Any:
    """An Awkward array ``B * var * ...``, which shares the memory of both."""
    return ak.Array(ak.contents.ListOffsetArray(ak.index.Index64(offsets), ak.contents.NumpyArray(values)))


def _layout(array: Any, name: str) -> Any:
    if ak.backend(array) not in ("cpu", None):
        raise TypeError(f"{name} must be an Awkward array with backend 'cpu'; got backend {ak.backend(array)!r}")
    layout = ak.to_layout(array)
    if not isinstance(layout, ak.contents.Content):
        raise TypeError(f"{name} must be an Awkward array; got {kind_of(array)}")
    return _as_lists(layout)


def _as_lists(layout: Any) -> Any:
    """A NumPy array of several axes as lists of lists, so that both have one form."""
    several = isinstance(layout, ak.contents.NumpyArray) and layout.purelist_depth > 1
    return layout.to_RegularArray() if several else layout


def _present(layout: Any, array: Any, name: str) -> Any:
    """The same without an index, and without room for missing values; an error if a value is missing."""
    while layout.is_option or layout.is_indexed:
        if layout.is_option and layout.mask_as_bool(valid_when=False).any():
            refuse_missing(array.to_list(), name)
        layout = _as_lists(layout.project())
    return layout


def _is_list(layout: Any) -> bool:
    return layout.is_list and layout.parameter("__array__") not in ("string", "bytestring")


def _index(index: Any) -> np.ndarray:
    return np.asarray(index.data)


def _rows(layout: Any, array: Any, name: str) -> np.ndarray:
    """The numbers of a layout, whose lists all have one length."""
    layout = _present(layout, array, name)
    if isinstance(layout, ak.contents.NumpyArray) and layout.parameter("__array__") is None:
        return layout.data
    if isinstance(layout, ak.contents.EmptyArray):
        return np.empty(0)
    if not _is_list(layout):
        raise TypeError(f"{name} must hold numbers, or rows of numbers; got {ak.type(array)}")
    if not layout.is_regular:
        one_size(_index(layout.stops) - _index(layout.starts), name)
        layout = layout.to_RegularArray()
    content = _rows(layout.content[: len(layout) * layout.size], array, name)
    return content.reshape(len(layout), layout.size, *content.shape[1:])
