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

from typing import TYPE_CHECKING, NoReturn

from .._habits import no_attribute
from .adam import Adam, AdamW
from .clipping import clip_grad_norm
from .rmsprop import RMSprop
from .schedules import cosine_lr, one_cycle_lr, plateau_lr, step_lr
from .sgd import SGD

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


# the name that people know them by, and that pickles hold
for _public in (SGD, Adam, AdamW, RMSprop, clip_grad_norm, cosine_lr, one_cycle_lr, plateau_lr, step_lr):
    _public.__module__ = __name__
