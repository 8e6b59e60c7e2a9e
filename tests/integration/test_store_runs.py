"""Experiments and runs as clients see them."""

import secrets
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.support.record import Hands, both
from tracking.errors import AlreadyExists, InvalidValue, NotAllowed, NotFound
from tracking.ids import new_uuid
from tracking.store.runs import from_ms, mlflow_status, to_ms, write_params

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
    assert made in hands.store.experiments.search()[0]


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
    """What is no number at all is refused as such."""
    refusal = NotFound if experiment_id.strip("-").isdecimal() and experiment_id.isascii() else InvalidValue
    with pytest.raises(refusal):
        hands.store.experiments.get(experiment_id)
    with pytest.raises(refusal):
        hands.store.runs.create_external(experiment_id)


# -- external runs ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("second", "is_refused"), [("B", True), ("A", False)])
def test_param_is_kept_as_the_first_said_when_two_say_it_at_once(hands: Hands, second: str, *, is_refused: bool) -> None:
    """Whoever comes second has looked before the first was committed, and is refused all the same; the same value is no change."""
    run_id = hands.store.runs.create_external("0").run_id
    with ThreadPoolExecutor(1) as pool:
        with hands.store.database.transaction() as tx:
            write_params(tx, run_id, {"p": "A"}, None)
            other = pool.submit(hands.store.runs.log_params, run_id, {"p": second})
            hands.wait_for_blocked()
        refusal = other.exception(60)
    assert isinstance(refusal, InvalidValue) == is_refused
    assert hands.store.runs.data(run_id).params == {"p": "A"}


def test_run_is_not_opened_in_an_experiment_that_is_just_being_deleted(hands: Hands) -> None:
    """What waits for the deletion sees it."""
    experiment_id = hands.store.experiments.create(new_uuid()).experiment_id
    with ThreadPoolExecutor(1) as pool:
        with hands.store.database.transaction() as tx:
            tx.execute("SELECT 1 FROM experiments WHERE experiment_id = %(id)s FOR UPDATE", {"id": int(experiment_id)})
            tx.execute("UPDATE experiments SET lifecycle_stage = 'deleted' WHERE experiment_id = %(id)s", {"id": int(experiment_id)})
            opening = pool.submit(hands.store.runs.create_external, experiment_id)
            hands.wait_for_blocked()
        assert isinstance(opening.exception(60), InvalidValue)
    assert hands.sql("SELECT 1 FROM runs WHERE experiment_id = %(id)s", id=int(experiment_id)) == []


def test_run_whose_parent_no_index_holds_is_refused_as_a_value(hands: Hands) -> None:
    """A limit of Postgres does not pass: nobody is to try again for minutes."""
    with pytest.raises(InvalidValue):
        hands.store.runs.create_external("0", tags={"mlflow.parentRunId": secrets.token_hex(4000)})


@pytest.mark.parametrize("time_ms", [-1, 253_402_214_400_000, 2**62])
def test_run_of_a_time_that_can_not_be_read_back_is_refused(hands: Hands, time_ms: int) -> None:
    """East of Greenwich the last day of the year 9999 is the year 10000."""
    with pytest.raises(InvalidValue, match="is no time"):
        hands.store.runs.create_external("0", start_time_ms=time_ms)
    assert from_ms(253_402_214_399_999).year == 9999


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
    assert (mlflow_status(reopened), reopened.ended_at) == ("RUNNING", ended.ended_at)


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
