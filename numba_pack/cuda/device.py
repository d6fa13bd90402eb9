"""The device, or the simulator in its place: its memory, the stream that work goes to, and its kernels.

Everything here is enqueued and nothing waits, but for `to_host`, whose result is read at once.

Each call of the host counts, since a small batch takes the device no longer than a hundred of them: so arrays are an
`Array`, an address and a shape, and kernels are launched by the driver itself (``launch.py``). Memory comes from a pool
that is ordered by streams, and returns to it on the stream that it was made on. In the simulator arrays are Numba's.
"""

from __future__ import annotations

import contextlib
import functools
import math
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from importlib.metadata import version
from typing import Any

import numpy as np
from numba import cuda, types
from numba.core import config

from .._cache import tell
from .._jit import jit

__all__ = [
    "MOST_BLOCKS", "REAL", "SIMULATED", "Array", "Kernel", "as_numba", "can_read", "ceil_div", "copy", "described",
    "empty", "follow", "formula", "jit_kernel", "memoized", "multiprocessors", "nothing", "shared_limit",
    "side_by_side", "stream", "to_device", "to_host", "use_stream", "view_of", "wait_for", "zeros",
]  # fmt: skip

#: kernels run as Python code, one Python thread for each of theirs
SIMULATED = bool(config.ENABLE_CUDASIM)

if not SIMULATED:
    from cuda.bindings import driver
    from cuda.core import Device, Stream
    from numba.cuda.cudadrv.devicearray import DeviceNDArray
    from numba.cuda.cudadrv.driver import MemoryPointer

    from .keep import load
    from .launch import Launcher, checked, strides_of

#: blocks along the second axis of a grid at most, a limit of CUDA: kernels go on with the work of those beyond
MOST_BLOCKS = 2 if SIMULATED else 65535
#: the dtypes that kernels compute in, as Numba's types
REAL = {np.dtype(np.float32): types.float32, np.dtype(np.float64): types.float64}

#: what a block of the simulator may have of shared memory: what one of a device has unless it asks for more
_SHARED = 48 << 10
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


def multiprocessors() -> int:
    """Those that this process may use of the device: with MIG those of its part, with MPS those of its share."""
    return 1 if SIMULATED else int(cuda.get_current_device().MULTIPROCESSOR_COUNT)


def shared_limit() -> int:
    """Bytes of shared memory that a block may ask for at most."""
    return _SHARED if SIMULATED else int(cuda.get_current_device().MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)


class Kernel:
    """A kernel and the types of its arguments: it is compiled for these and no others.

    The blocks of one that is ``together`` wait for each other. So all must be on the device at once, and the driver is
    asked to see to it: a launch of more blocks than there is room for fails, and does not hang.
    """

    def __init__(self, function: Any, signature: tuple[types.Type, ...], together: bool = False) -> None:
        self.function, self.signature, self.together = function, signature, together
        self._launcher: Any = None
        self._loading = threading.Lock()
        self._resident: dict[Any, int] = {}

    def _loaded(self) -> Any:
        """What launches it."""
        with self._loading:  # by one thread: a kernel is unloaded when nothing refers to it any more
            if self._launcher is None:
                loaded = load(self.function, self.signature)
                self._launcher = Launcher(loaded, self.signature, self.together, shared_limit())
        tell()
        return self._launcher

    def launch(self, grid: Any, block: Any, *arguments: Any, shared: int = 0) -> None:
        """Enqueue it, with so many bytes of dynamic shared memory. Sizes are numbers, or tuples of up to three."""
        if SIMULATED:
            self.function[grid, block, stream(), shared](*arguments)
        else:
            place, launcher = _here(), self._launcher or self._loaded()
            launcher(place.pointer, (*_three(grid), *_three(block)), shared, arguments)

    def resident(self, threads: int, shared: int) -> int:
        """How many blocks of so many threads can be on the device at once, as those that wait for each other must."""
        if SIMULATED:
            return 1
        found = self._resident.get((threads, shared))
        if found is None:
            _here()
            each = self._loaded().resident(threads, shared)
            found = self._resident[threads, shared] = each * multiprocessors()
        return found


