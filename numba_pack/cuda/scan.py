"""The recurrence over time, forward: one direction of one layer.

Shapes: T steps, N rows, B sequences, H units, P outputs (the size of h), S states. As on the CPU, row r of a step
continues row r of the step before, so that the output is the state h; the other states are in a buffer from the first
step to the last. A row of gates has blocks of H columns, see ``cells/cell.py``.

The kernel of a scan does some of its steps, in one of the forms of ``shape.py``: a block does its rows of a step by
tiles (``step.py``), each row and unit of which one thread ends with the formula of the cell, and waits for the other
blocks of its group.

Two kinds of cells need another kernel, that of the formula alone. Where a cell has no product with the state, it does
all steps: each thread has a unit of a sequence to itself, and goes with it through time. Where a cell has a `product`
besides, it does the second half of a step: the stepwise form ends with the factor, and the product of all rows follows.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import numpy as np
from numba import boolean, cuda, int32, int64

from .._jit import inner
from ..cells.cell import Cell
from .device import MOST_BLOCKS, REAL, SIMULATED, Kernel, ceil_div, formula, jit_kernel, memoized, zeros
from .instructions import arrive, load4, store4
from .layout import BatchLayout
from .products import multiply
from .rows import THREADS
from .shape import shape_of
from .step import (
    LANES,
    UNITS,
    WARPS,
    WarpTile,
    block_of,
    forward_tile,
    pack,
    put,
    room_of,
    rows_of,
    walk_of,
)
from .tuples import add_sums, read_blocks, read_states, write_blocks, write_rows

__all__ = [
    "COUNTER", "Scan", "aligned", "cell_kernel", "forward_weights", "is_linear", "load_weights", "numbers_of",
    "scan_forward", "scan_kernel",
]  # fmt: skip

#: elements from counter to counter: each in a line of the cache of its own
COUNTER = 32


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


@inner
def load_weights(thread, packed, at, shared, size):
    """Copy weights from this index on into the beginning of shared memory. A barrier must follow."""
    for i in range(4 * thread, size, 4 * WARPS * LANES):
        store4(shared, i, load4(packed, at + i))


def walk_forward(cell: Cell, dtype: np.dtype[Any], tile: WarpTile) -> Any:
    """What does the rows of one step that a block has: see `walk_of`."""
    real, kept, reads_h, has_product = REAL[dtype], cell.kept_with_units, cell.reads_h, bool(cell.has_product)
    numbers, end_row = numbers_of(cell, dtype), factor_of_row(cell, dtype) if has_product else cell_of_row(cell, dtype)
    inputs_of, states_of, keep_others = read_blocks(cell.gates), read_states(cell.others), write_rows(1, cell.others)
    sums_of = add_sums(cell.gates, cell.gates_hh)

    # step: where the rows of the step before begin, how many of this one continue one of them, where this step begins

    @inner
    def bring(shared, at, first_row, rows, first, terms, size, group, groups, step, data):
        _, _, out, column, _, _, _, _, _, h_0, layout, T, _, _, _, _, aligned = data
        place_before, going_on, _ = step
        P, warp, lane = h_0.shape[1], cuda.threadIdx.x // LANES, cuda.threadIdx.x % LANES
        for row in range(warp, min(rows, size - first_row), WARPS):
            r, to = group + (first_row + row) * groups, at + row * terms
            for k in range(4 * lane, terms, 4 * LANES):
                if r < going_on:
                    put(shared, to + k, out, place_before + r, column, first + k, P, aligned)
                else:
                    put(shared, to + k, h_0, layout[T + 1 + r], 0, first + k, P, aligned)

    @inner
    def begin(r, unit, step, data):
        gates, _, _, _, _, _, _, _, _, _, layout, T, _, _, _, _, _ = data
        return layout[T + 1 + r], inputs_of(gates, step[2] + r, unit, gates.shape[1] // kept)

    @inner
    def go_on(begun, r, unit, step, data):
        _, _, out, column, _, _, _, others, _, h_0, _, _, index, scans, _, _, _ = data
        place_before, going_on, _ = step
        B, (sequence, inputs) = h_0.shape[0], begun
        h = real(0.0)
        if reads_h:  # where the formula reads h itself, there is no projection
            h = out[place_before + r, column + unit] if r < going_on else h_0[sequence, unit]
        return sequence, inputs, states_of(h, others, index * B + sequence, unit, scans * B)

    @inner
    def end(sums, ready, r, unit, step, data):
        gates, vectors, _, _, hidden, hidden_column, cells, others, shown, h_0, _, _, index, scans, reverse, keep, _ = (
            data
        )
        H, B, n = gates.shape[1] // kept, h_0.shape[0], step[2] + r
        sequence, of_input, states = ready
        units, constants = numbers(vectors, unit, H)
        states = end_row(
            sums_of(sums, of_input), states, units, constants, gates, cells, shown, n, unit, H, index, scans, reverse,
            keep,
        )  # fmt: skip
        if not has_product:
            keep_others(states, others, index * B + sequence, unit, scans * B)
            hidden[n, hidden_column + unit] = states[0]

    return walk_of(tile, bring, begin, go_on, end)


@memoized
def scan_kernel(cell: Cell, dtype: np.dtype[Any], form: str) -> Kernel:
    """The kernel of the steps ``low`` to ``high`` of a scan, in one of the forms of ``shape.py``."""
    real = REAL[dtype]
    matrix, i = real[:, ::1], int64
    pointers = (matrix, real[::1], matrix, matrix, i, matrix, i, *[matrix] * 4, int64[::1], int32[::1])
    signature = (*pointers, i, i, i, boolean, boolean, i, i, i, i, i, boolean)
    return Kernel(_scan(cell, dtype, form == "resident"), signature, together=form != "stepwise")


@functools.cache
def _scan(cell: Cell, dtype: np.dtype[Any], resident: bool) -> Any:
    real, kept = REAL[dtype], cell.kept_with_units
    tile = forward_tile(cell.gates_hh, dtype)
    few = tile.with_few()
    columns, span, rows, few_rows, sums_each = tile.columns, tile.span, tile.rows, few.rows, max(1, tile.columns)
    has_few = few_rows < rows
    walk_many, walk_few = walk_forward(cell, dtype, tile), walk_forward(cell, dtype, few)

    @jit_kernel(WARPS * LANES)
    def scan(
        gates, packed, vectors, out, column, hidden, hidden_column, cells, others, shown, h_0, layout, counters, T,
        index, scans, reverse, keep, low, high, strips, capacity, piece, aligned,
    ):  # fmt: skip
        H, P = gates.shape[1] // kept, h_0.shape[1]
        group, groups = cuda.blockIdx.y, cuda.gridDim.y
        first_strip = cuda.blockIdx.x * strips
        own_strips = min(strips, (H + UNITS - 1) // UNITS - first_strip)
        terms = P if columns > 0 else 0
        room = room_of(terms, span, piece, capacity)
        strip = columns * room[0] * (LANES * 4)
        shared = cuda.shared.array(0, real)
        registers = cuda.local.array((rows, sums_each), real), cuda.local.array((rows, 4), real)
        weights, weights_at, rows_at = packed, first_strip * strip, 0
        if resident:
            load_weights(cuda.threadIdx.x, packed, first_strip * strip, shared, own_strips * strip)
            weights, weights_at, rows_at = shared, 0, strips * strip
        block = block_of(cuda.threadIdx.x, first_strip, own_strips, group, groups, H)
        data = (
            gates, vectors, out, column, hidden, hidden_column, cells, others, shown, h_0, layout, T, index, scans,
            reverse, keep, aligned,
        )  # fmt: skip
        few_at_once = few_rows * min(block[2][2], capacity // few_rows)
        arrivals, direction = 0, -1 if reverse else 1
        t = T - 1 - low if reverse else low
        before, ahead = rows_of(layout, T, t - direction), rows_of(layout, T, t)
        for i in range(low, high):
            here = ahead
            t += direction
            ahead = rows_of(layout, T, t)  # for the next step: it will be there by then
            place, all_rows = here[0], here[1] - here[0]
            step = (before[0], min(all_rows, before[1] - before[0]), place)
            before = here
            size = (all_rows - group + groups - 1) // groups  # rows of this group
            if size <= 0:
                continue
            counter = (counters, group * COUNTER, arrivals)
            if has_few and size <= few_at_once:
                walk_few(weights, weights_at, shared, rows_at, registers, block, room, size, counter, step, data)
            else:
                walk_many(weights, weights_at, shared, rows_at, registers, block, room, size, counter, step, data)
            cuda.syncthreads()
            if cuda.gridDim.x > 1 and i + 1 < high:
                if cuda.threadIdx.x == 0:
                    arrive(counters, group * COUNTER)
                arrivals += cuda.gridDim.x

    return scan


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
    #: scans that run at once, and so share the device
    at_once: int
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


def forward_weights(cell: Cell, weight_hh: Any, hidden_size: int) -> Any:
    """The weights (gates * H, P) that scan_forward takes as ``packed``."""
    shift = (cell.gates_hh - cell.turn) * hidden_size % (cell.gates_hh * hidden_size)
    return pack(weight_hh, False, hidden_size, shift, forward_tile(cell.gates_hh, weight_hh.dtype))


def aligned(*arrays: Any) -> bool:
    """Whether four elements from any fourth column on can be loaded at once."""
    return SIMULATED or all(array.shape[1] % 4 == 0 and array.address % 16 == 0 for array in arrays)


def scan_forward(d: Scan, others: Any, shown: Any, keep: bool) -> None:
    """Scan one direction of one layer, whose gates hold the sums of the input.

    ``others ((S - 1) * scans * B, H)`` are the states besides h, in the caller's order, from the first to the last;
    ``shown ((S - 1) * N, D * H)`` is where they are written after each step, or empty.
    """
    cell, weights, layout, H, P = d.cell, d.weights, d.layout, d.hidden_size, d.h_0.shape[1]
    dtype, T = d.gates.dtype, layout.T
    pointers, of_scan = (d.cells, others, shown, d.h_0, layout.rows), (T, d.number, d.scans, d.reverse, keep)

    def cell_alone(low: int, high: int, rows: int) -> None:
        grid = ceil_div(H, THREADS), min(rows, MOST_BLOCKS)
        given = (d.gates, weights.vectors, d.out, d.column, *pointers, *of_scan)
        cell_kernel(cell, dtype).launch(grid, THREADS, *given, low, high, rows)

    if is_linear(cell) and P == H:
        cell_alone(0, T, layout.active)
        return
    target = (d.out, d.column) if P == H else (d.unprojected, 0)
    alone = P == H and not cell.has_product
    kernels = tuple(scan_kernel(cell, dtype, form) for form in ("resident", "streaming")) if alone else ()
    terms = P if cell.gates_hh else 0
    shape = shape_of(kernels, d.at_once, forward_tile(cell.gates_hh, dtype), H, terms, layout.active, dtype)
    kernel, counters = scan_kernel(cell, dtype, shape.form), zeros((shape.grid[1] * COUNTER,), np.int32)
    fits = d.column % 4 == 0 and aligned(d.out, d.h_0)

    def steps(low: int, high: int) -> None:
        given = (d.gates, weights.forward, weights.vectors, d.out, d.column, *target, *pointers, counters, *of_scan)
        rest = (low, high, shape.strips, shape.capacity, shape.piece, fits)
        kernel.launch(shape.grid, WARPS * LANES, *given, *rest, shared=shape.bytes)

    if shape.form != "stepwise":
        steps(0, T)
        return
    for i in range(T):
        steps(i, i + 1)
        t = T - 1 - i if d.reverse else i
        place, rows = int(layout.starts[t]), int(layout.starts[t + 1] - layout.starts[t])
        if P != H:
            multiply(d.unprojected, (place, 0), weights.weight_hr, True, d.out, (place, d.column), rows, P, H)
        if cell.has_product:
            factor, into = (place, (cell.kept_with_units - 1) * H), (place, (cell.gates - 1) * H)
            multiply(d.gates, factor, weights.weight_product, True, d.gates, into, rows, H, H, add=True)
            cell_alone(i, i + 1, rows)
