"""Sweeps and their trials: submit, look, steer."""

from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec
from fastapi import Query

from sweeps.api.errors import NoBestTrial
from sweeps.api.present import (
    best_shape,
    curve_shape,
    event_shape,
    now_utc,
    running_shape,
    sweep_shape,
    trial_shape,
    version_shape,
)
from sweeps.api.rights import Right
from sweeps.api.routing import PREFIX, Body, Routes, Services, Use, parse_body, wake
from sweeps.api.shapes import (
    SCHEMA,
    BestAnswer,
    CurveList,
    EventList,
    SubmitBody,
    SweepAnswer,
    SweepList,
    TrialList,
    Urls,
    VersionEntry,
)
from sweeps.api.sizes import size_of
from sweeps.api.snapshots import require_snapshot
from sweeps.bounds import NAME_MAX, NUMBER_MAX, faults, text_fault
from sweeps.spec import Submission
from sweeps.spec_config import SweepConfig
from sweeps.spec_source import MAX_BYTES
from sweeps.wording import no_best_text
from tracking.errors import InvalidValue
from tracking.failpoints import hit
from tracking.filters import parse_filter
from tracking.records import NewSweep, Sweep, Trial
from tracking.states import FINAL_SWEEP_STATES, SweepState, TrialState

routes = Routes("sweeps")

SHOWN_RUNNING: Final = 50
"""How many running trials a sweep's answer carries."""
TRIALS_PAGE: Final = 10_000
"""How many trials one answer carries; `next_offset` says where to go on."""
_SHOWN_FAULTS: Final = 5

Limit = Annotated[int, Query(ge=1, le=1000)]


def best_trial(services: Services, sweep: Sweep) -> Trial:
    """The best trial of a sweep.

    Raises:
        NoBestTrial: no trial has finished with a value.
    """
    top = services.store.trials.best(sweep.sweep_id)
    if not top:
        raise NoBestTrial(no_best_text(sweep.short_id, sweep.metric_name, is_over=sweep.state in FINAL_SWEEP_STATES))
    return top[0]


@routes.post("/sweeps", Right.WRITE, answers=SweepAnswer, body=SubmitBody, status=201)
def submit_sweep(services: Use, body: Body) -> SweepAnswer:
    """Submit a sweep.

    The configuration is checked again here; the snapshot must have been uploaded before. Sending the same
    `submission_id` again answers with the sweep that it made.
    """
    asked = parse_body(body, SubmitBody)
    if asked["code_digest"] is not None:
        require_snapshot(services, asked["code_digest"])
    sweep = services.store.sweeps.submit(checked(asked))
    hit("server.submitted")
    wake(services)
    return sweep_answer(services, sweep)


def checked(asked: SubmitBody) -> NewSweep:
    """The submission, checked as the client should have done.

    Raises:
        InvalidValue: the config is no sweep's, or something is out of bounds; the message names it.
    """
    for field, text, maximum in (
        ("source", asked["source"], MAX_BYTES),
        ("submission_id", asked["submission_id"], NAME_MAX),
        ("user_name", asked["user_name"], NAME_MAX),
    ):
        if what := text_fault(text, maximum):
            raise InvalidValue(f"'{field}' {what}.")
    try:
        config = SweepConfig.from_builtins(asked["config"])
    except (msgspec.ValidationError, RecursionError) as error:
        raise InvalidValue(f"This is no sweep's config: {error}", hint="Use the same release on both sides.") from None
    if found := [fault.message for fault in islice(faults(config), _SHOWN_FAULTS)]:
        raise InvalidValue(f"This sweep can't be taken: {'; '.join(found)}.")
    # The folder stays with the client; its snapshot was uploaded.
    submission = Submission(config, asked["source"], Path())
    return submission.to_new_sweep(asked["code_digest"], asked["user_name"], asked["submission_id"])


@routes.get("/sweeps", Right.READ, answers=SweepList)
def list_sweeps(services: Use, state: SweepState | None = None, limit: Limit = 50, user_name: str | None = None) -> SweepList:
    """Sweeps, newest first."""
    now = now_utc()
    found = services.store.sweeps.list(state=state, limit=limit, user_name=user_name)
    return SweepList(schema=SCHEMA, sweeps=[sweep_shape(sweep, counts, now) for sweep, counts in found])


@routes.get("/sweeps/{ref}", Right.READ, answers=SweepAnswer)
def get_sweep(services: Use, ref: str) -> SweepAnswer:
    """One sweep: counts, best trial, running trials with their last metric, time left."""
    return sweep_answer(services, services.store.sweeps.get(ref))


def sweep_answer(services: Services, sweep: Sweep) -> SweepAnswer:
    """All that is told of one sweep."""
    store = services.store
    now = now_utc()
    best = store.trials.best(sweep.sweep_id)
    running = store.trials.running(sweep.sweep_id)[:SHOWN_RUNNING]
    # One query for all of them: whoever watches asks again every half second.
    newest = store.metrics.latest_of([trial.run_id for trial in running], sweep.metric_name) if running and sweep.metric_name else {}
    return SweepAnswer(
        schema=SCHEMA,
        **sweep_shape(sweep, store.sweeps.counts(sweep.sweep_id), now),
        experiment_id=sweep.experiment_id,
        config=sweep.config,
        best=trial_shape(best[0]) if best else None,
        running=[running_shape(trial, newest.get(trial.run_id)) for trial in running],
        models=_models_of(services, sweep),
        urls=Urls(api=f"{PREFIX}/sweeps/{sweep.sweep_id}"),
    )


