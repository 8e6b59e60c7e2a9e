"""`runs/log-metric`, `runs/log-batch`, `metrics/get-history`: points in and out."""

from collections.abc import Sequence
from typing import Final

from msgspec import Struct
from starlette.concurrency import run_in_threadpool

from tracking.mlflow_api import limits
from tracking.mlflow_api.endpoints import ATTEMPT, READ, Caller, Endpoint
from tracking.mlflow_api.wire import Int64, Metric, Millis, Required, RunRef, Tag, metric_bodies, rows_by_key
from tracking.records import MetricPoint, ModelMetric
from tracking.store.metrics import Append


class GivenMetric(Metric, frozen=True, gc=False):
    """A point on its way in, which may say of which logged model it is, and on which data."""

    model_id: str | None = None
    dataset_name: str | None = None
    dataset_digest: str | None = None


class LogMetric(RunRef, frozen=True, kw_only=True):
    """Body of runs/log-metric."""

    key: Required
    value: float | str
    timestamp: Millis
    step: Int64 | None = 0
    model_id: str | None = None
    dataset_name: str | None = None
    dataset_digest: str | None = None


class LogBatch(RunRef, frozen=True, kw_only=True):
    """Body of runs/log-batch."""

    metrics: list[GivenMetric] | None = None
    params: list[Tag] | None = None
    tags: list[Tag] | None = None


class GetHistory(RunRef, frozen=True, kw_only=True):
    """Query of metrics/get-history."""

    metric_key: Required
    max_results: int = limits.HISTORY_MAX_RESULTS
    page_token: str | None = None


class HistoryAnswer(Struct, frozen=True, omit_defaults=True):
    """A page of one metric's points."""

    metrics: list[Metric] = []
    next_page_token: str = ""


async def log_metric(caller: Caller, asked: LogMetric) -> None:
    """Log one point."""
    limits.check_key(asked.key, "key", is_trial=caller.is_trial(asked.named))
    metric = GivenMetric(asked.key, asked.value, asked.timestamp, asked.step, asked.model_id, asked.dataset_name, asked.dataset_digest)
    points = rows_by_key([metric])
    if metric.model_id:
        await run_in_threadpool(_log_to_models, caller, asked.named, [metric])
    await caller.groups.appends.write(Append(asked.named, points, caller.fence))


async def log_batch(caller: Caller, asked: LogBatch) -> None:
    """Log points, parameters and tags, all or nothing."""
    metrics, params, tags = asked.metrics or (), asked.params or (), asked.tags or ()
    limits.check_batch(metrics, params, tags)
    append = Append(asked.named, rows_by_key(metrics), caller.fence)
    is_trial = caller.is_trial(asked.named)
    for key in append.points:
        limits.check_key(key, "metrics.key", is_trial=is_trial)
    of_models = [metric for metric in metrics if metric.model_id]
    if of_models:
        await run_in_threadpool(_log_to_models, caller, asked.named, of_models)
    if metrics and not params and not tags:
        await caller.groups.appends.write(append)
    else:
        texts = limits.param_values(params, is_trial=is_trial), limits.tag_values(tags, is_trial=is_trial)
        await run_in_threadpool(caller.store.metrics.log_batch, append, *texts)


def _log_to_models(caller: Caller, run_id: str, metrics: Sequence[GivenMetric]) -> None:
    """Before the run's own points, for it may be refused; all of it again is no change."""
    measured = [
        ModelMetric(
            metric.model_id or "",
            run_id,
            MetricPoint(metric.key, float(metric.value), metric.step or 0, metric.timestamp),
            limits.check_length("dataset_name", metric.dataset_name or "", limits.DATASET_NAME_MAX_CHARS) or None,
            limits.check_length("dataset_digest", metric.dataset_digest or "", limits.DATASET_DIGEST_MAX_CHARS) or None,
        )
        for metric in metrics
    ]
    caller.store.logged_models.log_metrics(run_id, measured, caller.fence)


def get_history(caller: Caller, asked: GetHistory) -> HistoryAnswer:
    """A page of one metric's points."""
    size = limits.check_max_results(asked.max_results, limits.HISTORY_MAX_RESULTS)
    points, token = caller.store.metrics.history(asked.named, asked.metric_key, size, asked.page_token or "", order="time")
    return HistoryAnswer(metric_bodies(points), token)


ENDPOINTS: Final = (
    Endpoint("POST", "/runs/log-metric", ATTEMPT, LogMetric, log_metric),
    Endpoint("POST", "/runs/log-batch", ATTEMPT, LogBatch, log_batch),
    Endpoint("GET", "/metrics/get-history", READ, GetHistory, get_history),
)
