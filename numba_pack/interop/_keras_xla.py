"""How what XLA has compiled calls Python in place: on the arrays where they are, of which nothing is copied.

``jax.pure_callback`` would copy each array that goes in, weights among them, which takes longer than many layers run.
What XLA calls is a function of C with one argument, a call frame, whose fields are read here by their offsets. XLA
refuses a function that was written for another major version of these (``xla/ffi/api/c_api.h``); `register` tells so.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

__all__ = ["register"]

_MAJOR, _MINOR = 0, 1
_METADATA, _EXECUTE = 1, 3
_INTERNAL = 13
_DTYPES = {1: np.dtype(bool), 11: np.dtype(np.float32), 12: np.dtype(np.float64)}


class _Head(ctypes.Structure):
    """What each structure begins with."""

    _fields_ = [("size", ctypes.c_size_t), ("extension", ctypes.c_void_p)]


class _Extension(ctypes.Structure):
    _fields_ = [("size", ctypes.c_size_t), ("type", ctypes.c_int), ("next", ctypes.c_void_p),
                ("metadata", ctypes.c_void_p)]  # fmt: skip


class _Version(_Head):
    _fields_ = [("major", ctypes.c_int), ("minor", ctypes.c_int)]


class _Metadata(ctypes.Structure):
    _fields_ = [("size", ctypes.c_size_t), ("version", _Version), ("traits", ctypes.c_uint32)]


class _Buffer(_Head):
    _fields_ = [("dtype", ctypes.c_int), ("data", ctypes.c_void_p), ("rank", ctypes.c_int64),
                ("dims", ctypes.POINTER(ctypes.c_int64))]  # fmt: skip


class _Buffers(_Head):
    """The arguments, or the results."""

    _fields_ = [("count", ctypes.c_int64), ("types", ctypes.c_void_p),
                ("those", ctypes.POINTER(ctypes.POINTER(_Buffer)))]  # fmt: skip


class _Scalar(ctypes.Structure):
    _fields_ = [("dtype", ctypes.c_int), ("value", ctypes.POINTER(ctypes.c_int64))]


class _Attributes(_Head):
    _fields_ = [("count", ctypes.c_int64), ("types", ctypes.c_void_p), ("names", ctypes.c_void_p),
                ("those", ctypes.POINTER(ctypes.POINTER(_Scalar)))]  # fmt: skip


class _ErrorOf(_Head):
    _fields_ = [("message", ctypes.c_char_p), ("code", ctypes.c_int)]


_MakeError = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.POINTER(_ErrorOf))


class _Api(_Head):
    """The first of XLA's own functions."""

    _fields_ = [("version", _Version), ("internal", ctypes.c_void_p), ("make_error", _MakeError)]


class _Frame(_Head):
    _fields_ = [("api", ctypes.POINTER(_Api)), ("context", ctypes.c_void_p), ("stage", ctypes.c_int),
                ("arguments", _Buffers), ("results", _Buffers), ("attributes", _Attributes)]  # fmt: skip


_Handler = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.POINTER(_Frame))
#: by the names of targets; what C calls must not go away
_kept: dict[str, Any] = {}


def register(name: str, function: Callable[[int, list[np.ndarray], list[np.ndarray]], None]) -> bool:
    """Have ``jax.ffi.ffi_call(name, ...)(*arrays, number=...)`` call a function of Python.

    Parameters
    ----------
    name : str
    function : callable
        It gets the number, the arrays, and the arrays that it is to fill. An error that it raises is XLA's then.

    Returns
    -------
    bool
        Whether that goes with this version of jax.
    """

    def handler(pointer: Any) -> int | None:
        frame = pointer.contents
        if frame.extension:
            extension = _Extension.from_address(frame.extension)
            if extension.type == _METADATA:
                version = _Metadata.from_address(extension.metadata).version
                version.major, version.minor = _MAJOR, _MINOR
                return None
        if frame.stage != _EXECUTE:
            return None
        try:
            number = frame.attributes.those[0].contents.value[0]
            function(number, _arrays(frame.arguments), _arrays(frame.results))
        except BaseException as error:  # none can go on through XLA
            told = _ErrorOf(ctypes.sizeof(_ErrorOf), None, repr(error).encode(), _INTERNAL)
            made: int = frame.api.contents.make_error(told)
            return made
        return None

    try:
        found = _Handler(handler)
        jax.ffi.register_ffi_target(name, jax.ffi.pycapsule(found), platform="cpu")
    except Exception:  # of whichever version
        return False
    _kept[name] = found
    return True


def _arrays(buffers: _Buffers) -> list[np.ndarray]:
    return [_array(buffers.those[i].contents) for i in range(buffers.count)]


def _array(buffer: _Buffer) -> np.ndarray:
    dtype, shape = _DTYPES[buffer.dtype], buffer.dims[: buffer.rank]
    size = dtype.itemsize
    for length in shape:
        size *= length
    if not size:
        return np.empty(shape, dtype)
    memory: Any = (ctypes.c_char * size).from_address(buffer.data)
    return np.ndarray(shape, dtype, memory)
