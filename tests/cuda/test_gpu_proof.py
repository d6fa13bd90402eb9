"""The script that runs everything on a device: what it says of parts that pass, fail, hang, or have no time."""

import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))  # `pytest` alone does not have the folder that it is run in there

from bench.alone import gpu_proof
from bench.alone.gpu_proof import NOTHING_TO_DO, Part
from bench.tools import groups


def part(name, code, share=1.0):
    return Part(name, share, lambda folder, seconds: [sys.executable, "-c", code])


def verdicts(outcomes):
    return {outcome.name: outcome.verdict for outcome in outcomes}


def test_what_becomes_of_parts(tmp_path, capsys):
    hangs = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'print(1, flush=True); input(); 1 / 0'])"
    parts = [
        part("good", "print('== 3 passed ==')"),
        part("bad", "print('two lines'); 1 / 0"),
        part("absent", f"print('there is none'); raise SystemExit({NOTHING_TO_DO})"),
        part("stuck", "import time; print('begun', flush=True); time.sleep(60)", 0.2),
        part("silent", hangs.replace("input()", "import time; time.sleep(60)"), 0.2),
    ]
    began = time.monotonic()
    outcomes = gpu_proof.run_all(parts, tmp_path / "results", 6.0)
    assert time.monotonic() - began < 8
    assert verdicts(outcomes) == {
        "good": "passed", "bad": "failed", "absent": "left out", "stuck": "timed out", "silent": "timed out",
    }  # fmt: skip
    said = (tmp_path / "results" / "summary.txt").read_text().splitlines()
    assert [line.split()[-2:] for line in said[:3]] == [["3", "passed"], ["by", "zero"], ["is", "none"]]
    assert (tmp_path / "results" / "stuck.txt").read_text() == "begun\n"
    shown = capsys.readouterr().out
    assert "two lines" in shown and said[-1] in shown


def test_parts_without_time_or_a_device_are_left_out(tmp_path):
    parts = [part("environment", f"print('no GPU'); raise SystemExit({NOTHING_TO_DO})"), part("parity", "")]
    assert verdicts(gpu_proof.run_all(parts, tmp_path, 9.0)) == {"environment": "left out", "parity": "left out"}
    assert (tmp_path / "summary.txt").read_text().count("no GPU") == 2
    (outcome,) = gpu_proof.run_all(parts[1:], tmp_path, 0.5)
    assert (outcome.verdict, outcome.said) == ("left out", "no time is left")


