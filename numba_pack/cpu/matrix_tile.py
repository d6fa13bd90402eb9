"""The micro-kernel on the matrix unit: a product of whole tiles (see ``simd/tiles.py``), for factors that are short.

It is called as the micro-kernel of floats is (see ``tile.py``), with elements of a and of panels that are words, two
numbers in bfloat16 or four integers of 8 bits. What differs:

- ``k`` is a multiple of 16, and rows of a may be read up to the next multiple of 16. What is in those past the last one
  reaches no result. Any number of rows is taken.
- *Parts*: where a factor is the sum of two or three numbers in bfloat16, ``a_along`` is how many words lie from one
  part of a row to the next. A panel has for each 16 words of k part after part. Products of parts that are less than
  what rounding takes are left out: 1 of 4, or 3 of 9.
- *int8*: a row of a has its scale in the word before its first. A panel begins with the scales of its columns, and with
  what the sums of integers start from. The product of both scales and of the sum is added to ``start`` in one rounding.

A sum waits some 50 cycles for its last product, while the unit takes 16 for one: so four sums or more take turns, of
two tiles of rows and of two or three of columns, or, where there are at most 16 rows, of one and four.

A sum is one of sums of 32 products (64 of int8), which are each made by themselves: its error grows with k / 32.
"""

import functools
from typing import NamedTuple

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from .._jit import by_address, inner
from ..simd.lanes import (
    FLOATS,
    I32,
    LANES,
    always_inline,
    fma,
    lanes_of,
    load,
    load_first,
    splat,
    store,
    store_first,
)
from ..simd.machine import DOTS
from ..simd.memory import integers_at
from ..simd.tiles import (
    TILE,
    configure,
    dot_bfloat16,
    dot_int8,
    left_tile_load,
    register_file,
    release,
    tile_load,
    tile_room,
    tile_store,
    tile_zero,
)

__all__ = ["Place", "begin_tiles", "end_tiles", "matrix_tile_of"]


class Place(NamedTuple):
    """What a product is of: the `ARGUMENTS` of all micro-kernels."""

    a: int
    a_step: int
    a_along: int
    panel: int
    panel_step: int
    k: int
    start: int
    start_step: int
    c: int
    c_step: int
    count: int  # type: ignore[assignment]
    panel_columns: int
    between: int
    adjacent: int
    late: int
    times: int


class Block(NamedTuple):
    """A part of a product of which the registers hold the sums."""

    #: the first row of c, and how many there are from it on
    row: int
    rows: int
    #: the panel, its address, the first of its vectors, and how many of them
    number: int
    panel: int
    vector: int
    vectors: int


_COUNT = len(Place._fields)
_FLOAT, _LANES = np.float32(0), lanes_of(np.float32)
#: bytes of a vector, and of a row of a left tile
_VECTOR, _ROW = 4 * _LANES, 4 * TILE
#: how many numbers a factor is the sum of
_PARTS = {"bfloat16": 1, "bfloat16x2": 2, "bfloat16x3": 3, "int8": 1}
#: where the registers are for `begin_tiles` and `end_tiles`: none are to be told where there are plain loops
_FILE = 0 if DOTS.plain_tiles else None


@inner
def begin_tiles():
    """Have the thread's unit ready for this micro-kernel; a kernel that calls it does this once, before."""
    configure(_FILE)


@inner
def end_tiles():
    """Let go of the unit, at the end of such a kernel."""
    release(_FILE)


@intrinsic
def _in_every_lane(typingctx, at):
    """The float32 at an address, in every lane of a vector."""
    lanes = LANES[types.float32]

    def codegen(context, builder, sig, args):
        value = builder.load(builder.inttoptr(args[0], FLOATS[types.float32].as_pointer()))
        value.align = 4
        return splat(builder, value, lanes.count)

    return lanes(types.intp), codegen


