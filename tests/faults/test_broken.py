"""Builds that go without one of the guards, on purpose: each is caught by a scenario that passes with the guard in place.

`WITNESSES` names tests of the rest of the suite that fail on it too; `SWEEP_TEST_BROKEN=no-fence make faults` shows them do so.
"""

import ast
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

from tests.faults.conftest import MakeCluster
from tests.faults.invariants import check
from tests.support.fault_table import Faults
from tests.support.faults import BROKEN, FULL, FaultCluster
from tests.support.ledger import ledger_file, read_ledger
from tests.support.needs import missing
from tracking.failpoints import BUILDS

Scenario = Callable[[MakeCluster, Faults], None]

FAULTS: Final = Path(__file__).parent
STUCK_AFTER_S: Final = 30.0
"""Of a sweep of a few short trials: several times the bounds that the reconciler promises at the suite's settings."""


def attempts(cluster: FaultCluster, sweep_id: str) -> list[Any]:
    """All attempts, by run and number."""
    return list(cluster.query("SELECT * FROM audit_attempts WHERE sweep_id = %(id)s ORDER BY trial_number, attempt", id=sweep_id))


def check_nothing_was_burnt(cluster: FaultCluster, sweep_id: str) -> None:
    """Assert that every trial succeeded at its first attempt: nothing happened that would cost one."""
    burnt = [attempt for attempt in attempts(cluster, sweep_id) if (attempt.attempt, attempt.state) != (1, "succeeded")]
    assert not burnt, f"attempts were burnt: {burnt}"


# -- scenarios -------------------------------------------------------------------------------------------------------


def worker_wakes_up_with_an_outcome_that_is_no_longer_wanted(make: MakeCluster, faults: Faults) -> None:
    """Frozen between the end of the command and its report, for longer than the reassignment; the run's next attempt is under way when it wakes."""
    cluster = make(role_environ={"w1": {"SWEEP_FAILPOINTS": "worker.ended=stop@1"}})
    project = cluster.ledger_project(n_trials=1, extra="if attempt != '1': time.sleep(4)")
    sweep_id = cluster.submit(project)
    late = cluster.role("w1")
    cluster.wait_for(lambda: late.is_suspended, "the first worker has frozen")
    cluster.start_worker("w2")
    cluster.wait_for(lambda: [line.attempt for line in read_ledger(ledger_file(project)) if line.what == "start"] == [1, 2], "the second attempt runs")
    faults.record("worker: SIGSTOP before its report, past reassignment")
    late.wake()
    cluster.wait_for_end(sweep_id)
    check(cluster, sweep_id, n_trials=1, ledger=ledger_file(project))


def workers_clock_is_ten_minutes_behind(make: MakeCluster, faults: Faults) -> None:
    """A worker that renews in time is never given up, whatever its own clock shows."""
    libraries = sorted(Path("/usr").glob("lib*/**/faketime/libfaketimeMT.so.1"))
    if not libraries:
        missing("libfaketime is not installed (apt install faketime)")
    behind = {"LD_PRELOAD": str(libraries[0]), "FAKETIME": "-10m", "FAKETIME_DONT_FAKE_MONOTONIC": "1", "DONT_FAKE_MONOTONIC": "1"}
    cluster = make(role_environ={"w1": behind})
    # The trials' own clocks are as they are.
    command = ["env", *(f"--unset={name}" for name in behind), sys.executable, "-IS", "${program}"]
    project = cluster.ledger_project(n_trials=4, seconds=(0.5, 2.0), command=command)
    faults.record("worker: clock 10 minutes behind")
    sweep_id = cluster.submit(project)
    cluster.wait_for_end(sweep_id, deadline_s=STUCK_AFTER_S)
    check(cluster, sweep_id, n_trials=4, ledger=ledger_file(project))
    check_nothing_was_burnt(cluster, sweep_id)


def worker_is_killed_for_ever(make: MakeCluster, faults: Faults) -> None:
    """What it ran, and what was placed on it, is run by the other one within the stated bound."""
    cluster = make(role_environ={"w1": {"SWEEP_FAILPOINTS": "worker.started=kill@2"}})
    project = cluster.ledger_project(n_trials=6, seconds=1.0)
    sweep_id = cluster.submit(project)
    cluster.role("w1").wait()
    faults.record("worker: kill -9, never back")
    cluster.start_worker("w2")
    cluster.wait_for_end(sweep_id, deadline_s=STUCK_AFTER_S)
    check(cluster, sweep_id, n_trials=6, ledger=ledger_file(project))


