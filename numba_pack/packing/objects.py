"""NumPy's arrays as compiled code finds them: by the address of the object, of which it reads what it needs.

To hand an array to compiled code takes 100 ns, or 500 where Python asks for its address; an integer takes 20, and to
read the fields of an object in memory 2. Whoever passes addresses keeps the objects alive. Where an ndarray keeps its
fields is part of NumPy's binary interface, in which they are called PyArrayObject_fields.
"""

from __future__ import annotations

import ctypes

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from .._jit import inner, jit

__all__ = [
    "address_of",
    "data_at",
    "dtype_at",
    "find_rows",
    "is_array",
    "is_array_like",
    "is_vector",
    "items_at",
    "length_at",
    "pointer_at",
]

_TYPE, _DATA, _AXES, _SHAPE, _DESCR, _FLAGS = (object.__basicsize__ + at for at in (-8, 0, 8, 16, 40, 48))
_ITEMS = tuple.__basicsize__  # where a tuple keeps the addresses of its items
_CARRAY = 0x101  # C-contiguous and aligned
_WRITEABLE = 0x400


def address_of(array: np.ndarray) -> int:
    """The address of an array's data."""
    return ctypes.c_ssize_t.from_address(id(array) + _DATA).value


_probe = np.empty(1)
if address_of(_probe) != _probe.ctypes.data:
    raise ImportError(f"numba_pack cannot find the data of an array of NumPy {np.__version__}")
_probe_of = (_probe,)
if ctypes.c_ssize_t.from_address(id(_probe_of) + _ITEMS).value != id(_probe):
    raise ImportError("numba_pack cannot find the items of a tuple of this Python")


@intrinsic
def _word(typing_context, address):
    """The 64-bit integer at an address."""

    def generate(context, builder, signature, arguments):
        return builder.load(builder.inttoptr(arguments[0], ir.IntType(64).as_pointer()))

    return types.int64(types.int64), generate


@inner
def data_at(array):
    """The address of the data of an ndarray."""
    return _word(array + _DATA)


@intrinsic
def pointer_at(typing_context, array, element):
    """The data of an ndarray as a pointer to elements of a type, for ``numba.carray``."""
    target = types.CPointer(element)

    def generate(context, builder, signature, arguments):
        place = builder.add(arguments[0], ir.Constant(ir.IntType(64), _DATA))
        return builder.load(builder.inttoptr(place, context.get_value_type(target).as_pointer()))

    return target(types.int64, element), generate


@inner
def dtype_at(array):
    """The address of the dtype of an ndarray."""
    return _word(array + _DESCR)


@inner
def items_at(objects):
    """Where the addresses of the items of a tuple are, one behind the other."""
    return objects + _ITEMS


@inner
def length_at(array):
    """The length of the first axis of an ndarray that has one."""
    return _word(_word(array + _SHAPE))


@inner
def _axes_at(array):
    return _word(array + _AXES) & 0xFFFFFFFF


@inner
def is_array(this, kind, dtype):
    """Whether an object is of a class, np.ndarray, and of a dtype, both by their addresses; C-contiguous, aligned."""
    return _word(this + _TYPE) == kind and _word(this + _DESCR) == dtype and _word(this + _FLAGS) & _CARRAY == _CARRAY


@inner
def is_vector(this, kind, dtype):
    """Whether an object is such an array of one axis, and can be written to: for others entries are compiled anew."""
    return is_array(this, kind, dtype) and _axes_at(this) == 1 and _word(this + _FLAGS) & _WRITEABLE != 0


@inner
def is_array_like(this, array):
    """Whether an object is just as an array that is C-contiguous: of its class, dtype and shape."""
    if not is_array(this, _word(array + _TYPE), _word(array + _DESCR)):
        return False
    mine, its = _word(this + _SHAPE), _word(array + _SHAPE)
    same = _axes_at(this) == _axes_at(array)
    for axis in range(_axes_at(array) if same else 0):
        same = same and _word(mine + 8 * axis) == _word(its + 8 * axis)
    return same


@jit
def find_rows(objects, lengths, addresses):
    """Find the lengths of ndarrays and the addresses of their data, from the addresses of the objects.

    The first must be an ndarray. Returns whether all are, agree in dtype and trailing shape, and are C-contiguous and
    aligned. If not, what was written must not be used.
    """
    first = objects[0]
    kind, dtype, axes = _word(first + _TYPE), _word(first + _DESCR), _axes_at(first)
    for i in range(len(objects)):
        each = objects[i]
        if not is_array(each, kind, dtype) or _axes_at(each) != axes or axes == 0:
            return False
        shape = _word(each + _SHAPE)
        for axis in range(1, axes):
            if _word(shape + 8 * axis) != _word(_word(first + _SHAPE) + 8 * axis):
                return False
        lengths[i], addresses[i] = _word(shape), _word(each + _DATA)
    return True
