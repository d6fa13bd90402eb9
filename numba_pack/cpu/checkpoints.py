"""Training in bounded memory: what is kept are states between pieces of a batch, and pieces are computed again.

A piece is a run of steps. The forward pass keeps the states before each; the backward pass comes to the pieces in the
opposite order, and computes each once more before it goes back over it. So beside what the caller has, input, output
and their gradients, there is room for one piece, and for the states between them.

The bits are those of a pass over the whole batch: a piece is a batch that begins with given states, and gradients of
the weights are sums over blocks of rows, none of which is of two pieces (``scan_back.py``), in the order in which a
backward scan comes to them.

All layers of one direction go over a piece together. Of two directions, each scan of each layer goes alone, as a layer
by itself, since the second layer needs both of the first: then the outputs between layers are kept, too.
"""

import math
from typing import NamedTuple

import numpy as np

from ..batch import BackResults, Batch, Results, States
from ..cells.dropout import Dropout
from ..cells.parameters import Weights, named_shapes
from . import engine
from .scan_back import BLOCK_ROWS, PIECE_ROWS
from .shapes import back_shapes
from .workspace import WORKSPACE

__all__ = ["Checkpoints", "record_pieces"]


class Piece(NamedTuple):
    """A run of steps, and the rows of these; and how many blocks of rows come before them."""

    steps: slice
    rows: slice
    blocks: int


