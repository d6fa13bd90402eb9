"""The passes over a small padded batch, on one thread, of which Python tells nothing but addresses.

For tensors, whose address costs a tenth of the array that shares their memory, and where a pass takes less time than
the arguments of one. What follows from the weights and the shape stands in a block of integers, which is made once. The
caller keeps all memory, and knows that the addresses are those of C-contiguous arrays of matching shapes.
"""

from typing import Any, NamedTuple

import numpy as np
from numba import carray

from .._jit import inner, jit
from ..cells.parameters import Layout, Weights, layout_of
from ..simd.memory import address, clear, integers_at, keep_alive, memory, pointer
from .buffers import buffers
from .factors import Factors
from .kernels import address_of, call_backward, call_forward, call_gradients, kernel, run_padded
from .packer import back_packer, back_panels_of, new_panels, pack_all_back
from .scan_back import SPAN_ROWS
from .workspace import ALIGNMENT

__all__ = ["ALIGNMENT", "MOST_ROWS", "Passes", "back_at", "infer_at", "packed_like", "passes", "record_at", "same_at"]

#: rows of which the gradients are surely one span: see `in_one_span`
MOST_ROWS = SPAN_ROWS // 2


class _Block(NamedTuple):
    """What follows from weights and shape. Parts of a tape and of the room are so many bytes after its begin."""

    forward: int
    backward: int
    gradients: int
    parameters: int
    panels: int
    #: T and B
    steps: int
    sequences: int
    #: of the tape, which begins with the gates
    cells: int
    outputs: int
    unprojected: int
    #: of the room of the backward pass, which begins with its panels
    d_between: int
    d_projected: int
    d_units: int
    #: bytes of the last of these
    d_units_size: int
    #: what packs the panels of the backward pass, and elements of these
    packer: int
    panels_size: int


_FIELDS, _PARAMETERS = len(_Block._fields), _Block._fields.index("parameters")
#: what stands behind the fields: the numbers of the layout, and the sizes
_NUMBERS, _SIZES = len(Layout._fields), len(Weights._fields) - 4


class Passes(NamedTuple):
    """Forward and backward pass of some weights over T steps of B sequences."""

    #: the address of the block
    at: int
    #: bytes of the tape, and of the room that the backward pass needs meanwhile
    tape_size: int
    room_size: int
    weights: Weights
    block: np.ndarray

    def of(self, weights: Weights) -> "Passes":
        """The same of other weights, which are of the same layer but for its parameters."""
        block = self.block.copy()
        block[_PARAMETERS] = address_of(weights.parameters)
        block[_PARAMETERS + 1] = address_of(weights.panels)
        return self._replace(at=address_of(block), weights=weights, block=block)


def passes(weights: Weights, steps: int, sequences: int) -> Passes:
    """What `record_at` and `back_at` take."""
    dtype, kind = weights.parameters.dtype, type(weights)
    factors, numbers = Factors(kind.cell.factors, dtype.name), layout_of(kind.cell, weights[4:])  # type: ignore[attr-defined]
    of = buffers(weights, steps * sequences, sequences)
    tape, room = of.tape, of.room
    block = np.array([
        *[kernel(name, weights) for name in ("forward", "backward", "gradients")],
        address_of(weights.parameters), address_of(weights.panels), steps, sequences, *tape[1:-1], *room[1:-1],
        room.size - room.d_units, back_packer(factors), back_panels_of(weights), *numbers, *weights[4:],
    ])  # fmt: skip
    return Passes(address_of(block), tape.size, room.size, weights, block)


def packed_like(weights: Weights, parameters: np.ndarray) -> Weights:
    """The weights of the same layer with other parameters."""
    kind: Any = type(weights)
    made: Weights = kind(parameters, new_panels(kind.cell, parameters, weights.constants, weights[4:]), *weights[2:])
    return made


@inner
def _memory(at):
    """Of which only the address is taken again, so that its dtype does not matter."""
    return memory(at, np.uint8(0))


@inner
def _rows(at, number):
    return carray(pointer(at, np.uint8(0)), (number, 1))


@inner
def _sizes(at):
    return carray(pointer(at + 8 * (_FIELDS + _NUMBERS), np.int64(0)), _SIZES)


# An address of 0 as that of the first states stands for zeros, and so does one of gradients of the last states.


