"""Cancel and prune at each moment of a run's life, asked for through the store: one true end each, and nothing that runs on (I2, I5, I7)."""

import random
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from tests.faults.conftest import MakeCluster
from tests.faults.invariants import check
from tests.support.cluster import Role
from tests.support.fault_table import Faults
from tests.support.faults import PATIENT, STRETCH, FaultCluster
from tests.support.ledger import ledger_file, read_ledger
from tests.support.services import wait_until
from tests.support.trials import Site, Trials, is_alive, site_on
from tracking.errors import NotNow

_LONG: Final = "mark('ready', os.getpid()); time.sleep(1000)"
_SHORT: Final = "mark('ready')"

MOMENTS: Final = {
    # Where the process is held for as long as it is asked; how long the trial is; what a cancel makes of it, and a prune.
    "queued": ("scheduler.created", _SHORT, "cancelled", "finished"),
    "placed": ("scheduler.placed", _SHORT, "cancelled", "finished"),
    "claiming": ("worker.claiming", _SHORT, "cancelled", "finished"),
    "claimed": ("worker.claimed", _LONG, "cancelled", "pruned"),
    "prepared": ("worker.prepared", _LONG, "cancelled", "pruned"),
    "started": ("worker.started", _LONG, "cancelled", "pruned"),
    "running": (None, _LONG, "cancelled", "pruned"),
    "ended": ("worker.ended", _SHORT, "finished", "finished"),
    "finished": ("worker.finished", _SHORT, "finished", "finished"),
}
"""Of a run that has ended before its stop was sent, the true end counts; one that waits can be cancelled, and there is nothing to prune."""


@pytest.fixture(scope="module")
def cluster(shared_fault_cluster: MakeCluster) -> FaultCluster:
    """Without a broker: every moment is told from the others by failpoints, not by how a message travels."""
    return shared_fault_cluster(proxies=(), broker="none", environ=PATIENT)


@pytest.fixture
def site(cluster: FaultCluster, tmp_path: Path) -> Iterator[Site]:
    """The shared cluster, whole again in the end. Failpoints that were passed once are harmless from then on."""
    with site_on(cluster, tmp_path) as opened:
        yield opened
    for name in ("scheduler", "w1"):
        cluster.arm(name, "")
        if not cluster.role(name).is_running or cluster.role(name).is_suspended:
            cluster.restart(name)


def hold(site: Site, point: str) -> Role:
    """Have a role freeze at its first pass of a failpoint, a mark `held` left."""
    name = "scheduler" if point.startswith("scheduler.") else "w1"
    site.cluster.arm(name, f"{point}=touch:{site.outside / 'held'}+stop@1")
    return site.cluster.restart(name)


def submit_at(site: Site, moment: str) -> tuple[Trials, list[Role]]:
    """One trial, come as far as that moment; and who is frozen there, to be woken."""
    point, code, _, _ = MOMENTS[moment]
    frozen = [hold(site, point)] if point is not None else []
    if moment == "placed":
        # It would look for itself what is placed on it.
        frozen.append(site.cluster.role("w1"))
        frozen[1].suspend()
    trials = site.submit(code, n_trials=1)
    trials.await_mark("held" if frozen else "ready")
    wait_until(lambda: all(role.is_suspended for role in frozen), "they are frozen", deadline_s=60 * STRETCH)
    return trials, frozen


def settle(trials: Trials, state: str) -> None:
    """The one run has come to that end, the only one; and whatever it had started is gone."""
    trials.cluster.wait_for_end(trials.sweep_id)
    wait_until(lambda: trials.store.trials.get(trials.sweep_id, 0).state != "open", "the trial is concluded", deadline_s=60 * STRETCH)
    trials.settle(state, "completed" if state == "finished" else state)
    ended = trials.cluster.query(
        "SELECT event FROM audit_events WHERE run_id = %(id)s AND subject = 'run' AND to_state = %(state)s", id=trials.run_id, state=state
    )
    assert len(ended) == 1
    if (ready := trials.outside / "ready").exists() and ready.read_text():
        assert not is_alive(ready.read_text())


@pytest.mark.parametrize("moment", MOMENTS)
def test_cancel_of_a_run_has_one_true_end_at_each_moment(site: Site, faults: Faults, moment: str) -> None:
    """Cancelled until its command has ended, and what it was after that."""
    trials, frozen = submit_at(site, moment)
    assert site.store.queue.request_cancel(trials.run_id) == (moment != "finished")
    faults.record(f"cancel of a run: {moment}")
    for role in frozen:
        role.wake()
    settle(trials, MOMENTS[moment][2])
    if moment in ("queued", "placed", "claiming"):
        assert not trials.attempts()
        assert not (site.outside / "ready").exists()


@pytest.mark.parametrize("moment", MOMENTS)
def test_prune_of_a_run_has_one_true_end_at_each_moment(site: Site, faults: Faults, moment: str) -> None:
    """Pruned while there is something to stop; a run that waits is not touched, and one that has ended stays what it is."""
    trials, frozen = submit_at(site, moment)
    is_running = moment not in ("queued", "placed", "claiming", "finished")
    assert site.store.queue.request_prune(trials.run_id, "It would not have won.") == is_running
    faults.record(f"prune of a run: {moment}")
    for role in frozen:
        role.wake()
    settle(trials, MOMENTS[moment][3])


