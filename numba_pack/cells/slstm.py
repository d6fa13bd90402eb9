"""The sLSTM of xLSTM: exponential gates."""

from .cell import cell
from .functions import exp, maximum, minimum, sigmoid, softplus, tanh, where

__all__ = ["SLSTM"]


@cell(sums="i f z o", state="h c n m")
def SLSTM(i, f, z, o, h, c, n, m):
    """sLSTM: an LSTM with an exponential input gate, a normalizer n and a stabilizer m.

    ::

        a_i, a_f, a_z, a_o = W x + U h + b, each of its own
        m' = max(a_i, log(sigmoid(a_f)) + m), and a_i in the first step
        i  = exp(a_i - m'),  f = exp(log(sigmoid(a_f)) + m - m')
        c' = f c + i tanh(a_z)
        n' = f n + i
        h' = sigmoid(a_o) c' / n'

    m changes no h: c and n are both stored divided by exp(m), so that neither overflows. A first step is one with
    n = 0, as in the initial state of zeros; from then on n is 1 or more.

    The layer's ``heads`` make U block-diagonal, as the paper has it. Rows are in the order of the package xlstm, whose
    ``_recurrent_kernel_`` is (heads, H / heads, 4, H / heads) and whose bias is (heads, 4, H / heads):
    ``weight_hh = kernel.transpose(2, 0, 3, 1).reshape(4 * H, -1)`` and ``bias_ih = bias.transpose(1, 0, 2).ravel()``.
    What surrounds the cell there (convolution, norms, projections) is not part of it. Of the paper's two forget gates,
    sigmoid and exp, this is the first, as in the package.

    References
    ----------
    M. Beck, K. Pöppel, M. Spanring, A. Auer, O. Prudnikova, M. Kopp, G. Klambauer, J. Brandstetter, S. Hochreiter,
    "xLSTM: extended long short-term memory", NeurIPS (2024).

    Examples
    --------
    >>> import numpy as np
    >>> from numba_pack.cells import SLSTM
    >>> layer = SLSTM(3, 4, heads=2, rng=0)
    >>> output, (h, c, n, m) = layer(np.ones((5, 3), np.float32))
    >>> output.shape, n.shape
    ((5, 4), (1, 4))
    """
    kept = m - softplus(-f)
    m = where(n > 0.0, maximum(i, kept), i)
    # Not above 1 but in a first step, where exp would overflow and meet c = 0.
    i, f = exp(i - m), exp(minimum(kept - m, 0.0))
    c = f * c + i * tanh(z)
    n = f * n + i
    return sigmoid(o) * c / n, c, n, m
