"""JANET, the LSTM that has kept its forget gate alone."""

from .cell import cell
from .functions import sigmoid, tanh

__all__ = ["JANET"]


@cell(sums="f g", state="h", constants="beta")
def JANET(f, g, h, *, beta=1.0):
    """Just another network: an LSTM that has only the forget gate.

    ::

        s  = W_f x + U_f h + b_f
        g  = tanh(W_g x + U_g h + b_g)
        h' = sigmoid(s) h + (1 - sigmoid(s - beta)) g

    With beta above 0 more is let in than is forgotten. The paper's initial biases of f (``log(uniform(1, T - 1))`` for
    sequences of up to T steps) make much of its success, and are the caller's to set.

    References
    ----------
    J. van der Westhuizen, J. Lasenby, "The unreasonable effectiveness of the forget gate", arXiv:1804.04849 (2018).

    Examples
    --------
    >>> import numpy as np
    >>> from numba_pack.cells import JANET
    >>> layer = JANET(3, 2, rng=0)
    >>> layer(np.ones((5, 3), np.float32))[0].shape
    (5, 2)
    """
    return sigmoid(f) * h + sigmoid(beta - f) * tanh(g)
