"""What the public functions refuse: a table of calls, each with the error and the words that its message must hold.

``test_bad_input.py`` runs the table in processes of their own, so that a crash is seen as one. As a script it runs the
groups that are named, or all: a line with the number and the name of a case before the call, one with the outcome
after it.
"""

# ruff: noqa: E731 -- a table of calls is a table of lambdas

import ctypes
import importlib.util
import itertools
import math
import os
import pickle
import sys
import tempfile
import warnings
from typing import NamedTuple

import numpy as np
from numba import njit
from numba.core.errors import TypingError

import numba_pack as nbp

try:
    import torch
except ImportError:
    torch = None

F4 = np.float32


class Case(NamedTuple):
    what: str
    error: type
    words: tuple
    call: object


ROWS = np.arange(12.0, dtype=F4).reshape(6, 2)
PADDED = np.ones((4, 3, 2), F4)
PACKED = nbp.pack_sequence([ROWS[:2], ROWS[:3], ROWS[:1]])  # batch sizes 3, 2, 1
NO_BYTES = np.zeros((2**40, 0), F4)
HUGE = np.broadcast_to(F4(0), (2**20, 2**20, 2))  # of one number, as long as nobody copies it
HUGE_SYMBOLS = np.broadcast_to(0, (2**20, 2**20))
LAYERS = {"RNN": nbp.RNN(2, 5, rng=0), "LSTM": nbp.LSTM(2, 5, proj_size=3, rng=0), "GRU": nbp.GRU(2, 5, 2, rng=0)}
CELLS = {"RNNCell": nbp.RNNCell(2, 5, rng=0), "LSTMCell": nbp.LSTMCell(2, 5, rng=0), "GRUCell": nbp.GRUCell(2, 5)}
RNN, LSTM, GRU = LAYERS.values()
STATES = {
    "RNN": np.ones((1, 3, 5), F4),
    "LSTM": (np.ones((1, 3, 3), F4), np.ones((1, 3, 5), F4)),
    "GRU": np.ones((2, 3, 5), F4),
}
ONE, ONE_STATE = np.ones((3, 2), F4), np.ones((3, 5), F4)
#: none of these may be changed by a call
KEPT = [ROWS, PADDED, *PACKED, *STATES["LSTM"], STATES["RNN"], STATES["GRU"], ONE, ONE_STATE] + [
    module.parameters for module in (*LAYERS.values(), *CELLS.values())
]


def index(*values, dtype=np.int64):
    return np.array(values, dtype)


def raiser(*_):
    raise RuntimeError("this has no array")


class NoArray:
    __array__ = raiser


class LostArray:
    def __array__(self, dtype=None, copy=None):
        raise KeyError("this array is lost")


# -- packing -----------------------------------------------------------------------------------------------------------

DATES = np.array([0, 1], "M8[D]")
BAD_DTYPES = {
    "object": np.array([[2.0, 1.0]], object),
    "string": np.array([["a", "b"]]),
    "bytes": np.array([[b"a", b"b"]]),
    "structured": np.zeros((1, 2), [("x", "f4")]),
    "date": DATES[None],
    "duration": np.zeros((1, 2), "m8[s]"),
    "void": np.zeros((1, 2), "V4"),
}
BAD_LENGTHS = {
    "negative": (index(1, -1, 2), ValueError, ("not be negative", "-1", "index 1")),
    "zero-dimensional": (index(3)[0], ValueError, ("one-dimensional", "()")),
    "float": (np.array([1.0, 2.0, 3.0]), TypeError, ("integers", "float64")),
    "NaN": (np.full(3, np.nan), TypeError, ("integers", "float64")),
    "bool": (np.ones(3, bool), TypeError, ("integers", "bool")),
    "beyond T": (index(1, 2, 5), ValueError, ("not exceed", "4", "got 5", "index 2")),
    "int64 sum that overflows": (np.full(3, 2**62), ValueError, ("not exceed", "4", str(2**62))),
    "uint64 near 2**64": (index(1, 2, 2**64 - 1, dtype=np.uint64), ValueError, ("int64", str(2**64 - 1))),
    "Python int beyond int64": ([1, 2, 2**64], TypeError, ("integers", "int64")),
    "least int64": (index(1, 2, -(2**63)), ValueError, ("not be negative", "index 2")),
    "complex": (np.ones(3, complex), TypeError, ("integers", "complex128")),
    "string": (["1", "2", "3"], TypeError, ("integers", "<U1")),
    "structured": (np.zeros(3, [("x", "i8")]), TypeError, ("integers", "[('x', '<i8')]")),
    "matrix": (np.ones((3, 1), int), ValueError, ("one-dimensional", "(3, 1)")),
    "too few": (index(1, 2), ValueError, ("one length for each", "3", "got 2")),
    "too many": (index(1, 2, 3, 4), ValueError, ("one length for each", "3", "got 4")),
    "None": (None, TypeError, ("integers", "object")),
    "set": ({1, 2, 3}, TypeError, ("integers", "object")),
    "masked": (np.ma.array([1, 2, 3]), TypeError, ("mask",)),
    "raises when it becomes an array": (NoArray(), TypeError, ("must be an array", "NoArray", "no array")),
}
BAD_OFFSETS = {
    "not from 0": (index(1, 6), ("start at 0", "got 1")),
    "falling": (index(0, 4, 3, 6), ("not decrease", "got 3", "index 2")),
    "beyond the rows": (index(0, 3, 7), ("end at", "6", "got 7")),
    "short of the rows": (index(0, 3), ("end at", "6", "got 3")),
    "differences that overflow": (index(0, 2**63 - 1, -(2**63), 6), ("not decrease", "index 2")),
    "empty": (index(), ("at least 2", "got 0")),
    "one": (index(0), ("at least 2", "got 1")),
}
BAD_PACKED = {
    "batch_sizes growing": (dict(batch_sizes=index(2, 3, 1)), ValueError, ("must not grow", "got 3", "index 1")),
    "batch_sizes beyond B": (dict(batch_sizes=index(4, 2)), ValueError, ("number of sequences", "got 4")),
    "batch_sizes negative": (dict(batch_sizes=index(3, -1)), ValueError, ("positive", "got -1")),
    "batch_sizes zero": (dict(batch_sizes=index(3, 3, 0)), ValueError, ("positive", "got 0")),
    "batch_sizes too small": (dict(batch_sizes=index(3, 2)), ValueError, ("sum to the rows", "6", "got 5")),
    "batch_sizes too large": (dict(batch_sizes=index(3, 3, 3)), ValueError, ("sum to the rows", "6", "got 9")),
    "batch_sizes that overflow": (dict(batch_sizes=np.full(4, 2**62)), ValueError, ("must not grow", str(2**62))),
    "batch_sizes empty": (dict(batch_sizes=index()), ValueError, ("sum to the rows", "6", "got 0")),
    "batch_sizes float": (dict(batch_sizes=np.array([3.0, 2, 1])), TypeError, ("int64", "float64")),
    "batch_sizes int32": (dict(batch_sizes=index(3, 2, 1, dtype="i4")), TypeError, ("int64", "int32")),
    "batch_sizes None": (dict(batch_sizes=None), TypeError, ("int64", "NoneType")),
    "batch_sizes matrix": (dict(batch_sizes=index(3, 2, 1)[None]), ValueError, ("one-dimensional", "(1, 3)")),
    "sorted_indices too large": (dict(sorted_indices=index(1, 0, 3)), ValueError, ("permutation", "got 3")),
    "sorted_indices negative": (dict(sorted_indices=index(1, 0, -1)), ValueError, ("permutation", "got -1")),
    "sorted_indices repeated": (dict(sorted_indices=index(1, 1, 2)), ValueError, ("inverse permutation",)),
    "sorted_indices short": (dict(sorted_indices=index(1, 0)), ValueError, ("as long as", "expected length 2")),
    "sorted_indices empty": (dict(sorted_indices=index()), ValueError, ("at least one sequence",)),
    "sorted_indices uint64": (dict(sorted_indices=index(1, 0, 2, dtype="u8")), TypeError, ("int64", "uint64")),
    "unsorted_indices wild": (dict(unsorted_indices=index(1, 0, 2**62)), ValueError, ("inverse", str(2**62))),
    "unsorted_indices long": (dict(unsorted_indices=index(1, 0, 2, 3)), ValueError, ("as long as", "got 4")),
    "unsorted_indices list": (dict(unsorted_indices=[1, 0, 2]), TypeError, ("int64", "list")),
    "data with a row less": (dict(data=ROWS[:5]), ValueError, ("sum to the rows", "5", "got 6")),
    "data zero-dimensional": (dict(data=np.array(1.0)), ValueError, ("at least 1 axes", "()")),
    "data of objects": (dict(data=np.array([[None] * 2] * 6)), TypeError, ("dtype", "object")),
    "data list of lists that are uneven": (dict(data=[[1.0], [1.0, 2.0]]), TypeError, ("must be an array", "list")),
    "data masked": (dict(data=np.ma.array(ROWS)), TypeError, ("mask",)),
}


def lie(fields):
    return PACKED._replace(**fields)


def pickled_lie():
    """A PackedSequence whose pickle was tampered with."""
    return pickle.loads(pickle.dumps(PACKED).replace(index(3, 2, 1).tobytes(), index(3, 2, 2**60).tobytes()))


def packing():
    nested = nbp.pack_padded_sequence, nbp.unpad_sequence
    for name, value in BAD_DTYPES.items():
        yield Case(f"pack_sequence, {name}", TypeError, ("sequences", "dtype"), lambda v=value: nbp.pack_sequence([v]))
        yield Case(f"pack_ragged, {name}", TypeError, ("values", "dtype"), lambda v=value: nbp.pack_ragged(v, [0, 1]))
        for function, argument in zip(nested, ("input", "padded"), strict=True):
            call = lambda f=function, v=value: f(v, [1, 1])
            yield Case(f"{function.__name__}, {name}", TypeError, (argument, "dtype"), call)
    for name, (value, error, words) in BAD_LENGTHS.items():
        for function in nested:
            call = lambda f=function, v=value: f(PADDED, v)
            yield Case(f"{function.__name__}, lengths {name}", error, ("lengths", *words), call)
    for name, (value, words) in BAD_OFFSETS.items():
        call = lambda v=value: nbp.pack_ragged(ROWS, v)
        yield Case(f"pack_ragged, offsets {name}", ValueError, ("offsets", *words), call)
    takers = {
        "pad_packed_sequence": ("sequence", nbp.pad_packed_sequence),
        "unpack_sequence": ("packed", nbp.unpack_sequence),
        "unpack_ragged": ("packed", nbp.unpack_ragged),
        "check_packed": ("mine", lambda p: nbp.check_packed(p, "mine")),
        "lengths": ("self", lambda p: p.lengths),
    }
    for name, (fields, error, words) in BAD_PACKED.items():
        field = next(iter(fields))
        for function, (argument, call) in takers.items():
            words_here = (argument, "" if "sorted_indices" in field else field, *words)
            yield Case(f"{function}, {name}", error, words_here, lambda c=call, f=fields: c(lie(f)))
    yield Case("unpack_sequence, pickled lie", ValueError, ("batch_sizes", str(2**60)),
               lambda: nbp.unpack_sequence(pickled_lie()))  # fmt: skip
    for value in (tuple(PACKED), None, ROWS, "packed", nbp.PackedSequence):
        kind = type(value).__name__
        yield Case(f"unpack_ragged, {kind}", TypeError, ("packed must be a PackedSequence", kind),
                   lambda v=value: nbp.unpack_ragged(v))  # fmt: skip

    lists = {
        "empty": ([], ValueError, ("at least one array",)),
        "one array": (ROWS, TypeError, ("list of arrays", "ndarray")),
        "text": ("abc", TypeError, ("list of arrays", "str")),
        "number": (3, TypeError, ("list of arrays", "int")),
        "mapping": ({0: ROWS}, TypeError, ("list of arrays", "dict")),
        "packed": (PACKED, TypeError, ("list of arrays", "PackedSequence")),
        "list of packed": ([PACKED, PACKED], TypeError, ("sequences[0]", "must be an array")),
        "two dtypes": ([ROWS, ROWS.astype("f8")], TypeError, ("agree in dtype", "float32, float64")),
        "two widths": ([ROWS, ROWS[:, :1]], ValueError, ("agree in shape", "(6, 1)", "index 1")),
        "two ranks": ([ROWS, ROWS[:, 0]], ValueError, ("agree in shape", "(6,)", "index 1")),
        "scalar": ([F4(1)], ValueError, ("agree in shape", "()", "index 0")),
        "None inside": ([ROWS, None], ValueError, ("sequences[1] is missing",)),
        "None in a list": ([[1.0], [2.0, None]], ValueError, ("sequences[1][1] is missing",)),
        "NaN for an array": ([ROWS, math.nan], ValueError, ("sequences[1] is missing",)),
        "object array of two axes": (np.ones((2, 2), object), TypeError, ("list of arrays", "ndarray")),
        "uneven lists": ([[[1.0], [1.0, 2.0]]], TypeError, ("sequences[0]", "must be an array")),
        "raises when it becomes an array": ([NoArray()], TypeError, ("sequences[0]", "NoArray")),
        "masked": ([np.ma.array(ROWS)], TypeError, ("sequences[0]", "mask")),
        "rows of no bytes, 2**40 of them": ([NO_BYTES], ValueError, ("fit into memory", str(2**40))),
    }
    for name, (value, error, words) in lists.items():
        for function in (nbp.pack_sequence, nbp.pad_sequence):
            yield Case(f"{function.__name__}, {name}", error, ("sequences", *words), lambda f=function, v=value: f(v))
    tall = NO_BYTES[:, None]
    yield Case("pack_padded_sequence, rows of no bytes", ValueError, ("lengths", "fit into memory", str(2**40)),
               lambda: nbp.pack_padded_sequence(tall, [2**40]))  # fmt: skip
    yield Case("unpad_sequence, rows of no bytes", ValueError, ("lengths", "fit into memory", str(2**40)),
               lambda: nbp.unpad_sequence(tall, [2**40]))  # fmt: skip
    yield Case("pack_ragged, rows of no bytes", ValueError, ("fit into memory", str(2**40)),
               lambda: nbp.pack_ragged(NO_BYTES, [0, 2**40]))  # fmt: skip
    yield Case("pack_padded_sequence, lengths out of order", ValueError, ("lengths", "not increase", "index 1"),
               lambda: nbp.pack_padded_sequence(PADDED, [1, 2, 3], enforce_sorted=True))  # fmt: skip
    yield Case("pack_sequence, out of order", ValueError, ("sequences", "not increase", "index 1"),
               lambda: nbp.pack_sequence([ROWS[:1], ROWS], enforce_sorted=True))  # fmt: skip
    yield Case("pack_padded_sequence, no sequences", ValueError, ("lengths", "at least one sequence"),
               lambda: nbp.pack_padded_sequence(PADDED[:, :0], []))  # fmt: skip
    yield Case("pack_padded_sequence, vector", ValueError, ("input", "at least 2 axes", "(6,)"),
               lambda: nbp.pack_padded_sequence(ROWS[:, 0], [1]))  # fmt: skip
    yield Case("pack_ragged, scalar", ValueError, ("values", "at least 1 axes", "()"),
               lambda: nbp.pack_ragged(F4(1), [0, 1]))  # fmt: skip
    yield Case("pack_ragged, no offsets", TypeError, ("offsets must be given",), lambda: nbp.pack_ragged(ROWS))
    for value, error in (("parquet", ValueError), (3, TypeError), ({}, TypeError), (LSTM, TypeError)):
        yield Case(f"unpack_ragged, like={type(value).__name__}", error, ("like must be", "got"),
                   lambda v=value: nbp.unpack_ragged(PACKED, v))  # fmt: skip
    yield Case("pack_padded_sequence, more than the memory", MemoryError, ("Unable to allocate",),
               lambda: nbp.pack_padded_sequence(HUGE, np.ones(2**20, int)))  # fmt: skip
    if torch is not None:
        yield Case("pack_sequence, tensor that needs a gradient", TypeError, ("sequences[0]", "Tensor", "detach"),
                   lambda: nbp.pack_sequence([torch.ones(2, 2, requires_grad=True)]))  # fmt: skip

    for value in (1, None, "no", np.ones(1, bool)):
        shown = repr(value)
        for name, call in {
            "enforce_sorted": lambda v=value: nbp.pack_sequence([ROWS], v),
            "batch_first": lambda v=value: nbp.pad_packed_sequence(PACKED, v),
        }.items():
            yield Case(f"{name} = {shown}", TypeError, (name, "must be a bool", shown), call)
    for value in (2, 0, -1, -(2**70)):
        yield Case(f"total_length = {value}", ValueError, ("total_length", "at least 3", str(value)),
                   lambda v=value: nbp.pad_packed_sequence(PACKED, total_length=v))  # fmt: skip
    for value in (2**40, 2**62, 2**64, 2**70):
        yield Case(f"total_length = {value}", ValueError, ("total_length", "fits into memory", str(value)),
                   lambda v=value: nbp.pad_packed_sequence(PACKED, total_length=v))  # fmt: skip
    for value in (3.0, "3", True, [3], math.nan):
        yield Case(f"total_length = {value!r}", TypeError, ("total_length", "integer or None", repr(value)),
                   lambda v=value: nbp.pad_packed_sequence(PACKED, total_length=v))  # fmt: skip
    for dtype, value in (("i8", math.nan), ("i8", 0.5), ("i8", 2**63), ("u1", -1), ("?", 2), ("f4", 1e39), ("f4", 1j)):
        yield Case(f"padding_value = {value!r} in {dtype}", ValueError, ("padding_value", "representable", repr(value)),
                   lambda d=dtype, v=value: nbp.pad_sequence([ROWS.astype(d)], padding_value=v))  # fmt: skip
    for value in (None, "0", np.zeros(2), NoArray()):
        yield Case(f"padding_value = {type(value).__name__}", TypeError, ("padding_value", "must be a"),
                   lambda v=value: nbp.pad_packed_sequence(PACKED, padding_value=v))  # fmt: skip
    sided = {
        "pad_sequence": lambda side: nbp.pad_sequence([ROWS], padding_side=side),
        "pad_packed_sequence": lambda side: nbp.pad_packed_sequence(PACKED, padding_side=side),
        "pack_padded_sequence": lambda side: nbp.pack_padded_sequence(PADDED, [1, 2, 3], padding_side=side),
        "unpad_sequence": lambda side: nbp.unpad_sequence(PADDED, [1, 2, 3], padding_side=side),
    }
    for name, call in sided.items():
        for value in ("top", "", None, 1, b"left"):
            words = ("padding_side", "'right' or 'left'", repr(value))
            yield Case(f"{name}, padding_side = {value!r}", ValueError, words, lambda c=call, v=value: c(v))
    wide = lie(dict(data=np.ones((6, 3), F4)))
    for name, value, error, words in (
        ("empty", [], ValueError, ("at least one PackedSequence",)),
        ("one batch", PACKED, TypeError, ("list of PackedSequences", "PackedSequence")),
        ("number", 3, TypeError, ("list of PackedSequences", "int")),
        ("arrays", [ROWS], TypeError, ("batches[0]", "PackedSequence", "ndarray")),
        ("rows without bytes", NO_BYTES, TypeError, ("batches[0]", "PackedSequence", "ndarray")),
        ("no end", itertools.repeat(ROWS), TypeError, ("batches[0]", "PackedSequence", "ndarray")),
        ("None inside", [PACKED, None], TypeError, ("batches[1]", "NoneType")),
        ("two dtypes", [PACKED, PACKED.astype("f8")], TypeError, ("agree in dtype", "float64", "index 1")),
        ("two widths", [PACKED, wide], ValueError, ("agree in shape", "(6, 3)", "index 1")),
        ("a lie", [PACKED, lie(dict(batch_sizes=index(3, 2, 2)))], ValueError, ("batches[1].batch_sizes", "got 7")),
        ("a pickled lie", [pickled_lie()], ValueError, ("batches[0].batch_sizes", str(2**60))),
    ):
        yield Case(f"concatenate, {name}", error, ("batches", *words), lambda v=value: nbp.concatenate(v))
    for name, value, error, words in (
        ("too large", [0, 3], ValueError, ("at most 2", "got 3", "index 1")),
        ("too small", [-4], ValueError, ("at least -3", "got -4", "index 0")),
        ("far too small", [-(2**63)], ValueError, ("at least -3", str(-(2**63)))),
        ("empty", [], ValueError, ("at least one sequence",)),
        ("a short mask", [True, False], ValueError, ("length of 3", "got 2")),
        ("a mask of nothing", np.zeros(3, bool), ValueError, ("at least one sequence",)),
        ("a mask of two axes", np.ones((3, 1), bool), TypeError, ("integers", "bool")),
        ("float", [0.0], TypeError, ("integers", "float64")),
        ("uint64 near 2**64", index(2**64 - 1, dtype="u8"), ValueError, ("int64", str(2**64 - 1))),
        ("scalar", 0, ValueError, ("one-dimensional",)),
        ("slice", slice(0, 1), TypeError, ("integers", "object")),
        ("raises when it becomes an array", NoArray(), TypeError, ("must be an array", "NoArray", "no array")),
    ):
        yield Case(f"select, indices {name}", error, ("indices", *words), lambda v=value: nbp.select(PACKED, v))
    for name, (fields, error, words) in BAD_PACKED.items():
        yield Case(f"select, {name}", error, ("packed", *words), lambda f=fields: nbp.select(lie(f), [0]))
    for name, value, error, words in (
        ("float", ROWS, TypeError, ("integers", "float32")),
        ("bool", np.ones(3, bool), TypeError, ("integers", "bool")),
        ("text", "abc", TypeError, ("integers", "<U3")),
        ("no axes", 3, ValueError, ("1 or 2 dimensions", "()")),
        ("three axes", np.ones((1, 2, 3), int), ValueError, ("1 or 2 dimensions", "(1, 2, 3)")),
        ("packed", PACKED, TypeError, ("integers", "PackedSequence", "as it is")),
        ("symbols", nbp.symbols([1]), TypeError, ("integers", "Symbols", "as it is")),
        ("masked", np.ma.array([1]), TypeError, ("mask",)),
        ("raises when it becomes an array", NoArray(), TypeError, ("must be an array", "NoArray", "no array")),
    ):
        yield Case(f"symbols, {name}", error, ("array", *words), lambda v=value: nbp.symbols(v))
    for name, value, error, words in (
        ("out of range", [0, 3, 1], ValueError, ("at most 2", "got 3", "index 1")),
        ("negative", [0, -1], ValueError, ("at least 0", "got -1")),
        ("repeated", [1, 1], ValueError, ("each index once",)),
        ("float", [0.0, 1.0], TypeError, ("integers", "float64")),
        ("bool", np.array([False, True]), TypeError, ("integers", "bool")),
        ("uint64 near 2**64", index(2**64 - 1, dtype="u8"), ValueError, ("int64", str(2**64 - 1))),
        ("scalar", 0, ValueError, ("one-dimensional",)),
    ):
        call = lambda v=value: nbp.invert_permutation(v)
        yield Case(f"invert_permutation, {name}", error, ("permutation", *words), call)
    yield Case("map, fewer rows", ValueError, ("result of f", "6", "(5, 2)"), lambda: PACKED.map(lambda x: x[1:]))
    yield Case("map, no array", TypeError, ("result of f", "dtype"), lambda: PACKED.map(lambda x: None))
    yield Case("map, no function", TypeError, ("f must be a function", "3"), lambda: PACKED.map(3))
    yield Case("each, scalars", ValueError, ("sequences", "agree in shape"), lambda: PACKED.each(np.sum))
    yield Case("each, no function", TypeError, ("f must be a function", "None"), lambda: PACKED.each(None))
    for value in ("O", "U3", "nonsense", "M8[s]", [("x", "f4")], 3, None):
        yield Case(f"astype {value!r}", TypeError, ("dtype must be",), lambda v=value: PACKED.astype(v))
    yield Case("packing_report, negative", ValueError, ("lengths", "negative", "-1"), lambda: nbp.packing_report([-1]))
    yield Case("packing_report, empty", ValueError, ("lengths", "at least one"), lambda: nbp.packing_report([]))
    yield Case("packing_report, float", TypeError, ("lengths", "integers"), lambda: nbp.packing_report([1.0]))
    yield Case("packing_report, size 0", ValueError, ("hidden_size", "at least 1", "0"),
               lambda: nbp.packing_report([1], 1, 0))  # fmt: skip
    yield Case("packing_report, size of an array", TypeError, ("input_size", "integer"),
               lambda: nbp.packing_report([1], index(1, 2)))  # fmt: skip


