"""RNN, LSTM and GRU over packed, padded and single sequences.

What is here checks arguments, turns the input into the form that the kernels take, and names the results. It knows no
gate: the formulas are in ``cells/cell.py``, the scans over time in ``cpu/`` and ``cuda/``.
"""

from __future__ import annotations

import copy
import warnings
from typing import Any, NamedTuple

import numpy as np

from .._arguments import check_number, kind_of
from ..batch import States, no_states
from ..cells.dropout import Calls
from ..cells.parameters import WEIGHTS, GRUWeights, LSTMWeights, named_shapes
from ..packing.checks import as_flag, as_size
from .engine import engine
from .forms import Form, form_of
from .module import RNN_WEIGHTS, Module, as_generator, as_nonlinearity

__all__ = ["GRU", "LSTM", "RNN", "Gradients", "Tape"]

#: far more than anybody has; beyond it, not the memory but the names of the parameters would be the trouble
MOST_LAYERS = 4096


class Gradients(NamedTuple):
    """What `backward` returns: the gradient of the loss with respect to each argument of `forward`, in its form."""

    #: like the input; None if that was symbols, or ``input_grad`` False
    input: Any
    #: like the state that `forward` returned, whether a first state was given or zero: an array, or (h, c) for an LSTM
    hx: Any
    #: laid out like ``layer.parameters``
    parameters: np.ndarray


class Tape:
    """What `forward` keeps for one `backward`.

    It holds the input (a copy, if it is symbols) and the initial state (no copy): do not change them before `backward`.
    The output that `forward` returned is read-only for the same reason. Besides, N rows keep, for each layer and
    direction, 4 H numbers (LSTM: the gates; GRU: the gates and the hidden part of n) or H (RNN), an LSTM H more for c
    and with a projection another H, each rounded up to whole vector registers, and for each layer but the last its
    output. Dropout masks are not kept. ``nbytes`` tells the sum.

    `backward` turns the gates into their gradients in place, and so uses the tape up. It differentiates the call that
    was made: parameters assigned since then do not matter.
    """

    def __init__(self, owner: Module, form: Form, saved: engine.Saved) -> None:
        self._owner, self._form, self._saved = owner, form, saved
        #: bytes kept beyond input, output and states
        self.nbytes: int = saved.nbytes

    def take(self, owner: Module) -> tuple[Form, engine.Saved]:
        """What was kept; the tape is empty from then on."""
        if self._owner is not owner:
            raise ValueError(
                f"tape must come from a forward call of this {type(owner).__name__}; got one of another layer"
            )
        saved, self._saved = self._saved, None  # type: ignore[assignment]
        if saved is None:
            raise ValueError(
                "tape must not have been used: backward uses it up; got one that it was called with before"
            )
        return self._form, saved


