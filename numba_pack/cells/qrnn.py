"""The quasi-recurrent net."""

from .cell import cell
from .functions import sigmoid, tanh

__all__ = ["QRNN"]


@cell(of_input="z f o", state="h c")
def QRNN(z, f, o, h, c):
    """Quasi-recurrent neural network: fo-pooling over gates of the input alone.

    ::

        z  = tanh(W_z x + b_z)
        f, o = sigmoid of W x + b, each of its own
        c' = f c + (1 - f) z
        h' = o c'

    There is no product with the state. The convolution is one step wide. A wider one is had from inputs that hold those
    of the steps before them, too; in a stack, each layer is then an object of its own.
    Salesforce's pytorch-qrnn has the same order of rows, but there f is the part of z, not of c: the rows of f, and
    their bias, have the other sign.

    References
    ----------
    J. Bradbury, S. Merity, C. Xiong, R. Socher, "Quasi-recurrent neural networks", ICLR (2017).

    Examples
    --------
    >>> import numpy as np
    >>> from numba_pack.cells import QRNN
    >>> layer = QRNN(3, 2, rng=0)
    >>> layer(np.ones((5, 3), np.float32))[0].shape
    (5, 2)
    """
    z, f, o = tanh(z), sigmoid(f), sigmoid(o)
    c = z + f * (c - z)
    return o * c, c
