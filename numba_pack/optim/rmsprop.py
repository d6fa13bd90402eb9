"""RMSprop: steps divided by the root of a running mean of squares."""

from __future__ import annotations

import math
from dataclasses import dataclass

from .._arguments import check_number
from .._jit import inner
from .optimizer import Optimizer
from .passes import Vector, Vectors, as_pass

__all__ = ["RMSprop"]


@as_pass
@inner
def _rmsprop(x, gradient, square, buffer, settings):
    lr, kept, share, eps, momentum, decay = settings
    for i in range(len(x)):
        g = gradient[i] + decay * x[i] if decay != 0 else gradient[i]
        s = kept * square[i] + share * (g * g)
        square[i] = s
        change = g / (math.sqrt(s) + eps)
        if momentum != 0:
            change = momentum * buffer[i] + change
            buffer[i] = change
        x[i] = x[i] - lr * change


@dataclass(eq=False)
class RMSprop(Optimizer):
    r"""RMSprop: the gradient divided by the root of a running mean of its square.

    With parameters :math:`\theta` and :math:`v`, :math:`b` starting at 0 [1]_,

    .. math::
        g &\leftarrow g + \lambda \theta \\
        v &\leftarrow \alpha v + (1 - \alpha) \, g^2 \\
        b &\leftarrow \mu b + \frac{g}{\sqrt{v} + \epsilon} \\
        \theta &\leftarrow \theta - \mathrm{lr} \, b.

    Parameters
    ----------
    lr : float
        Learning rate, at least 0. Like the others it is an attribute, and may be assigned between steps.
    alpha : float
        :math:`\alpha`, in [0, 1).
    eps : float
        :math:`\epsilon`, at least 0.
    weight_decay : float
        :math:`\lambda`, at least 0.
    momentum : float
        :math:`\mu`, at least 0.

    Raises
    ------
    TypeError, ValueError
        Where one of them is not a number, or not in its range.

    References
    ----------
    .. [1] T. Tieleman and G. Hinton, "Lecture 6.5 - RMSprop", Coursera: Neural Networks for Machine Learning, 2012.

    Examples
    --------
    >>> import numpy as np
    >>> from numba_pack.optim import RMSprop
    >>> rmsprop = RMSprop(lr=0.25, alpha=0.75)
    >>> rmsprop.step(np.array([1.0, -2.0]), np.array([2.0, -4.0])).round(6)  # at first, lr / sqrt(1 - alpha) for all
    array([ 0.5, -1.5])
    """

    _always = ("square_avg",)
    _maybe = ("momentum_buffer",)
    lr: float = 1e-2
    alpha: float = 0.99
    eps: float = 1e-8
    weight_decay: float = 0.0
    momentum: float = 0.0

    def __post_init__(self) -> None:
        check_number("lr", self.lr)
        check_number("alpha", self.alpha, below=1.0)
        check_number("eps", self.eps)
        check_number("weight_decay", self.weight_decay)
        check_number("momentum", self.momentum)

    def _update(self, vectors: Vectors) -> Vector:
        alpha, momentum = float(self.alpha), float(self.momentum)
        settings = float(self.lr), alpha, 1 - alpha, float(self.eps), momentum, float(self.weight_decay)
        return self._run(_rmsprop, vectors, settings, "square_avg", *["momentum_buffer"] * bool(momentum))
