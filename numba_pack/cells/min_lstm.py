"""The minimal LSTM: gates of the input alone, which add up to 1."""

from typing import Any

from .cell import cell
from .functions import exp, minimum, reciprocal, sigmoid, where

__all__ = ["MinLSTM", "MinLSTMPositive"]


def _share(f: Any, i: Any) -> Any:
    """sigmoid(f) / (sigmoid(f) + sigmoid(i)) = (1 + exp(-i)) / (2 + exp(-f) + exp(-i)).

    Where f + i is below -80, this is sigmoid(f - i) to 4e-18: so two gates near 0 are not 0 / 0.
    """
    closed = f + i < -80.0
    one = where(closed, 0.0, 1.0)
    of_f = exp(minimum(where(closed, i - f, -f), 80.0))
    of_i = exp(minimum(where(closed, 0.0, -i), 80.0))
    return (one + of_i) * reciprocal(one + one + of_f + of_i)


@cell(of_input="f i n", state="h")
def MinLSTM(f, i, n, h):
    """Minimal LSTM: its gates see the input alone and are scaled to add up to 1.

    ::

        f, i = sigmoid of W x + b, each of its own
        n  = W_n x + b_n
        h' = (f h + i n) / (f + i)

    There is no product with the state, and no c beside h. This is the form of the paper's main text;
    `MinLSTMPositive` is the one that it trains.

    References
    ----------
    L. Feng, F. Tung, M. O. Ahmed, Y. Bengio, H. Hajimirsadeghi, "Were RNNs all we needed?", arXiv:2410.01201 (2024).

    Examples
    --------
    >>> import numpy as np
    >>> from numba_pack.cells import MinLSTM
    >>> layer = MinLSTM(3, 2, rng=0)
    >>> layer(np.ones((5, 3), np.float32))[0].shape
    (5, 2)
    """
    return n + _share(f, i) * (h - n)


@cell(of_input="f i n", state="h")
def MinLSTMPositive(f, i, n, h):
    """Minimal LSTM whose candidates are positive, as those of the paper's log-space form are.

    ::

        f, i = sigmoid of W x + b, each of its own
        n  = g(W_n x + b_n),  g(a) = a + 0.5 where a >= 0, else sigmoid(a)
        h' = (f h + i n) / (f + i)

    The package minGRU-pytorch computes this, with its rows in the order n, f, i and without biases; where it goes on
    from a state over several steps at once it takes g of that state, too, which this does not.

    References
    ----------
    L. Feng, F. Tung, M. O. Ahmed, Y. Bengio, H. Hajimirsadeghi, "Were RNNs all we needed?", arXiv:2410.01201 (2024),
    appendix on the log-space version.

    Examples
    --------
    >>> import numpy as np
    >>> from numba_pack.cells import MinLSTMPositive
    >>> layer = MinLSTMPositive(3, 2, rng=0)
    >>> bool((layer(np.ones((5, 3), np.float32))[0] > 0).all())
    True
    """
    n = where(n >= 0.0, n + 0.5, sigmoid(n))
    return n + _share(f, i) * (h - n)
