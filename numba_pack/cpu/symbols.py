"""Rows of the input that are one-hot, given by the number of the column in which the one stands: its symbol.

The product with such a row is a row of the other matrix, and the gradient of that is added to where the row came from:

    one_hot(s) @ W_ih.T = W_ih[:, s],   d_W_ih[:, s] += d_gates

Both sum in the order in which the products of ``tile.py`` do, which add zeros besides, and so give equal results. (Rows
of a block that have the same symbol are summed first, and then added to the gradient.) Symbols are int64, and have been
checked to be columns.
"""

import functools
from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba import carray, types
from numba.extending import intrinsic

from .._jit import by_address, inner
from ..simd.lanes import I64, lanes_of, load, load_first, size_of, store, store_first, width
from ..simd.memory import address, aligned, clear, integer_at, integers_at, pointer, put_on_stack
from .factor_weights import plus_row
from .factors import Factors, deep
from .matrices import Columns, panel_count, panel_vectors
from .table import SHARED, enter, entry

__all__ = ["gather", "gather_of", "scatter", "scatter_scratch"]

#: units whose gradients are summed at a time: those of a block of rows stay in the nearest cache
UNITS = 64


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


def _gather_kernel(factors: Factors) -> Any:
    def gather(block):
        b = _Block(*integers_at(block, _FIELDS))
        columns = Columns(b.total, b.per_panel, b.vectors, b.between, b.adjacent)
        for r in range(b.rows):
            symbol = integer_at(b.symbols, r)
            for p in range(panel_count(columns)):
                vectors, first = panel_vectors(columns, p, lanes), p * b.per_panel
                panel = b.panels + deep(factors, b.k) * p * b.vectors * lanes * size
                for j in range(vectors):
                    column, left = first + j * b.between, b.total - first - b.adjacent * j * lanes
                    total = load_first(factors, b.start + (r * b.start_step + column) * size, left)
                    total = plus_row(factors, total, panel, symbol, vectors, j)
                    store_first(b.c + (r * b.c_step + column) * size, total, left)

    lanes, size = lanes_of(factors.dtype), np.dtype(factors.dtype).itemsize
    return gather


@functools.cache
def gather_of(factors: Factors) -> Any:
    """The compiled look-up for such factors; compiled, or loaded, when first asked for. `gather` needs it."""
    made = by_address(types.void(types.intp))(_gather_kernel(factors))
    enter(SHARED, f"gather {factors.kind}", factors.dtype, made.address)
    return made


@intrinsic
def _call_gather(typingctx, factors, fields):
    """Call the look-up for such factors with a `_Block` of these fields."""

    def codegen(context, builder, sig, args):
        kind = ir.FunctionType(ir.VoidType(), [I64])
        found = entry(builder, SHARED, f"gather {factors.kind}", factors.dtype.name)
        at = builder.inttoptr(found, kind.as_pointer())
        builder.call(at, [put_on_stack(context, builder, args[1], fields)])
        return context.get_dummy_value()

    return types.void(factors, fields), codegen


@inner
def gather(factors, symbols, rows, k, panels, columns, start, c):
    """c = start + one_hot(symbols) @ panels: `multiply`, by rows (rows, k) of which the symbols are at an address."""
    fields = (
        symbols, rows, k, panels, start.at, start.step, c.at, c.step, columns.total, columns.per_panel,
        columns.vectors, columns.between, columns.adjacent,
    )  # fmt: skip
    _call_gather(factors, fields)


class Scratch(NamedTuple):
    """The working memory of `scatter`."""

    #: (K,) where in ``sums`` the rows of each symbol are summed; -1 for symbols that have not occurred yet
    places: np.ndarray
    #: the symbols in the order of their places
    symbols: np.ndarray
    #: (rows, UNITS) the sums
    sums: np.ndarray


@inner
def scatter_scratch(dtype, rows, K):
    """The working memory of `scatter` for at most so many rows, of K columns."""
    return Scratch(np.full(K, -1), aligned(np.int64(0), rows), aligned(dtype, rows * UNITS))


@inner
def scatter(dtype, d_gates, symbols, rows, count, d_weight, scratch):
    """d_weight (count, K) += d_gates.T @ one_hot(symbols), for a block of rows, whose sums are made by themselves."""
    places, found, sums = scratch
    size, step = size_of(dtype), UNITS * size_of(dtype)
    number = 0
    for n in range(rows):
        symbol = integer_at(symbols, n)
        if places[symbol] < 0:
            places[symbol], found[number] = number, symbol
            number += 1
    for begin in range(0, count, UNITS):
        units = min(UNITS, count - begin)
        clear(address(sums, 0), number * step)
        for n in range(rows):
            of, to = (
                d_gates.at + (n * d_gates.step + begin) * size,
                address(sums, places[integer_at(symbols, n)] * UNITS),
            )
            for u in range(0, units, width(dtype)):
                total = load(dtype, to + u * size) + load_first(dtype, of + u * size, units - u)
                store(to + u * size, total)
        for place in range(number):
            column = carray(
                pointer(d_weight.at + (begin * d_weight.step + found[place]) * size, dtype), units * d_weight.step
            )
            for u in range(units):
                column[u * d_weight.step] += sums[place * UNITS + u]
    for place in range(number):
        places[found[place]] = -1
