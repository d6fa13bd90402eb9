"""Two layers side by side, one in each direction: a bidirectional layer whose directions have cells of their own."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np

from .._arguments import kind_of
from ..layers.fixed import Fixed
from ..layers.forms import as_array
from ..layers.layer import Layer
from ..layers.tape import Gradients, Tape
from ..packing.sequences import PackedSequence

__all__ = ["BothWays"]


class BothWays(Fixed):
    """A forward and a reverse layer that read the same input: what an ONNX node is whose directions are unlike.

    It is called and trained as a bidirectional layer of one cell is. Outputs stand side by side, states one after the
    other, and parameters too, by the names that a bidirectional layer has for them. Compiled code runs each of
    ``layers`` by its own weights.

    Parameters
    ----------
    forward, reverse : Layer
        One layer of one direction each, the second with ``reverse=True``; alike in all that is not their cell or its
        constants, and in the number of states.

    Attributes
    ----------
    layers : tuple of Layer
        Both.

    Raises
    ------
    TypeError, ValueError
        If they are no such layers.

    Examples
    --------
    >>> import numpy as np
    >>> from numba_pack.cells import CIFG, LSTM
    >>> from numba_pack.interop.onnx import BothWays
    >>> layer = BothWays(LSTM(3, 2), CIFG(3, 2, reverse=True))
    >>> layer
    BothWays(LSTM(3, 2), CIFG(3, 2, reverse=True))
    >>> output, (h_n, c_n) = layer(np.ones((5, 4, 3), np.float32))
    >>> output.shape, c_n.shape
    ((5, 4, 4), (2, 4, 2))
    """

    _fixed = frozenset({
        "layers", "input_size", "hidden_size", "output_size", "num_layers", "num_directions", "bias", "batch_first",
        "dtype",
    })  # fmt: skip

    def __init__(self, forward: Layer[Any], reverse: Layer[Any]) -> None:
        for name, layer in (("forward", forward), ("reverse", reverse)):
            if not isinstance(layer, Layer):
                raise TypeError(f"{name} must be a layer; got {kind_of(layer, Layer)}")
            if (
                layer.num_layers * layer.num_directions > 1
                or layer.return_states
                or layer.reverse != (name == "reverse")
            ):
                raise ValueError(
                    f"{name} must be one layer of one direction, without return_states and "
                    f"{'with' if name == 'reverse' else 'without'} reverse=True; got {layer!r}"
                )
        for option in ("input_size", "hidden_size", "output_size", "bias", "batch_first", "dtype"):
            if getattr(forward, option) != getattr(reverse, option):
                raise ValueError(f"forward and reverse must have one {option}; got {forward!r} and {reverse!r}")
        if forward.cell.states != reverse.cell.states:
            raise ValueError(f"forward and reverse must have as many states; got {forward!r} and {reverse!r}")
        self.layers = (forward, reverse)
        self.num_layers, self.num_directions = 1, 2
        self.input_size, self.hidden_size = forward.input_size, forward.hidden_size
        self.output_size, self.bias = forward.output_size, forward.bias
        self.batch_first, self.dtype = forward.batch_first, forward.dtype

    def __call__(self, input: Any, hx: Any = None) -> tuple[Any, Any]:
        """Run both layers: inference. See `numba_pack.LSTM`."""
        outputs, states = zip(*self._each(lambda layer, part: layer(input, part), _halves(hx, "hx")), strict=True)
        return _side_by_side(*outputs), _stacked(*states)

    def forward(self, input: Any, hx: Any = None) -> tuple[Any, Any, tuple[Tape[Any, Any], ...]]:
        """Run both layers for training: output, state, and the tapes of both."""
        found = self._each(lambda layer, part: layer.forward(input, part), _halves(hx, "hx"))
        outputs, states, tapes = zip(*found, strict=True)
        return _side_by_side(*outputs), _stacked(*states), tapes

    def backward(
        self, tape: Any, d_output: Any = None, d_state: Any = None, input_grad: bool = True
    ) -> Gradients[Any, Any]:
        """Differentiate a call of `forward`; arguments and result as of a bidirectional layer."""
        if not isinstance(tape, tuple) or len(tape) != 2:
            raise TypeError(f"tape must be what forward returned third; got {kind_of(tape)}")
        parts = zip(tape, self._d_outputs(d_output), _halves(d_state, "d_state"), strict=True)
        one, other = self._each(lambda layer, part: layer.backward(*part, input_grad), parts)
        d_input = one.input
        if isinstance(d_input, PackedSequence):
            d_input = d_input._replace(data=d_input.data + other.input.data)
        elif d_input is not None:
            d_input = d_input + other.input
        parameters = np.concatenate([one.parameters, other.parameters])
        return Gradients(d_input, _stacked(one.hx, other.hx), parameters)

    def _each(self, call: Any, parts: Any) -> list[Any]:
        return [call(layer, part) for layer, part in zip(self.layers, parts, strict=True)]

    def _d_outputs(self, d_output: Any) -> tuple[Any, Any]:
        """The gradients of the outputs of both."""
        rows = d_output.data if isinstance(d_output, PackedSequence) else d_output
        if rows is None:
            return None, None
        if not isinstance(rows, np.ndarray):
            raise TypeError(f"d_output must be a NumPy array; got {kind_of(rows, np.ndarray)}")
        P = self.output_size
        if rows.ndim == 0 or rows.shape[-1] != 2 * P:
            raise ValueError(f"d_output must have 2 * H = {2 * P} columns; got shape {rows.shape}")
        halves = rows[..., :P], rows[..., P:]
        if isinstance(d_output, PackedSequence):
            return d_output._replace(data=halves[0]), d_output._replace(data=halves[1])
        return halves

    @property
    def parameters(self) -> np.ndarray:
        """All parameters as one flat vector, read-only: those of the forward layer, then of the reverse one."""
        vector = np.concatenate([layer.parameters for layer in self.layers])
        vector.flags.writeable = False
        return vector

    @parameters.setter
    def parameters(self, vector: Any) -> None:
        first, second = (layer.parameters.size for layer in self.layers)
        vector = as_array(vector, "parameters", (first + second,), self.dtype)
        if not np.isfinite(vector).all():
            raise ValueError(f"parameters must be finite; got {vector[~np.isfinite(vector)][0]}")
        for layer, part in zip(self.layers, np.split(vector, [first]), strict=True):
            layer.parameters = part

    def views(self, vector: np.ndarray) -> dict[str, np.ndarray]:
        """The parts of a vector laid out like `parameters`, by name."""
        first, second = (layer.parameters.size for layer in self.layers)
        if not isinstance(vector, np.ndarray) or vector.shape != (first + second,):
            raise ValueError(f"vector must be an array of shape {(first + second,)}; got {kind_of(vector)}")
        views = self._each(lambda layer, part: layer.views(part), (vector[:first], vector[first:]))
        return views[0] | {name + "_reverse": view for name, view in views[1].items()}

    def state_dict(self) -> dict[str, np.ndarray]:
        """The parameters by name: read-only views."""
        return self.views(self.parameters)

    def load_state_dict(self, state_dict: Mapping[str, Any], prefix: str = "") -> None:
        """Assign all parameters by name; prefix is what all these names begin with."""
        if not isinstance(state_dict, Mapping):
            raise TypeError(f"state_dict must be a mapping of names to arrays; got {kind_of(state_dict)}")
        parts: tuple[dict[str, Any], dict[str, Any]] = ({}, {})
        for name, value in state_dict.items():
            reverse = isinstance(name, str) and name.endswith("_reverse")
            parts[reverse][name.removesuffix("_reverse") if reverse else name] = value
        copies = [copy.copy(layer) for layer in self.layers]  # so that of two parts both are loaded, or none
        for one, part in zip(copies, parts, strict=True):
            one.load_state_dict(part, prefix)
        self.parameters = np.concatenate([one.parameters for one in copies])

    def __repr__(self) -> str:
        return f"BothWays({self.layers[0]!r}, {self.layers[1]!r})"


def _side_by_side(one: Any, other: Any) -> Any:
    """Outputs of both directions, in the form of each."""
    if isinstance(one, PackedSequence):
        return one._replace(data=np.concatenate([one.data, other.data], axis=-1))
    return np.concatenate([one, other], axis=-1)


def _stacked(one: Any, other: Any) -> Any:
    """States of both directions."""
    if isinstance(one, tuple):
        return tuple(np.concatenate(pair) for pair in zip(one, other, strict=True))
    return np.concatenate([one, other])


def _halves(state: Any, name: str) -> tuple[Any, Any]:
    """The state of each direction, of an array or a tuple of such."""
    if isinstance(state, (tuple, list)):
        pairs = [_halves(part, f"{name}[{i}]") for i, part in enumerate(state)]
        return tuple(pair[0] for pair in pairs), tuple(pair[1] for pair in pairs)
    if state is None:
        return None, None
    if not isinstance(state, np.ndarray):
        raise TypeError(f"{name} must be a NumPy array; got {kind_of(state, np.ndarray)}")
    if state.ndim < 2 or len(state) != 2:
        raise ValueError(f"{name} must have shape (2, B, H), of both directions; got {state.shape}")
    return state[:1], state[1:]
