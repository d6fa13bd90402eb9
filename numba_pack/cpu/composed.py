"""Inference with composed cells: a scan of its own, over the products and the layout of the plain ones.

Each step adds the product with the state to that with the input, and then applies the cell to the sums of all gates;
the cell is too long to be the end of a tile. The state h is held beside the output, so that a step reads one matrix,
whichever of its sequences have begun; those that have not, in reverse, keep their initial state in it, and those that
have ended their last.

Letters as in ``scan.py``. A row of sums has H columns for each gate, and of a GRU H more, for what ``gru_step`` calls
n_h.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import numpy as np

from .._jit import inner, jit
from ..batch import Batch, States
from ..cells.composed import Options, gru_reset, gru_step, lstm_step, rnn_step
from ..simd.lanes import load_first, load_gates, store_first, width
from ..simd.memory import address, keep_alive
from ..simd.modes import put_back_mode, take_mode
from . import engine, threads
from .panels import aligned, pack_columns
from .scan import Rows, give_states, padded, row_at, shifted, steps_of, take_states
from .tile import Matrix, multiply, plain_columns, tile_of

__all__ = ["GATES", "Direction", "direction_of", "infer"]

#: products with the input, by the name of the operator
GATES = {"RNN": 1, "LSTM": 4, "GRU": 3}
#: rows of input that are projected at once, if a step has fewer: enough for a tile to be worth reading the weights
BLOCK_ROWS = 24


class Weights(NamedTuple):
    """The weights of one direction, packed."""

    #: (G,) what a row of sums starts from; of a GRU (4 H,), the last H being what n_h starts from
    parameters: np.ndarray
    #: panels of the weights of the input, (I, G)
    weight_ih: np.ndarray
    #: panels of the weights of the state: of all gates, of a GRU without the last
    weight_hh: np.ndarray
    #: panels of the weights of the state for the last gate of a GRU; else empty
    weight_hn: np.ndarray
    #: (3 H,) i, o, f; empty without
    peepholes: np.ndarray
    input_size: int
    hidden_size: int


class Direction(NamedTuple):
    """One scan: what it computes with, and which way it goes."""

    kind: str
    weights: Weights
    options: Options
    reverse: bool


def direction_of(
    kind: str, W: np.ndarray, R: np.ndarray, B: np.ndarray, P: np.ndarray, options: Options, reverse: bool
) -> Direction:
    """Pack the weights of one direction: ONNX's W (G, I), R (G, H), B (2 G,) and P (3 H,), empty without."""
    H = R.shape[1]
    split = 2 * H if kind == "GRU" else len(R)
    of_input, of_state = np.split(B, 2)
    bias = np.concatenate([of_input, np.zeros(H if kind == "GRU" else 0, B.dtype)])
    bias[:split] += of_state[:split]
    if kind == "GRU":
        after = 3 * H if options.linear_before_reset else 2 * H
        bias[after : after + H] += of_state[split:]
    tile_of(W.dtype)
    weights = Weights(bias, pack_columns(W), pack_columns(R[:split]), pack_columns(R[split:]), P, W.shape[1], H)
    return Direction(kind, weights, options, reverse)


# -- one step ----------------------------------------------------------------------------------------------------------


@inner
def _of_input(weights, rows, x, sums, gates):
    """sums = bias + x @ weight_ih, for so many gates."""
    columns = plain_columns(weights.parameters, gates * weights.hidden_size)
    bias = Matrix(address(weights.parameters, 0), 0)
    multiply(weights, x, 1, rows, weights.input_size, address(weights.weight_ih, 0), columns, bias, sums)


@inner
def _of_state(weights, rows, h, panels, start, sums, gates):
    """sums = start + h @ panels, for so many gates."""
    columns = plain_columns(weights.parameters, gates * weights.hidden_size)
    multiply(weights, h, 1, rows, weights.hidden_size, address(panels, 0), columns, start, sums)


@inner
def _put(dtype, out, h, r, u, value, count):
    """Write some units of row r into the output, and into the state."""
    store_first(out.at + (r * out.step + u) * dtype.itemsize, value, count)
    store_first(h.at + (r * h.step + u) * dtype.itemsize, value, count)


@inner
def _rnn_rows(weights, options, rows, h, c, sums, out):
    dtype, H = weights.parameters, weights.hidden_size
    _of_state(weights, rows, h, weights.weight_hh, sums, sums, 1)
    for r in range(rows):
        for u in range(0, H, width(dtype)):
            gate = load_first(dtype, sums.at + (r * sums.step + u) * dtype.itemsize, H - u)
            _put(dtype, out, h, r, u, rnn_step(options, gate), H - u)


@inner
def _lstm_rows(weights, options, rows, h, c, sums, out):
    dtype, H = weights.parameters, weights.hidden_size
    size = dtype.itemsize
    _of_state(weights, rows, h, weights.weight_hh, sums, sums, 4)
    for r in range(rows):
        for u in range(0, H, width(dtype)):
            gates = load_gates(dtype, sums.at + (r * sums.step + u) * size, H * size, H - u, 4)
            count = H - u if options.peepholes else 0
            peepholes = load_gates(dtype, address(weights.peepholes, u), H * size, count, 3)
            c_at = c.at + (r * c.step + u) * size
            h_u, c_u = lstm_step(options, gates, peepholes, load_first(dtype, c_at, H - u))
            store_first(c_at, c_u, H - u)
            _put(dtype, out, h, r, u, h_u, H - u)


