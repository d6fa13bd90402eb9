"""The graphs of an ONNX model, with its bodies and functions: what is constant in them, and the recurrent nodes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import onnx
import onnx.inliner
import onnx.reference
import onnx.shape_inference
from onnx import AttributeProto, TensorProto, helper

from ._onnx_glue import array_of
from ._onnx_nodes import RecurrentNode, is_recurrent, weight_names

__all__ = [
    "Scope",
    "bodies_of",
    "free_names",
    "inlined",
    "layer_of",
    "made_of",
    "name_of",
    "nodes_within",
    "opset_of",
    "tensors_of",
]

#: operators whose results are others each time
_RANDOM = frozenset({
    "Bernoulli", "Dropout", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike",
})  # fmt: skip
#: domains whose other operators give the same results each time
_KNOWN = ("", "ai.onnx", "com.microsoft")


def inlined(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with the functions that it defines put where they are called, as far as that is possible.

    A function of another opset is converted to the model's; one for which that cannot be done is left.
    """
    if not model.functions:
        return model
    try:
        return onnx.inliner.inline_local_functions(_with_types(model), convert_version=True)
    except Exception:  # of ONNX's C++, where an operator cannot be converted
        try:
            return onnx.inliner.inline_local_functions(model)
        except Exception as error:
            raise ValueError(f"path_or_model must have functions that can be put in their places: {error}") from error


