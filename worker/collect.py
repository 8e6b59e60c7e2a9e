"""Metrics from standard output (D7): `loss=0.31 epoch=4` becomes a point, for scripts that nobody wants to touch.

Lines end at a newline or a carriage return, so each state of a progress bar counts as a line. Colours are ignored. A line that is a JSON
object is read as one only; any other is searched for `key=value` and its kin, or by a pattern of the user's own.
"""

import json
import math
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import regex
from msgspec import Struct, field

from tracking.records import Collect, MetricPoint
from worker.errors import BadPattern
from worker.folders import file_size
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
PRINTED_NAMES: Final = 100
_MAX_STEP: Final = 2**63 - 1
POLL_BYTES: Final = 4 * 1024 * 1024
_BLOCK_BYTES: Final = 256 * 1024
"""How much is searched at a time: other threads wait while it is, a few milliseconds at most."""

# What a terminal acts on and does not show: colours, and what moves the cursor, erases, or sets titles and links. None goes on past its line.
_COLOURS: Final = re.compile(rb"\x1b\[[0-9:;]*m|\x1b\(B")
_CONTROLS: Final = re.compile(rb"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b\n]*(?:\x07|\x1b\\)|[ -/]+[0-~]|[0-Z\\^-~])|[\b]+")
# Nothing that goes on as a word, a version or, after a comma, as `1,234`: which number that is can't be known.
_NUMBER: Final = r"[-+]?(?:\d+\.?\d*(?:e[-+]?\d+)?|\.\d+(?:e[-+]?\d+)?|inf(?:inity)?|nan)(?!\.?\w|,\d)"
# `loss=0.3`, `loss: 0.3`, `'loss': 0.3`, `loss=tensor(0.3, ...)`, `'loss': np.float64(0.3)`
_FIELD: Final = r"""(?<![\w./\-])(?P<key>{keys})["']?\s*[=:]\s*(?:[a-z_][\w.]*\()?["']?(?P<value>{number})"""
_STEP: Final = re.compile(_FIELD.format(keys="step|global_step|epoch", number=_NUMBER), re.IGNORECASE)
# `Epoch 3`, `epoch [3/10]`, `Step: [90/500]`, for lines that have no `step=` or `epoch=`.
_TITLED_STEP: Final = re.compile(r"(?<![\w./\-])(?P<key>step|epoch)(?:\s{0,4}:?\s{0,4}\[\s{0,4}|\s{1,4})(?P<value>\d+)(?![\w.,]\d|\w)", re.IGNORECASE)
_ANY_FIELD: Final = re.compile(_FIELD.format(keys=r"[a-z_][\w./\-]{0,99}", number=_NUMBER), re.IGNORECASE)
_STEP_NAMES: Final = ("step", "global_step", "epoch")
"""Which one counts, where a line has several."""
_JSON_DEPTH: Final = 8
"""How deep a key that is given by its path, such as `val.loss`, may lie."""
_PATTERN_WORDS: Final = {
    r"\key": r"[^ \t:=]+",
    r"\value": r"(?:[-+]?(?:(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?|[iI]nf(?:inity)?|[nN]a[nN]))",
    r"\step": r"\d+",
}
"""Guild's words in a pattern, as in `^(\\key): (\\value)$`."""


class CollectState(Struct, frozen=True):
    """Where a collector stands, to go on from after a restart.

    Attributes:
        offset: of the stream's first byte that no complete line before it holds.
        next_steps: of each key, one more than its highest.
        times: of each key, the latest of its points, in milliseconds.
        counted: keys of which some line named no whole step.
        is_skipping: whether `offset` lies within a line that was too long.
        is_given_up: whether the pattern took too long, and nothing is read any more.
    """

    offset: int = 0
    next_steps: dict[str, int] = field(default_factory=dict)
    times: dict[str, int] = field(default_factory=dict)
    counted: frozenset[str] = frozenset()
    is_skipping: bool = False
    is_given_up: bool = False


