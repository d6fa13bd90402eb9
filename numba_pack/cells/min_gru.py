"""The minimal GRU: gates of the input alone."""

from .cell import cell
from .functions import sigmoid, where

__all__ = ["MinGRU", "MinGRUPositive"]


@cell(of_input="z n", state="h")
def MinGRU(z, n, h):
    """Minimal GRU: neither its gate nor its candidate sees the state.

    ::

        z  = sigmoid(W_z x + b_z)
        n  = W_n x + b_n
        h' = (1 - z) h + z n

    There is no product with the state. This is the form of the paper's main text; `MinGRUPositive` is the one that it
    trains.

    References
    ----------
    L. Feng, F. Tung, M. O. Ahmed, Y. Bengio, H. Hajimirsadeghi, "Were RNNs all we needed?", arXiv:2410.01201 (2024).

    Examples
    --------
    >>> import numpy as np
    >>> from numba_pack.cells import MinGRU
    >>> layer = MinGRU(3, 2, rng=0)
    >>> layer(np.ones((5, 3), np.float32))[0].shape
    (5, 2)
    """
    return h + sigmoid(z) * (n - h)


@cell(of_input="z n", state="h")
def MinGRUPositive(z, n, h):
    """Minimal GRU whose candidates are positive, as those of the paper's log-space form are.

    ::

        z  = sigmoid(W_z x + b_z)
        n  = g(W_n x + b_n),  g(a) = a + 0.5 where a >= 0, else sigmoid(a)
        h' = (1 - z) h + z n

    The package minGRU-pytorch computes this, with its rows in the order n, z and without biases. It and the paper take
    logarithms only to add up many steps at once; step by step there is no need of them.

    References
    ----------
    L. Feng, F. Tung, M. O. Ahmed, Y. Bengio, H. Hajimirsadeghi, "Were RNNs all we needed?", arXiv:2410.01201 (2024),
    appendix on the log-space version.

    Examples
    --------
    >>> import numpy as np
    >>> from numba_pack.cells import MinGRUPositive
    >>> layer = MinGRUPositive(3, 2, rng=0)
    >>> bool((layer(np.ones((5, 3), np.float32))[0] > 0).all())
    True
    """
    n = where(n >= 0.0, n + 0.5, sigmoid(n))
    return h + sigmoid(z) * (n - h)
