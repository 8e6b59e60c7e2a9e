"""From YAML text to a tree of values that know where they stand.

Used for the sweep file and the MLproject. It reads what PyYAML's safe loader reads (YAML 1.1, as W&B and MLflow do), with three
differences: numbers such as `1e-5` are floats, dates stay text, a key that stands twice is an error. Every problem is kept with its place,
so that all of them can be told at once. What the keys mean is not known here.
"""

import difflib
import functools
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from msgspec import Struct

from sweeps.errors import Problem, SpecProblems

MAX_BYTES: Final = 1024 * 1024
MAX_DEPTH: Final = 64
MAX_VALUES: Final = 200_000
"""How many values a file may hold after its aliases are expanded; a few nested aliases make billions."""

MAX_INT: Final = 2**63 - 1

# Patterns are compiled at first use: the command line loads this module for every verb.
# The characters YAML allows; the reader's own error has no line.
_NOT_YAML: Final = "[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]"
# Never part of a value: Postgres and argument vectors can't hold NUL, UTF-8 can't hold lone surrogates.
_NOT_TEXT: Final = "[\x00\ud800-\udfff]"
# YAML 1.2's floats, with YAML 1.1's underscores.
_FLOAT: Final = r"^[-+]?(?:[0-9][0-9_]*(?:\.[0-9_]*)?(?:[eE][-+]?[0-9]+)|[0-9][0-9_]*\.[0-9_]*|\.[0-9][0-9_]*(?:[eE][-+]?[0-9]+)?)$"
# A line that is `key:value`, whose colon makes no key without a space after it.
_JOINED: Final = r"^\s*(?:-\s+)*(([\w.-]+):(\S(?:(?!:\s|:$|\s#).)*?))\s*(?:\s#.*)?$"
_TAG: Final = "tag:yaml.org,2002:"


class Place(NamedTuple):
    """Where something stands: line and column from 1, and how many characters it takes. Line 0: nowhere."""

    line: int = 0
    column: int = 0
    width: int = 1


NOWHERE: Final = Place()


class Item(Struct, frozen=True):
    """A value and its place.

    Attributes:
        value: as Python sees it, whole: a mapping's value is a plain dict.
        path: its key path, `parameters.lr.min`.
        text: of a scalar, as it was written (without quotes).
        is_quoted: whether a scalar stood in quotes or in a block.
        keys: of a mapping, the place of each key.
        entries: of a mapping.
        elements: of a list.
    """

    value: Any
    place: Place = NOWHERE
    path: str = ""
    text: str | None = None
    is_quoted: bool = False
    keys: Mapping[str, Place] = {}
    entries: Mapping[str, "Item"] | None = None
    elements: tuple["Item", ...] | None = None

    @property
    def is_nothing(self) -> bool:
        """Whether nothing is said: `null`, or no value at all. What could not be read has no value, but was said."""
        return self.value is None and (self.text or "").lower() in {"", "~", "null"}


