"""Where compiled code is kept: found again by all that may run it, and a miss where it cannot be kept or is damaged."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from importlib.util import find_spec
from pathlib import Path

import numba
import numpy as np
import pytest

import numba_pack as nbp
from numba_pack import _cache, cells
from numba_pack.cells.parameters import weights_of
from numba_pack.cpu import kernels
from numba_pack.packing import checks

PACKAGE = Path(nbp.__file__).parent
WARNING = "set NUMBA_CACHE_DIR to a folder"

# Does what compiles least, and tells how much was compiled and which warnings there were.
SCRIPT = """
import json, os, sys, warnings
import numpy as np
BEFORE
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    import numba_pack as nbp
    from numba.core import event
    MEANWHILE
    with event.install_recorder("numba:compile") as compiled:
        inverse = nbp.invert_permutation(np.array([2, 0, 1]))
print(json.dumps({
    "package": os.path.dirname(nbp.__file__),
    "inverse": inverse.tolist(),
    "compiled": len(compiled.buffer),
    "warnings": [str(warning.message) for warning in caught],
    "files": [warning.filename for warning in caught],
}))
"""
#: as on a full disk: whatever is written is refused, also to the superuser
FULL = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))"

needs_limits = pytest.mark.skipif(os.name == "nt", reason="this system has no limits of resources")


def run(parent, cache, before="", meanwhile="", home=os.devnull):
    """Run the script with the package in a folder, or an archive, for a user whose home is no folder."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("NUMBA_", "XDG_"))}
    environment |= {"PYTHONPATH": str(parent), "PYTHONDONTWRITEBYTECODE": "1", "HOME": str(home)}
    if cache is not None:
        environment["NUMBA_CACHE_DIR"] = str(cache)
    script = SCRIPT.replace("BEFORE", before).replace("MEANWHILE", meanwhile)
    # in the folder of the archive, since the current folder comes first and may hold the package itself
    process = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env=environment, cwd=Path(parent).parent
    )
    assert process.returncode == 0, process.stderr
    told = json.loads(process.stdout)
    assert told["package"].startswith(str(parent))
    assert told["inverse"] == [1, 2, 0]
    return told


def copy_package(parent):
    """A copy whose own folder takes no cache."""
    shutil.copytree(PACKAGE, parent / "numba_pack", ignore=shutil.ignore_patterns("__pycache__"))
    (parent / "numba_pack" / "__pycache__").write_text("a file where a folder would be made")
    return parent


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    return copy_package(tmp_path_factory.mktemp("installed") / "site")


@pytest.fixture(scope="module")
def filled(tmp_path_factory, installed):
    """A cache that holds what the script compiles."""
    cache = tmp_path_factory.mktemp("filled")
    assert run(installed, cache)["compiled"] > 0
    return cache


def files_in(cache):
    return sorted(cache.rglob("*.nbc"))


# -- found -------------------------------------------------------------------------------------------------------------


def test_a_later_process_finds_what_was_compiled(installed, filled):
    told = run(installed, filled)
    assert (told["compiled"], told["warnings"]) == (0, [])


def test_so_does_one_that_imports_a_copy_of_the_package_with_other_times(filled, tmp_path):
    other = copy_package(tmp_path / "elsewhere")
    os.utime(other / "numba_pack" / "packing" / "sequences.py", (1e9, 1e9))
    assert run(other, filled)["compiled"] == 0


def test_what_is_in_the_folder_compiled_of_the_package_is_found_with_no_setting_also_in_a_copy(installed, tmp_path):
    package = copy_package(tmp_path / "site") / "numba_pack"
    assert run(package.parent, package / "compiled")["compiled"] > 0
    shutil.copytree(package.parent, tmp_path / "image" / "site")
    shutil.rmtree(package.parent)
    told = run(tmp_path / "image" / "site", None)
    assert (told["compiled"], told["warnings"]) == (0, [])


@pytest.mark.slow
@pytest.mark.skipif(not all(map(find_spec, ("pip", "setuptools"))), reason="nothing is here that builds a wheel")
@pytest.mark.skipif(not (PACKAGE.parent / "setup.cfg").exists(), reason="the package is not in its repository")
def test_a_wheel_brings_what_is_in_the_folder_compiled(tmp_path):
    tree = tmp_path / "tree"
    package = copy_package(tree) / "numba_pack"
    for file in filter(Path.is_file, PACKAGE.parent.iterdir()):
        shutil.copy(file, tree)
    assert run(tree, package / "compiled")["compiled"] > 0
    build = [sys.executable, "-m", "pip", "wheel", str(tree), "--no-deps", "--no-build-isolation"]
    subprocess.run([*build, "--wheel-dir", str(tmp_path / "made")], check=True, capture_output=True)
    (wheel,) = (tmp_path / "made").glob("*.whl")
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    told = run(tmp_path / "site", None)
    assert (told["compiled"], told["warnings"]) == (0, [])


