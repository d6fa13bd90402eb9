"""The one compile policy: every compiled function of the package is made by one of these.

``jit`` makes an entry: a function that Python calls, or that a user's own ``@njit`` code calls. Entries
are compiled lazily, cached on disk, release the GIL, and divide as IEEE 754 does (``error_model="numpy"``:
a branch for division by zero would also keep LLVM from vectorising).

``inner`` marks a function that only compiled code calls. It stays plain Python until an entry that uses it is
compiled, and its code becomes part of that entry. Entries built over ``inner`` functions are found again in
the disk cache by a new process; entries built over other ``@njit`` dispatchers held in closures are not.

``by_address`` makes a C function, which compiled code calls by its address. Numba compiles what is ``inner`` once for
every level of the functions around it; what is large and used everywhere is better called from outside.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable
from typing import Any

from numba import cfunc, njit
from numba.extending import register_jitable

from . import _forks  # noqa: F401 -- what compiles must be known to forks

__all__ = ["SOURCES", "by_address", "inner", "jit"]


def _state(package: str) -> str:
    """A number, in hexadecimal, that another state of a package's sources does not have."""
    stats = []
    for folder, folders, files in os.walk(package):
        folders[:] = sorted(set(folders) - {"__pycache__"})
        for file in sorted(files):
            if file.endswith(".py"):
                stat = os.stat(os.path.join(folder, file))
                stats.append((file, stat.st_size, int(stat.st_mtime)))
    return format(zlib.crc32(repr(stats).encode()), "08x")


#: tells apart the states of the sources, in hexadecimal
SOURCES = _state(os.path.dirname(__file__))


def _of_this_state(function: Any) -> Any:
    """Have the disk cache find only what was compiled from the sources as they are.

    Numba looks at one file to judge whether something is stale, the one that defines the entry; but an entry is made of
    functions of many files. So its name, under which the cache keeps it, tells the state of all of them.
    """
    function.__qualname__ += "_" + SOURCES
    return function


def jit(function: Any) -> Any:
    """Make an entry: see above."""
    return njit(cache=True, nogil=True, error_model="numpy")(_of_this_state(function))


def by_address(signature: Any) -> Callable[[Any], Any]:
    """Make a C function of this signature: see above."""
    make = cfunc(signature, cache=True, error_model="numpy")
    return lambda function: make(_of_this_state(function))


inner = register_jitable(error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True)
