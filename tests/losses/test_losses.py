"""Losses against their definitions and against finite differences; rows that do not count; reductions."""

import math

import numpy as np
import pytest

import numba_pack as nbp
from numba_pack.losses import binary_cross_entropy, huber, mse, softmax_cross_entropy


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
        ([[1.0]], np.array([0]), TypeError, "logits must be a PackedSequence or a NumPy array; got list"),
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
        (
            np.ones((2, 3)),
            np.array([0, 3]),
            ValueError,
            r"labels must lie in \[0, 3\), or be ignore_index, -100; got 0 to 3",
        ),
        (
            np.ones((2, 3)),
            np.array([-1, 0]),
            ValueError,
            r"labels must lie in \[0, 3\), or be ignore_index, -100; got -1 to 0",
        ),
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


# ---- all losses ------------------------------------------------------------------------------------------------------

LENGTHS, COLUMNS = [4, 1, 3], 5
CLASS_WEIGHTS = np.array([0.5, 2.0, 0.0, 1.0, 3.0])


def labels_of(rng, shape):
    return rng.integers(0, COLUMNS, shape)


#: a loss of rows, what its second argument is drawn by, and whether that has columns
LOSSES = {
    "softmax": (softmax_cross_entropy, labels_of),
    "softmax, weighed and smoothed": (
        lambda *args, **options: softmax_cross_entropy(
            *args, **options, class_weights=CLASS_WEIGHTS, label_smoothing=0.2
        ),
        labels_of,
    ),
    "binary": (binary_cross_entropy, lambda rng, shape: rng.random((*shape, COLUMNS))),
    "binary, weighed": (
        lambda *args, **options: binary_cross_entropy(*args, **options, pos_weight=CLASS_WEIGHTS),
        lambda rng, shape: rng.integers(0, 2, (*shape, COLUMNS)),
    ),
    "mse": (mse, lambda rng, shape: rng.standard_normal((*shape, COLUMNS))),
    "huber": (
        lambda *args, **options: huber(*args, **options, delta=0.7),
        lambda rng, shape: rng.standard_normal((*shape, COLUMNS)),
    ),
}
REDUCTIONS = ("mean", "sum", "none", "batchmean", "sequence_mean")


@pytest.fixture(params=LOSSES)
def loss_of(request):
    return LOSSES[request.param][0]


@pytest.fixture
def ragged(loss_of, request):
    """Sequences of rows, of what they are compared with, and of weights."""
    rng = np.random.default_rng(3)
    draw = next(draw for function, draw in LOSSES.values() if function is loss_of)
    given = [2 * rng.standard_normal((n, COLUMNS)) for n in LENGTHS]
    return given, [draw(rng, (n,)) for n in LENGTHS], [rng.random(n) + 0.1 for n in LENGTHS]


def in_form(form, sequences, fill):
    if form == "packed":
        return nbp.pack_sequence(sequences)
    return nbp.pad_sequence(sequences, batch_first=form == "batch first", padding_value=fill)


def in_sequences(form, value):
    if form == "packed":
        return nbp.unpack_sequence(value)
    return nbp.unpad_sequence(value, LENGTHS, batch_first=form == "batch first")


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_padding_of_weight_0_changes_nothing_whatever_it_holds(loss_of, ragged, reduction):
    given, wanted, weights = ragged
    results = []
    for form in ("packed", "padded", "batch first"):
        loss, gradient = loss_of(
            in_form(form, given, math.nan), in_form(form, wanted, 0), weights=in_form(form, weights, 0),
            reduction=reduction, batch_first=form == "batch first",
        )  # fmt: skip
        if form != "packed":
            assert np.count_nonzero(gradient) == np.count_nonzero(np.concatenate(in_sequences(form, gradient)))
        losses = np.concatenate(in_sequences(form, loss)) if reduction == "none" else np.array([loss])
        results.append((losses, np.concatenate(in_sequences(form, gradient))))
    for losses, gradient in results[1:]:
        np.testing.assert_allclose(losses, results[0][0], rtol=1e-14)
        np.testing.assert_allclose(gradient, results[0][1], rtol=1e-14, atol=0)


