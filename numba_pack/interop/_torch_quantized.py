"""LSTM and GRU as torch.ao.nn.quantized.dynamic has them, with a `forward` that calls a layer of this library.

Imported when such a module is met. Of integers the layer has integers again, of halves the floats that they stand for.
Neither is PyTorch's product to the bit: that rounds a whole batch of input, or of h, to 8 bits with one scale, where a
layer in integers takes one for each row. Floats in place of its integers are a little nearer to PyTorch's results (2 to
14 % less off, of 3e-4 for an LSTM of 128 units and 3e-3 for a GRU), but four times the memory, and slower than
PyTorch's where one step is asked for. They are what a precision that is given means.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

import torch
from torch.ao.nn.quantized import dynamic

from .._backend import backend
from ..layers.precision import get_float32_matmul_precision
from ._torch_autograd import engine_threads
from ._torch_copy import from_torch
from ._torch_modules import called_uncompiled, compiling
from ._torch_numbers import numbers
from ._torch_packed import packed_from_torch
from ._torch_tensors import TRACED, as_array, refuse_tracing

__all__ = ["GRU", "LSTM"]


class _Quantized:
    """What both share: `forward`, and the layer that it calls."""

    if TYPE_CHECKING:  # alone, since TorchScript tries to read annotations
        matmul_precision: str | None
        #: what PyTorch has packed, precisions, and the layer that was made of them
        _made: tuple[list[Any], tuple[str | None, str], Any] | None
    matmul_precision = _made = None

    def forward(self: Any, input: Any, hx: Any = None) -> tuple[Any, Any]:
        """Run the layer: as PyTorch's, without gradients, dropout, or single sequences."""
        if compiling():
            return called_uncompiled(_Quantized._forward, self, input, hx)
        single = isinstance(input, torch.Tensor) and input.dim() == 2
        found = None if single else numbers(self._layer(), self.mode == "LSTM", self.batch_first, input, hx)
        return self._forward(input, hx) if found is None else found

    def _forward(self: Any, input: Any, hx: Any) -> tuple[Any, Any]:
        packed = isinstance(input, torch.nn.utils.rnn.PackedSequence)
        data, sizes = (input.data, input.batch_sizes) if packed else (input, None)
        refuse_tracing(data)
        if hx is None:
            self.check_input(data, sizes)
        else:
            self.check_forward_args(data, hx, sizes)
        pair, swapped = self.mode == "LSTM", self.batch_first and not packed
        if packed:
            x: Any = packed_from_torch(input._replace(data=data.detach()))
        else:
            x = as_array(data.transpose(0, 1) if swapped else data)
        state = None if hx is None else tuple(map(as_array, hx)) if pair else as_array(hx)
        with engine_threads():
            out, last = self._layer()(x, state)
        states = tuple(map(torch.from_numpy, last)) if pair else torch.from_numpy(last)
        if packed:
            return type(input)(torch.from_numpy(out.data), *input[1:]), states
        return torch.from_numpy(out.swapaxes(0, 1) if swapped else out), states

    def _layer(self: Any) -> Any:
        """The layer, whose padded input is (T, B, I); made anew if other weights were loaded."""
        packed = [part.param for part in self._modules["_all_weight_values"]._modules.values()]
        made, precisions = self._made, (self.matmul_precision, get_float32_matmul_precision())
        if made is None or made[1] != precisions or any(a is not b for a, b in zip(made[0], packed, strict=True)):
            layer = from_torch(self, matmul_precision=self.matmul_precision)
            if layer.batch_first:
                plain = type(layer)(**{**layer._options(), "batch_first": False})
                plain.parameters = layer.parameters
                layer = plain
            if self.matmul_precision is None and self.dtype == torch.qint8 and backend == "cpu":
                layer = layer.quantize("int8")
            made = self._made = packed, precisions, layer
        return made[2]

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_made": None}

    def __prepare_scriptable__(self) -> NoReturn:
        """What `torch.jit.script` calls first."""
        raise RuntimeError(TRACED)


class LSTM(_Quantized, dynamic.LSTM):
    """`torch.ao.nn.quantized.dynamic.LSTM`, run by this library."""


class GRU(_Quantized, dynamic.GRU):
    """`torch.ao.nn.quantized.dynamic.GRU`, run by this library."""
