"""A cluster to be broken: its own Postgres and Redis, each role behind proxies of its own, waiting times scaled down; and the count of what was done to it."""

import contextlib
import json
import os
import signal
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal, overload

import docker
import docker.errors
from sqlalchemy.exc import OperationalError

from sweeps.api.shapes import TrialAnswer
from sweeps.client import ServerAway
from tests.support.cluster import Cluster, Role
from tests.support.ledger import ledger_project
from tests.support.postgres import OwnPostgres
from tests.support.proxy import PostgresProxy, Proxy
from tests.support.services import RedisServer, wait_until
from tracking.settings import Settings, load_settings

Service = Literal["postgres", "redis", "server"]

FULL: Final = os.environ.get("FULL") == "1"
"""Whether waiting times are those of production."""
BROKEN: Final = os.environ.get("SWEEP_TEST_BROKEN", "")
"""Guards that every role is to go without, to see which tests notice: `SWEEP_TEST_BROKEN=no-fence make faults`."""
_SCALED: Final[Mapping[str, str]] = {
    "SWEEP_RENEW_S": "0.3",
    "SWEEP_LEASE_S": "2",
    "SWEEP_REASSIGN_AFTER_S": "4",
    "SWEEP_CLAIM_TIMEOUT_S": "1.5",
    "SWEEP_WATCH_S": "0.2",
    "SWEEP_POLL_S": "0.2",
    "SWEEP_LEADER_LEASE_S": "1",
    "SWEEP_STOP_GRACE_S": "2",
}
WAITS: Final[Mapping[str, str]] = {} if FULL else _SCALED
"""What the roles are told of waiting."""
PATIENT: Final[Mapping[str, str]] = {} if FULL else {"SWEEP_LEASE_S": "10", "SWEEP_REASSIGN_AFTER_S": "60"}
"""More of it, where a worker that is frozen or restarted is to keep its runs, however busy the machine is."""
STRETCH: Final = 40 if FULL else 1
"""How many times longer to wait for anything at full length: a minute is then two reassignments, and what comes with them."""


