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

import math
from typing import Any

import numpy as np
from llvmlite import ir
from numba import carray, types
from numba.core import cgutils
from numba.extending import intrinsic

from .._backend import device
from .._jit import inner, jit, overload
from ..simd.memory import address, aligned
from .checks import lengths_fault, refuse, steps_fault
from .objects import address_of, data_at, length_at, pointer_at

__all__ = [
    "buffer_of",
    "copy_bytes",
    "empty_rows",
    "lengths_in_order",
    "lengths_of",
    "movable",
    "move",
    "move_apart",
    "move_rows",
    "offsets_in_order",
    "offsets_of",
    "padded_layout",
    "row_bytes_of",
    "sort_sequences",
]

# Neighbours in the packed buffer share cache lines when rows are short: so time is walked in tiles, whose target
# lines stay in the first-level cache while the sequences pass by. So it is if sequences are many, of which each has
# pages of its own: those that a tile is copied to or from are found once.
TILE = 16
AHEAD = 16  # sequences whose rows are prefetched

LINE = 64  # bytes of a line
LONG = 2 * LINE  # bytes of rows that need no tiles, unless there are too many sequences
MOST_STREAMS = 2048
LONG_AHEAD = 8  # sequences whose rows are prefetched, and the bytes of each: more would drive out what comes before
MOST_AHEAD = 2048


def _pointer(context, builder, buffer_type, buffer, at):
    """The pointer to byte ``at`` of a byte array or of what lies at an address."""
    pointer = ir.IntType(8).as_pointer()
    if isinstance(buffer_type, types.Integer):
        return builder.inttoptr(builder.add(buffer, at), pointer)
    start = context.make_array(buffer_type)(context, builder, buffer).data
    return builder.gep(builder.bitcast(start, pointer), [at])


@intrinsic(prefer_literal=True)
def copy_bytes(typing_context, target, target_at, source, source_at, count):
    """Copy ``count`` bytes between two byte arrays or addresses; a literal count becomes one machine instruction.

    A plain loop over the bytes or words of a row ran at a quarter of this speed: LLVM cannot know that the two
    arrays do not overlap.
    """
    signature = types.void(target, types.int64, source, types.int64, count)

    def generate(context, builder, signature, arguments):
        target_type, _, source_type, _, count_type = signature.args
        to = _pointer(context, builder, target_type, arguments[0], arguments[1])
        of = _pointer(context, builder, source_type, arguments[2], arguments[3])
        if isinstance(count_type, types.IntegerLiteral):
            size = ir.Constant(ir.IntType(64), count_type.literal_value)
        else:
            size = arguments[4]
        cgutils.raw_memcpy(builder, to, of, size, 1)
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def _prefetch(typing_context, buffer, at):
    """Have the cache line of a byte fetched: sequences lie anywhere, and waiting for each took half of the time."""

    def generate(context, builder, signature, arguments):
        pointer, word = ir.IntType(8).as_pointer(), ir.IntType(32)
        fetch = ir.FunctionType(ir.VoidType(), [pointer, word, word, word])
        function = cgutils.get_or_insert_function(builder.module, fetch, "llvm.prefetch.p0i8")
        builder.call(function, [_pointer(context, builder, signature.args[0], *arguments), word(0), word(3), word(1)])
        return context.get_dummy_value()

    return types.void(buffer, types.int64), generate


@intrinsic
def _clear(typing_context, buffer, at, count):
    """Set ``count`` bytes to zero, from byte ``at`` of a byte array or of what lies at an address."""

    def generate(context, builder, signature, arguments):
        start = _pointer(context, builder, signature.args[0], arguments[0], arguments[1])
        cgutils.memset(builder, start, arguments[2], 0)
        return context.get_dummy_value()

    return types.void(buffer, types.int64, types.int64), generate


