"""A cluster of real processes: server, scheduler and workers as `python -m sweeps.cli ...`, over given URLs.

Each has a log of its own, printed when a test fails. Everything is stopped by process id, and the trials that workers
left running on purpose are ended too.
"""

import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

from sqlalchemy import create_engine
from sqlalchemy.engine import Engine, Row

from sweeps.api.shapes import TrialAnswer
from sweeps.client import Client, ServerAway
from sweeps.spec import load_sweep
from sweeps.submission import send
from tests.support.services import free_port, process_state, stop_process, suspend_process, wait_until
from tracking.settings import Settings
from tracking.store.database import normalise_url

LOG_TAIL_BYTES: Final = 8000
READY_S: Final = 60.0


@dataclass
class Role:
    """One process of the cluster."""

    name: str
    process: "subprocess.Popen[bytes]"
    log_file: Path
    arguments: tuple[str, ...] = ()

    @property
    def is_running(self) -> bool:
        """Whether it has not ended."""
        return self.process.poll() is None

    def stop(self) -> int:
        """End it as an operator would; its exit status."""
        return stop_process(self.process, grace_s=30.0)

    def kill(self) -> None:
        """End it as a power cut would."""
        self.process.kill()
        self.process.wait()

    def wait(self, deadline_s: float = 60.0) -> int:
        """Wait until it has ended, by a failpoint say; its exit status, negative for a signal."""
        return self.process.wait(deadline_s)

    @property
    def is_suspended(self) -> bool:
        """Whether it was stopped by SIGSTOP and not woken since."""
        state = process_state(self.process.pid)
        return state is not None and state[0] == "T"

    def suspend(self) -> None:
        """Make it fall silent."""
        suspend_process(self.process.pid)

    def wake(self) -> None:
        """Let it go on."""
        self.process.send_signal(signal.SIGCONT)

    def log(self) -> str:
        """What it said, the last part."""
        return self.log_file.read_bytes()[-LOG_TAIL_BYTES:].decode(errors="replace")


