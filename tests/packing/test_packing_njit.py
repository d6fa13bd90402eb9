"""The packing functions inside compiled code: the same results, arguments, defaults and errors as from Python."""

import os
import subprocess
import sys
import textwrap
from typing import NamedTuple

import numpy as np
import pytest
from numba import njit, typed
from numba.core.errors import TypingError
from test_packing import assert_same, sequences_of

import numba_pack as nbp
from numba_pack.packing.checks import padding_of

LENGTHS = [3, 0, 5, 3]

# Numba means to take plain lists differently one day; here they are what most callers have.
pytestmark = pytest.mark.filterwarnings("ignore::numba.core.errors.NumbaPendingDeprecationWarning")


@njit(cache=True)
def pack_and_unpack(sequences):
    packed = nbp.pack_sequence(sequences)
    return packed, nbp.unpack_sequence(packed)


@njit(cache=True)
def pad_and_pack(packed):
    padded, lengths = nbp.pad_packed_sequence(packed)
    return nbp.pack_padded_sequence(padded, lengths)


def slow(*values):
    """Another dtype or shape, for which Numba compiles all anew."""
    return pytest.param(*values, marks=pytest.mark.slow)


@pytest.mark.parametrize(("dtype", "trailing"), [("f4", (3,)), ("?", ()), slow("c8", (2, 3))], ids=str)
def test_sequences_of_any_dtype_come_back_from_packing(dtype, trailing):
    sequences = sequences_of(LENGTHS, trailing, dtype)
    packed, unpacked = pack_and_unpack(sequences)
    assert isinstance(packed, nbp.PackedSequence)
    assert_same(packed, nbp.pack_sequence(sequences))
    assert_same(unpacked, sequences)


@pytest.mark.parametrize(("dtype", "trailing"), [("f4", ()), slow("?", (3,)), slow("c8", (2, 3))], ids=str)
def test_a_packed_batch_of_any_dtype_comes_back_from_padding(dtype, trailing):
    packed = nbp.pack_sequence(sequences_of(LENGTHS, trailing, dtype))
    assert_same(pad_and_pack(packed), packed)


# ---- each function with its arguments, against itself in Python ------------------------------------------------------

SEQUENCES = sequences_of(LENGTHS, (2,))
PACKED = nbp.pack_sequence(SEQUENCES)
PADDED = nbp.pad_sequence(SEQUENCES, True)


@njit(cache=True)
def pack_sorted(sequences):
    return nbp.pack_sequence(sequences, enforce_sorted=True)


@njit(cache=True)
def pack_ragged(values, offsets):
    return nbp.pack_ragged(values, offsets)


@njit(cache=True)
def unpack_ragged(packed):
    return nbp.unpack_ragged(packed)


@njit(cache=True)
def pack_padded_batch_first(padded, lengths):
    return nbp.pack_padded_sequence(padded, lengths, batch_first=True, enforce_sorted=False)


@njit(cache=True)
def pad_packed_to(packed, value, steps):
    return nbp.pad_packed_sequence(packed, batch_first=True, padding_value=value, total_length=steps)


@njit(cache=True)
def pack_padded_left(padded, lengths, side):
    return nbp.pack_padded_sequence(padded, lengths, batch_first=True, padding_side=side)


@njit(cache=True)
def pad_packed_left(packed, value):
    return nbp.pad_packed_sequence(packed, padding_value=value, padding_side="left")


@njit(cache=True)
def unpad_left(padded, lengths):
    return nbp.unpad_sequence(padded, lengths, True, "left")


@njit(cache=True)
def concatenate_pair(one, other):
    return nbp.concatenate((one, other)), nbp.concatenate([other, one])


@njit(cache=True)
def concatenate_list(batches):
    return nbp.concatenate(batches)


@njit(cache=True)
def select(packed, indices):
    return nbp.select(packed, indices)


@njit(cache=True)
def lengths_of(batch):
    return batch.lengths


@njit(cache=True)
def pad_packed_to_none(packed):
    return nbp.pad_packed_sequence(packed, False, 1.5, None)


@njit(cache=True)
def pad_left(sequences):
    return nbp.pad_sequence(sequences, batch_first=True, padding_value=-1, padding_side="left")


@njit(cache=True)
def pad_side(sequences, side):
    return nbp.pad_sequence(sequences, padding_side=side)


@njit(cache=True)
def unpad_batch_first(padded, lengths):
    return nbp.unpad_sequence(padded, lengths, batch_first=True)


@njit(cache=True)
def invert(permutation):
    return nbp.invert_permutation(permutation)


@njit(cache=True)
def check(packed):
    return nbp.check_packed(packed, "mine")


