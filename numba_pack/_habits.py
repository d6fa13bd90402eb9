"""What other libraries' users try, and what does the same here: the end of the error that they get."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any, ParamSpec, TypeVar

__all__ = ["ALL_NAMES", "HOST", "advised", "check_new", "instead_of", "no_attribute", "refuse"]

P = ParamSpec("P")
R = TypeVar("R")

_MODE = "there is no mode to set: layer(x) is inference, layer.forward(x) training"
HOST = "the backend is chosen at import, by NUMBA_PACK_BACKEND"
ALL_NAMES = "all names must be there and no others, but that prefix= leaves alone what does not begin with it"
_DTYPE = "the dtype is chosen where the layer is made: dtype=numpy.float64"
_NAMES = "state_dict() has the arrays by name, load_state_dict() sets them"
_GRADIENT = "backward(tape, d_output) returns the gradients, anew at each call"

_INSTEAD = {
    **dict.fromkeys(("eval", "train", "training"), _MODE),
    **dict.fromkeys(("predict", "fit", "compile"), _MODE),
    **dict.fromkeys(("to", "cuda", "cpu", "device"), HOST),
    **dict.fromkeys(("float", "double", "half", "bfloat16"), _DTYPE),
    **dict.fromkeys(("named_parameters", "all_weights", "get_weights", "set_weights"), _NAMES),
    **dict.fromkeys(("zero_grad", "requires_grad_", "requires_grad", "grad"), _GRADIENT),
    "flatten_parameters": "the parameters are one flat vector as they are",
    "apply": "assign layer.parameters, one flat vector, or load_state_dict()",
}
_ARRAY = r"weight|(weight|bias)_(ih|hh|hr)(_l\d+(_reverse)?)?"

#: where the modules of `numba_pack` have what users of PyTorch look for
_FOUND = {
    "optim": ("Adam", "AdamW", "SGD", "RMSprop", "clip_grad_norm"),
    "optim.clip_grad_norm": ("clip_grad_norm_",),
    "optim.step_lr": ("StepLR",),
    "optim.cosine_lr": ("CosineAnnealingLR",),
    "optim.one_cycle_lr": ("OneCycleLR",),
    "optim.plateau_lr": ("ReduceLROnPlateau",),
    "losses": ("softmax_cross_entropy", "binary_cross_entropy", "mse", "huber", "ctc", "functional"),
    "losses.softmax_cross_entropy": ("cross_entropy", "CrossEntropyLoss", "nll_loss", "NLLLoss"),
    "losses.binary_cross_entropy": ("binary_cross_entropy_with_logits", "BCEWithLogitsLoss", "BCELoss"),
    "losses.mse": ("mse_loss", "MSELoss"),
    "losses.huber": ("huber_loss", "HuberLoss", "smooth_l1_loss", "SmoothL1Loss"),
    "losses.ctc": ("ctc_loss", "CTCLoss"),
    "cells": ("sigmoid", "tanh", "cell"),
    "serving": ("Streams", "Batcher"),
    "data": ("Batches",),
    "data.Batches": ("DataLoader", "Dataset"),
    "Model": ("Sequential", "Module", "ModuleList"),
}
_WHERE = {name: f"; look in numba_pack.{where}" for where, names in _FOUND.items() for name in names} | {
    **dict.fromkeys(("nn", "utils", "rnn"), ": numba_pack itself has the layers, and pack_sequence and the like"),
    **dict.fromkeys(("no_grad", "inference_mode", "enable_grad"), f": {_MODE}"),
    **dict.fromkeys(("manual_seed", "seed"), ": layers and parts take rng=, numba_pack.data.Batches seed="),
    **dict.fromkeys(("device", "cuda"), f": {HOST}"),
    "Dropout": ": layers take dropout= and recurrent_dropout=",
    **dict.fromkeys(("ReLU", "Softmax", "relu", "softmax"), ": packed.map(function) computes with all rows"),
    "lr_scheduler": ": numba_pack.optim.cosine_lr and the like are functions of the step",
    "tensor": ": arrays are NumPy's",
    "from_torch": "; look in numba_pack.interop.torch",
    **dict.fromkeys(("from_keras", "from_arrays"), "; look in numba_pack.interop.keras"),
    "accelerate": "; look in numba_pack.interop.torch or numba_pack.interop.keras",
    "session": "; look in numba_pack.interop.onnx",
}


def instead_of(name: str) -> str:
    """What is there instead of an attribute that others have, to be added to an error; "" if nothing is known."""
    said = _INSTEAD.get(name) or (_NAMES if re.fullmatch(_ARRAY, name) else "")
    return said and f": {said}"


def no_attribute(module: str, name: str) -> AttributeError:
    """The error that a module of the package raises for a name that it does not have."""
    return AttributeError(f"module {module!r} has no attribute {name!r}{_WHERE.get(name, '')}", name=name)


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


def refuse(given: Mapping[str, Any], **advice: str) -> None:
    """Refuse arguments of others among those that are given, and say what is taken instead."""
    for name in advice.keys() & given.keys():
        raise TypeError(f"{name} is not taken: {advice[name]}; got {name}={given[name]!r}")


def advised(**advice: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Have a function that is called with an argument of others' say what it takes instead."""

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @wraps(function)
        def called(*args: P.args, **kwargs: P.kwargs) -> R:
            refuse(kwargs, **advice)
            return function(*args, **kwargs)

        return called

    return decorate
