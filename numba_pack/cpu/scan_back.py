"""The recurrence over time, backward, and the gradients of the weights.

Gradients bear the name of what they are of, with ``d_`` before it; shapes are those of ``scan.py``. A scan goes over
the steps of the forward scan in the opposite order. It turns the gates on the tape into the gradients of their sums,
in place. What goes back over the input, to the state, and into the weights are three products with those:

    d_x = d_gates @ W_ih,   d_h = d_gates @ W_hh (of the step before),   d_W = d_gates.T @ [x or h]

The first two are sums along a row, and so depend on that sequence alone. The third is a sum over all rows of the
batch, always in their order: threads divide the rows of the weights among them, never the rows of the batch.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .._jit import inner
from ..cells.parameters import gates_of, has_c, kept_of, places, step_back, turn_of
from ..simd.lanes import (
    always_inline,
    like,
    load,
    load_first,
    load_gates,
    nothing,
    store,
    store_first,
    store_gates,
    width,
)
from ..simd.memory import address, clear, keep_alive
from .drop import drop_layer
from .panels import BackPanels, aligned, back_panels
from .scan import Rows, give_states, padded, row_at, row_width, shifted, steps_of, take_states
from .symbols import scatter, scatter_scratch
from .tile import (
    Matrix,
    add_product,
    multiply,
    multiply_panels,
    panel_count,
    panel_vectors,
    panels_at_once,
    plain_columns,
    there_and_back,
)

__all__ = ["backward_stack", "weight_gradients"]

# A gradient of the weights is a sum over all rows of the batch, which would lose its digits as one running sum. It is a
# sum of spans, each a sum of blocks, whose order and ends do not depend on threads.
#: rows whose products are summed at a time
BLOCK_ROWS = 128
SPAN_ROWS = 128 * BLOCK_ROWS


class BackDirection(NamedTuple):
    """What a backward scan reads and writes."""

    #: `BackPanels` of the weights
    panels: BackPanels
    #: (., P) the output of the forward scan, and with it the state before each step
    out: Rows
    #: (., P) gradient of the output
    d_out: Rows
    #: (., W) gates, which become their gradients
    gates: Rows
    #: (., H') c before each step
    cells: Rows
    #: (., P) with a projection: the whole gradient of h at each step is written here
    d_projected: Rows
    #: (B, P') the state that sequences begin with; P' is P rounded up to whole vectors
    h_0: Matrix
    #: (B, P') gradient of the state: of the last at first, then passed from step to step
    d_h: Matrix
    #: (B, H') the same for c
    d_c: Matrix
    #: (B, H') with a projection: the gradient of h before the projection
    d_unprojected: Matrix
    #: a row of zeros
    zeros: Matrix
    #: the forward scan went backward in time
    reverse: bool


@inner
def _back_cell_rows(weights, d, t, rows, going_on, unit, units):
    """The cell's derivative, for ``units`` units from ``unit`` on, of all rows of step t."""
    always_inline()
    dtype = weights.parameters
    size = dtype.itemsize
    H, P = weights.hidden_size, weights.output_size
    gates_at, cells_at = row_at(dtype, d.gates, t, 0), row_at(dtype, d.cells, t, 0)
    d_out = row_at(dtype, d.d_out, t, 0)
    before = d.h_0
    if going_on > 0:
        before = row_at(dtype, d.out, t + 1 if d.reverse else t - 1, 0)
    for r in range(rows):
        h_at = before.at + r * before.step * size if r < going_on else d.h_0.at + r * d.h_0.step * size
        for u in range(unit, min(unit + units, H), width(dtype)):
            count = H - u
            at = gates_at.at + (r * gates_at.step + u) * size
            carried = d.d_h.at + (r * d.d_h.step + u) * size
            h = nothing(dtype)
            c, d_c = h, h
            if turn_of(weights):  # the one formula that reads h itself
                h = load_first(dtype, h_at + u * size, count)
            if P == H:
                d_h = load(dtype, carried) + load_first(dtype, d_out.at + (r * d_out.step + u) * size, count)
            else:
                d_h = load(dtype, d.d_unprojected.at + (r * d.d_unprojected.step + u) * size)
            if has_c(weights):
                c = load(dtype, cells_at.at + (r * cells_at.step + u) * size)
                d_c = load(dtype, d.d_c.at + (r * d.d_c.step + u) * size)
            gates = load_gates(dtype, at, H * size, count, kept_of(weights))
            gates, d_h, d_c = step_back(weights, gates, h, c, d_h, d_c)
            store_gates(at, H * size, count, gates)
            if P == H:
                store(carried, d_h)
            if has_c(weights):
                store(d.d_c.at + (r * d.d_c.step + u) * size, d_c)


