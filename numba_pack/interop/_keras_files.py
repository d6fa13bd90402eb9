"""Files of Keras: the recurrent layers within, without Keras.

Three formats hold weights, and two of them the configuration of the model, which is JSON: a layer is its class's name
and its options, a model has a list of layers, a wrapper has one.

``.keras`` (Keras 3) is a zip file of ``config.json`` and ``model.weights.h5``. ``.weights.h5`` (Keras 3) has a group
for each layer: ``layers/lstm_1/cell/vars/0``, by the class's name and not by the layer's, numbered where a model has
more of one class. ``.h5`` (Keras 2, and 3 when asked) has the configuration as the attribute ``model_config``, if it is
a whole model, and a group for each layer of the outermost model, whose attribute ``weight_names`` lists the weights.

Files are not trusted: nothing in them is run, and no other file is read because one names it.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import os
import re
import zipfile
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from .._arguments import kind_of
from ..layers.storage import as_path, check_file
from ..packing.checks import as_flag
from ._keras_arrays import KERAS_ACTIVATIONS, KINDS, Level, Scan, check_merged, layer_of, scan_of

__all__ = ["load"]

#: what an option is where the file has none: Keras's default
_DEFAULTS = {
    "activation": "tanh",
    "recurrent_activation": "sigmoid",
    "reset_after": True,
    "go_backwards": False,
    "merge_mode": "concat",
}
_WEIGHTS = ("kernel", "recurrent_kernel", "bias")
#: the name of a weight of Keras 2 as TensorFlow has it: ``lstm/lstm_cell/kernel:0``
_OUTPUT = re.compile(r":\d+$")
_CELL = re.compile(r"(simple_rnn|lstm|gru)_cell(_\d+)?")


class _Cell(NamedTuple):
    """One cell as the file tells it."""

    kind: str
    options: Mapping[str, Any]
    weights: list[np.ndarray]


class _Found(NamedTuple):
    """A recurrent layer: the cells of its one or two directions."""

    directions: list[list[_Cell]]
    go_backwards: bool = False
    merge_mode: str | None = "concat"


class _Described(NamedTuple):
    """A recurrent layer as a configuration tells it."""

    #: its name, behind those of the models that it is within
    names: tuple[str, ...]
    kind: str
    options: Mapping[str, Any]
    #: its group in a file of Keras 3
    group: str


def load(
    path: str | os.PathLike[str], config: str | Mapping[str, Any] | None = None, *, merged: bool = True
) -> dict[str, Any]:
    """Take the recurrent layers out of a file of Keras, without Keras.

    Parameters
    ----------
    path : str or path
        Of a ``.keras`` file, an ``.h5`` file of a whole model, or a file of weights alone (``.weights.h5``, ``.h5``).
        What it is, is seen from what it holds.
    config : str or mapping, optional
        For layers of which the file has weights but no options: all of a file of weights alone, and those within
        models and layers of the caller's own classes. Either the model's configuration, as ``model.to_json()`` gives
        it; or the options of all these layers, as far as they are not Keras's defaults: activation,
        recurrent_activation, reset_after, go_backwards, merge_mode. ``{}`` is for the defaults.
    merged : bool
        Whether a ``Bidirectional`` must have ``merge_mode="concat"``: as in `from_keras`.

    Returns
    -------
    dict of str to layer
        By the layer's name, behind the names of the models that it is within and slashes: ``"encoder/lstm"``. Within
        classes of the caller's own it is the name of the attribute. Layers are as `from_keras` makes them: of
        SimpleRNN, LSTM, GRU, `RNN` of one of their cells or of ``StackedRNNCells``, and ``Bidirectional``. All others
        are not among them.

    Raises
    ------
    TypeError, ValueError
        If it is no file of Keras, or has no such layer; if one has something that no layer here has, which is named;
        if config is needed and not given, or is something else.
    OSError
        If the file cannot be opened.
    ImportError
        Without h5py.

    See Also
    --------
    from_keras : of a layer in memory.
    from_arrays : of weights.

    Notes
    -----
    ``hard_sigmoid`` is that of the version of Keras which wrote the file. Weights of 16 bits become float32.

    Examples
    --------
    >>> import os, tempfile
    >>> import h5py
    >>> import numpy as np
    >>> import numba_pack as nbp
    >>> folder = tempfile.TemporaryDirectory()
    >>> path = os.path.join(folder.name, "tagger.weights.h5")
    >>> with h5py.File(path, "w") as file:  # as model.save_weights(path) does
    ...     for i, shape in enumerate([(3, 20), (5, 20), (20,)]):
    ...         file[f"layers/lstm/cell/vars/{i}"] = np.ones(shape, np.float32)
    >>> layers = nbp.interop.keras.load(path, {"recurrent_activation": "hard_sigmoid"})
    >>> list(layers), layers["lstm"].hidden_size
    (['lstm'], 5)
    >>> folder.cleanup()
    """
    as_flag(merged, "merged")
    name = as_path(path, "path")
    check_file(name, "path")
    model, options = _as_config(config)
    with _opened(name) as (h5, of_file, version):
        if of_file is not None and model is not None:
            raise ValueError("config must not be that of a model: the file has one of its own")
        of_file = model if of_file is None else of_file
        version = version or _major((of_file or {}).get("keras_version", ""))
        weights = _Legacy(h5) if _is_legacy(h5) else _Keras3(h5)
        found: dict[str, _Found] = {}
        taken: set[str] = set()
        for described in [] if of_file is None else _layers_of(of_file):
            found["/".join(described.names)] = _from_config(described, weights, taken)
        bare = {where: cells for where, cells in weights.bare(taken).items() if where not in found}
        if bare and options is None:
            raise ValueError(
                f"config must tell the options of {', '.join(map(repr, bare))}, of which the file has weights alone: "
                "model.to_json() or, for all of them, such as {'activation': 'relu'}, or {} for Keras's defaults"
            )
        found |= {where: _without_config(where, cells, options or {}) for where, cells in bare.items()}
    if not found:
        raise ValueError(f"path must be that of a file with recurrent layers of Keras; there are none in {name}")
    made = {}
    for where, one in found.items():
        try:
            levels = _levels(one, "hard_sigmoid_of_keras_2" if version in ("1", "2") else "hard_sigmoid")
            check_merged(levels[-1], merged, "it")
            made[where] = layer_of(levels, None)
        except (TypeError, ValueError) as error:
            raise type(error)(f"layer {where!r}: {error}") from error
    return made


# -- what is told ------------------------------------------------------------------------------------------------------


def _as_config(config: Any) -> tuple[Mapping[str, Any] | None, Mapping[str, Any] | None]:
    """The configuration of a model, and options of layers: either may be None."""
    if config is None:
        return None, None
    said = _json(config, "config") if isinstance(config, str) else config
    if not isinstance(said, Mapping):
        raise TypeError(f"config must be a mapping, or JSON of one; got {kind_of(said)}")
    if "class_name" in said:
        return said, None
    unknown = [name for name in said if name not in _DEFAULTS]
    if unknown:
        raise ValueError(
            f"config must be that of a model, with a class_name, or have options among {', '.join(_DEFAULTS)}; "
            f"got {unknown[0]!r}"
        )
    return None, said


def _json(text: Any, name: str) -> Any:
    try:
        return json.loads(text)
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"{name} must be JSON; it is something else, or damaged: {error}") from error


@contextlib.contextmanager
def _opened(path: str) -> Iterator[tuple[Any, Any, str]]:
    """The HDF5 file of weights, the configuration or None, and the major version of Keras or an empty string."""
    try:
        import h5py
    except ImportError as error:
        raise ImportError("numba_pack.interop.keras.load needs h5py: pip install h5py") from error
    config, version, source = None, "", path
    try:
        if zipfile.is_zipfile(path):
            config, version, source = _unzipped(path)
        h5 = h5py.File(source, "r")
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        what = f"{path} is something else, or damaged: {error}"
        raise ValueError(f"path must be that of a file of Keras; {what}") from error
    with h5:
        if "model_config" in h5.attrs:
            config = _json(h5.attrs["model_config"], "model_config")
        for place in (h5, _child(h5, "model_weights") or h5):
            version = version or _text(place.attrs.get("keras_version", ""))
        if config is not None and not (isinstance(config, Mapping) and "class_name" in config):
            raise ValueError(f"path must be that of a file of Keras; the config in {path} is that of no model")
        yield h5, config, _major(version)


def _unzipped(path: str) -> tuple[Any, str, Any]:
    with zipfile.ZipFile(path) as archive:
        config = _json(archive.read("config.json"), "config.json")
        about = _json(archive.read("metadata.json"), "metadata.json") if "metadata.json" in archive.namelist() else {}
        version = about.get("keras_version", "") if isinstance(about, Mapping) else ""
        return config, str(version), io.BytesIO(archive.read("model.weights.h5"))


def _major(version: Any) -> str:
    return str(version).partition(".")[0]


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


# -- from a configuration ----------------------------------------------------------------------------------------------


def _layers_of(config: Any, names: tuple[str, ...] = (), group: str = "") -> Iterator[_Described]:
    """All recurrent layers of Keras within the configuration of a model or a layer."""
    kind, options = _parts(config)
    if kind in _RECURRENT and _is_keras_own(config):
        if not _is_of_images(kind, options):
            yield _Described(names, kind, options, group)
        return
    within = options.get("layers") if isinstance(options, Mapping) else options  # a Sequential of Keras 2.1 is its list
    used: dict[str, int] = {}
    for one in within if isinstance(within, list) else []:
        name = _unique(_snake(_parts(one)[0]), used)
        yield from _layers_of(one, (*names, _name(one)), f"{group}layers/{name}/")
    if isinstance(options, Mapping) and isinstance(options.get("layer"), Mapping):  # a wrapper, such as TimeDistributed
        yield from _layers_of(options["layer"], (*names, _name(options["layer"])), f"{group}layer/")


_RECURRENT = (*KINDS, "RNN", "Bidirectional", "CuDNNLSTM", "CuDNNGRU")


def _parts(config: Any) -> tuple[str, Any]:
    if not isinstance(config, Mapping) or not isinstance(config.get("class_name"), str):
        raise ValueError(f"each layer in the config must have a class_name; got {config!r:.80}")
    return config["class_name"], config.get("config") or {}


def _name(config: Mapping[str, Any]) -> str:
    options = config.get("config")
    return str((options.get("name") if isinstance(options, Mapping) else None) or config.get("name") or "")


def _is_keras_own(config: Mapping[str, Any]) -> bool:
    """Whether it is a class of Keras; before Keras 2.13 the configuration does not tell."""
    module = config.get("module", "keras")
    return isinstance(module, str) and module.partition(".")[0] in ("keras", "tf_keras", "tensorflow")


def _is_of_images(kind: str, options: Any) -> bool:
    return kind == "Bidirectional" and _parts(options.get("layer"))[0].startswith("ConvLSTM")


def _snake(name: str) -> str:
    """The name of a class as Keras writes it in files: LSTMCell is ``lstm_cell``."""
    name = re.sub(r"\W+", "", name)
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()


def _unique(name: str, used: dict[str, int]) -> str:
    used[name] = used.get(name, -1) + 1
    return f"{name}_{used[name]}" if used[name] else name


def _from_config(one: _Described, weights: _Keras3 | _Legacy, taken: set[str]) -> _Found:
    name = "/".join(one.names)
    try:
        return _described(one, weights, taken)
    except (TypeError, ValueError) as error:
        raise type(error)(f"layer {name!r}: {error}") from error


def _described(one: _Described, weights: _Keras3 | _Legacy, taken: set[str]) -> _Found:
    if one.kind != "Bidirectional":
        directions = [(one.kind, one.options, one.group)]
    else:
        forward = one.options["layer"]
        backward = one.options.get("backward_layer") or forward
        directions = [
            (*_own(part), f"{one.group}{which}_layer/")
            for which, part in (("forward", forward), ("backward", backward))
        ]
    cells = [_cells(*direction) for direction in directions]
    groups = [group for of_direction in cells for _, _, group in of_direction]
    arrays = iter(weights.of(one.names, groups))
    taken.update(groups)
    found = [[_Cell(kind, options, next(arrays)) for kind, options, _ in of_direction] for of_direction in cells]
    backwards = bool(directions[0][1].get("go_backwards", False))
    if one.kind == "Bidirectional":
        if backwards:
            raise ValueError(
                "a Bidirectional must have a forward_layer without go_backwards, and a backward_layer with it; got the "
                "reverse"
            )
        if any(len(of_direction) > 1 for of_direction in found):
            raise ValueError("a Bidirectional must have one cell in each direction; got StackedRNNCells")
    return _Found(found, backwards, one.options.get("merge_mode", "concat"))


def _own(config: Any) -> tuple[str, Mapping[str, Any]]:
    """Class and options of a layer or cell, which must be Keras's."""
    kind, options = _parts(config)
    if not _is_keras_own(config):
        raise ValueError(f"{kind} is a class of its own, which may compute something else")
    return kind, options


