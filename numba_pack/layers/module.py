"""What layers and cells have in common: their sizes, and the flat vector of their parameters.

Parameters are read-only and replaced as a whole. So the weights packed from them stay valid as long as they exist, and
a call sees either the old parameters or the new ones, also when another thread assigns them meanwhile.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from inspect import signature
from typing import Any, NamedTuple, TypeVar

import numpy as np

from .._arguments import check_no_mask, check_number, dtype_of, kind_of
from .._backend import backend
from .._habits import ALL_NAMES, advised
from ..batch import States, no_states
from ..cells import parameters as layouts
from ..cells.cell import Cell
from ..cells.parameters import Weights
from ..cells.rnn import RNNRelu, RNNTanh
from ..cpu.kernels import foresee, make_all, packed_weights
from ..packing.checks import MEMORY_BYTES, as_integers
from .engine import engine
from .forms import Form
from .parametrized import as_prefix, computed_from, resolved
from .precision import as_precision, precision_of
from .quantized import LARGEST_SUM, Integers, integers_of
from .vectors import HasParameters, as_parameters, fill

__all__ = [
    "RNN_CELLS", "Module", "as_dtype", "as_floats", "as_generator", "as_nonlinearity", "infer_few", "option_names",
    "vector_of",
]  # fmt: skip

#: the cell of an RNN by its nonlinearity
RNN_CELLS = {"tanh": RNNTanh, "relu": RNNRelu}

Own = TypeVar("Own", bound="Module")

#: the defaults of options, which a repr leaves out
_DEFAULTS = {
    "num_layers": 1,
    "nonlinearity": "tanh",
    "bias": True,
    "batch_first": False,
    "dropout": 0.0,
    "bidirectional": False,
    "proj_size": 0,
    "recurrent_dropout": 0.0,
    "zoneout": 0.0,
    "return_states": False,
    "heads": 1,
    "layer_norm": False,
    "reverse": False,
    "matmul_precision": "highest",
}


def as_dtype(value: Any) -> np.dtype[Any]:
    """float32 or float64."""
    try:
        dtype = np.dtype(value)
    except TypeError as error:
        raise TypeError(f"dtype must be float32 or float64; got {value!r}") from error
    if dtype not in (np.float32, np.float64) or not dtype.isnative or value is None:
        raise TypeError(f"dtype must be float32 or float64; got {value!r}")
    return dtype


def as_generator(value: Any) -> np.random.Generator:
    """What ``numpy.random.default_rng`` takes; an array must have one axis: NumPy walks through others in Python."""
    try:
        return np.random.default_rng(as_integers(value, "it") if isinstance(value, np.ndarray) else value)
    except (TypeError, ValueError) as error:
        kind = ValueError if isinstance(error, ValueError) else TypeError
        raise kind(f"rng must be what numpy.random.default_rng takes; got {value!r}: {error}") from error


def as_nonlinearity(value: Any) -> str:
    """One of the two that an RNN may have."""
    if not isinstance(value, str):
        raise TypeError(f"nonlinearity must be 'tanh' or 'relu'; got {value!r}")
    if value not in RNN_CELLS:
        raise ValueError(f"nonlinearity must be 'tanh' or 'relu'; got {value!r}")
    return value


def as_floats(value: Any, name: str) -> np.ndarray:
    """An array of real floats; PyTorch's tensors will do, and bfloat16 becomes float32."""
    check_no_mask(value, name)
    try:
        if hasattr(value, "detach"):  # a tensor, which may have a gradient, and its sign apart
            value = value.detach().resolve_neg()
            value = value.float() if str(value.dtype) == "torch.bfloat16" else value
        array = np.asarray(value)
    except MemoryError:
        raise
    except Exception as error:  # whatever an __array__ raises, as PyTorch's of tensors whose values are elsewhere
        kind = ValueError if isinstance(error, ValueError) else TypeError
        raise kind(f"{name} must be an array; got {kind_of(value)}: {error}") from error
    if array.dtype.name == "bfloat16":  # of ml_dtypes; NumPy itself has none
        array = array.astype(np.float32)
    if array.dtype.kind != "f":
        raise TypeError(f"{name} must hold real floats; got dtype {dtype_of(array)}")
    return array


