"""The optimisers, clipping and the schedules against PyTorch's."""

import math
from functools import partial

import numpy as np
import pytest

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

torch = pytest.importorskip("torch", reason="PyTorch is the reference here; test_optim.py does without it")

STEPS = 50
PAIRS = [
    pytest.param(SGD, torch.optim.SGD, {"lr": 0.1}, id="sgd"),
    pytest.param(SGD, torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.05}, id="sgd-momentum-decay"),
    pytest.param(SGD, torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "dampening": 0.5}, id="sgd-dampening"),
    pytest.param(SGD, torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "nesterov": True}, id="sgd-nesterov"),
    pytest.param(RMSprop, torch.optim.RMSprop, {}, id="rmsprop-defaults"),
    pytest.param(RMSprop, torch.optim.RMSprop, {"alpha": 0.9, "eps": 1e-3, "weight_decay": 0.1}, id="rmsprop-decay"),
    pytest.param(RMSprop, torch.optim.RMSprop, {"lr": 0.01, "momentum": 0.5}, id="rmsprop-momentum"),
    pytest.param(Adam, torch.optim.Adam, {}, id="adam-defaults"),
    pytest.param(Adam, torch.optim.Adam, {"lr": 0.05, "betas": (0.5, 0.9), "weight_decay": 0.1}, id="adam-decay"),
    pytest.param(AdamW, torch.optim.AdamW, {}, id="adamw-defaults"),
    pytest.param(AdamW, torch.optim.AdamW, {"lr": 0.05, "eps": 1e-3, "weight_decay": 0.5}, id="adamw-strong-decay"),
]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("ours", "theirs", "settings"), PAIRS)
def test_steps_equal_those_of_pytorch(ours, theirs, settings, dtype):
    rng = np.random.default_rng(5)
    start, gradients = rng.standard_normal(100).astype(dtype), rng.standard_normal((STEPS, 100)).astype(dtype)

    parameters, optimizer = start, ours(**settings)
    for gradient in gradients:
        parameters = optimizer.step(parameters, gradient)

    expected = torch.tensor(start, requires_grad=True)
    torch_optimizer = theirs([expected], **settings)
    for gradient in gradients:
        expected.grad = torch.tensor(gradient)
        torch_optimizer.step()

    # Some ten roundings a step on either side; with momentum 0.9 an error lives on in ten later steps.
    scale = np.abs(gradients).max() + np.abs(start).max()
    atol = 20 * STEPS * np.finfo(dtype).eps * scale
    np.testing.assert_allclose(parameters, expected.detach().numpy(), rtol=0, atol=atol)


@pytest.mark.parametrize("max_norm", [0.5, 100.0])
def test_clipping_equals_that_of_pytorch(max_norm):
    gradient = np.random.default_rng(6).standard_normal(1000)
    parameter = torch.zeros(1000, dtype=torch.float64)
    parameter.grad = torch.tensor(gradient)
    expected_norm = torch.nn.utils.clip_grad_norm_([parameter], max_norm)
    clipped, norm = clip_grad_norm(gradient, max_norm)
    eps = np.finfo(np.float64).eps
    np.testing.assert_allclose(norm, expected_norm.item(), rtol=len(gradient) * eps)
    np.testing.assert_allclose(clipped, parameter.grad.numpy(), rtol=len(gradient) * eps)


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("max_norm", [0.0, 1.0, math.inf])
def test_what_clipping_makes_of_a_norm_that_is_not_finite_is_what_pytorch_makes(max_norm, wrong):
    gradient = np.array([1.0, wrong, -2.0])
    parameter = torch.zeros(3, dtype=torch.float64)
    parameter.grad = torch.tensor(gradient)
    expected_norm = torch.nn.utils.clip_grad_norm_([parameter], max_norm)
    clipped, norm = clip_grad_norm(gradient, max_norm)
    np.testing.assert_array_equal(norm, expected_norm.item())
    np.testing.assert_array_equal(clipped, parameter.grad.numpy())


@pytest.mark.parametrize(("ours", "theirs", "settings"), PAIRS)
def test_an_infinite_or_missing_gradient_does_what_it_does_in_pytorch(ours, theirs, settings):
    start, gradient = np.ones(4), np.array([math.inf, -math.inf, math.nan, 0.0])
    parameters, optimizer = start, ours(**settings)
    expected = torch.tensor(start, requires_grad=True)
    expected.grad = torch.tensor(gradient)
    torch_optimizer = theirs([expected], **settings)
    for _ in range(2):
        parameters = optimizer.step(parameters, gradient)
        torch_optimizer.step()
    np.testing.assert_allclose(parameters, expected.detach().numpy(), rtol=1e-12)


def rates_of_pytorch(make, lr, steps, losses=None):
    """The learning rate before each of some steps."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr)
    schedule, found = make(optimizer), []
    for step in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if step < steps - 1:
            schedule.step(*() if losses is None else (losses[step],))
    return found


@pytest.mark.parametrize("step_size", [1, 3, 100])
def test_step_lr_is_that_of_pytorch(step_size):
    expected = rates_of_pytorch(lambda o: torch.optim.lr_scheduler.StepLR(o, step_size, 0.3), 0.5, 20)
    np.testing.assert_allclose([step_lr(t, 0.5, step_size, 0.3) for t in range(20)], expected, rtol=1e-12)


@pytest.mark.parametrize("min_lr", [0.0, 0.01])
def test_cosine_lr_is_that_of_pytorch(min_lr):
    expected = rates_of_pytorch(lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 20, min_lr), 0.5, 21)
    np.testing.assert_allclose([cosine_lr(t, 0.5, 20, min_lr) for t in range(21)], expected, rtol=1e-9, atol=1e-15)
    assert cosine_lr(35, 0.5, 20, min_lr) == min_lr


@pytest.mark.parametrize("steps", [2, 7, 100])
@pytest.mark.parametrize(
    "settings", [{}, {"pct_start": 0.0}, {"pct_start": 0.75, "div_factor": 3, "final_div_factor": 50}]
)
def test_one_cycle_lr_is_that_of_pytorch(steps, settings):
    made = partial(torch.optim.lr_scheduler.OneCycleLR, max_lr=0.5, total_steps=steps, cycle_momentum=False, **settings)
    expected = rates_of_pytorch(made, 0.1, steps)
    np.testing.assert_allclose([one_cycle_lr(t, 0.5, steps, **settings) for t in range(steps)], expected, rtol=1e-9)
    assert one_cycle_lr(2 * steps, 0.5, steps, **settings) == one_cycle_lr(steps - 1, 0.5, steps, **settings)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    "settings", [{}, {"patience": 0, "factor": 0.5}, {"patience": 2, "threshold": 0.1, "min_lr": 0.02}]
)
def test_plateau_lr_is_that_of_pytorch(settings, seed):
    rng = np.random.default_rng(seed)
    losses = np.exp(-0.1 * np.arange(120)) + 0.3 * rng.random(120)
    losses[[5, 30]] = math.nan, math.inf
    made = partial(torch.optim.lr_scheduler.ReduceLROnPlateau, eps=0, **settings)
    expected = rates_of_pytorch(made, 0.5, 120, losses)
    assert len(set(expected)) > 1
    np.testing.assert_allclose([plateau_lr(losses[:t], 0.5, **settings) for t in range(120)], expected, rtol=1e-12)
