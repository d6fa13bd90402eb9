"""ONNX Runtime's session, in which this library runs the recurrent nodes: what `interop.onnx.session` returns.

A graph is cut where a recurrent node stands, and ONNX Runtime runs the pieces between, each in a session of its own:
one piece holds all nodes that wait for the same number of recurrent ones, so there are few. An If, Loop or Scan that
has a recurrent node within is run here, and its bodies are cut in the same way; one that has none belongs to a piece.
Changing hands takes a few microseconds, and copies nothing; a call in which too little is recurrent to make up for them
goes to a session of the whole model.

An operator written in Python and called by ONNX Runtime (onnxruntime-extensions) would need no cuts, but its results
go through lists of Python floats, which takes longer than most layers run.
"""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, ValueInfoProto, external_data_helper, helper

from .._arguments import kind_of, quiet
from .._backend import backend
from ..cpu.threads import get_num_threads, threads
from ..layers.layer import Layer
from ..simd.machine import MACHINE
from ._onnx_binding import Binding
from ._onnx_graph import Scope, bodies_of, free_names, inlined, layer_of, made_of, name_of, opset_of, tensors_of
from ._onnx_nodes import RecurrentNode, is_recurrent
from ._onnx_types import Argument, WrongType, WrongValue, dtype_of, runtime_type, tensor_type, without_shape

__all__ = ["Session"]

#: what a recurrent node gains here for each step of each sequence, in µs: of itself, and for each weight; and what a
#: step gains for each weight that is padding, which ONNX Runtime computes. As measured, on a machine with vectors of 64
#: bytes and on one with 32, where ONNX Runtime's LSTM is the quicker as a rule; what is due to them is shown by
#: bench/compare/onnx_session.py. The node in 8 bits has rates of its own
_WIDE = {
    "RNN": (0.07, 15e-6, 40e-6),
    "GRU": (0.08, 3.3e-6, 4e-6),
    "LSTM": (0.05, 1e-6, 3.7e-6),
    "DynamicQuantizeLSTM": (0.11, 0.8e-6, 2e-6),
}
_NARROW = {
    "RNN": (0.15, 15e-6, 45e-6),
    "GRU": (0.02, 6e-6, 13e-6),
    "LSTM": (0.07, -6e-6, 16e-6),
    "DynamicQuantizeLSTM": (0.0, -5e-6, 13e-6),
}
_IS_WIDE = MACHINE.register_bytes == 64
RATES = _WIDE if _IS_WIDE else _NARROW
#: for each weight where there is one sequence, if that is another
OF_ONE = {"LSTM": 4e-6} if _IS_WIDE else {"LSTM": 4.5e-6, "GRU": 14e-6}
#: what it costs in µs to change hands for a node; for a batch with so many products of weights, which no longer goes
#: the way of short calls; and if its input is packed, besides
CHANGE, LONG_CHANGE, PACKING = (10.0, 30.0, 38.0) if _IS_WIDE else (18.0, 38.0, 40.0)
LARGE = 4e6
#: the option of ONNX Runtime that is a folder in which values of a model lie that is not a file
_FOLDER = "session.model_external_initializers_file_folder_path"
#: how many shapes of inputs are remembered
_SHAPES = 4096


@dataclass(frozen=True)
class Metadata:
    """What a model says of itself: what ``onnxruntime.ModelMetadata`` holds."""

    producer_name: str
    graph_name: str
    domain: str
    description: str
    graph_description: str
    version: int
    custom_metadata_map: dict[str, str]


