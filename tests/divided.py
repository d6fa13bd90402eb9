"""Seen from outside: how calls are divided; and jobs of a test's own for the team of threads."""

import ctypes

import numpy as np

from numba_pack.cpu import engine, packer, team
from numba_pack.cpu import threads as pool

_KERNEL = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.POINTER(ctypes.c_int64))


def divisions(monkeypatch):
    """A list that holds, from now on, into how many parts and among how many threads each pass was divided."""
    found = []

    call_each = engine.call_each

    def record(calls, pool):
        found.extend((call.parts, pool[1] + 1) for call in calls if call.block != packer._BLOCK_BACK)
        call_each(calls, pool)

    monkeypatch.setattr(engine, "call_each", record)
    return found


def run(tasks, threads):
    """Call Python functions, as the parts of a job, on so many threads."""

    @_KERNEL
    def kernel(result, error, block):
        tasks[block[0]]()
        return 0

    address = ctypes.cast(kernel, ctypes.c_void_p).value
    team.share_blocks(address, np.arange(len(tasks))[:, None], *pool.team(threads))
