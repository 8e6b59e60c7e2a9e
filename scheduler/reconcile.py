"""Looks for what got stuck and sets it going again (I5). Bounds: each check runs once a poll."""

import logging
import time
from typing import Final

from scheduler import retry
from scheduler.holdback import HoldBack
from scheduler.placement import choose_moves
from tracking.errors import RowLocked
from tracking.failpoints import hit, is_broken
from tracking.settings import Settings
from tracking.states import MACHINERY_CAUSES
from tracking.store import Store
from tracking.store.queue import DueVerdict

_log = logging.getLogger(__name__)

# How long to judge before the leadership is renewed.
_JUDGE_S: Final = 1.0
# Different runs failing on one worker by the machinery's fault, in a row, before it gets nothing more (I6).
_CORDON_AFTER = 3


class Reconciler:
    """Verdicts on failed attempts, placements nobody took, sessions that fell silent."""

    def __init__(self, store: Store, settings: Settings) -> None:
        self._store = store
        self._settings = settings
        self._locked = HoldBack()
        # Attempts whose fault was counted and whose verdict is not written: a verdict that has to wait must not count it anew.
        self._counted: set[tuple[str, int]] = set()

    def judge(self, epoch: int) -> None:
        """Say what becomes of every run whose attempt has failed."""
        began = time.monotonic()
        due = self._store.queue.verdicts_due()
        self._counted &= {(run.run_id, run.attempt) for run in due}
        for run in due:
            if self._locked.holds(run.run_id):
                continue
            if time.monotonic() - began > _JUDGE_S:
                # Many are locked, perhaps: the leadership is renewed first, then those that were tried are left alone.
                return
            try:
                self._judge(epoch, run)
            except RowLocked as error:
                _log.warning("The verdict on run %s waits: %s", run.run_id, error.message)
                self._locked.put(run.run_id)

    def sweep_up(self, epoch: int, *, expiry_suspended: bool) -> None:
        """Take back overdue placements, and those that another worker has room for; give up sessions silent for too long."""
        if is_broken("no-reconciler"):
            return
        back = self._store.queue.take_back_overdue(epoch, self._settings.claim_timeout_s)
        if back:
            _log.warning("%d placed runs were not claimed in time and wait again.", len(back))
        self._move(epoch)
        if expiry_suspended:
            # A lock that is still held keeps it suspended: whoever waits for it is to have a whole lease after that.
            self._store.sessions.look_at_silent(self._settings.reassign_after_s)
            return
        for session_id in self._store.sessions.lose_silent(epoch, self._settings.reassign_after_s):
            _log.warning("Session %s has been silent for %g s; its attempts are lost.", session_id, self._settings.reassign_after_s)

    def _move(self, epoch: int) -> None:
        placed = self._store.queue.placed_long(self._settings.claim_timeout_s)
        if not placed:
            return
        for each in choose_moves(placed, self._store.queue.held(), self._store.sessions.workers()):
            self._store.queue.take_back(epoch, each, "It waited behind other runs while another worker had room.")

    def _judge(self, epoch: int, due: DueVerdict) -> None:
        self._count_fault(epoch, due)
        verdict = retry.decide(due, infra_retries=self._settings.infra_retries)
        if isinstance(verdict, retry.Again):
            self._store.queue.requeue(epoch, due, delay_s=verdict.delay_s, machinery=verdict.machinery, detail=verdict.detail)
        elif isinstance(verdict, retry.Cancelled):
            self._store.queue.cancel_verdict(epoch, due)
        else:
            self._store.queue.fail(epoch, due)
        hit("scheduler.judged")

    def _count_fault(self, epoch: int, due: DueVerdict) -> None:
        if due.cause not in MACHINERY_CAUSES or due.cause == "lost" or due.worker_id is None or (due.run_id, due.attempt) in self._counted:
            return
        reason = f"{_CORDON_AFTER} runs in a row could not be started here; the last: {due.detail}"
        if self._store.sessions.note_fault(epoch, due.worker_id, due.run_id, limit=_CORDON_AFTER, reason=reason):
            _log.warning("Worker %s is cordoned: %s", due.worker_id, reason)
        self._counted.add((due.run_id, due.attempt))
