"""What other libraries' users try, and what does the same here: the end of the error that they get."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

__all__ = ["advised", "check_new", "instead_of"]

P = ParamSpec("P")
R = TypeVar("R")

_MODE = "there is no mode to set: layer(x) is inference, layer.forward(x) training"
_HOST = "the backend is chosen at import, by NUMBA_PACK_BACKEND"
_DTYPE = "the dtype is chosen where the layer is made: dtype=numpy.float64"
_NAMES = "state_dict() has the arrays by name, load_state_dict() sets them"
_GRADIENT = "backward(tape, d_output) returns the gradients, anew at each call"

_INSTEAD = {
    **dict.fromkeys(("eval", "train", "training"), _MODE),
    **dict.fromkeys(("predict", "fit", "compile"), _MODE),
    **dict.fromkeys(("to", "cuda", "cpu", "device"), _HOST),
    **dict.fromkeys(("float", "double", "half", "bfloat16"), _DTYPE),
    **dict.fromkeys(("named_parameters", "all_weights", "get_weights", "set_weights"), _NAMES),
    **dict.fromkeys(("zero_grad", "requires_grad_", "requires_grad", "grad"), _GRADIENT),
    "flatten_parameters": "the parameters are one flat vector as they are",
    "apply": "assign layer.parameters, one flat vector, or load_state_dict()",
}
_ARRAY = re.compile(r"(weight|bias)_(ih|hh|hr)(_l\d+(_reverse)?)?")


def instead_of(name: str) -> str:
    """What is there instead of an attribute that others have, to be added to an error; "" if nothing is known."""
    said = _INSTEAD.get(name) or (_NAMES if _ARRAY.fullmatch(name) else "")
    return said and f": {said}"


def check_new(owner: Any, name: str) -> None:
    """Refuse an attribute that is assigned for the first time, if it was meant to do something: it would do nothing.

    Classes of the caller's own may have attributes of any name.
    """
    if not type(owner).__module__.startswith(__package__ + "."):
        return
    said = instead_of(name)
    if not said and name.startswith("par"):
        from difflib import get_close_matches  # which only those need who mistype

        said = ": did you mean parameters?" if get_close_matches(name, ["parameters"], cutoff=0.8) else ""
    if said:
        raise AttributeError(f"{type(owner).__name__} has no attribute {name!r} to be assigned{said}")


def advised(**advice: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Have a function that is called with an argument of others' say what it takes instead."""

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @wraps(function)
        def called(*args: P.args, **kwargs: P.kwargs) -> R:
            for name in advice.keys() & kwargs.keys():
                raise TypeError(f"{name} is not taken: {advice[name]}; got {name}={kwargs[name]!r}")
            return function(*args, **kwargs)

        return called

    return decorate
