"""ONNX: layers and models from its RNN, LSTM and GRU nodes, and layers into its files.

`load` reads a model made of recurrent nodes and runs it on packed input, whatever shapes it was exported for; its
layers are in ``model.layers``. `export` writes a layer. `Backend` is the interface that ONNX defines for whoever runs
its models.

All attributes of the operators, in opset 7 and later, are known: direction, layout, clip, activations with alpha and
beta, input_forget, linear_before_reset, and peepholes. Between the nodes there may be operators that move values but
compute none, such as Transpose and Reshape; all others are refused by name.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

try:
    import onnx
    import onnx.backend.base
except ImportError as error:
    raise ImportError("numba_pack.interop.onnx needs ONNX: pip install numba_pack[onnx]") from error
from onnx import TensorProto, helper, numpy_helper

from .._arguments import kind_of, quiet
from ..layers.layer import GRU, LSTM, RNN, Layer
from ..layers.storage import as_path, check_file, write
from ..packing.checks import MEMORY_BYTES, as_flag
from ..packing.sequences import PackedSequence, check_packed
from ._both_ways import BothWays
from ._onnx_cells import ACTIVATIONS, PLACES, Composition, composition_of, onnx_weights
from ._onnx_glue import GLUE, Ragged, array_of, attributes_of, room
from ._onnx_nodes import RECURRENT, RecurrentNode

__all__ = ["Backend", "BothWays", "Model", "export", "load"]

#: the versions of the recurrent operators that there are, but for the first
_VERSIONS = (7, 14, 22)
#: of what `export` writes: the first in which Slice and Squeeze are as they still are
_OPSET, _IR_VERSION = 13, 7


# -- in ----------------------------------------------------------------------------------------------------------------


def load(path_or_model: str | os.PathLike[str] | bytes | onnx.ModelProto) -> Model:
    """Read a model made of RNN, LSTM and GRU nodes.

    Parameters
    ----------
    path_or_model : str, path, bytes, or onnx.ModelProto
        The file, what it holds, or the model itself.

    Returns
    -------
    Model

    Raises
    ------
    TypeError, ValueError
        If it is no such thing or damaged; if weights do not have the shapes that their node must have, or are neither
        float32 nor float64; or if the model has another operator, which is named. The recurrent part of such a model
        can be cut out with ``onnx.utils.extract_model``.
    OSError
        If the file cannot be opened.

    Examples
    --------
    >>> import os, tempfile
    >>> import numpy as np
    >>> import numba_pack as nbp
    >>> folder = tempfile.TemporaryDirectory()
    >>> path = os.path.join(folder.name, "tagger.onnx")
    >>> nbp.interop.onnx.export(nbp.LSTM(3, 5, bidirectional=True), path)
    >>> model = nbp.interop.onnx.load(path)
    >>> model.outputs, model.layers
    (('output', 'h_n', 'c_n'), {'l0': LSTM(3, 5, bidirectional=True)})
    >>> requests = nbp.pack_sequence([np.ones((n, 3), np.float32) for n in (2, 7, 4)])
    >>> results = model(requests)
    >>> results["output"].data.shape, results["h_n"].shape
    ((13, 10), (2, 3, 5))
    >>> folder.cleanup()
    """
    return Model(_read(path_or_model))


def _read(source: Any) -> onnx.ModelProto:
    if isinstance(source, onnx.ModelProto):
        model, name = source, "path_or_model"
    elif isinstance(source, (str, os.PathLike)):
        name = as_path(source, "path_or_model")
        check_file(name, "path_or_model")
        model = _decoded(lambda: onnx.load(name), name)
    elif isinstance(source, bytes):
        name = "path_or_model"
        model = _decoded(lambda: onnx.load_model_from_string(source), name)
    else:
        raise TypeError(
            f"path_or_model must be a path, the bytes of a model, or an onnx.ModelProto; got {kind_of(source)}"
        )
    try:
        onnx.checker.check_model(model)
    except Exception as error:  # ValidationError as a rule; of the checker's C++, of protobuf, ... too
        raise ValueError(f"{name} must be a valid ONNX model: {error}") from error
    return model


def _decoded(read: Any, name: str) -> onnx.ModelProto:
    try:
        return read()
    except Exception as error:  # protobuf's, of whichever format; of external data that is not beside the model
        raise ValueError(f"{name} must be an ONNX model; it is something else, or damaged: {error}") from error


class _Step:
    """A node of the graph, ready to run."""

    def __init__(self, node: Any, constants: Mapping[str, np.ndarray], opset: int) -> None:
        self.op_type: str = node.op_type
        self.outputs = list(node.output)
        self.inputs = list(node.input)
        self.result: str = next(filter(None, self.outputs), "")
        self.name: str = node.name or self.result
        if node.domain not in ("", "ai.onnx") or (node.op_type not in RECURRENT and node.op_type not in GLUE):
            raise ValueError(
                f"the operator {'.'.join(filter(None, (node.domain, node.op_type)))} of node {self.name!r} is not "
                f"supported: a model may have {', '.join(RECURRENT)} and, between them, {', '.join(GLUE)}; "
                f"onnx.utils.extract_model cuts out the recurrent part of a larger model"
            )
        self.layer: Any = None
        #: the names of those of initial_h and initial_c that are zero
        self.zero: dict[str, str] = {}
        with self._naming():
            if node.op_type in RECURRENT:
                version = onnx.defs.get_schema(node.op_type, opset).since_version
                if version not in _VERSIONS:
                    raise ValueError(f"opset must be 7 or later, with a known {node.op_type}; got {opset}")
                self.recurrent = RecurrentNode(node)
                weights = self._weights()
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

    def _input(self, place: int) -> str:
        return self.inputs[place] if len(self.inputs) > place else ""

    @property
    def lengths(self) -> str:
        """The name of sequence_lens; "" if it is absent."""
        return self._input(4)

    def states(self) -> dict[str, str]:
        """The names of those of initial_h and initial_c that are not absent."""
        places = {"initial_h": 5} | ({"initial_c": 6} if self.op_type == "LSTM" else {})
        return {key: self._input(place) for key, place in places.items() if self._input(place)}

    def leave_out(self, zero: set[str]) -> None:
        """Take note of initial states that are zero: then it does not matter for which batch they were made."""
        self.zero = {key: name for key, name in self.states().items() if name in zero}

    def check_zeros(self, layer: Any, values: Mapping[str, Any]) -> None:
        """Check those initial states of zeros that are among the values."""
        with self._naming():
            for key, name in self.zero.items():
                if name in values:
                    self.recurrent.check_zero(key, values[name], layer.hidden_size, layer.dtype)

    def try_out(self, values: dict[str, Any]) -> None:
        """Put results among the values: of recurrent nodes zeros, of the right shapes."""
        if self.op_type not in RECURRENT:
            self.run(values)
            return
        with self._naming():
            X, R = values[self.inputs[0]], values[self.inputs[2]]
            shapes = self.recurrent.shapes(X.shape, R.shape[-1])
        results = (np.broadcast_to(R.dtype.type(0), shape) for shape in shapes)
        values.update((name, result) for name, result in zip(self.outputs, results, strict=False) if name)

    def _weights(self) -> dict[str, str]:
        """The names of those weights that are not absent."""
        places = {"W": 1, "R": 2, "B": 3} | ({"P": 7} if self.op_type == "LSTM" else {})
        return {key: self._input(place) for key, place in places.items() if self._input(place)}

    def gives_zero(self, zero: set[str]) -> bool:
        """Whether the results are zero where those values are; of an operator that moves values."""
        if self.op_type == "ConstantOfShape":
            return not np.any(self.attributes.get("value", 0))
        return self.op_type != "Shape" and set(self.inputs if self.op_type == "Concat" else self.inputs[:1]) <= zero

    def run(self, values: dict[str, Any]) -> None:
        """Put the results among the values."""
        with self._naming():
            if self.op_type not in RECURRENT:
                result = GLUE[self.op_type]([values[name] if name else None for name in self.inputs], self.attributes)
                values[self.outputs[0]] = result if isinstance(result, Ragged) else np.asarray(result)
                return
            layer = self.layer
            if layer is None:
                layer = self.recurrent.layer(**{key: values[name] for key, name in self._weights().items()})
                self.check_zeros(layer, values)
            states = {key: values[name] for key, name in self.states().items() if key not in self.zero}
            lengths = values[self.lengths] if self.lengths else None
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
        self.ndim, self.fixed = len(sizes), all(size > 0 for size in sizes)
        self._shape = [size if size > 0 else 2 for size in sizes]

    def zeros(self) -> np.ndarray:
        """An array as is declared, in which free axes have size 2; it takes no memory."""
        return np.broadcast_to(self.dtype.type(0), self._shape)


class Model:
    """A model made of recurrent nodes; what `load` returns.

    Called with packed input, it runs packed: each node by the true lengths, whether or not the model has an input for
    them and whatever batch and length it was exported for, as long as it holds neither as a number (in a Reshape, or in
    a first state that is not zero), and nothing is padded in between. Called with padded input, it computes what ONNX
    says, and the same bits.

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
        self._length_inputs = self._lengths()

    def _prepared(self, nodes: Any, opset: int) -> list[_Step]:
        """The nodes whose results depend on the input; those of the others are put among the constants."""
        steps, zero = [], {name for name, value in self._constants.items() if not value.any()}
        for node in nodes:
            step = _Step(node, self._constants, opset)
            if step.op_type in RECURRENT:
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
        if value.ndim != self._inputs[name].ndim:
            raise ValueError(f"{name} must have {self._inputs[name].ndim} dimensions; got shape {value.shape}")
        return value

    def _sequences(self) -> tuple[str, int]:
        """The input that a recurrent node reads as its X, and which of its axes is time, as the layout tells."""
        turned = {step.outputs[0]: step for step in self._steps if step.op_type in ("Identity", "Transpose")}
        for step in self._steps:
            if step.op_type in RECURRENT:
                name, axis = step.inputs[0], step.recurrent.layout
                while name in turned:
                    step = turned[name]
                    default = (2, 1, 0) if step.op_type == "Transpose" else (0, 1, 2)
                    name, axis = step.inputs[0], dict(enumerate(step.attributes.get("perm", default))).get(axis, 0)
                if name in self._inputs and axis < 2:
                    return name, axis
        return next(iter(self.inputs), ""), 0

    def _lengths(self) -> set[str]:
        """The inputs that reach a recurrent node as its sequence_lens."""
        made = {step.outputs[0]: step.inputs[0] for step in self._steps if step.op_type in ("Identity", "Cast")}
        found = set()
        for step in self._steps:
            name = step.lengths if step.op_type in RECURRENT else ""
            while name in made:
                name = made[name]
            found |= {name} & set(self.inputs)
        return found

    def __repr__(self) -> str:
        return f"Model(inputs={self.inputs}, outputs={self.outputs}, layers={self.layers})"