class Session:
    """A model that ONNX Runtime runs, but for its recurrent nodes, which this library runs.

    It is called as ``onnxruntime.InferenceSession`` is: `run`, `run_async`, `run_with_iobinding`, `get_inputs`,
    `get_outputs`, and what tells of the model and the options. Results agree with ONNX Runtime's to rounding; where
    weights are quantized, to the error that ONNX Runtime makes by quantizing the input of each step, which is not done
    here.

    Inputs of shapes with which the recurrent nodes have hardly anything to compute, such as one step of a stream, go to
    ONNX Runtime whole: there is nothing to gain. The first call tells that of its shapes. So does a call that gives
    weights, where the model has them as inputs with a default.

    Attributes
    ----------
    taken : tuple of str
        The names of the recurrent nodes that are run here. `numba_pack.interop.onnx.layers` gives their layers.
    left : dict of str to str
        The recurrent nodes that ONNX Runtime runs, and for each the reason.
    """

    @quiet
    def __init__(
        self, model: onnx.ModelProto, sess_options: Any, providers: Any, provider_options: Any, folder: str = ""
    ) -> None:
        self.taken: tuple[str, ...] = ()
        self.left: dict[str, str] = {}
        options = sess_options
        if options is None:
            options = onnxruntime.SessionOptions()
            # or the threads of one piece would still be looking for work while the next one runs
            options.add_session_config_entry("session.force_spinning_stop", "1")
        model = inlined(model)
        if folder:
            _read_weights(model, folder)
        plan = _Plan(model.graph, model, None, self)
        for function in model.functions:  # those that could not be put in their places
            self._leave(function, f"it is in the function {function.name}, which has another opset")
        if not self.taken and not self.left:
            raise ValueError(
                "path_or_model must have a node RNN, LSTM, GRU or DynamicQuantizeLSTM for numba_pack to run; it has "
                "none, and onnxruntime.InferenceSession runs it as well"
            )
        self._pieces = _Pieces(model, options, providers or ["CPUExecutionProvider"], provider_options, folder)
        #: inputs that are weights: ONNX Runtime runs a call that gives others
        self._settled = plan.scope.settled
        inputs = [one for one in model.graph.input if one.name not in plan.scope.makers or one.name in self._settled]
        self._inputs = {one.name: Argument.of(one.name, one.type) for one in inputs}
        #: the values of inputs that need not be given
        self._defaults = {one.name: onnx.numpy_helper.to_array(one) for one in model.graph.initializer
                          if one.name in self._inputs}  # fmt: skip
        self._required = [name for name in self._inputs if name not in self._defaults]
        #: the shapes of inputs that ONNX Runtime takes whole, and how it takes them
        self._whole: Any = None
        self._run_whole: Any = None
        self._body: _Body
        self._shapes: dict[Any, bool] = {}
        types = self._cut(plan, {one.name: one.type for one in inputs}) if self.taken else {}
        if not self.taken:
            self._whole = self._whole or self._pieces.whole()
            types = {one.name: runtime_type(one) for one in self._whole.get_outputs()}
        declared = {one.name: one.type for one in model.graph.output}
        types |= {name: its for name, its in declared.items() if its.WhichOneof("value")}
        self._outputs = {name: Argument.of(name, its) for name, its in types.items()}
        self._names = list(self._outputs)
        self._metadata = Metadata(
            model.producer_name, model.graph.name, model.domain, model.doc_string, model.graph.doc_string,
            model.model_version, {one.key: one.value for one in model.metadata_props},
        )  # fmt: skip

    def _cut(self, plan: _Plan, types: Mapping[str, Any]) -> dict[str, Any]:
        """Cut the graph in pieces; leave all to ONNX Runtime where that cannot be done. The types of the outputs."""
        try:
            self._body = _Body(plan, types, self._pieces)
            return {name: self._body.types[name] for name in self._body.outputs}
        except Exception as error:
            self._whole = self._pieces.whole()  # which tells what is wrong with the model, if it is that
            self.left |= dict.fromkeys(self.taken, f"the graph cannot be cut where it stands: {error!r}")
            self.taken = ()
            return {}

    def _take(self, node: Any, scope: Scope) -> tuple[RecurrentNode, Any] | None:
        """What tells of a recurrent node, and its layer; None if it is left."""
        name = name_of(node, {*self.taken, *self.left})
        try:
            recurrent, layer = layer_of(node, scope)
            reason = _reason(recurrent, layer, scope)
        except (TypeError, ValueError) as error:
            reason = str(error)
        if reason:
            self.left[name] = reason
            return None
        self.taken += (name,)
        if recurrent.quantized and isinstance(layer, Layer) and backend == "cpu":
            layer = layer.quantize("int8")  # ONNX Runtime, too, computes it in 8 bits
        return recurrent, layer

    def _leave(self, graph: Any, reason: str) -> None:
        """Leave the recurrent nodes of a graph or function, and of its bodies."""
        for node in graph.node:
            if is_recurrent(node):
                self.left[name_of(node, {*self.taken, *self.left})] = reason
            for body in bodies_of(node).values():
                self._leave(body, reason)

    def run(
        self, output_names: Sequence[str] | None, input_feed: Mapping[str, Any], run_options: Any = None
    ) -> list[Any]:
        """Run the model.

        Parameters
        ----------
        output_names : list of str, or None
            The outputs that are wanted; None or none for all.
        input_feed : mapping of str to arrays
            The inputs by name.
        run_options : onnxruntime.RunOptions, optional
            For the pieces that ONNX Runtime runs.

        Returns
        -------
        list
            The outputs, in the order of their names.

        Raises
        ------
        TypeError, ValueError
            If an input is missing or unknown, or has another dtype or shape than the model says; if an output is
            unknown; or if values do not fit the recurrent node that reads them. These are ONNX Runtime's
            ``InvalidArgument``, too, which is all that they are where ONNX Runtime runs a call whole.

        Examples
        --------
        See `numba_pack.interop.onnx.session`.
        """
        if type(input_feed) is not dict and not isinstance(input_feed, Mapping):
            raise TypeError(f"input_feed must be a mapping of names to arrays; got {kind_of(input_feed)}")
        shapes = _shapes_of(input_feed)
        if self._shapes.get(shapes):
            found: list[Any] = self._run_whole(output_names or self._names, input_feed, run_options)
            return found
        if not self.taken or not self._settled.isdisjoint(input_feed):
            self._whole = self._whole or self._pieces.whole()
            found = self._whole.run(output_names, input_feed, run_options)
            return found
        names = list(output_names) if output_names else self._names
        for name in names:
            if name not in self._outputs:
                raise WrongValue(f"output_names must be of {', '.join(self._outputs)}; got {name!r}")
        feed = self._feed(input_feed)
        learns = shapes is not None and shapes not in self._shapes
        call = _Call(run_options, learns)
        with self._pieces.threads():
            results = self._body.run({}, [feed[name] for name in self._body.inputs], call)
        if learns:
            self._remember(shapes, call.gain)
            if self._shapes[shapes]:  # so that equal inputs have the same bits, first and later
                return self.run(output_names, input_feed, run_options)
        values = dict(zip(self._body.outputs, results, strict=True))
        given = {id(value) for value in feed.values()}
        return [_own(values[name], given) for name in names]

    def run_async(
        self,
        output_names: Sequence[str] | None,
        input_feed: Mapping[str, Any],
        callback: Callable[[list[Any], Any, str], Any],
        user_data: Any = None,
        run_options: Any = None,
    ) -> None:
        """Run the model in a thread of its own, and return at once.

        Parameters
        ----------
        output_names, input_feed, run_options
            As of `run`. Arrays must not change before the results are there.
        callback : callable
            Called in that thread, with the results, the user's data, and "". If the run failed: with no results, and
            what was wrong.
        user_data : object
            For the callback.

        Raises
        ------
        TypeError, ValueError
            If an input is missing, unknown or wrong, or the callback cannot be called.
        """
        if not callable(callback):
            raise TypeError(f"callback must be callable; got {kind_of(callback)}")
        self._feed(input_feed)

        def work() -> None:
            found, told = [], ""
            try:
                found = self.run(output_names, input_feed, run_options)
            except Exception as error:
                told = str(error) or repr(error)
            callback(found, user_data, told)

        threading.Thread(target=work, name="numba_pack run_async").start()

    def io_binding(self) -> Binding:
        """What binds inputs and outputs to memory, for `run_with_iobinding`."""
        return Binding(self)

    def run_with_iobinding(self, iobinding: Binding, run_options: Any = None) -> None:
        """Run the model on what is bound, which was made by `io_binding` of this session."""
        if not isinstance(iobinding, Binding) or iobinding.session is not self:
            raise ValueError(f"iobinding must be made by io_binding() of this session; got {kind_of(iobinding)}")
        iobinding.run(run_options)

    def run_with_ort_values(
        self, output_names: Sequence[str] | None, input_dict_ort_values: Mapping[str, Any], run_options: Any = None
    ) -> list[Any]:
        """Run the model on values of ONNX Runtime, and give such."""
        found = self.run(output_names, input_dict_ort_values, run_options)
        return [onnxruntime.OrtValue.ortvalue_from_numpy(one) for one in found]

    def __getattr__(self, name: str) -> Any:
        advice = ""
        if not name.startswith("_") and hasattr(onnxruntime.InferenceSession, name):
            advice = "; onnxruntime.InferenceSession(model), which runs all of the model, has it"
        raise AttributeError(f"a session of numba_pack has no {name}{advice}")

    def _feed(self, given: Mapping[str, Any]) -> dict[str, Any]:
        missing = [name for name in self._required if name not in given]
        unknown = [str(name) for name in given if name not in self._inputs]
        if missing or unknown:
            raise WrongValue(
                f"input_feed must have {', '.join(self._required)}; missing: {', '.join(missing) or 'none'}, "
                f"not known: {', '.join(unknown) or 'none'}"
            )
        return {**self._defaults, **{name: self._inputs[name].taken(value) for name, value in given.items()}}

    def _remember(self, shapes: Any, gain: float) -> None:
        """Take note of whether inputs of these shapes are better off with ONNX Runtime alone."""
        small = gain <= 0
        if small and self._whole is None:
            try:
                self._whole = self._pieces.whole()
                self._run_whole = _quickest(self._whole)
            except Exception:  # what it cannot run, as float64 or layout 1, it is not asked for again
                self._whole = False
        if len(self._shapes) >= _SHAPES:
            self._shapes.clear()
        self._shapes[shapes] = small and self._whole is not False

    def get_inputs(self) -> list[Argument]:
        """The inputs: of each its name, shape and type."""
        return [self._inputs[name] for name in self._required]

    def get_outputs(self) -> list[Argument]:
        """The outputs: of each its name, shape and type."""
        return list(self._outputs.values())

    def get_overridable_initializers(self) -> list[Argument]:
        """Inputs that have a default, and need not be given."""
        return [self._inputs[name] for name in self._defaults]

    def get_modelmeta(self) -> Metadata:
        """What the model says of itself."""
        return self._metadata

    def get_session_options(self) -> Any:
        """The options with which ONNX Runtime runs the pieces."""
        return self._pieces.options

    def get_providers(self) -> list[str]:
        """The execution providers that ONNX Runtime runs the pieces with."""
        return list(self._pieces.found)

    def __repr__(self) -> str:
        return f"Session(taken={self.taken}, left={self.left})"


