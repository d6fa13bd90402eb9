"""One step of inference that is made again and again: all is prepared, and a call takes one integer.

The states lie in memory twice. A step reads those of one turn and writes those of the other; last of all, by writing
one number, it changes the turns. Whatever stops a call before that leaves the states as they were, and so they are in a
process that is forked meanwhile.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from .._jit import jit
from ..batch import Batch, States
from ..cells.parameters import Weights
from ..simd.memory import integer_at, put_integers
from ..simd.modes import call_kernel
from .kernels import FORWARD_BLOCK, address_of, inference_block, kernel

__all__ = ["Memory", "call_prepared", "prepared"]


class Memory(NamedTuple):
    """What a layer reads and writes in its steps of B sequences."""

    #: (2, L, B, P) the states h of both turns
    h: np.ndarray
    #: (2, S - 1, L, B, H) the other states
    others: np.ndarray
    #: (B, P) the output of the last step
    out: np.ndarray
    #: (S - 1, B, H) the other states of the last layer after it, if they are shown
    shown: np.ndarray | None

    def states(self, turn: int) -> States:
        """Those of a turn."""
        return States(self.h[turn], self.others[turn], True)


#: integers before those of the layers, and of each layer: the address of its kernel, and a block for each turn
_BEFORE, _OF_LAYER = 2, 1 + 2 * FORWARD_BLOCK


def prepared(turn: np.ndarray, layers: Sequence[tuple[Weights, Memory]], batch: Batch) -> np.ndarray:
    """What `call_prepared` takes the address of: a step of layers, each on the output of the one below.

    ``turn`` (1,) is 0 or 1, and ``batch`` has one step. These, the weights and the memory are the caller's to keep.
    """
    numbers = [address_of(turn), len(layers)]
    for weights, memory in layers:
        numbers.append(kernel("forward", weights, batch.symbols))
        for now in range(2):
            states, last = memory.states(now), memory.states(1 - now)
            numbers += inference_block(weights, batch, states, memory.out, memory.shown, last, turn=now)
        batch = batch._replace(data=memory.out, symbols=False)
    return np.array(numbers)


@jit
def call_prepared(at):
    """Make the step that is prepared at an address."""
    place = integer_at(at, 0)
    turn = integer_at(place, 0)
    for layer in range(integer_at(at, 1)):
        begin = at + 8 * (_BEFORE + layer * _OF_LAYER)
        call_kernel(integer_at(begin, 0), begin + 8 * (1 + turn * FORWARD_BLOCK))
    put_integers(place, (1 - turn,))