FUNCTIONS = [
    (pack_sorted, (SEQUENCES[2:],)),
    (pack_ragged, nbp.unpack_ragged(PACKED)),
    (unpack_ragged, (PACKED,)),
    (pack_padded_batch_first, (PADDED, np.array(LENGTHS))),
    (pad_packed_to, (PACKED, 7.0, 6)),
    (pad_packed_to_none, (PACKED,)),
    (pad_left, (SEQUENCES,)),
    (unpad_batch_first, (PADDED, np.array(LENGTHS))),
    (pack_padded_left, (nbp.pad_sequence(SEQUENCES, True, padding_side="left"), np.array(LENGTHS), "left")),
    (pad_packed_left, (PACKED, -1)),
    (unpad_left, (nbp.pad_sequence(SEQUENCES, True, padding_side="left"), np.array(LENGTHS))),
    (concatenate_pair, (PACKED, nbp.pack_sequence(SEQUENCES[2:]))),
    (select, (PACKED, np.array([2, -1, 1, 2], "i4"))),
    (select, (PACKED, np.array([True, False, True, False]))),
    (lengths_of, (PACKED,)),
    (lengths_of, (nbp.pack_sequence([np.arange(3), np.arange(2)]),)),
    (invert, (np.array([2, 0, 1]),)),
    (check, (PACKED,)),
]


@pytest.mark.parametrize(("function", "arguments"), FUNCTIONS, ids=lambda value: getattr(value, "__name__", ""))
def test_a_function_gives_what_it_gives_in_python(function, arguments):
    assert_same(function(*arguments), function.py_func(*arguments))


def test_sequences_may_be_a_list_a_typed_list_or_a_tuple():
    sequences = SEQUENCES[2:]
    expected = pack_sorted.py_func(sequences)
    assert_same(pack_sorted(typed.List(sequences)), expected)
    assert_same(pack_sorted(tuple(sequences)), expected)


def test_batches_may_be_a_typed_list():
    batches = typed.List([PACKED, nbp.pack_sequence(SEQUENCES[2:])])
    assert_same(concatenate_list(batches), concatenate_list.py_func(batches))


class Trip(NamedTuple):
    lengths: int
    days: np.ndarray


class Walk(NamedTuple):
    days: int
    lengths: int


def test_lengths_of_another_named_tuple_stay_what_they_are():
    assert lengths_of(Trip(3, np.ones(2))) == 3
    assert lengths_of(Walk(1, 2)) == 2


def test_a_tuple_may_mix_strided_and_read_only_arrays():
    strided, still = np.repeat(SEQUENCES[2], 2, axis=0)[::2], SEQUENCES[3].copy()
    still.flags.writeable = False
    assert_same(pack_sorted((strided, still)), pack_sorted.py_func(SEQUENCES[2:]))


def test_strided_and_read_only_arrays_are_taken():
    padded, lengths = np.repeat(PADDED, 2, axis=1)[:, ::2], np.repeat(LENGTHS, 2)[::2]
    lengths.flags.writeable = False
    assert_same(pack_padded_batch_first(padded, lengths), PACKED)


def test_a_function_caches_with_the_callers_code(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent(
            """
            import numpy as np
            from numba import njit
            import numba_pack as nbp

            @njit(cache=True)
            def total(values, offsets):
                return nbp.pack_ragged(values, offsets).data.sum()

            assert total(np.ones(3), np.array([0, 1, 3])) == 3
            nbp.pack_sequence([np.ones(2)])
            print(sum(total.stats.cache_misses.values()), sum(nbp.packing.rows.move_rows.stats.cache_misses.values()))
            """
        )
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, str(script)]
    subprocess.run(command, env=environment, check=True)
    again = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    assert again.stdout.split() == ["0", "0"]


# ---- errors ----------------------------------------------------------------------------------------------------------

