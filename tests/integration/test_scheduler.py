"""The scheduler on a real record: sweeps end exact whatever dies, limits hold, one leads. Workers are played by the test."""

import errno
import itertools
import math
import random
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any
from unittest.mock import Mock

import msgspec
import pytest

from scheduler import advance
from scheduler.dispatch import WakeUp
from scheduler.holdback import HoldBack
from scheduler.loop import Scheduler
from sweeps.spec import Submission, config_from_mapping
from tests.support.record import EXITED, NOT_LAUNCHED, STOPPED, SUCCEEDED, Hands, Held
from tests.support.services import wait_until
from tracking.errors import DatabaseAway
from tracking.ids import new_secret, new_uuid, token_hash
from tracking.records import MetricPoint, Outcome, Sweep, SweepCounts, Trial
from tracking.settings import Settings
from tracking.states import FINAL_SWEEP_STATES
from tracking.store import Store
from tracking.store.attempts import FinishAnswer
from tracking.store.listener import Listener

GRID = {"method": "grid", "parameters": {"a": {"values": [1, 2, 3, 4]}, "b": {"values": ["x", "y", "z"]}}}
RANDOM = {"method": "random", "parameters": {"a": {"min": 0.0, "max": 1.0}}}
BAYES = {"method": "bayes", "parameters": {"a": {"min": 0.0, "max": 1.0}, "b": {"values": [1, 2, 3]}}}
CELLS = {(a, b) for a in (1, 2, 3, 4) for b in "xyz"}

Decide = Callable[[Held], Outcome]


class Recorder:
    """A dispatcher that only remembers."""

    def __init__(self) -> None:
        self.sent: list[WakeUp] = []

    def send(self, run_id: str, placement: int, celery_queue: str, expires_s: float) -> bool:
        """Remember one."""
        return self.send_many([WakeUp(run_id, placement, celery_queue, expires_s)]) == 1

    def send_many(self, wake_ups: Iterable[WakeUp]) -> int:
        """Remember several."""
        before = len(self.sent)
        self.sent.extend(wake_ups)
        return len(self.sent) - before

    def close(self) -> None:
        """Nothing to let go of."""


class FakeWorker:
    """Claims what is placed on it while slots are free, and ends it when told to."""

    def __init__(self, hands: Hands, **fields: Any) -> None:
        self.hands = hands
        self.session = hands.worker(**fields)
        self.held: dict[str, Held] = {}

    def claim(self) -> None:
        """Take what was placed here, as far as there are slots."""
        store = self.hands.store
        answer = store.sessions.renew(self.session.session_id, lease_s=60)
        assert answer is not None
        for placed in answer.placed[: self.session.slots - len(self.held)]:
            claim_id, secret = new_uuid(), new_secret()
            claimed = store.attempts.claim(placed.run_id, placed.placement, self.session.session_id, claim_id=claim_id, secret_hash=token_hash(secret))
            if claimed is not None:
                self.held[placed.run_id] = Held(claimed, self.session.session_id, claim_id, secret)

    def end(self, decide: Decide = lambda _: SUCCEEDED) -> None:
        """End everything held; a success logs its loss first."""
        for held in self.held.values():
            outcome = decide(held)
            if outcome.verdict == "succeeded":
                self.hands.store.metrics.log(held.run_id, [MetricPoint("loss", loss_of(held.claimed.params), 1, 1)], held.fence)
            self.hands.finish(held, outcome)
        self.held.clear()

    def work(self, decide: Decide = lambda _: SUCCEEDED) -> None:
        """Claim and end."""
        self.claim()
        self.end(decide)

    def obey(self) -> None:
        """End what is to be cancelled, as stopped."""
        owned = {run.run_id for run in self.hands.store.sessions.look(self.session.session_id).owned if run.cancel}
        for run_id in owned & self.held.keys():
            self.hands.finish(self.held.pop(run_id), STOPPED)


def loss_of(params: dict[str, Any]) -> float:
    """The objective of the played trials."""
    return float(params["a"]) + (ord(params["b"]) / 1000 if isinstance(params.get("b"), str) else 0.0)


class Stage:
    """A record, schedulers on it and workers; everything is let go of at the end."""

    def __init__(self, store: Store, url: str) -> None:
        self.store = store
        self.hands = Hands(store, leads=False)
        self.url = url
        self.listeners: list[Listener] = []
        self.dispatcher = Recorder()
        # As if somebody had led until just now: the first leader of a record that lay idle suspends expiry.
        self.drop_leader()

    def scheduler(self, store: Any = None, **changed: Any) -> Scheduler:
        """A scheduler that has not ticked yet."""
        self.listeners.append(Listener(self.url))
        settings = Settings(**{"poll_s": 0.001, "infra_retries": 2, **changed})
        return Scheduler(store or self.store, settings, self.dispatcher, self.listeners[-1])

    def submit(self, method: dict[str, Any], **more: Any) -> Sweep:
        """Submit a sweep made in Python."""
        mapping = {"name": "s", "program": "train.py", "metric": {"name": "loss", "goal": "minimize"}, "strategy": {"seed": 7}, **method, **more}
        submission = Submission(config_from_mapping(mapping), "", None)  # type: ignore[arg-type]  # nothing is packed here
        return self.store.sweeps.submit(submission.to_new_sweep(None, user_name=more.get("user_name", "")))

    def state(self, sweep: Sweep) -> str:
        """Where the sweep stands."""
        return self.store.sweeps.get(sweep.sweep_id).state

    def extend(self, sweep: Sweep, trials_max: int) -> None:
        """Let it have so many trials in all."""
        now = self.store.sweeps.get(sweep.sweep_id)
        self.store.sweeps.extend(now, {**now.config, "limits": {**now.config["limits"], "trials": trials_max}}, "more")

    def trials(self, sweep: Sweep) -> list[Trial]:
        """All trials, by number."""
        return list(self.store.trials.list(sweep.sweep_id))

    def drop_leader(self) -> None:
        """The leader died: its lease runs out."""
        self.hands.change("UPDATE leader SET lease_until = now() - interval '1 millisecond'")

    def skip_backoff(self) -> None:
        """Let the time pass that requeued runs wait."""
        self.hands.change("UPDATE runs SET not_before = now() WHERE state = 'queued'")

    def drive(self, sweep: Sweep, scheduler: Callable[[], Scheduler], workers: list[FakeWorker], decide: Decide = lambda _: SUCCEEDED) -> None:
        """Tick and work in turn until the sweep is over."""
        for _ in range(200):
            scheduler()._tick_safely()
            if self.state(sweep) in FINAL_SWEEP_STATES:
                return
            self.skip_backoff()
            for worker in workers:
                worker.work(decide)
        raise AssertionError(f"stuck (I5): {self.store.sweeps.counts(sweep.sweep_id)}")

    def check_exact(self, sweep: Sweep, n_trials: int) -> None:
        """I2: numbered without gaps, each told once, each with one run, the history of each in order."""
        rows = self.hands.sql("SELECT * FROM audit_trials WHERE sweep_id = %(id)s ORDER BY trial_number", id=sweep.sweep_id)
        assert [row.trial_number for row in rows] == list(range(n_trials))
        assert sorted(row.told_seq for row in rows) == list(range(1, n_trials + 1))
        assert len({row.run_id for row in rows}) == n_trials
        runs = self.hands.sql("SELECT count(*) FROM runs WHERE sweep_id = %(id)s", id=sweep.sweep_id)
        assert runs[0][0] == n_trials
        ends = Counter(
            row.trial_number for row in self.hands.sql("SELECT * FROM audit_events WHERE sweep_id = %(id)s AND subject = 'trial'", id=sweep.sweep_id)
        )
        assert set(ends.values()) == {1}


