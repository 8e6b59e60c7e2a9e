"""Servers that tests start for themselves, and stop by process: Redis, and Postgres of any version at hand."""

import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from tests.support.needs import program

DEADLINE_S: Final = 60.0
POSTGRES_FOLDERS: Final = ("usr/lib/postgresql/*/bin", "usr/pgsql-*/bin", "opt/homebrew/opt/postgresql@*/bin", "usr/local/opt/postgresql@*/bin")
OLDEST_POSTGRES: Final = 14


def wait_until(is_true: Callable[[], object], what: str, *, deadline_s: float = DEADLINE_S, interval_s: float = 0.05) -> None:
    """Return as soon as `is_true()`; for what sends no signal of its own.

    Raises:
        TimeoutError: it did not come true before the deadline; the message says `what`.
    """
    deadline = time.monotonic() + deadline_s
    while not is_true():
        if time.monotonic() > deadline:
            raise TimeoutError(f"Waited {deadline_s:g} s in vain: {what}.")
        time.sleep(interval_s)


def free_port() -> int:
    """A TCP port on loopback that nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def stop_process(process: "subprocess.Popen[bytes]", *, grace_s: float = 15.0) -> int:
    """SIGTERM, and SIGKILL if that does not help; the exit status."""
    if process.poll() is None:
        process.terminate()
    try:
        return process.wait(grace_s)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


def process_state(pid: int) -> tuple[str, int] | None:
    """A process's state by one letter (`T`: stopped, `Z`: ended, not waited for) and its parent, as proc(5) has them; None once it is gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    # After the name, in brackets, which may hold anything.
    state, parent = stat.rpartition(")")[2].split()[:2]
    return state, int(parent)


def suspend_process(pid: int) -> None:
    """SIGSTOP, and wait until it has stopped: a process of many threads takes a moment."""
    os.kill(pid, signal.SIGSTOP)
    wait_until(lambda: (process_state(pid) or "Z")[0] in "TZ", f"process {pid} has stopped", interval_s=0.002)


class RedisServer:
    """A redis-server of our own on a loopback port, without persistence; can be stopped and started again on its port."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """As SWEEP_BROKER_URL takes it."""
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Start it and wait until it answers."""
        command = [
            program("redis-server"),
            "--bind",
            "127.0.0.1",
            "--port",
            str(self.port),
            "--save",
            "",
            "--appendonly",
            "no",
            "--maxmemory-policy",
            "noeviction",
        ]
        with (self.folder / "redis.log").open("ab") as log:
            self._process = subprocess.Popen(command, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        wait_until(lambda: self.command(b"PING").startswith(b"+PONG"), f"redis-server on port {self.port} answers")

    def command(self, line: bytes) -> bytes:
        """One inline command's raw answer, empty when nobody answers."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=5) as connection:
                connection.sendall(line + b"\r\n")
                return connection.recv(4096)
        except OSError:
            return b""

    def stop(self) -> None:
        """Stop it; what it held is gone."""
        if self._process is not None:
            stop_process(self._process)
            self._process = None

    def kill(self) -> None:
        """SIGKILL it; what it held is gone."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def restart(self) -> None:
        """Kill it and start it anew, empty."""
        self.kill()
        self.start()

    def flush(self) -> None:
        """Forget everything, bindings and queues among it; connections stay."""
        answer = self.command(b"FLUSHALL")
        if not answer.startswith(b"+OK"):
            raise RuntimeError(f"Redis on port {self.port} was not emptied: {answer!r}")

    def suspend(self) -> None:
        """SIGSTOP it: it keeps its connections and answers nothing."""
        suspend_process(self._running().pid)

    def wake(self) -> None:
        """SIGCONT it."""
        self._running().send_signal(signal.SIGCONT)

    def _running(self) -> "subprocess.Popen[bytes]":
        if self._process is None:
            raise AssertionError("this Redis does not run")
        return self._process


class PostgresServer:
    """A Postgres from an installation on this machine, listening on a Unix socket only."""

    def __init__(self, bin_folder: Path) -> None:
        self.bin_folder = bin_folder
        self.version = postgres_version(bin_folder)
        # Not under pytest's folders: as root the server runs as another user, who can't enter those.
        self._folder = Path(tempfile.mkdtemp(prefix="sweep-pg-"))
        self._user = _unprivileged_user()
        if self._user is not None:
            os.chown(self._folder, pwd.getpwnam(self._user).pw_uid, -1)

    @property
    def url(self) -> str:
        """Of its maintenance database."""
        return f"postgresql://sweep@/postgres?host={self._folder}"

    def start(self) -> None:
        """initdb, start, wait until it takes connections."""
        data = str(self._folder / "data")
        self._run("initdb", "-D", data, "-U", "sweep", "-A", "trust", "-E", "UTF8", "--no-locale", "--no-sync")
        options = f"-k {self._folder} -c listen_addresses='' -c fsync=off -c max_connections=60"
        self._run("pg_ctl", "-D", data, "-w", "-t", str(int(DEADLINE_S)), "-l", str(self._folder / "server.log"), "-o", options, "start")

    def stop(self) -> None:
        """Stop it and remove its data."""
        self._run("pg_ctl", "-D", str(self._folder / "data"), "-w", "-m", "immediate", "stop")
        shutil.rmtree(self._folder)

    def _run(self, name: str, *arguments: str) -> None:
        # pg_ctl's server keeps the output open: a pipe would never end.
        with (self._folder / "commands.log").open("ab") as log:
            done = subprocess.run(
                [str(self.bin_folder / name), *arguments], cwd=self._folder, user=self._user, stdin=subprocess.DEVNULL, stdout=log, stderr=log, check=False
            )
        if done.returncode != 0:
            raise RuntimeError(f"{name} failed:\n{(self._folder / 'commands.log').read_text(errors='replace')[-2000:]}")


def find_postgres() -> list[Path]:
    """Folders with the binaries of each Postgres on this machine that is new enough, one a version, oldest first."""
    folders = [folder for pattern in POSTGRES_FOLDERS for folder in Path("/").glob(pattern)]
    folders += [Path(path).parent for name in ("initdb", "postgres") if (path := shutil.which(name))]
    if config := shutil.which("pg_config"):
        told = subprocess.run([config, "--bindir"], capture_output=True, text=True, check=False).stdout.strip()
        folders.append(Path(told))
    complete = [folder for folder in folders if all((folder / name).exists() for name in ("initdb", "pg_ctl", "postgres"))]
    by_version = {postgres_version(folder): folder for folder in reversed(complete)}
    return [folder for version, folder in sorted(by_version.items()) if version >= OLDEST_POSTGRES]


def postgres_version(bin_folder: Path) -> int:
    """Major version of an installation."""
    told = subprocess.run([str(bin_folder / "postgres"), "--version"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"(\d+)", told)
    if found is None:
        raise RuntimeError(f"{bin_folder}/postgres does not tell its version: {told!r}")
    return int(found[1])


def _unprivileged_user() -> str | None:
    """Postgres refuses to run as root; None when we are not root."""
    if os.geteuid() != 0:
        return None
    names = {entry.pw_name for entry in pwd.getpwall()}
    return next(name for name in ("postgres", "nobody", "daemon") if name in names)
