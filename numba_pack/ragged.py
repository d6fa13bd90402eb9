"""Ragged buffers: sequence after sequence in one array, with the offsets where each starts.

It is the form in which Arrow, Awkward Array, TensorFlow and PyTorch's nested tensors keep ragged data. Shape letters
are those of `numba_pack.sequences`. Both functions can be called from Python and from ``@njit`` code.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba.extending import overload

from ._checks import ArgumentError, as_integers, as_rows, offsets_fault, typed_integers, typed_rows
from ._jit import inner
from .sequences import PackedSequence, check_packed, pack_values, typed_packed, unpack_values

__all__ = ["pack_ragged", "unpack_ragged"]


def pack_ragged(values: np.ndarray, offsets: Any) -> PackedSequence:
    """Pack a ragged buffer.

    Parameters
    ----------
    values : ndarray, shape (N, *)
        The rows, sequence after sequence.
    offsets : array or list of int, shape (B + 1,)
        Sequence i is ``values[offsets[i]:offsets[i + 1]]``. Starts at 0, never falls, ends at N.

    Returns
    -------
    PackedSequence
        A copy: it shares no memory with ``values``.

    Raises
    ------
    TypeError
        If ``values`` is no array of numbers, or the offsets are no integers.
    ValueError
        If ``values`` has no axes, or the offsets are not as above; at least one sequence is needed.

    Examples
    --------
    >>> import numpy as np
    >>> import numba_pack as nbp
    >>> packed = nbp.pack_ragged(np.array([1, 2, 3, 4, 5, 6]), [0, 2, 5, 5, 6])
    >>> packed.lengths
    array([2, 3, 0, 1])
    """
    return _pack_ragged(as_rows(values, "values", 1, "(N, *)"), as_integers(offsets, "offsets"))


@overload(pack_ragged)
def _pack_ragged_in_njit(values, offsets):
    typed_rows(values, "values", 1)
    typed_integers(offsets, "offsets")

    def compiled(values, offsets):
        return _pack_ragged(np.ascontiguousarray(values), offsets.astype(np.int64))

    return compiled


@inner
def _pack_ragged(values, offsets):
    text, got, bound, at = offsets_fault(offsets, len(values))
    if len(text) > 0:
        raise ArgumentError("offsets", text, got, bound, at)
    return pack_values(values, offsets, False)


def unpack_ragged(packed: PackedSequence) -> tuple[np.ndarray, np.ndarray]:
    """Unpack into a ragged buffer: the inverse of `pack_ragged`.

    Parameters
    ----------
    packed : PackedSequence

    Returns
    -------
    values : ndarray, shape (N, *)
        The rows, sequence after sequence in the caller's order. A copy.
    offsets : ndarray of int64, shape (B + 1,)

    Raises
    ------
    TypeError, ValueError
        If ``packed`` is not valid: see `check_packed`.

    Examples
    --------
    >>> import numpy as np
    >>> import numba_pack as nbp
    >>> nbp.unpack_ragged(nbp.pack_sequence([np.array([1, 2]), np.array([3, 4, 5])]))
    (array([1, 2, 3, 4, 5]), array([0, 2, 5]))
    """
    return unpack_values(check_packed(packed, "packed"))


@overload(unpack_ragged)
def _unpack_ragged_in_njit(packed):
    typed_packed(packed, "packed")

    def compiled(packed):
        return unpack_values(check_packed(packed, "packed"))

    return compiled
