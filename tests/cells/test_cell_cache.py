"""Compiled code of a user's own cells on disk: found by the next process, and never for another formula."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import numba_pack as nbp
from numba_pack import cells

#: a script with a cell of its own; tells how much was compiled for it, and what it computes
SCRIPT = """
import json
from numba.core import event
import numba_pack as nbp
import numpy as np
from numba_pack.cells import cell, sigmoid, tanh

@cell(of_input="z n", state="h", constants="k")
def NAME(z, n, h, *, k=DEFAULT):
    return FORMULA

with event.install_recorder("numba:compile") as compiled:
    layer = NAME(2, 3, rng=0, dtype=np.float64)
    x = np.linspace(-1, 1, 8).reshape(4, 2)
    output = layer(x)[0]
    _, h_n, tape = layer.forward(x)
    gradients = layer.backward(tape, None, np.ones_like(h_n))
print(json.dumps({"compiled": len(compiled.buffer), "output": output.tolist(), "d": gradients.input.tolist()}))
"""


def run(folder, script, cache):
    (told,) = run_all(folder, script, cache)
    return told


def run_all(folder, script, cache):
    """What a script prints, a line for each cell."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("NUMBA_", "XDG_"))}
    root = Path(nbp.__file__).parent.parent
    environment |= {"PYTHONPATH": f"{folder}{os.pathsep}{root}", "NUMBA_CACHE_DIR": str(cache), "HOME": str(folder)}
    main = folder / "main.py"
    if not main.exists() or main.read_text() != script:  # Numba judges by its time
        main.write_text(script)
    process = subprocess.run([sys.executable, "main.py"], capture_output=True, text=True, env=environment, cwd=folder)
    assert process.returncode == 0, process.stderr
    assert process.stderr == ""
    return [json.loads(line) for line in process.stdout.splitlines()]


def with_formula(formula="h + sigmoid(z) * (k * n - h)", name="Own", default=0.5):
    return SCRIPT.replace("NAME", name).replace("FORMULA", formula).replace("DEFAULT", str(default))


def outputs(step, k=0.5):
    """What the script computes, by a function of z, n, h and k."""
    layer = cells.MinGRU(2, 3, rng=0, dtype=np.float64)  # of as many parameters, which are drawn the same
    weights, x, h = layer.state_dict(), np.linspace(-1, 1, 8).reshape(4, 2), np.zeros(3)
    found = []
    for row in x:
        h = step(*np.split(weights["weight_ih_l0"] @ row + weights["bias_ih_l0"], 2), h, k)
        found.append(h)
    return np.array(found)


def of_script(z, n, h, k):
    return h + (k * n - h) / (1 + np.exp(-z))


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    """A cache that a process has filled, and what that told of two cells of one formula."""
    folder = tmp_path_factory.mktemp("cache")
    told = run_all(tmp_path_factory.mktemp("first"), with_formula() + with_formula(name="Another"), folder)
    assert told[0]["compiled"] > 0
    np.testing.assert_allclose(told[0]["output"], outputs(of_script), rtol=1e-12)
    return folder, told


@pytest.fixture
def cache(filled):
    return filled[0]


@pytest.mark.slow
def test_the_next_process_compiles_nothing(cache, tmp_path):
    told = run(tmp_path, with_formula(), cache)
    assert told["compiled"] == 0
    np.testing.assert_allclose(told["output"], outputs(of_script), rtol=1e-12)


@pytest.mark.slow
def test_a_changed_formula_is_compiled_anew_and_computed(cache, tmp_path):
    told = run(tmp_path, with_formula("h + sigmoid(z) * (k * tanh(n) - h)"), cache)
    assert told["compiled"] > 0
    np.testing.assert_allclose(told["output"], outputs(lambda z, n, h, k: of_script(z, np.tanh(n), h, k)), rtol=1e-12)
    # and what was there before is still right
    np.testing.assert_allclose(run(tmp_path, with_formula(), cache)["output"], outputs(of_script), rtol=1e-12)


