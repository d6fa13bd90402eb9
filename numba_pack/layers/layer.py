"""Layers of any cell, RNN, LSTM and GRU among them, over packed, padded and single sequences.

What is here checks arguments, turns the input into the form that the kernels take, and names the results. It knows no
gate: each formula is in a file of ``cells/``, the scans over time in ``cpu/`` and ``cuda/``.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from inspect import signature
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

import numpy as np

from .._arguments import check_number, kind_of
from .._backend import backend
from .._habits import HOST, refuse
from ..cells.cell import Cell
from ..cells.dropout import NO_DROPOUT, Calls
from ..cells.gru import GRU as GRU_CELL
from ..cells.lstm import LSTM as LSTM_CELL
from ..packing.checks import as_flag, as_size
from ..packing.sequences import PackedSequence
from .engine import engine
from .forms import Form, Symbols, form_of
from .module import RNN_CELLS, Module, as_generator, as_nonlinearity, infer_few
from .resets import Resets, cut
from .tape import Given, Gradients, Input, State, Tape, as_checkpoint, as_tape, record, replay_back

if TYPE_CHECKING:
    from .stepper import Stepper

__all__ = ["GRU", "LSTM", "RNN", "Layer"]

Class = TypeVar("Class", bound=type)
Own = TypeVar("Own", bound="_Named[Any]")

#: far more than anybody has; beyond it, not the memory but the names of the parameters would be the trouble
MOST_LAYERS = 4096


class Layer(Module, Generic[State]):
    """A layer of any cell: what RNN, LSTM and GRU share, and what a call of a `Cell` makes."""

    _fixed = Module._fixed | {
        "num_layers", "batch_first", "dropout", "bidirectional", "proj_size", "num_directions", "output_size",
        "recurrent_dropout", "zoneout", "return_states", "heads", "layer_norm", "reverse",
    }  # fmt: skip

    def __init__(
        self,
        cell: Cell,
        input_size: int,
        hidden_size: int | Sequence[int],
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        recurrent_dropout: float = 0.0,
        zoneout: float | tuple[float, ...] = 0.0,
        return_states: bool = False,
        heads: int = 1,
        layer_norm: bool = False,
        dtype: Any = np.float32,
        rng: Any = None,
        *,
        reverse: bool = False,
        matmul_precision: str | None = None,
        **constants: float,
    ) -> None:
        self.input_size = as_size(input_size, "input_size")
        self.hidden_size = as_size(hidden_size, "hidden_size")
        self.num_layers = as_size(num_layers, "num_layers", most=MOST_LAYERS)
        self.bias = as_flag(bias, "bias")
        self.batch_first = as_flag(batch_first, "batch_first")
        self.bidirectional = as_flag(bidirectional, "bidirectional")
        self.proj_size = as_size(proj_size, "proj_size", 0)
        self.return_states = as_flag(return_states, "return_states")
        self.heads = as_size(heads, "heads")
        for size in (self.hidden_size, self.proj_size):
            if size % self.heads:
                raise ValueError(f"heads must divide hidden_size and proj_size, {size}; got {heads}")
        #: whether the one direction goes from the last step to the first
        self.reverse = as_flag(reverse, "reverse")
        if self.reverse and self.bidirectional:
            raise ValueError("reverse must be False for a bidirectional layer, which has both directions; got True")
        if self.proj_size >= self.hidden_size:
            raise ValueError(f"proj_size must be less than hidden_size, {hidden_size}; got {proj_size}")
        if self.proj_size and (cell.reads_h or cell.has_product):
            raise ValueError(
                f"proj_size must be 0 where the formula reads {cell.arguments.state[0]} itself, as that of {cell.name} "
                f"does; got {proj_size}"
            )
        _as_rate(dropout, "dropout")
        if dropout > 0 and num_layers == 1:
            warnings.warn(f"dropout is between layers, of which there is one: {dropout} does nothing", stacklevel=3)
        self.dropout = float(dropout)
        self.recurrent_dropout = _as_rate(recurrent_dropout, "recurrent_dropout")
        self.zoneout = _as_rates(zoneout, cell.arguments.state)
        self.layer_norm = as_flag(layer_norm, "layer_norm")
        if self.layer_norm:
            cell = cell.normalised
        if any(self.zoneout):
            if self.proj_size:
                raise ValueError(f"zoneout must be 0 with a projection; got {zoneout!r}")
            zoned = [f"zoneout_{name}" for name in cell.arguments.state]
            cell, constants = cell.zoned, constants | dict(zip(zoned, self.zoneout, strict=True))
        if backend == "cuda" and (self.recurrent_dropout or any(self.zoneout) or self.heads > 1 or self.layer_norm):
            raise ValueError(
                "recurrent_dropout and zoneout must be 0, heads 1 and layer_norm False where the backend is cuda"
            )
        self.num_directions = 2 if bidirectional else 1
        self.output_size = self.proj_size or self.hidden_size
        generator = as_generator(rng)
        super().__init__(cell, constants, dtype, generator, matmul_precision)
        self._training_calls = Calls(int(generator.integers(2**32, dtype=np.uint32)), seeded=rng is not None)
        self._may_be_few = backend == "cpu" and self.cell.states <= 2 and not self.return_states

    @property
    def _called(self) -> str:
        return self.cell.name if type(self) is Layer else super()._called

    def __copy__(self: Any) -> Any:
        other = super().__copy__()
        vars(other)["_training_calls"] = copy.copy(self._training_calls)
        return other

    # An output is typed as that of a layer without ``return_states``. With it the type would be another one only if the
    # classes were generic in this option, and each constructor had its fourteen arguments written out three times.

    @overload
    def __call__(self, input: Given, hx: State | None = None, resets: Resets = None) -> tuple[Given, State]: ...
    @overload
    def __call__(self, input: Symbols, hx: State | None = None, resets: Resets = None) -> tuple[np.ndarray, State]: ...
    def __call__(self, input: Any, hx: Any = None, resets: Resets = None) -> tuple[Any, Any]:
        """Run the layer: inference, without dropout, and nothing is kept.

        Parameters
        ----------
        input : PackedSequence with data (N, I), or ndarray, shape (T, B, I), (B, T, I) with batch_first, or (T, I)
            In the dtype of the layer. Or symbols: any of these without I, of an integer dtype, which stand for one-hot
            rows; padded ones as ``nbp.symbols(array)``. They are at least 0 and less than I. Where the backend is
            ``cuda``, arrays may be on the device, all or none, and results are where the input is; symbols never are.
        hx : ndarray, or tuple of one for each state of the cell, as of two for an LSTM, optional
            The initial state: h_0 of shape (L * D, B, P), and c_0 of shape (L * D, B, H), without B for input (T, I).
            With 1 in place of B one state is shared by all sequences, as a trained one is: its gradient has the same
            shape. Zeros if omitted. P is ``proj_size`` if there is a projection, else H.
        resets : ndarray of bool, shape (T, B), (B, T) with batch_first, (T,) or (N,), optional
            True where a sequence begins anew: the state before that step is zero, whatever came before it. A
            PackedSequence of bools will do for another. The pieces between resets are sequences of their own, and cost
            what their rows cost; rows are copied once on their way in, and once on their way out. With resets hx may
            have B + 1 rows, or 2 in place of none for input (T, I): then the state before a step that is reset is the
            last of them, and not zero.

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

        Notes
        -----
        In the reverse direction a reset before step t ends what goes back from step t: step t - 1 begins anew. So both
        directions see the same pieces. The reverse one takes hx at the end of the last piece of each sequence, and
        returns the state at the beginning of the first, whether or not that is reset.

        Examples
        --------
        >>> import numpy as np
        >>> import numba_pack as nbp
        >>> gru = nbp.GRU(3, 2, rng=0)
        >>> x, begins = np.ones((5, 4, 3), np.float32), np.zeros((5, 4), bool)
        >>> begins[2, 0] = True
        >>> output, h_n = gru(x, resets=begins)
        >>> bool((output[2:, 0] == output[:3, 1]).all())
        True
        """
        if resets is None:
            found = self._infer_quickly(input, hx)
            if found is not None:
                return found
            form = form_of(input, self.input_size, self.dtype, self.batch_first)
        else:
            form = cut(self, input, resets)
        results = engine.infer(self._packed(), form.batch, self._first_states(form, hx)[0], self.return_states)
        return self._output(form, results.out, results.shown), self._state_back(form, results.h_n, results.others_n)

    def _infer_quickly(self, input: Any, hx: Any) -> Any:
        """What a call gives, where rows are few and the arguments just as the kernels take them; else None."""
        kind = type(input)
        if kind is PackedSequence:
            data, sizes, order, ranks = input
        else:
            data = input.array if kind is Symbols else input
        if type(data) is not np.ndarray or not self._may_be_few:
            return None
        shape, symbols = data.shape, data.dtype is not self.dtype
        axes = len(shape) if symbols else len(shape) - 1  # without the features, which symbols have not
        if axes not in (1, 2) or (symbols and (data.dtype.kind not in "iu" or (kind is np.ndarray and axes == 2))):
            return None
        few = self._holder.version.few.get((self.matmul_precision, symbols)) or self._few(symbols)
        inputs, scans, columns, P, H = few.sizes
        if not symbols and shape[-1] != inputs:
            return None
        N = shape[0]
        if kind is PackedSequence:
            if axes == 2 or type(order) is not np.ndarray:
                return None
            B = order.size
            found = infer_few(few, data, input, N, B, ((N, columns), (scans, B, P), (scans, B, H)), hx)
            return found and (tuple.__new__(PackedSequence, (found[0], sizes, order, ranks)), found[1])
        if axes == 1:
            return infer_few(few, data, None, N, 1, ((N, columns), (scans, P), (scans, H)), hx)
        if self.batch_first and 1 not in shape[:2]:
            return None
        B = N if self.batch_first else shape[1]
        shapes = (N, shape[1], columns), (scans, B, P), (scans, B, H)
        return infer_few(few, data, None, N * shape[1], B, shapes, hx)

    @overload
    def forward(
        self, input: Given, hx: State | None = None, resets: Resets = None, checkpoint: int | None = None
    ) -> tuple[Given, State, Tape[Given, State]]: ...
    @overload
    def forward(
        self, input: Symbols, hx: State | None = None, resets: Resets = None, checkpoint: int | None = None
    ) -> tuple[np.ndarray, State, Tape[None, State]]: ...
    def forward(
        self, input: Any, hx: Any = None, resets: Resets = None, checkpoint: int | None = None
    ) -> tuple[Any, Any, Tape[Any, Any]]:
        """Run the layer for training: with dropout, and with a tape for `backward`.

        Parameters
        ----------
        input, hx, resets
            As for a plain call of the layer. Dropout takes the pieces between resets for sequences: the first of each
            sequence has its number, the others those from B on, sequence after sequence; steps count from the reset.
        checkpoint : int, optional
            For long sequences: keep only the states before every so many steps, and let `backward` compute what is
            between them once more, which costs another forward pass. Output and gradients have the same bits. About
            the square root of T is a good number. A piece has 2048 rows at least, unless the batch has fewer, so that
            it may have more steps than asked for. Of more than one layer with both directions, the outputs between
            layers are kept besides. Not where the backend is ``cuda``.

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

        Examples
        --------
        >>> import numpy as np
        >>> import numba_pack as nbp
        >>> lstm = nbp.LSTM(3, 8, rng=0)
        >>> x = np.ones((10_000, 3), np.float32)
        >>> output, state, tape = lstm.forward(x)
        >>> output, state, short = lstm.forward(x, checkpoint=100)
        >>> tape.nbytes > 100 * short.nbytes
        True
        >>> all_at_once, in_pieces = lstm.backward(tape, output), lstm.backward(short, output)
        >>> bool((all_at_once.parameters == in_pieces.parameters).all())
        True
        """
        self._refuse_integers("forward")
        checkpoint = as_checkpoint(checkpoint)
        if resets is None:
            form = form_of(input, self.input_size, self.dtype, self.batch_first)
        else:
            form = cut(self, input, resets)
        rate = self.dropout if self.num_layers > 1 else 0.0
        recurrent, zoned = self.recurrent_dropout, self.cell.noises > 0
        drops = rate > 0 or recurrent > 0 or zoned
        dropped = self._training_calls.next(rate, recurrent, zoned) if drops else NO_DROPOUT
        states, shared = self._first_states(form, hx)
        results, saved = record(self._packed(), form.batch, states, dropped, self.return_states, checkpoint)
        out = form.arrays.read_only(results.out)  # the tape holds it
        state = self._state_back(form, results.h_n, results.others_n)
        return self._output(form, out, results.shown), state, Tape(self, form, saved, shared)

    def backward(
        self, tape: Tape[Input, State], d_output: Any = None, d_state: Any = None, input_grad: bool = True
    ) -> Gradients[Input, State]:
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
        self._refuse_integers("backward")
        form = as_tape(tape, "third").of(self, "layer")  # arguments are checked before the tape is used up
        as_flag(input_grad, "input_grad")
        d_states = self._states(form, d_state, "d_state", parts_may_be_none=True)
        d_rows, d_shown = self._d_output(form, d_output)
        form.check_again()  # last, since objects of the caller's may have run code of theirs
        input_grad = input_grad and not form.batch.symbols
        found = replay_back(tape.take(), d_rows, d_states, input_grad, d_shown)
        d_input = form.back(found.data) if input_grad else None
        d_hx = self._first_state_back(form, found.h_0, found.others_0, tape.shared)
        return Gradients(d_input, d_hx, form.arrays.as_result(found.parameters))

    def stepper(self, batch: int = 1) -> Stepper:
        """The layer as it goes on step by step, from a state that is kept: for loops, and live streams.

        Parameters
        ----------
        batch : int
            B, how many sequences go side by side.

        Returns
        -------
        Stepper
            A call of it with the input (B, I) of a step gives the output (B, P).

        Raises
        ------
        TypeError, ValueError
            If ``batch`` is no positive integer; if the layer has another direction than from the first step to the
            last; where the backend is ``cuda``.

        Examples
        --------
        >>> import numpy as np
        >>> import numba_pack as nbp
        >>> stepper = nbp.GRU(12, 100, rng=0).stepper()
        >>> for x in np.ones((5, 1, 12), np.float32):
        ...     y = stepper(x)
        >>> y.shape, bool((y == stepper.state[0]).all())
        ((1, 100), True)
        """
        from .stepper import Stepper  # which is made for layers

        return Stepper(self, batch)

    def _output(self, form: Form, out: Any, shown: Any) -> Any:
        """The output, with ``return_states`` a tuple of all states at each step, in the form of the input."""
        if not self.return_states:
            return form.back(out)
        return (form.back(out), *(form.back(shown[i]) for i in range(self.cell.others)))

    def _d_output(self, form: Form, d_output: Any) -> tuple[Any, Any]:
        """The gradient of the output as rows, and that of the other states where they are returned, or None."""
        N, D = len(form.batch.data), self.num_directions
        sizes = [D * self.output_size]
        parts: tuple[Any, ...] = (d_output,)
        if self.return_states and d_output is not None:
            sizes += [D * self.hidden_size] * self.cell.others
            if not isinstance(d_output, (tuple, list)) or isinstance(d_output, PackedSequence):
                got = kind_of(d_output, PackedSequence)
                raise TypeError(f"d_output must be a tuple, as the output with return_states; got {got}")
            parts = tuple(d_output)
            if len(parts) != len(sizes):
                raise TypeError(f"d_output must be a tuple of {len(sizes)}; got a tuple of {len(parts)}")
        rows = []
        for i, (part, size) in enumerate(zip(parts, sizes, strict=True)):
            name = f"d_output[{i}]" if self.return_states else "d_output"
            zeros = part is None
            rows.append(form.arrays.zeros((N, size), self.dtype) if zeros else form.rows(part, name, size))
        return rows[0], form.arrays.stacked(rows[1:]) if len(rows) > 1 else None


def _as_rate(value: Any, name: str) -> float:
    """A probability."""
    check_number(name, value)
    if value > 1:
        raise ValueError(f"{name} must be at most 1; got {value!r}")
    return float(value)


def _as_rates(value: Any, states: tuple[str, ...]) -> tuple[float, ...]:
    """A probability for each state."""
    if not isinstance(value, (tuple, list)):
        return (_as_rate(value, "zoneout"),) * len(states)
    if len(value) != len(states):
        raise ValueError(f"zoneout must be a number, or one for each of {', '.join(states)}; got {value!r}")
    return tuple(_as_rate(rate, f"zoneout[{i}]") for i, rate in enumerate(value))


def layer_of(
    cell: Cell, input_size: int, hidden_size: int | Sequence[int], *, reverse: bool = False, **options: Any
) -> Layer[Any]:
    """What a call of a cell makes."""
    if cell in _CLASSES and reverse is False:  # these have the options of PyTorch, and no others
        return _CLASSES[cell](input_size, hidden_size, **options)
    if isinstance(hidden_size, (list, tuple)):
        return _stack(partial(Layer, cell), input_size, hidden_size, reverse=reverse, **options)
    return Layer(cell, input_size, hidden_size, reverse=reverse, **options)


def _stack(*arguments: Any, **options: Any) -> Any:
    from .stack import Stack  # which is made of layers

    return Stack(*arguments, **options)


_PARAMETERS = """
    Parameters
    ----------
    input_size : int
        I, the columns of the input.
    hidden_size : int, or list of int
        H, the units of the state. A list has those of each layer: ``num_layers`` is then left out, and hx, the state
        that is returned and their gradients are lists of L states, one of each layer, as it alone has it.
    num_layers : int
        L. Each layer takes the output of the one below.{nonlinearity}
    bias : bool
        Whether the products with input and state have a bias each.
    batch_first : bool
        Whether padded input and output are (B, T, *) instead of (T, B, *). The shape of states does not change.
    dropout : float
        The probability with which `forward` drops each output of each layer but the last, scaling the others by
        ``1 / (1 - dropout)``. Which outputs are dropped depends on the seed, the call, the layer, the caller's number
        of the sequence, the step and the unit, and on nothing else.
    bidirectional : bool
        D = 2: a second scan of each layer goes from the last step to the first.{projection}
    recurrent_dropout : float
        The probability with which `forward` drops a unit of h before its product with ``weight_hh``, at all steps of a
        sequence alike, scaling the others by ``1 / (1 - recurrent_dropout)``. What is dropped follows from seed, call,
        layer, direction, sequence and unit.
    zoneout : float, or tuple of one for each state
        The probability with which `forward` leaves a unit of a state as it was, at each step anew; in inference the
        state is the mean of both.
    return_states : bool
        Whether the output is a tuple of all states at each step, in the form of the input: of an LSTM h, which is the
        output otherwise, and c, of the last layer, with D * H columns.
    heads : int
        Into how many parts the units are divided, of which each sees its own part of h alone: ``weight_hh`` then has
        H / heads columns, the blocks of a block-diagonal matrix.
    layer_norm : bool
        Whether each product is normalised before it is summed: the sums are ``LN(W_ih x) + b_ih + LN(W_hh h) + b_hh``
        with ``LN(y) = gain (y - mean(y)) / sqrt(var(y) + 1e-5)`` over all rows of a product (Ba et al., 2016). The
        gains ``gain_ih`` and ``gain_hh`` are parameters and begin as 1.
    dtype : dtype
        float32 or float64: of parameters, input, output and all computation.
    rng : None, int, or numpy.random.Generator
        Draws the parameters, uniformly between -1 / sqrt(H) and 1 / sqrt(H), and the seed of the dropout.
        A process that is forked drops units of its own; with rng they are the same in each run, by the order of forks.
        A deep copy, or one from a pickle, goes on from where the layer stood, and drops the same, if rng is given; else
        it drops units of its own, too.
    matmul_precision : {{"highest", "high", "medium"}}, optional
        How exactly, at least, the products of a float32 layer are computed, forward and backward: as float32 is; of
        factors of about 16 bits, each the sum of two numbers in bfloat16; of factors rounded to bfloat16. All else
        stays in float32. Where the backend is ``cuda``, all three are as "highest". If not given, it is what
        `set_float32_matmul_precision` tells, "highest" at first.

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