@pytest.fixture
def stage(store: Store, database_url: str) -> Iterator[Stage]:
    """A stage on a database of the test's own."""
    opened = Stage(store, database_url)
    yield opened
    for listener in opened.listeners:
        listener.close()


def cells_of(trials: list[Trial]) -> list[tuple[Any, Any]]:
    """The grid's cells that were tried."""
    return [(trial.params["a"], trial.params["b"]) for trial in trials]


# -- whole sweeps ------------------------------------------------------------------------------------------------


def test_scheduler_grid_tries_every_cell_once(stage: Stage) -> None:
    """All cells, numbered without gaps, the best one that of a plain loop; then the sweep is finished."""
    sweep, scheduler = stage.submit(GRID), stage.scheduler()
    stage.drive(sweep, lambda: scheduler, [FakeWorker(stage.hands), FakeWorker(stage.hands)])
    trials = stage.trials(sweep)
    assert sorted(cells_of(trials)) == sorted(CELLS)
    stage.check_exact(sweep, 12)
    assert {trial.attempts for trial in trials} == {1}
    (best,) = stage.store.trials.best(sweep.sweep_id)
    assert best.value == min(a + ord(b) / 1000 for a, b in CELLS)
    ended = stage.store.sweeps.get(sweep.sweep_id)
    assert (ended.state, ended.cause) == ("finished", "completed")


def test_scheduler_run_cap_is_exact(stage: Stage) -> None:
    """N trials asked for gives N trials, also when fewer than the grid has, and each with its own command and seed."""
    scheduler, worker = stage.scheduler(), FakeWorker(stage.hands, slots=3, cpus=3.0)
    for method, cap in ((GRID, 5), (RANDOM, 23), (BAYES, 6)):
        sweep = stage.submit(method, run_cap=cap)
        stage.drive(sweep, lambda: scheduler, [worker])
        stage.check_exact(sweep, cap)
        seeds = stage.hands.sql("SELECT seed, argv FROM runs WHERE sweep_id = %(id)s AND kind = 'managed'", id=sweep.sweep_id)
        assert len({row.seed for row in seeds}) == cap
        assert all(row.argv[:3] == ["/usr/bin/env", "python", "train.py"] for row in seeds)


def test_scheduler_without_workers_waits(stage: Stage) -> None:
    """A sweep on an empty cluster has its first proposals, and begins when a worker comes."""
    sweep, scheduler = stage.submit(GRID), stage.scheduler()
    scheduler.tick()
    scheduler.tick()
    counts = stage.store.sweeps.counts(sweep.sweep_id)
    assert 0 < counts.queued == counts.total
    stage.drive(sweep, lambda: scheduler, [FakeWorker(stage.hands)])
    stage.check_exact(sweep, 12)


def test_scheduler_many_sweeps_at_once_all_end(stage: Stage) -> None:
    """Sweeps of all methods side by side, none mixed up with another."""
    sweeps = [stage.submit(GRID), stage.submit(RANDOM, run_cap=9), stage.submit(BAYES, run_cap=5), stage.submit(GRID, run_cap=3)]
    scheduler, workers = stage.scheduler(), [FakeWorker(stage.hands, slots=4, cpus=4.0)]
    for sweep in sweeps:
        stage.drive(sweep, lambda: scheduler, workers)
    for sweep, n_trials in zip(sweeps, (12, 9, 5, 3), strict=True):
        stage.check_exact(sweep, n_trials)


def test_scheduler_registers_the_winner_at_the_end(stage: Stage) -> None:
    """`register:` is carried out once, in the transaction that ends the sweep."""
    sweep, scheduler = stage.submit(GRID, register={"model": "grid-model", "alias": "best"}), stage.scheduler()
    stage.drive(sweep, lambda: scheduler, [FakeWorker(stage.hands)])
    scheduler.tick()
    (version,) = stage.store.registry.model("grid-model").versions
    assert (version.trial_number, version.aliases) == (stage.store.trials.best(sweep.sweep_id)[0].number, ("best",))


