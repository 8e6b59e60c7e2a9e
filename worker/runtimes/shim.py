"""The small process that stands between a worker and its process runs, so that a run outlives its worker (D5).

Run as a script, with the standard library only, by an interpreter that loads nothing else. It plays two parts:

* the *launcher*, one for each worker: single-threaded and small, so that a fork of it costs a millisecond where one of the worker
  would cost many. It reads requests, one JSON line each, from a socket, and ends when the worker does;
* the *shim*, one for each attempt, forked by the launcher: in a session of its own it starts the command, keeps what it prints, waits
  for it, and writes how it ended. It outlives launcher and worker.

Files in the attempt's folder: `lock`, locked for as long as the shim lives, holds its process id; `started.json` says what was
started; `exit.json` how it ended. Each JSON file appears whole or not at all. They are not synced to disk: what a crash of the
machine may take with it are the ends of processes that the crash has ended too, and whose attempts count as lost.

Signals to a shim: SIGUSR1 stops its command (SIGTERM, then SIGKILL after the grace period), SIGUSR2 kills it at once. It outlives all others
that a process can, and notes those by which machines and services are shut down: a command which ends by them then is not to blame.

What the command prints goes through pipes, though files would do without a copy: scripts open /dev/stdout and /dev/stderr by name, as in
`echo loss=1 > /dev/stderr`, and a file that is opened like that is emptied each time. A pipe is not. Nothing is lost by it when a shim
is killed: its attempt is over then.
"""

import contextlib
import ctypes
import errno
import fcntl
import gc
import json
import os
import resource
import select
import signal
import socket
import stat
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypedDict

STOP_SIGNAL = signal.SIGUSR1
KILL_SIGNAL = signal.SIGUSR2

_ORDERS = (STOP_SIGNAL, KILL_SIGNAL)
_FAREWELLS = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)
"""What everybody on a machine or in a service is sent when it is shut down."""

LOCK = "lock"
STARTED = "started.json"
EXIT = "exit.json"

_FAULTS = (signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL)
"""What a process can't go on after: the instruction that failed would be tried for ever."""
_PR_SET_DUMPABLE = 4
_PR_SET_CHILD_SUBREAPER = 36
_BURY_S = 5.0
"""How long processes that the command left behind may take to die, once killed."""
_FAREWELL_S = 120.0
"""For how long what is shut down is given time to end, by most service managers and more; what fails until then may have failed for that."""
_LINGER_S = 1.0
"""How much later than its command a shim may be sent the same signal, by somebody who ends all processes one after the other."""
_PIECE_BYTES = 1 << 16
"""As much as a pipe holds."""
_LAST_PIECES = 17
"""A full pipe, of the largest that a command may ask for without being root."""
_REPORT_BYTES = 1024
"""More than a report takes, but for a long error message."""
_OOM_SCORE = b"500"
"""The kernel, short of memory, should choose a trial before the worker or the database."""
_COMMAND_ERRORS = frozenset(
    {
        errno.ENOENT,
        errno.ENOTDIR,
        errno.EACCES,
        errno.EPERM,
        errno.ENOEXEC,
        errno.ELOOP,
        errno.ENAMETOOLONG,
        errno.EISDIR,
    },
)

_libc = ctypes.CDLL(None)

_pending: list[int] = []
"""Signals that came and were not yet acted upon."""
_farewells: list[float] = []
"""When this process was told to end, and did not."""


class Request(TypedDict):
    """What the worker asks the launcher to start, as one JSON line."""

    run_id: str
    attempt: int
    host_incarnation: str
    folder: str
    argv: tuple[str, ...]
    env: dict[str, str]
    cwd: str
    stop_grace_s: float
    uid: int | None
    gid: int | None


class _OomKills:
    """How often the kernel had killed for want of memory when a command started; more at its end is evidence.

    Asking costs a third of a millisecond, so the launcher does at most once a second.
    """

    def __init__(self) -> None:
        self.before = 0
        self._looked_at = float("-inf")

    def look(self) -> None:
        """Bring the count up to date."""
        if time.monotonic() - self._looked_at > 1.0:
            self._looked_at = time.monotonic()
            self.before = _count_oom_kills()