# -- ONNX's own interface ----------------------------------------------------------------------------------------------


class BackendRep(onnx.backend.base.BackendRep):
    """A model made ready by `Backend.prepare`."""

    def __init__(self, model: Model) -> None:
        self.model = model

    def run(self, inputs: Any, **kwargs: Any) -> tuple[Any, ...]:
        """The outputs, in the order of the model, of inputs in that order or by name."""
        if not isinstance(inputs, Mapping):
            if not isinstance(inputs, Sequence) or len(inputs) != len(self.model.inputs):
                raise ValueError(f"inputs must be {len(self.model.inputs)} arrays, or a mapping of names to arrays")
            inputs = dict(zip(self.model.inputs, inputs, strict=True))
        return tuple(self.model.run(inputs).values())


class Backend(onnx.backend.base.Backend):
    """ONNX's interface for what runs its models: ``Backend.prepare(model).run(inputs)``, on the CPU.

    See ``onnx.backend.base``. Weights may be inputs of the model, too; each run then packs them anew.

    Examples
    --------
    >>> import numpy as np
    >>> import onnx
    >>> import numba_pack as nbp
    >>> node = onnx.helper.make_node("RNN", ["X", "W", "R"], ["Y", "Y_h"], hidden_size=2, activations=["Elu"])
    >>> X, W, R = np.ones((3, 1, 2), "f4"), np.ones((1, 2, 2), "f4"), np.ones((1, 2, 2), "f4")
    >>> Y, Y_h = nbp.interop.onnx.Backend.run_node(node, [X, W, R])
    >>> Y_h.tolist()
    [[[14.0, 14.0]]]
    """

    @classmethod
    def is_compatible(cls, model: onnx.ModelProto, device: str = "CPU", **kwargs: Any) -> bool:
        """Whether `prepare` takes this model."""
        try:
            load(model)
        except (TypeError, ValueError):
            return False
        return cls.supports_device(device)

    @classmethod
    def prepare(cls, model: onnx.ModelProto, device: str = "CPU", **kwargs: Any) -> BackendRep:
        """Make a model ready to run."""
        if not cls.supports_device(device):
            raise ValueError(f"device must be 'CPU'; got {device!r}")
        return BackendRep(load(model))

    @classmethod
    def run_node(
        cls, node: Any, inputs: Sequence[np.ndarray], device: str = "CPU", outputs_info: Any = None, **kwargs: Any
    ) -> tuple[Any, ...]:
        """Run one node; the inputs are those that are not absent, in their order."""
        for value in inputs:
            if not isinstance(value, np.ndarray):
                raise TypeError(f"inputs must be NumPy arrays; got {kind_of(value)}")
        names = [name for name in node.input if name]
        if len(names) != len(inputs):
            raise ValueError(f"inputs must be those of the node, {names}; got {len(inputs)}")
        typed = [
            helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)
            for name, value in zip(names, inputs, strict=True)
        ]
        try:
            onnx.checker.check_node(node)
        except Exception as error:  # as in `load`
            raise ValueError(f"node must be a valid node of ONNX: {error}") from error
        results = [helper.make_empty_tensor_value_info(name) for name in node.output if name]
        return BackendRep(Model(helper.make_model(helper.make_graph([node], "node", typed, results)))).run(inputs)

    @classmethod
    def supports_device(cls, device: str) -> bool:
        """Whether it is the CPU."""
        return device == "CPU"


