"""Layers in a service: live streams that come and go, and requests of whole sequences, which share calls.

>>> import numpy as np
>>> import numba_pack as nbp
>>> streams = nbp.serving.Streams(nbp.GRU(12, 100, rng=0), capacity=256)
>>> a, b = streams.open(), streams.open()
>>> streams.step([a, b], np.ones((2, 12), np.float32)).shape
(2, 100)
>>> with nbp.serving.Batcher(streams.layer) as batcher:
...     output, h_n = batcher.submit(np.ones((7, 12), np.float32)).result()
>>> output.shape
(7, 100)
"""

from .batcher import Batcher
from .streams import Streams

__all__ = ["Batcher", "Streams"]


def __dir__() -> list[str]:
    return [name for name in globals() if name.startswith("__")] + __all__