_n_oom_kills = _OomKills()

Report = dict[str, Any]
"""The fields of `base.ExitReport` that differ from their defaults."""


def main() -> None:
    """Serve start requests until the worker closes its end of the socket."""
    _reset_signals()
    connection = socket.socket(fileno=int(sys.argv[1]))
    # A default time-out in the worker's process, set by whatever library, would have made it one that never waits.
    connection.setblocking(True)
    # Forked shims share these pages for as long as nothing moves them.
    gc.disable()
    gc.freeze()
    # Killed with an answer unread, or half a request sent, the worker leaves a connection that is reset or a line without an end.
    with connection.makefile("rb") as requests, contextlib.suppress(ConnectionError):
        for line in requests:
            if not line.endswith(b"\n"):
                return
            reply = json.dumps(_launch(json.loads(line), connection))
            connection.sendall(reply.encode() + b"\n")


def _reset_signals() -> None:
    """Undo what the worker's own parents may have ignored or blocked: a trial must start like any other program.

    Handlers, unlike ignored signals, do not survive the exec of the command.
    """
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        # Those that the system keeps for itself can't be set.
        with contextlib.suppress(OSError, ValueError):
            signal.signal(number, signal.SIG_DFL if number in _FAULTS else _outlive)
    for number in _FAREWELLS:
        signal.signal(number, _note_farewell)
    # Beyond a limit on the size of files a write fails, and is told; commands start with the system's own ways.
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    for number in _ORDERS:
        signal.signal(number, _note)
    # Ended shims are no concern of the launcher.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)


def _outlive(_number: int, _frame: object) -> None:
    """Stay: whoever stops the worker, its terminal or its service does not stop its runs."""


def _note_farewell(_number: int, _frame: object) -> None:
    """Stay as well; but the command may be about to end by the same hand."""
    _farewells.append(time.monotonic())


def _note(number: int, _frame: object) -> None:
    _pending.append(number)


def _launch(request: Request, connection: socket.socket) -> dict[str, Any]:
    """Fork a shim for one request.

    The lock decides who starts an attempt, should two launchers be asked to, and tells the living from the dead later.
    """
    folder = Path(request["folder"])
    try:
        lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            if not _is_ours(lock, folder):
                return {"taken": True}
            _reserve(folder / EXIT)
            _n_oom_kills.look()
            # A stop may come before the fork is complete, and the interpreter forgets signals that came during one.
            signal.pthread_sigmask(signal.SIG_BLOCK, (*_ORDERS, *_FAREWELLS))
            # What the launcher was told is no concern of a shim's.
            _farewells.clear()
            shim = os.fork()
            signal.pthread_sigmask(signal.SIG_UNBLOCK, (*_ORDERS, *_FAREWELLS))
            if shim == 0:
                _become_shim(request, lock, connection)
            return {"pid": shim}
        finally:
            os.close(lock)
    except OSError as error:
        return {"error": f"the launcher failed: {error}", "errno": error.errno}


def _is_ours(lock: int, folder: Path) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return not any((folder / name).exists() for name in (STARTED, EXIT))


def _become_shim(request: Request, lock: int, connection: socket.socket) -> None:
    """Run one attempt in this process, and end it."""
    report: Report
    try:
        os.pwrite(lock, str(os.getpid()).encode(), 0)
        os.setsid()
        os.close(connection.fileno())
        _detach_output()
        _keep_out()
        report = _run(request)
    except BaseException:  # noqa: BLE001 - whatever went wrong is written down for the worker
        report = {"launch_error": "the shim failed: " + traceback.format_exc(limit=-3)}
    try:
        _take_back(Path(request["folder"]))
        _write(Path(request["folder"]) / EXIT, report)
    finally:
        # Skips the interpreter's own farewell; the worker is waiting for this.
        os._exit(0)


