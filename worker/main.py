"""The worker's process: identity, capacity, connections, supervisor; stops on SIGTERM and SIGINT, leaving runs running."""

import contextlib
import errno
import logging
import os
import shutil
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Final

from tracking.broker import BrokerKind, broker_config
from tracking.ids import new_uuid
from tracking.records import SessionInfo
from tracking.roles import on_signal, wait_for_store
from tracking.settings import Settings
from tracking.store import Store, open_store
from worker.capacity import usable_cpus, usable_memory_bytes, whole_cpus
from worker.celery_app import make_window
from worker.errors import EngineAway, WorkerError
from worker.folders import attempt_folders
from worker.identity import StateFolder
from worker.runtimes.base import Runtime
from worker.runtimes.docker import DockerRuntime, engine_answers
from worker.runtimes.host import host_incarnation
from worker.runtimes.process import ProcessRuntime, is_alive
from worker.supervisor import Supervisor
from worker.surroundings import Surroundings

_log = logging.getLogger(__name__)

_NO_HOME: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM})


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    """What a worker offers. None: what this process may use of its machine (see `worker.capacity`).

    Attributes:
        name: shown to people, and the name of the state folder; two workers of one home need two names.
        slots: how many runs at once.
        cpus: cores to promise; as many as slots by default, so that laptops may try two at a time.
        gpus: how many devices, numbered from 0.
    """

    name: str | None = None
    queues: tuple[str, ...] = ("default",)
    slots: int | None = None
    cpus: float | None = None
    memory_bytes: int | None = None
    gpus: int = 0


def run_worker(settings: Settings, options: WorkerOptions) -> int:
    """Run until a signal; the exit status.

    Raises:
        WorkerError: no database or server is configured, the state folder is taken, or another process runs under this identity.
    """
    if not settings.database_url or not settings.server:
        raise WorkerError("A worker needs a database and a server.", hint="Set SWEEP_DATABASE_URL and SWEEP_SERVER, or use `sweep up`.")
    stopping = threading.Event()
    on_signal(stopping.set)
    name = options.name or socket.gethostname()
    with _home_named(settings.home):
        identity = StateFolder(settings.home, name)
    try:
        _point_out_others(identity)
        store = wait_for_store(settings.database_url, stopping, pool_size=1, application="sweep worker")
        if store is None:
            return 0
        with _home_named(settings.home):
            supervisor = _assemble(settings, options, identity, name, store)
        on_signal(supervisor.stop)
        if stopping.is_set():
            supervisor.stop()
        supervisor.run()
        store.close()
    finally:
        identity.close()
    return 0


@contextlib.contextmanager
def _home_named(home: Path) -> Iterator[None]:
    """Say which folder it is that can't be used: the system says so of some calls only."""
    try:
        yield
    except OSError as error:
        # Of many files copied, the first that was not says enough.
        said = error.args[0][0][2] if isinstance(error, shutil.Error) else str(error)
        if error.errno in _NO_HOME or isinstance(error, shutil.Error):
            raise WorkerError(f"The worker can't keep its state in {home}: {said}.", hint="Make room there, or set SWEEP_HOME to another folder.") from error
        raise


def _point_out_others(identity: StateFolder) -> None:
    """Say so if another worker of this home, of an earlier name of this one perhaps, is down and has left attempts running."""
    for folder in identity.others():
        try:
            n_alive = sum(is_alive(path) for _, path in attempt_folders(folder / "runs"))
        except OSError as error:
            _log.warning("What worker %s has left can't be looked at: %s", folder.name, error)
            continue
        if n_alive:
            _log.warning(
                "Worker %s is not running and has left %d attempts running: `sweep worker --name %s` takes them up.", folder.name, n_alive, folder.name
            )


def _assemble(settings: Settings, options: WorkerOptions, identity: StateFolder, name: str, store: Store) -> Supervisor:
    surroundings = Surroundings(settings, identity.path)
    runtimes: dict[str, Runtime] = {"process": ProcessRuntime(surroundings.folders.runs)}
    connect_engine = partial(DockerRuntime, identity.worker_id, identity.home_id)
    if engine_answers():
        # It may go away this very moment; a machine without one serves process runs only, and says so below.
        with contextlib.suppress(EngineAway):
            runtimes["docker"] = connect_engine()
    n_cores = whole_cpus(usable_cpus())
    slots = options.slots or max(2, n_cores)
    info = SessionInfo(
        worker_id=identity.worker_id,
        session_id=new_uuid(),
        name=name,
        hostname=socket.gethostname(),
        celery_queue=f"sweep.worker.{identity.worker_id}",
        queues=options.queues,
        slots=slots,
        cpus=options.cpus or float(max(slots, n_cores)),
        memory_bytes=options.memory_bytes or usable_memory_bytes(),
        gpus=options.gpus,
        runtimes=tuple(runtimes),
        host_incarnation=host_incarnation(),
        version=version("sweep-runner"),
        pid=os.getpid(),
    )
    has_broker = broker_config(settings.broker_url, settings.home).kind is not BrokerKind.NONE
    # Two connections and no more: claims and renewals never wait behind output (D6, D12).
    ingest = open_store(settings.database_url, pool_size=1, check_schema=False, application=f"sweep worker {name} ingest")
    supervisor = Supervisor(
        settings,
        info,
        store=store,
        ingest=ingest,
        surroundings=surroundings,
        runtimes=runtimes,
        connect_engine=connect_engine,
        has_broker=has_broker,
    )
    # Twice the slots: a run that was placed ahead waits for its slot in the supervisor, which then needs no message to start it.
    supervisor.window = make_window(settings, celery_queue=info.celery_queue, node_name=f"sweep@{name}", concurrency=2 * slots, handler=supervisor.handle)
    _log.info("Worker %s: %d slots, %g cores, queues %s, runtimes %s.", name, slots, info.cpus, ", ".join(info.queues), ", ".join(runtimes))
    return supervisor