@inner
def _gru_rows(weights, options, rows, h, c, sums, out):
    dtype, H = weights.parameters, weights.hidden_size
    size = dtype.itemsize
    _of_state(weights, rows, h, weights.weight_hh, sums, sums, 2)
    n, n_h = shifted(dtype, sums, 2 * H), shifted(dtype, sums, 3 * H)
    if options.linear_before_reset:
        start = Matrix(address(weights.parameters, 3 * H), 0)
        _of_state(weights, rows, h, weights.weight_hn, start, n_h, 1)
    else:
        for r in range(rows):
            for u in range(0, H, width(dtype)):
                h_u = load_first(dtype, h.at + (r * h.step + u) * size, H - u)
                reset = load_first(dtype, sums.at + (r * sums.step + H + u) * size, H - u)
                store_first(n_h.at + (r * n_h.step + u) * size, gru_reset(options, reset, h_u), H - u)
        _of_state(weights, rows, n_h, weights.weight_hn, n, n, 1)
    for r in range(rows):
        for u in range(0, H, width(dtype)):
            h_u = load_first(dtype, h.at + (r * h.step + u) * size, H - u)
            gates = load_gates(dtype, sums.at + (r * sums.step + u) * size, H * size, H - u, 4)
            _put(dtype, out, h, r, u, gru_step(options, gates, h_u), H - u)


# -- over time ---------------------------------------------------------------------------------------------------------


@inner
def _block(steps, done, reverse):
    """The steps ``low`` to ``high`` that are projected at once, the scan having done so many, and their rows.

    It is one step, and those that come after it in the scan as long as their rows of input adjoin and are few.
    """
    T, sizes, places = steps.sizes.size, steps.sizes, steps.places
    low = T - 1 - done if reverse else done
    high, rows = low + 1, sizes[low]
    while (low > 0) if reverse else (high < T):
        before, t = (low - 1, low - 1) if reverse else (high - 1, high)
        if places[before] + sizes[before] != places[before + 1] or rows + sizes[t] > BLOCK_ROWS:
            break
        rows += sizes[t]
        low, high = min(low, t), max(high, t + 1)
    return low, high, rows


def _scan_of(gates, step_rows):
    def scan(
        weights, options, reverse, data, batch_sizes, order, h_0, c_0, given, index, first, last, out, column, h_n, c_n
    ):
        """One direction of a layer, for the sequences ``first`` to ``last`` of the sorted batch.

        Writes their part of h_n[index] and c_n[index] (D, B, H), and of the columns of ``out`` from ``column`` on.
        """
        dtype, H = weights.parameters, weights.hidden_size
        steps = steps_of(batch_sizes, first, last)
        T, H_padded = steps.sizes.size, padded(dtype, H)
        W = padded(dtype, dtype.size) + width(dtype)  # as in `row_width`
        sums = aligned(dtype, max(last - first, BLOCK_ROWS) * W)
        h, c = aligned(dtype, (last - first) * H_padded), aligned(dtype, (last - first) * H_padded)
        take_states(dtype, h_0, given, index, order, first, h, H)
        take_states(dtype, c_0, given and c_0.size > 0, index, order, first, c, H)
        places = address(steps.places, 0)
        x = Rows(address(data, 0), weights.input_size, places)
        y = Rows(address(out, column), out.shape[1], places)
        h_rows, c_rows = Matrix(address(h, 0), H_padded), Matrix(address(c, 0), H_padded)
        mode = take_mode()
        done = 0
        while done < T:
            low, high, rows = _block(steps, done, reverse)
            _of_input(weights, rows, row_at(dtype, x, low, 0), Matrix(address(sums, 0), W), gates)
            for i in range(high - low):
                t = high - 1 - i if reverse else low + i
                own = Matrix(address(sums, (steps.alone[t] - steps.alone[low]) * W), W)
                step_rows(weights, options, steps.sizes[t], h_rows, c_rows, own, row_at(dtype, y, t, 0))
            done += high - low
        put_back_mode(mode)
        give_states(dtype, h, index, order, first, h_n, H)
        if c_n.size > 0:
            give_states(dtype, c, index, order, first, c_n, H)
        keep_alive((steps, sums, h, c))

    return jit(scan)


_STEPS = {"RNN": _rnn_rows, "LSTM": _lstm_rows, "GRU": _gru_rows}
_SCANS = {kind: _scan_of(GATES[kind], step_rows) for kind, step_rows in _STEPS.items()}


def _divided(scan, given, results, first, last):
    scan(*given, first, last, *results)


def infer(directions: list[Direction], batch: Batch, states: States) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The output (N, D * H), h_n (D, B, H) and, of an LSTM, c_n (D, B, H) of a batch."""
    kind, weights, _, _ = directions[0]
    data, batch_sizes, order, N, _ = batch
    D, B, H = len(directions), len(order), weights.hidden_size
    out = np.empty((N, D * H), data.dtype)
    h_n, c_n = np.empty((D, B, H), data.dtype), np.empty((D, B, H if kind == "LSTM" else 0), data.dtype)
    operations = 2.0 * N * GATES[kind] * H * (weights.input_size + H)
    workers = max(1, min(threads.get_num_threads(), int(operations / engine.WORTH_A_THREAD)))
    scratch = 6 * B * H * data.itemsize  # bytes: sums, h and c
    parts = max(workers, -(-scratch * workers // engine.SCRATCH_BYTES))
    for index, (_, weights, options, reverse) in enumerate(directions):
        given = (weights, options, reverse, data, batch_sizes, order, *states, index)
        results = (out, index * H, h_n, c_n)
        engine.divide(batch, parts, workers, partial(_divided, _SCANS[kind], given, results))
    return out, h_n, c_n
