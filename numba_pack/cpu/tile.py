"""The micro-kernel: a tile of a matrix product held in registers.

Each element is summed over k in order, in one register, whatever tile it falls in. What is added for one k is the
business of ``dots.py``.
"""

from __future__ import annotations

import functools
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from .._jit import by_address
from ..simd.lanes import (
    I32,
    I64,
    first_lanes,
    if_whole,
    load_vector,
    masked_load,
    masked_store,
    once_a_turn,
    pinned,
    store_vector,
)
from ..simd.machine import MACHINE
from ..simd.memory import integers_at
from .dots import dots_of
from .factors import HEAD, Factors, FactorsType
from .matrices import VECTORS
from .matrix_tile import matrix_tile_of
from .table import SHARED, enter, entry

__all__ = ["TWO_PANEL_ROWS", "call_tile", "most_rows", "tile_of"]


def most_rows(vectors):
    """Rows of a tile of so many vectors: as many as the registers hold, at most 8 of two vectors and 6 of more."""
    return min(8 if vectors <= 2 else 6, MACHINE.accumulators // vectors)


class _Tile:
    """Builds, in LLVM, tiles of ``rows`` x (``panels`` x ``vectors``) vectors; arguments are `ARGUMENTS`."""

    def __init__(self, builder, dots, rows, vectors, panels, arguments):
        self.builder, self.dots, self.lanes, self.arguments = builder, dots, dots.lanes, arguments
        self.rows = range(rows)
        self.columns = [(q, j) for q in range(panels) for j in range(vectors)]
        self.vectors = vectors
        self.size = dots.size

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

    def left(self, count):
        """For each vector of a row, how many of ``count`` columns there are from its first lane on."""
        b, a = self.builder, self.arguments
        apart = b.mul(a["adjacent"], ir.Constant(I64, self.lanes.count))
        left = [b.sub(count, b.mul(ir.Constant(I64, q), a["panel_columns"])) for q, _ in self.columns]
        return [b.sub(n, b.mul(apart, ir.Constant(I64, j))) for n, (_, j) in zip(left, self.columns, strict=True)]

    def masked(self, first, row_step):
        """As `grid`, with the lanes of each vector that are columns of the matrix.

        Where whole vectors go another way, all of it is computed here, and not before, where it would be in their way.
        """
        b, count = self.builder, self.arguments["count"]
        if MACHINE.register_bytes < 64:
            first, count = pinned(b, first), pinned(b, count)
        masks = [first_lanes(b, n, self.lanes) for n in self.left(count)] * len(self.rows)
        return zip(self.grid(first, row_step), masks, strict=True)

    def merge(self, *incoming):
        phi = self.builder.phi(incoming[0][0].type)
        for value, block in incoming:
            phi.add_incoming(value, block)
        return phi

    def load(self, first, row_step):
        """The tile's vectors in c, or in what the sums start from."""
        b, lanes = self.builder, self.lanes
        return if_whole(
            b,
            self.left(self.arguments["count"])[-1:],
            lanes.count,
            lambda: [load_vector(b, at, lanes) for at in self.grid(first, row_step)],
            lambda: [masked_load(b, at, mask, lanes) for at, mask in self.masked(first, row_step)],
        )

    def store(self, values, first, row_step):
        b, lanes = self.builder, self.lanes

        def whole():
            for value, at in zip(values, self.grid(first, row_step), strict=True):
                store_vector(b, value, at, lanes)

        def part():
            for value, (at, mask) in zip(values, self.masked(first, row_step), strict=True):
                masked_store(b, value, at, mask, lanes)

        if_whole(b, self.left(self.arguments["count"])[-1:], lanes.count, whole, part)

    def vector(self, panels, column, load):
        """The vector of a column in a row of the panels, whose addresses are given."""
        q, j = column
        return load(self.builder, self.builder.add(panels[q], ir.Constant(I64, j * self.lanes.count * self.size)))

    def step(self, a_rows, panels, sums):
        """One k: the vectors of the panels' row, times one broadcast element of each row of a.

        Whichever of both are fewer are held in registers, and the others pass through one register: so 3 x 4 sums just
        fit into the 16 registers of AVX2.
        """
        b, dots = self.builder, self.dots
        wide = len(self.columns)
        after = list(sums)
        if len(a_rows) < wide:
            held = [dots.broadcast(b, row) for row in a_rows]
            for column, place in enumerate(self.columns):
                w = self.vector(panels, place, dots.weights)
                for row, x in enumerate(held):
                    after[row * wide + column] = dots.add(b, x, w, sums[row * wide + column])
        else:
            held = [self.vector(panels, place, dots.weights) for place in self.columns]
            for row, at in enumerate(a_rows):
                x = dots.broadcast(b, at)
                for column, w in enumerate(held):
                    after[row * wide + column] = dots.add(b, x, w, sums[row * wide + column])
        return after

    def prefetch(self):
        """Fetch what the next tile will add to, while this one is being summed."""
        b, a = self.builder, self.arguments
        below = b.mul(a["c_step"], ir.Constant(I64, len(self.rows) * self.size))
        kind = ir.FunctionType(ir.VoidType(), [ir.IntType(8).as_pointer(), I32, I32, I32])
        function = cgutils.get_or_insert_function(b.module, kind, "llvm.prefetch.p0")
        for place in self.grid(b.add(a["c"], below), a["c_step"]):
            pointer = b.inttoptr(place, ir.IntType(8).as_pointer())
            b.call(function, [pointer, ir.Constant(I32, 1), ir.Constant(I32, 3), ir.Constant(I32, 1)])

    def build(self):
        """All tiles, from the builder's block on; leaves the builder in the last block."""
        b, a = self.builder, self.arguments
        panels = self.walk(a["panel"], a["panel_step"], self.columns[-1][0] + 1)
        before, tile, done = b.block, b.append_basic_block("tile"), b.append_basic_block("done")
        b.branch(tile)
        b.position_at_end(tile)
        places = [(name, b.phi(I64), a[name], a[name + "_step"]) for name in ("a", "start", "c")]
        number = b.phi(I64)
        self.arguments = {**a, **{name: place for name, place, _, _ in places}}
        self.one(panels, b.icmp_signed(">", number, ir.Constant(I64, 1)))
        for _, place, first, step in places:
            place.add_incoming(first, before)
            place.add_incoming(b.add(place, b.mul(step, ir.Constant(I64, len(self.rows) * self.size))), b.block)
        number.add_incoming(a["times"], before)
        number.add_incoming(b.sub(number, ir.Constant(I64, 1)), b.block)
        b.cbranch(b.icmp_signed(">", number, ir.Constant(I64, 1)), tile, done)
        b.position_at_end(done)

    def one(self, panels, goes_on):
        """The tile at the places that the arguments tell; ``goes_on``: another follows."""
        b, a = self.builder, self.arguments
        late = b.icmp_signed("!=", a["late"], ir.Constant(I64, 0))
        if self.dots.scaled:
            first = self.first_integers(panels)
        else:
            with b.if_else(late) as (then, otherwise):
                with then:
                    zero = ir.Constant(self.lanes.vector, [0.0] * self.lanes.count)
                    then_block = b.block
                with otherwise:
                    loaded = self.load(a["start"], a["start_step"])
                    otherwise_block = b.block
            first = [self.merge((zero, then_block), (x, otherwise_block)) for x in loaded]
        with b.if_then(goes_on):
            self.prefetch()
        a_rows = self.walk(a["a"], a["a_step"], len(self.rows))
        a_stride = b.mul(a["a_along"], ir.Constant(I64, self.size))
        stride = ir.Constant(I64, self.vectors * self.lanes.count * self.size)
        offset_0 = ir.Constant(I64, stride.constant * HEAD * self.dots.scaled)

        before, loop, done = b.block, b.append_basic_block("k"), b.append_basic_block("done")
        b.cbranch(b.icmp_signed(">", a["k"], ir.Constant(I64, 0)), loop, done)
        b.position_at_end(loop)
        left_k, offset = b.phi(I64), b.phi(I64)
        groups = [b.phi(I64) for _ in a_rows[::3]]
        sums = [b.phi(self.dots.sum) for _ in first]
        in_loop = [at for group in groups for at in self.walk(group, a["a_step"], 3)][: len(a_rows)]
        after = self.step(in_loop, [b.add(panel, offset) for panel in panels], sums)
        for phi, start, following in (
            (left_k, a["k"], b.sub(left_k, ir.Constant(I64, 1))),
            *[(group, start, b.add(group, a_stride)) for group, start in zip(groups, a_rows[::3], strict=True)],
            (offset, offset_0, b.add(offset, stride)),
            *zip(sums, first, after, strict=True),
        ):
            phi.add_incoming(start, before)
            phi.add_incoming(following, loop)
        once_a_turn(b, b.cbranch(b.icmp_signed(">", left_k, ir.Constant(I64, 1)), loop, done))

        b.position_at_end(done)
        sums = [self.merge((x, before), (y, loop)) for x, y in zip(first, after, strict=True)]
        if self.dots.scaled:
            result = self.scaled(sums, a_rows, panels)
        else:
            done = b.block
            with b.if_then(late):
                start = self.load(a["start"], a["start_step"])
                total = [b.fadd(x, y) for x, y in zip(start, sums, strict=True)]
                late_block = b.block
            result = [self.merge((x, done), (y, late_block)) for x, y in zip(sums, total, strict=True)]
        self.store(result, a["c"], a["c_step"])

    def first_integers(self, panels):
        """What sums of integers begin with: the second row of the panels."""
        b = self.builder
        bytes_of_row = ir.Constant(I64, self.vectors * self.lanes.count * self.size)
        below = [b.add(panel, bytes_of_row) for panel in panels]
        row = [b.bitcast(self.vector(below, column, self.dots.floats), self.dots.sum) for column in self.columns]
        return row * len(self.rows)

    def scaled(self, sums, a_rows, panels):
        """What sums start from, and the sums times the scales of column and row; the former are the panels' first."""
        b, a, dots = self.builder, self.arguments, self.dots
        starts = self.load(a["start"], a["start_step"])
        of_column = [self.vector(panels, column, dots.floats) for column in self.columns]
        of_row = [dots.row_scale(b, row) for row in a_rows]
        scales = [(x, y) for y in of_row for x in of_column]
        return [
            dots.scaled_sum(b, total, *pair, start) for total, pair, start in zip(sums, scales, starts, strict=True)
        ]


#: the arguments of a tile after its shape; with ``late``, what the sums start from is added at their end; ``times`` is
#: how many tiles there are one below the other
ARGUMENTS = (
    "a", "a_step", "a_along", "panel", "panel_step", "k", "start", "start_step", "c", "c_step",
    "count", "panel_columns", "between", "adjacent", "late", "times",
)  # fmt: skip


def _shapes():
    """Every (rows, vectors, panels) a tile may have. Few rows take two panels, to share the broadcast of a."""
    for vectors in (2, 3, 4):
        for rows in range(1, most_rows(vectors) + 1):
            yield rows, vectors, 1
            if 2 * rows * vectors <= MACHINE.accumulators and rows <= TWO_PANEL_ROWS:
                yield rows, vectors, 2


TWO_PANEL_ROWS = min(3, MACHINE.accumulators // (2 * VECTORS))


@intrinsic
def _any_tile(typingctx, factors, rows, vectors, panels, place):
    """c[:n, columns of the panels] = start + a[:n, :k] @ panels, n = rows * times; ``place`` has the `ARGUMENTS`."""
    dots = dots_of(factors)

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
            _Tile(builder, dots, m, v, n, arguments).build()
            builder.branch(end)
        builder.position_at_end(end)
        return context.get_dummy_value()

    return types.void(factors, types.intp, types.intp, types.intp, place), codegen


_COUNT = len(ARGUMENTS)


def _kernel(factors):
    def tile(rows, vectors, panels, place):
        _any_tile(factors, rows, vectors, panels, integers_at(place, _COUNT))

    return tile


@functools.cache
def tile_of(factors: Factors) -> Any:
    """The compiled micro-kernel for such factors; compiled, or loaded, when first asked for. Products need it."""
    on_tiles = FactorsType.of(factors).on_tiles
    made = matrix_tile_of(factors.kind) if on_tiles else by_address(types.void(*[types.intp] * 4))(_kernel(factors))
    enter(SHARED, f"tile {factors.kind}", factors.dtype, made.address)
    return made


@intrinsic
def call_tile(typingctx, factors, rows, vectors, panels, place):
    """Call the micro-kernel for such factors; ``place`` is a tuple of `ARGUMENTS`.

    They are handed over in memory: of seventeen arguments, Numba's wrapper of a C function would copy those on the
    stack with wide loads, which wait until the narrow stores just before have left the core.
    """

    def codegen(context, builder, sig, args):
        block = cgutils.alloca_once(builder, I64, size=_COUNT)
        for i, value in enumerate(cgutils.unpack_tuple(builder, args[4])):
            builder.store(value, builder.gep(block, [ir.Constant(I64, i)]))
        function = ir.FunctionType(ir.VoidType(), [I64] * 4)
        target = builder.inttoptr(
            entry(builder, SHARED, f"tile {factors.kind}", factors.dtype.name), function.as_pointer()
        )
        builder.call(target, [*args[1:4], builder.ptrtoint(block, I64)])
        return context.get_dummy_value()

    return types.void(factors, types.intp, types.intp, types.intp, place), codegen