def _keep_out() -> None:
    """Let no process of the same user trace this one, which would then neither keep the output nor hear a stop. Root may all the same."""
    if sys.platform == "linux":
        _libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def _detach_output() -> None:
    """Let go of the worker's terminal or pipe, or whoever reads it would wait for every trial."""
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nothing, descriptor)
    os.close(nothing)


def _run(request: Request) -> Report:
    """Start the command, watch it to its end, end what it left behind; return the report."""
    _adopt_orphans()
    wakeup, wake = os.pipe()
    os.set_blocking(wake, False)
    os.set_blocking(wakeup, False)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    # A signal that came before this pipe was there waits in `_pending`; the first look comes before the first sleep.
    signal.signal(signal.SIGCHLD, _outlive)
    started_at, started = time.time(), time.monotonic()
    watch = _Watch(wakeup)
    try:
        streams = [_Stream(Path(request["folder"]) / name, request) for name in ("stdout", "stderr")]
        # Held until the end: a forgotten Popen would reap the command on its own.
        process = _spawn(request, streams)
    except (OSError, ValueError) as error:
        return _spawn_report(error, request)
    for stream in streams:
        watch.follow(stream)
    try:
        # The command may have been quick to remove or to lock the folder: what is lost by that is known by its variables as well.
        with contextlib.suppress(PermissionError, FileNotFoundError, NotADirectoryError, IsADirectoryError):
            _write(Path(request["folder"]) / STARTED, _identify(request, process.pid, started_at))
        status, usage, stop_sent = _await_end(process.pid, request["stop_grace_s"], watch)
        duration_s = time.monotonic() - started
    finally:
        _bury(process.pid, watch)
        for stream in streams:
            stream.finish()
    killed_by = -os.waitstatus_to_exitcode(status) if os.WIFSIGNALED(status) else None
    return {
        "exit_status": os.waitstatus_to_exitcode(status) if killed_by is None else None,
        "signal": killed_by,
        "oom": killed_by == signal.SIGKILL and not stop_sent and _count_oom_kills() > _n_oom_kills.before,
        "told_to_end": not stop_sent and status != 0 and _was_told_to_end(status, watch),
        "output_error": next((stream.error for stream in streams if stream.error), ""),
        "started_at": started_at,
        "duration_s": duration_s,
        "cpu_s": usage.ru_utime + usage.ru_stime,
        # Kilobytes, but bytes on macOS.
        "max_rss_bytes": usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024),
        "stop_sent": stop_sent,
    }


def _adopt_orphans() -> None:
    """Have what the command leaves behind, daemons too, become children of this process, which can then end them."""
    if sys.platform == "linux":
        _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


class _Stream:
    """What the command prints on one of its streams, from a pipe into a file.

    Attributes:
        sink: the command's end of the pipe.
        source: ours; None once it is closed.
        error: why the file does not hold all of it, if so.
    """

    def __init__(self, path: Path, request: Request) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        self.error = ""
        self.source: int | None
        self.source, self.sink = os.pipe()
        os.set_blocking(self.source, False)
        if request["uid"] is not None:
            # So that it may be opened by name.
            os.fchown(self.sink, request["uid"], request["gid"] or 0)

    def copy(self) -> bool:
        """Write down what has come, at most as much as a pipe holds; whether there was something."""
        if self.source is None:
            return False
        try:
            data = os.read(self.source, _PIECE_BYTES)
        except BlockingIOError:
            return False
        if not data:
            self._close()
        try:
            while data:
                data = data[os.write(self._file, data) :]
        except OSError as error:
            # The command hears of it as of any other output that fails.
            self.error = str(error)
            self._close()
        return self.source is not None

    def finish(self) -> None:
        """Write down the rest, after the last process that should print has ended."""
        # One that could not be ended may print on for ever.
        for _ in range(_LAST_PIECES):
            if not self.copy():
                break
        self._close()

    def _close(self) -> None:
        if self.source is not None:
            os.close(self.source)
            self.source = None


