"""PyTorch: layers from its modules and back, and modules of its own that run on this library.

`from_torch` and `to_torch` copy parameters between a module and a layer. `RNN`, `LSTM` and `GRU` are PyTorch's modules
with another `forward`: everything else, such as names, options, checks and pickling, they inherit. `accelerate` gives
that `forward` to modules that exist already.

A call goes down like this: `forward` turns padded, packed or single input into rows; `_Scan` runs the engine on them
and keeps the record; in the backward pass `_ScanBack` runs the engine back. Tensors and arrays share their memory.
"""

from __future__ import annotations

from inspect import signature
from typing import Any, NamedTuple

import numpy as np

from .. import layers, step_cells
from ..cpu import engine
from ..cpu.scan import Batch, Record, States
from ..cpu.threads import get_num_threads, threads
from ..dropout import Dropout
from ..forms import no_states
from ..module import Module
from ..parameters import Weights
from ..sequences import PackedSequence, check_packed

try:
    import torch
except ImportError as error:
    raise ImportError("numba_pack.interop.torch needs PyTorch: pip install numba_pack[torch]") from error

__all__ = ["GRU", "LSTM", "RNN", "Accelerated", "accelerate", "from_torch", "to_torch"]

_DTYPES = {torch.float32: np.dtype(np.float32), torch.float64: np.dtype(np.float64)}
_TORCH_DTYPES = {dtype: torch_dtype for torch_dtype, dtype in _DTYPES.items()}
#: by PyTorch's class
_KINDS: dict[Any, type[Module]] = {
    torch.nn.RNN: layers.RNN,
    torch.nn.LSTM: layers.LSTM,
    torch.nn.GRU: layers.GRU,
    torch.nn.RNNCell: step_cells.RNNCell,
    torch.nn.LSTMCell: step_cells.LSTMCell,
    torch.nn.GRUCell: step_cells.GRUCell,
}
_NO_DROPOUT = Dropout(0.0, np.uint32(0), np.uint32(0))


# -- parameters, to and fro --------------------------------------------------------------------------------------------


