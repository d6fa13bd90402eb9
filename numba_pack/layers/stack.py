"""Layers of different widths, each on the one below: what a layer is whose ``hidden_size`` is a list.

A state (L * D, B, H) cannot hold different widths, nor can the kernels' passes. So these are L layers, called one after
the other. What comes is read once, and rows go from layer to layer as they are. Whatever is drawn or dropped is what
one layer of equal widths draws and drops.
"""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from .._backend import backend
from ..batch import States
from ..cells.dropout import Calls, Dropout
from ..packing.checks import as_flag, as_size
from .engine import engine
from .forms import Form, form_of
from .layer import MOST_LAYERS, Layer, _as_rate
from .module import _described, _Holder, _parts, as_generator
from .quantized import SCALE, Integers
from .resets import Resets, cut
from .tape import Gradients, Tape, as_checkpoint, as_tape, record, replay_back

__all__ = ["Stack"]


class _Version:
    """One state of the parameters: the whole vector, and the layers whose own vectors are parts of it."""

    def __init__(self, parameters: np.ndarray, layers: Sequence[Layer[Any]]) -> None:
        parameters.flags.writeable = False
        self.parameters = parameters
        self.layers: list[Layer[Any]] = []
        at = 0
        for layer in layers:
            layer, size = copy.copy(layer), sum(map(math.prod, layer._shapes.values()))
            layer._set(parameters[at : at + size])
            self.layers.append(layer)
            at += size
        self._by_precision = {self.layers[0].matmul_precision: self.layers}

    def of(self, precision: str) -> list[Layer[Any]]:
        """The layers, computed in this precision."""
        if precision not in self._by_precision:
            self._by_precision[precision] = [layer.with_precision(precision) for layer in self.layers]
        return self._by_precision[precision]

    def __reduce__(self) -> tuple[Any, ...]:
        return _version_of, (self.parameters, [_bare(layer) for layer in self.layers])


def _bare(layer: Layer[Any]) -> Layer[Any]:
    """A copy that waits for its parameters."""
    layer = copy.copy(layer)
    vars(layer)["_holder"] = _Holder()
    return layer


def _version_of(pickled: np.ndarray, layers: list[Layer[Any]]) -> _Version:
    return _Version(pickled.copy(), layers)  # whose memory may be shared with another process


class _Integers(Integers):
    """The weights of a stack that is quantized, and the layers that each have a part of them."""

    def __init__(self, arrays: dict[str, np.ndarray], layers: Sequence[Layer[Any]]) -> None:
        super().__init__(arrays)
        self.layers = list(map(_bare, layers))
        for i, layer in enumerate(self.layers):
            vars(layer)["matmul_precision"] = "highest"
            names = {name + end: _name_in_stack(name, i) + end for name in layer._shapes for end in ("", SCALE)}
            layer._set_integers({own: arrays[name] for own, name in names.items() if name in arrays})

    def of(self, precision: str) -> list[Layer[Any]]:
        """The layers, which have no precision."""
        return self.layers

    def __reduce__(self) -> tuple[Any, ...]:
        return _integers_of, (self.arrays, [_bare(layer) for layer in self.layers])


def _integers_of(pickled: dict[str, np.ndarray], layers: list[Layer[Any]]) -> _Integers:
    return _Integers({name: array.copy() for name, array in pickled.items()}, layers)


def _name_in_stack(name: str, number: int) -> str:
    """What a parameter of the layer of that number is called."""
    own, _, reverse = name.rpartition("_l0")
    return f"{own}_l{number}{reverse}"


class _Saved(NamedTuple):
    """What a forward pass leaves for its backward pass."""

    #: of each layer
    layers: list[Any]
    #: between the layers
    dropout: Dropout

    @property
    def nbytes(self) -> int:
        """Bytes kept beyond input, output and states."""
        kept = sum(saved.nbytes for saved in self.layers) + sum(saved.batch.data.nbytes for saved in self.layers[1:])
        if self.dropout.rate:
            kept += sum(saved.out.nbytes for saved in self.layers[:-1] if isinstance(saved, engine.Saved))
        return int(kept)


