"""Connectionist temporal classification: a scan of its own over the rows of each sequence, there and back."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .._arguments import check_floats, dtype_of, quiet
from .._jit import inner, jit
from ..cells.activations import log
from ..packing.checks import as_flag, as_integer, as_integers
from ..packing.flat import Flat, Given
from ..packing.ragged import unpack_ragged
from ..packing.sequences import PackedSequence, pack_rows, rows_of
from ..simd.lanes import fma, like, load_first, nothing, size_of, store, store_first, sum_of, width
from ..simd.memory import address, keep_alive
from ..simd.modes import put_back_mode, take_mode
from ..simd.wide import load_wide, store_wide
from .exponential import TINY, exp_of_negative, exponentials, log_of_sum
from .rows import as_reduction, readable

__all__ = ["ctc"]


@quiet
def ctc(
    logits: Given,
    labels: Any,
    *,
    lengths: Any = None,
    blank: int = 0,
    reduction: str = "mean",
    batch_first: bool = False,
) -> tuple[Any, Given]:
    r"""Connectionist temporal classification: labels of a sequence that are fewer than its rows, in their order.

    The softmax of each row gives the probabilities of all classes, of which one is the blank. A *path* takes one class
    at each step; without repetitions, and then without blanks, it is a sequence of labels. The loss is minus the
    logarithm of the probability of all paths that are the right one [1]_. With :math:`p` the softmax of the logits and
    :math:`\gamma_{tc}` the probability, given the labels, that the path is in class c at step t,

    .. math::
        \frac{\partial\,\mathrm{loss}}{\partial x_{tc}} = p_{tc} - \gamma_{tc}.

    It is PyTorch's ``ctc_loss`` over ``log_softmax``.

    Parameters
    ----------
    logits : PackedSequence, or array (T, B, C) or (B, T, C), of float32 or float64
        A row for each step, a column for each class. Not changed.
    labels : PackedSequence of integers, or list of B arrays of them
        The labels of each sequence, in the order of the sequences: in [0, C), and not `blank`. There may be none. All
        that `pack_sequence` takes will do.
    lengths : (B,) array of integers, optional
        The lengths of the sequences in a padded batch, from 0 to T; T if left out.
    blank : int
        The class that is no label, in [0, C).
    reduction : {"mean", "sum", "none"}
        As in PyTorch: ``"mean"`` divides the loss of each sequence by the number of its labels, or by 1 if it has none,
        and is the mean of these over the sequences. ``"none"`` gives the loss of each sequence, and the gradient of
        their sum.
    batch_first : bool
        Whether a padded batch is (B, T, C).

    Returns
    -------
    loss : float
        With ``reduction="none"`` an array (B,). Infinite where a sequence has too few rows for its labels: one for
        each, and one more between two that are the same.
    d_logits : like logits
        Its gradient, in the dtype of the logits; zero for a sequence whose loss is infinite.

    Raises
    ------
    TypeError, ValueError
        Where an argument is not as above.

    References
    ----------
    .. [1] A. Graves, S. Fernandez, F. Gomez and J. Schmidhuber, "Connectionist temporal classification: labelling
       unsegmented sequence data with recurrent neural networks", ICML 2006.

    Examples
    --------
    >>> import numpy as np
    >>> import numba_pack as nbp
    >>> from numba_pack.losses import ctc
    >>> logits = nbp.pack_sequence([np.zeros((2, 3)), np.zeros((3, 3))])
    >>> loss, d_logits = ctc(logits, [np.array([2]), np.array([1, 1])], reduction="none")
    >>> np.exp(-loss).round(6)  # three paths of nine: 2 2, 2 blank, blank 2; and one of 27: 1 blank 1
    array([0.333333, 0.037037])
    >>> nbp.unpack_sequence(d_logits)[1].round(3)
    array([[ 0.333, -0.667,  0.333],
           [-0.667,  0.333,  0.333],
           [ 0.333, -0.667,  0.333]])
    """
    first, kind = as_flag(batch_first, "batch_first"), as_reduction(reduction, ("mean", "sum", "none"))
    flat = Flat(logits, "logits")
    check_floats(flat.name, flat.array, 3 if flat.packed is None else 2)
    classes = flat.array.shape[-1]
    empty = as_integer(blank, "blank")
    if not 0 <= empty < classes:
        raise ValueError(f"blank must lie in [0, {classes}), the classes of logits; got {empty}")
    base, step, counts = map(readable, _layout(flat, lengths, first))
    values, offsets = _labels(labels, len(base), classes, empty)
    sizes = np.diff(offsets)
    scale = np.ones(len(base))
    if kind == "mean":
        scale /= np.maximum(sizes, 1) * len(base)

    rows = readable(flat.array.reshape(-1, classes))
    gradient, losses = np.zeros(rows.shape, rows.dtype), np.empty(len(base))
    _scan_all(rows, base, step, counts, values, offsets, empty, scale, losses, gradient)
    loss = losses if kind == "none" else float((losses * scale).sum())
    return loss, flat.back(gradient.reshape(flat.array.shape))


def _layout(flat: Flat, lengths: Any, batch_first: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where rows lie: at ``base[i] + step[t]`` that of sequence i at step t; and the lengths."""
    if flat.packed is not None:
        if lengths is not None:
            raise TypeError("lengths must be left out where logits are packed, which tells them")
        sizes = flat.packed.batch_sizes
        return flat.packed.unsorted_indices.copy(), np.cumsum(sizes) - sizes, flat.packed.lengths
    T, B = flat.array.shape[1::-1] if batch_first else flat.array.shape[:2]
    if B == 0:
        raise ValueError(f"logits must hold at least one sequence; got shape {flat.array.shape}")
    counts = np.full(B, T) if lengths is None else as_integers(lengths, "lengths")
    if counts.shape != (B,):
        raise ValueError(f"lengths must have shape ({B},), one for each sequence; got {counts.shape}")
    if counts.min() < 0 or counts.max() > T:
        raise ValueError(f"lengths must lie in [0, {T}], the steps of logits; got {counts.min()} to {counts.max()}")
    if batch_first:
        return np.arange(B) * T, np.arange(T), counts
    return np.arange(B), np.arange(T) * B, counts