# -- crashes -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", [GRID, {**RANDOM, "run_cap": 12}, {**BAYES, "run_cap": 12}], ids=lambda m: m["method"])
def test_scheduler_killed_at_every_tick_gives_the_same_sweep(stage: Stage, method: dict[str, Any]) -> None:
    """A new scheduler after each tick: no gap, no double, and the very proposals of one that lived through."""
    proposals, worker = [], FakeWorker(stage.hands, slots=1, cpus=1.0)
    for is_killed in (False, True):
        sweep = stage.submit({**method, "limits": {"parallel": 1}})
        stage.drop_leader()
        survivor = stage.scheduler()

        def next_scheduler(survivor: Scheduler = survivor, is_killed: bool = is_killed) -> Scheduler:
            if not is_killed:
                return survivor
            stage.drop_leader()
            return stage.scheduler()

        stage.drive(sweep, next_scheduler, [worker])
        stage.check_exact(sweep, 12)
        proposals.append([trial.params for trial in stage.trials(sweep)])
    assert proposals[0] == proposals[1]


def test_scheduler_that_forgets_rebuilds_its_search_from_the_rows(stage: Stage) -> None:
    """`forget` at any moment costs nothing but the rebuilding."""
    sweep, scheduler = stage.submit(BAYES, run_cap=15), stage.scheduler()
    worker = FakeWorker(stage.hands)

    def forgetful() -> Scheduler:
        scheduler._advance.forget()
        return scheduler

    stage.drive(sweep, forgetful, [worker])
    stage.check_exact(sweep, 15)


class Flaky:
    """A store whose calls are carried out, and whose answers are sometimes lost."""

    def __init__(self, inner: Any, dice: random.Random) -> None:
        self._inner = inner
        self._dice = dice

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        if not callable(found):
            return Flaky(found, self._dice)

        def call(*args: Any, **kwargs: Any) -> Any:
            answer = found(*args, **kwargs)
            if self._dice.random() < 0.08:
                raise DatabaseAway("The connection broke off after the commit.")
            return answer

        return call


@pytest.mark.parametrize("seed", range(4))
def test_scheduler_with_lost_replies_neither_doubles_nor_loses(stage: Stage, seed: int) -> None:
    """A commit that happened though it raised: what the scheduler thinks it knows is read again (D2)."""
    methods: list[dict[str, Any]] = [GRID, {**BAYES, "run_cap": 10}]
    sweep = stage.submit(methods[seed % 2], register={"model": "flaky"})
    dice = random.Random(seed)  # noqa: S311 -- a test's dice
    scheduler = stage.scheduler(Flaky(stage.store, dice))

    def decide(held: Held) -> Outcome:
        return NOT_LAUNCHED if held.attempt == 1 and dice.random() < 0.3 else SUCCEEDED

    # Two workers, so that a run that failed on one has another to go to; fresh ones when both were cordoned.
    stage.drive(sweep, lambda: scheduler, [FakeWorker(stage.hands) for _ in range(6)], decide)
    stage.check_exact(sweep, 12 if seed % 2 == 0 else 10)
    assert {trial.state for trial in stage.trials(sweep)} == {"finished"}
    assert len(stage.store.registry.model("flaky").versions) == 1


# -- limits --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", [GRID, {**RANDOM, "run_cap": 9}, {**BAYES, "run_cap": 9}], ids=lambda m: m["method"])
def test_scheduler_never_runs_more_than_parallel(stage: Stage, method: dict[str, Any]) -> None:
    """`limits.parallel` on far more slots, over the whole sweep, one worker drained in its midst."""
    sweep, scheduler = stage.submit({**method, "limits": {"parallel": 3}}), stage.scheduler()
    workers = [FakeWorker(stage.hands, slots=8, cpus=8.0) for _ in range(2)]
    most = 0
    for round_ in range(60):
        scheduler.tick()
        if stage.state(sweep) in FINAL_SWEEP_STATES:
            break
        if round_ == 1:
            stage.store.sessions.drain(workers[0].session.worker_id)
        for worker in workers:
            worker.claim()
        most = max(most, len(stage.store.trials.running(sweep.sweep_id)))
        workers[round_ % 2].end()
    assert stage.state(sweep) == "finished"
    assert most == 3


@pytest.mark.parametrize("method", [GRID, RANDOM, BAYES], ids=lambda m: m["method"])
def test_scheduler_begins_nothing_more_once_a_target_is_reached(stage: Stage, method: dict[str, Any]) -> None:
    """Not even grid and random propose ahead while a target may be reached: only what runs beside the trial that does ends after it."""
    sweep, scheduler = stage.submit(method, metric={"name": "loss", "goal": "minimize", "target": 100.0}), stage.scheduler()
    worker = FakeWorker(stage.hands, slots=2, cpus=2.0)
    stage.drive(sweep, lambda: scheduler, [worker])
    stage.check_exact(sweep, 2)
    assert stage.state(sweep) == "finished"


def test_scheduler_tells_of_the_one_failure_that_was_too_many(stage: Stage) -> None:
    """One is no plural."""
    sweep, scheduler = stage.submit(GRID, limits={"failures": 1, "parallel": 1}), stage.scheduler()
    worker = FakeWorker(stage.hands, slots=1)
    scheduler.tick()
    worker.work(lambda _: EXITED)
    scheduler.tick()
    assert stage.store.sweeps.get(sweep.sweep_id).detail == "1 trial failed; the file allows fewer than 1 (limits.failures)."


def test_scheduler_too_many_failures_fail_the_sweep(stage: Stage) -> None:
    """At `limits.failures` the sweep fails, its running trials are stopped, all for that cause; no more are tried."""
    sweep, scheduler = stage.submit(GRID, limits={"failures": 2}), stage.scheduler()
    failing, running = FakeWorker(stage.hands, slots=2), FakeWorker(stage.hands, slots=2)
    scheduler.tick()
    running.claim()
    failing.work(lambda _: EXITED)
    scheduler.tick()
    ended = stage.store.sweeps.get(sweep.sweep_id)
    assert (ended.state, ended.cause) == ("failed", "over_budget")
    assert "limits.failures" in str(ended.detail)
    running.obey()
    scheduler.tick()
    trials = stage.trials(sweep)
    assert Counter(trial.state for trial in trials) == {"failed": 2, "cancelled": len(trials) - 2}
    assert {trial.cause for trial in trials if trial.state == "cancelled"} == {"over_budget"}
    assert {trial.cause for trial in trials if trial.state == "failed"} == {"exit_status"}
    stage.check_exact(sweep, len(trials))


