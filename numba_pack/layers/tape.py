"""What a training call keeps, and what comes back from it: of layers and of single steps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

import numpy as np

from .._arguments import kind_of
from .._backend import backend
from ..batch import BackResults, Batch, Results, States
from ..cells.dropout import Dropout
from ..cpu.checkpoints import Checkpoints, record_pieces
from ..packing.checks import as_size
from ..packing.display import html_of, shape_of
from ..packing.sequences import PackedSequence
from .engine import engine
from .forms import Form

if TYPE_CHECKING:
    from .module import Module

__all__ = ["Given", "Gradients", "Input", "State", "Tape", "as_checkpoint", "as_tape", "record", "replay_back"]

#: the forms of input that results come back in
Given = TypeVar("Given", PackedSequence, np.ndarray)
#: the gradient of the input, in its form
Input = TypeVar("Input")
#: a state: an array, or a tuple of them if the cell has more than one
State = TypeVar("State")


class Tape(Generic[Input, State]):
    """What `forward` keeps for one `backward`.

    It holds the input and the initial state, no copies but of symbols: do not change them before `backward`. The output
    that `forward` returned is read-only for the same reason. With resets it holds copies of all three. Besides, N rows
    keep, for each layer and direction, as many blocks of H numbers as a cell has gates, or as ``print(layer.cell)``
    tells, if that is more (4 H of an LSTM and of a GRU, H of an RNN; with CUDA another H for each unit weight); H
    numbers for each state besides h that it tells (the c of an LSTM), and with a projection another H; each rounded up
    to whole vector registers. For each layer but the last its output is kept. Dropout masks are not. ``nbytes`` tells
    the sum. With ``checkpoint`` it holds the states between pieces of the batch in place of all these, and of a
    bidirectional layer the outputs of the layers but the last.

    `backward` turns what was kept into gradients in place, and so uses the tape up. It differentiates the call that was
    made: parameters assigned since then do not matter.
    """

    def __init__(
        self, owner: Module, form: Form, saved: engine.Saved | Checkpoints, shared: tuple[bool, ...] = ()
    ) -> None:
        self._owner, self._form = owner, form
        #: what was kept until it is used up; a shallow copy has the same list, and so is used up, too
        self._kept = [saved]
        #: for each state whether the first one was that of all sequences
        self.shared = shared
        #: bytes kept beyond input, output and states
        self.nbytes: int = saved.nbytes

    def __repr__(self) -> str:
        return f"Tape of {self._owner!r}, {'used up' if not self._kept else f'{self.nbytes:,} bytes'}"

    def of(self, owner: Module, which: str) -> Form:
        """The form of the call, for an owner whose tape this must be."""
        if self._owner is not owner:
            raise ValueError(f"tape must come from a forward call of this {owner._called}; got one of another {which}")
        if not self._kept:
            raise _used()
        return self._form

    def take(self) -> engine.Saved | Checkpoints:
        """What was kept; the tape is empty from then on."""
        try:
            return self._kept.pop()  # in one step: of two threads one gets it
        except IndexError:
            raise _used() from None


def _used() -> ValueError:
    return ValueError("tape must not have been used: backward uses it up; got one that it was called with before")


def as_tape(value: Any, place: str) -> Tape[Any, Any]:
    """A tape; ``place`` tells where `forward` returned it."""
    if not isinstance(value, Tape):
        raise TypeError(f"tape must be what forward returned {place}; got {kind_of(value, Tape)}")
    return value


def as_checkpoint(value: Any) -> int | None:
    """After how many steps a tape keeps the states, or None."""
    if value is not None and backend == "cuda":
        raise ValueError(f"checkpoint must be None where the backend is cuda; got {value!r}")
    return None if value is None else as_size(value, "checkpoint")


def record(
    weights: Any, batch: Batch, states: States, dropout: Dropout, show: bool, checkpoint: int | None
) -> tuple[Results, engine.Saved | Checkpoints]:
    """The forward pass of training: all is kept for the backward pass, or the states after so many steps."""
    if checkpoint is None:
        return engine.record(weights, batch, states, dropout, show)
    return record_pieces(weights, batch, states, dropout, show, checkpoint)


def replay_back(
    saved: engine.Saved | Checkpoints, d_out: Any, d_states: States, input_grad: bool, d_shown: Any = None
) -> BackResults:
    """The backward pass, with what `record` kept."""
    if isinstance(saved, Checkpoints):
        return saved.replay_back(d_out, d_states, input_grad, d_shown)
    return engine.replay_back(saved, d_out, d_states, input_grad, d_shown)


class _Gradients(NamedTuple):
    #: like the input; None if that was symbols, or ``input_grad`` False
    input: Any
    #: like the state that `forward` returned, whether a first state was given or zero: an array, or a tuple as (h, c);
    #: with 1 in place of B where that was so
    hx: Any
    #: laid out like ``layer.parameters``
    parameters: np.ndarray


class Gradients(_Gradients, Generic[Input, State]):  # a named tuple itself may be generic from Python 3.11 on
    """What `backward` returns: the gradient of the loss with respect to each argument of `forward`, in its form."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "Gradients\n" + "\n".join(f"  {name:10}  {shape_of(value)}" for name, value in self._asdict().items())

    def _repr_html_(self) -> str:
        return html_of([(name, shape_of(value)) for name, value in self._asdict().items()], "Gradients")

    if TYPE_CHECKING:
        input: Input
        hx: State