class Layer(Module):
    """What RNN, LSTM and GRU share: all but their names and the cell."""

    _fixed = Module._fixed | {
        "num_layers", "batch_first", "dropout", "bidirectional", "proj_size", "num_directions", "output_size",
    }  # fmt: skip

    def __init__(
        self,
        kind: type[Any],
        input_size: int,
        hidden_size: int,
        num_layers: int,
        bias: bool,
        batch_first: bool,
        dropout: float,
        bidirectional: bool,
        proj_size: int,
        dtype: Any,
        rng: Any,
    ) -> None:
        self.input_size = as_size(input_size, "input_size")
        self.hidden_size = as_size(hidden_size, "hidden_size")
        self.num_layers = as_size(num_layers, "num_layers", most=MOST_LAYERS)
        self.bias = as_flag(bias, "bias")
        self.batch_first = as_flag(batch_first, "batch_first")
        self.bidirectional = as_flag(bidirectional, "bidirectional")
        self.proj_size = as_size(proj_size, "proj_size", 0)
        if self.proj_size >= self.hidden_size:
            raise ValueError(f"proj_size must be less than hidden_size, {hidden_size}; got {proj_size}")
        check_number("dropout", dropout)
        if dropout > 1:
            raise ValueError(f"dropout must be at most 1; got {dropout!r}")
        if dropout > 0 and num_layers == 1:
            warnings.warn(f"dropout is between layers, of which there is one: {dropout} does nothing", stacklevel=3)
        self.dropout = float(dropout)
        self.num_directions = 2 if bidirectional else 1
        self.output_size = self.proj_size or self.hidden_size
        generator = as_generator(rng)
        super().__init__(kind, dtype, generator)
        self._training_calls = Calls(int(generator.integers(2**32, dtype=np.uint32)), seeded=rng is not None)

    def _layout(self) -> tuple[dict[str, int], dict[str, tuple[int, ...]]]:
        sizes = {
            "input_size": self.input_size,
            "hidden_size": self.hidden_size,
            "output_size": self.output_size,
            "num_layers": self.num_layers,
            "num_directions": self.num_directions,
            "bias": int(self.bias),
        }
        shapes = named_shapes(
            WEIGHTS[self._kind].gates, self.input_size, self.hidden_size, self.proj_size, self.num_layers,
            self.num_directions, self.bias,
        )  # fmt: skip
        return sizes, shapes

    def _for_inputs(self, input_size: int) -> Any:
        """A copy, of whatever class this is, for inputs of another size. Its parameters are zeros."""
        other = copy.copy(self)
        other.__dict__["input_size"] = input_size
        other._set(np.zeros(other._lay_out(), self.dtype))
        return other

    def __copy__(self) -> Layer:
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__, _training_calls=copy.copy(self._training_calls))
        return other

    def __call__(self, input: Any, hx: Any = None) -> tuple[Any, Any]:
        """Run the layer: inference, without dropout, and nothing is kept.

        Parameters
        ----------
        input : PackedSequence with data (N, I), or ndarray, shape (T, B, I), (B, T, I) with batch_first, or (T, I)
            In the dtype of the layer. Or symbols: any of these without I, of an integer dtype, which stand for one-hot
            rows; padded ones as ``nbp.symbols(array)``. They are at least 0 and less than I. Where the backend is
            ``cuda``, arrays may be on the device, all or none, and results are where the input is; symbols never are.
        hx : ndarray, or tuple of two for an LSTM, optional
            The initial state: h_0 of shape (L * D, B, P), and c_0 of shape (L * D, B, H), without B for input (T, I).
            Zeros if omitted. P is ``proj_size`` if there is a projection, else H.

        Returns
        -------
        output
            In the form of the input, with D * P columns: the outputs of the last layer at each step, forward
            direction first.
        state
            In the form of hx: the state of each sequence after its last step (in the reverse direction: after its
            first). A sequence of length 0 keeps its initial state.

        Raises
        ------
        TypeError, ValueError
            If an argument has the wrong kind, dtype or shape.
        """
        form = form_of(input, self.input_size, self.dtype, self.batch_first)
        out, h_n, c_n = engine.infer(self._packed(), form.batch, self._states(form, hx, "hx"))
        return form.back(out), self._state_back(form, h_n, c_n)

    def forward(self, input: Any, hx: Any = None) -> tuple[Any, Any, Tape]:
        """Run the layer for training: with dropout, and with a tape for `backward`.

        Parameters
        ----------
        input, hx
            As for a plain call of the layer.

        Returns
        -------
        output, state
            As from a plain call; the output is read-only.
        tape : Tape
            What `backward` needs.

        Raises
        ------
        TypeError, ValueError
            If an argument has the wrong kind, dtype or shape.
        """
        form = form_of(input, self.input_size, self.dtype, self.batch_first)
        dropped = self._training_calls.next(self.dropout if self.num_layers > 1 else 0.0)
        out, h_n, c_n, saved = engine.record(self._packed(), form.batch, self._states(form, hx, "hx"), dropped)
        shown = form.arrays.read_only(out)  # the tape holds it
        return form.back(shown), self._state_back(form, h_n, c_n), Tape(self, form, saved)

    def backward(self, tape: Tape, d_output: Any = None, d_state: Any = None, input_grad: bool = True) -> Gradients:
        """Differentiate a call of `forward`.

        Parameters
        ----------
        tape : Tape
            From that call. It is used up.
        d_output : like the output of `forward`, or its packed data (N, D * P), or None
            The gradient of the loss with respect to the output; None for zero.
        d_state : like the state that `forward` returned, or None
            The gradient with respect to the last state; for an LSTM either of both may be None, too.
        input_grad : bool
            Whether the gradient of the input is wanted. In a first layer it seldom is, and costs a product. Symbols
            have none.

        Returns
        -------
        Gradients
            Of the input, the initial state and the parameters.

        Raises
        ------
        TypeError, ValueError
            If the tape is not one of this layer or was used before, or a gradient has the wrong kind, dtype or shape.

        Examples
        --------
        >>> import numpy as np
        >>> import numba_pack as nbp
        >>> gru = nbp.GRU(3, 2, rng=0)
        >>> output, h_n, tape = gru.forward(nbp.pack_sequence([np.ones((n, 3), np.float32) for n in (2, 4)]))
        >>> gradients = gru.backward(tape, None, np.ones_like(h_n))
        >>> gradients.input.data.shape, gradients.hx.shape, gradients.parameters.shape
        ((6, 3), (1, 2, 2), (42,))
        """
        if not isinstance(tape, Tape):
            raise TypeError(f"tape must be what forward returned third; got {kind_of(tape, Tape)}")
        as_flag(input_grad, "input_grad")
        form, columns = tape._form, self.num_directions * self.output_size
        if tape._owner is self:  # arguments are checked before the tape is used up
            d_states = self._states(form, d_state, "d_state", parts_may_be_none=True)
            if d_output is None:
                d_rows = form.arrays.zeros((len(form.batch.data), columns), self.dtype)
            else:
                d_rows = form.rows(d_output, "d_output", columns)
            form.check_again()  # last, since objects of the caller's may have run code of theirs
        form, saved = tape.take(self)
        input_grad = input_grad and not form.batch.symbols
        d_input, d_h, d_c, gradient = engine.replay_back(saved, d_rows, d_states, input_grad)
        return Gradients(form.back(d_input) if input_grad else None, self._state_back(form, d_h, d_c), gradient)

    def _states(self, form: Form, hx: Any, name: str, parts_may_be_none: bool = False) -> States:
        """A state, or the gradient of one, as the kernels take it."""
        if hx is None:
            return no_states(self.dtype)
        scans = self.num_layers * self.num_directions
        if not self._has_c:
            h = form.state(hx, name, scans, self.output_size)
            return States(h, no_states(self.dtype).c, True)
        parts = _parts(hx)
        if len(parts) != 2:
            raise TypeError(f"{name} must be a tuple of two arrays, h and c; got {_described(hx)}")
        h, c = (
            form.arrays.zeros((scans, form.B, size), self.dtype)
            if part is None and parts_may_be_none
            else form.state(part, name + label, scans, size)
            for part, size, label in zip(parts, (self.output_size, self.hidden_size), ("[0]", "[1]"), strict=True)
        )
        return States(h, c, True)

    def _state_back(self, form: Form, h: np.ndarray, c: np.ndarray) -> Any:
        return (form.state_back(h), form.state_back(c)) if self._has_c else form.state_back(h)


