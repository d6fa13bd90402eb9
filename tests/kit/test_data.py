"""Batches of ragged data: every sequence once an epoch, within the budget, and resumed where they were left."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import numba_pack as nbp
from numba_pack.data import Batches

LENGTHS = [3, 0, 7, 2, 2, 12, 5, 1, 9, 4]
SEQUENCES = [np.full((n, 2), i, np.float32) for i, n in enumerate(LENGTHS)]
NUMBERS = np.arange(len(LENGTHS))


def epoch_of(batches):
    """The numbers of the sequences of each batch, checked to be those that its rows are of."""
    found = []
    for packed, numbers in batches:
        for sequence, i in zip(nbp.unpack_sequence(packed), numbers, strict=True):
            np.testing.assert_array_equal(sequence, SEQUENCES[i])
        found.append(numbers.tolist())
    return found


@settings(max_examples=50, deadline=None)
@given(
    lengths=st.lists(st.integers(0, 30), min_size=1, max_size=40), rows=st.integers(1, 60),
    by_length=st.booleans(), shuffle=st.booleans(), seed=st.integers(0, 2**63 - 1),
)  # fmt: skip
def test_every_epoch_has_every_sequence_once_within_the_budget(lengths, rows, by_length, shuffle, seed):
    sequences = [np.full(n, i) for i, n in enumerate(lengths)]
    batches = Batches(sequences, np.arange(len(lengths)), rows=rows, by_length=by_length, shuffle=shuffle, seed=seed)
    for epoch in range(2):
        assert batches.epoch == epoch
        count, found = len(batches), []
        for packed, numbers in batches:
            assert len(packed.data) <= rows or len(numbers) == 1
            np.testing.assert_array_equal(packed.lengths, np.array(lengths)[numbers])
            found.append(numbers)
        assert len(found) == count
        assert sorted(np.concatenate(found)) == list(range(len(lengths)))


def test_a_batch_is_as_many_sequences_as_the_budget_takes():
    batches = Batches(SEQUENCES, NUMBERS, rows=12, shuffle=False)
    assert epoch_of(batches) == [[0, 1, 2, 3], [4], [5], [6, 7], [8], [9]]
    assert epoch_of(batches) == epoch_of(batches)


def test_epochs_differ_and_the_seed_tells_them_all():
    first, again, other = (Batches(SEQUENCES, NUMBERS, rows=12, seed=seed) for seed in (1, 1, 2))
    epochs = [epoch_of(first) for _ in range(3)]
    assert epochs == [epoch_of(again) for _ in range(3)]
    assert epochs[0] != epochs[1] != epochs[2] and epochs[0] != epoch_of(other)
    assert Batches(SEQUENCES, rows=12).seed != Batches(SEQUENCES, rows=12).seed


def padding_of(batches):
    """The share of padding, if batches of these lengths were padded."""
    return 1 - sum(each.sum() for each in batches) / sum(len(each) * each.max() for each in batches)


def test_by_length_the_lengths_in_a_batch_are_alike_and_batches_come_in_any_order():
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, 200, 2000)
    batches = Batches([np.zeros(n, np.int8) for n in lengths], np.arange(2000), rows=2000, by_length=True, seed=0)
    epochs = [[lengths[numbers] for _, numbers in batches] for _ in range(2)]
    assert padding_of(epochs[0]) < 0.13 < 0.4 < padding_of([lengths[:20], lengths[20:40]])
    longest = [each.max() for each in epochs[0]]
    assert longest != sorted(longest) and longest != sorted(longest, reverse=True)
    assert {tuple(each) for each in epochs[0]} != {tuple(each) for each in epochs[1]}
    evaluated = Batches(SEQUENCES, NUMBERS, rows=12, by_length=True, shuffle=False)
    assert epoch_of(evaluated)[:3] == [[5], [8], [2, 6]]


@pytest.mark.parametrize("by_length", [False, True])
def test_batches_go_on_from_a_saved_state_wherever_it_was_saved(by_length):
    options = {"rows": 9, "by_length": by_length}
    whole = Batches(SEQUENCES, NUMBERS, seed=5, **options)
    expected = [batch for _ in range(3) for batch in epoch_of(whole)]
    batches, found, states = Batches(SEQUENCES, NUMBERS, seed=5, **options), [], []
    for _ in range(3):
        states.append(batches.state_dict())
        for _, numbers in batches:
            found.append(numbers.tolist())
            states.append(batches.state_dict())
    assert found == expected
    done = [0, *range(1, 1 + len(found))]
    per_epoch = [state for state in states if int(state["next"]) == 0]
    assert len(per_epoch) >= 3
    seen = {(int(state["epoch"]), int(state["next"])): state for state in states}
    assert len(seen) == len(done)  # the end of an epoch is the beginning of the next one
    for count, state in enumerate(seen.values()):
        resumed = Batches(SEQUENCES, NUMBERS, **options)
        resumed.load_state_dict(state)
        rest = []
        while resumed.epoch < 3:
            rest += epoch_of(resumed)
        assert rest == expected[count:]


def test_a_loop_that_was_left_is_gone_on_with():
    batches = Batches(SEQUENCES, NUMBERS, rows=9, shuffle=False)
    whole = epoch_of(batches)
    for _ in batches:
        break
    assert len(batches) == len(whole) - 1
    assert epoch_of(batches) == whole[1:]


def test_a_state_of_other_data_is_refused_and_changes_nothing():
    batches = Batches(SEQUENCES, rows=9, seed=1)
    before = batches.state_dict()
    for state, told in (
        (Batches(SEQUENCES[1:], rows=9).state_dict(), "10 sequences; got 9"),
        ({**before, "rows": np.int64(3)}, "45 rows; got 3"),
        ({**before, "next": np.int64(99)}, "next.* less than"),
        ({**before, "seed": np.int64(-1)}, "seed.* at least 0"),
        ({"seed": 1}, "missing"),
    ):
        with pytest.raises(ValueError, match=told):
            batches.load_state_dict(state)
        assert batches.state_dict() == before


# ---- columns ---------------------------------------------------------------------------------------------------------

LISTS = [[1, 2, 3], [4], [5, 6]]


def assert_taken(*columns):
    batches = Batches(*columns, rows=4, shuffle=False)
    (first, numbers), (second, _) = batches
    assert [s.tolist() for s in nbp.unpack_sequence(first)] == LISTS[:2]
    assert [s.tolist() for s in nbp.unpack_sequence(second)] == LISTS[2:]
    assert isinstance(numbers, np.ndarray) and numbers.tolist() == [7, 8]


def test_ragged_columns_and_numbers_come_in_many_forms():
    arrays = [np.array(each) for each in LISTS]
    for ragged in (LISTS, arrays, tuple(arrays), nbp.pack_sequence(arrays), np.array(arrays, object)):
        for numbers in ([7, 8, 9], np.array([7, 8, 9]), (7, 8, 9)):
            assert_taken(ragged, numbers)


def test_the_columns_of_an_arrow_table_are_columns():
    pa = pytest.importorskip("pyarrow", reason="the table is Arrow's")
    table = pa.table({"words": LISTS, "label": [7, 8, 9]})
    assert_taken(*table.columns)
    chunked = pa.concat_tables([table.slice(0, 1), table.slice(1)])
    assert_taken(chunked["words"], chunked["label"])
    with pytest.raises(TypeError, match=r"columns\[0\]"):
        Batches(pa.array(["a", "b"]), rows=4)
    with pytest.raises(ValueError, match=r"columns\[0\].*missing"):
        Batches(pa.array([[1], None]), rows=4)


def test_columns_of_pandas_and_awkward_arrays_are_columns():
    pd = pytest.importorskip("pandas", reason="the column is pandas'")
    ak = pytest.importorskip("awkward", reason="the array is Awkward's")
    frame = pd.DataFrame({"words": [np.array(each) for each in LISTS], "label": [7, 8, 9]})
    assert_taken(frame["words"], frame["label"])
    assert_taken(ak.Array(LISTS), ak.Array([7, 8, 9]))


def test_one_column_alone_gives_batches_alone_and_columns_may_differ_in_length():
    (packed,) = Batches(LISTS, rows=9, shuffle=False)
    assert packed.lengths.tolist() == [3, 1, 2]
    ((source, target),) = Batches(LISTS, LISTS[::-1], rows=6, shuffle=False)
    assert source.lengths.tolist() == [3, 1, 2] and target.lengths.tolist() == [2, 1, 3]


def test_columns_are_copied():
    arrays = [np.array(each) for each in LISTS]
    batches = Batches(arrays, rows=9, shuffle=False)
    arrays[0][:] = 0
    assert next(iter(batches)).data.tolist() == [1, 5, 4, 2, 6, 3]
