"""Inference over a dataset of Ray: each worker has the layer once, and blocks of the dataset pass through the workers.

A block is cut where the rows of its sequences reach a bound, not where their number does: how much a call computes, and
how much memory it takes, follows from the rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import ray.data

from .._arguments import kind_of
from ..cpu.threads import set_num_threads
from ..layers.layer import Layer
from ..packing.checks import as_size
from ..packing.ragged import pack_ragged, unpack_ragged
from ..packing.sequences import PackedSequence
from . import arrow

__all__ = ["infer"]


def infer(
    dataset: ray.data.Dataset,
    layer: Layer[Any] | Callable[[PackedSequence], Any],
    column: str,
    output: str,
    *,
    workers: int | None = None,
    num_cpus: int = 1,
    rows: int = 16384,
) -> ray.data.Dataset:
    """Add what a layer makes of the sequences of a column to a dataset.

    It is computed when the dataset is read, as all that Ray Data does: block by block, in bounded memory. The dataset
    keeps its order, for which ``preserve_order`` is set in its context. The layer is sent to each worker once. A worker
    that dies is replaced, and its blocks are computed again.

    Parameters
    ----------
    dataset : ray.data.Dataset
    layer : layer, or function of a PackedSequence
        The output of a layer is that of all steps. A function is given some of the sequences and returns a
        PackedSequence of the same lengths, or an array with an entry for each sequence.
    column : str
        Of sequences: Arrow's lists of rows, which are lists of one size, or of symbols; or Ray's tensors. Numbers have
        the dtype of the layer.
    output : str
        The name of the new column, of Arrow's lists; of fixed size if a function returns an array.
    workers : int, optional
        How many processes compute. If it is not given, Ray starts as many as there is work and room for.
    num_cpus : int
        The CPUs of a worker, which are its threads.
    rows : int
        The most rows that a worker computes in one call; one sequence may be longer.

    Returns
    -------
    ray.data.Dataset
        The columns of the dataset and the new one.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong kind or is out of range. What is wrong with the data themselves is told when they
        are read.

    Examples
    --------
    >>> import numpy as np
    >>> import pyarrow as pa
    >>> import ray
    >>> import numba_pack as nbp
    >>> from numba_pack.interop.ray import infer
    >>> context = ray.init("local", num_cpus=2, log_to_driver=False)
    >>> sequences = nbp.pack_sequence([np.full((n, 3), n, np.float32) for n in (2, 0, 4)])
    >>> dataset = ray.data.from_arrow(pa.table({"x": nbp.unpack_ragged(sequences, like="pyarrow")}))
    >>> gru = nbp.GRU(3, 2, rng=0)
    >>> table = ray.get(infer(dataset, gru, "x", "y", workers=1).to_arrow_refs()[0])
    >>> found = nbp.pack_ragged(table["y"])
    >>> found.lengths, bool((found.data == gru(sequences)[0].data).all())
    (array([2, 0, 4]), True)
    >>> ray.shutdown()
    """
    if not isinstance(dataset, ray.data.Dataset):
        raise TypeError(f"dataset must be a ray.data.Dataset; got {kind_of(dataset)}")
    if not isinstance(layer, Layer) and (not callable(layer) or isinstance(layer, type)):
        raise TypeError(f"layer must be a layer, or a function of a PackedSequence; got {kind_of(layer, Layer)}")
    for name, value in (("column", column), ("output", output)):
        if not isinstance(value, str):
            raise TypeError(f"{name} must be the name of a column, a str; got {kind_of(value)}")
    if output == column:
        raise ValueError(f"output must be another column than the input's; got {output!r} for both")
    size = None if workers is None else as_size(workers, "workers")
    num_cpus, rows = as_size(num_cpus, "num_cpus"), as_size(rows, "rows")
    result = dataset.map_batches(
        _Worker,
        fn_constructor_args=(ray.put(layer), column, output, rows, num_cpus),
        batch_size=None,  # whole blocks, as they lie in shared memory
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(size=size),
        num_cpus=num_cpus,
    )
    result.context.execution_options.preserve_order = True
    return result


class _Worker:
    """What runs in a process of its own, from block to block."""

    def __init__(self, layer: Any, column: str, output: str, rows: int, num_cpus: int) -> None:
        set_num_threads(num_cpus)
        self._layer = ray.get(layer)
        self._column, self._output, self._rows = column, output, rows

    def __call__(self, table: pa.Table) -> Iterator[pa.Table]:
        """The block in parts, as they are computed, each with the new column."""
        for name, wanted in ((self._column, True), (self._output, False)):
            if (name in table.column_names) is not wanted:
                argument, how = ("column", "one of") if wanted else ("output", "none of")
                raise ValueError(f"{argument} must be {how} the dataset's columns, {table.column_names}; got {name!r}")
        sequences, lengths = _sequences(table[self._column], f"column {self._column!r}")
        for start, stop in _cuts(lengths, self._rows):
            packed = pack_ragged(sequences[start:stop])
            found = self._layer(packed)
            new = _as_column(found[0] if isinstance(self._layer, Layer) else found, stop - start)
            yield table.slice(start, stop - start).append_column(self._output, new)


def _sequences(column: pa.ChunkedArray, name: str) -> tuple[Any, np.ndarray]:
    """What `pack_ragged` takes, the column itself or the arrays of Ray's tensors; and the lengths."""
    if isinstance(column.type, pa.BaseExtensionType):
        arrays = [sequence for chunk in column.chunks for sequence in chunk.to_numpy(zero_copy_only=False)]
        return arrays, np.array([len(sequence) for sequence in arrays], np.int64)
    return column, arrow.ragged(column, name).lengths


def _cuts(lengths: np.ndarray, rows: int) -> Iterator[tuple[int, int]]:
    """Where the parts begin and end that have as many sequences as the bound lets them, and at least one."""
    start = total = 0
    for i, length in enumerate(lengths.tolist()):
        if total + length > rows and i > start:
            yield start, i
            start, total = i, 0
        total += length
    if len(lengths):
        yield start, len(lengths)


def _as_column(outputs: Any, count: int) -> pa.Array:
    """The outputs of some sequences in Arrow's form."""
    if isinstance(outputs, PackedSequence):
        column = unpack_ragged(outputs, like="pyarrow")
    elif isinstance(outputs, np.ndarray) and outputs.ndim:
        column = pa.array(outputs.reshape(-1))
        for size in reversed(outputs.shape[1:]):
            column = pa.FixedSizeListArray.from_arrays(column, size)
    else:
        raise TypeError(f"layer must return a PackedSequence or an array; got {kind_of(outputs, PackedSequence)}")
    if len(column) != count:
        raise ValueError(f"layer must return an entry for each of {count} sequences; got {len(column)}")
    return column
