"""Managed runs between creation and attempt: what waits, placing it, taking it back, verdicts on failures."""

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any

import msgspec
from msgspec import Struct

from tracking.queries import queue as sql
from tracking.records import PlacedRun, Resources, Retry
from tracking.store.database import Database
from tracking.store.leader import hold_leadership


class QueuedRun(Struct, frozen=True):
    """A run that waits to be placed."""

    run_id: str
    sweep_id: str
    user_name: str
    queue: str
    priority: int
    created_at: datetime
    resources: Resources
    parallel: int | None = None
    avoid_workers: tuple[str, ...] = ()


class HeldRun(Struct, frozen=True):
    """A run that a session holds: placed on it or running there."""

    run_id: str
    sweep_id: str | None
    user_name: str
    session_id: str
    state: str
    resources: Resources
    gpu_ids: tuple[int, ...] = ()


class Placement(Struct, frozen=True):
    """The scheduler's choice of a worker for a run."""

    run_id: str
    session_id: str
    worker_id: str
    gpu_ids: tuple[int, ...] = ()


class Placed(Struct, frozen=True):
    """A placement that won, with its number."""

    run_id: str
    placement: int
    session_id: str


class LongPlaced(Struct, frozen=True):
    """A run that has stood placed for longer than a claim takes, behind others on a full worker."""

    run: QueuedRun
    placement: int
    session_id: str


class DueVerdict(Struct, frozen=True):
    """A run whose attempt has failed and that waits for the scheduler's word.

    Attributes:
        user_retries: attempts already given on the user's budget.
        retry: that budget.
        is_stopping: the sweep starts nothing more.
    """

    run_id: str
    attempt: int
    sweep_id: str | None
    trial_number: int | None
    worker_id: str | None
    cause: str
    detail: str | None
    machinery_faults: int
    cancel: bool
    prune: bool
    user_retries: int = 0
    exit_status: int | None = None
    signal: int | None = None
    retry: Retry = Retry()
    is_stopping: bool = False


def _resources(text: str | None) -> Resources:
    return Resources() if text is None else msgspec.json.decode(text, type=Resources)


def _queued(row: Any) -> QueuedRun:
    avoid = tuple(row.avoid_workers)
    return QueuedRun(row.run_id, row.sweep_id, row.user_name, row.queue, row.priority, row.created_at, _resources(row.resources), row.parallel, avoid)


