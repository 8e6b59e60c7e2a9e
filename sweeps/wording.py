"""How things are said, wherever they are said: counts with their nouns, spans, times of day, lists, references."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

_UNITS: Final = (("d", 86400), ("h", 3600), ("min", 60))


def counted(count: int, noun: str) -> str:
    """`1 trial`, `2 trials`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def names_trial(ref: str) -> bool:
    """Whether a reference has the form SWEEP/NUMBER; a sweep's own name may have slashes too."""
    sweep, _, number = ref.rpartition("/")
    return bool(sweep) and number.isdecimal()


def no_best_text(short_id: str, metric: str | None, *, is_over: bool) -> str:
    """Why a sweep has no best trial, and whether there may be one yet."""
    if metric is None:
        return f"Sweep {short_id} has no metric to be best by."
    return f"Sweep {short_id} has ended without a finished trial that has a value." if is_over else f"Sweep {short_id} has no finished trial with a value yet."


def span_text(seconds: float) -> str:
    """`12 s`, `4 min 12 s`, `3 h 5 min`, `2 d 4 h`: two units say enough."""
    left = max(round(seconds), 0)
    parts: list[str] = []
    for unit, size in _UNITS:
        if left >= size:
            parts.append(f"{left // size} {unit}")
            left %= size
    parts += [f"{left} s"] if left or not parts else []
    return " ".join(parts[:2])


def clock_text(at: datetime, now: datetime) -> str:
    """`21:03:05 UTC`, with its date where that is not today's."""
    at = at.astimezone(UTC)
    return at.strftime("%H:%M:%S UTC" if at.date() == now.astimezone(UTC).date() else "%Y-%m-%d %H:%M:%S UTC")


def since_text(at: datetime, now: datetime) -> str:
    """`since 21:03:05 UTC (12 s ago)`."""
    return f"since {clock_text(at, now)} ({span_text((now - at).total_seconds())} ago)"


def until_text(at: datetime, now: datetime) -> str:
    """`21:03:05 UTC (in 12 s)`, or that it is due."""
    return f"{clock_text(at, now)} ({'in ' + span_text((at - now).total_seconds()) if at > now else 'due now'})"


def listed(words: Sequence[str], most: int = 4) -> str:
    """`a, b and c`; of many, the first ones and how many more."""
    if len(words) > most:
        return f"{', '.join(words[:most])} and {len(words) - most} more"
    return f"{', '.join(words[:-1])} and {words[-1]}" if len(words) > 1 else "".join(words)
