"""Memory, named by address (an integer) and not by array.

A kernel walks over rows and panels, whose places it computes.
"""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.typing.templates import AttributeTemplate, infer_getattr
from numba.extending import intrinsic, lower_getattr, models, register_model

from .lanes import I64, _element, _pointer

__all__ = [
    "Memory",
    "address",
    "aligned",
    "call_address",
    "call_native",
    "call_with",
    "clear",
    "copy",
    "float_of",
    "integer_at",
    "integers_at",
    "keep_alive",
    "memory",
    "one_behind_the_other",
    "pointer",
    "put_integer",
    "put_integers",
    "put_on_stack",
    "raise_if",
]


class Memory(types.Type):
    """An address and the dtype of what lies there: an array of which nobody asks the size.

    Numba hands an array over as seven numbers, and counts who holds it, in every function that it passes through.
    """

    def __init__(self, dtype):
        self.dtype = dtype
        super().__init__(f"memory({dtype})")


@register_model(Memory)
class _MemoryModel(models.PrimitiveModel):
    def __init__(self, manager, kind):
        super().__init__(manager, kind, I64)


@infer_getattr
class _MemoryAttributes(AttributeTemplate):
    key = Memory

    def resolve_dtype(self, kind):
        return types.DType(kind.dtype)


@lower_getattr(Memory, "dtype")
def _dtype_of_memory(context, builder, kind, value):
    return context.get_dummy_value()


@intrinsic
def memory(typingctx, at, dtype):
    """The `Memory` at an address."""
    return Memory(_element(dtype))(types.intp, dtype), lambda context, builder, sig, args: args[0]