class _Call:
    """What is the same for all steps of one call, and what they find out."""

    def __init__(self, options: Any, learns: bool) -> None:
        self.options, self.learns = options, learns
        #: µs that the recurrent nodes have gained by being run here, as far as shapes tell
        self.gain = 0.0


def gain_of(op_type: str, T: int, B: int, directions: int, weights: int, has_lengths: bool) -> float:
    """The µs that a recurrent node gains by being run here, with so many weights in each direction; may be below 0.

    By shapes alone, lest what ran before decide on the bits of a result. So with lengths, half of all steps are taken
    for padding.
    """
    of_row, of_weight, of_padding = RATES[op_type]
    rows = T * B * directions
    if has_lengths and B > 1:
        return rows / 2 * (of_row + (of_weight + of_padding) * weights) - LONG_CHANGE - PACKING
    if B == 1:
        of_weight = OF_ONE.get(op_type, of_weight)
    change = LONG_CHANGE if B > 1 and rows * weights >= LARGE else CHANGE
    return rows * (of_row + of_weight * weights) - change


def _shapes_of(feed: Mapping[str, Any]) -> Any:
    """The names and shapes of inputs; None if not all are arrays."""
    shapes = []
    for name, value in feed.items():
        if type(value) is not np.ndarray:
            return None
        shapes += [name, value.shape]
    return tuple(shapes)