def jit_kernel(threads: int) -> Any:
    """``cuda.jit`` of a kernel whose blocks have so many threads: the registers are divided among these."""
    return cuda.jit if SIMULATED else cuda.jit(launch_bounds=threads)


def _three(sizes: Any) -> tuple[int, ...]:
    return (sizes, 1, 1) if isinstance(sizes, int) else (*sizes, *(1,) * (3 - len(sizes)))


def ceil_div(a: int, b: int) -> int:
    """How many times b it takes to hold a."""
    return -(-a // b)


# ---- streams ---------------------------------------------------------------------------------------------------------


class _Place:
    """Where a thread's calls go: a stream of Numba's, and what is needed at each call of its context and its pool."""

    __slots__ = ("allocate", "context", "core", "pointer", "stream")

    def __init__(self, of_calls: Any) -> None:
        self.stream = of_calls
        if not SIMULATED:
            self.context = cuda.current_context()  # which becomes that of this thread
            self.pointer = _pointer(of_calls)
            self.core = Stream.from_handle(self.pointer)
            self.allocate = Device().memory_resource.allocate

    def wait_for(self, other: Any) -> None:
        """Enqueue what follows behind what another stream of Numba's holds."""
        reached = cuda.event()
        reached.record(other)
        reached.wait(self.stream)


def _here() -> Any:
    """The place of this thread."""
    try:
        return _local.place
    except AttributeError:
        _local.place = _Place(cuda.stream() if SIMULATED else cuda.legacy_default_stream())
        return _local.place


def stream() -> Any:
    """The stream that this thread's calls are enqueued on: CUDA's default stream, or that of `use_stream`.

    It is never 0, with which Numba means the same stream but waits for every copy.
    """
    return _here().stream


@contextlib.contextmanager
def use_stream(of_calls: Any) -> Iterator[None]:
    """Enqueue what is called within the block, in this thread, on a stream of ``numba.cuda``.

    Parameters
    ----------
    of_calls : stream
        What ``numba.cuda.stream()`` returns; ``numba.cuda.external_stream(pointer)`` for one of another library.

    Notes
    -----
    Memory of results goes back to the pool on the stream that they were made on, when nothing refers to them any more.
    Calls of this package on other streams are waited for then. What another library, or a kernel of your own, does with
    them on another stream is not: keep a result until that is done.
    """
    with _at(_Place(of_calls)):
        yield


def _pointer(of: Any) -> int:
    """The address of a stream of Numba's or of cuda.core's, as the driver knows it."""
    return int(of.__cuda_stream__()[1])


def _same(one: Any, other: Any) -> bool:
    return one is other or (not SIMULATED and _pointer(one) == _pointer(other))


def wait_for(other: Any) -> None:
    """Enqueue what follows behind what another stream holds; 0 for none. The host does not wait."""
    if other and not _same(other, stream()):
        _here().wait_for(other)


@contextlib.contextmanager
def side_by_side(count: int) -> Iterator[Callable[[int], Any]]:
    """Let things that do not depend on each other run at once: two at most, each enqueued within ``on(number)``.

    The first goes to this thread's stream, the second to another one, which starts with what was enqueued here before;
    at the end this thread's stream waits for it. What both read must be there until then.
    """
    here = _here()
    if count < 2 or SIMULATED:
        yield lambda number: contextlib.nullcontext()
        return
    other = getattr(_local, "other", None)
    if other is None or other.context is not here.context:
        other = _local.other = _Place(cuda.stream())
    other.core.wait(here.core)
    try:
        yield lambda number: _at(other if number else here)
    finally:
        here.core.wait(other.core)


@contextlib.contextmanager
def _at(place: _Place) -> Iterator[None]:
    before, _local.place = _here(), place
    try:
        yield
    finally:
        _local.place = before


def follow(other: Any, arrays: Iterable[Any]) -> None:
    """As `wait_for`, before arrays are used that were made on that stream: they stay until what follows is done."""
    if other and not _same(other, stream()):
        wait_for(other)
        for array in arrays:
            _used_here(array)


def _used_here(array: Any) -> None:
    """Note that the memory of an array is used on this thread's stream, if it is another than the array's."""
    memory, place = getattr(array, "owner", None), _here()
    if type(memory) is _Memory and memory.place.pointer != place.pointer:
        memory.others = {**(memory.others or {}), place.pointer: place}


# ---- memory ----------------------------------------------------------------------------------------------------------


class _Memory:
    """Memory of the pool. When nothing refers to it any more it returns there, on the stream that it was made on.

    What is enqueued on that stream later may get it; so the stream first waits for all others that used it.
    """

    __slots__ = ("buffer", "others", "place")

    def __init__(self, size: int, place: _Place) -> None:
        self.place = place
        self.others: dict[int, _Place] | None = None
        self.buffer = place.allocate(size, stream=place.core)

    def __del__(self, at_exit: Callable[[], bool] = sys.is_finalizing) -> None:
        if self.others and not at_exit():
            for other in self.others.values():
                self.place.core.wait(other.core)
        self.buffer = None  # while the streams are there


class Array:
    """A C-contiguous array on the device: an address and a shape. Its views share its memory, and keep it."""

    __slots__ = ("address", "dtype", "owner", "shape", "size", "words")

    def __init__(self, address: int, shape: tuple[int, ...], dtype: np.dtype[Any], owner: Any) -> None:
        self.address, self.shape, self.dtype, self.owner = address, shape, dtype, owner
        self.size = math.prod(shape)
        #: the array as Numba's kernels take it, once one has been given it
        self.words: bytes | None = None

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return len(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of the elements."""
        return self.size * self.dtype.itemsize

    def __len__(self) -> int:
        return self.shape[0]

    def reshape(self, *shape: Any) -> Array:
        """The same elements in another shape."""
        new = shape[0] if len(shape) == 1 and isinstance(shape[0], tuple) else shape
        found = Array(self.address, new, self.dtype, self.owner)
        if found.size != self.size:
            raise ValueError(f"an array of shape {self.shape} has no shape {new}")
        return found

    def part(self, begin: int, shape: tuple[int, ...]) -> Array:
        """An array of this shape that begins at the element of this number."""
        return Array(self.address + begin * self.dtype.itemsize, shape, self.dtype, self.owner)

    def view(self, dtype: Any) -> Array:
        """The same bytes in one axis, in another dtype."""
        dtype = np.dtype(dtype)
        return Array(self.address, (self.nbytes // dtype.itemsize,), dtype, self.owner)

    def __getitem__(self, at: int | slice) -> Array:
        first, *rest = self.shape
        each = math.prod(rest) * self.dtype.itemsize
        if isinstance(at, slice):
            begin, end, step = at.indices(first)
            if step != 1:
                raise IndexError(f"a slice must have step 1; got {step}")
            return Array(self.address + begin * each, (max(0, end - begin), *rest), self.dtype, self.owner)
        if not -first <= at < first:
            raise IndexError(f"{at} is out of range for {first}")
        return Array(self.address + at % first * each, tuple(rest), self.dtype, self.owner)

    @property
    def stream(self) -> Any:
        """The stream that it was made on; 0 for an array of another library, which was waited for."""
        return self.owner.place.stream if type(self.owner) is _Memory else 0

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        """For CuPy, on the stream of the call: so there is nothing to wait for."""
        return {"shape": self.shape, "data": (self.address, False), "typestr": self.dtype.str, "version": 3}


def can_read(address: int) -> bool:
    """Whether kernels of the current context can read what lies at an address."""
    kind = None if SIMULATED else driver.CUpointer_attribute.CU_POINTER_ATTRIBUTE_DEVICE_POINTER
    return SIMULATED or not address or not driver.cuPointerGetAttribute(kind, address)[0]


def view_of(value: Any) -> Any:
    """A C-contiguous array of any library as an `Array` that shares its memory, and keeps it."""
    if SIMULATED:
        return value if getattr(value, "__cuda_ndarray__", False) else cuda.as_cuda_array(value, sync=False)
    if type(value) is Array:
        array = value
    elif getattr(value, "__cuda_ndarray__", False):
        memory = value.gpu_data
        owner = memory.owner if type(memory.owner) is _Memory else value
        array = Array(int(memory.device_pointer) if value.size else 0, value.shape, value.dtype, owner)
    else:
        given = value.__cuda_array_interface__
        array = Array(given["data"][0], tuple(given["shape"]), np.dtype(given["typestr"]), value)
    _used_here(array)
    return array


def as_numba(array: Any) -> Any:
    """An `Array` as one of Numba's that shares its memory, and keeps it."""
    if type(array) is not Array:
        return array
    place = _here()
    memory = MemoryPointer(place.context, driver.CUdeviceptr(array.address), array.nbytes, owner=array.owner)
    strides = strides_of(array.shape, array.dtype.itemsize)
    return DeviceNDArray(array.shape, strides, array.dtype, array.stream or place.stream, memory)


def _allocated(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Any:
    """A new array that is not empty. Raises what the driver says."""
    if SIMULATED:
        return cuda.device_array(shape, dtype, stream=stream())
    memory = _Memory(math.prod(shape) * dtype.itemsize, _here())
    return Array(int(memory.buffer.handle), shape, dtype, memory)


def empty(shape: int | tuple[int, ...], dtype: Any) -> Any:
    """An uninitialised device array. Raises MemoryError where the device has no room left; nothing is lost then."""
    shape, dtype = (shape,) if isinstance(shape, int) else shape, np.dtype(dtype)
    if 0 in shape and not SIMULATED:
        return Array(0, shape, dtype, None)
    try:
        return _allocated(shape, dtype)
    except Exception as error:
        if "OUT_OF_MEMORY" not in str(error):
            raise
        size = math.prod(shape) * dtype.itemsize
        raise MemoryError(
            f"the device has no room for an array of shape {shape} and dtype {dtype}, {size} bytes"
        ) from None


def zeros(shape: int | tuple[int, ...], dtype: Any) -> Any:
    """A device array of zeros."""
    array = empty(shape, dtype)
    if array.size:
        if SIMULATED:
            array.copy_to_device(np.zeros(array.shape, array.dtype))
        else:
            checked(driver.cuMemsetD8Async(array.address, 0, array.nbytes, _here().pointer))
    return array


def to_device(array: np.ndarray) -> Any:
    """A copy of a C-contiguous array on the device. The driver has read it when this returns."""
    target = empty(array.shape, array.dtype)
    if target.size:
        if SIMULATED:
            target.copy_to_device(array)
        else:  # memory that is not locked is staged at once
            checked(driver.cuMemcpyHtoDAsync(target.address, array.ctypes.data, target.nbytes, _here().pointer))
    return target


def to_host(array: Any) -> np.ndarray:
    """A copy of a device array as a NumPy array, once all that was enqueued before it is done."""
    if SIMULATED:
        return np.asarray(array.copy_to_host())
    host = np.empty(array.shape, array.dtype)
    if array.size:
        checked(driver.cuMemcpyDtoHAsync(host.ctypes.data, array.address, array.nbytes, _here().pointer))
    checked(driver.cuStreamSynchronize(_here().pointer))
    return host


def copy(target: Any, source: Any) -> None:
    """Copy a device array into another of the same shape and dtype."""
    if SIMULATED:
        if target.size:
            target.copy_to_device(source)
    elif target.size:
        checked(driver.cuMemcpyDtoDAsync(target.address, source.address, target.nbytes, _here().pointer))


@memoized
def nothing(dtype: np.dtype[Any]) -> Any:
    """An empty matrix on the device, for what is not there."""
    return empty((0, 0), dtype)
