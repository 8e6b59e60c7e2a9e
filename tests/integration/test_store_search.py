"""Searches must agree with plain Python: any filter, any order, any pages, over runs of every kind."""

import base64
import itertools
import json
import math
import operator
import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from functools import cmp_to_key
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.record import Hands
from tracking.errors import InvalidValue
from tracking.filters import (
    EVERYTHING,
    EXPERIMENTS,
    LOGGED_MODELS,
    And,
    Comparison,
    Expression,
    Not,
    Or,
    OrderBy,
    parse_filter,
    parse_order_by,
)
from tracking.ids import new_uuid
from tracking.queries import search, trials
from tracking.records import Run
from tracking.store.metrics import Append
from tracking.store.paging import read_page
from tracking.store.runs import from_ms, mlflow_status, to_ms

NAN, INF = float("nan"), float("inf")
TEXTS: Final = ["cnn", "CNN", "rnn%", "a_b", "a\\b", "'", "", "ü"]
NUMERALS: Final = ["10", "9", "1e1", "0.5", "-1", ".5", " 9 ", "inf", "nan", "1e999", "1_0", "٣", "0x1", "1e-400"]
PATTERNS: Final = [*TEXTS, "%n%", "_nn", "c%", "%\\%", "%'%", "%", "C__", "a\\_b"]
NUMBERS: Final = [-1.0, 0.0, 0.5, 0.5, 1.0, 1e300, NAN, INF, -INF]
COMPARE: Final[dict[str, Callable[[Any, Any], bool]]] = {
    "=": operator.eq,
    "!=": operator.ne,
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
}


# -- the model: what a search finds, in plain Python ------------------------------------------------------------------


@dataclass
class Logged:
    """What one run holds."""

    run: Run
    metrics: dict[str, float] = field(default_factory=dict)
    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    datasets: list[dict[str, str | None]] = field(default_factory=list)

    @property
    def start_ms(self) -> int:
        """When it began, or else was made."""
        return to_ms(self.run.started_at or self.run.created_at)

    def value(self, entity: str, key: str) -> Any:
        """What a comparison looks at, None if there is none."""
        if entity == "metric":
            return self.metrics.get(key)
        if entity == "param":
            return self.params.get(key)
        if entity == "tag":
            trial = None if self.run.trial_number is None else str(self.run.trial_number)
            ours = {
                "mlflow.runName": self.run.name,
                "mlflow.user": self.run.user_name or None,
                "mlflow.parentRunId": self.run.parent_run_id,
                "sweep.trial": trial,
                "sweep.cause": self.run.cause,
            }
            return self.tags.get(key, ours.get(key))
        return {
            "run_id": self.run.run_id,
            "run_name": self.run.name,
            "user_id": self.run.user_name,
            "status": mlflow_status(self.run),
            "artifact_uri": f"mlflow-artifacts:/{self.run.experiment_id}/{self.run.run_id}/artifacts",
            "start_time": self.start_ms,
            "end_time": None if self.run.ended_at is None else to_ms(self.run.ended_at),
        }[key]


def meets(run: Logged, asked: Expression) -> bool:
    """Whether a filter holds of a run."""
    match asked:
        case And(terms):
            return all(meets(run, term) for term in terms)
        case Or(terms):
            return any(meets(run, term) for term in terms)
        case Not(term):
            return not meets(run, term)
    if asked.entity == "dataset":
        return any(_holds(each[asked.key], asked) for each in run.datasets)
    return _holds(run.value(asked.entity, asked.key), asked)


def _holds(value: Any, asked: Comparison) -> bool:
    if asked.op in ("IS NULL", "IS NOT NULL"):
        return (value is None) == (asked.op == "IS NULL")
    if value is None:
        return False
    if isinstance(asked.value, tuple):
        return (value in asked.value) == (asked.op == "IN")
    if asked.op in ("LIKE", "ILIKE"):
        pattern = "".join({"%": ".*", "_": "."}.get(c, re.escape(c)) for c in str(asked.value))
        return re.fullmatch(pattern, value, re.DOTALL | (re.IGNORECASE if asked.op == "ILIKE" else 0)) is not None
    if asked.entity == "param" and isinstance(asked.value, float):
        number = numeral(value)
        return number is not None and COMPARE[asked.op](number, Decimal(repr(asked.value)))
    return COMPARE[asked.op](value, asked.value)


def numeral(text: str) -> Decimal | None:
    """The number that a parameter is, None if it is none."""
    try:
        number = Decimal(text.strip(" \t\n\r")) if text.isascii() and "_" not in text else Decimal("nan")
    except InvalidOperation:
        return None
    return None if number.is_nan() else number