# -- layers and cells --------------------------------------------------------------------------------------------------


def wrong_size(array, axis, change):
    shape = list(array.shape)
    shape[axis] += change
    return np.ones(shape, array.dtype)


def wrong_arrays(array):
    """Arrays that do not do where this one does, each with the error and the words for it."""
    for axis in range(array.ndim):
        for change in (-1, 1):
            wrong = wrong_size(array, axis, change)
            yield (
                f"axis {axis} of {wrong.shape[axis]}",
                wrong,
                ValueError,
                ("shape", f"{array.shape}; got {wrong.shape}"),
            )
    yield "an axis more", array[None], ValueError, ("shape", f"{array.shape}; got {(1, *array.shape)}")
    if array.ndim > 1:
        yield "an axis less", array[0], ValueError, ("shape", f"{array.shape}; got {array.shape[1:]}")
    yield "zero-dimensional", np.array(1, array.dtype), ValueError, ("shape", f"{array.shape}; got ()")
    for dtype in ("f8", "f2", "i4", "i8", "c8", "O", "U3", [("x", "f4")]):
        wrong = np.zeros(array.shape, dtype)
        yield f"dtype {dtype}", wrong, TypeError, (f"must have dtype float32; got {wrong.dtype}",)
    for wrong in (array.tolist(), 1.0, "h"):
        kind = type(wrong).__name__
        yield kind, wrong, TypeError, (f"must be a NumPy array; got {kind}",)
    yield "masked", np.ma.array(array), TypeError, ("must be an array without a mask, which would be lost",)


def in_pair(number, wrong, right):
    return tuple(wrong if i == number else part for i, part in enumerate(right))


def wrong_states(state, none_may_be_a_part):
    """The same for what a layer takes as a state, with the name's index."""
    if not isinstance(state, tuple):
        for name, wrong, error, words in wrong_arrays(state):
            yield name, wrong, error, words
        yield "tuple where an array belongs", (state, state), TypeError, ("must be a NumPy array; got tuple",)
        return
    for number in range(2):
        for name, wrong, error, words in wrong_arrays(state[number]):
            yield f"part {number}, {name}", in_pair(number, wrong, state), error, (f"[{number}]", *words)
        if not none_may_be_a_part:
            yield (
                f"part {number}, None",
                in_pair(number, None, state),
                TypeError,
                (f"[{number}] must be a NumPy array; got NoneType",),
            )
    for wrong in (state[0], state[:1], (*state, state[0]), "hc", {"h": 0, "c": 0}):
        kind = type(wrong).__name__
        what = f"tuple of {len(wrong)}" if kind == "tuple" else kind
        words = ("must be a tuple of two arrays, h and c; got", what)
        yield f"{kind} of {len(wrong)} for a pair", wrong, TypeError, words


BAD_INPUT = {
    "list": ([[1.0, 2.0]], TypeError, ("must be a PackedSequence or a NumPy array; got list",)),
    "tuple": (tuple(PACKED), TypeError, ("must be a PackedSequence or a NumPy array; got tuple",)),
    "None": (None, TypeError, ("must be a PackedSequence or a NumPy array; got NoneType",)),
    "number": (F4(1), TypeError, ("must be a PackedSequence or a NumPy array; got numpy.float32",)),
    "vector": (PADDED[0, 0], ValueError, ("must be a PackedSequence or have 2 or 3 dimensions; got shape (2,)",)),
    "four axes": (PADDED[None], ValueError, ("2 or 3 dimensions; got shape (1, 4, 3, 2)",)),
    "no axes": (np.array(1, F4), ValueError, ("2 or 3 dimensions; got shape ()",)),
    "columns": (PADDED[..., :1], ValueError, ("must have shape (T, B, input_size) = (4, 3, 2); got (4, 3, 1)",)),
    "more columns": (np.ones((4, 3, 6), F4), ValueError, ("must have shape", "= (4, 3, 2); got (4, 3, 6)")),
    "no columns": (PADDED[..., :0], ValueError, ("must have shape", "= (4, 3, 2); got (4, 3, 0)")),
    "columns of one": (PADDED[:, 0, :1], ValueError, ("must have shape (T, input_size) = (4, 2); got (4, 1)",)),
    "masked": (np.ma.array(PADDED), TypeError, ("must be an array without a mask, which would be lost",)),
    "float64": (PADDED.astype("f8"), TypeError, ("must have dtype float32; got float64",)),
    "float16": (PADDED.astype("f2"), TypeError, ("must have dtype float32; got float16",)),
    "big-endian float64": (PADDED.astype(">f8"), TypeError, ("must have dtype float32; got >f8",)),
    "object": (PADDED.astype(object), TypeError, ("must have dtype float32; got object",)),
    "string": (PADDED.astype("U3"), TypeError, ("must have dtype float32; got <U3",)),
    "complex": (PADDED.astype("c8"), TypeError, ("must have dtype float32; got complex64",)),
    "structured": (np.zeros((4, 3, 2), [("x", "f4")]), TypeError, ("float32", "'x'")),
    "more than the memory": (HUGE, MemoryError, ("Unable to allocate",)),
    "symbol too large": (
        nbp.symbols(index(0, 1, 2).reshape(1, 3)),
        ValueError,
        ("less than", "= 2", "got 2 at index (0, 2)"),
    ),
    "symbol negative": (index(0, -1, dtype="i1"), ValueError, ("at least 0", "got -1 at index 1")),
    "symbols of the least and largest int64": (index(2**63 - 1, -(2**63)), ValueError, (str(2**63 - 1), "index 0")),
    "features or symbols": (index(0, 1).reshape(1, 2), TypeError, ("astype(numpy.float32)", "symbols(x)", "int64")),
    "symbols bool": (np.ones((4, 3), bool), TypeError, ("float32", "bool")),
    "symbols masked": (np.ma.array([[0, 1]]), TypeError, ("mask",)),
    "symbol without an axis": (index(1)[0], TypeError, ("PackedSequence or a NumPy array", "int64")),
    "more symbols than the memory": (nbp.symbols(HUGE_SYMBOLS), MemoryError, ("Unable to allocate",)),
    "integers": (PADDED.astype(int), TypeError, ("must have dtype float32; got int64",)),
    "packed, columns": (
        lie(dict(data=ROWS[:, :1])),
        ValueError,
        ("input.data", "(N, input_size) = (6, 2); got (6, 1)"),
    ),
    "packed, more columns": (
        lie(dict(data=np.ones((6, 7), F4))),
        ValueError,
        ("input.data", "(N, input_size) = (6, 2); got (6, 7)"),
    ),
    "packed, float64": (PACKED.astype("f8"), TypeError, ("input.data must have dtype float32; got float64",)),
    "packed, lie": (lie(dict(batch_sizes=index(3, 2, 2))), ValueError, ("input.batch_sizes", "6", "got 7")),
    "packed, a row less": (
        lie(dict(data=ROWS[:5])),
        ValueError,
        ("input.batch_sizes must sum to the rows of data: expected 5; got 6",),
    ),
    "packed, growing": (
        lie(dict(batch_sizes=index(2, 3, 1))),
        ValueError,
        ("input.batch_sizes must not grow, nor exceed the number of sequences: expected at most 2; got 3 at index 1",),
    ),
    "packed, no permutation": (
        lie(dict(sorted_indices=index(3, 0, 2))),
        ValueError,
        ("input.sorted_indices must be a permutation: expected at most 2; got 3 at index 0",),
    ),
    "packed, order": (lie(dict(sorted_indices=index(0, 0, 0))), ValueError, ("input.unsorted_indices", "inverse")),
    "packed, pickled lie": (pickled_lie(), ValueError, ("input.batch_sizes", str(2**60))),
    "packed, symbol too large": (
        lie(dict(data=index(0, 1, 1, 2, 0, 3))),
        ValueError,
        ("input.data", "got 2 at index 3"),
    ),
    "packed, symbol negative": (
        lie(dict(data=index(0, 1, 1, 0, 0, -1))),
        ValueError,
        ("input.data", "got -1 at index 5"),
    ),
    "packed, symbol near 2**64": (
        lie(dict(data=np.full(6, 2**64 - 1, "u8"))),
        ValueError,
        ("input.data", str(2**64 - 1)),
    ),
    "packed, symbols bool": (lie(dict(data=np.ones(6, bool))), TypeError, ("input.data", "float32", "bool")),
    "packed, integers": (PACKED.astype(int), TypeError, ("input.data", "float32", "int64")),
}


def backward(layer, batch, *arguments):
    """Backward of a forward pass; where it is refused, the tape has to be as good as before."""
    tape = layer.forward(batch)[2]
    try:
        return layer.backward(tape, *arguments)
    except (TypeError, ValueError):
        after, anew = (layer.backward(one).parameters for one in (tape, layer.forward(batch)[2]))
        if after.tobytes() != anew.tobytes():
            raise AssertionError("the tape was changed") from None
        raise


def layer_cases(name, layer):
    state = STATES[name]
    ways = {f"{name}(": layer, f"{name}.forward(": layer.forward}
    for what, (value, error, words) in BAD_INPUT.items():
        words = words if "input" in "".join(words) else ("input", *words)
        words = () if error is MemoryError else words
        for way, call in ways.items():
            yield Case(f"{way}input), {what}", error, words, lambda f=call, v=value: f(v))
    deep = lie(dict(data=ROWS[..., None]))
    alone = tuple(part[:, :1] for part in state) if isinstance(state, tuple) else state[:, :1]
    for way, call in ways.items():
        yield Case(f"{way}input), packed, an axis more", ValueError, ("input.data", "= (6, 2); got (6, 2, 1)"),
                   lambda f=call: f(deep))  # fmt: skip
        yield Case(f"{way}input), state of a batch for one sequence", ValueError,
                   ("hx", "must have shape (num_layers * num_directions, H) = ", ", 1, "),
                   lambda f=call: f(PADDED[:, 0], alone))  # fmt: skip
        for form, batch in {"packed": PACKED, "padded": PADDED}.items():
            for what, value, error, words in wrong_states(state, False):
                yield Case(f"{way}{form}, hx), {what}", error, ("hx", *words), lambda f=call, b=batch, v=value: f(b, v))
    for way, call in ways.items():
        for what, batch, resets, error, words in wrong_resets():
            yield Case(f"{way}resets), {what}", error, ("resets", *words),
                       lambda f=call, b=batch, r=resets: f(b, resets=r))  # fmt: skip
    yield from backward_cases(name, layer, state)
    yield from module_cases(name, layer)


def wrong_resets():
    """Masks that do not do for a batch, each with the error and the words for it."""
    mask = np.zeros((4, 3), bool)
    for what, value, got in (("floats", mask.astype(F4), "float32"), ("integers", mask.astype(int), "int64")):
        yield what, PADDED, value, TypeError, (f"must have dtype bool; got {got}",)
    for what, batch, value, words in (
        ("batch-first", PADDED, mask.T, "(T, B) = (4, 3); got (3, 4)"),
        ("columns", PADDED, mask[..., None], "(T, B) = (4, 3); got (4, 3, 1)"),
        ("of a batch", PADDED[:, 0].copy(), mask, "(T,) = (4,); got (4, 3)"),
        ("padded for packed", PACKED, mask, "(N,) = (6,); got (4, 3)"),
        ("rows", PACKED, mask.reshape(-1), "(N,) = (6,); got (12,)"),
    ):
        yield what, batch, value, ValueError, ("must have shape", words)
    packed = nbp.pack_sequence([mask[:n, 0] for n in (3, 2, 1)])
    yield "of another order", PACKED, packed, ValueError, (".sorted_indices must be those of the input",)
    for batch, value in ((PADDED, packed), (PADDED, mask.tolist()), (PADDED, True), (PACKED, [packed])):
        kind = type(value).__name__
        form = "packed" if batch is PACKED else "padded"
        yield f"{kind} for {form}", batch, value, TypeError, ("must be a NumPy array; got", kind)
    yield "masked", PADDED, np.ma.array(mask), TypeError, ("must be an array without a mask, which would be lost",)


