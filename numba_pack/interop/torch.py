"""PyTorch: layers from its modules and back, and modules of its own that run on this library.

`from_torch` and `to_torch` copy parameters between a module and a layer. `RNN`, `LSTM` and `GRU` are PyTorch's modules
with another `forward`: everything else, such as names, options, checks and pickling, they inherit. `accelerate` gives
that `forward` to modules that exist already.

A call goes down like this: `forward` turns padded, packed or single input into rows; `_Scan` runs the engine on them
and keeps the record; in the backward pass `_ScanBack` runs the engine back. Tensors and arrays share their memory.
"""

from __future__ import annotations

import copy
import inspect
import re
import sys
import warnings
from typing import Any, NamedTuple, NoReturn

import numpy as np

from .._arguments import kind_of
from ..batch import Batch, Record, States, no_states
from ..cells.dropout import Dropout
from ..cells.parameters import WEIGHTS, Weights
from ..cpu import engine
from ..cpu.kernels import packed_weights
from ..cpu.threads import get_num_threads, threads
from ..layers import layer as layers
from ..layers import one_step
from ..layers.module import Module, option_names
from ..packing.sequences import PackedSequence, check_packed

try:
    import torch
    from torch.autograd import forward_ad
    from torch.nn.utils import parametrize
    from torch.nn.utils.prune import BasePruningMethod
    from torch.nn.utils.spectral_norm import SpectralNorm
    from torch.nn.utils.weight_norm import WeightNorm
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
    torch.nn.RNNCell: one_step.RNNCell,
    torch.nn.LSTMCell: one_step.LSTMCell,
    torch.nn.GRUCell: one_step.GRUCell,
}
_NO_DROPOUT = Dropout(0.0, np.uint32(0), np.uint32(0))


# -- what is refused ---------------------------------------------------------------------------------------------------

_TRACED = (
    "numba_pack's modules cannot be traced, scripted or exported; "
    "do that with those of torch.nn, which the modules of a model are before `accelerate`"
)
_TWICE = (
    "the gradients of numba_pack's RNN, LSTM and GRU cannot be differentiated again, nor can results be in forward "
    "mode; where second derivatives are needed, use the modules of torch.nn"
)
_BATCHED = (
    "the gradients of numba_pack's modules cannot be asked for with is_grads_batched=True or vectorize=True; "
    "use torch.func.jacrev or torch.func.vmap"
)


def _refuse_derivatives(*_: Any) -> NoReturn:
    raise RuntimeError(_TWICE)


def _refuse_tracing(value: Any) -> None:
    """Refuse where PyTorch records what is computed, since what runs here would go in as a constant."""
    fx, proxies = sys.modules.get("torch.fx"), sys.modules.get("torch.fx.experimental.proxy_tensor")
    if (
        torch.jit.is_tracing()
        or (proxies is not None and proxies.get_proxy_mode() is not None)
        or (fx is not None and isinstance(value, fx.Proxy))
        or type(value).__module__.startswith("torch._subclasses.")  # such as FakeTensor
        or (isinstance(value, torch.Tensor) and torch._is_functional_tensor(value))
    ):
        raise RuntimeError(_TRACED)


# -- parameters, to and fro --------------------------------------------------------------------------------------------


def _options(kind: type[Module], source: Any) -> dict[str, Any]:
    """The arguments but dtype and rng that make a layer of this kind like the source; PyTorch's names are ours."""
    return {name: getattr(source, name) for name in option_names(kind)}


