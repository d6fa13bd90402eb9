"""Losses of classes: one of several, or yes and no for each."""

from __future__ import annotations

from typing import Any

import numpy as np

from .._arguments import check_number, dtype_of, quiet
from .._jit import jit
from ..packing.checks import as_integer
from ..packing.flat import Given
from .exponential import exp_of_negative, log_of_one_and
from .rows import Rows, numbers_of

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
    rows = Rows(logits, "logits", batch_first, reduction)
    ignored, classes = as_integer(ignore_index, "ignore_index"), rows.data.shape[1]
    check_number("label_smoothing", label_smoothing, below=1.0)
    smooth = float(label_smoothing)
    of_class = None if class_weights is None else numbers_of(class_weights, "class_weights", classes)
    counts = rows.weights(weights)
    chosen = _as_labels(rows.like(labels, "labels"), ignored, classes)
    used = (counts > 0) & (chosen >= 0)
    of_row = counts if of_class is None else counts * of_class[chosen]
    shares = np.ones(classes) if of_class is None else of_class

    def block(given: np.ndarray, part: slice, factor: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        right = np.arange(len(given)), chosen[part]
        x = given.astype(np.float64)
        x -= given.max(axis=1, keepdims=True)
        at_label = x[right]
        of_shares = x @ shares if smooth else np.empty(0)
        np.exp(x, out=x)
        total = x.sum(axis=1)
        log_total = np.log(total)
        own = (1 - smooth) * of_row[part]
        losses, all_weights = own * (log_total - at_label), own
        if smooth:
            each = smooth / classes * counts[part]
            losses += each * (log_total * shares.sum() - of_shares)
            all_weights = own + each * shares.sum()
        x *= (factor * all_weights / total)[:, None]
        if smooth:
            x -= (factor * each)[:, None] * shares
        x[right] -= factor * own
        return losses, x

    return rows.computed(used, of_row, block)


def _as_labels(labels: np.ndarray, ignored: int, classes: int) -> np.ndarray:
    """The labels as indices, with -1 in place of those that are ignored."""
    if labels.dtype.kind not in "iu":
        raise TypeError(f"labels must be integers; got {dtype_of(labels)}")
    counts = labels != ignored
    if not counts.all():
        labels = np.where(counts, labels, 0)
    if labels.min() < 0 or labels.max() >= classes:
        raise ValueError(
            f"labels must lie in [0, {classes}), or be ignore_index, {ignored}; got {labels.min()} to {labels.max()}"
        )
    return np.where(counts, labels.astype(np.intp), -1)


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

    It is PyTorch's ``binary_cross_entropy_with_logits``.

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
        over the columns, too.
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
    >>> loss, d_logits = binary_cross_entropy(np.zeros((1, 2)), np.array([[1, 0]]))
    >>> round(loss, 6), d_logits  # log(2)
    (0.693147, array([[-0.25,  0.25]]))
    """
    rows = Rows(logits, "logits", batch_first, reduction)
    columns = rows.data.shape[1]
    yes = np.ones(columns) if pos_weight is None else numbers_of(pos_weight, "pos_weight", columns)
    of_row = rows.weights(weights)
    wanted = rows.like(targets, "targets", columns=True)
    if wanted.dtype.kind not in "biuf":
        raise TypeError(f"targets must be numbers; got {dtype_of(wanted)}")
    if not ((wanted >= 0) & (wanted <= 1)).all():
        wrong = wanted[~((wanted >= 0) & (wanted <= 1))]
        raise ValueError(f"targets must lie in [0, 1]; got {wrong[0]}")

    def block(given: np.ndarray, part: slice, factor: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        losses, slopes = wanted[part].astype(np.float64), given.astype(np.float64)
        _binary(slopes.reshape(-1), losses.reshape(-1), yes)
        slopes *= (factor * of_row[part])[:, None]
        return losses.sum(axis=1) * of_row[part], slopes

    return rows.computed(of_row > 0, of_row * columns, block)


@jit
def _binary(x, t, yes):  # type: ignore[no-untyped-def]
    """Put the losses in place of the targets, and their derivatives in place of the logits; row after row."""
    e, near = np.empty_like(x), np.empty_like(x)
    for i in range(len(x)):
        near[i] = -abs(x[i])
    exp_of_negative(near, e)
    log_of_one_and(e, near)  # -log p = near + max(-x, 0), and -log(1 - p) = near + max(x, 0)
    C = len(yes)
    for start in range(0, len(x), C):
        for c in range(C):
            i = start + c
            high = 1.0 / (1.0 + e[i])
            low = e[i] * high
            positive = x[i] > 0
            p, not_p = high if positive else low, low if positive else high
            of_yes, of_no = yes[c] * t[i], 1.0 - t[i]
            above, below = x[i] if positive else 0.0, 0.0 if positive else -x[i]
            t[i] = of_yes * (near[i] + below) + of_no * (near[i] + above)
            x[i] = of_no * p - of_yes * not_p
