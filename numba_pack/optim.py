"""Optimisers over one flat parameter vector, gradient-norm clipping, and schedules of the learning rate.

For scripts with no framework around them. An optimiser is a plain object; ``step`` takes a parameter vector and its
gradient, changes neither, and returns the next parameter vector, or works in place where it is told to by ``out``::

    gradient, norm = clip_grad_norm(grads.parameters, 1.0)
    layer.parameters = adam.step(layer.parameters, gradient)

    adam.step(vector, gradient, out=vector)

What an optimiser remembers has the layout and the dtype of the vector that it steps, so each vector needs an optimiser
of its own; layers that share one are parts of a `numba_pack.Model`. The updates are PyTorch's, and so are the
names in ``state_dict``. A schedule is a function of the step, whose result is assigned: ``adam.lr = cosine_lr(...)``.

Each step is one pass over its vectors, compiled at the first call, on one thread: it waits for memory.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn, TypeAlias

import numpy as np
from numpy.typing import NDArray

from numba_pack._arguments import check_floats, check_number, kind_of, quiet, told
from numba_pack._habits import instead_of, no_attribute, refuse
from numba_pack._jit import inner, jit

__all__ = [
    "SGD",
    "Adam",
    "AdamW",
    "RMSprop",
    "clip_grad_norm",
    "cosine_lr",
    "one_cycle_lr",
    "plateau_lr",
    "step_lr",
]


def __dir__() -> list[str]:
    return [name for name in globals() if name.startswith("__")] + __all__


if not TYPE_CHECKING:  # for checkers there is nothing but what there is

    def __getattr__(name: str) -> NoReturn:
        raise no_attribute(__name__, name)


Vector: TypeAlias = NDArray[np.floating[Any]]

# ---- the passes ------------------------------------------------------------------------------------------------------

#: entries; so many of each vector stay in the first cache from the copy, or from one half of a sum, to the next
_BLOCK = 1024


def _pass(update: Callable[..., None]) -> Any:
    """Make an entry of what updates a block of parameters, given those of the gradient and of what is remembered.

    It updates in place: LLVM makes vector code for arrays that it finds to be apart, and the old and the new parameters
    often are not. Nothing depends on where a block starts, nor on how it is divided into vectors.
    """

    @jit
    def run(parameters, gradient, first, second, out, copies, settings):  # type: ignore[no-untyped-def]
        for start in range(0, len(out), _BLOCK):
            stop = min(start + _BLOCK, len(out))
            block = out[start:stop]
            if copies:
                old = parameters[start:stop]
                for i in range(len(block)):
                    block[i] = old[i]
            update(block, gradient[start:stop], first[start:stop], second[start:stop], settings)

    return run


@_pass
@inner
def _sgd(x, gradient, buffer, _, settings):  # type: ignore[no-untyped-def]
    lr, momentum, share, decay, nesterov = settings
    for i in range(len(x)):
        g = gradient[i] + decay * x[i] if decay != 0 else gradient[i]
        if momentum != 0:
            kept = momentum * buffer[i] + share * g
            buffer[i] = kept
            g = g + momentum * kept if nesterov else kept
        x[i] = x[i] - lr * g


@_pass
@inner
def _rmsprop(x, gradient, square, buffer, settings):  # type: ignore[no-untyped-def]
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


@_pass
@inner
def _adam(x, gradient, mean, square, settings):  # type: ignore[no-untyped-def]
    rate, share_of_mean, kept, share, root, eps, decay, shrinkage = settings
    for i in range(len(x)):
        g = gradient[i] + decay * x[i] if decay != 0 else gradient[i]
        m = mean[i] + share_of_mean * (g - mean[i])
        s = kept * square[i] + share * (g * g)
        mean[i] = m
        square[i] = s
        shrunk = x[i] - shrinkage * x[i] if shrinkage != 0 else x[i]
        x[i] = shrunk - rate * (m / (root * math.sqrt(s) + eps))


@jit
def _scale(gradient, out, copies, scale):  # type: ignore[no-untyped-def]
    if copies:
        for i in range(len(out)):
            out[i] = gradient[i] * scale
    else:
        for i in range(len(out)):
            out[i] = out[i] * scale


@jit
def _sum_of_squares(vector):  # type: ignore[no-untyped-def]
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


def _run(
    kernel: Any, parameters: Vector, gradient: Vector, memory: Sequence[Vector], out: Vector | None, settings: Any
) -> Vector:
    """Run a pass that writes new parameters to `out`, or to a new array; return which."""
    nothing = np.empty(0, parameters.dtype)
    first, second, *_ = *memory, nothing, nothing

    def write(target: Vector, copies: bool) -> None:
        kernel(_read(parameters), _read(gradient), first, second, target, copies, settings)

    return _written(write, parameters, gradient, out)


def _written(write: Callable[[Vector, bool], None], source: Vector, gradient: Vector, out: Vector | None) -> Vector:
    """Have `out`, or a new array, written to; return which. The writer is told whether it differs from `source`."""
    target = out if out is not None and _direct(out, source, gradient) else np.empty(source.shape, source.dtype)
    write(target.view(np.ndarray), target is not source)
    if out is None:
        return target
    if target is not out:
        out[...] = target
    return out


def _direct(out: Vector, source: Vector, gradient: Vector) -> bool:
    """Whether a kernel may write to `out` while it reads the others."""
    apart = out is source or not np.may_share_memory(out, source)
    return out.flags.carray and apart and not np.may_share_memory(out, gradient)


def _read(vector: Vector) -> Vector:
    """A vector in the one form that kernels are compiled for: contiguous, and not for writing."""
    if not (vector.flags.c_contiguous and vector.flags.aligned):
        vector = vector.copy()
    vector = vector.view(np.ndarray)
    vector.flags.writeable = False
    return vector


def _check_like(name: str, vector: Vector, like: Vector, whose: str) -> None:
    check_floats(name, vector, ndim=1)
    if vector.dtype != like.dtype:
        raise TypeError(f"{name} must be {like.dtype}, {whose}; got {vector.dtype}")
    if vector.shape != like.shape:
        raise ValueError(f"{name} must have shape {like.shape}, {whose}; got {vector.shape}")


def _check_out(out: Vector | None, like: Vector, whose: str) -> None:
    if out is None:
        return
    _check_like("out", out, like, whose)
    if not out.flags.writeable:
        raise ValueError("out must be an array that can be written to; got one that is read-only")


# ---- optimisers ------------------------------------------------------------------------------------------------------


@dataclass(eq=False)
class _Optimizer:
    """What all have: a step, and a state."""

    #: what there is of an optimiser's memory after its first step, and what there may be besides
    _always: ClassVar[tuple[str, ...]] = ()
    _maybe: ClassVar[tuple[str, ...]] = ()
    _memory: dict[str, NDArray[Any]] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        """Check the settings, also those that were assigned since."""
        raise NotImplementedError

    def __setattr__(self, name: str, value: Any) -> None:
        if name.startswith("_") or name in self.__dataclass_fields__ or type(self).__module__ != __name__:
            super().__setattr__(name, value)
        else:
            settings = ", ".join(one.name for one in fields(self) if one.init)
            raise AttributeError(f"{type(self).__name__} has no attribute {name!r}; it has {settings}")

    if not TYPE_CHECKING:  # for checkers there is nothing but what there is

        def __new__(cls, *settings: Any, **named: Any) -> Any:
            """Tell those who give the parameters where settings are expected, or name settings as others do."""
            refuse(named, learning_rate="it is lr=")
            given = [named[name] for name in ("params", "parameters") if name in named]
            given += [one for one in settings[:1] if isinstance(one, Iterable) or hasattr(one, "parameters")]
            if given:
                got = told(given[0]) if isinstance(given[0], np.ndarray) else kind_of(given[0])
                raise TypeError(f"lr must be a number, and step(parameters, gradient) takes the parameters; got {got}")
            return object.__new__(cls)

        def __getattr__(self, name: str) -> NoReturn:
            raise AttributeError(f"{type(self).__name__} has no attribute {name!r}{instead_of(name)}")

    def _update(self, parameters: Vector, gradient: Vector, out: Vector | None) -> Vector:
        raise NotImplementedError

    @quiet
    def step(self, parameters: Vector, gradient: Vector, out: Vector | None = None) -> Vector:
        """Take one step.

        Parameters
        ----------
        parameters, gradient : (n,) float32 or float64 arrays
            Of one dtype; of the same length and dtype at every step. Neither is changed, unless it is `out`.
        out : (n,) array, optional
            Where the new parameters are written to, in their dtype: `parameters` itself for a step in place.

        Returns
        -------
        (n,) array
            The new parameters, in the dtype of the old: `out`, or else a new array.

        Raises
        ------
        TypeError, ValueError
            Where the dtypes or the lengths differ from one another or from the step before, `out` is read-only, or what
            was assigned to an attribute since is not as above. Nothing has changed then.

        Examples
        --------
        >>> import numpy as np
        >>> from numba_pack.optim import SGD
        >>> x = np.array([1.0, -2.0])
        >>> SGD(lr=0.5).step(x, np.array([2.0, 2.0]), out=x) is x
        True
        >>> x
        array([ 0., -3.])
        """
        self.__post_init__()
        if isinstance(getattr(parameters, "parameters", None), np.ndarray):
            raise TypeError(f"parameters must be a vector, such as layer.parameters; got {kind_of(parameters)}")
        check_floats("parameters", parameters, ndim=1)
        for before in self._vectors():
            _check_like("parameters", parameters, before, "as in the steps before")
        _check_like("gradient", gradient, parameters, "as parameters")
        _check_out(out, parameters, "as parameters")
        return self._update(parameters, gradient, out)

    def _vectors(self) -> list[Vector]:
        return [value for name, value in self._memory.items() if name != "step"]

    def _remembered(self, like: Vector, *names: str) -> dict[str, Vector]:
        """What is remembered by these names, for a pass to change; zeros at first."""
        return {
            name: self._memory[name] if name in self._memory else np.zeros(like.shape, like.dtype) for name in names
        }

    def _settings(self) -> list[str]:
        return [one.name for one in fields(self) if one.init]

    def state_dict(self) -> dict[str, NDArray[Any]]:
        """All that the next steps depend on: the settings and, after a first step, what is remembered.

        Returns
        -------
        dict of str to array
            Copies, by PyTorch's names; numbers are arrays of no dimension, so that ``np.savez`` and safetensors take
            it as it is.

        Examples
        --------
        >>> import numpy as np
        >>> from numba_pack.optim import SGD
        >>> sgd = SGD(lr=0.5, momentum=0.9)
        >>> x = sgd.step(np.array([1.0, -2.0]), np.array([2.0, 2.0]))
        >>> sgd.state_dict()["lr"], sgd.state_dict()["momentum_buffer"]
        (array(0.5), array([2., 2.]))
        """
        self.__post_init__()
        settings = {name: getattr(self, name) for name in self._settings()}
        return {
            **{
                name: np.array(v, np.bool_ if isinstance(v, bool | np.bool_) else np.float64)
                for name, v in settings.items()
            },
            **{name: value.copy() for name, value in self._memory.items()},
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on from where another optimiser of this class stood.

        Parameters
        ----------
        state_dict : mapping of str to array
            As `state_dict` gives it; copied. What this optimiser was set to and remembered is forgotten.

        Raises
        ------
        TypeError, ValueError
            If it is no mapping, names are missing or too many, or a value is not as above. Nothing has changed then.

        Examples
        --------
        >>> import numpy as np
        >>> from numba_pack.optim import Adam
        >>> adam, other, x = Adam(lr=0.25), Adam(), np.array([1.0, -2.0])
        >>> x = adam.step(x, x)
        >>> other.load_state_dict(adam.state_dict())
        >>> other
        Adam(lr=0.25, betas=(0.9, 0.999), eps=1e-08, weight_decay=0.0)
        >>> np.array_equal(other.step(x, x), adam.step(x, x))
        True
        """
        if not isinstance(state_dict, Mapping):
            raise TypeError(f"state_dict must be a mapping of names to arrays; got {kind_of(state_dict)}")
        settings, given = self._settings(), set(state_dict)
        memory = [name for name in (*self._always, *self._maybe) if name in given]
        missing = {*settings, *(self._always if memory else ())} - given
        extra = given - {*settings, *memory}
        if missing or extra:
            raise ValueError(
                f"state_dict must have the names of {type(self).__name__}; missing: {sorted(missing) or 'none'}, "
                f"not known: {sorted(map(str, extra)) or 'none'}"
            )
        values = {name: np.asarray(state_dict[name]).tolist() for name in settings}
        made = type(self)(**{name: tuple(v) if isinstance(v, list) else v for name, v in values.items()})
        for name in memory:
            value, told = state_dict[name], f"state_dict[{name!r}]"
            if name == "step":
                value = np.asarray(value)
                if value.dtype.kind not in "iu" or value.ndim or value < 1:
                    raise ValueError(f"{told} must be an integer of at least 1; got {state_dict[name]!r}")
                made._memory[name] = value.astype(np.int64)
                continue
            check_floats(told, value, ndim=1)
            for other in made._vectors():
                _check_like(told, value, other, "as the others")
            made._memory[name] = np.array(value, order="C")
        self.__dict__.update(made.__dict__)


