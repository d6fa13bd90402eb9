"""The layers inside compiled code: `run`, of any cell, and the forward and backward pass of its training.

`rnn`, `lstm` and `gru` are the same for one cell. They take ``layer.weights`` in place of the layer, and run serially
on the CPU, whatever backend was chosen. What `run` is called with in a user's ``@njit`` function is typed when that
function is compiled, so wrong kinds and dtypes are a TypingError then; wrong shapes and values are a ValueError when it
runs.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import typeof, types
from numba.core.errors import TypingError
from numba.core.imputils import impl_ret_borrowed
from numba.extending import intrinsic

from .._arguments import kind_of, name_of
from .._jit import inner, jit, overload
from ..batch import Record, States
from ..cells.parameters import (
    GRUWeights,
    LSTMWeights,
    RNNReluWeights,
    RNNTanhWeights,
    WeightsType,
    kept_states_of,
    layout,
    others_of,
)
from ..cpu.kernels import call_backward, call_forward, call_gradients, call_inference
from ..cpu.norm import row_width
from ..cpu.panels import aligned, back_panels_size, pack_back, padded
from ..cpu.table import backward_entry, forward_entry, gradients_entry
from ..packing.checks import OUTSIDE, ArgumentError, outside
from ..packing.sequences import PackedSequence, check_packed, typed_packed

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


class CompiledTape(NamedTuple):
    """What a compiled training forward pass keeps; see `Tape`, which holds the same. Its backward pass uses it up."""

    weights: Any
    packed: PackedSequence
    states: States
    record: Record
    #: (N, D * P)
    output: np.ndarray
    #: (1,) whether its backward pass was run
    used: np.ndarray


class CompiledGradients(NamedTuple):
    """What a compiled backward pass returns."""

    #: the gradient of the input, a PackedSequence; None for symbols
    input: Any
    #: of the initial state: h (L * D, B, P), for an LSTM (h, c)
    hx: Any
    #: laid out like ``weights.parameters``
    parameters: np.ndarray


# -- checks ------------------------------------------------------------------------------------------------------------


def _is_array(ty, dtype, ndim):
    return isinstance(ty, types.Array) and ty.ndim == ndim and ty.dtype == dtype


def _is_input(ty, dtype):
    """Rows (N, I), or symbols (N,)."""
    symbols = isinstance(ty, types.Array) and ty.ndim == 1 and isinstance(ty.dtype, types.Integer)
    return symbols or _is_array(ty, dtype, 2)


def _typed_state(given, name, weights):
    """Whether a state is given; a TypingError if it does not fit the cell of these weights."""
    given = _if_there(given)
    if isinstance(given, (types.NoneType, types.Omitted)) or given is None:
        return False
    dtype, names = weights[0].dtype, weights.instance_class.cell.arguments.state
    if len(names) > 1:
        right = isinstance(given, types.BaseTuple) and len(given) == len(names)
        right = right and all(_is_array(part, dtype, 3) for part in given)
        count = {2: "two", 3: "three", 4: "four"}.get(len(names), len(names))
        expected = f"a tuple of {count} {dtype} arrays (num_layers * num_directions, B, H)"
    else:
        right, expected = _is_array(given, dtype, 3), f"a {dtype} array (num_layers * num_directions, B, H)"
    if not right:
        raise TypingError(f"{name} must be {expected}; got {given}")
    return True


def _typed_call(function, kinds, packed, weights):
    """A TypingError unless these are a batch and weights for the function."""
    kind = getattr(weights, "instance_class", None)
    if kind not in kinds if kinds else not isinstance(weights, WeightsType):
        names = " or ".join(kind.__name__ for kind in kinds) if kinds else "layer.weights"
        raise TypingError(
            f"weights of {function} must be the weights of its layer, {names}; got {_class_of(weights, *kinds)}"
        )
    typed_packed(packed, "packed")
    if not _is_input(packed[0], weights[0].dtype):
        expected = f"a {weights[0].dtype} array (N, input_size) or symbols, integers (N,)"
        raise TypingError(f"packed.data must be {expected}; got {packed[0]}")


def _typed_tape(function, kinds, tape):
    """A TypingError unless this is a tape of the function's training form, its arrays of the types made there."""
    if getattr(tape, "instance_class", None) is CompiledTape:
        weights, packed, states, record, output, used = tape
        classes = [getattr(part, "instance_class", None) for part in (weights, packed, states, record)]
        if (classes[0] in kinds if kinds else classes[0] is not None) and classes[1:] == [
            PackedSequence,
            States,
            Record,
        ]:
            typed_packed(packed, "tape.packed")
            dtype = weights[0].dtype
            arrays = [(output, 2), (states[1], 4), (record[1], 4)]
            arrays += [(array, 3) for array in (states[0], record[0], *record[2:])]
            floats = all(_is_array(array, dtype, ndim) and array.layout == "C" for array, ndim in arrays)
            rows = _is_array(packed[0], dtype, 2) or _is_array(packed[0], types.int64, 1)
            if floats and rows and packed[0].layout == "C" and _is_array(used, types.boolean, 1):
                return
    raise TypingError(f"tape must be what {function}_forward returned third; got {_class_of(tape, CompiledTape)}")


