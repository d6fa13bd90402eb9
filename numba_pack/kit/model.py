"""Several parts as one: run one after another, and their parameters, their gradients, and a file."""

from __future__ import annotations

import operator
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from .._arguments import kind_of
from .._habits import ALL_NAMES, advised, check_new, instead_of
from ..layers.forms import as_array
from ..layers.layer import Layer
from ..layers.module import Module
from ..layers.parametrized import as_prefix
from ..layers.storage import as_path, check_file, write
from ..layers.tape import Gradients
from ..layers.vectors import as_parameters, check_vector
from ..layers.warm import warmup
from ..packing.checks import as_flag
from .embedding import Embedding
from .last_state import d_state_of, rows_of_state
from .part import Part

__all__ = ["Model"]


class Model:
    """Several parts as one: a call runs one after another, and their parameters are one flat vector.

    Each part takes what the one before it gives. A net of another shape, such as one with attention, calls its parts by
    themselves, as ``model.gru``: each has a ``forward`` and a ``backward``, and `gradient` joins what comes back.

    Parameters
    ----------
    **parts : layer, cell, Linear, Embedding, or another Model
        By name, in the order in which they are run. They are not copied, and are attributes of the model.
    last_state : bool
        Whether what goes on from the last recurrent layer is its last state, one row for each sequence, in the caller's
        order, in place of its output, one for each step. Of several layers it is that of the last, and of both
        directions the two side by side.

    Attributes
    ----------
    parts : dict of str to part
        All of them.
    last_state : bool
        As given.
    dtype : dtype
        Of all of them.

    Raises
    ------
    TypeError, ValueError
        If there is no part, one is none of these or there twice, they differ in dtype, or a name is that of a method;
        if the last state is asked for, and there is no layer.

    Examples
    --------
    A label for each row:

    >>> import numpy as np
    >>> import numba_pack as nbp
    >>> model = nbp.Model(
    ...     embedding=nbp.Embedding(256, 4, rng=0),
    ...     gru=nbp.GRU(4, 3, bidirectional=True, rng=0),
    ...     linear=nbp.Linear(6, 2, rng=0),
    ... )
    >>> model.parameters.shape
    (1200,)
    >>> adam = nbp.optim.Adam(lr=0.1)
    >>> text = nbp.pack_sequence([np.frombuffer(word, np.uint8) for word in (b"packed", b"rows")])
    >>> labels = text.map(lambda letters: np.isin(letters, list(b"aeiou")).astype(int))
    >>> for _ in range(40):
    ...     logits, tape = model.forward(text)
    ...     loss, d_logits = nbp.losses.softmax_cross_entropy(logits, labels)
    ...     gradients = model.backward(tape, d_logits)
    ...     model.parameters = adam.step(model.parameters, gradients.parameters)
    >>> loss < 0.1
    True

    A label for each sequence:

    >>> model = nbp.Model(gru=nbp.GRU(256, 3, rng=0), linear=nbp.Linear(3, 2, rng=0), last_state=True)
    >>> model(text).shape
    (2, 2)
    """

    parts: dict[str, Any]
    dtype: np.dtype[Any]
    last_state: bool = False
    #: the vector of all parameters, as it was last assigned or put together, and the vector that each part then had
    _joined: tuple[np.ndarray, list[np.ndarray]] = np.empty(0), []

    def __init__(self, *unnamed: Any, last_state: bool = False, **parts: Any) -> None:
        if unnamed or not parts:
            got = f"{len(unnamed)} without a name" if unnamed else "none"
            raise TypeError(f"parts must be given by name, as in Model(gru=gru, linear=linear); got {got}")
        for name, part in parts.items():
            if not isinstance(part, (Module, Part, Model)):
                raise TypeError(
                    f"{name} must be a layer, a cell, a Linear, an Embedding or a Model; "
                    f"got {kind_of(part, Module, Part, Model)}"
                )
            if hasattr(Model, name) or name in ("parts", "dtype") or not name:
                raise ValueError(f"parts must have names that no attribute of a Model has; got {name!r}")
        leaves = [id(leaf) for part in parts.values() for leaf in _leaves(part)]
        if len(set(leaves)) < len(leaves):
            raise ValueError("parts must be there once each; got one of them twice")
        dtypes = {name: part.dtype for name, part in parts.items()}
        if len(set(dtypes.values())) > 1:
            told = ", ".join(f"{dtype} of {name}" for name, dtype in dtypes.items())
            raise TypeError(f"parts must have one dtype; got {told}")
        self.parts, self.dtype = parts, next(iter(dtypes.values()))
        self.last_state = as_flag(last_state, "last_state")
        if last_state and self._ending() is None:
            raise ValueError(f"last_state must be that of a layer; got True, and none among {', '.join(parts)}")

    def _ending(self) -> Any:
        """The part whose last state goes on, if any."""
        layers = [part for part in self.parts.values() if isinstance(part, Layer)]
        return layers[-1] if self.last_state and layers else None

    def __setattr__(self, name: str, value: Any) -> None:
        if name in self.__dict__.get("parts", {}):
            raise AttributeError(f"{name} is a part since the {type(self).__name__} was made: make one of other parts")
        if not hasattr(type(self), name) and name not in self.__dict__:
            check_new(self, name)
        super().__setattr__(name, value)

    def __getattr__(self, name: str) -> Any:
        parts = self.__dict__.get("parts", {})
        if name not in parts:
            told = instead_of(name) or f"; its parts are {', '.join(parts)}"
            raise AttributeError(f"{type(self).__name__} has no attribute and no part {name!r}{told}")
        return parts[name]

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self.parts]

    def __call__(self, input: Any) -> Any:
        """Run the parts, one after another: inference, without dropout, and nothing is kept.

        Parameters
        ----------
        input
            What the first part takes.

        Returns
        -------
        PackedSequence or array
            What the last part gives: of a layer its output, or with ``last_state`` rows (B, D * P).

        Raises
        ------
        TypeError, ValueError
            If a part does not take what it is given; the error begins with its name. If one is a cell, which takes one
            step.
        """
        ending = self._ending()
        for name, part in self.parts.items():
            with _told_of(name, part):
                if isinstance(part, Layer):
                    output, state = part(input)
                    input = rows_of_state(part, state) if part is ending else output
                else:
                    input = part(input)
        return input

    def forward(self, input: Any) -> tuple[Any, ModelTape]:
        """Run the parts for training: with dropout, and with a tape for `backward`.

        Parameters
        ----------
        input
            As for a plain call.

        Returns
        -------
        output
            As from a plain call.
        tape
            For `backward`. It holds those of the parts, and with them what they were given: do not change it before.

        Raises
        ------
        TypeError, ValueError
            As a plain call.
        """
        ending, tapes, ended = self._ending(), [], None
        for name, part in self.parts.items():
            with _told_of(name, part):
                if isinstance(part, Layer):
                    output, state, tape = part.forward(input)
                    if part is ending:
                        output, ended = rows_of_state(part, state), state
                else:
                    output, tape = part.forward(input)
            tapes.append(tape)
            input = output
        return input, ModelTape(self, tapes, ended)

    def backward(self, tape: ModelTape, d_output: Any, input_grad: bool = False) -> Gradients[Any, None]:
        """Differentiate a call of `forward`.

        Parameters
        ----------
        tape
            From that call. It is used up if there is a layer.
        d_output : like the output
            The gradient of the loss with respect to it; of a packed batch its data will do.
        input_grad : bool
            Whether the gradient of the input is wanted, which costs a product, and which symbols have not.

        Returns
        -------
        Gradients
            Of the input, or None, and of the parameters, laid out like `parameters`. ``hx`` is None.

        Raises
        ------
        TypeError, ValueError
            If the tape is not one of this model, or was used before, or the gradient has the wrong kind, dtype or
            shape.

        Examples
        --------
        >>> import numpy as np
        >>> import numba_pack as nbp
        >>> model = nbp.Model(lstm=nbp.LSTM(3, 2, rng=0), linear=nbp.Linear(2, 1, rng=0))
        >>> output, tape = model.forward(np.ones((7, 3), np.float32))
        >>> model.backward(tape, np.ones_like(output))
        Gradients
          input       None
          hx          None
          parameters  float32 (59,)
        """
        if not isinstance(tape, ModelTape):
            raise TypeError(
                f"tape must be what forward of this {type(self).__name__} returned second; got {kind_of(tape)}"
            )
        if tape.owner is not self:
            raise ValueError(f"tape must come from a forward call of this {type(self).__name__}; got one of another")
        as_flag(input_grad, "input_grad")
        ending, found, d = self._ending(), [], d_output
        first = next(iter(self.parts.values()))
        for part, of_part in zip(reversed(self.parts.values()), reversed(tape.tapes), strict=True):
            wanted = input_grad or part is not first
            if isinstance(part, Embedding):
                gradients = part.backward(of_part, d)
            elif part is ending:
                shape = rows_of_state(part, tape.state).shape
                d_state = d_state_of(part, tape.state, as_array(d, "d_output", shape, self.dtype))
                gradients = part.backward(of_part, None, d_state, input_grad=wanted)
            else:
                gradients = part.backward(of_part, d, input_grad=wanted)
            d = gradients.input
            found.append(gradients.parameters)
        return Gradients(d, None, np.concatenate(found[::-1]))

    def _warm(self, training: bool) -> None:
        """Compile what the parts run: see `numba_pack.warmup`."""
        warmup(*self.parts.values(), training=training)

    @property
    def parameters(self) -> np.ndarray:
        """The parameters of all parts as one flat vector, read-only, part after part.

        It is the same array until a part has others. Assigning a vector of the same length copies it, once, and each
        part has its part of the copy. What is not finite is refused with a ValueError.
        """
        mine = [part.parameters for part in self.parts.values()]
        vector, of_parts = self._joined  # read at once, lest another thread assigns meanwhile
        if len(mine) != len(of_parts) or any(map(operator.is_not, mine, of_parts)):
            vector = np.concatenate(mine)
            vector.flags.writeable = False
            self._joined = vector, mine
        return vector

    @parameters.setter
    def parameters(self, vector: Any) -> None:
        self._set(as_parameters(vector, (self._size(),), self.dtype))

    def _set(self, vector: np.ndarray) -> None:
        """Have each part take its part of a vector, which nobody writes to from now on."""
        vector.flags.writeable = False
        of_parts = self._split(vector)
        with self._all_or_none():
            for part, values in zip(self.parts.values(), of_parts, strict=True):
                part._set(values)
        self._joined = vector, of_parts

    @contextmanager
    def _all_or_none(self) -> Iterator[None]:
        """Have all parts as they were if there is an error, or an interrupt, while they change."""
        before = [part.parameters for part in self.parts.values()]
        try:
            yield
        except BaseException:
            for part, values in zip(self.parts.values(), before, strict=True):
                part._set(values)
            raise

    def _size(self) -> int:
        return sum(part.parameters.size for part in self.parts.values())

    def _split(self, vector: np.ndarray) -> list[np.ndarray]:
        """The vector of each part: views."""
        found, at = [], 0
        for part in self.parts.values():
            size = part.parameters.size
            found.append(vector[at : at + size])
            at += size
        return found

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_joined"}  # the parts have it all

    def views(self, vector: np.ndarray) -> dict[str, np.ndarray]:
        """The arrays of a vector laid out like `parameters`, by name: views, in their shapes.

        Parameters
        ----------
        vector : ndarray, shape (parameters.size,)
            The parameters themselves, a gradient, an optimizer's moments.

        Returns
        -------
        dict of str to ndarray
            By the names in `state_dict`. Writable if the vector is.

        Raises
        ------
        TypeError, ValueError
            If it is no such vector.

        Examples
        --------
        >>> import numpy as np
        >>> import numba_pack as nbp
        >>> model = nbp.Model(gru=nbp.GRU(3, 2), linear=nbp.Linear(2, 4))
        >>> model.views(model.parameters)["linear.weight"].shape
        (4, 2)
        """
        check_vector(vector, (self._size(),))
        return {
            f"{name}.{key}": view
            for (name, part), values in zip(self.parts.items(), self._split(vector), strict=True)
            for key, view in part.views(values).items()
        }

    def gradient(self, **gradients: Any) -> np.ndarray:
        """The gradients of all parts as one flat vector, laid out like `parameters`, where `backward` is not called.

        Parameters
        ----------
        **gradients : Gradients, array or None
            For each part by its name what its ``backward`` returned, or the gradient of its parameters alone, such as
            the sum of several; None for a part that is to stay as it is, whose gradient is zero.

        Returns
        -------
        ndarray, shape (parameters.size,)
            A new array.

        Raises
        ------
        TypeError, ValueError
            If one is missing or too many, or has the wrong kind, dtype or shape.

        Examples
        --------
        >>> import numpy as np
        >>> import numba_pack as nbp
        >>> model = nbp.Model(a=nbp.Linear(1, 2), b=nbp.Linear(2, 1))
        >>> model.gradient(a=None, b=np.ones(3, np.float32))
        array([0., 0., 0., 0., 1., 1., 1.], dtype=float32)
        """
        missing, extra = self.parts.keys() - gradients.keys(), gradients.keys() - self.parts.keys()
        if missing or extra:
            raise TypeError(
                f"gradients must be those of all parts, {list(self.parts)}, or None; "
                f"missing: {sorted(missing) or 'none'}, not known: {sorted(extra) or 'none'}"
            )
        found = []
        for name, part in self.parts.items():
            given, like = gradients[name], part.parameters
            given = np.zeros_like(like) if given is None else getattr(given, "parameters", given)
            found.append(as_array(given, f"the gradient of {name}", like.shape, self.dtype))
        return np.concatenate(found)

    def state_dict(self) -> dict[str, np.ndarray]:
        """The parameters by name, each after the name of its part and a dot: read-only views.

        Examples
        --------
        >>> import numba_pack as nbp
        >>> model = nbp.Model(rnn=nbp.RNN(3, 2, bias=False), linear=nbp.Linear(2, 4))
        >>> list(model.state_dict())
        ['rnn.weight_ih_l0', 'rnn.weight_hh_l0', 'linear.weight', 'linear.bias']
        """
        return {f"{name}.{key}": value for name, part in self.parts.items() for key, value in part.state_dict().items()}

    @advised(strict=ALL_NAMES)
    def load_state_dict(self, state_dict: Mapping[str, Any], prefix: str = "") -> None:
        """Assign all parameters by name.

        Parameters
        ----------
        state_dict : mapping of str to array_like
            The names and shapes of `state_dict`, as PyTorch's model with these parts has them, too.
        prefix : str
            What all these names begin with; other entries are left alone.

        Raises
        ------
        TypeError, ValueError
            If it is no mapping, names are missing or too many, or a value has another shape, is no float or not finite.
            Nothing has changed then.

        Examples
        --------
        >>> import numba_pack as nbp
        >>> model = nbp.Model(gru=nbp.GRU(3, 2), linear=nbp.Linear(2, 4))
        >>> other = nbp.Model(gru=nbp.GRU(3, 2), linear=nbp.Linear(2, 4))
        >>> model.load_state_dict(other.state_dict())
        >>> bool((model.parameters == other.parameters).all())
        True
        """
        if not isinstance(state_dict, Mapping):
            raise TypeError(f"state_dict must be a mapping of names to arrays; got {kind_of(state_dict)}")
        prefix = as_prefix(prefix)
        mine = tuple(f"{prefix}{name}." for name in self.parts)
        extra = [str(name) for name in state_dict if str(name).startswith(prefix) and not str(name).startswith(mine)]
        if extra:
            raise ValueError(f"state_dict must have the names of this Model's parts; not known: {sorted(extra)}")
        with self._all_or_none():
            for name, part in self.parts.items():
                part.load_state_dict(state_dict, f"{prefix}{name}.")
        self._joined = Model._joined  # lest memory is held for what no part has any more

    def save(self, path: str | os.PathLike[str], **beside: Any) -> None:
        """Write the parameters into a safetensors file, and the state of what else is given.

        Parameters
        ----------
        path : str or path
            Of the file, which is replaced if it exists, as a whole or not at all.
        **beside : object with ``state_dict``, such as an optimiser or `numba_pack.data.Batches`
            Each by a name, after which its state has its names in the file.

        Raises
        ------
        TypeError, ValueError
            If it is no path, or something else has no state of arrays, or the name of a part.
        OSError
            If the file cannot be written.
        ImportError
            If safetensors is not installed.

        See Also
        --------
        numba_pack.load : reads the recurrent layers of such a file without the rest.

        Examples
        --------
        >>> import os, tempfile
        >>> import numpy as np
        >>> import numba_pack as nbp
        >>> folder = tempfile.TemporaryDirectory()
        >>> path = os.path.join(folder.name, "model.safetensors")
        >>> model, adam = nbp.Model(gru=nbp.GRU(3, 2), linear=nbp.Linear(2, 4)), nbp.optim.Adam()
        >>> model.parameters = adam.step(model.parameters, np.ones_like(model.parameters))
        >>> model.save(path, adam=adam)
        >>> again, resumed = nbp.Model(gru=nbp.GRU(3, 2), linear=nbp.Linear(2, 4)), nbp.optim.Adam()
        >>> again.load(path, adam=resumed)
        >>> bool((again.parameters == model.parameters).all()), int(resumed.state_dict()["step"])
        (True, 1)
        >>> nbp.load(path)
        {'gru': GRU(3, 2)}
        >>> folder.cleanup()
        """
        safetensors, path = _safetensors(), as_path(path, "path")
        tensors = self.state_dict()
        for name, other in self._beside(beside).items():
            for key, value in other.state_dict().items():
                tensors[f"{name}.{key}"] = np.array(value, order="C")
        try:
            content = safetensors.save(tensors)
        except (KeyError, AttributeError, ValueError) as error:
            raise TypeError(f"what is saved must have states of arrays of numbers; got another: {error}") from error
        write(path, content)

    def load(self, path: str | os.PathLike[str], **beside: Any) -> None:
        """Read what `save` wrote into this model, and into what else is given.

        Parameters
        ----------
        path : str or path
        **beside : object with ``load_state_dict``
            By the names that they were saved by. What the file has besides is left alone: for inference, the model
            alone is read.

        Raises
        ------
        TypeError, ValueError
            If it is no path, the file is damaged, or the names or shapes in it are not those of the model or of what
            else is given. Nothing has changed then.
        OSError
            If it cannot be opened.
        ImportError
            If safetensors is not installed.

        Examples
        --------
        See `save`.
        """
        safetensors, path = _safetensors(), as_path(path, "path")
        beside = self._beside(beside)
        check_file(path, "path")
        try:
            tensors = safetensors.load_file(path)
        except Exception as error:  # of its own classes, and of others where the header is no JSON
            raise ValueError(f"{path}: not a safetensors file, or a damaged one: {error}") from error
        targets = {"": self, **beside}
        before = {name: one.state_dict() for name, one in targets.items()}
        try:
            for name, one in targets.items():
                names = tuple(f"{part}." for part in self.parts) if one is self else f"{name}."
                skip = len(name) + 1 if name else 0
                one.load_state_dict({key[skip:]: value for key, value in tensors.items() if key.startswith(names)})
        except BaseException as error:
            for name, one in targets.items():
                one.load_state_dict(before[name])
            if isinstance(error, (TypeError, ValueError)):
                kind = TypeError if isinstance(error, TypeError) else ValueError
                raise kind(f"{path}: {f'{name}: ' * bool(name)}{error}") from error
            raise

    def _beside(self, beside: dict[str, Any]) -> dict[str, Any]:
        for name, other in beside.items():
            if name in self.parts:
                raise ValueError(f"what is saved beside must have names that no part has; got {name!r}")
            if not (hasattr(other, "state_dict") and hasattr(other, "load_state_dict")):
                raise TypeError(f"{name} must have state_dict and load_state_dict; got {kind_of(other)}")
        return beside

    def __repr__(self) -> str:
        lines = (f"    {name}={part!r},\n".replace("\n    ", "\n        ") for name, part in self.parts.items())
        last = "    last_state=True,\n" * self.last_state
        return f"{type(self).__name__}(\n{''.join(lines)}{last})"


class ModelTape:
    """What `forward` of a `Model` keeps for `backward`: what each of its parts keeps."""

    def __init__(self, owner: Model, tapes: list[Any], state: Any) -> None:
        self.owner, self.tapes = owner, tapes
        #: the last state that went on in place of an output, if any
        self.state = state

    def __repr__(self) -> str:
        return f"Tape of {type(self.owner).__name__}({', '.join(self.owner.parts)})"


@contextmanager
def _told_of(name: str, part: Any) -> Iterator[None]:
    """Have errors begin with the name of the part that they are of."""
    if isinstance(part, Module) and not isinstance(part, Layer):
        raise TypeError(
            f"{name} must be no cell where a Model is called: a cell takes one step, and is called by itself"
        )
    try:
        yield
    except (TypeError, ValueError) as error:
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"{name}: {error}") from None


def _leaves(part: Any) -> list[Any]:
    return [leaf for inner in part.parts.values() for leaf in _leaves(inner)] if isinstance(part, Model) else [part]


def _safetensors() -> Any:
    try:
        import safetensors.numpy
    except ImportError as error:
        raise ImportError("files of models need safetensors: pip install safetensors") from error
    return safetensors.numpy