@dataclass(eq=False)
class SGD(_Optimizer):
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

    def _update(self, parameters: Vector, gradient: Vector, out: Vector | None) -> Vector:
        momentum = float(self.momentum)
        share = 1 - float(self.dampening) if "momentum_buffer" in self._memory else 1.0
        memory = self._remembered(parameters, *["momentum_buffer"] * bool(momentum))
        numbers = map(parameters.dtype.type, (float(self.lr), momentum, share, float(self.weight_decay)))
        result = _run(_sgd, parameters, gradient, [*memory.values()], out, (*numbers, bool(self.nesterov)))
        self._memory.update(memory)
        return result


@dataclass(eq=False)
class RMSprop(_Optimizer):
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

    def _update(self, parameters: Vector, gradient: Vector, out: Vector | None) -> Vector:
        alpha, momentum = float(self.alpha), float(self.momentum)
        memory = self._remembered(parameters, "square_avg", *["momentum_buffer"] * bool(momentum))
        numbers = float(self.lr), alpha, 1 - alpha, float(self.eps), momentum, float(self.weight_decay)
        settings = tuple(map(parameters.dtype.type, numbers))
        result = _run(_rmsprop, parameters, gradient, [*memory.values()], out, settings)
        self._memory.update(memory)
        return result


@dataclass(eq=False)
class Adam(_Optimizer):
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

    def _update(self, parameters: Vector, gradient: Vector, out: Vector | None) -> Vector:
        beta1, beta2 = map(float, self.betas)
        steps = int(self._memory.get("step", 0)) + 1
        memory = self._remembered(parameters, "exp_avg", "exp_avg_sq")
        numbers = (
            float(self.lr) / (1 - beta1**steps),
            1 - beta1,
            beta2,
            1 - beta2,
            1 / math.sqrt(1 - beta2**steps),
            float(self.eps),
            *self._decays(),
        )
        settings = tuple(map(parameters.dtype.type, numbers))
        result = _run(_adam, parameters, gradient, [*memory.values()], out, settings)
        self._memory.update(memory, step=np.array(steps, np.int64))
        return result


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


