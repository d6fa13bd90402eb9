"""Clipping: a gradient scaled down where its norm is above a limit."""

from __future__ import annotations

import math

import numpy as np

from .._arguments import check_floats, check_number, quiet
from .._jit import jit
from .passes import Vector, check_out, given_out, read_only, target_of

__all__ = ["clip_grad_norm"]

#: entries whose squares are summed by halves; a power of two
_BLOCK = 1024


@jit
def _scale(gradient, out, copies, scale):
    """Write to `out`, which is the gradient or lies apart from it: either loop is vector code."""
    if copies:
        for i in range(len(out)):
            out[i] = gradient[i] * scale
    else:
        for i in range(len(out)):
            out[i] = out[i] * scale


@jit
def _sum_of_squares(vector):
    """The sum in float64; within blocks by halves, which is exact to a few roundings, and which vectors can do."""
    squares, total = np.empty(_BLOCK), 0.0
    for start in range(0, len(vector), _BLOCK):
        block = vector[start : start + _BLOCK]
        for i in range(len(block)):
            x = np.float64(block[i])
            squares[i] = x * x
        squares[len(block) :] = 0.0
        half = _BLOCK // 2
        while half:
            left, right = squares[:half], squares[half : 2 * half]
            for i in range(half):
                left[i] += right[i]
            half //= 2
        total += squares[0]
    return total


@quiet
def clip_grad_norm(gradient: Vector, max_norm: float, out: Vector | None = None) -> tuple[Vector, float]:
    r"""Scale a gradient down where its norm is above a limit.

    .. math::
        g \min\left(1, \frac{\text{max\_norm}}{\lVert g \rVert_2 + 10^{-6}}\right),

    which is PyTorch's ``clip_grad_norm_`` [1]_. As there, a norm that is NaN or infinite leaves nothing to step with:
    test it before a step.

    Parameters
    ----------
    gradient : (n,) float32 or float64 array
        Not changed, unless it is `out`. For a norm over several layers, join their gradients by ``np.concatenate``.
    max_norm : float
        At least 0; ``math.inf`` leaves the gradient as it is, and tells its norm.
    out : (n,) array, optional
        Where the clipped gradient is written to, in its dtype: `gradient` itself to clip in place, which reads it once
        and writes nothing where the norm is within the limit.

    Returns
    -------
    clipped : (n,) array
        In the dtype of the gradient: `out`, or else a new array.
    norm : float
        The norm before clipping, summed in float64.

    Raises
    ------
    TypeError, ValueError
        Where an argument is not as above.

    References
    ----------
    .. [1] R. Pascanu, T. Mikolov and Y. Bengio, "On the difficulty of training recurrent neural networks", ICML 2013.

    Examples
    --------
    >>> import numpy as np
    >>> from numba_pack.optim import clip_grad_norm
    >>> clipped, norm = clip_grad_norm(np.array([3.0, 4.0]), max_norm=1.0)
    >>> clipped.round(4), norm
    (array([0.6, 0.8]), 5.0)
    >>> gradient = np.array([3.0, 4.0], np.float32)
    >>> _, norm = clip_grad_norm(gradient, max_norm=2.5, out=gradient)
    >>> gradient.round(4)
    array([1.5, 2. ], dtype=float32)
    """
    check_floats("gradient", gradient, ndim=1)
    if max_norm != math.inf:
        check_number("max_norm", max_norm)
    check_out(out, gradient, "as gradient")
    norm = math.sqrt(_sum_of_squares(read_only(gradient)))
    scale = gradient.dtype.type(min(float(max_norm) / (norm + 1e-6), 1.0))  # in this order NaN stays NaN
    if out is gradient and scale == 1:
        return out, norm
    target = target_of(out, gradient)
    _scale(read_only(gradient), target.view(np.ndarray), target is not gradient, scale)
    return given_out(target, out), norm
