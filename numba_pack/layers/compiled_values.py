"""What compiled code gives to the layers, checked, and as the kernels take it; and results as compiled code takes them.

Types are right when these functions are compiled: shapes and values are checked when they run.
"""

from __future__ import annotations

import numpy as np
from numba import types
from numba.core.imputils import impl_ret_borrowed
from numba.extending import intrinsic

from .._jit import inner
from ..batch import States
from ..cpu.shapes import record_shapes, result_shapes
from ..packing.checks import OUTSIDE, ArgumentError, outside
from ..packing.sequences import PackedSequence, check_packed
from .compiled_types import by_type, typed_gradient, typed_state

__all__ = ["as_gradient", "as_state", "batch_of", "check_tape", "rows_of", "states_of", "with_rows"]


@intrinsic
def _there(typing_context, value):
    """What may be None, where it is not."""

    def generate(context, builder, signature, arguments):
        value = context.cast(builder, arguments[0], signature.args[0], signature.return_type)
        return impl_ret_borrowed(context, builder, signature.return_type, value)

    return value.type(value), generate


@inner
def _check_axis(name, text, got, expected):
    if got != expected:
        raise ArgumentError(name, text, got, expected, -1)


@by_type
def _plain(array):
    """The array as the kernels are compiled for: contiguous and writable."""
    if array.layout == "C" and array.mutable:
        return lambda array: array
    return lambda array: array.copy()


# -- the batch ---------------------------------------------------------------------------------------------------------


@inner
def batch_of(packed, weights):
    """A batch, with data as the kernels take them."""
    packed = check_packed(packed)
    return with_rows(packed, _input(packed.data, weights))


@inner
def with_rows(packed, rows):
    """A batch of other rows."""
    return PackedSequence(rows, packed.batch_sizes, packed.sorted_indices, packed.unsorted_indices)


@by_type
def _input(data, weights):
    """Rows (N, I), or a copy of symbols (N,)."""

    def rows(data, weights):
        _check_axis("packed", ".data.shape[1] must be the input size: expected", data.shape[1], weights.input_size)
        return _plain(data)

    def symbols(data, weights):
        copy = data.astype(np.int64)
        _check_symbols("packed.data", copy, data, weights)
        return copy

    return rows if data.ndim == 2 else symbols


@inner
def _check_symbols(name, symbols, given, weights):
    at = outside(symbols, weights.input_size)
    if at >= 0:
        raise ArgumentError(name, OUTSIDE, given[at], weights.input_size, at)


@by_type
def as_gradient(packed, d_x):
    """The gradient of the input in its form; symbols have none."""
    if packed[0].ndim == 1:
        return lambda packed, d_x: None
    return lambda packed, d_x: with_rows(packed, d_x)


@by_type
def rows_of(d_output, out):
    """The gradient of the output as rows (N, D * P), from a PackedSequence, an array, or None."""
    if isinstance(d_output, types.Optional):

        def either(d_output, out):
            return rows_of(None, out) if d_output is None else rows_of(_there(d_output), out)

        return either
    if not typed_gradient(d_output, out.dtype):
        return lambda d_output, out: np.zeros_like(out)
    if getattr(d_output, "instance_class", None) is PackedSequence:
        return lambda d_output, out: rows_of(d_output.data, out)

    def rows(d_output, out):
        _check_axis("d_output", ".shape[0] must be the number of rows: expected", d_output.shape[0], out.shape[0])
        _check_axis("d_output", ".shape[1] must be that of the output: expected", d_output.shape[1], out.shape[1])
        return _plain(d_output)

    return rows


# -- states ------------------------------------------------------------------------------------------------------------


@by_type
def states_of(hx, weights, name, B):
    """The `States` of hx, of the gradient of the last state, or of None."""
    if isinstance(hx, types.Optional):

        def either(hx, weights, name, B):
            return states_of(None, weights, name, B) if hx is None else states_of(_there(hx), weights, name, B)

        return either
    if not typed_state(hx, "hx", weights):

        def none(hx, weights, name, B):
            dtype = weights.parameters.dtype
            return States(np.empty((0, 0, 0), dtype), np.empty((0, 0, 0, 0), dtype), False)

        return none

    def given(hx, weights, name, B):
        h = _plain(_first(hx))
        _check_state(name, h, weights, B, weights.output_size)
        others = np.empty(result_shapes(weights, 0, B)[2], h.dtype)
        _put_each(hx, others, weights, name, B)
        return States(h, others, True)

    return given


@by_type
def _first(hx):
    return (lambda hx: hx[0]) if isinstance(hx, types.BaseTuple) else (lambda hx: hx)


@inner
def _check_state(name, state, weights, B, size):
    scans = weights.num_layers * weights.num_directions
    _check_axis(name, ".shape[0] must be num_layers * num_directions: expected", state.shape[0], scans)
    _check_axis(name, ".shape[1] must be the number of sequences: expected", state.shape[1], B)
    _check_axis(name, ".shape[2] must be the size of the state: expected", state.shape[2], size)


@by_type
def _put_each(hx, others, weights, name, B):
    """Fill ``others`` (S - 1, L * D, B, H), from its end on, with the states after the first, which are checked."""
    if not isinstance(hx, types.BaseTuple) or len(hx) == 1:
        return lambda hx, others, weights, name, B: None

    def each(hx, others, weights, name, B):
        _check_state(name, hx[1], weights, B, weights.hidden_size)
        others[len(others) + 1 - len(hx)] = hx[1]
        _put_each(hx[1:], others, weights, name, B)

    return each


@by_type
def as_state(weights, h, others):
    """States, or their gradients, as compiled code takes them."""
    states = weights.instance_class.cell.states
    if states == 1:
        return lambda weights, h, others: h
    parts = ", ".join(f"others[{i}]" for i in range(states - 1))
    return eval(f"lambda weights, h, others: (h, {parts})")


# -- a tape ------------------------------------------------------------------------------------------------------------


@inner
def check_tape(tape):
    """Refuse a tape whose arrays are not, or no longer, what a forward pass leaves: the caller can reach them."""
    weights, packed, states, record, out, used = tape
    _check_left("tape.used", used, (1,))
    if used[0]:
        raise ValueError("tape must not have been used: backward uses it up; got one that it was called with before")
    check_packed(packed, "tape.packed")
    N, B = len(packed.data), len(packed.sorted_indices)
    _check_input_left(packed.data, weights)
    gates, cells, outputs, unprojected = record_shapes(weights, N)
    _check_left("tape.record.gates", record.gates, gates)
    _check_left("tape.record.cells", record.cells, cells)
    _check_left("tape.record.outputs", record.outputs, outputs)
    _check_left("tape.record.unprojected", record.unprojected, unprojected)
    output, h, others, _ = result_shapes(weights, N, B)
    _check_left("tape.output", out, output)
    if states.given:
        _check_left("tape.states.h", states.h, h)
        _check_left("tape.states.others", states.others, others)


@inner
def _check_left(name, array, shape):
    for axis in range(array.ndim):
        _check_axis(name, " must be as forward left it: expected size", array.shape[axis], shape[axis])


@by_type
def _check_input_left(data, weights):
    """The same for the input."""
    if data.ndim == 2:
        return lambda data, weights: _check_left("tape.packed.data", data, (len(data), weights.input_size))
    return lambda data, weights: _check_symbols("tape.packed.data", data, data, weights)
