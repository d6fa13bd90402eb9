"""What a step runs: compiled passes over flat vectors, block by block; and where the result is written.

A pass runs on one thread: it waits for memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from .._arguments import check_floats
from .._jit import jit

__all__ = ["Vector", "Vectors", "as_pass", "check_like", "check_out", "given_out", "read_only", "run", "target_of"]

Vector: TypeAlias = NDArray[np.floating[Any]]
#: parameters, gradient, and where the new parameters go to
Vectors: TypeAlias = tuple[Vector, Vector, Vector | None]

#: entries; so many of each vector stay in the first cache from the copy to the update
_BLOCK = 1024


def as_pass(update: Callable[..., None]) -> Any:
    """Make a pass of what updates a block of parameters, given those of the gradient and of what is remembered.

    It updates in place: LLVM makes vector code for arrays that it finds to be apart, and the old and the new parameters
    often are not. Nothing depends on where a block starts, nor on how it is divided into vectors.
    """

    @jit
    def compiled(parameters, gradient, first, second, out, copies, settings):
        for start in range(0, len(out), _BLOCK):
            stop = min(start + _BLOCK, len(out))
            block = out[start:stop]
            if copies:
                old = parameters[start:stop]
                for i in range(len(block)):
                    block[i] = old[i]
            update(block, gradient[start:stop], first[start:stop], second[start:stop], settings)

    return compiled


def run(compiled: Any, vectors: Vectors, memory: Iterable[Vector], settings: Iterable[float]) -> Vector:
    """Run a pass, which changes what is remembered, two vectors at most; return the new parameters.

    Settings are numbers, which it gets in the dtype of the parameters, and bools.
    """
    parameters, gradient, out = vectors
    target, nothing = target_of(out, parameters, gradient), np.empty(0, parameters.dtype)
    first, second, *_ = *memory, nothing, nothing
    dtype = parameters.dtype.type
    told = tuple([one if isinstance(one, bool) else dtype(one) for one in settings])
    old, new = read_only(parameters), target.view(np.ndarray)
    compiled(old, read_only(gradient), first, second, new, target is not parameters, told)
    return given_out(target, out)


def target_of(out: Vector | None, vector: Vector, *others: Vector) -> Vector:
    """What compiled code may write to while it reads the others: `out`, which may be `vector`, or else a new vector."""
    read = others if out is vector else (vector, *others)
    if out is None or not out.flags.carray or any([np.may_share_memory(out, one) for one in read]):
        return np.empty(vector.shape, vector.dtype)
    return out


def given_out(target: Vector, out: Vector | None) -> Vector:
    """The `out` that was given, with what was written; what was written if none was."""
    if out is None or out is target:
        return target
    out[...] = target
    return out


def read_only(vector: Vector) -> Vector:
    """A vector in the one form that is compiled for: contiguous, and not for writing."""
    if not (vector.flags.c_contiguous and vector.flags.aligned):
        vector = vector.copy()
    vector = vector.view(np.ndarray)
    vector.flags.writeable = False
    return vector


def check_like(name: str, vector: Vector, like: Vector, whose: str) -> None:
    """Check for a vector of the length and the dtype of another."""
    check_floats(name, vector, ndim=1)
    if vector.dtype != like.dtype:
        raise TypeError(f"{name} must be {like.dtype}, {whose}; got {vector.dtype}")
    if vector.shape != like.shape:
        raise ValueError(f"{name} must have shape {like.shape}, {whose}; got {vector.shape}")


def check_out(out: Vector | None, like: Vector, whose: str) -> None:
    """Check for what a result like another vector can be written to, if it is given."""
    if out is None:
        return
    check_like("out", out, like, whose)
    if not out.flags.writeable:
        raise ValueError("out must be an array that can be written to; got one that is read-only")
