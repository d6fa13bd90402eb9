"""The three passes as functions with an address, one for each kind of weights and dtype, and how they are called.

A kernel takes one argument: the address of a block of integers, which are sizes and the addresses of arrays. So it
is compiled once for all callers: Python, which tells what stands in the block, as `forward_call` and the like do below;
or a user's ``@njit`` function, by way of the functions ``call_...``. The caller keeps the arrays alive, and raises what
a kernel raises: MemoryError, as a rule.
"""

import functools
from collections.abc import Callable, Sequence
from copy import copy
from typing import Any, NamedTuple

import numpy as np
from numba import carray, types

from .._ahead import ask
from .._jit import by_address, inner, jit
from ..batch import Batch, Record, States
from ..cells.cell import Cell
from ..cells.parameters import Weights, weights_of
from ..packing.checks import INT64, is_index_at, outside_of
from ..packing.objects import address_of as data_of
from ..packing.objects import data_at, dtype_at, is_array, is_array_like, items_at, length_at, pointer_at
from ..simd.memory import address, integers_at, keep_alive, memory, put_integers
from ..simd.modes import call_kernel
from .factors import Factors, factors_of
from .packer import back_packer, new_panels
from .products import begin_products, end_products
from .scan import Sorted, forward_stack
from .scan_back import Sums, backward_stack, scatter_of, weight_gradients
from .symbols import gather_of
from .table import PASSES, enter
from .team import Call, block_of
from .tile import tile_of

__all__ = [
    "FORWARD_BLOCK",
    "Apart",
    "BackMemory",
    "Pass",
    "address_of",
    "backward_call",
    "call_backward",
    "call_few",
    "call_forward",
    "call_gradients",
    "call_inference",
    "cuts_of",
    "foresee",
    "forward_call",
    "gradients_call",
    "inference_block",
    "kernel",
    "make_all",
    "packed_weights",
    "run_padded",
    "weights_block",
]


class _Header(NamedTuple):
    """What every kernel needs; the head of every block."""

    parameters: int
    panels: int
    input_size: int
    hidden_size: int
    output_size: int
    num_layers: int
    num_directions: int
    bias: int
    heads: int
    reverse: int
    #: of the batch: (N, I) or (N,) symbols, N, whether they are symbols, (T,), T, (B,), B, and the steps before these
    data: int
    rows: int
    symbols: int
    batch_sizes: int
    steps: int
    order: int
    sequences: int
    since: int
    #: the initial states, and whether there are any
    h_0: int
    others_0: int
    given: int
    #: the dropout: see `drop_of`; 0 for none
    drop: int
    #: the tape, if one is kept
    keep: int
    gates: int
    cells: int
    outputs: int
    unprojected: int
    #: (N, D * P) the output
    out: int
    #: (S - 1, N, D * H) the other states after each step, or their gradient; 0 for none
    shown: int


class _Forward(NamedTuple):
    """What the forward pass needs besides."""

    first: int
    last: int
    h_n: int
    others_n: int
    #: odd in every other call of those that take one step after the other: see `forward_stack`
    turn: int
    #: of all parts, if each is to compute some units of all sequences; or 0
    meeting: int


class _Backward(NamedTuple):
    """What the backward pass needs besides."""

    first: int
    last: int
    #: panels of `pack_back`
    panels: int
    d_out: int
    d_h_n: int
    d_others_n: int
    #: whether gradients of the last states are given
    given: int
    d_between: int
    #: 1 if the gradient of the input is wanted, 2 if it is to be added to what is there, else 0
    input_grad: int
    d_x: int
    d_h_0: int
    d_others_0: int
    d_projected: int
    d_units: int
    #: as in `_Forward`
    meeting: int


class _Gradients(NamedTuple):
    """What the gradients of the weights need besides."""

    #: which parts of how many: see `weight_gradients`
    first: int
    last_part: int
    parts: int
    d_projected: int
    d_units: int
    #: whether it is the last piece of the batch
    last: int
    #: `Sums`
    total: int
    of_span: int
    blocks: int


