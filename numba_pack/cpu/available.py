"""How many CPUs this process may use: what the system, a container and the environment say, the least of them."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path

from numba.core import config

__all__ = ["available_cpus", "cpus_there"]


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


def _quotas(root: Path) -> Iterator[int]:
    """How many CPUs' worth of time the control groups of Linux allow, rounded up: for a group and for all above it.

    A container sees its own groups as the topmost ones, whatever names the process knows them by.
    """
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:  # another system
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        mount = root / "sys/fs/cgroup" / ("cpu" if controllers else "")
        group = mount / path.lstrip("/")
        for folder in (group, *group.parents):
            if mount in (folder, *folder.parents):
                yield from _quota(folder)


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
