"""The search grammar: MLflow's `metrics.loss < 0.1 AND params.model = 'cnn'` and its `order_by`, and more beside it.

    filter      := disjunction | nothing: everything is found
    disjunction := conjunction (OR conjunction)*
    conjunction := term (AND term)*
    term        := NOT term | '(' disjunction ')' | comparison
    comparison  := identifier operator value
                 | identifier [NOT] IN '(' string (',' string)* [','] ')'
                 | identifier IS [NOT] NULL          of parameters and tags
    identifier  := [entity '.'] key                  without an entity: an attribute
    key         := letters, digits, _ and dots | "quoted" | 'quoted' | `back-ticked`
    order       := identifier [ASC | DESC]

Words are taken in any case, entities and keys as they are written. What MLflow accepts means here what it means there, down to
comparisons that stand side by side without AND. OR, NOT, parentheses, IN on parameters, tags and every attribute that is a text, and
numbers beside parameters (`params.lr < 0.1`) are ours.

A comparison with what an object does not have is false, also `!=` and NOT IN; IS NULL is how to ask for it. NOT takes what the term
after it leaves: `NOT params.a = 'x'` finds runs without `a`, `params.a != 'x'` does not.

Text becomes tokens, tokens become a tree of frozen nodes; what the nodes mean in SQL is `tracking.queries.search`'s business. Nothing
a client sends costs more than the limits below.
"""

import ast
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, Literal, NamedTuple

from tracking.errors import InvalidFilter

Entity = Literal["metric", "param", "tag", "attribute", "dataset"]
Operator = Literal["=", "!=", ">", ">=", "<", "<=", "LIKE", "ILIKE", "IN", "NOT IN", "IS NULL", "IS NOT NULL"]
Value = str | int | float | tuple[str, ...] | tuple[int, ...] | None
Kind = Literal["text", "number", "id"]

MAX_CHARS: Final = 200_000
MAX_COMPARISONS: Final = 100
MAX_DEPTH: Final = 50
MAX_ORDER_BY: Final = 20


@dataclass(frozen=True, slots=True)
class Comparison:
    """One comparison.

    Attributes:
        key: of the metric, parameter or tag; or the attribute's name with aliases resolved.
        value: a float for a metric, and for a parameter that is compared as a number; an int or float for a time; an int for an id that
            is a number; a tuple for IN and NOT IN; None for IS NULL and IS NOT NULL; else a string.
    """

    entity: Entity
    key: str
    op: Operator
    value: Value


@dataclass(frozen=True, slots=True)
class And:
    """All of these hold; of none, anything does."""

    terms: "tuple[Expression, ...]"


@dataclass(frozen=True, slots=True)
class Or:
    """One of these holds, at least."""

    terms: "tuple[Expression, ...]"


@dataclass(frozen=True, slots=True)
class Not:
    """This does not hold."""

    term: "Expression"


Expression = And | Or | Not | Comparison

EVERYTHING: Final = And(())
"""The filter that nothing was written in."""


@dataclass(frozen=True, slots=True)
class OrderBy:
    """One sort key, ascending unless it says otherwise.

    Attributes:
        dataset: of a logged model's metric: only values that were taken on the dataset of this name and, if given, digest.
    """

    entity: Entity
    key: str
    descending: bool = False
    dataset: tuple[str, str | None] | None = None


@dataclass(frozen=True, slots=True)
class Subject:
    """What is searched: which entities and attributes it has.

    Attributes:
        entities: by each name that MLflow knows it under.
        attributes: what each is compared as. `id` is a number that clients write as a text: equal or not, in a list or not.
        aliases: other names of attributes.
        ordered: the entities that order_by may name.
        bare_values: whether a text may stand without quotes, as MLflow has it for logged models.
    """

    name: str
    entities: Mapping[str, Entity] = field(repr=False)
    attributes: Mapping[str, Kind] = field(repr=False)
    aliases: Mapping[str, str] = field(default_factory=dict, repr=False)
    ordered: frozenset[Entity] = field(default=frozenset({"metric", "param", "tag", "attribute"}), repr=False)
    bare_values: bool = field(default=False, repr=False)


