"""polars: columns of lists or arrays, and tables of numbers, to and fro.

They are read where they lie, through Arrow's C data interface: see `numba_pack.interop.arrow`.

>>> import numba_pack as nbp
>>> import polars as pl
>>> packed = nbp.pack_ragged(pl.Series([[1, 2], [], [3]]))
>>> nbp.unpack_ragged(packed, like="polars").to_list()
[[1, 2], [], [3]]
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .._arguments import kind_of
from ..packing.foreign import Ragged

try:
    import polars as pl

    from . import arrow
except ImportError as error:
    raise ImportError("polars' columns need polars and pyarrow: pip install polars pyarrow") from error

__all__ = ["form", "ragged", "rows"]


def ragged(column: Any, name: str) -> Ragged:
    """The sequences of a column of lists or arrays."""
    if not isinstance(column, pl.Series) or not column.dtype.is_nested():
        got = column.dtype if isinstance(column, pl.Series) else kind_of(column)
        raise TypeError(f"{name} must be a column of lists or arrays, as df[...]; got {got}")
    return arrow.ragged(column, name)


def rows(table: Any, name: str) -> Any:
    """A column of numbers, or of arrays; or a table whose columns are all of numbers."""
    if not isinstance(table, (pl.Series, pl.DataFrame)):
        raise TypeError(f"{name} must be a column or a table of numbers; got {kind_of(table)}")
    if pl.Object in ([table.dtype] if isinstance(table, pl.Series) else table.dtypes):  # which Arrow has no form for
        raise TypeError(f"{name} must hold numbers, or rows of numbers; got {pl.Object}")
    return arrow.rows(table, name)


def form(values: np.ndarray, offsets: np.ndarray, like: Any) -> Any:
    """A column of lists, with the example's name; trailing axes become polars' arrays. The values are not copied."""
    if not isinstance(like, (str, pl.Series)):
        raise TypeError("it must be a Series")
    name = like.name if isinstance(like, pl.Series) else ""
    return pl.Series(name, arrow.form(values, offsets, None))
