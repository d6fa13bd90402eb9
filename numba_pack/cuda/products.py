"""Matrix products: what a projection, the gradients of inputs, and those of weights are made of.

A block of threads makes one tile of the result, and each thread some elements of it, which it keeps in registers; the
factors pass by in shared memory. Each element of a result is one sum in the order of its terms, whatever the size of
the matrices: so a row of the result depends on its own row of the first factor and on nothing else, bit for bit.

With ``NUMBA_PACK_CUBLAS=1``, large products of all rows with weights are cuBLAS's, by way of CuPy. It chooses its
algorithm by the shapes, so that bits may then depend on what else is in the batch.

The letters: ``C (m, n) = A (m, k) B (k, n)``.
"""

from __future__ import annotations

import importlib
import os
from typing import Any

import numpy as np
from numba import boolean, cuda, int64

from .device import MOST_BLOCKS, REAL, SIMULATED, Kernel, ceil_div, empty, memoized, nothing, stream

__all__ = ["column_sums", "multiply", "multiply_transposed"]

#: threads along each side of a block, elements of C along each side of a thread's share, and terms at a time
THREADS, EACH, TERMS = (2, 3, 4) if SIMULATED else (16, 4, 16)
TILE = THREADS * EACH
#: elements from row to row of a tile in shared memory: odd, so that its columns, too, lie in different banks
TILE_STEP = TILE + 1
#: elements of both tiles. Arrays of a fixed size would do as well, but of those Numba's simulator may make two, for two
#: threads that ask at the same time.
SHARED = 2 * TERMS * TILE_STEP
#: CuPy, if products are to be those of cuBLAS, and multiplications from which on a product is
CUPY: Any = importlib.import_module("cupy") if os.environ.get("NUMBA_PACK_CUBLAS") == "1" else None
LARGE = 1 << 24
#: a sum over the rows of a batch is cut into parts until there are so many blocks, or so few rows in each part
ENOUGH_BLOCKS, FEWEST_ROWS = (4, 2) if SIMULATED else (512, 256)


@memoized
def product_kernel(dtype: np.dtype, a_transposed: bool, b_transposed: bool) -> Kernel:
    """The kernel of C = start + A B, where A or B may lie transposed in memory."""
    real = REAL[dtype]

    @cuda.jit
    def product(a, a_row, a_column, b, b_column, c, c_row, c_column, rows, columns, terms, bias, bias_at, add, part):
        # block z sums the terms from z * part on, and has rows of C of its own
        tiles = cuda.shared.array(0, real)  # of A (TERMS, TILE_STEP), then of B
        b_at = TERMS * TILE_STEP
        sums = cuda.local.array((EACH, EACH), real)
        x, y = cuda.threadIdx.x, cuda.threadIdx.y
        row, column = cuda.blockIdx.x * TILE, cuda.blockIdx.y * TILE  # rows may be millions, as blocks along y may not
        first = cuda.blockIdx.z * part
        last = min(terms, first + part)
        c_first = c_row + cuda.blockIdx.z * rows
        for i in range(EACH):
            for j in range(EACH):
                m, n = row + y + i * THREADS, column + x + j * THREADS
                sums[i, j] = real(0.0)
                if m < rows and n < columns:
                    if add:
                        sums[i, j] = c[c_first + m, c_column + n]
                    elif bias.size > 0:
                        sums[i, j] = bias[0, bias_at + n]
        for begin in range(first, last, TERMS):
            # neighbouring threads read neighbouring elements: along the terms, or across them where they lie so
            for e in range(y * THREADS + x, TILE * TERMS, THREADS * THREADS):
                along, across = e % TERMS, e // TERMS
                if a_transposed:
                    along, across = e // TILE, e % TILE
                value = real(0.0)
                if row + across < rows and begin + along < last:
                    if a_transposed:
                        value = a[a_row + begin + along, a_column + row + across]
                    else:
                        value = a[a_row + row + across, a_column + begin + along]
                tiles[along * TILE_STEP + across] = value
                along, across = e // TILE, e % TILE
                if b_transposed:
                    along, across = e % TERMS, e // TERMS
                value = real(0.0)
                if column + across < columns and begin + along < last:
                    if b_transposed:
                        value = b[column + across, b_column + begin + along]
                    else:
                        value = b[begin + along, b_column + column + across]
                tiles[b_at + along * TILE_STEP + across] = value
            cuda.syncthreads()
            for k in range(0, b_at, TILE_STEP):
                for i in range(EACH):
                    for j in range(EACH):
                        sums[i, j] += tiles[k + y + i * THREADS] * tiles[b_at + k + x + j * THREADS]
            cuda.syncthreads()
        for i in range(EACH):
            for j in range(EACH):
                m, n = row + y + i * THREADS, column + x + j * THREADS
                if m < rows and n < columns:
                    c[c_first + m, c_column + n] = sums[i, j]

    matrix, i = real[:, ::1], int64
    return Kernel(product, (matrix, i, i, matrix, i, matrix, i, i, i, i, i, matrix, i, boolean, i))


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
        kernel = product_kernel(c.dtype, False, b_transposed)
        grid = (ceil_div(rows, TILE), ceil_div(columns, TILE))
        bias = nothing(c.dtype) if bias is None else bias
        block = (THREADS, THREADS)
        arguments = (a, *a_at, b, 0, c, *c_at, rows, columns, terms, bias, bias_at, add, terms)
        kernel.launch(grid, block, *arguments, shared=SHARED * c.dtype.itemsize)


