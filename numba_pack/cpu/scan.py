"""The recurrence over time, forward: a scan of one direction of one layer, and the stack of layers made of scans.

Shapes: T steps, of which step t holds ``sizes[t]`` rows, never more than the step before; B sequences; H units; P
outputs, the size of h (H without a projection); K inputs of the layer; W the length of a row of gates; S states, of
which h is the first; H' is H rounded up to whole vectors, P' is P.

Row r of step t belongs to the same sequence as row r of step t - 1. So the state needs no copy: the output of the step
before is the state, but for the rows whose sequence begins, which take theirs from h_0. Forward in time all sequences
begin at step 0; in reverse a sequence begins where it ends.

A scan works on the sequences ``first`` to ``last`` of the sorted batch; threads take a part of the batch each.
"""

from typing import NamedTuple

import numpy as np

from .._jit import fact, inner, overload
from ..cells.parameters import (
    constants_of,
    factor,
    fixed,
    fixed_of,
    gates_hh_of,
    gates_of,
    has_product,
    kept_of,
    layout,
    noises_of,
    normed,
    others_of,
    reads_h,
    step,
    units_of,
)
from ..simd.lanes import (
    always_inline,
    chained,
    fetch_each,
    joined,
    like,
    load_each,
    load_first,
    load_gates,
    size_of,
    splat_each,
    store_each,
    store_first,
    store_gates,
    width,
    without_first,
)
from ..simd.memory import (
    address,
    aligned,
    clear,
    copy,
    integer_at,
    keep_alive,
    one_behind_the_other,
    put_integer,
)
from .drop import drop_layer, drops
from .factor_rows import as_factors
from .factors import factors_of, is_float, room_size
from .matrices import Matrix, below, panel_count, plain_columns, shifted
from .meeting import Share, alone, join, meet
from .noise import draw_noises, masks_state, multiplied, set_noises, state_mask
from .norm import OF_INPUT, OF_PRODUCT, OF_STATE, normalise, products_of
from .panels import (
    Panels,
    constants_at,
    forward_panels,
    group_size,
    groups_of,
    padded,
    panel_size,
    state_columns,
)
from .products import multiply_panels, multiply_rows, panels_at_once, there_and_back
from .shapes import row_width
from .symbols import gather

__all__ = [
    "STEPS",
    "Rows",
    "Sorted",
    "Steps",
    "both",
    "by_panels",
    "fetch_rows",
    "fix",
    "forward_stack",
    "share_of",
    "state_product",
    "steps_of",
    "vector_after",
]

#: rows of integers that `Steps` take
STEPS = 3
#: bytes of gates that an inference scan projects at a time: they stay in the cache until the scan has used them
BLOCK_BYTES = 1 << 18


class Sorted(NamedTuple):
    """A `Batch`, by the addresses of its arrays."""

    data: int
    #: (T,) rows of each step, and T
    sizes: int
    steps: int
    #: (B,) the caller's number of each sequence, and B
    order: int
    sequences: int
    #: N
    rows: int
    symbols: bool
    since: int


class Steps(NamedTuple):
    """The rows of some of the sequences, step by step: how many steps, and the addresses of integers."""

    number: int
    #: (T,) rows of each step
    sizes: int
    #: (T,) where they begin among the rows of the whole batch
    places: int
    #: (T + 1,) where they would begin if these sequences were alone; the last entry is their number of rows
    alone: int
    #: steps of the whole batch before the first of these: see `Batch`
    since: int


class Rows(NamedTuple):
    """A matrix whose rows are those of a batch."""

    #: the address of its first row's first element
    at: int
    #: elements from row to row
    step: int
    #: the address of (T,) the row at which each step begins: `Steps.places`, or `Steps.alone` for a buffer of these
    #: sequences alone
    begins: int