def backward_cases(name, layer, state):
    packed, padded = layer(PACKED)[0], layer(PADDED)[0]
    for form, batch in {"packed": PACKED, "padded": PADDED}.items():
        for what, value, error, words in wrong_states(state, True):
            yield Case(f"{name}.backward, {form}, d_state {what}", error, ("d_state", *words),
                       lambda b=batch, v=value: backward(layer, b, None, v))  # fmt: skip
    for form, batch, output in (("packed", PACKED, packed.data), ("padded", PADDED, padded)):
        for what, value, error, words in wrong_arrays(output):
            yield Case(f"{name}.backward, {form}, d_output {what}", error, ("d_output", *words),
                       lambda b=batch, v=value: backward(layer, b, v))  # fmt: skip
    H, batch_first, rows = padded.shape[-1], padded.swapaxes(0, 1), padded.reshape(-1, padded.shape[-1])

    def of_lengths(*lengths):
        return nbp.pack_sequence([np.ones((n, H), F4) for n in lengths])

    for what, batch, d_output, error, words in (
        ("batch-first", PADDED, batch_first, ValueError,
         (f"(T, B, num_directions * H) = (4, 3, {H}); got (3, 4, {H})",)),
        ("rows", PADDED, rows, ValueError, (f"= (4, 3, {H}); got (12, {H})",)),
        ("packed for padded", PADDED, packed, TypeError, ("must be a NumPy array; got", "PackedSequence")),
        ("padded for packed", PACKED, padded, ValueError, (f"(N, num_directions * H) = (6, {H}); got (4, 3, {H})",)),
        ("columns of data", PACKED, packed.map(lambda x: x[:, 1:]), ValueError,
         (".data must have shape (N, num_directions * H)", f"= (6, {H}); got (6, {H - 1})")),
        ("list for data", PACKED, packed._replace(data=packed.data.tolist()), TypeError,
         (".data must be a NumPy array; got list",)),
        ("of other lengths", PACKED, of_lengths(1, 4, 1), ValueError,
         (".batch_sizes must be those of the input, [3 2 1]; got [3 1 1 1]",)),
        ("of another order", PACKED, of_lengths(3, 2, 1), ValueError,
         (".sorted_indices must be those of the input, [1 0 2]; got [0 1 2]",)),
        ("of one more empty sequence", PACKED, of_lengths(2, 3, 1, 0), ValueError,
         (".sorted_indices must be those of the input, [1 0 2]; got [1 0 2 3]",)),
    ):  # fmt: skip
        yield Case(f"{name}.backward, d_output {what}", error, ("d_output", *words),
                   lambda b=batch, d=d_output: backward(layer, b, d))  # fmt: skip
    for field in ("batch_sizes", "sorted_indices"):
        yield Case(f"{name}.backward, d_output of other {field}", ValueError, ("d_output", field, "[2 1 0]"),
                   lambda f=field: backward(layer, PACKED, packed._replace(**{f: index(2, 1, 0)})))  # fmt: skip
    for value in (1, None, "yes"):
        words = (f"input_grad must be a bool; got {value!r}",)
        call = lambda v=value: backward(layer, PACKED, None, None, v)
        yield Case(f"{name}.backward, input_grad = {value!r}", TypeError, words, call)

    def used_twice():
        tape = layer.forward(PACKED)[2]
        layer.backward(tape)
        layer.parameters = layer.parameters.copy()  # which matters neither the first time nor the second
        layer.backward(tape)

    def indices_changed(field, value):
        packed = nbp.PackedSequence(*map(np.copy, PACKED))
        tape = layer.forward(packed)[2]
        getattr(packed, field)[:] = value
        layer.backward(tape)

    yield Case(f"{name}.backward twice", ValueError, ("tape must not have been used: backward uses it up",), used_twice)
    for field in PACKED._fields[1:]:
        yield Case(f"{name}.backward, {field} changed meanwhile", ValueError,
                   (f"the input on the tape.{field} must ", str(2**40)),
                   lambda f=field: indices_changed(f, 2**40))  # fmt: skip
    another = f"tape must come from a forward call of this {name}; got one of another layer"
    other = next(one for one in LAYERS.values() if one is not layer)
    yield Case(f"{name}.backward, tape of another", ValueError, (another,),
               lambda: layer.backward(type(layer)(2, 5).forward(PACKED)[2]))  # fmt: skip
    yield Case(f"{name}.backward, tape of another kind", ValueError, (another,),
               lambda: layer.backward(other.forward(PACKED)[2]))  # fmt: skip
    yield Case(f"{name}.backward, tape of a cell", ValueError, (another,),
               lambda: layer.backward(CELLS["GRUCell"].forward(ONE)[1]))  # fmt: skip
    for what, make in {
        "None": lambda: None,
        "and all else of forward": lambda: layer.forward(PACKED),
    }.items():
        yield Case(f"{name}.backward, tape {what}", TypeError, ("tape must be what forward returned third; got",),
                   lambda m=make: layer.backward(m()))  # fmt: skip


def refused(module, change):
    """A change that is refused leaves the parameters as they were."""
    before = module.parameters
    try:
        change()
    finally:
        if module.parameters is not before:
            raise AssertionError("the parameters were changed")


def no_bools(argument):
    return [(argument, value, TypeError, (f"must be a bool; got {value!r}",)) for value in (1, 0, 2, None, "yes", 0.5)]


def module_cases(name, module):
    """What layers and cells have in common: constructors and parameters."""
    make = type(module)
    for size in ("input_size", "hidden_size"):
        for value, error, words in (
            (0, ValueError, ("must be at least 1; got 0",)),
            (-2, ValueError, ("must be at least 1; got -2",)),
            (-(2**70), ValueError, ("must be at least 1; got", str(-(2**70)))),
            (2.0, TypeError, ("must be an integer; got 2.0",)),
            (True, TypeError, ("must be an integer; got True",)),
            (None, TypeError, ("must be an integer; got None",)),
            ("3", TypeError, ("must be an integer; got '3'",)),
            (index(3), TypeError, ("must be an integer; got array([3])",)),
            (2**31, ValueError, ("must give weights that fit into memory; got", str(2**31)))
            if size == "hidden_size"
            else (math.nan, TypeError, ("nan",)),
            (2**62, ValueError, ("must give weights that fit into memory; got", str(2**62))),
            (2**70, ValueError, ("must give weights that fit into memory; got", str(2**70))),
        ):
            call = lambda s=size, v=value: make(**{"input_size": 2, "hidden_size": 5, s: v})
            yield Case(f"{name}({size}={value!r})", error, (size, *words), call)
    for argument, value, error, words in (
        *no_bools("bias"),
        *(
            ("dtype", value, TypeError, (f"must be float32 or float64; got {value!r}",))
            for value in ("f2", "i4", "c8", ">f4", ">f8", "nonsense", None, 3)
        ),
        ("rng", "seed", TypeError, ("must be what numpy.random.default_rng takes; got 'seed'",)),
        ("rng", 1.5, TypeError, ("must be what numpy.random.default_rng takes; got 1.5",)),
        ("rng", -1, ValueError, ("must be what numpy.random.default_rng takes; got -1",)),
        ("rng", index(1, 2).reshape(1, 2).view(np.matrix), ValueError, ("default_rng", "one-dimensional")),
        ("rng", NO_BYTES, ValueError, ("default_rng", "one-dimensional")),
    ):
        call = lambda a=argument, v=value: make(2, 5, **{a: v})
        yield Case(f"{name}({argument}={value!r})", error, (argument, *words), call)
    right = module.parameters
    for what, value, error, words in (
        *wrong_arrays(right),
        (
            "NaN",
            np.where(np.arange(right.size) == 7, F4("nan"), right),
            ValueError,
            ("must be finite; got nan at index 7",),
        ),
        (
            "infinity",
            np.where(np.arange(right.size) == 7, F4("inf"), right),
            ValueError,
            ("must be finite; got inf at index 7",),
        ),
        ("None", None, TypeError, ("must be a NumPy array; got NoneType",)),
    ):
        yield Case(f"{name}.parameters, {what}", error, ("parameters", *words),
                   lambda v=value: refused(module, lambda: setattr(module, "parameters", v)))  # fmt: skip
    yield Case(f"{name}.views, length", ValueError, (f"vector must have shape {right.shape}; got {right[1:].shape}",),
               lambda: module.views(right[1:]))  # fmt: skip
    yield Case(f"{name}.views, list", TypeError, ("vector must be a NumPy array; got list",),
               lambda: module.views(right.tolist()))  # fmt: skip
    state = module.state_dict()
    first, last = next(iter(state)), list(state)[-1]
    shape, whole = state[first].shape, f"['{first}'] "
    fewer = {key: value for key, value in state.items() if key != last}
    more = {**state, "weight_b": right, "weight_a": right}
    for what, value, error, words in (
        ("list", [], TypeError, (" must be a mapping of names to arrays; got list",)),
        ("None", None, TypeError, (" must be a mapping of names to arrays; got NoneType",)),
        ("empty", {}, ValueError, (" must have the names of this", "; missing: [", first, last)),
        ("one less", fewer, ValueError, (f"; missing: ['{last}'], not known: none",)),
        ("extra", {**state, "foo": right}, ValueError, ("; missing: none, not known: ['foo']",)),
        ("two more", more, ValueError, ("; missing: none, not known: ['weight_a', 'weight_b']",)),
        ("shape", {**state, first: state[first][1:]}, ValueError,
         (whole, f"must have shape {shape}; got {state[first][1:].shape}")),
        ("transposed", {**state, first: state[first].T}, ValueError,
         (whole, f"must have shape {shape}; got {shape[::-1]}")),
        ("scalar", {**state, first: 1.0}, ValueError, (whole, f"must have shape {shape}; got ()")),
        ("integers", {**state, first: state[first].astype(int)}, TypeError,
         (whole, "must hold real floats; got dtype int64")),
        ("complex", {**state, first: state[first].astype("c8")}, TypeError,
         (whole, "must hold real floats; got dtype complex64")),
        ("text", {**state, first: "x"}, TypeError, (whole, "must hold real floats; got dtype <U1")),
        ("uneven", {**state, first: [[1.0], [1.0, 2.0]]}, ValueError, (whole, "must be an array; got list")),
        ("NaN", {**state, first: np.full(shape, np.nan)}, ValueError, (whole, "must be finite in float32; got nan")),
        ("beyond float32", {**state, last: np.full(state[last].shape, 1e300)}, ValueError,
         (f"['{last}'] must be finite in float32; got 1e+300",)),
        ("masked", {**state, first: np.ma.array(state[first])}, TypeError, (first, "mask")),
        ("no array", {**state, first: LostArray()}, TypeError, (first, "LostArray", "this array is lost")),
    ):  # fmt: skip
        yield Case(f"{name}.load_state_dict, {what}", error, ("state_dict", *words),
                   lambda v=value: refused(module, lambda: module.load_state_dict(v)))  # fmt: skip
    for what, prefix, error, words in (
        ("number", 3, TypeError, ("prefix must be a str; got int",)),
        ("None", None, TypeError, ("prefix must be a str; got NoneType",)),
        ("another", "a.", ValueError, ("state_dict", "missing: ['a.", f"'a.{last}'", "not known: none")),
    ):
        yield Case(f"{name}.load_state_dict, prefix {what}", error, words,
                   lambda v=prefix: refused(module, lambda: module.load_state_dict(state, v)))  # fmt: skip


#: what is no matmul_precision
BAD_PRECISIONS = (
    ("best", ValueError), ("", ValueError), ("High", ValueError), (None, TypeError), (16, TypeError),
    (b"high", TypeError), (["high"], TypeError), (F4, TypeError),
)  # fmt: skip


def precision_cases(name, module):
    for value, error in BAD_PRECISIONS:
        words = (f"matmul_precision must be 'highest', 'high' or 'medium'; got {value!r}",)
        yield Case(f"{name}.with_precision({value!r})", error, words,
                   lambda v=value: refused(module, lambda: module.with_precision(v)))  # fmt: skip
        if value is not None:  # which is for the default
            call = lambda v=value: type(module)(2, 5, matmul_precision=v)
            yield Case(f"{name}(matmul_precision={value!r})", error, words, call)
    for what, value, error in (
        ("another", "int4", ValueError), ("None", None, TypeError), ("number", 8, TypeError), ("dtype", F4, TypeError)
    ):  # fmt: skip
        yield Case(f"{name}.quantize, {what}", error, (f"to must be 'int8'; got {value!r}",),
                   lambda v=value: refused(module, lambda: module.quantize(v)))  # fmt: skip
    wide = lambda **to: type(module)(2, 5, dtype=float, **to)
    for what, words, call in (
        ("with_precision, float64", ("'highest' for float64", "'high'"), lambda: wide().with_precision("high")),
        ("(matmul_precision), float64", ("'highest' for float64", "'high'"), lambda: wide(matmul_precision="high")),
        ("quantize, float64", ("a layer in float32; got", "float64"), lambda: wide().quantize("int8")),
        ("quantize, twice", ("a layer in float; got", "int8"), lambda: module.quantize("int8").quantize("int8")),
        ("with_precision, quantized", ("a layer in float; got",),
         lambda: module.quantize("int8").with_precision("high")),
    ):  # fmt: skip
        yield Case(f"{name}.{what}", ValueError, words, call)
    for what, call in (
        ("forward", lambda: module.quantize("int8").forward(ONE)),
        ("backward", lambda: module.quantize("int8").backward(None, ONE)),
        ("load_state_dict", lambda: module.quantize("int8").load_state_dict(module.state_dict())),
    ):
        yield Case(f"{name}.{what}, quantized", TypeError, (f"{what} must be called of a layer in float", "int8"), call)


def layers():
    for name, layer in LAYERS.items():
        yield from precision_cases(name, layer)
        yield from layer_cases(name, layer)
        for argument, value, error, words in (
            *(("num_layers", value, ValueError, (f"must be at least 1; got {value}",)) for value in (0, -2)),
            *(("num_layers", value, ValueError, (f"must be at most 4096; got {value}",)) for value in (10**9, 2**40)),
            *(
                ("num_layers", value, TypeError, (f"must be an integer; got {value!r}",))
                for value in (3.0, "3", None, True)
            ),
            ("dropout", 1.5, ValueError, ("must be at most 1; got 1.5",)),
            *(
                ("dropout", value, ValueError, (f"must be at least 0 and finite; got {value!r}",))
                for value in (-0.1, math.nan, math.inf)
            ),
            *(
                ("dropout", value, TypeError, (f"must be a number; got {value!r}",))
                for value in ("0.5", None, True, np.array([0.5]))
            ),
            *no_bools("bidirectional"),
            *no_bools("batch_first"),
        ):
            call = lambda n=name, a=argument, v=value: type(LAYERS[n])(2, 5, **{a: v})
            yield Case(f"{name}({argument}={value!r})", error, (argument, *words), call)
    for value, error, words in (
        (-1, ValueError, ("must be at least 0; got -1",)),
        (5, ValueError, ("must be less than hidden_size, 5; got 5",)),
        (9, ValueError, ("must be less than hidden_size, 5; got 9",)),
        (2**70, ValueError, ("must be less than hidden_size, 5; got", str(2**70))),
        (1.0, TypeError, ("must be an integer; got 1.0",)),
        (True, TypeError, ("must be an integer; got True",)),
    ):
        call = lambda v=value: nbp.LSTM(2, 5, proj_size=v)
        yield Case(f"LSTM(proj_size={value})", error, ("proj_size", *words), call)
    yield Case("GRU(batch_first=True), columns", ValueError,
               ("input must have shape (B, T, input_size) = (4, 3, 2); got (4, 3, 1)",),
               lambda: nbp.GRU(2, 5, batch_first=True)(PADDED[..., :1]))  # fmt: skip
    for value, error in (
        ("sigmoid", ValueError), ("", ValueError), (None, TypeError), (1, TypeError), (["tanh"], TypeError)
    ):  # fmt: skip
        for make in (nbp.RNN, nbp.RNNCell):
            call = lambda m=make, v=value: m(2, 5, nonlinearity=v)
            words = (f"nonlinearity must be 'tanh' or 'relu'; got {value!r}",)
            yield Case(f"{make.__name__}(nonlinearity={value!r})", error, words, call)
    yield Case("GRU, as many sequences as there are numbers", MemoryError, (), lambda: GRU(np.zeros((0, 2**44, 2), F4)))


def cells():
    for name, cell in CELLS.items():
        yield from module_cases(name, cell)
        yield from precision_cases(name, cell)
        state = (ONE_STATE, ONE_STATE) if name == "LSTMCell" else ONE_STATE
        for what, value, error, words in (
            ("list", [[1.0]], TypeError, ("NumPy array", "list")),
            ("three axes", ONE[None], ValueError, ("shape", "(1, 3, 2)")),
            ("no axes", np.array(1, F4), ValueError, ("shape", "()")),
            ("columns", ONE[:, :1], ValueError, ("(3, 2)", "(3, 1)")),
            ("one row's columns", ONE[0, :1], ValueError, ("(2,)", "(1,)")),
            ("float64", ONE.astype(float), TypeError, ("float32", "float64")),
            ("packed", PACKED, TypeError, ("NumPy array", "PackedSequence")),
            ("integers in rows", ONE.astype(int), TypeError, ("float32", "int64")),
            ("bool", True, TypeError, ("NumPy array", "bool")),
            ("symbols too large", index(1, 0, 2), ValueError, ("less than input_size = 2", "got 2", "index 2")),
            ("symbols negative", index(1, -1, 0), ValueError, ("at least 0", "got -1", "index 1")),
            ("a symbol too large", 2, ValueError, ("less than input_size = 2", "got 2")),
            ("a symbol negative", np.int8(-1), ValueError, ("at least 0", "got -1")),
        ):
            yield Case(f"{name}(input), {what}", error, ("input", *words), lambda c=cell, v=value: c(v))
            yield Case(f"{name}.forward(input), {what}", error, ("input", *words), lambda c=cell, v=value: c.forward(v))
        for what, value, error, words in wrong_states(state, False):
            yield Case(f"{name}, hx {what}", error, ("hx", *words), lambda c=cell, v=value: c(ONE, v))
        for what, value, error, words in wrong_states(state, True):
            call = lambda c=cell, v=value: c.backward(c.forward(ONE)[1], v)
            yield Case(f"{name}.backward, d_state {what}", error, ("d_state", *words), call)

        def used_twice(cell=cell):
            after, tape = cell.forward(ONE)
            cell.backward(tape, after)
            cell.backward(tape, after)

        yield Case(f"{name}.backward twice", ValueError, ("tape must not have been used",), used_twice)
        yield Case(f"{name}.backward, tape of another", ValueError, ("tape must come from", name),
                   lambda c=cell, s=state: c.backward(type(c)(2, 5).forward(ONE)[1], s))  # fmt: skip
        yield Case(f"{name}.backward, no tape", TypeError, ("tape must be", "NoneType"),
                   lambda c=cell, s=state: c.backward(None, s))  # fmt: skip


