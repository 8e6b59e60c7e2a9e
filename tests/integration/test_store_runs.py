"""Experiments and runs as clients see them, and the search that must agree with plain Python."""

import itertools
import math
import operator
import random
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.support.record import Hands, both
from tracking.errors import AlreadyExists, InvalidValue, NotAllowed, NotFound
from tracking.filters import Clause, OrderBy
from tracking.ids import new_uuid
from tracking.records import MetricPoint, Run
from tracking.store.runs import from_ms, mlflow_status, to_ms

NAN, INF = float("nan"), float("inf")


# -- experiments ---------------------------------------------------------------------------------------------------


def test_experiment_default_is_there(hands: Hands) -> None:
    """MLflow's clients expect "0"."""
    assert hands.store.experiments.get("0").name == "Default"


def test_experiment_create_keeps_what_was_said(hands: Hands) -> None:
    """Name, tags and location; found by id, by name and in the list."""
    name = new_uuid()
    made = hands.store.experiments.create(name, {"a": "1", "b": ""}, artifact_location="s3://x")
    assert (made.name, made.tags, made.artifact_location, made.lifecycle_stage) == (name, {"a": "1", "b": ""}, "s3://x", "active")
    assert hands.store.experiments.get(made.experiment_id) == made
    assert hands.store.experiments.get_by_name(name) == made
    assert made in hands.store.experiments.list()


def test_experiment_name_is_taken_once(hands: Hands) -> None:
    """Created twice, also at once, it exists once; `ensure` finds it."""
    name = new_uuid()

    def create() -> str | None:
        try:
            return hands.store.experiments.create(name).experiment_id
        except AlreadyExists:
            return None

    made = [experiment_id for experiment_id in both(create, create) if experiment_id is not None]
    assert len(made) == 1
    assert hands.store.experiments.ensure(name).experiment_id == made[0]


@pytest.mark.parametrize("experiment_id", ["", "x", "-1", "999999", "9" * 40, "1.0", "٣"])
def test_experiment_of_unknown_id_is_not_found(hands: Hands, experiment_id: str) -> None:
    """Also what is no number at all."""
    with pytest.raises(NotFound):
        hands.store.experiments.get(experiment_id)
    with pytest.raises(NotFound):
        hands.store.runs.create_external(experiment_id)


# -- external runs ---------------------------------------------------------------------------------------------------


def test_run_external_life(hands: Hands) -> None:
    """A client opens, ends and reopens its own run by MLflow's rules."""
    parent = hands.store.runs.create_external("0")
    run = hands.store.runs.create_external("0", user_name="ann", name="mine", start_time_ms=1234567, tags={"mlflow.parentRunId": parent.run_id, "a": "b"})
    assert (run.kind, mlflow_status(run), run.name, run.user_name, run.parent_run_id) == ("external", "RUNNING", "mine", "ann", parent.run_id)
    assert run.started_at is not None
    assert to_ms(run.started_at) == 1234567
    tags = hands.store.runs.data(run.run_id).tags
    assert tags == {"mlflow.runName": "mine", "mlflow.user": "ann", "mlflow.parentRunId": parent.run_id, "a": "b"}
    ended = hands.store.runs.update(run.run_id, status="FAILED", end_time_ms=2234567, name="renamed")
    assert (mlflow_status(ended), ended.name, ended.ended_at) == ("FAILED", "renamed", from_ms(2234567))
    reopened = hands.store.runs.update(run.run_id, status="RUNNING")
    assert (mlflow_status(reopened), reopened.ended_at) == ("RUNNING", None)


@pytest.mark.parametrize(
    "wrong",
    [{"name": "a", "tags": {"mlflow.runName": "b"}}, {"start_time_ms": 10**18}, {"start_time_ms": -(10**18)}, {"name": "a\0b"}],
    ids=["two names", "far future", "far past", "NUL"],
)
def test_run_external_with_wrong_fields_is_refused(hands: Hands, wrong: dict[str, Any]) -> None:
    """Refused as invalid, not as an error of ours."""
    with pytest.raises(InvalidValue):
        hands.store.runs.create_external("0", **wrong)


def test_run_unknown_status_is_refused(hands: Hands) -> None:
    """The message lists those there are."""
    run = hands.store.runs.create_external("0")
    with pytest.raises(InvalidValue, match="FINISHED"):
        hands.store.runs.update(run.run_id, status="DONE")


def test_run_tags_are_set_replaced_and_deleted(hands: Hands) -> None:
    """The name's tag renames the run; a tag that is not there can't be deleted."""
    run_id = hands.store.runs.create_external("0", tags={"a": "1"}).run_id
    hands.store.runs.set_tags(run_id, {"a": "2", "b": "3", "mlflow.runName": "new", "mlflow.user": "bob"})
    run = hands.store.runs.get(run_id)
    assert (run.name, run.user_name) == ("new", "bob")
    hands.store.runs.delete_tag(run_id, "b")
    with pytest.raises(NotFound):
        hands.store.runs.delete_tag(run_id, "b")
    assert {k: v for k, v in hands.store.runs.data(run_id).tags.items() if "." not in k} == {"a": "2"}


