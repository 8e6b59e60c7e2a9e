"""One list of requests sent to two servers of MLflow's protocol, and what they answer differently.

Ids and times can't be the same: an answer's ids are told by the names under which the list keeps them, others by the order of their first appearance
in it, and a time of today by its presence. What is a set (tags, parameters) is sorted; page tokens are anybody's own. Empty lists and objects count as
absent, as to every reader of protobuf's JSON.
"""

import json
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import httpx

API: Final = "/api/2.0/mlflow/"
ABSENT: Final = "(absent)"
_DAY_MS: Final = 86_400_000
_ID: Final = re.compile(r"(?<![0-9a-f])(?:m-)?[0-9a-f]{32}(?![0-9a-f])|(?<!\d)7\d{5}(?!\d)")
_MADE_NAME: Final = re.compile(r"[a-z]+-[a-z]+-\d{1,4}")
_TIME: Final = re.compile(r"(?<!\d)1[7-9]\d{11}(?!\d)")
_KEPT: Final = re.compile(r"\$(\w+)")
_KEPT_BYTES: Final = re.compile(rb"\$\w+")
_SETS: Final = frozenset(("tags", "params", "dataset_inputs", "dataset_summaries", "model_inputs", "model_outputs"))
# Told with an answer that is no JSON.
_HEADERS: Final = ("content-type", "content-disposition", "content-range", "x-content-type-options")

FIRST_EXPERIMENT: Final = 700_001
"""Both servers number experiments; from here on, so that no other number is taken for one of theirs."""


@dataclass(frozen=True, slots=True)
class Ask:
    """One request.

    Attributes:
        name: its route and what is special about it; there is one of each.
        path: below `API`, or from the root with a leading slash. `$name` here, in the body and the query stands for what was kept under that name.
        body: JSON, or bytes as they are.
        keep: from an answer: a name and the dotted path of the value.
        only: the dotted path of the answer that counts, `*` for all of a list; empty for everything.
    """

    name: str
    method: str
    path: str
    body: Any = None
    query: Sequence[tuple[str, str]] = ()
    headers: Mapping[str, str] = field(default_factory=dict)
    keep: Mapping[str, str] = field(default_factory=dict)
    only: str = ""

    @property
    def route(self) -> str:
        """The part of the name before what is special."""
        return self.name.partition(": ")[0]


@dataclass(frozen=True, slots=True)
class Difference:
    """One place in which two answers differ.

    Attributes:
        where: `answer` for status and error code, `message`, or a dotted path of the body.
    """

    ask: Ask
    where: str
    theirs: Any
    ours: Any

    def __str__(self) -> str:
        return f"{self.ask.name} -- {self.where}: MLflow {shorten(self.theirs)}; here {shorten(self.ours)}"


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server says, made comparable."""

    status: int
    body: Any
    seconds: float

    @property
    def is_fine(self) -> bool:
        """Whether what was asked for was done."""
        return 200 <= self.status < 400

    @property
    def code(self) -> str:
        """Status, and MLflow's error code where it failed."""
        told = self.body.get("error_code", "") if not self.is_fine and isinstance(self.body, dict) else ""
        return f"{self.status} {told}".strip()

    @property
    def message(self) -> str:
        """What it says of a failure."""
        return str(self.body.get("message", "") if isinstance(self.body, dict) else self.body)


class Side:
    """One of the two servers, and the ids it has given.

    Args:
        url: its address.
    """

    def __init__(self, url: str) -> None:
        self.kept: dict[str, str] = {}
        self._client = httpx.Client(base_url=url, timeout=60, trust_env=False, headers={"Connection": "close"})

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def send(self, ask: Ask) -> Answer:
        """Send one request, keep what it asks to keep, and make the answer comparable."""
        path = self._filled(ask.path)
        body = self._filled(ask.body)
        content = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"} if content is not None else {}
        request = self._client.build_request(
            ask.method,
            path if path.startswith("/") else API + path,
            content=content,
            params=[(key, self._filled(value)) for key, value in ask.query] or None,
            headers={**headers, **ask.headers},
        )
        began = time.perf_counter()
        try:
            got = self._client.send(request)
        except httpx.TransportError as error:
            # It is an answer too, and one that must be the same every time.
            return Answer(0, {"error_code": type(error).__name__}, time.perf_counter() - began)
        seconds = time.perf_counter() - began
        body = _parsed(got)
        for name, where in ask.keep.items():
            found = list(_at(body, where.split(".")))
            if found:
                self.kept[name] = str(found[0])
        if ask.only and got.status_code == 200:
            body = list(_at(body, ask.only.split(".")))
        return Answer(got.status_code, self._comparable(body), seconds)

    def _filled(self, value: Any) -> Any:
        """With every `$name` replaced by what was kept; where nothing was, an id that nobody has."""
        if isinstance(value, str):
            return _KEPT.sub(lambda found: self.kept.get(found[1], "f" * 32), value)
        if isinstance(value, bytes):
            return _KEPT_BYTES.sub(lambda found: self._filled(found[0].decode()).encode(), value)
        if isinstance(value, dict):
            return {self._filled(key): self._filled(each) for key, each in value.items()}
        if isinstance(value, list):
            return [self._filled(each) for each in value]
        return value

    def _comparable(self, body: Any) -> Any:
        names = {value: f"<{name}>" for name, value in self.kept.items() if _ID.fullmatch(value)}
        return _normal(body, names, time.time() * 1000)