def worker_claims_what_has_gone_to_another(make: MakeCluster, faults: Faults) -> None:
    """Frozen when about to claim, until the run was placed elsewhere: its claim comes too late, before the other one's."""
    held_back = "worker.claiming=sleep:6@1"
    cluster = make(
        environ={"SWEEP_REASSIGN_AFTER_S": "60"},
        role_environ={"w1": {"SWEEP_FAILPOINTS": "worker.claiming=stop@1"}, "w2": {"SWEEP_FAILPOINTS": held_back}},
    )
    project = cluster.ledger_project(n_trials=1, seconds=2.0)
    sweep_id = cluster.submit(project)
    late = cluster.role("w1")
    cluster.wait_for(lambda: late.is_suspended, "the first worker has frozen")
    cluster.start_worker("w2")
    elsewhere = "SELECT 1 FROM runs r JOIN workers w ON w.worker_id = r.worker_id WHERE r.sweep_id = %(id)s AND r.state = 'placed' AND w.name = 'w2'"
    cluster.wait_for(lambda: cluster.query(elsewhere, id=sweep_id), "the run is placed on the second worker")
    faults.record("worker: SIGSTOP before its claim, until the run is placed elsewhere")
    late.wake()
    cluster.wait_for_end(sweep_id)
    check(cluster, sweep_id, n_trials=1, ledger=ledger_file(project))
    check_nothing_was_burnt(cluster, sweep_id)


def reply_to_a_report_is_lost(make: MakeCluster, faults: Faults) -> None:
    """The worker reports again, and is told that its word was taken."""
    cluster = make()
    project = cluster.ledger_project(n_trials=4)
    strike = cluster.proxy("w1", "postgres").on_commit("lose_reply", nth=2, matching=b"finish_key")
    sweep_id = cluster.submit(project)
    strike.wait()
    faults.record("finish: lose reply")
    cluster.wait_for_end(sweep_id)
    check(cluster, sweep_id, n_trials=4, ledger=ledger_file(project))
    assert "no longer ours" not in cluster.role("w1").log(), "a worker was told that its own outcome was refused"


def reply_to_a_claim_is_lost(make: MakeCluster, faults: Faults) -> None:
    """The worker claims again, and has the attempt that it had opened."""
    cluster = make()
    project = cluster.ledger_project(n_trials=4)
    strike = cluster.proxy("w1", "postgres").on_commit("lose_reply", nth=2, matching=b"INSERT INTO attempts")
    sweep_id = cluster.submit(project)
    strike.wait()
    faults.record("claim: lose reply")
    cluster.wait_for_end(sweep_id)
    check(cluster, sweep_id, n_trials=4, ledger=ledger_file(project))
    check_nothing_was_burnt(cluster, sweep_id)


def everything_sleeps_and_the_scheduler_wakes_first(make: MakeCluster, faults: Faults) -> None:
    """A laptop's lid: nobody renewed for longer than the reassignment, and nobody is to blame for it."""
    cluster = make(environ={"SWEEP_LEASE_S": "10"} if FULL else {"SWEEP_LEASE_S": "10", "SWEEP_REASSIGN_AFTER_S": "11"})
    project = cluster.ledger_project(n_trials=2, seconds=8.0)
    sweep_id = cluster.submit(project)
    cluster.wait_for_running(sweep_id, 2)
    roles = [cluster.role(name) for name in ("scheduler", "w1")]
    for role in roles:
        role.suspend()
    silent = "SELECT 1 FROM sessions WHERE renewed_at + make_interval(secs => %(after)s) < now()"
    cluster.wait_for(lambda: cluster.query(silent, after=cluster.settings.reassign_after_s + 1), "the worker has been silent for too long")
    faults.record("everything asleep past reassignment (SIGSTOP)")
    for role in roles:
        role.wake()
        if role.name == "scheduler":
            wait_for_thought(cluster)
    cluster.wait_for_end(sweep_id)
    check(cluster, sweep_id, n_trials=2, ledger=ledger_file(project))
    check_nothing_was_burnt(cluster, sweep_id)


def wait_for_thought(cluster: FaultCluster) -> None:
    """Wait until the leader has renewed twice more: between the two it has looked at the leases."""
    seen = set()

    def has_renewed_twice() -> bool:
        seen.add(cluster.query("SELECT renewed_at FROM leader")[0].renewed_at)
        return len(seen) > 2

    cluster.wait_for(has_renewed_twice, "the leader has thought")


# -- builds ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Catch:
    """How a broken build is caught.

    Attributes:
        error: what the scenario fails with.
        said: and what it says.
        witnesses: tests of the rest of the suite that fail on it too, as `file::test`.
    """

    scenario: Scenario
    error: type[Exception]
    said: str
    witnesses: tuple[str, ...] = ()


