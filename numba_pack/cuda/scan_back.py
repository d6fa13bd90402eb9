"""The recurrence over time, backward: one direction of one layer.

As in ``cpu/scan_back.py``: the kernel goes over the steps against the order of the forward scan and turns what is kept
on the tape into the gradients of the sums, in place. The gradient of the states goes from step to step in d_h and
d_others; the part of d_h that passes through the gates is ``d_gates @ W_hh`` of the step that followed. After the last
step of a sequence comes one more, of that product alone: it leaves the gradient of the first state.

The forms of the kernel are those of ``scan.py``. With a projection the step is cut in two, for the product with
``weight_hr`` stands between the gradient of the output and that of the cell; with a `product` in the cell it is cut in
three, for that stands between the gradient of what it gives and that of what it is taken of.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from numba import boolean, cuda, int32, int64

from .._jit import inner
from ..cells.cell import Cell
from .device import MOST_BLOCKS, REAL, Kernel, ceil_div, empty, formula, jit_kernel, memoized, nothing, zeros
from .instructions import arrive, store4
from .products import multiply
from .rows import THREADS
from .scan import COUNTER, Scan, aligned, is_linear, load_weights, numbers_of
from .shape import shape_of
from .step import LANES, UNITS, WARPS, WarpTile, back_tile, block_of, pack, put, room_of, rows_of, walk_of
from .tuples import add_first, add_rows, read_blocks, read_rows, read_states, write_blocks, write_rows

__all__ = ["back_weights", "cell_back_kernel", "product_back_kernel", "scan_back", "scan_back_kernel"]


def kept_of_row(cell: Cell) -> Any:
    """What reads the tape of one unit of one row: ``-> kept, kept_states``."""
    numbers_kept, states_kept = read_blocks(cell.kept_numbers), read_rows(cell.kept_states)

    @inner
    def read(gates, cells, n, unit, H, index, scans):
        N = gates.shape[0]
        return numbers_kept(gates, n, unit, H), states_kept(cells, index * N + n, unit, scans * N)

    return read


def back_of_row(cell: Cell, dtype: np.dtype[Any]) -> Any:
    """What differentiates one unit of one row: it returns the gradient of the states before the step.

    The gradients of gates and unit weights take the place of what was kept.
    """
    step_back, read, write = formula(cell.step_back, dtype), kept_of_row(cell), write_blocks(cell.gates + cell.units)

    @inner
    def back(gates, cells, h, units, constants, d_states, d_factor, n, unit, H, index, scans):
        kept, states = read(gates, cells, n, unit, H, index, scans)
        d_gates, d_states = step_back(kept, h, states, units, constants, d_states, d_factor)
        write(d_gates, gates, n, unit, H)
        return d_states

    return back


# Gradients of the states besides h are rows of d_others ((S - 1) * scans * B, H), in the caller's order; d_shown
# ((S - 1) * N, D * H) are those of the states that were shown after each step, or it is empty.


def walk_back(cell: Cell, dtype: np.dtype[Any], tile: WarpTile, cut: bool) -> Any:
    """What does the rows of one step that a block has: see `walk_of`."""
    real, kept, gates_hh, reads_h, others = (
        REAL[dtype],
        cell.kept_with_units,
        cell.gates_hh,
        cell.reads_h_back,
        cell.others,
    )
    numbers, read, read_d = numbers_of(cell, dtype), kept_of_row(cell), read_states(others)
    step_back, write = formula(cell.step_back, dtype), write_blocks(cell.gates + cell.units)
    add_shown, write_d, add_product = add_rows(others), write_rows(1, others), add_first(cell.states)

    # step: where the rows of the step that followed begin, and how many of this one go on there, or -1 for the step
    # after the last; where the rows of the step before begin, and how many come from there; where this step begins

    @inner
    def bring(shared, at, first_row, rows, first, terms, size, group, groups, step, data):
        gates, _, _, _, _, h_0, _, _, _, _, layout, T, _, _, reverse, _, aligned = data
        place_ready, ready, _, _, _ = step
        B, G = h_0.shape[0], gates_hh * (gates.shape[1] // kept)
        warp, lane = cuda.threadIdx.x // LANES, cuda.threadIdx.x % LANES
        for row in range(warp, min(rows, size - first_row), WARPS):
            r, to = group + (first_row + row) * groups, at + row * terms
            source = -1
            if ready < 0:  # a sequence's first step was the last that was done
                source = layout[T + 1 + B + r]
                if not reverse and source >= 0:
                    source = r
            elif r < ready:
                source = place_ready + r
            for k in range(4 * lane, terms, 4 * LANES):
                if source >= 0:
                    put(shared, to + k, gates, source, 0, first + k, G, aligned)
                else:
                    store4(shared, to + k, (real(0.0), real(0.0), real(0.0), real(0.0)))

    @inner
    def begin(r, unit, step, data):
        gates, _, _, column, cells, _, d_out, _, _, _, layout, T, index, scans, _, _, _ = data
        n, arriving = 0, real(0.0)
        if step[1] >= 0:
            n = step[4] + r
            arriving = d_out[n, column + unit]
        of_tape = read(gates, cells, n, unit, gates.shape[1] // kept, index, scans)
        return layout[T + 1 + r], n, arriving, of_tape

    @inner
    def go_on(begun, r, unit, step, data):
        gates, _, out, column, _, h_0, _, d_h, d_others, d_shown, _, _, index, scans, reverse, _, _ = data
        _, _, place_before, coming, _ = step
        N, H, B = gates.shape[0], gates.shape[1] // kept, h_0.shape[0]
        sequence, n, arriving, of_tape = begun
        h = real(0.0)
        if reads_h:  # where the derivative reads h itself, there is no projection
            h = out[place_before + r, column + unit] if r < coming else h_0[sequence, unit]
        d_states = read_d(real(0.0), d_others, index * B + sequence, unit, scans * B)
        if d_shown.shape[0] > 0:
            d_states = add_shown(d_states, d_shown, n, unit + H if reverse else unit, N)
        return sequence, n, d_h[sequence, unit], arriving, h, d_states, of_tape

    @inner
    def end(sums, ready, r, unit, step, data):
        gates, vectors, _, _, _, h_0, _, d_h, d_others, _, _, _, index, scans, _, d_whole, _ = data
        H, B = gates.shape[1] // kept, h_0.shape[0]
        sequence, n, carried, arriving, h, d_states, of_tape = ready
        total = sums[0, 0] + carried
        if step[1] < 0:
            d_h[sequence, unit] = total
        else:
            total += arriving
            if cut:
                d_whole[n, unit] = total
                d_h[sequence, unit] = 0
            else:
                units, constants = numbers(vectors, unit, H)
                kept_numbers, states = of_tape
                d_states = add_product(d_states, total)
                d_gates, d_states = step_back(kept_numbers, h, states, units, constants, d_states, real(0.0))
                write(d_gates, gates, n, unit, H)
                d_h[sequence, unit] = d_states[0]
                write_d(d_states, d_others, index * B + sequence, unit, scans * B)

    return walk_of(tile, bring, begin, go_on, end)


@memoized
def scan_back_kernel(cell: Cell, dtype: np.dtype[Any], form: str) -> Kernel:
    """The kernel of the steps ``low`` to ``high`` of a backward scan, in one of the forms of ``shape.py``.

    "cut" is the stepwise form of the first part of a step that is cut: it writes the whole gradient of h to d_whole
    (N, P).
    """
    real = REAL[dtype]
    matrix, i = real[:, ::1], int64
    pointers = (matrix, real[::1], matrix, matrix, i, *[matrix] * 7, int64[::1], int32[::1])
    signature = (*pointers, i, i, i, boolean, i, i, i, i, i, boolean)
    function = _scan_back(cell, dtype, form == "resident", form == "cut")
    return Kernel(function, signature, together=form in ("resident", "streaming"))


@functools.cache
def _scan_back(cell: Cell, dtype: np.dtype[Any], resident: bool, cut: bool) -> Any:
    real, kept, gates_hh = REAL[dtype], cell.kept_with_units, cell.gates_hh
    tile = back_tile(dtype)
    few = tile.with_few()
    columns, span, rows, few_rows = tile.columns, tile.span, tile.rows, few.rows
    walk_many, walk_few = walk_back(cell, dtype, tile, cut), walk_back(cell, dtype, few, cut)

    @jit_kernel(WARPS * LANES)
    def scan_back(
        gates, packed, vectors, out, column, d_out, cells, h_0, d_h, d_others, d_shown, d_whole, layout, counters, T,
        index, scans, reverse, low, high, strips, capacity, piece, aligned,
    ):  # fmt: skip
        B, P, terms = h_0.shape[0], h_0.shape[1], gates_hh * (gates.shape[1] // kept)
        group, groups = cuda.blockIdx.y, cuda.gridDim.y
        first_strip = cuda.blockIdx.x * strips
        own_strips = min(strips, (P + UNITS - 1) // UNITS - first_strip)
        room = room_of(terms, span, piece, capacity)
        strip = columns * room[0] * (LANES * 4)
        shared = cuda.shared.array(0, real)
        registers = cuda.local.array((rows, columns), real), cuda.local.array((rows, 4), real)
        weights, weights_at, rows_at = packed, first_strip * strip, 0
        if resident:
            load_weights(cuda.threadIdx.x, packed, first_strip * strip, shared, own_strips * strip)
            weights, weights_at, rows_at = shared, 0, strips * strip
        block = block_of(cuda.threadIdx.x, first_strip, own_strips, group, groups, P)
        data = (
            gates, vectors, out, column, cells, h_0, d_out, d_h, d_others, d_shown, layout, T, index, scans, reverse,
            d_whole, aligned,
        )  # fmt: skip
        few_at_once = few_rows * min(block[2][2], capacity // few_rows)
        arrivals, direction = 0, 1 if reverse else -1
        t = low if reverse else T - 1 - low
        following, here = rows_of(layout, T, t - direction), rows_of(layout, T, t)
        before = rows_of(layout, T, t + direction)
        for i in range(low, high):
            place, all_rows = here[0], here[1] - here[0]
            ready, coming = min(all_rows, following[1] - following[0]), min(all_rows, before[1] - before[0])
            step = (following[0], ready, before[0], coming, place)
            if i == T:  # the step after the last is for all sequences
                all_rows, step = B, (0, -1, 0, 0, 0)
            t += direction
            following, here, before = here, before, rows_of(layout, T, t + direction)
            size = (all_rows - group + groups - 1) // groups  # rows of this group
            if size <= 0:
                continue
            counter = (counters, group * COUNTER, arrivals)
            if size <= few_at_once:
                walk_few(weights, weights_at, shared, rows_at, registers, block, room, size, counter, step, data)
            else:
                walk_many(weights, weights_at, shared, rows_at, registers, block, room, size, counter, step, data)
            cuda.syncthreads()
            if cuda.gridDim.x > 1 and i + 1 < high:
                if cuda.threadIdx.x == 0:
                    arrive(counters, group * COUNTER)
                arrivals += cuda.gridDim.x

    return scan_back


@memoized
def cell_back_kernel(cell: Cell, dtype: np.dtype[Any], projected: bool) -> Kernel:
    """The kernel of the derivative alone, of up to ``rows`` rows of the steps ``low`` to ``high``.

    It does all steps of a linear cell, or the last part of a step that is cut. Row ``n - first`` of d_source is added
    to the gradient of h that comes from the step that followed; with a projection none comes from there.
    """
    real, kept, reads_h, others = REAL[dtype], cell.kept_with_units, cell.reads_h_back, cell.others
    has_product = bool(cell.has_product)
    numbers, back, read_d = numbers_of(cell, dtype), back_of_row(cell, dtype), read_states(others)
    add_out, add_shown, write_d = add_first(cell.states), add_rows(others), write_rows(1, others)

    @cuda.jit
    def cell_back(
        gates, vectors, out, column, cells, h_0, d_source, first, d_column, d_h, d_others, d_shown, d_factor, layout, T,
        index, scans, reverse, low, high, rows,
    ):  # fmt: skip
        N, H, B = gates.shape[0], gates.shape[1] // kept, h_0.shape[0]
        unit = cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x
        for r in range(cuda.blockIdx.y, rows, cuda.gridDim.y):
            if unit < H:
                units, constants = numbers(vectors, unit, H)
                sequence = layout[T + 1 + r]
                d_carried = real(0.0)
                if not projected:
                    d_carried = d_h[sequence, unit]
                d_states = read_d(d_carried, d_others, index * B + sequence, unit, scans * B)
                for i in range(low, high):
                    t, before = T - 1 - i, T - 2 - i
                    if reverse:
                        t, before = i, i + 1
                    n = layout[t] + r
                    if n < layout[t + 1]:
                        h = real(0.0)
                        if reads_h:
                            h = h_0[sequence, unit]
                            if 0 <= before and before < T:
                                n_before = layout[before] + r
                                if n_before < layout[before + 1]:
                                    h = out[n_before, column + unit]
                        d_states = add_out(d_states, d_source[n - first, d_column + unit])
                        if d_shown.shape[0] > 0:
                            d_states = add_shown(d_states, d_shown, n, unit + H if reverse else unit, N)
                        of_factor = real(0.0)
                        if has_product:
                            of_factor = d_factor[r, unit]
                        d_states = back(
                            gates, cells, h, units, constants, d_states, of_factor, n, unit, H, index, scans
                        )
                if not projected:
                    d_h[sequence, unit] = d_states[0]
                write_d(d_states, d_others, index * B + sequence, unit, scans * B)

    matrix, i = real[:, ::1], int64
    pointers = (matrix, matrix, matrix, i, matrix, matrix, matrix, i, i, *[matrix] * 4, int64[::1])
    return Kernel(cell_back, (*pointers, i, i, i, boolean, i, i, i))


@memoized
def product_back_kernel(cell: Cell, dtype: np.dtype[Any]) -> Kernel:
    """The kernel of the gradient of a cell's `product` at one step: row r of d_product is that of row r of the step."""
    real, reads_h, others = REAL[dtype], cell.reads_h_back, cell.others
    numbers, read, read_d = numbers_of(cell, dtype), kept_of_row(cell), read_states(others)
    add_shown, of_product = add_rows(others), formula(cell.product_back, dtype)

    @cuda.jit
    def product_back(
        gates, vectors, out, column, cells, h_0, d_whole, d_others, d_shown, d_product, layout, T, index, scans,
        reverse, t, before,
    ):  # fmt: skip
        N, H, B = gates.shape[0], h_0.shape[1], h_0.shape[0]
        unit = cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x
        place, size = layout[t], layout[t + 1] - layout[t]
        place_before, going_on = 0, 0
        if 0 <= before and before < T:
            place_before = layout[before]
            going_on = min(size, layout[before + 1] - place_before)
        for r in range(cuda.blockIdx.y, size, cuda.gridDim.y):
            if unit < H:
                n, sequence = place + r, layout[T + 1 + r]
                h = real(0.0)
                if reads_h:
                    h = out[place_before + r, column + unit] if r < going_on else h_0[sequence, unit]
                units, constants = numbers(vectors, unit, H)
                d_states = read_d(d_whole[n, unit], d_others, index * B + sequence, unit, scans * B)
                if d_shown.shape[0] > 0:
                    d_states = add_shown(d_states, d_shown, n, unit + H if reverse else unit, N)
                numbers_kept, states = read(gates, cells, n, unit, H, index, scans)
                found = of_product(numbers_kept, h, states, units, constants, d_states, real(0.0))
                d_product[r, unit] = found[0]

    matrix, i = real[:, ::1], int64
    pointers = (matrix, matrix, matrix, i, *[matrix] * 6, int64[::1])
    return Kernel(product_back, (*pointers, i, i, i, boolean, i, i))


