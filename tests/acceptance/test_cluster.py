"""A cluster over Redis as a user sees it, and what a sweep notices when a part of it dies: nothing (I1, I2, I8)."""

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from sweeps.api.shapes import TrialAnswer
from tests.support.cluster import Cluster, Role, stopped_afterwards
from tests.support.projects import SHELL, write_project
from tests.support.services import RedisServer, wait_until

LOSS: Final = {"name": "loss", "goal": "minimize"}
LEDGER: Final = 'printf "%s %s\\n" "$SWEEP_RUN_ID" "$SWEEP_ATTEMPT" >> "$LEDGER"\n'
N_STEPS: Final = 90
# Says a third of it, waits to be told, says the next third, waits, says the rest: twice at each step, to its output and to the server.
STEPS: Final = """
import os, pathlib, time
import sweep_client

def rendezvous(name):
    meeting = pathlib.Path(os.environ["MEETING"])
    (meeting / f"{name}-{os.environ['SWEEP_TRIAL']}").touch()
    while not (meeting / f"after-{name}").exists():
        time.sleep(0.02)

for step in range(90):
    if step in (30, 60):
        rendezvous(step)
    print(f"step={step} loss={1 / (step + 1)}", flush=True)
    sweep_client.log({"told": step * 0.5}, step=step)
"""


class Site:
    """One cluster of two workers, its Redis, and a folder for the projects that are run on it."""

    def __init__(self, cluster: Cluster, redis: RedisServer, folder: Path) -> None:
        self.cluster = cluster
        self.redis = redis
        self._folder = folder
        self._n_projects = 0

    def file(self, program: str, **keys: Any) -> Path:
        """A project of its own; returns its sweep file."""
        self._n_projects += 1
        return write_project(self._folder / f"project-{self._n_projects}", program, **keys)

    def submit(self, program: str, **keys: Any) -> str:
        """Submit a project of its own; its sweep id."""
        return self.cluster.submit(self.file(program, **keys))

    def wait_for_finished(self, sweep_id: str, count: int) -> None:
        """Wait until so many trials of a sweep have finished."""
        sql = "SELECT count(*) AS n FROM trials WHERE sweep_id = %(id)s AND state = 'finished'"
        wait_until(lambda: self.cluster.query(sql, id=sweep_id)[0].n >= count, f"{count} trials have finished")

    def attempts(self, sweep_id: str) -> list[Any]:
        """All attempts of a sweep, in the order in which they were claimed."""
        return list(self.cluster.query("SELECT * FROM audit_attempts WHERE sweep_id = %(id)s ORDER BY claimed_at", id=sweep_id))


