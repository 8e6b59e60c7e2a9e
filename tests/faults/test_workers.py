"""Workers that die, freeze, restart, fill their disks or are given poison: nothing lost, nothing twice, nothing stuck (I2, I3, I5 to I8).

Most tests share a server and a scheduler; each has workers and a queue of its own, named after it.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest

from tests.faults.invariants import check
from tests.support.fault_table import Faults
from tests.support.faults import FULL, FaultCluster
from tests.support.ledger import ledger_file, read_ledger
from tests.support.needs import missing, program, root
from tests.support.postgres import children
from tests.support.services import wait_until
from worker.runtimes.host import process_start

MakeCluster = Callable[..., FaultCluster]

STEPS: Final = ("claiming", "claimed", "prepared", "started", "ended", "finished", "renewed")
"""The failpoints of a worker."""
JUMP_S: Final = 600
PATIENT: Final = {"SWEEP_REASSIGN_AFTER_S": "900" if FULL else "60"}
"""Time for a worker to come back, however busy the machine is."""


@pytest.fixture(scope="module")
def shared(shared_fault_cluster: MakeCluster) -> FaultCluster:
    """Server and scheduler over a Postgres and a Redis; no workers. A worker has a minute to come back."""
    return shared_fault_cluster(workers=(), proxies=(), environ=PATIENT)


@pytest.fixture(scope="module")
def shared_hasty(shared_fault_cluster: MakeCluster) -> FaultCluster:
    """The same, where a silent worker soon loses its runs."""
    return shared_fault_cluster(workers=(), proxies=())


@pytest.fixture
def site(shared: FaultCluster) -> Iterator[FaultCluster]:
    """The patient one, rid of a test's workers afterwards."""
    yield shared
    kill_workers(shared)


@pytest.fixture
def hasty(shared_hasty: FaultCluster) -> Iterator[FaultCluster]:
    """The hasty one, rid of a test's workers afterwards."""
    yield shared_hasty
    kill_workers(shared_hasty)


def kill_workers(cluster: FaultCluster) -> None:
    """All that still run."""
    for role in cluster.roles:
        if role.arguments[0] == "worker" and role.is_running:
            role.kill()


@dataclass(frozen=True)
class Submitted:
    """A sweep of trials that keep a ledger."""

    cluster: FaultCluster
    sweep_id: str
    n_trials: int
    ledger: Path

    def check(self) -> None:
        """Wait for its end, and insist on every invariant."""
        self.cluster.wait_for_end(self.sweep_id)
        check(self.cluster, self.sweep_id, n_trials=self.n_trials, ledger=self.ledger)

    def attempts(self) -> Sequence[Any]:
        """As recorded, of each run one after the other."""
        return self.cluster.query("SELECT * FROM audit_attempts WHERE sweep_id = %(id)s ORDER BY trial_number, attempt", id=self.sweep_id)

    def states(self) -> Counter[str]:
        """How many trials are in each state."""
        rows = self.cluster.query("SELECT state, count(*) AS n FROM trials WHERE sweep_id = %(id)s GROUP BY state", id=self.sweep_id)
        return Counter({row.state: row.n for row in rows})

    def executions(self) -> Counter[int]:
        """How often each trial was started, by the ledger."""
        return Counter(line.number for line in read_ledger(self.ledger) if line.what == "start")

    def wait_for_starts(self, count: int) -> None:
        """Wait until so many attempts have really begun."""
        wait_until(lambda: len([line for line in read_ledger(self.ledger) if line.what == "start"]) >= count, f"{count} have started")

    def wait_for_attempts(self, count: int, state: str, *, of: int | None = None) -> None:
        """Wait until so many attempts (of this number) are in a state."""
        self.cluster.wait_for(
            lambda: sum(each.state == state and of in (None, each.attempt) for each in self.attempts()) >= count, f"{count} attempts are {state}"
        )

    def output(self) -> dict[int, str]:
        """Of each trial the standard output that is recorded of its last attempt; pieces must follow each other without a gap."""
        sql = """
        SELECT r.trial_number, l.offset_bytes, l.data FROM log_chunks l JOIN runs r ON r.run_id = l.run_id AND r.attempt = l.attempt
         WHERE r.sweep_id = %(id)s AND l.stream = 'stdout' ORDER BY 1, 2
        """
        found: dict[int, bytes] = {}
        for row in self.cluster.query(sql, id=self.sweep_id):
            known = found.get(row.trial_number, b"")
            assert row.offset_bytes == len(known), f"trial {row.trial_number}: the record goes on at {row.offset_bytes}, not at {len(known)}"
            found[row.trial_number] = known + bytes(row.data)
        return {number: data.decode() for number, data in found.items()}


