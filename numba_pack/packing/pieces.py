"""Sequences cut into pieces: where the rows of each piece lie in the batch, and in what order they are packed.

A batch is any layout of ``rows.py`` in which row ``base[i] + step[t]`` belongs to sequence i at time t. A cut before
a step ends one piece and begins another. The first piece of sequence i has number i, its further ones follow after
those of all sequences: so a batch without cuts is its own pieces.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .._jit import jit
from .rows import sort_by_length

__all__ = ["Pieces", "pieces_of"]


class Pieces(NamedTuple):
    """The pieces of B sequences, as a packed batch of N rows."""

    #: (T,) of the pieces
    batch_sizes: np.ndarray
    #: (pieces,) their numbers, longest first
    order: np.ndarray
    #: (B,) the number of the last piece of each sequence
    last: np.ndarray
    #: (N,) where in the batch each packed row lies, and where among the packed rows each row of the batch
    rows: np.ndarray
    packed: np.ndarray


@jit
def _find(cuts, base, step, lengths, sequences, begins, sizes, last):
    """Write of each piece its sequence, first step and length, and of each sequence its last piece."""
    pieces = len(lengths)
    for i in range(len(lengths)):
        piece, begin = i, 0
        for t in range(1, lengths[i]):
            if cuts[base[i] + step[t]]:
                sequences[piece], begins[piece], sizes[piece] = i, begin, t - begin
                piece, begin, pieces = pieces, t, pieces + 1
        sequences[piece], begins[piece], sizes[piece] = i, begin, lengths[i] - begin
        last[i] = piece


@jit
def _number(batch_sizes, order, sequences, begins, base, step, rows, packed):
    """Write `Pieces.rows` and its inverse."""
    at = 0
    for t in range(len(batch_sizes)):
        for r in range(batch_sizes[t]):
            piece = order[r]
            row = base[sequences[piece]] + step[begins[piece] + t]
            rows[at], packed[row] = row, at
            at += 1


def pieces_of(cuts: np.ndarray, base: np.ndarray, step: np.ndarray, lengths: np.ndarray) -> Pieces:
    """Cut the sequences before each step whose row is marked; a cut before a first step makes no difference.

    cuts : (N,) bool, which nobody else changes meanwhile
    base, lengths : (B,)
    step : (T,), beginning with 0
    """
    B, N = len(base), len(cuts)
    pieces = B + np.count_nonzero(cuts) - np.count_nonzero(cuts[base[lengths > 0]])
    sequences, begins, sizes = np.empty((3, pieces), np.int64)
    last = np.empty(B, np.int64)
    _find(cuts, base, step, lengths, sequences, begins, sizes, last)
    batch_sizes = np.empty(sizes.max(initial=0), np.int64)
    order, ranks = np.empty((2, pieces), np.int64)
    sort_by_length(sizes, batch_sizes, order, ranks)
    rows, packed = np.empty((2, N), np.int64)
    _number(batch_sizes, order, sequences, begins, base, step, rows, packed)
    return Pieces(batch_sizes, order, last, rows, packed)
