"""exp and log(1 + x) of whole arrays as plain arithmetic, of which LLVM makes vector code; libm goes one by one."""

from __future__ import annotations

import numpy as np

from .._jit import inner

__all__ = ["exp_of_negative", "log_of_one_and"]

_LOG2_E, _LN2_HIGH, _LN2_LOW = 1.4426950408889634, 6.93147180369123816490e-01, 1.90821492927058770002e-10
#: added to a small number, it leaves that rounded to an integer in its last bits
_ROUND = 1.5 * 2.0**52
#: below, exp is less than all that losses can tell from 0
_LEAST = -708.0


@inner
def exp_of_negative(x, out):  # type: ignore[no-untyped-def]
    """exp(x) of float64 that are at most 0, or NaN: to 1 ulp, and 3e-308 where it is less than that."""
    rounded, rest = np.empty_like(x), np.empty_like(x)
    for i in range(len(x)):
        y = x[i] if not x[i] < _LEAST else _LEAST
        t = y * _LOG2_E + _ROUND
        n = t - _ROUND
        rest[i] = (y - n * _LN2_HIGH) - n * _LN2_LOW
        rounded[i] = t
    bits = rounded.view(np.int64)
    for i in range(len(x)):
        bits[i] = (bits[i] + 1023) << 52  # 2**n
    for i in range(len(x)):
        r = rest[i]  # within log(2) / 2
        p = 1.0 + r * (1.0 / 13)
        for k in range(12, 0, -1):
            p = 1.0 + r * p * (1.0 / k)
        out[i] = p * rounded[i]


@inner
def log_of_one_and(x, out):  # type: ignore[no-untyped-def]
    """log(1 + x) of float64 in [0, 1], or NaN: twice the area tangent of x / (2 + x), which is at most 1/3."""
    for i in range(len(x)):
        s = x[i] / (2.0 + x[i])
        square = s * s
        p = 1.0 / 35
        for k in range(33, 0, -2):
            p = 1.0 / k + square * p
        out[i] = 2.0 * s * p