def from_torch(module: Any, *, rng: Any = None) -> Any:
    """A layer, or a cell, with the options and the parameters of a PyTorch module.

    Parameters
    ----------
    module : torch.nn.RNN, LSTM, GRU, RNNCell, LSTMCell or GRUCell
        In float32 or float64, on any device. Parameters that are computed, as by `torch.nn.utils.parametrizations`,
        `weight_norm` or pruning, are taken as they are now.
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
        If a parameter is not there, is not finite, or has no values (on the device "meta").

    Examples
    --------
    >>> import torch
    >>> import numba_pack as nbp
    >>> nbp.interop.torch.from_torch(torch.nn.LSTM(3, 5, num_layers=2, proj_size=4))
    LSTM(3, 5, num_layers=2, proj_size=4)
    """
    torch_kind = next((torch_kind for torch_kind in _KINDS if isinstance(module, torch_kind)), None)
    if torch_kind is None:
        reason = _not_of_torch_nn(module)
        raise TypeError(
            f"module must be a torch.nn.RNN, LSTM, GRU or a cell of these; got {kind_of(module)}"
            + (f": {reason}" if reason else "")
        )
    reason = _computes_something_else(module, torch_kind)
    if reason:
        raise TypeError(f"module must compute what torch.nn.{torch_kind.__name__} does; {reason}")
    kind = _KINDS[torch_kind]
    options = _options(kind, module)
    of_a_cell = ["weight_ih", "weight_hh", *["bias_ih", "bias_hh"] * bool(options["bias"])]
    names = getattr(module, "_flat_weights_names", of_a_cell)
    computed = _computed_by_hooks(module, names)
    parameters = {name: computed[name]() if name in computed else _resolved(module, name) for name in names}
    dtype = parameters[names[0]].dtype
    for name, parameter in parameters.items():
        if parameter.dtype not in _DTYPES:
            raise TypeError(f"module must have dtype torch.float32 or torch.float64; got {parameter.dtype} in {name}")
        if parameter.dtype != dtype:
            raise TypeError(f"module must have one dtype; got {dtype} and, in {name}, {parameter.dtype}")
        fault = _unreadable(parameter)
        if fault:
            raise ValueError(f"module must have parameters that can be read; {name} {fault}")
    layer = kind(**options, dtype=_DTYPES[dtype], rng=rng)
    layer.load_state_dict({name: parameter.detach().cpu().resolve_neg() for name, parameter in parameters.items()})
    return layer


#: what a subclass that computes the same leaves as it is
_COMPUTE = ("forward", "__call__", "_call_impl", "_wrapped_call_impl", "permute_hidden")


def _computes_something_else(module: Any, torch_kind: Any) -> str:
    """Where a module of PyTorch's class, or a subclass, goes another way than the class; empty if nowhere."""
    if "forward" in vars(module):
        return "its forward is not that of its class"
    for name in _COMPUTE:
        own = getattr(type(module), name, None)
        if own not in (getattr(torch_kind, name, None), getattr(_Layer, name, None)):
            return f"{type(module).__qualname__} is a class of its own, whose {name} may compute something else"
    return ""


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


def _unreadable(tensor: Any) -> str:
    """Why there is no array of a tensor's values; empty if there is."""
    if tensor.is_nested:
        return "is a nested tensor"
    if tensor.device.type == "meta" or type(tensor).__module__.startswith("torch._subclasses."):
        return "has no values"
    if tensor.layout != torch.strided:
        return f"is {tensor.layout}, not dense"
    if type(tensor).__torch_dispatch__ is not torch.Tensor.__torch_dispatch__:
        return f"is a {kind_of(tensor)}"
    return ""


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
    try:
        array: np.ndarray = tensor.detach().contiguous().numpy()
    except (RuntimeError, TypeError) as error:
        if tensor.is_neg():  # a view of what has the other sign
            return _array(tensor.resolve_neg())
        _refuse_tracing(tensor)
        fault = _unreadable(tensor) or str(error)
        raise RuntimeError(f"numba_pack computes with tensors in the CPU's memory; this one {fault}") from error
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
        if torch._C._are_functorch_transforms_active():  # `torch.vmap` over `torch.autograd.grad`
            call, tensors = ctx.call, ctx.saved_tensors[len(ctx.shapes) + 1 :]
            plan = _Plan(lambda _: call.weights, call.batch_sizes, call.order, call.dropout.rate)
            seed = torch.tensor([int(call.dropout.seed), int(call.dropout.call)])
            return None, *_only(tensors, _PlannedBack.apply(plan, seed, d_out, d_h, d_c, *tensors))
        return _ScanBack.apply(ctx, d_out, d_h, d_c, *ctx.saved_tensors)

    jvp = staticmethod(_refuse_derivatives)


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
        if any(torch._C._functorch.is_legacy_batchedtensor(d) for d in (d_out, d_h, d_c) if d is not None):
            raise RuntimeError(_BATCHED)
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

    backward = jvp = staticmethod(_refuse_derivatives)


