"""Losses of classes: one of several, or yes and no for each."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .._arguments import check_number, dtype_of, quiet
from .._jit import inner, jit
from ..cells.activations import log
from ..packing.checks import as_integer
from ..packing.flat import Given
from ..simd.lanes import (
    absolute,
    fma,
    like,
    load,
    maximum,
    nothing,
    reciprocal,
    select_less,
    size_of,
    store,
    sum_of,
    width,
)
from ..simd.memory import address, clear, keep_alive
from ..simd.modes import put_back_mode, take_mode
from ..simd.wide import load_wide, store_wide
from .exponential import TINY, exp_of_negative, exponentials, log_of_one_and
from .passes import by_column, by_sequence, scales, sum_of_numbers, total_of
from .rows import Rows, as_targets, numbers_of, readable

__all__ = ["binary_cross_entropy", "softmax_cross_entropy"]


@quiet
def softmax_cross_entropy(
    logits: Given,
    labels: Any,
    *,
    class_weights: Any = None,
    weights: Any = None,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    reduction: str = "mean",
    batch_first: bool = False,
) -> tuple[Any, Given]:
    r"""Cross-entropy between softmax(logits) and labels, and its gradient.

    With logits :math:`x`, labels :math:`y`, and :math:`p_{nc} = e^{x_{nc}} / \sum_k e^{x_{nk}}` [1]_, as a mean over
    the rows

    .. math::
        \mathrm{loss} = -\frac{1}{N} \sum_n \log p_{n y_n}, \qquad
        \frac{\partial\,\mathrm{loss}}{\partial x_{nc}} = \frac{p_{nc} - [c = y_n]}{N}.

    Both are computed in float64, and stay finite for logits of any finite size. Weights of classes, smoothing and the
    mean are those of PyTorch's ``cross_entropy``.

    Parameters
    ----------
    logits : PackedSequence, or array (N, C), (T, B, C) or (B, T, C), of float32 or float64
        A row for each example, a column for each class; N and C at least 1. Not changed.
    labels : PackedSequence, or array (N,), (T, B) or (B, T), of integers
        The right class of each row, in [0, C), or `ignore_index`.
    class_weights : (C,) array, optional
        The weight of each class: finite, at least 0.
    weights : like labels, of numbers, optional
        The weight of each row, besides that of its class: finite, at least 0.
    ignore_index : int
        The label of a row that does not count.
    label_smoothing : float
        Which part of each row's label is shared by all classes, in [0, 1).
    reduction : {"mean", "sum", "none", "batchmean", "sequence_mean"}
        How the losses of all rows become one number: see `numba_pack.losses`.
    batch_first : bool
        Whether a padded batch is (B, T, C).

    Returns
    -------
    loss : float
        With ``reduction="none"`` an array in the form of the labels.
    d_logits : like logits
        Its gradient, in the dtype of the logits.

    Raises
    ------
    TypeError, ValueError
        Where an argument is not as above.

    References
    ----------
    .. [1] J. S. Bridle, "Probabilistic interpretation of feedforward classification network outputs, with relationships
       to statistical pattern recognition", Neurocomputing, Springer 1990.

    Examples
    --------
    >>> import numpy as np
    >>> from numba_pack.losses import softmax_cross_entropy
    >>> loss, d_logits = softmax_cross_entropy(np.zeros((2, 4)), np.array([3, 0]))
    >>> round(loss, 6)  # log(4): the guess is even
    1.386294
    >>> d_logits
    array([[ 0.125,  0.125,  0.125, -0.375],
           [-0.375,  0.125,  0.125,  0.125]])

    Of packed sequences, where each counts the same:

    >>> import numba_pack as nbp
    >>> logits = nbp.pack_sequence([np.zeros((3, 2)), np.array([[0.0, 9.0]])])
    >>> labels = nbp.pack_sequence([np.array([0, 1, 1]), np.array([1])])
    >>> loss, d_logits = softmax_cross_entropy(logits, labels, reduction="sequence_mean")
    >>> round(loss, 3), d_logits.data.shape
    (0.347, (4, 2))
    """
    rows = Rows(logits, "logits", batch_first, reduction, weights)
    ignored, classes = as_integer(ignore_index, "ignore_index"), rows.data.shape[1]
    check_number("label_smoothing", label_smoothing, below=1.0)
    of_class = numbers_of(class_weights, "class_weights", classes)
    given = rows.like(labels, "labels")
    if given.dtype.kind not in "iu":
        raise TypeError(f"labels must be integers; got {dtype_of(given)}")
    chosen, left_out = given.astype(np.int64, copy=False), ignored
    if given.dtype == np.uint64 or not -(2**63) <= ignored < 2**63:  # what int64 cannot tell apart
        right = (given >= 0) & (given < classes)
        chosen, left_out = np.where(given == ignored, -1, np.where(right, chosen, -2)), -1
    result = rows.computed(_softmax, readable(chosen), left_out, of_class, float(label_smoothing))
    if result is None:
        wrong = given[given != ignored]
        raise ValueError(
            f"labels must lie in [0, {classes}), or be ignore_index, {ignored}; got {wrong.min()} to {wrong.max()}"
        )
    return result


@jit
def _softmax(x, labels, ignored, of_class, smooth, weights, which, way, losses, gradient):
    (rows, classes), weighs, by_class, apart = x.shape, len(weights) > 0, len(of_class) > 0, by_sequence(way)
    for r in range(rows):
        if labels[r] != ignored and not 0 <= labels[r] < classes:
            return 0.0, False
    counts, found, scale = np.empty(rows), np.empty(rows), np.empty(way[1] if apart else 1)
    lanes = width(scale.dtype)
    row = np.empty(classes + lanes)
    mode = take_mode()
    for r in range(rows):
        counts[r] = 0.0 if labels[r] == ignored else weights[r] if weighs else 1.0
        if by_class and labels[r] != ignored:
            counts[r] *= of_class[labels[r]]
    any_counts = scales(way, counts, rows, 1, which, scale)
    of_all = sum_of_numbers(of_class, 0, classes) if by_class else float(classes)
    for r in range(rows):
        label, weight, start = labels[r], weights[r] if weighs else 1.0, r * classes
        if label == ignored or weight == 0:  # the row may hold anything
            found[r] = 0.0
            clear(address(gradient, start), classes * size_of(gradient.dtype))
            continue
        factor, own = scale[which[r]] if apart else scale[0], (1.0 - smooth) * counts[r]
        highest, total = exponentials(x, start, classes, row)
        log_total = log(total)
        loss, all_weights = own * (log_total - (x[r, label] - highest)), own
        if smooth > 0:
            each, top, of_shares = smooth / classes * weight, like(nothing(row), highest), nothing(row)
            for i in range(0, classes, lanes):
                below = load_wide(x, address(x, start + i), classes - i, highest) - top
                of_shares = fma(below, load_wide(of_class, address(of_class, i), len(of_class) - i, 1.0), of_shares)
            loss += each * (log_total * of_all - sum_of(of_shares))
            all_weights += each * of_all
        whole = factor * all_weights / total * TINY
        if smooth > 0:
            whole_of_each, part = like(top, whole), like(top, factor * each)
            for i in range(0, classes, lanes):
                share = load_wide(of_class, address(of_class, i), len(of_class) - i, 1.0)
                store(address(row, i), load(row, address(row, i)) * whole_of_each - part * share)
            whole = 1.0
        of_label, whole_of_each = row[label] * whole - factor * own, like(nothing(row), whole)
        for i in range(0, classes, lanes):
            p = load(row, address(row, i)) * whole_of_each
            store_wide(gradient, address(gradient, start + i), p, classes - i)
        gradient[r, label] = of_label
        found[r] = loss
    loss = total_of(way, found, which, scale, losses) if any_counts else math.nan
    put_back_mode(mode)
    keep_alive((x, labels, of_class, weights, gradient, counts, found, row))
    return loss, True


@quiet
def binary_cross_entropy(
    logits: Given,
    targets: Any,
    *,
    pos_weight: Any = None,
    weights: Any = None,
    reduction: str = "mean",
    batch_first: bool = False,
) -> tuple[Any, Given]:
    r"""Cross-entropy between sigmoid(logits) and targets, of every column by itself, and its gradient.

    With logits :math:`x`, targets :math:`t`, and :math:`p = 1 / (1 + e^{-x})`, as a mean over N rows of C columns

    .. math::
        \mathrm{loss} = -\frac{1}{N C} \sum_{nc} w_c t_{nc} \log p_{nc} + (1 - t_{nc}) \log(1 - p_{nc}), \qquad
        \frac{\partial\,\mathrm{loss}}{\partial x_{nc}} = \frac{(1 - t_{nc}) p_{nc} - w_c t_{nc} (1 - p_{nc})}{N C}.

    It is PyTorch's ``binary_cross_entropy_with_logits``, but for the mean where there are `weights`: see
    `numba_pack.losses`. The loss of an infinite logit is infinite where it is wrong, and NaN where it is quite right.

    Parameters
    ----------
    logits : PackedSequence, or array (N, C), (T, B, C) or (B, T, C), of float32 or float64
        N and C at least 1. Not changed.
    targets : like logits, of numbers
        In [0, 1]; bools will do.
    pos_weight : (C,) array, optional
        :math:`w`, the weight of a yes in each column: finite, at least 0.
    weights : one for each row, of numbers, optional
        In the form of the logits without the columns: finite, at least 0.
    reduction : {"mean", "sum", "none", "batchmean", "sequence_mean"}
        How the losses of all rows, each the sum of its columns', become one number: see `numba_pack.losses`. A mean is
        over the columns, too, as PyTorch's; C times it is that of the rows, as in nats a step.
    batch_first : bool
        Whether a padded batch is (B, T, C).

    Returns
    -------
    loss : float
        With ``reduction="none"`` an array of a number for each row.
    d_logits : like logits
        Its gradient, in the dtype of the logits.

    Raises
    ------
    TypeError, ValueError
        Where an argument is not as above.

    Examples
    --------
    >>> import numpy as np
    >>> from numba_pack.losses import binary_cross_entropy
    >>> loss, d_logits = binary_cross_entropy(np.zeros((1, 2)), np.array([[1, 0]]))
    >>> round(loss, 6), d_logits  # log(2)
    (0.693147, array([[-0.25,  0.25]]))
    """
    rows = Rows(logits, "logits", batch_first, reduction, weights)
    yes = numbers_of(pos_weight, "pos_weight", rows.data.shape[1])
    given = rows.like(targets, "targets", columns=True)
    if given.dtype.kind not in "biuf":
        raise TypeError(f"targets must be numbers; got {dtype_of(given)}")
    wanted = given if given.dtype.kind == "f" else given.astype(rows.data.dtype)
    result = rows.computed(_binary, as_targets(wanted, rows.data), yes, ())
    if result is None:
        wrong = given[~((given >= 0) & (given <= 1))]
        raise ValueError(f"targets must lie in [0, 1]; got {wrong[0]}")
    return result


@by_column
@inner
def _binary(x, t, yes, _):
    zero, one = like(x, 0.0), like(x, 1.0)
    u = exp_of_negative(-absolute(x)) * like(x, TINY)
    near = log_of_one_and(u)  # -log p = near + max(-x, 0), and -log(1 - p) = near + max(x, 0)
    high = reciprocal(one + u)
    low = u * high
    p, not_p = select_less(zero, x, high, low), select_less(zero, x, low, high)
    of_yes, of_no = yes * t, one - t
    losses = of_yes * (near + maximum(-x, zero)) + of_no * (near + maximum(x, zero))
    return losses, of_no * p - of_yes * not_p, maximum(-(t * of_no), zero)
