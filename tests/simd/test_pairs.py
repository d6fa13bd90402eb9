"""Two vectors as one value: each is what it would be alone, and its memory is that of its own address."""

import numpy as np
import pytest
from numba import njit

from numba_pack.cells import activations, rough
from numba_pack.simd.lanes import (
    lanes_of,
    load,
    load_first,
    load_gates,
    splat_each,
    store,
    store_first,
    store_gates,
    width,
)
from numba_pack.simd.memory import address

NUMBERS = np.random.default_rng(0).normal(scale=3, size=4096)


@pytest.fixture(params=[np.float32, np.float64], ids=["float32", "float64"])
def dtype(request):
    return request.param


@pytest.mark.parametrize(
    "function",
    [getattr(activations, name) for name in activations.__all__] + [rough.exp, rough.sigmoid, rough.tanh],
    ids=lambda function: f"{function.__module__.rpartition('.')[2]}.{function.__name__}",
)
def test_a_function_of_two_vectors_is_that_of_each(function, dtype):
    @njit(error_model="numpy")
    def one_by_one(x, y):
        for i in range(0, x.size, width(x)):
            store(address(y, i), function(load(x, address(x, i))))

    @njit(error_model="numpy")
    def two_by_two(x, y):
        half = x.size // 2
        for i in range(0, half, width(x)):
            store((address(y, half + i), address(y, i)), function(load(x, (address(x, half + i), address(x, i)))))

    x = NUMBERS.astype(dtype)
    alone, both = np.empty_like(x), np.empty_like(x)
    one_by_one(x, alone)
    two_by_two(x, both)
    np.testing.assert_array_equal(both, alone)


@pytest.mark.parametrize("ends", ["both whole", "first part", "second part", "both part"])
def test_each_has_a_count_of_its_own_and_nothing_beyond_is_written(ends, dtype):
    lanes = lanes_of(dtype)
    counts = {
        "both whole": (lanes, lanes + 3), "first part": (1, lanes), "second part": (lanes, lanes - 1),
        "both part": (1, 0),
    }[ends]  # fmt: skip

    @njit
    def move(x, first, second, counts, y, of_gates):
        at, to = (address(x, first), address(x, second)), (address(y, first), address(y, second))
        if of_gates:
            gates = load_gates(x, at, 16 * x.itemsize, counts, 2)
            store_gates(to, 16 * x.itemsize, counts, gates)
        else:
            store_first(to, load_first(x, at, counts), counts)

    x = np.arange(1, 129).astype(dtype)
    for of_gates in (False, True):
        y, expected = np.zeros_like(x), np.zeros_like(x)
        for place, count in zip((0, 64), counts, strict=True):
            for start in (place, place + 16)[: 1 + of_gates]:
                expected[start : start + min(count, lanes)] = x[start : start + min(count, lanes)]
        move(x, 0, 64, counts, y, of_gates)
        np.testing.assert_array_equal(y, expected)


def test_a_number_is_in_each_lane_of_both(dtype):
    @njit
    def spread(x, y):
        _, second = splat_each(x, (address(x, 0), address(x, 2)), 2)
        store((address(y, 0), address(y, width(x))), second)

    x, lanes = np.arange(4).astype(dtype), lanes_of(dtype)
    y = np.empty(2 * lanes, dtype)
    spread(x, y)
    np.testing.assert_array_equal(y, np.repeat(x[[1, 3]], lanes))