def from_torch(module: Any) -> Any:
    """A layer, or a cell, with the options and the parameters of a PyTorch module.

    Parameters
    ----------
    module : torch.nn.RNN, LSTM, GRU, RNNCell, LSTMCell or GRUCell
        In float32 or float64, on any device.

    Returns
    -------
    RNN, LSTM, GRU, RNNCell, LSTMCell or GRUCell
        Of this library. Its parameters are a copy.

    Raises
    ------
    TypeError
        If the module is none of these or has another dtype.
    ValueError
        If a parameter is not finite.

    Examples
    --------
    >>> import torch
    >>> import numba_pack as nbp
    >>> nbp.interop.torch.from_torch(torch.nn.LSTM(3, 5, num_layers=2, proj_size=4))
    LSTM(3, 5, num_layers=2, proj_size=4)
    """
    kind = next((kind for torch_kind, kind in _KINDS.items() if isinstance(module, torch_kind)), None)
    if kind is None:
        raise TypeError(f"module must be a torch.nn.RNN, LSTM, GRU or a cell of these; got {type(module).__name__}")
    dtype = module.weight_ih.dtype if issubclass(kind, step_cells.Cell) else module.weight_ih_l0.dtype
    if dtype not in _DTYPES:
        raise TypeError(f"module must have dtype torch.float32 or torch.float64; got {dtype}")
    options = {name: getattr(module, name) for name in signature(kind).parameters if name not in ("dtype", "rng")}
    layer = kind(**options, dtype=_DTYPES[dtype])  # type: ignore[call-arg]
    # getattr, for parametrized modules, whose state dict holds what the parameters are computed from
    layer.load_state_dict({name: getattr(module, name).detach().cpu() for name in layer.state_dict()})
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
        PyTorch's own, on the CPU and in the dtype of the layer. Its parameters are a copy.

    Raises
    ------
    TypeError
        If the layer is none of these.

    Examples
    --------
    >>> import numba_pack as nbp
    >>> nbp.interop.torch.to_torch(nbp.GRU(3, 5, bidirectional=True))
    GRU(3, 5, bidirectional=True)
    """
    torch_kind = next((torch_kind for torch_kind, kind in _KINDS.items() if type(layer) is kind), None)
    if torch_kind is None:
        raise TypeError(f"layer must be an RNN, LSTM, GRU or a cell of numba_pack; got {type(layer).__name__}")
    options = {name: getattr(layer, name) for name in signature(type(layer)).parameters if name not in ("dtype", "rng")}
    module = torch_kind(**options, device="cpu", dtype=_TORCH_DTYPES[layer.dtype])
    module.load_state_dict({name: torch.from_numpy(value.copy()) for name, value in layer.state_dict().items()})
    return module


# -- autograd ----------------------------------------------------------------------------------------------------------


def _array(tensor: Any) -> np.ndarray:
    """The memory of a tensor, as an array; a copy only where rows are not contiguous."""
    if tensor.dtype not in _DTYPES or tensor.device.type != "cpu":
        raise RuntimeError(
            "numba_pack computes in torch.float32 and torch.float64, on the CPU; "
            f"got a tensor of {tensor.dtype} on {tensor.device}"
        )
    array: np.ndarray = tensor.detach().contiguous().numpy()
    return array


def _engine_threads() -> Any:
    """A scope in which no more threads are used than PyTorch may use."""
    return threads(min(get_num_threads(), torch.get_num_threads()))


class _Call(NamedTuple):
    """What a call of a layer computes with, besides tensors."""

    weights: Weights
    #: (T,)
    batch_sizes: np.ndarray
    #: (B,) in sorted order, the numbers of the sequences in the caller's
    order: np.ndarray
    dropout: Dropout

    def batch(self, data: Any) -> Batch:
        """The rows (N, I) of a tensor as the engine takes them."""
        return Batch(_array(data), self.batch_sizes, self.order)

    def states(self, h: Any, c: Any) -> States:
        """States, or gradients of states, each (L * D, B, *) or None for zero."""
        weights, nothing = self.weights, no_states(self.weights.parameters.dtype)
        if h is None and c is None:
            return nothing

        def given(part: Any, size: int) -> np.ndarray:
            shape = (weights.num_layers * weights.num_directions, len(self.order), size)
            return np.zeros(shape, weights.parameters.dtype) if part is None else _array(part)

        has_c = WEIGHTS[type(weights)].has_c
        return States(given(h, weights.output_size), given(c, weights.hidden_size) if has_c else nothing.c, True)

    def infer(self, data: Any, h_0: Any, c_0: Any) -> tuple[Any, ...]:
        """Output (N, D * P), h_n (L * D, B, P) and c_n (L * D, B, H; empty where there is none)."""
        with _engine_threads():
            results = engine.infer(self.weights, self.batch(data), self.states(h_0, c_0))
        return tuple(map(torch.from_numpy, results))

    def record(self, data: Any, h_0: Any, c_0: Any) -> tuple[tuple[Any, ...], engine.Saved]:
        """As `infer`, with dropout, and what the backward pass needs."""
        with _engine_threads():
            *results, saved = engine.record(self.weights, self.batch(data), self.states(h_0, c_0), self.dropout)
        return tuple(map(torch.from_numpy, results)), saved

    def parameter_gradients(self, gradient: np.ndarray, like: list[Any]) -> list[Any]:
        """The parts of a flat gradient: tensors that share its memory."""
        ends = np.cumsum([parameter.numel() for parameter in like])
        parts = np.split(gradient, ends[:-1])
        return [torch.from_numpy(part.reshape(parameter.shape)) for part, parameter in zip(parts, like, strict=True)]


class _Scan(torch.autograd.Function):
    """Output, h_n and c_n of rows (N, I), h_0, c_0 and the parameters, which are those of ``call.weights``.

    What the backward pass needs is kept as PyTorch keeps tensors: it is freed after that pass, a change in place is
    noticed, and checkpointing can do without it.
    """

    @staticmethod
    def forward(ctx: Any, call: _Call, data: Any, h_0: Any, c_0: Any, *parameters: Any) -> tuple[Any, ...]:
        results, saved = call.record(data, h_0, c_0)
        ctx.call, ctx.used = call, False
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*map(torch.from_numpy, saved.record), results[0], data, h_0, c_0, *parameters)
        return results

    @staticmethod
    def backward(ctx: Any, d_out: Any, d_h: Any, d_c: Any) -> tuple[Any, ...]:
        return _ScanBack.apply(ctx, d_out, d_h, d_c, *ctx.saved_tensors)  # type: ignore[no-any-return]


class _ScanBack(torch.autograd.Function):
    """The gradients of a `_Scan`: a function of its own, so that PyTorch knows that they depend on something."""

    @staticmethod
    def forward(_: Any, scan: Any, d_out: Any, d_h: Any, d_c: Any, *saved_tensors: Any) -> tuple[Any, ...]:
        call: _Call = scan.call
        fields = len(Record._fields)
        record, (out, data, h_0, c_0, *parameters) = saved_tensors[:fields], saved_tensors[fields:]
        if scan.used:  # a second pass through a retained graph: the first one has used up the record
            saved = call.record(data, h_0, c_0)[1]
        else:
            kept = Record(*map(_array, record))
            saved = engine.Saved(call.weights, call.batch(data), call.states(h_0, c_0), call.dropout, kept, _array(out))
        scan.used = True
        d_rows = np.zeros_like(saved.out) if d_out is None else _array(d_out)
        with _engine_threads():
            d_data, d_h_0, d_c_0, gradient = engine.replay_back(
                saved, d_rows, call.states(d_h, d_c), scan.needs_input_grad[1]
            )
        return (
            None,
            torch.from_numpy(d_data) if scan.needs_input_grad[1] else None,
            None if h_0 is None else torch.from_numpy(d_h_0),
            None if c_0 is None else torch.from_numpy(d_c_0),
            *call.parameter_gradients(gradient, parameters),
        )

    @staticmethod
    def backward(*_: Any) -> tuple[Any, ...]:
        raise RuntimeError(
            "the gradients of numba_pack's RNN, LSTM and GRU cannot be differentiated again; "
            "where second derivatives are needed, use the modules of torch.nn"
        )


# -- modules -----------------------------------------------------------------------------------------------------------


class _Prepared(NamedTuple):
    """A module's parameters as the engine takes them, as they were at a call."""

    layer: layers.Layer
    weights: Weights
    #: the parameters in ``weights``, one by one
    parameters: list[np.ndarray]

    def holds(self, arrays: list[np.ndarray]) -> bool:
        """Whether these are the same bits.

        Not even a change that PyTorch does not count as one, through ``.data`` or an array, goes unnoticed. That reads
        all parameters, if none has changed; else the biases, which are compared first, as a rule tell.
        """
        pairs = zip(reversed(self.parameters), reversed(arrays), strict=True)
        return all(np.array_equal(kept.view(np.int32), array.view(np.int32)) for kept, array in pairs)