class _Watch:
    """Sleeps until something happens: a signal, or the command prints."""

    def __init__(self, wakeup: int) -> None:
        self._wakeup = wakeup
        self._poller = select.poll()
        self._poller.register(wakeup, select.POLLIN)
        self._streams: dict[int, _Stream] = {}

    def follow(self, stream: _Stream) -> None:
        """Copy what comes there while asleep."""
        if stream.source is not None:
            self._streams[stream.source] = stream
            self._poller.register(stream.source, select.POLLIN)

    def sleep(self, timeout_s: float | None) -> None:
        """Return once something has happened, or nothing for so long."""
        for descriptor, _ in self._poller.poll(None if timeout_s is None else timeout_s * 1000):
            stream = self._streams.get(descriptor)
            if stream is None:
                with contextlib.suppress(BlockingIOError):
                    os.read(self._wakeup, 512)
                continue
            stream.copy()
            if stream.source is None:
                self._poller.unregister(descriptor)
                del self._streams[descriptor]


def _spawn(request: Request, streams: list[_Stream]) -> subprocess.Popen[bytes]:
    identity: dict[str, Any] = {} if request["uid"] is None else {"user": request["uid"], "group": request["gid"], "extra_groups": ()}
    process = subprocess.Popen(
        request["argv"],
        cwd=request["cwd"],
        env=request["env"],
        stdin=subprocess.DEVNULL,
        stdout=streams[0].sink,
        stderr=streams[1].sink,
        start_new_session=True,
        # Saves time: everything that is open here closes itself at exec.
        close_fds=False,
        **identity,
    )
    for stream in streams:
        os.close(stream.sink)
    with contextlib.suppress(OSError):
        Path(f"/proc/{process.pid}/oom_score_adj").write_bytes(_OOM_SCORE)
    return process


def _spawn_report(error: OSError | ValueError, request: Request) -> Report:
    """Whose fault it is: a command that can't be run is the user's and ends as a shell would have it; the rest is the machinery's.

    So are arguments and variables that no program can be given, which end it before there is an exit status.
    """
    command = request["argv"][0]
    if isinstance(error, ValueError):
        return {"refusal": f"No program can be given these arguments and environment variables: {error}."}
    if error.errno == errno.E2BIG:
        size = sum(len(os.fsencode(text)) + 1 for text in (*request["argv"], *request["env"], *request["env"].values()))
        return {"refusal": f"Arguments and environment variables are {size} bytes together: more than this system takes, in all or in one of them."}
    if error.errno not in _COMMAND_ERRORS or error.filename != command:
        return {"launch_error": f"the command could not be started: {error}"}
    if error.errno in {errno.ENOENT, errno.ENOTDIR}:
        detail = f"{command}: there is no such command on the PATH, or the interpreter named in its first line is missing"
        return {"exit_status": 127, "detail": detail}
    return {"exit_status": 126, "detail": f"{command}: can't be executed: {os.strerror(error.errno)}"}


def _await_end(trial: int, grace_s: float, watch: _Watch) -> tuple[int, resource.struct_rusage, bool]:
    """Wait for the command's end, and stop it when told to. Return (wait status, resource usage, whether it was stopped)."""
    kill_at: float | None = None
    stop_sent = False
    while True:
        ended = _reap(trial)
        if ended is not None:
            return (*ended, stop_sent)
        while _pending:
            is_polite = _pending.pop(0) == STOP_SIGNAL
            if is_polite and not stop_sent:
                _signal_group(trial, signal.SIGTERM)
                kill_at = time.monotonic() + grace_s
            elif not is_polite:
                kill_at = time.monotonic()
            stop_sent = True
        left_s = None if kill_at is None else kill_at - time.monotonic()
        if left_s is not None and left_s <= 0:
            _signal_group(trial, signal.SIGKILL)
            left_s = kill_at = None
        watch.sleep(left_s)


