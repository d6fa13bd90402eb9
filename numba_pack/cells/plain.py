"""The primitives of formulas on arrays, as NumPy and SciPy compute them: to try a formula in plain Python."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .._arguments import quiet, told

__all__ = ["of_arrays"]


def _primitives() -> dict[str, Callable[..., Any]]:
    from scipy.special import erf, expit  # which take long to import, and are needed by few

    return {
        "absolute": np.abs,
        "erf": erf,
        "exp": np.exp,
        "expm1": np.expm1,
        "fma": lambda x, y, z: x * y + z,
        "larger": np.maximum,
        "log": np.log,
        "nearest": np.rint,
        "relu": lambda x: np.maximum(x, 0),
        "sigmoid": expit,
        "sign": np.sign,
        "smaller": np.minimum,
        "softplus": lambda x: np.logaddexp(x, 0),
        "softsign": lambda x: x / (1 + np.abs(x)),
        "sqrt": np.sqrt,
        "tanh": np.tanh,
    }


@quiet
def of_arrays(op: str, *values: Any) -> Any:
    """What a primitive makes of numbers and arrays."""
    for value in values:
        if np.asarray(value).dtype.kind not in "iuf":
            raise TypeError(f"{op} must be of numbers of a formula, or of real numbers and arrays; got {told(value)}")
    return _primitives()[op](*values)