class StdoutCollector:
    """Reads metric points from the bytes of one attempt's standard output, in pieces as they come.

    Args:
        collect: what the sweep file says.
        metric_keys: the metrics that the sweep cares about, read whatever else `collect` names.
        state: where an earlier collector stood; feed this one from `offset` on.

    A pattern of the user's own that takes too long is given up: nothing more is read from this attempt's output, which goes on.

    Attributes:
        note: a sentence on what was given up or left out, for people; empty if there is nothing to say.

    Raises:
        BadPattern: the pattern is no regular expression, or has no groups that say which metric and which value.
    """

    def __init__(self, collect: Collect, metric_keys: tuple[str, ...] = (), state: CollectState | None = None) -> None:
        state = state or CollectState()
        self.offset = state.offset
        self._next_steps = dict(state.next_steps)
        self._times = dict(state.times)
        self._counted = set(state.counted)
        self._is_skipping = state.is_skipping
        self._is_given_up = state.is_given_up
        self._rest = b""
        self._barren: set[bytes] = set()
        self._reader = _compile(collect, metric_keys)
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
        for start in range(0, len(data), _BLOCK_BYTES):
            points += self._take(data[start : start + _BLOCK_BYTES], time_ms)
        return points

    def finish(self, time_ms: int) -> list[MetricPoint]:
        """The points of a last line without an end."""
        return self.feed(b"\n", time_ms) if self._rest else []

    def state(self) -> CollectState:
        """Where this collector stands."""
        return CollectState(
            self.offset,
            next_steps=dict(self._next_steps),
            times=dict(self._times),
            counted=frozenset(self._counted),
            is_skipping=self._is_skipping,
            is_given_up=self._is_given_up,
        )

    def _take(self, data: bytes, time_ms: int) -> list[MetricPoint]:
        block = self._rest + data.replace(b"\r", b"\n")
        end = block.rfind(b"\n") + 1
        begin = block.index(b"\n") + 1 if self._is_skipping and end else 0
        self._is_skipping = self._is_skipping and not end
        self._rest = block[end:]
        self.offset += end
        points = self._read_lines(block[begin:end], time_ms)
        if len(self._rest) > LINE_BYTES:
            points += self._give_up_line(time_ms)
        return points

    def _give_up_line(self, time_ms: int) -> list[MetricPoint]:
        """Read what there is of a line that is too long, and skip the rest of it."""
        points = [] if self._is_skipping else self._read_lines(self._rest + b"\n", time_ms)
        self.offset += len(self._rest)
        self._rest = b""
        self._is_skipping = True
        return points

    def _read_lines(self, block: bytes, time_ms: int) -> list[MetricPoint]:
        """The points of whole lines, each with its end."""
        if self._reader is None or self._is_given_up:
            return []
        if b"\x1b" in block or b"\b" in block:
            # What stood on both sides of a move of the cursor is not one word.
            block = _CONTROLS.sub(b" ", _COLOURS.sub(b"", block))
        self._barren.clear()
        return [point for line in self._reader.candidates(block) for point in self._read(line, time_ms)]

    def _read(self, line: bytes, time_ms: int) -> list[MetricPoint]:
        # Lines that repeat by the million hold nothing the second time either.
        if self._reader is None or self._is_given_up or not line or line in self._barren:
            return []
        line = line[:LINE_BYTES]
        text = line.decode("utf-8", "replace")
        try:
            found = self._reader.read(text)
        except TimeoutError:
            self._is_given_up = True
            return []
        if not found:
            self._barren.add(line)
        fitting = [one for one in found if len(one[0]) <= KEY_CHARS and "\0" not in one[0]]
        self._n_left_out += len(found) - len(fitting)
        return [self._place(key, value, step, time_ms) for key, value, step in fitting]

    def _place(self, key: str, value: float, named: int | None, time_ms: int) -> MetricPoint:
        """A point by its step and time: in that order a series is read, and its last point is the one that was printed last.

        A series that has to be counted is counted on wherever a step that is named would go back. Where the step does not go forward, the
        time does: a whole look at the output has one time, and of points with one step and one time the greatest would count.
        """
        following = self._next_steps.get(key, named or 0)
        if named is None:
            self._counted.add(key)
        step = following if named is None or (key in self._counted and named < following) else named
        step = min(step, _MAX_STEP)
        last_ms = self._times.get(key, -1)
        if step < following and time_ms <= last_ms:
            time_ms = last_ms + 1
        self._next_steps[key] = max(following, step + 1)
        self._times[key] = max(last_ms, time_ms)
        return MetricPoint(key, value, step, time_ms)


