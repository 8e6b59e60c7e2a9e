"""A thousand trials that do nothing, over each broker: exactly a thousand, each started once, and nothing left behind (I2)."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from tests.support.cluster import Cluster
from tests.support.projects import SHELL, write_project
from tests.support.services import RedisServer, wait_until

N_TRIALS: Final = 1000
# `>>` opens with O_APPEND, and so short a line is one write.
PROGRAM: Final = 'printf "%s %s\\n" "$SWEEP_RUN_ID" "$SWEEP_ATTEMPT" >> "$LEDGER"\n'
WORKERS: Final = ("w1", "w2")

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(params=["redis", "filesystem", "none"])
def cluster(request: pytest.FixtureRequest, make_cluster: Callable[..., Cluster], tmp_path: Path) -> Cluster:
    """Two workers of two slots, over each broker."""
    urls = {"filesystem": f"filesystem://{tmp_path / 'broker'}", "none": "none"}
    url = urls.get(request.param) or request.getfixturevalue("redis_url")
    return make_cluster(url).start(workers=WORKERS, worker_arguments=("--slots", "2"))


def test_noop_thousand_trials_are_each_run_once_and_leave_nothing(cluster: Cluster, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """Numbers 0 to 999 and every cell of the grid once; the trials' own ledger equals the recorded attempts."""
    ledger = tmp_path / "ledger"
    parameters = {"a": {"values": list(range(40))}, "b": {"values": list(range(25))}}
    file = write_project(tmp_path / "noop", PROGRAM, command=SHELL, method="grid", parameters=parameters, env={"LEDGER": str(ledger)}, limits={})
    sweep_id = cluster.sweep_json("submit", str(file))["sweep_id"]
    cluster.sweep("wait", sweep_id, "--timeout", "250", timeout_s=260)

    check_trials(cluster, sweep_id)
    check_ledger(cluster, ledger)
    check_nothing_is_left(cluster)
    if cluster.broker_url.startswith("redis://"):
        check_no_messages_in_redis(request.getfixturevalue("redis_server"))
    assert [*tmp_path.glob("broker/queues/**/*.msg")] == []


def check_trials(cluster: Cluster, sweep_id: str) -> None:
    """None lost, none twice; each told once, each with one history."""
    trials = cluster.sweep_json("trials", sweep_id)["trials"]
    assert [trial["number"] for trial in trials] == list(range(N_TRIALS))
    assert Counter((trial["state"], trial["run_state"], trial["attempts"]) for trial in trials) == {("finished", "finished", 1): N_TRIALS}
    assert len({(trial["params"]["a"], trial["params"]["b"]) for trial in trials}) == N_TRIALS
    told = cluster.query("SELECT told_seq FROM audit_trials ORDER BY told_seq")
    assert [row.told_seq for row in told] == list(range(1, N_TRIALS + 1))
    history = cluster.query("SELECT subject, event, count(*) AS n, count(DISTINCT run_id) AS n_runs FROM audit_events WHERE run_id IS NOT NULL GROUP BY 1, 2")
    counted = {(row.subject, row.event): (row.n, row.n_runs) for row in history}
    for move in (("run", "claim"), ("run", "finish"), ("attempt", "succeed"), ("trial", "finish")):
        assert counted[move] == (N_TRIALS, N_TRIALS), move
    assert cluster.query("SELECT state FROM sweeps")[0].state == "finished"


def check_ledger(cluster: Cluster, ledger: Path) -> None:
    """What really started is what the record says."""
    attempts = [f"{row.run_id} {row.attempt}" for row in cluster.query("SELECT run_id, attempt FROM audit_attempts")]
    assert len(attempts) == N_TRIALS
    assert Counter(ledger.read_text().splitlines()) == Counter(attempts)
    by_worker = cluster.query("SELECT worker_name, count(*) AS n FROM audit_attempts GROUP BY 1")
    assert {row.worker_name for row in by_worker} == set(WORKERS), "both workers took part"


def check_nothing_is_left(cluster: Cluster) -> None:
    """No working folder, no process but the workers' launchers, no live attempt, nothing that waits."""
    # The folder of the last trial goes after its end is recorded: that is what is waited for here.
    wait_until(lambda: not [*cluster.folder.glob("home-*/workers/*/runs/*")], "the folders of the attempts are gone")
    for name in WORKERS:
        launchers = children(cluster.role(name).process.pid)
        assert len(launchers) == 1
        wait_until(lambda pid=launchers[0]: not children(pid), "the shims have ended")
    assert cluster.query("SELECT 1 FROM runs WHERE state NOT IN ('finished')") == []


def children(pid: int) -> list[int]:
    """Process ids of the direct children."""
    return [int(child) for task in Path(f"/proc/{pid}/task").iterdir() for child in (task / "children").read_text().split()]


def check_no_messages_in_redis(redis_server: RedisServer) -> None:
    """Only bindings are left: an emptied queue is no key."""
    keys = [word for word in redis_server.command(b"KEYS *").decode().split() if not word.startswith(("*", "$"))]
    assert keys
    assert [key for key in keys if not key.startswith("_kombu.binding")] == []
