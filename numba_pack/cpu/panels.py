"""Prepacked weights: matrices laid out as the micro-kernel reads them.

A panel holds, for each k, the vectors of its columns side by side (see `tile.Columns`); columns beyond the matrix are
zero. The forward scans multiply by the transposed weights, whose panels are packed once for every assignment of the
parameters and kept. The backward scans multiply by the weights as they stand; packing those is a plain copy, made
anew in each backward pass.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .._jit import inner, jit
from ..cells.parameters import gates_of, kept_of, places, turn_of
from ..simd.lanes import load_first, store, transpose_block, width
from ..simd.memory import address
from ..simd.modes import put_back_mode, take_mode
from .tile import gate_columns, panel_count, panel_vectors, plain_columns

__all__ = [
    "BackPanels",
    "Panels",
    "aligned",
    "back_panels",
    "back_panels_size",
    "forward_panels",
    "pack_back",
    "pack_columns",
    "pack_forward",
]


class Panels(NamedTuple):
    """Addresses of what a forward scan of one direction of one layer multiplies by."""

    weight_ih: int
    weight_hh: int
    weight_hr: int
    #: ``kept * H`` elements: what the sums of a row start from
    bias: int
    #: input size of the layer
    inputs: int


class BackPanels(NamedTuple):
    """Addresses of what a backward scan of one direction of one layer multiplies by."""

    weight_ih: int
    weight_hh: int
    weight_hr: int
    inputs: int


@inner
def aligned(dtype, count):
    """An uninitialised 1-D array on a 64-byte boundary, where no vector straddles two cache lines."""
    spare = 64 // dtype.itemsize
    buffer = np.empty(count + spare, dtype.dtype)
    skip = (-address(buffer, 0) % 64) // dtype.itemsize
    return buffer[skip : skip + count]


@inner
def panel_columns(weights):
    """The columns of the products with input and state."""
    if gates_of(weights) == 1:
        return plain_columns(weights.parameters, weights.hidden_size)
    return gate_columns(weights.parameters, weights.hidden_size, gates_of(weights))


@inner
def panel_size(dtype, columns, k):
    """Elements of all panels of a matrix of k rows."""
    last = panel_count(columns) - 1
    return k * width(dtype) * (last * columns.vectors + panel_vectors(columns, last, width(dtype)))


@inner
def _lay_out(weights, layer, direction, transposed):
    """Offsets, in elements, of the weights of one direction in the buffer of panels, and where they end."""
    dtype, units, outputs = weights.parameters, weights.hidden_size, weights.output_size
    gates = gates_of(weights) * units
    at = 0
    for number in range(layer * weights.num_directions + direction + 1):
        inputs = weights.input_size if number < weights.num_directions else weights.num_directions * outputs
        if transposed:
            columns = panel_columns(weights)
            weight_hh = at + panel_size(dtype, columns, inputs)
            weight_hr = weight_hh + panel_size(dtype, columns, outputs)
            bias = weight_hr
            if outputs != units:
                bias += panel_size(dtype, plain_columns(dtype, outputs), units)
            end = bias + -(-kept_of(weights) * units // 16) * 16
        else:
            weight_hh = at + panel_size(dtype, plain_columns(dtype, inputs), gates)
            weight_hr = weight_hh + panel_size(dtype, plain_columns(dtype, outputs), gates)
            bias = weight_hr
            if outputs != units:
                bias += panel_size(dtype, plain_columns(dtype, units), outputs)
            end = bias
        found = (at, weight_hh, weight_hr, bias, end, inputs)
        at = end
    return found


@inner
def forward_panels(weights, layer, direction):
    """Where `pack_forward` put the weights of one direction of one layer."""
    weight_ih, weight_hh, weight_hr, bias, _, inputs = _lay_out(weights, layer, direction, True)
    panels = weights.panels
    return Panels(
        address(panels, weight_ih),
        address(panels, weight_hh),
        address(panels, weight_hr),
        address(panels, bias),
        inputs,
    )


@inner
def back_panels(weights, panels, layer, direction):
    """Where `pack_back` put the weights of one direction of one layer."""
    weight_ih, weight_hh, weight_hr, _, _, inputs = _lay_out(weights, layer, direction, False)
    return BackPanels(address(panels, weight_ih), address(panels, weight_hh), address(panels, weight_hr), inputs)


@inner
def _pack_transposed(source, first, k, columns, turn, target, at):
    """Panels of the transpose of the matrix (n, k) at ``source[first:]``, its gates rotated by ``turn``."""
    lanes, size = width(source), source.itemsize
    for p in range(panel_count(columns)):
        vectors = panel_vectors(columns, p, lanes)
        for j in range(vectors):
            gate = j if columns.adjacent else (j + columns.vectors - turn) % columns.vectors
            column = p * columns.per_panel + gate * columns.between
            left = columns.total - p * columns.per_panel - (j * lanes if columns.adjacent else 0)
            for kk in range(0, k, lanes):
                row, to = first + column * k + kk, at + (kk * vectors + j) * lanes
                transpose_block(
                    source, address(source, row), k * size, left, k - kk, address(target, to), vectors * lanes * size
                )
        at += k * vectors * lanes


@inner
def _pack_plain(source, first, k, columns, turn, target, at):
    """Panels of the matrix (k, n) at ``source[first:]``, its row blocks of gates rotated by ``turn`` rows."""
    lanes, n = width(source), columns.total
    for p in range(panel_count(columns)):
        vectors = panel_vectors(columns, p, lanes)
        for kk in range(k):
            row = first + ((kk + k - turn) % k) * n + p * columns.per_panel
            for j in range(vectors):
                left = n - p * columns.per_panel - j * lanes
                value = load_first(source, address(source, row + j * lanes), left)
                store(address(target, at + (kk * vectors + j) * lanes), value)
        at += k * vectors * lanes


@inner
def _pack_bias(weights, place, target, at):
    """The row (kept * H,) that sums start from: biases of the state's products first, where they stand alone."""
    units, gates, turn = weights.hidden_size, gates_of(weights), turn_of(weights)
    for column in range(kept_of(weights) * units):
        target[at + column] = 0
    if weights.bias:
        mode = take_mode()
        for gate in range(gates):
            state = ((gate + turn) % gates) * units  # where the product with the state adds this gate
            for unit in range(units):
                row = gate * units + unit
                target[at + turn * units + row] += weights.parameters[place.bias_ih + row]
                target[at + state + unit] += weights.parameters[place.bias_hh + row]
        put_back_mode(mode)


