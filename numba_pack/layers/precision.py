"""matmul_precision: how exactly the products of a float32 layer are computed, at least."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

__all__ = ["as_precision", "get_float32_matmul_precision", "precision_of", "set_float32_matmul_precision"]

#: in PyTorch's words: to the accuracy of float32; of factors of about 16 bits; of factors rounded to bfloat16
PRECISIONS = ("highest", "high", "medium")
_VARIABLE = "NUMBA_PACK_MATMUL_PRECISION"


def as_precision(value: Any, name: str) -> str:
    """One of the three."""
    if not isinstance(value, str):
        raise TypeError(f"{name} must be 'highest', 'high' or 'medium'; got {value!r}")
    if value not in PRECISIONS:
        raise ValueError(f"{name} must be 'highest', 'high' or 'medium'; got {value!r}")
    return str(value)


def precision_of(value: Any, dtype: np.dtype[Any]) -> str:
    """That of a layer of this dtype; None for the default of the process, which is for float32 alone."""
    if value is None:
        return _default if dtype == np.float32 else "highest"
    precision = as_precision(value, "matmul_precision")
    if precision != "highest" and dtype != np.float32:
        raise ValueError(f"matmul_precision must be 'highest' for {dtype}: others are for float32; got {value!r}")
    return precision


def _from_environment() -> str:
    given = os.environ.get(_VARIABLE, "highest")
    if given not in PRECISIONS:
        raise ImportError(f"the environment variable {_VARIABLE} must be highest, high or medium; got {given!r}")
    return given


_default = _from_environment()


def set_float32_matmul_precision(precision: str) -> None:
    """Set the ``matmul_precision`` of float32 layers that are made from now on and are not given one.

    Layers that there are keep theirs, and so do those that `load` reads. At import it is
    ``NUMBA_PACK_MATMUL_PRECISION``, or "highest" if that is not set.

    Parameters
    ----------
    precision : {"highest", "high", "medium"}
        As `torch.set_float32_matmul_precision` has it: "highest" computes products to the accuracy of float32; "high"
        with factors of about 16 bits, each the sum of two numbers in bfloat16; "medium" with factors rounded to
        bfloat16. A machine that gains nothing by less computes more exactly.

    Raises
    ------
    TypeError, ValueError
        If it is none of these.

    Examples
    --------
    >>> import numba_pack as nbp
    >>> before = nbp.get_float32_matmul_precision()
    >>> nbp.set_float32_matmul_precision("medium")
    >>> nbp.GRU(3, 2)
    GRU(3, 2, matmul_precision='medium')
    >>> nbp.set_float32_matmul_precision(before)
    """
    global _default
    _default = as_precision(precision, "precision")


def get_float32_matmul_precision() -> str:
    """The ``matmul_precision`` of float32 layers that are not given one.

    Examples
    --------
    >>> import numba_pack as nbp
    >>> nbp.get_float32_matmul_precision() in ("highest", "high", "medium")
    True
    """
    return _default
