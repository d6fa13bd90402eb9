"""Which factors the products of a layer have, by its precision, its sizes and this machine."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..simd.machine import DOTS

__all__ = ["factors_for"]

#: units from which on the matrix unit multiplies two parts, and three, sooner than fused multiply-adds do one float32.
#: Of 32 sequences of equal lengths, an Emerald Rapids took 3.0 ms instead of 5.1 with two parts and 128 units, and 46
#: instead of 100 with 512; with three parts 4.4 and 70. One sequence alone fills a sixteenth of a tile.
UNITS_OF_TWO, UNITS_OF_THREE = 64, 256


def factors_for(precision: str, dtype: np.dtype[Any], hidden_size: int) -> str:
    """One of `FACTORS`, at least as exact as ``matmul_precision`` says; never by the batch, on which no bit depends."""
    if dtype != np.float32:
        return "float"
    if precision == "medium":
        return "bfloat16"
    if DOTS.bfloat16 == "amx":
        if precision == "high" and hidden_size >= UNITS_OF_TWO:
            return "bfloat16x2"
        if precision == "highest" and hidden_size >= UNITS_OF_THREE:
            return "bfloat16x3"
    return "float"
