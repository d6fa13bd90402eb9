"""Cells composed at run time: RNN, LSTM and GRU with the activations and options that ONNX gives them.

The cells of ``cells/cell.py`` are compiled each with its own formula. Here the activations are numbers in a table,
clipping, peepholes and the like are options, and one compiled form serves all: a branch for each vector, next to
nothing beside the products. They are for inference: there are no derivatives.

Equations, names and order of gates as in ONNX's documentation of the operators RNN, GRU and LSTM: i, o, f, c for an
LSTM; z, r, h for a GRU. With the activations that are ONNX's defaults and no options, the operations are those of
``cells/cell.py``, one by one, and so are the results.
"""

from __future__ import annotations

from typing import NamedTuple

from .._jit import inner
from ..simd.lanes import fma, like, maximum, minimum, select_less
from .activations import elu, relu, sigmoid, softplus, softsign, tanh

__all__ = ["ACTIVATIONS", "Activation", "Options", "gru_reset", "gru_step", "lstm_step", "rnn_step"]


class Activation(NamedTuple):
    """One function of ONNX's list."""

    #: its place in ACTIVATIONS
    code: int
    alpha: float
    beta: float

    @property
    def name(self) -> str:
        """ONNX's."""
        return list(ACTIVATIONS)[self.code]


#: ONNX's names, and the defaults of alpha and beta; None where there is no default, and the value must be given.
ACTIVATIONS: dict[str, dict[str, float | None]] = {
    "Sigmoid": {},
    "Tanh": {},
    "Relu": {},
    "Affine": {"alpha": None, "beta": None},
    "LeakyRelu": {"alpha": 0.01},
    "ThresholdedRelu": {"alpha": 1.0},
    "ScaledTanh": {"alpha": None, "beta": None},
    "HardSigmoid": {"alpha": 0.2, "beta": 0.5},
    "Elu": {"alpha": 1.0},
    "Softsign": {},
    "Softplus": {},
}
(
    _SIGMOID, _TANH, _RELU, _AFFINE, _LEAKY_RELU, _THRESHOLDED_RELU, _SCALED_TANH, _HARD_SIGMOID, _ELU, _SOFTSIGN,
    _SOFTPLUS,
) = range(len(ACTIVATIONS))  # fmt: skip


@inner
def activate(activation, x):
    """The activation of x."""
    code, alpha, beta = activation.code, like(x, activation.alpha), like(x, activation.beta)
    zero, one = like(x, 0.0), like(x, 1.0)
    if code == _SIGMOID:
        x = sigmoid(x)
    elif code == _TANH:
        x = tanh(x)
    elif code == _RELU:
        x = relu(x)
    elif code == _AFFINE:
        x = fma(alpha, x, beta)
    elif code == _LEAKY_RELU:
        x = select_less(x, zero, alpha * x, x)
    elif code == _THRESHOLDED_RELU:
        x = select_less(x, alpha, zero, x)
    elif code == _SCALED_TANH:
        x = alpha * tanh(beta * x)
    elif code == _HARD_SIGMOID:
        x = maximum(minimum(fma(alpha, x, beta), one), zero)
    elif code == _ELU:
        x = select_less(x, zero, alpha * elu(x), x)
    elif code == _SOFTSIGN:
        x = softsign(x)
    elif code == _SOFTPLUS:
        x = softplus(x)
    return x


class Options(NamedTuple):
    """What a cell is composed of."""

    #: of the gates; in an RNN, of the one sum
    f: Activation
    #: of the cell gate c of an LSTM, of the hidden gate h of a GRU
    g: Activation
    #: of the c that an LSTM puts out
    h: Activation
    #: sums are kept between -clip and clip before they are activated; infinity for no bound. The c of an LSTM is none:
    #: ONNX's text can be read otherwise, but ONNX Runtime and OpenVINO do not bound it either.
    clip: float
    #: LSTM: the forget gate is one minus the input gate
    input_forget: bool
    #: LSTM: gates see c, too
    peepholes: bool
    #: GRU: the reset gate multiplies the product with the state, and not the state
    linear_before_reset: bool


@inner
def _clipped(options, x):
    """The sum x within the bounds; NaN stays NaN."""
    bound = like(x, options.clip)
    return maximum(minimum(x, bound), -bound)


@inner
def rnn_step(options, gate):
    """h' = f(a), where a is the sum."""
    return activate(options.f, _clipped(options, gate))


@inner
def lstm_step(options, gates, peepholes, c):
    """c' = f c + i g(c_sum), h' = o h(c'); i, f and o are activated by f, their sums having c times a peephole each.

    With ``input_forget``, f = 1 - i. The peephole of o is of c', the others are of c. Returns h' and c'.

    F. A. Gers, J. Schmidhuber, Recurrent nets that time and count, IJCNN (2000).
    """
    i, o, f, g = gates
    p_i, p_o, p_f = peepholes
    if options.peepholes:
        i, f = fma(p_i, c, i), fma(p_f, c, f)
    i = activate(options.f, _clipped(options, i))
    f = like(i, 1.0) - i if options.input_forget else activate(options.f, _clipped(options, f))
    c = fma(f, c, i * activate(options.g, _clipped(options, g)))
    if options.peepholes:
        o = fma(p_o, c, o)
    o = activate(options.f, _clipped(options, o))
    return o * activate(options.h, c), c


@inner
def gru_reset(options, r, h):
    """r h, which is what the product with the state is of where it is not taken before the reset."""
    return activate(options.f, _clipped(options, r)) * h


@inner
def gru_step(options, gates, h):
    """h' = (1 - z) n + z h, where n = g(n_x + n_h).

    With ``linear_before_reset`` n_h is r times its sum, which is the last of the gates; else the product with the reset
    state is in the sum of n_x already.
    """
    z, r, n, n_h = gates
    z = activate(options.f, _clipped(options, z))
    if options.linear_before_reset:
        n = fma(activate(options.f, _clipped(options, r)), n_h, n)
    n = activate(options.g, _clipped(options, n))
    return fma(z, h - n, n)
