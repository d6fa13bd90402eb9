"""The types of public calls, as type checkers see them: those that ``typing_sample.py`` tells."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SAMPLE = Path(__file__).with_name("typing_sample.py")
ROOT = SAMPLE.parent.parent


def run(folder, *command):
    """What a checker says of a copy of the sample, where it finds this package as it finds an installed one."""
    shutil.copy(SAMPLE, folder)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = (sys.executable, "-m", *command)
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder, env=environment)


@pytest.mark.skipif(not importlib.util.find_spec("mypy"), reason="mypy is not installed")
def test_mypy_finds_the_types_and_the_mistakes_that_the_sample_tells(tmp_path):
    done = run(tmp_path, "mypy", "--warn-unused-ignores", "--config-file=", SAMPLE.name)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.skipif(not importlib.util.find_spec("pyright"), reason="pyright is not installed")
def test_pyright_finds_them_too(tmp_path):
    settings = {"include": [SAMPLE.name], "extraPaths": [str(ROOT)], "reportUnnecessaryTypeIgnoreComment": "error"}
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(settings))
    done = run(tmp_path, "pyright", "--outputjson", "--pythonpath", sys.executable)
    told = json.loads(done.stdout)
    assert told["summary"]["filesAnalyzed"] == 1
    found = [(one["range"]["start"]["line"] + 1, one["message"]) for one in told["generalDiagnostics"]]
    assert found == []
