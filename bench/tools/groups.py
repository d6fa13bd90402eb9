"""Tests divided among processes by what they compile.

Each process compiles kernels of its own, a second or more each, and more time goes into that than into tests. So tests
of one cell, and where the id tells it of one dtype, run in one process.
"""

import re
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic

from bench.tools.environment import ROOT

PYTEST = (sys.executable, "-m", "pytest", "-p", "no:cacheprovider")
OPTIONS = ("-v", "--no-header", "-rfE", "--tb=short", "--capture=sys")
_CELL = re.compile(r"\[(rnn-tanh|rnn-relu|lstm-proj|lstm|gru|(?!\w+Cell\b)[A-Z]\w+(?:-float\d+)?)\b")
_COUNT = re.compile(r"(\d+) (passed|failed|skipped|error)")


def group_of(test):
    """The group of a test by its id: its cell, and dtype; of those without, the name of the file."""
    found = _CELL.search(test)
    return found[1] if found else Path(test.partition("::")[0]).stem


def grouped(tests):
    """Tests by group, in order of their first ones."""
    groups = {}
    for test in tests:
        groups.setdefault(group_of(test), []).append(test)
    return groups


def collected(files):
    """The ids of the tests in these files."""
    command = [*PYTEST, "-q", "--collect-only", *files]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    tests = [line for line in result.stdout.splitlines() if "::" in line]
    if result.returncode or not tests:
        raise RuntimeError(f"no tests are collected:\n{result.stdout}{result.stderr}")
    return tests


def run(files, processes, seconds):
    """Run all tests within so many seconds, so many groups at a time; print what each says; whether all passed."""
    end, total, wrong = monotonic() + seconds, Counter(), []
    groups = grouped(collected(files))
    with TemporaryDirectory() as folder, ThreadPoolExecutor(processes) as pool:

        def work(name):
            file, began = Path(folder) / f"{name}.txt", monotonic()
            return name, run_group(groups[name], file, end), file, monotonic() - began

        for future in as_completed([pool.submit(work, name) for name in groups]):
            name, code, file, took = future.result()
            text = file.read_text(errors="replace") if file.exists() else ""
            counts = counts_of(text)
            print(text, f"-- {name}: {took:.0f} s, {told(counts)}", sep="\n", flush=True)
            total += counts
            if code != 0 or not counts["passed"]:
                wrong.append(f"{name}: {fault(code, counts, text)}")
                print("-- " + wrong[-1], flush=True)
    print(*wrong, f"{len(groups)} groups, {told(total)}", sep="\n")
    return not wrong


def run_group(tests, file, end):
    """Run some tests, which print to a file; the exit status, or None if there was no time to end."""
    left = end - monotonic()
    if left <= 0:
        return None
    with file.open("wb") as output:
        process = subprocess.Popen([*PYTEST, *OPTIONS, *tests], cwd=ROOT, stdout=output, stderr=subprocess.STDOUT)
        try:
            return process.wait(left)
        except subprocess.TimeoutExpired:
            process.kill()
            return None


def counts_of(text):
    """How many tests passed and so on, by pytest's last line, or if it is missing by those of the tests."""
    last = (text.strip().splitlines() or [""])[-1]
    counts = Counter({kind: int(number) for number, kind in _COUNT.findall(last)})
    return counts or Counter(word.lower() for word in re.findall(r" (PASSED|FAILED|SKIPPED|ERROR) ", text))


def fault(code, counts, text):
    """What is wrong with a group."""
    failed = counts["failed"] + counts["error"]
    if code == 1 and failed and re.search(r"^=+ .* in [\d.]+s.* =+$", text, re.MULTILINE):
        return f"{failed} failed"  # and pytest came to its end
    return {0: "nothing passed", None: "out of time"}.get(code) or f"ended with {code} in {last_test(text)}"


def last_test(text):
    """The test that a process was running when it ended."""
    started = re.findall(r"^(\S+\.py::.*?) *(?: (?:PASSED|FAILED|SKIPPED|ERROR|Timeout) .*)?$", text, re.MULTILINE)
    return started[-1] if started else "its beginning"


def told(counts):
    return ", ".join(f"{counts[kind]} {kind}" for kind in ("failed", "error", "passed", "skipped") if counts[kind])
