"""Sums and softmax over the rows of each sequence, and one row for each of them repeated."""

import math

import naive_attention as naive
import numpy as np
import pytest
from helpers import DTYPES, LENGTHS, assert_same_bits, normal
from hypothesis import given, settings
from hypothesis import strategies as st
from numba import njit

import numba_pack as nbp

TRAILING = [(), (1,), (3,), (2, 5)]


@pytest.fixture(params=DTYPES)
def dtype(request):
    return request.param


@pytest.fixture(params=TRAILING, ids=str)
def trailing(request):
    return request.param


def draw(trailing, dtype, lengths=LENGTHS, rng=0):
    rng = np.random.default_rng(rng)
    return [normal(rng, (n, *trailing), dtype) for n in lengths]


def columns_of(rows):
    return rows.reshape(len(rows), math.prod(rows.shape[1:])).T


def softmax(sequences):
    return nbp.unpack_sequence(nbp.packed_softmax(nbp.pack_sequence(sequences)))


def softmax_back(outputs, d_outputs):
    return nbp.unpack_sequence(nbp.packed_softmax_backward(*map(nbp.pack_sequence, (outputs, d_outputs))))


def test_a_sum_by_sequence_is_the_exact_one_rounded_as_float64_rounds(trailing, dtype):
    sequences = draw(trailing, dtype)
    sums = nbp.sum_by_sequence(nbp.pack_sequence(sequences))
    assert (sums.dtype, sums.shape) == (dtype, (len(LENGTHS), *trailing))
    for found, rows in zip(sums, sequences, strict=True):
        exact = [math.fsum(column) for column in columns_of(rows.astype(float))]
        np.testing.assert_allclose(found.ravel(), exact, rtol=np.finfo(dtype).eps, atol=1e-14)


def test_a_sum_of_many_rows_is_as_exact_as_one_of_few():
    sums = nbp.sum_by_sequence(nbp.pack_sequence([np.full(1_000_000, 0.1, np.float32)]))
    assert sums[0] == pytest.approx(1e6 * float(np.float32(0.1)), rel=float(np.finfo(np.float32).eps))


@pytest.mark.parametrize("kind", ["f4", "f8", "i4", "?", "c16"])
def test_a_row_is_repeated_for_each_row_of_its_sequence(kind, trailing):
    rows = np.arange(len(LENGTHS) * math.prod(trailing)).reshape(-1, *trailing).astype(kind)
    packed = nbp.pack_sequence([np.zeros(n) for n in LENGTHS])
    found = nbp.repeat_by_sequence(rows, packed)
    assert_same_bits(found[1:], packed[1:])
    for sequence, row, n in zip(nbp.unpack_sequence(found), rows, LENGTHS, strict=True):
        np.testing.assert_array_equal(sequence, np.repeat(row[None], n, axis=0))
        assert sequence.dtype == kind


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 9), min_size=1, max_size=6), st.sampled_from(TRAILING), st.integers(0, 99))
def test_sum_and_repeat_are_the_gradient_of_each_other(lengths, trailing, seed):
    """<repeat(r), x> = <r, sum(x)>, exactly where all numbers are small and whole."""
    rng = np.random.default_rng(seed)
    x = nbp.pack_sequence([rng.integers(-9, 9, (n, *trailing)).astype(float) for n in lengths])
    r = rng.integers(-9, 9, (len(lengths), *trailing)).astype(float)
    assert (nbp.repeat_by_sequence(r, x).data * x.data).sum() == (r * nbp.sum_by_sequence(x)).sum()


def test_softmax_over_a_sequence_is_that_of_plain_loops(trailing, dtype):
    sequences = [3 * rows for rows in draw(trailing, dtype)]
    for found, rows in zip(softmax(sequences), sequences, strict=True):
        assert (found.dtype, found.shape) == (dtype, rows.shape)
        for mine, column in zip(columns_of(found), columns_of(rows), strict=True):
            # x - max rounds in the dtype, and this error is a relative one of exp
            eps = np.finfo(dtype).eps * (4 + np.ptp(column) if len(column) else 1)
            np.testing.assert_allclose(mine, naive.softmax(column.astype(float).tolist()), rtol=eps)


