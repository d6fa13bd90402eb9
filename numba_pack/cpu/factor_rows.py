"""Rows of factors, made of rows of floats; and columns, for the gradients of weights.

Of a product ``a @ panels`` the rows of a are made once for all panels, in room of the library's own. In the gradients
of weights the sum goes over rows of the batch: there a row of factors is a column, and words are of pairs of rows.
"""

from __future__ import annotations

import numpy as np

from .._jit import inner, overload
from ..simd.lanes import (
    absolute,
    always_inline,
    fma,
    like,
    load_first,
    maximum,
    nothing,
    size_of,
    store,
    store_first,
    sum_of,
    transpose_block,
    width,
)
from ..simd.memory import clear
from ..simd.short import bytes_of, largest_of, pairs_across, pairs_along, rest_of
from .factors import TILE, deep, is_float, parts_of, place_of_word, row_words, words_of
from .matrices import Matrix

__all__ = [
    "as_factors",
    "columns_as_factors",
    "columns_of",
    "columns_size",
    "magnitude_of",
    "put_across",
    "put_integers_of_row",
    "put_panel",
]

#: added to a float of at most 2**22, it leaves the nearest whole number in the low bits
ANCHOR = 1.5 * 2.0**23


def as_factors(factors, a, rows, k, room):
    """The `Matrix` of factors of the rows (rows, k), made at the address ``room``; of floats it is a itself."""
    raise NotImplementedError


@overload(as_factors)
def _as_factors(factors, a, rows, k, room):
    if factors.kind == "float":
        return lambda factors, a, rows, k, room: a
    return _rows_of_bytes if factors.kind == "int8" else _rows_of_pairs


def _rows_of_pairs(factors, a, rows, k, room):
    step, words = row_words(factors, k), words_of(factors, k)
    for r in range(rows):
        for part in range(parts_of(factors)):
            _put_along(factors, a.at + r * a.step * 4, k, part, room + (r * step + part * words) * 4)
    return Matrix(room, step)


def _rows_of_bytes(factors, a, rows, k, room):
    step = row_words(factors, k)
    for r in range(rows):
        row, to = a.at + r * a.step * 4, room + (r * step + TILE) * 4
        top, spoilt = magnitude_of(factors, row, k)
        inverse = 127.0 / top if top > 0.0 else 0.0
        store_first(to - 4, like(nothing(factors), top * (1.0 / 127.0) + spoilt), 1)
        put_integers_of_row(factors, row, k, np.float32(inverse), 128, to)
    return Matrix(room + TILE * 4, step)


@inner
def _put_along(factors, row, k, part, to):
    """A part of a row (k,) in words."""
    always_inline()
    lanes = width(factors)
    for u in range(0, k, 2 * lanes):
        first = load_first(factors, row + u * 4, k - u)
        second = load_first(factors, row + (u + lanes) * 4, k - u - lanes)
        for _ in range(part):
            first, second = rest_of(first), rest_of(second)
        store(to + u * 2, pairs_along(first, second))


@inner
def put_across(factors, first, second, count, part, to):
    """A part of two rows (count,) in words, each of one number of both; at addresses, of which ``second`` may be 0."""
    always_inline()
    for u in range(0, count, width(factors)):
        x, y = load_first(factors, first + u * 4, count - u), nothing(factors)
        if second != 0:
            y = load_first(factors, second + u * 4, count - u)
        for _ in range(part):
            x, y = rest_of(x), rest_of(y)
        store_first(to + u * 4, pairs_across(x, y), count - u)


@inner
def magnitude_of(factors, row, k):
    """The largest magnitude of a row (k,), and 0; NaN in place of that where one is not finite."""
    top, spoilt = nothing(factors), nothing(factors)
    for u in range(0, k, width(factors)):
        x = load_first(factors, row + u * 4, k - u)
        top = maximum(absolute(x), top)
        spoilt = fma(x, like(x, 0.0), spoilt)
    return largest_of(top), sum_of(spoilt)