def test_code_can_be_kept_in_a_folder_that_is_named_and_nowhere_else(tmp_path, monkeypatch):
    monkeypatch.setattr(_cache, "PLACES", [str(tmp_path / "before")])
    _cache.keep("file", b"before")
    _cache.keep_in(str(tmp_path / "named"))
    assert list(_cache.found("file")) == []
    _cache.keep("file", b"named")
    assert list(_cache.found("file")) == [b"named"]
    assert len(list((tmp_path / "named").rglob("file"))) == 1


def test_compile_fills_the_folder_of_the_environment_too(monkeypatch):
    from numba.core import config

    from numba_pack import __main__

    filled = []
    monkeypatch.setattr(__main__, "fill", lambda *arguments: None)
    monkeypatch.setattr(__main__, "keep_in", filled.append)
    for folder, arguments in (("there", []), ("there", ["--into", "here"]), ("", [])):
        monkeypatch.setattr(config, "CACHE_DIR", folder)
        __main__.main(["compile", *arguments])
    assert filled == ["there", "here"]


@pytest.mark.slow
def test_compile_fills_the_folder_that_is_named_and_another_user_needs_no_more(tmp_path):
    command = [sys.executable, "-m", "numba_pack", "compile", "RNN", "--into", str(tmp_path / "filled")]
    subprocess.run(command, check=True, capture_output=True)
    script = (
        "import numpy as np, numba_pack as nbp\n"
        "from numba.core import event\n"
        "with event.install_recorder('numba:compile') as compiled:\n"
        "    packed = nbp.pack_sequence([np.ones((n, 3), np.float32) for n in (2, 5)])\n"
        "    layer = nbp.RNN(3, 4)\n"
        "    output, _, tape = layer.forward(packed)\n"
        "    layer.backward(tape, output)\n"
        "print(len(compiled.buffer))"
    )
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path / "filled"), "HOME": os.devnull}
    told = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment)
    assert told.stdout.strip() == "0", told.stderr


@needs_limits
def test_a_filled_cache_that_cannot_be_written_to_does_and_nothing_is_said(installed, filled):
    told = run(installed, filled, before=FULL)
    assert (told["compiled"], told["warnings"]) == (0, [])


@pytest.mark.slow
def test_code_is_kept_beside_the_package_and_else_in_the_home(tmp_path):
    parent = copy_package(tmp_path / "site")
    assert run(parent, None, home=tmp_path)["compiled"] > 0
    if sys.platform == "linux":
        assert files_in(tmp_path / ".cache" / "numba")
    (parent / "numba_pack" / "__pycache__").unlink()
    assert run(parent, None, home=tmp_path)["compiled"] == 0
    assert run(parent, None)["compiled"] > 0
    assert files_in(parent / "numba_pack" / "__pycache__")


# -- not found ---------------------------------------------------------------------------------------------------------


def flip(content):
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


DAMAGES = {"cut": lambda content: content[:-100], "empty": lambda content: b"", "a bit flipped": flip}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_files_that_are_damaged_are_replaced(installed, filled, tmp_path, damage):
    cache = tmp_path / "damaged"
    shutil.copytree(filled, cache)
    for file in (files := files_in(cache)):
        file.write_bytes(damage(file.read_bytes()))
    told = run(installed, cache)
    assert told["compiled"] > 0 and told["warnings"] == []
    assert run(installed, cache)["compiled"] == 0
    assert files_in(cache) == files


def test_a_file_of_zeros_is_damaged_whatever_its_size(tmp_path):
    for size in (0, 4, 8, 1000):
        (tmp_path / "file").write_bytes(bytes(size))
        assert _cache._read(str(tmp_path / "file")) is None


@pytest.mark.slow
def test_a_folder_that_vanishes_is_made_again(installed, filled, tmp_path):
    cache = tmp_path / "vanishing"
    shutil.copytree(filled, cache)
    told = run(installed, cache, meanwhile=f"import shutil; shutil.rmtree({str(cache)!r})")
    assert told["compiled"] > 0 and told["warnings"] == []
    assert files_in(cache)


def test_an_edited_package_does_not_find_what_was_compiled_before(filled, tmp_path):
    other = copy_package(tmp_path / "edited")
    with open(other / "numba_pack" / "optim" / "schedules.py", "a") as source:
        source.write("# edited\n")
    assert run(other, filled)["compiled"] > 0


@pytest.mark.parametrize("setting", _cache._SETTINGS)
def test_code_of_other_settings_of_numba_has_another_file(setting, monkeypatch):
    signature, codegen = (numba.float32,), checks.outside.targetctx.codegen()
    before = _cache.Cache(checks.outside.py_func)._file(signature, codegen)
    assert _cache.Cache(checks.outside.py_func)._file(signature, codegen) == before
    monkeypatch.setattr(numba.core.config, setting, "other", raising=False)
    assert _cache.Cache(checks.outside.py_func)._file(signature, codegen) != before