def entries(
    state_dict: Mapping[Any, Any], prefix: str
) -> tuple[dict[str, Callable[[], np.ndarray]], Callable[[str], str]]:
    """What gives the array of each name that begins with a prefix, by the rest of it, and how errors call it."""

    def called(name: str) -> str:
        return f"state_dict[{prefix + name!r}]"

    def read(name: str) -> np.ndarray:
        return as_floats(state_dict[prefix + name], called(name))

    names = [name[len(prefix) :] for name in state_dict if isinstance(name, str) and name.startswith(prefix)]
    return resolved(names, read, called), called


def vector_of(state_dict: Any, prefix: Any, owner: HasParameters, kind: str) -> np.ndarray:
    """All parameters of a layer or a part, of the names in a state dict that begin with a prefix.

    Errors call the owner what ``kind`` says.
    """
    if not isinstance(state_dict, Mapping):
        raise TypeError(f"state_dict must be a mapping of names to arrays; got {kind_of(state_dict)}")
    prefix = as_prefix(prefix)
    values, called = entries(state_dict, prefix)
    vector = np.empty_like(owner.parameters)
    views = owner.views(vector)
    missing, extra = views.keys() - values.keys(), list(values.keys() - views.keys())
    extra += [str(name) for name in state_dict if not prefix and not isinstance(name, str)]
    if missing or extra:
        told = [f"{prefix + name!r}: {of}" for name in sorted(extra) if (of := computed_from(name))]
        raise ValueError(
            f"state_dict must have the names of this {kind}; "
            f"missing: {sorted(prefix + name for name in missing) or 'none'}, "
            f"not known: {sorted(prefix + name for name in extra) or 'none'}" + "".join(f" ({one})" for one in told[:1])
        )
    fill(views, lambda name: values[name](), called)
    return vector


class _Version:
    """One state of the parameters, and the weights made of it when they are first needed."""

    def __init__(self, parameters: np.ndarray) -> None:
        parameters.flags.writeable = False
        self.parameters = parameters
        #: by what prepares them and a precision, and by that and the cell: for precisions that have the same factors
        self.made: dict[tuple[Callable[..., Any], str | Cell], Any] = {}
        #: by a precision, and whether rows are symbols: see `Module._few`
        self.few: dict[tuple[str, bool], Any] = {}

    def made_by(self, prepare: Callable[..., Any], module: Module) -> Any:
        """The weights as an engine takes them. Two threads that need them at once may make them twice, to the same."""
        key = prepare, module.matmul_precision
        weights = self.made.get(key)
        if weights is None:
            cell = module._multiplied()
            weights = self.made.get((prepare, cell))
            if weights is None:
                weights = prepare(cell, self.parameters, module._constants, module._sizes)
            self.made[prepare, cell] = self.made[key] = weights
        return weights

    def __reduce__(self) -> tuple[Any, ...]:
        return _version_of, (self.parameters,)  # weights are packed for this machine


def _version_of(pickled: np.ndarray) -> _Version:
    return _Version(pickled.copy())  # whose memory may be shared with another process


class _Holder:
    """Where a layer, and all that share its parameters, find their version."""

    def __init__(self, version: Any = None) -> None:
        self.version = version


class Few(NamedTuple):
    """What a call on few rows has to know of a layer, in one place: to look it up is a good part of such a call."""

    #: what `engine.infer_few` takes, and the most rows that it is worth
    at: int
    most: int
    dtype: np.dtype[Any]
    #: I, L * D, D * P, P and H
    sizes: tuple[int, int, int, int, int]
    #: whether h is the only state
    is_one: bool
    symbols: bool
    #: what lies at that address, to be kept
    kept: Any


def infer_few(few: Few, data: np.ndarray, packed: Any, N: int, B: int, shapes: tuple[Any, Any, Any], hx: Any) -> Any:
    """Output and last states of N rows of B sequences, if they are few and in arrays just as the kernels take them.

    None for all else, and where something is wrong: it then goes the way of all forms, which takes longer than a step.
    The caller has looked at the shape and the kind of ``data``, which are those of ``packed`` if that is not None.
    ``shapes`` are those of output, h and c; instead of the first None if no output is wanted.
    """
    if not 0 < N <= few.most:
        return None
    if few.symbols:
        data = np.array(data, np.int64)  # so that they stay what they were when they were checked
    dtype, is_one = few.dtype, few.is_one
    of_out, of_h, of_c = shapes
    h_n = np.empty(of_h, dtype)
    c_n = h_n if is_one else np.empty(of_c, dtype)
    out = h_n if of_out is None else np.empty(of_out, dtype)
    if hx is None:
        h_0 = c_0 = h_n
    elif is_one:
        h_0 = c_0 = hx
    elif type(hx) is tuple and len(hx) == 2:
        h_0, c_0 = hx
    else:
        return None
    if packed is None:
        sizes = order = ranks = out
    else:
        _, sizes, order, ranks = packed
    objects = data, sizes, order, ranks, h_0, c_0, out, h_n, c_n
    if engine.infer_few(few.at, id(objects), N, B):
        return out, h_n if is_one else (h_n, c_n)
    return None


