"""Connectionist temporal classification: a scan of its own over the rows of each sequence, there and back."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from scipy.special import log_softmax

from .._arguments import check_floats, dtype_of, quiet
from .._jit import inner, jit
from ..packing.checks import as_flag, as_integer, as_integers
from ..packing.flat import Flat, Given
from ..packing.ragged import unpack_ragged
from ..packing.sequences import PackedSequence, pack_rows, rows_of
from .rows import as_reduction

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
    base, step, counts = _layout(flat, lengths, first)
    values, offsets = _labels(labels, len(base), classes, empty)
    sizes = np.diff(offsets)
    scale = np.ones(len(base))
    if kind == "mean":
        scale /= np.maximum(sizes, 1) * len(base)

    rows = flat.array.reshape(-1, classes)
    log_p = log_softmax(rows.astype(np.float64), axis=1) if rows.size else np.empty(rows.shape)
    d_rows, losses = np.zeros(rows.shape), np.empty(len(base))
    work = np.empty(int(np.max(counts * (2 * sizes + 1), initial=0)))
    _scan_all(log_p, base, step, counts, values, offsets, empty, scale, work, losses, d_rows)
    gradient = flat.back(d_rows.astype(rows.dtype, copy=False).reshape(flat.array.shape))
    return losses if kind == "none" else float((losses * scale).sum()), gradient


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


@inner
def _log_add(a, b):  # type: ignore[no-untyped-def]
    """log(exp(a) + exp(b))."""
    high, low = (a, b) if a > b else (b, a)
    return high if low == -math.inf else high + math.log1p(math.exp(low - high))


@jit
def _scan_all(log_p, base, step, lengths, labels, offsets, blank, scale, work, losses, d_rows):  # type: ignore[no-untyped-def]
    """The loss of each sequence, and the gradient of the rows, which come as zeros.

    State s of a sequence is label s // 2 if s is odd, and a blank before or behind it if it is even. A path goes on to
    its own state, to the next one, or past a blank to another label.
    """
    C = log_p.shape[1]
    for i in range(len(base)):
        T, here, states = lengths[i], labels[offsets[i] : offsets[i + 1]], 2 * (offsets[i + 1] - offsets[i]) + 1
        if T == 0:
            losses[i] = 0.0 if states == 1 else math.inf
            continue
        # alpha[t, s]: log probability of all that leads to s and of its own class; `work` has room for them
        alpha = work[: T * states].reshape(T, states)
        alpha[0, :] = -math.inf
        first = log_p[base[i] + step[0]]
        alpha[0, 0] = first[blank]
        if states > 1:
            alpha[0, 1] = first[here[0]]
        for t in range(1, T):
            p = log_p[base[i] + step[t]]
            for s in range(states):
                total = alpha[t - 1, s]
                if s > 0:
                    total = _log_add(total, alpha[t - 1, s - 1])
                if s > 1 and s % 2 == 1 and here[s // 2] != here[s // 2 - 1]:
                    total = _log_add(total, alpha[t - 1, s - 2])
                alpha[t, s] = total + (p[here[s // 2]] if s % 2 == 1 else p[blank])
        total = alpha[T - 1, states - 1]
        if states > 1:
            total = _log_add(total, alpha[T - 1, states - 2])
        losses[i] = -total
        if total == -math.inf:
            continue

        beta, after = np.full(states, -math.inf), np.empty(states)  # of all that comes after s
        beta[states - 1] = 0.0
        if states > 1:
            beta[states - 2] = 0.0
        for t in range(T - 1, -1, -1):
            row = base[i] + step[t]
            p, d = log_p[row], d_rows[row]
            for c in range(C):
                d[c] = math.exp(p[c])
            for s in range(states):
                own = here[s // 2] if s % 2 == 1 else blank
                d[own] -= math.exp(alpha[t, s] + beta[s] - total)
                after[s] = beta[s] + p[own]
            for c in range(C):
                d[c] *= scale[i]
            for s in range(states):
                x = after[s]
                if s + 1 < states:
                    x = _log_add(x, after[s + 1])
                if s % 2 == 1 and s + 2 < states and here[s // 2] != here[s // 2 + 1]:
                    x = _log_add(x, after[s + 2])
                beta[s] = x
