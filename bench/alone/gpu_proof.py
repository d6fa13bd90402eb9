"""All that shows whether the CUDA backend is right and fast on a device, in one run of a few minutes.

    python -m bench.alone.gpu_proof                    everything, in at most 8 minutes, to build/gpu
    python -m bench.alone.gpu_proof --only parity      one part
    python -m bench.alone.gpu_proof --minutes 5 --output FOLDER

The parts, each a process of its own with a share of the time, what one leaves being the next ones':

- *environment*: the device, its driver and clocks, and the versions of what takes part;
- *parity*: ``tests/device.py`` and ``tests/parity.py``, by pytest in up to eight processes;
- *sanitizer*: ``tests/cuda/little_of_all.py`` under compute-sanitizer's memcheck, racecheck and synccheck;
- *benchmark*: ``bench.compare.gpu``, whose table goes to the same folder.

What a part prints goes to a file of its name, line by line, and so outlives a kill; ``summary.txt`` tells after each
part how they fared. It exits with 1 unless all parts that had something to do passed.
"""

import argparse
import contextlib
import glob
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic
from typing import NamedTuple

from bench.tools import groups
from bench.tools.environment import ROOT

NOTHING_TO_DO = 77  # exit status of a part that the machine lacks something for
REPORTED = 10.0  # seconds from one line of progress to the next
MOST_PROCESSES = 8
SETTINGS = {
    "NUMBA_PACK_BACKEND": "cuda", "NUMBA_PACK_TESTED_BACKEND": "cuda", "NUMBA_PACK_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1",
}  # fmt: skip


class Part(NamedTuple):
    """A process, its share of the time, and its command: of the folder of the results, and the seconds it has."""

    name: str
    share: float
    command: Callable[[Path, float], list]


class Outcome(NamedTuple):
    """How a part fared: "passed", "failed", "timed out" or "left out"."""

    name: str
    verdict: str
    seconds: float
    #: what it printed last, or why it was left out
    said: str


def own_command(name):
    return lambda folder, seconds: [sys.executable, "-m", "bench.alone.gpu_proof", "--inside", name, f"{seconds:.0f}"]


def benchmark_command(folder, seconds):
    measured = max(10, min(90, 0.8 * seconds))
    return [sys.executable, "-m", "bench.compare.gpu", "--output", str(folder), "--seconds", f"{measured:.0f}"]


PARTS = (
    Part("environment", 20, own_command("environment")),
    Part("parity", 210, own_command("parity")),
    Part("sanitizer", 110, own_command("sanitizer")),
    Part("benchmark", 140, benchmark_command),
)

# -- running -----------------------------------------------------------------------------------------------------------


def run_all(parts, folder, seconds):
    """Run parts one after another within so many seconds; their outcomes."""
    folder.mkdir(parents=True, exist_ok=True)
    end, outcomes = monotonic() + seconds, []
    for i, part in enumerate(parts):
        left = end - monotonic()
        limit = left * part.share / sum(later.share for later in parts[i:])
        if limit < 1:
            outcomes.append(Outcome(part.name, "left out", 0.0, "no time is left"))
        elif outcomes and outcomes[0].name == "environment" and outcomes[0].verdict == "left out":
            outcomes.append(Outcome(part.name, "left out", 0.0, outcomes[0].said))
        else:
            outcomes.append(run(part, folder, limit))
        (folder / "summary.txt").write_text(summary(outcomes))
    return outcomes


def run(part, folder, limit):
    """Run a part, whatever comes of it."""
    file, began = folder / f"{part.name}.txt", monotonic()
    print(f"{part.name}: at most {limit:.0f} s, to {file}", flush=True)
    python_path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    environment = {**os.environ, **SETTINGS, "PYTHONPATH": python_path}
    environment.pop("NUMBA_ENABLE_CUDASIM", None)
    with file.open("wb") as output:
        process = subprocess.Popen(
            list(map(str, part.command(folder.resolve(), limit))), cwd=ROOT, env=environment, stdin=subprocess.DEVNULL,
            stdout=output, stderr=subprocess.STDOUT, preexec_fn=os.setpgrp,
        )  # fmt: skip
        try:
            code = wait(process, part.name, file, began, limit)
        finally:
            end_group(process)
    seconds = monotonic() - began
    verdict = {0: "passed", NOTHING_TO_DO: "left out", None: "timed out"}.get(code, "failed")
    outcome = Outcome(part.name, verdict, seconds, last_line(file))
    if verdict in ("failed", "timed out"):
        print(*lines_of(file)[-40:], sep="\n")
    print(row(outcome), flush=True)
    return outcome


def wait(process, name, file, began, limit):
    """The exit status of a process; None if it is not there within the limit. Says now and then how far it is."""
    while True:
        left = began + limit - monotonic()
        try:
            return process.wait(max(0.0, min(REPORTED, left)))
        except subprocess.TimeoutExpired:
            if left <= REPORTED:
                return None
            print(f"  {name}, {monotonic() - began:.0f} s: {last_line(file)}", flush=True)


