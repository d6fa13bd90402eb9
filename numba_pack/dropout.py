"""Dropout whose mask is a function of where it stands, so that it is never stored.

Philox4x32-10 (Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011) turns a counter
and a key into four random words. Here the key is (seed, call) and the counter (unit // 4, step, sequence, layer), with
the sequence numbered as the caller does. So the mask depends neither on threads, nor on how a batch was sorted and
packed, and the backward pass makes it again.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import carray

from ._jit import inner
from .cpu.lanes import pointer

__all__ = ["Dropout", "drop_row", "philox"]


class Dropout(NamedTuple):
    """What one call of ``forward`` drops."""

    #: probability of a zero; what is kept is divided by ``1 - rate``
    rate: float
    seed: np.uint32
    #: number of the call, so that each call drops others
    call: np.uint32


@inner
def philox(c0, c1, c2, c3, k0, k1):
    """Four random words from a counter of four and a key of two, all uint64 below 2**32."""
    low = np.uint64(0xFFFFFFFF)
    half = np.uint64(32)
    for _ in range(10):
        p0, p1 = np.uint64(0xD2511F53) * c0, np.uint64(0xCD9E8D57) * c2
        c0, c1, c2, c3 = (p1 >> half) ^ c1 ^ k0, p1 & low, (p0 >> half) ^ c3 ^ k1, p0 & low
        k0, k1 = (k0 + np.uint64(0x9E3779B9)) & low, (k1 + np.uint64(0xBB67AE85)) & low
    return c0, c1, c2, c3


@inner
def drop_row(dtype, dropout, layer, sequence, step, source, target, r):
    """Row r of target = row r of source with units dropped: the output of ``layer`` at one step of one sequence.

    Both are `Matrix`; they may be the same.
    """
    threshold = np.uint64(dropout.rate * 2.0**32)
    zero = dtype.dtype.type(0.0)
    scale = dtype.dtype.type(1.0 / (1.0 - dropout.rate)) if dropout.rate < 1.0 else zero
    x = carray(pointer(source.at + r * source.step * dtype.itemsize, dtype), source.step)
    y = carray(pointer(target.at + r * target.step * dtype.itemsize, dtype), target.step)
    for block in range((source.step + 3) // 4):
        words = philox(
            np.uint64(block), np.uint64(step), np.uint64(sequence), np.uint64(layer),
            np.uint64(dropout.seed), np.uint64(dropout.call),
        )  # fmt: skip
        for lane in range(min(4, source.step - 4 * block)):
            unit = 4 * block + lane
            y[unit] = x[unit] * (scale if words[lane] >= threshold else zero)
