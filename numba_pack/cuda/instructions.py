"""Instructions of the device that Numba has no name for, or not in this form; and what the simulator has instead.

Four neighbouring elements are loaded at once: 16 bytes of float32, for which one instruction of a warp does where four
would. They must lie at a multiple of their size in memory.

The barrier of some blocks of a kernel is a counter in memory that all of them raise and wait for. What a block wrote
before it arrived, others see after they waited: the counter is raised with *release* and read with *acquire*.
"""

from __future__ import annotations

import threading
from typing import Any

from numba import types
from numba.core.typing import signature

from .._jit import inner
from .device import SIMULATED

__all__ = ["all_here", "arrive", "copies_done", "copy4", "exchange", "fma", "load4", "raised", "store4"]

if SIMULATED:
    # Threads of the simulator are Python's, and a block is a single warp.

    def fma(a: Any, b: Any, c: Any) -> Any:
        """``a * b + c``, rounded once."""
        return a * b + c

    def all_here() -> None:
        """Wait for all threads of the block."""
        thread: Any = threading.current_thread()
        thread.syncthreads()

    def load4(array: Any, at: Any) -> tuple[Any, ...]:
        """The four elements from this index on: a number, or of a matrix two."""
        if isinstance(at, tuple):
            return tuple(array[at[0], at[1] + k] for k in range(4))
        return tuple(array[at + k] for k in range(4))

    def store4(array: Any, at: Any, values: tuple[Any, ...]) -> None:
        """Write four elements from this index on: a number, or of a matrix two."""
        for k in range(4):
            array[(at[0], at[1] + k) if isinstance(at, tuple) else at + k] = values[k]

    def copy4(target: Any, to: Any, source: Any, row: Any, column: Any) -> None:
        """Begin to copy four elements of a row into shared memory."""
        store4(target, to, load4(source, (row, column)))

    def copies_done() -> None:
        """Wait until what this thread began to copy is there. A barrier of the block must follow."""

    _lanes: dict[int, Any] = {}

    def exchange(value: Any, mask: int) -> Any:
        """The value of the lane whose number differs from this one's in the bits of the mask."""
        thread: Any = threading.current_thread()
        lane = thread.threadIdx.x
        _lanes[lane] = value
        thread.syncthreads()
        found = _lanes[lane ^ mask]
        thread.syncthreads()
        return found

    def arrive(counters: Any, i: Any) -> None:
        """Raise a counter by one, behind all that the block has written."""
        counters[i] += 1

    def raised(counters: Any, i: Any) -> Any:
        """The present value of a counter, before all that the block reads from now on."""
        return counters[i]