Found = tuple[str, float, int | None]
"""Key, value, and the step if the line names one."""


class _FieldReader:
    """`key=value` and its kin, for certain keys. Of a key that stands twice on a line, the last counts."""

    def __init__(self, keys: frozenset[str]) -> None:
        # The longest first: of `acc` and `acc/top5` the regular expression takes the first that fits.
        names = "|".join(re.escape(key) for key in sorted(keys, key=len, reverse=True))
        self._keys = keys
        self._field = re.compile(_FIELD.format(keys=f"(?-i:{names})", number=_NUMBER), re.IGNORECASE)
        # Without these no line holds a metric. JSON may have a key by its path, whose last part stands there, or with escapes. U+FFFD
        # stands for any bytes that are no UTF-8. After the key comes a quote, a space of whatever alphabet, or a sign.
        ends = sorted({re.escape(re.split("[./\ufffd]", key)[-1].encode("utf-8", "surrogatepass")) for key in keys})
        signs = rb"(?:" + b"|".join(ends) + rb""")["']?[\x00-\x20=:\x80-\xff]"""
        self._signs, self._signs_or_escape = re.compile(signs), re.compile(rb"\\|" + signs)

    def begin(self) -> None:
        """It has no limit to keep."""

    def candidates(self, block: bytes) -> Iterator[bytes]:
        """The lines of a block that may hold a metric: it is searched as a whole, since most hold none."""
        search = (self._signs_or_escape if b"\\" in block else self._signs).search
        at = 0
        while (sign := search(block, at)) is not None:
            start, at = block.rfind(b"\n", at, sign.start()) + 1 or at, block.index(b"\n", sign.start()) + 1
            yield block[start : at - 1]

    def read(self, text: str) -> list[Found]:
        fields = _json_fields(text)
        if fields is not None:
            return self._read_json(fields)
        values = {match["key"]: float(match["value"]) for match in self._field.finditer(text)}
        step = _named_step(text) if values else None
        return [(key, value, step) for key, value in values.items()]

    def _read_json(self, fields: dict[str, Any]) -> list[Found]:
        """Fields of the object and of those within it; texts are no metrics, whatever they say."""
        inner = _json_numbers(fields)
        values = {key: _parse_number(inner.get(key)) if (value := _json_number(fields, key)) is None else value for key in self._keys}
        named = {name.lower(): value for name, value in reversed(inner.items())}
        steps = (_parse_step(where.get(name)) for where in (fields, named) for name in _STEP_NAMES)
        step = next((step for step in steps if step is not None), None)
        return [(key, value, step) for key, value in values.items() if value is not None]


