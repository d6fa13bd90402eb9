"""The recurrence over time, forward: one direction of one layer.

Shapes: T steps, N rows, B sequences, H units, P outputs (the size of h), S states. As on the CPU, row r of a step
continues row r of the step before, so that the output is the state h; the other states are in a buffer from the first
step to the last. A row of gates has blocks of H columns, see ``cells/cell.py``.

The kernel of a scan does some of its steps. One source makes its two forms, which give the same bits:

- The *persistent* form does all steps. A block keeps the rows of ``weight_hh`` for its units in shared memory, and
  after each step all blocks meet at a barrier: so all must be resident at once.
- The *stepwise* form does one step and is launched T times. It reads the weights piece by piece, whatever their size.

Two kinds of cells need another kernel, that of the formula alone. Where a cell has no product with the state, it does
all steps: each thread has a unit of a sequence to itself, and goes with it through time. Where a cell has a `product`
besides, it does the second half of a step: the stepwise form ends with the factor, and the product of all rows follows.

`Shape` says how threads divide the work; `shape_of` chooses it, and with it the form.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import boolean, cuda, int64

from .._jit import inner
from ..cells.cell import Cell
from .device import MOST_BLOCKS, REAL, SIMULATED, Kernel, ceil_div, formula, memoized, nothing
from .layout import BatchLayout
from .products import multiply
from .rows import THREADS
from .tuples import read_blocks, read_states, tuple_of, write_blocks, write_rows

__all__ = [
    "ROWS", "SPLITS", "Scan", "Shape", "add_products", "cell_kernel", "is_linear", "leave_sums", "load_weights",
    "numbers_of", "scan_forward", "scan_kernel", "shape_of", "whole_sum",
]  # fmt: skip

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
    none, since a projection, or a second product, would need a second barrier.
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
    piece = max(1, min(terms, PIECE))
    for width in WIDTHS:
        size = itemsize * (gates * piece * width + ROWS * groups * (piece + width * SPLITS))
        if size <= SHARED_BYTES:
            break
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


# ---- the cell --------------------------------------------------------------------------------------------------------


def cell_of_row(cell: Cell, dtype: np.dtype[Any]) -> Any:
    """What computes one unit of one row: it returns the states after the step, and writes what is kept and shown."""
    step = formula(cell.step, dtype)
    keep_numbers, keep_states = write_blocks(cell.kept_numbers), write_rows(0, cell.kept_states)
    show = write_rows(1, cell.others)

    @inner
    def end(sums, states, units, constants, gates, cells, shown, n, unit, H, index, scans, reverse, keep):
        N = gates.shape[0]
        kept, kept_states, states = step(sums, states, units, constants)
        if keep:
            keep_numbers(kept, gates, n, unit, H)
            keep_states(kept_states, cells, index * N + n, unit, scans * N)
        if shown.shape[0] > 0:
            show(states, shown, n, unit + H if reverse else unit, N)
        return states

    return end


def factor_of_row(cell: Cell, dtype: np.dtype[Any]) -> Any:
    """As `cell_of_row`, but only up to the factor of the cell's `product`, which it writes; the states stay."""
    factor, kept, keep_sums = formula(cell.factor, dtype), cell.kept_with_units, write_blocks(cell.gates_hh)

    @inner
    def end(sums, states, units, constants, gates, cells, shown, n, unit, H, index, scans, reverse, keep):
        keep_sums(sums, gates, n, unit, H)
        of_product = factor(sums, states, units, constants)
        gates[n, (kept - 1) * H + unit] = of_product[0]
        return states

    return end


def numbers_of(cell: Cell, dtype: np.dtype[Any]) -> Any:
    """What reads unit weights and constants: ``(vectors, unit, H) -> two tuples``; see ``ScanWeights.vectors``.

    What is made of those alone stands behind the unit weights.
    """
    gate_count, both = cell.gates, cell.gates + cell.units
    units_of, constants_of, fixed = read_blocks(cell.units), read_blocks(cell.constants), formula(cell.fixed, dtype)

    @inner
    def read(vectors, unit, H):
        units, constants = units_of(vectors, 0, gate_count * H + unit, H), constants_of(vectors, 0, both * H, 1)
        return units + fixed(units, constants), constants

    return read


def is_linear(cell: Cell) -> bool:
    """Whether a cell has no product with the state."""
    return not cell.gates_hh and not cell.has_product


# ---- the scan --------------------------------------------------------------------------------------------------------