@intrinsic
def _integers(typingctx, at):
    """The vector of int32 at an address, as floats."""
    lanes = LANES[types.float32]
    words = ir.VectorType(I32, lanes.count)

    def codegen(context, builder, sig, args):
        value = builder.load(builder.inttoptr(args[0], words.as_pointer()))
        value.align = 4
        return builder.sitofp(value, lanes.vector)

    return lanes(types.intp), codegen


@inner
def _columns_left(of, block, j):
    """How many lanes of vector j of the block, and of those after it, are columns of c."""
    always_inline()
    return of.count - block.number * of.panel_columns - (block.vector + j) * _LANES * of.adjacent


@inner
def _element(of, block, i, j, first, step):
    """The address of vector j of the row of tile i, in c or in what the sums start from."""
    always_inline()
    column = block.number * of.panel_columns + (block.vector + j) * of.between
    return first + ((block.row + i * TILE) * step + column) * 4


@inner
def _sum_of(block, i, j):
    """The number of the register of tile (i, j)."""
    always_inline()
    return i * (3 if block.vectors == 3 else 2) + j


@inner
def _begin(integers, file, scratch, vectors, of, block, i, j):
    """What the sums of tile (i, j) of the block start from."""
    always_inline()
    n = _sum_of(block, i, j)
    if integers:
        tile_load(file, n, block.panel + (vectors + block.vector + j) * _VECTOR, 0)
    elif of.late:
        tile_zero(file, n)
    else:
        at, rows = _element(of, block, i, j, of.start, of.start_step), min(TILE, block.rows - i * TILE)
        left = _columns_left(of, block, j)
        if left >= _LANES and (rows == TILE or of.start_step == 0):
            tile_load(file, n, at, of.start_step * 4)
        else:
            for r in range(rows):
                store(scratch + r * _ROW, load_first(_FLOAT, at + r * of.start_step * 4, left))
            tile_load(file, n, scratch, _ROW)


@inner
def _end(integers, file, scratch, vectors, of, block, i, j):
    """Tile (i, j) of the block from its sums."""
    always_inline()
    n, rows, left = _sum_of(block, i, j), min(TILE, block.rows - i * TILE), _columns_left(of, block, j)
    c = _element(of, block, i, j, of.c, of.c_step)
    if not (integers or of.late) and left >= _LANES and rows == TILE:
        tile_store(file, n, c, of.c_step * 4)
        return
    tile_store(file, n, scratch, _ROW)
    start = _element(of, block, i, j, of.start, of.start_step)
    scale = of.a + (block.row + i * TILE) * of.a_step * 4 - 4
    for r in range(rows):
        if integers:
            both = load(_FLOAT, block.panel + (block.vector + j) * _VECTOR) * _in_every_lane(scale + r * of.a_step * 4)
            first = load_first(_FLOAT, start + r * of.start_step * 4, left)
            value = fma(_integers(scratch + r * _ROW), both, first)
        else:
            value = load(_FLOAT, scratch + r * _ROW)
            if of.late:
                value = load_first(_FLOAT, start + r * of.start_step * 4, left) + value
        store_first(c + r * of.c_step * 4, value, left)


@inner
def _dot(integers, file, c, a, b):
    always_inline()
    if integers:
        dot_int8(file, c, a, b)
    else:
        dot_bfloat16(file, c, a, b)


@inner
def _times(integers, file, two, columns, at, step):
    """Multiply the tiles of rows, in 4 and 5, by tiles of a panel, and add to the sums, in 0 to 3."""
    always_inline()
    tile_load(file, 6, at, step)
    _dot(integers, file, 0, 4, 6)
    if two:
        _dot(integers, file, 2, 5, 6)
    if columns > 1:
        tile_load(file, 7, at + _VECTOR, step)
        _dot(integers, file, 1, 4, 7)
        if two:
            _dot(integers, file, 3, 5, 7)
    if not two and columns > 2:
        tile_load(file, 6, at + 2 * _VECTOR, step)
        _dot(integers, file, 2, 4, 6)
    if not two and columns > 3:
        tile_load(file, 7, at + 3 * _VECTOR, step)
        _dot(integers, file, 3, 4, 7)