def end_group(process):
    """Kill a process and all that it started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    with contextlib.suppress(subprocess.TimeoutExpired):  # the driver may hold it back
        process.wait(5)


def lines_of(file):
    return [line.rstrip() for line in file.read_text(errors="replace").splitlines() if line.strip()]


def last_line(file):
    return (lines_of(file) or ["nothing"])[-1].strip("= ")[:120]


def row(outcome):
    return f"{outcome.name:12} {outcome.verdict:10} {outcome.seconds:6.1f} s  {outcome.said}"


def summary(outcomes):
    return "".join(row(outcome) + "\n" for outcome in outcomes)


# -- inside the processes ----------------------------------------------------------------------------------------------

PACKAGES = (
    "numpy", "scipy", "numba", "llvmlite", "numba-cuda", "cuda-core", "cuda-bindings", "cupy-cuda13x", "torch",
    "pytest", "pytest-xdist",
)  # fmt: skip
QUERIED = (
    "name", "driver_version", "memory.total", "memory.used", "utilization.gpu", "clocks.sm", "clocks.max.sm",
    "clocks.mem", "power.draw", "temperature.gpu", "mig.mode.current", "compute_mode",
)  # fmt: skip


def tell_environment(seconds):
    """Print what the measurements depend on."""
    for name in PACKAGES:
        try:
            print(f"{name:15} {version(name)}")
        except PackageNotFoundError:
            print(f"{name:15} not installed")
    if shutil.which("nvidia-smi"):
        query = ["nvidia-smi", f"--query-gpu={','.join(QUERIED)}", "--format=csv"]
        for command in (query, ["nvidia-smi"]):
            with contextlib.suppress(subprocess.TimeoutExpired):
                print(subprocess.run(command, capture_output=True, text=True, timeout=seconds / 3).stdout, flush=True)
    print(f"compute-sanitizer {find_sanitizer() or 'is not there'}", flush=True)
    try:
        import numba_pack.__main__ as report
    except ImportError as error:
        print(error)
        return NOTHING_TO_DO
    report.main()
    from numba_pack._backend import device

    print("; ".join(device.described().values()))
    return 0


TOOLS = ("memcheck", "racecheck", "synccheck")
WRONG = 9  # exit status of a program in which a tool found something


def find_sanitizer():
    """Path of compute-sanitizer; None if it is nowhere."""
    wheels = find_spec("nvidia")
    places = ["/usr/local/cuda*/bin", "/usr/local/cuda*/compute-sanitizer", "/opt/nvidia/*/compute-sanitizer"]
    places += [f"{folder}/**" for folder in (wheels.submodule_search_locations or () if wheels else ())]
    found = [path for place in places for path in sorted(glob.glob(f"{place}/compute-sanitizer", recursive=True))]
    found = [path for path in found if os.path.isfile(path) and os.access(path, os.X_OK)]
    return shutil.which("compute-sanitizer") or (found[-1] if found else None)


def sanitize(seconds):
    """Run the tools at the same time, and print what each says when it ends."""
    tool = find_sanitizer()
    if tool is None:
        print("compute-sanitizer is not there")
        return NOTHING_TO_DO
    end, verdicts = monotonic() + 0.9 * seconds, {}
    program = [sys.executable, str(ROOT / "tests" / "cuda" / "little_of_all.py")]
    with TemporaryDirectory() as folder:
        running = {}
        for name in TOOLS:
            command = [tool, "--tool", name, "--error-exitcode", str(WRONG), *program]
            if name == "memcheck":
                command[1:1] = ["--report-api-errors", "no"]  # Numba asks the driver for what it may not have
            with (Path(folder) / name).open("wb") as output:
                running[name] = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
        for name, process in running.items():
            try:
                code = process.wait(max(0.1, end - monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                code = None
            lines = lines_of(Path(folder) / name)
            verdicts[name] = verdict_of(code, lines)
            if len(lines) > 150:
                lines[100:-50] = ["..."]
            print(f"-- {name}: {verdicts[name]}", *lines, sep="\n", flush=True)
    print(", ".join(f"{name}: {verdict}" for name, verdict in verdicts.items()))
    if all(verdict == "not supported" for verdict in verdicts.values()):
        return NOTHING_TO_DO
    return 0 if all(verdict == "clean" for verdict in verdicts.values()) else 1


def verdict_of(code, lines):
    """How the program fared under a tool."""
    if code is None:
        return "timed out"
    if any("Device not supported" in line for line in lines):
        return "not supported"
    if code == 0 and "done" in lines:
        return "clean"
    return "found something" if code == WRONG else f"ended with {code}"


def test(seconds):
    """Run the tests of a device, in as many processes as there are cores."""
    processes = min(MOST_PROCESSES, len(os.sched_getaffinity(0)))
    return 0 if groups.run(("tests/device.py", "tests/parity.py"), processes, 0.95 * seconds) else 1


INSIDE = {"environment": tell_environment, "parity": test, "sanitizer": sanitize}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", metavar="FOLDER", type=Path, default=ROOT / "build" / "gpu")
    parser.add_argument("--minutes", type=float, default=8.0, help="for all parts (default: %(default)s)")
    parser.add_argument("--only", metavar="PART", choices=[part.name for part in PARTS], help="one part alone")
    parser.add_argument("--inside", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.inside:
        name, seconds = arguments.inside
        sys.exit(INSIDE[name](float(seconds)))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by a signal"))  # so that the parts end, too
    parts = [part for part in PARTS if arguments.only in (None, part.name)]
    outcomes = run_all(parts, arguments.output, 60 * arguments.minutes)
    print(summary(outcomes), end="")
    sys.exit(any(outcome.verdict in ("failed", "timed out") for outcome in outcomes))


if __name__ == "__main__":
    main()
