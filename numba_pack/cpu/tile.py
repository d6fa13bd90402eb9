"""The micro-kernel: a tile of a matrix product held in registers, and the product built of tiles.

Every product of the package is ``c = start + a @ panels`` and goes through `multiply`:

- ``a`` is named by the address of its first element, the step from row to row and the step along k, both in elements;
- ``panels`` are the columns of the right-hand matrix, prepacked: a panel holds, for each k, up to four vectors side by
  side (`Columns` says which columns of c they are);
- ``start`` is where the sums begin: c itself, a bias (a row step of 0), or zeros.

Each element is summed over k in order, in one register, whatever tile it falls in. That is what makes a sequence's
result independent, bit for bit, of what else is in the batch. A long sum is a sum of shorter ones, so that its error
does not grow with its length: each has at most `MOST_TERMS` terms, and which they are depends on k alone.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from .._jit import by_address, inner
from ..simd.lanes import (
    FLOATS,
    I32,
    I64,
    LANES,
    always_inline,
    first_lanes,
    fused,
    load_vector,
    masked_load,
    masked_store,
    size_of,
    splat,
    store_vector,
    width,
)
from ..simd.machine import MACHINE
from ..simd.memory import integers_at
from .table import SHARED, enter, entry

__all__ = [
    "Columns",
    "Matrix",
    "add_product",
    "gate_columns",
    "multiply",
    "multiply_panels",
    "panel_count",
    "panel_vectors",
    "panels_at_once",
    "plain_columns",
    "there_and_back",
    "tile_of",
]

#: most vectors side by side in a panel
VECTORS = 4
#: most terms of a sum, before it is added to the sum of those before it
MOST_TERMS = 512


def _most_rows(vectors):
    """Rows of a tile of so many vectors: as many as the registers hold, at most 8 of two vectors and 6 of more."""
    return min(8 if vectors <= 2 else 6, MACHINE.accumulators // vectors)


class Matrix(NamedTuple):
    """Rows in memory: where the first begins (an address) and how many elements lie from one to the next."""

    at: int
    step: int


class Columns(NamedTuple):
    """How the columns of a product are divided into panels.

    Panel p covers the columns ``p * per_panel`` onwards: `vectors` vectors, each ``between`` columns after the last.
    """

    #: columns of one gate, or of the whole matrix if it has no gates
    total: int
    per_panel: int
    vectors: int
    between: int
    #: 1 if the vectors follow one another, so that the matrix may end after any of them; 0 if each is of another gate
    adjacent: int


@inner
def plain_columns(dtype, total):
    """The columns of a matrix with no gates, four vectors a panel; the last panel may hold fewer."""
    lanes = width(dtype)
    return Columns(total, VECTORS * lanes, VECTORS, lanes, 1)


@inner
def gate_columns(dtype, units, gates):
    """The columns of ``gates`` gates of so many units: a panel holds all gates of one vector of units."""
    return Columns(units, width(dtype), gates, units, 0)


@inner
def panel_count(columns):
    """How many panels the columns take."""
    return (columns.total + columns.per_panel - 1) // columns.per_panel


@inner
def panel_vectors(columns, p, lanes):
    """How many vectors panel p holds: the last panel of adjacent columns may do with two instead of four."""
    if columns.adjacent and columns.total - p * columns.per_panel <= 2 * lanes:
        return 2
    return columns.vectors


class _Tile:
    """Builds, in LLVM, a tile of ``rows`` x (``panels`` x ``vectors``) vectors; arguments are those of `_tile`."""

    def __init__(self, builder, lanes, rows, vectors, panels, arguments):
        self.builder, self.lanes, self.arguments = builder, lanes, arguments
        self.rows = range(rows)
        self.columns = [(q, j) for q in range(panels) for j in range(vectors)]
        self.vectors = vectors
        self.size = lanes.dtype.bitwidth // 8

    def walk(self, first, step, count):
        """The addresses ``first``, ``first + step`` ... (``step`` in elements)."""
        b = self.builder
        step = b.mul(step, ir.Constant(I64, self.size))
        places = [first]
        for _ in range(count - 1):
            places.append(b.add(places[-1], step))
        return places

    def grid(self, first, row_step):
        """The addresses of the tile's vectors, row by row, in c or in what the sums start from."""
        b, a = self.builder, self.arguments
        panel_offsets = self.walk(ir.Constant(I64, 0), a["panel_columns"], self.columns[-1][0] + 1)
        vector_offsets = self.walk(ir.Constant(I64, 0), a["between"], self.vectors)
        offsets = [b.add(panel_offsets[q], vector_offsets[j]) for q, j in self.columns]
        return [b.add(row, offset) for row in self.walk(first, row_step, len(self.rows)) for offset in offsets]

    def masks(self):
        """For each vector of a row, the lanes that are columns of the matrix."""
        b, a = self.builder, self.arguments
        apart = b.mul(a["adjacent"], ir.Constant(I64, self.lanes.count))
        left = [b.sub(a["count"], b.mul(ir.Constant(I64, q), a["panel_columns"])) for q, _ in self.columns]
        left = [b.sub(n, b.mul(apart, ir.Constant(I64, j))) for n, (_, j) in zip(left, self.columns, strict=True)]
        return [first_lanes(b, n, self.lanes) for n in left], left

    def if_whole(self, left, whole, part):
        """``whole()`` where all lanes of all vectors are columns, else ``part()``.

        With AVX-512 a mask costs nothing, and ``part`` alone will do.
        """
        b = self.builder
        if MACHINE.register_bytes == 64:
            return part()
        every = b.icmp_signed(">=", left[-1], ir.Constant(I64, self.lanes.count))
        with b.if_else(every) as (then, otherwise):
            with then:
                x, x_block = whole(), b.block
            with otherwise:
                y, y_block = part(), b.block
        return [self.merge((one, x_block), (other, y_block)) for one, other in zip(x or (), y or (), strict=True)]

    def merge(self, *incoming):
        phi = self.builder.phi(incoming[0][0].type)
        for value, block in incoming:
            phi.add_incoming(value, block)
        return phi

    def load(self, places, masks, left):
        b, lanes = self.builder, self.lanes
        masks = masks * len(self.rows)
        return self.if_whole(
            left,
            lambda: [load_vector(b, at, lanes) for at in places],
            lambda: [masked_load(b, at, mask, lanes) for at, mask in zip(places, masks, strict=True)],
        )

    def store(self, values, places, masks, left):
        b, lanes = self.builder, self.lanes
        masks = masks * len(self.rows)

        def whole():
            for value, at in zip(values, places, strict=True):
                store_vector(b, value, at, lanes)

        def part():
            for value, at, mask in zip(values, places, masks, strict=True):
                masked_store(b, value, at, mask, lanes)

        self.if_whole(left, whole, part)

    def step(self, a_rows, panels, sums):
        """One k: the vectors of the panels' row, times one broadcast element of each row of a.

        Whichever of both are fewer are held in registers, and the others pass through one register: so 3 x 4 sums just
        fit into the 16 registers of AVX2.
        """
        b, lanes = self.builder, self.lanes
        bytes_of_vector = lanes.count * self.size

        def broadcast(row):
            x = b.load(b.inttoptr(row, FLOATS[lanes.dtype].as_pointer()))
            x.align = self.size
            return splat(b, x, lanes.count)

        def weight(column):
            q, j = column
            return load_vector(b, b.add(panels[q], ir.Constant(I64, j * bytes_of_vector)), lanes)

        wide = len(self.columns)
        after = list(sums)
        if len(a_rows) < wide:
            held = [broadcast(row) for row in a_rows]
            for column, w in enumerate(map(weight, self.columns)):
                for row, x in enumerate(held):
                    after[row * wide + column] = fused(b, lanes, x, w, sums[row * wide + column])
        else:
            held = [weight(column) for column in self.columns]
            for row, x in enumerate(map(broadcast, a_rows)):
                for column, w in enumerate(held):
                    after[row * wide + column] = fused(b, lanes, x, w, sums[row * wide + column])
        return after

    def prefetch(self):
        """Fetch what the next tile of the panel will add to, while this one is being summed."""
        b, a = self.builder, self.arguments
        below = b.mul(a["c_step"], ir.Constant(I64, len(self.rows) * self.size))
        kind = ir.FunctionType(ir.VoidType(), [ir.IntType(8).as_pointer(), I32, I32, I32])
        function = cgutils.get_or_insert_function(b.module, kind, "llvm.prefetch.p0")
        for place in self.grid(b.add(a["c"], below), a["c_step"]):
            pointer = b.inttoptr(place, ir.IntType(8).as_pointer())
            b.call(function, [pointer, ir.Constant(I32, 1), ir.Constant(I32, 3), ir.Constant(I32, 1)])

    def build(self):
        """The whole tile, from the builder's block on; leaves the builder in the last block."""
        b, a = self.builder, self.arguments
        masks, left = self.masks()
        late = b.icmp_signed("!=", a["late"], ir.Constant(I64, 0))
        with b.if_else(late) as (then, otherwise):
            with then:
                zero = ir.Constant(self.lanes.vector, [0.0] * self.lanes.count)
                then_block = b.block
            with otherwise:
                loaded = self.load(self.grid(a["start"], a["start_step"]), masks, left)
                otherwise_block = b.block
        first = [self.merge((zero, then_block), (x, otherwise_block)) for x in loaded]
        self.prefetch()
        a_rows = self.walk(a["a"], a["a_step"], len(self.rows))
        panels = self.walk(a["panel"], a["panel_step"], self.columns[-1][0] + 1)
        a_stride = b.mul(a["a_along"], ir.Constant(I64, self.size))
        stride = ir.Constant(I64, self.vectors * self.lanes.count * self.size)

        before, loop, done = b.block, b.append_basic_block("k"), b.append_basic_block("done")
        b.cbranch(b.icmp_signed(">", a["k"], ir.Constant(I64, 0)), loop, done)
        b.position_at_end(loop)
        left_k, a_offset, offset = b.phi(I64), b.phi(I64), b.phi(I64)
        sums = [b.phi(self.lanes.vector) for _ in first]
        after = self.step([b.add(row, a_offset) for row in a_rows], [b.add(panel, offset) for panel in panels], sums)
        for phi, start, following in (
            (left_k, a["k"], b.sub(left_k, ir.Constant(I64, 1))),
            (a_offset, ir.Constant(I64, 0), b.add(a_offset, a_stride)),
            (offset, ir.Constant(I64, 0), b.add(offset, stride)),
            *zip(sums, first, after, strict=True),
        ):
            phi.add_incoming(start, before)
            phi.add_incoming(following, loop)
        b.cbranch(b.icmp_signed(">", left_k, ir.Constant(I64, 1)), loop, done)

        b.position_at_end(done)
        sums = [self.merge((x, before), (y, loop)) for x, y in zip(first, after, strict=True)]
        done = b.block
        with b.if_then(late):
            # its addresses and masks are computed anew, so as not to be held, or spilled, while the sums are made
            start = self.load(self.grid(a["start"], a["start_step"]), *self.masks())
            total = [b.fadd(x, y) for x, y in zip(start, sums, strict=True)]
            late_block = b.block
        result = [self.merge((x, done), (y, late_block)) for x, y in zip(sums, total, strict=True)]
        self.store(result, self.grid(a["c"], a["c_step"]), masks, left)


