"""PyTorch: layers from its modules and back, and modules of its own that run on this library.

`from_torch` and `to_torch` copy parameters between a module and a layer. `RNN`, `LSTM` and `GRU` are PyTorch's modules
with another `forward`: everything else, such as names, options, checks and pickling, they inherit. `accelerate` gives
that `forward` to modules that exist already.

A call goes down like this: `forward` turns padded, packed or single input into rows; `_Scan` runs the engine on them
and keeps the record; in the backward pass `_ScanBack` runs the engine back. Tensors and arrays share their memory.
"""

from __future__ import annotations

import sys
from typing import Any, NamedTuple

import numpy as np

from .. import layers, step_cells
from .._arguments import kind_of
from ..cpu import engine
from ..cpu.kernels import packed_weights
from ..cpu.scan import Batch, Record, States
from ..cpu.threads import get_num_threads, threads
from ..dropout import Dropout
from ..forms import no_states
from ..module import Module, option_names
from ..parameters import WEIGHTS, Weights
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


def _options(kind: type[Module], source: Any) -> dict[str, Any]:
    """The arguments but dtype and rng that make a layer of this kind like the source; PyTorch's names are ours."""
    return {name: getattr(source, name) for name in option_names(kind)}


def from_torch(module: Any, *, rng: Any = None) -> Any:
    """A layer, or a cell, with the options and the parameters of a PyTorch module.

    Parameters
    ----------
    module : torch.nn.RNN, LSTM, GRU, RNNCell, LSTMCell or GRUCell
        In float32 or float64, on any device.
    rng : None, int, or numpy.random.Generator
        Draws the seed of the dropout, as where a layer is made.

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
        raise TypeError(f"module must be a torch.nn.RNN, LSTM, GRU or a cell of these; got {kind_of(module)}")
    dtype = module.weight_ih.dtype if issubclass(kind, step_cells.Cell) else module.weight_ih_l0.dtype
    if dtype not in _DTYPES:
        raise TypeError(f"module must have dtype torch.float32 or torch.float64; got {dtype}")
    layer = kind(**_options(kind, module), dtype=_DTYPES[dtype], rng=rng)
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
        raise TypeError(
            f"layer must be an RNN, LSTM, GRU or a cell of numba_pack; got {kind_of(layer, *_KINDS.values())}"
        )
    module = torch_kind(**_options(type(layer), layer), device="cpu", dtype=_TORCH_DTYPES[layer.dtype])
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
        return Batch(_array(data), self.batch_sizes, self.order, data.shape[0])

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


class _Scan(torch.autograd.Function):
    """Output, h_n and c_n of rows (N, I), h_0, c_0 and the parameters, which are those of ``call.weights``.

    What the backward pass needs is kept as PyTorch keeps tensors: it is freed after that pass, a change in place is
    noticed, and checkpointing can do without it.
    """

    @staticmethod
    def forward(ctx: Any, call: _Call, data: Any, h_0: Any, c_0: Any, *parameters: Any) -> tuple[Any, ...]:
        results, saved = call.record(data, h_0, c_0)
        ctx.call, ctx.used, ctx.shapes = call, False, [array.shape for array in saved.record]
        ctx.set_materialize_grads(False)
        # as bytes, since the engine takes the memory back as such
        record = (torch.from_numpy(array.reshape(-1).view(np.uint8)) for array in saved.record)
        ctx.save_for_backward(*record, results[0], data, h_0, c_0, *parameters)
        return results

    @staticmethod
    def backward(ctx: Any, d_out: Any, d_h: Any, d_c: Any) -> tuple[Any, ...]:
        return _ScanBack.apply(ctx, d_out, d_h, d_c, *ctx.saved_tensors)


def _replayed(scan: Any, saved_tensors: tuple[Any, ...]) -> engine.Saved:
    """What the engine kept in a scan; if an earlier backward pass has used that up, the scan runs again for it."""
    call: _Call = scan.call
    out, data, h_0, c_0 = saved_tensors[len(scan.shapes) :][:4]
    if scan.used:
        return call.record(data, h_0, c_0)[1]
    scan.used, dtype = True, call.weights.parameters.dtype
    record = [part.numpy().view(dtype).reshape(shape) for part, shape in zip(saved_tensors, scan.shapes, strict=False)]
    return engine.Saved(
        call.weights, call.batch(data), call.states(h_0, c_0), call.dropout, Record(*record), _array(out)
    )


def _parameter_gradients(gradient: np.ndarray, parameters: list[Any]) -> list[Any]:
    """The parts of a flat gradient: tensors that share its memory."""
    parts, end = [], 0
    for parameter in parameters:
        begin, end = end, end + parameter.numel()
        parts.append(torch.from_numpy(gradient[begin:end].reshape(parameter.shape)))
    return parts


class _ScanBack(torch.autograd.Function):
    """The gradients of a `_Scan`: a function of its own, so that PyTorch knows that they depend on something."""

    @staticmethod
    def forward(_: Any, scan: Any, d_out: Any, d_h: Any, d_c: Any, *saved_tensors: Any) -> tuple[Any, ...]:
        call, input_grad = scan.call, scan.needs_input_grad[1]
        saved = _replayed(scan, saved_tensors)
        d_rows = np.zeros_like(saved.out) if d_out is None else _array(d_out)
        with _engine_threads():
            d_data, d_h_0, d_c_0, gradient = engine.replay_back(saved, d_rows, call.states(d_h, d_c), input_grad)
        h_0, c_0, *parameters = saved_tensors[len(scan.shapes) :][2:]
        return (
            None,
            torch.from_numpy(d_data) if input_grad else None,
            None if h_0 is None else torch.from_numpy(d_h_0),
            None if c_0 is None else torch.from_numpy(d_c_0),
            *_parameter_gradients(gradient, parameters),
        )

    @staticmethod
    def backward(*_: Any) -> tuple[Any, ...]:
        raise RuntimeError(
            "the gradients of numba_pack's RNN, LSTM and GRU cannot be differentiated again; "
            "where second derivatives are needed, use the modules of torch.nn"
        )


# -- modules -----------------------------------------------------------------------------------------------------------


class _Prepared(NamedTuple):
    """A module's parameters as the engine takes them, as they were at some call."""

    #: of the module's kind and sizes; its own parameters do not matter
    layer: Module
    weights: Weights
    #: the parameters that ``weights`` were packed from, one by one
    parameters: list[np.ndarray]

    def holds(self, arrays: list[np.ndarray]) -> bool:
        """Whether these are the same bits.

        PyTorch's own count of changes would be quicker to ask, but does not see what is written through ``.data`` or
        through an array. Biases come first, since as a rule they tell already.
        """
        pairs = zip(reversed(self.parameters), reversed(arrays), strict=True)
        return all(np.array_equal(kept.view(np.int32), array.view(np.int32)) for kept, array in pairs)


