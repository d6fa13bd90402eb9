"""Products of rows, by the tiles of the layers: a row has the same bits whatever rows are beside it.

They take one thread, and half of the time of the BLAS that NumPy comes with in one.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .._jit import jit
from ..cpu.factors import Factors
from ..cpu.matrices import Matrix, plain_columns
from ..cpu.products import multiply
from ..cpu.tile import tile_of
from ..simd.lanes import lanes_of
from ..simd.memory import address, keep_alive
from ..simd.modes import put_back_mode, take_mode

__all__ = ["multiplied", "packed", "sum_of", "summed"]

#: vectors side by side in a panel
_VECTORS = 4
#: rows that stay in the first caches while they are multiplied by one panel after the other
_BLOCK = 48
#: rows whose products are summed before their sum is added to that of all
_TERMS = 512


def packed(matrix: np.ndarray) -> np.ndarray:
    """A matrix (k, n) in the panels that tiles take: see `numba_pack.cpu.products`."""
    k, n = matrix.shape
    lanes = lanes_of(matrix.dtype)
    panels, at = _aligned((k * (-(-n // (2 * lanes)) + 1) * 2 * lanes), matrix.dtype), 0
    for column in range(0, n, _VECTORS * lanes):
        part = matrix[:, column : column + _VECTORS * lanes]
        width = 2 * lanes if n - column <= 2 * lanes else _VECTORS * lanes
        panel = panels[at : at + k * width].reshape(k, width)
        panel[:, : part.shape[1]] = part
        panel[:, part.shape[1] :] = 0
        at += k * width
    return panels


def _aligned(count: int, dtype: Any) -> np.ndarray:
    """An array on a 64-byte boundary, where no vector straddles two cache lines."""
    spare = 64 // dtype.itemsize
    buffer = np.empty(count + spare, dtype)
    skip = -buffer.ctypes.data % 64 // dtype.itemsize
    return buffer[skip : skip + count]


def multiplied(rows: np.ndarray, panels: np.ndarray, start: np.ndarray) -> np.ndarray:
    """``start + rows @ matrix``, of rows (N, k), a matrix in panels and a row (n,)."""
    out = np.empty((len(rows), len(start)), rows.dtype)
    _run(rows, (rows.shape[1], 1, rows.shape[1]), panels, start, out)
    return out


def summed(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """``left.T @ right`` in float64, of rows (N, m) and (N, n): sums of a few rows each are computed in their dtype."""
    out, start = np.empty((left.shape[1], right.shape[1]), left.dtype), np.zeros(right.shape[1], left.dtype)
    total = np.zeros(out.shape)
    for first in range(0, len(left), _TERMS):
        some = left[first : first + _TERMS]
        _run(some, (1, some.shape[1], len(some)), packed(right[first : first + _TERMS]), start, out)
        total += out
    return total


def sum_of(rows: np.ndarray) -> np.ndarray:
    """The sum of rows, in float64."""
    total = np.zeros(rows.shape[1])
    for first in range(0, len(rows), _TERMS):
        total += rows[first : first + _TERMS].sum(axis=0, dtype=np.float64)
    return total


def _run(a: np.ndarray, layout: tuple[int, int, int], panels: np.ndarray, start: np.ndarray, out: np.ndarray) -> None:
    factors = Factors("float", a.dtype.name)
    tile_of(factors)  # which has to be there
    a, start = a.view(), start.view()
    a.flags.writeable = start.flags.writeable = False  # one type of array, for which the kernel is compiled
    _multiply(factors, a, layout, panels, start, out)


@jit
def _multiply(factors, a, layout, panels, start, out):  # type: ignore[no-untyped-def]
    """``out = start + a @ matrix``, where `layout` tells the steps of a from row to row and along k, and k."""
    (step, along, k), (rows, n) = layout, out.shape
    columns = plain_columns(a.dtype, n)
    mode = take_mode()
    for r in range(0, rows, _BLOCK):
        some, to = Matrix(address(a, r * step), step), Matrix(address(out, r * n), n)
        number = min(_BLOCK, rows - r)
        multiply(factors, some, along, number, k, address(panels, 0), columns, Matrix(address(start, 0), 0), to)
    put_back_mode(mode)
    keep_alive((a, panels, start, out))
