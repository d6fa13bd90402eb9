"""Where rows lie, and how they are moved: the compiled half of the packing functions.

A *row* is what one sequence holds at one time step. A *layout* ``(base, step)`` says where the rows lie in a
buffer: row number ``base[i] + step[t]`` belongs to sequence i at time t.

========== ============== ================================================
buffer     ``base[i]``    ``step[t]``
========== ============== ================================================
packed     rank of i      rows before time t, the running sum of batch sizes
ragged     ``offsets[i]`` t
padded     i              t * B
same, batch first  i * T  t
========== ============== ================================================

So every packing function is a copy from one layout to another, and as rows are moved as bytes, one compiled kernel
serves every dtype and every trailing shape. *Rank* is a sequence's place after sorting by length, longest first.
"""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, overload

from ._checks import lengths_fault, steps_fault
from ._jit import inner, jit

__all__ = [
    "bytes_of",
    "copy_bytes",
    "differences",
    "lengths_in_order",
    "lengths_of",
    "move_rows",
    "offsets_of",
    "padded_layout",
    "row_bytes_of",
    "sort_by_length",
    "sort_sequences",
]

# Neighbours in the packed buffer share cache lines when rows are short: so time is walked in tiles, whose target
# lines stay in the first-level cache while the sequences pass by.
TILE = 16


@intrinsic(prefer_literal=True)
def copy_bytes(typing_context, target, target_at, source, source_at, count):
    """Copy ``count`` bytes between two byte arrays; a literal count becomes one or two machine instructions.

    A plain loop over the bytes or words of a row ran at a quarter of this speed: LLVM cannot know that the two
    arrays do not overlap.
    """
    signature = types.void(target, types.int64, source, types.int64, count)

    def generate(context, builder, signature, arguments):
        pointer = ir.IntType(8).as_pointer()

        def address(array_type, array, at):
            start = context.make_array(array_type)(context, builder, array).data
            return builder.gep(builder.bitcast(start, pointer), [at])

        target_type, _, source_type, _, count_type = signature.args
        to = address(target_type, arguments[0], arguments[1])
        of = address(source_type, arguments[2], arguments[3])
        if isinstance(count_type, types.IntegerLiteral):
            size = ir.Constant(ir.IntType(64), count_type.literal_value)
        else:
            size = arguments[4]
        cgutils.raw_memcpy(builder, to, of, size, 1)
        return context.get_dummy_value()

    return signature, generate


@inner
def _move(target, to, source, of, lengths, size):
    """Move the rows, of ``size`` bytes each, of sequences that come longest first.

    The walk over a tile of time stops at the first sequence that has ended by then: so the work is the number of rows,
    and not sequences times the longest. It is one function, its arrays taken out of their tuples at the start, because
    Numba counts references wherever arrays are handed on: once a run of rows, that took four times as long.
    """
    to_base, to_step = to
    of_base, of_step = of
    if len(lengths) == 0 or size == 0:
        return
    for begin in range(0, lengths[0], TILE):
        for r in range(len(lengths)):
            if lengths[r] <= begin:
                break
            end = min(lengths[r], begin + TILE)
            a, b, count = to_base[r], of_base[r], end - begin
            if to_step[end - 1] - to_step[begin] == count - 1 and of_step[end - 1] - of_step[begin] == count - 1:
                copy_bytes(target, (a + to_step[begin]) * size, source, (b + of_step[begin]) * size, count * size)
            elif size == 4:
                for t in range(begin, end):
                    copy_bytes(target, (a + to_step[t]) * 4, source, (b + of_step[t]) * 4, 4)
            elif size == 8:
                for t in range(begin, end):
                    copy_bytes(target, (a + to_step[t]) * 8, source, (b + of_step[t]) * 8, 8)
            elif size == 1:
                for t in range(begin, end):
                    copy_bytes(target, a + to_step[t], source, b + of_step[t], 1)
            elif 16 <= size <= 32:  # two halves that may overlap spare the call of memcpy
                for t in range(begin, end):
                    x, y = (a + to_step[t]) * size, (b + of_step[t]) * size
                    copy_bytes(target, x, source, y, 16)
                    copy_bytes(target, x + size - 16, source, y + size - 16, 16)
            elif 32 < size <= 64:
                for t in range(begin, end):
                    x, y = (a + to_step[t]) * size, (b + of_step[t]) * size
                    copy_bytes(target, x, source, y, 32)
                    copy_bytes(target, x + size - 32, source, y + size - 32, 32)
            else:
                for t in range(begin, end):
                    copy_bytes(target, (a + to_step[t]) * size, source, (b + of_step[t]) * size, size)


@inner
def lengths_of(batch_sizes, sequences):
    """The lengths by rank, ``(B,)``: how many batch sizes exceed r, in O(B + T) as both only fall."""
    lengths = np.empty(sequences, np.int64)
    t = len(batch_sizes)
    for r in range(sequences):
        while t > 0 and batch_sizes[t - 1] <= r:
            t -= 1
        lengths[r] = t
    return lengths


