"""Why a sweep or a run is where it is, in plain sentences (I5). Pure: records in, sentences out."""

from collections.abc import Sequence
from datetime import datetime

from sweeps.api.present import seconds_between, trials_asked
from sweeps.wording import counted
from tracking.records import Event, Run, Sweep, SweepCounts, WorkerView
from tracking.states import FINAL_RUN_STATES, FINAL_SWEEP_STATES, RunState, SweepState


def why_sweep(sweep: Sweep, counts: SweepCounts, workers: Sequence[WorkerView], events: Sequence[Event]) -> list[str]:
    """Reasons for the state of a sweep, the most telling first."""
    if sweep.state in FINAL_SWEEP_STATES:
        return [_ended("The sweep", sweep.state, sweep.cause, sweep.detail), *_failures(counts, events)]
    reasons: list[str] = []
    if sweep.state == SweepState.PAUSED:
        reasons.append("The sweep is paused: no trial starts until `sweep resume`.")
    if sweep.state == SweepState.STOPPING:
        reasons.append(f"The sweep is stopping: {counted(counts.open, 'open trial')} may end, no new one starts.")
    if counts.running:
        reasons.append(f"{counted(counts.running, 'trial')} {'runs' if counts.running == 1 else 'run'} now.")
    if counts.queued + counts.placed and sweep.state == SweepState.ACTIVE:
        reasons += _waiting(sweep, workers)
    if not counts.open and sweep.state == SweepState.ACTIVE:
        reasons.append(_nothing_open(sweep, counts, events))
    return reasons + _failures(counts, events)


def why_run(run: Run, sweep: Sweep | None, workers: Sequence[WorkerView], events: Sequence[Event], now: datetime, *, stop_grace_s: float = 30.0) -> list[str]:
    """Reasons for the state of a run, the most telling first."""
    if run.kind != "managed":
        return [f"The run is {run.state}; a client opened it and its client ends it."]
    history = _attempt_history(events)
    if run.state in FINAL_RUN_STATES:
        return [_ended("The run", run.state, run.cause, run.detail), *history]
    if run.state == RunState.RUNNING:
        asked_at = stop_requested_at(run, events)
        asked = [_asked_to_stop(asked_at, now, stop_grace_s)] if asked_at is not None else []
        worker = _named(run.worker_id, workers)
        since_s = seconds_between(run.started_at, now)
        running = f"Attempt {run.attempt} runs on {worker}" + (f" since {since_s:.0f} s ago." if since_s is not None else ".")
        silent = [f"{worker} is silent; its runs are kept for it for a while." for w in workers if w.worker_id == run.worker_id and w.silent]
        return [*asked, running, *silent, *history]
    if run.state == RunState.PLACED:
        return [f"The run is placed on {_named(run.worker_id, workers)} and waits to be claimed.", *history]
    if sweep is not None and sweep.state == SweepState.PAUSED:
        return ["The run waits because its sweep is paused.", *history]
    return [*(_waiting(sweep, workers) if sweep is not None else ["The run waits for a worker."]), *history]


def stop_requested_at(run: Run, events: Sequence[Event]) -> datetime | None:
    """When the current attempt of a run was asked to stop, by a cancel or a prune; None if it was not."""
    requests = ("cancel_requested", "prune_requested")
    return next((event.at for event in events if event.event in requests and event.attempt == run.attempt), None)


def _asked_to_stop(asked_at: datetime, now: datetime, stop_grace_s: float) -> str:
    age_s = max(seconds_between(asked_at, now) or 0.0, 0.0)
    return f"It was asked to stop {age_s:.0f} s ago; if it does not end by itself, it is killed {stop_grace_s:g} s after its worker has heard of that."


