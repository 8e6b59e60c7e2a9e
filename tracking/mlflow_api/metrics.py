"""`runs/log-metric`, `runs/log-batch`, `metrics/get-history`: points in and out."""

from typing import Final

from msgspec import Struct

from tracking.mlflow_api import limits
from tracking.mlflow_api.endpoints import ATTEMPT, READ, Caller, Endpoint
from tracking.mlflow_api.wire import Int64, Metric, Millis, RunRef, Tag, metric_bodies


class LogMetric(RunRef, frozen=True, kw_only=True):
    """Body of runs/log-metric."""

    key: str
    value: float | str
    timestamp: Millis
    step: Int64 | None = 0


class LogBatch(RunRef, frozen=True, kw_only=True):
    """Body of runs/log-batch."""

    metrics: list[Metric] | None = None
    params: list[Tag] | None = None
    tags: list[Tag] | None = None


class GetHistory(RunRef, frozen=True, kw_only=True):
    """Query of metrics/get-history."""

    metric_key: str
    max_results: int = limits.HISTORY_MAX_RESULTS
    page_token: str | None = None


class HistoryAnswer(Struct, frozen=True, omit_defaults=True):
    """A page of one metric's points."""

    metrics: list[Metric]
    next_page_token: str = ""


def log_metric(caller: Caller, asked: LogMetric) -> None:
    """Log one point."""
    limits.check_key(asked.key, "key", is_trial=caller.is_trial(asked.named))
    point = Metric(asked.key, asked.value, asked.timestamp, asked.step).point("metric")
    caller.store.metrics.log(asked.named, [point], caller.fence)


def log_batch(caller: Caller, asked: LogBatch) -> None:
    """Log points, parameters and tags, all or nothing."""
    metrics, params, tags = asked.metrics or (), asked.params or (), asked.tags or ()
    limits.check_batch(metrics, params, tags)
    is_trial = caller.is_trial(asked.named)
    for key in {metric.key for metric in metrics}:
        limits.check_key(key, "metrics.key", is_trial=is_trial)
    points = [metric.point(f"metrics[{number}]") for number, metric in enumerate(metrics)]
    texts = limits.param_values(params, is_trial=is_trial), limits.tag_values(tags, is_trial=is_trial)
    caller.store.metrics.log_batch(asked.named, points, *texts, caller.fence)


def get_history(caller: Caller, asked: GetHistory) -> HistoryAnswer:
    """A page of one metric's points."""
    size = limits.check_max_results(asked.max_results, limits.HISTORY_MAX_RESULTS)
    points, token = caller.store.metrics.history(asked.named, asked.metric_key, size, asked.page_token or "")
    return HistoryAnswer(metric_bodies(points), token)


ENDPOINTS: Final = (
    Endpoint("POST", "/runs/log-metric", ATTEMPT, LogMetric, log_metric),
    Endpoint("POST", "/runs/log-batch", ATTEMPT, LogBatch, log_batch),
    Endpoint("GET", "/metrics/get-history", READ, GetHistory, get_history),
)