class Module(HasParameters):
    """The cell, sizes and parameters of a layer or of one step; see `LSTM` and `LSTMCell` for what users call."""

    _fixed = frozenset({"cell", "input_size", "hidden_size", "output_size", "bias", "dtype", "matmul_precision"})

    #: the cell whose steps these are
    cell: Cell
    input_size: int
    hidden_size: int
    output_size: int
    num_layers: int
    num_directions: int
    bias: bool
    heads: int = 1
    reverse: bool = False
    dtype: np.dtype[Any]
    matmul_precision: str

    def __init__(
        self, cell: Cell, constants: Mapping[str, Any], dtype: Any, rng: np.random.Generator, matmul_precision: Any
    ) -> None:
        self.cell = cell
        self.dtype = as_dtype(dtype)
        self.matmul_precision = precision_of(matmul_precision, self.dtype)
        self._holder = _Holder()
        unknown = constants.keys() - set(cell.arguments.constants)
        if unknown:
            raise TypeError(f"{cell.name} has no option {min(unknown)!r}")
        self._constants = np.empty(len(cell.arguments.constants), self.dtype)
        self.__dict__["_fixed"] = type(self)._fixed | set(cell.arguments.constants)
        for i, name in enumerate(cell.arguments.constants):
            value = constants.get(name, cell.defaults[name])
            check_number(name, value, above=-np.inf)
            self._constants[i] = value
            setattr(self, name, float(value))
        count = self._lay_out()
        bound = 1.0 / math.sqrt(self.hidden_size)
        vector = rng.uniform(-bound, bound, count).astype(self.dtype)
        for name, view in self._views(vector).items():
            of = name.rpartition("_l")[0] if name not in cell.defaults else name
            if of in cell.arguments.unit_weights and of in cell.defaults:
                view[...] = cell.defaults[of]
            if cell.normed and of.startswith("gain_"):
                view[...] = 1
        self._set(vector)
        self._foresee()

    def _foresee(self, training: bool = False) -> None:
        """Have compiled ahead what a call of this is going to need."""
        if backend == "cpu":
            foresee(self._multiplied(), self.dtype, training)

    def _multiplied(self) -> Cell:
        """The cell, with the factors that products have by the precision."""
        return self.cell.with_factors(engine.factors_for(self.matmul_precision, self.dtype, self.hidden_size))

    def _lay_out(self) -> int:
        """Note sizes and shapes, and tell how many numbers the parameters are."""
        sizes = layouts.Weights._fields[4:]
        self._sizes = tuple(int(getattr(self, name)) for name in sizes)
        self._shapes = self._named(layouts.named_shapes(self.cell, self._sizes))
        count = self._count = sum(math.prod(shape) for shape in self._shapes.values())
        if count * self.dtype.itemsize > MEMORY_BYTES:
            told = dict(zip(sizes, self._sizes, strict=True))
            raise ValueError(
                f"input_size, hidden_size and num_layers must give weights that fit into memory; got {told}"
            )
        return count

    def __copy__(self: Own) -> Own:
        other, state = object.__new__(type(self)), object.__reduce_ex__(self, 2)[2]
        attributes, slots = state if isinstance(state, tuple) else (state, {})  # of classes that users derive
        vars(other).update(attributes, _holder=_Holder(self._holder.version))
        for name, value in slots.items():
            object.__setattr__(other, name, value)
        return other

    @property
    def _called(self) -> str:
        """What messages call this."""
        return type(self).__name__

    def _named(self, shapes: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
        """The shapes of the parameters by the names that they have here."""
        return shapes

    def _for_inputs(self, input_size: int) -> Any:
        """A copy, of whatever class this is, for inputs of another size. Its parameters are zeros."""
        other = copy.copy(self)
        other.__dict__["input_size"] = input_size
        other._set(np.zeros(other._lay_out(), self.dtype))
        return other

    def _set(self, vector: np.ndarray) -> None:
        self._holder.version = _Version(vector)

    @property
    def parameters(self) -> np.ndarray:
        """All parameters as one flat vector, read-only, in the order of `state_dict`.

        Assigning a vector of the same length copies it. What is not finite is refused with a ValueError.
        """
        found: np.ndarray = self._holder.version.parameters
        return found

    @parameters.setter
    def parameters(self, vector: Any) -> None:
        self._set(as_parameters(vector, self.parameters.shape, self.dtype))

    def state_dict(self) -> dict[str, np.ndarray]:
        """The parameters by name: read-only views, in PyTorch's names, shapes and order of gates.

        Of a layer that is quantized: integers and scales, see `quantize`.

        Examples
        --------
        >>> import numba_pack as nbp
        >>> {name: value.shape for name, value in nbp.LSTM(3, 2).state_dict().items()}
        {'weight_ih_l0': (8, 3), 'weight_hh_l0': (8, 2), 'bias_ih_l0': (8,), 'bias_hh_l0': (8,)}
        """
        if self._is_quantized:
            return dict(self._holder.version.arrays)
        return self.views(self.parameters)

    @advised(strict=ALL_NAMES)
    def load_state_dict(self, state_dict: Mapping[str, Any], prefix: str = "") -> None:
        """Assign all parameters by name.

        Parameters
        ----------
        state_dict : mapping of str to array_like
            The names and shapes of `state_dict`, all of them and no others; real floating-point values, which are cast
            to the dtype of the layer. PyTorch's tensors will do, and so will the two parts of its weight_norm (dim=0)
            in place of a parameter.
        prefix : str
            What all these names begin with, as in the state dict of a whole model: ``"encoder.lstm."``, or the same
            without the last dot. Other entries are left alone.

        Raises
        ------
        TypeError, ValueError
            If it is no mapping, names are missing or too many, or a value has another shape, is no float or not finite.

        Examples
        --------
        >>> import numba_pack as nbp
        >>> gru, other = nbp.GRU(3, 2, rng=0), nbp.GRU(3, 2, rng=1)
        >>> gru.load_state_dict({f"encoder.{name}": value for name, value in other.state_dict().items()}, "encoder.")
        >>> bool((gru.parameters == other.parameters).all())
        True
        """
        self._refuse_integers("load_state_dict")
        self._set(vector_of(state_dict, prefix, self, "layer"))

    def _packed(self) -> Any:
        """The weights as the engine takes them."""
        return self._holder.version.made_by(engine.prepare, self)

    @property
    def weights(self) -> Weights:
        """What the functions `run`, `rnn`, `lstm`, `gru` and their training forms take in compiled code.

        A named tuple of the parameters, the same packed for the kernels, and the sizes. It stays what it is when new
        parameters are assigned: take it again to have them.
        """
        return make_all(self._holder.version.made_by(packed_weights, self))

    @property
    def nbytes(self) -> int:
        """Bytes of the weights in memory: as `state_dict` has them, and the same packed for the CPU's kernels.

        Examples
        --------
        >>> import numba_pack as nbp
        >>> nbp.GRU(3, 2).nbytes > nbp.GRU(3, 2).parameters.nbytes
        True
        """
        panels: np.ndarray = self._holder.version.made_by(packed_weights, self).panels
        return panels.nbytes + sum(array.nbytes for array in self.state_dict().values())

    # -- precision -----------------------------------------------------------------------------------------------------

    def with_precision(self: Own, matmul_precision: str) -> Own:
        """The same layer, computed in another precision.

        Both have the same parameters: what is assigned to either, also by `load_state_dict`, both have from then on.
        In all else it is a copy, as `copy.copy` makes it.

        Parameters
        ----------
        matmul_precision : {"highest", "high", "medium"}
            As where a layer is made.

        Returns
        -------
        layer
            Of the same class.

        Raises
        ------
        TypeError, ValueError
            If it is none of these; if it is not "highest" and the layer is in float64; if the layer is quantized.

        Examples
        --------
        >>> import numba_pack as nbp
        >>> gru = nbp.GRU(3, 2, rng=0)
        >>> quick = gru.with_precision("medium")
        >>> quick
        GRU(3, 2, matmul_precision='medium')
        >>> gru.parameters = 2 * gru.parameters
        >>> quick.parameters is gru.parameters
        True
        """
        precision = precision_of(as_precision(matmul_precision, "matmul_precision"), self.dtype)
        if self._is_quantized:
            raise ValueError(f"with_precision must be called of a layer in float; got {self!r}")
        other = copy.copy(self)
        vars(other).update(matmul_precision=precision, _holder=self._holder)
        return other

    @property
    def _is_quantized(self) -> bool:
        return isinstance(self._holder.version, Integers)

    def _refuse_integers(self, what: str) -> None:
        """Refuse what only a layer in float can do."""
        if self._is_quantized:
            raise TypeError(
                f"{what} must be called of a layer in float, which can be trained: quantize is for inference; got "
                f"{self!r}"
            )

    def quantize(self: Own, to: str) -> Own:
        """A layer for inference whose weights are integers, in a quarter of the memory.

        Each row of a weight matrix becomes integers of 8 bits and a scale, symmetric about zero, and so does each row
        of the input and of h that it is multiplied by. Sums are exact; biases, gates and states stay in float32.
        The layer is called as this one, also in compiled code and by `serving.Streams`. It has no ``parameters``, and
        cannot be trained; its `state_dict` has integers, and by ``weight_ih_l0_scale`` the scales of the rows of
        ``weight_ih_l0``. `save`, `load` and pickles keep it bit for bit.

        Parameters
        ----------
        to : {"int8"}

        Returns
        -------
        layer
            Of the same class. It shares nothing with this one, which is not changed.

        Raises
        ------
        TypeError, ValueError
            If ``to`` is another; if the layer is in float64, is quantized already, or has a product over more than
            65536 inputs or units; where the backend is ``cuda``.

        Examples
        --------
        >>> import numpy as np
        >>> import numba_pack as nbp
        >>> lstm = nbp.LSTM(12, 100, rng=0)
        >>> small = lstm.quantize("int8")
        >>> small
        LSTM(12, 100).quantize('int8')
        >>> x = np.random.default_rng(0).standard_normal((7, 12), np.float32)
        >>> bool(np.abs(small(x)[0] - lstm(x)[0]).max() < 0.02)
        True
        >>> small.state_dict()["weight_hh_l0"].dtype, small.state_dict()["weight_hh_l0_scale"].shape
        (dtype('int8'), (400,))
        """
        if not isinstance(to, str):
            raise TypeError(f"to must be 'int8'; got {to!r}")
        if to != "int8":
            raise ValueError(f"to must be 'int8'; got {to!r}")
        if backend == "cuda":
            raise ValueError("quantize is for the CPU; the backend is cuda")
        if self._is_quantized:
            raise ValueError(f"quantize must be called of a layer in float; got {self!r}")
        if self.dtype != np.float32:
            raise ValueError(f"quantize must be called of a layer in float32; got {self!r}")
        self._check_sums()
        other = copy.copy(self)
        vars(other)["matmul_precision"] = "highest"  # of which nothing is left to say
        other._set_integers(integers_of(self.state_dict()))
        return other

    def _check_sums(self) -> None:
        """Refuse to quantize what would sum too many products."""
        for name, shape in self._shapes.items():
            if len(shape) == 2 and shape[1] > LARGEST_SUM:
                raise ValueError(
                    f"quantize must be called of a layer whose products have at most {LARGEST_SUM} terms; "
                    f"{name} has {shape[1]} columns"
                )

    def _set_integers(self, arrays: dict[str, np.ndarray]) -> None:
        self._holder.version = Integers(arrays)

    def _few(self, symbols: bool) -> Few:
        """What `infer_few` takes, for rows or for symbols; made once for each assignment of parameters."""
        version = self._holder.version
        kept = engine.few(version.made_by(engine.prepare, self), symbols)
        P, scans = self.output_size, self.num_layers * self.num_directions
        sizes = self.input_size, scans, self.num_directions * P, P, self.hidden_size
        few = version.few[self.matmul_precision, symbols] = Few(
            kept.at, kept.most, self.dtype, sizes, self.cell.states == 1, symbols, kept
        )
        return few

    # -- states --------------------------------------------------------------------------------------------------------

    def _first_states(self, form: Form, hx: Any, name: str = "hx") -> tuple[States, tuple[bool, ...]]:
        """The first states as the engines take them, and for each whether one is shared by all sequences."""
        form = form.first
        if hx is None or form.B == 1:
            return self._states(form, hx, name), ()
        parts = [hx] if self.cell.states == 1 else list(_parts(hx))
        sizes = (self.output_size, *[self.hidden_size] * self.cell.others)
        scans = self.num_layers * self.num_directions
        shared = tuple(form.shares(part, scans, size) for part, size in zip(parts, sizes, strict=False))
        if any(shared):
            for i in np.flatnonzero(shared):
                parts[i] = np.repeat(parts[i], form.B, axis=1)
            hx = parts[0] if self.cell.states == 1 else tuple(parts)
        return self._states(form, hx, name), shared

    def _states(self, form: Form, hx: Any, name: str, parts_may_be_none: bool = False) -> States:
        """A state of the caller's, or the gradient of one, as the engines take it; of a tuple some may be None."""
        if hx is None:
            return no_states(self.dtype)
        names, scans = self.cell.arguments.state, self.num_layers * self.num_directions
        if len(names) == 1:
            h = form.state(hx, name, scans, self.output_size)
            return States(h, no_states(self.dtype).others, True)
        parts = _parts(hx)
        if len(parts) != len(names):
            count = {2: "two", 3: "three", 4: "four"}.get(len(names), str(len(names)))
            raise TypeError(f"{name} must be a tuple of {count} arrays, {_listed(names)}; got {_described(hx)}")
        found = []
        for i, part in enumerate(parts):
            size = self.hidden_size if i else self.output_size
            if part is None and parts_may_be_none:
                found.append(form.arrays.zeros((scans, form.B, size), self.dtype))
            else:
                found.append(form.state(part, f"{name}[{i}]", scans, size))
        return States(found[0], form.arrays.stacked(found[1:]), True)

    def _first_state_back(self, form: Form, h: Any, others: Any, shared: tuple[bool, ...]) -> Any:
        """The gradient of the first states in their form: of one that is shared, the sum over the sequences."""
        form = form.first
        if not any(shared):
            return self._state_back(form, h, others)
        parts = map(form.state_back, (h, *others))
        summed = [d.sum(1, keepdims=True) if is_shared else d for d, is_shared in zip(parts, shared, strict=True)]
        return summed[0] if self.cell.states == 1 else tuple(summed)

    def _state_back(self, form: Form, h: Any, others: Any) -> Any:
        """A state, or the gradient of one, as the caller takes it."""
        if self.cell.states == 1:
            return form.state_back(h)
        return (form.state_back(h), *[form.state_back(others[i]) for i in range(self.cell.others)])

    def __repr__(self) -> str:
        options = [f"{self.input_size}, {self.hidden_size}"]
        for name, default in _DEFAULTS.items():
            value = getattr(self, name, default)
            if value not in (default, (default,) * self.cell.states):
                options.append(f"{name}={getattr(self, name)!r}")
        for name in self.cell.base.arguments.constants:
            if getattr(self, name) != self.cell.defaults[name]:
                options.append(f"{name}={getattr(self, name)!r}")
        if self.dtype != np.float32:
            options.append(f"dtype={self.dtype}")
        return f"{self._called}({', '.join(options)})" + ".quantize('int8')" * self._is_quantized

    def _options(self) -> dict[str, Any]:
        """What says what this computes, as arguments of its class or cell: all but dtype and rng."""
        return {name: getattr(self, name) for name in option_names(type(self), self.cell)}


def option_names(kind: type[Module], cell: Cell | None = None) -> list[str]:
    """The arguments that say what a layer or a step computes, constants of its cell among them; not dtype and rng."""
    named = [p.name for p in signature(kind).parameters.values() if p.kind is not p.VAR_KEYWORD]
    constants = cell.base.arguments.constants if cell else ()
    return [*(name for name in named if name not in ("cell", "dtype", "rng")), *constants]


def _parts(value: Any) -> tuple[Any, ...]:
    """The entries of a tuple or list, read without running code of the caller's: the input has been checked already."""
    if type(value) is tuple:
        return value
    if isinstance(value, tuple):
        return tuple(tuple.__iter__(value))
    return tuple(list.__iter__(value)) if isinstance(value, list) else ()


def _described(value: Any) -> str:
    if isinstance(value, (tuple, list)):
        return f"{type(value).__name__} of {len(value)}"
    return kind_of(value)


def _listed(names: tuple[str, ...]) -> str:
    return f"{', '.join(names[:-1])} and {names[-1]}"