@inner
def steps_of(batch, first, last, room):
    """The `Steps` of the sequences ``first`` to ``last`` of a `Sorted` batch, in room for `STEPS` rows (., T + 1)."""
    apart = 8 * (batch.steps + 1)
    sizes, places, alone = room, room + apart, room + 2 * apart
    T = row = row_alone = 0
    put_integer(alone, 0, 0)
    while T < batch.steps and integer_at(batch.sizes, T) > first:
        whole = integer_at(batch.sizes, T)
        size = min(whole, last) - first
        row_alone += size
        put_integer(sizes, T, size)
        put_integer(places, T, row + first)
        put_integer(alone, T + 1, row_alone)
        row += whole
        T += 1
    return Steps(T, sizes, places, alone, batch.since)


@inner
def row_at(dtype, rows, t, r):
    """The `Matrix` that begins with row r of step t."""
    always_inline()
    return Matrix(rows.at + (integer_at(rows.begins, t) + r) * rows.step * size_of(dtype), rows.step)


@inner
def take_states(dtype, states, given, index, batch, first, last, rows, count):
    """``rows`` (., count) = states[index], at an address, of the sorted sequences; zeros if none are given."""
    step = padded(dtype, count) * size_of(dtype)
    clear(rows, (last - first) * step)
    for r in range(last - first if given else 0):
        row = index * batch.sequences + integer_at(batch.order, first + r)
        copy(rows + r * step, address(states, row * count), count * size_of(dtype))


@inner
def give_states(dtype, rows, index, batch, first, last, states, count, low, high):
    """The inverse of `take_states`, for the columns from ``low`` to ``high``."""
    size, step = size_of(dtype), padded(dtype, count) * size_of(dtype)
    for r in range(last - first):
        row = index * batch.sequences + integer_at(batch.order, first + r)
        copy(address(states, row * count + low), rows + r * step + low * size, (high - low) * size)


class Direction(NamedTuple):
    """What a forward scan reads and writes."""

    #: `Panels` of the weights
    panels: Panels
    #: addresses of (C,) constants, and of what `fix` made
    constants: int
    fixed: int
    #: (., K) the input, or the symbols that stand for its rows, and whether they are symbols
    x: Rows
    symbols: bool
    #: (., P) the output, which is the state too
    out: Rows
    #: (., W) sums, then what is kept: the tape in training, one block of steps in inference
    gates: Rows
    #: the block of a row that has the factor of the cell's `product`
    factor: int
    #: the column of a row where the products that are normalised begin
    norms: int
    #: on the tape (., H') the first of the states that are kept as they are before each step, and bytes from state to
    #: state; in inference not written
    cells: Rows
    cells_apart: int
    #: (B, P') the state h that sequences begin with
    h_0: Matrix
    #: whether h_0 is other than zero
    has_state: bool
    #: (B, H') the first of the other states, from the beginning to the end, and bytes from state to state
    others: Matrix
    others_apart: int
    #: (., H) where the first of the other states is put out after each step, or the address 0, and bytes to the next
    shown: Rows
    shown_apart: int
    #: (B, P') what h is multiplied by before its product, if its address is not 0, and room for that
    mask: Matrix
    masked: Matrix
    #: (B, H') of each step, or a row for all, the first of the noises, and bytes from noise to noise
    noise: Matrix
    noise_apart: int
    #: (., H') h before the projection, if there is one: the tape in training, one step in inference
    unprojected: Rows
    #: a row of zeros
    zeros: Matrix
    #: the address of room for rows of factors: of a block of the input, and then of each step
    room: int
    #: time runs backward
    reverse: bool
    #: training: gates and cells are kept
    keep: bool
    #: the product with the input is not made for a block of steps, but along with that with the state
    along: bool
    #: from which end panels are taken at first: from the last if odd
    turn: int
    #: the units that this thread computes
    share: Share


