"""The names in a state dict: of a recurrent net's parameters, and of the parts that PyTorch computes them from.

Parts are in a state dict in place of the parameter. Those of weight_norm are put together, for two of them are all that
there is to it; of others the error says which function of PyTorch puts the parameter itself back.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import numpy as np

from .._arguments import kind_of

__all__ = ["as_prefix", "computed_from", "of_a_net", "resolved"]

_NAME = r"(?P<name>(?:weight_(?:ih|hh|hr)|bias_(?:ih|hh))(?:_l\d+(?:_reverse)?)?)"
_PREFIX = r"(?s)(?P<prefix>(?:.+\.)?)"
_PARAMETER = rf"{_PREFIX}(?:{_NAME}|gain_(?:ih|hh)(?:_l\d+(?:_reverse)?)?)"
#: a pattern of names, and the function of `torch.nn.utils` that puts the parameter itself back
_COMPUTED = (
    (rf"{_PREFIX}parametrizations\.{_NAME}\..+", "parametrize.remove_parametrizations"),
    (rf"{_PREFIX}{_NAME}_[guv]", "remove_weight_norm or remove_spectral_norm"),
    (rf"{_PREFIX}{_NAME}_(?:orig|mask)", "prune.remove or remove_spectral_norm"),
)
#: what weight_norm leaves: the length of each row and its direction, as a parametrization and as PyTorch had it before
_WEIGHT_NORM = (("parametrizations.{}.original0", "parametrizations.{}.original1"), ("{}_g", "{}_v"))


def as_prefix(prefix: Any) -> str:
    """What the names of a module's parameters begin with: the name of the module and a dot, which may be left out."""
    if not isinstance(prefix, str):
        raise TypeError(f"prefix must be a str; got {kind_of(prefix)}")
    return prefix if not prefix or prefix.endswith(".") else f"{prefix}."


def of_a_net(name: Any) -> tuple[str, str] | None:
    """The prefix and the rest of a name of a recurrent net's parameter, or of a part of one; None for other names."""
    if not isinstance(name, str):
        return None
    for pattern in (_PARAMETER, *(pattern for pattern, _ in _COMPUTED)):
        match = re.fullmatch(pattern, name)
        if match:
            return match["prefix"], name[match.end("prefix") :]
    return None


def computed_from(name: str) -> str:
    """What is wrong with a name in a state dict, if a recurrent layer's parameter is computed from it; else empty."""
    for pattern, remedy in _COMPUTED:
        match = re.fullmatch(pattern, name)
        if match:
            return f"{match['name']} is computed from it; torch.nn.utils.{remedy} leaves {match['name']} itself"
    return ""


def resolved(
    names: Iterable[Any], read: Callable[[Any], np.ndarray], called: Callable[[str], str]
) -> dict[Any, Callable[[], np.ndarray]]:
    """What gives each parameter: of these names, with that of the parameter in place of weight_norm's two parts.

    Parameters
    ----------
    names : iterable
        Without a prefix.
    read : function
        What gives the array of a name.
    called : function
        How errors call a name.
    """
    found: dict[Any, Callable[[], np.ndarray]] = {name: partial(read, name) for name in names}
    parts: dict[str, set[str]] = {}
    for name in found:
        for pattern, _ in _COMPUTED:
            match = re.fullmatch(pattern, name) if isinstance(name, str) else None
            if match and not match["prefix"]:
                parts.setdefault(match["name"], set()).add(name)
    for name, all_parts in parts.items():
        for pair in _WEIGHT_NORM:
            lengths, directions = (part.format(name) for part in pair)
            if all_parts == {lengths, directions} and name not in found:
                found[name] = partial(_with_lengths, found.pop(lengths), found.pop(directions), called(lengths))
    return found


def _with_lengths(read_lengths: Callable[[], Any], read_directions: Callable[[], Any], called: str) -> np.ndarray:
    """What weight_norm computes along dim=0: each row with its own length."""
    lengths, directions = read_lengths(), read_directions()
    shape = directions.shape[:1] + (1,) * (directions.ndim - 1)
    if lengths.shape != shape:
        raise ValueError(
            f"{called} must have shape {shape}, as weight_norm with dim=0 has the lengths of rows; got {lengths.shape}"
        )
    dtype = np.result_type(directions, np.float32)
    with np.errstate(all="ignore"):  # what is no number then is told when it is assigned
        squares = directions.astype(np.float64) ** 2
        norms = np.sqrt(squares.sum(axis=tuple(range(1, directions.ndim)), keepdims=True))
        value: np.ndarray = (directions * (lengths / norms)).astype(dtype)
    return value
