"""Compiled code that no longer fits: it must not be found again, nor be run."""

import ctypes
import os

import numpy as np
import pytest

import numba_pack as nbp
from numba_pack import _jit
from numba_pack.cpu import kernels


@pytest.fixture
def package(tmp_path):
    (tmp_path / "inner").mkdir()
    (tmp_path / "entry.py").write_text("from .inner import cell")
    (tmp_path / "inner" / "cell.py").write_text("x = 1")
    return tmp_path


def test_the_state_of_the_sources_stays_until_one_of_them_is_edited(package):
    state = _jit._state(package)
    (package / "inner" / "__pycache__").mkdir()
    (package / "inner" / "__pycache__" / "cell.py").write_text("no source")
    assert _jit._state(package) == state
    os.utime(package / "inner" / "cell.py", (1e9, 1e9))
    assert _jit._state(package) != state


@pytest.mark.parametrize("entry", [kernels.call_inference, kernels.pack_forward])
def test_the_name_of_an_entry_in_the_cache_tells_the_state(entry):
    assert entry.py_func.__qualname__.endswith(_jit._state(os.path.dirname(_jit.__file__)))
    assert entry.py_func.__qualname__ in entry._cache._cache_file._index_name


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
