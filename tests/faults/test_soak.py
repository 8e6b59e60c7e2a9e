"""The soak: thousands of trials while everything that can be broken is broken at random, one thing upon the other (I1 to I8).

`make soak`. SOAK_TRIALS and SOAK_S shorten it; SWEEP_TEST_SEED repeats what was drawn.
"""

import os
import random
import signal
import statistics
import threading
import time
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import pytest

from sweeps.client import ServerAway, ServerError
from tests.faults.conftest import SEED, MakeCluster
from tests.faults.invariants import check
from tests.support.fault_table import Faults
from tests.support.faults import FaultCluster, Service
from tests.support.ledger import ledger_file
from tests.support.postgres import StopMode
from tests.support.proxy import Fate, Strike
from tests.support.redis_proxy import RedisProxy
from tracking.failpoints import POINTS

N_TRIALS: Final = int(os.environ.get("SOAK_TRIALS", "5000"))
SOAK_S: Final = float(os.environ.get("SOAK_S", "600"))
WORKERS: Final = ("w1", "w2", "w3")
SCHEDULERS: Final = ("scheduler", "standby")
SLOTS: Final = 4
TRIAL_S: Final = (0.1, 1.0)
LONG_EVERY: Final = 100
LONG_S: Final = (SOAK_S / 30, SOAK_S / 10)
# By chance at every step: some dozen deaths in the course of five thousand trials.
_DIES: Final = {"worker": "kill%0.0005", "scheduler": "kill%0.002"}
_DROPPED, _DOUBLED = 0.2, 0.1
# A statement of each kind of commit that may go wrong.
_COMMITS: Final[dict[str, tuple[bytes, Sequence[str]]]] = {
    "claim": (b"INSERT INTO attempts", WORKERS),
    "finish": (b"finish_key", WORKERS),
    "renew": (b"UPDATE sessions SET renewed_at", WORKERS),
    "create": (b"INSERT INTO trials", SCHEDULERS),
    "place": (b"placement = placement + 1", SCHEDULERS),
    "conclude": (b"told_seq", SCHEDULERS),
}


