"""Weights packed into panels: functions with an address, of which a call packs a run of the panels of a layer.

One packs for the forward scans, and one for the backward scans; there are both for each kind of factors. Threads divide
the panels among them, and compiled code has all of them packed by one call of the same function.
"""

import functools
from typing import Any, NamedTuple

import numpy as np
from numba import types
from numba.extending import intrinsic

from .._jit import by_address, inner
from ..cells.cell import Cell
from ..cells.parameters import Layout, Weights, layout_of
from ..packing.objects import address_of
from ..simd.memory import address, clear, integers_at, keep_alive, memory, put_integers
from ..simd.modes import call_kernel
from .factors import Factors
from .panels import Run, back_panels_size, forward_panels_size, pack_back, pack_forward
from .table import SHARED, enter, entry
from .team import Call, block_of, call_each
from .threads import get_num_threads, team

__all__ = ["back_packer", "back_packer_entry", "back_packing", "back_panels_of", "new_panels", "pack_all_back"]

#: bytes of panels that are worth a thread
WORTH_A_THREAD = 1 << 18
#: parts for each thread: one that is woken for them comes when some are done
PARTS = 4
#: bytes of a cache line
ALIGNMENT = 64


class _Block(NamedTuple):
    parameters: int
    #: of the `Layout`
    numbers: int
    panels: int
    #: of the forward scans: constants, and how many they are
    constants: int
    constants_count: int
    #: of the backward scans: whether the gradient of the input is wanted
    input_grad: int
    #: memory that is to be zeros, and how many bytes
    zeros: int
    zeros_bytes: int
    #: elements of the panels
    size: int
    #: which parts of how many
    first: int
    last: int
    parts: int


_FIELDS, _NUMBERS = len(_Block._fields), len(Layout._fields)
_BLOCK_FORWARD = block_of(_Block._fields, ("parameters", "numbers", "panels", "constants"), "first")
#: the panels of a backward pass are in the midst of an array
_BLOCK_BACK = block_of(_Block._fields, ("parameters", "numbers", "zeros"), "first")


