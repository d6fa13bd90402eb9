"""Products of rows and panels, built of tiles.

Every product of the package is ``c = start + a @ panels`` and goes through `multiply_panels`:

- ``a`` is named by the address of its first element, the step from row to row and the step along k, both in elements;
  it holds factors (see ``factors.py``), of numbers of which there are k in a row;
- ``panels`` are the columns of the right-hand matrix, prepacked: a panel holds, for each k, up to four vectors side by
  side (`Columns` says which columns of c they are);
- ``start`` is where the sums begin: c itself, a bias (a row step of 0), or zeros.

That each element is summed over k in order, in one register, whatever tile it falls in, makes a sequence's result
independent, bit for bit, of what else is in the batch. A long sum of floats is a sum of shorter ones, so that its error
does not grow with its length: each has at most `MOST_TERMS` terms, and which they are depends on k alone.
"""

from __future__ import annotations

from .._jit import inner, overload
from ..simd.lanes import always_inline, size_of, width
from ..simd.machine import MACHINE
from .factor_rows import as_factors
from .factors import deep, is_float, on_tiles, words_of
from .matrices import VECTORS, Matrix, panel_count, panel_vectors
from .matrix_tile import begin_tiles, end_tiles
from .tile import TWO_PANEL_ROWS, call_tile, most_rows

__all__ = [
    "add_product",
    "begin_products",
    "end_products",
    "multiply",
    "multiply_panels",
    "multiply_rows",
    "panels_at_once",
    "there_and_back",
]

#: most terms of a sum, before it is added to the sum of those before it
MOST_TERMS = 512
#: panels up to this size in all are read two at a time: from a farther cache, two streams are slower than one. But of
#: narrower vectors the sums of one panel wait for each other longer than for any cache
NEAR_BYTES = 1 << 16 if MACHINE.register_bytes == 64 else 1 << 62
#: most rows of a tile by its vectors
_ROWS = (0, *[most_rows(v) for v in range(1, VECTORS + 1)])


def begin_products(factors):
    """What a kernel calls before its first product: the matrix unit is made ready for this thread, if it is used."""
    raise NotImplementedError


def end_products(factors):
    """What it calls after its last."""
    raise NotImplementedError


@overload(begin_products)
def _begin_products(factors):
    return (lambda factors: begin_tiles()) if factors.on_tiles else (lambda factors: None)


@overload(end_products)
def _end_products(factors):
    return (lambda factors: end_tiles()) if factors.on_tiles else (lambda factors: None)


@inner
def panels_at_once(factors, rows, k, columns):
    """How many panels a product of so many rows takes at a time: two where that is faster, else one."""
    always_inline()
    size = deep(factors, k) * columns.vectors * width(factors) * size_of(factors)  # of a panel
    if on_tiles(factors):
        return 1
    return 2 if rows <= TWO_PANEL_ROWS and size * panel_count(columns) <= NEAR_BYTES else 1


@inner
def there_and_back(n, count, turn):
    """The n-th of ``count`` panels, or of groups of panels: first to last if ``turn`` is even, last to first if odd.

    A scan multiplies by the same panels at every step. Where it takes them from either end in turns, it begins with
    those that it has read last, which a cache that cannot hold all of them still holds.
    """
    always_inline()
    return count - 1 - n if turn & 1 else n


@inner
def multiply_panels(factors, first, last, a, along, rows, k, panels, columns, start, c):
    """The columns of the panels from ``first`` to ``last``, two at most, for ``rows`` rows.

    ``a``, ``start`` and ``c`` are `Matrix`, ``along`` is the step of a along k, ``panels`` the address of the first of
    all panels.
    """
    always_inline()
    if k <= MOST_TERMS or not is_float(factors):
        _tiles(
            factors, first, last, a, along, rows, words_of(factors, k), deep(factors, k), panels, columns, start, c, 0
        )
    else:
        _long_sums(factors, first, last, a, along, rows, k, panels, columns, start, c)


@inner
def _long_sums(factors, first, last, a, along, rows, k, panels, columns, start, c):
    """As `multiply_panels`, for sums of more than `MOST_TERMS` floats.

    Panel by panel, so that a part stays in the cache.
    """
    size = size_of(factors)
    for p in range(first, last):
        row = panel_vectors(columns, p, width(factors)) * width(factors)
        for low in range(0, k, MOST_TERMS):
            terms = min(MOST_TERMS, k - low)
            of_a, of_panels = Matrix(a.at + low * along * size, a.step), panels + low * row * size
            _tiles(
                factors, p, p + 1, of_a, along, rows, terms, k, of_panels, columns, start if low == 0 else c, c,
                int(low > 0),
            )  # fmt: skip


@inner
def _tiles(factors, first, last, a, along, rows, k, depth, panels, columns, start, c, late):
    """As `multiply_panels`, with the first k of ``depth`` rows of words of the panels.

    If ``late`` is 1, what the sums start from is added at their end.
    """
    always_inline()
    lanes, size = width(factors), size_of(factors)
    step = depth * columns.vectors * lanes
    p = first
    while p < last:
        vectors = panel_vectors(columns, p, lanes)
        number = 2 if p + 1 < last and panel_vectors(columns, p + 1, lanes) == vectors else 1
        column, most = p * columns.per_panel, rows if on_tiles(factors) else _ROWS[vectors]
        tiles = 1 if rows <= most else (rows + most - 1) // most
        # as even as possible, since small tiles run slower: so many of m rows, and then of m - 1
        m = rows if tiles == 1 else (rows + tiles - 1) // tiles
        times = rows - tiles * (m - 1)
        r = 0
        while r < rows:
            place = (
                a.at + r * a.step * size, a.step, k if on_tiles(factors) else along, panels + p * step * size, step, k,
                start.at + (r * start.step + column) * size, start.step, c.at + (r * c.step + column) * size, c.step,
                columns.total - column, columns.per_panel, columns.between, columns.adjacent, late, times,
            )  # fmt: skip
            call_tile(factors, m, vectors, number, place)
            r += m * times
            m, times = m - 1, tiles - times
        p += number


@inner
def multiply(factors, a, along, rows, k, panels, columns, start, c):
    """c = start + a @ panels for all columns; arguments as in `multiply_panels`."""
    count, number = panel_count(columns), panels_at_once(factors, rows, k, columns)
    for p in range(0, count, number):
        multiply_panels(factors, p, min(p + number, count), a, along, rows, k, panels, columns, start, c)


@inner
def add_product(factors, a, along, rows, k, panels, columns, c):
    """c += a @ panels, a product of at most `MOST_TERMS`, which is summed by itself before it is added."""
    count, number = panel_count(columns), panels_at_once(factors, rows, k, columns)
    words, depth = words_of(factors, k), deep(factors, k)
    for p in range(0, count, number):
        _tiles(factors, p, min(p + number, count), a, along, rows, words, depth, panels, columns, c, c, 1)


@inner
def multiply_rows(factors, a, rows, k, room, panels, columns, start, c):
    """`multiply`, of rows of floats, which first are made factors in ``room``."""
    multiply(factors, as_factors(factors, a, rows, k, room), 1, rows, k, panels, columns, start, c)
