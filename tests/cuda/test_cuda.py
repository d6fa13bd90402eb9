"""The CUDA backend: the same tests on the CPU, in Numba's simulator, and on a device where there is one."""

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PARITY = ROOT / "tests" / "parity.py"
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
    missing = "a GPU" if find_spec("numba_cuda") else "numba-cuda: pip install 'numba_pack[cuda]'"
    assert f"ImportError: NUMBA_PACK_BACKEND=cuda needs {missing}" in result.stderr


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


def test_the_benchmark_judges_and_draws_made_up_times(tmp_path):
    pytest.importorskip("matplotlib")
    code = f"""
import pathlib
from bench.tools import environment
environment.prepare()
from bench.compare import gpu
rows = [
    {{"id": f"LSTM-B1-H{{H}}", "H": H, "training": training, "N": 9, "left_out": {{}},
      "median": {{"numba_pack": 2.0, "PyTorch packed": 2.0 * H / 64, "PyTorch padded": 3.0}}}}
    for H in (64, 256) for training in (False, True)
]
results = {{"device": "made up", "versions": "", "rows": rows}}
print(gpu.report(results))
assert gpu.draw(results, pathlib.Path({str(tmp_path)!r}) / "gpu.png")
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert result.returncode == 0, result.stderr
    assert "| LSTM-B1-H256 | 9 | 2 | 4.00 | - | 1.50 | - |" in result.stdout
    assert (
        "Against PyTorch packed: 1.00 at worst where H <= 512 (aim: 1.0), 2.00 in the geometric mean" in result.stdout
    )
    assert (tmp_path / "gpu.png").stat().st_size > 0
