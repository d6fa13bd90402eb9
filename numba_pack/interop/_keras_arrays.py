"""Layers from weights as Keras lays them out; Keras itself is not needed.

Keras's equations are ONNX's with fewer options, and so its cells are those of ``_onnx_cells``. Its matrices are
transposed, and its gates are i, f, c, o (LSTM) and z, r, h (GRU).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from .._arguments import check_floats
from ._onnx_cells import ACTIVATIONS, PLACES, Composition, cell_of, state_dict

__all__ = ["KERAS_ACTIVATIONS", "KINDS", "Level", "Scan", "as_activation", "check_merged", "layer_of", "scan_of"]

#: by Keras's names the operator, and the gates of its columns in the order of ONNX's rows
KINDS = {"SimpleRNN": ("RNN", (0,)), "LSTM": ("LSTM", (0, 3, 1, 2)), "GRU": ("GRU", (0, 1, 2))}

#: by Keras's names ONNX's, with alpha and beta; as in Keras 3, but for that one which was changed from Keras 2 to 3
KERAS_ACTIVATIONS: dict[str, tuple[str, dict[str, float]]] = {
    "tanh": ("Tanh", {}),
    "sigmoid": ("Sigmoid", {}),
    "relu": ("Relu", {}),
    "linear": ("Affine", {"alpha": 1.0, "beta": 0.0}),
    "hard_sigmoid": ("HardSigmoid", {"alpha": 1 / 6, "beta": 0.5}),
    "hard_sigmoid_of_keras_2": ("HardSigmoid", {"alpha": 0.2, "beta": 0.5}),
    "elu": ("Elu", {"alpha": 1.0}),
    "leaky_relu": ("LeakyRelu", {"alpha": 0.2}),
    "softplus": ("Softplus", {}),
    "softsign": ("Softsign", {}),
}


class Scan(NamedTuple):
    """One direction of one layer."""

    #: the formula, and the numbers that are constants of its cell
    of: Composition
    numbers: dict[str, float]
    #: (G, I), (G, H), and (2 G,) or None; in the order of ONNX
    W: np.ndarray
    R: np.ndarray
    B: np.ndarray | None


class Level(NamedTuple):
    """One layer: its scans, of which a second one goes backwards."""

    scans: tuple[Scan, ...]
    #: whether the first scan goes backwards
    reverse: bool = False
    #: how two directions are put together for the next layer
    merge_mode: str | None = "concat"


def as_activation(value: Any, name: str) -> str:
    """The name of an activation that cells have."""
    if not isinstance(value, str) or value not in KERAS_ACTIVATIONS:
        raise ValueError(f"{name} must be one of {', '.join(KERAS_ACTIVATIONS)}; got {value!r}")
    return value


def scan_of(
    kind: str,
    kernel: Any,
    recurrent_kernel: Any,
    bias: Any,
    activation: str,
    recurrent_activation: str,
    reset_after: bool,
    of: str = "",
) -> Scan:
    """The arrays of Keras, checked and in the order of ONNX; ``of`` says in errors what they belong to."""
    operator, order = KINDS[kind]
    count = len(order)
    two_biases = kind == "GRU" and reset_after
    for name, value in (("kernel", kernel), ("recurrent_kernel", recurrent_kernel)):
        check_floats(name + of, value, 2)
    I, H = len(kernel), len(recurrent_kernel)  # noqa: E741
    letters = f"{count} * H" if count > 1 else "H"
    expected: list[tuple[str, np.ndarray, tuple[int, ...], str]] = [
        ("recurrent_kernel", recurrent_kernel, (H, count * H), f"(H, {letters})"),
        ("kernel", kernel, (I, count * H), f"(I, {letters})"),
    ]
    if bias is not None:
        shape: tuple[int, ...] = (2, count * H) if two_biases else (count * H,)
        told = f"(2, {letters})" if two_biases else f"({letters},)"
        check_floats("bias" + of, bias, bias.ndim if isinstance(bias, np.ndarray) else 1)
        if kind == "GRU" and bias.shape == ((3 * H,) if two_biases else (2, 3 * H)):
            raise ValueError(
                f"bias{of} must have shape {told} = {shape} with reset_after={reset_after}; got {bias.shape}, "
                f"which is that of reset_after={not reset_after}"
            )
        expected.append(("bias", bias, shape, told))
    for name, value, shape, told in expected:
        if value.shape != shape or not value.size:
            raise ValueError(f"{name}{of} must have shape {told} = {shape}, and no size 0; got {value.shape}")
        if value.dtype != kernel.dtype:
            raise TypeError(f"{name}{of} must have the dtype of the kernel, {kernel.dtype}; got {value.dtype}")
        if not np.isfinite(value).all():
            raise ValueError(f"{name}{of} must be finite; got {value[~np.isfinite(value)][0]}")

    def rows(value: np.ndarray) -> np.ndarray:
        blocks = np.split(value.T, count)
        return np.concatenate([blocks[gate] for gate in order])

    B = None
    if bias is not None:
        of_input, of_state = bias if two_biases else (bias, np.zeros_like(bias))
        B = np.concatenate([rows(of_input), rows(of_state)])
    chosen = {
        "SimpleRNN": (activation,),
        "LSTM": (recurrent_activation, activation, activation),
        "GRU": (recurrent_activation, activation),
    }
    found = [KERAS_ACTIVATIONS[name] for name in chosen[kind]]
    composition = Composition(operator, tuple(name for name, _ in found), linear_before_reset=two_biases)
    numbers = {
        f"{place}_{label}": values[label]
        for place, (name, values) in zip(PLACES, found, strict=False)
        for label in ACTIVATIONS[name].defaults
    }
    return Scan(composition, numbers, rows(kernel), rows(recurrent_kernel), B)


def check_merged(last: Level, merged: bool, name: str) -> None:
    """Refuse two directions whose output is not both side by side, unless the caller merges it."""
    if merged and len(last.scans) == 2 and last.merge_mode != "concat":
        raise ValueError(
            f"{name} must have merge_mode='concat'; got {last.merge_mode!r}, which no layer has here: merged=False "
            f"takes it with both directions side by side, and merge(output, {last.merge_mode!r}) puts them together"
        )


def layer_of(levels: Sequence[Level], rng: Any) -> Any:
    """The layer, or the stack of layers, of all levels."""
    first = levels[0]
    one = first.scans[0]
    inputs = one.W.shape[1]
    parameters: dict[str, np.ndarray] = {}
    bias = any(scan.B is not None for level in levels for scan in level.scans)
    before: Level | None = None
    for k, level in enumerate(levels):
        _check_alike(level, first, k)
        for scan, end in zip(level.scans, ("", "_reverse"), strict=False):
            W, R, B = _reading(scan.W, before, k), scan.R, scan.B
            if B is None and bias:
                B = np.zeros(2 * len(R), R.dtype)
            found = state_dict(scan.of.operator, cell_of(scan.of), W, R, B, None)
            parameters |= {f"{name}_l{k}{end}": value for name, value in found.items()}
        before = level
    widths = [level.scans[0].R.shape[1] for level in levels]
    alike = len(set(widths)) == 1
    layer: Any = cell_of(one.of)(
        inputs,
        widths[0] if alike else widths,
        num_layers=len(levels),
        bias=bias,
        batch_first=True,
        bidirectional=len(first.scans) == 2,
        reverse=first.reverse,
        dtype=one.W.dtype,
        rng=rng,
        **one.numbers,
    )
    layer.load_state_dict(parameters)
    return layer


def _check_alike(level: Level, first: Level, k: int) -> None:
    """Check that a layer's directions go together, and that it can be in one stack with the first layer."""
    one, last = level.scans[0], level.scans[-1]
    told = "backward", "the forward direction", "each direction can be taken alone"
    for what, here, there in (
        *_shared(last, one),
        ("units", last.R.shape[1], one.R.shape[1]),
        ("input size", last.W.shape[1], one.W.shape[1]),
    ):
        _check_equal(what, here, there, *told)
    told = f"layer[{k}]", "the first layer", "each layer can be taken alone"
    for what, here, there in (
        *_shared(one, first.scans[0]),
        ("number of directions", len(level.scans), len(first.scans)),
        ("direction in time", *("backward" if of.reverse else "forward" for of in (level, first))),
    ):
        _check_equal(what, here, there, *told)


