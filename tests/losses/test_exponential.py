"""The functions that losses are made of, against NumPy's."""

import math

import numpy as np
from numba import njit

from numba_pack.losses.exponential import exp_of_negative, log_of_one_and

EPS = np.finfo(np.float64).eps


@njit
def both(x):
    exponentials, logarithms = np.empty_like(x), np.empty_like(x)
    exp_of_negative(x, exponentials)
    log_of_one_and(exponentials, logarithms)
    return exponentials, logarithms


def test_they_are_right_to_two_roundings_wherever_losses_need_them():
    x = -np.concatenate([np.linspace(0, 707, 100_000), np.logspace(-18, 2.8, 100_000)])
    exponentials, logarithms = both(x)
    np.testing.assert_allclose(exponentials, np.exp(x), rtol=1.5 * EPS)
    np.testing.assert_allclose(logarithms, np.log1p(exponentials), rtol=2.5 * EPS)


def test_what_is_at_the_ends_and_what_is_no_number():
    exponentials, logarithms = both(np.array([-0.0, -710.0, -math.inf, math.nan]))
    np.testing.assert_array_equal(exponentials[[0, 3]], [1, math.nan])
    assert (exponentials[1:3] < 1e-307).all() and (logarithms[1:3] < 1e-307).all()
    np.testing.assert_allclose(logarithms[[0, 3]], [math.log(2), math.nan], rtol=EPS)
