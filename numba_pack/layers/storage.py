"""Layers in files: the safetensors format, with PyTorch's names as keys and the options as metadata.

A layer's parameters are tensors of the file; if the layer has a name, theirs begin with it and a dot, as in the state
dict of a PyTorch model. The metadata have one entry, ``numba_pack``: JSON, ``{name: {"kind": "LSTM", "input_size": 3,
...}}``, where a layer without a name has the name ``""``. The kind is what `numba_pack` or `numba_pack.cells` calls it;
a layer of a cell of the user's own has ``"cell": name`` in its place. One that is quantized has ``"quantize": "int8"``
besides, and for each matrix of integers a tensor of scales. Formulas are not in files, and no code that a
file names is run. A file of other origin need not have metadata: all but three options follow from names and shapes.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import stat
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from types import MappingProxyType, ModuleType
from typing import Any, NamedTuple

import numpy as np

from .. import cells as published
from .._arguments import kind_of
from ..cells.cell import Cell
from .from_names import KINDS, kind_by_shapes, options_by_shapes
from .layer import Layer, layer_of
from .module import Module, as_generator, option_names
from .parametrized import computed_from, of_a_net, resolved
from .quantized import SCALE, floats_of
from .stack import Stack

__all__ = ["as_path", "check_file", "load", "save", "write"]

#: those that `numba_pack.cells` names
_PUBLISHED: dict[str, Cell] = {
    name: value for name in published.__all__ if isinstance(value := getattr(published, name), Cell)
}
_UNIT_WEIGHT = r"(?s)(?P<prefix>(?:.+\.)?)(?P<name>(?P<unit>[^.]+)_l\d+(?:_reverse)?)"
#: what a tensor may be in a file, and in what it is read: the narrow ones in what the layer computes in
_DTYPES = {"F16": np.float32, "BF16": np.float32, "F32": np.float32, "F64": np.float64}

#: what reads the files of others, by the end of their names
_OTHERS = {
    **dict.fromkeys((".pt", ".pth", ".bin"), "; numba_pack.from_state_dict(torch.load(path)) takes a state dict"),
    ".onnx": "; numba_pack.interop.onnx.layers(path) reads those of ONNX",
    **dict.fromkeys((".keras", ".h5"), "; numba_pack.interop.keras.load(path) reads those of Keras"),
}


def _safetensors() -> ModuleType:
    try:
        import safetensors.numpy
    except ImportError as error:
        raise ImportError("files of layers need safetensors: pip install safetensors") from error
    return safetensors


def as_path(path: Any, name: str) -> str:
    """A path as a string."""
    try:
        text = os.fspath(path)
    except TypeError:
        text = path
    if not isinstance(text, str):
        raise TypeError(f"{name} must be a str or a path; got {kind_of(path)}")
    if "\0" in text:
        raise ValueError(f"{name} must have no null character; got {text!r}")
    return text


# -- out ---------------------------------------------------------------------------------------------------------------


def check_file(path: str, name: str) -> None:
    """Refuse, in Python's words, what cannot be read; and what is not a file, since reading it might never end."""
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise OSError(f"{name} must be that of a file; {path} is none")
    with open(path, "rb"):
        pass


def write(path: str, content: bytes) -> None:
    """Replace a file as a whole: whoever reads the path meanwhile, or after an interrupt, finds the old one."""
    target = os.path.realpath(path)  # where a link leads
    if os.path.exists(target) and not stat.S_ISREG(os.stat(target).st_mode):
        what = "a folder" if os.path.isdir(target) else "no file, but a device or a pipe"
        raise OSError(f"path must be that of a file; {path} is {what}")
    beside = f"{target}.{secrets.token_hex(4)}.tmp"
    try:
        with open(beside, "xb") as file:
            file.write(content)
        if os.path.exists(target):
            shutil.copymode(target, beside)
        os.replace(beside, target)
    except FileNotFoundError as error:
        raise FileNotFoundError(error.errno, error.strerror, path) from error
    finally:
        if os.path.exists(beside):
            os.remove(beside)