def _read_weights(model: onnx.ModelProto, folder: str) -> None:
    """Read from beside the model what recurrent nodes need; the rest, if there is any, is ONNX Runtime's to read."""
    needed = made_of(model) | {one.name for one in model.graph.input}
    for name, tensor in tensors_of(model.graph):
        if tensor.data_location == TensorProto.EXTERNAL and name in needed:
            try:
                external_data_helper.load_external_data_for_tensor(tensor, folder)
            except Exception as error:  # of ONNX's C++, too
                raise ValueError(f"path_or_model must have {name} beside its file: {error}") from error
            tensor.data_location = TensorProto.DEFAULT
            del tensor.external_data[:]


def _reason(recurrent: RecurrentNode, layer: Any, scope: Scope) -> str:
    """Why a node is left to ONNX Runtime; "" if it is taken."""
    if layer is None:
        return "its weights are no constants of the model"
    if any(scope.constant(name).dtype.name == "bfloat16" for name in recurrent.weights.values()):
        return "its values are bfloat16, which NumPy has not"
    names = [name.lower() for name in recurrent.attributes.get("activations", [])]
    if "thresholdedrelu" in names and not recurrent.attributes.get("activation_alpha"):
        return "its ThresholdedRelu has no alpha, which ONNX Runtime takes as 0, and ONNX as 1"
    return ""


def _own(value: Any, given: set[int]) -> Any:
    """A result that is the caller's to change: none of those arrays, to which it is added."""
    if isinstance(value, np.ndarray) and (id(value) in given or not value.flags.writeable):
        return value.copy()
    given.add(id(value))
    return value


# -- a graph in pieces -------------------------------------------------------------------------------------------------


