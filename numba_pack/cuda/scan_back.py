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

from typing import Any

import numpy as np
from numba import boolean, cuda, int64

from .._jit import inner
from ..cells.cell import Cell
from .device import MOST_BLOCKS, REAL, Kernel, ceil_div, empty, formula, memoized, nothing
from .products import multiply
from .rows import THREADS, transposed
from .scan import (
    ROWS,
    SPLITS,
    Scan,
    add_products,
    is_linear,
    leave_sums,
    load_weights,
    numbers_of,
    shape_of,
    whole_sum,
)
from .tuples import add_first, add_rows, read_blocks, read_rows, read_states, write_blocks, write_rows

__all__ = ["cell_back_kernel", "product_back_kernel", "scan_back", "scan_back_kernel"]


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


@memoized
def scan_back_kernel(cell: Cell, dtype: np.dtype[Any], persistent: bool, cut: bool) -> Kernel:
    """The kernel of the steps ``low`` to ``high`` of a backward scan.

    ``cut`` is the first part of a step that is cut: it writes the whole gradient of h to d_whole (N, P).
    """
    real, kept, gates_hh, reads_h, others = (
        REAL[dtype],
        cell.kept_with_units,
        cell.gates_hh,
        cell.reads_h_back,
        cell.others,
    )
    numbers, back, read_d = numbers_of(cell, dtype), back_of_row(cell, dtype), read_states(others)
    add_shown, write_d = add_rows(others), write_rows(1, others)

    @cuda.jit
    def scan_back(
        gates, weights, vectors, out, column, d_out, cells, h_0, d_h, d_others, d_shown, d_whole, layout, T, index,
        scans, reverse, low, high, weights_piece, piece,
    ):  # fmt: skip
        # weights (P, G): the transpose of weight_hh, its columns in the order of the blocks on the tape
        H, B, P = gates.shape[1] // kept, h_0.shape[0], h_0.shape[1]
        N, G = gates.shape[0], gates_hh * H
        units, groups = cuda.blockDim.x, cuda.blockDim.z
        u, s, z = cuda.threadIdx.x, cuda.threadIdx.y, cuda.threadIdx.z
        first_unit = cuda.blockIdx.x * units
        unit, thread = first_unit + u, (u, s, z, units, groups)
        shared = cuda.shared.array(0, real)
        rows_at = weights_piece * units
        sums_at = rows_at + ROWS * groups * piece
        sums = cuda.local.array((ROWS, 1), real)
        if persistent:
            load_weights(thread, weights, 1, 0, first_unit, P, 0, G, weights_piece, shared)
        for i in range(low, high):
            t, following, before = T - 1 - i, T - i, T - 2 - i
            if reverse:
                t, following, before = i, i - 1, i + 1
            beyond = i == T  # the step after the last: every row comes from its sequence's first step
            place, size, going_on, place_before, ready, place_ready = 0, B, 0, 0, 0, 0
            if not beyond:
                place, size = layout[t], layout[t + 1] - layout[t]
                if 0 <= before and before < T:  # rows that have a step before
                    place_before = layout[before]
                    going_on = min(size, layout[before + 1] - place_before)
                if 0 <= following and following < T:  # rows whose next step is done
                    place_ready = layout[following]
                    ready = min(size, layout[following + 1] - place_ready)
            for r0 in range(cuda.blockIdx.y * ROWS * groups, size, cuda.gridDim.y * ROWS * groups):
                for j in range(ROWS):
                    sums[j, 0] = real(0.0)
                for k0 in range(0, G, piece):
                    terms = min(piece, G - k0)
                    if not persistent:
                        load_weights(thread, weights, 1, 0, first_unit, P, k0, terms, weights_piece, shared)
                    for row in range(z, ROWS * groups, groups):
                        r = r0 + row
                        source = -1
                        if beyond:
                            if r < B:
                                source = layout[T + 1 + B + r]
                                if not reverse and source >= 0:
                                    source = r
                        elif r < ready:
                            source = place_ready + r
                        for k in range(s * units + u, terms, SPLITS * units):
                            value = real(0.0)
                            if source >= 0:
                                value = gates[source, k0 + k]
                            shared[rows_at + row * piece + k] = value
                    cuda.syncthreads()
                    first = k0 if persistent else 0
                    add_products(thread, shared, 1, first, terms, weights_piece, rows_at, piece, sums)
                    cuda.syncthreads()
                leave_sums(thread, shared, sums, 0, sums_at)
                cuda.syncthreads()
                r = r0 + s * groups + z
                if s < ROWS and r < size and unit < P:  # this thread ends one row
                    sequence = layout[T + 1 + r]
                    total = whole_sum(thread, shared, sums_at) + d_h[sequence, unit]
                    if beyond:
                        d_h[sequence, unit] = total
                    else:
                        n = place + r
                        total += d_out[n, column + unit]
                        if cut:
                            d_whole[n, unit] = total
                            d_h[sequence, unit] = 0
                        else:
                            h = real(0.0)
                            if reads_h:  # where the derivative reads h itself, there is no projection
                                h = out[place_before + r, column + unit] if r < going_on else h_0[sequence, unit]
                            d_states = read_d(total, d_others, index * B + sequence, unit, scans * B)
                            if d_shown.shape[0] > 0:
                                d_states = add_shown(d_states, d_shown, n, unit + H if reverse else unit, N)
                            weights_here, constants = numbers(vectors, unit, H)
                            d_states = back(
                                gates, cells, h, weights_here, constants, d_states, real(0.0), n, unit, H, index, scans
                            )
                            d_h[sequence, unit] = d_states[0]
                            write_d(d_states, d_others, index * B + sequence, unit, scans * B)
                cuda.syncthreads()
            if persistent:
                cuda.cg.this_grid().sync()

    matrix, i = real[:, ::1], int64
    pointers = (matrix, matrix, matrix, matrix, i, *[matrix] * 7, int64[::1])
    return Kernel(scan_back, (*pointers, i, i, i, boolean, i, i, i, i))


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
    weight_hh = transposed(weights.weight_hh, (cell.gates_hh - cell.turn) * H % terms) if terms else nothing(dtype)
    persistent = None if cut else scan_back_kernel(cell, dtype, True, False)
    shape = shape_of(persistent, P, 1, terms, layout.active, dtype.itemsize)
    d_whole = d_projected if P != H else empty((len(d.gates), H), dtype) if cut else nothing(dtype)

    def steps(kernel: Kernel, low: int, high: int) -> None:
        given = (d.gates, weight_hh, weights.vectors, d.out, d.column, d_out, d.cells, d.h_0, d_h, d_others, d_shown)
        rest = (low, high, shape.weights_piece, shape.piece)
        kernel.launch(shape.grid, shape.block, *given, d_whole, *of_scan, *rest, shared=shape.bytes)

    if persistent is not None and shape.persistent:
        steps(persistent, 0, T + 1)
        return
    stepwise = scan_back_kernel(cell, dtype, False, cut)
    of_cell, d_factor = (empty((layout.active, H), dtype) for _ in range(2)) if cut else (None, None)
    for i in range(T + 1):
        steps(stepwise, i, i + 1)
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
