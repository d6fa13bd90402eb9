"""Calls of few rows: tensors by their addresses into the engine, and new tensors out of it.

There a call takes less time than an array of each tensor would. What is not usual is left to those who take longer:
`Few.shape_of` says which shapes are.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import torch

from ..cells.dropout import Dropout
from ..cells.parameters import Weights
from ..cpu import engine
from ..cpu.few import MOST_ROWS, Passes, back_at, infer_at, passes, record_at
from ..cpu.workspace import WORKSPACE
from ._torch_tensors import TORCH_DTYPES, as_array

__all__ = ["Few", "FewCall", "Shape"]

_Tensor, _empty, _from_numpy = torch.Tensor, np.empty, torch.from_numpy
#: shapes that are kept
MOST_SHAPES = 64
#: bytes from which on memory is taken from the workspace: smaller pieces an allocator has at hand
LARGE = 1 << 16
_BYTES = np.dtype(np.uint8)


class Shape(NamedTuple):
    """What follows from the shapes of a call."""

    steps: int
    sequences: int
    rows: int
    #: of the results; that of c is None where there is none
    out: tuple[int, ...]
    h: tuple[int, ...]
    c: tuple[int, ...] | None


class Few:
    """What calls of few rows take of a layer, whose padded input is (T, B, I), with these weights."""

    def __init__(self, layer: Any, weights: Weights) -> None:
        self._layer, self._weights = layer, weights
        self._kept: engine.Few | None = engine.few(weights, False)
        self._deep = layer.num_layers > 1 or layer.output_size != layer.hidden_size
        self._parts: list[tuple[slice, tuple[int, ...]]] = []
        end = 0
        for of in layer._shapes.values():
            begin, end = end, end + math.prod(of)
            self._parts.append((slice(begin, end), of))
        #: whether the state is a pair
        self.pair = layer.cell.states > 1
        #: rows that one thread takes
        self.most = min(self._kept.most, MOST_ROWS)
        self.dtype, self.torch_dtype = layer.dtype, TORCH_DTYPES[layer.dtype]
        #: by whether batches come first, and the shapes of input and, if they are given, h_0 and c_0 (or None)
        self.shapes: dict[Any, Shape] = {}
        #: by steps and sequences, of these weights, and without any, lest those of former calls be kept
        self._passes: dict[tuple[int, int], Passes] = {}
        self._of_others: dict[tuple[int, int], Passes] = {}

    def of(self, weights: Weights) -> Few:
        """The same of other weights, which are of the same layer but for its parameters."""
        other = Few.__new__(Few)
        vars(other).update(vars(self), _weights=weights, _kept=None, _passes={})
        return other

    def shape_of(self, key: Any) -> Shape | None:
        """What follows from shapes, as the keys of ``shapes``; None where rows are too many, or something is wrong."""
        layer, (batch_first, input, *states) = self._layer, key
        if len(input) not in (2, 3) or input[-1] != layer.input_size:
            return None
        steps, *batch = input[:-1]
        if batch and batch_first:
            steps, batch = batch[0], [steps]
        B = batch[0] if batch else 1
        rows = steps * B
        if not rows or (batch_first and B > 1 and steps > 1):
            return None
        scans = layer.num_layers * layer.num_directions
        h = scans, *batch, layer.output_size
        c = (scans, *batch, layer.hidden_size) if self.pair else None
        if states and tuple(states) != (h, c):
            return None
        shape = Shape(steps, B, rows, (*input[:-1], layer.num_directions * layer.output_size), h, c)
        if len(self.shapes) >= MOST_SHAPES:
            self.shapes.clear()
        self.shapes[key] = shape
        return shape

    def infer(self, shape: Shape, data: Any, h_0: Any, c_0: Any) -> tuple[Any, Any]:
        """Output and state of usual tensors of these shapes; of states that are not given, None."""
        kept = self._kept
        if kept is None:
            kept = self._kept = engine.few(self._weights, False)
        steps, sequences, _, of_out, of_h, of_c = shape
        dtype = self.dtype
        out, h_n = _from_numpy(_empty(of_out, dtype)), _from_numpy(_empty(of_h, dtype))
        c_n = h_n if of_c is None else _from_numpy(_empty(of_c, dtype))
        infer_at(
            kept.at, steps, sequences, data.data_ptr(), 0 if h_0 is None else h_0.data_ptr(),
            0 if c_0 is None else c_0.data_ptr(), out.data_ptr(), h_n.data_ptr(), c_n.data_ptr(),
        )  # fmt: skip
        return out, h_n if of_c is None else (h_n, c_n)

    def call(self, shape: Shape) -> FewCall:
        """A call with these shapes that can be differentiated."""
        size = shape[:2]
        found = self._passes.get(size)
        if found is None:
            of_others, nothing = self._of_others.get(size), None  # type: Any, Any
            found = passes(self._weights, *size) if of_others is None else of_others.of(self._weights)
            for kept, value in ((self._passes, found), (self._of_others, found._replace(weights=nothing))):
                if len(kept) >= MOST_SHAPES:
                    kept.clear()
                kept[size] = value
        return FewCall(shape, found, self._deep, self._parts)


class FewCall(NamedTuple):
    """A call that can be differentiated, of few rows: as `Call`, but for tensors in the form in which they came."""

    shape: Shape
    passes: Passes
    #: whether the gradient of an output goes through more weights in its step: other layers', or a projection's
    deep: bool
    #: of each parameter, its part of the vector of all, and its shape
    parts: list[tuple[slice, tuple[int, ...]]]

    @property
    def weights(self) -> Weights:
        """Those that the call computes with."""
        return self.passes.weights

    @property
    def dropout(self) -> Dropout:
        """None."""
        return Dropout(0.0, np.uint32(0), np.uint32(0))

    @property
    def batch_sizes(self) -> np.ndarray:
        """B, T times."""
        return np.full(self.shape.steps, self.shape.sequences)

    @property
    def order(self) -> np.ndarray:
        """The sequences as they are."""
        return np.arange(self.shape.sequences)

    def rows(self, tensor: Any) -> Any:
        """Rows (N, *) of a tensor in the form of the input or the output; None for None."""
        return None if tensor is None else tensor.reshape(self.shape.rows, tensor.shape[-1])

    def scans(self, tensor: Any) -> Any:
        """(L * D, B, *) of one in the form of a state."""
        return None if tensor is None else tensor.reshape(len(tensor), self.shape.sequences, tensor.shape[-1])

    def record(self, data: Any, h_0: Any, c_0: Any) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        """Output, h_n and c_n, if there is one, and what the backward pass needs: a tape."""
        shape, of = self.shape, self.passes
        dtype = of.weights.parameters.dtype
        results = [_from_numpy(_empty(of, dtype)) for of in shape[3:] if of is not None]
        tape = _from_numpy(_empty(of.tape_size, _BYTES) if of.tape_size < LARGE else WORKSPACE.take(of.tape_size))
        data, h_0, c_0 = _in_order(data), _in_order(h_0), _in_order(c_0)
        record_at(
            of.at, data.data_ptr(), 0 if h_0 is None else h_0.data_ptr(), 0 if c_0 is None else c_0.data_ptr(),
            tape.data_ptr(), results[0].data_ptr(), results[1].data_ptr(), results[-1].data_ptr(),
        )  # fmt: skip
        return tuple(results), (tape,)

    def back(
        self, kept: tuple[Any, ...], out: Any, data: Any, h_0: Any, c_0: Any, d_out: Any, d_h: Any, d_c: Any,
        input_grad: bool,
    ) -> tuple[Any, Any, Any, list[Any]]:  # fmt: skip
        """The gradients of data and h_0, if they are wanted, c_0, if there is one, and the parameters.

        Those of the results are None for zero. What was kept is used up.
        """
        (tape,), shape, of = kept, self.shape, self.passes
        parameters = of.weights.parameters
        dtype = parameters.dtype
        data, h_0, c_0, out = _in_order(data), _in_order(h_0), _in_order(c_0), _in_order(out)
        d_out, d_h, d_c = (
            _zeros(shape.out, dtype) if d_out is None else _in_order(d_out),
            _in_order(d_h),
            _in_order(d_c),
        )
        if d_h is None and d_c is not None:
            d_h = _zeros(shape.h, dtype)
        elif d_c is None and d_h is not None and shape.c is not None:
            d_c = _zeros(shape.c, dtype)
        large = of.room_size >= LARGE
        room = (WORKSPACE.take(of.room_size) if large else _empty(of.room_size, _BYTES)).view(dtype)
        gradient = np.zeros(parameters.size, dtype)
        goes_on = shape.steps > 1 or self.deep or input_grad or h_0 is not None
        d_data = _from_numpy(_empty(data.shape, dtype)) if input_grad else None
        d_h_0 = _from_numpy(_empty(shape.h, dtype))
        d_c_0 = None if shape.c is None else _from_numpy(_empty(shape.c, dtype))
        back_at(
            of.at, data.data_ptr(), 0 if h_0 is None else h_0.data_ptr(), 0 if c_0 is None else c_0.data_ptr(),
            tape.data_ptr(), out.data_ptr(), d_out.data_ptr(), 0 if d_h is None else d_h.data_ptr(),
            0 if d_c is None else d_c.data_ptr(), room, goes_on, input_grad, 0 if d_data is None else d_data.data_ptr(),
            d_h_0.data_ptr(), 0 if d_c_0 is None else d_c_0.data_ptr(), gradient,
        )  # fmt: skip
        if large:
            WORKSPACE.give(room)
        if of.tape_size >= LARGE:
            WORKSPACE.give(tape.numpy())
        return d_data, d_h_0, d_c_0, [_from_numpy(gradient[part].reshape(shape)) for part, shape in self.parts]


def _zeros(shape: tuple[int, ...], dtype: Any) -> Any:
    return _from_numpy(np.zeros(shape, dtype))


def _in_order(tensor: Any) -> Any:
    """The tensor, or a copy that is plain memory; None for None."""
    if tensor is None:
        return None
    if type(tensor) is _Tensor and tensor.is_cpu and tensor.layout is torch.strided and not tensor.is_neg():
        return tensor if tensor.is_contiguous() else tensor.contiguous()
    return _from_numpy(as_array(tensor))