@inner
def _carry_back(weights, d, t, r0, rows):
    """d_h += d_gates @ W_hh, for ``rows`` rows of step t from row r0 on."""
    dtype, k = weights.parameters, gates_of(weights) * weights.hidden_size
    d_h = Matrix(d.d_h.at + r0 * d.d_h.step * dtype.itemsize, d.d_h.step)
    d_gates, columns = row_at(dtype, d.gates, t, r0), plain_columns(dtype, weights.output_size)
    multiply(weights, d_gates, 1, rows, k, d.panels.weight_hh, columns, d_h, d_h)


@inner
def _projected_rows(weights, d, t, rows):
    """With a projection: the whole gradient of h at step t, and from it that of h before the projection."""
    dtype, P, H = weights.parameters, weights.output_size, weights.hidden_size
    d_out, whole = row_at(dtype, d.d_out, t, 0), row_at(dtype, d.d_projected, t, 0)
    for r in range(rows):
        for u in range(0, P, width(dtype)):
            carried = d.d_h.at + (r * d.d_h.step + u) * dtype.itemsize
            total = load(dtype, carried) + load_first(dtype, d_out.at + (r * d_out.step + u) * dtype.itemsize, P - u)
            store_first(whole.at + (r * whole.step + u) * dtype.itemsize, total, P - u)
            store(carried, like(total, 0.0))
    multiply(weights, whole, 1, rows, P, d.panels.weight_hr, plain_columns(dtype, H), d.zeros, d.d_unprojected)


@inner
def _scan_back(weights, d, steps):
    """One direction of one layer, against the order of its forward scan. Leaves d_h, d_c those of the first state."""
    dtype, H, P = weights.parameters, weights.hidden_size, weights.output_size
    columns, k = plain_columns(dtype, P), gates_of(weights) * H
    sizes = steps.sizes
    T = sizes.size
    for i in range(T):
        t = i if d.reverse else T - 1 - i
        following, before = (t - 1, t + 1) if d.reverse else (t + 1, t - 1)
        ready = min(sizes[t], sizes[following]) if 0 <= following < T else 0  # rows whose next step has been done
        going_on = min(sizes[t], sizes[before]) if 0 <= before < T else 0  # rows that have a step before
        if P != H:
            if ready > 0:
                _carry_back(weights, d, following, 0, ready)
            _projected_rows(weights, d, t, sizes[t])
            _back_cell_rows(weights, d, t, sizes[t], going_on, 0, H)
            continue
        d_gates = row_at(dtype, d.gates, max(0, min(following, T - 1)), 0)
        count, number = panel_count(columns), panels_at_once(weights, ready, k, columns)
        groups = (count + number - 1) // number
        for n in range(groups):
            p = there_and_back(n, groups, t) * number
            next_p = min(p + number, count)
            if ready > 0:
                multiply_panels(weights, p, next_p, d_gates, 1, ready, k, d.panels.weight_hh, columns, d.d_h, d.d_h)
            unit, units = p * columns.per_panel, (next_p - p) * columns.per_panel
            _back_cell_rows(weights, d, t, sizes[t], going_on, unit, units)
    for t in range(T):  # the first step of each sequence
        before = t + 1 if d.reverse else t - 1
        going_on = min(sizes[t], sizes[before]) if 0 <= before < T else 0
        if sizes[t] > going_on:
            _carry_back(weights, d, t, going_on, sizes[t] - going_on)


@inner
def _input_back(weights, d, steps, d_x, add):
    """d_x (., K) = d_gates @ W_ih, or += with ``add``; as many steps at once as adjoin."""
    dtype = weights.parameters
    columns = plain_columns(dtype, d.panels.inputs)
    turn = turn_of(weights) * weights.hidden_size
    sizes = steps.sizes
    t = 0
    while t < sizes.size:
        rows, following = sizes[t], t + 1
        while following < sizes.size and steps.places[following] == steps.places[t] + rows:
            rows += sizes[following]
            following += 1
        target = row_at(dtype, d_x, t, 0)
        d_gates = shifted(dtype, row_at(dtype, d.gates, t, 0), turn)
        k = gates_of(weights) * weights.hidden_size
        multiply(weights, d_gates, 1, rows, k, d.panels.weight_ih, columns, target if add else d.zeros, target)
        t = following


