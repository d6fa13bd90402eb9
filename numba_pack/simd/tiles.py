"""The matrix unit of x86-64, AMX: eight registers that each hold a tile, 16 rows of 16 words of 32 bits.

One instruction multiplies two tiles and adds the product to a third. A word is two numbers in bfloat16, or four
integers of 8 bits, of one row of the left tile and of one column of the right one. Of sums and of right tiles a row is
one vector: fewer words where that is shorter, which is so in plain loops alone.

Where the unit is missing, plain loops do the same, bit for bit, in the kernels' mode (see ``modes.py``). Then ``file``,
the first argument of each function, is the address of the registers (`register_file`); of the instructions it is None.

The registers' shape is that of a thread, so a kernel begins with `configure` and ends with `release`. No function of
another library may be called in between, since it may use the unit, too.
"""

from __future__ import annotations

from itertools import product

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from .lanes import I32, I64, LANES, fused, llvm_call, load_vector, splat, store_vector

__all__ = [
    "TILE",
    "configure",
    "dot_bfloat16",
    "dot_int8",
    "left_tile_load",
    "register_file",
    "release",
    "tile_load",
    "tile_room",
    "tile_store",
    "tile_zero",
]

#: rows of a tile, and words of a row of a left one
TILE = 16
#: the registers that a product may name: of its sums, of the left tile, and of the right one
PRODUCTS = [c for c in product(range(6), range(4, 7), range(6, 8)) if len(set(c)) == 3]
EACH = [(n,) for n in range(8)]
#: a row of a register in memory, and a register
ROW_BYTES, REGISTER_BYTES = 64, 1024

FLOAT = LANES[types.float32]
WORDS = ir.VectorType(I32, FLOAT.count)
I8 = ir.IntType(8)
BYTE = I8.as_pointer()


def _shape():
    """What `configure` loads: palette 1, then for each register the bytes of a row, and the rows."""
    shape = np.zeros(64, np.uint8)
    shape[0] = 1
    shape[16:32].view(np.uint16)[:] = ROW_BYTES
    shape[48:56] = TILE
    return shape.tolist()


# -- instructions ------------------------------------------------------------------------------------------------------


def _instruction(builder, name, numbers, *operands):
    """An instruction, by the numbers of its registers."""
    llvm_call(builder, f"llvm.x86.{name}", ir.VoidType(), [*[ir.Constant(I8, n) for n in numbers], *operands])


def _of_number(builder, name, numbers, choices, *operands):
    """An instruction for registers whose numbers are in the code, where LLVM keeps the one instruction of them."""
    end = builder.append_basic_block("end")
    unknown = builder.append_basic_block("unknown")
    key = numbers[0]
    for number in numbers[1:]:
        key = builder.add(builder.mul(key, ir.Constant(I64, 8)), number)
    switch = builder.switch(key, unknown)
    for choice in choices:
        block = builder.append_basic_block(name)
        switch.add_case(ir.Constant(I64, sum(n * 8**i for i, n in enumerate(reversed(choice)))), block)
        builder.position_at_end(block)
        _instruction(builder, name, choice, *operands)
        builder.branch(end)
    builder.position_at_end(unknown)
    builder.unreachable()
    builder.position_at_end(end)


# -- plain loops -------------------------------------------------------------------------------------------------------


def _row(builder, at, row):
    return builder.add(at, builder.mul(row, ir.Constant(I64, ROW_BYTES)))


def _register(builder, file, n):
    return builder.add(file, builder.mul(n, ir.Constant(I64, REGISTER_BYTES)))


def _words_at(builder, at, kind):
    words = builder.load(builder.inttoptr(at, kind.as_pointer()))
    words.align = 4
    return words


def _every_row(builder):
    return cgutils.for_range(builder, ir.Constant(I64, TILE))


def _moved(builder, file, n, size, there):
    """Copy a register from or to memory, ``size`` bytes a row; of its place and a row ``there`` gives (to, from)."""
    in_register = _register(builder, file, n)
    with _every_row(builder) as loop:
        to, source = there(_row(builder, in_register, loop.index), loop.index)
        pointers = builder.inttoptr(to, BYTE), builder.inttoptr(source, BYTE)
        cgutils.raw_memcpy(builder, *pointers, ir.Constant(I64, size), 1)


