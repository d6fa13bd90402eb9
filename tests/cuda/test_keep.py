"""Where the machine code of kernels is kept. No device is needed: what it is asked for is put in its place."""

import json
import os
import pickle
import subprocess
import sys
import threading
import time
import warnings
from importlib.util import find_spec
from types import SimpleNamespace
from unittest import mock

import numpy as np
import pytest
from numba import float32, float64

from numba_pack import _cache
from numba_pack.cells import cell

pytestmark = pytest.mark.skipif(
    find_spec("numba_cuda") is None or "NUMBA_ENABLE_CUDASIM" in os.environ, reason="numba-cuda is not installed"
)


@pytest.fixture(autouse=True)
def device():
    with a_device((9, 0)):
        yield


def a_device(capability):
    return mock.patch("numba.cuda.get_current_device", lambda: SimpleNamespace(compute_capability=capability, id=0))


def key_of(kernel):
    from numba_pack.cuda import keep

    return keep.key_of(kernel.function, kernel.signature)


# -- keys --------------------------------------------------------------------------------------------------------------

KEYS = """
import hashlib, json
from types import SimpleNamespace
from unittest import mock
from numba_pack.cells import cell, tanh
from numba_pack.cuda.keep import key_of
from numba_pack.cuda.resources import every_kernel, kernels_of, DTYPES

@cell(sums="a b", state="h c")
def Own(a, b, h, c):
    return tanh(a) * 0.3, c - b * float("inf")

with mock.patch("numba.cuda.get_current_device", lambda: SimpleNamespace(compute_capability=(9, 0))):
    own = [(form, dtype, kernel) for dtype in DTYPES for form, kernel in kernels_of(Own, dtype)]
    print(json.dumps([
        (name, dtype.name, hashlib.sha256(key_of(kernel.function, kernel.signature).encode()).hexdigest())
        for name, dtype, kernel in [*every_kernel(), *own]
    ]))
"""


def keys_in_a_process(seed, *options):
    environment = os.environ | {"PYTHONHASHSEED": seed, "PYTHONDONTWRITEBYTECODE": "1"}
    process = subprocess.run(
        [sys.executable, *options, "-c", KEYS], capture_output=True, text=True, env=environment, check=False
    )
    assert process.returncode == 0, process.stderr
    return json.loads(process.stdout)


def test_every_kernel_has_a_key_of_its_own_that_is_the_same_in_every_process(tmp_path):
    # one finds the sources compiled, the other compiles them
    one, other = keys_in_a_process("1"), keys_in_a_process("2", "-X", f"pycache_prefix={tmp_path}")
    assert len(one) > 200
    assert one == other
    assert len({key for _, _, key in one}) == len(one)


def formula(factor):
    @cell(sums="a", state="h")
    def Own(a, h):
        return h + factor * (a - h)

    return Own


def another_formula():
    @cell(sums="a", state="h")
    def Own(a, h):
        return h - 0.5 * (a - h)

    return Own


def scan_of(own):
    from numba_pack.cuda import scan

    return scan.scan_kernel(own, np.dtype(np.float32), "resident")


def test_cells_of_one_name_with_other_formulas_or_numbers_have_other_keys():
    keys = {key_of(scan_of(own)) for own in (formula(0.5), formula(0.25), formula(-0.5), another_formula())}
    assert len(keys) == 4
    assert key_of(scan_of(formula(0.5))) in keys


def test_signature_options_device_and_compilers_are_of_the_key():
    from numba import cuda

    from numba_pack.cuda import keep
    from numba_pack.cuda.device import Kernel

    def made(options, *signature):
        @cuda.jit(**options)
        def kernel(x, y):
            y[0] = x[0]

        return key_of(Kernel(kernel, signature))

    plain = made({}, float32[::1], float32[::1])
    assert plain == made({}, float32[::1], float32[::1])
    keys = {plain, made({}, float32[::1], float64[::1]), made({}, float32[::1], float32[:])}
    keys |= {made({name: value}, float32[::1], float32[::1]) for name, value in (("launch_bounds", 64), ("opt", False))}
    with a_device((8, 0)):
        keys.add(made({}, float32[::1], float32[::1]))
    with mock.patch.object(keep, "_compilers", lambda: "others"):
        keys.add(made({}, float32[::1], float32[::1]))
    assert len(keys) == 7


TIMES = 2.0


def called(x):
    return x * TIMES


def test_what_a_function_calls_and_reads_is_of_what_it_is_made_of(monkeypatch):
    from numba_pack.cuda.keep import made_of

    def outer(x):
        return [called(x) for _ in range(2)]

    def recursive(x):
        return recursive(x) + 1

    before = made_of(outer)
    assert made_of(recursive) == made_of(recursive)
    monkeypatch.setitem(globals(), "TIMES", 3.0)
    assert made_of(outer) != before
    monkeypatch.setitem(globals(), "TIMES", 2.0)
    assert made_of(outer) == before
    monkeypatch.setitem(globals(), "called", abs)
    assert made_of(outer) != before


# -- files -------------------------------------------------------------------------------------------------------------


