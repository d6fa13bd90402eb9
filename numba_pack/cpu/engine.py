"""The CPU backend: a whole forward or backward pass over all layers, its sequences divided among threads.

What is passed is checked by the caller: arrays are C-contiguous, of the dtype of the weights, and of matching shapes.
"""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from ..dropout import Dropout
from ..parameters import WEIGHTS, Weights
from . import threads
from .lanes import lanes_of
from .panels import pack_back
from .scan import BLOCK_BYTES, Batch, Record, States, forward_stack
from .scan_back import backward_stack, weight_gradients

__all__ = ["Saved", "infer", "record", "replay_back"]

#: floating-point operations that are worth a thread of their own
WORTH_A_THREAD = 1e7
#: bytes that inference may use beyond input and output, all threads together
SCRATCH_BYTES = 24 << 20
_NO_DROPOUT = Dropout(0.0, np.uint32(0), np.uint32(0))
_NO_RECORD = {np.dtype(dtype): Record(*[np.empty((0, 0, 0), dtype)] * 4) for dtype in (np.float32, np.float64)}


class Saved(NamedTuple):
    """What a forward pass leaves for its backward pass."""

    weights: Weights
    batch: Batch
    states: States
    dropout: Dropout
    record: Record
    #: (N, D * P) the output of the last layer
    out: np.ndarray


def _operations(weights: Weights, rows: int) -> float:
    """Floating-point operations of a forward pass over so many rows."""
    H, P, D = weights.hidden_size, weights.output_size, weights.num_directions
    gates = WEIGHTS[type(weights)].gates * H
    inputs = weights.input_size + (weights.num_layers - 1) * D * P
    return 2.0 * rows * D * (gates * (inputs + weights.num_layers * P))


def _bounds(batch_sizes: np.ndarray, sequences: int, parts: int) -> list[int]:
    """Divide the sorted sequences into ``parts`` runs of about equal rows."""
    if parts <= 1 or sequences == 0:
        return [0, sequences]
    # a sequence is as long as there are steps with more rows than its number
    lengths = len(batch_sizes) - np.searchsorted(batch_sizes[::-1], np.arange(sequences), side="right")
    ends = np.cumsum(lengths)
    cuts = np.searchsorted(ends - lengths / 2, ends[-1] * np.arange(1, parts) / parts)
    return [0, *(int(cut) for cut in np.unique(cuts) if 0 < cut < sequences), sequences]


def _workers(weights: Weights, rows: int) -> int:
    return max(1, min(threads.get_num_threads(), int(_operations(weights, rows) / WORTH_A_THREAD)))


def _scratch(weights: Weights, batch: Batch) -> int:
    """Bytes that one inference pass over the whole batch would use beyond input and output."""
    sequences = int(batch.batch_sizes[0]) if len(batch.batch_sizes) else 0
    width = WEIGHTS[type(weights)].kept * weights.hidden_size
    between = min(2, weights.num_layers - 1) * weights.num_directions * weights.output_size
    elements = sequences * (width + 3 * weights.hidden_size) + len(batch.data) * between
    return elements * batch.data.itemsize + BLOCK_BYTES


def _outputs(weights: Weights, batch: Batch) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    dtype, B, P = batch.data.dtype, len(batch.order), weights.output_size
    scans = weights.num_layers * weights.num_directions
    has_c = WEIGHTS[type(weights)].has_c
    return (
        np.empty((len(batch.data), weights.num_directions * P), dtype),  # (N, D * P)
        np.empty((scans, B, P), dtype),  # h_n
        np.empty((scans, B, weights.hidden_size if has_c else 0), dtype),  # c_n
    )