def _class_of(given, *expected):
    """What an error says of a type that is none of these classes' in compiled code."""
    kind = getattr(given, "instance_class", None)
    return given if kind is None or kind in expected else name_of(kind, *expected)


def _if_there(given):
    """The type of what may be None in compiled code, as a state is before a loop, where it is not."""
    return given.type if isinstance(given, types.Optional) else given


@intrinsic
def _there(typing_context, value):
    """What may be None, where it is not."""

    def generate(context, builder, signature, arguments):
        value = context.cast(builder, arguments[0], signature.args[0], signature.return_type)
        return impl_ret_borrowed(context, builder, signature.return_type, value)

    return value.type(value), generate


@inner
def _check_axis(name, text, got, expected):
    if got != expected:
        raise ArgumentError(name, text, got, expected, -1)


@inner
def _check_state(name, state, weights, B, size):
    _check_axis(name, ".shape[0] must be num_layers * num_directions: expected", state.shape[0], _scans(weights))
    _check_axis(name, ".shape[1] must be the number of sequences: expected", state.shape[1], B)
    _check_axis(name, ".shape[2] must be the size of the state: expected", state.shape[2], size)


@inner
def _scans(weights):
    return weights.num_layers * weights.num_directions


def _plain(array):
    raise NotImplementedError


@overload(_plain)
def _plain_in_njit(array):
    """The array as the kernels are compiled for: contiguous and writable."""
    if array.layout == "C" and array.mutable:
        return lambda array: array
    return lambda array: array.copy()


@inner
def _check_symbols(name, symbols, given, weights):
    at = outside(symbols, weights.input_size)
    if at >= 0:
        raise ArgumentError(name, OUTSIDE, given[at], weights.input_size, at)


def _input(data, weights):
    raise NotImplementedError


@overload(_input)
def _input_in_njit(data, weights):
    """The input as the kernels take it: rows (N, I), or a copy of symbols (N,)."""

    def rows(data, weights):
        _check_axis("packed", ".data.shape[1] must be the input size: expected", data.shape[1], weights.input_size)
        return _plain(data)

    def symbols(data, weights):
        copy = data.astype(np.int64)
        _check_symbols("packed.data", copy, data, weights)
        return copy

    return rows if data.ndim == 2 else symbols


def _as_gradient(packed, d_x):
    raise NotImplementedError


@overload(_as_gradient)
def _as_gradient_in_njit(packed, d_x):
    """The gradient of the input in its form; symbols have none."""
    if packed[0].ndim == 1:
        return lambda packed, d_x: None
    return lambda packed, d_x: _with_rows(packed, d_x)


# -- states as the kernels take them -----------------------------------------------------------------------------------


def _states(hx, weights, name, B):
    raise NotImplementedError


