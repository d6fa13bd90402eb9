"""The cells of ONNX's operators RNN, LSTM and GRU, made of the attributes of a node.

What chooses the formula, such as the names of activations, is a `Composition`, and `cell_of` gives the cell of it. The
numbers, such as an alpha, are constants of that cell, so that others need no code of their own.

The equations are those of ONNX's documentation of the operators. Its gates are i, o, f, c (LSTM) and z, r, h (GRU), in
this order in the rows of its weights; here they have the names that they have in ``numba_pack.cells``, g for c and n
for h.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from ..cells.cell import Cell, cell
from ..cells.cifg import CIFG
from ..cells.functions import (
    clip,
    elu,
    hard_sigmoid,
    leaky_relu,
    product,
    relu,
    sigmoid,
    softplus,
    softsign,
    tanh,
    where,
)
from ..cells.gru import GRU
from ..cells.gru_reset_before import GRUResetBefore
from ..cells.lstm import LSTM
from ..cells.peephole_lstm import PeepholeLSTM
from ..cells.rnn import RNNRelu, RNNTanh

__all__ = [
    "ACTIVATIONS",
    "DEFAULTS",
    "GATES",
    "PLACES",
    "Composition",
    "cell_of",
    "composition_of",
    "onnx_weights",
    "state_dict",
]

#: f of an RNN; f and g of a GRU; f, g and h of an LSTM
DEFAULTS = {"RNN": ("Tanh",), "GRU": ("Sigmoid", "Tanh"), "LSTM": ("Sigmoid", "Tanh", "Tanh")}
#: ONNX's names for those places
PLACES = "fgh"
#: the gates in the order of ONNX's rows
GATES = {"RNN": ("a",), "LSTM": ("i", "o", "f", "g"), "GRU": ("z", "r", "n")}
#: arguments of cells that are sums of the gate n, each of other products
_OF_N = {"n_x": "n", "n_h": "n", "product": "n"}
#: the gates of peepholes in the order of ONNX's P
_PEEPHOLES = ("p_i", "p_o", "p_f")


class Activation(NamedTuple):
    """One function of ONNX's list."""

    #: of x, and of alpha and beta as far as it has them
    function: Callable[..., Any]
    #: alpha and beta where they are not given; None where they must be
    defaults: dict[str, float | None]


#: by ONNX's names. The defaults are those of the operators of these names; Affine and ScaledTanh are none any more.
ACTIVATIONS = {
    "Sigmoid": Activation(sigmoid, {}),
    "Tanh": Activation(tanh, {}),
    "Relu": Activation(relu, {}),
    "Affine": Activation(lambda x, alpha, beta: alpha * x + beta, {"alpha": None, "beta": None}),
    "LeakyRelu": Activation(leaky_relu, {"alpha": 0.01}),
    "ThresholdedRelu": Activation(lambda x, alpha: where(x < alpha, 0.0, x), {"alpha": 1.0}),
    "ScaledTanh": Activation(lambda x, alpha, beta: alpha * tanh(beta * x), {"alpha": None, "beta": None}),
    "HardSigmoid": Activation(hard_sigmoid, {"alpha": 0.2, "beta": 0.5}),
    "Elu": Activation(elu, {"alpha": 1.0}),
    "Softsign": Activation(softsign, {}),
    "Softplus": Activation(softplus, {}),
}


class Composition(NamedTuple):
    """What chooses the formula of a node; equal ones have one cell."""

    #: RNN, LSTM or GRU
    operator: str
    #: f (RNN), f and g (GRU), or f, g and h (LSTM), by ONNX's names
    activations: tuple[str, ...]
    #: the sums of the gates are kept between -clip and clip. The c of an LSTM is no such sum: ONNX's text can be read
    #: otherwise, but ONNX Runtime and OpenVINO do not bound it either.
    clip: bool = False
    #: LSTM: gates see c, o the new one
    peepholes: bool = False
    #: LSTM: the forget gate is one minus the input gate, and has no weights
    input_forget: bool = False
    #: GRU: the reset gate multiplies the product with the state, and not the state
    linear_before_reset: bool = False

    def __str__(self) -> str:
        said = [*self.activations] if self.activations != DEFAULTS[self.operator] else []
        said += [name for name, value in self._asdict().items() if value is True]
        return f"{self.operator}[{', '.join(said)}]"