def test_run_delete_and_restore(hands: Hands) -> None:
    """A deleted run takes no writes and is found only by who asks for deleted ones; both ways are idempotent."""
    experiment = hands.store.experiments.ensure(new_uuid()).experiment_id
    run_id = hands.store.runs.create_external(experiment).run_id

    def seen(view: Any) -> list[str]:
        return [run.run_id for run, _ in hands.store.runs.search([experiment], view=view)[0]]

    for _ in range(2):
        hands.store.runs.delete(run_id)
    assert (seen("ACTIVE_ONLY"), seen("DELETED_ONLY"), seen("ALL")) == ([], [run_id], [run_id])
    with pytest.raises(InvalidValue):
        hands.store.runs.set_tags(run_id, {"a": "1"})
    for _ in range(2):
        hands.store.runs.restore(run_id)
    assert seen("ACTIVE_ONLY") == [run_id]


def test_run_managed_or_parent_is_not_deleted_before_its_end(hands: Hands) -> None:
    """The machinery still needs it."""
    sweep = hands.sweep()
    for run_id in (hands.run_id(sweep), sweep.sweep_id):
        with pytest.raises(NotAllowed, match="has not ended"):
            hands.store.runs.delete(run_id)
    hands.store.sweeps.cancel(sweep.sweep_id)
    hands.store.runs.delete(hands.run_id(sweep))


@pytest.mark.parametrize("act", ["get", "data", "delete", "restore", "update", "set_tags", "delete_tag", "log_params"])
def test_run_of_unknown_id_is_not_found(hands: Hands, act: str) -> None:
    """Whatever was wanted of it."""
    more: dict[str, tuple[Any, ...]] = {"set_tags": ({"a": "b"},), "delete_tag": ("a",), "log_params": ({"a": "b"},)}
    with pytest.raises(NotFound, match="no-such-run"):
        getattr(hands.store.runs, act)("no-such-run", *more.get(act, ()))


# -- search against a plain model ----------------------------------------------------------------------------------------

TEXTS = ["cnn", "CNN", "rnn%", "a_b", "a\\b", "'", "", "10", "9", "ü"]
PATTERNS = [*TEXTS, "%n%", "_nn", "c%", "%\\%", "%'%", "%", "C__", "a\\_b", "%\\"]
COMPARE = {"=": operator.eq, "!=": operator.ne, ">": operator.gt, ">=": operator.ge, "<": operator.lt, "<=": operator.le}
NUMBERS = [-1.0, 0.0, 0.5, 0.5, 1.0, 1e300, NAN, INF, -INF]


@dataclass
class Logged:
    """What one run holds, as plain Python."""

    run: Run
    metrics: dict[str, float] = field(default_factory=dict)
    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)

    def attribute(self, key: str) -> Any:
        """An attribute as the client is told it."""
        times = {"start_time": self.run.started_at or self.run.created_at, "end_time": self.run.ended_at}
        if key in times:
            return None if times[key] is None else to_ms(times[key])  # type: ignore[arg-type]
        return {
            "run_id": self.run.run_id,
            "run_name": self.run.name,
            "user_id": self.run.user_name,
            "status": mlflow_status(self.run),
            "artifact_uri": f"mlflow-artifacts:/{self.run.experiment_id}/{self.run.run_id}/artifacts",
        }[key]

    def value(self, entity: str, key: str) -> Any:
        """What a clause compares, None if there is none."""
        if entity == "attribute":
            return self.attribute(key)
        column = {"mlflow.runName": self.run.name, "mlflow.user": self.run.user_name, "mlflow.parentRunId": self.run.parent_run_id}
        if entity == "tag" and key in column:
            return column[key]
        return {"metric": self.metrics, "param": self.params, "tag": self.tags}[entity].get(key)  # type: ignore[attr-defined]

    def meets(self, clause: Clause) -> bool:
        """Whether a clause holds of this run."""
        value, wanted = self.value(clause.entity, clause.key), clause.value
        if value is None:
            return False
        if isinstance(wanted, tuple):
            return value in wanted
        if clause.op in ("LIKE", "ILIKE"):
            pattern = "".join({"%": ".*", "_": "."}.get(c, re.escape(c)) for c in str(wanted))
            return re.fullmatch(pattern, value, re.DOTALL | (re.IGNORECASE if clause.op == "ILIKE" else 0)) is not None
        return bool(COMPARE[clause.op](value, wanted))