# -- torch.func --------------------------------------------------------------------------------------------------------


class _Plan:
    """A `_Call` but for what depends on tensors, which may stand for others in a transform of `torch.func`.

    It is no tuple, in which such transforms would look for tensors.
    """

    def __init__(self, weights: Any, batch_sizes: np.ndarray, order: np.ndarray, rate: float) -> None:
        self.weights, self.batch_sizes, self.order, self.rate = weights, batch_sizes, order, rate

    def call(self, seed: Any, parameters: Any) -> _Call:
        """What to compute with; the seed of dropout is a tensor of two integers."""
        dropout = Dropout(self.rate, *map(np.uint32, seed.tolist()))
        return _Call(self.weights(parameters), self.batch_sizes, self.order, dropout)


def _only(tensors: Any, gradients: Any) -> tuple[Any, ...]:
    """The gradients of those tensors that there are."""
    return tuple(None if tensor is None else part for tensor, part in zip(tensors, gradients, strict=True))


def _one_by_one(function: Any, info: Any, in_dims: tuple[Any, ...], arguments: tuple[Any, ...]) -> Any:
    """`vmap`: the examples one after the other."""
    if not info.batch_size:
        raise RuntimeError("numba_pack's modules cannot be mapped over no examples")
    results = [
        function.apply(
            *(
                argument if axis is None else argument.select(axis, example)
                for argument, axis in zip(arguments, in_dims, strict=True)
            )
        )
        for example in range(info.batch_size)
    ]
    stacked = tuple(map(torch.stack, zip(*results, strict=True)))
    return stacked, (0,) * len(stacked)


class _Planned(torch.autograd.Function):
    """`_Scan` within transforms of `torch.func`: nothing is kept, and for the backward pass it runs again."""

    @staticmethod
    def forward(plan: _Plan, seed: Any, data: Any, h_0: Any, c_0: Any, *parameters: Any) -> tuple[Any, ...]:
        call = plan.call(seed, parameters)
        return call.record(data, h_0, c_0)[0] if plan.rate else call.infer(data, h_0, c_0)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.plan, *tensors = inputs
        ctx.save_for_backward(*tensors)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Any, ...]:
        seed, *tensors = ctx.saved_tensors
        return None, None, *_only(tensors, _PlannedBack.apply(ctx.plan, seed, *gradients, *tensors))

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *arguments: Any) -> Any:
        return _one_by_one(_Planned, info, in_dims, arguments)

    jvp = staticmethod(_refuse_derivatives)