class Stack(Layer[Any]):
    """Layers of one kind and of different widths: what `RNN`, `LSTM`, `GRU` and cells make of a list of widths.

    It has what a layer has: its call, `forward` and `backward`, all parameters as one flat vector, a state dict with
    PyTorch's names. But the state is a list of L states, one of each layer from the first on, each as that layer alone
    has it: h (D, B, H_l), or a tuple of such as (h, c). So are hx and the gradients of both; entries of what is passed
    may be None, for zeros. In compiled code each layer is run with its own ``weights``, those of `layers`.

    Examples
    --------
    >>> import numpy as np
    >>> import numba_pack as nbp
    >>> lstm = nbp.LSTM(12, [64, 32], bidirectional=True, rng=0)
    >>> lstm
    LSTM(12, [64, 32], bidirectional=True)
    >>> packed = nbp.pack_sequence([np.ones((n, 12), np.float32) for n in (7, 26, 0, 15)])
    >>> output, state = lstm(packed)
    >>> output.data.shape, [(h.shape, c.shape) for h, c in state]
    ((48, 64), [((2, 4, 64), (2, 4, 64)), ((2, 4, 32), (2, 4, 32))])
    >>> lstm.layers
    (LSTM(12, 64, bidirectional=True), LSTM(128, 32, bidirectional=True))
    """

    #: of each layer
    hidden_size: tuple[int, ...]  # type: ignore[assignment]

    def __init__(
        self,
        kind: Callable[..., Layer[Any]],
        input_size: int,
        hidden_size: Sequence[int],
        num_layers: int = 1,
        dropout: float = 0.0,
        return_states: bool = False,
        rng: Any = None,
        **options: Any,
    ) -> None:
        """The arguments are those of a layer; ``kind`` makes each of its own width."""
        count = len(hidden_size)
        if not 0 < count <= MOST_LAYERS:
            raise ValueError(f"hidden_size must be an int, or a list of 1 to {MOST_LAYERS}; got a list of {count}")
        if as_size(num_layers, "num_layers") not in (1, count):
            raise ValueError(
                f"num_layers must be left out, or be the number of widths in hidden_size, {count}; got {num_layers}"
            )
        as_flag(return_states, "return_states")
        if _as_rate(dropout, "dropout") > 0:
            if count == 1:
                warnings.warn(f"dropout is between layers, of which there is one: {dropout} does nothing", stacklevel=4)
            if backend == "cuda":
                raise ValueError(f"dropout must be 0 for a list of widths where the backend is cuda; got {dropout}")
        generator = as_generator(rng)
        layers: list[Layer[Any]] = []
        for i, width in enumerate(hidden_size):
            as_size(width, f"hidden_size[{i}]")
            before, top = generator.bit_generator.state, i == count - 1
            layer = kind(input_size, width, return_states=return_states and top, rng=generator, **options)
            layers.append(layer)
            # as if it had drawn its parameters alone: so layers of equal widths draw what one layer does
            generator.bit_generator.state = before
            generator.random(layer.parameters.size)
            input_size = layer.num_directions * layer.output_size
        first = layers[0]
        vars(self).update(
            {name: getattr(first, name) for name in first._fixed},
            _fixed=first._fixed,
            hidden_size=tuple(layer.hidden_size for layer in layers),
            output_size=layers[-1].output_size,
            num_layers=count,
            dropout=float(dropout),
            return_states=return_states,
            _holder=_Holder(),
        )
        self._put_together(layers)
        self._training_calls = Calls(int(generator.integers(2**32, dtype=np.uint32)), seeded=rng is not None)

    def _put_together(self, layers: Sequence[Layer[Any]]) -> None:
        """Note the layers, and their parameters as one vector."""
        self._shapes = {}
        for i, layer in enumerate(layers):
            self._shapes |= {_name_in_stack(name, i): shape for name, shape in layer._shapes.items()}
        self._holder.version = _Version(np.concatenate([layer.parameters for layer in layers]), layers)

    def _set(self, vector: np.ndarray) -> None:
        self._holder.version = _Version(vector, self._holder.version.layers)

    def _set_integers(self, arrays: dict[str, np.ndarray]) -> None:
        self._holder.version = _Integers(arrays, self._holder.version.layers)

    def _layers(self) -> list[Layer[Any]]:
        """Each layer, from the first on, in the precision of this stack, with the parameters as they are."""
        found: list[Layer[Any]] = self._holder.version.of(self.matmul_precision)
        return found

    def _for_inputs(self, input_size: int) -> Any:
        other = copy.copy(self)
        vars(other)["input_size"] = input_size
        first, *rest = self._layers()
        other._put_together([first._for_inputs(input_size), *rest])
        return other

    @property
    def layers(self) -> tuple[Layer[Any], ...]:
        """Each layer, from the first on, with the parameters as they are: copies, which stay what they are."""
        return tuple(map(copy.copy, self._layers()))

    @property
    def weights(self) -> Any:
        """There are none of all layers: compiled code runs one layer after the other."""
        raise AttributeError(
            "weights must be those of one layer: compiled code takes layer.layers[i].weights; got layers of widths "
            f"{list(self.hidden_size)}"
        )

    @property
    def nbytes(self) -> int:
        """Bytes of the weights of all layers."""
        return sum(layer.nbytes for layer in self._layers())

    @property
    def _called(self) -> str:
        return self._layers()[0]._called

    def _options(self) -> dict[str, Any]:
        own = {name: getattr(self, name) for name in ("num_layers", "dropout", "return_states")}
        return {**self._layers()[0]._options(), **own, "hidden_size": list(self.hidden_size)}

    def __repr__(self) -> str:
        shown = copy.copy(self._layers()[0])
        vars(shown).update(hidden_size=list(self.hidden_size), dropout=self.dropout, return_states=self.return_states)
        return repr(shown)

    def __call__(self, input: Any, hx: Any = None, resets: Resets = None) -> tuple[Any, Any]:
        """Run the layers: inference, without dropout, and nothing is kept.

        Parameters
        ----------
        input : PackedSequence or ndarray
            As for a layer.
        hx : list of L, optional
            The initial state of each layer, as it alone takes it; zeros for one that is None, or if omitted.
        resets : ndarray of bool, optional
            Where the states of all layers begin anew, as for a layer.

        Returns
        -------
        output
            Of the last layer, in the form of the input.
        state : list of L
            The last state of each layer.

        Raises
        ------
        TypeError, ValueError
            If an argument has the wrong kind, dtype or shape.
        """
        if resets is None:
            found = self._infer_quickly(input, hx)
            if found is not None:
                return found
            form = form_of(input, self.input_size, self.dtype, self.batch_first)
        else:
            form = cut(self, input, resets)
        layers = self._layers()
        firsts, _ = self._first_states_of(layers, form, hx)
        batch, state = form.batch, []
        for layer, first in zip(layers, firsts, strict=True):
            results = engine.infer(layer._packed(), batch, first, layer.return_states)
            state.append(layer._state_back(form, results.h_n, results.others_n))
            batch = batch._replace(data=results.out, symbols=False)
        return layers[-1]._output(form, results.out, results.shown), state

    def _infer_quickly(self, input: Any, hx: Any) -> Any:
        states = []
        firsts = _parts(hx) if hx is not None else (None,) * self.num_layers
        if len(firsts) != self.num_layers:
            return None
        for layer, first in zip(self._layers(), firsts, strict=True):
            found = layer._infer_quickly(input, first)
            if found is None:
                return None
            input, state = found
            states.append(state)
        return input, states

    def forward(
        self, input: Any, hx: Any = None, resets: Resets = None, checkpoint: int | None = None
    ) -> tuple[Any, Any, Tape[Any, Any]]:
        """Run the layers for training: with dropout, and with a tape for `backward`.

        Parameters
        ----------
        input, hx, resets
            As for a plain call.
        checkpoint : int, optional
            As for a layer; the outputs between layers are kept besides.

        Returns
        -------
        output, state
            As from a plain call; the output is read-only.
        tape : Tape
            What `backward` needs. With dropout it also holds what each layer but the first was given.

        Raises
        ------
        TypeError, ValueError
            If an argument has the wrong kind, dtype or shape.
        """
        self._refuse_integers("forward")
        checkpoint = as_checkpoint(checkpoint)
        if resets is None:
            form = form_of(input, self.input_size, self.dtype, self.batch_first)
        else:
            form = cut(self, input, resets)
        layers = self._layers()
        firsts, shared = self._first_states_of(layers, form, hx)
        rate = self.dropout if len(layers) > 1 else 0.0
        dropped = self._training_calls.next(rate, self.recurrent_dropout, self.cell.noises > 0)
        batch, state, saved = form.batch, [], []
        for i, layer in enumerate(layers):
            if i > 0 and rate > 0:
                below = batch.data
                batch = batch._replace(data=engine.drop(batch, dropped, i - 1, below, np.empty_like(below)))
            within = dropped._replace(rate=0.0, scan=i * self.num_directions)
            results, kept = record(layer._packed(), batch, firsts[i], within, layer.return_states, checkpoint)
            saved.append(kept)
            state.append(layer._state_back(form, results.h_n, results.others_n))
            batch = batch._replace(data=results.out, symbols=False)
        out = form.arrays.read_only(results.out)  # the tape holds it
        all_saved: Any = _Saved(saved, dropped)
        return layers[-1]._output(form, out, results.shown), state, Tape(self, form, all_saved, shared)

    def backward(
        self, tape: Tape[Any, Any], d_output: Any = None, d_state: Any = None, input_grad: bool = True
    ) -> Gradients[Any, Any]:
        """Differentiate a call of `forward`.

        Parameters
        ----------
        tape : Tape
            From that call. It is used up.
        d_output : like the output of `forward`, or its packed data, or None
            The gradient of the loss with respect to the output; None for zero.
        d_state : list of L, or None
            The gradient with respect to the last state of each layer; any of them may be None, and so may parts of one.
        input_grad : bool
            Whether the gradient of the input is wanted. Symbols have none.

        Returns
        -------
        Gradients
            Of the input, the initial states, as a list, and the parameters.

        Raises
        ------
        TypeError, ValueError
            If the tape is not one of this layer or was used before, or a gradient has the wrong kind, dtype or shape.
        """
        self._refuse_integers("backward")
        form = as_tape(tape, "third").of(self, "layer")  # arguments are checked before the tape is used up
        as_flag(input_grad, "input_grad")
        layers = self._layers()
        d_states = [
            layer._states(form, d, f"d_state[{i}]", parts_may_be_none=True)
            for i, (layer, d) in enumerate(zip(layers, self._each(d_state, "d_state"), strict=True))
        ]
        d_rows, d_shown = layers[-1]._d_output(form, d_output)
        form.check_again()  # last, since objects of the caller's may have run code of theirs
        input_grad = input_grad and not form.batch.symbols
        shared: Any = tape.shared
        saved: Any = tape.take()
        d_hx, d_parameters = [], []
        for i in reversed(range(len(layers))):
            found = replay_back(saved.layers[i], d_rows, d_states[i], i > 0 or input_grad, d_shown)
            d_rows, d_shown = found.data, None
            if i > 0 and saved.dropout.rate > 0:
                engine.drop(form.batch, saved.dropout, i - 1, d_rows, d_rows)
            d_hx.append(layers[i]._first_state_back(form, found.h_0, found.others_0, shared[i]))
            d_parameters.append(found.parameters)
        gradient = form.arrays.joined(d_parameters[::-1])
        return Gradients(form.back(d_rows) if input_grad else None, d_hx[::-1], gradient)

    def _each(self, value: Any, name: str) -> Sequence[Any]:
        """The entry of each layer in a list of states."""
        if value is None:
            return [None] * self.num_layers
        found = _parts(value)
        if len(found) != self.num_layers:
            raise TypeError(
                f"{name} must be a list of {self.num_layers} states, one of each layer, or None; got "
                f"{_described(value)}"
            )
        return found

    def _first_states_of(self, layers: Sequence[Layer[Any]], form: Form, hx: Any) -> tuple[list[States], Any]:
        """The first states of each layer, and for each whether they are shared: see `Module._first_states`."""
        found = [
            layer._first_states(form, first, f"hx[{i}]")
            for i, (layer, first) in enumerate(zip(layers, self._each(hx, "hx"), strict=True))
        ]
        return [states for states, _ in found], tuple(shared for _, shared in found)
