"""Batches of ragged data for training: shuffled, of a number of rows, and resumed where they were left.

What a step over a batch costs follows from its rows, not from its sequences, and so does how well its mean gradient is
known. So a batch is as many sequences as fit a budget of rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from ._arguments import check_no_mask, dtype_of, kind_of
from ._habits import advised, no_attribute
from .packing.checks import NUMERIC, as_flag, as_integer, as_size
from .packing.foreign import library_of
from .packing.ragged import unpack_ragged
from .packing.sequences import PackedSequence, pack_rows, pack_sequence, rows_of

__all__ = ["Batches"]


def __dir__() -> list[str]:
    return [name for name in globals() if name.startswith("__")] + __all__


if not TYPE_CHECKING:  # for checkers there is nothing but what there is

    def __getattr__(name: str) -> NoReturn:
        raise no_attribute(__name__, name)


class Batches:
    """Batches of one or more columns: sequences that belong together, and numbers that belong to them.

    ``for batch in batches`` runs to the end of an epoch, and the next such loop runs over the next one. Where a loop
    was left before its end, by ``break`` or because the state was saved in it, the next one goes on behind the last
    batch that was given.

    Parameters
    ----------
    *columns : ragged, or array (B, *)
        Ragged data in any form that `pack_ragged` takes alone, such as a list of arrays, an Awkward Array or a list
        column of an Arrow table; a PackedSequence; or, with an entry for each sequence, an array, a column or a list of
        numbers. Of an Arrow table all columns are ``*table.columns``. All have B entries. Copied.
    rows : int
        The most rows of a batch, of the first ragged column. A longer sequence is a batch of its own.
    by_length : bool
        Have sequences of like length in a batch: they differ by a quarter or so. On a GPU and for short sequences this
        saves steps; rows are the same.
    shuffle : bool
        Draw the order of every epoch; else it is that of the columns, or the longest first.
    seed : int, optional
        Of the order, at least 0; drawn if left out.

    Attributes
    ----------
    seed : int
        What was given or drawn.
    epoch : int
        How many epochs were given to the end.

    Raises
    ------
    TypeError, ValueError
        If no column is ragged, they differ in the number of entries, or an argument has the wrong kind.

    Examples
    --------
    >>> import numpy as np
    >>> import numba_pack as nbp
    >>> words = [np.arange(n) for n in (3, 1, 4, 1, 5)]
    >>> labels = np.array([0, 1, 0, 1, 0])
    >>> batches = nbp.data.Batches(words, labels, rows=6, seed=0)
    >>> for packed, of_sequences in batches:
    ...     print(packed.lengths, of_sequences)
    [4] [0]
    [5 1] [0 1]
    [3 1] [0 1]
    >>> batches.epoch
    1
    """

    @advised(batch_size="rows= tells the most rows of a batch, such as so many sequences times their mean length")
    def __init__(
        self,
        *columns: Any,
        rows: int,
        by_length: bool = False,
        shuffle: bool = True,
        seed: int | None = None,
    ) -> None:
        self._rows = as_size(rows, "rows")
        self._by_length, self._shuffle = as_flag(by_length, "by_length"), as_flag(shuffle, "shuffle")
        if seed is None:
            seed = int(np.random.default_rng().integers(2**63))
        self.seed = _as_count(seed, "seed")
        self.epoch = self._next = 0
        self._columns = [_column(column, f"columns[{i}]") for i, column in enumerate(columns)]
        ragged = [column for column in self._columns if isinstance(column, _Ragged)]
        if not ragged:
            raise ValueError(f"columns must have one that is ragged; got {len(columns)} that are not")
        self._lengths = np.diff(ragged[0].offsets)
        counts = [len(column) for column in self._columns]
        if len(set(counts)) > 1:
            raise ValueError(f"columns must have as many entries as each other; got {', '.join(map(str, counts))}")
        self._planned: tuple[tuple[int, int], list[np.ndarray]] | None = None

    def __repr__(self) -> str:
        sequences, rows = len(self._lengths), int(self._lengths.sum())
        return f"Batches of {self._rows:,} rows, of {sequences:,} sequences with {rows:,}, in epoch {self.epoch}"

    def __len__(self) -> int:
        """How many batches are left in this epoch."""
        return len(self._plan()) - self._next

    def __iter__(self) -> Iterator[Any]:
        plan = self._plan()
        for chosen in plan[self._next :]:
            self._next += 1
            if self._next == len(plan):  # what is saved from now on is the beginning of the next epoch
                self.epoch, self._next = self.epoch + 1, 0
            batch = tuple(column.take(chosen) if isinstance(column, _Ragged) else column[chosen]
                          for column in self._columns)  # fmt: skip
            yield batch if len(batch) > 1 else batch[0]

    def _plan(self) -> list[np.ndarray]:
        """The sequences of each batch of this epoch: they follow from seed and epoch alone."""
        now = self.seed, self.epoch
        if self._planned is None or self._planned[0] != now:
            self._planned = now, self._drawn(np.random.default_rng(now))
        return self._planned[1]

    def _drawn(self, rng: np.random.Generator) -> list[np.ndarray]:
        order = np.arange(len(self._lengths))
        if self._shuffle:
            order = rng.permutation(order)
        if self._by_length:
            lengths = self._lengths[order]
            near = lengths * rng.uniform(1, 1.25, len(order)) if self._shuffle else lengths
            order = order[np.argsort(-near, kind="stable")]
        plan = _cut(order, self._lengths[order], self._rows)
        return [plan[i] for i in rng.permutation(len(plan))] if self._shuffle and self._by_length else plan

    def state_dict(self) -> dict[str, np.ndarray]:
        """Where the batches stand: what `load_state_dict` goes on from.

        Returns
        -------
        dict of str to array
            Seed, epoch, the next batch in it, and how many sequences and rows there are, as arrays of no dimension.

        Examples
        --------
        >>> import numpy as np
        >>> import numba_pack as nbp
        >>> batches = nbp.data.Batches([np.arange(n) for n in (3, 1, 4)], rows=4, seed=7)
        >>> {name: int(value) for name, value in batches.state_dict().items()}
        {'seed': 7, 'epoch': 0, 'next': 0, 'sequences': 3, 'rows': 8}
        """
        values = (self.seed, self.epoch, self._next, len(self._lengths), self._lengths.sum())
        names = ("seed", "epoch", "next", "sequences", "rows")
        return {name: np.array(value, np.int64) for name, value in zip(names, values, strict=True)}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on from where other batches of the same columns, budget and options stood.

        Parameters
        ----------
        state_dict : mapping of str to array
            As `state_dict` gives it. The order of an epoch is drawn anew, and is the same with the same NumPy.

        Raises
        ------
        TypeError, ValueError
            If it is no such mapping, or is of other data. Nothing has changed then.

        Examples
        --------
        >>> import numpy as np
        >>> import numba_pack as nbp
        >>> sequences = [np.arange(n) for n in (3, 1, 4, 2)]
        >>> batches = nbp.data.Batches(sequences, rows=4, seed=7)
        >>> for packed in batches:
        ...     break
        >>> resumed = nbp.data.Batches(sequences, rows=4)
        >>> resumed.load_state_dict(batches.state_dict())
        >>> [packed.lengths.tolist() for packed in resumed] == [packed.lengths.tolist() for packed in batches]
        True
        """
        if not isinstance(state_dict, Mapping):
            raise TypeError(f"state_dict must be a mapping of names to arrays; got {kind_of(state_dict)}")
        mine = self.state_dict()
        missing, extra = mine.keys() - state_dict.keys(), state_dict.keys() - mine.keys()
        if missing or extra:
            raise ValueError(
                f"state_dict must have the names of Batches; missing: {sorted(missing) or 'none'}, "
                f"not known: {sorted(map(str, extra)) or 'none'}"
            )
        found = {name: _as_count(value, f"state_dict[{name!r}]") for name, value in state_dict.items()}
        for name in ("sequences", "rows"):
            if found[name] != mine[name]:
                raise ValueError(f"state_dict must be of these data, with {mine[name]} {name}; got {found[name]}")
        before = self.seed, self.epoch
        self.seed, self.epoch = found["seed"], found["epoch"]
        if found["next"] >= len(self._plan()):
            count, (self.seed, self.epoch) = len(self._plan()), before
            raise ValueError(f"state_dict['next'] must be less than {count}, the batches; got {found['next']}")
        self._next = found["next"]


