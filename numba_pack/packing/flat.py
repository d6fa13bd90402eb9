"""The rows of a batch as one array, whether it is packed or an array of any axes, and the way back."""

from __future__ import annotations

from typing import Any, NoReturn, TypeVar

import numpy as np

from .._arguments import check_no_mask, kind_of
from .sequences import PackedSequence, check_packed

__all__ = ["Flat", "Given"]

#: what a batch may be given as, which its results come back as
Given = TypeVar("Given", PackedSequence, np.ndarray)


class Flat:
    """A batch, and what belongs to it row by row."""

    def __init__(self, value: Any, name: str) -> None:
        #: the batch itself if it is packed
        self.packed: PackedSequence | None = None
        if isinstance(value, PackedSequence):
            self.packed = check_packed(value, name)
            value, name = self.packed.data, f"{name}.data"
        elif not isinstance(value, np.ndarray):
            raise TypeError(
                f"{name} must be a PackedSequence or a NumPy array; got {kind_of(value, PackedSequence, np.ndarray)}"
            )
        #: the rows, in their axes; what errors call them
        self.array, self.name = _plain(value, name), name

    def like(self, value: Any, name: str) -> np.ndarray:
        """The rows of another batch that must be packed in the same way; an array may hold them as well."""
        if not isinstance(value, PackedSequence):
            return _plain(value, name)
        if self.packed is None:
            raise TypeError(f"{name} must be a NumPy array, as {self.name} is; got a PackedSequence")
        if not all(a is b or np.array_equal(a, b) for a, b in zip(value[1:3], self.packed[1:3], strict=True)):
            self._refuse(check_packed(value, name), name)
        return _plain(value.data, f"{name}.data")

    def _refuse(self, other: PackedSequence, name: str) -> NoReturn:
        """Refuse another batch whose rows would be taken for those of other sequences."""
        assert self.packed is not None
        mine, theirs, mine_is = self.packed.lengths, other.lengths, self.name[:-5]
        if len(mine) != len(theirs):
            raise ValueError(f"{name} must have {len(mine)} sequences, as {mine_is} has; got {len(theirs)}")
        if (unlike := np.flatnonzero(mine != theirs)).size:
            i = int(unlike[0])
            raise ValueError(
                f"{name} must have sequences of the lengths of those in {mine_is}, in their order; got {theirs[i]} "
                f"rows in sequence {i}, where {mine_is} has {mine[i]}"
            )
        raise ValueError(
            f"{name}.sorted_indices must be those of {mine_is}, {self.packed.sorted_indices}; got "
            f"{other.sorted_indices}"
        )

    def back(self, array: np.ndarray) -> Any:
        """An array with a row for each of these, in the form of the batch."""
        return array if self.packed is None else PackedSequence(array, *self.packed[1:])


def _plain(value: Any, name: str) -> np.ndarray:
    if not isinstance(value, np.ndarray):
        raise TypeError(f"{name} must be a NumPy array; got {kind_of(value, PackedSequence, np.ndarray)}")
    check_no_mask(value, name)
    return np.asarray(value)  # a subclass may tell another shape