class Source(Struct):
    """A text, and the problems found in it so far."""

    filename: str
    lines: list[str] = []
    problems: list[Problem] = []
    _noted: set[tuple[Place, str]] = set()

    def add(self, where: Item | Place, message: str, *, suggestion: str = "", path: str = "") -> None:
        """Note a problem and carry on. What stands behind an anchor is read wherever it is used, and told once."""
        place = where.place if isinstance(where, Item) else where
        if place.line and (place, message) in self._noted:
            return
        self._noted.add((place, message))
        path = path or (where.path if isinstance(where, Item) else "")
        line = self.lines[place.line - 1] if 0 < place.line <= len(self.lines) else ""
        self.problems.append(Problem(message, self.filename, *place, source=line, suggestion=suggestion, path=path))

    def raise_problems(self, *others: "Source") -> None:
        """Tell everything that was found here and in `others`.

        Raises:
            SpecProblems: if anything was found.
        """
        found = [problem for source in (self, *others) for problem in sorted(source.problems, key=lambda p: (p.line, p.column))]
        if found:
            raise SpecProblems(found)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`did you mean 'x'?` for the nearest of the known words, or nothing."""
    near = difflib.get_close_matches(word.lower(), list(known), n=1, cutoff=0.6)
    return f"did you mean '{near[0]}'?" if near else ""


def kind_of(value: Any) -> str:
    """What a value is, in the words of a YAML file."""
    names = {dict: "a mapping", list: "a list", str: "text", bool: "true or false", int: "a number", float: "a number", type(None): "nothing"}
    return names.get(type(value), type(value).__name__)


def read_text(path: Path) -> str:
    """The text of a sweep file or MLproject.

    Raises:
        SpecProblems: it can't be read, is over a megabyte, or is not UTF-8.
    """
    source = Source(str(path))
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_BYTES + 1)
    except OSError as error:
        source.add(NOWHERE, f"can't read the file: {error.strerror or error}")
        source.raise_problems()
        raise
    if len(data) > MAX_BYTES:
        source.add(NOWHERE, "the file is over 1 MB", suggestion="a sweep file is a page of text; is this another file?")
    try:
        return data[:MAX_BYTES].decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if not source.problems:
            before = f"{data[: error.start].decode()}.".splitlines()
            source.add(Place(len(before), len(before[-1])), f"the file is not UTF-8 (byte {error.start})", suggestion="save it as UTF-8")
    finally:
        source.raise_problems()
    raise AssertionError("unreachable: a problem was noted and raised")


def read_yaml(text: str, source: Source) -> Item | None:
    """The tree of a YAML text, or None with the reason among the source's problems."""
    if len(text) > MAX_BYTES or len(text.encode("utf-8", "surrogatepass")) > MAX_BYTES:
        source.add(NOWHERE, "the file is over 1 MB", suggestion="a sweep file is a page of text; is this another file?")
        return None
    text = text.removeprefix("\ufeff")
    source.lines = text.splitlines()
    if bad := re.search(_NOT_YAML, text):
        before = f"{text[: bad.start()]}.".splitlines()
        source.add(Place(len(before), len(before[-1])), f"the character U+{ord(bad[0]):04X} can't stand in a YAML file")
        return None
    node = _compose(text, source)
    if node is not None and (crowded := _too_many(node)) is not None:
        source.add(crowded, f"over {MAX_VALUES} values once aliases are expanded")
        return None
    return None if node is None else _Expander(source).expand(node, "", 0)


def _compose(text: str, source: Source) -> Any:
    """PyYAML's nodes of a text, or None with the reason noted."""
    import yaml  # noqa: PLC0415 -- 35 ms that the command line does not owe for `--help`

    events: list[Any] = []
    try:
        # The composer recurses in C: without this look at the nesting first, a file of brackets ends the process.
        if (deep := _too_deep(text, events)) is not None:
            source.add(deep, f"nested over {MAX_DEPTH} levels")
            return None
        node = yaml.compose(text, Loader=_loader())
    except yaml.MarkedYAMLError as error:
        place = _marked(error.problem_mark or error.context_mark)
        begin = max((mark for mark in (_marked(error.context_mark), _begin_of_open(source, events, place)) if mark != place), default=NOWHERE)
        context = f" ({error.context})" if error.context else ""
        if begin.line and place.line > len(source.lines):
            # What is not closed ends with the file: where it began says more.
            place = begin
        elif begin.line and begin != place and context:
            context = f" ({error.context} that begins at {begin.line}:{begin.column})"
        _add_syntax_error(source, place, error.problem or "it ends too early", context)
        return None
    if node is None:
        source.add(NOWHERE, "the file is empty")
    return node


def from_python(value: Any, path: str = "") -> Item:
    """The tree of a value made in Python: places are key paths only."""
    if isinstance(value, Mapping):
        entries = {str(key): from_python(inner, f"{path}.{key}".lstrip(".")) for key, inner in value.items()}
        return Item({key: item.value for key, item in entries.items()}, path=path, entries=entries)
    if isinstance(value, (list, tuple)):
        elements = tuple(from_python(inner, f"{path}[{index}]") for index, inner in enumerate(value))
        return Item([item.value for item in elements], path=path, elements=elements)
    return Item(value, path=path, text="" if value is None else str(value), is_quoted=isinstance(value, str))


def _too_deep(text: str, seen: list[Any]) -> Place | None:
    """Where it is nested too deep; `seen` holds the lists and mappings that are open, and the last scalar in quotes, as far as it can be read."""
    import yaml  # noqa: PLC0415 -- as above

    for event in yaml.parse(text, Loader=_loader()):
        if seen and seen[-1].__class__ is yaml.ScalarEvent:
            seen.pop()
        if isinstance(event, (yaml.SequenceStartEvent, yaml.MappingStartEvent)):
            if len(seen) == MAX_DEPTH:
                return _marked(event.start_mark)
            seen.append(event)
        elif isinstance(event, (yaml.SequenceEndEvent, yaml.MappingEndEvent)):
            seen.pop()
        elif isinstance(event, yaml.ScalarEvent) and event.style in {"'", '"'}:
            seen.append(event)
    return None


