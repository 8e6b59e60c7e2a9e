"""Compiles searches to SQL, in this one place: filter, order and where a page begins. Every value and key is bound.

An order is a list of keys that ends with one no two rows share, so a page begins after the last row of the one before it, whatever came
or went in between: `(start, run_id) > (a, b)` is one look-up in an index, at any depth.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, Protocol

from tracking.filters import And, Comparison, Expression, Not, Or, OrderBy, comparisons
from tracking.queries.runs import DATA_COLUMNS, RUN_COLUMNS
from tracking.records import Run
from tracking.states import MLFLOW_STATUS
from tracking.tables import SHORT_CHARS

View = Literal["ACTIVE_ONLY", "DELETED_ONLY", "ALL"]
KeyValue = str | int | float | None

_STAGES: Final = {"ACTIVE_ONLY": ("active",), "DELETED_ONLY": ("deleted",), "ALL": ("active", "deleted")}
# Decimal notation as far as `numeric` takes it without an error, and what Python calls infinity. NaN is no number. No counted repetitions
# but a short one: each makes the pattern's automaton as large as its count.
_NUMBER_PATTERN: Final = r"^[ \t\n\r]*[+-]?(([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,3})?|[iI][nN][fF]([iI][nN][iI][tT][yY])?)[ \t\n\r]*$"
# What ix_params_value and ix_tags_value hold. A number that takes more characters is taken for none.
_SHORT: Final = f"length(x.value) <= {SHORT_CHARS}"


@dataclass(frozen=True, slots=True)
class Key:
    """One expression that decides the order. NULL comes last whichever way.

    Attributes:
        sql: the expression.
    """

    sql: str
    kind: Literal["text", "number"]
    is_nullable: bool = True
    is_descending: bool = False

    @property
    def order(self) -> str:
        """It in an ORDER BY."""
        return self.sql + (" DESC" if self.is_descending else "") + (" NULLS LAST" if self.is_nullable and self.is_descending else "")


@dataclass(frozen=True, slots=True)
class Query:
    """A SELECT and its bound values; the last columns of each row are its keys."""

    text: str
    values: dict[str, Any]
    keys: tuple[Key, ...]


class _Binder:
    """Collects bound values under fresh names."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}

    def __call__(self, value: object) -> str:
        name = f"v{len(self.values)}"
        self.values[name] = value
        return f"%({name})s"


class _Source(Protocol):
    """Where what is searched stands in SQL.

    Attributes:
        looks_up: whether each row's values are looked up one by one, not read as sets that Postgres may join in any order.
    """

    bind: _Binder
    looks_up: bool

    def attribute(self, name: str) -> Key:
        """An attribute as clients are told it."""

    def owned(self, entity: str, key: str, test: str) -> str:
        """The condition that a metric, parameter, tag or dataset of this key passes a test of `x.value`."""

    def sort_key(self, item: OrderBy) -> Key:
        """What order_by sorts by."""


# -- conditions --------------------------------------------------------------------------------------------------------------

# How many terms of a filter Postgres may join in any order.
_JOINED: Final = 8


def _joined(source: _Source, where: Expression, n_joined: int = _JOINED) -> str:
    """A filter whose first terms Postgres may join in any order; to weigh the orders of many would take it longer than to look the rest up."""
    conditions = []
    for number, term in enumerate(_conjuncts(where)):
        source.looks_up = number >= n_joined
        conditions.append(_condition(source, term))
    source.looks_up = False
    return " AND ".join(conditions) or "true"


def _conjuncts(where: Expression) -> list[Expression]:
    """What all has to hold. ANDs within ANDs are one to Postgres, whatever the parentheses."""
    return [found for term in where.terms for found in _conjuncts(term)] if isinstance(where, And) else [where]


def _exists(found: str, *, looks_up: bool) -> str:
    """The condition that there is such a row. What is no EXISTS is never made a join."""
    return f"coalesce((SELECT true {found}), false)" if looks_up else f"EXISTS (SELECT 1 {found})"


