"""CTC against all paths, written out, and against finite differences."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import numba_pack as nbp
from numba_pack.losses import ctc


def labels_of_path(path, blank):
    return [c for c, _ in itertools.groupby(path) if c != blank]


def loss_over_all_paths(logits, labels, blank):
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    right = (
        math.prod(p[t, c] for t, c in enumerate(path))
        for path in itertools.product(range(p.shape[1]), repeat=len(p))
        if labels_of_path(path, blank) == labels
    )
    total = math.fsum(right)
    return -math.log(total) if total else math.inf


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_the_loss_is_that_of_all_right_paths(data):
    blank = data.draw(st.integers(0, 2))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    lengths = data.draw(st.lists(st.integers(0, 5), min_size=1, max_size=4))
    known = [c for c in range(3) if c != blank]
    labels = [data.draw(st.lists(st.sampled_from(known), max_size=3)) for _ in lengths]
    sequences = [3 * rng.standard_normal((n, 3)) for n in lengths]
    arrays = [np.array(each, np.int64) for each in labels]
    losses, gradient = ctc(nbp.pack_sequence(sequences), arrays, blank=blank, reduction="none")
    expected = [loss_over_all_paths(x, each, blank) for x, each in zip(sequences, labels, strict=True)]
    np.testing.assert_allclose(losses, expected, rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(gradient.data.sum(axis=1), 0, atol=1e-12)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_the_gradient_is_that_of_finite_differences(reduction):
    logits = np.random.default_rng(6).standard_normal((5, 2, 4))
    labels = [np.array([1, 1]), np.array([3, 2, 3])]
    gradient = ctc(logits, labels, reduction=reduction)[1]
    step = np.finfo(np.float64).eps ** (1 / 3)
    for index in np.ndindex(logits.shape):
        moved = np.zeros_like(logits)
        moved[index] = step
        above, below = (ctc(logits + sign * moved, labels, reduction=reduction)[0] for sign in (1, -1))
        assert (above - below) / (2 * step) == pytest.approx(gradient[index], rel=0, abs=1e-8)


def test_a_long_sequence_that_is_nearly_impossible_keeps_its_loss_and_gradient():
    """One path alone is left at every step, and its probability is far below all floats."""
    T = 600
    labels = np.arange(T) % 2 + 1
    logits = np.zeros((T, 1, 3))
    logits[:, 0, 0] = 50.0
    loss, gradient = ctc(logits, [labels], reduction="sum")
    assert loss == pytest.approx(T * np.logaddexp(50.0, math.log(2)), rel=1e-12)
    np.testing.assert_allclose(gradient[np.arange(T), 0, labels], -1, rtol=1e-12)


def test_a_class_that_cannot_be_is_as_one_that_hardly_can():
    logits = np.random.default_rng(9).standard_normal((9, 2, 6))
    logits[3] *= 1e4
    logits[:, :, 5] = -math.inf
    hardly = np.where(np.isinf(logits), -1e6, logits)
    loss, gradient = ctc(logits, [[1, 2], [3, 3]])
    expected, d_expected = ctc(hardly, [[1, 2], [3, 3]])
    assert loss == expected
    np.testing.assert_array_equal(gradient, d_expected)
    loss, gradient = ctc(logits, [[1, 5], [3]], reduction="none")
    assert np.isinf(loss).tolist() == [True, False] and not gradient[:, 0].any()


@pytest.mark.parametrize("step", [0, 2, 3])
def test_nan_stays_in_its_sequence(step):
    logits = np.random.default_rng(7).standard_normal((4, 2, 3))
    expected, d_expected = ctc(logits, [[1, 2, 1], [2]], reduction="none")
    logits[step, 0, 0] = math.nan
    losses, gradient = ctc(logits, [[1, 2, 1], [2]], reduction="none")
    assert math.isnan(losses[0]) and losses[1] == expected[1]
    np.testing.assert_array_equal(gradient[:, 1], d_expected[:, 1])


def test_a_sequence_has_the_same_bits_in_any_batch_and_the_arguments_stay_as_they_are():
    rng = np.random.default_rng(8)
    sequences = [rng.standard_normal((n, 5)).astype(np.float32) for n in (6, 3, 9)]
    labels = [np.array([1, 4]), np.array([2]), np.array([3, 3, 1])]
    packed = nbp.pack_sequence(sequences)
    for array in (*packed, *labels):
        array.flags.writeable = False
    losses, gradient = ctc(packed, labels, reduction="none")
    for i, (x, each) in enumerate(zip(sequences, labels, strict=True)):
        alone, d_alone = ctc(x[:, None], [each], reduction="none")
        assert alone[0] == losses[i]
        assert d_alone.tobytes() == nbp.unpack_sequence(gradient)[i].tobytes()
