"""A model of Keras, whose recurrent layers run on this library from now on, in inference.

A recurrent layer of Keras is a loop, its method ``inner_loop``, and what is around it: states that it begins with and
keeps, dropout, casts, what is returned. A `Loop` stands in place of that method, and all else stays Keras's. Whenever a
call is not for it, it calls the method itself.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from .._arguments import quiet
from ..packing.ragged import pack_ragged, unpack_ragged
from ._keras_arrays import Level, layer_of, scan_of
from ._keras_layers import Replacement, Told, cells_of, keras_of, variables_of

__all__ = ["Accelerated", "Loop", "accelerate"]

_BACKENDS = ("torch", "jax", "numpy")


class Accelerated:
    """What `accelerate` did. Its ``str`` has a line for each recurrent layer.

    Attributes
    ----------
    taken : tuple of str
        The layers that run on this library now: each one's name, behind those of what it is within and slashes. Of a
        ``Bidirectional``, each direction is a layer.
    left : dict of str to str
        The other recurrent layers and cells, and for each the reason.
    """

    def __init__(self, model: Any, taken: dict[str, Any], left: dict[str, str]) -> None:
        self.taken, self.left = tuple(taken), left
        self._model, self._layers = model, tuple(taken.values())

    def undo(self) -> None:
        """Have the layers that were taken run as before."""
        for layer in self._layers:
            vars(layer).pop("inner_loop", None)
        _forget_compiled(self._model)

    def __str__(self) -> str:
        """A line for each recurrent layer."""
        lines = [f"{name or 'the model itself'}: taken" for name in self.taken]
        lines += [f"{name or 'the model itself'}: left, {reason}" for name, reason in self.left.items()]
        return "\n".join(lines) or "no recurrent layers"

    def __repr__(self) -> str:
        return str(self)


def accelerate(model: Any) -> Accelerated:
    """Let the recurrent layers of a Keras model run on this library, in inference.

    ``model(x)``, ``model.predict`` and ``model.evaluate`` then run them here, also where Keras compiles: packed, where
    there is a mask. Training is Keras's own: calls with ``training=True``, and all that is differentiated. Layers stay
    the objects that they are, with their weights, and are saved as before; what is loaded again runs as Keras does.

    Parameters
    ----------
    model : keras.Model or keras.layers.Layer
        Of Keras 3, built, with torch, jax or numpy as its backend. Changed in place.

    Returns
    -------
    Accelerated
        Which layers were taken, which were not, and why. Its ``undo()`` puts all back.

    Raises
    ------
    TypeError
        If it is no model of Keras 3.

    See Also
    --------
    from_keras : a layer of this library, for packed input.

    Notes
    -----
    Weights may change at any time: a call packs them again if they are not what they were. With PyTorch, single entries
    of large weights that are written past its count of changes, through ``.data`` or NumPy, are seen by calls of 128
    steps in all or more.

    A call is Keras's own, too, where its input has a single step, is not on the CPU or not in the dtype of the weights;
    where PyTorch traces, compiles, exports or transforms it; and of what is unrolled or stacked, if it has a mask.

    With jax, a compiled function calls back to Python, which it does of work that gains by it, since XLA is quick in
    small work. ``jax.export`` refuses such functions: call ``undo()`` before. What the caller has compiled, with a
    model in another model or in a ``jax.jit``, is not compiled anew.

    Examples
    --------
    >>> import os
    >>> os.environ.setdefault("KERAS_BACKEND", "torch")  # doctest: +ELLIPSIS
    '...'
    >>> import keras
    >>> import numpy as np
    >>> import numba_pack as nbp
    >>> model = keras.Sequential([keras.Input((None, 3)), keras.layers.Masking(), keras.layers.LSTM(5, name="reader")])
    >>> accelerated = nbp.interop.keras.accelerate(model)
    >>> print(accelerated)
    reader: taken
    >>> model.predict(np.ones((2, 7, 3)), verbose=0).shape
    (2, 5)
    >>> accelerated.undo()
    """
    keras = keras_of([model], "model", "a model or a layer of Keras 3")
    taken, left = {}, {}
    for name, layer in _recurrent(keras, model):
        loop = _loop(keras, layer)
        if isinstance(loop, Loop):
            # not by assignment, of which Keras would keep account
            vars(layer)["inner_loop"] = loop
            taken[name] = layer
        else:
            left[name] = loop
    _forget_compiled(model)
    return Accelerated(model, taken, left)


def _recurrent(keras: Any, model: Any) -> Iterator[tuple[str, Any]]:
    """All recurrent layers, and the cells that are in none, by name."""
    seen: set[int] = set()
    names: set[str] = set()

    def within(layer: Any, path: str) -> Iterator[tuple[str, Any]]:
        if id(layer) in seen:
            return
        seen.add(id(layer))
        own = isinstance(layer, keras.layers.RNN)
        if own or isinstance(layer, tuple(getattr(keras.layers, kind) for kind in _CELLS)):
            name, count = path, 1
            while name in names:
                count += 1
                name = f"{path} ({count})"
            names.add(name)
            yield name, layer
            return
        for child in layer._flatten_layers(include_self=False, recursive=False):
            yield from within(child, f"{path}/{child.name}".lstrip("/"))

    yield from within(model, "")


_CELLS = ("SimpleRNNCell", "LSTMCell", "GRUCell", "StackedRNNCells")


def _loop(keras: Any, layer: Any) -> Loop | str:
    """What stands in place of a layer's loop, or why nothing can."""
    if not isinstance(layer, keras.layers.RNN):
        return "a cell, whose single steps would gain nothing"
    if isinstance(vars(layer).get("inner_loop"), Loop):
        return "runs on numba_pack already"
    backend = keras.config.backend()
    if backend not in _BACKENDS:
        return f"the backend is {backend}, none of {', '.join(_BACKENDS)}"
    try:
        cells = cells_of(keras, layer, "it")
    except (TypeError, ValueError) as error:
        return str(error)
    dtypes = {str(one) for one in (layer.compute_dtype, layer.variable_dtype)}
    if len(dtypes) > 1 or not dtypes <= {"float32", "float64"}:
        return f"it computes in {layer.compute_dtype} with weights in {layer.variable_dtype}, not in float32 or float64"
    return Loop(layer, cells, backend)


