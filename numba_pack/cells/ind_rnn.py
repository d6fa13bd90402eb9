"""The RNN whose units see only themselves."""

from .cell import cell
from .functions import relu

__all__ = ["IndRNN"]


@cell(of_input="a", state="h", unit_weights="u")
def IndRNN(a, h, u):
    """Independently recurrent neural network: each unit has one weight for its own state.

    ::

        h' = max(W_a x + b_a + u h, 0)

    There is no matrix of the state. The weights u begin as all others do; the paper draws them from (0, 1), and near 1
    where a layer is to remember long. haste's ``IndRNN`` has a tanh in place of the relu; its ``recurrent_scale`` is u
    and its ``kernel`` the transposed ``weight_ih``.

    References
    ----------
    S. Li, W. Li, C. Cook, C. Zhu, Y. Gao, "Independently recurrent neural network (IndRNN): building a longer and
    deeper RNN", CVPR (2018).

    Examples
    --------
    >>> import numpy as np
    >>> from numba_pack.cells import IndRNN
    >>> layer = IndRNN(3, 2, rng=0)
    >>> layer(np.ones((5, 3), np.float32))[0].shape
    (5, 2)
    """
    return relu(a + u * h)
