"""The CUDA backend: a whole forward or backward pass over all layers. Its verbs are those of ``cpu/engine.py``.

What is passed is checked by the caller: arrays are C-contiguous, of the dtype of the weights, of matching shapes, and
either all on the host or all on the device; results are where the data are. Given device arrays, everything is enqueued
and nothing waits.
"""

from __future__ import annotations

import itertools
import math
from typing import Any, NamedTuple

import numpy as np

from ..batch import Batch, States
from ..cells.cell import Cell
from ..cells.dropout import Dropout
from ..cells.parameters import WEIGHTS, Weights, named_shapes
from .device import empty, nothing, stream, to_device, to_host, wait_for
from .layout import Layout, layout_of
from .products import column_sums, multiply, multiply_transposed
from .rows import drop, last_states, one_hot, states_before
from .scan import Direction, scan_forward
from .scan_back import scan_back

__all__ = ["Saved", "infer", "prepare", "record", "replay_back"]


class ScanWeights(NamedTuple):
    """The parameters of one direction of one layer, on the device. A gradient has the same fields."""

    #: (G, K), K being the inputs of the layer
    weight_ih: Any
    #: (G, P)
    weight_hh: Any
    #: (G, 1) each; None without biases
    bias_ih: Any
    bias_hh: Any
    #: (P, H); None without a projection
    weight_hr: Any


class DeviceWeights(NamedTuple):
    """The parameters of a layer on the device."""

    cell: Cell
    hidden_size: int
    output_size: int
    num_layers: int
    num_directions: int
    #: names and shapes of the parameters
    shapes: dict[str, tuple[int, ...]]
    #: for each layer and direction
    scans: list[ScanWeights]
    #: (kept * H,) for each layer and direction, what sums begin with: the biases, added up where they meet
    starts: list[Any]
    #: the stream that copies them
    made_on: Any


def prepare(kind: type[Weights], parameters: np.ndarray, sizes: tuple[int, ...]) -> DeviceWeights:
    """The weights of a layer, copied to the device."""
    input_size, H, P, L, D, bias = sizes
    cell = WEIGHTS[kind]
    shapes = named_shapes(cell.gates, input_size, H, P if P != H else 0, L, D, bool(bias))
    scans = _scans(shapes, to_device(parameters), L * D)
    starts = []
    for host in _scans(shapes, parameters, L * D):
        start = np.zeros((cell.kept, H), parameters.dtype)
        if bias:
            start[cell.turn :] += host.bias_ih.reshape(cell.gates, H)
            start[: cell.gates] += np.roll(host.bias_hh.reshape(cell.gates, H), cell.turn, axis=0)
        starts.append(to_device(start.reshape(-1)))
    return DeviceWeights(cell, H, P, L, D, shapes, scans, starts, stream())