_HEAD = len(_Header._fields)
_FORWARD, _BACKWARD, _GRADIENTS = len(_Forward._fields), len(_Backward._fields), len(_Gradients._fields)
#: integers of a block of the forward pass
FORWARD_BLOCK = _HEAD + _FORWARD


@inner
def _batch(head):
    return Sorted(
        head.data, head.batch_sizes, head.steps, head.order, head.sequences, head.rows, head.symbols != 0, head.since
    )


@inner
def _states(h, others, given, number):
    return States(memory(h, number), memory(others, number), given != 0)


@inner
def _record(head, number):
    return Record(
        memory(head.gates, number),
        memory(head.cells, number),
        memory(head.outputs, number),
        memory(head.unprojected, number),
    )


@inner
def _weights(kind, head, number):
    return kind(
        memory(head.parameters, number), memory(head.panels, number),
        memory(head.panels, number), 0, head.input_size, head.hidden_size, head.output_size,
        head.num_layers, head.num_directions, head.bias, head.heads, head.reverse,
    )  # fmt: skip


def _forward_kernel(kind, number):
    def forward(block):
        head = _Header(*integers_at(block, _HEAD))
        call = _Forward(*integers_at(block + 8 * _HEAD, _FORWARD))
        weights = _weights(kind, head, number)
        first, last = call.first, call.last
        if call.meeting != 0:
            first, last = 0, head.sequences
        begin_products(factors_of(weights))
        forward_stack(
            weights, _batch(head), first, last,
            _states(head.h_0, head.others_0, head.given, number), head.drop, head.keep != 0, _record(head, number),
            memory(head.out, number), head.shown, memory(call.h_n, number),
            memory(call.others_n, number), call.turn, call.meeting,
        )  # fmt: skip
        end_products(factors_of(weights))

    return forward


def _backward_kernel(kind, number):
    def backward(block):
        head = _Header(*integers_at(block, _HEAD))
        call = _Backward(*integers_at(block + 8 * _HEAD, _BACKWARD))
        weights = _weights(kind, head, number)
        first, last = call.first, call.last
        if call.meeting != 0:
            first, last = 0, head.sequences
        begin_products(factors_of(weights))
        backward_stack(
            weights, memory(call.panels, number), _batch(head), first, last,
            _states(head.h_0, head.others_0, head.given, number), head.drop, _record(head, number),
            memory(head.out, number), memory(call.d_out, number), head.shown,
            _states(call.d_h_n, call.d_others_n, call.given, number), memory(call.d_between, number),
            call.input_grad, memory(call.d_x, number),
            _states(call.d_h_0, call.d_others_0, 1, number), memory(call.d_projected, number),
            memory(call.d_units, number), call.meeting,
        )  # fmt: skip
        end_products(factors_of(weights))

    return backward


def _gradients_kernel(kind, number):
    def gradients(block):
        head = _Header(*integers_at(block, _HEAD))
        call = _Gradients(*integers_at(block + 8 * _HEAD, _GRADIENTS))
        weights = _weights(kind, head, number)
        begin_products(factors_of(weights))
        weight_gradients(
            weights, _batch(head), _states(head.h_0, head.others_0, head.given, number),
            head.drop, _record(head, number), memory(head.out, number),
            memory(call.d_projected, number), memory(call.d_units, number), call.first, call.last_part,
            call.parts, call.last != 0,
            Sums(memory(call.total, number), memory(call.of_span, number), call.blocks),
        )  # fmt: skip
        end_products(factors_of(weights))

    return gradients


_KERNELS = dict(zip(PASSES, (_forward_kernel, _backward_kernel, _gradients_kernel), strict=True))


@functools.cache
def _pass(name: str, kind: Any, dtype: np.dtype[Any]) -> Any:
    """A pass, compiled or loaded."""
    key = kind.cell.digest, dtype.name
    return by_address(types.void(types.intp), key)(_KERNELS[name](kind, dtype.type(0)))


@functools.cache
def _compiled(name: str, kind: Any, itemsize: int) -> Any:
    """A pass with what it calls; from now on compiled code finds it in the table."""
    dtype = np.dtype(f"f{itemsize}")
    tile_of(Factors(kind.cell.factors, dtype.name))
    made = _pass(name, kind, dtype)
    enter(kind.cell.digest, name, dtype.name, made.native)
    return made


