"""Packing, padding and back: against plain loops, over dtypes, shapes and the states that arrays come in."""

import pickle
from concurrent.futures import ThreadPoolExecutor

import naive_packing as naive
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import numba_pack as nbp
from numba_pack.packing import rows
from numba_pack.packing.sequences import unpack_into

# Every way in which the kernel copies a row, and every kind of dtype.
DTYPES = ["?", "i1", "u2", "i4", "i8", "u8", "f2", "f4", "f8", "g", "c8", "c16", "G"]
TRAILING = [(), (1,), (3,), (12,), (2, 3), (40,), (0,)]


def filled(shape, dtype, seed=0):
    """An array of random bytes of that dtype, NaN left out so that == compares; bools are 0 or 1."""
    rng = np.random.default_rng(seed)
    dtype = np.dtype(dtype)
    if dtype.kind in "iu":
        return rng.integers(np.iinfo(dtype).min, np.iinfo(dtype).max, shape, dtype, endpoint=True)
    if dtype.kind == "b":
        return rng.integers(0, 2, shape).astype(bool)
    values = rng.standard_normal(shape)
    return (values + 1j * rng.standard_normal(shape) if dtype.kind == "c" else values).astype(dtype)


def sequences_of(lengths, trailing=(), dtype="f4", seed=0):
    return [filled((length, *trailing), dtype, seed + i) for i, length in enumerate(lengths)]


@st.composite
def batches(draw):
    lengths = draw(st.lists(st.integers(0, 40) | st.integers(0, 3), min_size=1, max_size=9))
    return sequences_of(
        lengths, draw(st.sampled_from(TRAILING)), draw(st.sampled_from(DTYPES)), draw(st.integers(0, 99))
    )


def assert_same(got, expected):
    """The same shape, dtype and values; arrays, or lists and tuples of them."""
    if isinstance(expected, (list, tuple)):
        assert len(got) == len(expected)
        for one, other in zip(got, expected, strict=True):
            assert_same(one, other)
    else:
        assert got.dtype == expected.dtype
        assert got.shape == expected.shape
        assert (got == expected).all()


def assert_packed_as_by_loops(packed, sequences):
    data, *indices = naive.pack(sequences)
    assert isinstance(packed, nbp.PackedSequence)
    assert_same(packed, (data, *(np.array(index, np.int64) for index in indices)))


# ---- against plain loops ---------------------------------------------------------------------------------------------


@given(batches())
@settings(max_examples=60, deadline=None)
def test_packing_does_what_plain_loops_do(sequences):
    assert_packed_as_by_loops(nbp.pack_sequence(sequences), sequences)


@given(batches())
@settings(max_examples=60, deadline=None)
def test_a_packed_batch_unpacks_to_the_same_sequences(sequences):
    packed = nbp.pack_sequence(sequences)
    unpacked = nbp.unpack_sequence(packed)
    assert_same(unpacked, sequences)
    assert_same(unpacked, naive.unpack(packed.data, packed.batch_sizes, packed.sorted_indices))
    assert_same(packed.lengths, np.array([len(sequence) for sequence in sequences], np.int64))


@given(batches(), st.data())
@settings(max_examples=60, deadline=None)
def test_a_packed_batch_goes_into_arrays_that_are_there_from_any_row_on(sequences, data):
    starts = [data.draw(st.integers(0, 5)) for _ in sequences]
    behind = [data.draw(st.integers(0, 3)) for _ in sequences]
    shapes = [(a + len(each) + b, *each.shape[1:]) for a, each, b in zip(starts, sequences, behind, strict=True)]
    arrays = [np.zeros(shape, sequences[0].dtype) for shape in shapes]
    expected = [array.copy() for array in arrays]
    for array, start, each in zip(expected, starts, sequences, strict=True):
        array[start : start + len(each)] = each
    unpack_into(nbp.pack_sequence(sequences), arrays, starts)
    assert_same(arrays, expected)


SIDES = st.sampled_from(["right", "left"])


