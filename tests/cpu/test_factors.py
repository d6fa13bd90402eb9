"""Products of short factors: rows and panels of words, and what is summed, against plain NumPy.

Which instructions multiply is the machine's business; the others are tested by `test_engines.py`, which runs this file
with each. Integers give the same on all of them. Sums in bfloat16 are near, within the rounding of float32.
"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numba import njit
from test_guards import Guards, sizes_around

from numba_pack.cpu.factor_rows import as_factors, columns_as_factors, columns_of, columns_size
from numba_pack.cpu.factors import Factors, deep, on_tiles, parts_of, room_size, row_words, words_of
from numba_pack.cpu.matrices import Matrix, gate_columns, plain_columns
from numba_pack.cpu.panels import Run, _pack_plain, _pack_transposed, panel_size
from numba_pack.cpu.products import begin_products, end_products, multiply_rows
from numba_pack.cpu.tile import tile_of
from numba_pack.simd.lanes import lanes_of
from numba_pack.simd.machine import DOTS
from numba_pack.simd.memory import address, keep_alive
from numba_pack.simd.modes import put_back_mode, take_mode

LANES = lanes_of(np.float32)
KINDS = ["bfloat16", "int8"]
if LANES == 16:  # parts are multiplied by the matrix unit, or by the plain loops that stand for it
    KINDS += ["bfloat16x2", "bfloat16x3"]
PARTS = {"bfloat16": 1, "bfloat16x2": 2, "bfloat16x3": 3}


def factors(kind):
    return Factors(kind, "float32")


def in_bfloat16(values):
    """Rounded to the nearest bfloat16, of two to the even one; NaN stays NaN."""
    bits = values.astype(np.float32).view(np.uint32).astype(np.uint64)
    rounded = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16 << 16).astype(np.uint32).view(np.float32)
    return np.where(np.isnan(values), np.float32(np.nan), rounded)


def in_parts(values, count):
    """The parts that the factors are the sum of."""
    found = []
    for _ in range(count):
        found.append(in_bfloat16(values))
        with np.errstate(invalid="ignore"):
            values = np.where(np.isinf(found[-1]), np.float32(0), values - found[-1])
    return found


def in_bytes(rows, shorten=False):
    """Whole numbers from -127 to 127, and a scale a row."""
    scales = (np.abs(rows).max(1) * np.float64(1 / 127)).astype(np.float32)
    inverse = np.float32(127) / np.abs(rows).max(1).astype(np.float64)
    if shorten:
        scales = np.abs(rows).max(1) / np.float32(127)
        scales = ((scales.view(np.int32) + 255) & ~255).view(np.float32)
        inverse = np.float32(1) / scales
    whole = np.rint(rows.astype(np.float64) * inverse.astype(np.float32).astype(np.float64)[:, None])
    return whole.astype(np.int64), scales


@njit
def facts(factors, k):
    return words_of(factors, k), row_words(factors, k), deep(factors, k), parts_of(factors), on_tiles(factors)


@njit
def rows_of_factors(factors, a, room):
    rows, k = a.shape
    mode = take_mode()
    made = as_factors(factors, Matrix(address(a, 0), k), rows, k, address(room, 0))
    put_back_mode(mode)
    return (made.at - address(room, 0)) // 4, made.step


@njit
def room_for(factors, rows, k):
    return room_size(factors, rows, k)


def made_of(kind, a):
    """The words of the rows of a, (rows, words), and the scales where they have some; in room between guards."""
    guards = Guards()
    room = guards.around(np.zeros(room_for(factors(kind), *a.shape), np.float32))
    at, step = rows_of_factors(factors(kind), guards.around(a), room)
    guards.check()
    words = facts(factors(kind), a.shape[1])[0] * PARTS.get(kind, 1)
    rows = np.stack([room[at + r * step :][:words] for r in range(len(a))])
    return rows.view(np.uint32), np.array([room[at + r * step - 1] for r in range(len(a))])


def awkward(rng, shape):
    """Numbers of all sizes, and those that are no numbers."""
    values = (rng.standard_normal(shape) * 10.0 ** rng.integers(-30, 30, shape)).astype(np.float32)
    special = [0.0, -0.0, np.nan, np.inf, -np.inf, 1.0, 2.0**-126, np.float32(1) + np.float32(2) ** -8]
    at = rng.integers(0, values.size, min(values.size, 8))
    values.ravel()[at] = special[: len(at)]
    return values


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "int8"])
def test_a_row_is_the_words_of_its_numbers_in_bfloat16_part_after_part(kind):
    rng = np.random.default_rng(0)
    for k in sizes_around(2 * LANES):
        a = awkward(rng, (3, k))
        words = made_of(kind, a)[0].reshape(3, PARTS[kind], -1)
        halves = words.view(np.uint16).astype(np.uint32) << 16  # low half first
        for part, expected in enumerate(in_parts(a, PARTS[kind])):
            found = halves[:, part].reshape(3, -1).view(np.float32)
            np.testing.assert_array_equal(found[:, :k], expected)
            assert not found[:, k:].any()


def test_three_parts_hold_every_bit():
    a = awkward(np.random.default_rng(1), (2, 64))
    a = a[np.isfinite(a) & (np.abs(a) > 1e-20)][None]
    assert (sum(part.astype(np.float64) for part in in_parts(a, 3)) == a).all()


def test_a_row_of_bytes_is_whole_numbers_times_a_scale():
    rng = np.random.default_rng(2)
    for k in sizes_around(4 * LANES):
        a = (rng.standard_normal((3, k)) * [[1e-3], [1.0], [1e4]]).astype(np.float32)
        words, scales = made_of("int8", a)
        whole, expected = in_bytes(a)
        np.testing.assert_array_equal(words.view(np.uint8)[:, :k].astype(int) - 128, whole)
        np.testing.assert_array_equal(scales, expected)
        assert np.abs(whole * scales[:, None].astype(float) - a).max() <= scales.max() * 0.5001


def test_a_row_that_is_not_finite_spoils_its_scale_alone_and_zeros_have_none():
    a = np.ones((4, 40), np.float32)
    a[0, 3], a[1, 39], a[2] = np.nan, np.inf, 0.0
    _, scales = made_of("int8", a)
    assert np.isnan(scales[:2]).all() and scales[2] == 0 and np.isfinite(scales[3])


# -- products ----------------------------------------------------------------------------------------------------------


@njit
def product(factors, a, weights, gates, start, c):
    """c = start + a @ weights.T, by panels of plain columns or of so many gates."""
    k = a.shape[1]
    total = weights.shape[0] // max(1, gates)
    columns = gate_columns(a.dtype, total, gates) if gates else plain_columns(a.dtype, total)
    panels = np.full(panel_size(factors, columns, k), np.nan, np.float32)
    _pack_transposed(factors, weights.ravel(), 0, k, columns, panels, 0, Run(0, panels.size))
    _multiply(factors, a, panels, columns, start, c)


@njit
def plain_product(factors, a, weights, start, c):
    """c = start + a @ weights, by panels of the matrix as it lies."""
    columns = plain_columns(a.dtype, weights.shape[1])
    panels = np.full(panel_size(factors, columns, a.shape[1]), np.nan, np.float32)
    _pack_plain(factors, weights.ravel(), 0, a.shape[1], columns, 0, panels, 0, Run(0, panels.size))
    _multiply(factors, a, panels, columns, start, c)


@njit
def _multiply(factors, a, panels, columns, start, c):
    rows, k = a.shape
    room = np.full(room_size(factors, rows, k), np.nan, np.float32)
    mode = take_mode()
    begin_products(factors)
    multiply_rows(
        factors, Matrix(address(a, 0), k), rows, k, address(room, 0), address(panels, 0), columns,
        Matrix(address(start, 0), start.shape[1] if start.shape[0] > 1 else 0), Matrix(address(c, 0), c.shape[1]),
    )  # fmt: skip
    end_products(factors)
    put_back_mode(mode)
    keep_alive((room, panels))


def expected_product(kind, a, weights):
    """a @ weights.T of the factors that these become, in float64; and the sum of the magnitudes."""
    if kind == "int8":
        (x, of_row), (w, of_column) = in_bytes(a), in_bytes(weights, shorten=True)
        scale = (of_row[:, None] * of_column).astype(np.float32).astype(np.float64)
        return (x @ w.T) * scale, np.abs(x @ w.T) * scale
    xs, ws = (in_parts(m, PARTS[kind]) for m in (a, weights))
    pairs = [(x.astype(float), w.astype(float)) for i, x in enumerate(xs) for w in ws[: PARTS[kind] - i]]
    return sum(x @ w.T for x, w in pairs), sum(np.abs(x) @ np.abs(w).T for x, w in pairs)


@pytest.mark.parametrize("kind", KINDS)
@settings(deadline=None, max_examples=60)
@given(
    rows=st.integers(1, 37), k=st.integers(1, 150), columns=st.integers(1, 150), gates=st.sampled_from([0, 0, 2, 3, 4]),
    bias=st.booleans(), seed=st.integers(0, 99),
)  # fmt: skip
def test_a_product_is_that_of_its_factors(kind, rows, k, columns, gates, bias, seed):
    tile_of(factors(kind))
    rng = np.random.default_rng(seed)
    n = columns * max(1, gates)
    a, weights = (rng.standard_normal(shape).astype(np.float32) for shape in ((rows, k), (n, k)))
    start = rng.standard_normal((1 if bias else rows, n)).astype(np.float32)
    guards = Guards()
    c = guards.around(start.repeat(rows // len(start), 0))
    product(factors(kind), guards.around(a), weights, gates, guards.around(start) if bias else c, c)
    guards.check()
    exact, size = expected_product(kind, a, weights)
    terms = 3 if kind == "int8" else k * PARTS[kind] + 3
    assert (np.abs(c - (start + exact)) <= terms * 2.0**-24 * (size + np.abs(start)) + 1e-30).all()
    alone = start[-1:].copy()
    product(factors(kind), a[-1:], weights, gates, start[-1:], alone)
    np.testing.assert_array_equal(alone[0], c[-1])


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "int8"])
def test_a_product_with_a_matrix_as_it_lies_is_that_of_its_factors(kind):
    tile_of(factors(kind))
    rng = np.random.default_rng(3)
    for k in (1, 2, 31, 64, 100):
        for n in (1, LANES + 1, 5 * LANES + 3):
            a, weights = (rng.standard_normal(shape).astype(np.float32) for shape in ((19, k), (k, n)))
            c = np.zeros((19, n), np.float32)
            plain_product(factors(kind), a, weights, c, c)
            exact, size = expected_product(kind, a, weights.T)
            assert (np.abs(c - exact) <= (k * PARTS[kind] + 3) * 2.0**-24 * size).all()


@njit
def columns_in_words(factors, a, room):
    rows, count = a.shape
    matrix = Matrix(address(a, 0), count)
    columns_as_factors(factors, matrix, rows, count, address(room, 0))
    made, along = columns_of(factors, matrix, rows, address(room, 0))
    return (made.at - address(room, 0)) // 4, made.step, along


@njit
def columns_room(factors, rows, count):
    return columns_size(factors, rows, count)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "int8"])
def test_the_columns_of_a_block_become_rows_of_words(kind):
    rng = np.random.default_rng(4)
    for rows in (1, 2, 31, 128):
        for count in (1, LANES, 2 * LANES + 3):
            a, guards = rng.standard_normal((rows, count)).astype(np.float32), Guards()
            room = guards.around(np.zeros(columns_room(factors(kind), rows, count), np.float32))
            at, step, along = columns_in_words(factors(kind), guards.around(a), room)
            guards.check()
            words = facts(factors(kind), rows)[0] * PARTS[kind]
            found = np.stack([room[at + c * step :][:words] for c in range(count)]).view(np.uint32)
            np.testing.assert_array_equal(found, made_of(kind, np.ascontiguousarray(a.T))[0])
            assert along == 1


def test_the_machine_has_an_instruction_for_each_kind_or_does_without():
    assert DOTS.bfloat16 in ("amx", "avx512_bf16", "widened")
    assert DOTS.int8 in ("amx", "avx512_vnni", "avx_vnni", "widened")
