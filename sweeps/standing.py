"""How a sweep stands: whether it has ended, how far it is, what changes nothing about it. Pure functions of the server's answer."""

from collections.abc import Mapping
from typing import Final

from sweeps.api.shapes import SweepSummary
from sweeps.wording import counted

FINAL_STATES: Final = frozenset({"finished", "failed", "cancelled"})
_RESULTS: Final[Mapping[str, str]] = {"pause": "paused", "resume": "active", "stop": "stopping"}
"""The state that a move leads to."""


def has_settled(sweep: SweepSummary) -> bool:
    """Whether a sweep has ended, and with it its last trial: one that was asked to stop may take its time."""
    return sweep["state"] in FINAL_STATES and not sweep["counts"]["running"]


def still_running_text(sweep: SweepSummary) -> str:
    """`2 trials were asked to stop and still run`, of a sweep that has ended."""
    count = sweep["counts"]["running"]
    return f"{counted(count, 'trial')} {'was' if count == 1 else 'were'} asked to stop and still {'runs' if count == 1 else 'run'}"


def counts_text(sweep: SweepSummary) -> str:
    """`finished 34  running 8  pruned 9  failed 1  queued 8`; what is zero and rare is left out."""
    counts = sweep["counts"]
    always = [("finished", counts["finished"]), ("running", counts["running"])]
    if_any = [
        ("pruned", counts["pruned"]),
        ("failed", counts["failed"]),
        ("cancelled", counts["cancelled"]),
        ("queued", counts["queued"] + counts["placed"]),
    ]
    return "  ".join(f"{name} {count}" for name, count in always + [pair for pair in if_any if pair[1]])


def progress_text(sweep: SweepSummary) -> str:
    """`44/60`: how many of the trials asked for are done; `44/?` where the file sets no limit."""
    asked = sweep["trials_asked"]
    return f"{done_trials(sweep)}/{'?' if asked is None else asked}"


def done_trials(sweep: SweepSummary) -> int:
    """How many trials came to an end of their own: finished, failed or pruned, not cancelled."""
    counts = sweep["counts"]
    return counts["finished"] + counts["failed"] + counts["pruned"]


def changes_nothing(move: str, state: str) -> bool:
    """Whether a sweep in this state is already what the move would make of it: `stop` and `cancel` of one that has ended, `pause` of a paused one."""
    return (state in FINAL_STATES and move in ("stop", "cancel")) or _RESULTS.get(move) == state