def _cells(kind: str, options: Mapping[str, Any], group: str) -> list[tuple[str, Mapping[str, Any], str]]:
    """Of each cell of one direction its layer's class, its options, and its group in a file of Keras 3."""
    if kind in KINDS:
        return [(kind, options, f"{group}cell")]
    if kind != "RNN":
        raise ValueError(f"it must be a SimpleRNN, LSTM, GRU or RNN; got {kind}")
    kind, options = _own(options.get("cell"))
    if kind != "StackedRNNCells":
        return [(_kind_of_cell(kind), options, f"{group}cell")]
    used: dict[str, int] = {}
    found = []
    for one in options["cells"]:
        kind, said = _own(one)
        found.append((_kind_of_cell(kind), said, f"{group}cell/cells/{_unique(_snake(kind), used)}"))
    return found


def _kind_of_cell(kind: str) -> str:
    if kind.removesuffix("Cell") not in KINDS:
        raise ValueError(f"its cells must be of SimpleRNNCell, LSTMCell or GRUCell; got {kind}")
    return kind.removesuffix("Cell")


def _levels(found: _Found, hard_sigmoid: str) -> list[Level]:
    """What is in one layer, from the first of its cells on."""

    def activation(options: Mapping[str, Any], which: str) -> str:
        name = options.get(which, _DEFAULTS[which])
        name = "linear" if name is None else name
        if not isinstance(name, str) or name not in KERAS_ACTIVATIONS:
            listed = ", ".join(KERAS_ACTIVATIONS)
            raise ValueError(f"its {which} must be one of {listed}; got {name!r:.80}, of which there is no cell here")
        return hard_sigmoid if name == "hard_sigmoid" else name

    def scan(cell: _Cell) -> Scan:
        two_biases = cell.kind == "GRU" and bool(cell.options.get("reset_after", False))
        bias = cell.weights[2] if len(cell.weights) > 2 else None
        return scan_of(
            cell.kind, cell.weights[0], cell.weights[1], bias,
            activation(cell.options, "activation"),
            "sigmoid" if cell.kind == "SimpleRNN" else activation(cell.options, "recurrent_activation"),
            two_biases,
        )  # fmt: skip

    if len(found.directions) == 2:
        return [Level(tuple(scan(cells[0]) for cells in found.directions), merge_mode=found.merge_mode)]
    return [Level((scan(cell),), found.go_backwards) for cell in found.directions[0]]