# -- runs, filters and orders of all kinds ----------------------------------------------------------------------------


class World:
    """An experiment of random runs, some of them ended, one trial with an earlier attempt among them."""

    def __init__(self, hands: Hands, seed: int) -> None:
        self.hands = hands
        dice = random.Random(seed)  # noqa: S311 -- a test's dice
        self.experiment = hands.store.experiments.ensure(new_uuid()).experiment_id
        self.logged = [self._external(dice, number) for number in range(40)]
        sweep = hands.sweep(1, experiment=hands.store.experiments.get(self.experiment).name)
        first = hands.start(sweep)
        hands.log(first, "m", 0.5)
        hands.store.runs.log_params(first.run_id, {"p": "cnn"}, first.fence)
        second = hands.retry(first)
        hands.log(second, "n", 0.5)
        self.logged.append(Logged(hands.store.runs.get(first.run_id), {"n": 0.5}, {"x": "0"}))
        self.logged.append(Logged(hands.store.runs.get(sweep.sweep_id)))
        every = [*TEXTS, *NUMERALS, "x", "y", "ann", "bob", *(value for run in self.logged for value in (run.run.name, run.run.run_id))]
        rows = hands.sql("SELECT v FROM unnest(%(texts)s) AS v ORDER BY v", texts=sorted(set(every)))
        self.rank = {row.v: number for number, row in enumerate(rows)}

    def _external(self, dice: random.Random, number: int) -> Logged:
        store = self.hands.store
        metrics = {key: dice.choice(NUMBERS) for key in ("m", "n") if dice.random() < 0.7}
        params = {key: dice.choice(TEXTS + NUMERALS) for key in ("p", "q") if dice.random() < 0.7}
        tags = {key: dice.choice(TEXTS) for key in ("t", "sweep.cause", "mlflow.parentRunId") if dice.random() < 0.6}
        run_id = store.runs.create_external(
            self.experiment,
            user_name=dice.choice(["ann", "bob", ""]),
            name=dice.choice(["x", "y", f"z{number}"]),
            start_time_ms=dice.choice([1000, 2000, 2001, 3000, None]),
            tags=tags,
        ).run_id
        store.metrics.log_batch(Append(run_id, {k: [(1, 1, v)] for k, v in metrics.items()}), params, {})
        if dice.random() < 0.5:
            store.runs.update(run_id, status=dice.choice(["FINISHED", "KILLED"]), end_time_ms=dice.choice([None, 4000, 5000]))
        datasets = [self._dataset(run_id, dice, each) for each in range(dice.choice([0, 0, 1, 2]))]
        tags.pop("mlflow.parentRunId", None)
        return Logged(store.runs.get(run_id), metrics, params, tags, datasets)

    def _dataset(self, run_id: str, dice: random.Random, number: int) -> dict[str, str | None]:
        found: dict[str, str | None] = {"name": dice.choice(TEXTS), "digest": f"{number}", "context": dice.choice(["cnn", "CNN", None])}
        self.hands.change(
            "WITH d AS (INSERT INTO datasets (experiment_id, name, digest, source_type, source) VALUES (%(e)s, %(name)s, %(digest)s, '', '') "
            "ON CONFLICT (experiment_id, name, digest) DO UPDATE SET source = '' RETURNING dataset_id) "
            "INSERT INTO dataset_inputs (run_id, dataset_id, context) SELECT %(run_id)s, dataset_id, %(context)s FROM d",
            e=int(self.experiment),
            run_id=run_id,
            **found,
        )
        return found

    def found(self, where: Expression) -> set[str]:
        """What the record finds."""
        return {run.run_id for run, _ in self.hands.store.runs.search([self.experiment], where)[0]}

    def expected(self, where: Expression) -> set[str]:
        """What plain Python finds."""
        return {each.run.run_id for each in self.logged if meets(each, where)}

    def ordered(self, order_by: Sequence[OrderBy]) -> list[str]:
        """The runs as plain Python sorts them."""

        def compare(a: Logged, b: Logged) -> int:
            for item in order_by:
                if found := self._compare(a.value(item.entity, item.key), b.value(item.entity, item.key), item.descending):
                    return found
            return -1 if (-a.start_ms, a.run.run_id) < (-b.start_ms, b.run.run_id) else 1

        return [each.run.run_id for each in sorted(self.logged, key=cmp_to_key(compare))]

    def _compare(self, a: Any, b: Any, descending: bool) -> int:
        kinds = [2 if v is None else 1 if isinstance(v, float) and math.isnan(v) else 0 for v in (a, b)]
        if kinds[0] != kinds[1] or kinds[0]:
            return kinds[0] - kinds[1]
        # The order of letters is the database's.
        a, b = (self.rank.get(v, v) for v in (a, b))
        order: int = (a > b) - (a < b)
        return -order if descending else order


