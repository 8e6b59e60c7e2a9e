"""`experiments/...`: the questions that own runs.

An attempt sees one experiment under every name: its own. A script that calls `set_experiment` would otherwise lose its run.
"""

from typing import Final, Literal

from msgspec import Struct

from tracking.errors import NotAllowed, NotFound
from tracking.filters import EXPERIMENTS, parse_filter, parse_order_by
from tracking.locations import check_location
from tracking.mlflow_api import limits
from tracking.mlflow_api.endpoints import ATTEMPT, READ, Caller, Endpoint
from tracking.mlflow_api.wire import ExperimentBody, Required, Tag, experiment_body
from tracking.records import Experiment
from tracking.store import Fence

ASKED_TAG: Final = "sweep.askedExperiment"
"""On a managed run: the experiment that its script asked for."""


class GetByName(Struct, frozen=True):
    """Query of experiments/get-by-name."""

    experiment_name: Required


class ExperimentRef(Struct, frozen=True):
    """Query of experiments/get; body of experiments/delete and restore."""

    experiment_id: Required


class CreateExperiment(Struct, frozen=True):
    """Body of experiments/create."""

    name: Required
    artifact_location: str | None = None
    tags: list[Tag] | None = None


class UpdateExperiment(Struct, frozen=True):
    """Body of experiments/update."""

    experiment_id: Required
    new_name: Required


class SetExperimentTag(Struct, frozen=True):
    """Body of experiments/set-experiment-tag."""

    experiment_id: Required
    key: Required
    value: str | None = ""


class DeleteExperimentTag(Struct, frozen=True):
    """Body of experiments/delete-experiment-tag."""

    experiment_id: Required
    key: Required


class SearchExperiments(Struct, frozen=True):
    """Body or query of experiments/search."""

    view_type: Literal["ACTIVE_ONLY", "DELETED_ONLY", "ALL"] = "ACTIVE_ONLY"
    max_results: int = 1000
    order_by: list[str] | None = None
    filter: str | None = None
    page_token: str | None = None


class ExperimentAnswer(Struct, frozen=True):
    """One experiment."""

    experiment: ExperimentBody


class ExperimentIdAnswer(Struct, frozen=True):
    """The id of a new experiment."""

    experiment_id: str


class ExperimentsAnswer(Struct, frozen=True, omit_defaults=True):
    """A page of experiments."""

    experiments: list[ExperimentBody] = []
    next_page_token: str = ""


def get_by_name(caller: Caller, asked: GetByName) -> ExperimentAnswer:
    """The experiment of a name; an attempt's own, whatever the name."""
    if caller.fence is not None:
        return ExperimentAnswer(experiment_body(_own_experiment(caller, caller.fence, asked.experiment_name)))
    experiment = caller.store.experiments.get_by_name(asked.experiment_name)
    if experiment is None:
        raise NotFound(f"Could not find experiment with name '{asked.experiment_name}'")
    return ExperimentAnswer(experiment_body(experiment))


def get_experiment(caller: Caller, asked: ExperimentRef) -> ExperimentAnswer:
    """The experiment of an id."""
    return ExperimentAnswer(experiment_body(caller.store.experiments.get(asked.experiment_id)))


def create_experiment(caller: Caller, asked: CreateExperiment) -> ExperimentIdAnswer:
    """A new experiment; for an attempt its own, which it has already."""
    name = limits.check_experiment_name(asked.name)
    location = check_location(asked.artifact_location) if asked.artifact_location else ""
    tags = limits.experiment_tags(asked.tags or ())
    if caller.fence is not None:
        return ExperimentIdAnswer(_own_experiment(caller, caller.fence, name).experiment_id)
    return ExperimentIdAnswer(caller.store.experiments.create(name, tags, location).experiment_id)


def search_experiments(caller: Caller, asked: SearchExperiments) -> ExperimentsAnswer:
    """A page of experiments, newest first unless another order is asked for."""
    found, token = caller.store.experiments.search(
        parse_filter(asked.filter or "", EXPERIMENTS),
        parse_order_by(asked.order_by or (), EXPERIMENTS),
        asked.view_type,
        limits.check_max_results(asked.max_results, limits.SEARCH_MAX_RESULTS),
        asked.page_token or "",
    )
    return ExperimentsAnswer([experiment_body(each) for each in found], token)


def update_experiment(caller: Caller, asked: UpdateExperiment) -> None:
    """Give an experiment another name."""
    _refuse_attempts(caller)
    caller.store.experiments.rename(asked.experiment_id, limits.check_experiment_name(asked.new_name))


def delete_experiment(caller: Caller, asked: ExperimentRef) -> None:
    """Mark an experiment and its runs deleted."""
    _refuse_attempts(caller)
    caller.store.experiments.delete(asked.experiment_id)


def restore_experiment(caller: Caller, asked: ExperimentRef) -> None:
    """Bring a deleted experiment and its runs back."""
    _refuse_attempts(caller)
    caller.store.experiments.restore(asked.experiment_id)


def set_experiment_tag(caller: Caller, asked: SetExperimentTag) -> None:
    """Set one tag; an attempt may do so to its own experiment, for a tag is a note."""
    _refuse_other_experiment(caller, asked.experiment_id)
    for key, value in limits.experiment_tags([Tag(asked.key, asked.value)]).items():
        caller.store.experiments.set_tag(asked.experiment_id, key, value)


def delete_experiment_tag(caller: Caller, asked: DeleteExperimentTag) -> None:
    """Remove one tag."""
    _refuse_other_experiment(caller, asked.experiment_id)
    caller.store.experiments.delete_tag(asked.experiment_id, asked.key)


def _own_experiment(caller: Caller, fence: Fence, asked_name: str) -> Experiment:
    """The experiment of the attempt's run; what was asked for stays as a tag."""
    own = caller.store.experiments.get(caller.store.runs.get(fence.run_id).experiment_id)
    if own.name != asked_name:
        caller.store.runs.set_tags(fence.run_id, {ASKED_TAG: asked_name[: limits.TAG_MAX_CHARS]}, fence)
    return own


def _refuse_attempts(caller: Caller) -> None:
    if caller.fence is not None:
        raise NotAllowed("An attempt may not rename, delete or restore experiments.")


def _refuse_other_experiment(caller: Caller, experiment_id: str) -> None:
    if caller.fence is not None and caller.store.runs.get(caller.fence.run_id).experiment_id != experiment_id:
        raise NotAllowed(f"An attempt may tag its own experiment, not {experiment_id}.")


ENDPOINTS: Final = (
    # By name it is a write for an attempt: the tag.
    Endpoint("GET", "/experiments/get-by-name", ATTEMPT, GetByName, get_by_name),
    Endpoint("GET", "/experiments/get", READ, ExperimentRef, get_experiment),
    Endpoint("POST", "/experiments/create", ATTEMPT, CreateExperiment, create_experiment),
    Endpoint("POST", "/experiments/search", READ, SearchExperiments, search_experiments),
    Endpoint("GET", "/experiments/search", READ, SearchExperiments, search_experiments),
    Endpoint("POST", "/experiments/update", ATTEMPT, UpdateExperiment, update_experiment),
    Endpoint("POST", "/experiments/delete", ATTEMPT, ExperimentRef, delete_experiment),
    Endpoint("POST", "/experiments/restore", ATTEMPT, ExperimentRef, restore_experiment),
    Endpoint("POST", "/experiments/set-experiment-tag", ATTEMPT, SetExperimentTag, set_experiment_tag),
    Endpoint("POST", "/experiments/delete-experiment-tag", ATTEMPT, DeleteExperimentTag, delete_experiment_tag),
)
