"""The micro-kernel on the matrix unit: products of short factors are what float64 says, and stay within their rows.

Rows and panels are laid out here in plain NumPy: words of two numbers in bfloat16, or of four integers; a panel holds
for each 16 words of k part after part, in each of which come the words of its vectors side by side.
"""

import ctypes
from typing import NamedTuple

import numpy as np
import pytest
from helpers import assert_same_bits
from numba import njit
from test_guards import Guards

from numba_pack.cpu.matrix_tile import Place, begin_tiles, end_tiles, matrix_tile_of
from numba_pack.cpu.tile import ARGUMENTS
from numba_pack.simd.lanes import lanes_of
from numba_pack.simd.machine import DOTS, MACHINE
from numba_pack.simd.modes import put_back_mode, take_mode

LANES = lanes_of(np.float32)
PARTS = {"bfloat16": 1, "bfloat16x2": 2, "bfloat16x3": 3, "int8": 1}
#: by what products are made here
FORMS = ["loops"] if DOTS.plain_tiles else ["loops", "instructions"]
#: of the sum of the magnitudes of products, how much may be lost
BOUNDS = {"bfloat16": 2.0**-21, "bfloat16x2": 2.0**-14, "bfloat16x3": 2.0**-21}


def test_the_arguments_are_those_of_every_micro_kernel():
    assert Place._fields == ARGUMENTS


# -- words -------------------------------------------------------------------------------------------------------------


def bits_of(x):
    """The nearest bfloat16, of two the even one; NaN stays one."""
    bits = np.ascontiguousarray(x, np.float32).view(np.uint32).astype(np.uint64)
    rounded = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
    return np.where(np.isnan(x), np.uint16(0x7FC0), rounded)


def numbers_of(bits):
    return (bits.astype(np.uint32) << 16).view(np.float32)


def parts_of(x, count):
    """So many numbers in bfloat16, each of what those before have left of x."""
    parts = []
    for _ in range(count):
        parts.append(bits_of(x))
        x = np.where(np.isfinite(x), x - numbers_of(parts[-1]), np.float32(0))
    return parts


