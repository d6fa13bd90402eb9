"""The real-gated linear recurrent unit of Griffin."""

from .cell import cell
from .functions import exp, maximum, sigmoid, softplus, sqrt

__all__ = ["RGLRU"]


@cell(of_input="r i x", state="h", unit_weights="Lambda", constants="c")
def RGLRU(r, i, x, h, Lambda=-5.0, *, c=8.0):
    """Real-gated linear recurrent unit: a decay and an input gate, both of the input alone.

    ::

        r  = sigmoid(W_r x + b_r)
        i  = sigmoid(W_i x + b_i)
        a  = exp(-c softplus(Lambda) r)
        h' = a h + sqrt(1 - a^2) i (W_x x + b_x)

    There is no product with the state. The paper gates the input x itself, which has as many numbers as the state: that
    is the identity in the last H rows of ``weight_ih`` and zeros in their bias, with gradients that the caller leaves
    alone. Its block-diagonal W_r and W_i stand in the rows before, zeros around them. Its Lambda is drawn such that
    the decay a of an open gate is uniform between 0.9 and 0.999; the default here makes it 0.948.

    The package recurrentgemma calls r ``a_gate``, i ``input_gate`` and Lambda ``a_param``. In the first step of a
    sequence it leaves out sqrt(1 - a^2), as the paper's equations do not.

    References
    ----------
    S. De, S. L. Smith, A. Fernando, A. Botev, et al., "Griffin: mixing gated linear recurrences with local attention
    for efficient language models", arXiv:2402.19427 (2024).

    Examples
    --------
    >>> import numpy as np
    >>> from numba_pack.cells import RGLRU
    >>> layer = RGLRU(3, 2, rng=0)
    >>> layer(np.ones((5, 3), np.float32))[0].shape
    (5, 2)
    """
    a = exp(-c * softplus(Lambda) * sigmoid(r))
    # Where a rounds to 1 the root has no slope, and 1e-7 is what rounding leaves of the difference in float32.
    return a * h + sqrt(maximum(1.0 - a * a, 1e-7)) * (sigmoid(i) * x)