# -- out ---------------------------------------------------------------------------------------------------------------


def export(layer: Any, path: str | os.PathLike[str], states: bool = False) -> None:
    """Write a layer as an ONNX model.

    Its inputs are ``input`` (T, B, I), or (B, T, I) if the layer is ``batch_first``, and ``sequence_lens`` (B,) int32;
    its outputs ``output``, ``h_n`` and, of an LSTM, ``c_n``, in the shapes that the layer gives them, the output being
    0 behind the end of a sequence. T and B are free. Dropout, which is for training, is left out.

    Parameters
    ----------
    layer : RNN, LSTM or GRU, or of another cell that ONNX has
        With any number of layers and directions, but no projection. The other cells are those that `load` makes, and of
        ``numba_pack.cells`` PeepholeLSTM, CIFG and GRUResetBefore.
    path : str or path
        Of the file, which is replaced if it exists, as a whole or not at all.
    states : bool
        Whether the model has inputs ``h_0`` and, of an LSTM, ``c_0`` besides; else the initial state is zero.

    Raises
    ------
    TypeError, ValueError
        If it is no such layer, or has a projection, which ONNX does not know.

    Notes
    -----
    For a sequence of length 0, ONNX Runtime gives 0 as h_n and c_n, and not the initial state.

    Examples
    --------
    See `load`.
    """
    if type(layer) not in (RNN, LSTM, GRU, Layer, BothWays):
        raise TypeError(f"layer must be an RNN, LSTM or GRU of numba_pack; got {kind_of(layer, RNN, LSTM, GRU)}")
    if getattr(layer, "proj_size", 0):
        raise ValueError(f"layer must have no projection, which ONNX does not know; got proj_size={layer.proj_size}")
    write(as_path(path, "path"), _model(layer, as_flag(states, "states")).SerializeToString())


