"""Attempts as processes of this machine, each behind a shim that outlives the worker (see `shim`).

This is no boundary between users (D12): a process run can read whatever the worker's user can, and no memory limit holds it.
"""

import contextlib
import errno
import fcntl
import json
import logging
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Container, Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec
from msgspec import Struct

from worker.errors import Exhausted, LaunchFailed
from worker.folders import attempt_folders, attempts_of, open_file, other_runs, read_file, take_back
from worker.runtimes import shim
from worker.runtimes.base import (
    Abandoned,
    AttemptKey,
    AttemptSpec,
    ExitReport,
    Handle,
    StopReason,
    check_launchable,
    record_stop,
    recorded_stop,
    signal_name,
)
from worker.runtimes.host import host_incarnation, parent_of, process_start, process_state

_log = logging.getLogger(__name__)

_HAS_PIDFD: Final = hasattr(os, "pidfd_open")
_SHIM: Final = os.fsencode(Path(*Path(shim.__file__).parts[-2:]))
"""The end of the path by which a shim was started, of whatever installation."""
_POLL_S: Final = 0.05
"""How often to look for an end where the kernel can't announce it."""
_KILLED_S: Final = 10.0
"""How long to wait for a killed process."""
_ROUNDS: Final = 20
"""How often to look again for what a dead shim has left: it may be forking."""
_SHUTDOWN_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGKILL)
_DEAF_STOPS: Final = 3
"""So many stops a shim may fail to hear for a debugger that somebody has attached to it; they come every few seconds."""
_FREED_S: Final = 1.0
"""How long a process that was killed may take to let go of what it traces."""
_SHORT: Final = frozenset({errno.EAGAIN, errno.EMFILE, errno.ENFILE, errno.ENOMEM})
"""What the system answers where it has no process, descriptor or memory to give just now."""
_HELD: Final = "ended by SIGKILL (9): it had attached itself, as debuggers do, to the process that watches it, which could neither keep its output nor stop it"
_LAUNCH_S: Final = 30.0
"""How long the launcher may take to answer: it answers within milliseconds unless the machine is in trouble."""


def trial_environment(base: Mapping[str, str], additions: Mapping[str, str], env_bin: Path | None) -> dict[str, str]:
    """The whole environment of a process run.

    The worker's own environment, without what is ours or would mislead the trial (D7): our settings, Celery's, credentials of
    MLflow's client (Basic would beat the attempt's token), the worker's virtual environment, its service manager's sockets.

    Args:
        base: the worker's environment.
        additions: what the run is given; stands above all else.
        env_bin: the `bin` folder of an environment built for it, put first on the PATH.
    """
    env = {name: value for name, value in base.items() if not _is_private(name)}
    own_bin = str(Path(sys.prefix) / "bin") if sys.prefix != sys.base_prefix else None
    folders = [folder for folder in base.get("PATH", os.defpath).split(os.pathsep) if folder and folder != own_bin]
    if base.get("VIRTUAL_ENV") == sys.prefix:
        env.pop("VIRTUAL_ENV")
    if env_bin is not None:
        folders.insert(0, str(env_bin))
        env["VIRTUAL_ENV"] = str(env_bin.parent)
    env["PATH"] = os.pathsep.join(folders)
    env["PYTHONUNBUFFERED"] = "1"
    return {**env, **additions}


_PRIVATE_PREFIXES: Final = ("SWEEP_", "CELERY_", "FLOWER_", "MLFLOW_TRACKING_", "LISTEN_")
_PRIVATE: Final = frozenset("MLFLOW_RUN_ID MLFLOW_EXPERIMENT_ID MLFLOW_EXPERIMENT_NAME PYTHONPATH PYTHONHOME PGPASSWORD PGPASSFILE NOTIFY_SOCKET".split())


def _is_private(name: str) -> bool:
    return name.startswith(_PRIVATE_PREFIXES) or name in _PRIVATE


def resolve_python(argv: tuple[str, ...], path: str) -> tuple[str, ...]:
    """Make `python`, alone or behind `/usr/bin/env`, mean some Python 3 where the PATH has no such name."""
    at = 1 if argv[0] == "/usr/bin/env" and len(argv) > 1 else 0
    if argv[at] != "python" or shutil.which("python", path=path):
        return argv
    found = "python3" if shutil.which("python3", path=path) else sys.executable
    return (*argv[:at], found, *argv[at + 1 :])


