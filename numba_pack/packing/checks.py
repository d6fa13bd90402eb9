"""What the packing functions check at the border, once, before a kernel trusts it.

Values are checked by compiled functions, which Python and a user's ``@njit`` code share. They return a *fault* ``(text,
got, bound, at)``: what is wrong ("" if nothing is), the value that came, the value that the text ends with, and the
index of the first wrong value, or -1; `refuse` raises the error. Types, shapes and dtypes are checked by the functions
``as_...``, which also give the argument the form that the kernels take. Each of them has an overload, so that a public
function's body is the same in Python and in ``@njit`` code.
"""

from __future__ import annotations

import math
import operator
import os
from array import array as array_of_python
from collections.abc import Mapping, Set
from typing import Any

import numpy as np
from numba import carray, typeof, types
from numba.core.errors import TypingError

from .._arguments import check_no_mask, dtype_of, kind_of, quiet
from .._backend import device, on_device
from .._jit import inner, jit, overload
from .dlpack import as_numpy
from .foreign import Ragged, arrays_of_lists, library_of, refuse_missing
from .objects import address_of, find_rows, is_vector, length_at, pointer_at

__all__ = [
    "INT64",
    "MEMORY_BYTES",
    "NUMERIC",
    "OUTSIDE",
    "ArgumentError",
    "are_index",
    "as_chosen",
    "as_dtype",
    "as_flag",
    "as_integer",
    "as_integers",
    "as_left",
    "as_ndarray",
    "as_number",
    "as_ragged",
    "as_rows",
    "as_sequences",
    "as_size",
    "as_steps",
    "chosen_fault",
    "constant",
    "inverted",
    "is_index_at",
    "is_packed",
    "lengths_between",
    "lengths_fault",
    "native",
    "offsets_fault",
    "outside",
    "outside_of",
    "packed_fault",
    "padding_of",
    "picked",
    "refuse",
    "steps_fault",
    "total_of",
    "typed_rows",
    "typed_sequences",
]

NUMERIC = "biufc"  # the kinds of dtype that rows may have: bool, integer, float, complex
INT64 = np.dtype(np.int64)
NO_LIMIT = 2**63 - 1
_DTYPE = operator.attrgetter("dtype")