def test_the_gradient_of_softmax_is_that_of_finite_differences(trailing):
    sequences, d = draw(trailing, np.float64), draw(trailing, np.float64, rng=1)
    gradient = softmax_back(softmax(sequences), d)
    step = np.finfo(float).eps ** (1 / 3)
    for i, rows in enumerate(sequences):
        for index in np.ndindex(rows.shape):
            moved = np.zeros_like(rows)
            moved[index] = step
            above, below = ((softmax([rows + sign * moved])[0] * d[i]).sum() for sign in (1, -1))
            assert (above - below) / (2 * step) == pytest.approx(gradient[i][index], rel=0, abs=100 * step**2)


def test_the_gradient_of_softmax_is_that_of_its_parts(dtype):
    output, d = nbp.packed_softmax(nbp.pack_sequence(draw((3,), dtype))), nbp.pack_sequence(draw((3,), dtype, rng=1))
    mean = nbp.sum_by_sequence(output.map(lambda rows: rows * d.data))
    expected = output.data * (d.data - nbp.repeat_by_sequence(mean, d).data)
    found = nbp.packed_softmax_backward(output, d).data
    np.testing.assert_allclose(found, expected, rtol=0, atol=8 * np.finfo(dtype).eps * np.abs(d.data).max())


def test_a_sequence_alone_equals_the_same_sequence_in_a_batch(trailing, dtype):
    sequences, d = draw(trailing, dtype), draw(trailing, dtype, rng=1)
    outputs = softmax(sequences)
    gradients, sums = softmax_back(outputs, d), nbp.sum_by_sequence(nbp.pack_sequence(sequences))
    for i, rows in enumerate(sequences):
        assert_same_bits(softmax([rows])[0], outputs[i])
        assert_same_bits(softmax_back([outputs[i]], [d[i]])[0], gradients[i])
        assert_same_bits(nbp.sum_by_sequence(nbp.pack_sequence([rows])), sums[i : i + 1])


def test_nan_and_infinity_stay_in_their_sequence_and_column(dtype):
    sequences = draw((3,), dtype)
    clean = softmax(sequences)
    sequences[2][1, 0], sequences[2][3, 1] = np.nan, -np.inf
    found = softmax(sequences)
    assert np.isnan(found[2][:, 0]).all()
    assert found[2][3, 1] == 0 and found[2][:, 1].sum() == pytest.approx(1)
    assert_same_bits(found[2][:, 2].copy(), clean[2][:, 2].copy())
    assert_same_bits([found[i] for i in (0, 4, 6)], [clean[i] for i in (0, 4, 6)])


def test_huge_scores_stay_finite(dtype):
    np.testing.assert_array_equal(softmax([np.array([1e30, -1e30, 1e30], dtype)])[0], [0.5, 0.0, 0.5])


def test_arguments_may_be_read_only_and_results_are_not():
    packed = nbp.pack_sequence(draw((3,), np.float32))
    packed.data.flags.writeable = False
    output = nbp.packed_softmax(packed)
    sums = nbp.sum_by_sequence(packed)
    sums.flags.writeable = False
    for found in (output, nbp.packed_softmax_backward(packed, packed), nbp.repeat_by_sequence(sums, packed)):
        assert found.data.flags.writeable and not np.shares_memory(found.data, packed.data)


@njit(cache=True)
def all_four(packed, rows):
    output = nbp.packed_softmax(packed)
    back = nbp.packed_softmax_backward(output, packed)
    return output, back, nbp.sum_by_sequence(packed), nbp.repeat_by_sequence(rows, packed)


def test_in_compiled_code_they_are_the_same():
    packed, rows = nbp.pack_sequence(draw((3,), np.float32)), np.arange(len(LENGTHS))
    output = nbp.packed_softmax(packed)
    back = nbp.packed_softmax_backward(output, packed)
    expected = output, back, nbp.sum_by_sequence(packed), nbp.repeat_by_sequence(rows, packed)
    assert_same_bits(all_four(packed, rows), expected)