@pytest.fixture(scope="module")
def site(module_database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Server, scheduler, two workers of two slots over a Redis to be killed; everything that waits by the clock is quick."""
    folder = tmp_path_factory.mktemp("cluster")
    redis = RedisServer(folder)
    redis.start()
    environ = {"SWEEP_RENEW_S": "1", "SWEEP_WATCH_S": "0.2", "SWEEP_LEADER_LEASE_S": "2", "SWEEP_CLAIM_TIMEOUT_S": "3"}
    try:
        with stopped_afterwards(Cluster(folder, module_database_url, redis.url, environ)) as cluster:
            for name in ("w1", "w2"):
                start_worker(cluster, name)
            cluster.start(workers=())
            cluster.wait_for_workers("w1", "w2")
            yield Site(cluster, redis, folder)
    finally:
        redis.stop()


def start_worker(cluster: Cluster, name: str) -> Role:
    """Both serve `default`; the second serves `big` as well."""
    queues = ("--queue", "default", "--queue", "big") if name == "w2" else ()
    return cluster.start_worker(name, "--slots", "2", *queues, is_awaited=False)


def test_cluster_sweep_from_submission_to_registered_model(site: Site) -> None:
    """Submit, status, trials, best, show, logs, metrics, register: what each prints for scripts."""
    cluster = site.cluster
    program = 'import os, sys, pathlib, sweep_client\nx = float(sys.argv[1].split("=")[1])\nprint(f"loss={(x - 2) ** 2}")\n'
    program += 'pathlib.Path("model.txt").write_text(str(x))\nsweep_client.log_artifact("model.txt", "model")\n'
    file = site.file(program, name="tour", method="grid", metric=LOSS, parameters={"x": {"values": [0, 1, 2, 3]}}, limits={})

    submitted = cluster.sweep_json("submit", str(file))
    assert submitted.keys() >= {"schema", "sweep_id", "name", "short_id", "state", "trials_asked", "urls"}
    assert (submitted["name"], submitted["trials_asked"]) == ("tour", 4)
    ended = cluster.sweep_json("wait", submitted["short_id"], "--timeout", "90")
    assert (ended["sweep_id"], ended["state"], ended["counts"]["finished"], ended["best"]["value"]) == (submitted["sweep_id"], "finished", 4, 0.0)
    assert cluster.sweep_json("status")["sweep_id"] == submitted["sweep_id"]

    listed = cluster.sweep_json("trials", "tour")
    assert listed.keys() >= {"schema", "sweep_id", "metric", "goal", "trials"}
    keys = {"number", "run_id", "state", "run_state", "cause", "value", "params", "attempts", "duration_s"}
    assert all(trial.keys() >= keys for trial in listed["trials"])
    assert [(trial["number"], trial["value"]) for trial in listed["trials"]] == [
        (n, float((trial["params"]["x"] - 2) ** 2)) for n, trial in enumerate(listed["trials"])
    ]

    best = cluster.sweep_json("best", submitted["sweep_id"])
    assert best.keys() >= {"schema", "sweep_id", "number", "run_id", "metric", "goal", "value", "params"}
    assert (best["params"], best["value"], best["metric"], best["goal"]) == ({"x": 2}, 0.0, "loss", "minimize")
    assert cluster.sweep("best", "tour", "--format", "args").stdout == "--x=2\n"

    registered = cluster.sweep_json("register", "tour", "--model", "tour-model", "--alias", "champion")
    assert registered.keys() >= {"name", "version", "aliases", "run_id", "sweep_id", "trial_number", "metric", "value", "params", "source"}
    lineage = (registered["version"], registered["run_id"], registered["sweep_id"], registered["trial_number"], registered["aliases"])
    assert lineage == (1, best["run_id"], submitted["sweep_id"], best["number"], ["champion"])
    assert cluster.sweep("logs", f"tour/{best['number']}").stdout == "loss=0.0\n"


def test_cluster_workers_and_queues_are_listed(site: Site) -> None:
    """Both workers with their queues; a sweep for a queue that nobody serves says so."""
    workers = {worker["name"]: worker for worker in site.cluster.sweep_json("worker", "ls")["workers"]}
    assert {name: sorted(worker["queues"]) for name, worker in workers.items()} == {"w1": ["default"], "w2": ["big", "default"]}
    assert {worker["state"] for worker in workers.values()} == {"live"}
    sweep_id = site.submit("true\n", command=SHELL, queue="nobody")
    wait_until(lambda: site.cluster.query("SELECT 1 FROM runs WHERE sweep_id = %(id)s AND state = 'queued'", id=sweep_id), "its run waits")
    queues = {queue["queue"]: queue for queue in site.cluster.sweep_json("queue")["queues"]}
    assert (queues["nobody"]["waiting"], queues["nobody"]["workers"]) == (1, 0)
    assert any("nobody" in reason for reason in map(str, site.cluster.sweep_json("why", sweep_id)["reasons"]))
    site.cluster.sweep("cancel", sweep_id, "--yes")


def test_cluster_queue_decides_who_runs_and_priority_who_is_first(site: Site, tmp_path: Path) -> None:
    """Only the worker that serves the queue runs its trials; once it has room, the urgent sweep's go before those that came earlier."""
    wait = 'until [ -e "$MEETING/go" ]; do sleep 0.02; done\n'
    common = {"command": SHELL, "queue": "big", "env": {"MEETING": str(tmp_path)}}
    blocker = site.submit(wait, limits={"trials": 2}, **common)
    site.cluster.wait_for_running(blocker, 2)
    later = site.submit("true\n", name="later", priority=10, limits={"trials": 4}, **common)
    sooner = site.submit("true\n", name="sooner", priority=90, limits={"trials": 4}, **common)
    sql = "SELECT count(*) AS n FROM runs WHERE sweep_id IN (%(a)s, %(b)s) AND state = 'queued'"
    wait_until(lambda: site.cluster.query(sql, a=later, b=sooner)[0].n == 8, "all of them wait")
    (tmp_path / "go").touch()
    for sweep_id in (later, sooner):
        assert {trial["state"] for trial in site.cluster.wait_for_end(sweep_id)} == {"finished"}
    # By placement, not by claim: of two that are placed at once either may be claimed first.
    placed = site.cluster.query("SELECT sweep_id FROM audit_events WHERE event = 'place' AND sweep_id IN (%(a)s, %(b)s) ORDER BY seq", a=later, b=sooner)
    assert [row.sweep_id for row in placed] == [sooner] * 4 + [later] * 4
    assert {attempt.worker_name for sweep_id in (blocker, later, sooner) for attempt in site.attempts(sweep_id)} == {"w2"}


def run_steps(site: Site, meeting: Path, at_first: Callable[[], object], at_second: Callable[[], object]) -> None:
    """Run trials that fill both workers; do something at a third of them and something at two thirds; nothing may be missing.

    Between the two the trials go on, alone if need be.
    """
    sweep_id = site.submit(STEPS, metric=LOSS, limits={"trials": 4}, env={"MEETING": str(meeting)}, resources={"cpus": 1})
    for name, act in (("30", at_first), ("60", at_second)):
        wait_until(lambda name=name: len([*meeting.glob(f"{name}-*")]) == 4, f"all four are at step {name}")
        act()
        (meeting / f"after-{name}").touch()
    for trial in site.cluster.wait_for_end(sweep_id):
        check_steps(site, trial)
    assert Counter(attempt.worker_name for attempt in site.attempts(sweep_id)) == {"w1": 2, "w2": 2}


def check_steps(site: Site, trial: TrialAnswer) -> None:
    """One attempt, every line once and in order, every point of both ways in."""
    assert (trial["state"], trial["attempts"], trial["value"]) == ("finished", 1, 1 / N_STEPS), trial
    lines = site.cluster.sweep("logs", trial["run_id"], "--stream", "stdout").stdout.splitlines()
    assert lines == [f"step={step} loss={1 / (step + 1)}" for step in range(N_STEPS)]
    with site.cluster.client() as client:
        points = {key: [(p["step"], p["value"]) for p in client.metrics(trial["run_id"], key=key)["metrics"]] for key in ("loss", "told")}
    assert points["loss"] == [(step, 1 / (step + 1)) for step in range(N_STEPS)]
    assert points["told"] == [(step, step * 0.5) for step in range(N_STEPS)]


@pytest.mark.parametrize("end", [Role.kill, Role.stop], ids=["killed", "stopped"])
def test_cluster_worker_goes_and_comes_back_to_its_runs(site: Site, tmp_path: Path, end: Callable[[Role], object]) -> None:
    """Its trials run on without it, and it takes them up under the same attempt: no gap in logs or metrics, nothing twice."""
    ours = site.cluster.role("w1")

    def at_second() -> None:
        start_worker(site.cluster, "w1")
        site.cluster.wait_for_workers("w1")

    run_steps(site, tmp_path, lambda: end(ours), at_second)
    assert ours.process.returncode == (0 if end is Role.stop else -9)


def test_cluster_server_goes_and_comes_back_while_trials_log(site: Site, tmp_path: Path) -> None:
    """What `sweep_client` had to say meanwhile was kept and arrives."""
    run_steps(site, tmp_path, site.cluster.role("server").kill, site.cluster.start_server)


def noop(site: Site, ledger: Path, count: int) -> str:
    """Submit trials that only note that they ran."""
    return site.submit(LEDGER, command=SHELL, limits={"trials": count}, env={"LEDGER": str(ledger)})


def check_noop(site: Site, sweep_id: str, ledger: Path, count: int) -> None:
    """None lost, none twice: the trials' own ledger, the attempts and the numbers say the same."""
    trials = site.cluster.wait_for_end(sweep_id)
    assert [trial["number"] for trial in trials] == list(range(count))
    assert Counter(trial["state"] for trial in trials) == {"finished": count}
    attempts = [f"{attempt.run_id} {attempt.attempt}" for attempt in site.attempts(sweep_id)]
    assert len(attempts) == count
    assert Counter(ledger.read_text().splitlines()) == Counter(attempts)
    told = site.cluster.query("SELECT told_seq FROM audit_trials WHERE sweep_id = %(id)s ORDER BY 1", id=sweep_id)
    assert [row.told_seq for row in told] == list(range(1, count + 1))


def test_cluster_broker_dies_and_the_sweep_goes_on(site: Site, tmp_path: Path) -> None:
    """Without Redis workers find their runs by themselves; when it is back, it is used again."""
    ledger = tmp_path / "ledger"
    sweep_id = noop(site, ledger, 60)
    site.wait_for_finished(sweep_id, 10)
    site.redis.stop()
    try:
        check_noop(site, sweep_id, ledger, 60)
    finally:
        site.redis.start()
    wait_until(lambda: site.redis.command(b"PUBSUB NUMPAT") and b"BRPOP" in redis_clients(site.redis).upper(), "a worker listens again")
    again = tmp_path / "again"
    check_noop(site, noop(site, again, 8), again, 8)


def redis_clients(redis: RedisServer) -> bytes:
    """What the clients of Redis are doing."""
    return redis.command(b"CLIENT LIST")


def test_cluster_scheduler_is_killed_and_another_takes_over(site: Site, tmp_path: Path) -> None:
    """Killed while it hands out trials, once with a standby and once without: no number is left out, none given twice."""
    ledger = tmp_path / "ledger"
    sweep_id = noop(site, ledger, 400)
    site.wait_for_finished(sweep_id, 20)
    epoch = leader_epoch(site.cluster)
    site.cluster.role("scheduler").kill()
    site.cluster.start_scheduler(name="standby", is_awaited=False)
    wait_until(lambda: leader_epoch(site.cluster) == epoch + 1, "the second one leads")
    site.cluster.start_scheduler()
    n_done = site.cluster.query("SELECT count(*) AS n FROM trials WHERE sweep_id = %(id)s AND state = 'finished'", id=sweep_id)[0].n
    site.wait_for_finished(sweep_id, min(n_done + 20, 400))
    site.cluster.role("standby").kill()
    wait_until(lambda: leader_epoch(site.cluster) == epoch + 2, "the standby leads")
    check_noop(site, sweep_id, ledger, 400)


def leader_epoch(cluster: Cluster) -> int:
    """Which leadership this is."""
    return int(cluster.query("SELECT epoch FROM leader")[0].epoch)
