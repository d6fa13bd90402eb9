"""sigmoid and tanh on lanes and on scalars, and their slopes; and the further functions that formulas are made of.

All but softsign and the last few rest on one reduction. For any x there is a whole n with ``x = n ln 2 + r``,
``|r| <= ln 2 / 2``, so that ``exp(x) = 2**n (1 + p)`` with ``p = expm1(r) = r + r**2 q(r)``, where q is the minimax
polynomial (Remez exchange, weighted to the relative error of p). The number p keeps its relative accuracy near r = 0,
and tanh, expm1 and erf with it. log goes the other way: it takes x apart into a power of two and a number near 1.

Errors, measured in units in the last place (``bench/alone/activations.py``): over every float32, sigmoid and tanh stay
within 1.8 ulp; over a dense sample of float64 within 2.2 and 2.6. Both are monotone; tanh is odd and exact at 0; the
limits at infinity are exact, and NaN stays NaN. elu, softplus and softsign stay within 4 ulp.

Of the functions after these, exp stays within 1.1 ulp in float32 and 1.6 in float64, expm1 within 1.6 and 3.2, log
within 0.9 in both, erf within 2.0 and 3.2. All but erf in float64 are monotone; erf is odd. The limits are exact, and
NaN stays NaN. A subnormal result of exp is 0 where the processor makes it so; log takes a subnormal x for 0.
sign, nearest (to a whole number) and inverse are exact but for the one rounding of the last.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from .._jit import inner
from ..simd.lanes import (
    Lanes,
    absolute,
    copy_sign,
    fma,
    fused,
    horner,
    like,
    maximum,
    minimum,
    power_of_two,
    quotient,
    reciprocal,
    select_less,
    split,
)

__all__ = [
    "elu", "erf", "exp", "expm1", "inverse", "log", "nearest", "relu", "relu_slope", "sigmoid", "sigmoid_slope", "sign",
    "softplus", "softsign", "tanh", "tanh_slope",
]  # fmt: skip


class _Reduction(NamedTuple):
    """What the reduction of the argument of exp needs in one dtype."""

    #: added to n, it leaves n's exponent field in the low bits (see `power_of_two`)
    anchor: float
    #: ln 2 in two parts, so that n ln 2 is subtracted in two steps and nothing is lost: the first part has so few bits
    #: that its product with n is exact, fused or not
    ln2_high: float
    ln2_low: float
    #: exp(-underflow) rounds to zero
    underflow: float
    #: coefficients of q, the constant one first
    q: tuple[float, ...]


_REDUCTIONS = {
    types.float32: _Reduction(
        1.5 * 2.0**23 + 127,
        0.693145751953125,
        1.4286068203094173e-6,
        110.0,
        (0.5, 0.166665425458, 0.041666280625, 0.00836664393278, 0.00139465548617),
    ),
    types.float64: _Reduction(
        1.5 * 2.0**52 + 1023,
        0.693147180559663,
        2.8235290563031577e-13,
        750.0,
        (
            0.5, 0.16666666666666686161, 0.041666666666572950563, 0.008333333333314464581, 0.0013888888932614945488,
            0.00019841269903346342629, 2.4801504146310399165e-5, 2.7557227641407338704e-6, 2.7626451216617766072e-7,
            2.5114580277879551512e-8,
        ),
    ),
}  # fmt: skip


@intrinsic
def reduction(typingctx, x):
    """The `_Reduction` of the dtype of x, its numbers like x: the single ones, and q."""
    row = _REDUCTIONS[x.dtype if isinstance(x, Lanes) else x]
    return _tuples(x, (row[:4], row.q))


def _tuples(x, groups):
    """What an intrinsic of x gives that is a tuple of tuples of numbers like x."""
    kinds = [types.UniTuple(x, len(group)) for group in groups]

    def codegen(context, builder, sig, args):
        tuples = [
            context.make_tuple(builder, kind, [context.get_constant_generic(builder, x, value) for value in group])
            for kind, group in zip(kinds, groups, strict=True)
        ]
        return context.make_tuple(builder, sig.return_type, tuples)

    return types.Tuple(kinds)(x), codegen


@inner
def exponential(x, factor, shift):
    """(2**(n + shift), p) for ``factor x = n ln 2 + factor r``, where p = expm1(factor r) / factor.

    So exp(factor x) 2**shift is the one times 1 + factor p. The factor is 1, -1 or 2, and in all lanes the same.
    """
    (anchor, ln2_high, ln2_low, _), q = reduction(x)
    anchor = anchor + shift
    anchored = fma(x, factor * like(x, 1.4426950408889634), anchor)  # rounds factor x / ln 2 to n + shift
    n = anchored - anchor
    r = fma(-n, ln2_low / factor, fma(-n, ln2_high / factor, x))
    square = r * r
    return power_of_two(anchored), fma(square, in_pairs(r, square, times_powers(factor, q)), r)


@intrinsic
def times_powers(typingctx, x, coefficients):
    """The coefficients times x, x**2, x**3 ..."""

    def codegen(context, builder, sig, args):
        power, numbers = args[0], []
        for number in cgutils.unpack_tuple(builder, args[1]):
            numbers.append(builder.fmul(number, power))
            power = builder.fmul(power, args[0])
        return context.make_tuple(builder, coefficients, numbers)

    return coefficients(x, coefficients), codegen


@intrinsic
def in_pairs(typingctx, x, square, coefficients):
    """The polynomial in x with these coefficients, the constant one first, made of ``c[2 k + 1] + c[2 k + 2] x``.

    Those do not wait for each other, and so its chain is half of Horner's. The constant comes last, for one rounding.
    """

    def codegen(context, builder, sig, args):
        x_value, square_value, values = args
        constant, *numbers = cgutils.unpack_tuple(builder, values)
        pairs = [fused(builder, x, b, x_value, a) for a, b in zip(numbers[::2], numbers[1::2], strict=False)]
        *rest, value = pairs + numbers[len(pairs) * 2 :]
        for pair in reversed(rest):
            value = fused(builder, x, value, square_value, pair)
        return fused(builder, x, value, x_value, constant)

    return x(x, square, coefficients), codegen


@inner
def sigmoid(x):
    """1 / (1 + exp(-x)), computed as u / (u + u exp(-x)) with u = 2**-64, so that nothing overflows.

    Each operation is monotone and so is their chain. The denominator is scale + u + scale p. Where scale + u is exact,
    it rounds once; where that loses u, u comes back with the product, which is small beside scale.
    """
    underflow = reduction(x)[0][3]
    bounded = minimum(maximum(x, -underflow), like(x, 40.0))  # 1 + exp(-40) rounds to 1
    scale, p = exponential(bounded, like(x, -1.0), like(x, -64.0))
    u = like(x, 2.0**-64)
    total = scale + u
    lost = u - (total - scale)
    return quotient(u, total + fma(-scale, p, lost))


@inner
def sigmoid_slope(s):
    """The derivative of sigmoid where it has the value s: s (1 - s)."""
    return fma(-s, s, s)


@inner
def tanh(x):
    """m / (m + 1) with m = expm1(2 |x|) / 2, and the sign of x.

    The reduction is that of `exponential` for the factor 2. But of ln 2 one part will do, since what n times the other
    would change is less the closer tanh comes to 1.

    Numerator and denominator grow together, so to be monotone the quotient must see what rounding took from m + 1:
    its correction does.
    """
    (anchor, _, _, _), q = reduction(x)
    size = minimum(absolute(x), like(x, 22.0))  # tanh(22) rounds to 1 in both dtypes
    anchored = fma(size, like(x, 2 * 1.4426950408889634), anchor)
    r = fma(anchor - anchored, like(x, 0.5 * 0.6931471805599453), size)
    square, scale = r * r, power_of_two(anchored)
    p = fma(square, in_pairs(r, square, times_powers(like(x, 2.0), q)), r)
    half, one = like(x, 0.5), like(x, 1.0)
    m = fma(scale, p, fma(scale, half, -half))
    d = m + one
    lost = m - (d - one)
    inverse = reciprocal(d)
    q = m * inverse
    return copy_sign(fma(fma(-lost, q, fma(-d, q, m)), inverse, q), x)


@inner
def tanh_slope(y):
    """The derivative of tanh where it has the value y: 1 - y**2."""
    return fma(-y, y, like(y, 1.0))


@inner
def relu(x):
    """max(x, 0); NaN stays NaN."""
    zero = like(x, 0.0)
    return select_less(x, zero, zero, x)


@inner
def relu_slope(y):
    """The derivative of relu where it has the value y: 1 above 0, and 0 elsewhere."""
    zero = like(y, 0.0)
    return select_less(zero, y, like(y, 1.0), zero)


@inner
def elu(x):
    """x where it is at least 0, exp(x) - 1 below; NaN stays NaN."""
    zero = like(x, 0.0)
    bounded = maximum(minimum(x, zero), like(x, -40.0))  # exp(-40) - 1 rounds to -1 in both dtypes
    scale, p = exponential(bounded, like(x, 1.0), zero)
    return select_less(x, zero, fma(scale, p, scale - like(x, 1.0)), x)


@inner
def softsign(x):
    """x / (1 + |x|), and so 1 at infinity."""
    size = minimum(absolute(x), like(x, 1e30))
    return copy_sign(size / (size + like(x, 1.0)), x)


# -- further functions, of which formulas are made ---------------------------------------------------------------------


class _Numbers(NamedTuple):
    """What the functions below need in one dtype."""

    #: the smallest float of normal size
    smallest: float
    #: from here on every float is whole
    whole: float
    #: exp(overflow) is infinite, and yet overflow / ln 2 rounds to the exponent that is one too large
    overflow: float
    #: erf(one) rounds to 1
    one: float
    #: coefficients of P, the constant one first: log(1 + f) = f - f**2 / 2 + f**3 P(f) for 1 + f from sqrt(1/2) to
    #: sqrt(2), minimax in the relative error of the logarithm
    log: tuple[float, ...]
    #: coefficients of G, the constant one first: erf(a) = 1 - exp(-(a + a G(a))) for a from 0 to one, minimax in the
    #: relative error of erf
    erf: tuple[float, ...]


_NUMBERS = {
    types.float32: _Numbers(
        2.0**-126,
        2.0**23,
        89.0,
        3.95,
        (
            0.33333331346, -0.25000819564, 0.20001226664, -0.16623356938, 0.14201767743, -0.13160194457,
            0.127615273, -0.076344028115,
        ),
        (
            0.12837916613, 0.63661938906, 0.10277783126, -0.019153079018, -1.6033039720e-4, 1.6669287579e-3,
            -6.3276785659e-4, 1.1761854694e-4, -9.2534291993e-6,
        ),
    ),
    types.float64: _Numbers(
        2.0**-1022,
        2.0**52,
        710.0,
        5.95,
        (
            0.3333333333333314, -0.2499999999998798, 0.2000000000006649, -0.16666666669825903, 0.1428571428011506,
            -0.12499999691431815, 0.11111111145670102, -0.10000015205360434, 0.09090924003345081, -0.08332913634978871,
            0.07691528310947174, -0.07149436495928736, 0.06684606009604206, -0.06196724198203801, 0.056682914369326334,
            -0.056774450520682945, 0.0650353238924065, -0.059826918553850826, 0.026159370252175677,
        ),
        (
            0.12837916709551256, 0.6366197723675909, 0.10277260330131548, -0.01912844699309355, -2.0919485394524723e-4,
            1.696207670054475e-3, -5.90132431103693e-4, 2.5904502989217976e-5, 6.442046417040552e-5,
            -2.957565307060471e-5, 3.16965023279262e-6, 3.132988239039025e-6, -2.0372139945837953e-6,
            5.706524577722259e-7, -1.1720612759263478e-8, -6.572747958319024e-8, 3.458251674086213e-8,
            -1.077264824498826e-8, 2.3603515235924865e-9, -3.760424468018325e-10, 4.3014176249917224e-11,
            -3.364025058163356e-12, 1.6146953070520968e-13, -3.591756114291295e-15,
        ),
    ),
}  # fmt: skip


@intrinsic
def numbers(typingctx, x):
    """The `_Numbers` of the dtype of x, like x: the single ones, and the coefficients of log and of erf."""
    row = _NUMBERS[x.dtype if isinstance(x, Lanes) else x]
    return _tuples(x, (row[:4], row.log, row.erf))


@inner
def polynomial(x, coefficients):
    """As `horner`, in two chains that the processor takes side by side: a long one would be waited for."""
    square = x * x
    return fma(x, horner(square, coefficients[1::2]), horner(square, coefficients[::2]))


@inner
def exp(x):
    """exp(x).

    Where x is negative, the power of two is too large by 2**64, elsewhere too small, so that it is one of normal size.
    """
    zero = like(x, 0.0)
    beyond = reduction(x)[0][3]
    shift = select_less(x, zero, like(x, 64.0), like(x, -64.0))
    scale, p = exponential(maximum(minimum(x, beyond), -beyond), like(x, 1.0), shift)
    return fma(scale, p, scale) * select_less(x, zero, like(x, 2.0**-64), like(x, 2.0**64))


@inner
def expm1(x):
    """exp(x) - 1, with its relative accuracy where x is small."""
    bounded = maximum(minimum(x, numbers(x)[0][2]), like(x, -40.0))  # exp(-40) - 1 rounds to -1 in both dtypes
    one = like(x, 1.0)
    # where x is large, half of it is computed, which does not overflow before the whole does
    scale, p = exponential(bounded, one, select_less(x, one, like(x, 0.0), -one))
    m = fma(scale, p, scale - select_less(x, one, one, like(x, 0.5)))
    return copy_sign(select_less(x, one, m, m + m), x)


@inner
def log(x):
    """The natural logarithm of x: -infinity at 0, and NaN below."""
    (smallest, _, _, _), coefficients, _ = numbers(x)
    (_, ln2_high, ln2_low, _), _ = reduction(x)
    n, m = split(x)
    f = m - like(x, 1.0)
    square = f * f
    rest = fma(like(x, -0.5), square, fma(f * square, polynomial(f, coefficients), n * ln2_low))
    y = select_less(x, like(x, math.inf), fma(n, ln2_high, f + rest), x)
    return select_less(x, smallest, select_less(x, like(x, 0.0), like(x, math.nan), like(x, -math.inf)), y)


@inner
def softplus(x):
    """log(1 + exp(x)), computed as max(x, 0) + log(1 + u) with u = exp(-|x|), which is at most 1.

    As in `log`, 1 + u is 2**n (1 + f), and here f is known without the rounding of 1 + u: so the logarithm keeps its
    relative accuracy where u is small.
    """
    zero, half = like(x, 0.0), like(x, 0.5)
    scale, p = exponential(maximum(-absolute(x), -reduction(x)[0][3]), like(x, 1.0), like(x, 64.0))
    u = fma(scale, p, scale) * like(x, 2.0**-64)  # the shift by 64 keeps the power of two from underflow
    (_, ln2_high, ln2_low, _), _ = reduction(x)
    large = like(x, math.sqrt(2.0) - 1.0)
    n = select_less(large, u, like(x, 1.0), zero)
    f = select_less(large, u, fma(u, half, -half), u)
    square = f * f
    rest = fma(-half, square, fma(f * square, polynomial(f, numbers(x)[1]), n * ln2_low))
    return fma(n, ln2_high, f + rest) + maximum(x, zero)


@inner
def erf(x):
    """The error function, computed as -expm1(-z) with z = -log(1 - erf(|x|)), and the sign of x.

    z is smooth from 0 on, so that one polynomial does; and no relative error of z is larger in the result.
    """
    (_, _, _, one), _, coefficients = numbers(x)
    size = minimum(absolute(x), one)
    scale, p = exponential(-fma(size, polynomial(size, coefficients), size), like(x, 1.0), like(x, 0.0))
    return copy_sign(fma(-scale, p, like(x, 1.0) - scale), x)


@inner
def sign(x):
    """-1, 0 or 1; NaN stays NaN."""
    zero, one = like(x, 0.0), like(x, 1.0)
    return select_less(x, zero, -one, select_less(zero, x, one, x))


@inner
def nearest(x):
    """The whole number nearest to x, the even one of two, with the sign of x."""
    whole = numbers(x)[0][1]
    size = absolute(x)
    return select_less(size, whole, copy_sign((size + whole) - whole, x), x)


@inner
def inverse(x):
    """1 / x, rounded correctly, for any x."""
    return like(x, 1.0) / x
