"""Records as the API's shapes. Pure functions; `now` is a parameter."""

import math
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from sweeps.api.shapes import (
    SCHEMA,
    AttemptEntry,
    BestAnswer,
    Counts,
    CurveShape,
    EventEntry,
    MetricValue,
    ModelEntry,
    Number,
    RunAnswer,
    RunningTrial,
    SweepSummary,
    TrialAnswer,
    VersionEntry,
    WorkerEntry,
)
from sweeps.spec_config import SweepConfig
from tracking.records import Event, MetricPoint, ModelVersion, RegisteredModel, Run, RunData, Sweep, SweepCounts, Trial, WorkerView
from tracking.states import FINAL_SWEEP_STATES, SweepState
from tracking.store.attempts import Attempt
from tracking.store.metrics import Curve


def now_utc() -> datetime:
    """The time, aware."""
    return datetime.now(UTC)


def number(value: float | None) -> Number:
    """A float as JSON can hold it: what JSON has no number for becomes a string, as in MLflow's protocol."""
    if value is None or math.isfinite(value):
        return value
    if math.isnan(value):
        return "NaN"
    return "Infinity" if value > 0 else "-Infinity"


def iso(at: datetime | None) -> str | None:
    """A time as ISO 8601 in UTC, to the millisecond."""
    return None if at is None else when(at)


def when(at: datetime) -> str:
    """`iso` of a time that is there."""
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def seconds_between(start: datetime | None, end: datetime | None) -> float | None:
    """Seconds from one time to another, None if either is missing."""
    return None if start is None or end is None else round((end - start).total_seconds(), 3)


def trials_asked(config: Mapping[str, Any]) -> int | None:
    """How many trials a sweep's config asks for; None when it sets no end, or was written by a newer release."""
    try:
        return SweepConfig.from_builtins(dict(config)).trials_max
    except msgspec.ValidationError:
        return None


def counts_shape(counts: SweepCounts) -> Counts:
    """Trials by state."""
    return Counts(
        total=counts.total,
        open=counts.open,
        queued=counts.queued,
        placed=counts.placed,
        running=counts.running,
        finished=counts.finished,
        failed=counts.failed,
        pruned=counts.pruned,
        cancelled=counts.cancelled,
    )


def sweep_shape(sweep: Sweep, counts: SweepCounts, now: datetime) -> SweepSummary:
    """A sweep as lists show it."""
    asked = trials_asked(sweep.config)
    elapsed_s = seconds_between(sweep.started_at or sweep.created_at, sweep.ended_at or now)
    return SweepSummary(
        sweep_id=sweep.sweep_id,
        short_id=sweep.short_id,
        name=sweep.name,
        state=sweep.state,
        user_name=sweep.user_name,
        method=str(sweep.config.get("method", "")),
        metric=sweep.metric_name,
        goal=sweep.metric_goal,
        trials_asked=asked,
        parallel=sweep.parallel,
        queue=sweep.queue,
        priority=sweep.priority,
        counts=counts_shape(counts),
        cause=sweep.cause,
        detail=sweep.detail,
        created_at=when(sweep.created_at),
        started_at=iso(sweep.started_at),
        ended_at=iso(sweep.ended_at),
        elapsed_s=elapsed_s,
        eta_s=_eta_s(sweep, counts, asked, elapsed_s),
    )


def _eta_s(sweep: Sweep, counts: SweepCounts, asked: int | None, elapsed_s: float | None) -> float | None:
    """Time left at the rate so far; None while nothing has ended, and when nothing moves."""
    if asked is None or sweep.state in FINAL_SWEEP_STATES or sweep.state == SweepState.PAUSED:
        return None
    ended = counts.total - counts.open
    if not ended or not elapsed_s:
        return None
    left = counts.open if sweep.state == SweepState.STOPPING else max(asked - ended, 0)
    return round(left * elapsed_s / ended, 1)


def trial_shape(trial: Trial) -> TrialAnswer:
    """A trial with its current run."""
    return TrialAnswer(
        number=trial.number,
        run_id=trial.run_id,
        state=trial.state,
        run_state=trial.run_state,
        cause=trial.cause,
        detail=trial.detail,
        value=number(trial.value),
        params=trial.params,
        attempts=trial.attempts,
        generation=trial.generation,
        duration_s=trial.duration_s,
        worker=trial.worker_name,
        created_at=when(trial.created_at),
        started_at=iso(trial.started_at),
        ended_at=iso(trial.ended_at),
    )


def running_shape(trial: Trial, newest: MetricPoint | None) -> RunningTrial:
    """A running trial with the newest value of the sweep's metric."""
    return RunningTrial(**trial_shape(trial), metric=metric_shape(newest) if newest is not None else None)


def best_shape(sweep: Sweep, top: Sequence[Trial]) -> BestAnswer:
    """The best trials of a sweep, the first one's fields on top."""
    best = top[0] if top else None
    return BestAnswer(
        schema=SCHEMA,
        sweep_id=sweep.sweep_id,
        short_id=sweep.short_id,
        name=sweep.name,
        state=sweep.state,
        metric=sweep.metric_name,
        goal=sweep.metric_goal,
        number=best.number if best else None,
        run_id=best.run_id if best else None,
        value=number(best.value) if best else None,
        params=best.params if best else {},
        top=[trial_shape(trial) for trial in top],
    )


