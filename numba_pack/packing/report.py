"""What packing saves: the rows and the arithmetic of a padded batch against those of the same batch packed."""

from __future__ import annotations

from typing import Any, NamedTuple

from .checks import NO_LIMIT, as_integers, as_size, lengths_fault, refuse
from .display import html_of, text_of
from .sequences import PackedSequence

__all__ = ["PackingReport", "packing_report"]


class PackingReport(NamedTuple):
    """What `packing_report` counts. Its ``str`` is a small table.

    Attributes
    ----------
    rows_padded, rows_packed : int
        Time steps computed: B times the longest length, and the sum of the lengths.
    multiplications_padded, multiplications_packed : int
    additions_padded, additions_packed : int
        Those rows times the operations of one row.
    saved : float
        The share of rows, and so of operations, that packing does without: from 0 to 1.
    """

    rows_padded: int
    rows_packed: int
    multiplications_padded: int
    multiplications_packed: int
    additions_padded: int
    additions_packed: int
    saved: float

    def __str__(self) -> str:
        """The report as a table."""
        return text_of(self._table())

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        return html_of(self._table(), "PackingReport")

    def _table(self) -> list[tuple[str, str, str]]:
        return [
            ("", "padded", "packed"),
            ("rows", f"{self.rows_padded:,}", f"{self.rows_packed:,}"),
            ("multiplications", f"{self.multiplications_padded:,}", f"{self.multiplications_packed:,}"),
            ("additions", f"{self.additions_padded:,}", f"{self.additions_packed:,}"),
            ("saved", "", f"{self.saved:.1%}"),
        ]


def packing_report(lengths: Any, input_size: int = 1, hidden_size: int = 1) -> PackingReport:
    """Count the rows and the arithmetic that packing a batch saves.

    What is counted is one recurrent step of a plain layer with one gate for every row: the products of the row's input
    with ``weight_ih (H, I)`` and of the state before it with ``weight_hh (H, H)``, that is ``H * (I + H)``
    multiplications and as many additions. An LSTM does four times, a GRU three times as much; biases, activations,
    further layers and directions are left out, and none of them changes the share saved.

    Parameters
    ----------
    lengths : array or list of int, shape (B,), or PackedSequence
        None negative; or the batch itself.
    input_size, hidden_size : int
        I and H.

    Returns
    -------
    PackingReport

    Raises
    ------
    TypeError
        If the lengths or a size are not integers.
    ValueError
        If there are no lengths, one is negative, or a size is less than 1.

    Examples
    --------
    >>> import numba_pack as nbp
    >>> print(nbp.packing_report([4, 6, 8, 5, 4, 3, 7, 8]))
                     padded  packed
    rows                 64      45
    multiplications     128      90
    additions           128      90
    saved                     29.7%
    """
    counts = as_integers(lengths.lengths if isinstance(lengths, PackedSequence) else lengths, "lengths")
    refuse(lengths_fault(counts, len(counts), NO_LIMIT, False), "lengths")
    inputs, hidden = as_size(input_size, "input_size"), as_size(hidden_size, "hidden_size")
    each = counts.tolist()  # as Python's integers, which do not overflow
    padded, packed = len(each) * max(each), sum(each)
    step = hidden * (inputs + hidden)
    saved = 1.0 - packed / padded if padded > 0 else 0.0
    return PackingReport(padded, packed, padded * step, packed * step, padded * step, packed * step, saved)
