"""Which backend runs the layers: chosen once, at import.

``NUMBA_PACK_BACKEND`` chooses: ``cpu``; ``cuda``, which is an ImportError where something that it needs is missing; or
``auto``, the default: ``cuda`` where there are numba-cuda and a device, else ``cpu``. With ``cuda`` and
``NUMBA_ENABLE_CUDASIM=1`` Numba's simulator runs the kernels, slowly, as Python.
"""

from __future__ import annotations

import ctypes
import os
import sys
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from numba.core import config

__all__ = ["backend", "device", "on_device"]


def _choose() -> str:
    asked = os.environ.get("NUMBA_PACK_BACKEND", "auto")
    if asked not in ("auto", "cpu", "cuda"):
        raise ImportError(f"the environment variable NUMBA_PACK_BACKEND must be auto, cpu or cuda; got {asked!r}")
    if asked == "cuda" and not config.ENABLE_CUDASIM:
        if find_spec("numba_cuda") is None:
            raise ImportError("NUMBA_PACK_BACKEND=cuda needs numba-cuda: pip install 'numba_pack[cuda]'")
        found = _devices()
        if isinstance(found, str):
            raise ImportError(f"NUMBA_PACK_BACKEND=cuda needs a GPU: {found}")
    if asked == "auto" and not config.ENABLE_CUDASIM and find_spec("numba_cuda") is not None:
        return "cpu" if isinstance(_devices(), str) else "cuda"
    return "cuda" if asked == "cuda" else "cpu"


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