def metric_shape(point: MetricPoint) -> MetricValue:
    """One point of one metric."""
    return MetricValue(key=point.key, value=number(point.value), step=point.step, time_ms=point.time_ms)


def curve_shape(curve: Curve) -> CurveShape:
    """One metric in one trial."""
    points = None if curve.points is None else [(point.step, point.time_ms, number(point.value)) for point in curve.points]
    return CurveShape(number=curve.number, run_id=curve.run_id, points=points)


def event_shape(event: Event) -> EventEntry:
    """One row of history."""
    return EventEntry(
        seq=event.seq,
        at=when(event.at),
        subject=event.subject,
        event=event.event,
        from_state=event.from_state,
        to_state=event.to_state,
        trial_number=event.trial_number,
        run_id=event.run_id,
        attempt=event.attempt,
        worker_id=event.worker_id,
        cause=event.cause,
        detail=event.detail,
    )


def attempt_shape(attempt: Attempt) -> AttemptEntry:
    """One try at a run."""
    return AttemptEntry(
        attempt=attempt.attempt,
        state=attempt.state,
        cause=attempt.cause,
        detail=attempt.detail,
        exit_status=attempt.exit_status,
        signal=attempt.signal,
        worker_id=attempt.worker_id,
        worker=attempt.worker_name,
        started_at=iso(attempt.started_at),
        ended_at=iso(attempt.ended_at),
        duration_s=attempt.duration_s,
    )


def _run_duration_s(run: Run, attempts: Sequence[Attempt], now: datetime) -> float | None:
    """How long the current attempt's process ran, or runs; of a run without attempts, from its start to its end."""
    if not attempts:
        return seconds_between(run.started_at, run.ended_at or now)
    last = attempts[-1]
    return last.duration_s if last.duration_s is not None else seconds_between(last.started_at, last.ended_at or now)


def run_shape(
    run: Run,
    data: RunData,
    attempts: Sequence[Attempt],
    now: datetime,
    *,
    earlier_runs: Sequence[str] = (),
    sweep_short_id: str | None = None,
    stop_requested_at: datetime | None = None,
) -> RunAnswer:
    """One run with what was logged to it and who tried it."""
    return RunAnswer(
        schema=SCHEMA,
        run_id=run.run_id,
        experiment_id=run.experiment_id,
        kind=run.kind,
        name=run.name,
        user_name=run.user_name,
        state=run.state,
        lifecycle_stage=run.lifecycle_stage,
        cause=run.cause,
        detail=run.detail,
        sweep_id=run.sweep_id,
        sweep_short_id=sweep_short_id,
        trial_number=run.trial_number,
        parent_run_id=run.parent_run_id,
        attempt=run.attempt,
        stop_requested_at=iso(stop_requested_at),
        argv=list(run.argv),
        value=number(run.value),
        params=data.params,
        tags=data.tags,
        metrics=[metric_shape(point) for point in data.metrics],
        attempts=[attempt_shape(attempt) for attempt in attempts],
        earlier_runs=list(earlier_runs),
        created_at=when(run.created_at),
        started_at=iso(run.started_at),
        ended_at=iso(run.ended_at),
        duration_s=_run_duration_s(run, attempts, now),
    )


def version_shape(version: ModelVersion, size_bytes: int | None) -> VersionEntry:
    """A model version with its lineage; `size_bytes` is None if its artifact was never logged."""
    return VersionEntry(
        name=version.name,
        version=version.version,
        aliases=list(version.aliases),
        run_id=version.run_id,
        sweep_id=version.sweep_id,
        trial_number=version.trial_number,
        metric=version.metric_name,
        value=number(version.value),
        params=version.params,
        source=version.source,
        description=version.description,
        size_bytes=size_bytes,
        created_at=when(version.created_at),
    )


def model_shape(model: RegisteredModel, size_of: Callable[[ModelVersion], int | None]) -> ModelEntry:
    """A registered model, newest version first."""
    versions = sorted(model.versions, key=lambda version: -version.version)
    return ModelEntry(
        name=model.name,
        description=model.description,
        created_at=when(model.created_at),
        versions=[version_shape(version, size_of(version)) for version in versions],
    )


def worker_state(worker: WorkerView) -> str:
    """One word for a worker: what keeps it from taking runs, or its session's state."""
    if worker.silent:
        return "silent"
    if worker.cordoned:
        return "cordoned"
    return "draining" if worker.draining else worker.state


def worker_shape(worker: WorkerView) -> WorkerEntry:
    """A worker and what it holds."""
    return WorkerEntry(
        worker_id=worker.worker_id,
        session_id=worker.session_id,
        name=worker.name,
        hostname=worker.hostname,
        state=worker_state(worker),
        queues=list(worker.queues),
        slots=worker.slots,
        cpus=worker.cpus,
        memory_bytes=worker.memory_bytes,
        gpus=worker.gpus,
        runtimes=list(worker.runtimes),
        renewed_at=when(worker.renewed_at),
        cordoned=worker.cordoned,
        running=list(worker.running),
        placed=list(worker.placed),
    )