class _Started(Struct, frozen=True):
    """What `started.json` says."""

    run_id: str
    attempt: int
    host_incarnation: str
    shim_pid: int
    trial_pid: int
    trial_start: int | None = None
    started_at: float | None = None


class ProcessHandle:
    """A process run, known by its folder: while the shim holds the lock there, it lives.

    Args:
        report: how it ended, of one whose folder can't say so.
    """

    def __init__(self, folder: Path, shim_pid: int | None, report: ExitReport | None = None) -> None:
        self._folder = folder
        self._shim_pid = shim_pid
        self._guard = threading.Lock()
        self._report = report
        self._n_held = 0
        self._n_deaf = 0
        self._was_held = False
        self._pidfd = _open_pidfd(shim_pid) if shim_pid is not None else None
        # Looked at after the pidfd was opened: a locked file means that the number was still the shim's own then.
        self._is_over = report is not None or not is_alive(folder)

    def wait(self, timeout_s: float | None = None) -> ExitReport | None:
        """See `base.Handle`."""
        if not self._is_over and not self._await_shim(timeout_s):
            self._rouse()
            return None
        with self._guard:
            self._is_over = True
            if self._report is None:
                report = _read_report(self._folder)
                self._report = self._blame_tracer(report) if self._was_held and (report.is_lost or report.signal == signal.SIGKILL) else report
            return self._report

    def stop(self, reason: StopReason) -> None:
        """See `base.Handle`. The shim keeps the time of the grace period, whatever becomes of this worker."""
        record_stop(self._folder, reason)
        self._free_shim(patience=_DEAF_STOPS)
        self._signal(shim.STOP_SIGNAL)

    def kill(self) -> None:
        """See `base.Handle`."""
        self._free_shim(patience=0)
        self._signal(shim.KILL_SIGNAL)

    def describe(self) -> dict[str, str | int]:
        """See `base.Handle`."""
        started = _read_started(self._folder)
        if started is None:
            return {"runtime": "process"}
        return {"runtime": "process", "pid": started.trial_pid, "shim_pid": started.shim_pid, "host": started.host_incarnation}

    def cleanup(self) -> None:
        """See `base.Handle`."""
        with self._guard:
            pidfd, self._pidfd = self._pidfd, None
        if pidfd is not None:
            os.close(pidfd)

    def __del__(self) -> None:
        if getattr(self, "_pidfd", None) is not None:
            self.cleanup()

    def _await_shim(self, timeout_s: float | None) -> bool:
        if self._pidfd is None:
            return self._poll_lock(timeout_s)
        poller = select.poll()
        poller.register(self._pidfd, select.POLLIN)
        return bool(poller.poll(None if timeout_s is None else timeout_s * 1000))

    def _poll_lock(self, timeout_s: float | None) -> bool:
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while is_alive(self._folder):
            if deadline is not None and time.monotonic() >= deadline:
                return False
            time.sleep(_POLL_S)
        return True

    def _signal(self, number: int) -> None:
        with self._guard, contextlib.suppress(ProcessLookupError):
            if self._is_over:
                return
            # A shim that was suspended, by its own trial perhaps, is woken to carry it out.
            for each in {number, signal.SIGCONT}:
                if self._pidfd is not None:
                    signal.pidfd_send_signal(self._pidfd, each)
                elif self._shim_pid is not None and is_alive(self._folder):
                    os.kill(self._shim_pid, each)

    def _blame_tracer(self, report: ExitReport) -> ExitReport:
        """Its watcher was held, and therefore does not know who has ended it."""
        reason = recorded_stop(self._folder)
        if reason is None:
            return report if report.is_lost else msgspec.structs.replace(report, detail=_HELD)
        return msgspec.structs.replace(report, is_lost=False, stop_sent=True, stop_reason=reason, detail="")

    def _rouse(self) -> None:
        """Wake a shim that somebody has suspended: it keeps the output and sees the end. One that its own trial traces is freed the second time."""
        if self._shim_pid is None or self._is_over:
            return
        state = process_state(self._shim_pid)
        self._n_held = self._n_held + 1 if state == "t" else 0
        if self._n_held > 1:
            self._free_shim()
        if state == "T":
            _log.warning("The process that watches %s was suspended: waking it.", self._folder)
            self._signal(signal.SIGCONT)

    def _free_shim(self, patience: int | None = None) -> None:
        """End a process of the attempt that traces the shim, which hears nothing meanwhile.

        Args:
            patience: how often to let anybody else's debugger be; after that the shim is killed, and what it watches with it.
        """
        if self._shim_pid is None or self._is_over or process_state(self._shim_pid) != "t":
            return
        tracer = _tracer_of(self._shim_pid)
        if not tracer:
            return
        if not _descends_from(tracer, self._shim_pid):
            _log.warning("Process %d, no part of the attempt, holds the process that watches %s.", tracer, self._folder)
            self._n_deaf += patience is not None
            if patience is not None and self._n_deaf > patience:
                self._was_held = True
                self._signal(signal.SIGKILL)
            return
        _log.warning("Process %d of the attempt holds the process that watches %s: ending it.", tracer, self._folder)
        self._was_held = True
        with contextlib.suppress(ProcessLookupError):
            os.kill(tracer, signal.SIGKILL)
        deadline = time.monotonic() + _FREED_S
        while _tracer_of(self._shim_pid) == tracer and time.monotonic() < deadline:
            time.sleep(_POLL_S)
        self._signal(signal.SIGCONT)