def submit(cluster: FaultCluster, n_trials: int, seconds: float | tuple[float, float] = 0.0, *, extra: str = "", **keys: object) -> Submitted:
    """Submit trials that keep a ledger; see `tests.support.ledger`."""
    file = cluster.ledger_project(n_trials=n_trials, seconds=seconds, extra=extra, **keys)
    return Submitted(cluster, cluster.submit(file), n_trials, ledger_file(file))


def until(file: Path, act: str = "pass") -> str:
    """Lines of Python: do something every fiftieth of a second until a file is there."""
    return f"while not os.path.exists({str(file)!r}):\n    {act}\n    time.sleep(0.05)\n"


def start(cluster: FaultCluster, queue: str, *names: str, slots: int = 2) -> None:
    """Start workers that serve this queue alone."""
    for name in names:
        cluster.start_worker(name, "--queue", queue, "--slots", str(slots), is_awaited=False)
    cluster.wait_for_workers(*names)


# -- killed -------------------------------------------------------------------------------------------------------


def nth_hit(rng: random.Random, step: str) -> int:
    """When to strike: among the first few runs; a renewal while there are runs."""
    return rng.randint(8, 12) if step == "renewed" else rng.randint(2, 6)


@pytest.mark.parametrize("step", STEPS)
def test_worker_killed_at_any_step_goes_on_after_its_restart(site: FaultCluster, faults: Faults, rng: random.Random, step: str) -> None:
    """Its next life adopts what runs and reports what has ended: nothing that was started is started again."""
    name = f"back-{step}"
    site.arm(name, f"worker.{step}=kill@{nth_hit(rng, step)}")
    start(site, name, name)
    sweep = submit(site, 12, (0.1, 0.4), queue=name)
    assert site.role(name).wait() == -signal.SIGKILL
    faults.record(f"worker: kill -9, {step}, restarted")
    site.arm(name, "")
    site.restart(name)
    sweep.check()
    assert sweep.states() == {"finished": 12}
    assert set(sweep.executions().values()) == {1}
    burnt = [attempt for attempt in sweep.attempts() if attempt.state != "succeeded"]
    assert {attempt.cause for attempt in burnt} <= {"lost"}
    if step in ("claimed", "prepared"):
        assert burnt, "an attempt without a command can't have gone on"


@pytest.mark.parametrize("step", STEPS)
def test_worker_killed_at_any_step_is_replaced_when_it_never_returns(hasty: FaultCluster, faults: Faults, rng: random.Random, step: str) -> None:
    """Once it has been silent for long enough its attempts are lost, and the other worker runs them."""
    queue = f"gone-{step}"
    doomed, other = f"{queue}-1", f"{queue}-2"
    hasty.arm(doomed, f"worker.{step}=kill@{nth_hit(rng, step)}")
    start(hasty, queue, doomed, other)
    sweep = submit(hasty, 20, (0.1, 0.4), queue=queue)
    assert hasty.role(doomed).wait() == -signal.SIGKILL
    faults.record(f"worker: kill -9, {step}, never restarted")
    sweep.check()
    assert sweep.states() == {"finished": 20}
    attempts = sweep.attempts()
    assert {attempt.worker_name for attempt in attempts if attempt.state != "succeeded"} <= {doomed}
    assert {attempt.worker_name for attempt in attempts if attempt.attempt > 1} <= {other}
    if step in ("claimed", "prepared", "started", "ended"):
        assert "lost" in {attempt.state for attempt in attempts}
    # Not before its time (I4), and not long after (I5).
    (silent,) = hasty.query("SELECT ended_at - renewed_at AS silence FROM sessions WHERE pid = %(pid)s", pid=hasty.role(doomed).process.pid)
    if silent.silence is not None:
        assert 0 <= silent.silence.total_seconds() - hasty.settings.reassign_after_s < 10


# -- frozen -------------------------------------------------------------------------------------------------------

# A trial that writes by itself as well, and notes how it was answered.
WRITES: Final = """
import json, urllib.error, urllib.request
answers = os.open({answers!r}, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
def write():
    point = {{"run_id": run_id, "key": "written", "value": float(attempt), "timestamp": time.time_ns() // 1_000_000, "step": 0}}
    request = urllib.request.Request(os.environ["MLFLOW_TRACKING_URI"] + "/api/2.0/mlflow/runs/log-metric", json.dumps(point).encode())
    request.add_header("Authorization", "Bearer " + os.environ["MLFLOW_TRACKING_TOKEN"])
    request.add_header("Content-Type", "application/json")
    try:
        status = urllib.request.urlopen(request, timeout=30).status
    except urllib.error.HTTPError as error:
        status = error.code
    os.write(answers, f"{{number}} {{attempt}} {{status}}\\n".encode())
def is_let_go():
    return os.path.exists({go!r}) or (number, attempt) == ("0", "1") and os.path.exists({end!r})
while not is_let_go():
    write()
    print("alive", flush=True)
    time.sleep(0.05)
"""