def words_along(values, per_word):
    """The words of rows (., k), padded with zeros to whole tiles: (., k') of uint32."""
    filled = np.zeros((len(values), -(-values.shape[1] // (16 * per_word)) * 16 * per_word), values.dtype)
    filled[:, : values.shape[1]] = values
    return filled.view(np.uint32)


def panel_of(parts, per_word, vectors):
    """Parts (columns, k) as one panel of so many vectors, with zeros behind the last column."""
    words = []
    for part in parts:
        filled = np.zeros((vectors * LANES, part.shape[1]), part.dtype)
        filled[: len(part)] = part
        words.append(words_along(filled, per_word).reshape(vectors * LANES, -1, 16).transpose(1, 2, 0))
    return np.stack(words, 1)  # k tiles, parts, 16 words, columns


# -- a product ---------------------------------------------------------------------------------------------------------


class Product(NamedTuple):
    """c = start + rows @ columns.T, and how it is asked for."""

    #: (rows, k) and (columns, k), of float32
    rows: np.ndarray
    columns: np.ndarray
    #: (rows or 1, columns)
    start: np.ndarray
    #: in a panel
    vectors: int
    panels: int = 1
    late: int = 0
    #: columns of a gate, of which each panel holds a vector; 0 of a matrix without gates
    units: int = 0


def integers_of(x):
    """Whole numbers from -127 to 127 and the scale of each row."""
    scale = np.abs(x).max(1).astype(np.float32) / np.float32(127)
    return np.rint(x / np.where(scale > 0, scale, 1)[:, None]).astype(np.int8), scale


def panels_of(factors, of):
    """All panels, as words: vector by vector of the columns, or of the columns of each gate."""
    per_panel = LANES if of.units else of.vectors * LANES
    total = of.units or len(of.columns)
    made = []
    for p in range(of.panels):
        if of.units:
            chosen = np.zeros((of.vectors * LANES, of.columns.shape[1]), np.float32)
            for gate in range(of.vectors):
                part = of.columns[gate * of.units :][p * LANES : min((p + 1) * LANES, of.units)]
                chosen[gate * LANES : gate * LANES + len(part)] = part
        else:
            chosen = of.columns[p * per_panel : (p + 1) * per_panel]
        if factors == "int8":
            whole, scale = integers_of(chosen)
            head = np.zeros((2, of.vectors * LANES), np.float32)
            head[0, : len(scale)] = scale
            head[1].view(np.int32)[: len(scale)] = -128 * whole.astype(np.int32).sum(1)
            made.append(np.concatenate([head.view(np.uint32).ravel(), panel_of([whole], 4, of.vectors).ravel()]))
        else:
            made.append(panel_of(parts_of(chosen, PARTS[factors]), 2, of.vectors).ravel())
    return np.stack(made), per_panel, total


def rows_of(factors, rows, junk):
    """Rows of words, with ``junk`` in those up to whole tiles and behind each row; and where the first word is."""
    if factors == "int8":
        whole, scale = integers_of(rows)
        words = [words_along((whole.astype(np.int16) + 128).astype(np.uint8), 4)]
    else:
        words = [words_along(part, 2) for part in parts_of(rows, PARTS[factors])]
    k = words[0].shape[1]
    filled = np.full((-(-len(rows) // 16) * 16, 16 + len(words) * k), junk, np.uint32)
    for part, of_part in enumerate(words):
        filled[: len(rows), 16 + part * k :][:, :k] = of_part
    if factors == "int8":
        filled[: len(rows), 15] = scale.view(np.uint32)
    return filled, k


@njit
def begin():
    begin_tiles()
    return take_mode()


@njit
def end(mode):
    put_back_mode(mode)
    end_tiles()


def multiplied(factors, form, of, junk=0x7FC07FC0):
    """c of a product, by the micro-kernel, which is given what lies between guards and in memory for whole tiles."""
    guards, shift = Guards(), 3
    panels, per_panel, total = panels_of(factors, of)
    words, k = rows_of(factors, of.rows, junk)
    width = len(of.columns)
    c = guards.around(np.full((len(of.rows), width), 7, np.float32), shift)
    start = guards.around(of.start, shift + 1)
    words, panels = guards.around(words), guards.around(panels)
    place = Place(
        a=words.ctypes.data + 16 * 4, a_step=words.shape[1], a_along=k, panel=panels.ctypes.data,
        panel_step=panels.shape[1], k=k, start=start.ctypes.data, start_step=width if len(of.start) > 1 else 0,
        c=c.ctypes.data, c_step=width, count=total, panel_columns=per_panel, between=of.units or LANES,
        adjacent=int(not of.units), late=of.late, times=1,
    )  # fmt: skip
    kernel = matrix_tile_of(factors, form == "loops")
    call = ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * 4)(kernel.address)
    numbers = np.array(place, np.int64)
    mode = begin()
    call(len(of.rows), of.vectors, of.panels, numbers.ctypes.data)
    end(mode)
    guards.check()
    return c.copy()


def drawn(rng, rows, columns, k, vectors, **others):
    return Product(
        rng.standard_normal((rows, k)).astype(np.float32),
        rng.standard_normal((columns, k)).astype(np.float32),
        rng.standard_normal((rows, columns)).astype(np.float32),
        vectors,
        **others,
    )


def exact(factors, of):
    """The product of what the factors are, in float64; and of their magnitudes."""
    rows, columns, start = (x.astype(np.float64) for x in (of.rows, of.columns, of.start))
    if factors == "bfloat16":
        rows, columns = (numbers_of(bits_of(x)).astype(np.float64) for x in (of.rows, of.columns))
    return start + rows @ columns.T, np.abs(start) + np.abs(rows) @ np.abs(columns).T


def assert_near(factors, of, got):
    if factors == "int8":
        (rows, row_scale), (columns, column_scale) = integers_of(of.rows), integers_of(of.columns)
        sums = rows.astype(np.int64) @ columns.T.astype(np.int64)
        both = column_scale * row_scale[:, None]
        expected = (of.start + sums.astype(np.float64) * both).astype(np.float32)
        if MACHINE.fma:
            np.testing.assert_array_equal(got, expected)
        else:
            np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-5)
    else:
        expected, magnitude = exact(factors, of)
        assert (np.abs(got - expected) <= BOUNDS[factors] * magnitude).all()


SHAPES = [1, 2, 7, 15, 16, 17, 20, 31, 32, 33, 48, 50]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("late", [0, 1])
@pytest.mark.parametrize("factors", PARTS)
def test_products_are_those_of_float64_for_all_shapes(factors, late, form):
    rng = np.random.default_rng(0)
    for rows in SHAPES:
        for vectors in range(1, 5):
            for columns in (vectors * LANES, vectors * LANES - 1, (vectors - 1) * LANES + 1):
                for k in (1, 40, 130):
                    of = drawn(rng, rows, columns, k, vectors, late=late)
                    assert_near(factors, of, multiplied(factors, form, of))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("factors", PARTS)
def test_vectors_of_gates_lie_apart_and_panels_side_by_side(factors, form):
    rng = np.random.default_rng(1)
    for rows in (1, 17, 32):
        for gates in range(1, 5):
            for units in (LANES + 1, 2 * LANES):
                of = drawn(rng, rows, gates * units, 70, gates, panels=2, units=units)
                assert_near(factors, of, multiplied(factors, form, of))
        for columns in (4 * LANES + 1, 6 * LANES, 8 * LANES - 1):
            of = drawn(rng, rows, columns, 70, 4, panels=2)
            assert_near(factors, of, multiplied(factors, form, of))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("factors", PARTS)
def test_the_sums_of_all_rows_may_start_from_one(factors, form):
    rng = np.random.default_rng(2)
    for rows in SHAPES:
        of = drawn(rng, rows, 3 * LANES - 2, 40, 3)
        of = of._replace(start=of.start[:1].copy())
        every = of._replace(start=np.repeat(of.start, rows, 0))
        assert_same_bits([multiplied(factors, form, of)], [multiplied(factors, form, every)])


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("factors", PARTS)
def test_a_row_has_the_same_bits_whatever_rows_there_are_besides(factors, form):
    rng = np.random.default_rng(3)
    of = drawn(rng, 50, 4 * LANES, 200, 4)
    together = multiplied(factors, form, of)
    for rows in SHAPES:
        for first in (0, 50 - rows):
            some = slice(first, first + rows)
            part = of._replace(rows=of.rows[some].copy(), start=of.start[some].copy())
            assert_same_bits([multiplied(factors, form, part)], [together[some]])


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("factors", PARTS)
def test_what_lies_in_the_rows_past_the_last_one_reaches_no_result(factors, form):
    rng = np.random.default_rng(4)
    for rows in (1, 5, 16, 19, 31, 40):
        of = drawn(rng, rows, 2 * LANES, 100, 2)
        expected = multiplied(factors, form, of, junk=0)
        for junk in (0x7FC07FC0, 0x7F80FF80, 0x00010001, 0xFFFFFFFF):
            assert_same_bits([multiplied(factors, form, of, junk)], [expected])


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("factors", ["bfloat16", "bfloat16x2", "bfloat16x3"])
@np.errstate(invalid="ignore")
def test_what_is_no_number_stays_in_its_row(factors, form):
    rng = np.random.default_rng(5)
    of = drawn(rng, 20, 2 * LANES, 100, 2)
    expected = multiplied(factors, form, of)
    for row, value in ((0, np.nan), (17, np.inf)):
        of.rows[row, 33] = value
    got = multiplied(factors, form, of)
    others = [row for row in range(20) if row not in (0, 17)]
    assert not np.isfinite(got[[0, 17]]).any()
    assert_same_bits([got[others]], [expected[others]])


def by_fused_products(of):
    """A product summed over k in order, each product added in one rounding."""
    total = of.start.copy()
    for k in range(of.rows.shape[1]):
        product = of.rows[:, k, None].astype(np.float64) * of.columns[None, :, k]
        total = (total + product).astype(np.float32)
    return total


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("k", [64, 256, 1024])
def test_three_parts_are_no_less_exact_than_fused_products_of_floats(form, k):
    rng = np.random.default_rng(6)
    of = drawn(rng, 32, 4 * LANES, k, 4)
    expected, _ = exact("bfloat16x3", of)
    errors = [np.abs(got - expected) for got in (multiplied("bfloat16x3", form, of), by_fused_products(of))]
    for of_errors in (np.max, np.mean):
        assert of_errors(errors[0]) <= of_errors(errors[1])


@pytest.mark.skipif(DOTS.plain_tiles, reason="this process has no instructions for the matrix unit")
@pytest.mark.parametrize("factors", PARTS)
def test_instructions_and_plain_loops_have_the_same_bits(factors):
    rng = np.random.default_rng(7)
    for rows in SHAPES:
        of = drawn(rng, rows, 4 * LANES - 1, 130, 4, late=rows % 2)
        assert_same_bits([multiplied(factors, "loops", of)], [multiplied(factors, "instructions", of)])
