"""Options and parameters copied between modules of PyTorch and layers."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from torch.nn.utils import parametrize
from torch.nn.utils.prune import BasePruningMethod
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from .._arguments import kind_of
from ..layers.module import Module, option_names
from ..layers.stack import Stack
from ._torch_kinds import KINDS, computes_something_else, not_of_torch_nn
from ._torch_tensors import DTYPES, HALVES, TORCH_DTYPES, unreadable

__all__ = ["from_torch", "to_torch"]
#: the options that PyTorch has, too, by the same names
_COMMON = (
    "input_size", "hidden_size", "num_layers", "nonlinearity", "bias", "batch_first", "dropout", "bidirectional",
    "proj_size",
)  # fmt: skip


def _options(kind: type[Module], source: Any) -> dict[str, Any]:
    """The options that a layer of this kind and PyTorch's module have in common, from either."""
    return {name: getattr(source, name) for name in option_names(kind) if name in _COMMON}


def from_torch(module: Any, *, matmul_precision: str | None = None, rng: Any = None) -> Any:
    """A layer, or a cell, with the options and the parameters of a PyTorch module.

    Parameters
    ----------
    module : torch.nn.RNN, LSTM, GRU, RNNCell, LSTMCell or GRUCell
        In float32 or float64, or in bfloat16 or float16, of which the layer is in float32; on any device. Parameters
        that are computed, as by `torch.nn.utils.parametrizations`, `weight_norm` or pruning, are taken as they are now.
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
        has another dtype.
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
    torch_kind = next((torch_kind for torch_kind in KINDS if isinstance(module, torch_kind)), None)
    if torch_kind is None:
        reason = not_of_torch_nn(module)
        raise TypeError(
            f"module must be a torch.nn.RNN, LSTM, GRU or a cell of these; got {kind_of(module)}"
            + (f": {reason}" if reason else "")
        )
    reason = computes_something_else(module, torch_kind)
    if reason:
        raise TypeError(f"module must compute what torch.nn.{torch_kind.__name__} does; {reason}")
    kind = KINDS[torch_kind]
    options = _options(kind, module)
    of_a_cell = ["weight_ih", "weight_hh", *["bias_ih", "bias_hh"] * bool(options["bias"])]
    names = getattr(module, "_flat_weights_names", of_a_cell)
    computed = _computed_by_hooks(module, names)
    parameters = {name: computed[name]() if name in computed else _resolved(module, name) for name in names}
    dtype = parameters[names[0]].dtype
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


#: by the class of a hook that PyTorch's older utilities register: the parameter that it computes before each call, and
#: what it makes of it in evaluation
_COMPUTING_HOOKS: dict[Any, Any] = {
    WeightNorm: lambda hook, module: (hook.name, lambda: hook.compute_weight(module)),
    SpectralNorm: lambda hook, module: (hook.name, lambda: hook.compute_weight(module, do_power_iteration=False)),
    BasePruningMethod: lambda hook, module: (hook._tensor_name, lambda: hook.apply_mask(module)),
}


def _computed_by_hooks(module: Any, names: Any) -> dict[str, Any]:
    """What computes parameters before each call, by their names; all other hooks are refused."""
    found = {}
    for hook in (*module._forward_pre_hooks.values(), *module._forward_hooks.values()):
        known = next((make for kind, make in _COMPUTING_HOOKS.items() if isinstance(hook, kind)), None)
        name, compute = known(hook, module) if known else ("", None)
        if name not in names or name in found:
            shown = getattr(hook, "__qualname__", type(hook).__qualname__)
            raise TypeError(
                f"module must have no forward hooks, which a layer would not call; got {shown}: remove it before"
            )
        found[name] = compute
    return found


def _resolved(module: Any, name: str) -> Any:
    """A parameter, or what the module's parametrizations make of it in evaluation, changing nothing."""
    if parametrize.is_parametrized(module, name):
        return copy.deepcopy(module.parametrizations[name]).eval()()
    parameter = getattr(module, name, None)
    if not isinstance(parameter, torch.Tensor):
        raise ValueError(f"module must have the parameter {name}; got {kind_of(parameter)}")
    return parameter


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
        if name not in _COMMON and value != default:
            raise ValueError(f"layer must have {name}={default!r}, for PyTorch has no such option; got {value!r}")
    module = torch_kind(**_options(type(layer), layer), device="cpu", dtype=TORCH_DTYPES[layer.dtype])
    module.load_state_dict({name: torch.from_numpy(value.copy()) for name, value in layer.state_dict().items()})
    return module
