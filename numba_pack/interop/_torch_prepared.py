"""A module's parameters as this library takes them, and whether they still are what they were.

To compare them all is to read them all, which may take longer than a step of one sequence. So inference of few rows
goes by marks: where the parameters are, how often PyTorch has counted a change of each, whether any optimizer has made
a step, and entries: all of a small parameter, some of a large one. The last two, since PyTorch does not count what
fused optimizers do, and what is written through ``.data``, through NumPy, or by another process. Of that, single
entries of a large parameter are left for the other calls to see, which compare everything.
"""

from __future__ import annotations

from functools import cache, cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.optim.optimizer import register_optimizer_step_post_hook

from .._backend import backend
from ..cells.parameters import Weights
from ..cpu import engine
from ..cpu.few import packed_like, same_at
from ..cpu.kernels import address_of
from ._torch_autograd import engine_threads
from ._torch_few import Few
from ._torch_tensors import HALVES, as_array, as_bits

__all__ = ["ALL_ROWS", "Prepared", "prepare"]

#: rows of a call that are worth comparing everything
ALL_ROWS = 128
#: entries that are compared of a parameter with more than `SMALL`, of which all are
ENTRIES, SMALL = 16, 2048

_address, _version = torch.Tensor.data_ptr, torch.Tensor._version.__get__


class _Steps:
    """Stands for the last step that any optimizer of this process has made."""

    last: object = None


def _note_step(*_: Any) -> None:
    _Steps.last = object()


@cache
def _watch_optimizers() -> None:
    register_optimizer_step_post_hook(_note_step)


class _Marks(NamedTuple):
    """What tells in little time that parameters are what they were."""

    #: of the tensors as Python objects
    ids: list[int]
    addresses: list[int]
    versions: list[int]
    step: object
    #: vectors on the memory of the parameters, which keep it, so that no other tensor gets its address
    memory: list[np.ndarray]
    #: what `same_at` takes to compare some entries of each parameter, and all; and the addresses of both
    places: tuple[np.ndarray, np.ndarray]
    some_at: int
    every_at: int
    #: whether some are all
    complete: bool
    #: parameters with as many rows as columns, which might be transposed where they are
    squares: list[int]

    def in_place(self, parameters: list[Any]) -> bool:
        """Whether they are where they were, in the same order of rows and columns."""
        return list(map(_address, parameters)) == self.addresses and (
            not self.squares or all([parameters[i].is_contiguous() for i in self.squares])
        )

    def hold(self, parameters: list[Any], copies: int) -> bool:
        """Whether they are the same; entries are looked at last, as long as the memory is known to be there."""
        return (
            self.in_place(parameters)
            and (
                self.complete  # then the entries tell all
                or (
                    self.step is _Steps.last
                    and list(map(id, parameters)) == self.ids
                    and list(map(_version, parameters)) == self.versions
                )
            )
            and same_at(self.some_at, len(parameters), copies)
        )

    def anew(self, parameters: list[Any]) -> _Marks | None:
        """Marks of the same parameters, as they are now; None if they are elsewhere."""
        if list(map(id, parameters)) != self.ids or not self.in_place(parameters):
            return None
        return self._replace(step=_Steps.last, versions=list(map(_version, parameters)))


