"""How many CPUs and bytes this process may use: what system, container and environment say, the least of them."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterator
from pathlib import Path

from numba.core import config

__all__ = ["available_cpus", "cpus_there", "memory_there"]


def available_cpus() -> int:
    """The CPUs that are there, and no more than the environment allows."""
    # NUMBA_NUM_THREADS or, if that is not set, the CPUs that Numba sees
    return max(1, min([cpus_there(), config.NUMBA_NUM_THREADS, *_openmp()]))


def cpus_there() -> int:
    """The CPUs that the process is bound to, and no more than its quota."""
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([bound, *_quotas(Path("/"))]))


def _openmp() -> Iterator[int]:
    """``OMP_NUM_THREADS``, a number, or one for each level of nesting, and ``OMP_THREAD_LIMIT``.

    Values that OpenMP would not accept are ignored.
    """
    for name in ("OMP_NUM_THREADS", "OMP_THREAD_LIMIT"):
        first = os.environ.get(name, "").partition(",")[0].strip()
        if first.isdecimal() and int(first) > 0:
            yield int(first)


def memory_there() -> float:
    """The bytes that are free, or infinity where the system does not tell."""
    return min([math.inf, *_free(Path("/"))])


def _groups(root: Path, controller: str) -> Iterator[Path]:
    """The folders of the control groups of Linux that have limits of this kind: a group, and all above it.

    A container sees its own groups as the topmost ones, whatever names the process knows them by.
    """
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:  # another system
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        mount = root / "sys/fs/cgroup" / (controller if controllers else "")
        group = mount / path.lstrip("/")
        for folder in (group, *group.parents):
            if mount in (folder, *folder.parents):
                yield folder


def _quotas(root: Path) -> Iterator[int]:
    """How many CPUs' worth of time groups allow, rounded up."""
    for group in _groups(root, "cpu"):
        yield from _quota(group)


def _quota(group: Path) -> Iterator[int]:
    try:
        if (group / "cpu.max").exists():  # version 2
            quota, period = (group / "cpu.max").read_text().split()
        else:
            quota = (group / "cpu.cfs_quota_us").read_text()
            period = (group / "cpu.cfs_period_us").read_text()
        if int(quota) > 0:  # -1 and "max" are no quota
            yield math.ceil(int(quota) / int(period))
    except (OSError, ValueError):
        pass


def _free(root: Path) -> Iterator[int]:
    """Bytes that the system has left, and groups; what it keeps of files counts as free."""
    with contextlib.suppress(OSError, KeyError, ValueError):
        yield _numbers(root / "proc/meminfo")["MemAvailable:"] << 10
    for group in _groups(root, "memory"):
        for most, used, of_files in (
            ("memory.max", "memory.current", "inactive_file"),  # version 2
            ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
        ):
            with contextlib.suppress(OSError, KeyError, ValueError):  # "max" is no limit
                limit, taken = (int((group / name).read_text()) for name in (most, used))
                yield limit - taken + _numbers(group / "memory.stat")[of_files]


def _numbers(file: Path) -> dict[str, int]:
    """What a file of lines ``name number`` tells."""
    return {name: int(number) for name, number, *_ in map(str.split, file.read_text().splitlines())}
