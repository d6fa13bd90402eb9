"""A tile of a matrix product: what a block of threads makes of it, and the kernel that is made of such blocks.

Each thread keeps some elements of the tile in registers, and the factors pass by in shared memory, some terms at a
time: while these are multiplied, the next are on their way. There both factors lie term by term, whatever way they lie
in memory, so that a thread reads four elements of its rows, and of its columns, at once.

Each element is one sum of fused multiply-adds, in the order of its terms. What is beyond the terms counts as 0 times
-0, which leaves every sum as it is: so all tiles give the same bits, and the tile may be chosen by the shapes.

The letters: ``C (m, n) = A (m, k) B (k, n)``.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import boolean, cuda, int32, int64, uint64

from .._jit import inner
from .device import REAL, SIMULATED, Kernel, memoized
from .instructions import load4, store4

__all__ = ["TILES", "Tile", "product_kernel", "unsigned"]

#: a warp makes a rectangle of a tile: of so many threads along its rows, and along its columns
WARP_X, WARP_Y = (2, 2) if SIMULATED else (8, 4)
#: fours of a row that neighbouring threads read, where terms lie along rows: 32 bytes, the least that memory moves
NEIGHBOURS = 1 if SIMULATED else 2
#: of an index that is of no sign, Numba does not ask whether it counts from the end
unsigned = uint64


class Tile(NamedTuple):
    """A square tile."""

    size: int
    #: elements along each side of a thread's share: 4 or 8
    each: int
    #: terms that are in shared memory at a time
    terms: int
    #: blocks that a multiprocessor shall have room for: the compiler keeps within the registers for them
    resident: int
    #: time a term, in tens of cycles, that a multiprocessor takes for one tile of many, and for one alone
    cost: float
    alone: float

    @property
    def threads(self) -> int:
        """Threads of a block."""
        return (self.size // self.each) ** 2

    @property
    def step(self) -> int:
        """Elements from term to term in shared memory: such that four terms, too, lie in different banks."""
        return self.size + 4

    @property
    def shared(self) -> int:
        """Elements of shared memory: two factors, now and next."""
        return 4 * self.terms * self.step


FLOAT32, FLOAT64 = REAL
#: of each dtype; float64 has not the registers for the largest
TILES: dict[Any, tuple[Tile, ...]]
if SIMULATED:
    TILES = dict.fromkeys(REAL, (Tile(8, 4, 4, 1, 1.0, 1.0), Tile(16, 8, 4, 1, 3.0, 3.0)))
else:
    TILES = {
        FLOAT32: (Tile(32, 4, 32, 4, 1.3, 2.5), Tile(64, 4, 16, 2, 5.0, 6.0), Tile(128, 8, 8, 2, 15.5, 17.0)),
        FLOAT64: (Tile(32, 4, 16, 4, 2.6, 4.0), Tile(64, 4, 16, 1, 9.0, 9.0)),
    }


def _carriers(tile: Tile, real: Any, along: bool, blank: float) -> tuple[Any, Any]:
    """What reads a thread's share of a factor's tile, and what puts it into shared memory.

    ``along`` says that terms lie along the rows of the matrix. ``blank`` is in place of what is beyond its end.
    """
    size, step, threads = tile.size, tile.step, tile.threads
    fours = size * tile.terms // 4 // threads

    @inner
    def place(thread, i):
        """The term, and the row or column of C, of the i-th of a thread's fours."""
        e = thread + i * threads
        if along:
            return e // (NEIGHBOURS * size) * (4 * NEIGHBOURS) + 4 * (e % NEIGHBOURS), e // NEIGHBOURS % size
        return e // (size // 4), 4 * (e % (size // 4))

    @inner
    def fetch(thread, matrix, row, column, first, end, aligned, fetched):
        for i in range(fours):
            term, other = place(thread, i)
            term += first
            r, c = (row + other, column + term) if along else (row + term, column + other)
            if aligned and r < end[0] and c + 4 <= end[1]:
                fetched[4 * i], fetched[4 * i + 1], fetched[4 * i + 2], fetched[4 * i + 3] = load4(matrix, (r, c))
            else:
                there = _before(c, end[1]) if r < end[0] else int32(0)
                for q in range(4):
                    fetched[4 * i + q] = matrix[unsigned(r), unsigned(c + q)] if q < there else real(blank)

    @inner
    def leave(thread, fetched, shared, at):
        for i in range(fours):
            term, other = place(thread, i)
            to = at + term * step + other
            if along:
                for q in range(4):
                    shared[unsigned(to + q * step)] = fetched[4 * i + q]
            else:
                store4(shared, to, (fetched[4 * i], fetched[4 * i + 1], fetched[4 * i + 2], fetched[4 * i + 3]))

    return fetch, leave


@inner
def _before(at, end):
    """How many of the four elements from here on are before the end."""
    return int32(max(0, min(4, end - at)))


@inner
def _aligned(matrix, row, column):
    """Whether all fours of elements from this one on, in this row and others, may be read at once."""
    size = matrix.itemsize
    at = matrix.ctypes.data + (row * matrix.shape[1] + column) * size
    return at % 16 == 0 and matrix.shape[1] * size % 16 == 0


