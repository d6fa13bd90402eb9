"""The simple recurrent net, with either function."""

from .cell import cell
from .functions import relu, tanh

__all__ = ["RNNRelu", "RNNTanh"]


@cell(sums="a", state="h")
def RNNTanh(a, h):
    """Simple recurrent net: the cell of ``numba_pack.RNN``.

    ::

        h' = tanh(W x + U h + b)

    References
    ----------
    J. L. Elman, "Finding structure in time", Cognitive Science 14 (1990).

    Examples
    --------
    >>> import numpy as np
    >>> from numba_pack.cells import RNNTanh
    >>> layer = RNNTanh(3, 2, rng=0)
    >>> layer(np.ones((5, 3), np.float32))[0].shape
    (5, 2)
    """
    return tanh(a)


@cell(sums="a", state="h")
def RNNRelu(a, h):
    """Simple recurrent net of rectified linear units: the cell of ``numba_pack.RNN(..., nonlinearity="relu")``.

    ::

        h' = max(W x + U h + b, 0)

    References
    ----------
    Q. V. Le, N. Jaitly, G. E. Hinton, "A simple way to initialize recurrent networks of rectified linear units",
    arXiv:1504.00941 (2015).

    Examples
    --------
    >>> import numpy as np
    >>> from numba_pack.cells import RNNRelu
    >>> layer = RNNRelu(3, 2, rng=0)
    >>> bool((layer(np.ones((5, 3), np.float32))[0] >= 0).all())
    True
    """
    return relu(a)
