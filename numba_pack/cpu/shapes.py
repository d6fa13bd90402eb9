"""The shapes of what the passes write: one description, for the engine in Python and for users' compiled code.

Letters as in ``scan.py``.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

from .._jit import inner, overload
from ..cells.cell import Cell
from ..simd.lanes import width
from ..simd.machine import MACHINE
from .panels import padded

__all__ = ["back_shapes", "record_shapes", "result_shapes", "row_width"]

#: numbers that a row of the tape has for its normalised products: see ``norm.py``
NUMBERS = 3
#: vectors of rows that may lie one behind the other, 256 bytes: so few of them share a set of the cache
NARROW = 256 // MACHINE.register_bytes


class _Counts(NamedTuple):
    """What the shapes take from a cell, by the names that it has there."""

    others: int
    units: int
    gates: int
    gates_hh: int
    has_product: int
    normed: int
    kept: int
    products: int
    kept_states: int


@functools.cache
def _counts_of(cell: Cell) -> _Counts:
    return _Counts(*[getattr(cell, name) for name in _Counts._fields])


def _counts(weights: Any) -> _Counts:
    return _counts_of(type(weights).cell)


@overload(_counts)
def _counts_in_njit(weights):
    counts = _counts_of(weights.instance_class.cell)
    return lambda weights: counts


@inner
def row_width(weights, keep):
    """W: a row of gates and, if normalised, of products: on the tape, or, without ``keep``, in inference.

    There is some room behind a longer one, lest rows fall into the same few sets of the cache.
    """
    dtype, counts = weights.parameters.dtype, _counts(weights)
    blocks, numbers = counts.kept + counts.products, NUMBERS * counts.normed
    if not keep:  # the products with the input stand where their sums do
        blocks, numbers = counts.gates + counts.has_product, 0
        blocks += counts.normed * (counts.gates_hh + counts.has_product)
    row = padded(dtype, blocks * weights.hidden_size + numbers)
    return row + (width(dtype) if row > NARROW * width(dtype) else 0)


@inner
def result_shapes(weights, N, B):
    """Of the arrays of `Results`, for B sequences of N rows."""
    H, P, D = weights.hidden_size, weights.output_size, weights.num_directions
    scans, others = weights.num_layers * D, _counts(weights).others
    return (
        (N, D * P),
        (scans, B, P),
        (others, scans, B, H),
        (others, N, D * H),
    )


@inner
def record_shapes(weights, N):
    """Of the arrays of a `Record` of N rows."""
    dtype, counts = weights.parameters.dtype, _counts(weights)
    H, P, D, L = weights.hidden_size, weights.output_size, weights.num_directions, weights.num_layers
    units = padded(dtype, H)
    return (
        (L * D, N, row_width(weights, True)),
        (counts.kept_states, L * D, N, units),
        (L - 1, N, D * P),
        (L * D if P != H else 0, N, units),
    )


@inner
def back_shapes(weights, N, B, input_grad):
    """Of what `backward_stack` writes, as its arguments are: d_between, d_x, d_h_0, d_others_0, d_projected, d_units.

    The first and the last two are for the pass alone; the very last begins as zeros.
    """
    H, P, D, L = weights.hidden_size, weights.output_size, weights.num_directions, weights.num_layers
    counts = _counts(weights)
    return (
        (min(2, L - 1), N, D * P),
        (N if input_grad else 0, weights.input_size),
        (L * D, B, P),
        (counts.others, L * D, B, H),
        (L * D if P != H else 0, N, P),
        (L * D, 3, counts.units + 2 * counts.products, B, padded(weights.parameters.dtype, H)),
    )
