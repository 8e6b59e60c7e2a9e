"""The seam between the supervisor and whatever runs an attempt: what goes in, what comes out, what an end means.

Two implementations are real: `process` (a process of this machine) and `docker` (a container). Both leave the same traces in
the attempt's folder, `stdout` and `stderr`, so that nothing downstream asks which it was.
"""

import contextlib
import signal
import threading
from collections.abc import Callable, Container, Mapping, Sequence
from pathlib import Path
from typing import Final, Literal, Protocol

import msgspec
from msgspec import Struct

from tracking.records import Outcome, Resources
from tracking.states import Cause
from worker.errors import LaunchRefused

StopReason = Literal["cancel", "prune", "timeout", "superseded"]
"""Why we stop an attempt: asked to, pruned, over its time, or no longer ours (I3)."""

WORK: Final = "work"
"""Name of the working folder within an attempt's folder."""
WORK_TARGET: Final = "/work"
"""Where a container has it."""
STDOUT: Final = "stdout"
STDERR: Final = "stderr"
STOP_FILE: Final = "stop.json"

AttemptKey = tuple[str, int]
"""(run_id, attempt)."""

Abandoned = Callable[[Sequence[AttemptKey]], Container[AttemptKey]]
"""Which of some attempts the record says are over, with nobody there to tidy up after them."""


class Mount(Struct, frozen=True):
    """A file or folder of the host that a container may read. Processes see the host's own path."""

    source: Path
    target: str


class AttemptSpec(Struct, frozen=True):
    """Everything a runtime needs to start one attempt.

    Attributes:
        env: of a process its whole environment (see `trial_environment`); of a container what is added to the image's own.
        cwd: where the command starts, on the host: `folder/work` or a folder below it.
        folder: the attempt's own folder, which exists; output and exit status appear here.
        mounts: read-only extras of a container.
        uid: who runs it instead of the worker's own user; only where the worker is root.
    """

    run_id: str
    attempt: int
    worker_id: str
    host_incarnation: str
    argv: tuple[str, ...]
    env: dict[str, str]
    cwd: Path
    folder: Path
    resources: Resources = Resources()
    stop_grace_s: float = 30.0
    gpu_ids: tuple[int, ...] = ()
    mounts: tuple[Mount, ...] = ()
    uid: int | None = None
    gid: int | None = None

    @property
    def key(self) -> AttemptKey:
        """Which attempt this is."""
        return self.run_id, self.attempt


class ExitReport(Struct, frozen=True):
    """How a process or container ended, as observed; `outcome_of` says what that means.

    Attributes:
        exit_status: if it exited by itself.
        signal: number of the signal that ended it, if one did.
        oom: whether the kernel's out-of-memory killer is known to have struck.
        detail: a sentence for people, where there is more to say than the numbers do.
        started_at: Unix time; None if it never started.
        duration_s: from start to end.
        stop_sent: whether a stop of ours reached it while it still ran.
        stop_reason: the reason of the first such stop.
        launch_error: why the machinery could not start it.
        refusal: why what the run asks for can't be started at all.
        told_to_end: whether its watcher was told to end, not by us, at the time when it failed: a machine or a service was shut down.
        output_error: why its output was not kept to the end.
        is_lost: it vanished without a trace of how it ended, or ended with its machine.
    """

    exit_status: int | None = None
    signal: int | None = None
    oom: bool = False
    detail: str = ""
    started_at: float | None = None
    duration_s: float | None = None
    cpu_s: float | None = None
    max_rss_bytes: int | None = None
    stop_sent: bool = False
    stop_reason: StopReason | None = None
    launch_error: str | None = None
    refusal: str | None = None
    told_to_end: bool = False
    output_error: str = ""
    is_lost: bool = False


class Handle(Protocol):
    """One attempt that was started. Every method may be called from any thread, and again."""

    def wait(self, timeout_s: float | None = None) -> ExitReport | None:
        """Block until it has ended; None if it has not within `timeout_s`. All output is on disk when a report is returned."""

    def stop(self, reason: StopReason) -> None:
        """Ask it to end, with SIGTERM, and end it after its grace period; return at once. The first reason stands."""

    def kill(self) -> None:
        """End it now, with SIGKILL; return at once."""

    def describe(self) -> dict[str, str | int]:
        """Where it runs, for people and logs."""

    def cleanup(self) -> None:
        """Let go of what it holds outside its folder. Call it once the outcome is committed."""


class Runtime(Protocol):
    """Starts attempts, and finds those that an earlier life of this worker had started."""

    def start(self, spec: AttemptSpec, called_off: threading.Event | None = None) -> Handle:
        """Start an attempt, unless it is called off before. A command that can't be found is no error here: its report says so.

        Starting an attempt that had been started already gives its handle and starts nothing.

        Raises:
            CalledOff: it was, while what it needs was fetched.
            Exhausted: the machine is short of something just now; nothing was started.
            LaunchFailed: the machinery failed.
            LaunchRefused: what the run asks for can't be started.
            ImageMissing: the image is not to be had.
        """

    def adopt(self, run_id: str, attempt: int, folder: Path) -> Handle | None:
        """The handle of an attempt that was started before, running or ended; None if there is no trace that it ever was."""

    def sweep_orphans(self, owned: Container[AttemptKey]) -> list[AttemptKey]:
        """End what this worker once started and does not own any more; return what was ended.

        Args:
            owned: asked for each attempt after it was found, so that one which begins meanwhile is spared.
        """

    def sweep_home(self, abandoned: Abandoned) -> list[AttemptKey]:
        """End what other workers of this home have started and nobody will ever come back for; return what was ended.

        Such a worker may be an earlier name of this one. Attempts that are abandoned stay so.
        """

    def close(self) -> None:
        """Let go of everything but the attempts, which run on."""