def _prepare(layer: Module, arrays: list[np.ndarray]) -> _Prepared:
    """Pack parameters, which may be infinite or NaN as PyTorch's may, in the order and shapes of a layer's."""
    for (name, expected), array in zip(layer.state_dict().items(), arrays, strict=True):
        if (array.shape, array.dtype) != (expected.shape, expected.dtype):
            raise RuntimeError(
                f"{name} must have shape {expected.shape} and dtype {expected.dtype}; got {array.shape}, {array.dtype}"
            )
    vector = np.concatenate([array.ravel() for array in arrays])
    weights = packed_weights(layer._kind, vector, layer._sizes)
    return _Prepared(layer, weights, list(layer.views(vector).values()))


#: `_Layer._forward` as `torch.compile` leaves it alone; made when that is in use, since to import it takes seconds
_eager: Any = None


class _Layer(torch.nn.RNNBase):
    """What the three modules share: `forward`. They hold nothing that PyTorch's do not, but for a cache."""

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
        global _eager
        if _eager is None and "torch._dynamo" in sys.modules:
            _eager = torch.compiler.disable(_Layer._forward)
        return (_eager or _Layer._forward)(self, input, hx)

    def _forward(self, input: Any, hx: Any) -> tuple[Any, Any]:
        if torch.jit.is_tracing():
            raise RuntimeError("numba_pack's modules cannot be traced or exported; do that with those of torch.nn")
        if isinstance(input, torch.nn.utils.rnn.PackedSequence):
            return self._forward_packed(input, hx)
        if isinstance(input, torch.Tensor):
            return self._forward_padded(input, hx)
        raise TypeError(f"input must be a Tensor or PyTorch's PackedSequence; got {kind_of(input)}")

    def _forward_packed(self, packed: Any, hx: Any) -> tuple[Any, Any]:
        data = self._autocast(packed.data)
        self.check_input(data, packed.batch_sizes)
        sizes = packed.batch_sizes.numpy().copy()  # what is checked here is not the caller's to change
        if packed.sorted_indices is None:
            order = inverse = np.arange(sizes[0] if len(sizes) else 0)
        else:
            order, inverse = packed.sorted_indices.numpy().copy(), packed.unsorted_indices.numpy()
        check_packed(PackedSequence(_array(data), sizes, order, inverse), "input")
        out, state = self._run(data, sizes, order, self._first_states(hx, len(order)))
        return type(packed)(out, *packed[1:]), state

    def _forward_padded(self, input: Any, hx: Any) -> tuple[Any, Any]:
        if input.dim() not in (2, 3):
            raise ValueError(f"{self._get_name()}: Expected input to be 2D or 3D, got {input.dim()}D tensor instead")
        single = input.dim() == 2
        swapped = self.batch_first and not single
        steps = self._autocast(input.unsqueeze(1) if single else input.transpose(0, 1) if swapped else input)
        self.check_input(steps, None)
        T, B = steps.shape[:2]
        sizes = np.full(T if B else 0, B)
        rows = steps.reshape(T * B, self.input_size)
        out, state = self._run(rows, sizes, np.arange(B), self._first_states(hx, B, single))
        output = out.view(T, B, out.shape[1])
        if single:
            return output.squeeze(1), tuple(part.squeeze(1) for part in state) if self._has_c else state.squeeze(1)
        return output.transpose(0, 1) if swapped else output, state

    def _autocast(self, tensor: Any) -> Any:
        """Within a scope of `torch.autocast`, where any dtype may come, the tensor in the dtype of the parameters."""
        return tensor.to(self.weight_ih_l0.dtype) if torch.is_autocast_enabled("cpu") else tensor

    @property
    def _has_c(self) -> bool:
        return isinstance(self, torch.nn.LSTM)

    def _first_states(self, hx: Any, B: int, single: bool = False) -> tuple[Any, Any]:
        """h_0 and c_0, checked, each (L * D, B, *), or None for zeros."""
        if hx is None:
            return None, None
        parts = tuple(hx) if self._has_c else (hx,)
        names = ("hidden[0]", "hidden[1]") if self._has_c else ("hidden",)
        if len(parts) != len(names) or not all(isinstance(part, torch.Tensor) for part in parts):
            raise TypeError(f"hx must be {'a tuple of two tensors' if self._has_c else 'a tensor'}; got {hx!r}")
        dims, scans = 2 if single else 3, self.num_layers * (2 if self.bidirectional else 1)
        states = []
        for name, part, size in zip(names, parts, (self.proj_size or self.hidden_size, self.hidden_size), strict=False):
            if part.dim() != dims:
                raise RuntimeError(f"Expected {name} to be {dims}-D, as the input is, got {part.dim()}-D tensor")
            part = self._autocast(part.unsqueeze(1) if single else part)
            self.check_hidden_size(part, (scans, B, size), f"Expected {name} size {{}}, got {{}}")
            if part.dtype != self.weight_ih_l0.dtype:
                raise RuntimeError(f"Expected {name} to be of {self.weight_ih_l0.dtype}, got {part.dtype}")
            states.append(part)
        return states[0], states[1] if self._has_c else None

    def _run(self, data: Any, batch_sizes: np.ndarray, order: np.ndarray, states: tuple[Any, Any]) -> tuple[Any, Any]:
        """The output (N, D * P) and the last state of rows (N, I)."""
        # by name: parameters may be computed, as by torch.nn.utils.parametrize, or exchanged, as by functional_call
        parameters = [getattr(self, name) for name in self._flat_weights_names]
        call = _Call(self._weights(parameters), batch_sizes, order, self._next_dropout())
        tensors = (data, *states, *parameters)
        if torch.is_grad_enabled() and any(tensor is not None and tensor.requires_grad for tensor in tensors):
            out, h_n, c_n = _Scan.apply(call, *tensors)
        elif call.dropout.rate:
            (out, h_n, c_n), _ = call.record(data, *states)
        else:
            out, h_n, c_n = call.infer(data, *states)
        return out, (h_n, c_n) if self._has_c else h_n

    def _weights(self, parameters: list[Any]) -> Weights:
        """The parameters as the engine takes them: packed again only if they have changed."""
        arrays = [_array(parameter) for parameter in parameters]
        prepared = self._prepared
        if prepared is None or prepared.layer.dtype != arrays[0].dtype:
            kind = next(kind for torch_kind, kind in _KINDS.items() if isinstance(self, torch_kind))
            options = {**_options(kind, self), "dropout": 0.0}
            prepared = _prepare(kind(**options, dtype=arrays[0].dtype, rng=0), arrays)
        elif not prepared.holds(arrays):
            prepared = _prepare(prepared.layer, arrays)
        if prepared is not self._prepared:
            self._prepared = prepared
        return prepared.weights

    def _next_dropout(self) -> Dropout:
        """What this call drops. The seed comes from PyTorch's generator: `torch.manual_seed` makes it reproducible."""
        if not (self.training and self.dropout and self.num_layers > 1):
            return _NO_DROPOUT
        seed, call = torch.randint(2**32, (2,)).tolist()
        return Dropout(self.dropout, np.uint32(seed), np.uint32(call))

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_prepared": None}


