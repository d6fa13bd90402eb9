"""How matrices lie in memory: rows at an address, and the columns of a product in panels."""

from __future__ import annotations

from typing import NamedTuple

from .._jit import inner
from ..simd.lanes import always_inline, size_of, width

__all__ = [
    "VECTORS",
    "Columns",
    "Matrix",
    "below",
    "gate_columns",
    "panel_count",
    "panel_vectors",
    "plain_columns",
    "shifted",
]

#: most vectors side by side in a panel
VECTORS = 4


class Matrix(NamedTuple):
    """Rows in memory: where the first begins (an address) and how many elements lie from one to the next."""

    at: int
    step: int


class Columns(NamedTuple):
    """How the columns of a product are divided into panels.

    Panel p covers the columns ``p * per_panel`` onwards: `vectors` vectors, each ``between`` columns after the last.
    """

    #: columns of one gate, or of the whole matrix if it has no gates
    total: int
    per_panel: int
    vectors: int
    between: int
    #: 1 if the vectors follow one another, so that the matrix may end after any of them; 0 if each is of another gate
    adjacent: int


@inner
def plain_columns(dtype, total):
    """The columns of a matrix with no gates, four vectors a panel; the last panel may hold fewer."""
    lanes = width(dtype)
    return Columns(total, VECTORS * lanes, VECTORS, lanes, 1)


@inner
def gate_columns(dtype, units, gates):
    """The columns of ``gates`` gates of so many units: a panel holds all gates of one vector of units."""
    return Columns(units, width(dtype), gates, units, 0)


@inner
def panel_count(columns):
    """How many panels the columns take."""
    return (columns.total + columns.per_panel - 1) // columns.per_panel


@inner
def panel_vectors(columns, p, lanes):
    """How many vectors panel p holds: the last panel of adjacent columns may do with two instead of four."""
    if columns.adjacent and columns.total - p * columns.per_panel <= 2 * lanes:
        return 2
    return columns.vectors


@inner
def shifted(dtype, matrix, columns):
    """The matrix without its first columns."""
    always_inline()
    return Matrix(matrix.at + columns * size_of(dtype), matrix.step)


@inner
def below(dtype, matrix, rows):
    """The matrix without its first rows."""
    always_inline()
    return Matrix(matrix.at + rows * matrix.step * size_of(dtype), matrix.step)
