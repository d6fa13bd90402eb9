"""What kernels of losses share: sums, how the losses of rows become one number, and the pass over single numbers."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from .._jit import inner, jit
from ..simd.lanes import like, load, load_first, nothing, size_of, store, sum_of, width
from ..simd.memory import address, clear, keep_alive
from ..simd.modes import put_back_mode, take_mode
from ..simd.wide import kept, load_wide, store_wide
from .exponential import TERMS

__all__ = ["REDUCTIONS", "by_column", "by_sequence", "scales", "sum_of_numbers", "total_of"]

REDUCTIONS = ("mean", "sum", "none", "batchmean", "sequence_mean")
#: what kernels know them by
_MEAN, _, _NONE, _BATCHMEAN, _SEQUENCE_MEAN = range(5)
#: numbers whose losses are summed by themselves, where rows do not matter
_STRETCH = 8192
#: numbers of narrow rows that are taken at once: what is computed of them stays in the first cache
_BLOCK = 1024


@inner
def sum_of_numbers(numbers, start, count):
    """The sum of `count` float64."""
    lanes, total = width(numbers.dtype), nothing(numbers)
    for third in range(0, count, TERMS * TERMS * lanes):
        some = nothing(numbers)
        for second in range(third, min(third + TERMS * TERMS * lanes, count), TERMS * lanes):
            few = nothing(numbers)
            for i in range(second, min(second + TERMS * lanes, count), lanes):
                few = few + load_first(numbers, address(numbers, start + i), count - i)
            some = some + few
        total = total + some
    return sum_of(total)


@inner
def by_sequence(way):
    """Whether rows of one sequence count as much in all as those of another."""
    return way[0] == _SEQUENCE_MEAN


@inner
def scales(way, counts, rows, columns, which, out):
    """Put the derivative of the loss with respect to that of a row to `out`: of all rows, or those of each sequence.

    In a mean a row counts as much as `counts` tell, and once where these are none. Returns whether there is a
    loss, as there is no mean of nothing.
    """
    reduction, sequences = way  # those are 1 where nobody asks
    out[:] = 1.0
    if reduction == _BATCHMEAN:
        out[0] = 1.0 / sequences
    elif reduction == _MEAN:
        total = sum_of_numbers(counts, 0, len(counts)) if len(counts) else float(rows)
        out[0] = 1.0 / (total * columns) if total > 0 else 0.0
        return total > 0
    elif reduction == _SEQUENCE_MEAN:
        out[:] = 0.0
        for r in range(rows):
            out[which[r]] += counts[r] if len(counts) else 1.0
        some = 0
        for i in range(len(out)):
            some += out[i] > 0
        for i in range(len(out)):
            out[i] = 1.0 / (out[i] * columns) / some if out[i] > 0 else 0.0
        return some > 0
    return True


@inner
def total_of(way, found, which, scale, losses):
    """The loss of all, of those of rows, which are changed; they also go to `losses` if these are wanted."""
    for r in range(len(losses)):
        losses[r] = found[r]
    if by_sequence(way):
        for r in range(len(found)):
            found[r] *= scale[which[r]]
    total = sum_of_numbers(found, 0, len(found))
    return total if by_sequence(way) else total * scale[0]


def by_column(formula: Callable[..., Any]) -> Any:
    """Make an entry of a loss that is the sum of those of single numbers.

    The formula gets vectors of float64: of outputs, of targets, and of numbers that belong to the columns (1 if there
    are none); and a tuple of settings. It returns the losses, their derivatives, and what is above 0, or NaN,
    where a target is wrong. Rows of weight 0 may hold anything but wrong targets.
    """

    @jit
    def run(x, targets, of_columns, settings, weights, which, way, losses, gradient):
        (rows, columns), weighs, apart, lanes = x.shape, len(weights) > 0, by_sequence(way), width(weights.dtype)
        # where nobody asks for rows, all are taken for one; a vector holds numbers of several where they are narrow
        of_rows = weighs or apart or way[0] == _NONE or len(of_columns) > 0
        narrow = of_rows and columns < 2 * lanes
        length = max(1, _BLOCK // columns) * columns if narrow else columns if of_rows else _STRETCH
        stretches, room = (rows * columns + length - 1) // length, length + lanes if narrow else 0
        found, scale = np.empty(rows if of_rows else stretches), np.empty(way[1] if apart else 1)
        each, factors, shares = np.empty(room), np.ones(room), np.ones(room)
        if narrow and len(of_columns):
            for i in range(length):
                shares[i] = of_columns[i % columns]
        mode = take_mode()
        any_counts, wrong = scales(way, weights, rows, columns, which, scale), nothing(found)
        for n in range(stretches):
            start, first_row = n * length, n * length // columns if of_rows else n
            count = min(length, rows * columns - start)
            some_rows = count // columns if of_rows else 1
            factor = scale[which[first_row]] if apart else scale[0]
            if narrow:
                for r in range(some_rows):
                    of_row = scale[which[first_row + r]] if apart else factor
                    if weighs:
                        of_row *= weights[first_row + r]
                    for c in range(columns):
                        factors[r * columns + c] = of_row
            elif weighs:
                factor *= weights[n]
            total, factor_of_each, share = nothing(found), like(wrong, factor), like(wrong, 1.0)
            for first in range(0, count, TERMS * lanes):
                part = nothing(found)
                for i in range(first, min(first + TERMS * lanes, count), lanes):
                    left, at = count - i, start + i
                    if narrow:
                        share = load(shares, address(shares, i))
                        factor_of_each = load(factors, address(factors, i))
                    elif len(of_columns):
                        share = load_wide(of_columns, address(of_columns, i), left, 1.0)
                    y = load_wide(x, address(x, at), left, 0.0)
                    t = load_wide(targets, address(targets, at), left, 0.0)
                    loss, slope, bad = formula(y, t, share, settings)
                    if narrow:
                        store(address(each, i), loss)
                    part, wrong = part + kept(loss, left), wrong + bad
                    store_wide(gradient, address(gradient, at), slope * factor_of_each, left)
                total = total + part
            if not narrow:
                found[n] = sum_of(total)
            else:
                for r in range(some_rows):
                    low = load_first(each, address(each, r * columns), columns)
                    high = load_first(each, address(each, r * columns + lanes), columns - lanes)
                    found[first_row + r] = sum_of(low + high) if columns > 1 else each[r]
        for r in range(len(weights)):
            found[r] *= weights[r]
            if weights[r] == 0:
                found[r] = 0.0
                clear(address(gradient, r * columns), columns * size_of(gradient.dtype))
        loss = total_of(way, found, which, scale, losses) if any_counts else math.nan
        put_back_mode(mode)
        keep_alive((x, targets, of_columns, gradient, found, each, factors, shares))
        return loss, sum_of(wrong) == 0

    return run