CATCHES: Final[Mapping[str, Catch]] = {
    "no-fence": Catch(
        worker_wakes_up_with_an_outcome_that_is_no_longer_wanted,
        AssertionError,
        "alive at once|still alive",
        ("test_workers.py::test_worker_paused_past_its_reassignment_can_write_nothing_and_stops_its_trial",),
    ),
    "worker-clock-lease": Catch(
        workers_clock_is_ten_minutes_behind,
        TimeoutError,
        "sweep .* ends",
        ("test_workers.py::test_clocks_that_jump_by_ten_minutes_change_no_lease_and_no_duration",),
    ),
    "no-reconciler": Catch(
        worker_is_killed_for_ever, TimeoutError, "sweep .* ends", ("test_workers.py::test_worker_killed_at_any_step_is_replaced_when_it_never_returns",)
    ),
    "claim-without-placement": Catch(
        worker_claims_what_has_gone_to_another,
        AssertionError,
        "attempts were burnt",
        ("test_brokers.py::test_message_at_the_wrong_worker_or_of_another_placement_starts_nothing",),
    ),
    "no-finish-key": Catch(
        reply_to_a_report_is_lost, AssertionError, "its own outcome was refused", ("test_smoke.py::test_finish_is_recorded_once_when_its_commit_goes_wrong",)
    ),
    "no-claim-id": Catch(
        reply_to_a_claim_is_lost, AssertionError, "attempts were burnt", ("test_postgres.py::test_move_has_one_effect_when_its_commit_or_the_reply_is_lost",)
    ),
    "no-expiry-suspension": Catch(
        everything_sleeps_and_the_scheduler_wakes_first,
        AssertionError,
        "attempts were burnt",
        ("test_postgres.py::test_no_attempt_is_burnt_when_postgres_is_away_for_longer_than_the_reassignment",),
    ),
}


class Unrecorded(Faults):
    """Of a scenario that is to fail: what it injects shows nothing."""

    def __init__(self) -> None: ...

    def record(self, name: str, times: int = 1) -> None:
        """Not counted."""


@pytest.mark.parametrize("build", [pytest.param(build, marks=pytest.mark.quick if build == "no-fence" else ()) for build in sorted(CATCHES)])
def test_broken_build_is_caught(fault_cluster: MakeCluster, faults: Faults, build: str) -> None:
    """The scenario fails, and says what is wrong."""
    catch = CATCHES[build]
    with pytest.raises(catch.error, match=catch.said):
        catch.scenario(breaking(fault_cluster, build), Unrecorded())
    faults.record(f"broken build: {build}, caught")


def breaking(make: MakeCluster, build: str) -> MakeCluster:
    """Makes clusters whose every role is a broken build, and says so."""

    def make_broken(*, environ: Mapping[str, str] | None = None, **more: Any) -> FaultCluster:
        cluster = make(environ={**(environ or {}), "SWEEP_BROKEN": build}, **more)
        cluster.expects_tracebacks = True
        silent = [role.name for role in cluster.roles if b"BROKEN ON PURPOSE" not in role.log_file.read_bytes()]
        assert not silent, f"a broken build must say so: {silent}"
        return cluster

    return make_broken


@pytest.mark.skipif(bool(BROKEN), reason="everything is broken on purpose")
@pytest.mark.parametrize("build", sorted(CATCHES))
def test_scenario_that_catches_a_broken_build_passes_with_the_guard_in_place(fault_cluster: MakeCluster, faults: Faults, build: str) -> None:
    """Nothing is wrong when nothing is broken."""
    CATCHES[build].scenario(fault_cluster, faults)


def test_every_broken_build_is_caught_by_something() -> None:
    """No build without a scenario, no build without a row in the documentation; and the other tests that catch it exist."""
    assert set(CATCHES) == BUILDS
    text = (FAULTS.parents[1] / "docs" / "reliability.md").read_text(encoding="utf-8")
    rows = {found[1]: found[0] for found in re.finditer(r"^\| `([a-z-]+)` \|.*$", text, re.MULTILINE)}
    assert set(rows) >= BUILDS
    for build, catch in CATCHES.items():
        for witness in catch.witnesses:
            file, _, name = witness.partition("::")
            tests = {node.name for node in ast.parse((FAULTS / file).read_text(encoding="utf-8")).body if isinstance(node, ast.FunctionDef)}
            assert name.partition("[")[0] in tests, f"there is no {witness}"
            assert f"`{witness}`" in rows[build], f"docs/reliability.md does not say that {witness} catches {build}"