@memoized
def scan_kernel(cell: Cell, dtype: np.dtype[Any], persistent: bool) -> Kernel:
    """The kernel of the steps ``low`` to ``high`` of a scan, in one of its forms."""
    real = REAL[dtype]
    gate_count, gates_hh, turn, kept, reads_h = cell.gates, cell.gates_hh, cell.turn, cell.kept_with_units, cell.reads_h
    has_product, sums_each = bool(cell.has_product), max(1, gates_hh)
    numbers, end_row = numbers_of(cell, dtype), factor_of_row(cell, dtype) if has_product else cell_of_row(cell, dtype)
    sums_of, states_of, keep_others = tuple_of(gate_count), read_states(cell.others), write_rows(1, cell.others)

    @cuda.jit
    def scan(
        gates, weight_hh, vectors, out, column, hidden, hidden_column, cells, others, shown, h_0, layout, T, index,
        scans, reverse, keep, low, high, weights_piece, piece,
    ):  # fmt: skip
        H, B, P = gates.shape[1] // kept, h_0.shape[0], h_0.shape[1]
        units, groups = cuda.blockDim.x, cuda.blockDim.z
        u, s, z = cuda.threadIdx.x, cuda.threadIdx.y, cuda.threadIdx.z
        first_unit = cuda.blockIdx.x * units
        unit, thread = first_unit + u, (u, s, z, units, groups)
        shared = cuda.shared.array(0, real)
        rows_at = gates_hh * weights_piece * units
        sums_at = rows_at + ROWS * groups * piece
        sums = cuda.local.array((ROWS, sums_each), real)
        totals = cuda.local.array(gate_count, real)
        if persistent:
            load_weights(thread, weight_hh, gates_hh, turn, first_unit, H, 0, P, weights_piece, shared)
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
                    for q in range(gates_hh):
                        sums[j, q] = real(0.0)
                for k0 in range(0, P if gates_hh else 0, piece):
                    terms = min(piece, P - k0)
                    if not persistent:
                        load_weights(thread, weight_hh, gates_hh, turn, first_unit, H, k0, terms, weights_piece, shared)
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
                    add_products(thread, shared, gates_hh, first, terms, weights_piece, rows_at, piece, sums)
                    cuda.syncthreads()
                for q in range(gates_hh):
                    leave_sums(thread, shared, sums, q, sums_at)
                    cuda.syncthreads()
                    if s < ROWS:
                        totals[q] = whole_sum(thread, shared, sums_at)
                    cuda.syncthreads()
                r = r0 + s * groups + z
                if s < ROWS and r < size and unit < H:  # this thread ends one row
                    n, sequence = place + r, layout[T + 1 + r]
                    for q in range(gates_hh):
                        totals[q] += gates[n, q * H + unit]
                    for q in range(gates_hh, gate_count):
                        totals[q] = gates[n, q * H + unit]
                    h = real(0.0)
                    if reads_h:  # where the formula reads h itself, there is no projection
                        h = out[place_before + r, column + unit] if r < going_on else h_0[sequence, unit]
                    states = states_of(h, others, index * B + sequence, unit, scans * B)
                    weights_here, constants = numbers(vectors, unit, H)
                    states = end_row(
                        sums_of(totals), states, weights_here, constants, gates, cells, shown, n, unit, H, index, scans,
                        reverse, keep,
                    )  # fmt: skip
                    if not has_product:
                        keep_others(states, others, index * B + sequence, unit, scans * B)
                        hidden[n, hidden_column + unit] = states[0]
            if persistent:
                cuda.cg.this_grid().sync()

    matrix, i = real[:, ::1], int64
    pointers = (matrix, matrix, matrix, matrix, i, matrix, i, *[matrix] * 4, int64[::1])
    return Kernel(scan, (*pointers, i, i, i, boolean, boolean, i, i, i, i))


