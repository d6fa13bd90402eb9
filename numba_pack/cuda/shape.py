"""How the blocks of a scan divide the units and the rows of a step among them, and which form the scan has.

The units of the cell are cut into strips, the rows of a step into groups. A block has some strips of one group: it
needs all of h of the rows of its group and nothing of others, so that only blocks of one group wait for each other. The
more groups, the fewer rows a block has, and the fewer strips, the less it multiplies; but a multiprocessor has room for
one block.

- *resident*: one launch does all steps. The weights of a block stay in its shared memory. Where a group is one block,
  nobody waits.
- *streaming*: the same, but the weights do not fit, and each step reads them anew from the cache of the device.
- *stepwise*: a launch does one step. So are steps that are cut in two, by a projection or a second product, and all,
  if not even one block of each strip could be on the device at once.

All give the same bits: see ``step.py``.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from .device import MOST_BLOCKS, SIMULATED, Kernel, ceil_div, multiprocessors, shared_limit
from .step import LANES, UNITS, WARPS, WarpTile

__all__ = ["Shape", "chosen", "shape_of"]

#: bytes of shared memory that the rows of one buffer should have at most, so that the weights have the rest
BUFFER_BYTES = 64 if SIMULATED else 32 << 10
#: clock cycles, as measured on an H200: of a barrier among blocks, and of what a block's warps do for each of their
#: tiles besides multiplying. They need not be exact.
BARRIER_CYCLES, TURN_CYCLES = 2000, 2800


class Shape(NamedTuple):
    """How the blocks of a scan divide the units and rows of a step among them."""

    #: "resident", "streaming" or "stepwise"
    form: str
    #: strips of a block
    strips: int
    #: rows that a buffer has room for, and how many terms of each
    capacity: int
    piece: int
    #: blocks along the strips, and groups of rows
    grid: tuple[int, int]
    #: of shared memory
    bytes: int


def shape_of(
    kernels: tuple[Kernel, ...], at_once: int, tile: WarpTile, units: int, terms: int, rows: int, dtype: np.dtype[Any]
) -> Shape:
    """The shape for steps of up to ``rows`` rows, sums of so many terms for so many units.

    ``kernels`` are those of the resident and the streaming form; none where only single steps will do. So many scans
    should run ``at_once``; where one needs the whole device, the others wait for it.
    """
    forms = []
    if kernels:
        # as many blocks as the driver says for the largest that there can be
        threads, limit = WARPS * LANES, shared_limit()
        resident, streaming = (min(multiprocessors(), kernel.resident(threads, limit)) for kernel in kernels)
        forms = [("resident", resident // at_once), ("resident", resident), ("streaming", streaming // at_once)]
    return chosen(tuple(forms), shared_limit(), tile, units, terms, rows, dtype)


@lru_cache(4096)
def chosen(
    forms: tuple[tuple[str, int], ...], limit: int, tile: WarpTile, units: int, terms: int, rows: int,
    dtype: np.dtype[Any],
) -> Shape:  # fmt: skip
    """The shape in the first of these forms that can be, each with so many blocks at most, with so much memory each."""
    strips, buffer = ceil_div(units, UNITS), min(BUFFER_BYTES, limit // 4)

    def shape(form: str, of_block: int, groups: int) -> Shape:
        across = min(of_block, WARPS)  # warps side by side along the strips
        span_bytes = tile.rows * tile.span * dtype.itemsize
        tiles = min(WARPS // across, ceil_div(ceil_div(rows, groups), tile.rows), max(1, buffer // span_bytes))
        spans = max(1, min(tile.steps(terms), buffer // (tiles * span_bytes)))
        size = 2 * spans * tiles * span_bytes
        if form == "resident":
            size += of_block * tile.strip(terms) * dtype.itemsize
        grid = ceil_div(strips, of_block), groups
        return Shape(form, of_block, tiles * tile.rows, spans * tile.span, grid, size)

    for form, most in forms:
        shapes = [
            shape(form, of_block, groups)
            for of_block in _cuts(strips)
            for groups in _cuts(rows)
            if ceil_div(strips, of_block) * groups <= most
        ]
        shapes = [shape for shape in shapes if shape.bytes <= limit]
        if shapes:
            return min(shapes, key=lambda shape: (_cycles(shape, tile, terms, rows), shape.grid))
    groups = min(MOST_BLOCKS, ceil_div(rows, tile.rows * max(1, WARPS // 4)))
    return shape("stepwise", min(4, strips), groups)


def _cuts(whole: int) -> list[int]:
    """Sizes of parts, so that each is the smallest for its number of parts."""
    return sorted({ceil_div(whole, parts) for parts in range(1, whole + 1)})


def _cycles(shape: Shape, tile: WarpTile, terms: int, rows: int) -> float:
    """About how long a step takes."""
    of_group = ceil_div(rows, shape.grid[1])
    across = min(shape.strips, WARPS)
    turns = ceil_div(shape.strips, across) * ceil_div(of_group, min(shape.capacity, WARPS // across * tile.rows))
    tiles = shape.strips * ceil_div(of_group, tile.rows)
    # a multiprocessor has four schedulers, and each does one instruction of a warp in a cycle
    instructions = 4 * max(1, tile.columns) * min(of_group, tile.rows) * tile.steps(terms)
    multiply = ceil_div(tiles, 4) * instructions * 1.5
    weights = 0 if shape.form == "resident" else shape.strips * tile.strip(terms) * 4 / 40
    barrier = BARRIER_CYCLES if shape.grid[0] > 1 else 0
    return turns * TURN_CYCLES + multiply + weights + of_group * terms * 4 / 40 + barrier