class _Item:
    """A node of a graph, with what runs it if that is not ONNX Runtime."""

    def __init__(self, node: Any, scope: Scope, session: Session) -> None:
        self.node = node
        self.recurrent: tuple[RecurrentNode, Any] | None = None
        self.bodies: dict[str, _Plan] = {}
        if is_recurrent(node):
            self.recurrent = session._take(node, scope)
        elif _can_open(node, scope):
            self.bodies = {name: _Plan(body, scope.model, scope, session) for name, body in bodies_of(node).items()}
            if not any(body.cut for body in self.bodies.values()):
                self.bodies = {}
        else:
            for body in bodies_of(node).values():
                session._leave(body, f"it is within a node {node.op_type}, which is run by ONNX Runtime as a whole")
        names = [name for name in node.input if name]
        if self.recurrent is not None:
            told = self.recurrent[0]
            names = [told.inputs[0], *told.states.values(), *[told.lengths] * bool(told.lengths)]
        #: the names of what it needs
        self.reads = set(names).union(*[free_names(body) for body in bodies_of(node).values()])

    @property
    def cut(self) -> bool:
        """Whether it is run here."""
        return self.recurrent is not None or bool(self.bodies)


def _can_open(node: Any, scope: Scope) -> bool:
    """Whether the bodies of a node can be run from here."""
    opset = opset_of(scope.model)
    return node.domain in ("", "ai.onnx") and (
        node.op_type in ("If", "Loop") or (node.op_type == "Scan" and opset >= 9)
    )


class _Plan:
    """A graph, of which is known what is run here."""

    def __init__(self, graph: Any, model: onnx.ModelProto, around: Scope | None, session: Session) -> None:
        self.graph = graph
        self.scope = Scope(graph, model, around)
        constants = self.scope.makers
        nodes = [node for node in graph.node if not set(filter(None, node.output)) <= constants.keys()]
        self.items = [_Item(node, self.scope, session) for node in nodes]

    @property
    def cut(self) -> bool:
        """Whether anything in it is run here."""
        return any(item.cut for item in self.items)


class _Body:
    """A graph that is ready to run.

    Parameters
    ----------
    plan : _Plan
        What is in it.
    types : dict of str to onnx.TypeProto
        The types of its inputs, and of the values around it.
    pieces : _Pieces
        Makes sessions.
    """

    def __init__(self, plan: _Plan, types: Mapping[str, Any], pieces: _Pieces) -> None:
        self.plan, self.pieces, self.types = plan, pieces, dict(types)
        scope = plan.scope
        self.inputs = [one.name for one in plan.graph.input if one.name not in scope.makers]
        self.outputs = [one.name for one in plan.graph.output]
        items = self._needed()
        made = {name for item in items for name in item.node.output}
        reads = set(self.outputs).union(*[item.reads for item in items])
        self.captured = sorted(
            name for name in reads if name not in made and name not in self.inputs and not scope.is_constant(name)
        )
        self.fixed = self._constants(items)
        self.steps: list[Any] = []
        depths = self._depths(items)
        for depth in range(max(depths, default=-1) + 1):
            level = [item for item, its in zip(items, depths, strict=True) if its == depth]
            self._add_piece([item for item in level if not item.cut], items)
            for item in level:
                if item.cut:
                    self._add(item)

    def _needed(self) -> list[_Item]:
        """The nodes that the outputs need."""
        names, found = set(self.outputs), []
        for item in reversed(self.plan.items):
            if names & set(item.node.output):
                names |= item.reads
                found.append(item)
        return found[::-1]

    def _depths(self, items: list[_Item]) -> list[int]:
        """For each node how many of those that are run here come before it, one after the other."""
        after: dict[str, int] = {}
        depths = []
        for item in items:
            depth = max((after.get(name, 0) for name in item.reads), default=0)
            after.update((name, depth + item.cut) for name in item.node.output)
            depths.append(depth)
        return depths

    def _constants(self, items: list[_Item]) -> dict[str, Any]:
        """The values of constants that are outputs, or are read by what is run here."""
        reads = set(self.outputs).union(
            *[set(filter(None, item.node.input)) & item.reads for item in items if item.cut]
        )
        names = sorted(name for name in reads if self.plan.scope.is_constant(name))
        if not names:
            return {}
        copies = [helper.make_node("Identity", [name], [f"value of {name}"]) for name in names]
        once = onnxruntime.SessionOptions()
        once.intra_op_num_threads = 1  # that runs once, and needs no threads of its own
        wanted = [f"value of {name}" for name in names]
        session = self.pieces.session(copies, {}, wanted, names, self.plan.scope, once)
        values = dict(zip(names, session.run(None, {}), strict=True))
        self.types |= {name: runtime_type(one) for name, one in zip(names, session.get_outputs(), strict=True)}
        for value in values.values():
            if isinstance(value, np.ndarray):
                value.flags.writeable = False
        return values

    def _add_piece(self, items: list[_Item], others: list[_Item]) -> None:
        """Have ONNX Runtime run these nodes."""
        inside = set(map(id, items))
        wanted = set(self.outputs).union(*[item.reads for item in others if id(item) not in inside])
        outputs = [name for item in items for name in item.node.output if name in wanted]
        if not outputs:
            return
        if all(item.node.op_type == "Identity" for item in items):
            names = {item.node.output[0]: item.node.input[0] for item in items}
            if all(name in self.types for name in names.values()):
                self.types |= {new: self.types[old] for new, old in names.items()}
                self.steps.append(_Rename(names))
                return
        made = {name for item in items for name in item.node.output}
        reads = set().union(*[item.reads for item in items]) - made
        constants = sorted(name for name in reads if self.plan.scope.is_constant(name))
        inputs = {name: self.types[name] for name in sorted(reads.difference(constants))}
        session = self.pieces.session([item.node for item in items], inputs, outputs, constants, self.plan.scope)
        self.types |= {one.name: runtime_type(one) for one in session.get_outputs()}
        self.steps.append(_Piece(session, list(inputs), outputs))

    def _add(self, item: _Item) -> None:
        """Run a node here."""
        if item.recurrent is not None:
            self.steps.append(_Recurrent(item, self.types))
        else:
            kind: Any = {"If": _If, "Loop": _Loop, "Scan": _Scan}[item.node.op_type]
            self.steps.append(kind(item, self.types, self.pieces))

    def run(self, around: Mapping[str, Any], inputs: Sequence[Any], call: _Call) -> list[Any]:
        """The outputs for these inputs and for the values around it."""
        values = {name: around[name] for name in self.captured}
        values.update(self.fixed)
        values.update(zip(self.inputs, inputs, strict=True))
        for step in self.steps:
            step.run(values, call)
        return [values[name] for name in self.outputs]


