"""The parameters of a layer, as compiled code sees them: one flat vector, and where each parameter lies in it.

The order is PyTorch's, layer by layer, direction by direction: ``weight_ih (G, K)``, ``weight_hh (G, P or H)``,
``bias_ih (G,)``, ``bias_hh (G,)``, ``weight_hr (P, H)`` with a projection, ``gain_ih (G,)`` and ``gain_hh (G,)`` of a
cell that is normalised, and then the unit weights of the cell, (H,) each; K is the input size of the layer. A cell
without products with the state has no ``weight_hh``, and no bias and gain of it.
"""

import copyreg
import functools
import sys
from typing import Any, NamedTuple

import numpy as np
from numba import types
from numba.core import cgutils
from numba.core.imputils import lower_constant
from numba.extending import intrinsic, models, register_model, typeof_impl

from .._jit import SOURCES, fact, inner, overload
from .cell import Cell, variant_of
from .gru import GRU
from .lstm import LSTM
from .rnn import RNNRelu, RNNTanh

__all__ = [
    "GRUWeights",
    "LSTMWeights",
    "Layout",
    "RNNReluWeights",
    "RNNTanhWeights",
    "Weights",
    "WeightsType",
    "constants_of",
    "factor",
    "fixed",
    "fixed_of",
    "gates_hh_of",
    "gates_ih_of",
    "gates_of",
    "has_product",
    "kept_numbers_of",
    "kept_of",
    "kept_states_of",
    "layout",
    "layout_of",
    "named_shapes",
    "noises_of",
    "normed",
    "others_of",
    "places",
    "product_back",
    "products_of_tape",
    "reads_h",
    "reads_h_back",
    "step",
    "step_back",
    "units_of",
    "weights_of",
]  # fmt: skip


class Weights(NamedTuple):
    """What compiled code needs of a layer; its class, which `weights_of` makes for a cell, tells the cell.

    Only ``layer.weights`` makes it: compiled code trusts it.
    """

    #: every parameter, in the order of the state dict
    parameters: np.ndarray
    #: the same, prepacked for the forward scans (see ``cpu/panels.py``)
    panels: np.ndarray
    #: (C,) the constants of the cell
    constants: np.ndarray
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
    #: into how many parts of the units the product with the state is divided, each of which sees its own part of h
    heads: int
    #: 1 or 0: whether the one direction goes from the last step to the first
    reverse: int


class _OfCell(type):
    """The class of the classes of weights, which are found again by their cell."""

    cell: Cell


def _reduced(kind: _OfCell) -> tuple[Any, ...]:
    return weights_of, (kind.cell,)


copyreg.pickle(_OfCell, _reduced)


@functools.cache
def weights_of(cell: Cell) -> Any:
    """The class of the `Weights` of a cell.

    Its name is another for another cell: Numba knows the type of a named tuple again by that, and by its fields'.
    """
    space = {"__slots__": (), "__doc__": f"`Weights` of {cell.name}.", "__module__": __name__, "cell": cell}
    own = "" if cell in (LSTM, GRU, RNNTanh, RNNRelu) else f"_{cell.digest}"
    return _OfCell(f"{cell.name}Weights{own}", (Weights,), space)


LSTMWeights, GRUWeights, RNNTanhWeights, RNNReluWeights = map(weights_of, (LSTM, GRU, RNNTanh, RNNRelu))


class WeightsType(types.NamedTuple):
    """Numba's type of `Weights`: another for every cell, and for every state of the sources.

    So a user's compiled function that takes weights is not found in the disk cache when the formula or this package has
    changed, and no function is taken for another that has the same name, and arguments that are the same but for this.
    """

    def __init__(self, fields: tuple[types.Type, ...], kind: Any) -> None:
        super().__init__(fields, kind)
        self.name += f" of {kind.cell.digest} {SOURCES:x}"

    def __reduce__(self) -> tuple[Any, ...]:
        """On disk, where Numba keeps users' functions by their types: by the name of the cell, and all that tells code.

        Numba would pickle the class of the weights by value, and not know it again.
        """
        cell = self.instance_class.cell
        told = (cell.__module__, cell.__qualname__, cell.variant, cell.digest, SOURCES)
        return _weights_type, (self.types, *told)

    @property
    def key(self) -> Any:
        """What makes two of them equal."""
        return *super().key, self.name


