"""The fault suite's own first two: a worker that dies, and a COMMIT whose reply is lost (I1, I2, I3, I8)."""

import signal
from collections.abc import Callable

import pytest

from tests.faults.invariants import check
from tests.support.fault_table import Faults
from tests.support.faults import FaultCluster
from tests.support.ledger import ledger_file
from tests.support.proxy import Fate


@pytest.mark.quick
def test_worker_killed_once_it_has_claimed_goes_on_after_its_restart(fault_cluster: Callable[..., FaultCluster], faults: Faults) -> None:
    """Killed between claim and start: its next life adopts the attempt, finds no command of it, and the run gets another attempt."""
    cluster = fault_cluster(role_environ={"w1": {"SWEEP_FAILPOINTS": "worker.claimed=kill@3"}})
    project = cluster.ledger_project(n_trials=8, seconds=0.05)
    sweep_id = cluster.submit(project)
    assert cluster.role("w1").wait() == -signal.SIGKILL
    faults.record("worker: kill -9 once it has claimed")
    cluster.arm("w1", "")
    cluster.restart("w1")
    cluster.wait_for_end(sweep_id)
    check(cluster, sweep_id, n_trials=8, ledger=ledger_file(project))
    lost = cluster.query("SELECT attempt, cause, detail FROM audit_attempts WHERE sweep_id = %(id)s AND state <> 'succeeded'", id=sweep_id)
    assert [(row.attempt, row.cause) for row in lost] == [(1, "lost")]


@pytest.mark.parametrize("fate", ["lose_reply", "lose_commit"])
def test_finish_is_recorded_once_when_its_commit_goes_wrong(fault_cluster: Callable[..., FaultCluster], faults: Faults, fate: Fate) -> None:
    """The worker asks again with the same finish key: recorded once, whether the first COMMIT had arrived or not."""
    cluster = fault_cluster()
    project = cluster.ledger_project(n_trials=6, seconds=0.05)
    strike = cluster.proxy("w1", "postgres").on_commit(fate, nth=2, matching=b"finish_key")
    sweep_id = cluster.submit(project)
    strike.wait()
    faults.record(f"finish: {fate.replace('_', ' ')}")
    cluster.wait_for_end(sweep_id)
    check(cluster, sweep_id, n_trials=6, ledger=ledger_file(project))
    ends = cluster.query("SELECT state, attempt FROM audit_attempts WHERE sweep_id = %(id)s", id=sweep_id)
    assert [tuple(end) for end in ends] == [("succeeded", 1)] * 6
    # A finish key that is not recognised would make the worker believe that the attempt was taken from it.
    assert "no longer ours" not in cluster.role("w1").log()