def check_launchable(spec: AttemptSpec) -> None:
    """See that arguments and variables are such as a program can be given.

    Raises:
        LaunchRefused: they are not.
    """
    for name, value in spec.env.items():
        if not name or "=" in name or "\0" in name:
            raise LaunchRefused(f"{name!r} can't be the name of an environment variable.")
        if "\0" in value:
            raise LaunchRefused(f"The environment variable {name} holds a NUL character.")
    if any("\0" in word for word in spec.argv):
        raise LaunchRefused("The command holds a NUL character.")


def outcome_of(report: ExitReport, *, stop_reason: StopReason | None = None, error_line: str = "") -> Outcome:
    """What the end of an attempt means (I7).

    A stop only counts if it was sent while the attempt ran: one that ended before keeps its true outcome.

    Args:
        report: what was observed.
        stop_reason: overrides the report's own.
        error_line: the last line of its error output, shown if its own code failed.
    """
    verdict, cause, detail = _judge(report, stop_reason or report.stop_reason, error_line)
    return Outcome(
        verdict=verdict,
        cause=cause,
        detail=detail,
        exit_status=report.exit_status,
        signal=report.signal,
        duration_s=report.duration_s,
    )


Verdict = Literal["succeeded", "failed", "stopped"]

_STOPPED: Final[dict[StopReason, tuple[Verdict, Cause, str]]] = {
    "cancel": ("stopped", Cause.CANCELLED, "stopped on request"),
    "prune": ("stopped", Cause.PRUNED, "stopped early: it would not have won"),
    "timeout": ("failed", Cause.TIMED_OUT, "stopped: its time was over"),
    "superseded": ("stopped", Cause.LOST, "stopped: the attempt was given to another worker"),
}


def _judge(report: ExitReport, stop_reason: StopReason | None, error_line: str) -> tuple[Verdict, Cause, str]:
    if report.launch_error is not None:
        return "failed", Cause.LAUNCH, report.launch_error
    if report.refusal is not None:
        return "failed", Cause.ENVIRONMENT, report.refusal
    if report.is_lost:
        return "failed", Cause.LOST, report.detail
    if report.stop_sent and stop_reason is not None:
        return _STOPPED[stop_reason]
    if report.output_error:
        return "failed", Cause.LAUNCH, f"Its output could not be kept on this worker: {report.output_error}"
    if report.exit_status == 0:
        return "succeeded", Cause.COMPLETED, report.detail
    return _judge_failure(report, error_line)


_HINTS: Final[Mapping[str, str]] = {
    "ModuleNotFoundError: No module named 'wandb'": "add 'compat: wandb' to the sweep file, or install wandb in the trial's environment",
}
"""What helps against an error that whoever comes from elsewhere meets first."""


def _judge_failure(report: ExitReport, error_line: str) -> tuple[Verdict, Cause, str]:
    if report.oom:
        return "failed", Cause.OUT_OF_MEMORY, report.detail or "killed for want of memory"
    if report.signal is not None:
        return "failed", Cause.SIGNAL, _signal_detail(report)
    detail = report.detail or f"exit status {report.exit_status}"
    hint = _HINTS.get(error_line)
    return "failed", Cause.EXIT_STATUS, ": ".join([detail, *([error_line] if error_line else [])]) + (f" ({hint})" if hint else "")


def _signal_detail(report: ExitReport) -> str:
    if report.detail:
        return report.detail
    detail = f"ended by {signal_name(report.signal or 0)}"
    if report.stop_sent:
        detail += " after SIGUSR1 or SIGUSR2 to the process that watches it, which no part of this system is known to have sent"
    if report.signal == signal.SIGKILL and not report.stop_sent:
        detail += ", which no part of this system sent; it may have run out of memory"
    return detail


def signal_name(number: int) -> str:
    """`SIGKILL (9)`, or `signal 42` where it has no name."""
    try:
        return f"{signal.Signals(number).name} ({number})"
    except ValueError:
        return f"signal {number}"


class _Stop(Struct, frozen=True):
    reason: StopReason


def record_stop(folder: Path, reason: StopReason) -> None:
    """Keep why an attempt is stopped, for a worker that finds it ended. The first reason stands.

    Where the disk is full the stop is sent all the same: it then ends as the signal ends it, unless this worker, which knows, lives to see it.
    """
    with contextlib.suppress(OSError), (folder / STOP_FILE).open("xb") as file:
        file.write(msgspec.json.encode(_Stop(reason)))


def recorded_stop(folder: Path) -> StopReason | None:
    """The reason that `record_stop` kept, if any."""
    try:
        return msgspec.json.decode((folder / STOP_FILE).read_bytes(), type=_Stop).reason
    except (OSError, msgspec.DecodeError):
        # A torn file is one whose writer died before it sent the stop; its folder may be gone or locked by somebody.
        return None