@dataclass
class Cluster:
    """Roles over one database and one broker.

    Attributes:
        folder: for homes, artifacts and logs.
        broker_url: as SWEEP_BROKER_URL takes it; `none` for none.
        environ: more variables for every role, such as a shorter lease.
    """

    folder: Path
    database_url: str
    broker_url: str
    environ: Mapping[str, str] = field(default_factory=dict)
    port: int = field(default_factory=free_port)
    roles: list[Role] = field(default_factory=list)

    @property
    def url(self) -> str:
        """Of the server."""
        return f"http://127.0.0.1:{self.port}"

    def start(self, *, workers: Sequence[str] = ("w1",), worker_arguments: Sequence[str] = ()) -> "Cluster":
        """Start a server, a scheduler and workers of these names, all at a time, and wait until all are ready."""
        server, scheduler = self.start_server(is_awaited=False), self.start_scheduler(is_awaited=False)
        for name in workers:
            self.start_worker(name, *worker_arguments, is_awaited=False)
        self._wait_for_server(server)
        self._wait_for_leader(scheduler)
        self.wait_for_workers(*workers)
        return self

    def start_server(self, *arguments: str, is_awaited: bool = True) -> Role:
        """Start a server and wait until it answers."""
        role = self._start("server", "server", "--host", "127.0.0.1", "--port", str(self.port), *arguments)
        if is_awaited:
            self._wait_for_server(role)
        return role

    def start_scheduler(self, *arguments: str, name: str = "scheduler", is_awaited: bool = True) -> Role:
        """Start a scheduler and wait until one leads."""
        role = self._start(name, "scheduler", *arguments)
        if is_awaited:
            self._wait_for_leader(role)
        return role

    def start_worker(self, name: str, *arguments: str, is_awaited: bool = True) -> Role:
        """Start a worker; its state folder stays from one start to the next of the same name."""
        role = self._start(name, "worker", "--name", name, *arguments)
        if is_awaited:
            self.wait_for_workers(name)
        return role

    def restart(self, name: str, *, is_awaited: bool = True) -> Role:
        """Start the newest process of this name again, as it was started before; killed first if it still runs."""
        old = self.role(name)
        if old.is_running:
            old.kill()
        role = self._start(name, *old.arguments)
        if is_awaited:
            self.wait_for_role(role)
        return role

    def wait_for_role(self, role: Role) -> None:
        """Wait until a server answers, a scheduler leads, a worker is known."""
        kind = role.arguments[0]
        if kind == "server":
            self._wait_for_server(role)
        elif kind == "scheduler":
            self._wait_for_leader(role)
        else:
            self.wait_for_workers(role.name)

    def start_flower(self) -> str:
        """Start Flower and wait until it answers; its address."""
        port = free_port()
        role = self._start("flower", "flower", "--port", str(port))
        self._wait(role, lambda: answers(f"http://127.0.0.1:{port}/healthcheck"), "Flower answers")
        return f"http://127.0.0.1:{port}"

    def wait_for_workers(self, *names: str) -> None:
        """Wait until the live sessions of these workers are known."""
        for role in self.roles:
            if role.name in names and role.is_running:
                self._wait(
                    role, partial(self.query, "SELECT 1 FROM sessions WHERE state = 'live' AND pid = %(pid)s", pid=role.process.pid), "the worker is known"
                )

    def sweep(self, *arguments: str, cwd: Path | None = None, status: int | None = 0, timeout_s: float = 110.0) -> "subprocess.CompletedProcess[str]":
        """Run the command line against this server.

        Args:
            status: the exit status to insist on; None for any.
        """
        done = subprocess.run(
            [sys.executable, "-m", "sweeps.cli", *arguments],
            cwd=cwd or self.folder,
            env={**self._environ("cli"), "SWEEP_SERVER": self.url},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        if status is not None and done.returncode != status:
            raise AssertionError(f"sweep {' '.join(arguments)} ended with {done.returncode}, not {status}:\n{done.stdout}\n{done.stderr}")
        return done

    def sweep_json(self, *arguments: str, cwd: Path | None = None) -> Any:
        """What a command says with `--json`."""
        return json.loads(self.sweep(*arguments, "--json", cwd=cwd).stdout)

    def submit(self, file: Path) -> str:
        """Submit a sweep file as the command line does, without the start of an interpreter; its sweep id."""
        with self.client() as client:
            return send(client, load_sweep(file), Settings(home=self.folder / "home-cli"), tell=print)["sweep_id"]

    def wait_for_end(self, sweep_id: str, *, deadline_s: float = 100.0) -> list[TrialAnswer]:
        """Wait until a sweep is over; its trials."""
        with self.client() as client:
            wait_until(lambda: client.sweep(sweep_id)["ended_at"], f"sweep {sweep_id} ends", deadline_s=deadline_s, interval_s=0.1)
            return client.trials(sweep_id)["trials"]

    def wait_for_running(self, sweep_id: str, count: int = 1) -> list[TrialAnswer]:
        """Wait until so many trials of a sweep run; those that do."""
        with self.client() as client:
            wait_until(lambda: client.sweep(sweep_id)["counts"]["running"] >= count, f"{count} trials of {sweep_id} run", interval_s=0.1)
            return [trial for trial in client.trials(sweep_id)["trials"] if trial["run_state"] == "running"]

    def client(self) -> Client:
        """A client of the server; close it."""
        return Client(self.url)

    def query(self, sql: str, **params: object) -> Sequence[Row[Any]]:
        """Rows straight from the database, for checking invariants; not for writing."""
        engine = self._engine()
        try:
            with engine.connect() as connection:
                return connection.exec_driver_sql(sql, params).all()
        finally:
            engine.dispose()

    def role(self, name: str) -> Role:
        """The newest process of this name."""
        return next(role for role in reversed(self.roles) if role.name == name)

    def stop(self) -> None:
        """Stop everything: workers first, the server last, then what the workers left running."""
        for role in reversed(self.roles):
            if role.is_running:
                role.wake()
                role.stop()
        for pid in self._leftovers():
            os.kill(pid, signal.SIGKILL)

    def logs(self) -> str:
        """The ends of all logs, under headings."""
        return "\n".join(f"---- {role.name} (exit status {role.process.poll()})\n{role.log()}" for role in self.roles)

    def _start(self, name: str, *arguments: str) -> Role:
        log_file = self.folder / f"{name}.log"
        with log_file.open("ab") as log:
            process = subprocess.Popen(
                self._command(name, arguments), cwd=self.folder, env=self._environ(name), stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        role = Role(name, process, log_file, arguments)
        self.roles.append(role)
        return role

    def _command(self, name: str, arguments: Sequence[str]) -> Sequence[str]:
        return [sys.executable, "-m", "sweeps.cli", *arguments]

    def _environ(self, name: str) -> dict[str, str]:
        inherited = {key: value for key, value in os.environ.items() if not key.startswith(("SWEEP_", "MLFLOW_"))}
        return inherited | {
            "SWEEP_HOME": str(self.folder / f"home-{name}"),
            "SWEEP_DATABASE_URL": self.database_url,
            "SWEEP_BROKER_URL": self.broker_url,
            "SWEEP_ARTIFACT_ROOT": str(self.folder / "artifacts"),
            "SWEEP_SERVER": self.url,
            "PYTHONPATH": str(Path(__file__).resolve().parents[2]),
            **self.environ,
        }

    def _wait_for_server(self, role: Role) -> None:
        with Client(self.url) as client:
            self._wait(role, client.is_healthy, "the server answers")

    def _wait_for_leader(self, role: Role) -> None:
        self._wait(role, lambda: self.query("SELECT 1 FROM leader WHERE lease_until > now()"), "a scheduler leads")

    def _wait(self, role: Role, is_true: Callable[[], object], what: str) -> None:
        def is_settled() -> bool:
            if not role.is_running:
                raise AssertionError(f"{role.name} ended with {role.process.returncode} before {what}:\n{role.log()}")
            try:
                return bool(is_true())
            except ServerAway:
                return False

        wait_until(is_settled, what, deadline_s=READY_S)

    def _engine(self) -> Engine:
        return create_engine(normalise_url(self.database_url))

    def _leftovers(self) -> Iterator[int]:
        """Processes that work in our folder: trials, their shims and what they started."""
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                where = (entry / "cwd").readlink()
            except OSError:
                continue  # it has ended, or is somebody else's
            if where.is_relative_to(self.folder) and int(entry.name) != os.getpid():
                yield int(entry.name)


def answers(url: str) -> bool:
    """Whether a server says OK there."""
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310  # a server of our own
            return bool(answer.status == 200)
    except OSError:
        return False


@contextmanager
def stopped_afterwards(cluster: Cluster) -> Iterator[Cluster]:
    """Stop a cluster whatever happens, show what its roles said, and insist that none of them was surprised.

    For fixtures that several tests share.
    """
    try:
        yield cluster
    finally:
        cluster.stop()
        # Shown by pytest when a test failed.
        print(cluster.logs())  # noqa: T201
    surprised = [role.name for role in cluster.roles if b"Traceback" in role.log_file.read_bytes()]
    assert not surprised, f"A traceback means a bug: see the logs of {surprised}."
