"""sigmoid and tanh on lanes and on scalars, and their slopes; and the further functions of ONNX's list.

All but softsign rest on one reduction. For any x there is a whole n with ``x = n ln 2 + r``, ``|r| <= ln 2 / 2``, so
that ``exp(x) = 2**n (1 + p)`` with ``p = expm1(r) = r + r**2 q(r)``, where q is the minimax polynomial (Remez exchange,
weighted to the relative error of p). The number p keeps its relative accuracy near r = 0, and tanh with it.

Errors, measured in units in the last place (see ``bench/activations.py``): over every float32, sigmoid and tanh stay
within 1.8 ulp; over a dense sample of float64 within 2.2 and 2.6. Both are monotone; tanh is odd and exact at 0; the
limits at infinity are exact, and NaN stays NaN. elu, softplus and softsign, which only composed cells use, stay within
4 ulp.
"""

from __future__ import annotations

from typing import NamedTuple

from numba import types
from numba.extending import intrinsic

from .._jit import inner
from ..simd.lanes import (
    Lanes,
    absolute,
    copy_sign,
    fma,
    horner,
    like,
    maximum,
    minimum,
    power_of_two,
    reciprocal,
    select_less,
)

__all__ = ["elu", "relu", "relu_slope", "sigmoid", "sigmoid_slope", "softplus", "softsign", "tanh", "tanh_slope"]


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
    """The `_Reduction` of the dtype of x, its numbers like x."""
    row = _REDUCTIONS[x.dtype if isinstance(x, Lanes) else x]
    plain, q = types.UniTuple(x, 4), types.UniTuple(x, len(row.q))

    def codegen(context, builder, sig, args):
        def like_x(value):
            return context.get_constant_generic(builder, x, value)

        first = context.make_tuple(builder, plain, [like_x(value) for value in row[:4]])
        return context.make_tuple(
            builder, sig.return_type, [first, context.make_tuple(builder, q, [like_x(value) for value in row.q])]
        )

    return types.Tuple((plain, q))(x), codegen


@inner
def exponential(x, shift):
    """(2**(n + shift), p) with x = n ln 2 + r and p = expm1(r), so that exp(x) 2**shift is the one times 1 + p."""
    (anchor, ln2_high, ln2_low, _), q = reduction(x)
    anchor = anchor + shift
    anchored = fma(x, like(x, 1.4426950408889634), anchor)  # rounds x / ln 2 to n + shift
    n = anchored - anchor
    r = fma(-n, ln2_low, fma(-n, ln2_high, x))
    return power_of_two(anchored), fma(r * r, horner(r, q), r)


@inner
def sigmoid(x):
    """1 / (1 + exp(-x)), computed as u / (u + u exp(-x)) with u = 2**-64, so that nothing overflows.

    Each operation is monotone and so is their chain.
    """
    underflow = reduction(x)[0][3]
    bounded = maximum(minimum(-x, underflow), like(x, -40.0))  # 1 + exp(-40) rounds to 1
    scale, p = exponential(bounded, like(x, -64.0))
    u = like(x, 2.0**-64)
    near = fma(scale, p, scale + u)  # rounds once, as long as scale + u is exact
    far = scale + fma(scale, p, u)  # rounds twice, the first time by little: u still counts when it is far below scale
    return u * reciprocal(select_less(like(x, 2.0**-44), scale, far, near))


@inner
def sigmoid_slope(s):
    """The derivative of sigmoid where it has the value s: s (1 - s)."""
    return fma(-s, s, s)


@inner
def tanh(x):
    """m / (m + 2) with m = expm1(2 |x|), and the sign of x.

    Numerator and denominator grow together, so to be monotone the quotient must see what rounding took from m + 2:
    its correction does.
    """
    scale, p = exponential(minimum(absolute(x + x), like(x, 44.0)), like(x, 0.0))  # tanh(22) rounds to 1 in both dtypes
    two = like(x, 2.0)
    m = fma(scale, p, scale - like(x, 1.0))
    d = m + two
    lost = m - (d - two)
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
    scale, p = exponential(maximum(minimum(x, zero), like(x, -40.0)), zero)  # exp(-40) - 1 rounds to -1 in both dtypes
    return select_less(x, zero, fma(scale, p, scale - like(x, 1.0)), x)


#: 1 / (2 k + 1): atanh(s) = s (1 + s**2 / 3 + s**4 / 5 + ...), which for s <= 1 / 3 has converged in both dtypes
_ATANH = tuple(1 / (2 * k + 1) for k in range(17))


@inner
def softplus(x):
    """log(1 + exp(x)), computed as max(x, 0) + log(1 + u) with u = exp(-|x|), which is at most 1.

    log(1 + u) is 2 atanh(u / (2 + u)), and keeps its relative accuracy where u is small.
    """
    scale, p = exponential(maximum(-absolute(x), -reduction(x)[0][3]), like(x, 64.0))
    u = fma(scale, p, scale) * like(x, 2.0**-64)  # the shift by 64 keeps the power of two from underflow
    s = u / (u + like(x, 2.0))
    series = like(x, 0.0)
    for k in range(len(_ATANH)):
        series = fma(series, s * s, like(x, _ATANH[len(_ATANH) - 1 - k]))
    return fma(s + s, series, maximum(x, like(x, 0.0)))


@inner
def softsign(x):
    """x / (1 + |x|), and so 1 at infinity."""
    size = minimum(absolute(x), like(x, 1e30))
    return copy_sign(size / (size + like(x, 1.0)), x)