@dataclass
class Soak:
    """What is broken, when it was whole again, and what may have been cancelled.

    Attributes:
        healed: of each fault, when it was over (time.time()), and the worker that it was about, if it was one.
    """

    cluster: FaultCluster
    faults: Faults
    sweep_id: str
    over: threading.Event = field(default_factory=threading.Event)
    healed: list[tuple[str, float, str | None]] = field(default_factory=list)
    cancelled: set[str] = field(default_factory=set)
    strikes: list[tuple[str, Strike]] = field(default_factory=list)
    messages: Counter[str] = field(default_factory=Counter)
    _out_of_service: set[str] = field(default_factory=set)

    def last(self, seconds: float) -> None:
        """Let something last, as long as the soak does."""
        self.over.wait(seconds)

    @contextmanager
    def fault(self, name: str, worker: str | None = None) -> Iterator[None]:
        """Something is broken, and whole again afterwards."""
        self.faults.record(name)
        yield
        self.healed.append((name, time.time(), worker))

    # -- processes ---------------------------------------------------------------------------------------------------

    def tend(self) -> None:
        """Start again what a failpoint has killed, as a supervisor of services would."""
        for name in (*WORKERS, *SCHEDULERS, "server"):
            role = self.cluster.role(name)
            if role.is_running or name in self._out_of_service:
                continue
            assert role.process.returncode == -signal.SIGKILL, f"{name} ended by itself, with {role.process.returncode}:\n{role.log()}"
            with self.fault(f"{_kind(name)}: kill -9 at a failpoint", name if name in WORKERS else None):
                self.cluster.restart(name, is_awaited=False)

    def break_a_role(self, rng: random.Random) -> None:
        """One role goes away in some way for some time."""
        name = rng.choice((*WORKERS, *WORKERS, *SCHEDULERS, "server"))
        worker = name if name in WORKERS else None
        away_s = rng.choice((0.0, rng.uniform(0.5, 3.0), self._past_reassignment_s() if worker else 3.0))
        length = ", past reassignment" if away_s > self.cluster.settings.reassign_after_s else ""
        role = self.cluster.role(name)
        if not role.is_running:
            return
        how = rng.choice(("kill -9", "SIGSTOP", "SIGTERM"))
        self._out_of_service.add(name)
        with self.fault(f"{_kind(name)}: {how}{length}", worker):
            if how == "SIGSTOP":
                role.suspend()
            elif how == "kill -9":
                role.kill()
            else:
                role.stop()
            self.last(away_s)
            if how == "SIGSTOP":
                role.wake()
            else:
                self.cluster.restart(name, is_awaited=False)
        self._out_of_service.remove(name)

    def _past_reassignment_s(self) -> float:
        return self.cluster.settings.lease_s + self.cluster.settings.reassign_after_s + 1

    # -- services and connections ------------------------------------------------------------------------------------

    def break_a_service(self, rng: random.Random) -> None:
        """Postgres, Redis, a connection or a commit goes wrong; or somebody cancels a trial."""
        actions: list[Callable[[random.Random], None]] = [
            self._end_postgres,
            self._freeze_postgres,
            self._break_redis,
            self._break_redis,
            self._break_connections,
            self._break_connections,
            self._strike_a_commit,
            self._strike_a_commit,
            self._strike_a_commit,
            self._cancel_a_trial,
        ]
        rng.choice(actions)(rng)

    def _end_postgres(self, rng: random.Random) -> None:
        modes: list[StopMode] = ["fast", "immediate"]
        mode = rng.choice((*modes, None))
        with self.fault(f"Postgres: {mode or 'kill -9'}, restarted"):
            if mode is None:
                self.cluster.postgres.kill()
            else:
                self.cluster.postgres.stop(mode)
            self.last(rng.choice((0.0, rng.uniform(0, 3), self._past_reassignment_s())))
            self.cluster.postgres.start()

    def _freeze_postgres(self, rng: random.Random) -> None:
        with self.fault("Postgres: frozen (SIGSTOP)"):
            self.cluster.postgres.suspend()
            self.last(rng.uniform(0.5, 4))
            self.cluster.postgres.wake()

    def _break_redis(self, rng: random.Random) -> None:
        redis = self.cluster.redis
        match rng.choice(("emptied", "restarted", "frozen", "reset three times in 3 s")):
            case "emptied":
                with self.fault("Redis: emptied"):
                    redis.flush()
            case "restarted":
                with self.fault("Redis: kill -9, restarted empty"):
                    redis.kill()
                    self.last(rng.uniform(0, 4))
                    redis.start()
            case "frozen":
                with self.fault("Redis: frozen (SIGSTOP)"):
                    redis.suspend()
                    self.last(rng.uniform(0.5, 4))
                    redis.wake()
            case _:
                with self.fault("Redis: all connections reset three times in 3 s"):
                    for _ in range(3):
                        for name in (*WORKERS, *SCHEDULERS):
                            self.cluster.proxy(name, "redis").cut()
                        self.last(1.0)

    def _break_connections(self, rng: random.Random) -> None:
        name = rng.choice((*WORKERS, *SCHEDULERS, "server"))
        services: list[Service] = ["postgres", *(["redis"] if name != "server" else []), *(["server"] if name in WORKERS else [])]  # type: ignore[list-item]
        service = rng.choice(services)
        proxy = self.cluster._proxies[name, service]
        how = rng.choice(("reset", "refused", "half-open", "slow", "one way only"))
        with self.fault(f"connections to {service}: {how}", name if name in WORKERS else None):
            if how == "reset":
                proxy.cut()
                return
            if how == "refused":
                proxy.refuse()
                proxy.cut()
            elif how == "half-open":
                proxy.hang()
            elif how == "slow":
                proxy.delay(0.2)
            else:
                proxy.drop(rng.choice(("to_server", "to_client")))
            self.last(rng.uniform(0.5, 5))
            proxy.pass_through()

    def _strike_a_commit(self, rng: random.Random) -> None:
        fates: list[Fate] = ["lose_reply", "lose_commit"]
        fate, kind = rng.choice(fates), rng.choice(sorted(_COMMITS))
        matching, roles = _COMMITS[kind]
        proxy = self.cluster.proxy(rng.choice(roles), "postgres")
        self.strikes.append((f"commit of {kind}: {'reply lost' if fate == 'lose_reply' else 'lost'}", proxy.on_commit(fate, rng.randint(1, 5), matching)))

    def _cancel_a_trial(self, rng: random.Random) -> None:
        try:
            with self.cluster.client() as client:
                running = [trial["run_id"] for trial in client.trials(self.sweep_id, states=("open",), limit=40)["trials"]]
                if running:
                    run_id = rng.choice(running)
                    self.cancelled.add(run_id)
                    client.cancel_run(run_id)
                    self.faults.record("trial: cancelled by hand")
        except (ServerAway, ServerError):
            return  # asked for in a bad moment

    # -- messages ----------------------------------------------------------------------------------------------------

    def fate_of_message(self, rng: random.Random) -> Callable[[bytes, bytes], int]:
        """Some get lost, some come three times."""

        def fate(_queue: bytes, _payload: bytes) -> int:
            drawn = rng.random()
            if drawn < _DROPPED:
                self.messages["message: lost"] += 1
                return 0
            if drawn < _DROPPED + _DOUBLED:
                self.messages["message: three times"] += 1
                return 3
            return 1

        return fate

    # -- the end -----------------------------------------------------------------------------------------------------

    def heal(self) -> None:
        """Everything works again, and every role is a fresh process that no failpoint kills."""
        self.tend()
        for proxy in self.cluster._proxies.values():
            proxy.pass_through()
            if isinstance(proxy, RedisProxy):
                proxy.fate = lambda _queue, _payload: 1
        for name in (*SCHEDULERS, *WORKERS):
            self.cluster.arm(name, "")
            self.cluster.role(name).stop()
            self.cluster.restart(name)
        for name, count in self.messages.items():
            self.faults.record(name, count)
        for name, strike in self.strikes:
            if strike.is_struck:
                self.faults.record(name)

    def recovery(self) -> str:
        """By the record: from the end of each fault to the next claim; by the worker, if it was one's."""
        claims: defaultdict[str | None, list[float]] = defaultdict(list)
        rows = self.cluster.query(
            "SELECT worker_name, extract(epoch FROM claimed_at)::float AS at FROM audit_attempts WHERE sweep_id = %(id)s ORDER BY claimed_at", id=self.sweep_id
        )
        for row in rows:
            claims[None].append(row.at)
            claims[row.worker_name].append(row.at)
        took: defaultdict[str, list[float]] = defaultdict(list)
        for name, at, worker in self.healed:
            after = bisect_right(claims[worker], at)
            if after < len(claims[worker]):
                took[name].append(claims[worker][after] - at)
        lines = ["| fault | times | from its end to the next claim, median | longest |", "|---|---:|---:|---:|"]
        lines += [f"| {name} | {len(each)} | {statistics.median(each):.2f} s | {max(each):.2f} s |" for name, each in sorted(took.items())]
        return "\n".join(lines)


