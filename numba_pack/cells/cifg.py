"""The LSTM with one gate for input and forgetting."""

from .cell import cell
from .functions import sigmoid, tanh

__all__ = ["CIFG"]


@cell(sums="i g o", state="h c")
def CIFG(i, g, o, h, c):
    """LSTM with coupled input and forget gates: what is let in replaces what was there.

    ::

        i, o = sigmoid of W x + U h + b, each of its own
        g  = tanh(W_g x + U_g h + b_g)
        c' = (1 - i) c + i g
        h' = o tanh(c')

    Without the peepholes of the paper. It is ONNX's LSTM with ``input_forget=1``, without the rows of f. TensorFlow's
    ``CoupledInputForgetGateLSTMCell`` has f and not i: its rows of f, and their bias, are those of i here with their
    signs changed.

    References
    ----------
    K. Greff, R. K. Srivastava, J. Koutník, B. R. Steunebrink, J. Schmidhuber, "LSTM: a search space odyssey",
    IEEE Transactions on Neural Networks and Learning Systems 28 (2017).

    Examples
    --------
    >>> import numpy as np
    >>> from numba_pack.cells import CIFG
    >>> layer = CIFG(3, 2, rng=0)
    >>> layer(np.ones((5, 3), np.float32))[0].shape
    (5, 2)
    """
    i, g, o = sigmoid(i), tanh(g), sigmoid(o)
    c = c + i * (g - c)
    return o * tanh(c), c