def kernel(name: str, weights: Weights, symbols: bool = False) -> int:
    """The address of a pass for these weights: "forward", "backward" or "gradients"; ready for symbols, too."""
    kind: Any = type(weights)
    if symbols and name == "forward":
        gather_of(Factors(kind.cell.factors, weights.parameters.dtype.name))
    if symbols and name == "gradients":
        scatter_of(weights.parameters.dtype)
    return _compiled(name, kind, weights.parameters.itemsize).native


@functools.cache
def foresee(cell: Cell, dtype: np.dtype[Any], training: bool) -> None:
    """Have the passes compiled ahead that a layer is going to need, if its cell is one that other processes know."""
    if (cell.base.__module__ or "").startswith(f"{__name__.partition('.')[0]}."):
        for rank, name in enumerate(PASSES if training else PASSES[:1]):
            ask(rank, (name, (cell.digest, dtype.name)), _compile, name, cell, dtype)


def _compile(name: str, cell: Cell, dtype: np.dtype[Any]) -> None:
    _pass(name, weights_of(cell), dtype)


def make_all(weights: Weights) -> Weights:
    """Make all that compiled code may call with these weights, and return them."""
    kind: Any = type(weights)
    training = kind.cell.factors != "int8"
    foresee(kind.cell, weights.parameters.dtype, training)
    for name in PASSES if training else PASSES[:1]:
        kernel(name, weights, symbols=True)
    if training:
        back_packer(Factors(kind.cell.factors, weights.parameters.dtype.name))
    return weights


def packed_weights(cell: Cell, parameters: np.ndarray, constants: np.ndarray, sizes: tuple[int, ...]) -> Weights:
    """The weights of a layer, packed; ``sizes`` are the fields of `Weights` from ``input_size`` on."""
    foresee(cell, parameters.dtype, False)
    panels = new_panels(cell, parameters, constants, sizes)
    made: Weights = weights_of(cell)(parameters, panels, constants, np.array(sizes), *sizes)
    return made


def _unpickled(cell: Cell, parameters: np.ndarray, constants: np.ndarray, sizes: tuple[int, ...]) -> Weights:
    parameters.flags.writeable = False
    return make_all(packed_weights(cell, parameters, constants, sizes))


def _reduced(weights: Weights) -> tuple[Any, ...]:
    """How weights are pickled: to be packed anew, which may be on another machine."""
    kind: Any = type(weights)
    if not weights.parameters.size:  # of a layer that is quantized
        raise TypeError("weights must be those of a layer in float to be copied or pickled; of others copy the layer")
    return _unpickled, (kind.cell, weights.parameters, weights.constants, weights[4:])


Weights.__reduce__ = _reduced  # type: ignore[assignment,method-assign]


@inner
def _run(kernel, head, call):
    """Call a kernel with the block of a `_Header` and what its pass needs besides."""
    block = np.empty(len(head) + len(call), np.int64)
    put_integers(address(block, 0), head)
    put_integers(address(block, len(head)), call)
    call_kernel(kernel, address(block, 0))
    keep_alive((block,))


@inner
def _place(drop):
    return address(drop, 0) if drop.size else 0


@inner
def _head(
    parameters, panels, sizes, data, batch_sizes, order, since, h_0, others_0, given, drop, keep, record, out, shown
):  # fmt: skip
    gates, cells, outputs, unprojected = record
    return _Header(
        parameters=address(parameters, 0),
        panels=address(panels, 0),
        input_size=sizes[0],
        hidden_size=sizes[1],
        output_size=sizes[2],
        num_layers=sizes[3],
        num_directions=sizes[4],
        bias=sizes[5],
        heads=sizes[6],
        reverse=sizes[7],
        data=address(data, 0),
        rows=data.shape[0],
        symbols=int(data.ndim == 1),
        batch_sizes=address(batch_sizes, 0),
        steps=batch_sizes.size,
        order=address(order, 0),
        sequences=order.size,
        since=since,
        h_0=address(h_0, 0),
        others_0=address(others_0, 0),
        given=int(given),
        drop=drop,
        keep=int(keep),
        gates=address(gates, 0),
        cells=address(cells, 0),
        outputs=address(outputs, 0),
        unprojected=address(unprojected, 0),
        out=address(out, 0),
        shown=shown,
    )


