"""Prepacked weights: matrices laid out as the micro-kernel reads them.

A panel holds, for each k, the vectors of its columns side by side (see `tile.Columns`); columns beyond the matrix are
zero. The forward scans multiply by the transposed weights, whose panels are packed once for every assignment of the
parameters and kept. The backward scans multiply by the weights as they stand; packing those is a plain copy, made
anew in each backward pass. Panels are packed run by run, each by itself: see ``packer.py``.
"""

from typing import NamedTuple

from .._jit import inner, overload
from ..cells.parameters import layout, places
from ..simd.lanes import load_first, size_of, store, store_first, transpose_block, width
from ..simd.memory import address, aligned, clear, copy, keep_alive, memory
from .factor_rows import put_across
from .factor_weights import as_words, put_heads
from .factors import deep, factors_of, parts_of, place_of_word, words_of
from .matrices import gate_columns, panel_count, panel_vectors, plain_columns

__all__ = [
    "BackPanels",
    "Panels",
    "Run",
    "back_panels",
    "back_panels_size",
    "constants_at",
    "forward_panels",
    "forward_panels_size",
    "group_size",
    "groups_of",
    "pack_back",
    "pack_forward",
    "padded",
    "panel_size",
    "state_columns",
]


class Panels(NamedTuple):
    """Addresses of what a forward scan of one direction of one layer computes with. H' is H in whole vectors."""

    weight_ih: int
    weight_hh: int
    #: the rows of weight_hh that are those of the cell's `product`
    product: int
    weight_hr: int
    #: (M * H,) what the sums of a row start from
    bias: int
    #: where products are normalised, their gains in the order of a row: see ``norm.py``
    gains: int
    #: (U, H') unit weights
    units: int
    #: input size of the layer
    inputs: int


class BackPanels(NamedTuple):
    """Addresses of what a backward scan of one direction of one layer multiplies by."""

    weight_ih: int
    weight_hh: int
    product: int
    weight_hr: int
    inputs: int


class Run(NamedTuple):
    """Panels that are packed, and what lies beside them: what begins in these elements of the buffer."""

    first: int
    last: int


@inner
def _has(run, at):
    return run.first <= at < run.last


@inner
def _put(source, first, count, target, to):
    """target[to : to + count] = source[first : first + count]; Numba takes seconds to compile it so written."""
    copy(address(target, to), address(source, first), count * size_of(source))