def _condition(source: _Source, expression: Expression) -> str:
    match expression:
        case And(terms):
            return "(" + " AND ".join(_condition(source, term) for term in terms) + ")" if terms else "true"
        case Or(terms):
            return "(" + " OR ".join(_condition(source, term) for term in terms) + ")"
        case Not(term):
            # What is unknown, as a comparison with NULL, is not true: NOT takes that too.
            return f"({_condition(source, term)} IS NOT TRUE)"
    return _comparison(source, expression)


def _comparison(source: _Source, asked: Comparison) -> str:
    if asked.entity == "attribute":
        if isinstance(source, _Runs) and asked.key == "status" and isinstance(asked.value, str | tuple) and "LIKE" not in asked.op:
            return _state_is(source.bind, asked)
        return _test(source.attribute(asked.key).sql, asked, source.bind)
    if asked.entity == "tag" and isinstance(source, _Runs) and asked.key in _COLUMN_TAGS:
        return _test(_COLUMN_TAGS[asked.key], asked, source.bind)
    if asked.op in ("IS NULL", "IS NOT NULL"):
        return ("NOT " if asked.op == "IS NULL" else "") + source.owned(asked.entity, asked.key, "true")
    if test := _indexed(asked, source.bind):
        return source.owned(asked.entity, asked.key, test)
    if asked.entity == "param" and isinstance(asked.value, float):
        # As numeric on both sides: 1e999 is too large for a double.
        number = f"{_test('x.value::numeric', asked, source.bind)}::numeric"
        return source.owned("param", asked.key, f"{_SHORT} AND CASE WHEN x.value ~ {source.bind(_NUMBER_PATTERN)} THEN {number} END")
    return source.owned(asked.entity, asked.key, _test("x.value", asked, source.bind))


def _indexed(asked: Comparison, bind: _Binder) -> str | None:
    """The test of a comparison that an index by value serves, None of others."""
    if asked.entity == "metric" and asked.op != "!=":
        # NaN equals and exceeds everything in Postgres; in MLflow it only ever differs.
        return f"x.value < 'NaN' AND {_test('x.value', asked, bind)}"
    is_text = asked.op in ("=", "IN") and not isinstance(asked.value, float)
    if is_text and all(len(value) <= SHORT_CHARS for value in _listed(asked)):
        return f"{_SHORT} AND {_test('x.value', asked, bind)}"
    return None


def _test(expression: str, asked: Comparison, bind: _Binder) -> str:
    match asked.op:
        case "IS NULL" | "IS NOT NULL":
            return f"({expression}) {asked.op}"
        case "IN":
            return f"{expression} = ANY({bind(_listed(asked))})"
        case "NOT IN":
            return f"{expression} <> ALL({bind(_listed(asked))})"
        case "LIKE" | "ILIKE":
            # A backslash in a pattern is a character like others.
            return f"{expression} {asked.op} {bind(asked.value)} ESCAPE ''"
    return f"{expression} {'<>' if asked.op == '!=' else asked.op} {bind(asked.value)}"


def _listed(asked: Comparison) -> list[Any]:
    return list(asked.value) if isinstance(asked.value, tuple) else [asked.value]


def _state_is(bind: _Binder, asked: Comparison) -> str:
    """A run's MLflow status by the states it stands for: Postgres knows how common each is."""
    has = set(_listed(asked))
    is_negative = asked.op in ("!=", "NOT IN")
    return f"r.state = ANY({bind([state for state, status in MLFLOW_STATUS.items() if (status in has) != is_negative])})"


# -- order and pages ---------------------------------------------------------------------------------------------------------


def _directed(key: Key, *, is_descending: bool) -> Key:
    if key.kind == "number" and is_descending:
        # Numbers from the other end: so NaN, which Postgres holds for the largest, stays behind them.
        return replace(key, sql=f"(-{key.sql})")
    return replace(key, is_descending=is_descending)