def _parts(value: Any) -> tuple[Any, ...]:
    """The entries of a tuple or list, read without running code of the caller's: the input has been checked already."""
    if isinstance(value, tuple):
        return tuple(tuple.__iter__(value))
    return tuple(list.__iter__(value)) if isinstance(value, list) else ()


def _described(value: Any) -> str:
    if isinstance(value, (tuple, list)):
        return f"{type(value).__name__} of {len(value)}"
    return kind_of(value)


_PARAMETERS = """
    Parameters
    ----------
    input_size : int
        I, the columns of the input.
    hidden_size : int
        H, the units of the state.
    num_layers : int
        L. Each layer takes the output of the one below.{nonlinearity}
    bias : bool
        Whether the products with input and state have a bias each.
    batch_first : bool
        Whether padded input and output are (B, T, *) instead of (T, B, *). States are not concerned.
    dropout : float
        The probability with which `forward` drops each output of each layer but the last, scaling the others by
        ``1 / (1 - dropout)``. Which, depends on the seed, the call, the layer, the caller's number of the sequence,
        the step and the unit, and on nothing else.
    bidirectional : bool
        D = 2: a second scan of each layer goes from the last step to the first.{projection}
    dtype : dtype
        float32 or float64: of parameters, input, output and all computation.
    rng : None, int, or numpy.random.Generator
        Draws the parameters, uniformly between -1 / sqrt(H) and 1 / sqrt(H), and the seed of the dropout.
        A process that is forked drops units of its own; with rng they are the same in each run, by the order of forks.
        A deep copy, or one from a pickle, goes on from where the layer stood, and drops the same, if rng is given; else
        it drops units of its own, too.

    Attributes
    ----------
    parameters : ndarray, read-only
        All parameters as one flat vector. Assign a whole vector to change them.
    weights : named tuple
        What compiled code takes: see `{function}`.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong kind or is out of range.
"""
_NONLINEARITY = """
    nonlinearity : {"tanh", "relu"}
        What is applied to the sums."""
