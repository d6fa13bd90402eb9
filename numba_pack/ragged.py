"""Ragged buffers: sequence after sequence in one array, with the offsets where each starts.

It is the form in which Arrow, Awkward Array, TensorFlow and PyTorch's nested tensors keep ragged data. Shape letters
are those of `numba_pack.sequences`. Both functions can be called from Python and from ``@njit`` code.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ._checks import NO_LIMIT, as_integers, as_rows, offsets_fault, refuse
from ._jit import inner
from ._rows import buffer_of, row_bytes_of, sort_sequences
from .sequences import PackedSequence, check_packed, pack_into, unpack_values

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
    rows = as_rows(values, "values", 1)
    starts = as_integers(offsets, "offsets")
    refuse(offsets_fault(starts, len(rows)), "offsets")
    lengths = starts[1:] - starts[:-1]
    _, order = sort_sequences(lengths, len(lengths), NO_LIMIT, False, "the lengths of sequences")
    return pack_into(np.empty_like(rows), order, buffer_of(rows), starts, 1, row_bytes_of(rows))


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


for _function in (pack_ragged, unpack_ragged):
    inner(_function)
