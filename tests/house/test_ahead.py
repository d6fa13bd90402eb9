"""What other processes compile ahead: that they do, that nothing depends on it, and that they end when they should."""

import contextlib
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from numba_pack import _ahead, cells
from numba_pack.cells import cell, tanh
from numba_pack.cpu import kernels

DEADLINE = 300.0

needs_signals = pytest.mark.skipif(os.name == "nt", reason="signals are not sent to other processes there")


def until(is_so):
    end = time.monotonic() + DEADLINE
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.fixture
def others(monkeypatch, tmp_path):
    """One other process may be started, and nothing is asked for."""
    (tmp_path / "cache").mkdir()
    made = _ahead._Others()
    monkeypatch.setattr(_ahead, "_others", made)
    monkeypatch.setattr(_ahead, "ALLOWED", 1)
    monkeypatch.setattr(_ahead, "IDLE", 1.0)
    monkeypatch.setattr(_ahead, "cpus_there", lambda: 2)
    monkeypatch.setattr(_ahead, "place_to_write", lambda: str(tmp_path / "cache"))
    yield made
    made.end()
    until(lambda: not made.living)


def begun(others, key):
    """Wait until another process has a job."""
    until(lambda: others.jobs[key]._free.locked())


# -- jobs --------------------------------------------------------------------------------------------------------------


def test_what_is_asked_for_is_done_by_another_process_and_waited_for(others, tmp_path):
    _ahead.ask(0, "slow", time.sleep, 0.5)
    _ahead.ask(1, "folder", os.mkdir, tmp_path / "made")
    _ahead.missed()
    begun(others, "folder")
    _ahead.wait_for("folder")
    assert (tmp_path / "made").is_dir()


def test_jobs_of_low_rank_come_first(others, tmp_path):
    _ahead.ask(1, "last", os.rmdir, tmp_path / "made")
    _ahead.ask(0, "first", os.mkdir, tmp_path / "made")
    _ahead.missed()
    begun(others, "last")
    _ahead.wait_for("last")
    assert not (tmp_path / "made").exists()


def test_who_waits_does_meanwhile_what_else_was_asked_for(others):
    done = []
    _ahead.ask(0, "slow", time.sleep, 0.5)
    _ahead.missed()
    begun(others, "slow")
    _ahead.ask(1, "one", done.append, 1)
    _ahead.ask(2, "other", done.append, 2)
    _ahead.wait_for("slow")
    assert done == [2, 1] and others.jobs["slow"].over.is_set()


def test_what_nobody_has_begun_is_not_waited_for_nor_done_by_others(others, tmp_path):
    _ahead.ask(0, "folder", os.mkdir, tmp_path / "made")
    _ahead.wait_for("folder")
    _ahead.wait_for("nobody asked for this")
    _ahead.ask(1, "next", int)
    _ahead.missed()
    begun(others, "next")
    _ahead.wait_for("next")
    assert not (tmp_path / "made").exists()


def test_a_job_that_fails_is_over_and_the_next_one_is_done(others, tmp_path):
    _ahead.ask(0, "fails", os.mkdir, tmp_path / "no" / "such" / "folder")
    _ahead.ask(1, "folder", os.mkdir, tmp_path / "made")
    _ahead.missed()
    begun(others, "folder")
    _ahead.wait_for("fails")
    _ahead.wait_for("folder")
    assert (tmp_path / "made").is_dir()


@pytest.mark.parametrize("call", [(os._exit, 1), (lambda: None,)], ids=["dies", "cannot-be-pickled"])
def test_a_process_that_cannot_do_its_job_is_survived_and_another_one_started(others, tmp_path, call):
    _ahead.ask(0, "never done", *call)
    _ahead.missed()
    begun(others, "never done")
    _ahead.wait_for("never done")
    until(lambda: not others.living)
    _ahead.ask(0, "folder", os.mkdir, tmp_path / "made")
    until((tmp_path / "made").is_dir)


# -- whether there are processes, and how long -------------------------------------------------------------------------


def test_where_nothing_has_to_be_compiled_no_process_is_started(others):
    _ahead.ask(0, "something", int)
    assert others.seats is None and not others.living


