"""Where things stand and what happened, read for `sweep why`. Facts only; the words are `sweeps.api.why`'s."""

from collections.abc import Iterable, Sequence
from datetime import datetime

import msgspec
from msgspec import Struct

from tracking.errors import NotFound
from tracking.queries import why as sql
from tracking.records import Event, Resources, Retry
from tracking.store.database import Database


class Surroundings(Struct, frozen=True):
    """The database's clock, and who leads.

    Attributes:
        holder: who leads or led last; empty if nobody ever did.
        renewed_at: when that one last said so.
        suspended_until: silent sessions are not given up before (I4).
    """

    now: datetime
    epoch: int
    holder: str
    renewed_at: datetime
    is_led: bool
    suspended_until: datetime | None = None


class Standing(Struct, frozen=True):
    """A managed run with the session that holds it.

    Attributes:
        n_before: waiting runs of a higher priority in the same queue, while it waits itself.
        slots: of the session.
        retry: the user's budget.
    """

    run_id: str
    state: str
    attempt: int
    placement: int
    not_before: datetime
    priority: int
    queue: str
    placed_at: datetime | None = None
    machinery_faults: int = 0
    user_retries: int = 0
    avoid_workers: Sequence[str] = ()
    verdict_due: bool = False
    cancel_requested_at: datetime | None = None
    prune_requested_at: datetime | None = None
    session_id: str | None = None
    worker_name: str | None = None
    session_state: str | None = None
    renewed_at: datetime | None = None
    lease_until: datetime | None = None
    session_ended_at: datetime | None = None
    slots: int = 0
    n_before: int = 0
    retry: Retry = Retry()


class Holding(Struct, frozen=True):
    """A run that a session holds: placed on it or running there."""

    run_id: str
    session_id: str
    sweep_id: str | None
    short_id: str
    trial_number: int | None
    user_name: str
    state: str
    resources: Resources = Resources()
    gpu_ids: Sequence[int] = ()


class Progress(Struct, frozen=True):
    """Where the runs of a sweep's open trials are.

    Attributes:
        n_ready: wait for a worker.
        n_backing_off: wait for their time, the first of them until `next_at`.
        n_verdicts: failed attempts whose runs wait for the scheduler's word.
        n_silent: of the running ones, those whose worker is not heard of, one of them since `silent_since`.
        n_untold: have ended, and the search has not been told.
    """

    n_ready: int = 0
    n_backing_off: int = 0
    next_at: datetime | None = None
    n_verdicts: int = 0
    n_running: int = 0
    n_placed: int = 0
    n_silent: int = 0
    silent_since: datetime | None = None
    n_untold: int = 0


class Stay(Struct, frozen=True):
    """A session of the worker of an attempt, while that attempt was live.

    Attributes:
        is_later: it was opened after the attempt began: the worker came back and went on with it.
        is_over: it ended before the attempt did.
    """

    run_id: str
    attempt: int
    worker_name: str
    opened_at: datetime
    state: str
    is_later: bool
    ended_at: datetime | None = None
    is_over: bool | None = None


class Why:
    """The readings."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def surroundings(self) -> Surroundings:
        """The time and the leader."""
        with self._database.autocommit() as tx:
            (row,) = tx.rows(sql.SURROUNDINGS)
        return Surroundings(**row._asdict())

    def standing(self, run_id: str) -> Standing:
        """Where a managed run stands.

        Raises:
            NotFound: there is no such run.
        """
        with self._database.autocommit() as tx:
            row = tx.one(sql.STANDING, {"run_id": run_id})
        if row is None:
            raise NotFound(f"There is no run {run_id!r}.")
        return Standing(**{**row._asdict(), "retry": msgspec.json.decode(row.retry or "{}", type=Retry)})

    def holdings(self) -> list[Holding]:
        """Everything that sessions hold now, by sweep and trial."""
        with self._database.autocommit() as tx:
            rows = tx.rows(sql.HOLDINGS)
        return [Holding(**{**r._asdict(), "resources": msgspec.json.decode(r.resources or "{}", type=Resources)}) for r in rows]

    def progress(self, sweep_id: str) -> Progress:
        """Where the runs of a sweep's open trials are."""
        with self._database.autocommit() as tx:
            (row,) = tx.rows(sql.PROGRESS, {"sweep_id": sweep_id})
        return Progress(**row._asdict())

    def failures(self, sweep_id: str) -> dict[str, int]:
        """How many of a sweep's trials failed, by cause, the commonest first."""
        with self._database.autocommit() as tx:
            return {row.cause: row.n for row in tx.rows(sql.FAILURES, {"sweep_id": sweep_id})}

    def trial_events(self, run_id: str, sweep_id: str | None, trial_number: int | None, limit: int = 500) -> list[Event]:
        """The newest `limit` rows of history of a run, and of its trial's other runs, oldest first."""
        return self._events(sql.TRIAL_EVENTS, run_id=run_id, sweep_id=sweep_id, trial_number=trial_number, limit=limit)

    def sweep_events(self, sweep_id: str, limit: int = 100) -> list[Event]:
        """The newest `limit` rows of a sweep's history that are out of the ordinary, oldest first."""
        return self._events(sql.SWEEP_EVENTS, sweep_id=sweep_id, limit=limit)

    def stays(self, run_ids: Iterable[str]) -> list[Stay]:
        """The sessions that workers had while attempts of these runs were live on them."""
        with self._database.autocommit() as tx:
            return [Stay(**row._asdict()) for row in tx.rows(sql.STAYS, {"run_ids": list(run_ids)})]

    def worker_names(self, worker_ids: Iterable[str]) -> dict[str, str]:
        """Names of workers, gone ones too, by their ids."""
        with self._database.autocommit() as tx:
            return {row.worker_id: row.name for row in tx.rows(sql.NAMES, {"worker_ids": list(worker_ids)})}

    def _events(self, statement: str, **values: object) -> list[Event]:
        with self._database.autocommit() as tx:
            return [Event(**row._asdict()) for row in tx.rows(statement, values)]