def _weights_type(
    fields: tuple[types.Type, ...], module: str, qualname: str, variant: tuple[str, ...], digest: str, sources: int
) -> types.Type:
    """The type of weights of a cell that this process has, of these sources; else one that is equal to no other."""
    cell: Any = sys.modules.get(module)
    for name in qualname.split("."):
        cell = getattr(cell, name, None)
    if isinstance(cell, Cell) and sources == SOURCES:
        cell = variant_of(cell, variant)
        if cell.digest == digest:
            return WeightsType(fields, weights_of(cell))
    return types.Opaque(f"weights of {module}.{qualname}, {digest}, {sources:x}")


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
    return fact(lambda weights: getattr(weights.instance_class.cell, name))


gates_of, gates_ih_of, gates_hh_of, has_product, _turn_of, normed, products_of_tape = map(
    _of_cell, ("gates", "gates_ih", "gates_hh", "has_product", "turn", "normed", "products")
)
others_of, units_of, noises_of, constants_of, fixed_of = map(
    _of_cell, ("others", "units", "noises", "constants", "fixed_numbers")
)
kept_of, kept_numbers_of, kept_states_of, reads_h, reads_h_back = map(
    _of_cell, ("kept", "kept_numbers", "kept_states", "reads_h", "reads_h_back")
)


def step(weights, gates, states, units, constants):
    """`Cell.step` of the cell that these weights are for; in compiled code."""
    raise NotImplementedError


def factor(weights, gates, states, units, constants):
    """`Cell.factor` of that cell."""
    raise NotImplementedError


def fixed(weights, units, constants):
    """`Cell.fixed` of that cell."""
    raise NotImplementedError


def step_back(weights, kept, h, states, units, constants, d_states, d_factor):
    """`Cell.step_back` of that cell."""
    raise NotImplementedError


def product_back(weights, kept, h, states, units, constants, d_states, d_factor):
    """`Cell.product_back` of that cell."""
    raise NotImplementedError


@overload(step)
def _step(weights, gates, states, units, constants):
    formula = weights.instance_class.cell.step
    return lambda weights, gates, states, units, constants: formula(gates, states, units, constants)


@overload(factor)
def _factor(weights, gates, states, units, constants):
    if not weights.instance_class.cell.has_product:  # never called, but typed
        return lambda weights, gates, states, units, constants: states
    formula = weights.instance_class.cell.factor
    return lambda weights, gates, states, units, constants: formula(gates, states, units, constants)


@overload(fixed)
def _fixed(weights, units, constants):
    if not weights.instance_class.cell.fixed_numbers:  # never called, but typed
        return lambda weights, units, constants: units
    formula = weights.instance_class.cell.fixed
    return lambda weights, units, constants: formula(units, constants)


@overload(step_back)
def _step_back(weights, kept, h, states, units, constants, d_states, d_factor):
    formula = weights.instance_class.cell.step_back

    def call(weights, kept, h, states, units, constants, d_states, d_factor):
        return formula(kept, h, states, units, constants, d_states, d_factor)

    return call


@overload(product_back)
def _product_back(weights, kept, h, states, units, constants, d_states, d_factor):
    if not weights.instance_class.cell.has_product:  # never called, but typed
        return lambda weights, kept, h, states, units, constants, d_states, d_factor: d_states
    formula = weights.instance_class.cell.product_back

    def call(weights, kept, h, states, units, constants, d_states, d_factor):
        return formula(kept, h, states, units, constants, d_states, d_factor)

    return call


# -- where each parameter lies -----------------------------------------------------------------------------------------


class Layout(NamedTuple):
    """The numbers that say where each parameter lies."""

    input_size: int
    hidden_size: int
    output_size: int
    num_layers: int
    num_directions: int
    bias: int
    heads: int
    reverse: int
    #: rows over H of ``weight_ih``, of ``weight_hh`` without those of the cell's `product`, and of those
    gates_ih: int
    gates_hh: int
    product: int
    #: blocks of a row of sums, and those of them that the input has no part in (see ``cell.py``)
    gates: int
    turn: int
    #: 1 if the products are normalised, else 0
    normed: int
    #: unit weights
    units: int