class Compiler:
    """In place of a function of `cuda.jit`, and of the driver: it counts, and loads nothing."""

    __module__, __name__ = "tests", "kernel"

    def __init__(self):
        self.compiled, self.loaded, self.refused = 0, [], set()
        self.py_func, self.targetoptions = formula, {}
        self.library = SimpleNamespace(referenced_objects={}, _setup_functions=[], get_cubin=self._cubin)

    def _cubin(self):
        return SimpleNamespace(code=b"code %d" % self.compiled)

    def compile(self, signature):
        self.compiled += 1
        return SimpleNamespace(library=self.library, entry_name="entry")

    def on_device(self, code, name):
        if code in self.refused:
            raise RuntimeError("CUDA: CUDA_ERROR_INVALID_IMAGE")
        assert name == "entry"
        self.loaded.append(code)
        return "loaded"


@pytest.fixture
def compiler(monkeypatch, tmp_path):
    from numba_pack.cuda import keep

    made = Compiler()
    monkeypatch.setattr(_cache, "PLACES", [str(tmp_path / "first"), str(tmp_path / "second")])
    monkeypatch.setattr(keep, "_on_device", made.on_device)
    return made


def load(compiler):
    from numba_pack.cuda import keep

    assert keep.load(compiler, (float32,)) == "loaded"
    return compiler.compiled


def file_in(place):
    (path,) = place.iterdir()
    return path


def test_a_kernel_is_compiled_once_and_then_found(compiler, tmp_path):
    assert [load(compiler), load(compiler)] == [1, 1]
    assert compiler.loaded == [b"code 1", b"code 1"]
    file_in(tmp_path / "first")
    assert not (tmp_path / "second").exists()


def test_a_kernel_is_found_in_any_place(compiler, tmp_path):
    load(compiler)
    (tmp_path / "first").rename(tmp_path / "second")
    (tmp_path / "first").touch()
    assert load(compiler) == 1


@pytest.mark.parametrize("left", [0, 3, 4, 40])
def test_a_damaged_file_is_a_miss_and_written_anew(compiler, tmp_path, left):
    load(compiler)
    path = file_in(tmp_path / "first")
    path.write_bytes(path.read_bytes()[:left])
    assert [load(compiler), load(compiler)] == [2, 2]
    assert compiler.loaded[-1] == b"code 2"


def test_code_that_the_driver_refuses_is_a_miss_and_written_anew(compiler):
    load(compiler)
    compiler.refused.add(b"code 1")
    assert [load(compiler), load(compiler)] == [2, 2]


def test_an_error_of_compiled_code_is_one(compiler):
    compiler.refused.add(b"code 1")
    with pytest.raises(RuntimeError, match="INVALID_IMAGE"):
        load(compiler)


def test_a_file_of_the_same_name_for_another_kernel_is_a_miss(compiler, tmp_path):
    load(compiler)
    name = file_in(tmp_path / "first").name
    _cache._write(str(tmp_path / "first"), name, pickle.dumps(("another", (b"code of another", "entry", False))))
    assert load(compiler) == 2
    assert b"code of another" not in compiler.loaded


def test_code_with_addresses_of_this_process_is_not_kept(compiler):
    compiler.library.referenced_objects = {1: object()}
    assert [load(compiler), load(compiler)] == [1, 2]


def test_with_nowhere_to_write_a_kernel_is_loaded_and_that_is_told(compiler, monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setattr(_cache, "PLACES", [str(tmp_path / "file")])
    monkeypatch.setattr(_cache, "_untold", [])
    monkeypatch.setattr(_cache, "_told", False)
    assert [load(compiler), load(compiler)] == [1, 2]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        _cache.tell()
    assert len(caught) == 1 and "set NUMBA_CACHE_DIR" in str(caught[0].message)


def test_threads_that_need_a_kernel_at_once_load_it_once():
    from numba_pack.cuda import device

    kernel, found, loaded = device.Kernel(None, ()), [], []

    def load(function, signature):
        loaded.append(function)
        time.sleep(0.05)

    with (
        mock.patch.object(device, "load", load),
        mock.patch.object(device, "Launcher", lambda *_: object()),
        mock.patch.object(device, "shared_limit", lambda: 0),
    ):
        threads = [threading.Thread(target=lambda: found.append(kernel._loaded())) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(loaded) == 1
    assert len(found) == 4 and len(set(map(id, found))) == 1


def test_a_kernel_compiles_to_machine_code_that_holds_all_it_needs():
    """Its entry has the name that is kept, and nothing is left to be linked."""
    from numba_pack.cuda import keep, rows

    kernel = rows.last_states_kernel(np.dtype(np.float32))
    if not kernel.function.targetoptions["lto"]:
        pytest.skip("the linker of the CUDA toolkit is not installed, and that of the driver needs a device")
    device = mock.Mock(compute_capability=(9, 0))
    kept = []
    with (
        mock.patch("numba.cuda.dispatcher.get_current_device", return_value=device),
        mock.patch("numba.cuda.cudadrv.devices.get_context", return_value=mock.Mock(device=device)),
        mock.patch.object(keep, "keep", lambda file, content: kept.append(pickle.loads(content))),
        mock.patch.object(keep, "found", lambda file: ()),
        mock.patch.object(keep, "_on_device", lambda *code: code),
    ):
        code, name = keep.load(kernel.function, kernel.signature)
    assert kept == [(key_of(kernel), (code, name))]
    assert code.startswith(b"\x7fELF") and name.encode() in code
