"""Threads that go over the steps of a scan together, each with some of the units of the layer.

A batch of many sequences is divided by sequences, whose threads need nothing of each other (``team.py``). Of few
sequences each step reads all weights for a few rows, and a thread for each would read all of them, too. So here each
thread computes some units, and reads the weights of these. All of them meet at the end of each step, since the next one
needs the whole state.

A meeting begins when the first thread has waited for the others for a while: it takes place among those that have come
until then, so that nobody waits for a thread that is not there. Who comes later has nothing to do.
"""

from typing import NamedTuple

from .._jit import inner
from ..simd.atomics import add_to, exchange, nap, pause, put, seen, tell
from ..simd.memory import integer_at, integers_at, put_integers

__all__ = ["LINE", "Meeting", "Share", "alone", "join", "meet"]


class Meeting(NamedTuple):
    """The integers of a meeting, in memory that all its threads see."""

    #: how many came, and `_LATE` more when it has begun
    came: int
    #: how many take part; 0 until it has begun
    members: int
    #: how many are to come
    wanted: int
    #: pauses for which the first waits for the others
    patience: int
    #: pauses for which one looks before one sleeps
    pauses: int
    #: a lock that is never given back
    locked: int
    #: the address of what the first has room for, and all write to
    room: int


#: integers of a line of the cache: behind the fields each member has a line, in which it counts its steps
LINE = 8
_FIELDS = len(Meeting._fields)
_MEMBERS, _ROOM = (8 * Meeting._fields.index(name) for name in ("members", "room"))
_LATE = 1 << 32
#: microseconds between two looks of who sleeps
_NAP = 20


class Share(NamedTuple):
    """The part of a thread in a scan."""

    #: the address of the meeting
    meeting: int
    #: which of how many members it is; of none if the meeting has begun without it
    member: int
    members: int
    #: its units
    low: int
    high: int
    #: what all write to
    room: int
    #: the address of how often it has met the others
    met: int


@inner
def alone(units, room):
    """The share of a thread that does it all."""
    return Share(0, 0, 1, 0, units, room, 0)


@inner
def join(meeting, units, grain, room, met):
    """Take part in a meeting: some of the units, in runs of ``grain``, for each who does.

    ``room`` is that of this thread; it is everybody's if this is the first. ``met`` is the address of a 0.
    """
    of = Meeting(*integers_at(meeting, _FIELDS))
    number, members = add_to(meeting, 1), 0
    if number == 0:
        left = of.patience
        while seen(meeting) < of.wanted and left > 0:
            pause()
            left -= 1
        put(meeting + _ROOM, room)
        members = seen(meeting)
        while not exchange(meeting, members, members + _LATE):
            members = seen(meeting)
        put(meeting + _MEMBERS, members)
    elif number < _LATE:
        left = of.pauses
        while members == 0:
            left = _rest(of, left)
            members = seen(meeting + _MEMBERS)
    runs = (units + grain - 1) // grain
    low, high = 0, 0
    if members > 0:
        low, high = number * runs // members * grain, min((number + 1) * runs // members * grain, units)
    return Share(meeting, number, members, low, high, seen(meeting + _ROOM), met)


@inner
def meet(share):
    """Wait until all members have come this far: what they have written until then is there."""
    if share.members == 1:
        return
    of = Meeting(*integers_at(share.meeting, _FIELDS))
    met, left = integer_at(share.met, 0) + 1, of.pauses
    put_integers(share.met, (met,))
    tell(_line(share.meeting, share.member), met)
    for other in range(share.members):
        line = _line(share.meeting, other)
        while seen(line) < met:
            left = _rest(of, left)


@inner
def _rest(of, left):
    """Pause between two looks; when no pauses are left, sleep: who is waited for may need the processor."""
    if left <= 0:
        nap(of.locked, _NAP)
        return left
    pause()
    return left - 1


@inner
def _line(meeting, member):
    return meeting + 8 * LINE * (1 + member)