class _PatternReader:
    """A regular expression of the user's own. Without keys, all that it finds are kept; `others` are wanted too.

    Its groups may be as other tools have them: named `key` and `value` (`_key` and `_val`) and maybe `step`; named for metrics, each
    holding that one's value; two or more without names, key and value; or a single one, the value of the only key that is wanted.

    Python's own `re` can't be stopped and keeps every other thread waiting; the package `regex` reads the same patterns and does neither.

    Attributes:
        unread: those of `others` that it can't find, since its groups stand for certain metrics.
    """

    def __init__(self, pattern: "regex.Pattern[str]", keys: frozenset[str], others: frozenset[str] = frozenset()) -> None:
        self._pattern = pattern
        self._keys = keys | others
        self._sources = _sources(pattern, keys)
        named = {key for key, _ in self._sources if isinstance(key, str)}
        self.unread = others - named if len(named) == len(self._sources) else frozenset()
        self._step_group = pattern.groupindex.get("step") or pattern.groupindex.get("_step")
        self._until = math.inf

    def begin(self) -> None:
        """Give it new time."""
        self._until = time.thread_time() + PATTERN_FEED_S

    def candidates(self, block: bytes) -> list[bytes]:
        """The lines of a block; only the pattern knows which hold something."""
        return block.split(b"\n")

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
            named = [(match[key] if isinstance(key, int) else key, _parse_number(match[value])) for key, value in self._sources]
            wanted = [(key, value) for key, value in named if key and value is not None and (not self._keys or key in self._keys)]
            if wanted:
                step = _parse_step(match[self._step_group]) if self._step_group else _named_step(text)
                found += [(key, value, step) for key, value in wanted]
        return found


class _ReadersReader:
    """Several ways to read a line, such as a regular expression for each metric, as SageMaker's metric definitions have it."""

    def __init__(self, readers: list[_PatternReader | _FieldReader]) -> None:
        self._readers = readers
        self._until = math.inf

    def begin(self) -> None:
        """Give all of them together new time."""
        self._until = time.thread_time() + PATTERN_FEED_S

    def candidates(self, block: bytes) -> list[bytes]:
        """See `_PatternReader`."""
        return block.split(b"\n")

    def read(self, text: str) -> list[Found]:
        """What a line holds, by all patterns.

        Raises:
            TimeoutError: they took too long.
        """
        found = []
        for reader in self._readers:
            if time.thread_time() > self._until:
                raise TimeoutError
            found += reader.read(text)
        return found


def _sources(pattern: "regex.Pattern[str]", keys: frozenset[str]) -> list[tuple[int | str, int]]:
    """Where a match has its metrics: the group of the key, or the key itself, and the group of the value.

    Raises:
        BadPattern: the groups don't say.
    """
    groups = {name: number for name, number in pattern.groupindex.items() if name not in {"step", "_step"}}
    unnamed = [number for number in range(1, pattern.groups + 1) if number not in pattern.groupindex.values()]
    key, value = groups.get("key") or groups.get("_key"), groups.get("value") or groups.get("_val")
    if key and value:
        return [(key, value)]
    if groups and not key and not value:
        return list(groups.items())
    if not groups and len(unnamed) > 1:
        return [(unnamed[0], unnamed[1])]
    # One value, in a group with its name or without.
    values = [value] if value else unnamed
    if not key and len(values) == 1 and len(keys) == 1:
        return [(next(iter(keys)), values[0])]
    raise BadPattern(f"The pattern {pattern.pattern!r} lacks the groups (?P<key>...) and (?P<value>...).")


def _compile(collect: Collect, metric_keys: tuple[str, ...]) -> _FieldReader | _PatternReader | _ReadersReader | None:
    if not collect.stdout:
        return None
    objectives = frozenset(metric_keys)
    keys = objectives.union(collect.keys)
    readers: list[_PatternReader | _FieldReader]
    if collect.patterns:
        readers = [_PatternReader(_compile_pattern(pattern), frozenset({name})) for name, pattern in collect.patterns.items()]
        unread = objectives - collect.patterns.keys()
    elif collect.pattern is None:
        return _FieldReader(keys) if keys else None
    else:
        reader = _PatternReader(_compile_pattern(collect.pattern), frozenset(collect.keys) or objectives, objectives)
        readers, unread = [reader], reader.unread
    if unread:
        # No pattern says how the sweep's own metric is printed.
        readers.append(_FieldReader(frozenset(unread)))
    return readers[0] if len(readers) == 1 else _ReadersReader(readers)