# For compiled code. Arguments are plain arrays and numbers; in all of them

# - weights:  parameters, panels, sizes
# - batch:    data (N, I) or symbols (N,), batch_sizes (T,), order (B,); in training, the steps before these
# - states:   h_0 (L * D, B, P), others_0 (S - 1, L * D, B, H), given
# - shown:    the address of (S - 1, N, D * H) states, or their gradient; 0 for none
# - drop:     see `drop_of`
# - record:   gates, cells, outputs, unprojected, as in `Record`


@jit
def call_inference(
    kernel, parameters, panels, sizes, data, batch_sizes, order, h_0, others_0, given, first, last, out, shown, h_n,
    others_n,
):  # fmt: skip
    """Run the forward pass for the sequences ``first`` to ``last``; writes their part of out, h_n and others_n."""
    head = _head(
        parameters, panels, sizes, data, batch_sizes, order, 0, h_0, others_0, given, 0, False,
        (data, data, data, data), out, shown,
    )  # fmt: skip
    h_at, others_at = address(h_n, 0), address(others_n, 0)
    _run(kernel, head, _Forward(first=first, last=last, h_n=h_at, others_n=others_at, turn=0, meeting=0))


@jit
def call_forward(
    kernel, parameters, panels, sizes, data, batch_sizes, order, since, h_0, others_0, given, drop, gates,
    cells, outputs, unprojected, first, last, out, shown, h_n, others_n,
):  # fmt: skip
    """As `call_inference`, with dropout, and writes their part of the record."""
    head = _head(
        parameters, panels, sizes, data, batch_sizes, order, since, h_0, others_0, given, _place(drop), True,
        (gates, cells, outputs, unprojected), out, shown,
    )  # fmt: skip
    h_at, others_at = address(h_n, 0), address(others_n, 0)
    _run(kernel, head, _Forward(first=first, last=last, h_n=h_at, others_n=others_at, turn=0, meeting=0))


@jit
def call_backward(
    kernel, parameters, panels, sizes, data, batch_sizes, order, since, h_0, others_0, given, drop, gates,
    cells, outputs, unprojected, out, shown, first, last, back_panels, d_out, d_h_n, d_others_n, d_given, d_between,
    input_grad, d_x, d_h_0, d_others_0, d_projected, d_units,
):  # fmt: skip
    """Run the backward pass for the sequences ``first`` to ``last``: see `backward_stack`."""
    head = _head(
        parameters, panels, sizes, data, batch_sizes, order, since, h_0, others_0, given, _place(drop), True,
        (gates, cells, outputs, unprojected), out, shown,
    )  # fmt: skip
    call = _Backward(
        first=first,
        last=last,
        panels=address(back_panels, 0),
        d_out=address(d_out, 0),
        d_h_n=address(d_h_n, 0),
        d_others_n=address(d_others_n, 0),
        given=int(d_given),
        d_between=address(d_between, 0),
        input_grad=int(input_grad),
        d_x=address(d_x, 0),
        d_h_0=address(d_h_0, 0),
        d_others_0=address(d_others_0, 0),
        d_projected=address(d_projected, 0),
        d_units=address(d_units, 0),
        meeting=0,
    )
    _run(kernel, head, call)


@jit
def call_gradients(
    kernel, parameters, panels, sizes, data, batch_sizes, order, since, h_0, others_0, given, drop, gates,
    cells, outputs, unprojected, out, shown, d_projected, d_units, last, total, of_span, blocks, part, parts,
):  # fmt: skip
    """Run part ``part`` of ``parts`` of the gradients of the weights: see `weight_gradients`."""
    head = _head(
        parameters, panels, sizes, data, batch_sizes, order, since, h_0, others_0, given, _place(drop), True,
        (gates, cells, outputs, unprojected), out, shown,
    )  # fmt: skip
    call = _Gradients(
        first=part,
        last_part=part + 1,
        parts=parts,
        d_projected=address(d_projected, 0),
        d_units=address(d_units, 0),
        last=int(last),
        total=address(total, 0),
        of_span=address(of_span, 0),
        blocks=blocks,
    )
    _run(kernel, head, call)