_PROJECTION = """
    proj_size : int
        P, if greater than 0: h is projected to P outputs by ``weight_hr``. Less than H."""


def _documented(function: str, nonlinearity: str = "", projection: str = "") -> Any:
    """Put the parameters, which all layers share, into a class's docstring, in place of its line ``{parameters}``."""

    def decorate(cls: type) -> type:
        text = _PARAMETERS.format(function=function, nonlinearity=nonlinearity, projection=projection).strip()
        if cls.__doc__:  # python -OO strips it
            cls.__doc__ = cls.__doc__.replace("{parameters}", text)
        return cls

    return decorate


@_documented("rnn", nonlinearity=_NONLINEARITY)
class RNN(Layer):
    """A simple recurrent net: h' = tanh(W_ih x + b_ih + W_hh h + b_hh), or with relu in place of tanh.

    {parameters}

    References
    ----------
    J. L. Elman, Finding structure in time, Cognitive Science 14 (1990).

    Examples
    --------
    >>> import numpy as np
    >>> import numba_pack as nbp
    >>> rnn = nbp.RNN(3, 2, nonlinearity="relu", rng=0)
    >>> output, h_n = rnn(np.ones((5, 4, 3), np.float32))
    >>> output.shape, h_n.shape
    ((5, 4, 2), (1, 4, 2))
    """

    _fixed = Layer._fixed | {"nonlinearity"}

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        nonlinearity: str = "tanh",
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        dtype: Any = np.float32,
        rng: Any = None,
    ) -> None:
        self.nonlinearity = as_nonlinearity(nonlinearity)
        kind = RNN_WEIGHTS[nonlinearity]
        super().__init__(
            kind, input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, 0, dtype, rng
        )


@_documented("lstm", projection=_PROJECTION)
class LSTM(Layer):
    """Long short-term memory.

    With i, f, g, o the four parts of ``W_ih x + b_ih + W_hh h + b_hh``:
    c' = sigmoid(f) c + sigmoid(i) tanh(g) and h' = sigmoid(o) tanh(c'), or W_hr times that with a projection.

    {parameters}

    References
    ----------
    S. Hochreiter and J. Schmidhuber, Long short-term memory, Neural Computation 9 (1997); F. Gers, J. Schmidhuber and
    F. Cummins, Learning to forget, Neural Computation 12 (2000); H. Sak, A. Senior and F. Beaufays, Long short-term
    memory recurrent neural network architectures for large scale acoustic modeling, Interspeech (2014).

    Examples
    --------
    >>> import numpy as np
    >>> import numba_pack as nbp
    >>> packed = nbp.pack_sequence([np.ones((n, 12), np.float32) for n in (7, 26, 0, 15)])
    >>> lstm = nbp.LSTM(12, 100, num_layers=2, bidirectional=True, rng=0)
    >>> output, (h_n, c_n) = lstm(packed)
    >>> output.data.shape, h_n.shape
    ((48, 200), (4, 4, 100))
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        dtype: Any = np.float32,
        rng: Any = None,
    ) -> None:
        super().__init__(
            LSTMWeights, input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, proj_size,
            dtype, rng,
        )  # fmt: skip


@_documented("gru")
class GRU(Layer):
    """A gated recurrent unit.

    With r, z, n the three parts of the products: r = sigmoid(x_r + h_r), z = sigmoid(x_z + h_z),
    n = tanh(x_n + r h_n) and h' = (1 - z) n + z h, where x and h stand for ``W_ih x + b_ih`` and ``W_hh h + b_hh``.

    {parameters}

    References
    ----------
    K. Cho et al., Learning phrase representations using RNN encoder-decoder for statistical machine translation,
    EMNLP (2014); with r applied after the product, as in PyTorch and cuDNN.

    Examples
    --------
    >>> import numpy as np
    >>> import numba_pack as nbp
    >>> gru = nbp.GRU(3, 2, rng=0)
    >>> output, h_n = gru(np.ones((5, 3), np.float32))
    >>> output.shape, h_n.shape
    ((5, 2), (1, 2))
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        dtype: Any = np.float32,
        rng: Any = None,
    ) -> None:
        super().__init__(
            GRUWeights, input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, 0, dtype, rng
        )
