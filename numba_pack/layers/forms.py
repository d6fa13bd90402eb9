"""The forms that a batch may have, each turned into the one that the kernels take, and back.

A `Form` remembers what came: a PackedSequence, a padded array, or one sequence. All become a `Batch`; results and
gradients go back in the form of the input. Integers in an array of two axes may be features of one sequence or padded
symbols: `symbols` says that they are these.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .._arguments import check_no_mask, dtype_of, kind_of
from .._backend import device, on_device
from ..batch import Batch
from ..packing.checks import OUTSIDE, as_ndarray, outside
from ..packing.sequences import PackedSequence, check_packed

__all__ = [
    "Form",
    "Host",
    "OneStep",
    "Packed",
    "Padded",
    "Single",
    "Symbols",
    "arrays_of",
    "as_array",
    "form_of",
    "plain",
    "symbols",
]


def as_array(value: Any, name: str, shape: tuple[int, ...], dtype: np.dtype[Any], letters: str = "") -> np.ndarray:
    """A C-contiguous, writable array of this shape and dtype: the value itself if it is one, else a copy."""
    if type(value) is np.ndarray and value.dtype == dtype and value.shape == shape and value.flags.carray:
        return value  # what comes step after step, as fast as may be
    if not isinstance(value, np.ndarray):
        raise TypeError(f"{name} must be a NumPy array; got {kind_of(value, np.ndarray)}")
    value = plain(value, name)
    if value.dtype != dtype and value.dtype.newbyteorder("=") != dtype:
        advice = f", which astype(numpy.{dtype}) converts" if value.dtype in (np.float32, np.float64) else ""
        raise TypeError(f"{name} must have dtype {dtype}; got {dtype_of(value)}{advice}")
    if value.shape != shape:
        raise ValueError(f"{name} must have shape {letters + ' = ' if letters else ''}{shape}; got {value.shape}")
    if not value.flags.carray or not value.dtype.isnative:
        value = np.array(value, dtype, order="C")
    return value


def plain(value: np.ndarray, name: str) -> np.ndarray:
    """An array of NumPy's own class: the shape that a subclass reports may be wrong."""
    if type(value) is np.ndarray:
        return value
    check_no_mask(value, name)
    return np.asarray(value)


def as_input(value: np.ndarray, name: str, shape: tuple[int, ...], dtype: np.dtype[Any], letters: str) -> np.ndarray:
    """The input of a layer: rows, in an array of this shape, or symbols, which have no columns, in int64.

    Symbols are copied, so that they stay what they were when they were checked.
    """
    axes, input_size = len(shape) - 1, shape[-1]
    if value.ndim != axes or value.dtype.kind not in "iu":
        return as_array(_as_if_writable(value, name, dtype), name, shape, dtype, letters)
    symbols = np.array(as_array(value, name, value.shape, value.dtype), np.int64)
    at = outside(symbols.reshape(-1), input_size)
    if at >= 0:
        index = tuple(map(int, np.unravel_index(at, value.shape)))
        raise ValueError(f"{name}{OUTSIDE} {input_size}; got {value[index]} at index {at if axes == 1 else index}")
    return symbols


class _Interface:
    """An array's memory as NumPy takes it from other libraries."""

    def __init__(self, array: np.ndarray) -> None:
        interface = array.__array_interface__
        self.array, self.__array_interface__ = array, {**interface, "data": (interface["data"][0], False)}


def _as_if_writable(value: np.ndarray, name: str, dtype: np.dtype[Any]) -> np.ndarray:
    """Input that is read-only, as rows of a file mapped into memory and outputs of a layer are, without a copy.

    Compiled code has one type for the input, that of arrays which can be written to, and does not write to it.
    """
    if isinstance(value, np.ndarray) and value.dtype == dtype and not value.flags.writeable:
        value = plain(value, name)
        if value.flags.c_contiguous and value.flags.aligned:
            return np.asarray(_Interface(value))
    return value


