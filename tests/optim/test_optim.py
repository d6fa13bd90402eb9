"""The optimisers against their published equations, written as loops over float64 numbers; clipping; schedules."""

import copy
import math
import pickle

import numpy as np
import pytest

from numba_pack import optim
from numba_pack.optim import (
    SGD,
    Adam,
    AdamW,
    RMSprop,
    clip_grad_norm,
    cosine_lr,
    one_cycle_lr,
    plateau_lr,
    step_lr,
)

STEPS = 30
DTYPES = [np.float32, np.float64]


def sgd_loop(theta, gradients, lr, momentum=0.0, weight_decay=0.0, dampening=0.0, nesterov=False):
    for i in range(len(theta)):
        velocity = None
        for gradient in gradients:
            g = gradient[i] + weight_decay * theta[i]
            velocity = g if velocity is None else momentum * velocity + (1 - dampening) * g
            theta[i] -= lr * (g + momentum * velocity if nesterov else velocity if momentum else g)
    return theta


def rmsprop_loop(theta, gradients, lr=1e-2, alpha=0.99, eps=1e-8, weight_decay=0.0, momentum=0.0):
    for i in range(len(theta)):
        square = velocity = 0.0
        for gradient in gradients:
            g = gradient[i] + weight_decay * theta[i]
            square = alpha * square + (1 - alpha) * g * g
            velocity = momentum * velocity + g / (math.sqrt(square) + eps)
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
    pytest.param(SGD, sgd_loop, {"lr": 0.1, "momentum": 0.9, "dampening": 0.5}, id="sgd-dampening"),
    pytest.param(SGD, sgd_loop, {"lr": 0.1, "dampening": 0.5}, id="sgd-dampening-of-nothing"),
    pytest.param(SGD, sgd_loop, {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.05, "nesterov": True}, id="nesterov"),
    pytest.param(RMSprop, rmsprop_loop, {}, id="rmsprop"),
    pytest.param(RMSprop, rmsprop_loop, {"lr": 0.01, "alpha": 0.9, "eps": 0.1, "weight_decay": 0.05}, id="rms-decay"),
    pytest.param(RMSprop, rmsprop_loop, {"lr": 0.01, "momentum": 0.5}, id="rmsprop-momentum"),
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
        name: tuple(map(np.float64, value)) if name == "betas" else np.asarray(value)[()]
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


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("optimiser", "loop", "settings"), OPTIMISERS)
def test_bits_depend_on_neither_length_nor_place_in_memory(optimiser, loop, settings, dtype):
    parameters, gradients = problem(dtype, n=2500, steps=2)
    expected = parameters
    optimizer = optimiser(**settings)
    for gradient in gradients:
        expected = optimizer.step(expected, gradient)
    for start, stop in ((0, 1), (1, 2500), (3, 1030), (1023, 1025), (7, 7)):
        part, optimizer = parameters[start:stop], optimiser(**settings)
        for gradient in gradients:
            part = optimizer.step(part, gradient[start:stop])
        assert part.tobytes() == expected[start:stop].tobytes()


def unaligned(array):
    """A copy at an address that is no multiple of the item's size."""
    whole = np.zeros(array.nbytes + 1, np.uint8)
    copied = whole[1:].view(array.dtype)
    copied[:] = array
    assert not (copied.size and copied.flags.aligned)
    return copied


FORMS = {
    "plain": np.copy,
    "every second": lambda array: np.repeat(array, 2)[::2],
    "backwards": lambda array: array[::-1].copy()[::-1],
    "unaligned": unaligned,
    "a column": lambda array: np.stack([array, array], axis=1)[:, 1],
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("optimiser", "loop", "settings"), OPTIMISERS)
def test_a_view_of_any_form_steps_as_its_copy_does_and_in_place(optimiser, loop, settings, dtype, form):
    expected, gradients = problem(dtype, n=100, steps=3)
    x = FORMS[form](expected)
    plain, other, in_place = (optimiser(**settings) for _ in range(3))
    for gradient in gradients:
        g = FORMS[form](gradient)
        new, expected = other.step(x, g), plain.step(expected, gradient)
        assert in_place.step(x, g, out=x) is x
        assert new.tobytes() == x.tobytes() == expected.tobytes()
        assert g.tobytes() == gradient.tobytes()