def test_scheduler_time_limit_stops_the_sweep_and_keeps_what_it_has(stage: Stage) -> None:
    """After `limits.time` running trials are stopped; the sweep ends as finished, over budget, with its best."""
    sweep, scheduler = stage.submit(GRID, limits={"time": "1h"}, register={"model": "timed"}), stage.scheduler()
    done, running = FakeWorker(stage.hands), FakeWorker(stage.hands)
    scheduler.tick()
    done.work()
    running.claim()
    scheduler.tick()
    assert stage.state(sweep) == "active"
    stage.hands.change("UPDATE sweeps SET started_at = now() - interval '2 hours'")
    # The age is asked for once, when the search is built.
    scheduler._advance.forget()
    scheduler.tick()
    assert stage.state(sweep) == "stopping"
    running.obey()
    scheduler.tick()
    ended = stage.store.sweeps.get(sweep.sweep_id)
    assert (ended.state, ended.cause) == ("finished", "over_budget")
    states = Counter(trial.state for trial in stage.trials(sweep))
    assert states["finished"] == 2
    assert set(states) == {"finished", "cancelled"}
    assert {trial.cause for trial in stage.trials(sweep) if trial.state == "cancelled"} == {"over_budget"}
    assert len(stage.store.registry.model("timed").versions) == 1


def test_scheduler_sweep_without_any_success_has_failed(stage: Stage) -> None:
    """All trials failed: so did the sweep, and each trial with its own cause."""
    sweep, scheduler = stage.submit(GRID, run_cap=3), stage.scheduler()
    stage.drive(sweep, lambda: scheduler, [FakeWorker(stage.hands)], lambda _: EXITED)
    ended = stage.store.sweeps.get(sweep.sweep_id)
    assert ended.state == "failed"
    assert str(ended.detail).startswith("No trial succeeded")
    assert [(t.state, t.cause, t.attempts) for t in stage.trials(sweep)] == [("failed", "exit_status", 1)] * 3


# -- by hand ----------------------------------------------------------------------------------------------------------


def test_scheduler_stop_lets_running_trials_end(stage: Stage) -> None:
    """After a stop nothing new begins; what runs finishes and counts; then the sweep is finished."""
    sweep, scheduler = stage.submit(GRID), stage.scheduler()
    worker = FakeWorker(stage.hands)
    scheduler.tick()
    worker.claim()
    stage.store.sweeps.stop(sweep.sweep_id)
    scheduler.tick()
    assert stage.state(sweep) == "stopping"
    worker.end()
    scheduler.tick()
    assert stage.state(sweep) == "finished"
    trials = stage.trials(sweep)
    assert Counter(trial.state for trial in trials) == {"finished": 2, "cancelled": len(trials) - 2}
    stage.check_exact(sweep, len(trials))


def test_scheduler_cancel_concludes_what_still_ran(stage: Stage) -> None:
    """The sweep is over at once; its running trials end when their workers obey, and are told too."""
    sweep, scheduler = stage.submit(GRID), stage.scheduler()
    worker = FakeWorker(stage.hands)
    scheduler.tick()
    worker.claim()
    stage.store.sweeps.cancel(sweep.sweep_id)
    scheduler.tick()
    assert stage.store.sweeps.counts(sweep.sweep_id).running == 2
    worker.obey()
    scheduler.tick()
    assert stage.state(sweep) == "cancelled"
    trials = stage.trials(sweep)
    assert {(trial.state, trial.cause) for trial in trials} == {("cancelled", "cancelled")}
    stage.check_exact(sweep, len(trials))


def test_scheduler_pause_begins_nothing_and_resume_goes_on(stage: Stage) -> None:
    """A paused sweep proposes and places nothing, whatever ends meanwhile."""
    sweep, scheduler = stage.submit(GRID), stage.scheduler()
    worker = FakeWorker(stage.hands)
    scheduler.tick()
    worker.claim()
    stage.store.sweeps.pause(sweep.sweep_id)
    total = stage.store.sweeps.counts(sweep.sweep_id).total
    worker.end()
    scheduler.tick()
    worker.claim()
    assert worker.held == {}
    counts = stage.store.sweeps.counts(sweep.sweep_id)
    assert (counts.total, counts.finished, counts.placed, counts.running) == (total, 2, 0, 0)
    stage.store.sweeps.resume(sweep.sweep_id)
    stage.drive(sweep, lambda: scheduler, [worker])
    stage.check_exact(sweep, 12)


# -- the machinery's faults --------------------------------------------------------------------------------------------


def test_scheduler_tries_again_elsewhere_when_the_machinery_fails(stage: Stage) -> None:
    """A run that could not be started on one worker gets its next attempt on another, after a pause (I6)."""
    sweep, scheduler = stage.submit(GRID, run_cap=1), stage.scheduler()
    bad, good = FakeWorker(stage.hands, name="a-bad"), FakeWorker(stage.hands, name="b-good")
    scheduler.tick()
    bad.claim()
    assert len(bad.held) == 1
    bad.end(lambda _: NOT_LAUNCHED)
    scheduler.tick()
    assert stage.store.sweeps.counts(sweep.sweep_id) == SweepCounts(open=1, queued=1)
    stage.drive(sweep, lambda: scheduler, [good])
    (trial,) = stage.trials(sweep)
    assert (trial.state, trial.attempts, trial.worker_name) == ("finished", 2, "b-good")