#: the arguments of `_tile` after the shape of the tile; with ``late``, what the sums start from is added at their end
ARGUMENTS = (
    "a", "a_step", "a_along", "panel", "panel_step", "k", "start", "start_step", "c", "c_step",
    "count", "panel_columns", "between", "adjacent", "late",
)  # fmt: skip


def _shapes():
    """Every (rows, vectors, panels) a tile may have. Few rows take two panels, to share the broadcast of a."""
    for vectors in (2, 3, 4):
        for rows in range(1, _most_rows(vectors) + 1):
            yield rows, vectors, 1
            if 2 * rows * vectors <= MACHINE.accumulators and rows <= TWO_PANEL_ROWS:
                yield rows, vectors, 2


#: panels up to this size in all are read two at a time: from a farther cache, two streams are slower than one
NEAR_BYTES = 1 << 16
TWO_PANEL_ROWS = min(3, MACHINE.accumulators // (2 * VECTORS))


@intrinsic
def _any_tile(typingctx, dtype, rows, vectors, panels, place):
    """c[:rows, columns of the panels] = start + a[:rows, :k] @ panels; ``place`` is a tuple of `ARGUMENTS`."""
    lanes = LANES[dtype]

    def codegen(context, builder, sig, args):
        arguments = dict(zip(ARGUMENTS, cgutils.unpack_tuple(builder, args[4]), strict=True))
        key = builder.add(builder.mul(args[1], ir.Constant(I64, 16)), builder.mul(args[2], ir.Constant(I64, 2)))
        key = builder.add(key, args[3])
        end = builder.append_basic_block("end")
        switch = builder.switch(key, end)
        for m, v, n in _shapes():
            block = builder.append_basic_block(f"tile_{m}_{v}_{n}")
            switch.add_case(ir.Constant(I64, m * 16 + v * 2 + n), block)
            builder.position_at_end(block)
            _Tile(builder, lanes, m, v, n, arguments).build()
            builder.branch(end)
        builder.position_at_end(end)
        return context.get_dummy_value()

    return types.void(dtype, types.intp, types.intp, types.intp, place), codegen


_COUNT = len(ARGUMENTS)
_SIGNATURE = types.void(*[types.intp] * 4)


def _single(rows, vectors, panels, place):
    _any_tile(np.float32(0), rows, vectors, panels, integers_at(place, _COUNT))


def _double(rows, vectors, panels, place):
    _any_tile(np.float64(0), rows, vectors, panels, integers_at(place, _COUNT))


@functools.cache
def tile_of(dtype):
    """The compiled micro-kernel for a dtype; compiled, or loaded, when first asked for. Products need it."""
    made = by_address(_SIGNATURE)(_single if dtype == np.float32 else _double)
    enter(SHARED, "tile", dtype.name, made.address)
    return made


@intrinsic
def _tile(typingctx, dtype, rows, vectors, panels, place):
    """Call the micro-kernel for a dtype; ``place`` is a tuple of `ARGUMENTS`.

    They are handed over in memory: of seventeen arguments, Numba's wrapper of a C function would copy those on the
    stack with wide loads, which wait until the narrow stores just before have left the core.
    """

    def codegen(context, builder, sig, args):
        block = cgutils.alloca_once(builder, I64, size=_COUNT)
        for i, value in enumerate(cgutils.unpack_tuple(builder, args[4])):
            builder.store(value, builder.gep(block, [ir.Constant(I64, i)]))
        function = ir.FunctionType(ir.VoidType(), [I64] * 4)
        target = builder.inttoptr(entry(builder, SHARED, "tile", dtype.dtype.name), function.as_pointer())
        builder.call(target, [*args[1:4], builder.ptrtoint(block, I64)])
        return context.get_dummy_value()

    return types.void(dtype, types.intp, types.intp, types.intp, place), codegen


@inner
def panels_at_once(dtype, rows, k, columns):
    """How many panels a product of so many rows takes at a time: two where that is faster, else one."""
    always_inline()
    size = k * columns.vectors * width(dtype) * size_of(dtype)  # of a panel
    return 2 if rows <= TWO_PANEL_ROWS and size * panel_count(columns) <= NEAR_BYTES else 1


@inner
def there_and_back(n, count, turn):
    """The n-th of ``count`` panels, or of groups of panels: first to last if ``turn`` is even, last to first if odd.

    A scan multiplies by the same panels at every step. Where it takes them from either end in turns, it begins with
    those that it has read last, which a cache that cannot hold all of them still holds.
    """
    always_inline()
    return count - 1 - n if turn & 1 else n


@inner
def multiply_panels(dtype, first, last, a, along, rows, k, panels, columns, start, c):
    """The columns of the panels from ``first`` to ``last``, two at most, for ``rows`` rows.

    ``a``, ``start`` and ``c`` are `Matrix`, ``along`` is the step of a along k, ``panels`` the address of the first of
    all panels.
    """
    always_inline()
    if k <= MOST_TERMS:
        _tiles(dtype, first, last, a, along, rows, k, k, panels, columns, start, c, 0)
    else:
        _long_sums(dtype, first, last, a, along, rows, k, panels, columns, start, c)


@inner
def _long_sums(dtype, first, last, a, along, rows, k, panels, columns, start, c):
    """As `multiply_panels`, for sums of more than `MOST_TERMS`; panel by panel, so that a part stays in the cache."""
    size = size_of(dtype)
    for p in range(first, last):
        row = panel_vectors(columns, p, width(dtype)) * width(dtype)
        for low in range(0, k, MOST_TERMS):
            terms = min(MOST_TERMS, k - low)
            of_a, of_panels = Matrix(a.at + low * along * size, a.step), panels + low * row * size
            _tiles(
                dtype, p, p + 1, of_a, along, rows, terms, k, of_panels, columns, start if low == 0 else c, c,
                int(low > 0),
            )  # fmt: skip


@inner
def _tiles(dtype, first, last, a, along, rows, k, depth, panels, columns, start, c, late):
    """As `multiply_panels`, with the first k of ``depth`` rows of the panels.

    If ``late`` is 1, what the sums start from is added at their end.
    """
    always_inline()
    lanes, size = width(dtype), size_of(dtype)
    step = depth * columns.vectors * lanes
    p = first
    while p < last:
        vectors = panel_vectors(columns, p, lanes)
        number = 2 if p + 1 < last and panel_vectors(columns, p + 1, lanes) == vectors else 1
        column, most = p * columns.per_panel, _ROWS[vectors]
        tiles = 1 if rows <= most else (rows + most - 1) // most
        r = 0
        for left in range(tiles, 0, -1):
            m = rows - r if left == 1 else (rows - r + left - 1) // left  # as even as possible: small tiles run slower
            place = (
                a.at + r * a.step * size, a.step, along, panels + p * step * size, step, k,
                start.at + (r * start.step + column) * size, start.step, c.at + (r * c.step + column) * size, c.step,
                columns.total - column, columns.per_panel, columns.between, columns.adjacent, late,
            )  # fmt: skip
            _tile(dtype, m, vectors, number, place)
            r += m
        p += number


_ROWS = (0, *[_most_rows(v) for v in range(1, VECTORS + 1)])


@inner
def multiply(dtype, a, along, rows, k, panels, columns, start, c):
    """c = start + a @ panels for all columns; arguments as in `multiply_panels`."""
    count, number = panel_count(columns), panels_at_once(dtype, rows, k, columns)
    for p in range(0, count, number):
        multiply_panels(dtype, p, min(p + number, count), a, along, rows, k, panels, columns, start, c)


@inner
def add_product(dtype, a, along, rows, k, panels, columns, c):
    """c += a @ panels, a product of at most `MOST_TERMS`, which is summed by itself before it is added."""
    count, number = panel_count(columns), panels_at_once(dtype, rows, k, columns)
    for p in range(0, count, number):
        _tiles(dtype, p, min(p + number, count), a, along, rows, k, k, panels, columns, c, c, 1)
