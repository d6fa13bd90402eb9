"""What a batcher computes at a time: a chunk of steps of some requests to a layer, or some requests as a whole.

The states of requests to a layer lie in one array for each state, with a slot for each request, and are taken out and
put back by NumPy's indexing of the middle axis: for 64 requests of 128 units that takes 2 µs of a chunk's 1500, where
arrays of each request's own would take 16 to stack.

Nothing of a request has changed if a chunk raises an error, so that it may be run again without others.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .._arguments import kind_of
from .._backend import on_device
from ..cells.cell import Cell
from ..layers.forms import Host, plain
from ..layers.layer import Layer
from ..layers.module import Module
from ..packing.checks import MEMORY_BYTES, as_rows
from ..packing.sequences import PackedSequence, check_packed, pack_sequence, unpack_into, unpack_sequence
from .line import Request
from .streams import _arrays, _formed

__all__ = ["OfFunction", "OfLayer", "model_of"]


class OfLayer:
    """Answers ``layer(sequence)``: from chunk to chunk of at most ``steps``, or as a whole where the layer needs that.

    A request is answered with the parameters that the layer has when it comes.
    """

    def __init__(self, layer: Layer[Any], capacity: int, steps: int) -> None:
        self._layer, self._snapshot = layer, copy.copy(layer)
        #: None for a layer that begins with the last step
        self.steps = None if layer.bidirectional or layer.reverse else steps
        #: the state of one sequence before its first step, in the layer's form; it says what that form is
        self._zero = layer(np.empty((0, layer.input_size), layer.dtype))[1]
        parts = list(_arrays(self._zero))
        if capacity > (most := MEMORY_BYTES // sum(part.nbytes for part in parts)):
            raise ValueError(f"capacity must be at most {most}; got {capacity}")
        #: of each array of the state (L * D, capacity, H)
        self._states = [np.zeros((len(part), capacity, part.shape[1]), part.dtype) for part in parts]

    def accept(self, sequence: Any) -> tuple[np.ndarray, Any]:
        """A checked copy of the rows or symbols of a sequence, and its kind."""
        if not isinstance(sequence, np.ndarray):
            raise TypeError(f"sequence must be a NumPy array; got {kind_of(sequence, np.ndarray)}")
        given, layer = plain(sequence, "sequence"), self._layer
        if given.ndim == 0:
            raise ValueError(f"sequence must have shape (T, {layer.input_size}); got ()")
        shape = (len(given), layer.input_size)
        rows = Host.as_input(given, "sequence", shape, layer.dtype, "(T, input_size)")
        if rows is given or np.may_share_memory(rows, given):
            rows = rows.copy()
        if self._snapshot._holder.version is not layer._holder.version:
            self._snapshot = copy.copy(layer)
        return rows, (self._snapshot, rows.ndim)

    def make(self, requests: Sequence[Request], counts: Sequence[int]) -> tuple[PackedSequence, Any, np.ndarray]:
        """What so many steps of each are computed from: rows, first states, and where these lie."""
        packed = pack_sequence([r.rows[r.at : r.at + n] for r, n in zip(requests, counts, strict=True)])
        slots = np.array([request.slot for request in requests])
        new = [i for i, request in enumerate(requests) if request.at == 0]
        if len(new) == len(requests):
            return packed, None, slots
        before = [states.take(slots, axis=1) for states in self._states]
        for each in before:
            each[:, new] = 0
        return packed, _formed(self._zero, iter(before)), slots

    def run(self, requests: Sequence[Request], counts: Sequence[int], made: Any) -> list[Any]:
        """Take so many steps in each, from what `make` made; of each its answer, or None if there are steps left."""
        layer: Layer[Any] = requests[0].kind[0]
        packed, before, slots = made
        output: Any
        output, state = layer(packed, before)
        parts, after = output if layer.return_states else (output,), list(_arrays(state))
        starts = [request.at for request in requests]
        for request in requests:
            if request.at == 0:
                request.outputs = [np.empty((len(request.rows), part.data.shape[1]), layer.dtype) for part in parts]
        for j, part in enumerate(parts):
            unpack_into(part, [request.outputs[j] for request in requests], starts)
        answers: list[Any] = []
        for i, (request, n) in enumerate(zip(requests, counts, strict=True)):
            if request.at + n < len(request.rows):
                answers.append(None)
            else:
                outputs = tuple(request.outputs) if layer.return_states else request.outputs[0]
                answers.append((outputs, _formed(self._zero, iter([each[:, i].copy() for each in after]))))
        if None in answers:
            for states, each in zip(self._states, after, strict=True):  # from here on nothing fails
                states[:, slots] = each
        for request, n in zip(requests, counts, strict=True):
            request.at += n
        return answers


class OfFunction:
    """Answers what a function makes of some whole requests, packed."""

    #: a function is given whole sequences
    steps = None

    def __init__(self, function: Callable[[PackedSequence], Any]) -> None:
        self._function = function

    def accept(self, sequence: Any) -> tuple[np.ndarray, Any]:
        """A checked copy of the rows of a sequence, and its kind: what rows must have in common to be packed."""
        rows = as_rows(sequence, "sequence", 1)
        if not isinstance(rows, np.ndarray):
            raise TypeError(f"sequence must be a NumPy array; got {kind_of(sequence, np.ndarray)}")
        rows = np.array(rows)
        return rows, (rows.shape[1:], rows.dtype)

    def make(self, requests: Sequence[Request], counts: Sequence[int]) -> PackedSequence:
        """What the function is given."""
        return pack_sequence([request.rows for request in requests])

    def run(self, requests: Sequence[Request], counts: Sequence[int], made: Any) -> list[Any]:
        """The answer of each, from what `make` made."""
        answers = _each(self._function(made), requests)
        for request in requests:
            request.at = len(request.rows)
        return answers


def _each(outputs: Any, requests: Sequence[Request]) -> list[Any]:
    """What of a function's outputs belongs to each of some requests."""
    if isinstance(outputs, PackedSequence):
        lengths = [len(request.rows) for request in requests]
        outputs = check_packed(outputs, "the function's PackedSequence")
        if (found := outputs.lengths.tolist()) != lengths:
            raise ValueError(
                f"the function must return a PackedSequence with lengths {lengths}, as it was given; got {found}"
            )
        if on_device(outputs.data):
            return [rows.copy() for rows in unpack_sequence(outputs)]
        each = [np.empty((n, *outputs.data.shape[1:]), outputs.data.dtype) for n in lengths]  # and no views of all rows
        unpack_into(outputs, each, [0] * len(each))
        return each
    if isinstance(outputs, tuple):
        return list(zip(*(_each(part, requests) for part in outputs), strict=True))
    if not isinstance(outputs, (list, np.ndarray)):
        raise TypeError(
            "the function must return a PackedSequence, an array or a list with an entry for each sequence, or a tuple "
            f"of these; got {kind_of(outputs, PackedSequence)}"
        )
    count = len(outputs) if np.ndim(outputs) or isinstance(outputs, list) else 0
    if count != len(requests):
        raise ValueError(f"the function must return an entry for each of {len(requests)} sequences; got {count}")
    return [entry.copy() for entry in outputs] if isinstance(outputs, np.ndarray) else outputs


def model_of(model: Any, capacity: int, steps: int) -> OfLayer | OfFunction:
    """What computes the answers of a layer or a function."""
    if isinstance(model, Layer):
        return OfLayer(model, capacity, steps)
    if not callable(model) or isinstance(model, (type, Module, Cell)):
        raise TypeError(
            f"model must be a layer, as LSTM or what a cell makes, or a function of a PackedSequence; got "
            f"{kind_of(model, Layer)}"
        )
    return OfFunction(model)
