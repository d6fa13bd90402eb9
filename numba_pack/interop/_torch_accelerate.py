"""A whole model of PyTorch's, whose recurrent modules run on this library from now on."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch.nn.utils import parametrize

from .._arguments import kind_of
from ..layers.precision import as_precision
from ..packing.checks import as_flag
from ._torch_kinds import computes_something_else, not_of_torch_nn, quantized_dynamically
from ._torch_modules import GRU, LSTM, RNN, Recurrent
from ._torch_read import resolved
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


def _obstacle(module: Any, frozen: bool) -> str:
    """Why a recurrent module of torch.nn cannot be replaced; empty if it can."""
    if isinstance(module, torch.nn.RNNCellBase):
        return "a cell, whose single steps would gain nothing"
    kind = _kind(module)
    ours = kind in _FASTER.values()
    if isinstance(module, Recurrent) and not (ours and frozen and not module._frozen):
        return "runs on numba_pack already"
    if kind not in _FASTER and not ours:
        return f"{type(module).__qualname__} is a class of its own, which may compute something else"
    reason = computes_something_else(module, kind)
    if reason:
        return reason
    for name in module._flat_weights_names:
        if frozen and name not in module._parameters:
            return f"{name} is computed before each call, and what is frozen must not change"
        tensor = resolved(module, name)
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


def _kind(module: Any) -> Any:
    """The class of a module, without what `torch.nn.utils.parametrize` has put before it."""
    return type(module).__base__ if parametrize.is_parametrized(module) else type(module)


def _faster_class(module: Any) -> Any:
    """The class that a module becomes; of one whose parameters are parametrized, with these as they are."""
    faster = _FASTER.get(_kind(module), _kind(module))
    if not parametrize.is_parametrized(module):
        return faster
    of = type(module)  # a class made for this module, and shared with its copies
    own = {name: value for name, value in vars(of).items() if name not in ("__dict__", "__weakref__")}
    return type(of.__name__, (faster,), own)


def _quantized(module: Any) -> tuple[Any, str]:
    """The class that a dynamically quantized module may become, or why it cannot."""
    from . import _torch_quantized as quantized

    if isinstance(module, (quantized.LSTM, quantized.GRU)):
        return None, "runs on numba_pack already"
    for kind in (quantized.LSTM, quantized.GRU):
        if type(module) in kind.__bases__:
            own = "forward" in vars(module)
            return (None, "its forward is not that of its class") if own else (kind, "")
    return None, "a quantized cell, whose single steps would gain nothing"


def accelerate(model: Any, *, matmul_precision: str | None = None, frozen: bool = False) -> Accelerated:
    """Let all RNN, LSTM and GRU modules of a PyTorch model run on this library, forward and backward.

    Each stays the object that it is, with its parameters, hooks and options, and only becomes one of this module's
    classes. So optimizers, references and state dicts stay valid. What makes another model of it comes before:
    quantization, which knows the modules of torch.nn alone and leaves these as they are, with a warning; and tracing,
    scripting and export, which they refuse.

    Modules in bfloat16 and float16 take and return tensors of that dtype, and compute in float32 in between, with
    products in "medium" where nothing else is asked for.

    Calls of few steps that keep something for a backward pass, which PyTorch computes in less time, are left to it: an
    RNN of one step, and of two with 256 units; a GRU of one step from 64 units on, of three with 256; packed sequences
    of at most 7 steps of an RNN and 4 of the others, all layers and directions counted. Their results are PyTorch's,
    equal to those of this library but for rounding, and can be differentiated twice. Inference is never left, nor are
    modules that are frozen, that drop units, or that compute in halves: there a step alone has the bits that it has in
    a sequence.

    LSTM and GRU that `torch.ao.quantization.quantize_dynamic` has made run in integers, as `numba_pack.LSTM.quantize`
    makes them, and if a precision is given, in float32, with the numbers that their integers stand for; so do those in
    halves.

    Parameters
    ----------
    model : torch.nn.Module
        Changed in place. It may be such a module itself.
    matmul_precision : {"highest", "high", "medium"}, optional
        How exactly, at least, products are computed where it is not in float64: see `numba_pack.LSTM`. It becomes an
        attribute of the modules that are replaced. If it is None, calls go by what
        `numba_pack.set_float32_matmul_precision` tells then, or if they are frozen, by what it tells now.
    frozen : bool
        For inference of a few steps a call. Parameters are packed once, and calls do not look whether they are what
        they were; so they take no gradient from now on (``requires_grad`` is False), and what changes them goes
        unnoticed, but for `load_state_dict` and `torch.nn.Module.to`. Modules that run on this library already are
        frozen, too. Those whose parameters are computed before each call, as by `torch.nn.utils.weight_norm`, are left.

    Returns
    -------
    Accelerated
        Which modules were replaced, which were not, and why: cells, subclasses, modules with a forward of their own,
        that are not on the CPU, of another dtype, quantized in another way, or TorchScript.

    Raises
    ------
    TypeError, ValueError
        If the model is no `torch.nn.Module`, the precision none of the three, or frozen no bool.

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
    frozen = as_flag(frozen, "frozen")
    replaced, left = [], {}
    for name, module in model.named_modules():
        reason, faster = not_of_torch_nn(module), None
        if quantized_dynamically(module):
            faster, reason = _quantized(module)
        elif not reason and isinstance(module, (torch.nn.RNNBase, torch.nn.RNNCellBase)):
            reason = _obstacle(module, frozen)
            faster = None if reason else _faster_class(module)
        if reason:
            left[name] = reason
        elif faster is not None:
            module.__class__ = faster
            module.matmul_precision = precision
            if frozen and isinstance(module, Recurrent):
                module._freeze()
            replaced.append(name)
    return Accelerated(tuple(replaced), left)
