"""The floating-point mode that kernels compute in, whatever mode the calling thread is in.

It rounds to nearest and takes denormal numbers, those below the least normal one, for zero, as input and as result.
Gradients that vanish over many steps become such numbers, and a product with one of them takes some hundred cycles.
The mode belongs to a thread and is put back after each kernel, so that neither the caller's arithmetic nor a kernel's
bits depend on the other.
"""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.callconv import excinfo_ptr_t
from numba.extending import intrinsic

from .lanes import I32, I64, llvm_call
from .machine import ARCHITECTURE
from .memory import call_native, raise_if

__all__ = ["call_kernel", "caught", "put_back_mode", "raise_caught", "take_mode"]

#: x86-64: the control and status register with all exceptions masked, flush to zero, and denormals are zeros
_MXCSR = 0x1F80 | 0x8000 | 0x0040
#: AArch64: the control register with flush to zero
_FPCR = 1 << 24


def _take(builder):
    """Set the mode; the former one, as an i64."""
    if ARCHITECTURE == "x86_64":
        former = cgutils.alloca_once(builder, I32)
        _mxcsr(builder, "stmxcsr", former)
        _mxcsr(builder, "ldmxcsr", cgutils.alloca_once_value(builder, ir.Constant(I32, _MXCSR)))
        return builder.zext(builder.load(former), I64)
    if ARCHITECTURE == "aarch64":
        former = llvm_call(builder, "llvm.aarch64.get.fpcr", I64, [])
        llvm_call(builder, "llvm.aarch64.set.fpcr", ir.VoidType(), [ir.Constant(I64, _FPCR)])
        return former
    return ir.Constant(I64, 0)


def _put_back(builder, former):
    if ARCHITECTURE == "x86_64":
        _mxcsr(builder, "ldmxcsr", cgutils.alloca_once_value(builder, builder.trunc(former, I32)))
    elif ARCHITECTURE == "aarch64":
        llvm_call(builder, "llvm.aarch64.set.fpcr", ir.VoidType(), [former])


def _mxcsr(builder, instruction, place):
    llvm_call(builder, f"llvm.x86.sse.{instruction}", ir.VoidType(), [builder.bitcast(place, cgutils.voidptr_t)])


def _call(context, builder, args):
    """Call a kernel in the kernels' mode; what its caller gets is a status."""
    former = _take(builder)
    status = call_native(context, builder, *args)
    _put_back(builder, former)
    return status


@intrinsic
def call_kernel(typingctx, function, block):
    """As `call_address`, with the address of a block, in the kernels' mode."""

    def codegen(context, builder, sig, args):
        raise_if(context, builder, _call(context, builder, args))
        return context.get_dummy_value()

    return types.void(types.intp, types.intp), codegen


@intrinsic
def caught(typingctx, function, block):
    """As `call_kernel`, but nothing is raised: two numbers for `raise_caught`, of which the first is 0 for no error."""

    def codegen(context, builder, sig, args):
        status = _call(context, builder, args)
        none = ir.Constant(I64, 0)
        code = builder.select(status.is_error, builder.sext(status.code, I64), none)
        error = builder.select(status.is_user_exc, builder.ptrtoint(status.excinfoptr, I64), none)
        return context.make_tuple(builder, sig.return_type, [code, error])

    return types.UniTuple(types.int64, 2)(types.intp, types.intp), codegen


@intrinsic
def raise_caught(typingctx, code, error):
    """Raise what was caught, in this thread or another."""

    def codegen(context, builder, sig, args):
        excinfo = builder.inttoptr(args[1], excinfo_ptr_t)
        status = context.call_conv._get_return_status(builder, builder.trunc(args[0], I32), excinfo)
        raise_if(context, builder, status)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), codegen


@intrinsic
def take_mode(typingctx):
    """Set the kernels' mode, and return the former one, for `put_back_mode`; nothing in between may raise."""
    return types.int64(), lambda context, builder, sig, args: _take(builder)


@intrinsic
def put_back_mode(typingctx, former):
    """Put back the mode that `take_mode` returned."""

    def codegen(context, builder, sig, args):
        _put_back(builder, args[0])
        return context.get_dummy_value()

    return types.void(types.int64), codegen