@memoized
def add_parts_kernel(dtype: np.dtype) -> Kernel:
    """The kernel that sums up parts, in their order."""
    real = REAL[dtype]

    @cuda.jit
    def add_parts(source, parts, rows, shift, target):
        for row in range(cuda.blockIdx.y, rows, cuda.gridDim.y):
            column = cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x
            if column < target.shape[1]:
                total = real(0.0)
                for part in range(parts):
                    total += source[part * rows + row, column]
                target[(row + shift) % rows, column] = total

    return Kernel(add_parts, (real[:, ::1], int64, int64, int64, real[:, ::1]))


def _add_parts(source: Any, parts: int, rows: int, shift: int, target: Any) -> None:
    threads = 2 * TILE
    grid = (ceil_div(target.shape[1], threads), min(rows, MOST_BLOCKS))
    add_parts_kernel(target.dtype).launch(grid, threads, source, parts, rows, shift, target)


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


def _parts(rows: int, blocks: int) -> tuple[int, int]:
    """Into how many parts a sum over rows is cut when each takes so many blocks, and the rows of a part."""
    parts = max(1, min(ceil_div(ENOUGH_BLOCKS, blocks), ceil_div(rows, FEWEST_ROWS)))
    return parts, max(1, ceil_div(rows, parts))


def multiply_transposed(a: Any, a_column: int, b: Any, b_column: int, rows: int, shift: int, target: Any) -> None:
    """``target (m, n) = A.T B``, summed over the rows of a batch; A and B begin at these columns.

    Row i is written as row ``(i + shift) % m``.
    """
    m, n = target.shape
    tiles = (ceil_div(m, TILE), ceil_div(n, TILE))
    parts, part = _parts(rows, tiles[0] * tiles[1])
    sums = empty((parts * m, n), target.dtype)
    kernel, no_bias = product_kernel(target.dtype, True, False), nothing(target.dtype)
    grid, block = (*tiles, parts), (THREADS, THREADS)
    arguments = (a, 0, a_column, b, b_column, sums, 0, 0, m, n, rows, no_bias, 0, False, part)
    kernel.launch(grid, block, *arguments, shared=SHARED * target.dtype.itemsize)
    _add_parts(sums, parts, m, shift, target)


@memoized
def column_sums_kernel(dtype: np.dtype) -> Kernel:
    """The kernel of sums over some rows of a matrix."""
    real = REAL[dtype]

    @cuda.jit
    def column_sums(a, a_column, rows, columns, part, sums):
        column = cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x
        if column < columns:
            first = cuda.blockIdx.y * part
            total = real(0.0)
            for row in range(first, min(rows, first + part)):
                total += a[row, a_column + column]
            sums[cuda.blockIdx.y * columns + column, 0] = total

    return Kernel(column_sums, (real[:, ::1], int64, int64, int64, int64, real[:, ::1]))


def column_sums(a: Any, a_column: int, rows: int, shift: int, target: Any) -> None:
    """``target (m, 1)`` = the sums of the columns of A from this one on, the i-th as element ``(i + shift) % m``."""
    m, threads = target.shape[0], 2 * TILE
    blocks = ceil_div(m, threads)
    parts, part = _parts(rows, blocks)
    sums = empty((parts * m, 1), target.dtype)
    column_sums_kernel(target.dtype).launch((blocks, parts), threads, a, a_column, rows, m, part, sums)
    _add_parts(sums, parts, m, shift, target)
