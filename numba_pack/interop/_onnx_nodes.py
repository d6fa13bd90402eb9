"""The recurrent nodes of an ONNX model: each becomes a layer, and is run on padded or packed input."""

from __future__ import annotations

from typing import Any

import numpy as np

from .._arguments import kind_of
from ..layers.composed import DEFAULTS, DIRECTIONS, ComposedLayer, as_activations, as_weights
from ..layers.layer import GRU, LSTM, RNN
from ..packing.sequences import PackedSequence, pack_padded_sequence, pad_packed_sequence
from ._onnx_glue import Ragged, attributes_of

__all__ = ["FROM_PYTORCH", "RECURRENT", "RecurrentNode"]

#: PyTorch's number of each of ONNX's gates: LSTM i, o, f, c among i, f, g, o; GRU z, r, h among r, z, n
FROM_PYTORCH = {"RNN": [0], "LSTM": [0, 3, 1, 2], "GRU": [1, 0, 2]}
_LAYERS: dict[str, Any] = {"RNN": RNN, "LSTM": LSTM, "GRU": GRU}
RECURRENT = tuple(_LAYERS)


class RecurrentNode:
    """A node RNN, LSTM or GRU, with what its attributes say."""

    def __init__(self, node: Any) -> None:
        self.kind: str = node.op_type
        self.attributes = attributes_of(node)
        self.direction: str = self.attributes.get("direction", "forward")
        self.layout: int = self.attributes.get("layout", 0)
        if self.direction not in DIRECTIONS:
            raise ValueError(f"direction must be forward, reverse or bidirectional; got {self.direction!r}")
        if self.layout not in (0, 1):
            raise ValueError(f"layout must be 0 or 1; got {self.layout}")
        self.num_directions = DIRECTIONS[self.direction]

    def layer(self, W: Any, R: Any, B: Any = None, P: Any = None) -> Any:
        """The layer of these weights: an RNN, LSTM or GRU where one computes the same, else a `ComposedLayer`."""
        said, D = self.attributes, self.num_directions
        weights = as_weights(self.kind, D, W, R, B, P)
        H = weights["R"].shape[2]
        if said.get("hidden_size", H) != H:
            raise ValueError(f"hidden_size must be that of R, {H}; got {said['hidden_size']}")
        composition: dict[str, Any] = {
            "activations": said.get("activations", []),
            "activation_alpha": said.get("activation_alpha", []),
            "activation_beta": said.get("activation_beta", []),
        }
        nonlinearity = self._plain(P is not None, composition)
        if nonlinearity is None:
            return ComposedLayer(
                self.kind, W, R, B, P, direction=self.direction, **composition, clip=said.get("clip"),
                input_forget=bool(said.get("input_forget", 0)),
                linear_before_reset=bool(said.get("linear_before_reset", 0)), batch_first=self.layout == 1,
            )  # fmt: skip
        options = {"nonlinearity": nonlinearity.lower()} if self.kind == "RNN" else {}
        layer = _LAYERS[self.kind](
            weights["W"].shape[2], H, bias=B is not None, bidirectional=D == 2, batch_first=self.layout == 1,
            dtype=weights["W"].dtype, **options,
        )  # fmt: skip
        layer.load_state_dict(_state_dict(self.kind, weights, layer.bias))
        return layer

    def _plain(self, peepholes: bool, composition: dict[str, Any]) -> str | None:
        """The activation of the state where the cell is one of the plain ones, else None."""
        said = self.attributes
        found = as_activations(self.kind, self.num_directions, *composition.values())
        names = [activation.name for activation in found]
        known = [DEFAULTS[self.kind], ("Relu",)] if self.kind == "RNN" else [DEFAULTS[self.kind]]
        if (
            tuple(names) not in [one * self.num_directions for one in known]
            or self.direction == "reverse"
            or "clip" in said
            or peepholes
            or said.get("input_forget", 0)
            or (self.kind == "GRU" and not said.get("linear_before_reset", 0))
        ):
            return None
        return names[-1]

    def run(self, layer: Any, X: Any, sequence_lens: Any, states: dict[str, Any]) -> tuple[Any, Any, Any]:
        """Y, Y_h and Y_c (None where there is none) of X, which is padded or a `Ragged`."""
        if X.ndim != 3:
            raise ValueError(f"X must have three dimensions; got shape {X.shape}")
        B, T = X.shape[1 - self.layout], X.shape[self.layout]
        if sequence_lens is not None:
            _check_lengths(sequence_lens, B, T)
        hx = self._states(layer, B, states)
        run: Any = self._run_ragged if isinstance(X, Ragged) else self._run_padded
        Y, state = run(layer, X, sequence_lens, hx)
        h_n, c_n = state if self.kind == "LSTM" else (state, None)
        return Y, self._turned(h_n), None if c_n is None else self._turned(c_n)

    def _run_ragged(self, layer: Any, X: Ragged, sequence_lens: Any, hx: Any) -> tuple[Ragged, Any]:
        if X.time != self.layout:
            raise ValueError(f"time must be axis {self.layout} of X; it is axis {X.time}")
        if sequence_lens is not None and not np.array_equal(sequence_lens, X.packed.lengths):
            raise ValueError(f"sequence_lens must be those of the packed input; got {sequence_lens}")
        output, state = layer(X.packed, hx)
        rows = output.data.reshape(len(output.data), self.num_directions, layer.hidden_size)
        return Ragged(PackedSequence(rows, *output[1:]), self.layout, 0 if self.layout else 2), state

    def _run_padded(self, layer: Any, X: np.ndarray, sequence_lens: Any, hx: Any) -> tuple[np.ndarray, Any]:
        batch_first = self.layout == 1
        if sequence_lens is None:
            output, state = layer(X, hx)
        else:
            packed, state = layer(pack_padded_sequence(X, sequence_lens, batch_first=batch_first), hx)
            output, _ = pad_packed_sequence(packed, batch_first=batch_first, total_length=X.shape[self.layout])
        Y = output.reshape(*output.shape[:2], self.num_directions, layer.hidden_size)
        return (Y if batch_first else np.ascontiguousarray(Y.swapaxes(1, 2))), state

    def _turned(self, state: np.ndarray) -> np.ndarray:
        """A state (D, B, H) in the layout of the node, or the other way round."""
        return np.ascontiguousarray(state.swapaxes(0, 1)) if self.layout == 1 else state

    def shapes(self, X: tuple[int, ...], hidden_size: int) -> list[tuple[int, ...]]:
        """Those of Y, Y_h and Y_c for the shape of X."""
        D, H = self.num_directions, hidden_size
        if len(X) != 3:
            raise ValueError(f"X must have three dimensions; got shape {X}")
        T, B = (X[1], X[0]) if self.layout else X[:2]
        Y, state = ((B, T, D, H), (B, D, H)) if self.layout else ((T, D, B, H), (D, B, H))
        return [Y, state, state]

    def check_zero(self, name: str, state: Any, hidden_size: int, dtype: np.dtype[Any]) -> None:
        """Check an initial state that is zero, and may have been made for another batch than it is used for."""
        _check_array(name, state)
        D, H = self.num_directions, hidden_size
        if state.ndim != 3 or (state.shape[1 if self.layout else 0], state.shape[2]) != (D, H) or state.dtype != dtype:
            raise ValueError(_expected(name, f"({D}, B, {H})", dtype, state))

    def _states(self, layer: Any, B: int, states: dict[str, Any]) -> Any:
        """The initial state as the layer takes it."""
        if not states:
            return None
        shape = (self.num_directions, B, layer.hidden_size)
        parts = []
        for name in ("initial_h", "initial_c")[: 1 + (self.kind == "LSTM")]:
            state = states.get(name)
            if state is None:
                parts.append(np.zeros(shape, layer.dtype))
                continue
            _check_array(name, state)
            value = self._turned(state) if state.ndim == 3 else state
            if value.shape != shape or value.dtype != layer.dtype:
                raise ValueError(_expected(name, str(shape), layer.dtype, state))
            parts.append(value)
        return tuple(parts) if self.kind == "LSTM" else parts[0]