def answers_to(file: Path, attempt: int) -> set[tuple[int, int]]:
    """Which trials were answered how, in this attempt: (number, status)."""
    lines = [tuple(map(int, line.split())) for line in file.read_text().splitlines()] if file.exists() else []
    return {(number, status) for number, its_attempt, status in lines if its_attempt == attempt}


def recorded(sweep: Submitted, attempt: int) -> tuple[int, int]:
    """How many metric points and pieces of output the record has of this attempt of all trials."""
    sql = """
    SELECT (SELECT count(*) FROM audit_points p JOIN runs r ON r.run_id = p.run_id WHERE r.sweep_id = %(id)s AND p.attempt = %(attempt)s) AS points,
           (SELECT count(*) FROM log_chunks l JOIN runs r ON r.run_id = l.run_id WHERE r.sweep_id = %(id)s AND l.attempt = %(attempt)s) AS chunks
    """
    (row,) = sweep.cluster.query(sql, id=sweep.sweep_id, attempt=attempt)
    return row.points, row.chunks


def test_worker_paused_past_its_reassignment_can_write_nothing_and_stops_its_trial(hasty: FaultCluster, faults: Faults, tmp_path: Path) -> None:
    """The paused holder: metrics, output and outcome of its attempts are refused, and the trial that still runs there is stopped."""
    answers, go, end = tmp_path / "answers", tmp_path / "go", tmp_path / "end"
    start(hasty, "paused", "paused-1")
    sweep = submit(hasty, 2, extra=WRITES.format(answers=str(answers), go=str(go), end=str(end)), queue="paused")
    sweep.wait_for_starts(2)
    wait_until(lambda: answers_to(answers, 1) == {(0, 200), (1, 200)}, "both write, and may")
    start(hasty, "paused", "paused-2")
    holder = hasty.role("paused-1")
    holder.suspend()
    faults.record("worker: SIGSTOP past its reassignment, then SIGCONT")
    sweep.wait_for_attempts(2, "running", of=2)
    before = recorded(sweep, 1)
    wait_until(lambda: {number for number, status in answers_to(answers, 1) if status >= 400} == {0, 1}, "what the old attempts write is refused")
    end.touch()
    ended = (0, 1, "end")
    wait_until(lambda: ended in {(line.number, line.attempt, line.what) for line in read_ledger(sweep.ledger)}, "one has ended by itself")
    holder.wake()
    live = "SELECT 1 FROM sessions WHERE state = 'live' AND pid = %(pid)s"
    hasty.wait_for(lambda: hasty.query(live, pid=holder.process.pid), "the holder has begun anew")
    wait_until(lambda: not stale_processes(sweep), "the trial that was going on is stopped")
    assert recorded(sweep, 1) == before
    assert [attempt.state for attempt in sweep.attempts()] == ["lost", "running", "lost", "running"]
    go.touch()
    sweep.check()
    assert [attempt.state for attempt in sweep.attempts()] == ["lost", "succeeded", "lost", "succeeded"]
    assert (1, 1, "end") not in {(line.number, line.attempt, line.what) for line in read_ledger(sweep.ledger)}
    assert "is no longer valid: stopping its attempts" in holder.log()


def stale_processes(sweep: Submitted) -> list[int]:
    """Processes of first attempts."""
    run_ids = {attempt.run_id.encode() for attempt in sweep.attempts()}
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            variables = (entry / "environ").read_bytes().split(b"\0")
        except OSError:
            continue  # it has ended, or is somebody else's
        if b"SWEEP_ATTEMPT=1" in variables and any(b"SWEEP_RUN_ID=" + run_id in variables for run_id in run_ids):
            found.append(int(entry.name))
    return found


# -- restarted in order -------------------------------------------------------------------------------------------