@pytest.mark.slow
def test_another_default_of_a_constant_is_the_same_code(cache, tmp_path):
    told = run(tmp_path, with_formula(default=0.25), cache)
    assert told["compiled"] == 0
    np.testing.assert_allclose(told["output"], outputs(of_script, k=0.25), rtol=1e-12)


@pytest.mark.slow
def test_cells_of_one_formula_share_code_whatever_they_are_called(cache, tmp_path):
    assert run(tmp_path, with_formula(name="Another"), cache)["compiled"] == 0


@pytest.mark.slow
def test_so_they_do_within_a_process(filled):
    _, (first, second) = filled
    assert second["compiled"] < first["compiled"] / 4
    assert (second["output"], second["d"]) == (first["output"], first["d"])


#: a user's compiled function that Numba keeps, in a file that does not change with the cell
COMPILED = """
import json, sys
import numba
import numpy as np
import numba_pack as nbp
from own import Own

@numba.njit(cache=True)
def last(values, offsets, weights):
    return nbp.run(nbp.pack_ragged(values, offsets), weights)[1]

layer = Own(2, 3, rng=0, dtype=np.float64)
h = last(np.linspace(-1, 1, 8).reshape(4, 2), np.array([0, 4]), layer.weights)
print(json.dumps({"h": h[0, 0].tolist(), "found": sum(last.stats.cache_hits.values())}))
"""


@pytest.mark.slow
def test_a_users_kept_function_is_found_again_and_of_a_changed_cell_compiled_anew(cache, tmp_path):
    def told(formula):
        lines = with_formula(formula).partition("with event")[0]
        (tmp_path / "own.py").write_text(lines)
        return run(tmp_path, COMPILED, cache)

    before = told("h + sigmoid(z) * (k * n - h)")
    np.testing.assert_allclose(before["h"], outputs(of_script)[-1], rtol=1e-12)
    assert before["found"] == 0
    assert told("h + sigmoid(z) * (k * n - h)") == {**before, "found": 1}
    changed = told("h + sigmoid(n) * (k * z - h)")
    assert changed["found"] == 0
    np.testing.assert_allclose(changed["h"], outputs(lambda z, n, h, k: of_script(n, z, h, k))[-1], rtol=1e-12)


# -- what tells one formula from another -------------------------------------------------------------------------------


def declared(formula, name="Own", **kinds):
    kinds = kinds or dict(sums="a b", state="h", constants="k")
    space = {key: getattr(cells, key) for key in cells.__all__}
    exec(f"def {name}(a, b, h, k=0.5): return {formula}", space)
    return cells.cell(**kinds)(space[name])


def test_the_digest_is_that_of_the_formula():
    digest = declared("tanh(a + k * b)").digest
    assert declared("tanh(a + k * b)", name="Another").digest == digest
    others = [
        declared("tanh(b + k * a)"),
        declared("tanh(a - k * b)"),
        declared("sigmoid(a + k * b)"),
        declared("tanh(a + k * b) * 1.5"),
        declared("tanh(a + k * b) * 1.25"),
        declared("tanh(a + k * b) + 0 * h"),
        declared("tanh(a + k * b)", sums="a b", state="h", unit_weights="k"),
        declared("tanh(a + k * b)", sums="a", of_input="b", state="h", constants="k"),
        declared("where(a < b, a, k)"),
        declared("where(a <= b, a, k)"),
        declared("where(a < b, k, a)"),
        declared("tanh(a + product(b * k))"),
        declared("tanh(a + product(k * h))"),
        declared("a * 0.0 + b + k"),
        declared("a * -0.0 + b + k"),
    ]
    assert len({digest, *(one.digest for one in others)}) == len(others) + 1


def test_a_digest_is_the_same_in_every_process(tmp_path):
    """Whatever the order of sets and dicts is there."""
    script = "from numba_pack import cells; print(cells.SLSTM.digest, cells.GRUResetBefore.digest)"
    found = set()
    for seed in "123":
        environment = os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": str(Path(nbp.__file__).parent.parent)}
        found.add(subprocess.check_output([sys.executable, "-c", script], env=environment, text=True))
    assert found == {f"{cells.SLSTM.digest} {cells.GRUResetBefore.digest}\n"}