def _check_array(name: str, value: Any) -> None:
    if not isinstance(value, np.ndarray):
        what = "values for each step of packed input" if isinstance(value, Ragged) else kind_of(value)
        raise TypeError(f"{name} must be an array; got {what}")


def _expected(name: str, shape: str, dtype: np.dtype[Any], state: np.ndarray) -> str:
    return (
        f"{name} must have shape (D, B, H) = {shape}, with layout 1 (B, D, H), and dtype {dtype}; "
        f"got {state.shape} and {state.dtype}"
    )


def _check_lengths(sequence_lens: Any, B: int, T: int) -> None:
    _check_array("sequence_lens", sequence_lens)
    if sequence_lens.dtype.kind != "i" or sequence_lens.shape != (B,):
        raise ValueError(
            f"sequence_lens must be integers of shape (B,) = ({B},); "
            f"got dtype {sequence_lens.dtype} and shape {sequence_lens.shape}"
        )
    if B and not 0 <= sequence_lens.min() <= sequence_lens.max() <= T:
        raise ValueError(f"sequence_lens must be from 0 to {T}; got {sequence_lens}")


def _state_dict(kind: str, weights: dict[str, np.ndarray], bias: bool) -> dict[str, np.ndarray]:
    """ONNX's weights in PyTorch's names and order of gates."""
    order = np.argsort(FROM_PYTORCH[kind])

    def turned(value: np.ndarray) -> np.ndarray:
        gates = value.reshape(len(order), -1, *value.shape[1:])
        return gates[order].reshape(value.shape)

    found: dict[str, np.ndarray] = {}
    for end, W, R, B in zip(("_l0", "_l0_reverse"), weights["W"], weights["R"], weights["B"], strict=False):
        found |= {"weight_ih" + end: turned(W), "weight_hh" + end: turned(R)}
        if bias:
            of_input, of_state = np.split(B, 2)
            found |= {"bias_ih" + end: turned(of_input), "bias_hh" + end: turned(of_state)}
    return found