@given(batches(), st.booleans(), st.integers(0, 5), st.sampled_from([0.0, 1]), SIDES)
@settings(max_examples=60, deadline=None)
def test_a_packed_batch_pads_as_plain_loops_do_and_packs_again(sequences, batch_first, more, value, side):
    packed = nbp.pack_sequence(sequences)
    steps = len(packed.batch_sizes) + more
    padded, lengths = nbp.pad_packed_sequence(packed, batch_first, value, steps, side)
    assert_same(padded, naive.pad(sequences, value, steps, batch_first, side))
    assert_same(lengths, packed.lengths)
    assert_same(nbp.pack_padded_sequence(padded, lengths, batch_first, padding_side=side), packed)


@given(batches(), st.booleans(), SIDES, st.sampled_from([0, 1.0]))
@settings(max_examples=60, deadline=None)
def test_padding_does_what_plain_loops_do(sequences, batch_first, side, value):
    padded = nbp.pad_sequence(sequences, batch_first, value, side)
    assert_same(padded, naive.pad(sequences, value, None, batch_first, side))


@given(batches(), st.booleans(), SIDES)
@settings(max_examples=40, deadline=None)
def test_a_padded_batch_unpads_to_the_same_sequences(sequences, batch_first, side):
    lengths = [len(sequence) for sequence in sequences]
    padded = nbp.pad_sequence(sequences, batch_first, padding_side=side)
    assert_same(nbp.unpad_sequence(padded, lengths, batch_first, side), sequences)


@given(batches(), st.data())
@settings(max_examples=60, deadline=None)
def test_batches_put_together_are_the_batch_of_all_their_sequences(sequences, data):
    ends = sorted(data.draw(st.sets(st.integers(1, len(sequences) - 1)))) if len(sequences) > 1 else []
    parts = [sequences[start:end] for start, end in zip([0, *ends], [*ends, len(sequences)], strict=True)]
    assert_packed_as_by_loops(nbp.concatenate([nbp.pack_sequence(part) for part in parts]), sequences)


@given(batches(), st.data())
@settings(max_examples=60, deadline=None)
def test_sequences_are_chosen_in_any_order_and_any_number_of_times(sequences, data):
    places = data.draw(st.lists(st.integers(-len(sequences), len(sequences) - 1), min_size=1, max_size=12))
    selected = nbp.select(nbp.pack_sequence(sequences), places)
    assert_packed_as_by_loops(selected, [sequences[i] for i in places])


@given(batches(), st.data())
@settings(max_examples=40, deadline=None)
def test_a_mask_chooses_the_sequences_that_it_is_true_for(sequences, data):
    mask = data.draw(st.lists(st.booleans(), min_size=len(sequences), max_size=len(sequences)).filter(any))
    selected = nbp.select(nbp.pack_sequence(sequences), mask)
    assert_packed_as_by_loops(selected, [sequence for sequence, wanted in zip(sequences, mask, strict=True) if wanted])


@given(batches())
@settings(max_examples=40, deadline=None)
def test_a_ragged_buffer_packs_as_its_sequences_do_and_comes_back(sequences):
    values = np.concatenate(sequences)
    offsets = np.cumsum([0] + [len(sequence) for sequence in sequences])
    packed = nbp.pack_ragged(values, offsets)
    assert_same(packed, nbp.pack_sequence(sequences))
    assert_same(nbp.unpack_ragged(packed), (values, offsets))


@given(st.permutations(range(7)))
@settings(max_examples=20, deadline=None)
def test_an_inverted_permutation_undoes_it(permutation):
    inverse = nbp.invert_permutation(permutation)
    assert inverse.dtype == np.int64
    assert (inverse[permutation] == np.arange(7)).all()
    assert (nbp.invert_permutation(inverse) == permutation).all()


@pytest.mark.parametrize("size", [1, 2, 3, 4, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 128, 129, 300, 2049])
def test_rows_of_any_number_of_bytes_are_copied_whole(size):
    sequences = sequences_of([40, 17, 33, 16, 1, 0, 3, 3, 40, 5, 18], (size,), "u1")
    packed = nbp.pack_sequence(sequences)
    assert_packed_as_by_loops(packed, sequences)
    assert_same(nbp.unpack_sequence(packed), sequences)
    assert_same(nbp.pad_packed_sequence(packed)[0], naive.pad(sequences))


