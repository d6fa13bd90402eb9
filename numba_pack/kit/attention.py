"""Attention of the rows of sequences to the rows of others, of the same number and of any lengths; nothing is padded.

A sequence is computed by itself: a query's products with all keys of its sequence, their softmax, and the sum of the
values by these weights. Rows are taken where they lie, by their addresses.
"""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np

from .._jit import inner, jit
from ..cells.activations import exp
from ..packing.checks import ArgumentError
from ..packing.rows import lengths_of
from ..packing.sequences import PackedSequence, check_packed
from ..simd.lanes import fma, like, load, load_first, nothing, size_of, store, store_first, sum_of, width
from ..simd.memory import address, keep_alive
from ..simd.modes import put_back_mode, take_mode
from .checks import as_matrix, as_rows_like, as_step, check_alike, check_dtype, in_form_of

__all__ = ["attend", "attend_backward"]

#: queries of one sequence, and what they are given as
Queries = TypeVar("Queries", PackedSequence, np.ndarray)

#: terms that are summed before their sum is added to that of all
_TERMS = 256


def attend(queries: Queries, keys: PackedSequence, values: PackedSequence) -> tuple[Queries, Queries]:
    r"""Dot-product attention: for each query the mean of its sequence's values, weighted by how well keys fit it.

    For a query :math:`q`, and keys :math:`k_t` and values :math:`v_t` of the same sequence [1]_,

    .. math::
        w_t = e^{q \cdot k_t} / \sum_s e^{q \cdot k_s}, \qquad c = \sum_t w_t v_t.

    Parameters
    ----------
    queries : PackedSequence with data (M, E), or array (B, E), of float32 or float64
        The rows of one sequence for each of `keys`, in the same order; an array is one row for each, such as the state
        of a decoder at one step. Sequences of both may have any lengths.
    keys : PackedSequence with data (N, E)
        What queries are compared with, such as the output of an encoder.
    values : PackedSequence with data (N, V)
        What is looked up, packed as the keys; often the keys themselves.

    Returns
    -------
    context : PackedSequence with data (M, V), or array (B, V)
        In the form of the queries. Zero for a query whose sequence has no keys.
    weights : PackedSequence with data (M, S), or array (B, S)
        In the same form, where S is the length of the longest sequence of keys: the weight of each key of the query's
        sequence, in the order of time, and zero behind them. For `attend_backward`, and to be looked at.

    Raises
    ------
    TypeError, ValueError
        If an argument is no such batch, or they differ in dtype, in the number of sequences or in columns.

    See Also
    --------
    attend_backward : the gradient.
    packed_softmax : for scores of other kinds.

    Notes
    -----
    Queries are not scaled: where scores are to be divided by :math:`\sqrt E`, divide the queries. Multiplied by a
    trained matrix, as by a `Linear` without a bias, they are the "general" form of [1]_.

    A sequence has the same bits whatever sequences are beside it, and a query whatever queries are. One thread computes
    them.

    References
    ----------
    .. [1] M.-T. Luong, H. Pham, C. D. Manning, "Effective approaches to attention-based neural machine translation",
       EMNLP 2015.

    Examples
    --------
    >>> import numpy as np
    >>> import numba_pack as nbp
    >>> rng = np.random.default_rng(0)
    >>> encoded = nbp.pack_sequence([rng.standard_normal((n, 4)) for n in (2, 3)])
    >>> state = rng.standard_normal((2, 4))  # at one step of a decoder
    >>> context, weights = nbp.attend(state, encoded, encoded)
    >>> context.shape, weights.round(2)
    ((2, 4), array([[0.35, 0.65, 0.  ],
           [0.49, 0.4 , 0.11]]))

    At all steps at once, and the gradient:

    >>> states = nbp.pack_sequence([rng.standard_normal((n, 4)) for n in (5, 1)])
    >>> context, weights = nbp.attend(states, encoded, encoded)
    >>> context.lengths
    array([5, 1])
    >>> d_states, d_keys, d_values = nbp.attend_backward(states, encoded, encoded, weights, context)
    >>> d_encoded = d_keys.data + d_values.data
    """
    asked, held, given = as_step(queries, "queries"), check_packed(keys, "keys"), check_packed(values, "values")
    q, k, v = _checked(asked, held, given)
    context, weights = np.empty((len(q), v.shape[1]), q.dtype), np.zeros((len(q), len(held.batch_sizes)), q.dtype)
    _attend(q, asked.batch_sizes, asked.sorted_indices, k, v, held.batch_sizes, held.unsorted_indices, context, weights)
    return in_form_of(queries, asked, context), in_form_of(queries, asked, weights)


