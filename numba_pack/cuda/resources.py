"""Every kernel, and what compiling each gives: ``python -m numba_pack.cuda.resources`` prints it.

No device is needed. The kernels are compiled to PTX by NVVM, which comes with numba-cuda; their registers, spills and
shared memory are told by ``ptxas``, if it is there (``pip install nvidia-cuda-nvcc``, or the CUDA toolkit).
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import numpy as np
from numba import cuda

from .. import cells
from ..cells.cell import Cell
from . import arrays, products, rows, scan, scan_back, step
from .device import Kernel
from .scan import is_linear
from .tile import TILES, product_kernel

__all__ = ["Resources", "every_kernel", "find_ptxas", "kernels_of", "ptx_of", "resources_of"]

ARCHITECTURES = ((8, 0), (9, 0))
#: all that are published here
CELLS: list[Cell] = [getattr(cells, name) for name in cells.__all__ if isinstance(getattr(cells, name), Cell)]
DTYPES = (np.dtype(np.float32), np.dtype(np.float64))


def every_kernel() -> Iterator[tuple[str, np.dtype, Kernel]]:
    """All kernels in all their specialisations: a name, the dtype, and the kernel."""
    for dtype in DTYPES:
        for tile in TILES[dtype]:
            for a, b in ((False, False), (False, True), (True, False)):
                name = f"product {'A.T' if a else 'A'} {'B.T' if b else 'B'} {tile.size}"
                yield name, dtype, product_kernel(dtype, tile, a, b)
        for factory in (
            products.add_parts_kernel, products.column_sums_kernel, rows.drop_kernel, rows.last_states_kernel,
            rows.states_before_kernel, rows.one_hot_kernel,
        ):  # fmt: skip
            kernel = factory(dtype)
            yield kernel.function.py_func.__name__.replace("_", " "), dtype, kernel
        for back in (False, True):
            yield f"pack weights{' back' if back else ''}", dtype, step.pack_kernel(dtype, back)
        for cell in CELLS:
            for form, kernel in kernels_of(cell, dtype):
                yield f"{cell.name} {form}", dtype, kernel
    for size in (1, 2, 4, 8):
        word = np.dtype(f"u{size}")
        yield "fill", word, arrays.fill_kernel(word)
        yield "move", word, arrays.move_kernel(word)


def kernels_of(cell: Cell, dtype: np.dtype) -> Iterator[tuple[str, Kernel]]:
    """The kernels that a cell has of its own, by name."""
    may_project = not cell.reads_h and not cell.has_product
    if not is_linear(cell) or may_project:
        yield "scan", scan.scan_kernel(cell, dtype, "stepwise")
    if not is_linear(cell) and not cell.has_product:
        yield "scan resident", scan.scan_kernel(cell, dtype, "resident")
        yield "scan back", scan_back.scan_back_kernel(cell, dtype, "stepwise")
        yield "scan back resident", scan_back.scan_back_kernel(cell, dtype, "resident")
    else:
        yield "cell", scan.cell_kernel(cell, dtype)
        yield "cell back", scan_back.cell_back_kernel(cell, dtype, False)
    if cell.has_product or may_project:
        yield "scan back cut", scan_back.scan_back_kernel(cell, dtype, "cut")
    if cell.has_product:
        yield "product back", scan_back.product_back_kernel(cell, dtype)
    if may_project:
        yield "cell back projected", scan_back.cell_back_kernel(cell, dtype, True)


def ptx_of(kernel: Kernel, architecture: tuple[int, int]) -> str:
    """The kernel's PTX for a compute capability."""
    # numba-cuda asks the current device for its compute capability when it compiles a function that a kernel calls
    device = mock.Mock(compute_capability=architecture)
    with mock.patch("numba.cuda.dispatcher.get_current_device", return_value=device):
        bounds = kernel.function.targetoptions.get("launch_bounds")
        ptx, _ = cuda.compile_ptx(kernel.function.py_func, kernel.signature, cc=architecture, launch_bounds=bounds)
    return str(ptx)


class Resources(NamedTuple):
    """What a thread, or a block, of a compiled kernel uses; bytes but for the registers."""

    registers: int
    stack: int
    spilled: int
    #: beyond what is asked for at the launch
    shared: int


def find_ptxas() -> str | None:
    """The assembler of PTX: that of the wheel, or of an installed toolkit."""
    places = find_spec("nvidia")
    for folder in places.submodule_search_locations or () if places else ():
        for found in sorted(Path(folder).glob("**/bin/ptxas*")):
            return str(found)
    return shutil.which("ptxas")


def resources_of(ptx: str, architecture: tuple[int, int], ptxas: str) -> Resources:
    """What the assembler says of a kernel."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "kernel.ptx"
        source.write_text(ptx)
        arch = f"-arch=sm_{architecture[0]}{architecture[1]}"
        # a relocatable object: the barrier of the grid is a function of a library
        command = [ptxas, "-v", arch, "-c", str(source), "-o", str(source.with_suffix(".o"))]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stderr

    def total(pattern: str, text: str) -> int:
        return sum(map(int, re.findall(pattern, text)))

    return Resources(
        total(r"Used (\d+) registers", said),
        total(r"(\d+) bytes stack frame", said),
        total(r"(\d+) bytes spill stores", said),
        total(r"\.shared .*\[(\d+)\];", ptx),
    )


def main() -> None:
    """Print a table of all kernels."""
    ptxas = find_ptxas()
    if ptxas is None:
        sys.exit("ptxas is not here: pip install nvidia-cuda-nvcc, or the CUDA toolkit")
    print(f"{'kernel':36} {'dtype':8} {'for':6} {'registers':>9} {'spilled':>8} {'shared':>8}")
    for name, dtype, kernel in every_kernel():
        for architecture in ARCHITECTURES:
            used = resources_of(ptx_of(kernel, architecture), architecture, ptxas)
            arch = f"sm_{architecture[0]}{architecture[1]}"
            print(f"{name:36} {dtype.name:8} {arch:6} {used.registers:9} {used.spilled:8} {used.shared:8}")


if __name__ == "__main__":
    main()
