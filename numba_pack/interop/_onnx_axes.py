"""Which axes of the values between recurrent nodes are time and batch, as far as the model tells before it runs.

An exporter that has seen one batch writes its sizes into Reshape. Where an axis is known to be time or batch, such a
number means "as many as there are".
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

__all__ = ["BATCH", "TIME", "axes_after", "axes_of_results", "loosened"]

#: in the place of a size, that it is the number of steps, or of sequences
TIME, BATCH = "time", "batch"
Axes = tuple[Any, ...]


def axes_of_results(layout: int, directions: int, hidden_size: int) -> list[Axes]:
    """Those of Y, Y_h and Y_c."""
    Y = (BATCH, TIME, directions, hidden_size) if layout else (TIME, directions, BATCH, hidden_size)
    state = (BATCH, directions, hidden_size) if layout else (directions, BATCH, hidden_size)
    return [Y, state, state]


def loosened(axes: Axes, shape: Sequence[int], declared: Mapping[str, int]) -> list[int] | None:
    """The shape of a Reshape in which time and batch are 0, which copies them; None if it may mean something else.

    ``declared`` are the numbers of steps and of sequences that the model was written for, where it says so.
    """
    found = list(shape)
    kept = 0
    for size, wanted in zip(axes, shape, strict=False):
        if size in (TIME, BATCH):
            if wanted > 0 and declared.get(size, wanted) != wanted:
                return None
            found[kept] = 0
        elif size is None or wanted not in (size, 0):
            break
        kept += 1
    rest, others = axes[kept:], found[kept:]
    if found == list(shape) or any(not isinstance(size, int) for size in rest) or 0 in others:
        return None
    if others.count(-1) == 1:
        known = -math.prod(others)
        return found if known and math.prod(rest) % known == 0 else None
    return found if math.prod(rest) == math.prod(others) else None


def axes_after(op_type: str, axes: Axes, inputs: Sequence[Any], attributes: Mapping[str, Any]) -> Axes | None:
    """Those of the result of an operator; ``inputs`` are its constant ones, None where it has another."""

    def given(place: int, name: str) -> list[int] | None:
        value = inputs[place] if len(inputs) > place else attributes.get(name)
        return None if value is None else [int(one) for one in np.asarray(value).ravel()]

    if op_type in ("Identity", "Cast"):
        return axes
    if op_type == "Transpose":
        return tuple(axes[axis] for axis in attributes.get("perm", range(len(axes))[::-1]))
    if op_type == "Squeeze":
        gone = given(1, "axes")
        return None if gone is None else tuple(
            size for axis, size in enumerate(axes) if axis not in gone and axis - len(axes) not in gone
        )  # fmt: skip
    if op_type == "Unsqueeze":
        new, left = given(1, "axes") or [], list(axes)
        for axis in sorted(axis % (len(axes) + len(new)) for axis in new):
            left.insert(axis, 1)
        return tuple(left)
    if op_type == "Reshape":
        shape = given(1, "shape")
        if shape is None or attributes.get("allowzero"):
            return None
        # as many axes in front as are copied, and then those that are told by number
        kept = next((axis for axis, size in enumerate(shape) if size != 0), len(shape))
        if kept > len(axes):
            return None
        rest, others = axes[kept:], shape[kept:]
        if others.count(-1) == 1 and all(isinstance(size, int) for size in rest) and 0 not in others:
            others[others.index(-1)] = math.prod(rest) // -math.prod(others)
        return (*axes[:kept], *(size if size > 0 else None for size in others))
    return None
