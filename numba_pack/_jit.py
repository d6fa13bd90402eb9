"""The one compile policy: every compiled function of the package is made by one of these.

``jit`` makes an entry: a function that Python calls, or that a user's own ``@njit`` code calls. Entries
are compiled lazily, cached on disk (``_cache.py``), release the GIL, and divide as IEEE 754 does
(``error_model="numpy"``: a branch for division by zero would also keep LLVM from vectorising).

``inner`` marks a function that only compiled code calls. It stays plain Python until an entry that uses it is
compiled, and its code becomes part of that entry. Entries built over ``inner`` functions are found again in
the disk cache by a new process; entries built over other ``@njit`` dispatchers held in closures are not.

``by_address`` makes a C function, which compiled code calls by its address. Numba compiles what is ``inner`` once for
every level of the functions around it; what is large and used everywhere is better called from outside.

All are compiled also under ``NUMBA_DISABLE_JIT``, which users set to debug functions of their own: intrinsics have no
other form, and a layer in Python would take hours.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from numba.core import config, sigutils
from numba.core.ccallback import CFunc
from numba.core.compiler_lock import global_compiler_lock
from numba.core.registry import CPUDispatcher
from numba.extending import register_jitable

from . import _forks  # noqa: F401 -- what compiles must be known to forks
from ._cache import SOURCES, Cache

__all__ = ["SOURCES", "by_address", "inner", "jit"]


@contextlib.contextmanager
def _jit_enabled() -> Iterator[None]:
    """Have Numba compile. The lock keeps two threads from restoring each other's setting."""
    with global_compiler_lock:
        before, config.DISABLE_JIT = config.DISABLE_JIT, 0
        try:
            yield
        finally:
            config.DISABLE_JIT = before


class _Entry(CPUDispatcher):
    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._cache = Cache(self.py_func)

    def compile(self, sig: Any) -> Any:
        with _jit_enabled():
            return super().compile(sig)


def jit(function: Any) -> Any:
    """Make an entry: see above."""
    options = {"nopython": True, "nogil": True, "error_model": "numpy", "boundscheck": None}
    return _Entry(function, targetoptions=options)


def by_address(signature: Any) -> Callable[[Any], Any]:
    """Make a C function of this signature: see above."""

    def make(function: Any) -> Any:
        made: Any = CFunc(function, sigutils.normalize_signature(signature), {}, {"error_model": "numpy"})
        made._cache = Cache(function)
        with _jit_enabled():
            made.compile()
        return made

    return make


inner = register_jitable(error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True)