def _step(step, longest):
    """The rows from a sequence's first to its row at each time, ``(longest,)``."""
    raise NotImplementedError


@overload(_step)
def _step_in_njit(step, longest):
    def of_stride(step, longest):
        steps = np.empty(longest, np.int64)
        for t in range(longest):
            steps[t] = t * step
        return steps

    def of_batch_sizes(step, longest):
        steps, row = np.empty(longest, np.int64), 0
        for t in range(longest):
            steps[t] = row
            row += step[t]
        return steps

    return of_batch_sizes if isinstance(step, types.Array) else of_stride


@inner
def _ranked(values, order):
    ranked = np.empty(len(order), np.int64)
    for rank in range(len(order)):
        ranked[rank] = values[order[rank]]
    return ranked


@jit
def move_rows(target, to_base, to_step, source, of_base, of_step, lengths, order, size):
    """Copy the rows of all sequences from one layout to another.

    target, source : the bytes of the two buffers, uint8
    to_base, of_base : (B,) or longer, the row at which a sequence starts
    to_step, of_step : int, the rows from one time step to the next; or the batch sizes, in a packed buffer
    lengths : (B,)
    order : (B,), the sequences by rank, longest first
    size : the bytes of a row
    """
    ranked = _ranked(lengths, order)
    longest = ranked[0] if len(ranked) > 0 else 0
    to = _ranked(to_base, order), _step(to_step, longest)
    of = _ranked(of_base, order), _step(of_step, longest)
    _move(target, to, source, of, ranked, size)


@inner
def sort_by_length(lengths):
    """Sort by counting, longest first and ties in the caller's order, in O(B + T).

    Returns batch_sizes ``(T,)``, sorted_indices ``(B,)`` and its inverse, unsorted_indices ``(B,)``.
    """
    longest = 0
    for i in range(len(lengths)):
        longest = max(longest, lengths[i])
    batch_sizes = np.zeros(longest, np.int64)  # (T,), at first: how many sequences end with step t
    for i in range(len(lengths)):
        if lengths[i] > 0:
            batch_sizes[lengths[i] - 1] += 1
    for t in range(longest - 2, -1, -1):
        batch_sizes[t] += batch_sizes[t + 1]

    free = np.zeros(longest + 1, np.int64)  # by length, the next free rank: all that are longer come before
    for length in range(longest):
        free[length] = batch_sizes[length]
    sorted_indices, unsorted_indices = np.empty_like(lengths), np.empty_like(lengths)
    for i in range(len(lengths)):
        rank = free[lengths[i]]
        free[lengths[i]] += 1
        sorted_indices[rank] = i
        unsorted_indices[i] = rank
    return batch_sizes, sorted_indices, unsorted_indices


@jit
def sort_sequences(lengths, sequences, most, enforce_sorted):
    """Check the lengths, then sort. Returns fault (see _checks), rows N, and what `sort_by_length` returns."""
    fault = lengths_fault(lengths, sequences, most, enforce_sorted)
    if len(fault[0]) == 0:
        fault = steps_fault(lengths)
    checked = lengths if len(fault[0]) == 0 else np.empty(0, np.int64)
    rows = 0
    for length in checked:
        rows += length
    return fault, rows, sort_by_length(checked)


@jit
def lengths_in_order(batch_sizes, unsorted_indices):
    """The lengths ``(B,)`` in the caller's order."""
    ranked = lengths_of(batch_sizes, len(unsorted_indices))
    lengths = np.empty_like(ranked)
    for i in range(len(lengths)):
        lengths[i] = ranked[unsorted_indices[i]]
    return lengths


@jit
def offsets_of(lengths):
    """Where each sequence starts in a ragged buffer, and at last where the buffer ends: ``(B + 1,)``."""
    offsets = np.zeros(len(lengths) + 1, np.int64)
    for i in range(len(lengths)):
        offsets[i + 1] = offsets[i] + lengths[i]
    return offsets


@jit
def differences(offsets):
    """The lengths ``(B,)`` of the sequences of a ragged buffer."""
    lengths = np.empty(len(offsets) - 1, np.int64)
    for i in range(len(lengths)):
        lengths[i] = offsets[i + 1] - offsets[i]
    return lengths


@jit
def padded_layout(lengths, steps, batch_first, left):
    """Base ``(B,)`` and stride of the rows of a padded buffer, at its left end or, with ``left``, at its right."""
    across, stride = (steps, 1) if batch_first else (1, len(lengths))
    base = np.empty_like(lengths)
    for i in range(len(lengths)):
        base[i] = i * across
        if left:
            base[i] += (steps - lengths[i]) * stride
    return base, stride


@inner
def bytes_of(array):
    """The bytes of an array in C order: a view where the array is C-contiguous, else a copy."""
    array = np.ascontiguousarray(array)
    return array.reshape(array.size).view(np.uint8)


@inner
def row_bytes_of(array):
    """Bytes of one row, an entry of the first axis."""
    size = array.itemsize
    for axis in range(1, array.ndim):
        size *= array.shape[axis]
    return size
