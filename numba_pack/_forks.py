"""Forks wait until no other thread compiles.

A forked process has only the thread that forked. Were another one compiling meanwhile, its locks, Numba's and LLVM's
own, would be held in the child by nobody, for ever, and what it was about to change would be left half done. So a
thread that forks takes the locks first, as it does that of ``import``; both processes release them.

The wait may last for seconds. What a signal handler raises in it, as Ctrl-C does, must not end it: Python would go on,
and fork. Ctrl-C is raised when the fork is over.
"""

import _thread
import os
import threading
from collections.abc import Callable
from typing import Any

from llvmlite.binding.ffi import lib
from numba.core.compiler_lock import global_compiler_lock

__all__ = ["starting"]

#: held while a thread is started that compiles
starting = threading.RLock()
#: in the order in which a thread that compiles takes them
_LOCKS: list[Any] = [starting, global_compiler_lock._lock, lib._lock._lock]
#: by thread, what it took when it forked: not what it had, if it was compiling itself
_taken: dict[int, list[Any]] = {}
_interrupts: list[BaseException] = []


def _surely(step: Callable[[], object]) -> None:
    """Do it, again if it is interrupted, in which there must be no harm."""
    for _ in range(100):  # what fails ever again is no interrupt
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
        # by another thread, when this one has left the fork: Python ignores what is raised here
        _thread.start_new_thread(_thread.interrupt_main, ())
    elif interrupts:
        raise interrupts[0]  # which Python says that it ignores


def _release_in_child() -> None:
    _release()
    _taken.clear()  # of threads that are not here
    _interrupts.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_take, after_in_parent=_release_in_parent, after_in_child=_release_in_child)
