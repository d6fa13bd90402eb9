"""Layers of state dicts: names and shapes tell the kind, the sizes and all options but three."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from .._arguments import kind_of
from ..cells import gru, lstm
from ..cells.cell import Cell
from ..cells.parameters import Weights, named_shapes
from ..packing.checks import as_flag
from .layer import GRU, LSTM, RNN, Layer, _as_rate
from .module import RNN_CELLS, Module, as_dtype, as_generator, as_nonlinearity, entries, option_names
from .one_step import GRUCell, LSTMCell, RNNCell
from .parametrized import as_prefix, computed_from, of_a_net
from .trees import under_pytorchs_names

__all__ = ["KINDS", "from_state_dict", "kind_by_shapes", "options_by_shapes"]

KINDS: dict[str, type[Module]] = {kind.__name__: kind for kind in (RNN, LSTM, GRU, RNNCell, LSTMCell, GRUCell)}
#: the name of a kind without Cell, and a cell that has its parameters, by the rows of its weights in H
_BY_GATES = {1: ("RNN", RNN_CELLS["tanh"]), 3: ("GRU", gru.GRU), 4: ("LSTM", lstm.LSTM)}


def from_state_dict(
    state_dict: Mapping[str, Any],
    prefix: str | None = None,
    *,
    nonlinearity: str = "tanh",
    batch_first: bool = False,
    dropout: float = 0.0,
    dtype: Any = np.float32,
    rng: Any = None,
) -> Any:
    """The layer of a recurrent module's state dict, or of one within that of a whole model.

    Kind, sizes, layers, directions, bias and projection follow from names and shapes; the arguments say the rest.

    Parameters
    ----------
    state_dict : mapping of str to array_like
        What `torch.load` or `safetensors.numpy.load_file` gives, with PyTorch's names: arrays or tensors of real
        floats. Names such as ``weight_ih``, without the ``_l0`` of a first layer, are those of one step, and make an
        RNNCell, LSTMCell or GRUCell. Where PyTorch's weight_norm (dim=0) has put two parts in place of a parameter,
        they are put together. Values may be such mappings themselves, whose names then go on behind a dot.

        Cells of Flax (linen and nnx: SimpleCell, LSTMCell, OptimizedLSTMCell, GRUCell) become layers, two in a
        ``Bidirectional`` one layer of both directions; the mapping is what ``init`` or ``nnx.to_pure_dict`` gives. So
        do cells of Equinox, of which it is ``vars(cell)``. They must have the activations of PyTorch's.
    prefix : str, optional
        What the names of the module begin with: ``"encoder.lstm."``. The last dot may be left out, and so may be all
        that is not needed to tell recurrent modules apart, as what DataParallel or a checkpoint puts before these names
        (``"module."``, ``"state_dict."``): the whole prefix where there is one of them. Entries of other modules are
        left alone.
    nonlinearity : {"tanh", "relu"}
        Of RNN and RNNCell, whose weights do not tell it.
    batch_first : bool
        Whether padded input and output are (B, T, *) instead of (T, B, *).
    dropout : float
        Between the layers, in training.
    dtype : dtype
        float32 or float64: of the layer, whatever that of the values.
    rng : None, int, or numpy.random.Generator
        Draws the seed of the dropout, as where a layer is made.

    Returns
    -------
    RNN, LSTM, GRU, RNNCell, LSTMCell or GRUCell
        Its parameters are a copy.

    Raises
    ------
    TypeError, ValueError
        If it is no mapping; if there is no recurrent module, or there are several that the prefix may mean, which are
        named; if entries of the module are missing, unknown, of other shapes, no floats or not finite, or what another
        parametrization computes a parameter from; if an argument is one that the layer has not, or is out of range.

    See Also
    --------
    load : all layers of a safetensors file.

    Examples
    --------
    >>> import numpy as np
    >>> import numba_pack as nbp
    >>> model = {"encoder.lstm.weight_ih_l0": np.ones((20, 3)), "encoder.lstm.weight_hh_l0": np.ones((20, 5))}
    >>> model |= {"encoder.lstm.bias_ih_l0": np.ones(20), "encoder.lstm.bias_hh_l0": np.ones(20)}
    >>> model |= {"decoder.weight_ih": np.ones((6, 5)), "decoder.weight_hh": np.ones((6, 2)), "out.bias": np.ones(9)}
    >>> nbp.from_state_dict(model, "encoder.lstm.", batch_first=True)
    LSTM(3, 5, batch_first=True)
    >>> nbp.from_state_dict(model, "decoder.")
    GRUCell(5, 2, bias=False)
    """
    if not isinstance(state_dict, Mapping):
        way = "; pass its state_dict()" if hasattr(state_dict, "state_dict") else ""
        raise TypeError(f"state_dict must be a mapping of names to arrays; got {kind_of(state_dict)}{way}")
    given = {
        "nonlinearity": as_nonlinearity(nonlinearity),
        "batch_first": as_flag(batch_first, "batch_first"),
        "dropout": _as_rate(dropout, "dropout"),
    }
    dtype, rng = as_dtype(dtype), as_generator(rng) if rng is not None else None
    state_dict = under_pytorchs_names(state_dict)
    prefix = _the_prefix(state_dict, None if prefix is None else as_prefix(prefix))
    tensors = _tensors(state_dict, prefix)
    try:
        kind, cell = kind_by_shapes(tensors, 1)
        options = options_by_shapes(kind, cell, tensors, 1)
    except ValueError as error:
        raise ValueError(f"state_dict must hold a recurrent net{_at(prefix)}: {error}") from error
    names = option_names(kind)
    for option, value in given.items():
        if option in names:
            options[option] = value
        elif value not in ("tanh", False, 0.0):
            raise ValueError(f"{option} must be left out: the net{_at(prefix)} is a {kind.__name__}; got {value!r}")
    layer = kind(**options, dtype=dtype, rng=rng)
    layer.load_state_dict({prefix + name: value for name, value in tensors.items()}, prefix)
    return layer


def _at(prefix: str) -> str:
    return f" at {prefix!r}" if prefix else ""


def _the_prefix(state_dict: Mapping[str, Any], asked: str | None) -> str:
    """The prefix of the one recurrent net that is meant."""
    all_of_them = sorted({found[0] for name in state_dict if (found := of_a_net(name))})
    if not all_of_them:
        raise ValueError("state_dict must hold a recurrent net, with names such as 'weight_ih_l0'; there is none")
    if asked in all_of_them:
        return asked
    meant = [one for one in all_of_them if one.startswith(asked or "")]
    meant = meant or [one for one in all_of_them if f".{asked}" in one]
    if len(meant) == 1:
        return meant[0]
    raise ValueError(
        f"prefix must tell which recurrent net is meant: one of {', '.join(map(repr, meant or all_of_them))}; "
        + (f"got {asked!r}" if asked is not None else "got none")
    )


def _tensors(state_dict: Mapping[str, Any], prefix: str) -> dict[str, np.ndarray]:
    """The parameters of the net by their names in it."""
    values, called = entries(state_dict, prefix)
    for name in values:
        if of_a_net(name) != ("", name):
            raise ValueError(f"{called(name)} must be a parameter of the recurrent net; it is not known")
        of = computed_from(name)
        if of:
            raise ValueError(f"{called(name)} is no parameter: {of}")
    return {name: value() for name, value in values.items()}


def kind_by_shapes(tensors: dict[str, np.ndarray], heads: int) -> tuple[type[Module], Cell]:
    """Which of `KINDS` has these tensors, and a cell that has its parameters."""
    step = "weight_hh" in tensors
    end = "" if step else "_l0"
    _matrix(tensors, "weight_ih" + end)
    rows, columns = _matrix(tensors, "weight_hh" + end)
    projected = "weight_hr_l0" in tensors
    hidden_size = _matrix(tensors, "weight_hr_l0")[1] if projected else columns * heads
    gates, rest = divmod(rows, hidden_size or 1)
    if rest or gates not in _BY_GATES or (projected and gates != 4):
        raise ValueError(
            f"weight_hh{end} must have H rows (RNN), 3 H (GRU) or 4 H (LSTM, the only one that may have a weight_hr) "
            f"where H = {hidden_size}; it has {rows}"
        )
    name, cell = _BY_GATES[gates]
    return KINDS[name + "Cell" * step], cell


def options_by_shapes(kind: type[Module], cell: Cell, tensors: dict[str, np.ndarray], heads: int) -> dict[str, Any]:
    """The options of a layer or a step that follow from names and shapes, which are checked."""
    end = "_l0" if issubclass(kind, Layer) else ""
    normed = "gain_ih_l0" in tensors and issubclass(kind, Layer)
    cell = cell.normalised if normed else cell
    rows, input_size = _matrix(tensors, "weight_ih" + end)
    if not input_size:
        raise ValueError(f"weight_ih{end} must have columns: input_size must be at least 1; its shape is {(rows, 0)}")
    hidden_size = outputs = rows // cell.gates_ih
    if cell.gates_hh or cell.has_product:
        hidden_size = outputs = _matrix(tensors, "weight_hh" + end)[1] * heads
    if "weight_hr_l0" in tensors:
        outputs, hidden_size = _matrix(tensors, "weight_hr_l0")
    found: dict[str, Any] = {
        "input_size": input_size,
        "hidden_size": hidden_size,
        "num_layers": max(1, sum(re.fullmatch(r"weight_ih_l\d+", name) is not None for name in tensors)),
        "bias": "bias_ih" + end in tensors,
        "bidirectional": "weight_ih_l0_reverse" in tensors,
        "proj_size": outputs if "weight_hr_l0" in tensors else 0,
        "layer_norm": normed,
    }
    sizes = {
        **found,
        "output_size": outputs,
        "num_directions": 1 + found["bidirectional"],
        "heads": heads,
        "reverse": 0,
    }
    shapes = named_shapes(cell, tuple(int(sizes[name]) for name in Weights._fields[4:]))
    _check_shapes({name if end else name.removesuffix("_l0"): shape for name, shape in shapes.items()}, tensors)
    return {option: value for option, value in found.items() if option in option_names(kind)}


def _matrix(tensors: dict[str, np.ndarray], name: str) -> tuple[int, int]:
    if name not in tensors:
        raise ValueError(f"missing: {name}; there are {', '.join(sorted(tensors))}")
    if tensors[name].ndim != 2:
        raise ValueError(f"{name} must have two dimensions; its shape is {tensors[name].shape}")
    rows, columns = tensors[name].shape
    return rows, columns


def _check_shapes(expected: dict[str, tuple[int, ...]], tensors: dict[str, np.ndarray]) -> None:
    missing, extra = expected.keys() - tensors.keys(), tensors.keys() - expected.keys()
    if missing or extra:
        raise ValueError(f"missing: {sorted(missing) or 'nothing'}, too many: {sorted(extra) or 'nothing'}")
    for name, shape in expected.items():
        if tensors[name].shape != shape:
            raise ValueError(f"{name} must have shape {shape}; it has {tensors[name].shape}")
