"""What a benchmark runs in: how many threads, which cache of compiled kernels, which libraries.

`prepare` comes before NumPy is imported, since BLAS and OpenMP read the number of threads when they are loaded.
"""

import importlib
import json
import os
import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
#: the libraries that numba_pack is compared with, by the name that they are imported by
PEERS = ("torch", "onnxruntime", "openvino")
#: for processes that start as those of users do: bytecode is kept, and code compiled ahead, unless that was forbidden
AS_USERS = {"PYTHONDONTWRITEBYTECODE": None, "NUMBA_PACK_AHEAD": os.environ.get("NUMBA_PACK_AHEAD")}
_POOLS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_PACK_NUM_THREADS")


class Unavailable(Exception):
    """A contender cannot do what is asked; the message says why."""


def prepare(threads=1):
    """Give every library ``threads`` threads, and let this checkout, compiled from its present sources, be measured."""
    if "numpy" in sys.modules:
        raise RuntimeError("numpy was imported before the number of threads could be set")
    os.environ.update(dict.fromkeys(_POOLS, str(threads)))
    os.environ["TQDM_MININTERVAL"] = "0.5"
    if "numba_cache" not in sys.modules:  # under pytest, setup.cfg has loaded it
        sys.path.insert(0, str(ROOT / "tests"))
        importlib.import_module("numba_cache")
        del sys.path[0]


def threads():
    return int(os.environ["OMP_NUM_THREADS"])


def load(name):
    """Import a peer, with its threads set where the environment does not reach."""
    try:
        module = importlib.import_module(name)
    except ImportError as error:
        raise Unavailable(f"{name} is not installed" if error.name == name else str(error)) from error
    if name == "torch":
        module.set_num_threads(threads())
    return module


def versions():
    """Version by name of what takes part; None for a peer that is missing."""
    found = {"python": platform.python_version()}
    for name in ("numpy", "numba", *PEERS):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found


def machine():
    """The processor's name, LLVM's for it, what Numba compiles for, cores and caches."""
    import llvmlite.binding as llvm

    from numba_pack.simd.machine import MACHINE

    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        lines = [
            line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")
        ]
        name = lines[0] if lines else name
    return {
        "cpu": name,
        "host": llvm.get_host_cpu_name(),
        "target": MACHINE.cpu,
        "register_bits": MACHINE.register_bytes * 8,
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "caches": caches(),
    }


def folder_of(machine):
    """The name of a folder for what was measured on a machine: its CPU, and the vectors that kernels were made of."""
    vectors = {512: "avx512", 256: "avx2"}.get(machine["register_bits"], f"{machine['register_bits']}bit")
    return f"{machine['host'].replace('znver', 'zen')}-{vectors}"


def caches():
    """Bytes of the L1 data, L2 and L3 caches that one core sees; usual sizes where the system does not tell."""
    sizes = {"L1": 32 << 10, "L2": 1 << 20, "L3": 16 << 20}
    for index in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*"):
        if (index / "type").read_text().strip() != "Instruction":
            kib = (index / "size").read_text().strip().removesuffix("K")
            sizes["L" + (index / "level").read_text().strip()] = int(kib) << 10
    return sizes


def child(module, *arguments, **variables):
    """Run a module in a process of its own; what it prints last is JSON. A variable that is None is not set there."""
    command = [sys.executable, "-m", module, *map(str, arguments)]
    python_path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    wanted = {**os.environ, "PYTHONPATH": python_path, **variables}
    wanted = {name: value for name, value in wanted.items() if value is not None}
    result = subprocess.run(command, env=wanted, capture_output=True, text=True, check=False)
    if result.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{result.stderr}")
    return json.loads(result.stdout.splitlines()[-1])
