"""The CUDA backend: the same tests on the CPU, in Numba's simulator, and on a device where there is one."""

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PARITY, DEVICE = ROOT / "tests" / "parity.py", ROOT / "tests" / "device.py"
BENCHMARK = "-m", "bench.compare.gpu"
BACKENDS = {
    "cpu": {"NUMBA_PACK_BACKEND": "cpu"},
    "simulator": {"NUMBA_PACK_BACKEND": "cuda", "NUMBA_ENABLE_CUDASIM": "1"},
    "device": {"NUMBA_PACK_BACKEND": "auto"},
}


def run(backend, *arguments):
    """A new process in which the backend is chosen as its users would."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("NUMBA_")}
    environment |= BACKENDS[backend] | {"NUMBA_PACK_TESTED_BACKEND": "cpu" if backend == "cpu" else "cuda"}
    command = [sys.executable, *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT)


@pytest.mark.parametrize("backend", ["cpu", pytest.param("simulator", marks=pytest.mark.slow), "device"])
def test_every_backend_does_the_same(backend):
    result = run(backend, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(PARITY))
    assert result.returncode == 0, result.stdout + result.stderr
    passed = re.search(r"(\d+) passed", result.stdout)
    if passed is None:
        pytest.skip("no device")
    assert int(passed[1]) > 30


@pytest.mark.slow
def test_a_device_does_the_same_in_real_sizes():
    result = run("device", "-m", "pytest", "-q", "--capture=sys", "-p", "no:cacheprovider", str(DEVICE))
    if "passed" not in result.stdout and "failed" not in result.stdout and "skipped" in result.stdout:
        pytest.skip("no device")
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize("backend", ["cpu", "simulator"])
def test_real_sizes_are_for_a_device_alone(backend):
    result = run(backend, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--collect-only", str(DEVICE))
    assert "no tests collected" in result.stdout, result.stdout + result.stderr


def say(code, **environment):
    """What a new process prints that imports the package under other settings, and its errors."""
    settings = {name: value for name, value in os.environ.items() if not name.startswith("NUMBA_")} | environment
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=settings)


WHICH = (
    "import sys, numba_pack; print(numba_pack.backend, 'numba_pack.cuda' in sys.modules, 'numba.cuda' in sys.modules)"
)


@pytest.mark.parametrize("asked", ["auto", "cpu"])
def test_the_cpu_is_the_backend_where_there_is_no_device_and_cuda_is_not_imported(asked):
    result = say(WHICH, NUMBA_PACK_BACKEND=asked, CUDA_VISIBLE_DEVICES="-1")
    assert result.stdout == "cpu False False\n", result.stderr


def test_asking_for_cuda_says_at_import_what_is_missing():
    result = say("import numba_pack", NUMBA_PACK_BACKEND="cuda", CUDA_VISIBLE_DEVICES="-1")
    missing = "a GPU" if find_spec("numba_cuda") else "numba-cuda: pip install 'numba-cuda[cu13]' cupy-cuda13x"
    assert f"ImportError: NUMBA_PACK_BACKEND=cuda needs {missing}" in result.stderr


@pytest.mark.skipif(find_spec("numba_cuda") is None, reason="numba-cuda is not installed")
@pytest.mark.parametrize("asked", ["auto", "cuda"])
def test_a_numba_cuda_that_does_not_run_with_this_numpy_is_not_taken(asked):
    code = "import numpy, numba.np.arrayobj, scipy.special; vars(numpy).pop('row_stack', None)"
    code += "; import importlib.metadata as m; m.version = lambda name: '0.30.4'"
    result = say(f"{code}; {WHICH}", NUMBA_PACK_BACKEND=asked)
    if asked == "auto":
        assert result.stdout == "cpu False False\n", result.stderr
    else:
        assert "ImportError: NUMBA_PACK_BACKEND=cuda needs NumPy before 2.5, or a numba-cuda that" in result.stderr


def test_the_simulator_is_not_taken_for_a_device():
    result = say("import numba_pack; print(numba_pack.backend)", NUMBA_ENABLE_CUDASIM="1")
    assert result.stdout == "cpu\n", result.stderr


def test_the_report_tells_the_device():
    result = say("import numba_pack.__main__ as m; m.main()", **BACKENDS["simulator"])
    rows = {line[:15].strip(): line[16:] for line in result.stdout.splitlines()}
    assert (rows["backend"], rows["device"]) == ("cuda", "none: Numba's simulator of CUDA"), result.stderr


def test_the_benchmark_says_that_there_is_no_device():
    result = run("cpu", *BENCHMARK)
    assert result.returncode != 0
    assert "There is no device here" in result.stderr


@pytest.mark.slow
def test_the_benchmark_runs_in_the_simulator(tmp_path):
    result = run("simulator", *BENCHMARK, "--tiny", "--rounds", "1", "--output", str(tmp_path))
    assert result.returncode == 0, result.stderr
    report = (tmp_path / "gpu.md").read_text()
    assert "Numba's simulator" in report
    assert report.count("| LSTM-B3-H3-lognormal-T4 |") == 2  # forward, and forward and backward


FAKES = """
from bench.tools import environment
environment.prepare()
import numpy as np
from contextlib import nullcontext
from bench.compare import gpu
from bench.tools.workloads import Workload

