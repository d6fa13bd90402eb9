"""How batches and what is made of them look: in a few lines of text, as a table in a notebook, and as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from .sequences import PackedSequence

__all__ = ["draw", "html_of", "packed_table", "shape_of", "text_of"]

Table = Sequence[tuple[str, ...]]


def text_of(table: Table) -> str:
    """A table as lines: names to the left, all else to the right of its column."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = [[name.ljust(widths[0]), *map(str.rjust, cells, widths[1:])] for name, *cells in table]
    return "\n".join("  ".join(line).rstrip() for line in lines)


def html_of(table: Table, caption: str) -> str:
    """A table as a notebook shows it."""
    rows = ("".join(f"<td>{escape(cell)}</td>" for cell in line) for line in table)
    return f"<table><caption>{escape(caption)}</caption>{''.join(f'<tr>{row}</tr>' for row in rows)}</table>"


def shape_of(value: Any) -> str:
    """Dtype and shape of an array; of a tuple, of each part; of a batch, of its data."""
    if isinstance(value, tuple):
        return f"PackedSequence {shape_of(value[0])}" if hasattr(value, "data") else ", ".join(map(shape_of, value))
    return f"{value.dtype} {tuple(value.shape)}" if hasattr(value, "dtype") else repr(value)


def packed_table(packed: PackedSequence) -> list[tuple[str, str]]:
    """Name and text of what there is to say of a batch, whose fields may be of any kind: it is not checked."""
    return [
        ("data", shape_of(packed.data)),
        ("lengths", _numbers(lambda: packed.lengths)),
        ("batch_sizes", _numbers(lambda: packed.batch_sizes)),
    ]


def _numbers(read: Any) -> str:
    """Integers in one line, the first and the last if there are many."""
    try:
        return np.array2string(read(), threshold=16, edgeitems=7, max_line_width=2**31)
    except (TypeError, ValueError) as error:
        return str(error)


def draw(packed: PackedSequence, axes: Any = None) -> Any:
    """Draw a batch: each sequence a bar, the longest at the top, its rows over the time steps."""
    if axes is None:
        try:
            from matplotlib.pyplot import subplots
        except ImportError as error:
            raise ImportError("a picture of a batch needs matplotlib: pip install matplotlib") from error
        axes = subplots(layout="constrained")[1]
    sizes = packed.batch_sizes
    steps, sequences, rows = len(sizes), len(packed.sorted_indices), int(sizes.sum())
    padded = f", {1 - rows / (sequences * steps):.0%} fewer than padded" if rows else ""
    axes.stairs(sizes, np.arange(steps + 1), fill=True, color="#2a788e")
    if sequences <= 64:  # the edge of each bar; of more sequences the outline tells all that can be seen
        axes.hlines(np.arange(sequences), 0, packed.lengths[packed.sorted_indices], color="white", linewidth=0.8)
    if sequences <= 24:
        axes.set_yticks(np.arange(sequences) + 0.5, [str(i) for i in packed.sorted_indices])
        axes.set_ylabel("sequence")
    else:
        axes.set_ylabel("sequences, by length")
    axes.set(xlabel="time step", xlim=(0, max(steps, 1)), ylim=(sequences, 0))
    axes.set_title(f"{sequences} sequences, {rows:,} rows{padded}")
    return axes