def _after(keys: Sequence[Key], values: Sequence[KeyValue], bind: _Binder) -> str:
    """The condition that a row comes after the one with these values."""
    first, value = keys[0], values[0]
    if not any(key.is_nullable or key.is_descending != first.is_descending for key in keys):
        return f"({', '.join(key.sql for key in keys)}) {'<' if first.is_descending else '>'} ({', '.join(bind(value) for value in values)})"
    if value is None:
        beyond, equal = "false", f"{first.sql} IS NULL"
    else:
        beyond = f"{first.sql} {'<' if first.is_descending else '>'} {bind(value)}" + (f" OR {first.sql} IS NULL" if first.is_nullable else "")
        equal = f"{first.sql} = {bind(value)}"
    return f"({beyond} OR ({equal} AND {_after(keys[1:], values[1:], bind)}))" if len(keys) > 1 else f"({beyond})"


def _columns(keys: Iterable[Key]) -> str:
    return ", ".join(f"{key.sql} AS key_{number}" for number, key in enumerate(keys))


# -- runs --------------------------------------------------------------------------------------------------------------------

_STATUS: Final = "(CASE r.state " + " ".join(f"WHEN '{state}' THEN '{status}'" for state, status in MLFLOW_STATUS.items()) + " END)"
_RUN_ATTRIBUTES: Final = {
    "run_id": Key("r.run_id", "text", is_nullable=False),
    "run_name": Key("r.name", "text", is_nullable=False),
    "user_id": Key("r.user_name", "text", is_nullable=False),
    "status": Key(_STATUS, "text", is_nullable=False),
    # Whole milliseconds, as clients are told them.
    "start_time": Key("(-r.newest_first)", "number", is_nullable=False),
    "end_time": Key("floor(extract(epoch FROM r.ended_at) * 1000)", "number"),
    "artifact_uri": Key("coalesce(r.artifact_root, 'mlflow-artifacts:/' || r.experiment_id || '/' || r.run_id || '/artifacts')", "text", is_nullable=False),
}
_COLUMN_TAGS: Final = {
    "mlflow.runName": "r.name",
    "mlflow.user": "nullif(r.user_name, '')",
    "mlflow.parentRunId": "r.parent_run_id",
    "sweep.trial": "coalesce((SELECT t.value FROM tags t WHERE t.run_id = r.run_id AND t.key = 'sweep.trial'), r.trial_number::text)",
    "sweep.cause": "coalesce((SELECT t.value FROM tags t WHERE t.run_id = r.run_id AND t.key = 'sweep.cause'), nullif(r.cause, ''))",
}
"""The tags that columns stand for; a client's own of the last two goes before."""
_COLUMN_TAG_NAMES: Final = frozenset(("tag", name) for name in _COLUMN_TAGS)
_RUN_OWNED: Final = {
    "metric": "metric_latest x WHERE x.run_id = r.run_id AND x.attempt = r.attempt AND x.key = ",
    "param": "params x WHERE x.run_id = r.run_id AND x.attempt IN (0, r.attempt) AND x.key = ",
    "tag": "tags x WHERE x.run_id = r.run_id AND x.key = ",
}
_DATASET_OWNED: Final = (
    "(SELECT {} AS value FROM dataset_inputs i JOIN datasets d USING (dataset_id) WHERE i.run_id = r.run_id AND i.attempt IN (0, r.attempt)) x"
)
_DATASET_VALUES: Final = {"name": "d.name", "digest": "d.digest", "context": "i.context"}
_RUN_FIELDS: Final = ", ".join(f"r.{name}" for name in Run.__struct_fields__)
_NEWEST: Final = (Key("r.newest_first", "number", is_nullable=False), Key("r.run_id", "text", is_nullable=False))


