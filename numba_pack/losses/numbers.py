"""Losses of numbers, column by column."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .._arguments import check_number, dtype_of, quiet
from ..packing.flat import Given
from .rows import Rows

__all__ = ["huber", "mse"]


@quiet
def mse(
    output: Given, targets: Any, *, weights: Any = None, reduction: str = "mean", batch_first: bool = False
) -> tuple[Any, Given]:
    r"""Squares of the differences between output and targets, and their gradient.

    With output :math:`y` and targets :math:`t`, as a mean over N rows of C columns

    .. math::
        \mathrm{loss} = \frac{1}{N C} \sum_{nc} (y_{nc} - t_{nc})^2, \qquad
        \frac{\partial\,\mathrm{loss}}{\partial y_{nc}} = \frac{2 (y_{nc} - t_{nc})}{N C}.

    Parameters
    ----------
    output : PackedSequence, or array (N, C), (T, B, C) or (B, T, C), of float32 or float64
        N and C at least 1. Not changed.
    targets : like output, of real numbers
        Finite in rows that count.
    weights : one for each row, of numbers, optional
        In the form of the output without the columns: finite, at least 0.
    reduction : {"mean", "sum", "none", "batchmean", "sequence_mean"}
        How the losses of all rows, each the sum of its columns', become one number: see `numba_pack.losses`. A mean is
        over the columns, too.
    batch_first : bool
        Whether a padded batch is (B, T, C).

    Returns
    -------
    loss : float
        With ``reduction="none"`` an array of a number for each row.
    d_output : like output
        Its gradient, in the dtype of the output.

    Raises
    ------
    TypeError, ValueError
        Where an argument is not as above.

    Examples
    --------
    >>> import numpy as np
    >>> mse(np.array([[1.0, 2.0]]), np.array([[1.0, 0.0]]))
    (2.0, array([[0., 2.]]))

    A padded batch of two series, of which the second has one step:

    >>> output, targets = np.ones((2, 2, 1)), np.zeros((2, 2, 1))
    >>> loss, d_output = mse(output, targets, weights=np.array([[1, 1], [1, 0]]), reduction="sum")
    >>> loss, d_output[..., 0]
    (3.0, array([[2., 2.],
           [2., 0.]]))
    """

    def differ(d: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return d * d, 2 * d

    return _of_differences(differ, output, targets, weights, reduction, batch_first)


@quiet
def huber(
    output: Given,
    targets: Any,
    *,
    delta: float = 1.0,
    weights: Any = None,
    reduction: str = "mean",
    batch_first: bool = False,
) -> tuple[Any, Given]:
    r"""Huber's loss between output and targets, and its gradient: squares of what is small, no more than linear in all.

    With differences :math:`d = y - t` of output and targets [1]_,

    .. math::
        \mathrm{loss}(d) = \begin{cases} d^2 / 2 & |d| \leq \delta \\ \delta (|d| - \delta / 2) & \text{else.}
        \end{cases}

    It is PyTorch's ``huber_loss``.

    Parameters
    ----------
    output, targets, weights, reduction, batch_first
        As for `mse`.
    delta : float
        :math:`\delta`, above 0.

    Returns
    -------
    loss : float
        With ``reduction="none"`` an array of a number for each row.
    d_output : like output
        Its gradient, in the dtype of the output.

    Raises
    ------
    TypeError, ValueError
        Where an argument is not as above.

    References
    ----------
    .. [1] P. J. Huber, "Robust estimation of a location parameter", Annals of Mathematical Statistics 35 (1964).

    Examples
    --------
    >>> import numpy as np
    >>> loss, d_output = huber(np.array([[0.5, -9.0]]), np.zeros((1, 2)), reduction="sum")
    >>> loss, d_output
    (8.625, array([[ 0.5, -1. ]]))
    """
    check_number("delta", delta, above=0.0)
    limit = float(delta)

    def differ(d: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        slope = np.clip(d, -limit, limit)
        return slope * (d - 0.5 * slope), slope

    return _of_differences(differ, output, targets, weights, reduction, batch_first)


def _of_differences(
    differ: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]],
    output: Given,
    targets: Any,
    weights: Any,
    reduction: str,
    batch_first: bool,
) -> tuple[Any, Given]:
    """Loss and gradient, where `differ` gives the loss of each difference, and its derivative."""
    rows = Rows(output, "output", batch_first, reduction)
    of_row = rows.weights(weights)
    wanted = rows.like(targets, "targets", columns=True)
    if wanted.dtype.kind not in "iuf":
        raise TypeError(f"targets must be real numbers; got {dtype_of(wanted)}")

    def block(y: np.ndarray, part: slice, factor: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        losses, slopes = differ(np.subtract(y, wanted[part], dtype=np.float64))
        slopes *= (factor * of_row[part])[:, None]
        return losses.sum(axis=1) * of_row[part], slopes

    return rows.computed(of_row > 0, of_row * rows.data.shape[1], block)