def back_weights(cell: Cell, weight_hh: Any, hidden_size: int) -> Any:
    """The weights (gates * H, P) that scan_back takes as ``packed``."""
    shift = (cell.gates_hh - cell.turn) * hidden_size % (cell.gates_hh * hidden_size)
    return pack(weight_hh, True, weight_hh.shape[1], shift, back_tile(weight_hh.dtype))


def scan_back(d: Scan, d_out: Any, d_h: Any, d_others: Any, d_shown: Any, d_projected: Any) -> None:
    """Scan one direction of one layer against its order.

    What is kept becomes the gradients of gates and unit weights; d_h (B, P) and d_others, those of the last states,
    become those of the first; with a projection, d_projected (N, P) the whole gradient of h.
    """
    cell, weights, layout, H, P = d.cell, d.weights, d.layout, d.hidden_size, d.h_0.shape[1]
    dtype, T = d.gates.dtype, layout.T
    of_scan = (layout.rows, T, d.number, d.scans, d.reverse)

    def cell_back(low: int, high: int, rows: int, d_source: Any, first: int, d_column: int, d_factor: Any) -> None:
        grid = ceil_div(H, THREADS), min(rows, MOST_BLOCKS)
        source = (d_source, first, d_column, d_h, d_others, d_shown, d_factor)
        given = (d.gates, weights.vectors, d.out, d.column, d.cells, d.h_0, *source, *of_scan)
        cell_back_kernel(cell, dtype, P != H).launch(grid, THREADS, *given, low, high, rows)

    if is_linear(cell) and P == H:
        cell_back(0, T, layout.active, d_out, 0, d.column, nothing(dtype))
        return
    cut = P != H or bool(cell.has_product)
    terms = cell.gates_hh * H
    kernels = () if cut else tuple(scan_back_kernel(cell, dtype, form) for form in ("resident", "streaming"))
    shape = shape_of(kernels, d.at_once, back_tile(dtype), P, terms, layout.B, dtype)
    kernel = scan_back_kernel(cell, dtype, "cut" if cut else shape.form)
    counters = zeros((shape.grid[1] * COUNTER,), np.int32)
    d_whole = d_projected if P != H else empty((len(d.gates), H), dtype) if cut else nothing(dtype)
    fits = H % 4 == 0 and aligned(d.gates)

    def steps(low: int, high: int) -> None:
        given = (d.gates, weights.back, weights.vectors, d.out, d.column, d_out, d.cells, d.h_0, d_h, d_others, d_shown)
        rest = (low, high, shape.strips, shape.capacity, shape.piece, fits)
        arguments = (*given, d_whole, layout.rows, counters, T, d.number, d.scans, d.reverse, *rest)
        kernel.launch(shape.grid, WARPS * LANES, *arguments, shared=shape.bytes)

    if shape.form != "stepwise":
        steps(0, T + 1)
        return
    of_cell, d_factor = (empty((layout.active, H), dtype) for _ in range(2)) if cut else (None, None)
    for i in range(T + 1):
        steps(i, i + 1)
        if not cut or i == T:
            continue
        t, before = (i, i + 1) if d.reverse else (T - 1 - i, T - 2 - i)
        place, rows = int(layout.starts[t]), int(layout.starts[t + 1] - layout.starts[t])
        if P != H:
            multiply(d_whole, (place, 0), weights.weight_hr, False, of_cell, (0, 0), rows, H, P)
            cell_back(i, i + 1, rows, of_cell, place, 0, nothing(dtype))
        else:
            given = (d.gates, weights.vectors, d.out, d.column, d.cells, d.h_0, d_whole, d_others, d_shown, of_cell)
            grid = ceil_div(H, THREADS), min(rows, MOST_BLOCKS)
            product_back_kernel(cell, dtype).launch(grid, THREADS, *given, *of_scan, t, before)
            multiply(of_cell, (0, 0), weights.weight_product, False, d_factor, (0, 0), rows, H, H)
            cell_back(i, i + 1, rows, d_whole, 0, 0, d_factor)