@overload(_states)
def _states_in_njit(hx, weights, name, B):
    if isinstance(hx, types.Optional):

        def either(hx, weights, name, B):
            return _states(None, weights, name, B) if hx is None else _states(_there(hx), weights, name, B)

        return either
    if not _typed_state(hx, "hx", weights):

        def none(hx, weights, name, B):
            dtype = weights.parameters.dtype
            return States(np.empty((0, 0, 0), dtype), np.empty((0, 0, 0, 0), dtype), False)

        return none
    if weights.instance_class.cell.states > 1:

        def several(hx, weights, name, B):
            h = _plain(hx[0])
            _check_state(name, h, weights, B, weights.output_size)
            others = np.empty((others_of(weights), _scans(weights), B, weights.hidden_size), h.dtype)
            _put_each(hx[1:], others, weights, name, B)
            return States(h, others, True)

        return several

    def one(hx, weights, name, B):
        h = _plain(hx)
        _check_state(name, h, weights, B, weights.output_size)
        return States(h, np.empty((0, _scans(weights), B, weights.hidden_size), h.dtype), True)

    return one


def _put_each(parts, others, weights, name, B):
    raise NotImplementedError


@overload(_put_each)
def _put_each_in_njit(parts, others, weights, name, B):
    """Fill ``others`` (S - 1, L * D, B, H), from its end on, with the states of a tuple, which are checked."""
    if len(parts) == 1:

        def last(parts, others, weights, name, B):
            _check_state(name, parts[0], weights, B, weights.hidden_size)
            others[len(others) - 1] = parts[0]

        return last

    def first(parts, others, weights, name, B):
        _check_state(name, parts[0], weights, B, weights.hidden_size)
        others[len(others) - len(parts)] = parts[0]
        _put_each(parts[1:], others, weights, name, B)

    return first


def _as_state(weights, h, others):
    raise NotImplementedError


@overload(_as_state)
def _as_state_in_njit(weights, h, others):
    states = weights.instance_class.cell.states
    if states == 1:
        return lambda weights, h, others: h
    parts = ", ".join(f"others[{i}]" for i in range(states - 1))
    return eval(f"lambda weights, h, others: (h, {parts})")


# -- the passes --------------------------------------------------------------------------------------------------------


@inner
def _forward(packed, weights, states, record, keep):
    dtype = weights.parameters.dtype
    B, D, P = len(packed.sorted_indices), weights.num_directions, weights.output_size
    out = np.empty((len(packed.data), D * P), dtype)
    h_n = np.empty((_scans(weights), B, P), dtype)
    others_n = np.empty((others_of(weights), _scans(weights), B, weights.hidden_size), dtype)
    kernel = forward_entry(weights)
    if keep:
        call_forward(
            kernel, weights.parameters, weights.panels, weights.sizes, packed.data,
            packed.batch_sizes, packed.sorted_indices, states.h, states.others, states.given, np.empty(0, np.int64),
            record.gates, record.cells, record.outputs, record.unprojected, 0, B, out, 0, h_n, others_n,
        )  # fmt: skip
    else:
        call_inference(
            kernel, weights.parameters, weights.panels, weights.sizes, packed.data,
            packed.batch_sizes, packed.sorted_indices, states.h, states.others, states.given, 0, B, out, 0,
            h_n, others_n,
        )  # fmt: skip
    return out, _as_state(weights, h_n, others_n)


@inner
def _checked(packed, weights):
    packed = check_packed(packed)
    return _with_rows(packed, _input(packed.data, weights))


@inner
def _with_rows(packed, rows):
    return PackedSequence(rows, packed.batch_sizes, packed.sorted_indices, packed.unsorted_indices)


@inner
def _infer(packed, weights, hx):
    packed = _checked(packed, weights)
    states = _states(hx, weights, "hx", len(packed.sorted_indices))
    dtype = weights.parameters.dtype
    none = np.empty((0, 0, 0), dtype)
    out, state = _forward(packed, weights, states, Record(none, np.empty((0, 0, 0, 0), dtype), none, none), False)
    return _with_rows(packed, out), state


