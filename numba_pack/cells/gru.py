"""The gated recurrent unit."""

from .cell import cell
from .functions import sigmoid, tanh

__all__ = ["GRU"]


@cell(sums="r z", of_input="n_x", of_state="n_h", state="h")
def GRU(r, z, n_x, n_h, h):
    """Gated recurrent unit, the reset gate after the product.

    ::

        r, z = sigmoid of W x + U h + b, each of its own
        n  = tanh(W_n x + b_n + r (U_n h + c_n))
        h' = (1 - z) n + z h

    The cell of `numba_pack.GRU`, as in PyTorch and cuDNN. The paper has the reset gate before the product:
    `GRUResetBefore`.

    References
    ----------
    K. Cho et al., "Learning phrase representations using RNN encoder-decoder for statistical machine translation",
    EMNLP (2014).

    Examples
    --------
    >>> import numpy as np
    >>> from numba_pack.cells import GRU
    >>> layer = GRU(3, 2, rng=0)
    >>> layer
    GRU(3, 2)
    >>> layer(np.ones((5, 3), np.float32))[0].shape
    (5, 2)
    """
    n = tanh(n_x + sigmoid(r) * n_h)
    return n + sigmoid(z) * (h - n)
