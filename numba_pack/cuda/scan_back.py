"""The recurrence over time, backward: one direction of one layer.

As in ``cpu/scan_back.py``: the kernel goes over the steps against the order of the forward scan and turns the gates on
the tape into the gradients of their sums, in place. The gradient of the state goes from step to step in d_h and d_c;
its part that passes through the gates is ``d_gates @ W_hh`` of the step that followed. After the last step of a
sequence comes one more, of that product alone: it leaves the gradient of the first state.

The forms of the kernel are those of ``scan.py``. With a projection the step is cut in two, for the product with
``weight_hr`` stands between the gradient of the output and that of the cell.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import boolean, cuda, int64

from ..cells.cell import Cell
from .device import MOST_BLOCKS, REAL, Kernel, ceil_div, empty, formula, memoized
from .products import multiply
from .rows import THREADS, transposed
from .scan import AS_TUPLE, ROWS, SPLITS, Direction, add_products, leave_sums, load_weights, shape_of, whole_sum

__all__ = ["scan_back"]


@memoized
def scan_back_kernel(cell: Cell, dtype: np.dtype[Any], persistent: bool, projected: bool) -> Kernel:
    """The kernel of the steps ``low`` to ``high`` of a backward scan; with a projection, of their first half."""
    real, step_back = REAL[dtype], formula(cell.step_back)
    gate_count, kept, turn, has_c = cell.gates, cell.kept, cell.turn, cell.has_c
    as_tuple = AS_TUPLE[kept]

    @cuda.jit
    def scan_back(
        gates, weights, out, column, d_out, cells, h_0, c_0, d_h, d_c, d_projected, layout, T, B, reverse, low, high,
        weights_piece, piece,
    ):  # fmt: skip
        # weights (P, G): the transpose of weight_hh, its columns in the order of the gates on the tape
        P, G = weights.shape
        H = G // gate_count
        units, groups = cuda.blockDim.x, cuda.blockDim.z
        u, s, z = cuda.threadIdx.x, cuda.threadIdx.y, cuda.threadIdx.z
        first_unit = cuda.blockIdx.x * units
        unit, thread = first_unit + u, (u, s, z, units, groups)
        shared = cuda.shared.array(0, real)
        rows_at = weights_piece * units
        sums_at = rows_at + ROWS * groups * piece
        sums = cuda.local.array((ROWS, 1), real)
        values = cuda.local.array(kept, real)
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
                        if projected:
                            d_projected[n, unit] = total
                            d_h[sequence, unit] = 0
                        else:
                            for q in range(kept):
                                values[q] = gates[n, q * H + unit]
                            h, c, d_c_after = real(0.0), real(0.0), real(0.0)
                            if turn:  # the one formula that reads h itself
                                h = out[place_before + r, column + unit] if r < going_on else h_0[sequence, unit]
                            if has_c:
                                c = cells[place_before + r, unit] if r < going_on else c_0[sequence, unit]
                                d_c_after = d_c[sequence, unit]
                            d_gates, d_h_before, d_c_before = step_back(as_tuple(values), h, c, total, d_c_after)
                            for q in range(kept):
                                gates[n, q * H + unit] = d_gates[q]
                            d_h[sequence, unit] = d_h_before
                            if has_c:
                                d_c[sequence, unit] = d_c_before
                cuda.syncthreads()
            if persistent:
                cuda.cg.this_grid().sync()

    matrix, i = real[:, ::1], int64
    return Kernel(
        scan_back,
        (matrix, matrix, matrix, i, *[matrix] * 7, int64[::1], i, i, boolean, i, i, i, i),
    )


@memoized
def cell_back_kernel(cell: Cell, dtype: np.dtype[Any]) -> Kernel:
    """The kernel of the cell's derivative at one step, of a layer with a projection: the second half of a step."""
    real, step_back = REAL[dtype], formula(cell.step_back)
    kept = cell.kept
    as_tuple = AS_TUPLE[kept]

    @cuda.jit
    def cell_back(gates, cells, c_0, d_unprojected, d_c, layout, T, t, before):
        H = cells.shape[1]
        place, size = layout[t], layout[t + 1] - layout[t]
        place_before, going_on = 0, 0
        if 0 <= before and before < T:
            place_before = layout[before]
            going_on = min(size, layout[before + 1] - place_before)
        values = cuda.local.array(kept, real)
        unit = cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x
        for r in range(cuda.blockIdx.y, size, cuda.gridDim.y):
            if unit < H:
                n, sequence = place + r, layout[T + 1 + r]
                for q in range(kept):
                    values[q] = gates[n, q * H + unit]
                c = cells[place_before + r, unit] if r < going_on else c_0[sequence, unit]
                d_h = d_unprojected[r, unit]
                d_gates, _, d_c_before = step_back(as_tuple(values), d_h, c, d_h, d_c[sequence, unit])
                for q in range(kept):
                    gates[n, q * H + unit] = d_gates[q]
                d_c[sequence, unit] = d_c_before

    matrix, i = real[:, ::1], int64
    return Kernel(cell_back, (matrix, matrix, matrix, matrix, matrix, int64[::1], i, i, i))


def scan_back(d: Direction, d_out: Any, d_h: Any, d_c: Any, d_projected: Any) -> None:
    """Scan one direction of one layer against its order.

    The gates become their gradients; d_h (B, P) and d_c (B, H), in the caller's order, those of the last state and
    then of the first; with a projection, d_projected (N, P) the whole gradient of h.
    """
    cell, layout = d.cell, d.layout
    dtype, (G, P) = d.gates.dtype, d.weights.weight_hh.shape
    H, T = G // cell.gates, layout.T
    weights = transposed(d.weights.weight_hh, (cell.gates - cell.turn) * H % G)
    given = (d.gates, weights, d.out, d.column, d_out, d.cells, d.h_0, d.c_0, d_h, d_c, d_projected, layout.rows)
    persistent = scan_back_kernel(cell, dtype, True, False)
    shape = shape_of(persistent if P == H else None, P, 1, G, layout.active, dtype.itemsize)

    def steps(kernel: Kernel, low: int, high: int) -> None:
        rest = (T, layout.B, d.reverse, low, high, shape.weights_piece, shape.piece)
        kernel.launch(shape.grid, shape.block, *given, *rest, shared=shape.bytes)

    if shape.persistent:
        steps(persistent, 0, T + 1)
        return
    stepwise = scan_back_kernel(cell, dtype, False, P != H)
    d_unprojected = empty((layout.active if P != H else 0, H), dtype)
    for i in range(T + 1):
        steps(stepwise, i, i + 1)
        if P != H and i < T:
            t, before = (i, i + 1) if d.reverse else (T - 1 - i, T - 2 - i)
            place, size = int(layout.starts[t]), int(layout.starts[t + 1] - layout.starts[t])
            multiply(d_projected, (place, 0), d.weights.weight_hr, False, d_unprojected, (0, 0), size, H, P)
            cell_back_kernel(cell, dtype).launch(
                (ceil_div(H, THREADS), min(size, MOST_BLOCKS)), THREADS,
                d.gates, d.cells, d.c_0, d_unprojected, d_c, layout.rows, T, t, before,
            )  # fmt: skip