def make_runs(hands: Hands, dice: random.Random) -> tuple[str, list[Logged]]:
    """An experiment of random runs, some of them ended, one trial with an earlier attempt among them."""
    experiment = hands.store.experiments.ensure(new_uuid()).experiment_id
    logged = []
    for number in range(30):
        metrics = {key: dice.choice(NUMBERS) for key in ("m", "n") if dice.random() < 0.7}
        params = {key: dice.choice(TEXTS) for key in ("p", "q") if dice.random() < 0.7}
        tags = {key: dice.choice(TEXTS) for key in ("t", "mlflow.parentRunId") if dice.random() < 0.7}
        start_ms = dice.choice([1000, 2000, 2001, 3000, None])
        run_id = hands.store.runs.create_external(
            experiment, user_name=dice.choice(["ann", "bob"]), name=dice.choice(["x", "y", f"z{number}"]), start_time_ms=start_ms, tags=tags
        ).run_id
        hands.store.metrics.log_batch(run_id, [MetricPoint(k, v, 1, 1) for k, v in metrics.items()], params, {})
        if dice.random() < 0.5:
            hands.store.runs.update(run_id, status=dice.choice(["FINISHED", "KILLED"]), end_time_ms=dice.choice([None, 4000, 5000]))
        logged.append(Logged(hands.store.runs.get(run_id), metrics, params, {k: v for k, v in tags.items() if "." not in k}))
    sweep = hands.sweep(1, experiment=hands.store.experiments.get(experiment).name)
    first = hands.start(sweep)
    hands.log(first, "m", 0.5)
    hands.store.runs.log_params(first.run_id, {"p": "cnn"}, first.fence)
    second = hands.retry(first)
    hands.log(second, "n", 0.5)
    logged.append(Logged(hands.store.runs.get(first.run_id), {"n": 0.5}, {"x": "0"}))
    logged.append(Logged(hands.store.runs.get(sweep.sweep_id)))
    return experiment, logged


def any_clause(dice: random.Random, logged: list[Logged]) -> Clause:
    """A clause that the grammar can produce."""
    kind = dice.choice(["metric", "param", "tag", "column tag", "text", "time", "ids"])
    comparison: Any = dice.choice(["=", "!=", ">", ">=", "<", "<="])
    text_op: Any = dice.choice(["=", "!=", "LIKE", "ILIKE"])
    text = dice.choice(PATTERNS if "LIKE" in text_op else TEXTS)
    run = dice.choice(logged)
    match kind:
        case "metric":
            return Clause("metric", dice.choice(["m", "n", "none"]), comparison, dice.choice([v for v in NUMBERS if math.isfinite(v)]))
        case "param" | "tag":
            return Clause(kind, dice.choice(["p", "q", "x", "t"]), text_op, text)
        case "column tag":
            return Clause("tag", dice.choice(["mlflow.runName", "mlflow.user", "mlflow.parentRunId"]), text_op, dice.choice(["x", "ann", text]))
        case "text":
            key = dice.choice(["run_id", "run_name", "user_id", "status", "artifact_uri"])
            return Clause("attribute", key, text_op, dice.choice([str(run.attribute(key)), text, "%" + str(run.attribute(key))[-3:]]))
        case "time":
            key = dice.choice(["start_time", "end_time"])
            return Clause("attribute", key, comparison, run.attribute(key) or 2000)
    return Clause("attribute", "run_id", "IN", tuple(dice.choice(logged).run.run_id for _ in range(dice.randint(1, 4))))


@pytest.mark.parametrize("seed", range(3))
def test_search_filters_as_plain_python_does(hands: Hands, seed: int) -> None:
    """Any clauses on any runs: metrics, parameters, tags, attributes, every operator; NaN only ever differs."""
    dice = random.Random(seed)  # noqa: S311 -- a test\'s dice
    experiment, logged = make_runs(hands, dice)
    n_found = 0
    for _ in range(150):
        where = tuple(any_clause(dice, logged) for _ in range(dice.choice([1, 1, 2])))
        found = {run.run_id for run, _ in hands.store.runs.search([experiment], where)[0]}
        assert found == {each.run.run_id for each in logged if all(each.meets(clause) for clause in where)}, where
        n_found += 0 < len(found) < len(logged)
    assert n_found > 50, "most of these searches must separate something"


