"""The LSTM whose gates see the cell state."""

from .cell import cell
from .functions import sigmoid, tanh

__all__ = ["PeepholeLSTM"]


@cell(sums="i f g o", state="h c", unit_weights="p_i p_f p_o")
def PeepholeLSTM(i, f, g, o, h, c, p_i, p_f, p_o):
    """LSTM with peepholes: its gates see c, each unit its own.

    ::

        i  = sigmoid(W_i x + U_i h + b_i + p_i c)
        f  = sigmoid(W_f x + U_f h + b_f + p_f c)
        g  = tanh(W_g x + U_g h + b_g)
        c' = f c + i g
        o  = sigmoid(W_o x + U_o h + b_o + p_o c')
        h' = o tanh(c')

    The output gate sees the new c. Matrices are laid out as in ``torch.nn.LSTM``. ONNX has the order i, o, f, c, and
    i, o, f in its P. TensorFlow 1 had ``use_peepholes=True`` with the order i, c, f, o and a forget bias of 1 beside
    the trained one.

    References
    ----------
    F. A. Gers, J. Schmidhuber, "Recurrent nets that time and count", IJCNN (2000).

    Examples
    --------
    >>> import numpy as np
    >>> from numba_pack.cells import PeepholeLSTM
    >>> layer = PeepholeLSTM(3, 2, rng=0)
    >>> layer(np.ones((5, 3), np.float32))[0].shape
    (5, 2)
    """
    i, f = sigmoid(i + p_i * c), sigmoid(f + p_f * c)
    c = f * c + i * tanh(g)
    return sigmoid(o + p_o * c) * tanh(c), c