@inner
def _move(target, to, to_step, source, of, of_step, lengths, batch_sizes, size, from_packed, blank):
    """Move the rows, of ``size`` bytes each, of sequences that come longest first.

    Only the sequences that have not ended are visited: so the work grows with the rows, not with sequences times the
    longest. All is one function, because Numba counts references wherever arrays are passed on. ``from_packed``: rows
    are read one after the other, and written anywhere. ``blank``: bytes of a time step of the target, each of which is
    cleared just before rows are written to it, or 0.
    """
    if size >= LONG and len(to) <= MOST_STREAMS:
        _move_long(target, to, to_step, source, of, of_step, batch_sizes, size, from_packed, blank)
        return
    for begin in range(0, len(batch_sizes), TILE):
        active = batch_sizes[begin]
        if blank > 0:
            _clear(target, begin * blank, min(TILE, len(batch_sizes) - begin) * blank)
        for r in range(active):
            if r + AHEAD < active:
                _prefetch(source, of[r + AHEAD] + of_step[begin])
            a, b, end = to[r], of[r], min(lengths[r], begin + TILE)
            if size == 4:
                for t in range(begin, end):
                    copy_bytes(target, a + to_step[t], source, b + of_step[t], 4)
            elif size == 8:
                for t in range(begin, end):
                    copy_bytes(target, a + to_step[t], source, b + of_step[t], 8)
            elif size == 1:
                for t in range(begin, end):
                    copy_bytes(target, a + to_step[t], source, b + of_step[t], 1)
            elif 16 <= size <= 32:  # two halves that may overlap spare the call of memcpy
                for t in range(begin, end):
                    x, y = a + to_step[t], b + of_step[t]
                    copy_bytes(target, x, source, y, 16)
                    copy_bytes(target, x + size - 16, source, y + size - 16, 16)
            elif 32 < size <= 64:
                for t in range(begin, end):
                    x, y = a + to_step[t], b + of_step[t]
                    copy_bytes(target, x, source, y, 32)
                    copy_bytes(target, x + size - 32, source, y + size - 32, 32)
            else:
                for t in range(begin, end):
                    copy_bytes(target, a + to_step[t], source, b + of_step[t], size)


@inner
def _move_long(target, to, to_step, source, of, of_step, batch_sizes, size, from_packed, blank):
    """`_move` for long rows: time step after time step.

    A packed buffer is walked from its beginning to its end; on the other side rows lie anywhere, and are prefetched
    unless they were cleared just now. In tiles of time, each row copied by memcpy, rows of 512 bytes took 1.4 to 3
    times as long. (Stores that pass the caches by took 2 to 5 times as long.)
    """
    fetched, last = min(size, MOST_AHEAD), size - LINE
    for t in range(len(batch_sizes)):
        active, to_t, of_t = batch_sizes[t], to_step[t], of_step[t]
        if blank > 0:
            _clear(target, to_t, blank)
        for r in range(active):
            x, y = to[r] + to_t, of[r] + of_t
            if r + LONG_AHEAD < active and not from_packed:
                for at in range(0, fetched, LINE):
                    _prefetch(source, of[r + LONG_AHEAD] + of_t + at)
            elif r + LONG_AHEAD < active and blank == 0:
                for at in range(0, fetched, LINE):
                    _prefetch(target, to[r + LONG_AHEAD] + to_t + at)
            for at in range(0, last, LINE):
                copy_bytes(target, x + at, source, y + at, LINE)
            copy_bytes(target, x + last, source, y + last, LINE)  # which may overlap the one before


@inner
def lengths_of(batch_sizes, sequences):
    """The lengths by rank, ``(B,)``: how many batch sizes exceed r, in O(B + T) as both only fall."""
    lengths = aligned(np.int64(0), sequences)
    t = len(batch_sizes)
    for r in range(sequences):
        while t > 0 and batch_sizes[t - 1] <= r:
            t -= 1
        lengths[r] = t
    return lengths


@inner
def _starts(base, order, size):
    """The byte at which the sequence of each rank starts, ``(B,)``."""
    starts = aligned(np.int64(0), len(order))
    for rank in range(len(order)):
        starts[rank] = base[order[rank]] * size
    return starts


@inner
def _steps(stride, batch_sizes, size):
    """The bytes from a sequence's first row to its row at each time, ``(T,)``."""
    steps, row = aligned(np.int64(0), len(batch_sizes)), 0
    for t in range(len(batch_sizes)):
        steps[t] = row * size
        row += stride if stride > 0 else batch_sizes[t]
    return steps


@inner
def _move_between(target, to_base, to_stride, source, of_base, of_stride, of_size, size, batch_sizes, order, blank):
    sequences, steps = len(order), len(batch_sizes)
    lengths = lengths_of(batch_sizes, sequences)
    to, to_step = _starts(to_base, order, size), _steps(to_stride, batch_sizes, size)
    of, of_step = _starts(of_base, order, of_size), _steps(of_stride, batch_sizes, size)
    if size == 0:
        return
    step = to_stride * size if blank > 0 else 0
    _clear(target, steps * step, (blank - steps) * step)
    side_by_side = (to_stride == 1 and of_stride == 1) or sequences == 1
    if side_by_side:
        _clear(target, 0, steps * step)
        for r in range(sequences):
            copy_bytes(target, to[r], source, of[r], lengths[r] * size)
    else:
        _move(target, to, to_step, source, of, of_step, lengths, batch_sizes, size, of_stride == 0, step)