@memoized
def cell_kernel(cell: Cell, dtype: np.dtype[Any]) -> Kernel:
    """The kernel of the formula alone, whose sums are ready: up to ``rows`` rows of the steps ``low`` to ``high``."""
    real = REAL[dtype]
    sums_of, states_of, keep_others = read_blocks(cell.gates), read_states(cell.others), write_rows(1, cell.others)
    numbers, end_row = numbers_of(cell, dtype), cell_of_row(cell, dtype)

    @cuda.jit
    def cell_alone(
        gates, vectors, out, column, cells, others, shown, h_0, layout, T, index, scans, reverse, keep, low, high, rows
    ):
        H, B = h_0.shape[1], h_0.shape[0]
        unit = cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x
        for r in range(cuda.blockIdx.y, rows, cuda.gridDim.y):
            if unit < H:
                units, constants = numbers(vectors, unit, H)
                sequence = layout[T + 1 + r]
                states = states_of(h_0[sequence, unit], others, index * B + sequence, unit, scans * B)
                for i in range(low, high):
                    t, previous = i, i - 1
                    if reverse:
                        t, previous = T - 1 - i, T - i
                    n = layout[t] + r
                    if n < layout[t + 1]:
                        if i == low and 0 <= previous and previous < T:
                            n_before = layout[previous] + r
                            if n_before < layout[previous + 1]:
                                h = out[n_before, column + unit]
                                states = states_of(h, others, index * B + sequence, unit, scans * B)
                        states = end_row(
                            sums_of(gates, n, unit, H), states, units, constants, gates, cells, shown, n, unit, H,
                            index, scans, reverse, keep,
                        )  # fmt: skip
                        out[n, column + unit] = states[0]
                keep_others(states, others, index * B + sequence, unit, scans * B)

    matrix, i = real[:, ::1], int64
    pointers = (matrix, matrix, matrix, i, *[matrix] * 4, int64[::1])
    return Kernel(cell_alone, (*pointers, i, i, i, boolean, boolean, i, i, i))


class Scan(NamedTuple):
    """What the scans of one direction of one layer read and write; all device arrays have two axes."""

    cell: Cell
    #: `ScanWeights`
    weights: Any
    layout: BatchLayout
    #: which of all layers and directions this is, and how many those are
    number: int
    scans: int
    #: time runs backward
    reverse: bool
    #: (N, kept * H) the sums of a row, and on the tape what is kept
    gates: Any
    #: (N, D * P) the outputs of the layer, and at which column those of this direction begin
    out: Any
    column: int
    #: (N, H) h before the projection; without one, empty
    unprojected: Any
    #: (kept states * scans * N, H) the states besides h that are kept, as they are before each step; of all scans
    cells: Any
    #: (B, P) the first h, in the caller's order
    h_0: Any

    @property
    def hidden_size(self) -> int:
        """H."""
        return int(self.gates.shape[1]) // self.cell.kept_with_units


def scan_forward(d: Scan, others: Any, shown: Any, keep: bool) -> None:
    """Scan one direction of one layer, whose gates hold the sums of the input.

    ``others ((S - 1) * scans * B, H)`` are the states besides h, in the caller's order, from the first to the last;
    ``shown ((S - 1) * N, D * H)`` is where they are written after each step, or empty.
    """
    cell, weights, layout, H, P = d.cell, d.weights, d.layout, d.hidden_size, d.h_0.shape[1]
    dtype, T = d.gates.dtype, layout.T
    pointers = (d.cells, others, shown, d.h_0, layout.rows, T, d.number, d.scans, d.reverse, keep)

    def cell_alone(low: int, high: int, rows: int) -> None:
        grid = ceil_div(H, THREADS), min(rows, MOST_BLOCKS)
        cell_kernel(cell, dtype).launch(
            grid, THREADS, d.gates, weights.vectors, d.out, d.column, *pointers, low, high, rows
        )

    if is_linear(cell) and P == H:
        cell_alone(0, T, layout.active)
        return
    target = (d.out, d.column) if P == H else (d.unprojected, 0)
    weight_hh = nothing(dtype) if weights.weight_hh is None else weights.weight_hh
    alone = P == H and not cell.has_product
    persistent = scan_kernel(cell, dtype, True) if alone else None
    shape = shape_of(persistent, H, cell.gates_hh, P if cell.gates_hh else 0, layout.active, dtype.itemsize)

    def steps(kernel: Kernel, low: int, high: int) -> None:
        given = (d.gates, weight_hh, weights.vectors, d.out, d.column, *target, *pointers)
        kernel.launch(shape.grid, shape.block, *given, low, high, shape.weights_piece, shape.piece, shared=shape.bytes)

    if persistent is not None and shape.persistent:
        steps(persistent, 0, T)
        return
    stepwise = scan_kernel(cell, dtype, False)
    for i in range(T):
        steps(stepwise, i, i + 1)
        t = T - 1 - i if d.reverse else i
        place, rows = int(layout.starts[t]), int(layout.starts[t + 1] - layout.starts[t])
        if P != H:
            multiply(d.unprojected, (place, 0), weights.weight_hr, True, d.out, (place, d.column), rows, P, H)
        if cell.has_product:
            factor, into = (place, (cell.kept_with_units - 1) * H), (place, (cell.gates - 1) * H)
            multiply(d.gates, factor, weights.weight_product, True, d.gates, into, rows, H, H, add=True)
            cell_alone(i, i + 1, rows)
