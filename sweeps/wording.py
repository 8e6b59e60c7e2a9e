"""How things are said, wherever they are said: counts with their nouns, spans, times of day, lists, references."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Final

_MINUTE_S: Final = 60
_HOUR_S: Final = 3600
_DAY_S: Final = 86400
_UNITS: Final = (("d", 86400), ("h", 3600), ("min", 60))

Tell = Callable[[str], None]
"""Takes a sentence for people."""


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


def one_line(cell: object) -> str:
    """A value as one printable line, `-` for none. What a trial's parameters hold is shown, never obeyed: no escape sequence reaches the terminal."""
    text = "-" if cell is None or cell == "" else str(cell)
    return "".join(char if char.isprintable() else " " for char in text)


def clean(text: str) -> str:
    """Text of others as one printable line."""
    return one_line(text) if text else ""


def short(value: object) -> str:
    """A value for people: floats to five digits."""
    if isinstance(value, float):
        return f"{value:.5g}"
    return "-" if value is None else clean(str(value))


def duration_text(seconds: float | None) -> str:
    """`850ms`, `12s`, `4m12s`, `3h05m`, `2d04h`."""
    if seconds is None:
        return "-"
    if seconds < 1:
        return f"{seconds * 1000:.0f}ms"
    whole = round(seconds)
    if whole < _MINUTE_S:
        return f"{whole}s"
    if whole < _HOUR_S:
        return f"{whole // 60}m{whole % 60:02d}s"
    if whole < _DAY_S:
        return f"{whole // 3600}h{whole % 3600 // 60:02d}m"
    return f"{whole // 86400}d{whole % 86400 // 3600:02d}h"


def bytes_text(size: int) -> str:
    """`512 B`, `2.1 kB`, `3.0 GB`."""
    amount = float(size)
    for unit in ("B", "kB", "MB"):
        if amount < 1000:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1000
    return f"{amount:.1f} GB"
