"""What an idle cluster costs: CPU time of all its processes together, in percent of one core."""

import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from tests.benchmarks.figures import Figure
from tests.benchmarks.local import running_home, sweep, write_project
from tests.benchmarks.stage import Stage

SETTLE_S: Final = 10.0
SECONDS: Final = 30.0
GOAL_PERCENT: Final = 3.0
_PROJECT: Final = {"name": "idle", "method": "grid", "command": ["true"], "parameters": {"x": {"values": [1, 2]}}}
_TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")


def measure(stage: Stage) -> Iterator[Figure]:
    """A one-machine cluster that has run a sweep and now waits, over a folder and over Redis (redis-server told apart)."""
    for name, url in {"folder": "filesystem://", "redis": stage.redis.url}.items():
        with running_home(stage, url) as environ:
            project = write_project(stage.new_folder("idle"), _PROJECT)
            # After one sweep everything has been started that starts when first needed.
            sweep(environ, "run", str(project))
            time.sleep(SETTLE_S)
            used = _used_over(SECONDS, environ["SWEEP_HOME"])
        percent = 100 * sum(used.values()) / SECONDS
        shares = ", ".join(f"{role} {100 * used_s / SECONDS:.2f}" for role, used_s in sorted(used.items(), key=lambda item: -item[1]) if used_s)
        yield Figure(
            f"idle cluster, broker {name}: CPU over {SECONDS:.0f} s, % of a core",
            f"{percent:.2f} %",
            shares or "-",
            goal=f"< {GOAL_PERCENT:g} %",
            is_met=percent < GOAL_PERCENT,
            values={"percent": percent, **{f"{role}_percent": 100 * used_s / SECONDS for role, used_s in used.items()}},
        )


def _used_over(seconds: float, home: str) -> dict[str, float]:
    """CPU seconds that each role used while we slept. Processes that came and went are in the account of who reaped them."""
    before = _used(home)
    time.sleep(seconds)
    used = {role: used_s - before.get(role, 0.0) for role, used_s in _used(home).items()}
    if "scheduler" not in used or "postgres" not in used:
        raise RuntimeError(f"Not all roles were found under {home}: {sorted(used)}")
    return used


def _used(home: str) -> dict[str, float]:
    """CPU seconds so far of everything that works for the cluster under `home`, by role."""
    processes = {int(entry.name): entry for entry in Path("/proc").glob("[0-9]*")}
    facts = {pid: found for pid, entry in processes.items() if (found := _read(entry)) is not None}
    sums: dict[str, float] = {}
    for pid, (_, _, used_s) in facts.items():
        role = _role(pid, facts, home)
        if role is not None:
            sums[role] = sums.get(role, 0.0) + used_s
    return sums


_Facts = tuple[int, str, float]
"""Parent, words (command line, and those of its environment that name a home), CPU seconds with those of reaped children."""


def _read(entry: Path) -> _Facts | None:
    try:
        stat = (entry / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        words = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        homes = [word for word in (entry / "environ").read_bytes().split(b"\0") if word.startswith(b"SWEEP_HOME=")]
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return None  # it has ended, or is somebody else's
    return int(stat[1]), f"{words} {b' '.join(homes).decode(errors='replace')}", sum(map(int, stat[11:15])) / _TICKS_PER_S


_SIGNS: Final = (
    (" server ", "server"),
    (" scheduler ", "scheduler"),
    (" worker ", "worker"),
    ("shim.py", "launcher"),
    ("sweeps.local", "local supervisor"),
    ("postgres", "postgres"),
    ("tracking.embedded", "postgres"),
)


def _role(pid: int, facts: Mapping[int, _Facts], home: str) -> str | None:
    """Whose work a process does: the first of itself and its ancestors that a sign names; None outside the cluster."""
    role, belongs = None, False
    while pid in facts and pid > 1:
        parent, words, _ = facts[pid]
        belongs = belongs or home in words
        role = role or next((name for sign, name in _SIGNS if sign in f"{words} "), None)
        pid = parent
    return (role or "other") if belongs else None
