"""Long short-term memory."""

from .cell import cell
from .functions import sigmoid, tanh

__all__ = ["LSTM"]


@cell(sums="i f g o", state="h c")
def LSTM(i, f, g, o, h, c):
    """c' = f c + i g, h' = o tanh(c'); i, f, o are sigmoids of their sums, g is a tanh.

    S. Hochreiter and J. Schmidhuber, Long short-term memory, Neural Computation 9 (1997), with the forget gate of
    F. Gers, J. Schmidhuber and F. Cummins, Learning to forget, Neural Computation 12 (2000).
    """
    c = sigmoid(f) * c + sigmoid(i) * tanh(g)
    return sigmoid(o) * tanh(c), c
