"""The engine on processors other than this one: Numba is told to compile for them, in processes of their own."""

import os
import subprocess
import sys
from pathlib import Path

import llvmlite.binding as llvm
import numpy as np
import pytest

from numba_pack.simd.lanes import lanes_of
from numba_pack.simd.machine import MACHINE

SCRIPT = Path(__file__).parents[1] / "check_machine.py"
#: name: Numba's CPU name and features, and the bytes of a vector register that the engine should find there
MACHINES = {
    "avx2": ("haswell", "+avx2,+fma,+bmi2", 32),
    "portable": ("generic", "", 16),
}


def runs_here(name):
    features = llvm.get_host_cpu_features()
    return name != "avx2" or all(features.get(feature, False) for feature in ("avx2", "fma", "bmi2"))


@pytest.fixture(scope="module")
def processes():
    """All checks on all machines, started at once, since they take their time to compile."""
    started = {}
    for name, (cpu, features, _) in MACHINES.items():
        if runs_here(name):
            environment = {**os.environ, "NUMBA_CPU_NAME": cpu, "NUMBA_CPU_FEATURES": features}
            environment["PYTHONPATH"] = os.pathsep.join([str(SCRIPT.parent.parent), *sys.path])
            for check in ("layers", "noise", "onnx", "activations"):
                started[name, check] = subprocess.Popen(
                    [sys.executable, SCRIPT, check],
                    env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                )  # fmt: skip
    yield started
    for process in started.values():
        process.kill()
        process.communicate()


@pytest.mark.slow
@pytest.mark.parametrize("check", ["layers", "noise", "onnx", "activations"])
@pytest.mark.parametrize("name", MACHINES)
def test_results_are_right_on_other_processors(processes, name, check):
    if not runs_here(name):
        pytest.skip(f"this processor cannot run code for {name}")
    output, errors = processes[name, check].communicate(timeout=600)
    assert output.split() == [str(MACHINES[name][2]), "ok"], errors


def test_the_widest_registers_of_this_processor_are_used():
    if os.environ.get("NUMBA_CPU_NAME"):
        pytest.skip("Numba is told to compile for another processor")
    features = llvm.get_host_cpu_features()
    wide = features.get("avx2", False) and features.get("fma", False)
    expected = 64 if features.get("avx512f", False) else 32 if wide else 16
    assert MACHINE.register_bytes == expected
    assert lanes_of(np.float32) == expected // 4
    assert lanes_of(np.float64) == expected // 8
