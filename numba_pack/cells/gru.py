"""The gated recurrent unit."""

from .cell import cell
from .functions import sigmoid, tanh

__all__ = ["GRU"]


@cell(sums="r z", of_input="n_x", of_state="n_h", state="h")
def GRU(r, z, n_x, n_h, h):
    """h' = (1 - z) n + z h, n = tanh(n_x + r n_h); r and z are sigmoids of their sums.

    K. Cho et al., Learning phrase representations using RNN encoder-decoder for statistical machine translation, EMNLP
    (2014); with r applied after the product, as in PyTorch and cuDNN.
    """
    n = tanh(n_x + sigmoid(r) * n_h)
    return n + sigmoid(z) * (h - n)