@inner
def _project_block(weights, d, sizes, low, high):
    """Bias and product with the input, for the steps ``low`` to ``high``; as many rows at once as adjoin."""
    dtype, H, of = weights.parameters.dtype, weights.hidden_size, layout(weights)
    columns = plain_columns(dtype, of.gates_ih * H)
    bias = Matrix(d.panels.bias, 0)
    t = low
    while t < high:
        rows, following = integer_at(sizes, t), t + 1
        while (
            following < high
            and integer_at(d.x.begins, following) == integer_at(d.x.begins, t) + rows
            and integer_at(d.gates.begins, following) == integer_at(d.gates.begins, t) + rows
        ):
            rows += integer_at(sizes, following)
            following += 1
        sums = row_at(dtype, d.gates, t, 0)
        _begin_rows(weights, d, sums, rows)
        x, start = row_at(dtype, d.x, t, 0), shifted(dtype, bias, of.turn * H)
        of_input = shifted(dtype, sums, of.turn * H)
        if normed(weights):
            start, of_input = d.zeros, products_of(weights, sums, d.norms, OF_INPUT, d.keep)
        if d.symbols:
            gather(factors_of(weights), x.at, rows, d.panels.inputs, d.panels.weight_ih, columns, start, of_input)
        elif d.share.members > 1:
            _project_units(weights, d, t, rows, d.share.low, d.share.high)
        else:
            multiply_rows(
                factors_of(weights), x, rows, d.panels.inputs, d.room, d.panels.weight_ih, columns, start, of_input
            )
        normalise(weights, sums, d.norms, d.panels.gains, bias.at, rows, OF_INPUT, d.keep)
        t = following


@inner
def _goes_along(weights, T, keep, symbols):
    """Whether the product with the input is made along with that with the state, where there is one step.

    Both then go over the units together, from either end in turns: so a call begins with the weights of the units that
    the call before ended with, which a cache that cannot hold all weights still holds.
    """
    of, wide = layout(weights), plain_columns(weights.parameters.dtype, 1).per_panel
    if not is_float(factors_of(weights)) or normed(weights) or has_product(weights) or gates_hh_of(weights) == 0:
        return False
    return T == 1 and not keep and not symbols and of.hidden_size % wide == 0


@inner
def share_of(weights, meeting, room, met):
    """The share of this thread: some units, if it is to meet others, and else all."""
    dtype, H = weights.parameters.dtype, weights.hidden_size
    if meeting == 0:
        return alone(H, room)
    of_state = state_columns(dtype, H, group_size(gates_hh_of(weights), 0))
    # whole panels of both products, of two panels at a time
    return join(meeting, H, max(2 * of_state.per_panel, plain_columns(dtype, H).per_panel), room, met)


