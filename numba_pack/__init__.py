"""Packed recurrent nets for NumPy: ragged sequences through RNN, LSTM and GRU, forward and backward, with no padding.

==================== ===============================================================================================
to pack              `pack_sequence`, `pack_padded_sequence`, `pack_ragged`, and what they make, `PackedSequence`
to unpack            `unpack_sequence`, `pad_packed_sequence`, `unpack_ragged`
between padded, list `pad_sequence`, `unpad_sequence`
whole batches        `concatenate`, `select`
small things         `invert_permutation`, `check_packed`, `packing_report`
layers               `RNN`, `LSTM`, `GRU`; their `Tape` and `Gradients`; `symbols`, `fold_embedding`
one step             `Stepper`, a layer that keeps its state; `step`, the same in compiled code; `RNNCell`, `LSTMCell`,
                     `GRUCell`
cells                the module `cells`: a cell of one's own as one function, and those that were published
in compiled code     all packing functions; `run`, `rnn`, `lstm`, `gru`, each with ``_forward`` and ``_backward``
beside layers        `Linear`, `Embedding`; `Model`, several parts as one vector, one gradient and one file
attention            `attend`; `packed_softmax`, `sum_by_sequence`, `repeat_by_sequence`; ``_backward`` of the first two
training             the modules `optim`, `losses` and `data`
serving              the module `serving`: streams, each with its state carried from call to call
in and out           `load`, `save`, `from_state_dict`; the module `interop`: PyTorch, ONNX, Keras, and ragged data
how it runs          `threads`, `set_num_threads`, `get_num_threads`, `warmup`, `backend`; ``python -m numba_pack``
how exactly          `set_float32_matmul_precision`, `get_float32_matmul_precision`; of a layer ``matmul_precision``,
                     ``with_precision`` and ``quantize``
on a GPU             the same calls: device arrays in, device arrays out, where ``NUMBA_PACK_BACKEND`` is ``cuda``
==================== ===============================================================================================

Letters in shapes: B sequences, T steps of the longest, N packed rows (the sum of the lengths), I inputs, H units,
P outputs (H without a projection), G gate rows (4 H for an LSTM, 3 H for a GRU, H for an RNN), L layers, D directions.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from . import cells
from ._backend import backend
from ._habits import no_attribute
from .cpu.threads import get_num_threads, set_num_threads, threads
from .kit.attention import attend, attend_backward
from .kit.by_sequence import packed_softmax, packed_softmax_backward, repeat_by_sequence, sum_by_sequence
from .kit.embedding import Embedding
from .kit.linear import Linear
from .kit.model import Model
from .layers.compiled import (
    CompiledGradients,
    CompiledTape,
    gru,
    gru_backward,
    gru_forward,
    lstm,
    lstm_backward,
    lstm_forward,
    rnn,
    rnn_backward,
    rnn_forward,
    run,
    run_backward,
    run_forward,
)
from .layers.compiled_step import CompiledStepper, step
from .layers.embedding import fold_embedding
from .layers.forms import symbols
from .layers.from_names import from_state_dict
from .layers.layer import GRU, LSTM, RNN
from .layers.one_step import GRUCell, LSTMCell, RNNCell
from .layers.precision import get_float32_matmul_precision, set_float32_matmul_precision
from .layers.stepper import Stepper
from .layers.storage import load, save
from .layers.tape import Gradients, Tape
from .layers.warm import warmup
from .packing.ragged import pack_ragged, unpack_ragged
from .packing.report import PackingReport, packing_report
from .packing.sequences import (
    PackedSequence,
    check_packed,
    concatenate,
    invert_permutation,
    pack_padded_sequence,
    pack_sequence,
    pad_packed_sequence,
    pad_sequence,
    select,
    unpack_sequence,
    unpad_sequence,
)

if TYPE_CHECKING:
    from . import data, interop, losses, optim, serving

__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "CompiledGradients",
    "CompiledStepper",
    "CompiledTape",
    "Embedding",
    "GRUCell",
    "Gradients",
    "LSTMCell",
    "Linear",
    "Model",
    "PackedSequence",
    "PackingReport",
    "RNNCell",
    "Stepper",
    "Tape",
    "attend",
    "attend_backward",
    "backend",
    "cells",
    "check_packed",
    "concatenate",
    "data",
    "fold_embedding",
    "from_state_dict",
    "get_float32_matmul_precision",
    "get_num_threads",
    "gru",
    "gru_backward",
    "gru_forward",
    "interop",
    "invert_permutation",
    "load",
    "losses",
    "lstm",
    "lstm_backward",
    "lstm_forward",
    "optim",
    "pack_padded_sequence",
    "pack_ragged",
    "pack_sequence",
    "packed_softmax",
    "packed_softmax_backward",
    "packing_report",
    "pad_packed_sequence",
    "pad_sequence",
    "repeat_by_sequence",
    "rnn",
    "rnn_backward",
    "rnn_forward",
    "run",
    "run_backward",
    "run_forward",
    "save",
    "select",
    "serving",
    "set_float32_matmul_precision",
    "set_num_threads",
    "step",
    "sum_by_sequence",
    "symbols",
    "threads",
    "unpack_ragged",
    "unpack_sequence",
    "unpad_sequence",
    "warmup",
]

__version__ = "0.1.0"


#: modules that are imported when they are first asked for: a layer needs none of them
_LATER = ("data", "interop", "losses", "optim", "serving")

if not TYPE_CHECKING:  # for checkers there is nothing but what there is

    def __getattr__(name: str) -> Any:
        if name in _LATER:
            return import_module(f".{name}", __name__)
        raise no_attribute(__name__, name)


def __dir__() -> list[str]:
    return [name for name in globals() if name.startswith("__")] + __all__
