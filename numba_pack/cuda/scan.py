"""The recurrence over time, forward: one direction of one layer.

Shapes: T steps, N rows, B sequences, H units, P outputs (the size of h), ``kept`` numbers that a unit keeps of a step
(see ``cells/cell.py``). As on the CPU, row r of a step continues row r of the step before, so that the output is the
state.

The kernel does some steps of the scan. One source makes its two forms, which give the same bits:

- The *persistent* form does all steps. A block keeps the rows of ``weight_hh`` for its units in shared memory, and
  after each step all blocks meet at a barrier: so all must be resident at once.
- The *stepwise* form does one step and is launched T times. It reads the weights piece by piece, whatever their size.

`Shape` says how threads divide the work; `shape_of` chooses it, and with it the form.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import boolean, cuda, int64

from .._jit import inner
from ..cells.cell import Cell
from .device import MOST_BLOCKS, REAL, SIMULATED, Kernel, ceil_div, formula, memoized
from .layout import Layout
from .products import multiply

__all__ = ["ROWS", "SPLITS", "Direction", "Shape", "scan_forward", "shape_of"]

#: rows that a thread multiplies at once, and threads that share each sum. Constants, so that the order of a sum is one
#: and the same whatever the shape and the batch; no fewer threads than rows, each of which one thread ends
ROWS, SPLITS = (2, 2) if SIMULATED else (4, 8)
#: units that a block may have, and groups of ROWS rows that it may multiply at once
WIDTHS, GROUPS = ((4, 2, 1), 1) if SIMULATED else ((8, 4, 2, 1), 4)
#: bytes of shared memory: of a block, and of those for pieces of the rows that it multiplies
SHARED_BYTES, PIECE_BYTES = 48 << 10, 32 if SIMULATED else 8 << 10
#: terms of a sum that the stepwise form reads at a time; as all pieces a multiple of SPLITS, so that a thread has the
#: same terms of a sum whatever the piece
PIECE = 4 if SIMULATED else 64


class Shape(NamedTuple):
    """How the threads of a scan divide the units and rows of a step among them."""

    persistent: bool
    #: units of a block
    units: int
    #: groups of ROWS rows that a block multiplies at once
    groups: int
    #: terms of a sum whose factors are in shared memory at once: of the weights, and of the rows
    weights_piece: int
    piece: int
    #: blocks along the units and along the rows
    grid: tuple[int, int]
    #: of shared memory
    bytes: int

    @property
    def block(self) -> tuple[int, int, int]:
        """Threads."""
        return self.units, SPLITS, self.groups


def shape_of(kernel: Kernel | None, units: int, gates: int, terms: int, rows: int, itemsize: int) -> Shape:
    """The shape for steps of up to ``rows`` rows, and for each row and unit ``gates`` sums of so many terms.

    The form is persistent if the weights fit into the shared memory of blocks that are resident all at once. The fewer
    blocks, the sooner they meet: the widest that fit are taken. ``kernel`` is the persistent one; None where there is
    none, since a projection would need a second barrier.
    """
    groups = min(GROUPS, ceil_div(rows, ROWS))
    piece = min(terms, PIECE_BYTES // (ROWS * groups * itemsize) // SPLITS * SPLITS)
    for width in WIDTHS:
        size = itemsize * (gates * terms * width + ROWS * groups * (piece + width * SPLITS))
        if kernel is None or size > SHARED_BYTES:
            continue
        blocks, resident = ceil_div(units, width), kernel.resident((width, SPLITS, groups), size)
        if blocks <= resident:
            grid = (blocks, min(resident // blocks, ceil_div(rows, ROWS * groups)))
            return Shape(True, width, groups, terms, piece, grid, size)
    width, piece = WIDTHS[0], min(terms, PIECE)
    size = itemsize * (gates * piece * width + ROWS * groups * (piece + width * SPLITS))
    grid = (ceil_div(units, width), min(MOST_BLOCKS, ceil_div(rows, ROWS * groups)))
    return Shape(False, width, groups, piece, piece, grid, size)


# ---- what the kernels of both scans are made of ----------------------------------------------------------------------

# A thread is (u, s, z, units, groups): unit u of the block's ``units``; terms s, s + SPLITS, ... of each sum; of the
# rows z, z + groups, ... Shared memory holds weights (gates, weights_piece, units), from ``rows_at`` on rows (ROWS *
# groups, piece), and from ``sums_at`` on what the threads that share a sum have of it (ROWS * groups, SPLITS, units).


@inner
def load_weights(thread, weights, gates, turn, first_unit, all_units, first, terms, weights_piece, shared):
    """Put ``terms`` columns of the weights, from ``first`` on, into shared memory, in the rows of the block's units."""
    u, s, z, units, groups = thread
    for row in range(z, gates * units, groups):
        gate, unit = row // units, row % units
        of = ((gate + gates - turn) % gates) * all_units + first_unit + unit
        for k in range(s * units + u, terms, SPLITS * units):
            to = (gate * weights_piece + k) * units + unit
            if first_unit + unit < all_units:
                shared[to] = weights[of, first + k]
            else:
                shared[to] = 0


