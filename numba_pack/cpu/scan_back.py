"""The recurrence over time, backward, and the gradients of the weights.

A gradient is named after its variable, with ``d_`` before it; shapes are those of ``scan.py``. A scan goes over
the steps of the forward scan in the opposite order. It turns the gates on the tape into the gradients of their sums,
in place. What goes back over the input, to the state, and into the weights are three products with those:

    d_x = d_gates @ W_ih,   d_h = d_gates @ W_hh (of the step before),   d_W = d_gates.T @ [x or h]

The first two are sums along a row, and so depend on that sequence alone. The third is a sum over all rows of the
batch, always in the order in which the scan comes to them: threads divide the rows of the weights among them, never
the rows of the batch. So a batch may be gone over piece by piece, each with a call of both passes: ``checkpoints.py``.
"""

import functools
from typing import Any, NamedTuple

import numpy as np
from numba import types
from numba.extending import intrinsic

from .._jit import by_address, inner
from ..cells.parameters import (
    constants_of,
    fixed_of,
    gates_hh_of,
    gates_of,
    has_product,
    kept_numbers_of,
    kept_of,
    kept_states_of,
    layout,
    noises_of,
    normed,
    others_of,
    places,
    product_back,
    products_of_tape,
    reads_h_back,
    step_back,
    units_of,
)
from ..simd.lanes import (
    added,
    always_inline,
    chained,
    fetch_each,
    joined,
    like,
    load,
    load_each,
    load_first,
    load_gates,
    nothing,
    parted,
    size_of,
    splat_each,
    store,
    store_each,
    store_first,
    store_gates,
    width,
    without_first,
)
from ..simd.memory import (
    address,
    aligned,
    call_with,
    clear,
    integer_at,
    integers_at,
    keep_alive,
    memory,
    put_integer,
)
from .drop import drop_layer, drops
from .factor_rows import as_factors, columns_as_factors, columns_of, columns_size, put_panel
from .factors import deep, factors_of, is_float, room_size
from .matrices import Matrix, below, panel_count, panel_vectors, plain_columns, shifted
from .meeting import Share, meet
from .noise import draw_noises, masks_state, multiplied, state_mask
from .norm import (
    OF_INPUT,
    OF_PRODUCT,
    OF_STATE,
    normalise_back,
    products_of,
    sums_of,
)
from .panels import BackPanels, back_panels, constants_at, forward_panels, padded
from .products import add_product, multiply_panels, multiply_rows, panels_at_once, there_and_back
from .scan import (
    STEPS,
    Rows,
    both,
    by_panels,
    fetch_rows,
    fix,
    give_states,
    row_at,
    share_of,
    steps_of,
    take_states,
    vector_after,
)
from .shapes import row_width
from .symbols import scatter, scatter_scratch
from .table import SHARED, enter, entry

__all__ = [
    "PIECE_ROWS",
    "SPAN_BLOCKS",
    "Sums",
    "backward_stack",
    "in_one_span",
    "scatter_of",
    "weight_gradients",
]

# A gradient of the weights is a sum over all rows of the batch, which would lose its digits as one running sum. It is a
# sum of spans, each a sum of blocks, whose order and ends do not depend on threads.
#: rows whose products are summed at a time
BLOCK_ROWS = 128
#: blocks of a span
SPAN_BLOCKS = 128
SPAN_ROWS = SPAN_BLOCKS * BLOCK_ROWS
#: after so many rows a step begins with a block of its own, where a batch may be divided into pieces
PIECE_ROWS = 16 * BLOCK_ROWS
#: rows ahead of which a linear scan has the cache fetch what it will read
AHEAD = 8
#: vectors whose rows are summed side by side: a cache line alone of each row would be waited for
SIDE_BY_SIDE = 8
#: no place in the gradient
NONE = -1


class BackDirection(NamedTuple):
    """What a backward scan reads and writes."""

    #: `BackPanels` of the weights
    panels: BackPanels
    #: addresses of (U, H') unit weights, of what `fix` made, of (C,) constants and, where products are normalised, of
    #: their gains
    units: int
    fixed: int
    constants: int
    gains: int
    #: (., P) the output of the forward scan, and with it the state before each step
    out: Rows
    #: (., P) gradient of the output
    d_out: Rows
    #: (., W) what was kept, which becomes the gradients of gates
    gates: Rows
    #: the column of a row where the products that were normalised begin, which become their gradients
    norms: int
    #: (., H') the first of the states that were kept as they were before each step, and bytes from state to state
    cells: Rows
    cells_apart: int
    #: (., P) with a projection: the whole gradient of h at each step is written here
    d_projected: Rows
    #: (B, P') the state that sequences begin with
    h_0: Matrix
    #: (B, P') gradient of the state: of the last at first, then passed from step to step
    d_h: Matrix
    #: (B, H') the same for the first of the other states, and bytes from state to state
    d_others: Matrix
    d_others_apart: int
    #: (., H) gradient of the first of the other states that were put out, or the address 0, and bytes to the next
    d_shown: Rows
    d_shown_apart: int
    #: (B, H') with a projection: the gradient of h before the projection
    d_unprojected: Matrix
    #: (B, H') where the cell has a `product`: its gradient, and that of its factor
    d_product: Matrix
    d_factor: Matrix
    #: (B, P') what h was multiplied by before its product, if its address is not 0, and room for what goes back to it
    mask: Matrix
    masked: Matrix
    #: (B, H') of each step the first of the noises, and bytes from noise to noise
    noise: Matrix
    noise_apart: int
    #: (., B, H') gradients of the unit weights, then of gains and of the biases beside them, each sequence's own: where
    #: the first is summed over a block of steps, where over a span of blocks, where over all spans before; the elements
    #: that are these sequences', and bytes to the next
    d_units_block: int
    d_units_span: int
    d_units: int
    d_units_count: int
    d_units_apart: int
    #: a row of zeros
    zeros: Matrix
    #: the address of room for rows of factors
    room: int
    #: the forward scan went backward in time
    reverse: bool
    #: the units that this thread computes
    share: Share