@inner
def backward_stack(
    weights,
    panels,
    batch,
    first,
    last,
    states,
    drop,
    tape,
    out,
    d_out,
    d_states,
    d_between,
    input_grad,
    d_x,
    d_hx,
    d_projected,
):  # fmt: skip
    """All layers and directions back, for the sequences ``first`` to ``last`` of the sorted batch.

    ``panels`` are those of `pack_back`, ``out`` and ``tape`` those of `forward_stack`, whose gates become gradients.
    Reads d_out (N, D * P) and ``d_states``, the gradients of h_n and c_n. Writes those sequences' part of d_x (N, I),
    with ``input_grad``, of ``d_hx``, the gradients of h_0 and c_0, and of d_projected (L * D, N, P). ``d_between``,
    (L - 1 or 2, N, D * P), is for the gradients between layers.
    """
    dtype = weights.parameters
    size = dtype.itemsize
    H, P, D = weights.hidden_size, weights.output_size, weights.num_directions
    steps = steps_of(batch.batch_sizes, first, last)
    N, mine = batch.rows, last - first
    W, H_padded, P_padded = row_width(weights), padded(dtype, H), padded(dtype, P)

    h, d_h, d_c = aligned(dtype, mine * P_padded), aligned(dtype, mine * P_padded), aligned(dtype, mine * H_padded)
    d_unprojected = aligned(dtype, mine * H_padded if P != H else 0)
    zeros = aligned(dtype, max(H, weights.input_size, D * P) + width(dtype))
    clear(address(zeros, 0), zeros.size * dtype.itemsize)

    places = address(steps.places, 0)
    d_target = Rows(address(d_out, 0), D * P, places)
    for layer in range(weights.num_layers - 1, -1, -1):
        output = Rows(address(out, 0), D * P, places)
        if layer < weights.num_layers - 1:
            output = Rows(address(tape.outputs, layer * N * D * P), D * P, places)
        d_source = Rows(address(d_x, 0), weights.input_size, places)
        if layer > 0:
            d_source = Rows(address(d_between, (layer - 1) % 2 * N * D * P), D * P, places)
        for direction in range(D):
            index = layer * D + direction
            take_states(dtype, states.h, states.given, index, batch.order, first, h, P)
            take_states(dtype, d_states.h, d_states.given, index, batch.order, first, d_h, P)
            take_states(dtype, d_states.c, d_states.given and has_c(weights) == 1, index, batch.order, first, d_c, H)
            d = BackDirection(
                back_panels(weights, panels, layer, direction),
                Rows(output.at + direction * P * size, D * P, places),
                Rows(d_target.at + direction * P * size, D * P, places),
                Rows(address(tape.gates, index * N * W), W, places),
                Rows(address(tape.cells, index * N * H_padded), H_padded, places),
                Rows(address(d_projected, index * N * P), P, places),
                Matrix(address(h, 0), P_padded),
                Matrix(address(d_h, 0), P_padded),
                Matrix(address(d_c, 0), H_padded),
                Matrix(address(d_unprojected, 0), H_padded),
                Matrix(address(zeros, 0), 0),
                direction == 1,
            )
            _scan_back(weights, d, steps)
            if layer > 0 or input_grad:
                _input_back(weights, d, steps, d_source, direction == 1)
            give_states(dtype, d_h, index, batch.order, first, d_hx.h, P)
            if has_c(weights):
                give_states(dtype, d_c, index, batch.order, first, d_hx.c, H)
        if drop != 0 and layer > 0:
            drop_layer(drop, layer - 1, steps, batch.order, first, d_source, d_source)
        d_target = d_source
    keep_alive((steps, h, d_h, d_c, d_unprojected, zeros))


