"""The layers inside compiled code: `run`, of any cell, and the forward and backward pass of its training.

`rnn`, `lstm` and `gru` are the same for one cell. They take ``layer.weights`` in place of the layer, and run serially
on the CPU, whatever backend was chosen. What `run` is called with in a user's ``@njit`` function is typed when that
function is compiled, so wrong kinds and dtypes are a TypingError then (``compiled_types.py``); wrong shapes and values
are a ValueError when it runs (``compiled_values.py``).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .._jit import inner, jit, overload
from ..batch import Record
from ..cells.parameters import GRUWeights, LSTMWeights, RNNReluWeights, RNNTanhWeights, layout
from ..cpu.factors import factors_of
from ..cpu.kernels import call_backward, call_forward, call_gradients, call_inference
from ..cpu.packer import back_packer_entry, pack_all_back
from ..cpu.panels import back_panels_size
from ..cpu.scan_back import in_one_span
from ..cpu.shapes import back_shapes, record_shapes, result_shapes
from ..cpu.table import backward_entry, forward_entry, gradients_entry
from ..simd.memory import aligned
from .compiled_types import (
    CompiledGradients,
    CompiledTape,
    check_types,
    typed_call,
    typed_gradient,
    typed_state,
    typed_tape,
    typed_training,
)
from .compiled_values import as_gradient, as_state, batch_of, check_tape, rows_of, states_of, with_rows

__all__ = [
    "CompiledGradients",
    "CompiledTape",
    "gru",
    "gru_backward",
    "gru_forward",
    "lstm",
    "lstm_backward",
    "lstm_forward",
    "rnn",
    "rnn_backward",
    "rnn_forward",
    "run",
    "run_backward",
    "run_forward",
]


# -- the passes --------------------------------------------------------------------------------------------------------


@inner
def _results(packed, weights):
    dtype = weights.parameters.dtype
    out, h_n, others_n, _ = result_shapes(weights, len(packed.data), len(packed.sorted_indices))
    return np.empty(out, dtype), np.empty(h_n, dtype), np.empty(others_n, dtype)


@inner
def _infer(packed, weights, hx):
    packed, B = batch_of(packed, weights), len(packed.sorted_indices)
    states = states_of(hx, weights, "hx", B)
    out, h_n, others_n = _results(packed, weights)
    call_inference(
        forward_entry(weights), weights.parameters, weights.panels, weights.sizes, packed.data, packed.batch_sizes,
        packed.sorted_indices, states.h, states.others, states.given, 0, B, out, 0, h_n, others_n,
    )  # fmt: skip
    return with_rows(packed, out), as_state(weights, h_n, others_n)


@inner
def _record(packed, weights, hx):
    packed, B = batch_of(packed, weights), len(packed.sorted_indices)
    states = states_of(hx, weights, "hx", B)
    out, h_n, others_n = _results(packed, weights)
    gates, cells, outputs, unprojected = record_shapes(weights, len(packed.data))
    record = Record(
        np.empty(gates, out.dtype), np.empty(cells, out.dtype), np.empty(outputs, out.dtype),
        np.empty(unprojected, out.dtype),
    )  # fmt: skip
    call_forward(
        forward_entry(weights), weights.parameters, weights.panels, weights.sizes, packed.data, packed.batch_sizes,
        packed.sorted_indices, 0, states.h, states.others, states.given, np.empty(0, np.int64), record.gates,
        record.cells, record.outputs, record.unprojected, 0, B, out, 0, h_n, others_n,
    )  # fmt: skip
    tape = CompiledTape(weights, packed, states, record, out, np.zeros(1, np.bool_))
    return with_rows(packed, out.copy()), as_state(weights, h_n, others_n), tape


@inner
def _replay_back(tape, d_output, d_state):
    check_tape(tape)
    weights, packed, states, record, out, used = tape
    N, B, dtype = len(packed.data), len(packed.sorted_indices), out.dtype
    d_states = states_of(d_state, weights, "d_state", B)
    rows = rows_of(d_output, out)
    used[0] = True  # all arguments are right
    input_grad = packed.data.ndim == 2  # symbols have none
    of_between, of_x, of_h, of_others, of_projected, of_units = back_shapes(weights, N, B, input_grad)
    d_between, d_projected, d_units = (
        np.empty(of_between, dtype),
        np.empty(of_projected, dtype),
        np.zeros(of_units, dtype),
    )
    d_x, d_h, d_others = np.empty(of_x, dtype), np.empty(of_h, dtype), np.empty(of_others, dtype)
    factors, numbers = factors_of(weights), layout(weights)
    panels = aligned(dtype, back_panels_size(factors, numbers))
    pack_all_back(back_packer_entry(factors), weights.parameters, numbers, panels, panels.size, input_grad)
    no_dropout, gradient = np.empty(0, np.int64), np.zeros(weights.parameters.size, dtype)
    of_span = gradient if in_one_span(N) else np.zeros_like(gradient)
    call_backward(
        backward_entry(weights), weights.parameters, weights.panels, weights.sizes, packed.data, packed.batch_sizes,
        packed.sorted_indices, 0, states.h, states.others, states.given, no_dropout, record.gates, record.cells,
        record.outputs, record.unprojected, out, 0, 0, B, panels, rows, d_states.h, d_states.others, d_states.given,
        d_between, input_grad, d_x, d_h, d_others, d_projected, d_units,
    )  # fmt: skip
    call_gradients(
        gradients_entry(weights), weights.parameters, weights.panels, weights.sizes, packed.data, packed.batch_sizes,
        packed.sorted_indices, 0, states.h, states.others, states.given, no_dropout, record.gates, record.cells,
        record.outputs, record.unprojected, out, 0, d_projected, d_units, True, gradient, of_span, 0, 0, 1,
    )  # fmt: skip
    if not in_one_span(N):
        gradient += of_span
    return CompiledGradients(as_gradient(packed, d_x), as_state(weights, d_h, d_others), gradient)


# -- the public functions ----------------------------------------------------------------------------------------------


@jit
def _infer_entry(packed, weights, hx):
    return _infer(packed, weights, hx)


@jit
def _record_entry(packed, weights, hx):
    return _record(packed, weights, hx)


@jit
def _back_entry(tape, d_output, d_state):
    return _replay_back(tape, d_output, d_state)


_DOC = {
    "infer": """Run {what} inside compiled code.

    Parameters
    ----------
    packed : PackedSequence
        Data of shape (N, I), in the dtype of the weights; or symbols (N,), integers that stand for one-hot rows.
    weights : {kinds}
        ``layer.weights``.
    hx : {state}, optional
        The initial state, h of shape (L * D, B, P){c}. Zeros if omitted.

    Returns
    -------
    output : PackedSequence
        Data of shape (N, D * P).
    state : {state}
        The state of each sequence after its last step.

    Raises
    ------
    ValueError
        If a shape or a symbol is wrong or the batch is none; wrong kinds and dtypes are a TypingError of the calling
        function.

    See Also
    --------
    {layer} : the layer, with the equations.

    Examples
    --------
    >>> import numba, numpy as np
    >>> import numba_pack as nbp
    >>> @numba.njit
    ... def total(values, offsets, weights):
    ...     output, state = nbp.{function}(nbp.pack_ragged(values, offsets), weights)
    ...     return output.data.sum()
    >>> layer = nbp.{layer}(3, 2, rng=0)
    >>> bool(np.isfinite(total(np.ones((5, 3), np.float32), np.array([0, 2, 5]), layer.weights)))
    True
    """,
    "record": """Run {what} inside compiled code and keep what `{function}_backward` needs. There is no dropout.

    Parameters
    ----------
    packed, weights, hx
        As for `{function}`.

    Returns
    -------
    output, state
        As from `{function}`.
    tape : CompiledTape
        For one call of `{function}_backward`.

    Raises
    ------
    ValueError
        As for `{function}`.
    """,
    "back": """Differentiate a call of `{function}_forward` inside compiled code.

    Parameters
    ----------
    tape : CompiledTape
        From that call. It is used up.
    d_output : PackedSequence, ndarray of shape (N, D * P), or None
        The gradient of the loss with respect to the output; None for zero.
    d_state : {state}, optional
        The gradient with respect to the last state. Zeros if omitted.

    Returns
    -------
    CompiledGradients
        With respect to the input, the initial state, and the parameters.

    Raises
    ------
    ValueError
        If the tape was used before or a shape is wrong; wrong kinds and dtypes are a TypingError of the calling
        function.
    """,
}


#: the classes of weights that a function takes; all, if there are none
_KINDS: dict[str, tuple[Any, ...]] = {
    "run": (), "rnn": (RNNTanhWeights, RNNReluWeights), "lstm": (LSTMWeights,), "gru": (GRUWeights,),
}  # fmt: skip


def _named(function, name, which, template):
    """Give a made function its name and docstring."""
    function.__name__ = function.__qualname__ = name
    states = {"run": "ndarray, or tuple of one for each state", "lstm": "tuple of two ndarrays"}
    others = {"run": " and the other states of shape (L * D, B, H)", "lstm": " and c of shape (L * D, B, H)"}
    function.__doc__ = _DOC[template].format(
        function=which,
        what="a layer of any cell" if which == "run" else f"{'a' if which == 'gru' else 'an'} {which.upper()}",
        layer="GRU" if which == "run" else which.upper(),
        kinds=" or ".join(kind.__name__ for kind in _KINDS[which]) or "named tuple",
        state=states.get(which, "ndarray"),
        c=others.get(which, ""),
    )
    return function


def _passes(which):
    """The three functions of one kind of layer: inference, and the two of training."""
    kinds = _KINDS[which]

    def check_forward(packed, weights, hx):
        typed_call(which, kinds, packed, weights)
        typed_state(hx, "hx", weights)

    def check_record(packed, weights, hx):
        check_forward(packed, weights, hx)
        typed_training(weights)

    def check_back(tape, d_output, d_state):
        typed_tape(which, kinds, tape)
        typed_gradient(d_output, tape[0][0].dtype)
        typed_state(d_state, "d_state", tape[0])

    def infer(packed, weights, hx=None):
        check_types(check_forward, packed=packed, weights=weights, hx=hx)
        return _infer_entry(packed, weights, hx)

    def record(packed, weights, hx=None):
        check_types(check_record, packed=packed, weights=weights, hx=hx)
        return _record_entry(packed, weights, hx)

    def back(tape, d_output, d_state=None):
        check_types(check_back, tape=tape, d_output=d_output, d_state=d_state)
        return _back_entry(tape, d_output, d_state)

    @overload(infer)
    def _infer_in_njit(packed, weights, hx=None):
        check_forward(packed, weights, hx)
        return lambda packed, weights, hx=None: _infer(packed, weights, hx)

    @overload(record)
    def _record_in_njit(packed, weights, hx=None):
        check_record(packed, weights, hx)
        return lambda packed, weights, hx=None: _record(packed, weights, hx)

    @overload(back)
    def _back_in_njit(tape, d_output, d_state=None):
        check_back(tape, d_output, d_state)
        return lambda tape, d_output, d_state=None: _replay_back(tape, d_output, d_state)

    return (
        _named(infer, which, which, "infer"),
        _named(record, f"{which}_forward", which, "record"),
        _named(back, f"{which}_backward", which, "back"),
    )


run, run_forward, run_backward = _passes("run")
rnn, rnn_forward, rnn_backward = _passes("rnn")
lstm, lstm_forward, lstm_backward = _passes("lstm")
gru, gru_forward, gru_backward = _passes("gru")
