"""Losses of numbers, column by column."""

from __future__ import annotations

import sys
from typing import Any

from .._arguments import check_number, dtype_of, quiet
from .._jit import inner
from ..packing.flat import Given
from ..simd.lanes import like, maximum, minimum
from .passes import by_column
from .rows import NO_WEIGHTS, Rows, as_targets

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
    >>> from numba_pack.losses import mse
    >>> mse(np.array([[1.0, 2.0]]), np.array([[1.0, 0.0]]))
    (2.0, array([[0., 2.]]))

    A padded batch of two series, of which the second has one step:

    >>> output, targets = np.ones((2, 2, 1)), np.zeros((2, 2, 1))
    >>> loss, d_output = mse(output, targets, weights=np.array([[1, 1], [1, 0]]), reduction="sum")
    >>> loss, d_output[..., 0]
    (3.0, array([[2., 2.],
           [2., 0.]]))
    """
    return _of_differences(sys.float_info.max, 2.0, output, targets, weights, reduction, batch_first)


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
    >>> from numba_pack.losses import huber
    >>> loss, d_output = huber(np.array([[0.5, -9.0]]), np.zeros((1, 2)), reduction="sum")
    >>> loss, d_output
    (8.625, array([[ 0.5, -1. ]]))
    """
    check_number("delta", delta, above=0.0)
    return _of_differences(float(delta), 1.0, output, targets, weights, reduction, batch_first)


def _of_differences(
    limit: float, times: float, output: Given, targets: Any, weights: Any, reduction: str, batch_first: bool
) -> tuple[Any, Given]:
    """So many times Huber's loss with this limit: a square is twice that with none."""
    rows = Rows(output, "output", batch_first, reduction, weights)
    wanted = rows.like(targets, "targets", columns=True)
    if wanted.dtype.kind not in "iuf":
        raise TypeError(f"targets must be real numbers; got {dtype_of(wanted)}")
    result = rows.computed(_huber, as_targets(wanted, rows.data), NO_WEIGHTS, (limit, times))
    assert result is not None  # no target is wrong
    return result


@by_column
@inner
def _huber(y, t, _, settings):
    limit, times, d = like(y, settings[0]), like(y, settings[1]), y - t
    slope = maximum(minimum(d, limit), -limit)
    return times * (slope * (d - like(y, 0.5) * slope)), times * slope, like(y, 0.0)
