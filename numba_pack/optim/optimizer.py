"""What all optimisers have in common: settings, what is remembered between steps, and a state of both."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

import numpy as np
from numpy.typing import NDArray

from .._arguments import check_floats, kind_of, quiet, told
from .._habits import instead_of, refuse
from .passes import Vector, Vectors, check_like, check_out, run

__all__ = ["Optimizer"]


@dataclass(eq=False)
class Optimizer:
    """What all have: a step, and a state."""

    #: what there is of an optimiser's memory after its first step, and what there may be besides
    _always: ClassVar[tuple[str, ...]] = ()
    _maybe: ClassVar[tuple[str, ...]] = ()
    _memory: dict[str, NDArray[Any]] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        """Check the settings, also those that were assigned since."""
        raise NotImplementedError

    def __setattr__(self, name: str, value: Any) -> None:
        if name.startswith("_") or name in self.__dataclass_fields__ or type(self).__module__ != __package__:
            super().__setattr__(name, value)
        else:
            settings = ", ".join(self._settings())
            raise AttributeError(f"{type(self).__name__} has no attribute {name!r}; it has {settings}")

    if not TYPE_CHECKING:  # for checkers there is nothing but what there is

        def __new__(cls, *settings: Any, **named: Any) -> Any:
            """Tell those who give the parameters where settings are expected, or name settings as others do."""
            refuse(named, learning_rate="it is lr=")
            given = [named[name] for name in ("params", "parameters") if name in named]
            given += [one for one in settings[:1] if isinstance(one, Iterable) or hasattr(one, "parameters")]
            if given:
                got = told(given[0]) if isinstance(given[0], np.ndarray) else kind_of(given[0])
                raise TypeError(f"lr must be a number, and step(parameters, gradient) takes the parameters; got {got}")
            return object.__new__(cls)

        def __getattr__(self, name: str) -> NoReturn:
            raise AttributeError(f"{type(self).__name__} has no attribute {name!r}{instead_of(name)}")

    def __setstate__(self, state: dict[str, Any]) -> None:
        # that of a pickle may be memory of others, which nobody may write to, and a copy's is the original's
        self.__dict__.update(state, _memory={name: value.copy() for name, value in state["_memory"].items()})

    def _update(self, vectors: Vectors) -> Vector:
        """Take one step with vectors that were checked, by `_run`."""
        raise NotImplementedError

    def _run(self, compiled: Any, vectors: Vectors, settings: Iterable[float], *names: str) -> Vector:
        """Run a pass that changes what is remembered by these names, zeros at first; return the new parameters."""
        like = vectors[0]
        memory = {
            name: self._memory[name] if name in self._memory else np.zeros(like.shape, like.dtype) for name in names
        }
        stepped = run(compiled, vectors, memory.values(), settings)
        self._memory.update(memory)
        return stepped

    @quiet
    def step(self, parameters: Vector, gradient: Vector, out: Vector | None = None) -> Vector:
        """Take one step.

        Parameters
        ----------
        parameters, gradient : (n,) float32 or float64 arrays
            Of one dtype; of the same length and dtype at every step. Neither is changed, unless it is `out`.
        out : (n,) array, optional
            Where the new parameters are written to, in their dtype: `parameters` itself for a step in place.

        Returns
        -------
        (n,) array
            The new parameters, in the dtype of the old: `out`, or else a new array.

        Raises
        ------
        TypeError, ValueError
            Where the dtypes or the lengths differ from one another or from the step before, `out` is read-only, or what
            was assigned to an attribute since is not as above. Nothing has changed then.

        Examples
        --------
        >>> import numpy as np
        >>> from numba_pack.optim import SGD
        >>> x = np.array([1.0, -2.0])
        >>> SGD(lr=0.5).step(x, np.array([2.0, 2.0]), out=x) is x
        True
        >>> x
        array([ 0., -3.])
        """
        self.__post_init__()
        if isinstance(getattr(parameters, "parameters", None), np.ndarray):
            raise TypeError(f"parameters must be a vector, such as layer.parameters; got {kind_of(parameters)}")
        check_floats("parameters", parameters, ndim=1)
        for before in self._vectors():
            check_like("parameters", parameters, before, "as in the steps before")
        check_like("gradient", gradient, parameters, "as parameters")
        check_out(out, parameters, "as parameters")
        return self._update((parameters, gradient, out))

    def _vectors(self) -> list[Vector]:
        return [value for name, value in self._memory.items() if name != "step"]

    def _settings(self) -> list[str]:
        return [one.name for one in fields(self) if one.init]

    def state_dict(self) -> dict[str, NDArray[Any]]:
        """All that the next steps depend on: the settings and, after a first step, what is remembered.

        Returns
        -------
        dict of str to array
            Copies, by PyTorch's names; numbers are arrays of no dimension, so that ``np.savez`` and safetensors take
            it as it is.

        Examples
        --------
        >>> import numpy as np
        >>> from numba_pack.optim import SGD
        >>> sgd = SGD(lr=0.5, momentum=0.9)
        >>> x = sgd.step(np.array([1.0, -2.0]), np.array([2.0, 2.0]))
        >>> sgd.state_dict()["lr"], sgd.state_dict()["momentum_buffer"]
        (array(0.5), array([2., 2.]))
        """
        self.__post_init__()
        state = {}
        for name in self._settings():
            value = getattr(self, name)
            state[name] = np.array(value, np.bool_ if isinstance(value, bool | np.bool_) else np.float64)
        return state | {name: value.copy() for name, value in self._memory.items()}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on from where another optimiser of this class stood.

        Parameters
        ----------
        state_dict : mapping of str to array
            As `state_dict` gives it; copied. What this optimiser was set to and remembered is forgotten.

        Raises
        ------
        TypeError, ValueError
            If it is no mapping, names are missing or too many, or a value is not as above. Nothing has changed then.

        Examples
        --------
        >>> import numpy as np
        >>> from numba_pack.optim import Adam
        >>> adam, other, x = Adam(lr=0.25), Adam(), np.array([1.0, -2.0])
        >>> x = adam.step(x, x)
        >>> other.load_state_dict(adam.state_dict())
        >>> other
        Adam(lr=0.25, betas=(0.9, 0.999), eps=1e-08, weight_decay=0.0)
        >>> np.array_equal(other.step(x, x), adam.step(x, x))
        True
        """
        if not isinstance(state_dict, Mapping):
            raise TypeError(f"state_dict must be a mapping of names to arrays; got {kind_of(state_dict)}")
        settings, given = self._settings(), set(state_dict)
        memory = [name for name in (*self._always, *self._maybe) if name in given]
        missing = {*settings, *(self._always if memory else ())} - given
        extra = given - {*settings, *memory}
        if missing or extra:
            raise ValueError(
                f"state_dict must have the names of {type(self).__name__}; missing: {sorted(missing) or 'none'}, "
                f"not known: {sorted(map(str, extra)) or 'none'}"
            )
        values = {name: np.asarray(state_dict[name]).tolist() for name in settings}
        made = type(self)(**{name: tuple(v) if isinstance(v, list) else v for name, v in values.items()})
        for name in memory:
            value, called = state_dict[name], f"state_dict[{name!r}]"
            if name == "step":
                steps = np.asarray(value)
                if steps.dtype.kind not in "iu" or steps.ndim or steps < 1:
                    raise ValueError(f"{called} must be an integer of at least 1; got {value!r}")
                made._memory[name] = steps.astype(np.int64)
            else:
                check_floats(called, value, ndim=1)
                for other in made._vectors():
                    check_like(called, value, other, "as the others")
                made._memory[name] = np.array(value, order="C")
        self.__dict__.update(made.__dict__)
