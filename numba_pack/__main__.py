"""``python -m numba_pack``: what a bug report needs."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

import numpy as np
from numba.core import config

import numba_pack

from ._backend import device
from ._cache import place_to_write
from .simd.lanes import lanes_of
from .simd.machine import DOTS, MACHINE


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def _engine(kind: str) -> str:
    """What multiplies numbers of this kind."""
    engine: str = getattr(DOTS, kind)
    return f"{engine} in plain loops" if engine == "amx" and DOTS.plain_tiles else engine


def main() -> None:
    """Print versions, the CPU and its lanes, the backend and its device, the threads and the cache folder."""
    rows = {
        "numba_pack": _version("numba_pack"),
        "Python": f"{platform.python_version()} on {platform.platform()}",
        **{name: _version(name) for name in ("numpy", "numba", "llvmlite", "scipy")},
        "CPU": f"{MACHINE.cpu}, {MACHINE.register_bytes * 8}-bit vectors, {'' if MACHINE.fma else 'no '}fused products",
        "lanes": f"{lanes_of(np.float32)} float32, {lanes_of(np.float64)} float64",
        "short factors": ", ".join(f"{kind}: {_engine(kind)}" for kind in ("bfloat16", "int8")),
        "backend": numba_pack.backend,
        **(device.described() if device else {}),
        "threads": str(numba_pack.get_num_threads()),
        "cache": place_to_write() or "nowhere to write: set NUMBA_CACHE_DIR",
        "Numba settings": ", ".join(
            f"{name}={getattr(config, name)}" for name in ("DISABLE_JIT", "BOUNDSCHECK", "CPU_NAME", "CPU_FEATURES")
        ),
    }
    for name, value in rows.items():
        print(f"{name:15} {value}")


if __name__ == "__main__":
    main()