@inner
def _add_products(weights, gates, factor, N, K, gate_count, units, turn, low, high, gradient, at):
    """gradient (gates * H, K) += d_gates.T @ factor, in its rows of the units ``low`` to ``high`` of each gate.

    ``factor`` gives each row's address; ``turn`` is how many gates the columns of d_gates are rotated by.
    """
    dtype = weights.parameters
    columns = plain_columns(dtype, K)
    lanes, size = width(dtype), dtype.itemsize
    panel = aligned(dtype, BLOCK_ROWS * columns.vectors * lanes)
    mine = (high - low) * K
    of_span = aligned(dtype, gate_count * mine if N > SPAN_ROWS else 0)
    for span in range(0, N, SPAN_ROWS):
        target, apart = address(gradient, at + low * K), units * K
        if span > 0:
            target, apart = address(of_span, 0), mine
            clear(target, gate_count * mine * size)
        for block in range(span, min(N, span + SPAN_ROWS), BLOCK_ROWS):
            rows = min(BLOCK_ROWS, N - block)
            for p in range(panel_count(columns)):
                vectors, first = panel_vectors(columns, p, lanes), p * columns.per_panel
                for n in range(rows):
                    for j in range(vectors):
                        column = first + j * lanes
                        value = load_first(dtype, factor[block + n] + column * size, K - column)
                        store(address(panel, (n * vectors + j) * lanes), value)
                left = plain_columns(dtype, K - first if p == panel_count(columns) - 1 else columns.per_panel)
                for gate in range(gate_count):
                    column = ((gate + turn) % gate_count) * units + low
                    a = Matrix(gates.at + (block * gates.step + column) * size, 1)
                    c = Matrix(target + (gate * apart + first) * size, K)
                    add_product(weights, a, gates.step, high - low, rows, address(panel, 0), left, c)
        if span > 0:
            for gate in range(gate_count):
                _add(dtype, address(gradient, at + (gate * units + low) * K), target + gate * mine * size, mine)
    keep_alive((panel, of_span))


@inner
def _add(dtype, target, source, count):
    """target[:count] += source[:count], at two addresses."""
    for i in range(0, count, width(dtype)):
        at = i * dtype.itemsize
        store_first(
            target + at,
            load_first(dtype, target + at, count - i) + load_first(dtype, source + at, count - i),
            count - i,
        )


@inner
def _add_sums(dtype, gates, N, first, count, gradient, at):
    """gradient[at : at + count] += the sums over all rows of d_gates, from column ``first`` on."""
    size = dtype.itemsize
    for u in range(0, count, width(dtype)):
        total = nothing(dtype)
        for span in range(0, N, SPAN_ROWS):
            of_span = nothing(dtype)
            for block in range(span, min(N, span + SPAN_ROWS), BLOCK_ROWS):
                of_block = nothing(dtype)
                for n in range(block, min(N, block + BLOCK_ROWS)):
                    of_block = of_block + load_first(dtype, gates.at + (n * gates.step + first + u) * size, count - u)
                of_span = of_span + of_block
            total = total + of_span
        store_first(address(gradient, at + u), total, count - u)


@inner
def _add_by_symbols(weights, gates, symbols, N, K, gate_count, low, high, gradient, at):
    """As `_add_products` with one-hot rows, given by the address of their symbols, and to the same bits."""
    dtype, units, size = weights.parameters, weights.hidden_size, weights.parameters.itemsize
    mine = (high - low) * K
    of_span = aligned(dtype, gate_count * mine if N > SPAN_ROWS else 0)
    scratch = scatter_scratch(dtype, BLOCK_ROWS, K)
    for span in range(0, N, SPAN_ROWS):
        target, apart = address(gradient, at + low * K), units * K
        if span > 0:
            target, apart = address(of_span, 0), mine
            clear(target, gate_count * mine * size)
        for block in range(span, min(N, span + SPAN_ROWS), BLOCK_ROWS):
            rows = min(BLOCK_ROWS, N - block)
            for gate in range(gate_count):
                d_gates = Matrix(gates.at + (block * gates.step + gate * units + low) * size, gates.step)
                d_weight = Matrix(target + gate * apart * size, K)
                scatter(dtype, d_gates, symbols + 8 * block, rows, high - low, d_weight, scratch)
        if span > 0:
            for gate in range(gate_count):
                _add(dtype, address(gradient, at + (gate * units + low) * K), target + gate * mine * size, mine)
    keep_alive((of_span, scratch))


