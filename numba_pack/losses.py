"""Softmax cross-entropy with its gradient, for scripts with no framework around them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax

from numba_pack._arguments import check_floats, check_no_mask, kind_of, quiet

__all__ = ["softmax_cross_entropy"]


@quiet
def softmax_cross_entropy(
    logits: NDArray[np.floating[Any]], labels: NDArray[np.integer[Any]]
) -> tuple[float, NDArray[np.floating[Any]]]:
    r"""Cross-entropy between softmax(logits) and labels, mean over the rows, and its gradient.

    With logits :math:`x`, labels :math:`y`, and :math:`p_{nc} = e^{x_{nc}} / \sum_k e^{x_{nk}}` [1]_,

    .. math::
        \mathrm{loss} = -\frac{1}{N} \sum_n \log p_{n y_n}, \qquad
        \frac{\partial\,\mathrm{loss}}{\partial x_{nc}} = \frac{p_{nc} - [c = y_n]}{N}.

    Both are computed in float64, and stay finite for logits of any finite size.

    Parameters
    ----------
    logits : (N, C) float32 or float64 array
        A row for each example, a column for each class; N and C at least 1. Not changed.
    labels : (N,) array of integers
        The right class of each row, in [0, C).

    Returns
    -------
    loss : float
        The mean of the N losses.
    d_logits : (N, C) array
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
    """
    _check(logits, labels)
    logits, labels = np.asarray(logits), np.asarray(labels)  # a subclass of ndarray may tell another length
    rows = np.arange(len(labels))
    log_p = log_softmax(logits.astype(np.float64), axis=1)  # (N, C)
    d_logits = np.exp(log_p)
    d_logits[rows, labels] -= 1.0
    d_logits /= len(labels)
    return float(-log_p[rows, labels].mean()), d_logits.astype(logits.dtype, copy=False)


def _check(logits: NDArray[np.floating[Any]], labels: NDArray[np.integer[Any]]) -> None:
    check_floats("logits", logits, ndim=2)
    if logits.size == 0:
        raise ValueError(f"logits must have at least one row and one column; got shape {logits.shape}")
    if not isinstance(labels, np.ndarray):
        raise TypeError(f"labels must be a NumPy array; got {kind_of(labels)}")
    check_no_mask(labels, "labels")
    if not np.issubdtype(labels.dtype, np.integer):
        raise TypeError(f"labels must be integers; got {labels.dtype}")
    n, classes = logits.shape
    if labels.shape != (n,):
        raise ValueError(f"labels must have shape ({n},), one label for each row of logits; got {labels.shape}")
    if labels.min() < 0 or labels.max() >= classes:
        raise ValueError(f"labels must lie in [0, {classes}); got {labels.min()} to {labels.max()}")
