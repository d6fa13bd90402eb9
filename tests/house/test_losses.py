"""Softmax cross-entropy against its definition and against finite differences."""

import math

import numpy as np
import pytest

from numba_pack.losses import softmax_cross_entropy


def loss_loop(logits, labels):
    total = 0.0
    for row, label in zip(logits.tolist(), labels.tolist(), strict=True):
        highest = max(row)
        total += math.log(math.fsum(math.exp(x - highest) for x in row)) - (row[label] - highest)
    return total / len(labels)


@pytest.fixture(params=[(1, 1), (1, 5), (6, 2), (27, 9)], ids=lambda shape: f"N{shape[0]}-C{shape[1]}")
def batch(request):
    rng = np.random.default_rng(1)
    n, classes = request.param
    return 3 * rng.standard_normal((n, classes)), rng.integers(0, classes, n)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_loss_is_the_mean_of_minus_log_softmax_at_the_labels(batch, dtype):
    logits, labels = batch[0].astype(dtype), batch[1]
    loss, d_logits = softmax_cross_entropy(logits, labels)
    assert type(loss) is float
    assert d_logits.dtype == dtype and d_logits.shape == logits.shape
    # Computed in float64 from float32 logits too. Each of C terms rounds; log(C) and the logits set the scale.
    scale = logits.shape[1] * (1 + np.abs(logits).max())
    assert loss == pytest.approx(loss_loop(logits, labels), rel=0, abs=4 * np.finfo(np.float64).eps * scale)


def test_the_gradient_is_that_of_finite_differences(batch):
    logits, labels = batch
    _, d_logits = softmax_cross_entropy(logits, labels)
    step = np.finfo(np.float64).eps ** (1 / 3)
    for index in np.ndindex(logits.shape):
        moved = np.zeros_like(logits)
        moved[index] = step
        above, below = (softmax_cross_entropy(logits + sign * moved, labels)[0] for sign in (1, -1))
        # Central differences err by step**2 / 6 times a third derivative below 1, and by eps / step of the loss.
        assert (above - below) / (2 * step) == pytest.approx(d_logits[index], rel=0, abs=20 * step**2)


def test_the_gradient_of_each_row_sums_to_zero(batch):
    _, d_logits = softmax_cross_entropy(*batch)
    np.testing.assert_allclose(d_logits.sum(axis=1), 0.0, atol=d_logits.shape[1] * np.finfo(np.float64).eps)


def test_adding_a_number_to_a_row_changes_nothing():
    logits, labels = np.array([[0.0, 1.0, 2.0], [4.0, 0.0, 0.0]]), np.array([2, 1])
    loss, d_logits = softmax_cross_entropy(logits, labels)
    shifted_loss, shifted_d = softmax_cross_entropy(logits + np.array([[1024.0], [-512.0]]), labels)
    assert shifted_loss == loss
    np.testing.assert_array_equal(shifted_d, d_logits)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_huge_logits_stay_finite(dtype):
    huge = dtype(1e30)
    loss, d_logits = softmax_cross_entropy(np.array([[huge, -huge]], dtype), np.array([1]))
    assert loss == pytest.approx(2e30)
    np.testing.assert_array_equal(d_logits, [[1.0, -1.0]])


def test_any_integer_dtype_and_any_strides_do():
    logits, labels = np.random.default_rng(2).standard_normal((8, 6)), np.arange(8) % 3
    loss, d_logits = softmax_cross_entropy(logits[::2, ::2].copy(), labels[::2].copy())
    strided_loss, strided_d = softmax_cross_entropy(logits[::2, ::2], labels.astype(np.uint8)[::2])
    assert strided_loss == loss
    np.testing.assert_array_equal(strided_d, d_logits)


def test_the_arguments_are_not_changed():
    logits, labels = np.ones((2, 3)), np.array([0, 2])
    logits.flags.writeable = labels.flags.writeable = False
    loss, d_logits = softmax_cross_entropy(logits, labels)
    assert loss == pytest.approx(math.log(3)) and not np.shares_memory(d_logits, logits)


@pytest.mark.parametrize(
    ("logits", "labels", "error", "message"),
    [
        ([[1.0]], np.array([0]), TypeError, "logits must be a NumPy array; got list"),
        (np.ones((2, 3), int), np.array([0, 1]), TypeError, "logits must be float32 or float64; got int64"),
        (np.ones(3), np.array([0]), ValueError, r"logits must have 2 dimensions; got shape \(3,\)"),
        (
            np.ones((0, 3)),
            np.zeros(0, int),
            ValueError,
            r"logits must have at least one row and one column; got shape \(0, 3\)",
        ),
        (
            np.ones((2, 0)),
            np.array([0, 0]),
            ValueError,
            r"logits must have at least one row and one column; got shape \(2, 0\)",
        ),
        (np.ones((2, 3)), [0, 1], TypeError, "labels must be a NumPy array; got list"),
        (np.ones((2, 3)), np.array([0.0, 1.0]), TypeError, "labels must be integers; got float64"),
        (np.ones((2, 3)), np.array([True, False]), TypeError, "labels must be integers; got bool"),
        (np.ones((2, 3)), np.array([0]), ValueError, r"labels must have shape \(2,\), .*; got \(1,\)"),
        (np.ones((2, 3)), np.array([0, 3]), ValueError, r"labels must lie in \[0, 3\); got 0 to 3"),
        (np.ones((2, 3)), np.array([-1, 0]), ValueError, r"labels must lie in \[0, 3\); got -1 to 0"),
    ],
)
def test_wrong_arguments_are_named(logits, labels, error, message):
    with pytest.raises(error, match=message):
        softmax_cross_entropy(logits, labels)


def test_an_array_of_a_class_that_tells_another_length_is_what_it_holds():
    class Longer(np.ndarray):
        def __len__(self):
            return 99

    logits, labels = np.eye(3, 4), np.array([0, 3, 1])
    loss, d_logits = softmax_cross_entropy(logits, labels)
    again, d_again = softmax_cross_entropy(logits.view(Longer), labels.view(Longer))
    assert again == loss and d_again.tobytes() == d_logits.tobytes()
