"""Matrix products: what a projection, the gradients of inputs, and those of weights are made of.

`tile` has the kernel. Here the size of its tiles is chosen by the shapes, and sums over the rows of a batch are cut
into parts. A row of what `multiply` gives depends on its own row of the first factor and on nothing else, bit for bit.

With ``NUMBA_PACK_CUBLAS=1``, large products of all rows with weights are cuBLAS's, by way of CuPy. It chooses its
algorithm by the shapes, so that bits may then depend on what else is in the batch.
"""

from __future__ import annotations

import importlib
import os
from typing import Any

import numpy as np
from numba import cuda, int64

from .._jit import inner
from .device import REAL, SIMULATED, Kernel, ceil_div, empty, memoized, nothing, stream
from .tile import TILES, Tile, product_kernel, unsigned

__all__ = ["column_sums", "multiply", "multiply_transposed"]

#: of a large device. What is chosen by their number is right on others, too, if not the fastest.
MULTIPROCESSORS = 2 if SIMULATED else 132
#: a part of a sum over the rows of a batch has so many of them at least
FEWEST_ROWS = 4 if SIMULATED else 128
#: numbers that a thread reads before it adds them up, one after the other
AT_ONCE = 2 if SIMULATED else 8
#: threads of a block that sums columns, along a row and along a column, and of one that sums parts
ALONG, ACROSS = (2, 2) if SIMULATED else (32, 8)
THREADS = ALONG * ACROSS
#: CuPy, if products are to be those of cuBLAS, and multiplications from which on a product is
CUPY: Any = importlib.import_module("cupy") if os.environ.get("NUMBA_PACK_CUBLAS") == "1" else None
LARGE = 1 << 24


# ---- products of each row --------------------------------------------------------------------------------------------


def _blocks(tile: Tile, rows: int, columns: int) -> int:
    return ceil_div(rows, tile.size) * ceil_div(columns, tile.size)


def _time(tile: Tile, blocks: int) -> float:
    """How long a term of all blocks takes: the multiprocessors share them, and some have one more than others."""
    return max(tile.alone, ceil_div(blocks, MULTIPROCESSORS) * tile.cost)


def multiply(
    a: Any, a_at: tuple[int, int], b: Any, b_transposed: bool, c: Any, c_at: tuple[int, int],
    rows: int, columns: int, terms: int, bias: Any = None, bias_at: int = 0, add: bool = False,
) -> None:  # fmt: skip
    """C = A B, or A B.T: ``rows`` by ``columns`` of C from ``c_at`` on, ``terms`` of A from ``a_at`` on.

    C begins with ``bias (1, .)`` from column ``bias_at`` on, or with what it holds if it is to ``add``, or with zeros.
    """
    if CUPY and rows * columns * terms >= LARGE:
        _by_cublas(a, a_at, b, b_transposed, c, c_at, rows, columns, terms, bias, bias_at, add)
    elif rows and columns:
        tile = min(TILES[c.dtype], key=lambda tile: _time(tile, _blocks(tile, rows, columns)))
        kernel = product_kernel(c.dtype, tile, False, b_transposed)
        grid = (ceil_div(rows, tile.size), ceil_div(columns, tile.size))
        bias = nothing(c.dtype) if bias is None else bias
        arguments = (a, *a_at, b, 0, c, *c_at, rows, columns, terms, bias, bias_at, add, terms)
        kernel.launch(grid, tile.threads, *arguments, shared=tile.shared * c.dtype.itemsize)


def _by_cublas(
    a: Any, a_at: tuple[int, int], b: Any, b_transposed: bool, c: Any, c_at: tuple[int, int],
    rows: int, columns: int, terms: int, bias: Any, bias_at: int, add: bool,
) -> None:  # fmt: skip
    """As `multiply`."""
    with CUPY.cuda.ExternalStream(int(stream())):
        a, b, c = map(CUPY.asarray, (a, b, c))
        target = c[c_at[0] : c_at[0] + rows, c_at[1] : c_at[1] + columns]
        start = 0 if bias is None else CUPY.asarray(bias)[0, bias_at : bias_at + columns]
        product = a[a_at[0] : a_at[0] + rows, a_at[1] : a_at[1] + terms] @ (b.T if b_transposed else b)
        target[...] = product + (target if add else start)


# ---- sums over the rows of a batch -----------------------------------------------------------------------------------


