"""RNN, LSTM and GRU: PyTorch's modules with another `forward`.

It turns padded, packed or single input into rows, packs the parameters if they have changed, and calls the functions
of ``_torch_autograd.py``; where numbers alone are wanted, that of ``_torch_numbers.py``; and what ``_torch_left.py``
says is left to PyTorch. All else, such as names, options, checks and pickling, is inherited.
"""

from __future__ import annotations

import inspect
import sys
import warnings
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
import torch

from .._arguments import kind_of
from ..cells.dropout import NO_DROPOUT, Dropout
from ..cells.parameters import Weights
from ..layers import layer as layers
from ..layers.precision import as_precision, get_float32_matmul_precision
from ..packing.sequences import PackedSequence, check_packed
from ._torch_autograd import Call, Plan, Planned, Scan, engine_threads_count, scan
from ._torch_few import Few
from ._torch_left import is_left
from ._torch_numbers import numbers
from ._torch_operators import Operators, derived_again
from ._torch_prepared import ALL_ROWS, Prepared, prepare
from ._torch_tensors import DTYPES, HALVES, TRACED, as_array, refuse_tracing, watched

__all__ = ["GRU", "LSTM", "RNN", "Recurrent", "called_uncompiled", "compiling"]

_Tensor, _grad_enabled = torch.Tensor, torch.is_grad_enabled


def _floats(tensor: Any) -> Any:
    """A tensor as the engine computes with it: halves in float32; None for None."""
    return tensor.float() if tensor is not None and tensor.dtype in HALVES else tensor


_uncompiled: dict[Any, Any] = {}
#: tells what is called for each frame of this thread where `torch.compile` is at work, else None
_callback = getattr(torch._C._dynamo.eval_frame, "get_eval_frame_callback", lambda: sys.modules.get("torch._dynamo"))


_exporting = getattr(torch.compiler, "is_exporting", bool)


def called_uncompiled(function: Any, *arguments: Any) -> Any:
    """The result of a function that `torch.compile` leaves alone; `torch.export` cannot."""
    if _exporting():
        raise RuntimeError(TRACED)
    if function not in _uncompiled:  # made when it is needed, since that imports what takes seconds
        told = {"reason": TRACED} if "reason" in inspect.signature(torch.compiler.disable).parameters else {}
        _uncompiled[function] = torch.compiler.disable(function, **told)
    return _uncompiled[function](*arguments)


def compiling() -> bool:
    """Whether `torch.compile` reads this, or is about to read what is called from here."""
    return torch.compiler.is_dynamo_compiling() or _callback() is not None