@inner
def _back_cell_rows(weights, d, t, rows, going_on, unit, units, only_product):
    """The cell's derivative, for ``units`` units from ``unit`` on, of all rows of step t: two vectors at a time.

    With ``only_product`` no more than the gradient of the cell's `product`, which that of its factor is made of.
    """
    always_inline()
    dtype = weights.parameters.dtype
    H, P = weights.hidden_size, weights.output_size
    size, H_padded = size_of(dtype), padded(dtype, H)
    gates_at, cells_at = row_at(dtype, d.gates, t, 0), row_at(dtype, d.cells, t, 0)
    d_out, d_shown = row_at(dtype, d.d_out, t, 0), row_at(dtype, d.d_shown, t, 0)
    constants = splat_each(dtype, (d.constants, d.constants), constants_of(weights))
    before = d.h_0
    if going_on > 0:
        before = row_at(dtype, d.out, t + 1 if d.reverse else t - 1, 0)
    ahead = min(AHEAD, rows)
    end = min(unit + units, H)
    place = 0, unit
    while place[0] < rows:
        one, other = place, vector_after(dtype, place, unit, end)
        place = vector_after(dtype, other, unit, end)
        if other[0] == rows:
            other = one  # of an odd number the last is computed twice
        if gates_hh_of(weights) == 0:
            for r, u in (one, other):
                if u == unit:
                    _fetch_row(weights, d, t, r + ahead, rows, going_on)
        count = H - one[1], H - other[1]
        at, carried = both(dtype, gates_at, one, other), both(dtype, d.d_h, one, other)
        others_at = both(dtype, d.d_others, one, other)
        if P == H:
            d_h = load(dtype, carried) + load_first(dtype, both(dtype, d_out, one, other), count)
        else:
            d_h = load(dtype, both(dtype, d.d_unprojected, one, other))
        d_factor = h = like(d_h, 0.0)
        if reads_h_back(weights):
            of_before, of_h_0 = both(dtype, before, one, other), both(dtype, d.h_0, one, other)
            h_at = (
                of_before[0] if one[0] < going_on else of_h_0[0],
                of_before[1] if other[0] < going_on else of_h_0[1],
            )
            h = load_first(dtype, h_at, count)
        d_others = load_each(dtype, others_at, d.d_others_apart, others_of(weights))
        if d.d_shown.at != 0:
            shown = load_gates(dtype, both(dtype, d_shown, one, other), d.d_shown_apart, count, others_of(weights))
            d_others = added(d_others, shown)
        states = load_each(dtype, both(dtype, cells_at, one, other), d.cells_apart, kept_states_of(weights))
        units_at, made_at = Matrix(d.units, 0), Matrix(d.fixed, 0)
        unit_weights = load_each(dtype, both(dtype, units_at, one, other), H_padded * size, units_of(weights))
        noises = load_each(dtype, both(dtype, d.noise, one, other), d.noise_apart, noises_of(weights))
        made = load_each(dtype, both(dtype, made_at, one, other), H_padded * size, fixed_of(weights))
        unit_weights = chained(chained(unit_weights, noises), made)
        kept = load_gates(dtype, at, H * size, count, kept_numbers_of(weights))
        d_states = joined(d_h, d_others)
        if only_product:
            of_product = product_back(weights, kept, h, states, unit_weights, constants, d_states, d_factor)
            store(both(dtype, d.d_product, one, other), of_product[0])
            continue
        if has_product(weights):
            d_factor = load(dtype, both(dtype, d.d_factor, one, other))
        back, d_states = step_back(weights, kept, h, states, unit_weights, constants, d_states, d_factor)
        gates, d_units = parted(back, gates_of(weights))
        store_gates(at, H * size, count, gates)
        sums_at = both(dtype, Matrix(d.d_units_block, H_padded), one, other)
        so_far = load_each(dtype, sums_at, d.d_units_apart, units_of(weights))
        store_each(sums_at, d.d_units_apart, added(so_far, d_units))
        if P == H:
            store(carried, d_states[0])
        store_each(others_at, d.d_others_apart, without_first(d_states))


@inner
def _fetch_row(weights, d, t, r, rows, going_on):
    """Have the cache fetch what the derivative of row r of step t reads, or, if there are fewer, of the step before.

    A linear scan does little with what it reads, and the processor looks ahead by too few vectors to be in time: then
    the scan waits for memory more than it computes.
    """
    always_inline()
    dtype, H = weights.parameters.dtype, weights.hidden_size
    size, before = size_of(dtype), t + 1 if d.reverse else t - 1
    if reads_h_back(weights) and r < going_on:
        h = row_at(dtype, d.out, before, r)
        for u in range(0, H, width(dtype)):
            fetch_each(h.at + u * size, 0, 1)
    if r >= rows:
        t, r = before, r - rows
        if r >= going_on:
            return
    gates, cells, d_out = row_at(dtype, d.gates, t, r), row_at(dtype, d.cells, t, r), row_at(dtype, d.d_out, t, r)
    for u in range(0, H, width(dtype)):
        fetch_each(gates.at + u * size, H * size, kept_numbers_of(weights))
        fetch_each(cells.at + u * size, d.cells_apart, kept_states_of(weights))
        fetch_each(d_out.at + u * size, 0, 1)


