"""A linear layer on the rows of a batch."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .._arguments import quiet
from .._habits import HOST, advised
from ..layers.forms import as_array
from ..layers.module import as_generator
from ..layers.tape import Gradients
from ..packing.checks import as_flag, as_size
from ..packing.flat import Flat, Given
from .part import Part, PartTape
from .product import multiplied, packed, sum_of, summed

__all__ = ["Linear"]


class Linear(Part):
    r"""Linear layer: :math:`y = x W^T + b` for every row, with its gradient.

    Parameters
    ----------
    in_features, out_features : int
        Columns of the input and of the output.
    bias : bool
        Whether there is b.
    dtype : dtype
        float32 or float64, of parameters, input and output.
    rng : None, int, or numpy.random.Generator
        Draws the parameters, uniform in ±1/√in_features, as in PyTorch.

    Attributes
    ----------
    weight : array, shape (out_features, in_features)
        Read-only.
    bias : array, shape (out_features,), or None
        Read-only.
    parameters : array
        Both as one flat vector, read-only; assigning another copies it.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong kind or size.

    Notes
    -----
    As in recurrent layers, a row has the same bits whatever rows are beside it. One thread computes them.

    Examples
    --------
    >>> import numpy as np
    >>> import numba_pack as nbp
    >>> linear = nbp.Linear(3, 2, rng=0)
    >>> linear
    Linear(3, 2)
    >>> packed = nbp.pack_sequence([np.ones((n, 3), np.float32) for n in (4, 1)])
    >>> output, tape = linear.forward(packed)
    >>> output.data.shape
    (5, 2)
    >>> gradients = linear.backward(tape, output)
    >>> gradients.input.data.shape, gradients.parameters.shape
    ((5, 3), (8,))
    """

    _fixed = frozenset({"in_features", "out_features", "dtype"})

    @advised(device=HOST)
    def __init__(
        self, in_features: int, out_features: int, bias: bool = True, *, dtype: Any = np.float32, rng: Any = None
    ) -> None:
        self.in_features, self.out_features = as_size(in_features, "in_features"), as_size(out_features, "out_features")
        shapes: dict[str, tuple[int, ...]] = {"weight": (self.out_features, self.in_features)}
        if as_flag(bias, "bias"):
            shapes["bias"] = (self.out_features,)
        super().__init__(shapes, dtype)
        self._made: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None
        generator, bound = as_generator(rng), 1 / math.sqrt(self.in_features)
        self._start([generator.uniform(-bound, bound, shape) for shape in shapes.values()])

    @property
    def bias(self) -> np.ndarray | None:
        """The bias, read-only, or None."""
        return self._views(self._vector).get("bias")

    def __call__(self, input: Given) -> Given:
        """Multiply every row.

        Parameters
        ----------
        input : PackedSequence, or array (*, in_features)
            In the layer's dtype; an array may have any axes before the last, as padded batches, single sequences and
            last states have.

        Returns
        -------
        PackedSequence or array (*, out_features)
            As the input.

        Raises
        ------
        TypeError, ValueError
            If the input has the wrong kind, dtype or shape.
        """
        return self.forward(input)[0]

    @quiet
    def forward(self, input: Given) -> tuple[Given, PartTape[Given]]:
        """Multiply every row, and keep what `backward` needs.

        Parameters
        ----------
        input
            As for a plain call.

        Returns
        -------
        output
            As from a plain call.
        tape
            For `backward`. It holds the input, no copy.

        Raises
        ------
        TypeError, ValueError
            If the input has the wrong kind, dtype or shape.
        """
        flat, vector = Flat(input, "input"), self._vector
        axes: tuple[int, ...] = _axes(flat)
        array = as_array(flat.array, flat.name, (*axes, self.in_features), self.dtype, "(*, in_features)")
        rows = array.reshape(-1, self.in_features)
        output = multiplied(rows, *self._packed(vector))
        return flat.back(output.reshape(*axes, self.out_features)), PartTape(self, flat, rows, vector)

    @quiet
    def backward(self, tape: PartTape[Given], d_output: Any, input_grad: bool = True) -> Gradients[Given, None]:
        """Differentiate a call of `forward`.

        Parameters
        ----------
        tape
            From that call.
        d_output : like the output
            The gradient of the loss with respect to it; of a packed batch its data will do.
        input_grad : bool
            Whether the gradient of the input is wanted.

        Returns
        -------
        Gradients
            Of the input, or None, and of the parameters; there is no state, and ``hx`` is None. Sums over many rows
            keep the accuracy of sums over few.

        Raises
        ------
        TypeError, ValueError
            If the tape is not one of this layer, or the gradient has the wrong kind, dtype or shape.
        """
        tape = PartTape.of(tape, self)
        as_flag(input_grad, "input_grad")
        axes, rows = _axes(tape.flat), tape.rows
        d_rows = tape.gradient_rows(d_output, self.out_features, axes, self.dtype)
        sums = [summed(d_rows, rows)]
        if "bias" in self._shapes:
            sums.append(sum_of(d_rows))
        d_parameters = np.concatenate([total.ravel() for total in sums]).astype(self.dtype, copy=False)
        d_input = None
        if input_grad:
            weight = self._views(tape.vector)["weight"]
            d_x = multiplied(d_rows, packed(weight), np.zeros(self.in_features, self.dtype))
            d_input = tape.flat.back(d_x.reshape(*axes, self.in_features))
        return Gradients(d_input, None, d_parameters)

    def _warm(self, training: bool) -> None:
        """Compile what runs: see `numba_pack.warmup`."""
        output, tape = self.forward(np.zeros((1, self.in_features), self.dtype))
        if training:
            self.backward(tape, output)

    def _packed(self, vector: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The weight in panels, and what sums start from; made once for each assignment of parameters."""
        made = self._made
        if made is None or made[0] is not vector:
            of = self._views(vector)
            bias = of.get("bias", np.zeros(self.out_features, self.dtype))
            made = self._made = vector, packed(of["weight"].T), bias
        return made[1:]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_made": None}  # panels are those of this machine

    def __repr__(self) -> str:
        options = ["" if "bias" in self._shapes else ", bias=False"]
        options += ["" if self.dtype == np.float32 else f", dtype={self.dtype}"]
        return f"{type(self).__name__}({self.in_features}, {self.out_features}{''.join(options)})"


def _axes(flat: Flat) -> tuple[int, ...]:
    """All axes but the columns'."""
    return flat.array.shape[:1] if flat.packed is not None else flat.array.shape[:-1]
