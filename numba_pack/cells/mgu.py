"""The minimal gated unit."""

from .cell import cell
from .functions import product, sigmoid, tanh

__all__ = ["MGU"]


@cell(sums="f", of_input="n_x", state="h")
def MGU(f, n_x, h):
    """Minimal gated unit: one gate, which both resets and updates.

    ::

        f  = sigmoid(W_f x + U_f h + b_f)
        n  = tanh(W_n x + U_n (f h) + b_n)
        h' = (1 - f) h + f n

    The rows of both matrices are f, n. It is `GRUResetBefore` with r = f and z = 1 - f.

    References
    ----------
    G.-B. Zhou, J. Wu, C.-L. Zhang, Z.-H. Zhou, "Minimal gated unit for recurrent neural networks", International
    Journal of Automation and Computing 13 (2016).

    Examples
    --------
    >>> import numpy as np
    >>> from numba_pack.cells import MGU
    >>> layer = MGU(3, 2, rng=0)
    >>> layer(np.ones((5, 3), np.float32))[0].shape
    (5, 2)
    """
    f = sigmoid(f)
    n = tanh(n_x + product(f * h))
    return h + f * (n - h)