@pytest.mark.parametrize("moment", MOMENTS)
def test_cancel_of_a_sweep_ends_its_run_at_each_moment(site: Site, faults: Faults, moment: str) -> None:
    """The sweep is over at once; its run ends as if it had been cancelled alone."""
    trials, frozen = submit_at(site, moment)
    # With its only run the sweep may just have ended by itself: then that stands.
    expected = "cancelled"
    try:
        assert site.store.sweeps.cancel(trials.sweep_id).state == expected
    except NotNow:
        assert moment == "finished"
        expected = "finished"
    faults.record(f"cancel of a sweep: {moment}")
    for role in frozen:
        role.wake()
    settle(trials, MOMENTS[moment][2])
    assert site.store.sweeps.get(trials.sweep_id).state == expected


@pytest.mark.parametrize("dead", [("scheduler",), ("w1",), ("scheduler", "w1")], ids=" and ".join)
def test_cancel_of_a_sweep_is_carried_out_though_who_should_is_dead(site: Site, faults: Faults, dead: tuple[str, ...]) -> None:
    """Killed with one trial running and others waiting: cancelled meanwhile, all is settled once they are back, and nothing runs on."""
    trials = site.submit(_LONG, n_trials=4, limits={"trials": 4, "parallel": 1})
    pid = trials.await_mark("ready")
    for name in dead:
        site.cluster.role(name).kill()
        faults.record(f"cancel of a sweep: {name} dead")
    site.store.sweeps.cancel(trials.sweep_id)
    if "w1" not in dead:
        wait_until(lambda: not is_alive(pid), "the worker stops the trial by itself", deadline_s=60 * STRETCH)
    for name in dead:
        site.cluster.restart(name)
    ended = site.cluster.wait_for_end(trials.sweep_id)
    site.cluster.wait_for_finished(trials.sweep_id, len(ended))
    check(site.cluster, trials.sweep_id, n_trials=len(ended), ledger=trials.ledger)
    trials_now = site.store.trials.list(trials.sweep_id)
    assert {(trial.state, trial.cause) for trial in trials_now} == {("cancelled", "cancelled")}
    assert not is_alive(pid)


def test_cancel_of_a_run_whose_worker_never_comes_back_ends_it(fault_cluster: MakeCluster, tmp_path: Path, faults: Faults) -> None:
    """Its attempt is lost when the worker is given up; nobody tries it again."""
    cluster = fault_cluster(proxies=(), broker="none")
    with site_on(cluster, tmp_path) as site:
        trials = site.submit(_LONG, n_trials=1)
        trials.await_mark("ready")
        cluster.role("w1").kill()
        trials.cancel()
        faults.record("cancel of a run: its worker gone for good")
        attempt = trials.end("cancelled", "cancelled")
        assert (attempt.state, attempt.cause) == ("lost", "lost")


@pytest.mark.parametrize("seed", range(2))
def test_cancel_racing_the_end_leaves_exactly_one_end(site: Site, faults: Faults, seed: int) -> None:
    """Short trials, each cancelled at a time drawn from the seed: cancelled or finished, each by one event, and the ledger agrees."""
    draw = random.Random(seed)  # noqa: S311 -- repeatable, not secret
    project = site.cluster.ledger_project(n_trials=30, seconds=(0.0, 0.2))
    sweep_id = site.cluster.submit(project)
    n_asked = n_answered = 0
    waiting = {number: draw.uniform(0.0, 0.3) for number in range(30)}
    while waiting:
        started = {line.number: line for line in read_ledger(ledger_file(project))}
        for number in waiting.keys() & started.keys():
            threading.Event().wait(waiting.pop(number) / 4)
            n_asked += 1
            n_answered += site.store.queue.request_cancel(started[number].run_id)
        if site.store.sweeps.get(sweep_id).ended_at is not None:
            break
    faults.record("cancel of a run: racing its end", n_asked)
    trials = site.cluster.wait_for_end(sweep_id)
    check(site.cluster, sweep_id, n_trials=30, ledger=ledger_file(project))
    states = [trial["state"] for trial in trials]
    assert set(states) <= {"cancelled", "finished"}
    assert states.count("cancelled") <= n_answered


def test_cancel_of_a_sweep_that_has_ended_is_refused(site: Site, faults: Faults) -> None:
    """What has finished stays finished, and who asks is told."""
    trials = site.submit(_SHORT, n_trials=1)
    site.cluster.wait_for_end(trials.sweep_id)
    with pytest.raises(NotNow, match="already ended"):
        site.store.sweeps.cancel(trials.sweep_id)
    faults.record("cancel of a sweep: ended")
    trials.end("finished", "completed")


def test_stop_sent_twice_and_prune_after_cancel_change_nothing(site: Site, faults: Faults) -> None:
    """The first reason stands."""
    trials = site.submit(f"signal.signal(signal.SIGTERM, signal.SIG_IGN); {_LONG}", n_trials=1)
    trials.await_mark("ready")
    trials.cancel()
    assert not site.store.queue.request_cancel(trials.run_id)
    site.store.queue.request_prune(trials.run_id, "Too late.")
    faults.record("prune after a cancel")
    attempt: Any = trials.end("cancelled", "cancelled")
    assert attempt.signal == signal.SIGKILL
