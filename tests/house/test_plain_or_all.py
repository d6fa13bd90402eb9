"""What plain ``pytest`` leaves out, ``pytest --all`` runs; and it says so."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = """
import pytest

def test_quick():
    pass

def documented():
    '''
    >>> import a_library_that_nobody_has
    '''

def explained():
    '''
    >>> import os
    '''

@pytest.mark.slow
def test_slow():
    pass
"""


@pytest.fixture
def suite(tmp_path):
    """Runs pytest on two tests, one of them slow, under the plugin and markers of this package."""
    (tmp_path / "test_two.py").write_text(TESTS)
    settings = f"[pytest]\npythonpath = {Path(__file__).parents[1]}\naddopts = -p plain_or_all\ntestpaths = .\n"
    (tmp_path / "pytest.ini").write_text(settings + "markers =\n    slow: takes long\n")

    def run(*arguments):
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
        command = [sys.executable, "-m", "pytest", *arguments]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)

    return run


HINT = "1 slow tests were left out: pytest --all runs them, too."


@pytest.mark.parametrize("arguments", [(), ("-n0",)], ids=["whole", "one-process"])
def test_plain_pytest_leaves_out_what_is_slow_and_says_so(suite, arguments):
    process = suite(*arguments)
    assert process.returncode == 0, process.stdout + process.stderr
    assert "1 passed, 1 deselected" in process.stdout
    assert HINT in process.stdout.splitlines()


def test_all_runs_what_is_slow_too(suite):
    process = suite("--all")
    assert process.returncode == 0, process.stdout + process.stderr
    assert re.search(r"\b2 passed in", process.stdout)
    assert "left out" not in process.stdout


def test_a_doctest_that_imports_what_is_not_installed_is_skipped(suite):
    process = suite("--doctest-modules", "-rs", "test_two.py")
    assert process.returncode == 0, process.stdout + process.stderr
    assert "2 passed, 1 skipped, 1 deselected" in process.stdout
    assert "the example needs a_library_that_nobody_has" in process.stdout


LIBRARY = """
import os
import pytest

@pytest.mark.parametrize("name", ["one", "other"] if "LIBRARY" in os.environ else [])
def test_with_as_many_cases_as_a_library_has(name):
    pass

def test_with_the_library():
    if "LIBRARY" not in os.environ:
        pytest.skip("it is missing")

def test_without():
    pass
"""


def test_what_was_skipped_can_be_run_alone_once_it_has_what_it_needs(suite, tmp_path, monkeypatch):
    (tmp_path / "test_library.py").write_text(LIBRARY)
    whole_file = "import os, pytest\nif 'LIBRARY' not in os.environ:\n    pytest.skip('', allow_module_level=True)\n"
    (tmp_path / "test_of_library.py").write_text(f"{whole_file}def test_in_a_file(): pass\n")
    assert "2 passed, 3 skipped, 1 deselected" in suite().stdout
    monkeypatch.setenv("LIBRARY", "")
    for more, passed in ((), 4), (("--all",), 5):  # of which the first is not what the second remembers
        process = suite("-n0", "--skipped", *more)
        assert process.returncode == 0, process.stdout + process.stderr
        assert f"{passed} passed" in process.stdout


def test_the_suite_has_slow_tests_and_ci_runs_all():
    root = Path(__file__).parents[2]
    assert "pytest --all" in (root / ".ci" / "run").read_text()
    assert "pytest --all" in (root / "CONTRIBUTING.md").read_text()
