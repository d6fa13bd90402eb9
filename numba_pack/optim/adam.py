"""Adam and AdamW: steps scaled by running means of the gradient and of its square."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from .._arguments import check_number
from .._jit import inner
from .optimizer import Optimizer
from .passes import Vector, Vectors, as_pass

__all__ = ["Adam", "AdamW"]


@as_pass
@inner
def _adam(x, gradient, mean, square, settings):
    rate, share_of_mean, kept, share, root, eps, decay, shrinkage = settings
    for i in range(len(x)):
        g = gradient[i] + decay * x[i] if decay != 0 else gradient[i]
        m = mean[i] + share_of_mean * (g - mean[i])
        s = kept * square[i] + share * (g * g)
        mean[i] = m
        square[i] = s
        shrunk = x[i] - shrinkage * x[i] if shrinkage != 0 else x[i]
        x[i] = shrunk - rate * (m / (root * math.sqrt(s) + eps))


@dataclass(eq=False)
class Adam(Optimizer):
    r"""Adam: steps scaled by running means of the gradient and of its square.

    At step :math:`t = 1, 2, \dots`, with parameters :math:`\theta` and :math:`m`, :math:`v` starting at 0 [1]_,

    .. math::
        g &\leftarrow g + \lambda \theta \\
        m &\leftarrow \beta_1 m + (1 - \beta_1) \, g \\
        v &\leftarrow \beta_2 v + (1 - \beta_2) \, g^2 \\
        \theta &\leftarrow \theta - \mathrm{lr} \,
            \frac{m / (1 - \beta_1^t)}{\sqrt{v / (1 - \beta_2^t)} + \epsilon}.

    Parameters
    ----------
    lr : float
        Learning rate, at least 0. Like the others it is an attribute, and may be assigned between steps.
    betas : (float, float)
        :math:`\beta_1, \beta_2`, both in [0, 1).
    eps : float
        :math:`\epsilon`, at least 0.
    weight_decay : float
        :math:`\lambda`, at least 0: an L2 penalty that the running means see. `AdamW` decays apart from them.

    Raises
    ------
    TypeError, ValueError
        Where one of them is not a number, or not in its range.

    References
    ----------
    .. [1] D. P. Kingma and J. Ba, "Adam: a method for stochastic optimization", ICLR 2015.

    Examples
    --------
    >>> import numpy as np
    >>> from numba_pack.optim import Adam
    >>> adam = Adam(lr=0.25)
    >>> adam.step(np.array([1.0, -2.0]), np.array([2.0, -4.0]))  # the first step is lr for every entry
    array([ 0.75, -1.75])
    """

    _always = ("step", "exp_avg", "exp_avg_sq")
    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        check_number("lr", self.lr)
        if not (isinstance(self.betas, (tuple, list)) and len(self.betas) == 2):
            raise TypeError(f"betas must be a pair of numbers; got {self.betas!r}")
        check_number("betas[0]", self.betas[0], below=1.0)
        check_number("betas[1]", self.betas[1], below=1.0)
        check_number("eps", self.eps)
        check_number("weight_decay", self.weight_decay)

    def _decays(self) -> tuple[float, float]:
        """What of the parameters is added to the gradient, and what they lose apart from it."""
        return float(self.weight_decay), 0.0

    def _update(self, vectors: Vectors) -> Vector:
        beta1, beta2 = map(float, self.betas)
        steps = int(self._memory.get("step", 0)) + 1
        settings = (
            float(self.lr) / (1 - beta1**steps),
            1 - beta1,
            beta2,
            1 - beta2,
            1 / math.sqrt(1 - beta2**steps),
            float(self.eps),
            *self._decays(),
        )
        stepped = self._run(_adam, vectors, settings, "exp_avg", "exp_avg_sq")
        self._memory["step"] = np.array(steps, np.int64)
        return stepped


@dataclass(eq=False)
class AdamW(Adam):
    r"""Adam with weight decay apart from the moments.

    The steps of `Adam` without its first line; before each,
    :math:`\theta \leftarrow (1 - \mathrm{lr} \, \lambda) \theta` [1]_.

    Parameters
    ----------
    lr, betas, eps
        As in `Adam`.
    weight_decay : float
        :math:`\lambda`, at least 0.

    Raises
    ------
    TypeError, ValueError
        Where one of them is not a number, or not in its range.

    References
    ----------
    .. [1] I. Loshchilov and F. Hutter, "Decoupled weight decay regularization", ICLR 2019.

    Examples
    --------
    >>> import numpy as np
    >>> from numba_pack.optim import AdamW
    >>> adamw = AdamW(lr=0.25, weight_decay=0.5)
    >>> adamw.step(np.array([1.0, -2.0]), np.array([2.0, -4.0]))
    array([ 0.625, -1.5  ])
    """

    weight_decay: float = 1e-2

    def _decays(self) -> tuple[float, float]:
        return 0.0, float(self.lr) * float(self.weight_decay)
