"""Keras's loop on the jax backend: run here, out of compiled functions too, and by Keras for a derivative."""

from __future__ import annotations

import secrets
from functools import cache
from typing import Any
from weakref import WeakValueDictionary

import jax
import numpy as np

from ..simd.machine import MACHINE
from . import _keras_xla
from ._keras_accelerate import Call, Loop

__all__ = ["is_worth_a_call", "run"]

_TARGET = "numba_pack_keras_loop"
#: µs that are gained by each step, by each product of a weight, and by each if there is a mask, which saves steps here
GAINS = {"SimpleRNN": (0.15, 0.7e-6, 1.5e-6), "GRU": (0.45, 6e-6, 3e-6), "LSTM": (0.6, 0.5e-6, 3e-6)}
#: the second of an LSTM with so many weights or, where vectors have 64 bytes, of one sequence, all read at each step
LARGE_LSTM, OUT_OF_CACHE = 8e-6, 2**19
#: µs that a call costs, and one with a mask
CALL, MASKED_CALL = 45.0 if MACHINE.register_bytes == 64 else 90.0, 170.0


def run(loop: Loop, call: Call, x: Any, mask: Any, states: list[Any], weights: list[Any]) -> Any:
    """The last output, all outputs, and the last states; None where Keras runs it."""
    given = [one for one in (x, *states, *weights) if one is not None]
    if len({one.dtype for one in given}) > 1:
        return None
    if not any(isinstance(one, jax.core.Tracer) for one in (*given, mask)):
        if any(device.platform != "cpu" for one in given for device in one.devices()):
            return None
        marks = _Arrays(weights)
        x, mask, states, weights = jax.tree.map(np.asarray, (x, mask, states, weights))
        return tuple(map(jax.numpy.asarray, loop.here(call, x, mask, states, weights, marks)))
    B, T = x.shape[:2]
    size = sum(one.size for one in weights if one is not None and one.ndim == 2)
    if jax.default_backend() != "cpu" or not is_worth_a_call(loop.told[0].kind, T, B, size, mask is not None):
        return None
    return _traced(loop, call)(x, mask, states, weights) if _registered() else None


def is_worth_a_call(kind: str, T: int, B: int, weights: int, masked: bool) -> bool:
    """Whether a layer with so many weights gains more than the way from compiled code to Python costs.

    As measured by bench/compare/keras_accelerate.py: XLA's own loop is as quick where steps are few and products small.
    """
    step, product, masked_product = GAINS[kind]
    if kind == "LSTM" and (weights >= OUT_OF_CACHE or (B == 1 and MACHINE.register_bytes == 64)):
        product = LARGE_LSTM
    return T * step + T * B * weights * (masked_product if masked else product) > (MASKED_CALL if masked else CALL)


# -- whether weights have changed --------------------------------------------------------------------------------------


class _Arrays:
    """Marks of weights in jax's arrays: these themselves, since they never change."""

    def __init__(self, arrays: list[Any]) -> None:
        self.arrays = [one for one in arrays if one is not None]

    def are(self, kept: list[Any] | None) -> bool:
        return kept is not None and all(one is other for one, other in zip(self.arrays, kept, strict=True))

    def kept(self, before: list[Any] | None) -> list[Any] | None:
        return self.arrays


class _Addresses:
    """Marks of weights in the memory of jax's arrays: the values of Keras's variables, if it is theirs."""

    def __init__(self, loop: Loop, weights: list[np.ndarray | None]) -> None:
        self.loop = loop
        self.addresses = [one.ctypes.data for one in weights if one is not None]

    def are(self, kept: list[Any] | None) -> bool:
        return kept is not None and all(map(_is_at, kept, self.addresses))

    def kept(self, before: list[Any] | None) -> list[Any] | None:
        # not `value`, which makes one where Keras has put them aside, as `predict` does
        values = [getattr(one, "_value", None) for one in self.loop.variables() if one is not None]
        return values if all(map(_is_at, values, self.addresses)) else None


def _is_at(value: Any, address: int) -> bool:
    """Whether it is an array of jax in this memory, and there already: nothing is waited for."""
    is_array = isinstance(value, jax.Array) and not isinstance(value, jax.core.Tracer)
    return is_array and not value.is_deleted() and value.is_ready() and value.unsafe_buffer_pointer() == address


# -- in compiled functions ---------------------------------------------------------------------------------------------

#: what compiled functions call, by number; each loop lives as long as what jax has traced of it
_calls: WeakValueDictionary[int, _Compiled] = WeakValueDictionary()


@cache
def _registered() -> bool:
    return _keras_xla.register(_TARGET, _called)


def _called(number: int, given: list[np.ndarray], results: list[np.ndarray]) -> None:
    found = _calls.get(number)
    if found is None:
        raise RuntimeError("what this function was compiled from is gone: compile it anew")
    found(given, results)


class _Compiled:
    """A loop as a compiled function calls it."""

    def __init__(self, loop: Loop, call: Call, tree: Any) -> None:
        self.loop, self.call, self.tree = loop, call, tree

    def __call__(self, given: list[np.ndarray], results: list[np.ndarray]) -> None:
        x, mask, states, weights = jax.tree.unflatten(self.tree, given)
        marks = _Addresses(self.loop, weights)
        for result, found in zip(results, self.loop.here(self.call, x, mask, states, weights, marks), strict=True):
            result[...] = found


def _traced(loop: Loop, call: Call) -> Any:
    """The loop as a function that can be compiled and differentiated."""
    compiled: list[_Compiled] = []

    @jax.custom_jvp
    def scan(x: Any, mask: Any, states: Any, weights: Any) -> Any:
        B, T = x.shape[:2]
        H = states[-1].shape[-1]
        shapes = [(B, H), (B, T if call.sequences else 1, H), *(one.shape for one in states)]
        results = [jax.ShapeDtypeStruct(shape, x.dtype) for shape in shapes]
        arrays, tree = jax.tree.flatten((x, None if mask is None else mask.astype(bool), states, weights))
        compiled.append(_Compiled(loop, call, tree))
        number = secrets.randbits(62)  # unlike any in the cache that jax keeps on disk
        _calls[number] = compiled[-1]
        return jax.ffi.ffi_call(_TARGET, results, vmap_method="sequential")(*arrays, number=np.int64(number))

    @scan.defjvp
    def of_keras(primals: Any, tangents: Any, keep_alive: Any = compiled) -> Any:
        return jax.jvp(lambda *arrays: list(loop.own_flat(*arrays)), primals, tangents)

    return scan