# -- all else ----------------------------------------------------------------------------------------------------------

VECTOR = np.ones(4)


def assigned(optimizer, lr):
    optimizer.lr = lr
    return optimizer


def steps(optimizer, *calls):
    for arguments in calls:
        optimizer.step(*arguments)


def others():
    for value, error, words in (
        *((value, ValueError, f"between 1 and 4096; got {value}") for value in (0, -1, 4097, 2**70)),
        *((value, TypeError, f"an integer; got {value!r}") for value in (2.0, "2", None, True, np.True_, index(2))),
    ):
        words = (f"n must be {words}",)
        yield Case(f"set_num_threads({value!r})", error, words, lambda v=value: nbp.set_num_threads(v))
        yield Case(f"threads({value!r})", error, words, lambda v=value: nbp.threads(v).__enter__())
    for value, error in BAD_PRECISIONS:
        words = ("precision must be 'highest',", f"got {value!r}")
        yield Case(f"set_float32_matmul_precision({value!r})", error, words,
                   lambda v=value: nbp.set_float32_matmul_precision(v))  # fmt: skip
    yield Case("warmup of integers, training", TypeError, ("forward must be called of a layer in float",),
               lambda: nbp.warmup(GRU.quantize("int8"), training=True))  # fmt: skip
    yield Case("warmup(3)", TypeError, ("layers", "int"), lambda: nbp.warmup(3))
    yield Case("warmup of a cell", TypeError, ("layers", "GRUCell"), lambda: nbp.warmup(CELLS["GRUCell"]))
    yield Case("warmup(training=1)", TypeError, ("training", "bool", "1"), lambda: nbp.warmup(GRU, training=1))
    for make in (nbp.optim.SGD, nbp.optim.RMSprop, nbp.optim.Adam, nbp.optim.AdamW):
        name = make.__name__
        for value, error in ((math.inf, ValueError), (-1.0, ValueError), (math.nan, ValueError), ("1", TypeError)):
            yield Case(f"{name}(lr={value!r})", error, ("lr", repr(value)), lambda m=make, v=value: m(lr=v))
        yield Case(f"{name}(weight_decay=-1)", ValueError, ("weight_decay", "-1"),
                   lambda m=make: m(lr=1.0, weight_decay=-1))  # fmt: skip
        for what, arguments, error, words in (
            ("list", (VECTOR.tolist(), VECTOR), TypeError, ("parameters", "list")),
            ("integers", (VECTOR.astype(int), VECTOR), TypeError, ("parameters", "int64")),
            ("matrix", (VECTOR[None], VECTOR), ValueError, ("parameters", "(1, 4)")),
            ("another length", (VECTOR, VECTOR[1:]), ValueError, ("gradient", "(4,)", "(3,)")),
            ("another dtype", (VECTOR, VECTOR.astype(F4)), TypeError, ("gradient", "float64", "float32")),
            ("big-endian", (VECTOR.astype(">f8"), VECTOR), TypeError, ("parameters", ">f8")),
        ):
            call = lambda m=make, a=arguments: steps(m(lr=1.0), a)
            yield Case(f"{name}.step, {what}", error, words, call)
    for name, make in (("Adam", nbp.optim.Adam), ("SGD", lambda lr: nbp.optim.SGD(lr, momentum=0.5))):
        yield Case(f"{name}.step, another length than before", ValueError, ("parameters", "(4,)", "(3,)"),
                   lambda m=make: steps(m(1.0), (VECTOR, VECTOR), (VECTOR[1:], VECTOR[1:])))  # fmt: skip
    for what, value, error in (
        ("text", "1", TypeError),
        ("NaN", math.nan, ValueError),
        ("10**400", 10**400, ValueError),
    ):
        for make in (nbp.optim.SGD, nbp.optim.RMSprop, nbp.optim.Adam, nbp.optim.AdamW):
            name = make.__name__
            yield Case(f"{name}(lr), {what}", error, ("lr", repr(value)), lambda m=make, v=value: m(lr=v))
            yield Case(f"{name}.lr, {what}, assigned later", error, ("lr", repr(value)),
                       lambda m=make, v=value: assigned(m(lr=0.1), v).step(VECTOR, VECTOR))  # fmt: skip
    for make in (nbp.optim.SGD, nbp.optim.RMSprop, nbp.optim.Adam, nbp.optim.AdamW):
        name = make.__name__
        for what, out, error, words in (
            ("read-only", np.broadcast_to(1.0, 4), ValueError, ("out", "read-only")),
            ("another length", VECTOR[1:].copy(), ValueError, ("out", "(4,)", "(3,)")),
            ("another dtype", VECTOR.astype(F4), TypeError, ("out", "float64", "float32")),
            ("list", VECTOR.tolist(), TypeError, ("out", "list")),
        ):
            yield Case(f"{name}.step, out {what}", error, words,
                       lambda m=make, o=out: m(lr=1.0).step(VECTOR, VECTOR, out=o))  # fmt: skip
        for what, state, error, words in (
            ("list", [], TypeError, ("state_dict", "list")),
            ("empty", {}, ValueError, ("state_dict", "missing", "lr")),
            ("of more", make(lr=1.0).state_dict() | {"more": VECTOR}, ValueError, ("state_dict", "not known", "more")),
            ("lr -1", make(lr=1.0).state_dict() | {"lr": np.array(-1.0)}, ValueError, ("lr", "-1")),
        ):
            yield Case(f"{name}.load_state_dict, {what}", error, words,
                       lambda m=make, s=state: m(lr=1.0).load_state_dict(s))  # fmt: skip
    schedules = {
        "step_lr": {"step": 1, "lr": 1.0, "step_size": 2, "gamma": 0.5},
        "cosine_lr": {"step": 1, "lr": 1.0, "total_steps": 2, "min_lr": 0.0},
        "one_cycle_lr": {"step": 1, "max_lr": 1.0, "total_steps": 2, "pct_start": 0.3, "div_factor": 2.0,
                         "final_div_factor": 2.0},
        "plateau_lr": {"losses": [1.0], "lr": 1.0, "factor": 0.5, "patience": 1, "threshold": 0.1, "min_lr": 0.0},
    }  # fmt: skip
    for name, good in schedules.items():
        for argument in good:
            for value in (None, "1", -1.0, math.nan):
                error = ValueError if isinstance(value, float) and argument != "losses" else TypeError
                yield Case(f"{name}({argument}={value!r})", error, (argument, repr(value)),
                           lambda n=name, g=good | {argument: value}: getattr(nbp.optim, n)(**g))  # fmt: skip
    masked = np.ma.array(VECTOR)
    yield Case("SGD.step, masked", TypeError, ("gradient", "mask"), lambda: nbp.optim.SGD(0.1).step(VECTOR, masked))
    yield Case("clip_grad_norm, masked", TypeError, ("gradient", "mask"), lambda: nbp.optim.clip_grad_norm(masked, 1.0))
    yield Case("Adam(betas)", TypeError, ("betas", "pair"), lambda: nbp.optim.Adam(betas=0.9))
    yield Case("Adam(betas) of 1", ValueError, ("betas[1]", "below 1"), lambda: nbp.optim.Adam(betas=(0.9, 1.0)))
    yield Case("SGD(momentum=-1)", ValueError, ("momentum", "least 0"), lambda: nbp.optim.SGD(1.0, momentum=-1))
    yield Case("clip_grad_norm, -1", ValueError, ("max_norm", "least 0"), lambda: nbp.optim.clip_grad_norm(VECTOR, -1))
    yield Case("clip_grad_norm, matrix", ValueError, ("gradient", "(1, 4)"),
               lambda: nbp.optim.clip_grad_norm(VECTOR[None], 1.0))  # fmt: skip
    logits, labels = np.zeros((3, 4)), index(0, 1, 3)
    for what, arguments, error, words in (
        ("labels too large", (logits, labels + 1), ValueError, ("labels", "[0, 4)", "4")),
        ("labels negative", (logits, labels - 1), ValueError, ("labels", "[0, 4)", "-1")),
        ("labels near 2**64", (logits, index(0, 1, 2**64 - 1, dtype="u8")), ValueError, ("labels", str(2**64 - 1))),
        ("labels float", (logits, labels * 1.0), TypeError, ("labels", "float64")),
        ("labels bool", (logits, labels > 0), TypeError, ("labels", "bool")),
        ("labels short", (logits, labels[1:]), ValueError, ("labels", "(3,)", "(2,)")),
        ("labels masked", (logits, np.ma.array(labels)), TypeError, ("labels", "mask")),
        ("logits masked", (np.ma.array(logits), labels), TypeError, ("logits", "mask")),
        ("labels list", (logits, [0, 1, 3]), TypeError, ("labels", "list")),
        ("logits empty", (logits[:0], labels[:0]), ValueError, ("logits", "(0, 4)")),
        ("logits vector", (logits[0], labels), ValueError, ("logits", "(4,)")),
        ("logits integer", (logits.astype(int), labels), TypeError, ("logits", "int64")),
    ):
        call = lambda a=arguments: nbp.losses.softmax_cross_entropy(*a)
        yield Case(f"softmax_cross_entropy, {what}", error, words, call)
    for what, layer, table, error, words in (
        ("cell", CELLS["GRUCell"], ROWS[0], ValueError, ("table", "(V, 2)", "(2,)")),
        ("linear", nbp.Linear(2, 3), ROWS, TypeError, ("layer", "one step", "Linear")),
        ("class", nbp.GRU, ROWS, TypeError, ("layer", "type")),
        ("integers", GRU, ROWS.astype(int), TypeError, ("table", "real floats", "int64")),
        ("complex", GRU, ROWS.astype(complex), TypeError, ("table", "real floats", "complex128")),
        ("None", GRU, None, TypeError, ("table", "real floats", "object")),
        ("uneven", GRU, [[1.0], [1.0, 2.0]], ValueError, ("table", "must be an array", "list")),
        ("vector", GRU, ROWS[0], ValueError, ("table", "(V, 2)", "(2,)")),
        ("transposed", GRU, ROWS.T, ValueError, ("table", "(V, 2)", "(2, 6)")),
        ("masked", GRU, np.ma.array(ROWS), TypeError, ("table", "mask")),
        ("no symbols", GRU, ROWS[:0], ValueError, ("table", "(V, 2)", "(0, 2)")),
        ("NaN", GRU, ROWS * math.nan, ValueError, ("table", "finite", "nan")),
        ("beyond float32", GRU, np.full((3, 2), 1e300), ValueError, ("finite in float32",)),
    ):
        call = lambda a=(layer, table): nbp.fold_embedding(*a)
        yield Case(f"fold_embedding, {what}", error, words, call)
    state = {f"a.{name}": value for name, value in GRU.state_dict().items()}
    for what, arguments, options, error, words in (
        ("list", ([],), {}, TypeError, ("state_dict must be a mapping", "list")),
        ("empty", ({},), {}, ValueError, ("state_dict", "weight_ih_l0", "none")),
        ("prefix", (state, 3), {}, TypeError, ("prefix must be a str", "int")),
        ("prefix of bytes", (state, b"a."), {}, TypeError, ("prefix must be a str", "bytes")),
        ("prefix of none", (state, "b."), {}, ValueError, ("prefix", "'a.'", "got 'b.'")),
        ("several", ({**state, **LSTM.state_dict()},), {}, ValueError, ("prefix", "'', 'a.'", "got none")),
        ("integers", ({**state, "a.bias_ih_l0": index(1, 2)},), {}, TypeError, ("['a.bias_ih_l0']", "int64")),
        ("text", ({**state, "a.bias_ih_l0": "x"},), {}, TypeError, ("['a.bias_ih_l0']", "<U1")),
        ("masked", ({**state, "a.bias_ih_l0": np.ma.array(ROWS)},), {}, TypeError, ("['a.bias_ih_l0']", "mask")),
        ("no array", ({**state, "a.bias_ih_l0": LostArray()},), {}, TypeError, ("['a.bias_ih_l0']", "is lost")),
        ("scalar", ({**state, "a.bias_ih_l0": 1.0},), {}, ValueError, ("bias_ih_l0", "(15,)", "()")),
        ("a scalar matrix", ({**state, "a.weight_hh_l0": 1.0},), {}, ValueError, ("weight_hh_l0", "()")),
        ("scalars of weight_norm", ({"weight_hh_l0_g": 1.0, "weight_hh_l0_v": 1.0},), {}, ValueError,
         ("weight_ih_l0",)),
        ("a far layer", ({**state, "a.weight_ih_l99999999": ROWS},), {}, ValueError, ("weight_ih_l99999999",)),
        ("unknown", ({**state, "a.foo": ROWS},), {}, ValueError, ("state_dict['a.foo']",)),
        ("nonlinearity", (state,), {"nonlinearity": "sigmoid"}, ValueError, ("nonlinearity", "'sigmoid'")),
        ("nonlinearity of a GRU", (state,), {"nonlinearity": "relu"}, ValueError, ("nonlinearity", "GRU", "'relu'")),
        ("batch_first", (state,), {"batch_first": 1}, TypeError, ("batch_first", "1")),
        ("dropout", (state,), {"dropout": 2.0}, ValueError, ("dropout", "2.0")),
        ("dtype", (state,), {"dtype": "f2"}, TypeError, ("dtype", "'f2'")),
        ("rng", (state,), {"rng": "a"}, TypeError, ("rng", "'a'")),
    ):  # fmt: skip
        yield Case(f"from_state_dict, {what}", error, words,
                   lambda a=arguments, o=options: nbp.from_state_dict(*a, **o))  # fmt: skip
    if importlib.util.find_spec("safetensors"):
        nowhere = os.path.join(__file__, "nowhere")  # below a file, so that nothing can be written
        for what, value, error, words in (
            ("number", 3, TypeError, ("layers", "int")),
            ("no layers", {}, ValueError, ("layers", "at least one")),
            ("a name that is none", {1: GRU}, TypeError, ("layers", "strings", "1")),
            ("an empty name", {"": GRU}, ValueError, ("layers", "''")),
            ("no layer under a name", {"a": ROWS}, TypeError, ("layers['a']", "ndarray")),
        ):
            yield Case(f"save, {what}", error, words, lambda v=value: nbp.save(nowhere, v))
        yield Case("save, a name that is no text", ValueError, ("layers", "text"),
                   lambda: nbp.save(nowhere, {"\ud800": GRU}))  # fmt: skip
        yield Case("save, a folder", OSError, ("path", "folder"), lambda: nbp.save(os.path.dirname(__file__), GRU))
        yield Case("save, below a file", OSError, ("nowhere",), lambda: nbp.save(nowhere, GRU))
        for what, value, error, words in (
            ("number", 3, TypeError, ("path", "str", "int")),
            ("bytes", b"x", TypeError, ("path", "str", "bytes")),
            ("null character", "a\0b", ValueError, ("path", "null")),
        ):
            yield Case(f"save, path {what}", error, words, lambda v=value: nbp.save(v, GRU))
            yield Case(f"load, path {what}", error, words, lambda v=value: nbp.load(v))
        yield Case("load, a folder", OSError, ("path", "file"), lambda: nbp.load(os.path.dirname(__file__)))
        yield Case("load, another kind of file", ValueError, ("not a safetensors file",), lambda: nbp.load(__file__))
        yield Case("load, rng", TypeError, ("rng", "default_rng", "'a'"), lambda: nbp.load(__file__, rng="a"))
        yield Case("load, no file", OSError, ("nowhere",), lambda: nbp.load(nowhere))
        yield from damaged_files()


def damaged_files():
    """Files of a layer that were changed since, and what may be asked of a good one."""
    from safetensors.numpy import save_file

    def load(tensors, metadata=None, content=None, **options):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "file")
            save_file(tensors, path, metadata)
            if content is not None:
                with open(path, "r+b") as file:
                    file.seek(content[0])
                    file.write(content[1])
                    file.truncate()
            nbp.load(path, **options)

    state = {name: np.array(value) for name, value in RNN.state_dict().items()}
    lie = {"numba_pack": '{"": {"kind": "RNN", "hidden_size": 6, "nonlinearity": "tanh"}}'}
    for what, call, words in (
        ("cut off", lambda: load(state, None, (0, b"\0" * 4)), ("not a safetensors file",)),
        ("header of 2**63 bytes", lambda: load(state, None, (0, b"\0" * 7 + b"\x80")), ("not a safetensors file",)),
        ("metadata that lie", lambda: load(state, lie), ("hidden_size=6", "5")),
        ("metadata of no JSON", lambda: load(state, {"numba_pack": "{"}), ("must be JSON",)),
        ("metadata of a list", lambda: load(state, {"numba_pack": "[]"}), ("must be a mapping",)),
        ("a shape that differs", lambda: load({**state, "bias_ih_l0": ROWS}), ("bias_ih_l0", "(6, 2)")),
        ("integers", lambda: load({**state, "bias_ih_l0": index(1, 2, 3, 4, 5)}), ("bias_ih_l0", "I64")),
        ("NaN", lambda: load({**state, "bias_ih_l0": state["bias_ih_l0"] * F4("nan")}, None, nonlinearity="tanh"),
         ("bias_ih_l0", "finite", "nan")),
        ("no parameters", lambda: load({"other": ROWS}), ("no parameters",)),
        ("a parametrization", lambda: load({**state, "parametrizations.weight_hh_l0.original0": ROWS}),
         ("weight_hh_l0 is computed from it", "remove_parametrizations")),
        ("a pruned weight", lambda: load({**state, "weight_hh_l0_mask": ROWS}), ("weight_hh_l0", "prune.remove")),
        ("an option of none", lambda: load(state, {"numba_pack": '{"": {"rng": 3}}'}), ("RNN", "rng")),
        ("nonlinearity not told", lambda: load(state), ("nonlinearity",)),
        ("nonlinearity", lambda: load(state, None, nonlinearity="sigmoid"), ("nonlinearity", "'sigmoid'")),
        ("batch_first", lambda: load(state, None, nonlinearity="tanh", batch_first=1), ("batch_first", "1")),
        ("dropout", lambda: load(state, None, nonlinearity="tanh", dropout=2.0), ("dropout", "2.0")),
    ):  # fmt: skip
        yield Case(f"load, {what}", ValueError, words, call)


