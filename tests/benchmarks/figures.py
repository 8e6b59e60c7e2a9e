"""What a benchmark says: one row of the table, and the small sums behind it."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

MISSING: Final = "-"


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the table.

    Attributes:
        what: is measured.
        ours: as shown, with its unit.
        beside: the peer or raw limit, as shown.
        ratio: ours to the other, as shown.
        goal: as the design states it, empty for none.
        is_met: None where there is no goal, or nothing was measured.
        values: the bare numbers, for the JSON file.
    """

    what: str
    ours: str
    beside: str = MISSING
    ratio: str = MISSING
    goal: str = ""
    is_met: bool | None = None
    values: Mapping[str, float] = field(default_factory=dict)


def percentile(values: Iterable[float], share: float) -> float:
    """The smallest value that at least this share of all do not exceed (nearest rank); NaN of nothing."""
    ordered = sorted(values)
    if not ordered:
        return math.nan
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


@dataclass(frozen=True, slots=True)
class Span:
    """When one process ran, in seconds of one clock."""

    started: float
    ended: float


def slot_gaps(spans: Iterable[Span], n_slots: int) -> list[float]:
    """How long each slot stood idle between one process and the next.

    The record knows no slots, so they are told by time: a process that starts takes the slot that has been free for
    longest. With one queue in front of all slots any other choice would pair the same ends and starts, in another order.
    """
    free_since: list[float] = []
    gaps: list[float] = []
    for span in sorted(spans, key=lambda span: span.started):
        if len(free_since) < n_slots:
            free_since.append(span.ended)
            continue
        slot = min(range(n_slots), key=free_since.__getitem__)
        gaps.append(span.started - free_since[slot])
        free_since[slot] = span.ended
    return gaps


_HEADS: Final = ("what", "ours", "peer or raw limit", "ratio", "goal", "met?")


def table(figures: Sequence[Figure]) -> str:
    """All figures as one plain table."""
    rows = [_HEADS, *((f.what, f.ours, f.beside, f.ratio, f.goal or MISSING, _verdict(f)) for f in figures)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADS))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:]])


def _verdict(figure: Figure) -> str:
    return MISSING if figure.is_met is None else "yes" if figure.is_met else "NO"


def write_json(path: Path, figures: Sequence[Figure], machine: Mapping[str, object]) -> None:
    """Keep the bare numbers; those of benchmarks that did not run now stay as they were."""
    path.parent.mkdir(parents=True, exist_ok=True)
    kept = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    fresh = {f.what: {"values": dict(f.values), "goal": f.goal, "is_met": f.is_met, "machine": dict(machine)} for f in figures}
    path.write_text(json.dumps({**kept, **fresh}, indent=1, sort_keys=True) + "\n", encoding="utf-8")
