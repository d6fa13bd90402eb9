"""A team of threads, among which the parts of a call are divided: all that is compiled, and runs without the GIL.

A *job* is a kernel, and a block of arguments for each of its parts. Who has one posts it to workers, takes one part
after the other as they do, and at the end waits for those that are still at theirs. So a worker that comes late takes
fewer parts, and one that does not come at all takes none. A job is in the memory of who posts it: it is over when no
worker has it any more.

A worker that nothing is posted to looks again and again for a while, and then sleeps. What it does is one number, its
state, and whoever changes that does it in one step, from what it was to what it is to be:

==================  ====================================================================
state               becomes
==================  ====================================================================
``ABSENT``          ``AWAKE`` when the worker's thread begins; a job, by who posts it
``AWAKE``           a job, by who posts it; ``ASLEEP``, or ``ABSENT``, by the worker
``ASLEEP``          ``AWAKE`` or a job, by who wakes it
a job               the job + 1, by the worker that begins; ``AWAKE``, by who posted it in vain
a job + 1           ``AWAKE``, by the worker
==================  ====================================================================

A job stands for its address, which is even.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numba import types

from .._ahead import ask
from .._jit import inner, jit
from ..packing.objects import address_of, data_at
from ..simd.atomics import acquire, add_to, exchange, nap, pause, put, release, seen
from ..simd.memory import address, copy, integer_at, integers_at, keep_alive, put_integers
from ..simd.modes import call_kernel, caught, raise_caught

__all__ = [
    "LINE",
    "Call",
    "Head",
    "Line",
    "block_of",
    "call_each",
    "pauses",
    "serve",
    "share",
    "share_blocks",
    "wake",
    "warm_calls",
]

#: integers of a line of a board, which is a line of the cache
LINE = 8
ABSENT, AWAKE, ASLEEP = 0, 1, 2


class Head(NamedTuple):
    """The first line of a board."""

    #: whether workers are to end
    closed: int
    #: pauses for which one looks before one sleeps
    pauses: int
    #: processors that there are for the threads
    processors: int
    #: a lock that is never given back
    locked: int
    #: how many more are to be woken
    wanted: int = 0


class Line(NamedTuple):
    """The lines that follow: of each worker that ever began."""

    state: int
    #: a lock that is taken but when the worker is woken; 0 in the lines behind the last
    bell: int


_HEAD = len(Head._fields)
_WANTED = 8 * Head._fields.index("wanted")
_BELL = 8 * Line._fields.index("bell")
#: how many times as long as for a job, which may not come, one looks for the end of a part
_OF_PART = 10
#: workers that one wakes: so 64 are awake almost as soon as 16
_WAKES = 8
#: microseconds that naps between looks are longer each time, and at most
_NAP, _LONGEST = 20, 1000


class _Job(NamedTuple):
    #: the part that is begun next, and how many there are
    next: int
    parts: int
    kernel: int
    #: of the first part, and bytes from block to block
    block: int
    apart: int
    #: of the first error: what `caught` returned
    code: int
    error: int


_JOB = len(_Job._fields)
_CODE, _ERROR = 8 * _Job._fields.index("code"), 8 * _Job._fields.index("error")


@inner
def _take_parts(job):
    """Do one part after the other until none is left, or one fails."""
    of = _Job(*integers_at(job, _JOB))
    part = add_to(job, 1)
    while part < of.parts:
        code, error = caught(of.kernel, of.block + part * of.apart)
        if code != 0:
            put(job, of.parts)
            if exchange(job + _CODE, 0, code):
                put(job + _ERROR, error)
        part = add_to(job, 1)


@inner
def _line(board, number):
    """The address of a worker's line, or 0 behind the last."""
    line = board + 8 * LINE * (1 + number)
    return line if seen(line + _BELL) != 0 else 0


@inner
def _ring(line):
    release(seen(line + _BELL))


@inner
def _change(board, former, state, count):
    """Give a state to so many workers that have the former one, and wake those that slept; how many were missing."""
    number, line = 0, _line(board, 0)
    while line != 0 and count > 0:
        if exchange(line, former, state):
            if former == ASLEEP:
                _ring(line)
            count -= 1
        number += 1
        line = _line(board, number)
    return count


