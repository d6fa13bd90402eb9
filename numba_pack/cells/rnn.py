"""The simple recurrent net, with either function."""

from .cell import cell
from .functions import relu, tanh

__all__ = ["RNNRelu", "RNNTanh"]


@cell(sums="a", state="h")
def RNNTanh(a, h):
    """h' = tanh(a), where a is the sum. J. L. Elman, Finding structure in time, Cognitive Science 14 (1990)."""
    return tanh(a)


@cell(sums="a", state="h")
def RNNRelu(a, h):
    """h' = max(a, 0), where a is the sum.

    Q. V. Le, N. Jaitly and G. E. Hinton, A simple way to initialize recurrent networks of rectified linear units,
    arXiv 1504.00941 (2015).
    """
    return relu(a)
