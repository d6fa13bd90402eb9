"""RNNCell, LSTMCell and GRUCell: one time step of a layer, for loops of the user's own."""

from __future__ import annotations

from typing import Any

import numpy as np

from .._arguments import kind_of
from .._backend import on_device
from ..batch import Batch, States, no_states
from ..cells.dropout import Dropout
from ..cells.parameters import WEIGHTS, GRUWeights, LSTMWeights
from ..packing.checks import as_flag, as_size
from .engine import engine
from .forms import arrays_of, plain
from .layer import Gradients
from .module import RNN_WEIGHTS, Module, as_generator, as_nonlinearity

__all__ = ["CellTape", "GRUCell", "LSTMCell", "RNNCell"]

_NO_DROPOUT = Dropout(0.0, np.uint32(0), np.uint32(0))


class CellTape:
    """What a cell's `forward` keeps for one `backward`: as `Tape`, of one step."""

    def __init__(self, owner: Module, saved: engine.Saved, single: bool) -> None:
        self._owner, self._saved, self._single = owner, saved, single
        #: bytes kept beyond input, output and states
        self.nbytes: int = saved.nbytes


class Cell(Module):
    """What the three cells share: all but their names and formulas."""

    def __init__(self, kind: type[Any], input_size: int, hidden_size: int, bias: bool, dtype: Any, rng: Any) -> None:
        self.input_size = as_size(input_size, "input_size")
        self.hidden_size = as_size(hidden_size, "hidden_size")
        self.bias = as_flag(bias, "bias")
        super().__init__(kind, dtype, as_generator(rng))

    def _layout(self) -> tuple[dict[str, int], dict[str, tuple[int, ...]]]:
        gates = WEIGHTS[self._kind].gates * self.hidden_size
        shapes: dict[str, tuple[int, ...]] = {
            "weight_ih": (gates, self.input_size),
            "weight_hh": (gates, self.hidden_size),
        }
        if self.bias:
            shapes |= {"bias_ih": (gates,), "bias_hh": (gates,)}
        sizes = {
            "input_size": self.input_size,
            "hidden_size": self.hidden_size,
            "output_size": self.hidden_size,
            "num_layers": 1,
            "num_directions": 1,
            "bias": int(self.bias),
        }
        return sizes, shapes

    def __call__(self, input: np.ndarray, hx: Any = None) -> Any:
        """One step, of inference.

        Parameters
        ----------
        input : ndarray, shape (B, I) or (I,)
            In the dtype of the cell.
        hx : ndarray, shape (B, H) or (H,); for an LSTMCell a tuple of two; optional
            The state before. Zeros if omitted.

        Returns
        -------
        ndarray, or tuple of two
            The state after the step, in the form of hx.

        Raises
        ------
        TypeError, ValueError
            If an argument has the wrong kind, dtype or shape.
        """
        batch, single = self._batch(input)
        _, h, c = engine.infer(self._packed(), batch, self._states(batch, single, hx, "hx", False))
        return self._state_back(h, c, single)

    def forward(self, input: np.ndarray, hx: Any = None) -> tuple[Any, CellTape]:
        """One step, for training.

        Parameters
        ----------
        input, hx
            As for a plain call of the cell.

        Returns
        -------
        state
            As from a plain call.
        tape : CellTape
            What `backward` needs. It holds the arguments themselves, not copies.

        Raises
        ------
        TypeError, ValueError
            If an argument has the wrong kind, dtype or shape.
        """
        batch, single = self._batch(input)
        states = self._states(batch, single, hx, "hx", False)
        _, h, c, saved = engine.record(self._packed(), batch, states, _NO_DROPOUT)
        return self._state_back(h, c, single), CellTape(self, saved, single)

    def backward(self, tape: CellTape, d_state: Any) -> Gradients:
        """Differentiate a call of `forward`.

        Parameters
        ----------
        tape : CellTape
            From that call. It is used up.
        d_state : like the state that `forward` returned
            The gradient of the loss with respect to it; for an LSTMCell either of both may be None.

        Returns
        -------
        Gradients
            Of the input, the state before, and the parameters.

        Raises
        ------
        TypeError, ValueError
            If the tape is not one of this cell or was used before, or d_state has the wrong kind, dtype or shape.
        """
        if not isinstance(tape, CellTape):
            raise TypeError(f"tape must be what forward returned second; got {kind_of(tape, CellTape)}")
        if tape._owner is not self:
            raise ValueError(
                f"tape must come from a forward call of this {type(self).__name__}; got one of another cell"
            )
        saved = tape._saved
        if saved is None:
            raise ValueError(
                "tape must not have been used: backward uses it up; got one that it was called with before"
            )
        d_states = self._states(saved.batch, tape._single, d_state, "d_state", True)
        tape._saved = None  # type: ignore[assignment]
        d_rows = arrays_of(saved.batch.data).zeros((saved.batch.rows, self.hidden_size), self.dtype)
        d_input, d_h, d_c, gradient = engine.replay_back(saved, d_rows, d_states, True)
        return Gradients(d_input[0] if tape._single else d_input, self._state_back(d_h, d_c, tape._single), gradient)

    def _batch(self, input: np.ndarray) -> tuple[Batch, bool]:
        if not isinstance(input, np.ndarray) and not on_device(input):
            raise TypeError(f"input must be a NumPy array; got {kind_of(input, np.ndarray)}")
        if isinstance(input, np.ndarray):
            input = plain(input, "input")
        if input.ndim not in (1, 2):
            raise ValueError(f"input must have shape (B, {self.input_size}) or ({self.input_size},); got {input.shape}")
        single = input.ndim == 1
        as_array = arrays_of(input).as_array
        if single:
            data = as_array(input, "input", (self.input_size,), self.dtype, "(input_size,)").reshape(1, self.input_size)
        else:
            data = as_array(input, "input", (len(input), self.input_size), self.dtype, "(B, input_size)")
        B = len(data)
        return Batch(data, np.full(1 if B else 0, B), np.arange(B), B), single

    def _states(self, batch: Batch, single: bool, hx: Any, name: str, parts_may_be_none: bool) -> States:
        if hx is None:
            return no_states(self.dtype)
        B, arrays = batch.rows, arrays_of(batch.data)
        H, letters = self.hidden_size, "(H,)" if single else "(B, H)"
        shape = (H,) if single else (B, H)
        if not self._has_c:
            return States(
                arrays.as_array(hx, name, shape, self.dtype, letters).reshape(1, B, H), no_states(self.dtype).c, True
            )
        if not isinstance(hx, (tuple, list)) or len(hx) != 2:
            raise TypeError(f"{name} must be a tuple of two arrays, h and c; got {kind_of(hx)}")
        parts = [
            arrays.zeros(shape, self.dtype)
            if part is None and parts_may_be_none
            else arrays.as_array(part, f"{name}[{i}]", shape, self.dtype, letters)
            for i, part in enumerate(hx)
        ]
        return States(parts[0].reshape(1, B, H), parts[1].reshape(1, B, H), True)

    def _state_back(self, h: np.ndarray, c: np.ndarray, single: bool) -> Any:
        if single:
            return (h[0, 0], c[0, 0]) if self._has_c else h[0, 0]
        return (h[0], c[0]) if self._has_c else h[0]


