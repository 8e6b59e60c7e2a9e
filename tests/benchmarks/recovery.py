"""How soon work goes on after something is lost: workers, the leading scheduler, Redis, Postgres.

Real processes over a Postgres (durability on) and a Redis of their own, at production settings unless a row says otherwise; each
figure the median of several. The times are those of the record (`opened_at`, `placed_at`, `claimed_at`) and of the trials' ledger:
one machine, one clock.
"""

import shutil
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from tests.benchmarks.figures import Figure
from tests.benchmarks.stage import Stage
from tests.support.cluster import Cluster
from tests.support.ledger import ledger_file, ledger_project, read_ledger
from tests.support.postgres import OwnPostgres, copy_template, make_template
from tests.support.services import RedisServer, wait_until

N_TIMES: Final = 7
N_TIMES_LOST: Final = 3
SLOTS: Final = 2
TRIAL_S: Final = 0.2
REASSIGN_S: Final = 10.0
"""How long a silent worker keeps its runs, for the one row that would otherwise take a quarter of an hour each time."""
DEADLINE_S: Final = 120.0
_ADOPTED: Final = """
SELECT extract(epoch FROM s.opened_at)::float - %(lost_at)s AS took_s FROM attempts a JOIN sessions s ON s.session_id = a.session_id
 WHERE a.state = 'running' AND s.pid = %(pid)s
"""
_PLACED: Final = "SELECT extract(epoch FROM min(placed_at))::float - %(lost_at)s AS took_s FROM runs WHERE placed_at > to_timestamp(%(lost_at)s)"
_CLAIMED: Final = "SELECT extract(epoch FROM min(claimed_at))::float - %(lost_at)s AS took_s FROM attempts WHERE claimed_at > to_timestamp(%(lost_at)s)"
_PLACED_AND_CLAIMED: Final = """
SELECT extract(epoch FROM min(a.claimed_at))::float - %(lost_at)s AS took_s FROM attempts a JOIN runs r ON r.run_id = a.run_id
 WHERE r.placed_at > to_timestamp(%(lost_at)s)
"""


def measure(stage: Stage) -> Iterator[Figure]:
    """Adoption and reassignment of a long trial; then a stream of short ones, whose services are lost one after the other."""
    template = make_template()
    try:
        with _site(stage, template) as site:
            yield _figure("worker killed and started again: until it follows its trial again (same attempt)", site.adoptions())
        with _site(stage, template, SWEEP_REASSIGN_AFTER_S=f"{REASSIGN_S:g}") as site:
            what = f"worker killed for ever: until the trial runs again elsewhere (silence allowed: {REASSIGN_S:g} s, in production 900 s)"
            yield _figure(what, site.reassignments())
        with _site(stage, template) as site:
            site.submit(n_trials=20_000, seconds=TRIAL_S)
            yield _figure("leading scheduler killed, a standby there: until the next placement", site.leaders_lost())
            yield _figure("Redis killed, not back: until a run placed since then is claimed", site.redis_lost(is_back=False))
            yield _figure("Redis killed, back empty: until a run placed since then is claimed", site.redis_lost(is_back=True))
            yield _figure("Postgres killed and started: from its first answer until the next claim", site.postgres_lost())
    finally:
        shutil.rmtree(template)


def _figure(what: str, took_s: list[float]) -> Figure:
    return Figure(
        f"{what}, median of {len(took_s)}",
        f"{statistics.median(took_s):.2f} s",
        f"{min(took_s):.2f} to {max(took_s):.2f} s",
        values={"s": statistics.median(took_s), "max_s": max(took_s)},
    )


