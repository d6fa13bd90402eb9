"""The device, or the simulator in its place: its memory, the stream that work goes to, and the sizes of blocks.

Everything here is enqueued and nothing waits, but for `to_host`, whose result is read at once.
"""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Callable, Iterator
from importlib.metadata import version
from typing import Any, NamedTuple

import numpy as np
from numba import cuda, types
from numba.core import config

from .._jit import jit

__all__ = [
    "MOST_BLOCKS",
    "REAL",
    "SIMULATED",
    "Kernel",
    "ceil_div",
    "described",
    "empty",
    "formula",
    "memoized",
    "nothing",
    "stream",
    "to_device",
    "to_host",
    "use_stream",
    "wait_for",
]

#: kernels run as Python code, one Python thread for each of theirs
SIMULATED = bool(config.ENABLE_CUDASIM)

#: blocks along the second axis of a grid at most, a limit of CUDA: kernels go on with the work of those beyond
MOST_BLOCKS = 2 if SIMULATED else 65535
#: the dtypes that kernels compute in, as Numba's types
REAL = {np.dtype(np.float32): types.float32, np.dtype(np.float64): types.float64}

_OUT_OF_MEMORY = 2  # CUDA_ERROR_OUT_OF_MEMORY
_local = threading.local()


@functools.cache
def formula(function: Callable[..., Any], dtype: np.dtype[Any] | None = None) -> Callable[..., Any]:
    """A formula of a cell, whose numbers are of this dtype, or of ``cells/dropout.py``, as a kernel calls it.

    On a device it is compiled into the kernel as it is. The simulator's kernels are not compiled, and intrinsics are
    nothing to Python, so there the same formula is compiled for the CPU.
    """
    if not SIMULATED:
        return function

    def call(*arguments):  # formulas of all cells bear the same names: the disk cache tells them by this closure
        return function(*arguments)

    compiled = jit(call)
    return compiled if dtype is None else lambda *arguments: _in_dtype(compiled(*arguments), dtype.type)


def _in_dtype(value: Any, kind: type) -> Any:
    """Numbers that compiled code returned to Python, which it makes Python's own, as they were."""
    return tuple(_in_dtype(part, kind) for part in value) if isinstance(value, tuple) else kind(value)


def described() -> dict[str, str]:
    """What a bug report needs to know of the device."""
    if SIMULATED:
        return {"device": "none: Numba's simulator of CUDA"}
    device, (major, minor) = cuda.get_current_device(), cuda.runtime.get_version()
    capability = ".".join(map(str, device.compute_capability))
    _, total = cuda.current_context().get_memory_info()
    name = device.name.decode() if isinstance(device.name, bytes) else device.name
    return {
        "device": f"{name}, compute capability {capability}, {device.MULTIPROCESSOR_COUNT} multiprocessors, "
        f"{total >> 20} MiB",
        "CUDA": f"{major}.{minor}, numba-cuda {version('numba-cuda')}",
    }


def memoized(make: Callable[..., Any]) -> Callable[..., Any]:
    """A factory of kernels that makes each once."""
    made: dict[Any, Any] = {}

    def get(*key: Any) -> Any:
        if key not in made:
            made[key] = make(*key)
        return made[key]

    get.__doc__, get.made, get.make = make.__doc__, made, make  # type: ignore[attr-defined]
    return get


class Kernel(NamedTuple):
    """A kernel and the types of its arguments: it is compiled for these and no others."""

    function: Any
    signature: tuple[types.Type, ...]

    def launch(self, grid: Any, block: Any, *arguments: Any, shared: int = 0) -> None:
        """Enqueue it, with so many bytes of dynamic shared memory."""
        self.function[grid, block, stream(), shared](*arguments)

    def resident(self, block: tuple[int, int, int], shared: int) -> int:
        """How many blocks of this size can be on the device at once, as a barrier for all of them demands."""
        if SIMULATED:
            return 1
        self.function.compile(self.signature)
        kernel = self.function.overloads[self.signature]
        return int(kernel.max_cooperative_grid_blocks(block, shared))


def ceil_div(a: int, b: int) -> int:
    """How many times b it takes to hold a."""
    return -(-a // b)


# ---- streams ---------------------------------------------------------------------------------------------------------


@functools.cache
def _default_stream() -> Any:
    return cuda.stream() if SIMULATED else cuda.legacy_default_stream()


def stream() -> Any:
    """The stream that this thread's calls are enqueued on: CUDA's default stream, or that of `use_stream`.

    It is never 0, with which Numba means the same stream but waits for every copy.
    """
    return getattr(_local, "stream", None) or _default_stream()


@contextlib.contextmanager
def use_stream(of_calls: Any) -> Iterator[None]:
    """Enqueue what is called within the block, in this thread, on a stream of ``numba.cuda``.

    Parameters
    ----------
    of_calls : stream
        What ``numba.cuda.stream()`` returns; ``numba.cuda.external_stream(pointer)`` for one of another library.
    """
    before = getattr(_local, "stream", None)
    _local.stream = of_calls
    try:
        yield
    finally:
        _local.stream = before


def wait_for(other: Any) -> None:
    """Enqueue what follows behind what another stream holds; 0 for none. The host does not wait."""
    if other and other is not stream():
        reached = cuda.event()
        reached.record(other)
        reached.wait(stream())


# ---- memory ----------------------------------------------------------------------------------------------------------


def empty(shape: int | tuple[int, ...], dtype: Any) -> Any:
    """An uninitialised device array. Raises MemoryError where the device has no room left; nothing is lost then."""
    with _memory_errors(shape, dtype):
        return cuda.device_array(shape, dtype, stream=stream())


def to_device(array: np.ndarray) -> Any:
    """A copy of an array on the device."""
    with _memory_errors(array.shape, array.dtype):
        return cuda.to_device(array, stream=stream())


def to_host(array: Any) -> np.ndarray:
    """A copy of a device array as a NumPy array, once all that was enqueued before it is done."""
    host = array.copy_to_host(stream=stream())
    stream().synchronize()
    return host


@contextlib.contextmanager
def _memory_errors(shape: Any, dtype: Any) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        if getattr(error, "code", None) != _OUT_OF_MEMORY:
            raise
        size = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
        raise MemoryError(
            f"the device has no room for an array of shape {shape} and dtype {dtype}, {size} bytes"
        ) from None


@memoized
def nothing(dtype: np.dtype[Any]) -> Any:
    """An empty matrix on the device, for what is not there."""
    return empty((0, 0), dtype)
