"""A call by PyTorch's own operators, which can be differentiated as often as one likes, and in forward mode.

They run where that is asked for: for the derivatives of gradients that this library has computed, in forward mode, and
in transforms of `torch.func` that differentiate more than once.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch.autograd import forward_ad

__all__ = ["Operators", "derived_again"]

_FUNCTIONS = {mode: getattr(torch._VF, mode.lower()) for mode in ("LSTM", "GRU", "RNN_TANH", "RNN_RELU")}
_transforms = torch._C._functorch.get_interpreter_stack
_Kind = torch._C._functorch.TransformType


def derived_again(tensors: Any) -> bool:
    """Whether more is wanted of a call on these tensors, some of them None, than to go back once."""
    kinds = [transform.key() for transform in _transforms() or ()]
    if kinds:
        return _Kind.Jvp in kinds or kinds.count(_Kind.Grad) > 1
    # the level tells at once, as long as PyTorch has it by this name
    return getattr(forward_ad, "_current_level", 0) >= 0 and any(
        tensor is not None and forward_ad.unpack_dual(tensor).tangent is not None for tensor in tensors
    )


class Operators(NamedTuple):
    """What PyTorch is told of a call on rows, besides tensors."""

    #: one of `torch.nn.RNNBase.mode`
    mode: str
    num_layers: int
    bidirectional: bool
    #: (T,)
    batch_sizes: np.ndarray
    #: (B,) in sorted order, the numbers of the sequences in the caller's
    order: np.ndarray
    #: of dropout between layers
    rate: float = 0.0

    def run(self, data: Any, h_0: Any, c_0: Any, *parameters: Any) -> tuple[Any, ...]:
        """Output (N, D * P), h_n (L * D, B, P) and of an LSTM c_n (L * D, B, H), of rows (N, I) and such states."""
        scans, B = self.num_layers * (1 + self.bidirectional), len(self.order)
        running = int(self.batch_sizes[0]) if len(self.batch_sizes) else 0  # the rest has no steps
        order, inverse = torch.from_numpy(self.order), torch.from_numpy(np.argsort(self.order))
        rows, outputs = parameters[1].shape
        states = []
        for state, size in ((h_0, outputs), (c_0, rows // 4)) if self.mode == "LSTM" else ((h_0, outputs),):
            state = data.new_zeros(scans, B, size) if state is None else state
            states.append(state.index_select(1, order))
        first = [state[:, :running] for state in states]
        hx = first if self.mode == "LSTM" else first[0]
        function, bias = _FUNCTIONS[self.mode], any(of.dim() == 1 for of in parameters)
        told = parameters, bias, self.num_layers, self.rate, bool(self.rate), self.bidirectional
        if running and self.batch_sizes[-1] == running:  # transforms have no way through what is packed
            with torch.backends.mkldnn.flags(enabled=False):  # which has no forward mode
                out, *last = function(data.reshape(-1, running, data.shape[1]), hx, *told, False)
            out = out.reshape(len(data), -1)
        else:
            out, *last = function(data, torch.from_numpy(self.batch_sizes), hx, *told)
        ends = [torch.cat([end, state[:, running:]], 1) for end, state in zip(last, states, strict=True)]
        return out, *[end.index_select(1, inverse) for end in ends]