def _begin_of_open(source: Source, seen: list[Any], place: Place) -> Place:
    """Where the innermost bracket stands that is open, or a quote that ends lines below, right where something is wrong."""
    for event in reversed(seen):
        begin, end = event.start_mark, event.end_mark
        # A pair within a list is a mapping without a bracket.
        if source.lines[begin.line][begin.column] in "[{" or (begin.line < end.line == place.line - 1 and event.__class__.__name__ == "ScalarEvent"):
            return _marked(begin)
    return NOWHERE


@functools.cache
def _loader() -> Any:
    """PyYAML's safe loader (libyaml's where there is one) whose plain scalars resolve as this module's docstring says."""
    import yaml  # noqa: PLC0415 -- as above

    base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

    loader: Any = type("Loader", (base,), {})
    loader.yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in rules if tag != f"{_TAG}timestamp"] for first, rules in base.yaml_implicit_resolvers.items()
    }
    loader.add_implicit_resolver(f"{_TAG}float", re.compile(_FLOAT), list("-+0123456789."))
    return loader


def _marked(mark: Any) -> Place:
    """The place of one of PyYAML's marks (its two parsers have a class each), or nowhere."""
    return NOWHERE if mark is None else Place(mark.line + 1, mark.column + 1)


def _add_syntax_error(source: Source, place: Place, problem: str, context: str) -> None:
    line = source.lines[place.line - 1] if 0 < place.line <= len(source.lines) else ""
    indent = line[: len(line) - len(line.lstrip())]
    if "\t" in indent:
        source.add(Place(place.line, indent.index("\t") + 1), "a tab can't indent YAML", suggestion="use spaces")
    elif "another document" in problem:
        source.add(place, "a second YAML document begins here; one file is one document")
    else:
        # The slip behind it stands above: a line without colon goes on to the next one.
        above = next((number for number in range(place.line - 1, 0, -1) if source.lines[number - 1].partition("#")[0].strip()), 0)
        is_for_key = any(words in problem for words in ("mapping values", "expected ':'", "expected key"))
        joined = [(number, found) for number in (place.line, above) if is_for_key and number and (found := re.match(_JOINED, source.lines[number - 1]))]
        if joined:
            number, found = joined[0]
            where = Place(number, found.start(1) + 1, len(found[1]))
            source.add(where, f"'{found[2]}:' has no space after it, and is no key", suggestion=f"write '{found[2]}: {found[3]}'")
            return
        is_bare = "mapping values" in problem and above > 0 and ":" not in source.lines[above - 1]
        source.add(place, f"not valid YAML: {problem}{context}", suggestion=f"line {above} has no ':'" if is_bare else "")


def _too_many(root: Any) -> Place | None:
    """Where a file is that holds too many values once its aliases are expanded: the key of the whole file that is one too many."""
    sizes: dict[int, int] = {}

    def size(node: Any) -> int:
        # An alias stands behind its anchor, whose size is known by then: this goes as deep as the text is nested.
        if id(node) not in sizes:
            sizes[id(node)] = 1  # what contains itself is told when it is expanded
            inner = sum(map(size, node.value)) if node.id == "sequence" else sum(map(size_of_entry, node.value)) if node.id == "mapping" else 0
            sizes[id(node)] = min(1 + inner, MAX_VALUES + 1)
        return sizes[id(node)]

    def size_of_entry(entry: tuple[Any, Any]) -> int:
        size(entry[0])  # keys are not expanded, but may hold anchors
        return size(entry[1])

    total = 1
    for entry in root.value if root.id == "mapping" else [(root, root)]:
        total += size_of_entry(entry)
        if total > MAX_VALUES:
            return _marked(entry[0].start_mark)
    return None