class ProcessRuntime:
    """Starts process runs through one launcher process, and finds those of earlier lives by their folders.

    Args:
        runs: folder of all attempts, `runs/<run_id>/<attempt>` (see `worker.folders`).
    """

    def __init__(self, runs: Path) -> None:
        self._runs = runs
        self._launcher = _Launcher()

    def start(self, spec: AttemptSpec, called_off: threading.Event | None = None) -> Handle:  # noqa: ARG002 - nothing here takes long
        """See `base.Runtime`."""
        check_launchable(spec)
        self._end_earlier(spec)
        request = {
            "run_id": spec.run_id,
            "attempt": spec.attempt,
            "host_incarnation": spec.host_incarnation,
            "folder": str(spec.folder),
            "argv": resolve_python(spec.argv, spec.env.get("PATH", os.defpath)),
            "cwd": str(spec.cwd),
            "env": spec.env,
            "stop_grace_s": spec.stop_grace_s,
            "uid": spec.uid,
            "gid": spec.gid,
        }
        reply = self._launcher.ask(request)
        if "pid" in reply:
            return ProcessHandle(spec.folder, reply["pid"])
        if "error" in reply:
            raise (Exhausted if reply["errno"] in _SHORT else LaunchFailed)(f"Attempt {spec.attempt} of run {spec.run_id} was not started: {reply['error']}.")
        # An earlier request got through although its answer did not.
        handle = self.adopt(spec.run_id, spec.attempt, spec.folder)
        if handle is None:
            raise LaunchFailed(f"Attempt {spec.attempt} of run {spec.run_id} was taken by a launcher that has gone.")
        return handle

    def adopt(self, run_id: str, attempt: int, folder: Path) -> Handle | None:
        """See `base.Runtime`. One whose folder was removed meanwhile can't be followed, and is ended."""
        if any(_is_there(folder / name) for name in (shim.LOCK, shim.STARTED, shim.EXIT)):
            return ProcessHandle(folder, _shim_pid(folder))
        if not _end_without_folder(run_id, attempt):
            return None
        detail = "its folder was removed while its worker was away: it could not be followed any more, and was ended"
        return ProcessHandle(folder, None, ExitReport(is_lost=True, detail=detail))

    def sweep_orphans(self, owned: Container[AttemptKey]) -> list[AttemptKey]:
        """See `base.Runtime`."""
        return _end_each((key, folder) for key, folder in attempt_folders(self._runs) if key not in owned)

    def sweep_home(self, abandoned: Abandoned) -> list[AttemptKey]:
        """See `base.Runtime`."""
        found = {key: folder for runs in other_runs(self._runs) for key, folder in attempt_folders(runs)}
        # Asked before a lock is looked at, which would get in the way of a shim that is just taking it.
        over = abandoned(list(found)) if found else ()
        return _end_each((key, folder) for key, folder in found.items() if key in over)

    def _end_earlier(self, spec: AttemptSpec) -> None:
        """End what is left of the run's earlier attempts under other workers of this home: each is over now that the record has this one.

        Such a worker may be one that was renamed, and never comes back to see to it.
        """
        if spec.attempt == 1:
            return
        for runs in other_runs(self._runs):
            for (_, attempt), folder in attempts_of(runs / spec.run_id):
                if attempt < spec.attempt and _end(folder):
                    _log.warning("Ended attempt %d of run %s, which another worker of this home had left running.", attempt, spec.run_id)

    def close(self) -> None:
        """See `base.Runtime`."""
        self._launcher.close()


