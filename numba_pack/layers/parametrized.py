"""What PyTorch calls the parts that it computes a parameter from, which a state dict then holds in place of it."""

from __future__ import annotations

import re

__all__ = ["computed_from"]

_NAME = r"(?P<name>(?:weight_(?:ih|hh|hr)|bias_(?:ih|hh))(?:_l\d+(?:_reverse)?)?)"
#: a pattern of names, and the function of `torch.nn.utils` that puts the parameter itself back
_COMPUTED = (
    (re.compile(rf"(?:.+\.)?parametrizations\.{_NAME}\..+", re.DOTALL), "parametrize.remove_parametrizations"),
    (re.compile(rf"(?:.+\.)?{_NAME}_[guv]", re.DOTALL), "remove_weight_norm or remove_spectral_norm"),
    (re.compile(rf"(?:.+\.)?{_NAME}_(?:orig|mask)", re.DOTALL), "prune.remove or remove_spectral_norm"),
)


def computed_from(name: str) -> str:
    """What is wrong with a name in a state dict, if a recurrent layer's parameter is computed from it; else empty."""
    for pattern, remedy in _COMPUTED:
        match = pattern.fullmatch(name)
        if match:
            return f"{match['name']} is computed from it; torch.nn.utils.{remedy} leaves {match['name']} itself"
    return ""