@inner
def _two_times_three(integers, file, a, a_step, at, step):
    """The same of two tiles of rows and three of a panel: six sums, in 0 to 5, leave one register for either kind."""
    always_inline()
    below = a + TILE * a_step
    tile_load(file, 7, at, step)
    left_tile_load(file, 6, a, a_step)
    _dot(integers, file, 0, 6, 7)
    left_tile_load(file, 6, below, a_step)
    _dot(integers, file, 3, 6, 7)
    tile_load(file, 7, at + _VECTOR, step)
    _dot(integers, file, 4, 6, 7)
    left_tile_load(file, 6, a, a_step)
    _dot(integers, file, 1, 6, 7)
    tile_load(file, 7, at + 2 * _VECTOR, step)
    _dot(integers, file, 2, 6, 7)
    left_tile_load(file, 6, below, a_step)
    _dot(integers, file, 5, 6, 7)


@inner
def _multiply(integers, parts, two, file, columns, k, a, a_step, a_along, panel, step):
    """Add the products of all k to the sums: of the parts of factors, those that are least first."""
    always_inline()
    for _ in range(k // TILE):
        for part in range(parts - 1, -1, -1):
            at = a + part * a_along * 4
            if not (two and columns == 3):
                left_tile_load(file, 4, at, a_step)
                if two:
                    left_tile_load(file, 5, at + TILE * a_step, a_step)
            for other in range(parts - 1 - part, -1, -1):
                tiles = panel + other * TILE * step
                if two and columns == 3:
                    _two_times_three(integers, file, at, a_step, tiles, step)
                else:
                    _times(integers, file, two, columns, tiles, step)
        a += _ROW
        panel += parts * TILE * step


@inner
def _block(integers, parts, two, file, scratch, vectors, of, block):
    """The sums of one or ``two`` tiles of rows, from what they start from to c."""
    always_inline()
    tiles = 2 if two else 1
    for i in range(tiles):
        for j in range(block.vectors):
            _begin(integers, file, scratch, vectors, of, block, i, j)
    a_step, step = of.a_step * 4, vectors * _VECTOR
    a = of.a + block.row * a_step
    panel = block.panel + block.vector * _VECTOR + (2 * step if integers else 0)
    _multiply(integers, parts, two, file, block.vectors, of.k, a, a_step, of.a_along, panel, step)
    for i in range(tiles):
        for j in range(block.vectors):
            _end(integers, file, scratch, vectors, of, block, i, j)


@inner
def _product(integers, parts, file, rows, vectors, panels, place):
    """c[:rows, columns of the panels] = start + a[:rows] @ panels."""
    always_inline()
    of, scratch = Place(*integers_at(place, _COUNT)), tile_room()
    for number in range(panels):
        panel = of.panel + number * of.panel_step * 4
        count = vectors
        if of.adjacent:  # those behind the last column are left out
            count = min(vectors, (of.count - number * of.panel_columns + _LANES - 1) // _LANES)
        for row in range(0, rows, 2 * TILE):
            if rows - row > TILE:
                most = 3 if count == 3 else 2
                for j in range(0, count, most):
                    block = Block(row, min(rows - row, 2 * TILE), number, panel, j, min(most, count - j))
                    _block(integers, parts, True, file, scratch, vectors, of, block)
            else:
                block = Block(row, rows - row, number, panel, 0, count)
                _block(integers, parts, False, file, scratch, vectors, of, block)


@functools.cache
def matrix_tile_of(factors, plain=DOTS.plain_tiles):
    """The micro-kernel for a kind of factors, by instructions or in ``plain`` loops, which do the same.

    It is a function made `by_address` of (rows, vectors, panels, place), ``place`` the address of a `Place` of int64.
    """
    integers, parts = factors == "int8", _PARTS[factors]

    def by_instructions(rows, vectors, panels, place):
        _product(integers, parts, None, rows, vectors, panels, place)

    def in_loops(rows, vectors, panels, place):
        _product(integers, parts, register_file(), rows, vectors, panels, place)

    return by_address(types.void(*[types.intp] * 4))(in_loops if plain else by_instructions)
