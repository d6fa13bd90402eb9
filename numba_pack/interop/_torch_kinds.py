"""What a recurrent module of PyTorch is: one of torch.nn's classes, another class, or a graph."""

from __future__ import annotations

import re
from typing import Any

import torch

from .._arguments import kind_of
from ..layers import layer as layers
from ..layers import one_step
from ..layers.module import Module
from ._torch_modules import Recurrent

__all__ = ["DYNAMIC", "KINDS", "computes_something_else", "not_of_torch_nn", "quantized_dynamically"]

#: the layers and steps of this library, by the classes of torch.nn that compute the same
KINDS: dict[Any, type[Module]] = {
    torch.nn.RNN: layers.RNN,
    torch.nn.LSTM: layers.LSTM,
    torch.nn.GRU: layers.GRU,
    torch.nn.RNNCell: one_step.RNNCell,
    torch.nn.LSTMCell: one_step.LSTMCell,
    torch.nn.GRUCell: one_step.GRUCell,
}
_NAMES = {kind.__name__ for kind in KINDS}
#: a call of a recurrent operator, as the graphs of TorchScript and of `torch.export` write it
_OPERATOR = re.compile(r"\b(aten|quantized|quantized_decomposed|mkldnn)(::|\.)\w*(lstm|gru|rnn_(tanh|relu|layer))")


def _graph(module: Any) -> str:
    """The calls in the graph that a module runs instead of a forward in Python; empty if it has none."""
    if isinstance(module, torch.fx.GraphModule):
        return " ".join(str(node.target) for node in module.graph.nodes)
    try:
        return str(module.graph) if isinstance(module, torch.jit.ScriptModule) else ""
    except (AttributeError, RuntimeError):  # a list of modules, say, which has no forward
        return ""


DYNAMIC = "torch.ao.nn.quantized.dynamic.modules.rnn"


def quantized_dynamically(module: Any) -> str:
    """What a module was, by the name of its class in torch.nn, before it was quantized dynamically; empty if not so.

    It may be one that `accelerate` has taken since.
    """
    kind = type(module)
    if kind.__module__ == f"{__package__}._torch_quantized":
        kind = kind.__mro__[2]
    return kind.__name__ if kind.__module__ == DYNAMIC and kind.__name__ in _NAMES else ""


def not_of_torch_nn(module: Any) -> str:
    """Why a recurrent module is none of the classes of torch.nn; empty if it is not recurrent, or is one of them."""
    if type(module).__module__.startswith("torch.ao.nn.") and type(module).__name__ in _NAMES:
        return f"quantized: {kind_of(module)}"
    scripted = isinstance(module, torch.jit.ScriptModule)
    if (scripted and module.original_name in _NAMES) or _OPERATOR.search(_graph(module)):
        if scripted:
            return (
                "TorchScript, which runs by itself: use the model that it was made of, or layers that from_torch makes"
            )
        return "a graph, which runs by itself: use the model that it was made of"
    return ""


#: what a subclass that computes the same leaves as it is
_COMPUTE = ("forward", "__call__", "_call_impl", "_wrapped_call_impl", "permute_hidden")


def computes_something_else(module: Any, torch_kind: Any) -> str:
    """Where a module of PyTorch's class, or a subclass, goes another way than the class; empty if nowhere."""
    if "forward" in vars(module):
        return "its forward is not that of its class"
    if torch_kind.forward.__globals__ is not vars(torch.nn.modules.rnn) and not issubclass(torch_kind, Recurrent):
        return f"the forward of torch.nn.{torch_kind.__name__} is not PyTorch's own"
    for name in _COMPUTE:
        own = getattr(type(module), name, None)
        if own not in (getattr(torch_kind, name, None), getattr(Recurrent, name, None)):
            return f"{type(module).__qualname__} is a class of its own, whose {name} may compute something else"
    return ""