def _forget_compiled(model: Any) -> None:
    """Have a model compile its functions for inference again."""
    for name in ("predict_function", "test_function"):
        if getattr(model, name, None) is not None:
            setattr(model, name, None)


# -- the loop ----------------------------------------------------------------------------------------------------------


class Call(NamedTuple):
    """What the call of a layer is about, beside its arrays."""

    backwards: bool
    #: whether the output is wanted at every step
    sequences: bool
    #: what the output is where the mask has no step: 0, or that of the step before
    zeros: bool


class Loop(Replacement):
    """``inner_loop`` of one layer."""

    def __init__(self, layer: Any, cells: list[tuple[Any, Told]], backend: str) -> None:
        self.layer, self.backend = layer, backend
        self.cells = [cell for cell, _ in cells]
        self.told = [told for _, told in cells]
        self._prepared: _Prepared | None = None

    @property
    def keras(self) -> Any:
        """Keras, which no copy is made of with the layer."""
        return sys.modules["keras"]

    def __call__(self, sequences: Any, initial_state: Any, mask: Any, training: Any = False) -> Any:
        """The last output, all outputs, and the last states; in the order in which the steps are taken."""
        if isinstance(mask, (list, tuple)):
            mask = mask[0] if mask else None
        states = _flat(initial_state)
        weights = [None if one is None else one.value for one in self.variables()]
        layer = self.layer
        found = None
        if not training and self._is_plain(sequences, mask):
            call = Call(bool(layer.go_backwards), bool(layer.return_sequences), bool(layer.zero_output_for_mask))
            found = self._run()(self, call, sequences, mask, states, weights)
        if found is None:
            return self.own(sequences, initial_state, mask, training)
        last, outputs, *states = found
        return last, outputs, _packed_as(initial_state, iter(states))

    def variables(self) -> list[Any]:
        """kernel, recurrent_kernel and bias of each cell."""
        return [one for cell in self.cells for one in variables_of(cell)]

    def own(self, sequences: Any, initial_state: Any, mask: Any, training: Any = False) -> Any:
        """What Keras's own method gives."""
        return type(self.layer).inner_loop(self.layer, sequences, initial_state, mask, training=training)

    def own_flat(self, sequences: Any, mask: Any, states: list[Any], weights: list[Any]) -> tuple[Any, ...]:
        """The same as a function of all arrays."""
        shape = self.layer.get_initial_state(1)
        given = [(one, value) for one, value in zip(self.variables(), weights, strict=True) if one is not None]
        with self.keras.StatelessScope(state_mapping=given):
            last, outputs, after = self.own(sequences, self.keras.tree.pack_sequence_as(shape, states), mask)
        return last, outputs if self.layer.return_sequences else last[:, None], *self.keras.tree.flatten(after)

    def _is_plain(self, sequences: Any, mask: Any) -> bool:
        if len(sequences.shape) != 3 or not sequences.shape[0] or sequences.shape[1] < 2:
            return False  # of a single step nothing is gained
        return mask is None or (len(mask.shape) == 2 and not self.layer.unroll and len(self.cells) == 1)

    def _run(self) -> Callable[..., Any]:
        if self.backend == "torch":
            from . import _keras_torch

            return _keras_torch.run
        if self.backend == "jax":
            from . import _keras_jax

            return _keras_jax.run
        return run_arrays

    @quiet
    def here(
        self,
        call: Call,
        x: np.ndarray,
        mask: np.ndarray | None,
        states: list[np.ndarray],
        weights: list[Any],
        marks: Any = None,
    ) -> list[np.ndarray]:
        """The last output (B, H), all outputs (B, T, H), or the last one (B, 1, H), and the last states.

        ``marks`` may tell whether the weights are what they were: ``are(kept)`` of what ``kept(before)`` gave then.
        """
        layers = self._layers(call.backwards, weights, marks)
        h_0 = states[0]
        packed = None
        if mask is not None:
            mask = np.asarray(mask, bool)
            mask = None if mask.all() else mask
        if mask is not None:
            offsets = np.concatenate([[0], np.cumsum(mask.sum(axis=1))])
            packed = pack_ragged(np.ascontiguousarray(x[mask]), offsets)
        after: list[np.ndarray] = []
        out: Any = x if packed is None else packed
        is_one = packed is None and len(x) == 1  # which a layer takes without its batch, too, and in less time
        out = x[0] if is_one else out
        for layer, told in zip(layers, self.told, strict=True):
            count = 2 if told.kind == "LSTM" else 1
            given = [np.ascontiguousarray(one) for one in states[len(after) : len(after) + count]]
            given = given if is_one else [one[None] for one in given]
            out, state = layer(out, tuple(given) if count == 2 else given[0])
            found = state if count == 2 else (state,)
            after += found if is_one else [one[0] for one in found]
        out = out[None] if is_one else out
        if packed is None:
            outputs = out[:, ::-1].copy() if call.backwards else out
            outputs = outputs if call.sequences else outputs[:, -1:]
        else:
            rows = _rows(mask, call)
            values = np.concatenate([unpack_ragged(out)[0], np.zeros((1, out.data.shape[1]), out.data.dtype)])
            outputs = values.take(rows, axis=0, mode="wrap")
            if self.backend != "torch" and not call.zeros and (rows < 0).any():
                outputs = np.where(rows[:, :, None] < 0, h_0[:, None], outputs)
        outputs = np.ascontiguousarray(outputs)
        return [outputs[:, -1].copy(), outputs, *after]

    def _layers(self, backwards: bool, weights: list[Any], marks: Any) -> list[Any]:
        """A layer of this library for each cell: made again only if weights have changed."""
        prepared = self._prepared
        if prepared is not None and prepared.backwards == backwards:
            if marks is not None and marks.are(prepared.marks):
                return prepared.layers
            if prepared.is_of(weights):
                if marks is not None:
                    self._prepared = prepared._replace(marks=marks.kept(prepared.marks))
                return prepared.layers
        made, kept = [], None if marks is None else marks.kept(None)
        bits = [None if one is None else _bits(one).copy() for one in weights]
        for i, told in enumerate(self.told):
            kernel, recurrent_kernel, bias = (
                None if one is None else np.asarray(one) for one in weights[3 * i : 3 * i + 3]
            )
            scan = scan_of(told.kind, kernel, recurrent_kernel, bias, *told[1:4], f" of {told.name}")
            made.append(layer_of([Level((scan,), backwards)], None))
        self._prepared = _Prepared(backwards, made, bits, kept)
        return made


