"""A model that is recurrent throughout, run on packed input: what `numba_pack.interop.onnx.load` returns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import onnx
from onnx import helper

from .._arguments import kind_of, quiet
from ..packing.checks import MEMORY_BYTES
from ..packing.sequences import PackedSequence, check_packed
from ._onnx_axes import BATCH, TIME, axes_after, axes_of_results, loosened
from ._onnx_glue import ARITHMETIC, GLUE, Ragged, array_of, attributes_of, room
from ._onnx_nodes import RECURRENT, RecurrentNode, is_recurrent

__all__ = ["Model"]


class _Step:
    """A node of the graph, ready to run."""

    def __init__(self, node: Any, constants: Mapping[str, np.ndarray], opset: int) -> None:
        self.op_type: str = node.op_type
        self.outputs = list(node.output)
        self.inputs = list(node.input)
        self.result: str = next(filter(None, self.outputs), "")
        self.name: str = node.name or self.result
        #: what tells of a recurrent node; None of another
        self.recurrent: RecurrentNode | None = None
        if not is_recurrent(node) and (node.domain not in ("", "ai.onnx") or node.op_type not in GLUE):
            raise ValueError(
                f"the operator {'.'.join(filter(None, (node.domain, node.op_type)))} of node {self.name!r} is not "
                f"supported: a model that is loaded may have {', '.join(RECURRENT)} and, between them, "
                f"{', '.join(GLUE)}; numba_pack.interop.onnx.session runs a model with any operators, and "
                f"numba_pack.interop.onnx.layers gives the recurrent layers of it"
            )
        self.layer: Any = None
        #: the names of those of initial_h and initial_c that are zero
        self.zero: dict[str, str] = {}
        with self._naming():
            if is_recurrent(node):
                self.recurrent = RecurrentNode(node, opset)
                weights = self.recurrent.weights
                if all(name in constants for name in weights.values()):
                    self.layer = self.recurrent.layer(**{key: constants[name] for key, name in weights.items()})
            else:
                self.attributes = attributes_of(node)

    @contextmanager
    def _naming(self) -> Iterator[None]:
        """Says in an error to which node it belongs."""
        try:
            yield
        except TypeError as error:
            raise TypeError(f"{self.op_type} node {self.name!r}: {error}") from error
        except (ValueError, IndexError, OverflowError) as error:
            raise ValueError(f"{self.op_type} node {self.name!r}: {error}") from error
        except (KeyError, AttributeError) as error:  # an attribute or an input that it must have
            raise ValueError(f"{self.op_type} node {self.name!r}: something is missing: {error!r}") from error

    def leave_out(self, zero: set[str]) -> None:
        """Take note of initial states that are zero: then it does not matter for which batch they were made."""
        if self.recurrent is not None:
            self.zero = {key: name for key, name in self.recurrent.states.items() if name in zero}

    def check_zeros(self, layer: Any, values: Mapping[str, Any]) -> None:
        """Check those initial states of zeros that are among the values."""
        with self._naming():
            for key, name in self.zero.items():
                if name in values and self.recurrent is not None:
                    self.recurrent.check_zero(key, values[name], layer.hidden_size, layer.dtype)

    def try_out(self, values: dict[str, Any]) -> None:
        """Put results among the values: of recurrent nodes zeros, of the right shapes."""
        if self.recurrent is None:
            self.run(values)
            return
        with self._naming():
            X, R = values[self.inputs[0]], values[self.inputs[2]]
            shapes = self.recurrent.shapes(X.shape, self.recurrent.hidden_size(R.shape))
        results = (np.broadcast_to(X.dtype.type(0), shape) for shape in shapes)
        values.update((name, result) for name, result in zip(self.outputs, results, strict=False) if name)

    def gives_zero(self, zero: set[str]) -> bool:
        """Whether the results are zero where those values are; of an operator that moves values."""
        if self.op_type == "ConstantOfShape":
            return not np.any(self.attributes.get("value", 0))
        return (
            self.op_type not in ("Shape", *ARITHMETIC)
            and set(self.inputs if self.op_type == "Concat" else self.inputs[:1]) <= zero
        )

    def run(self, values: dict[str, Any]) -> None:
        """Put the results among the values."""
        with self._naming():
            if self.recurrent is None:
                result = GLUE[self.op_type]([values[name] if name else None for name in self.inputs], self.attributes)
                values[self.outputs[0]] = result if isinstance(result, Ragged) else np.asarray(result)
                return
            layer = self.layer
            if layer is None:
                layer = self.recurrent.layer(**{key: values[name] for key, name in self.recurrent.weights.items()})
                self.check_zeros(layer, values)
            states = {key: values[name] for key, name in self.recurrent.states.items() if key not in self.zero}
            lengths = values[self.recurrent.lengths] if self.recurrent.lengths else None
            results = self.recurrent.run(layer, values[self.inputs[0]], lengths, states)
            values.update((name, result) for name, result in zip(self.outputs, results, strict=False) if name)


def _needed(steps: list[_Step], names: set[str]) -> list[_Step]:
    """The nodes that these results need."""
    names, needed = set(names), []
    for step in reversed(steps):
        if names & set(step.outputs):
            names |= set(step.inputs) - set(step.zero.values())
            needed.append(step)
    return needed[::-1]


class _Input:
    """What a model declares of an input."""

    def __init__(self, declared: Any) -> None:
        tensor = declared.type.tensor_type
        try:
            self.dtype = np.dtype(helper.tensor_dtype_to_np_dtype(tensor.elem_type))
        except (KeyError, TypeError) as error:
            raise ValueError(f"input {declared.name!r} must be an array of numbers; it has another type") from error
        sizes = [dim.dim_value for dim in tensor.shape.dim]
        #: None if that is free, too
        self.ndim = len(sizes) if tensor.HasField("shape") else None
        self.fixed = self.ndim is not None and all(size > 0 for size in sizes)
        self.sizes = sizes
        self._shape = [size if size > 0 else 2 for size in sizes]

    def zeros(self) -> np.ndarray:
        """An array as is declared, in which free axes have size 2; it takes no memory."""
        return np.broadcast_to(self.dtype.type(0), self._shape)


class Model:
    """A model made of recurrent nodes; what `load` returns.

    Called with packed input, it runs packed: each node by the true lengths, whether or not the model has an input for
    them and whatever batch and length it was exported for, as long as no first state other than zero is of that batch,
    and nothing is padded in between. Numbers in a Reshape that stand where time and batch are mean those of the call.
    Called with padded input, it computes what ONNX says, and the same bits.

    ONNX Runtime gives the same to rounding, but for this. The last state of a sequence of length 0 is here its initial
    state, there 0. ThresholdedRelu without an alpha has here that of ONNX's operator of this name, 1, there 0. Affine
    and ScaledTanh, which ONNX has as operators no more, must have their alpha and beta here; there they are 0 if not
    given. And float64 and layout 1 run only here.

    Attributes
    ----------
    inputs : tuple of str
        The names of the inputs.
    outputs : tuple of str
        The names of the outputs.
    layers : dict of str to Layer or BothWays
        By the name of the node or, if it has none of its own, of its first output. They belong to the model: parameters
        assigned to them are those that it computes with, so a loaded model can be trained further. A node that is an
        RNN, LSTM or GRU of this package is one; others are layers of a cell that their attributes make, or that
        ``numba_pack.cells`` has. What such a layer prints tells the attributes; its alphas and betas are options, as
        ``f_alpha``, and so is clip. A bidirectional node whose directions have unlike activations is a `BothWays`.
        Nodes whose weights are inputs of the model are not among them.
    """

    @quiet
    def __init__(self, model: onnx.ModelProto) -> None:
        graph = model.graph
        opset = max((one.version for one in model.opset_import if one.domain in ("", "ai.onnx")), default=1)
        if graph.sparse_initializer:
            raise ValueError("weights must be dense; the model has a sparse initializer")
        self._constants: dict[str, Any] = {one.name: array_of(one, one.name) for one in graph.initializer}
        if len(self._constants) < len(graph.initializer):
            raise ValueError("initializers must have different names; the model has two of one name")
        self._inputs = {one.name: _Input(one) for one in graph.input if one.name not in self._constants}
        self.inputs: tuple[str, ...] = tuple(self._inputs)
        self.outputs: tuple[str, ...] = tuple(one.name for one in graph.output)
        # what constants are made of constants is of their size, or is small
        with room(min(MEMORY_BYTES // 2, 2**26 + 16 * sum(value.nbytes for value in self._constants.values()))):
            steps = self._prepared(graph.node, opset)
            self._check_zeros(steps)
        self._steps = _needed(steps, set(self.outputs))
        known = self._inputs.keys() | self._constants.keys() | {name for step in self._steps for name in step.outputs}
        unknown = [name for name in self.outputs if name not in known]
        if unknown:
            raise ValueError(f"output {unknown[0]!r} must be the result of a node; there is no such node")
        for value in self._constants.values():  # which may be among the outputs, too
            value.flags.writeable = False
        self.layers: dict[str, Any] = {}
        for step in self._steps:
            if step.layer is not None:
                self.layers[step.result if step.name in self.layers else step.name] = step.layer
        self._sequence_input, self._time_axis = self._sequences()
        self._loosen()
        self._length_inputs = self._lengths()

    def _prepared(self, nodes: Any, opset: int) -> list[_Step]:
        """The nodes whose results depend on the input; those of the others are put among the constants."""
        steps, zero = [], {name for name, value in self._constants.items() if not value.any()}
        for node in nodes:
            step = _Step(node, self._constants, opset)
            if step.recurrent is not None:
                step.leave_out(zero)
            elif all(name in self._constants for name in step.inputs if name):
                step.run(self._constants)
                if step.gives_zero(zero) or not self._constants[step.outputs[0]].any():
                    zero.add(step.outputs[0])
                continue
            elif step.gives_zero(zero):
                zero |= set(step.outputs)
            steps.append(step)
        return steps

    def _check_zeros(self, steps: list[_Step]) -> None:
        """Check initial states of zeros that depend on the input, as made of an input of the declared shape.

        In a call they are not made, since that may be possible for the declared batch alone.
        """
        states = {name for step in steps for name in step.zero.values()} - self._constants.keys()
        needed = _needed(steps, states)
        values = {**self._constants, **{name: one.zeros() for name, one in self._inputs.items()}}
        try:
            for step in needed:
                step.try_out(values)
        except (TypeError, ValueError):  # the free axes may have sizes that others cannot be with
            if all(one.fixed for one in self._inputs.values()):
                raise
        for step in steps:
            if step.layer is not None:
                step.check_zeros(step.layer, values)

    def __call__(self, input: Any, /, **others: np.ndarray) -> dict[str, Any]:
        """Run the model on sequences.

        Parameters
        ----------
        input : PackedSequence or ndarray
            For the input that the first recurrent node reads: packed sequences with data (N, I), or an array in the
            shape that the model declares.
        **others : ndarray
            The other inputs by name. Those that are lengths of sequences are not given with packed input, which has its
            own.

        Returns
        -------
        dict of str to PackedSequence or ndarray
            The outputs by name. With packed input, those that have time and batch among their axes are packed: data
            (N, *) with their other axes. Arrays have the shapes that the model gives them, (D, B, H) as a rule.

        Raises
        ------
        TypeError, ValueError
            If an input is missing, not known, or has the wrong kind, dtype or shape.

        Examples
        --------
        See `load`.
        """
        if not self.inputs:
            raise ValueError("input must be left out for a model without inputs")
        name, time = self._sequence_input, self._time_axis
        if name in others:
            raise ValueError(f"{name} must be given once, as the first argument; got it by name, too")
        if not isinstance(input, PackedSequence):
            return self.run({name: input, **others})
        input = check_packed(input, "input")
        given = sorted(self._length_inputs & others.keys())
        if given:
            raise ValueError(f"{given[0]} must not be given with packed input, which has its lengths; got it")
        feeds = {length: input.lengths.astype(self._inputs[length].dtype) for length in self._length_inputs}
        return self.run({name: Ragged(input, time, 1 - time), **feeds, **others})

    @quiet
    def run(self, feeds: Mapping[str, Any]) -> dict[str, Any]:
        """Run the model on all of its inputs by name, as ONNX says; returns its outputs by name."""
        if not isinstance(feeds, Mapping):
            raise TypeError(f"inputs must be a mapping of names to arrays; got {kind_of(feeds)}")
        missing, extra = self._inputs.keys() - feeds.keys(), feeds.keys() - self._inputs.keys()
        if missing or extra:
            raise ValueError(
                f"inputs must be {', '.join(self.inputs)}; missing: {', '.join(sorted(missing)) or 'none'}, "
                f"not known: {', '.join(sorted(map(str, extra))) or 'none'}"
            )
        values = {**self._constants, **{name: self._checked(name, feeds[name]) for name in self.inputs}}
        with room(MEMORY_BYTES // 2):
            for step in self._steps:
                step.run(values)
        results = {name: values[name] for name in self.outputs}
        return {name: value.packed if isinstance(value, Ragged) else value for name, value in results.items()}

    def _checked(self, name: str, value: Any) -> Any:
        dtype, rows = self._inputs[name].dtype, value.packed.data if isinstance(value, Ragged) else value
        if not isinstance(rows, np.ndarray):
            raise TypeError(f"{name} must be a NumPy array; got {kind_of(rows)}")
        if rows.dtype != dtype:
            raise TypeError(f"{name} must have dtype {dtype}; got {rows.dtype}")
        if self._inputs[name].ndim not in (None, value.ndim):
            raise ValueError(f"{name} must have {self._inputs[name].ndim} dimensions; got shape {value.shape}")
        return value

    def _sequences(self) -> tuple[str, int]:
        """The input that a recurrent node reads as its X, and which of its axes is time, as the layout tells."""
        turned = {step.outputs[0]: step for step in self._steps if step.op_type in ("Identity", "Transpose")}
        for step in self._steps:
            if step.recurrent is not None:
                name, axis = step.inputs[0], step.recurrent.layout
                while name in turned:
                    step = turned[name]
                    default = (2, 1, 0) if step.op_type == "Transpose" else (0, 1, 2)
                    name, axis = step.inputs[0], dict(enumerate(step.attributes.get("perm", default))).get(axis, 0)
                if name in self._inputs and axis < 2:
                    return name, axis
        return next(iter(self.inputs), ""), 0

    def _loosen(self) -> None:
        """Let Reshape copy time and batch where it has them as numbers, which are of the batch that was exported."""
        axes: dict[str, Any] = {}
        declared: dict[str, int] = {}
        if self._sequence_input:
            first = self._inputs[self._sequence_input]
            if first.ndim == 3:
                own = [size or None for size in first.sizes]
                places = {TIME: self._time_axis, BATCH: 1 - self._time_axis}
                declared = {name: first.sizes[axis] for name, axis in places.items() if first.sizes[axis] > 0}
                for name, axis in places.items():
                    own[axis] = name
                axes[self._sequence_input] = tuple(own)
        for step in self._steps:
            if step.recurrent is not None:
                if step.layer is not None:
                    told = axes_of_results(
                        step.recurrent.layout, step.recurrent.num_directions, step.layer.hidden_size
                    )  # fmt: skip
                    axes.update(zip(step.outputs, told, strict=False))
                continue
            its = axes.get(step.inputs[0]) if step.inputs else None
            if its is None:
                continue
            if step.op_type == "Reshape" and step.inputs[1] in self._constants:
                shape = self._constants[step.inputs[1]].tolist()
                literal = step.attributes.get("allowzero") and 0 in shape
                found = None if literal else loosened(its, shape, declared)
                if found is not None:
                    step.inputs[1] = f"shape of {step.name}, of any batch"
                    self._constants[step.inputs[1]] = np.array(found, np.int64)
                    step.attributes = {}
            constants = [self._constants.get(name) for name in step.inputs]
            after = axes_after(step.op_type, its, constants, step.attributes)
            if after is not None:
                axes[step.outputs[0]] = after

    def _lengths(self) -> set[str]:
        """The inputs that reach a recurrent node as its sequence_lens."""
        made = {step.outputs[0]: step.inputs[0] for step in self._steps if step.op_type in ("Identity", "Cast")}
        found = set()
        for step in self._steps:
            name = "" if step.recurrent is None else step.recurrent.lengths
            while name in made:
                name = made[name]
            found |= {name} & set(self.inputs)
        return found

    def __repr__(self) -> str:
        return f"Model(inputs={self.inputs}, outputs={self.outputs}, layers={self.layers})"