def test_worker_with_twenty_running_trials_is_stopped_and_goes_on_with_them(site: FaultCluster, faults: Faults, tmp_path: Path) -> None:
    """SIGTERM leaves them running; the next start adopts them under the same attempt, and their output has no gap."""
    go = tmp_path / "go"
    start(site, "twenty", "twenty", slots=20)
    talk = "step = 0\n" + until(go, "print(f'step={step}', flush=True); step += 1")
    sweep = submit(site, 20, extra=talk, queue="twenty")
    sweep.wait_for_starts(20)
    assert site.role("twenty").stop() == 0
    faults.record("worker: SIGTERM with 20 running trials")
    away_at = time.monotonic()
    assert [(attempt.state, attempt.run_state) for attempt in sweep.attempts()] == [("running", "running")] * 20
    # Silent for longer than its lease, and with more to read when it comes back.
    wait_until(lambda: time.monotonic() - away_at > site.settings.lease_s * 1.2, "its lease has run out")
    start(site, "twenty", "twenty", slots=20)
    go.touch()
    sweep.check()
    assert [(attempt.attempt, attempt.state) for attempt in sweep.attempts()] == [(1, "succeeded")] * 20
    for number, text in sweep.output().items():
        *steps, last = text.splitlines()
        assert steps == [f"step={step}" for step in range(len(steps))]
        assert last == f"loss={number}"
    assert len(sweep.output()) == 20


def but_the_last(n_trials: int, go: Path) -> str:
    """Lines of Python: the last two trials wait until a file is there, so that a sweep is not over too soon to tell anything."""
    return f"if int(number) >= {n_trials - 2}:\n    while not os.path.exists({str(go)!r}): time.sleep(0.05)\n"


def test_workers_restarted_in_turn_lose_nothing(site: FaultCluster, faults: Faults, rng: random.Random, tmp_path: Path) -> None:
    """Rolling over in place: each worker is stopped and started again, twice, while trials run."""
    names, go = ["roll-1", "roll-2"], tmp_path / "go"
    start(site, "roll", *names)
    sweep = submit(site, 30, (0.2, 0.8), extra=but_the_last(30, go), queue="roll")
    sweep.wait_for_starts(4)
    for _ in range(2):
        for name in rng.sample(names, 2):
            assert site.role(name).stop() == 0
            faults.record("worker: rolled over in place")
            start(site, "roll", name)
    go.touch()
    sweep.check()
    assert sweep.states() == {"finished": 30}
    assert set(sweep.executions().values()) == {1}


def test_workers_replaced_by_new_ones_lose_nothing(site: FaultCluster, faults: Faults, tmp_path: Path) -> None:
    """Rolling over to another worker: the new one comes, the old one is drained and stopped once it is empty; no attempt is spent."""
    go = tmp_path / "go"
    start(site, "over", "over-old")
    sweep = submit(site, 24, (0.2, 0.6), extra=but_the_last(24, go), queue="over")
    sweep.wait_for_starts(2)
    with site.client() as client:
        client.drain_worker("over-old")
    start(site, "over", "over-new")
    busy = "SELECT 1 FROM runs JOIN workers w USING (worker_id) WHERE sweep_id = %(id)s AND state IN ('placed', 'running') AND w.name = 'over-old'"
    site.wait_for(lambda: not site.query(busy, id=sweep.sweep_id), "the old one is empty")
    assert site.role("over-old").stop() == 0
    faults.record("worker: drained and replaced by a new one")
    go.touch()
    sweep.check()
    assert [(attempt.attempt, attempt.state) for attempt in sweep.attempts()] == [(1, "succeeded")] * 24
    assert {attempt.worker_name for attempt in sweep.attempts()} == {"over-old", "over-new"}


def test_worker_that_is_drained_ends_what_it_has_and_takes_nothing_new(site: FaultCluster, faults: Faults, tmp_path: Path) -> None:
    """Its running trial goes on to its end; others go elsewhere until the drain is undone."""
    go = tmp_path / "go"
    start(site, "drain", "drain-1")
    held = submit(site, 1, extra=until(go), queue="drain")
    held.wait_for_starts(1)
    with site.client() as client:
        assert client.drain_worker("drain-1")["state"] == "draining"
        faults.record("worker: drained while it runs a trial")
        start(site, "drain", "drain-2")
        others = submit(site, 6, queue="drain")
        others.check()
        assert {attempt.worker_name for attempt in others.attempts()} == {"drain-2"}
        go.touch()
        held.check()
        assert [(attempt.worker_name, attempt.attempt, attempt.state) for attempt in held.attempts()] == [("drain-1", 1, "succeeded")]
        assert site.role("drain-2").stop() == 0
        client.undrain_worker("drain-1")
    after = submit(site, 2, queue="drain")
    after.check()
    assert {attempt.worker_name for attempt in after.attempts()} == {"drain-1"}


