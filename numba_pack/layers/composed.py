"""RNN, LSTM and GRU whose cells are composed of the activations and options of ONNX: `ComposedLayer`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from .._arguments import check_number, kind_of
from ..batch import States, no_states
from ..cells.composed import ACTIVATIONS, Activation, Options
from ..cpu import composed
from ..cpu.composed import GATES
from ..packing.checks import as_flag
from .fixed import Fixed
from .forms import Form, Host, as_array, form_of

__all__ = ["DEFAULTS", "DIRECTIONS", "ComposedLayer", "as_activations", "as_weights"]

#: f of an RNN; f and g of a GRU; f, g and h of an LSTM
DEFAULTS = {"RNN": ("Tanh",), "GRU": ("Sigmoid", "Tanh"), "LSTM": ("Sigmoid", "Tanh", "Tanh")}
DIRECTIONS = {"forward": 1, "reverse": 1, "bidirectional": 2}
_NAMES = {name.lower(): name for name in ACTIVATIONS}


def as_activations(
    kind: str, num_directions: int, names: Sequence[str], alphas: Sequence[float], betas: Sequence[float]
) -> list[Activation]:
    """The activations of all directions, those of one after those of the other.

    ``alphas`` and ``betas`` are for those that have an alpha or a beta, in their order; where they end before, the
    others have their defaults.
    """
    expected = len(DEFAULTS[kind]) * num_directions
    names = list(names) or list(DEFAULTS[kind]) * num_directions
    if len(names) != expected:
        raise ValueError(f"activations must hold {expected} names; got {names}")
    unknown = [name for name in names if not isinstance(name, str) or name.lower() not in _NAMES]
    if unknown:
        raise ValueError(f"activations must be of {', '.join(ACTIVATIONS)}; got {unknown[0]!r}")
    names = [_NAMES[name.lower()] for name in names]
    left = {"alpha": iter(alphas), "beta": iter(betas)}
    found = []
    for name in names:
        values = {"alpha": 0.0, "beta": 0.0}
        for label, default in ACTIVATIONS[name].items():
            value = next(left[label], default)
            if value is None:
                raise ValueError(f"activation_{label} must hold a value for {name}, which has no default; got none")
            check_number(f"activation_{label}", value, above=-np.inf)
            values[label] = float(value)
        found.append(Activation(list(ACTIVATIONS).index(name), **values))
    for label, values_left in left.items():
        _check_end(f"activation_{label}", values_left, names)
    return found


def _check_end(name: str, left: Iterator[float], names: list[str]) -> None:
    extra = list(left)
    if extra:
        raise ValueError(f"{name} must hold no more values than {', '.join(names)} take; got {extra[0]} besides")


def as_weights(kind: str, D: int, W: Any, R: Any, B: Any, P: Any) -> dict[str, np.ndarray]:
    """Copies of ONNX's weights by name, checked; zeros for no B, and nothing, (D, 0), for no P."""
    for name, value in (("W", W), ("R", R)):
        if not isinstance(value, np.ndarray):
            raise TypeError(f"{name} must be a NumPy array; got {kind_of(value)}")
        if value.ndim != 3 or 0 in value.shape:
            raise ValueError(f"{name} must have three dimensions, none of them 0; got shape {value.shape}")
    if W.dtype not in (np.float32, np.float64):
        raise TypeError(f"W must have dtype float32 or float64; got {W.dtype}")
    if P is not None and kind != "LSTM":
        raise ValueError(f"P must be None for a kind other than LSTM; got it for {kind}")
    dtype, H = W.dtype.newbyteorder("="), R.shape[2]
    G = GATES[kind] * H
    expected = {
        "W": (W, (D, G, W.shape[2]), f"(D, {GATES[kind]} * H, I)"),
        "R": (R, (D, G, H), f"(D, {GATES[kind]} * H, H)"),
        "B": (B, (D, 2 * G), f"(D, {2 * GATES[kind]} * H)"),
        "P": (P, (D, 3 * H), "(D, 3 * H)"),
    }
    weights = {"B": np.zeros((D, 2 * G), dtype), "P": np.zeros((D, 0), dtype)}
    for name, (value, shape, letters) in expected.items():
        if value is not None:
            weights[name] = as_array(value, name, shape, dtype, letters).copy()
            if not np.isfinite(weights[name]).all():
                raise ValueError(f"{name} must be finite; got {value[~np.isfinite(value)][0]}")
    return {name: weights[name] for name in expected}