class Host:
    """What forms need of NumPy's arrays; `numba_pack.cuda.arrays` is the same for those on the device."""

    as_array = staticmethod(as_array)
    as_input = staticmethod(as_input)
    zeros = staticmethod(np.zeros)

    @staticmethod
    def as_result(array: np.ndarray) -> np.ndarray:
        """The array as the caller gets it."""
        return array

    @staticmethod
    def joined(arrays: list[np.ndarray]) -> np.ndarray:
        """Vectors one after the other, in a new array for the caller."""
        return np.concatenate(arrays)

    @staticmethod
    def stacked(arrays: list[np.ndarray]) -> np.ndarray:
        """One array of all; a view if there is only one."""
        return arrays[0][None] if len(arrays) == 1 else np.stack(arrays)

    @staticmethod
    def swapped(array: np.ndarray) -> np.ndarray:
        """A copy with the first two axes swapped."""
        return np.ascontiguousarray(array.swapaxes(0, 1))

    @staticmethod
    def read_only(array: np.ndarray) -> np.ndarray:
        """A view that cannot be written to."""
        shown = array.view()
        shown.flags.writeable = False
        return shown


#: the rows of a step of one sequence, and the order of one; nothing writes to those of a batch
_ONE, _FIRST = np.ones(1, np.int64), np.zeros(1, np.int64)


class Symbols:
    """Integers that a layer is to take for symbols: what `symbols` makes."""

    __slots__ = ("array",)

    def __init__(self, array: np.ndarray) -> None:
        #: of integers, of one axis or two
        self.array = array

    def __repr__(self) -> str:
        return f"symbols({self.array!r})"


def symbols(array: Any) -> Symbols:
    """Say that integers are symbols, each of which stands for a one-hot row, and no features.

    A layer needs it said where integers have two axes, which might be features ``(T, I)`` of one sequence as well as
    padded symbols. Where there is one axis, as in a PackedSequence of symbols, it makes no difference.

    Parameters
    ----------
    array : array of int, shape (T,), (T, B), or (B, T) for a layer with ``batch_first``
        One sequence, or a padded batch. At least 0 and less than the input size of the layer that takes them, which
        checks it. Not copied.

    Returns
    -------
    Symbols
        For a layer, in place of its input.

    Raises
    ------
    TypeError
        If the array does not hold integers.
    ValueError
        If it has neither one axis nor two.

    Examples
    --------
    >>> import numpy as np
    >>> import numba_pack as nbp
    >>> gru = nbp.GRU(256, 3, batch_first=True, rng=0)
    >>> text = np.array([list(b"all"), list(b"one")])
    >>> output, h_n = gru(nbp.symbols(text))
    >>> output.shape
    (2, 3, 3)
    """
    if isinstance(array, (PackedSequence, Symbols)):
        raise TypeError(f"array must be an array of integers; got {kind_of(array)}, which a layer takes as it is")
    values = as_ndarray(array, "array")
    if values.dtype.kind not in "iu":
        raise TypeError(f"array must hold integers; got dtype {dtype_of(values)}")
    if values.ndim not in (1, 2):
        raise ValueError(f"array must have 1 or 2 dimensions; got shape {values.shape}")
    return Symbols(values)


class Form:
    """How a batch came, and so how what belongs to it goes."""

    batch: Batch
    #: of the kind of array that came: `Host`, or the module of device arrays
    arrays: Any
    #: sequences
    B: int
    #: of everything but symbols
    dtype: np.dtype[Any]

    @property
    def first(self) -> Form:
        """The same batch, as states before the first step come and go: `resets` cuts it, and they are other ones."""
        return self

    def check_again(self) -> None:
        """Refuse index arrays of the caller that are no longer what they were when they were checked: valid."""

    def rows(self, value: Any, name: str, columns: int) -> np.ndarray:
        """Rows (N, columns), in packed order, of a value in this form."""
        raise NotImplementedError

    def back(self, rows: np.ndarray) -> Any:
        """The value in this form of rows (N, columns) in packed order."""
        raise NotImplementedError

    def state(self, value: Any, name: str, scans: int, columns: int) -> np.ndarray:
        """A state (scans, B, columns) as the kernels take it."""
        shape = (scans, self.B, columns)
        return self.arrays.as_array(value, name, shape, self.dtype, "(num_layers * num_directions, B, H)")

    def shares(self, value: Any, scans: int, columns: int) -> bool:
        """Whether a first state is that of all sequences: (scans, 1, columns), and they are not one."""
        return isinstance(value, np.ndarray) and value.shape == (scans, 1, columns) and self.B != 1

    def state_back(self, state: np.ndarray) -> np.ndarray:
        """A state as the caller takes it."""
        return self.arrays.as_result(state)