def computed_in(module, precision):
    module.matmul_precision = precision
    module(torch.ones(4, 3, 2))


def steppers():
    stepper, pair, states, c = GRU.stepper(3), LSTM.stepper(3), STATES["GRU"], STATES["LSTM"][1]
    both = nbp.LSTM(2, 5, bidirectional=True)
    backward = nbp.cells.LSTM(2, 5, reverse=True)
    for what, error, words, call in (
        ("batch 0", ValueError, ("batch", "at least 1", "0"), lambda: GRU.stepper(0)),
        ("batch True", TypeError, ("batch", "integer", "True"), lambda: GRU.stepper(True)),
        ("batch beyond memory", ValueError, ("batch", "at most"), lambda: GRU.stepper(2**62)),
        ("layer None", TypeError, ("layer", "LSTM", "NoneType"), lambda: nbp.Stepper(None)),
        ("layer a cell", TypeError, ("layer", "GRUCell"), lambda: nbp.Stepper(CELLS["GRUCell"])),
        ("both directions", ValueError, ("one direction", "last step", "bidirectional"), both.stepper),
        ("reverse", ValueError, ("one direction", "last step", "reverse"), backward.stepper),
        ("input None", TypeError, ("input", "NumPy array", "NoneType"), lambda: stepper(None)),
        ("input list", TypeError, ("input", "NumPy array", "list"), lambda: stepper(ONE.tolist())),
        ("input packed", TypeError, ("input", "NumPy array", "PackedSequence"), lambda: stepper(PACKED)),
        ("input float64", TypeError, ("input", "float32", "float64"), lambda: stepper(ONE.astype("f8"))),
        ("input of another batch", ValueError, ("input", "(B, 2)", "B = 3", "(2, 2)"), lambda: stepper(ONE[:2])),
        ("input of other columns", ValueError, ("input", "(3, 2)", "(3, 1)"), lambda: stepper(ONE[:, :1])),
        ("input of one row", ValueError, ("input", "(B, 2)", "(2,)"), lambda: stepper(ONE[0])),
        ("input of integers", TypeError, ("input", "float32", "int64"), lambda: stepper(ONE.astype(int))),
        ("input masked", TypeError, ("input", "mask"), lambda: stepper(np.ma.array(ONE))),
        ("chunk of another batch", ValueError, ("input", "(T, B, 2)", "(4, 2, 2)"), lambda: stepper(PADDED[:, :2])),
        ("chunk of other columns", ValueError, ("input", "(4, 3, 2)", "(4, 3, 1)"), lambda: stepper(PADDED[..., :1])),
        ("symbol 2", ValueError, ("input", "symbols", "got 2"), lambda: stepper(np.array([0, 1, 2]))),
        ("symbols of another batch", ValueError, ("input", "(B,)", "(2,)"), lambda: stepper(np.zeros(2, int))),
        ("state a tuple", TypeError, ("state", "array", "tuple"), lambda: setattr(stepper, "state", (states,))),
        ("state of two", ValueError, ("state", "(2, 3, 5)"), lambda: setattr(stepper, "state", states[:, :2])),
        ("state float64", TypeError, ("state", "float32"), lambda: setattr(stepper, "state", states.astype("f8"))),
        ("state one of two", TypeError, ("state", "two", "h and c"), lambda: setattr(pair, "state", (c,))),
        ("state h, h", ValueError, ("state[1]", "(1, 3, 5)"), lambda: setattr(pair, "state", STATES["LSTM"][:1] * 2)),
        ("rows 3", ValueError, ("rows", "0 to 2", "3"), lambda: stepper.reset([3])),
        ("rows -1", ValueError, ("rows", "0 to 2", "-1"), lambda: stepper.reset([-1])),
        ("rows, mask of two", ValueError, ("rows", "bool", "3", "2"), lambda: stepper.reset([True, False])),
        ("rows of floats", TypeError, ("rows", "integers", "float64"), lambda: stepper.reset([0.0])),
        ("compiled of widths", AttributeError, ("compiled", "layers"), lambda: nbp.GRU(2, [5, 4]).stepper().compiled),
    ):  # fmt: skip
        yield Case(f"{'Stepper' if 'layer' in what else 'stepper'}, {what}", error, words, call)
    compiled = stepper.compiled
    for caller, step, error in (("step", nbp.step, TypeError), ("@njit step", compiled_step, TypingError)):
        for what, words, arguments in (
            ("input float64", ("input", "float32", "float64"), (compiled, ONE.astype("f8"))),
            ("input a number", ("input", "float32", "float64"), (compiled, 1.0)),
            ("a chunk", ("input", "float32", "3d"), (compiled, PADDED)),
            ("weights", ("stepper", "stepper.compiled"), (GRU.weights, ONE)),
            ("read-only", ("stepper", "argument"), (compiled._replace(h=read_only(compiled.h)), ONE)),
        ):
            yield Case(f"{caller}, {what}", error, words, lambda s=step, a=arguments: s(*a))
        for what, words, input in (
            ("another batch", ("input", "batch", "expected 3; got 2"), ONE[:2]),
            ("other columns", ("input", "input size", "expected 2; got 1"), ONE[:, :1]),
            ("symbol 2", ("input", "symbols", "got 2"), np.array([0, 1, 2])),
        ):
            yield Case(f"{caller}, {what}", ValueError, words, lambda s=step, i=input: s(compiled, i))


@njit
def compiled_step(stepper, input):
    return nbp.step(stepper, input)


def read_only(array):
    view = array.view()
    view.flags.writeable = False
    return view


def serving():
    Batcher, rows = nbp.serving.Batcher, ROWS[:4]
    of_function, of_layer = Batcher(lambda packed: packed), Batcher(GRU)
    cases = [
        ("Batcher, model None", TypeError, ("model", "layer", "function", "NoneType"), lambda: Batcher(None)),
        ("Batcher, model a cell", TypeError, ("model", "layer", "GRUCell"), lambda: Batcher(CELLS["GRUCell"])),
        ("Batcher, model a class", TypeError, ("model", "layer", "type"), lambda: Batcher(nbp.GRU)),
        ("Batcher, capacity 0", ValueError, ("capacity", "at least 1", "0"), lambda: Batcher(GRU, 0)),
        ("Batcher, capacity NaN", TypeError, ("capacity", "integer", "nan"), lambda: Batcher(GRU, math.nan)),
        ("Batcher, capacity beyond memory", ValueError, ("capacity", "at most"), lambda: Batcher(GRU, 2**62)),
        ("Batcher, rows -1", ValueError, ("rows", "at least 1", "-1"), lambda: Batcher(GRU, rows=-1)),
        ("Batcher, steps True", TypeError, ("steps", "integer", "True"), lambda: Batcher(GRU, steps=True)),
        ("Batcher, workers 0", ValueError, ("workers", "at least 1", "0"), lambda: Batcher(GRU, workers=0)),
        ("Batcher, report a list", TypeError, ("report", "function", "list"), lambda: Batcher(GRU, report=[])),
        ("Batcher.submit, list", TypeError, ("sequence", "array", "list"), lambda: of_layer.submit([[1.0, 2.0]])),
        ("Batcher.submit, dtype", TypeError, ("sequence", "float32", "f"), lambda: of_layer.submit(rows.astype("f8"))),
        ("Batcher.submit, columns", ValueError, ("sequence", "(4, 2)", "(4, 1)"), lambda: of_layer.submit(rows[:, :1])),
        ("Batcher.submit, padded", ValueError, ("sequence", "(T, input_size)"), lambda: of_layer.submit(PADDED)),
        ("Batcher.submit, symbol", ValueError, ("sequence", "symbols", "got 2"), lambda: of_layer.submit(index(0, 2))),
        ("Batcher.submit, mask", TypeError, ("sequence", "mask"), lambda: of_layer.submit(np.ma.array(rows))),
        ("Batcher.submit, huge", MemoryError, (), lambda: of_function.submit(HUGE)),
        ("Batcher.submit, deadline", ValueError, ("deadline", "-1"), lambda: of_layer.submit(rows, -1)),
        ("Batcher.submit, deadline text", TypeError, ("deadline", "'1'"), lambda: of_layer.submit(rows, "1")),
        ("Batcher.submit, wait 1", TypeError, ("wait", "bool", "1"), lambda: of_layer.submit(rows, wait=1)),
        ("Batcher.close, cancel None", TypeError, ("cancel", "bool", "None"), lambda: of_layer.close(None)),
    ]
    cases += [
        (f"Batcher of a function, {name}", TypeError, ("sequence",), lambda rows=rows: of_function.submit(rows))
        for name, rows in BAD_DTYPES.items()
    ]
    return [Case(*case) for case in cases]


def on_ray():
    """What is refused before Ray is asked for anything."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from numba_pack.interop.ray import DataParallel, Service, application, infer
    except ImportError:
        return [Case("Ray, none", ImportError, ("needs Ray", "pip install 'ray[data,serve]'"), lambda: nbp.interop.ray)]
    cases = [
        ("infer, dataset a list", TypeError, ("dataset", "ray.data.Dataset", "list"), lambda: infer([], GRU, "x", "y")),
        ("application, layer None", TypeError, ("layer", "NoneType"), lambda: application(None)),
        ("application, layer a cell", TypeError, ("layer", "GRUCell"), lambda: application(CELLS["GRUCell"])),
        ("application, no file", OSError, ("none.safetensors",), lambda: application("none.safetensors")),
        ("application, replicas", ValueError, ("num_replicas", "at least 1", "0"), lambda: application(GRU, 0)),
        ("application, num_cpus", TypeError, ("num_cpus", "integer", "0.5"), lambda: application(GRU, num_cpus=0.5)),
        ("application, capacity", ValueError, ("capacity", "at least 1"), lambda: application(GRU, capacity=0)),
        ("application, streams", ValueError, ("streams", "at least 9", "8"),
         lambda: application(GRU, capacity=9, streams=8)),
        ("application, queue", ValueError, ("max_queued_requests", "at least 1", "-1"),
         lambda: application(GRU, max_queued_requests=-1)),
        ("application, an option", TypeError, ("no_option",), lambda: application(GRU, no_option=1)),
        ("Service, handle None", TypeError, ("handle", "DeploymentHandle", "NoneType"), lambda: Service(None)),
        ("DataParallel, function", TypeError, ("function", "None"), lambda: DataParallel(None, 1)),
        ("DataParallel, workers", ValueError, ("workers", "at least 1", "0"), lambda: DataParallel(print, 0)),
        ("DataParallel, num_cpus", ValueError, ("num_cpus", "at least 1"), lambda: DataParallel(print, 1, 0)),
    ]  # fmt: skip
    return [Case(*case) for case in cases]


def interop():
    """PyTorch's own errors where its modules check, which is by RuntimeError."""
    if torch is None:
        for name in ("from_torch", "to_torch", "accelerate"):
            yield Case(f"{name}, no PyTorch", ImportError, ("needs PyTorch", "pip install torch"),
                       lambda n=name: getattr(nbp.interop.torch, n))  # fmt: skip
        return
    own, rnn = nbp.interop.torch, torch.nn.utils.rnn
    for what, value in (("list", []), ("Linear", torch.nn.Linear(2, 3)), ("None", None)):
        yield Case(f"from_torch, {what}", TypeError, ("module", type(value).__name__),
                   lambda v=value: own.from_torch(v))  # fmt: skip
        yield Case(f"to_torch, {what}", TypeError, ("layer", type(value).__name__), lambda v=value: own.to_torch(v))
    theirs = rnn.pack_sequence([torch.ones(2, 3), torch.ones(1, 3)])
    for name, argument, call in (
        ("pack_sequence", "sequences", lambda: nbp.pack_sequence(theirs)),
        ("pack_sequence, in a list", "sequences[0]", lambda: nbp.pack_sequence([theirs])),
        ("pack_ragged", "values", lambda: nbp.pack_ragged(theirs, [0, 1])),
        ("pack_padded_sequence", "input", lambda: nbp.pack_padded_sequence(theirs, [1])),
        ("unpad_sequence", "padded", lambda: nbp.unpad_sequence(theirs, [1])),
        ("unpack_sequence", "packed", lambda: nbp.unpack_sequence(theirs)),
        ("invert_permutation", "permutation", lambda: nbp.invert_permutation(theirs)),
        ("packing_report", "lengths", lambda: nbp.packing_report(theirs)),
        ("symbols", "array", lambda: nbp.symbols(theirs)),
        ("concatenate", "batches[0]", lambda: nbp.concatenate([theirs])),
        ("map", "the result of f", lambda: PACKED.map(lambda rows: theirs)),
        ("GRU", "input", lambda: GRU(theirs)),
        ("GRU.backward", "d_output", lambda: GRU.backward(GRU.forward(PACKED)[2], theirs)),
    ):
        yield Case(
            f"{name}, PyTorch's PackedSequence", TypeError, (argument, "torch.nn.utils.rnn.PackedSequence"), call
        )
    yield Case("from_torch, rng", TypeError, ("rng", "default_rng", "'a'"),
               lambda: own.from_torch(torch.nn.GRU(2, 3), rng="a"))  # fmt: skip
    unreal = torch.nn.GRU(2, 3, dtype=torch.complex64)
    yield Case("from_torch, complex", TypeError, ("bfloat16 or float16", "complex64"), lambda: own.from_torch(unreal))
    for value, error in BAD_PRECISIONS:
        if value is not None:
            words = ("matmul_precision must be 'highest'", f"got {value!r}")
            for name, call in (("from_torch", own.from_torch), ("accelerate", own.accelerate)):
                yield Case(f"{name}, precision {value!r}", error, words,
                           lambda c=call, v=value: c(torch.nn.GRU(2, 3), matmul_precision=v))  # fmt: skip
            call = lambda v=value: computed_in(own.GRU(2, 3), v)
            yield Case(f"torch.GRU, precision {value!r}", error, words, call)
    yield Case("from_torch, precision of float64", ValueError, ("'highest' for float64", "'medium'"),
               lambda: own.from_torch(torch.nn.GRU(2, 3).double(), matmul_precision="medium"))  # fmt: skip
    yield Case("to_torch, quantized", TypeError, ("to_torch must be called of a layer in float", "int8"),
               lambda: own.to_torch(GRU.quantize("int8")))  # fmt: skip
    meta, hooked = torch.nn.GRU(2, 3, device="meta"), torch.nn.GRU(2, 3)
    yield Case("from_torch, meta", ValueError, ("weight_ih_l0", "no values"), lambda: own.from_torch(meta))
    hooked.register_forward_hook(print)
    yield Case("from_torch, a hook", TypeError, ("forward hooks", "print"), lambda: own.from_torch(hooked))
    yield Case("accelerate, list", TypeError, ("model", "list"), lambda: own.accelerate([]))
    for value in (1, None, "yes"):
        yield Case(f"accelerate(frozen={value!r})", TypeError, ("frozen", repr(value)),
                   lambda v=value: own.accelerate(torch.nn.GRU(2, 3), frozen=v))  # fmt: skip
    for what, value in (("list", []), ("None", None), ("tensor", torch.ones(2, 3)), ("ours", PACKED)):
        yield Case(f"packed_from_torch, {what}", TypeError, ("packed", "torch.nn.utils.rnn.PackedSequence"),
                   lambda v=value: own.packed_from_torch(v))  # fmt: skip
    for what, value in (("list", []), ("None", None), ("array", np.ones((2, 3))), ("PyTorch's", theirs)):
        yield Case(f"packed_to_torch, {what}", TypeError, ("packed", "PackedSequence of numba_pack"),
                   lambda v=value: own.packed_to_torch(v))  # fmt: skip
    taken = rnn.pack_sequence([torch.ones(2, 3, requires_grad=True)])
    yield Case("packed_from_torch, a gradient", TypeError, ("packed.data", "gradient"),
               lambda: own.packed_from_torch(taken))  # fmt: skip
    empty = nbp.pack_sequence([np.ones((2, 3)), np.ones((0, 3))])
    yield Case("packed_to_torch, length 0", ValueError, ("packed", "1 of length 0"), lambda: own.packed_to_torch(empty))
    for make in (own.RNN, own.LSTM, own.GRU):
        name = f"torch.{make.__name__}"
        yield Case(f"{name}(device)", ValueError, ("device", "CPU", "meta"), lambda m=make: m(2, 5, device="meta"))
        yield Case(f"{name}(dtype)", TypeError, ("dtype", "complex64"), lambda m=make: m(2, 5, dtype=torch.complex64))

    lstm, gru = own.LSTM(2, 5, proj_size=3), own.GRU(2, 5, 2)
    padded, packed = torch.ones(4, 3, 2), rnn.pack_sequence([torch.ones(n, 2) for n in (3, 2, 1)])

    def lie(**fields):
        return rnn.PackedSequence(**{**packed._asdict(), **{k: torch.tensor(v) for k, v in fields.items()}})

    for what, value, error, words in (
        ("array", padded.numpy(), TypeError, ("input", "ndarray")),
        ("our PackedSequence", PACKED, TypeError, ("input", "PackedSequence")),
        ("four axes", padded[None], ValueError, ("2D or 3D", "4D")),
        ("columns", padded[..., :1], RuntimeError, ("input_size", "Expected 2", "got 1")),
        ("float64", padded.double(), ValueError, ("dtype", "float64", "float32")),
        ("another device", padded.to("meta"), RuntimeError, ("on the CPU", "meta")),
        ("sizes growing", lie(batch_sizes=[1, 2, 3]), ValueError, ("batch_sizes", "got 2 at index 1")),
        ("sizes negative", lie(batch_sizes=[3, -1, 4]), ValueError, ("batch_sizes", "got -1")),
        ("sizes too large", lie(batch_sizes=[3, 2, 2]), ValueError, ("batch_sizes", "expected 6", "got 7")),
        ("sizes empty", lie(batch_sizes=np.zeros(0, int)), ValueError, ("at least one sequence",)),
        ("sizes float", lie(batch_sizes=[3.0, 2.0, 1.0]), TypeError, ("batch_sizes", "float32")),
        ("order wild", lie(sorted_indices=[0, 1, 2**40], unsorted_indices=[0, 1, 2]), ValueError, (str(2**40),)),
        ("order repeated", lie(sorted_indices=[0, 0, 0], unsorted_indices=[0, 0, 0]), ValueError, ("inverse",)),
    ):
        yield Case(f"torch.GRU, {what}", error, words, lambda v=value: gru(v))
    h = torch.ones(2, 3, 5)
    for what, value, error, words in (
        ("too few sequences", h[:, :2], RuntimeError, ("(2, 3, 5)", "[2, 2, 5]")),
        ("too many units", torch.ones(2, 3, 6), RuntimeError, ("(2, 3, 5)", "[2, 3, 6]")),
        ("two axes", h[0], RuntimeError, ("3-D", "2-D")),
        ("pair", (h, h), TypeError, ("hx", "a tensor")),
        ("float64", h.double(), RuntimeError, ("float32", "float64")),
        ("array", h.numpy(), TypeError, ("hx", "a tensor")),
    ):
        yield Case(f"torch.GRU, hx {what}", error, words, lambda v=value: gru(packed, v))
    h, c = torch.ones(1, 3, 3), torch.ones(1, 3, 5)
    for what, value, error, words in (
        ("tensor", h, TypeError, ("hx", "a tuple of two tensors")),
        ("one", (h,), TypeError, ("hx", "a tuple of two tensors")),
        ("None inside", (h, None), TypeError, ("hx", "a tuple of two tensors")),
        ("c as large as h", (h, h), RuntimeError, ("hidden[1]", "(1, 3, 5)", "[1, 3, 3]")),
        ("h as large as c", (c, c), RuntimeError, ("hidden[0]", "(1, 3, 3)", "[1, 3, 5]")),
    ):
        yield Case(f"torch.LSTM, hx {what}", error, words, lambda v=value: lstm(packed, v))
    yield Case("torch.GRU, gradient of another shape", RuntimeError, ("shape",),
               lambda: gru(packed)[0].data.backward(torch.ones(2, 2)))  # fmt: skip