class Recurrent(torch.nn.RNNBase):
    """What the three modules share: `forward`. They hold nothing that PyTorch's do not, but for a cache."""

    if TYPE_CHECKING:  # alone, since TorchScript tries to read annotations
        _prepared: Prepared | None
        #: None for the default of the process, of halves for "medium"
        matmul_precision: str | None
    _prepared = matmul_precision = None
    #: whether the parameters are packed once and never compared
    _frozen = False

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
        if compiling():
            return called_uncompiled(Recurrent._forward, self, input, hx)
        if (self.dropout and self._drops) or watched():
            return self._forward(input, hx)
        if _grad_enabled() and is_left(self, input, hx):
            try:
                theirs: tuple[Any, Any] = super().forward(input, hx)
                return theirs
            except Exception:  # our own way computes the result, or says by name what is wrong
                return self._forward(input, hx)
        found, prepared = None, self._prepared or self._prepared_first()
        if prepared is not None:
            if prepared.few is not None:
                found = self._few(prepared, prepared.few, input, hx, self.batch_first)
            if found is None:
                found = self._numbers(prepared, input, hx)
        return self._forward(input, hx) if found is None else found

    def _prepared_first(self) -> Prepared | None:
        """What is prepared before the first call, so that it goes the way of those that follow; None if it cannot be.

        `torch.utils.checkpoint` calls twice, and wants as many tensors kept.
        """
        own = self._parameters
        try:
            return self._prepare([own[name] for name in self._flat_weights_names])
        except (KeyError, AttributeError, RuntimeError, TypeError, ValueError):  # some are computed, or wrong
            return None

    def _few(self, prepared: Prepared, few: Few, input: Any, hx: Any, batch_first: bool) -> tuple[Any, Any] | None:
        """The result of a call of few rows, of parameters that are packed; None where it is not so simple.

        What is asked here costs as much as a step, so all stands in a row.
        """
        dtype, h_0, c_0 = few.torch_dtype, None, None
        key: tuple[Any, ...]
        try:  # what has no memory, as a wrapper of a transform that is over, has no address, and some no shape
            if not (
                type(input) is _Tensor
                and input.dtype is dtype
                and input.is_cpu
                and input.is_contiguous()
                and not input.is_neg()
            ):
                return None
            if hx is None:
                key = batch_first, input.shape
            else:
                if few.pair:
                    if type(hx) is not tuple or len(hx) != 2:
                        return None
                    h_0, c_0 = hx
                    if not (
                        type(c_0) is _Tensor
                        and c_0.dtype is dtype
                        and c_0.is_cpu
                        and c_0.is_contiguous()
                        and not c_0.is_neg()
                    ):
                        return None
                else:
                    h_0 = hx
                if not (
                    type(h_0) is _Tensor
                    and h_0.dtype is dtype
                    and h_0.is_cpu
                    and h_0.is_contiguous()
                    and not h_0.is_neg()
                ):
                    return None
                key = batch_first, input.shape, h_0.shape, None if c_0 is None else c_0.shape
            shape = few.shapes.get(key) or few.shape_of(key)
            if shape is None:
                return None
            frozen, kept = self._frozen, _grad_enabled()
            many = shape.rows > few.most  # for one thread alone, and to have room for at once
            if many and not kept and shape.sequences > 1:
                return None
            if frozen and not kept:
                return few.infer(shape, input, h_0, c_0)
            own = self._parameters
            parameters = [own[name] for name in self._flat_weights_names]
            if kept:
                tensors = [part for part in (*parameters, input, h_0, c_0) if part is not None]
                kept = any([tensor.requires_grad for tensor in tensors]) and all([t.data_ptr() for t in tensors])
                if many and (engine_threads_count() > 1 if kept else shape.sequences > 1):
                    return None
            if not frozen:
                precision = self._precision(dtype)
                if not prepared.holds(precision, parameters, kept or shape.rows >= ALL_ROWS):
                    prepared = self._prepared = prepared.renewed(precision, parameters)
                    if prepared.few is None:
                        return None
                    few = prepared.few
            if not kept:
                return few.infer(shape, input, h_0, c_0)
        except (KeyError, RuntimeError):  # parameters that are computed have no entry
            return None
        out, *last = scan(few.call(shape), input, h_0, c_0, *parameters)
        return out, tuple(last) if few.pair else last[0]

    @property
    def _drops(self) -> bool:
        """Whether units are dropped."""
        return bool(self.training and self.dropout and self.num_layers > 1)

    def _numbers(self, prepared: Prepared, input: Any, hx: Any) -> tuple[Any, Any] | None:
        """The result where numbers alone are wanted, of parameters that are packed; None where `_forward` is to see."""
        frozen = self._frozen
        if torch.is_grad_enabled() and not frozen:
            return None

        def valid(rows: int) -> bool:
            own = self._parameters
            parameters = [own[name] for name in self._flat_weights_names]
            return prepared.holds(self._precision(parameters[0].dtype), parameters, rows >= ALL_ROWS)

        return numbers(prepared.layer, self.mode == "LSTM", self.batch_first, input, hx, None if frozen else valid)

    def _forward(self, input: Any, hx: Any) -> tuple[Any, Any]:
        if isinstance(input, torch.nn.utils.rnn.PackedSequence):
            refuse_tracing(input.data)
            return self._forward_packed(input, hx)
        refuse_tracing(input)
        if isinstance(input, torch.Tensor) and not input.is_nested:
            if input.layout != torch.strided:
                as_array(input)  # which says so
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
        states = self._first_states(hx, len(order))
        found = self._as_padded(data, sizes, order, states) or self._run(data, sizes, order, states)
        return type(packed)(found[0], *packed[1:]), found[1]

    def _as_padded(
        self, data: Any, sizes: np.ndarray, order: np.ndarray, states: tuple[Any, Any]
    ) -> tuple[Any, Any] | None:
        """What `_run` gives of few rows of sequences that are equally long and in order, which are as if padded."""
        prepared, B = self._prepared, len(order)
        if prepared is None or prepared.few is None or not len(sizes) or self._drops or watched():
            return None
        if sizes[-1] != B or (order != np.arange(B)).any():
            return None
        hx = None if states[0] is None else states if self._has_c else states[0]
        found = self._few(prepared, prepared.few, data.view(len(sizes), B, -1), hx, False)
        return None if found is None else (found[0].view(len(data), -1), found[1])

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
        return bool(self.mode == "LSTM")

    def _first_states(self, hx: Any, B: int, single: bool = False) -> tuple[Any, Any]:
        """h_0 and c_0, checked, each (L * D, B, *), or None for zeros."""
        if hx is None:
            return None, None
        parts = tuple(hx) if self._has_c and isinstance(hx, (tuple, list)) else (hx,)
        names = ("hidden[0]", "hidden[1]") if self._has_c else ("hidden",)
        if len(parts) != len(names) or not all(isinstance(part, torch.Tensor) for part in parts):
            for part in parts:
                refuse_tracing(part)
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
        parameters = self._current()
        h_0, c_0 = map(_floats, states)
        out, *last = self._run_floats(_floats(data), batch_sizes, order, h_0, c_0, parameters)
        if parameters[0].dtype in HALVES:
            out, *last = (tensor.to(parameters[0].dtype) for tensor in (out, *last))
        return out, tuple(last) if self._has_c else last[0]

    def _run_floats(
        self, data: Any, batch_sizes: np.ndarray, order: np.ndarray, h_0: Any, c_0: Any, parameters: list[Any]
    ) -> tuple[Any, ...]:
        """The output (N, D * P), h_n and c_n (empty where there is none), all in the dtype of the engine."""
        tensors, rate = (data, h_0, c_0, *parameters), self.dropout if self._drops else 0.0
        if derived_again(tensors):
            theirs = Operators(self.mode, self.num_layers, self.bidirectional, batch_sizes, order, rate)
            return theirs.run(*map(_floats, tensors))
        if torch._C._are_functorch_transforms_active():
            seed = torch.randint(2**32, (2,)) if rate else torch.zeros(2, dtype=torch.int64)
            plan = Plan(self._weights, batch_sizes, order, rate)
            planned: tuple[Any, ...] = Planned.apply(plan, seed, *map(_floats, tensors))
            return planned
        kept = torch.is_grad_enabled() and any(tensor is not None and tensor.requires_grad for tensor in tensors)
        weights = self._weights(parameters, ALL_ROWS if kept else len(data))
        call = Call(weights, batch_sizes, order, self._next_dropout())
        if kept:
            scanned: tuple[Any, ...] = Scan.apply(call, *map(_floats, tensors))
            return scanned
        if call.dropout.rate:
            return call.record(data, h_0, c_0)[0]
        return call.infer(data, h_0, c_0)

    def _current(self) -> list[Any]:
        """The parameters by name: they may be computed, as by `parametrize`, or exchanged, as by `functional_call`."""
        own, names = self._parameters, self._flat_weights_names
        try:
            return [own[name] for name in names]
        except KeyError:
            return [getattr(self, name) for name in names]

    def _weights(self, parameters: Any, rows: int = ALL_ROWS) -> Weights:
        """The parameters as the engine takes them, for inference of so many rows."""
        return self._prepare(list(parameters), rows).weights

    def _prepare(self, parameters: list[Any], rows: int = ALL_ROWS) -> Prepared:
        """What is prepared of the parameters, for inference of so many rows: packed again if they have changed."""
        prepared = self._prepared
        if prepared is not None and self._frozen:
            return prepared
        precision = self._precision(self.weight_ih_l0.dtype)  # which in a transform are in float32 here
        if prepared is None or not prepared.holds(precision, parameters, rows >= ALL_ROWS):
            plain = self._layer(parameters[0].dtype)
            if prepared is not None and prepared.plain is plain:
                prepared = prepared.renewed(precision, parameters)
            else:
                prepared = prepare(plain, precision, parameters)
            self._prepared = prepared
        return prepared

    def _layer(self, dtype: Any) -> Any:
        """A layer of this library like this module, whatever its parameters; its padded input is (T, B, I)."""
        own = DTYPES.get(dtype, np.dtype(np.float32))
        if self._prepared is not None and self._prepared.plain.dtype == own:
            return self._prepared.plain
        options = {"bias": self.bias, "bidirectional": self.bidirectional, "dtype": own, "rng": 0}
        if self._has_c:
            options["proj_size"] = self.proj_size
        elif self.mode != "GRU":
            options["nonlinearity"] = self.mode.removeprefix("RNN_").lower()
        kind = {"LSTM": layers.LSTM, "GRU": layers.GRU}.get(self.mode, layers.RNN)
        return kind(self.input_size, self.hidden_size, self.num_layers, **options)

    def _freeze(self) -> None:
        """Take the parameters as they are from now on: they are packed, take no gradient, and are compared no more.

        `load_state_dict`, and what turns the module into another dtype, still tell.
        """
        self.requires_grad_(False)
        self._prepared, self._frozen = None, False
        self._weights(self._current())
        self._frozen = True

    def _load_from_state_dict(self, *arguments: Any) -> None:
        super()._load_from_state_dict(*arguments)
        self._prepared = None if self._frozen else self._prepared

    def _apply(self, *arguments: Any, **options: Any) -> Any:
        module = super()._apply(*arguments, **options)
        self._prepared = None
        return module

    def _precision(self, dtype: Any) -> str:
        """That of a call from now on, of parameters of this dtype."""
        if self.matmul_precision is not None:
            return as_precision(self.matmul_precision, "matmul_precision")
        return "medium" if dtype in HALVES else get_float32_matmul_precision()

    def extra_repr(self) -> str:
        """What PyTorch shows between the brackets; the precision if it is the module's own; whether it is frozen."""
        told: str = super().extra_repr()
        told += f", matmul_precision={self.matmul_precision}" * (self.matmul_precision is not None)
        return told + ", frozen" * self._frozen

    def _next_dropout(self) -> Dropout:
        """What this call drops. The seed comes from PyTorch's generator: `torch.manual_seed` makes it reproducible."""
        if not self._drops:
            return NO_DROPOUT
        seed, call = torch.randint(2**32, (2,)).tolist()
        return Dropout(self.dropout, np.uint32(seed), np.uint32(call))

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_prepared": None}

    def __prepare_scriptable__(self) -> NoReturn:
        """What `torch.jit.script` calls first."""
        raise RuntimeError(TRACED)

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
    if dtype not in DTYPES and dtype not in HALVES:
        raise TypeError(f"dtype must be torch.float32, float64, bfloat16 or float16; got {dtype}")


