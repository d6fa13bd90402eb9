"""Where the machine code of kernels is kept, so that a later process need not compile them: as in ``_cache.py``.

A file holds the code as the driver takes it, with all that it was linked to, and the key that it was made for: what the
kernel is made of, the types of its arguments, the device's compute capability, and the versions of the compilers.
"""

from __future__ import annotations

import contextlib
import functools
import pickle
import sys
from importlib.metadata import version
from types import CodeType, FunctionType, ModuleType
from typing import Any, NamedTuple

import numpy as np
from cuda.bindings import driver
from cuda.core import ObjectCode
from numba import cuda, types
from numba.core.serialize import dumps
from numba.cuda.cudadrv.nvvm import NVVM

from .._cache import file_of, found, keep

__all__ = ["Loaded", "key_of", "load", "made_of"]

_PACKAGE = __name__.partition(".")[0]
#: what is told by its type and how it is written
_PLAIN = (bool, int, float, complex, str, bytes, type(None), type(...), np.generic, np.dtype, types.Type)


class Loaded(NamedTuple):
    """A kernel on the device, and what must live as long."""

    #: a `CUkernel`, and what unloads it when nothing refers to it any more
    kernel: Any
    owner: Any
    #: bytes of shared memory beside those that a launch asks for
    shared: int


def load(function: Any, signature: tuple[types.Type, ...]) -> Loaded:
    """The kernel that Numba makes of a function: of the code that is kept, or else compiled, and then kept."""
    key = key_of(function, signature)
    file = file_of(f"{function.__module__}.{function.__name__}", key, "nbd")
    for content in found(file):
        with contextlib.suppress(Exception):  # a driver may refuse it
            of, code = pickle.loads(content)
            if of == key:
                return _on_device(*code)
    compiled = function.compile(signature)
    library = compiled.library
    code = bytes(library.get_cubin().code), compiled.entry_name
    if not library.referenced_objects and not library._setup_functions:  # they are in this process only
        keep(file, pickle.dumps((key, code)))
    return _on_device(*code)


def _on_device(code: bytes, name: str) -> Loaded:
    owner = ObjectCode.from_cubin(code)
    kernel = driver.CUkernel(int(owner.get_kernel(name).handle))
    device = cuda.get_current_device().id
    # the driver may read the code no sooner than something is asked of it
    attribute = driver.CUfunction_attribute.CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES
    error, shared = driver.cuKernelGetAttribute(attribute, kernel, device)
    if error:
        raise RuntimeError(f"CUDA: {error.name}")
    return Loaded(kernel, owner, shared)


# ---- keys ------------------------------------------------------------------------------------------------------------


def key_of(function: Any, signature: tuple[types.Type, ...]) -> str:
    """All that the code of a kernel depends on, besides the sources of this package, for the current device."""
    capability = tuple(cuda.get_current_device().compute_capability)
    options = sorted((name, repr(value)) for name, value in function.targetoptions.items())
    return repr((made_of(function.py_func), [str(kind) for kind in signature], options, capability, _compilers()))


@functools.cache
def _compilers() -> tuple[Any, ...]:
    linker: Any = None
    with contextlib.suppress(Exception):  # where it is not there, the driver links
        from cuda.bindings import nvjitlink

        linker = nvjitlink.version()
    nvvm, python = NVVM(), (sys.implementation.cache_tag, sys.flags.optimize > 0)
    return version("numba-cuda"), nvvm.get_version(), nvvm.get_ir_version(), cuda.runtime.get_version(), linker, python


def made_of(value: Any, within: tuple[Any, ...] = ()) -> Any:
    """What tells a function from all others, the same in every process: its name, what it holds, and its code.

    The code of a function of this package is told by the state of the sources. Pickled, functions would be others in
    each process: a pickle tells where a text is there twice.
    """
    if isinstance(value, _PLAIN):
        return type(value).__name__, str(value) if isinstance(value, types.Type) else repr(value)
    if isinstance(value, (tuple, list)):
        return type(value).__qualname__, [made_of(part, within) for part in value]
    if isinstance(value, dict):
        return "dict", [(made_of(name, within), made_of(part, within)) for name, part in value.items()]
    if isinstance(value, frozenset):
        return "set", sorted(repr(made_of(part, within)) for part in value)
    if isinstance(value, CodeType):
        names = value.co_names, value.co_varnames, value.co_freevars, value.co_cellvars
        return "code", value.co_flags, value.co_argcount, value.co_code, names, made_of(value.co_consts, within)
    if isinstance(value, ModuleType):
        return "module", value.__name__
    for i, outer in enumerate(within):
        if value is outer:  # it calls itself
            return "within", i
    if isinstance(value, FunctionType):
        return _made_of_function(value, (*within, value))
    module, name = str(getattr(value, "__module__", "")), str(getattr(value, "__qualname__", ""))
    if getattr(sys.modules.get(module), name, None) is value:
        return module, name
    wrapped = getattr(value, "py_func", None) or getattr(value, "__wrapped__", None)
    if wrapped is not None:
        return type(value).__qualname__, made_of(wrapped, (*within, value))
    return "pickle", dumps(value)


def _made_of_function(function: FunctionType, within: tuple[Any, ...]) -> Any:
    code, names = function.__code__, function.__globals__
    held = tuple(cell.cell_contents for cell in function.__closure__ or ())
    told = function.__qualname__, code.co_firstlineno, made_of((held, function.__defaults__), within)
    if names.get("__name__", "").partition(".")[0] == _PACKAGE:
        return names["__name__"], *told
    used = {name: names[name] for name in sorted(_names(code)) if name in names}
    return "", *told, made_of(code), made_of((used, function.__kwdefaults__), within)


def _names(code: CodeType) -> set[str]:
    """The names that a function may read outside, and those within it."""
    inside = [_names(part) for part in code.co_consts if isinstance(part, CodeType)]
    return set(code.co_names).union(*inside)
