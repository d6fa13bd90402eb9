"""The simple recurrent unit."""

from .cell import cell
from .functions import sigmoid

__all__ = ["SRU"]


@cell(of_input="n f r x", state="h c", unit_weights="v_f v_r")
def SRU(n, f, r, x, h, c, v_f, v_r):
    """Simple recurrent unit: its gates see the input and c, each unit its own; a highway carries the input along.

    ::

        f  = sigmoid(W_f x + v_f c + b_f)
        r  = sigmoid(W_r x + v_r c + b_r)
        c' = f c + (1 - f) (W_n x)
        h' = r c' + (1 - r) (W_x x)

    There is no matrix of the state. The highway is the projection ``W_x x``, as in the paper where input and state
    differ in size. Where they do not, the paper has x itself, times a constant alpha: that is alpha times the identity
    in the last H rows of ``weight_ih``, with gradients that the caller leaves alone. The paper has no biases b_n and
    b_x: here they are zeros then.

    The package sru has ``weight`` (I, 4 H) with the four numbers of a unit side by side, in the same order; its
    ``bias`` is b_f, b_r and its ``weight_c`` is v_f, v_r.

    References
    ----------
    T. Lei, Y. Zhang, S. I. Wang, H. Dai, Y. Artzi, "Simple recurrent units for highly parallelizable recurrence",
    EMNLP (2018).

    Examples
    --------
    >>> import numpy as np
    >>> from numba_pack.cells import SRU
    >>> layer = SRU(3, 2, rng=0)
    >>> layer(np.ones((5, 3), np.float32))[0].shape
    (5, 2)
    """
    f, r = sigmoid(f + v_f * c), sigmoid(r + v_r * c)
    c = n + f * (c - n)
    return x + r * (c - x), c