@pytest.mark.quick
def test_worker_started_twice_on_one_state_folder_refuses_the_second(site: FaultCluster, faults: Faults, tmp_path: Path) -> None:
    """The second says why and ends; the first, its session and its trial notice nothing."""
    go = tmp_path / "go"
    start(site, "twice", "twice")
    first = site.role("twice")
    sweep = submit(site, 1, extra=until(go), queue="twice")
    sweep.wait_for_starts(1)
    second = site.start_worker("twice", "--queue", "twice", is_awaited=False)
    assert second.wait() == 1
    faults.record("worker: two on one state folder")
    assert "Another worker already runs from" in second.log()
    assert first.is_running
    go.touch()
    sweep.check()
    assert [(attempt.attempt, attempt.state) for attempt in sweep.attempts()] == [(1, "succeeded")]
    sessions = site.query("SELECT s.state FROM sessions s JOIN workers w USING (worker_id) WHERE w.name = 'twice'")
    assert [row.state for row in sessions] == ["live"]


# -- sick ---------------------------------------------------------------------------------------------------------


def test_worker_whose_every_run_fails_at_once_is_cordoned_and_the_sweep_finishes_elsewhere(site: FaultCluster, faults: Faults) -> None:
    """A black hole takes a few runs, says why it gets no more, and costs none of them its end; helped, it serves again."""
    start(site, "hole", "hole-bad", "hole-good")
    (runs,) = site.folder.glob("home-hole-bad/workers/*/runs")
    runs.rmdir()
    runs.touch()
    sweep = submit(site, 30, 0.1, queue="hole")
    sweep.check()
    assert sweep.states() == {"finished": 30}
    failed = [attempt for attempt in sweep.attempts() if attempt.state != "succeeded"]
    faults.record("worker: fails every run at once", len(failed))
    assert {(attempt.worker_name, attempt.cause) for attempt in failed} == {("hole-bad", "launch")}
    # What was placed before the third of them was judged may follow: one a slot, and one ahead of it.
    assert 3 <= len(failed) <= 3 + 2 * site.slots
    assert {row.user_retries for row in site.query("SELECT user_retries FROM audit_trials WHERE sweep_id = %(id)s", id=sweep.sweep_id)} == {0}
    with site.client() as client:
        (worker,) = [each for each in client.workers()["workers"] if each["name"] == "hole-bad"]
        assert worker["state"] == "cordoned"
        assert "Not a directory" in str(worker), worker
        assert site.role("hole-good").stop() == 0
        runs.unlink()
        runs.mkdir()
        client.uncordon_worker("hole-bad")
    after = submit(site, 2, queue="hole")
    after.check()
    assert {attempt.worker_name for attempt in after.attempts()} == {"hole-bad"}


# The trial's parent is its shim, the shim's the launcher, the launcher's the worker.
POISON: Final = """
if number == "3":
    chain = [os.getpid()]
    for _ in range(3):
        chain.append(int(open(f"/proc/{chain[-1]}/stat").read().rpartition(")")[2].split()[1]))
    if b"sweeps.cli" in open(f"/proc/{chain[-1]}/cmdline", "rb").read():
        for pid in reversed(chain):
            os.kill(pid, 9)
"""


def test_trial_that_kills_its_worker_ends_once_the_machinery_has_tried_often_enough(site: FaultCluster, faults: Faults) -> None:
    """A poison trial takes worker, launcher, shim and itself down, wherever it runs; a service manager starts workers again. Others are unaffected."""
    names = ("poison-1", "poison-2")
    start(site, "poison", *names)
    sweep = submit(site, 12, (0.1, 0.5), extra=POISON, queue="poison", retry={"max": 2})
    n_deaths = 0

    def is_over() -> bool:
        nonlocal n_deaths
        for name in names:
            if not site.role(name).is_running:
                n_deaths += 1
                site.restart(name, is_awaited=False)
        return bool(site.query("SELECT 1 FROM sweeps WHERE sweep_id = %(id)s AND ended_at IS NOT NULL", id=sweep.sweep_id))

    site.wait_for(is_over, "the sweep ends", deadline_s=100)
    faults.record("worker: killed by its own trial", n_deaths)
    site.wait_for_workers(*names)
    sweep.check()
    assert n_deaths == site.settings.infra_retries + 1
    assert sweep.states() == {"finished": 11, "failed": 1}
    (poison,) = site.query("SELECT * FROM audit_trials WHERE sweep_id = %(id)s AND trial_number = 3", id=sweep.sweep_id)
    assert (poison.state, poison.cause, poison.n_attempts) == ("failed", "lost", n_deaths)
    assert (poison.machinery_faults, poison.user_retries) == (site.settings.infra_retries, 0)
    executions = sweep.executions()
    assert executions.pop(3) == n_deaths
    assert set(executions.values()) == {1}


# -- the machine --------------------------------------------------------------------------------------------------


def family(pid: int) -> list[int]:
    """A process and all that it has started."""
    return [pid, *(member for child in children(pid) for member in family(child))]