def _with_types(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with the types of its values told, without which no function is converted to another opset."""
    opset = opset_of(model)
    if all(one.version == opset for of in model.functions for one in of.opset_import if one.domain in ("", "ai.onnx")):
        return model
    typed = onnx.ModelProto()
    typed.CopyFrom(model)
    typed.graph.value_info.extend(
        helper.make_tensor_value_info(one.name, one.data_type, one.dims) for one in model.graph.initializer
    )
    return onnx.shape_inference.infer_shapes(typed)


def opset_of(model: onnx.ModelProto) -> int:
    """The version of ONNX's own operators."""
    return max((one.version for one in model.opset_import if one.domain in ("", "ai.onnx")), default=1)


def bodies_of(node: Any) -> dict[str, Any]:
    """The graphs that a node has as attributes, such as the branches of an If, by name."""
    return {one.name: one.g for one in node.attribute if one.type == AttributeProto.GRAPH}


def free_names(graph: Any) -> set[str]:
    """The names of values that a body takes from around it."""
    known = {one.name for one in [*graph.input, *graph.initializer]} | {
        one.values.name for one in graph.sparse_initializer
    }
    found: set[str] = set()
    for node in graph.node:
        found |= {name for name in node.input if name} - known
        for body in bodies_of(node).values():
            found |= free_names(body) - known
        known |= set(node.output)
    return found | ({one.name for one in graph.output} - known)


def made_of(model: onnx.ModelProto) -> set[str]:
    """The names of all values of which the weights of recurrent nodes are made, in bodies as well."""
    nodes = list(_all_nodes(model.graph))
    makers = {name: node for node in nodes for name in node.output if name}
    stack = [name for node in nodes if is_recurrent(node) for name in weight_names(node)]
    found: set[str] = set()
    while stack:
        name = stack.pop()
        if name not in found:
            found.add(name)
            stack += filter(None, makers[name].input) if name in makers else ()
    return found


def _all_nodes(graph: Any) -> Iterator[Any]:
    for node in graph.node:
        yield node
        for body in bodies_of(node).values():
            yield from _all_nodes(body)


def tensors_of(graph: Any) -> Iterator[tuple[str, Any]]:
    """All arrays that a graph and the bodies within it hold, each with the name of its value."""
    yield from ((one.name, one) for one in graph.initializer)
    for node in _all_nodes(graph):
        for attribute in node.attribute:
            if attribute.type == AttributeProto.TENSOR:
                yield next(iter(node.output), ""), attribute.t
            elif attribute.type == AttributeProto.GRAPH:
                yield from ((one.name, one) for one in attribute.g.initializer)


class Scope:
    """A graph, in which the constants of the graphs around it are known, too.

    Parameters
    ----------
    graph : onnx.GraphProto
        A model's, or a body's.
    model : onnx.ModelProto
        The model to which it belongs.
    around : Scope, optional
        That of the graph around it.
    """

    def __init__(self, graph: Any, model: onnx.ModelProto, around: Scope | None = None) -> None:
        self.graph, self.model, self.around = graph, model, around
        self._values: dict[str, np.ndarray] = {}
        # an initializer that is an input, too, is only a default of that, except in old files, in which all are inputs
        inputs = {one.name for one in graph.input} if model.ir_version >= 4 else set()
        #: those of such names that are constants nevertheless: weights, of which others are hardly ever given
        self.settled = inputs & {one.name for one in graph.initializer} & (made_of(model) if around is None else set())
        inputs -= self.settled
        #: by the names of constants that belong to this graph: an initializer, or the node that makes it
        self.makers: dict[str, Any] = {one.name: one for one in graph.initializer if one.name not in inputs}
        self.makers |= {one.values.name: one for one in graph.sparse_initializer if one.values.name not in inputs}
        self._own = {one.name for one in graph.input} - self.makers.keys()
        for node in graph.node:
            makes_the_same = node.domain in _KNOWN and node.op_type not in _RANDOM and not bodies_of(node)
            if makes_the_same and not is_recurrent(node) and all(self.is_constant(name) for name in node.input if name):
                self.makers.update((name, node) for name in node.output if name)
            else:
                self._own |= set(node.output)

    def is_constant(self, name: str) -> bool:
        """Whether the value of this name does not depend on an input."""
        if name in self.makers or name in self._own:
            return name in self.makers
        return self.around is not None and self.around.is_constant(name)

    def maker(self, name: str) -> Any:
        """The initializer of a constant, or the node that makes it."""
        return self.makers[name] if name in self.makers or self.around is None else self.around.maker(name)

    def making(self, names: Iterable[str]) -> tuple[list[Any], list[Any], list[Any]]:
        """What makes these constants: initializers, sparse ones, and nodes in their order."""
        tensors: list[Any] = []
        sparse: list[Any] = []
        nodes: list[Any] = []
        done: set[str] = set()
        stack = [(name, False) for name in names]
        while stack:
            name, made = stack.pop()
            if name in done:
                continue
            maker = self.maker(name)
            if isinstance(maker, TensorProto):
                tensors.append(maker)
                done.add(name)
            elif isinstance(maker, onnx.SparseTensorProto):
                sparse.append(maker)
                done.add(name)
            elif made:
                nodes.append(maker)
                done |= set(maker.output)
            else:
                stack.append((name, True))
                stack += [(one, False) for one in maker.input if one and one not in done]
        return tensors, sparse, nodes

    def constant(self, name: str) -> np.ndarray:
        """The value of a constant, of whatever other constants it is made."""
        if name in self._values:
            return self._values[name]
        if name not in self.makers and self.around is not None:
            return self.around.constant(name)
        tensors, sparse, nodes = self.making([name])
        if sparse:
            raise ValueError(f"{name} must be dense; it is made of a sparse initializer")
        values = {one.name: array_of(one, one.name) for one in tensors}
        for node in nodes:
            values.update(zip(filter(None, node.output), self._computed(node, values), strict=True))
        self._values[name] = values[name]
        return values[name]

    def _computed(self, node: Any, values: dict[str, np.ndarray]) -> list[np.ndarray]:
        """The results of one node."""
        copy, opsets = onnx.NodeProto(), list(self.model.opset_import)
        copy.CopyFrom(node)
        if copy.op_type in ("DequantizeLinear", "QuantizeLinear"):
            # the evaluator has only later versions, which mean the same, as ONNX Runtime's own do
            copy.domain, opsets = "", [helper.make_opsetid("", max(opset_of(self.model), 21))]
        inputs = {name: values[name] for name in node.input if name}
        nothing = helper.make_empty_tensor_value_info
        graph = helper.make_graph(
            [copy], "constant", [nothing(name) for name in inputs], [nothing(name) for name in node.output if name]
        )
        try:
            found = onnx.reference.ReferenceEvaluator(helper.make_model(graph, opset_imports=opsets)).run(None, inputs)
        except Exception as error:  # of whichever operator
            raise ValueError(f"{node.output[0]} must be constant; it cannot be computed: {error!r}") from error
        if not all(isinstance(value, np.ndarray) for value in found):
            raise ValueError(f"{node.output[0]} must be an array of numbers; got {type(found[0]).__name__}")
        return found


def name_of(node: Any, taken: Iterable[str]) -> str:
    """A name for a node: its own or, if it has none or that is taken, of its first result, or this with a number."""
    result = next(filter(None, node.output), "")
    names = [name for name in (node.name, result) if name and name not in taken]
    numbered = (f"{node.name or result}__{number}" for number in range(2, 3 + len(list(taken))))
    return names[0] if names else next(name for name in numbered if name not in taken)


def nodes_within(scope: Scope) -> Iterator[tuple[Any, Scope]]:
    """The recurrent nodes of a graph and of the bodies of its nodes, each with the graph to which it belongs."""
    for node in scope.graph.node:
        if is_recurrent(node):
            yield node, scope
        for body in bodies_of(node).values():
            yield from nodes_within(Scope(body, scope.model, scope))


def layer_of(node: Any, scope: Scope) -> tuple[RecurrentNode, Any]:
    """What tells of a recurrent node, and its layer; None if its weights are no constants.

    Whatever is wrong with it is a TypeError or ValueError.
    """
    try:
        recurrent = RecurrentNode(node, opset_of(scope.model))
        names = recurrent.weights
        if not all(scope.is_constant(name) for name in names.values()):
            return recurrent, None
        return recurrent, recurrent.layer(**{key: scope.constant(name) for key, name in names.items()})
    except (KeyError, AttributeError, IndexError, OverflowError) as error:
        raise ValueError(f"an attribute or input is missing or wrong: {error!r}") from error
