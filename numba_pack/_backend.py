"""Which backend runs the layers: chosen once, at import.

``NUMBA_PACK_BACKEND`` chooses: ``cpu``; ``cuda``, which is an ImportError where something that it needs is missing; or
``auto``, the default: ``cuda`` where there are a numba-cuda that runs with this NumPy and a device, else ``cpu``. With
``cuda`` and ``NUMBA_ENABLE_CUDASIM=1`` Numba's simulator runs the kernels, slowly, as Python.
"""

from __future__ import annotations

import ctypes
import os
import re
import sys
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any

import numpy as np
from numba.core import config

__all__ = ["backend", "device", "on_device"]

#: up to this one (the last when this was written), numba-cuda compiles a kernel only where there is `numpy.row_stack`,
#: which NumPy 2.5 took away
LAST_WITH_ROW_STACK = (0, 30, 4)


def _choose() -> str:
    asked = os.environ.get("NUMBA_PACK_BACKEND", "auto")
    if asked not in ("auto", "cpu", "cuda"):
        raise ImportError(f"the environment variable NUMBA_PACK_BACKEND must be auto, cpu or cuda; got {asked!r}")
    if asked == "cuda" and not config.ENABLE_CUDASIM:
        missing = _missing()
        if missing:
            raise ImportError(f"NUMBA_PACK_BACKEND=cuda needs {missing}")
    if asked == "auto" and not config.ENABLE_CUDASIM:
        return "cpu" if _missing() else "cuda"
    return "cuda" if asked == "cuda" else "cpu"


def _missing() -> str | None:
    """What there would have to be besides, for kernels to run on a device."""
    if find_spec("numba_cuda") is None:
        return "numba-cuda: pip install 'numba-cuda[cu13]' cupy-cuda13x"
    installed = version("numba-cuda")
    if _numbers(installed) <= LAST_WITH_ROW_STACK and not hasattr(np, "row_stack"):
        return f"NumPy before 2.5, or a numba-cuda that runs with NumPy {np.__version__}, as {installed} does not"
    found = _devices()
    return f"a GPU: {found}" if isinstance(found, str) else None


def _numbers(text: str) -> tuple[int, ...]:
    """The first numbers of a version."""
    return tuple(int(digits) for digits in re.findall(r"\d+", text)[:3])


def _devices() -> int | str:
    """How many devices the driver finds, or why it finds none. Asked of the driver itself, without importing CUDA."""
    name = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
    try:
        driver = ctypes.CDLL(name)
    except OSError:
        return f"the driver, {name}, is not installed"
    count = ctypes.c_int(0)
    fault = driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count))
    if fault:
        return f"the driver answers with error {fault}"
    return count.value or "the driver knows of no device"


backend: str = _choose()
#: the module of device arrays, if the backend has such; by its name: its room is above (``tests/house/test_rooms.py``)
device: Any = import_module(".cuda.arrays", __package__) if backend == "cuda" else None


def on_device(value: Any) -> bool:
    """Whether a value is an array on the device that the backend runs on."""
    return device is not None and device.is_device(value)
