"""The parameters of a layer, as compiled code sees them: one flat vector, and where each parameter lies in it.

The order is PyTorch's, layer by layer, direction by direction: ``weight_ih (G, K)``, ``weight_hh (G, P or H)``,
``bias_ih (G,)``, ``bias_hh (G,)``, and ``weight_hr (P, H)`` with a projection; K is the input size of the layer.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import types
from numba.core import cgutils
from numba.core.imputils import lower_constant
from numba.extending import intrinsic, models, overload, register_model, typeof_impl

from .._jit import SOURCES, inner
from ..packing.checks import as_flag
from .cell import CELLS

__all__ = [
    "WEIGHTS",
    "GRUWeights",
    "LSTMWeights",
    "RNNReluWeights",
    "RNNTanhWeights",
    "Weights",
    "gates_of",
    "has_c",
    "kept_of",
    "named_shapes",
    "places",
    "step",
    "step_back",
    "turn_of",
]


class Weights(NamedTuple):
    """What compiled code needs of a layer; its class, one of those below, tells the cell.

    Only ``layer.weights`` makes it: compiled code trusts it.
    """

    #: every parameter, in the order of the state dict
    parameters: np.ndarray
    #: the same, prepacked for the forward scans (see ``cpu/panels.py``)
    panels: np.ndarray
    #: the other fields as one array, which is how the kernels are given them
    sizes: np.ndarray
    input_size: int
    hidden_size: int
    #: the size of h: ``proj_size`` with a projection, else ``hidden_size``
    output_size: int
    num_layers: int
    num_directions: int
    #: 1 or 0
    bias: int


class LSTMWeights(Weights):
    """`Weights` of an LSTM."""

    __slots__ = ()


class GRUWeights(Weights):
    """`Weights` of a GRU."""

    __slots__ = ()


class RNNTanhWeights(Weights):
    """`Weights` of an RNN with tanh."""

    __slots__ = ()


class RNNReluWeights(Weights):
    """`Weights` of an RNN with relu."""

    __slots__ = ()


#: the cell that each class of weights is for
WEIGHTS = {
    LSTMWeights: CELLS["LSTM"],
    GRUWeights: CELLS["GRU"],
    RNNTanhWeights: CELLS["RNN_TANH"],
    RNNReluWeights: CELLS["RNN_RELU"],
}


class WeightsType(types.NamedTuple):
    """Numba's type of `Weights`: another for every state of the sources.

    So a user's compiled function that takes weights is not found in the disk cache when this package has changed, and
    no function is taken for another that has the same name, and arguments that are the same but for this.
    """

    def __init__(self, fields: tuple[types.Type, ...], kind: type[Weights]) -> None:
        super().__init__(fields, kind)
        self.name += f" of {SOURCES:x}"

    @property
    def key(self) -> Any:
        """What makes two of them equal."""
        return *super().key, self.name


register_model(WeightsType)(models.TupleModel)


@typeof_impl.register(Weights)
def _typeof_weights(weights, context):
    return WeightsType(tuple(typeof_impl(field, context) for field in weights), type(weights))


#: weights that are constants in compiled code, which holds their addresses
_constants: list[Weights] = []


@lower_constant(WeightsType)
def _constant_weights(context, builder, kind, weights):
    """Weights in a global variable or a closure: by address, so that Numba keeps no such function on disk.

    A later process would find the weights that this one had, whatever its own are.
    """
    _constants.append(weights)
    integer, fields = context.get_value_type(types.intp), []
    for field, value in zip(kind.types, weights, strict=True):
        if isinstance(field, types.Array):
            size = cgutils.create_constant_array(integer, [context.get_constant(types.intp, value.size)])
            step = context.get_constant(types.intp, value.itemsize)
            data = context.add_dynamic_addr(builder, value.ctypes.data, "weights")
            array = context.make_array(field)(context, builder)
            context.populate_array(
                array,
                data=builder.bitcast(data, array.data.type),
                shape=size,
                strides=cgutils.create_constant_array(integer, [step]),
                itemsize=step,
                meminfo=None,
            )
            fields.append(array._getvalue())
        else:
            fields.append(context.get_constant_generic(builder, field, value))
    return context.make_tuple(builder, kind, fields)


# -- facts of the cell, constants in compiled code ---------------------------------------------------------------------


def _of_cell(name):
    @intrinsic
    def constant(typingctx, weights):
        value = int(getattr(WEIGHTS[weights.instance_class], name))
        ty = types.IntegerLiteral(value)
        return ty(weights), lambda context, builder, sig, args: context.get_constant(types.intp, value)

    return constant


gates_of, kept_of, turn_of, has_c = (_of_cell(name) for name in ("gates", "kept", "turn", "has_c"))


def step(weights, gates, h, c):
    """`Cell.step` of the cell that these weights are for; in compiled code."""
    raise NotImplementedError


def step_back(weights, gates, h, c, d_h, d_c):
    """`Cell.step_back` of the cell that these weights are for; in compiled code."""
    raise NotImplementedError


@overload(step)
def _step(weights, gates, h, c):
    formula = WEIGHTS[weights.instance_class].step
    return lambda weights, gates, h, c: formula(gates, h, c)


@overload(step_back)
def _step_back(weights, gates, h, c, d_h, d_c):
    formula = WEIGHTS[weights.instance_class].step_back
    return lambda weights, gates, h, c, d_h, d_c: formula(gates, h, c, d_h, d_c)


# -- where each parameter lies -----------------------------------------------------------------------------------------


def named_shapes(
    gates: int, input_size: int, hidden_size: int, proj_size: int, num_layers: int, num_directions: int, bias: bool
) -> dict[str, tuple[int, ...]]:
    """Names and shapes of all parameters of a layer, in the order of the flat vector."""
    shapes: dict[str, tuple[int, ...]] = {}
    outputs = proj_size or hidden_size
    for layer in range(num_layers):
        inputs = input_size if layer == 0 else num_directions * outputs
        for suffix in ("", "_reverse")[:num_directions]:
            end = f"_l{layer}{suffix}"
            shapes["weight_ih" + end] = (gates * hidden_size, inputs)
            shapes["weight_hh" + end] = (gates * hidden_size, outputs)
            if as_flag(bias, "bias"):
                shapes["bias_ih" + end] = (gates * hidden_size,)
                shapes["bias_hh" + end] = (gates * hidden_size,)
            if proj_size:
                shapes["weight_hr" + end] = (proj_size, hidden_size)
    return shapes


class Places(NamedTuple):
    """Where the parameters of one layer and direction begin in the flat vector, and where they end."""

    weight_ih: int
    weight_hh: int
    bias_ih: int
    bias_hh: int
    weight_hr: int
    end: int
    #: input size of the layer
    inputs: int


@inner
def places(weights, layer, direction):
    """The `Places` of one direction of one layer."""
    gates = gates_of(weights) * weights.hidden_size
    at = 0
    for number in range(layer * weights.num_directions + direction + 1):
        inputs = weights.input_size
        if number >= weights.num_directions:
            inputs = weights.num_directions * weights.output_size
        weight_hh = at + gates * inputs
        bias_ih = weight_hh + gates * weights.output_size
        bias_hh = bias_ih + gates * weights.bias
        weight_hr = bias_hh + gates * weights.bias
        end = weight_hr
        if weights.output_size != weights.hidden_size:
            end += weights.output_size * weights.hidden_size
        found = Places(at, weight_hh, bias_ih, bias_hh, weight_hr, end, inputs)
        at = end
    return found