@intrinsic
def address(typingctx, array, offset):
    """The address of the element ``offset`` places after the first of an array in C order, or of `Memory`."""

    def codegen(context, builder, sig, args):
        start = args[0]
        if isinstance(array, types.Array):
            start = builder.ptrtoint(context.make_array(sig.args[0])(context, builder, start).data, I64)
        itemsize = context.get_constant(types.intp, sig.args[0].dtype.bitwidth // 8)
        return builder.add(start, builder.mul(args[1], itemsize))

    if isinstance(array, (types.Array, Memory)):
        return types.intp(array, types.intp), codegen


@intrinsic
def integer_at(typingctx, at, i):
    """Element i of the int64 array at address ``at``."""

    def codegen(context, builder, sig, args):
        return builder.load(builder.gep(builder.inttoptr(args[0], I64.as_pointer()), [args[1]]))

    return types.intp(types.intp, types.intp), codegen


@intrinsic
def put_integer(typingctx, at, i, value):
    """Write element i of the int64 array at address ``at``."""

    def codegen(context, builder, sig, args):
        builder.store(args[2], builder.gep(builder.inttoptr(args[0], I64.as_pointer()), [args[1]]))
        return context.get_dummy_value()

    return types.void(types.intp, types.intp, types.intp), codegen


@intrinsic(prefer_literal=True)
def integers_at(typingctx, at, count):
    """The first ``count`` (a literal) elements of the int64 array at address ``at``, as a tuple."""
    number = count.literal_value

    def codegen(context, builder, sig, args):
        start = builder.inttoptr(args[0], I64.as_pointer())
        values = [builder.load(builder.gep(start, [ir.Constant(I64, i)])) for i in range(number)]
        return context.make_tuple(builder, sig.return_type, values)

    return types.UniTuple(types.intp, number)(types.intp, count), codegen


@intrinsic
def aligned(typingctx, dtype, count):
    """An uninitialised 1-D array on a 64-byte boundary, where no vector straddles two cache lines.

    Of ``np.empty``, Numba compiles six functions. A ValueError, as it raises, if the bytes cannot be counted.
    """

    def codegen(context, builder, sig, args):
        from numba.np import arrayobj  # which takes a while, and is there when something is compiled

        with cgutils.if_unlikely(builder, builder.icmp_unsigned(">", args[1], ir.Constant(I64, 1 << 56))):
            context.call_conv.return_user_exc(builder, ValueError, ("array is too big",))
        kind, itemsize = sig.return_type, context.get_constant(types.intp, sig.return_type.dtype.bitwidth // 8)
        bytes_of, align = builder.mul(args[1], itemsize), context.get_constant(types.uint32, 64)
        holder = context.nrt.meminfo_alloc_aligned(builder, bytes_of, align)
        made = context.make_array(kind)(context, builder)
        data = builder.bitcast(context.nrt.meminfo_data(builder, holder), made.data.type)
        arrayobj.populate_array(made, data, [args[1]], [itemsize], itemsize, holder)
        return made._getvalue()

    return types.Array(_element(dtype), 1, "C")(dtype, types.intp), codegen


@intrinsic
def put_integers(typingctx, at, values):
    """Write a tuple of integers as int64 from address ``at`` on: what `integers_at` reads."""

    def codegen(context, builder, sig, args):
        start = builder.inttoptr(args[0], I64.as_pointer())
        for i, (value, kind) in enumerate(zip(cgutils.unpack_tuple(builder, args[1]), values, strict=True)):
            number = context.cast(builder, value, kind, types.int64)
            builder.store(number, builder.gep(start, [ir.Constant(I64, i)]))
        return context.get_dummy_value()

    return types.void(types.intp, values), codegen


@intrinsic
def one_behind_the_other(typingctx, at, counts, size):
    """Where arrays of so many elements (a tuple) lie from an address on, each from a multiple of 64 bytes; and the end.

    The address has to be such a multiple.
    """
    number = len(counts)

    def codegen(context, builder, sig, args):
        found = [args[0]]
        for count in cgutils.unpack_tuple(builder, args[1]):
            end = builder.add(found[-1], builder.mul(count, args[2]))
            found.append(builder.and_(builder.add(end, ir.Constant(I64, 63)), ir.Constant(I64, -64)))
        return context.make_tuple(builder, sig.return_type, found)

    taken = types.UniTuple(types.intp, number)
    return types.UniTuple(types.intp, number + 1)(types.intp, taken, types.intp), codegen


@intrinsic
def float_of(typingctx, bits):
    """The float64 with these bits."""
    return types.float64(types.int64), lambda context, builder, sig, args: builder.bitcast(args[0], ir.DoubleType())


@intrinsic
def call_address(typingctx, function, argument):
    """Call a function of one integer at its address ``native`` (see ``_jit.by_address``); what it raises is raised."""

    def codegen(context, builder, sig, args):
        raise_if(context, builder, call_native(context, builder, *args))
        return context.get_dummy_value()

    return types.void(types.intp, types.intp), codegen


@intrinsic
def call_with(typingctx, function, fields):
    """As `call_address`, with the address of a block of these integers, a tuple, which is there for the call alone."""

    def codegen(context, builder, sig, args):
        raise_if(
            context, builder, call_native(context, builder, args[0], put_on_stack(context, builder, args[1], fields))
        )
        return context.get_dummy_value()

    return types.void(types.intp, fields), codegen


def put_on_stack(context, builder, values, kinds):
    """In LLVM: the address of a block of the integers of a tuple."""
    block = cgutils.alloca_once(builder, ir.ArrayType(I64, len(kinds)))
    for i, (value, kind) in enumerate(zip(cgutils.unpack_tuple(builder, values), kinds, strict=True)):
        place = builder.gep(block, [ir.Constant(I64, 0), ir.Constant(I64, i)])
        builder.store(context.cast(builder, value, kind, types.int64), place)
    return builder.ptrtoint(block, I64)


def call_native(context, builder, function, argument):
    """In LLVM: call a function of one integer at its address ``native``. What it returns is for `raise_if`."""
    kind = context.call_conv.get_function_type(types.none, (types.intp,))
    function = builder.inttoptr(function, kind.as_pointer())
    return context.call_conv.call_function(builder, function, types.none, (types.intp,), [argument])[0]


def raise_if(context, builder, status):
    """In LLVM: raise what a function has raised."""
    with cgutils.if_unlikely(builder, status.is_error):
        context.call_conv.return_status_propagate(builder, status)


@intrinsic(prefer_literal=True)
def keep_alive(typingctx, arrays):
    """Do nothing, but keep the arrays of the tuple alive until here: an address alone does not."""
    return types.void(arrays), lambda context, builder, sig, args: context.get_dummy_value()


@intrinsic
def pointer(typingctx, at, dtype):
    """The address as a pointer to elements of the dtype, for ``numba.carray``."""
    target = types.CPointer(_element(dtype))

    def codegen(context, builder, sig, args):
        return builder.inttoptr(args[0], context.get_value_type(target))

    return target(types.intp, dtype), codegen


@intrinsic
def copy(typingctx, target, source, count):
    """Copy ``count`` bytes between two addresses."""

    def codegen(context, builder, sig, args):
        to, of = (_pointer(builder, at, ir.IntType(8)) for at in args[:2])
        cgutils.raw_memcpy(builder, to, of, args[2], 1)
        return context.get_dummy_value()

    return types.void(types.intp, types.intp, types.intp), codegen


@intrinsic
def clear(typingctx, target, count):
    """Set ``count`` bytes from an address on to zero."""

    def codegen(context, builder, sig, args):
        cgutils.memset(builder, _pointer(builder, args[0], ir.IntType(8)), args[1], 0)
        return context.get_dummy_value()

    return types.void(types.intp, types.intp), codegen
