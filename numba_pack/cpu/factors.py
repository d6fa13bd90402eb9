"""What the factors of products are, and how many words they take.

The factors of a layer's products are those of its cell's variant: floats of the layer's dtype, or float32 in a shorter
form (`FACTORS`). Of the shorter ones, rows and panels are made of words of 32 bits: of two bfloat16, or of four
integers of 8 bits. So a word takes the place that a float32 has otherwise, and a sum of k products is one over k / 2 or
k / 4 words. Sums, and what is computed of them, are float32 in any case.

- *bfloat16x2, bfloat16x3*: a number is the sum of so many parts in bfloat16, each of what the parts before have left. A
  row is part after part.
- *int8*: a row of numbers is a scale times whole numbers from -127 to 127. Of the panels, each column has its scale. Of
  rows that are multiplied by them each has one, in the word before its first; their numbers have 128 added, since the
  instructions take them without a sign.
- Where the matrix unit multiplies, rows are whole tiles of 16 words, with zeros at the end.

Rows are made in *room* of the library's own (``factor_rows.py``). So tiles may read whole tiles of 16 rows, whatever is
in them. How weights become panels of words is in ``factor_weights.py``.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import numpy as np
from numba import types
from numba.core.imputils import lower_constant
from numba.extending import NativeValue, intrinsic, models, register_model, typeof_impl, unbox

from .._jit import fact, inner, overload
from ..simd.machine import DOTS

__all__ = [
    "HEAD",
    "TILE",
    "Factors",
    "FactorsType",
    "deep",
    "factors_of",
    "is_float",
    "is_int8",
    "on_tiles",
    "parts_of",
    "place_of_word",
    "room_size",
    "row_words",
    "words_of",
]

#: numbers in a word, where they are not two
IN_A_WORD = {"int8": 4}
PARTS = {"bfloat16x2": 2, "bfloat16x3": 3}
#: words in a row of the matrix unit's tiles, and rows of a tile
TILE = 16
#: rows that panels of int8 begin with: scales, and what sums begin with
HEAD = 2


class Factors(NamedTuple):
    """What the factors are, as Python passes it to compiled code."""

    kind: str
    #: of the layer
    dtype: str

    @property
    def itemsize(self) -> int:
        """Bytes of a number, and of a word."""
        return np.dtype(self.dtype).itemsize


class FactorsType(types.Type):
    """The same as a type, of a value that is nothing."""

    def __init__(self, kind: str, dtype: Any) -> None:
        self.kind, self.dtype = kind, dtype
        self.parts = PARTS.get(kind, 1)
        #: whether the matrix unit multiplies them
        self.on_tiles = kind != "float" and (self.parts > 1 or getattr(DOTS, kind) == "amx")
        super().__init__(f"factors({kind}, {dtype})")

    @classmethod
    @functools.cache
    def of(cls, factors: Factors) -> FactorsType:
        """The type of what Python passes: kept, since every call of compiled code asks for it."""
        return cls(factors.kind, getattr(types, factors.dtype))


register_model(FactorsType)(models.OpaqueModel)


@typeof_impl.register(Factors)
def _typeof(value, context):
    return FactorsType.of(value)


@unbox(FactorsType)
def _unbox(typ, obj, c):
    return NativeValue(c.context.get_dummy_value())


@lower_constant(FactorsType)
def _constant(context, builder, kind, value):
    return context.get_dummy_value()


@intrinsic
def factors_of(typingctx, weights):
    """The factors of the products of these weights."""
    kind = FactorsType(weights.instance_class.cell.factors, weights[0].dtype)
    return kind(weights), lambda context, builder, sig, args: context.get_dummy_value()


# -- facts of the factors, constants in compiled code ------------------------------------------------------------------


is_float = fact(lambda factors: factors.kind == "float")
is_int8 = fact(lambda factors: factors.kind == "int8")
on_tiles = fact(lambda factors: factors.on_tiles)
parts_of = fact(lambda factors: factors.parts)


def words_of(factors, k):
    """Words of one part of a row of k numbers."""
    return _words_of(FactorsType.of(factors), k)(factors, k)


def deep(factors, k):
    """Rows of words that a panel of k rows of numbers has."""
    return _deep(FactorsType.of(factors), k)(factors, k)


@overload(words_of)
def _words_of(factors, k):
    if factors.kind == "float":  # the kind of most, which is spared the compiling
        return lambda factors, k: k
    per, whole = IN_A_WORD.get(factors.kind, 2), TILE if factors.on_tiles else 1
    return lambda factors, k: ((k + per - 1) // per + whole - 1) // whole * whole


@overload(deep)
def _deep(factors, k):
    if factors.kind == "float":
        return lambda factors, k: k
    parts, head = factors.parts, HEAD if factors.kind == "int8" else 0
    return lambda factors, k: parts * words_of(factors, k) + head


@inner
def place_of_word(factors, kk, part):
    """The row of a panel that has word kk of a part: tile by tile of k, each part after part."""
    if parts_of(factors) == 1:
        return kk
    return (kk // TILE * parts_of(factors) + part) * TILE + kk % TILE


@inner
def row_words(factors, k):
    """Words from row to row of factors: a multiple of a tile's, with a tile for the scale."""
    return (parts_of(factors) * words_of(factors, k) + TILE - 1) // TILE * TILE + TILE * is_int8(factors)


def room_size(factors, rows, k):
    """Elements of room for so many rows of k numbers, in whole tiles of rows; of floats none is needed."""
    raise NotImplementedError


@overload(room_size)
def _room_size(factors, rows, k):
    if factors.kind == "float":
        return lambda factors, rows, k: 0
    return lambda factors, rows, k: row_words(factors, k) * ((rows + TILE - 1) // TILE * TILE)
