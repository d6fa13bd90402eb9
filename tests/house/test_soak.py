"""The soaks of `bench/alone` for some seconds: memory stands still, bits are equal, and it would tell if not."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
SCRIPT = """
import sys
from bench.tools.environment import prepare
prepare(threads=2)
from bench.alone import soak, soak_serving
import numpy as np

tasks = soak.make_tasks(np.random.default_rng(0))[:60]
kept, calls = [], iter(range(10**9))

def leak():
    kept.append(np.ones(2**15))
    return kept[-1]

def bits():
    return np.array([float(next(calls) > 0)])  # another number from the second call on

def error():
    return np.ones(1 if next(calls) < 1 else -1)

wrong = [soak.Task({what!r}, {what})] * 60 if {what!r} != "nothing" else []
soak.soak(tasks, calls=4000, threads=4)  # until the allocator has its room and the workspace its buffers
right = soak.part("one thread", tasks + wrong, calls=2000)
if {what!r} == "nothing":
    right &= soak.part("four threads", tasks, threads=4, calls=4000)
    served = soak_serving.make_requests(np.random.default_rng(0)) + soak_serving.make_streams(np.random.default_rng(1))
    soak.soak(served, calls=4000, threads=8)
    right &= soak.part("requests and streams", served, threads=8, calls=8000)
sys.exit(0 if right else 3)
"""


def run(what):
    code = SCRIPT.format(what=what)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, sys.path)])}
    return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=600)


def test_memory_stands_still_and_bits_are_equal_over_calls_of_all_kinds():
    process = run("nothing")
    assert process.returncode == 0, process.stdout + process.stderr


@pytest.mark.parametrize("what", ["leak", "bits", "error"])
def test_a_leak_other_bits_and_an_error_are_told(what):
    process = run(what)
    assert process.returncode == 3, process.stdout + process.stderr
