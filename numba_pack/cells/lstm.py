"""Long short-term memory."""

from .cell import cell
from .functions import sigmoid, tanh

__all__ = ["LSTM"]


@cell(sums="i f g o", state="h c")
def LSTM(i, f, g, o, h, c):
    """Long short-term memory, with a forget gate: the cell of `numba_pack.LSTM`.

    ::

        i, f, o = sigmoid of W x + U h + b, each of its own
        g  = tanh(W_g x + U_g h + b_g)
        c' = f c + i g
        h' = o tanh(c')

    References
    ----------
    S. Hochreiter, J. Schmidhuber, "Long short-term memory", Neural Computation 9 (1997); F. A. Gers, J. Schmidhuber,
    F. Cummins, "Learning to forget: continual prediction with LSTM", Neural Computation 12 (2000).

    Examples
    --------
    >>> import numpy as np
    >>> from numba_pack.cells import LSTM
    >>> layer = LSTM(3, 2, rng=0)
    >>> layer
    LSTM(3, 2)
    >>> layer(np.ones((5, 3), np.float32))[0].shape
    (5, 2)
    """
    c = sigmoid(f) * c + sigmoid(i) * tanh(g)
    return sigmoid(o) * tanh(c), c