def _models_of(services: Services, sweep: Sweep) -> list[VersionEntry]:
    # `register:` is carried out when a sweep ends, so there is nothing to look for before.
    if sweep.state not in FINAL_SWEEP_STATES:
        return []
    return [version_shape(version, size_of(services, version)) for version in services.store.registry.of_sweep(sweep.sweep_id)]


@routes.get("/sweeps/{ref}/trials", Right.READ, answers=TrialList)
def list_trials(
    services: Use,
    ref: str,
    state: Annotated[list[TrialState] | None, Query()] = None,
    sort: Literal["number", "value"] = "number",
    limit: Annotated[int, Query(ge=1, le=TRIALS_PAGE)] = TRIALS_PAGE,
    offset: Annotated[int, Query(ge=0, le=2**31)] = 0,
    where: str = "",
) -> TrialList:
    """Trials of a sweep, by number or best first; at most 10,000 at once, `next_offset` tells where to go on.

    `where` is a filter on their runs in the grammar of runs/search: `params.lr < 0.1 AND metrics.loss < 1`.
    """
    wanted = parse_filter(where)
    sweep = services.store.sweeps.get(ref)
    # One more than is shown tells whether there are more.
    found = services.store.trials.list(sweep.sweep_id, states=tuple(state or ()), sort=sort, limit=limit + 1, offset=offset, where=wanted)
    return TrialList(
        schema=SCHEMA,
        sweep_id=sweep.sweep_id,
        name=sweep.name,
        short_id=sweep.short_id,
        metric=sweep.metric_name,
        goal=sweep.metric_goal,
        trials=[trial_shape(trial) for trial in found[:limit]],
        next_offset=offset + limit if len(found) > limit else None,
    )


@routes.get("/sweeps/{ref}/curves", Right.READ, answers=CurveList)
def list_curves(services: Use, ref: str, key: str, from_trial: Annotated[int, Query(ge=0, le=NUMBER_MAX)] = 0) -> CurveList:
    """One metric's points in the trials of a sweep, about 100,000 at once, whole trials only."""
    sweep = services.store.sweeps.get(ref)
    found, next_trial = services.store.metrics.curves(sweep.sweep_id, key, from_trial)
    return CurveList(schema=SCHEMA, sweep_id=sweep.sweep_id, key=key, curves=[curve_shape(curve) for curve in found], next_trial=next_trial)


@routes.get("/sweeps/{ref}/best", Right.READ, answers=BestAnswer)
def get_best(services: Use, ref: str, top: Limit = 1, where: str = "") -> BestAnswer:
    """The best finished trials of a sweep; with `where`, of those whose runs meet it."""
    wanted = parse_filter(where)
    sweep = services.store.sweeps.get(ref)
    return best_shape(sweep, services.store.trials.best(sweep.sweep_id, top=top, where=wanted))


@routes.get("/sweeps/{ref}/events", Right.READ, answers=EventList)
def list_events(services: Use, ref: str, limit: Limit = 1000) -> EventList:
    """History of a sweep, its trials, runs and attempts, oldest first."""
    sweep = services.store.sweeps.get(ref)
    found = services.store.sweeps.events(sweep.sweep_id, limit=limit)
    return EventList(schema=SCHEMA, events=[event_shape(event) for event in found])


@routes.post("/sweeps/{ref}/pause", Right.WRITE, answers=SweepAnswer)
def pause_sweep(services: Use, ref: str) -> SweepAnswer:
    """Start no more trials until it is resumed; running ones go on."""
    return _steer(services, ref, services.store.sweeps.pause)


@routes.post("/sweeps/{ref}/resume", Right.WRITE, answers=SweepAnswer)
def resume_sweep(services: Use, ref: str) -> SweepAnswer:
    """Go on after a pause."""
    return _steer(services, ref, services.store.sweeps.resume)


@routes.post("/sweeps/{ref}/stop", Right.WRITE, answers=SweepAnswer)
def stop_sweep(services: Use, ref: str) -> SweepAnswer:
    """Start no more trials; running ones may end, then the sweep is finished."""
    return _steer(services, ref, services.store.sweeps.stop)


@routes.post("/sweeps/{ref}/cancel", Right.WRITE, answers=SweepAnswer)
def cancel_sweep(services: Use, ref: str) -> SweepAnswer:
    """Start no more trials and stop the running ones."""
    return _steer(services, ref, services.store.sweeps.cancel)


def _steer(services: Services, ref: str, move: Callable[[str], Sweep]) -> SweepAnswer:
    sweep = move(services.store.sweeps.get(ref).sweep_id)
    wake(services)
    return sweep_answer(services, sweep)
