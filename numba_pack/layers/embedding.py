"""Embeddings: a table folded into the weights that its rows are multiplied by."""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np

from .._arguments import kind_of, quiet
from .layer import GRU, LSTM, RNN, Layer
from .module import as_floats
from .one_step import Step

__all__ = ["fold_embedding"]

AnyLayer = TypeVar("AnyLayer", bound="Layer[Any] | Step[Any]")


@quiet
def fold_embedding(layer: AnyLayer, table: Any) -> AnyLayer:
    """A layer that takes symbols in place of their embeddings.

    The first layer multiplies the embedding ``x_t = table[s_t]`` of symbol s_t by its input weights,

        W_ih x_t = (W_ih table^T)[:, s_t]

    and the product of weights and table can be made once. A layer that has this product as its input weights takes the
    symbols themselves: a look-up and a product become a look-up alone.

    Parameters
    ----------
    layer : RNN, LSTM, GRU, a layer of any cell, or an RNNCell, LSTMCell or GRUCell
        A layer that takes embeddings, of ``E = layer.input_size`` columns. It is not changed.
    table : array_like, shape (V, E)
        The embedding of each of V symbols: finite floats, such as the ``weight`` of a ``torch.nn.Embedding``.

    Returns
    -------
    as the layer
        A copy, as `copy.copy` makes it, whose ``input_size`` is V, and whose ``weight_ih_l0`` (and
        ``weight_ih_l0_reverse``; of one step ``weight_ih``) is ``weight_ih_l0 @ table.T``, of shape (G, V): computed in
        float64 and rounded to the dtype of the layer. Its class is that of the layer, even if derived from these.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong kind or shape, or the table is not finite.

    Notes
    -----
    The product has G * V numbers, for each direction, where table and weights have E * (V + G). That pays for
    inference, where it is made once. To train a table of many symbols look its rows up, which gives its gradient, too::

        output, h_n, tape = layer.forward(packed.map(lambda symbols: table[symbols]))
        gradients = layer.backward(tape, d_output)
        np.add.at(d_table, packed.data, gradients.input.data)

    Examples
    --------
    >>> import numpy as np
    >>> import numba_pack as nbp
    >>> table = np.random.default_rng(0).standard_normal((256, 8))  # of bytes
    >>> gru = nbp.GRU(8, 3, rng=0)
    >>> folded = nbp.fold_embedding(gru, table)
    >>> folded
    GRU(256, 3)
    >>> text = np.frombuffer(b"packed", np.uint8)
    >>> np.allclose(folded(text)[0], gru(table[text].astype(np.float32))[0], atol=1e-6)
    True

    One step of a decoder, for the last symbol of each of two sequences:

    >>> cell = nbp.fold_embedding(nbp.GRUCell(8, 3, rng=0), table)
    >>> cell(text[:2]).shape
    (2, 3)
    """
    if not isinstance(layer, (Layer, Step)):
        raise TypeError(
            "layer must be an RNN, LSTM, GRU, a layer of another cell, or one step of these; "
            f"got {kind_of(layer, RNN, LSTM, GRU, Layer)}"
        )
    layer._refuse_integers("fold_embedding")
    table = as_floats(table, "table")
    if table.ndim != 2 or table.shape[1] != layer.input_size or len(table) == 0:
        raise ValueError(f"table must have shape (V, input_size) = (V, {layer.input_size}); got {table.shape}")
    if not np.isfinite(table).all():
        raise ValueError(f"table must be finite; got {table[~np.isfinite(table)][0]}")
    folded = layer._for_inputs(len(table))
    parameters = dict(layer.state_dict())
    names = ("weight_ih",) if isinstance(layer, Step) else ("weight_ih_l0", "weight_ih_l0_reverse")
    for name in names[: layer.num_directions]:
        parameters[name] = parameters[name].astype(np.float64) @ table.T.astype(np.float64)
    folded.load_state_dict(parameters)
    return folded