class _Runs:
    """Runs."""

    def __init__(self) -> None:
        self.bind = _Binder()
        self.joins: list[str] = []
        self.looks_up = False

    def attribute(self, name: str) -> Key:
        return _RUN_ATTRIBUTES[name]

    def owned(self, entity: str, key: str, test: str) -> str:
        if entity == "dataset":
            return _exists(f"FROM {_DATASET_OWNED.format(_DATASET_VALUES[key])} WHERE {test} LIMIT 1", looks_up=self.looks_up)
        # By run and key at most one is met.
        return _exists(f"FROM {_RUN_OWNED[entity]}{self.bind(key)} AND {test}", looks_up=self.looks_up)

    def sort_key(self, item: OrderBy) -> Key:
        if item.entity == "attribute":
            if item.key == "start_time":
                return replace(_NEWEST[0], is_descending=not item.descending)
            return _directed(_RUN_ATTRIBUTES[item.key], is_descending=item.descending)
        if item.entity == "tag" and item.key in _COLUMN_TAGS:
            return Key(_COLUMN_TAGS[item.key], "text", is_descending=item.descending)
        name = f"o{len(self.joins)}"
        # A join, for then Postgres may read many at once; by run and key at most one is met.
        self.joins.append(f"LEFT JOIN {_RUN_OWNED[item.entity].replace('x.', f'{name}.').replace(' x WHERE ', f' {name} ON ')}{self.bind(item.key)}")
        return _directed(Key(f"{name}.value", "number" if item.entity == "metric" else "text"), is_descending=item.descending)


def runs(
    experiment_ids: Sequence[int], where: Expression, order_by: Sequence[OrderBy], view: View, limit: int, after: Sequence[KeyValue] | None = None
) -> Query:
    """Runs of experiments with what was logged to them. Index: ix_runs_experiment, in its order or as a set; ix_runs_parent where the parent is asked for."""
    source = _Runs()
    bind = source.bind
    keys = tuple(source.sort_key(item) for item in order_by)
    is_start_named = any((item.entity, item.key) == ("attribute", "start_time") for item in order_by)
    keys += _NEWEST[1:] if is_start_named else _NEWEST
    wanted = _joined(source, where) + (f" AND {_after(keys, after, bind)}" if after is not None else "")
    stages = _STAGES[view]
    order = ", ".join(key.order for key in keys)
    page = f"SELECT {RUN_COLUMNS}, {_columns(keys)} FROM {' '.join(['runs r', *source.joins])} WHERE {{own}} AND {wanted} ORDER BY {order} LIMIT {bind(limit)}"
    if len(experiment_ids) == len(stages) == 1 and not order_by:
        own = f"r.experiment_id = {bind(experiment_ids[0])} AND r.lifecycle_stage = {bind(stages[0])}"
        page = page.format(own=own)
        if limit <= _FEW and not _is_pinned(where):
            page = _of_the_newest(source, where, own + (f" AND {_after(keys, after, bind)}" if after is not None else ""), limit, page)
    elif not order_by:
        # Each experiment from its own place in the index.
        each = page.format(own="r.experiment_id = e.experiment_id AND r.lifecycle_stage = s.lifecycle_stage")
        page = (
            f"SELECT l.* FROM unnest({bind(list(experiment_ids))}::bigint[]) AS e (experiment_id) "
            f"CROSS JOIN unnest({bind(list(stages))}) AS s (lifecycle_stage) CROSS JOIN LATERAL ({each}) l ORDER BY l.key_0, l.key_1 LIMIT {bind(limit)}"
        )
    else:
        own = f"r.experiment_id = ANY({bind(list(experiment_ids))}::bigint[]) AND r.lifecycle_stage = ANY({bind(list(stages))})"
        page = page.format(own=own)
        if order_by[0].entity == "metric" and limit <= _FEW and _takes_most(where):
            page = _from_the_best(source, order_by[0], keys, after, f"{own} AND {wanted}", limit, page)
    found = [replace(key, sql=f"r.key_{number}") for number, key in enumerate(keys)]
    # What was logged is read of the page's runs only.
    text = f"SELECT {_RUN_FIELDS}, {DATA_COLUMNS}, {', '.join(key.sql for key in found)} FROM ({page}) r ORDER BY {', '.join(key.order for key in found)}"
    return Query(text, bind.values, keys)


