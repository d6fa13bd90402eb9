"""What a tile does with one step along k: it adds to each sum the product of a broadcast factor and one of a vector.

One class for each form that factors have and each instruction that takes them; all of their methods make LLVM's code.
`dots_of` chooses.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types

from ..simd.lanes import FLOATS, I32, I64, LANES, fused, llvm_call, load_vector, splat
from ..simd.machine import DOTS
from ..simd.short import BFLOAT16, even_half, odd_half

__all__ = ["dots_of"]


class Floats:
    """Factors and sums are floats of one dtype."""

    #: whether sums are integers, which begin with a row of the panel and are scaled at their end
    scaled = False

    def __init__(self, dtype: Any) -> None:
        self.lanes = LANES[dtype]
        self.size = dtype.bitwidth // 8
        self.sum = self.lanes.vector

    def broadcast(self, b, at):
        """The factor at an address, in every lane."""
        x = b.load(b.inttoptr(at, FLOATS[self.lanes.dtype].as_pointer()))
        x.align = self.size
        return splat(b, x, self.lanes.count)

    def floats(self, b, at):
        """The vector of floats at an address."""
        return load_vector(b, at, self.lanes)

    def weights(self, b, at):
        """The vector of factors at an address."""
        return self.floats(b, at)

    def add(self, b, x, w, total):
        """The sum and the product."""
        return fused(b, self.lanes, x, w, total)


class _Words(Floats):
    """Factors are words, sums float32."""

    def __init__(self) -> None:
        super().__init__(types.float32)
        self.words = ir.VectorType(I32, self.lanes.count)

    def broadcast(self, b, at):
        return splat(b, self._word(b, at), self.lanes.count)

    def weights(self, b, at):
        return b.bitcast(self.floats(b, at), self.words)

    def _word(self, b, at):
        word = b.load(b.inttoptr(at, I32.as_pointer()))
        word.align = 4
        return word

    def _wide(self, b, words, kind, times):
        return b.bitcast(words, ir.VectorType(kind, times * self.lanes.count))


class Pairs(_Words):
    """Two in bfloat16, by the instruction that adds the products of both."""

    def add(self, b, x, w, total):
        name = f"llvm.x86.avx512bf16.dpbf16ps.{32 * self.lanes.count}"
        return llvm_call(b, name, self.sum, [total, self._wide(b, x, BFLOAT16, 2), self._wide(b, w, BFLOAT16, 2)])


class WidenedPairs(_Words):
    """Two in bfloat16, each made a float32."""

    def broadcast(self, b, at):
        word = self._word(b, at)
        return [splat(b, half(b, word), self.lanes.count) for half in (even_half, odd_half)]

    def weights(self, b, at):
        words = super().weights(b, at)
        return [even_half(b, words), odd_half(b, words)]

    def add(self, b, x, w, total):
        for one, other in zip(x, w, strict=True):
            total = fused(b, self.lanes, one, other, total)
        return total


class Bytes(_Words):
    """Four integers of 8 bits, those of rows without a sign, by the instruction that adds their four products."""

    scaled = True
    name = "llvm.x86.avx512.vpdpbusd"

    def __init__(self) -> None:
        super().__init__()
        self.sum = self.words

    def add(self, b, x, w, total):
        return llvm_call(b, f"{self.name}.{32 * self.lanes.count}", self.sum, [total, x, w])

    def scaled_sum(self, b, total, column_scale, row_scale, start):
        """start + total * (column_scale * row_scale)."""
        return fused(b, self.lanes, b.sitofp(total, self.lanes.vector), b.fmul(column_scale, row_scale), start)

    def row_scale(self, b, row):
        """The scale of a row, which stands in the word before it."""
        return super(_Words, self).broadcast(b, b.sub(row, ir.Constant(I64, 4)))


class WidenedBytes(Bytes):
    """The same by the sums of two products of 16 bits each, which every machine has."""

    def broadcast(self, b, at):
        return self._halves(b, super().broadcast(b, at), b.lshr)

    def weights(self, b, at):
        return self._halves(b, super().weights(b, at), b.ashr)

    def _halves(self, b, words, shift):
        """The first and third byte of each word in 16 bits, and the second and fourth."""
        short = self._wide(b, words, ir.IntType(16), 2)
        eight = ir.Constant(short.type, [8] * short.type.count)
        return [shift(b.shl(short, eight), eight), shift(short, eight)]

    def add(self, b, x, w, total):
        count = self.lanes.count
        wide = ir.VectorType(I32, 2 * count)
        for one, other in zip(x, w, strict=True):
            product = b.mul(b.sext(one, wide), b.sext(other, wide))
            first, second = (
                b.shuffle_vector(product, product, ir.Constant(self.words, list(range(at, 2 * count, 2))))
                for at in (0, 1)
            )
            total = b.add(total, b.add(first, second))
        return total


def dots_of(factors: Any) -> Floats:
    """Those of factors, a `FactorsType`."""
    if factors.kind == "float":
        return Floats(factors.dtype)
    if factors.kind == "bfloat16":
        return Pairs() if DOTS.bfloat16 == "avx512_bf16" else WidenedPairs()
    return WidenedBytes() if DOTS.int8 == "widened" else Bytes()
