"""The light GRU."""

from .cell import cell
from .functions import relu, sigmoid

__all__ = ["LiGRU"]


@cell(sums="n z", state="h")
def LiGRU(n, z, h):
    """Light gated recurrent unit: no reset gate, and a relu in place of the tanh.

    ::

        n  = max(W_n x + U_n h + b_n, 0)
        z  = sigmoid(W_z x + U_z h + b_z)
        h' = (1 - z) n + z h

    The paper normalizes ``W_n x`` and ``W_z x`` over the batch and has no biases. That is left out here: of a trained
    model it is a factor of the rows of ``weight_ih`` and a term of ``bias_ih``; without it, a relu's state can grow
    without bound. SpeechBrain's ``LiGRU`` has the same order of rows, n before z, in its ``w`` and ``u``.

    References
    ----------
    M. Ravanelli, P. Brakel, M. Omologo, Y. Bengio, "Light gated recurrent units for speech recognition", IEEE
    Transactions on Emerging Topics in Computational Intelligence 2 (2018).

    Examples
    --------
    >>> import numpy as np
    >>> from numba_pack.cells import LiGRU
    >>> layer = LiGRU(3, 2, rng=0)
    >>> layer(np.ones((5, 3), np.float32))[0].shape
    (5, 2)
    """
    n, z = relu(n), sigmoid(z)
    return n + z * (h - n)