@inner
def _normalise_back(weights, d, t, rows, kind, d_sums):
    """See `normalise_back`: of all rows of step t."""
    gates = row_at(weights.parameters.dtype, d.gates, t, 0)
    d_gains = d.d_units_block + units_of(weights) * d.d_units_apart
    normalise_back(weights, gates, d.norms, d.gains, rows, kind, d_sums, d_gains, d.d_units_apart)


@inner
def _back_product_rows(weights, d, t, rows, going_on):
    """The derivative of all rows of step t of a cell with a `product`."""
    dtype, H, d_product = weights.parameters.dtype, weights.hidden_size, d.d_product
    _back_cell_rows(weights, d, t, rows, going_on, 0, H, True)
    if normed(weights):
        _normalise_back(weights, d, t, rows, OF_PRODUCT, d.d_product)
        d_product = products_of(weights, row_at(dtype, d.gates, t, 0), d.norms, OF_PRODUCT, True)
    factors, columns = factors_of(weights), plain_columns(dtype, H)
    multiply_rows(factors, d_product, rows, H, d.room, d.panels.product, columns, d.zeros, d.d_factor)
    _back_cell_rows(weights, d, t, rows, going_on, 0, H, False)


@inner
def _close_block(weights, d, last):
    """Add the gradients of unit weights of a block of steps to those of its span; with ``last`` those to all."""
    dtype, count = weights.parameters.dtype, d.d_units_count
    for vector in range(units_of(weights) + 2 * products_of_tape(weights)):
        apart = vector * d.d_units_apart
        _move(dtype, d.d_units_span + apart, d.d_units_block + apart, count)
        if last:
            _move(dtype, d.d_units + apart, d.d_units_span + apart, count)


@inner
def _carry_back(weights, d, t, r0, rows):
    """d_h += d_gates @ W_hh, for ``rows`` rows of step t from row r0 on."""
    dtype, k = weights.parameters.dtype, gates_hh_of(weights) * weights.hidden_size
    if k == 0:
        return
    d_h = Matrix(d.d_h.at + r0 * d.d_h.step * size_of(dtype), d.d_h.step)
    d_gates, columns = row_at(dtype, d.gates, t, r0), plain_columns(dtype, weights.output_size)
    if normed(weights):
        d_gates = products_of(weights, d_gates, d.norms, OF_STATE, True)
    factors = factors_of(weights)
    if d.mask.at == 0:
        multiply_rows(factors, d_gates, rows, k, d.room, d.panels.weight_hh, columns, d_h, d_h)
        return
    mask = Matrix(d.mask.at + r0 * d.mask.step * size_of(dtype), d.mask.step)
    multiply_rows(factors, d_gates, rows, k, d.room, d.panels.weight_hh, columns, d.zeros, d.masked)
    multiplied(dtype, rows, weights.output_size, d.masked, mask, d_h, True)


@inner
def _projected_rows(weights, d, t, rows):
    """With a projection: the whole gradient of h at step t, and from it that of h before the projection."""
    dtype, P, H = weights.parameters.dtype, weights.output_size, weights.hidden_size
    d_out, whole = row_at(dtype, d.d_out, t, 0), row_at(dtype, d.d_projected, t, 0)
    for r in range(rows):
        for u in range(0, P, width(dtype)):
            carried = d.d_h.at + (r * d.d_h.step + u) * size_of(dtype)
            total = load(dtype, carried) + load_first(dtype, d_out.at + (r * d_out.step + u) * size_of(dtype), P - u)
            store_first(whole.at + (r * whole.step + u) * size_of(dtype), total, P - u)
            store(carried, like(total, 0.0))
    factors, columns = factors_of(weights), plain_columns(dtype, H)
    multiply_rows(factors, whole, rows, P, d.room, d.panels.weight_hr, columns, d.zeros, d.d_unprojected)