def _check_place(device: Any, dtype: Any) -> None:
    """Refuse to make a module that could not run."""
    device = torch.get_default_device() if device is None else torch.device(device)
    dtype = torch.get_default_dtype() if dtype is None else dtype
    if device.type != "cpu":
        raise ValueError(f"device must be the CPU, where numba_pack's modules run; got {device}")
    if dtype not in _DTYPES:
        raise TypeError(f"dtype must be torch.float32 or torch.float64; got {dtype}")


class RNN(_Layer, torch.nn.RNN):
    """`torch.nn.RNN`, run by this library: see `LSTM`.

    Parameters
    ----------
    input_size, hidden_size, num_layers, nonlinearity, bias, batch_first, dropout, bidirectional, device, dtype
        Those of `torch.nn.RNN`; the device must be the CPU, the dtype float32 or float64.

    Examples
    --------
    >>> import torch
    >>> import numba_pack as nbp
    >>> output, h_n = nbp.interop.torch.RNN(3, 5, nonlinearity="relu")(torch.ones(7, 2, 3))
    >>> output.shape, h_n.shape
    (torch.Size([7, 2, 5]), torch.Size([1, 2, 5]))
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        nonlinearity: str = "tanh",
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        _check_place(device, dtype)
        super().__init__(
            input_size, hidden_size, num_layers, nonlinearity, bias, batch_first, dropout, bidirectional,
            device=device, dtype=dtype,
        )  # fmt: skip


class LSTM(_Layer, torch.nn.LSTM):
    """`torch.nn.LSTM`, run by this library, forward and backward; packed, padded and single sequences.

    It is one, too, with its names of parameters, its options and its checks. What differs: it runs on the CPU alone and
    in float32 or float64; gradients cannot be differentiated again; it cannot be traced, scripted or exported, and
    `torch.compile` leaves it as it is. Dropout draws from PyTorch's generator, but other numbers. In a scope of
    `torch.autocast` it computes in the dtype of its parameters. Sequences of length 0 are allowed. It uses no more
    threads than both `torch.get_num_threads` and `numba_pack.get_num_threads` tell.

    Parameters may be changed in any way and at any time: a call packs them again if they are not what they were.

    Parameters
    ----------
    input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, proj_size, device, dtype
        Those of `torch.nn.LSTM`; the device must be the CPU, the dtype float32 or float64.

    Raises
    ------
    ValueError, TypeError
        As PyTorch does; if the device or the dtype is another.

    Examples
    --------
    >>> import torch
    >>> import numba_pack as nbp
    >>> lstm = nbp.interop.torch.LSTM(3, 5, bidirectional=True)
    >>> packed = torch.nn.utils.rnn.pack_sequence([torch.ones(n, 3) for n in (4, 2)])
    >>> output, (h_n, c_n) = lstm(packed)
    >>> output.data.sum().backward()
    >>> output.data.shape, h_n.shape, lstm.weight_hh_l0.grad.shape
    (torch.Size([6, 10]), torch.Size([2, 2, 5]), torch.Size([20, 5]))
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        _check_place(device, dtype)
        super().__init__(
            input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, proj_size,
            device=device, dtype=dtype,
        )  # fmt: skip


