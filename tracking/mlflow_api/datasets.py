"""`runs/log-inputs` and `experiments/search-datasets`: which data and models runs read."""

from typing import Final

from msgspec import Struct

from tracking.errors import InvalidValue
from tracking.mlflow_api import limits
from tracking.mlflow_api.endpoints import ATTEMPT, READ, Caller, Endpoint
from tracking.mlflow_api.wire import ModelInputBody, RunRef, Tag
from tracking.records import Dataset, DatasetInput
from tracking.store.experiments import experiment_number

EXPERIMENTS_MAX: Final = 20
USES_MAX: Final = 1000

_LIMITS: Final = {
    "name": limits.DATASET_NAME_MAX_CHARS,
    "digest": limits.DATASET_DIGEST_MAX_CHARS,
    "source": 65_535,
    "schema": 1_048_575,
    "profile": 16_777_215,
}
_TAG_KEY_MAX_CHARS: Final = 255
_TAG_VALUE_MAX_CHARS: Final = 500


class GivenDataset(Struct, frozen=True):
    """A dataset as a client describes it."""

    name: str = ""
    digest: str = ""
    source_type: str = ""
    source: str = ""
    schema: str | None = None
    profile: str | None = None


class GivenInput(Struct, frozen=True):
    """A dataset that a run read, with tags such as `mlflow.data.context`."""

    dataset: GivenDataset = GivenDataset()
    tags: list[Tag] | None = None


class LogInputs(RunRef, frozen=True, kw_only=True):
    """Body of runs/log-inputs."""

    datasets: list[GivenInput] | None = None
    models: list[ModelInputBody] | None = None


class SearchDatasets(Struct, frozen=True):
    """Body of experiments/search-datasets."""

    experiment_ids: list[str] | None = None


class DatasetSummary(Struct, frozen=True, omit_defaults=True):
    """A dataset in a context that it was used in."""

    experiment_id: str
    name: str
    digest: str
    context: str | None = None


class DatasetsAnswer(Struct, frozen=True, omit_defaults=True):
    """Datasets of experiments."""

    dataset_summaries: list[DatasetSummary] = []


def log_inputs(caller: Caller, asked: LogInputs) -> None:
    """Note what a run read."""
    inputs = [_input(each) for each in asked.datasets or ()]
    caller.store.datasets.log_inputs(asked.named, inputs, [model.model_id for model in asked.models or ()], caller.fence)


def search_datasets(caller: Caller, asked: SearchDatasets) -> DatasetsAnswer:
    """The datasets that the runs of some experiments read."""
    experiment_ids = asked.experiment_ids or []
    if not experiment_ids:
        raise InvalidValue("SearchDatasets request must specify at least one experiment_id.")
    if len(experiment_ids) > EXPERIMENTS_MAX:
        raise InvalidValue(f"SearchDatasets request cannot specify more than {EXPERIMENTS_MAX} experiment_ids. Received {len(experiment_ids)} experiment_ids.")
    uses = caller.store.datasets.uses([experiment_number(each) for each in experiment_ids], USES_MAX)
    return DatasetsAnswer([DatasetSummary(use.experiment_id, use.name, use.digest, use.context) for use in uses])


def _input(given: GivenInput) -> DatasetInput:
    dataset = given.dataset
    for name, limit in _LIMITS.items():
        limits.check_length(name, getattr(dataset, name) or "", limit)
    tags = {}
    for tag in given.tags or ():
        limits.check_length("key", tag.key, _TAG_KEY_MAX_CHARS)
        tags[tag.key] = limits.check_length("value", tag.value or "", _TAG_VALUE_MAX_CHARS)
    described = Dataset(dataset.name, dataset.digest, dataset.source_type, dataset.source, dataset.schema, dataset.profile)
    return DatasetInput(described, tags)


ENDPOINTS: Final = (
    Endpoint("POST", "/runs/log-inputs", ATTEMPT, LogInputs, log_inputs),
    Endpoint("POST", "/experiments/search-datasets", READ, SearchDatasets, search_datasets),
)
