"""Forks wait until no other thread compiles.

A forked process has only the thread that forked. If another one was compiling just then, its locks, Numba's and LLVM's
own, would stay locked in the child for ever, and what it was changing would be left half done. So a thread that forks
takes these locks first, as Python takes that of ``import``; both processes release them.

The wait may last for seconds. What a signal handler raises during it, as Ctrl-C does, must not end it: Python would go
on and fork. Ctrl-C is raised when the fork is over.
"""

import _thread
import concurrent.futures.thread  # noqa: F401  which has calls of its own around forks, and what is compiled may import it
import os
import threading
from collections.abc import Callable
from typing import Any
from weakref import WeakSet

from llvmlite.binding.ffi import lib
from numba.core.compiler_lock import global_compiler_lock

__all__ = ["starting", "tell_of_forks"]

#: held while a thread that compiles is being started
starting = threading.RLock()
#: in the order in which a thread that compiles takes them
_LOCKS: list[Any] = [starting, global_compiler_lock._lock, lib._lock._lock]
#: by thread, the locks that it took to fork, without those that it held already as it was compiling
_taken: dict[int, list[Any]] = {}
_interrupts: list[BaseException] = []
#: what has locks of its own, which other threads may hold that a child does not have
_told: WeakSet[Any] = WeakSet()


def tell_of_forks(owner: Any) -> None:
    """Have ``owner._forked()`` called in each process that is forked, for as long as the owner is there."""
    _told.add(owner)


def _surely(step: Callable[[], object]) -> None:
    """Do a step, and do it again if it is interrupted: to repeat it must do no harm."""
    for _ in range(100):  # what fails every time was not interrupted
        try:
            step()
            return
        except BaseException as error:
            _interrupts.append(error)


def _missing(locks: list[Any]) -> list[Any]:
    return [lock for lock in locks if not lock._is_owned()]


def _take() -> None:
    here = _thread.get_ident()

    def take() -> None:
        for lock in _missing(_taken.setdefault(here, _missing(_LOCKS))):
            lock.acquire()

    _surely(take)


def _release() -> None:
    here = _thread.get_ident()

    def release() -> None:
        for lock in reversed(_taken.get(here, [])):
            if lock._is_owned():
                lock.release()
        _taken.pop(here, None)

    _surely(release)


def _release_in_parent() -> None:
    _release()
    interrupts = _interrupts[:]
    _interrupts.clear()
    if any(isinstance(error, KeyboardInterrupt) for error in interrupts):
        # raised by another thread when this one has left the fork: Python ignores what is raised here
        _thread.start_new_thread(_thread.interrupt_main, ())
    elif interrupts:
        raise interrupts[0]  # Python reports it, and ignores it


def _release_in_child() -> None:
    _release()
    _taken.clear()  # by threads that are not in the child
    _interrupts.clear()
    for owner in _told:
        owner._forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_take, after_in_parent=_release_in_parent, after_in_child=_release_in_child)
