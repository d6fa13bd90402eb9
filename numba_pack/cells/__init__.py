"""Cells: one step of a recurrent net each, declared by one function; the functions that they are written with.

`cell` makes a `Cell` of a function, and a call of that makes a layer, which is all that a `numba_pack.LSTM` is:

>>> import numpy as np
>>> from numba_pack.cells import cell, sigmoid, tanh
>>> @cell(sums="i f g o", state="h c", unit_weights="p_i p_f p_o")
... def PeepholeLSTM(i, f, g, o, h, c, p_i, p_f, p_o):
...     i, f = sigmoid(i + p_i * c), sigmoid(f + p_f * c)
...     c = f * c + i * tanh(g)
...     return sigmoid(o + p_o * c) * tanh(c), c
>>> layer = PeepholeLSTM(12, 100, num_layers=2, bidirectional=True)
>>> output, (h_n, c_n) = layer(np.ones((7, 3, 12), np.float32))
>>> output.shape, c_n.shape
((7, 3, 200), (4, 3, 100))
"""

from .cell import Cell, cell
from .check import Check, check
from .cifg import CIFG
from .ctrnn import CTRNN
from .functions import (
    abs,
    clip,
    elu,
    exp,
    fma,
    gelu,
    hard_sigmoid,
    hard_tanh,
    leaky_relu,
    log,
    maximum,
    minimum,
    product,
    reciprocal,
    relu,
    round,
    selu,
    sigmoid,
    sign,
    silu,
    softplus,
    softsign,
    sqrt,
    tanh,
    where,
)
from .gru import GRU
from .gru_reset_before import GRUResetBefore
from .ind_rnn import IndRNN
from .janet import JANET
from .leaky_rnn import LeakyRNN, LeakyRNNTau
from .ligru import LiGRU
from .linear_memory import LinearMemory
from .lru import LRU
from .lstm import LSTM
from .mgu import MGU
from .min_gru import MinGRU, MinGRUPositive
from .min_lstm import MinLSTM, MinLSTMPositive
from .peephole_lstm import PeepholeLSTM
from .qrnn import QRNN
from .rglru import RGLRU
from .rnn import RNNRelu, RNNTanh
from .slstm import SLSTM
from .sru import SRU

__all__ = [
    "CIFG",
    "CTRNN",
    "GRU",
    "JANET",
    "LRU",
    "LSTM",
    "MGU",
    "QRNN",
    "RGLRU",
    "SLSTM",
    "SRU",
    "Cell",
    "Check",
    "GRUResetBefore",
    "IndRNN",
    "LeakyRNN",
    "LeakyRNNTau",
    "LiGRU",
    "LinearMemory",
    "MinGRU",
    "MinGRUPositive",
    "MinLSTM",
    "MinLSTMPositive",
    "PeepholeLSTM",
    "RNNRelu",
    "RNNTanh",
    "abs",
    "cell",
    "check",
    "clip",
    "elu",
    "exp",
    "fma",
    "gelu",
    "hard_sigmoid",
    "hard_tanh",
    "leaky_relu",
    "log",
    "maximum",
    "minimum",
    "product",
    "reciprocal",
    "relu",
    "round",
    "selu",
    "sigmoid",
    "sign",
    "silu",
    "softplus",
    "softsign",
    "sqrt",
    "tanh",
    "where",
]


def __dir__() -> list[str]:
    return [name for name in globals() if name.startswith("__")] + __all__
