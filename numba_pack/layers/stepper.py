"""One step of a layer at a time, as cheap as it can be: input, output and state have memory of their own.

A call of a layer checks and unpacks what it is given, and makes room for what it returns; for one step of a small layer
that takes longer than the step. Here all is prepared, and a call copies its input and runs.
"""

from __future__ import annotations

from threading import Lock
from typing import Any

import numpy as np

from .._arguments import kind_of
from .._backend import backend
from .._forks import tell_of_forks
from ..batch import Batch, States
from ..cpu.kernels import address_of, make_all, packed_weights
from ..cpu.prepared import Memory, call_prepared, prepared
from ..cpu.shapes import result_shapes
from ..packing.checks import MEMORY_BYTES, as_chosen, as_size
from .compiled_step import CompiledStepper
from .forms import Form, Host, Symbols, as_input, plain
from .layer import Layer
from .stack import Stack

__all__ = ["Stepper"]


class Stepper:
    """A layer that goes on step by step, from a state that it keeps: what ``layer.stepper()`` makes.

    A call takes well under a microsecond besides the computation. It is inference: no dropout. Outputs and states are,
    bit for bit, those of the layer over the whole sequence. Parameters that are assigned to the layer hold from the
    next call on.

    Any thread may call any method; calls wait for each other. A call that raises an error, or is interrupted, leaves
    the state as it was. A copy, or one from a pickle, goes on from the same state on its own; a shallow copy shares the
    layer.

    Parameters
    ----------
    layer : RNN, LSTM, GRU or a layer of any cell
        Of one direction, from the first step to the last.
    batch : int
        B, how many sequences go side by side.

    Attributes
    ----------
    layer, batch
        As they were given.
    compiled : named tuple
        What `step` takes in compiled code.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong kind or is out of range; where the backend is ``cuda``.

    Examples
    --------
    >>> import numpy as np
    >>> import numba_pack as nbp
    >>> lstm = nbp.LSTM(3, 2, rng=0)
    >>> stepper = lstm.stepper()
    >>> x = np.random.default_rng(0).standard_normal((5, 1, 3), np.float32)
    >>> outputs = [stepper(row).copy() for row in x]
    >>> output, (h, c) = lstm(x)
    >>> bool((np.stack(outputs) == output).all()), bool((stepper.state[1] == c).all())
    (True, True)
    """

    def __init__(self, layer: Layer[Any], batch: int = 1) -> None:
        if not isinstance(layer, Layer):
            raise TypeError(f"layer must be a layer, as LSTM or what a cell makes; got {kind_of(layer, Layer)}")
        if backend == "cuda":
            raise ValueError("stepper is for the CPU; the backend is cuda")
        if layer.bidirectional or layer.reverse:
            raise ValueError(
                "layer must have one direction, from the first step to the last: the other begins with the last step, "
                f"which has not come yet; got {layer!r}"
            )
        self._layer = layer
        weights = self._weights()
        numbers = [sum(map(np.prod, result_shapes(each, 1, 1))) for each in weights]
        bytes_of_one = layer.dtype.itemsize * (layer.input_size + 2 * sum(numbers))
        self._batch = B = as_size(batch, "batch", most=MEMORY_BYTES // bytes_of_one)
        self._dtype, self._shape = layer.dtype, (B, layer.input_size)
        self._form = Form()  # of states
        self._form.B, self._form.dtype, self._form.arrays = B, layer.dtype, Host
        self._rows = np.zeros(self._shape, self._dtype)
        self._symbols = np.zeros(B, np.int64)
        self._sizes, self._order = np.array([B]), np.arange(B)
        self._turn = np.zeros(1, np.int64)
        self._memory = [self._memory_for(each, layer.return_states and each is weights[-1]) for each in weights]
        last = self._memory[-1]
        self._output: Any = last.out if last.shown is None else (last.out, *last.shown)
        self._lock = Lock()
        self._version: Any = None
        self._renew()
        tell_of_forks(self)

    def _forked(self) -> None:
        """Let a child go on where another thread was in a call: it has not happened; who held the lock is not there."""
        self._lock = Lock()

    def _weights(self) -> list[Any]:
        """Those of each layer, from the first on, as the parameters are now."""
        layers = self._layer._layers() if isinstance(self._layer, Stack) else [self._layer]
        return [layer._holder.version.made_by(packed_weights, layer) for layer in layers]

    def _memory_for(self, weights: Any, show: bool) -> Memory:
        out, h, others, shown = result_shapes(weights, self._batch, self._batch)
        both, of_others = np.zeros((2, *h), self._dtype), np.zeros((2, *others), self._dtype)
        return Memory(both, of_others, np.zeros(out, self._dtype), np.zeros(shown, self._dtype) if show else None)

    def _renew(self) -> None:
        """Prepare the step with the parameters as they are now, with symbols when they come."""
        version = self._layer._holder.version
        weights = self._weights()
        self._call = self._prepared(weights, Batch(self._rows, self._sizes, self._order, self._batch))
        self._call_of_symbols: np.ndarray | None = None
        self._at, self._kept, self._version = address_of(self._call), weights, version

    def _prepared(self, weights: list[Any], batch: Batch) -> np.ndarray:
        return prepared(self._turn, list(zip(weights, self._memory, strict=True)), batch)

    @property
    def layer(self) -> Layer[Any]:
        """The layer whose steps these are."""
        return self._layer

    @property
    def batch(self) -> int:
        """How many sequences go side by side."""
        return self._batch

    def __repr__(self) -> str:
        return f"Stepper({self._layer!r}, batch={self._batch})"

    def __reduce__(self) -> tuple[Any, ...]:
        return _stepper_of, (self._layer, self._batch, self.state)

    def __call__(self, input: Any) -> Any:
        """Go on by one step, or by a chunk of steps.

        Parameters
        ----------
        input : ndarray, shape (B, I), or a chunk (T, B, I), with batch_first (B, T, I)
            In the dtype of the layer. Or symbols: integers (B,), and for a chunk ``nbp.symbols(array)``. It is copied.

        Returns
        -------
        ndarray, shape (B, P)
            The output of the step, in memory that the next step writes to: copy what is to be kept. With
            ``return_states`` a tuple of all states. For a chunk: the outputs as the layer gives them, in memory of
            their own.

        Raises
        ------
        TypeError, ValueError
            If the input has the wrong kind, dtype or shape.
        """
        if type(input) is np.ndarray and input.dtype is self._dtype and input.shape == self._shape:
            return self._step(input)
        array = input.array if isinstance(input, Symbols) else input
        if not isinstance(array, np.ndarray):
            raise TypeError(f"input must be a NumPy array; got {kind_of(array, np.ndarray)}")
        array = plain(array, "input")
        B, I = self._shape  # noqa: E741
        symbols = array.dtype.kind in "iu" and (isinstance(input, Symbols) or array.ndim == 1)
        axes = array.ndim + symbols
        at = 1 if axes == 3 and not self._layer.batch_first else 0
        if axes not in (2, 3) or array.shape[at] != B:
            one, many = ("(B,)", "(T, B)") if symbols else (f"(B, {I})", f"(T, B, {I})")
            many = many.replace("T, B", "B, T") if self._layer.batch_first else many
            raise ValueError(f"input must have shape {one}, or {many} for a chunk, with B = {B}; got {array.shape}")
        if axes == 3:
            return self._chunk(input if isinstance(input, Symbols) else array)
        rows = as_input(array, "input", self._shape, self._dtype, "(B, input_size)")
        return self._step_of_symbols(rows) if symbols else self._step(rows)

    def _step(self, rows: np.ndarray) -> Any:
        with self._lock:
            if self._layer._holder.version is not self._version:
                self._renew()
            self._rows[...] = rows
            call_prepared(self._at)
        return self._output

    def _step_of_symbols(self, symbols: np.ndarray) -> Any:
        with self._lock:
            if self._layer._holder.version is not self._version:
                self._renew()
            if self._call_of_symbols is None:
                batch = Batch(self._symbols, self._sizes, self._order, self._batch, symbols=True)
                self._call_of_symbols = self._prepared(self._kept, batch)
            self._symbols[...] = symbols
            call_prepared(address_of(self._call_of_symbols))
        return self._output

    def _chunk(self, input: Any) -> Any:
        with self._lock:
            output, state = self._layer(input, self._state())
            self._put(self._checked(state))
        return output

    # -- the state -----------------------------------------------------------------------------------------------------

    @property
    def state(self) -> Any:
        """The state after the last step, a copy, in the layer's form: h (L, B, P), of an LSTM with c (L, B, H).

        Assign one to go on from it; None is a state of zeros.
        """
        with self._lock:
            return self._state()

    @state.setter
    def state(self, state: Any) -> None:
        new = self._checked(state)
        with self._lock:
            self._put(new)

    def reset(self, rows: Any = None) -> None:
        """Let sequences begin again, from a state of zeros.

        Parameters
        ----------
        rows : array or list of int, or of bool, shape (B,), optional
            Which of the sequences: their numbers, or a mask. All if omitted.

        Raises
        ------
        TypeError, ValueError
            If they are neither numbers of sequences nor a mask of all.

        Examples
        --------
        >>> import numpy as np
        >>> import numba_pack as nbp
        >>> stepper = nbp.GRU(3, 2, rng=0).stepper(batch=4)
        >>> h = stepper(np.ones((4, 3), np.float32))
        >>> stepper.reset([0, 2])
        >>> stepper.state[0].any(axis=1)
        array([False,  True, False,  True])
        """
        chosen: Any = slice(None)
        if rows is not None:
            chosen, length = as_chosen(rows, "rows")
            if length not in (-1, self._batch):
                raise ValueError(f"rows must hold a bool for each of {self._batch} sequences; got {length}")
            wrong = chosen[(chosen < 0) | (chosen >= self._batch)]
            if wrong.size:
                raise ValueError(f"rows must be numbers of sequences, from 0 to {self._batch - 1}; got {wrong[0]}")
        with self._lock:
            states = [memory.states(int(self._turn[0])) for memory in self._memory]
            new = [States(h.copy(), others.copy(), True) for h, others, _ in states]
            for h, others, _ in new:
                h[:, chosen] = 0
                others[:, :, chosen] = 0
            self._put(new)

    def _checked(self, state: Any) -> list[States]:
        """A state of the caller's: of each layer."""
        if isinstance(self._layer, Stack):
            each = zip(self._layer._layers(), self._layer._each(state, "state"), strict=True)
            return [layer._first_states(self._form, of, f"state[{i}]")[0] for i, (layer, of) in enumerate(each)]
        return [self._layer._first_states(self._form, state, "state")[0]]

    def _state(self) -> Any:
        turn = int(self._turn[0])
        copies = [(memory.h[turn].copy(), memory.others[turn].copy()) for memory in self._memory]
        if isinstance(self._layer, Stack):
            each = zip(self._layer._layers(), copies, strict=True)
            return [layer._state_back(self._form, *arrays) for layer, arrays in each]
        return self._layer._state_back(self._form, *copies[0])

    def _put(self, new: list[States]) -> None:
        """Go on from other states: they are written for the other turn, which then is taken in one step."""
        turn = 1 - int(self._turn[0])
        for memory, state in zip(self._memory, new, strict=True):
            memory.h[turn] = state.h if state.h.size else 0
            memory.others[turn] = state.others if state.others.size else 0
        self._turn[0] = turn

    @property
    def compiled(self) -> CompiledStepper:
        """What `step` takes in compiled code: this stepper, with the parameters as they are now."""
        if isinstance(self._layer, Stack):
            raise AttributeError(
                "compiled must be of a stepper of one layer: compiled code takes those of layer.layers, one after the "
                f"other; got {self!r}"
            )
        (weights,), (memory,) = self._weights(), self._memory
        return CompiledStepper(
            make_all(weights), self._sizes, self._order, memory.h, memory.others, memory.out, self._turn
        )


def _stepper_of(layer: Layer[Any], batch: int, state: Any) -> Stepper:
    stepper = Stepper(layer, batch)
    stepper.state = state
    return stepper
