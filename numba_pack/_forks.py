"""Forks wait until no other thread compiles.

A forked process has only the thread that forked. Were another one compiling meanwhile, its locks, Numba's and LLVM's
own, would be held in the child by nobody, for ever, and what it was about to change would be left half done. So a
thread that forks takes the locks first, as it does that of ``import``; both processes release them.
"""

import os

from llvmlite.binding.ffi import lib
from numba.core.compiler_lock import global_compiler_lock

#: in the order in which a thread that compiles takes them
_LOCKS = [global_compiler_lock, lib._lock]


def _take() -> None:
    for lock in _LOCKS:
        lock.__enter__()


def _release() -> None:
    for lock in reversed(_LOCKS):
        lock.__exit__(None, None, None)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_take, after_in_parent=_release, after_in_child=_release)