# Pages of up to so many rows are worth a try from one end of an index, which is given up where it costs more than it can save.
_FEW: Final = 200
# How many values of a metric, by everybody, such a try walks; how many of the newest runs it reads for each row of the page.
_WALKED: Final = 4000
_READ_FOR_EACH: Final = 100
# What fewer than so many have is better read as a set.
_RARE: Final = 2000


def _takes_most(where: Expression) -> bool:
    """Whether a filter likely leaves most runs: it looks at attributes only, and names no runs."""
    return all(asked.entity == "attribute" and asked.key != "run_id" for asked in comparisons(where))


def _is_pinned(where: Expression) -> bool:
    """Whether a filter asks for named runs or a parent's children: few, found by other indexes."""
    pins = (("tag", "mlflow.parentRunId"), ("attribute", "run_id"))
    return any(isinstance(term, Comparison) and (term.entity, term.key) in pins and term.op in ("=", "IN") for term in _conjuncts(where))


def _of_the_newest(source: _Runs, where: Expression, own: str, limit: int, page: str) -> str:
    """A page in the default order from the newest so many runs, if they hold it; else as it is without.

    Not where something is asked for that few have, which the indexes by value find at once: counting to a few thousand tells.
    """
    bind = source.bind
    rare = []
    for term in _conjuncts(where):
        is_owned = isinstance(term, Comparison) and term.entity in _RUN_OWNED and (term.entity, term.key) not in _COLUMN_TAG_NAMES
        if is_owned and isinstance(term, Comparison) and (test := _indexed(term, bind)):
            table = _RUN_OWNED[term.entity].partition(" ")[0]
            met = f"SELECT 1 FROM {table} x WHERE x.key = {bind(term.key)} AND {test} LIMIT {_RARE}"
            rare.append(f"(SELECT count(*) FROM ({met}) met) < {_RARE}")
    if not rare:
        return page
    # Looked up run by run: everybody's values may be many more than these runs, and the page may be full before they are all read.
    wanted = " AND ".join([_joined(source, where, n_joined=0), *(f"NOT ({each})" for each in rare)])
    newest = f"SELECT r.* FROM runs r WHERE {own} ORDER BY r.newest_first, r.run_id LIMIT {bind(limit * _READ_FOR_EACH)}"
    columns = f"{RUN_COLUMNS}, {_columns(_NEWEST)}"
    return _or_else(f"SELECT {columns} FROM ({newest}) r WHERE {wanted} ORDER BY r.newest_first, r.run_id LIMIT {bind(limit)}", page, bind(limit))


def _or_else(best: str, page: str, limit: str) -> str:
    """The first, if it fills the page; Postgres begins the second only if it does not."""
    n_found = "(SELECT count(*) FROM best)"
    return f"WITH best AS MATERIALIZED ({best}) SELECT * FROM best WHERE {n_found} = {limit} UNION ALL SELECT * FROM ({page}) rest WHERE {n_found} < {limit}"


