"""The last state of a layer as one row for each sequence, and its gradient on the way back."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..layers.layer import Layer

__all__ = ["d_state_of", "rows_of_state"]


def rows_of_state(layer: Layer[Any], state: Any) -> np.ndarray:
    """The last h of the last of its layers, both directions side by side: (B, D * P), of a single sequence (D * P,)."""
    return np.concatenate(_h_of(state)[-layer.num_directions :], axis=-1)


def d_state_of(layer: Layer[Any], state: Any, d_rows: np.ndarray) -> Any:
    """The gradient of a state, given that of its rows: what else there is in it does not count."""
    h = _h_of(state)
    d_h = np.zeros_like(h)
    d_h[-layer.num_directions :] = np.split(d_rows, layer.num_directions, axis=-1)
    top = state[-1] if isinstance(state, list) else state
    d_top = (d_h, *[None] * (len(top) - 1)) if isinstance(top, tuple) else d_h
    return [*[None] * (len(state) - 1), d_top] if isinstance(state, list) else d_top


def _h_of(state: Any) -> np.ndarray:
    """The h of the last of the widths in a list, each of whose states is h, or a tuple that begins with it."""
    top = state[-1] if isinstance(state, list) else state
    h: np.ndarray = top[0] if isinstance(top, tuple) else top
    return h
