"""`experiments/...`: the questions that own runs.

An attempt sees one experiment under every name: its own. A script that calls `set_experiment` would otherwise lose its run.
"""

from typing import Final, Literal

from msgspec import Struct

from tracking.errors import InvalidValue, NotFound
from tracking.mlflow_api import limits
from tracking.mlflow_api.endpoints import ATTEMPT, READ, Caller, Endpoint
from tracking.mlflow_api.wire import ExperimentBody, Tag, experiment_body
from tracking.records import Experiment
from tracking.store import Fence
from tracking.store.runs import decode_offset, encode_offset

ASKED_TAG: Final = "sweep.askedExperiment"
"""On a managed run: the experiment that its script asked for."""

_ALL: Final = 1_000_000
_STAGES: Final = {"ACTIVE_ONLY": ("active",), "DELETED_ONLY": ("deleted",), "ALL": ("active", "deleted")}


class GetByName(Struct, frozen=True):
    """Query of experiments/get-by-name."""

    experiment_name: str


class GetExperiment(Struct, frozen=True):
    """Query of experiments/get."""

    experiment_id: str


class CreateExperiment(Struct, frozen=True):
    """Body of experiments/create."""

    name: str
    artifact_location: str | None = None
    tags: list[Tag] | None = None


class SearchExperiments(Struct, frozen=True):
    """Body or query of experiments/search."""

    view_type: Literal["ACTIVE_ONLY", "DELETED_ONLY", "ALL"] = "ACTIVE_ONLY"
    max_results: int = 1000
    page_token: str | None = None
    filter: str | None = None
    order_by: list[str] | None = None


class ExperimentAnswer(Struct, frozen=True):
    """One experiment."""

    experiment: ExperimentBody


class ExperimentIdAnswer(Struct, frozen=True):
    """The id of a new experiment."""

    experiment_id: str


class ExperimentsAnswer(Struct, frozen=True, omit_defaults=True):
    """A page of experiments."""

    experiments: list[ExperimentBody]
    next_page_token: str = ""


def get_by_name(caller: Caller, asked: GetByName) -> ExperimentAnswer:
    """The experiment of a name; an attempt's own, whatever the name."""
    if caller.fence is not None:
        return ExperimentAnswer(experiment_body(_own_experiment(caller, caller.fence, asked.experiment_name)))
    experiment = caller.store.experiments.get_by_name(asked.experiment_name)
    if experiment is None:
        raise NotFound(f"Could not find experiment with name '{asked.experiment_name}'")
    return ExperimentAnswer(experiment_body(experiment))


def get_experiment(caller: Caller, asked: GetExperiment) -> ExperimentAnswer:
    """The experiment of an id."""
    return ExperimentAnswer(experiment_body(caller.store.experiments.get(asked.experiment_id)))


def create_experiment(caller: Caller, asked: CreateExperiment) -> ExperimentIdAnswer:
    """A new experiment; for an attempt its own, which it has already."""
    name = limits.check_experiment_name(asked.name)
    if asked.artifact_location:
        raise InvalidValue("'artifact_location' can't be chosen: the server assigns where artifacts are stored.")
    if caller.fence is not None:
        return ExperimentIdAnswer(_own_experiment(caller, caller.fence, name).experiment_id)
    tags = {limits.check_key(tag.key, "tags.key"): (tag.value or "")[: limits.EXPERIMENT_TAG_MAX_CHARS] for tag in asked.tags or ()}
    return ExperimentIdAnswer(caller.store.experiments.create(name, tags).experiment_id)


def search_experiments(caller: Caller, asked: SearchExperiments) -> ExperimentsAnswer:
    """A page of experiments, newest first."""
    if asked.filter or asked.order_by:
        raise InvalidValue("'filter' and 'order_by' are not supported for experiments; they come newest first.")
    size = limits.check_max_results(asked.max_results, limits.SEARCH_MAX_RESULTS)
    start = decode_offset(asked.page_token or "")
    stages = _STAGES[asked.view_type]
    found = [each for each in caller.store.experiments.list(limit=_ALL) if each.lifecycle_stage in stages]
    token = encode_offset(start + size) if len(found) > start + size else ""
    return ExperimentsAnswer([experiment_body(each) for each in found[start : start + size]], token)


def _own_experiment(caller: Caller, fence: Fence, asked_name: str) -> Experiment:
    """The experiment of the attempt's run; what was asked for stays as a tag."""
    own = caller.store.experiments.get(caller.store.runs.get(fence.run_id).experiment_id)
    if own.name != asked_name:
        caller.store.runs.set_tags(fence.run_id, {ASKED_TAG: asked_name[: limits.TAG_MAX_CHARS]}, fence)
    return own


ENDPOINTS: Final = (
    # By name it is a write for an attempt: the tag.
    Endpoint("GET", "/experiments/get-by-name", ATTEMPT, GetByName, get_by_name),
    Endpoint("GET", "/experiments/get", READ, GetExperiment, get_experiment),
    Endpoint("POST", "/experiments/create", ATTEMPT, CreateExperiment, create_experiment),
    Endpoint("POST", "/experiments/search", READ, SearchExperiments, search_experiments),
    Endpoint("GET", "/experiments/search", READ, SearchExperiments, search_experiments),
)