class _Site:
    """A cluster to be broken, and the clock beside it."""

    def __init__(self, cluster: Cluster, postgres: OwnPostgres, redis: RedisServer) -> None:
        self.cluster = cluster
        self.postgres = postgres
        self.redis = redis
        self._n_projects = 0

    def submit(self, *, n_trials: int, seconds: float) -> tuple[str, Path]:
        """Submit trials that keep a ledger; sweep id and ledger."""
        self._n_projects += 1
        file = ledger_project(self.cluster.folder / f"trials-{self._n_projects}", n_trials=n_trials, seconds=seconds)
        return self.cluster.submit(file), ledger_file(file)

    def adoptions(self) -> list[float]:
        """A worker is killed and started again at once."""
        sweep_id, ledger = self.submit(n_trials=1, seconds=1000)
        _wait(lambda: read_ledger(ledger), "the trial runs")
        took_s = []
        for _ in range(N_TIMES):
            self.cluster.role("w1").kill()
            lost_at = time.time()
            pid = self.cluster.restart("w1").process.pid
            took_s.append(self._took_s(_ADOPTED, lost_at=lost_at, pid=pid))
        (line,) = read_ledger(ledger)
        assert line.attempt == 1, f"{sweep_id} was not adopted: {line}"
        return took_s

    def reassignments(self) -> list[float]:
        """The worker that runs a trial is killed, and not started again until another one runs it."""
        self.cluster.start_worker("w2", "--slots", str(SLOTS))
        # A new cluster's first leader gives everybody one lease to speak first, as after an outage.
        _wait(lambda: self.cluster.query("SELECT 1 FROM leader WHERE suspended_until <= now()"), "silence counts")
        took_s = []
        for _ in range(N_TIMES_LOST):
            sweep_id, ledger = self.submit(n_trials=1, seconds=1000)
            _wait(lambda ledger=ledger: read_ledger(ledger), "the trial runs")
            name = self.cluster.query("SELECT worker_name FROM audit_attempts WHERE sweep_id = %(id)s", id=sweep_id)[0].worker_name
            lost_at = time.monotonic()
            self.cluster.role(name).kill()
            _wait(lambda ledger=ledger: len(read_ledger(ledger)) == 2, "the trial runs again")
            took_s.append(read_ledger(ledger)[1].at - lost_at)
            with self.cluster.client() as client:
                client.steer(sweep_id, "cancel")
            self.cluster.restart(name)
            self.cluster.wait_for_end(sweep_id)
        return took_s

    def leaders_lost(self) -> list[float]:
        """The leader is killed while another one stands by, and started again to be the next standby."""
        self.cluster.start_scheduler(name="standby")
        took_s = []
        for turn in range(N_TIMES):
            self._settle()
            leader, other = ("scheduler", "standby") if turn % 2 == 0 else ("standby", "scheduler")
            self.cluster.role(leader).kill()
            lost_at = time.time()
            took_s.append(self._took_s(_PLACED, lost_at=lost_at))
            self.cluster.restart(leader)
            assert self.cluster.role(other).is_running
        return took_s

    def redis_lost(self, *, is_back: bool) -> list[float]:
        """Redis is killed under load, and back at once or after the first claim."""
        took_s = []
        for _ in range(N_TIMES):
            self._settle()
            self.redis.kill()
            lost_at = time.time()
            if is_back:
                self.redis.start()
            took_s.append(self._took_s(_PLACED_AND_CLAIMED, lost_at=lost_at))
            if not is_back:
                self.redis.start()
        return took_s

    def postgres_lost(self) -> list[float]:
        """Every process of Postgres is killed under load, and it is started at once; its recovery does not count."""
        took_s = []
        for _ in range(N_TIMES):
            self._settle()
            self.postgres.kill()
            self.postgres.start()
            back_at = time.time()
            took_s.append(self._took_s(_CLAIMED, lost_at=back_at))
        return took_s

    def _settle(self) -> None:
        """Wait until trials come and go as before, so that one fault is over before the next one comes."""
        sql = "SELECT count(*) FILTER (WHERE claimed_at > now() - interval '3 s') >= %(n)s AS flows FROM attempts"
        n_expected = 3 / TRIAL_S * SLOTS * 0.6
        _wait(lambda: self.cluster.query(sql, n=n_expected)[0].flows, "trials come and go")

    def _took_s(self, sql: str, **params: object) -> float:
        """How long it took, as soon as the record tells."""
        found: list[float] = []

        def is_told() -> bool:
            found[:] = [row.took_s for row in self.cluster.query(sql, **params) if row.took_s is not None]
            return bool(found)

        _wait(is_told, "work goes on")
        return found[0]


def _wait(is_true: Callable[[], object], what: str) -> None:
    wait_until(is_true, what, deadline_s=DEADLINE_S, interval_s=0.1)


@contextmanager
def _site(stage: Stage, template: Path, **environ: str) -> Iterator[_Site]:
    """Server, scheduler and one worker over a Postgres and a Redis that may be killed."""
    settings: Mapping[str, str] = environ
    with ExitStack() as exits:
        postgres = OwnPostgres(copy_template(template), {"fsync": "on"})
        exits.callback(postgres.remove)
        postgres.start()
        redis = RedisServer(stage.new_folder("redis"))
        exits.callback(redis.kill)
        redis.start()
        cluster = Cluster(stage.new_folder("recovery"), postgres.url, redis.url, settings)
        exits.callback(cluster.stop)
        try:
            yield _Site(cluster.start(worker_arguments=("--slots", str(SLOTS))), postgres, redis)
        except BaseException:
            print(cluster.logs(), file=sys.stderr)  # noqa: T201  # what there is to know of a failure
            raise
