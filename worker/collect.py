"""Metrics from standard output (D7): `loss=0.31 epoch=4` becomes a point, for scripts that nobody wants to touch.

Lines end at a newline or a carriage return, so each state of a progress bar counts as a line. Colours are ignored.
"""

import math
import re
import time
from pathlib import Path
from typing import Final

import regex
from msgspec import Struct, field

from tracking.records import Collect, MetricPoint
from worker.errors import BadPattern
from worker.logs import read_from

LINE_BYTES: Final = 1024 * 1024
"""What is longer is looked at up to here."""
PATTERN_LINE_CHARS: Final = 4096
"""How much of a line a pattern of the user's own sees."""
PATTERN_LINE_S: Final = 1.0
"""How long such a pattern may take over one line: a careless one may take time that grows with the square of its length, or worse."""
PATTERN_FEED_S: Final = 5.0
"""How much processor time it may take over one look at the output (of at most 4 MiB): other attempts wait for theirs meanwhile."""
KEY_CHARS: Final = 250
"""The longest key of a metric, as everywhere in the record."""
_MAX_STEP: Final = 2**63 - 1
_POLL_BYTES: Final = 4 * 1024 * 1024

_LINE_ENDS: Final = re.compile(rb"[\r\n]")
_COLOURS: Final = re.compile(rb"\x1b\[[0-9;?]*[ -/]*[@-~]")
_NUMBER: Final = r"[-+]?(?:\d+\.?\d*(?:e[-+]?\d+)?|\.\d+(?:e[-+]?\d+)?|inf(?:inity)?|nan)(?!\.?\w)"
# `loss=0.3`, `loss: 0.3`, `'loss': 0.3`, `loss=tensor(0.3, ...)`, `'loss': np.float64(0.3)`
_FIELD: Final = r"""(?<![\w./\-])(?P<key>{keys})["']?\s*[=:]\s*(?:[a-z_][\w.]*\()?["']?(?P<value>{number})"""
_STEP: Final = re.compile(_FIELD.format(keys="step|epoch", number=_NUMBER), re.IGNORECASE)


class CollectState(Struct, frozen=True):
    """Where a collector stands, to go on from after a restart.

    Attributes:
        offset: of the stream's first byte that no complete line before it holds.
        next_steps: of each key, for lines that name no step.
        is_skipping: whether `offset` lies within a line that was too long.
        is_given_up: whether the pattern took too long, and nothing is read any more.
    """

    offset: int = 0
    next_steps: dict[str, int] = field(default_factory=dict)
    is_skipping: bool = False
    is_given_up: bool = False


class StdoutCollector:
    """Reads metric points from the bytes of one attempt's standard output, in pieces as they come.

    Args:
        collect: what the sweep file says.
        metric_keys: the metrics that the sweep cares about, kept where `collect` names none.
        state: where an earlier collector stood; feed this one from `offset` on.

    A pattern of the user's own that takes too long is given up: nothing more is read from this attempt's output, which goes on.

    Attributes:
        note: a sentence on what was given up or left out, for people; empty if there is nothing to say.

    Raises:
        BadPattern: the pattern is no regular expression, or lacks the groups `key` and `value`.
    """

    def __init__(self, collect: Collect, metric_keys: tuple[str, ...] = (), state: CollectState | None = None) -> None:
        state = state or CollectState()
        self.offset = state.offset
        self._next_steps = dict(state.next_steps)
        self._is_skipping = state.is_skipping
        self._is_given_up = state.is_given_up
        self._rest = b""
        self._keys = frozenset(collect.keys or metric_keys)
        self._reader = _compile(collect, self._keys)
        self._n_left_out = 0

    @property
    def note(self) -> str:
        """See the class."""
        said = []
        if self._is_given_up:
            said.append("The pattern under `collect` took too long over its output and was given up: metrics printed after that are missing.")
        if self._n_left_out:
            said.append(f"{self._n_left_out} metric values in its output were left out: a key may have {KEY_CHARS} characters, and no NUL.")
        return " ".join(said)

    def feed(self, data: bytes, time_ms: int) -> list[MetricPoint]:
        """Take the next bytes of the stream; return the points of the lines that they complete."""
        if self._reader is None:
            self.offset += len(data)
            return []
        self._reader.begin()
        points: list[MetricPoint] = []
        *lines, self._rest = _LINE_ENDS.split(self._rest + data)
        for line in lines:
            if not self._is_skipping:
                points += self._read(line, time_ms)
            self._is_skipping = False
            self.offset += len(line) + 1
        if len(self._rest) > LINE_BYTES:
            points += self._give_up_line(time_ms)
        return points

    def finish(self, time_ms: int) -> list[MetricPoint]:
        """The points of a last line without an end."""
        return self.feed(b"\n", time_ms) if self._rest else []

    def state(self) -> CollectState:
        """Where this collector stands."""
        return CollectState(self.offset, dict(self._next_steps), self._is_skipping, self._is_given_up)

    def _give_up_line(self, time_ms: int) -> list[MetricPoint]:
        """Read what there is of a line that is too long, and skip the rest of it."""
        points = [] if self._is_skipping else self._read(self._rest, time_ms)
        self.offset += len(self._rest)
        self._rest = b""
        self._is_skipping = True
        return points

    def _read(self, line: bytes, time_ms: int) -> list[MetricPoint]:
        if self._reader is None or self._is_given_up or not line:
            return []
        text = _COLOURS.sub(b"", line[:LINE_BYTES]).decode("utf-8", "replace")
        try:
            found = self._reader.read(text)
        except TimeoutError:
            self._is_given_up = True
            return []
        fitting = [one for one in found if len(one[0]) <= KEY_CHARS and "\0" not in one[0]]
        self._n_left_out += len(found) - len(fitting)
        return [MetricPoint(key, value, self._step(key, step), time_ms) for key, value, step in fitting]

    def _step(self, key: str, named: int | None) -> int:
        step = self._next_steps.get(key, 0) if named is None else named
        self._next_steps[key] = min(step + 1, _MAX_STEP)
        return step