class _Pieces:
    """Makes sessions of ONNX Runtime, one for each piece of a model."""

    def __init__(
        self, model: onnx.ModelProto, options: Any, providers: Any, provider_options: Any, folder: str
    ) -> None:
        self.model, self.options, self.providers, self.provider_options = model, options, providers, provider_options
        #: beside what file lie those values that are not in the model; "" if all are
        lies_beside = any(one.data_location == TensorProto.EXTERNAL for _, one in tensors_of(model.graph))
        self.folder = folder if lies_beside else ""
        #: the providers that there are, of those
        self.found: list[str] = []

    def session(
        self, nodes: Sequence[Any], inputs: Mapping[str, Any], outputs: Sequence[str], constants: Sequence[str],
        scope: Scope, options: Any = None,
    ) -> Any:  # fmt: skip
        """A session of these nodes, with the constants that they read."""
        tensors, sparse, makers = scope.making(constants)
        graph = helper.make_graph(
            [*makers, *nodes],
            self.model.graph.name or "piece",
            [helper.make_value_info(name, its) for name, its in inputs.items()],
            [ValueInfoProto(name=name) for name in outputs],  # whose types ONNX Runtime tells
            tensors,
            sparse_initializer=sparse,
        )
        model = helper.make_model(
            graph,
            opset_imports=list(self.model.opset_import),
            functions=list(self.model.functions),
            ir_version=max(self.model.ir_version, 4),
        )
        return self._made(model, options)

    def whole(self) -> Any:
        """A session of the whole model."""
        return self._made(self.model)

    def _made(self, model: onnx.ModelProto, options: Any = None) -> Any:
        options = self.options if options is None else options
        with self._folder_told(options):
            made = onnxruntime.InferenceSession(
                model.SerializeToString(), options, providers=self.providers, provider_options=self.provider_options
            )
        self.found = made.get_providers()
        return made

    @contextlib.contextmanager
    def _folder_told(self, options: Any) -> Iterator[None]:
        """A scope in which options, which may be the caller's, tell where values lie that are not in a model."""
        if not self.folder:
            yield
            return
        try:
            before = options.get_session_config_entry(_FOLDER)
        except Exception:  # ONNX Runtime's, if nothing is told
            before = ""
        options.add_session_config_entry(_FOLDER, self.folder)
        try:
            yield
        finally:
            options.add_session_config_entry(_FOLDER, before)

    def threads(self) -> Any:
        """A scope in which a layer takes no more threads than ONNX Runtime is told to."""
        given = self.options.intra_op_num_threads
        return threads(given) if 0 < given < get_num_threads() else contextlib.nullcontext()