class Queue:
    """Moves of managed runs that the scheduler makes. Each repeats the leader's epoch."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def waiting(self, queues: Collection[str] | None = None, *, limit: int = 20_000) -> list[QueuedRun]:
        """Runs to be placed, by priority and age.

        Args:
            queues: those that somebody serves; None for all.
            limit: far above what searches have waiting: what fits nowhere must not hide what would.
        """
        with self._database.autocommit() as tx:
            rows = tx.rows(sql.QUEUED, {"queues": None if queues is None else list(queues), "limit": limit})
        return [_queued(row) for row in rows]

    def held(self) -> list[HeldRun]:
        """Runs that sessions hold now."""
        with self._database.autocommit() as tx:
            rows = tx.rows(sql.HELD)
        return [HeldRun(r.run_id, r.sweep_id, r.user_name, r.session_id, r.state, _resources(r.resources), tuple(r.gpu_ids)) for r in rows]

    def place(self, epoch: int, placements: Sequence[Placement]) -> list[Placed]:
        """Mark runs placed; those that changed meanwhile are left out of the answer."""
        if not placements:
            return []
        values = {
            "run_ids": [p.run_id for p in placements],
            "session_ids": [p.session_id for p in placements],
            "worker_ids": [p.worker_id for p in placements],
            "gpu_ids": ["{" + ",".join(map(str, p.gpu_ids)) + "}" for p in placements],
        }
        with self._database.transaction() as tx:
            hold_leadership(tx, epoch)
            return [Placed(r.run_id, r.placement, r.session_id) for r in tx.rows(sql.PLACE, values)]

    def take_back_overdue(self, epoch: int, claim_timeout_s: float) -> list[str]:
        """Placed runs that nobody claimed in time, or whose session is gone, wait again."""
        values = {"claim_timeout_s": claim_timeout_s, "detail": "It was not claimed in time, or its worker went away."}
        with self._database.transaction() as tx:
            hold_leadership(tx, epoch)
            return [row.run_id for row in tx.rows(sql.UNPLACE_OVERDUE, values)]

    def placed_long(self, claim_timeout_s: float) -> list[LongPlaced]:
        """Runs that were placed longer ago than that, oldest placement first."""
        with self._database.autocommit() as tx:
            rows = tx.rows(sql.PLACED_LONG, {"claim_timeout_s": claim_timeout_s})
        return [LongPlaced(_queued(row), row.placement, row.session_id) for row in rows]

    def take_back(self, epoch: int, placed: LongPlaced, reason: str) -> bool:
        """Take one placement back, unless it was claimed meanwhile."""
        values = {"run_id": placed.run.run_id, "placement": placed.placement, "session_id": placed.session_id, "detail": reason}
        with self._database.transaction() as tx:
            hold_leadership(tx, epoch)
            return bool(tx.rows(sql.UNPLACE_REFUSED, values))

    def refuse(self, session_id: str, placed: PlacedRun, reason: str) -> bool:
        """A worker gives back what was placed on it (it drains, or can't take it)."""
        values = {"run_id": placed.run_id, "placement": placed.placement, "session_id": session_id, "detail": reason}
        with self._database.autocommit() as tx:
            return bool(tx.rows(sql.UNPLACE_REFUSED, values))

    def verdicts_due(self) -> list[DueVerdict]:
        """Failed attempts whose runs wait for the scheduler's word."""
        with self._database.autocommit() as tx:
            rows = tx.rows(sql.VERDICTS_DUE)
        return [DueVerdict(**{**row._asdict(), "retry": msgspec.json.decode(row.retry, type=Retry)}) for row in rows]

    def requeue(self, epoch: int, due: DueVerdict, *, delay_s: float, machinery: bool, detail: str) -> bool:
        """The run gets another attempt, not before `delay_s` from now, on another worker if the machinery failed."""
        values = {
            "run_id": due.run_id,
            "attempt": due.attempt,
            "machinery": int(machinery),
            "delay_s": delay_s,
            "avoid": (due.worker_id or "") if machinery else "",
            "detail": detail,
        }
        with self._database.transaction() as tx:
            hold_leadership(tx, epoch)
            return tx.execute(sql.REQUEUE, values) > 0

    def fail(self, epoch: int, due: DueVerdict) -> bool:
        """The run has failed for good, with its attempt's cause."""
        return self._end(epoch, due, sql.FAIL)

    def cancel_verdict(self, epoch: int, due: DueVerdict) -> bool:
        """The attempt was lost while a cancel was asked for: there is nothing left to stop."""
        return self._end(epoch, due, sql.CANCEL_VERDICT)

    def _end(self, epoch: int, due: DueVerdict, statement: str) -> bool:
        with self._database.transaction() as tx:
            hold_leadership(tx, epoch)
            return tx.execute(statement, {"run_id": due.run_id, "attempt": due.attempt}) > 0

    def request_cancel(self, run_id: str, detail: str = "Cancelled by hand.") -> bool:
        """Cancel one run: at once if it waits, else its worker is asked to stop it."""
        with self._database.autocommit() as tx:
            row = tx.one(sql.CANCEL_RUN, {"run_id": run_id, "cause": "cancelled", "detail": detail})
        return row is not None and row.n_dropped + row.n_requested > 0

    def request_prune(self, run_id: str, detail: str) -> bool:
        """Ask a running run's worker to stop it early."""
        with self._database.autocommit() as tx:
            return tx.execute(sql.REQUEST_PRUNE, {"run_id": run_id, "detail": detail}) > 0
