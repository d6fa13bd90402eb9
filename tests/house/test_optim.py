"""The optimisers against their published equations, written as loops over float64 numbers."""

import copy
import math

import numpy as np
import pytest

from numba_pack.optim import SGD, Adam, AdamW, clip_grad_norm

STEPS = 30
DTYPES = [np.float32, np.float64]


def sgd_loop(theta, gradients, lr, momentum=0.0, weight_decay=0.0):
    for i in range(len(theta)):
        velocity = 0.0
        for g in gradients:
            velocity = momentum * velocity + g[i] + weight_decay * theta[i]
            theta[i] -= lr * velocity
    return theta


def adam_loop(theta, gradients, lr, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0, decoupled=False):
    for i in range(len(theta)):
        mean = square = 0.0
        for t, gradient in enumerate(gradients, start=1):
            g = gradient[i]
            if decoupled:
                theta[i] -= lr * weight_decay * theta[i]
            else:
                g += weight_decay * theta[i]
            mean = betas[0] * mean + (1 - betas[0]) * g
            square = betas[1] * square + (1 - betas[1]) * g * g
            unbiased_mean, unbiased_square = mean / (1 - betas[0] ** t), square / (1 - betas[1] ** t)
            theta[i] -= lr * unbiased_mean / (math.sqrt(unbiased_square) + eps)
    return theta


def adamw_loop(theta, gradients, lr, betas=(0.9, 0.999), eps=1e-8, weight_decay=1e-2):
    return adam_loop(theta, gradients, lr, betas, eps, weight_decay, decoupled=True)


OPTIMISERS = [
    pytest.param(SGD, sgd_loop, {"lr": 0.1}, id="sgd"),
    pytest.param(SGD, sgd_loop, {"lr": 0.1, "momentum": 0.9}, id="sgd-momentum"),
    pytest.param(SGD, sgd_loop, {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.05}, id="sgd-momentum-decay"),
    pytest.param(SGD, sgd_loop, {"lr": 0.01, "momentum": 1.0}, id="sgd-that-never-forgets"),
    pytest.param(Adam, adam_loop, {"lr": 0.01}, id="adam"),
    pytest.param(Adam, adam_loop, {"lr": 0.01, "betas": (0.0, 0.5), "eps": 0.1}, id="adam-other-betas-and-eps"),
    pytest.param(Adam, adam_loop, {"lr": 0.01, "weight_decay": 0.05}, id="adam-decay"),
    pytest.param(AdamW, adamw_loop, {"lr": 0.01}, id="adamw"),
    pytest.param(AdamW, adamw_loop, {"lr": 0.01, "weight_decay": 0.5}, id="adamw-strong-decay"),
]


def problem(dtype, n=7, steps=STEPS):
    rng = np.random.default_rng(3)
    return rng.standard_normal(n).astype(dtype), rng.standard_normal((steps, n)).astype(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("optimiser", "loop", "settings"), OPTIMISERS)
def test_steps_follow_the_equations(optimiser, loop, settings, dtype):
    parameters, gradients = problem(dtype)
    expected = loop(parameters.astype(np.float64), gradients.astype(np.float64), **settings)
    optimizer = optimiser(**settings)
    for gradient in gradients:
        parameters = optimizer.step(parameters, gradient)
    assert parameters.dtype == dtype
    # Each step rounds some ten times; with momentum 0.9 an error lives on in ten later steps.
    scale = np.abs(gradients).max() + np.abs(expected).max()
    np.testing.assert_allclose(parameters, expected, rtol=0, atol=10 * STEPS * np.finfo(dtype).eps * scale)


@pytest.mark.parametrize(("optimiser", "loop", "settings"), OPTIMISERS)
def test_a_step_changes_neither_of_its_arguments(optimiser, loop, settings):
    parameters, gradients = problem(np.float32, steps=3)
    parameters.flags.writeable = gradients.flags.writeable = False  # as a layer's parameters are
    optimizer = optimiser(**settings)
    for gradient in gradients:
        stepped = optimizer.step(parameters, gradient)
        assert stepped.flags.writeable and not np.shares_memory(stepped, parameters)
        stepped[:] = np.nan  # what was returned is the caller's
    assert np.isfinite(optimizer.step(parameters, gradients[0])).all()


@pytest.mark.parametrize(("optimiser", "loop", "settings"), OPTIMISERS)
def test_numpy_numbers_as_settings_keep_float32_and_its_bits(optimiser, loop, settings):
    parameters, gradients = problem(np.float32, steps=3)
    widened = {
        name: tuple(map(np.float64, value)) if name == "betas" else np.float64(value)
        for name, value in settings.items()
    }
    plain, numpy = optimiser(**settings), optimiser(**widened)
    for gradient in gradients:
        expected, stepped = plain.step(parameters, gradient), numpy.step(parameters, gradient)
        assert stepped.dtype == np.float32
        np.testing.assert_array_equal(stepped, expected)


