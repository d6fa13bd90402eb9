"""The CPU backend: a whole forward or backward pass over all layers, its sequences divided among threads.

What is passed is checked by the caller: arrays are C-contiguous, of the dtype of the weights, and of matching shapes.
"""

import functools
from typing import Any, NamedTuple

import numpy as np

from ..batch import BackResults, Batch, Record, Results, States
from ..cells.cell import Cell
from ..cells.dropout import Dropout
from ..cells.parameters import Weights, layout_of
from ..simd.lanes import lanes_of
from . import threads
from .buffers import Buffers, buffers
from .drop import drop_of, drop_rows
from .kernels import (
    Apart,
    BackMemory,
    Pass,
    address_of,
    backward_call,
    call_few,
    cuts_of,
    foresee,
    forward_call,
    gradients_call,
    packed_weights,
    weights_block,
)
from .matrices import VECTORS
from .packer import Packing, back_packing
from .precision import factors_for
from .scan import BLOCK_BYTES
from .scan_back import Sums, in_one_span
from .team import call_each
from .workspace import WORKSPACE

__all__ = [
    "Few",
    "Going",
    "Saved",
    "begin_back",
    "cell_of",
    "drop",
    "end_back",
    "factors_for",
    "few",
    "infer",
    "infer_few",
    "new_results",
    "piece_back",
    "prepare",
    "record",
    "replay_back",
    "saved_on",
]

#: floating-point operations that are worth a thread of their own
WORTH_A_THREAD = 1e7
#: and of a step, those that are worth to meet another one at its end
WORTH_A_MEETING = 1e5
#: as many sequences for each thread are divided by sequences
SEQUENCES_OF_A_THREAD = 8
#: assumed cost of a cell's own arithmetic for one unit, counted in products
OF_A_CELL = 32
#: what dropping a unit is taken to cost, in operations
OF_A_DROP = 16
#: bytes that inference may use beyond input and output, all threads together
SCRATCH_BYTES = 24 << 20
#: of these, those of one part of the sequences that a thread goes over the steps with: they stay in its cache
PART_BYTES = 2 << 20
#: sequences that a part has at least for that sake: it reads all weights at each step
PART_SEQUENCES = 1024


class Saved(NamedTuple):
    """What a forward pass leaves for its backward pass: see `saved_on`."""

    given: Pass
    of: Buffers
    #: bytes, in which the arrays of `record` lie
    tape: np.ndarray
    #: (N, D * P) the output of the last layer
    out: np.ndarray
    dropout: Dropout
    #: whether threads may write to the tape together, each its units
    unit_by_unit: bool

    def __reduce__(self) -> tuple[Any, ...]:
        """How it is copied and pickled: to be made anew, since a `Pass` has addresses."""
        states, _, out = self.given.kept
        return _saved_again, (self.tape, self.given.weights, self.batch, states, self.dropout, out)

    @property
    def batch(self) -> Batch:
        """What the pass went over."""
        return self.given.batch

    @property
    def nbytes(self) -> int:
        """Bytes kept beyond input, output and states."""
        return self.of.nbytes

    @property
    def record(self) -> Record:
        """What lies on the tape."""
        dtype, of = self.out.dtype, self.of
        return Record(*[np.ndarray(shape, dtype, self.tape, at) for shape, at in zip(of.record, of.tape, strict=False)])


def saved_on(
    tape: np.ndarray, weights: Weights, batch: Batch, states: States, dropout: Dropout, out: np.ndarray
) -> Saved:
    """What a forward pass leaves that has filled a tape, or is going to."""
    of = buffers(weights, batch.rows, len(batch.order))
    at = address_of(tape)
    drop = drop_of(dropout, weights.parameters.dtype)
    given = Pass(weights, batch, states, drop, [at + part for part in of.tape[:-1]], out)
    unit_by_unit = not (drop.size or batch.symbols or cell_of(weights).units)
    return Saved(given, of, tape, out, dropout, unit_by_unit)


def _saved_again(tape: np.ndarray, *rest: Any) -> Saved:
    """The same on a tape of its own: that of a pickle may be memory of others, which nobody may write to."""
    own = WORKSPACE.take(tape.size)
    own[...] = tape
    return saved_on(own, *rest)


#: the weights as the other verbs take them
prepare = packed_weights


def cell_of(weights: Weights) -> Cell:
    """The cell that weights are for."""
    cell: Cell = type(weights).cell  # type: ignore[attr-defined]
    return cell


@functools.lru_cache(maxsize=256)
def _operations(cell: Cell, sizes: tuple[int, ...], symbols: bool) -> float:
    """Floating-point operations of a forward pass for a row; ``sizes`` are the fields of `Weights` from there on."""
    of = layout_of(cell, sizes)
    L, D, H, P = of.num_layers, of.num_directions, of.hidden_size, of.output_size
    inputs = (1 if symbols else of.input_size) + (L - 1) * D * P
    products = of.gates_ih * inputs + (of.gates_hh + of.product) * L * P
    return 2.0 * D * H * (products + OF_A_CELL * L)


