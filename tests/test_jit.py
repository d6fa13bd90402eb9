"""Users' compiled functions out of a disk cache: other processes and other sources have other kernels, elsewhere."""

import os
import shutil
import subprocess
import sys

import pytest

import numba_pack

PACKAGE = os.path.dirname(numba_pack.__file__)

#: a user's module, whose functions have the weights as an argument, as a global variable, and in a closure
USER = """
import sys
import numpy as np
from numba import njit
import numba_pack as nbp

weights = nbp.{layer}(3, 4, rng=0).weights

@njit(cache=True)
def of_argument(values, offsets, weights):
    return nbp.{function}(nbp.pack_ragged(values, offsets), weights)[0].data

@njit(cache=True)
def of_global(values, offsets):
    return nbp.{function}(nbp.pack_ragged(values, offsets), weights)[0].data

def make(weights):
    @njit(cache=True)
    def of_closure(values, offsets):
        output, _, tape = nbp.{function}_forward(nbp.pack_ragged(values, offsets), weights)
        return nbp.{function}_backward(tape, output).parameters
    return of_closure

values, offsets = np.ones((5, 3), "f4"), np.array([0, 2, 5])
for name, call in {{
    "argument": lambda: of_argument(values, offsets, weights),
    "global": lambda: of_global(values, offsets),
    "closure": lambda: make(weights)(values, offsets),
}}.items():
    try:
        print(name, call().tobytes().hex())
    except RuntimeError as error:
        print(name, error)
print("loaded", sum(sum(f.stats.cache_hits.values()) for f in (of_argument, of_global)), file=sys.stderr)
"""


@pytest.fixture
def user(tmp_path):
    """Runs a user's module in a process of its own, with a copy of the package that a test may edit, and a cache."""
    copy = tmp_path / "site"
    shutil.copytree(PACKAGE, copy / "numba_pack", ignore=shutil.ignore_patterns("__pycache__"))
    module = tmp_path / "user.py"

    def run(text=USER, **names):
        text = text.format(**{"layer": "LSTM", "function": "lstm", **names})
        if not module.exists() or module.read_text() != text:
            module.write_text(text)
            os.utime(module, (1e9, 1e9))  # or Numba takes an edit for one, and compiles anew
        path = os.pathsep.join([str(copy), *filter(None, sys.path)])
        environment = {**os.environ, "PYTHONPATH": path, "NUMBA_CACHE_DIR": str(tmp_path / "cache")}
        process = subprocess.run([sys.executable, str(module)], env=environment, capture_output=True, text=True)
        assert process.returncode == 0, process.stderr
        lines = dict(line.split(" ", 1) for line in process.stdout.splitlines())
        return lines, int(process.stderr.split()[-1])

    run.package = copy / "numba_pack"
    return run


@pytest.mark.slow
def test_a_cached_function_may_have_weights_as_argument_global_or_in_a_closure(user):
    compiled, loaded = user()
    assert loaded == 0
    again, loaded = user()
    assert (again, loaded) == (compiled, 2)
    assert compiled["argument"] == compiled["global"]


@pytest.mark.slow
def test_a_cached_function_of_former_sources_is_compiled_anew_or_says_so(user):
    """Kernels of other sources need other blocks. Weights in the signature tell them apart, constants do not."""
    before, _ = user()
    source = user.package / "cpu" / "kernels.py"
    text = source.read_text()
    edited = text.replace("    rows: int\n", "    rows: int\n    more: int\n")
    edited = edited.replace("data.shape[0], int(data", "data.shape[0], 7, int(data")
    assert len(edited) == len(text) + len("    more: int\n, 7")
    source.write_text(edited)
    after, _ = user()
    assert (after["argument"], after["closure"]) == (before["argument"], before["closure"])
    assert after["global"].startswith("numba_pack has changed since this function was compiled")


#: whose weights are those of another kind of layer, if the first argument says so, which Numba does not see
SWITCHED = """
import sys
import numpy as np
from numba import njit
import numba_pack as nbp

weights = {"GRU": nbp.GRU, "LSTM": nbp.LSTM}[sys.argv[1]](3, 4, rng=0).weights

@njit(cache=True)
def of_global(packed):
    return nbp.gru(packed, weights)[0].data

try:
    print(of_global(nbp.pack_sequence([np.ones((2, 3), "f4")])).shape)
except RuntimeError as error:
    print(error)
"""


@pytest.mark.slow
def test_constant_weights_whose_kernels_this_process_has_not_made_are_refused(tmp_path):
    (tmp_path / "user.py").write_text(SWITCHED)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    environment["NUMBA_CACHE_DIR"] = str(tmp_path / "cache")
    printed = [
        subprocess.run([sys.executable, "user.py", kind], cwd=tmp_path, env=environment, capture_output=True, text=True)
        for kind in ("GRU", "LSTM")
    ]
    assert [process.returncode for process in printed] == [0, 0], printed[-1].stderr
    assert printed[0].stdout == "(2, 4)\n"
    assert "another process's, compiled into this function: pass them to it" in printed[1].stdout
