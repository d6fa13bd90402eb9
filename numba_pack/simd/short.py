"""Short numbers, side by side in words of 32 bits: two in bfloat16, or four integers of 8 bits.

A vector of words is held as `Lanes` of float32, of which only the bits count: loads, stores and transposition take it
as it is. The first of the numbers of a word is in its low bits.

bfloat16 is the upper half of a float32; rounding is to the nearest, of two to the even one. NaN stays NaN.
"""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from .lanes import I32, LANES, Lanes, llvm_call, splat
from .machine import rounds_to_bfloat16

__all__ = ["BFLOAT16", "bytes_of", "even_half", "largest_of", "odd_half", "pairs_across", "pairs_along", "rest_of"]

I8, I16 = ir.IntType(8), ir.IntType(16)
FLOAT = LANES[types.float32]


class _Named(ir.Type):
    """An LLVM type that llvmlite has no class for."""

    def __init__(self, name: str):
        self.name = name

    def _to_string(self):
        return self.name

    def __eq__(self, other):
        return isinstance(other, _Named) and other.name == self.name

    def __hash__(self):
        return hash(self.name)


BFLOAT16 = _Named("bfloat")


def _every(kind, value):
    return ir.Constant(kind, [value] * kind.count)


def _rounded(builder, value):
    """The bits (i16) of a vector of floats in bfloat16."""
    count = value.type.count
    shorts, words = ir.VectorType(I16, count), ir.VectorType(I32, count)
    if rounds_to_bfloat16():
        return builder.bitcast(builder.fptrunc(value, ir.VectorType(BFLOAT16, count)), shorts)
    bits = builder.bitcast(value, words)
    odd = builder.and_(builder.lshr(bits, _every(words, 16)), _every(words, 1))
    near = builder.add(bits, builder.add(odd, _every(words, 0x7FFF)))
    quiet = builder.or_(bits, _every(words, 0x400000))  # a NaN must not become infinite
    chosen = builder.select(builder.fcmp_unordered("uno", value, value), quiet, near)
    return builder.trunc(builder.lshr(chosen, _every(words, 16)), shorts)


def _widened(builder, shorts):
    """Words whose low halves are the given bits, and whose high halves are 0."""
    return builder.zext(shorts, ir.VectorType(I32, shorts.type.count))


def _beside(builder, vectors):
    """Two or four vectors as one, one after the other."""
    while len(vectors) > 1:
        count = vectors[0].type.count
        every = ir.Constant(ir.VectorType(I32, 2 * count), list(range(2 * count)))
        vectors = [builder.shuffle_vector(x, y, every) for x, y in zip(vectors[::2], vectors[1::2], strict=True)]
    return vectors[0]


@intrinsic
def pairs_along(typingctx, first, second):
    """The words of two vectors that follow one another: each of two neighbours in bfloat16."""

    def codegen(context, builder, sig, args):
        return builder.bitcast(_rounded(builder, _beside(builder, list(args))), FLOAT.vector)

    return FLOAT(first, second), codegen


@intrinsic
def pairs_across(typingctx, first, second):
    """The words of two vectors of like place: each of an element of the first, and that of the second, in bfloat16."""

    def codegen(context, builder, sig, args):
        words = ir.VectorType(I32, FLOAT.count)
        low, high = (_widened(builder, _rounded(builder, x)) for x in args)
        return builder.bitcast(builder.or_(low, builder.shl(high, _every(words, 16))), FLOAT.vector)

    return FLOAT(first, second), codegen


@intrinsic
def rest_of(typingctx, value):
    """What is left of each number beyond its bfloat16: nothing where that is infinite."""

    def codegen(context, builder, sig, args):
        near = even_half(builder, _widened(builder, _rounded(builder, args[0])))
        size = llvm_call(builder, f"llvm.fabs.v{value.count}f32", value.vector, [near])
        endless = builder.fcmp_ordered("==", size, _every(value.vector, float("inf")))
        return builder.select(endless, _every(value.vector, 0.0), builder.fsub(args[0], near))

    if value == FLOAT:
        return value(value), codegen


def even_half(builder, words):
    """In LLVM: the first numbers of words (i32, one or a vector) in bfloat16, as float32."""
    return builder.bitcast(builder.shl(words, _of_word(words, 16)), _floats(words))


def odd_half(builder, words):
    """The second ones."""
    return builder.bitcast(builder.and_(words, _of_word(words, -65536)), _floats(words))


def _of_word(words, value):
    return _every(words.type, value) if isinstance(words.type, ir.VectorType) else ir.Constant(I32, value)


def _floats(words):
    return FLOAT.vector if isinstance(words.type, ir.VectorType) else ir.FloatType()


@intrinsic
def bytes_of(typingctx, a, b, c, d, offset):
    """The words of four vectors that follow one another: their numbers, whole ones from -127 to 127, plus ``offset``.

    The vectors are whole numbers plus 1.5 * 2**23, which are the low bits of such floats. The offset is 0 or 128.
    """

    def codegen(context, builder, sig, args):
        words = ir.VectorType(I32, FLOAT.count)
        vectors = [builder.trunc(builder.bitcast(x, words), ir.VectorType(I8, FLOAT.count)) for x in args[:4]]
        number = splat(builder, builder.trunc(args[4], I8), 4 * FLOAT.count)
        return builder.bitcast(builder.add(_beside(builder, vectors), number), FLOAT.vector)

    return FLOAT(a, b, c, d, types.intp), codegen


@intrinsic
def largest_of(typingctx, x):
    """The largest lane of x, in which none is NaN."""

    def codegen(context, builder, sig, args):
        value, count = args[0], x.count
        while count > 1:
            count //= 2
            halves = [ir.Constant(ir.VectorType(I32, count), list(range(at, at + count))) for at in (0, count)]
            low, high = (builder.shuffle_vector(value, value, half) for half in halves)
            value = builder.select(builder.fcmp_ordered("<", low, high), high, low)
        return builder.extract_element(value, ir.Constant(I32, 0))

    if isinstance(x, Lanes):
        return x.dtype(x), codegen