@inner
def add_products(thread, shared, gates, first, terms, weights_piece, rows_at, piece, sums):
    """Add this thread's share of ``terms`` products, those of the weights from ``first`` on, to its sums."""
    u, s, z, units, groups = thread
    for k in range(s, terms, SPLITS):
        for j in range(ROWS):
            value = shared[rows_at + (z + j * groups) * piece + k]
            for q in range(gates):
                sums[j, q] += value * shared[(q * weights_piece + first + k) * units + u]


@inner
def leave_sums(thread, shared, sums, q, sums_at):
    """Put this thread's share of each row's sum q into shared memory."""
    u, s, z, units, groups = thread
    for j in range(ROWS):
        shared[sums_at + ((z + j * groups) * SPLITS + s) * units + u] = sums[j, q]


@inner
def whole_sum(thread, shared, sums_at):
    """The sum of the row that this thread ends, which is ``s * groups + z``."""
    u, s, z, units, groups = thread
    row_at = sums_at + (z + s * groups) * SPLITS * units + u
    total = shared[row_at]
    for other in range(1, SPLITS):
        total += shared[row_at + other * units]
    return total


@inner
def tuple_of_one(values):
    return (values[0],)


@inner
def tuple_of_four(values):
    return values[0], values[1], values[2], values[3]


#: the numbers of a unit as the formulas take them
AS_TUPLE = {1: tuple_of_one, 4: tuple_of_four}

# ---- the scan --------------------------------------------------------------------------------------------------------


