"""How a compiled kernel is launched: by the driver itself, in a few microseconds of the host.

Numba looks at each argument of each call anew. Here the types are known, and what a kernel is given lies in one piece
of memory: the words of the arrays, and behind them the numbers. The driver copies it when it is called.
"""

from __future__ import annotations

import ctypes
import functools
import struct
from typing import Any

from cuda.bindings import driver
from numba import types
from numba.np.numpy_support import as_dtype

from .keep import Loaded

__all__ = ["Launcher", "checked", "strides_of"]

_WORD = 8


def _format(kind: types.Type) -> str:
    """How a number is written, in a word of eight bytes."""
    formats = {types.boolean: "?7x", types.float32: "f4x", types.float64: "d"}
    return formats.get(kind) or ("q" if kind.signed else "Q")


def checked(returned: tuple[Any, ...]) -> Any:
    """What a function of the driver gave. Raises RuntimeError if it failed."""
    if returned[0]:
        raise RuntimeError(f"CUDA: {returned[0].name}")
    return returned[1] if len(returned) > 1 else None


#: by the number of axes: a word of Numba's for the owner, one for the parent, size, size of an element, address, the
#: shape, the strides
_ARRAYS = [struct.Struct(f"<{5 + 2 * axes}q") for axes in range(8)]


@functools.lru_cache(1 << 12)
def strides_of(shape: tuple[int, ...], itemsize: int) -> tuple[int, ...]:
    """The strides of a C-contiguous array."""
    strides = [itemsize]
    for length in shape[:0:-1]:
        strides.append(strides[-1] * length)
    return tuple(strides[::-1]) if shape else ()


def words_of(array: Any) -> bytes:
    """An `Array` as Numba's kernels take it."""
    shape, itemsize = array.shape, array.dtype.itemsize
    pack = _ARRAYS[len(shape)].pack
    array.words = words = pack(0, 0, array.size, itemsize, array.address, *shape, *strides_of(shape, itemsize))
    return words


class Launcher:
    """A compiled kernel, and where its arguments go."""

    def __init__(self, loaded: Loaded, signature: tuple[types.Type, ...], together: bool, most_shared: int) -> None:
        self._loaded = loaded
        self.function = driver.CUfunction(int(loaded.kernel))
        self._call = driver.cuLaunchCooperativeKernel if together else driver.cuLaunchKernel
        self._extra = () if together else (0,)
        self._arrays = [i for i, kind in enumerate(signature) if isinstance(kind, types.Array)]
        self._dtypes = [as_dtype(signature[i].dtype) for i in self._arrays]
        self._numbers = [i for i in range(len(signature)) if i not in self._arrays]
        self._pack = struct.Struct("<" + "".join(_format(signature[i]) for i in self._numbers)).pack
        counts = [5 + 2 * kind.ndim if isinstance(kind, types.Array) else 1 for kind in signature]
        self._offsets, self._size = [0] * len(signature), 0
        for i in [*self._arrays, *self._numbers]:
            self._offsets[i] = self._size
            self._size += counts[i] * _WORD
        self._words = [at + k * _WORD for at, count in zip(self._offsets, counts, strict=True) for k in range(count)]
        #: memory for arguments that no call uses now: its address, that of the pointers into it, and both themselves
        self._rooms: list[tuple[Any, ...]] = []
        limit = driver.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
        device = checked(driver.cuCtxGetDevice())
        checked(driver.cuKernelSetAttribute(limit, most_shared - loaded.shared, loaded.kernel, device))

    def _room(self) -> tuple[Any, ...]:
        memory = (ctypes.c_char * max(1, self._size))()
        begin = ctypes.addressof(memory)
        pointers = (ctypes.c_void_p * max(1, len(self._words)))(*[begin + at for at in self._words])
        return begin, ctypes.addressof(pointers), memory, pointers

    def __call__(self, stream: int, sizes: tuple[int, ...], shared: int, arguments: tuple[Any, ...]) -> None:
        """Enqueue it; the sizes are three of the grid and three of a block."""
        arrays = [arguments[i] for i in self._arrays]
        if [array.dtype for array in arrays] != self._dtypes:
            raise TypeError(f"a kernel takes arrays of {self._dtypes}; got {[array.dtype for array in arrays]}")
        words = [array.words or words_of(array) for array in arrays]
        words.append(self._pack(*[arguments[i] for i in self._numbers]))
        given = b"".join(words)
        if len(given) != self._size:
            raise TypeError(f"a kernel takes {self._size} bytes of arguments; got {len(given)}")
        try:
            room = self._rooms.pop()
        except IndexError:
            room = self._room()
        ctypes.memmove(room[0], given, len(given))
        returned = self._call(self.function, *sizes, shared, stream, room[1], *self._extra)
        self._rooms.append(room)
        if returned[0]:
            checked(returned)

    def resident(self, threads: int, shared: int) -> int:
        """How many blocks of so many threads a multiprocessor can have at once."""
        return int(checked(driver.cuOccupancyMaxActiveBlocksPerMultiprocessor(self.function, threads, shared)))