RUNS: Final = Subject(
    "run",
    entities={
        **dict.fromkeys(("metric", "metrics"), "metric"),
        **dict.fromkeys(("parameter", "parameters", "param", "params"), "param"),
        **dict.fromkeys(("tag", "tags"), "tag"),
        **dict.fromkeys(("attribute", "attributes", "attr", "run"), "attribute"),
        **dict.fromkeys(("dataset", "datasets"), "dataset"),
    },
    attributes={
        **dict.fromkeys(("run_id", "run_name", "user_id", "status", "artifact_uri"), "text"),
        **dict.fromkeys(("start_time", "end_time"), "number"),
    },
    aliases={**dict.fromkeys(("created", "Created"), "start_time"), **dict.fromkeys(("run name", "Run name", "Run Name"), "run_name")},
)
EXPERIMENTS: Final = Subject(
    "experiment",
    entities={"attribute": "attribute", "tag": "tag", "tags": "tag"},
    attributes={"name": "text", "experiment_id": "id", "creation_time": "number", "last_update_time": "number"},
    ordered=frozenset({"attribute"}),
)
LOGGED_MODELS: Final = Subject(
    "logged model",
    entities={"attributes": "attribute", "metrics": "metric", "params": "param", "tags": "tag"},
    attributes={
        **dict.fromkeys(("name", "model_id", "model_type", "status", "source_run_id"), "text"),
        **dict.fromkeys(("creation_timestamp", "last_updated_timestamp"), "number"),
    },
    aliases={"creation_time": "creation_timestamp", "last_updated_time": "last_updated_timestamp"},
    ordered=frozenset({"metric", "attribute"}),
    bare_values=True,
)

_DATASET_KEYS: Final = frozenset({"name", "digest", "context"})
_NUMBER_OPERATORS: Final[frozenset[Operator]] = frozenset({"=", "!=", ">", ">=", "<", "<="})
_EQUAL_OR_IN: Final[frozenset[Operator]] = frozenset({"=", "!=", "IN", "NOT IN"})
_TEXT_OPERATORS: Final[frozenset[Operator]] = _EQUAL_OR_IN | {"LIKE", "ILIKE"}
_NULL_OPERATORS: Final[frozenset[Operator]] = frozenset({"IS NULL", "IS NOT NULL"})


def parse_filter(text: str, subject: Subject = RUNS) -> Expression:
    """What a filter asks for; of an empty text `EVERYTHING`.

    Raises:
        InvalidFilter: the text is not of this grammar, or over a limit; the message names the position.
    """
    return _Parser(text, "filter", subject).filter()


def parse_order_by(texts: Sequence[str], subject: Subject = RUNS) -> tuple[OrderBy, ...]:
    """The sort keys of `order_by`, the first one deciding first.

    Raises:
        InvalidFilter: a text is not of this grammar, there are too many, or two name the same key.
    """
    _refuse_too_many(texts)
    return distinct([_Parser(text, "order_by", subject).order() for text in texts])


def order_by_field(name: str, *, descending: bool = False, dataset: tuple[str, str | None] | None = None, subject: Subject = LOGGED_MODELS) -> OrderBy:
    """A sort key as MLflow's logged models have it: a field's name, in which nothing is quoted.

    Raises:
        InvalidFilter: there is no such field, or nothing is sorted by it.
    """
    entity_name, dot, key = name.partition(".")
    if dot and subject.entities.get(entity_name) == "metric":
        return OrderBy("metric", key, descending, dataset)
    key = subject.aliases.get(name.strip(), name.strip())
    if key not in subject.attributes:
        raise _refusal("order_by", name, 0, f"a {subject.name} is sorted by metrics.KEY or one of {', '.join(sorted(subject.attributes))}")
    return OrderBy("attribute", key, descending)