@inner
def _wake_some(board):
    """Wake some of the workers that are wanted, each of which does the same: to wake one takes 8 µs."""
    for _ in range(_WAKES):
        if add_to(board + _WANTED, -1) <= 0:
            add_to(board + _WANTED, 1)
            return
        _change(board, ASLEEP, AWAKE, 1)


@jit
def serve(board, number):
    """What a worker does until the board is closed."""
    head = Head(*integers_at(board, _HEAD))
    line = _line(board, number)
    pauses = head.pauses if number + 2 <= head.processors else 0
    exchange(line, ABSENT, AWAKE)
    while True:
        left = pauses
        while left >= 0 and seen(board) == 0:
            state = seen(line)
            if state != AWAKE and exchange(line, state, state + 1):
                _take_parts(state)
                put(line, AWAKE)
                left = pauses
            pause()
            left -= 1
        if seen(board) == 0:
            if exchange(line, AWAKE, ASLEEP):
                acquire(seen(line + _BELL))
                _wake_some(board)
        elif exchange(line, AWAKE, ABSENT):
            return


@jit
def wake(board, count):
    """Have so many workers awake, if there are as many that have no job."""
    number, line = 0, _line(board, 0)
    while line != 0:
        count -= seen(line) == AWAKE
        number += 1
        line = _line(board, number)
    put(board + _WANTED, max(0, count))
    _wake_some(board)


@inner
def _post(board, job, count):
    """Post a job to so many workers, rather to those that are awake, and last of all to those that are to begin."""
    _change(board, ABSENT, job, _change(board, ASLEEP, job, _change(board, AWAKE, job, count)))


@inner
def _finish(board, job, count):
    """Wait until none of the workers has the job any more."""
    head = Head(*integers_at(board, _HEAD))
    left, naps = _OF_PART * head.pauses if count < head.processors else 0, 0
    number, line = 0, _line(board, 0)
    while line != 0:
        if not exchange(line, job, AWAKE):
            while seen(line) == job + 1:
                if left > 0:
                    pause()
                    left -= 1
                else:
                    naps += 1
                    nap(head.locked, min(naps * _NAP, _LONGEST))
        number += 1
        line = _line(board, number)


@inner
def share(kernel, block, apart, parts, board, count):
    """Call a kernel for each block of a row of them, here and on ``count`` workers; what one raises is raised.

    ``block`` is the address of the first, ``apart`` how many bytes lie from one to the next. Where a kernel has raised
    an error no further part is begun.
    """
    made = np.empty(_JOB, np.int64)
    job = address(made, 0)
    put_integers(job, _Job(next=0, parts=parts, kernel=kernel, block=block, apart=apart, code=0, error=0))
    if count > 0 and parts > 1:
        _post(board, job, min(count, parts - 1))
        _take_parts(job)
        _finish(board, job, count)
    else:
        _take_parts(job)
    code, error = seen(job + _CODE), seen(job + _ERROR)
    keep_alive((made,))
    if code != 0:
        raise_caught(code, error)


@jit
def share_blocks(kernel, blocks, board, count):
    """As `share`, with a block in each row of an array."""
    parts, size = blocks.shape
    share(kernel, address(blocks, 0), 8 * size, parts, board, count)
    keep_alive((blocks,))


#: fields of a block, at most
LARGEST = 64


class Block(NamedTuple):
    """What the fields of a block are that a kernel reads; made by `block_of`."""

    #: how many there are
    fields: int
    #: how many of the first are those of the call before
    shared: int
    #: the place of the two that tell which part of the work this is: where it begins, and where the next one does
    first: int
    #: how many of those that are not shared are arrays; their places follow
    arrays: int


def block_of(fields: Sequence[str], arrays: Iterable[str], first: str, shared: int = 0) -> int:
    """The address of a `Block`, for a `Call`: which fields are arrays, and which is that of the first two numbers."""
    assert len(fields) <= LARGEST
    places = [fields.index(name) for name in arrays]
    _kept.append(np.array([*Block(len(fields), shared, fields.index(first), len(places)), *places], np.int64))
    return address_of(_kept[-1])