def _shared(one: Scan, other: Scan) -> list[tuple[str, Any, Any]]:
    return [("formula", _told(one), _told(other)), ("dtype", one.W.dtype, other.W.dtype)]


def _check_equal(what: str, here: Any, there: Any, name: str, other: str, way: str) -> None:
    if here != there:
        raise ValueError(f"{name} must have the {what} of {other}, {there}; got {here}: {way}")


def _told(scan: Scan) -> str:
    numbers = ", ".join(f"{name}={value:g}" for name, value in scan.numbers.items())
    return str(scan.of).removesuffix("[]") + f"({numbers})" * bool(numbers)


def _reading(W: np.ndarray, before: Level | None, k: int) -> np.ndarray:
    """The weights of a layer for the output of the one before, both of whose directions stand side by side here."""
    if before is None:
        return W
    H, D = before.scans[0].R.shape[1], len(before.scans)
    merged = D == 2 and before.merge_mode != "concat"
    if merged and before.merge_mode not in ("sum", "ave"):
        raise ValueError(
            f"layer[{k - 1}] must have merge_mode 'concat', 'sum' or 'ave' with another layer on it; got "
            f"{before.merge_mode!r}"
        )
    size = H if merged else D * H
    if W.shape[1] != size:
        raise ValueError(f"layer[{k}] must have the input size {size}, the output of the one before; got {W.shape[1]}")
    if not merged:
        return W
    half = W if before.merge_mode == "sum" else W / 2  # the sum is in the product: W (x + y) = W x + W y
    return np.concatenate([half, half], axis=1)
