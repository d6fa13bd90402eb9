"""ONNX: layers and models from its RNN, LSTM and GRU nodes, and layers into its files.

`load` reads a model made of recurrent nodes and runs it on packed input, whatever shapes it was exported for; its
layers are in ``model.layers``. `export` writes a layer. `Backend` is the interface that ONNX defines for whoever runs
its models.

All attributes of the operators, in opset 7 and later, are known: direction, layout, clip, activations with alpha and
beta, input_forget, linear_before_reset, and peepholes. For `load`, there may be operators between the nodes that move
values, such as Transpose and Reshape, and arithmetic of shapes; all others are refused by name. `session` runs models
with any operators, and `layers` takes the recurrent layers out of them.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

try:
    import onnx
    import onnx.backend.base
except ImportError as error:
    raise ImportError("numba_pack.interop.onnx needs ONNX: pip install onnx") from error
from onnx import TensorProto, helper, numpy_helper

from .._arguments import kind_of, quiet
from ..layers.layer import GRU, LSTM, RNN, Layer
from ..layers.storage import as_path, check_file, write
from ..packing.checks import as_flag
from ._both_ways import BothWays
from ._onnx_cells import ACTIVATIONS, PLACES, Composition, composition_of, onnx_weights
from ._onnx_graph import Scope, inlined, layer_of, name_of, nodes_within
from ._onnx_model import Model

if TYPE_CHECKING:
    from ._onnx_session import Session

__all__ = ["Backend", "BothWays", "Model", "export", "layers", "load", "session"]


def __dir__() -> list[str]:
    return [name for name in globals() if name.startswith("__")] + __all__


#: of what `export` writes: the first in which Slice and Squeeze are as they still are
_OPSET, _IR_VERSION = 13, 7


# -- in ----------------------------------------------------------------------------------------------------------------


def load(path_or_model: str | os.PathLike[str] | bytes | onnx.ModelProto) -> Model:
    """Read a model made of recurrent nodes.

    They are RNN, LSTM, GRU, and the DynamicQuantizeLSTM that ONNX Runtime's quantizer writes. Weights of 16 bits and
    quantized ones become the float32 that they stand for.

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
        If it is no such thing or damaged; if weights do not have the shapes that their node must have, or are no
        floats; or if the model has another operator, which is named.
    OSError
        If the file cannot be opened.

    See Also
    --------
    session : runs models with any operators.
    layers : takes the recurrent layers out of them.

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
    return Model(_checked(inlined(_read(path_or_model)), path_or_model))


@quiet
def layers(path_or_model: str | os.PathLike[str] | bytes | onnx.ModelProto) -> dict[str, Any]:
    """Take the recurrent layers out of a model, whatever else it has.

    Parameters
    ----------
    path_or_model : str, path, bytes, or onnx.ModelProto
        The file, what it holds, or the model itself.

    Returns
    -------
    dict of str to Layer or BothWays
        By the name of the node or, if it has none of its own, of its first output: the layers of all nodes RNN, LSTM,
        GRU and DynamicQuantizeLSTM, those within the bodies of other nodes and in functions, too. Weights of 16 bits
        and quantized ones become the float32 that they stand for. Nodes whose weights the model computes of its inputs
        are not among them, unless these inputs have defaults: then it is the layer of those.

    Raises
    ------
    TypeError, ValueError
        If it is no model; if it has no such node; or if the weights or attributes of one are not as they must be.
    OSError
        If the file cannot be opened.

    See Also
    --------
    session : runs the whole model.

    Examples
    --------
    >>> import onnx
    >>> import numpy as np
    >>> import numba_pack as nbp
    >>> nodes = [
    ...     onnx.helper.make_node("Relu", ["x"], ["positive"]),
    ...     onnx.helper.make_node("LSTM", ["positive", "W", "R"], ["Y"], name="reader"),
    ... ]
    >>> weights = [
    ...     onnx.numpy_helper.from_array(np.zeros((1, 16, columns), np.float16), name)
    ...     for name, columns in (("W", 3), ("R", 4))
    ... ]
    >>> declared = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT16, None) for name in ("x", "Y")]
    >>> graph = onnx.helper.make_graph(nodes, "example", declared[:1], declared[1:], weights)
    >>> nbp.interop.onnx.layers(onnx.helper.make_model(graph))
    {'reader': LSTM(3, 4, bias=False)}
    """
    model = inlined(_read(path_or_model))
    found: dict[str, Any] = {}
    computed = []
    for node, scope in nodes_within(Scope(model.graph, model)):
        name = name_of(node, found)
        try:
            layer = layer_of(node, scope)[1]
        except (TypeError, ValueError) as error:
            raise type(error)(f"{node.op_type} node {name!r}: {error}; session runs it if ONNX Runtime does") from error
        if layer is None:
            computed.append(name)
        else:
            found[name] = layer
    if not found:
        why = f"the weights of {', '.join(computed)} are no constants" if computed else "it has none"
        raise ValueError(f"path_or_model must have RNN, LSTM, GRU or DynamicQuantizeLSTM nodes with weights; {why}")
    return found


