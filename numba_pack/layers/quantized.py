"""Weights as integers of 8 bits: each row of a matrix times a scale of its own.

A scale has 16 significant bits, so that an integer times its scale is exact in float32, and the row that comes of it
has the same integers and the same scale again. What a file or a pickle holds is therefore all that there is, on any
machine.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ..cells.parameters import Weights

if TYPE_CHECKING:
    from .module import Module

__all__ = ["LARGEST_SUM", "SCALE", "Integers", "floats_of", "integers_of", "quantized"]

#: terms of a sum of products of 8 bits that 32 bits are sure to hold
LARGEST_SUM = 65536
#: what the name of a matrix has behind it in that of its scales
SCALE = "_scale"
#: the low bits of a float32 that a scale has not
_LOW = np.uint32(0xFF)
#: a magnitude of which a scale may be rounded up: beyond, 127 times it might be infinite
_MOST = np.float32(float.fromhex("0x1.fffp127"))


def quantized(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The integers (R, K) from -127 to 127, and the scales (R,), of a finite float32 matrix (R, K).

    A scale is the largest magnitude of the row over 127, rounded up to 16 significant bits. A row whose scale would be
    denormal is taken for zeros, with the scale 0.
    """
    largest = np.minimum(np.abs(matrix).max(axis=1), _MOST)
    bits = (largest / np.float32(127)).view(np.uint32)
    scales = ((bits + _LOW) & ~_LOW).view(np.float32)
    scales[scales < np.finfo(np.float32).tiny] = 0
    divisors = np.where(scales > 0, scales, np.float32(np.inf))
    return np.rint(matrix / divisors[:, None]).astype(np.int8), scales


def integers_of(state_dict: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """A state dict with integers and, by the name with ``_scale`` behind it, their scales in place of each matrix."""
    found = {}
    for name, value in state_dict.items():
        if value.ndim == 2:
            found[name], found[name + SCALE] = quantized(value)
        else:
            found[name] = value.copy()
    return found


def floats_of(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The way back: a state dict of floats, of which `integers_of` makes the same integers and scales."""
    found = dict(arrays)
    for name, value in arrays.items():
        if value.dtype == np.int8:
            scales = found.pop(name + SCALE, None)
            if scales is None or scales.shape != value.shape[:1]:
                got = "there are none" if scales is None else f"their shape is {scales.shape}"
                raise ValueError(f"{name} must have scales {name + SCALE} of shape {value.shape[:1]}; {got}")
            found[name] = value * scales.reshape(-1, *[1] * (value.ndim - 1))
    return found


class Integers:
    """The weights of a layer that is quantized: what there is in place of a version of parameters."""

    def __init__(self, arrays: dict[str, np.ndarray]) -> None:
        for array in arrays.values():
            array.flags.writeable = False
        #: by the names in a state dict
        self.arrays = arrays
        self._made: Weights | None = None
        #: as of parameters, see `Module._few`
        self.few: dict[tuple[str, bool], Any] = {}

    @property
    def parameters(self) -> np.ndarray:
        """There are none, as the error tells."""
        raise AttributeError(
            "parameters must be those of a layer in float: quantize leaves none; state_dict() has integers and scales"
        )

    def made_by(self, prepare: Callable[..., Any], module: Module) -> Any:
        """The weights as the kernels take them: panels alone, of floats that are there only meanwhile."""
        if self._made is None:
            vector, floats = np.empty(module._count, np.float32), floats_of(self.arrays)
            for name, view in module._views(vector).items():
                view[...] = floats[name]
            weights = prepare(module.cell.with_factors("int8"), vector, module._constants, module._sizes)
            nothing = np.empty(0, np.float32)
            nothing.flags.writeable = False  # as parameters are, of which compiled code knows it by their type
            self._made = weights._replace(parameters=nothing)
        return self._made

    def __reduce__(self) -> tuple[Any, ...]:
        return _integers_of_pickle, (self.arrays,)  # panels are packed for this machine


def _integers_of_pickle(arrays: dict[str, np.ndarray]) -> Integers:
    return Integers({name: array.copy() for name, array in arrays.items()})  # memory that may be another process's