def test_progress_is_told_and_time_that_is_left_goes_to_later_parts(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(gpu_proof, "REPORTED", 0.2)
    slow = part("slow", "import time; print('half', flush=True); time.sleep(1.5); print('whole')", 1.0)
    gpu_proof.run_all([part("quick", "", 5.0), slow], tmp_path, 12.0)
    shown = capsys.readouterr().out
    assert ": half" in shown and "whole" in shown
    given = [float(line.split("at most ")[1].split()[0]) for line in shown.splitlines() if "at most" in line]
    assert given[0] == 10 and given[1] > 8


def test_the_commands_have_the_time_and_folder_of_their_part(tmp_path):
    commands = {part.name: list(map(str, part.command(tmp_path, 100.0))) for part in gpu_proof.PARTS}
    assert commands["benchmark"][-4:] == ["--output", str(tmp_path), "--seconds", "80"]
    assert commands["sanitizer"][-2:] == ["sanitizer", "100"]
    assert commands["parity"][-2:] == ["parity", "100"]
    assert sum(part.share for part in gpu_proof.PARTS) == 8 * 60  # so that shares read as seconds


@pytest.mark.parametrize(
    ("code", "lines", "verdict"),
    [
        (0, ["done"], "clean"),
        (0, ["nothing"], "ended with 0"),
        (gpu_proof.WRONG, ["done", "ERROR SUMMARY: 1 error"], "found something"),
        (1, ["ImportError"], "ended with 1"),
        (1, ["========= Error: Device not supported."], "not supported"),
        (None, [], "timed out"),
    ],
)
def test_verdicts_of_the_sanitizer(code, lines, verdict):
    assert gpu_proof.verdict_of(code, lines) == verdict


@pytest.mark.parametrize("ending", ["print('done')", "import sys; sys.exit(9)", "import time; time.sleep(60)"])
def test_tools_of_the_sanitizer(ending, tmp_path, monkeypatch, capsys):
    tool = tmp_path / "compute-sanitizer"
    tool.write_text(f"#!{sys.executable}\n{ending}\n")
    tool.chmod(0o755)
    monkeypatch.setattr(gpu_proof, "find_sanitizer", lambda: str(tool))
    status = gpu_proof.sanitize(3.0)
    last = capsys.readouterr().out.splitlines()[-1]
    found = {"print('done')": "clean", "import sys; sys.exit(9)": "found something"}.get(ending, "timed out")
    assert last == ", ".join(f"{name}: {found}" for name in gpu_proof.TOOLS)
    assert status == (0 if found == "clean" else 1)


def test_without_the_sanitizer_or_a_device_there_is_nothing_to_do(monkeypatch, capsys):
    monkeypatch.setattr(gpu_proof, "find_sanitizer", lambda: None)
    assert gpu_proof.sanitize(1.0) == NOTHING_TO_DO
    assert "is not there" in capsys.readouterr().out


TESTS = """
import os
import pytest

@pytest.mark.parametrize("cell", ["LSTM-float32-B1", "LSTM-float64-B1", "GRU persistent"])
def test_cell(cell):
    pass

@pytest.mark.parametrize("cell", ["lstm-proj-3", "gru"])
def test_that_fails(cell):
    assert cell != "gru"

@pytest.mark.parametrize("cell", ["LSTM-float64-B3"])
def test_that_ends(cell):
    os._exit(1)

def test_that_is_skipped():
    pytest.skip("")
"""


def test_tests_run_in_groups(tmp_path, monkeypatch, capsys):
    (tmp_path / "test_some.py").write_text(TESTS)
    monkeypatch.setattr(groups, "ROOT", tmp_path)
    assert not groups.run(["test_some.py"], 2, 100.0)
    *wrong, last = capsys.readouterr().out.splitlines()[-4:]
    assert sorted(wrong) == [
        "LSTM-float64: ended with 1 in test_some.py::test_that_ends[LSTM-float64-B3]",
        "gru: 1 failed",
        "test_some: nothing passed",
    ]
    assert last == "6 groups, 1 failed, 4 passed, 1 skipped"


def test_a_group_that_is_out_of_time(tmp_path):
    (tmp_path / "test_slow.py").write_text("import time\n\ndef test_slow():\n    time.sleep(60)\n")
    assert groups.run_group([str(tmp_path / "test_slow.py")], tmp_path / "said.txt", time.monotonic() + 2) is None
    assert groups.run_group([], tmp_path / "said.txt", time.monotonic()) is None


def test_groups_of_the_tests_there_are():
    names = {
        "tests/parity.py::test_a[rnn-tanh-persistent]": "rnn-tanh", "tests/parity.py::test_a[lstm-proj]": "lstm-proj",
        "tests/parity.py::test_a[lstm-stepwise]": "lstm", "tests/parity.py::test_a[GRU persistent]": "GRU",
        "tests/parity.py::test_a[MinGRU]": "MinGRU", "tests/parity.py::test_a[time-first]": "parity",
        "tests/parity.py::test_a[(0, 3, 2)]": "parity", "tests/device.py::test_b[?-()]": "device",
        "tests/device.py::test_b[SLSTM-float32-B1-H3]": "SLSTM-float32", "tests/parity.py::test_c": "parity",
    }  # fmt: skip
    assert {test: groups.group_of(test) for test in names} == names