@inner
def padded(dtype, units):
    """``units`` rounded up to whole vectors."""
    return -(-units // width(dtype)) * width(dtype)


@inner
def state_columns(dtype, units, gates):
    """The columns of a product with the state that gives so many gates of a unit, at most four."""
    return plain_columns(dtype, units) if gates == 1 else gate_columns(dtype, units, gates)


@inner
def groups_of(gates):
    """How many products with the state give so many gates: at most four gates each, as a panel has four vectors."""
    return (gates + 3) // 4


@inner
def group_size(gates, group):
    """How many gates the product of that number gives: as evenly as possible."""
    groups = max(1, groups_of(gates))
    return gates // groups + (1 if group < gates % groups else 0)


@inner
def panel_size(factors, columns, k):
    """Elements of all panels of a matrix of k rows."""
    last, lanes = panel_count(columns) - 1, width(factors)
    return deep(factors, k) * lanes * (last * columns.vectors + panel_vectors(columns, last, lanes))


@inner
def _state_size(factors, of, k):
    """Elements of the panels of weight_hh, without the rows of `product`."""
    total = 0
    for group in range(groups_of(of.gates_hh)):
        total += panel_size(factors, state_columns(factors, of.hidden_size, group_size(of.gates_hh, group)), k)
    return total


@inner
def _lay_out(factors, of, layer, direction):
    """Offsets, in elements, of what `Panels` has of one direction in the buffer of panels, and where they end."""
    units, outputs = of.hidden_size, of.output_size
    at = 0
    for number in range(layer * of.num_directions + direction + 1):
        inputs = of.input_size if number < of.num_directions else of.num_directions * outputs
        weight_hh = at + panel_size(factors, plain_columns(factors, of.gates_ih * units), inputs)
        product = weight_hh + _state_size(factors, of, outputs)
        weight_hr = product + of.product * panel_size(factors, plain_columns(factors, units), units)
        bias = weight_hr
        if outputs != units:
            bias += panel_size(factors, plain_columns(factors, outputs), units)
        gains = bias + -(-of.gates * units // 16) * 16
        products = of.gates_hh + of.product + of.gates_ih
        unit_weights = gains + -(-of.normed * products * units // 16) * 16
        end = unit_weights + -(-of.units * padded(factors, units) // 16) * 16
        found = (at, weight_hh, product, weight_hr, bias, gains, unit_weights, end, inputs)
        at = end
    return found


@inner
def _lay_out_back(factors, of, layer, direction):
    """The same for `BackPanels`."""
    units, outputs = of.hidden_size, of.output_size
    at = 0
    for number in range(layer * of.num_directions + direction + 1):
        inputs = of.input_size if number < of.num_directions else of.num_directions * outputs
        weight_hh = at + panel_size(factors, plain_columns(factors, inputs), of.gates_ih * units)
        product = weight_hh + panel_size(factors, plain_columns(factors, outputs), of.gates_hh * units)
        weight_hr = product + of.product * panel_size(factors, plain_columns(factors, units), units)
        end = weight_hr
        if outputs != units:
            end += panel_size(factors, plain_columns(factors, units), outputs)
        found = (at, weight_hh, product, weight_hr, end, inputs)
        at = end
    return found


@inner
def forward_panels(weights, layer, direction):
    """Where `pack_forward` put the weights of one direction of one layer."""
    weight_ih, weight_hh, product, weight_hr, bias, gains, units, _, inputs = _lay_out(
        factors_of(weights), layout(weights), layer, direction
    )
    panels = weights.panels
    return Panels(
        address(panels, weight_ih),
        address(panels, weight_hh),
        address(panels, product),
        address(panels, weight_hr),
        address(panels, bias),
        address(panels, gains),
        address(panels, units),
        inputs,
    )


@inner
def back_panels(weights, panels, layer, direction):
    """Where `pack_back` put the weights of one direction of one layer."""
    weight_ih, weight_hh, product, weight_hr, _, inputs = _lay_out_back(
        factors_of(weights), layout(weights), layer, direction
    )
    return BackPanels(
        address(panels, weight_ih), address(panels, weight_hh), address(panels, product), address(panels, weight_hr),
        inputs,
    )  # fmt: skip


@inner
def _full_size(factors, columns, k):
    """Elements of each panel but the last."""
    return columns.vectors * width(factors) * deep(factors, k)


@inner
def _pack_transposed(factors, source, first, k, columns, target, at, run):
    """Panels of the transpose of the matrix (n, k) at ``source[first:]``."""
    for p in range(panel_count(columns)):
        panel = at + p * _full_size(factors, columns, k)
        for j in range(panel_vectors(columns, p, width(source)) if _has(run, panel) else 0):
            _pack_vector(factors, source, first, k, columns, p, j, j * columns.between, target, panel)


@inner
def _dense(parameters, first, of):
    """weight_hh (., P) of parts (., P / heads) at ``parameters[first:]``, with zeros where a unit does not see h.

    Empty where there is one part, which is all.
    """
    units, part = of.hidden_size, of.output_size // of.heads
    rows = (of.gates_hh + of.product) * units if of.heads > 1 else 0
    dense = aligned(parameters.dtype, rows * of.output_size)
    clear(address(dense, 0), dense.size * size_of(parameters))
    for row in range(rows):
        to = row * of.output_size + row % units // (units // of.heads) * part
        _put(parameters, first + row * part, part, dense, to)
    return dense


@inner
def _pack_state(factors, source, first, of, target, at, product, run):
    """Panels of the transpose of weight_hh (., P) at ``source[first:]``, its gates in the order of a row of sums."""
    gates, units, k = of.gates_hh, of.hidden_size, of.output_size
    if of.product:
        own = first + gates * units * k
        _pack_transposed(factors, source, own, k, plain_columns(factors, units), target, product, run)
    begin = 0
    for group in range(groups_of(gates)):
        number = group_size(gates, group)
        columns = state_columns(factors, units, number)
        for p in range(panel_count(columns)):
            panel = at + p * _full_size(factors, columns, k)
            vectors = number if number > 1 else panel_vectors(columns, p, width(source))
            for j in range(vectors if _has(run, panel) else 0):
                column = j * columns.between
                if number > 1:
                    column = (begin + j + gates - of.turn) % gates * units
                _pack_vector(factors, source, first, k, columns, p, j, column, target, panel)
        at += panel_size(factors, columns, k)
        begin += number


@inner
def _pack_vector(factors, source, first, k, columns, p, j, column, target, at):
    """Vector j of panel p: the columns of the transpose from ``column`` on, counted from those of the panel."""
    lanes, size = width(source), size_of(source)
    vectors, count = panel_vectors(columns, p, lanes), words_of(factors, k)
    row = first + (p * columns.per_panel + column) * k
    left = columns.total - p * columns.per_panel - (j * lanes if columns.adjacent else 0)
    words, row, step = as_words(factors, source, row, max(0, min(left, lanes)), k)
    at = put_heads(factors, words, row, step, k, left, target, at, j, vectors)
    for part in range(parts_of(factors)):
        for kk in range(0, count, lanes):
            to = address(target, at + (place_of_word(factors, kk, part) * vectors + j) * lanes)
            here = address(words, row + part * count + kk)
            transpose_block(source, here, step * size, left, count - kk, to, vectors * lanes * size)


@inner
def _pack_plain(factors, source, first, k, columns, turn, target, at, run):
    """Panels of the matrix (k, n) at ``source[first:]``, its row blocks of gates rotated by ``turn`` rows."""
    lanes = width(source)
    for p in range(panel_count(columns)):
        vectors, column = panel_vectors(columns, p, lanes), p * columns.per_panel
        left = columns.total - column
        if _has(run, at):
            _pack_rows(factors, source, first + column, k, columns.total, left, turn, vectors, target, at)
        at += deep(factors, k) * vectors * lanes


def _pack_rows(factors, source, first, k, n, left, turn, vectors, target, at):
    """A panel of so many vectors, of the first ``left`` columns of the matrix (k, n) at ``source[first:]``."""
    raise NotImplementedError


@overload(_pack_rows)
def _packed_rows(factors, source, first, k, n, left, turn, vectors, target, at):
    return _pack_rows_of_floats if factors.kind == "float" else _pack_rows_of_pairs


def _pack_rows_of_floats(factors, source, first, k, n, left, turn, vectors, target, at):
    lanes = width(source)
    for kk in range(k):
        row = first + ((kk + k - turn) % k) * n
        for j in range(vectors):
            value = load_first(source, address(source, row + j * lanes), left - j * lanes)
            store(address(target, at + (kk * vectors + j) * lanes), value)


def _pack_rows_of_pairs(factors, source, first, k, n, left, turn, vectors, target, at):
    wide, parts = vectors * width(source), parts_of(factors)
    clear(address(target, at), deep(factors, k) * wide * size_of(source))
    for kk in range(0, k, 2):
        upper = address(source, first + (kk + k - turn) % k * n)
        lower = address(source, first + (kk + 1 + k - turn) % k * n) if kk + 1 < k else 0
        for part in range(parts):
            row = place_of_word(factors, kk // 2, part)
            put_across(factors, upper, lower, min(left, wide), part, address(target, at + row * wide))


@inner
def _pack_state_back(factors, source, first, of, target, at, product, run):
    """Panels of weight_hh (., P) at ``source[first:]``, its row blocks in the order of a row of sums."""
    units, columns = of.hidden_size, plain_columns(factors, of.output_size)
    _pack_plain(factors, source, first, of.gates_hh * units, columns, of.turn * units, target, at, run)
    if of.product:
        own = first + of.gates_hh * units * of.output_size
        _pack_plain(factors, source, own, units, columns, 0, target, product, run)


@inner
def _pack_bias(parameters, of, place, target, at):
    """The row (M * H,) that sums start from: each block the biases of its products."""
    units, gates = of.hidden_size, of.gates_hh
    clear(address(target, at), of.gates * units * size_of(target))
    if of.bias:
        _add(parameters, place.bias_ih, of.gates_ih * units, target, at + of.turn * units)
        for gate in range(gates):
            _add(parameters, place.bias_hh + gate * units, units, target, at + (gate + of.turn) % gates * units)
        if of.product:
            _add(parameters, place.bias_hh + gates * units, units, target, at + (of.gates - 1) * units)


@inner
def _add(source, first, count, target, to):
    """target[to : to + count] += source[first : first + count]."""
    for i in range(0, count, width(source)):
        here, there, left = address(target, to + i), address(source, first + i), count - i
        store_first(here, load_first(source, here, left) + load_first(source, there, left), left)


@inner
def _pack_gains(parameters, of, place, target, at):
    """The gains of the products with the state, of the cell's `product`, and of those with the input."""
    units, gates = of.hidden_size, of.gates_hh
    for gate in range(gates):
        row, block = place.gain_hh + gate * units, at + (gate + of.turn) % gates * units
        _put(parameters, row, units, target, block)
    row, block, count = place.gain_hh + gates * units, at + gates * units, of.product * units
    _put(parameters, row, count, target, block)
    _put(parameters, place.gain_ih, of.gates_ih * units, target, block + count)


@inner
def constants_at(weights):
    """The address of (C,) constants, behind the panels."""
    end = _lay_out(factors_of(weights), layout(weights), weights.num_layers - 1, weights.num_directions - 1)[-2]
    return address(weights.panels, end)


@inner
def forward_panels_size(factors, of):
    """Elements of the panels of the forward scans, behind which the constants lie; ``of`` is a `Layout`."""
    return _lay_out(factors, of, of.num_layers - 1, of.num_directions - 1)[-2]


@inner
def back_panels_size(factors, of):
    """Elements of the panels of the backward scans."""
    return _lay_out_back(factors, of, of.num_layers - 1, of.num_directions - 1)[4]


@inner
def pack_forward(factors, source, of, constants, count, target, run):
    """A run of the panels of the forward scans, made of the parameters, and the ``count`` constants; all in memory."""
    dtype, units, outputs = source.dtype, of.hidden_size, of.output_size
    end = forward_panels_size(factors, of)
    if _has(run, end):
        _put(constants, 0, count, target, end)
    for layer in range(of.num_layers):
        for direction in range(of.num_directions):
            place = places(of, layer, direction)
            at, weight_hh, product, weight_hr, bias, gains, unit_weights, _, inputs = _lay_out(
                factors, of, layer, direction
            )
            rows = plain_columns(factors, of.gates_ih * units)
            _pack_transposed(factors, source, place.weight_ih, inputs, rows, target, at, run)
            state, first, dense = source, place.weight_hh, _dense(source, place.weight_hh, of)
            if of.heads > 1:
                state, first = memory(address(dense, 0), dtype), 0
            _pack_state(factors, state, first, of, target, weight_hh, product, run)
            keep_alive((dense,))
            if outputs != units:
                columns = plain_columns(factors, outputs)
                _pack_transposed(factors, source, place.weight_hr, units, columns, target, weight_hr, run)
            if _has(run, bias):
                _pack_bias(source, of, place, target, bias)
            if of.normed and _has(run, gains):
                _pack_gains(source, of, place, target, gains)
            for unit_weight in range(of.units if _has(run, unit_weights) else 0):
                row, to = place.units + unit_weight * units, unit_weights + unit_weight * padded(factors, units)
                clear(address(target, to), padded(factors, units) * size_of(dtype))
                _put(source, row, units, target, to)


@inner
def pack_back(factors, source, of, target, input_grad, run):
    """The same of the backward scans; without ``input_grad`` not what the input's gradient takes."""
    dtype, units, outputs = source.dtype, of.hidden_size, of.output_size
    for layer in range(of.num_layers):
        for direction in range(of.num_directions):
            place = places(of, layer, direction)
            at, weight_hh, product, weight_hr, _, inputs = _lay_out_back(factors, of, layer, direction)
            if layer > 0 or input_grad:
                columns = plain_columns(factors, inputs)
                _pack_plain(factors, source, place.weight_ih, of.gates_ih * units, columns, 0, target, at, run)
            state, first, dense = source, place.weight_hh, _dense(source, place.weight_hh, of)
            if of.heads > 1:
                state, first = memory(address(dense, 0), dtype), 0
            _pack_state_back(factors, state, first, of, target, weight_hh, product, run)
            keep_alive((dense,))
            if outputs != units:
                columns = plain_columns(factors, units)
                _pack_plain(factors, source, place.weight_hr, outputs, columns, 0, target, weight_hr, run)