@pytest.fixture
def world(hands: Hands) -> World:
    """Made once for all examples of a test: they only read."""
    return World(hands, 7)


FINITE = st.sampled_from([v for v in NUMBERS if math.isfinite(v)] + [0.49, 9.0, 10.0])
NUMBER_OPS = st.sampled_from(["=", "!=", ">", ">=", "<", "<="])
TEXT_KEYS: Final = [
    *[("param", key) for key in ("p", "q", "x", "none")],
    *[("tag", key) for key in ("t", "none", "mlflow.runName", "mlflow.user", "mlflow.parentRunId", "sweep.trial", "sweep.cause")],
    *[("attribute", key) for key in ("run_id", "run_name", "user_id", "status", "artifact_uri")],
    *[("dataset", key) for key in ("name", "digest", "context")],
]
SOME_TEXT = st.sampled_from([*TEXTS, *NUMERALS, "x", "ann", "0", "FINISHED", "RUNNING"])


def _text_comparisons(named: tuple[str, str]) -> st.SearchStrategy[Comparison]:
    entity: Any = named[0]
    kinds = [
        st.builds(lambda op, v: Comparison(entity, named[1], op, v), st.sampled_from(["=", "!="]), SOME_TEXT),
        st.builds(lambda op, v: Comparison(entity, named[1], op, v), st.sampled_from(["LIKE", "ILIKE"]), st.sampled_from([*PATTERNS, "F%", "%0%"])),
        st.builds(lambda op, v: Comparison(entity, named[1], op, tuple(v)), st.sampled_from(["IN", "NOT IN"]), st.lists(SOME_TEXT, min_size=1, max_size=4)),
    ]
    if entity in ("param", "tag"):
        kinds.append(st.builds(lambda op: Comparison(entity, named[1], op, None), st.sampled_from(["IS NULL", "IS NOT NULL"])))
    return st.one_of(kinds)


COMPARISONS = st.one_of(
    st.sampled_from(TEXT_KEYS).flatmap(_text_comparisons),
    st.builds(lambda key, op, value: Comparison("metric", key, op, value), st.sampled_from(["m", "n", "none"]), NUMBER_OPS, FINITE),
    st.builds(lambda key, op, value: Comparison("param", key, op, value), st.sampled_from(["p", "q", "x", "none"]), NUMBER_OPS, FINITE | st.just(INF)),
    st.builds(
        lambda key, op, value: Comparison("attribute", key, op, value),
        st.sampled_from(["start_time", "end_time"]),
        NUMBER_OPS,
        st.sampled_from([0, 1000, 2000, 2000.5, 4000, 10**15]),
    ),
)
EXPRESSIONS = st.recursive(
    COMPARISONS,
    lambda terms: st.one_of(
        st.builds(lambda found: And(tuple(found)), st.lists(terms, min_size=2, max_size=3)),
        st.builds(lambda found: Or(tuple(found)), st.lists(terms, min_size=2, max_size=3)),
        st.builds(Not, terms),
    ),
    max_leaves=6,
)
# Behind as many terms as Postgres may join, which hold of all runs: ANDs within ANDs, and every term is looked up.
ALWAYS: Final = And((Comparison("attribute", "start_time", ">=", 0),) * 8)
LOOKED_UP = st.builds(lambda where: And((ALWAYS, where)), EXPRESSIONS)


def written(asked: Expression) -> str:
    """A filter as a person writes it."""
    match asked:
        case And(terms):
            return " AND ".join(f"({written(term)})" if isinstance(term, And | Or) else written(term) for term in terms)
        case Or(terms):
            return " or ".join(f"({written(term)})" if isinstance(term, Or) else written(term) for term in terms)
        case Not(term):
            return f"NOT {f'({written(term)})' if isinstance(term, And | Or) else written(term)}"
    name = f"{asked.entity}s.`{asked.key}`"
    if isinstance(asked.value, tuple):
        return f"{name} {asked.op} ({', '.join(map(repr, asked.value))})"
    if isinstance(asked.value, str):
        quote = '"' if "'" in asked.value else "'"
        return f"{name} {asked.op} {quote}{asked.value}{quote}"
    return f"{name} {asked.op}" + ("" if asked.value is None else f" {asked.value!r}".replace("e+", "e").replace("inf", "1e400"))


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(EXPRESSIONS | LOOKED_UP)
def test_search_finds_what_plain_python_finds(world: World, where: Expression) -> None:
    """Any filter, written out and read again, finds in the record what the same filter finds in Python."""
    text = written(where)
    assert parse_filter(text) == where
    assert world.found(where) == world.expected(where), text