# ---- clipping --------------------------------------------------------------------------------------------------------


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
    _check_out(out, gradient, "as gradient")
    norm = math.sqrt(_sum_of_squares(_read(gradient)))
    scale = gradient.dtype.type(min(float(max_norm) / (norm + 1e-6), 1.0))  # in this order NaN stays NaN
    if out is gradient and scale == 1:
        return out, norm

    def write(target: Vector, copies: bool) -> None:
        _scale(_read(gradient), target, copies, scale)

    return _written(write, gradient, gradient[:0], out), norm


# ---- schedules -------------------------------------------------------------------------------------------------------


def step_lr(step: float, lr: float, step_size: float, gamma: float = 0.1) -> float:
    """The learning rate at a step, multiplied by `gamma` after each `step_size` steps.

    As PyTorch's ``StepLR``. A step of this and of the other schedules is whatever they are asked for after: a batch or
    an epoch.

    Parameters
    ----------
    step : float
        How many have been taken, at least 0.
    lr : float
        The learning rate at first, at least 0.
    step_size : float
        Above 0.
    gamma : float
        At least 0.

    Raises
    ------
    TypeError, ValueError
        Where one of them is not a number, or not in its range.

    Examples
    --------
    >>> from numba_pack.optim import step_lr
    >>> [step_lr(step, lr=1.0, step_size=2, gamma=0.5) for step in range(6)]
    [1.0, 1.0, 0.5, 0.5, 0.25, 0.25]
    """
    check_number("step", step)
    check_number("lr", lr)
    check_number("step_size", step_size, above=0.0)
    check_number("gamma", gamma)
    return float(lr) * float(gamma) ** (float(step) // float(step_size))


def cosine_lr(step: float, lr: float, total_steps: float, min_lr: float = 0.0) -> float:
    """The learning rate at a step, on half a wave of the cosine from `lr` down to `min_lr`, where it stays.

    As PyTorch's ``CosineAnnealingLR``, which goes up again after `total_steps`.

    Parameters
    ----------
    step : float
        How many have been taken, at least 0.
    lr : float
        The learning rate at first, at least 0.
    total_steps : float
        When it is `min_lr`; above 0.
    min_lr : float
        At least 0.

    Raises
    ------
    TypeError, ValueError
        Where one of them is not a number, or not in its range.

    Examples
    --------
    >>> from numba_pack.optim import cosine_lr
    >>> [round(cosine_lr(step, lr=1.0, total_steps=4), 3) for step in range(6)]
    [1.0, 0.854, 0.5, 0.146, 0.0, 0.0]
    """
    check_number("step", step)
    check_number("lr", lr)
    check_number("total_steps", total_steps, above=0.0)
    check_number("min_lr", min_lr)
    return _cosine(float(lr), float(min_lr), min(float(step) / float(total_steps), 1.0))


def one_cycle_lr(
    step: float,
    max_lr: float,
    total_steps: float,
    pct_start: float = 0.3,
    div_factor: float = 25.0,
    final_div_factor: float = 1e4,
) -> float:
    """The learning rate at a step, up to `max_lr` and down to nearly 0, each on half a wave of the cosine.

    As PyTorch's ``OneCycleLR`` [1]_, whose last step is ``total_steps - 1``; what comes then stays there.

    Parameters
    ----------
    step : float
        How many have been taken, at least 0.
    max_lr : float
        The learning rate at its highest, at least 0.
    total_steps : float
        At least 1.
    pct_start : float
        Which part of the steps goes up, in [0, 1).
    div_factor : float
        The first learning rate is ``max_lr / div_factor``; above 0.
    final_div_factor : float
        The last one is the first divided by this; above 0.

    Raises
    ------
    TypeError, ValueError
        Where one of them is not a number, or not in its range.

    References
    ----------
    .. [1] L. N. Smith and N. Topin, "Super-convergence: very fast training of neural networks using large learning
       rates", 2019.

    Examples
    --------
    >>> from numba_pack.optim import one_cycle_lr
    >>> [round(one_cycle_lr(step, max_lr=1.0, total_steps=10), 3) for step in range(0, 10, 3)]
    [0.04, 0.95, 0.389, 0.0]
    """
    check_number("step", step)
    check_number("max_lr", max_lr)
    check_number("total_steps", total_steps, above=0.0)
    check_number("pct_start", pct_start, below=1.0)
    check_number("div_factor", div_factor, above=0.0)
    check_number("final_div_factor", final_div_factor, above=0.0)
    step, first = float(step), float(max_lr) / float(div_factor)
    highest, last = float(pct_start) * float(total_steps) - 1, float(total_steps) - 1
    if step < highest:
        return _cosine(first, float(max_lr), step / highest)
    return _cosine(float(max_lr), first / float(final_div_factor), min((step - highest) / (last - highest), 1.0))


def plateau_lr(
    losses: Sequence[float] | NDArray[Any],
    lr: float,
    factor: float = 0.1,
    patience: float = 10,
    threshold: float = 1e-4,
    min_lr: float = 0.0,
) -> float:
    """The learning rate after some losses, reduced whenever they stop to fall.

    As PyTorch's ``ReduceLROnPlateau``: multiplied by `factor` once more than `patience` losses in a row were no better
    than the best.

    Parameters
    ----------
    losses : sequence of float
        All since the beginning, the last one at the end. NaN is no better.
    lr : float
        The learning rate at first, at least 0.
    factor : float
        In [0, 1).
    patience : float
        At least 0.
    threshold : float
        A loss is better below ``(1 - threshold)`` times the best; in [0, 1).
    min_lr : float
        What it is not reduced below, at least 0.

    Raises
    ------
    TypeError, ValueError
        Where one of them is not a number, or not in its range.

    Examples
    --------
    >>> from numba_pack.optim import plateau_lr
    >>> losses = [3.0, 2.0, 2.5, 2.1, 1.9]
    >>> [plateau_lr(losses[:epoch], lr=1.0, factor=0.5, patience=1) for epoch in range(6)]
    [1.0, 1.0, 1.0, 1.0, 0.5, 0.5]
    """
    history = np.asarray(losses)
    if history.dtype.kind not in "fiu" or history.ndim != 1:
        raise TypeError(f"losses must be a sequence of numbers; got {losses!r}")
    check_number("lr", lr)
    check_number("factor", factor, below=1.0)
    check_number("patience", patience)
    check_number("threshold", threshold, below=1.0)
    check_number("min_lr", min_lr)
    lr, best, worse = float(lr), math.inf, 0
    for loss in history.tolist():
        if loss < best * (1 - float(threshold)):
            best, worse = loss, 0
        else:
            worse += 1
        if worse > patience:
            lr, worse = min(lr, max(lr * float(factor), float(min_lr))), 0
    return lr


def _cosine(start: float, end: float, part: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * part)) / 2
