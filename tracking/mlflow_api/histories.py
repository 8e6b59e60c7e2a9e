"""`metrics/get-history-bulk` and `-bulk-interval`: what MLflow's UI draws curves from."""

from typing import Final

from msgspec import Struct

from tracking.errors import InvalidValue
from tracking.mlflow_api import limits
from tracking.mlflow_api.endpoints import READ, Caller, Endpoint
from tracking.mlflow_api.wire import SEE_DOCS, Required, json_number, missing_value
from tracking.records import MetricPoint

RUNS_MAX: Final = 100
SAMPLE_MAX_POINTS: Final = 2500


class Bulk(Struct, frozen=True):
    """Query of metrics/get-history-bulk."""

    run_id: list[str] | None = None
    metric_key: str | None = None
    max_results: int = limits.HISTORY_MAX_RESULTS


class BulkInterval(Struct, frozen=True):
    """Query of metrics/get-history-bulk-interval."""

    run_ids: list[str]
    metric_key: Required
    start_step: int | None = None
    end_step: int | None = None
    max_results: int = SAMPLE_MAX_POINTS


class RunMetric(Struct, frozen=True):
    """A point of a metric, and whose it is."""

    key: str
    value: float | str
    timestamp: int
    step: int
    run_id: str


class BulkAnswer(Struct, frozen=True):
    """Points of many runs; the list is there also if it is empty."""

    metrics: list[RunMetric]


class SampleAnswer(Struct, frozen=True, omit_defaults=True):
    """Points of many runs."""

    metrics: list[RunMetric] = []


def get_bulk(caller: Caller, asked: Bulk) -> BulkAnswer:
    """The points of many runs, as many as fit."""
    if not asked.run_id:
        raise InvalidValue("GetMetricHistoryBulk request must specify at least one run_id.")
    if len(asked.run_id) > RUNS_MAX:
        raise InvalidValue(f"GetMetricHistoryBulk request cannot specify more than {RUNS_MAX} run_ids. Received {len(asked.run_id)} run_ids.")
    if asked.metric_key is None:
        raise InvalidValue("GetMetricHistoryBulk request must specify a metric_key.")
    size = min(limits.check_max_results(asked.max_results, 2**31), limits.HISTORY_MAX_RESULTS)
    return BulkAnswer([_metric(*each) for each in caller.store.histories.bulk(asked.run_id, asked.metric_key, size)])


def get_interval(caller: Caller, asked: BulkInterval) -> SampleAnswer:
    """Some points of each of many runs, evenly taken."""
    if not asked.run_ids:
        raise missing_value("run_ids")
    if len(asked.run_ids) > RUNS_MAX:
        raise InvalidValue(f"GetMetricHistoryBulkInterval request must specify at most {RUNS_MAX} run_ids. Received {len(asked.run_ids)} run_ids.{SEE_DOCS}")
    if not 1 <= asked.max_results <= SAMPLE_MAX_POINTS:
        raise InvalidValue(f"max_results must be between 1 and {SAMPLE_MAX_POINTS}.{SEE_DOCS}")
    found = caller.store.histories.sampled(asked.run_ids, asked.metric_key, asked.max_results, _steps(asked.start_step, asked.end_step))
    return SampleAnswer([_metric(*each) for each in found])


def _steps(first: int | None, last: int | None) -> tuple[int, int] | None:
    if first is None and last is None:
        return None
    if first is None or last is None:
        raise InvalidValue("If either start step or end step are specified, both must be specified.")
    if first > last:
        raise InvalidValue(f"end_step must be greater than start_step. Found start_step={first} and end_step={last}.")
    return first, last


def _metric(run_id: str, point: MetricPoint) -> RunMetric:
    return RunMetric(point.key, json_number(point.value), point.time_ms, point.step, run_id)


ENDPOINTS: Final = (Endpoint("GET", "/metrics/get-history-bulk-interval", READ, BulkInterval, get_interval),)
UI_ENDPOINTS: Final = (Endpoint("GET", "/metrics/get-history-bulk", READ, Bulk, get_bulk),)
"""What only the UI's prefix has."""
