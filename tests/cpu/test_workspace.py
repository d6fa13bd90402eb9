"""Buffers are used again; the large ones are the system's to take in between."""

import sys
from pathlib import Path

import numpy as np
import pytest

from numba_pack.cpu import workspace

LARGE = workspace.LARGEST + (4 << 20)
#: where the system can be told that pages are its to take
linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="elsewhere large buffers are not kept")


def address(array):
    return array.__array_interface__["data"][0]


def lazily_free():
    """Bytes of this process that the system may take without asking."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("LazyFree:"))


@pytest.mark.parametrize("size", [100_000, pytest.param(LARGE, marks=linux)])
def test_a_buffer_is_used_again(size):
    space = workspace.Workspace()
    first = space.take(size)
    first[:] = 1
    space.give(first)
    assert address(space.take(size)) == address(first)


@pytest.mark.parametrize(
    "form", [lambda array: array, lambda array: array.view("f4"), memoryview], ids=["itself", "floats", "others"]
)
def test_a_buffer_is_known_in_every_form(form):
    space = workspace.Workspace()
    first = space.take(100_000)
    space.give(np.asarray(form(first)))
    assert address(space.take(100_000)) == address(first)


def test_memory_of_others_is_never_kept():
    """As that of a pickle, or what a hook of PyTorch's gave in place of a buffer."""
    space = workspace.Workspace()
    for memory in (np.empty(100_000, np.uint8), bytearray(100_000), bytes(100_000)):
        space.give(np.frombuffer(memory, np.uint8))
    first = space.take(100_000)
    space.give(first.copy())
    assert not space._kept


def test_a_buffer_that_is_not_given_back_is_forgotten():
    space = workspace.Workspace()
    taken = space.take(100_000)
    assert len(space._lent) == 1
    del taken
    assert not space._lent


@linux
def test_a_large_buffer_is_offered_to_the_system_until_it_is_written_to_again():
    space = workspace.Workspace()
    first = space.take(LARGE)
    first[:] = 1
    before = lazily_free()
    space.give(first)
    assert lazily_free() - before >= LARGE - 2 * workspace.HUGE_PAGE
    again = space.take(LARGE)
    again[:] = 2
    assert (again == 2).all()


def test_a_large_buffer_is_not_kept_where_the_system_cannot_have_it(monkeypatch):
    monkeypatch.setattr(workspace, "_advise", None)
    space = workspace.Workspace()
    space.give(space.take(LARGE))
    assert not space._kept


@linux
def test_large_buffers_are_kept_up_to_a_bound_the_last_ones_longest():
    space = workspace.Workspace()
    count = workspace.MOST_LARGE // LARGE + 2
    arrays = [space.take(LARGE) for _ in range(count)]  # not written to: no memory is there
    small = space.take(100_000)
    for array in (small, *arrays):
        space.give(array)
    kept = [buffer for buffer in space._kept.values() if buffer.size > workspace.LARGEST]
    assert sum(buffer.size for buffer in kept) <= workspace.MOST_LARGE
    assert len(space._kept) == len(kept) + 1  # a small buffer makes no room for large ones
    assert address(space.take(LARGE)) == address(arrays[-1])
