"""What is done to rows apart from products and scans: dropout, states before and after steps, symbols."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import boolean, cuda, int64, uint64

from ..cells.dropout import Dropout, philox
from .device import MOST_BLOCKS, REAL, SIMULATED, Kernel, ceil_div, empty, formula, memoized
from .layout import BatchLayout

__all__ = ["THREADS", "drop", "last_states", "one_hot", "states_before"]

#: threads of a block, side by side along a row
THREADS = 4 if SIMULATED else 128


def _over_steps(layout: BatchLayout, width: int) -> tuple[int, int]:
    """The grid of a kernel that does ``width`` things for each row of a step along x, and steps along y."""
    return ceil_div(layout.active * width, THREADS), min(layout.T, MOST_BLOCKS)


@memoized
def drop_kernel(dtype: np.dtype[Any]) -> Kernel:
    """The kernel of dropout, four units a thread: as `numba_pack.cells.dropout.drop_row`."""
    real, words_of = REAL[dtype], formula(philox)

    @cuda.jit
    def drop_rows(source, target, layout, T, layer, threshold, scale, seed, call):
        width = source.shape[1]
        blocks = (width + 3) // 4
        item = cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x
        r, block = item // blocks, item % blocks
        for t in range(cuda.blockIdx.y, T, cuda.gridDim.y):
            n = layout[t] + r
            if n < layout[t + 1]:
                sequence = layout[T + 1 + r]
                words = words_of(uint64(block), uint64(t), uint64(sequence), layer, seed, call)
                for lane in range(min(4, width - 4 * block)):
                    unit = 4 * block + lane
                    target[n, unit] = source[n, unit] * (scale if words[lane] >= threshold else real(0.0))

    matrix = real[:, ::1]
    return Kernel(drop_rows, (matrix, matrix, int64[::1], int64, uint64, uint64, real, uint64, uint64))


def drop(dropout: Dropout, layer: int, layout: BatchLayout, source: Any, target: Any) -> None:
    """``target (N, D * P)`` = the output of a layer with units dropped; both may be one array."""
    threshold = np.uint64(dropout.rate * 2.0**32)
    scale = source.dtype.type(1.0 / (1.0 - dropout.rate) if dropout.rate < 1.0 else 0.0)
    of_call = (np.uint64(dropout.seed), np.uint64(dropout.call))
    grid = _over_steps(layout, ceil_div(source.shape[1], 4))
    kernel = drop_kernel(source.dtype)
    kernel.launch(grid, THREADS, source, target, layout.rows, layout.T, np.uint64(layer), threshold, scale, *of_call)


@memoized
def last_states_kernel(dtype: np.dtype[Any]) -> Kernel:
    """The kernel that reads the state of each sequence after its last step of the scan."""
    real = REAL[dtype]

    @cuda.jit
    def last_states(rows, column, first, layout, T, reverse, target):
        B, width = target.shape
        p = cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x
        for r in range(cuda.blockIdx.y, B, cuda.gridDim.y):
            sequence, n = layout[T + 1 + r], layout[T + 1 + B + r]
            if p < width:
                if n < 0:
                    target[sequence, p] = first[sequence, p]
                elif reverse:
                    target[sequence, p] = rows[r, column + p]
                else:
                    target[sequence, p] = rows[n, column + p]

    matrix = real[:, ::1]
    return Kernel(last_states, (matrix, int64, matrix, int64[::1], int64, boolean, matrix))


def last_states(rows: Any, column: int, first: Any, layout: BatchLayout, reverse: bool, target: Any) -> None:
    """``target (B, P)`` = each sequence's last state, in the caller's order, from rows (N, .) of outputs or c.

    A sequence of length 0 keeps its first.
    """
    if layout.B:
        grid = (ceil_div(target.shape[1], THREADS), min(layout.B, MOST_BLOCKS))
        kernel = last_states_kernel(rows.dtype)
        kernel.launch(grid, THREADS, rows, column, first, layout.rows, layout.T, reverse, target)


@memoized
def states_before_kernel(dtype: np.dtype[Any]) -> Kernel:
    """The kernel that copies the state before each step."""
    real = REAL[dtype]

    @cuda.jit
    def states_before(out, column, h_0, layout, T, reverse, target):
        P = target.shape[1]
        item = cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x
        r, p = item // P, item % P
        for t in range(cuda.blockIdx.y, T, cuda.gridDim.y):
            n, before = layout[t] + r, t + 1 if reverse else t - 1
            if n < layout[t + 1]:
                if 0 <= before and before < T and layout[before] + r < layout[before + 1]:
                    target[n, p] = out[layout[before] + r, column + p]
                else:
                    target[n, p] = h_0[layout[T + 1 + r], p]

    matrix = real[:, ::1]
    return Kernel(states_before, (matrix, int64, matrix, int64[::1], int64, boolean, matrix))


def states_before(out: Any, column: int, h_0: Any, layout: BatchLayout, reverse: bool, target: Any) -> None:
    """``target (N, P)`` = the state before each step: a row of the output, or the first state."""
    kernel = states_before_kernel(out.dtype)
    grid = _over_steps(layout, target.shape[1])
    kernel.launch(grid, THREADS, out, column, h_0, layout.rows, layout.T, reverse, target)


@memoized
def one_hot_kernel(dtype: np.dtype[Any]) -> Kernel:
    """The kernel that writes the rows that symbols stand for."""
    real = REAL[dtype]

    @cuda.jit
    def one_hot(symbols, target):
        column = cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x
        for n in range(cuda.blockIdx.y, target.shape[0], cuda.gridDim.y):
            if column < target.shape[1]:
                target[n, column] = real(1.0) if symbols[n] == column else real(0.0)

    return Kernel(one_hot, (int64[::1], real[:, ::1]))


def one_hot(symbols: Any, size: int, dtype: np.dtype[Any]) -> Any:
    """The rows (N, size) that symbols (N,) stand for: a product with them is a look-up that reads all."""
    target = empty((len(symbols), size), dtype)
    if len(symbols):
        grid = (ceil_div(size, THREADS), min(len(symbols), MOST_BLOCKS))
        one_hot_kernel(dtype).launch(grid, THREADS, symbols, target)
    return target