def _documented(function: str, nonlinearity: str = "", projection: str = "") -> Callable[[Class], Class]:
    """Put the parameters, which all layers share, into a class's docstring, in place of its line ``{parameters}``."""

    def decorate(cls: Class) -> Class:
        text = _PARAMETERS.format(function=function, nonlinearity=nonlinearity, projection=projection).strip()
        if cls.__doc__:  # python -OO strips it
            cls.__doc__ = cls.__doc__.replace("{parameters}", text)
        return cls

    return decorate


#: what other libraries call options of layers, and what does the same here
_OPTIONS = {
    "units": "it is hidden_size=, after input_size=",
    "activation": "nonlinearity= of an RNN has two, and numba_pack.cells makes cells of any formula",
    **dict.fromkeys(("return_sequences", "return_state"), "a call returns both the output of all steps and the state"),
    **dict.fromkeys(("seed", "random_state"), "it is rng="),
}


class _Named(Layer[State]):
    """RNN, LSTM and GRU make a `Stack` of a list of widths; classes that users derive from them do not."""

    def __new__(cls: type[Own], *arguments: Any, **options: Any) -> Own:
        hidden_size = arguments[1] if len(arguments) > 1 else options.get("hidden_size")
        if cls in (RNN, LSTM, GRU):
            refuse(options, device=HOST, **_OPTIONS)
            if isinstance(hidden_size, (list, tuple)):
                stack: Own = _stack(cls, **signature(cls).bind(*arguments, **options).arguments)
                return stack
        return object.__new__(cls)