def _directions(layer: Any) -> tuple[Layer[Any], ...]:
    """A layer for each direction, which knows its cell and constants: the same one, if they are alike."""
    return layer.layers if isinstance(layer, BothWays) else (layer,) * layer.num_directions


def _compositions(layer: Any) -> list[Composition]:
    """What the cell of each direction is composed of, which must be alike but for the activations."""
    found, options = [], set()
    for one in _directions(layer):
        of = composition_of(one.cell)
        if of is None:
            raise ValueError(f"layer must be of a cell that ONNX has; got {layer!r}")
        found.append(of)
        options.add((of._replace(activations=()), getattr(one, "clip", None)))
    if len(options) > 1:
        raise ValueError(f"layer must have directions that are unlike in activations alone; got {layer!r}")
    return found


def _attributes(layer: Any, compositions: Sequence[Composition]) -> dict[str, Any]:
    """The attributes that make the cells of a layer."""
    of, directions = compositions[0], _directions(layer)
    way = "bidirectional" if len(directions) == 2 else "reverse" if directions[0].reverse else "forward"
    found: dict[str, Any] = {"hidden_size": layer.hidden_size, "direction": way}
    if of.operator == "GRU":
        found["linear_before_reset"] = int(of.linear_before_reset)
    if of.input_forget:
        found["input_forget"] = 1
    if of.clip:
        found["clip"] = directions[0].clip  # type: ignore[attr-defined]
    found["activations"] = [name for one in compositions for name in one.activations]
    for label in ("alpha", "beta"):
        found[f"activation_{label}"] = [
            getattr(direction, f"{place}_{label}")
            for direction, one in zip(directions, compositions, strict=True)
            for place, name in zip(PLACES, one.activations, strict=False)
            if label in ACTIVATIONS[name].defaults
        ]
    return {name: value for name, value in found.items() if value != []}