def test_long_rows_of_very_many_sequences_are_copied_whole():
    sequences = sequences_of([3, 1, 0, 2] * 600, (130,), "u1")
    assert len(sequences) > rows.MOST_STREAMS
    packed = nbp.pack_sequence(sequences)
    assert_packed_as_by_loops(packed, sequences)
    assert_same(nbp.unpack_sequence(packed), sequences)


# ---- order, and empty sequences --------------------------------------------------------------------------------------


def test_sequences_of_one_length_keep_their_order():
    packed = nbp.pack_sequence(sequences_of([2, 3, 2, 3, 2]))
    assert packed.sorted_indices.tolist() == [1, 3, 0, 2, 4]


def test_sequences_that_are_sorted_already_stay_where_they_are():
    packed = nbp.pack_sequence(sequences_of([5, 5, 3, 1, 0]), enforce_sorted=True)
    assert packed.sorted_indices.tolist() == packed.unsorted_indices.tolist() == [0, 1, 2, 3, 4]
    padded, lengths = nbp.pad_packed_sequence(packed)
    assert_same(nbp.pack_padded_sequence(padded, lengths, enforce_sorted=True), packed)


def test_a_batch_of_empty_sequences_packs_to_no_rows():
    packed = nbp.pack_sequence(sequences_of([0, 0, 0], (4,)))
    assert packed.data.shape == (0, 4)
    assert packed.batch_sizes.shape == (0,)
    assert_same(nbp.unpack_sequence(packed), sequences_of([0, 0, 0], (4,)))
    assert nbp.pad_packed_sequence(packed)[0].shape == (0, 3, 4)
    assert nbp.pad_packed_sequence(packed, total_length=2)[0].tolist() == np.zeros((2, 3, 4)).tolist()


def test_one_long_sequence_among_many_short_ones_packs_at_once():
    # sequences times the longest would be 2e10 steps
    lengths = np.ones(100_000, np.int64)
    lengths[77] = 200_000
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    values = np.arange(offsets[-1])
    packed = nbp.pack_ragged(values, offsets)
    assert packed.sorted_indices[0] == 77
    assert packed.batch_sizes[:2].tolist() == [100_000, 1]
    assert (nbp.unpack_ragged(packed)[0] == values).all()


def test_padding_is_not_read():
    clean = nbp.pad_sequence(sequences_of([3, 1, 2], (2,)))
    dirty = nbp.pad_sequence(sequences_of([3, 1, 2], (2,)), padding_value=np.nan)
    assert_same(nbp.pack_padded_sequence(dirty, [3, 1, 2]), nbp.pack_padded_sequence(clean, [3, 1, 2]))


# ---- what arrays come as ---------------------------------------------------------------------------------------------


def read_only(array):
    array = array.copy()
    array.flags.writeable = False
    return array


def unaligned(array):
    buffer = np.empty(array.nbytes + 1, np.uint8)
    view = buffer[1:].view(array.dtype).reshape(array.shape)
    view[...] = array
    return view


STATES = {
    "strided": lambda array: np.repeat(array, 2, axis=-1)[..., ::2],
    "reversed": lambda array: array[::-1].copy()[::-1],
    "Fortran order": np.asfortranarray,
    "read-only": read_only,
    "unaligned": unaligned,
    "big-endian": lambda array: array.astype(array.dtype.newbyteorder(">")),
    "nested list": lambda array: array.tolist(),
    "subclass": lambda array: array.view(type("Sub", (np.ndarray,), {})),
}