def _memory_bytes() -> int:
    """The bytes no padded array can exceed: the machine's memory, or 1 TiB where the system does not say."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return 2**40


MEMORY_BYTES = _memory_bytes()
MOST_STEPS = MEMORY_BYTES // 32  # their batch sizes fit into memory, together with what sorting needs

# ---- values: compiled, for Python and for @njit code -----------------------------------------------------------------


class ArgumentError(ValueError):
    """A fault: made, it is a ValueError. Compiled code raises it, too, whose message is only put together in Python."""

    def __new__(cls, *fault: Any) -> ValueError:  # type: ignore[misc]
        """The error that a fault stands for; or the error that was made of it, which Python may ask for again."""
        if len(fault) == 1:
            return fault[0]
        name, text, got, bound, at = fault
        return ValueError(f"{name}{text} {bound}; got {got}" + (f" at index {at}" if at >= 0 else ""))


@inner
def refuse(fault, name):
    """Raise the error of a fault, if it is one."""
    text, got, bound, at = fault
    if len(text) > 0:
        raise ArgumentError(name, text, got, bound, at)


@inner
def lengths_fault(lengths, sequences, most, enforce_sorted):
    """Check that each sequence has a length, from 0 to ``most``, and that none increases where that is asked for."""
    if len(lengths) != sequences:
        return " must hold one length for each sequence: expected a length of", len(lengths), sequences, -1
    if len(lengths) == 0:
        return " must hold at least one sequence: expected a length of at least", 0, 1, -1
    for i in range(len(lengths)):
        if lengths[i] < 0:
            return " must not be negative: expected at least", lengths[i], 0, i
        if lengths[i] > most:
            return " must not exceed the time steps of the input: expected at most", lengths[i], most, i
        if enforce_sorted and i > 0 and lengths[i] > lengths[i - 1]:
            return " must not increase when enforce_sorted is True: expected at most", lengths[i], lengths[i - 1], i
    return "", 0, 0, -1


@inner
def steps_fault(lengths):
    """Check that the batch sizes fit into memory: where rows have no bytes, there may be any number of steps."""
    for i in range(len(lengths)):
        if lengths[i] > MOST_STEPS:
            return " must give batch sizes that fit into memory: expected at most", lengths[i], MOST_STEPS, i
    return "", 0, 0, -1


@inner
def offsets_fault(offsets, rows):
    """Check that offsets start at 0, do not decrease, and end at the number of rows."""
    sequences = len(offsets) - 1
    if sequences < 1:
        return " must hold one start for each sequence and the end: expected a length of at least", len(offsets), 2, -1
    if offsets[0] != 0:
        return " must start at", offsets[0], 0, 0
    for i in range(sequences):
        if offsets[i + 1] < offsets[i]:
            return " must not decrease: expected at least", offsets[i + 1], offsets[i], i + 1
    if offsets[sequences] != rows:
        return " must end at the number of rows of values, that is", offsets[sequences], rows, sequences
    return "", 0, 0, -1


@jit
def lengths_between(offsets, rows, lengths):
    """Whether `offsets_fault` finds no fault, without its text as in `is_packed`; if so, write the lengths ``(B,)``."""
    if len(offsets_fault(offsets, rows)[0]) > 0:
        return False
    for i in range(len(lengths)):
        lengths[i] = offsets[i + 1] - offsets[i]
    return True


@jit
def inverted(permutation):
    """The fault of a permutation in which some index from 0 to B - 1 does not occur once; and the inverse."""
    inverse = np.full(len(permutation), -1)
    for i in range(len(permutation)):
        index = permutation[i]
        if index < 0:
            return (" must be a permutation: expected indices of at least", index, 0, i), inverse
        if index >= len(permutation):
            return (" must be a permutation: expected indices of at most", index, len(permutation) - 1, i), inverse
        if inverse[index] >= 0:
            text = " must be a permutation: expected each index once, and what stands here not also at index"
            return (text, index, inverse[index], i), inverse
        inverse[index] = i
    return ("", 0, 0, -1), inverse


@inner
def packed_fault(batch_sizes, sorted_indices, unsorted_indices, rows):
    """Check that batch sizes are positive, never grow and sum to the rows; that the permutations undo each other."""
    sequences = len(sorted_indices)
    if sequences == 0:
        return ".sorted_indices must hold at least one sequence: expected a length of at least", 0, 1, -1
    if len(unsorted_indices) != sequences:
        got = len(unsorted_indices)
        return ".unsorted_indices must be as long as sorted_indices: expected length", got, sequences, -1
    most = sequences
    total = 0
    for t in range(len(batch_sizes)):
        size = batch_sizes[t]
        if size < 1:
            return ".batch_sizes must be positive: expected at least", size, 1, t
        if size > most:
            return ".batch_sizes must not grow, nor exceed the number of sequences: expected at most", size, most, t
        most = size
        total += size
        if total > rows:  # here and not after the loop: the sum cannot overflow
            break
    if total != rows:
        return ".batch_sizes must sum to the rows of data: expected", total, rows, -1
    for rank in range(sequences):
        i = sorted_indices[rank]
        if i < 0:
            return ".sorted_indices must be a permutation: expected at least", i, 0, rank
        if i >= sequences:
            return ".sorted_indices must be a permutation: expected at most", i, sequences - 1, rank
        if unsorted_indices[i] != rank:  # also when sorted_indices holds an index twice
            got = unsorted_indices[i]
            return ".unsorted_indices must be the inverse permutation of sorted_indices: expected", got, rank, i
    return "", 0, 0, -1


@jit
def is_packed(batch_sizes, sorted_indices, unsorted_indices, rows):
    """Whether `packed_fault` finds no fault; without its text, which would take half a microsecond to reach Python."""
    return len(packed_fault(batch_sizes, sorted_indices, unsorted_indices, rows)[0]) == 0


@inner
def is_index_at(batch_sizes, sorted_indices, unsorted_indices, rows, kind, integer):
    """Whether these objects are index arrays in which `packed_fault` finds no fault: int64, just as kernels take them.

    All but the rows are addresses of objects: those of the class of arrays and of the dtype are the last two.
    """
    for each in (batch_sizes, sorted_indices, unsorted_indices):
        if not is_vector(each, kind, integer):
            return False
    return len(packed_fault(_view(batch_sizes), _view(sorted_indices), _view(unsorted_indices), rows)[0]) == 0


@inner
def _view(array):
    """The elements of a vector of int64, of which there is the address of the object."""
    return carray(pointer_at(array, np.int64(0)), length_at(array))


@jit
def are_index(batch_sizes, sorted_indices, unsorted_indices, rows, kind, integer):
    """`is_index_at` for Python, which hands over six integers in the time of one array and a half."""
    return is_index_at(batch_sizes, sorted_indices, unsorted_indices, rows, kind, integer)


@inner
def chosen_fault(chosen, mask_length, sequences):
    """Check that the sequences chosen exist, and that a mask has one bool for each; -1 is the length of no mask."""
    if mask_length not in (-1, sequences):
        return (
            " must hold one bool for each sequence where it is a mask: expected a length of",
            mask_length,
            sequences,
            -1,
        )
    if len(chosen) == 0:
        return " must choose at least one sequence: expected a length of at least", 0, 1, -1
    for i in range(len(chosen)):
        if chosen[i] < -sequences:
            return " must be indices of sequences: expected at least", chosen[i], -sequences, i
        if chosen[i] >= sequences:
            return " must be indices of sequences: expected at most", chosen[i], sequences - 1, i
    return "", 0, 0, -1


@jit
def picked(offsets, chosen, mask_length, starts, lengths):
    """Whether `chosen_fault` finds no fault; if so, write where each sequence chosen starts, and its length."""
    sequences = len(offsets) - 1
    if len(chosen_fault(chosen, mask_length, sequences)[0]) > 0:
        return False
    for i in range(len(chosen)):
        place = chosen[i] if chosen[i] >= 0 else chosen[i] + sequences
        starts[i], lengths[i] = offsets[place], offsets[place + 1] - offsets[place]
    return True


@inner
def total_length_fault(total_length, longest, bytes_a_step):
    """Check that the total length holds the longest sequence, and that what is padded to it fits into memory."""
    most = max(MEMORY_BYTES // max(bytes_a_step, 1), longest)
    if total_length < longest:
        return " must hold the longest sequence: expected at least", total_length, longest, -1
    if total_length > most:
        return " must give an array that fits into memory: expected at most", total_length, most, -1
    return "", 0, 0, -1


#: the text of the error where `outside` finds something; the ``count`` follows it
OUTSIDE = " must hold symbols of at least 0 and less than input_size ="


@inner
def outside_of(symbols, count):
    """As `outside`, for compiled code."""
    for i in range(len(symbols)):
        if symbols[i] < 0 or symbols[i] >= count:
            return i
    return -1


@jit
def outside(symbols, count):
    """The index of the first symbol that is not at least 0 and less than ``count``; -1 if all are."""
    return outside_of(symbols, count)


# ---- types, shapes and dtypes: by Python, or by Numba while it types a call ------------------------------------------

# Below each function stands its form for @njit code, where a wrong type is a TypingError, and where of an array only
# the layout may have to be converted.


def _plain(given):
    """The Numba type of an argument, which may have been left out or be a constant."""
    if isinstance(given, types.Type):
        return typeof(given.value) if isinstance(given, types.Omitted) else types.unliteral(given)
    return typeof(given)


def constant(given):
    """A constant, such as the name of an argument, which reaches an overload as a type."""
    return getattr(given, "literal_value", getattr(given, "value", given))


def as_integer(value: Any, name: str) -> int:
    """An integer of Python or NumPy; a bool does not count as one."""
    try:
        if not isinstance(value, (bool, np.bool_)):
            return operator.index(value)
    except TypeError:
        pass
    except Exception as error:  # whatever an __index__ raises
        raise TypeError(f"{name} must be an integer; got {kind_of(value)}: {error}") from error
    raise TypeError(f"{name} must be an integer; got {value!r}")


def as_size(value: Any, name: str, least: int = 1, most: float = math.inf) -> int:
    """An integer from ``least`` to ``most``."""
    size = as_integer(value, name)
    if size < least:
        raise ValueError(f"{name} must be at least {least}; got {value!r}")
    if size > most:
        raise ValueError(f"{name} must be at most {most}; got {value!r}")
    return size


def as_flag(flag: Any, name: str) -> bool:
    """A bool and nothing else, so that an argument given in the wrong place is not taken for one."""
    if not isinstance(flag, (bool, np.bool_)):
        raise TypeError(f"{name} must be a bool; got {flag!r}")
    return bool(flag)


@overload(as_flag, prefer_literal=True)
def _as_flag_in_njit(flag, name):
    if not isinstance(_plain(flag), types.Boolean):
        raise TypingError(f"{constant(name)} must be a bool; got {flag}")
    return lambda flag, name: bool(flag)


def native(dtype: np.dtype) -> np.dtype:
    """The dtype in the byte order of this machine."""
    return dtype if dtype.isnative else dtype.newbyteorder("=")


def as_dtype(dtype: Any) -> np.dtype:
    """A dtype that rows may have, in the byte order of this machine."""
    try:
        given = np.dtype(dtype)
    except (TypeError, ValueError):
        raise TypeError(f"dtype must be a bool, integer, float or complex dtype; got {dtype!r}") from None
    if dtype is None or given.kind not in NUMERIC:
        raise TypeError(f"dtype must be a bool, integer, float or complex dtype; got {given}")
    return native(given)


def as_ndarray(array: Any, name: str) -> np.ndarray:
    """The array that NumPy makes of something, or of what another library has instead, with nothing lost on the way."""
    check_no_mask(array, name)
    library = library_of(array)
    if library is not None:
        array = library.rows(array, name)
    try:
        return as_numpy(array)
    except MemoryError:
        raise
    except Exception as error:  # whatever an __array__ raises, as those of tensors with a gradient do
        raise TypeError(f"{name} must be an array; got {kind_of(array)}: {error}") from error


def as_rows(array: Any, name: str, axes: int) -> np.ndarray:
    """An array of numbers with at least ``axes`` axes, C-contiguous, aligned, native: copied only if it was not.

    An array on the device stays there.
    """
    if type(array) is not np.ndarray:
        array = device.as_device(array, name) if on_device(array) else as_ndarray(array, name)
    if array.dtype.kind not in NUMERIC:
        raise TypeError(f"{name} must have a bool, integer, float or complex dtype; got {dtype_of(array)}")
    if array.ndim < axes:
        raise ValueError(f"{name} must have at least {axes} axes; got shape {array.shape}")
    if type(array) is np.ndarray:
        flags = array.flags
        if not (flags.c_contiguous and flags.aligned and array.dtype.isnative):
            array = np.array(array, dtype=native(array.dtype), order="C")
    return array


@overload(as_rows, prefer_literal=True)
def _as_rows_in_njit(array, name, axes):
    typed_rows(array, constant(name), constant(axes))
    return lambda array, name, axes: np.ascontiguousarray(array)


def typed_rows(given, name, axes):
    """Raise a TypingError unless the argument is an array of numbers with at least ``axes`` axes."""
    if not isinstance(given, types.Array):
        raise TypingError(f"{name} must be an array; got {given}")
    numeric = isinstance(given.dtype, (types.Boolean, types.Integer, types.Float, types.Complex))
    if not numeric or given.dtype == types.float16:  # which Numba cannot load on the CPU
        raise TypingError(f"{name} must have a bool, integer, float32, float64 or complex dtype; got {given.dtype}")
    if not isinstance(axes, int) or given.ndim < axes:  # if it is not an int: Numba's second try, with no constants
        raise TypingError(f"{name} must have at least {axes} axes; got {given.ndim}")


def as_integers(array: Any, name: str) -> np.ndarray:
    """A one-dimensional int64 array, C-contiguous, aligned and writable: copied only if it was not.

    Writable, because for arrays that are not, the kernels would have to be compiled once more.
    """
    if type(array) is np.ndarray and array.dtype == INT64 and array.ndim == 1 and array.flags.carray:
        return array
    if type(array) is not np.ndarray:
        given, array = array, as_ndarray(array, name)
        if array.dtype == object and array.ndim == 0:  # a set, a generator, None
            raise TypeError(f"{name} must be an array of integers; got a single object of {kind_of(given)}")
    if array.dtype.kind not in "iu" and array.size > 0:
        raise TypeError(f"{name} must hold integers that fit int64; got dtype {array.dtype}")
    if array.ndim != 1:
        raise ValueError(f"{name} must be one-dimensional; got shape {array.shape}")
    if array.dtype.kind == "u" and array.size > 0 and array.max() > NO_LIMIT:
        raise ValueError(f"{name} must hold integers that fit int64; got {array.max()}")
    return np.array(array, dtype=np.int64)


@overload(as_integers, prefer_literal=True)
def _as_integers_in_njit(array, name):
    if not isinstance(array, types.Array) or not isinstance(array.dtype, types.Integer) or array.ndim != 1:
        raise TypingError(f"{constant(name)} must be a one-dimensional array of integers; got {array}")

    def unsigned(array, name):
        for i in range(len(array)):
            if array[i] > NO_LIMIT:
                raise ArgumentError(name, " must hold integers that fit int64: expected at most", array[i], NO_LIMIT, i)
        return array.astype(np.int64)

    return unsigned if array.dtype == types.uint64 else lambda array, name: array.astype(np.int64)


def as_chosen(indices: Any, name: str) -> tuple[np.ndarray, int]:
    """Indices of sequences, int64, and -1; or the indices at which a mask is true, and its length."""
    if type(indices) is not np.ndarray or indices.dtype == bool:
        indices = as_ndarray(indices, name)
        if indices.dtype == bool and indices.ndim == 1:
            return np.flatnonzero(indices), len(indices)
    return as_integers(indices, name), -1


@overload(as_chosen, prefer_literal=True)
def _as_chosen_in_njit(indices, name):
    if isinstance(indices, types.Array) and indices.dtype == types.boolean and indices.ndim == 1:
        return lambda indices, name: (np.flatnonzero(indices), len(indices))
    return lambda indices, name: (as_integers(indices, name), -1)


def as_sequences(sequences: Any, name: str) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
    """A list of arrays that agree in dtype and trailing shape, their lengths and their addresses ``(B,)``.

    They are C-contiguous, aligned and native: copied only if they were not. An array of objects is taken for such a
    list, and so is a list of lists.
    """
    if type(sequences) is not list and _is_no_list(sequences, name):
        raise TypeError(f"{name} must be a list of arrays, one for each; got {kind_of(sequences)}")
    try:
        each = iter(sequences)
    except TypeError:
        raise TypeError(f"{name} must be a list of arrays; got {kind_of(sequences)}") from None
    arrays = list(each)  # what a generator raises is its caller's
    if not arrays:
        raise ValueError(f"{name} must hold at least one array; got an empty list")
    lengths, addresses = np.empty(len(arrays), np.int64), np.empty(len(arrays), np.int64)
    first, objects = arrays[0], np.fromiter(map(id, arrays), np.int64, len(arrays))
    plain = type(first) is np.ndarray and first.dtype.kind in NUMERIC and first.dtype.isnative
    if plain and find_rows(objects, lengths, addresses):
        return arrays, lengths, addresses
    arrays = _as_arrays(arrays, name)
    dtypes = {native(array.dtype) for array in arrays}
    if len(dtypes) > 1 and not any(dtype.kind in "US" for dtype in dtypes):
        raise TypeError(f"{name} must agree in dtype; got {', '.join(sorted(map(str, dtypes)))}")
    if arrays[0].dtype.kind not in NUMERIC:
        raise TypeError(f"{name} must have a bool, integer, float or complex dtype; got {dtype_of(arrays[0])}")
    trailing = arrays[0].shape[1:]
    for i, array in enumerate(arrays):
        if array.ndim == 0 or array.shape[1:] != trailing:
            expected = ("T_i", *trailing)
            raise ValueError(f"{name} must agree in shape: expected {expected}; got {array.shape} at index {i}")
    arrays = [as_rows(array, name, 1) for array in arrays]
    lengths[:] = [len(array) for array in arrays]
    if not on_device(arrays[0]):
        addresses[:] = [address_of(array) for array in arrays]
    return arrays, lengths, addresses


def _is_no_list(sequences: Any, name: str) -> bool:
    """Whether this is not a list of arrays, even if it can be iterated over: an array, a text, a batch, a set."""
    if hasattr(sequences, "__array__"):  # an array of arrays is a list of them
        array = as_ndarray(sequences, name)
        return array.dtype != object or array.ndim != 1
    return (
        isinstance(sequences, (str, bytes, bytearray, memoryview, array_of_python, Mapping, Set))
        or hasattr(sequences, "batch_sizes")
        or hasattr(sequences, "__dlpack__")
    )


def _as_arrays(sequences: list[Any], name: str) -> list[np.ndarray]:
    """The arrays of sequences that may be anything; none may be missing. All are on the host, or all on the device."""
    if device is not None and any(map(on_device, sequences)):
        for i, array in enumerate(sequences):
            if not on_device(array):
                raise TypeError(f"{name} must be all on the device or all on the host; got a NumPy array at index {i}")
        return [device.as_device(array, f"{name}[{i}]") for i, array in enumerate(sequences)]
    arrays = arrays_of_lists(sequences) or _each_as_array(sequences, name)
    if any(array.ndim == 0 or array.dtype.kind == "O" for array in arrays):
        refuse_missing((array.tolist() for array in arrays), name)
    return arrays


def _each_as_array(sequences: list[Any], name: str) -> list[np.ndarray]:
    """The arrays of sequences; an empty list has neither dtype nor shape, and takes those of the first that has."""
    says = [not (type(sequence) in (list, tuple) and len(sequence) == 0) for sequence in sequences]
    arrays = [as_ndarray(sequence, f"{name}[{i}]") for i, sequence in enumerate(sequences)]
    like = arrays[says.index(True)]  # there is one: empty lists alone are lists of lists
    nothing = np.empty((0, *like.shape[1:]), like.dtype)
    return [array if said else nothing for array, said in zip(arrays, says, strict=True)]


def as_ragged(ragged: Ragged, name: str) -> Ragged:
    """Ragged data of another library, in the form that the kernels take."""
    rows, lengths = as_rows(ragged.values, name, 1), as_integers(ragged.lengths, f"the lengths of {name}")
    starts = as_integers(ragged.starts, f"the starts of {name}")
    outside = np.flatnonzero((lengths < 0) | ((lengths > 0) & ((starts < 0) | (starts > len(rows) - lengths))))
    if len(outside) > 0:
        i = outside[0]
        got = f"{lengths[i]} from {starts[i]}"
        raise ValueError(f"{name} must hold sequences within its {len(rows)} rows; got {got} at index {i}")
    return Ragged(rows, starts, lengths)


def typed_sequences(given, name):
    """Raise a TypingError unless this is a list or tuple of arrays that agree in dtype and number of axes."""
    if isinstance(given, (types.List, types.ListType)):
        arrays = [given.dtype]
    elif isinstance(given, (types.UniTuple, types.Tuple)):
        arrays = list(given.types)
    else:
        raise TypingError(f"{name} must be a list or tuple of arrays; got {given}")
    if not arrays:
        raise TypingError(f"{name} must hold at least one array; got an empty tuple")
    for array in arrays:
        typed_rows(array, name, 1)
        if array.dtype != arrays[0].dtype or array.ndim != arrays[0].ndim:
            raise TypingError(f"{name} must agree in dtype and number of axes; got {arrays[0]} and {array}")


# A number may be an object that runs the caller's code when it is asked for its value. So it is asked before anything
# else is checked: that code cannot change what was checked already.


def as_steps(total_length: Any) -> int | None:
    """A number of time steps, or None."""
    if total_length is None:
        return None
    try:
        return as_integer(total_length, "total_length")
    except TypeError as error:
        raise TypeError(str(error).replace("an integer", "an integer or None", 1)) from error


@overload(as_steps)
def _as_steps_in_njit(total_length):
    plain = _plain(total_length)
    if isinstance(plain, types.NoneType):
        return lambda total_length: None
    if isinstance(plain, types.Integer):
        return lambda total_length: np.int64(total_length)
    raise TypingError(f"total_length must be an integer or None; got {total_length}")


def total_of(total_length: int | None, longest: int, bytes_a_step: int) -> int:
    """The time steps to pad to: those of the longest sequence where ``total_length`` is None."""
    if total_length is None:
        return longest
    refuse(total_length_fault(total_length, longest, bytes_a_step), "total_length")
    return total_length


@overload(total_of)
def _total_of_in_njit(total_length, longest, bytes_a_step):
    def given(total_length, longest, bytes_a_step):
        refuse(total_length_fault(total_length, longest, bytes_a_step), "total_length")
        return total_length

    if isinstance(total_length, types.NoneType):
        return lambda total_length, longest, bytes_a_step: longest
    return given


def as_left(padding_side: Any) -> bool:
    """Whether the padding stands on the left."""
    if not isinstance(padding_side, str) or padding_side not in ("right", "left"):
        raise ValueError(f"padding_side must be 'right' or 'left'; got {padding_side!r}")
    return padding_side == "left"


@overload(as_left)
def _as_left_in_njit(padding_side):
    def given(padding_side):
        if padding_side != "right" and padding_side != "left":
            raise ArgumentError("padding_side", " must be 'right' or", padding_side, "'left'", -1)
        return padding_side == "left"

    if not isinstance(_plain(padding_side), types.UnicodeType):
        raise TypingError(f"padding_side must be 'right' or 'left'; got {padding_side}")
    return given


def as_number(value: Any, name: str) -> Any:
    """A number of Python or NumPy."""
    if type(value) in (float, int, bool, complex):
        return value
    array = as_ndarray(value, name)
    if array.ndim != 0 or (array.dtype.kind not in NUMERIC and not isinstance(value, int)):
        raise TypeError(f"{name} must be a number; got {value!r}")
    return array[()]


@overload(as_number, prefer_literal=True)
def _as_number_in_njit(value, name):
    plain = _plain(value)
    if not isinstance(plain, (types.Boolean, types.Integer, types.Float, types.Complex)):
        raise TypingError(f"{constant(name)} must be a number; got {plain}")
    if isinstance(value, types.Omitted):
        default = value.value
        return lambda value, name: default
    return lambda value, name: value


def padding_of(padding_value: Any, rows: np.ndarray) -> np.generic:
    """The padding value in the dtype of the rows, which must be able to hold it."""
    if type(padding_value) is float and padding_value == 0.0:
        return rows.dtype.type(padding_value)
    return _cast(padding_value, rows)


@quiet
def _cast(padding_value: Any, rows: np.ndarray) -> np.generic:
    value = np.asarray(padding_value)
    if not _holds(rows.dtype, value):
        raise ValueError(f"padding_value must be representable in the dtype {rows.dtype}; got {padding_value!r}")
    return value.astype(rows.dtype).flat[0]


def _holds(dtype: np.dtype, value: np.ndarray) -> bool:
    """Whether the dtype can hold the value: integers exactly, floats up to rounding."""
    if value.dtype.kind == "c" and dtype.kind != "c":
        return False
    if value.dtype.kind == "O":  # an integer beyond 64 bits
        return False
    cast = value.astype(dtype)
    if dtype.kind in "fc":
        return bool(np.isfinite(cast) or not np.isfinite(value))
    return cast.item() == value.item()


@overload(padding_of)
def _padding_of_in_njit(padding_value, rows):
    value, dtype = _plain(padding_value), rows.dtype
    message = f"padding_value must be representable in the dtype {dtype}"
    if isinstance(value, types.Complex) and not isinstance(dtype, types.Complex):
        raise TypingError(f"{message}; got {value}")
    whole = isinstance(dtype, (types.Boolean, types.Integer))
    low, beyond = _bounds(dtype) if whole else (0.0, 0.0)

    def holds_integer(padding_value, cast):
        return cast == padding_value and (cast < 0) == (padding_value < 0)

    def holds_whole_float(padding_value, cast):
        return low <= padding_value < beyond and padding_value == np.floor(padding_value)

    def holds_float(padding_value, cast):
        return np.isfinite(cast) or not np.isfinite(padding_value)

    exact = holds_whole_float if isinstance(value, types.Float) else holds_integer
    holds = inner(exact if whole else holds_float)

    def compiled(padding_value, rows):
        cast = np.empty(1, rows.dtype)
        cast[0] = padding_value
        if not holds(padding_value, cast[0]):
            raise ValueError(message)
        return cast[0]

    return compiled


def _bounds(dtype: types.Type) -> tuple[float, float]:
    """The least value of an integer dtype, and the first beyond its greatest: both are exact as floats."""
    if isinstance(dtype, types.Boolean):
        return 0.0, 2.0
    return float(dtype.minval), float(dtype.maxval + 1)
