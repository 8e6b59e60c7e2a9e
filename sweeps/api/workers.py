"""Workers, reasons for waiting, and what the server knows of its surroundings."""

from collections.abc import Sequence
from typing import Final

from sweeps.api.present import iso, now_utc, when, worker_shape
from sweeps.api.rights import Right
from sweeps.api.routing import Body, Routes, Services, Use, parse_body, wake
from sweeps.api.shapes import SCHEMA, PlacementAnswer, PlacementBody, PlacementEntry, ServerAnswer, StoryEntry, WaitEntry, WhyAnswer, WorkerAnswer, WorkerList
from sweeps.api.story import Sentence, tell_run, tell_sweep, workers_of
from sweeps.api.version import program_version
from sweeps.api.waits import Bounds, Reason, Scene, Wish, no_scheduler, openings, why_not_placed
from sweeps.api.why import not_proposed, why_run, why_sweep
from sweeps.wording import names_trial
from tracking import embedded
from tracking.errors import DatabaseAway, NotFound
from tracking.records import Event, Resources, Run, Sweep
from tracking.settings import Settings
from tracking.states import TrialState

routes = Routes("workers")

_DIGITS_MAX: Final = 10


@routes.get("/workers", Right.READ, answers=WorkerList)
def list_workers(services: Use, include_gone: bool = False) -> WorkerList:
    """Workers that are here, and what they hold."""
    found = services.store.sessions.workers(include_gone=include_gone)
    return WorkerList(schema=SCHEMA, workers=[worker_shape(worker) for worker in found])


@routes.post("/workers/{ref}/drain", Right.WRITE, answers=WorkerAnswer)
def drain_worker(services: Use, ref: str) -> WorkerAnswer:
    """Give a worker no more runs; those it has go on, and it stays up."""
    return WorkerAnswer(schema=SCHEMA, **worker_shape(services.store.sessions.drain(ref)))


@routes.post("/workers/{ref}/undrain", Right.WRITE, answers=WorkerAnswer)
def undrain_worker(services: Use, ref: str) -> WorkerAnswer:
    """Give a drained worker runs again."""
    worker = services.store.sessions.drain(ref, draining=False)
    wake(services)
    return WorkerAnswer(schema=SCHEMA, **worker_shape(worker))


@routes.post("/workers/{ref}/uncordon", Right.WRITE, answers=WorkerAnswer)
def uncordon_worker(services: Use, ref: str) -> WorkerAnswer:
    """Lift the cordon that faults of the machinery have put around a worker."""
    worker = services.store.sessions.lift_cordon(ref)
    wake(services)
    return WorkerAnswer(schema=SCHEMA, **worker_shape(worker))


@routes.get("/why/{ref:path}", Right.READ, answers=WhyAnswer)
def tell_why(services: Use, ref: str) -> WhyAnswer:
    """Why a sweep, a trial (`SWEEP/NUMBER`) or a run is where it is, and what happened to it, in plain sentences."""
    sweep = None if names_trial(ref) else _sweep_or_none(services, ref)
    if sweep is not None:
        return _why_sweep(services, sweep)
    try:
        run = services.store.runs.resolve(ref)
    except NotFound:
        return _why_no_run(services, ref)
    if run.kind == "sweep":
        return _why_sweep(services, services.store.sweeps.get(run.run_id))
    return _why_run(services, run)


@routes.post("/placement", Right.WRITE, answers=PlacementAnswer, body=PlacementBody)
def tell_placement(services: Use, body: Body) -> PlacementAnswer:
    """Which workers could run a trial of such a sweep now, or why none can. Nothing is submitted or stored."""
    asked = parse_body(body, PlacementBody)
    wish, scene = Wish("", asked["queue"], Resources(**asked["resources"]), asked["parallel"]), _scene(services)
    found = openings(wish, scene)
    reasons = [*no_scheduler(scene), *([] if found else why_not_placed(wish, scene))]
    at_once = sum(n for _, n in found)
    return PlacementAnswer(
        schema=SCHEMA,
        workers=[PlacementEntry(name=worker.name, trials=n) for worker, n in found],
        trials=at_once if asked["parallel"] is None else min(at_once, asked["parallel"]),
        reasons=[reason.text for reason in reasons],
        waits=_waits(reasons),
    )


def _waits(reasons: Sequence[Reason]) -> list[WaitEntry]:
    return [WaitEntry(wait=reason.wait, text=reason.text, until=iso(reason.until)) for reason in reasons if reason.wait]


def _sweep_or_none(services: Services, ref: str) -> Sweep | None:
    try:
        return services.store.sweeps.get(ref)
    except NotFound:
        return None


