"""`Lanes`: a Numba type that is one LLVM vector, and the operations on it.

A formula written on lanes compiles to straight vector code; nothing is left to the auto-vectoriser. The same formula
written on scalars (in a CUDA thread, or in a user's loop) means the same: every operation here takes floats too.

Loads and stores take addresses (see ``memory.py``), and carry the alignment of one element, since a NumPy buffer
promises no more. Those that cells are written with also take a pair of addresses, for two vectors as one value: then
each operation is two instructions that do not depend on each other, side by side. A formula is a long chain, and a
processor that sees some hundred instructions ahead would wait for it more than it computes.
"""

from __future__ import annotations

import operator

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.imputils import lower_constant
from numba.core.typing import signature
from numba.core.typing.templates import AbstractTemplate, infer_global
from numba.extending import intrinsic, lower_builtin, models, register_model

from .machine import MACHINE

__all__ = [
    "FLOATS",
    "I32",
    "I64",
    "LANES",
    "Lanes",
    "absolute",
    "added",
    "always_inline",
    "chained",
    "copy_sign",
    "fetch_each",
    "first_lanes",
    "fma",
    "fused",
    "horner",
    "if_whole",
    "joined",
    "lanes_of",
    "larger",
    "like",
    "llvm_call",
    "load",
    "load_each",
    "load_first",
    "load_gates",
    "load_vector",
    "look_up",
    "masked_load",
    "masked_store",
    "maximum",
    "minimum",
    "nothing",
    "once_a_turn",
    "parted",
    "pinned",
    "power_of_two",
    "quotient",
    "reciprocal",
    "select_equal",
    "select_less",
    "select_less_equal",
    "size_of",
    "smaller",
    "splat",
    "splat_each",
    "split",
    "sqrt",
    "store",
    "store_each",
    "store_first",
    "store_gates",
    "store_vector",
    "sum_of",
    "transpose_block",
    "width",
    "without_first",
]

I32, I64 = ir.IntType(32), ir.IntType(64)
FLOATS = {types.float32: ir.FloatType(), types.float64: ir.DoubleType()}
NAMES = {types.float32: "f32", types.float64: "f64"}
SIGNIFICAND = {types.float32: 23, types.float64: 52}  # stored bits


class Lanes(types.Type):
    """As many floats of one dtype as one vector register holds, or two of them."""

    def __init__(self, dtype: types.Float, registers: int = 1):
        self.dtype = dtype
        self.registers = registers
        self.count = registers * MACHINE.register_bytes * 8 // dtype.bitwidth
        self.vector = ir.VectorType(FLOATS[dtype], self.count)
        super().__init__(f"{dtype}x{self.count}")


LANES = {dtype: Lanes(dtype) for dtype in FLOATS}
_PAIRS = {dtype: Lanes(dtype, 2) for dtype in FLOATS}


@register_model(Lanes)
class _LanesModel(models.PrimitiveModel):
    def __init__(self, manager, lanes):
        super().__init__(manager, lanes, lanes.vector)


@lower_constant(Lanes)
def _constant(context, builder, lanes, value):
    return ir.Constant(lanes.vector, [value] * lanes.count)


def lanes_of(dtype: np.typing.DTypeLike) -> int:
    """How many elements of ``dtype`` one vector register holds."""
    return MACHINE.register_bytes // np.dtype(dtype).itemsize


# -- making LLVM values ------------------------------------------------------------------------------------------------


def splat(builder, scalar, count):
    """A vector with ``scalar`` in each of ``count`` lanes."""
    undefined = ir.Constant(ir.VectorType(scalar.type, count), ir.Undefined)
    one = builder.insert_element(undefined, scalar, ir.Constant(I32, 0))
    return builder.shuffle_vector(one, undefined, ir.Constant(ir.VectorType(I32, count), [0] * count))


def _pointer(builder, at, llvm_type):
    return builder.inttoptr(at, llvm_type.as_pointer())


def load_vector(builder, at, lanes):
    """The vector at an address, aligned as one element is."""
    value = builder.load(_pointer(builder, at, lanes.vector))
    value.align = lanes.dtype.bitwidth // 8
    return value


def store_vector(builder, value, at, lanes):
    """Write a vector to an address, aligned as one element is."""
    builder.store(value, _pointer(builder, at, lanes.vector)).align = lanes.dtype.bitwidth // 8


