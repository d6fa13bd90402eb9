"""How many threads work on a call, and the pool they come from.

Kernels are serial and release the GIL; a call with enough work is divided into parts, each of some of the sequences,
which run on a pool of Python threads. The pool is made when first needed, and made anew in a forked process, where
the threads of the parent do not exist. Any number of Python threads may share it: what waits in it never waits for
more of it.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from .._checks import as_integer

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
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
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
        process may use.

    Raises
    ------
    TypeError, ValueError
        If n is no integer from 1 to 4096.

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
    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.executor: ThreadPoolExecutor | None = None
        self.size = 0

    def submit(self, work: Callable[[], object], count: int) -> None:
        """Have ``count`` threads do the work, or fewer if there are to be no more; the pool only grows."""
        with self.lock:
            if self.executor is None or self.size < count:
                former, self.executor = self.executor, ThreadPoolExecutor(count, "numba_pack")
                self.size = count
                if former is not None:
                    former.shutdown(wait=False)  # its threads end when they have done what they hold
            try:
                for _ in range(count):
                    self.executor.submit(work)
            except RuntimeError:  # the interpreter is ending, or the system has no thread left: the caller is one
                pass


_pool = _Pool()


def _forget_pool() -> None:
    global _pool
    _pool = _Pool()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_pool)


def run(tasks: Sequence[Callable[[], object]], workers: int) -> None:
    """Run all tasks on at most ``workers`` threads, of which the caller's is one.

    Returns when all have ended. An error in one, Ctrl-C too, keeps those that have not begun from beginning, and is
    raised when those that have are over.
    """
    if workers <= 1 or len(tasks) == 1:
        for task in tasks:
            task()
        return
    left, running, errors = iter(tasks), 0, []
    change = threading.Condition()  # of these

    def work() -> None:
        nonlocal left, running
        while True:
            with change:
                task = next(left, None)
                if task is None:
                    return
                running += 1
            try:
                task()
            except BaseException as error:
                errors.append(error)
                left = iter(())
            finally:
                with change:
                    running -= 1
                    change.notify()

    _pool.submit(work, min(workers, len(tasks)) - 1)
    work()
    with change:
        change.wait_for(lambda: running == 0)
    if errors:
        raise errors[0]