def pieces_of(batch_sizes: np.ndarray, every: int) -> list[Piece]:
    """The pieces of a batch: of at least so many steps each but the last, and of whole blocks of rows."""
    ends = np.cumsum(batch_sizes)
    pieces: list[Piece] = []
    step = row = blocks = 0
    while step < len(ends):
        first_step, first_row, before = step, row, blocks
        while step < len(ends) and step < first_step + every:
            step = min(len(ends), int(np.searchsorted(ends, row + PIECE_ROWS)) + 1)
            blocks += -(-int(ends[step - 1] - row) // BLOCK_ROWS)
            row = int(ends[step - 1])
        pieces.append(Piece(slice(first_step, step), slice(first_row, row), before))
    return pieces or [Piece(slice(0, 0), slice(0, 0), 0)]


class Scans(NamedTuple):
    """What goes over a piece together: all layers of one direction, or one direction of one layer."""

    weights: Weights
    #: number of the first layer
    layer: int
    #: which scans of the layers these are
    numbers: slice
    #: their columns of output, of other states than h, and their parameters
    columns: slice
    columns_shown: slice
    parameters: slice


def scans_of(weights: Weights) -> list[Scans]:
    """The scans of these weights in the order in which the forward pass does them."""
    P, H, L, D = weights.output_size, weights.hidden_size, weights.num_layers, weights.num_directions
    if D == 1:
        return [Scans(weights, 0, slice(0, L), slice(0, P), slice(0, H), slice(0, weights.parameters.size))]
    cell, found, end = engine.cell_of(weights), [], 0
    shapes = named_shapes(cell, weights[4:])
    for layer in range(L):
        for direction, suffix in enumerate((f"_l{layer}", f"_l{layer}_reverse")):
            begin, number = end, layer * D + direction
            end += sum(math.prod(shape) for name, shape in shapes.items() if name.endswith(suffix))
            inputs = weights.input_size if layer == 0 else D * P
            sizes = (inputs, H, P, 1, 1, weights.bias, weights.heads, direction)
            alone = engine.prepare(cell, weights.parameters[begin:end], weights.constants, sizes)
            columns, shown = (slice(direction * size, (direction + 1) * size) for size in (P, H))
            found.append(Scans(alone, layer, slice(number, number + 1), columns, shown, slice(begin, end)))
    return found


class Checkpoints(NamedTuple):
    """What a forward pass leaves for its backward pass: in place of `engine.Saved`."""

    weights: Weights
    batch: Batch
    dropout: Dropout
    pieces: list[Piece]
    scans: list[Scans]
    #: of each of the scans the states before each piece, in the order in which it comes to them
    states: list[list[States]]
    #: (N, D * P) of two directions the output of each layer but the last
    outputs: list[np.ndarray]

    @property
    def nbytes(self) -> int:
        """Bytes kept beyond input, output and states."""
        between = [states for of_scans in self.states for states in of_scans[1:]]
        return sum(states.h.nbytes + states.others.nbytes for states in between) + sum(y.nbytes for y in self.outputs)

    def piece(self, i: int, number: int) -> Piece:
        """The piece that scans number i come to in that place."""
        return self.pieces[-1 - number if self.scans[i].weights.reverse else number]

    def part(self, i: int, number: int) -> Batch:
        """The batch that they take in that piece."""
        scans, piece, batch, dropout = self.scans[i], self.piece(i, number), self.batch, self.dropout
        if scans.layer > 0:
            batch = batch._replace(data=self.outputs[scans.layer - 1], symbols=False)
        data = batch.data[piece.rows]
        part = batch._replace(
            data=data, batch_sizes=batch.batch_sizes[piece.steps], rows=len(data), since=piece.steps.start
        )
        if scans.layer > 0 and dropout.rate > 0:
            part = part._replace(data=engine.drop(part, dropout, scans.layer - 1, data, np.empty_like(data)))
        return part

    def record(self, i: int, number: int, show: bool = False) -> tuple[Results, engine.Saved]:
        """Their forward pass over that piece."""
        scans, part = self.scans[i], self.part(i, number)
        dropout = self.dropout._replace(scan=self.dropout.scan + scans.numbers.start)
        return engine.record(scans.weights, part, self.states[i][number], dropout, show)

    def infer(self, i: int, number: int, show: bool) -> Results:
        """What `record` returns first. A tape of the piece is not filled, unless units are dropped on the way."""
        if self.dropout.rate > 0 or self.dropout.recurrent > 0 or self.dropout.zoned:
            results, saved = self.record(i, number, show)
            WORKSPACE.give(saved.tape)
            return results
        return engine.infer(self.scans[i].weights, self.part(i, number), self.states[i][number], show)

    def replay_back(
        self, d_out: np.ndarray, d_states: States, input_grad: bool, d_shown: np.ndarray | None = None
    ) -> BackResults:
        """As `engine.replay_back`."""
        weights, batch, rate = self.weights, self.batch, self.dropout.rate
        shapes, dtype = back_shapes(weights, batch.rows, len(batch.order), input_grad), d_out.dtype
        d_x, d_h_0, d_others_0 = [np.empty(shape, dtype) for shape in shapes[1:4]]
        gradient = np.empty_like(weights.parameters)
        for i in sorted(range(len(self.scans)), key=lambda i: -self.scans[i].layer):
            scans = self.scans[i]
            second = len(self.scans) > 1 and scans.weights.reverse
            if not second:  # the first direction writes what the second adds to
                d_source = d_x if scans.layer == 0 else np.empty_like(self.outputs[scans.layer - 1])
            wanted = 0 if scans.layer == 0 and not input_grad else 2 if second else 1
            d_first, gradient[scans.parameters] = self._scans_back(i, d_out, d_states, d_shown, wanted, d_source)
            d_h_0[scans.numbers], d_others_0[:, scans.numbers] = d_first.h, d_first.others
            if second and scans.layer > 0:
                if rate > 0:
                    engine.drop(batch, self.dropout, scans.layer - 1, d_source, d_source)
                d_out, d_shown = d_source, None
        return BackResults(d_x, d_h_0, d_others_0, gradient)

    def _scans_back(
        self, i: int, d_out: np.ndarray, d_states: States, d_shown: np.ndarray | None, wanted: int, d_x: np.ndarray
    ) -> tuple[States, np.ndarray]:
        """Scans number i back over all pieces: the gradients of their first states and of their parameters."""
        scans = self.scans[i]
        most = max(piece.rows.stop - piece.rows.start for piece in self.pieces)
        going = engine.begin_back(scans.weights, self.batch, wanted > 0, most)
        d_states = _of_scans(d_states, scans.numbers)
        for number in reversed(range(len(self.pieces))):
            piece = self.piece(i, number)
            _, saved = self.record(i, number)
            d_rows = np.ascontiguousarray(d_out[piece.rows, scans.columns])
            shown = None if d_shown is None else np.ascontiguousarray(d_shown[:, piece.rows, scans.columns_shown])
            into = d_x[piece.rows] if wanted else d_x
            last = number == 0
            d_states = engine.piece_back(saved, going, d_rows, d_states, wanted, into, shown, piece.blocks, last)
        return d_states, engine.end_back(going)


def _of_scans(states: States, numbers: slice) -> States:
    """The states of some of the scans."""
    return States(states.h[numbers], np.ascontiguousarray(states.others[:, numbers]), states.given)


def record_pieces(
    weights: Weights, batch: Batch, states: States, dropout: Dropout, show: bool, every: int
) -> tuple[Results, Checkpoints]:
    """As `engine.record`; what is kept are the states before each piece of at least ``every`` steps."""
    results = engine.new_results(weights, batch, show)
    kept = Checkpoints(weights, batch, dropout, pieces_of(batch.batch_sizes, every), scans_of(weights), [], [])
    for i, scans in enumerate(kept.scans):
        is_last = i >= len(kept.scans) - weights.num_directions
        if not is_last and scans.columns.start == 0:
            kept.outputs.append(np.empty_like(results.out))
        target = results.out if is_last else kept.outputs[-1]
        kept.states.append([_of_scans(states, scans.numbers)])
        for number in range(len(kept.pieces)):
            rows = kept.piece(i, number).rows
            found = kept.infer(i, number, show and is_last)
            target[rows, scans.columns] = found.out
            if found.shown is not None:
                results.shown[:, rows, scans.columns_shown] = found.shown
            kept.states[i].append(States(found.h_n, found.others_n, True))
        last = kept.states[i].pop()
        results.h_n[scans.numbers], results.others_n[:, scans.numbers] = last.h, last.others
    return results, kept