Found = tuple[str, float, int | None]
"""Key, value, and the step if the line names one."""


class _FieldReader:
    """`key=value` and its kin, for certain keys. Of a key that stands twice on a line, the last counts."""

    def __init__(self, keys: frozenset[str]) -> None:
        # The longest first: of `acc` and `acc/top5` the regular expression takes the first that fits.
        names = "|".join(re.escape(key) for key in sorted(keys, key=len, reverse=True))
        self._field = re.compile(_FIELD.format(keys=f"(?-i:{names})", number=_NUMBER), re.IGNORECASE)

    def begin(self) -> None:
        """It has no limit to keep."""

    def read(self, text: str) -> list[Found]:
        values = {match["key"]: float(match["value"]) for match in self._field.finditer(text)}
        if not values:
            return []
        step = _named_step(text)
        return [(key, value, step) for key, value in values.items()]


class _PatternReader:
    """A regular expression of the user's own, with groups `key`, `value` and maybe `step`. Without keys, all are kept.

    Python's own `re` can't be stopped and keeps every other thread waiting; the package `regex` reads the same patterns and does neither.
    """

    def __init__(self, pattern: "regex.Pattern[str]", keys: frozenset[str]) -> None:
        self._pattern = pattern
        self._keys = keys
        self._has_step = "step" in pattern.groupindex
        self._until = math.inf

    def begin(self) -> None:
        """Give it new time."""
        self._until = time.thread_time() + PATTERN_FEED_S

    def read(self, text: str) -> list[Found]:
        """What a line holds.

        Raises:
            TimeoutError: it took too long.
        """
        if time.thread_time() > self._until:
            raise TimeoutError
        text = text[:PATTERN_LINE_CHARS]
        found = []
        for match in self._pattern.finditer(text, concurrent=True, timeout=PATTERN_LINE_S):
            value = _parse_number(match["value"])
            if value is None or not match["key"] or (self._keys and match["key"] not in self._keys):
                continue
            step = _parse_step(match["step"]) if self._has_step else _named_step(text)
            found.append((match["key"], value, step))
        return found


def _compile(collect: Collect, keys: frozenset[str]) -> _FieldReader | _PatternReader | None:
    if not collect.stdout:
        return None
    if collect.pattern is None:
        return _FieldReader(keys) if keys else None
    try:
        pattern = regex.compile(collect.pattern)
    except regex.error as error:
        raise BadPattern(f"The pattern {collect.pattern!r} is no regular expression: {error}.") from error
    if not {"key", "value"} <= set(pattern.groupindex):
        raise BadPattern(f"The pattern {collect.pattern!r} lacks the groups (?P<key>...) and (?P<value>...).")
    return _PatternReader(pattern, keys)


def _named_step(text: str) -> int | None:
    """The step of a line: `step` counts before `epoch`; fractions of an epoch are no steps."""
    named = {match["key"].lower(): match["value"] for match in _STEP.finditer(text)}
    return _parse_step(named.get("step", named.get("epoch")))


def _parse_step(text: str | None) -> int | None:
    number = _parse_number(text)
    if number is None or not math.isfinite(number) or number != int(number) or not -_MAX_STEP <= number < _MAX_STEP:
        return None
    return int(number)


def _parse_number(text: str | None) -> float | None:
    try:
        return float((text or "").strip(" \t,;%"))
    except ValueError:
        return None


class MetricTail:
    """Feeds a collector from an attempt's output file; made for one thread."""

    def __init__(self, path: Path, collector: StdoutCollector) -> None:
        self._path = path
        self._collector = collector
        self._offset = collector.offset

    def poll(self, time_ms: int) -> list[MetricPoint]:
        """The points of what is new, of at most 4 MiB at a time."""
        return self._collector.feed(self._next(), time_ms)

    def finish(self, time_ms: int) -> list[MetricPoint]:
        """The points of all the rest, once the attempt has ended."""
        points: list[MetricPoint] = []
        while data := self._next():
            points += self._collector.feed(data, time_ms)
        return points + self._collector.finish(time_ms)

    def _next(self) -> bytes:
        data = read_from(self._path, self._offset, _POLL_BYTES)
        self._offset += len(data)
        return data
