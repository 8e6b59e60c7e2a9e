"""MLflow's messages as JSON has them: snake_case, int64 as numbers (strings are taken too), NaN and infinities as strings."""

import math
from collections.abc import Sequence
from typing import Annotated, Final

from msgspec import Meta, Struct

from tracking.artifacts import run_uri
from tracking.errors import InvalidValue
from tracking.records import DatasetInput, Experiment, MetricPoint, Run, RunData
from tracking.store.metrics import Row
from tracking.store.runs import mlflow_status, to_ms

Int64 = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
Millis = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Required = Annotated[str, Meta(min_length=1)]
"""A text that must be there; to MLflow an empty one is not."""
SEE_DOCS: Final = " See the API docs for more information about request parameters."


def missing_value(name: str) -> InvalidValue:
    """What a request without a parameter that it needs is told."""
    return InvalidValue(f"Missing value for required parameter '{name}'.{SEE_DOCS}")


class Tag(Struct, frozen=True, gc=False):
    """A tag or parameter: both are a key and a text."""

    key: str
    value: str | None = ""


class Metric(Struct, frozen=True, gc=False):
    """One point of a metric on its way in or out."""

    key: str
    value: float | str
    timestamp: Millis
    step: Int64 | None = 0


class RunRef(Struct, frozen=True, kw_only=True):
    """A run by its id, under either of MLflow's names for it."""

    run_id: str | None = None
    run_uuid: str | None = None

    @property
    def named(self) -> str:
        """The id.

        Raises:
            InvalidValue: there is none, or two that differ.
        """
        found = self.run_id or self.run_uuid
        if not found:
            raise missing_value("run_id")
        if self.run_uuid and self.run_uuid != found:
            raise InvalidValue(f"'run_id' and 'run_uuid' name different runs: {self.run_id!r} and {self.run_uuid!r}.")
        return found


class ExperimentBody(Struct, frozen=True, omit_defaults=True):
    """An experiment."""

    experiment_id: str
    name: str
    artifact_location: str
    lifecycle_stage: str
    last_update_time: int
    creation_time: int
    workspace: str
    tags: list[Tag] = []


class RunInfo(Struct, frozen=True, omit_defaults=True):
    """What a run is."""

    run_id: str
    run_uuid: str
    run_name: str
    experiment_id: str
    user_id: str
    status: str
    start_time: int
    artifact_uri: str
    lifecycle_stage: str
    end_time: int | None = None


class RunDataBody(Struct, frozen=True, omit_defaults=True):
    """What was logged to a run."""

    metrics: list[Metric] = []
    params: list[Tag] = []
    tags: list[Tag] = []


class DatasetBody(Struct, frozen=True, omit_defaults=True):
    """A dataset, as clients describe it and are told of it."""

    name: str
    digest: str
    source_type: str
    source: str
    schema: str | None = None
    profile: str | None = None


class DatasetInputBody(Struct, frozen=True, omit_defaults=True):
    """A dataset that a run read, and what the run says of it."""

    dataset: DatasetBody
    tags: list[Tag] = []


class ModelInputBody(Struct, frozen=True):
    """A logged model that a run read."""

    model_id: str


class ModelOutputBody(Struct, frozen=True):
    """A logged model that a run made."""

    model_id: str
    step: Int64 = 0


class RunInputsBody(Struct, frozen=True, omit_defaults=True):
    """What a run read."""

    dataset_inputs: list[DatasetInputBody] = []
    model_inputs: list[ModelInputBody] = []


class RunOutputsBody(Struct, frozen=True, omit_defaults=True):
    """What a run made."""

    model_outputs: list[ModelOutputBody] = []


class RunBody(Struct, frozen=True, omit_defaults=True):
    """A run."""

    info: RunInfo
    data: RunDataBody
    inputs: RunInputsBody
    outputs: RunOutputsBody | None = None


def experiment_body(experiment: Experiment) -> ExperimentBody:
    """An experiment as MLflow tells it. Runs that are in it tell their own locations."""
    return ExperimentBody(
        experiment.experiment_id,
        experiment.name,
        experiment.artifact_location or f"mlflow-artifacts:/{experiment.experiment_id}",
        experiment.lifecycle_stage,
        to_ms(experiment.updated_at),
        to_ms(experiment.created_at),
        "default",
        texts(experiment.tags),
    )


def run_info(run: Run) -> RunInfo:
    """What a run is, as MLflow tells it. A run that has not begun tells when it was made."""
    return RunInfo(
        run.run_id,
        run.run_id,
        run.name,
        run.experiment_id,
        run.user_name,
        mlflow_status(run),
        to_ms(run.started_at or run.created_at),
        run.artifact_root or run_uri(run.experiment_id, run.run_id),
        run.lifecycle_stage,
        None if run.ended_at is None else to_ms(run.ended_at),
    )


def run_body(run: Run, data: RunData) -> RunBody:
    """A run with what was logged to it."""
    logged = RunDataBody(metric_bodies(data.metrics), texts(data.params), texts(data.tags))
    lineage = data.lineage
    inputs = RunInputsBody([_dataset_input_body(each) for each in lineage.datasets], [ModelInputBody(model_id) for model_id in lineage.models_in])
    outputs = RunOutputsBody([ModelOutputBody(model.model_id, model.step) for model in lineage.models_out])
    return RunBody(run_info(run), logged, inputs, outputs)


def new_run_body(run: Run, data: RunData) -> RunBody:
    """A run as it is told to whoever opened it: without outputs, which nobody can have made."""
    return RunBody(run_info(run), RunDataBody(params=texts(data.params), tags=texts(data.tags)), RunInputsBody())


def _dataset_input_body(each: DatasetInput) -> DatasetInputBody:
    found = each.dataset
    return DatasetInputBody(
        DatasetBody(found.name, found.digest, found.source_type, found.source, found.schema or None, found.profile or None), texts(each.tags)
    )


def texts(values: dict[str, str]) -> list[Tag]:
    """Parameters or tags as MLflow lists them."""
    return [Tag(key, value) for key, value in values.items()]


def metric_bodies(points: tuple[MetricPoint, ...] | list[MetricPoint]) -> list[Metric]:
    """Points as MLflow tells them."""
    return [Metric(point.key, json_number(point.value), point.time_ms, point.step) for point in points]


def rows_by_key(metrics: Sequence[Metric], where: str = "metrics") -> dict[str, list[Row]]:
    """Points on their way in, by key, as the record appends them. Called for each point of a flood: nothing is made that is not needed.

    Raises:
        InvalidValue: a value is a text other than NaN, Infinity or a number.
    """
    found: dict[str, list[Row]] = {}
    for number, metric in enumerate(metrics):
        value = metric.value
        if value.__class__ is not float:
            try:
                value = float(value)
            except ValueError:
                raise InvalidValue(f"Invalid value {str(value)[:100]!r} for parameter '{where}[{number}].value' supplied: it is no number.") from None
        row = (metric.step or 0, metric.timestamp, value)
        rows = found.get(metric.key)
        if rows is None:
            found[metric.key] = [row]
        else:
            rows.append(row)
    return found


def json_number(value: float) -> float | str:
    """A number as JSON can have it."""
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
