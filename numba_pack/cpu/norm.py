"""Layer normalisation of the products of a step, forward and backward; only cells that are normalised compile it.

Each of the products, with the state, the cell's own `product` and with the input, is a row y of n sums, and becomes
``gain y'`` with ``y' = (y - mean(y)) s`` and ``s = 1 / sqrt(var(y) + eps)``. With d the gradient of that, that of y is

    s (g d - mean(g d) - y' mean(g d y'))

Behind the blocks of a row of gates stand the products in that order, and then the s of each. In training y is replaced
by y', and at last by its gradient. In inference the products with the input stand where their sums do.

J. L. Ba, J. R. Kiros and G. E. Hinton, Layer normalization, arXiv:1607.06450 (2016).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from .._jit import inner, overload
from ..cells.parameters import (
    gates_hh_of,
    gates_ih_of,
    gates_of,
    has_product,
    layout,
    products_of_tape,
)
from ..simd.lanes import (
    fma,
    like,
    load,
    load_first,
    nothing,
    size_of,
    splat_each,
    store,
    store_first,
    sum_of,
    width,
)
from .matrices import Matrix
from .panels import padded

__all__ = [
    "OF_INPUT", "OF_PRODUCT", "OF_STATE", "normalise", "normalise_back", "products_of", "sums_of",
]  # fmt: skip

#: the kinds of products, in the order of a row
OF_STATE, OF_PRODUCT, OF_INPUT = range(3)
#: added to the variance, as in PyTorch's LayerNorm
EPSILON = 1e-5


def _for_normed(function: Callable[..., Any]) -> Callable[..., Any]:
    """Make a function of compiled code one that does nothing, and is not compiled, for cells that are not normalised.

    Its first argument is the weights.
    """

    @functools.wraps(function)
    def stub(*args: Any) -> Any:
        raise NotImplementedError

    names = function.__code__.co_varnames[: function.__code__.co_argcount]
    nothing_at_all = eval(f"lambda {', '.join(names)}: None")

    def chosen(weights: Any, *rest: Any) -> Any:
        return function if weights.instance_class.cell.normed else nothing_at_all

    overload(stub, strict=False)(chosen)
    return stub


@inner
def _part_of_row(weights, kind):
    """The first column of the products of a kind, counted from the first of all, and how many there are."""
    H, gates = weights.hidden_size, gates_hh_of(weights)
    if kind == OF_STATE:
        return 0, gates * H
    if kind == OF_PRODUCT:
        return gates * H, has_product(weights) * H
    return (gates + has_product(weights)) * H, gates_ih_of(weights) * H


@inner
def products_of(weights, row, norms, kind, keep):
    """The products of a kind of a row of gates, whose products begin at column ``norms``; a `Matrix`."""
    size = size_of(weights.parameters.dtype)
    column = norms + _part_of_row(weights, kind)[0]
    if kind == OF_INPUT and not keep:
        column = layout(weights).turn * weights.hidden_size
    return Matrix(row.at + column * size, row.step)


@inner
def sums_of(weights, row, kind):
    """The sums that the products of a kind are part of: the gates that they begin at."""
    column = 0
    if kind == OF_INPUT:
        column = layout(weights).turn
    if kind == OF_PRODUCT:
        column = gates_of(weights) - 1
    return Matrix(row.at + column * weights.hidden_size * size_of(weights.parameters.dtype), row.step)


@inner
def _number_at(weights, row, norms, kind, r):
    """The address of the s of the products of a kind, of row r."""
    first, count = _part_of_row(weights, OF_INPUT)
    return row.at + (r * row.step + norms + first + count + kind) * size_of(weights.parameters.dtype)


@inner
def _total(dtype, at, count):
    """The sum of ``count`` numbers."""
    lanes, size = width(dtype), size_of(dtype)
    a, b, c, d = nothing(dtype), nothing(dtype), nothing(dtype), nothing(dtype)
    whole = count // (4 * lanes) * (4 * lanes)
    for u in range(0, whole, 4 * lanes):
        here = at + u * size
        a, b = a + load(dtype, here), b + load(dtype, here + lanes * size)
        c, d = c + load(dtype, here + 2 * lanes * size), d + load(dtype, here + 3 * lanes * size)
    for u in range(whole, count, lanes):
        a = a + load_first(dtype, at + u * size, count - u)
    return sum_of((a + b) + (c + d))


@inner
def _centred(dtype, at, count):
    """Subtract their mean from ``count`` numbers, and return the sum of the squares of what they become."""
    lanes, size = width(dtype), size_of(dtype)
    mean = like(nothing(dtype), _total(dtype, at, count) / count)
    a, b = nothing(dtype), nothing(dtype)
    whole = count // (2 * lanes) * (2 * lanes)
    for u in range(0, whole, 2 * lanes):
        here, there = at + u * size, at + (u + lanes) * size
        x, y = load(dtype, here) - mean, load(dtype, there) - mean
        store(here, x)
        store(there, y)
        a, b = fma(x, x, a), fma(y, y, b)
    for u in range(whole, count, lanes):
        store_first(at + u * size, load_first(dtype, at + u * size, count - u) - mean, count - u)
        x = load_first(dtype, at + u * size, count - u)  # zero beyond the last
        a = fma(x, x, a)
    return sum_of(a + b)


@_for_normed
def normalise(weights, row, norms, gains, bias, rows, kind, keep):
    """Normalise the products of a kind in some rows of gates, and add them to their sums.

    ``row`` is the first row of gates, a `Matrix`, ``gains`` the address of those of the row's products. The sums of
    products with the input start from ``bias``, the address of a row of them; the others from what they are.
    """
    dtype = weights.parameters.dtype
    size, (first, count) = size_of(dtype), _part_of_row(weights, kind)
    products, sums = products_of(weights, row, norms, kind, keep), sums_of(weights, row, kind)
    gains += first * size
    bias += layout(weights).turn * weights.hidden_size * size
    for r in range(rows):
        y, target = products.at + r * products.step * size, sums.at + r * sums.step * size
        start = bias if kind == OF_INPUT else target
        of_all = like(nothing(dtype), 1.0 / np.sqrt(_centred(dtype, y, count) / count + EPSILON))
        if keep:
            store_first(_number_at(weights, row, norms, kind, r), of_all, 1)
        for u in range(0, count, width(dtype)):
            at, left = u * size, count - u
            normal = load_first(dtype, y + at, left) * of_all
            if keep:
                store_first(y + at, normal, left)
            total = fma(load_first(dtype, gains + at, left), normal, load_first(dtype, start + at, left))
            store_first(target + at, total, left)


@_for_normed
def normalise_back(weights, row, norms, gains, rows, kind, d_sums, d_gains, apart):
    """Turn normalised products of a kind into the gradients of the products, in place, in some rows of gates.

    ``d_sums`` is a `Matrix` of the gradients of the sums that they are part of. ``d_gains`` is the address of (., H')
    gradients of the gains of the first of all products, a row for each row of gates, to which those of this step are
    added; ``apart`` are the bytes to those of the next product. Behind them are those of the biases. The rest is as for
    `normalise`.
    """
    dtype, H = weights.parameters.dtype, weights.hidden_size
    size, step, (first, count) = size_of(dtype), padded(dtype, H) * size_of(dtype), _part_of_row(weights, kind)
    products = products_of(weights, row, norms, kind, True)
    gains, d_gains = gains + first * size, d_gains + first // H * apart
    for r in range(rows):
        y, d_sum = products.at + r * products.step * size, d_sums.at + r * d_sums.step * size
        total, total_by_y = nothing(dtype), nothing(dtype)
        for product in range(count // H):
            d_gain = d_gains + product * apart + r * step
            d_bias = d_gain + products_of_tape(weights) * apart
            for u in range(0, H, width(dtype)):
                at, left = (product * H + u) * size, H - u
                d, normal = load_first(dtype, d_sum + at, left), load_first(dtype, y + at, left)
                store(d_gain + u * size, fma(d, normal, load(dtype, d_gain + u * size)))
                store(d_bias + u * size, d + load(dtype, d_bias + u * size))
                d = d * load_first(dtype, gains + at, left)
                total, total_by_y = total + d, fma(d, normal, total_by_y)
        (of_all,) = splat_each(dtype, _number_at(weights, row, norms, kind, r), 1)
        mean, mean_by_y = of_all * like(total, sum_of(total) / count), of_all * like(total, sum_of(total_by_y) / count)
        for u in range(0, count, width(dtype)):
            at, left = u * size, count - u
            d = load_first(dtype, gains + at, left) * load_first(dtype, d_sum + at, left)
            d = fma(of_all, d, -mean)
            store_first(y + at, fma(-mean_by_y, load_first(dtype, y + at, left), d), left)
