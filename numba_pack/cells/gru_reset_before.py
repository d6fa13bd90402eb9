"""The gated recurrent unit as it was published: the reset gate before the product."""

from .cell import cell
from .functions import product, sigmoid, tanh

__all__ = ["GRUResetBefore"]


@cell(sums="r z", of_input="n_x", state="h")
def GRUResetBefore(r, z, n_x, h):
    """Gated recurrent unit whose reset gate acts on the state before the product.

    ::

        r, z = sigmoid of W x + U h + b, each of its own
        n  = tanh(W_n x + U_n (r h) + b_n)
        h' = (1 - z) n + z h

    A step waits for two products, one after the other, where `GRU` has one.

    The rows of both matrices are r, z, n, as in ``torch.nn.GRU``, which has no such cell. It is Keras's GRU with
    ``reset_after=False`` and ONNX's with ``linear_before_reset=0``: both have the order z, r, h. Keras's matrices are
    transposed, and its one bias is ``bias_ih``, beside a ``bias_hh`` of zeros.

    References
    ----------
    K. Cho et al., "Learning phrase representations using RNN encoder-decoder for statistical machine translation",
    EMNLP (2014).

    Examples
    --------
    >>> import numpy as np
    >>> from numba_pack.cells import GRUResetBefore
    >>> layer = GRUResetBefore(3, 2, rng=0)
    >>> layer(np.ones((5, 3), np.float32))[0].shape
    (5, 2)
    """
    r, z = sigmoid(r), sigmoid(z)
    n = tanh(n_x + product(r * h))
    return n + z * (h - n)
