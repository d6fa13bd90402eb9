"""What stands between the recurrent nodes of an ONNX model: operators that move values, and arithmetic of shapes.

Each is one function here, written for NumPy arrays. A packed batch goes the same way: `Ragged` stands for the padded
array that it would be, and has the few methods that the functions need. So nothing is padded between two nodes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import numpy as np
from onnx import AttributeProto, TensorProto, helper, numpy_helper

from ..packing.checks import MEMORY_BYTES
from ..packing.sequences import PackedSequence

__all__ = ["ARITHMETIC", "GLUE", "Ragged", "array_of", "attributes_of", "room"]


class Ragged:
    """A packed batch in the place of a padded array, two of whose axes are time and batch.

    Parameters
    ----------
    packed : PackedSequence
        Its data (N, *) hold the other axes, in their order.
    time, batch : int
        Where those two axes are.
    """

    def __init__(self, packed: PackedSequence, time: int, batch: int) -> None:
        self.packed, self.time, self.batch = packed, time, batch
        self.ndim = packed.data.ndim + 1
        #: the axes that are neither time nor batch
        self.others = [axis for axis in range(self.ndim) if axis not in (time, batch)]

    @property
    def shape(self) -> tuple[int, ...]:
        """That of the padded array."""
        sizes = {self.time: len(self.packed.batch_sizes), self.batch: len(self.packed.sorted_indices)}
        sizes |= dict(zip(self.others, self.packed.data.shape[1:], strict=True))
        return tuple(sizes[axis] for axis in range(self.ndim))

    @property
    def dtype(self) -> np.dtype[Any]:
        """That of the values."""
        return self.packed.data.dtype

    def astype(self, dtype: Any) -> Ragged:
        """The values in another dtype."""
        return self._of(self.packed.data.astype(dtype), self.time, self.batch)

    def _of(self, data: np.ndarray, time: int, batch: int) -> Ragged:
        return Ragged(PackedSequence(data, *self.packed[1:]), time, batch)

    def transpose(self, perm: Sequence[int]) -> Ragged:
        """The axes in another order."""
        order = [1 + self.others.index(axis) for axis in perm if axis in self.others]
        return self._of(self.packed.data.transpose(0, *order), perm.index(self.time), perm.index(self.batch))

    def reshape(self, shape: Sequence[int]) -> Ragged:
        """Divide and merge the axes behind the first two, which are time and batch and stay."""
        T, B, *sizes = self.shape
        if {self.time, self.batch} != {0, 1} or tuple(shape[:2]) != (T, B) or math.prod(shape[2:]) != math.prod(sizes):
            raise ValueError(f"time and batch must stay the first two axes; got shape {self.shape} made {tuple(shape)}")
        return self._of(self.packed.data.reshape(len(self.packed.data), *shape[2:]), self.time, self.batch)

    def __getitem__(self, key: Sequence[slice | int | None]) -> Ragged:
        """Part of the axes but time and batch: for each axis a slice or an index; None makes one of size 1."""
        kept: list[Any] = []  # for each axis of the result: the axis that it was, or None
        rows: list[Any] = [slice(None)]
        axis = 0
        for item in key:
            if item is None:
                rows.append(None)
                kept.append(None)
                continue
            if axis in self.others:
                rows.append(item)
            elif not isinstance(item, slice) or item.indices(self.shape[axis]) != (0, self.shape[axis], 1):
                raise ValueError("steps or sequences of packed input cannot be taken apart; Y_h has the last step")
            if isinstance(item, slice):
                kept.append(axis)
            axis += 1
        return self._of(self.packed.data[tuple(rows)], kept.index(self.time), kept.index(self.batch))

    def concatenate(self, parts: Sequence[Any], axis: int) -> Ragged:
        """Side by side, along an axis that is neither time nor batch; ``self`` is one of the parts."""
        alike = [isinstance(part, Ragged) and (part.time, part.batch) == (self.time, self.batch) for part in parts]
        if not all(alike) or axis not in self.others:
            raise ValueError("packed values are joined to packed values whose axes are alike, and along their units")
        data = [part.packed.data for part in parts]
        return self._of(np.concatenate(data, axis=1 + self.others.index(axis)), self.time, self.batch)


def attributes_of(node: Any) -> dict[str, Any]:
    """The attributes of a node by name; strings as str, tensors as arrays."""

    def plain(value: Any) -> Any:
        if isinstance(value, bytes):
            return value.decode("utf-8", "replace")
        return list(map(plain, value)) if isinstance(value, (list, tuple)) else value

    found = {}
    for attribute in node.attribute:
        if attribute.ref_attr_name:
            raise ValueError(
                f"{attribute.name} must have a value; it has that of a function, of which the node is no part"
            )
        value = helper.get_attribute_value(attribute)
        is_tensor = attribute.type == AttributeProto.TENSOR
        found[attribute.name] = array_of(value, attribute.name) if is_tensor else plain(value)
    return found


def array_of(tensor: Any, name: str) -> np.ndarray:
    """The array of a tensor that the model holds, of numbers."""
    if tensor.data_location == TensorProto.EXTERNAL:
        raise ValueError(f"{name} must have its values in the model, or beside a file that is loaded by its path")
    if any(size < 0 for size in tensor.dims):
        raise ValueError(f"{name} must have sizes of at least 0; got {list(tensor.dims)}")
    try:
        dtype = np.dtype(helper.tensor_dtype_to_np_dtype(tensor.data_type))
        if math.prod(tensor.dims) * dtype.itemsize > MEMORY_BYTES:
            raise ValueError(f"its shape is {list(tensor.dims)}")
        array = numpy_helper.to_array(tensor)
    except (KeyError, TypeError, ValueError, OverflowError, NotImplementedError) as error:
        raise ValueError(f"{name} must be an array of numbers: {error!r}") from error
    if array.dtype.kind not in "biufcV":
        raise ValueError(f"{name} must be an array of numbers; got dtype {array.dtype}")
    return array


#: the bytes that results may still take
_left: ContextVar[list[int]] = ContextVar("left", default=[MEMORY_BYTES])  # noqa: B039 (the default is not changed)


@contextmanager
def room(size: int) -> Iterator[None]:
    """A scope in which all results together may take so many bytes: a few numbers in a file can ask for any number."""
    token = _left.set([size])
    try:
        yield
    finally:
        _left.reset(token)


def fits(shape: Sequence[int], dtype: np.dtype[Any], takes: bool = True) -> None:
    """Refuse a result for which there is no room; ``takes`` tells whether it is more than a view."""
    left, size = _left.get(), math.prod(shape) * dtype.itemsize
    if size > left[0]:
        raise ValueError(f"results must fit into memory, of which {left[0]} bytes are left; got shape {tuple(shape)}")
    if takes:
        left[0] -= size


# -- the operators: each takes its inputs, None where one is absent, and its attributes --------------------------------


def _given(inputs: Sequence[Any], place: int, attributes: dict[str, Any], name: str) -> list[int] | None:
    """Integers that are an input, or in older versions of the operator an attribute."""
    value = inputs[place] if len(inputs) > place else attributes.get(name)
    return None if value is None else _integers(value, name)


def _integers(value: Any, name: str) -> list[int]:
    """The numbers of a vector of integers."""
    if not isinstance(value, list):
        if not isinstance(value, np.ndarray) or value.ndim != 1 or value.dtype.kind not in "iu":
            raise ValueError(f"{name} must be a vector of integers; got {_described(value)}")
        value = value.tolist()
    return list(map(int, value))


def _described(value: Any) -> str:
    if isinstance(value, Ragged):
        return "values for each step of packed input"
    return f"dtype {value.dtype} and shape {value.shape}" if isinstance(value, np.ndarray) else str(value)


def _axis(axis: int, ndim: int) -> int:
    if not -ndim <= axis < ndim:
        raise ValueError(f"axis must be one of {ndim} axes; got {axis}")
    return axis % ndim


def _constant(inputs: Sequence[Any], attributes: dict[str, Any]) -> Any:
    if len(attributes) != 1:
        raise ValueError(f"there must be one attribute; got {', '.join(attributes) or 'none'}")
    ((name, value),) = attributes.items()
    dtypes = {"value_int": np.int64, "value_ints": np.int64, "value_float": np.float32, "value_floats": np.float32}
    if name != "value" and name not in dtypes:
        raise ValueError(f"the attribute must be a dense tensor of numbers; got {name}")
    return np.asarray(value, dtypes.get(name))


def _identity(inputs: Sequence[Any], attributes: dict[str, Any]) -> Any:
    return inputs[0]


#: the dtypes of numbers that NumPy has, by ONNX's numbers
_NUMBERS = {helper.np_dtype_to_tensor_dtype(np.dtype(dtype)): np.dtype(dtype) for dtype in "?bhiqBHIQefdFD"}


def _cast(inputs: Sequence[Any], attributes: dict[str, Any]) -> Any:
    if isinstance(inputs[0], Ragged):
        raise ValueError("packed input cannot be cast; give it in the dtype of the layer")
    to = attributes["to"]
    if to not in _NUMBERS:
        raise ValueError(f"to must be the number of a dtype of numbers; got {to}")
    fits(inputs[0].shape, np.dtype(_NUMBERS[to]))
    return inputs[0].astype(_NUMBERS[to])


def _shape(inputs: Sequence[Any], attributes: dict[str, Any]) -> Any:
    return np.array(inputs[0].shape, np.int64)[attributes.get("start", 0) : attributes.get("end")]


def _transpose(inputs: Sequence[Any], attributes: dict[str, Any]) -> Any:
    perm = attributes.get("perm", list(range(inputs[0].ndim))[::-1])
    if sorted(perm) != list(range(inputs[0].ndim)):
        raise ValueError(f"perm must be a permutation of {inputs[0].ndim} axes; got {perm}")
    return inputs[0].transpose(perm)


def _reshape(inputs: Sequence[Any], attributes: dict[str, Any]) -> Any:
    x, shape = inputs[0], _integers(inputs[1], "shape")
    if not attributes.get("allowzero"):
        if any(size == 0 and axis >= x.ndim for axis, size in enumerate(shape)):
            raise ValueError(f"shape must copy no axis beyond the {x.ndim} that there are; got {shape}")
        shape = [x.shape[axis] if size == 0 else size for axis, size in enumerate(shape)]
    if shape.count(-1) == 1:  # found axis by axis where it can be: sizes may be 0
        at = shape.index(-1)
        known, total = math.prod(shape[:at] + shape[at + 1 :]), math.prod(x.shape)
        if shape[:at] == list(x.shape[:at]):
            known, total = math.prod(shape[at + 1 :]), math.prod(x.shape[at:])
        shape[at] = total // known if known else 0
    if isinstance(x, np.ndarray) and not x.flags.c_contiguous:
        fits(x.shape, x.dtype)  # a copy, of an array that may be expanded
    return x.reshape(shape)


def _squeeze(inputs: Sequence[Any], attributes: dict[str, Any]) -> Any:
    x, axes = inputs[0], _given(inputs, 1, attributes, "axes")
    if axes is None:
        axes = [axis for axis, size in enumerate(x.shape) if size == 1]
    axes = [_axis(axis, x.ndim) for axis in axes]
    if any(x.shape[axis] != 1 for axis in axes):
        raise ValueError(f"axes must be of size 1; got {axes} of shape {x.shape}")
    return x[tuple(0 if axis in axes else slice(None) for axis in range(x.ndim))]


def _unsqueeze(inputs: Sequence[Any], attributes: dict[str, Any]) -> Any:
    x, axes = inputs[0], _given(inputs, 1, attributes, "axes") or []
    ndim = x.ndim + len(axes)
    new = [_axis(axis, ndim) for axis in axes]
    return x[tuple(None if axis in new else slice(None) for axis in range(ndim))]


def _slice(inputs: Sequence[Any], attributes: dict[str, Any]) -> Any:
    x = inputs[0]
    starts, ends = _given(inputs, 1, attributes, "starts") or [], _given(inputs, 2, attributes, "ends") or []
    axes = _given(inputs, 3, attributes, "axes") or range(len(starts))
    steps = _given(inputs, 4, attributes, "steps") or [1] * len(starts)
    key = [slice(None)] * x.ndim
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        key[_axis(axis, x.ndim)] = slice(start, end, step)
    return x[tuple(key)]


def _gather(inputs: Sequence[Any], attributes: dict[str, Any]) -> Any:
    x, indices = inputs[0], inputs[1]
    axis = _axis(attributes.get("axis", 0), x.ndim)
    if isinstance(x, Ragged):
        if indices.ndim > 0 or indices.dtype.kind not in "iu":
            raise ValueError(f"from packed input only one unit can be gathered; got indices of {_described(indices)}")
        return x[tuple(int(indices) if a == axis else slice(None) for a in range(x.ndim))]
    fits((*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :]), x.dtype)
    return np.take(x, indices, axis=axis)


def _concat(inputs: Sequence[Any], attributes: dict[str, Any]) -> Any:
    axis = _axis(attributes["axis"], inputs[0].ndim)
    ragged = next((part for part in inputs if isinstance(part, Ragged)), None)
    rows = [part.packed.data if isinstance(part, Ragged) else part for part in inputs]
    fits((sum(one.size for one in rows),), rows[0].dtype)
    return np.concatenate(inputs, axis) if ragged is None else ragged.concatenate(inputs, axis)


def _expand(inputs: Sequence[Any], attributes: dict[str, Any]) -> Any:
    if isinstance(inputs[0], Ragged):
        raise ValueError("packed input cannot be expanded")
    shape = np.broadcast_shapes(inputs[0].shape, tuple(_integers(inputs[1], "shape")))
    fits(shape, inputs[0].dtype, takes=False)
    return np.broadcast_to(inputs[0], shape)


def _constant_of_shape(inputs: Sequence[Any], attributes: dict[str, Any]) -> Any:
    value = attributes.get("value", np.zeros(1, np.float32))
    shape = tuple(_integers(inputs[0], "input"))
    if value.shape != (1,):
        raise ValueError(f"value must hold one number; got shape {value.shape}")
    if any(size < 0 for size in shape):
        raise ValueError(f"input must hold sizes of at least 0; got {shape}")
    fits(shape, value.dtype, takes=False)
    return np.broadcast_to(value.reshape(()), shape)  # which takes no memory until it is made another


def _arithmetic(compute: Callable[..., Any]) -> Callable[[Sequence[Any], dict[str, Any]], Any]:
    """An operator of shapes and places, which are integers."""

    def operator(inputs: Sequence[Any], attributes: dict[str, Any]) -> Any:
        for value in inputs:
            if not isinstance(value, np.ndarray) or value.dtype.kind not in "iub":
                raise ValueError(
                    f"inputs must be integers, such as sizes, between recurrent nodes; got {_described(value)}; "
                    f"numba_pack.interop.onnx.session runs models that compute more"
                )
        fits(np.broadcast_shapes(*[value.shape for value in inputs]), np.dtype(np.int64))
        return compute(*inputs)

    return operator


def _divided(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Towards zero."""
    if not y.all():
        raise ValueError("B must hold no 0, by which nothing can be divided; got one")
    return (np.abs(x) // np.abs(y) * np.sign(x) * np.sign(y)).astype(x.dtype)


def _range(start: np.ndarray, limit: np.ndarray, delta: np.ndarray) -> np.ndarray:
    first, last, step = (int(value.reshape(())[()]) for value in (start, limit, delta))
    if not step:
        raise ValueError("delta must not be 0; got 0")
    fits((len(range(first, last, step)),), start.dtype)
    return np.arange(first, last, step, dtype=start.dtype)


#: those that compute something of integers; all others move values
ARITHMETIC: dict[str, Callable[[Sequence[Any], dict[str, Any]], Any]] = {
    "Add": _arithmetic(np.add),
    "Div": _arithmetic(_divided),
    "Equal": _arithmetic(np.equal),
    "Mul": _arithmetic(np.multiply),
    "Range": _arithmetic(_range),
    "Sub": _arithmetic(np.subtract),
    "Where": _arithmetic(np.where),
}

#: by the name of the operator
GLUE: dict[str, Callable[[Sequence[Any], dict[str, Any]], Any]] = {
    "Cast": _cast,
    "Concat": _concat,
    "Constant": _constant,
    "ConstantOfShape": _constant_of_shape,
    "Expand": _expand,
    "Gather": _gather,
    "Identity": _identity,
    "Reshape": _reshape,
    "Shape": _shape,
    "Slice": _slice,
    "Squeeze": _squeeze,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
} | ARITHMETIC
