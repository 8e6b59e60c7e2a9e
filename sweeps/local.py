"""The one-machine cluster: embedded Postgres, server, scheduler and worker under one home, kept running by one supervisor.

    ensure_cluster(settings, say=print) -> URL of its server       starts what does not run, waits until it works
    stop_cluster(settings)                                         stops it all; trials that run go on (I8)
    cluster_status(settings)                                       what runs, without touching it

`python -m sweeps.local HOME` is the supervisor: it leaves the session of whoever started it, holds `home/local/lock` for its
life, writes `home/local/cluster.json` whenever something changes, and sleeps until a child, Postgres or a signal wakes it. It
knows the roles as commands, not as modules, so it stays small and starts in milliseconds.

    local/cluster.json     the supervisor's and its children's process ids and start times, the server's address
    local/lock             held by the supervisor
    logs/ROLE.log          what each role says; put aside as ROLE.log.1 when it is long
"""

import contextlib
import errno
import fcntl
import json
import logging
import math
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Final

from sweeps.client import Client, ServerError
from tracking import embedded
from tracking.embedded import Incarnation, incarnation, process_start
from tracking.errors import SweepError
from tracking.settings import PREFIX, Settings, load_settings

__all__ = ["LocalError", "LocalStatus", "RoleStatus", "cluster_status", "ensure_cluster", "main", "stop_cluster"]

HOST: Final = "127.0.0.1"
PREFERRED_PORT: Final = 8080
START_DEADLINE_S: Final = 90.0
FAILURES_SHOWN_AFTER: Final = 3
"""How often a role may end before whoever waits for it is told, instead of waiting on."""
GRACE_S: Final = 15.0
"""Between SIGTERM and SIGKILL of a role."""
BACK_OFF_S: Final = (0.5, 30.0)
STEADY_S: Final = 60.0
"""A role that lived this long starts its back-off anew."""
LOG_KEPT_BYTES: Final = 8 * 1024 * 1024
SHOWN_LINES: Final = 12

# Ends first to last: a worker may still have something to say to the server.
_STOP_ORDER: Final = (("worker", "scheduler"), ("server",))

# Reads the URL from its standard input, so that it can import while Postgres is being started.
_UPGRADE: Final = "tracking.migrations.fresh"

_LOG: Final = logging.getLogger("sweeps.local")

Commands = Callable[[int], Mapping[str, Sequence[str]]]

# What this machine may be short of for a while: room, descriptors, processes, memory. That passes by itself, so what needed it is
# tried again, and nothing that runs is ended for it.
_LACKS: Final = (OSError, MemoryError, subprocess.SubprocessError)


class LocalError(SweepError):
    """The cluster of this machine can't be started or stopped."""

    exit_status = 4
    http_status = 503
    error_code = "TEMPORARILY_UNAVAILABLE"


@dataclass(frozen=True, slots=True)
class RoleStatus:
    """One role's process.

    Attributes:
        pid: of its last process.
        process_start: of that process, to tell it from a stranger with the same id.
        n_ended: how often it has ended by itself, one soon after the other.
        ended: how it ended last, or empty.
    """

    name: str
    pid: int
    process_start: str
    n_ended: int = 0
    ended: str = ""

    @property
    def is_running(self) -> bool:
        """Whether that very process lives."""
        return bool(self.process_start) and process_start(self.pid) == self.process_start


@dataclass(frozen=True, slots=True)
class LocalStatus:
    """The cluster of this machine, as its supervisor wrote it down.

    Attributes:
        phase: starting, running, stopping, stopped or failed; empty when there never was one.
        url: of its server; a stopped cluster's is the one it had.
        pid: of the supervisor.
        host: where the supervisor runs.
        roles: server, scheduler and worker, once they were started.
        error: why it failed, and the hint.
    """

    phase: str = ""
    url: str = ""
    port: int = 0
    pid: int = 0
    process_start: str = ""
    host: Incarnation | None = None
    started_at: str = ""
    roles: tuple[RoleStatus, ...] = ()
    error: tuple[str, str] = ("", "")

    @property
    def is_running(self) -> bool:
        """Whether its supervisor lives, on this host."""
        is_here = self.host is not None and self.host.shares_processes(incarnation())
        return is_here and bool(self.process_start) and process_start(self.pid) == self.process_start