@pytest.mark.parametrize("state", STATES)
def test_arrays_in_any_state_pack_as_plain_ones_do(state):
    come = STATES[state]
    sequences = sequences_of([3, 5, 4], (4,), "f8")
    packed = nbp.pack_sequence(sequences)
    assert_same(nbp.pack_sequence([come(sequence) for sequence in sequences]), packed)
    padded = nbp.pad_sequence(sequences)
    assert_same(nbp.pack_padded_sequence(come(padded), come(np.array([3, 5, 4]))), packed)
    assert_same(nbp.unpad_sequence(come(padded), come(np.array([3, 5, 4]))), sequences)
    assert_same(nbp.pack_ragged(come(np.concatenate(sequences)), come(np.array([0, 3, 8, 12]))), packed)


@pytest.mark.parametrize("state", STATES)
def test_one_array_in_another_state_among_plain_ones_packs_as_they_do(state):
    plain = sequences_of([3, 5, 4], (4,), "f8")
    mixed = [plain[0], STATES[state](plain[1]), plain[2]]
    assert_same(nbp.pack_sequence(mixed), nbp.pack_sequence(plain))
    assert_same(nbp.pad_sequence(mixed, True, 1, "left"), nbp.pad_sequence(plain, True, 1, "left"))


def test_arrays_whose_dtypes_are_equal_but_other_objects_pack():
    plain = sequences_of([3, 5])
    other = plain[1].view(np.dtype("f4", metadata={"unit": "m"}))
    assert other.dtype is not plain[0].dtype
    assert_same(nbp.pack_sequence([plain[0], other]), nbp.pack_sequence(plain))


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("size", [1, 12, 200])
@pytest.mark.parametrize("value", [0.0, 2.5])
def test_a_batch_of_many_bands_and_tiles_is_padded_whole(batch_first, size, value):
    sequences = sequences_of(np.random.default_rng(0).integers(0, 70, 700), (size,))
    expected = naive.pad(sequences, value, 75, batch_first)
    packed = nbp.pack_sequence(sequences)
    assert_same(nbp.pad_packed_sequence(packed, batch_first, value, 75)[0], expected)
    longest = max(map(len, sequences))
    padded = nbp.pad_sequence(sequences, batch_first, value)
    assert_same(padded, expected[:, :longest] if batch_first else expected[:longest])
    assert_same(nbp.pack_padded_sequence(padded, [len(sequence) for sequence in sequences], batch_first), packed)


@pytest.mark.parametrize("state", ["strided", "read-only", "unaligned", "big-endian"])
def test_a_packed_batch_whose_arrays_are_in_any_state_unpacks(state):
    sequences = sequences_of([3, 5, 4], (4,), "f8")
    packed = nbp.PackedSequence(*map(STATES[state], nbp.pack_sequence(sequences)))
    assert_same(nbp.unpack_sequence(packed), sequences)
    checked = nbp.check_packed(packed)
    assert all(array.dtype.isnative and array.flags.c_contiguous and array.flags.aligned for array in checked)


@pytest.mark.parametrize("dtype", ["i1", "i2", "i4", "u1", "u4", "u8"])
def test_lengths_may_have_any_integer_dtype(dtype):
    padded = np.ones((5, 3), "f4")
    packed = nbp.pack_padded_sequence(padded, np.array([2, 5, 0], dtype))
    assert_same(packed, nbp.pack_padded_sequence(padded, [2, 5, 0]))
    assert packed.lengths.tolist() == [2, 5, 0]


def test_the_bits_of_a_nan_are_kept():
    odd = np.array([0x7FC12345, 0xFFC00001, 0x7F800001], np.uint32).view(np.float32)
    packed = nbp.pack_sequence([odd, odd[:1]])
    assert (nbp.unpack_sequence(packed)[0].view(np.uint32) == odd.view(np.uint32)).all()


@pytest.mark.parametrize("value", [-0.0, np.nan, np.inf, 2.5])
def test_any_float_pads(value):
    padded = nbp.pad_sequence(sequences_of([0, 1]), padding_value=value)
    assert padded[0, 0].tobytes() == np.float32(value).tobytes()


# ---- whose memory it is ----------------------------------------------------------------------------------------------


