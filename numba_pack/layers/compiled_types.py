"""Which types the layers take in compiled code: anything else is a TypingError there, and a TypeError from Python.

These functions get Numba's types, while a user's function is compiled, or those of the arguments of a call from Python.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, NamedTuple

import numpy as np
from numba import typeof, types
from numba.core.errors import TypingError

from .._arguments import kind_of, name_of
from .._jit import overload
from ..batch import Record, States
from ..cells.parameters import WeightsType
from ..packing.sequences import PackedSequence, typed_packed

__all__ = [
    "CompiledGradients",
    "CompiledTape",
    "by_type",
    "check_types",
    "if_there",
    "typed_call",
    "typed_gradient",
    "typed_state",
    "typed_tape",
    "typed_training",
]


class CompiledTape(NamedTuple):
    """What a compiled training forward pass keeps; see `Tape`, which holds the same. Its backward pass uses it up."""

    weights: Any
    packed: PackedSequence
    states: States
    record: Record
    #: (N, D * P)
    output: np.ndarray
    #: (1,) whether its backward pass was run
    used: np.ndarray


class CompiledGradients(NamedTuple):
    """What a compiled backward pass returns."""

    #: the gradient of the input, a PackedSequence; None for symbols
    input: Any
    #: of the initial state: h (L * D, B, P), for an LSTM (h, c)
    hx: Any
    #: laid out like ``weights.parameters``
    parameters: np.ndarray


def by_type(choose: Callable[..., Any]) -> Callable[..., Any]:
    """Make a function of compiled code, whose body is what this one returns when it gets the arguments' types."""

    @wraps(choose)
    def function(*arguments: Any) -> Any:
        raise NotImplementedError(f"{choose.__name__} is for compiled code")

    overload(function)(choose)
    return function


def typed_call(function, kinds, packed, weights):
    """Check a batch, and weights of one of these classes, or of any if there are none, for the function."""
    if not _is_weights(kinds, weights):
        names = " or ".join(kind.__name__ for kind in kinds) if kinds else "layer.weights"
        raise TypingError(
            f"weights of {function} must be the weights of its layer, {names}; got {_class_of(weights, *kinds)}"
        )
    typed_packed(packed, "packed")
    data, dtype = packed[0], weights[0].dtype
    symbols = isinstance(data, types.Array) and data.ndim == 1 and isinstance(data.dtype, types.Integer)
    if not symbols and not _is_array(data, dtype, 2):
        expected = f"a {dtype} array (N, input_size) or symbols, integers (N,)"
        raise TypingError(f"packed.data must be {expected}; got {data}")


def typed_training(weights):
    """Refuse weights that are for inference."""
    if weights.instance_class.cell.factors == "int8":
        raise TypingError("weights must be those of a layer in float, which can be trained: quantize is for inference")


def _is_weights(kinds, weights):
    """Whether weights are of the cell of one of these classes, or a variant of it; or of any, if there are none."""
    if not isinstance(weights, WeightsType):
        return False
    return not kinds or weights.instance_class.cell.base in [kind.cell for kind in kinds]


def typed_state(given, name, weights):
    """Whether a state is given, which must then be one of the cell of these weights."""
    if _is_none(given):
        return False
    given, dtype, names = if_there(given), weights[0].dtype, weights.instance_class.cell.arguments.state
    if len(names) > 1:
        right = isinstance(given, types.BaseTuple) and len(given) == len(names)
        right = right and all(_is_array(part, dtype, 3) for part in given)
        count = {2: "two", 3: "three", 4: "four"}.get(len(names), len(names))
        expected = f"a tuple of {count} {dtype} arrays (num_layers * num_directions, B, H)"
    else:
        right, expected = _is_array(given, dtype, 3), f"a {dtype} array (num_layers * num_directions, B, H)"
    if not right:
        raise TypingError(f"{name} must be {expected}; got {given}")
    return True


def typed_gradient(given, dtype):
    """Whether a gradient of the output is given, which must then be rows."""
    if _is_none(given):
        return False
    given = if_there(given)
    rows = given[0] if getattr(given, "instance_class", None) is PackedSequence else given
    if not _is_array(rows, dtype, 2):
        raise TypingError(f"d_output must be a PackedSequence or {dtype} array (N, columns); got {given}")
    return True


def typed_tape(function, kinds, tape):
    """Check a tape of the function's training form, its arrays of the types that they were made of."""
    if not _is_tape(kinds, tape):
        raise TypingError(f"tape must be what {function}_forward returned third; got {_class_of(tape, CompiledTape)}")


def _is_tape(kinds, tape):
    if getattr(tape, "instance_class", None) is not CompiledTape:
        return False
    weights, packed, states, record, output, used = tape
    others = [getattr(part, "instance_class", None) for part in (packed, states, record)]
    if others != [PackedSequence, States, Record] or not _is_weights(kinds, weights):
        return False
    typed_packed(packed, "tape.packed")
    dtype, data = weights[0].dtype, packed[0]
    gates, cells, outputs, unprojected = record
    arrays = [(output, 2), (states[0], 3), (states[1], 4), (gates, 3), (cells, 4), (outputs, 3), (unprojected, 3)]
    floats = all(_is_array(array, dtype, ndim) and array.layout == "C" for array, ndim in arrays)
    rows = (_is_array(data, dtype, 2) or _is_array(data, types.int64, 1)) and data.layout == "C"
    return floats and rows and _is_array(used, types.boolean, 1)


def _is_array(ty, dtype, ndim):
    return isinstance(ty, types.Array) and ty.ndim == ndim and ty.dtype == dtype


def _is_none(given):
    return given is None or isinstance(given, (types.NoneType, types.Omitted))


def if_there(given):
    """The type of what may be None in compiled code, as a state is before a loop, where it is not."""
    return given.type if isinstance(given, types.Optional) else given


def _class_of(given, *expected):
    """What an error says of a type that is none of these classes' in compiled code."""
    kind = getattr(given, "instance_class", None)
    return given if kind is None or kind in expected else name_of(kind, *expected)


def check_types(check: Callable[..., Any], **arguments: Any) -> None:
    """Make a check of types for a call from Python."""
    try:
        check(*(_type_of(value, name) for name, value in arguments.items()))
    except TypingError as error:
        raise TypeError(str(error)) from None


def _type_of(value, name):
    try:
        return typeof(value)
    except (TypingError, ValueError) as error:  # an unknown object, a dtype of another byte order
        raise TypeError(f"{name} must be what compiled code takes; got {kind_of(value)}: {error}") from None
