"""How blocks divide a scan: every row and unit of a step is some block's, and a block has what it needs.

Needs numba-cuda, but no device: ``pip install -e '.[cuda]'``.
"""

import os
from importlib.util import find_spec

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytestmark = pytest.mark.skipif(
    find_spec("numba_cuda") is None or "NUMBA_ENABLE_CUDASIM" in os.environ, reason="numba-cuda is not installed"
)

#: bytes of shared memory of a block: what every device has, and what an H200 gives
LIMITS = st.sampled_from([48 << 10, 232448])


@st.composite
def scans(draw):
    from numba_pack.cells.cell import MOST_GATES
    from numba_pack.cuda.step import back_tile, forward_tile

    dtype = np.dtype(draw(st.sampled_from(["f4", "f8"])))
    gates, units = draw(st.integers(0, MOST_GATES)), draw(st.integers(1, 3000))
    if draw(st.booleans()):
        return back_tile(dtype), units, gates * units, dtype
    return forward_tile(gates, dtype), units, units if gates else 0, dtype


@given(scans(), st.integers(1, 600), st.integers(0, 132), LIMITS)
def test_blocks_have_all_units_and_rows_and_fit_the_device(scan, rows, multiprocessors, limit):
    from numba_pack.cuda.shape import chosen
    from numba_pack.cuda.step import UNITS, WARPS

    tile, units, terms, dtype = scan
    for forms in (("resident", "streaming"), ("streaming",), ()):
        most = tuple((form, multiprocessors) for form in forms)
        shape = chosen(most, limit, tile, units, terms, rows, dtype)
        assert shape.grid[0] * shape.strips * UNITS >= units > (shape.grid[0] - 1) * shape.strips * UNITS
        assert 1 <= shape.grid[1] <= rows
        assert shape.capacity % tile.rows == 0 and shape.piece % tile.span == 0
        assert shape.capacity // tile.rows <= WARPS
        assert shape.bytes <= limit
        assert shape.form == "stepwise" or shape.grid[0] * shape.grid[1] <= multiprocessors


def test_weights_stay_on_a_large_device_where_they_fit_and_are_read_anew_where_they_do_not():
    from numba_pack.cuda.shape import chosen
    from numba_pack.cuda.step import forward_tile

    tile, of_h200 = forward_tile(4, np.dtype("f4")), ((("resident", 132), ("streaming", 132)), 232448)
    forms = {H: chosen(*of_h200, tile, H, H, 64, np.dtype("f4")).form for H in (64, 512, 1024, 2048)}
    assert forms == {64: "resident", 512: "resident", 1024: "resident", 2048: "streaming"}
    assert chosen((("resident", 0), ("streaming", 0)), 232448, tile, 512, 512, 64, np.dtype("f4")).form == "stepwise"


def test_a_group_of_one_block_waits_for_nobody():
    from numba_pack.cuda.shape import chosen
    from numba_pack.cuda.step import forward_tile

    tile = forward_tile(4, np.dtype("f4"))
    assert chosen((("resident", 132),), 232448, tile, 32, 32, 64, np.dtype("f4")).grid == (1, 64)