def test_no_function_changes_or_shares_its_arguments():
    sequences = sequences_of([3, 0, 5], (2,))
    packed = nbp.pack_sequence(sequences)
    padded, lengths = nbp.pad_packed_sequence(packed)
    values, offsets = nbp.unpack_ragged(packed)
    given = [*sequences, *packed, padded, lengths, values, offsets]
    before = [array.copy() for array in given]
    results = [
        *nbp.pack_sequence(sequences),
        *nbp.pack_sequence(sequences[2:]),
        nbp.pad_sequence(sequences[2:]),
        *nbp.pack_padded_sequence(padded, lengths),
        *nbp.unpad_sequence(padded, lengths),
        *nbp.concatenate([packed, packed]),
        *nbp.concatenate([packed]),
        *nbp.select(packed, [0, 1, 2]),
        *nbp.pad_packed_sequence(packed),
        *nbp.unpack_sequence(packed),
        *nbp.pack_ragged(values, offsets),
        *nbp.unpack_ragged(packed),
        nbp.invert_permutation(packed.sorted_indices),
        packed.lengths,
    ]
    for result in results:
        assert not any(np.may_share_memory(result, array) for array in given)
        result[...] = 7
    assert_same(given, before)


def test_unpacked_sequences_do_not_overlap():
    first, second = nbp.unpack_sequence(nbp.pack_sequence(sequences_of([2, 2])))
    kept = second.copy()
    first[...] = 9
    assert_same(second, kept)


def test_threads_pack_at_the_same_time():
    batches_ = [sequences_of([(7 * i + j) % 30 for j in range(20)], (3,), seed=i) for i in range(32)]
    with ThreadPoolExecutor(4) as pool:
        packed = list(pool.map(nbp.pack_sequence, batches_))
        unpacked = list(pool.map(nbp.unpack_sequence, packed))
    assert_same(unpacked, batches_)


# ---- PackedSequence --------------------------------------------------------------------------------------------------


def test_a_packed_batch_is_a_named_tuple_of_four_arrays_and_pickles():
    packed = nbp.pack_sequence(sequences_of([2, 4]))
    assert packed._fields == ("data", "batch_sizes", "sorted_indices", "unsorted_indices")
    assert [array.dtype for array in packed[1:]] == [np.int64] * 3
    assert_same(pickle.loads(pickle.dumps(packed)), packed)


def test_astype_converts_the_rows_and_nothing_else():
    packed = nbp.pack_sequence(sequences_of([2, 4], (3,), "i4"))
    assert_same(packed.astype("f8"), packed._replace(data=packed.data.astype("f8")))
    assert not np.may_share_memory(packed.astype("i4").data, packed.data)


def test_map_sees_all_rows_and_may_change_their_shape():
    packed = nbp.pack_sequence(sequences_of([2, 4], (3,)))
    summed = packed.map(lambda rows: rows.sum(axis=1))
    assert_same(summed, packed._replace(data=packed.data.sum(axis=1)))


def test_map_of_the_identity_is_a_copy():
    packed = nbp.pack_sequence(sequences_of([2, 4]))
    for f in (lambda rows: rows, lambda rows: rows[:]):
        assert_same(packed.map(f), packed)
        assert not np.may_share_memory(packed.map(f).data, packed.data)


def test_each_sees_every_sequence_in_the_callers_order_and_may_change_its_length():
    sequences = sequences_of([2, 0, 4], (3,))
    seen = []
    packed = nbp.pack_sequence(sequences).each(lambda sequence: seen.append(sequence) or sequence[::2])
    assert_same(seen, sequences)
    assert_same(nbp.unpack_sequence(packed), [sequence[::2] for sequence in sequences])


def test_checking_a_good_batch_gives_it_back_as_it_is():
    packed = nbp.pack_sequence(sequences_of([2, 0, 4]))
    assert nbp.check_packed(packed) is packed


# ---- objects that answer otherwise when they are asked again ---------------------------------------------------------


class Changing:
    """What gives the first of its values when it is asked for one, and the last when it is asked again."""

    def __init__(self, *values):
        self.values = list(values)

    def __index__(self):
        return self.values.pop(0) if len(self.values) > 1 else self.values[0]

    def __array__(self, dtype=None, copy=None):
        return np.array(self.__index__())