def save(path: str | os.PathLike[str], layers: Any) -> None:
    """Write a layer, or several, into a safetensors file.

    Parameters
    ----------
    path : str or path
        Of the file, which is replaced if it exists, as a whole or not at all.
    layers : RNN, LSTM, GRU, RNNCell, LSTMCell, GRUCell, a layer of any cell, or mapping of str to such
        The names of a mapping come before those of the parameters: ``encoder.weight_ih_l0``. Of a cell, its name alone
        is written, not its formula.

    Raises
    ------
    TypeError, ValueError
        If something is not a layer, or a name is not a text of at least one letter.
    OSError
        If the file cannot be written.
    ImportError
        If safetensors is not installed.

    See Also
    --------
    load : the way back.

    Examples
    --------
    >>> import os, tempfile
    >>> import numba_pack as nbp
    >>> folder = tempfile.TemporaryDirectory()
    >>> path = os.path.join(folder.name, "tagger.safetensors")
    >>> nbp.save(path, {"encoder": nbp.LSTM(3, 5, bidirectional=True), "decoder": nbp.GRUCell(10, 5)})
    >>> nbp.load(path)
    {'encoder': LSTM(3, 5, bidirectional=True), 'decoder': GRUCell(10, 5)}
    >>> folder.cleanup()
    """
    safetensors, path = _safetensors(), as_path(path, "path")
    named = layers if isinstance(layers, Mapping) else {"": layers}
    if not named:
        raise ValueError("layers must hold at least one layer; got an empty mapping")
    tensors, metadata = {}, {}
    for name, layer in named.items():
        if not isinstance(name, str):
            raise TypeError(f"layers must have names that are strings; got {name!r}")
        if not name and layer is not layers:
            raise ValueError("layers must have names that are not empty; got ''")
        try:
            name.encode()
        except UnicodeEncodeError as error:
            raise ValueError(f"layers must have names that are text; got {name!r}: {error}") from error
        what = _what(layer.layers[0] if isinstance(layer, Stack) else layer)
        if not what:
            at = f"layers[{name!r}]" if name else "layers"
            raise TypeError(
                f"{at} must be made by RNN, LSTM, GRU, RNNCell, LSTMCell, GRUCell or a cell; "
                f"got {kind_of(layer, *KINDS.values(), Layer)}"
            )
        tensors.update({f"{name}.{key}" if name else key: value for key, value in layer.state_dict().items()})
        metadata[name] = {**what, **layer._options(), **({"quantize": "int8"} if layer._is_quantized else {})}
    text = json.dumps(metadata, default=lambda number: number.item())  # of NumPy, as options may be
    write(path, safetensors.numpy.save(tensors, {"numba_pack": text}))


def _what(layer: Any) -> dict[str, str]:
    """What a file tells of the class of a layer and of its cell; nothing if it would not keep them."""
    if KINDS.get(type(layer).__name__) is type(layer):
        return {"kind": type(layer).__name__}
    if type(layer) is not Layer:
        return {}
    cell: Cell = layer.cell.base
    return {"kind" if _PUBLISHED.get(cell.name) is cell else "cell": cell.name}


# -- in ----------------------------------------------------------------------------------------------------------------


