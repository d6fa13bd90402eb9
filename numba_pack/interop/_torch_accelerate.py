"""A whole model of PyTorch's, whose recurrent modules run on this library from now on."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch

from .._arguments import kind_of
from ..layers.precision import as_precision
from ._torch_kinds import computes_something_else, not_of_torch_nn
from ._torch_modules import GRU, LSTM, RNN, Recurrent
from ._torch_tensors import DTYPES, HALVES, unreadable

__all__ = ["Accelerated", "accelerate"]
_FASTER = {torch.nn.RNN: RNN, torch.nn.LSTM: LSTM, torch.nn.GRU: GRU}


class Accelerated(NamedTuple):
    """What `accelerate` did. Its ``str`` has a line for each recurrent module.

    Attributes
    ----------
    replaced : tuple of str
        The modules that run on this library now, by the names that ``model.named_modules()`` gives them.
    left : dict of str to str
        The other recurrent modules and cells, and for each the reason.
    """

    replaced: tuple[str, ...]
    left: dict[str, str]

    def __str__(self) -> str:
        """A line for each recurrent module."""
        lines = [f"{name or 'the model itself'}: replaced" for name in self.replaced]
        lines += [f"{name or 'the model itself'}: left, {reason}" for name, reason in self.left.items()]
        return "\n".join(lines) or "no recurrent modules"


def _obstacle(module: Any) -> str:
    """Why a recurrent module cannot be replaced; empty if it can."""
    if isinstance(module, torch.nn.RNNCellBase):
        return "a cell, whose single steps would gain nothing"
    if isinstance(module, Recurrent):
        return "runs on numba_pack already"
    if type(module) not in _FASTER:
        return f"{type(module).__qualname__} is a class of its own, which may compute something else"
    reason = computes_something_else(module, type(module))
    if reason:
        return reason
    for name in module._flat_weights_names:
        tensor = getattr(module, name, None)
        if not isinstance(tensor, torch.Tensor):
            return f"{name} is {kind_of(tensor)}, not a tensor"
        if tensor.device.type != "cpu":
            return f"{name} is on {tensor.device}, not on the CPU"
        if tensor.dtype not in DTYPES and tensor.dtype not in HALVES:
            return f"{name} is {tensor.dtype}, none of torch.float32, float64, bfloat16 and float16"
        fault = unreadable(tensor)
        if fault:
            return f"{name} {fault}"
    return ""


def accelerate(model: Any, *, matmul_precision: str | None = None) -> Accelerated:
    """Let all RNN, LSTM and GRU modules of a PyTorch model run on this library, forward and backward.

    Each stays the object that it is, with its parameters, hooks and options, and only becomes one of this module's
    classes. So optimizers, references and state dicts stay valid. What makes another model of it comes before:
    quantization, which knows the modules of torch.nn alone and leaves these as they are, with a warning; and tracing,
    scripting and export, which they refuse.

    Modules in bfloat16 and float16 take and return tensors of that dtype, and compute in float32 in between, with
    products in "medium" where nothing else is asked for.

    Parameters
    ----------
    model : torch.nn.Module
        Changed in place. It may be such a module itself.
    matmul_precision : {"highest", "high", "medium"}, optional
        How exactly, at least, products are computed where it is not in float64: see `numba_pack.LSTM`. It becomes an
        attribute of the modules that are replaced. If it is None, calls go by what
        `numba_pack.set_float32_matmul_precision` tells then.

    Returns
    -------
    Accelerated
        Which modules were replaced, which were not, and why: cells, subclasses, modules that are not on the CPU, that
        are of another dtype, quantized or TorchScript.

    Raises
    ------
    TypeError, ValueError
        If the model is no `torch.nn.Module`, or the precision none of the three.

    Examples
    --------
    >>> import torch
    >>> import numba_pack as nbp
    >>> model = torch.nn.ModuleDict({"encoder": torch.nn.LSTM(3, 5), "step": torch.nn.GRUCell(3, 5)})
    >>> print(nbp.interop.torch.accelerate(model, matmul_precision="high"))
    encoder: replaced
    step: left, a cell, whose single steps would gain nothing
    """
    if not isinstance(model, torch.nn.Module):
        raise TypeError(f"model must be a torch.nn.Module; got {kind_of(model)}")
    precision = None if matmul_precision is None else as_precision(matmul_precision, "matmul_precision")
    replaced, left = [], {}
    for name, module in model.named_modules():
        own = isinstance(module, (torch.nn.RNNBase, torch.nn.RNNCellBase))
        reason = not_of_torch_nn(module) or (_obstacle(module) if own else "")
        if reason:
            left[name] = reason
        elif own:
            module.__class__ = _FASTER[type(module)]
            module.matmul_precision = precision
            replaced.append(name)
    return Accelerated(tuple(replaced), left)