class GRU(_Layer, torch.nn.GRU):
    """`torch.nn.GRU`, run by this library: see `LSTM`.

    Parameters
    ----------
    input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, device, dtype
        Those of `torch.nn.GRU`; the device must be the CPU, the dtype float32 or float64.

    Examples
    --------
    >>> import torch
    >>> import numba_pack as nbp
    >>> output, h_n = nbp.interop.torch.GRU(3, 5, batch_first=True)(torch.ones(2, 7, 3))
    >>> output.shape, h_n.shape
    (torch.Size([2, 7, 5]), torch.Size([1, 2, 5]))
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        _check_place(device, dtype)
        super().__init__(
            input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, device=device, dtype=dtype
        )


# -- a whole model -----------------------------------------------------------------------------------------------------


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


_FASTER = {torch.nn.RNN: RNN, torch.nn.LSTM: LSTM, torch.nn.GRU: GRU}


def _obstacle(module: Any) -> str:
    """Why a recurrent module cannot be replaced; empty if it can."""
    if isinstance(module, torch.nn.RNNCellBase):
        return "a cell, whose single steps would gain nothing"
    if isinstance(module, _Layer):
        return "runs on numba_pack already"
    if type(module) not in _FASTER:
        return f"{type(module).__qualname__} is a class of its own, which may compute something else"
    if "forward" in vars(module):
        return "its forward is not that of its class"
    for name in module._flat_weights_names:
        tensor = getattr(module, name)
        if tensor.device.type != "cpu":
            return f"{name} is on {tensor.device}, not on the CPU"
        if tensor.dtype not in _DTYPES:
            return f"{name} is {tensor.dtype}, neither torch.float32 nor torch.float64"
    return ""


def accelerate(model: Any) -> Accelerated:
    """Let all RNN, LSTM and GRU modules of a PyTorch model run on this library, forward and backward.

    Each stays the object that it is, with its parameters, hooks and options, and only becomes one of this module's
    classes. So optimizers, references and state dicts stay valid.

    Parameters
    ----------
    model : torch.nn.Module
        Changed in place. It may be such a module itself.

    Returns
    -------
    Accelerated
        Which modules were replaced, which were not, and why: cells, subclasses, modules that are not on the CPU or
        neither in float32 nor in float64.

    Raises
    ------
    TypeError
        If the model is no `torch.nn.Module`.

    Examples
    --------
    >>> import torch
    >>> import numba_pack as nbp
    >>> model = torch.nn.ModuleDict({"encoder": torch.nn.LSTM(3, 5), "coarse": torch.nn.GRU(3, 5).half()})
    >>> print(nbp.interop.torch.accelerate(model))
    encoder: replaced
    coarse: left, weight_ih_l0 is torch.float16, neither torch.float32 nor torch.float64
    """
    if not isinstance(model, torch.nn.Module):
        raise TypeError(f"model must be a torch.nn.Module; got {kind_of(model)}")
    replaced, left = [], {}
    for name, module in model.named_modules():
        if isinstance(module, (torch.nn.RNNBase, torch.nn.RNNCellBase)):
            reason = _obstacle(module)
            if reason:
                left[name] = reason
            else:
                module.__class__ = _FASTER[type(module)]
                replaced.append(name)
    return Accelerated(tuple(replaced), left)