def _quickest(session: Any) -> Any:
    """``session.run`` without what that asks of each call, which is known here: that all inputs are there."""
    own = getattr(session, "_sess", None)
    # on other providers it does more: it goes on without one that fails
    return own.run if own is not None and session.get_providers() == ["CPUExecutionProvider"] else session.run


# -- what is run -------------------------------------------------------------------------------------------------------


class _Piece:
    """Nodes that ONNX Runtime runs."""

    def __init__(self, session: Any, inputs: list[str], outputs: list[str]) -> None:
        self.call, self.inputs, self.outputs = _quickest(session), inputs, outputs

    def run(self, values: dict[str, Any], call: _Call) -> None:
        results = self.call(self.outputs, {name: values[name] for name in self.inputs}, call.options)
        values.update(zip(self.outputs, results, strict=True))


class _Rename:
    """Nodes that give values as they are."""

    def __init__(self, names: dict[str, str]) -> None:
        self.names = names

    def run(self, values: dict[str, Any], call: _Call) -> None:
        for new, old in self.names.items():
            values[new] = values[old]


class _Recurrent:
    """A recurrent node that a layer of this library runs."""

    def __init__(self, item: _Item, types: dict[str, Any]) -> None:
        assert item.recurrent is not None
        self.told, self.layer = item.recurrent
        sizes = [value.size for value in self.layer.state_dict().values() if value.ndim == 2]
        self.op_type, self.weights = item.node.op_type, sum(sizes) // self.told.num_directions
        self.of = f"{item.node.op_type} node {item.node.name or item.node.output[0]!r}"
        self.results = [(place, name) for place, name in enumerate(item.node.output) if name]
        elem, D, H = types[self.told.inputs[0]].tensor_type.elem_type, self.told.num_directions, self.layer.hidden_size
        Y, state = ([None, None, D, H], [None, D, H]) if self.told.layout else ([None, D, None, H], [D, None, H])
        types.update((name, tensor_type(elem, state if place else Y)) for place, name in self.results)

    def run(self, values: dict[str, Any], call: _Call) -> None:
        told = self.told
        X = values[told.inputs[0]]
        states = {key: values[name] for key, name in told.states.items()} if told.states else {}
        lengths = values[told.lengths] if told.lengths else None
        if call.learns and X.ndim == 3:
            T, B = X.shape[:2] if told.layout == 0 else X.shape[1::-1]
            call.gain += gain_of(self.op_type, T, B, told.num_directions, self.weights, lengths is not None)
            if not B:  # with which ONNX Runtime ends the process
                call.gain = math.inf
        try:
            results = list(told.run(self.layer, X, lengths, states))
        except (TypeError, ValueError) as error:
            wrong = WrongType if isinstance(error, TypeError) else WrongValue
            raise wrong(f"{self.of}: {error}") from error
        if lengths is not None and len(lengths) and not lengths.all():
            # the last state of no steps, which is the first state elsewhere in this library, is 0 in ONNX Runtime
            for state in results[1 : 3 if told.kind == "LSTM" else 2]:
                state.swapaxes(0, told.layout)[:, lengths == 0] = 0
        for place, name in self.results:
            values[name] = results[place]


class _If:
    def __init__(self, item: _Item, types: dict[str, Any], pieces: _Pieces) -> None:
        node = item.node
        self.condition, self.outputs = node.input[0], list(node.output)
        self.branches = [_Body(item.bodies[name], types, pieces) for name in ("else_branch", "then_branch")]
        for name, own in zip(self.outputs, self.branches[1].outputs, strict=True):
            types[name] = without_shape(self.branches[1].types[own])

    def run(self, values: dict[str, Any], call: _Call) -> None:
        branch = self.branches[_truth(values[self.condition])]
        values.update(zip(self.outputs, branch.run(values, (), call), strict=True))


def _truth(value: Any) -> bool:
    return bool(value.reshape(())[()])


def _body(plan: _Plan, types: Mapping[str, Any], given: Sequence[Any], pieces: _Pieces) -> _Body:
    """The body of a loop, whose inputs have the types that it declares, or else those that are given."""
    own = {
        one.name: one.type if one.type.WhichOneof("value") and not _is_free(one.type) else its
        for one, its in zip(plan.graph.input, given, strict=True)
    }
    return _Body(plan, {**types, **own}, pieces)