@pytest.mark.soak
@pytest.mark.timeout(0)
def test_soak_of_all_faults_at_random_loses_nothing_and_does_nothing_twice(
    fault_cluster: MakeCluster, faults: Faults, rng: random.Random, request: pytest.FixtureRequest
) -> None:
    """Every trial that was asked for, concluded and told once; the ledger equals the attempts; nothing is left behind."""
    print(f"seed {SEED}")  # noqa: T201  # shown when it failed
    cluster = fault_cluster(workers=(), slots=SLOTS, start=False, environ={"SWEEP_INFRA_RETRIES": "100", "SWEEP_REASSIGN_AFTER_S": "8"})
    soak = Soak(cluster, faults, "")
    for name in SCHEDULERS:
        cluster._proxies[name, "redis"] = RedisProxy(cluster.redis.port, soak.fate_of_message(random.Random(rng.random())))  # noqa: S311 -- repeatable
    cluster.start(workers=WORKERS)
    cluster.start_scheduler(name="standby", is_awaited=False)
    # From the second life of each on.
    for name in (*WORKERS, *SCHEDULERS):
        kind = _kind(name)
        cluster.arm(name, ",".join(f"{point}={_DIES[kind]}" for point in sorted(POINTS) if point.startswith(f"{kind}.")))
    project = cluster.ledger_project(n_trials=N_TRIALS, seconds=TRIAL_S, extra=_long_ones())
    soak.sweep_id = cluster.submit(project)
    wreak(soak, rng)
    soak.heal()
    cluster.wait_for_end(soak.sweep_id, deadline_s=300 + SOAK_S)
    table: Any = request.config.pluginmanager.get_plugin("fault-table")
    table.notes.append(f"{N_TRIALS} trials, {SOAK_S:g} s of faults, seed {SEED}.\n\n{soak.recovery()}\n\n{attempts_told(soak)}")
    check(cluster, soak.sweep_id, n_trials=N_TRIALS, ledger=ledger_file(project))
    check_ends(soak)