def load(
    path: str | os.PathLike[str],
    *,
    cells: Iterable[Cell] = (),
    nonlinearity: str | None = None,
    batch_first: bool | None = None,
    dropout: float | None = None,
    rng: Any = None,
) -> Any:
    """Read the layers of a safetensors file, of `save` or of PyTorch.

    A file of other origin may hold the state dict of a whole model: its recurrent layers and cells are read, by the
    names that they have there, and other tensors are left alone. Kind, sizes, layers, directions, bias, projection and
    dtype follow from the tensors; F16 and BF16 become float32. The arguments say the rest, for all layers of
    the file that have such an option. Layers that were saved with a ``matmul_precision`` have it again, whatever the
    default is; those of other origin have the default.

    Parameters
    ----------
    path : str or path
    cells : iterable of Cell
        Those of your own that layers in the file are of. They are found by their names, and so are, without being
        given, those of `numba_pack.cells`.
    nonlinearity : {"tanh", "relu"}, optional
        Of RNN and RNNCell; has to be given if the file does not say.
    batch_first : bool, optional
        False if neither the caller nor the file says.
    dropout : float, optional
        0 if neither the caller nor the file says.
    rng : None, int, or numpy.random.Generator
        Draws the seed of the dropout of each layer, as where a layer is made.

    Returns
    -------
    RNN, LSTM, GRU, RNNCell, LSTMCell, GRUCell, a layer of another cell, or dict of str to such
        A dict if the layers have names.

    Raises
    ------
    TypeError, ValueError
        If it is not a path; if the file is damaged, or holds no layers; if parameters do not belong together, are
        no floats of 16, 32 or 64 bits, or are missing, with what PyTorch computes them from in their place (but for its
        weight_norm, which is put together); if the cell of a layer is not known.
    OSError
        If it cannot be opened.
    ImportError
        If safetensors is not installed.

    Examples
    --------
    >>> import os, tempfile
    >>> import numba_pack as nbp
    >>> folder = tempfile.TemporaryDirectory()
    >>> path = os.path.join(folder.name, "lstm.safetensors")
    >>> nbp.save(path, nbp.LSTM(3, 5, num_layers=2, batch_first=True))
    >>> nbp.load(path)
    LSTM(3, 5, num_layers=2, batch_first=True)

    A layer of a cell of one's own:

    >>> from numba_pack.cells import cell, tanh
    >>> @cell(sums="a", state="h")
    ... def Elman(a, h):
    ...     return tanh(a)
    >>> nbp.save(path, Elman(3, 5))
    >>> nbp.load(path, cells=[Elman])
    Elman(3, 5)
    >>> folder.cleanup()
    """
    given = {"nonlinearity": nonlinearity, "batch_first": batch_first, "dropout": dropout}
    given = {name: value for name, value in given.items() if value is not None}
    path = as_path(path, "path")
    rng = None if rng is None else as_generator(rng)
    told, tensors = _read(path, _by_name(cells))
    try:
        missing = told.keys() - tensors.keys()
        if missing:
            raise ValueError(f"there are no parameters of {', '.join(map(_called, sorted(missing)))}")
        if not tensors:
            raise ValueError("there are no parameters of recurrent layers")
        layers = {
            name: _layer(name, tensors[name], told.get(name, _Told()), given, rng) for name in {**told, **tensors}
        }
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return layers[""] if layers.keys() == {""} else layers


def _called(name: str) -> str:
    return f"layer {name!r}" if name else "the layer"


class _Told(NamedTuple):
    """What the metadata tell of a layer."""

    #: None for one of `KINDS`
    cell: Cell | None = None
    #: and, of one of `KINDS`, its "kind"
    options: Mapping[str, Any] = MappingProxyType({})
    quantized: bool = False


def _by_name(cells: Any) -> dict[str, Cell]:
    """The cells that the caller gives."""
    found: dict[str, Cell] = {}
    try:
        given = list(cells)
    except TypeError:
        raise TypeError(f"cells must be a list of cells; got {kind_of(cells)}") from None
    for cell in given:
        if not isinstance(cell, Cell):
            raise TypeError(f"cells must be a list of cells, as numba_pack.cells.cell makes; got {kind_of(cell)} in it")
        if found.setdefault(cell.name, cell) is not cell:
            raise ValueError(f"cells must have a name of its own each; got two that are called {cell.name}")
    return found