class _Paths:
    def __init__(self, home: Path) -> None:
        self.home = home.expanduser().resolve()
        self.folder = self.home / "local"
        self.lock = self.folder / "lock"
        self.state = self.folder / "cluster.json"
        self.logs = self.home / "logs"

    def log(self, role: str) -> Path:
        return self.logs / f"{role}.log"

    def make(self) -> None:
        self.home.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.folder.mkdir(mode=0o700, exist_ok=True)
        self.logs.mkdir(mode=0o700, exist_ok=True)


# ------------------------------------------------------------------------------------------------------- asked by the command line


SUPERVISOR: Final = (sys.executable, "-P", "-m", "sweeps.local")


def ensure_cluster(settings: Settings, *, say: Callable[[str], None], supervisor: Sequence[str] = SUPERVISOR) -> str:
    """Start the cluster of this machine unless it runs, and wait until it takes sweeps.

    Any number of processes may call this at once; they end up with one cluster. It outlives its callers.

    Args:
        settings: its home, and what its roles are to use.
        say: told what is done, one line each; nothing is said when there is nothing to do.
        supervisor: the command that runs the supervisor of the home that it is given.

    Returns:
        The server's URL.

    Raises:
        LocalError: it can't be started; shows the end of the log of the role that failed.
    """
    paths = _Paths(settings.home)
    status = cluster_status(settings)
    if status.is_running and status.phase == "running" and _Probe(status.url).says_healthy():
        return status.url
    say(f"Starting the cluster of this machine in {paths.home} ...")
    began = time.monotonic()
    status = _wait_until_works(settings, paths, supervisor, began + START_DEADLINE_S)
    say(f"It runs at {status.url} ({time.monotonic() - began:.1f} s). Stop it with `sweep down`.")
    return status.url


def stop_cluster(settings: Settings) -> bool:
    """Stop the roles of this machine's cluster and its Postgres. Trials that run go on, and are adopted at the next start.

    Returns:
        Whether anything was running.

    Raises:
        LocalError: the supervisor does not end.
        EmbeddedError: Postgres does not end, or runs on another host.
    """
    status = cluster_status(settings)
    was_running = status.is_running
    if was_running:
        os.kill(status.pid, signal.SIGTERM)
        # Grace for the roles, in two rounds, and for Postgres.
        if not _wait_for(lambda: not status.is_running, 2 * GRACE_S + embedded.STOP_DEADLINE_S):
            raise LocalError(
                f"The supervisor of the cluster (process {status.pid}) does not end.",
                hint=f"{_Paths(settings.home).log('local')} tells more.",
            )
    # What a supervisor that was killed has left behind.
    n_left = _end_leftovers(status)
    return embedded.stop(settings.home) or was_running or n_left > 0


def cluster_status(settings: Settings) -> LocalStatus:
    """What is known of this machine's cluster; starts and changes nothing."""
    paths = _Paths(settings.home)
    try:
        return _written(paths)
    except ValueError as error:
        # It is replaced as a whole, so only a machine that went down leaves half of one, and nothing that it could name.
        if _is_locked(paths.lock):
            raise _unreadable(paths, error) from error
        return LocalStatus()


