"""How many threads work on a call, and the pool they come from.

Kernels are serial and release the GIL; a call with enough work is divided into parts, each of some of the sequences,
which run on a pool of Python threads. The pool is made when first needed, and made anew in a forked process, where
the threads of the parent do not exist. Any number of Python threads may share it: a job of the pool never waits for
another job.

Ctrl-C may be raised between any two instructions of the main thread, so the pool must be in order between any two.
Nothing here takes a lock: work is handed over by a ``SimpleQueue``, claimed by ``deque.popleft`` and
``dict.setdefault``, and threads are started by ``_thread``, each of which is one step.
"""

from __future__ import annotations

import _thread
import atexit
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from queue import SimpleQueue
from typing import Any

from ..packing.checks import as_integer
from .available import available_cpus

__all__ = ["get_num_threads", "run", "set_num_threads", "threads"]


def _count(value: Any, name: str) -> int:
    count = as_integer(value, name)
    if not 1 <= count <= 4096:
        raise ValueError(f"{name} must be between 1 and 4096; got {value!r}")
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
    """Threads that wait for jobs; there are as many as were ever asked for at once."""

    def __init__(self) -> None:
        self.jobs: SimpleQueue[Callable[[], object] | None] = SimpleQueue()
        #: the threads by their numbers: of two that were started with the same number, one finds it taken and ends
        self.members: dict[int, int] = {}
        self.gone: SimpleQueue[int] = SimpleQueue()
        self.open = True

    def submit(self, job: Callable[[], object], count: int) -> None:
        """Have ``count`` threads do the job, or fewer if no more can be started."""
        for number in range(count):
            if self.open and number not in self.members:
                try:
                    _thread.start_new_thread(self.serve, (number,))
                except RuntimeError:  # the system has no thread left, or the interpreter is ending
                    return
            self.jobs.put(job)

    def serve(self, number: int) -> None:
        """What a thread does, from its start to the end of the pool."""
        if self.members.setdefault(number, _thread.get_ident()) != _thread.get_ident():
            return
        try:
            while self.open and (job := self.jobs.get()):  # the pool may have ended before this thread began
                job()
        finally:
            del self.members[number]
            self.gone.put(number)

    def end(self) -> None:
        """End the threads after their present jobs: they must not come back to an interpreter that is ending."""
        self.open = False
        members = len(self.members)
        for _ in range(members):
            self.jobs.put(None)
        for _ in range(members):
            self.gone.get()


_pool = _Pool()


def _forget_pool() -> None:
    global _pool
    _pool = _Pool()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_pool)


@atexit.register
def _end_pool() -> None:
    _pool.end()


def run(tasks: Sequence[Callable[[], object]], workers: int) -> None:
    """Run all tasks on at most ``workers`` threads, of which the caller's is one.

    Returns when all have ended. After an error in one, Ctrl-C included, no further task begins, and the error is raised
    when those that had begun are over. Ctrl-C between two tasks is raised at once.
    """
    if workers <= 1 or len(tasks) == 1:
        for task in tasks:
            task()
        return
    left = deque(tasks)
    over: SimpleQueue[None] = SimpleQueue()  # an entry for each task, when it has ended or is not to begin
    errors: list[BaseException] = []

    def work() -> None:
        while (task := _next(left)) is not None:
            try:
                task()
            except BaseException as error:
                errors.append(error)
                while _next(left) is not None:
                    over.put(None)
            over.put(None)

    try:
        _pool.submit(work, min(workers, len(tasks)) - 1)
        work()
        for _ in tasks:
            over.get()
    except BaseException:
        left.clear()
        raise
    if errors:
        raise errors[0]


def _next(left: deque[Callable[[], object]]) -> Callable[[], object] | None:
    try:
        return left.popleft()
    except IndexError:
        return None