class _Expander:
    """Turns composed nodes into items: resolves scalars, aliases and merge keys."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._open: set[int] = set()

    def expand(self, node: Any, path: str, depth: int) -> Item:
        place = self._place(node)
        if id(node) in self._open or depth > MAX_DEPTH:
            self._source.add(place, "an alias that contains itself" if id(node) in self._open else f"nested over {MAX_DEPTH} levels", path=path)
            return Item(None, place, path)
        self._open.add(id(node))
        try:
            if node.id == "scalar":
                return self._scalar(node, place, path)
            if node.tag not in {f"{_TAG}seq", f"{_TAG}map"}:
                self._source.add(place, f"the tag {node.tag.removeprefix(_TAG)!r} is not understood here", path=path)
            if node.id == "sequence":
                elements = tuple(self.expand(inner, f"{path}[{index}]", depth + 1) for index, inner in enumerate(node.value))
                return Item([item.value for item in elements], place, path, elements=elements)
            return self._mapping(node, place, path, depth)
        finally:
            self._open.discard(id(node))

    def _mapping(self, node: Any, place: Place, path: str, depth: int) -> Item:
        merged: dict[str, tuple[Place, Item]] = {}
        own: dict[str, tuple[Place, Item]] = {}
        for key_node, value_node in node.value:
            if key_node.id == "scalar" and key_node.tag == f"{_TAG}merge":
                for key, entry in self._merged(value_node, path, depth):
                    merged.setdefault(key, entry)
                continue
            name = self._key(key_node)
            if name is None:
                continue
            key_place = self._place(key_node)
            if name in own:
                self._source.add(key_place, f"'{name}' stands twice (first on line {own[name][0].line})", path=path)
                continue
            own[name] = key_place, self.expand(value_node, f"{path}.{name}".lstrip("."), depth + 1)
        found = own | {key: entry for key, entry in merged.items() if key not in own}
        return Item(
            {key: item.value for key, (_, item) in found.items()},
            place,
            path,
            keys={key: key_place for key, (key_place, _) in found.items()},
            entries={key: item for key, (_, item) in found.items()},
        )

    def _merged(self, node: Any, path: str, depth: int) -> Iterator[tuple[str, tuple[Place, Item]]]:
        """The entries that `<<` brings in; the first of a list wins, as in YAML's own rule."""
        for part in node.value if node.id == "sequence" else [node]:
            if part.id != "mapping":
                self._source.add(self._place(part), "'<<' takes a mapping, or a list of mappings", path=path)
                continue
            item = self.expand(part, path, depth + 1)
            for key, inner in (item.entries or {}).items():
                yield key, (item.keys[key], inner)

    def _key(self, node: Any) -> str | None:
        place = self._place(node)
        if node.id != "scalar":
            self._source.add(place, "a key must be text")
            return None
        item = self._scalar(node, place, "")
        if item.text == "on":
            return item.text  # a key of ours, as in `retry: {on: ...}`; YAML 1.1 takes it for true
        if not isinstance(item.value, str):
            self._source.add(place, f"the key {item.text} reads as {kind_of(item.value)}, not as text", suggestion=f'write "{item.text}"')
            return item.text
        return item.value

    def _scalar(self, node: Any, place: Place, path: str) -> Item:
        try:
            value = _scalar_value(node)
        except (ValueError, OverflowError) as error:
            self._source.add(place, str(error), path=path)
            value = None
        if isinstance(value, str) and re.search(_NOT_TEXT, value):
            self._source.add(place, "holds a NUL character or half of a surrogate pair", path=path)
        return Item(value, place, path, text=node.value, is_quoted=bool(node.style))

    def _place(self, node: Any) -> Place:
        start, end = node.start_mark, node.end_mark
        if end.line == start.line:
            return Place(start.line + 1, start.column + 1, max(1, end.column - start.column))
        line = self._source.lines[start.line] if start.line < len(self._source.lines) else ""
        return Place(start.line + 1, start.column + 1, max(1, len(line.rstrip()) - start.column))


def _scalar_value(node: Any) -> Any:
    """The Python value of a scalar node.

    Raises:
        ValueError: the text is no number of its kind, or the tag is not one of ours.
    """
    import yaml  # noqa: PLC0415 -- as above

    constructor = yaml.constructor.SafeConstructor()
    tag = node.tag.removeprefix(_TAG)
    text: str = node.value
    if tag in {"str", "value", "timestamp"}:
        return text
    if tag == "null":
        return None
    if tag == "bool" and text.lower() in constructor.bool_values:
        return constructor.bool_values[text.lower()]
    if tag not in {"int", "float", "bool"}:
        raise ValueError(f"the tag {tag!r} is not understood here")
    try:
        number: int | float = constructor.construct_yaml_int(node) if tag == "int" else constructor.construct_yaml_float(node)
    except (ValueError, IndexError):
        raise ValueError(f"{text[:40]!r} can't be read as {tag}") from None
    if isinstance(number, int) and abs(number) > MAX_INT:
        raise ValueError(f"{text[:40]} is too large for an integer (64 bits)")
    if isinstance(number, float) and math.isinf(number) and "inf" not in text.lower():
        raise ValueError(f"{text[:40]} is too large for a float")
    return number
