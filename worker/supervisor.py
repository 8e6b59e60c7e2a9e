"""The supervisor: owns the slots and the attempts of this worker, and keeps them in step with the record (D3, D4).

It learns of placed runs from Celery's wake-ups and, whatever the broker does, from the answer to its renewals; it
stops what is no longer its own. Threads: one that renews, one that ships output, one that removes what nobody owns, one for each attempt.
"""

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Container, Mapping, Sequence
from typing import Final, cast

import msgspec

from tracking.errors import SweepError
from tracking.failpoints import hit
from tracking.ids import new_uuid
from tracking.records import ClaimedRun, Outcome, RenewalAnswer, SessionInfo
from tracking.settings import Settings
from tracking.states import Cause
from tracking.store import Store
from worker.attempt import Work
from worker.celery_app import Released, RunFailed, Window
from worker.errors import RECORD_AWAY, Displaced, EngineAway, Exhausted, WorkerError
from worker.folders import attempt_folders, other_runs, remove_attempt
from worker.lack import telling_lack
from worker.runtimes.base import AttemptKey, Runtime
from worker.runtimes.process import is_alive
from worker.slots import Slots
from worker.surroundings import Surroundings

_log = logging.getLogger(__name__)

_SHIP_S: Final = 0.5
_TELL_STARTED_S: Final = 1.0
# Without a broker the worker looks for itself: often while runs come and go, rarely when idle.
_LOOK_BUSY_S: Final = 0.02
_LOOK_IDLE_S: Final = 0.5
_BUSY_FOR_S: Final = 3.0
_LAST_WORD_S: Final = 5.0
_BEGIN_AGAIN_S: Final = 1.0
"""How soon to try again what no thread could be had for."""
_SWEEP_S: Final = 60.0
"""How often to look for containers, processes and folders that nobody owns: what a failed start or a tidying up that failed has left."""


