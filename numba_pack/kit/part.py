"""What `Linear` and `Embedding` have in common: a few arrays by name, which are one flat vector.

It is read-only and replaced as a whole, as that of a layer is: see `numba_pack.layers.module`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Generic

import numpy as np

from .._arguments import kind_of
from .._habits import ALL_NAMES, advised, instead_of
from ..layers.forms import as_array
from ..layers.module import as_dtype, vector_of
from ..layers.vectors import HasParameters, as_parameters
from ..packing.flat import Flat, Given

__all__ = ["Part", "PartTape"]


class PartTape(Generic[Given]):
    """What `forward` of a `Linear` or an `Embedding` keeps for `backward`.

    It holds the input, no copy unless it is symbols: do not change it before `backward`. It differentiates the call
    that was made: parameters assigned since then do not matter.
    """

    def __init__(self, owner: Part, flat: Flat, rows: np.ndarray, vector: np.ndarray) -> None:
        self._owner, self.flat, self.rows, self.vector = owner, flat, rows, vector

    @staticmethod
    def of(tape: Any, owner: Part) -> PartTape[Any]:
        """A tape that must be of this owner."""
        called = type(owner).__name__
        if not isinstance(tape, PartTape):
            raise TypeError(f"tape must be what forward of this {called} returned second; got {kind_of(tape)}")
        if tape._owner is not owner:
            raise ValueError(f"tape must come from a forward call of this {called}; got one of another")
        return tape

    def gradient_rows(self, d_output: Any, columns: int, axes: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray:
        """The rows (N, columns) of the gradient of an output."""
        array = self.flat.like(d_output, "d_output")
        return as_array(array, "d_output", (*axes, columns), dtype).reshape(-1, columns)


class Part(HasParameters):
    """Parameters by name."""

    dtype: np.dtype[Any]

    def __init__(self, shapes: dict[str, tuple[int, ...]], dtype: Any) -> None:
        self.dtype, self._shapes = as_dtype(dtype), shapes

    def __setattr__(self, name: str, value: Any) -> None:
        if name in self.__dict__.get("_shapes", ()):
            raise AttributeError(f"{name} of a {type(self).__name__} cannot be assigned{instead_of('weight')}")
        super().__setattr__(name, value)

    def _start(self, values: list[np.ndarray]) -> None:
        """Set the first parameters."""
        self._set(np.concatenate([value.ravel() for value in values]).astype(self.dtype))

    def _set(self, vector: np.ndarray) -> None:
        vector.flags.writeable = False
        self._vector = vector

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._set(self._vector.copy())  # whose memory may be shared with another process, and can be written to

    @property
    def parameters(self) -> np.ndarray:
        """All parameters as one flat vector, read-only, in the order of `state_dict`.

        Assigning a vector of the same length copies it. What is not finite is refused with a ValueError.
        """
        return self._vector

    @parameters.setter
    def parameters(self, vector: Any) -> None:
        self._set(as_parameters(vector, self._vector.shape, self.dtype))

    @property
    def weight(self) -> np.ndarray:
        """The weight, read-only."""
        return self._views(self._vector)["weight"]

    def state_dict(self) -> dict[str, np.ndarray]:
        """The parameters by name: read-only views, in PyTorch's names and shapes.

        Examples
        --------
        >>> import numba_pack as nbp
        >>> {name: value.shape for name, value in nbp.Linear(3, 2).state_dict().items()}
        {'weight': (2, 3), 'bias': (2,)}
        """
        return self._views(self._vector)

    @advised(strict=ALL_NAMES)
    def load_state_dict(self, state_dict: Mapping[str, Any], prefix: str = "") -> None:
        """Assign all parameters by name.

        Parameters
        ----------
        state_dict : mapping of str to array_like
            The names and shapes of `state_dict`, all of them and no others; real floating-point values, which are cast
            to the dtype of the parameters. PyTorch's tensors will do.
        prefix : str
            What all these names begin with, as in the state dict of a whole model: ``"head."``, or the same without
            the dot. Other entries are left alone.

        Raises
        ------
        TypeError, ValueError
            If it is no mapping, names are missing or too many, or a value has another shape, is no float or not finite.

        Examples
        --------
        >>> import numba_pack as nbp
        >>> linear, other = nbp.Linear(3, 2, rng=0), nbp.Linear(3, 2, rng=1)
        >>> linear.load_state_dict({f"head.{name}": value for name, value in other.state_dict().items()}, "head")
        >>> bool((linear.parameters == other.parameters).all())
        True
        """
        self._set(vector_of(state_dict, prefix, self, type(self).__name__))
