"""How many threads work on a call, and the pool they come from.

A call with enough work is divided into parts, which are shared with the workers of a pool (``team.py``): each of some
of the sequences or, of few sequences, of some of the units (``meeting.py``). The pool is made when first needed, and
made anew in a forked process, where the threads of the parent do not exist. Any number of Python threads may share it:
a worker that is at another's job is not waited for.

Ctrl-C may be raised between any two instructions of the main thread, so the pool must be in order between any two. A
job is posted, done and taken back in one call of compiled code. Nothing in Python takes a lock: a thread is started by
``_thread``, and has its number by ``dict.setdefault``, each of which is one step.
"""

from __future__ import annotations

import _thread
import atexit
import ctypes
import functools
import math
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import numpy as np

from .._available import available_cpus, cpus_there
from ..packing.checks import as_integer
from ..packing.objects import address_of
from .meeting import Meeting
from .team import LINE, Head, Line, pauses, serve, wake

__all__ = ["get_num_threads", "set_num_threads", "team", "threads", "warm"]

#: threads of a call, at most
MOST = 4096
#: seconds for which a worker looks for a job before it sleeps: what a step of training does between its passes takes
#: about as long, and to wake it a quarter of that
LOOKS = 2e-4


def _count(value: Any, name: str) -> int:
    count = as_integer(value, name)
    if not 1 <= count <= MOST:
        raise ValueError(f"{name} must be between 1 and {MOST}; got {value!r}")
    return count


def _default() -> int:
    name = "NUMBA_PACK_NUM_THREADS"
    given = os.environ.get(name)
    if given is None:
        return available_cpus()
    try:
        return _count(int(given), name)
    except ValueError as error:
        raise ValueError(f"the environment variable {name} must be an integer from 1 to 4096; got {given!r}") from error


_everywhere = _default()
_here: ContextVar[int | None] = ContextVar("numba_pack_threads", default=None)


def set_num_threads(n: int) -> None:
    """Set how many threads a call may use, in the whole process.

    Parameters
    ----------
    n : int
        At least 1. At import it is ``NUMBA_PACK_NUM_THREADS`` or, if that is not set, the number of CPUs that this
        process may use: those it is bound to, and no more than the quota of its container, ``OMP_NUM_THREADS`` or
        ``NUMBA_NUM_THREADS`` allow.

    Raises
    ------
    TypeError, ValueError
        If n is not an integer from 1 to 4096.

    See Also
    --------
    threads : the same for a block of code.
    """
    global _everywhere
    _everywhere = _count(n, "n")


def get_num_threads() -> int:
    """How many threads a call from here may use.

    Examples
    --------
    >>> import numba_pack as nbp
    >>> with nbp.threads(1):
    ...     nbp.get_num_threads()
    1
    """
    return _here.get() or _everywhere


@contextmanager
def threads(n: int) -> Iterator[None]:
    """Within the block, and in this Python thread alone, calls use at most n threads.

    Parameters
    ----------
    n : int
        From 1 to 4096. Results do not depend on it, bit for bit.

    Examples
    --------
    >>> import numba_pack as nbp
    >>> with nbp.threads(2):
    ...     nbp.get_num_threads()
    2
    """
    token = _here.set(_count(n, "n"))
    try:
        yield
    finally:
        _here.reset(token)


class _Pool:
    """Workers of a team, and the board that they look at; there are as many as were ever asked for at once."""

    def __init__(self) -> None:
        self.board = np.zeros((1 + MOST, LINE), np.int64)
        self.at = address_of(self.board)
        #: the threads by their numbers: of two that were started with the same number, one finds it taken and ends
        self.members: dict[int, int] = {}
        #: their bells
        self.bells: dict[int, int] = {}

    @property
    def closed(self) -> bool:
        return bool(self.board[0, 0])

    def grow(self, count: int) -> None:
        """Have ``count`` workers, or fewer if no more threads can be started."""
        if not self.board[0].any():
            warm()
            self.board[0, : len(Head._fields)] = Head(0, _pauses(), cpus_there(), _taken_lock())
        for number in range(count):
            if number not in self.members and not self.closed:
                # from now on it has a line, so that it may be given a job before it is there
                self.board[1 + number, Line._fields.index("bell")] = self.bells.setdefault(number, _taken_lock())
                try:
                    _thread.start_new_thread(self.serve, (number,))
                except RuntimeError:  # the system has no thread left, or the interpreter is ending
                    return

    def serve(self, number: int) -> None:
        """What a thread does, from its start to the end of the pool."""
        if self.members.setdefault(number, _thread.get_ident()) != _thread.get_ident():
            return
        try:
            serve(self.at, number)
        finally:
            del self.members[number]

    def end(self) -> None:
        """End the threads after their present jobs: they must not come back to an interpreter that is ending."""
        self.board[0, 0] = True
        while self.members:
            wake(self.at, MOST)
            time.sleep(1e-4)


def warm() -> None:
    """Compile what workers run, or load it, before one begins."""
    board = np.zeros((2, LINE), np.int64)
    board[:, :2] = (True, 0), Line(0, _taken_lock())  # which is closed
    serve(address_of(board), 0)
    wake(address_of(board), 0)
    pauses(0)


def _taken_lock() -> int:
    """The address of a lock for compiled code, which takes a few bytes that nobody frees."""
    lock: int = _api.PyThread_allocate_lock()
    if not lock:
        raise MemoryError
    _api.PyThread_acquire_lock(ctypes.c_void_p(lock), 1)
    return lock


_api = ctypes.pythonapi
_api.PyThread_allocate_lock.restype = ctypes.c_void_p


def _pauses() -> int:
    """How many pauses take `LOOKS` seconds."""
    count, shortest = 1000, math.inf
    for _ in range(5):
        start = time.perf_counter()
        pauses(count)
        shortest = min(shortest, time.perf_counter() - start)
    return int(count * LOOKS / shortest)


_pool = _Pool()


def _forget_pool() -> None:
    global _pool
    _pool = _Pool()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_pool)


@atexit.register
def _end_pool() -> None:
    _pool.end()


def team(threads: int) -> tuple[int, int]:
    """The board and the number of workers with which a call is on so many threads, as `share` takes them.

    The workers are awake soon. So who prepares something before asks for them first.
    """
    count = min(threads, MOST) - 1
    if count <= 0:
        return 0, 0
    pool = _pool
    if len(pool.members) < count:
        pool.grow(count)
    if count < pool.board[0, 2]:  # else they would not look for a job before they sleep again
        wake(pool.at, count)
    return pool.at, count


#: the CPUs that threads can run on at once, as they were when first asked for: to look takes as long as a small call
cpus = functools.cache(cpus_there)


def meeting(count: int, patience: float) -> np.ndarray:
    """A `Meeting` of so many threads of a team, for which the first waits for a part of `LOOKS`."""
    made = np.zeros((1 + count, LINE), np.int64)
    head = Head(*_pool.board[0, : len(Head._fields)].tolist())
    fields = Meeting(0, 0, count, int(patience * head.pauses), head.pauses, head.locked, 0)
    made[0, : len(fields)] = fields
    return made