class Supervisor:
    """One worker's runs. `run` is the renewal loop and belongs to one thread; the rest may be called from any."""

    def __init__(
        self,
        settings: Settings,
        info: SessionInfo,
        *,
        store: Store,
        ingest: Store,
        surroundings: Surroundings,
        runtimes: Mapping[str, Runtime],
        connect_engine: Callable[[], Runtime],
        has_broker: bool,
    ) -> None:
        """Make it; `run` begins.

        Args:
            store: for claims, renewals and reports.
            ingest: for what attempts print, so that nothing of the former waits behind it.
            runtimes: `process`, and `docker` where there is a container engine.
            connect_engine: makes the latter, should an attempt be found that needs it; raises EngineAway.
        """
        self.settings = settings
        self.store = store
        self.ingest = ingest
        self.slots = Slots(info.slots)
        self.surroundings = surroundings
        self.host_incarnation = info.host_incarnation
        self.window: Window
        self._info = info
        self._runtimes = dict(runtimes)
        self._connect_engine = connect_engine
        self._has_broker = has_broker
        self._works: dict[str, Work] = {}
        self._left: set[AttemptKey] = set()
        self._unadopted: list[tuple[Work, ClaimedRun]] = []
        self._unbegun: list[Callable[[], None]] = []
        self._is_exhausted = False
        self._lock = threading.Lock()
        self._connecting = threading.Lock()
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._active_at = 0.0
        self._is_away = False
        self._strangers: set[tuple[str, int]] = set()
        self._renewed_at = 0.0
        self._is_draining = False
        self._is_displaced = False

    # -- for attempts ---------------------------------------------------------------------------------------

    @property
    def session_id(self) -> str:
        """The current session."""
        return self._info.session_id

    @property
    def worker_id(self) -> str:
        """Who this worker is."""
        return self._info.worker_id

    @property
    def is_stopping(self) -> bool:
        """Whether the worker is going away."""
        return self._stopping.is_set()

    def wait_stopping(self, timeout_s: float) -> bool:
        """Wait; True as soon as the worker is going away."""
        return self._stopping.wait(timeout_s)

    def note_activity(self) -> None:
        """Runs come and go: without a broker, look more often."""
        self._active_at = time.monotonic()
        if not self._hears:
            self._wake.set()

    def wake_scheduler(self) -> None:
        """Tell the scheduler that something ended. Its poll finds out anyway."""
        try:
            # Not on the claims' connection: the next one is in a hurry.
            self.ingest.wake()
        except RECORD_AWAY as error:
            _log.debug("The scheduler was not woken: %s", error)

    def runtime_of(self, claimed: ClaimedRun) -> Runtime:
        """What runs it: a container where the run asks for an image, else a process.

        Raises:
            EngineAway: there was no container engine when the worker started, and there still is none.
        """
        return self._engine() if claimed.launch.resources.image else self._runtimes["process"]

    def _engine(self) -> Runtime:
        # Under a lock of its own: an engine that hangs must not keep the renewals from their work.
        with self._connecting:
            if "docker" not in self._runtimes:
                self._runtimes["docker"] = self._connect_engine()
            return self._runtimes["docker"]

    def forget(self, work: Work) -> None:
        """An attempt is over here; what it leaves for the next life of this worker, or for a newer session of it, is still held."""
        with self._lock:
            if work.claimed is not None and not work.is_over:
                self._left.add((work.run_id, work.claimed.attempt))
            if self._works.get(work.run_id) is work:
                del self._works[work.run_id]

    # -- wake-ups -------------------------------------------------------------------------------------------

    def handle(self, run_id: str, placement: int) -> str | None:
        """A Celery task: take the run and wait for as long as it lasts.

        Raises:
            Released: the worker goes away; the run does not.
            RunFailed: how it failed, for Flower.
        """
        work = self._attend(run_id, placement)
        if work is None:
            return "not ours"
        work.done.wait()
        if work.released and work.outcome is None:
            raise Released
        if work.refused or work.outcome is None:
            return "not ours"
        if work.outcome.verdict == "failed":
            raise RunFailed(f"{work.outcome.cause}: {work.outcome.detail}")
        return str(work.outcome.cause)

    def _attend(self, run_id: str, placement: int) -> Work | None:
        """The work that a message is about, taken now or before; None if this placement is over."""
        while not self._stopping.is_set():
            work = self._take(run_id, placement, announced=True)
            if work is not None:
                return work
            with self._lock:
                known = self._works.get(run_id)
            if known is None and self._is_draining:
                break
            if known is None:
                continue
            if known.placement > placement:
                return None
            if known.placement == placement:
                if known.attend():
                    return known
                break
            # Placed here anew while an earlier attempt of it is on its way out.
            known.done.wait()
        raise Released

    def _take(self, run_id: str, placement: int, *, announced: bool) -> Work | None:
        """Begin to work on a placed run; None if there is nothing to begin.

        Raises:
            Released: there is no thread to do it. It stays placed here, and the next renewal that finds one takes it.
        """
        with self._lock:
            known = self._works.get(run_id)
            # A repeated, delayed or forged message about a run we have is nothing new.
            if self._stopping.is_set() or self._is_draining or known is not None:
                return None
            work = self._works[run_id] = Work(self, run_id, placement, announced=announced)
        try:
            with telling_lack():
                work.begin()
        except Exhausted as error:
            self._note_exhausted(error)
            # Nobody works on it: it must not be taken for known.
            self.forget(work)
            work.release()
            raise Released from error
        return work

    def _begin(self) -> None:
        """Begin what the machine gives a thread for by now; the rest waits for the next round."""
        try:
            with telling_lack():
                # Attempts first: they may have ended, or be asked to.
                while self._unadopted:
                    work, claimed = self._unadopted[0]
                    work.adopt(claimed)
                    del self._unadopted[0]
                while self._unbegun:
                    self._unbegun[0]()
                    del self._unbegun[0]
        except Exhausted as error:
            self._note_exhausted(error)
        else:
            self._is_exhausted = False

    # -- life -----------------------------------------------------------------------------------------------

    def stop(self) -> None:
        """Ask `run` to return soon; safe in a signal handler."""
        self._stopping.set()
        self._wake.set()

    def run(self) -> None:
        """Renew, look, reconcile until `stop`; then let go of everything and leave the attempts running.

        Raises:
            Displaced: another process runs under this worker's identity, and has taken over.
        """
        if not self._open_session():
            return
        sweeping = threading.Thread(target=self._sweep_loop, name="sweep", daemon=True)
        shipping = threading.Thread(target=self._ship_loop, name="ship", daemon=True)
        self._unbegun += [sweeping.start, shipping.start, self.window.start]
        renew_at = time.monotonic() + self.settings.renew_s
        while not self._stopping.is_set():
            self._begin()
            self._wake.wait(self._pause(renew_at))
            self._wake.clear()
            if self._stopping.is_set():
                break
            if time.monotonic() >= renew_at:
                renew_at = time.monotonic() + self.settings.renew_s
                self._renew()
                # However slow Postgres is: between two renewals claims and reports get the connection.
                renew_at = max(renew_at, time.monotonic() + min(self.settings.watch_s, self.settings.renew_s))
            elif self._should_look():
                self._look()
        self._let_go(shipping)
        if self._is_displaced:
            raise Displaced("Another worker process runs under this identity and has taken over its attempts; this one ends.")

    def _pause(self, renew_at: float) -> float:
        until_renewal = max(0.0, renew_at - time.monotonic())
        if self._unadopted or self._unbegun:
            return min(until_renewal, _BEGIN_AGAIN_S)
        if self._hears:
            return min(until_renewal, self.settings.watch_s) if self._works else until_renewal
        is_busy = time.monotonic() - self._active_at < _BUSY_FOR_S and self.slots.n_free > 0
        return min(until_renewal, _LOOK_BUSY_S if is_busy else _LOOK_IDLE_S)

    def _should_look(self) -> bool:
        return not self._hears or bool(self._works)

    @property
    def _hears(self) -> bool:
        """Whether wake-ups would reach us: there is a broker, and it can be heard just now."""
        return self._has_broker and self.window.is_healthy

    def _open_session(self) -> bool:
        """Open a session, as soon as Postgres lets us, and adopt what is still ours."""
        while not self._stopping.is_set():
            try:
                ours = self.store.sessions.open(self._info, lease_s=self.settings.lease_s)
            except RECORD_AWAY as error:
                self._note_away(error)
                self._stopping.wait(1.0)
                continue
            self._note_back()
            _log.info("Session %s is open; %d attempts to adopt.", self.session_id, len(ours))
            self._renewed_at = time.monotonic()
            with self._lock:
                adopted = [(Work(self, c.run_id, c.placement, announced=False), c) for c in ours if c.run_id not in self._works]
                self._works.update((work.run_id, work) for work, _ in adopted)
            for work, claimed in adopted:
                # Known from now on, also if no thread can be had for it yet.
                work.claimed = claimed
            self._unadopted += adopted
            self._begin()
            self.wake_scheduler()
            return True
        return False

    # -- what nobody owns -------------------------------------------------------------------------------------

    def _sweep_loop(self) -> None:
        while not self._stopping.is_set():
            # Past its lease this worker may not be the one to judge: another session of it may own by now what we know nothing of.
            if time.monotonic() - self._renewed_at < self.settings.lease_s:
                try:
                    self._sweep()
                except Exception:  # noqa: BLE001 -- a bug of ours must not be the last time that this worker has looked
                    _log.exception("What nobody owns could not be looked for")
            self._stopping.wait(_SWEEP_S)

    def _sweep(self) -> None:
        """End attempts that nobody owns, and remove the folders of those that have ended while nobody could tidy up."""
        held = _Held(self)
        for runtime in self._reachable_runtimes():
            try:
                for run_id, attempt in runtime.sweep_orphans(held):
                    _log.warning("Ended attempt %d of run %s, which was no longer ours.", attempt, run_id)
                for run_id, attempt in runtime.sweep_home(self._abandoned):
                    _log.warning("Ended attempt %d of run %s, which another worker of this home had left and the record has given up.", attempt, run_id)
            except (WorkerError, OSError) as error:
                _log.warning("What this worker no longer owns could not be looked for: %s", error)
        folders = self.surroundings.folders
        others = {key: folder for runs in other_runs(folders.runs) for key, folder in attempt_folders(runs)}
        over = self._abandoned(list(others)) if others else ()
        left = [(key, folder) for key, folder in folders.attempts() if key not in held]
        for key, folder in left + [(key, folder) for key, folder in others.items() if key in over]:
            # What is odd about one must not keep the others.
            try:
                if not is_alive(folder):
                    remove_attempt(folder)
            except OSError as error:
                _log.warning("The folder of attempt %d of run %s can't be removed: %s", key[1], key[0], error)

    def _abandoned(self, keys: Sequence[AttemptKey]) -> Container[AttemptKey]:
        try:
            return self.ingest.attempts.abandoned(keys)
        except RECORD_AWAY as error:
            self._note_away(error)
            return ()

    def _reachable_runtimes(self) -> list[Runtime]:
        # A machine that never had an engine has nothing to look for there; one whose engine is back has.
        with contextlib.suppress(EngineAway):
            self._engine()
        if len(self._info.runtimes) < len(self._runtimes):
            self._offer()
        return list(self._runtimes.values())

    def _offer(self) -> None:
        """Tell the scheduler of a container engine that came up after this worker had started."""
        offered = tuple(self._runtimes)
        try:
            self.ingest.sessions.offer(self.session_id, offered)
        except RECORD_AWAY as error:
            self._note_away(error)
            return
        self._info = msgspec.structs.replace(self._info, runtimes=offered)
        _log.info("A container engine answers by now: runtimes %s.", ", ".join(offered))
        self.wake_scheduler()

    def holds(self, run_id: str, attempt: int) -> bool:
        """Whether an attempt is in hand here: perhaps about to be claimed, started or tidied away this very moment."""
        with self._lock:
            work = self._works.get(run_id)
            return (run_id, attempt) in self._left or (work is not None and (work.claimed is None or work.claimed.attempt == attempt))

    def _renew(self) -> None:
        try:
            answer = self.store.sessions.renew(self.session_id, lease_s=self.settings.lease_s)
        except RECORD_AWAY as error:
            self._note_away(error)
            return
        self._note_back()
        hit("worker.renewed")
        if answer is None:
            self._start_over()
        else:
            self._renewed_at = time.monotonic()
            self._reconcile(answer)

    def _look(self) -> None:
        try:
            answer = self.store.sessions.look(self.session_id)
        except RECORD_AWAY as error:
            self._note_away(error)
            return
        if answer is None:
            self._start_over()
        else:
            self._reconcile(answer)

    def _reconcile(self, answer: RenewalAnswer) -> None:
        """Both ways: claim what was placed and never announced, stop what is no longer ours."""
        self._is_draining = answer.draining
        owned = {(run.run_id, run.attempt): run for run in answer.owned}
        for work in self._current():
            claimed = work.claimed
            if claimed is None or work.phase not in ("preparing", "running"):
                continue
            asked = owned.pop((work.run_id, claimed.attempt), None)
            if asked is None:
                self._maybe_superseded(work)
            elif asked.cancel:
                work.stop("cancel")
            elif asked.prune:
                work.stop("prune")
        with contextlib.suppress(Released):
            for placed in answer.placed:
                self._take(placed.run_id, placed.placement, announced=False)
        self._report_strangers(set(owned))

    def _maybe_superseded(self, work: Work) -> None:
        # The answer may be older than a claim that has just been committed; attempts past that are judged by the fence.
        if work.is_superseded or work.claimed_at is None or time.monotonic() - work.claimed_at <= self.settings.renew_s:
            return
        _log.warning("Run %s is no longer ours: stopping it.", work.run_id)
        # Once: its own thread asks again until the command has ended.
        work.stop("superseded")

    def _report_strangers(self, unknown: set[tuple[str, int]]) -> None:
        """Attempts that the record thinks run here and of which we know nothing, twice in a row: they do not."""
        known = {work.run_id for work in self._current()}
        unknown = {key for key in unknown if key[0] not in known}
        for run_id, attempt in unknown & self._strangers:
            outcome = Outcome("failed", Cause.LOST, "The worker knows nothing of this attempt.")
            try:
                self.store.attempts.finish(run_id, attempt, self.session_id, outcome, finish_key=new_uuid())
            except RECORD_AWAY as error:
                self._note_away(error)
        self._strangers = unknown

    def _start_over(self) -> None:
        """Our session is over. If it was given up, everything of it is somebody else's now: stop it all, begin anew.

        A newer session of this very worker has adopted the attempts instead: they are not ours to stop.
        """
        try:
            state = self.store.sessions.state(self.session_id)
        except RECORD_AWAY as error:
            self._note_away(error)
            return
        if state == "fenced":
            _log.error("Session %s was fenced by a newer one of this worker: leaving its attempts to that one.", self.session_id)
            self._is_displaced = True
            self.stop()
            return
        _log.warning("Session %s is no longer valid: stopping its attempts and opening a new one.", self.session_id)
        self._drop_unadopted()
        for work in self._current():
            work.stop("superseded")
        for work in self._current():
            work.done.wait(self.settings.stop_grace_s + 10)
        self._info = _with_new_session(self._info)
        self._open_session()

    def _drop_unadopted(self) -> None:
        """Let go of attempts that no thread could be had for: what runs of them is ended by the next look for what nobody owns."""
        with self._lock:
            for work, _ in self._unadopted:
                self._works.pop(work.run_id, None)
        self._unadopted.clear()

    def is_displaced(self) -> bool:
        """Whether a newer session of this worker has taken over; taken for true when there is no telling."""
        try:
            return self._is_displaced or self.store.sessions.state(self.session_id) == "fenced"
        except RECORD_AWAY:
            return True

    def _let_go(self, shipping: threading.Thread) -> None:
        self.slots.close()
        works = self._current()
        for work in works:
            work.call_off()
        deadline = time.monotonic() + _LAST_WORD_S
        for work in works:
            # Claims and reports under way are given a moment: what is committed need not be found out later.
            if work.phase in ("claiming", "preparing", "finishing"):
                work.done.wait(max(0.0, deadline - time.monotonic()))
        for work in works:
            work.release()
        self.window.stop()
        if shipping.ident is not None:
            shipping.join(_LAST_WORD_S)
        try:
            self.store.sessions.close(self.session_id)
            self.store.wake()
        except RECORD_AWAY as error:
            _log.warning("The session could not be closed and will be found silent: %s", error)
        for runtime in list(self._runtimes.values()):
            runtime.close()
        n_running = sum(work.outcome is None and work.phase == "running" for work in works)
        _log.info("Worker stopped; %d attempts run on and are adopted at the next start.", n_running)

    # -- output ---------------------------------------------------------------------------------------------

    def _ship_loop(self) -> None:
        while not self._stopping.wait(_SHIP_S):
            for work in self._current():
                try:
                    self._ship(work)
                except Exception:  # noqa: BLE001 -- what one attempt brings about must not end it for all others
                    _log.exception("Run %s: its output could not be sent; trying again", work.run_id)
        for work in self._current():
            self._ship(work)

    def _ship(self, work: Work) -> None:
        claimed = work.claimed
        if claimed is None or work.phase != "running":
            return
        try:
            if not work.told_started and work.started_at is not None and time.monotonic() - work.started_at > _TELL_STARTED_S:
                self.ingest.attempts.started(work.run_id, claimed.attempt, self.session_id, dict(work.describe()))
                work.told_started = True
            if work.output is not None:
                work.output.ship(self.ingest, claimed, is_final=False)
        except RECORD_AWAY as error:
            self._note_away(error)
        except SweepError as error:
            _log.debug("Run %s: output was refused: %s", work.run_id, error)
        except OSError as error:
            # Its folder is the trial's to lock; once it has ended it is opened again.
            _log.debug("Run %s: its output can't be read now: %s", work.run_id, error)

    def _current(self) -> list[Work]:
        with self._lock:
            return list(self._works.values())

    def _note_away(self, error: SweepError) -> None:
        if not self._is_away:
            _log.warning("%s Runs go on; trying again.", error)
        self._is_away = True

    def _note_exhausted(self, error: SweepError) -> None:
        if not self._is_exhausted:
            _log.warning("%s What runs goes on; trying again.", error)
        self._is_exhausted = True

    def _note_back(self) -> None:
        if self._is_away:
            _log.warning("Postgres is back.")
        self._is_away = False


def _with_new_session(info: SessionInfo) -> SessionInfo:
    return msgspec.structs.replace(info, session_id=new_uuid())


class _Held:
    """The attempts in hand, as of the moment of asking: what is found to run is looked up afterwards, so none is missed that has just begun."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor

    def __contains__(self, key: object) -> bool:
        run_id, attempt = cast(AttemptKey, key)
        return self._supervisor.holds(run_id, attempt)