@dataclass(kw_only=True)
class FaultCluster(Cluster):
    """Roles over a Postgres and a Redis of their own.

    Attributes:
        postgres: to be stopped, killed, started.
        redis: the same; the broker may be another one, or none.
        proxied: which services each role reaches through a proxy of its own.
        role_environ: more variables of single roles, by name, as of their next start.
        role_prefix: words before the command of single roles: `ip netns exec NAME`, say, which becomes the role and keeps its process id.
        expects_tracebacks: a role may say more than a sentence; otherwise a traceback in a log fails the test.
        slots: of each worker.
    """

    postgres: OwnPostgres
    redis_server: RedisServer | None
    proxied: tuple[Service, ...] = ("postgres", "redis", "server")
    role_environ: dict[str, dict[str, str]] = field(default_factory=dict)
    role_prefix: dict[str, Sequence[str]] = field(default_factory=dict)
    expects_tracebacks: bool = False
    slots: int = 2
    _proxies: dict[tuple[str, Service], Proxy] = field(default_factory=dict)
    _n_starts: Counter[str] = field(default_factory=Counter)
    _n_projects: int = 0

    @property
    def redis(self) -> RedisServer:
        """The Redis of a cluster made with `broker="redis"`."""
        assert self.redis_server is not None, "this cluster has no Redis"
        return self.redis_server

    @property
    def settings(self) -> Settings:
        """What every role was told, scaled down or not."""
        return load_settings({**WAITS, **self.environ})

    @overload
    def proxy(self, role: str, service: Literal["postgres"]) -> PostgresProxy: ...
    @overload
    def proxy(self, role: str, service: Literal["redis", "server"]) -> Proxy: ...
    def proxy(self, role: str, service: Service) -> Proxy:
        """What stands between a role and a service, whether the role runs or not."""
        assert service in self.proxied, f"this cluster has no proxies for {service}"
        if (role, service) not in self._proxies:
            if service == "postgres":
                self._proxies[role, service] = PostgresProxy("127.0.0.1", self.postgres.port)
            else:
                self._proxies[role, service] = Proxy("127.0.0.1", self.redis.port if service == "redis" else self.port)
        return self._proxies[role, service]

    def arm(self, role: str, failpoints: str) -> None:
        """Have a role pass these failpoints from its next start on (SWEEP_FAILPOINTS); none, if empty."""
        self.role_environ.setdefault(role, {})["SWEEP_FAILPOINTS"] = failpoints

    def start(self, *, workers: Sequence[str] = ("w1",), worker_arguments: Sequence[str] = ()) -> "FaultCluster":
        """Start a server, a scheduler and workers of these names, all at a time, and wait until all are ready."""
        super().start(workers=workers, worker_arguments=["--slots", str(self.slots), *worker_arguments])
        return self

    def start_worker(self, name: str, *arguments: str, is_awaited: bool = True) -> Role:
        """Start a worker; with this cluster's slots, unless told otherwise."""
        slots = () if "--slots" in arguments else ("--slots", str(self.slots))
        return super().start_worker(name, *arguments, *slots, is_awaited=is_awaited)

    def ledger_project(self, *, n_trials: int, seconds: float | tuple[float, float] = 0.0, extra: str = "", **keys: object) -> Path:
        """`tests.support.ledger.ledger_project` in a folder of its own; the sweep file."""
        self._n_projects += 1
        return ledger_project(self.folder / f"trials-{self._n_projects}", n_trials=n_trials, seconds=seconds, extra=extra, **keys)

    def wait_for_end(self, sweep_id: str, *, deadline_s: float = 100.0) -> list[TrialAnswer]:
        """Wait until a sweep is over, whatever is away meanwhile; its trials."""

        def has_ended() -> bool:
            return bool(self.query("SELECT 1 FROM sweeps WHERE sweep_id = %(id)s AND ended_at IS NOT NULL", id=sweep_id))

        self.wait_for(has_ended, f"sweep {sweep_id} ends", deadline_s=deadline_s)
        found: list[TrialAnswer] = []

        def is_answered() -> bool:
            with self.client() as client:
                found[:] = client.trials(sweep_id)["trials"]
            return True

        self.wait_for(is_answered, "the server tells of the trials", deadline_s=deadline_s)
        return found

    def wait_for_finished(self, sweep_id: str, count: int, *, deadline_s: float = 60.0) -> None:
        """Wait until so many trials of a sweep have ended, in whatever way."""
        sql = "SELECT count(*) >= %(count)s AS enough FROM trials WHERE sweep_id = %(id)s AND state <> 'open'"
        self.wait_for(lambda: self.query(sql, id=sweep_id, count=count)[0].enough, f"{count} trials have ended", deadline_s=deadline_s)

    def wait_for(self, is_true: Callable[[], object], what: str, *, deadline_s: float = 60.0, interval_s: float = 0.05) -> None:
        """`wait_until`, counting Postgres or the server away as not yet; longer with FULL=1."""

        def is_true_by_now() -> bool:
            try:
                return bool(is_true())
            except (OperationalError, ServerAway):
                return False

        wait_until(is_true_by_now, what, deadline_s=deadline_s * STRETCH, interval_s=interval_s)

    def stop(self) -> None:
        """End everything at once: what a test wanted to see of an orderly end it has seen."""
        for proxy in self._proxies.values():
            proxy.close()
        for role in self.roles:
            if role.is_running:
                role.kill()
        for pid in self._leftovers():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._remove_containers()
        if self.redis_server is not None:
            self.redis_server.kill()
        self.postgres.remove()

    def _remove_containers(self) -> None:
        """What workers left running in a container engine, if there is one."""
        worker_ids = {json.loads(file.read_bytes())["worker_id"] for file in self.folder.glob("home-*/workers/*/worker.json")}
        try:
            client = docker.from_env(timeout=60)
        except docker.errors.DockerException:
            return
        with contextlib.closing(client):
            for found in client.api.containers(all=True, filters={"label": "sweep.worker"}):
                if found["Labels"]["sweep.worker"] in worker_ids:
                    client.api.remove_container(found["Id"], force=True)

    def _command(self, name: str, arguments: Sequence[str]) -> Sequence[str]:
        return [*self.role_prefix.get(name, ()), *super()._command(name, arguments)]

    def _environ(self, name: str) -> dict[str, str]:
        environ = {**super()._environ(name), **WAITS, "SWEEP_BROKEN": BROKEN, **self.environ}
        if name == "cli":
            return environ
        if "postgres" in self.proxied:
            environ["SWEEP_DATABASE_URL"] = self._through(self.postgres.url, self.postgres.port, self.proxy(name, "postgres"))
        if "redis" in self.proxied and self.redis_server is not None and self.broker_url == self.redis_server.url:
            environ["SWEEP_BROKER_URL"] = self._through(self.broker_url, self.redis.port, self.proxy(name, "redis"))
        if "server" in self.proxied and name != "server":
            environ["SWEEP_SERVER"] = self._through(self.url, self.port, self.proxy(name, "server"))
        # Repeatable, and yet another life of a process does not die of the same draw again.
        self._n_starts[name] += 1
        environ["SWEEP_FAILPOINTS_SEED"] = f"{name}:{self._n_starts[name]}"
        return environ | self.role_environ.get(name, {})

    @staticmethod
    def _through(url: str, port: int, proxy: Proxy) -> str:
        return url.replace(f"127.0.0.1:{port}", f"127.0.0.1:{proxy.port}")
