"""Inference needs little memory beyond its input and output, whatever the length of the batch."""

import subprocess
import sys

import pytest

# Peak resident memory is of a whole process, so each case has its own. What the first, small call brings in (compiled
# code, thread stacks) is there before the measurement begins.
SCRIPT = """
import resource, sys
import numpy as np
import numba_pack as nbp

B, T, I, H, layers, directions = map(int, sys.argv[1:])
layer = nbp.LSTM(I, H, num_layers=layers, bidirectional=directions == 2, rng=0)
layer(np.zeros((8, 64, I), np.float32))
data = np.zeros((T * B, I), np.float32)
data += 1.0
packed = nbp.PackedSequence(data, np.full(T, B), np.arange(B), np.arange(B))
output_bytes = T * B * directions * H * 4 + 2 * layers * directions * B * H * 4
unit = 1 if sys.platform == "darwin" else 1024
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
before = peak()
layer(packed)
print((peak() - before - output_bytes) / 2**20)
"""
CASES = {
    "long": (32, 4000, 16, 64, 1, 1),
    "wide": (4096, 12, 16, 512, 1, 1),
    "two-layers": (32, 2000, 16, 64, 2, 1),
    "three-layers-one-long-sequence": (1, 100_000, 16, 64, 3, 1),
    "three-layers-both-directions": (64, 1600, 16, 64, 3, 2),
    "two-layers-both-directions": (64, 1600, 16, 64, 2, 2),
}


#: what these show, the others show each in part
SLOW = ("two-layers", "three-layers-one-long-sequence", "two-layers-both-directions")


@pytest.mark.skipif(sys.platform == "win32", reason="the resource module, which tells the peak, is of POSIX")
@pytest.mark.parametrize(
    "case",
    [pytest.param(case, id=name, marks=[pytest.mark.slow] * (name in SLOW)) for name, case in CASES.items()],
)
def test_inference_uses_less_than_32_mb_beyond_input_and_output(case):
    command = [sys.executable, "-c", SCRIPT, *map(str, case)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert float(result.stdout) < 32
