"""Layers in a service: live streams that come and go, each with its state carried from call to call.

>>> import numpy as np
>>> import numba_pack as nbp
>>> streams = nbp.serving.Streams(nbp.GRU(12, 100, rng=0), capacity=256)
>>> a, b = streams.open(), streams.open()
>>> streams.step([a, b], np.ones((2, 12), np.float32)).shape
(2, 100)
"""

from .streams import Streams

__all__ = ["Streams"]
