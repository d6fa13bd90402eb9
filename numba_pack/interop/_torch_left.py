"""Calls of few steps that keep something for a backward pass, and that PyTorch computes in less time: left to it.

A step of training packs new weights, which are then used for a few steps alone, and Python stands between the passes.
PyTorch's own loop takes longer with every step. Where both take as long was measured on two machines, with vectors of
32 and of 64 bytes, for 16 to 512 units, 1 to 32 sequences and 1 to 12 steps: `bench/NOTES.md` has the figures.
"""

from __future__ import annotations

from typing import Any

import torch

__all__ = ["is_left"]

_Tensor, _Packed = torch.Tensor, torch.nn.utils.rnn.PackedSequence
_is_autocast = torch.is_autocast_enabled
_Parameter, _DTYPES = torch.nn.Parameter, (torch.float32, torch.float64)
#: gate rows of a unit, of what is ever left where input is padded; PyTorch runs an LSTM in a way of its own there
GATES = {"RNN_TANH": 1, "RNN_RELU": 1, "GRU": 3}
#: T steps are as quick here where a layer has T * T times so many weights, less those of `SMALL`
WEIGHTS = 1 << 15
#: weights that a call itself counts as much as
SMALL = {"RNN_TANH": 1 << 15, "RNN_RELU": 1 << 15, "GRU": 1 << 13}
#: steps of all layers and directions that are left where input is packed
PACKED_STEPS = {"RNN_TANH": 7, "RNN_RELU": 7, "GRU": 4, "LSTM": 4}


def _has_few_steps(module: Any, input: Any) -> bool:
    mode = module.mode
    if type(input) is _Packed:
        scans = module.num_layers * (2 if module.bidirectional else 1)
        return len(input.batch_sizes) * scans <= PACKED_STEPS[mode]
    if mode not in GATES or type(input) is not _Tensor:
        return False
    shape, H = input.shape, module.hidden_size
    steps = shape[1 if module.batch_first else 0] if len(shape) == 3 else len(input) if len(shape) == 2 else 0
    return bool(0 < steps * steps * WEIGHTS <= GATES[mode] * H * (H + module.input_size) + SMALL[mode])


def is_left(module: Any, input: Any, hx: Any) -> bool:
    """Whether a call, where gradients are enabled, is PyTorch's: it has few steps, and all else about it is usual.

    What is usual of tensors, but for gradients, PyTorch asks itself.
    """
    if not _has_few_steps(module, input) or module._frozen or _is_autocast("cpu"):
        return False
    own = module._parameters
    if len(own) != len(module._flat_weights_names):  # some are computed
        return False
    states = hx if type(hx) is tuple else () if hx is None else (hx,)
    data = input.data if type(input) is _Packed else input
    kept = False
    for tensor in (data, *states):
        if type(tensor) is not _Tensor:
            return False
        kept = kept or tensor.requires_grad
    for parameter in own.values():
        if type(parameter) is not _Parameter:
            return False
        kept = kept or parameter.requires_grad
    return kept and parameter.dtype in _DTYPES
