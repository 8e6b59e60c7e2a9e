"""Registered models: versions from finished runs, aliases that move, names that are refused."""

import pytest

from tests.support.record import EXITED, Hands, both
from tracking.errors import InvalidValue, NotFound, NotNow
from tracking.ids import new_uuid
from tracking.records import Run


def finished(hands: Hands, value: float = 1.0) -> Run:
    """The run of a trial that finished with a value."""
    sweep = hands.sweep(1, metric_name="loss")
    hands.conclude(sweep, n0=value)
    return hands.store.runs.get(hands.run_id(sweep))


def test_register_versions_count_up_with_lineage(hands: Hands) -> None:
    """Each registration is the next version, newest first, with where it came from."""
    model = new_uuid()
    runs = [finished(hands, value) for value in (1.0, 2.0)]
    for run in runs:
        hands.store.registry.register(model, run=run, artifact="weights/final", description="by hand")
    versions = hands.store.registry.model(model).versions
    assert [(v.version, v.run_id, v.value, v.metric_name) for v in versions] == [(2, runs[1].run_id, 2.0, "loss"), (1, runs[0].run_id, 1.0, "loss")]
    assert (versions[0].source, versions[0].params, versions[0].description) == (f"runs:/{runs[1].run_id}/weights/final", {"x": 0}, "by hand")
    assert (versions[0].sweep_id, versions[0].trial_number) == (runs[1].sweep_id, 0)
    assert model in {m.name for m in hands.store.registry.models()}


def test_register_twice_at_once_gives_two_versions(hands: Hands) -> None:
    """A model that is new to both."""
    for _ in range(3):
        model, run = new_uuid(), finished(hands)
        versions = both(*[lambda model=model, run=run: hands.store.registry.register(model, run=run)] * 2)
        assert sorted(version.version for version in versions) == [1, 2]


def test_register_of_an_external_run(hands: Hands) -> None:
    """A run that a client logged by itself has no sweep, and may be registered whenever its owner says."""
    run = hands.store.runs.create_external("0")
    version = hands.store.registry.register(new_uuid(), run=run)
    assert (version.run_id, version.sweep_id, version.metric_name, version.params) == (run.run_id, None, None, {})


@pytest.mark.parametrize("state", ["queued", "running", "failed"])
def test_register_of_a_trial_that_did_not_finish_is_refused(hands: Hands, state: str) -> None:
    """Only a finished run has a model to show."""
    sweep, model = hands.sweep(), new_uuid()
    if state != "queued":
        held = hands.start(sweep)
        if state == "failed":
            hands.finish(held, EXITED)
            assert hands.store.queue.fail(hands.epoch, hands.due(held.run_id))
    with pytest.raises(NotNow, match=state):
        hands.store.registry.register(model, run=hands.store.runs.get(hands.run_id(sweep)))
    with pytest.raises(NotFound):
        hands.store.registry.model(model)


@pytest.mark.parametrize("model", ["", "a/b", "a:b", "x" * 257, "a\0b"])
def test_register_under_a_name_that_is_none_is_refused(hands: Hands, model: str) -> None:
    """MLflow's rules for models' names."""
    with pytest.raises(InvalidValue, match="no name for a model"):
        hands.store.registry.register(model, run=finished(hands))


@pytest.mark.parametrize("alias", ["latest", "Latest", "v1", "V23", "a b", "a.b", "x" * 256, "best\n", "v1\n"])
def test_register_with_an_alias_that_is_none_writes_nothing(hands: Hands, alias: str) -> None:
    """MLflow's rules for aliases; the version is not there either."""
    model = new_uuid()
    with pytest.raises(InvalidValue, match="no name for an alias"):
        hands.store.registry.register(model, run=finished(hands), alias=alias)
    with pytest.raises(NotFound):
        hands.store.registry.model(model)


def test_alias_moves_from_version_to_version(hands: Hands) -> None:
    """An alias stands at one version at a time; a version may have several."""
    model = new_uuid()
    for alias in ("best", "best"):
        hands.store.registry.register(model, run=finished(hands), alias=alias)
    assert [v.aliases for v in hands.store.registry.model(model).versions] == [("best",), ()]
    assert hands.store.registry.set_alias(model, "best", 1).aliases == ("best",)
    hands.store.registry.set_alias(model, "a-second_1", 1)
    assert [v.aliases for v in hands.store.registry.model(model).versions] == [(), ("a-second_1", "best")]


def test_alias_on_what_is_not_there_is_not_found(hands: Hands) -> None:
    """Neither an unknown model nor an unknown version; a bad alias is refused as such."""
    model = new_uuid()
    hands.store.registry.register(model, run=finished(hands))
    for name, version in ((new_uuid(), 1), (model, 2)):
        with pytest.raises(NotFound):
            hands.store.registry.set_alias(name, "best", version)
    with pytest.raises(InvalidValue):
        hands.store.registry.set_alias(model, "v2", 1)
