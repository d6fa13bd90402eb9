"""What losses are made of: exp of what is at most 0, the logarithm of one and more, and softmax of a row."""

from __future__ import annotations

import math

from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from .._jit import inner
from ..cells.activations import log
from ..simd.lanes import (
    Lanes,
    always_inline,
    fma,
    horner,
    like,
    maximum,
    minimum,
    nothing,
    power_of_two,
    reciprocal,
    select_equal,
    splat,
    store,
    sum_of,
    width,
)
from ..simd.memory import address
from ..simd.short import largest_of
from ..simd.wide import load_wide

__all__ = ["TERMS", "TINY", "exp_of_negative", "exponentials", "log_of_one_and", "log_of_sum"]

#: what `exp_of_negative` is too large by, the other way round; a product with it is exact
TINY = 2.0**-64
#: vectors that are added to one sum, before it is added to that of others: the error of a sum does not grow with it
TERMS = 64
#: ln 2 in two parts: a product of the first with a whole number of 11 bits is exact
_LN2_HIGH, _LN2_LOW = 0.693147180559663, 2.8235290563031577e-13
#: exp(_LEAST) rounds to zero
_LEAST = -750.0
#: of n it leaves the exponent of 2**n / TINY in the low bits: see `power_of_two`
_ANCHOR = 1.5 * 2.0**52 + 1023 + 64
#: coefficients of q, the constant one first: exp(r) = 1 + r + r**2 q(r) for r within ln(2) / 2, minimax
_EXPONENTIAL = (
    0.5, 0.16666666666666686161, 0.041666666666572950563, 0.008333333333314464581, 0.0013888888932614945488,
    0.00019841269903346342629, 2.4801504146310399165e-5, 2.7557227641407338704e-6, 2.7626451216617766072e-7,
    2.5114580277879551512e-8,
)  # fmt: skip
#: coefficients of R, the constant one first: 2 artanh(s) = 2 s + s**3 R(s**2) for s from 0 to 1/3, minimax
_AREA_TANGENT = (
    0.6666666666666666, 0.40000000000014707, 0.2857142856707539, 0.22222222720802068, 0.1818178926649345,
    0.15385574825356904, 0.13314066167266195, 0.1200181495169859, 0.08796948483380634, 0.1617208069199792,
)  # fmt: skip


@intrinsic
def _each_like(typingctx, x, values):
    """A tuple of float64, each like x: in every lane if x is lanes."""
    kind = types.UniTuple(x, len(values))

    def codegen(context, builder, sig, args):
        numbers = cgutils.unpack_tuple(builder, args[1])
        return context.make_tuple(
            builder, kind, [splat(builder, n, x.count) if isinstance(x, Lanes) else n for n in numbers]
        )

    return kind(x, values), codegen


@inner
def _polynomial(x, coefficients):
    """The polynomial in x, in two chains that the processor takes side by side: a long one would be waited for."""
    square, numbers = x * x, _each_like(x, coefficients)
    return fma(x, horner(square, numbers[1::2]), horner(square, numbers[::2]))


@inner
def exp_of_negative(x):
    """exp(x) / TINY for x of at most 0, or little more: so it is of normal size wherever exp(x) is a float at all.

    There is a whole n with ``x = n ln 2 + r``, ``|r| <= ln 2 / 2``, so that it is 2**n times exp(r).
    """
    x, anchor = maximum(x, like(x, _LEAST)), like(x, _ANCHOR)
    anchored = fma(x, like(x, 1 / math.log(2)), anchor)  # rounds x / ln 2 to n
    n = anchored - anchor
    r = fma(-n, like(x, _LN2_LOW), fma(-n, like(x, _LN2_HIGH), x))
    scale = power_of_two(anchored)
    return fma(scale, fma(r * r, _polynomial(r, _EXPONENTIAL), r), scale)


@inner
def log_of_one_and(u):
    """log(1 + u) for u from 0 to 1: twice the area tangent of s = u / (2 + u), which is at most 1/3."""
    s = u * reciprocal(like(u, 2.0) + u)
    square = s * s
    return fma(s * square, _polynomial(square, _AREA_TANGENT), s + s)


@inner
def log_of_sum(a, b, c):
    """log(exp(a) + exp(b) + exp(c)), of logarithms that may be -infinity; NaN where a is."""
    larger, least = maximum(a, b), minimum(a, b)
    most, between = maximum(larger, c), minimum(larger, c)
    top = select_equal(most, like(a, -math.inf), like(a, 0.0), most)
    others = exp_of_negative(least - top) + exp_of_negative(between - top)
    return most + log(fma(others, like(a, TINY), like(a, 1.0)))


@inner
def exponentials(x, start, count, out):
    """Of `count` numbers of x the largest, and the sum of exp(number - largest); those, over TINY, go to `out`.

    That is float64, with room for a vector more. NaN and a largest that is infinite make the sum NaN.
    """
    always_inline()
    lanes, highest = width(out.dtype), like(nothing(out), -math.inf)
    for i in range(0, count, lanes):
        highest = maximum(highest, load_wide(x, address(x, start + i), count - i, -math.inf))
    most = largest_of(highest)
    top, total = like(highest, most), nothing(out)
    for first in range(0, count, TERMS * lanes):
        part = nothing(out)
        for i in range(first, min(first + TERMS * lanes, count), lanes):
            e = exp_of_negative(load_wide(x, address(x, start + i), count - i, -math.inf) - top)
            store(address(out, i), e)
            part = part + e
        total = total + part
    return most, sum_of(total) * TINY