class _Launcher:
    """The launcher process of this worker: started when first needed, and again should it have died."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None
        self._replies: Any = None

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """Have one attempt started.

        Raises:
            Exhausted: this machine has no process or descriptor for it just now.
            LaunchFailed: there is no launcher to be had.
        """
        line = json.dumps(request).encode() + b"\n"
        with self._guard:
            try:
                return self._exchange(line)
            except (OSError, EOFError, ValueError):
                # It died, maybe after it had started the attempt: asked again, the next one answers `taken` then.
                self._end()
            try:
                return self._exchange(line)
            except (OSError, EOFError, ValueError) as error:
                self._end()
                is_short = isinstance(error, OSError) and error.errno in _SHORT
                raise (Exhausted if is_short else LaunchFailed)(f"The launcher process does not answer: {error}.") from error

    def close(self) -> None:
        """Let the launcher end."""
        with self._guard:
            self._end()

    def _exchange(self, line: bytes) -> dict[str, Any]:
        if self._socket is None:
            self._begin()
        assert self._socket is not None  # noqa: S101 - `_begin` sets it
        self._socket.sendall(line)
        reply = self._replies.readline()
        if not reply.endswith(b"\n"):
            raise EOFError("it has gone")
        answer: dict[str, Any] = json.loads(reply)
        return answer

    def _begin(self) -> None:
        ours, theirs = socket.socketpair()
        # What the loader may need to find the interpreter's own libraries, and nothing of ours.
        env = {name: os.environ[name] for name in ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH") if name in os.environ}
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-X", "utf8", shim.__file__, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                env=env,
                cwd="/",
                start_new_session=True,
            )
        ours.settimeout(_LAUNCH_S)
        self._socket = ours
        self._replies = ours.makefile("rb")

    def _end(self) -> None:
        if self._process is None or self._socket is None:
            return
        self._replies.close()
        self._socket.close()
        try:
            # It ends by itself when its socket closes.
            self._process.wait(1.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = self._socket = self._replies = None


def is_alive(folder: Path) -> bool:
    """Whether the shim of an attempt lives: whether the lock in its folder is held.

    Raises:
        OSError: there is no telling, for a folder that is locked or a machine that is short of something.
    """
    lock = open_file(folder / shim.LOCK)
    if lock is None:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False


def _open_pidfd(pid: int) -> int | None:
    if not _HAS_PIDFD:
        return None
    try:
        return os.pidfd_open(pid)
    except OSError as error:
        if error.errno in _SHORT:
            raise
        # It has ended already, or the kernel is older than 5.3.
        return None


def _shim_pid(folder: Path) -> int | None:
    """The shim's process id, from the file that it locks; None if it did not get as far as to write it."""
    while True:
        text = read_file(folder / shim.LOCK)
        if text is None:
            return None
        if text.isdigit():
            return int(text)
        if text or not is_alive(folder):
            # Its trial has written something else there.
            return next(iter(_shims_of(_processes_of(folder.parent.name, folder.name))), None)
        time.sleep(0.001)


def _is_there(path: Path) -> bool:
    """Whether there is anything of this name.

    Raises:
        OSError: there is no telling.
    """
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def _read_started(folder: Path) -> _Started | None:
    try:
        return msgspec.json.decode(read_file(folder / shim.STARTED) or b"", type=_Started)
    except msgspec.DecodeError:
        return None


def _read_report(folder: Path) -> ExitReport:
    """How an attempt whose shim has ended did end; lost, if the shim could not say so.

    Raises:
        OSError: what it said can't be read just now.
    """
    try:
        report = msgspec.json.decode(read_file(folder / shim.EXIT) or b"", type=ExitReport)
    except msgspec.DecodeError:
        # Nobody watches the command any more: it must not go on beside the next attempt.
        _kill_leftovers(folder)
        return ExitReport(is_lost=True, detail="the process that watched it was killed, or the machine restarted")
    if report.stop_sent:
        return msgspec.structs.replace(report, stop_reason=recorded_stop(folder))
    if not _ended_with_its_machine(folder, report):
        return report
    how = f"exit status {report.exit_status}" if report.signal is None else f"ended by {signal_name(report.signal)}"
    return msgspec.structs.replace(report, is_lost=True, detail=f"{how} as its machine, or the service that its worker runs in, was shut down")