@pytest.mark.parametrize(("optimiser", "loop", "settings"), OPTIMISERS)
def test_out_may_be_or_overlap_any_of_the_arguments(optimiser, loop, settings):
    x, (g,) = problem(np.float32, n=5000, steps=1)
    expected = optimiser(**settings).step(x, g)
    assert optimiser(**settings).step(x, g, out=np.full_like(x, np.nan)).tobytes() == expected.tobytes()
    given = g.copy()
    assert optimiser(**settings).step(x, given, out=given).tobytes() == expected.tobytes()
    for a, b in ((0, 1), (1, 0), (0, 0)):
        room = np.zeros(5001, np.float32)
        source, out = room[a : a + 5000], room[b : b + 5000]
        source[:] = x
        assert optimiser(**settings).step(source, g, out=out).tobytes() == expected.tobytes()
        source[:] = g
        assert optimiser(**settings).step(x, source, out=out).tobytes() == expected.tobytes()


def test_out_is_checked_before_anything_changes():
    x, g = np.ones(2), np.ones(2)
    adam, before = Adam(), Adam()
    fixed = x.copy()
    fixed.flags.writeable = False
    for out, error, message in (
        (fixed, ValueError, "out must be an array that can be written to; got one that is read-only"),
        (np.ones(3), ValueError, r"out must have shape \(2,\), as parameters; got \(3,\)"),
        (np.ones(2, np.float32), TypeError, "out must be float64, as parameters; got float32"),
        ([1.0, 1.0], TypeError, "out must be a NumPy array; got list"),
    ):
        with pytest.raises(error, match=message):
            adam.step(x, g, out=out)
        with pytest.raises(error, match=message.replace("parameters", "gradient")):
            clip_grad_norm(g, 0.5, out=out)
    assert adam.step(x, g).tobytes() == before.step(x, g).tobytes()


@pytest.mark.parametrize("steps", [0, 1, 5])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("optimiser", "loop", "settings"), OPTIMISERS)
def test_a_loaded_state_goes_on_from_where_it_was_saved(optimiser, loop, settings, dtype, steps, tmp_path):
    x, gradients = problem(dtype, steps=steps + 2)
    saved, loaded = optimiser(**settings), optimiser(lr=7.0)
    loaded.step(np.ones(3, np.float64), np.ones(3, np.float64))  # forgotten
    for gradient in gradients[:steps]:
        x = saved.step(x, gradient)
    np.savez(tmp_path / "state.npz", **saved.state_dict())
    with np.load(tmp_path / "state.npz") as state:
        loaded.load_state_dict(state)
    assert repr(loaded) == repr(saved)
    y = x
    for gradient in gradients[steps:]:
        x, y = saved.step(x, gradient), loaded.step(y, gradient)
        assert x.tobytes() == y.tobytes()


@pytest.mark.parametrize(("optimiser", "loop", "settings"), OPTIMISERS)
def test_a_state_shares_nothing_with_its_optimiser(optimiser, loop, settings):
    x, (g,) = problem(np.float64, steps=1)
    optimizer, other = optimiser(**settings), optimiser(**settings)
    optimizer.step(x, g)
    state = optimizer.state_dict()
    other.load_state_dict(state)
    for value in state.values():
        value[...] = 0
    assert other.step(x, g).tobytes() == optimizer.step(x, g).tobytes()


def test_the_names_of_a_state_are_those_of_pytorch():
    x = np.ones(2)
    adam, sgd, rmsprop = Adam(), SGD(0.1, momentum=0.9), RMSprop(momentum=0.9)
    assert set(adam.state_dict()) == {"lr", "betas", "eps", "weight_decay"}
    for optimizer in (adam, sgd, rmsprop):
        optimizer.step(x, x)
    assert set(adam.state_dict()) == {"lr", "betas", "eps", "weight_decay", "step", "exp_avg", "exp_avg_sq"}
    assert "momentum_buffer" in sgd.state_dict()
    assert {"square_avg", "momentum_buffer"} < set(rmsprop.state_dict())