def attend_backward(
    queries: Queries, keys: PackedSequence, values: PackedSequence, weights: Any, d_context: Any
) -> tuple[Queries, PackedSequence, PackedSequence]:
    r"""The gradient of `attend`.

    With the gradient :math:`d` of a context

    .. math::
        dv_t = \sum_q w_t d, \qquad ds_t = w_t (v_t \cdot d - c \cdot d), \qquad
        dq = \sum_t ds_t k_t, \qquad dk_t = \sum_q ds_t q.

    Parameters
    ----------
    queries, keys, values
        What `attend` was called with.
    weights : like the queries
        What it returned second.
    d_context : like the queries
        The gradient of the loss with respect to the context; of a packed batch its data will do.

    Returns
    -------
    d_queries, d_keys, d_values
        The gradient with respect to each, in its form. Where the same batch is keys and values, its gradient is the sum
        of both.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as above.

    Examples
    --------
    See `attend`.
    """
    asked, held, given = as_step(queries, "queries"), check_packed(keys, "keys"), check_packed(values, "values")
    q, k, v = _checked(asked, held, given)
    w, d = (
        as_rows_like(weights, "weights", asked, len(held.batch_sizes)),
        as_rows_like(d_context, "d_context", asked, v.shape[1]),
    )
    d_q, d_k, d_v = np.empty(q.shape, q.dtype), np.zeros(k.shape, q.dtype), np.zeros(v.shape, q.dtype)
    _attend_back(
        q, asked.batch_sizes, asked.sorted_indices, k, v, held.batch_sizes, held.unsorted_indices, w, d, d_q, d_k, d_v
    )
    return (
        in_form_of(queries, asked, d_q),
        PackedSequence(d_k, held.batch_sizes, held.sorted_indices, held.unsorted_indices),
        PackedSequence(d_v, given.batch_sizes, given.sorted_indices, given.unsorted_indices),
    )


@inner
def _checked(asked, held, given):
    """The rows of queries, keys and values that go together."""
    q, k, v = (
        as_matrix(asked.data, "queries"),
        as_matrix(held.data, "keys.data"),
        as_matrix(given.data, "values.data"),
    )
    check_dtype(k, "keys.data", q)
    check_dtype(v, "values.data", q)
    got, sequences = len(asked.sorted_indices), len(held.sorted_indices)
    if got != sequences:
        raise ArgumentError("queries", " must have as many sequences as keys: expected", got, sequences, -1)
    if q.shape[1] != k.shape[1]:
        raise ArgumentError("queries", " must have as many columns as keys: expected", q.shape[1], k.shape[1], -1)
    check_alike(held, given, "values")
    return q, k, v


# ---- kernels ---------------------------------------------------------------------------------------------------------


