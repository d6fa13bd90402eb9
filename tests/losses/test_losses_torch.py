"""Losses, and what they are in PyTorch."""

import itertools

import numpy as np
import pytest

import numba_pack as nbp
from numba_pack.losses import binary_cross_entropy, ctc, huber, mse, softmax_cross_entropy

torch = pytest.importorskip("torch", reason="its losses are what these are compared with")
F = torch.nn.functional

RNG = np.random.default_rng(5)
N, C = 23, 6
START = RNG.bit_generator.state
TOLERANCE = {np.float32: 2e-6, np.float64: 1e-14}


@pytest.fixture(autouse=True)
def the_same_numbers_whatever_tests_run_before():
    RNG.bit_generator.state = START


def theirs(function, given, *others, **options):
    """Loss and gradient by autograd."""
    x = torch.tensor(given, requires_grad=True)
    loss = function(x, *map(torch.from_numpy, others), **options)
    loss.sum().backward()
    return loss.detach().numpy(), x.grad.numpy()


def assert_close(ours, expected, dtype, terms=1):
    """``terms`` are those that PyTorch adds up one after the other, with a rounding each."""
    rtol = max(TOLERANCE[dtype] * 10, terms * np.finfo(np.float64).eps)
    for mine, other in zip(ours, expected, strict=True):
        np.testing.assert_allclose(mine, other, rtol=rtol, atol=TOLERANCE[dtype])
    assert ours[1].dtype == dtype


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("smoothing", [0.0, 0.25])
@pytest.mark.parametrize("weighed", [False, True])
def test_softmax_cross_entropy_is_that_of_pytorch(dtype, reduction, smoothing, weighed):
    logits, labels = (3 * RNG.standard_normal((N, C))).astype(dtype), RNG.integers(0, C, N)
    labels[::5] = -100
    weights = RNG.random(C).astype(dtype)
    weights[1] = 0
    shared = {"label_smoothing": smoothing, "reduction": reduction}
    ours = softmax_cross_entropy(logits, labels, class_weights=weights if weighed else None, **shared)
    expected = theirs(F.cross_entropy, logits, labels, weight=torch.from_numpy(weights) if weighed else None, **shared)
    assert_close(ours, expected, dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("weighed", [False, True])
def test_binary_cross_entropy_is_that_of_pytorch(dtype, reduction, weighed):
    logits = (5 * RNG.standard_normal((N, C))).astype(dtype)
    targets, weights = RNG.random((N, C)).astype(dtype), RNG.random(C).astype(dtype)
    targets[0], targets[1] = 0, 1
    ours = binary_cross_entropy(logits, targets, pos_weight=weights if weighed else None, reduction=reduction)
    pos_weight = torch.from_numpy(weights) if weighed else None
    loss, gradient = theirs(
        F.binary_cross_entropy_with_logits, logits, targets, pos_weight=pos_weight, reduction=reduction
    )
    assert_close(ours, (loss.sum(axis=1) if reduction == "none" else loss, gradient), dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize(
    ("ours", "other"),
    [
        (mse, F.mse_loss),
        (huber, F.huber_loss),
        (
            lambda *args, **options: huber(*args, delta=0.3, **options),
            lambda *args, **options: F.huber_loss(*args, delta=0.3, **options),
        ),
    ],
    ids=["mse", "huber", "huber 0.3"],
)
def test_losses_of_numbers_are_those_of_pytorch(ours, other, dtype, reduction):
    output, targets = RNG.standard_normal((2, N, C)).astype(dtype)
    loss, gradient = theirs(other, output, targets, reduction=reduction)
    expected = loss.sum(axis=1) if reduction == "none" else loss, gradient
    assert_close(ours(output, targets, reduction=reduction), expected, dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_many_classes_and_any_number_of_them_are_as_in_pytorch(dtype, reduction, smoothing):
    for classes in (1, 7, 8, 9, 300, 20_000):
        logits, labels = (3 * RNG.standard_normal((3, classes))).astype(dtype), RNG.integers(0, classes, 3)
        options = {"label_smoothing": smoothing, "reduction": reduction}
        ours = softmax_cross_entropy(logits, labels, **options)
        assert_close(ours, theirs(F.cross_entropy, logits.astype(np.float64), labels, **options), dtype, classes)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_logits_that_are_not_finite_are_as_in_pytorch(dtype):
    logits = np.tile(RNG.standard_normal(20).astype(dtype), (9, 1))
    inf = np.inf
    logits[0, 3], logits[1, 5], logits[2], logits[3, ::2], logits[4, 7] = np.nan, inf, -inf, -inf, -inf
    logits[5, 1:], logits[6], logits[7] = -inf, np.finfo(dtype).max, np.finfo(dtype).min / 4
    logits[8, ::3] = -inf, *[np.nan] * 6
    labels = np.full(9, 7)
    labels[5] = 0
    expected = theirs(F.cross_entropy, logits, labels, reduction="none")
    ours = softmax_cross_entropy(logits, labels, reduction="none")
    assert_close(ours, expected, dtype)
    assert np.isnan(ours[0]).tolist() == [True] * 3 + [False] * 5 + [True] and ours[0][4] == inf
    assert not ours[1][3, ::2].any() and not ours[1][5].any()


of_numbers = pytest.mark.parametrize(
    ("ours", "other"),
    [
        (binary_cross_entropy, F.binary_cross_entropy_with_logits),
        (mse, F.mse_loss),
        (huber, F.huber_loss),
    ],
    ids=["binary", "mse", "huber"],
)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@of_numbers
def test_numbers_that_are_not_finite_are_as_in_pytorch(ours, other, dtype):
    given = np.array([[np.nan], [1e30], [-1e30], [0.0], [-0.0], [2.5], [np.inf], [-np.inf]], dtype)
    if ours is binary_cross_entropy:  # PyTorch tells NaN also where it is wrong to be sure of a no
        given = given[:-1]
    for target in (0.0, 0.25, 1.0):
        targets = np.full_like(given, target)
        loss, gradient = theirs(other, given.astype(np.float64), targets.astype(np.float64), reduction="none")
        assert_close(ours(given, targets, reduction="none"), (loss[:, 0], gradient), dtype)


@of_numbers
def test_a_mean_is_over_all_columns_and_with_weights_over_what_weighs(ours, other):
    """As PyTorch's is without weights; with them mse_loss and huber_loss of PyTorch do that, too."""
    for columns in (1, 3, 8, 40):
        given, targets = RNG.random((2, 50, columns))
        weights = RNG.random(50) * (np.arange(50) % 3 > 0)
        assert_close(ours(given, targets), theirs(other, given, targets), np.float64)
        loss, gradient = theirs(other, given, targets, reduction="none")
        total = weights.sum() * columns
        expected = (loss * weights[:, None]).sum() / total, gradient * weights[:, None] / total
        assert_close(ours(given, targets, weights=weights), expected, np.float64)


# ---- CTC -------------------------------------------------------------------------------------------------------------

STEPS, COUNTS = [30, 12, 1, 25, 7], [9, 12, 1, 0, 3]


def ctc_of_torch(logits, labels, steps, blank, reduction):
    """Of padded logits (T, B, C)."""
    x = torch.tensor(logits, requires_grad=True)
    counts = torch.tensor([len(each) for each in labels])
    # In float64 and on the CPU it is PyTorch's own code.
    loss = F.ctc_loss(
        x.log_softmax(2), torch.from_numpy(np.concatenate(labels)), torch.tensor(steps), counts, blank, reduction
    )
    loss.sum().backward()
    return loss.detach().numpy(), x.grad.numpy()


def labels_without_repetitions(counts, classes, blank):
    known = [c for c in range(classes) if c != blank]
    return [np.array([known[i % len(known)] for i in range(3, 3 + count)], np.int64) for count in counts]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("blank", [0, 2])
def test_ctc_is_that_of_pytorch_packed_and_padded(dtype, reduction, blank):
    logits = (2 * RNG.standard_normal((max(STEPS), len(STEPS), C))).astype(dtype)
    labels = labels_without_repetitions(COUNTS, C, blank)
    loss, gradient = ctc_of_torch(logits.astype(np.float64), labels, STEPS, blank, reduction)
    ours, d_ours = ctc(logits, labels, lengths=STEPS, blank=blank, reduction=reduction)
    assert d_ours.dtype == dtype
    np.testing.assert_allclose(ours, loss, rtol=1e-12)
    np.testing.assert_allclose(d_ours, gradient, rtol=0, atol=TOLERANCE[dtype] * 10)

    packed = nbp.pack_padded_sequence(logits, STEPS)
    again, d_packed = ctc(packed, nbp.pack_sequence(labels), blank=blank, reduction=reduction)
    np.testing.assert_array_equal(again, ours)
    np.testing.assert_array_equal(nbp.pad_packed_sequence(d_packed)[0], d_ours)

    swapped = np.ascontiguousarray(logits.swapaxes(0, 1))
    again, d_swapped = ctc(swapped, labels, lengths=STEPS, blank=blank, reduction=reduction, batch_first=True)
    np.testing.assert_array_equal(again, ours)
    np.testing.assert_array_equal(d_swapped.swapaxes(0, 1), d_ours)


def test_ctc_of_repeated_labels_is_that_of_pytorch():
    logits = RNG.standard_normal((8, 3, 4))
    labels = [np.array([1, 1, 1]), np.array([3, 2, 2, 3]), np.array([2, 2])]
    loss, gradient = ctc_of_torch(logits, labels, [8, 8, 8], 0, "none")
    ours, d_ours = ctc(logits, labels, reduction="none")
    np.testing.assert_allclose(ours, loss, rtol=1e-13)
    np.testing.assert_allclose(d_ours, gradient, atol=1e-13)


def test_ctc_of_too_few_rows_is_infinite_as_in_pytorch_and_has_no_gradient():
    logits = RNG.standard_normal((4, 3, 4))
    labels = [np.array([1, 1, 2, 2]), np.array([1, 2]), np.array([1, 2, 3])]
    lengths = [4, 4, 0]
    loss, _ = ctc_of_torch(logits, labels, lengths, 0, "none")
    ours, gradient = ctc(logits, labels, lengths=lengths, reduction="none")
    np.testing.assert_allclose(ours, loss, rtol=1e-13)
    assert list(np.isinf(ours)) == [True, False, True]
    assert not gradient[:, [0, 2]].any() and gradient[:, 1].all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_ctc_of_many_steps_classes_and_labels_is_that_of_pytorch(dtype):
    steps, counts = [120, 7, 80], [50, 3, 17]
    logits = RNG.standard_normal((120, 3, 37)).astype(dtype)
    labels = [RNG.integers(1, 37, count) for count in counts]
    loss, gradient = ctc_of_torch(logits.astype(np.float64), labels, steps, 0, "none")
    ours, d_ours = ctc(logits, labels, lengths=steps, reduction="none")
    np.testing.assert_allclose(ours, loss, rtol=1e-12)
    # of logarithms of some hundred, of which differences are taken, the last place is about 1e-13
    np.testing.assert_allclose(d_ours, gradient, rtol=0, atol=max(TOLERANCE[dtype], 1e-13) * 10)


def test_linear_embedding_and_their_model_are_pytorchs_with_one_state_dict():
    """Loss and gradients of a tagger, where padding is ignored."""

    class Tagger(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding, self.linear = torch.nn.Embedding(7, 3), torch.nn.Linear(8, C)
            self.lstm = torch.nn.LSTM(3, 4, bidirectional=True)

        def forward(self, packed):
            x = packed._replace(data=self.embedding(packed.data))
            return self.linear(self.lstm(x)[0].data)

    tagger = Tagger().double()
    model = nbp.Model(
        embedding=nbp.Embedding(7, 3, dtype=np.float64),
        lstm=nbp.LSTM(3, 4, bidirectional=True, dtype=np.float64),
        linear=nbp.Linear(8, C, dtype=np.float64),
    )
    model.load_state_dict(tagger.state_dict())
    sequences = [RNG.integers(0, 7, n) for n in (5, 2, 6)]
    words = nbp.pack_sequence(sequences)
    labels = RNG.integers(0, C, 13)
    expected = F.cross_entropy(
        tagger(torch.nn.utils.rnn.pack_sequence([torch.from_numpy(s) for s in sequences], enforce_sorted=False)),
        torch.from_numpy(labels),
    )
    expected.backward()

    logits, tape = model.forward(words)
    loss, d_logits = softmax_cross_entropy(logits, words._replace(data=labels))
    gradient = model.views(model.backward(tape, d_logits).parameters)
    assert loss == pytest.approx(expected.item(), rel=1e-12)
    for name, parameter in tagger.named_parameters():
        np.testing.assert_allclose(gradient[name], parameter.grad.numpy(), atol=1e-12, err_msg=name)


def test_parameters_begin_in_the_range_of_pytorchs():
    for columns, bias in itertools.product((4, 100), (True, False)):
        mine = nbp.Linear(columns, 500, bias, rng=0)
        other = torch.nn.Linear(columns, 500, bias)
        assert {k: v.shape for k, v in mine.state_dict().items()} == {
            k: tuple(v.shape) for k, v in other.state_dict().items()
        }
        bound = columns**-0.5
        assert 0.99 * bound < np.abs(mine.parameters).max() <= bound * (1 + 1e-6)
        assert max(p.abs().max().item() for p in other.parameters()) <= bound * (1 + 1e-6)
    table = nbp.Embedding(300, 100, rng=0).weight
    assert abs(table.mean()) < 0.02 and abs(table.std() - 1) < 0.02
