"""The matrix unit: its plain loops do what Intel's manual says, and its instructions, where they run, the same.

What a product of tiles is in bfloat16 is computed here in NumPy from the manual's text, rounding by rounding.
"""

import os
import re
import subprocess
import sys
from itertools import product

import numpy as np
import pytest
from helpers import assert_same_bits
from numba import njit

from numba_pack._jit import inner
from numba_pack.simd.lanes import lanes_of
from numba_pack.simd.machine import ARCHITECTURE, DOTS, MACHINE
from numba_pack.simd.memory import address
from numba_pack.simd.modes import put_back_mode, take_mode
from numba_pack.simd.tiles import (
    configure,
    dot_bfloat16,
    dot_int8,
    left_tile_load,
    register_file,
    release,
    tile_load,
    tile_store,
    tile_zero,
)

LANES = lanes_of(np.float32)
#: by what products are made here
FORMS = ["loops"] if DOTS.plain_tiles else ["loops", "instructions"]
TINY = np.finfo(np.float32).tiny


@inner
def add_product(file, dot, sums, rows, columns, zero):
    """Of the second sums, left and right tile, so that each register that is named is another one's neighbour."""
    configure(file)
    for n in range(4):
        tile_load(file, n, address(sums, 0), LANES * 4)
    if zero:
        tile_zero(file, 1)
    left_tile_load(file, 4, address(rows, 0), 0)
    left_tile_load(file, 5, address(rows, 0), 64)
    tile_load(file, 6, address(sums, 0), 0)
    tile_load(file, 7, address(columns, 0), LANES * 4)
    dot(file, 1, 5, 7)
    tile_store(file, 1, address(sums, 0), LANES * 4)
    release(file)


def made(dot):
    @njit
    def in_loops(sums, rows, columns, zero):
        mode = take_mode()
        add_product(register_file(), dot, sums, rows, columns, zero)
        put_back_mode(mode)

    @njit
    def by_instructions(sums, rows, columns, zero):
        add_product(None, dot, sums, rows, columns, zero)

    return {"loops": in_loops, "instructions": by_instructions}


PAIRS, BYTES = made(dot_bfloat16), made(dot_int8)


def multiplied(form, of, sums, rows, columns, zero=False):
    sums = sums.copy()
    of[form](sums, rows.view(np.uint32), columns.view(np.uint32), zero)
    return sums


def bfloat16(rng, *shape):
    """Random bits of bfloat16: numbers of all magnitudes, also denormal ones, infinities and NaN."""
    return rng.integers(0, 1 << 16, shape, np.uint16)


def near_one(rng, *shape):
    """Random bits of numbers from 1/16 to 16, of either sign."""
    return (rng.integers(123, 131, shape) << 7 | rng.integers(0, 128, shape) | rng.integers(0, 2, shape) << 15).astype(
        np.uint16
    )


def flushed(x):
    """Denormal numbers are zeros."""
    x = np.asarray(x, np.float32)
    return np.where(np.abs(x) < TINY, np.copysign(np.float32(0), x), x)


def widened(bits):
    return flushed((bits.astype(np.uint32) << 16).view(np.float32))


def fused(x, y, z):
    """x * y + z rounded once to float32, for x and y of so few digits that float64 holds their product.

    The sum of float64 is made odd where digits were lost, so that rounding it once more does not round twice.
    """
    product = x.astype(np.float64) * y
    total = product + z
    back = total - product
    lost = (product - (total - back)) + (z - back)
    even = (total.view(np.int64) & 1) == 0
    odd = np.where(lost * total > 0, total.view(np.int64) + 1, total.view(np.int64) - 1).view(np.float64)
    return flushed(np.where(np.isfinite(total) & (lost != 0) & even, odd, total))


def by_the_manual(sums, rows, columns):
    """sums (16, n) + rows (16, 32) @ columns (16, n, 2), bits of bfloat16."""
    halves = []
    for half in range(2):
        total = np.zeros_like(sums)
        for k in range(16):
            x, y = widened(rows[:, 2 * k + half])[:, None], widened(columns[k, :, half])[None]
            total = fused(x, np.broadcast_to(y, total.shape), total)
        halves.append(total)
    return flushed(flushed(sums) + flushed(halves[0] + halves[1]))


@pytest.mark.parametrize("zero", [False, True])
@pytest.mark.parametrize("draw", [near_one, bfloat16])
@pytest.mark.parametrize("form", FORMS)
@np.errstate(all="ignore")
def test_a_product_in_bfloat16_is_rounded_as_the_manual_says(form, draw, zero):
    rng = np.random.default_rng(0)
    for _ in range(20):
        rows, columns = draw(rng, 16, 32), draw(rng, 16, LANES, 2)
        sums = rng.standard_normal((16, LANES)).astype(np.float32)
        expected = by_the_manual(np.zeros_like(sums) if zero else sums, rows, columns)
        got = multiplied(form, PAIRS, sums, rows, columns, zero)
        if not MACHINE.fma and form == "loops":  # products that overflow, or that are denormal, are rounded first
            assert draw is bfloat16 or (got == expected).all()
        else:
            np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("form", FORMS)
@np.errstate(all="ignore")
def test_denormal_numbers_are_zeros(form):
    one, denormal, least = (np.float32(x).view(np.uint32) >> 16 for x in (1, TINY / 2, TINY))
    rows, columns = np.zeros((16, 32), np.uint16), np.full((16, LANES, 2), one, np.uint16)
    sums = np.zeros((16, LANES), np.float32)
    rows[0, 0] = denormal
    rows[1, 0] = least
    got = multiplied(form, PAIRS, sums, rows, columns)
    assert (got[0] == 0).all() and (got[1] == TINY).all()
    got = multiplied(form, PAIRS, sums - TINY / 2, rows, columns)
    assert (got[0] == 0).all() and (got[1] == TINY).all()
    got = multiplied(form, PAIRS, sums - TINY * np.float32(1.5), rows, columns)
    assert (got[1] == 0).all(), "a sum is taken for zero, too"