@inner
def _record_shapes(weights, N):
    """Of the four arrays of a `Record` of N rows."""
    scans, H, P = _scans(weights), weights.hidden_size, weights.output_size
    dtype = weights.parameters.dtype
    units = padded(dtype, H)
    return (
        (scans, N, row_width(weights, True)),
        (kept_states_of(weights), scans, N, units),
        (weights.num_layers - 1, N, weights.num_directions * P),
        (scans if P != H else 0, N, units),
    )


@inner
def _record(packed, weights, hx):
    packed = _checked(packed, weights)
    states = _states(hx, weights, "hx", len(packed.sorted_indices))
    dtype = weights.parameters.dtype
    gates, cells, outputs, unprojected = _record_shapes(weights, len(packed.data))
    record = Record(
        np.empty(gates, dtype), np.empty(cells, dtype), np.empty(outputs, dtype), np.empty(unprojected, dtype)
    )
    out, state = _forward(packed, weights, states, record, True)
    return (
        _with_rows(packed, out.copy()),
        state,
        CompiledTape(weights, packed, states, record, out, np.zeros(1, np.bool_)),
    )


def _gradient_rows(d_output, out):
    raise NotImplementedError


def _typed_gradient(given, dtype):
    """Whether a gradient of the output is given; a TypingError if it is none."""
    given = _if_there(given)
    if isinstance(given, (types.NoneType, types.Omitted)) or given is None:
        return False
    rows = given[0] if getattr(given, "instance_class", None) is PackedSequence else given
    if not _is_array(rows, dtype, 2):
        raise TypingError(f"d_output must be a PackedSequence or {dtype} array (N, columns); got {given}")
    return True


@overload(_gradient_rows)
def _gradient_rows_in_njit(d_output, out):
    """The gradient of the output as rows (N, D * P), from a PackedSequence, an array, or None."""
    if isinstance(d_output, types.Optional):

        def either(d_output, out):
            return _gradient_rows(None, out) if d_output is None else _gradient_rows(_there(d_output), out)

        return either
    if not _typed_gradient(d_output, out.dtype):
        return lambda d_output, out: np.zeros_like(out)
    if getattr(d_output, "instance_class", None) is PackedSequence:
        return lambda d_output, out: _gradient_rows(d_output.data, out)

    def rows(d_output, out):
        _check_axis("d_output", ".shape[0] must be the number of rows: expected", d_output.shape[0], out.shape[0])
        _check_axis("d_output", ".shape[1] must be that of the output: expected", d_output.shape[1], out.shape[1])
        return _plain(d_output)

    return rows


@inner
def _check_left(name, array, shape):
    for axis in range(array.ndim):
        _check_axis(name, " must be as forward left it: expected size", array.shape[axis], shape[axis])


def _check_input_left(data, weights):
    raise NotImplementedError


@overload(_check_input_left)
def _check_input_left_in_njit(data, weights):
    """The same for the input."""
    if data.ndim == 2:
        return lambda data, weights: _check_left("tape.packed.data", data, (len(data), weights.input_size))
    return lambda data, weights: _check_symbols("tape.packed.data", data, data, weights)


@inner
def _check_tape(tape):
    """Refuse a tape whose arrays are not, or no longer, what a forward pass leaves: the caller can reach them."""
    weights, packed, states, record, out, used = tape
    _check_left("tape.used", used, (1,))
    if used[0]:
        raise ValueError("tape must not have been used: backward uses it up; got one that it was called with before")
    check_packed(packed, "tape.packed")
    N, B = len(packed.data), len(packed.sorted_indices)
    gates, cells, outputs, unprojected = _record_shapes(weights, N)
    _check_input_left(packed.data, weights)
    _check_left("tape.record.gates", record.gates, gates)
    _check_left("tape.record.cells", record.cells, cells)
    _check_left("tape.record.outputs", record.outputs, outputs)
    _check_left("tape.record.unprojected", record.unprojected, unprojected)
    _check_left("tape.output", out, (N, weights.num_directions * weights.output_size))
    if states.given:
        _check_left("tape.states.h", states.h, (_scans(weights), B, weights.output_size))
        others = (others_of(weights), _scans(weights), B, weights.hidden_size)
        _check_left("tape.states.others", states.others, others)