def _model(layer: Any, states: bool) -> onnx.ModelProto:
    compositions = _compositions(layer)
    kind, L, D, H = compositions[0].operator, layer.num_layers, layer.num_directions, layer.hidden_size
    real = helper.np_dtype_to_tensor_dtype(layer.dtype)
    time_and_batch = ["B", "T"] if layer.batch_first else ["T", "B"]
    parts = ["h", "c"] if kind == "LSTM" else ["h"]
    inputs = [("input", real, [*time_and_batch, layer.input_size]), ("sequence_lens", TensorProto.INT32, ["B"])]
    inputs += [(f"{part}_0", real, [L * D, "B", H]) for part in parts if states]
    outputs = [("output", real, [*time_and_batch, D * H]), *[(f"{part}_n", real, [L * D, "B", H]) for part in parts]]
    attributes = _attributes(layer, compositions)

    constants = {"rows": np.array([0, 0, D * H])} | ({"first_axis": np.array([0])} if states else {})
    nodes, below = [], "input"
    if layer.batch_first:
        nodes.append(helper.make_node("Transpose", [below], ["time_first"], perm=[1, 0, 2]))
        below = "time_first"
    for k in range(L):
        weights = _weights(layer, kind, k)
        constants |= {f"{name}_l{k}": value for name, value in weights.items()}
        first = [f"{part}_0_l{k}" if states else "" for part in parts]
        if states:
            constants |= {f"begin_l{k}": np.array([k * D]), f"end_l{k}": np.array([(k + 1) * D])}
            for part, name in zip(parts, first, strict=True):
                takes = [f"{part}_0", f"begin_l{k}", f"end_l{k}", "first_axis"]
                nodes.append(helper.make_node("Slice", takes, [name]))
        takes = [below, f"W_l{k}", f"R_l{k}", f"B_l{k}" if layer.bias else "", "sequence_lens", *first]
        takes += [f"P_l{k}"] * ("P" in weights)
        gives = [f"Y_l{k}", *[f"{part}_n_l{k}" for part in parts]]
        below = "output" if k == L - 1 and not layer.batch_first else f"output_l{k}"
        nodes += [
            helper.make_node(kind, takes, gives, name=f"l{k}", **attributes),
            helper.make_node("Transpose", [f"Y_l{k}"], [f"turned_l{k}"], perm=[0, 2, 1, 3]),  # (T, B, D, H)
            helper.make_node("Reshape", [f"turned_l{k}", "rows"], [below]),
        ]
    if layer.batch_first:
        nodes.append(helper.make_node("Transpose", [below], ["output"], perm=[1, 0, 2]))
    for part in parts:
        nodes.append(helper.make_node("Concat", [f"{part}_n_l{k}" for k in range(L)], [f"{part}_n"], axis=0))
    graph = helper.make_graph(
        nodes,
        kind,
        [helper.make_tensor_value_info(*one) for one in inputs],
        [helper.make_tensor_value_info(*one) for one in outputs],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR_VERSION, producer_name="numba_pack"
    )


def _weights(layer: Any, kind: str, k: int) -> dict[str, np.ndarray]:
    """W (D, G, I), R (D, G, H), and B (D, 2 G) and P (D, 3 H) if there are any, of one layer of the stack."""
    parameters, each = layer.state_dict(), []
    for one, end in zip(_directions(layer), (f"_l{k}", f"_l{k}_reverse"), strict=False):
        own = {name.removesuffix(end): value for name, value in parameters.items() if name.endswith(end)}
        each.append(onnx_weights(kind, one.cell, own))
    return {name: np.stack([weights[name] for weights in each]) for name in each[0]}