def changed(state, **changes):
    return {name: value for name, value in (state | changes).items() if value is not None}


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"lr": None}, ValueError, r"state_dict must have the names of Adam; missing: \['lr'\], not known: none"),
        ({"step": None}, ValueError, r"missing: \['step'\]"),
        ({"momentum_buffer": np.ones(2)}, ValueError, r"missing: none, not known: \['momentum_buffer'\]"),
        ({"lr": np.array(-1.0)}, ValueError, "lr must be at least 0 and finite; got -1.0"),
        ({"lr": np.ones(2)}, TypeError, "lr must be a number"),
        ({"step": np.array(0)}, ValueError, r"state_dict\['step'\] must be an integer of at least 1; got array\(0\)"),
        ({"step": np.array(1.5)}, ValueError, "must be an integer of at least 1"),
        ({"exp_avg": [0.0, 0.0]}, TypeError, r"state_dict\['exp_avg'\] must be a NumPy array; got list"),
        ({"exp_avg": np.ones(3)}, ValueError, r"must have shape \(3,\), as the others; got \(2,\)"),
        ({"exp_avg_sq": np.ones(2, np.float32)}, TypeError, "must be float64, as the others; got float32"),
    ],
)
def test_a_state_that_is_wrong_is_refused_and_changes_nothing(changes, error, message):
    x = np.ones(2)
    adam, before = Adam(), Adam()
    adam.step(x, x), before.step(x, x)
    with pytest.raises(error, match=message):
        adam.load_state_dict(changed(adam.state_dict(), **changes))
    assert adam.step(x, x).tobytes() == before.step(x, x).tobytes()


def test_a_state_is_a_mapping():
    with pytest.raises(TypeError, match=r"state_dict must be a mapping of names to arrays; got .*Adam"):
        Adam().load_state_dict(Adam())


def in_fixed_memory(value):
    """As it comes from a pickle whose arrays nobody may write to: those of a mapped file, or of other processes."""
    buffers = []
    pickled = pickle.dumps(value, protocol=5, buffer_callback=buffers.append)
    return pickle.loads(pickled, buffers=[bytes(buffer) for buffer in buffers])


@pytest.mark.parametrize("way", [copy.copy, copy.deepcopy, in_fixed_memory])
def test_a_copy_goes_on_from_where_the_original_stood(way):
    parameters, gradients = problem(np.float64)
    adam = Adam()
    for gradient in gradients:
        parameters = adam.step(parameters, gradient)
    twin = way(adam)
    for _ in range(2):
        np.testing.assert_array_equal(twin.step(parameters, gradient), adam.step(parameters, gradient))


def test_what_is_public_belongs_to_the_module_that_people_know():
    assert {getattr(optim, name).__module__ for name in optim.__all__} == {"numba_pack.optim"}
    assert pickle.dumps(Adam, 0) == b"cnumba_pack.optim\nAdam\np0\n."


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize(("optimiser", "loop", "settings"), OPTIMISERS)
def test_a_pickle_goes_on_from_where_the_original_stood(optimiser, loop, settings, protocol):
    x, gradients = problem(np.float32, steps=3)
    optimizer = optimiser(**settings)
    for gradient in gradients:
        x = optimizer.step(x, gradient)
    twin = pickle.loads(pickle.dumps(optimizer, protocol))
    assert type(twin) is optimiser and repr(twin) == repr(optimizer)
    assert twin.step(x, gradient).tobytes() == optimizer.step(x, gradient).tobytes()


def test_a_learning_rate_may_change_between_steps():
    adam = Adam(lr=0.1)
    x, g = np.zeros(1), np.ones(1)
    x = adam.step(x, g)
    adam.lr = 0.3
    np.testing.assert_allclose(adam.step(x, g), -0.4, rtol=1e-6)


@pytest.mark.parametrize("make", [SGD, RMSprop, Adam, AdamW])
def test_a_learning_rate_of_zero_changes_nothing_but_the_moments(make):
    x, g = np.array([1.0, -2.0]), np.array([3.0, 0.5])
    still, moving = make(lr=0), make(lr=0.1)
    np.testing.assert_array_equal(still.step(x, g), x)
    moving.step(x, g)
    still.lr = 0.1
    np.testing.assert_array_equal(still.step(x, g), moving.step(x, g))


@pytest.mark.parametrize("make", [SGD, RMSprop, Adam, AdamW])
@pytest.mark.parametrize("scalar", [np.float16, np.float32])
def test_a_narrow_learning_rate_is_a_number_like_any_other(make, scalar):
    parameters, gradients = problem(np.float64, steps=3)
    plain, narrow = make(lr=float(scalar(0.1)), weight_decay=0.01), make(lr=scalar(0.1), weight_decay=0.01)
    for gradient in gradients:
        assert plain.step(parameters, gradient).tobytes() == narrow.step(parameters, gradient).tobytes()