@_documented("rnn", nonlinearity=_NONLINEARITY)
class RNN(_Named[np.ndarray]):
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
        hidden_size: int | Sequence[int],
        num_layers: int = 1,
        nonlinearity: str = "tanh",
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        recurrent_dropout: float = 0.0,
        zoneout: float | tuple[float, ...] = 0.0,
        return_states: bool = False,
        heads: int = 1,
        layer_norm: bool = False,
        dtype: Any = np.float32,
        rng: Any = None,
        *,
        matmul_precision: str | None = None,
    ) -> None:
        self.nonlinearity = as_nonlinearity(nonlinearity)
        super().__init__(
            RNN_CELLS[nonlinearity], input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, 0,
            recurrent_dropout, zoneout, return_states, heads, layer_norm, dtype, rng, matmul_precision=matmul_precision,
        )  # fmt: skip


@_documented("lstm", projection=_PROJECTION)
class LSTM(_Named[tuple[np.ndarray, np.ndarray]]):
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
        hidden_size: int | Sequence[int],
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        recurrent_dropout: float = 0.0,
        zoneout: float | tuple[float, ...] = 0.0,
        return_states: bool = False,
        heads: int = 1,
        layer_norm: bool = False,
        dtype: Any = np.float32,
        rng: Any = None,
        *,
        matmul_precision: str | None = None,
    ) -> None:
        super().__init__(
            LSTM_CELL, input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, proj_size,
            recurrent_dropout, zoneout, return_states, heads, layer_norm, dtype, rng, matmul_precision=matmul_precision,
        )  # fmt: skip


@_documented("gru")
class GRU(_Named[np.ndarray]):
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
        hidden_size: int | Sequence[int],
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        recurrent_dropout: float = 0.0,
        zoneout: float | tuple[float, ...] = 0.0,
        return_states: bool = False,
        heads: int = 1,
        layer_norm: bool = False,
        dtype: Any = np.float32,
        rng: Any = None,
        *,
        matmul_precision: str | None = None,
    ) -> None:
        super().__init__(
            GRU_CELL, input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, 0,
            recurrent_dropout, zoneout, return_states, heads, layer_norm, dtype, rng, matmul_precision=matmul_precision,
        )  # fmt: skip


_CLASSES: dict[Cell, Callable[..., Layer[Any]]] = {LSTM_CELL: LSTM, GRU_CELL: GRU} | {
    cell: partial(RNN, nonlinearity=nonlinearity) for nonlinearity, cell in RNN_CELLS.items()
}
Cell.make_layer = staticmethod(layer_of)
Cell.names_of_layers = frozenset(signature(Layer).parameters) | Layer._fixed | set(dir(Layer))