@pytest.mark.parametrize(("optimiser", "loop", "settings"), OPTIMISERS)
def test_two_vectors_with_an_optimiser_each_step_as_one_joined_vector_does(optimiser, loop, settings):
    joined, gradients = problem(np.float64)
    first, second = joined[:3], joined[3:]
    for_joined, for_first, for_second = (optimiser(**settings) for _ in range(3))
    for gradient in gradients:
        joined = for_joined.step(joined, gradient)
        first, second = for_first.step(first, gradient[:3]), for_second.step(second, gradient[3:])
    np.testing.assert_array_equal(np.concatenate([first, second]), joined)


def test_a_copy_goes_on_from_where_the_original_stood():
    parameters, gradients = problem(np.float64)
    adam = Adam()
    for gradient in gradients:
        parameters = adam.step(parameters, gradient)
    twin = copy.deepcopy(adam)
    np.testing.assert_array_equal(twin.step(parameters, gradient), adam.step(parameters, gradient))


def test_a_learning_rate_may_change_between_steps():
    adam = Adam(lr=0.1)
    x, g = np.zeros(1), np.ones(1)
    x = adam.step(x, g)
    adam.lr = 0.3
    np.testing.assert_allclose(adam.step(x, g), -0.4, rtol=1e-6)


@pytest.mark.parametrize("make", [SGD, Adam, AdamW])
def test_a_learning_rate_of_zero_changes_nothing_but_the_moments(make):
    x, g = np.array([1.0, -2.0]), np.array([3.0, 0.5])
    still, moving = make(lr=0), make(lr=0.1)
    np.testing.assert_array_equal(still.step(x, g), x)
    moving.step(x, g)
    still.lr = 0.1
    np.testing.assert_array_equal(still.step(x, g), moving.step(x, g))


@pytest.mark.parametrize("make", [SGD, Adam, AdamW])
@pytest.mark.parametrize("scalar", [np.float16, np.float32])
def test_a_narrow_learning_rate_is_a_number_like_any_other(make, scalar):
    parameters, gradients = problem(np.float64, steps=3)
    plain, narrow = make(lr=float(scalar(0.1)), weight_decay=0.01), make(lr=scalar(0.1), weight_decay=0.01)
    for gradient in gradients:
        assert plain.step(parameters, gradient).tobytes() == narrow.step(parameters, gradient).tobytes()


@pytest.mark.parametrize("make", [lambda: SGD(0.1, momentum=0.9), Adam, AdamW])
@pytest.mark.parametrize("wrong", [math.nan, "0.1", None, -1])
def test_a_step_with_a_learning_rate_that_is_none_is_refused_and_never_was(make, wrong):
    parameters, (first, second) = problem(np.float32, steps=2)
    plain, other = make(), make()
    plain.step(parameters, first)
    other.step(parameters, first)
    lr, other.lr = other.lr, wrong
    with pytest.raises((TypeError, ValueError), match="lr must be"):
        other.step(parameters, second)
    other.lr = lr
    assert other.step(parameters, second).tobytes() == plain.step(parameters, second).tobytes()


def test_adam_finds_the_minimum_of_a_badly_scaled_bowl():
    curvature = np.array([1e-4, 1.0, 1e4])
    x, adam = np.ones(3), Adam(lr=0.01)
    for _ in range(1000):
        x = adam.step(x, curvature * x)
    assert np.abs(x).max() < 1e-3


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_gradient_above_the_limit_is_scaled_down_to_it(dtype):
    gradient = np.array([3.0, 0.0, -4.0], dtype)
    clipped, norm = clip_grad_norm(gradient, 2.5)
    assert norm == 5.0 and type(norm) is float
    assert clipped.dtype == dtype
    np.testing.assert_allclose(clipped, gradient / 2, rtol=1e-6)
    np.testing.assert_array_equal(gradient, [3.0, 0.0, -4.0])


def test_a_gradient_within_the_limit_is_copied_as_it_is():
    gradient = np.array([3.0, -4.0], np.float32)
    clipped, _ = clip_grad_norm(gradient, np.float64(5.1))
    np.testing.assert_array_equal(clipped, gradient)
    assert clipped.dtype == np.float32 and not np.shares_memory(clipped, gradient)


