"""Users' compiled functions out of a disk cache: other processes and other sources have other kernels, elsewhere."""

import gc
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from numba import njit, types
from numba.core.errors import TypingError

import numba_pack as nbp
from numba_pack import _cache
from numba_pack._jit import fact, inner, jit, overload

PACKAGE = os.path.dirname(nbp.__file__)

#: a user's module, whose functions have the weights as an argument, as a global variable, and in a closure
USER = """
import sys
import numpy as np
from numba import njit
import numba_pack as nbp

seed, *ways = sys.argv[1:]
weights = nbp.LSTM(3, 4, rng=int(seed)).weights

@njit(cache=True)
def of_argument(values, offsets, weights):
    return nbp.lstm(nbp.pack_ragged(values, offsets), weights)[0].data

@njit(cache=True)
def of_global(values, offsets):
    return nbp.lstm(nbp.pack_ragged(values, offsets), weights)[0].data

def make(weights):
    @njit(cache=True)
    def of_closure(values, offsets):
        output, _, tape = nbp.lstm_forward(nbp.pack_ragged(values, offsets), weights)
        return nbp.lstm_backward(tape, output).parameters
    return of_closure

values, offsets = np.ones((5, 3), "f4"), np.array([0, 2, 5])
for name, call in {
    "argument": lambda: of_argument(values, offsets, weights),
    "global": lambda: of_global(values, offsets),
    "closure": lambda: make(weights)(values, offsets),
}.items():
    if name in ways:
        print(name, call().tobytes().hex())
print(sum(sum(f.stats.cache_hits.values()) for f in (of_argument, of_global)), file=sys.stderr)
"""


@pytest.fixture
def user(tmp_path):
    """Runs a user's module in a process of its own, with a copy of the package that a test may edit, and a cache.

    As long as the copy is not edited, it finds what these tests have compiled.
    """
    copy = tmp_path / "site"
    shutil.copytree(PACKAGE, copy / "numba_pack", ignore=shutil.ignore_patterns("__pycache__"))
    if os.name != "nt":  # where links are for some users only
        (copy / "numba_pack" / "compiled").symlink_to(os.environ["NUMBA_CACHE_DIR"], target_is_directory=True)
    module = tmp_path / "user.py"
    module.write_text(USER)

    def run(*ways, seed=0):
        path = os.pathsep.join([str(copy), *filter(None, sys.path)])
        environment = {**os.environ, "PYTHONPATH": path, "NUMBA_CACHE_DIR": str(tmp_path / "cache")}
        process = subprocess.run(
            [sys.executable, str(module), str(seed), *ways], env=environment, capture_output=True, text=True
        )
        assert process.returncode == 0, process.stderr
        lines = dict(line.split(" ", 1) for line in process.stdout.splitlines())
        return lines, int(process.stderr.split()[-1])

    run.package = copy / "numba_pack"
    return run


@pytest.mark.slow
def test_a_cached_function_may_have_weights_as_argument_global_or_in_a_closure(user):
    ways = "argument", "global", "closure"
    compiled, loaded = user(*ways)
    assert loaded == 0
    assert compiled["argument"] == compiled["global"]
    again, loaded = user("argument", "global")
    assert loaded == 1  # of those that Numba takes for constants nothing is kept
    assert again.items() < compiled.items()
    other, loaded = user(*ways, seed=1)
    assert loaded == 1
    assert other["argument"] == other["global"] != compiled["global"]
    assert other["closure"] != compiled["closure"]


@pytest.mark.slow
def test_a_cached_function_of_former_sources_is_compiled_anew(user):
    """Kernels of other sources need other blocks."""
    before, _ = user("argument")
    assert user("argument") == (before, 1)
    source = user.package / "cpu" / "kernels.py"
    text = source.read_text()
    edited = text.replace("    rows: int\n", "    rows: int\n    more: int\n")
    edited = edited.replace("        rows=data.shape[0],\n", "        rows=data.shape[0],\n        more=7,\n")
    assert len(edited) == len(text) + len("    more: int\n        more=7,\n")
    source.write_text(edited)
    assert user("argument") == (before, 0)


def test_weights_that_are_a_constant_live_as_long_as_the_code_that_has_them():
    weights = nbp.GRU(3, 300, rng=0).weights  # too large for Numba to copy

    @njit
    def of_global(packed):
        return nbp.gru(packed, weights)[0].data

    packed = nbp.pack_sequence([np.ones((2, 3), np.float32)])
    expected = of_global(packed)
    weights = None
    gc.collect()
    others = [np.full(2**20, np.nan, np.float32) for _ in range(20)]  # where memory was given back
    np.testing.assert_array_equal(of_global(packed), expected)
    assert len(others) == 20


# -- what is compiled --------------------------------------------------------------------------------------------------


@pytest.fixture
def nothing_kept(monkeypatch, tmp_path):
    """An empty cache."""
    monkeypatch.setattr(_cache, "PLACES", [str(tmp_path)])


def test_a_branch_that_a_fact_decides_is_compiled_only_where_it_is_taken(nothing_kept):
    is_float = fact(lambda kind: isinstance(kind, types.Float))

    @inner
    def in_words(x):
        return x.nothing_has_this

    @inner
    def chosen(x):
        if is_float(x) == 0 or not is_float(x):
            return in_words(x)
        return x + is_float(x)

    @jit
    def entry(x):
        return chosen(x)

    assert entry(1.5) == 2.5
    with pytest.raises(TypingError, match="nothing_has_this"):
        entry(1)


def test_what_an_entry_and_an_inner_function_call_is_compiled_once(nothing_kept):
    made = []

    def doubled(x):
        raise NotImplementedError

    @overload(doubled)
    def of_type(x):
        made.append(x)
        return lambda x: 2 * x

    @inner
    def within(x):
        return doubled(x)

    @jit
    def entry(x):
        return doubled(x) + within(x)

    assert entry(1.5) == 6.0
    assert made == [types.float64]