@pytest.mark.parametrize("make", [lambda: SGD(0.1, momentum=0.9), lambda: RMSprop(momentum=0.9), Adam, AdamW])
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


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", [0, 1, 1023, 2500])
def test_the_norm_is_exact_and_clipping_in_place_gives_the_same_bits(n, dtype, form):
    gradient = np.random.default_rng(4).standard_normal(n).astype(dtype)
    exact = math.sqrt(math.fsum(float(g) ** 2 for g in gradient))
    for limit in (0.5, 1e3):
        given = FORMS[form](gradient)
        clipped, norm = clip_grad_norm(given, limit)
        assert norm == pytest.approx(exact, rel=4 * np.finfo(np.float64).eps)
        np.testing.assert_allclose(clipped, gradient * min(1, limit / (norm + 1e-6)), rtol=np.finfo(dtype).eps)
        assert given.tobytes() == gradient.tobytes()
        same, again = clip_grad_norm(given, limit, out=given)
        assert same is given and again == norm
        assert given.tobytes() == clipped.tobytes()


def test_ten_million_equal_numbers_have_the_norm_that_they_should():
    assert clip_grad_norm(np.full(10_000_000, 0.1), 1.0)[1] == pytest.approx(math.sqrt(1e5), rel=1e-13)


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
        (lambda: SGD(lr=0.1, dampening=-1), ValueError, "dampening must be at least 0 and finite; got -1"),
        (lambda: SGD(lr=0.1, momentum=0.9, nesterov=1), TypeError, "nesterov must be a bool; got 1"),
        (lambda: SGD(lr=0.1, nesterov=True), ValueError, "nesterov must come with momentum above 0 and dampening 0"),
        (lambda: SGD(0.1, 0.9, dampening=0.1, nesterov=True), ValueError, "nesterov must .* dampening=0.1"),
        (lambda: RMSprop(alpha=1.0), ValueError, "alpha must be .* below 1; got 1.0"),
        (lambda: RMSprop(momentum=-1), ValueError, "momentum must be at least 0 and finite; got -1"),
        (lambda: step_lr(-1, 0.1, 5), ValueError, "step must be at least 0 and finite; got -1"),
        (lambda: step_lr(1, 0.1, 0), ValueError, "step_size must be above 0 and finite; got 0"),
        (lambda: step_lr(1, "0.1", 5), TypeError, "lr must be a number; got '0.1'"),
        (lambda: cosine_lr(1, 0.1, 0), ValueError, "total_steps must be above 0 and finite; got 0"),
        (lambda: cosine_lr(1, 0.1, 5, -0.1), ValueError, "min_lr must be at least 0 and finite; got -0.1"),
        (lambda: one_cycle_lr(1, 0.1, 5, pct_start=1.0), ValueError, "pct_start must be .* below 1; got 1.0"),
        (lambda: one_cycle_lr(1, 0.1, 5, div_factor=0), ValueError, "div_factor must be above 0 and finite; got 0"),
        (lambda: plateau_lr([1.0], 0.1, factor=1.0), ValueError, "factor must be at least 0 and below 1; got 1.0"),
        (lambda: plateau_lr(["a"], 0.1), TypeError, r"losses must be a sequence of numbers; got \['a'\]"),
        (lambda: plateau_lr(1.0, 0.1), TypeError, "losses must be a sequence of numbers; got 1.0"),
        (lambda: clip_grad_norm(np.ones(2), -1.0), ValueError, "max_norm must be .*; got -1.0"),
        (lambda: clip_grad_norm(np.ones(2), math.nan), ValueError, "max_norm must be .*; got nan"),
        (lambda: clip_grad_norm([1.0], 1.0), TypeError, "gradient must be a NumPy array; got list"),
    ],
)
def test_wrong_settings_are_named(make, error, message):
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize(
    "optimizer", [SGD(0.1, momentum=0.9), RMSprop(), Adam(), AdamW()], ids=["sgd", "rmsprop", "adam", "adamw"]
)
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


@pytest.mark.parametrize(
    "optimizer", [SGD(0.1, momentum=0.9), RMSprop(), Adam(), AdamW()], ids=["sgd", "rmsprop", "adam", "adamw"]
)
def test_a_vector_unlike_the_one_before_is_refused_and_forgotten(optimizer):
    x, g = np.ones(2), np.ones(2)
    optimizer.step(x, g)
    before = copy.deepcopy(optimizer)
    with pytest.raises(ValueError, match=r"parameters must have shape \(2,\), as in the steps before; got \(3,\)"):
        optimizer.step(np.ones(3), np.ones(3))
    with pytest.raises(TypeError, match="parameters must be float64, as in the steps before; got float32"):
        optimizer.step(np.ones(2, np.float32), np.ones(2, np.float32))
    np.testing.assert_array_equal(optimizer.step(x, g), before.step(x, g))