@jit
def _attend(q, q_sizes, q_order, k, v, k_sizes, k_ranks, context, weights):
    """Write context and weights; `q_order` tells the sequence of each rank, `k_ranks` the rank of each sequence."""
    (_, E), V = q.shape, v.shape[1]
    steps, lengths = lengths_of(q_sizes, len(q_order)), lengths_of(k_sizes, len(k_ranks))
    at_k, at_v = np.empty(len(k_sizes), np.int64), np.empty(len(k_sizes), np.int64)
    scores = np.empty(_room(q, len(k_sizes)), q.dtype)
    mode = take_mode()
    for r in range(len(q_order)):
        rank = k_ranks[q_order[r]]
        length, row = lengths[rank], r
        _find(k, k_sizes, rank, length, at_k)
        _find(v, k_sizes, rank, length, at_v)
        for s in range(steps[r]):
            _products(q, address(q, row * E), at_k, length, E, scores)
            _softmax(scores, length)
            weights[row, :length] = scores[:length]
            _combine(scores, at_v, length, V, address(context, row * V))
            row += q_sizes[s]
    put_back_mode(mode)
    keep_alive((q, k, v, context))


@jit
def _attend_back(q, q_sizes, q_order, k, v, k_sizes, k_ranks, weights, d, d_q, d_k, d_v):
    """Write d_q, and add to d_k and d_v: for some queries of a sequence at a time, which are summed side by side."""
    (_, E), V, S = q.shape, v.shape[1], len(k_sizes)
    steps, lengths = lengths_of(q_sizes, len(q_order)), lengths_of(k_sizes, len(k_ranks))
    at_k, at_v = np.empty(S, np.int64), np.empty(S, np.int64)
    slopes = np.empty(_room(q, S), q.dtype)
    sums_k, sums_v = np.empty((S, E), q.dtype), np.empty((S, V), q.dtype)
    mode = take_mode()
    for r in range(len(q_order)):
        rank = k_ranks[q_order[r]]
        length, row = lengths[rank], r
        _find(k, k_sizes, rank, length, at_k)
        _find(v, k_sizes, rank, length, at_v)
        for first in range(0, steps[r], _TERMS):
            sums_k[:length] = 0
            sums_v[:length] = 0
            for s in range(first, min(first + _TERMS, steps[r])):
                q_row, d_row, w = address(q, row * E), address(d, row * V), weights[row]
                _products(q, d_row, at_v, length, V, slopes)
                mean = 0.0
                for t in range(length):
                    mean += np.float64(w[t]) * np.float64(slopes[t])
                for t in range(length):
                    _add(w[t], d_row, address(sums_v, t * V), V)
                    slopes[t] = w[t] * (slopes[t] - mean)
                    _add(slopes[t], q_row, address(sums_k, t * E), E)
                _combine(slopes, at_k, length, E, address(d_q, row * E))
                row += q_sizes[s]
            at = rank
            for t in range(length):
                _add_plain(sums_k[t], d_k[at])
                _add_plain(sums_v[t], d_v[at])
                at += k_sizes[t]
    put_back_mode(mode)
    keep_alive((q, k, v, d, d_q, sums_k, sums_v))


@inner
def _add_plain(row, target):
    for i in range(len(row)):
        target[i] += row[i]