def first_lanes(builder, count, lanes):
    """The mask of the lanes below ``count`` (an i64)."""
    integer = ir.IntType(lanes.dtype.bitwidth)
    numbers = ir.Constant(ir.VectorType(integer, lanes.count), list(range(lanes.count)))
    if integer != I64:
        most = ir.Constant(I64, lanes.count)
        count = builder.trunc(builder.select(builder.icmp_signed("<", count, most), count, most), integer)
    return builder.icmp_signed("<", numbers, splat(builder, count, lanes.count))


def llvm_call(builder, name, result, args):
    """Call an LLVM intrinsic by its full name (``Module.declare_intrinsic`` rejects vectors)."""
    function_type = ir.FunctionType(result, [a.type for a in args])
    return builder.call(cgutils.get_or_insert_function(builder.module, function_type, name), args)


def _suffix(ty):
    return f"v{ty.count}{NAMES[ty.dtype]}" if isinstance(ty, Lanes) else NAMES[ty]


def masked_load(builder, at, mask, lanes):
    """The lanes of the mask from an address, zero in the others; nothing else is read."""
    name = f"llvm.masked.load.{_suffix(lanes)}.p0"
    align = ir.Constant(I32, lanes.dtype.bitwidth // 8)
    zeros = ir.Constant(lanes.vector, [0.0] * lanes.count)
    return llvm_call(builder, name, lanes.vector, [_pointer(builder, at, lanes.vector), align, mask, zeros])


def masked_store(builder, value, at, mask, lanes):
    """Write the lanes of the mask to an address, and nothing else."""
    name = f"llvm.masked.store.{_suffix(lanes)}.p0"
    align = ir.Constant(I32, lanes.dtype.bitwidth // 8)
    llvm_call(builder, name, ir.VoidType(), [value, _pointer(builder, at, lanes.vector), align, mask])


def fused(builder, ty, x, y, z):
    """x * y + z: in one rounding where the machine has the instruction, in two elsewhere."""
    if isinstance(ty, Lanes) and not MACHINE.fma:
        return builder.fadd(builder.fmul(x, y), z)
    return llvm_call(builder, f"llvm.fma.{_suffix(ty)}", x.type, [x, y, z])


def look_up(builder, places, numbers):
    """Of 32 numbers, for each lane that at the place which its low five bits tell. For AVX-512 alone."""
    vector = LANES[types.float32].vector
    rounded = np.array(numbers, np.float32).tolist()
    halves = [ir.Constant(vector, half) for half in (rounded[:16], rounded[16:])]

    def of(register):
        bits = builder.bitcast(register, ir.VectorType(I32, 16))
        return llvm_call(builder, "llvm.x86.avx512.vpermi2var.ps.512", vector, [halves[0], bits, halves[1]])

    return _as_one(builder, [of(register) for register in _registers(builder, places, 16)])


def _registers(builder, value, lanes):
    """The vectors of so many lanes that a value consists of."""
    if value.type.count == lanes:
        return [value]
    ranges = [range(at, at + lanes) for at in range(0, value.type.count, lanes)]
    kind = ir.VectorType(I32, lanes)
    return [builder.shuffle_vector(value, value, ir.Constant(kind, list(places))) for places in ranges]


def _as_one(builder, vectors):
    """The inverse of `_registers`, of one vector or two."""
    if len(vectors) == 1:
        return vectors[0]
    count = 2 * vectors[0].type.count
    return builder.shuffle_vector(*vectors, ir.Constant(ir.VectorType(I32, count), list(range(count))))


def if_whole(builder, counts, lanes, whole, part):
    """The values of ``whole()`` where each of ``counts`` is at least that of the lanes, else those of ``part()``.

    ``part`` masks what it loads and stores. With AVX-512 that costs nothing, and it will do alone. Without, a store
    under a mask takes an AMD processor as long as a dozen others; and ARM has none.
    """
    if MACHINE.register_bytes == 64:
        return part()
    number = ir.Constant(I64, lanes)
    every = builder.icmp_signed(">=", counts[0], number)
    for count in counts[1:]:
        every = builder.and_(every, builder.icmp_signed(">=", count, number))
    with builder.if_else(every, likely=True) as (then, otherwise):
        with then:
            x, x_block = whole(), builder.block
        with otherwise:
            y, y_block = part(), builder.block
    merged = []
    for one, other in zip(x or (), y or (), strict=True):
        merged.append(builder.phi(one.type))
        merged[-1].add_incoming(one, x_block)
        merged[-1].add_incoming(other, y_block)
    return merged


def pinned(builder, value):
    """An i64 of which LLVM knows nothing: what is computed of it is computed here, and not where that of others is."""
    kind = ir.FunctionType(I64, [I64])
    return builder.asm(kind, "", "=r,0", [value], True)


def once_a_turn(builder, branch):
    """Have LLVM keep the loop that a branch ends as it is, where it would do two or four steps in a turn."""
    module = builder.module
    disable = module.add_metadata(["llvm.loop.unroll.disable"])
    loop = ir.MDValue(module, [], str(len(module.metadata)))
    loop.operands = (loop, disable)  # a loop is told from others by naming itself
    branch.set_metadata("llvm.loop", loop)


def _is_real(*values):
    return len(set(values)) == 1 and (isinstance(values[0], Lanes) or values[0] in FLOATS)


# -- memory ------------------------------------------------------------------------------------------------------------


@intrinsic
def nothing(typingctx, dtype):
    """A vector of zeros; ``dtype`` is any value or array of the dtype wanted."""
    lanes = LANES[_element(dtype)]
    zeros = ir.Constant(lanes.vector, [0.0] * lanes.count)
    return lanes(dtype), lambda context, builder, sig, args: zeros


def width(dtype):
    """How many elements of a dtype one vector holds: a constant in compiled code."""
    return MACHINE.register_bytes // dtype.itemsize


def size_of(dtype):
    """The bytes of an element of a dtype: a constant in compiled code."""
    raise NotImplementedError("size_of is for compiled code")


def _number(function, of):
    """Have compiled code take a function of a dtype for a number.

    It is used too often to be an overload, each call of which Numba would inline, in a second.
    """

    @infer_global(function)
    class Typing(AbstractTemplate):
        def generic(self, args, kws):
            return signature(types.IntegerLiteral(of(_element(args[0]))), *args)

    def codegen(context, builder, sig, args):
        return context.get_constant(types.intp, sig.return_type.literal_value)

    lower_builtin(function, types.Any)(codegen)


_number(width, lambda dtype: LANES[dtype].count)
_number(size_of, lambda dtype: dtype.bitwidth // 8)


def _lanes_at(dtype, at):
    """The lanes at an address, or at a pair of addresses."""
    return (_PAIRS if isinstance(at, types.BaseTuple) else LANES)[_element(dtype)]


def _one_or_two(at):
    return types.UniTuple(types.intp, 2) if isinstance(at, types.BaseTuple) else types.intp


def _each(builder, kind, value):
    """The integers of one, or of a pair."""
    return cgutils.unpack_tuple(builder, value) if isinstance(kind, types.BaseTuple) else [value]


def _load(builder, lanes, places):
    return _as_one(builder, [load_vector(builder, place, LANES[lanes.dtype]) for place in places])


def _store(builder, lanes, places, value):
    one = LANES[lanes.dtype]
    for place, register in zip(places, _registers(builder, value, one.count), strict=True):
        store_vector(builder, register, place, one)


def _load_first(builder, lanes, groups, counts):
    """Values, each from its group of one address or two, of the first ``counts`` lanes there."""
    one = LANES[lanes.dtype]

    def part():
        masks = [first_lanes(builder, count, one) for count in counts]
        return [
            _as_one(builder, [masked_load(builder, *pair, one) for pair in zip(places, masks, strict=True)])
            for places in groups
        ]

    return if_whole(builder, counts, one.count, lambda: [_load(builder, lanes, places) for places in groups], part)


def _store_first(builder, lanes, groups, counts, values):
    """The inverse of `_load_first`."""
    one = LANES[lanes.dtype]

    def whole():
        for places, value in zip(groups, values, strict=True):
            _store(builder, lanes, places, value)

    def part():
        masks = [first_lanes(builder, count, one) for count in counts]
        for places, value in zip(groups, values, strict=True):
            for place, mask, register in zip(places, masks, _registers(builder, value, one.count), strict=True):
                masked_store(builder, register, place, mask, one)

    if_whole(builder, counts, one.count, whole, part)


@intrinsic
def load(typingctx, dtype, at):
    """A vector from address ``at``; ``dtype`` is any value or array of the dtype wanted."""
    lanes, kind = _lanes_at(dtype, at), _one_or_two(at)
    return lanes(dtype, kind), lambda context, builder, sig, args: _load(builder, lanes, _each(builder, kind, args[1]))


@intrinsic
def store(typingctx, at, value):
    """Write a vector to address ``at``."""
    kind = _one_or_two(at)

    def codegen(context, builder, sig, args):
        _store(builder, value, _each(builder, kind, args[0]), args[1])
        return context.get_dummy_value()

    return types.void(kind, value), codegen


@intrinsic
def load_first(typingctx, dtype, at, count):
    """The first ``count`` lanes from address ``at``, zero in the others; reads nothing beyond them."""
    lanes, kind = _lanes_at(dtype, at), _one_or_two(at)

    def codegen(context, builder, sig, args):
        places, counts = (_each(builder, kind, arg) for arg in args[1:])
        return _load_first(builder, lanes, [places], counts)[0]

    return lanes(dtype, kind, kind), codegen


@intrinsic
def store_first(typingctx, at, value, count):
    """Write the first ``count`` lanes of a vector to address ``at``, and nothing beyond them."""
    kind = _one_or_two(at)

    def codegen(context, builder, sig, args):
        places, counts = _each(builder, kind, args[0]), _each(builder, kind, args[2])
        _store_first(builder, value, [places], counts, [args[1]])
        return context.get_dummy_value()

    return types.void(kind, value, kind), codegen


def _element(ty):
    """The dtype of an array, of lanes and of other types that have one; or the type itself."""
    return getattr(ty, "dtype", ty)


@intrinsic(prefer_literal=True)
def load_gates(typingctx, dtype, at, stride, count, gates):
    """A tuple of ``gates`` (a literal) vectors, ``stride`` bytes apart: the first ``count`` lanes of each."""
    lanes, kind, number = _lanes_at(dtype, at), _one_or_two(at), gates.literal_value

    def codegen(context, builder, sig, args):
        groups = _groups(builder, _each(builder, kind, args[1]), args[2], number)
        vectors = _load_first(builder, lanes, groups, _each(builder, kind, args[3])) if number else []
        return context.make_tuple(builder, sig.return_type, vectors)

    return types.UniTuple(lanes, number)(dtype, kind, types.intp, kind, gates), codegen


@intrinsic
def store_gates(typingctx, at, stride, count, values):
    """Write the tuple that `load_gates` reads."""
    kind = _one_or_two(at)

    def codegen(context, builder, sig, args):
        vectors = cgutils.unpack_tuple(builder, args[3])
        if vectors:
            groups = _groups(builder, _each(builder, kind, args[0]), args[1], len(vectors))
            _store_first(builder, values.dtype, groups, _each(builder, kind, args[2]), vectors)
        return context.get_dummy_value()

    return types.void(kind, types.intp, kind, values), codegen


def _places(builder, at, stride, number):
    return [builder.add(at, builder.mul(stride, ir.Constant(I64, i))) for i in range(number)]


def _groups(builder, each, stride, number):
    """For each of ``number`` vectors, the addresses of its registers."""
    return list(zip(*(_places(builder, at, stride, number) for at in each), strict=True))


@intrinsic(prefer_literal=True)
def load_each(typingctx, dtype, at, stride, number):
    """A tuple of ``number`` (a literal) whole vectors, ``stride`` bytes apart."""
    lanes, kind, count = _lanes_at(dtype, at), _one_or_two(at), number.literal_value

    def codegen(context, builder, sig, args):
        groups = _groups(builder, _each(builder, kind, args[1]), args[2], count)
        return context.make_tuple(builder, sig.return_type, [_load(builder, lanes, places) for places in groups])

    return types.UniTuple(lanes, count)(dtype, kind, types.intp, number), codegen


@intrinsic(prefer_literal=True)
def fetch_each(typingctx, at, stride, number):
    """Have the cache fetch what `load_each` will read; any address will do, also one of no memory."""
    count = number.literal_value

    def codegen(context, builder, sig, args):
        byte = ir.IntType(8).as_pointer()
        kind = ir.FunctionType(ir.VoidType(), [byte, I32, I32, I32])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        for place in _places(builder, args[0], args[1], count):
            hints = [ir.Constant(I32, hint) for hint in (0, 3, 1)]  # to read, to the nearest cache, of data
            builder.call(function, [builder.inttoptr(place, byte), *hints])
        return context.get_dummy_value()

    return types.void(types.intp, types.intp, number), codegen


@intrinsic
def store_each(typingctx, at, stride, values):
    """Write the tuple that `load_each` reads."""
    kind = _one_or_two(at)

    def codegen(context, builder, sig, args):
        vectors = cgutils.unpack_tuple(builder, args[2])
        groups = _groups(builder, _each(builder, kind, args[0]), args[1], len(vectors))
        for places, value in zip(groups, vectors, strict=True):
            _store(builder, values.dtype, places, value)
        return context.get_dummy_value()

    return types.void(kind, types.intp, values), codegen


@intrinsic(prefer_literal=True)
def splat_each(typingctx, dtype, at, number):
    """A tuple of ``number`` (a literal) vectors, each with one of the numbers from address ``at`` on in every lane."""
    lanes, kind, count = _lanes_at(dtype, at), _one_or_two(at), number.literal_value
    one = LANES[lanes.dtype]

    def of(builder, place):
        return splat(builder, builder.load(_pointer(builder, place, FLOATS[lanes.dtype])), one.count)

    def codegen(context, builder, sig, args):
        groups = _groups(builder, _each(builder, kind, args[1]), ir.Constant(I64, lanes.dtype.bitwidth // 8), count)
        vectors = [_as_one(builder, [of(builder, place) for place in places]) for places in groups]
        return context.make_tuple(builder, sig.return_type, vectors)

    return types.UniTuple(lanes, count)(dtype, kind, number), codegen


@intrinsic
def joined(typingctx, first, others):
    """The tuple of a vector and those of a tuple, which may be empty."""
    kind = types.UniTuple(first, len(others) + 1)

    def codegen(context, builder, sig, args):
        return context.make_tuple(builder, kind, [args[0], *cgutils.unpack_tuple(builder, args[1])])

    return kind(first, others), codegen


@intrinsic
def added(typingctx, values, others):
    """The sums of the vectors of two tuples, which may be empty."""

    def codegen(context, builder, sig, args):
        pairs = zip(*(cgutils.unpack_tuple(builder, arg) for arg in args), strict=True)
        return context.make_tuple(builder, values, [builder.fadd(x, y) for x, y in pairs])

    if values == others:
        return values(values, others), codegen


@intrinsic
def chained(typingctx, values, others):
    """The vectors of two tuples in one; either may be empty."""
    kind = types.UniTuple(values.dtype, len(values) + len(others))

    def codegen(context, builder, sig, args):
        parts = [part for arg in args for part in cgutils.unpack_tuple(builder, arg)]
        return context.make_tuple(builder, kind, parts)

    return kind(values, others), codegen


@intrinsic
def without_first(typingctx, values):
    """The tuple without its first vector."""
    kind = types.UniTuple(values.dtype, len(values) - 1)

    def codegen(context, builder, sig, args):
        return context.make_tuple(builder, kind, cgutils.unpack_tuple(builder, args[0])[1:])

    return kind(values), codegen


@intrinsic(prefer_literal=True)
def parted(typingctx, values, count):
    """The tuple of the first ``count`` (a literal) vectors, and that of the others."""
    number = count.literal_value
    first, others = types.UniTuple(values.dtype, number), types.UniTuple(values.dtype, len(values) - number)

    def codegen(context, builder, sig, args):
        vectors = cgutils.unpack_tuple(builder, args[0])
        parts = zip((first, others), (vectors[:number], vectors[number:]), strict=True)
        made = [context.make_tuple(builder, kind, part) for kind, part in parts]
        return context.make_tuple(builder, sig.return_type, made)

    return types.Tuple((first, others))(values, count), codegen


def _transposed(builder, rows):
    """The transpose of as many vectors as each has lanes: blocks of half the size change places, then quarters, ..."""
    count = len(rows)
    half = count // 2
    while half:
        upper = [lane & half for lane in range(count)]
        first = ir.Constant(
            ir.VectorType(I32, count), [count + lane - half if upper[lane] else lane for lane in range(count)]
        )
        second = ir.Constant(
            ir.VectorType(I32, count), [count + lane if upper[lane] else lane + half for lane in range(count)]
        )
        for i in range(count):
            if not i & half:
                a, b = rows[i], rows[i + half]
                rows[i] = builder.shuffle_vector(a, b, first)
                rows[i + half] = builder.shuffle_vector(a, b, second)
        half //= 2
    return rows


@intrinsic
def transpose_block(typingctx, dtype, source, source_step, rows, columns, target, target_step):
    """target[:columns, :] = source[:rows, :columns].T, by whole vectors: target columns from ``rows`` on become zero.

    ``source`` and ``target`` are addresses, the steps are bytes from row to row. Of source, at most as many rows and
    columns as a vector has lanes are read, and nothing beyond ``rows`` and ``columns``.
    """
    lanes = LANES[_element(dtype)]

    def codegen(context, builder, sig, args):
        _, source, source_step, rows, columns, target, target_step = args
        none, whole = ir.Constant(I64, 0), ir.Constant(I64, lanes.count)
        numbers = [ir.Constant(I64, i) for i in range(lanes.count)]
        sources = [builder.add(source, builder.mul(source_step, number)) for number in numbers]
        targets = [builder.add(target, builder.mul(target_step, number)) for number in numbers]

        def whole_block():
            block = _transposed(builder, [load_vector(builder, place, lanes) for place in sources])
            for value, place in zip(block, targets, strict=True):
                store_vector(builder, value, place, lanes)

        def part_of_block():
            block = []
            for number, place in zip(numbers, sources, strict=True):
                count = builder.select(builder.icmp_signed("<", number, rows), columns, none)
                block.append(masked_load(builder, place, first_lanes(builder, count, lanes), lanes))
            for number, value, place in zip(numbers, _transposed(builder, block), targets, strict=True):
                count = builder.select(builder.icmp_signed("<", number, columns), whole, none)
                masked_store(builder, value, place, first_lanes(builder, count, lanes), lanes)

        if_whole(builder, (rows, columns), lanes.count, whole_block, part_of_block)
        return context.get_dummy_value()

    return types.void(dtype, *[types.intp] * 6), codegen


# -- calls -------------------------------------------------------------------------------------------------------------


@intrinsic
def always_inline(typingctx):
    """Called in a function, have LLVM inline that function wherever it is called.

    Functions of the innermost loops need it: the fields of their arguments, several dozen once the named tuples are
    taken apart, would pass over the stack with every tile. (Numba's option ``forceinline`` is one of the flags that
    code is compiled for, so that all that such a function calls would be compiled once more.)
    """

    def codegen(context, builder, sig, args):
        attributes = builder.function.attributes
        for contrary in ("noinline", "optnone"):  # set by NUMBA_DEBUGINFO
            attributes.discard(contrary)
        attributes.add("alwaysinline")
        return context.get_dummy_value()

    return types.void(), codegen


# -- arithmetic --------------------------------------------------------------------------------------------------------


def _operator(operation, method):
    @infer_global(operation)
    class Typing(AbstractTemplate):
        def generic(self, args, kws):
            if isinstance(args[0], Lanes) and set(args) == {args[0]}:
                return signature(args[0], *args)

    def codegen(context, builder, sig, args):
        return getattr(builder, method)(*args)

    operands = 1 if operation is operator.neg else 2
    lower_builtin(operation, *[Lanes] * operands)(codegen)


for _operation, _method in (
    (operator.add, "fadd"), (operator.sub, "fsub"), (operator.mul, "fmul"), (operator.truediv, "fdiv"),
    (operator.neg, "fneg"),
):  # fmt: skip
    _operator(_operation, _method)


@intrinsic
def like(typingctx, x, value):
    """The number ``value`` in the dtype of x, in every lane if x is lanes."""
    dtype = _element(x)

    def codegen(context, builder, sig, args):
        scalar = context.cast(builder, args[1], sig.args[1], dtype)
        return splat(builder, scalar, x.count) if isinstance(x, Lanes) else scalar

    if _is_real(x) and isinstance(value, (types.Float, types.Integer)):
        return x(x, value), codegen


@intrinsic
def fma(typingctx, x, y, z):
    """x * y + z, rounded once (twice on a machine without the instruction)."""
    if _is_real(x, y, z):
        return x(x, y, z), lambda context, builder, sig, args: fused(builder, x, *args)


@intrinsic
def horner(typingctx, x, coefficients):
    """The polynomial in x with these coefficients (a tuple like x, the constant one first)."""

    def codegen(context, builder, sig, args):
        *rest, value = cgutils.unpack_tuple(builder, args[1])
        for coefficient in reversed(rest):
            value = fused(builder, x, value, args[0], coefficient)
        return value

    if _is_real(x, *coefficients):
        return x(x, coefficients), codegen


@intrinsic
def select_less(typingctx, x, y, if_less, otherwise):
    """``if_less`` where x < y, ``otherwise`` elsewhere and where either is NaN."""

    def codegen(context, builder, sig, args):
        return builder.select(builder.fcmp_ordered("<", args[0], args[1]), args[2], args[3])

    if _is_real(x, y, if_less, otherwise):
        return x(x, y, if_less, otherwise), codegen


@intrinsic
def minimum(typingctx, x, bound):
    """The smaller of both; a NaN in x stays."""

    def codegen(context, builder, sig, args):
        return builder.select(builder.fcmp_ordered("<", args[1], args[0]), args[1], args[0])

    if _is_real(x, bound):
        return x(x, bound), codegen


@intrinsic
def maximum(typingctx, x, bound):
    """The larger of both; a NaN in x stays."""

    def codegen(context, builder, sig, args):
        return builder.select(builder.fcmp_ordered(">", args[1], args[0]), args[1], args[0])

    if _is_real(x, bound):
        return x(x, bound), codegen


@intrinsic
def absolute(typingctx, x):
    """The magnitude of x."""

    def codegen(context, builder, sig, args):
        if isinstance(x, Lanes):
            return llvm_call(builder, f"llvm.fabs.{_suffix(x)}", args[0].type, args)
        bits, sign = _bits_and_sign(builder, x, args[0])
        return builder.bitcast(builder.and_(bits, builder.not_(sign)), args[0].type)

    if _is_real(x):
        return x(x), codegen


@intrinsic
def copy_sign(typingctx, magnitude, sign):
    """``magnitude``, which is not negative, with the sign of ``sign``."""

    def codegen(context, builder, sig, args):
        bits, mask = _bits_and_sign(builder, magnitude, args[0])
        other, _ = _bits_and_sign(builder, magnitude, args[1])
        return builder.bitcast(builder.or_(bits, builder.and_(other, mask)), args[0].type)

    if _is_real(magnitude, sign):
        return magnitude(magnitude, sign), codegen


def _bits_and_sign(builder, x, value):
    """The bits of a value, and the bit of the sign: NVIDIA's compiler has no fabs or copysign among its intrinsics."""
    integer, sign = ir.IntType(_element(x).bitwidth), 1 << (_element(x).bitwidth - 1)
    if isinstance(x, Lanes):
        integer, sign = ir.VectorType(integer, x.count), [sign] * x.count
    return builder.bitcast(value, integer), ir.Constant(integer, sign)


@intrinsic
def power_of_two(typingctx, anchored):
    """2 ** n from ``anchored = n + anchor``, the anchor being 1.5 * 2**m + bias with m bits in the significand.

    The low bits of such a number are n + bias, the exponent field of 2**n: no conversion to integers is needed.
    """

    def codegen(context, builder, sig, args):
        integer = ir.IntType(_element(anchored).bitwidth)
        shift = ir.Constant(integer, SIGNIFICAND[_element(anchored)])
        if isinstance(anchored, Lanes):
            integer, shift = ir.VectorType(integer, anchored.count), splat(builder, shift, anchored.count)
        return builder.bitcast(builder.shl(builder.bitcast(args[0], integer), shift), args[0].type)

    if _is_real(anchored):
        return anchored(anchored), codegen


@intrinsic
def reciprocal(typingctx, x):
    """1 / x for x of normal size with a normal reciprocal."""

    def codegen(context, builder, sig, args):
        one = ir.Constant(args[0].type, [1.0] * x.count if isinstance(x, Lanes) else 1.0)
        return _quotient(builder, x, one, args[0])

    if _is_real(x):
        return x(x), codegen


@intrinsic
def quotient(typingctx, power, x):
    """``power / x``, where the former is a power of two, for x of normal size with a normal reciprocal."""
    if _is_real(power, x):
        return x(power, x), lambda context, builder, sig, args: _quotient(builder, x, *args)


def _quotient(builder, x, power, value):
    """AVX-512 has a 14-bit estimate, and each Newton step doubles its digits: cheaper by half than a division."""
    if not (isinstance(x, Lanes) and MACHINE.register_bytes == 64):
        return builder.fdiv(power, value)
    single = x.dtype == types.float32
    name, mask = ("llvm.x86.avx512.rcp14.ps.512", 16) if single else ("llvm.x86.avx512.rcp14.pd.512", 8)
    every, zeros = ir.Constant(ir.IntType(mask), -1), ir.Constant(LANES[x.dtype].vector, [0.0] * mask)
    y = _as_one(
        builder,
        [llvm_call(builder, name, one.type, [one, zeros, every]) for one in _registers(builder, value, mask)],
    )
    minus_x, one = builder.fneg(value), ir.Constant(x.vector, [1.0] * x.count)
    for _ in range(1 if single else 2):
        y = fused(builder, x, y, fused(builder, x, minus_x, y, one), y)
    return builder.fmul(power, y)


@intrinsic
def select_less_equal(typingctx, x, y, if_less_equal, otherwise):
    """``if_less_equal`` where x <= y, ``otherwise`` elsewhere and where either is NaN."""

    def codegen(context, builder, sig, args):
        return builder.select(builder.fcmp_ordered("<=", args[0], args[1]), args[2], args[3])

    if _is_real(x, y, if_less_equal, otherwise):
        return x(x, y, if_less_equal, otherwise), codegen


@intrinsic
def select_equal(typingctx, x, y, if_equal, otherwise):
    """``if_equal`` where x == y, ``otherwise`` elsewhere and where either is NaN."""

    def codegen(context, builder, sig, args):
        return builder.select(builder.fcmp_ordered("==", args[0], args[1]), args[2], args[3])

    if _is_real(x, y, if_equal, otherwise):
        return x(x, y, if_equal, otherwise), codegen


def _chosen(builder, operator, x, y):
    """x where it compares so with y, or is NaN; else y, and so also where that is NaN."""
    either = builder.select(builder.fcmp_ordered(operator, x, y), x, y)
    return builder.select(builder.fcmp_unordered("uno", x, x), x, either)


@intrinsic
def smaller(typingctx, x, y):
    """The smaller of both; NaN where either is NaN."""
    if _is_real(x, y):
        return x(x, y), lambda context, builder, sig, args: _chosen(builder, "<", *args)


@intrinsic
def larger(typingctx, x, y):
    """The larger of both; NaN where either is NaN."""
    if _is_real(x, y):
        return x(x, y), lambda context, builder, sig, args: _chosen(builder, ">", *args)


@intrinsic
def sqrt(typingctx, x):
    """The square root of x, rounded correctly; NaN below 0."""
    if _is_real(x):
        return x(x), lambda context, builder, sig, args: llvm_call(
            builder, f"llvm.sqrt.{_suffix(x)}", args[0].type, args
        )


@intrinsic
def sum_of(typingctx, x):
    """The sum of the lanes of x: of halves, then of halves of those, ..."""

    def codegen(context, builder, sig, args):
        value, count = args[0], x.count
        while count > 1:
            count //= 2
            halves = [ir.Constant(ir.VectorType(I32, count), list(range(at, at + count))) for at in (0, count)]
            value = builder.fadd(*(builder.shuffle_vector(value, value, half) for half in halves))
        return builder.extract_element(value, ir.Constant(I32, 0))

    if isinstance(x, Lanes):
        return x.dtype(x), codegen


@intrinsic
def split(typingctx, x):
    """(n, m) with x = m 2**n and m from sqrt(1/2) to sqrt(2), for x above 0 and of normal size.

    The bits of a float, read as an integer, grow with it. Counted from those of sqrt(1/2), the part above the
    significand is n, and what is below is how far m is from sqrt(1/2).
    """
    dtype = _element(x)
    shift = SIGNIFICAND[dtype]
    bias = (1 << (dtype.bitwidth - shift - 2)) - 1
    root = int(np.array(0.5**0.5, dtype.name).view(f"i{dtype.bitwidth // 8}"))
    anchor = 1.5 * 2.0**shift  # added to a whole number, it leaves that in the low bits, as in `power_of_two`
    anchor_bits = int(np.array(anchor, dtype.name).view(f"i{dtype.bitwidth // 8}"))

    def codegen(context, builder, sig, args):
        real, integer = args[0].type, ir.IntType(dtype.bitwidth)
        if isinstance(x, Lanes):
            integer = ir.VectorType(integer, x.count)

        def every(kind, value):
            return ir.Constant(kind, [value] * x.count if isinstance(x, Lanes) else value)

        bits = builder.add(builder.bitcast(args[0], integer), every(integer, (bias << shift) - root))
        biased = builder.add(builder.lshr(bits, every(integer, shift)), every(integer, anchor_bits))
        n = builder.fsub(builder.bitcast(biased, real), every(real, anchor + bias))
        below = builder.and_(bits, every(integer, (1 << shift) - 1))
        m = builder.bitcast(builder.add(below, every(integer, root)), real)
        return context.make_tuple(builder, sig.return_type, [n, m])

    if _is_real(x):
        return types.UniTuple(x, 2)(x), codegen
