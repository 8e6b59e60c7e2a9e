"""Runs: what was asked, logged, printed. A run is named by its id, a unique prefix of it, or `SWEEP/NUMBER`."""

from typing import Annotated, Final, Literal

from fastapi import Query

from sweeps.api.present import metric_shape, now_utc, run_shape
from sweeps.api.rights import Right
from sweeps.api.routing import Routes, Services, Use, wake
from sweeps.api.shapes import SCHEMA, LogAnswer, MetricList, RunAnswer
from sweeps.api.why import stop_requested_at
from tracking.errors import NotFound, NotNow
from tracking.records import Run
from tracking.states import RunState

routes = Routes("runs")

LOG_LIMIT_BYTES: Final = 4 * 1024 * 1024


@routes.get("/runs/{ref:path}/logs", Right.READ, answers=LogAnswer)
def read_logs(
    services: Use,
    ref: str,
    attempt: Annotated[int | None, Query(ge=1)] = None,
    stream: Literal["stdout", "stderr"] = "stdout",
    offset: Annotated[int, Query(ge=0)] = 0,
    limit: Annotated[int, Query(ge=1, le=LOG_LIMIT_BYTES)] = 1024 * 1024,
) -> LogAnswer:
    """A piece of one attempt's output, from a byte offset; without `attempt`, of the latest."""
    run = services.store.runs.resolve(ref)
    if attempt is not None and attempt > run.attempt:
        has = f"the latest is {run.attempt}" if run.attempt else "none has begun"
        raise NotFound(f"Run {run.name or run.run_id} has no attempt {attempt}: {has}.", hint=f"`sweep show {run.run_id}` lists them.")
    page = services.store.logs.read(run.run_id, attempt=attempt, stream=stream, offset=offset, limit=limit)
    # A page that is nothing but the beginning of a character is given as it is: its end may never come.
    kept = whole_characters(page.data) or page.data
    return LogAnswer(
        schema=SCHEMA,
        run_id=run.run_id,
        attempt=page.attempt,
        stream=stream,
        text=kept.decode("utf-8", "replace"),
        next_offset=page.next_offset - (len(page.data) - len(kept)),
        is_complete=page.is_complete,
    )


def whole_characters(data: bytes) -> bytes:
    """`data` without a UTF-8 character that is cut off at its end; the next page begins with it."""
    for back in range(1, min(4, len(data)) + 1):
        byte = data[-back]
        if byte < 0x80:
            return data
        if byte >= 0xC0:
            length = 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
            return data[:-back] if back < length else data
    return data


@routes.get("/runs/{ref:path}/metrics", Right.READ, answers=MetricList)
def list_metrics(services: Use, ref: str, key: str | None = None, page_token: str = "") -> MetricList:
    """Latest value of each metric, or one metric's history, at most 25,000 points at once."""
    run = services.store.runs.resolve(ref)
    points, token = (services.store.metrics.latest(run.run_id), "") if key is None else services.store.metrics.history(run.run_id, key, page_token=page_token)
    return MetricList(schema=SCHEMA, run_id=run.run_id, key=key, metrics=[metric_shape(point) for point in points], next_page_token=token)


@routes.post("/runs/{ref:path}/cancel", Right.WRITE, answers=RunAnswer)
def cancel_run(services: Use, ref: str) -> RunAnswer:
    """Ask for a run to be stopped; a run that has ended stays as it ended."""
    run = services.store.runs.resolve(ref)
    if run.kind != "managed":
        raise NotNow(f"Run {run.run_id} was opened by a client, and only that client can end it.")
    if services.store.queue.request_cancel(run.run_id):
        wake(services)
    return _answer(services, services.store.runs.get(run.run_id))


@routes.get("/runs/{ref:path}", Right.READ, answers=RunAnswer)
def get_run(services: Use, ref: str) -> RunAnswer:
    """One run: what was logged to it and who tried it."""
    return _answer(services, services.store.runs.resolve(ref))


def _answer(services: Services, run: Run) -> RunAnswer:
    store = services.store
    return run_shape(
        run,
        store.runs.data(run.run_id),
        store.attempts.list(run.run_id),
        now_utc(),
        earlier_runs=store.runs.replaced(run),
        sweep_short_id=store.sweeps.get(run.sweep_id).short_id if run.sweep_id else None,
        stop_requested_at=stop_requested_at(run, store.runs.events(run.run_id)) if run.state == RunState.RUNNING else None,
    )