def _marks(parameters: list[Any]) -> _Marks | None:
    """None where a parameter has no count of changes, or no memory of its own."""
    _watch_optimizers()
    step, memory = _Steps.last, []
    try:
        addresses, versions = list(map(_address, parameters)), list(map(_version, parameters))
        for parameter in parameters:
            flat = parameter.detach().view(-1)
            memory.append((flat.view(torch.int16) if flat.dtype in HALVES else flat).numpy())
    except (RuntimeError, TypeError):
        return None
    some: list[tuple[int, ...]] = []
    every: list[tuple[int, ...]] = []
    begin = 0
    for at, array in zip(addresses, memory, strict=True):
        size, halves = len(array), array.itemsize // 2
        every.append((at, begin, 1, size * halves, 0))
        apart = size // ENTRIES | 1  # odd, to meet all columns
        some.append(every[-1] if size <= SMALL else (at, begin, -(-size // apart), halves, apart * halves))
        begin += array.nbytes
    # biases come first, since as a rule they tell
    places = np.array(some[::-1]), np.array(every[::-1])
    complete = all([len(array) <= SMALL for array in memory])
    squares = [i for i, p in enumerate(parameters) if p.dim() == 2 and p.shape[0] == p.shape[1]]
    ids, (some_at, every_at) = list(map(id, parameters)), map(address_of, places)
    return _Marks(ids, addresses, versions, step, memory, places, some_at, every_at, complete, squares)


class Prepared:
    """A module's parameters as they were at some call."""

    def __init__(
        self, plain: Any, weights: Weights, precision: str, bits: np.ndarray, marks: _Marks | None, few: Few | None
    ) -> None:
        #: a layer of this library, of any parameters
        self.plain = plain
        #: with these
        self.weights = weights
        self.precision = precision
        #: those of the parameters that the weights were made of, one behind the other, and their address
        self.bits = bits
        self.at = address_of(bits)
        self.marks = marks
        #: what calls of few rows take; None where there are none such
        self.few = few

    def __deepcopy__(self, _: Any) -> None:
        """A copy of a module has its own memory: nothing is prepared of it."""

    @cached_property
    def layer(self) -> Any:
        """The layer with these parameters, which may be not finite."""
        layer = object.__new__(type(self.plain))  # one of this library's own
        vars(layer).update(vars(self.plain), _holder=type(self.plain._holder)())
        layer._set(self.weights.parameters)
        layer._holder.version.made[engine.prepare, layer.matmul_precision] = self.weights
        return layer

    def holds(self, precision: str, parameters: list[Any], surely: bool = False) -> bool:
        """Whether these are the same, as far as marks tell; False if that is not sure, and has to be."""
        marks = self.marks
        if marks is None or precision != self.precision or (surely and not marks.complete):
            return False
        return marks.hold(parameters, self.at)

    def renewed(self, precision: str, parameters: list[Any]) -> Prepared:
        """The same if these are the same bit for bit, at most with new marks; else what these are prepared to."""
        if precision != self.precision or parameters[0].dtype in HALVES:
            return self._compared(precision, parameters) or prepare(self.plain, precision, parameters)
        marks = self.marks and self.marks.anew(parameters)
        if marks is None:
            return self._compared(precision, parameters) or prepare(self.plain, precision, parameters)
        if same_at(marks.every_at, len(parameters), self.at):
            self.marks = marks
            return self
        vector = np.concatenate(marks.memory)
        vector.flags.writeable = False
        with engine_threads():
            weights = packed_like(self.weights, vector)
        return Prepared(self.plain, weights, precision, vector, marks, self.few and self.few.of(weights))

    def _compared(self, precision: str, parameters: list[Any]) -> Prepared | None:
        """The same with new marks, if these are the same bit for bit."""
        if precision != self.precision:
            return None
        marks, begin = _marks(parameters), 0
        for shape, parameter in zip(self.plain._shapes.values(), parameters, strict=True):
            given = as_bits(parameter)
            kept = self.bits.view(given.dtype)[begin : begin + given.size]
            if tuple(parameter.shape) != shape or not np.array_equal(kept, given.ravel()):
                return None
            begin += given.size
        if begin * given.itemsize != self.bits.nbytes:  # of another dtype
            return None
        self.marks = marks
        return self


def prepare(plain: Any, precision: str, parameters: list[Any]) -> Prepared:
    """Pack parameters, which may be infinite or NaN as PyTorch's may, for a layer like the plain one."""
    marks, dtype = _marks(parameters), parameters[0].dtype  # first, so that a change meanwhile is seen
    for (name, shape), parameter in zip(plain._shapes.items(), parameters, strict=True):
        if (tuple(parameter.shape), parameter.dtype) != (shape, dtype):
            got = f"{tuple(parameter.shape)}, {parameter.dtype}"
            raise RuntimeError(f"{name} must have shape {shape} and dtype {dtype}; got {got}")
    wanted = precision if plain.dtype == np.float32 else "highest"
    if plain.matmul_precision != wanted:
        plain = plain.with_precision(wanted)
    bits = np.concatenate([as_bits(parameter).ravel() for parameter in parameters])
    if dtype in HALVES:
        vector = np.concatenate([as_array(parameter.float()).ravel() for parameter in parameters])
    else:
        vector = bits = bits.view(plain.dtype)
    vector.flags.writeable = False
    cell = plain.cell.with_factors(engine.factors_for(plain.matmul_precision, plain.dtype, plain.hidden_size))
    with engine_threads():
        weights = engine.prepare(cell, vector, plain._constants, plain._sizes)
    few = None if dtype in HALVES or backend == "cuda" else Few(plain, weights)
    return Prepared(plain, weights, precision, bits, marks, few)