def _why_no_run(services: Services, ref: str) -> WhyAnswer:
    """For a reference that names no run: a trial that is yet to come, or a sweep whose name only looks like one."""
    named, _, number = ref.rpartition("/")
    parent = _sweep_or_none(services, named) if names_trial(ref) else None
    if parent is not None and len(number) < _DIGITS_MAX:
        return _why_not_there(services, parent, int(number))
    return _why_sweep(services, services.store.sweeps.get(ref))


def _scene(services: Services) -> Scene:
    store, settings = services.store, services.settings
    bounds = Bounds(
        claim_timeout_s=settings.claim_timeout_s,
        reassign_after_s=settings.reassign_after_s,
        renew_s=settings.renew_s,
        stop_grace_s=settings.stop_grace_s,
        infra_retries=settings.infra_retries,
        has_broker=settings.broker_url != "none",
    )
    return Scene(store.why.surroundings(), store.sessions.workers(), store.why.holdings(), bounds)


def _why_sweep(services: Services, sweep: Sweep) -> WhyAnswer:
    reasons, events = _of_sweep(services, sweep)
    names = services.store.why.worker_names(workers_of(events))
    return _answer(f"sweep {sweep.short_id}", sweep.state, reasons, tell_sweep(events, names))


def _of_sweep(services: Services, sweep: Sweep) -> tuple[list[Reason], Sequence[Event]]:
    """Reasons for its state, and what they were read from."""
    store, sweep_id = services.store, sweep.sweep_id
    counts, progress, failures = store.sweeps.counts(sweep_id), store.why.progress(sweep_id), store.why.failures(sweep_id)
    events = store.why.sweep_events(sweep_id)
    # As `status` has it: the last by number, which the history of a large sweep need not reach back to.
    n_failed = sum(failures.values())
    last_failed = next(iter(store.trials.list(sweep_id, states=(TrialState.FAILED,), limit=1, offset=n_failed - 1)), None) if n_failed else None
    best = next(iter(store.trials.best(sweep_id)), None)
    return why_sweep(sweep, counts, progress, failures, events, _scene(services), last_failed=last_failed, best=best), events


def _why_run(services: Services, run: Run) -> WhyAnswer:
    store = services.store
    sweep = store.sweeps.get(run.sweep_id) if run.sweep_id else None
    standing = store.why.standing(run.run_id) if run.kind == "managed" else None
    events = store.why.trial_events(run.run_id, run.sweep_id, run.trial_number)
    run_ids = {run.run_id, *(event.run_id for event in events if event.run_id)}
    attempts = {run_id: store.attempts.list(run_id) for run_id in run_ids}
    reasons = why_run(run, sweep, standing, attempts[run.run_id], events, _scene(services))
    everything = [attempt for each in attempts.values() for attempt in each]
    story = tell_run(events, everything, store.why.stays(run_ids), store.why.worker_names(workers_of(events)))
    subject = f"trial {sweep.short_id}/{run.trial_number}" if sweep and run.trial_number is not None else f"run {run.run_id}"
    return _answer(subject, run.state, reasons, story)


def _why_not_there(services: Services, sweep: Sweep, number: int) -> WhyAnswer:
    reasons = not_proposed(sweep, services.store.sweeps.counts(sweep.sweep_id), number, now_utc())
    return _answer(f"trial {sweep.short_id}/{number}", "not proposed", [*reasons, *_of_sweep(services, sweep)[0]], [])


def _answer(subject: str, state: str, reasons: Sequence[Reason], story: Sequence[Sentence]) -> WhyAnswer:
    return WhyAnswer(
        schema=SCHEMA,
        subject=subject,
        state=state,
        reasons=[reason.text for reason in reasons],
        waits=_waits(reasons),
        story=[StoryEntry(at=when(sentence.at), text=sentence.text) for sentence in story],
    )


@routes.get("/server", Right.READ, answers=ServerAnswer)
def get_server(services: Use) -> ServerAnswer:
    """What the server knows of its surroundings."""
    settings = services.settings
    return ServerAnswer(
        schema=SCHEMA,
        version=program_version(),
        time=when(now_utc()),
        database_problem=_database_problem(services),
        artifacts_problem=services.artifacts.problem(),
        artifact_root=services.artifacts.root,
        snapshot_max_bytes=settings.snapshot_max_bytes,
        flower_url=settings.flower_url,
        is_local=_is_local(settings),
    )


def _is_local(settings: Settings) -> bool:
    """Whether this is the cluster of one machine; its roles are told the address of the embedded Postgres."""
    return settings.is_local or settings.database_url == embedded.status(settings.home).url


def _database_problem(services: Services) -> str:
    try:
        services.store.experiments.search(max_results=1)
    except DatabaseAway as error:
        return error.message
    return ""
