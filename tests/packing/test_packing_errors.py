"""What the packing functions refuse, and that the error names the argument, what was expected and what came."""

import datetime
import pickle

import numpy as np
import pytest

import numba_pack as nbp

ROWS = np.arange(12.0, dtype=np.float32).reshape(6, 2)
PADDED = np.zeros((4, 3, 2), np.float32)
PACKED = nbp.pack_sequence([ROWS[:2], ROWS[:3], ROWS[:1]])  # batch sizes 3, 2, 1

NOT_NUMBERS = {
    "objects": np.array([1.0, 2.0], object),
    "strings": np.array(["a", "b"]),
    "records": np.zeros(2, [("x", "f4")]),
    "dates": np.array([datetime.date(2020, 1, 1)] * 2, "M8[D]"),
    "times": np.zeros(2, "m8[s]"),
}


@pytest.mark.parametrize("kind", NOT_NUMBERS)
def test_rows_that_are_no_numbers_are_refused(kind):
    array = NOT_NUMBERS[kind]
    with pytest.raises(TypeError, match=r"sequences must have a bool, integer, float or complex dtype; got"):
        nbp.pack_sequence([array])
    with pytest.raises(TypeError, match=r"sequences must have"):
        nbp.pad_sequence([array])
    with pytest.raises(TypeError, match=r"input must have"):
        nbp.pack_padded_sequence(array[:, None], [1])
    with pytest.raises(TypeError, match=r"padded must have"):
        nbp.unpad_sequence(array[:, None], [1])
    with pytest.raises(TypeError, match=r"values must have"):
        nbp.pack_ragged(array, [0, 2])
    with pytest.raises(TypeError, match=r"sequence.data must have"):
        nbp.pad_packed_sequence(PACKED._replace(data=array))


# ---- lists of sequences ----------------------------------------------------------------------------------------------

LISTS = {
    "an empty list": ([], ValueError, "at least one array; got an empty list"),
    "one array": (ROWS, TypeError, "must be a list of arrays.* got numpy.ndarray"),
    "a packed batch": (PACKED, TypeError, "must be a list of arrays.* got numba_pack.packing.sequences.PackedSequence"),
    "a string": ("abc", TypeError, "must be a list of arrays.* got str"),
    "a number": (3, TypeError, "must be a list of arrays.* got int"),
    "two dtypes": ([ROWS, ROWS.astype("f8")], TypeError, "must agree in dtype; got float32, float64"),
    "two widths": ([ROWS, ROWS[:, :1]], ValueError, r"must agree in shape.* got \(6, 1\) at index 1"),
    "two ranks": ([ROWS, ROWS[:, 0]], ValueError, r"must agree in shape.* got \(6,\) at index 1"),
    "a scalar": ([np.float32(1)], ValueError, r"must agree in shape.* got \(\) at index 0"),
    "a scalar among arrays": ([ROWS[:, 0], np.array(1, "f4")], ValueError, r"got \(\) at index 1"),
    "a ragged list": ([[[1.0], [1.0, 2.0]]], TypeError, r"sequences\[0\] must be an array"),
    "a buffer": (memoryview(ROWS), TypeError, "must be a list of arrays.* got memoryview"),
    "no order": ({(1.0, 2.0), (3.0,)}, TypeError, "must be a list of arrays.* got set"),
    "a mask": ([np.ma.masked_array([1.0, 2.0], [0, 1])], TypeError, r"sequences\[0\] must be an array without a mask"),
}


@pytest.mark.parametrize("case", LISTS)
def test_what_is_no_list_of_like_arrays_is_refused(case):
    sequences, error, message = LISTS[case]
    for function in (nbp.pack_sequence, nbp.pad_sequence):
        with pytest.raises(error, match="sequences.*" + message.removeprefix("sequences")):
            function(sequences)


def test_a_list_that_is_not_sorted_is_refused_where_that_is_enforced():
    with pytest.raises(ValueError, match=r"must not increase when enforce_sorted is True: .* 2; got 3 at index 1"):
        nbp.pack_sequence([ROWS[:2], ROWS[:3]], enforce_sorted=True)


# ---- lengths ---------------------------------------------------------------------------------------------------------