@jit
def pack_forward(weights):
    """The panels of the forward scans: ``weights.panels`` of new weights (the field itself is not read)."""
    dtype, units, outputs = weights.parameters, weights.hidden_size, weights.output_size
    layers, directions = weights.num_layers, weights.num_directions
    panels = aligned(dtype, _lay_out(weights, layers - 1, directions - 1, True)[4])
    columns = panel_columns(weights)
    for layer in range(layers):
        for direction in range(directions):
            place = places(weights, layer, direction)
            at, weight_hh, weight_hr, bias, _, inputs = _lay_out(weights, layer, direction, True)
            _pack_transposed(weights.parameters, place.weight_ih, inputs, columns, 0, panels, at)
            _pack_transposed(weights.parameters, place.weight_hh, outputs, columns, turn_of(weights), panels, weight_hh)
            if outputs != units:
                projected = plain_columns(dtype, outputs)
                _pack_transposed(weights.parameters, place.weight_hr, units, projected, 0, panels, weight_hr)
            _pack_bias(weights, place, panels, bias)
    return panels


@jit
def pack_columns(matrix):
    """The panels of the transpose of one matrix (n, k)."""
    n, k = matrix.shape
    columns = plain_columns(matrix, n)
    panels = aligned(matrix, panel_size(matrix, columns, k))
    _pack_transposed(matrix.reshape(n * k), 0, k, columns, 0, panels, 0)
    return panels


@jit
def back_panels_size(weights):
    """Elements of the panels of the backward scans."""
    return _lay_out(weights, weights.num_layers - 1, weights.num_directions - 1, False)[4]


@jit
def pack_back(weights, panels, input_grad):
    """Fill the panels of the backward scans; without ``input_grad`` not those that the input's gradient takes."""
    dtype, units, outputs = weights.parameters, weights.hidden_size, weights.output_size
    layers, directions = weights.num_layers, weights.num_directions
    gates, turn = gates_of(weights) * units, turn_of(weights) * units
    for layer in range(layers):
        for direction in range(directions):
            place = places(weights, layer, direction)
            at, weight_hh, weight_hr, _, _, inputs = _lay_out(weights, layer, direction, False)
            if layer > 0 or input_grad:
                _pack_plain(weights.parameters, place.weight_ih, gates, plain_columns(dtype, inputs), 0, panels, at)
            _pack_plain(
                weights.parameters, place.weight_hh, gates, plain_columns(dtype, outputs), turn, panels, weight_hh
            )
            if outputs != units:
                _pack_plain(
                    weights.parameters, place.weight_hr, outputs, plain_columns(dtype, units), 0, panels, weight_hr
                )
