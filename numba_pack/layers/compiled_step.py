"""One step of a layer inside compiled code: `step`, with what a `Stepper` gives."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import types
from numba.core.errors import TypingError

from .._jit import inner, jit, overload
from ..cells.parameters import WeightsType
from ..cpu.kernels import call_inference
from ..cpu.table import forward_entry
from ..packing.checks import OUTSIDE, ArgumentError, outside
from .compiled_types import _class_of, _is_array, by_type, check_types
from .compiled_values import _check_axis, _plain

__all__ = ["CompiledStepper", "step"]


class CompiledStepper(NamedTuple):
    """A `Stepper` in compiled code. Both share the state: either goes on from where the other has left it.

    It has the parameters of when it was taken: take it again when others were assigned. It may be used by one thread at
    a time.
    """

    weights: Any
    #: of a batch of one step
    batch_sizes: np.ndarray
    order: np.ndarray
    #: (2, L, B, P) the states h, and (2, S - 1, L, B, H) the others, of which those of ``turn`` (1,) hold
    h: np.ndarray
    others: np.ndarray
    #: (B, P) the output of the last step
    output: np.ndarray
    turn: np.ndarray


def step(stepper: CompiledStepper, input: np.ndarray) -> np.ndarray:
    """Go on by one step inside compiled code.

    Parameters
    ----------
    stepper : CompiledStepper
        ``layer.stepper(batch).compiled``, an argument of the compiled function.
    input : ndarray, shape (B, I), or symbols (B,)
        In the dtype of the layer.

    Returns
    -------
    ndarray, shape (B, P)
        The output, in memory that the next step writes to.

    Raises
    ------
    ValueError
        If a shape or a symbol is wrong; wrong kinds and dtypes are a TypingError of the calling function.

    See Also
    --------
    Stepper : the same from Python.

    Examples
    --------
    >>> import numba, numpy as np
    >>> import numba_pack as nbp
    >>> @numba.njit
    ... def total(stepper, rows):
    ...     found = 0.0
    ...     for row in rows:
    ...         found += nbp.step(stepper, row).sum()
    ...     return found
    >>> stepper = nbp.GRU(3, 2, rng=0).stepper()
    >>> bool(np.isfinite(total(stepper.compiled, np.ones((5, 1, 3), np.float32))))
    True
    """
    check_types(_check, stepper=stepper, input=input)
    found: np.ndarray = _entry(stepper, input)
    return found


def _check(stepper, input):
    if getattr(stepper, "instance_class", None) is not CompiledStepper:
        raise TypingError(f"stepper must be what stepper.compiled gives; got {_class_of(stepper, CompiledStepper)}")
    weights, sizes, order, h, others, output, turn = stepper
    if not isinstance(weights, WeightsType):
        raise TypingError(f"stepper.weights must be the weights of its layer; got {_class_of(weights)}")
    dtype = weights[0].dtype
    arrays = [(h, dtype, 4), (others, dtype, 5), (output, dtype, 2)]
    arrays += [(each, types.int64, 1) for each in (sizes, order, turn)]
    for array, of, axes in arrays:
        if not _is_array(array, of, axes) or array.layout != "C" or not array.mutable:
            raise TypingError(
                "stepper must be an argument of the compiled function, as stepper.compiled gives it, and no global "
                f"variable; got one with {array}"
            )
    symbols = isinstance(input, types.Array) and input.ndim == 1 and isinstance(input.dtype, types.Integer)
    if not symbols and not _is_array(input, dtype, 2):
        raise TypingError(f"input must be a {dtype} array (B, input_size) or symbols, integers (B,); got {input}")


@by_type
def _rows(input, weights):
    """The input as the kernels take it."""

    def rows(input, weights):
        _check_axis("input", ".shape[1] must be the input size: expected", input.shape[1], weights.input_size)
        return _plain(input)

    def symbols(input, weights):
        copy = input.astype(np.int64)
        at = outside(copy, weights.input_size)
        if at >= 0:
            raise ArgumentError("input", OUTSIDE, input[at], weights.input_size, at)
        return copy

    return rows if input.ndim == 2 else symbols


@inner
def _step(stepper, input):
    weights, sizes, order, h, others, output, turn = stepper
    B = order.size
    _check_axis("input", ".shape[0] must be the batch of the stepper: expected", input.shape[0], B)
    data, now = _rows(input, weights), turn[0] & 1
    call_inference(
        forward_entry(weights), weights.parameters, weights.panels, weights.sizes, data, sizes, order, h[now],
        others[now], True, 0, B, output, 0, h[1 - now], others[1 - now],
    )  # fmt: skip
    turn[0] = 1 - now
    return output


@jit
def _entry(stepper, input):
    return _step(stepper, input)


@overload(step)
def _step_in_njit(stepper, input):
    _check(stepper, input)
    return lambda stepper, input: _step(stepper, input)
