"""Cheaper sigmoid, tanh and exp, for cells whose factors are of 8 bits.

Such a step rounds h to bfloat16, which is off by up to 2e-3 of h, or to an integer; and beside its fast product, the
exact functions would take a third of the time. These cost a third of those (half, without AVX-512), and are off by
some 1e-5. They are for vectors of float32: for all other numbers, and so in CUDA, they are the exact ones of
``activations.py``.

With AVX-512, sigmoid and tanh are cubic polynomials in pieces, whose coefficients are looked up in registers. Elsewhere
they are quotients of polynomials. The errors, of every float32 (``bench/alone/activations.py``):

========  ========  ================  =========
function  error     at most, AVX-512  elsewhere
========  ========  ================  =========
tanh      absolute  7.0e-6            1.22e-5
tanh      relative  3.9e-5            1.22e-5
sigmoid   absolute  3.6e-6            6.2e-6
exp       relative  5.0e-6            5.0e-6
========  ========  ================  =========

tanh is odd, 0 at 0, and from -1 to 1; sigmoid is 1/2 at 0, and from 0 to 1; exp is 1 at 0. The limits at infinity are
exact, and NaN stays NaN. They are monotone but for the last roundings: a larger x may have a value that is smaller by
up to 5e-7 (of the value, for exp). What is small is lost where it does no harm: sigmoid is 0 below -15.25 (elsewhere
-12.2), and exp where it is less than 1.7e-38. The bits are the same on all machines with AVX-512, and on all others
that have fused multiply-adds.
"""

from __future__ import annotations

from numba import types
from numba.extending import intrinsic

from .._jit import inner, overload
from ..simd.lanes import (
    Lanes,
    absolute,
    copy_sign,
    fma,
    horner,
    like,
    look_up,
    maximum,
    minimum,
    power_of_two,
)
from ..simd.machine import MACHINE
from . import activations
from .activations import polynomial

__all__ = ["exp", "sigmoid", "tanh"]

# -- in pieces ---------------------------------------------------------------------------------------------------------

#: Of each piece the coefficients of a polynomial in abs(x), the constant one first. Piece i is for what is nearest to
#: i / 4. It is tanh at both ends, so that pieces meet, and its error is the least that leaves: the absolute one; the
#: relative one in the first piece. The last is where tanh is 1.
_TANH = (
    (0.0, 1.0000026, -2.9028565e-4, -0.3291075),
    (-3.3201487e-4, 1.0060067, -0.036316406, -0.25516742),
    (-0.009365749, 1.0757374, -0.2181395, -0.094861716),
    (-0.041391093, 1.2301321, -0.46762076, 0.04023345),
    (-0.08018445, 1.366033, -0.6267145, 0.102459006),
    (-0.084878035, 1.381133, -0.6424755, 0.10783431),
    (-0.031110024, 1.265073, -0.5588895, 0.08774854),
    (0.075068265, 1.0692295, -0.43838325, 0.06301208),
    (0.21116312, 0.85112375, -0.3217999, 0.04222717),
    (0.35421476, 0.6486653, -0.2262426, 0.02718622),
    (0.48817578, 0.4789835, -0.15457286, 0.017091874),
    (0.60462266, 0.34552917, -0.10357514, 0.010593857),
    (0.7008002, 0.2448965, -0.06846806, 0.006510285),
    (0.7773619, 0.17120528, -0.04482014, 0.0039801574),
    (0.8366432, 0.11837991, -0.029126368, 0.0024257274),
    (0.88156325, 0.08111707, -0.018821068, 0.0014755742),
    (0.9150141, 0.05516173, -0.012106989, 8.965646e-4),
    (0.939568, 0.03726643, -0.007758982, 5.4437725e-4),
    (0.9573728, 0.025032753, -0.004956757, 3.3039623e-4),
    (0.9701485, 0.016729863, -0.0031579076, 2.0047447e-4),
    (0.97923154, 0.011130069, -0.0020070213, 1.21622994e-4),
    (0.9856367, 0.0073741274, -0.0012728102, 7.3777985e-5),
    (0.99012035, 0.0048674154, -8.056278e-4, 4.4752545e-5),
    (0.99323833, 0.0032018018, -5.0902186e-4, 2.714524e-5),
    (0.9953937, 0.0020995094, -3.210957e-4, 1.6464954e-5),
    (0.9968754, 0.0013726912, -2.0224808e-4, 9.986695e-6),
    (0.9978889, 8.950597e-4, -1.2721404e-4, 6.0573084e-6),
    (0.99857897, 5.8215356e-4, -7.9915226e-5, 3.6739698e-6),
    (0.99904674, 3.7774892e-4, -5.0142542e-5, 2.2283855e-6),
    (0.99936265, 2.4457675e-4, -3.1426745e-5, 1.3515871e-6),
    (0.99957514, 1.5802788e-4, -1.967615e-5, 8.1978044e-7),
    (1.0, 0.0, 0.0, 0.0),
)  # fmt: skip
#: of tanh(x / 2) / 2, whose piece i is for what is nearest to i / 2
_SIGMOID = tuple(tuple(coefficient / 2 ** (k + 1) for k, coefficient in enumerate(piece)) for piece in _TANH)