def test_reductions_are_sums_and_means_of_the_losses_of_rows(loss_of, ragged):
    given, wanted, weights = map(nbp.pack_sequence, ragged)
    found = {way: loss_of(given, wanted, weights=weights, reduction=way)[0] for way in REDUCTIONS}
    of_rows = nbp.unpack_sequence(found["none"])
    #: what a mean divides by: found from the losses of each sequence by itself
    alone = [loss_of(g, w, weights=v)[0] for g, w, v in zip(*ragged, strict=True)]
    assert found["sum"] == pytest.approx(sum(map(math.fsum, of_rows)), rel=1e-13)
    assert found["batchmean"] == pytest.approx(found["sum"] / 3, rel=1e-13)
    assert found["sequence_mean"] == pytest.approx(sum(alone) / 3, rel=1e-13)
    rows = np.concatenate(ragged[0]), np.concatenate(ragged[1])
    assert found["mean"] == pytest.approx(loss_of(*rows, weights=np.concatenate(ragged[2]))[0], rel=1e-13)


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_each_gradient_is_that_of_finite_differences(loss_of, ragged, reduction):
    given, wanted, weights = map(nbp.pack_sequence, ragged)

    def total(data):
        loss = loss_of(given._replace(data=data), wanted, weights=weights, reduction=reduction)[0]
        return loss.data.sum() if reduction == "none" else loss

    gradient = loss_of(given, wanted, weights=weights, reduction=reduction)[1].data
    step = np.finfo(np.float64).eps ** (1 / 3)
    for index in np.ndindex(gradient.shape):
        moved = np.zeros_like(gradient)
        moved[index] = step
        slope = (total(given.data + moved) - total(given.data - moved)) / (2 * step)
        assert slope == pytest.approx(gradient[index], rel=0, abs=1e-8)


def test_losses_of_float32_are_those_of_float64_rounded_once(loss_of, ragged):
    given, wanted, weights = map(nbp.pack_sequence, ragged)
    narrow = given.astype(np.float32)
    if wanted.data.dtype == np.float64:
        wanted = wanted.astype(np.float32).astype(np.float64)
    loss, gradient = loss_of(narrow, wanted, weights=weights)
    expected, d_expected = loss_of(narrow.astype(np.float64), wanted, weights=weights)
    assert loss == expected
    assert gradient.data.dtype == np.float32
    np.testing.assert_array_equal(gradient.data, d_expected.data.astype(np.float32))


def test_a_row_has_the_same_bits_in_any_batch(loss_of, ragged):
    given, wanted, _ = ragged
    losses, gradient = loss_of(nbp.pack_sequence(given), nbp.pack_sequence(wanted), reduction="none")
    for i, (g, w) in enumerate(zip(given, wanted, strict=True)):
        alone, d_alone = loss_of(g, w, reduction="none")
        assert alone.tobytes() == nbp.unpack_sequence(losses)[i].tobytes()
        assert d_alone.tobytes() == nbp.unpack_sequence(gradient)[i].tobytes()


def test_the_mean_of_nothing_is_nan_and_its_gradient_zero(loss_of, ragged):
    given, wanted, weights = map(nbp.pack_sequence, ragged)
    nothing = weights.map(np.zeros_like)
    for reduction, expected in zip(REDUCTIONS, (math.nan, 0.0, None, 0.0, math.nan), strict=True):
        loss, gradient = loss_of(given, wanted, weights=nothing, reduction=reduction)
        assert not gradient.data.any()
        if expected is None:
            assert not loss.data.any()
        else:
            np.testing.assert_equal(loss, expected)


def test_a_sequence_that_does_not_count_is_none_in_the_mean_of_means():
    given = nbp.pack_sequence([np.array([[2.0], [4.0]]), np.array([[3.0]])])
    zeros, weights = given.map(np.zeros_like), nbp.pack_sequence([np.ones(2), np.zeros(1)])
    assert mse(given, zeros, weights=weights, reduction="sequence_mean")[0] == 10.0
    assert mse(given, zeros, weights=weights, reduction="batchmean")[0] == 10.0


def test_the_mean_of_a_million_equal_rows_is_the_loss_of_one():
    rows, labels = np.tile(np.array([[0.1, 0.3, -0.2]], np.float32), (1_000_000, 1)), np.ones(1_000_000, np.int8)
    alone = softmax_cross_entropy(rows[:1], labels[:1])[0]
    assert softmax_cross_entropy(rows, labels)[0] == pytest.approx(alone, rel=1e-14)


# ---- labels that do not count ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("ignored", [-100, 0, 7])
@pytest.mark.parametrize("options", [{}, {"class_weights": CLASS_WEIGHTS, "label_smoothing": 0.3}], ids=["", "more"])
def test_ignored_rows_are_as_if_they_were_not_there(ignored, options):
    rng = np.random.default_rng(4)
    logits, labels = rng.standard_normal((12, COLUMNS)), rng.integers(1, COLUMNS, 12)
    kept = np.arange(12) % 3 > 0
    loss, gradient = softmax_cross_entropy(logits, np.where(kept, labels, ignored), ignore_index=ignored, **options)
    expected, d_expected = softmax_cross_entropy(logits[kept], labels[kept], **options)
    assert loss == pytest.approx(expected, rel=1e-14)
    np.testing.assert_allclose(gradient[kept], d_expected, rtol=1e-14)
    assert not gradient[~kept].any()