def _labels(labels: Any, sequences: int, classes: int, blank: int) -> tuple[np.ndarray, np.ndarray]:
    """The labels of all sequences, one after the other, and where those of each begin."""
    packed = labels if isinstance(labels, PackedSequence) else pack_rows(rows_of(labels, "labels"), False)
    values, offsets = unpack_ragged(packed)
    if values.dtype.kind not in "iu" or values.ndim != 1:
        raise TypeError(f"labels must be sequences of integers; got {dtype_of(values)} in shape (N, *) {values.shape}")
    if len(offsets) - 1 != sequences:
        raise ValueError(f"labels must have one sequence for each of logits, {sequences}; got {len(offsets) - 1}")
    wrong = values[(values < 0) | (values >= classes) | (values == blank)]
    if len(wrong):
        raise ValueError(f"labels must lie in [0, {classes}) and not be blank, {blank}; got {wrong[0]}")
    return values.astype(np.int64), offsets


@jit
def _scan_all(x, base, step, lengths, labels, offsets, blank, scale, losses, gradient):
    """The loss of each sequence, and the gradient of the rows, which come as zeros.

    State s of a sequence is label s // 2 if s is odd, and a blank before or behind it if it is even. A path goes on to
    its own state, to the next one, or past a blank to another label.
    """
    C, steps, most, largest = x.shape[1], 0, 0, 0
    for i in range(len(base)):
        states = 2 * (offsets[i + 1] - offsets[i]) + 1
        steps, most, largest = max(steps, lengths[i]), max(most, states), max(largest, lengths[i] * (states + 2))
    # alpha[t, s]: log probability of all that leads to s, and of its own class; two more states before the first
    alphas = np.empty(largest)
    highest, totals, row = np.empty(steps), np.empty(steps), np.empty(C + width(alphas.dtype))
    lanes, size = width(row.dtype), size_of(row.dtype)
    own, shares, blanks = np.empty(most), np.empty(most), np.empty(most)
    beta, after, skips = np.empty(most), np.empty(most + 2), np.empty(most + 2)
    mode = take_mode()
    for s in range(most):
        blanks[s] = 1.0 - s % 2
    for i in range(len(base)):
        T, here, states = lengths[i], labels[offsets[i] : offsets[i + 1]], 2 * (offsets[i + 1] - offsets[i]) + 1
        if T == 0:
            losses[i] = 0.0 if states == 1 else math.inf
            continue
        skips[:] = -math.inf  # added to what comes from, or goes to, two states away
        for n in range(1, len(here)):
            if here[n] != here[n - 1]:
                skips[2 * n + 1] = 0.0

        for t in range(T):
            r, now, before = base[i] + step[t], t * (states + 2) + 2, (t - 1) * (states + 2) + 2
            highest[t], totals[t] = exponentials(x, r * C, C, row)
            _put_logarithms(x, r, here, blank, highest[t], log(totals[t]), own)
            alphas[now - 2 : now] = -math.inf
            if t == 0:
                for s in range(states):
                    alphas[now + s] = own[s] if s < 2 else own[s] - math.inf  # NaN stays
                continue
            for s in range(0, states, lanes):
                at, left = address(alphas, before + s), states - s
                skipped = load_first(row, at - 2 * size, left) + load_first(row, address(skips, s), left)
                total = log_of_sum(load_first(row, at, left), load_first(row, at - size, left), skipped)
                store_first(address(alphas, now + s), total + load_first(row, address(own, s), left), left)
        end = T * (states + 2)
        total = log_of_sum(alphas[end - 1], alphas[end - 2], -math.inf)
        losses[i] = -total
        if total == -math.inf:
            continue

        beta[:], after[:] = -math.inf, -math.inf  # log probability of all that comes after s; and with its own class
        for s in range(max(states - 2, 0), states):
            beta[s] = 0.0
        of_all, part = like(nothing(row), total), like(nothing(row), scale[i] * TINY)
        for t in range(T - 1, -1, -1):
            r, now = base[i] + step[t], t * (states + 2) + 2
            _put_logarithms(x, r, here, blank, highest[t], log(totals[t]), own)
            top, whole = like(of_all, highest[t]), like(of_all, scale[i] * TINY / totals[t])
            for c in range(0, C, lanes):
                below = load_wide(x, address(x, r * C + c), C - c, -math.inf) - top
                store(address(row, c), exp_of_negative(below) * whole)
            of_blank = nothing(row)
            for s in range(0, states, lanes):
                left = states - s
                to_come = load_first(row, address(beta, s), left)
                here_now = load_wide(alphas, address(alphas, now + s), left, -math.inf) + to_come
                share = exp_of_negative(here_now - of_all) * part
                of_blank = fma(share, load_first(row, address(blanks, s), left), of_blank)
                store_first(address(shares, s), share, left)
                store_first(address(after, s), to_come + load_first(row, address(own, s), left), left)
            row[blank] -= sum_of(of_blank)
            for n in range(len(here)):
                row[here[n]] -= shares[2 * n + 1]
            for c in range(0, C, lanes):
                value = load_first(row, address(row, c), C - c)
                store_wide(gradient, address(gradient, r * C + c), value, C - c)
            for s in range(0, states, lanes):
                at, left = address(after, s), states - s
                skipped = load_first(row, at + 2 * size, left) + load_first(row, address(skips, s + 2), left)
                total = log_of_sum(load_first(row, at, left), load_first(row, at + size, left), skipped)
                store_first(address(beta, s), total, left)
    put_back_mode(mode)
    keep_alive((x, gradient, alphas, row, own, shares, blanks, beta, after, skips))


@inner
def _put_logarithms(x, r, labels, blank, highest, log_total, out):
    """The log probabilities, in row r, of the classes of all states."""
    empty = x[r, blank] - highest - log_total
    for n in range(len(labels)):
        out[2 * n] = empty
        out[2 * n + 1] = x[r, labels[n]] - highest - log_total
    out[2 * len(labels)] = empty