def test_a_limit_of_infinity_tells_the_norm_and_one_of_zero_leaves_nothing():
    gradient = np.array([3.0, -4.0])
    clipped, norm = clip_grad_norm(gradient, math.inf)
    np.testing.assert_array_equal(clipped, gradient)
    assert norm == 5.0
    np.testing.assert_array_equal(clip_grad_norm(gradient, 0)[0], [0.0, -0.0])


def test_a_float32_norm_does_not_overflow():
    clipped, norm = clip_grad_norm(np.full(4, 1e30, np.float32), 1.0)
    assert norm == pytest.approx(2e30)
    np.testing.assert_allclose(clipped, 0.5, rtol=1e-6)


def test_a_nan_stays_visible_after_clipping():
    clipped, norm = clip_grad_norm(np.array([1.0, np.nan]), 1.0)
    assert math.isnan(norm) and np.isnan(clipped).all()


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: SGD(lr=-0.1), ValueError, "lr must be at least 0 and finite; got -0.1"),
        (lambda: SGD(lr=np.nan), ValueError, "lr must be .*; got nan"),
        (lambda: SGD(lr="0.1"), TypeError, "lr must be a number; got '0.1'"),
        (lambda: SGD(lr=True), TypeError, "lr must be a number; got True"),
        (lambda: SGD(lr=0.1, momentum=-0.5), ValueError, "momentum must be at least 0 and finite; got -0.5"),
        (lambda: SGD(lr=0.1, weight_decay=-1), ValueError, "weight_decay must be .*; got -1"),
        (lambda: Adam(lr=np.inf), ValueError, "lr must be .*; got inf"),
        (lambda: Adam(betas=0.9), TypeError, "betas must be a pair of numbers; got 0.9"),
        (lambda: Adam(betas=(0.9, 1.0)), ValueError, r"betas\[1\] must be .* below 1; got 1.0"),
        (lambda: Adam(betas=(-0.1, 0.9)), ValueError, r"betas\[0\] must be .*; got -0.1"),
        (lambda: Adam(eps=-1e-8), ValueError, "eps must be .*; got -1e-08"),
        (lambda: AdamW(weight_decay=None), TypeError, "weight_decay must be a number; got None"),
        (lambda: clip_grad_norm(np.ones(2), -1.0), ValueError, "max_norm must be .*; got -1.0"),
        (lambda: clip_grad_norm(np.ones(2), math.nan), ValueError, "max_norm must be .*; got nan"),
        (lambda: clip_grad_norm([1.0], 1.0), TypeError, "gradient must be a NumPy array; got list"),
    ],
)
def test_wrong_settings_are_named(make, error, message):
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize("optimizer", [SGD(0.1, momentum=0.9), Adam(), AdamW()], ids=["sgd", "adam", "adamw"])
@pytest.mark.parametrize(
    ("parameters", "gradient", "error", "message"),
    [
        ([1.0], np.ones(1), TypeError, "parameters must be a NumPy array; got list"),
        (np.ones(2, np.int64), np.ones(2), TypeError, "parameters must be float32 or float64; got int64"),
        (np.ones(2), np.ones(2, np.float16), TypeError, "gradient must be float32 or float64; got float16"),
        (np.ones(2), np.ones(2, np.float32), TypeError, "gradient must be float64, as parameters; got float32"),
        (np.ones(2), np.ones(3), ValueError, r"gradient must have shape \(2,\), as parameters; got \(3,\)"),
        (np.ones((2, 2)), np.ones((2, 2)), ValueError, r"parameters must have 1 dimension; got shape \(2, 2\)"),
    ],
    ids=["list", "integers", "half", "other-dtype", "other-length", "matrix"],
)
def test_wrong_vectors_are_named(optimizer, parameters, gradient, error, message):
    with pytest.raises(error, match=message):
        optimizer.step(parameters, gradient)


@pytest.mark.parametrize("optimizer", [SGD(0.1, momentum=0.9), Adam(), AdamW()], ids=["sgd", "adam", "adamw"])
def test_a_vector_unlike_the_one_before_is_refused_and_forgotten(optimizer):
    x, g = np.ones(2), np.ones(2)
    optimizer.step(x, g)
    before = copy.deepcopy(optimizer)
    with pytest.raises(ValueError, match=r"parameters must have shape \(2,\), as in the steps before; got \(3,\)"):
        optimizer.step(np.ones(3), np.ones(3))
    with pytest.raises(TypeError, match="parameters must be float64, as in the steps before; got float32"):
        optimizer.step(np.ones(2, np.float32), np.ones(2, np.float32))
    np.testing.assert_array_equal(optimizer.step(x, g), before.step(x, g))
