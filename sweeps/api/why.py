"""Why a sweep or a run is where it is, in plain sentences, the most telling first (I5). Pure: records in, sentences out."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

import msgspec

from sweeps.api.present import trials_asked
from sweeps.api.waits import Reason, Scene, Wish, back_off, is_silent, lost_at, no_scheduler, silence, why_not_claimed, why_not_placed
from sweeps.spec_config import SweepConfig
from sweeps.wording import clock_text, counted, listed, since_text, span_text, until_text
from tracking.records import Event, Run, Sweep, SweepCounts, Trial
from tracking.states import FINAL_RUN_STATES, FINAL_SWEEP_STATES, MACHINERY_CAUSES, Cause, RunState, SweepState
from tracking.store.attempts import Attempt
from tracking.store.why import Progress, Standing


def why_sweep(
    sweep: Sweep,
    counts: SweepCounts,
    progress: Progress,
    failures: Mapping[str, int],
    events: Sequence[Event],
    scene: Scene,
    *,
    last_failed: Trial | None = None,
    best: Trial | None = None,
) -> list[Reason]:
    """Reasons for the state of a sweep.

    Args:
        failures: of its trials, by cause.
        events: its history; of each trial's, what is out of the ordinary.
        last_failed: the failed trial with the highest number.
        best: its best trial.
    """
    if sweep.state in FINAL_SWEEP_STATES:
        ended = Reason(_ended("The sweep", sweep.state, sweep.cause, sweep.detail))
        return [ended, *_enough(sweep, counts, best), *_still_running(progress, scene), *_failures(failures, last_failed)]
    reasons = [*_course(sweep, counts, events, scene), *_running_now(progress, scene), *no_scheduler(scene)]
    if progress.n_ready and sweep.state != SweepState.PAUSED:
        reasons += why_not_placed(_wish(sweep), scene)
    reasons += _between(progress, scene)
    if sweep.state == SweepState.ACTIVE and not progress.n_ready + progress.n_backing_off + progress.n_placed:
        reasons += _enough(sweep, counts, best) or _search(sweep, counts, progress)
    return [*reasons, *_failures(failures, last_failed)]


def why_run(
    run: Run,
    sweep: Sweep | None,
    standing: Standing | None,
    attempts: Sequence[Attempt],
    events: Sequence[Event],
    scene: Scene,
) -> list[Reason]:
    """Reasons for the state of a run.

    Args:
        standing: of a managed run.
        events: the history of its trial.
    """
    if run.kind != "managed" or standing is None:
        return [Reason(f"The run is {run.state}; a client opened it and its client ends it.")]
    if run.state in FINAL_RUN_STATES:
        return [Reason(_ended("The run", run.state, run.cause, run.detail)), *_no_more(run, standing, scene), *_untold(run, events, scene)]
    history = _earlier(attempts)
    if run.state == RunState.RUNNING:
        return [*_running(run, sweep, standing, attempts[-1] if attempts else None, events, scene), *history]
    if run.state == RunState.PLACED:
        return [*why_not_claimed(standing, scene), *no_scheduler(scene), *history]
    if sweep is not None and sweep.state == SweepState.PAUSED:
        return [Reason(f"The run waits because {_paused(events, scene)}", "resume"), *history]
    waits = back_off(standing, _last_requeue(events), scene)
    if not waits and sweep is not None:
        waits = why_not_placed(_wish(sweep, standing), scene)
    return [*no_scheduler(scene), *waits, *history]


def stop_requested_at(run: Run, events: Sequence[Event]) -> datetime | None:
    """When the current attempt of a run was asked to stop, by a cancel or a prune; None if it was not."""
    asked = _stop_request(run, events)
    return None if asked is None else asked.at


def _stop_request(run: Run, events: Sequence[Event]) -> Event | None:
    requests = ("cancel_requested", "prune_requested")
    return next((event for event in events if event.event in requests and event.run_id in (None, run.run_id) and event.attempt == run.attempt), None)


# -- a sweep -----------------------------------------------------------------------------------------------------------


def _course(sweep: Sweep, counts: SweepCounts, events: Sequence[Event], scene: Scene) -> list[Reason]:
    """What people, or a limit, have made of it."""
    if sweep.state == SweepState.PAUSED:
        return [Reason(_paused(events, scene).capitalize(), "resume")]
    if sweep.state == SweepState.STOPPING:
        return [Reason(f"The sweep is stopping{_told(sweep.detail)}: {counted(counts.open, 'open trial')} may end, no new one starts.", "trials")]
    return []


def _paused(events: Sequence[Event], scene: Scene) -> str:
    at = next((event.at for event in reversed(events) if event.subject == "sweep" and event.event == "pause"), None)
    return f"the sweep is paused{' ' + since_text(at, scene.now) if at else ''}: no trial starts until `sweep resume`."


def _running_now(progress: Progress, scene: Scene) -> list[Reason]:
    found: list[Reason] = []
    if heard := progress.n_running - progress.n_silent:
        found.append(Reason(f"{counted(heard, 'trial')} {'runs' if heard == 1 else 'run'} now."))
    if progress.n_silent and progress.silent_since is not None:
        at = lost_at(progress.silent_since, scene)
        text = f"{counted(progress.n_silent, 'trial')} {_is(progress.n_silent)} on workers that are not heard of"
        text = f"{text}, the longest {since_text(progress.silent_since, scene.now)}; given to others from {until_text(at, scene.now)} on."
        found.append(Reason(text, "worker_back", at))
    return found


def _still_running(progress: Progress, scene: Scene) -> list[Reason]:
    """That trials of a sweep that has ended have yet to stop."""
    if not progress.n_running:
        return []
    were, run = ("was", "runs") if progress.n_running == 1 else ("were", "run")
    text = f"{counted(progress.n_running, 'trial')} {were} asked to stop and still {run}; "
    text += f"what does not end by itself is killed {scene.bounds.stop_grace_s:g} s after its worker has heard of that."
    return [Reason(text, "stop")]


def _between(progress: Progress, scene: Scene) -> list[Reason]:
    """Open trials that neither run nor wait for a worker."""
    found: list[Reason] = []
    if n := progress.n_placed:
        found.append(Reason(f"{counted(n, 'trial')} {_is(n)} placed and {_waits(n)} to be claimed.", "claim"))
    if (n := progress.n_backing_off) and progress.next_at is not None:
        first = f", the first until {until_text(progress.next_at, scene.now)}"
        found.append(Reason(f"{counted(n, 'trial')} {_waits(n)} after a failed attempt{first}.", "back_off", progress.next_at))
    if n := progress.n_verdicts:
        found.append(Reason(f"{counted(n, 'failed attempt')} {_waits(n)} for the scheduler's word: another one, or the end.", "verdict"))
    if n := progress.n_untold:
        found.append(Reason(f"{counted(n, 'trial')} {'has' if n == 1 else 'have'} ended, and the search has yet to be told.", "scheduler"))
    return found


def _is(n: int) -> str:
    return "is" if n == 1 else "are"


def _waits(n: int) -> str:
    return "waits" if n == 1 else "wait"


def _search(sweep: Sweep, counts: SweepCounts, progress: Progress) -> list[Reason]:
    """Why there is no further trial, while none waits."""
    asked, n_busy = trials_asked(sweep.config), counts.open - progress.n_untold
    if asked is not None and counts.total >= asked:
        return [] if n_busy else [Reason("All trials have ended; the scheduler is about to end the sweep.", "scheduler")]
    left = "" if asked is None else f" ({counts.total} of {asked} proposed)"
    if n_busy:
        return [Reason(f"The search waits for a result: its next trial is proposed when one of the open ones has ended{left}.", "search")]
    return [Reason(f"The scheduler has yet to propose the next trial{left}: check that `sweep scheduler` runs.", "scheduler")]


def _enough(sweep: Sweep, counts: SweepCounts, best: Trial | None) -> list[Reason]:
    """That a trial is as good as the file asks, and so the rest is not tried; nothing where all were, or somebody ended it."""
    asked = trials_asked(sweep.config)
    if best is None or sweep.cause not in (None, Cause.COMPLETED) or (asked is not None and counts.total >= asked):
        return []
    try:
        metric = SweepConfig.from_builtins(dict(sweep.config)).metric
    except msgspec.ValidationError:  # written by a newer release
        return []
    if metric is None or not metric.is_reached(best.value):
        return []
    left = "" if asked is None else f" ({counts.total} of {asked} proposed)"
    text = f"metric.target ({metric.target:g}) is reached: trial {best.number} has {metric.name} {best.value:g}. No further trial is proposed{left}."
    if sweep.state in FINAL_SWEEP_STATES:
        return [Reason(text)]
    return [Reason(text, "trials") if counts.open else Reason(text, "scheduler")]


def _failures(failures: Mapping[str, int], last: Trial | None) -> list[Reason]:
    total = sum(failures.values())
    if not total:
        return []
    by = listed([f"{n} by {cause}" for cause, n in failures.items()])
    told = f"; the last one, trial {last.number}: {last.cause or 'unknown'}{_told(last.detail)}" if last else ""
    return [Reason(f"{counted(total, 'trial')} failed ({by}){told}.")]


# -- a run -------------------------------------------------------------------------------------------------------------


def _wish(sweep: Sweep, standing: Standing | None = None) -> Wish:
    avoid, n_before = (standing.avoid_workers, standing.n_before) if standing is not None else ((), 0)
    return Wish(sweep.sweep_id, sweep.queue, sweep.launch.resources, sweep.parallel, avoid, n_before)


def _running(run: Run, sweep: Sweep | None, standing: Standing, attempt: Attempt | None, events: Sequence[Event], scene: Scene) -> list[Reason]:
    if standing.verdict_due:
        ended = f"Attempt {run.attempt} has ended: {run.cause or 'unknown'}{_told(run.detail)}"
        text = f"{ended}. What follows, another attempt or the end, is the scheduler's to say."
        return [*no_scheduler(scene), Reason(text, "verdict")]
    found = silence(standing, scene)
    found += no_scheduler(scene) if found else []
    asked = _stop_request(run, events)
    if asked is not None:
        found.append(_asked_to_stop(asked, scene))
    on = f"on {standing.worker_name or 'a worker'}"
    if attempt is not None and (n_bytes := attempt.info.get("output_bytes")):
        text = f"Attempt {run.attempt} {on} has ended; its output is being read for metrics: "
        return [*found, Reason(f"{text}{_mb(attempt.info.get('output_read_bytes', 0))} of {_mb(n_bytes)} MB.", "output")]
    started_at = attempt.started_at if attempt is not None else run.started_at
    if started_at is None and attempt is not None:
        text = f"Attempt {run.attempt} is being prepared {on} {since_text(attempt.claimed_at, scene.now)}: its code and environment, then its command."
        return [*found, Reason(text, "start")]
    if started_at is None:
        return [*found, Reason(f"Attempt {run.attempt} runs {on}.")]
    limit_s = sweep.launch.trial_time_s if sweep is not None else None
    at = started_at + timedelta(seconds=limit_s) if limit_s else None
    until = f"; its time is up at {until_text(at, scene.now)} (limits.trial_time)" if at else ""
    # What nobody hears of may have ended long ago.
    verb = "ran when last heard of" if is_silent(standing, scene.now) else "runs"
    return [*found, Reason(f"Attempt {run.attempt} {verb} {on} {since_text(started_at, scene.now)}{until}.")]


def _mb(n_bytes: int) -> str:
    return f"{n_bytes / 1e6:.0f}"


def _asked_to_stop(asked: Event, scene: Scene) -> Reason:
    who = "a prune" if asked.event == "prune_requested" else "a cancel"
    age = span_text((scene.now - asked.at).total_seconds())
    kill = f"if it does not end by itself, it is killed {scene.bounds.stop_grace_s:g} s after its worker has heard of that"
    return Reason(f"It was asked to stop {age} ago, by {who}{_told(asked.detail)}; {kill}.", "stop")


def _no_more(run: Run, standing: Standing, scene: Scene) -> list[Reason]:
    """Why a failed run gets no further attempt: which budget its end is on, and what is left of it."""
    if run.state != RunState.FAILED or run.cause == Cause.NO_OBJECTIVE or not run.attempt:
        return []
    if run.cause in MACHINERY_CAUSES:
        spent = f"{standing.machinery_faults} of {scene.bounds.infra_retries} retries on the machinery's budget (SWEEP_INFRA_RETRIES)"
        return [Reason(f"It was tried {counted(run.attempt, 'time')}, with {spent}.")]
    retry = standing.retry
    if not retry.n_max:
        return [Reason("The sweep file gives failed code no further attempt (retry).")]
    spent = f"{standing.user_retries} of {retry.n_max} retries on the file's budget, which is for {listed(list(retry.on))} (retry)"
    return [Reason(f"It was tried {counted(run.attempt, 'time')}, with {spent}.")]


def _untold(run: Run, events: Sequence[Event], scene: Scene) -> list[Reason]:
    """That the end of a trial's run has yet to become the trial's, if so."""
    if run.trial_number is None or any(e.subject == "trial" and e.run_id == run.run_id and e.from_state == "open" for e in events):
        return []
    return [*no_scheduler(scene), Reason("The search has yet to be told; the scheduler does that next.", "scheduler")]


def _last_requeue(events: Sequence[Event]) -> str:
    return next((event.detail for event in reversed(events) if event.event == "requeue"), "")


def _earlier(attempts: Sequence[Attempt]) -> list[Reason]:
    ended = [a for a in attempts if a.state in ("failed", "lost")]
    return [Reason(f"Attempt {a.attempt} {a.state} on {a.worker_name or 'a worker'}: {a.cause or 'unknown'}{_told(a.detail)}.") for a in ended]


def _ended(subject: str, state: str, cause: str | None, detail: str | None) -> str:
    return f"{subject} is {state}" + (f", cause {cause}" if cause else "") + _told(detail) + "."


def _told(detail: str | None) -> str:
    text = (detail or "").strip().rstrip(".")
    return f" ({text})" if text else ""


def not_proposed(sweep: Sweep, counts: SweepCounts, number: int, now: datetime) -> list[Reason]:
    """Why a trial is not there."""
    asked = trials_asked(sweep.config)
    if sweep.state in FINAL_SWEEP_STATES or (asked is not None and number >= asked):
        ended = f" and ended at {clock_text(sweep.ended_at, now)}" if sweep.ended_at else ""
        return [Reason(f"There is no trial {number}: the sweep has {counted(counts.total, 'trial')}{ended}.")]
    of = f" of {asked}" if asked is not None else ""
    return [Reason(f"Trial {number} was not proposed yet: {counts.total}{of} are.", "search")]
