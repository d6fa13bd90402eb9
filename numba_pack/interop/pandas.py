"""pandas: columns of arrays or lists, and Arrow's lists in pandas, to and fro.

The arrays of a column are read where they lie; for those of an Arrow column see `numba_pack.interop.arrow`.

>>> import numba_pack as nbp
>>> import pandas as pd
>>> packed = nbp.pack_ragged(pd.Series([[1, 2], [], [3]], name="clicks"))
>>> nbp.unpack_ragged(packed, like="pandas").tolist()
[array([1, 2]), array([], dtype=int64), array([3])]
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .._arguments import kind_of
from ..packing.foreign import Ragged, objects, raise_missing

try:
    import pandas as pd
except ImportError as error:
    raise ImportError("columns of arrays need pandas: pip install pandas") from error

__all__ = ["form", "ragged", "rows"]

COLUMNS = (pd.Series, pd.Index, pd.api.extensions.ExtensionArray)


def ragged(column: Any, name: str) -> Ragged | list[Any]:
    """The sequences of a column."""
    if not isinstance(column, COLUMNS):
        raise TypeError(f"{name} must be a column of arrays, as df[...]; got {kind_of(column)}")
    if isinstance(column.dtype, pd.ArrowDtype):
        from . import arrow

        return arrow.ragged(pd.Series(column).array.__arrow_array__(), name)
    if column.dtype != object:
        raise TypeError(f"{name} must be a column of arrays; got one of {column.dtype}")
    _refuse_missing(pd.isna(column), name)
    return list(column)


def rows(table: Any, name: str) -> Any:
    """A column of numbers, or a table whose columns are all of numbers."""
    if table is pd.NA or table is pd.NaT:
        raise_missing(name, name)
    if not isinstance(table, (pd.DataFrame, *COLUMNS)):
        raise TypeError(f"{name} must be a column or a table of numbers; got {kind_of(table)}")
    if not isinstance(table, pd.DataFrame):
        return _numbers(table, name)
    if all(isinstance(dtype, np.dtype) for dtype in table.dtypes) and len(set(table.dtypes)) == 1:
        return table.to_numpy()  # as it lies
    columns = [_numbers(column, f"{name}[{label!r}]") for label, column in table.items()]
    return np.stack(columns, axis=1) if columns else table.to_numpy()


def _numbers(column: Any, name: str) -> np.ndarray:
    """A column in the dtype of its numbers, which for pandas' own dtypes is the one that they have without NA."""
    if not isinstance(column.dtype, np.dtype) or column.dtype == object:  # in which NaN is no number
        _refuse_missing(pd.isna(column), name)
    numbers: np.ndarray = np.asarray(column.to_numpy(getattr(column.dtype, "numpy_dtype", None)))
    if numbers.dtype.kind not in "biufc":
        raise TypeError(f"{name} must be a column of numbers; got one of {column.dtype}")
    return numbers


def form(values: np.ndarray, offsets: np.ndarray, like: Any) -> Any:
    """A column of arrays, which are views; an Arrow column if the example is one.

    It has the example's name and, where there are as many sequences, its index.
    """
    if isinstance(like, str):
        return pd.Series(objects(values, offsets))
    if not isinstance(like, pd.Series):
        raise TypeError("it must be a Series")
    index = like.index if len(like) == len(offsets) - 1 else None
    if isinstance(like.dtype, pd.ArrowDtype):
        from . import arrow

        array = arrow.form(values, offsets, like.array.__arrow_array__())
        return pd.Series(array, index, pd.ArrowDtype(array.type), like.name)
    return pd.Series(objects(values, offsets), index, name=like.name)


def _refuse_missing(missing: Any, name: str) -> None:
    if missing.any():
        raise_missing(name, f"{name}[{np.flatnonzero(missing)[0]}]")
