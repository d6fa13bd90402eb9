"""Rows taken from an array by their numbers, on several threads."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import numpy as np
from numba import types

from .._jit import by_address
from ..packing.objects import address_of
from ..simd.memory import copy, integer_at, integers_at
from . import threads
from .team import share_blocks

__all__ = ["take_rows"]

#: bytes of rows whose move is worth a thread
WORTH_A_THREAD = 1 << 20


class _Block(NamedTuple):
    rows: int
    taken: int
    row_bytes: int
    #: (N,) the numbers, and which of them
    numbers: int
    first: int
    last: int


_FIELDS = len(_Block._fields)


def _take(block):
    b = _Block(*integers_at(block, _FIELDS))
    for n in range(b.first, b.last):
        copy(b.taken + n * b.row_bytes, b.rows + integer_at(b.numbers, n) * b.row_bytes, b.row_bytes)


@functools.cache
def _kernel() -> Any:
    return by_address(types.void(types.intp))(_take)


def take_rows(rows: np.ndarray, index: np.ndarray) -> np.ndarray:
    """``rows[index]``, of int64 numbers within the rows."""
    rows = np.ascontiguousarray(rows)
    taken = np.empty((len(index), *rows.shape[1:]), rows.dtype)
    workers = max(1, min(threads.get_num_threads(), taken.nbytes // WORTH_A_THREAD))
    team = threads.team(workers)
    row_bytes = taken.nbytes // max(1, len(index))
    of = address_of(rows), address_of(taken), row_bytes, address_of(index)
    cuts = [len(index) * part // workers for part in range(workers + 1)]
    blocks = [_Block(*of, *cuts[part : part + 2]) for part in range(workers)]
    share_blocks(_kernel().native, np.array(blocks), *team)
    return taken