def onnx_files():
    if not importlib.util.find_spec("onnx"):
        return
    nowhere = os.path.join(__file__, "nowhere")
    onnx = nbp.interop.onnx
    for what, value, error, words in (
        ("number", 3, TypeError, ("path_or_model", "int")),
        ("another kind of file", __file__, ValueError, ("bad_input.py", "ONNX model")),
        ("no file", nowhere, OSError, ("nowhere",)),
        ("empty", b"", ValueError, ("path_or_model", "valid ONNX model")),
        ("bytes that are no model", b"model", ValueError, ("path_or_model", "ONNX model")),
    ):
        yield Case(f"onnx.load, {what}", error, words, lambda v=value: onnx.load(v))
    yield Case("onnx.load, a folder", OSError, ("path_or_model",), lambda: onnx.load(os.path.dirname(__file__)))
    yield Case("onnx.export, path", TypeError, ("path", "int"), lambda: onnx.export(GRU, 3))
    yield Case("onnx.export, a folder", OSError, ("path", "folder"),
               lambda: onnx.export(GRU, os.path.dirname(__file__)))  # fmt: skip
    yield Case("onnx.export, an array", TypeError, ("layer", "ndarray"), lambda: onnx.export(ROWS, nowhere))
    yield Case("onnx.export, a projection", ValueError, ("layer", "proj_size=3"), lambda: onnx.export(LSTM, nowhere))
    yield Case("onnx.export, another cell", ValueError, ("layer", "ONNX", "SRU(3, 5)"),
               lambda: onnx.export(nbp.cells.SRU(3, 5), nowhere))  # fmt: skip
    W, R = np.ones((1, 6, 2), F4), np.ones((1, 6, 2), F4)
    for what, operator, weights, options, error, words in (
        ("W of other gates", "LSTM", (W, R), {}, ValueError, ("W must have shape", "(1, 8, 2)", "(1, 6, 2)")),
        ("two dtypes", "GRU", (W, R.astype(float)), {}, TypeError, ("R", "float32", "float64")),
        ("not finite", "GRU", (W * F4(np.nan), R), {}, ValueError, ("W", "finite", "nan")),
        ("direction", "GRU", (W, R), {"direction": "up"}, ValueError, ("direction", "'up'")),
        ("activation", "GRU", (W, R), {"activations": ["Tanh", "Sine"]}, ValueError, ("activations", "'Sine'")),
        ("alpha", "GRU", (W, R), {"activation_alpha": [1.0]}, ValueError, ("activation_alpha", "1.0")),
        ("clip", "GRU", (W, R), {"clip": -1.0}, ValueError, ("clip", "above 0")),
    ):
        call = lambda one=operator, given=weights, o=options: onnx_node(one, given, o)
        yield Case(f"onnx.Backend.run_node, {what}", error, words, call)
    rows = np.ones((2, 3), F4)
    layer = onnx.BothWays(nbp.cells.LSTM(3, 2), nbp.cells.LSTM(3, 2, reverse=True))
    for what, call, error, words in (
        ("columns", lambda: layer(rows[:, :2].copy()), ValueError, ("input", "(2, 3)")),
        ("one array for two states", lambda: layer(rows, np.ones((2, 2), F4)), TypeError, ("hx", "tuple of two")),
        ("state of one direction", lambda: layer(rows, (rows[:1, :2],) * 2), ValueError, ("hx[0]", "(2, B, H)")),
        ("parameters", lambda: setattr(layer, "parameters", rows), ValueError, ("parameters", "(2, 3)")),
        ("tape", lambda: layer.backward(None), TypeError, ("tape", "NoneType")),
    ):
        yield Case(f"onnx.BothWays, {what}", error, words, call)


def onnx_node(operator, weights, attributes):
    """Run one node of ONNX with weights as its inputs."""
    from onnx import helper

    node = helper.make_node(operator, ["X", "W", "R"], ["Y"], **attributes)
    return nbp.interop.onnx.Backend.run_node(node, [PADDED, *weights])


# -- compiled code -----------------------------------------------------------------------------------------------------


@njit(cache=True)
def pack_padded(padded, lengths):
    return nbp.pack_padded_sequence(padded, lengths)


@njit(cache=True)
def unpad(padded, lengths):
    return nbp.unpad_sequence(padded, lengths)


@njit(cache=True)
def pack_ragged(values, offsets):
    return nbp.pack_ragged(values, offsets)


@njit(cache=True)
def pad_packed(packed, steps):
    return nbp.pad_packed_sequence(packed, total_length=steps)


@njit(cache=True)
def unpack_ragged(packed):
    return nbp.unpack_ragged(packed)


@njit(cache=True)
def unpack(packed):
    return nbp.unpack_sequence(packed)


@njit(cache=True)
def check(packed):
    return nbp.check_packed(packed)


@njit(cache=True)
def pack_two(one, other, enforce_sorted):
    return nbp.pack_sequence((one, other), enforce_sorted)


@njit(cache=True)
def pad_two(one, other, padding_value, padding_side):
    return nbp.pad_sequence((one, other), False, padding_value, padding_side)


@njit(cache=True)
def pack_left(padded, lengths, padding_side):
    return nbp.pack_padded_sequence(padded, lengths, padding_side=padding_side)


@njit(cache=True)
def pad_packed_side(packed, padding_side):
    return nbp.pad_packed_sequence(packed, padding_side=padding_side)


@njit(cache=True)
def unpad_side(padded, lengths, padding_side):
    return nbp.unpad_sequence(padded, lengths, padding_side=padding_side)


@njit(cache=True)
def concatenate(one, other):
    return nbp.concatenate((one, other))


@njit(cache=True)
def select(packed, indices):
    return nbp.select(packed, indices)


@njit(cache=True)
def invert(permutation):
    return nbp.invert_permutation(permutation)


@njit(cache=True)
def attend(queries, keys, d_context):
    _, weights = nbp.attend(queries, keys, keys)
    return nbp.attend_backward(queries, keys, keys, weights, d_context)


@njit(cache=True)
def by_sequence(packed, d_output, rows):
    output = nbp.packed_softmax(packed)
    nbp.packed_softmax_backward(output, d_output)
    return nbp.sum_by_sequence(packed), nbp.repeat_by_sequence(rows, packed)


def compiled_attention():
    one, other = PACKED.map(lambda rows: rows[:, :1].copy()), nbp.select(PACKED, [1, 0, 2])
    for what, arguments, error, words in (
        ("attend, no packed keys", (PACKED, ROWS, PACKED), TypingError, ("keys must be a PackedSequence",)),
        ("attend, one query", (ROWS[0], PACKED, PACKED), TypingError, ("queries", "2 axes")),
        ("attend, integers", (PACKED.astype(int), PACKED, PACKED), TypingError, ("queries", "float32 or float64")),
        ("attend, dtype", (PACKED.astype(float), PACKED, PACKED), TypingError, ("keys.data", "dtype float64")),
        ("attend, columns", (one, PACKED, PACKED), ValueError, ("queries", "columns as keys", "expected 2; got 1")),
        ("attend, queries", (np.ones((4, 2), F4), PACKED, ONE), ValueError, ("queries", "expected 3; got 4")),
        ("attend_backward, others", (PACKED, PACKED, other), ValueError, ("d_context.sorted_indices", "index 0")),
        ("attend_backward, rows", (PACKED, PACKED, ONE), ValueError, ("d_context", "expected 6; got 3")),
    ):
        yield Case(f"@njit {what}", error, words, lambda a=arguments: attend(*a))
    for what, arguments, error, words in (
        ("sum_by_sequence, array", (ROWS, PACKED, ONE), TypingError, ("packed must be a PackedSequence",)),
        ("packed_softmax, integers", (PACKED.astype(int), PACKED, ONE), TypingError, ("packed.data", "float32")),
        ("packed_softmax_backward, dtype", (PACKED, PACKED.astype(float), ONE), TypingError, ("d_output", "float32")),
        ("packed_softmax_backward, columns", (PACKED, one, ONE), ValueError, ("d_output", "expected 2; got 1")),
        ("repeat_by_sequence, rows", (PACKED, PACKED, ROWS), ValueError, ("rows", "expected a length of 3; got 6")),
    ):
        yield Case(f"@njit {what}", error, words, lambda a=arguments: by_sequence(*a))


def compiled_packing():
    takers = {
        "unpack_ragged": ("packed", unpack_ragged),
        "unpack_sequence": ("packed", unpack),
        "check_packed": ("packed", check),
        "pad_packed_sequence": ("sequence", lambda packed: pad_packed(packed, 3)),
    }
    for name, (value, error, words) in BAD_LENGTHS.items():
        if error is ValueError and isinstance(value, np.ndarray) and value.dtype == np.int64 and value.ndim == 1:
            for function, compiled in (("pack_padded_sequence", pack_padded), ("unpad_sequence", unpad)):
                call = lambda f=compiled, v=value: f(PADDED, v)
                yield Case(f"@njit {function}, lengths {name}", ValueError, ("lengths", *words), call)
    near = index(1, 2, 2**64 - 1, dtype="u8")
    yield Case(
        "@njit pack_padded_sequence, uint64 near 2**64", ValueError, ("lengths",), lambda: pack_padded(PADDED, near)
    )
    for name, (value, words) in BAD_OFFSETS.items():
        call = lambda v=value: pack_ragged(ROWS, v)
        yield Case(f"@njit pack_ragged, offsets {name}", ValueError, ("offsets", *words), call)
    for name, (fields, error, words) in BAD_PACKED.items():
        if error is ValueError and all(isinstance(v, np.ndarray) and v.ndim == PACKED.data.ndim - (k != "data")
                                       for k, v in fields.items()):  # fmt: skip
            for function, (argument, call) in takers.items():
                yield Case(f"@njit {function}, {name}", ValueError, (argument, *words),
                           lambda c=call, f=fields: c(lie(f)))  # fmt: skip
    yield Case("@njit unpack_ragged, pickled lie", ValueError, ("batch_sizes", str(2**60)),
               lambda: unpack_ragged(pickled_lie()))  # fmt: skip
    for value, words in (
        (2, ("at least 3", "2")),
        (-1, ("at least 3", "-1")),
        (2**40, ("memory", str(2**40))),
    ):
        yield Case(f"@njit pad_packed_sequence, total_length = {value}", ValueError, ("total_length", *words),
                   lambda v=value: pad_packed(PACKED, v))  # fmt: skip
    for value in (index(0, 3, 1), index(0, -1), index(1, 1), index(2**62)):
        yield Case(f"@njit invert_permutation, {value}", ValueError, ("permutation",), lambda v=value: invert(v))
    wide = np.ones((2, 3), F4)
    wide_batch = lie(dict(data=np.ones((6, 3), F4)))
    for name, call, words in (
        ("pack_sequence, two widths", lambda: pack_two(ROWS, wide, False), ("sequences", "agree in shape", "3")),
        (
            "pack_sequence, out of order",
            lambda: pack_two(ROWS[:1], ROWS, True),
            ("sequences", "not increase", "index 1"),
        ),
        ("pad_sequence, two widths", lambda: pad_two(ROWS, wide, 0.0, "left"), ("sequences", "agree in shape", "3")),
        ("pad_sequence, padding_side", lambda: pad_two(ROWS, ROWS, 0.0, "top"), ("padding_side", "'right'", "top")),
        ("pack_padded_sequence, side", lambda: pack_left(PADDED, index(1, 2, 3), "top"), ("padding_side", "top")),
        ("pad_packed_sequence, side", lambda: pad_packed_side(PACKED, "top"), ("padding_side", "top")),
        ("unpad_sequence, side", lambda: unpad_side(PADDED, index(1, 2, 3), "top"), ("padding_side", "top")),
        ("select, too large", lambda: select(PACKED, index(0, 3)), ("indices", "at most 2", "index 1")),
        ("select, too small", lambda: select(PACKED, index(-4)), ("indices", "at least -3", "-4")),
        ("select, empty", lambda: select(PACKED, index()), ("indices", "at least one")),
        ("select, uint64 near 2**64", lambda: select(PACKED, index(2**64 - 1, dtype="u8")), ("indices", "fit int64")),
        ("lengths, a lie", lambda: lengths_of(lie(dict(batch_sizes=index(3, 2, 2)))), ("self.batch_sizes", "got 7")),
        ("lengths, a pickled lie", lambda: lengths_of(pickled_lie()), ("self.batch_sizes", str(2**60))),
        (
            "lengths, indices outside",
            lambda: lengths_of(lie(dict(unsorted_indices=index(0, 2**40, 1)))),
            ("self.unsorted_indices", str(2**40)),
        ),
        ("select, a short mask", lambda: select(PACKED, np.ones(2, bool)), ("indices", "length of 3", "got 2")),
        ("concatenate, two widths", lambda: concatenate(PACKED, wide_batch), ("batches", "agree in shape", "3")),
        ("concatenate, a lie", lambda: concatenate(PACKED, pickled_lie()), ("batch_sizes", str(2**60))),
        (
            "pad_sequence, padding_value",
            lambda: pad_two(index(1), index(2), 0.5, "left"),
            ("padding_value", "representable"),
        ),
    ):
        yield Case(f"@njit {name}", ValueError, words, call)
    for name, call, words in (
        ("two dtypes", lambda: pack_two(ROWS, ROWS.astype("f8"), False), ("sequences", "agree in dtype")),
        ("two ranks", lambda: pad_two(ROWS, ROWS[0], 0.0, "left"), ("sequences", "number of axes")),
        ("scalars", lambda: pack_two(1.0, 2.0, False), ("sequences", "array")),
        ("flag of 1", lambda: pack_two(ROWS, ROWS, 1), ("enforce_sorted", "bool")),
        ("side of bytes", lambda: pad_two(ROWS, ROWS, 0.0, b"left"), ("padding_side", "'right' or 'left'")),
        ("array among batches", lambda: concatenate(PACKED, ROWS), ("batches", "PackedSequence", "array")),
        ("batches of two dtypes", lambda: concatenate(PACKED, PACKED.astype("f8")), ("batches", "agree in dtype")),
        ("float indices", lambda: select(PACKED, np.ones(2)), ("indices", "integers", "float64")),
        ("array for a batch", lambda: unpack(ROWS), ("packed", "PackedSequence")),
        ("None for a batch", lambda: check(None), ("packed", "PackedSequence")),
        ("float lengths", lambda: pack_padded(PADDED, np.full(3, np.nan)), ("lengths", "integers", "float64")),
        ("bool lengths", lambda: unpad(PADDED, np.ones(3, bool)), ("lengths", "integers", "bool")),
        ("lengths of no axes", lambda: unpad(PADDED, 3), ("lengths", "integers", "int64")),
        ("vector", lambda: pack_padded(ROWS[:, 0], index(1)), ("input", "at least 2 axes", "1")),
        ("float16", lambda: pack_ragged(ROWS.astype("f2"), index(0, 6)), ("values", "float16")),
        ("structured", lambda: pack_ragged(np.zeros(6, [("x", "f4")]), index(0, 6)), ("values", "Record")),
        ("plain tuple", lambda: unpack_ragged(tuple(PACKED)), ("packed", "PackedSequence", "Tuple")),
        ("int32 sizes", lambda: unpack_ragged(lie(dict(batch_sizes=index(3, 2, 1, dtype="i4")))), ("int64", "int32")),
        ("None for indices", lambda: unpack_ragged(lie(dict(sorted_indices=None))), ("sorted_indices", "none")),
        ("float total_length", lambda: pad_packed(PACKED, 5.0), ("total_length", "integer", "float64")),
        ("float permutation", lambda: invert(np.zeros(1)), ("permutation", "integers", "float64")),
    ):
        yield Case(f"@njit, {name}", TypingError, words, call)


