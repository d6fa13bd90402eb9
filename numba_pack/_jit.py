"""The one compile policy: every compiled function of the package is made by one of these.

``jit`` makes an entry: a function that Python calls, or that a user's own ``@njit`` code calls. Entries
are compiled lazily, cached on disk (``_cache.py``), release the GIL, and divide as IEEE 754 does
(``error_model="numpy"``: a branch for division by zero would also keep LLVM from vectorising).

``inner`` marks a function that only compiled code calls. It stays plain Python until an entry that uses it is compiled,
and its code becomes part of that entry (``_inner.py``); so does that of what ``overload`` gives. Entries built over
``inner`` functions are found again in the disk cache by a new process; entries built over other ``@njit`` dispatchers
held in closures are not.

``by_address`` makes a function that compiled code calls by its address. Numba compiles an ``inner`` function once more
for every level of functions around it; what is large and used everywhere is better called by its address. It has two:
at ``address`` is a C function, which can raise nothing; at ``native`` a function as Numba's own call each other, whose
caller raises what it raises: see ``call_address``.

Numba must not be interrupted: what a signal handler raises in it, as Ctrl-C does, would leave locks that nobody
releases and tables that are half filled. It also needs a larger stack than some threads have. So code is compiled, or
loaded, in a thread of its own, to the end; whoever waits for that can be interrupted.

All are compiled even under ``NUMBA_DISABLE_JIT``, which users set to debug functions of their own: intrinsics have no
other form, and a layer in Python would take hours.
"""

from __future__ import annotations

import _thread
import atexit
import contextlib
import gc
import threading
from collections.abc import Callable, Iterator
from queue import Empty, SimpleQueue
from typing import Any

import numba.extending
import numpy.ma  # noqa: F401  Numba asks for it in a first call; an import that is interrupted may leave a lock locked
from numba.core import config, sigutils
from numba.core.ccallback import CFunc
from numba.core.compiler_lock import global_compiler_lock
from numba.core.registry import CPUDispatcher
from numba.extending import register_jitable

from ._ahead import missed, wait_for
from ._cache import SOURCES, Cache, tell, tell_of_wait
from ._forks import starting
from ._inner import EntryCompiler, InnerCompiler, fact
from ._sparing import sparing

__all__ = ["SOURCES", "by_address", "fact", "inner", "jit", "overload"]


@contextlib.contextmanager
def _compiling() -> Iterator[None]:
    """Have Numba compile. The lock keeps two threads from restoring each other's setting.

    And without looking for cycles: among the million objects that Numba makes, most of which it keeps, that takes a
    fifth of the time. They are old when it is done, so that they are looked at no sooner than all others.
    """
    with global_compiler_lock:
        before, config.DISABLE_JIT = config.DISABLE_JIT, 0
        collects = gc.isenabled()
        gc.disable()
        try:
            with sparing():
                yield
        finally:
            config.DISABLE_JIT = before
            if collects:
                gc.collect(0)
                if not gc.get_freeze_count():
                    gc.freeze()
                    gc.unfreeze()
                gc.enable()


#: the interpreter waits for this lock at its end, and keeps it: a thread that still compiled would be torn out of LLVM
atexit.register(global_compiler_lock.acquire)


class _Here(threading.local):
    """Whether this thread was started to compile."""

    compiles = False


_here = _Here()
#: bytes, known to be enough for the recursions of Numba and LLVM
_STACK = 16 << 20
#: seconds after which a call says what it waits for: what was compiled before is loaded in less
_PATIENCE = 1.0


def _undisturbed(compile: Callable[[], Any]) -> Any:
    """Call a function that compiles, in a thread of its own unless this one compiles already; return its result."""
    if _here.compiles:
        return compile()
    result = compile() if global_compiler_lock.is_locked() else _apart(compile)
    tell()
    return result


def _apart(compile: Callable[[], Any]) -> Any:
    over: SimpleQueue[tuple[Any, BaseException | None]] = SimpleQueue()

    def run() -> None:
        _here.compiles = True
        try:
            over.put((compile(), None))
        except BaseException as error:
            over.put((None, error))

    try:
        with starting:
            before = threading.stack_size()
            try:
                if 0 < before < _STACK:  # the program has set one for all threads
                    threading.stack_size(_STACK)
                _thread.start_new_thread(run, ())  # in one step, unlike `threading.Thread`: see `cpu/threads.py`
            finally:
                threading.stack_size(before)
    except RuntimeError:  # the system has no thread left, or the interpreter is ending
        return compile()
    try:
        result, error = over.get(timeout=_PATIENCE)
    except Empty:
        tell_of_wait()
        result, error = over.get()
    if error is not None:
        raise error
    return result


class _Kept(Cache):
    def load_overload(self, sig: Any, target_context: Any) -> Any:
        found = super().load_overload(sig, target_context)
        if found is None:
            missed()
        return found


class _Entry(CPUDispatcher):
    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._cache = _Kept(self.py_func)

    def _compilation_chain_init_hook(self) -> None:
        """Nothing: what extends Numba is imported where it compiles, and so is not interrupted either."""

    def compile(self, sig: Any) -> Any:
        def compile() -> Any:
            wait_for(self.py_func.__name__)
            with _compiling():
                return super(_Entry, self).compile(sig)

        return _undisturbed(compile)


def jit(function: Any) -> Any:
    """Make an entry: see above."""
    options = {"nopython": True, "nogil": True, "error_model": "numpy", "boundscheck": None}
    return _Entry(function, targetoptions=options, pipeline_class=EntryCompiler)


class _ByAddress(CFunc):
    #: what it may have been asked for by: see `_ahead`
    key: Any
    #: the address of the function that the C function wraps
    native: int

    def compile(self: Any) -> None:
        wait_for(self.key)
        with _compiling():
            context = self._targetdescr.target_context
            made = self._cache.load_overload(self._sig, context)
            if made is None:
                made = self._compile_uncached()
                self._cache.save_overload(self._sig, made)
            self._library = made.library
            self._wrapper_name = made.fndesc.llvm_cfunc_wrapper_name
            self._wrapper_address = self._library.get_pointer_to_function(self._wrapper_name)
            self.native = self._library.get_pointer_to_function(made.fndesc.llvm_func_name)


def by_address(signature: Any, key: Any = None) -> Callable[[Any], Any]:
    """Make a function of this signature: see above. The cache may know what its closure holds by a key instead.

    Its name and the key are what it can be asked for by (``_ahead.py``).
    """

    def make(function: Any) -> Any:
        made: Any = _ByAddress(
            function, sigutils.normalize_signature(signature), {}, {"error_model": "numpy"}, EntryCompiler
        )
        made._cache, made.key = _Kept(function, key), (function.__name__, key)
        _undisturbed(made.compile)
        return made

    return make


#: no way in from Python, and no machine code
_INNER: dict[str, Any] = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True, "pipeline_class": InnerCompiler}
inner = register_jitable(error_model="numpy", **_INNER)


def overload(function: Any, **options: Any) -> Any:
    """Numba's ``overload``, whose functions are as ``inner`` ones."""
    return numba.extending.overload(function, jit_options=_INNER, **options)
