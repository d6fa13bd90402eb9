"""Whether a cell's gradients are those of its formula, by finite differences: for who writes cells."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from .._arguments import kind_of
from ..packing.ragged import pack_ragged
from .cell import Cell

__all__ = ["Check", "check"]

#: of the sequences that the cell is run on, and sizes of its layer
LENGTHS, INPUT_SIZE, HIDDEN_SIZE = (4, 1, 3), 3, 5
#: a step to either side, and the largest error that is no fault, in units of the largest gradient
STEP, TOLERANCE = 1e-5, 1e-6


class Check(NamedTuple):
    """What `check` found."""

    #: the cell's name
    name: str
    #: of the input, each state and each parameter, by name, the largest difference between both gradients, over the
    #: largest number that either has
    errors: dict[str, float]
    #: whether none is larger than 1e-6
    passed: bool

    def __repr__(self) -> str:
        width = max(map(len, self.errors))
        lines = [
            f"    {name:{width}}  {error:.1e}{'' if error <= TOLERANCE else '  WRONG'}"
            for name, error in self.errors.items()
        ]
        said = "gradients equal finite differences" if self.passed else "gradients differ from finite differences"
        return "\n".join([f"{self.name}: {said}", *lines])


def check(cell: Cell, rng: Any = 0, **constants: float) -> Check:
    """Compare the gradients of a cell with finite differences, in float64, on a small batch of random numbers.

    A formula is not differentiable where it jumps: `round` and `sign` are told WRONG, for their slopes are chosen.

    Parameters
    ----------
    cell : Cell
        With a derivative that was derived, or written by hand.
    rng : None, int, or numpy.random.Generator
        Draws parameters, input and states.
    **constants : float
        Of the cell, where they are to have other values than their defaults.

    Returns
    -------
    Check
        Its repr is a table; ``passed`` tells the result.

    Raises
    ------
    TypeError
        If it is no cell.

    Examples
    --------
    >>> from numba_pack.cells import cell, check, tanh
    >>> @cell(sums="a", state="h", back=lambda a, h, d_h: {"a": d_h})
    ... def Wrong(a, h):
    ...     return tanh(a)
    >>> check(Wrong).passed
    False
    """
    if not isinstance(cell, Cell):
        raise TypeError(f"cell must be a Cell; got {kind_of(cell, Cell)}")
    rng = np.random.default_rng(rng)
    layer = cell(INPUT_SIZE, HIDDEN_SIZE, bidirectional=True, dtype=np.float64, rng=rng, **constants)
    offsets = np.cumsum((0, *LENGTHS))
    values = rng.standard_normal((offsets[-1], INPUT_SIZE))
    states = [rng.uniform(0.5, 1.5, (2, len(LENGTHS), HIDDEN_SIZE)) for _ in cell.arguments.state]
    d_output = rng.standard_normal((len(values), 2 * HIDDEN_SIZE))
    d_states = [rng.standard_normal(state.shape) for state in states]
    alone = cell.states == 1
    parameters = layer.parameters.copy()

    def loss() -> float:
        layer.parameters = parameters
        output, last = layer(pack_ragged(values, offsets), states[0] if alone else tuple(states))
        last = (last,) if alone else last
        total: float = np.sum(output.data * d_output)
        return total + sum(np.sum(state * d_state) for state, d_state in zip(last, d_states, strict=True))

    packed = pack_ragged(values, offsets)
    tape = layer.forward(packed, states[0] if alone else tuple(states))[2]
    found = layer.backward(tape, d_output, d_states[0] if alone else tuple(d_states))
    d_values = np.empty_like(values)
    d_values[_ragged_rows(packed, offsets)] = found.input.data
    hx = (found.hx,) if alone else found.hx
    pairs = {"input": (values, d_values)}
    pairs |= dict(zip(cell.arguments.state, zip(states, hx, strict=True), strict=True))
    views, d_views = layer.views(parameters), layer.views(found.parameters)
    pairs |= {name: (view, d_views[name]) for name, view in views.items()}
    errors = {name: _error(loss, *pair) for name, pair in pairs.items()}
    return Check(cell.name, errors, all(error <= TOLERANCE for error in errors.values()))


def _ragged_rows(packed: Any, offsets: np.ndarray) -> np.ndarray:
    """(N,) the row of the ragged values that each packed row is."""
    steps = np.repeat(np.arange(len(packed.batch_sizes)), packed.batch_sizes)
    ranks = np.concatenate([np.arange(size) for size in packed.batch_sizes])
    rows: np.ndarray = offsets[packed.sorted_indices[ranks]] + steps
    return rows


def _error(loss: Callable[[], float], array: np.ndarray, derived: np.ndarray) -> float:
    """The largest difference from the slopes of the loss by each element of the array, over the largest slope."""
    numerical = np.empty_like(array)
    for index in np.ndindex(array.shape):
        before = array[index]
        array[index] = before + STEP
        above = loss()
        array[index] = before - STEP
        numerical[index] = (above - loss()) / (2 * STEP)
        array[index] = before
    size = max(np.abs(numerical).max(), np.abs(derived).max(), np.finfo(array.dtype).tiny)
    return float(np.abs(numerical - derived).max() / size)