class _Prepared(NamedTuple):
    """The layers of some weights."""

    backwards: bool
    layers: list[Any]
    #: the bits of the weights, one by one
    bits: list[Any]
    #: what tells in little time that weights are these; None if nothing does
    marks: Any

    def is_of(self, weights: list[Any]) -> bool:
        """Whether it is of these, bit for bit. Biases come first, since as a rule they tell already."""
        pairs = zip(reversed(self.bits), reversed(weights), strict=True)
        return all(
            (kept is None) == (one is None) and (one is None or _are_equal(kept, _bits(one))) for kept, one in pairs
        )


def _bits(weight: Any) -> np.ndarray:
    """A vector of integers, the larger the faster to compare; of the array's memory, as a rule."""
    vector = np.ascontiguousarray(weight).reshape(-1)
    return vector.view(np.uint64 if vector.nbytes % 8 == 0 else np.uint32)


def _are_equal(one: np.ndarray, other: np.ndarray) -> bool:
    return one.dtype == other.dtype and np.array_equal(one, other)


def _flat(states: Any) -> list[Any]:
    """The states of all cells, one after the other: what ``keras.tree.flatten`` takes as long for as a layer runs."""
    return [one for part in states for one in (part if isinstance(part, (list, tuple)) else (part,))]


def _packed_as(structure: Any, states: Iterator[Any]) -> Any:
    """The same number of states in lists and tuples like these."""
    return type(structure)(
        _packed_as(one, states) if isinstance(one, (list, tuple)) else next(states) for one in structure
    )


def _rows(mask: Any, call: Call) -> Any:
    """For each step, as it is taken, the row of the ragged output that Keras gives there; -1 for what is before all.

    It is that of the step itself, or of the one before where the mask has none.
    """
    rows = np.full(mask.shape, -1)
    rows[mask] = np.arange(np.count_nonzero(mask))
    if call.backwards:
        mask, rows = mask[:, ::-1], rows[:, ::-1]
    if not call.zeros:
        before = np.maximum.accumulate(np.where(mask, np.arange(mask.shape[1]), -1), axis=1)
        rows = np.where(before < 0, -1, np.take_along_axis(rows, np.maximum(before, 0), axis=1))
    return rows if call.sequences else rows[:, -1:]


def run_arrays(loop: Loop, call: Call, x: Any, mask: Any, states: list[Any], weights: list[Any]) -> Any:
    """Of NumPy's arrays, the backend of that name; None where Keras runs them."""
    arrays = [x, *states, *(one for one in weights if one is not None)]
    if not all(isinstance(one, np.ndarray) for one in arrays) or len({one.dtype for one in arrays}) > 1:
        return None
    return loop.here(call, x, mask, states, weights)
