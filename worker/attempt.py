"""One attempt's life in this worker: slot, claim, preparation, start, end, report. One thread each."""

import contextlib
import itertools
import logging
import math
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

import msgspec

from tracking.errors import SweepError
from tracking.failpoints import hit
from tracking.ids import attempt_token, new_secret, new_uuid, token_hash
from tracking.records import ClaimedRun, Outcome
from tracking.states import Cause
from tracking.store.attempts import FinishAnswer
from worker.errands import AWAY_S, CalledOff, keep_trying
from worker.errors import RECORD_AWAY, EngineAway, Exhausted, LaunchFailed, WorkerError
from worker.folders import lack_of_room, read_file, take_back
from worker.output import Output
from worker.runtimes.base import AttemptSpec, ExitReport, Handle, Runtime, StopReason, outcome_of
from worker.runtimes.process import is_alive
from worker.surroundings import expand, heed_wandb

if TYPE_CHECKING:
    from worker.supervisor import Supervisor

T = TypeVar("T")

_log = logging.getLogger(__name__)

_RETRY_S: Final = (0.2, 0.5, 1.0, 2.0, 5.0)
_SHORT: Final = (OSError, MemoryError)
"""What this machine may be short of: descriptors, memory, room, rights. That passes, and says nothing about the command, which may run on."""
_START_S: Final = 10.0
"""For how long to try to start a command here; another worker may be better off."""
_KILLED_S: Final = 30.0
_STOP_AGAIN_S: Final = 10.0
"""How often a stop is asked for again until the command has ended: it may have been lost, as when a container engine was away."""
_TELL_READING_S: Final = 2.0
"""How often to tell how far reading the output of an ended command has come; most is read sooner."""
_BEGUN: Final = "begun"
"""Name of the file that keeps when the command was started, where its time is limited."""


class _Unfinished(Exception):
    """The worker goes away and the last word on an attempt is not spoken: its next start goes on from what lies here."""