@inner
def _run(b):
    """The `Run` of those parts: what is empty begins at the end."""
    return Run(b.size * b.first // b.parts, b.size * b.last // b.parts + (1 if b.last == b.parts else 0))


@inner
def _zeros(b):
    """Make those parts of the memory zeros, in whole lines of the cache."""
    first = b.zeros_bytes * b.first // b.parts // ALIGNMENT * ALIGNMENT
    last = b.zeros_bytes * b.last // b.parts // ALIGNMENT * ALIGNMENT if b.last < b.parts else b.zeros_bytes
    clear(b.zeros + first, last - first)


@functools.cache
def _packer(forward: bool, factors: Factors) -> Any:
    number = np.dtype(factors.dtype).type(0)

    def pack_run_forward(block):
        b = _Block(*integers_at(block, _FIELDS))
        pack_forward(
            factors, memory(b.parameters, number), Layout(*integers_at(b.numbers, _NUMBERS)),
            memory(b.constants, number), b.constants_count, memory(b.panels, number), _run(b),
        )  # fmt: skip

    def pack_run_back(block):
        b = _Block(*integers_at(block, _FIELDS))
        _zeros(b)
        pack_back(
            factors, memory(b.parameters, number), Layout(*integers_at(b.numbers, _NUMBERS)), memory(b.panels, number),
            b.input_grad != 0, _run(b),
        )  # fmt: skip

    return by_address(types.void(types.intp), tuple(factors))(pack_run_forward if forward else pack_run_back)


def back_packer(factors: Factors) -> int:
    """The address of what packs for the backward scans; from now on compiled code finds it in the table."""
    made = _packer(False, factors)
    enter(SHARED, f"pack_back {factors.kind}", factors.dtype, made.native)
    native: int = made.native
    return native


@intrinsic
def back_packer_entry(typingctx, factors):
    """That address, in compiled code."""
    name, dtype = f"pack_back {factors.kind}", factors.dtype.name
    return types.int64(factors), lambda context, builder, sig, args: entry(builder, SHARED, name, dtype)


@inner
def pack_all_back(packer, parameters, of, panels, size, input_grad):
    """Fill the panels of the backward scans, so many elements, by the address of what packs them; in compiled code."""
    block, numbers = np.empty(_FIELDS, np.int64), np.empty(_NUMBERS, np.int64)
    put_integers(address(numbers, 0), of)
    fields = _Block(
        parameters=address(parameters, 0),
        numbers=address(numbers, 0),
        panels=address(panels, 0),
        constants=0,
        constants_count=0,
        input_grad=int(input_grad),
        zeros=0,
        zeros_bytes=0,
        size=size,
        first=0,
        last=1,
        parts=1,
    )
    put_integers(address(block, 0), fields)
    call_kernel(packer, address(block, 0))
    keep_alive((block, parameters, numbers, panels))


class _Plan(NamedTuple):
    """What follows from a cell, the sizes of a layer and its dtype."""

    factors: Factors
    numbers: np.ndarray
    #: elements of the panels of the forward scans, and of the backward scans
    forward: int
    back: int


@functools.lru_cache(maxsize=256)
def _plan(cell: Cell, sizes: tuple[int, ...], dtype: np.dtype[Any]) -> _Plan:
    factors, of = Factors(cell.factors, dtype.name), layout_of(cell, sizes)
    return _Plan(factors, np.array(of), forward_panels_size(factors, of), back_panels_size(factors, of))


def _parts(nbytes: int) -> tuple[int, int]:
    """How many threads a buffer of panels is worth, and in how many parts it is packed."""
    threads = min(get_num_threads(), nbytes // WORTH_A_THREAD)
    return threads, PARTS * threads if threads > 1 else 1


def _aligned(nbytes: int) -> np.ndarray:
    buffer = np.empty(nbytes + ALIGNMENT, np.uint8)
    skip = -address_of(buffer) % ALIGNMENT
    return buffer[skip : skip + nbytes]


def new_panels(cell: Cell, parameters: np.ndarray, constants: np.ndarray, sizes: tuple[int, ...]) -> np.ndarray:
    """The panels of the forward scans of all layers, and the constants behind them."""
    dtype = parameters.dtype
    of = _plan(cell, sizes, dtype)
    threads, parts = _parts(of.forward * dtype.itemsize)
    workers = team(threads)
    panels = _aligned((of.forward + constants.size) * dtype.itemsize).view(dtype)
    fields = (
        id(parameters), id(of.numbers), id(panels), id(constants), constants.size, 0, 0, 0, of.forward, 0, 1, parts,
    )  # fmt: skip
    call_each([Call(_packer(True, of.factors).native, _BLOCK_FORWARD, parts, None, fields)], workers)
    return panels


def back_panels_of(weights: Weights) -> int:
    """Elements of the panels of the backward scans."""
    kind: Any = type(weights)
    return _plan(kind.cell, weights[4:], weights.parameters.dtype).back


class Packing(NamedTuple):
    """A call that is yet to be made, and what it reads."""

    call: Call
    #: that it is worth
    threads: int
    numbers: np.ndarray


def back_packing(weights: Weights, panels: int, input_grad: bool, zeros: np.ndarray) -> Packing:
    """What fills the panels of the backward scans, at an address, and an array with zeros.

    Without ``input_grad`` it leaves out what `pack_back` does. The caller keeps the arguments until it is called.
    """
    kind: Any = type(weights)
    parameters = weights.parameters
    of = _plan(kind.cell, weights[4:], parameters.dtype)
    threads, parts = _parts(of.back * parameters.itemsize)
    fields = (
        id(parameters), id(of.numbers), panels, 0, 0, input_grad, id(zeros), zeros.nbytes, of.back, 0, 1, parts,
    )  # fmt: skip
    return Packing(Call(_packer(False, of.factors).native, _BLOCK_BACK, parts, None, fields), threads, of.numbers)