class Packed(Form):
    """A PackedSequence."""

    def __init__(self, packed: PackedSequence, input_size: int, dtype: np.dtype[Any]) -> None:
        packed = check_packed(packed, "input")
        self.packed, self.dtype, self.arrays = packed, dtype, arrays_of(packed.data)
        data = self.arrays.as_input(packed.data, "input.data", (len(packed.data), input_size), dtype, "(N, input_size)")
        self.batch = Batch(data, packed.batch_sizes, packed.sorted_indices, len(data), data.ndim == 1)
        self.B = len(packed.sorted_indices)

    def check_again(self) -> None:
        check_packed(self.packed, "the input on the tape")

    def data_of(self, value: Any, name: str) -> tuple[Any, str]:
        """The data of a PackedSequence of the same sequences, and what they are called; of anything else itself."""
        if isinstance(value, PackedSequence):
            for field in ("batch_sizes", "sorted_indices"):  # else rows would be taken for those of other sequences
                mine, theirs = getattr(self.packed, field), getattr(value, field)
                if theirs is not mine and not _equal(theirs, mine):
                    raise ValueError(f"{name}.{field} must be those of the input, {mine}; got {theirs}")
            return value.data, f"{name}.data"
        return value, name

    def rows(self, value: Any, name: str, columns: int) -> np.ndarray:
        value, name = self.data_of(value, name)
        shape = (len(self.batch.data), columns)
        return self.arrays.as_array(value, name, shape, self.dtype, "(N, num_directions * H)")

    def back(self, rows: np.ndarray) -> PackedSequence:
        return PackedSequence(self.arrays.as_result(rows), *self.packed[1:])


def _equal(theirs: Any, mine: np.ndarray) -> bool:
    """Whether index arrays are; of two of one dtype, as they always are, NumPy takes ten times as long to say so."""
    if type(theirs) is np.ndarray and theirs.dtype == mine.dtype and theirs.tobytes() == mine.tobytes():
        return theirs.shape == mine.shape
    return np.array_equal(theirs, mine)


class Padded(Form):
    """An array (T, B, I) or (B, T, I) with ``batch_first``, without I if it holds symbols: B sequences of length T.

    Its rows are those of step after step or, if not ``in_order``, as they lie in the array.
    """

    def __init__(
        self, array: np.ndarray, input_size: int, dtype: np.dtype[Any], batch_first: bool, in_order: bool
    ) -> None:
        self.batch_first, self.dtype, self.arrays = batch_first, dtype, arrays_of(array)
        self.swaps = batch_first and in_order
        letters = "(B, T, input_size)" if batch_first else "(T, B, input_size)"
        array = self.arrays.as_input(array, "input", (*array.shape[:2], input_size), dtype, letters)
        self.shape = array.shape[:2]
        self.T, self.B = self.shape[::-1] if batch_first else self.shape
        if self.swaps:
            array = self.arrays.swapped(array)
        sizes = np.full(self.T if self.B else 0, self.B)
        data = array.reshape(self.T * self.B, *array.shape[2:])
        self.batch = Batch(data, sizes, np.arange(self.B), len(data), data.ndim == 1)

    def rows(self, value: Any, name: str, columns: int) -> np.ndarray:
        letters = "(B, T, num_directions * H)" if self.batch_first else "(T, B, num_directions * H)"
        value = self.arrays.as_array(value, name, (*self.shape, columns), self.dtype, letters)
        if self.swaps:
            value = self.arrays.swapped(value)
        return value.reshape(self.T * self.B, columns)

    def back(self, rows: np.ndarray) -> np.ndarray:
        if not self.swaps:
            return self.arrays.as_result(rows.reshape(*self.shape, rows.shape[1]))
        return self.arrays.as_result(self.arrays.swapped(rows.reshape(self.T, self.B, rows.shape[1])))