@jit
def infer_at(few_at, steps, sequences, data, h_0, others_0, out, h_n, others_n):
    """As `call_few` of a padded batch, by the addresses of data."""
    run_padded(few_at, steps, sequences, data, h_0, others_0, out, h_n, others_n)


@jit
def record_at(at, data, h_0, others_0, tape, out, h_n, others_n):
    """The forward pass of `passes`, which fills a tape."""
    b = _Block(*integers_at(at, _FIELDS))
    batch_sizes, order, no_drop = np.full(b.steps, b.sequences), np.arange(b.sequences), np.empty(0, np.int64)
    call_forward(
        b.forward, _memory(b.parameters), _memory(b.panels), _sizes(at), _rows(data, b.steps * b.sequences),
        batch_sizes, order, 0, _memory(h_0), _memory(others_0), h_0 != 0, no_drop, _memory(tape),
        _memory(tape + b.cells), _memory(tape + b.outputs), _memory(tape + b.unprojected), 0, b.sequences,
        _memory(out), 0, _memory(h_n), _memory(others_n),
    )  # fmt: skip
    keep_alive((batch_sizes, order))


@jit
def back_at(
    at, data, h_0, others_0, tape, out, d_out, d_h_n, d_others_n, room, goes_on, input_grad, d_x, d_h_0, d_others_0,
    gradient,
):  # fmt: skip
    """The backward pass of `passes`. Uses up the tape.

    Room and the gradient of the parameters, which is zero before it, are vectors in the dtype of the weights. Where the
    gradient does not go on from the sums, to another step, layer or projection, or to the first state or the input, the
    weights are not needed: unless ``goes_on``, the gradients of the first states mean nothing.
    """
    b = _Block(*integers_at(at, _FIELDS))
    room_at = address(room, 0)
    if goes_on:
        numbers = integers_at(at + 8 * _FIELDS, _NUMBERS)
        pack_all_back(b.packer, _memory(b.parameters), numbers, room, b.panels_size, input_grad)
    batch_sizes, order, no_drop = np.full(b.steps, b.sequences), np.arange(b.sequences), np.empty(0, np.int64)
    parameters, panels, sizes = _memory(b.parameters), _memory(b.panels), _sizes(at)
    rows, h, others, given = _rows(data, b.steps * b.sequences), _memory(h_0), _memory(others_0), h_0 != 0
    gates, cells = _memory(tape), _memory(tape + b.cells)
    outputs, unprojected = _memory(tape + b.outputs), _memory(tape + b.unprojected)
    d_projected, d_units = _memory(room_at + b.d_projected), _memory(room_at + b.d_units)
    clear(room_at + b.d_units, b.d_units_size)
    call_backward(
        b.backward, parameters, panels, sizes, rows, batch_sizes, order, 0, h, others, given, no_drop, gates, cells,
        outputs, unprojected, _memory(out), 0, 0, b.sequences, room, _memory(d_out), _memory(d_h_n),
        _memory(d_others_n), d_h_n != 0, _memory(room_at + b.d_between), input_grad, _memory(d_x), _memory(d_h_0),
        _memory(d_others_0), d_projected, d_units,
    )  # fmt: skip
    call_gradients(
        b.gradients, parameters, panels, sizes, rows, batch_sizes, order, 0, h, others, given, no_drop, gates, cells,
        outputs, unprojected, _memory(out), 0, d_projected, d_units, True, gradient, gradient, 0, 0, 1,
    )  # fmt: skip
    keep_alive((batch_sizes, order))


@jit
def same_at(at, count, copies):
    """Whether memory is what it was. Of each of ``count`` places five integers tell how it is looked at.

    These are its address, where its copy is from the address ``copies`` on, how many runs of halves (16 bits) are
    compared, how long each is, and how many halves lie from one run to the next.
    """
    for place in range(count):
        here, copy, runs, length, apart = integers_at(at + 40 * place, 5)
        for run in range(runs):
            if not _equal(here + 2 * apart * run, copies + copy + 2 * apart * run, length):
                return False
    return True


#: halves that are compared before it is asked whether they were all equal
_AT_ONCE = 4096


@inner
def _equal(here, there, length):
    for begin in range(0, length, _AT_ONCE):
        some = min(_AT_ONCE, length - begin)
        x = carray(pointer(here + 2 * begin, np.int16(0)), some)
        y = carray(pointer(there + 2 * begin, np.int16(0)), some)
        differ = np.int16(0)
        for i in range(some):
            differ |= x[i] ^ y[i]
        if differ:
            return False
    return True