def _waiting(sweep: Sweep, workers: Sequence[WorkerView]) -> list[str]:
    if not workers:
        return ["No worker is here: start one with `sweep worker`."]
    serving = [worker for worker in workers if sweep.queue in worker.queues]
    if not serving:
        served = ", ".join(sorted({queue for worker in workers for queue in worker.queues})) or "none"
        return [f"No worker serves queue {sweep.queue!r} (served: {served}): start one with `sweep worker --queue {sweep.queue} --name NAME`."]
    able = [worker for worker in serving if not (worker.silent or worker.draining or worker.cordoned)]
    if not able:
        return [f"{worker.name} serves queue {sweep.queue!r}, but {_unable(worker)}." for worker in serving]
    fitting = [worker for worker in able if _fits(sweep, worker)]
    if not fitting:
        return [f"No worker of queue {sweep.queue!r} is large enough: a trial asks for {_asked(sweep)}."]
    busy = sum(len(worker.running) + len(worker.placed) for worker in fitting)
    slots = sum(worker.slots for worker in fitting)
    if busy >= slots:
        return ["The only slot of the workers that fit is busy." if slots == 1 else f"All {slots} slots of the workers that fit are busy."]
    return ["Waiting trials are about to be placed; if this stays so, check that `sweep scheduler` runs."]


def _unable(worker: WorkerView) -> str:
    if worker.cordoned:
        return f"is cordoned: {worker.cordoned}"
    return f"is draining (`sweep worker drain {worker.name} --undo` gives it runs again)" if worker.draining else "has not renewed its lease"


def _fits(sweep: Sweep, worker: WorkerView) -> bool:
    asked = sweep.launch.resources
    runtime = "docker" if asked.image else "process"
    memory_fits = asked.memory_bytes is None or asked.memory_bytes <= worker.memory_bytes
    return asked.cpus <= worker.cpus and asked.gpus <= worker.gpus and memory_fits and runtime in worker.runtimes


def _asked(sweep: Sweep) -> str:
    asked = sweep.launch.resources
    parts = [f"{asked.cpus:g} cpu{'' if asked.cpus == 1 else 's'}"]
    if asked.memory_bytes:
        parts.append(f"{asked.memory_bytes / 2**30:.3g} GiB of memory")
    if asked.gpus:
        parts.append(counted(asked.gpus, "gpu"))
    if asked.image:
        parts.append("containers")
    return ", ".join(parts)


def _nothing_open(sweep: Sweep, counts: SweepCounts, events: Sequence[Event]) -> str:
    asked = trials_asked(sweep.config)
    if asked is not None and counts.total >= asked:
        return "All trials have ended; the scheduler is about to end the sweep."
    if not any(event.subject == "trial" for event in events):
        return "No trial was proposed yet: check that `sweep scheduler` runs."
    return "The scheduler has yet to propose the next trial: check that `sweep scheduler` runs."


def _failures(counts: SweepCounts, events: Sequence[Event]) -> list[str]:
    if not counts.failed:
        return []
    last = next((e for e in reversed(events) if e.subject == "trial" and e.to_state == "failed"), None)
    told = f", the last one trial {last.trial_number}: {last.cause or 'unknown'}{_told(last.detail)}" if last else ""
    return [f"{counted(counts.failed, 'trial')} failed{told}."]


def _attempt_history(events: Sequence[Event]) -> list[str]:
    ended = [e for e in events if e.subject == "attempt" and e.to_state in ("failed", "lost")]
    return [f"Attempt {e.attempt} {e.to_state}: {e.cause or 'unknown'}{_told(e.detail)}." for e in ended]


def _ended(subject: str, state: str, cause: str | None, detail: str | None) -> str:
    return f"{subject} is {state}" + (f", cause {cause}" if cause else "") + _told(detail) + "."


def _told(detail: str | None) -> str:
    text = (detail or "").strip().rstrip(".")
    return f" ({text})" if text else ""


def _named(worker_id: str | None, workers: Sequence[WorkerView]) -> str:
    found = next((worker.name for worker in workers if worker.worker_id == worker_id), None)
    return found or (f"worker {worker_id[:8]}" if worker_id else "a worker")
