"""SGD, Adam and AdamW over one flat parameter vector, and gradient-norm clipping.

For scripts with no framework around them. An optimiser is a plain object; ``step`` takes a parameter vector and its
gradient, changes neither, and returns the next parameter vector::

    gradient, norm = clip_grad_norm(grads.parameters, 1.0)
    layer.parameters = adam.step(layer.parameters, gradient)

What an optimiser remembers has the layout and the dtype of the vector that it steps, so each vector needs an optimiser
of its own; several layers that share one are joined by ``np.concatenate``. The updates are PyTorch's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from numba_pack._arguments import check_floats, check_number, quiet

__all__ = ["SGD", "Adam", "AdamW", "clip_grad_norm"]

Vector: TypeAlias = NDArray[np.floating[Any]]


@dataclass(eq=False)
class SGD:
    r"""Stochastic gradient descent, with momentum if wanted.

    With parameters :math:`\theta`, gradient :math:`g` and weight decay :math:`\lambda`, step by step

    .. math::
        b \leftarrow \mu b + g + \lambda \theta, \qquad \theta \leftarrow \theta - \mathrm{lr} \, b,

    where :math:`b` starts at 0 ([1]_, in the form of PyTorch's ``torch.optim.SGD``).

    Parameters
    ----------
    lr : float
        Learning rate, at least 0. Like the others it is an attribute, and may be assigned between steps.
    momentum : float
        :math:`\mu`, at least 0; from 1 on, no gradient is ever forgotten.
    weight_decay : float
        :math:`\lambda`, at least 0.

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
    >>> sgd = SGD(lr=0.5, momentum=0.9)
    >>> x = np.array([1.0, -2.0])
    >>> for _ in range(100):
    ...     x = sgd.step(x, 2 * x)  # the gradient of x @ x
    >>> bool(np.abs(x).max() < 0.02)
    True
    """

    lr: float
    momentum: float = 0.0
    weight_decay: float = 0.0
    _velocity: Vector | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        check_number("lr", self.lr)
        check_number("momentum", self.momentum)
        check_number("weight_decay", self.weight_decay)

    @quiet
    def step(self, parameters: Vector, gradient: Vector) -> Vector:
        """Take one step.

        Parameters
        ----------
        parameters, gradient : (n,) float32 or float64 arrays
            Of one dtype; of the same length and dtype at every step. Neither is changed.

        Returns
        -------
        (n,) array
            The new parameters, in the dtype of the old.

        Raises
        ------
        TypeError, ValueError
            Where the dtypes or the lengths differ from one another or from the step before, or what was assigned to an
            attribute since is not as above.
        """
        self.__post_init__()  # what was assigned since
        _check_step(parameters, gradient, self._velocity)
        # float() everywhere: with a NumPy float64, float32 vectors would be computed in float64.
        if self.weight_decay:
            gradient = gradient + parameters * float(self.weight_decay)
        if self.momentum:
            if self._velocity is None:
                self._velocity = np.zeros_like(parameters)
            self._velocity *= float(self.momentum)
            self._velocity += gradient
            gradient = self._velocity
        stepped = gradient * -float(self.lr)
        stepped += parameters
        return stepped


@dataclass(eq=False)
class Adam:
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
    >>> adam = Adam(lr=0.25)
    >>> adam.step(np.array([1.0, -2.0]), np.array([2.0, -4.0]))  # the first step is lr for every entry
    array([ 0.75, -1.75])
    """

    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.0
    _steps: int = field(default=0, init=False, repr=False)
    _moments: tuple[Vector, Vector] | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        check_number("lr", self.lr)
        if not (isinstance(self.betas, (tuple, list)) and len(self.betas) == 2):
            raise TypeError(f"betas must be a pair of numbers; got {self.betas!r}")
        check_number("betas[0]", self.betas[0], below=1.0)
        check_number("betas[1]", self.betas[1], below=1.0)
        check_number("eps", self.eps)
        check_number("weight_decay", self.weight_decay)

    @quiet
    def step(self, parameters: Vector, gradient: Vector) -> Vector:
        """Take one step.

        Parameters
        ----------
        parameters, gradient : (n,) float32 or float64 arrays
            Of one dtype; of the same length and dtype at every step. Neither is changed.

        Returns
        -------
        (n,) array
            The new parameters, in the dtype of the old.

        Raises
        ------
        TypeError, ValueError
            Where the dtypes or the lengths differ from one another or from the step before, or what was assigned to an
            attribute since is not as above.
        """
        self.__post_init__()  # what was assigned since
        _check_step(parameters, gradient, self._moments and self._moments[0])
        if self.weight_decay:
            gradient = gradient + parameters * float(self.weight_decay)
        stepped = self._change(gradient)
        stepped += parameters
        return stepped

    def _change(self, gradient: Vector) -> Vector:
        """Let the moments see a gradient; return the change of the parameters, without their decay."""
        if self._moments is None:
            self._moments = np.zeros_like(gradient), np.zeros_like(gradient)
        mean, square = self._moments
        beta1, beta2 = map(float, self.betas)
        self._steps += 1

        work = gradient - mean  # the one temporary of the step, and what it returns
        work *= 1 - beta1
        mean += work
        np.multiply(gradient, gradient, out=work)
        work *= 1 - beta2
        square *= beta2
        square += work

        np.sqrt(square, out=work)
        work /= math.sqrt(1 - beta2**self._steps)
        work += float(self.eps)
        np.divide(mean, work, out=work)
        work *= -float(self.lr) / (1 - beta1**self._steps)
        return work


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
    >>> adamw = AdamW(lr=0.25, weight_decay=0.5)
    >>> adamw.step(np.array([1.0, -2.0]), np.array([2.0, -4.0]))
    array([ 0.625, -1.5  ])
    """

    weight_decay: float = 1e-2

    @quiet
    def step(self, parameters: Vector, gradient: Vector) -> Vector:
        """Take one step: as `Adam.step`."""
        self.__post_init__()  # what was assigned since
        _check_step(parameters, gradient, self._moments and self._moments[0])
        stepped = self._change(gradient)
        stepped += parameters * (1 - float(self.lr) * float(self.weight_decay))
        return stepped


@quiet
def clip_grad_norm(gradient: Vector, max_norm: float) -> tuple[Vector, float]:
    r"""Scale a gradient down where its norm is above a limit.

    .. math::
        g \min\left(1, \frac{\text{max\_norm}}{\lVert g \rVert_2 + 10^{-6}}\right),

    which is PyTorch's ``clip_grad_norm_`` [1]_. A norm that is not finite gives a gradient that is not finite either:
    test the norm before a step.

    Parameters
    ----------
    gradient : (n,) float32 or float64 array
        Not changed. For a norm over several layers, join their gradients by ``np.concatenate``.
    max_norm : float
        At least 0; ``math.inf`` leaves the gradient as it is, and tells its norm.

    Returns
    -------
    clipped : (n,) array
        A new array, in the dtype of the gradient.
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
    >>> clipped, norm = clip_grad_norm(np.array([3.0, 4.0]), max_norm=1.0)
    >>> clipped.round(4), norm
    (array([0.6, 0.8]), 5.0)
    """
    check_floats("gradient", gradient, ndim=1)
    if max_norm != math.inf:
        check_number("max_norm", max_norm)
    norm = math.sqrt(np.square(gradient, dtype=np.float64).sum())
    scale = min(float(max_norm) / (norm + 1e-6), 1.0)  # in this order NaN stays NaN
    return gradient * scale, norm


def _check_step(parameters: Vector, gradient: Vector, moment: Vector | None) -> None:
    """Check a parameter vector, a gradient like it, and a moment like both of them from the steps before."""
    check_floats("parameters", parameters, ndim=1)
    check_floats("gradient", gradient, ndim=1)
    for name, vector, like, whose in (
        ("parameters", parameters, parameters if moment is None else moment, "as in the steps before"),
        ("gradient", gradient, parameters, "as parameters"),
    ):
        if vector.dtype != like.dtype:
            raise TypeError(f"{name} must be {like.dtype}, {whose}; got {vector.dtype}")
        if vector.shape != like.shape:
            raise ValueError(f"{name} must have shape {like.shape}, {whose}; got {vector.shape}")