class ComposedLayer(Fixed):
    """One layer of RNN, LSTM or GRU with the activations and options of ONNX's operators: for inference.

    It is what `load` makes of a node that is not one of `nbp.RNN`, `nbp.LSTM` and `nbp.GRU`. Those can be trained; this
    layer cannot, and its weights do not change. Bits do not depend on batch, order or threads, as those of the others.

    Parameters
    ----------
    kind : {"RNN", "LSTM", "GRU"}
    W : ndarray, shape (D, G, I)
        Weights of the input; G is H, 4 H (gates i, o, f, c) or 3 H (z, r, h), and D the number of directions. In
        float32 or float64, which is the dtype of the layer.
    R : ndarray, shape (D, G, H)
        Weights of the state.
    B : ndarray, shape (D, 2 * G), optional
        Biases of the product with the input, and of that with the state. Zeros if omitted.
    P : ndarray, shape (D, 3 * H), optional
        Peepholes of an LSTM, of the gates i, o and f. None if omitted.
    direction : {"forward", "reverse", "bidirectional"}
        In reverse each sequence goes from its own last step to its first.
    activations : sequence of str
        f (RNN), f and g (GRU), or f, g and h (LSTM) of each direction: Relu, Tanh, Sigmoid, Affine, LeakyRelu,
        ThresholdedRelu, ScaledTanh, HardSigmoid, Elu, Softsign, Softplus. If empty, those of the plain layers.
    activation_alpha, activation_beta : sequence of float
        For those activations, in their order, that have one. Defaults are those of ONNX's operators of these names:
        alpha is 0.01 for LeakyRelu, 1 for ThresholdedRelu and Elu, 0.2 for HardSigmoid, whose beta is 0.5. Affine and
        ScaledTanh have none.
    clip : float, optional
        The sums of the gates are kept between -clip and clip. The c of an LSTM is not bounded on its way through h, nor
        is it by ONNX Runtime and OpenVINO.
    input_forget : bool
        LSTM: the forget gate is one minus the input gate.
    linear_before_reset : bool
        GRU: the reset gate multiplies ``R_h h + R_bh``, as in PyTorch; else it multiplies h.
    batch_first : bool
        Whether padded input and output are (B, T, *) instead of (T, B, *).

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong kind, dtype or shape, or does not belong to this kind of layer.

    Notes
    -----
    The equations are those of ONNX's documentation of the operators RNN, GRU and LSTM; they stand in
    ``cells/composed.py``.

    Examples
    --------
    >>> import numpy as np
    >>> import numba_pack as nbp
    >>> from numba_pack.layers.composed import ComposedLayer
    >>> W, R = np.ones((1, 6, 3), np.float32), np.ones((1, 6, 2), np.float32)
    >>> gru = ComposedLayer("GRU", W, R, activations=("HardSigmoid", "Softsign"), direction="reverse")
    >>> output, h_n = gru(nbp.pack_sequence([np.ones((n, 3), np.float32) for n in (2, 4)]))
    >>> output.data.shape, h_n.shape
    ((6, 2), (1, 2, 2))
    """

    _fixed = frozenset({
        "kind", "direction", "num_directions", "clip", "input_forget", "linear_before_reset", "batch_first", "dtype",
        "input_size", "hidden_size", "activations",
    })  # fmt: skip

    def __init__(
        self,
        kind: str,
        W: np.ndarray,
        R: np.ndarray,
        B: np.ndarray | None = None,
        P: np.ndarray | None = None,
        *,
        direction: str = "forward",
        activations: Sequence[str] = (),
        activation_alpha: Sequence[float] = (),
        activation_beta: Sequence[float] = (),
        clip: float | None = None,
        input_forget: bool = False,
        linear_before_reset: bool = False,
        batch_first: bool = False,
    ) -> None:
        if kind not in GATES:
            raise ValueError(f"kind must be 'RNN', 'LSTM' or 'GRU'; got {kind!r}")
        if direction not in DIRECTIONS:
            raise ValueError(f"direction must be 'forward', 'reverse' or 'bidirectional'; got {direction!r}")
        if clip is not None:
            check_number("clip", clip, above=0.0)
        if as_flag(input_forget, "input_forget") and kind != "LSTM":
            raise ValueError(f"input_forget must be False for a kind other than LSTM; got {kind}")
        if as_flag(linear_before_reset, "linear_before_reset") and kind != "GRU":
            raise ValueError(f"linear_before_reset must be False for a kind other than GRU; got {kind}")
        self.kind, self.direction, self.num_directions = kind, direction, DIRECTIONS[direction]
        self.clip, self.input_forget, self.linear_before_reset = clip, input_forget, linear_before_reset
        self.batch_first = as_flag(batch_first, "batch_first")
        self._weights = as_weights(kind, self.num_directions, W, R, B, P)
        _protect(self._weights)
        self.dtype, self.input_size, self.hidden_size = W.dtype.newbyteorder("="), W.shape[2], R.shape[2]
        found = as_activations(kind, self.num_directions, activations, activation_alpha, activation_beta)
        #: the activations by ONNX's names
        self.activations = tuple(activation.name for activation in found)
        each = len(DEFAULTS[kind])
        self._options = []
        for first in range(0, len(found), each):
            f, g, h = (found[first : first + each] * 3)[:3]  # those that there are not are not used
            bound = np.inf if clip is None else float(clip)
            self._options.append(Options(f, g, h, bound, input_forget, P is not None, linear_before_reset))
        self._packed: list[composed.Direction] | None = None

    def __call__(self, input: Any, hx: Any = None) -> tuple[Any, Any]:
        """Run the layer.

        Parameters
        ----------
        input : PackedSequence with data (N, I), or ndarray, shape (T, B, I), (B, T, I) with batch_first, or (T, I)
            In the dtype of the layer.
        hx : ndarray, or tuple of two for an LSTM, optional
            The initial state: h_0 and c_0 of shape (D, B, H), without B for input (T, I). Zeros if omitted.

        Returns
        -------
        output
            In the form of the input, with D * H columns.
        state
            In the form of hx: the state of each sequence after its last step (in reverse: after its first). A sequence
            of length 0 keeps its initial state.

        Raises
        ------
        TypeError, ValueError
            If an argument has the wrong kind, dtype or shape.
        """
        form = form_of(input, self.input_size, self.dtype, self.batch_first)
        if form.batch.symbols:
            raise TypeError(f"input must have dtype {self.dtype}: a ComposedLayer takes no symbols; got integers")
        if form.arrays is not Host:
            raise TypeError("input must be on the host: a ComposedLayer runs on the CPU; got an array on the device")
        out, h_n, c_n = composed.infer(self._directions(), form.batch, self._states(form, hx))
        h_n = form.state_back(h_n)
        return form.back(out), (h_n, form.state_back(c_n)) if self.kind == "LSTM" else h_n

    def forward(self, *_: Any, **__: Any) -> None:
        """Refuse: a composed layer has no backward pass."""
        raise NotImplementedError("a ComposedLayer is for inference: call it; only nbp.RNN, LSTM and GRU are trained")

    def state_dict(self) -> dict[str, np.ndarray]:
        """W, R, B and P, as they are in ONNX; read-only. B is zeros and P has no columns where not given."""
        return dict(self._weights)

    def _directions(self) -> list[composed.Direction]:
        """The weights, packed when they are first needed. Two threads may do it twice, to the same."""
        directions = self._packed
        if directions is None:
            reverse = (self.direction == "reverse", True)
            directions = self._packed = [
                composed.direction_of(self.kind, W, R, B, P, self._options[number], reverse[number])
                for number, (W, R, B, P) in enumerate(zip(*self._weights.values(), strict=True))
            ]
        return directions

    def _states(self, form: Form, hx: Any) -> States:
        nothing, D, H = no_states(self.dtype), self.num_directions, self.hidden_size
        if hx is None:
            return nothing
        if self.kind != "LSTM":
            return States(form.state(hx, "hx", D, H), nothing.c, True)
        if not isinstance(hx, (tuple, list)) or len(hx) != 2:
            raise TypeError(f"hx must be a tuple of two arrays, h and c; got {kind_of(hx)}")
        h, c = (form.state(part, f"hx[{i}]", D, H) for i, part in enumerate(hx))
        return States(h, c, True)

    def __repr__(self) -> str:
        shown = [repr(self.kind), f"input_size={self.input_size}", f"hidden_size={self.hidden_size}"]
        if self.direction != "forward":
            shown.append(f"direction={self.direction!r}")
        if self.activations != DEFAULTS[self.kind] * self.num_directions:
            shown.append(f"activations={self.activations}")
        if self.clip is not None:
            shown.append(f"clip={self.clip:g}")
        shown += ["peepholes"] * self._options[0].peepholes + ["input_forget"] * self.input_forget
        shown += ["linear_before_reset"] * self.linear_before_reset
        return f"ComposedLayer({', '.join(shown)})"

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_packed": None}  # for this machine

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        _protect(self._weights)


def _protect(weights: dict[str, np.ndarray]) -> None:
    for array in weights.values():
        array.flags.writeable = False
