"""Sums and softmax over the rows of each sequence, and one row for each sequence repeated for all of its rows.

They are not with packing, since softmax takes the exp that cells are made of. As there, each is the same source in
Python and in ``@njit`` code.

In a time step the rows of all sequences that go on stand side by side, in the order of their ranks. So one vector of
sums for all sequences, by rank, is added to from its start on: loops over a step are over single numbers. They are over
slices, since what LLVM knows to begin at 0 it makes vector code of.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .._jit import inner, jit
from ..cells.activations import exp
from ..packing.checks import ArgumentError, as_rows
from ..packing.rows import buffer_of, copy_bytes, empty_rows, row_bytes_of
from ..packing.sequences import PackedSequence, check_packed
from ..simd.lanes import load_first, store_first, width
from ..simd.memory import address, keep_alive
from ..simd.modes import put_back_mode, take_mode
from .checks import as_floats, check_alike, check_dtype

__all__ = ["packed_softmax", "packed_softmax_backward", "repeat_by_sequence", "sum_by_sequence"]


def sum_by_sequence(packed: PackedSequence) -> np.ndarray:
    """The sum of the rows of each sequence.

    Parameters
    ----------
    packed : PackedSequence with data (N, *), of float32 or float64

    Returns
    -------
    ndarray, shape (B, *)
        In the caller's order: computed in float64, and rounded to the dtype of the rows. Zero where a sequence has no
        rows.

    Raises
    ------
    TypeError, ValueError
        If ``packed`` is not valid (see `check_packed`), or its rows are not floats.

    See Also
    --------
    repeat_by_sequence : the gradient of this, as this is the gradient of that.

    Examples
    --------
    >>> import numpy as np
    >>> import numba_pack as nbp
    >>> packed = nbp.pack_sequence([np.array([1.0, 2.0]), np.array([3.0, 4.0, 8.0])])
    >>> nbp.sum_by_sequence(packed)
    array([ 3., 15.])
    >>> nbp.sum_by_sequence(packed) / packed.lengths  # the mean
    array([1.5, 5. ])
    """
    packed = check_packed(packed, "packed")
    data = as_floats(packed.data, "packed.data")
    sums = empty_rows(data, (len(packed.sorted_indices), *data.shape[1:]))
    columns = row_bytes_of(data) // data.itemsize
    _sum(data.reshape(data.size), columns, packed.batch_sizes, packed.sorted_indices, sums.reshape(sums.size))
    return sums


@jit
def _sum(data, columns, batch_sizes, sorted_indices, sums):
    totals, at = np.zeros(len(sums)), 0
    mode = take_mode()
    for size in batch_sizes:
        count = size * columns
        x = data[at : at + count]
        for i in range(count):
            totals[i] += x[i]
        at += count
    for r in range(len(sorted_indices)):
        for c in range(columns):
            sums[sorted_indices[r] * columns + c] = totals[r * columns + c]
    put_back_mode(mode)


def repeat_by_sequence(rows: Any, packed: PackedSequence) -> PackedSequence:
    """One row for each sequence, repeated for each of its rows.

    Parameters
    ----------
    rows : array, shape (B, *)
        Of numbers; in the caller's order.
    packed : PackedSequence
        What the result is to be packed as; its data do not matter.

    Returns
    -------
    PackedSequence with data (N, *)
        In the dtype of the rows.

    Raises
    ------
    TypeError, ValueError
        If ``packed`` is not valid (see `check_packed`), or there is not one row of numbers for each of its sequences.

    See Also
    --------
    sum_by_sequence : the gradient of this, as this is the gradient of that.

    Examples
    --------
    >>> import numpy as np
    >>> import numba_pack as nbp
    >>> packed = nbp.pack_sequence([np.array([1.0, 2.0]), np.array([3.0, 4.0, 8.0])])
    >>> nbp.unpack_sequence(nbp.repeat_by_sequence(np.array([7, 9]), packed))
    [array([7, 7]), array([9, 9, 9])]
    """
    rows, packed = as_rows(rows, "rows", 1), check_packed(packed, "packed")
    _, batch_sizes, sorted_indices, unsorted_indices = packed
    if len(rows) != len(sorted_indices):
        text = " must have one row for each sequence of packed: expected a length of"
        raise ArgumentError("rows", text, len(rows), len(sorted_indices), -1)
    data = empty_rows(rows, (len(packed.data), *rows.shape[1:]))
    _repeat(buffer_of(data), buffer_of(rows), row_bytes_of(rows), batch_sizes, sorted_indices)
    return PackedSequence(data, batch_sizes, sorted_indices, unsorted_indices)


@jit
def _repeat(target, source, size, batch_sizes, sorted_indices):
    at = 0
    for active in batch_sizes:
        for r in range(active):
            copy_bytes(target, at, source, sorted_indices[r] * size, size)
            at += size


def packed_softmax(packed: PackedSequence) -> PackedSequence:
    r"""Softmax over the rows of each sequence, of every column by itself.

    With rows :math:`x_t` of a sequence

    .. math::
        y_t = e^{x_t} / \sum_s e^{x_s}.

    Parameters
    ----------
    packed : PackedSequence with data (N, *), of float32 or float64
        Such as scores of rows; of any finite size.

    Returns
    -------
    PackedSequence with data (N, *)
        Weights that sum to 1 over each sequence.

    Raises
    ------
    TypeError, ValueError
        If ``packed`` is not valid (see `check_packed`), or its rows are not floats.

    See Also
    --------
    attend : scores, softmax and weighted sum in one, where scores are products.

    Examples
    --------
    Additive attention, a score for each row of a linear layer's making, and the weighted sum [1]_:

    >>> import numpy as np
    >>> import numba_pack as nbp
    >>> h = nbp.pack_sequence([np.ones((n, 3), np.float32) for n in (2, 5)])
    >>> score = nbp.Linear(3, 1, rng=0)
    >>> weights = nbp.packed_softmax(score(h))
    >>> nbp.unpack_sequence(weights)[0].ravel()
    array([0.5, 0.5], dtype=float32)
    >>> context = nbp.sum_by_sequence(h.map(lambda rows: rows * weights.data))
    >>> context.shape
    (2, 3)

    References
    ----------
    .. [1] D. Bahdanau, K. Cho, Y. Bengio, "Neural machine translation by jointly learning to align and translate",
       ICLR 2015.
    """
    packed = check_packed(packed, "packed")
    data = as_floats(packed.data, "packed.data")
    output = empty_rows(data, data.shape)
    columns = row_bytes_of(data) // data.itemsize
    _softmax(data.reshape(data.size), columns, packed.batch_sizes, output.reshape(output.size))
    return PackedSequence(output, packed.batch_sizes, packed.sorted_indices, packed.unsorted_indices)


@jit
def _softmax(data, columns, batch_sizes, output):
    widest = batch_sizes[0] * columns if len(batch_sizes) > 0 else 0
    highest, totals, at = data[:widest].copy(), np.zeros(widest), 0
    mode = take_mode()
    for size in batch_sizes:
        count = size * columns
        x = data[at : at + count]
        for i in range(count):
            highest[i] = x[i] if x[i] > highest[i] else highest[i]
        at += count
    at, step = 0, width(data)
    for size in batch_sizes:
        count = size * columns
        for i in range(0, count, step):
            rest = min(step, count - i)
            x = load_first(data, address(data, at + i), rest) - load_first(data, address(highest, i), rest)
            store_first(address(output, at + i), exp(x), rest)
        y = output[at : at + count]
        for i in range(count):
            totals[i] += y[i]
        at += count
    at = 0
    for size in batch_sizes:
        count = size * columns
        y = output[at : at + count]
        for i in range(count):
            y[i] = y[i] / totals[i]
        at += count
    put_back_mode(mode)
    keep_alive((data, highest, output))


def packed_softmax_backward(output: PackedSequence, d_output: PackedSequence) -> PackedSequence:
    """The gradient of `packed_softmax`.

    Parameters
    ----------
    output : PackedSequence
        What `packed_softmax` returned.
    d_output : PackedSequence
        The gradient of the loss with respect to it.

    Returns
    -------
    PackedSequence
        The gradient with respect to what `packed_softmax` was called with.

    Raises
    ------
    TypeError, ValueError
        If one of both is not valid (see `check_packed`), or they differ in dtype, in shape or in how they are packed.

    Examples
    --------
    >>> import numpy as np
    >>> import numba_pack as nbp
    >>> output = nbp.packed_softmax(nbp.pack_sequence([np.zeros(2), np.ones(1)]))
    >>> d_output = nbp.pack_sequence([np.array([1.0, 0.0]), np.array([3.0])])
    >>> nbp.unpack_sequence(nbp.packed_softmax_backward(output, d_output))
    [array([ 0.25, -0.25]), array([0.])]
    """
    output, d_output = check_packed(output, "output"), check_packed(d_output, "d_output")
    check_alike(output, d_output, "d_output")
    data, d_data = as_floats(output.data, "output.data"), as_floats(d_output.data, "d_output.data")
    check_dtype(d_data, "d_output", data)
    columns, of_gradient = row_bytes_of(data) // data.itemsize, row_bytes_of(d_data) // d_data.itemsize
    if of_gradient != columns:
        text = " must have as many columns as output: expected"
        raise ArgumentError("d_output", text, of_gradient, columns, -1)
    found = empty_rows(data, data.shape)
    _softmax_back(
        data.reshape(data.size), d_data.reshape(data.size), columns, output.batch_sizes, found.reshape(data.size)
    )
    return PackedSequence(found, output.batch_sizes, output.sorted_indices, output.unsorted_indices)


@jit
def _softmax_back(output, d_output, columns, batch_sizes, found):
    products, at = np.zeros(batch_sizes[0] * columns if len(batch_sizes) > 0 else 0), 0
    mode = take_mode()
    for size in batch_sizes:
        count = size * columns
        y, d = output[at : at + count], d_output[at : at + count]
        for i in range(count):
            products[i] += np.float64(y[i]) * np.float64(d[i])
        at += count
    at = 0
    for size in batch_sizes:
        count = size * columns
        y, d, d_x = output[at : at + count], d_output[at : at + count], found[at : at + count]
        for i in range(count):
            d_x[i] = y[i] * (d[i] - products[i])
        at += count
    put_back_mode(mode)


# Called from @njit code, these compile as they stand: see `numba_pack.packing.sequences`.
for _function in (sum_by_sequence, repeat_by_sequence, packed_softmax, packed_softmax_backward):
    inner(_function)