#: those that have a cell in ``numba_pack.cells``
_PUBLISHED = {
    Composition("RNN", ("Tanh",)): RNNTanh,
    Composition("RNN", ("Relu",)): RNNRelu,
    Composition("LSTM", DEFAULTS["LSTM"]): LSTM,
    Composition("LSTM", DEFAULTS["LSTM"], peepholes=True): PeepholeLSTM,
    Composition("LSTM", DEFAULTS["LSTM"], input_forget=True): CIFG,
    Composition("GRU", DEFAULTS["GRU"]): GRUResetBefore,
    Composition("GRU", DEFAULTS["GRU"], linear_before_reset=True): GRU,
}


@functools.cache
def cell_of(of: Composition) -> Cell:
    """The cell of a composition: always the same one."""
    if of in _PUBLISHED:
        return _PUBLISHED[of]
    step, kinds = _STEPS[of.operator](of)

    def formula(**numbers: Any) -> Any:
        return step(_Numbers(of, numbers))

    constants = _constants(of)
    names = " ".join([*kinds.values(), *constants]).split()
    formula.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=constants.get(name, inspect.Parameter.empty))
         for name in names]
    )  # fmt: skip
    formula.__name__ = formula.__qualname__ = str(of)
    formula.__doc__ = f"One step of ONNX's {of.operator} with the attributes in its name."
    made = cell(**kinds, constants=" ".join(constants))(formula)
    made.made_by = cell_of, (of,)
    return made


def composition_of(cell: Cell) -> Composition | None:
    """The composition that this cell is of, or None for another cell."""
    if cell.made_by is not None and cell.made_by[0] is cell_of:
        found: Composition = cell.made_by[1][0]
        return found
    return next((of for of, published in _PUBLISHED.items() if published is cell), None)


def _constants(of: Composition) -> dict[str, float]:
    """Names of the numbers of a composition, and their defaults: by which a clip is none, and Affine is x."""
    found = {"clip": float(np.finfo(np.float32).max)} if of.clip else {}
    for place, name in zip(PLACES, of.activations, strict=False):
        for label, value in ACTIVATIONS[name].defaults.items():
            found[f"{place}_{label}"] = float(label == "alpha") if value is None else value
    return found


class _Numbers:
    """The numbers of a formula by their names, and what is done to them."""

    def __init__(self, of: Composition, numbers: Mapping[str, Any]) -> None:
        self.of, self.numbers = of, numbers

    def __getitem__(self, name: str) -> Any:
        return self.numbers[name]

    def activated(self, place: str, x: Any) -> Any:
        """The activation in this place, f, g or h, of x."""
        function, defaults = ACTIVATIONS[self.of.activations[PLACES.index(place)]]
        return function(x, *[self[f"{place}_{label}"] for label in defaults])

    def gate(self, place: str, x: Any) -> Any:
        """The same of a sum, which is bounded before."""
        return self.activated(place, clip(x, -self["clip"], self["clip"]) if self.of.clip else x)

    def with_peephole(self, name: str, c: Any) -> Any:
        """The sum of a gate that sees c, if gates do."""
        return self[name] + self[f"p_{name}"] * c if self.of.peepholes else self[name]


def _rnn(of: Composition) -> tuple[Callable[[_Numbers], Any], dict[str, Any]]:
    return lambda x: x.gate("f", x["a"]), {"sums": "a", "state": "h"}