def distinct(keys: Sequence[OrderBy]) -> tuple[OrderBy, ...]:
    """The sort keys, if no two name the same and there are not too many."""
    _refuse_too_many(keys)
    seen = set()
    for key in keys:
        named = (key.entity, key.key, key.dataset)
        if named in seen:
            raise InvalidFilter(f"`order_by` contains duplicate fields: {key.entity}.{key.key} is named twice.")
        seen.add(named)
    return tuple(keys)


def _refuse_too_many(keys: Sequence[object]) -> None:
    if len(keys) > MAX_ORDER_BY:
        raise InvalidFilter(f"order_by can have at most {MAX_ORDER_BY} keys; these are {len(keys)}.")


def comparisons(expression: Expression) -> list[Comparison]:
    """Every comparison of a filter, from left to right."""
    match expression:
        case And(terms) | Or(terms):
            return [found for term in terms for found in comparisons(term)]
        case Not(term):
            return comparisons(term)
    return [expression]


class _Token(NamedTuple):
    kind: "_Kind"
    text: str
    at: int

    @property
    def end(self) -> int:
        """Where it ends."""
        return self.at + len(self.text)


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


# A number before a word: `1e3` is a number. A word holds a whole bare identifier, and beyond it what people write into one: the
# parser then tells them to use back-ticks. Strings as sqlparse reads them for MLflow: a quote that is doubled or follows a backslash
# does not end them, and stays in them as it is written.
_TOKEN: Final = re.compile(
    r"""
      (?P<number>-?(?:\d+(?:\.\d+)?[eE]-?\d+|\d+\.\d*|\.\d+|\d+)(?![\w.]))
    | (?P<string>'(?:''|\\'|[^'])*'|"(?:""|\\"|[^"])*")
    | (?P<backtick>`[^`]*`)
    | (?P<word>\w[\w./:@-]*)
    | (?P<operator>[<>=!~]+)
    | (?P<dot>\.)
    | (?P<open>\()
    | (?P<close>\))
    | (?P<comma>,)
    """,
    re.VERBOSE,
)
# What sqlparse takes for a name after a dot: no number, and none of the words that begin something else wherever they stand.
_PLAIN_PART: Final = re.compile(r"(?!(?:case|in|values|using|from|as)\Z)(?:\d(?![eE]\d))?[^\W\d]\w*", re.IGNORECASE)
_SPACE: Final = re.compile(r"\s*")


def _tokens(text: str, what: str) -> list[_Token]:
    if len(text) > MAX_CHARS:
        raise InvalidFilter(f"A {what} can have at most {MAX_CHARS:,} characters; this has {len(text):,}.")
    tokens: list[_Token] = []
    at = 0
    while True:
        space = _SPACE.match(text, at)
        at = space.end() if space else at
        if at == len(text):
            return [*tokens, _Token(_Kind.END, "", at)]
        found = _TOKEN.match(text, at)
        if found is None or found.lastgroup is None:
            reason = "a quote that is not closed" if text[at] in "'\"`" else f"{text[at]!r}, which has no meaning here"
            raise _refusal(what, text, at, reason)
        tokens.append(_Token(_Kind(found.lastgroup), found.group(), at))
        at = found.end()


_SHOWN_CHARS: Final = 60


def _refusal(what: str, text: str, at: int, problem: str) -> InvalidFilter:
    begin = max(0, at - _SHOWN_CHARS)
    shown = ("..." if begin else "") + text[begin : at + _SHOWN_CHARS] + ("..." if at + _SHOWN_CHARS < len(text) else "")
    return InvalidFilter(f"Invalid {what} {shown!r}: at position {at}, {problem}.", text=text, position=at)