def test_an_object_is_asked_for_its_value_once():
    packed = nbp.pack_sequence(sequences_of([2, 4], (3,)))
    padded = nbp.pad_packed_sequence(packed)[0]
    assert nbp.pad_packed_sequence(packed, total_length=Changing(5, 2**40))[0].shape == (5, 2, 3)
    assert (nbp.pad_packed_sequence(packed, padding_value=Changing(7, "7"))[0][3, 0] == 7).all()
    assert nbp.pack_padded_sequence(padded, Changing([2, 4], [2**40])).lengths.tolist() == [2, 4]
    assert nbp.select(packed, Changing([1], [2**40])).lengths.tolist() == [4]
    assert nbp.packing_report([2], Changing(3, -1)).multiplications_padded == 8


def test_what_an_object_does_when_it_is_asked_comes_before_all_checks():
    packed = nbp.pack_sequence(sequences_of([2, 4], (3,)))

    class Spoiler:
        def __index__(self):
            packed.batch_sizes[:] = 2**40
            return 5

    with pytest.raises(ValueError, match=r"sequence.batch_sizes must not grow"):
        nbp.pad_packed_sequence(packed, total_length=Spoiler())


@pytest.mark.parametrize("error", [RuntimeError, KeyError, AttributeError, ZeroDivisionError])
def test_what_an_object_raises_when_it_is_asked_names_the_argument(error):
    class Raising:
        def __index__(self):
            raise error("not now")

        __array__ = __index__

    packed = nbp.pack_sequence(sequences_of([2, 4], (3,)))
    for name, call in {
        "total_length": lambda: nbp.pad_packed_sequence(packed, total_length=Raising()),
        "padding_value": lambda: nbp.pad_packed_sequence(packed, padding_value=Raising()),
        "sequences": lambda: nbp.pack_sequence([Raising()]),
        "offsets": lambda: nbp.pack_ragged(packed.data, Raising()),
        "indices": lambda: nbp.select(packed, Raising()),
        "array": lambda: nbp.symbols(Raising()),
        "input_size": lambda: nbp.GRU(Raising(), 2),
    }.items():
        with pytest.raises(TypeError, match=rf"^{name}.* must be an? .*; got .*Raising: .*not now"):
            call()


def test_an_array_that_lies_about_its_shape_is_seen_through():
    class Liar(np.ndarray):
        shape = property(lambda self: (1, 1, 2**20))
        ndim = 3

    gru = nbp.GRU(3, 2, rng=0)
    lie = np.ones((1, 1, 2), "f4").view(Liar)
    assert_same(gru(np.ones((4, 3), "f4").view(Liar)), gru(np.ones((4, 3), "f4")))
    assert_same(gru(np.ones((1, 1, 3), "f4"), lie), gru(np.ones((1, 1, 3), "f4"), np.ones((1, 1, 2), "f4")))
    assert nbp.pack_sequence([lie]).data.shape == (1, 1, 2)


@pytest.mark.parametrize("columns", [1, 5, 16, 40])
@pytest.mark.parametrize("lengths", [(3, 0, 40, 17), (20,)])
def test_a_padded_target_that_is_moved_to_blank_keeps_nothing_of_what_it_held(lengths, columns):
    packed = nbp.pack_sequence(sequences_of(lengths, (columns,)))
    T, B, size = len(packed.batch_sizes) + 3, len(lengths), 4 * columns
    target = np.full((T, B, columns), np.nan, np.float32)
    base, stride = rows.padded_layout(packed.lengths, T, False, False)
    source = packed.data, packed.unsorted_indices, 0, size
    rows.move(target, base, stride, *source, size, packed.batch_sizes, packed.sorted_indices, T)
    expected = np.zeros_like(target)
    for i, sequence in enumerate(nbp.unpack_sequence(packed)):
        expected[: len(sequence), i] = sequence
    assert (target == expected).all()
