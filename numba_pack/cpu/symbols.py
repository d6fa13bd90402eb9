"""Rows of the input that are one-hot, given by the number of the column in which the one stands: its symbol.

The product with such a row is a row of the other matrix, and the gradient of that is added to where the row came from:

    one_hot(s) @ W_ih.T = W_ih[:, s],   d_W_ih[:, s] += d_gates

Both sum in the order in which the products of ``tile.py`` do, which add zeros besides, and so give equal results.
Symbols are int64, and have been checked to be columns.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import numpy as np
from numba import types

from .._jit import by_address, inner
from .lanes import address, call_address, integer_at, integers_at, keep_alive, lanes_of, load, load_first, store_first
from .tile import Columns, panel_count, panel_vectors

__all__ = ["gather", "gather_of", "scatter"]

#: rows of the gradient that are added to at a time: of as many columns, a row of d_gates is a cache line or two
BLOCK = 16


class _Block(NamedTuple):
    """What the compiled look-up reads."""

    symbols: int
    rows: int
    k: int
    panels: int
    #: `Matrix`
    start: int
    start_step: int
    c: int
    c_step: int
    #: `Columns`
    total: int
    per_panel: int
    vectors: int
    between: int
    adjacent: int


_FIELDS = len(_Block._fields)


def _gather_kernel(number: Any) -> Any:
    def gather(block):
        b = _Block(*integers_at(block, _FIELDS))
        columns = Columns(b.total, b.per_panel, b.vectors, b.between, b.adjacent)
        for r in range(b.rows):
            symbol = integer_at(b.symbols, r)
            for p in range(panel_count(columns)):
                vectors, first = panel_vectors(columns, p, lanes), p * b.per_panel
                panel = b.panels + (b.k * p * b.vectors + symbol * vectors) * lanes * size
                for j in range(vectors):
                    column, left = first + j * b.between, b.total - first - b.adjacent * j * lanes
                    total = load_first(number, b.start + (r * b.start_step + column) * size, left)
                    total = total + load(number, panel + j * lanes * size)
                    store_first(b.c + (r * b.c_step + column) * size, total, left)

    lanes, size = lanes_of(number.dtype), number.itemsize
    return gather


@functools.cache
def gather_of(dtype: np.dtype[Any]) -> Any:
    """The compiled look-up for a dtype, for its ``address``; compiled, or loaded, when first asked for."""
    return by_address(types.void(types.intp))(_gather_kernel(dtype.type(0)))


@inner
def gather(at, symbols, rows, k, panels, columns, start, c):
    """c = start + one_hot(symbols) @ panels: `multiply`, by rows (rows, k) of which the symbols are at an address.

    ``at`` is the address of the compiled look-up.
    """
    fields = (
        symbols, rows, k, panels, start.at, start.step, c.at, c.step, columns.total, columns.per_panel,
        columns.vectors, columns.between, columns.adjacent,
    )  # fmt: skip
    block = np.empty(len(fields), np.int64)
    for i in range(len(fields)):
        block[i] = fields[i]
    call_address(at, address(block, 0))
    keep_alive((block,))


@inner
def scatter(d_gates, first, symbols, low, high, d_weight):
    """d_weight (G, K) += d_gates[:, first : first + G].T @ one_hot(symbols), in its rows ``low`` to ``high``."""
    for begin in range(low, high, BLOCK):
        for n in range(d_gates.shape[0]):
            symbol = integer_at(symbols, n)
            for row in range(begin, min(begin + BLOCK, high)):
                d_weight[row, symbol] += d_gates[n, first + row]