def test_scheduler_gives_up_when_the_machinery_fails_too_often(stage: Stage) -> None:
    """The machinery's budget ends: the run fails with that cause, told once."""
    sweep, scheduler = stage.submit(GRID, run_cap=1), stage.scheduler()
    stage.drive(sweep, lambda: scheduler, [FakeWorker(stage.hands)], lambda _: NOT_LAUNCHED)
    (trial,) = stage.trials(sweep)
    assert (trial.state, trial.cause, trial.attempts) == ("failed", "launch", 3)
    assert [a.state for a in stage.store.attempts.list(trial.run_id)] == ["failed"] * 3
    stage.check_exact(sweep, 1)


def test_scheduler_tries_failed_code_again_as_the_file_says(stage: Stage) -> None:
    """`retry:` gives further attempts of the same run, after a pause and anywhere; the search and `limits.failures` hear of the end only."""
    retry = {"max": 2, "on": ["exit_1"], "delay": 100}
    sweep, scheduler = stage.submit(GRID, run_cap=2, retry=retry, limits={"failures": 2}), stage.scheduler()
    worker = FakeWorker(stage.hands)
    scheduler.tick()
    worker.work(lambda _: EXITED)
    scheduler.tick()
    waits = stage.hands.sql("SELECT extract(epoch FROM not_before - now()) AS s FROM runs WHERE sweep_id = %(id)s AND state = 'queued'", id=sweep.sweep_id)
    assert len(waits) == 2
    assert all(60 < row.s <= 100 for row in waits)
    stage.drive(sweep, lambda: scheduler, [worker], lambda held: EXITED if held.claimed.trial_number == 0 or held.attempt == 2 else SUCCEEDED)
    failed, finished = stage.trials(sweep)
    assert (failed.state, failed.cause, failed.attempts) == ("failed", "exit_status", 3)
    assert (finished.state, finished.attempts) == ("finished", 3)
    stage.check_exact(sweep, 2)


def test_scheduler_keeps_the_two_budgets_apart(stage: Stage) -> None:
    """Faults of the machinery between failures of the code: each kind is forgiven as often as its own budget says (I6)."""
    sweep, scheduler = stage.submit(GRID, run_cap=1, retry={"max": 1, "on": ["exit_status", "lost", "launch"]}), stage.scheduler(infra_retries=2)
    script = [NOT_LAUNCHED, EXITED, NOT_LAUNCHED, EXITED, SUCCEEDED]
    stage.drive(sweep, lambda: scheduler, [FakeWorker(stage.hands)], lambda held: script[held.attempt - 1])
    (trial,) = stage.trials(sweep)
    assert (trial.state, trial.cause, trial.attempts) == ("failed", "exit_status", 4)
    (row,) = stage.hands.sql("SELECT machinery_faults, user_retries FROM audit_trials WHERE sweep_id = %(id)s", id=sweep.sweep_id)
    assert tuple(row) == (2, 1)


def test_scheduler_ends_failed_runs_of_a_sweep_that_stops(stage: Stage) -> None:
    """A stop lets running trials end: a failure is such an end, whatever `retry:` says."""
    sweep, scheduler = stage.submit(GRID, run_cap=1, retry={"max": 5}), stage.scheduler()
    worker = FakeWorker(stage.hands)
    scheduler.tick()
    worker.claim()
    stage.store.sweeps.stop(sweep.sweep_id)
    worker.end(lambda _: EXITED)
    scheduler.tick()
    (trial,) = stage.trials(sweep)
    assert (trial.state, trial.cause, trial.attempts) == ("failed", "exit_status", 1)


def test_scheduler_cordons_a_worker_that_starts_nothing(stage: Stage) -> None:
    """Three different runs in a row: the worker gets nothing more, the sweep goes on elsewhere (I6)."""
    sweep, scheduler = stage.submit(GRID), stage.scheduler()
    bad, good = FakeWorker(stage.hands, name="a-bad", slots=3, cpus=3.0), FakeWorker(stage.hands, name="b-good")
    scheduler.tick()
    bad.claim()
    assert len(bad.held) == 3
    bad.end(lambda _: NOT_LAUNCHED)
    scheduler.tick()
    (view,) = [worker for worker in stage.store.sessions.workers() if worker.name == "a-bad"]
    assert "3 runs in a row" in str(view.cordoned)
    assert view.placed == ()
    stage.drive(sweep, lambda: scheduler, [good])
    stage.check_exact(sweep, 12)
    assert {trial.state for trial in stage.trials(sweep)} == {"finished"}


def test_scheduler_counts_a_fault_once_however_often_the_verdict_must_wait(stage: Stage) -> None:
    """Somebody holds a lock on the run: one run that could not be started is no three in a row, and its worker is not cordoned for it (I6)."""
    sweep, scheduler, worker = stage.submit(GRID), stage.scheduler(), FakeWorker(stage.hands, slots=1, cpus=1.0)
    scheduler.tick()
    worker.claim()
    (held,) = worker.held.values()
    worker.end(lambda _: NOT_LAUNCHED)
    # Each look at what is held is long after the last.
    hours = itertools.count(0, 3600)
    scheduler._reconciler._locked = HoldBack(lambda: float(next(hours)))
    with stage.store.database.engine.connect() as connection:
        connection.exec_driver_sql("SELECT 1 FROM runs WHERE run_id = %(id)s FOR UPDATE", {"id": held.run_id})
        for _ in range(3):
            scheduler.tick()
    assert stage.hands.run_state(held.run_id) == "running"
    faults = "SELECT faults_in_row FROM workers WHERE worker_id = %(id)s"
    assert [row.faults_in_row for row in stage.hands.sql(faults, id=worker.session.worker_id)] == [1]
    stage.drive(sweep, lambda: scheduler, [worker])
    stage.check_exact(sweep, 12)