class RNNCell(Cell):
    """One step of an `RNN`: h' = tanh(W_ih x + b_ih + W_hh h + b_hh), or with relu in place of tanh.

    Parameters
    ----------
    input_size, hidden_size : int
        I and H.
    bias : bool
        Whether both products have a bias.
    nonlinearity : {"tanh", "relu"}
        What is applied to the sums.
    dtype : dtype
        float32 or float64.
    rng : None, int, or numpy.random.Generator
        Draws the parameters, uniformly between -1 / sqrt(H) and 1 / sqrt(H).

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong kind or is out of range.

    Examples
    --------
    >>> import numpy as np
    >>> import numba_pack as nbp
    >>> cell = nbp.RNNCell(3, 2, rng=0)
    >>> h = cell(np.ones((4, 3), np.float32))
    >>> cell(np.ones((4, 3), np.float32), h).shape
    (4, 2)
    """

    _fixed = Cell._fixed | {"nonlinearity"}

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        nonlinearity: str = "tanh",
        dtype: Any = np.float32,
        rng: Any = None,
    ) -> None:
        self.nonlinearity = as_nonlinearity(nonlinearity)
        super().__init__(RNN_WEIGHTS[nonlinearity], input_size, hidden_size, bias, dtype, rng)


class LSTMCell(Cell):
    """One step of an `LSTM`, whose equations and sources are there.

    Parameters
    ----------
    input_size, hidden_size : int
        I and H.
    bias : bool
        Whether both products have a bias.
    dtype : dtype
        float32 or float64.
    rng : None, int, or numpy.random.Generator
        Draws the parameters, uniformly between -1 / sqrt(H) and 1 / sqrt(H).

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong kind or is out of range.

    Examples
    --------
    >>> import numpy as np
    >>> import numba_pack as nbp
    >>> cell = nbp.LSTMCell(3, 2, rng=0)
    >>> h, c = cell(np.ones(3, np.float32))
    >>> h, c = cell(np.ones(3, np.float32), (h, c))
    >>> h.shape, c.shape
    ((2,), (2,))
    """

    def __init__(
        self, input_size: int, hidden_size: int, bias: bool = True, dtype: Any = np.float32, rng: Any = None
    ) -> None:
        super().__init__(LSTMWeights, input_size, hidden_size, bias, dtype, rng)


class GRUCell(Cell):
    """One step of a `GRU`, whose equations and sources are there.

    Parameters
    ----------
    input_size, hidden_size : int
        I and H.
    bias : bool
        Whether both products have a bias.
    dtype : dtype
        float32 or float64.
    rng : None, int, or numpy.random.Generator
        Draws the parameters, uniformly between -1 / sqrt(H) and 1 / sqrt(H).

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong kind or is out of range.

    Examples
    --------
    >>> import numpy as np
    >>> import numba_pack as nbp
    >>> cell = nbp.GRUCell(3, 2, rng=0)
    >>> h, tape = cell.forward(np.ones((4, 3), np.float32))
    >>> cell.backward(tape, np.ones_like(h)).input.shape
    (4, 3)
    """

    def __init__(
        self, input_size: int, hidden_size: int, bias: bool = True, dtype: Any = np.float32, rng: Any = None
    ) -> None:
        super().__init__(GRUWeights, input_size, hidden_size, bias, dtype, rng)
