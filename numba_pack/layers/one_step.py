"""RNNCell, LSTMCell and GRUCell: one time step of a layer, for loops of the user's own."""

from __future__ import annotations

from typing import Any, Generic

import numpy as np

from .._backend import backend
from ..cells.cell import Cell
from ..cells.dropout import NO_DROPOUT
from ..cells.gru import GRU
from ..cells.lstm import LSTM
from ..packing.checks import as_flag, as_size
from .engine import engine
from .forms import OneStep
from .module import RNN_CELLS, Module, as_generator, as_nonlinearity, infer_few
from .tape import Gradients, State, Tape, as_tape, replay_back

__all__ = ["GRUCell", "LSTMCell", "RNNCell"]


class Step(Module, Generic[State]):
    """Everything but names and formulas, which the three share."""

    num_layers = num_directions = 1

    def __init__(
        self, cell: Cell, input_size: int, hidden_size: int, bias: bool, dtype: Any, rng: Any, matmul_precision: Any
    ) -> None:
        self.input_size = as_size(input_size, "input_size")
        self.hidden_size = self.output_size = as_size(hidden_size, "hidden_size")
        self.bias = as_flag(bias, "bias")
        super().__init__(cell, {}, dtype, as_generator(rng), matmul_precision)

    def _named(self, shapes: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
        return {name.removesuffix("_l0"): shape for name, shape in shapes.items()}

    def __call__(self, input: np.ndarray | int | np.integer[Any], hx: State | None = None) -> State:
        """One step, of inference.

        Parameters
        ----------
        input : ndarray, shape (B, I) or (I,)
            In the dtype of the cell. Or symbols, which stand for one-hot rows: integers (B,), or one integer for one
            sequence, at least 0 and less than I.
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
        found = self._infer_quickly(input, hx)
        if found is not None:
            state: State = found[1]
            return state
        form = OneStep(input, self.input_size, self.dtype)
        results = engine.infer(self._packed(), form.batch, self._states(form, hx, "hx"))
        return self._state_back(form, results.h_n, results.others_n)

    def _infer_quickly(self, input: Any, hx: Any) -> Any:
        """What `infer_few` gives for what may be a step of few rows."""
        rows = np.array(input) if type(input) is int else input
        if backend != "cpu" or type(rows) is not np.ndarray:
            return None
        leading, symbols = rows.shape, rows.dtype is not self.dtype
        if not symbols:
            if leading[-1:] != (self.input_size,):
                return None
            leading = leading[:-1]
        elif rows.dtype.kind not in "iu":
            return None
        if len(leading) > 1:
            return None
        few = self._holder.version.few.get((self.matmul_precision, symbols)) or self._few(symbols)
        B, state = leading[0] if leading else 1, (*leading, self.hidden_size)
        return infer_few(few, rows, None, B, B, (None, state, state), hx)

    def forward(
        self, input: np.ndarray | int | np.integer[Any], hx: State | None = None
    ) -> tuple[State, Tape[np.ndarray, State]]:
        """One step, for training.

        Parameters
        ----------
        input, hx
            As for a plain call of the cell.

        Returns
        -------
        state
            As from a plain call.
        tape : Tape
            What `backward` needs. It holds the arguments themselves, not copies.

        Raises
        ------
        TypeError, ValueError
            If an argument has the wrong kind, dtype or shape.
        """
        self._refuse_integers("forward")
        form = OneStep(input, self.input_size, self.dtype)
        results, saved = engine.record(self._packed(), form.batch, self._states(form, hx, "hx"), NO_DROPOUT)
        return self._state_back(form, results.h_n, results.others_n), Tape(self, form, saved)

    def backward(self, tape: Tape[np.ndarray, State], d_state: Any) -> Gradients[np.ndarray, State]:
        """Differentiate a call of `forward`.

        Parameters
        ----------
        tape : Tape
            From that call. It is used up.
        d_state : like the state that `forward` returned
            The gradient of the loss with respect to it; for an LSTMCell either of both may be None.

        Returns
        -------
        Gradients
            Of the input, the state before, and the parameters. Symbols have none: ``input`` is None.

        Raises
        ------
        TypeError, ValueError
            If the tape is not one of this cell or was used before, or d_state has the wrong kind, dtype or shape.
        """
        self._refuse_integers("backward")
        form = as_tape(tape, "second").of(self, "cell")
        d_states = self._states(form, d_state, "d_state", parts_may_be_none=True)
        d_rows = form.arrays.zeros((form.B, self.hidden_size), self.dtype)
        input_grad = not form.batch.symbols
        found = replay_back(tape.take(), d_rows, d_states, input_grad)
        d_input = form.back(found.data) if input_grad else None
        d_parameters = form.arrays.as_result(found.parameters)
        return Gradients(d_input, self._state_back(form, found.h_0, found.others_0), d_parameters)


class RNNCell(Step[np.ndarray]):
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
    matmul_precision : {"highest", "high", "medium"}, optional
        How exactly, at least, the products of a float32 cell are computed: see `LSTM`.

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

    _fixed = Step._fixed | {"nonlinearity"}

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        nonlinearity: str = "tanh",
        dtype: Any = np.float32,
        rng: Any = None,
        *,
        matmul_precision: str | None = None,
    ) -> None:
        self.nonlinearity = as_nonlinearity(nonlinearity)
        super().__init__(RNN_CELLS[nonlinearity], input_size, hidden_size, bias, dtype, rng, matmul_precision)


class LSTMCell(Step[tuple[np.ndarray, np.ndarray]]):
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
    matmul_precision : {"highest", "high", "medium"}, optional
        How exactly, at least, the products of a float32 cell are computed: see `LSTM`.

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
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        dtype: Any = np.float32,
        rng: Any = None,
        *,
        matmul_precision: str | None = None,
    ) -> None:
        super().__init__(LSTM, input_size, hidden_size, bias, dtype, rng, matmul_precision)


class GRUCell(Step[np.ndarray]):
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
    matmul_precision : {"highest", "high", "medium"}, optional
        How exactly, at least, the products of a float32 cell are computed: see `LSTM`.

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
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        dtype: Any = np.float32,
        rng: Any = None,
        *,
        matmul_precision: str | None = None,
    ) -> None:
        super().__init__(GRU, input_size, hidden_size, bias, dtype, rng, matmul_precision)
