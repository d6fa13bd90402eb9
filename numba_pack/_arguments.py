"""Checks of numbers and float arrays, for functions that only Python calls; and how all errors describe what came.

Every message names the argument, what was expected and what came.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import wraps
from numbers import Real
from typing import Any, ParamSpec, TypeVar

import numpy as np
from numpy.typing import NDArray

__all__ = ["check_floats", "check_no_mask", "check_number", "dtype_of", "kind_of", "name_of", "quiet", "told"]

P = ParamSpec("P")
R = TypeVar("R")


def quiet(function: Callable[P, R]) -> Callable[P, R]:
    """Have a function compute as IEEE 754 says, whatever NumPy is told to do about overflow, underflow and the like.

    ``numpy.errstate`` as a decorator will not do: before NumPy 2 it is one object for all threads.
    """

    @wraps(function)
    def called(*args: P.args, **kwargs: P.kwargs) -> R:
        with np.errstate(all="ignore"):
            return function(*args, **kwargs)

    return called


def name_of(kind: type, *expected: type) -> str:
    """The name of a class with its module, and an explanation where a class that was expected has the same name."""
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    if any(kind is not other and name == name_of(other) for other in expected):
        return f"{name}, of a module that was imported anew since or before: make both from one import"
    return name


def kind_of(value: Any, *expected: type) -> str:
    """How an error describes a value whose class is none of those expected.

    With the module: the name alone may also be that of another library's class, or of ours from another import.
    """
    name = name_of(type(value), *expected)
    if name == "torch.nn.utils.rnn.PackedSequence":
        return f"{name}, of which numba_pack.interop.torch.packed_from_torch makes one"
    if name == f"{__package__}.layers.tape.Gradients":
        return f"{name}, whose .parameters is the vector, and whose .input goes on to what came before"
    if name == "list" and any(other.__name__ == "PackedSequence" for other in expected):
        return f"{name}, of which numba_pack.pack_sequence makes a PackedSequence"
    if name in ("torch.Tensor", "torch.nn.parameter.Parameter"):
        return f"{name}, of which detach().numpy() makes an array"
    return name


def told(value: Any) -> str:
    """How an error shows a value: a large array by its shape, as its numbers would fill the page."""
    return f"an array of shape {value.shape}" if isinstance(value, np.ndarray) and value.size > 8 else repr(value)


def dtype_of(array: Any) -> str:
    """How an error describes a dtype, and what makes one that will do: of a text, of what packages add to NumPy's."""
    dtype = array.dtype
    if dtype.kind in "US":
        return f"{dtype}, a text, of which numpy.frombuffer(text.encode(), numpy.uint8) makes symbols"
    return f"{dtype}, which astype(numpy.float32) converts" if getattr(dtype, "isbuiltin", 1) == 2 else str(dtype)


def check_no_mask(value: Any, name: str) -> None:
    """Refuse a masked array: computing with its data would ignore the mask."""
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError(f"{name} must be an array without a mask, which would be lost; got a masked array")


def check_floats(name: str, array: NDArray[Any], ndim: int) -> None:
    """Check for a float32 or float64 array, in the machine's byte order, with `ndim` dimensions."""
    if not isinstance(array, np.ndarray):
        raise TypeError(f"{name} must be a NumPy array; got {kind_of(array)}")
    check_no_mask(array, name)
    if array.dtype not in (np.float32, np.float64):
        raise TypeError(f"{name} must be float32 or float64; got {dtype_of(array)}")
    if array.ndim != ndim:
        raise ValueError(f"{name} must have {ndim} dimension{'s'[: ndim - 1]}; got shape {array.shape}")


def check_number(name: str, value: float, above: float | None = None, below: float = math.inf) -> None:
    """Check for a number above `above`, or else at least 0, and below `below`: so for neither NaN nor inf."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} must be a number; got {told(value)}")
    try:
        number = float(value)  # it is used as one
    except OverflowError:  # an integer or a fraction beyond all floats
        number = math.inf
    if not ((number >= 0 if above is None else number > above) and number < below):
        low = "at least 0" if above is None else f"above {above:g}"
        high = "finite" if below == math.inf else f"below {below:g}"
        raise ValueError(f"{name} must be {low} and {high}; got {value!r}")