LENGTHS = {
    "floats": ([1.0, 2.0, 3.0], TypeError, "must hold integers .* got dtype float64"),
    "bools": (np.array([True, True, False]), TypeError, "must hold integers .* got dtype bool"),
    "objects": ([1, 2, None], TypeError, "must hold integers .* got dtype object"),
    "beyond 64 bits": ([1, 2, 2**70], TypeError, "must hold integers that fit int64"),
    "beyond int64": (
        np.array([1, 2, 2**64 - 1], np.uint64),
        ValueError,
        "must hold integers .* got 18446744073709551615",
    ),
    "nothing": (None, TypeError, "must be an array of integers; got a single object of NoneType"),
    "a scalar": (3, ValueError, r"must be one-dimensional; got shape \(\)"),
    "a matrix": (np.ones((3, 1), int), ValueError, r"must be one-dimensional; got shape \(3, 1\)"),
    "ragged": ([[1], [2, 3]], TypeError, "must be an array; got list"),
    "too few": ([1, 2], ValueError, "must hold one length for each sequence: expected a length of 3; got 2"),
    "none": ([], ValueError, "must hold one length for each sequence: expected a length of 3; got 0"),
    "negative": ([1, -1, 2], ValueError, "must not be negative: expected at least 0; got -1 at index 1"),
    "the most negative": ([1, 2, -(2**63)], ValueError, "must not be negative: .* got -9223372036854775808 at index 2"),
    "too large": ([1, 2, 5], ValueError, "must not exceed the time steps of the input: .* at most 4; got 5 at index 2"),
    "far too large": (
        [1, 2, 2**63 - 1],
        ValueError,
        "must not exceed .* at most 4; got 9223372036854775807 at index 2",
    ),
}


@pytest.mark.parametrize("case", LENGTHS)
def test_lengths_that_do_not_fit_are_refused(case):
    lengths, error, message = LENGTHS[case]
    for function in (nbp.pack_padded_sequence, nbp.unpad_sequence):
        with pytest.raises(error, match="lengths " + message):
            function(PADDED, lengths)
        with pytest.raises(error, match="lengths " + message):
            function(PADDED.swapaxes(0, 1), lengths, batch_first=True)


def test_lengths_out_of_order_are_refused_where_that_is_enforced():
    with pytest.raises(ValueError, match=r"lengths must not increase .* at most 1; got 3 at index 2"):
        nbp.pack_padded_sequence(PADDED, [2, 1, 3], enforce_sorted=True)


def test_a_padded_batch_of_no_sequences_is_refused():
    for function in (nbp.pack_padded_sequence, nbp.unpad_sequence):
        with pytest.raises(ValueError, match="lengths must hold at least one sequence"):
            function(PADDED[:, :0], [])


@pytest.mark.parametrize("array", [ROWS[:, 0], np.float32(1), None], ids=["vector", "scalar", "None"])
def test_a_padded_batch_needs_two_axes(array):
    with pytest.raises((TypeError, ValueError), match="input must have"):
        nbp.pack_padded_sequence(array, [1])
    with pytest.raises((TypeError, ValueError), match="padded must have"):
        nbp.unpad_sequence(array, [1])


# ---- flags, padding and total length ---------------------------------------------------------------------------------


@pytest.mark.parametrize("flag", [None, "yes", 1, np.ones(1, bool)], ids=repr)
def test_a_flag_must_be_a_bool(flag):
    calls = {
        "enforce_sorted": [
            lambda: nbp.pack_sequence([ROWS], flag),
            lambda: nbp.pack_padded_sequence(PADDED, [1, 1, 1], False, flag),
        ],
        "batch_first": [
            lambda: nbp.pack_padded_sequence(PADDED, [1, 1, 1], flag),
            lambda: nbp.pad_packed_sequence(PACKED, flag),
            lambda: nbp.pad_sequence([ROWS], flag),
            lambda: nbp.unpad_sequence(PADDED, [1, 1, 1], flag),
        ],
    }
    for name, functions in calls.items():
        for function in functions:
            with pytest.raises(TypeError, match=f"{name} must be a bool; got"):
                function()


@pytest.mark.parametrize("side", ["top", "", None, 1, ["left"]], ids=repr)
def test_padding_stands_on_the_right_or_the_left(side):
    with pytest.raises(ValueError, match="padding_side must be 'right' or 'left'; got"):
        nbp.pad_sequence([ROWS], padding_side=side)


@pytest.mark.parametrize(
    ("dtype", "value"),
    [
        ("i8", np.nan), ("i8", np.inf), ("i8", 0.5), ("i8", 1j), ("i8", 2**63), ("i8", 2.0**63), ("i8", 2**80),
        ("u1", -1), ("u1", 256), ("i1", 200), ("?", 2), ("?", 0.5), ("f4", 1j), ("f4", 1e39), ("f2", 70000),
    ],
)  # fmt: skip
def test_a_padding_value_must_fit_the_dtype(dtype, value):
    with pytest.raises(ValueError, match="padding_value must be representable in the dtype"):
        nbp.pad_sequence([ROWS.astype(dtype)], padding_value=value)
    with pytest.raises(ValueError, match="padding_value must be representable in the dtype"):
        nbp.pad_packed_sequence(PACKED.astype(dtype), padding_value=value)