def _from_the_best(source: _Runs, item: OrderBy, keys: Sequence[Key], after: Sequence[KeyValue] | None, wanted: str, limit: int, page: str) -> str:
    """A page in a metric's order from ix_metric_latest_value, if the first so many values hold it; else as it is without.

    The index has everybody's runs: those of these experiments may stand far back in it, and how far no statistics tell.
    """
    first = None if after is None else after[0]
    if after is not None and (first is None or (isinstance(first, float) and math.isnan(first))):
        # The page begins among NaN, or where there is no value at all.
        return page
    bind = source.bind
    key = f"key = {bind(item.key)} AND value < 'NaN'"
    if first is not None:
        key += f" AND value {'<=' if item.descending else '>='} {bind(-first if item.descending else first)}"  # type: ignore[operator]  # a number, as its key says
    down = " DESC" if item.descending else ""
    end = f"(SELECT value FROM metric_latest WHERE {key} ORDER BY value{down} OFFSET {_WALKED} LIMIT 1)"
    within = f"o0.value > coalesce({end}, '-Infinity')" if item.descending else f"o0.value < coalesce({end}, 'NaN')"
    tables = " ".join(["runs r", source.joins[0].removeprefix("LEFT "), *source.joins[1:]])
    order = ", ".join([f"o0.value{down}", *(each.order for each in keys[1:])])
    best = (
        f"SELECT {RUN_COLUMNS}, {_columns(keys)} FROM {tables} "
        f"WHERE {wanted} AND {key.replace('key', 'o0.key').replace('value', 'o0.value')} AND {within} ORDER BY {order} LIMIT {bind(limit)}"
    )
    return _or_else(best, page, bind(limit))


def run_condition(where: Expression) -> tuple[str, dict[str, Any]]:
    """A filter as a condition on `runs r`, with its bound values: for those who have come to their runs by another way."""
    source = _Runs()
    return _joined(source, where), source.bind.values


# -- experiments -------------------------------------------------------------------------------------------------------------

_EXPERIMENT_ATTRIBUTES: Final = {
    "name": Key("e.name", "text", is_nullable=False),
    "experiment_id": Key("e.experiment_id", "number", is_nullable=False),
    "creation_time": Key("floor(extract(epoch FROM e.created_at) * 1000)", "number", is_nullable=False),
    "last_update_time": Key("floor(extract(epoch FROM e.updated_at) * 1000)", "number", is_nullable=False),
}


class _Experiments:
    def __init__(self) -> None:
        self.bind = _Binder()
        self.looks_up = False

    def attribute(self, name: str) -> Key:
        return _EXPERIMENT_ATTRIBUTES[name]

    def owned(self, entity: str, key: str, test: str) -> str:  # noqa: ARG002 -- an experiment has tags only
        found = f"FROM experiment_tags x WHERE x.experiment_id = e.experiment_id AND x.key = {self.bind(key)} AND {test}"
        return _exists(found, looks_up=self.looks_up)

    def sort_key(self, item: OrderBy) -> Key:
        return _directed(_EXPERIMENT_ATTRIBUTES[item.key], is_descending=item.descending)


def experiments(select: str, where: Expression, order_by: Sequence[OrderBy], view: View, limit: int, after: Sequence[KeyValue] | None = None) -> Query:
    """Experiments, by default the newest first. They are few: read as a whole.

    Args:
        select: the columns, of `experiments e`.
    """
    source = _Experiments()
    bind = source.bind
    keys = tuple(source.sort_key(item) for item in order_by or (OrderBy("attribute", "creation_time", descending=True), OrderBy("attribute", "experiment_id")))
    if not any(item.key == "experiment_id" for item in order_by):
        keys += (_directed(_EXPERIMENT_ATTRIBUTES["experiment_id"], is_descending=bool(order_by)),)
    wanted = _joined(source, where) + (f" AND {_after(keys, after, bind)}" if after is not None else "")
    text = (
        f"SELECT {select}, {_columns(keys)} FROM experiments e WHERE e.lifecycle_stage = ANY({bind(list(_STAGES[view]))}) AND {wanted} "
        f"ORDER BY {', '.join(key.order for key in keys)} LIMIT {bind(limit)}"
    )
    return Query(text, bind.values, keys)


# -- logged models -----------------------------------------------------------------------------------------------------------

_MODEL_ATTRIBUTES: Final = {
    "name": Key("m.name", "text", is_nullable=False),
    "model_id": Key("m.model_id", "text", is_nullable=False),
    "model_type": Key("nullif(m.model_type, '')", "text"),
    "status": Key("upper(m.status)", "text", is_nullable=False),
    "source_run_id": Key("nullif(m.source_run_id, '')", "text"),
    "creation_timestamp": Key("floor(extract(epoch FROM m.created_at) * 1000)", "number", is_nullable=False),
    "last_updated_timestamp": Key("floor(extract(epoch FROM m.updated_at) * 1000)", "number", is_nullable=False),
}
_MODEL_OWNED: Final = {"metric": "logged_model_metrics", "param": "logged_model_params", "tag": "logged_model_tags"}

