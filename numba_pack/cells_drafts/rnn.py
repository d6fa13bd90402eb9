"""The plain RNN, with tanh and with relu."""

from .cell import cell
from .functions import relu, tanh

__all__ = ["RNNRelu", "RNNTanh"]


@cell(sums="a", state="h")
def RNNTanh(a, h):
    """Elman's recurrent net: the next state is the tanh of one sum.

    ::

        h' = tanh(W_a x + U_a h + b_a)

    Parameters are laid out as in ``torch.nn.RNN``.

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
    """A plain RNN of rectified units.

    ::

        h' = max(W_a x + U_a h + b_a, 0)

    Parameters are laid out as in ``torch.nn.RNN`` with ``nonlinearity="relu"``.

    References
    ----------
    Q. V. Le, N. Jaitly, G. E. Hinton, "A simple way to initialize recurrent networks of rectified linear units",
    arXiv:1504.00941 (2015); there, U_a begins as the identity.

    Examples
    --------
    >>> import numpy as np
    >>> from numba_pack.cells import RNNRelu
    >>> layer = RNNRelu(3, 2, rng=0)
    >>> layer(np.ones((5, 3), np.float32))[0].shape
    (5, 2)
    """
    return relu(a)
