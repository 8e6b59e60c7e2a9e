"""What a worker promises: what this process may use, not what the machine has."""

import os
from pathlib import Path

import pytest

from worker.capacity import usable_cpus, usable_memory_bytes, whole_cpus

GIB = 1024**3


def write(root: Path, **files: str) -> None:
    """Write files of control groups; in names `__` is a slash and `_dot_` a dot."""
    for name, text in files.items():
        path = root / name.replace("__", "/").replace("_dot_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n", encoding="ascii")


@pytest.fixture(autouse=True)
def _big_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """64 cores and 256 GiB."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(64)), raising=False)
    monkeypatch.setattr(os, "sysconf", {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 256 * GIB // 4096}.__getitem__)


def test_capacity_is_the_machine_when_nothing_limits_it(tmp_path: Path) -> None:
    """No control groups, or `max` in them, limit nothing."""
    own = tmp_path / "own"
    assert (usable_cpus(tmp_path, own), usable_memory_bytes(tmp_path, own)) == (64.0, 256 * GIB)
    own.write_text("0::/\n")
    write(tmp_path, cpu_dot_max="max 100000", memory_dot_max="max")
    assert (usable_cpus(tmp_path, own), usable_memory_bytes(tmp_path, own)) == (64.0, 256 * GIB)


def test_capacity_follows_affinity(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bound to three cores, it promises three."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {1, 5, 7})
    assert usable_cpus(tmp_path, tmp_path / "own") == 3.0


def test_capacity_follows_limits_of_every_group_above_in_version_2(tmp_path: Path) -> None:
    """The tightest of our own group and those above it holds."""
    own = tmp_path / "own"
    own.write_text("0::/machine/job\n")
    write(tmp_path, machine__cpu_dot_max="400000 100000", machine__job__cpu_dot_max="max 100000")
    write(tmp_path, machine__memory_dot_max="max", machine__job__memory_dot_max=str(8 * GIB))
    assert (usable_cpus(tmp_path, own), usable_memory_bytes(tmp_path, own)) == (4.0, 8 * GIB)


@pytest.mark.parametrize("folder", ["cpu", "cpu,cpuacct"])
def test_capacity_follows_limits_of_version_1_in_a_container(tmp_path: Path, folder: str) -> None:
    """The path is one of the host there; what is mounted is our own."""
    own = tmp_path / "own"
    own.write_text(f"5:memory:/docker/abc\n4:{folder}:/docker/abc\n0::/\n")
    write(tmp_path, **{f"{folder}__cpu_dot_cfs_quota_us": "150000", f"{folder}__cpu_dot_cfs_period_us": "100000"})
    write(tmp_path, memory__memory_dot_limit_in_bytes=str(2 * GIB))
    assert (usable_cpus(tmp_path, own), usable_memory_bytes(tmp_path, own)) == (1.5, 2 * GIB)


def test_capacity_is_not_limited_by_version_1_without_a_quota(tmp_path: Path) -> None:
    """-1, and a number near 2^63, mean none."""
    own = tmp_path / "own"
    own.write_text("5:memory:/\n4:cpu:/\n")
    write(tmp_path, cpu__cpu_dot_cfs_quota_us="-1", cpu__cpu_dot_cfs_period_us="100000", memory__memory_dot_limit_in_bytes="9223372036854771712")
    assert (usable_cpus(tmp_path, own), usable_memory_bytes(tmp_path, own)) == (64.0, 256 * GIB)


@pytest.mark.parametrize(("cpus", "whole"), [(0.5, 1), (1.0, 1), (2.9, 2), (64.0, 64)])
def test_capacity_counts_whole_cores(cpus: float, whole: int) -> None:
    """A fraction of a core is no slot, but a worker has one at least."""
    assert whole_cpus(cpus) == whole
