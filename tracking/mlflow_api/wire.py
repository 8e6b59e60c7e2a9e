"""MLflow's messages as JSON has them: snake_case, int64 as numbers (strings are taken too), NaN and infinities as strings."""

import math
from typing import Annotated

from msgspec import Meta, Struct

from tracking.artifacts import run_uri
from tracking.errors import InvalidValue
from tracking.records import Experiment, MetricPoint, Run, RunData
from tracking.store.runs import mlflow_status, to_ms

Int64 = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
Millis = Annotated[int, Meta(ge=0, le=2**63 - 1)]


class Tag(Struct, frozen=True):
    """A tag or parameter: both are a key and a text."""

    key: str
    value: str | None = ""


class Metric(Struct, frozen=True):
    """One point of a metric on its way in or out."""

    key: str
    value: float | str
    timestamp: Millis
    step: Int64 | None = 0

    def point(self, where: str) -> MetricPoint:
        """The point as the record has it.

        Raises:
            InvalidValue: the value is a text other than NaN, Infinity or a number.
        """
        try:
            value = float(self.value)
        except ValueError:
            raise InvalidValue(f"Invalid value {self.value!r} for parameter '{where}.value' supplied: it is no number.") from None
        return MetricPoint(self.key, value, self.step or 0, self.timestamp)


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
            raise InvalidValue("Missing value for required parameter 'run_id'.")
        if self.run_uuid and self.run_uuid != found:
            raise InvalidValue(f"'run_id' and 'run_uuid' name different runs: {self.run_id!r} and {self.run_uuid!r}.")
        return found


class ExperimentBody(Struct, frozen=True):
    """An experiment."""

    experiment_id: str
    name: str
    artifact_location: str
    lifecycle_stage: str
    creation_time: int
    last_update_time: int
    tags: list[Tag]


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


class RunDataBody(Struct, frozen=True):
    """What was logged to a run."""

    metrics: list[Metric]
    params: list[Tag]
    tags: list[Tag]


class RunBody(Struct, frozen=True):
    """A run."""

    info: RunInfo
    data: RunDataBody


def experiment_body(experiment: Experiment) -> ExperimentBody:
    """An experiment as MLflow tells it. Locations are the server's: runs tell theirs."""
    return ExperimentBody(
        experiment.experiment_id,
        experiment.name,
        f"mlflow-artifacts:/{experiment.experiment_id}",
        experiment.lifecycle_stage,
        to_ms(experiment.created_at),
        to_ms(experiment.updated_at),
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
        run_uri(run.experiment_id, run.run_id),
        run.lifecycle_stage,
        None if run.ended_at is None else to_ms(run.ended_at),
    )


def run_body(run: Run, data: RunData) -> RunBody:
    """A run with what was logged to it."""
    return RunBody(run_info(run), RunDataBody(metric_bodies(data.metrics), texts(data.params), texts(data.tags)))


def texts(values: dict[str, str]) -> list[Tag]:
    """Parameters or tags as MLflow lists them."""
    return [Tag(key, value) for key, value in values.items()]


def metric_bodies(points: tuple[MetricPoint, ...] | list[MetricPoint]) -> list[Metric]:
    """Points as MLflow tells them."""
    return [Metric(point.key, _json_number(point.value), point.time_ms, point.step) for point in points]


def _json_number(value: float) -> float | str:
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
