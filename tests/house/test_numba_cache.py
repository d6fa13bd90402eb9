"""What tests/numba_cache.py promises to the other tests."""

import os
import subprocess
import sys
from pathlib import Path

import numba
import numba_cache
import pytest


@pytest.fixture
def package(tmp_path):
    (tmp_path / "inner").mkdir()
    (tmp_path / "entry.py").write_text("from .inner import cell")
    (tmp_path / "inner" / "cell.py").write_text("x = 1")
    return tmp_path


def test_numba_uses_the_folder_that_the_plugin_chose():
    used = Path(numba.config.CACHE_DIR)
    assert used == Path(os.environ["NUMBA_CACHE_DIR"])
    assert used.parent == numba_cache.CACHES


def test_the_key_is_the_same_for_the_same_sources(package):
    assert numba_cache.digest(package, {}) == numba_cache.digest(package, {})


def test_an_edit_in_any_file_changes_the_key(package):
    before = numba_cache.digest(package, {})
    (package / "inner" / "cell.py").write_text("x = 2")
    assert numba_cache.digest(package, {}) != before


def test_a_compiler_setting_changes_the_key_but_the_cache_folder_and_other_variables_do_not(package):
    plain = numba_cache.digest(package, {})
    assert numba_cache.digest(package, {"NUMBA_BOUNDSCHECK": "1"}) != plain
    others = {"NUMBA_CACHE_DIR": "elsewhere", "NUMBA_PACK_BACKEND": "cpu", "HOME": "somewhere"}
    assert numba_cache.digest(package, others) == plain


def test_the_folders_used_last_are_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("NUMBA_CACHE_DIR", "restored afterwards")
    for age in range(numba_cache.KEPT + 2):
        (tmp_path / f"old{age}").mkdir()
        os.utime(tmp_path / f"old{age}", (1e9 - age, 1e9 - age))
    numba_cache.use_cache(tmp_path / "new")
    kept = {"new", *(f"old{age}" for age in range(numba_cache.KEPT - 1))}
    assert {folder.name for folder in tmp_path.iterdir()} == kept


def test_the_plugin_refuses_to_come_after_numba():
    code = "import numba, numba_cache"
    tests = Path(numba_cache.__file__).parent
    process = subprocess.run([sys.executable, "-c", code], cwd=tests, capture_output=True, text=True)
    assert "numba was imported before" in process.stderr