@pytest.mark.parametrize(
    ("name", "value", "count"),
    [
        ("cpus_there", lambda: 8, 3),
        ("cpus_there", lambda: 2, 1),
        ("cpus_there", lambda: 1, 0),
        ("memory_there", lambda: 2.5 * 2**30, 2),
        ("memory_there", lambda: 2**29, 0),
        ("ALLOWED", 0, 0),
        ("FROZEN", True, 0),
        ("place_to_write", lambda: None, 0),
    ],
)
def test_there_are_as_many_processes_as_are_of_use(monkeypatch, name, value, count):
    monkeypatch.setattr(_ahead, "ALLOWED", 3)
    monkeypatch.setattr(_ahead, "cpus_there", lambda: 8)
    monkeypatch.setattr(_ahead, "memory_there", lambda: float("inf"))
    monkeypatch.setattr(_ahead, name, value)
    assert _ahead._useful() == count


@pytest.mark.parametrize("executable", ["", None, "/usr/sbin/uwsgi"])
def test_what_is_no_python_is_not_started(monkeypatch, executable):
    monkeypatch.setattr(_ahead, "ALLOWED", 3)
    monkeypatch.setattr(_ahead, "cpus_there", lambda: 8)
    monkeypatch.setattr(sys, "executable", executable)
    assert _ahead._useful() == 0


def test_the_environment_says_how_many_there_may_be(monkeypatch):
    monkeypatch.setenv("NUMBA_PACK_AHEAD", "2")
    assert _ahead._allowed() == 2
    monkeypatch.delenv("NUMBA_PACK_AHEAD")
    assert _ahead._allowed() == 3
    monkeypatch.setenv("NUMBA_PACK_AHEAD", "-1")
    with pytest.raises(ImportError, match=r"NUMBA_PACK_AHEAD must be an integer from 0; got '-1'"):
        _ahead._allowed()


def test_of_many_programs_on_one_cache_one_has_processes(others, tmp_path):
    mark, other = _ahead._Mark(), _ahead._Mark()
    assert mark.take() and mark.take() and not other.take()
    mark.leave()
    assert not other.take()  # one of two processes is left
    mark.leave()
    assert other.take() and not mark.take()
    os.utime(tmp_path / "cache" / "ahead", (1e9, 1e9))  # of a program that was stopped
    assert mark.take()


@needs_signals
def test_a_program_that_was_killed_keeps_nobody_from_having_processes(others, tmp_path):
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    (tmp_path / "cache" / "ahead").write_text(str(process.pid))
    assert _ahead._Mark().take()
    assert (tmp_path / "cache" / "ahead").read_text() == str(os.getpid())
    assert not _ahead._Mark().take()


def test_a_process_that_nothing_is_asked_of_ends(others, monkeypatch, tmp_path):
    monkeypatch.setattr(_ahead, "IDLE", 0.1)
    _ahead.missed()
    until(lambda: others.living)
    (process,) = others.living
    until(lambda: not others.living and not others.free)
    assert process.returncode == 0
    until(lambda: not list((tmp_path / "cache").iterdir()))


def test_a_process_of_other_sources_or_settings_does_nothing(others, monkeypatch, tmp_path):
    monkeypatch.setattr(_ahead, "made_of", lambda: "others")
    _ahead.ask(0, "folder", os.mkdir, tmp_path / "made")
    _ahead.missed()
    until(lambda: others.living)
    until(lambda: not others.living)
    assert others.jobs["folder"].take() and not (tmp_path / "made").exists()


@needs_signals
def test_ctrl_c_is_not_for_the_other_process(others, tmp_path):
    _ahead.ask(0, "folder", os.mkdir, tmp_path / "made")
    _ahead.missed()
    begun(others, "folder")
    (process,) = others.living
    process.send_signal(signal.SIGINT)
    _ahead.wait_for("folder")
    _ahead.ask(0, "next", os.mkdir, tmp_path / "next")
    until((tmp_path / "next").is_dir)


#: a program with another process that is at work
PROGRAM = """
import os, signal, sys, time
import numba_pack
from numba_pack import _ahead

_ahead.ALLOWED, _ahead.cpus_there = 1, lambda: 2
_ahead.ask(-1, "long", time.sleep, 1000)
_ahead.missed()
while not (_ahead._others.living and _ahead._others.jobs["long"]._free.locked()):
    time.sleep(0.01)
print(next(iter(_ahead._others.living)).pid, flush=True)
"""


def run(tmp_path, end):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    environment |= {"NUMBA_CACHE_DIR": str(tmp_path), "NUMBA_PACK_AHEAD": "1"}
    command = [sys.executable, "-W", "error", "-c", PROGRAM + end]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=DEADLINE)