class _PlannedBack(torch.autograd.Function):
    """The gradients of a `_Planned` with respect to all of its tensors, whether they are given or not."""

    @staticmethod
    def forward(
        plan: _Plan, seed: Any, d_out: Any, d_h: Any, d_c: Any, data: Any, h_0: Any, c_0: Any, *parameters: Any
    ) -> tuple[Any, ...]:
        call = plan.call(seed, parameters)
        saved = call.record(data, h_0, c_0)[1]
        d_rows = np.zeros_like(saved.out) if d_out is None else _array(d_out)
        with _engine_threads():
            *of_input, gradient = engine.replay_back(saved, d_rows, call.states(d_h, d_c), True)
        return *map(torch.from_numpy, of_input), *_parameter_gradients(gradient, list(parameters))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        pass

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *arguments: Any) -> Any:
        return _one_by_one(_PlannedBack, info, in_dims, arguments)

    backward = jvp = staticmethod(_refuse_derivatives)


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
            told = {"reason": _TRACED} if "reason" in inspect.signature(torch.compiler.disable).parameters else {}
            _eager = torch.compiler.disable(_Layer._forward, **told)
        return (_eager or _Layer._forward)(self, input, hx)

    def _forward(self, input: Any, hx: Any) -> tuple[Any, Any]:
        if isinstance(input, torch.nn.utils.rnn.PackedSequence):
            _refuse_tracing(input.data)
            return self._forward_packed(input, hx)
        _refuse_tracing(input)
        if isinstance(input, torch.Tensor) and not input.is_nested:
            if input.layout != torch.strided:
                _array(input)  # which says so
            return self._forward_padded(input, hx)
        what = "a nested tensor" if isinstance(input, torch.Tensor) else kind_of(input)
        raise TypeError(
            f"input must be a Tensor or PyTorch's PackedSequence, as torch.nn.utils.rnn.pack_sequence makes; got {what}"
        )

    def _forward_packed(self, packed: Any, hx: Any) -> tuple[Any, Any]:
        data = self._autocast(packed.data)
        self.check_input(data, packed.batch_sizes)
        sizes = _integers(packed.batch_sizes)  # what is checked here is not the caller's to change
        if packed.sorted_indices is None:
            order = inverse = np.arange(sizes[0] if len(sizes) else 0)
        else:
            order, inverse = _integers(packed.sorted_indices), _integers(packed.unsorted_indices)
        rows = np.broadcast_to(np.float32(0), tuple(data.shape))  # whose number alone is checked
        check_packed(PackedSequence(rows, sizes, order, inverse), "input")
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
        parts = tuple(hx) if self._has_c and isinstance(hx, (tuple, list)) else (hx,)
        names = ("hidden[0]", "hidden[1]") if self._has_c else ("hidden",)
        if len(parts) != len(names) or not all(isinstance(part, torch.Tensor) for part in parts):
            for part in parts:
                _refuse_tracing(part)
            got = ", ".join(kind_of(part) for part in parts)
            raise TypeError(
                f"hx must be {'a tuple of two tensors' if self._has_c else 'a tensor'}; got {kind_of(hx)}"
                + (f" of {got}" if isinstance(hx, (tuple, list)) else "")
            )
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
        tensors = (data, *states, *parameters)
        if torch._C._are_functorch_transforms_active():
            rate = self.dropout if self.training and self.num_layers > 1 else 0.0
            seed = torch.randint(2**32, (2,)) if rate else torch.zeros(2, dtype=torch.int64)
            plan = _Plan(self._weights, batch_sizes, order, rate)
            out, h_n, c_n = _Planned.apply(plan, seed, *tensors)
            return out, (h_n, c_n) if self._has_c else h_n
        # the level tells at once, as long as PyTorch has it by this name
        if getattr(forward_ad, "_current_level", 0) >= 0 and any(
            tensor is not None and forward_ad.unpack_dual(tensor).tangent is not None for tensor in tensors
        ):
            _refuse_derivatives()
        call = _Call(self._weights(parameters), batch_sizes, order, self._next_dropout())
        if torch.is_grad_enabled() and any(tensor is not None and tensor.requires_grad for tensor in tensors):
            out, h_n, c_n = _Scan.apply(call, *tensors)
        elif call.dropout.rate:
            (out, h_n, c_n), _ = call.record(data, *states)
        else:
            out, h_n, c_n = call.infer(data, *states)
        return out, (h_n, c_n) if self._has_c else h_n

    def _weights(self, parameters: Any) -> Weights:
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

    def __prepare_scriptable__(self) -> NoReturn:
        """What `torch.jit.script` calls first."""
        raise RuntimeError(_TRACED)

    @property
    def qconfig(self) -> None:
        """How to quantize this module, which PyTorch's quantization tells every module of a model: never kept."""
        raise AttributeError("qconfig")

    @qconfig.setter
    def qconfig(self, _: Any) -> None:
        warnings.warn(
            f"{kind_of(self)} stays as it is: PyTorch's quantization does not know numba_pack's modules; where "
            "they are to be quantized, do that with those of torch.nn, before `accelerate`",
            stacklevel=2,
        )