def session(
    path_or_model: str | os.PathLike[str] | bytes | onnx.ModelProto,
    sess_options: Any = None,
    providers: Any = None,
    provider_options: Any = None,
) -> Session:
    """Run any model with recurrent nodes: ONNX Runtime runs what is around them, and this library runs them.

    Parameters
    ----------
    path_or_model : str, path, bytes, or onnx.ModelProto
        The file, what it holds, or the model itself.
    sess_options : onnxruntime.SessionOptions, optional
        For all that ONNX Runtime runs. A layer uses no more threads than ``intra_op_num_threads`` of these, if that is
        set, and than `numba_pack.get_num_threads` tells.
    providers, provider_options : list, optional
        What ONNX Runtime runs its part with; its CPU provider, if none are given.

    Returns
    -------
    Session
        To be called as ``onnxruntime.InferenceSession``. ``taken`` are the nodes that are run here; ``left`` tells
        which recurrent nodes ONNX Runtime runs, and why.

    Raises
    ------
    TypeError, ValueError
        If it is no model, or has no recurrent node.
    OSError
        If the file cannot be opened.
    Exception
        ONNX Runtime's own, for a model that it cannot run.
    ImportError
        Without ONNX Runtime.

    See Also
    --------
    load : runs models that are recurrent throughout, and packed input.
    layers : only the layers.

    Examples
    --------
    >>> import onnx
    >>> import numpy as np
    >>> import numba_pack as nbp
    >>> nodes = [
    ...     onnx.helper.make_node("Relu", ["x"], ["positive"]),
    ...     onnx.helper.make_node("LSTM", ["positive", "W", "R"], ["Y"], name="reader"),
    ...     onnx.helper.make_node("Sigmoid", ["Y"], ["p"]),
    ... ]
    >>> weights = [
    ...     onnx.numpy_helper.from_array(np.zeros((1, 16, columns), np.float32), name)
    ...     for name, columns in (("W", 3), ("R", 4))
    ... ]
    >>> graph = onnx.helper.make_graph(
    ...     nodes,
    ...     "example",
    ...     [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["T", "B", 3])],
    ...     [onnx.helper.make_tensor_value_info("p", onnx.TensorProto.FLOAT, ["T", 1, "B", 4])],
    ...     weights,
    ... )
    >>> opset = onnx.helper.make_opsetid("", 17)
    >>> session = nbp.interop.onnx.session(onnx.helper.make_model(graph, opset_imports=[opset], ir_version=8))
    >>> session.taken, session.left
    (('reader',), {})
    >>> (p,) = session.run(None, {"x": np.ones((5, 2, 3), np.float32)})
    >>> p.shape
    (5, 1, 2, 4)
    """
    try:
        from ._onnx_session import Session
    except ImportError as error:
        raise ImportError("numba_pack.interop.onnx.session needs ONNX Runtime: pip install onnxruntime") from error
    if not isinstance(path_or_model, (str, os.PathLike)):
        return Session(_read(path_or_model), sess_options, providers, provider_options)
    # what lies beside the file stays there: it may be more than a model in memory can hold
    path = as_path(path_or_model, "path_or_model")
    folder = os.path.dirname(os.path.abspath(path))
    return Session(_read(path, external=False), sess_options, providers, provider_options, folder)


def _read(source: Any, external: bool = True) -> onnx.ModelProto:
    """The model; with ``external``, what lies beside the file, too."""
    if isinstance(source, onnx.ModelProto):
        return source
    if isinstance(source, (str, os.PathLike)):
        name = as_path(source, "path_or_model")
        check_file(name, "path_or_model")
        return _decoded(lambda: onnx.load(name, load_external_data=external), name)
    if isinstance(source, bytes):
        return _decoded(lambda: onnx.load_model_from_string(source), "path_or_model")
    raise TypeError(f"path_or_model must be a path, the bytes of a model, or an onnx.ModelProto; got {kind_of(source)}")


def _checked(model: onnx.ModelProto, source: Any) -> onnx.ModelProto:
    checked = model
    if any(one.type.HasField("tensor_type") and not one.type.tensor_type.HasField("shape")
           for one in [*model.graph.input, *model.graph.output]):  # fmt: skip
        # ONNX Runtime asks for no shapes, and the checker does
        checked = onnx.ModelProto()
        checked.CopyFrom(model)
        for one in [*checked.graph.input, *checked.graph.output]:
            one.type.tensor_type.shape.SetInParent()
    try:
        onnx.checker.check_model(checked)
    except Exception as error:  # ValidationError as a rule; of the checker's C++, of protobuf, ... too
        name = as_path(source, "path_or_model") if isinstance(source, (str, os.PathLike)) else "path_or_model"
        raise ValueError(f"{name} must be a valid ONNX model: {error}") from error
    return model


def _decoded(read: Any, name: str) -> onnx.ModelProto:
    try:
        return read()
    except Exception as error:  # protobuf's, of whichever format; of external data that is not beside the model
        raise ValueError(f"{name} must be an ONNX model; it is something else, or damaged: {error}") from error


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
    for one in _directions(layer):
        one._refuse_integers("export")
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