@inner
def _scan_back(weights, d, steps, drop, index, order, first):
    """One direction of one layer, against the order of its forward scan; d_h and d_others become those of h_0."""
    dtype, H, P = weights.parameters.dtype, weights.hidden_size, weights.output_size
    columns, k = plain_columns(dtype, P), gates_hh_of(weights) * H
    factors, sizes, T = factors_of(weights), steps.sizes, steps.number
    whole = P != H or d.mask.at != 0 or not by_panels(weights)  # the derivative of all units follows their gradients
    for i in range(T):
        t = i if d.reverse else T - 1 - i
        following, before = (t - 1, t + 1) if d.reverse else (t + 1, t - 1)
        size = integer_at(sizes, t)
        ready = min(size, integer_at(sizes, following)) if 0 <= following < T else 0  # whose next step has been done
        going_on = min(size, integer_at(sizes, before)) if 0 <= before < T else 0  # rows that have a step before
        number, number_after = steps.since + t, steps.since + following
        if (units_of(weights) or products_of_tape(weights)) and number // BLOCK_ROWS != number_after // BLOCK_ROWS:
            _close_block(weights, d, number // SPAN_ROWS != number_after // SPAN_ROWS)
        if noises_of(weights):
            draw_noises(weights, drop, d.constants, index, number, order, first, size, d.noise, d.noise_apart)
        if whole:
            if ready > 0:
                _carry_back(weights, d, following, 0, ready)
            if P != H:
                _projected_rows(weights, d, t, size)
        if has_product(weights):
            _back_product_rows(weights, d, t, size, going_on)
        else:
            count = at_once = groups = 1
            before_these = 0
            d_gates = row_at(dtype, d.gates, max(0, min(following, T - 1)), 0)
            if by_panels(weights) and not whole:
                d_gates = as_factors(factors, d_gates, ready, k, d.room)
                count, at_once = panel_count(columns), panels_at_once(factors, ready, k, columns)
                low, high = d.share.low // columns.per_panel, d.share.high
                high = (high + columns.per_panel - 1) // columns.per_panel
                if low % at_once != 0 or (high % at_once != 0 and high < count):
                    at_once = 1
                before_these, groups = low // at_once, (high - low + at_once - 1) // at_once
            for n in range(groups):
                unit, units = 0, H
                if by_panels(weights) and not whole:
                    p = (before_these + there_and_back(n, groups, t)) * at_once
                    next_p = min(p + at_once, count)
                    if ready > 0:
                        multiply_panels(
                            factors, p, next_p, d_gates, 1, ready, k, d.panels.weight_hh, columns, d.d_h, d.d_h
                        )
                    unit, units = p * columns.per_panel, (next_p - p) * columns.per_panel
                _back_cell_rows(weights, d, t, size, going_on, unit, units, False)
        if normed(weights):
            gates = row_at(dtype, d.gates, t, 0)
            if k > 0:
                _normalise_back(weights, d, t, size, OF_STATE, gates)
            _normalise_back(weights, d, t, size, OF_INPUT, sums_of(weights, gates, OF_INPUT))
        if d.share.members > 1:
            meet(d.share)
            fetch_rows(dtype, row_at(dtype, d.gates, t, 0), size, k)
    for t in range(T):  # the first step of each sequence
        before = t + 1 if d.reverse else t - 1
        size = integer_at(sizes, t)
        going_on = min(size, integer_at(sizes, before)) if 0 <= before < T else 0
        if size > going_on:
            _carry_back(weights, d, t, going_on, size - going_on)


@inner
def _input_back(weights, d, steps, d_x, add):
    """d_x (., K) = d_gates @ W_ih, or += with ``add``; as many steps at once as adjoin, a part of their rows."""
    dtype, of, factors = weights.parameters.dtype, layout(weights), factors_of(weights)
    columns = plain_columns(dtype, d.panels.inputs)
    t = 0
    while t < steps.number:
        rows, following = integer_at(steps.sizes, t), t + 1
        while following < steps.number and (integer_at(steps.places, following) == integer_at(steps.places, t) + rows):
            rows += integer_at(steps.sizes, following)
            following += 1
        target, row = row_at(dtype, d_x, t, 0), row_at(dtype, d.gates, t, 0)
        d_gates = shifted(dtype, row, of.turn * of.hidden_size)
        if normed(weights):
            d_gates = products_of(weights, row, d.norms, OF_INPUT, True)
        k, share = of.gates_ih * of.hidden_size, d.share
        low, high = share.member * rows // share.members, (share.member + 1) * rows // share.members
        at_once = rows if is_float(factors) else BLOCK_ROWS
        for r in range(low, high, at_once):
            d_rows, into = below(dtype, d_gates, r), below(dtype, target, r)
            start = into if add else d.zeros
            count = min(at_once, high - r)
            multiply_rows(factors, d_rows, count, k, d.room, d.panels.weight_ih, columns, start, into)
        t = following


@inner
def _room_size(weights, steps):
    """Elements of the room for rows of factors: those of a step, or of a block of the input's gradient."""
    factors, of = factors_of(weights), layout(weights)
    if steps.number == 0:
        return 0
    return room_size(
        factors, max(integer_at(steps.sizes, 0), BLOCK_ROWS), max(of.gates_ih, of.gates_hh, 1) * of.hidden_size
    )


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
    d_shown,
    d_states,
    d_between,
    input_grad,
    d_x,
    d_hx,
    d_projected,
    d_units,
    meeting,
):  # fmt: skip
    """All layers and directions back, for the sequences ``first`` to ``last`` of the sorted batch.

    ``panels`` are those of `pack_back`, ``out`` and ``tape`` those of `forward_stack`, whose gates become gradients.
    Reads d_out (N, D * P), ``d_shown`` (S - 1, N, D * H), an address that may be 0, and ``d_states``, the gradients of
    the last states. Writes those sequences' part of d_x (N, I), unless ``input_grad`` is 0, or adds to it, if that is
    2, of ``d_hx``, the gradients of the first states, and of d_projected (L * D, N, P). Adds to that of d_units
    (L * D, 3, ., B, H'), zeros at first, the gradients of unit weights, and of gains and the biases beside them, each
    sequence's own: sums over a block of steps, over a span of blocks and over the spans before. ``d_between``,
    (L - 1 or 2, N, D * P), is for the gradients between layers. ``meeting``: as in `forward_stack`.
    """
    dtype = weights.parameters.dtype
    size = size_of(dtype)
    H, P, D = weights.hidden_size, weights.output_size, weights.num_directions
    integers = aligned(np.int64(0), STEPS * (batch.steps + 1) + 1)
    steps, met = steps_of(batch, first, last, address(integers, 0)), address(integers, STEPS * (batch.steps + 1))
    N, mine = batch.rows, last - first
    H_padded, P_padded = padded(dtype, H), padded(dtype, P)
    W = row_width(weights, True)
    scans, others_count = weights.num_layers * D, others_of(weights)

    h, d_h = aligned(dtype, mine * P_padded), aligned(dtype, mine * P_padded)
    d_others = aligned(dtype, others_count * mine * H_padded)
    d_unprojected = aligned(dtype, mine * H_padded if P != H else 0)
    d_product = aligned(dtype, 2 * has_product(weights) * mine * H_padded)
    mask = aligned(dtype, 2 * mine * P_padded if masks_state(drop) else 0)
    noise = aligned(dtype, noises_of(weights) * mine * H_padded)
    clear(address(noise, 0), noise.size * size)
    zeros = aligned(dtype, max(H, weights.input_size, D * P) + width(dtype))
    clear(address(zeros, 0), zeros.size * size)
    made = aligned(dtype, fixed_of(weights) * H_padded)
    vectors = units_of(weights) + 2 * products_of_tape(weights)

    room = aligned(dtype, _room_size(weights, steps))

    put_integer(met, 0, 0)
    share = share_of(weights, meeting, 0, met)
    places = steps.places
    d_target = Rows(address(d_out, 0), D * P, places)
    for layer in range(weights.num_layers - 1 if share.members > 0 else -1, -1, -1):
        output = Rows(address(out, 0), D * P, places)
        if layer < weights.num_layers - 1:
            output = Rows(address(tape.outputs, layer * N * D * P), D * P, places)
        d_source = Rows(address(d_x, 0), weights.input_size, places)
        if layer > 0:
            d_source = Rows(address(d_between, (layer - 1) % 2 * N * D * P), D * P, places)
        is_shown = d_shown != 0 and layer == weights.num_layers - 1
        for direction in range(D):
            index = layer * D + direction
            take_states(dtype, states.h, states.given, index, batch, first, last, address(h, 0), P)
            take_states(dtype, d_states.h, d_states.given, index, batch, first, last, address(d_h, 0), P)
            for other in range(others_count):
                state, number = address(d_others, other * mine * H_padded), other * scans + index
                take_states(dtype, d_states.others, d_states.given, number, batch, first, last, state, H)
            if mask.size:
                clear(address(mask, 0), mask.size * size)
                state_mask(drop, index, batch.order, first, mine, Matrix(address(mask, 0), P_padded), P)
            # no `if` may stand among so many arguments, says Numba
            shown = d_shown + direction * H * size if is_shown else 0
            mask_at = address(mask, 0) if mask.size else 0
            forward = forward_panels(weights, layer, direction)
            fix(weights, forward.units, address(made, 0))
            of_units, sums = batch.sequences * H_padded, 3 * index  # elements of a vector, and the first of the sums
            d = BackDirection(
                back_panels(weights, panels, layer, direction),
                forward.units,
                address(made, 0),
                constants_at(weights),
                forward.gains,
                Rows(output.at + direction * P * size, D * P, places),
                Rows(d_target.at + direction * P * size, D * P, places),
                Rows(address(tape.gates, index * N * W), W, places),
                kept_of(weights) * H,
                Rows(address(tape.cells, index * N * H_padded), H_padded, places),
                scans * N * H_padded * size,
                Rows(address(d_projected, index * N * P), P, places),
                Matrix(address(h, 0), P_padded),
                Matrix(address(d_h, 0), P_padded),
                Matrix(address(d_others, 0), H_padded),
                mine * H_padded * size,
                Rows(shown, D * H, places),
                N * D * H * size,
                Matrix(address(d_unprojected, 0), H_padded),
                Matrix(address(d_product, 0), H_padded),
                Matrix(address(d_product, mine * H_padded), H_padded),
                Matrix(mask_at, P_padded),
                Matrix(address(mask, mine * P_padded), P_padded),
                Matrix(address(noise, 0), H_padded),
                mine * H_padded * size,
                address(d_units, sums * vectors * of_units + first * H_padded),
                address(d_units, (sums + 1) * vectors * of_units + first * H_padded),
                address(d_units, (sums + 2) * vectors * of_units + first * H_padded),
                mine * H_padded,
                of_units * size,
                Matrix(address(zeros, 0), 0),
                address(room, 0),
                direction + weights.reverse == 1,
                share,
            )
            _scan_back(weights, d, steps, drop, index, batch.order, first)
            if layer > 0 or input_grad:
                _input_back(weights, d, steps, d_source, direction == 1 or (layer == 0 and input_grad == 2))
                meet(share)
            low, high = share.low, share.high if P == H else P
            give_states(dtype, address(d_h, 0), index, batch, first, last, d_hx.h, P, low, high)
            for other in range(others_count):
                state, of_state = address(d_others, other * mine * H_padded), other * scans + index
                give_states(dtype, state, of_state, batch, first, last, d_hx.others, H, share.low, share.high)
        if drops(drop) and layer > 0:
            drop_layer(drop, layer - 1, steps, batch.order, first, d_source, d_source)
        d_target = d_source
    keep_alive((integers, h, d_h, d_others, d_unprojected, d_product, zeros, made, mask, noise, room))