def _integers(tensor: Any) -> np.ndarray:
    """A copy of an index tensor, also within transforms of `torch.func`, as long as they do not map over it."""
    if not torch._C._are_functorch_transforms_active():
        array: np.ndarray = tensor.numpy().copy()
        return array
    if torch._C._functorch.is_batchedtensor(tensor):
        raise RuntimeError("the lengths of packed input cannot be mapped over; map over its data alone")
    return np.array(tensor.tolist(), np.int64 if tensor.dtype == torch.int64 else np.float32)


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
    in float32 or float64; gradients cannot be differentiated again, nor results in forward mode; it cannot be traced,
    scripted, exported or quantized, and `torch.compile` leaves it as it is. `torch.func.grad`, `torch.vmap` and what is
    made of them go through it, one example after the other. Dropout draws from PyTorch's generator, but other numbers.
    In a scope of `torch.autocast` it computes in the dtype of its parameters. Sequences of length 0 are allowed. It
    uses no more threads than both `torch.get_num_threads` and `numba_pack.get_num_threads` tell.

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


_NAMES = {kind.__name__ for kind in _KINDS}
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


def _not_of_torch_nn(module: Any) -> str:
    """Why a recurrent module is none of the classes of torch.nn; empty if it is not recurrent, or is one of them."""
    if type(module).__module__.startswith("torch.ao.nn.") and type(module).__name__ in _NAMES:
        return f"quantized: {kind_of(module)}"
    scripted = isinstance(module, torch.jit.ScriptModule)
    if (scripted and module.original_name in _NAMES) or _OPERATOR.search(_graph(module)):
        return f"{'TorchScript' if scripted else 'a graph'}, which runs by itself: use the model that it was made of"
    return ""


def _obstacle(module: Any) -> str:
    """Why a recurrent module cannot be replaced; empty if it can."""
    if isinstance(module, torch.nn.RNNCellBase):
        return "a cell, whose single steps would gain nothing"
    if isinstance(module, _Layer):
        return "runs on numba_pack already"
    if type(module) not in _FASTER:
        return f"{type(module).__qualname__} is a class of its own, which may compute something else"
    reason = _computes_something_else(module, type(module))
    if reason:
        return reason
    for name in module._flat_weights_names:
        tensor = getattr(module, name, None)
        if not isinstance(tensor, torch.Tensor):
            return f"{name} is {kind_of(tensor)}, not a tensor"
        if tensor.device.type != "cpu":
            return f"{name} is on {tensor.device}, not on the CPU"
        if tensor.dtype not in _DTYPES:
            return f"{name} is {tensor.dtype}, neither torch.float32 nor torch.float64"
        fault = _unreadable(tensor)
        if fault:
            return f"{name} {fault}"
    return ""


def accelerate(model: Any) -> Accelerated:
    """Let all RNN, LSTM and GRU modules of a PyTorch model run on this library, forward and backward.

    Each stays the object that it is, with its parameters, hooks and options, and only becomes one of this module's
    classes. So optimizers, references and state dicts stay valid. What makes another model of it comes before:
    quantization, which knows the modules of torch.nn alone and leaves these as they are, with a warning; and tracing,
    scripting and export, which they refuse.

    Parameters
    ----------
    model : torch.nn.Module
        Changed in place. It may be such a module itself.

    Returns
    -------
    Accelerated
        Which modules were replaced, which were not, and why: cells, subclasses, modules that are not on the CPU or
        neither in float32 nor in float64, that are quantized or TorchScript.

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
        own = isinstance(module, (torch.nn.RNNBase, torch.nn.RNNCellBase))
        reason = _not_of_torch_nn(module) or (_obstacle(module) if own else "")
        if reason:
            left[name] = reason
        elif own:
            module.__class__ = _FASTER[type(module)]
            replaced.append(name)
    return Accelerated(tuple(replaced), left)
