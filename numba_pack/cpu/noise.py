"""Random masks within a scan, of recurrent dropout and of zoneout: a function of its own, which only those compile.

A mask is a function of seed, call, layer, the caller's number of the sequence, step and unit, as that of dropout
between layers is (``cells/dropout.py``), and is made again in the backward pass.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import numpy as np
from numba import carray, types

from .._jit import by_address, inner
from ..cells.dropout import UNITS, mask_units
from ..cells.parameters import constants_of, noises_of
from ..simd.lanes import load, load_first, size_of, store, store_first, width
from ..simd.memory import call_with, integer_at, integers_at, pointer
from .matrices import Matrix

__all__ = ["draw_noises", "masks_state", "multiplied", "noise_kernel", "set_noises", "state_mask"]

#: what stands for the layer in the counter of the generator: others than dropout between layers has
RECURRENT, ZONEOUT, SCANS = 1 << 20, 1 << 24, 1 << 14


class _Block(NamedTuple):
    """What the function reads."""

    #: 2**32 times the probability of a zero
    threshold: int
    #: 1 if what is kept is 1 / (1 - that), 0 if it is 1
    scaled: int
    seed: int
    call: int
    layer: int
    step: int
    #: the address of the caller's numbers of the sequences, and how many there are
    order: int
    rows: int
    #: `Matrix` of the mask, and its columns
    target: int
    target_step: int
    columns: int


_FIELDS = len(_Block._fields)


def _mask_kernel(number: Any) -> Any:
    def mask(block):
        b = _Block(*integers_at(block, _FIELDS))
        kept = real(1.0)
        if b.scaled:
            kept = real(1.0 / (1.0 - b.threshold * 2.0**-32))  # infinite at a probability of 1, where nothing is kept
        for r in range(b.rows):
            sequence, row = integer_at(b.order, r), b.target + r * b.target_step * size
            for unit in range(0, b.columns, UNITS):
                units = mask_units(kept, b.threshold, unit, b.step, sequence, b.layer, b.seed, b.call)
                for i in range(len(units)):
                    first = unit + i * width(number)
                    store_first(row + first * size, units[i], b.columns - first)

    real, size = type(number), number.itemsize
    return mask


@functools.cache
def noise_kernel(dtype: np.dtype[Any]) -> Any:
    """The compiled function for a dtype; compiled, or loaded, when first asked for."""
    return by_address(types.void(types.intp))(_mask_kernel(dtype.type(0)))


@inner
def _draw(drop, threshold, scaled, layer, step, order, first, rows, target, count):
    """A mask (rows, count) into a `Matrix`, for the sequences from ``first`` on.

    ``drop`` is the address of what `drop_of` made, ``order`` that of the caller's numbers of all sequences.
    """
    fields = (
        threshold, scaled, integer_at(drop, 2), integer_at(drop, 3), layer, step, order + 8 * first, rows,
        target.at, target.step, count,
    )  # fmt: skip
    call_with(integer_at(drop, 4), fields)


# -- recurrent dropout: one mask of h for all steps of a sequence ------------------------------------------------------


@inner
def masks_state(drop):
    """Whether there is recurrent dropout."""
    return drop != 0 and integer_at(drop, 5) != 0


@inner
def state_mask(drop, index, order, first, rows, target, count):
    """The mask of h in the scan of that number, (rows, count), scaled."""
    _draw(drop, integer_at(drop, 5), 1, RECURRENT + integer_at(drop, 6) + index, 0, order, first, rows, target, count)


@inner
def multiplied(dtype, rows, count, of, mask, into, add):
    """into = of * mask, or += with ``add``, each a `Matrix` (rows, count) of whole vectors but for ``of``."""
    size = size_of(dtype)
    for r in range(rows):
        for u in range(0, count, width(dtype)):
            value = load_first(dtype, of.at + (r * of.step + u) * size, count - u)
            value = value * load(dtype, mask.at + (r * mask.step + u) * size)
            to = into.at + (r * into.step + u) * size
            if add:
                value = value + load(dtype, to)
            store(to, value)


# -- zoneout: a mask of each state at each step ------------------------------------------------------------------------


@inner
def set_noises(weights, constants, target, apart):
    """Inference: a row of each noise, ``apart`` bytes from the next, is its mean.

    The probabilities of a zero are the last constants.
    """
    dtype = weights.parameters.dtype
    for noise in range(noises_of(weights)):
        at = constants + (constants_of(weights) - noises_of(weights) + noise) * size_of(dtype)
        row = carray(pointer(target + noise * apart, dtype), weights.hidden_size)
        row[:] = 1 - carray(pointer(at, dtype), 1)[0]


@inner
def draw_noises(weights, drop, constants, index, t, order, first, rows, target, apart):
    """Training: the rows of each noise at step t of the scan of that number, from ``target``, a `Matrix`, on."""
    dtype = weights.parameters.dtype
    for noise in range(noises_of(weights)):
        at = constants + (constants_of(weights) - noises_of(weights) + noise) * size_of(dtype)
        threshold = int(carray(pointer(at, dtype), 1)[0] * 2.0**32)
        into = Matrix(target.at + noise * apart, target.step)
        layer = ZONEOUT + noise * SCANS + integer_at(drop, 6) + index
        _draw(drop, threshold, 0, layer, t, order, first, rows, into, weights.hidden_size)