def _sum_pairs(builder, x, y, sums):
    """Products of pairs of bfloat16: those of the first numbers are summed, those of the second, then both."""
    half, upper = ir.Constant(I32, 16), ir.Constant(I32, -65536)

    def first(words, every):
        return builder.shl(words, every(half))

    def second(words, every):
        return builder.and_(words, every(upper))

    def product_of(part, total):
        scalar = builder.bitcast(part(x, lambda value: value), ir.FloatType())
        vector = builder.bitcast(part(y, lambda value: splat(builder, value, FLOAT.count)), FLOAT.vector)
        return fused(builder, FLOAT, splat(builder, scalar, FLOAT.count), vector, total)

    return [product_of(part, total) for part, total in zip((first, second), sums, strict=True)]


def _sum_bytes(builder, x, y, sums):
    """Products of four integers, without a sign those of x, with one those of y."""
    total = sums[0]
    for i in range(4):
        byte = builder.and_(builder.lshr(x, ir.Constant(I32, 8 * i)), ir.Constant(I32, 255))
        up, down = (splat(builder, ir.Constant(I32, n), FLOAT.count) for n in (24 - 8 * i, 24))
        signed = builder.ashr(builder.shl(y, up), down)
        total = builder.add(total, builder.mul(splat(builder, byte, FLOAT.count), signed))
    return [total]


def _add_pairs(builder, at, sums):
    total = builder.fadd(load_vector(builder, at, FLOAT), builder.fadd(*sums))
    store_vector(builder, total, at, FLOAT)


def _add_bytes(builder, at, sums):
    total = builder.add(_words_at(builder, at, WORDS), sums[0])
    builder.store(total, builder.inttoptr(at, WORDS.as_pointer())).align = 4


def _plain(builder, name, zeros, summed, add, registers):
    """Call the plain loops of a product of tiles, a function that each module has for itself."""
    kind = ir.FunctionType(ir.VoidType(), [I64] * 3)
    function = cgutils.get_or_insert_function(builder.module, kind, f"numba_pack_{name}")
    if function.is_declaration:
        function.linkage = "internal"
        function.attributes.add("noinline")
        _build(ir.IRBuilder(function.append_basic_block()), function.args, zeros, summed, add)
    builder.call(function, registers)


def _build(builder, registers, zeros, summed, add):
    total, rows, columns = registers
    places = [cgutils.alloca_once(builder, zero.type) for zero in zeros]
    with _every_row(builder) as of_rows:
        for zero, place in zip(zeros, places, strict=True):
            builder.store(zero, place)
        with _every_row(builder) as of_words:
            word = builder.mul(of_words.index, ir.Constant(I64, 4))
            x = _words_at(builder, builder.add(_row(builder, rows, of_rows.index), word), I32)
            y = _words_at(builder, _row(builder, columns, of_words.index), WORDS)
            after = summed(builder, x, y, [builder.load(place) for place in places])
            for value, place in zip(after, places, strict=True):
                builder.store(value, place)
        add(builder, _row(builder, total, of_rows.index), [builder.load(place) for place in places])
    builder.ret_void()


# -- both --------------------------------------------------------------------------------------------------------------


def _room(size):
    """An intrinsic that gives the address of so many bytes on the stack of the calling function, whatever they are."""

    def codegen(context, builder, sig, args):
        with builder.goto_entry_block():  # Numba's own function for this would fill it with zeros
            room = builder.alloca(ir.ArrayType(I8, size))
            room.align = 64
        return builder.ptrtoint(room, I64)

    return intrinsic(lambda typingctx: (types.intp(), codegen))


#: where plain loops have the registers
register_file = _room(8 * REGISTER_BYTES)
#: where a tile lies that is part of no matrix
tile_room = _room(REGISTER_BYTES)