class Work:
    """A run that this worker was given, from the wake-up to the report.

    Attributes:
        announced: whether a Celery task waits on it, and shows it.
        done: set when it is over here, whatever that means for the run.
        is_over: whether nothing of it is needed any more, here or by a later life of this worker: what it held may go.
        phase: `waiting` for a slot, `claiming`, `preparing`, `running`, `finishing`.
    """

    def __init__(self, supervisor: "Supervisor", run_id: str, placement: int, *, announced: bool) -> None:
        self._supervisor = supervisor
        self.run_id = run_id
        self.placement = placement
        self.announced = announced
        self.claimed: ClaimedRun | None = None
        self.output: Output | None = None
        self.done = threading.Event()
        self.released = False
        self.refused = False
        self.outcome: Outcome | None = None
        self.is_over = False
        self.claimed_at: float | None = None
        self.started_at: float | None = None
        self.told_started = False
        self.phase = "waiting"
        self._handle: Handle | None = None
        self._stop_reason: StopReason | None = None
        self._lock = threading.Lock()
        self._quiet = False
        self._is_told = False
        # Ends what prepares the attempt; and what waits for an engine that may hold an adopted one.
        self._called_off = threading.Event()
        self._is_let_go = threading.Event()

    # -- asked from outside ---------------------------------------------------------------------------------

    def begin(self) -> None:
        """Claim and run it, in a thread of its own."""
        threading.Thread(target=self._guarded, args=(self._claim_and_run,), name=f"run-{self.run_id[:8]}", daemon=True).start()

    def adopt(self, claimed: ClaimedRun) -> None:
        """Go on with an attempt that an earlier life of this worker had claimed."""
        self.claimed_at = time.monotonic()
        self.claimed = claimed
        threading.Thread(target=self._guarded, args=(self._go_on,), name=f"run-{self.run_id[:8]}", daemon=True).start()

    def stop(self, reason: StopReason) -> None:
        """Stop the attempt; the first reason stands. `superseded` also means: report nothing."""
        with self._lock:
            if reason == "superseded":
                self._quiet = True
            if self._stop_reason is None:
                self._stop_reason = reason
            handle = self._handle
        self._called_off.set()
        if reason == "superseded":
            self._is_let_go.set()
        if handle is not None:
            self._ask_to_stop(handle, reason)

    def call_off(self) -> None:
        """The worker stops: what is not started yet is not started any more."""
        self._called_off.set()
        self._is_let_go.set()

    def release(self) -> None:
        """The worker stops: whoever waits here waits no longer, the attempt goes on without us."""
        self.released = True
        self.done.set()

    def attend(self) -> bool:
        """A Celery task comes to wait, and shows the end instead of us; False if another one does, or if it was shown already."""
        with self._lock:
            if self._is_told or self.announced:
                return False
            self.announced = True
            return True

    @property
    def is_superseded(self) -> bool:
        """Whether it was stopped for being somebody else's by now: nothing of it is reported."""
        return self._quiet

    @property
    def is_live(self) -> bool:
        """Whether the attempt is claimed and not reported yet."""
        return self.claimed is not None and not self.done.is_set()

    def describe(self) -> dict[str, str | int]:
        """Where it runs, for the record."""
        return {} if self._handle is None else self._handle.describe()

    # -- its life -------------------------------------------------------------------------------------------

    def _guarded(self, act: Callable[[], None]) -> None:
        try:
            try:
                act()
            except _Unfinished:
                raise
            except Exception:  # noqa: BLE001 -- the thread's last line of defence
                # A bug of ours must not take the slot with it, nor leave the run without an end.
                _log.exception("Run %s: unexpected error", self.run_id)
                self._patiently(self._break_off, lack=(Exception,))
        except _Unfinished:
            self.released = True
            _log.warning("Run %s: the worker stops before this attempt could be settled; its next start does that.", self.run_id)
        finally:
            try:
                if self.is_over:
                    self._tidy()
            finally:
                self._supervisor.forget(self)
                self.done.set()

    def _break_off(self) -> None:
        """End an attempt that we can't go on with. Nobody watches its command any more: it must not run beside the next attempt."""
        if self.claimed is None or self.outcome is not None or self._supervisor.is_stopping:
            return
        if self._handle is None:
            try:
                self._handle = self._find(self.claimed, self._folder)
            except LaunchFailed as error:
                _log.warning("Run %s: what became of its container is not known: %s", self.run_id, error)
        if self._handle is not None:
            self._put_down(self._handle)
        self._report(Outcome("failed", Cause.LAUNCH, "The worker made an error; its log tells more."))
        self._tell_ended()

    def _put_down(self, handle: Handle) -> None:
        """Kill it, and see that it has ended."""
        handle.kill()
        while handle.wait(_KILLED_S) is None:
            if self._supervisor.is_stopping:
                raise _Unfinished
            handle.kill()

    def _ask_to_stop(self, handle: Handle, reason: StopReason) -> None:
        try:
            handle.stop(reason)
        except _SHORT as error:
            _log.warning("Run %s: it can't be stopped just now, and will be asked again: %s", self.run_id, error)

    def _patiently(self, act: Callable[[], T], *, for_s: float = math.inf, lack: tuple[type[Exception], ...] = _SHORT) -> T:
        """Do it, again and again for as long as this machine is short of something.

        Raises:
            OSError: or a MemoryError, for longer than `for_s`.
            _Unfinished: the worker stops first.
        """
        deadline = time.monotonic() + for_s
        for n_tries in itertools.count():
            try:
                return act()
            except _Unfinished:
                raise
            except lack as error:
                if time.monotonic() >= deadline:
                    raise
                self._endure(error, n_tries)
        raise AssertionError("counting has no end")

    def _endure(self, error: Exception, n_tries: int) -> None:
        """Give what this machine lacks the time to come back, and take back what can be taken."""
        if n_tries == 0:
            _log.warning("Run %s: %s. Trying again.", self.run_id, str(error) or "out of memory")
        if isinstance(error, PermissionError) and self.claimed is not None:
            take_back(self._folder)
        if self._supervisor.wait_stopping(_RETRY_S[min(n_tries, len(_RETRY_S) - 1)]):
            raise _Unfinished

    @property
    def _folder(self) -> Path:
        return self._supervisor.surroundings.folders.path(self.run_id, self._require_claimed().attempt)

    def _claim_and_run(self) -> None:
        slots = self._supervisor.slots
        if not slots.take():
            self.released = True
            return
        try:
            secret = new_secret()
            self.phase = "claiming"
            hit("worker.claiming")
            self.claimed = self._claim(secret)
            if self.claimed is None:
                self.refused = True
                return
            hit("worker.claimed")
            self.claimed_at = time.monotonic()
            self._supervisor.note_activity()
            self.phase = "preparing"
            if not self.announced:
                self._supervisor.window.publish_started(self.run_id, self.placement)
            outcome = self._run(self.claimed, attempt_token(self.run_id, self.claimed.attempt, secret))
        finally:
            # Its command has ended: the next run's may start while this one's outcome is being written.
            slots.free()
        self._end(outcome)
        self._tell_ended()

    def _go_on(self) -> None:
        claimed = self._require_claimed()
        slots = self._supervisor.slots
        slots.take_over()
        try:
            self.phase = "running"
            self._supervisor.window.publish_started(self.run_id, self.placement)
            outcome = self._take_up(claimed, self._folder)
        finally:
            slots.free()
        self._end(outcome)
        self._tell_ended()

    def _take_up(self, claimed: ClaimedRun, folder: Path) -> Outcome:
        """How the command ends that an earlier life of this worker had started, if it had."""
        try:
            handle = self._find(claimed, folder)
        except LaunchFailed as error:
            return Outcome("failed", Cause.LOST, f"The worker was restarted, and what became of its container is not known: {error.message}")
        if handle is None:
            return Outcome("failed", Cause.LOST, "The worker was restarted, most likely before the command had started: there is no trace of it.")
        # Known before all else: whatever fails from here on, there is somebody to be stopped.
        with self._lock:
            self._handle = handle
        self.output = self._patiently(lambda: Output.resume(folder, claimed.launch, self._supervisor.settings.log_max_bytes))
        return self._follow(claimed, handle, since=self._patiently(lambda: _begun_at(folder)))

    def _find(self, claimed: ClaimedRun, folder: Path) -> Handle | None:
        """What an earlier life of this worker had started, if it had.

        A container engine that is away says nothing about its containers: it is asked until it is back, or for as long as a worker may be silent.
        Nor does a lack of descriptors, or a folder that is locked, say anything about a process.

        Raises:
            LaunchFailed: there was no answer.
        """
        supervisor = self._supervisor
        try:
            return keep_trying(
                lambda: self._patiently(lambda: supervisor.runtime_of(claimed).adopt(self.run_id, claimed.attempt, folder)),
                self._is_let_go,
                away=LaunchFailed,
                for_s=supervisor.settings.reassign_after_s,
            )
        except CalledOff:
            if self._quiet:
                return None
            raise _Unfinished from None

    def _claim(self, secret: str) -> ClaimedRun | None:
        """Claim until the answer is known: the same claim id gets the same answer."""
        claim_id = new_uuid()
        store = self._supervisor.store
        return self._until_known(
            lambda: store.attempts.claim(self.run_id, self.placement, self._supervisor.session_id, claim_id=claim_id, secret_hash=token_hash(secret))
        )

    def _run(self, claimed: ClaimedRun, token: str) -> Outcome:
        try:
            spec = self._prepare(claimed, token)
            hit("worker.prepared")
            self.output = Output(spec.folder, claimed.launch, self._supervisor.settings.log_max_bytes)
            handle = self._start(claimed, spec)
            hit("worker.started")
        except CalledOff:
            return self._never_started()
        except WorkerError as error:
            return Outcome("failed", error.cause, f"{error.message} {error.hint}".strip())
        except OSError as error:
            return Outcome("failed", Cause.LAUNCH, f"The attempt could not be prepared on this worker: {error}")
        if claimed.launch.trial_time_s is not None:
            # A full disk costs no more than time given anew after a restart.
            with contextlib.suppress(OSError):
                (spec.folder / _BEGUN).write_text(repr(time.monotonic()), encoding="ascii")
        return self._follow(claimed, handle, since=time.monotonic())

    def _never_started(self) -> Outcome:
        with self._lock:
            reason = self._stop_reason
        if reason is None:
            return Outcome("failed", Cause.LOST, "The worker was stopped before the command had started.")
        return Outcome("stopped", Cause.PRUNED if reason == "prune" else Cause.CANCELLED, "Stopped before its command was started.")

    def _start(self, claimed: ClaimedRun, spec: AttemptSpec) -> Handle:
        """Start the command. An engine that is away may have started it all the same: asked again, it gives the same container."""
        runtime = keep_trying(lambda: self._supervisor.runtime_of(claimed), self._called_off, away=EngineAway)
        try:
            # Asked again after whatever error: what has been started already is found, not started again.
            return self._patiently(
                lambda: keep_trying(lambda: runtime.start(spec, self._called_off), self._called_off, away=(EngineAway, Exhausted)), for_s=_START_S
            )
        except (WorkerError, CalledOff, *_SHORT):
            self._take_back(runtime, spec)
            raise

    def _take_back(self, runtime: Runtime, spec: AttemptSpec) -> None:
        """End what a start that failed, or whose answer was lost, has left. What can't be reached now is ended by the next sweep."""
        try:
            handle = self._patiently(lambda: runtime.adopt(self.run_id, spec.attempt, spec.folder))
            if handle is not None:
                self._patiently(lambda: self._put_down(handle))
                self._handle = handle
        except WorkerError as error:
            _log.warning("Run %s: whether attempt %d has left something is not known yet: %s", self.run_id, spec.attempt, error)

    def _prepare(self, claimed: ClaimedRun, token: str) -> AttemptSpec:
        supervisor = self._supervisor
        folder, start = supervisor.surroundings.prepare_code(claimed, self._called_off)
        env_bin = supervisor.surroundings.prepare_environment(folder, claimed.launch, self._called_off)
        env = supervisor.surroundings.variables(claimed, token, folder, env_bin)
        return AttemptSpec(
            run_id=self.run_id,
            attempt=claimed.attempt,
            worker_id=supervisor.worker_id,
            host_incarnation=supervisor.host_incarnation,
            argv=expand(claimed.argv, env),
            env=env,
            cwd=start,
            folder=folder,
            resources=claimed.launch.resources,
            stop_grace_s=min(claimed.launch.stop_grace_s, supervisor.settings.stop_grace_s),
            gpu_ids=claimed.gpu_ids,
            mounts=supervisor.surroundings.mounts(claimed, folder),
        )

    def _follow(self, claimed: ClaimedRun, handle: Handle, *, since: float) -> Outcome:
        with self._lock:
            self._handle = handle
            reason = self._stop_reason
        self.phase = "running"
        self.started_at = since
        if reason is not None:
            self._ask_to_stop(handle, reason)
        report = self._await_end(handle, None if claimed.launch.trial_time_s is None else since + claimed.launch.trial_time_s)
        return self._patiently(lambda: self._judge(claimed, report), for_s=AWAY_S)

    def _judge(self, claimed: ClaimedRun, report: ExitReport) -> Outcome:
        """What its end means, by what it has left as well."""
        with self._lock:
            # What could not be noted down for lack of room is still known here.
            reason = report.stop_reason or self._stop_reason
        error_line = self.output.last_error_line() if self.output is not None and report.exit_status else ""
        outcome = self._blame_full_disk(outcome_of(report, stop_reason=reason, error_line=error_line))
        return heed_wandb(outcome, claimed.launch, self._folder)

    def _blame_full_disk(self, outcome: Outcome) -> Outcome:
        """A command that fails where nothing can be written any more is not to blame (I6)."""
        if outcome.cause != Cause.EXIT_STATUS:
            return outcome
        error = lack_of_room(self._folder)
        if error is None:
            return outcome
        return msgspec.structs.replace(outcome, cause=Cause.LAUNCH, detail=f"It could write no more on this worker: {error}; {outcome.detail}")

    def _await_end(self, handle: Handle, deadline: float | None) -> ExitReport:
        """Wait, stop it when its time is over, and repeat a stop until it has ended."""
        n_failed = 0
        while True:
            left_s = _STOP_AGAIN_S if deadline is None else max(0.0, min(deadline - time.monotonic(), _STOP_AGAIN_S))
            try:
                report = handle.wait(left_s)
            except _SHORT as error:
                self._endure(error, n_failed)
                n_failed, report = n_failed + 1, None
            if report is not None:
                return report
            if deadline is not None and time.monotonic() >= deadline:
                deadline = None
                self.stop("timeout")
                continue
            with self._lock:
                reason = self._stop_reason
            if reason is not None:
                self._ask_to_stop(handle, reason)

    def _end(self, outcome: Outcome) -> None:
        """Ship what is left of the output, then report: an outcome must not overtake its metrics."""
        self.phase = "finishing"
        hit("worker.ended")
        if self._quiet:
            self.refused = self.is_over = True
            return
        if self.output is not None:
            try:
                outcome = self._read_out(self.output, outcome)
            except _SHORT as error:
                outcome = Outcome("failed", Cause.LAUNCH, f"Its output can't be read on this worker: {error}; {outcome.detail}")
        self._report(outcome)

    def _read_out(self, output: Output, outcome: Outcome) -> Outcome:
        """Ship what is left; the outcome with what that has shown.

        Raises:
            OSError: it can't be read, and could not be for minutes.
        """
        self._until_known(lambda: self._patiently(self._ship_rest, for_s=AWAY_S))
        if output.note:
            outcome = msgspec.structs.replace(outcome, detail=f"{outcome.detail} {output.note}".strip())
        if outcome.verdict == "succeeded":
            outcome = msgspec.structs.replace(outcome, printed=self._patiently(output.unasked, for_s=AWAY_S))
        return outcome

    def _ship_rest(self) -> None:
        """Ship it piece by piece; of what takes long, tell how far it has come."""
        if self.output is None:
            return
        claimed, supervisor = self._require_claimed(), self._supervisor
        tell_at = time.monotonic() + _TELL_READING_S
        while not self.output.ship(supervisor.ingest, claimed, is_final=True) and not self._quiet:
            if time.monotonic() >= tell_at:
                n_read, n_bytes = self.output.progress
                progress = {"output_read_bytes": n_read, "output_bytes": n_bytes}
                supervisor.ingest.attempts.note(self.run_id, claimed.attempt, supervisor.session_id, progress)
                tell_at = time.monotonic() + _TELL_READING_S

    def _report(self, outcome: Outcome) -> None:
        claimed = self._require_claimed()
        supervisor = self._supervisor
        finish_key = new_uuid()
        answer = self._until_known(
            lambda: supervisor.store.attempts.finish(self.run_id, claimed.attempt, supervisor.session_id, outcome, finish_key=finish_key)
        )
        hit("worker.finished")
        self.refused = answer is None or answer is FinishAnswer.REFUSED
        self.outcome = outcome
        # A newer session of this worker that has adopted the attempt still needs what lies here.
        self.is_over = not self.refused or not supervisor.is_displaced()
        if self.refused:
            _log.warning("Run %s attempt %d is no longer ours; its outcome was not recorded.", self.run_id, claimed.attempt)

    def _tell_ended(self) -> None:
        """Tell who may want to know of the end, once the slot is free: the next run need not wait for that."""
        if self.outcome is None:
            return
        self._supervisor.note_activity()
        self._supervisor.wake_scheduler()
        with self._lock:
            self._is_told = True
            is_announced = self.announced
        if not is_announced:
            self._supervisor.window.publish_ended(self.run_id, self.placement, self.outcome.verdict, self.outcome.detail)

    def _tidy(self) -> None:
        """Let go of what the attempt held, after the slot is free and the outcome committed."""
        try:
            if self._handle is not None:
                self._handle.cleanup()
            if self.claimed is not None:
                if is_alive(self._folder):
                    # Without its folder nobody would find it any more.
                    raise LaunchFailed("its process has not ended")
                self._supervisor.surroundings.folders.remove(self.run_id, self.claimed.attempt)
        except (WorkerError, OSError) as error:
            _log.warning("Run %s: something of its attempt is left behind, which the next sweep removes: %s", self.run_id, error)

    def _until_known(self, act: Callable[[], T]) -> T | None:
        """Do it until Postgres has answered; None when the attempt was superseded meanwhile, or the record refuses.

        Raises:
            _Unfinished: the worker stops, and whether it was done is not known.
        """
        n_tries = 0
        while True:
            try:
                return act()
            except RECORD_AWAY as error:
                if n_tries == 0:
                    _log.warning("Run %s: %s Trying until it is back.", self.run_id, error)
                delay_s = _RETRY_S[min(n_tries, len(_RETRY_S) - 1)]
                n_tries += 1
                if self._quiet:
                    return None
                if self._supervisor.wait_stopping(delay_s):
                    raise _Unfinished from None
            except SweepError as error:
                # The fence: what an attempt sends after it was superseded is not recorded, and that is right.
                _log.warning("Run %s: %s", self.run_id, error)
                return None

    def _require_claimed(self) -> ClaimedRun:
        if self.claimed is None:
            raise AssertionError("an attempt exists only once its run is claimed")
        return self.claimed


def _begun_at(folder: Path) -> float:
    """When the command of an adopted attempt was started: a restart gives it no new time.

    By the machine's monotonic clock, which all its processes share: the other one may have been put forward meanwhile. After a
    reboot it begins anew; what is adopted then has ended.
    """
    try:
        begun_at = float(read_file(folder / _BEGUN) or b"")
    except ValueError:
        return time.monotonic()
    return min(begun_at, time.monotonic()) if math.isfinite(begun_at) else time.monotonic()
