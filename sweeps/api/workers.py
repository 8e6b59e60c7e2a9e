"""Workers, reasons for waiting, and what the server knows of its surroundings."""

import os

from sweeps.api.present import now_utc, when, worker_shape
from sweeps.api.rights import Right
from sweeps.api.routing import Routes, Services, Use, wake
from sweeps.api.shapes import SCHEMA, ServerAnswer, WhyAnswer, WorkerAnswer, WorkerList
from sweeps.api.version import program_version
from sweeps.api.why import why_run, why_sweep
from tracking import embedded
from tracking.errors import DatabaseAway, NotFound
from tracking.records import Sweep
from tracking.settings import Settings

routes = Routes("workers")


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
    """Why a sweep or a run is where it is, in plain sentences."""
    sweep = None if "/" in ref else _sweep_or_none(services, ref)
    return _why_run(services, ref) if sweep is None else _why_sweep(services, sweep)


def _sweep_or_none(services: Services, ref: str) -> Sweep | None:
    try:
        return services.store.sweeps.get(ref)
    except NotFound:
        return None


def _why_sweep(services: Services, sweep: Sweep) -> WhyAnswer:
    store = services.store
    events = store.sweeps.events(sweep.sweep_id)
    reasons = why_sweep(sweep, store.sweeps.counts(sweep.sweep_id), store.sessions.workers(), events)
    return WhyAnswer(schema=SCHEMA, subject=f"sweep {sweep.short_id}", state=sweep.state, reasons=reasons)


def _why_run(services: Services, ref: str) -> WhyAnswer:
    store = services.store
    run = store.runs.resolve(ref)
    sweep = store.sweeps.get(run.sweep_id) if run.sweep_id else None
    reasons = why_run(run, sweep, store.sessions.workers(), store.runs.events(run.run_id), now_utc(), stop_grace_s=services.settings.stop_grace_s)
    subject = f"trial {sweep.short_id}/{run.trial_number}" if sweep and run.trial_number is not None else f"run {run.run_id}"
    return WhyAnswer(schema=SCHEMA, subject=subject, state=run.state, reasons=reasons)


@routes.get("/server", Right.READ, answers=ServerAnswer)
def get_server(services: Use) -> ServerAnswer:
    """What the server knows of its surroundings."""
    settings = services.settings
    return ServerAnswer(
        schema=SCHEMA,
        version=program_version(),
        time=when(now_utc()),
        database_problem=_database_problem(services),
        artifacts_problem=_artifacts_problem(services),
        artifact_root=str(settings.artifact_folder),
        snapshot_max_bytes=settings.snapshot_max_bytes,
        flower_url=settings.flower_url,
        is_local=_is_local(settings),
    )


def _is_local(settings: Settings) -> bool:
    """Whether this is the cluster of one machine; its roles are told the address of the embedded Postgres."""
    return settings.is_local or settings.database_url == embedded.status(settings.home).url


def _database_problem(services: Services) -> str:
    try:
        services.store.experiments.list(limit=1)
    except DatabaseAway as error:
        return error.message
    return ""


def _artifacts_problem(services: Services) -> str:
    folder = services.settings.artifact_folder
    if folder.is_dir() and os.access(folder, os.W_OK | os.X_OK):
        return ""
    return f"{folder} is not a folder that the server may write to."
