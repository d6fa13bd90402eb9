"""A module's parameters as this library takes them, and whether they still are what they were.

To compare them all is to read them all, which may take longer than a step of one sequence. So inference of few rows
goes by marks: where the parameters are, how often PyTorch has counted a change of each, whether any optimizer has made
a step, and entries: all of a small parameter, some of a large one. The last two, since PyTorch does not count what
fused optimizers do, and what is written through ``.data``, through NumPy, or by another process. Of that, single
entries of a large parameter are left for the other calls to see, which compare everything.
"""

from __future__ import annotations

import copy
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.optim.optimizer import register_optimizer_step_post_hook

from ..cells.parameters import Weights
from ..cpu import engine
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
    #: views of entries of each, which also keep the memory, so that no other tensor gets its address
    entries: list[np.ndarray]
    values: list[bytes]
    #: whether these are all entries
    complete: bool

    def hold(self, parameters: list[Any]) -> bool:
        """Whether they are the same; entries are looked at last, as long as the memory is known to be there."""
        return (
            self.step is _Steps.last
            and list(map(id, parameters)) == self.ids
            and list(map(_address, parameters)) == self.addresses
            and list(map(_version, parameters)) == self.versions
            and [entries.tobytes() for entries in self.entries] == self.values
        )


def _marks(parameters: list[Any]) -> _Marks | None:
    """None where a parameter has no count of changes, or no memory of its own."""
    _watch_optimizers()
    step, entries = _Steps.last, []
    try:
        for parameter in parameters:
            flat = parameter.detach().view(-1)
            array = (flat.view(torch.int16) if flat.dtype in HALVES else flat).numpy()
            step_over = 1 if len(array) <= SMALL else len(array) // ENTRIES | 1  # odd, to meet all columns
            entries.append(array[::step_over])
        addresses, versions = list(map(_address, parameters)), list(map(_version, parameters))
    except (RuntimeError, TypeError):
        return None
    values, complete = [part.tobytes() for part in entries], all(p.numel() <= SMALL for p in parameters)
    return _Marks(list(map(id, parameters)), addresses, versions, step, entries, values, complete)


class Prepared(NamedTuple):
    """A module's parameters as they were at some call."""

    #: of this library, with these parameters
    layer: Any
    #: those of the layer
    weights: Weights
    precision: str
    #: the bits of the parameters that the layer was made of, one by one
    bits: list[np.ndarray]
    marks: _Marks | None

    def holds(self, precision: str, parameters: list[Any], surely: bool = False) -> bool:
        """Whether these are the same, as far as marks tell; False if that is not sure, and has to be."""
        marks = self.marks
        if marks is None or precision != self.precision or (surely and not marks.complete):
            return False
        return marks.hold(parameters)

    def compared(self, precision: str, parameters: list[Any]) -> Prepared | None:
        """The same with new marks, if these are the same bit for bit. Biases come first, since as a rule they tell."""
        if precision != self.precision:
            return None
        marks = self.marks if self.marks is not None and self.marks.hold(parameters) else _marks(parameters)
        for kept, parameter in zip(reversed(self.bits), reversed(parameters), strict=True):
            given = as_bits(parameter)
            if kept.dtype != given.dtype or not np.array_equal(kept, given):
                return None
        return self if marks is self.marks else self._replace(marks=marks)


def prepare(plain: Any, precision: str, parameters: list[Any]) -> Prepared:
    """Pack parameters, which may be infinite or NaN as PyTorch's may, for a layer like the plain one."""
    marks, dtype = _marks(parameters), parameters[0].dtype  # first, so that a change meanwhile is seen
    for (name, value), parameter in zip(plain.state_dict().items(), parameters, strict=True):
        if (tuple(parameter.shape), parameter.dtype) != (value.shape, dtype):
            got = f"{tuple(parameter.shape)}, {parameter.dtype}"
            raise RuntimeError(f"{name} must have shape {value.shape} and dtype {dtype}; got {got}")
    bits = [as_bits(parameter) for parameter in parameters]
    arrays = [as_array(parameter.float() if dtype in HALVES else parameter) for parameter in parameters]
    layer = copy.copy(plain.with_precision(precision if plain.dtype == np.float32 else "highest"))
    vector = np.concatenate([array.ravel() for array in arrays])
    if dtype in HALVES:
        bits = [part.copy() for part in bits]
    else:
        bits = [part.view(np.int32) for part in layer.views(vector).values()]
    layer._set(vector)  # which does not mind what is not finite
    return Prepared(layer, layer._holder.version.made_by(engine.prepare, layer), precision, bits, marks)
