"""Names that PyTorch gives to what a parameter is computed from, where the parameter itself is not in a state dict."""

from __future__ import annotations

import re

__all__ = ["computed_from"]

_NAME = r"(?P<name>(?:weight_(?:ih|hh|hr)|bias_(?:ih|hh))(?:_l\d+(?:_reverse)?)?)"
#: a pattern of names, and what in `torch.nn.utils` leaves the parameter itself
_COMPUTED = (
    (re.compile(rf"(?:.+\.)?parametrizations\.{_NAME}\..+", re.DOTALL), "parametrize.remove_parametrizations"),
    (re.compile(rf"(?:.+\.)?{_NAME}_[guv]", re.DOTALL), "remove_weight_norm or remove_spectral_norm"),
    (re.compile(rf"(?:.+\.)?{_NAME}_(?:orig|mask)", re.DOTALL), "prune.remove or remove_spectral_norm"),
)


def computed_from(name: str) -> str:
    """What a name in a state dict is, if a parameter of a recurrent layer is computed from it; else empty."""
    for pattern, remedy in _COMPUTED:
        match = pattern.fullmatch(name)
        if match:
            return f"{match['name']} is computed from it; torch.nn.utils.{remedy} leaves {match['name']} itself"
    return ""
