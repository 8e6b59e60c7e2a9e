"""What this process may use of its machine: in a container, or under a service manager's limits, less than the machine has.

Cores come from the processes' affinity and the quota of every control group above us; memory from their limits. Both versions of control
groups are read (https://docs.kernel.org/admin-guide/cgroup-v2.html, .../cgroup-v1/). What can't be read limits nothing.
"""

import math
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Final

_CGROUPS: Final = Path("/sys/fs/cgroup")
_OWN: Final = Path("/proc/self/cgroup")


def usable_cpus(cgroups: Path = _CGROUPS, own: Path = _OWN) -> float:
    """How many cores' worth of time there is; fractions where a quota says so."""
    quotas = [quota for folder in _folders("cpu", cgroups, own) if (quota := _quota(folder)) is not None]
    return min([float(_n_cores()), *quotas])


def usable_memory_bytes(cgroups: Path = _CGROUPS, own: Path = _OWN) -> int:
    """How much memory there is."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    # Version 1 writes a number near 2^63 for no limit.
    limits = [_number(folder / name) for folder in _folders("memory", cgroups, own) for name in ("memory.max", "memory.limit_in_bytes")]
    return min([total, *(int(limit) for limit in limits if limit is not None)])


def _n_cores() -> int:
    # Not everywhere can a process be bound to cores.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _quota(folder: Path) -> float | None:
    allowed, period = _number(folder / "cpu.max"), _number(folder / "cpu.max", 1)
    if allowed is None:
        allowed, period = _number(folder / "cpu.cfs_quota_us"), _number(folder / "cpu.cfs_period_us")
    # Version 1 writes -1 for no quota.
    return allowed / period if allowed and period and allowed > 0 else None


def _number(file: Path, at: int = 0) -> float | None:
    """A number in a file of several; None for `max`, for another word, or where there is none."""
    try:
        return float(int(file.read_text(encoding="ascii").split()[at]))
    except (OSError, ValueError, IndexError):
        return None


def _folders(controller: str, cgroups: Path, own: Path) -> Iterator[Path]:
    """The control groups that bound us, from our own to the root.

    A line of /proc/self/cgroup is `number:controllers:path`; version 2 has number 0 and no controllers. Within a container the path may be one
    of the host, which is not to be seen there: then the root of what is mounted is our own.
    """
    try:
        lines = own.read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            roots = [cgroups, cgroups / "unified"]
        elif controller in controllers.split(","):
            roots = [cgroups / controllers, cgroups / controller]
        else:
            continue
        inner = PurePosixPath(path.lstrip("/"))
        for root in roots:
            yield from (root / folder for folder in (inner, *inner.parents))


def whole_cpus(cpus: float) -> int:
    """How many runs of one core each fit; at least one."""
    return max(1, math.floor(cpus))