def test_search_model_tells_runs_apart(world: World) -> None:
    """The property above would say little if its filters found all or nothing."""
    separating = [
        "metrics.m > 0 AND params.p IS NOT NULL",
        "params.p < 10",
        "params.p >= 9 AND NOT params.p > 100",
        "tags.t IN ('cnn', 'CNN') OR dataset.name LIKE '%n%'",
        "NOT (status = 'RUNNING')",
        "tags.`sweep.trial` = '0'",
    ]
    for text in separating:
        assert 0 < len(world.expected(parse_filter(text))) < len(world.logged), text


def test_search_each_operator_of_each_entity_finds_and_leaves_out(hands: Hands) -> None:
    """One comparison of every kind, by hand, so that the model can't be wrong in the same way."""
    store = hands.store
    experiment = store.experiments.ensure(new_uuid()).experiment_id
    low = store.runs.create_external(experiment, name="low", user_name="ann", start_time_ms=1000, tags={"t": "Alpha"}).run_id
    high = store.runs.create_external(experiment, name="high", user_name="bob", start_time_ms=2000, tags={"t": "beta", "u": ""}).run_id
    store.metrics.log_batch(Append(low, {"m": [(0, 0, 1.0)], "odd": [(0, 0, NAN)]}), {"p": "10"}, {})
    store.metrics.log_batch(Append(high, {"m": [(0, 0, 2.0)]}), {"p": "9", "q": "cnn"}, {})
    store.runs.update(high, status="FINISHED", end_time_ms=3000)
    cases = [
        ("metrics.m = 1", {low}),
        ("metrics.m != 1", {high}),
        ("metrics.m > 1", {high}),
        ("metrics.m >= 1", {low, high}),
        ("metrics.m < 2", {low}),
        ("metrics.m <= 2", {low, high}),
        ("metrics.odd != 0", {low}),
        ("metrics.odd < 1e308", set()),
        ("metrics.odd > 0", set()),
        ("NOT metrics.odd > 0", {low, high}),
        ("params.p = '10'", {low}),
        ("params.p != '10'", {high}),
        ("params.p LIKE '1%'", {low}),
        ("params.p < 10", {high}),
        ("params.p = 10.0", {low}),
        ("params.p < 1e400", {low, high}),
        ("params.q < 10", set()),
        ("params.q != 10", set()),
        ("params.q != 'x'", {high}),
        ("NOT params.q = 'x'", {low, high}),
        ("params.q IS NULL", {low}),
        ("params.q NOT IN ('x')", {high}),
        ("tags.t LIKE 'al%'", set()),
        ("tags.t ILIKE 'AL%'", {low}),
        ("tags.u IS NOT NULL", {high}),
        ("tags.mlflow.user = 'bob'", {high}),
        ("status = 'RUNNING'", {low}),
        ("status IN ('FINISHED', 'FAILED')", {high}),
        ("status != 'finished'", {low, high}),
        ("run_name LIKE 'h_gh'", {high}),
        ("start_time > 1000", {high}),
        ("end_time <= 3000", {high}),
        ("NOT end_time <= 3000", {low}),
        (f"run_id IN ('{low}', 'x')", {low}),
        (f"artifact_uri LIKE '%/{low}/%'", {low}),
        ("metrics.m = 1 OR params.p = '9'", {low, high}),
        ("", {low, high}),
    ]
    for text, expected in cases:
        assert {run.run_id for run, _ in store.runs.search([experiment], parse_filter(text))[0]} == expected, text


def test_search_start_time_is_the_one_that_clients_are_told(hands: Hands) -> None:
    """A run whose start the database took in microseconds is found by its milliseconds."""
    experiment = hands.store.experiments.ensure(new_uuid()).experiment_id
    run = hands.store.runs.create_external(experiment)
    hands.change("UPDATE runs SET started_at = %(t)s WHERE run_id = %(id)s", t=datetime(2026, 1, 1, 0, 0, 0, 123999, UTC), id=run.run_id)
    told = to_ms(hands.store.runs.get(run.run_id).started_at or from_ms(0))
    found = hands.store.runs.search([experiment], Comparison("attribute", "start_time", "=", told))[0]
    assert [r.run_id for r, _ in found] == [run.run_id]


# -- order and pages --------------------------------------------------------------------------------------------------

