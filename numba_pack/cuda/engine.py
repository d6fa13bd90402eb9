"""The CUDA backend: a whole forward or backward pass over all layers. Its verbs are those of ``cpu/engine.py``.

What is passed is checked by the caller: arrays are C-contiguous, of the dtype of the weights, of matching shapes, and
either all on the host or all on the device; results are where the data are. Given device arrays, everything is enqueued
and nothing waits.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from ..batch import BackResults, Batch, Record, Results, States
from ..cells.cell import Cell
from ..cells.dropout import NO_DROPOUT, Dropout
from ..cells.parameters import Layout, layout_of, places
from .device import Array, ceil_div, copy, empty, follow, nothing, side_by_side, stream, to_device, to_host, zeros
from .layout import BatchLayout, batch_layout
from .products import column_sums, multiply, multiply_transposed
from .rows import drop, last_states, one_hot, states_before
from .scan import Scan, forward_weights, scan_forward
from .scan_back import back_weights, scan_back

__all__ = ["Saved", "factors_for", "infer", "prepare", "record", "replay_back"]


class ScanWeights(NamedTuple):
    """The parameters of one direction of one layer, on the device; None for what is not there."""

    #: (gates_ih * H, K), K being the inputs of the layer
    weight_ih: Any
    #: (H, H) of the cell's `product`: the last rows of what the state dict calls ``weight_hh``
    weight_product: Any
    #: (P, H) of a projection
    weight_hr: Any
    #: weight_hh as the scans read it: see ``step.py``; empty where there is none
    forward: Any
    back: Any
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


def factors_for(precision: str, dtype: np.dtype[Any], hidden_size: int) -> str:
    """Floats for every precision: what is computed here is as exact as "highest" asks for."""
    return "float"


def prepare(cell: Cell, parameters: np.ndarray, constants: np.ndarray, sizes: tuple[int, ...]) -> DeviceWeights:
    """The weights of a layer, copied to the device."""
    of = layout_of(cell, sizes)
    vectors = to_device(np.stack([_vectors(of, part, constants) for part in _parts(of, parameters)]))
    parts = _parts(of, to_device(parameters))
    scans = [_scan_weights(cell, of, part, vectors[i : i + 1]) for i, part in enumerate(parts)]
    return DeviceWeights(cell, of, parameters.dtype, scans, len(parameters), stream())


def _vectors(of: Layout, part: Parts, constants: np.ndarray) -> np.ndarray:
    """`ScanWeights.vectors` of the parameters on the host."""
    H = of.hidden_size
    start = np.zeros((of.gates, H), constants.dtype)
    if of.bias:
        start[of.turn : of.gates - of.product] += part.bias_ih.reshape(of.gates_ih, H)
        if of.gates_hh:
            start[: of.gates_hh] += np.roll(part.bias_hh.reshape(of.gates_hh, H), of.turn, axis=0)
        if of.product:
            start[-1] += part.bias_product[:, 0]
    units = [part.units.reshape(-1)] if of.units else []
    return np.concatenate([start.reshape(-1), *units, constants])


def _scan_weights(cell: Cell, of: Layout, part: Parts, vectors: Any) -> ScanWeights:
    """What the scans of one direction of one layer read: what is made of it is made here, once for all calls."""
    forward = back = empty((0,), vectors.dtype)
    if part.weight_hh is not None:
        forward = forward_weights(cell, part.weight_hh, of.hidden_size)
        back = back_weights(cell, part.weight_hh, of.hidden_size)
    return ScanWeights(part.weight_ih, part.weight_product, part.weight_hr, forward, back, vectors)


@functools.cache
def _shapes(of: Layout) -> list[list[tuple[int, tuple[int, int]]]]:
    """For each layer and direction where each of its `Parts` begins in the parameters, and its shape."""
    H, P, found = of.hidden_size, of.output_size, []
    for layer in range(of.num_layers):
        for direction in range(of.num_directions):
            at = places(of, layer, direction)
            own_weight, own_bias = at.weight_hh + of.gates_hh * H * P, at.bias_hh + of.gates_hh * H
            found.append(
                [
                    (at.weight_ih, (of.gates_ih * H, at.inputs)), (at.weight_hh, (of.gates_hh * H, P)),
                    (own_weight, (of.product * H, H)), (at.weight_hr, (P if P != H else 0, H)),
                    (at.bias_ih, (of.bias * of.gates_ih * H, 1)), (at.bias_hh, (of.bias * of.gates_hh * H, 1)),
                    (own_bias, (of.bias * of.product * H, 1)), (at.units, (of.units * H, 1)),
                ]
            )  # fmt: skip
    return found


def _parts(of: Layout, vector: Any) -> list[Parts]:
    """The parts of a vector laid out like the parameters, for each layer and direction."""
    return [
        Parts(*[_part(vector, begin, shape) if shape[0] else None for begin, shape in shapes]) for shapes in _shapes(of)
    ]


def _part(vector: Any, begin: int, shape: tuple[int, ...]) -> Any:
    """A view of so many elements from this one on."""
    if type(vector) is Array:
        return vector.part(begin, shape)
    return vector[begin : begin + math.prod(shape)].reshape(shape)


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


#: of numbers: what begins at a multiple of it in an array may be read in fours
_APART = 64


def infer(weights: DeviceWeights, batch: Batch, states: States, show: bool = False) -> Results:
    """The output and the last states of a batch, and with ``show`` all states besides h; nothing is kept."""
    return _forward(weights, batch, states, NO_DROPOUT, False, show)[0]


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
    follow(weights.made_on, _arrays_of(weights))
    layout = batch_layout(batch.batch_sizes, batch.order)
    data = source = _on_device(batch.data)
    if batch.symbols:
        data = source = one_hot(data, of.input_size, dtype)
    h_0, others = _states(weights, states, layout.B)
    h_n = empty((L * D, layout.B, P), dtype)
    shown = empty((cell.others, N, D * H) if show else (0, 0, 0), dtype)
    out, kept = nothing(dtype), _record(weights, N if keep else 0)
    gates = empty((D, 0 if keep else N, cell.kept_with_units * H), dtype)
    unprojected = empty((D, 0 if keep or P == H else N, H), dtype)
    for layer in range(L):
        if dropout.rate > 0.0 and layer > 0 and N:
            dropped = empty(source.shape, dtype)
            drop(dropout, layer - 1, layout, source, dropped)
            source = dropped
        out = kept.outputs[layer] if keep and N and layer < L - 1 else empty((N, D * P), dtype)
        with side_by_side(D) as on:
            for direction in range(D):
                index = layer * D + direction
                d = _scan(weights, layout, kept, h_0, out, layer, direction)
                if not keep:
                    d = d._replace(gates=gates[direction], unprojected=unprojected[direction])
                with on(direction):
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
        weights.cell, weights.scans[index], layout, index, scans, direction + of.reverse == 1, of.num_directions,
        gates, out, direction * of.output_size, unprojected, _matrix(kept.cells), h_0[index],
    )  # fmt: skip


def _project(of: Layout, d: Scan, source: Any) -> None:
    """Sums of biases and products with the input (N, K), into the gates."""
    N, K, H, start = len(source), source.shape[1], of.hidden_size, d.weights.vectors
    last = of.gates - of.product
    # sums that the input has no part in
    for first, following in ((0, of.turn), (last, of.gates)):
        if first < following:
            columns = (following - first) * H
            multiply(source, (0, 0), source, False, d.gates, (0, first * H), N, columns, 0, start, first * H)
    of_input = of.turn * H
    multiply(source, (0, 0), d.weights.weight_ih, True, d.gates, (0, of_input), N, of.gates_ih * H, K, start, of_input)


def replay_back(saved: Saved, d_out: Any, d_states: States, input_grad: bool, d_shown: Any = None) -> BackResults:
    """Gradients of the data, the first states and the parameters. Uses up the record. Symbols have no gradient."""
    weights, batch, layout, data, h_0, dropout, kept, last_out, made_on = saved
    of, N, dtype = weights.of, batch.rows, weights.dtype
    H, P, L, D = of.hidden_size, of.output_size, of.num_layers, of.num_directions
    follow(made_on, _arrays_of_saved(saved))
    d_h, d_others = _states(weights, d_states, layout.B, copied=True)
    gradient = (empty if N else zeros)(weights.size, dtype)
    gradients = _parts(of, gradient)
    d_x = empty(data.shape if input_grad else (0, 0), dtype)
    before = empty((D, N if of.gates_hh else 0, P), dtype)
    d_projected = empty((D, N if P != H else 0, P), dtype)
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
        shown = all_shown if layer == L - 1 else nothing(dtype)
        scans = [_scan(weights, layout, kept, h_0, out, layer, direction) for direction in range(D)]
        with side_by_side(D) as on:
            for direction, d in enumerate(scans):
                with on(direction):
                    scan_back(d, d_target, d_h[d.number], _matrix(d_others), shown, d_projected[direction])
                    _weights_back(of, d, source, before[direction], d_projected[direction], gradients[d.number])
        for direction, d in enumerate(scans if layer > 0 or input_grad else ()):
            _input_back(of, d, d_source, direction == 1)
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
        if gradient.bias_hh is not None and of.turn == 0 and of.gates_hh == of.gates_ih:
            copy(gradient.bias_hh, gradient.bias_ih)
        elif gradient.bias_hh is not None:
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


def _arrays_of(weights: DeviceWeights) -> Iterator[Any]:
    """What is read of the weights."""
    return (part for scan in weights.scans for part in scan)


def _arrays_of_saved(saved: Saved) -> Iterator[Any]:
    """What a backward pass reads of a forward pass."""
    yield from (saved.data, saved.h_0, saved.out, saved.layout.rows, *saved.record)
    yield from _arrays_of(saved.weights)


def _states(weights: DeviceWeights, states: States, B: int, copied: bool = False) -> tuple[Any, Any]:
    """h (L * D, B, P) and the other states (S - 1, L * D, B, H) on the device: zeros if none are given.

    The other states, which the scans overwrite, are a copy; so is h with ``copied``.
    """
    scans, of, dtype = len(weights.scans), weights.of, weights.dtype
    h_shape, others_shape = (scans, B, of.output_size), (weights.cell.others, scans, B, of.hidden_size)
    if states.given and B:
        return _state(states.h, h_shape, dtype, copied), _state(states.others, others_shape, dtype, True)
    others_at = ceil_div(math.prod(h_shape), _APART) * _APART
    both = zeros(others_at + math.prod(others_shape), dtype)
    return _part(both, 0, h_shape), _part(both, others_at, others_shape)


def _state(part: Any, shape: tuple[int, ...], dtype: np.dtype[Any], copied: bool) -> Any:
    if isinstance(part, np.ndarray):
        return to_device(part.reshape(shape)) if part.size else empty(shape, dtype)
    if not copied:
        return part
    own = empty(shape, dtype)
    if own.size:
        copy(own, part)
    return own