class Sums(NamedTuple):
    """Gradients of the parameters on their way, two vectors laid out like these: all are sums of spans of blocks."""

    #: of the spans before
    total: np.ndarray
    #: of the span that the last block was of; the same array as ``total``, if all blocks are of one span
    of_span: np.ndarray
    #: how many blocks of the whole batch come before those of the batch at hand
    blocks: int


@inner
def in_one_span(rows):
    """Whether so many rows of a batch surely are: blocks may have fewer than they can."""
    return 2 * rows <= SPAN_ROWS


class Blocks(NamedTuple):
    """The address of (., 2) the first row of each block of a batch, and its rows; and how many blocks there are."""

    at: int
    number: int


@inner
def _most_blocks(rows):
    return rows // BLOCK_ROWS + rows // PIECE_ROWS + 1


@inner
def _blocks_of(steps, room):
    """The `Blocks` of a batch, in room for as many as there may be."""
    count, begin, row = 0, 0, 0
    for t in range(steps.number):
        row += integer_at(steps.sizes, t)
        if row - begin >= PIECE_ROWS or t == steps.number - 1:
            while begin < row:
                rows = min(BLOCK_ROWS, row - begin)
                put_integer(room, 2 * count, begin)
                put_integer(room, 2 * count + 1, rows)
                begin += rows
                count += 1
    return Blocks(room, count)


@inner
def _block(blocks, number):
    return integer_at(blocks.at, 2 * number), integer_at(blocks.at, 2 * number + 1)


@inner
def _closes(into, number, reverse):
    """Whether a block is the last of its span, in the order in which a backward scan comes to them."""
    last = SPAN_BLOCKS - 1 if reverse else 0
    return address(into.of_span, 0) != address(into.total, 0) and (into.blocks + number) % SPAN_BLOCKS == last


