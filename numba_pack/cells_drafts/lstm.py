"""Long short-term memory."""

from .cell import cell
from .functions import sigmoid, tanh

__all__ = ["LSTM"]


@cell(sums="i f g o", state="h c")
def LSTM(i, f, g, o, h, c):
    """Long short-term memory with a forget gate.

    ::

        i, f, o = sigmoid of W x + U h + b, each of its own
        g  = tanh(W_g x + U_g h + b_g)
        c' = f c + i g
        h' = o tanh(c')

    Parameters are laid out as in ``torch.nn.LSTM``. Keras has the same order of gates (i, f, c, o), its matrices
    transposed and one bias; ONNX has i, o, f, c.

    References
    ----------
    S. Hochreiter, J. Schmidhuber, "Long short-term memory", Neural Computation 9 (1997); the forget gate is of
    F. A. Gers, J. Schmidhuber, F. Cummins, "Learning to forget", Neural Computation 12 (2000).

    Examples
    --------
    >>> import numpy as np
    >>> from numba_pack.cells import LSTM
    >>> layer = LSTM(3, 2, rng=0)
    >>> layer(np.ones((5, 3), np.float32))[0].shape
    (5, 2)
    """
    i, f, g, o = sigmoid(i), sigmoid(f), tanh(g), sigmoid(o)
    c = f * c + i * g
    return o * tanh(c), c
