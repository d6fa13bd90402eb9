"""Every kernel of the CUDA backend, compiled for two generations of devices without one: the simulator checks no types.

Needs numba-cuda with its compiler: ``pip install -e '.[cuda]'``.
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
#: bytes that a thread may have of memory in place of registers, which the scans read outside of their loops over terms:
#: none where they are tuned for, some in float64, more on the generation before
MOST_SPILLED = {((9, 0), 4): 0, ((9, 0), 8): 64, ((8, 0), 4): 512, ((8, 0), 8): 512}
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
    assert not re.findall(r"^\s*call\S*\s+(?:\([^)]*\),\s*)?(\w+)", ptx, re.MULTILINE)  # all is inlined
    if find_ptxas() is not None:
        used = resources_of(ptx, architecture, find_ptxas())
        assert max(used.stack, used.spilled) <= MOST_SPILLED.get((architecture, dtype.itemsize), 0)
        assert 0 < used.registers <= MOST_REGISTERS
        assert used.shared <= MOST_SHARED
