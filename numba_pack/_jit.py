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

import functools

from numba import cfunc, njit
from numba.extending import register_jitable

__all__ = ["by_address", "inner", "jit"]

jit = functools.partial(njit, cache=True, nogil=True, error_model="numpy")
inner = register_jitable(error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True)
by_address = functools.partial(cfunc, cache=True, error_model="numpy")
