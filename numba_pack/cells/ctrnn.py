"""The continuous-time RNN."""

from .cell import cell
from .functions import tanh

__all__ = ["CTRNN"]


@cell(sums="a", state="h s", constants="dt tau")
def CTRNN(a, h, s, *, dt=1.0, tau=5.0):
    """Continuous-time RNN: its potentials s leak, and its output is their tanh.

    ::

        s' = (1 - dt / tau) s + (dt / tau) (W_a x + U_a h + b_a)
        h' = tanh(s')

    It is Euler's step of length dt through ``tau ds/dt = -s + W_a x + U_a tanh(s) + b_a``: dt should not exceed tau.
    An initial state is ``(h, s)`` with h = tanh(s), as zeros are. `LeakyRNN` leaks behind the tanh instead.

    References
    ----------
    K. Funahashi, Y. Nakamura, "Approximation of dynamical systems by continuous time recurrent neural networks",
    Neural Networks 6 (1993).

    Examples
    --------
    >>> import numpy as np
    >>> from numba_pack.cells import CTRNN
    >>> layer = CTRNN(3, 2, rng=0, dt=0.5)
    >>> layer(np.ones((5, 3), np.float32))[0].shape
    (5, 2)
    """
    s = s + (dt / tau) * (a - s)
    return tanh(s), s