def _kind(role: str) -> str:
    return "worker" if role in WORKERS else "scheduler" if role in SCHEDULERS else role


def _long_ones() -> str:
    shortest, longest = LONG_S
    return f"if int(number) % {LONG_EVERY} == 7: time.sleep({shortest} + {longest - shortest} * (int(number) * 0.381966 % 1))"


def wreak(soak: Soak, rng: random.Random) -> None:
    """Break roles and services, each in a thread of its own, until the time is over; what a thread trips over ends the soak."""
    until = time.monotonic() + SOAK_S
    calm_s = (0.2, 2.0)

    def go_on(act: Callable[[random.Random], None], own: random.Random, tend: Callable[[], None] | None) -> None:
        try:
            while time.monotonic() < until and not soak.over.is_set():
                act(own)
                if tend is not None:
                    tend()
                soak.last(own.uniform(*calm_s))
        finally:
            soak.over.set()

    with ThreadPoolExecutor(2) as threads:
        seeds = rng.random(), rng.random()
        roles = threads.submit(go_on, soak.break_a_role, random.Random(seeds[0]), soak.tend)  # noqa: S311 -- repeatable
        services = threads.submit(go_on, soak.break_a_service, random.Random(seeds[1]), None)  # noqa: S311 -- repeatable
        roles.result()
        services.result()


def attempts_told(soak: Soak) -> str:
    """How many attempts there were, and how they ended."""
    rows = soak.cluster.query("SELECT cause, count(*) AS n FROM audit_attempts WHERE sweep_id = %(id)s GROUP BY cause ORDER BY n DESC", id=soak.sweep_id)
    return f"Attempts: {', '.join(f'{row.n} {row.cause}' for row in rows)}."


def check_ends(soak: Soak) -> None:
    """Every trial finished, but for those that somebody asked to cancel."""
    rows = soak.cluster.query("SELECT run_id, state, cause FROM audit_trials WHERE sweep_id = %(id)s AND state <> 'finished'", id=soak.sweep_id)
    unasked = [row for row in rows if (row.state, row.cause) != ("cancelled", "cancelled") or row.run_id not in soak.cancelled]
    assert not unasked, f"trials that did not finish, and nobody had cancelled: {unasked}"