GROWING = PACKED._replace(batch_sizes=PACKED.batch_sizes[::-1].copy())
ERRORS = {
    "an empty list": (pack_sorted, (typed.List(SEQUENCES[:1])[:0],), "sequences must hold at least one"),
    "lengths out of order": (
        pack_sorted,
        (SEQUENCES,),
        "the lengths of sequences must not increase .* got 5 at index 2",
    ),
    "shapes that disagree": (
        pack_sorted,
        ([SEQUENCES[0], SEQUENCES[0][:, :1].copy()],),
        "sequences must agree in shape",
    ),
    "a negative length": (pack_padded_batch_first, (PADDED, np.array([3, 0, -1, 3])), "lengths must not be negative"),
    "a length too large": (unpad_batch_first, (PADDED, np.array([3, 0, 6, 3])), "lengths must not exceed .* 5; got 6"),
    "too few lengths": (unpad_batch_first, (PADDED, np.array([3, 0, 5])), "lengths must hold one length for each"),
    "batch sizes that grow": (check, (GROWING,), "mine.batch_sizes must not grow"),
    "a short total length": (pad_packed_to, (PACKED, 0.0, 4), "total_length must hold the longest .* 5; got 4"),
    "a vast total length": (pad_packed_to, (PACKED, 0.0, 2**40), "total_length must give an array that fits"),
    "a repeated index": (invert, (np.array([0, 2, 2]),), "permutation must be a permutation"),
    "an unknown side to pack": (pack_padded_left, (PADDED, np.array(LENGTHS), "top"), "padding_side must .* got top"),
    "an index too large": (select, (PACKED, np.array([0, 4])), "indices must be .* at most 3; got 4 at index 1"),
    "a short mask": (select, (PACKED, np.ones(3, bool)), "indices must hold one bool .* length of 4; got 3"),
    "no indices": (select, (PACKED, np.zeros(0, int)), "indices must choose at least one"),
    "batches that are none": (concatenate_pair, (PACKED, GROWING), "packed.batch_sizes must not grow"),
    "widths that disagree": (
        concatenate_pair,
        (PACKED, nbp.pack_sequence([SEQUENCES[0][:, :1]])),
        "batches must agree in shape",
    ),
    "an unknown side": (pad_side, (SEQUENCES, "top"), "padding_side must be 'right' or 'left'; got top"),
}


@pytest.mark.parametrize("case", ERRORS)
def test_a_wrong_value_raises_a_value_error(case):
    function, arguments, message = ERRORS[case]
    with pytest.raises(ValueError, match=message):
        function(*arguments)


@pytest.mark.parametrize("offsets", [[1, 3], [0, 2, 1, 3], [0, 2], [0]], ids=str)
def test_wrong_offsets_raise_a_value_error(offsets):
    with pytest.raises(ValueError, match="offsets must"):
        pack_ragged(SEQUENCES[0], np.array(offsets))


WRONG_TYPES = {
    "sequences that are one array": (pack_sorted, (np.ones((2, 2)),), "sequences must be a list or tuple"),
    "sequences that disagree": (pack_sorted, ((np.ones(2), np.ones(2, "f4")),), "sequences must agree in dtype"),
    "an empty tuple": (pack_sorted, ((),), "sequences must hold at least one"),
    "a vector for a batch": (pack_padded_batch_first, (np.ones(3), np.array([1])), "input must have at least 2 axes"),
    "float lengths": (unpad_batch_first, (PADDED, np.ones(4)), "lengths must be a one-dimensional array of integers"),
    "dates": (pack_ragged, (np.ones(3, "M8[s]"), np.array([0, 3])), "values must have a bool, integer"),
    "a bare array": (check, (np.ones(3),), "mine must be a PackedSequence"),
    "a batch among arrays": (concatenate_pair, (PACKED, np.ones(3)), "batches must be a PackedSequence"),
    "batches that disagree": (concatenate_pair, (PACKED, PACKED.astype("f8")), "batches must agree in dtype"),
    "one batch for a list": (concatenate_list, (PACKED,), "batches must be"),
    "float indices": (select, (PACKED, np.ones(2)), "indices must be a one-dimensional array of integers"),
    "int32 batch sizes": (check, (PACKED._replace(batch_sizes=np.ones(1, "i4")),), "batch_sizes must be .* int64"),
    "complex padding": (pad_packed_to, (PACKED, 1j, 5), "padding_value must be representable in the dtype float32"),
    "a float total length": (pad_packed_to, (PACKED, 0.0, 5.0), "total_length must be an integer or None"),
}


@pytest.mark.parametrize("case", WRONG_TYPES)
def test_a_wrong_type_is_refused_while_compiling(case):
    function, arguments, message = WRONG_TYPES[case]
    with pytest.raises(TypingError, match=message):
        function(*arguments)


@njit(cache=True)
def padding(value, rows):
    return padding_of(value, rows)


@pytest.mark.parametrize(
    ("dtype", "value"),
    [("i1", 200), ("u1", -1), ("i8", 0.5), ("i8", np.nan), ("i8", 2.0**63), ("?", 2), ("f4", 1e39)],
    ids=str,
)
def test_a_padding_value_that_the_dtype_cannot_hold_is_refused(dtype, value):
    with pytest.raises(ValueError, match="padding_value must be representable"):
        padding(value, np.zeros(1, dtype))


@pytest.mark.parametrize(("dtype", "value"), [("i1", -128), ("i8", -(2.0**63)), ("f4", np.inf), ("c8", 1.5)], ids=str)
def test_a_padding_value_that_the_dtype_can_hold_is_taken(dtype, value):
    assert padding(value, np.zeros(1, dtype)) == value