class _Layer(torch.nn.RNNBase):  # type: ignore[misc]
    """What the three modules share: `forward`. They hold nothing that those of PyTorch do not."""

    _prepared: _Prepared | None = None

    def forward(self, input: Any, hx: Any = None) -> tuple[Any, Any]:
        """Run the layer.

        Parameters
        ----------
        input : torch.nn.utils.rnn.PackedSequence, or Tensor, shape (T, B, I), (B, T, I) with batch_first, or (T, I)
        hx : Tensor, or tuple of two for an LSTM, optional
            h_0 (L * D, B, P) and c_0 (L * D, B, H), without B for input (T, I). Zeros if omitted.

        Returns
        -------
        output
            In the form of the input, with D * P columns.
        state
            In the form of hx.
        """
        if torch.jit.is_tracing():
            raise RuntimeError("numba_pack's modules cannot be traced or exported; do that with those of torch.nn")
        if isinstance(input, torch.nn.utils.rnn.PackedSequence):
            return self._forward_packed(input, hx)
        if input.dim() not in (2, 3):
            raise ValueError(f"{self._get_name()}: Expected input to be 2D or 3D, got {input.dim()}D tensor instead")
        single, swap = input.dim() == 2, input.dim() == 3 and self.batch_first
        steps = input.unsqueeze(1) if single else input.transpose(0, 1) if swap else input  # (T, B, I)
        self.check_input(steps, None)
        T, B = steps.shape[:2]
        states = self._states(steps, hx, B, single)
        sizes = np.full(T if B else 0, B)
        out, *states = self._run(steps.reshape(T * B, self.input_size), sizes, np.arange(B), states)
        output = out if single else out.view(T, B, out.shape[1])
        if single:
            states = [state.squeeze(1) for state in states]
        return output.transpose(0, 1) if swap else output, self._state_back(states)