def _written(paths: _Paths) -> LocalStatus:
    """What a supervisor wrote last. ValueError tells that it is not whole."""
    try:
        told = json.loads(paths.state.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return LocalStatus()
    except OSError as error:
        raise LocalError(f"{paths.state} can't be read: {error.strerror}.", hint="Try again when that is put right.") from error
    try:
        told["roles"] = tuple(RoleStatus(**role) for role in told["roles"])
        told["host"] = told["host"] and Incarnation(**told["host"])
        told["error"] = tuple(told["error"])
        return LocalStatus(**told)
    except (TypeError, KeyError) as error:
        raise _unreadable(paths, error) from error


def _unreadable(paths: _Paths, error: Exception) -> LocalError:
    return LocalError(f"{paths.state} can't be understood: {error}.", hint="Stop the cluster with the release that started it, or delete that file.")


class _Probe(Client):
    """A client that asks once, and takes no answer for an answer."""

    retry_waits_s = ()

    def says_healthy(self) -> bool:
        try:
            return self.is_healthy()
        except ServerError:
            return False
        finally:
            self.close()

    def has_worker(self) -> bool:
        try:
            return any(worker["state"] == "live" for worker in self.workers()["workers"])
        except ServerError:
            return False
        finally:
            self.close()


def _wait_until_works(settings: Settings, paths: _Paths, supervisor: Sequence[str], deadline: float) -> LocalStatus:
    pid = 0
    while time.monotonic() < deadline:
        status = cluster_status(settings)
        if not status.is_running:
            if pid and status.pid == pid:
                raise _failure(paths, status)
            # Zero when another one is about to start, or still about to end.
            pid = _launch(settings, paths, supervisor)
        elif status.phase == "running":
            probe = _Probe(status.url)
            if probe.says_healthy() and probe.has_worker():
                return status
            _raise_when_failing(paths, status)
        # Imports take seconds of both cores here, so looking more often would only slow them down.
        time.sleep(0.05)
    status = cluster_status(settings)
    raise _failure(paths, replace(status, error=(f"The cluster does not work after {START_DEADLINE_S:.0f} s.", "")))


def _launch(settings: Settings, paths: _Paths, supervisor: Sequence[str]) -> int:
    """Start a supervisor. Returns its process id, or 0 if there is one already."""
    try:
        paths.make()
    except OSError as error:
        raise LocalError(f"{paths.home} can't be used: {error.strerror}.", hint="Set SWEEP_HOME to a folder that can be written to.") from error
    command, environ = [*supervisor, str(paths.home)], _environment_of(settings)
    try:
        ended = subprocess.run(command, cwd=paths.home, env=environ, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", check=False)
    except OSError as error:
        raise LocalError(f"The cluster's supervisor can't be started: {error.strerror}.", hint="Try again when that is put right.") from error
    if ended.returncode != 0 or not ended.stdout.strip().isdigit():
        said = [line for line in ended.stderr.splitlines() if line.strip()][-SHOWN_LINES:] or _last_lines(paths.log("local"))
        raise LocalError("\n    ".join(["The cluster's supervisor can't be started.", *said]), hint=f"{paths.logs} has the whole story.")
    return int(ended.stdout)


def _environment_of(settings: Settings) -> dict[str, str]:
    """This process' environment, with all settings as they are and none that is only a client's."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
    for item in fields(Settings):
        environ[PREFIX + item.name.upper()] = str(getattr(settings, item.name))
    for name in ("SERVER", "TOKEN"):
        del environ[PREFIX + name]
    return environ


def _raise_when_failing(paths: _Paths, status: LocalStatus) -> None:
    for role in status.roles:
        if role.n_ended >= FAILURES_SHOWN_AFTER:
            message = f"The {role.name} of the cluster does not stay up ({role.ended})."
            raise _shown(message, paths.log(role.name), hint="The cluster goes on trying; `sweep down` stops it.")


def _failure(paths: _Paths, status: LocalStatus) -> LocalError:
    message, hint = status.error
    dead = next((role.name for role in status.roles if not role.is_running), "local")
    if hint:
        return LocalError(message, hint=hint)
    return _shown(message or "The cluster ended while it started.", paths.log(dead))


def _shown(message: str, log: Path, *, hint: str = "") -> LocalError:
    lines = _last_lines(log)
    head = f"{message} The end of {log}:" if lines else message
    return LocalError("\n    ".join([head, *lines]), hint=hint or f"{log.parent} has the whole story.")


def _last_lines(log: Path) -> list[str]:
    if not log.exists():
        return []
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 16384))
        return [line for line in file.read().decode(errors="replace").splitlines() if line.strip()][-SHOWN_LINES:]


# ------------------------------------------------------------------------------------------------------------------ the supervisor


def role_commands(port: int) -> dict[str, list[str]]:
    """The commands of the roles. `-P`: a `worker.py` in the folder of whoever starts the cluster is not ours."""
    sweep = [sys.executable, "-P", "-m", "sweeps.cli"]
    return {"server": [*sweep, "server", "--host", HOST, "--port", str(port)], "scheduler": [*sweep, "scheduler"], "worker": [*sweep, "worker"]}


def main(home: str, commands: Commands = role_commands) -> int:
    """Become the supervisor of a home, detached, by the settings in the environment. Prints its process id, or 0 if there is one."""
    try:
        return _supervise(replace(load_settings(), home=Path(home)), commands)
    except OSError as error:
        # Shown to whoever starts the cluster: how we came there would tell them nothing.
        sys.stderr.write(f"{error}\n")
        return LocalError.exit_status


def _supervise(settings: Settings, commands: Commands) -> int:
    paths = _Paths(settings.home)
    paths.make()
    with paths.lock.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            sys.stdout.write("0\n")
            return 0
        read_end, write_end = os.pipe()
        if os.fork() != 0:
            # The caller waits for this process only. It goes when the other, which init adopts, has written its state.
            os.close(write_end)
            sys.stdout.write(os.read(read_end, 32).decode())
            return 0
        os.setsid()
        _redirect(paths.log("local"))
        logging.basicConfig(level=settings.log_level, format="%(asctime)s %(levelname)s %(message)s")
        supervisor = _Supervisor(settings, paths, commands, lock)
        os.write(write_end, b"%d\n" % os.getpid())
        os.close(write_end)
        return supervisor.run()


def _redirect(log: Path) -> None:
    _rotate(log)
    out = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for fd, target in ((nothing, 0), (out, 1), (out, 2)):
        os.dup2(fd, target)


@dataclass(slots=True)
class _Again:
    """When to try once more what did not work: later and later.

    Attributes:
        due: monotonic; infinite while there is nothing to be tried again.
    """

    back_off_s: float = BACK_OFF_S[0]
    due: float = math.inf

    def put_off(self) -> None:
        self.due = time.monotonic() + self.back_off_s
        self.back_off_s = min(2 * self.back_off_s, BACK_OFF_S[1])

    def is_over(self) -> None:
        self.back_off_s, self.due = BACK_OFF_S[0], math.inf


@dataclass(slots=True)
class _Role:
    """A role's process, and when the next one is due if it has ended."""

    name: str
    status: RoleStatus
    process: "subprocess.Popen[bytes] | None" = None
    began: float = 0.0
    again: _Again = field(default_factory=_Again)
    n_ended: int = 0


class _Supervisor:
    """Keeps the roles and Postgres running until it is told to stop."""

    def __init__(self, settings: Settings, paths: _Paths, commands: Commands, lock: IO[str]) -> None:
        before = LocalStatus()
        with contextlib.suppress(ValueError):  # half of one: the lock is ours, so there is nobody that wrote it
            before = _written(paths)
        self._settings = settings
        self._paths = paths
        self._commands = commands
        self._lock = lock
        self._port = before.port
        self._database_url = settings.database_url
        self._roles: dict[str, _Role] = {}
        self._upgrade: subprocess.Popen[bytes] | None = None
        self._is_stopping = False
        self._postgres: int | None = None
        self._postgres_again = _Again()
        self._look_again = _Again()
        self._write_again = _Again()
        me = os.getpid()
        self._state = LocalStatus(
            phase="starting",
            url=before.url,
            port=before.port,
            pid=me,
            process_start=process_start(me),
            host=incarnation(),
            started_at=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        self._woken, wake = os.pipe()
        for fd in (self._woken, wake):
            os.set_blocking(fd, False)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        # A handler, even one that does nothing, is what makes a signal wake the loop.
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._ask_to_stop)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        self._leftovers = before
        # Nothing runs yet, and somebody waits to be told: here a lack is an error.
        self._replace_state()

    def run(self) -> int:
        """Start everything, watch it, and stop everything when told to. Returns the exit status."""
        try:
            _end_leftovers(self._leftovers)
            self._start()
            self._watch()
        except SweepError as error:
            _LOG.error("%s", error.message)
            self._stop("failed", error)
            return error.exit_status
        except Exception as error:  # noqa: BLE001 - whatever it is, no role may stay behind unwatched
            _LOG.exception("the supervisor failed")
            self._stop("failed", LocalError(f"The cluster's supervisor failed: {error!r}.", hint=f"{self._paths.log('local')} tells more."))
            return 1
        self._stop("stopped")
        return 0

    def _ask_to_stop(self, *_: object) -> None:
        self._is_stopping = True

    # -- starting

    def _start(self) -> None:
        """Postgres, its schema and the roles, all at once: each role waits by itself for what it needs."""
        environ = _role_environment(self._settings, self._database_url, "")
        with _output(self._paths.log("upgrade")) as log:
            command = [sys.executable, "-P", "-m", _UPGRADE]
            self._upgrade = subprocess.Popen(command, cwd=self._paths.home, env=environ, stdin=subprocess.PIPE, stdout=log, stderr=log)
        if not self._settings.database_url:
            self._ensure_postgres()
        _tell(self._upgrade, self._database_url)
        self._choose_port()
        for name in self._commands(self._port):
            role = self._roles[name] = _Role(name, RoleStatus(name, 0, ""))
            if not self._is_stopping:
                self._start_role(role)
        self._write()

    def _watch_upgrade(self) -> bool:
        code = self._upgrade.poll() if self._upgrade is not None else None
        if code is None:
            return False
        self._upgrade = None
        if code != 0:
            raise _shown("The database's schema can't be brought up to date.", self._paths.log("upgrade"))
        self._state = replace(self._state, phase="running")
        return True

    def _ensure_postgres(self) -> None:
        self._database_url = embedded.ensure_running(self._settings.home)
        pid = embedded.status(self._settings.home).pid
        if self._postgres is not None:
            os.close(self._postgres)
        self._postgres = None
        if sys.platform == "linux" and pid is not None:
            with contextlib.suppress(OSError):  # the loop then looks at it now and then
                self._postgres = os.pidfd_open(pid)

    def _choose_port(self) -> None:
        self._port = next((port for port in (self._port, PREFERRED_PORT) if port and _is_free(port)), 0) or _free_port()
        self._state = replace(self._state, port=self._port, url=f"http://{HOST}:{self._port}")

    def _start_role(self, role: _Role) -> None:
        try:
            self._spawn(role)
        except _LACKS as error:
            self._note_end(role, f"not started: {_text(error)}")

    def _spawn(self, role: _Role) -> None:
        if role.name == "server" and not _is_free(self._port):
            self._move_port()
        environ = _role_environment(self._settings, self._database_url, self._state.url)
        with _output(self._paths.log(role.name)) as log:
            role.process = subprocess.Popen(
                self._commands(self._port)[role.name], cwd=self._paths.home, env=environ, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        role.began = time.monotonic()
        pid = role.process.pid
        try:
            role.status = replace(role.status, pid=pid, process_start=process_start(pid))
        except OSError:
            # One that could not be told from a stranger later must not be left behind.
            role.process.kill()
            role.process.wait()
            role.process = None
            raise
        _LOG.info("%s started, process %d", role.name, pid)

    # -- watching

    def _watch(self) -> None:
        while not self._is_stopping:
            self._sleep()
            try:
                self._look()
            except _LACKS as error:
                _LOG.warning("what runs can't be looked at: %s; again in %.1f s", _text(error), self._look_again.back_off_s)
                self._look_again.put_off()
            else:
                self._look_again.is_over()

    def _look(self) -> None:
        has_changed = self._watch_upgrade()
        self._watch_postgres()
        for role in self._roles.values():
            has_changed |= self._watch_role(role)
        if has_changed or self._write_again.due <= time.monotonic():
            self._write()

    def _sleep(self) -> None:
        """Until a signal, the end of Postgres, or the time of the next restart."""
        dues = [role.again.due for role in self._roles.values() if role.process is None] + [self._write_again.due]
        watched = [self._woken]
        if self._look_again.due < math.inf:
            dues = [self._look_again.due]
        elif not self._settings.database_url:
            dues.append(self._postgres_again.due)
            if self._postgres is None:
                dues.append(time.monotonic() + 5.0)  # no way to be told of its end, so look now and then
            elif self._postgres_again.due == math.inf:
                watched.append(self._postgres)
        timeout_s = max(0.0, min(dues) - time.monotonic()) if min(dues) < math.inf else None
        if self._is_stopping:
            return
        ready, _, _ = select.select(watched, [], [], timeout_s)
        if self._woken in ready:
            os.read(self._woken, 4096)

    def _watch_role(self, role: _Role) -> bool:
        if role.process is None:
            if time.monotonic() < role.again.due or self._is_stopping:
                return False
            self._start_role(role)
            return True
        code = role.process.poll()
        if code is None:
            return False
        role.process = None
        if time.monotonic() - role.began > STEADY_S:
            role.again.is_over()
            role.n_ended = 0
        self._note_end(role, f"exit status {code}" if code >= 0 else f"signal {-code}")
        return True

    def _note_end(self, role: _Role, ended: str) -> None:
        _LOG.warning("%s is down: %s; started again in %.1f s", role.name, ended, role.again.back_off_s)
        role.again.put_off()
        role.n_ended += 1
        role.status = replace(role.status, n_ended=role.n_ended, ended=ended)

    def _move_port(self) -> None:
        """Somebody else took the port while the server was not there: all roles must learn the new address."""
        self._choose_port()
        _LOG.warning("the port is taken; the server moves to %s", self._state.url)
        for role in self._roles.values():
            if role.process is not None:
                role.process.terminate()

    def _watch_postgres(self) -> None:
        again = self._postgres_again
        is_again = again.due < math.inf
        if self._settings.database_url or (is_again and time.monotonic() < again.due):
            return
        try:
            if not is_again and embedded.status(self._settings.home).is_running:
                return
            is_gone = not _is_same_file(self._paths.lock, self._lock)
            if not is_gone:
                _LOG.warning("Postgres ended; it is started again")
                self._ensure_postgres()
                again.is_over()
        except (SweepError, *_LACKS) as error:
            _LOG.error("%s Again in %.1f s.", _text(error), again.back_off_s)
            again.put_off()
            return
        if is_gone:
            raise LocalError(f"The home {self._paths.home} was deleted or replaced.", hint="Start the cluster again.")

    # -- stopping

    def _stop(self, phase: str, error: SweepError | None = None) -> None:
        self._write(phase="stopping")
        if self._upgrade is not None:
            # It works in one transaction, so it may be cut short.
            self._upgrade.kill()
            self._upgrade.communicate()
        others = tuple(name for name in self._roles if name not in {name for names in _STOP_ORDER for name in names})
        for names in (*_STOP_ORDER, others):
            self._end([role for role in self._roles.values() if role.name in names])
        if not self._settings.database_url:
            try:
                embedded.stop(self._settings.home)
            except SweepError as failed:
                phase, error = "failed", error or failed
        _LOG.info("%s", phase)
        self._write(phase=phase, error=(error.message, error.hint) if error else ("", ""))

    def _end(self, roles: Sequence[_Role]) -> None:
        processes = [role.process for role in roles if role.process is not None]
        for process in processes:
            process.terminate()
        deadline = time.monotonic() + GRACE_S
        while any(process.poll() is None for process in processes) and time.monotonic() < deadline:
            select.select([self._woken], [], [], max(0.0, deadline - time.monotonic()))
            with contextlib.suppress(BlockingIOError):
                os.read(self._woken, 4096)
        for process in processes:
            if process.poll() is None:
                _LOG.warning("process %d does not end within %.0f s; killed", process.pid, GRACE_S)
                process.kill()
            process.wait()

    def _write(self, **changes: object) -> None:
        roles = tuple(role.status for role in self._roles.values())
        self._state = replace(self._state, roles=roles, **changes)  # type: ignore[arg-type]  # names and types are LocalStatus' own
        try:
            if self._paths.folder.exists():  # else the home was deleted, and there is nobody to tell
                self._replace_state()
        except _LACKS as error:
            # Only who looks from outside reads that file: what it tells of goes on, and goes on being watched.
            _LOG.warning("%s can't be written: %s; again in %.1f s", self._paths.state, _text(error), self._write_again.back_off_s)
            self._write_again.put_off()
        else:
            self._write_again.is_over()

    def _replace_state(self) -> None:
        temporary = self._paths.state.with_suffix(".new")
        temporary.write_text(json.dumps(asdict(self._state), indent=1))
        temporary.replace(self._paths.state)


def _role_environment(settings: Settings, database_url: str, server_url: str) -> dict[str, str]:
    return {
        **os.environ,
        "SWEEP_HOME": str(settings.home),
        "SWEEP_DATABASE_URL": database_url,
        "SWEEP_BROKER_URL": settings.broker_url or "filesystem://",
        "SWEEP_SERVER": server_url,
    }


def _tell(process: "subprocess.Popen[bytes]", line: str) -> None:
    """Write a line to a process' standard input and close it; one that has ended says so by its exit status."""
    with contextlib.suppress(BrokenPipeError):
        if process.stdin is not None:
            process.stdin.write(line.encode() + b"\n")
            process.stdin.close()


def _end_leftovers(status: LocalStatus) -> int:
    """End the roles of a supervisor that was killed: nobody watches them, and a second set would work beside them."""
    if status.is_running or status.host is None or not status.host.shares_processes(incarnation()):
        return 0
    left = [role for role in status.roles if role.is_running]
    for number in (signal.SIGTERM, signal.SIGKILL):
        for role in left:
            if role.is_running:
                with contextlib.suppress(ProcessLookupError):  # it may end between the look and the signal
                    os.kill(role.pid, number)
        if _wait_for(lambda: not any(role.is_running for role in left), GRACE_S):
            break
    return len(left)


def _text(error: BaseException) -> str:
    return str(error) or type(error).__name__


def _is_free(port: int) -> bool:
    try:
        socket.create_server((HOST, port)).close()
    except OSError as error:
        if error.errno in {errno.EADDRINUSE, errno.EACCES}:
            return False
        raise  # nothing is known of the port then
    return True


def _free_port() -> int:
    with socket.create_server((HOST, 0)) as listener:
        return int(listener.getsockname()[1])


def _is_locked(path: Path) -> bool:
    """Whether a supervisor lives: it holds this lock for as long."""
    try:
        with path.open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def _is_same_file(path: Path, file: IO[str]) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False


@contextlib.contextmanager
def _output(log: Path) -> Iterator[IO[bytes]]:
    _rotate(log)
    with log.open("ab") as file:
        yield file


def _rotate(log: Path) -> None:
    if log.exists() and log.stat().st_size > LOG_KEPT_BYTES:
        log.replace(log.with_name(f"{log.name}.1"))


def _wait_for(condition: Callable[[], bool], deadline_s: float) -> bool:
    """Processes that are not our children: there is nothing to wait on, so look."""
    end = time.monotonic() + deadline_s
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