def _scans(shapes: dict[str, tuple[int, ...]], vector: Any, count: int) -> list[ScanWeights]:
    """The parts of a vector laid out like the parameters, for each of ``count`` layers and directions."""
    parts: list[dict[str, Any]] = [{} for _ in range(count)]
    at = 0
    for i, (name, shape) in enumerate(shapes.items()):
        size = math.prod(shape)
        matrix = shape if len(shape) == 2 else (size, 1)
        parts[i * count // len(shapes)][name.split("_l")[0]] = vector[at : at + size].reshape(matrix)
        at += size
    return [ScanWeights(*map(part.get, ScanWeights._fields)) for part in parts]


class Record(NamedTuple):
    """What a forward pass keeps for the backward pass, on the device."""

    #: L * D of (N, kept * H): the gates, as `Cell.step` leaves them
    gates: list[Any]
    #: L * D of (N, H): c after each step; empty for cells without c
    cells: list[Any]
    #: L of (N, D * P): the output of each layer
    outputs: list[Any]
    #: L * D of (N, H): h before the projection; empty without one
    unprojected: list[Any]


class Saved(NamedTuple):
    """What a forward pass leaves for its backward pass."""

    weights: DeviceWeights
    batch: Batch
    layout: Layout
    #: (N, I), h_0 (L * D, B, P) and c_0 (L * D, B, H), on the device
    data: Any
    states: States
    dropout: Dropout
    record: Record
    #: the stream of the forward pass
    made_on: Any

    @property
    def nbytes(self) -> int:
        """Bytes kept beyond input, output and states."""
        kept = itertools.chain(*self.record._replace(outputs=self.record.outputs[:-1]))
        return sum(array.nbytes for array in kept)


_NO_DROPOUT = Dropout(0.0, np.uint32(0), np.uint32(0))


def infer(weights: DeviceWeights, batch: Batch, states: States) -> tuple[Any, Any, Any]:
    """The output (N, D * P), h_n (L * D, B, P) and c_n (L * D, B, H) of a batch; nothing is kept."""
    out, h_n, c_n, _ = _forward(weights, batch, states, _NO_DROPOUT, False)
    return out, h_n, c_n


def record(weights: DeviceWeights, batch: Batch, states: States, dropout: Dropout) -> tuple[Any, Any, Any, Saved]:
    """As `infer`, with dropout, and what the backward pass needs."""
    return _forward(weights, batch, states, dropout, True)


def _forward(
    weights: DeviceWeights, batch: Batch, states: States, dropout: Dropout, keep: bool
) -> tuple[Any, Any, Any, Saved]:
    cell, H, P, D = weights.cell, weights.hidden_size, weights.output_size, weights.num_directions
    N, dtype = batch.rows, weights.starts[0].dtype
    wait_for(weights.made_on)
    layout = layout_of(batch.batch_sizes, batch.order)
    data, states = _on_device(batch.data), _states(weights, states, layout.B, dtype)
    if batch.symbols:
        data = one_hot(data, weights.scans[0].weight_ih.shape[1], dtype)
    h_n, c_n = (empty(part.shape, dtype) for part in states[:2])
    kept = Record([], [], [], [])
    source = data
    for layer in range(weights.num_layers):
        if dropout.rate > 0.0 and layer > 0 and N:
            dropped = empty(source.shape, dtype)
            drop(dropout, layer - 1, layout, source, dropped)
            source = dropped
        out = empty((N, D * P), dtype)
        for direction in range(D):
            d = _direction(weights, layout, states, layer, direction)
            d = d._replace(
                gates=empty((N, cell.kept * H), dtype),
                out=out,
                cells=empty((N if cell.has_c else 0, H), dtype),
                unprojected=empty((N if P != H else 0, H), dtype),
            )
            if N:
                _project(d, weights.starts[layer * D + direction], source)
                scan_forward(d, keep)
            index = layer * D + direction
            last_states(out, d.column, d.h_0, layout, d.reverse, h_n[index])
            if cell.has_c:
                last_states(d.cells, 0, d.c_0, layout, d.reverse, c_n[index])
            if keep:
                kept.gates.append(d.gates)
                kept.cells.append(d.cells)
                kept.unprojected.append(d.unprojected)
        if keep:
            kept.outputs.append(out)
        source = out
    saved = Saved(weights, batch, layout, data, states, dropout, kept, stream())
    return *_like(batch.data, source, h_n, c_n), saved


def _direction(weights: DeviceWeights, layout: Layout, states: States, layer: int, direction: int) -> Direction:
    """One direction of one layer, without what the forward pass makes for it."""
    index = layer * weights.num_directions + direction
    none = nothing(states.h.dtype, 2)
    c_0 = states.c[index] if weights.cell.has_c else none
    column = direction * weights.output_size
    return Direction(
        weights.cell, weights.scans[index], layout, none, none, column, none, none, states.h[index], c_0, direction == 1
    )


def _project(d: Direction, start: Any, source: Any) -> None:
    """Sums of biases and products with the input (N, K), into the gates (N, kept * H)."""
    N, (G, K) = len(source), d.weights.weight_ih.shape
    of_input = d.gates.shape[1] - G  # columns of sums that the input has no part in
    multiply(source, (0, 0), source, False, d.gates, (0, 0), N, of_input, 0, start)
    multiply(source, (0, 0), d.weights.weight_ih, True, d.gates, (0, of_input), N, G, K, start, of_input)


def replay_back(saved: Saved, d_out: Any, d_states: States, input_grad: bool) -> tuple[Any, Any, Any, Any]:
    """Gradients of the data (N, I; empty without ``input_grad``), h_0, c_0 and the parameters. Uses up the record."""
    weights, batch, layout, data, states, dropout, kept, made_on = saved
    cell, H, P = weights.cell, weights.hidden_size, weights.output_size
    D, N, dtype = weights.num_directions, batch.rows, data.dtype
    wait_for(made_on)
    d_states = _states(weights, d_states, layout.B, dtype, copy=True)
    gradient = to_device(np.zeros(sum(map(math.prod, weights.shapes.values())), dtype))
    gradients = _scans(weights.shapes, gradient, len(weights.scans))
    d_x = empty(data.shape if input_grad else (0, 0), dtype)
    before = empty((N, P), dtype)
    d_projected = empty((N if P != H else 0, P), dtype)
    d_target = _on_device(d_out)
    for layer in range(weights.num_layers - 1, -1, -1) if N else ():
        source, d_source = data, d_x
        if layer > 0:
            source, d_source = kept.outputs[layer - 1], empty((N, D * P), dtype)
        if dropout.rate > 0.0 and layer > 0:
            dropped = empty(source.shape, dtype)
            drop(dropout, layer - 1, layout, source, dropped)
            source = dropped
        for direction in range(D):
            index = layer * D + direction
            d = _direction(weights, layout, states, layer, direction)._replace(
                gates=kept.gates[index],
                out=kept.outputs[layer],
                cells=kept.cells[index],
                unprojected=kept.unprojected[index],
            )
            d_c = d_states.c[index] if cell.has_c else nothing(dtype, 2)
            scan_back(d, d_target, d_states.h[index], d_c, d_projected)
            if layer > 0 or input_grad:
                _input_back(d, d_source, direction == 1)
            states_before(d.out, d.column, d.h_0, layout, d.reverse, before)
            _weights_back(d, source, before, d_projected, gradients[index])
        if dropout.rate > 0.0 and layer > 0:
            drop(dropout, layer - 1, layout, d_source, d_source)
        d_target = d_source
    return _like(batch.data, d_x, d_states.h, d_states.c, gradient)


def _input_back(d: Direction, d_x: Any, add: bool) -> None:
    """d_x (N, K) = d_gates @ W_ih, or += with ``add``."""
    N, (G, K) = len(d_x), d.weights.weight_ih.shape
    multiply(d.gates, (0, d.gates.shape[1] - G), d.weights.weight_ih, False, d_x, (0, 0), N, K, G, add=add)


def _weights_back(d: Direction, source: Any, before: Any, d_projected: Any, gradient: ScanWeights) -> None:
    """The gradients of the weights: each a sum over all rows."""
    N, G = len(source), d.weights.weight_ih.shape[0]
    of_input = d.gates.shape[1] - G
    shift = (G - of_input) % G  # of the product with the state, whose gates are turned
    multiply_transposed(d.gates, of_input, source, 0, N, 0, gradient.weight_ih)
    multiply_transposed(d.gates, 0, before, 0, N, shift, gradient.weight_hh)
    if gradient.bias_ih is not None:
        column_sums(d.gates, of_input, N, 0, gradient.bias_ih)
        column_sums(d.gates, 0, N, shift, gradient.bias_hh)
    if gradient.weight_hr is not None:
        multiply_transposed(d_projected, 0, d.unprojected, 0, N, 0, gradient.weight_hr)


# ---- between host and device -----------------------------------------------------------------------------------------


def _on_device(array: Any) -> Any:
    return to_device(array) if isinstance(array, np.ndarray) else array


def _like(data: Any, *arrays: Any) -> tuple[Any, ...]:
    """Results where the data are."""
    return tuple(map(to_host, arrays)) if isinstance(data, np.ndarray) else arrays


def _states(weights: DeviceWeights, states: States, B: int, dtype: np.dtype[Any], copy: bool = False) -> States:
    """States (L * D, B, .) on the device: zeros if none are given; a copy if they are to be written to."""
    scans = len(weights.scans)
    shapes = ((scans, B, weights.output_size), (scans, B, weights.hidden_size if weights.cell.has_c else 0))
    h, c = (_state(part, states.given, shape, dtype, copy) for part, shape in zip(states[:2], shapes, strict=True))
    return States(h, c, True)


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