def is_there(pid):
    """Whether a process runs; one that ended and that nobody waited for does not."""
    with contextlib.suppress(OSError):
        stat = Path(f"/proc/{pid}/stat")
        if stat.exists():
            return stat.read_text().rpartition(")")[2].split()[0] != "Z"
        os.kill(pid, 0)
        return not Path("/proc/self/stat").exists()
    return False


@needs_signals
@pytest.mark.parametrize("end", ["", "raise KeyboardInterrupt", "os._exit(0)", "os.kill(os.getpid(), signal.SIGKILL)"])
def test_the_other_process_ends_with_its_program(tmp_path, end):
    process = run(tmp_path, end)
    pid = int(process.stdout)
    until(lambda: not is_there(pid))
    if not end:
        assert (process.returncode, process.stderr) == (0, "")
        assert not list(tmp_path.rglob("ahead"))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_process_waits_for_nothing_and_has_others_of_its_own(tmp_path):
    end = """
import warnings
warnings.simplefilter("ignore")
pid = os.fork()
if pid == 0:
    _ahead.wait_for("long")
    assert not _ahead._others.living and not _ahead._others.jobs
    _ahead.ask(0, "short", int)
    _ahead.missed()
    os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
"""
    process = run(tmp_path, end)
    assert (process.returncode, process.stderr) == (0, "")


# -- layers ------------------------------------------------------------------------------------------------------------


def test_layers_ask_for_the_passes_of_the_packages_own_cells_and_training_for_all(others):
    key = cells.GRU.digest, "float32"
    kernels.foresee.__wrapped__(cells.GRU, np.dtype("f4"), False)
    assert others.jobs.keys() == {("forward", key)}
    kernels.foresee.__wrapped__(cells.GRU, np.dtype("f4"), True)
    assert others.jobs.keys() == {(name, key) for name in ("forward", "backward", "gradients")}
    for job in others.jobs.values():
        assert pickle.loads(pickle.dumps(job.call)) == job.call

    @cell(sums="a", state="h")
    def Own(a, h):
        return tanh(a)

    kernels.foresee.__wrapped__(Own, np.dtype("f4"), True)
    Own.__module__ = None  # of a formula that was executed as text
    kernels.foresee.__wrapped__(Own, np.dtype("f4"), True)
    assert len(others.jobs) == 3


def test_what_every_layer_needs_is_asked_for_by_the_import():
    script = (
        "import pickle, numba_pack\n"
        "from numba_pack import _ahead\n"
        "print(sorted(str(key) for key, job in _ahead._others.jobs.items() if pickle.dumps(job.call)))"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert result.stdout.strip() == str(["('tile', None)", "_call_each"]), result.stderr


STEP = """
import hashlib, time
import numpy as np
import numba_pack as nbp
from numba.core import event
from numba_pack import _ahead

_ahead.cpus_there = lambda: 2
compiled = []

class Listener(event.Listener):
    def on_start(self, event):
        compiled.append(event.data["dispatcher"].py_func.__name__)

    def on_end(self, event):
        pass

event.register("numba:compile", Listener())
layer = nbp.RNN(3, 4, rng=0)
packed = nbp.pack_sequence([np.ones((n, 3), np.float32) for n in (2, 5)])
asked = [job for (name, *_), job in _ahead._others.jobs.items() if name == "forward"]
while _ahead.ALLOWED and not asked[0]._free.locked():
    time.sleep(0.01)
output, _, tape = layer.forward(packed)
gradients = layer.backward(tape, output)
digest = hashlib.sha256(output.data.tobytes() + gradients.parameters.tobytes()).hexdigest()
print(digest, *compiled)
"""


@pytest.mark.slow
def test_the_code_that_another_process_made_is_found_and_gives_the_same_bits(tmp_path):
    def step(cache, ahead):
        environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / cache), "NUMBA_PACK_AHEAD": ahead}
        command = [sys.executable, "-c", STEP]
        result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=2 * DEADLINE)
        assert result.returncode == 0, result.stderr
        return result.stdout.split()

    alone, *compiled_alone = step("alone", "0")
    with_other, *compiled = step("with other", "1")
    assert with_other == alone
    assert "forward_stack" in compiled_alone and "forward_stack" not in compiled
    files = [{file.name for file in (tmp_path / cache).rglob("*.nbc")} for cache in ("alone", "with other")]
    assert files[0] and files[0] <= files[1]
    assert step("with other", "0") == [alone]  # all of it is found by the next
