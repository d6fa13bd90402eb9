"""Tests on a 64-bit ARM with NEON, emulated: needs Debian's qemu-user-static, apt and pip.

    python -m bench.alone.arm tests/cpu/test_panels.py      whatever pytest takes

Debian's Python for arm64 and PyPI's wheels for it are fetched once, to ``build/arm``. This process compiles what the
emulated one needs (`bench.tools.cross`), so it has to be of the same version; all else takes some ten times as long as
without the emulator. Code is kept as in any run of the tests. Tests that start processes fail there.
"""

import os
import subprocess
import sys
from importlib.metadata import version
from zipfile import ZipFile

from bench.tools.cross import PLUGIN, become, run
from bench.tools.environment import ROOT

HOME = ROOT / "build" / "arm"
SYSTEM, PACKAGES = HOME / "system", HOME / "packages"
CPU = "neoverse-n1"
WHEELS = (f"numpy=={version('numpy')}", f"numba=={version('numba')}", "scipy", "pytest", "pytest-timeout", "hypothesis")
LIBC = ("2_17", "2_27", "2_28")  # the glibc that wheels say they need


def fetch_system():
    """Debian's Python and C++ library, unpacked."""
    state = HOME / "apt"
    for folder in ("lists/partial", "archives/partial"):
        (state / folder).mkdir(parents=True, exist_ok=True)
    apt = ["apt-get", "--quiet", "--yes"]
    for option in (
        "APT::Architecture=arm64", "APT::Architectures=arm64", "Dir::State::status=/dev/null", f"Dir::State={state}",
        f"Dir::State::lists={state}/lists", f"Dir::Cache={state}", "Debug::NoLocking=1",
    ):  # fmt: skip
        apt += ["--option", option]
    subprocess.run([*apt, "update"], check=True)
    wanted = ["install", "--download-only", "--no-install-recommends", "python3", "libstdc++6"]
    subprocess.run([*apt, *wanted], check=True)
    for package in (state / "archives").glob("*.deb"):
        subprocess.run(["dpkg", "--extract", package, SYSTEM], check=True)


def fetch_packages(python):
    """PyPI's wheels for that Python, unpacked."""
    number = python.name.removeprefix("python")
    platforms = [f"--platform=manylinux_{glibc}_aarch64" for glibc in LIBC] + ["--platform=manylinux2014_aarch64"]
    tags = [f"--abi=cp{number.replace('.', '')}", "--abi=abi3", "--abi=none"]
    pip = [sys.executable, "-m", "pip", "download", "--only-binary=:all:", f"--python-version={number}"]
    subprocess.run([*pip, *platforms, *tags, f"--dest={HOME / 'wheels'}", *WHEELS], check=True)
    for wheel in (HOME / "wheels").glob("*.whl"):
        ZipFile(wheel).extractall(PACKAGES)


def interpreter():
    """The emulated Python, fetched if it is not there."""
    found = [*SYSTEM.glob("usr/bin/python3.[0-9]*[0-9]")]
    if not found:
        fetch_system()
        return interpreter()
    if not PACKAGES.exists():
        fetch_packages(found[0])
    return found[0]


def main():
    python = interpreter()
    if python.name != f"python3.{sys.version_info.minor}":
        sys.exit(f"bench.alone.arm has to be run by {python.name}, as it compiles for that one")
    sys.path += map(str, (ROOT / "tests").glob("**/"))  # where tests have compiled functions of their own
    become(CPU, "aarch64-unknown-linux-gnu")
    path = os.pathsep.join(map(str, (ROOT, PACKAGES)))
    environment = {**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"}
    emulator = ["qemu-aarch64-static", "-cpu", CPU, "-L", SYSTEM, python]
    tests = [*emulator, "-m", "pytest", "-p", "no:cacheprovider", "-p", PLUGIN, "-v", *sys.argv[1:]]
    sys.exit(run(tests, cwd=ROOT, env=environment))


if __name__ == "__main__":
    main()
