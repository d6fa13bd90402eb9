"""The RNN of leaky integrators, their time constant given or trained."""

from .cell import cell
from .functions import maximum, tanh

__all__ = ["LeakyRNN", "LeakyRNNTau"]


@cell(sums="a", state="h", constants="dt tau")
def LeakyRNN(a, h, *, dt=1.0, tau=5.0):
    """Leaky RNN: its units approach what a plain RNN's would become, by dt / tau in a step.

    ::

        h' = (1 - dt / tau) h + (dt / tau) tanh(W_a x + U_a h + b_a)

    It is Euler's step of length dt through ``tau dh/dt = -h + tanh(W_a x + U_a h + b_a)``: dt should not exceed tau.
    `LeakyRNNTau` trains tau, and `CTRNN` leaks before the tanh.

    With the leaking rate ``dt / tau`` this is the reservoir of an echo state network.

    References
    ----------
    H. Jaeger, M. Lukoševičius, D. Popovici, U. Siewert, "Optimization and applications of echo state networks with
    leaky-integrator neurons", Neural Networks 20 (2007).

    Examples
    --------
    >>> import numpy as np
    >>> from numba_pack.cells import LeakyRNN
    >>> layer = LeakyRNN(3, 2, rng=0, tau=10.0)
    >>> layer(np.ones((5, 3), np.float32))[0].shape
    (5, 2)
    """
    return h + (dt / tau) * (tanh(a) - h)


@cell(sums="a", state="h", unit_weights="tau", constants="dt")
def LeakyRNNTau(a, h, tau=5.0, *, dt=1.0):
    """Leaky RNN whose units each have a time constant of their own, which is trained.

    ::

        h' = (1 - k) h + k tanh(W_a x + U_a h + b_a),  k = dt / max(tau, dt)

    A tau below dt would step over the aim: it counts as dt, and has no gradient there.

    References
    ----------
    H. Jaeger, M. Lukoševičius, D. Popovici, U. Siewert, "Optimization and applications of echo state networks with
    leaky-integrator neurons", Neural Networks 20 (2007), where the leaking rate is trained by gradient descent.

    Examples
    --------
    >>> import numpy as np
    >>> from numba_pack.cells import LeakyRNNTau
    >>> layer = LeakyRNNTau(3, 2, rng=0)
    >>> layer.state_dict()["tau_l0"]
    array([5., 5.], dtype=float32)
    >>> layer(np.ones((5, 3), np.float32))[0].shape
    (5, 2)
    """
    return h + (dt / maximum(tau, dt)) * (tanh(a) - h)