else:
    from llvmlite import ir
    from numba import cuda
    from numba.cuda.extending import intrinsic

    _INT32, _INT64, _VOID = ir.IntType(32), ir.IntType(64), ir.VoidType()
    _SHARED = 3  # the address space of shared memory

    def _address(context: Any, builder: Any, array_type: Any, array: Any, at: Any) -> Any:
        """The address of an element of a C-contiguous array; indices are not negative."""
        parts = context.make_array(array_type)(context, builder, array)
        i = at[0]
        if array_type.ndim == 2:
            i = builder.add(builder.mul(at[0], builder.extract_value(parts.shape, 1)), at[1])
        return builder.gep(parts.data, [i])

    def _place(array: Any) -> Any:
        """The type of an index: a number, or of a matrix two."""
        return types.int64 if array.ndim == 1 else types.UniTuple(types.int64, 2)

    def _index(builder: Any, array: Any, at: Any) -> list[Any]:
        """The numbers of such an index."""
        return [at] if array.ndim == 1 else [builder.extract_value(at, axis) for axis in range(2)]

    def _as_four(context: Any, address: Any, array: Any, builder: Any) -> Any:
        """The same address, of four elements."""
        vector = ir.VectorType(context.get_value_type(array.dtype), 4)
        return builder.bitcast(address, ir.PointerType(vector, address.type.addrspace))

    def _assembly(builder: Any, text: str, constraints: list[str], result: Any, *arguments: Any) -> Any:
        kind = ir.FunctionType(result, [argument.type for argument in arguments])
        return builder.call(
            ir.InlineAsm(kind, text, ",".join([*constraints, "~{memory}"]), side_effect=True), arguments
        )

    @intrinsic
    def load4(typingctx: Any, array: Any, at: Any) -> Any:
        """The four elements from this index on: a number, or of a matrix two."""

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            index = _index(builder, array, arguments[1])
            address = _address(context, builder, array, arguments[0], index)
            vector = builder.load(_as_four(context, address, array, builder), align=16)
            values = [builder.extract_element(vector, ir.Constant(_INT32, k)) for k in range(4)]
            return context.make_tuple(builder, signature.return_type, values)

        return signature(types.UniTuple(array.dtype, 4), array, _place(array)), generate

    @intrinsic
    def store4(typingctx: Any, array: Any, at: Any, values: Any) -> Any:
        """Write four elements from this index on: a number, or of a matrix two."""

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            index = _index(builder, array, arguments[1])
            address = _as_four(context, _address(context, builder, array, arguments[0], index), array, builder)
            vector = ir.Constant(address.type.pointee, ir.Undefined)
            for k in range(4):
                value = builder.extract_value(arguments[2], k)
                vector = builder.insert_element(vector, value, ir.Constant(_INT32, k))
            builder.store(vector, address, align=16)
            return context.get_dummy_value()

        return signature(types.void, array, _place(array), values), generate

    @intrinsic
    def copy4(typingctx: Any, target: Any, to: Any, source: Any, row: Any, column: Any) -> Any:
        """Begin to copy four elements of a row into shared memory."""

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            of = _address(context, builder, source, arguments[2], arguments[3:])
            at = _address(context, builder, target, arguments[0], arguments[1:2])
            at = builder.addrspacecast(at, ir.PointerType(at.type.pointee, _SHARED))
            at, of = builder.ptrtoint(at, _INT32), builder.ptrtoint(of, _INT64)
            for byte in range(0, 4 * source.dtype.bitwidth // 8, 16):
                text = f"cp.async.cg.shared.global [$0 + {byte}], [$1 + {byte}], 16;"
                _assembly(builder, text, ["r", "l"], _VOID, at, of)
            return context.get_dummy_value()

        return signature(types.void, target, types.int64, source, types.int64, types.int64), generate

    @intrinsic
    def copies_done(typingctx: Any) -> Any:
        """Wait until what this thread began to copy is there. A barrier of the block must follow."""

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            _assembly(builder, "cp.async.wait_all;", [], _VOID)
            return context.get_dummy_value()

        return signature(types.void), generate

    @inner
    def fma(a: Any, b: Any, c: Any) -> Any:
        """``a * b + c``, rounded once."""
        return cuda.fma(a, b, c)

    @inner
    def all_here() -> None:
        """Wait for all threads of the block."""
        cuda.syncthreads()

    @inner
    def exchange(value: Any, mask: Any) -> Any:
        """The value of the lane whose number differs from this one's in the bits of the mask."""
        return cuda.shfl_xor_sync(0xFFFFFFFF, value, mask)

    @intrinsic
    def arrive(typingctx: Any, counters: Any, i: Any) -> Any:
        """Raise a counter by one, behind all that the block has written."""

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            at = builder.ptrtoint(_address(context, builder, counters, arguments[0], arguments[1:]), _INT64)
            one = ir.Constant(_INT32, 1)
            _assembly(builder, "red.release.gpu.global.add.u32 [$0], $1;", ["l", "r"], _VOID, at, one)
            return context.get_dummy_value()

        return signature(types.void, counters, types.int64), generate

    @intrinsic
    def raised(typingctx: Any, counters: Any, i: Any) -> Any:
        """The present value of a counter, before all that the block reads from now on."""

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            at = builder.ptrtoint(_address(context, builder, counters, arguments[0], arguments[1:]), _INT64)
            return _assembly(builder, "ld.acquire.gpu.global.u32 $0, [$1];", ["=r", "l"], _INT32, at)

        return signature(types.int32, counters, types.int64), generate