class Single(Form):
    """One sequence (T, I), or (T,) of symbols."""

    def __init__(self, array: np.ndarray, input_size: int, dtype: np.dtype[Any]) -> None:
        self.B, self.dtype, self.arrays = 1, dtype, arrays_of(array)
        data = self.arrays.as_input(array, "input", (len(array), input_size), dtype, "(T, input_size)")
        sizes = _ONE if len(data) == 1 else np.ones(len(data), np.int64)
        self.batch = Batch(data, sizes, _FIRST, len(data), data.ndim == 1)

    def rows(self, value: Any, name: str, columns: int) -> np.ndarray:
        shape = (len(self.batch.data), columns)
        return self.arrays.as_array(value, name, shape, self.dtype, "(T, num_directions * H)")

    def back(self, rows: np.ndarray) -> np.ndarray:
        return self.arrays.as_result(rows)

    def shares(self, value: Any, scans: int, columns: int) -> bool:
        return False

    def state(self, value: Any, name: str, scans: int, columns: int) -> np.ndarray:
        value = self.arrays.as_array(value, name, (scans, columns), self.dtype, "(num_layers * num_directions, H)")
        return value.reshape(scans, 1, columns)

    def state_back(self, state: np.ndarray) -> np.ndarray:
        return self.arrays.as_result(state.reshape(state.shape[0], state.shape[2]))


class OneStep(Form):
    """One step of B sequences, (B, I), or of one, (I,); of symbols (B,), or an integer."""

    def __init__(self, value: Any, input_size: int, dtype: np.dtype[Any]) -> None:
        if isinstance(value, np.ndarray):
            value = plain(value, "input")
        elif isinstance(value, (int, np.integer)) and not isinstance(value, bool):
            value = np.asarray(value)
        elif not on_device(value):
            raise TypeError(f"input must be a NumPy array; got {kind_of(value, np.ndarray)}")
        axes = value.ndim + 1 if value.ndim < 2 and value.dtype.kind in "iu" else value.ndim  # symbols have no columns
        if axes not in (1, 2):
            raise ValueError(f"input must have shape (B, {input_size}) or ({input_size},); got {value.shape}")
        self.single, self.dtype, self.arrays = axes == 1, dtype, arrays_of(value)
        if self.single:
            if value.ndim:
                value = self.arrays.as_array(value, "input", (input_size,), dtype, "(input_size,)")
            value = value.reshape(1, *value.shape)
        data = self.arrays.as_input(value, "input", (len(value), input_size), dtype, "(B, input_size)")
        B = self.B = data.shape[0]
        sizes, order = (_ONE, _FIRST) if B == 1 else (np.full(1 if B else 0, B), np.arange(B))
        self.batch = Batch(data, sizes, order, B, data.ndim == 1)

    def back(self, rows: np.ndarray) -> np.ndarray:
        return self.arrays.as_result(rows[0] if self.single else rows)

    def shares(self, value: Any, scans: int, columns: int) -> bool:
        return False

    def state(self, value: Any, name: str, scans: int, columns: int) -> np.ndarray:
        shape, letters = ((columns,), "(H,)") if self.single else ((self.B, columns), "(B, H)")
        return self.arrays.as_array(value, name, shape, self.dtype, letters).reshape(1, self.B, columns)

    def state_back(self, state: np.ndarray) -> np.ndarray:
        return self.arrays.as_result(state[0][0] if self.single else state[0])


def form_of(value: Any, input_size: int, dtype: np.dtype[Any], batch_first: bool, in_order: bool = True) -> Form:
    """The form of a layer's input, checked; if not ``in_order``, see `Padded`, it is not yet one for the kernels."""
    if isinstance(value, PackedSequence):
        return Packed(value, input_size, dtype)
    said = isinstance(value, Symbols)
    if said:
        value = value.array
    elif on_device(value):
        value = device.as_device(value, "input")
    elif not isinstance(value, np.ndarray):
        got = kind_of(value, PackedSequence, Symbols)
        raise TypeError(f"input must be a PackedSequence or a NumPy array; got {got}")
    else:
        value = plain(value, "input")
    axes = value.ndim
    if said or (axes == 1 and value.dtype.kind in "iu"):  # symbols, which have no columns
        axes += 1
    elif axes == 2 and value.dtype.kind in "iu":
        raise TypeError(
            f"input must have dtype {dtype}, or be said to be symbols: x.astype(numpy.{dtype}) makes features (T, I) "
            f"of integers, and numba_pack.symbols(x) padded symbols; got {value.dtype}, shape {value.shape}"
        )
    if axes == 3:
        return Padded(value, input_size, dtype, batch_first, in_order)
    if axes == 2:
        return Single(value, input_size, dtype)
    raise ValueError(f"input must be a PackedSequence or have 2 or 3 dimensions; got shape {value.shape}")


def arrays_of(value: Any) -> Any:
    """What belongs to a value's kind of array: `Host`, or the module of device arrays."""
    return Host if device is None or not device.is_device(value) else device
