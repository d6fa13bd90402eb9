"""Keras: layers from its SimpleRNN, LSTM and GRU, from its files, or from weights alone; its models run faster.

`from_keras` takes a layer of Keras 3, with any of its backends, or several as one stack. `load` takes all of a file,
and `from_arrays` takes weights as ``layer.get_weights()`` has them, of Keras 2 as well. `accelerate` lets the recurrent
layers of a model run here, in inference. Keras is never imported here.

What a layer gives here is its output at every step and its last state, whatever ``return_sequences`` and
``return_state`` say. Padded input is (B, T, I), as in Keras, and has no mask: sequences of different lengths are
packed, which equals Keras with a mask. Dropout does nothing in inference, in Keras as here, and is not taken over:
neither ``dropout`` nor ``recurrent_dropout``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .._arguments import kind_of
from ..packing.checks import as_flag
from ..packing.sequences import PackedSequence
from ._keras_accelerate import Accelerated, accelerate
from ._keras_arrays import KINDS, Level, as_activation, check_merged, layer_of, scan_of
from ._keras_files import load
from ._keras_layers import keras_of, levels_of

__all__ = ["Accelerated", "accelerate", "from_arrays", "from_keras", "load", "merge"]


def __dir__() -> list[str]:
    return [name for name in globals() if name.startswith("__")] + __all__


#: layers that do nothing in inference
_NOTHING = ("Dropout", "SpatialDropout1D", "GaussianDropout", "GaussianNoise")
_MERGE_MODES = ("concat", "sum", "mul", "ave", None)

for _public in (Accelerated, accelerate, load):
    _public.__module__ = __name__  # the name that people know them by


def from_keras(layer: Any, *, merged: bool = True, rng: Any = None) -> Any:
    """A layer with the options and the parameters of one of Keras, or of several, each on the one before.

    ::

        layer = nbp.interop.keras.from_keras(keras_layer)  # e.g. model.layers[1], or model.layers[1:4]
        output, state = layer(nbp.pack_sequence(sequences))

    Parameters
    ----------
    layer : SimpleRNN, LSTM, GRU, RNN or Bidirectional, or list of these
        Of Keras 3, built, in float32, float64, or a float of 16 bits. An `RNN` is one of ``SimpleRNNCell``,
        ``LSTMCell``, ``GRUCell``, or ``StackedRNNCells`` of one kind. In a list all have the same formula and the same
        directions, and dropout and noise between them are passed over.
    merged : bool
        With False a ``Bidirectional`` of any ``merge_mode`` is taken; its two directions then stand side by side in the
        output, and `merge` puts them together. With True ``merge_mode`` must be "concat", which needs no more. Of
        layers with another on it, "sum" and "ave" are taken anyway: they go into the weights of that.
    rng : None, int, or numpy.random.Generator
        As where a layer is made.

    Returns
    -------
    RNN, LSTM or GRU, or a layer of another cell
        With ``batch_first=True``. Its parameters are a copy. ``GRU(reset_after=False)`` gives a layer of
        `numba_pack.cells.GRUResetBefore`, other activations than the default ones give layers of cells that are made of
        them. Widths that differ give a stack, as ``nbp.LSTM(I, [64, 32])`` is one.

    Raises
    ------
    TypeError
        If the layer is none of these, is one of Keras 2, or computes something else: its ``call``, or that of its cell,
        is overridden.
    ValueError
        If it is not built, is not finite, or has something that no layer here has, which is named.

    Notes
    -----
    What Keras gives without ``return_sequences`` is h of the last state: ``h_n[-1]``, and of a ``Bidirectional`` both
    of ``h_n[-2:]`` side by side.

    ``go_backwards`` is the option ``reverse`` here, and the output is in the order of the input, where Keras has the
    last step first. In a list the layer after it reads it backwards, too, unless it has ``go_backwards`` itself; with
    a mask that differs from Keras, which hands the mask on in its old order.

    Of a ``stateful`` layer the state is not taken: pass the one that a call returns to the next call. ``unroll``
    changes no result. Weights of float32 are computed with in float32, also where the policy is a mixed one, and those
    of 16 bits become float32.
    """
    as_flag(merged, "merged")
    layers = list(layer) if isinstance(layer, (list, tuple)) else [layer]
    keras = keras_of(layers)
    levels: list[Level] = []
    reverse = False
    recurrent = [
        (f"layer[{i}]" if isinstance(layer, (list, tuple)) else "layer", one)
        for i, one in enumerate(layers)
        if not (len(layers) > 1 and type(one) in [getattr(keras.layers, name) for name in _NOTHING])
    ]
    for i, (name, one) in enumerate(recurrent):
        if i < len(recurrent) - 1 and not getattr(one, "return_sequences", True):
            raise ValueError(f"{name} must have return_sequences=True with another layer on it; got {one!r}")
        found = levels_of(keras, one, name)
        reverse ^= found[0].reverse
        levels += [level._replace(reverse=reverse) for level in found]
    if not levels:
        raise ValueError("layer must have a recurrent layer among its layers; got none")
    check_merged(levels[-1], merged, "layer")
    return layer_of(levels, rng)


def from_arrays(
    kind: str,
    kernel: np.ndarray,
    recurrent_kernel: np.ndarray,
    bias: np.ndarray | None = None,
    *,
    backward: Sequence[np.ndarray] | None = None,
    activation: str = "tanh",
    recurrent_activation: str = "sigmoid",
    reset_after: bool = True,
    go_backwards: bool = False,
    rng: Any = None,
) -> Any:
    """A layer from the weights of one of Keras, without Keras.

    Parameters
    ----------
    kind : {"SimpleRNN", "LSTM", "GRU"}
        Keras's name.
    kernel, recurrent_kernel : ndarray, shape (I, G) and (H, G), float32 or float64
        G is H, 4 H (gates i, f, c, o) or 3 H (gates z, r, h).
    bias : ndarray, shape (G,), or (2, G) of a GRU with reset_after, optional
        None for a layer with ``use_bias=False``.
    backward : sequence of ndarray, optional
        The same two or three arrays of the second direction, for a bidirectional layer.
    activation, recurrent_activation : str
        Keras 3's names: tanh, sigmoid, relu, linear, hard_sigmoid, elu, leaky_relu, softplus, softsign. Or
        "hard_sigmoid_of_keras_2", which is ``0.2 x + 0.5`` between 0 and 1; that of Keras 3 is ``x / 6 + 0.5``. A
        SimpleRNN has no recurrent_activation.
    reset_after : bool
        Whether the reset gate of a GRU multiplies the product with the state, or the state before it. The default is
        that of Keras 2 and 3.
    go_backwards : bool
        Whether a layer of one direction goes from the last step to the first. The output is in the order of the input
        nevertheless.
    rng : None, int, or numpy.random.Generator
        As where a layer is made.

    Returns
    -------
    RNN, LSTM or GRU, or a layer of another cell
        As from `from_keras`, in the dtype of the arrays.

    Raises
    ------
    TypeError, ValueError
        If an array has another shape than it must have, or is not finite, or there is no cell of an activation.

    Examples
    --------
    >>> import numpy as np
    >>> import numba_pack as nbp
    >>> rng = np.random.default_rng(0)
    >>> kernel, recurrent_kernel = rng.uniform(-1, 1, (3, 20)), rng.uniform(-1, 1, (5, 20))
    >>> lstm = nbp.interop.keras.from_arrays("LSTM", kernel, recurrent_kernel, np.zeros(20))
    >>> lstm
    LSTM(3, 5, batch_first=True, dtype=float64)
    >>> output, (h_n, c_n) = lstm(nbp.pack_sequence([np.ones((n, 3)) for n in (4, 2)]))
    >>> output.data.shape, h_n.shape
    ((6, 5), (1, 2, 5))

    With the gates of models from before Keras 2.3:

    >>> nbp.interop.keras.from_arrays(
    ...     "LSTM", kernel, recurrent_kernel, recurrent_activation="hard_sigmoid_of_keras_2"
    ... ).bias
    False
    """
    if not isinstance(kind, str) or kind not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(KINDS)}; got {kind!r}")
    as_activation(activation, "activation")
    as_activation(recurrent_activation, "recurrent_activation")
    as_flag(reset_after, "reset_after")
    as_flag(go_backwards, "go_backwards")
    said = activation, recurrent_activation, reset_after
    scans = [scan_of(kind, kernel, recurrent_kernel, bias, *said)]
    if backward is not None:
        if not isinstance(backward, (list, tuple)) or len(backward) not in (2, 3):
            got = f"{len(backward)} of them" if isinstance(backward, (list, tuple)) else kind_of(backward)
            raise TypeError(
                f"backward must be a list of kernel, recurrent_kernel and, if there is one, bias; got {got}"
            )
        if go_backwards:
            raise ValueError("go_backwards must be False with both directions; got True")
        its_bias = backward[2] if len(backward) == 3 else None
        scans.append(scan_of(kind, backward[0], backward[1], its_bias, *said, " of backward"))
    return layer_of([Level(tuple(scans), go_backwards)], rng)


def merge(output: Any, merge_mode: str | None) -> Any:
    """The output of a bidirectional layer as Keras's ``Bidirectional`` merges it.

    Parameters
    ----------
    output : PackedSequence or ndarray
        With 2 H columns, the forward direction first.
    merge_mode : {"concat", "sum", "mul", "ave", None}
        Keras's.

    Returns
    -------
    PackedSequence or ndarray
        In the form of the output: both directions side by side, their sum, product or mean, with H columns; for None a
        tuple of both.

    Raises
    ------
    TypeError, ValueError
        If the output is neither, its columns are no even number, or there is no such mode.

    Examples
    --------
    >>> import numpy as np
    >>> from numba_pack.interop.keras import merge
    >>> merge(np.array([[1.0, 2.0, 3.0, 4.0]]), "sum")
    array([[4., 6.]])
    """
    if merge_mode not in _MERGE_MODES:
        raise ValueError(f"merge_mode must be one of {', '.join(map(repr, _MERGE_MODES))}; got {merge_mode!r}")
    if isinstance(output, PackedSequence):
        rows = merge(output.data, merge_mode)
        if merge_mode is None:
            return tuple(output._replace(data=part) for part in rows)
        return output._replace(data=rows)
    if not isinstance(output, np.ndarray):
        raise TypeError(f"output must be a PackedSequence or a NumPy array; got {kind_of(output, PackedSequence)}")
    if output.ndim < 1 or output.shape[-1] % 2:
        raise ValueError(f"output must have an even number of columns, 2 * H; got shape {output.shape}")
    H = output.shape[-1] // 2
    one, other = output[..., :H], output[..., H:]
    if merge_mode == "concat":
        return output
    if merge_mode is None:
        return one.copy(), other.copy()
    if merge_mode == "mul":
        return one * other
    return one + other if merge_mode == "sum" else (one + other) / 2
