"""The recurrent product of both scans: rows of a step times the recurrent weights, by the warps of a block.

A warp makes a *tile* of it: up to ROWS rows by the sums of UNITS units. Forward, those are all gates of a unit, SPLITS
lanes share a sum, and a lane has the sums of two units; backward, where a unit has one sum, all lanes of the warp share
it, and a lane has those of four units. So 16 loads of 16 bytes from shared memory serve 256 fused multiply-adds of a
lane forward, and 12 loads 128 backward, and at the end each lane has one row and unit of its own, to which it applies
the formula of the cell.

The order of a sum is one and the same whatever the batch, the device, and the form of the scan. A lane adds up the
terms of its split, four neighbours of every SPLITS * 4, one after the other in one accumulator; then the lanes' parts
are added in pairs, those of lanes that are far apart first.

The weights lie in an order of their own, such that the four terms of each lane of a warp are neighbours of those of the
next lane: ``(units / UNITS, sums of a lane, terms / span, LANES, 4)``, a *strip* for the units of each tile. Beyond the
last unit and the last term are zeros. `pack` makes it of weight_hh.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import cuda, int64

from .._jit import inner
from .device import REAL, SIMULATED, Kernel, ceil_div, empty, memoized
from .instructions import all_here, copies_done, copy4, exchange, fma, load4, raised

__all__ = [
    "LANES", "UNITS", "WARPS", "WarpTile", "back_tile", "block_of", "forward_tile", "pack", "put", "room_of", "rows_of",
    "walk_of",
]  # fmt: skip

#: threads of a warp; units of a tile; lanes that share a sum forward; the most rows of a tile (of float32), and those
#: of one where there are few
LANES, UNITS, SPLITS, ROWS, FEW = (4, 2, 4, 2, 1) if SIMULATED else (32, 4, 16, 8, 2)
#: warps of a block: a thread has as many registers as it wants then
WARPS = 1 if SIMULATED else 8
#: accumulators of a lane
MOST_SUMS = 8 * ROWS
#: threads of a block that packs weights
THREADS = 4 if SIMULATED else 256


class WarpTile(NamedTuple):
    """How the lanes of a warp divide its part of a product."""

    #: rows
    rows: int
    #: lanes that share a sum
    splits: int
    #: sums of a unit
    gates: int

    @property
    def units(self) -> int:
        """Units of a lane, until each lane is left with one."""
        return UNITS * self.splits // LANES

    @property
    def columns(self) -> int:
        """Sums of a lane in each row."""
        return self.units * self.gates

    @property
    def span(self) -> int:
        """Terms that the lanes of a sum take at once."""
        return self.splits * 4

    @property
    def spread(self) -> int:
        """Lanes that end with the same row and unit."""
        return self.splits // (self.units * self.rows)

    def with_few(self) -> WarpTile:
        """The same for few rows: the bits are the same."""
        return self._replace(rows=min(FEW, self.rows))

    def steps(self, terms: int) -> int:
        """Spans of so many terms."""
        return ceil_div(terms, self.span)

    def strip(self, terms: int) -> int:
        """Elements of a strip."""
        return self.columns * self.steps(terms) * LANES * 4


def forward_tile(gates: int, dtype: np.dtype[Any]) -> WarpTile:
    """The tile of the forward scan of a cell with so many gates of the state."""
    rows = _rows(dtype)
    while rows > 1 and WarpTile(rows, SPLITS, gates).columns * rows > MOST_SUMS:
        rows //= 2
    return WarpTile(rows, SPLITS, gates)


def back_tile(dtype: np.dtype[Any]) -> WarpTile:
    """The tile of the backward scan."""
    return WarpTile(_rows(dtype), LANES, 1)


def _rows(dtype: np.dtype[Any]) -> int:
    return ROWS if SIMULATED else ROWS * 4 // dtype.itemsize  # numbers of 8 bytes take two registers


# ---- weights ---------------------------------------------------------------------------------------------------------


@memoized
def pack_kernel(dtype: np.dtype[Any], back: bool) -> Kernel:
    """The kernel that brings weights into the order of the tiles."""
    real = REAL[dtype]

    @cuda.jit
    def pack_weights(weight, units, shift, splits, gates, steps, packed):
        # weight (gates * H, P): row (i + shift) % rows is that of gate i // H in the order of the tape
        rows = weight.shape[0]
        columns = gates * UNITS * splits // LANES
        for at in range(cuda.grid(1), packed.size, cuda.gridsize(1)):
            lane, column = at // 4 % LANES, at // (4 * LANES * steps) % columns
            term = (at // (4 * LANES) % steps * splits + lane % splits) * 4 + at % 4
            of_lane = lane // splits * (columns // gates) + column // gates
            unit, gate = at // (4 * LANES * steps * columns) * UNITS + of_lane, column % gates
            value = real(0.0)
            if back:
                if term < rows and unit < units:
                    value = weight[(term + shift) % rows, unit]
            elif term < weight.shape[1] and unit < units:
                value = weight[(gate * units + unit + shift) % rows, term]
            packed[at] = value

    i = int64
    return Kernel(pack_weights, (real[:, ::1], i, i, i, i, i, real[::1]))


def pack(weight_hh: Any, back: bool, units: int, shift: int, tile: WarpTile) -> Any:
    """The weights in the order of the tiles; of weight_hh (G, P) row ``(i + shift) % G`` is that of gate row i.

    Forward they are those of P terms for the units of the cell; ``back``, of G terms for P units.
    """
    terms = weight_hh.shape[0 if back else 1]
    packed = empty((ceil_div(units, UNITS) * tile.strip(terms),), weight_hh.dtype)
    if packed.size:
        grid = min(ceil_div(packed.size, THREADS), 1024)
        numbers = (units, shift, tile.splits, tile.gates, tile.steps(terms))
        pack_kernel(weight_hh.dtype, back).launch(grid, THREADS, weight_hh, *numbers, packed)
    return packed


# ---- what the kernels of both scans are made of ----------------------------------------------------------------------


@inner
def put(shared, at, matrix, row, column, first, terms, aligned):
    """Begin to bring four terms of a row, from the ``first`` on, into shared memory; zeros beyond the last."""
    if aligned and first + 4 <= terms:
        copy4(shared, at, matrix, row, column + first)
    else:
        for k in range(4):
            if first + k < terms:
                shared[at + k] = matrix[row, column + first + k]
            else:
                shared[at + k] = 0


def product_of(tile: WarpTile) -> Any:
    """What adds to the sums of a lane the products of some spans of terms: weights from ``at`` on, rows ``apart``."""
    rows, columns, span = tile.rows, tile.columns, tile.span

    def columns_from(first: int) -> Any:
        """What does the columns from this one on, a few at a time: the compiler unrolls loops up to a size alone."""
        last = min(columns, first + 4)
        following: Any = columns_from(last) if last < columns else None

        @inner
        def multiply(weights, at, apart, terms, sums):
            for j in range(first, last):
                factors = load4(weights, at + j * apart)
                for i in range(rows):
                    for k in range(4):
                        sums[i, j] = fma(factors[k], terms[i, k], sums[i, j])
            if last < columns:
                following(weights, at, apart, terms, sums)

        return multiply

    multiply = columns_from(0)

    @inner
    def add(weights, at, all_steps, shared, rows_at, apart, steps, terms, sums):
        for step in range(steps):
            for i in range(rows):
                terms[i, 0], terms[i, 1], terms[i, 2], terms[i, 3] = load4(shared, rows_at + i * apart + step * span)
            multiply(weights, at + step * (LANES * 4), all_steps * (LANES * 4), terms, sums)

    return add


def sums_of_lanes(tile: WarpTile) -> Any:
    """What adds up the parts that the lanes have of each sum: each lane is left with one row and unit, first.

    Those are told by the number of the lane among those that share a sum: the unit by its last bits, the row by its
    first.
    """

    def exchanged(mask: int, rows: int, columns: int) -> Any:
        """Add what the lanes have that differ in this bit and in those below it."""
        if mask == 0:
            return None
        unit_bit = mask < tile.units  # it tells the unit that a lane keeps
        new_rows = rows if unit_bit else max(1, rows // 2)
        new_columns = columns // 2 if unit_bit else columns
        across, along = rows - new_rows, columns - new_columns
        following = exchanged(mask // 2, new_rows, new_columns)
        last = following is None

        @inner
        def add(lane, sums):
            upper = (lane & mask) != 0
            for i in range(new_rows):
                for j in range(new_columns):
                    # of two rows, or units, one stays; the other goes to the lane that keeps it
                    stays, goes = sums[i, j], sums[i + across, j + along]
                    if upper:
                        stays, goes = goes, stays
                    sums[i, j] = stays + exchange(goes, mask)
            if not last:
                following(lane, sums)

        return add

    return exchanged(tile.splits // 2, tile.rows, tile.columns)


# ---- one step of a scan ----------------------------------------------------------------------------------------------

# A block has ``strips`` strips of units and, of the rows of a step, every ``groups``-th from ``group`` on. Its warps go
# over them in passes, each warp a tile of its own; of what the passes read, the next part is on its way into shared
# memory while the present one is multiplied.


@inner
def rows_of(layout, T, t):
    """Where the rows of step t begin, and where they end; nowhere if there is no such step."""
    if 0 <= t and t < T:
        return layout[t], layout[t + 1]
    return 0, 0


# Divisions take a device long, so what follows is made once for all steps.


@inner
def block_of(thread, first_strip, strips, group, groups, units):
    """What a block has, and where in it this thread stands."""
    strip_warps = min(strips, WARPS)
    warp, lane, rounds = thread // LANES, thread % LANES, (strips + strip_warps - 1) // strip_warps
    warps = (warp // strip_warps, warp % strip_warps, WARPS // strip_warps, strip_warps, rounds)
    return thread, lane, warps, first_strip, strips, group, groups, units


@inner
def room_of(terms, span, piece, capacity):
    """How terms are divided: all spans, those of a piece, pieces; terms of a piece, and rows of a buffer."""
    spans = (terms + span - 1) // span
    return spans, piece // span, max(1, (spans * span + piece - 1) // piece), piece, capacity


def walk_of(tile: WarpTile, bring: Any, begin: Any, go_on: Any, end: Any) -> Any:
    """What does all rows of one step that a block has, by tiles of this form.

    ``bring`` begins to bring terms of some rows into shared memory; ``begin`` reads what a row and unit needs besides
    the sums, ``go_on`` what is found by what that has read, and ``end`` ends it. They take what the caller gives as
    ``step`` and ``data``. Before the first terms are brought, the block waits until the counter is at ``target``.
    """
    rows, columns, splits, spread, of_lane = tile.rows, tile.columns, tile.splits, tile.spread, tile.units
    sums_each = max(1, tile.columns)
    add_products, add_lanes = product_of(tile), sums_of_lanes(tile)

    @inner
    def walk(weights, weights_at, shared, rows_at, registers, block, room, size, counter, step, data):
        thread, lane, warps, first_strip, strips, group, groups, units = block
        warp_row, own_strip, row_warps, strip_warps, rounds = warps
        spans, spans_at_once, pieces, piece, capacity = room
        counters, counter_at, target = counter
        sums, terms = registers
        row_warps = min(row_warps, capacity // rows)
        own_row, at_once = warp_row * rows, row_warps * rows
        split = lane % splits
        lane_row, lane_unit = split // of_lane // spread, lane // splits * of_lane + split % of_lane
        ends = split // of_lane % spread == 0
        buffer, other = rows_at, rows_at + capacity * piece
        first = True
        for first_row in range(0, size, at_once):
            row = first_row + own_row + lane_row
            for round_ in range(rounds):
                strip = round_ * strip_warps + own_strip
                busy = own_row < at_once and strip < strips and first_row + own_row < size
                unit = (first_strip + strip) * UNITS + lane_unit
                for i in range(rows):
                    for j in range(sums_each):
                        sums[i, j] = 0
                r, unit_there = group + min(row, size - 1) * groups, min(unit, units - 1)
                begun = begin(r, unit_there, step, data)
                if first:
                    first = False
                    if target > 0:
                        if thread == 0:
                            while raised(counters, counter_at) < target:
                                pass
                        all_here()
                    bring(shared, buffer, 0, at_once, 0, piece, size, group, groups, step, data)
                ready = go_on(begun, r, unit_there, step, data)
                for part in range(pieces):
                    if pieces > 1 or round_ == 0:  # rows that are there whole stay for all rounds
                        copies_done()
                        all_here()
                        next_row, next_part = first_row, part + 1
                        if pieces == 1 or (next_part == pieces and round_ + 1 == rounds):
                            next_row, next_part = first_row + at_once, 0
                        elif next_part == pieces:
                            next_part = 0
                        if next_row < size:
                            at = next_part * piece
                            bring(shared, other, next_row, at_once, at, piece, size, group, groups, step, data)
                    if busy:
                        at = (strip * columns * spans + part * spans_at_once) * (LANES * 4) + lane * 4
                        of_part = min(spans_at_once, spans - part * spans_at_once)
                        rows_of_warp = buffer + own_row * piece + split * 4
                        add_products(weights, weights_at + at, spans, shared, rows_of_warp, piece, of_part, terms, sums)
                    if pieces > 1 or round_ + 1 == rounds:
                        buffer, other = other, buffer
                if busy:
                    add_lanes(lane, sums)
                    if ends and row < size and unit < units:
                        end(sums, ready, group + row * groups, unit, step, data)

    return walk
