"""The optimisers against PyTorch's."""

import numpy as np
import pytest

from numba_pack.optim import SGD, Adam, AdamW, clip_grad_norm

torch = pytest.importorskip("torch", reason="PyTorch is the reference here; test_optim.py does without it")

STEPS = 50
PAIRS = [
    pytest.param(SGD, torch.optim.SGD, {"lr": 0.1}, id="sgd"),
    pytest.param(SGD, torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.05}, id="sgd-momentum-decay"),
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