class Fake:
    precision = nullcontext

    def __init__(self, value):
        self.value = value

    def run(self):
        if self.value is None:
            raise RuntimeError("no kernel")
        return lambda: np.full(3, self.value, np.float32)

    def milliseconds(self, calls):
        self.run()
        return 4.0 * calls

def absent(problem, training):
    raise environment.Unavailable("it is not here")

def measured(*values):
    gpu.CONTENDERS = {
        name: absent if value == "absent" else lambda problem, training, value=value: Fake(value)
        for name, value in zip(gpu.CONTENDERS, values, strict=True)
    }
    row = gpu.measure(Workload("LSTM", 1, 3, T=4), False, 0.0, 15)
    print(row["rounds"], list(row["median"].values()), list(row["left_out"].values()))

measured(1.0, 1.0, 7.0, "absent", None)
measured(1.0, 1.5, 1.0, 1.0, float("nan"))
measured(None, 1.0, "absent", "absent", "absent")
"""


def test_the_benchmark_goes_on_without_contenders_that_fail_or_are_wrong():
    result = subprocess.run([sys.executable, "-c", FAKES], capture_output=True, text=True, cwd=ROOT)
    assert result.stdout.splitlines() == [
        "3 [4.0, 4.0, 4.0] ['it is not here', 'RuntimeError: no kernel']",
        "3 [4.0, 4.0, 4.0, 4.0] ['it differs by 5.0e-01, more than 4.1e-05']",
        "3 [4.0] ['RuntimeError: no kernel', 'it is not here', 'it is not here', 'it is not here']",
    ], result.stderr


def test_the_benchmark_judges_and_draws_made_up_times(tmp_path):
    pytest.importorskip("matplotlib")
    code = f"""
import pathlib
from bench.tools import environment
environment.prepare()
from bench.compare import gpu
rows = [
    {{"id": f"LSTM-B1-H{{H}}", "H": H, "training": training, "N": 9, "left_out": {{}},
      "median": {{gpu.OURS: 2.0, gpu.PACKED: 2.0 * H / 64, "PyTorch padded, float32": 3.0}}}}
    for H in (64, 256) for training in (False, True)
]
rows[-1] |= {{"id": "LSTM-B1-H9", "median": {{gpu.PACKED: 1.0}}, "left_out": {{gpu.OURS: "MemoryError: no room"}}}}
results = {{"device": "made up", "versions": "", "rows": rows}}
print(gpu.told(rows[0]), gpu.told(rows[-1]), sep="\\n")
print(gpu.report(results))
assert gpu.draw(results, pathlib.Path({str(tmp_path)!r}) / "gpu.png")
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert result.returncode == 0, result.stderr
    for line in (
        "LSTM-B1-H64 forward: 2 ms; 1.00 PyTorch packed, float32; 1.50 PyTorch padded, float32",
        "LSTM-B1-H9 forward and backward: nan ms; without numba_pack: MemoryError: no room",
        "| LSTM-B1-H256 | 9 | 2 | 4.00 | - | 1.50 | - |",
        "| LSTM-B1-H9 | 9 | - | - | - | - | - |",
        "Against PyTorch packed, float32: 1.00 at worst where H <= 512 (aim: 1.0), "
        "2.00 in the geometric mean (aim: 1.5).",
        "numba_pack took no part in LSTM-B1-H9: MemoryError: no room.",
    ):
        assert line in result.stdout.splitlines()
    assert (tmp_path / "gpu.png").stat().st_size > 0