def layout_of(cell: Cell, sizes: tuple[int, ...]) -> Layout:
    """The layout of the parameters of a layer; ``sizes`` are the fields of `Weights` from ``input_size`` on."""
    of_cell = (cell.gates_ih, cell.gates_hh, cell.has_product, cell.gates, cell.turn, cell.normed, cell.units)
    return Layout(*sizes, *of_cell)  # type: ignore[call-arg]  # mypy counts no tuple of any length


@intrinsic
def _number(typingctx, fact):
    """A fact of the cell as any number: what takes either is compiled once."""
    return types.intp(types.intp), lambda context, builder, sig, args: args[0]


@inner
def layout(weights):
    """The layout of these weights, in compiled code."""
    return Layout(
        weights.input_size, weights.hidden_size, weights.output_size, weights.num_layers, weights.num_directions,
        weights.bias, weights.heads, weights.reverse, _number(gates_ih_of(weights)), _number(gates_hh_of(weights)),
        _number(has_product(weights)), _number(gates_of(weights)), _number(_turn_of(weights)),
        _number(normed(weights)), _number(units_of(weights)),
    )  # fmt: skip


def named_shapes(cell: Cell, sizes: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    """Names and shapes of all parameters of a layer, in the order of the flat vector; ``sizes`` as for `layout_of`."""
    of = layout_of(cell, sizes)
    H, P = of.hidden_size, of.output_size
    rows_ih, rows_hh = of.gates_ih * H, (of.gates_hh + of.product) * H
    shapes: dict[str, tuple[int, ...]] = {}
    for layer in range(of.num_layers):
        inputs = of.input_size if layer == 0 else of.num_directions * P
        for suffix in ("", "_reverse")[: of.num_directions]:
            end = f"_l{layer}{suffix}"
            shapes["weight_ih" + end] = (rows_ih, inputs)
            if rows_hh:
                shapes["weight_hh" + end] = (rows_hh, P // of.heads)
            if of.bias:
                shapes["bias_ih" + end] = (rows_ih,)
                if rows_hh:
                    shapes["bias_hh" + end] = (rows_hh,)
            if P != H:
                shapes["weight_hr" + end] = (P, H)
            if of.normed:
                shapes["gain_ih" + end] = (rows_ih,)
                if rows_hh:
                    shapes["gain_hh" + end] = (rows_hh,)
            for name in cell.arguments.unit_weights:
                shapes[name + end] = (H,)
    return shapes


class Places(NamedTuple):
    """Where the parameters of one layer and direction begin in the flat vector, and where they end."""

    weight_ih: int
    weight_hh: int
    bias_ih: int
    bias_hh: int
    weight_hr: int
    gain_ih: int
    gain_hh: int
    units: int
    end: int
    #: input size of the layer
    inputs: int


@inner
def places(of, layer, direction):
    """The `Places` of one direction of one layer; ``of`` is a `Layout`."""
    H, P = of.hidden_size, of.output_size
    rows_ih, rows_hh = of.gates_ih * H, (of.gates_hh + of.product) * H
    at = 0
    for number in range(layer * of.num_directions + direction + 1):
        inputs = of.input_size
        if number >= of.num_directions:
            inputs = of.num_directions * P
        weight_hh = at + rows_ih * inputs
        bias_ih = weight_hh + rows_hh * (P // of.heads)
        bias_hh = bias_ih + rows_ih * of.bias
        weight_hr = bias_hh + rows_hh * of.bias
        gain_ih = weight_hr
        if P != H:
            gain_ih += P * H
        gain_hh = gain_ih + rows_ih * of.normed
        units = gain_hh + rows_hh * of.normed
        end = units + of.units * H
        found = Places(at, weight_hh, bias_ih, bias_hh, weight_hr, gain_ih, gain_hh, units, end, inputs)
        at = end
    return found