DatasetFilter = tuple[str, str | None]
"""A dataset's name and, if it matters, digest."""


class _LoggedModels:
    def __init__(self, datasets: Sequence[DatasetFilter]) -> None:
        self.bind = _Binder()
        self.datasets = datasets
        self.joins: list[str] = []
        self.looks_up = False

    def attribute(self, name: str) -> Key:
        return _MODEL_ATTRIBUTES[name]

    def owned(self, entity: str, key: str, test: str) -> str:
        measured = f" AND {self.measured_on(self.datasets)}" if entity == "metric" and self.datasets else ""
        found = f"FROM {_MODEL_OWNED[entity]} x WHERE x.model_id = m.model_id AND x.key = {self.bind(key)}{measured} AND {test} LIMIT 1"
        return _exists(found, looks_up=self.looks_up)

    def measured_on(self, datasets: Sequence[DatasetFilter]) -> str:
        tests = []
        for name, digest in datasets:
            tests.append(f"x.dataset_name = {self.bind(name)}" + (f" AND x.dataset_digest = {self.bind(digest)}" if digest is not None else ""))
        return f"({' OR '.join(tests)})"

    def sort_key(self, item: OrderBy) -> Key:
        if item.entity == "attribute":
            return _directed(_MODEL_ATTRIBUTES[item.key], is_descending=item.descending)
        name = f"o{len(self.joins)}"
        measured = f" AND {self.measured_on([item.dataset])}" if item.dataset else ""
        self.joins.append(
            f"LEFT JOIN LATERAL (SELECT x.value FROM logged_model_metrics x WHERE x.model_id = m.model_id AND x.key = {self.bind(item.key)}{measured} "
            f"ORDER BY x.time_ms DESC, x.step DESC, x.run_id LIMIT 1) {name} ON true"
        )
        return _directed(Key(f"{name}.value", "number"), is_descending=item.descending)


def logged_models(
    select: str,
    experiment_ids: Sequence[int],
    where: Expression,
    order_by: Sequence[OrderBy],
    datasets: Sequence[DatasetFilter],
    limit: int,
    after: Sequence[KeyValue] | None = None,
) -> Query:
    """Logged models of experiments that are not deleted, by default the newest first. Index: ix_logged_models_experiment, as a set.

    Args:
        select: the columns, of `logged_models m`.
        datasets: only metrics that were taken on one of these count, and some metric must have been.
    """
    source = _LoggedModels(datasets)
    bind = source.bind
    keys = tuple(source.sort_key(item) for item in order_by)
    named = {item.key for item in order_by if item.entity == "attribute"}
    if "creation_timestamp" not in named:
        keys += (_directed(_MODEL_ATTRIBUTES["creation_timestamp"], is_descending=True),)
    if "model_id" not in named:
        keys += (_MODEL_ATTRIBUTES["model_id"],)
    wanted = [f"m.experiment_id = ANY({bind(list(experiment_ids))}::bigint[])", "m.lifecycle_stage = 'active'", _joined(source, where)]
    if datasets and not any(asked.entity == "metric" for asked in comparisons(where)):
        wanted.append(f"EXISTS (SELECT 1 FROM logged_model_metrics x WHERE x.model_id = m.model_id AND {source.measured_on(datasets)})")
    if after is not None:
        wanted.append(_after(keys, after, bind))
    tables = " ".join(["logged_models m", *source.joins])
    text = f"SELECT {select}, {_columns(keys)} FROM {tables} WHERE {' AND '.join(wanted)} ORDER BY {', '.join(key.order for key in keys)} LIMIT {bind(limit)}"
    return Query(text, bind.values, keys)
