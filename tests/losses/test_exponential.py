"""The functions that losses are made of, against NumPy's."""

import math

import numpy as np
from numba import njit

from numba_pack.losses.exponential import TINY, exp_of_negative, exponentials, log_of_one_and
from numba_pack.losses.passes import sum_of_numbers
from numba_pack.simd.lanes import like, load, store, width
from numba_pack.simd.memory import address, keep_alive

EPS = np.finfo(np.float64).eps


@njit
def both(x):
    """On vectors, as losses do; the length of x is a multiple of theirs."""
    exponentials, logarithms = np.empty_like(x), np.empty_like(x)
    for i in range(0, len(x), width(x.dtype)):
        u = exp_of_negative(load(x, address(x, i)))
        u = u * like(u, TINY)
        store(address(exponentials, i), u)
        store(address(logarithms, i), log_of_one_and(u))
    keep_alive((x, exponentials, logarithms))
    return exponentials, logarithms


def test_they_are_right_to_two_roundings_wherever_losses_need_them():
    x = -np.concatenate([np.linspace(0, 707, 100_000), np.logspace(-18, 2.8, 100_000)])
    exponentials, logarithms = both(x)
    np.testing.assert_allclose(exponentials, np.exp(x), rtol=2 * EPS)
    np.testing.assert_allclose(logarithms, np.log1p(exponentials), rtol=2.5 * EPS)


def test_what_is_at_the_ends_and_what_is_no_number():
    exponentials, logarithms = both(np.repeat([-0.0, -750.0, -math.inf, math.nan], 4))
    np.testing.assert_array_equal(exponentials[::4], [1, 0, 0, math.nan])
    np.testing.assert_allclose(logarithms[::4], [math.log(2), 0, 0, math.nan], rtol=2 * EPS)


@njit
def largest_and_sum(x, start, count):
    return exponentials(x, start, count, np.empty(len(x) + 16))


@njit
def sum_of_some(x, start, count):
    return sum_of_numbers(x, start, count)


def test_the_error_of_a_sum_does_not_grow_with_its_length():
    """Of equal numbers, whose roundings are all of one sign."""
    for count in (1, 7, 1000, 100_000, 3_000_000):
        found = sum_of_some(np.full(count + 3, 0.1), 2, count)
        assert abs(found / (0.1 * count) - 1) < 50 * EPS
        largest, total = largest_and_sum(np.full(count + 3, 0.1), 2, count)
        assert largest == 0.1 and total == count


def test_numbers_beyond_those_asked_for_do_not_count():
    x = np.full(99, math.nan)
    for count in range(1, 40):
        x[5 : 5 + count] = np.arange(count)
        assert sum_of_some(x, 5, count) == count * (count - 1) / 2
        largest, total = largest_and_sum(x, 5, count)
        assert largest == count - 1
        np.testing.assert_allclose(total, np.exp(-np.arange(float(count))).sum(), rtol=3 * EPS)