def _workers(weights: Weights, batch: Batch) -> int:
    """How many threads a pass is worth."""
    most = threads.get_num_threads()
    if most == 1:
        return 1
    operations = batch.rows * _operations(cell_of(weights), weights[4:], batch.symbols)
    return max(1, min(most, int(operations / WORTH_A_THREAD)))


def _shares(weights: Weights) -> int:
    """Into how many shares the units can be divided whose sums and cell need no more than the state before; or 0."""
    cell, H = cell_of(weights), weights.hidden_size
    panel = VECTORS * lanes_of(weights.parameters.dtype)
    if cell.factors != "float" or cell.normed or cell.has_product or not cell.gates_hh:
        return 0
    return 0 if weights.output_size != H or H % panel else H // (2 * panel if cell.gates_hh == 1 else panel)


def _members(weights: Weights, batch: Batch, workers: int) -> int:
    """How many threads compute a share of the units each, if that is better than runs of the sequences; else 0.

    Of few sequences each run would read all weights at each step.
    """
    B, T = len(batch.order), len(batch.batch_sizes)
    if workers == 1 or not T or B >= SEQUENCES_OF_A_THREAD * workers:
        return 0
    of_a_step = batch.rows / T * _operations(cell_of(weights), weights[4:], batch.symbols)
    members = min(workers, threads.cpus(), int(of_a_step / WORTH_A_MEETING), _shares(weights))
    return members if members > 1 and members >= min(B, workers) else 0


def _in_units(weights: Weights, batch: Batch, members: int) -> Apart:
    """The division of the units, for threads that a team has been asked for."""
    # workers may be at other calls: a call is not to wait long in vain, as measured by its work
    operations = batch.rows * _operations(cell_of(weights), weights[4:], batch.symbols)
    return Apart(members, None, threads.meeting(members, min(1.0, operations / WORTH_A_THREAD / 16)))


def _scratch(weights: Weights, batch: Batch) -> int:
    """Bytes that one inference pass over the whole batch would use beyond input and output."""
    sequences = int(batch.batch_sizes[0]) if len(batch.batch_sizes) else 0
    cell = cell_of(weights)
    blocks = cell.gates + cell.has_product + cell.normed * (cell.gates_hh + cell.has_product)
    width = (blocks + cell.states + 1) * weights.hidden_size
    if cell.factors != "float":  # rows of words, of at most three parts
        width += 2 * max(weights.input_size, weights.num_directions * weights.hidden_size)
    between = 2 * weights.output_size if weights.num_directions == 2 and weights.num_layers > 1 else 0
    elements = sequences * width + batch.rows * between
    return elements * weights.parameters.itemsize + BLOCK_BYTES


def new_results(weights: Weights, batch: Batch, show: bool) -> Results:
    """Room for what a forward pass returns."""
    dtype = weights.parameters.dtype
    out, h_n, others_n, shown = buffers(weights, batch.rows, len(batch.order)).results
    return Results(
        np.empty(out, dtype), np.empty(h_n, dtype), np.empty(others_n, dtype), np.empty(shown, dtype) if show else None
    )


def _cuts(batch: Batch, parts: int) -> np.ndarray | None:
    """The sequences of a batch in so many parts, or fewer; None for one."""
    return cuts_of(batch.batch_sizes, len(batch.order), parts) if parts > 1 else None


def _in_runs(batch: Batch, parts: int) -> Apart:
    """The division of the sequences into so many parts, or fewer."""
    cuts = _cuts(batch, parts)
    return Apart(1 if cuts is None else len(cuts) - 1, cuts, None)