@inner
def _room(rows, count):
    """Numbers of whole vectors, four at least, that hold ``count`` numbers."""
    return (count // width(rows) + 4) * width(rows)


@inner
def _find(rows, batch_sizes, rank, length, found):
    """The addresses of the rows of a sequence."""
    at, columns = rank, rows.shape[1]
    for t in range(length):
        found[t] = address(rows, at * columns)
        at += batch_sizes[t]


@inner
def _products(rows, row, others, count, columns, products):
    """The product of a row with each of others, by their addresses; four at once, whose sums do not wait for another.

    In a last group the last of them stands in for those that are missing.
    """
    step, size = width(rows), size_of(rows)
    whole = columns // step * step
    for t in range(0, count, 4):
        a, b = others[t], others[min(t + 1, count - 1)]
        c, d = others[min(t + 2, count - 1)], others[min(t + 3, count - 1)]
        of_a = of_b = of_c = of_d = nothing(rows)
        for i in range(0, whole * size, step * size):
            x = load(rows, row + i)
            of_a = fma(x, load(rows, a + i), of_a)
            of_b = fma(x, load(rows, b + i), of_b)
            of_c = fma(x, load(rows, c + i), of_c)
            of_d = fma(x, load(rows, d + i), of_d)
        if whole < columns:
            i, rest = whole * size, columns - whole
            x = load_first(rows, row + i, rest)
            of_a = fma(x, load_first(rows, a + i, rest), of_a)
            of_b = fma(x, load_first(rows, b + i, rest), of_b)
            of_c = fma(x, load_first(rows, c + i, rest), of_c)
            of_d = fma(x, load_first(rows, d + i, rest), of_d)
        products[t], products[t + 1], products[t + 2], products[t + 3] = (
            sum_of(of_a),
            sum_of(of_b),
            sum_of(of_c),
            sum_of(of_d),
        )


@inner
def _softmax(scores, count):
    """Softmax of the first ``count`` scores in their place; the array is longer: see `_room`."""
    step, size, start = width(scores), size_of(scores), address(scores, 0)
    vectors = -(-count // step)
    for t in range(count, vectors * step):
        scores[t] = -np.inf
    highest = scores[0]
    for t in range(1, count):
        highest = scores[t] if scores[t] > highest else highest
    total = nothing(scores)
    for second in range(0, vectors, _TERMS * _TERMS):
        some = nothing(scores)
        for first in range(second, min(second + _TERMS * _TERMS, vectors), _TERMS):
            part = nothing(scores)
            for i in range(first, min(first + _TERMS, vectors)):
                at = start + i * step * size
                x = load(scores, at)
                x = exp(x - like(x, highest))
                store(at, x)
                part = part + x
            some = some + part
        total = total + some
    sum_of_all = sum_of(total)
    for t in range(count):
        scores[t] = scores[t] / sum_of_all


@inner
def _combine(weights, rows, count, columns, target):
    """The sum of rows, by their addresses, times their weights: four vectors of it at once, then one by one."""
    step, size = width(weights), size_of(weights)
    zero = nothing(weights)
    i = 0
    while i + 4 * step <= columns:
        all_a = all_b = all_c = all_d = zero
        at = i * size
        for first in range(0, count, _TERMS):
            a = b = c = d = zero
            for t in range(first, min(first + _TERMS, count)):
                w, row = like(zero, weights[t]), rows[t] + at
                a = fma(w, load(weights, row), a)
                b = fma(w, load(weights, row + step * size), b)
                c = fma(w, load(weights, row + 2 * step * size), c)
                d = fma(w, load(weights, row + 3 * step * size), d)
            all_a, all_b, all_c, all_d = all_a + a, all_b + b, all_c + c, all_d + d
        store(target + at, all_a)
        store(target + at + step * size, all_b)
        store(target + at + 2 * step * size, all_c)
        store(target + at + 3 * step * size, all_d)
        i += 4 * step
    while i < columns:
        all_a, at, rest = zero, i * size, min(step, columns - i)
        for first in range(0, count, _TERMS):
            a = zero
            for t in range(first, min(first + _TERMS, count)):
                a = fma(like(zero, weights[t]), load_first(weights, rows[t] + at, rest), a)
            all_a = all_a + a
        store_first(target + at, all_a, rest)
        i += step


@inner
def _add(weight, row, target, columns):
    """Add a row times a weight to another."""
    step, size = width(weight), size_of(weight)
    whole = columns // step * step
    w = like(nothing(weight), weight)
    for i in range(0, whole * size, step * size):
        store(target + i, fma(w, load(weight, row + i), load(weight, target + i)))
    if whole < columns:
        i, rest = whole * size, columns - whole
        x = load_first(weight, target + i, rest)
        store_first(target + i, fma(w, load_first(weight, row + i, rest), x), rest)


# Called from @njit code, these compile as they stand: see `numba_pack.packing.sequences`.
for _function in (attend, attend_backward):
    inner(_function)