def _compile_pattern(pattern: str) -> "regex.Pattern[str]":
    try:
        return regex.compile(re.sub(r"\\(?:key|value|step)\b|\\.", lambda word: _PATTERN_WORDS.get(word[0], word[0]), pattern, flags=re.DOTALL))
    except regex.error as error:
        raise BadPattern(f"The pattern {pattern!r} is no regular expression: {error}.") from error


def _named_step(text: str) -> int | None:
    """The step of a line: `step` counts before `epoch`, and `step=3` before `Step 3`; fractions of an epoch are no steps."""
    named = {match["key"].lower(): match["value"] for match in _STEP.finditer(text)}
    if not named:
        named = {match["key"].lower(): match["value"] for match in _TITLED_STEP.finditer(text)}
    return _parse_step(next((named[name] for name in _STEP_NAMES if name in named), None))


def _json_fields(text: str) -> dict[str, Any] | None:
    """The fields of a line that is a JSON object, with Python's NaN and infinities; None for any other line."""
    text = text.strip()
    if not (text.startswith("{") and text.endswith("}")):
        return None
    try:
        # Numbers stay text: of any length, and their value is taken only where they are wanted.
        fields = json.loads(text, parse_int=str, parse_float=str)
    except (ValueError, RecursionError):
        return None
    return fields if isinstance(fields, dict) else None


def _json_number(fields: dict[str, Any], key: str, depth: int = _JSON_DEPTH) -> float | None:
    """The number of a key: a field, or by its path with dots or slashes a field of a field."""
    value = fields.get(key)
    if isinstance(value, str | float):
        return _parse_number(value)
    for match in re.finditer(r"[./]", key) if depth else ():
        inner = fields.get(key[: match.start()])
        if isinstance(inner, dict) and (number := _json_number(inner, key[match.end() :], depth - 1)) is not None:
            return number
    return None


def _json_numbers(fields: dict[str, Any]) -> dict[str, str | float]:
    """The numbers of an object and of all objects within it by their names alone; of two with one name the one that lies less deep."""
    found: dict[str, str | float] = {}
    level: list[Any] = [fields]
    while level:
        objects = [value for value in level if isinstance(value, dict)]
        numbers = {key: value for each in objects for key, value in each.items() if isinstance(value, str | float) and _parse_number(value) is not None}
        for key, value in numbers.items():
            found.setdefault(key, value)
        level = [inner for value in level for inner in (value.values() if isinstance(value, dict) else value) if isinstance(inner, dict | list)]
    return found


def _parse_step(text: object) -> int | None:
    number = _parse_number(text)
    if number is None or not math.isfinite(number) or number != int(number) or not -_MAX_STEP <= number < _MAX_STEP:
        return None
    return int(number)


def _parse_number(text: object) -> float | None:
    """A number as people print it; JSON's NaN and infinities are numbers already."""
    if isinstance(text, float):
        return text
    try:
        return float(text.strip(" \t,;%")) if isinstance(text, str) else None
    except ValueError:
        return None


def printed_names(data: bytes) -> tuple[str, ...]:
    """Under which names an output has numbers, whether or not anybody asked for them: the last `PRINTED_NAMES`, the latest last."""
    names: dict[str, None] = {}
    for line in _CONTROLS.sub(b" ", _COLOURS.sub(b"", data)).replace(b"\r", b"\n").split(b"\n"):
        for match in _ANY_FIELD.finditer(line.decode("utf-8", "replace")):
            names.pop(match["key"], None)
            names[match["key"]] = None
    return tuple(names)[-PRINTED_NAMES:]


class MetricTail:
    """Feeds a collector from an attempt's output file; made for one thread."""

    def __init__(self, path: Path, collector: StdoutCollector) -> None:
        self._path = path
        self._collector = collector
        self._offset = collector.offset

    @property
    def n_read_bytes(self) -> int:
        """How much of the file has been read."""
        return self._offset

    @property
    def n_left_bytes(self) -> int:
        """How much of it has not."""
        return max(0, file_size(self._path) - self._offset)

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
        data = read_from(self._path, self._offset, POLL_BYTES)
        self._offset += len(data)
        return data