def infer(weights: Weights, batch: Batch, states: States, show: bool = False) -> Results:
    """The output and the last states of a batch, and with ``show`` all states besides h; nothing is kept."""
    workers, several = _workers(weights, batch), len(batch.order) > 1
    scratch = _scratch(weights, batch) if several else 0  # one sequence is not divided for its sake
    members = _members(weights, batch, workers) if scratch <= SCRATCH_BYTES else 0
    parts = workers = members or (workers if several else 1)
    team = threads.team(workers)
    results = new_results(weights, batch, show)
    if not members and several:
        cached = min(-(-scratch // PART_BYTES), len(batch.order) // PART_SEQUENCES)
        parts = max(workers, -(-scratch * workers // SCRATCH_BYTES), cached)
    apart = _in_units(weights, batch, members) if members else _in_runs(batch, parts)
    forward = forward_call(
        Pass(weights, batch, states, None, (), results.out).showing(results.shown), results.h_n, results.others_n, apart
    )
    call_each([forward], team)
    return results


class Few(NamedTuple):
    """What `infer_few` takes of the weights, which it keeps."""

    #: the address of the block
    at: int
    #: rows that one thread takes
    most: int
    weights: Weights
    block: np.ndarray


def few(weights: Weights, symbols: bool) -> Few:
    """What `infer_few` takes."""
    block = weights_block(weights, symbols)
    of_one = _operations(cell_of(weights), weights[4:], symbols)
    return Few(address_of(block), int(WORTH_A_THREAD / of_one), weights, block)


#: the output and the last states of a batch of at most as many rows as a `Few` says, written where they are wanted:
#: what a call costs besides its computation counts there
infer_few = call_few


def record(
    weights: Weights, batch: Batch, states: States, dropout: Dropout, show: bool = False
) -> tuple[Results, Saved]:
    """As `infer`, with dropout, and what the backward pass needs."""
    foresee(cell_of(weights), weights.parameters.dtype, True)
    workers = _workers(weights, batch)
    team = threads.team(workers)
    results = new_results(weights, batch, show)
    tape = WORKSPACE.take(buffers(weights, batch.rows, len(batch.order)).tape.size)
    saved = saved_on(tape, weights, batch, states, dropout, results.out)
    given, apart = saved.given.showing(results.shown), _apart(saved, workers)
    call_each([forward_call(given, results.h_n, results.others_n, apart)], team)
    return results, saved


def _apart(saved: Saved, workers: int) -> Apart:
    """How a pass of training is divided."""
    weights, batch = saved.given.weights, saved.batch
    members = _members(weights, batch, workers) if saved.unit_by_unit else 0
    return _in_units(weights, batch, members) if members else _in_runs(batch, workers)


def drop(batch: Batch, dropout: Dropout, layer: int, source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The target, made the source (N, C) with units dropped as those of the output of ``layer`` are; it may be that."""
    workers = max(1, min(threads.get_num_threads(), int(OF_A_DROP * source.size / WORTH_A_THREAD)))
    drop_rows(dropout, layer, batch, _cuts(batch, workers), threads.team(workers), source, target)
    return target


class Going(NamedTuple):
    """What a backward pass takes along as it goes over the pieces of a batch, which may be one."""

    room: np.ndarray
    memory: BackMemory
    #: what is yet to be called before the first piece
    before: list[Packing]
    #: `Sums`
    total: np.ndarray
    of_span: np.ndarray


def begin_back(weights: Weights, batch: Batch, input_grad: bool, most: int) -> Going:
    """What a backward pass begins with, over pieces of ``most`` rows at most."""
    of = buffers(weights, most, len(batch.order)).room
    room = WORKSPACE.take(of.size)
    at = address_of(room)
    if of.d_units < of.size:
        room[of.d_units :] = 0
    memory = BackMemory(*[at + part for part in of[:-1]])
    total = np.empty_like(weights.parameters)
    before = [back_packing(weights, memory.panels, input_grad, total)]
    return Going(room, memory, before, total, total if in_one_span(batch.rows) else np.zeros_like(total))


def piece_back(
    saved: Saved, going: Going, d_out: np.ndarray, d_states: States, input_grad: int, d_x: np.ndarray,
    d_shown: np.ndarray | None, blocks: int, last: bool,
) -> States:  # fmt: skip
    """The backward pass over a piece of a batch; returns gradients of its first states, and uses up its record.

    Writes d_x (N, I), or adds to it: see `backward_stack`. ``blocks`` are those before it in the batch; ``last`` tells
    whether it is the last that the pass goes over.
    """
    given, of, tape, out, _, _ = saved
    given, batch = given.showing(d_shown), given.batch
    _, memory, before, total, of_span = going
    workers = _workers(given.weights, batch)
    team = threads.team(max([workers, *[packing.threads for packing in before]]))
    d_h, d_others = of.d_first
    d_first = States(np.empty(d_h, out.dtype), np.empty(d_others, out.dtype), True)
    apart = _apart(saved, workers)
    calls = [
        *[packing.call for packing in before],
        backward_call(given, memory, d_out, d_states, input_grad, d_x, d_first, apart),
        gradients_call(given, memory, last, Sums(total, of_span, blocks), workers),
    ]
    call_each(calls, team)
    before.clear()
    WORKSPACE.give(tape)
    return d_first


def end_back(going: Going) -> np.ndarray:
    """The gradient of the parameters; uses up what the pass took along."""
    if going.of_span is not going.total:
        going.total[...] += going.of_span
    WORKSPACE.give(going.room)
    return going.total


def replay_back(
    saved: Saved, d_out: np.ndarray, d_states: States, input_grad: bool, d_shown: np.ndarray | None = None
) -> BackResults:
    """Gradients of the data, the first states and the parameters. Uses up the record. Symbols have no gradient."""
    weights, batch = saved.given.weights, saved.batch
    going = begin_back(weights, batch, input_grad, batch.rows)
    d_x = np.empty((batch.rows if input_grad else 0, weights.input_size), d_out.dtype)
    d_first = piece_back(saved, going, d_out, d_states, int(input_grad), d_x, d_shown, 0, True)
    return BackResults(d_x, d_first.h, d_first.others, end_back(going))
