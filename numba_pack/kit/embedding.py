"""A table of vectors, looked up by symbols."""

from __future__ import annotations

from typing import Any

import numpy as np

from .._arguments import dtype_of
from .._habits import HOST, advised
from .._jit import jit
from ..layers.module import as_generator
from ..layers.tape import Gradients
from ..packing.checks import as_size, outside
from ..packing.flat import Flat, Given
from .part import Part, PartTape

__all__ = ["Embedding"]

#: rows that are summed before their sum is added to that of all
_BLOCK = 512


class Embedding(Part):
    """Embedding: a vector for each of some symbols, with its gradient.

    Parameters
    ----------
    num_embeddings : int
        Symbols: they are the integers from 0 on below it.
    embedding_dim : int
        Columns of the output.
    dtype : dtype
        float32 or float64, of parameters and output.
    rng : None, int, or numpy.random.Generator
        Draws the parameters, normal with mean 0 and deviation 1, as in PyTorch.

    Attributes
    ----------
    weight : array, shape (num_embeddings, embedding_dim)
        The table, read-only.
    parameters : array
        The same as a flat vector, read-only; assigning another copies it.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong kind or size.

    See Also
    --------
    fold_embedding : for inference, a layer that takes the symbols themselves:
        ``fold_embedding(lstm, embedding.weight)``.

    Examples
    --------
    >>> import numpy as np
    >>> import numba_pack as nbp
    >>> embedding = nbp.Embedding(256, 4, rng=0)
    >>> embedding
    Embedding(256, 4)
    >>> text = nbp.pack_sequence([np.frombuffer(word, np.uint8) for word in (b"packed", b"rows")])
    >>> output, tape = embedding.forward(text)
    >>> output.data.shape
    (10, 4)
    >>> gradient = embedding.backward(tape, np.ones_like(output.data)).parameters
    >>> embedding.views(gradient)["weight"][ord("s")]
    array([1., 1., 1., 1.], dtype=float32)
    """

    _fixed = frozenset({"num_embeddings", "embedding_dim", "dtype"})

    @advised(device=HOST, padding_idx="packed rows have no padding")
    def __init__(self, num_embeddings: int, embedding_dim: int, *, dtype: Any = np.float32, rng: Any = None) -> None:
        self.num_embeddings = as_size(num_embeddings, "num_embeddings")
        self.embedding_dim = as_size(embedding_dim, "embedding_dim")
        shape = (self.num_embeddings, self.embedding_dim)
        super().__init__({"weight": shape}, dtype)
        self._start([as_generator(rng).standard_normal(shape)])

    def __call__(self, input: Given) -> Given:
        """Look up symbols.

        Parameters
        ----------
        input : PackedSequence of integers (N,), or array of integers of any shape
            At least 0 and less than ``num_embeddings``.

        Returns
        -------
        PackedSequence or array (*, embedding_dim)
            As the input: the vector of each symbol.

        Raises
        ------
        TypeError, ValueError
            If the input has the wrong kind, or a symbol is not in the table.
        """
        return self.forward(input)[0]

    def forward(self, input: Given) -> tuple[Given, PartTape[Given]]:
        """Look up symbols, and keep what `backward` needs.

        Parameters
        ----------
        input
            As for a plain call.

        Returns
        -------
        output
            As from a plain call.
        tape
            For `backward`. It holds a copy of the symbols.

        Raises
        ------
        TypeError, ValueError
            If the input has the wrong kind, or a symbol is not in the table.
        """
        flat, table = Flat(input, "input"), self.weight
        if flat.array.dtype.kind not in "iu":
            raise TypeError(f"{flat.name} must hold integers, the symbols; got {dtype_of(flat.array)}")
        if flat.packed is not None and flat.array.ndim != 1:
            raise ValueError(f"{flat.name} must have shape (N,), a symbol a row; got {flat.array.shape}")
        symbols = np.array(flat.array, np.int64, order="C")
        at = outside(symbols.reshape(-1), self.num_embeddings)
        if at >= 0:
            index = tuple(map(int, np.unravel_index(at, symbols.shape)))
            where = at if len(index) == 1 else index
            raise ValueError(
                f"{flat.name} must hold symbols of at least 0 and less than num_embeddings = {self.num_embeddings}; "
                f"got {flat.array[index]} at index {where}"
            )
        return flat.back(table[symbols]), PartTape(self, flat, symbols.reshape(-1), self._vector)

    def backward(self, tape: PartTape[Given], d_output: Any) -> Gradients[None, None]:
        """Differentiate a call of `forward`.

        Parameters
        ----------
        tape
            From that call.
        d_output : like the output
            The gradient of the loss with respect to it; of a packed batch its data will do.

        Returns
        -------
        Gradients
            Of the parameters: for each symbol the sum over the rows that it was in, and zero if it was in none.
            ``input`` and ``hx`` are None. Sums over many rows keep the accuracy of sums over few.

        Raises
        ------
        TypeError, ValueError
            If the tape is not one of this embedding, or the gradient has the wrong kind, dtype or shape.
        """
        tape = PartTape.of(tape, self)
        d_rows = tape.gradient_rows(d_output, self.embedding_dim, tape.flat.array.shape, self.dtype)
        gradient = np.zeros((self.num_embeddings, self.embedding_dim), self.dtype)
        _sum_by_symbol(tape.rows, d_rows, gradient)
        return Gradients(None, None, gradient.reshape(-1))

    def _warm(self, training: bool) -> None:
        """Compile what runs: see `numba_pack.warmup`."""
        output, tape = self.forward(np.zeros(1, np.int64))
        if training:
            self.backward(tape, output)

    def __repr__(self) -> str:
        dtype = "" if self.dtype == np.float32 else f", dtype={self.dtype}"
        return f"{type(self).__name__}({self.num_embeddings}, {self.embedding_dim}{dtype})"


@jit
def _sum_by_symbol(symbols, rows, sums):  # type: ignore[no-untyped-def]
    """The sum of the rows of each symbol, in float64, block by block."""
    V, E = sums.shape
    ends = np.zeros(V + 1, np.int64)
    for symbol in symbols:
        ends[symbol + 1] += 1
    for v in range(V):
        ends[v + 1] += ends[v]
    order = np.empty(len(symbols), np.int64)  # the rows of each symbol together, in their order
    for i in range(len(symbols)):
        order[ends[symbols[i]]] = i
        ends[symbols[i]] += 1
    total, part = np.empty(E), np.empty(E)
    begin = 0
    for v in range(V):
        if begin == ends[v]:
            continue
        total[:] = 0.0
        while begin < ends[v]:
            stop = min(begin + _BLOCK, ends[v])
            part[:] = 0.0
            for i in range(begin, stop):
                row = rows[order[i]]
                for e in range(E):
                    part[e] += row[e]
            for e in range(E):
                total[e] += part[e]
            begin = stop
        for e in range(E):
            sums[v, e] = total[e]
