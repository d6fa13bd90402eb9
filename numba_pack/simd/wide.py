"""Numbers that are float32 or float64 in memory, and float64 in registers: for sums of many, and differences of like.

Of each vector the first lanes are meant, as many as there are numbers left; there may be more left than lanes.
"""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from .lanes import FLOATS, I32, I64, LANES, NAMES, _element, _pointer, first_lanes, llvm_call, splat

__all__ = ["kept", "load_wide", "store_wide"]

WIDE = LANES[types.float64]


def _in_memory(dtype):
    """The vector of a dtype with as many numbers as one of float64 has, its name, and its alignment."""
    kind = ir.VectorType(FLOATS[dtype], WIDE.count)
    return kind, f"v{WIDE.count}{NAMES[dtype]}.p0", ir.Constant(I32, dtype.bitwidth // 8)


def _are_whole(builder, count):
    """Whether all lanes are meant: a mask takes time to make, and some processors are slow to write under one."""
    return builder.icmp_signed(">=", count, ir.Constant(I64, WIDE.count))


@intrinsic
def load_wide(typingctx, dtype, at, count, otherwise):
    """The first ``count`` numbers from an address, and ``otherwise`` (a float64) in the other lanes.

    ``dtype`` is any value or array of the dtype that they have in memory.
    """
    element = _element(dtype)

    def codegen(context, builder, sig, args):
        _, at, count, otherwise = args
        kind, name, align = _in_memory(element)
        place = _pointer(builder, at, kind)
        with builder.if_else(_are_whole(builder, count)) as (whole, partly):
            with whole:
                every, from_whole = builder.load(place), builder.block
                every.align = element.bitwidth // 8
            with partly:
                if element != types.float64:
                    otherwise = builder.fptrunc(otherwise, FLOATS[element])
                mask, others = first_lanes(builder, count, WIDE), splat(builder, otherwise, WIDE.count)
                some = llvm_call(builder, f"llvm.masked.load.{name}", kind, [place, align, mask, others])
                from_partly = builder.block
        value = builder.phi(kind)
        value.add_incoming(every, from_whole)
        value.add_incoming(some, from_partly)
        return value if element == types.float64 else builder.fpext(value, WIDE.vector)

    return WIDE(dtype, types.intp, types.intp, types.float64), codegen


@intrinsic
def store_wide(typingctx, dtype, at, value, count):
    """Write the first ``count`` lanes to an address, rounded to the dtype of ``dtype``, and nothing beyond them."""
    element = _element(dtype)

    def codegen(context, builder, sig, args):
        _, at, value, count = args
        kind, name, align = _in_memory(element)
        place = _pointer(builder, at, kind)
        if element != types.float64:
            value = builder.fptrunc(value, kind)
        with builder.if_else(_are_whole(builder, count)) as (whole, partly):
            with whole:
                builder.store(value, place).align = element.bitwidth // 8
            with partly:
                mask = first_lanes(builder, count, WIDE)
                llvm_call(builder, f"llvm.masked.store.{name}", ir.VoidType(), [value, place, align, mask])
        return context.get_dummy_value()

    return types.void(dtype, types.intp, WIDE, types.intp), codegen


@intrinsic
def kept(typingctx, value, count):
    """The first ``count`` lanes of a vector of float64, and zero in the others."""

    def codegen(context, builder, sig, args):
        mask, zeros = first_lanes(builder, args[1], WIDE), ir.Constant(WIDE.vector, [0.0] * WIDE.count)
        return builder.select(mask, args[0], zeros)

    return WIDE(WIDE, types.intp), codegen