# -- from weights alone ------------------------------------------------------------------------------------------------


def _without_config(name: str, directions: list[list[list[np.ndarray]]], options: Mapping[str, Any]) -> _Found:
    """A layer whose cells' kinds are seen from their shapes."""
    found = []
    for cells in directions:
        of_direction = []
        for weights in cells:
            kind = _kind_by_shapes(weights)
            said = {"reset_after": _DEFAULTS["reset_after"], **options}
            if len(weights) > 2:  # which tells
                said["reset_after"] = weights[2].ndim == 2
            of_direction.append(_Cell(kind, said, weights))
        found.append(of_direction)
    merge_mode = options.get("merge_mode", "concat")
    if merge_mode not in ("concat", "sum", "mul", "ave", None):
        raise ValueError(f"config must have a merge_mode of Keras's; got {merge_mode!r}")
    backwards = as_flag(options.get("go_backwards", False), "go_backwards in config")
    return _Found(found, backwards and len(found) == 1, merge_mode)


def _kind_by_shapes(weights: list[np.ndarray]) -> str:
    """The kind of layer that has weights of these shapes, or an empty string."""
    if len(weights) not in (2, 3) or weights[0].ndim != 2 or weights[1].ndim != 2:
        return ""
    (_, columns), (units, others) = weights[0].shape, weights[1].shape
    counts = {units * len(gates): kind for kind, (_, gates) in KINDS.items()}
    return counts.get(columns, "") if columns == others else ""