SORT_KEYS: Final = [
    *[("metric", key) for key in ("m", "n", "none")],
    *[("param", key) for key in ("p", "q")],
    *[("tag", key) for key in ("t", "mlflow.user", "sweep.cause", "mlflow.parentRunId")],
    *[("attribute", key) for key in ("start_time", "end_time", "run_name", "status", "run_id")],
]
ORDERS = st.lists(
    st.builds(lambda named, descending: OrderBy(named[0], named[1], descending), st.sampled_from(SORT_KEYS), st.booleans()),
    max_size=3,
    unique_by=lambda item: (item.entity, item.key),
)


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.one_of(st.just(EVERYTHING), EXPRESSIONS), ORDERS, st.integers(1, 50))
def test_search_pages_are_the_order_cut_in_pieces(world: World, where: Expression, order_by: list[OrderBy], size: int) -> None:
    """Values in order, then NaN, then runs without one, whichever way; ties by start and id; no page overlaps or leaves out."""
    found: list[str] = []
    token = ""
    for number in itertools.count():
        page, token = world.hands.store.runs.search([world.experiment], where, tuple(order_by), max_results=size, page_token=token)
        found += [run.run_id for run, _ in page]
        assert len(page) == size or not token
        if not token:
            break
        assert number < len(world.logged)
    expected = world.expected(where)
    assert found == [run_id for run_id in world.ordered(order_by) if run_id in expected]


@pytest.mark.parametrize("text, order_by", [("metrics.m > -2", []), ("", ["metrics.m DESC"]), ("", ["metrics.m"])])
def test_search_finds_the_same_with_and_without_its_short_cuts(world: World, monkeypatch: pytest.MonkeyPatch, text: str, order_by: list[str]) -> None:
    """The newest runs looked up first, the best values walked first: whether the page is full or not, it is the same page."""
    where, keys = parse_filter(text), parse_order_by(order_by)
    pages = []
    for n_walked, few in ((4000, 200), (2, 200), (4000, 0)):
        for n_rare in (0, 2000):
            monkeypatch.setattr(search, "_WALKED", n_walked)
            monkeypatch.setattr(search, "_FEW", few)
            monkeypatch.setattr(search, "_RARE", n_rare)
            monkeypatch.setattr(search, "_READ_FOR_EACH", n_walked)
            found: list[str] = []
            token = ""
            while token or not found:
                page, token = world.hands.store.runs.search([world.experiment], where, keys, max_results=4, page_token=token)
                found += [run.run_id for run, _ in page]
            pages.append(found)
    assert all(found == pages[-1] for found in pages)
    assert len(pages[-1]) == len(world.expected(where)) > 15