def replay(asks: Sequence[Ask], theirs: Side, ours: Side) -> Iterator[tuple[Ask, Answer, Answer]]:
    """Send every request to both, in order."""
    for ask in asks:
        yield ask, theirs.send(ask), ours.send(ask)


def differences(ask: Ask, theirs: Answer, ours: Answer) -> list[Difference]:
    """Where two answers to one request differ."""
    if theirs.code != ours.code:
        return [Difference(ask, "answer", _with_message(theirs), _with_message(ours))]
    if not theirs.is_fine:
        return [] if theirs.message == ours.message else [Difference(ask, "message", theirs.message, ours.message)]
    return [Difference(ask, where, *values) for where, *values in _unlike(theirs.body, ours.body, "")]


def shorten(value: Any, most: int = 300) -> str:
    """As it is told in a list of differences."""
    told = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return told if len(told) <= most else told[:most] + f"... ({len(told)} characters)"


def _with_message(answer: Answer) -> str:
    return answer.code if answer.is_fine else f"{answer.code}: {answer.message}"


def _parsed(got: httpx.Response) -> Any:
    is_file = "content-disposition" in got.headers
    if got.headers.get("content-type", "").startswith("application/json") and not is_file:
        return got.json()
    told: dict[str, Any] = {name: got.headers[name] for name in _HEADERS if name in got.headers}
    return {**told, "text": got.content.decode("utf-8", "backslashreplace")} if got.status_code < 400 else got.text


def _at(value: Any, path: Sequence[str]) -> Iterator[Any]:
    """Values at a dotted path; none where it leads nowhere."""
    if not path:
        yield value
        return
    if path[0] == "*" and isinstance(value, list):
        for each in value:
            yield from _at(each, path[1:])
    elif isinstance(value, dict) and path[0] in value:
        yield from _at(value[path[0]], path[1:])
    elif isinstance(value, list) and path[0].isdigit() and int(path[0]) < len(value):
        yield from _at(value[int(path[0])], path[1:])


def _normal(value: Any, names: dict[str, str], now_ms: float, key: str = "", within: str = "") -> Any:
    if isinstance(value, dict):
        return {_text(each, names, now_ms): _normal(inner, names, now_ms, each, key) for each, inner in sorted(value.items()) if inner not in ([], {})}
    if isinstance(value, list):
        made = [_normal(each, names, now_ms, key, within) for each in value]
        is_set = key in _SETS or (key == "metrics" and within == "data")
        return sorted(made, key=lambda each: json.dumps(each, sort_keys=True)) if is_set else made
    if key.endswith("page_token"):
        return "<token>" if value else value
    if isinstance(value, str):
        return _text(value, names, now_ms)
    if isinstance(value, int) and not isinstance(value, bool) and abs(value - now_ms) < _DAY_MS:
        return "<now>"
    return value


def _text(value: str, names: dict[str, str], now_ms: float) -> str:
    def name(found: re.Match[str]) -> str:
        return names.setdefault(found[0], f"<id {len(names) + 1}>")

    if _MADE_NAME.fullmatch(value):
        return "<made name>"
    told = _TIME.sub(lambda found: "<now>" if abs(int(found[0]) - now_ms) < _DAY_MS else found[0], value)
    return _ID.sub(name, told)


def _unlike(theirs: Any, ours: Any, where: str) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(theirs, dict) and isinstance(ours, dict):
        for key in sorted({*theirs, *ours}):
            yield from _unlike(theirs.get(key, ABSENT), ours.get(key, ABSENT), f"{where}.{key}".removeprefix("."))
    elif isinstance(theirs, list) and isinstance(ours, list) and len(theirs) == len(ours) and any(isinstance(each, dict) for each in theirs):
        for number, (their, our) in enumerate(zip(theirs, ours, strict=True)):
            yield from _unlike(their, our, f"{where}.{number}".removeprefix("."))
    elif theirs != ours:
        yield where or "body", theirs, ours