#: what compiled code reads as long as the process lives
_kept: list[np.ndarray] = []


class Call(NamedTuple):
    """A call of a kernel, for each part of its work, as `call_each` takes it."""

    kernel: int
    #: the address of a `Block`
    block: int
    parts: int
    #: (parts + 1,) where the parts begin, and where the last one ends; None if they are 0, 1 and so on
    cuts: np.ndarray | None
    #: those of the block that are not shared. Arrays are objects, or 0: compiled code finds their data in a tenth of
    #: the time that Python takes. If there is one part, the two numbers that tell which are right already
    fields: tuple[int, ...]


def call_each(calls: Sequence[Call], team: tuple[int, int]) -> None:
    """Make calls one after the other, each divided among the workers of a team, in one call of compiled code."""
    numbers: list[int] = []
    divided = False
    for kernel, block, parts, cuts, fields in calls:
        numbers += kernel, block, parts, 0 if cuts is None else id(cuts)
        numbers += fields
        divided = divided or parts > 1
    told = np.array(numbers, np.int64)
    if divided:
        _share_each(id(told), len(calls), *team)
    else:
        room = np.empty(len(calls) * LARGEST, np.int64)
        _call_each(id(told), len(calls), id(room))


_CALL, _BLOCK = len(Call._fields) - 1, len(Block._fields)


@inner
def _put_block(of, block, shared, fields, target):
    """Put a block together, of the fields that are shared and the others; of arrays it has their data."""
    copy(target, shared, 8 * of.shared)
    copy(target + 8 * of.shared, fields, 8 * (of.fields - of.shared))
    for i in range(of.arrays):
        place = target + 8 * integer_at(block, _BLOCK + i)
        array = integer_at(place, 0)
        if array != 0:
            put_integers(place, (data_at(array),))


@jit
def _call_each(calls, count, room):
    """By itself, since who does not divide calls is spared compiling how they are. ``room`` is for the blocks."""
    at, before, target = data_at(calls), 0, data_at(room)
    for _ in range(count):
        kernel, block, _, _ = integers_at(at, _CALL)
        of = Block(*integers_at(block, _BLOCK))
        _put_block(of, block, before, at + 8 * _CALL, target)
        call_kernel(kernel, target)
        at += 8 * (_CALL + of.fields - of.shared)
        before, target = target, target + 8 * of.fields


def _compile_call_each() -> None:
    _call_each.compile((types.int64,) * 3)


ask(5, "_call_each", _compile_call_each)


@jit
def _share_each(calls, count, board, workers):
    at, made = data_at(calls), np.empty(0, np.int64)
    for _ in range(count):
        kernel, block, parts, cuts = integers_at(at, _CALL)
        of = Block(*integers_at(block, _BLOCK))
        before, made = made, np.empty(parts * of.fields, np.int64)
        first = address(made, 0)
        _put_block(of, block, address(before, 0), at + 8 * _CALL, first)
        for part in range(parts if parts > 1 else 0):
            target = first + 8 * part * of.fields
            if part > 0:
                copy(target, first, 8 * of.fields)
            put_integers(target + 8 * of.first, integers_at(data_at(cuts) + 8 * part, 2) if cuts else (part, part + 1))
        share(kernel, first, 8 * of.fields, parts, board, workers)
        keep_alive((before, made))
        at += 8 * (_CALL + of.fields - of.shared)


def warm_calls() -> None:
    """Compile what makes calls, or load it."""
    nothing = np.zeros(1, np.int64)
    _call_each(id(nothing), 0, id(nothing))
    _share_each(id(nothing), 0, address_of(nothing), 0)


@jit
def pauses(count):
    """Pause so many times, as one does who looks for a job."""
    made = np.zeros(1, np.int64)
    for _ in range(count):
        if seen(address(made, 0)) == 0:
            pause()
    keep_alive((made,))