def _ended_with_its_machine(folder: Path, report: ExitReport) -> bool:
    """Whether it was ended by what ended everything around it, which is nobody's fault (I6).

    Machines are shut down by a signal to all their processes. Where the shim wrote its report before it got its own, the next life
    of the machine tells; of a crash of the command's own nothing is forgiven by that.
    """
    if report.oom:
        return False
    if report.told_to_end:
        return True
    started = _read_started(folder)
    return report.signal in _SHUTDOWN_SIGNALS and started is not None and started.host_incarnation != host_incarnation()


def _end_each(attempts: Iterable[tuple[AttemptKey, Path]]) -> list[AttemptKey]:
    """End what lives of some attempts; those of which there was anything. One that can't be looked at does not hide the others."""
    ended = []
    for key, folder in attempts:
        try:
            if _end(folder):
                ended.append(key)
        except OSError as error:
            _log.warning("Whether something of attempt %d of run %s still runs can't be told now: %s", key[1], key[0], error)
    return ended


def _end(folder: Path) -> bool:
    """End what lives of an attempt; whether there was anything."""
    try:
        alive = is_alive(folder)
    except PermissionError:
        take_back(folder)
        alive = is_alive(folder)
    if not alive:
        return not (folder / shim.EXIT).is_file() and _kill_leftovers(folder)
    handle = ProcessHandle(folder, _shim_pid(folder))
    handle.kill()
    handle.wait(_KILLED_S)
    handle.cleanup()
    return True


def _end_without_folder(run_id: str, attempt: int) -> bool:
    """End an attempt that is known by its variables alone; whether there was anything.

    Its shim lives, and ends the rest once the command has ended. It then makes the folder anew: it is waited for, or the folder
    would stay.
    """
    shims = [pidfd for pid in _shims_of(_processes_of(run_id, str(attempt))) if (pidfd := _open_pidfd(pid)) is not None]
    try:
        has_left = _kill_by_variables(run_id, str(attempt))
        deadline = time.monotonic() + _KILLED_S
        for pidfd in shims:
            poller = select.poll()
            poller.register(pidfd, select.POLLIN)
            poller.poll(max(0.0, deadline - time.monotonic()) * 1000)
    finally:
        for pidfd in shims:
            os.close(pidfd)
    return has_left


def _tracer_of(pid: int) -> int:
    """Who traces a process; 0 if nobody does."""
    try:
        text = Path(f"/proc/{pid}/status").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return int(text.partition("\nTracerPid:")[2].split(maxsplit=1)[0]) if "\nTracerPid:" in text else 0


def _descends_from(pid: int, ancestor: int) -> bool:
    while pid > 1:
        if pid == ancestor:
            return True
        pid = parent_of(pid)
    return False


def _shims_of(pids: list[int]) -> set[int]:
    """The parents of processes that are shims."""
    found = set()
    for pid in pids:
        # It has just ended.
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            parent = parent_of(pid)
            if any(word.endswith(_SHIM) for word in Path(f"/proc/{parent}/cmdline").read_bytes().split(b"\0")):
                found.add(parent)
    return found


def _kill_leftovers(folder: Path) -> bool:
    """End what a shim that died first has left: the command with its process group, and daemons, known by the attempt's variables.

    The start time tells the command from a later process of the same number.
    """
    started = _read_started(folder)
    has_left = started is not None and started.host_incarnation == host_incarnation() and started.trial_start is not None
    if started is not None and has_left and (has_left := process_start(started.trial_pid) == started.trial_start):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(started.trial_pid, signal.SIGKILL)
    return _kill_by_variables(folder.parent.name, folder.name) or has_left


def _kill_by_variables(run_id: str, attempt: str) -> bool:
    has_left = False
    for _ in range(_ROUNDS):
        daemons = _processes_of(run_id, attempt)
        if not daemons:
            break
        has_left = True
        for pid in daemons:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(_POLL_S)
    return has_left


def _processes_of(run_id: str, attempt: str) -> list[int]:
    """Processes of this machine that were given the variables of an attempt, whatever session and parent they have by now."""
    wanted = {f"SWEEP_RUN_ID={run_id}".encode(), f"SWEEP_ATTEMPT={attempt}".encode()}
    found = []
    for pid in filter(str.isdigit, [path.name for path in Path("/proc").iterdir()] if sys.platform == "linux" else ()):
        # It has ended, or is somebody else's.
        with contextlib.suppress(FileNotFoundError, ProcessLookupError, PermissionError):
            if wanted.issubset(Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")):
                found.append(int(pid))
    return found
