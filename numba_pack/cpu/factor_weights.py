"""Weights as words: the rows of a matrix, which are then transposed into panels, and the row of a panel by itself."""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from .._jit import inner, overload
from ..simd.lanes import (
    I32,
    I64,
    fma,
    like,
    load,
    size_of,
    splat,
    width,
)
from ..simd.memory import address, clear, copy
from ..simd.short import even_half, odd_half
from .factor_rows import as_factors, magnitude_of, put_integers_of_row
from .factors import HEAD, TILE, parts_of, place_of_word, row_words, words_of
from .matrices import Matrix

__all__ = ["as_words", "plus_row", "put_heads"]


def as_words(factors, source, first, rows, k):
    """The matrix (rows, k) at ``source[first:]`` in words: what has them, where in it they begin, and the step of rows.

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
        scale = _shortened(magnitude_of(factors, row, k)[0] / np.float32(127))
        inverse = np.float32(1) / scale if scale > 0 else np.float32(0)
        put_integers_of_row(factors, row, k, inverse, 0, address(made, r * step))
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


def put_heads(factors, words, row, step, k, left, target, at, j, vectors):
    """What vector j of a panel of int8 begins with, of the rows of `as_words` from ``row`` on; returns what follows."""
    raise NotImplementedError


@overload(put_heads)
def _put_heads(factors, words, row, step, k, left, target, at, j, vectors):
    if factors.kind != "int8":
        return lambda factors, words, row, step, k, left, target, at, j, vectors: at
    return _put_heads_of_bytes


def _put_heads_of_bytes(factors, words, row, step, k, left, target, at, j, vectors):
    lanes = width(factors)
    for unit in range(lanes):
        for head in range(HEAD):
            here = at + (head * vectors + j) * lanes + unit
            clear(address(target, here), size_of(target))
            if unit < left:
                copy(address(target, here), address(words, row + (unit + 1) * step - HEAD + head), size_of(target))
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
