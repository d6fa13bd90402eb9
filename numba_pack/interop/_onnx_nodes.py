"""The recurrent nodes of an ONNX model: each becomes a layer, and is run on padded or packed input.

They are ONNX's RNN, LSTM and GRU, and DynamicQuantizeLSTM, which ONNX Runtime's quantizer makes of an LSTM. Weights in
float16 or bfloat16 and quantized ones are taken as the float32 that they stand for, and computed with as such.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx.defs

from .._arguments import check_number, kind_of
from ..layers.forms import as_array
from ..packing.sequences import PackedSequence, pack_padded_sequence, pad_packed_sequence
from ._both_ways import BothWays
from ._onnx_cells import ACTIVATIONS, DEFAULTS, GATES, PLACES, Composition, cell_of, state_dict
from ._onnx_glue import Ragged, attributes_of

__all__ = ["RECURRENT", "RecurrentNode", "is_recurrent", "weight_names"]

_QUANTIZED = "DynamicQuantizeLSTM"
RECURRENT = (*GATES, _QUANTIZED)
#: the versions of the recurrent operators that there are, but for the first
_VERSIONS = (7, 14, 22)
#: where the inputs are
_STATES = {"initial_h": 5, "initial_c": 6}
_WEIGHTS = {"W": 1, "R": 2, "B": 3, "P": 7}
_SCALES = {"W_scale": 8, "W_zero_point": 9, "R_scale": 10, "R_zero_point": 11}
#: the number of directions
DIRECTIONS = {"forward": 1, "reverse": 1, "bidirectional": 2}
_NAMES = {name.lower(): name for name in ACTIVATIONS}


def is_recurrent(node: Any) -> bool:
    """Whether it is a node of one of these operators."""
    if node.op_type == _QUANTIZED:
        return bool(node.domain == "com.microsoft")
    return node.op_type in GATES and node.domain in ("", "ai.onnx")


def weight_names(node: Any) -> list[str]:
    """The names of the weights of a recurrent node, without those that are absent."""
    places = [*_WEIGHTS.values(), *_SCALES.values()] if node.op_type == _QUANTIZED else _WEIGHTS.values()
    return [node.input[place] for place in places if len(node.input) > place and node.input[place]]


class RecurrentNode:
    """A recurrent node, with what its attributes say."""

    def __init__(self, node: Any, opset: int) -> None:
        self.quantized = node.op_type == _QUANTIZED
        self.kind: str = "LSTM" if self.quantized else node.op_type
        if not self.quantized and _version(self.kind, opset) not in _VERSIONS:
            raise ValueError(f"opset must be 7 or later, with a known {self.kind}; got {opset}")
        self.inputs, self.outputs = list(node.input), list(node.output)
        self.attributes = attributes_of(node)
        self.direction: str = self.attributes.get("direction", "forward")
        self.layout: int = self.attributes.get("layout", 0)
        if self.direction not in DIRECTIONS:
            raise ValueError(f"direction must be forward, reverse or bidirectional; got {self.direction!r}")
        if self.layout not in (0, 1):
            raise ValueError(f"layout must be 0 or 1; got {self.layout}")
        self.num_directions = DIRECTIONS[self.direction]
        of_lstm = self.kind == "LSTM"
        #: the names of those weights that are not absent
        self.weights = self._names({key: place for key, place in _WEIGHTS.items() if of_lstm or key != "P"})
        if self.quantized:
            self.weights |= self._names(_SCALES)
        #: the names of those of initial_h and initial_c that are not absent
        self.states = self._names({key: place for key, place in _STATES.items() if of_lstm or key == "initial_h"})
        #: the name of sequence_lens; "" if it is absent
        self.lengths = self._names({"": 4}).get("", "")

    def _names(self, places: dict[str, int]) -> dict[str, str]:
        """The names of those inputs that are not absent."""
        found = {key: self.inputs[place] for key, place in places.items() if len(self.inputs) > place}
        return {key: name for key, name in found.items() if name}

    def hidden_size(self, R: tuple[int, ...]) -> int:
        """H, of the shape of R."""
        return R[1] if self.quantized and len(R) > 1 else R[-1]

    def layer(self, W: Any, R: Any, B: Any = None, P: Any = None, **scales: Any) -> Any:
        """The layer of these weights, of the cell that the attributes make; `BothWays`, if they make two."""
        if self.quantized:
            W, R = (_dequantized(key, value, scales) for key, value in (("W", W), ("R", R)))
        W, R, B, P = (_widened(value) for value in (W, R, B, P))
        weights = _checked_weights(self.kind, self.num_directions, W, R, B, P)
        I, H, said = weights["W"].shape[2], weights["R"].shape[2], self.attributes  # noqa: E741
        if said.get("hidden_size", H) != H:
            raise ValueError(f"hidden_size must be that of R, {H}; got {said['hidden_size']}")
        options = {"bias": B is not None, "batch_first": self.layout == 1, "dtype": weights["W"].dtype}
        cells = [(cell_of(of), numbers) for of, numbers in self._compositions(P is not None)]
        (cell, numbers), (other, its) = cells[0], cells[-1]
        layer: Any
        if (cell, numbers) == (other, its):
            layer = cell(
                I, H, bidirectional=self.num_directions == 2, reverse=self.direction == "reverse", **options, **numbers
            )
        else:
            layer = BothWays(cell(I, H, **options, **numbers), other(I, H, reverse=True, **options, **its))
        parameters: dict[str, np.ndarray] = {}
        for d, end in enumerate(("_l0", "_l0_reverse")[: self.num_directions]):
            own = {name: value[d] for name, value in weights.items()}
            found = state_dict(self.kind, cells[d][0], own["W"], own["R"], own.get("B"), own.get("P"))
            parameters |= {name + end: value for name, value in found.items()}
        layer.load_state_dict(parameters)
        return layer

    def _compositions(self, peepholes: bool) -> list[tuple[Composition, dict[str, float]]]:
        """Of each direction what chooses its cell, and the numbers that are the constants of that."""
        said, clip = self.attributes, self.attributes.get("clip")
        if clip is not None:
            check_number("clip", clip, above=0.0)
        chosen = as_activations(
            self.kind, self.num_directions, said.get("activations", []), said.get("activation_alpha", []),
            said.get("activation_beta", []),
        )  # fmt: skip
        found = []
        for names, numbers in chosen:
            of = Composition(
                self.kind,
                names,
                clip=clip is not None,
                peepholes=peepholes,
                input_forget=self.kind == "LSTM" and bool(said.get("input_forget", 0)),
                linear_before_reset=self.kind == "GRU" and bool(said.get("linear_before_reset", 0)),
            )
            found.append((of, numbers if clip is None else {**numbers, "clip": clip}))
        return found

    def run(self, layer: Any, X: Any, sequence_lens: Any, states: dict[str, Any]) -> tuple[Any, Any, Any]:
        """Y, Y_h and Y_c (None where there is none) of X, which is padded or a `Ragged`."""
        if X.ndim != 3:
            raise ValueError(f"X must have three dimensions; got shape {X.shape}")
        if _is_narrow(X.dtype) and layer.dtype == np.float32:
            wide = {name: _widened(state) for name, state in states.items()}
            found = self.run(layer, X.astype(np.float32), sequence_lens, wide)
            with np.errstate(all="ignore"):  # what is too large for 16 bits becomes inf
                return tuple(None if one is None else one.astype(X.dtype) for one in found)  # type: ignore[return-value]
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
        T, lengths = X.shape[self.layout], sequence_lens
        if lengths is None or (len(lengths) and lengths[0] and (lengths == lengths[0]).all()):
            # nothing to pack: all sequences have the first steps
            steps = T if lengths is None else int(lengths[0])
            output, state = layer(X if steps == T else X[:, :steps] if batch_first else X[:steps], hx)
            if steps < T:
                whole = np.zeros((*X.shape[:2], output.shape[2]), output.dtype)
                (whole[:, :steps] if batch_first else whole[:steps])[...] = output
                output = whole
        else:
            packed, state = layer(pack_padded_sequence(X, lengths, batch_first=batch_first), hx)
            output, _ = pad_packed_sequence(packed, batch_first=batch_first, total_length=T)
        if self.num_directions == 1:
            return output[:, :, None] if batch_first else output[:, None], state
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
        if (
            state.ndim != 3
            or (state.shape[1 if self.layout else 0], state.shape[2]) != (D, H)
            or _widened(state).dtype != dtype
        ):
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


def _version(kind: str, opset: int) -> int:
    """That of an operator, in this opset; 0 if there is none."""
    try:
        return int(onnx.defs.get_schema(kind, opset).since_version)
    except onnx.defs.SchemaError:
        return 0


def _is_narrow(dtype: np.dtype[Any]) -> bool:
    """Whether it is of floats of 16 bits."""
    return dtype.itemsize == 2 and (dtype == np.float16 or dtype.name == "bfloat16")


def _widened(value: Any) -> Any:
    """Floats of 16 bits as the float32 of the same values; others as they are."""
    return value.astype(np.float32) if isinstance(value, np.ndarray) and _is_narrow(value.dtype) else value


def _dequantized(name: str, value: Any, scales: dict[str, Any]) -> np.ndarray:
    """W or R of DynamicQuantizeLSTM, (D, I, 4 H) of 8 bits, as those of LSTM; its scales are for all or by column."""
    if not isinstance(value, np.ndarray) or value.ndim != 3 or value.dtype not in (np.int8, np.uint8):
        raise ValueError(f"{name} must have three dimensions and dtype int8 or uint8; got {_described(value)}")
    scale, zero = (scales.get(f"{name}_{what}") for what in ("scale", "zero_point"))
    D, _, columns = value.shape
    for what, part in ((f"{name}_scale", scale), (f"{name}_zero_point", zero)):
        if part is None or part.size not in (1, D, D * columns):
            raise ValueError(f"{what} must hold 1, D = {D}, or D * 4 * H numbers; got {_described(part)}")

    def spread(part: Any) -> np.ndarray:
        """As it is multiplied with W: of one number, of one for each direction, or for each column of these."""
        return part.astype(np.float32).reshape((D if part.size > 1 else 1, 1, -1))

    return np.ascontiguousarray(((value.astype(np.float32) - spread(zero)) * spread(scale)).swapaxes(1, 2))


def _described(value: Any) -> str:
    return f"{value.dtype} of shape {value.shape}" if isinstance(value, np.ndarray) else kind_of(value)


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


def as_activations(
    kind: str, num_directions: int, names: Sequence[str], alphas: Sequence[float], betas: Sequence[float]
) -> list[tuple[tuple[str, ...], dict[str, float]]]:
    """The activations of each direction by ONNX's names, and their alphas and betas as the cell names them.

    ``alphas`` and ``betas`` are for those that have an alpha or a beta, in their order; where they end before, the
    others have their defaults.
    """
    count = len(DEFAULTS[kind])
    names = list(names) or list(DEFAULTS[kind]) * num_directions
    if len(names) != count * num_directions:
        raise ValueError(f"activations must hold {count * num_directions} names; got {names}")
    unknown = [name for name in names if not isinstance(name, str) or name.lower() not in _NAMES]
    if unknown:
        raise ValueError(f"activations must be of {', '.join(ACTIVATIONS)}; got {unknown[0]!r}")
    names = [_NAMES[name.lower()] for name in names]
    left = {"alpha": iter(alphas), "beta": iter(betas)}
    found = []
    for first in range(0, len(names), count):
        own, numbers = tuple(names[first : first + count]), {}
        for place, name in zip(PLACES, own, strict=False):
            for label, default in ACTIVATIONS[name].defaults.items():
                value = next(left[label], default)
                if value is None:
                    raise ValueError(f"activation_{label} must hold a value for {name}, which has no default; got none")
                check_number(f"activation_{label}", value, above=-np.inf)
                numbers[f"{place}_{label}"] = float(value)
        found.append((own, numbers))
    for label, rest in left.items():
        extra = list(rest)
        if extra:
            raise ValueError(
                f"activation_{label} must hold no more values than {', '.join(names)} take; got {extra[0]} besides"
            )
    return found


def _checked_weights(kind: str, D: int, W: Any, R: Any, B: Any, P: Any) -> dict[str, np.ndarray]:
    """ONNX's weights by name, without those that are absent, in the machine's byte order."""
    for name, value in (("W", W), ("R", R)):
        if not isinstance(value, np.ndarray):
            raise TypeError(f"{name} must be a NumPy array; got {kind_of(value)}")
        if value.ndim != 3 or 0 in value.shape:
            raise ValueError(f"{name} must have three dimensions, none of them 0; got shape {value.shape}")
    if W.dtype not in (np.float32, np.float64):
        raise TypeError(f"W must have dtype float32 or float64, or float16 or bfloat16; got {W.dtype}")
    dtype, H, gates = W.dtype.newbyteorder("="), R.shape[2], len(GATES[kind])
    expected = {
        "W": (W, (D, gates * H, W.shape[2]), f"(D, {gates} * H, I)"),
        "R": (R, (D, gates * H, H), f"(D, {gates} * H, H)"),
        "B": (B, (D, 2 * gates * H), f"(D, {2 * gates} * H)"),
        "P": (P, (D, 3 * H), "(D, 3 * H)"),
    }
    weights = {}
    for name, (value, shape, letters) in expected.items():
        if value is not None:
            weights[name] = as_array(value, name, shape, dtype, letters)
            if not np.isfinite(weights[name]).all():
                raise ValueError(f"{name} must be finite; got {value[~np.isfinite(value)][0]}")
    return weights