@inner
def _states_before(weights, batch, states, index, out, zeros, reverse):
    """(N,) the address of the state before each row's step: a row of the output, of h_0, or of zeros."""
    dtype, P = weights.parameters, weights.output_size
    found = np.empty(batch.rows, np.int64)
    T, row, row_before = batch.batch_sizes.size, 0, 0
    for t in range(T):
        size = batch.batch_sizes[t]
        row_before = row + size if reverse else row - (batch.batch_sizes[t - 1] if t > 0 else 0)
        going_on = size if t > 0 else 0
        if reverse:
            going_on = batch.batch_sizes[t + 1] if t + 1 < T else 0
        for r in range(size):
            if r < going_on:
                found[row + r] = out.at + (row_before + r) * out.step * dtype.itemsize
            elif states.given:
                found[row + r] = address(states.h, (index * batch.order.size + batch.order[r]) * P)
            else:
                found[row + r] = zeros
        row += size
    return found


@inner
def _rows_of(dtype, at, step, N):
    """(N,) the address of each row of a matrix."""
    found = np.empty(N, np.int64)
    for n in range(N):
        found[n] = at + n * step * dtype.itemsize
    return found


@inner
def weight_gradients(weights, batch, states, drop, tape, out, d_projected, part, parts, gradient):
    """Part ``part`` of ``parts`` of the gradient of the parameters, after `backward_stack` has done all sequences.

    ``gradient`` is laid out like the parameters and begins as zeros.
    """
    dtype = weights.parameters
    H, P, D = weights.hidden_size, weights.output_size, weights.num_directions
    N, gates, turn = batch.rows, gates_of(weights), turn_of(weights)
    W, H_padded = row_width(weights), padded(dtype, H)
    low, high = H * part // parts, H * (part + 1) // parts
    zeros = aligned(dtype, P)
    clear(address(zeros, 0), zeros.size * dtype.itemsize)
    steps = steps_of(batch.batch_sizes, 0, batch.order.size)
    begins = address(steps.places, 0)
    dropped = aligned(dtype, N * D * P if drop != 0 and weights.num_layers > 1 else 0)
    for layer in range(weights.num_layers):
        source = Rows(address(batch.data, 0), weights.input_size, begins)
        if layer > 0:
            source = Rows(address(tape.outputs, (layer - 1) * N * D * P), D * P, begins)
        if drop != 0 and layer > 0:
            copy = Rows(address(dropped, 0), D * P, begins)
            drop_layer(drop, layer - 1, steps, batch.order, 0, source, copy)
            source = copy
        for direction in range(D):
            index = layer * D + direction
            place = places(weights, layer, direction)
            at = address(out, direction * P)
            if layer < weights.num_layers - 1:
                at = address(tape.outputs, layer * N * D * P + direction * P)
            d_gates = Matrix(address(tape.gates, index * N * W), W)
            of_input = shifted(dtype, d_gates, turn * H)
            if batch.symbols and layer == 0:
                symbols = address(batch.data, 0)
                _add_by_symbols(
                    weights, of_input, symbols, N, place.inputs, gates, low, high, gradient, place.weight_ih
                )
            else:
                x = _rows_of(dtype, source.at, source.step, N)
                _add_products(weights, of_input, x, N, place.inputs, gates, H, 0, low, high, gradient, place.weight_ih)
            zero = address(zeros, 0)
            h = _states_before(weights, batch, states, index, Matrix(at, D * P), zero, direction == 1)
            _add_products(weights, d_gates, h, N, P, gates, H, turn, low, high, gradient, place.weight_hh)
            if weights.bias:
                for gate in range(gates):
                    of_state = (gate + turn) % gates * H + low
                    row = gate * H + low
                    _add_sums(dtype, of_input, N, row, high - low, gradient, place.bias_ih + row)
                    _add_sums(dtype, d_gates, N, of_state, high - low, gradient, place.bias_hh + row)
            if P != H:
                d_h = Matrix(address(d_projected, index * N * P), P)
                unprojected = _rows_of(dtype, address(tape.unprojected, index * N * H_padded), H_padded, N)
                low_out, high_out = P * part // parts, P * (part + 1) // parts
                _add_products(weights, d_h, unprojected, N, H, 1, P, 0, low_out, high_out, gradient, place.weight_hr)
    keep_alive((steps, dropped, zeros))
