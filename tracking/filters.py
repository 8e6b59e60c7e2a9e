"""The search grammar of MLflow's `runs/search`: `metrics.loss < 0.1 AND params.model = 'cnn'`, and its `order_by`.

    filter     := [comparison (AND comparison)*]
    comparison := identifier operator value | identifier IN '(' string (',' string)* ')'
    identifier := [entity '.'] key           without an entity: an attribute of the run
    key        := bare | "quoted" | `back-ticked`
    order      := identifier [ASC | DESC]

Text becomes tokens, tokens become frozen clauses; what the clauses mean in SQL is the store's business.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Literal, NamedTuple

from tracking.errors import InvalidValue

Entity = Literal["metric", "param", "tag", "attribute"]
Operator = Literal["=", "!=", ">", ">=", "<", "<=", "LIKE", "ILIKE", "IN"]
Value = str | int | float | tuple[str, ...]

_ENTITIES: Final[Mapping[str, Entity]] = {
    "metric": "metric",
    "metrics": "metric",
    "parameter": "param",
    "parameters": "param",
    "param": "param",
    "params": "param",
    "tag": "tag",
    "tags": "tag",
    "attribute": "attribute",
    "attributes": "attribute",
    "attr": "attribute",
    "run": "attribute",
}
_ALIASES: Final[Mapping[str, str]] = {
    "created": "start_time",
    "Created": "start_time",
    "run name": "run_name",
    "Run name": "run_name",
    "Run Name": "run_name",
}
_NUMERIC_ATTRIBUTES: Final = frozenset({"start_time", "end_time"})
_STRING_ATTRIBUTES: Final = frozenset({"run_id", "run_name", "user_id", "status", "artifact_uri"})
_ATTRIBUTES: Final = _NUMERIC_ATTRIBUTES | _STRING_ATTRIBUTES
_COMPARISONS: Final[frozenset[Operator]] = frozenset({"=", "!=", ">", ">=", "<", "<="})
_TEXT_OPERATORS: Final[frozenset[Operator]] = frozenset({"=", "!=", "LIKE", "ILIKE"})


@dataclass(frozen=True, slots=True)
class Clause:
    """One comparison.

    Attributes:
        key: of the metric, parameter or tag; or the attribute's name with aliases resolved.
        value: a float for a metric, an int (ms) or float for a time, a tuple for IN, else a string.
    """

    entity: Entity
    key: str
    op: Operator
    value: Value


@dataclass(frozen=True, slots=True)
class OrderBy:
    """One sort key, ascending unless it says otherwise."""

    entity: Entity
    key: str
    descending: bool = False


def parse_filter(text: str) -> tuple[Clause, ...]:
    """The comparisons of a filter string, all of which a run must meet; an empty string has none.

    Raises:
        InvalidValue: the text is not of this grammar; the message names the position.
    """
    parser = _Parser(text, "filter")
    if parser.next_is(_Kind.END):
        return ()
    clauses = [parser.comparison()]
    while parser.take_word("AND"):
        clauses.append(parser.comparison())
    parser.expect_end("AND")
    return tuple(clauses)


def parse_order_by(texts: Sequence[str]) -> tuple[OrderBy, ...]:
    """The sort keys of `order_by`, the first one deciding first.

    Raises:
        InvalidValue: a text is not of this grammar, or two name the same key.
    """
    keys: list[OrderBy] = []
    for text in texts:
        key = _Parser(text, "order_by").order()
        if any((key.entity, key.key) == (other.entity, other.key) for other in keys):
            raise InvalidValue(f"order_by names {key.entity}.{key.key} twice.")
        keys.append(key)
    return tuple(keys)


class _Kind(StrEnum):
    WORD = "word"
    STRING = "string"
    BACKTICK = "backtick"
    NUMBER = "number"
    OPERATOR = "operator"
    DOT = "dot"
    OPEN = "open"
    CLOSE = "close"
    COMMA = "comma"
    END = "end"


class _Token(NamedTuple):
    kind: _Kind
    text: str
    at: int


# A number before a word: `1e3` is a number. A word may hold what MLflow allows in a key without quotes, dots included:
# `params.a.b` is the parameter `a.b`.
_TOKEN: Final = re.compile(
    r"""
      (?P<number>[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?(?![\w./-]))
    | (?P<string>'(?:[^']|'')*'|"(?:[^"]|"")*")
    | (?P<backtick>`[^`]*`)
    | (?P<word>\w[\w./-]*)
    | (?P<operator><=|>=|!=|<>|=|<|>)
    | (?P<dot>\.)
    | (?P<open>\()
    | (?P<close>\))
    | (?P<comma>,)
    """,
    re.VERBOSE,
)


def _tokens(text: str, what: str) -> list[_Token]:
    tokens: list[_Token] = []
    at = 0
    while True:
        at += len(text[at:]) - len(text[at:].lstrip())
        if at == len(text):
            return [*tokens, _Token(_Kind.END, "", at)]
        found = _TOKEN.match(text, at)
        if found is None or found.lastgroup is None:
            reason = "a quote that is not closed" if text[at] in "'\"`" else f"{text[at]!r}, which has no meaning here"
            raise _refusal(what, text, at, reason)
        tokens.append(_Token(_Kind(found.lastgroup), found.group(), at))
        at = found.end()


