"""Dropout between layers: a function of its own, which only those who drop compile."""

import functools
from typing import Any, NamedTuple

import numpy as np
from numba import types

from .._jit import by_address, inner
from ..batch import Batch
from ..cells.dropout import Dropout, drop_row
from ..packing.objects import address_of
from ..simd.memory import call_with, float_of, integer_at, integers_at
from .noise import noise_kernel
from .team import share_blocks

__all__ = ["drop_layer", "drop_of", "drop_rows", "drops"]


class _Block(NamedTuple):
    """What the function reads."""

    #: of the dropout: the bits of the rate, seed and call
    rate: int
    seed: int
    call: int
    #: the layer that the rows are the output of
    layer: int
    #: the number of the first step, T, (T,) rows of each step, and the caller's number of each of the step's sequences
    since: int
    steps: int
    sizes: int
    order: int
    #: `Rows`
    source: int
    source_step: int
    source_begins: int
    target: int
    target_step: int
    target_begins: int


_FIELDS = len(_Block._fields)


def _drop_kernel(number: Any) -> Any:
    def drop(block):
        b = _Block(*integers_at(block, _FIELDS))
        dropout = Dropout(float_of(b.rate), np.uint32(b.seed), np.uint32(b.call))
        for t in range(b.steps):
            x, y = integer_at(b.source_begins, t), integer_at(b.target_begins, t)
            for r in range(integer_at(b.sizes, t)):
                x_at, y_at = b.source + (x + r) * b.source_step * size, b.target + (y + r) * b.target_step * size
                drop_row(number, dropout, b.layer, integer_at(b.order, r), b.since + t, x_at, y_at, b.source_step)

    size = number.itemsize
    return drop


@functools.cache
def _kernel(dtype: np.dtype[Any]) -> Any:
    return by_address(types.void(types.intp))(_drop_kernel(dtype.type(0)))


_NONE = np.empty(0, np.int64)


def drop_of(dropout: Dropout, dtype: np.dtype[Any]) -> np.ndarray:
    """A dropout as the kernels take it; empty for none.

    The address of the function, the bits of the rate, seed and call, the address of that of ``noise.py``, 2**32 times
    the rate of recurrent dropout, and the number of the first scan. Addresses of what is not used are 0.
    """
    inside = dropout.recurrent > 0 or dropout.zoned
    if dropout.rate == 0 and not inside:
        return _NONE
    rate, of_state = np.float64(dropout.rate).view(np.int64), int(dropout.recurrent * 2.0**32)
    return np.array([
        _kernel(dtype).native if dropout.rate > 0 else 0, rate, dropout.seed, dropout.call,
        noise_kernel(dtype).native if inside else 0, of_state, dropout.scan,
    ])  # fmt: skip


def drop_rows(
    dropout: Dropout, layer: int, batch: Batch, cuts: np.ndarray | None, team: tuple[int, int], source: np.ndarray,
    target: np.ndarray,
) -> None:  # fmt: skip
    """target = source with units dropped: the output (N, C) of ``layer``, its sequences divided, as by `cuts_of`."""
    if cuts is None:
        cuts = np.array((0, len(batch.order)))
    first, last = cuts[:-1, None], cuts[1:, None]
    sizes = np.clip(batch.batch_sizes - first, 0, last - first)
    begins = np.cumsum(batch.batch_sizes) - batch.batch_sizes + first
    columns = source.shape[1]
    blocks = [
        _Block(
            int(np.float64(dropout.rate).view(np.int64)), int(dropout.seed), int(dropout.call), layer, batch.since,
            sizes.shape[1], address_of(sizes[part]), address_of(batch.order[cuts[part]:]), address_of(source),
            columns, address_of(begins[part]), address_of(target), columns, address_of(begins[part]),
        )
        for part in range(len(sizes))
    ]  # fmt: skip
    share_blocks(_kernel(source.dtype).native, np.array(blocks, np.int64), *team)
    del sizes, begins  # which have been read


@inner
def drops(drop):
    """Whether there is dropout between layers."""
    return drop != 0 and integer_at(drop, 0) != 0


@inner
def drop_layer(drop, layer, steps, order, first, source, target):
    """target = source with units dropped: the `Rows` of the output of ``layer``, for sequences from ``first`` on.

    ``drop`` is the address of what `drop_of` made, ``steps`` are the `Steps` of these sequences, ``order`` is the
    address of the caller's numbers of all.
    """
    fields = (
        integer_at(drop, 1), integer_at(drop, 2), integer_at(drop, 3), layer, steps.since,
        steps.number, steps.sizes, order + 8 * first, source.at, source.step, source.begins,
        target.at, target.step, target.begins,
    )  # fmt: skip
    call_with(integer_at(drop, 0), fields)
