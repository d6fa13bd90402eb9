"""The cells: one time step of each, and below each its derivative.

A cell is a pair of formulas and a row of the table at the end. The formulas are written on numbers of one unit; on the
CPU those are lanes (so many units at once), in a CUDA thread they are scalars. All take and return the same things:

``step(gates, h, c) -> (gates, h, c)``
    ``gates`` come in as the sums of the products with input and state, with their biases, and leave as what the
    derivative needs; ``h`` and ``c`` are the state before and after. Cells without a c pass it through.

``step_back(gates, h, c, d_h, d_c) -> (d_gates, d_h, d_c)``
    ``gates`` as `step` left them, ``h`` and ``c`` the state *before* the step; ``d_h``, ``d_c`` are the gradients with
    respect to the state after it, and leave as those with respect to the state before it. For h, this is only the
    part that does not pass through the gates: the other part is ``d_gates @ W_hh``.

Equations as in PyTorch's documentation of ``torch.nn.LSTM``, ``GRU`` and ``RNN``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from .._jit import inner
from ..simd.lanes import fma, like
from .activations import relu, relu_slope, sigmoid, sigmoid_slope, tanh, tanh_slope

__all__ = ["CELLS", "Cell"]


@inner
def lstm_step(gates, h, c):
    """c' = f c + i g, h' = o tanh(c'); i, f, o are sigmoids of their sums, g is a tanh.

    Hochreiter and Schmidhuber, Neural Computation 9 (1997), with the forget gate of Gers, Schmidhuber and Cummins
    (2000).
    """
    i, f, g, o = gates
    i, f, g, o = sigmoid(i), sigmoid(f), tanh(g), sigmoid(o)
    c = fma(f, c, i * g)
    return (i, f, g, o), o * tanh(c), c


@inner
def lstm_step_back(gates, h, c, d_h, d_c):
    i, f, g, o = gates
    tanh_c = tanh(fma(f, c, i * g))
    d_o = d_h * tanh_c * sigmoid_slope(o)
    d_c = fma(d_h * o, tanh_slope(tanh_c), d_c)
    d_i = d_c * g * sigmoid_slope(i)
    d_f = d_c * c * sigmoid_slope(f)
    d_g = d_c * i * tanh_slope(g)
    return (d_i, d_f, d_g, d_o), like(d_h, 0.0), d_c * f


@inner
def gru_step(gates, h, c):
    """h' = n + z (h - n), n = tanh(n_x + r n_h); r and z are sigmoids of their sums.

    The sums of n stay apart, n_x of the input and n_h of the state, since r multiplies n_h alone.
    Cho et al., EMNLP (2014), in the form with the reset gate after the product.
    """
    n_h, r, z, n = gates
    r, z = sigmoid(r), sigmoid(z)
    n = tanh(fma(r, n_h, n))
    return (n_h, r, z, n), fma(z, h - n, n), c


@inner
def gru_step_back(gates, h, c, d_h, d_c):
    n_h, r, z, n = gates
    d_n = (d_h - d_h * z) * tanh_slope(n)
    d_z = d_h * (h - n) * sigmoid_slope(z)
    d_r = d_n * n_h * sigmoid_slope(r)
    return (d_n * r, d_r, d_z, d_n), d_h * z, d_c


@inner
def tanh_step(gates, h, c):
    """h' = tanh(a), where a is the sum. Elman, Cognitive Science 14 (1990)."""
    h = tanh(gates[0])
    return (h,), h, c


@inner
def tanh_step_back(gates, h, c, d_h, d_c):
    return (d_h * tanh_slope(gates[0]),), like(d_h, 0.0), d_c


@inner
def relu_step(gates, h, c):
    """h' = max(a, 0), where a is the sum."""
    h = relu(gates[0])
    return (h,), h, c


@inner
def relu_step_back(gates, h, c, d_h, d_c):
    return (d_h * relu_slope(gates[0]),), like(d_h, 0.0), d_c


class Cell(NamedTuple):
    """What the scans must know of a cell."""

    step: Callable[..., Any]
    step_back: Callable[..., Any]
    #: products with the input, and as many with the state: rows of ``weight_ih`` over H
    gates: int
    #: values a unit keeps for the derivative. A row of the tape is ``kept`` times H long; the products with the state
    #: are added to its first ``gates * H`` columns, those with the input to its last.
    kept: int
    #: how far the gates of the state stand before those of the input in a row: ``kept - gates`` places. A gate that is
    #: gate j of ``weight_hh`` is then column block ``(j + kept - gates) % gates`` of the product with the state.
    has_c: bool

    @property
    def turn(self) -> int:
        """How many gates the product with the state is rotated by, so that it meets its sums: 1 for GRU, else 0."""
        return self.kept - self.gates


CELLS = {
    "LSTM": Cell(lstm_step, lstm_step_back, gates=4, kept=4, has_c=True),
    "GRU": Cell(gru_step, gru_step_back, gates=3, kept=4, has_c=False),  # kept: n_h, r, z, n
    "RNN_TANH": Cell(tanh_step, tanh_step_back, gates=1, kept=1, has_c=False),
    "RNN_RELU": Cell(relu_step, relu_step_back, gates=1, kept=1, has_c=False),
}