def test_kernels_that_differ_in_what_they_are_made_of_have_files_of_their_own():
    codegen = kernels.call_inference.targetctx.codegen()
    every = [cell for cell in vars(cells).values() if isinstance(cell, cells.Cell)]
    made = [(cell.digest, dtype) for cell in every for dtype in ("float32", "float64")]
    kernel = kernels._forward_kernel(weights_of(cells.LSTM), np.float32(0))
    assert len({_cache.Cache(kernel, key)._file((numba.intp,), codegen) for key in made}) == len(made)


# -- nowhere -----------------------------------------------------------------------------------------------------------


def assert_told_once(told):
    assert told["compiled"] > 0
    assert len(told["warnings"]) == 1 and WARNING in told["warnings"][0], told["warnings"]
    assert told["files"] == ["<string>"]  # of the caller


@pytest.mark.parametrize("cache", [None, Path(os.devnull)], ids=["no-cache-given", "cache-is-a-file"])
def test_with_nowhere_to_write_everything_works_and_is_told_once(installed, cache):
    assert_told_once(run(installed, cache))


@needs_limits
def test_on_a_full_disk_everything_works_and_is_told_once(installed, tmp_path):
    assert_told_once(run(installed, tmp_path, before=FULL))
    assert not any(path.is_file() for path in tmp_path.rglob("*"))


@pytest.fixture
def archive(tmp_path):
    (tmp_path / "archived").mkdir()
    path = tmp_path / "archived" / "application.pyz"
    with zipfile.ZipFile(path, "w") as archive:
        for source in sorted(PACKAGE.rglob("*.py")):
            archive.write(source, Path("numba_pack") / source.relative_to(PACKAGE))
    return path


def test_in_an_archive_everything_works_and_is_told_once(archive):
    assert_told_once(run(archive, None))


@pytest.mark.slow
def test_an_archive_finds_its_code_in_a_cache(archive, tmp_path):
    assert run(archive, tmp_path / "cache")["compiled"] > 0
    assert run(archive, tmp_path / "cache")["compiled"] == 0


# -- the state of the sources ------------------------------------------------------------------------------------------


@pytest.fixture
def package(tmp_path):
    (tmp_path / "inner").mkdir()
    (tmp_path / "entry.py").write_text("from .inner import cell")
    (tmp_path / "inner" / "cell.py").write_text("x = 1")
    return tmp_path


def test_the_state_is_that_of_the_contents(package):
    state = _cache.state_of(str(package))
    assert 0 < state < 2**63
    (package / "inner" / "__pycache__").mkdir()
    (package / "inner" / "__pycache__" / "cell.py").write_text("no source")
    os.utime(package / "inner" / "cell.py", (1e9, 1e9))
    assert _cache.state_of(str(package)) == state
    (package / "inner" / "cell.py").write_text("x = 2")
    assert _cache.state_of(str(package)) != state
    (package / "inner" / "cell.py").write_text("x = 1")
    assert _cache.state_of(str(package)) == state
    (package / "inner" / "cell.py").rename(package / "inner" / "call.py")
    assert _cache.state_of(str(package)) != state


def test_the_state_is_of_one_version_of_numba(package, monkeypatch):
    state = _cache.state_of(str(package))
    monkeypatch.setattr(numba, "__version__", "0.0")
    assert _cache.state_of(str(package)) != state


def test_the_state_of_an_archive_is_that_of_what_it_holds_of_the_package(tmp_path):
    def state(text, other):
        with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
            archive.writestr("ours/cell.py", text)
            archive.writestr("other/cell.py", other)
        return _cache.state_of(str(tmp_path / "all.zip" / "ours"))

    assert state("x = 1", "y = 1") == state("x = 1", "y = 2") != state("x = 2", "y = 2")


def test_sources_of_which_nothing_is_known_have_no_state(tmp_path):
    assert _cache.state_of(str(tmp_path / "nothing")) == 0


def test_the_state_of_an_application_that_holds_its_sources_is_that_of_its_file(tmp_path, monkeypatch):
    program = tmp_path / "program"
    program.write_bytes(b"one")
    monkeypatch.setattr(_cache, "FROZEN", True)
    monkeypatch.setattr(sys, "executable", str(program))
    state = _cache.state_of(str(tmp_path / "unpacked" / "numba_pack"))
    assert state == _cache.state_of(str(tmp_path / "unpacked" / "numba_pack")) != 0
    program.write_bytes(b"another")
    assert _cache.state_of(str(tmp_path / "unpacked" / "numba_pack")) != state