def _reap(trial: int) -> tuple[int, resource.struct_rusage] | None:
    """Collect ended children; return (wait status, usage) if the command is among them."""
    while True:
        pid, status, usage = os.wait4(-1, os.WNOHANG)
        if pid == trial:
            return status, usage
        if pid == 0:
            return None


def _bury(trial: int, watch: _Watch) -> None:
    """End what the command left behind: its process group, and daemons, which are this process's children by now."""
    _signal_group(trial, signal.SIGKILL)
    deadline = time.monotonic() + _BURY_S
    while time.monotonic() < deadline:
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            for child in _children():
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(child, signal.SIGKILL)
            watch.sleep(0.05)


def _children() -> list[int]:
    try:
        return [int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_bytes().split()]
    except OSError:
        return []


def _signal_group(trial: int, number: int) -> None:
    # Gone already, or no longer ours to signal (set-uid programs).
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(trial, number)


def _was_told_to_end(status: int, watch: _Watch) -> bool:
    """Whether the command failed while everything around it was being shut down.

    The command may be the first to be told.
    """
    code = os.waitstatus_to_exitcode(status)
    deadline = time.monotonic() + _LINGER_S
    # As a signal or, from a shell that stood between, as a status.
    if -code in _FAREWELLS or code - 128 in _FAREWELLS:
        while not _farewells and (left_s := deadline - time.monotonic()) > 0:
            watch.sleep(left_s)
    return bool(_farewells) and time.monotonic() - _farewells[-1] < _FAREWELL_S


def _identify(request: Request, trial: int, started_at: float) -> dict[str, Any]:
    return {
        "run_id": request["run_id"],
        "attempt": request["attempt"],
        "host_incarnation": request["host_incarnation"],
        "shim_pid": os.getpid(),
        "trial_pid": trial,
        "trial_start": _start_ticks(trial),
        "started_at": started_at,
    }


def _start_ticks(pid: int) -> int | None:
    """As in `host.process_start`: the command is not reaped yet, so its number is still its own."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[19])
    except OSError:
        return None


def _count_oom_kills() -> int:
    """How often the kernel killed for want of memory since boot, in any control group; 0 where it does not tell."""
    try:
        facts = Path("/proc/vmstat").read_bytes()
    except OSError:
        return 0
    _, _, rest = facts.partition(b"\noom_kill ")
    return int(rest.split(maxsplit=1)[0]) if rest else 0


def _take_back(folder: Path) -> None:
    """Have a folder to tell the end in, though the command may have removed it, locked it, or put a file in its place."""
    for path in (folder.parent.parent, folder.parent, folder):
        # What can't be helped shows when the report is written.
        with contextlib.suppress(OSError):
            if not path.is_dir():
                path.unlink(missing_ok=True)
                path.mkdir()
            if not os.access(path, os.R_OK | os.W_OK | os.X_OK):
                path.chmod(0o700)


def _reserve(path: Path) -> None:
    """Take the room for a report now: the command may fill the disk, and how it ended must be told all the same."""
    path.with_suffix(".part").write_bytes(b" " * _REPORT_BYTES)


def _write(path: Path, content: dict[str, Any]) -> None:
    part = path.with_suffix(".part")
    _make_way(part, is_wanted=stat.S_ISREG)
    # Into the room that was reserved, if it was.
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT, 0o644), "wb") as file:
        file.write(json.dumps(content).encode())
        file.truncate()
    # All but a folder gives way to a file.
    _make_way(path, is_wanted=lambda mode: not stat.S_ISDIR(mode))
    part.rename(path)


def _make_way(path: Path, is_wanted: Callable[[int], bool]) -> None:
    """Put aside what the command has put there, which can't be written to."""
    with contextlib.suppress(FileNotFoundError):
        found = path.lstat()
        if not is_wanted(found.st_mode) or (stat.S_ISREG(found.st_mode) and not os.access(path, os.W_OK)):
            path.rename(path.with_name(f"{path.name}.{os.getpid()}"))


if __name__ == "__main__":
    main()