def multiply_transposed(a: Any, a_column: int, b: Any, b_column: int, rows: int, shift: int, target: Any) -> None:
    """``target (m, n) = A.T B``, summed over the rows of a batch; A and B begin at these columns.

    Row i is written as row ``(i + shift) % m``.
    """
    m, n = target.shape

    def divided(tile: Tile) -> tuple[int, int]:
        return _parts(rows, 2 * MULTIPROCESSORS // _blocks(tile, m, n), tile.terms)

    def time(tile: Tile) -> float:
        parts, part = divided(tile)
        return part * _time(tile, parts * _blocks(tile, m, n))

    tile = min(TILES[target.dtype], key=time)
    parts, part = divided(tile)
    kernel, no_bias = product_kernel(target.dtype, tile, True, False), nothing(target.dtype)
    sums = target if parts == 1 and not shift else empty((parts * m, n), target.dtype)
    grid = (ceil_div(m, tile.size), ceil_div(n, tile.size), parts)
    arguments = (a, 0, a_column, b, b_column, sums, 0, 0, m, n, rows, no_bias, 0, False, part)
    kernel.launch(grid, tile.threads, *arguments, shared=tile.shared * target.dtype.itemsize)
    if sums is not target:
        _add_parts(sums, parts, m, shift, target)


def column_sums(a: Any, a_column: int, rows: int, shift: int, target: Any) -> None:
    """``target (m, 1)`` = the sums of the columns of A from this one on, the i-th as element ``(i + shift) % m``."""
    m = target.shape[0]
    blocks = ceil_div(m, ALONG)
    parts, part = _parts(rows, 4 * MULTIPROCESSORS // blocks, ACROSS)
    sums = target if parts == 1 and not shift else empty((parts * m, 1), target.dtype)
    shared = THREADS * target.dtype.itemsize
    column_sums_kernel(target.dtype).launch((blocks, parts), THREADS, a, a_column, rows, m, part, sums, shared=shared)
    if sums is not target:
        _add_parts(sums, parts, m, shift, target)


def _parts(rows: int, most: int, together: int) -> tuple[int, int]:
    """How many parts a sum over rows is cut into, and the rows of each, which come so many together."""
    part = ceil_div(max(FEWEST_ROWS, ceil_div(rows, max(1, most))), together) * together
    return max(1, ceil_div(rows, part)), part


def _add_parts(source: Any, parts: int, rows: int, shift: int, target: Any) -> None:
    blocks = ceil_div(rows * target.shape[1], THREADS)
    add_parts_kernel(target.dtype).launch(blocks, THREADS, source, parts, rows, shift, target)


def _adder(real: Any) -> Any:
    """What adds to a sum the next AT_ONCE numbers of a column, of rows so many apart; they are read all at once."""

    @inner
    def added(total, source, first, apart, end, column):
        values = cuda.local.array(AT_ONCE, real)
        for q in range(AT_ONCE):
            row = first + q * apart
            values[q] = source[unsigned(row), unsigned(column)] if row < end else real(-0.0)  # which changes no sum
        for q in range(AT_ONCE):
            total += values[q]
        return total

    return added


@memoized
def column_sums_kernel(dtype: np.dtype) -> Kernel:
    """The kernel of sums over some rows of a matrix."""
    real = REAL[dtype]
    added = _adder(real)

    @cuda.jit
    def column_sums(a, a_column, rows, columns, part, sums):
        shared = cuda.shared.array(0, real)
        x, y = cuda.threadIdx.x % ALONG, cuda.threadIdx.x // ALONG
        column = cuda.blockIdx.x * ALONG + x
        first = cuda.blockIdx.y * part
        last = min(rows, first + part)
        total = real(0.0)
        if column < columns:
            for row in range(first + y, last, AT_ONCE * ACROSS):
                total = added(total, a, row, ACROSS, last, a_column + column)
        shared[cuda.threadIdx.x] = total
        cuda.syncthreads()
        if y == 0 and column < columns:
            for other in range(1, ACROSS):
                total += shared[other * ALONG + x]
            sums[cuda.blockIdx.y * columns + column, 0] = total

    return Kernel(column_sums, (real[:, ::1], int64, int64, int64, int64, real[:, ::1]))


@memoized
def add_parts_kernel(dtype: np.dtype) -> Kernel:
    """The kernel that sums up parts, in their order."""
    real = REAL[dtype]
    added = _adder(real)

    @cuda.jit
    def add_parts(source, parts, rows, shift, target):
        e = cuda.blockIdx.x * THREADS + cuda.threadIdx.x
        columns = target.shape[1]
        row, column = e // columns, e % columns
        if row < rows:
            total = real(0.0)
            for first in range(row, parts * rows, AT_ONCE * rows):
                total = added(total, source, first, rows, parts * rows, column)
            target[(row + shift) % rows, column] = total

    return Kernel(add_parts, (real[:, ::1], int64, int64, int64, real[:, ::1]))
