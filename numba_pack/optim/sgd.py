"""SGD: steps down the gradient, with momentum if wanted."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .._arguments import check_number
from .._jit import inner
from .optimizer import Optimizer
from .passes import Vector, Vectors, as_pass

__all__ = ["SGD"]


@as_pass
@inner
def _sgd(x, gradient, buffer, _second, settings):
    lr, momentum, share, decay, nesterov = settings
    for i in range(len(x)):
        g = gradient[i] + decay * x[i] if decay != 0 else gradient[i]
        if momentum != 0:
            kept = momentum * buffer[i] + share * g
            buffer[i] = kept
            g = g + momentum * kept if nesterov else kept
        x[i] = x[i] - lr * g


@dataclass(eq=False)
class SGD(Optimizer):
    r"""Stochastic gradient descent, with momentum if wanted.

    With parameters :math:`\theta`, gradient :math:`g`, momentum :math:`\mu`, dampening :math:`\tau` and weight decay
    :math:`\lambda`, step by step

    .. math::
        g &\leftarrow g + \lambda \theta \\
        b &\leftarrow \mu b + (1 - \tau) \, g \\
        \theta &\leftarrow \theta - \mathrm{lr} \, b,

    where at the first step :math:`b = g`, and Nesterov's form ends with
    :math:`\theta - \mathrm{lr} \, (g + \mu b)` ([1]_, in the form of PyTorch's ``torch.optim.SGD``).

    Parameters
    ----------
    lr : float
        Learning rate, at least 0. Like the others it is an attribute, and may be assigned between steps.
    momentum : float
        :math:`\mu`, at least 0; from 1 on, no gradient is ever forgotten.
    weight_decay : float
        :math:`\lambda`, at least 0.
    dampening : float
        :math:`\tau`, at least 0.
    nesterov : bool
        Nesterov's form, which needs momentum and no dampening.

    Raises
    ------
    TypeError, ValueError
        Where one of them is not a number, or not in its range.

    References
    ----------
    .. [1] I. Sutskever, J. Martens, G. Dahl and G. Hinton, "On the importance of initialization and momentum in deep
       learning", ICML 2013.

    Examples
    --------
    >>> import numpy as np
    >>> from numba_pack.optim import SGD
    >>> sgd = SGD(lr=0.5, momentum=0.9)
    >>> x = np.array([1.0, -2.0])
    >>> for _ in range(100):
    ...     x = sgd.step(x, 2 * x)  # the gradient of x @ x
    >>> bool(np.abs(x).max() < 0.02)
    True
    """

    _maybe = ("momentum_buffer",)
    lr: float
    momentum: float = 0.0
    weight_decay: float = 0.0
    dampening: float = 0.0
    nesterov: bool = False

    def __post_init__(self) -> None:
        check_number("lr", self.lr)
        check_number("momentum", self.momentum)
        check_number("weight_decay", self.weight_decay)
        check_number("dampening", self.dampening)
        if not isinstance(self.nesterov, bool | np.bool_):
            raise TypeError(f"nesterov must be a bool; got {self.nesterov!r}")
        if self.nesterov and not (self.momentum > 0 and self.dampening == 0):
            raise ValueError(
                "nesterov must come with momentum above 0 and dampening 0;"
                f" got momentum={self.momentum!r}, dampening={self.dampening!r}"
            )

    def _update(self, vectors: Vectors) -> Vector:
        momentum = float(self.momentum)
        share = 1 - float(self.dampening) if "momentum_buffer" in self._memory else 1.0
        settings = float(self.lr), momentum, share, float(self.weight_decay), bool(self.nesterov)
        return self._run(_sgd, vectors, settings, *["momentum_buffer"] * bool(momentum))
