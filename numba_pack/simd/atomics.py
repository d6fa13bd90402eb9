"""Integers in memory that several threads read and change at once, and how a thread waits for another.

All are of 64 bits, named by address, and seen by all threads in one order. Waiting needs no GIL: the locks are those of
Python's own C interface, which stand for what the system has.
"""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from .lanes import I32, I64, llvm_call
from .machine import ARCHITECTURE

__all__ = ["acquire", "add_to", "exchange", "nap", "pause", "put", "release", "seen", "tell"]

_ORDER = "seq_cst"


def _place(builder, at):
    return builder.inttoptr(at, I64.as_pointer())


@intrinsic
def seen(typingctx, at):
    """The integer at an address."""

    def codegen(context, builder, sig, args):
        return builder.load_atomic(_place(builder, args[0]), _ORDER, 8)

    return types.int64(types.intp), codegen


@intrinsic
def put(typingctx, at, value):
    """Write the integer at an address; what was written before is seen by who sees it."""

    def codegen(context, builder, sig, args):
        builder.store_atomic(args[1], _place(builder, args[0]), _ORDER, 8)
        return context.get_dummy_value()

    return types.void(types.intp, types.int64), codegen


@intrinsic
def tell(typingctx, at, value):
    """As `put`, for who waits for nothing: what others have written may still be on its way to this thread."""

    def codegen(context, builder, sig, args):
        builder.store_atomic(args[1], _place(builder, args[0]), "release", 8)
        return context.get_dummy_value()

    return types.void(types.intp, types.int64), codegen


@intrinsic
def exchange(typingctx, at, expected, value):
    """Write the integer at an address if it is the one expected; returns whether it was."""

    def codegen(context, builder, sig, args):
        return builder.extract_value(builder.cmpxchg(_place(builder, args[0]), args[1], args[2], _ORDER, _ORDER), 1)

    return types.boolean(types.intp, types.int64, types.int64), codegen


@intrinsic
def add_to(typingctx, at, value):
    """Add to the integer at an address; returns what it was."""

    def codegen(context, builder, sig, args):
        return builder.atomic_rmw("add", _place(builder, args[0]), args[1], _ORDER)

    return types.int64(types.intp, types.int64), codegen


@intrinsic
def pause(typingctx):
    """Tell the processor that a loop waits."""

    def codegen(context, builder, sig, args):
        if ARCHITECTURE == "x86_64":
            llvm_call(builder, "llvm.x86.sse2.pause", ir.VoidType(), [])
        elif ARCHITECTURE == "aarch64":
            llvm_call(builder, "llvm.aarch64.hint", ir.VoidType(), [ir.Constant(I32, 1)])  # yield
        return context.get_dummy_value()

    return types.void(), codegen


def _python(builder, name, result, args):
    """Call a function of Python's C interface that needs no GIL."""
    kind = ir.FunctionType(result, [a.type for a in args])
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), args)


@intrinsic
def acquire(typingctx, lock):
    """Take a lock (a ``PyThread_type_lock``), and wait for it if it is taken."""

    def codegen(context, builder, sig, args):
        _python(builder, "PyThread_acquire_lock", I32, [args[0], ir.Constant(I32, 1)])
        return context.get_dummy_value()

    return types.void(types.intp), codegen


@intrinsic
def release(typingctx, lock):
    """Give back a lock that is taken, by whichever thread."""

    def codegen(context, builder, sig, args):
        _python(builder, "PyThread_release_lock", ir.VoidType(), args)
        return context.get_dummy_value()

    return types.void(types.intp), codegen


@intrinsic
def nap(typingctx, lock, microseconds):
    """Sleep so long, by waiting for a lock that nobody ever gives back."""

    def codegen(context, builder, sig, args):
        _python(builder, "PyThread_acquire_lock_timed", I32, [*args, ir.Constant(I32, 0)])
        return context.get_dummy_value()

    return types.void(types.intp, types.int64), codegen
