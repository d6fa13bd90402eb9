"""The gated recurrent unit, with the reset gate after the product."""

from .cell import cell
from .functions import sigmoid, tanh

__all__ = ["GRU"]


@cell(sums="r z", of_input="n_x", of_state="n_h", state="h")
def GRU(r, z, n_x, n_h, h):
    """Gated recurrent unit, with the reset gate after the product with the state.

    ::

        r, z = sigmoid of W x + U h + b, each of its own
        n  = tanh(W_n x + b_n + r (U_n h + c_n))
        h' = (1 - z) n + z h

    Parameters are laid out as in ``torch.nn.GRU``. Keras calls this ``reset_after=True`` and ONNX
    ``linear_before_reset=1``; both have the order z, r, h. `GRUResetBefore` is the form of the paper.

    References
    ----------
    K. Cho et al., "Learning phrase representations using RNN encoder-decoder for statistical machine translation",
    EMNLP (2014), with the reset gate moved as in cuDNN.

    Examples
    --------
    >>> import numpy as np
    >>> from numba_pack.cells import GRU
    >>> layer = GRU(3, 2, rng=0)
    >>> layer(np.ones((5, 3), np.float32))[0].shape
    (5, 2)
    """
    r, z = sigmoid(r), sigmoid(z)
    n = tanh(n_x + r * n_h)
    return n + z * (h - n)