def _forward(
    weights: Weights, batch: Batch, states: States, dropout: Dropout, saved: Record | None, workers: int, parts: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Run ``parts`` parts of the batch on ``workers`` threads; ``saved`` is written if given."""
    keep = saved is not None
    saved = _NO_RECORD[batch.data.dtype] if saved is None else saved
    out, h_n, c_n = _outputs(weights, batch)
    if parts == 1:
        forward_stack(weights, batch, 0, len(batch.order), states, dropout, keep, saved, out, h_n, c_n)
        return out, h_n, c_n
    bounds = _bounds(batch.batch_sizes, len(batch.order), parts)
    tasks = [
        partial(forward_stack, weights, batch, first, last, states, dropout, keep, saved, out, h_n, c_n)
        for first, last in pairwise(bounds)
    ]
    threads.run(tasks, workers)
    return out, h_n, c_n


def infer(weights: Weights, batch: Batch, states: States) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The output (N, D * P), h_n (L * D, B, P) and c_n (L * D, B, H) of a batch; nothing is kept."""
    workers = _workers(weights, len(batch.data))
    parts = max(workers, -(-_scratch(weights, batch) * workers // SCRATCH_BYTES))
    return _forward(weights, batch, states, _NO_DROPOUT, None, workers, parts)


def record(
    weights: Weights, batch: Batch, states: States, dropout: Dropout
) -> tuple[np.ndarray, np.ndarray, np.ndarray, Saved]:
    """As `infer`, with dropout, and what the backward pass needs."""
    saved = new_record(weights, len(batch.data), batch.data.dtype)
    workers = _workers(weights, len(batch.data))
    out, h_n, c_n = _forward(weights, batch, states, dropout, saved, workers, workers)
    return out, h_n, c_n, Saved(weights, batch, states, dropout, saved, out)


def new_record(weights: Weights, N: int, dtype: np.dtype[Any]) -> Record:
    """Room for what a forward pass over N rows keeps."""
    cell, lanes = WEIGHTS[type(weights)], lanes_of(dtype)
    H, P, D, L = weights.hidden_size, weights.output_size, weights.num_directions, weights.num_layers
    padded = -(-H // lanes) * lanes  # H'
    width = -(-cell.kept * H // lanes) * lanes + lanes  # W
    return Record(
        np.empty((L * D, N, width), dtype),
        np.empty((L * D if cell.has_c else 0, N, padded), dtype),
        np.empty((L - 1, N, D * P), dtype),
        np.empty((L * D if P != H else 0, N, padded), dtype),
    )


def replay_back(
    saved: Saved, d_out: np.ndarray, d_states: States, input_grad: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Gradients of the data (N, I; empty without ``input_grad``), h_0, c_0 and the parameters. Uses up the record."""
    weights, batch, states, dropout, kept, out = saved
    dtype, N, B = batch.data.dtype, len(batch.data), len(batch.order)
    P, D, L = weights.output_size, weights.num_directions, weights.num_layers
    has_c = WEIGHTS[type(weights)].has_c
    d_x = np.empty(batch.data.shape if input_grad else (0, 0), dtype)
    d_hx = States(
        np.empty((L * D, B, P), dtype), np.empty((L * D, B, weights.hidden_size if has_c else 0), dtype), True
    )
    d_between = np.empty((min(2, L - 1), N, D * P), dtype)
    d_projected = np.empty((L * D if weights.hidden_size != P else 0, N, P), dtype)
    panels = pack_back(weights)
    workers = _workers(weights, N)

    bounds = _bounds(batch.batch_sizes, B, workers)
    scan = partial(backward_stack, weights, panels, batch)
    rest = (states, dropout, kept, out, d_out, d_states, d_between, d_x, d_hx, d_projected)
    threads.run([partial(scan, *ends, *rest) for ends in pairwise(bounds)], workers)

    gradient = np.zeros(weights.parameters.shape, dtype)
    product = partial(weight_gradients, weights, batch, states, dropout, kept, out, d_projected)
    threads.run([partial(product, part, workers, gradient) for part in range(workers)], workers)
    return d_x, d_hx.h, d_hx.c, gradient
