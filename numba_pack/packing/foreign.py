"""Other libraries' arrays: recognised without importing any of them, and read by the module of `interop` that can.

Such a module has three functions:

``ragged(array, name)``
    The sequences of a ragged array called ``name``: a `Ragged`, or a list of arrays, one for each.
``rows(array, name)``
    An array of numbers, or of rows of one size, as what NumPy takes with nothing lost.
``form(values, offsets, like)``
    The way back from a ragged buffer; ``like`` is an array of that library, or its name.

None of them copies values where their layout allows it. Forms that need no library, lists and object arrays, stand at
the end.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from importlib import import_module
from itertools import chain, pairwise
from types import ModuleType
from typing import Any, NamedTuple, NoReturn

import numpy as np

from .._arguments import kind_of
from . import dlpack

__all__ = [
    "Ragged",
    "arrays_of_lists",
    "in_form_of",
    "library_of",
    "objects",
    "one_size",
    "raise_missing",
    "refuse_missing",
]

#: the module of `interop` by the name of the library
MODULES = {"awkward": "awkward", "pyarrow": "arrow", "pandas": "pandas", "polars": "polars", "torch": "nested"}


class Ragged(NamedTuple):
    """Sequences in one buffer: sequence i is ``values[starts[i] : starts[i] + lengths[i]]``.

    Rows between the sequences are left alone, and rows may be shared: it is what all libraries' layouts come down to.
    """

    values: Any  # (M, *), for `as_rows`
    starts: np.ndarray  # integers, (B,)
    lengths: np.ndarray  # integers, (B,)

    @classmethod
    def between(cls, values: Any, offsets: np.ndarray) -> Ragged:
        """The sequences between offsets ``(B + 1,)``."""
        offsets = offsets.astype(np.int64, copy=False)
        return cls(values, offsets[:-1], offsets[1:] - offsets[:-1])


def library_of(array: Any) -> ModuleType | None:
    """The module of `interop` that reads an array, or None. Its class tells, or that it has Arrow's C data interface.

    What has axes and can convert itself to an array is left to NumPy all the same: xarray's arrays would give Arrow a
    table.
    """
    kind: Any = type(array)  # else mypy doubts that it can be hashed
    return _library_of_class(kind)


@lru_cache
def _library_of_class(kind: type) -> ModuleType | None:
    for base in kind.__mro__:
        module = MODULES.get(str(base.__module__).partition(".")[0])
        if module is not None:
            return _interop(module)
    of_arrow = hasattr(kind, "__arrow_c_array__") or hasattr(kind, "__arrow_c_stream__")
    if of_arrow and not (hasattr(kind, "__array__") and hasattr(kind, "ndim")):
        return _interop("arrow")
    return None


def _interop(module: str) -> ModuleType:
    return import_module(f"..interop.{module}", __package__)


# ---- what is missing -------------------------------------------------------------------------------------------------


def refuse_missing(sequences: Iterable[Any], name: str) -> None:
    """Raise the error of the first missing sequence, or missing number within nested lists, if there is one.

    In place of a sequence NaN counts as missing, too, since pandas writes it so; among the numbers it is a number.
    """
    for i, sequence in enumerate(sequences):
        is_nan = isinstance(sequence, float) and sequence != sequence
        at = f"{name}[{i}]" if is_nan else _place_of_none(sequence, f"{name}[{i}]")
        if at:
            raise_missing(name, at)


def raise_missing(name: str, at: str) -> NoReturn:
    """Raise the error that something is missing at a place, such as ``sequences[2][5]``."""
    raise ValueError(f"{name} must have no missing values; {at} is missing")


def _place_of_none(entry: Any, name: str) -> str:
    if entry is None:
        return name
    if not isinstance(entry, (list, tuple, dict)):  # a dict is a row of a table
        return ""
    parts: Iterable[Any] = entry.items() if isinstance(entry, dict) else enumerate(entry)
    return next(filter(None, (_place_of_none(part, f"{name}[{key!r}]") for key, part in parts)), "")


# ---- rows of one size ------------------------------------------------------------------------------------------------


def one_size(sizes: np.ndarray, name: str) -> int:
    """The size that all rows of an array called ``name`` have; 0 if there are none.

    `numpy.unique` is not used: its C++ aborts a process that ends while a daemon thread is in it.
    """
    if len(sizes) == 0:
        return 0
    least, most = int(sizes.min()), int(sizes.max())
    if least != most:
        raise ValueError(f"{name} must have rows of one size; got lists of {least} and of {most}")
    return most


# ---- lists and object arrays -----------------------------------------------------------------------------------------


def arrays_of_lists(sequences: list[Any]) -> list[np.ndarray] | None:
    """The arrays of a list of lists of numbers, or of rows; None for another list, or if its rows make no array.

    All rows become one array first, so that NumPy finds one dtype and one shape for them all, empty lists included.
    """
    if not all(type(sequence) in (list, tuple) for sequence in sequences):
        return None
    try:
        values = np.asarray(list(chain.from_iterable(sequences)))
    except (ValueError, TypeError, OverflowError):  # each list by itself will tell what is wrong
        return None
    offsets = np.cumsum([0, *map(len, sequences)])
    return split(values, offsets)


def split(values: np.ndarray, offsets: np.ndarray) -> list[np.ndarray]:
    """The sequences of a ragged buffer: views."""
    return [values[start:end] for start, end in pairwise(offsets.tolist())]


def objects(values: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """An object array of the sequences, which are views."""
    entries = np.empty(len(offsets) - 1, object)
    for i, sequence in enumerate(split(values, offsets)):
        entries[i] = sequence
    return entries


# ---- the way back ----------------------------------------------------------------------------------------------------


def in_form_of(like: Any, values: np.ndarray, offsets: np.ndarray) -> Any:
    """A ragged buffer in the form that an example or a name stands for: see `unpack_ragged`."""
    if isinstance(like, str):
        if like == "lists":
            return [sequence.tolist() for sequence in split(values, offsets)]
        if like == "objects":
            return objects(values, offsets)
        if like not in MODULES:
            raise ValueError(f"like must be 'lists', 'objects', {', '.join(map(repr, MODULES))}; got {like!r}")
        library = _interop(MODULES[like])
    elif isinstance(like, np.ndarray):
        return objects(values, offsets) if like.dtype == object else (values, offsets)
    elif type(like) in (list, tuple):
        of_lists = all(type(sequence) in (list, tuple) for sequence in like)
        return in_form_of("lists", values, offsets) if of_lists else split(values, offsets)
    else:
        library = library_of(like) or dlpack
    try:
        return library.form(values, offsets, like)
    except (TypeError, ValueError, NotImplementedError) as error:
        shown = repr(like) if isinstance(like, str) else kind_of(like)
        rows = f"rows of dtype {values.dtype} and shape {values.shape[1:]}"
        raise TypeError(f"like must be a form that can hold {rows}; got {shown}: {error}") from error
