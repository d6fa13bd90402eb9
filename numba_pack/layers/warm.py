"""Compiling ahead: so that the first request does not wait."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np

from .._arguments import kind_of
from .._backend import backend
from ..cells.dropout import Calls
from ..cpu import threads
from ..cpu.kernels import cuts_of
from ..cpu.team import warm_calls
from ..packing.checks import as_flag
from ..packing.ragged import pack_ragged
from ..packing.sequences import pack_sequence, unpack_sequence
from .layer import GRU, LSTM, RNN, Layer
from .stack import Stack
from .stepper import Stepper

__all__ = ["warmup"]


def warmup(*layers: Layer[Any], training: bool = False) -> None:
    """Compile what these layers run, or load it from the cache, by running each on a few zeros, and on symbols.

    And what packs lists of sequences, and gives them back.

    Compiled code is kept on disk, in ``NUMBA_CACHE_DIR`` if that is set, else beside the package, or else in the user's
    cache folder, so that it is compiled once, by the first process that needs it. It is looked for in all of them: a
    folder that was filled before may be read-only. Where it can be kept nowhere, a warning says so. ``python -m
    numba_pack compile`` does this where an image or a wheel is built: see its ``--help``.

    Parameters
    ----------
    *layers : RNN, LSTM, GRU, layers of any cell, or a Model, Linear or Embedding
        What is compiled depends on the cell of a layer, its dtype and its precision, and beyond that not on its sizes.
        If no layer is given, an LSTM, a GRU and an RNN are compiled, in float32.
    training : bool
        Whether `forward` and `backward` are wanted, too.

    Raises
    ------
    TypeError
        If something is not a layer, or ``training`` is not a bool.

    Examples
    --------
    >>> import numba_pack as nbp
    >>> nbp.warmup(nbp.GRU(3, 2))
    """
    as_flag(training, "training")
    if backend == "cpu":  # also what is called where there are more CPUs than here
        threads.warm()
        warm_calls()
        cuts_of(np.ones(1, np.int64), 1, 1)
    given = layers or (LSTM(1, 1), GRU(1, 1), RNN(1, 1))
    for other in (one for one in given if hasattr(one, "_warm")):
        other._warm(training)
    parts = [part for one in given if not hasattr(one, "_warm") for part in _parts(one)]
    for layer in parts:
        layer._foresee(training)
    for layer in parts:
        kind: Any = Stack if isinstance(layer, Stack) else Layer  # and not its class, which may have other arguments
        packed = pack_sequence([np.zeros((1, layer.input_size), layer.dtype)])
        unpack_sequence(packed)
        layer = copy.copy(layer)  # which has the same weights
        layer._training_calls = Calls(0, seeded=True)  # so that the layer drops what it would have dropped without this
        for input in (packed, pack_ragged(np.zeros(1, np.int64), np.array([0, 1]))):
            kind.__call__(layer, input)
            if training:
                output, _, tape = kind.forward(layer, input)
                kind.backward(layer, tape, output)
        for rows in (packed.data, packed.data[None]):  # few rows go a way of their own
            kind.__call__(layer, rows)
        if backend == "cpu" and not layer.bidirectional and not layer.reverse:
            Stepper(layer)(packed.data)


def _parts(layer: Any) -> tuple[Layer[Any], ...]:
    """The layer itself, or the two of an ONNX node whose directions are unlike."""
    parts = (layer,) if isinstance(layer, Layer) else getattr(layer, "layers", None)
    if not isinstance(parts, tuple) or not all(isinstance(part, Layer) for part in parts):
        raise TypeError(
            "layers must be of RNN, LSTM, GRU or another cell, or a Model of such; got "
            f"{kind_of(layer, RNN, LSTM, GRU, Layer)}"
        )
    return parts
