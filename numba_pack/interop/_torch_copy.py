"""Options and parameters copied between modules of PyTorch and layers."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from .._arguments import kind_of
from ..layers.module import option_names
from ..layers.stack import Stack
from ._torch_kinds import KINDS
from ._torch_read import COMMON, options_of, read
from ._torch_tensors import DTYPES, HALVES, TORCH_DTYPES, unreadable

__all__ = ["from_torch", "to_torch"]


def from_torch(module: Any, *, matmul_precision: str | None = None, rng: Any = None) -> Any:
    """A layer, or a cell, with the options and the parameters of a PyTorch module.

    Parameters
    ----------
    module : torch.nn.RNN, LSTM, GRU, RNNCell, LSTMCell or GRUCell
        In float32 or float64, or in bfloat16 or float16, of which the layer is in float32; on any device. Parameters
        that are computed, as by `torch.nn.utils.parametrizations`, ``weight_norm`` or pruning, are taken as they are
        now.
        It may be in TorchScript, scripted or traced, also one within a model that `torch.jit.load` gives. And it may
        have been quantized by `torch.ao.quantization.quantize_dynamic`: the layer is in float32, of the numbers that
        its integers or halves stand for, and ``quantize("int8")`` makes one in integers of it.
    matmul_precision : {"highest", "high", "medium"}, optional
        That of the layer. If not given, "medium" of a module in bfloat16 or float16, and else as where a layer is made.
    rng : None, int, or numpy.random.Generator
        Draws the seed of the dropout, as where a layer is made.

    Returns
    -------
    RNN, LSTM, GRU, RNNCell, LSTMCell or GRUCell
        Of this library. Its parameters are a copy.

    Raises
    ------
    TypeError
        If the module is none of these, computes something else (its forward is overridden, or it has forward hooks), or
        has another dtype. A whole model is none of these: take the modules in it.
    ValueError
        If a parameter is not there, is not finite, or has no values (on the device "meta"); if the precision is none of
        the three, or not "highest" for a module in float64.

    Examples
    --------
    >>> import torch
    >>> import numba_pack as nbp
    >>> nbp.interop.torch.from_torch(torch.nn.LSTM(3, 5, num_layers=2, proj_size=4))
    LSTM(3, 5, num_layers=2, proj_size=4)
    """
    kind, options, parameters = read(module)
    dtype = next(iter(parameters.values())).dtype
    for name, parameter in parameters.items():
        if parameter.dtype not in DTYPES and parameter.dtype not in HALVES:
            dtypes = "torch.float32, float64, bfloat16 or float16"
            raise TypeError(f"module must have dtype {dtypes}; got {parameter.dtype} in {name}")
        if parameter.dtype != dtype:
            raise TypeError(f"module must have one dtype; got {dtype} and, in {name}, {parameter.dtype}")
        fault = unreadable(parameter)
        if fault:
            raise ValueError(f"module must have parameters that can be read; {name} {fault}")
    if dtype in HALVES and matmul_precision is None:
        matmul_precision = "medium"
    own = DTYPES.get(dtype, np.float32)
    layer = kind(**options, dtype=own, rng=rng, matmul_precision=matmul_precision)
    layer.load_state_dict({name: parameter.detach().cpu().resolve_neg() for name, parameter in parameters.items()})
    return layer


def to_torch(layer: Any) -> Any:
    """A PyTorch module with the options and the parameters of a layer or a cell.

    Parameters
    ----------
    layer : RNN, LSTM, GRU, RNNCell, LSTMCell or GRUCell
        Of this library.

    Returns
    -------
    torch.nn.RNN, LSTM, GRU, RNNCell, LSTMCell or GRUCell
        PyTorch's own, on the CPU and in the dtype of the layer. Its parameters are a copy. How exactly it computes is
        up to `torch.set_float32_matmul_precision`.

    Raises
    ------
    TypeError
        If the layer is none of these, or quantized.
    ValueError
        If it has an option that PyTorch has not, such as ``return_states`` or a list of widths.

    Examples
    --------
    >>> import numba_pack as nbp
    >>> nbp.interop.torch.to_torch(nbp.GRU(3, 5, bidirectional=True))
    GRU(3, 5, bidirectional=True)
    """
    torch_kind = next((torch_kind for torch_kind, kind in KINDS.items() if type(layer) is kind), None)
    if isinstance(layer, Stack):
        raise ValueError(
            f"layer must have one hidden_size, for PyTorch has no layers of different widths; got {layer!r}, of whose "
            "layers each can be copied: layer.layers[i]"
        )
    if torch_kind is None:
        raise TypeError(
            "layer must be an RNN, LSTM, GRU, RNNCell, LSTMCell or GRUCell of numba_pack; "
            f"got {kind_of(layer, *KINDS.values())}"
        )
    layer._refuse_integers("to_torch")
    plain = type(layer)(1, 1)
    for name in option_names(type(layer)):
        if name == "matmul_precision":  # which PyTorch has for the whole process
            continue
        value, default = getattr(layer, name), getattr(plain, name)
        if name not in COMMON and value != default:
            raise ValueError(f"layer must have {name}={default!r}, for PyTorch has no such option; got {value!r}")
    module = torch_kind(**options_of(type(layer), layer), device="cpu", dtype=TORCH_DTYPES[layer.dtype])
    module.load_state_dict({name: torch.from_numpy(value.copy()) for name, value in layer.state_dict().items()})
    return module