@njit(cache=True)
def lengths_of(packed):
    return packed.lengths


@njit(cache=True)
def compiled_lstm(packed, weights, hx):
    return nbp.lstm(packed, weights, hx)


@njit(cache=True)
def compiled_rnn(packed, weights, hx):
    return nbp.rnn(packed, weights, hx)


@njit(cache=True)
def compiled_gru_back(tape, d_output, d_state):
    return nbp.gru_backward(tape, d_output, d_state)


@njit(cache=True)
def compiled_back(tape, d_output, d_state):
    return nbp.run_backward(tape, d_output, d_state)


@njit(cache=True)
def compiled_gru_gradients(packed, weights, hx, d_output, d_state):
    tape = nbp.gru_forward(packed, weights, hx)[2]
    return nbp.gru_backward(tape, d_output, d_state)


def compiled_layers():
    h, c = STATES["LSTM"]
    state, output = STATES["GRU"], GRU(PACKED)[0].data
    callers = {"lstm": nbp.lstm, "@njit lstm": compiled_lstm}
    for axis in range(3):
        for change in (-1, 1):
            wrong = wrong_size(STATES["RNN"], axis, change)
            yield Case(f"@njit rnn, hx axis {axis} {change:+}", ValueError, ("hx", f"shape[{axis}]"),
                       lambda v=wrong: compiled_rnn(PACKED, RNN.weights, v))  # fmt: skip
    for name, call in callers.items():
        for what, (value, error, words) in BAD_INPUT.items():
            if isinstance(value, nbp.PackedSequence) and error is ValueError:
                words = tuple(word.replace("input", "packed") for word in words if not word.startswith("("))
                yield Case(f"{name}, {what}", error, words, lambda f=call, v=value: f(v, LSTM.weights, (h, c)))
        for number, part in enumerate((h, c)):
            for axis in range(3):
                for change in (-1, 1):
                    hx = in_pair(number, wrong_size(part, axis, change), (h, c))
                    words = ("hx", f"shape[{axis}]", str(part.shape[axis]), str(part.shape[axis] + change))
                    call_with = lambda f=call, v=hx: f(PACKED, LSTM.weights, v)
                    yield Case(f"{name}, hx[{number}] axis {axis} {change:+}", ValueError, words, call_with)

    def gradients(packed=PACKED, hx=state, d_output=output, d_state=state):
        return compiled_gru_gradients(packed, GRU.weights, hx, d_output, d_state)

    for axis in range(3):
        for change in (-1, 1):
            wrong = wrong_size(state, axis, change)
            words = (f"shape[{axis}]", str(wrong.shape[axis]))
            yield Case(f"@njit gru_forward, hx axis {axis} {change:+}", ValueError, ("hx", *words),
                       lambda v=wrong: gradients(hx=v))  # fmt: skip
            yield Case(f"@njit gru_backward, d_state axis {axis} {change:+}", ValueError, ("d_state", *words),
                       lambda v=wrong: gradients(d_state=v))  # fmt: skip
    for axis in range(2):
        for change in (-1, 1):
            wrong = wrong_size(output, axis, change)
            yield Case(f"@njit gru_backward, d_output axis {axis} {change:+}", ValueError,
                       ("d_output", f"shape[{axis}]", str(wrong.shape[axis])),
                       lambda v=wrong: gradients(d_output=v))  # fmt: skip

    def tape():
        return nbp.gru_forward(PACKED, GRU.weights, state)[2]

    def lstm_tape():
        return nbp.lstm_forward(PACKED, LSTM.weights, (h, c))[2]

    def damaged(tape, field, damage):
        """The tape with a field, or a field of a field, that is another."""
        outer, _, inner = field.partition(".")
        value = getattr(tape, outer)
        value = value._replace(**{inner: damage(getattr(value, inner))}) if inner else damage(value)
        return tape._replace(**{outer: value})

    def shorter(array):
        return array[:-1].copy() if len(array) else np.ones((1,) * array.ndim, array.dtype)

    def wild(array):
        array[-1] = 2**40
        return array

    def halved(array):
        with np.errstate(over="ignore"):
            return array.astype("f2")

    def with_an_axis(array):
        return array[np.newaxis]

    fields = {
        with_an_axis: (
            "packed.data", "packed.batch_sizes", "states.h", "states.others", "record.gates", "record.cells",
            "record.outputs", "record.unprojected", "output", "used",
        ),
        shorter: (
            "packed.data", "packed.batch_sizes", "packed.sorted_indices", "packed.unsorted_indices", "states.h",
            "states.others", "record.gates", "record.cells", "record.outputs", "record.unprojected", "output", "used",
        ),
        wild: ("packed.batch_sizes", "packed.sorted_indices", "packed.unsorted_indices"),
        halved: ("packed.data", "states.h", "record.gates", "output", "used"),
    }  # fmt: skip
    for name, back, make, error in (
        ("gru_backward", nbp.gru_backward, tape, TypeError),
        ("@njit gru_backward", compiled_gru_back, tape, TypingError),
        ("lstm_backward", nbp.lstm_backward, lstm_tape, TypeError),
    ):
        for damage, names in fields.items():
            for field in names:
                call = lambda b=back, m=make, f=field, d=damage: b(damaged(m(), f, d), None, None)
                refusal = ValueError if damage in (shorter, wild) else error
                yield Case(f"{name}, tape.{field} {damage.__name__}", refusal, ("tape",), call)

        def twice(back=back, make=make):
            used = make()
            back(used, None, None)
            back(used, None, None)

        yield Case(f"{name}, tape used before", ValueError, ("tape must not have been used",), twice)
    for name, back, error in (("run_backward", nbp.run_backward, TypeError), ("@njit", compiled_back, TypingError)):
        call = lambda b=back: b(damaged(lstm_tape(), "record.cells", lambda cells: cells[0]), None, None)
        yield Case(f"{name}, cells of as many axes as all else of the record", error, ("tape must be what",), call)
    yield Case("lstm_backward, no c among the states", ValueError, ("tape.states.others", "expected size 1", "got 0"),
               lambda: nbp.lstm_backward(damaged(lstm_tape(), "states.others", shorter), None))  # fmt: skip

    int32 = lie(dict(batch_sizes=index(3, 2, 1, dtype="i4")))
    typed = {
        "weights of another": (lambda f: f(PACKED, GRU.weights, None), ("weights of lstm", "GRUWeights")),
        "tuple for weights": (lambda f: f(PACKED, tuple(LSTM.weights), None), ("weights of lstm", "Tuple")),
        "no batch": (lambda f: f(ROWS, LSTM.weights, None), ("packed", "PackedSequence")),
        "data of float64": (lambda f: f(PACKED.astype("f8"), LSTM.weights, None), ("packed.data", "float32")),
        "data of one axis": (lambda f: f(lie(dict(data=ROWS[:, 0])), LSTM.weights, None), ("packed.data", "1d")),
        "bool symbols": (lambda f: f(lie(dict(data=np.ones(6, bool))), LSTM.weights, None), ("packed.data", "bool")),
        "int32 batch sizes": (lambda f: f(int32, LSTM.weights, None), ("packed.batch_sizes", "int64")),
        "array for a pair": (lambda f: f(PACKED, LSTM.weights, h), ("hx", "tuple of two float32")),
        "float64 states": (lambda f: f(PACKED, LSTM.weights, (h, c.astype("f8"))), ("hx", "tuple of two float32")),
        "None for a part": (lambda f: f(PACKED, LSTM.weights, (h, None)), ("hx", "tuple of two float32")),
    }
    for what, (call, words) in typed.items():
        yield Case(f"lstm, {what}", TypeError, words, lambda c=call: c(nbp.lstm))
        yield Case(f"@njit lstm, {what}", TypingError, words, lambda c=call: c(compiled_lstm))
    for name in ("run", "rnn", "lstm", "gru"):
        forward, backward = getattr(nbp, f"{name}_forward"), getattr(nbp, f"{name}_backward")
        for value in (None, ROWS, tuple(PACKED)):
            kind = type(value).__name__
            yield Case(f"{name}_forward, {kind} for weights", TypeError, (f"weights of {name}",),
                       lambda f=forward, v=value: f(PACKED, v))  # fmt: skip
            yield Case(f"{name}_backward, {kind} for a tape", TypeError, ("tape", f"{name}_forward"),
                       lambda f=backward, v=value: f(v, None))  # fmt: skip
    big_endian = lie(dict(data=ROWS.astype(">f4")))
    for what, call, words in (
        ("lstm, a layer for weights", lambda: nbp.lstm(PACKED, LSTM), ("weights", "LSTM")),
        ("lstm, big-endian data", lambda: nbp.lstm(big_endian, LSTM.weights), ("packed", ">f4")),
        ("rnn, weights of a gru", lambda: nbp.rnn(PACKED, GRU.weights), ("weights of rnn", "GRUWeights")),
        ("gru, pair for a state", lambda: nbp.gru(PACKED, GRU.weights, (state, state)), ("hx", "float32 array")),
        ("gru_backward, no tape", lambda: nbp.gru_backward(None, None), ("tape", "gru_forward")),
        ("gru_backward, a layer's tape", lambda: nbp.gru_backward(GRU.forward(PACKED)[2], None), ("tape", "Tape")),
        ("lstm_backward, a gru's tape", lambda: nbp.lstm_backward(tape(), None), ("tape", "lstm_forward")),
        ("gru_backward, float64 d_output", lambda: nbp.gru_backward(tape(), output.astype("f8")), ("d_output",)),
        ("gru_backward, text for d_output", lambda: nbp.gru_backward(tape(), "x"), ("d_output", "unicode")),
        ("gru_backward, pair for d_state", lambda: nbp.gru_backward(tape(), None, (state, state)), ("d_state",)),
    ):
        yield Case(what, TypeError, words, call)


# -- running them ------------------------------------------------------------------------------------------------------


def kit():
    linear, embedding = nbp.Linear(2, 3, rng=0), nbp.Embedding(4, 3, rng=0)
    linear_2 = nbp.Linear(2, 3, rng=1)
    model = nbp.Model(gru=nbp.GRU(2, 5, rng=0), linear=nbp.Linear(5, 3), last_state=True)
    tape, looked_up = linear.forward(ROWS)[1], embedding.forward(index(0, 1))[1]
    masked = np.ma.array(ROWS)
    for what, call, error, words in (
        ("Linear(0)", lambda: nbp.Linear(0, 1), ValueError, ("in_features", "0")),
        ("Linear(out_features)", lambda: nbp.Linear(1, 2.0), TypeError, ("out_features", "2.0")),
        ("Linear(bias)", lambda: nbp.Linear(1, 2, 3), TypeError, ("bias", "bool", "3")),
        ("Linear(dtype)", lambda: nbp.Linear(1, 2, dtype=int), TypeError, ("dtype", "int")),
        ("Linear(rng)", lambda: nbp.Linear(1, 2, rng="0"), TypeError, ("rng", "'0'")),
        ("Linear, list", lambda: linear([[1.0, 2.0]]), TypeError, ("input", "PackedSequence", "list")),
        ("Linear, float64", lambda: linear(ROWS.astype("f8")), TypeError, ("input", "float32", "float64")),
        ("Linear, columns", lambda: linear(ROWS[:, :1]), ValueError, ("input", "(*, in_features)", "(6, 1)")),
        ("Linear, a number", lambda: linear(np.float32(1)), TypeError, ("input", "numpy.float32")),
        ("Linear, no axis", lambda: linear(np.array(1, F4)), ValueError, ("input", "(*, in_features)", "()")),
        ("Linear, masked", lambda: linear(masked), TypeError, ("input", "mask")),
        ("Linear, packed of another kind", lambda: linear(PACKED._replace(batch_sizes=index(2, 3))), ValueError,
         ("input.batch_sizes",)),
        ("Linear.backward(tape)", lambda: linear.backward(None, ROWS), TypeError, ("tape", "NoneType")),
        ("Linear.backward, of another", lambda: nbp.Linear(2, 3).backward(tape, ROWS), ValueError, ("tape", "another")),
        ("Linear.backward, of a layer", lambda: linear.backward(GRU.forward(ROWS)[2], ROWS), TypeError,
         ("tape", "Tape")),
        ("Linear.backward(d_output)", lambda: linear.backward(tape, ROWS), ValueError,
         ("d_output", "(6, 3)", "(6, 2)")),
        ("Linear.backward, list", lambda: linear.backward(tape, [1.0]), TypeError, ("d_output", "list")),
        ("Linear.backward, packed", lambda: linear.backward(tape, PACKED), TypeError, ("d_output", "PackedSequence")),
        ("Linear.backward, of other sequences",
         lambda: linear.backward(linear.forward(PACKED)[1], nbp.pack_sequence([ROWS])), ValueError,
         ("d_output", "3 sequences, as input has", "got 1")),
        ("Linear.backward(input_grad)", lambda: linear.backward(tape, np.ones((6, 3), F4), 1), TypeError,
         ("input_grad", "bool")),
        ("Linear.parameters", lambda: setattr(linear, "parameters", np.zeros(8, F4)), ValueError,
         ("parameters", "(9,)")),
        ("Linear.parameters, NaN", lambda: setattr(linear, "parameters", np.full(9, np.nan, F4)), ValueError,
         ("parameters", "finite", "nan")),
        ("Linear.views", lambda: linear.views(np.zeros(3)), ValueError, ("vector", "(9,)", "(3,)")),
        ("Linear.views, list", lambda: linear.views([1.0]), TypeError, ("vector", "list")),
        ("Linear.load_state_dict", lambda: linear.load_state_dict(3), TypeError, ("state_dict", "int")),
        ("Linear.load_state_dict, empty", lambda: linear.load_state_dict({}, "a"), ValueError,
         ("state_dict", "a.weight", "a.bias")),
        ("Linear.load_state_dict, shape",
         lambda: linear.load_state_dict({"weight": ROWS, "bias": ROWS[0]}), ValueError,
          ("'weight'", "(3, 2)", "(6, 2)")),
        ("Linear.load_state_dict, integers",
         lambda: linear.load_state_dict({"weight": index(1), "bias": ROWS[0]}), TypeError, ("'weight'", "int64")),
        ("Linear.load_state_dict, NaN",
         lambda: linear.load_state_dict({"weight": ROWS[:3] * math.nan, "bias": ROWS[:3, 0]}), ValueError,
         ("'weight'", "finite")),
        ("Embedding(0)", lambda: nbp.Embedding(0, 1), ValueError, ("num_embeddings", "0")),
        ("Embedding(embedding_dim)", lambda: nbp.Embedding(1, None), TypeError, ("embedding_dim", "None")),
        ("Embedding, floats", lambda: embedding(ROWS), TypeError, ("input", "integers", "float32")),
        ("Embedding, bools", lambda: embedding(ROWS > 1), TypeError, ("input", "integers", "bool")),
        ("Embedding, too large", lambda: embedding(index(0, 4)), ValueError,
         ("input", "num_embeddings = 4", "got 4", "1")),
        ("Embedding, negative", lambda: embedding(index(0, -1)[None]), ValueError, ("input", "got -1", "(0, 1)")),
        ("Embedding, near 2**64", lambda: embedding(index(2**64 - 1, dtype="u8")), ValueError,
         ("input", str(2**64 - 1))),
        ("Embedding, packed of columns", lambda: embedding(PACKED.astype(int)), ValueError, ("input.data", "(N,)")),
        ("Embedding.backward(tape)", lambda: embedding.backward(tape, ROWS), ValueError, ("tape", "another")),
        ("Embedding.backward(d_output)", lambda: embedding.backward(looked_up, ROWS), ValueError,
         ("d_output", "(2, 3)", "(6, 2)")),
        ("Model()", lambda: nbp.Model(), TypeError, ("parts", "none")),
        ("Model(3)", lambda: nbp.Model(a=3), TypeError, ("a must be a layer", "int")),
        ("Model(parameters=)", lambda: nbp.Model(parameters=linear), ValueError, ("parts", "'parameters'")),
        ("Model, twice", lambda: nbp.Model(a=linear, b=linear), ValueError, ("parts", "twice")),
        ("Model, dtypes", lambda: nbp.Model(a=linear, b=nbp.Linear(1, 1, dtype=float)), TypeError,
         ("parts", "float32 of a", "float64 of b")),
        ("Model.parameters", lambda: setattr(nbp.Model(a=linear), "parameters", ROWS), ValueError,
         ("parameters", "(9,)")),
        ("Model.views", lambda: nbp.Model(a=linear).views(VECTOR), ValueError, ("vector", "(9,)", "(4,)")),
        ("Model.gradient, missing", lambda: nbp.Model(a=linear).gradient(), TypeError, ("gradients", "missing: ['a']")),
        ("Model.gradient, more", lambda: nbp.Model(a=linear).gradient(a=None, b=None), TypeError, ("known: ['b']",)),
        ("Model.gradient, float64", lambda: nbp.Model(a=linear).gradient(a=np.ones(9)), TypeError,
         ("gradient of a", "float64")),
        ("Model.load_state_dict", lambda: nbp.Model(a=linear).load_state_dict([]), TypeError, ("state_dict", "list")),
        ("Model.load_state_dict, more", lambda: nbp.Model(a=linear).load_state_dict({"b.weight": ROWS}), ValueError,
         ("state_dict", "b.weight")),
        ("Model.save(path)", lambda: nbp.Model(a=linear).save(3), TypeError, ("path", "int")),
        ("Model.save, of a name twice", lambda: nbp.Model(a=linear).save("x", a=nbp.optim.Adam()), ValueError,
         ("'a'",)),
        ("Model.save, no state", lambda: nbp.Model(a=linear).save("x", b=3), TypeError,
         ("b must have state_dict", "int")),
        ("Model(last_state)", lambda: nbp.Model(a=linear, last_state=1), TypeError, ("last_state", "bool", "1")),
        ("Model, last state of none", lambda: nbp.Model(a=linear, last_state=True), ValueError,
         ("last_state", "none among a")),
        ("Model, input", lambda: model(ROWS[:, :1]), ValueError, ("gru: ", "input", "(6, 1)")),
        ("Model, of a part", lambda: nbp.Model(a=linear, b=linear_2).forward(ROWS), ValueError,
         ("b: ", "in_features", "(6, 3)")),
        ("Model, of a cell", lambda: nbp.Model(a=CELLS["GRUCell"])(ROWS), TypeError, ("a must be", "cell")),
        ("Model.backward(tape)", lambda: model.backward(tape, ROWS), TypeError, ("tape", "PartTape")),
        ("Model.backward, of another", lambda: nbp.Model(a=linear).backward(model.forward(ROWS)[1], ROWS), ValueError,
         ("tape", "another")),
        ("Model.backward(d_output)", lambda: model.backward(model.forward(ROWS)[1], ROWS), ValueError,
         ("d_output", "(3,)", "(6, 2)")),
        ("Model.backward(input_grad)", lambda: model.backward(model.forward(ROWS)[1], ONE_STATE[0, :3], 1), TypeError,
         ("input_grad", "bool")),
        ("Model.load(path)", lambda: nbp.Model(a=linear).load("a\0"), ValueError, ("path", "null")),
        ("Batches()", lambda: nbp.data.Batches(rows=1), ValueError, ("columns", "ragged")),
        ("Batches, numbers", lambda: nbp.data.Batches(VECTOR, rows=1), ValueError, ("columns", "ragged")),
        ("Batches, text", lambda: nbp.data.Batches("abc", rows=1), TypeError, ("columns[0]", "str")),
        ("Batches, None", lambda: nbp.data.Batches(None, rows=1), TypeError, ("columns[0]", "NoneType")),
        ("Batches, empty", lambda: nbp.data.Batches([], rows=1), ValueError, ("columns[0]", "at least one")),
        ("Batches, masked", lambda: nbp.data.Batches([[1]], masked, rows=1), TypeError, ("columns[1]", "mask")),
        ("Batches, dates", lambda: nbp.data.Batches([[1]], DATES, rows=1), TypeError, ("columns[1]", "datetime")),
        ("Batches, uneven", lambda: nbp.data.Batches([[1]], VECTOR, rows=1), ValueError, ("columns", "1, 4")),
        ("Batches(rows=0)", lambda: nbp.data.Batches([[1]], rows=0), ValueError, ("rows", "0")),
        ("Batches(batch_size=)", lambda: nbp.data.Batches([[1]], batch_size=3), TypeError,
         ("batch_size", "rows=", "got batch_size=3")),
        ("Batches(by_length=1)", lambda: nbp.data.Batches([[1]], rows=1, by_length=1), TypeError,
         ("by_length", "bool")),
        ("Batches(shuffle=1)", lambda: nbp.data.Batches([[1]], rows=1, shuffle=1), TypeError, ("shuffle", "bool")),
        ("Batches(seed=-1)", lambda: nbp.data.Batches([[1]], rows=1, seed=-1), ValueError, ("seed", "-1")),
        ("Batches(seed=1.5)", lambda: nbp.data.Batches([[1]], rows=1, seed=1.5), TypeError, ("seed", "1.5")),
        ("Batches.load_state_dict", lambda: nbp.data.Batches([[1]], rows=1).load_state_dict(3), TypeError,
         ("state_dict", "int")),
        ("Batches.load_state_dict, empty", lambda: nbp.data.Batches([[1]], rows=1).load_state_dict({}), ValueError,
         ("state_dict", "missing", "seed")),
    ):  # fmt: skip
        yield Case(what, error, words, call)