@jit
def move_rows(target, to_base, to_stride, source, of_base, of_stride, of_size, size, batch_sizes, order):
    """Copy the rows of all sequences from one layout to another.

    target, source : see `buffer_of`
    to_base, of_base : (B,) or longer, the row at which a sequence starts
    to_stride, of_stride : the rows from one time step to the next; 0 in a packed buffer, where the batch sizes tell
    of_size, size : the bytes of a row; with an ``of_size`` of 1 and a source of 0, ``of_base`` holds addresses
    batch_sizes : (T,)
    order : (B,), the sequences by rank, longest first
    """
    _move_between(target, to_base, to_stride, source, of_base, of_stride, of_size, size, batch_sizes, order, 0)


@jit
def _move_rows_of(target, to_base, to_stride, source, of_base, of_stride, of_size, size, batch_sizes, order, blank):
    """As `move_rows`, of arrays by the addresses of the objects; 0 stands for no source.

    If ``blank`` is not 0, the target is a padded buffer of so many steps, whose padding, too, is written: zeros.
    """
    _move_between(
        data_at(target), _integers_at(to_base), to_stride, data_at(source) if source != 0 else 0, _integers_at(of_base),
        of_stride, of_size, size, _integers_at(batch_sizes), _integers_at(order), blank,
    )  # fmt: skip


@inner
def _integers_at(array):
    return carray(pointer_at(array, np.int64(0)), length_at(array))


@jit
def move_apart(addresses, source, size, batch_sizes, order, ranks):
    """Copy the rows of each sequence from a packed buffer to an address of its own, ``(B,)``, one after the other."""
    lengths = lengths_of(batch_sizes, len(order))
    to, to_step = _starts(addresses, order, 1), _steps(1, batch_sizes, size)
    of, of_step = _starts(ranks, order, size), _steps(0, batch_sizes, size)
    if size > 0:
        _move(0, to, to_step, source, of, of_step, lengths, batch_sizes, size, True, 0)


def move(
    target: Any, to_base: np.ndarray, to_stride: int, source: Any, of_base: np.ndarray, of_stride: int,
    of_size: int, size: int, batch_sizes: np.ndarray, order: np.ndarray, blank: int = 0,
) -> None:  # fmt: skip
    """As `move_rows`, on the host or on the device, of what `movable` gives; ``blank``: see `_move_rows_of`."""
    if type(target) is np.ndarray:
        _move_rows_of(
            id(target), id(to_base), to_stride, 0 if source is None else id(source), id(of_base), of_stride, of_size,
            size, id(batch_sizes), id(order), blank,
        )  # fmt: skip
    else:
        device.move_rows(target, to_base, to_stride, source, of_base, of_stride, size, batch_sizes, order)


@overload(move)
def _move_in_njit(target, to_base, to_stride, source, of_base, of_stride, of_size, size, batch_sizes, order, blank=0):
    def on_host(target, to_base, to_stride, source, of_base, of_stride, of_size, size, batch_sizes, order, blank=0):
        move_rows(target, to_base, to_stride, source, of_base, of_stride, of_size, size, batch_sizes, order)

    return on_host


def movable(array: Any) -> Any:
    """What `move` takes for an array that is C-contiguous: from Python the array itself, which it finds by address."""
    return array


@jit
def count_rows(lengths, sequences, most, enforce_sorted):
    """The rows N and the time steps T; -1 rows if the lengths have a fault."""
    if len(lengths_fault(lengths, sequences, most, enforce_sorted)[0]) > 0 or len(steps_fault(lengths)[0]) > 0:
        return -1, 0
    rows, longest = 0, 0
    for i in range(len(lengths)):
        rows += lengths[i]
        longest = max(longest, lengths[i])
    return rows, longest


@jit
def sort_by_length(lengths, batch_sizes, sorted_indices, unsorted_indices):
    """Sort by counting, longest first and ties in the caller's order, in O(B + T).

    Writes batch_sizes ``(T,)``, sorted_indices ``(B,)`` and its inverse, unsorted_indices ``(B,)``.
    """
    longest = len(batch_sizes)
    free = aligned(np.int64(0), longest + 1)  # at first, how many sequences have each length
    _clear(address(free, 0), 0, 8 * free.size)
    for i in range(len(lengths)):
        free[lengths[i]] += 1
    longer = 0
    for length in range(longest, -1, -1):  # then, the next free rank of each: longer ones come before
        longer, free[length] = longer + free[length], longer
        if length > 0:
            batch_sizes[length - 1] = longer
    for i in range(len(lengths)):
        rank = free[lengths[i]]
        free[lengths[i]] += 1
        sorted_indices[rank] = i
        unsorted_indices[i] = rank


