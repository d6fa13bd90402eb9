"""Matrix products of the CUDA backend, in Numba's simulator, and on a device where there is one.

The tests run in a process of their own for each, which the first of them starts.
"""

import os
import re

import numpy as np
import pytest
from test_cuda import run

import numba_pack as nbp

WITHIN = os.environ.get("NUMBA_PACK_TESTED_BACKEND") == "cuda"
of_products = pytest.mark.skipif(not WITHIN or nbp.backend != "cuda", reason="runs in a process of its own")
#: shapes are for the simulator's tiles, of 8 and 16 rows with 4 terms at a time; those of a device are larger
SCALE = 1 if os.environ.get("NUMBA_ENABLE_CUDASIM") else 9
DTYPES = [np.float32, np.float64]


@pytest.mark.skipif(WITHIN, reason="is what started this")
@pytest.mark.parametrize("backend", [pytest.param("simulator", marks=pytest.mark.slow), "device"])
def test_the_products_of_every_backend(backend):
    result = run(backend, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-n", "0", __file__)
    assert result.returncode == 0, result.stdout + result.stderr
    passed = re.search(r"(\d+) passed", result.stdout)
    if passed is None:
        pytest.skip("no device")
    assert int(passed[1]) > 30


def normal(*shape, dtype):
    return np.random.default_rng(sum(shape)).normal(size=shape).astype(dtype)


def product(a, b, start=None, *, a_at=(0, 0), transposed=False, c_at=(0, 0), **more):
    """What `multiply` makes of all of B and of those rows of A that follow the first, on top of nothing or a start."""
    from numba_pack.cuda.device import to_device, to_host
    from numba_pack.cuda.products import multiply

    terms, n = b.shape[::-1] if transposed else b.shape
    rows = len(a) - a_at[0]
    c = np.full((rows + c_at[0], n + c_at[1]), 7, a.dtype) if start is None else start
    c, a, b = to_device(c), to_device(a), to_device(b)
    more = {name: to_device(value) if name == "bias" else value for name, value in more.items()}
    multiply(a, a_at, b, transposed, c, c_at, rows, n, terms, **more)
    return to_host(c)


def near(found, expected):
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * SCALE)


#: rows, columns, terms, and columns of A that are not read: one tile and many of both sizes, with and without ragged
#: edges; with a row, or a first column, that no four elements may be read from at once
SHAPES = [(1, 1, 1, 0), (5, 7, 3, 1), (8, 8, 4, 0), (17, 9, 8, 4), (20, 36, 9, 3), (40, 20, 12, 8), (33, 18, 13, 2)]


@of_products
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_products_of_rows(shape, transposed, dtype):
    m, n, k = (SCALE * size for size in shape[:3])
    unread = shape[3]
    a, b = normal(m + 1, k + unread, dtype=dtype), normal(*((n, k) if transposed else (k, n)), dtype=dtype)
    start, bias = normal(m + 2, n + unread, dtype=dtype), normal(1, n + 3, dtype=dtype)
    places = {"a_at": (1, unread), "c_at": (2, unread), "transposed": transposed}
    of_rows = a[1:, unread:].astype(np.float64) @ (b.T if transposed else b)
    for more, on_top in (({}, 0), ({"bias": bias, "bias_at": 3}, bias[0, 3:]), ({"add": True}, start[2:, unread:])):
        found = product(a, b, start, **places, **more)
        near(found[2:, unread:], of_rows + on_top)
        np.testing.assert_array_equal(found[:2], start[:2])
        np.testing.assert_array_equal(found[:, :unread], start[:, :unread])


@of_products
def test_a_product_without_terms_is_its_start():
    bias = normal(1, 5, dtype=np.float32)
    found = product(np.zeros((3, 0), np.float32), np.zeros((0, 5), np.float32), bias=bias)
    np.testing.assert_array_equal(found, np.repeat(bias, 3, 0))


@of_products
@pytest.mark.parametrize("dtype", DTYPES)
def test_an_element_is_the_sum_of_its_terms_in_their_order_whatever_the_tile_and_the_place(monkeypatch, dtype):
    from numba_pack.cuda.tile import TILES

    m, n, k = 20 * SCALE, 18 * SCALE, 11 * SCALE
    random = np.random.default_rng(1)
    a = random.choice([0.25, 1.0, 3.0, 0.7 / np.finfo(dtype).eps], (m, k)) * random.choice([-1, 1], (m, k))
    a, b = a.astype(dtype), random.choice([-1.0, 1.0], (k, n)).astype(dtype)
    expected, backwards = (sum(a[:, i : i + 1] * b[i] for i in order) for order in (range(k), range(k - 1, -1, -1)))
    assert np.any(expected != backwards)
    aside = np.concatenate((np.zeros((m, 3), dtype), a), 1)
    for tile in TILES[np.dtype(dtype)]:
        monkeypatch.setitem(TILES, np.dtype(dtype), (tile,))
        for more in ({"a_at": (0, 0)}, {"a_at": (9, 0)}, {"c_at": (0, 1)}):
            below, (_, right) = more.get("a_at", (0, 0))[0], more.get("c_at", (0, 0))
            np.testing.assert_array_equal(product(a, b, **more)[:, right:], expected[below:])
            np.testing.assert_array_equal(product(a, b.T.copy(), transposed=True, **more)[:, right:], expected[below:])
        np.testing.assert_array_equal(product(aside, b, a_at=(0, 3)), expected)


@of_products
@pytest.mark.parametrize("dtype", DTYPES)
def test_what_is_beyond_the_terms_leaves_even_a_negative_zero_as_it_is(dtype):
    a, b, bias = np.zeros((3, 1), dtype), np.full((1, 5), -1, dtype), np.full((1, 5), -0.0, dtype)
    found = product(a, b, bias=bias)
    assert np.all(found == 0) and np.all(np.signbit(found))


#: rows of a batch, columns of both factors, and a shift
BATCHES = [(0, 3, 3, 0), (1, 1, 1, 0), (3, 20, 18, 0), (30, 5, 6, 2), (41, 20, 9, 1), (12, 40, 36, 0), (23, 33, 17, 5)]


@of_products
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("unread", [0, 3])
def test_sums_over_the_rows_of_a_batch(batch, unread, dtype):
    from numba_pack.cuda.device import empty, to_device, to_host
    from numba_pack.cuda.products import column_sums, multiply_transposed

    rows, m, n = (SCALE * size for size in batch[:3])
    shift = batch[3]
    a, b = normal(rows, m + unread, dtype=dtype), normal(rows, n + 2 * unread, dtype=dtype)
    on_device = to_device(a)
    products, sums = empty((m, n), dtype), empty((m, 1), dtype)
    multiply_transposed(on_device, unread, to_device(b), 2 * unread, rows, shift, products)
    column_sums(on_device, unread, rows, shift, sums)
    a = a[:, unread:].astype(np.float64)
    near(to_host(products), np.roll(a.T @ b[:, 2 * unread :], shift, 0))
    near(to_host(sums)[:, 0], np.roll(a.sum(0), shift))