@intrinsic
def configure(typingctx, file):
    """Give the registers their shapes."""

    def codegen(context, builder, sig, args):
        if file == types.none:
            shape = ir.Constant(ir.ArrayType(I8, 64), _shape())
            at = cgutils.global_constant(builder, "shape_of_tiles", shape)
            _instruction(builder, "ldtilecfg", (), builder.bitcast(at, BYTE))
        return context.get_dummy_value()

    return types.void(file), codegen


@intrinsic
def release(typingctx, file):
    """Let go of the unit: what is in the registers is lost."""

    def codegen(context, builder, sig, args):
        if file == types.none:
            _instruction(builder, "tilerelease", ())
        return context.get_dummy_value()

    return types.void(file), codegen


@intrinsic
def tile_zero(typingctx, file, n):
    """Set a register to zeros."""

    def codegen(context, builder, sig, args):
        if file == types.none:
            _of_number(builder, "tilezero", args[1:], EACH)
        else:
            at = builder.inttoptr(_register(builder, *args), BYTE)
            cgutils.memset(builder, at, ir.Constant(I64, REGISTER_BYTES), 0)
        return context.get_dummy_value()

    return types.void(file, types.intp), codegen


def _loads(size):
    """In LLVM, of the arguments of `tile_load`: fill a register with rows of so many bytes."""

    def codegen(context, builder, sig, args):
        file, n, start, stride = args
        if sig.args[0] == types.none:
            _of_number(builder, "tileloadd64", [n], EACH, builder.inttoptr(start, BYTE), stride)
        else:
            _moved(builder, file, n, size, lambda row, i: (row, builder.add(start, builder.mul(i, stride))))
        return context.get_dummy_value()

    return codegen


@intrinsic
def tile_load(typingctx, file, n, at, stride):
    """Fill a register with vectors from an address on, ``stride`` bytes apart: sums, or a right tile."""
    return types.void(file, types.intp, types.intp, types.intp), _loads(FLOAT.count * 4)


@intrinsic
def left_tile_load(typingctx, file, n, at, stride):
    """Fill a register with a left tile, rows of 16 words from an address on, ``stride`` bytes apart."""
    return types.void(file, types.intp, types.intp, types.intp), _loads(ROW_BYTES)


@intrinsic
def tile_store(typingctx, file, n, at, stride):
    """Write the vectors of a register from an address on, ``stride`` bytes apart."""

    def codegen(context, builder, sig, args):
        file_at, number, start, apart = args
        if file == types.none:
            _of_number(builder, "tilestored64", [number], EACH, builder.inttoptr(start, BYTE), apart)
        else:
            size = FLOAT.count * 4
            _moved(builder, file_at, number, size, lambda row, i: (builder.add(start, builder.mul(i, apart)), row))
        return context.get_dummy_value()

    return types.void(file, types.intp, types.intp, types.intp), codegen


def _dot(builder, file, name, zeros, summed, add, args):
    if file == types.none:
        _of_number(builder, name, args[1:], PRODUCTS)
    else:
        registers = [_register(builder, args[0], n) for n in args[1:]]
        _plain(builder, name, zeros, summed, add, registers)


@intrinsic
def dot_bfloat16(typingctx, file, c, a, b):
    """c += a @ b, the words of a and b two numbers each. Each row's products are summed from 0, then added to c.

    Rounding is to the nearest, and denormal numbers are zeros: the instruction knows no other mode.
    """

    def codegen(context, builder, sig, args):
        zeros = [ir.Constant(FLOAT.vector, [0.0] * FLOAT.count)] * 2
        _dot(builder, file, "tdpbf16ps", zeros, _sum_pairs, _add_pairs, args)
        return context.get_dummy_value()

    return types.void(file, types.intp, types.intp, types.intp), codegen


@intrinsic
def dot_int8(typingctx, file, c, a, b):
    """c += a @ b, the words of a and b four integers each: without a sign those of a, with one those of b."""

    def codegen(context, builder, sig, args):
        zeros = [ir.Constant(WORDS, [0] * FLOAT.count)]
        _dot(builder, file, "tdpbusd", zeros, _sum_bytes, _add_bytes, args)
        return context.get_dummy_value()

    return types.void(file, types.intp, types.intp, types.intp), codegen