@inner
def _replay_back(tape, d_output, d_state):
    _check_tape(tape)
    weights, packed, states, record, out, used = tape
    dtype = weights.parameters.dtype
    N, B, D, P = len(packed.data), len(packed.sorted_indices), weights.num_directions, weights.output_size
    scans = _scans(weights)
    d_states = _states(d_state, weights, "d_state", B)
    rows = _gradient_rows(d_output, out)
    used[0] = True  # all arguments are right
    input_grad = packed.data.ndim == 2  # symbols have none
    d_x = np.empty((N if input_grad else 0, weights.input_size), dtype)
    d_h = np.empty((scans, B, P), dtype)
    d_others = np.empty((others_of(weights), scans, B, weights.hidden_size), dtype)
    d_between = np.empty((min(2, weights.num_layers - 1), N, D * P), dtype)
    d_projected = np.empty((scans if weights.hidden_size != P else 0, N, P), dtype)
    numbers = np.array(layout(weights))
    panels = aligned(dtype, back_panels_size(weights.parameters, numbers))
    pack_back(weights.parameters, numbers, panels, input_grad)
    no_dropout = np.empty(0, np.int64)
    call_backward(
        backward_entry(weights), weights.parameters, weights.panels, weights.sizes, packed.data,
        packed.batch_sizes, packed.sorted_indices, states.h, states.others, states.given, no_dropout, record.gates,
        record.cells, record.outputs, record.unprojected, out, 0, 0, B, panels, rows, d_states.h,
        d_states.others, d_states.given, d_between, input_grad, d_x, d_h, d_others, d_projected,
    )  # fmt: skip
    gradient = np.zeros(weights.parameters.size, dtype)
    call_gradients(
        gradients_entry(weights), weights.parameters, weights.panels, weights.sizes, packed.data,
        packed.batch_sizes, packed.sorted_indices, states.h, states.others, states.given, no_dropout, record.gates,
        record.cells, record.outputs, record.unprojected, out, 0, d_projected, 0, 1, gradient,
    )  # fmt: skip
    return CompiledGradients(_as_gradient(packed, d_x), _as_state(weights, d_h, d_others), gradient)


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


def _from_python(check, **arguments):
    """The check that Numba makes of types, for a call from Python: a TypeError there."""
    try:
        check(*(_type_of(value, name) for name, value in arguments.items()))
    except TypingError as error:
        raise TypeError(str(error)) from None


def _type_of(value, name):
    try:
        return typeof(value)
    except (TypingError, ValueError) as error:  # an unknown object, a dtype of another byte order
        raise TypeError(f"{name} must be what compiled code takes; got {kind_of(value)}: {error}") from None


def _passes(which):
    """The three functions of one kind of layer: inference, and the two of training."""
    kinds = _KINDS[which]

    def check_forward(packed, weights, hx):
        _typed_call(which, kinds, packed, weights)
        _typed_state(hx, "hx", weights)

    def check_back(tape, d_output, d_state):
        _typed_tape(which, kinds, tape)
        _typed_gradient(d_output, tape[0][0].dtype)
        _typed_state(d_state, "d_state", tape[0])

    def infer(packed, weights, hx=None):
        _from_python(check_forward, packed=packed, weights=weights, hx=hx)
        return _infer_entry(packed, weights, hx)

    def record(packed, weights, hx=None):
        _from_python(check_forward, packed=packed, weights=weights, hx=hx)
        return _record_entry(packed, weights, hx)

    def back(tape, d_output, d_state=None):
        _from_python(check_back, tape=tape, d_output=d_output, d_state=d_state)
        return _back_entry(tape, d_output, d_state)

    @overload(infer)
    def _infer_in_njit(packed, weights, hx=None):
        check_forward(packed, weights, hx)
        return lambda packed, weights, hx=None: _infer(packed, weights, hx)

    @overload(record)
    def _record_in_njit(packed, weights, hx=None):
        check_forward(packed, weights, hx)
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
