"""Schedules: the learning rate as a function of the step, or of the losses so far."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._arguments import check_number

__all__ = ["cosine_lr", "one_cycle_lr", "plateau_lr", "step_lr"]


def step_lr(step: float, lr: float, step_size: float, gamma: float = 0.1) -> float:
    """The learning rate at a step, multiplied by `gamma` after each `step_size` steps.

    As PyTorch's ``StepLR``. A step of this and of the other schedules is whatever they are asked for after: a batch or
    an epoch.

    Parameters
    ----------
    step : float
        How many have been taken, at least 0.
    lr : float
        The learning rate at first, at least 0.
    step_size : float
        Above 0.
    gamma : float
        At least 0.

    Raises
    ------
    TypeError, ValueError
        Where one of them is not a number, or not in its range.

    Examples
    --------
    >>> from numba_pack.optim import step_lr
    >>> [step_lr(step, lr=1.0, step_size=2, gamma=0.5) for step in range(6)]
    [1.0, 1.0, 0.5, 0.5, 0.25, 0.25]
    """
    check_number("step", step)
    check_number("lr", lr)
    check_number("step_size", step_size, above=0.0)
    check_number("gamma", gamma)
    return float(lr) * float(gamma) ** (float(step) // float(step_size))


def cosine_lr(step: float, lr: float, total_steps: float, min_lr: float = 0.0) -> float:
    """The learning rate at a step, on half a wave of the cosine from `lr` down to `min_lr`, where it stays.

    As PyTorch's ``CosineAnnealingLR``, which goes up again after `total_steps`.

    Parameters
    ----------
    step : float
        How many have been taken, at least 0.
    lr : float
        The learning rate at first, at least 0.
    total_steps : float
        When it is `min_lr`; above 0.
    min_lr : float
        At least 0.

    Raises
    ------
    TypeError, ValueError
        Where one of them is not a number, or not in its range.

    Examples
    --------
    >>> from numba_pack.optim import cosine_lr
    >>> [round(cosine_lr(step, lr=1.0, total_steps=4), 3) for step in range(6)]
    [1.0, 0.854, 0.5, 0.146, 0.0, 0.0]
    """
    check_number("step", step)
    check_number("lr", lr)
    check_number("total_steps", total_steps, above=0.0)
    check_number("min_lr", min_lr)
    return _cosine(float(lr), float(min_lr), min(float(step) / float(total_steps), 1.0))


def one_cycle_lr(
    step: float,
    max_lr: float,
    total_steps: float,
    pct_start: float = 0.3,
    div_factor: float = 25.0,
    final_div_factor: float = 1e4,
) -> float:
    """The learning rate at a step, up to `max_lr` and down to nearly 0, each on half a wave of the cosine.

    As PyTorch's ``OneCycleLR`` [1]_, whose last step is ``total_steps - 1``; what comes then stays there.

    Parameters
    ----------
    step : float
        How many have been taken, at least 0.
    max_lr : float
        The learning rate at its highest, at least 0.
    total_steps : float
        At least 1.
    pct_start : float
        Which part of the steps goes up, in [0, 1).
    div_factor : float
        The first learning rate is ``max_lr / div_factor``; above 0.
    final_div_factor : float
        The last one is the first divided by this; above 0.

    Raises
    ------
    TypeError, ValueError
        Where one of them is not a number, or not in its range.

    References
    ----------
    .. [1] L. N. Smith and N. Topin, "Super-convergence: very fast training of neural networks using large learning
       rates", 2019.

    Examples
    --------
    >>> from numba_pack.optim import one_cycle_lr
    >>> [round(one_cycle_lr(step, max_lr=1.0, total_steps=10), 3) for step in range(0, 10, 3)]
    [0.04, 0.95, 0.389, 0.0]
    """
    check_number("step", step)
    check_number("max_lr", max_lr)
    check_number("total_steps", total_steps, above=0.0)
    check_number("pct_start", pct_start, below=1.0)
    check_number("div_factor", div_factor, above=0.0)
    check_number("final_div_factor", final_div_factor, above=0.0)
    step, first = float(step), float(max_lr) / float(div_factor)
    highest, last = float(pct_start) * float(total_steps) - 1, float(total_steps) - 1
    if step < highest:
        return _cosine(first, float(max_lr), step / highest)
    return _cosine(float(max_lr), first / float(final_div_factor), min((step - highest) / (last - highest), 1.0))


def plateau_lr(
    losses: Sequence[float] | NDArray[Any],
    lr: float,
    factor: float = 0.1,
    patience: float = 10,
    threshold: float = 1e-4,
    min_lr: float = 0.0,
) -> float:
    """The learning rate after some losses, reduced whenever they stop to fall.

    As PyTorch's ``ReduceLROnPlateau``: multiplied by `factor` once more than `patience` losses in a row were no better
    than the best.

    Parameters
    ----------
    losses : sequence of float
        All since the beginning, the last one at the end. NaN is no better.
    lr : float
        The learning rate at first, at least 0.
    factor : float
        In [0, 1).
    patience : float
        At least 0.
    threshold : float
        A loss is better below ``(1 - threshold)`` times the best; in [0, 1).
    min_lr : float
        What it is not reduced below, at least 0.

    Raises
    ------
    TypeError, ValueError
        Where one of them is not a number, or not in its range.

    Examples
    --------
    >>> from numba_pack.optim import plateau_lr
    >>> losses = [3.0, 2.0, 2.5, 2.1, 1.9]
    >>> [plateau_lr(losses[:epoch], lr=1.0, factor=0.5, patience=1) for epoch in range(6)]
    [1.0, 1.0, 1.0, 1.0, 0.5, 0.5]
    """
    history = np.asarray(losses)
    if history.dtype.kind not in "fiu" or history.ndim != 1:
        raise TypeError(f"losses must be a sequence of numbers; got {losses!r}")
    check_number("lr", lr)
    check_number("factor", factor, below=1.0)
    check_number("patience", patience)
    check_number("threshold", threshold, below=1.0)
    check_number("min_lr", min_lr)
    lr, best, worse = float(lr), math.inf, 0
    for loss in history.tolist():
        if loss < best * (1 - float(threshold)):
            best, worse = loss, 0
        else:
            worse += 1
        if worse > patience:
            lr, worse = min(lr, max(lr * float(factor), float(min_lr))), 0
    return lr


def _cosine(start: float, end: float, part: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * part)) / 2
