"""Dropout whose mask is a function of where it stands, so that it is never stored.

Philox4x32-10 (Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011) turns a counter
and a key into four random words. Here the key is (seed, call) and the counter (unit // 4, step, sequence, layer), with
the sequence numbered as the caller does. So the mask depends neither on threads, nor on how a batch was sorted and
packed, and the backward pass makes it again.
"""

from __future__ import annotations

import itertools
import os
import threading
from typing import Any, NamedTuple

import numpy as np

from .._jit import inner
from ..simd.lanes import always_inline, load_first, size_of, store_first, width
from ..simd.words import COUNTERS, counting, mask_of, repeated

__all__ = ["NO_DROPOUT", "UNITS", "Calls", "Dropout", "drop_row", "mask_units", "philox"]


class Dropout(NamedTuple):
    """What one call of ``forward`` drops."""

    #: probability of a zero; what is kept is divided by ``1 - rate``
    rate: float
    seed: np.uint32
    #: number of the call, so that each call drops other units
    call: np.uint32
    #: probability of a zero in h before its product, at all steps of a sequence
    recurrent: float = 0.0
    #: whether the cell is zoned out, see `Cell.zoned`
    zoned: bool = False
    #: number of the first scan: of a layer that is called as one of a `Stack`, D for each layer below it
    scan: int = 0


NO_DROPOUT = Dropout(0.0, np.uint32(0), np.uint32(0))


class _Fork(threading.local):
    """Which of the forks of this process is under way in this thread."""

    number = 0


#: which child of which child this process is, by the order of forks
_line: tuple[int, ...] = ()
_fork, _forks = _Fork(), itertools.count()


def _forking() -> None:
    _fork.number = next(_forks)


def _forked() -> None:
    global _line, _forks
    _line, _forks = (*_line, _fork.number), itertools.count()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_forking, after_in_child=_forked)


class Calls:
    """Numbers the training calls of a layer: no two drop the same units.

    Forked processes are taken for workers of one task, which must not repeat each other: each has a seed of its own,
    which follows from that of the layer and the order of forks. Copies and pickles of a layer that was given a seed go
    on from where it stood; those of a layer without one have seeds of their own, too.
    """

    def __init__(self, seed: int, seeded: bool, first: int = 0) -> None:
        self.seeded = seeded
        self._drawn = seed, _line
        self._numbers = itertools.count(first)

    @property
    def seed(self) -> int:
        """The seed of this process."""
        seed, line = self._drawn
        if line is not _line:  # drawn before a fork
            spawned = np.random.SeedSequence(seed, spawn_key=_line[len(line) :])
            seed = int(spawned.generate_state(1)[0])
            self._drawn = seed, _line
        return seed

    def next(self, rate: float, recurrent: float = 0.0, zoned: bool = False) -> Dropout:
        """What the next call drops."""
        # next() is atomic, also in a Python without a global lock
        return Dropout(rate, np.uint32(self.seed), np.uint32(next(self._numbers) % 2**32), recurrent, zoned)

    def __reduce__(self) -> tuple[Any, ...]:
        if not self.seeded:
            return _unseeded, ()
        _, _, following = repr(self._numbers).partition("(")  # the only way to see the next number without taking it
        return Calls, (self.seed, True, int(following.rstrip(")")))


def _unseeded() -> Calls:
    return Calls(int.from_bytes(os.urandom(4), "little"), seeded=False)


@inner
def philox(c0, c1, c2, c3, k0, k1):
    """Four random words from a counter of four and a key of two, all uint64 below 2**32.

    Of counters that are `Words`, each four of the same lane, come words in their lanes.
    """
    low = np.uint64(0xFFFFFFFF)
    half = np.uint64(32)
    for _ in range(10):
        # only low halves count: what is above them stays there until the next product, or the end
        p0, p1 = np.uint64(0xD2511F53) * (c0 & low), np.uint64(0xCD9E8D57) * (c2 & low)
        c0, c1, c2, c3 = (p1 >> half) ^ c1 ^ k0, p1, (p0 >> half) ^ c3 ^ k1, p0
        k0, k1 = k0 + np.uint64(0x9E3779B9), k1 + np.uint64(0xBB67AE85)
    return c0 & low, c1 & low, c2 & low, c3 & low


#: units whose masks are made at once, in whole vectors
UNITS = 4 * COUNTERS


@inner
def mask_units(kept, threshold, unit, step, sequence, layer, seed, call):
    """The mask of `UNITS` units from ``unit`` on, a multiple of 4, as a tuple of vectors.

    A unit is 0 if its word is below ``threshold``, which is from 0 to 2**32; else ``kept``, a float of the dtype.
    """
    always_inline()  # what is the same for all units is then computed once, the ten keys above all
    words = philox(
        counting(np.uint64(unit // 4)), repeated(np.uint64(step)), repeated(np.uint64(sequence)),
        repeated(np.uint64(layer)), np.uint64(seed), np.uint64(call),
    )  # fmt: skip
    return mask_of(words, np.uint64(threshold), kept)


@inner
def drop_row(number, dropout, layer, sequence, step, source, target, count):
    """Drop units of a row of ``count``: the output of ``layer`` at one step of one sequence.

    ``source`` and ``target`` are addresses, which may be the same; ``number`` is any of the dtype.
    """
    kept = type(number)(1.0 / (1.0 - dropout.rate))  # infinite at a rate of 1, where nothing is kept
    for unit in range(0, count, UNITS):
        mask = mask_units(kept, dropout.rate * 2.0**32, unit, step, sequence, layer, dropout.seed, dropout.call)
        for i in range(len(mask)):
            first = unit + i * width(number)
            at, left = first * size_of(number), count - first
            store_first(target + at, load_first(number, source + at, left) * mask[i], left)