def test_search_pages_of_many_experiments_and_stages_are_one_order(hands: Hands) -> None:
    """Newest first over all of them, deleted runs among them when asked for."""
    store = hands.store
    experiments = [store.experiments.ensure(new_uuid()).experiment_id for _ in range(3)]
    made = [store.runs.create_external(experiments[number % 3], start_time_ms=1000 + number // 2) for number in range(20)]
    for run in made[::5]:
        store.runs.delete(run.run_id)
    views: list[tuple[search.View, list[Run]]] = [
        ("ALL", made),
        ("ACTIVE_ONLY", [run for number, run in enumerate(made) if number % 5]),
        ("DELETED_ONLY", made[::5]),
    ]
    for view, kept in views:
        found: list[str] = []
        token = ""
        while token or not found:
            page, token = store.runs.search([*experiments, experiments[0]], EVERYTHING, (), view, 3, token)
            found += [run.run_id for run, _ in page]
        assert found == [run.run_id for run in sorted(kept, key=lambda run: (-to_ms(run.started_at or from_ms(0)), run.run_id))]


def test_search_goes_on_where_it_was_when_runs_come_and_go(world: World) -> None:
    """A page begins after the last run of the one before, whatever happened since: neither twice nor left out."""
    store = world.hands.store
    first, token = store.runs.search([world.experiment], max_results=5)
    store.runs.create_external(world.experiment, start_time_ms=10**14)
    store.runs.delete(next(run.run_id for run, _ in first if run.kind == "external"))
    rest, end = store.runs.search([world.experiment], max_results=1000, page_token=token)
    assert [run.run_id for run, _ in first + rest] == world.ordered(())
    assert end == ""


def test_search_returns_what_was_logged(world: World) -> None:
    """Each run comes with its data, several experiments at once, others not; no experiments, no runs."""
    store = world.hands.store
    other = store.experiments.ensure(new_uuid()).experiment_id
    extra = store.runs.create_external(other).run_id
    found = store.runs.search([world.experiment, other])[0]
    assert {run.run_id for run, _ in found} == {each.run.run_id for each in world.logged} | {extra}
    by_id = {run.run_id: (run, data) for run, data in found}
    for each in world.logged:
        run, data = by_id[each.run.run_id]
        assert run == each.run
        assert {p.key: repr(p.value) for p in data.metrics} == {k: repr(v) for k, v in each.metrics.items()}
        assert data.params == each.params
        assert repr(data) == repr(store.runs.data(run.run_id))
    assert store.runs.search([]) == ([], "")


FORGED: Final = [
    "x",
    "%%%",
    "W10=",
    "bnVsbA==",
    "e30=",
    "eyJvZmZzZXQiOjEwfQ==",
    "\udc80",
    "W" * 100_000,
]


@pytest.mark.parametrize("token", FORGED)
def test_search_refuses_a_token_that_is_none(world: World, token: str) -> None:
    """Whatever is sent as a token is a page of this search or an error for its sender."""
    with pytest.raises(InvalidValue, match="Invalid page token"):
        world.hands.store.runs.search([world.experiment], page_token=token)


def test_search_refuses_a_token_with_values_of_another_kind(world: World) -> None:
    """A token is the client's to change: what it holds must fit the order, or it is no token."""
    order_by = parse_order_by(["metrics.m", "params.p"])
    _, token = world.hands.store.runs.search([world.experiment], EVERYTHING, order_by, max_results=3)
    scope, *values = json.loads(base64.urlsafe_b64decode(token))
    assert len(values) == 4
    forged = [
        values[:-1],
        [*values, 1],
        ["x", *values[1:]],
        [values[0], 1, *values[2:]],
        [*values[:3], None],
        [*values[:2], True, values[3]],
        [10**400, *values[1:]],
        [[], *values[1:]],
    ]
    for wrong in forged:
        text = base64.urlsafe_b64encode(json.dumps([scope, *wrong]).encode()).decode()
        with pytest.raises(InvalidValue, match="Invalid page token"):
            world.hands.store.runs.search([world.experiment], EVERYTHING, order_by, page_token=text)


def test_search_refuses_a_token_of_another_search(world: World) -> None:
    """Filter, order, view and experiments make a search; the size of a page does not."""
    store = world.hands.store
    where, order_by = parse_filter("metrics.m != 7"), parse_order_by(["metrics.m"])
    _, token = store.runs.search([world.experiment], where, order_by, max_results=3)
    store.runs.search([world.experiment], where, order_by, max_results=5, page_token=token)
    others: list[tuple[list[str], Expression, tuple[OrderBy, ...], search.View]] = [
        ([world.experiment], EVERYTHING, order_by, "ACTIVE_ONLY"),
        ([world.experiment], where, parse_order_by(["metrics.m DESC"]), "ACTIVE_ONLY"),
        ([world.experiment], where, order_by, "ALL"),
        ([world.experiment, "0"], where, order_by, "ACTIVE_ONLY"),
    ]
    for experiments, asked, by, view in others:
        with pytest.raises(InvalidValue, match="another filter"):
            store.runs.search(experiments, asked, by, view, page_token=token)


# -- limits -----------------------------------------------------------------------------------------------------------


def _n_joins(hands: Hands, text: str, values: dict[str, Any]) -> int:
    """How many joins Postgres plans for a statement."""

    def count(node: Any) -> int:
        return ("Join Type" in node) + sum(count(each) for each in node.get("Plans", ()))

    with hands.store.database.autocommit() as tx:
        return count(tx.scalar(f"EXPLAIN (FORMAT JSON) {text}", values)[0]["Plan"])


@pytest.mark.parametrize("term", ["metrics.a{} < 1", "params.a{} = 'x'", "tags.a{} IS NULL"])
@pytest.mark.parametrize("shape", ["flat", "in parentheses", "in pairs", "nested"])
def test_search_of_many_terms_is_not_planned_as_many_joins(hands: Hands, term: str, shape: str) -> None:
    """However they are put in parentheses: to weigh the orders of a hundred joins takes Postgres seconds, on an empty record too."""
    terms = [term.format(number) for number in range(40)]
    texts = {
        "flat": " AND ".join(terms),
        "in parentheses": f"({' AND '.join(terms)}) AND tags.x = '1'",
        "in pairs": " AND ".join(f"({a} AND {b})" for a, b in itertools.pairwise(terms)),
        "nested": "(" * 39 + terms[0] + "".join(f" AND {each})" for each in terms[1:]),
    }
    where = parse_filter(texts[shape])
    for experiments in ([1], [1, 2]):
        query = search.runs(experiments, where, (), "ACTIVE_ONLY", 1000)
        assert _n_joins(hands, query.text, query.values) <= 8 + len(experiments)
    condition, values = search.run_condition(where)
    values |= {"sweep_id": "x", "states": None, "limit": 1, "offset": 0}
    assert _n_joins(hands, trials.by_number(condition), values) <= 8 + _n_joins(hands, trials.by_number("true"), values)


def test_search_of_many_datasets_tags_and_models_is_not_planned_as_many_joins(hands: Hands) -> None:
    """What a run may have more than one of, and experiments and logged models as runs."""
    query = search.runs([1], parse_filter(" AND ".join(f"dataset.name = '{number}'" for number in range(40))), (), "ACTIVE_ONLY", 1000)
    # Each of the eight, and of those looked up, is a join of two tables itself.
    assert _n_joins(hands, query.text, query.values) <= 8 + 40
    query = search.experiments("e.name", parse_filter(" AND ".join(f"tags.a{number} = 'x'" for number in range(40)), EXPERIMENTS), (), "ALL", 10)
    assert _n_joins(hands, query.text, query.values) <= 8
    models = parse_filter(" AND ".join(f"metrics.a{number} < 1" for number in range(40)), LOGGED_MODELS)
    query = search.logged_models("m.name", [1], models, (), (), 10)
    assert _n_joins(hands, query.text, query.values) <= 8


def test_search_names_so_many_experiments_at_most(hands: Hands) -> None:
    """Different ones: the same one again is none more."""
    every = [str(number) for number in range(10_001)]
    with pytest.raises(InvalidValue, match=r"at most 10,000 experiments; this one names 10,001\."):
        hands.store.runs.search(every)
    hands.store.runs.search([*every[:10_000], "0", "00"])


def test_search_is_given_up_when_it_takes_too_long(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is the asker's to narrow it: no server's error, after which clients would ask again."""
    monkeypatch.setattr("tracking.store.database._IN_TIME_MS", 50)
    monkeypatch.setattr(search, "RUN_COLUMNS", search.RUN_COLUMNS.replace("r.run_id,", "(SELECT r.run_id FROM pg_sleep(0.2)) AS run_id,", 1))
    with pytest.raises(InvalidValue, match="takes too long"):
        world.hands.store.runs.search([world.experiment])


# -- experiments and logged models ------------------------------------------------------------------------------------


def test_search_of_experiments_filters_orders_and_pages(hands: Hands) -> None:
    """By name, id, times and tags; newest first unless asked otherwise, ties by id."""
    mark = new_uuid()
    made = [hands.store.experiments.create(f"{mark}-{letter}", {"mark": mark, "letter": letter}) for letter in "abc"]
    for number, experiment in enumerate(made):
        hands.change("UPDATE experiments SET created_at = %(t)s WHERE experiment_id = %(id)s", t=from_ms(5000 + number // 2), id=int(experiment.experiment_id))
    a, b, c = (experiment.experiment_id for experiment in made)

    def found(text: str, order_by: Sequence[str] = (), size: int = 2) -> list[str]:
        where, token = parse_filter(f"tags.mark = '{mark}' AND ({text})", EXPERIMENTS), ""
        ids: list[str] = []
        while token or not ids:
            page, token = hands.store.experiments.search(where, parse_order_by(order_by, EXPERIMENTS), "ALL", size, token)
            ids += [each.experiment_id for each in page]
            if not page:
                break
        return ids

    every = "name LIKE '%'"
    assert found(every) == [c, a, b]
    assert found(every, ["creation_time"]) == [b, a, c]
    assert found(every, ["name DESC"]) == [c, b, a]
    assert found(every, ["experiment_id ASC"], 1) == [a, b, c]
    assert found(f"name = '{mark}-b'") == [b]
    assert found(f"experiment_id IN ('{a}', '{c}')") == [c, a]
    assert found(f"experiment_id != '{a}' AND creation_time = 5000") == [b]
    assert found("creation_time > 5000 OR tags.letter = 'a'") == [c, a]
    assert found("tags.nothing IS NULL AND NOT tags.letter IN ('a', 'b')") == [c]
    assert found("last_update_time < 5000") == []


def test_search_of_logged_models_filters_orders_and_pages(hands: Hands) -> None:
    """By attributes, metrics on datasets, parameters and tags; metrics sort by their latest value."""
    experiment = int(hands.store.experiments.ensure(new_uuid()).experiment_id)
    for number, (name, status) in enumerate([("a", "ready"), ("b", "pending"), ("c", "ready")]):
        values = {"id": f"m-{name}{experiment}", "e": experiment, "name": name, "status": status, "t": from_ms(1000 + number)}
        hands.change(
            "INSERT INTO logged_models (model_id, experiment_id, name, status, created_at) VALUES (%(id)s, %(e)s, %(name)s, %(status)s, %(t)s)", **values
        )
        hands.change("INSERT INTO logged_model_params (model_id, key, value) VALUES (%(id)s, 'lr', %(lr)s)", lr=f"0.{number + 1}", **values)
        hands.change("INSERT INTO logged_model_tags (model_id, key, value) VALUES (%(id)s, 't', 'x')", **values)
    points = [("a", 1, 0.9, "train"), ("a", 2, 0.1, "train"), ("a", 3, 0.5, "test"), ("b", 1, 0.3, "test"), ("b", 1, NAN, "odd")]
    for name, time_ms, value, dataset in points:
        hands.change(
            "INSERT INTO logged_model_metrics (model_id, key, time_ms, step, run_id, value, dataset_name, dataset_digest) "
            "VALUES (%(id)s, 'acc', %(t)s, 0, '', %(v)s, %(d)s, 'd1')",
            id=f"m-{name}{experiment}",
            t=time_ms,
            v=value,
            d=dataset,
        )

    def found(text: str = "", order_by: Sequence[OrderBy] = (), datasets: Sequence[tuple[str, str | None]] = (), size: int = 1) -> str:
        where, token, names = parse_filter(text, LOGGED_MODELS), "", ""
        for _ in range(4):
            with hands.store.database.autocommit() as tx:
                rows, token = read_page(
                    tx,
                    (text, order_by),
                    token,
                    size,
                    lambda limit, after: search.logged_models("m.name", [experiment], where, order_by, datasets, limit, after),
                )
            names += "".join(row[0] for row in rows)
            if not token:
                break
        return names

    acc = OrderBy("metric", "acc")
    assert found() == "cba"
    assert found("name IN ('a', 'b')") == "ba"
    assert found("status = 'READY'") == "ca"
    assert found("metrics.acc > 0.8") == "a"
    assert found("metrics.acc > 0.8", datasets=[("test", None)]) == ""
    assert found(datasets=[("test", "d1")]) == "ba"
    assert found(datasets=[("test", "d2")]) == ""
    assert found("params.lr = 0.1 OR params.lr > 0.25") == "ca"
    assert found("tags.t = 'x' AND NOT name = b") == "ca"
    assert found("creation_timestamp >= 1001") == "cb"
    assert found("source_run_id != 'x'") == ""
    assert found(order_by=[OrderBy("attribute", "name")]) == "abc"
    assert found(order_by=[acc]) == "abc"
    assert found(order_by=[OrderBy("metric", "acc", dataset=("test", None))]) == "bac"
    assert found(order_by=[OrderBy("metric", "acc", True, ("train", "d1"))], size=2) == "acb"


# -- trials -----------------------------------------------------------------------------------------------------------


def test_trials_are_found_by_what_their_runs_hold(hands: Hands) -> None:
    """Parameters, metrics, tags and attributes of the run that counts; also the best among them, and page by page."""
    sweep = hands.sweep(4, metric_name="loss", metric_goal="minimize")
    held = []
    for number, loss in enumerate([0.4, 0.1, 0.3, 0.2]):
        one = hands.start(sweep, number)
        hands.log(one, "loss", loss)
        hands.log(one, "speed", float(number))
        hands.store.runs.set_tags(one.run_id, {"team": "ab"[number % 2]})
        hands.finish(one)
        held.append(one)
    hands.store.trials.conclude(hands.epoch, sweep.sweep_id)

    def listed(text: str, **how: Any) -> list[int]:
        return [trial.number for trial in hands.store.trials.list(sweep.sweep_id, where=parse_filter(text), **how)]

    def best(text: str, top: int = 1) -> list[int]:
        return [trial.number for trial in hands.store.trials.best(sweep.sweep_id, top, parse_filter(text))]

    assert listed("") == [0, 1, 2, 3]
    assert listed("metrics.loss < 0.35") == [1, 2, 3]
    assert listed("metrics.loss < 0.35", sort="value") == [1, 3, 2]
    assert listed("metrics.loss < 0.35", limit=1, offset=1) == [2]
    assert listed("NOT tags.team = 'a' OR metrics.speed >= 2", states=["finished"]) == [1, 2, 3]
    assert listed(f"run_id IN ('{held[2].run_id}')") == [2]
    assert listed("tags.`sweep.trial` = '3' AND status = 'FINISHED'") == [3]
    assert best("tags.team = 'a'") == [2]
    assert best("tags.team = 'a'", 5) == [2, 0]
    assert best("metrics.loss > 1") == []