@pytest.mark.parametrize("method", ["grid", "random", "bayes"])
def test_scheduler_goes_on_with_a_sweep_that_was_extended(stage: Stage, method: str) -> None:
    """While it runs, and after it has finished: as if it had asked for so many from the beginning."""
    file = {**GRID, "method": method}
    sweep, scheduler, worker = stage.submit(file, run_cap=2), stage.scheduler(), FakeWorker(stage.hands)
    scheduler.tick()
    stage.extend(sweep, 4)
    stage.drive(sweep, lambda: scheduler, [worker])
    stage.check_exact(sweep, 4)
    stage.extend(sweep, 7)
    stage.drive(sweep, lambda: scheduler, [worker])
    stage.check_exact(sweep, 7)
    if method != "bayes":
        whole = stage.submit(file, run_cap=7)
        stage.drive(whole, lambda: scheduler, [worker])
        assert cells_of(stage.trials(sweep)) == cells_of(stage.trials(whole))


@pytest.mark.parametrize(("impute", "told"), [("worst", None), ("latest", 3.0), ("best", 1.0)])
def test_scheduler_tells_bayes_of_failed_trials_as_the_file_says(stage: Stage, impute: str, told: float | None) -> None:
    """Their own latest or best value in place of the objective they lack; the record's objective stays empty, and the search is the same when rebuilt."""
    metric = {"name": "loss", "goal": "minimize", "impute": impute}
    sweep, worker = stage.submit(BAYES, metric=metric, run_cap=14), FakeWorker(stage.hands, slots=1)

    def fail_every_second(held: Held) -> Outcome:
        if int(stage.store.runs.get(held.run_id).name.rpartition("/")[2]) % 2 == 0:
            return SUCCEEDED
        stage.hands.log(held, "loss", 2.0, 1.0, 3.0)
        return EXITED

    one, another = stage.scheduler(), stage.scheduler()
    for n_ended in range(14):
        # Either in turn: each rebuilds what the other did.
        scheduler = another if n_ended % 2 else one
        stage.drop_leader()
        scheduler._tick_safely()
        scheduler._tick_safely()
        worker.work(fail_every_second)
    stage.drop_leader()
    stage.drive(sweep, lambda: one, [worker], fail_every_second)
    trials = stage.trials(sweep)
    failed = [trial for trial in trials if trial.state == "failed"]
    assert len(failed) == 7
    assert {(trial.value, trial.imputed, trial.told) for trial in failed} == {(None, told, told)}
    assert {trial.imputed for trial in trials if trial.state == "finished"} == {None}
    same = stage.submit(BAYES, metric=metric, run_cap=14)
    undisturbed = stage.scheduler()
    stage.drop_leader()
    stage.drive(same, lambda: undisturbed, [worker], fail_every_second)
    assert [trial.params for trial in stage.trials(same)] == [trial.params for trial in trials]


@pytest.mark.parametrize(
    "locked",
    [
        "sweeps WHERE sweep_id = %(id)s",
        "trials WHERE sweep_id = %(id)s AND number = 0",
        "runs WHERE sweep_id = %(id)s AND trial_number = 0",
        "runs WHERE sweep_id = %(id)s AND state = 'queued'",
    ],
)
def test_scheduler_goes_on_with_all_but_what_somebody_holds(stage: Stage, locked: str) -> None:
    """An administrator's open transaction holds rows of one sweep, one of whose attempts has failed: the others come to their ends, it does after it."""
    held_up, scheduler, worker = stage.submit(GRID), stage.scheduler(), FakeWorker(stage.hands, slots=2, cpus=2.0)
    scheduler.tick()
    worker.work(lambda held: EXITED if held.claimed.trial_number == 0 else SUCCEEDED)
    other = stage.submit({**RANDOM, "run_cap": 5}, name="other")

    def goes_on(sweep: Sweep) -> bool:
        scheduler._tick_safely()
        worker.work()
        return stage.state(sweep) in FINAL_SWEEP_STATES

    with stage.store.database.engine.connect() as connection:
        connection.exec_driver_sql(f"SELECT 1 FROM {locked} FOR UPDATE", {"id": held_up.sweep_id})  # noqa: S608 -- the rows above
        wait_until(lambda: goes_on(other), "the other ends", interval_s=0.01)
        stage.check_exact(other, 5)
    wait_until(lambda: goes_on(held_up), "the one that was held up ends", interval_s=0.01)
    stage.check_exact(held_up, 12)


def forget_trials(stage: Stage, sweep: Sweep, first: int) -> None:
    """The record goes back to before these trials were proposed, as a restored one, or a standby that took over and lacked the last second."""
    values = {"id": sweep.sweep_id, "first": first}
    which = "SELECT run_id FROM runs WHERE sweep_id = %(id)s AND trial_number >= %(first)s"
    for table in ("params", "events", "attempts"):
        stage.hands.change(f"DELETE FROM {table} WHERE run_id IN ({which})", **values)  # noqa: S608 -- the tables above
    stage.hands.change("DELETE FROM trials WHERE sweep_id = %(id)s AND number >= %(first)s", **values)
    stage.hands.change("DELETE FROM runs WHERE sweep_id = %(id)s AND trial_number >= %(first)s", **values)


@pytest.mark.parametrize(("file", "n_trials", "next_check"), [(GRID, 12, 0.0), ({**RANDOM, "run_cap": 40}, 40, math.inf)], ids=["poll", "proposal"])
def test_scheduler_reads_a_record_again_that_went_back(stage: Stage, file: dict[str, Any], n_trials: int, next_check: float) -> None:
    """No number is left out, and the sweep comes to its end: a poll finds that search and record differ, and so does the next proposal."""
    sweep, scheduler, worker = stage.submit(file), stage.scheduler(), FakeWorker(stage.hands)
    scheduler.tick()
    worker.work()
    scheduler.tick()
    forget_trials(stage, sweep, len(stage.trials(sweep)) - 2)
    scheduler._sweep_up_at = next_check
    stage.drive(sweep, lambda: scheduler, [worker])
    trials = stage.trials(sweep)
    assert [trial.number for trial in trials] == list(range(n_trials))
    assert len({str(trial.params) for trial in trials}) == n_trials


