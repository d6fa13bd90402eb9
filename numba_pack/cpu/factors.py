"""What the factors of products are, and rows of factors made of rows of floats.

The factors of a layer's products are those of its cell's variant: floats of the layer's dtype, or float32 in a shorter
form (`FACTORS`). Of the shorter ones, rows and panels are made of words of 32 bits: of two bfloat16, or of four
integers of 8 bits. So a word takes the place that a float32 has otherwise, and a sum of k products is one over k / 2 or
k / 4 words. Sums, and what is computed of them, are float32 in any case.

- *bfloat16x2, bfloat16x3*: a number is the sum of so many parts in bfloat16, each of what the parts before have left. A
  row is part after part.
- *int8*: a row of numbers is a scale times whole numbers from -127 to 127. Of the panels, each column has its scale. Of
  rows that are multiplied by them each has one, in the word before its first; their numbers have 128 added, since the
  instructions take them without a sign.
- Where the matrix unit multiplies, rows are whole tiles of 16 words, with zeros at the end.

Rows are made in *room* of the library's own. So tiles may read whole tiles of 16 rows, whatever is in them.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba import types
from numba.core.imputils import lower_constant
from numba.extending import NativeValue, intrinsic, models, register_model, typeof_impl, unbox

from .._jit import inner, overload
from ..simd.lanes import (
    I32,
    I64,
    absolute,
    always_inline,
    fma,
    like,
    load,
    load_first,
    maximum,
    nothing,
    size_of,
    splat,
    store,
    store_first,
    sum_of,
    transpose_block,
    width,
)
from ..simd.machine import DOTS
from ..simd.memory import address, clear
from ..simd.short import bytes_of, even_half, largest_of, odd_half, pairs_across, pairs_along, rest_of
from .matrices import Matrix

__all__ = [
    "Factors",
    "FactorsType",
    "as_factors",
    "as_words",
    "columns_as_factors",
    "columns_of",
    "columns_size",
    "deep",
    "factors_of",
    "is_float",
    "is_int8",
    "on_tiles",
    "parts_of",
    "place_of_word",
    "plus_row",
    "put_across",
    "put_heads",
    "put_panel",
    "room_size",
    "row_words",
    "words_of",
]

#: numbers in a word
IN_A_WORD = {"float": 1, "int8": 4}
PARTS = {"bfloat16x2": 2, "bfloat16x3": 3}
#: words in a row of the matrix unit's tiles, and rows of a tile
TILE = 16
#: rows that panels of int8 begin with: scales, and what sums begin with
HEAD = 2
#: added to a float of at most 2**22, it leaves the nearest whole number in the low bits
ANCHOR = 1.5 * 2.0**23


class Factors(NamedTuple):
    """What the factors are, as Python passes it to compiled code."""

    kind: str
    #: of the layer
    dtype: str


class FactorsType(types.Type):
    """The same as a type, of a value that is nothing."""

    def __init__(self, kind: str, dtype: Any) -> None:
        self.kind, self.dtype = kind, dtype
        self.parts = PARTS.get(kind, 1)
        #: whether the matrix unit multiplies them
        self.on_tiles = kind != "float" and (self.parts > 1 or getattr(DOTS, kind) == "amx")
        super().__init__(f"factors({kind}, {dtype})")

    @classmethod
    def of(cls, factors: Factors) -> FactorsType:
        """The type of what Python passes."""
        return cls(factors.kind, getattr(types, factors.dtype))


register_model(FactorsType)(models.OpaqueModel)


@typeof_impl.register(Factors)
def _typeof(value, context):
    return FactorsType.of(value)


@unbox(FactorsType)
def _unbox(typ, obj, c):
    return NativeValue(c.context.get_dummy_value())


@lower_constant(FactorsType)
def _constant(context, builder, kind, value):
    return context.get_dummy_value()


@intrinsic
def factors_of(typingctx, weights):
    """The factors of the products of these weights."""
    kind = FactorsType(weights.instance_class.cell.factors, weights[0].dtype)
    return kind(weights), lambda context, builder, sig, args: context.get_dummy_value()


# -- facts of the factors, constants in compiled code ------------------------------------------------------------------


def _fact(fact):
    @intrinsic
    def constant(typingctx, factors):
        value = int(fact(factors))
        return types.IntegerLiteral(value)(factors), lambda context, builder, sig, args: context.get_constant(
            types.intp, value
        )

    return constant


is_float = _fact(lambda factors: factors.kind == "float")
is_int8 = _fact(lambda factors: factors.kind == "int8")
on_tiles = _fact(lambda factors: factors.on_tiles)
parts_of = _fact(lambda factors: factors.parts)
_in_a_word = _fact(lambda factors: IN_A_WORD.get(factors.kind, 2))
_head = _fact(lambda factors: HEAD if factors.kind == "int8" else 0)


@inner
def words_of(factors, k):
    """Words of one part of a row of k numbers."""
    words = (k + _in_a_word(factors) - 1) // _in_a_word(factors)
    return (words + TILE - 1) // TILE * TILE if on_tiles(factors) else words


@inner
def deep(factors, k):
    """Rows of words that a panel of k rows of numbers has."""
    return parts_of(factors) * words_of(factors, k) + _head(factors)


@inner
def place_of_word(factors, kk, part):
    """The row of a panel that has word kk of a part: tile by tile of k, each part after part."""
    if parts_of(factors) == 1:
        return kk
    return (kk // TILE * parts_of(factors) + part) * TILE + kk % TILE


@inner
def row_words(factors, k):
    """Words from row to row of factors: a multiple of a tile's, with a tile for the scale."""
    return (parts_of(factors) * words_of(factors, k) + TILE - 1) // TILE * TILE + TILE * is_int8(factors)