def _refusal(what: str, text: str, at: int, problem: str) -> InvalidValue:
    return InvalidValue(f"Invalid {what} {text!r}: at position {at}, {problem}.")


class _Parser:
    """Reads one text from left to right, one method for each rule of the grammar."""

    def __init__(self, text: str, what: str) -> None:
        self._text = text
        self._what = what
        self._tokens = _tokens(text, what)
        self._position = 0

    def comparison(self) -> Clause:
        """`identifier operator value`."""
        start = self._peek()
        entity, key = self._identifier()
        op = self._operator()
        allowed = _operators_of(entity, key)
        if op not in allowed:
            raise self._error(start, f"{op} can't be used with {entity}.{key}; use one of {', '.join(sorted(allowed))}")
        return Clause(entity, key, op, self._value(entity, key, op))

    def order(self) -> OrderBy:
        """`identifier [ASC | DESC]`, the whole text."""
        entity, key = self._identifier()
        descending = self.take_word("DESC")
        if not descending:
            self.take_word("ASC")
        self.expect_end("ASC or DESC")
        return OrderBy(entity, key, descending)

    def next_is(self, kind: _Kind) -> bool:
        """Whether the next token is of this kind."""
        return self._peek().kind is kind

    def take_word(self, word: str) -> bool:
        """Go past `word`, in any case, if it is next."""
        token = self._peek()
        is_next = token.kind is _Kind.WORD and token.text.upper() == word
        self._position += is_next
        return is_next

    def expect_end(self, expected: str) -> None:
        """Refuse anything that follows."""
        token = self._peek()
        if token.kind is _Kind.END:
            return
        if token.text.upper() in {"OR", "NOT"}:
            raise self._error(token, f"{token.text.upper()} is not supported; comparisons are joined by AND")
        raise self._unexpected(token, f"{expected} or the end")

    def _peek(self) -> _Token:
        return self._tokens[self._position]

    def _take(self) -> _Token:
        token = self._tokens[self._position]
        self._position += token.kind is not _Kind.END
        return token

    def _error(self, token: _Token, problem: str) -> InvalidValue:
        return _refusal(self._what, self._text, token.at, problem)

    def _unexpected(self, token: _Token, expected: str) -> InvalidValue:
        found = repr(token.text) if token.text else "the end"
        return self._error(token, f"expected {expected}, found {found}")

    def _identifier(self) -> tuple[Entity, str]:
        token = self._take()
        if token.kind is _Kind.WORD:
            name, dot, key = token.text.partition(".")
            if not dot:
                return "attribute", self._key(token, "attribute", name)
            # `params."a b"` ends its word with the dot; the quoted key follows.
            return self._entity(token, name), self._key(token, name, key or self._quoted_key())
        if token.kind is _Kind.BACKTICK:
            return self._after_backticks(token)
        if token.kind is _Kind.STRING:
            return "attribute", self._key(token, "attribute", _unquoted(token.text))
        if token.kind is _Kind.OPEN:
            raise self._error(token, "parentheses are not supported outside IN lists")
        raise self._unexpected(token, "an identifier such as metrics.loss")

    def _after_backticks(self, token: _Token) -> tuple[Entity, str]:
        """`` `params`.key`` or, alone, an attribute in back-ticks."""
        name = token.text[1:-1]
        if not self.next_is(_Kind.DOT):
            return "attribute", self._key(token, "attribute", name)
        self._take()
        key = self._take().text if self.next_is(_Kind.WORD) else self._quoted_key()
        return self._entity(token, name), self._key(token, name, key)

    def _quoted_key(self) -> str:
        token = self._take()
        if token.kind is _Kind.BACKTICK:
            return token.text[1:-1]
        if token.kind is _Kind.STRING and token.text[0] == '"':
            return _unquoted(token.text)
        raise self._unexpected(token, "a key after the dot")

    def _entity(self, token: _Token, name: str) -> Entity:
        if name in {"dataset", "datasets"}:
            raise self._error(token, "datasets are not recorded and can't be searched")
        entity = _ENTITIES.get(name)
        if entity is None:
            raise self._error(token, f"{name!r} is not one of metrics, params, tags, attributes")
        return entity

    def _key(self, token: _Token, entity_name: str, key: str) -> str:
        if _ENTITIES.get(entity_name) != "attribute":
            return key
        key = _ALIASES.get(key, key)
        if key not in _ATTRIBUTES:
            raise self._error(token, f"{key!r} is no attribute of a run; there are {', '.join(sorted(_ATTRIBUTES))}")
        return key

    def _operator(self) -> Operator:
        token = self._take()
        op = {"<>": "!="}.get(token.text, token.text.upper())
        match op:
            case "=" | "!=" | ">" | ">=" | "<" | "<=" | "LIKE" | "ILIKE" | "IN":
                return op
            case "IS" | "NOT" | "RLIKE" | "BETWEEN":
                raise self._error(token, f"{op} is not supported")
            case _:
                raise self._unexpected(token, "an operator")

    def _value(self, entity: Entity, key: str, op: Operator) -> Value:
        if op == "IN":
            return self._strings()
        if entity == "metric":
            return float(self._number())
        if entity == "attribute" and key in _NUMERIC_ATTRIBUTES:
            text = self._number()
            return int(text) if text.lstrip("+-").isdigit() else float(text)
        return self._string()

    def _number(self) -> str:
        token = self._take()
        if token.kind is not _Kind.NUMBER:
            raise self._unexpected(token, "a number without quotes")
        return token.text

    def _string(self) -> str:
        token = self._take()
        if token.kind is not _Kind.STRING:
            raise self._unexpected(token, "a string in quotes")
        return _unquoted(token.text)

    def _strings(self) -> tuple[str, ...]:
        self._expect(_Kind.OPEN, "'('")
        values = [self._string()]
        while self.next_is(_Kind.COMMA):
            self._take()
            values.append(self._string())
        self._expect(_Kind.CLOSE, "',' or ')'")
        return tuple(values)

    def _expect(self, kind: _Kind, expected: str) -> None:
        token = self._take()
        if token.kind is not kind:
            raise self._unexpected(token, expected)


def _operators_of(entity: Entity, key: str) -> frozenset[Operator]:
    if entity == "metric" or (entity == "attribute" and key in _NUMERIC_ATTRIBUTES):
        return _COMPARISONS
    if (entity, key) == ("attribute", "run_id"):
        return _TEXT_OPERATORS | {"IN"}
    return _TEXT_OPERATORS


def _unquoted(text: str) -> str:
    quote = text[0]
    return text[1:-1].replace(quote * 2, quote)
