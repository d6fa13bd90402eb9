"""The CUDA backend: a whole forward or backward pass over all layers. Its verbs are those of ``cpu/engine.py``.

What is passed is checked by the caller: arrays are C-contiguous, of the dtype of the weights, of matching shapes, and
either all on the host or all on the device; results are where the data are. Given device arrays, everything is enqueued
and nothing waits.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from ..batch import BackResults, Batch, Record, Results, States
from ..cells.cell import Cell
from ..cells.dropout import Dropout
from ..cells.parameters import Layout, layout_of, places
from .device import empty, nothing, stream, to_device, to_host, wait_for
from .layout import BatchLayout, batch_layout
from .products import column_sums, multiply, multiply_transposed
from .rows import drop, last_states, one_hot, states_before
from .scan import Scan, scan_forward
from .scan_back import scan_back

__all__ = ["Saved", "infer", "prepare", "record", "replay_back"]


class ScanWeights(NamedTuple):
    """The parameters of one direction of one layer, on the device; None for what is not there."""

    #: (gates_ih * H, K), K being the inputs of the layer
    weight_ih: Any
    #: (gates_hh * H, P)
    weight_hh: Any
    #: (H, H) of the cell's `product`: the last rows of what the state dict calls ``weight_hh``
    weight_product: Any
    #: (P, H) of a projection
    weight_hr: Any
    #: (1, (gates + units) * H + constants): what the sums of a row begin with, unit weights, and constants
    vectors: Any


class Parts(NamedTuple):
    """The parameters of one direction of one layer, or their gradients; None for what is not there."""

    #: matrices as in `ScanWeights`
    weight_ih: Any
    weight_hh: Any
    weight_product: Any
    weight_hr: Any
    #: (., 1) each
    bias_ih: Any
    bias_hh: Any
    bias_product: Any
    units: Any


class DeviceWeights(NamedTuple):
    """The parameters of a layer on the device."""

    cell: Cell
    of: Layout
    dtype: np.dtype[Any]
    #: for each layer and direction
    scans: list[ScanWeights]
    #: of all parameters
    size: int
    #: the stream that copies them
    made_on: Any


def prepare(cell: Cell, parameters: np.ndarray, constants: np.ndarray, sizes: tuple[int, ...]) -> DeviceWeights:
    """The weights of a layer, copied to the device."""
    of = layout_of(cell, sizes)
    H = of.hidden_size
    matrices, vectors = _parts(of, to_device(parameters)), []
    for host in _parts(of, parameters):
        start = np.zeros((of.gates, H), parameters.dtype)
        if of.bias:
            start[of.turn : of.gates - of.product] += host.bias_ih.reshape(of.gates_ih, H)
            if of.gates_hh:
                start[: of.gates_hh] += np.roll(host.bias_hh.reshape(of.gates_hh, H), of.turn, axis=0)
            if of.product:
                start[-1] += host.bias_product[:, 0]
        units = host.units.reshape(-1) if of.units else np.empty(0, parameters.dtype)
        vectors.append(np.concatenate([start.reshape(-1), units, constants]).reshape(1, -1))
    scans = [ScanWeights(*part[:4], to_device(numbers)) for part, numbers in zip(matrices, vectors, strict=True)]
    return DeviceWeights(cell, of, parameters.dtype, scans, len(parameters), stream())


def _parts(of: Layout, vector: Any) -> list[Parts]:
    """The parts of a vector laid out like the parameters, for each layer and direction."""
    H, P = of.hidden_size, of.output_size
    found = []
    for layer in range(of.num_layers):
        for direction in range(of.num_directions):
            at = places(of, layer, direction)
            own_weight, own_bias = at.weight_hh + of.gates_hh * H * P, at.bias_hh + of.gates_hh * H
            shapes = (
                (at.weight_ih, of.gates_ih * H, at.inputs), (at.weight_hh, of.gates_hh * H, P),
                (own_weight, of.product * H, H), (at.weight_hr, P if P != H else 0, H),
                (at.bias_ih, of.bias * of.gates_ih * H, 1), (at.bias_hh, of.bias * of.gates_hh * H, 1),
                (own_bias, of.bias * of.product * H, 1), (at.units, of.units * H, 1),
            )  # fmt: skip
            found.append(
                Parts(*[vector[begin : begin + m * n].reshape((m, n)) if m else None for begin, m, n in shapes])
            )
    return found


class Saved(NamedTuple):
    """What a forward pass leaves for its backward pass."""

    weights: DeviceWeights
    batch: Batch
    layout: BatchLayout
    #: (N, I) and the first h (L * D, B, P), on the device
    data: Any
    h_0: Any
    dropout: Dropout
    record: Record
    #: (N, D * P) the output of the last layer
    out: Any
    #: the stream of the forward pass
    made_on: Any

    @property
    def nbytes(self) -> int:
        """Bytes kept beyond input, output and states."""
        return sum(array.nbytes for array in self.record)


_NO_DROPOUT = Dropout(0.0, np.uint32(0), np.uint32(0))


def infer(weights: DeviceWeights, batch: Batch, states: States, show: bool = False) -> Results:
    """The output and the last states of a batch, and with ``show`` all states besides h; nothing is kept."""
    return _forward(weights, batch, states, _NO_DROPOUT, False, show)[0]


def record(
    weights: DeviceWeights, batch: Batch, states: States, dropout: Dropout, show: bool = False
) -> tuple[Results, Saved]:
    """As `infer`, with dropout, and what the backward pass needs."""
    return _forward(weights, batch, states, dropout, True, show)


def _forward(
    weights: DeviceWeights, batch: Batch, states: States, dropout: Dropout, keep: bool, show: bool
) -> tuple[Results, Saved]:
    cell, of, N, dtype = weights.cell, weights.of, batch.rows, weights.dtype
    H, P, L, D = of.hidden_size, of.output_size, of.num_layers, of.num_directions
    wait_for(weights.made_on)
    layout = batch_layout(batch.batch_sizes, batch.order)
    data = source = _on_device(batch.data)
    if batch.symbols:
        data = source = one_hot(data, of.input_size, dtype)
    h_0, others = _states(weights, states, layout.B)
    h_n = empty((L * D, layout.B, P), dtype)
    shown = empty((cell.others, N, D * H) if show else (0, 0, 0), dtype)
    out, kept = nothing(dtype), _record(weights, N if keep else 0)
    gates, unprojected = (
        empty((0 if keep else N, cell.kept_with_units * H), dtype),
        empty((0 if keep or P == H else N, H), dtype),
    )
    for layer in range(L):
        if dropout.rate > 0.0 and layer > 0 and N:
            dropped = empty(source.shape, dtype)
            drop(dropout, layer - 1, layout, source, dropped)
            source = dropped
        out = kept.outputs[layer] if keep and N and layer < L - 1 else empty((N, D * P), dtype)
        for direction in range(D):
            index = layer * D + direction
            d = _scan(weights, layout, kept, h_0, out, layer, direction)
            if not keep:
                d = d._replace(gates=gates, unprojected=unprojected)
            if N:
                _project(of, d, source)
                scan_forward(d, _matrix(others), _matrix(shown) if layer == L - 1 else nothing(dtype), keep)
            last_states(out, d.column, d.h_0, layout, d.reverse, h_n[index])
        source = out
    saved = Saved(weights, batch, layout, data, h_0, dropout, kept, out, stream())
    return Results(*_like(batch.data, out, h_n, others, shown)), saved


def _record(weights: DeviceWeights, N: int) -> Record:
    """Room for what a forward pass over N rows keeps."""
    cell, of, dtype = weights.cell, weights.of, weights.dtype
    H, P, D, L = of.hidden_size, of.output_size, of.num_directions, of.num_layers
    return Record(
        empty((L * D, N, cell.kept_with_units * H), dtype),
        empty((cell.kept_states, L * D, N, H), dtype),
        empty((L - 1, N, D * P), dtype),
        empty((L * D if P != H else 0, N, H), dtype),
    )


def _scan(
    weights: DeviceWeights, layout: BatchLayout, kept: Record, h_0: Any, out: Any, layer: int, direction: int
) -> Scan:
    """One direction of one layer, with its part of what is kept."""
    of = weights.of
    index, scans = layer * of.num_directions + direction, len(weights.scans)
    gates, unprojected = (
        part[index] if part.size else nothing(weights.dtype) for part in (kept.gates, kept.unprojected)
    )
    return Scan(
        weights.cell, weights.scans[index], layout, index, scans, direction + of.reverse == 1, gates, out,
        direction * of.output_size, unprojected, _matrix(kept.cells), h_0[index],
    )  # fmt: skip


def _project(of: Layout, d: Scan, source: Any) -> None:
    """Sums of biases and products with the input (N, K), into the gates."""
    N, K, H, start = len(source), source.shape[1], of.hidden_size, d.weights.vectors
    last = of.gates - of.product
    # sums that the input has no part in
    for first, following in ((0, of.turn), (last, of.gates)):
        multiply(
            source, (0, 0), source, False, d.gates, (0, first * H), N, (following - first) * H, 0, start, first * H
        )
    of_input = of.turn * H
    multiply(source, (0, 0), d.weights.weight_ih, True, d.gates, (0, of_input), N, of.gates_ih * H, K, start, of_input)


def replay_back(saved: Saved, d_out: Any, d_states: States, input_grad: bool, d_shown: Any = None) -> BackResults:
    """Gradients of the data, the first states and the parameters. Uses up the record. Symbols have no gradient."""
    weights, batch, layout, data, h_0, dropout, kept, last_out, made_on = saved
    of, N, dtype = weights.of, batch.rows, weights.dtype
    H, P, L, D = of.hidden_size, of.output_size, of.num_layers, of.num_directions
    wait_for(made_on)
    d_h, d_others = _states(weights, d_states, layout.B, copy=True)
    gradient = to_device(np.zeros(weights.size, dtype))
    gradients = _parts(of, gradient)
    d_x = empty(data.shape if input_grad else (0, 0), dtype)
    before = empty((N, P), dtype)
    d_projected = empty((N if P != H else 0, P), dtype)
    d_target = _on_device(d_out)
    all_shown = nothing(dtype) if d_shown is None else _matrix(_on_device(d_shown))
    for layer in range(L - 1, -1, -1) if N else ():
        source, d_source = data, d_x
        if layer > 0:
            source, d_source = kept.outputs[layer - 1], empty((N, D * P), dtype)
        if dropout.rate > 0.0 and layer > 0:
            dropped = empty(source.shape, dtype)
            drop(dropout, layer - 1, layout, source, dropped)
            source = dropped
        out = kept.outputs[layer] if layer < L - 1 else last_out
        for direction in range(D):
            index = layer * D + direction
            d = _scan(weights, layout, kept, h_0, out, layer, direction)
            shown = all_shown if layer == L - 1 else nothing(dtype)
            scan_back(d, d_target, d_h[index], _matrix(d_others), shown, d_projected)
            if layer > 0 or input_grad:
                _input_back(of, d, d_source, direction == 1)
            _weights_back(of, d, source, before, d_projected, gradients[index])
        if dropout.rate > 0.0 and layer > 0:
            drop(dropout, layer - 1, layout, d_source, d_source)
        d_target = d_source
    return BackResults(*_like(batch.data, d_x, d_h, d_others, gradient))


def _input_back(of: Layout, d: Scan, d_x: Any, add: bool) -> None:
    """d_x (N, K) = d_gates @ W_ih, or += with ``add``."""
    (N, K), H = d_x.shape, of.hidden_size
    multiply(d.gates, (0, of.turn * H), d.weights.weight_ih, False, d_x, (0, 0), N, K, of.gates_ih * H, add=add)


def _weights_back(of: Layout, d: Scan, source: Any, before: Any, d_projected: Any, gradient: Parts) -> None:
    """The gradients of the parameters: each a sum over all rows."""
    N, H, d_gates = len(source), of.hidden_size, d.gates
    of_input, of_product = of.turn * H, (of.gates - 1) * H
    multiply_transposed(d_gates, of_input, source, 0, N, 0, gradient.weight_ih)
    if gradient.bias_ih is not None:
        column_sums(d_gates, of_input, N, 0, gradient.bias_ih)
    if gradient.weight_hh is not None:
        states_before(d.out, d.column, d.h_0, d.layout, d.reverse, before)
        shift = (of.gates_hh - of.turn) * H % (of.gates_hh * H)  # blocks of the state alone are its last rows
        multiply_transposed(d_gates, 0, before, 0, N, shift, gradient.weight_hh)
        if gradient.bias_hh is not None:
            column_sums(d_gates, 0, N, shift, gradient.bias_hh)
    if gradient.weight_product is not None:
        multiply_transposed(
            d_gates, of_product, d_gates, (d.cell.kept_with_units - 1) * H, N, 0, gradient.weight_product
        )
        if gradient.bias_product is not None:
            column_sums(d_gates, of_product, N, 0, gradient.bias_product)
    if gradient.units is not None:
        column_sums(d_gates, of.gates * H, N, 0, gradient.units)
    if gradient.weight_hr is not None:
        multiply_transposed(d_projected, 0, d.unprojected, 0, N, 0, gradient.weight_hr)


# ---- between host and device -----------------------------------------------------------------------------------------


def _on_device(array: Any) -> Any:
    return to_device(array) if isinstance(array, np.ndarray) else array


def _matrix(array: Any) -> Any:
    """An array as a matrix of its last axis."""
    *rows, columns = array.shape
    return array.reshape((math.prod(rows), columns)) if array.size else nothing(array.dtype)


def _like(data: Any, *arrays: Any) -> tuple[Any, ...]:
    """Results where the data are."""
    return tuple(map(to_host, arrays)) if isinstance(data, np.ndarray) else arrays


def _states(weights: DeviceWeights, states: States, B: int, copy: bool = False) -> tuple[Any, Any]:
    """h (L * D, B, P) and the other states (S - 1, L * D, B, H) on the device: zeros if none are given.

    The other states, which the scans overwrite, are a copy; with ``copy`` h, too.
    """
    scans, of = len(weights.scans), weights.of
    h = _state(states.h, states.given, (scans, B, of.output_size), weights.dtype, copy)
    return h, _state(states.others, states.given, (weights.cell.others, scans, B, of.hidden_size), weights.dtype, True)


def _state(part: Any, given: bool, shape: tuple[int, ...], dtype: np.dtype[Any], copy: bool) -> Any:
    if not given or math.prod(shape) == 0:
        return to_device(np.zeros(shape, dtype))
    if isinstance(part, np.ndarray):
        return to_device(part)
    if not copy:
        return part
    own = empty(shape, dtype)
    own.copy_to_device(part, stream=stream())
    return own
