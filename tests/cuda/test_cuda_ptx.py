"""Every kernel of the CUDA backend, compiled for two generations of devices without one: the simulator checks no types.

Needs numba-cuda with its compiler: ``pip install 'numba_pack[cuda]'``.
"""

import os
import re
from importlib.util import find_spec

import pytest

pytestmark = pytest.mark.skipif(
    find_spec("numba_cuda") is None or "NUMBA_ENABLE_CUDASIM" in os.environ, reason="numba-cuda is not installed"
)

#: registers of a thread: the largest block of a scan, 256 threads, must fit into the 65536 of a multiprocessor
MOST_REGISTERS = 255
#: of the 48 KiB that a block has; scans ask for theirs at the launch, and see to it that it fits
MOST_SHARED = 32 << 10
#: one of each form: with a product with the state, with two products one after the other, and without any
QUICK = {"LSTM", "GRUResetBefore", "MinGRU"}


def kernels():
    if find_spec("numba_cuda") is None:
        return
    from numba_pack.cuda.resources import CELLS, every_kernel

    others, more = {cell.name for cell in CELLS} - QUICK, {"GRU", "PeepholeLSTM", "SLSTM", "RGLRU"}
    for name, dtype, kernel in every_kernel():
        for architecture in ((8, 0), (9, 0)):
            of_another, newest = name.split()[0] in others, architecture == (9, 0) and dtype != "f8"
            if of_another and not (newest and name.split()[0] in more):  # `numba_pack.cuda.resources` does them all
                continue
            plain = newest and not of_another
            marks = [] if plain else [pytest.mark.slow]
            yield pytest.param(
                dtype, kernel, architecture, id=f"{name}-{dtype}-sm_{architecture[0]}{architecture[1]}", marks=marks
            )


@pytest.mark.parametrize(("dtype", "kernel", "architecture"), list(kernels()))
def test_a_kernel_compiles_in_its_dtype_within_registers_and_shared_memory(dtype, kernel, architecture):
    from numba_pack.cuda.resources import find_ptxas, ptx_of, resources_of

    ptx = ptx_of(kernel, architecture)
    assert ".entry" in ptx and f".target sm_{architecture[0]}{architecture[1]}" in ptx
    if dtype != "f8":
        assert not re.findall(r"\S*\.f64\S*", ptx)
    calls = set(re.findall(r"^\s*call\S*\s+(?:\([^)]*\),\s*)?(\w+)", ptx, re.MULTILINE))
    assert calls <= {"cudaCGGetIntrinsicHandle", "cudaCGSynchronize"}  # all else is inlined
    if find_ptxas() is not None:
        used = resources_of(ptx, architecture, find_ptxas())
        assert used.stack == used.spilled == 0
        assert 0 < used.registers <= MOST_REGISTERS
        assert used.shared <= MOST_SHARED


def test_a_step_of_as_many_gates_as_a_cell_may_have_fits_into_a_block():
    from numba_pack.cells.cell import MOST_GATES
    from numba_pack.cuda.scan import SHARED_BYTES, shape_of

    for gates in range(MOST_GATES + 1):
        shape = shape_of(None, 1024, gates, 1024 if gates else 0, 64, 8)
        assert shape.bytes <= SHARED_BYTES and shape.grid[0] * shape.units == 1024