def _coefficients(pieces):
    """A function of lanes, whose low five bits are the number of a piece, that gives the coefficients."""

    @intrinsic
    def coefficients(typingctx, piece):
        def codegen(context, builder, sig, args):
            vectors = [look_up(builder, args[0], column) for column in zip(*pieces, strict=True)]
            return context.make_tuple(builder, sig.return_type, vectors)

        return types.UniTuple(piece, 4)(piece), codegen

    return coefficients


_of_tanh, _of_sigmoid = _coefficients(_TANH), _coefficients(_SIGMOID)


@inner
def tanh_in_pieces(x):
    """tanh, on 16 lanes of float32. The sum with the anchor, whose last bit is worth 1/4, rounds to the piece."""
    size = minimum(absolute(x), like(x, 7.75))
    return copy_sign(polynomial(size, _of_tanh(size + like(x, 1.5 * 2.0**21))), x)


@inner
def sigmoid_in_pieces(x):
    """1 / 2 + tanh(x / 2) / 2, likewise."""
    size = minimum(absolute(x), like(x, 15.5))
    return copy_sign(polynomial(size, _of_sigmoid(size + like(x, 1.5 * 2.0**22))), x) + like(x, 0.5)


# -- as quotients ------------------------------------------------------------------------------------------------------


@inner
def tanh_as_quotient(x):
    """x P(x**2) / Q(x**2), minimax in the relative error up to 6.1; there it is above 1 by 3e-7."""
    size = minimum(absolute(x), like(x, 6.1))
    square = size * size
    p = horner(square, (like(x, 0.99998814927722), like(x, 0.11393768585349), like(x, 1.4578082234134e-3)))
    q = horner(
        square, (like(x, 1.0), like(x, 0.44719426361508), like(x, 0.017274675842441), like(x, 5.2714263281939e-5))
    )
    return copy_sign(minimum(size * p / q, like(x, 1.0)), x)


@inner
def sigmoid_as_quotient(x):
    """1 / 2 + tanh(x / 2) / 2."""
    half = like(x, 0.5)
    return fma(tanh_as_quotient(half * x), half, half)


# -- exp ---------------------------------------------------------------------------------------------------------------


@inner
def exp_of_lanes(x):
    """2**n p(f) with x = (n + f) ln 2 and abs(f) at most 1/2.

    p is 1 at 0, equal where one n passes to the next, and minimax in the relative error but for that. It is twice as
    large, and the power of two half, so that this is infinity only where exp(x) is.
    """
    bounded = maximum(minimum(x, like(x, 89.5)), like(x, -87.5))
    inverse_ln2, anchor = like(x, 1.4426950408889634), like(x, 1.5 * 2.0**23 + 126)
    anchored = fma(bounded, inverse_ln2, anchor)
    f = fma(bounded, inverse_ln2, anchor - anchored)
    p = (
        like(x, 2.0), like(x, 1.386233651), like(x, 0.4804593544), like(x, 0.1119255165), like(x, 0.01932330459),
    )  # fmt: skip
    return polynomial(f, p) * power_of_two(anchored)


# -- what formulas call ------------------------------------------------------------------------------------------------


def exp(x):
    """exp(x); for compiled code."""
    raise NotImplementedError


def sigmoid(x):
    """1 / (1 + exp(-x)); for compiled code."""
    raise NotImplementedError


def tanh(x):
    """The hyperbolic tangent; for compiled code."""
    raise NotImplementedError


def _is_rough(x):
    return isinstance(x, Lanes) and x.dtype == types.float32


@overload(exp)
def _exp(x):
    return exp_of_lanes if _is_rough(x) else activations.exp


@overload(sigmoid)
def _sigmoid(x):
    rough = sigmoid_in_pieces if MACHINE.register_bytes == 64 else sigmoid_as_quotient
    return rough if _is_rough(x) else activations.sigmoid


@overload(tanh)
def _tanh(x):
    rough = tanh_in_pieces if MACHINE.register_bytes == 64 else tanh_as_quotient
    return rough if _is_rough(x) else activations.tanh