def test_machine_that_sleeps_longer_than_every_lease_burns_no_attempt(fault_cluster: MakeCluster, faults: Faults, rng: random.Random) -> None:
    """Everything stands still, Postgres, Redis and the trials too; whoever wakes first, workers speak before they are judged (I4)."""
    cluster = fault_cluster(proxies=())
    sweep = submit(cluster, 12, (1.0, 2.5))
    for n_sleep in range(2):
        sweep.wait_for_starts(3 * n_sleep + 2)
        families = {name: family(cluster.role(name).process.pid) for name in ("server", "w1", "scheduler")}
        for pids in families.values():
            send(pids, signal.SIGSTOP)
        cluster.postgres.suspend()
        cluster.redis.suspend()
        faults.record("machine: asleep for longer than every lease")
        time.sleep(cluster.settings.reassign_after_s * 4 / 3)  # the fault itself
        wakes: list[Callable[[], None]] = [cluster.postgres.wake, cluster.redis.wake]
        wakes += [partial(send, families[name], signal.SIGCONT) for name in ("scheduler", "server", "w1")]
        # Once the scheduler well before the worker, with a Postgres to ask: the worst order there is.
        pauses_s = [0.0, 0.0, cluster.settings.lease_s / 3, 0.0, 0.0] if n_sleep == 0 else [rng.uniform(0, 0.2) for _ in wakes]
        for wake, pause_s in zip(wakes if n_sleep == 0 else rng.sample(wakes, len(wakes)), pauses_s, strict=True):
            wake()
            time.sleep(pause_s)  # they wake one by one
    sweep.check()
    assert [(attempt.attempt, attempt.state) for attempt in sweep.attempts()] == [(1, "succeeded")] * 12
    assert {row.state for row in cluster.query("SELECT state FROM sessions")} == {"live"}


def send(pids: Sequence[int], number: signal.Signals) -> None:
    """To all that still are: short-lived members of a family may have ended meanwhile."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


@dataclass(frozen=True)
class Clock:
    """The wall clock of one role, to be put forward and back; its monotonic one runs on, as a machine's does."""

    file: Path

    @classmethod
    def new(cls, file: Path) -> "Clock":
        """One that is right."""
        clock = cls(file)
        clock.set(0)
        return clock

    def set(self, offset_s: int) -> None:
        """Be wrong by so much from now on."""
        fresh = self.file.with_suffix(".new")
        fresh.write_text(f"{offset_s:+d}\n")
        fresh.replace(self.file)

    def environ(self) -> dict[str, str]:
        """What makes a process follow it."""
        program("faketime")
        library = next(Path("/usr").glob("lib/*/faketime/libfaketimeMT.so.1"), None) or missing("libfaketime is not installed (make services)")
        return {"LD_PRELOAD": str(library), "FAKETIME_TIMESTAMP_FILE": str(self.file), "FAKETIME_NO_CACHE": "1", "FAKETIME_DONT_FAKE_MONOTONIC": "1"}


def test_clocks_that_jump_by_ten_minutes_change_no_lease_and_no_duration(
    fault_cluster: MakeCluster, faults: Faults, rng: random.Random, tmp_path: Path
) -> None:
    """Leases are judged by the database's clock, durations and time limits by monotonic ones: worker and scheduler may be wrong (I4)."""
    clocks = {role: Clock.new(tmp_path / role) for role in ("w1", "scheduler")}
    cluster = fault_cluster(role_environ={role: clock.environ() for role, clock in clocks.items()}, proxies=(), environ=PATIENT)
    go = tmp_path / "go"
    # Trials of the worker keep the right time: the library would break off their sleep.
    command = ["/usr/bin/env", "-u", "LD_PRELOAD", sys.executable, "-IS", "${program}"]
    # Two that are there all the time, adopted once, with a limit that no jump may reach.
    held = submit(cluster, 2, extra=until(go), command=command, limits={"trials": 2, "trial_time": "300s"})
    held.wait_for_starts(2)
    cluster.start_worker("w2")
    sweep = submit(cluster, 30, (0.2, 0.5), command=command)
    jumps = [("w1", JUMP_S), ("scheduler", JUMP_S), ("w1", -JUMP_S), ("scheduler", -JUMP_S), ("w1", 0), ("scheduler", 0)]
    rng.shuffle(jumps)
    for n_jump, (role, offset_s) in enumerate(jumps):
        clocks[role].set(offset_s)
        faults.record(f"{'worker' if role == 'w1' else 'scheduler'}: its clock jumps by ten minutes")
        cluster.wait_for_finished(sweep.sweep_id, 4 * (n_jump + 1))
    assert {attempt.worker_name for attempt in held.attempts()} == {"w1"}
    clocks["w1"].set(JUMP_S)
    cluster.restart("w1")
    sweep.check()
    go.touch()
    held.check()
    for each in (sweep, held):
        assert {(attempt.attempt, attempt.state, attempt.detail) for attempt in each.attempts()} == {(1, "succeeded", "")}
    assert all(0.2 <= attempt.duration_s < 30 for attempt in sweep.attempts())
    assert all(0 <= (attempt.ended_at - attempt.claimed_at).total_seconds() < 60 for attempt in sweep.attempts())
    assert "lost" not in {row.state for row in cluster.query("SELECT state FROM sessions")}