@inner
def put_integers_of_row(factors, row, k, inverse, offset, to):
    """A row (k,) in words of whole numbers, which are its own times ``inverse``."""
    always_inline()
    lanes = width(factors)
    by, anchor = like(nothing(factors), inverse), like(nothing(factors), ANCHOR)
    for u in range(0, k, 4 * lanes):
        a = fma(load_first(factors, row + u * 4, k - u), by, anchor)
        b = fma(load_first(factors, row + (u + lanes) * 4, k - u - lanes), by, anchor)
        c = fma(load_first(factors, row + (u + 2 * lanes) * 4, k - u - 2 * lanes), by, anchor)
        d = fma(load_first(factors, row + (u + 3 * lanes) * 4, k - u - 3 * lanes), by, anchor)
        store(to + u, bytes_of(a, b, c, d, offset))


# -- columns -----------------------------------------------------------------------------------------------------------


@inner
def columns_size(factors, rows, count):
    """Elements of room for the factors of the columns of a (rows, count)."""
    return 0 if is_float(factors) else (count + TILE) * row_words(factors, rows)


def columns_as_factors(factors, a, rows, count, room):
    """Make the factors of the columns of a (rows, count) at the address ``room``; of floats nothing is made."""
    raise NotImplementedError


def columns_of(factors, a, rows, room):
    """The `Matrix` of those, and the step of it along the sum: of floats the columns themselves."""
    raise NotImplementedError


def put_panel(factors, rows_at, first, rows, offset, left, vectors, to):
    """A panel of factors of ``rows`` rows from row ``first`` on, of which `rows_at` has the addresses.

    It is of the columns from ``offset`` bytes on, of which there are ``left``, and of so many vectors.
    """
    raise NotImplementedError


@overload(columns_as_factors)
def _columns_as_factors(factors, a, rows, count, room):
    if factors.kind == "float":
        return lambda factors, a, rows, count, room: None
    return _columns_of_pairs


@overload(columns_of)
def _columns_of(factors, a, rows, room):
    if factors.kind == "float":
        return lambda factors, a, rows, room: (Matrix(a.at, 1), a.step)
    return lambda factors, a, rows, room: (Matrix(room, row_words(factors, rows)), 1)


@overload(put_panel)
def _put_panel(factors, rows_at, first, rows, offset, left, vectors, to):
    return _panel_of_floats if factors.kind == "float" else _panel_of_pairs


def _columns_of_pairs(factors, a, rows, count, room):
    lanes = width(factors)
    step, words = row_words(factors, rows), words_of(factors, rows)
    beside = room + count * step * 4  # a block of words before it is transposed
    for part in range(parts_of(factors)):
        for word in range(0, words, lanes):
            for u in range(0, count, lanes):
                units = min(lanes, count - u)
                for i in range(lanes):
                    n = 2 * (word + i)
                    x, y = nothing(factors), nothing(factors)
                    if n < rows:
                        x = load_first(factors, a.at + (n * a.step + u) * 4, units)
                    if n + 1 < rows:
                        y = load_first(factors, a.at + ((n + 1) * a.step + u) * 4, units)
                    for _ in range(part):
                        x, y = rest_of(x), rest_of(y)
                    store(beside + i * lanes * 4, pairs_across(x, y))
                to = room + (u * step + part * words + word) * 4
                transpose_block(factors, beside, lanes * 4, lanes, units, to, step * 4)


def _panel_of_floats(factors, rows_at, first, rows, offset, left, vectors, to):
    lanes, size = width(factors), size_of(factors)
    for n in range(rows):
        for j in range(vectors):
            value = load_first(factors, rows_at[first + n] + offset + j * lanes * size, left - j * lanes)
            store(to + (n * vectors + j) * lanes * size, value)


def _panel_of_pairs(factors, rows_at, first, rows, offset, left, vectors, to):
    row = vectors * width(factors)
    clear(to, deep(factors, rows) * row * 4)
    for n in range(0, rows, 2):
        lower = rows_at[first + n + 1] + offset if n + 1 < rows else 0
        for part in range(parts_of(factors)):
            place = to + place_of_word(factors, n // 2, part) * row * 4
            put_across(factors, rows_at[first + n] + offset, lower, min(left, row), part, place)
