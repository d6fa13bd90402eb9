"""DLPack: arrays of any library that exchanges them, to and fro, without a copy."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

__all__ = ["as_numpy", "form"]

ON_CPU = (1, 3, 11, 13)  # the types of devices whose memory the CPU reads: pinned and managed memory included
DEVICES = {2: "CUDA", 4: "OpenCL", 7: "Vulkan", 8: "Metal", 10: "ROCm", 14: "oneAPI"}


def as_numpy(array: Any) -> np.ndarray:
    """``np.asarray`` that also takes what has DLPack alone, and never copies from another device in silence."""
    _refuse_device(array)
    by_dlpack = hasattr(array, "__dlpack__") and not hasattr(array, "__array__")
    return np.from_dlpack(array) if by_dlpack else np.asarray(array)


def form(values: np.ndarray, offsets: np.ndarray, like: Any) -> tuple[Any, Any]:
    """Values and offsets as arrays of the library that the example comes from; they share the memory."""
    if not hasattr(like, "__dlpack__"):
        raise TypeError("it is of no form that is known")
    _refuse_device(like)
    if hasattr(like, "__array_namespace__"):
        library = like.__array_namespace__()
    else:
        library = sys.modules[type(like).__module__.partition(".")[0]]
    if not hasattr(library, "from_dlpack"):
        raise TypeError(f"{library.__name__} has no function from_dlpack")
    return library.from_dlpack(values), library.from_dlpack(offsets)


def _refuse_device(array: Any) -> None:
    if hasattr(array, "__dlpack_device__"):
        device = int(array.__dlpack_device__()[0])
    else:
        device = 2 if hasattr(array, "__cuda_array_interface__") else 1
    if device not in ON_CPU:
        where = DEVICES.get(device, f"of DLPack's type {device}")
        raise TypeError(f"it is on a device ({where}), and has to be copied to the CPU first")