def attention():
    two = nbp.pack_sequence([ROWS[:3], ROWS[:3]])
    wide, other = PACKED.map(lambda rows: np.repeat(rows, 2, axis=1)), nbp.select(PACKED, [1, 0, 2])
    weights = nbp.attend(PACKED, PACKED, PACKED)[1]
    kinds = ("list", [[1.0]], TypeError, ("list",)), ("integers", PACKED.astype(int), TypeError, ("float32", "int64"))
    for name, at in (("queries", 0), ("keys", 1), ("values", 2)):
        for what, value, error, words in (
            *kinds[at == 0 :],
            ("one column", PACKED.map(lambda rows: rows[:, 0]), ValueError, ("(rows, columns)", "(6,)")),
            ("another order", PACKED._replace(batch_sizes=index(1, 2, 3)), ValueError, ("batch_sizes", "got 2")),
            *[("another dtype", PACKED.astype(float), TypeError, ("float32", "float64"))][:at],
            *[("alike, but of others", other, ValueError, ("values.sorted_indices", "got 0", "index 0"))][: at - 1],
        ):
            call = lambda a=(PACKED,) * at + (value,) + (PACKED,) * (2 - at): nbp.attend(*a)
            yield Case(f"attend({name}), {what}", error, (name, *words), call)
    for what, arguments, error, words in (
        ("more queries", (np.ones((4, 2), F4), PACKED, PACKED), ValueError, ("queries", "expected 3; got 4")),
        ("fewer queries", (two, PACKED, PACKED), ValueError, ("queries", "expected 3; got 2")),
        ("one query", (ROWS[0], PACKED, PACKED), ValueError, ("queries", "2 axes", "(2,)")),
        ("columns", (wide, PACKED, PACKED), ValueError, ("queries", "columns as keys", "expected 2; got 4")),
        ("steps of values", (two, two, nbp.select(PACKED, [0, 1])), ValueError, ("values.batch_sizes", "got 1")),
    ):
        yield Case(f"attend, {what}", error, words, lambda a=arguments: nbp.attend(*a))
    for what, pair, error, words in (
        ("weights, columns", (PACKED, PACKED), ValueError, ("weights.data", "expected 3; got 2")),
        ("weights, rows", (weights.data[:2], PACKED), ValueError, ("weights", "expected 6; got 2")),
        ("weights, dtype", (weights.astype(float), PACKED), TypeError, ("weights.data", "float32", "float64")),
        ("d_context, None", (weights, None), TypeError, ("d_context", "object")),
        ("d_context, of others", (weights, other), ValueError, ("d_context.sorted_indices", "got 0", "index 0")),
        ("d_context, columns", (weights, wide), ValueError, ("d_context.data", "expected 2; got 4")),
    ):
        call = lambda a=pair: nbp.attend_backward(PACKED, PACKED, PACKED, *a)
        yield Case(f"attend_backward, {what}", error, words, call)
    for called, name, function in (
        ("sum_by_sequence", "packed", nbp.sum_by_sequence),
        ("packed_softmax", "packed", nbp.packed_softmax),
        ("packed_softmax_backward", "output", lambda batch: nbp.packed_softmax_backward(batch, PACKED)),
        ("packed_softmax_backward", "d_output", lambda batch: nbp.packed_softmax_backward(PACKED, batch)),
        ("repeat_by_sequence", "packed", lambda batch: nbp.repeat_by_sequence(ONE, batch)),
    ):
        what = f"{called}({name})"
        yield Case(f"{what}, list", TypeError, (name, "list"), lambda f=function: f([1.0]))
        yield Case(f"{what}, array", TypeError, (name, "ndarray"), lambda f=function: f(ROWS))
        yield Case(f"{what}, steps", ValueError, (f"{name}.batch_sizes", "expected 6; got 5"),
                   lambda f=function: f(PACKED._replace(batch_sizes=index(3, 2))))  # fmt: skip
    for what, call, error, words in (
        ("sum of integers", lambda: nbp.sum_by_sequence(PACKED.astype(int)), TypeError, ("packed.data", "int64")),
        ("softmax of integers", lambda: nbp.packed_softmax(PACKED.astype(int)), TypeError, ("packed.data", "int64")),
        ("d_output, columns", lambda: nbp.packed_softmax_backward(PACKED, wide), ValueError, ("d_output", "got 4")),
        ("d_output, dtype", lambda: nbp.packed_softmax_backward(PACKED, PACKED.astype(float)), TypeError,
         ("d_output", "float32", "float64")),
        ("d_output, of others", lambda: nbp.packed_softmax_backward(PACKED, other), ValueError,
         ("d_output.sorted_indices", "index 0")),
        ("rows to be repeated, more", lambda: nbp.repeat_by_sequence(ROWS, PACKED), ValueError, ("rows", "3; got 6")),
        ("rows to be repeated, objects", lambda: nbp.repeat_by_sequence([None] * 3, PACKED), TypeError,
         ("rows", "object")),
        ("rows to be repeated, one", lambda: nbp.repeat_by_sequence(1.0, PACKED), ValueError, ("rows", "()")),
    ):  # fmt: skip
        yield Case(what, error, words, call)


def losses():
    logits, labels = np.zeros((3, 4)), index(0, 1, 3)
    numbers, packed = np.zeros((3, 4)), nbp.pack_sequence([np.zeros((2, 4)), np.zeros((1, 4))])
    good = {
        "softmax_cross_entropy": (nbp.losses.softmax_cross_entropy, labels),
        "binary_cross_entropy": (nbp.losses.binary_cross_entropy, numbers),
        "mse": (nbp.losses.mse, numbers),
        "huber": (nbp.losses.huber, numbers),
    }
    for name, (function, other) in good.items():
        first = "logits" if "cross" in name else "output"
        second = {"softmax_cross_entropy": "labels", "binary_cross_entropy": "targets"}.get(name, "targets")
        for what, arguments, options, error, words in (
            ("list", ([[1.0]], other), {}, TypeError, (first, "PackedSequence", "list")),
            ("integers in place of floats", (numbers.astype(int), other), {}, TypeError, (first, "int64")),
            ("of one axis", (numbers[0], other), {}, ValueError, (first, "(4,)")),
            ("of four axes", (numbers[None, None], other), {}, ValueError, (first, "(1, 1, 3, 4)")),
            ("of no rows", (numbers[:0], other[:0]), {}, ValueError, (first, "(0, 4)")),
            ("with another list", (numbers, [1]), {}, TypeError, (second, "list")),
            ("with another shape", (numbers, other[:2]), {}, ValueError, (second, "got (2,")),
            ("with a packed one", (numbers, packed), {}, TypeError, (second, "PackedSequence")),
            (
                "of other sequences",
                (packed, nbp.pack_sequence([numbers])),
                {},
                ValueError,
                (second, "2 sequences", "1"),
            ),
            (
                "in another order",
                (packed, nbp.pack_sequence([numbers[:1], numbers[:2]])),
                {},
                ValueError,
                (second, "in their order", "1 rows in sequence 0", "has 2"),
            ),
            (
                "of rows in an order that nobody knows",
                (packed, other),
                {},
                TypeError,
                (second, "PackedSequence", "_replace(data=rows)"),
            ),
            ("reduction", (numbers, other), {"reduction": "max"}, ValueError, ("reduction", "'mean'", "'max'")),
            ("reduction 3", (numbers, other), {"reduction": 3}, ValueError, ("reduction", "'mean'", "3")),
            (
                "batchmean of rows",
                (numbers, other),
                {"reduction": "batchmean"},
                ValueError,
                (first, "batchmean", "(3, 4)"),
            ),
            ("batch_first", (numbers, other), {"batch_first": 1}, TypeError, ("batch_first", "bool", "1")),
            ("weights, list", (numbers, other), {"weights": [1.0]}, TypeError, ("weights", "list")),
            ("weights, shape", (numbers, other), {"weights": VECTOR}, ValueError, ("weights", "(3,)", "(4,)")),
            ("weights, negative", (numbers, other), {"weights": -VECTOR[:3]}, ValueError, ("weights", "-1")),
            ("weights, NaN", (numbers, other), {"weights": VECTOR[:3] * math.nan}, ValueError, ("weights", "nan")),
            ("weights, complex", (numbers, other), {"weights": VECTOR[:3] * 1j}, TypeError, ("weights", "complex")),
        ):
            call = lambda f=function, a=arguments, o=options: f(*a, **o)
            yield Case(f"{name}: {what}", error, words, call)
    for what, function, arguments, options, error, words in (
        ("class_weights", good["softmax_cross_entropy"][0], (logits, labels), {"class_weights": VECTOR[1:]}, ValueError,
         ("class_weights", "(4,)", "(3,)")),
        ("class_weights, negative", good["softmax_cross_entropy"][0], (logits, labels), {"class_weights": -VECTOR},
         ValueError, ("class_weights", "-1")),
        ("ignore_index", good["softmax_cross_entropy"][0], (logits, labels), {"ignore_index": None}, TypeError,
         ("ignore_index", "None")),
        ("label_smoothing", good["softmax_cross_entropy"][0], (logits, labels), {"label_smoothing": 1}, ValueError,
         ("label_smoothing", "1")),
        ("pos_weight", good["binary_cross_entropy"][0], (logits, numbers), {"pos_weight": 2.0}, TypeError,
         ("pos_weight", "float")),
        ("targets above 1", good["binary_cross_entropy"][0], (logits, numbers + 2), {}, ValueError, ("targets", "2.0")),
        ("targets NaN", good["binary_cross_entropy"][0], (logits, numbers * math.nan), {}, ValueError,
         ("targets", "nan")),
        ("targets of text", good["binary_cross_entropy"][0], (logits, numbers.astype(str)), {}, TypeError,
         ("targets", "<U")),
        ("targets complex", good["mse"][0], (logits, numbers * 1j), {}, TypeError, ("targets", "complex")),
        ("delta", good["huber"][0], (logits, numbers), {"delta": 0}, ValueError, ("delta", "0")),
    ):  # fmt: skip
        yield Case(f"losses, {what}", error, words, lambda f=function, a=arguments, o=options: f(*a, **o))
    steps = np.zeros((4, 2, 3))
    right = [index(1), index(2, 1)]
    for what, arguments, options, error, words in (
        ("of two axes", (steps[0], right), {}, ValueError, ("logits", "(2, 3)")),
        ("of integers", (steps.astype(int), right), {}, TypeError, ("logits", "int64")),
        ("of no sequences", (steps[:, :0], right), {}, ValueError, ("logits", "(4, 0, 3)")),
        ("labels, None", (steps, None), {}, TypeError, ("labels", "NoneType")),
        ("labels of one sequence", (steps, right[:1]), {}, ValueError, ("labels", "2", "got 1")),
        ("labels, floats", (steps, [VECTOR, VECTOR]), {}, TypeError, ("labels", "integers", "float64")),
        ("labels, matrices", (steps, [index(1)[None]] * 2), {}, TypeError, ("labels", "(2, 1)")),
        ("labels too large", (steps, [index(1), index(3)]), {}, ValueError, ("labels", "[0, 3)", "3")),
        ("labels blank", (steps, [index(1), index(0)]), {}, ValueError, ("labels", "blank, 0", "got 0")),
        ("blank", (steps, right), {"blank": 3}, ValueError, ("blank", "[0, 3)", "3")),
        ("blank, None", (steps, right), {"blank": None}, TypeError, ("blank", "None")),
        ("lengths too long", (steps, right), {"lengths": [4, 5]}, ValueError, ("lengths", "[0, 4]", "5")),
        ("lengths too few", (steps, right), {"lengths": [4]}, ValueError, ("lengths", "(2,)", "(1,)")),
        ("lengths, floats", (steps, right), {"lengths": [4.0, 1.0]}, TypeError, ("lengths", "float64")),
        ("lengths of packed", (packed, right), {"lengths": [2, 1]}, TypeError, ("lengths", "packed")),
        ("reduction", (steps, right), {"reduction": "batchmean"}, ValueError, ("reduction", "'none'", "'batchmean'")),
        ("batch_first", (steps, right), {"batch_first": None}, TypeError, ("batch_first", "None")),
    ):
        yield Case(f"ctc, {what}", error, words, lambda a=arguments, o=options: nbp.losses.ctc(*a, **o))


GROUPS = {
    "kit": kit,
    "attention": attention,
    "losses": losses,
    "packing": packing,
    "layers": layers,
    "cells": cells,
    "others": others,
    "steppers": steppers,
    "serving": serving,
    "interop": interop,
    "onnx": onnx_files,
    "compiled-attention": compiled_attention,
    "ray": on_ray,
    "compiled-packing": compiled_packing,
    "compiled-layers": compiled_layers,
}
#: what the test of the runner itself needs: one call that is not refused, and one that takes the process down
BROKEN = {
    "accepted": lambda: [Case("a call that is not refused", ValueError, (), lambda: None)],
    "another-error": lambda: [Case("another message", ValueError, ("this", "that"), lambda: int("x"))],
    "changed": lambda: [Case("a call that writes", ValueError, (), lambda: (ROWS.fill(7), int("x")))],
    "crash": lambda: [Case("a crash", ValueError, (), lambda: ctypes.string_at(0))],
}


def outcome(case):
    """What is wrong with how a case came out; nothing if it is right."""
    before, threads = [array.tobytes() for array in KEPT], nbp.get_num_threads()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            warnings.filterwarnings("ignore", "dropout is between layers")
            result = case.call()
    except BaseException as error:
        message = str(error)
        if not isinstance(error, case.error):
            return f"{type(error).__name__} instead of {case.error.__name__}: {message}"
        missing = [word for word in case.words if word not in message]
        if missing:
            return f"the message does not hold {missing}: {message}"
    else:
        return f"no error; returned {type(result).__name__}"
    changed = [i for i, array in enumerate(KEPT) if array.tobytes() != before[i]]
    if nbp.get_num_threads() != threads:
        return "the number of threads was changed"
    return f"arrays {changed} of KEPT were changed" if changed else ""


def still_right():
    """A call after all the refusals; its result is known from before them."""
    return nbp.unpack_ragged(LSTM(PACKED, STATES["LSTM"])[0])[0].tobytes()


def run(groups):
    """Run groups of the table; whether all came out right."""
    expected, right = still_right(), True
    cases = [case for group in groups for case in (GROUPS | BROKEN)[group]()]
    for number, case in enumerate(cases):
        print(f"{number} {case.what}", flush=True)
        wrong = outcome(case)
        print(f"WRONG {wrong}" if wrong else "right", flush=True)
        right = right and not wrong
    print(f"{len(cases)} cases")
    return right and still_right() == expected


def limit_memory():
    """Have an allocation that cannot succeed fail at once, also on systems that promise any amount of memory."""
    try:
        import resource
    except ImportError:
        return
    resource.setrlimit(resource.RLIMIT_AS, (64 << 30, resource.getrlimit(resource.RLIMIT_AS)[1]))


if __name__ == "__main__":
    limit_memory()
    sys.exit(not run(sys.argv[1:] or list(GROUPS)))