def test_class_weights_of_an_unsigned_dtype_and_labels_of_eight_bits_do():
    logits, labels = np.eye(3), np.array([2, 0, 255], np.uint8)
    loss, _ = softmax_cross_entropy(logits, labels, class_weights=np.array([1, 2, 3], np.uint8), ignore_index=255)
    weights, rows = np.array([3.0, 1.0]), np.log(np.exp([1, 0, 0]).sum()) - np.array([0.0, 0.0])
    assert loss == pytest.approx((weights @ rows) / 4, rel=1e-14)


@pytest.mark.parametrize("ignored", [2**64 - 1, 2**63, -(2**70)])
def test_labels_and_an_ignored_one_that_int64_does_not_hold_do(ignored):
    logits = np.eye(3)
    labels = np.array([2, ignored if 0 <= ignored < 2**64 else 1, 0], np.uint64)
    kept = np.array([True, int(labels[1]) != ignored, True])
    loss, gradient = softmax_cross_entropy(logits, labels, ignore_index=ignored)
    assert loss == pytest.approx(softmax_cross_entropy(logits[kept], labels[kept].astype(int))[0], rel=1e-14)
    assert gradient.any(axis=1).tolist() == kept.tolist()
    with pytest.raises(ValueError, match=rf"labels must lie in \[0, 3\).*; got 0 to {2**64 - 2}"):
        softmax_cross_entropy(logits, np.array([1, 0, 2**64 - 2], np.uint64), ignore_index=ignored)


def test_a_label_may_be_ignored_whose_class_there_is_and_one_that_is_not_there_is_an_error_wherever_it_stands():
    logits, labels = np.zeros((5000, 3)), np.ones(5000, int)
    labels[-1] = 3
    with pytest.raises(ValueError, match="got 1 to 3"):
        softmax_cross_entropy(logits, labels)
    assert softmax_cross_entropy(logits, labels, ignore_index=3)[0] == pytest.approx(math.log(3), rel=1e-14)


@pytest.mark.parametrize("wrong", [-1e-300, 1 + 2e-16, math.nan, math.inf, -math.inf])
def test_one_target_that_is_no_probability_is_found_among_many(wrong):
    logits, targets = np.zeros((999, 5)), np.full((999, 5), 0.5)
    targets[997, 3] = wrong
    with pytest.raises(ValueError, match=r"targets must lie in \[0, 1\]; got"):
        binary_cross_entropy(logits, targets)


def test_targets_of_any_dtype_do():
    rng = np.random.default_rng(6)
    logits, wanted = rng.standard_normal((4, 5)).astype(np.float32), rng.integers(0, 2, (4, 5))
    for loss_of in (binary_cross_entropy, mse, huber):
        loss, gradient = loss_of(logits, wanted.astype(np.float32))
        for dtype in ("u1", "i8", "f2", "f8", ">f8", "g", *(["?"] if loss_of is binary_cross_entropy else [])):
            again, d_again = loss_of(logits, wanted.astype(dtype))
            assert again == loss and d_again.tobytes() == gradient.tobytes()


def test_a_logit_that_is_infinitely_wrong_has_an_infinite_loss():
    losses, gradient = binary_cross_entropy(np.array([[math.inf], [-math.inf]]), np.array([[0], [1]]), reduction="none")
    assert losses.tolist() == [math.inf, math.inf] and gradient[:, 0].tolist() == [1, -1]


def test_a_small_loss_keeps_its_digits():
    """log(1 + exp(-x)) is exp(-x), where adding 1 would lose it."""
    logits = np.array([[30.0], [-40.0], [300.0]])
    losses, gradient = binary_cross_entropy(logits, np.array([[1], [0], [1]]), reduction="none")
    np.testing.assert_allclose(losses, np.exp([-30.0, -40.0, -300.0]), rtol=1e-12)
    np.testing.assert_allclose(gradient[:, 0], [-math.exp(-30), math.exp(-40), -math.exp(-300)], rtol=1e-12)


def test_means_of_wide_and_of_long_batches_keep_their_digits(loss_of_many):
    """A million equal numbers in rows of any length have the mean of one, with weights and without."""
    loss_of, target = loss_of_many
    alone = loss_of(np.full((1, 1), 0.3), np.full((1, 1), target))[0]
    for columns in (1, 10, 1000, 1_000_000):
        given = np.full((1_000_000 // columns, columns), 0.3)
        for weights in (None, np.ones(len(given))):
            assert loss_of(given, np.full_like(given, target), weights=weights)[0] == pytest.approx(alone, rel=1e-14)


@pytest.fixture(params=[(binary_cross_entropy, 0.7), (mse, 1.1), (huber, 5.0)], ids=["binary", "mse", "huber"])
def loss_of_many(request):
    return request.param