@memoized
def scan_kernel(cell: Cell, dtype: np.dtype[Any], persistent: bool) -> Kernel:
    """The kernel of the steps ``low`` to ``high`` of a scan, in one of its forms."""
    real, step = REAL[dtype], formula(cell.step)
    gate_count, kept, turn, has_c = cell.gates, cell.kept, cell.turn, cell.has_c
    as_tuple = AS_TUPLE[kept]

    @cuda.jit
    def scan(
        gates, weight_hh, out, column, hidden, hidden_column, cells, h_0, c_0, layout, T, reverse, keep, low, high,
        weights_piece, piece,
    ):  # fmt: skip
        H, P = weight_hh.shape[0] // gate_count, weight_hh.shape[1]
        units, groups = cuda.blockDim.x, cuda.blockDim.z
        u, s, z = cuda.threadIdx.x, cuda.threadIdx.y, cuda.threadIdx.z
        first_unit = cuda.blockIdx.x * units
        unit, thread = first_unit + u, (u, s, z, units, groups)
        shared = cuda.shared.array(0, real)
        rows_at = gate_count * weights_piece * units
        sums_at = rows_at + ROWS * groups * piece
        sums = cuda.local.array((ROWS, gate_count), real)
        totals = cuda.local.array(kept, real)
        if persistent:
            load_weights(thread, weight_hh, gate_count, turn, first_unit, H, 0, P, weights_piece, shared)
        for i in range(low, high):
            t, previous = i, i - 1
            if reverse:
                t, previous = T - 1 - i, T - i
            place, size = layout[t], layout[t + 1] - layout[t]
            place_before, going_on = 0, 0  # rows that have a step before
            if 0 <= previous and previous < T:
                place_before = layout[previous]
                going_on = min(size, layout[previous + 1] - place_before)
            for r0 in range(cuda.blockIdx.y * ROWS * groups, size, cuda.gridDim.y * ROWS * groups):
                for j in range(ROWS):
                    for q in range(gate_count):
                        sums[j, q] = real(0.0)
                for k0 in range(0, P, piece):
                    terms = min(piece, P - k0)
                    if not persistent:
                        load_weights(
                            thread, weight_hh, gate_count, turn, first_unit, H, k0, terms, weights_piece, shared
                        )
                    for row in range(z, ROWS * groups, groups):
                        r = r0 + row
                        for k in range(s * units + u, terms, SPLITS * units):
                            value = real(0.0)
                            if r < going_on:
                                value = out[place_before + r, column + k0 + k]
                            elif r < size:
                                value = h_0[layout[T + 1 + r], k0 + k]
                            shared[rows_at + row * piece + k] = value
                    cuda.syncthreads()
                    first = k0 if persistent else 0  # where this piece of the weights begins
                    add_products(thread, shared, gate_count, first, terms, weights_piece, rows_at, piece, sums)
                    cuda.syncthreads()
                for q in range(gate_count):
                    leave_sums(thread, shared, sums, q, sums_at)
                    cuda.syncthreads()
                    if s < ROWS:
                        totals[q] = whole_sum(thread, shared, sums_at)
                    cuda.syncthreads()
                r = r0 + s * groups + z
                if s < ROWS and r < size and unit < H:  # this thread ends one row
                    n = place + r
                    for q in range(gate_count):
                        totals[q] += gates[n, q * H + unit]
                    if turn:
                        totals[kept - 1] = gates[n, (kept - 1) * H + unit]
                    h, c = real(0.0), real(0.0)
                    if turn:  # the one formula that reads h itself
                        h = out[place_before + r, column + unit] if r < going_on else h_0[layout[T + 1 + r], unit]
                    if has_c:
                        c = cells[place_before + r, unit] if r < going_on else c_0[layout[T + 1 + r], unit]
                    values, h, c = step(as_tuple(totals), h, c)
                    if keep:
                        for q in range(kept):
                            gates[n, q * H + unit] = values[q]
                    if has_c:
                        cells[n, unit] = c
                    hidden[n, hidden_column + unit] = h
            if persistent:
                cuda.cg.this_grid().sync()

    matrix, i = real[:, ::1], int64
    return Kernel(
        scan,
        (matrix, matrix, matrix, i, matrix, i, matrix, matrix, matrix, int64[::1], i, boolean, boolean, i, i, i, i),
    )


class Direction(NamedTuple):
    """What the scans of one direction of one layer read and write; all device arrays have two axes."""

    cell: Cell
    #: `ScanWeights`
    weights: Any
    layout: Layout
    #: (N, kept * H) on the tape, what a unit keeps
    gates: Any
    #: (N, D * P) the outputs of the layer, and at which column those of this direction begin
    out: Any
    column: int
    #: (N, H) h before the projection; without one, empty
    unprojected: Any
    #: (N, H) c after each step; empty for cells without c
    cells: Any
    #: (B, P) and (B, H) the first states, in the caller's order
    h_0: Any
    c_0: Any
    #: time runs backward
    reverse: bool


def scan_forward(d: Direction, keep: bool) -> None:
    """Scan one direction of one layer, whose gates hold the sums of the input."""
    cell, weights, layout = d.cell, d.weights, d.layout
    dtype, (G, P) = d.gates.dtype, weights.weight_hh.shape
    H = G // cell.gates
    target = (d.out, d.column) if P == H else (d.unprojected, 0)
    given = (d.gates, weights.weight_hh, d.out, d.column, *target, d.cells, d.h_0, d.c_0, layout.rows, layout.T)
    persistent = scan_kernel(cell, dtype, True)
    shape = shape_of(persistent if P == H else None, H, cell.gates, P, layout.active, dtype.itemsize)

    def steps(kernel: Kernel, low: int, high: int) -> None:
        rest = (d.reverse, keep, low, high, shape.weights_piece, shape.piece)
        kernel.launch(shape.grid, shape.block, *given, *rest, shared=shape.bytes)

    if shape.persistent:
        steps(persistent, 0, layout.T)
        return
    stepwise = scan_kernel(cell, dtype, False)
    for i in range(layout.T):
        steps(stepwise, i, i + 1)
        if P != H:
            t = layout.T - 1 - i if d.reverse else i
            place, end = int(layout.starts[t]), int(layout.starts[t + 1])
            multiply(d.unprojected, (place, 0), weights.weight_hr, True, d.out, (place, d.column), end - place, P, H)