@inner
def _add_products(factors, gates, factor, blocks, reverse, K, gate_count, units, turn, low, high, into, at, sums):
    """gradient (gates * H, K) += d_gates.T @ factor, in its rows of the units ``low`` to ``high`` of each gate.

    The gradient begins at ``at`` in ``into``, the `Sums`. ``factor`` gives each row's address; ``turn`` is how many
    gates the columns of d_gates are rotated by; ``reverse`` whether the forward scan went backward in time. The
    gradient from ``sums`` on, unless that is `NONE`, += the sums of d_gates over the rows. Of each block they are made
    first: they read it row by row, which brings it into the cache sooner than the products would, along its columns.
    """
    columns = plain_columns(factors, K)
    dtype, lanes, size, count = into.total.dtype, width(factors), size_of(factors), high - low
    panel = aligned(dtype, deep(factors, BLOCK_ROWS) * columns.vectors * lanes)
    of_columns = columns_size(factors, BLOCK_ROWS, count)  # of one gate
    made = aligned(dtype, gate_count * of_columns)
    for i in range(blocks.number):
        number = i if reverse else blocks.number - 1 - i
        block, rows = _block(blocks, number)
        of_block = Matrix(gates.at + block * gates.step * size, gates.step)
        for gate in range(gate_count):
            column = ((gate + turn) % gate_count) * units + low
            d_gates = shifted(dtype, of_block, column)
            if sums != NONE:
                _add_sums(dtype, d_gates, rows, count, address(into.of_span, sums + gate * units + low))
            columns_as_factors(factors, d_gates, rows, count, address(made, gate * of_columns))
        for p in range(panel_count(columns)):
            vectors, first = panel_vectors(columns, p, lanes), p * columns.per_panel
            put_panel(factors, factor, block, rows, first * size, K - first, vectors, address(panel, 0))
            left = plain_columns(factors, K - first if p == panel_count(columns) - 1 else columns.per_panel)
            for gate in range(gate_count):
                column = ((gate + turn) % gate_count) * units + low
                d_gates = shifted(dtype, of_block, column)
                a, along = columns_of(factors, d_gates, rows, address(made, gate * of_columns))
                c = Matrix(address(into.of_span, at + (gate * units + low) * K + first), K)
                add_product(factors, a, along, count, rows, address(panel, 0), left, c)
        if _closes(into, number, reverse):
            _close_span(dtype, into, K, gate_count, units, low, high, at, sums)
    keep_alive((panel, made))


@inner
def _close_span(dtype, into, K, gate_count, units, low, high, at, sums):
    """Add what a span has summed to the total; the arguments are those of `_add_products`."""
    for gate in range(gate_count):
        row = at + (gate * units + low) * K
        _move(dtype, address(into.total, row), address(into.of_span, row), (high - low) * K)
        if sums != NONE:
            row = sums + gate * units + low
            _move(dtype, address(into.total, row), address(into.of_span, row), high - low)


