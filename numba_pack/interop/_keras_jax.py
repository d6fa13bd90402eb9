"""Keras's loop on the jax backend: run here, from compiled functions by a callback, and by Keras for a derivative."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from ._keras_accelerate import Call, Loop

__all__ = ["is_worth_a_callback", "run"]


def run(loop: Loop, call: Call, x: Any, mask: Any, states: list[Any], weights: list[Any]) -> Any:
    """The last output, all outputs, and the last states; None where Keras runs it."""
    given = [one for one in (x, *states, *weights) if one is not None]
    if len({one.dtype for one in given}) > 1:
        return None
    if not any(isinstance(one, jax.core.Tracer) for one in (*given, mask)):
        if any(device.platform != "cpu" for one in given for device in one.devices()):
            return None
        return tuple(map(jax.numpy.asarray, _here(loop, call, x, mask, states, weights)))
    if jax.default_backend() != "cpu" or not is_worth_a_callback(x.shape, mask is not None, weights):
        return None
    return _traced(loop, call)(x, mask, states, weights)


def is_worth_a_callback(shape: tuple[int, ...], masked: bool, weights: list[Any]) -> bool:
    """Whether a layer of these weights is so large that it gains more than the way from compiled code to Python costs.

    As measured: of small products XLA's own loop is as quick, and a mask saves steps only here.
    """
    factors = sum(one.size for one in weights if one is not None and one.ndim == 2)
    return factors >= (2**17 if masked else 2**19) and factors * shape[0] * shape[1] >= 1.5e8


def _here(loop: Loop, call: Call, x: Any, mask: Any, states: Any, weights: Any) -> list[np.ndarray]:
    x, mask, states, weights = jax.tree.map(np.asarray, (x, mask, list(states), list(weights)))
    return loop.here(call, x, mask, states, weights)


def _traced(loop: Loop, call: Call) -> Any:
    """The loop as a function that can be compiled and differentiated."""

    @jax.custom_jvp
    def scan(x: Any, mask: Any, states: Any, weights: Any) -> Any:
        B, T = x.shape[:2]
        H = states[-1].shape[-1]
        shapes = [(B, H), (B, T if call.sequences else 1, H), *(one.shape for one in states)]
        results = [jax.ShapeDtypeStruct(shape, x.dtype) for shape in shapes]

        def here(*arrays: Any) -> Any:
            return _here(loop, call, *arrays)

        return jax.pure_callback(here, results, x, mask, states, weights, vmap_method="sequential")

    @scan.defjvp
    def of_keras(primals: Any, tangents: Any) -> Any:
        return jax.jvp(lambda *arrays: list(loop.own_flat(*arrays)), primals, tangents)

    return scan
