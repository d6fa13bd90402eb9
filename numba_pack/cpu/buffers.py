"""The memory of the passes of training: what each needs beside its input and results lies in one buffer.

Where the parts of it lie follows from the layer and from how many rows and sequences there are.
"""

import functools
import math
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from ..cells.parameters import Weights
from .packer import back_panels_of
from .shapes import back_shapes, record_shapes, result_shapes
from .workspace import ALIGNMENT

__all__ = ["Buffers", "buffers"]

Shape = tuple[int, ...]


class Tape(NamedTuple):
    """Where the arrays of a `Record` begin, in bytes after the begin of a tape."""

    gates: int
    cells: int
    outputs: int
    unprojected: int
    #: bytes in all
    size: int


class Room(NamedTuple):
    """The same of what a backward pass needs meanwhile: see `back_shapes`."""

    panels: int
    d_between: int
    d_projected: int
    #: zeros, at first
    d_units: int
    size: int


class Buffers(NamedTuple):
    """For N rows of B sequences."""

    #: of the arrays of `Results`
    results: tuple[Shape, ...]
    #: of those of `Record`, and their bytes without what lies between them
    record: tuple[Shape, ...]
    nbytes: int
    tape: Tape
    room: Room
    #: of the gradients of the first states: h, and the others
    d_first: tuple[Shape, ...]


def buffers(weights: Weights, N: int, B: int) -> Buffers:
    """The shapes of what passes over N rows of B sequences write, and where it lies."""
    kind: Any = type(weights)
    return _buffers(kind, weights[4:], weights.parameters.dtype, N, B)


@functools.lru_cache(maxsize=256)
def _buffers(kind: Any, sizes: tuple[int, ...], dtype: np.dtype[Any], N: int, B: int) -> Buffers:
    weights = kind(np.empty(0, dtype), None, None, None, *sizes)
    record, (between, _, *d_first, projected, units) = record_shapes(weights, N), back_shapes(weights, N, B, True)
    panels = (back_panels_of(weights),)
    return Buffers(
        result_shapes(weights, N, B),
        record,
        sum(map(math.prod, record)) * dtype.itemsize,
        Tape(*_offsets(record, dtype.itemsize)),
        Room(*_offsets((panels, between, projected, units), dtype.itemsize)),
        tuple(d_first),
    )


def _offsets(shapes: Iterable[Shape], itemsize: int) -> list[int]:
    """Where parts begin that lie one behind the other, each on a cache line's boundary, and where the last one ends."""
    found = [0]
    for shape in shapes:
        found.append(found[-1] + -(-math.prod(shape) * itemsize // ALIGNMENT) * ALIGNMENT)
    return found
