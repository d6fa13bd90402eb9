"""Streams: many sequences at once that never end, each a step or a chunk at a time.

The states of all streams lie in one array for each state of the layer, with a slot for each stream. A call takes the
slots of its streams out, runs the layer once over all of them, packed, and puts the new states back.

A call that fails changes nothing. What fails before states are put back has changed nothing yet; and while they are put
back, the old ones are kept in ``_undo``, from where the next call takes them if Ctrl-C came in between.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from threading import Lock
from typing import Any

import numpy as np

from .._arguments import kind_of
from .._forks import tell_of_forks
from ..layers.forms import Host, as_array, plain
from ..layers.layer import Layer
from ..packing.checks import MEMORY_BYTES, as_integer, as_integers, as_size
from ..packing.sequences import PackedSequence, pack_sequence, unpack_sequence

__all__ = ["Streams"]


class Streams:
    """Streams of one layer, each with a state of its own that is carried from call to call.

    Whatever streams are in a call, it is one packed call of the layer. The outputs of a stream are, bit for bit, those
    that the layer gives for its whole sequence alone, whichever others join, leave, or hold NaN. It is inference: no
    dropout, and parameters that are assigned to the layer hold from the next call on.

    Any thread may call any method; calls wait for each other. A call that raises an error, or is interrupted, leaves
    all streams as they were.

    Parameters
    ----------
    layer : RNN, LSTM, GRU or a layer of any cell
        Of one direction, from the first step to the last.
    capacity : int
        How many streams may be open at once. It takes memory for the states of as many.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong kind or is out of range.

    Examples
    --------
    >>> import numpy as np
    >>> import numba_pack as nbp
    >>> lstm = nbp.LSTM(3, 2, rng=0)
    >>> streams = nbp.serving.Streams(lstm, capacity=4)
    >>> a, b = streams.open(), streams.open()
    >>> x = np.random.default_rng(0).standard_normal((5, 3), np.float32)
    >>> first = streams.step([b, a], np.stack([x[0], x[4]]))  # one step of each
    >>> rest = streams.feed({b: x[1:4], a: x[:0]})  # as many steps as there are
    >>> streams.close(a)
    >>> output, (h, c) = lstm(x[:4])
    >>> bool((np.concatenate([first[:1], rest[b]]) == output).all()), bool((streams.state(b)[1] == c).all())
    (True, True)
    >>> streams, streams.ids
    (Streams(LSTM(3, 2), capacity=4): 1 open, (1,))
    """

    def __init__(self, layer: Layer[Any], capacity: int) -> None:
        if not isinstance(layer, Layer):
            raise TypeError(f"layer must be a layer, as LSTM or what a cell makes; got {kind_of(layer, Layer)}")
        if layer.bidirectional or layer.reverse:
            raise ValueError(
                "layer must have one direction, from the first step to the last: the other begins with the last step, "
                f"which a stream has not had yet; got {layer!r}"
            )
        self._layer = layer
        #: the state of one sequence before its first step, in the layer's form; it says what that form is
        self._zero = layer(np.empty((0, layer.input_size), layer.dtype))[1]
        parts = list(_arrays(self._zero))
        bytes_of_one = sum(part.nbytes for part in parts)
        self._capacity = as_size(capacity, "capacity", most=MEMORY_BYTES // bytes_of_one)
        #: of each array of the state (L, capacity, H)
        self._states = [np.zeros((len(part), self._capacity, part.shape[1]), part.dtype) for part in parts]
        #: the slot of each open stream, by its id, in the order of opening
        self._slots: dict[int, int] = {}
        #: slots of streams that were closed; all from ``_used`` on have never been taken
        self._free: list[int] = []
        self._used = self._next_id = 0
        #: the ids of the last tick, as bytes, and their slots: as a rule it is the same streams that have the next one
        self._ticked: tuple[bytes, np.ndarray] = (b"", np.empty(0, np.intp))
        #: slots, and what was in them before states were put there; None when all have been put
        self._undo: tuple[np.ndarray, list[np.ndarray]] | None = None
        self._lock = Lock()
        tell_of_forks(self)

    def _forked(self) -> None:
        """Let a child go on where another thread was in a call: that call is undone; who held the lock is not there."""
        self._lock = Lock()

    @property
    def layer(self) -> Layer[Any]:
        """The layer that all streams run through."""
        return self._layer

    @property
    def capacity(self) -> int:
        """How many streams may be open at once."""
        return self._capacity

    @property
    def ids(self) -> tuple[int, ...]:
        """The ids of the open streams, in the order of opening."""
        with self._lock:
            return tuple(self._slots)

    def __len__(self) -> int:
        return len(self._slots)

    def __repr__(self) -> str:
        return f"Streams({self._layer!r}, capacity={self._capacity}): {len(self)} open"

    def open(self) -> int:
        """Begin a stream, from a state of zeros.

        Returns
        -------
        int
            Its id. No other stream had it or will have it.

        Raises
        ------
        ValueError
            If as many streams are open as there may be.
        """
        with self._lock:
            self._mend()
            if len(self._slots) == self._capacity:
                raise ValueError(
                    f"capacity must be more than the streams that are open; got {self._capacity}, all open"
                )
            if not self._free:
                self._free.append(self._used)
                self._used += 1
            slot = self._free[-1]
            for states in self._states:
                states[:, slot] = 0
            id = self._next_id
            self._next_id += 1
            self._free.pop()
            self._slots[id] = slot
            return id

    def close(self, id: int) -> None:
        """End a stream: its id is unknown from then on, and its place is another's to take.

        Parameters
        ----------
        id : int
            Of an open stream.

        Raises
        ------
        TypeError, ValueError
            If it is none.
        """
        id = as_integer(id, "id")
        with self._lock:
            self._mend()
            slot = self._slot_of(id)
            self._ticked = (b"", self._ticked[1][:0])
            del self._slots[id]
            self._free.append(slot)

    def step(self, ids: Sequence[int] | np.ndarray, rows: np.ndarray) -> Any:
        """Take one step in each of some streams.

        Parameters
        ----------
        ids : sequence or array of k int
            Of open streams, each at most once, in any order.
        rows : ndarray, shape (k, I), or (k,) of symbols
            The input of each, in the order of ids; in the dtype of the layer, or integers that the layer takes for
            symbols.

        Returns
        -------
        ndarray, shape (k, P)
            The output of each, in the order of ids; with ``return_states`` a tuple of all states.

        Raises
        ------
        TypeError, ValueError
            If an argument has the wrong kind, dtype or shape, or an id is not of an open stream, or comes twice.
        """
        wanted = as_integers(ids, "ids")
        k = len(wanted)
        rows = self._rows(rows, "rows", k)
        if k == 0:
            return self._layer(rows)[0]  # of a sequence without steps: there are no batches without sequences
        order = np.arange(k)
        output = self._run(wanted, "ids", PackedSequence(rows, np.array([k]), order, order))
        return tuple(part.data for part in output) if self._layer.return_states else output[0].data

    def feed(self, chunks: Mapping[int, np.ndarray]) -> dict[int, Any]:
        """Take any number of steps in each of some streams.

        Parameters
        ----------
        chunks : dict of int to ndarray, shape (T_i, I), or (T_i,) of symbols
            By the id of an open stream, its next steps, which may be none; in the dtype of the layer, or integers that
            the layer takes for symbols.

        Returns
        -------
        dict of int to ndarray, shape (T_i, P)
            The outputs of each, in the same order; with ``return_states`` tuples of all states.

        Raises
        ------
        TypeError, ValueError
            If a chunk has the wrong kind, dtype or shape, or an id is not of an open stream.
        """
        if not isinstance(chunks, Mapping):
            raise TypeError(f"chunks must be a dict of ids and arrays; got {kind_of(chunks)}")
        given = {as_integer(id, "an id in chunks"): chunk for id, chunk in chunks.items()}
        rows = [self._rows(chunk, f"chunks[{id}]") for id, chunk in given.items()]
        if not rows:
            return {}
        if any(each.ndim != rows[0].ndim for each in rows):
            raise ValueError("chunks must hold rows for all streams, or symbols for all; got both")
        output = self._run(list(given), "chunks", pack_sequence(rows))
        unpacked = [unpack_sequence(part) for part in output]
        outputs = zip(*unpacked, strict=True) if self._layer.return_states else unpacked[0]
        return dict(zip(given, outputs, strict=True))

    def state(self, id: int) -> Any:
        """The state of a stream after its last step: a copy.

        Parameters
        ----------
        id : int
            Of an open stream.

        Returns
        -------
        ndarray, or tuple of one for each state of the cell
            As the layer returns it for a single sequence: h (L, P), and c (L, H); of layers of different widths a list.

        Raises
        ------
        TypeError, ValueError
            If the id is not of an open stream.
        """
        id = as_integer(id, "id")
        with self._lock:
            self._mend()
            return self._formed([states[:, self._slot_of(id)].copy() for states in self._states])

    def set_state(self, id: int, state: Any) -> None:
        """Let a stream go on from another state, as one of another stream, or of an earlier run.

        Parameters
        ----------
        id : int
            Of an open stream.
        state
            As `state` returns it. It is copied.

        Raises
        ------
        TypeError, ValueError
            If the id is not of an open stream, or the state has the wrong kind, dtype or shape.
        """
        self._put(id, [each[:, None] for each in _checked(state, self._zero, "state")])

    def reset(self, id: int) -> None:
        """Let a stream begin again, from a state of zeros.

        Parameters
        ----------
        id : int
            Of an open stream.

        Raises
        ------
        TypeError, ValueError
            If it is none.
        """
        self._put(id, [each[:, None] for each in _arrays(self._zero)])

    # -- what is left to do with the lock held -------------------------------------------------------------------------

    def _run(self, ids: list[int] | np.ndarray, name: str, packed: PackedSequence) -> tuple[PackedSequence, ...]:
        """The outputs of a packed call over these streams, whose states go on: h, or with ``return_states`` all."""
        with self._lock:
            self._mend()
            slots = self._slots_of(ids, name) if isinstance(ids, list) else self._slots_of_tick(ids, name)
            old = self._taken(slots)
            output: Any
            output, state = self._layer(packed, self._formed(old))
            self._write(slots, old, list(_arrays(state)))
        return output if self._layer.return_states else (output,)

    def _put(self, id: int, state: list[np.ndarray]) -> None:
        id = as_integer(id, "id")
        with self._lock:
            self._mend()
            slots = np.array([self._slot_of(id)])
            self._write(slots, self._taken(slots), state)

    def _taken(self, slots: np.ndarray) -> list[np.ndarray]:
        return [states.take(slots, axis=1) for states in self._states]

    def _write(self, slots: np.ndarray, old: list[np.ndarray], new: list[np.ndarray]) -> None:
        self._undo = slots, old
        for states, each in zip(self._states, new, strict=True):
            states[:, slots] = each
        self._undo = None

    def _mend(self) -> None:
        """Undo what an interrupted call has left half done."""
        if self._undo is not None:
            slots, old = self._undo
            self._write(slots, old, old)
        if len(self._slots) + len(self._free) != self._used:
            self._free = sorted(set(range(self._used)) - set(self._slots.values()))

    def _slots_of_tick(self, ids: np.ndarray, name: str) -> np.ndarray:
        given, (known, slots) = ids.tobytes(), self._ticked
        if given != known:
            slots = self._slots_of(ids.tolist(), name)
            self._ticked = given, slots
        return slots

    def _slots_of(self, ids: list[int], name: str) -> np.ndarray:
        if len(set(ids)) != len(ids):
            raise ValueError(
                f"{name} must name each stream once; got {Counter(ids).most_common(1)[0][0]} more than once"
            )
        try:
            return np.fromiter(map(self._slots.__getitem__, ids), np.intp, len(ids))
        except KeyError as error:
            raise self._unknown(error.args[0], name) from None

    def _slot_of(self, id: int) -> int:
        if id not in self._slots:
            raise self._unknown(id, "id")
        return self._slots[id]

    def _unknown(self, id: int, name: str) -> ValueError:
        why = "was closed" if 0 <= id < self._next_id else "was never opened"
        return ValueError(
            f"{name} must be of {'an open stream' if name == 'id' else 'open streams'}; got {id}, which {why}"
        )

    # -- forms ---------------------------------------------------------------------------------------------------------

    def _rows(self, value: Any, name: str, k: int | None = None) -> np.ndarray:
        """The rows of k steps, or of as many as there are, in the layer's dtype; or symbols in int64."""
        if not isinstance(value, np.ndarray):
            raise TypeError(f"{name} must be a NumPy array; got {kind_of(value, np.ndarray)}")
        value = plain(value, name)
        letter = "T" if k is None else "k"
        if value.ndim == 0:
            raise ValueError(f"{name} must have shape ({letter}, {self._layer.input_size}); got ()")
        if k is None:
            k = len(value)
        elif value.ndim == 1 and len(value) != k and value.dtype.kind in "iu":
            raise ValueError(f"{name} must hold a symbol for each id, shape ({k},); got {value.shape}")
        shape = (k, self._layer.input_size)
        return Host.as_input(value, name, shape, self._layer.dtype, f"({letter}, input_size)")

    def _formed(self, arrays: list[np.ndarray]) -> Any:
        """Arrays of a state in the layer's form: one array, or a tuple, or a list of those of each layer."""
        return _formed(self._zero, iter(arrays))


def _arrays(state: Any) -> Iterator[np.ndarray]:
    """All arrays of a state, in order."""
    if isinstance(state, np.ndarray):
        yield state
    else:
        for part in state:
            yield from _arrays(part)


def _formed(like: Any, arrays: Iterator[np.ndarray]) -> Any:
    """The opposite of `_arrays`: in the form of another state."""
    if isinstance(like, np.ndarray):
        return next(arrays)
    return type(like)(_formed(part, arrays) for part in like)


def _checked(state: Any, like: Any, name: str) -> Iterator[np.ndarray]:
    """All arrays of a caller's state, which has to have the form of another one."""
    if isinstance(like, np.ndarray):
        yield as_array(state, name, like.shape, like.dtype)
        return
    if not isinstance(state, (tuple, list)) or len(state) != len(like):
        got = f"{kind_of(state)} of {len(state)}" if isinstance(state, (tuple, list)) else kind_of(state)
        raise TypeError(f"{name} must be a {type(like).__name__} of {len(like)}, as the layer returns it; got {got}")
    for i, (part, part_like) in enumerate(zip(state, like, strict=True)):
        yield from _checked(part, part_like, f"{name}[{i}]")
