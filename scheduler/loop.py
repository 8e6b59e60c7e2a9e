"""The scheduler's loop: wakes on NOTIFY with a poll behind it, thinks, writes, and only then tells workers."""

import logging
import threading
import time

from scheduler.advance import Advance
from scheduler.dispatch import Dispatcher, WakeUp
from scheduler.leader import Seat
from scheduler.placement import choose_placements
from scheduler.reconcile import Reconciler
from tracking.errors import Contradiction, DatabaseAway, RowLocked, SchemaOutdated
from tracking.failpoints import hit
from tracking.records import WorkerView
from tracking.settings import Settings
from tracking.store import Store
from tracking.store.leader import NotLeader
from tracking.store.listener import Listener

_log = logging.getLogger(__name__)


class Scheduler:
    """One scheduler, leading or standing by."""

    def __init__(self, store: Store, settings: Settings, dispatcher: Dispatcher, listener: Listener) -> None:
        self._store = store
        self._settings = settings
        self._dispatcher = dispatcher
        self._listener = listener
        self._seat = Seat(store, settings)
        self._advance = Advance(store)
        self._reconciler = Reconciler(store, settings)
        self._stopping = threading.Event()
        self._sweep_up_at = 0.0
        self._is_away = False

    def stop(self) -> None:
        """Ask `run` to return soon; safe in a signal handler."""
        self._stopping.set()
        self._listener.interrupt()

    def run(self) -> None:
        """Lead or stand by until `stop`."""
        while not self._stopping.is_set():
            self._tick_safely()
            # Every slot has its next run already: thinking about several ends at once costs no slot anything.
            self._stopping.wait(self._advance.breath_s)
            if not self._stopping.is_set():
                self._listener.wait(self._settings.poll_s)
        try:
            self._seat.resign()
        except DatabaseAway:
            _log.warning("Postgres is away; the leadership runs out by itself.")

    def _tick_safely(self) -> None:
        try:
            self.tick()
        except NotLeader:
            _log.warning("Another scheduler leads now; standing by.")
            self._seat.lose()
            self._advance.forget()
        except Contradiction as error:
            _log.warning("%s Reading everything again.", error)
            self._advance.forget()
        except (DatabaseAway, SchemaOutdated) as error:
            # The commit may or may not have happened: what we think we know is dropped and read again.
            self._advance.forget()
            self._seat.note_outage()
            if not self._is_away:
                _log.warning("%s Trying again.", error)
            self._is_away = True
        except Exception:  # noqa: BLE001 -- see below
            # A bug in one place must not end the scheduling of everything else; the log has it, the next poll tries again.
            _log.exception("Unexpected error; reading everything again")
            self._advance.forget()
            self._stopping.wait(self._settings.poll_s)
        else:
            if self._is_away:
                _log.warning("Postgres is back.")
            self._is_away = False

    def tick(self) -> None:
        """Think until there is nothing left to do."""
        led = self._seat.epoch
        if not self._seat.hold() or self._seat.epoch is None:
            return
        if self._seat.epoch != led:
            _log.info("Leading (epoch %d).", self._seat.epoch)
            self._advance.forget()
        while not self._stopping.is_set() and self._seat.hold() and self._seat.epoch is not None:
            if not self._think(self._seat.epoch):
                return

    def _think(self, epoch: int) -> bool:
        """One round; whether another would find more to do. What others do meanwhile wakes us again."""
        if time.monotonic() >= self._sweep_up_at:
            self._sweep_up(epoch)
            self._advance.check()
            self._sweep_up_at = time.monotonic() + self._settings.poll_s
        self._reconciler.judge(epoch)
        workers = self._store.sessions.workers()
        more = self._advance.step(epoch, workers)
        self._place(epoch, workers)
        return more

    def _sweep_up(self, epoch: int) -> None:
        try:
            self._reconciler.sweep_up(epoch, expiry_suspended=self._seat.expiry_suspended)
        except RowLocked as error:
            # Where we can't write, a worker can't either: it is to speak first once the lock is gone (I4).
            _log.warning("Sessions are not looked at: %s", error.message)
            self._seat.note_outage()

    def _place(self, epoch: int, workers: list[WorkerView]) -> None:
        waiting = self._store.queue.waiting({queue for worker in workers for queue in worker.queues})
        if not waiting:
            return
        chosen = choose_placements(waiting, self._store.queue.held(), workers, self._advance.short_sweeps)
        placed = self._store.queue.place(epoch, chosen)
        if left_out := {p.run_id for p in chosen} - {p.run_id for p in placed}:
            # Changed, or held by somebody else, perhaps for long: the seats are for others then.
            stuck = {run.sweep_id for run in waiting if run.run_id in left_out}
            others = [run for run in waiting if run.sweep_id not in stuck]
            placed += self._store.queue.place(epoch, choose_placements(others, self._store.queue.held(), workers, self._advance.short_sweeps))
        hit("scheduler.placed")
        queues = {worker.session_id: worker.celery_queue for worker in workers}
        # After the commit: a message about a placement that was rolled back would be a lie.
        expires_s = 4 * self._settings.claim_timeout_s
        self._dispatcher.send_many(WakeUp(p.run_id, p.placement, queues[p.session_id], expires_s) for p in placed)
        hit("scheduler.sent")