@inner
def sort_sequences(lengths, sequences, most, enforce_sorted, name):
    """Check the lengths, called ``name``, and sort. Returns rows N, and what `sort_by_length` writes.

    The arrays are made here, not in compiled code: to hand one from there to Python takes half a microsecond.
    """
    rows, longest = count_rows(lengths, sequences, most, enforce_sorted)
    if rows < 0:
        refuse(lengths_fault(lengths, sequences, most, enforce_sorted), name)
        refuse(steps_fault(lengths), name)
    batch_sizes = np.empty(longest, np.int64)
    sorted_indices, unsorted_indices = np.empty(len(lengths), np.int64), np.empty(len(lengths), np.int64)
    sort_by_length(lengths, batch_sizes, sorted_indices, unsorted_indices)
    return rows, (batch_sizes, sorted_indices, unsorted_indices)


@jit
def _write_lengths(batch_sizes, unsorted_indices, lengths):
    ranks, found = _integers_at(unsorted_indices), _integers_at(lengths)
    ranked = lengths_of(_integers_at(batch_sizes), len(ranks))
    for i in range(len(ranks)):
        found[i] = ranked[ranks[i]]


def lengths_in_order(batch_sizes: np.ndarray, unsorted_indices: np.ndarray) -> np.ndarray:
    """The lengths ``(B,)`` in the caller's order, of index arrays that are checked."""
    lengths = np.empty(len(unsorted_indices), np.int64)
    _write_lengths(id(batch_sizes), id(unsorted_indices), id(lengths))
    return lengths


@overload(lengths_in_order)
def _lengths_in_njit(batch_sizes, unsorted_indices):
    return lambda batch_sizes, unsorted_indices: lengths_of(batch_sizes, len(unsorted_indices))[unsorted_indices]


@jit
def _write_offsets(batch_sizes, unsorted_indices, offsets):
    ranks, found = _integers_at(unsorted_indices), _integers_at(offsets)
    ranked = lengths_of(_integers_at(batch_sizes), len(ranks))
    found[0] = 0
    for i in range(len(ranks)):
        found[i + 1] = found[i] + ranked[ranks[i]]


def offsets_in_order(batch_sizes: np.ndarray, unsorted_indices: np.ndarray) -> np.ndarray:
    """`offsets_of` the lengths in the caller's order."""
    offsets = np.empty(len(unsorted_indices) + 1, np.int64)
    _write_offsets(id(batch_sizes), id(unsorted_indices), id(offsets))
    return offsets


@overload(offsets_in_order)
def _offsets_in_njit(batch_sizes, unsorted_indices):
    return lambda batch_sizes, unsorted_indices: offsets_of(lengths_in_order(batch_sizes, unsorted_indices))


@jit
def offsets_of(lengths):
    """Where each sequence starts in a ragged buffer and, last, where the buffer ends: ``(B + 1,)``."""
    offsets = np.zeros(len(lengths) + 1, np.int64)
    for i in range(len(lengths)):
        offsets[i + 1] = offsets[i] + lengths[i]
    return offsets


@inner
def padded_layout(lengths, steps, batch_first, left):
    """Base ``(B,)`` and stride of the rows of a padded buffer, at its left end or, with ``left``, at its right."""
    sequences = len(lengths)
    if batch_first:
        base, stride = np.arange(0, sequences * max(steps, 1), max(steps, 1)), 1
    else:
        base, stride = np.arange(sequences), sequences
    if left:
        base = base + (steps - lengths) * stride
    return base, stride


def empty_rows(like: Any, shape: tuple[int, ...]) -> Any:
    """An uninitialised array in the dtype of another, and on the host or on the device as that is."""
    return (np if type(like) is np.ndarray else device).empty(shape, like.dtype)


@overload(empty_rows)
def _empty_rows_in_njit(like, shape):
    return lambda like, shape: np.empty(shape, like.dtype)


def buffer_of(array: Any) -> Any:
    """What `copy_bytes` takes for a C-contiguous array: from Python its address; the array has to live until then.

    An array on the device is taken as it is.
    """
    return address_of(array) if type(array) is np.ndarray else array


@overload(movable)
@overload(buffer_of)
def _buffer_of_in_njit(array):
    def of_bytes(array):  # not an address: Numba would free the array at once
        return np.ascontiguousarray(array).reshape(array.size).view(np.uint8)

    return of_bytes


def row_bytes_of(array: Any) -> int:
    """Bytes of one row, an entry of the first axis."""
    return math.prod(array.shape[1:], start=array.dtype.itemsize)


@overload(row_bytes_of)
def _row_bytes_of_in_njit(array):
    def compiled(array):
        size = array.itemsize
        for axis in range(1, array.ndim):
            size *= array.shape[axis]
        return size

    return compiled
