"""Checks of numbers and float arrays, for functions that only Python calls.

Every message names the argument, what was expected and what came.
"""

from __future__ import annotations

import math
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["check_floats", "check_number"]


def check_floats(name: str, array: NDArray[Any], ndim: int) -> None:
    """Check for a float32 or float64 array, in the machine's byte order, with `ndim` dimensions."""
    if not isinstance(array, np.ndarray):
        raise TypeError(f"{name} must be a NumPy array; got {type(array).__name__}")
    if array.dtype not in (np.float32, np.float64):
        raise TypeError(f"{name} must be float32 or float64; got {array.dtype}")
    if array.ndim != ndim:
        raise ValueError(f"{name} must have {ndim} dimension{'s'[: ndim - 1]}; got shape {array.shape}")


def check_number(name: str, value: float, above: float | None = None, below: float = math.inf) -> None:
    """Check for a number above `above` (at least 0 where there is none) and below `below`, so neither NaN nor inf."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} must be a number; got {value!r}")
    if not ((value >= 0 if above is None else value > above) and value < below):
        low = "at least 0" if above is None else f"above {above:g}"
        high = "finite" if below == math.inf else f"below {below:g}"
        raise ValueError(f"{name} must be {low} and {high}; got {value!r}")