@pytest.mark.parametrize("method", ["grid", "bayes"])
def test_scheduler_runs_failed_trials_again_when_asked(stage: Stage, method: str) -> None:
    """A sweep that failed of its trials: they run again, the search is told anew, and goes on to its number."""
    file = {**GRID, "method": method, "limits": {"trials": 6, "failures": 3}}
    sweep, scheduler, worker = stage.submit(file), stage.scheduler(), FakeWorker(stage.hands)
    stage.drive(sweep, lambda: scheduler, [worker], lambda _: EXITED)
    assert stage.state(sweep) == "failed"
    failed = [trial for trial in stage.trials(sweep) if trial.state == "failed"]
    now = stage.store.sweeps.get(sweep.sweep_id)
    assert stage.store.sweeps.retry(now) == [trial.number for trial in failed]
    stage.drive(sweep, lambda: scheduler, [worker])
    trials = stage.trials(sweep)
    assert (stage.state(sweep), len(trials)) == ("finished", 6)
    again = [trial for trial in trials if trial.generation == 1]
    assert [(trial.number, trial.params) for trial in again] == [(trial.number, trial.params) for trial in failed]
    assert {trial.state for trial in again} == {"finished"}
    assert len({trial.told_seq for trial in trials}) == 6


def test_scheduler_gives_runs_of_a_lost_worker_to_another(stage: Stage) -> None:
    """A worker falls silent for good: its runs are lost there, run elsewhere, and its late reports are refused."""
    sweep, scheduler = stage.submit(GRID, run_cap=2), stage.scheduler()
    gone = FakeWorker(stage.hands)
    scheduler.tick()
    gone.claim()
    stage.hands.change("UPDATE sessions SET renewed_at = now() - interval '1 hour', lease_until = now() - interval '59 minutes'")
    scheduler.tick()
    assert stage.store.sweeps.counts(sweep.sweep_id).queued == 2
    stage.drive(sweep, lambda: scheduler, [FakeWorker(stage.hands)])
    for held in gone.held.values():
        answer = stage.store.attempts.finish(held.run_id, 1, held.session_id, EXITED, finish_key=new_uuid())
        assert answer is FinishAnswer.REFUSED
    assert [[a.state for a in stage.store.attempts.list(t.run_id)] for t in stage.trials(sweep)] == [["lost", "succeeded"]] * 2
    stage.check_exact(sweep, 2)


def test_scheduler_loses_nobody_after_a_gap_of_its_own(stage: Stage) -> None:
    """Postgres or the leader was away for an hour, and so nobody renewed: workers speak first (I4)."""
    sweep, scheduler = stage.submit(GRID, run_cap=2), stage.scheduler()
    worker = FakeWorker(stage.hands)
    scheduler.tick()
    worker.claim()
    stage.hands.change("UPDATE sessions SET renewed_at = now() - interval '1 hour', lease_until = now() - interval '59 minutes'")
    stage.hands.change("UPDATE leader SET renewed_at = now() - interval '1 hour', lease_until = now() - interval '59 minutes'")
    scheduler.tick()
    scheduler._seat._renew_at = 0.0
    scheduler.tick()
    stage.drop_leader()
    stage.scheduler().tick()
    assert stage.store.sweeps.counts(sweep.sweep_id).running == 2
    worker.end()
    assert [trial.run_state for trial in stage.trials(sweep)] == ["finished"] * 2


