"""Compiling ahead: so that the first request does not wait."""

from __future__ import annotations

import numpy as np

from ._arguments import kind_of
from ._checks import as_flag
from .composed import ComposedLayer
from .layers import GRU, LSTM, RNN, Layer
from .ragged import pack_ragged

__all__ = ["warmup"]


def warmup(*layers: Layer | ComposedLayer, training: bool = False) -> None:
    """Compile what these layers run, or load it from the cache, by running each on a few zeros, and on symbols.

    Compiled code is kept on disk (in ``NUMBA_CACHE_DIR``, or beside the package), so that it is compiled once, by the
    first process that needs it.

    Parameters
    ----------
    *layers : RNN, LSTM, GRU, or what the ``layers`` of an ONNX model hold
        What is compiled depends on the kind of layer and its dtype, not on its sizes. Without any: one of each kind,
        in float32.
    training : bool
        Whether `forward` and `backward` are wanted, too.

    Raises
    ------
    TypeError
        If something is no layer, or ``training`` no bool.

    Examples
    --------
    >>> import numba_pack as nbp
    >>> nbp.warmup(nbp.GRU(3, 2))
    """
    as_flag(training, "training")
    for layer in layers or (LSTM(1, 1), GRU(1, 1), RNN(1, 1)):
        if not isinstance(layer, (Layer, ComposedLayer)):
            raise TypeError(f"layers must be of RNN, LSTM and GRU; got {kind_of(layer, RNN, LSTM, GRU)}")
        inputs = [np.zeros((1, layer.input_size), layer.dtype)]
        if isinstance(layer, Layer):
            inputs.append(np.zeros(1, np.int64))
        for data in inputs:
            packed = pack_ragged(data, np.array([0, 1]))
            layer(packed)
            if training and isinstance(layer, Layer):
                output, _, tape = layer.forward(packed)
                layer.backward(tape, output)
