"""Parameters as one flat vector: its parts by name, and what may be assigned to it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from .._arguments import kind_of
from .fixed import Fixed
from .forms import as_array

__all__ = ["HasParameters", "as_parameters", "check_vector", "fill", "parts_of"]


def parts_of(vector: np.ndarray, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """Views of a vector, one after the other, in their shapes."""
    found, at = {}, 0
    for name, shape in shapes.items():
        size = math.prod(shape)
        found[name] = vector[at : at + size].reshape(shape)
        at += size
    return found


def check_vector(vector: Any, shape: tuple[int, ...]) -> None:
    """That something is an array of the shape of the parameters."""
    if not isinstance(vector, np.ndarray):
        raise TypeError(f"vector must be a NumPy array; got {kind_of(vector)}")
    if vector.shape != shape:
        raise ValueError(f"vector must have shape {shape}; got {vector.shape}")


def as_parameters(value: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray:
    """A copy of what is assigned as parameters."""
    if type(value) is np.ndarray and value.dtype == dtype and value.shape == shape:
        vector = value.copy()
    else:
        vector = as_array(value, "parameters", shape, dtype)
        if np.may_share_memory(vector, value):
            vector = vector.copy()
    if not np.isfinite(vector).all():
        at = int(np.flatnonzero(~np.isfinite(vector))[0])
        raise ValueError(f"parameters must be finite; got {vector[at]} at index {at}")
    return vector


def fill(views: Mapping[str, np.ndarray], value_of: Callable[[str], np.ndarray], called: Callable[[str], str]) -> None:
    """Write the value of each name into its view; ``called`` says what errors call it."""
    for name, view in views.items():
        value = value_of(name)
        if value.shape != view.shape:
            raise ValueError(f"{called(name)} must have shape {view.shape}; got {value.shape}")
        with np.errstate(all="ignore"):
            view[...] = value
        if not np.isfinite(view).all():
            raise ValueError(f"{called(name)} must be finite in {view.dtype}; got {value[~np.isfinite(view)][0]}")


class HasParameters(Fixed):
    """What has a few arrays by name, which are one flat vector."""

    #: of the arrays, in the order of the vector
    _shapes: dict[str, tuple[int, ...]]
    #: the vector: each class says what may be assigned
    parameters: Any

    def views(self, vector: np.ndarray) -> dict[str, np.ndarray]:
        """The parts of a vector laid out like `parameters`, by name: views, in their shapes.

        Parameters
        ----------
        vector : ndarray, shape (parameters.size,)
            The parameters themselves, a gradient, an optimizer's moments.

        Returns
        -------
        dict of str to ndarray
            PyTorch's names, as in `state_dict`. Writable if the vector is.

        Raises
        ------
        TypeError, ValueError
            If it is no such vector.

        Examples
        --------
        >>> import numpy as np
        >>> import numba_pack as nbp
        >>> gru = nbp.GRU(3, 2)
        >>> gradient = np.zeros_like(gru.parameters)
        >>> gru.views(gradient)["weight_hh_l0"].shape
        (6, 2)
        """
        check_vector(vector, self.parameters.shape)
        return self._views(vector)

    def _views(self, vector: np.ndarray) -> dict[str, np.ndarray]:
        return parts_of(vector, self._shapes)