@pytest.mark.parametrize("value", [None, "0", [0.0], np.zeros(2), np.datetime64("2020")], ids=repr)
def test_a_padding_value_must_be_a_number(value):
    with pytest.raises(TypeError, match="padding_value must be a number; got"):
        nbp.pad_sequence([ROWS], padding_value=value)


@pytest.mark.parametrize("value", [2.0, True, np.int64(2), np.float32(2)], ids=repr)
def test_a_padding_value_may_be_any_number_that_the_dtype_holds(value):
    assert nbp.pad_sequence([ROWS[:0].astype("i4"), ROWS[:1].astype("i4")], padding_value=value)[0, 0, 0] == value


@pytest.mark.parametrize("total", [2, 0, -1, -(2**70)])
def test_a_total_length_less_than_the_longest_is_refused(total):
    with pytest.raises(ValueError, match=f"total_length must hold the longest sequence: .* at least 3; got {total}"):
        nbp.pad_packed_sequence(PACKED, total_length=total)


@pytest.mark.parametrize("total", [2**40, 2**62, 2**63 - 1, 2**70])
def test_a_total_length_beyond_the_memory_is_refused_at_once(total):
    with pytest.raises(ValueError, match=f"total_length must give an array that fits into memory: .* got {total}"):
        nbp.pad_packed_sequence(PACKED, total_length=total)


@pytest.mark.parametrize("total", [3.0, "3", True, [3]], ids=repr)
def test_a_total_length_must_be_an_integer(total):
    with pytest.raises(TypeError, match="total_length must be an integer or None; got"):
        nbp.pad_packed_sequence(PACKED, total_length=total)


# ---- packed batches --------------------------------------------------------------------------------------------------


def index(*values, dtype=np.int64):
    return np.array(values, dtype)


NO_BATCHES = {
    "batch sizes that grow": ("batch_sizes", index(2, 3, 1), ".batch_sizes must not grow.* 2; got 3 at index 1"),
    "more than B at once": ("batch_sizes", index(4, 2), ".batch_sizes must not grow.* 3; got 4 at index 0"),
    "a batch size of 0": ("batch_sizes", index(3, 3, 0), ".batch_sizes must be positive.* 1; got 0 at index 2"),
    "a negative batch size": ("batch_sizes", index(3, -1), ".batch_sizes must be positive.* got -1 at index 1"),
    "too few rows": ("batch_sizes", index(3, 3, 1), ".batch_sizes must sum to the rows of data.* 6; got 7"),
    "too many rows": ("batch_sizes", index(3, 2), ".batch_sizes must sum to the rows of data.* 6; got 5"),
    "a matrix of sizes": ("batch_sizes", index(3, 2, 1)[:, None], ".batch_sizes must be one-dimensional"),
    "scalar data": ("data", np.array(1.0), ".data must have at least 1 axes"),
    "no permutation": ("sorted_indices", index(0, 0, 2), ".unsorted_indices must be the inverse"),
    "an index too large": ("sorted_indices", index(1, 0, 3), ".sorted_indices must be a permutation.* 2; got 3"),
    "a negative index": ("sorted_indices", index(1, 0, -1), ".sorted_indices must be .* 0; got -1 at index 2"),
    "another's inverse": ("unsorted_indices", index(0, 1, 2), ".unsorted_indices must be the inverse"),
    "a wild inverse": ("unsorted_indices", index(1, 0, 2**62), ".unsorted_indices must be the inverse"),
    "a short inverse": ("unsorted_indices", index(1, 0), ".unsorted_indices must be as long as .* 3; got 2"),
    "no sequences": ("sorted_indices", index(), ".sorted_indices must hold at least one"),
}
NO_INDICES = {
    "floats": (np.array([3.0, 2, 1]), "float64"),
    "int32": (index(3, 2, 1, dtype="i4"), "int32"),
    "a list": ([3, 2, 1], "list"),
    "None, as in PyTorch": (None, "NoneType"),
}
TAKERS = {
    "sequence": [nbp.pad_packed_sequence],
    "packed": [nbp.unpack_sequence, nbp.unpack_ragged, nbp.check_packed],
    "self": [lambda p: p.lengths, lambda p: p.astype("f8"), lambda p: p.map(abs)],
    "mine": [lambda p: nbp.check_packed(p, "mine")],
}


@pytest.mark.parametrize("name", TAKERS)
@pytest.mark.parametrize("case", NO_BATCHES)
def test_a_packed_batch_that_is_not_one_is_refused(case, name):
    field, value, message = NO_BATCHES[case]
    for function in TAKERS[name]:
        with pytest.raises(ValueError, match=name + message):
            function(PACKED._replace(**{field: value}))


@pytest.mark.parametrize("field", PACKED._fields[1:])
@pytest.mark.parametrize("case", NO_INDICES)
def test_a_packed_batch_has_index_arrays_of_int64(case, field):
    value, got = NO_INDICES[case]
    with pytest.raises(TypeError, match=rf"packed\.{field} must be an int64 array; got {got}"):
        nbp.unpack_sequence(PACKED._replace(**{field: value}))


