"""Trials that keep a ledger of their own: what really ran, when, whatever the record says.

Each execution appends a line when it starts and one when it ends, in one write, so that lines of many processes never mix.
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from tests.support.projects import write_project

LOSS: Final = {"name": "loss", "goal": "minimize"}
# Without site-packages and without the environment's say: such an interpreter starts in a few milliseconds.
_COMMAND: Final = [sys.executable, "-IS", "${program}"]
_PROGRAM: Final = """
import os, sys, time
run_id, attempt, number = (os.environ[name] for name in ("SWEEP_RUN_ID", "SWEEP_ATTEMPT", "SWEEP_TRIAL"))
ledger = os.open({ledger!r}, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
def note(what):
    os.write(ledger, f"{{run_id}} {{attempt}} {{number}} {{what}} {{time.monotonic()!r}}\\n".encode())
note("start")
shortest, longest = {seconds!r}
time.sleep(shortest + (longest - shortest) * (int(number) * 0.618034 % 1))
{extra}
print(f"loss={{int(number)}}", flush=True)
note("end")
"""


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a ledger.

    Attributes:
        at: of the machine's monotonic clock, which all its processes share.
    """

    run_id: str
    attempt: int
    number: int
    what: Literal["start", "end"]
    at: float


def ledger_project(folder: Path, *, n_trials: int, seconds: float | tuple[float, float] = 0.0, extra: str = "", **keys: Any) -> Path:
    """Write a project of `n_trials` trials that keep a ledger and log `loss`; its sweep file. `ledger_file` tells where the ledger is.

    Args:
        seconds: how long each runs; two bounds are spread over the trials, the same way each time.
        extra: lines of Python, run between the two entries; `run_id`, `attempt` and `number` are texts there.
        keys: more keys of the sweep file.
    """
    bounds = seconds if isinstance(seconds, tuple) else (seconds, seconds)
    project = folder / "project"
    given: dict[str, Any] = {"name": folder.name, "command": _COMMAND, "metric": LOSS, "limits": {"trials": n_trials}}
    return write_project(project, _PROGRAM.format(ledger=str(folder / "ledger"), seconds=bounds, extra=extra), **(given | keys))


def ledger_file(sweep_file: Path) -> Path:
    """Where the trials of a project of `ledger_project` write."""
    return sweep_file.parent.parent / "ledger"


def read_ledger(file: Path) -> list[Line]:
    """The lines of a ledger, in the order in which they were written; none if no trial has started yet."""
    if not file.exists():
        return []
    lines = []
    for text in file.read_text(encoding="ascii").splitlines():
        run_id, attempt, number, what, at = text.split()
        assert what in ("start", "end"), text
        lines.append(Line(run_id, int(attempt), int(number), "start" if what == "start" else "end", float(at)))
    return lines
