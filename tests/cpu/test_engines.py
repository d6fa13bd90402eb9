"""The tests of short factors, once more with each engine that this machine can run but would not choose.

``amx_plain`` is the kernels of the matrix unit, with plain loops in place of its instructions.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from numba_pack.simd.machine import DOTS, MACHINE

TESTS = Path(__file__).parents[1]
IS_PLAIN = DOTS.bfloat16 == "amx" and DOTS.plain_tiles
OTHERS = [
    *["widened"] * (DOTS.int8 != "widened"),
    *["amx_plain"] * (MACHINE.register_bytes == 64 and not IS_PLAIN),
]


@pytest.mark.slow
@pytest.mark.parametrize("engine", OTHERS)
def test_another_engine_passes_the_same_tests(engine):
    files = [TESTS / "cpu/test_factors.py", TESTS / "layers/test_precision_bits.py"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", *files],
        env={**os.environ, "NUMBA_PACK_DOTS": engine}, cwd=TESTS.parent, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
