"""A Postgres of a test's own, over TCP, to be stopped, killed and started again. Its binaries are those of the embedded one."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Final, Literal

import psycopg2

from tests.support.services import DEADLINE_S, free_port, process_state, suspend_process, wait_until
from tracking import embedded
from tracking.store.database import normalise_url
from tracking.store.schema import upgrade_schema

StopMode = Literal["smart", "fast", "immediate"]

_SIGNALS: Final[Mapping[StopMode, signal.Signals]] = {"smart": signal.SIGTERM, "fast": signal.SIGINT, "immediate": signal.SIGQUIT}
# Without fsync a killed server still keeps what it has committed: the machine goes on.
_OPTIONS: Final[Mapping[str, str]] = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "fsync": "off",
    "max_connections": "100",
    "shared_buffers": "32MB",
    "log_min_messages": "warning",
}
DATABASE: Final = "sweep"


class OwnPostgres:
    """One server with the product's schema in database `sweep`, on a port that stays from start to start.

    Args:
        folder: where its data lies, as `make_template` or `copy_template` made it.
        options: of the server, such as `max_connections`.
    """

    def __init__(self, folder: Path, options: Mapping[str, str] | None = None) -> None:
        self.port = free_port()
        self.options = {**_OPTIONS, **(options or {})}
        self.folder = folder
        self.data = folder / "data"
        self.log_file = folder / "server.log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Of its database, past any proxy."""
        return self._url_of(DATABASE)

    @property
    def is_running(self) -> bool:
        """Whether its first process has not ended."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """Of its first process."""
        if self._process is None:
            raise AssertionError("this Postgres was never started")
        return self._process.pid

    def start(self, *, is_awaited: bool = True) -> None:
        """Start it and wait until it takes connections; after a kill it recovers first."""
        command = [str(_binaries() / "postgres"), "-D", str(self.data), "-p", str(self.port)]
        for name, value in self.options.items():
            command += ["-c", f"{name}={value}"]
        with self.log_file.open("ab") as log:
            self._process = subprocess.Popen(_as_server_user(command), env=_environ(), stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
        if is_awaited:
            wait_until(self._answers, f"Postgres on port {self.port} answers", interval_s=0.02)

    def stop(self, mode: StopMode = "fast") -> None:
        """Stop it as `pg_ctl stop -m` does, and wait; its data stays."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(_SIGNALS[mode])
            self._process.wait(DEADLINE_S)

    def restart(self, mode: StopMode = "fast") -> None:
        """Stop and start."""
        self.stop(mode)
        self.start()

    def kill(self) -> None:
        """SIGKILL every process of it at once, as the kernel or a power cut would."""
        if not self.is_running or self._process is None:
            return
        # Stopped first, it starts no more of them while they are counted.
        suspend_process(self._process.pid)
        family = [self._process.pid, *children(self._process.pid)]
        for pid in family:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.wait()
        wait_until(lambda: all((process_state(pid) or "Z")[0] == "Z" for pid in family), "the processes of Postgres are gone", interval_s=0.01)

    def suspend(self) -> None:
        """SIGSTOP every process of it: it keeps its connections and answers nothing."""
        suspend_process(self.pid)
        for pid in children(self.pid):
            suspend_process(pid)

    def wake(self) -> None:
        """SIGCONT every process of it."""
        for pid in (self.pid, *children(self.pid)):
            os.kill(pid, signal.SIGCONT)

    def execute(self, statement: str, *, database: str = DATABASE) -> None:
        """Run a statement by itself, past the product: a lock, an ALTER SYSTEM, a lost connection."""
        connection = psycopg2.connect(self._url_of(database))
        try:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(statement)
        finally:
            connection.close()

    def remove(self) -> None:
        """Stop it and remove its data."""
        self.kill()
        shutil.rmtree(self.data)
        self.log_file.unlink(missing_ok=True)
        if not any(self.folder.iterdir()):
            self.folder.rmdir()

    def _url_of(self, database: str) -> str:
        return f"postgresql://sweep@127.0.0.1:{self.port}/{database}"

    def _answers(self) -> bool:
        if self._process is not None and self._process.poll() is not None:
            raise RuntimeError(f"Postgres ended with {self._process.returncode}:\n{self.log_file.read_text(errors='replace')[-2000:]}")
        try:
            # The database that is always there: the template's server has no other yet.
            psycopg2.connect(self._url_of("postgres"), connect_timeout=5).close()
        except psycopg2.OperationalError:
            return False
        return True


def make_template() -> Path:
    """Make a folder with the newest schema in database `sweep`, of a server that was shut down in order."""
    folder = _private_folder()
    command = [str(_binaries() / "initdb"), "-D", str(folder / "data"), "-U", "sweep", "-A", "trust", "-E", "UTF8", "--no-locale", "--no-sync"]
    subprocess.run(_as_server_user(command), env=_environ(), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=True)
    server = OwnPostgres(folder)
    server.start()
    server.execute(f"CREATE DATABASE {DATABASE}", database="postgres")
    upgrade_schema(normalise_url(server.url))
    server.stop()
    return folder


def copy_template(template: Path, *, folder: Path | None = None) -> Path:
    """Copy what `make_template` made; the folder of the copy.

    Args:
        folder: an existing one, such as a small file system of its own.
    """
    folder = _private_folder() if folder is None else folder
    shutil.copytree(template / "data", folder / "data")
    _hand_over(folder)
    return folder


def _private_folder() -> Path:
    # Not under pytest's folders: as root the server runs as another user, who can't enter those.
    folder = Path(tempfile.mkdtemp(prefix="sweep-pg-"))
    _hand_over(folder)
    return folder


def children(pid: int) -> list[int]:
    """Processes started by another one that have not ended."""
    states = {int(entry.name): process_state(int(entry.name)) for entry in Path("/proc").glob("[0-9]*")}
    return [child for child, state in states.items() if state is not None and state[1] == pid and state[0] != "Z"]


def _binaries() -> Path:
    return max(embedded._installs().items())[1] / "bin"


def _server_user() -> tuple[int, int]:
    """Postgres refuses to run as root."""
    if os.geteuid() != 0:
        return os.geteuid(), os.getegid()
    user = embedded._named_user()
    return user.uid, user.gid


def _as_server_user(command: list[str]) -> list[str]:
    """The command, run by the embedded one's launcher: as its user, who may pass through folders that only root may."""
    uid, gid = _server_user()
    launch = embedded._Launch(command, uid, gid, with_capability=uid != os.geteuid())
    return [sys.executable, "-P", "-S", "-m", "tracking.embedded", json.dumps(asdict(launch))]


def _environ() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(Path(embedded.__file__).resolve().parent.parent)}


def _hand_over(folder: Path) -> None:
    uid, gid = _server_user()
    if uid == os.geteuid():
        return
    for parent, _, names in os.walk(folder):
        for path in (Path(parent), *(Path(parent, name) for name in names)):
            os.chown(path, uid, gid, follow_symlinks=False)