def _lstm(of: Composition) -> tuple[Callable[[_Numbers], Any], dict[str, Any]]:
    def step(x: _Numbers) -> Any:
        c = x["c"]
        i, g = x.gate("f", x.with_peephole("i", c)), x.gate("g", x["g"])
        c = c + i * (g - c) if of.input_forget else x.gate("f", x.with_peephole("f", c)) * c + i * g
        return x.gate("f", x.with_peephole("o", c)) * x.activated("h", c), c

    gates = "i g o" if of.input_forget else "i f g o"
    peepholes = [f"p_{gate}" for gate in gates.split() if gate != "g"] if of.peepholes else []
    return step, {"sums": gates, "state": "h c", "unit_weights": " ".join(peepholes)}


def _gru(of: Composition) -> tuple[Callable[[_Numbers], Any], dict[str, Any]]:
    def step(x: _Numbers) -> Any:
        h, r, z = x["h"], x.gate("f", x["r"]), x.gate("f", x["z"])
        n = x.gate("g", x["n_x"] + (r * x["n_h"] if of.linear_before_reset else product(r * h)))
        return n + z * (h - n)

    of_state = "n_h" if of.linear_before_reset else ""
    return step, {"sums": "r z", "of_input": "n_x", "of_state": of_state, "state": "h"}


_STEPS = {"RNN": _rnn, "LSTM": _lstm, "GRU": _gru}


# -- weights -----------------------------------------------------------------------------------------------------------


def _rows(operator: str, of: Cell) -> tuple[list[int], list[int]]:
    """For each block of rows of ``weight_ih``, and of ``weight_hh``, that of ONNX's."""
    kinds, gates = of.arguments, GATES[operator]
    of_input, of_state = [*kinds.sums, *kinds.of_input], [*kinds.sums, *kinds.of_state, *["product"] * of.has_product]

    def numbers(names: list[str]) -> list[int]:
        return [gates.index(_OF_N.get(name, name)) for name in names]

    return numbers(of_input), numbers(of_state)


def state_dict(operator: str, of: Cell, W: Any, R: Any, B: Any, P: Any) -> dict[str, np.ndarray]:
    """The parameters of one direction of a layer by name, but for their ending; B and P may be None."""
    count = len(GATES[operator])

    def taken(value: np.ndarray, rows: list[int]) -> np.ndarray:
        blocks = value.reshape(count, -1, *value.shape[1:])[rows]
        return blocks.reshape(-1, *value.shape[1:])

    of_input, of_state = _rows(operator, of)
    found = {"weight_ih": taken(W, of_input), "weight_hh": taken(R, of_state)}
    if B is not None:
        found |= {"bias_ih": taken(B[: len(B) // 2], of_input), "bias_hh": taken(B[len(B) // 2 :], of_state)}
    if P is not None:
        peepholes = dict(zip(_PEEPHOLES, np.split(P, 3), strict=True))
        found |= {name: peepholes[name] for name in of.arguments.unit_weights}
    return found


def onnx_weights(operator: str, of: Cell, parameters: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The inverse: W, R, and B and P where there are any. What the cell has not is 0."""

    def put(value: np.ndarray, rows: list[int]) -> np.ndarray:
        H = len(value) // len(rows)
        blocks = np.zeros((len(GATES[operator]), H, *value.shape[1:]), value.dtype)
        blocks[rows] = value.reshape(len(rows), H, *value.shape[1:])
        return blocks.reshape(-1, *value.shape[1:])

    of_input, of_state = _rows(operator, of)
    found = {"W": put(parameters["weight_ih"], of_input), "R": put(parameters["weight_hh"], of_state)}
    if "bias_ih" in parameters:
        found["B"] = np.concatenate([put(parameters["bias_ih"], of_input), put(parameters["bias_hh"], of_state)])
    if of.arguments.unit_weights:
        zeros = np.zeros_like(parameters[of.arguments.unit_weights[0]])
        found["P"] = np.concatenate([parameters.get(name, zeros) for name in _PEEPHOLES])
    return found
