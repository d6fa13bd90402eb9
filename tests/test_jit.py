"""Compiled code that no longer fits: it must not be run."""

import ctypes

import numpy as np
import pytest

import numba_pack as nbp
from numba_pack.cpu import kernels


def test_a_kernel_leaves_the_block_of_another_version_alone():
    weights = nbp.LSTM(3, 4, rng=0).weights
    block = np.zeros(64, np.int64)
    ctypes.CFUNCTYPE(None, ctypes.c_int64)(weights.forward)(block.ctypes.data)
    assert not block.any()


def test_a_caller_is_told_if_the_kernel_is_of_another_version():
    weights = nbp.GRU(3, 4, rng=0).weights
    other = ctypes.CFUNCTYPE(None, ctypes.c_int64)(lambda block: None)  # a kernel that leaves the block alone
    weights = weights._replace(forward=ctypes.cast(other, ctypes.c_void_p).value)
    out, order = np.zeros((5, 4), np.float32), np.zeros(1, np.int64)
    given = (*weights[:3], np.zeros((5, 3), np.float32), np.ones(5, np.int64), order, out, out, False)
    with pytest.raises(RuntimeError, match="remove it from Numba's cache"):
        kernels.call_inference(weights.forward, *given, 0, 1, out, out.reshape(1, 5, 4), out.reshape(1, 5, 4))
