"""The line in which requests stand: places for so many, turns, and what makes a chunk.

Whoever calls holds the batcher's lock. Ctrl-C may come between any two instructions of the main thread, so a caller
does no more than to join the line, which is one step; the rest is left to workers, which Ctrl-C does not reach.
"""

from __future__ import annotations

import math
from collections import deque
from concurrent.futures import Future
from threading import Event
from typing import Any, NamedTuple

import numpy as np

__all__ = ["Chunk", "Line", "Request"]

#: how many times as long as wide a chunk may be, where that is more than the steps that it may have in any case
LONGER = 8
#: which part of a chunk's rows may come to it to finish requests of which more steps are left
MORE = 4


class Request:
    """A sequence, and how far its answer is."""

    __slots__ = ("admitted", "at", "deadline", "future", "kind", "outputs", "rows", "slot", "submitted")

    def __init__(self, rows: np.ndarray, kind: Any, submitted: float, deadline: float) -> None:
        #: the whole sequence: a copy, since the caller may write to the array before the answer is there
        self.rows = rows
        #: requests with equal kinds may be in one chunk
        self.kind = kind
        #: by the clock: when it came, and from when on it is too late for an answer
        self.submitted, self.deadline = submitted, deadline
        #: pending until the end, so that it can be cancelled between chunks
        self.future: Future[Any] = Future()
        #: where somebody waits for it: set when the request has a place, or is over
        self.admitted: Event | None = None
        #: where its states lie, which no other request has; -1 before it has one
        self.slot = -1
        #: the steps that are done
        self.at = 0
        #: of each output of a layer (T, columns), of which ``at`` rows are there
        self.outputs: list[np.ndarray] = []


class Chunk(NamedTuple):
    """Requests, and how many steps of each are to be taken."""

    requests: list[Request]
    counts: list[int]


class Line:
    """Unfinished requests, at most ``capacity`` with a place, in the order of their turns."""

    def __init__(self, capacity: int, rows: int, steps: int | None) -> None:
        self._capacity = capacity
        #: the most rows of a chunk, and the most steps, or None if requests are taken as a whole
        self._rows, self._steps = rows, steps
        #: requests that have a slot, by it; and the slots of nobody
        self._held: dict[int, Request] = {}
        self._free = list(reversed(range(capacity)))
        #: those of them that are in no chunk just now
        self._waiting: deque[Request] = deque()
        #: those that have come since, in slots as soon as there is one
        self._outside: deque[Request] = deque()
        #: no deadline is before this
        self._soonest = math.inf

    def __len__(self) -> int:
        return len(self._held) + len(self._outside)

    @property
    def full(self) -> bool:
        """Whether as many requests stand here as may, so that one more has to wait for a place."""
        return len(self) >= self._capacity

    @property
    def waiting(self) -> bool:
        """Whether there is a request to take steps of."""
        return bool(self._waiting or self._outside)

    def enter(self, request: Request) -> None:
        """Let a request stand in line."""
        self._soonest = min(self._soonest, request.deadline)
        self._outside.append(request)

    def leave(self, request: Request) -> None:
        """Take its place from a request that is over, and stands neither to wait nor to come in."""
        if request.slot >= 0:
            del self._held[request.slot]
            self._free.append(request.slot)
        elif request.admitted is not None:
            request.admitted.set()

    def back(self, request: Request) -> None:
        """Let a request of which some steps are done wait for its next turn."""
        self._waiting.append(request)

    def next(self, now: float) -> tuple[Chunk, list[Request]]:
        """Take out what makes a chunk; and what has left the line, being cancelled or too late."""
        over: list[Request] = []
        self._admit()
        if self._outside or not self._free or now >= self._soonest:  # others need the places; or some are too late
            for line in (self._waiting, self._outside):
                for _ in range(len(line)):
                    request = line.popleft()
                    if not self._left(request, now, over):
                        line.append(request)
            here = (*self._held.values(), *self._outside)
            self._soonest = min((request.deadline for request in here), default=math.inf)
            self._admit()
        chunk, rows, others = Chunk([], []), 0, []
        # Where many wait, a few more steps of some of them add little to the time of all: cuts would cost more.
        most = max(self._steps or 0, LONGER * min(len(self._waiting) - 1, math.isqrt(self._rows // LONGER)))
        while self._waiting and rows < self._rows:
            request = self._waiting.popleft()
            if self._left(request, now, over):
                continue
            if chunk.requests and request.kind != chunk.requests[0].kind:
                others.append(request)
                continue
            count = len(request.rows) - request.at
            if self._steps is not None:
                count = min(count, most, self._rows - rows)
            elif chunk.requests and rows + count > self._rows:
                others.append(request)
                break
            chunk.requests.append(request)
            chunk.counts.append(count)
            rows += count
        self._waiting.extendleft(reversed(others))  # it is their turn all the same
        if self._steps is not None:  # those that can be finished do not wait for steps of others that cannot
            ends = [n for request, n in zip(*chunk, strict=True) if request.at + n == len(request.rows)]
            enough = max(*ends, (most + 1) // 2) if ends else most
            chunk = chunk._replace(counts=[min(n, enough) for n in chunk.counts])
            self._finish(*chunk)
        return chunk, over

    def _finish(self, requests: list[Request], counts: list[int]) -> None:
        """Take all steps that are left of some requests, if they add little: else these would wait for a whole turn."""
        rows = sum(counts)
        most = min(rows // MORE, self._rows - rows)
        left = ((len(each.rows) - each.at - n, i) for i, (each, n) in enumerate(zip(requests, counts, strict=True)))
        for more, i in sorted(left):
            if more > most:
                break
            counts[i] += more
            most -= more

    def _left(self, request: Request, now: float, over: list[Request]) -> bool:
        """Whether a request is cancelled or too late: then it leaves, and is put into a list."""
        if now < request.deadline and not request.future.cancelled():
            return False
        self.leave(request)
        over.append(request)
        return True

    def _admit(self) -> None:
        """Give slots to those that have come, as far as there are any."""
        while self._outside and self._free:
            request = self._outside.popleft()
            request.slot = self._free.pop()
            self._held[request.slot] = request
            self._waiting.append(request)
            if request.admitted is not None:
                request.admitted.set()