def _cut(order: np.ndarray, lengths: np.ndarray, rows: int) -> list[np.ndarray]:
    """Cut an order of sequences into batches that are as long as the budget lets them."""
    cuts, start, before = [], 0, 0
    ends = np.cumsum(lengths)
    while start < len(order):
        stop = max(int(np.searchsorted(ends, before + rows, side="right")), start + 1)
        cuts.append(order[start:stop])
        start, before = stop, int(ends[stop - 1])
    return cuts


class _Ragged:
    """A column of sequences: one after the other in one array."""

    def __init__(self, packed: PackedSequence) -> None:
        self.values, self.offsets = unpack_ragged(packed)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def take(self, chosen: np.ndarray) -> PackedSequence:
        starts, ends = self.offsets[chosen].tolist(), self.offsets[chosen + 1].tolist()
        return pack_sequence([self.values[start:end] for start, end in zip(starts, ends, strict=True)])


def _column(column: Any, name: str) -> _Ragged | np.ndarray:
    """A column in the form in which batches are taken of it."""
    check_no_mask(column, name)
    if isinstance(column, PackedSequence):
        return _Ragged(column)
    of_sequences = not isinstance(column, np.ndarray) or column.dtype == object
    if isinstance(column, (list, tuple)):
        of_sequences = len(column) == 0 or np.ndim(column[0]) > 0
    refused: Exception | None = None
    if of_sequences:
        try:
            return _Ragged(pack_rows(rows_of(column, name), False))
        except (TypeError, ValueError) as error:
            if library_of(column) is None:
                raise
            refused = error
    array = np.array(column)  # of a library, with a number for each sequence
    if array.dtype.kind not in NUMERIC or array.ndim == 0:
        raise refused or TypeError(f"{name} must hold sequences or numbers; got {dtype_of(array)}, shape {array.shape}")
    return array


def _as_count(value: Any, name: str) -> int:
    """An integer of at least 0 that fits int64."""
    count = as_integer(value, name)
    if not 0 <= count < 2**63:
        raise ValueError(f"{name} must be at least 0 and less than 2**63; got {count}")
    return count
