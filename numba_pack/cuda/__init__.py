"""The CUDA backend: `engine` is what the layers call; below it scans, products, and the device.

Imported only where the backend is ``cuda``; nothing outside this folder imports CUDA.
"""

from .device import use_stream

__all__ = ["use_stream"]