def test_batch_sizes_whose_sum_overflows_are_refused():
    huge = PACKED._replace(batch_sizes=np.full(5, 2**62))
    with pytest.raises(ValueError, match="batch_sizes must not grow"):
        nbp.check_packed(huge)
    wraps = nbp.PackedSequence(np.zeros((0, 1)), np.full(4, 2**62), index(0), index(0))  # the sum is 0 modulo 2**64
    with pytest.raises(ValueError, match="batch_sizes must not grow"):
        nbp.check_packed(wraps)


@pytest.mark.parametrize("packed", [tuple(PACKED), list(PACKED), ROWS, None], ids=["tuple", "list", "array", "None"])
def test_only_a_packed_batch_is_one(packed):
    with pytest.raises(TypeError, match="packed must be a PackedSequence; got"):
        nbp.unpack_sequence(packed)
    with pytest.raises(TypeError, match="sequence must be a PackedSequence; got"):
        nbp.pad_packed_sequence(packed)


def test_map_and_each_refuse_what_cannot_be_packed():
    with pytest.raises(ValueError, match=r"the result of f must have as many rows as data, 6; got shape \(5, 2\)"):
        PACKED.map(lambda rows: rows[1:])
    with pytest.raises(TypeError, match="the result of f must have a bool, integer"):
        PACKED.map(lambda rows: None)
    with pytest.raises(ValueError, match="sequences must agree in shape"):
        PACKED.each(lambda sequence: sequence.sum())


@pytest.mark.parametrize("dtype", ["O", "U3", "M8[s]", "nonsense"])
def test_astype_refuses_a_dtype_that_is_no_number(dtype):
    with pytest.raises(TypeError, match="dtype must be a bool, integer, float or complex dtype; got"):
        PACKED.astype(dtype)


# ---- ragged buffers and permutations ---------------------------------------------------------------------------------

OFFSETS = {
    "not from 0": ([1, 3, 6], ValueError, "must start at 0; got 1 at index 0"),
    "negative": ([-1, 3, 6], ValueError, "must start at 0; got -1 at index 0"),
    "falling": ([0, 4, 3, 6], ValueError, "must not decrease: expected at least 4; got 3 at index 2"),
    "short of the end": (
        [0, 3, 5],
        ValueError,
        "must end at the number of rows of values, that is 6; got 5 at index 2",
    ),
    "beyond the end": ([0, 3, 7], ValueError, "must end at the number of rows of values, that is 6; got 7 at index 2"),
    "far beyond": ([0, 2**63 - 1], ValueError, "must end at .* got 9223372036854775807 at index 1"),
    "no sequence": ([0], ValueError, "must hold one start for each sequence and the end: .* at least 2; got 1"),
    "nothing": ([], ValueError, "must hold one start for each sequence and the end: .* at least 2; got 0"),
    "floats": ([0.0, 6.0], TypeError, "must hold integers"),
    "bools": (np.array([False, True]), TypeError, "must hold integers"),
    "a matrix": ([[0, 6]], ValueError, "must be one-dimensional"),
}


@pytest.mark.parametrize("case", OFFSETS)
def test_offsets_that_do_not_fit_are_refused(case):
    offsets, error, message = OFFSETS[case]
    with pytest.raises(error, match="offsets " + message):
        nbp.pack_ragged(ROWS, offsets)


def test_ragged_values_need_an_axis():
    with pytest.raises(ValueError, match="values must have at least 1 axes"):
        nbp.pack_ragged(np.float32(1), [0, 1])


PERMUTATIONS = {
    "a gap": ([0, 3, 1], ValueError, "must be a permutation: expected indices of at most 2; got 3 at index 1"),
    "negative": ([0, -1, 1], ValueError, "must be a permutation: expected indices of at least 0; got -1 at index 1"),
    "twice": ([1, 0, 1], ValueError, "must be a permutation: expected each index once.* 0; got 1 at index 2"),
    "floats": ([0.0, 1.0], TypeError, "must hold integers"),
    "bools": (np.array([True]), TypeError, "must hold integers"),
    "a scalar": (0, ValueError, "must be one-dimensional"),
    "None": (None, TypeError, "must be an array of integers"),
}


@pytest.mark.parametrize("case", PERMUTATIONS)
def test_what_is_no_permutation_is_refused(case):
    permutation, error, message = PERMUTATIONS[case]
    with pytest.raises(error, match="permutation " + message):
        nbp.invert_permutation(permutation)


def test_errors_survive_pickling():
    with pytest.raises(ValueError, match="permutation") as caught:
        nbp.invert_permutation([1])
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
