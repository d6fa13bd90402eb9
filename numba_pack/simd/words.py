"""`Words`: a Numba type that is one LLVM vector of 64-bit integers, for random numbers of several counters at once.

A generator that is written for one counter, of ``uint64``, is vector code where it is given `Words`.
"""

from __future__ import annotations

import operator

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.typing import signature
from numba.core.typing.templates import AbstractTemplate, infer_global
from numba.extending import intrinsic, lower_builtin, models, register_model

from .lanes import FLOATS, I32, I64, LANES, splat
from .machine import MACHINE

__all__ = ["COUNTERS", "Words", "counting", "mask_of", "repeated"]

#: how many integers a vector has
COUNTERS = MACHINE.register_bytes // 8
_VECTOR = ir.VectorType(I64, COUNTERS)


class Words(types.Type):
    """As many 64-bit integers as one vector register holds; they wrap around."""

    def __init__(self) -> None:
        super().__init__(f"int64x{COUNTERS}")


WORDS = Words()


@register_model(Words)
class _WordsModel(models.PrimitiveModel):
    def __init__(self, manager, words):
        super().__init__(manager, words, _VECTOR)


@intrinsic
def repeated(typingctx, value):
    """The integer in every lane."""
    return WORDS(types.uint64), lambda context, builder, sig, args: splat(builder, args[0], COUNTERS)


@intrinsic
def counting(typingctx, first):
    """The integers from ``first`` on."""

    def codegen(context, builder, sig, args):
        return builder.add(splat(builder, args[0], COUNTERS), ir.Constant(_VECTOR, list(range(COUNTERS))))

    return WORDS(types.uint64), codegen


def _operator(operation, method):
    @infer_global(operation)
    class Typing(AbstractTemplate):
        def generic(self, args, kws):
            if WORDS in args and set(args) <= {WORDS, types.uint64}:
                return signature(WORDS, *args)

    def codegen(context, builder, sig, args):
        vectors = (x if kind is WORDS else splat(builder, x, COUNTERS) for x, kind in zip(args, sig.args, strict=True))
        return getattr(builder, method)(*vectors)

    for kinds in ((Words, Words), (Words, types.uint64), (types.uint64, Words)):
        lower_builtin(operation, *kinds)(codegen)


for _operation, _method in (
    (operator.mul, "mul"), (operator.and_, "and_"), (operator.xor, "xor"), (operator.rshift, "lshr"),
):  # fmt: skip
    _operator(_operation, _method)


def _alternating(builder, one, other):
    """The elements of two vectors by turns."""
    count = one.type.count
    places = [i // 2 + i % 2 * count for i in range(2 * count)]
    return builder.shuffle_vector(one, other, ir.Constant(ir.VectorType(I32, 2 * count), places))


@intrinsic
def mask_of(typingctx, words, threshold, kept):
    """Vectors of the dtype of ``kept``, a float: for each word ``kept`` if it is no less than ``threshold``, else 0.

    ``words`` are four `Words`, each word below 2**32; ``threshold`` is at most that. The tuple of vectors has the first
    word of each, in their order, then the second of each, and so on.
    """
    lanes, total = LANES[kept], 4 * COUNTERS
    vectors = types.UniTuple(lanes, total // lanes.count)

    def codegen(context, builder, sig, args):
        words, threshold, kept = args
        zero = ir.Constant(FLOATS[lanes.dtype], 0.0)
        # a threshold of 2**32 does not fit into 32 bits: nothing is kept then, whatever is left of it
        fits = builder.icmp_unsigned("<", threshold, ir.Constant(I64, 1 << 32))
        kept, zeros = (splat(builder, x, lanes.count) for x in (builder.select(fits, kept, zero), zero))
        least = splat(builder, builder.trunc(threshold, I32), lanes.count)
        w0, w1, w2, w3 = (
            builder.trunc(each, ir.VectorType(I32, COUNTERS)) for each in cgutils.unpack_tuple(builder, words)
        )
        every = _alternating(builder, _alternating(builder, w0, w2), _alternating(builder, w1, w3))
        parts = []
        for first in range(0, total, lanes.count):
            places = ir.Constant(ir.VectorType(I32, lanes.count), list(range(first, first + lanes.count)))
            part = builder.shuffle_vector(every, every, places)
            parts.append(builder.select(builder.icmp_unsigned(">=", part, least), kept, zeros))
        return context.make_tuple(builder, vectors, parts)

    if words == types.UniTuple(WORDS, 4):
        return vectors(words, types.uint64, kept), codegen