def test_search_each_operator_of_each_entity_finds_and_leaves_out(hands: Hands) -> None:
    """One clause of every kind, by hand, so that the model above can't be wrong in the same way."""
    experiment = hands.store.experiments.ensure(new_uuid()).experiment_id
    low = hands.store.runs.create_external(experiment, name="low", user_name="ann", start_time_ms=1000, tags={"t": "Alpha"}).run_id
    high = hands.store.runs.create_external(experiment, name="high", user_name="bob", start_time_ms=2000, tags={"t": "beta"}).run_id
    hands.store.metrics.log_batch(low, [MetricPoint("m", 1.0)], {"p": "10"}, {})
    hands.store.metrics.log_batch(high, [MetricPoint("m", 2.0)], {"p": "9"}, {})
    hands.store.runs.update(high, status="FINISHED", end_time_ms=3000)
    cases: list[tuple[tuple[Any, ...], set[str]]] = [
        (("metric", "m", "=", 1.0), {low}),
        (("metric", "m", "!=", 1.0), {high}),
        (("metric", "m", ">", 1.0), {high}),
        (("metric", "m", ">=", 1.0), {low, high}),
        (("metric", "m", "<", 2.0), {low}),
        (("metric", "m", "<=", 2.0), {low, high}),
        (("param", "p", "=", "10"), {low}),
        (("param", "p", "!=", "10"), {high}),
        (("param", "p", "LIKE", "1%"), {low}),
        (("tag", "t", "LIKE", "al%"), set()),
        (("tag", "t", "ILIKE", "AL%"), {low}),
        (("tag", "mlflow.user", "=", "bob"), {high}),
        (("attribute", "status", "=", "RUNNING"), {low}),
        (("attribute", "run_name", "LIKE", "h_gh"), {high}),
        (("attribute", "start_time", ">", 1000), {high}),
        (("attribute", "end_time", "<=", 3000), {high}),
        (("attribute", "run_id", "IN", (low, "x")), {low}),
        (("attribute", "artifact_uri", "LIKE", f"%/{low}/%"), {low}),
    ]
    for clause, expected in cases:
        assert {run.run_id for run, _ in hands.store.runs.search([experiment], (Clause(*clause),))[0]} == expected, clause


def test_search_start_time_is_the_one_that_clients_are_told(hands: Hands) -> None:
    """A run whose start the database took in microseconds is found by its milliseconds."""
    experiment = hands.store.experiments.ensure(new_uuid()).experiment_id
    run = hands.store.runs.create_external(experiment)
    hands.change("UPDATE runs SET started_at = %(t)s WHERE run_id = %(id)s", t=datetime(2026, 1, 1, 0, 0, 0, 123999, UTC), id=run.run_id)
    told = to_ms(hands.store.runs.get(run.run_id).started_at or from_ms(0))
    found = hands.store.runs.search([experiment], (Clause("attribute", "start_time", "=", told),))[0]
    assert [r.run_id for r, _ in found] == [run.run_id]


@pytest.mark.parametrize("descending", [False, True], ids=["ascending", "descending"])
@pytest.mark.parametrize(
    "entity, key", [("metric", "m"), ("param", "p"), ("tag", "t"), ("attribute", "start_time"), ("attribute", "run_name"), ("tag", "mlflow.user")]
)
def test_search_orders_with_nothing_last(hands: Hands, entity: Any, key: str, descending: bool) -> None:
    """Values in order, then NaN, then runs without one, whichever way; ties by start and id, so pages never overlap."""
    experiment, logged = make_runs(hands, random.Random(7))  # noqa: S311 -- a test\'s dice
    found, token = [], ""
    while True:
        page, token = hands.store.runs.search([experiment], order_by=(OrderBy(entity, key, descending),), max_results=7, page_token=token)
        found += [run.run_id for run, _ in page]
        if not token:
            break
    assert sorted(found) == sorted(each.run.run_id for each in logged)
    values = [next(each for each in logged if each.run.run_id == run_id).value(entity, key) for run_id in found]
    kinds = [2 if v is None else 1 if isinstance(v, float) and math.isnan(v) else 0 for v in values]
    assert kinds == sorted(kinds)
    plain = values[: kinds.count(0)]
    pairs = itertools.pairwise(plain)
    if isinstance(plain[0], str):
        # The order of letters is the database's; equal values stand together.
        assert len(plain) - sum(a == b for a, b in pairs) == len(set(plain))
    else:
        assert all((a >= b if descending else a <= b) for a, b in pairs)


def test_search_returns_what_was_logged(hands: Hands) -> None:
    """Each run comes with its data, several experiments at once, others not; no experiments, no runs."""
    experiment, logged = make_runs(hands, random.Random(3))  # noqa: S311 -- a test\'s dice
    other = hands.store.experiments.ensure(new_uuid()).experiment_id
    extra = hands.store.runs.create_external(other).run_id
    found = hands.store.runs.search([experiment, other, "nonsense"])[0]
    assert {run.run_id for run, _ in found} == {each.run.run_id for each in logged} | {extra}
    by_id = {run.run_id: data for run, data in found}
    for each in logged:
        data = by_id[each.run.run_id]
        assert {p.key: repr(p.value) for p in data.metrics} == {k: repr(v) for k, v in each.metrics.items()}
        assert data.params == each.params
    assert hands.store.runs.search([]) == ([], "")