@inner
def _add_by_heads(factors, of, gates, h, blocks, reverse, gate_count, turn, low, high, into, at, sums):
    """`_add_products` for weight_hh (., P / heads): units of each head have a part of h of their own."""
    H, part = of.hidden_size, of.output_size // of.heads
    for head in range(of.heads):
        first, last = max(low, head * H // of.heads), min(high, (head + 1) * H // of.heads)
        if first < last:
            _add_products(
                factors, gates, h, blocks, reverse, part, gate_count, H, turn, first, last, into, at, sums
            )  # fmt: skip
        for n in range(h.size if head + 1 < of.heads else 0):
            h[n] += part * size_of(factors)


@inner
def _move(dtype, target, source, count):
    """target[:count] += source[:count], at two addresses; the source becomes zeros."""
    for i in range(0, count, width(dtype)):
        at = i * size_of(dtype)
        store_first(
            target + at,
            load_first(dtype, target + at, count - i) + load_first(dtype, source + at, count - i),
            count - i,
        )
    clear(source, count * size_of(dtype))


@inner
def _add_sums(dtype, rows_at, rows, count, target):
    """target (count,) += the sums of the columns of a block, a `Matrix` of so many rows; at an address."""
    size, lanes = size_of(dtype), width(dtype)
    whole = count // (SIDE_BY_SIDE * lanes) * SIDE_BY_SIDE * lanes
    for u in range(0, whole, SIDE_BY_SIDE * lanes):
        sums = load_each(dtype, rows_at.at + u * size, lanes * size, SIDE_BY_SIDE)
        for r in range(1, rows):
            row = rows_at.at + (r * rows_at.step + u) * size
            sums = added(sums, load_each(dtype, row, lanes * size, SIDE_BY_SIDE))
        at = target + u * size
        store_each(at, lanes * size, added(load_each(dtype, at, lanes * size, SIDE_BY_SIDE), sums))
    for u in range(whole, count, lanes):
        sum_of = nothing(dtype)
        for r in range(rows):
            sum_of = sum_of + load_first(dtype, rows_at.at + (r * rows_at.step + u) * size, count - u)
        at = target + u * size
        store_first(at, load_first(dtype, at, count - u) + sum_of, count - u)


@inner
def _add_units(weights, index, d_units, B, low, high, gradient):
    """The gradients of unit weights, of gains and of the biases beside them: sums over the sequences of their own."""
    dtype, of = weights.parameters.dtype, layout(weights)
    place = places(of, index // of.num_directions, index % of.num_directions)
    H_padded, vectors, count = padded(dtype, of.hidden_size), of.units + 2 * products_of_tape(weights), high - low
    of_span, apart = aligned(dtype, count), vectors * B * H_padded
    for vector in range(vectors):
        at, first = _place_of_vector(of, place, vector), (3 * index * vectors + vector) * B * H_padded + low
        for row in range(first, first + B * H_padded, H_padded):  # what of the last block and span is not yet added
            _move(dtype, address(d_units, row + apart), address(d_units, row), count)
            _move(dtype, address(d_units, row + 2 * apart), address(d_units, row + apart), count)
        for span in range(0, B if at != NONE else 0, SPAN_ROWS):
            clear(address(of_span, 0), count * size_of(dtype))
            for block in range(span, min(B, span + SPAN_ROWS), BLOCK_ROWS):
                rows = Matrix(address(d_units, first + 2 * apart + block * H_padded), H_padded)
                _add_sums(dtype, rows, min(BLOCK_ROWS, B - block), count, address(of_span, 0))
            _move(dtype, address(gradient, at + low), address(of_span, 0), count)
    keep_alive((of_span,))


@inner
def _add_by_symbols(dtype, gates, symbols, blocks, reverse, K, gate_count, units, low, high, into, at, sums):
    """As `_add_products` with one-hot rows, given by the address of their symbols, and to the same bits."""
    size = size_of(dtype)
    scratch = scatter_scratch(dtype, BLOCK_ROWS, K)
    for i in range(blocks.number):
        number = i if reverse else blocks.number - 1 - i
        block, rows = _block(blocks, number)
        for gate in range(gate_count):
            row = gate * units + low
            d_gates = Matrix(gates.at + (block * gates.step + row) * size, gates.step)
            if sums != NONE:
                _add_sums(dtype, d_gates, rows, high - low, address(into.of_span, sums + row))
            d_weight = Matrix(address(into.of_span, at + row * K), K)
            scatter(dtype, d_gates, symbols + 8 * block, rows, high - low, d_weight, scratch)
        if _closes(into, number, reverse):
            _close_span(dtype, into, K, gate_count, units, low, high, at, sums)
    keep_alive((scratch,))


class _Scatter(NamedTuple):
    """What `_add_by_symbols` takes: the block of a function of its own, which only those compile who have symbols."""

    gates: int
    gates_step: int
    symbols: int
    #: the address of (., 2) blocks, and how many they are
    blocks: int
    number: int
    reverse: int
    K: int
    gate_count: int
    units: int
    low: int
    high: int
    #: `Sums`
    total: int
    of_span: int
    before: int
    at: int
    sums: int


_SCATTER = len(_Scatter._fields)


def _scatter_kernel(number):
    def scatter(block):
        b = _Scatter(*integers_at(block, _SCATTER))
        into = Sums(memory(b.total, number), memory(b.of_span, number), b.before)
        blocks = Blocks(b.blocks, b.number)
        _add_by_symbols(
            into.total.dtype, Matrix(b.gates, b.gates_step), b.symbols, blocks, b.reverse != 0, b.K, b.gate_count,
            b.units, b.low, b.high, into, b.at, b.sums,
        )  # fmt: skip

    return scatter


@functools.cache
def scatter_of(dtype: np.dtype[Any]) -> Any:
    """That function; compiled, or loaded, when first asked for. `weight_gradients` of symbols need it."""
    made = by_address(types.void(types.intp))(_scatter_kernel(dtype.type(0)))
    enter(SHARED, "scatter", dtype.name, made.native)
    return made


@intrinsic
def _scatter_entry(typingctx, dtype):
    """Its address, in compiled code."""
    name = dtype.dtype.name
    return types.int64(dtype), lambda context, builder, sig, args: entry(builder, SHARED, "scatter", name)


@inner
def _states_before(weights, batch, states, index, out, zeros, reverse):
    """(N,) the address of the state before each row's step: a row of the output, of h_0, or of zeros."""
    dtype, P = weights.parameters.dtype, weights.output_size
    found = aligned(np.int64(0), batch.rows)
    T, row, row_before = batch.steps, 0, 0
    for t in range(T):
        size = integer_at(batch.sizes, t)
        row_before = row + size if reverse else row - (integer_at(batch.sizes, t - 1) if t > 0 else 0)
        going_on = size if t > 0 else 0
        if reverse:
            going_on = integer_at(batch.sizes, t + 1) if t + 1 < T else 0
        for r in range(size):
            if r < going_on:
                found[row + r] = out.at + (row_before + r) * out.step * size_of(dtype)
            elif states.given:
                found[row + r] = address(states.h, (index * batch.sequences + integer_at(batch.order, r)) * P)
            else:
                found[row + r] = zeros
        row += size
    return found


@inner
def _masked_rows(dtype, h, steps, P, mask, into):
    """(N,) the address of each state before its row's step times the mask of its sequence, which is put there."""
    size = size_of(dtype)
    found = aligned(np.int64(0), h.size)
    n = 0
    for t in range(steps.number):
        for r in range(integer_at(steps.sizes, t)):
            found[n] = into.at + n * into.step * size
            row = Matrix(mask.at + r * mask.step * size, 0)
            multiplied(dtype, 1, P, Matrix(h[n], 0), row, Matrix(found[n], 0), False)
            n += 1
    return found


@inner
def _rows_of(dtype, at, step, N):
    """(N,) the address of each row of a matrix."""
    found = aligned(np.int64(0), N)
    for n in range(N):
        found[n] = at + n * step * size_of(dtype)
    return found


@inner
def _place_of_vector(of, place, vector):
    """Where the parameters of a vector of d_units lie: unit weights, then gains, then biases, of products as in a row.

    `NONE` if there are none.
    """
    gates, H = of.gates_hh, of.hidden_size
    if vector < of.units:
        return place.units + vector * H
    products, product = gates + of.product + of.gates_ih, vector - of.units
    of_state, of_input = place.gain_hh, place.gain_ih
    if product >= products:
        product -= products
        of_state, of_input = place.bias_hh, place.bias_ih
        if not of.bias:
            return NONE
    if product < gates:  # a row begins with those of the state alone, a matrix ends with them
        return of_state + (product + gates - of.turn) % gates * H
    if product < gates + of.product:
        return of_state + product * H
    return of_input + (product - gates - of.product) * H


@inner
def weight_gradients(weights, batch, states, drop, tape, out, d_projected, d_units, first, end, parts, last, into):
    """Parts ``first`` to ``end`` of ``parts`` of the gradient of the parameters, after `backward_stack` has done all.

    What is ``into``, the `Sums`, begins as zeros. Of the pieces of a batch, which are gone over in the order in which
    the backward scan comes to them, ``last`` tells the last: then those of ``d_units`` are added, too.
    """
    dtype, of, factors = weights.parameters.dtype, layout(weights), factors_of(weights)
    H, P, D = weights.hidden_size, weights.output_size, weights.num_directions
    N, B = batch.rows, batch.sequences
    kept = kept_of(weights)
    W, H_padded = row_width(weights, True), padded(dtype, H)
    low, high = H * first // parts, H * end // parts
    zeros = aligned(dtype, P)
    clear(address(zeros, 0), zeros.size * size_of(dtype))
    of_steps = STEPS * (batch.steps + 1)
    integers = aligned(np.int64(0), of_steps + 2 * _most_blocks(N))
    steps = steps_of(batch, 0, B, address(integers, 0))
    blocks, begins = _blocks_of(steps, address(integers, of_steps)), steps.places
    dropped = aligned(dtype, N * D * P if drops(drop) and weights.num_layers > 1 else 0)
    P_padded = padded(dtype, P)
    mask = aligned(dtype, B * P_padded if masks_state(drop) else 0)
    masked = aligned(dtype, N * P_padded if mask.size else 0)
    for layer in range(weights.num_layers):
        source = Rows(batch.data, weights.input_size, begins)
        if layer > 0:
            source = Rows(address(tape.outputs, (layer - 1) * N * D * P), D * P, begins)
        if drops(drop) and layer > 0:
            copy = Rows(address(dropped, 0), D * P, begins)
            drop_layer(drop, layer - 1, steps, batch.order, 0, source, copy)
            source = copy
        for direction in range(D):
            index, reverse = layer * D + direction, direction + weights.reverse == 1
            place = places(of, layer, direction)
            at = address(out, direction * P)
            if layer < weights.num_layers - 1:
                at = address(tape.outputs, layer * N * D * P + direction * P)
            d_gates = Matrix(address(tape.gates, index * N * W), W)
            of_input = shifted(dtype, d_gates, of.turn * H)
            of_state, of_product = d_gates, shifted(dtype, d_gates, (of.gates - 1) * H)
            bias_ih, bias_hh = (place.bias_ih, place.bias_hh) if weights.bias else (NONE, NONE)
            if normed(weights):
                bias_ih = bias_hh = NONE  # theirs are among the vectors of `_add_units`
                of_input = products_of(weights, d_gates, kept * H, OF_INPUT, True)
                of_product = products_of(weights, d_gates, kept * H, OF_PRODUCT, True)
                of_state = products_of(weights, d_gates, kept * H, OF_STATE, True)
            if batch.symbols and layer == 0:
                fields = (
                    of_input.at, of_input.step, batch.data, blocks.at, blocks.number, reverse,
                    place.inputs, of.gates_ih, H, low, high, address(into.total, 0), address(into.of_span, 0),
                    into.blocks, place.weight_ih, bias_ih,
                )  # fmt: skip
                call_with(_scatter_entry(dtype), fields)
            else:
                x = _rows_of(dtype, source.at, source.step, N)
                _add_products(
                    factors, of_input, x, blocks, reverse, place.inputs, of.gates_ih, H, 0, low, high, into,
                    place.weight_ih, bias_ih,
                )  # fmt: skip
            if gates_hh_of(weights):
                h = _states_before(weights, batch, states, index, Matrix(at, D * P), address(zeros, 0), reverse)
                if mask.size:
                    clear(address(mask, 0), mask.size * size_of(dtype))
                    of_scan = Matrix(address(mask, 0), P_padded)
                    state_mask(drop, index, batch.order, 0, B, of_scan, P)
                    h = _masked_rows(dtype, h, steps, P, of_scan, Matrix(address(masked, 0), P_padded))
                _add_by_heads(
                    factors, of, of_state, h, blocks, reverse, of.gates_hh, of.turn, low, high, into,
                    place.weight_hh, bias_hh,
                )  # fmt: skip
            if has_product(weights):
                factor = shifted(dtype, d_gates, (kept - 1) * H)
                inputs = _rows_of(dtype, factor.at, factor.step, N)
                own = place.weight_hh + of.gates_hh * H * (P // of.heads)
                own_bias = bias_hh + of.gates_hh * H if bias_hh != NONE else NONE
                _add_by_heads(
                    factors, of, of_product, inputs, blocks, reverse, 1, 0, low, high, into, own, own_bias
                )  # fmt: skip
            if (units_of(weights) or products_of_tape(weights)) and last:
                _add_units(weights, index, d_units, B, low, high, into.total)
            if P != H:
                d_h = Matrix(address(d_projected, index * N * P), P)
                unprojected = _rows_of(dtype, address(tape.unprojected, index * N * H_padded), H_padded, N)
                low_out, high_out = P * first // parts, P * end // parts
                _add_products(
                    factors, d_h, unprojected, blocks, reverse, H, 1, P, 0, low_out, high_out, into,
                    place.weight_hr, NONE,
                )  # fmt: skip
    keep_alive((integers, dropped, zeros, mask, masked))