# The smaller a batch, the more do arguments count. What follows from the weights may be told by one integer; and arrays
# by the addresses of the objects, which compiled code looks at itself, in a tenth of the time that Python takes.


def weights_block(weights: Weights, symbols: bool) -> np.ndarray:
    """What `call_few` takes the address of, for who keeps it and the weights: see `_OfWeights`."""
    ask(4, "call_few", _compile_call_few)
    parameters, panels, _, _, *sizes = weights
    at = address_of(parameters), address_of(panels)
    of_calls = symbols, id(np.ndarray), id(INT64), 0
    return np.array(_OfWeights._make((kernel("forward", weights, symbols), *at, *sizes, *of_calls)), np.int64)


class _OfWeights(NamedTuple):
    """What `call_few` reads."""

    kernel: int
    parameters: int
    panels: int
    input_size: int
    hidden_size: int
    output_size: int
    num_layers: int
    num_directions: int
    bias: int
    heads: int
    reverse: int
    #: whether rows are symbols
    symbols: int
    #: the class of arrays, and the dtype of integers, as objects
    array: int
    integer: int
    #: as in `_Forward`
    turn: int


_OF_WEIGHTS = len(_OfWeights._fields)


@jit
def call_few(weights_at, objects, rows, sequences):
    """Run the forward pass over all of a batch, if it is just as kernels take it; returns whether it is.

    weights_at : the address of a `weights_block`
    objects : the address of a tuple, which the caller keeps:

    - data : (N, I) or (N,) symbols, with as many axes before these as there may be; the caller has looked at the shape
    - batch_sizes, order, ranks : the index arrays of a packed batch; for a padded one out in place of each
    - h_0, others_0 : as h_n and others_n; for zeros h_n in place of each
    - out, h_n, others_n : C-contiguous arrays to be written; the last is the same as h_n if the cell has one state

    rows, sequences : N and B
    """
    of = _OfWeights(*integers_at(weights_at, _OF_WEIGHTS))
    data, batch_sizes, order, ranks, h_0, others_0, out, h_n, others_n = integers_at(items_at(objects), 9)
    if of.symbols:
        if not is_array(data, of.array, of.integer):
            return False
        if outside_of(carray(pointer_at(data, np.int64(0)), rows), of.input_size) >= 0:
            return False
    elif not is_array(data, of.array, dtype_at(out)):
        return False
    given = h_0 != h_n
    if given and not (is_array_like(h_0, h_n) and is_array_like(others_0, others_n)):
        return False
    h_at, others_at = (data_at(h_0), data_at(others_0)) if given else (0, 0)
    data_of, out_of, h_n_of, others_n_of = data_at(data), data_at(out), data_at(h_n), data_at(others_n)
    if batch_sizes == out:
        run_padded(weights_at, rows // sequences, sequences, data_of, h_at, others_at, out_of, h_n_of, others_n_of)
        return True
    if not is_index_at(batch_sizes, order, ranks, rows, of.array, of.integer):
        return False
    _run_few(
        weights_at, of, rows, length_at(batch_sizes), data_at(batch_sizes), sequences, data_at(order), data_of, h_at,
        others_at, out_of, h_n_of, others_n_of,
    )  # fmt: skip
    return True


@inner
def run_padded(weights_at, steps, sequences, data, h_0, others_0, out, h_n, others_n):
    """As `call_few` with a padded batch, without a look at it: all are addresses of data."""
    made = np.empty(steps + sequences, np.int64)
    made[:steps] = sequences
    for i in range(sequences):
        made[steps + i] = i
    _run_few(
        weights_at, _OfWeights(*integers_at(weights_at, _OF_WEIGHTS)), steps * sequences, steps, address(made, 0),
        sequences, address(made, steps), data, h_0, others_0, out, h_n, others_n,
    )  # fmt: skip
    keep_alive((made,))


@inner
def _run_few(
    weights_at, of, rows, steps, batch_sizes, sequences, order, data, h_0, others_0, out, h_n, others_n
):  # fmt: skip
    head = _Header(
        parameters=of.parameters,
        panels=of.panels,
        input_size=of.input_size,
        hidden_size=of.hidden_size,
        output_size=of.output_size,
        num_layers=of.num_layers,
        num_directions=of.num_directions,
        bias=of.bias,
        heads=of.heads,
        reverse=of.reverse,
        data=data,
        rows=rows,
        symbols=of.symbols,
        batch_sizes=batch_sizes,
        steps=steps,
        order=order,
        sequences=sequences,
        since=0,
        h_0=h_0,
        others_0=others_0,
        given=int(h_0 != 0),
        drop=0,
        keep=0,
        gates=0,
        cells=0,
        outputs=0,
        unprojected=0,
        out=out,
        shown=0,
    )
    call = _Forward(first=0, last=sequences, h_n=h_n, others_n=others_n, turn=of.turn, meeting=0)
    put_integers(weights_at + 8 * (_OF_WEIGHTS - 1), (1 - of.turn,))
    _run(of.kernel, head, call)


# A block may also be made beforehand, of arrays that a pass reads and writes again and again.


def address_of(array: np.ndarray | None) -> int:
    """The address of an array, which is kept by who calls; 0 if there is none."""
    return data_of(array) if array is not None and array.size else 0


def _head_of(
    place: Callable[[np.ndarray], int], weights: Weights, batch: Batch, states: States, drop: np.ndarray | None,
    tape: Sequence[int], out: np.ndarray, shown: np.ndarray | None,
) -> tuple[int, ...]:  # fmt: skip
    """The fields of a `_Header`, with what ``place`` gives for arrays.

    ``tape`` are the addresses of the arrays of a `Record`; where there are none nothing is kept.
    """
    parameters, panels, _, _, *sizes = weights
    data, batch_sizes, order, rows, symbols, since = batch
    h, others, given = states
    return (
        place(parameters), place(panels), *sizes,
        place(data), rows, symbols, place(batch_sizes), len(batch_sizes), place(order), len(order), since,
        place(h), place(others), given,
        0 if drop is None or not drop.size else place(drop), *((1, *tape) if tape else _NO_TAPE),
        place(out), 0 if shown is None else place(shown),
    )  # fmt: skip


_NO_TAPE = (0, 0, 0, 0, 0)


def inference_block(
    weights: Weights, batch: Batch, states: States, out: np.ndarray, shown: np.ndarray | None, last: States, turn: int
) -> tuple[int, ...]:
    """The block of a forward pass over a whole batch, as `call_inference` makes it; ``last`` is for the last states."""
    head = _head_of(address_of, weights, batch, states, None, (), out, shown)
    return *head, 0, len(batch.order), address_of(last.h), address_of(last.others), turn, 0


# Or for one call: then arrays of the caller's stand in it as objects, and the engine's own memory as addresses.

_IN_HEAD = ("parameters", "panels", "data", "batch_sizes", "order", "h_0", "others_0", "drop", "out", "shown")


_BLOCK_FORWARD = block_of((*_Header._fields, *_Forward._fields), (*_IN_HEAD, "h_n", "others_n", "meeting"), "first")
_BLOCK_BACKWARD = block_of(
    (*_Header._fields, *_Backward._fields),
    (*_IN_HEAD, "d_out", "d_h_n", "d_others_n", "d_x", "d_h_0", "d_others_0", "meeting"),
    "first",
)
#: of the gradients, which follow upon the backward pass
_BLOCK_GRADIENTS = block_of((*_Header._fields, *_Gradients._fields), ("total", "of_span"), "first", shared=_HEAD)


@jit
def cuts_of(batch_sizes, sequences, parts):
    """Where runs of the sorted sequences begin, of about equally many rows, and where the last one ends.

    There are so many runs, or fewer if there are not as many sequences.
    """
    rows, cuts = batch_sizes.sum(), np.zeros(parts + 1, np.int64)
    found, part, length, before = 1, 1, batch_sizes.size, 0
    for sequence in range(sequences):
        while length > 0 and batch_sizes[length - 1] <= sequence:
            length -= 1
        while part < parts and (2 * before + length) * parts >= 2 * rows * part:  # its middle is in the next
            if cuts[found - 1] < sequence:
                cuts[found] = sequence
                found += 1
            part += 1
        before += length
    cuts[found] = sequences
    return cuts[: found + 1].copy()


class Apart(NamedTuple):
    """How a pass is divided: into runs of the sequences, or into shares of the units."""

    parts: int
    #: (parts + 1,) what `cuts_of` gives; None if there is one part, or a meeting
    cuts: np.ndarray | None
    #: a `Meeting` for as many threads as there are parts, each of which takes a share of the units
    meeting: np.ndarray | None


class Pass:
    """What all passes over a batch begin with. It keeps what it is made of, but for the tape and what is shown.

    ``tape`` are the addresses of the arrays of a `Record`, none in inference; ``drop`` is what `drop_of` gives.
    """

    def __init__(
        self, weights: Weights, batch: Batch, states: States, drop: np.ndarray | None, tape: Sequence[int],
        out: np.ndarray,
    ) -> None:  # fmt: skip
        self.weights, self.batch = weights, batch
        self.kept = states, drop, out
        #: the fields of a `_Header`, with arrays as objects
        self.head = _head_of(id, weights, batch, states, drop, tape, out, None)

    def showing(self, shown: np.ndarray | None) -> "Pass":
        """The same, with (S - 1, N, D * H) other states after each step, or their gradient, if that is not None."""
        if shown is None:
            return self
        other = copy(self)
        other.head = (*self.head[:-1], id(shown))
        return other

    def call(self, name: str, block: int, apart: Apart, rest: tuple[int, ...]) -> Call:
        """A call of the pass of that name; what ``rest``, its own fields, follows is the run of a part."""
        parts, cuts, meeting = apart
        run = (0, len(self.batch.order)) if cuts is None else (int(cuts[0]), int(cuts[-1]))
        fields = *self.head, *run, *rest, 0 if meeting is None else id(meeting)
        return Call(kernel(name, self.weights, self.batch.symbols), block, parts, cuts, fields)


# The caller keeps all arguments until the call is made.


def forward_call(given: Pass, h_n: np.ndarray, others_n: np.ndarray, apart: Apart) -> Call:
    """The forward pass, which writes the output, the last states and, in training, the tape."""
    return given.call("forward", _BLOCK_FORWARD, apart, (id(h_n), id(others_n), 0))


class BackMemory(NamedTuple):
    """The addresses of what the backward passes need meanwhile: see `backward_stack`."""

    panels: int
    d_between: int
    d_projected: int
    d_units: int


def backward_call(
    given: Pass, memory: BackMemory, d_out: np.ndarray, d_last: States, input_grad: int, d_x: np.ndarray,
    d_first: States, apart: Apart,
) -> Call:  # fmt: skip
    """The backward pass: see `backward_stack`."""
    panels, d_between, d_projected, d_units = memory
    rest = (
        panels, id(d_out), id(d_last.h), id(d_last.others), d_last.given, d_between, input_grad, id(d_x),
        id(d_first.h), id(d_first.others), d_projected, d_units,
    )  # fmt: skip
    return given.call("backward", _BLOCK_BACKWARD, apart, rest)


def gradients_call(given: Pass, memory: BackMemory, last: bool, into: Sums, parts: int) -> Call:
    """The sums of the gradients of the weights, called right after `backward_call`: see `weight_gradients`."""
    total, of_span, blocks = into
    fields = (
        0, 1, parts, memory.d_projected, memory.d_units, last, id(total), id(of_span), blocks,
    )  # fmt: skip
    return Call(kernel("gradients", given.weights, given.batch.symbols), _BLOCK_GRADIENTS, parts, None, fields)


def _compile_call_few() -> None:
    call_few.compile((types.int64,) * 4)


# what every kind of layer needs
ask(3, ("tile", None), tile_of, Factors("float", "float32"))