@inner
def _project_units(weights, d, t, rows, low, high):
    """Bias and product with the input, of all gates of the units from ``low`` to ``high``, in whole panels."""
    dtype, H, of = weights.parameters.dtype, weights.hidden_size, layout(weights)
    columns = plain_columns(dtype, of.gates_ih * H)
    start = shifted(dtype, Matrix(d.panels.bias, 0), of.turn * H)
    x, of_input = row_at(dtype, d.x, t, 0), shifted(dtype, row_at(dtype, d.gates, t, 0), of.turn * H)
    for gate in range(of.gates_ih):
        for p in range((gate * H + low) // columns.per_panel, (gate * H + high) // columns.per_panel):
            multiply_panels(
                factors_of(weights), p, p + 1, x, 1, rows, d.panels.inputs, d.panels.weight_ih, columns, start, of_input
            )


@inner
def _begin_rows(weights, d, sums, rows):
    """The sums of rows that the input has no part in, set to their bias; of this thread's units."""
    dtype, H, of = weights.parameters.dtype, weights.hidden_size, layout(weights)
    for r in range(rows if of.turn or of.product else 0):
        row = sums.at + r * sums.step * size_of(dtype)
        for gate in range(of.gates):
            if gate < of.turn or gate >= of.gates - of.product:
                _begin(dtype, d.panels.bias, row, gate * H + d.share.low, gate * H + d.share.high)


@inner
def _begin(dtype, bias, sums, low, high):
    """The columns of a row of sums from ``low`` to ``high``, set to their bias."""
    for column in range(low, high, width(dtype)):
        at = column * size_of(dtype)
        store_first(sums + at, load_first(dtype, bias + at, high - column), high - column)


@inner
def state_product(factors, gates, units, first, last, a, rows, k, panels, c):
    """c += a @ weight_hh.T, of the units of the panels from ``first`` to ``last``, of so many gates."""
    always_inline()
    for group in range(groups_of(gates)):
        columns = state_columns(factors, units, group_size(gates, group))
        multiply_panels(factors, first, last, a, 1, rows, k, panels, columns, c, c)
        panels += panel_size(factors, columns, k) * size_of(factors)
        c = shifted(factors, c, group_size(gates, group) * units)


@inner
def fix(weights, units, target):
    """At ``target`` (., H'): what the formula makes of constants and unit weights, which begin at another address."""
    dtype, size = weights.parameters.dtype, size_of(weights.parameters.dtype)
    apart = padded(dtype, weights.hidden_size) * size
    constants = splat_each(dtype, constants_at(weights), constants_of(weights))
    if fixed_of(weights):
        for u in range(0, weights.hidden_size, width(dtype)):
            unit_weights = load_each(dtype, units + u * size, apart, units_of(weights))
            store_each(target + u * size, apart, fixed(weights, unit_weights, constants))


@inner
def vector_after(dtype, place, unit, end):
    """The place (row, unit) of the vector after that at a place, of the units from ``unit`` to ``end`` of each row."""
    always_inline()
    r, u = place
    if u + width(dtype) < end:
        return r, u + width(dtype)
    return r + 1, unit


@inner
def both(dtype, rows, one, other):
    """The addresses of two vectors of a `Matrix`, each at a place (row, unit)."""
    always_inline()
    size = size_of(dtype)
    return rows.at + (one[0] * rows.step + one[1]) * size, rows.at + (other[0] * rows.step + other[1]) * size


@inner
def _cell_rows(weights, d, t, r0, rows, before, out, unit, units):
    """The cell, for ``units`` units from ``unit`` on, of rows r0 to r0 + rows of step t: two vectors at a time."""
    always_inline()
    dtype, H = weights.parameters.dtype, weights.hidden_size
    size, H_padded = size_of(dtype), padded(dtype, H)
    sums, cells, shown = row_at(dtype, d.gates, t, r0), row_at(dtype, d.cells, t, r0), row_at(dtype, d.shown, t, r0)
    others, noise = below(dtype, d.others, r0), below(dtype, d.noise, r0)
    constants = splat_each(dtype, (d.constants, d.constants), constants_of(weights))
    end = min(unit + units, H)
    place = 0, unit
    while place[0] < rows:
        one, other = place, vector_after(dtype, place, unit, end)
        place = vector_after(dtype, other, unit, end)
        if other[0] == rows:
            other = one  # of an odd number the last is computed twice
        count = H - one[1], H - other[1]
        at, others_at = both(dtype, sums, one, other), both(dtype, others, one, other)
        gates = load_gates(dtype, at, H * size, count, gates_of(weights))
        h = like(gates[0], 0.0)
        if reads_h(weights):
            h = load_first(dtype, both(dtype, before, one, other), count)
        states = joined(h, load_each(dtype, others_at, d.others_apart, others_of(weights)))
        units_at, made_at = Matrix(d.panels.units, 0), Matrix(d.fixed, 0)
        unit_weights = load_each(dtype, both(dtype, units_at, one, other), H_padded * size, units_of(weights))
        noises = load_each(dtype, both(dtype, noise, one, other), d.noise_apart, noises_of(weights))
        made = load_each(dtype, both(dtype, made_at, one, other), H_padded * size, fixed_of(weights))
        unit_weights = chained(chained(unit_weights, noises), made)
        kept, kept_states, states = step(weights, gates, states, unit_weights, constants)
        store_each(others_at, d.others_apart, without_first(states))
        if d.keep:
            store_gates(at, H * size, count, kept)
            store_each(both(dtype, cells, one, other), d.cells_apart, kept_states)
        if d.shown.at != 0:
            store_gates(both(dtype, shown, one, other), d.shown_apart, count, without_first(states))
        store_first(both(dtype, out, one, other), states[0], count)


def _factor_rows(weights, d, t, r0, rows, before):
    """The factor of the cell's `product`, of rows r0 to r0 + rows of step t, and the product with it."""
    raise NotImplementedError


@overload(_factor_rows)
def _factor_rows_of_cell(weights, d, t, r0, rows, before):
    if not weights.instance_class.cell.has_product:
        return lambda weights, d, t, r0, rows, before: None
    return _factor_rows_of_product


def _factor_rows_of_product(weights, d, t, r0, rows, before):
    dtype, H = weights.parameters.dtype, weights.hidden_size
    size, sums = size_of(dtype), row_at(dtype, d.gates, t, r0)
    into = shifted(dtype, sums, d.factor * H)
    constants = splat_each(dtype, d.constants, constants_of(weights))
    for r in range(rows):
        for u in range(0, H, width(dtype)):
            count = H - u
            others_at = d.others.at + ((r0 + r) * d.others.step + u) * size
            h = load_first(dtype, before.at + (r * before.step + u) * size, count)
            states = joined(h, load_each(dtype, others_at, d.others_apart, others_of(weights)))
            unit_weights = load_each(dtype, d.panels.units + u * size, padded(dtype, H) * size, units_of(weights))
            noise_at = d.noise.at + ((r0 + r) * d.noise.step + u) * size
            unit_weights = chained(unit_weights, load_each(dtype, noise_at, d.noise_apart, noises_of(weights)))
            made = load_each(dtype, d.fixed + u * size, padded(dtype, H) * size, fixed_of(weights))
            unit_weights = chained(unit_weights, made)
            gates = load_gates(dtype, sums.at + (r * sums.step + u) * size, H * size, count, gates_of(weights))
            of = factor(weights, gates, states, unit_weights, constants)
            store_first(into.at + (r * into.step + u) * size, of[0], count)
    target = shifted(dtype, sums, (gates_of(weights) - 1) * H)
    start = target
    if normed(weights):
        target, start = products_of(weights, sums, d.norms, OF_PRODUCT, d.keep), d.zeros
    multiply_rows(factors_of(weights), into, rows, H, d.room, d.panels.product, plain_columns(dtype, H), start, target)
    normalise(weights, sums, d.norms, d.panels.gains, 0, rows, OF_PRODUCT, d.keep)


#: whether the cell follows panel by panel, while its sums are in the cache: unless it needs the sums of all units
by_panels = fact(lambda weights: _follows(weights.instance_class.cell))


def _follows(cell):
    return cell.gates_hh > 0 and not cell.has_product and not cell.normed


@inner
def _step_rows(weights, d, t, r0, rows, before, k):
    """Rows r0 to r0 + rows of step t, whose state before is ``before`` (k = P), or zero (k = 0)."""
    always_inline()
    dtype, gates = weights.parameters.dtype, gates_hh_of(weights)
    P, H = weights.output_size, weights.hidden_size
    sums, out = row_at(dtype, d.gates, t, r0), row_at(dtype, d.out, t, r0)
    h = out
    if P != H:
        h = row_at(dtype, d.unprojected, t, r0)
    of_product = before
    if d.mask.at != 0 and k > 0:
        size = size_of(dtype)
        mask = Matrix(d.mask.at + r0 * d.mask.step * size, d.mask.step)
        of_product = Matrix(d.masked.at + r0 * d.masked.step * size, d.masked.step)
        multiplied(dtype, rows, P, before, mask, of_product, False)
    factors = factors_of(weights)
    if k > 0 and gates > 0:
        of_product = as_factors(factors, of_product, rows, P, d.room)
    target = sums
    if normed(weights):
        target = products_of(weights, sums, d.norms, OF_STATE, d.keep)
        for r in range(rows):
            clear(target.at + r * target.step * size_of(dtype), gates * H * size_of(dtype))
    if gates_hh_of(weights):
        columns = state_columns(dtype, H, group_size(gates, 0))
        count, at_once = panel_count(columns), panels_at_once(factors, rows, k, columns)
        number = max(2, at_once) if rows == 1 else at_once  # the cell takes two vectors at a time
        of_group = number * columns.per_panel
        together = max(of_group, plain_columns(dtype, H).per_panel)  # units of whole panels of both
        before_these, groups = d.share.low // of_group, (d.share.high + of_group - 1) // of_group
        groups -= before_these
        for n in range(groups):
            p = (before_these + there_and_back(n, groups, t + d.turn)) * number
            end = min(p + number, count)
            if d.along and n * of_group % together == 0:
                low = p * columns.per_panel // together * together
                _project_units(weights, d, t, rows, low, min(low + together, H))
            for q in range(p, end if k > 0 else p, at_once):
                state_product(
                    factors, gates, H, q, min(q + at_once, end), of_product, rows, k, d.panels.weight_hh, target
                )
            if by_panels(weights):
                unit, units = p * columns.per_panel, (end - p) * columns.per_panel
                _cell_rows(weights, d, t, r0, rows, before, h, unit, units)
        normalise(weights, sums, d.norms, d.panels.gains, 0, rows, OF_STATE, d.keep)
    if not by_panels(weights):
        _factor_rows(weights, d, t, r0, rows, before)
        _cell_rows(weights, d, t, r0, rows, before, h, 0, H)
    if P != H:
        multiply_rows(factors, h, rows, H, d.room, d.panels.weight_hr, plain_columns(dtype, P), d.zeros, out)


@inner
def _block_rows(weights, keep):
    """Rows whose input is projected at a time, unless a step has more."""
    return max(1, BLOCK_BYTES // (row_width(weights, keep) * size_of(weights.parameters.dtype)))


@inner
def fetch_rows(dtype, a, rows, columns):
    """Have what others wrote fetched all at once: products would wait for one line after the other."""
    size = size_of(dtype)
    for r in range(rows):
        for at in range(0, columns * size, 64):
            fetch_each(a.at + r * a.step * size + at, 0, 1)


@inner
def _scan(weights, d, steps, block_begins, drop, index, order, first):
    """One direction of one layer over time; the last arguments are for its noises."""
    dtype, P = weights.parameters.dtype, weights.output_size
    sizes, alone, T = steps.sizes, steps.alone, steps.number
    most = _block_rows(weights, d.keep)
    done = 0
    while done < T:
        # the next block of steps, low to high in time: at least one, and as many as its rows allow
        low = T - 1 - done if d.reverse else done
        high = low + 1
        while low > 0 and d.reverse and integer_at(alone, high) - integer_at(alone, low - 1) <= most:
            low -= 1
        while high < T and not d.reverse and integer_at(alone, high + 1) - integer_at(alone, low) <= most:
            high += 1
        if not d.keep:
            for t in range(low, high):
                put_integer(block_begins, t, integer_at(alone, t) - integer_at(alone, low))
        if d.along:
            _begin_rows(weights, d, row_at(dtype, d.gates, low, 0), integer_at(sizes, low))
        else:
            _project_block(weights, d, sizes, low, high)
        if d.x.at == d.out.at:  # the output takes the place of the input
            meet(d.share)
        for i in range(high - low):
            t = high - 1 - i if d.reverse else low + i
            size = integer_at(sizes, t)
            previous = t + 1 if d.reverse else t - 1
            if noises_of(weights) and d.keep:
                number = steps.since + t
                draw_noises(weights, drop, d.constants, index, number, order, first, size, d.noise, d.noise_apart)
            going_on = 0
            if 0 <= previous < T:
                going_on = min(size, integer_at(sizes, previous))
            for new in range(2):  # the rows that go on, then those that begin
                if new:
                    h_0 = Matrix(d.h_0.at + going_on * d.h_0.step * size_of(dtype), d.h_0.step)
                    r0, rows, before, k = going_on, size - going_on, h_0, P if d.has_state else 0
                else:
                    r0, rows, before, k = 0, going_on, row_at(dtype, d.out, max(0, min(previous, T - 1)), 0), P
                if rows > 0:
                    _step_rows(weights, d, t, r0, rows, before, k)
            if d.share.members > 1:
                meet(d.share)
                fetch_rows(dtype, row_at(dtype, d.out, t, 0), size, P)
        done += high - low


@inner
def _last_h(weights, d, steps, first, last, batch, index, h_n):
    """h_n[index, b]: the output of each sequence when its scan ends; of an empty one, h_0."""
    dtype, P = weights.parameters.dtype, weights.output_size
    length = steps.number
    for r in range(last - first):
        while length > 0 and integer_at(steps.sizes, length - 1) <= r:
            length -= 1
        h = d.h_0.at + r * d.h_0.step * size_of(dtype)
        if length > 0:
            h = row_at(dtype, d.out, 0 if d.reverse else length - 1, r).at
        row = index * batch.sequences + integer_at(batch.order, first + r)
        copy(address(h_n, row * P), h, P * size_of(dtype))


@inner
def _room_size(weights, steps, keep):
    """Elements of the room for rows of factors: those of a block of the input, or of a step."""
    factors, H, P = factors_of(weights), weights.hidden_size, weights.output_size
    if steps.number == 0:
        return 0
    inputs = max(weights.input_size, weights.num_directions * P if weights.num_layers > 1 else 0)
    return room_size(factors, max(_block_rows(weights, keep), integer_at(steps.sizes, 0)), max(inputs, H))


@inner
def forward_stack(
    weights, batch, first, last, states, drop, keep, tape, out, shown, h_n, others_n, turn, meeting
):  # fmt: skip
    """All layers and directions, for the sequences ``first`` to ``last`` of the sorted batch.

    Writes those sequences' part of out (N, D * P), h_n (L * D, B, P), others_n (S - 1, L * D, B, H), of ``shown``
    (S - 1, N, D * H), an address that may be 0, and, with ``keep``, of the tape. Without it, what is needed besides are
    a block of gates and, between layers, their outputs. ``turn``: see `Direction`. ``meeting`` is the address of the
    `Meeting` of threads that call this alike, each of which computes some of the units, or 0.
    """
    dtype = weights.parameters.dtype
    size = size_of(dtype)
    H, P, D = weights.hidden_size, weights.output_size, weights.num_directions
    integers = aligned(np.int64(0), (STEPS + 2) * (batch.steps + 1))
    steps = steps_of(batch, first, last, address(integers, 0))
    # where the rows of each step begin: of the block of gates, and of one step by itself
    sums_begin, none = address(integers, STEPS * (batch.steps + 1)), address(integers, (STEPS + 1) * (batch.steps + 1))
    clear(sums_begin, 16 * (batch.steps + 1))
    N, own, mine = batch.rows, integer_at(steps.alone, steps.number), last - first
    H_padded, P_padded = padded(dtype, H), padded(dtype, P)
    scans, others_count = weights.num_layers * D, others_of(weights)
    blocks = kept_of(weights) if keep else gates_of(weights) + has_product(weights)
    W = row_width(weights, keep)

    block = 0
    if not keep and own > 0:
        block = min(own, max(BLOCK_BYTES // (W * size), integer_at(steps.sizes, 0)))
    noise_rows = mine if keep else 1
    between_layers = own * D * P if weights.num_layers > 1 else 0
    # all in one array, and all integers in another: in one step of a small layer it counts what arrays cost
    counts = (
        block * W,
        mine * P_padded,
        others_count * mine * H_padded,
        between_layers if D == 2 and not keep else 0,
        between_layers if drops(drop) else 0,
        2 * mine * P_padded if masks_state(drop) else 0,
        noises_of(weights) * noise_rows * H_padded,
        mine * H_padded if P != H else 0,
        (max(P, gates_of(weights) * H) if normed(weights) else P) + width(dtype),
        fixed_of(weights) * H_padded,
        _room_size(weights, steps, keep),
    )
    memory = aligned(dtype, one_behind_the_other(0, counts, size)[-1] // size)
    sums, h_at, others_at, between, dropped, mask, noise, one_step, zeros, made, room, _end = one_behind_the_other(
        address(memory, 0), counts, size
    )
    clear(noise, one_step - noise)
    clear(zeros, made - zeros)
    if noises_of(weights) and not keep:
        set_noises(weights, constants_at(weights), noise, H_padded * size)
    share = share_of(weights, meeting, between, none + 8 * batch.steps)
    between = share.room
    places, alone = steps.places, steps.alone
    # a row of the input: its columns, or a symbol of 8 bytes
    source = Rows(batch.data, 8 // size if batch.symbols else weights.input_size, places)
    for layer in range(weights.num_layers if share.members > 0 else 0):
        if layer == weights.num_layers - 1:
            target = Rows(address(out, 0), D * P, places)
        elif keep:
            target = Rows(address(tape.outputs, layer * N * D * P), D * P, places)
        elif D == 1 or (weights.num_layers - layer) % 2 == 1:
            target = Rows(address(out, 0), D * P, places)  # one direction overwrites its input, which it has projected
        else:
            target = Rows(between, D * P, alone)
        if drops(drop) and layer > 0:
            copy = Rows(dropped, D * P, alone)
            drop_layer(drop, layer - 1, steps, batch.order, first, source, copy)
            source = copy
        for direction in range(D):
            index = layer * D + direction
            take_states(dtype, states.h, states.given, index, batch, first, last, h_at, P)
            for other in range(others_count):
                at, number = others_at + other * mine * H_padded * size, other * scans + index
                take_states(dtype, states.others, states.given, number, batch, first, last, at, H)
            gates = Rows(sums, W, sums_begin)
            unprojected = Rows(one_step, H_padded, none)
            if keep:
                gates = Rows(address(tape.gates, index * N * W), W, places)
                unprojected = Rows(address(tape.unprojected, index * N * H_padded), H_padded, places)
            if masks_state(drop):
                clear(mask, noise - mask)
                state_mask(drop, index, batch.order, first, mine, Matrix(mask, P_padded), P)
            is_shown = shown != 0 and layer == weights.num_layers - 1
            panels = forward_panels(weights, layer, direction)
            fix(weights, panels.units, made)
            scan = Direction(
                panels,
                constants_at(weights),
                made,
                source,
                batch.symbols and layer == 0,
                Rows(target.at + direction * P * size, D * P, target.begins),
                gates,
                blocks - 1,
                blocks * H,
                Rows(address(tape.cells, index * N * H_padded), H_padded, places),
                scans * N * H_padded * size,
                Matrix(h_at, P_padded),
                states.given,
                Matrix(others_at, H_padded),
                mine * H_padded * size,
                Rows(shown + direction * H * size if is_shown else 0, D * H, places),
                N * D * H * size,
                Matrix(mask if masks_state(drop) else 0, P_padded),
                Matrix(mask + mine * P_padded * size, P_padded),
                Matrix(noise, H_padded if keep else 0),
                noise_rows * H_padded * size,
                unprojected,
                Matrix(zeros, 0),
                room,
                direction + weights.reverse == 1,
                keep,
                # but where the cell writes over what is yet to be projected
                source.at != target.at and _goes_along(weights, steps.number, keep, batch.symbols and layer == 0),
                turn,
                share,
            )
            _scan(weights, scan, steps, sums_begin, drop, index, batch.order, first)
            if share.member == 0:
                _last_h(weights, scan, steps, first, last, batch, index, h_n)
            for other in range(others_count):
                at, of_state = others_at + other * mine * H_padded * size, other * scans + index
                give_states(dtype, at, of_state, batch, first, last, others_n, H, share.low, share.high)
        source = target
    keep_alive((integers, memory))
