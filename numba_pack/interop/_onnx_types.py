"""The types of ONNX's values: as a model declares them, and as ONNX Runtime tells them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import TensorProto, TypeProto, helper
from onnxruntime.capi.onnxruntime_pybind11_state import InvalidArgument

from .._arguments import kind_of

__all__ = ["Argument", "WrongType", "WrongValue", "dtype_of", "runtime_type", "tensor_type", "without_shape"]


class WrongType(TypeError, InvalidArgument):  # type: ignore[misc, unused-ignore]
    """A TypeError which those find, too, who look for what ONNX Runtime raises."""


class WrongValue(ValueError, InvalidArgument):  # type: ignore[misc, unused-ignore]
    """A ValueError which those find, too, who look for what ONNX Runtime raises."""


#: ONNX Runtime's names, where they are not ONNX's in small letters
_NAMES = {"complex64": TensorProto.COMPLEX64, "complex128": TensorProto.COMPLEX128}
_NAMES |= {name.lower(): number for name, number in TensorProto.DataType.items() if name != "UNDEFINED"}
_SPELLED = {number: name for name, number in _NAMES.items()}


def tensor_type(elem_type: int, shape: Sequence[int | None] | None) -> TypeProto:
    """That of a tensor; None for a size or a shape that is not known."""
    return helper.make_tensor_type_proto(elem_type, shape)


def runtime_type(argument: Any) -> TypeProto:
    """That of an input or output of a session of ONNX Runtime."""
    sizes = [size if isinstance(size, int) and size > 0 else None for size in argument.shape]
    # an empty shape may be of a scalar, or not known; and names of sizes are those of one session alone
    return _parsed(argument.type, sizes or None)


def _parsed(text: str, shape: Sequence[int | None] | None = None) -> TypeProto:
    kind, _, inner = text.removesuffix(")").partition("(")
    if kind == "tensor" and inner in _NAMES:
        return tensor_type(_NAMES[inner], shape)
    if kind == "seq":
        return helper.make_sequence_type_proto(_parsed(inner))
    if kind == "optional":
        return helper.make_optional_type_proto(_parsed(inner))
    if kind == "map":
        key, _, value = inner.partition(",")
        return helper.make_map_type_proto(_NAMES[key], _parsed(value))
    raise ValueError(f"values between nodes must be tensors, or sequences or maps of these; got {text}")


def without_shape(its: TypeProto) -> TypeProto:
    """A copy for values whose shape may be another."""
    copy = TypeProto()
    copy.CopyFrom(its)
    if copy.HasField("tensor_type"):
        copy.tensor_type.ClearField("shape")
    return copy


def dtype_of(its: TypeProto) -> tuple[np.dtype[Any], tuple[int, ...]]:
    """The dtype and shape of an array; a size that is not known is 0."""
    dims = its.tensor_type.shape.dim
    return helper.tensor_dtype_to_np_dtype(its.tensor_type.elem_type), tuple(dim.dim_value for dim in dims)


@dataclass(frozen=True)
class Argument:
    """An input or output of a model: what ``onnxruntime.NodeArg`` holds."""

    name: str
    #: sizes; of a free one its name, or None
    shape: list[int | str | None]
    #: such as ``tensor(float)``
    type: str

    @classmethod
    def of(cls, name: str, its: TypeProto) -> Argument:
        """That of this type."""
        dims = its.tensor_type.shape.dim if its.HasField("tensor_type") else []
        sizes = [dim.dim_value if dim.HasField("dim_value") else dim.dim_param or None for dim in dims]
        argument = cls(name, sizes, _spelled(its))
        tensor = its.tensor_type
        given = argument.type.startswith("tensor(") and tensor.elem_type != TensorProto.STRING
        dtype = helper.tensor_dtype_to_np_dtype(tensor.elem_type) if given else None
        ndim = len(sizes) if given and tensor.HasField("shape") else None
        fixed = [(axis, size) for axis, size in enumerate(sizes) if isinstance(size, int) and size > 0]
        argument.__dict__.update(dtype=dtype, ndim=ndim, fixed=fixed)
        return argument

    def taken(self, value: Any) -> Any:
        """A value for this input, checked."""
        dtype, ndim = self.__dict__["dtype"], self.__dict__["ndim"]
        if not isinstance(value, np.ndarray):
            value = value.numpy() if hasattr(value, "numpy") else value  # of ONNX Runtime
        if dtype is None:
            return value
        if not isinstance(value, np.ndarray):
            if not isinstance(value, (list, tuple, int, float, bool, np.generic)):
                raise WrongType(f"{self.name} must be a NumPy array; got {kind_of(value)}")
            value = np.asarray(value, None if isinstance(value, np.generic) else dtype)
        if value.dtype != dtype:
            raise WrongType(f"{self.name} must have dtype {dtype}; got {value.dtype}")
        if ndim is not None and value.ndim != ndim:
            raise WrongValue(f"{self.name} must have {ndim} dimensions; got shape {value.shape}")
        for axis, size in self.__dict__["fixed"]:
            if value.shape[axis] != size:
                told = ", ".join(str(one or "any") for one in self.shape)
                raise WrongValue(f"{self.name} must have shape ({told}), as the model says; got {value.shape}")
        return value


def _spelled(its: TypeProto) -> str:
    """As ONNX Runtime spells it; "" if it is not declared."""
    if its.HasField("tensor_type") and its.tensor_type.elem_type:
        return f"tensor({_SPELLED[its.tensor_type.elem_type]})"
    if its.HasField("sequence_type"):
        return f"seq({_spelled(its.sequence_type.elem_type)})"
    if its.HasField("optional_type"):
        return f"optional({_spelled(its.optional_type.elem_type)})"
    if its.HasField("map_type"):
        key = _SPELLED[its.map_type.key_type]
        return f"map({key},{_spelled(its.map_type.value_type)})"
    return ""