def _is_free(its: Any) -> bool:
    return bool(its.HasField("tensor_type") and not its.tensor_type.elem_type)


class _Loop:
    def __init__(self, item: _Item, types: dict[str, Any], pieces: _Pieces) -> None:
        node = item.node
        self.count, self.condition, *self.first = (*node.input, "", "")[: max(2, len(node.input))]
        carried = [without_shape(types[name]) for name in self.first]
        int64, boolean = tensor_type(onnx.TensorProto.INT64, []), tensor_type(onnx.TensorProto.BOOL, [])
        self.body = _body(item.bodies["body"], types, [int64, boolean, *carried], pieces)
        self.outputs = list(node.output)
        n = len(self.first)
        its = [self.body.types[name] for name in self.body.outputs[1:]]
        #: what the values of a step are, of those outputs that collect them
        self.collected = [dtype_of(one) for one in its[n:]]
        kinds = [without_shape(one) for one in its]
        types.update((name, one) for name, one in zip(self.outputs, kinds, strict=False) if name)

    def run(self, values: dict[str, Any], call: _Call) -> None:
        count = int(values[self.count].reshape(())[()]) if self.count else None
        going = _truth(values[self.condition]) if self.condition else True
        carried = [values[name] for name in self.first]
        steps: list[list[Any]] = [[] for _ in self.collected]
        number = 0
        while going and (count is None or number < count):
            given = [np.array(number, np.int64), np.array(going), *carried]
            condition, *results = self.body.run(values, given, call)
            going, carried = _truth(condition), results[: len(carried)]
            for rows, row in zip(steps, results[len(carried) :], strict=True):
                rows.append(row)
            number += 1
        found = [*carried, *map(_stacked, steps, self.collected)]
        values.update((name, value) for name, value in zip(self.outputs, found, strict=False) if name)


def _stacked(rows: list[Any], its: tuple[Any, tuple[int, ...]], axis: int = 0, backwards: bool = False) -> np.ndarray:
    """What a loop collects."""
    if not rows:
        dtype, shape = its
        return np.zeros((*shape[:axis], 0, *shape[axis:]), dtype)
    return np.stack(rows[::-1] if backwards else rows, axis)


class _Scan:
    def __init__(self, item: _Item, types: dict[str, Any], pieces: _Pieces) -> None:
        node = item.node
        said = {one.name: helper.get_attribute_value(one) for one in node.attribute}
        scanned = said["num_scan_inputs"]
        n = len(node.input) - scanned
        self.first, self.scanned, self.outputs = list(node.input[:n]), list(node.input[n:]), list(node.output)
        kinds = [without_shape(types[name]) for name in node.input]
        self.body = _body(item.bodies["body"], types, kinds, pieces)
        collected = len(self.body.outputs) - n
        self.axes = said.get("scan_input_axes", [0] * scanned)
        self.backwards = said.get("scan_input_directions", [0] * scanned)
        self.output_axes = said.get("scan_output_axes", [0] * collected)
        self.output_backwards = said.get("scan_output_directions", [0] * collected)
        its = [self.body.types[name] for name in self.body.outputs]
        self.collected = [dtype_of(one) for one in its[n:]]
        kinds = [without_shape(one) for one in its]
        types.update((name, one) for name, one in zip(self.outputs, kinds, strict=True) if name)

    def run(self, values: dict[str, Any], call: _Call) -> None:
        carried = [values[name] for name in self.first]
        inputs = [
            np.moveaxis(values[name], axis, 0)[:: -1 if backwards else 1]
            for name, axis, backwards in zip(self.scanned, self.axes, self.backwards, strict=True)
        ]
        steps: list[list[Any]] = [[] for _ in self.collected]
        for rows_of in zip(*inputs, strict=True):
            given = [*carried, *map(np.ascontiguousarray, rows_of)]
            results = self.body.run(values, given, call)
            carried = results[: len(carried)]
            for rows, row in zip(steps, results[len(carried) :], strict=True):
                rows.append(row)
        stacked = [
            _stacked(rows, its, axis % (len(its[1]) + 1) if its[1] else axis, bool(backwards))
            for rows, its, axis, backwards in zip(
                steps, self.collected, self.output_axes, self.output_backwards, strict=True
            )
        ]
        values.update((name, one) for name, one in zip(self.outputs, [*carried, *stacked], strict=True) if name)