# -- weights -----------------------------------------------------------------------------------------------------------


def _is_legacy(h5: Any) -> bool:
    return "model_weights" in h5 or bool(_listed(h5, "layer_names"))


def _listed(group: Any, name: str) -> list[str]:
    """The texts of an attribute, which Keras splits where there are too many for one."""
    if name in group.attrs:
        return [_text(one) for one in group.attrs[name]]
    chunks = itertools.takewhile(group.attrs.__contains__, (f"{name}{i}" for i in itertools.count()))
    return [_text(one) for chunk in chunks for one in group.attrs[chunk]]


def _child(group: Any, name: str) -> Any:
    """What has this name in a group; None if there is nothing. Links to elsewhere are refused."""
    import h5py

    if not isinstance(group, h5py.Group) or name not in group:
        return None
    if not isinstance(group.get(name, getlink=True), h5py.HardLink):
        raise ValueError(f"the file must hold all that is in it; {group.name}/{name} is a link to elsewhere")
    return group[name]


def _at(group: Any, path: str) -> Any:
    for name in filter(None, path.split("/")):
        group = _child(group, name)
    return group


def _array(dataset: Any) -> np.ndarray:
    """The values of a dataset, those of 16 bits in float32."""
    import h5py

    if not isinstance(dataset, h5py.Dataset) or dataset.shape is None:
        raise ValueError("its weights must be arrays; one is none")
    if dataset.external or dataset.is_virtual:
        raise ValueError(f"the file must hold all that is in it; {dataset.name} is kept elsewhere")
    if dataset.compression is None and dataset.id.get_storage_size() < dataset.nbytes:
        raise ValueError(f"the file must hold all that is in it; {dataset.name} is not there as a whole")
    value: np.ndarray = np.asarray(dataset[()])
    if _text(dataset.attrs.get("dtype", "")) == "bfloat16" and value.dtype.itemsize == 2:
        return (value.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
    return value.astype(np.float32) if value.dtype == np.float16 else value.astype(value.dtype.newbyteorder("="))


class _Keras3:
    """Weights by the path of groups that leads to the object which has them."""

    def __init__(self, h5: Any) -> None:
        self.h5 = h5

    def of(self, names: tuple[str, ...], groups: list[str]) -> list[list[np.ndarray]]:
        """The weights of each cell of a layer."""
        return [self._of_cell(group) for group in groups]

    def _of_cell(self, group: str) -> list[np.ndarray]:
        variables = _at(self.h5, f"{group}/vars")
        found = [_child(variables, str(i)) for i in range(3)]
        if found[0] is None or found[1] is None:
            raise ValueError(f"its weights must be in the file, at {group}/vars; they are not")
        return [_array(one) for one in found if one is not None]

    def bare(self, taken: set[str]) -> dict[str, list[list[list[np.ndarray]]]]:
        """By name the weights of all cells, of either direction, that are not taken."""
        cells = {
            path: weights
            for path, name in self._cells(self.h5, "", 0)
            if path not in taken and _CELL.fullmatch(name) and _kind_by_shapes(weights := self._of_cell(path))
        }
        return _by_layer(cells, self._called)

    def _cells(self, group: Any, path: str, depth: int) -> Iterator[tuple[str, str]]:
        """Paths of all groups that may be a cell's, and what the cell is called, as far as the file tells."""
        import h5py

        if depth > 100:
            raise ValueError("path must be that of a file of Keras; its groups are within each other without end")
        for name in group:
            child = _child(group, name)
            if not isinstance(child, h5py.Group) or name == "vars":
                continue
            inner = f"{path}/{name}".lstrip("/")
            variables = _child(child, "vars")
            if (name == "cell" or path.endswith("/cells")) and _child(variables, "1") is not None:
                told = _text(variables.attrs.get("name", "")) or _own_name(path, name)
                yield inner, told
            yield from self._cells(child, inner, depth + 1)

    def _called(self, path: str) -> str:
        """What users call the layer of a group: in ``layers`` by its name, elsewhere by the attribute that holds it."""
        parts = path.split("/")
        found = []
        for i, part in enumerate(parts):
            if part == "layers" and i + 1 < len(parts):
                continue
            variables = _at(self.h5, "/".join([*parts[: i + 1], "vars"])) if i and parts[i - 1] == "layers" else None
            found.append(_text(variables.attrs.get("name", part)) if variables is not None else part)
        return "/".join(found)


def _own_name(path: str, name: str) -> str:
    """What a cell of Keras is called in its layer, whose group has the name of its class in files before Keras 3.6."""
    if name != "cell":
        return name
    return "" if re.search(r"(^|/)layers/rnn(_\d+)?(/(forward|backward)_layer)?$", path) else "lstm_cell"


def _by_layer(cells: Mapping[str, Any], called: Any) -> dict[str, list[list[Any]]]:
    """Cells put together to layers: first by the path of the layer, then by direction."""
    found: dict[str, dict[str, list[Any]]] = {}
    for path, weights in cells.items():
        layer = re.sub(r"/cell(/cells/.*)?$", "", path)
        match = re.fullmatch(r"(.*)/(forward|backward)_layer", layer)
        layer, which = (match[1], match[2]) if match else (layer, "forward")
        found.setdefault(called(layer), {}).setdefault(which, []).append(weights)
    return {name: [both[which] for which in ("forward", "backward") if which in both] for name, both in found.items()}


class _Legacy:
    """Weights by the layers of the outermost model, each of which lists the names of its own and of what it holds."""

    def __init__(self, h5: Any) -> None:
        self.h5 = _child(h5, "model_weights") or h5
        self.taken: set[tuple[str, str]] = set()

    def of(self, names: tuple[str, ...], groups: list[str]) -> list[list[np.ndarray]]:
        """The weights of each cell of a layer."""
        cells = self._within(names[0])
        for within in (names[1:], names[-1:]):  # Keras 2 names no models in between
            chosen = {name: weights for name, weights in cells.items() if _leads(within, name.split("/")[:-1])}
            if len(chosen) == len(groups):
                self.taken.update((names[0], name) for name in chosen)
                return [[_array(one) for one in weights.values()] for weights in chosen.values()]
        raise ValueError(f"its weights must be in the file, of {len(groups)} cells; those of {len(chosen)} are")

    def _within(self, layer: str) -> dict[str, dict[str, Any]]:
        """The weights of all cells in a layer of the model, by the name of the first of each."""
        group = _child(self.h5, layer)
        cells: dict[str, dict[str, Any]] = {}
        last = ""
        for name in [] if group is None else _listed(group, "weight_names"):
            *_, weight = _OUTPUT.sub("", name).split("/")
            if weight == "kernel":
                last = name
            if weight in _WEIGHTS:
                cells.setdefault(last, {})[weight] = _at(group, name)
        return {name: weights for name, weights in cells.items() if "recurrent_kernel" in weights}

    def bare(self, taken: set[str]) -> dict[str, list[list[list[np.ndarray]]]]:
        """By name the weights of all cells, of either direction, that are not taken."""
        cells: dict[str, list[np.ndarray]] = {}
        for layer in _listed(self.h5, "layer_names"):
            for name, datasets in self._within(layer).items():
                weights = [] if (layer, name) in self.taken else [_array(one) for one in datasets.values()]
                if _kind_by_shapes(weights):
                    cells[f"{_layer_of_weight(name)}/cell/cells/{len(cells)}"] = weights
        return _by_layer(cells, str)


def _leads(within: tuple[str, ...], parts: list[str]) -> bool:
    """Whether a path goes through all these names, in their order."""
    rest = iter(parts)
    return all(name in rest for name in within)


def _layer_of_weight(name: str) -> str:
    """The path of the layer that a weight of ``lstm/lstm_cell/kernel:0`` is of, told as one of Keras 3."""
    parts = [part for part in name.split("/")[:-1] if part != "stacked_rnn_cells" and not _CELL.fullmatch(part)]
    parts = [part for part, before in zip(parts, [None, *parts], strict=False) if part != before]
    which = re.match(r"(forward|backward)_", parts[-1]) if len(parts) > 1 else None
    return "/".join([*parts[:-1], f"{which[1]}_layer"] if which else parts)