@memoized
def product_kernel(dtype: np.dtype, tile: Tile, a_transposed: bool, b_transposed: bool) -> Kernel:
    """The kernel of C = start + A B, where A or B may lie transposed in memory.

    C starts from ``bias (1, .)``, from column ``bias_at`` on, or from what it holds if it is to ``add``, or from zeros.
    """
    real = REAL[dtype]
    size, step, each, terms_at_once = tile.size, tile.step, tile.each, tile.terms
    b_at = terms_at_once * step  # in shared memory: B lies behind A
    other_half = 2 * b_at
    fetched = size * terms_at_once // tile.threads
    fetch_a, leave_a = _carriers(tile, real, not a_transposed, 0.0)
    fetch_b, leave_b = _carriers(tile, real, b_transposed, -0.0)
    # a thread has elements four by four, in two places of a row or column if it has eight
    apart = size * 4 // each
    # terms of which the compiler makes one piece of code: as many as 128 products go into
    unrolled = min(tile.terms, 128 // each**2)
    warps_along = size // each // WARP_X

    @inner
    def add_term(shared, left_at, right_at, left, right, sums):
        for i in range(0, each, 4):
            of_a, of_b = left_at + i // 4 * apart, right_at + i // 4 * apart
            left[i], left[i + 1], left[i + 2], left[i + 3] = load4(shared, of_a)
            right[i], right[i + 1], right[i + 2], right[i + 3] = load4(shared, of_b)
        for i in range(each):
            for j in range(each):
                sums[i, j] = cuda.fma(left[i], right[j], sums[i, j])

    @cuda.jit(**({} if SIMULATED else {"launch_bounds": (tile.threads, tile.resident)}))
    def product(a, a_row, a_column, b, b_column, c, c_row, c_column, rows, columns, terms, bias, bias_at, add, part):
        # block z sums the terms from z * part on, whole tiles of them, and has rows of C of its own
        shared = cuda.shared.array(0, real)
        sums = cuda.local.array((each, each), real)
        left, right = cuda.local.array(each, real), cuda.local.array(each, real)
        next_a, next_b = cuda.local.array(fetched, real), cuda.local.array(fetched, real)
        thread = cuda.threadIdx.x
        # two by two threads are neighbours: where half a warp reads 8 fours of a row, no two of them share a bank
        warp, lane = thread // (WARP_X * WARP_Y), thread % (WARP_X * WARP_Y)
        square = lane // 4
        x = warp % warps_along * WARP_X + square % (WARP_X // 2) * 2 + lane % 2
        y = warp // warps_along * WARP_Y + square // (WARP_X // 2) * 2 + lane // 2 % 2
        row, column = cuda.blockIdx.x * size, cuda.blockIdx.y * size  # rows may be millions, as blocks along y may not
        first = cuda.blockIdx.z * part
        last = min(terms, first + part)
        c_first = c_row + cuda.blockIdx.z * rows

        # where, in A and B, the terms end, and the rows or columns of C; and where this tile begins, but for its terms
        a_end = (a_row + last, a_column + rows) if a_transposed else (a_row + rows, a_column + last)
        b_end = (columns, b_column + last) if b_transposed else (last, b_column + columns)
        if a_transposed:
            a_column += row
        else:
            a_row += row
        b_row = column if b_transposed else int64(0)
        if not b_transposed:
            b_column += column
        a_aligned, b_aligned = _aligned(a, a_row, a_column), _aligned(b, b_row, b_column)
        fetch_a(thread, a, a_row, a_column, first, a_end, a_aligned, next_a)
        fetch_b(thread, b, b_row, b_column, first, b_end, b_aligned, next_b)
        leave_a(thread, next_a, shared, 0)
        leave_b(thread, next_b, shared, b_at)
        cuda.syncthreads()

        row, column = row + 4 * y, column + 4 * x
        for j in range(each):
            n = column + j // 4 * apart + j % 4
            value = real(0.0)
            if bias.size > 0 and n < columns:
                value = bias[0, unsigned(bias_at + n)]
            for i in range(each):
                sums[i, j] = value
        if add:
            for i in range(each):
                for j in range(0, each, 4):
                    m, n = row + i // 4 * apart + i % 4, column + j // 4 * apart
                    there = _before(n, columns) if m < rows else int32(0)
                    for q in range(4):
                        if q < there:
                            sums[i, j + q] = c[unsigned(c_first + m), unsigned(c_column + n + q)]

        at, left_at, right_at = 0, 4 * y, b_at + 4 * x
        while first < last:
            first += terms_at_once
            if first < last:
                fetch_a(thread, a, a_row, a_column, first, a_end, a_aligned, next_a)
                fetch_b(thread, b, b_row, b_column, first, b_end, b_aligned, next_b)
            k, end = at, at + b_at
            while k < end:
                for u in range(0, unrolled * step, step):
                    add_term(shared, k + u + left_at, k + u + right_at, left, right, sums)
                k += unrolled * step
            if first < last:
                at = other_half - at
                leave_a(thread, next_a, shared, at)
                leave_b(thread, next_b, shared, at + b_at)
            cuda.syncthreads()

        c_aligned = _aligned(c, c_first + row, c_column + column)
        for i in range(each):
            for j in range(0, each, 4):
                m, n = row + i // 4 * apart + i % 4, column + j // 4 * apart
                there = _before(n, columns) if m < rows else int32(0)
                if c_aligned and there == 4:
                    store4(c, (c_first + m, c_column + n), (sums[i, j], sums[i, j + 1], sums[i, j + 2], sums[i, j + 3]))
                else:
                    for q in range(4):
                        if q < there:
                            c[unsigned(c_first + m), unsigned(c_column + n + q)] = sums[i, j + q]

    matrix, i = real[:, ::1], int64
    return Kernel(product, (matrix, i, i, matrix, i, matrix, i, i, i, i, i, matrix, i, boolean, i))
