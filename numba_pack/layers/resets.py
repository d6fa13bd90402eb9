"""Sequences that begin anew in their midst, as episodes do in reinforcement learning: a form of a layer's batch.

The batch is cut where the state is reset, and the pieces are the sequences that the kernels take: packed, longest
first, so that they cost what their rows cost. A piece is a sequence like any other. So its results are those of that
piece alone, bit for bit; in a reverse direction it begins at its own end; and what training drops counts its steps from
its first. Rows are moved once on their way in, and once on their way out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..batch import Batch
from ..cpu.take import take_rows
from ..packing.pieces import pieces_of
from ..packing.rows import lengths_in_order
from ..packing.sequences import PackedSequence
from .forms import Form, Host, Packed, Padded, as_array, form_of

if TYPE_CHECKING:
    from .layer import Layer

__all__ = ["Resets", "cut"]

#: where sequences begin anew, as a caller says it: of bools, in the form of the input
Resets = np.ndarray | PackedSequence | None


def cut(layer: Layer[Any], input: Any, resets: Any) -> Cut:
    """The form of a layer's input, cut before each step at which the state is reset."""
    whole = form_of(input, layer.input_size, layer.dtype, layer.batch_first, in_order=False)
    if whole.arrays is not Host:
        raise TypeError("input must be in the memory of the host where there are resets; got an array on the device")
    return Cut(whole, _mask(whole, resets), (False, True) if layer.bidirectional else (layer.reverse,))


def _mask(whole: Form, resets: Any) -> np.ndarray:
    """The resets (N,) in the order of the rows of the input: a copy."""
    name, bools = "resets", np.dtype(np.bool_)
    if isinstance(whole, Packed):
        resets, name = whole.data_of(resets, name)
        shape, letters = whole.batch.data.shape[:1], "(N,)"
    elif isinstance(whole, Padded):
        shape, letters = whole.shape, "(B, T)" if whole.batch_first else "(T, B)"
    else:
        shape, letters = whole.batch.data.shape[:1], "(T,)"
    if isinstance(resets, np.ndarray) and resets.dtype.kind == "f":  # h and c apart
        raise TypeError(f"{name} must have dtype bool; got {resets.dtype}: states are one argument, hx=(h_0, c_0)")
    return np.array(as_array(resets, name, shape, bools, letters)).reshape(-1)


