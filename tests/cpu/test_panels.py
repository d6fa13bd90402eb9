"""Prepacked weights: each element where the micro-kernel reads it, zeros beyond the matrix, and nothing beyond those.

Within all the panels of a net, what is written beyond one matrix is mended by the next: only the last would show it, in
memory that is not its own. Here each matrix is packed alone, between guards. Those of what is read are NaN, and would
be seen in the panels.
"""

import numpy as np
import pytest
from helpers import DTYPES, assert_same_bits
from numba import njit
from test_guards import Guards, sizes_around

from numba_pack.cpu.factors import Factors
from numba_pack.cpu.matrices import gate_columns, plain_columns
from numba_pack.cpu.panels import Run, _pack_transposed, panel_size
from numba_pack.cpu.products import there_and_back
from numba_pack.simd.lanes import lanes_of


@njit
def columns_of(matrix, total, gates):
    return gate_columns(matrix, total, gates) if gates else plain_columns(matrix, total)


@njit
def size_of(floats, matrix, total, gates, k):
    return panel_size(floats, columns_of(matrix, total, gates), k)


@njit
def pack(floats, matrix, total, gates, k, panels):
    _pack_transposed(floats, matrix, 0, k, columns_of(matrix, total, gates), panels, 0, Run(0, panels.size))


def vectors(rows, lanes):
    """The rows of a matrix (n, k) as vectors of ``lanes`` numbers, zeros behind the last: (., k, lanes)."""
    filled = np.zeros((-(-len(rows) // lanes) * lanes, rows.shape[1]), rows.dtype)
    filled[: len(rows)] = rows
    return filled.reshape(-1, lanes, rows.shape[1]).swapaxes(1, 2)


def of_gates(matrix, gates, lanes):
    """Every panel holds one vector of each gate."""
    return np.stack([vectors(part, lanes) for part in np.split(matrix, gates)], 2)


def of_plain(matrix, lanes):
    """Panels of four vectors; the last one of two, where that will do."""
    each = list(vectors(matrix, lanes))
    while len(each) % 4 not in (0, 2):
        each.append(np.zeros_like(each[0]))
    return [np.stack(each[i : i + 4], 1) for i in range(0, len(each), 4)]


@pytest.mark.parametrize("dtype", DTYPES)
def test_matrices_are_packed_as_the_kernels_read_them_and_into_their_panels_alone(dtype):
    lanes, floats = lanes_of(dtype), Factors("float", np.dtype(dtype).name)
    rng = np.random.default_rng(0)
    for total in sizes_around(lanes):
        for k in sizes_around(lanes):
            for gates in (0, 3, 4):
                matrix = rng.standard_normal((max(1, gates) * total, k)).astype(dtype)
                expected = of_gates(matrix, gates, lanes) if gates else of_plain(matrix, lanes)
                expected = np.concatenate([panel.ravel() for panel in expected])
                guards = Guards()
                panels = guards.around(np.full(size_of(floats, matrix, total, gates, k), np.nan, dtype))
                pack(floats, guards.around(matrix).ravel(), total, gates, k, panels)
                guards.check()
                assert_same_bits(panels, expected, f"{gates or 'no'} gates, {matrix.shape}")


@njit
def order(count, turn):
    return [there_and_back(n, count, turn) for n in range(count)]


@pytest.mark.parametrize("count", [1, 2, 5])
def test_a_scan_takes_each_panel_once_and_begins_with_the_last_of_the_step_before(count):
    for turn in range(3):
        assert sorted(order(count, turn)) == list(range(count))
        assert order(count, turn + 1) == order(count, turn)[::-1]