def test_scheduler_loses_nobody_after_an_outage_that_left_its_own_row_alone(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lock, a full disk: it could renew its leadership, workers could not renew their sessions; they speak first (I4)."""
    sweep, scheduler = stage.submit(GRID, run_cap=2), stage.scheduler()
    worker = FakeWorker(stage.hands)
    scheduler.tick()
    worker.claim()
    with monkeypatch.context() as patch:
        patch.setattr(scheduler._reconciler, "judge", Mock(side_effect=DatabaseAway("A table is locked.")))
        scheduler._tick_safely()
    stage.hands.change("UPDATE leader SET suspended_until = NULL")
    stage.hands.change("UPDATE sessions SET renewed_at = now() - interval '1 hour', lease_until = now() - interval '59 minutes'")
    scheduler._sweep_up_at = 0.0
    scheduler.tick()
    assert stage.store.sweeps.counts(sweep.sweep_id).running == 2
    worker.end()


def test_scheduler_places_again_what_nobody_claimed(stage: Stage) -> None:
    """A message that never arrived costs a time-out: a new placement, on which the old message has no claim (I1)."""
    sweep, scheduler = stage.submit(GRID, run_cap=1), stage.scheduler(claim_timeout_s=15.0)
    worker = FakeWorker(stage.hands)
    scheduler.tick()
    stage.hands.change("UPDATE runs SET placed_at = now() - interval '16 seconds' WHERE state = 'placed'")
    scheduler.tick()
    sent = stage.dispatcher.sent
    assert [wake_up.placement for wake_up in sent] == [1, 2]
    assert sent[0].run_id == sent[1].run_id
    assert {wake_up.celery_queue for wake_up in sent} == {worker.session.celery_queue}
    old = stage.store.attempts.claim(sent[0].run_id, 1, worker.session.session_id, claim_id=new_uuid(), secret_hash="")
    assert old is None
    stage.drive(sweep, lambda: scheduler, [worker])
    stage.check_exact(sweep, 1)


def test_scheduler_announces_every_placement_to_its_worker(stage: Stage) -> None:
    """One wake-up for each placement, to the queue of the worker it was placed on, after the commit."""
    sweep, scheduler = stage.submit(GRID), stage.scheduler()
    workers = [FakeWorker(stage.hands) for _ in range(2)]
    stage.drive(sweep, lambda: scheduler, workers)
    placed = stage.hands.sql("SELECT run_id, worker_id FROM audit_events WHERE event = 'place'")
    queues = {worker.session.worker_id: worker.session.celery_queue for worker in workers}
    assert sorted((w.run_id, w.celery_queue) for w in stage.dispatcher.sent) == sorted((row.run_id, queues[row.worker_id]) for row in placed)


def test_scheduler_broken_search_ends_its_own_sweep_only(stage: Stage) -> None:
    """A configuration that can't be read fails its sweep, with the reason; the one beside it is not touched."""
    broken, fine = stage.submit(GRID), stage.submit(GRID)
    stage.hands.change("UPDATE sweeps SET config = '{}' WHERE sweep_id = %(id)s", id=broken.sweep_id)
    scheduler = stage.scheduler()
    stage.drive(fine, lambda: scheduler, [FakeWorker(stage.hands)])
    ended = stage.store.sweeps.get(broken.sweep_id)
    assert (ended.state, ended.cause) == ("failed", "search_failed")
    assert "ValidationError" in str(ended.detail)
    stage.check_exact(fine, 12)


@pytest.mark.parametrize("lack", [OSError(errno.EMFILE, "Too many open files"), MemoryError(), ImportError("libm.so: Too many open files")])
def test_scheduler_search_waits_while_the_machine_has_nothing_for_it(stage: Stage, monkeypatch: pytest.MonkeyPatch, lack: Exception) -> None:
    """No descriptor to load it, no memory: that is not the search's fault, and the sweep goes on when it has passed."""
    sweep, scheduler = stage.submit(GRID), stage.scheduler()
    hours = itertools.count(step=3600)
    scheduler._advance._locked = HoldBack(lambda: float(next(hours)))
    with monkeypatch.context() as patched:
        patched.setattr(advance, "make_strategy", Mock(side_effect=lack))
        scheduler.tick()
        scheduler.tick()
    assert stage.store.sweeps.get(sweep.sweep_id).state == "active"
    stage.drive(sweep, lambda: scheduler, [FakeWorker(stage.hands)])
    stage.check_exact(sweep, 12)


def test_scheduler_users_share_the_slots(stage: Stage) -> None:
    """Two users' sweeps advance side by side, though one came first with more."""
    first = stage.store.sweeps.submit(msgspec.structs.replace(_new(stage, {**RANDOM, "run_cap": 40}), user_name="ann"))
    second = stage.store.sweeps.submit(msgspec.structs.replace(_new(stage, {**RANDOM, "run_cap": 4}), user_name="bob"))
    scheduler, worker = stage.scheduler(), FakeWorker(stage.hands, slots=4, cpus=4.0)
    scheduler.tick()
    worker.claim()
    assert [stage.store.sweeps.counts(sweep.sweep_id).running for sweep in (first, second)] == [2, 2]


def _new(stage: Stage, mapping: dict[str, Any]) -> Any:
    config = config_from_mapping({"name": "s", "program": "train.py", "metric": {"name": "loss", "goal": "minimize"}, "strategy": {"seed": 7}, **mapping})
    return Submission(config, "", None).to_new_sweep(None)  # type: ignore[arg-type]  # nothing is packed here


# -- who leads -----------------------------------------------------------------------------------------------------------


def test_scheduler_standby_does_nothing(stage: Stage) -> None:
    """While one leads the other thinks nothing and writes nothing."""
    leader, standby = stage.scheduler(), stage.scheduler()
    leader.tick()
    sweep = stage.submit(GRID)
    standby.tick()
    assert stage.trials(sweep) == []
    leader.tick()
    assert stage.trials(sweep) != []


def test_scheduler_standby_takes_over_when_the_leader_resigns(stage: Stage) -> None:
    """In the middle of a sweep, without waiting for the lease."""
    leader, standby = stage.scheduler(), stage.scheduler(leader_lease_s=0.001)
    sweep, worker = stage.submit(GRID), FakeWorker(stage.hands)
    for _ in range(2):
        leader.tick()
        standby.tick()
        worker.work()
    leader._seat.resign()
    stage.drive(sweep, lambda: standby, [worker])
    stage.check_exact(sweep, 12)


def test_scheduler_that_was_replaced_while_it_thought_stands_by(stage: Stage) -> None:
    """It still believes to lead; its next write says otherwise, nothing is doubled, and later it may lead again."""
    first, second = stage.scheduler(), stage.scheduler()
    sweep, worker = stage.submit(BAYES, run_cap=8), FakeWorker(stage.hands)
    first.tick()
    for round_ in range(12):
        stage.drop_leader()
        newer, older = (second, first) if round_ % 2 == 0 else (first, second)
        newer._seat._renew_at = 0.0
        newer._tick_safely()
        worker.work()
        older._tick_safely()
        newer._tick_safely()
    stage.drive(sweep, lambda: newer, [worker])
    stage.check_exact(sweep, 8)


def test_scheduler_loops_hand_over_and_wake_on_notify(stage: Stage) -> None:
    """Two real loops that would poll once an hour: wake-ups drive them, and stopping one lets the other finish the sweep."""
    schedulers = [stage.scheduler(poll_s=3600.0, leader_lease_s=0.2) for _ in range(2)]
    threads = [threading.Thread(target=scheduler.run) for scheduler in schedulers]
    sweep, worker = stage.submit(GRID), FakeWorker(stage.hands)

    def advance_until(is_true: Callable[[], bool], what: str) -> None:
        def step() -> bool:
            worker.work()
            stage.store.wake()
            return is_true()

        wait_until(step, what)

    for thread in threads:
        thread.start()
    try:
        advance_until(lambda: stage.store.sweeps.counts(sweep.sweep_id).finished >= 4, "the first trials end")
        leading = [scheduler for scheduler in schedulers if scheduler._seat.epoch is not None]
        (leader,) = leading
        leader.stop()
        threads[schedulers.index(leader)].join(30)
        assert not threads[schedulers.index(leader)].is_alive()
        advance_until(lambda: stage.state(sweep) == "finished", "the other one ends the sweep")
    finally:
        for scheduler, thread in zip(schedulers, threads, strict=True):
            scheduler.stop()
            thread.join(30)
    stage.check_exact(sweep, 12)


def test_listener_without_an_address_hears_interrupts_alone() -> None:
    """Behind a pooler that carries no LISTEN: polls find the rest."""
    listener = Listener("")
    assert not listener.wait(0.0)
    listener.interrupt()
    assert listener.wait(30.0)
    listener.close()