def _read(path: str, cells: Mapping[str, Cell]) -> tuple[dict[str, _Told], dict[str, dict[str, np.ndarray]]]:
    """What our metadata tell of each layer, and its tensors by their names."""
    safetensors = _safetensors()
    keys: dict[str, dict[str, str]] = {}
    check_file(path, "path")
    try:
        with safetensors.safe_open(path, framework="np") as file:
            told = _metadata((file.metadata() or {}).get("numba_pack", "{}"), cells)
            for key in file.keys():  # noqa: SIM118 (it is no mapping)
                found = of_a_net(key) or _unit_weight(key, told) or _scales(key, told)
                if found:
                    prefix, name = found
                    keys.setdefault(prefix[:-1], {})[name] = key  # without its dot
            return told, {
                layer: _tensors(file, path, named, told.get(layer, _Told()).quantized) for layer, named in keys.items()
            }
    except safetensors.SafetensorError as error:
        way = _OTHERS.get(os.path.splitext(path)[1], "")
        raise ValueError(f"{path}: not a safetensors file, or a damaged one{way}: {error}") from error
    except (ValueError, OverflowError) as error:  # shapes that NumPy cannot have among them
        raise ValueError(f"{path}: {error}") from error


def _tensors(file: Any, path: str, keys: Mapping[str, str], quantized: bool) -> dict[str, np.ndarray]:
    """The parameters of a layer by their names in it, of their keys in the file."""
    dtypes = _DTYPES | ({"I8": np.int8} if quantized else {})

    def called(name: str) -> str:
        return repr(keys[name])

    def read(name: str) -> np.ndarray:
        part = file.get_slice(keys[name])
        dtype = part.get_dtype()
        if dtype not in dtypes:
            raise ValueError(f"{called(name)} must be F16, BF16, F32 or F64; it is {dtype}")
        if dtype == "BF16":
            return _bfloat16(path, keys[name], part.get_shape())
        value: np.ndarray = file.get_tensor(keys[name]).astype(dtypes[dtype], copy=False)
        return value

    values = resolved(keys, read, called)
    for name in values:
        of = computed_from(name)
        if of:
            raise ValueError(f"{called(name)} is no parameter: {of}")
    tensors = {name: value() for name, value in values.items()}
    return floats_of(tensors) if quantized else tensors


def _bfloat16(path: str, key: str, shape: Sequence[int]) -> np.ndarray:
    """A tensor that NumPy has no dtype for: each number is the upper half of one of float32."""
    with open(path, "rb") as file:
        header = int.from_bytes(file.read(8), "little")
        begin, end = json.loads(file.read(header))[key]["data_offsets"]
        file.seek(8 + header + begin)
        halves = np.frombuffer(file.read(end - begin), "<u2").astype(np.uint32)
    return (halves << 16).view(np.float32).reshape(shape)


def _unit_weight(key: str, told: Mapping[str, _Told]) -> tuple[str, str] | None:
    """The prefix and the rest of the name of a unit weight of a layer whose cell is told; None for other tensors."""
    match = re.fullmatch(_UNIT_WEIGHT, key)
    cell = told.get(match["prefix"][:-1], _Told()).cell if match else None
    return (match["prefix"], match["name"]) if match and cell and match["unit"] in cell.arguments.unit_weights else None


def _scales(key: str, told: Mapping[str, _Told]) -> tuple[str, str] | None:
    """The prefix and the rest of the name of the scales of a layer that is quantized; None for other tensors."""
    found = of_a_net(key.removesuffix(SCALE)) if key.endswith(SCALE) else None
    return (found[0], found[1] + SCALE) if found and told.get(found[0][:-1], _Told()).quantized else None


def _metadata(text: str, cells: Mapping[str, Cell]) -> dict[str, _Told]:
    """The cell and the options of each layer by its name."""
    try:
        told = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"the metadata 'numba_pack' must be JSON: {error}") from error
    if not isinstance(told, dict) or not all(isinstance(options, dict) for options in told.values()):
        raise ValueError("the metadata 'numba_pack' must be a mapping of names of layers to their options")
    return {name: _told(name, options, cells) for name, options in told.items()}


