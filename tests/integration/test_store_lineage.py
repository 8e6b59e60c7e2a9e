"""What runs read and made, by whom it is said and whose view it is in: datasets and logged models."""

import pytest

from tests.support.record import Hands, both
from tracking.errors import NotAllowed
from tracking.ids import new_uuid
from tracking.records import Dataset, DatasetInput, DatasetUse, ModelOutput

IRIS = DatasetInput(Dataset("iris", "d1", "local", "here", "{}", "{}"), {"mlflow.data.context": "training", "a": "b"})


def test_datasets_of_an_earlier_attempt_are_not_the_runs_any_more(hands: Hands) -> None:
    """A claim opens a clean view (D6): what the new attempt says of the same data counts."""
    first = hands.start(hands.sweep())
    hands.store.datasets.log_inputs(first.run_id, [IRIS], ["m-1"], first.fence)
    assert hands.store.runs.data(first.run_id).lineage.datasets == (IRIS,)
    second = hands.retry(first)
    assert hands.store.runs.data(first.run_id).lineage.datasets == ()
    assert hands.store.runs.data(first.run_id).lineage.models_in == ()
    said = DatasetInput(IRIS.dataset, {"mlflow.data.context": "testing"})
    hands.store.datasets.log_inputs(first.run_id, [said], ["m-2"], second.fence)
    lineage = hands.store.runs.data(first.run_id).lineage
    assert (lineage.datasets, lineage.models_in) == ((said,), ("m-2",))


def test_models_of_an_earlier_attempt_are_not_the_runs_any_more(hands: Hands) -> None:
    """The same of what it made; the model itself stays."""
    first = hands.start(hands.sweep())
    models = hands.store.logged_models
    model = models.create(hands.store.runs.get(first.run_id).experiment_id, source_run_id=first.run_id, fence=first.fence)
    models.log_outputs(first.run_id, [ModelOutput(model.model_id, 1)], first.fence)
    second = hands.retry(first)
    assert hands.store.runs.data(first.run_id).lineage.models_out == ()
    models.log_outputs(first.run_id, [ModelOutput(model.model_id, 2)], second.fence)
    assert hands.store.runs.data(first.run_id).lineage.models_out == (ModelOutput(model.model_id, 2),)
    assert models.get(model.model_id) == model


def test_model_is_refused_from_an_attempt_that_another_has_superseded(hands: Hands) -> None:
    """Its fence is down, also for what it made itself (I3)."""
    first = hands.start(hands.sweep())
    models = hands.store.logged_models
    experiment_id = hands.store.runs.get(first.run_id).experiment_id
    model = models.create(experiment_id, source_run_id=first.run_id, fence=first.fence)
    second = hands.retry(first)
    with pytest.raises(NotAllowed):
        models.set_status(model.model_id, "ready", first.fence)
    with pytest.raises(NotAllowed):
        models.create(experiment_id, source_run_id=first.run_id, fence=first.fence)
    assert models.set_status(model.model_id, "ready", second.fence).status == "ready"


def test_model_of_another_trial_is_out_of_an_attempts_reach(hands: Hands) -> None:
    """Also in the same experiment: what a managed run made is its own."""
    sweep = hands.sweep(2)
    first, second = hands.start(sweep, 0), hands.start(sweep, 1)
    models = hands.store.logged_models
    model = models.create(sweep.experiment_id, source_run_id=first.run_id, fence=first.fence)
    own = models.create(sweep.experiment_id, source_run_id=second.run_id, fence=second.fence)
    assert models.set_status(own.model_id, "ready", second.fence).status == "ready"
    with pytest.raises(NotAllowed, match="not of"):
        models.set_status(model.model_id, "ready", second.fence)
    with pytest.raises(NotAllowed, match="not of"):
        models.create(sweep.experiment_id, source_run_id=first.run_id, fence=second.fence)


def test_model_of_a_descendant_is_its_openers(hands: Hands) -> None:
    """An attempt writes the models of the runs it opened."""
    held = hands.start(hands.sweep())
    child = hands.store.runs.create_external(hands.store.runs.get(held.run_id).experiment_id, fence=held.fence)
    model = hands.store.logged_models.create(child.experiment_id, source_run_id=child.run_id, fence=held.fence)
    assert hands.store.logged_models.set_status(model.model_id, "ready", held.fence).status == "ready"


def test_dataset_is_one_when_two_runs_name_it_at_once(hands: Hands) -> None:
    """By name and digest within the experiment; both runs read it."""
    experiment_id = hands.store.experiments.create(new_uuid()).experiment_id
    runs = [hands.store.runs.create_external(experiment_id).run_id for _ in range(2)]
    other = DatasetInput(Dataset("other", "d2"), {})
    log = hands.store.datasets.log_inputs
    both(lambda: log(runs[0], [IRIS, other]), lambda: log(runs[1], [other, IRIS]))
    for run_id in runs:
        assert {each.dataset.name for each in hands.store.runs.data(run_id).lineage.datasets} == {"iris", "other"}
    uses = hands.store.datasets.uses([int(experiment_id)])
    assert uses == [DatasetUse(experiment_id, "iris", "d1", "training"), DatasetUse(experiment_id, "other", "d2", None)]


def test_model_notes_both_stay_when_two_are_added_at_once(hands: Hands) -> None:
    """MLflow 2's list in a tag is read and written as one."""
    run_id = hands.store.runs.create_external("0").run_id
    note = hands.store.logged_models.note
    both(lambda: note(run_id, {"name": "a"}), lambda: note(run_id, {"name": "b"}))
    listed = hands.store.runs.data(run_id).tags["mlflow.log-model.history"]
    assert sorted(listed.count(f'"{name}"') for name in ("a", "b")) == [1, 1]
