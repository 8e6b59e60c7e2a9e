"""Workers and their sessions: opened, renewed, fenced, lost. Only the database's clock judges a lease (I4)."""

import time
from collections.abc import Sequence
from typing import Any

from tracking.errors import NotFound, NotNow
from tracking.queries import attempts as attempt_sql
from tracking.queries import queue as queue_sql
from tracking.queries import sessions as sql
from tracking.records import ClaimedRun, OwnedRun, PlacedRun, RenewalAnswer, SessionInfo, WorkerView
from tracking.store.attempts import claimed_run
from tracking.store.database import Database
from tracking.store.leader import hold_leadership


class Sessions:
    """The rows by which workers live."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def open(self, info: SessionInfo, *, lease_s: float) -> list[ClaimedRun]:
        """Open a session; it fences an older one of the same worker and takes over its live attempts.

        The same session again, after a lost reply, is no change.

        Returns:
            the attempts to adopt: the worker looks what became of each.

        Raises:
            NotNow: the session was opened before and is over.
        """
        values = {name: getattr(info, name) for name in SessionInfo.__struct_fields__}
        values.update(queues=list(info.queues), runtimes=list(info.runtimes), lease_s=lease_s, own_clock=time.time())
        with self._database.transaction() as tx:
            before = tx.scalar(sql.STATE, values)
            if before not in (None, "live"):
                raise NotNow(f"Session {info.session_id} is over ({before}).", hint="Open one under a new id.")
            tx.execute(sql.UPSERT_WORKER, values)
            for (older,) in tx.rows(sql.FENCE_OLDER, values):
                tx.rows(queue_sql.UNPLACE_SESSION, {"session_id": older, "detail": "Its worker was started anew."})
            tx.execute(sql.OPEN, values)
            tx.execute(sql.WORKER_EVENT, {"worker_id": info.worker_id, "event": "session_opened", "detail": info.session_id})
            return [claimed_run(row) for row in tx.rows(attempt_sql.ADOPT, values)]

    def renew(self, session_id: str, *, lease_s: float) -> RenewalAnswer | None:
        """Renew the lease and hear everything that is this session's; None: fenced, stop everything."""
        with self._database.autocommit() as tx:
            if tx.execute(sql.RENEW, {"session_id": session_id, "lease_s": lease_s, "own_clock": time.time()}) == 0:
                return None
            rows = tx.rows(sql.OURS, {"session_id": session_id})
        return _answer(rows)

    def look(self, session_id: str) -> RenewalAnswer | None:
        """Hear what is this session's without renewing: cheap enough for every second. None: it is over."""
        with self._database.autocommit() as tx:
            return _answer(tx.rows(sql.OURS, {"session_id": session_id}))

    def offer(self, session_id: str, runtimes: Sequence[str]) -> None:
        """Note what a session can run by now."""
        with self._database.autocommit() as tx:
            tx.execute(sql.OFFER, {"session_id": session_id, "runtimes": list(runtimes)})

    def state(self, session_id: str) -> str | None:
        """What became of a session: `live`, `fenced` by a newer one of its worker, `lost` to others, `ended`; None if it is unknown."""
        with self._database.autocommit() as tx:
            state: str | None = tx.scalar(sql.LOOK, {"session_id": session_id})
        return state

    def close(self, session_id: str) -> None:
        """The worker goes away in order; its running attempts stay its own until it comes back or is judged lost."""
        with self._database.transaction() as tx:
            # The session's row first, as a claim does: the other way round the two could block each other.
            tx.execute(sql.CLOSE, {"session_id": session_id})
            tx.rows(queue_sql.UNPLACE_SESSION, {"session_id": session_id, "detail": "Its worker was stopped."})

    def look_at_silent(self, reassign_after_s: float) -> None:
        """See whether those that have been silent for too long could have spoken.

        Raises:
            RowLocked: somebody else holds a lock on one of them.
        """
        with self._database.autocommit() as tx:
            tx.rows(sql.SILENT, {"reassign_after_s": reassign_after_s, "own_clock": time.time()})

    def lose_silent(self, epoch: int, reassign_after_s: float) -> list[str]:
        """Give up sessions that have been silent for too long: their attempts are lost, others may run them.

        Raises:
            RowLocked: somebody else holds a lock on one of them: it can't speak, and none is given up.
        """
        with self._database.transaction() as tx:
            hold_leadership(tx, epoch)
            lost = [row.session_id for row in tx.rows(sql.LOSE_SILENT, {"reassign_after_s": reassign_after_s, "own_clock": time.time()})]
            if lost:
                detail = f"Its worker has been silent for more than {reassign_after_s:g} s."
                tx.execute(attempt_sql.LOSE_OF_SESSIONS, {"session_ids": lost, "detail": detail})
        return lost

    def workers(self, *, include_gone: bool = False) -> list[WorkerView]:
        """Workers with a live session, or all that ever were; by name."""
        with self._database.autocommit() as tx:
            return [_worker(row) for row in tx.rows(sql.ALL_WORKERS if include_gone else sql.WORKERS)]

    def drain(self, ref: str, *, draining: bool = True) -> WorkerView:
        """Give a worker nothing new; what runs there goes on.

        Raises:
            NotFound: no worker has this name or id.
        """
        with self._database.transaction() as tx:
            worker_id = tx.scalar(sql.DRAIN, {"ref": ref, "draining": draining})
            if worker_id is None:
                raise NotFound(f"There is no worker {ref!r}.", hint="`sweep worker ls` lists them.")
            tx.execute(sql.WORKER_EVENT, {"worker_id": worker_id, "event": "drain" if draining else "undrain", "detail": ""})
            if draining:
                tx.rows(queue_sql.UNPLACE_WORKER, {"worker_id": worker_id, "detail": "Its worker is drained."})
            rows = tx.rows(sql.ALL_WORKERS)
        return next(_worker(row) for row in rows if row.worker_id == worker_id)

    def lift_cordon(self, ref: str) -> WorkerView:
        """Let a cordoned worker have runs again and count its faults anew; for one that is not cordoned nothing changes.

        Raises:
            NotFound: no worker has this name or id.
        """
        with self._database.transaction() as tx:
            found = tx.one(sql.LIFT_CORDON, {"ref": ref})
            if found is None:
                raise NotFound(f"There is no worker {ref!r}.", hint="`sweep worker ls` lists them.")
            if found.was_cordoned:
                tx.execute(sql.WORKER_EVENT, {"worker_id": found.worker_id, "event": "uncordon", "detail": ""})
            rows = tx.rows(sql.ALL_WORKERS)
        return next(_worker(row) for row in rows if row.worker_id == found.worker_id)

    def note_fault(self, epoch: int, worker_id: str, run_id: str, *, limit: int, reason: str) -> bool:
        """Count a machinery fault against a worker; the `limit`-th run in a row cordons it. Returns whether it did."""
        with self._database.transaction() as tx:
            hold_leadership(tx, epoch)
            cordoned = tx.scalar(sql.NOTE_FAULT, {"worker_id": worker_id, "run_id": run_id, "limit": limit, "reason": reason})
            if cordoned:
                tx.execute(sql.WORKER_EVENT, {"worker_id": worker_id, "event": "cordon", "detail": reason})
                tx.rows(queue_sql.UNPLACE_WORKER, {"worker_id": worker_id, "detail": "Its worker was cordoned."})
        return bool(cordoned)


def _answer(rows: Any) -> RenewalAnswer | None:
    if not rows:
        return None
    placed = tuple(PlacedRun(r.run_id, r.placement) for r in rows if r.state == "placed")
    owned = tuple(OwnedRun(r.run_id, r.attempt, r.cancel, r.prune) for r in rows if r.state == "running")
    return RenewalAnswer(placed=placed, owned=owned, draining=any(r.draining for r in rows))


def _worker(row: Any) -> WorkerView:
    return WorkerView(
        worker_id=row.worker_id,
        session_id=row.session_id,
        name=row.name,
        hostname=row.hostname,
        state=row.state,
        celery_queue=row.celery_queue,
        queues=tuple(row.queues),
        slots=row.slots,
        cpus=row.cpus,
        memory_bytes=row.memory_bytes,
        gpus=row.gpus,
        runtimes=tuple(row.runtimes),
        renewed_at=row.renewed_at,
        silent=row.silent,
        draining=row.draining,
        cordoned=row.cordoned,
        running=tuple(row.running),
        placed=tuple(row.placed),
    )