@pytest.fixture
def small_disk(shared: FaultCluster) -> Iterator[Path]:
    """The home of worker `disk`, a file system of 8 MiB of its own."""
    root("to mount a small file system")
    home = shared.folder / "home-disk"
    home.mkdir()
    subprocess.run([program("mount"), "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(home)], check=True)
    yield home
    subprocess.run([program("umount"), "--lazy", str(home)], check=True)


def fill(folder: Path) -> Path:
    """Leave no room there; the file that takes it."""
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file:
        for size_bytes in (1 << 20, 1 << 12, 1):
            try:
                while file.write(bytes(size_bytes)) == size_bytes:
                    pass
            except OSError:
                continue
    return filler


def test_worker_whose_disk_is_full_says_so_and_serves_again_when_there_is_room(site: FaultCluster, small_disk: Path, faults: Faults, tmp_path: Path) -> None:
    """Runs that can't be prepared or can't write fail by the machinery's fault, silent ones end as they do, a cancel arrives, the worker lives on."""
    hush, talk = tmp_path / "hush", tmp_path / "talk"
    start(site, "disk", "disk", slots=6)
    silent = submit(site, 1, extra=until(hush) + "note('end'); os._exit(0)", queue="disk", metric=None)
    talking = submit(site, 1, extra=until(talk) + "print('x' * 500_000, flush=True)", queue="disk")
    unwanted = submit(site, 1, extra=until(tmp_path / "never"), queue="disk")
    for each in (silent, talking, unwanted):
        each.wait_for_starts(1)
    filler = fill(small_disk)
    faults.record("worker: disk full")
    with site.client() as client:
        client.steer(unwanted.sweep_id, "cancel")
    site.wait_for_end(unwanted.sweep_id)
    fill(small_disk)
    new = submit(site, 1, queue="disk")
    new.wait_for_attempts(1, "failed")
    hush.touch()
    silent.check()
    assert [(attempt.attempt, attempt.state) for attempt in silent.attempts()] == [(1, "succeeded")]
    talk.touch()
    talking.wait_for_attempts(1, "failed")
    filler.unlink()
    for each in (new, talking):
        each.check()
        assert each.states() == {"finished": 1}
        assert {attempt.cause for attempt in each.attempts() if attempt.state == "failed"} == {"launch"}
        assert all("No space left on device" in attempt.detail for attempt in each.attempts() if attempt.state == "failed")
    unwanted.check()
    assert unwanted.states() == {"cancelled": 1}
    assert site.role("disk").is_running


@contextmanager
def bystander(cluster: FaultCluster) -> Iterator["subprocess.Popen[bytes]"]:
    """A process that has the number of a trial of the earlier life, and even started in the same moment of this one."""
    process = subprocess.Popen(["sleep", "600"], start_new_session=True)
    try:
        file = next(cluster.folder.glob("home-w1/workers/*/runs/*/1/started.json"))
        facts = {"trial_pid": process.pid, "trial_start": process_start(process.pid)}
        file.write_text(json.dumps(json.loads(file.read_text()) | facts))
        yield process
    finally:
        process.kill()
        process.wait()


def test_host_that_was_rebooted_has_its_runs_tried_again_at_once(fault_cluster: MakeCluster, faults: Faults, tmp_path: Path) -> None:
    """All its processes have ended: its worker says so as it comes back, long before the silence would; no process of the new life is taken for one."""
    root("to have another boot id")
    cluster = fault_cluster(proxies=(), environ={"SWEEP_REASSIGN_AFTER_S": "900"})
    go = tmp_path / "go"
    sweep = submit(cluster, 2, extra=until(go))
    sweep.wait_for_starts(2)
    send(family(cluster.role("w1").process.pid), signal.SIGKILL)
    cluster.role("w1").wait()
    faults.record("host: rebooted")
    with bystander(cluster) as innocent:
        boot_id = tmp_path / "boot_id"
        boot_id.write_text("00000000-0000-4000-8000-000000000000\n")
        mount = f'mount --bind {boot_id} /proc/sys/kernel/random/boot_id && exec "$@"'
        cluster.role_prefix["w1"] = [program("unshare"), "--mount", "sh", "-c", mount, "sh"]
        cluster.restart("w1")
        sweep.wait_for_attempts(2, "running", of=2)
        assert innocent.poll() is None
    go.touch()
    sweep.check()
    assert [(attempt.attempt, attempt.cause) for attempt in sweep.attempts()] == [(1, "lost"), (2, "completed")] * 2
    hosts = cluster.query("SELECT DISTINCT host_incarnation FROM attempts")
    assert len(hosts) == 2


@pytest.mark.parametrize("order", ["worker first", "trials first"])
def test_host_that_was_shut_down_in_order_has_its_runs_tried_again_at_once(fault_cluster: MakeCluster, faults: Faults, tmp_path: Path, order: str) -> None:
    """As init does it, and service managers unless told otherwise: SIGTERM to everybody. A trial that ends by that is not to blame (I6, I7)."""
    root("to have another boot id")
    cluster = fault_cluster(proxies=(), environ={"SWEEP_REASSIGN_AFTER_S": "900"})
    go = tmp_path / "go"
    sweep = submit(cluster, 2, extra=until(go))
    sweep.wait_for_starts(2)
    everybody = family(cluster.role("w1").process.pid)
    send(everybody if order == "worker first" else everybody[::-1], signal.SIGTERM)
    cluster.role("w1").wait()
    faults.record("host: shut down in order")
    boot_id = tmp_path / "boot_id"
    boot_id.write_text("00000000-0000-4000-8000-000000000000\n")
    mount = f'mount --bind {boot_id} /proc/sys/kernel/random/boot_id && exec "$@"'
    cluster.role_prefix["w1"] = [program("unshare"), "--mount", "sh", "-c", mount, "sh"]
    cluster.restart("w1")
    sweep.wait_for_attempts(2, "running", of=2)
    go.touch()
    sweep.check()
    assert [(attempt.attempt, attempt.cause) for attempt in sweep.attempts()] == [(1, "lost"), (2, "completed")] * 2
    assert {attempt.signal for attempt in sweep.attempts() if attempt.attempt == 1} == {signal.SIGTERM}


def test_worker_that_was_renamed_runs_no_attempt_beside_an_earlier_one(fault_cluster: MakeCluster, faults: Faults, tmp_path: Path) -> None:
    """It is another worker by its name, and says what the first has left; given the run anew, it ends the earlier attempt first."""
    cluster = fault_cluster(proxies=())
    code = f"""
if attempt == "1":
    with open({str(tmp_path / "first")!r}, "w") as file: file.write(str(os.getpid()))
    time.sleep(1000)
try:
    os.kill(int(open({str(tmp_path / "first")!r}).read()), 0)
    print("the first attempt is still alive", flush=True)
except ProcessLookupError:
    print("alone", flush=True)
"""
    sweep = submit(cluster, 1, extra=code)
    sweep.wait_for_starts(1)
    wait_until(lambda: (tmp_path / "first").exists() and (tmp_path / "first").read_text(), "the first attempt says who it is")
    cluster.role("w1").stop()
    faults.record("worker: renamed")
    cluster.role_environ["w2"] = {"SWEEP_HOME": str(cluster.folder / "home-w1")}
    cluster.start_worker("w2")
    cluster.wait_for_end(sweep.sweep_id)
    assert [(attempt.attempt, attempt.cause) for attempt in sweep.attempts()] == [(1, "lost"), (2, "completed")]
    assert "alone" in sweep.output()[0]
    assert "Worker w1 is not running and has left 1 attempts running" in cluster.role("w2").log()


def test_worker_starts_whatever_another_of_its_home_has_left(fault_cluster: MakeCluster, faults: Faults) -> None:
    """A trial has put a file in the place of its folder, and its worker is down: the others of that home are not kept from their work."""
    cluster = fault_cluster(proxies=())
    runs = cluster.folder / "home-w1" / "workers" / "w1" / "runs"
    wait_until(runs.exists, "the worker has its folders")
    cluster.role("w1").stop()
    (runs / "odd").mkdir()
    (runs / "odd" / "1").write_text("hello")
    faults.record("worker: a file in the place of an attempt's folder")
    cluster.role_environ["w2"] = {"SWEEP_HOME": str(cluster.folder / "home-w1")}
    cluster.start_worker("w2")
    sweep = submit(cluster, 1)
    cluster.wait_for_end(sweep.sweep_id)
    sweep.check()
    cluster.restart("w1")
    wait_until(lambda: not (runs / "odd").exists(), "its own worker has removed it")