def _layout(whole: Form) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where the rows of the input lie, as base and step of ``packing/rows.py``, and the lengths of the sequences."""
    if isinstance(whole, Packed):
        _, batch_sizes, _, ranks = whole.packed
        return ranks, np.cumsum(batch_sizes) - batch_sizes, lengths_in_order(batch_sizes, ranks)
    T = whole.T if isinstance(whole, Padded) else whole.batch.rows
    of_sequence, of_step = (T, 1) if isinstance(whole, Padded) and whole.batch_first else (1, whole.B)
    return np.arange(whole.B) * of_sequence, np.arange(T) * of_step, np.full(whole.B, T)


def _moved(rows: np.ndarray, index: np.ndarray) -> np.ndarray:
    """``rows[index]``, and read-only if the rows are."""
    moved = take_rows(rows, index)
    moved.flags.writeable = rows.flags.writeable
    return moved


class Cut(Form):
    """A batch in another form, cut into pieces; a state that comes or goes is that after the last step.

    A scan ends a sequence in its last piece, or in its first if it goes in reverse.
    """

    arrays = Host

    def __init__(self, whole: Form, resets: np.ndarray, turns: tuple[bool, ...]) -> None:
        self.whole, self.dtype, self.turns = whole, whole.dtype, turns
        base, step, lengths = _layout(whole)
        pieces = self.pieces = pieces_of(resets, base, step, lengths)
        self.B = len(pieces.order)
        rows = whole.batch.data
        self.batch = Batch(_moved(rows, pieces.rows), pieces.batch_sizes, pieces.order, len(rows), rows.ndim == 1)
        #: (B,) the sequences whose first step is none that is reset before
        self.goes_on = np.ones(whole.B, np.bool_)
        self.goes_on[lengths > 0] = ~resets[base[lengths > 0]]
        #: whether hx has a row for resets, which is seen when it comes
        self.has_row: bool | None = None

    @property
    def first(self) -> Form:
        return _First(self)

    def check_again(self) -> None:
        self.whole.check_again()

    def rows(self, value: Any, name: str, columns: int) -> np.ndarray:
        return _moved(self.whole.rows(value, name, columns), self.pieces.rows)

    def back(self, rows: np.ndarray) -> Any:
        return self.whole.back(_moved(rows, self.pieces.packed))

    def reversed(self, scan: int) -> bool:
        """Whether that scan of a layer goes from the last step to the first."""
        return self.turns[scan % len(self.turns)]

    def state(self, value: Any, name: str, scans: int, columns: int) -> np.ndarray:
        given = self.whole.state(value, name, scans, columns)
        state = np.zeros((scans, self.B, columns), self.dtype)
        for scan in range(scans):
            state[scan, self._ends(scan)] = given[scan]
        return state

    def state_back(self, state: np.ndarray) -> np.ndarray:
        return self.whole.state_back(np.stack([state[scan, self._ends(scan)] for scan in range(len(state))]))

    def _ends(self, scan: int) -> np.ndarray:
        """(B,) the piece in which each sequence ends."""
        return np.arange(self.whole.B) if self.reversed(scan) else self.pieces.last


class _First(Form):
    """The same batch; a state that comes or goes is that before the first step.

    It enters where a sequence begins: in its first piece, unless that is reset, or in its last if a scan goes in
    reverse. All other pieces begin with zeros or, if there is one, with the row of hx that follows on those of the
    sequences.
    """

    def __init__(self, cut: Cut) -> None:
        self.cut, self.arrays, self.dtype, self.B = cut, cut.arrays, cut.dtype, cut.whole.B

    def shares(self, value: Any, scans: int, columns: int) -> bool:
        return self.cut.whole.shares(value, scans, columns)

    def state(self, value: Any, name: str, scans: int, columns: int) -> np.ndarray:
        B = self.B
        has_row = isinstance(value, np.ndarray) and value.ndim == 3 and value.shape[1] == B + 1
        if has_row:
            letters = "(num_layers * num_directions, B + 1, H)"
            given = as_array(value, name, (scans, B + 1, columns), self.dtype, letters)
        else:
            given = self.cut.whole.state(value, name, scans, columns)
        if self.cut.has_row not in (None, has_row):
            raise ValueError(
                f"hx must have a row for resets in each of its arrays, or in none; {name} has "
                f"{'one, those before it none' if has_row else 'none, those before it one'}"
            )
        self.cut.has_row = has_row
        state = np.zeros((scans, self.cut.B, columns), self.dtype)
        if has_row:
            state[:] = given[:, B:]
        for scan in range(scans):
            of, at = self._begins(scan)
            state[scan, at] = given[scan, of]
        return state

    def state_back(self, state: np.ndarray) -> np.ndarray:
        scans, pieces, columns = state.shape
        back = np.zeros((scans, self.B + bool(self.cut.has_row), columns), self.dtype)
        for scan in range(scans):
            of, at = self._begins(scan)
            back[scan, of] = state[scan, at]
            if self.cut.has_row:
                anew = np.ones(pieces, np.bool_)
                anew[at] = False
                back[scan, self.B] = state[scan, anew].sum(0, dtype=np.float64)
        return back if self.cut.has_row else self.cut.whole.state_back(back)

    def _begins(self, scan: int) -> tuple[np.ndarray, np.ndarray]:
        """The sequences that begin with a state of their own, and the pieces in which they do."""
        if self.cut.reversed(scan):
            return np.arange(self.B), self.cut.pieces.last
        of = np.flatnonzero(self.cut.goes_on)
        return of, of