@inner
def room_size(factors, rows, k):
    """Elements of room for so many rows of k numbers, in whole tiles of rows."""
    return row_words(factors, k) * ((rows + TILE - 1) // TILE * TILE)


# -- weights -----------------------------------------------------------------------------------------------------------


def as_words(factors, source, first, rows, k):
    """The matrix (rows, k) at ``source[first:]`` in words: an array, where in it they begin, and the step of rows.

    Of floats it is the source itself. Of int8 the scale of a row stands after its words, and then the sum of its whole
    numbers.
    """
    raise NotImplementedError


@overload(as_words)
def _as_words(factors, source, first, rows, k):
    if factors.kind == "float":
        return lambda factors, source, first, rows, k: (source, first, k)
    return _words_of_bytes if factors.kind == "int8" else _words_of_pairs


def _words_of_pairs(factors, source, first, rows, k):
    step = row_words(factors, k)
    made = np.zeros(rows * step, source.dtype)
    as_factors(factors, Matrix(address(source, first), k), rows, k, address(made, 0))
    return made, 0, step


def _words_of_bytes(factors, source, first, rows, k):
    words, step = words_of(factors, k), row_words(factors, k) + TILE
    made = np.zeros(rows * step, source.dtype)
    whole, sums = made.view(np.int8), made.view(np.int32)
    for r in range(rows):
        row = address(source, first + r * k)
        scale = _shortened(_magnitude(factors, row, k)[0] / np.float32(127))
        inverse = np.float32(1) / scale if scale > 0 else np.float32(0)
        _put_integers(factors, row, k, inverse, 0, address(made, r * step))
        total = 0
        for i in range(4 * r * step, 4 * (r * step + words)):
            total += whole[i]
        made[(r + 1) * step - 2], sums[(r + 1) * step - 1] = scale, -128 * total
    return made, 0, step


@inner
def _shortened(scale):
    """The scale rounded up to 16 bits, so that its products with whole numbers of 7 bits are exact.

    So what has been made of int8 gives the same int8 again, and the same scale.
    """
    number = np.empty(1, np.float32)
    number[0] = scale
    bits = number.view(np.int32)
    bits[0] = (bits[0] + 255) & ~255
    return number[0]


@inner
def put_heads(factors, words, row, step, k, left, target, at, j, vectors):
    """What vector j of a panel of int8 begins with, of the rows of `as_words` from ``row`` on; returns what follows."""
    lanes = width(factors)
    for unit in range(lanes):
        for head in range(HEAD):
            here = at + (head * vectors + j) * lanes + unit
            target[here] = 0
            if unit < left:
                target[here] = words[row + (unit + 1) * step - HEAD + head]
    return at + HEAD * vectors * lanes


@intrinsic
def _number_of_words(typingctx, words, place):
    """Of words of four integers each the one of that place, as a float."""

    def codegen(context, builder, sig, args):
        of_words = builder.bitcast(args[0], ir.VectorType(I32, words.count))
        by = builder.mul(builder.trunc(args[1], I32), ir.Constant(I32, 8))
        up = splat(builder, builder.sub(ir.Constant(I32, 24), by), words.count)
        down = splat(builder, ir.Constant(I32, 24), words.count)
        return builder.sitofp(builder.ashr(builder.shl(of_words, up), down), words.vector)

    return words(words, types.intp), codegen


@intrinsic
def _half_of_words(typingctx, words, place):
    """Of words of two numbers in bfloat16 each the one of that place, as a float."""

    def codegen(context, builder, sig, args):
        of_words = builder.bitcast(args[0], ir.VectorType(I32, words.count))
        first = builder.icmp_signed("==", args[1], ir.Constant(I64, 0))
        return builder.select(first, even_half(builder, of_words), odd_half(builder, of_words))

    return words(words, types.intp), codegen


def plus_row(factors, total, panel, k, vectors, j):
    """total + row k of a panel of so many vectors, of which vector j: the product with a row that is one-hot."""
    raise NotImplementedError


@overload(plus_row)
def _plus_row(factors, total, panel, k, vectors, j):
    if factors.kind == "float":
        return lambda factors, total, panel, k, vectors, j: total + _vector(factors, panel, k, vectors, j)
    return _plus_row_of_bytes if factors.kind == "int8" else _plus_row_of_pairs


@inner
def _vector(factors, panel, row, vectors, j):
    return load(factors, panel + (row * vectors + j) * width(factors) * size_of(factors))


def _plus_row_of_pairs(factors, total, panel, k, vectors, j):
    for part in range(parts_of(factors) - 1, -1, -1):
        words = _vector(factors, panel, place_of_word(factors, k // 2, part), vectors, j)
        total = total + _half_of_words(words, k % 2)
    return total


def _plus_row_of_bytes(factors, total, panel, k, vectors, j):
    number = _number_of_words(_vector(factors, panel, HEAD + k // 4, vectors, j), k % 4)
    scale = _vector(factors, panel, 0, vectors, j) * like(total, np.float32(1.0 / 127.0))
    return fma(number * like(total, 127.0), scale, total)


# -- rows --------------------------------------------------------------------------------------------------------------


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
            put_along(factors, a.at + r * a.step * 4, k, part, room + (r * step + part * words) * 4)
    return Matrix(room, step)


def _rows_of_bytes(factors, a, rows, k, room):
    step = row_words(factors, k)
    for r in range(rows):
        row, to = a.at + r * a.step * 4, room + (r * step + TILE) * 4
        top, spoilt = _magnitude(factors, row, k)
        inverse = 127.0 / top if top > 0.0 else 0.0
        store_first(to - 4, like(nothing(factors), top * (1.0 / 127.0) + spoilt), 1)
        _put_integers(factors, row, k, np.float32(inverse), 128, to)
    return Matrix(room + TILE * 4, step)


@inner
def put_along(factors, row, k, part, to):
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
def _magnitude(factors, row, k):
    """The largest magnitude of a row (k,), and 0; NaN in place of that where one is not finite."""
    top, spoilt = nothing(factors), nothing(factors)
    for u in range(0, k, width(factors)):
        x = load_first(factors, row + u * 4, k - u)
        top = maximum(absolute(x), top)
        spoilt = fma(x, like(x, 0.0), spoilt)
    return largest_of(top), sum_of(spoilt)


@inner
def _put_integers(factors, row, k, inverse, offset, to):
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


# -- columns, for the gradients of weights -----------------------------------------------------------------------------
#
# There the sum goes over rows of the batch: a row of factors is a column, and words are of pairs of rows.


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
