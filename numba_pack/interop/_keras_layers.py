"""Layers of Keras read: what each computes, as ``_keras_arrays`` takes it. Keras itself is never imported here."""

from __future__ import annotations

import sys
from typing import Any, NamedTuple

import numpy as np

from .._arguments import kind_of
from ._keras_arrays import KERAS_ACTIVATIONS, KINDS, Level, Scan, scan_of

__all__ = ["Replacement", "Told", "cells_of", "keras_of", "levels_of", "variables_of"]

#: what a class of the caller's must have as Keras wrote it
_COMPUTING = ("__call__", "call", "inner_loop", "get_initial_state")


class Replacement:
    """What stands in place of a method of one layer of Keras and gives what that gives."""


class Told(NamedTuple):
    """What a cell computes, in the words of Keras; and what errors call it."""

    kind: str
    activation: str
    recurrent_activation: str
    reset_after: bool
    name: str


_LAYERS = "a SimpleRNN, LSTM, GRU, RNN or Bidirectional of Keras 3, or a list of these"


def keras_of(layers: list[Any], name: str = "layer", expected: str = _LAYERS) -> Any:
    """Keras, if the layers are its own: then it has been imported."""
    keras: Any = sys.modules.get("keras")
    version = str(getattr(keras, "__version__", ""))
    for one in layers:
        if keras is None or not isinstance(one, keras.layers.Layer):
            raise TypeError(f"{name} must be {expected}; got {kind_of(one)}")
        if version.partition(".")[0] in ("0", "1", "2"):
            raise TypeError(
                f"{name} must be one of Keras 3; got {kind_of(one)} of Keras {version}, whose weights from_arrays takes"
            )
    return keras


def levels_of(keras: Any, layer: Any, name: str) -> list[Level]:
    """What is in one layer of Keras, from the first of its cells on."""
    layers = keras.layers
    if not isinstance(layer, layers.Bidirectional):
        return [Level((scan,), bool(layer.go_backwards)) for scan in _scans(keras, layer, name)]
    _check_own(layer, layers.Bidirectional, name)
    if layer.forward_layer.go_backwards:
        raise ValueError(
            f"{name} must have a forward_layer without go_backwards, and a backward_layer with it; got the reverse"
        )
    directions = [
        _scans(keras, part, f"{name}.{which}")
        for which, part in (("forward_layer", layer.forward_layer), ("backward_layer", layer.backward_layer))
    ]
    if any(len(cells) > 1 for cells in directions):
        raise ValueError(
            f"{name} must have one cell in each direction: where there are more, layers here read both directions of "
            "the one before; got StackedRNNCells"
        )
    return [Level((directions[0][0], directions[1][0]), merge_mode=layer.merge_mode)]


def cells_of(keras: Any, layer: Any, name: str) -> list[tuple[Any, Told]]:
    """The cells of a layer of one direction, and what each computes."""
    layers = keras.layers
    own = next((kind for kind in (*_kinds(layers), layers.RNN) if isinstance(layer, kind)), None)
    if own is None:
        raise TypeError(f"{name} must be {_LAYERS}; got {kind_of(layer)}")
    _check_own(layer, own, name)
    if not isinstance(layer.cell, layers.StackedRNNCells):
        return [(layer.cell, _told(keras, layer.cell, name))]
    _check_own(layer.cell, layers.StackedRNNCells, f"{name}.cell")
    return [(cell, _told(keras, cell, f"{name}.cell.cells[{i}]")) for i, cell in enumerate(layer.cell.cells)]


def _scans(keras: Any, layer: Any, name: str) -> list[Scan]:
    """The cells of a layer of one direction, with their weights."""
    found = []
    for cell, told in cells_of(keras, layer, name):
        kernel, recurrent_kernel, bias = (
            None if value is None else _array(keras.ops.convert_to_numpy(value)) for value in variables_of(cell)
        )
        found.append(scan_of(told.kind, kernel, recurrent_kernel, bias, *told[1:4], f" of {told.name}"))
    return found


def _array(value: np.ndarray) -> np.ndarray:
    """The values of a variable, those of 16 bits in float32."""
    narrow = value.dtype.itemsize == 2 and value.dtype.name in ("float16", "bfloat16")
    return value.astype(np.float32) if narrow else value


def variables_of(cell: Any) -> tuple[Any, Any, Any]:
    """kernel, recurrent_kernel and bias, which may be None."""
    return cell.kernel, cell.recurrent_kernel, cell.bias


def _kinds(layers: Any) -> list[Any]:
    return [getattr(layers, kind) for kind in KINDS]


def _check_own(layer: Any, own: Any, name: str) -> None:
    """Refuse what the caller's class does in another way than Keras."""
    for method in _COMPUTING:
        another = method in vars(layer) and not isinstance(vars(layer)[method], Replacement)
        if another or getattr(type(layer), method, None) is not getattr(own, method, None):
            raise TypeError(
                f"{name} must compute what Keras's {own.__name__} does; got {kind_of(layer)}, with its own {method}"
            )


def _told(keras: Any, cell: Any, name: str) -> Told:
    """What a cell of Keras computes."""
    kind = next((kind for kind in KINDS if isinstance(cell, getattr(keras.layers, f"{kind}Cell"))), None)
    if kind is None:
        raise TypeError(f"{name} must be of SimpleRNNCell, LSTMCell or GRUCell; got {kind_of(cell)}")
    _check_own(cell, getattr(keras.layers, f"{kind}Cell"), name)
    if getattr(cell, "kernel", None) is None:
        raise ValueError(f"{name} must have its weights: call it once, or its build(input_shape); got one not built")
    return Told(
        kind,
        _activation(keras, cell, "activation", name),
        "sigmoid" if kind == "SimpleRNN" else _activation(keras, cell, "recurrent_activation", name),
        bool(getattr(cell, "reset_after", False)),
        name,
    )


def _activation(keras: Any, cell: Any, which: str, name: str) -> str:
    """The name of an activation, which must be a function of Keras."""
    function, known = getattr(cell, which), vars(keras.activations)
    for label in KERAS_ACTIVATIONS:
        if label in known and known[label] is function:
            return label
    listed = ", ".join(label for label in KERAS_ACTIVATIONS if label in known)
    shown = getattr(function, "__name__", None) or kind_of(function)
    raise ValueError(
        f"{which} of {name} must be one of Keras's {listed}; got {shown}, of which there is no cell here. For the "
        f"hard_sigmoid of Keras 2: from_arrays(..., {which}='hard_sigmoid_of_keras_2')"
    )