class _Parser:
    """Reads one text from left to right, one method for each rule of the grammar."""

    def __init__(self, text: str, what: str, subject: Subject) -> None:
        self._text = text
        self._what = what
        self._subject = subject
        self._tokens = _tokens(text, what)
        self._position = 0
        self._n_comparisons = 0

    def filter(self) -> Expression:
        """The whole text. As with MLflow, ANDs before and after everything say nothing."""
        self._take_ands()
        if self._next_is(_Kind.END):
            return EVERYTHING
        found = self._disjunction(0)
        token = self._peek()
        if token.kind is not _Kind.END:
            raise self._unexpected(token, "AND, OR or the end")
        return found

    def order(self) -> OrderBy:
        """`identifier [ASC | DESC]`, the whole text."""
        token = self._peek()
        entity, key = self._quoted_as_one() or self._identifier()
        if entity not in self._subject.ordered:
            raise self._error(token, f"nothing is sorted by {entity}s")
        descending = self._take_word("DESC")
        if not descending:
            self._take_word("ASC")
        if not self._next_is(_Kind.END):
            raise self._unexpected(self._peek(), "ASC or DESC or the end")
        return OrderBy(entity, key, descending)

    def _quoted_as_one(self) -> tuple[Entity, str] | None:
        """Entity and key within one pair of quotes: before a direction, and there only, MLflow takes them so."""
        token, following = self._tokens[0], self._tokens[min(1, len(self._tokens) - 1)]
        is_quoted = token.kind is _Kind.BACKTICK or token.text.startswith('"')
        if not (is_quoted and "." in token.text and following.text.upper() in ("ASC", "DESC")):
            return None
        self._take()
        name, _, key = token.text[1:-1].partition(".")
        return self._keyed(token, name, key)

    # -- terms ------------------------------------------------------------------------------------------------------------

    def _disjunction(self, depth: int) -> Expression:
        terms = [self._conjunction(depth)]
        while self._take_word("OR"):
            terms.append(self._conjunction(depth))
        return terms[0] if len(terms) == 1 else Or(tuple(terms))

    def _conjunction(self, depth: int) -> Expression:
        terms = [self._term(depth)]
        while True:
            if self._take_ands():
                if self._next_is(_Kind.END) and depth == 0:
                    break
                terms.append(self._term(depth))
            elif self._begins_comparison():
                terms.append(self._comparison())
            else:
                break
        return terms[0] if len(terms) == 1 else And(tuple(terms))

    def _term(self, depth: int) -> Expression:
        token = self._peek()
        is_not, is_open = self._next_word("NOT"), token.kind is _Kind.OPEN
        if not (is_not or is_open):
            return self._comparison()
        if depth == MAX_DEPTH:
            raise self._error(token, f"NOT and parentheses go deeper than {MAX_DEPTH}")
        self._take()
        if is_not:
            return Not(self._term(depth + 1))
        found = self._disjunction(depth + 1)
        self._expect(_Kind.CLOSE, "AND, OR or ')'")
        return found

    def _begins_comparison(self) -> bool:
        """Whether another comparison follows without an AND, as MLflow allows."""
        token = self._peek()
        if token.kind is _Kind.WORD:
            return "." in token.text or self._attribute(token.text) is not None
        return token.kind is _Kind.BACKTICK or (token.kind is _Kind.STRING and token.text[0] == '"')

    def _comparison(self) -> Comparison:
        start = self._peek()
        self._n_comparisons += 1
        if self._n_comparisons > MAX_COMPARISONS:
            raise self._error(start, f"these are more than {MAX_COMPARISONS} comparisons; IN takes many values in one")
        entity, key = self._identifier()
        op = self._operator()
        allowed = self._operators_of(entity, key)
        if op not in allowed:
            raise self._error(start, f"{op} can't be used with {entity}.{key}; use one of {', '.join(sorted(allowed))}")
        return Comparison(entity, key, op, self._value(entity, key, op))

    def _operators_of(self, entity: Entity, key: str) -> frozenset[Operator]:
        match entity:
            case "metric":
                return _NUMBER_OPERATORS
            case "param":
                return _TEXT_OPERATORS | _NUMBER_OPERATORS | _NULL_OPERATORS
            case "tag":
                return _TEXT_OPERATORS | _NULL_OPERATORS
            case "dataset":
                return _TEXT_OPERATORS
        return {"text": _TEXT_OPERATORS, "number": _NUMBER_OPERATORS, "id": _EQUAL_OR_IN}[self._subject.attributes[key]]

    # -- identifiers ------------------------------------------------------------------------------------------------------

    def _identifier(self) -> tuple[Entity, str]:
        token = self._take()
        match token.kind:
            case _Kind.WORD:
                name, dot, key = token.text.partition(".")
                if not dot:
                    return "attribute", self._key(token, "attribute", name)
                return self._keyed(token, name, self._plain_key(token, key) if key else self._quoted_key(token))
            case _Kind.BACKTICK if self._next_is(_Kind.DOT):
                dot_token = self._take()
                word = self._peek()
                if word.kind is _Kind.WORD and word.at == dot_token.end:
                    self._take()
                    return self._keyed(token, token.text[1:-1], self._plain_key(word, word.text))
                return self._keyed(token, token.text[1:-1], self._quoted_key(dot_token))
            case _Kind.BACKTICK:
                return "attribute", self._key(token, "attribute", token.text[1:-1])
            case _Kind.STRING if token.text[0] == '"':
                return "attribute", self._key(token, "attribute", token.text[1:-1])
        raise self._unexpected(token, "an identifier such as metrics.loss" if "metric" in self._subject.entities.values() else "an identifier such as name")

    def _keyed(self, token: _Token, name: str, key: str) -> tuple[Entity, str]:
        entity = self._subject.entities.get(name)
        if entity is None:
            raise self._error(token, f"{name!r} is not one of {', '.join(sorted(self._subject.entities))}")
        return entity, self._key(token, entity, key)

    def _key(self, token: _Token, entity: Entity, key: str) -> str:
        if entity == "dataset" and key not in _DATASET_KEYS:
            raise self._error(token, f"{key!r} is nothing of a dataset; there are {', '.join(sorted(_DATASET_KEYS))}")
        if entity != "attribute":
            return key
        name = self._attribute(key)
        if name is None:
            raise self._error(token, f"{key!r} is no attribute of a {self._subject.name}; there are {', '.join(sorted(self._subject.attributes))}")
        return name

    def _attribute(self, name: str) -> str | None:
        name = self._subject.aliases.get(name, name)
        return name if name in self._subject.attributes else None

    def _plain_key(self, token: _Token, key: str) -> str:
        if not all(_PLAIN_PART.fullmatch(part) for part in key.split(".")):
            raise self._error(token, f"the key {key!r} needs back-ticks around it")
        return key

    def _quoted_key(self, before: _Token) -> str:
        token = self._take()
        if token.kind not in (_Kind.BACKTICK, _Kind.STRING) or token.at != before.end:
            raise self._unexpected(token, "a key right after the dot")
        key = token.text[1:-1]
        # MLflow's names have no quotes; those of trials may.
        return key if token.kind is _Kind.BACKTICK else key.replace(token.text[0] * 2, token.text[0])

    # -- operators and values ---------------------------------------------------------------------------------------------

    def _operator(self) -> Operator:
        token = self._take()
        if token.kind is _Kind.WORD:
            match token.text.upper():
                case "LIKE" | "ILIKE" | "IN" as word:
                    return word
                case "IS":
                    is_not = self._take_word("NOT")
                    self._expect_word("NULL")
                    return "IS NOT NULL" if is_not else "IS NULL"
                case "NOT":
                    self._expect_word("IN")
                    return "NOT IN"
        elif token.text in _NUMBER_OPERATORS:
            return token.text
        raise self._unexpected(token, "an operator")

    def _value(self, entity: Entity, key: str, op: Operator) -> Value:
        if op in _NULL_OPERATORS:
            return None
        kind = self._kind(entity, key, op)
        if op in ("IN", "NOT IN"):
            listed = self._strings()
            return tuple(self._id(token, text) for token, text in listed) if kind == "id" else tuple(text for _, text in listed)
        if kind == "number":
            text = self._number()
            # A time in whole milliseconds stays exact.
            return int(text) if entity == "attribute" and text.lstrip("-").isdecimal() else float(text)
        token = self._peek()
        text = self._string()
        return self._id(token, text) if kind == "id" else text

    def _kind(self, entity: Entity, key: str, op: Operator) -> Kind:
        """What the value is to be. A parameter's is a number where one stands, unless a text may stand without quotes."""
        if entity == "metric":
            return "number"
        if entity == "attribute":
            return self._subject.attributes[key]
        if entity == "param" and op in _NUMBER_OPERATORS:
            is_number = self._next_is(_Kind.NUMBER) and not self._subject.bare_values
            return "number" if is_number or op not in ("=", "!=") else "text"
        return "text"

    def _number(self) -> str:
        token = self._take()
        if token.kind is not _Kind.NUMBER:
            raise self._unexpected(token, "a number without quotes")
        if not token.text.isascii() or len(token.text) > _MAX_DIGITS:
            raise self._error(token, f"a number is written with at most {_MAX_DIGITS} of the digits 0 to 9")
        return token.text

    def _string(self) -> str:
        token = self._take()
        if token.kind is _Kind.STRING:
            return token.text[1:-1]
        if self._subject.bare_values and token.kind in (_Kind.WORD, _Kind.NUMBER):
            return token.text
        raise self._unexpected(token, "a string in quotes")

    def _strings(self) -> list[tuple[_Token, str]]:
        self._expect(_Kind.OPEN, "'('")
        values = []
        while True:
            token = self._take()
            if token.kind is not _Kind.STRING:
                raise self._unexpected(token, "a string in quotes")
            values.append((token, self._listed(token)))
            has_comma = self._next_is(_Kind.COMMA)
            if has_comma:
                self._take()
            if self._next_is(_Kind.CLOSE):
                self._take()
                return values
            if not has_comma:
                raise self._unexpected(self._peek(), "',' or ')'")

    def _listed(self, token: _Token) -> str:
        """A string in a list: MLflow reads these as Python does, with its escapes."""
        inner = token.text[1:-1]
        if "\\" not in inner and token.text[0] not in inner:
            return inner
        try:
            value = ast.literal_eval(_ESCAPE.sub(_as_python_has_it, token.text))
        except (SyntaxError, ValueError):
            value = None
        if not isinstance(value, str):
            raise self._error(token, "a string with an escape that is none")
        return value

    def _id(self, token: _Token, text: str) -> int:
        if not re.fullmatch(r"-?[0-9]{1,18}", text):
            raise self._error(token, f"{text[:_SHOWN_CHARS]!r} is no {self._subject.name}'s id, which is a number in quotes")
        return int(text)

    # -- tokens -----------------------------------------------------------------------------------------------------------

    def _peek(self) -> _Token:
        return self._tokens[self._position]

    def _take(self) -> _Token:
        token = self._tokens[self._position]
        self._position += token.kind is not _Kind.END
        return token

    def _next_is(self, kind: _Kind) -> bool:
        return self._peek().kind is kind

    def _next_word(self, word: str) -> bool:
        token = self._peek()
        return token.kind is _Kind.WORD and token.text.upper() == word

    def _take_word(self, word: str) -> bool:
        is_next = self._next_word(word)
        self._position += is_next
        return is_next

    def _take_ands(self) -> bool:
        found = False
        while self._take_word("AND"):
            found = True
        return found

    def _expect_word(self, word: str) -> None:
        if not self._take_word(word):
            raise self._unexpected(self._peek(), word)

    def _expect(self, kind: _Kind, expected: str) -> None:
        token = self._take()
        if token.kind is not kind:
            raise self._unexpected(token, expected)

    def _error(self, token: _Token, problem: str) -> InvalidFilter:
        return _refusal(self._what, self._text, token.at, problem)

    def _unexpected(self, token: _Token, expected: str) -> InvalidFilter:
        found = repr(token.text[:_SHOWN_CHARS]) if token.text else "the end"
        return self._error(token, f"expected {expected}, found {found}")


_MAX_DIGITS: Final = 400
_ESCAPE: Final = re.compile(r"\\(.)", re.DOTALL)


def _as_python_has_it(escape: re.Match[str]) -> str:
    """A backslash before what Python gives no meaning to stands for itself; twice, Python does not warn of it."""
    return escape[0] if escape[1] in "\n\\'\"abfnrtv01234567xNuU" else "\\" + escape[0]
