"""Masks as the kernels draw them, whole vectors at a time: each word is that of the generator, one by one."""

import naive
import numpy as np
import pytest
from helpers import DTYPES

from numba_pack.batch import Batch
from numba_pack.cells.dropout import Dropout
from numba_pack.cpu.drop import drop_rows
from numba_pack.cpu.noise import noise_kernel

#: fewer units than a counter has words, whole ones, and some and no whole vectors
WIDTHS = (1, 3, 4, 5, 16, 19, 40, 129)
SEED, CALL, LAYER, STEP, ORDER = 2**32 - 1, 77, (1 << 24) + 5, 12, (6, 0, 2**32 - 1)
END = 2**32
#: three sequences, not divided; and no workers
WHOLE = None, (0, 0)


def drawn(dtype, threshold, scaled, columns):
    """The mask (3, columns) of the sequences, and what was there before it to the right, of NaN."""
    order, target = np.array(ORDER), np.full((len(ORDER), columns + 40), np.nan, dtype)
    block = np.array([
        threshold, scaled, SEED, CALL, LAYER, STEP, order.ctypes.data, len(order), target.ctypes.data, target.shape[1],
        columns,
    ])  # fmt: skip
    noise_kernel(np.dtype(dtype)).ctypes(block.ctypes.data)
    return target[:, :columns], target[:, columns:]


def words(columns, step=STEP):
    """(3, columns) the word of each unit."""
    fours = range((columns + 3) // 4)
    rows = [[word for n in fours for word in naive.philox((n, step, i, LAYER), (SEED, CALL))] for i in ORDER]
    return np.array(rows)[:, :columns]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("columns", WIDTHS)
def test_a_mask_is_that_of_its_words_and_nothing_beside_it_is_written(columns, dtype):
    threshold = 3 * END // 10
    for scaled, kept in ((0, 1.0), (1, 1 / (1 - threshold / END))):
        mask, beside = drawn(dtype, threshold, scaled, columns)
        np.testing.assert_array_equal(mask, np.where(words(columns) >= threshold, dtype(kept), dtype(0)))
        assert np.isnan(beside).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_unit_is_kept_from_its_word_on_and_no_further(dtype):
    expected = words(40)
    for r, u in np.ndindex(expected.shape):
        assert drawn(dtype, expected[r, u], 0, 40)[0][r, u] == 1
        assert drawn(dtype, expected[r, u] + 1, 0, 40)[0][r, u] == 0


@pytest.mark.parametrize("scaled", [0, 1], ids=["as-it-is", "scaled"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_at_a_probability_of_zero_all_are_kept_and_at_one_none(dtype, scaled):
    assert (drawn(dtype, 0, scaled, 40)[0] == 1).all()
    assert (drawn(dtype, END, scaled, 40)[0] == 0).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("columns", WIDTHS)
def test_rows_between_layers_are_multiplied_by_the_mask_of_their_words(columns, dtype):
    rate, sizes = 0.25, np.array([3, 3, 1])
    batch = Batch(np.empty(0, dtype), sizes, np.array(ORDER), 7)
    source = np.random.default_rng(0).standard_normal((7, columns)).astype(dtype)
    kept = np.concatenate([words(columns, t)[:size] for t, size in enumerate(sizes)]) >= rate * END
    target = np.full((8, columns), np.nan, dtype)  # of another row, nothing is written
    drop_rows(Dropout(rate, np.uint32(SEED), np.uint32(CALL)), LAYER, batch, *WHOLE, source, target[:7])
    np.testing.assert_array_equal(target[:7], source * np.where(kept, dtype(1 / (1 - rate)), dtype(0)))
    assert np.isnan(target[7]).all()
    drop_rows(Dropout(1.0, np.uint32(SEED), np.uint32(CALL)), LAYER, batch, *WHOLE, source, source)
    assert not source.any()