class RNN(Recurrent, torch.nn.RNN):
    """`torch.nn.RNN`, run by this library: see `LSTM`.

    Parameters
    ----------
    input_size, hidden_size, num_layers, nonlinearity, bias, batch_first, dropout, bidirectional, device, dtype
        Those of `torch.nn.RNN`; the device must be the CPU, the dtype float32, float64, bfloat16 or
        float16.

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


class LSTM(Recurrent, torch.nn.LSTM):
    """`torch.nn.LSTM`, run by this library, forward and backward; packed, padded and single sequences.

    It is one, too, with its names of parameters, its options and its checks. What differs: it runs on the CPU alone; it
    cannot be traced, scripted, exported or quantized, and `torch.compile` leaves it as it is. `torch.func.grad`,
    `torch.vmap` and what is made of them go through it, one example after the other. Second derivatives, and results in
    forward mode, PyTorch's own operators compute. Training calls of few steps are left to PyTorch, which is
    quicker there, as `accelerate` tells. Dropout draws from PyTorch's generator, but other numbers.
    In a scope of `torch.autocast` it computes in the dtype of its parameters. Sequences of length 0 are allowed. It
    uses no more threads than both `torch.get_num_threads` and `numba_pack.get_num_threads` tell.

    Parameters may be changed at any time: a call packs them again if they are not what they were. Calls that keep
    something for a backward pass, or have 128 rows or more, compare all of them. Shorter ones ask PyTorch, which counts
    changes, the optimizers, and where the memory is, and look at all entries of small parameters and at some of large
    ones. So there is one thing that they may miss: single entries of a parameter of more than 2048, written past
    PyTorch's count through ``.data``, through NumPy, or by another process.

    In bfloat16 and float16, input, output and gradients are in that dtype, and everything in between in float32, its
    products in "medium" while ``matmul_precision`` is None.

    Parameters
    ----------
    input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, proj_size, device, dtype
        Those of `torch.nn.LSTM`; the device must be the CPU, the dtype float32, float64, bfloat16 or
        float16.

    Attributes
    ----------
    matmul_precision : {None, "highest", "high", "medium"}
        How exactly products are computed, at least: see `numba_pack.LSTM`. It may be assigned. While it is None, calls
        go by what `numba_pack.set_float32_matmul_precision` tells then.

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


class GRU(Recurrent, torch.nn.GRU):
    """`torch.nn.GRU`, run by this library: see `LSTM`.

    Parameters
    ----------
    input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, device, dtype
        Those of `torch.nn.GRU`; the device must be the CPU, the dtype float32, float64, bfloat16 or
        float16.

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