def _told(layer: str, options: dict[str, Any], cells: Mapping[str, Cell]) -> _Told:
    options = {"matmul_precision": "highest", **options}  # in which those were computed whose files do not tell it
    quantized = options.pop("quantize", None)
    if quantized not in (None, "int8"):
        raise ValueError(f"{_called(layer)}: it must be quantized to 'int8', or not; its metadata tell {quantized!r}")
    key = "cell" if "cell" in options else "kind"
    name = options.get(key)
    if key == "kind" and (name is None or (name in list(KINDS) and not options.get("reverse"))):
        return _Told(None, options, quantized == "int8")  # which have no such option
    known = cells if key == "cell" else {**cells, **_PUBLISHED}
    if not isinstance(name, str) or name not in known:
        raise ValueError(f"{_called(layer)}: its cell {name!r} is not known: pass it in cells=[...]")
    del options[key]
    return _Told(known[name], options, quantized == "int8")


def _layer(name: str, tensors: dict[str, np.ndarray], told: _Told, given: dict[str, Any], rng: Any) -> Module:
    """The layer of these tensors, with the options that they, the metadata and the caller tell."""
    try:
        heads = told.options.get("heads", 1)
        heads = heads if type(heads) is int and heads > 0 else 1
        kind, cell = (Layer, told.cell) if told.cell else kind_by_shapes(tensors, heads)
        find = _found_in_each if isinstance(told.options.get("hidden_size"), list) else options_by_shapes
        found, dtype, names = find(kind, cell, tensors, heads), _dtype(tensors), option_names(kind, told.cell)
        for option, value in {"kind": kind.__name__, **found}.items():
            if told.options.get(option, value) != value:
                raise ValueError(f"its metadata tell {option}={told.options[option]!r}, its tensors {value!r}")
        options = {option: value for option, value in told.options.items() if option != "kind"}
        unknown = options.keys() - set(names)
        if unknown:
            called = told.cell.name if told.cell else kind.__name__
            raise ValueError(f"its metadata tell options that a {called} has not: {', '.join(sorted(unknown))}")
        options |= found | {option: value for option, value in given.items() if option in names}
        if "nonlinearity" in names and "nonlinearity" not in options:
            raise ValueError("the file does not tell its nonlinearity: pass nonlinearity='tanh' or 'relu'")
        make: Callable[..., Module] = partial(layer_of, told.cell) if told.cell else kind
        layer = make(**options, dtype=dtype, rng=rng)
        layer.load_state_dict(tensors)
        if told.quantized:
            layer = layer.quantize("int8")  # to the bits that the file has: see ``quantized.py``
    except (ValueError, TypeError) as error:
        raise ValueError(f"{_called(name)}: {error}") from error
    return layer


def _dtype(tensors: dict[str, np.ndarray]) -> np.dtype[Any]:
    dtypes = {tensor.dtype for tensor in tensors.values()}
    if len(dtypes) > 1:
        raise ValueError(f"its parameters must have one dtype; they have {', '.join(sorted(map(str, dtypes)))}")
    return dtypes.pop()


def _found_in_each(kind: type[Module], cell: Cell, tensors: dict[str, np.ndarray], heads: int) -> dict[str, Any]:
    """The same of layers of different widths, whose parameters fit together if the layer takes them in the end."""
    layers: dict[int, dict[str, np.ndarray]] = {}
    for name, tensor in tensors.items():
        match = re.fullmatch(r"(.+_l)(\d+)(|_reverse)", name)
        if not match:
            raise ValueError(f"{name} must end in the number of its layer where hidden_size is a list")
        layers.setdefault(int(match[2]), {})[f"{match[1]}0{match[3]}"] = tensor
    found = [options_by_shapes(kind, cell, layers[i], heads) for i in sorted(layers)]
    return {**found[0], "hidden_size": [one["hidden_size"] for one in found], "num_layers": len(found)}