@pytest.mark.parametrize("form", FORMS)
def test_what_is_no_number_stays_in_its_row(form):
    rng = np.random.default_rng(1)
    rows, columns = near_one(rng, 16, 32), near_one(rng, 16, LANES, 2)
    sums = rng.standard_normal((16, LANES)).astype(np.float32)
    expected = multiplied(form, PAIRS, sums, rows, columns)
    for row, bits in enumerate((0x7FC0, 0x7F80, 0xFF80)):
        rows[row, 3 + row] = bits
    got = multiplied(form, PAIRS, sums, rows, columns)
    assert not np.isfinite(got[:3]).any()
    assert_same_bits([got[3:]], [expected[3:]])


@pytest.mark.parametrize("zero", [False, True])
@pytest.mark.parametrize("form", FORMS)
def test_a_product_of_integers_is_exact_of_numbers_without_a_sign_and_with_one(form, zero):
    rng = np.random.default_rng(2)
    for _ in range(20):
        rows, columns = rng.integers(0, 256, (16, 64), np.uint8), rng.integers(-128, 128, (16, LANES, 4), np.int8)
        sums = rng.integers(-1 << 29, 1 << 29, (16, LANES), np.int32)
        expected = sums * (not zero) + np.einsum("rkb,kcb->rc", rows.reshape(16, 16, 4).astype(np.int32), columns)
        np.testing.assert_array_equal(multiplied(form, BYTES, sums, rows, columns, zero), expected)


@inner
def move(file, n, source, source_step, target, target_step):
    configure(file)
    tile_load(file, n, source, source_step)
    tile_store(file, n, target, target_step)
    release(file)


@njit
def moved_in_loops(n, source, source_step, target, target_step):
    move(register_file(), n, address(source, 0), source_step, address(target, 0), target_step)


@njit
def moved_by_instructions(n, source, source_step, target, target_step):
    move(None, n, address(source, 0), source_step, address(target, 0), target_step)


@pytest.mark.parametrize("n", range(8))
@pytest.mark.parametrize("form", FORMS)
def test_rows_lie_as_far_apart_as_one_says_and_nothing_between_them_is_written(form, n):
    moved = {"loops": moved_in_loops, "instructions": moved_by_instructions}[form]
    source = np.random.default_rng(3).standard_normal((16, LANES + 5)).astype(np.float32)
    for step in (LANES + 5, 0):
        target = np.full((17, LANES + 3), 7, np.float32)
        moved(n, source, step * 4, target, (LANES + 3) * 4)
        expected = np.full_like(target, 7)
        expected[:16, :LANES] = source[:, :LANES] if step else source[:1, :LANES]
        assert_same_bits([target], [expected])


# Compiled for a processor that has the unit, whether or not this one has, and not run.
SCRIPT = """
from numba import types
from numba_pack import _cache
from numba_pack._jit import by_address
from numba_pack.cpu.matrix_tile import matrix_tile_of
from numba_pack.simd.tiles import configure, release

_cache.PLACES.clear()  # what comes from there has no assembly

@by_address(types.void(types.intp))
def shaped(at):
    configure(None)
    release(None)

for made in (*[matrix_tile_of(factors, False) for factors in ("bfloat16", "bfloat16x3", "int8")], shaped):
    print("== kernel")
    print(made._library.get_asm_str())
"""


@pytest.fixture(scope="module")
def assembly():
    """The instructions of the functions that are made of the unit's, by the name of a kernel."""
    environment = {**os.environ, "NUMBA_CPU_NAME": "sapphirerapids", "NUMBA_CPU_FEATURES": ""}
    environment |= {"NUMBA_PACK_DOTS": "", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    kernels = done.stdout.split("== kernel")[1:]
    functions = [[f for f in re.split(r"\.Lfunc_end", kernel) if "\ttile" in f or "cfg" in f] for kernel in kernels]
    return dict(zip(("bfloat16", "bfloat16x3", "int8", "shape"), functions, strict=True))


with_the_unit = pytest.mark.skipif(
    ARCHITECTURE != "x86_64" or sys.platform != "linux", reason="the unit is used on x86-64 with Linux alone"
)


@with_the_unit
@pytest.mark.parametrize("kernel, name", [("bfloat16", "tdpbf16ps"), ("bfloat16x3", "tdpbf16ps"), ("int8", "tdpbusd")])
def test_kernels_are_made_of_the_unit_s_instructions_and_call_nothing(assembly, kernel, name):
    (function,) = assembly[kernel]
    found = set(re.findall(r"\t(tdp\w+|tile\w+|call\w*|\w*tilecfg)\t", function))
    assert found == {name, "tileloadd", "tilestored"} | ({"tilezero"} if kernel != "int8" else set())
    # two tiles of rows times two of columns, one times four, and two times three
    four = {(w, a, c) for w, a, c in product((6, 7), (4, 5), range(4)) if c % 2 == w % 2 and (a == 4 or c >= 2)}
    used = four | {(7, 6, c) for c in range(6)}
    assert set(re.findall(rf"\t{name}\t(.*)", function)) == {f"%tmm{w}, %tmm{a}, %tmm{c}" for w, a, c in used}


@with_the_unit
def test_a_kernel_shapes_the_registers_and_lets_go_of_them(assembly):
    (function,) = assembly["shape"]
    assert re.findall(r"\t(ldtilecfg|tilerelease|call\w*)", function) == ["ldtilecfg", "tilerelease"]
