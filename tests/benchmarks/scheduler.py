"""The scheduler's own time per trial, beside Optuna's ask and tell in memory on the same space with the same sampler.

A real `Scheduler` ticks against a real Postgres; the worker is played by this process through the store, between the
ticks, and only the ticks are on the clock: conclude, tell, ask, create, place, with every read and commit of theirs. Two ways
of ending: one trial a tick, which is what a quiet cluster does, and a batch a tick, which is what happens by itself where trials
end faster than the scheduler thinks. The trials of the past are written in bulk, so each figure is the cost of the *next* trial:
the median over the ticks, and over Optuna's pairs of ask and tell.
"""

import json
import statistics
import time
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.trial import TrialState, create_trial

from scheduler.dispatch import NoDispatcher
from scheduler.loop import Scheduler
from sweeps.spec import Submission, config_from_mapping
from sweeps.strategies import make_strategy
from sweeps.strategies.optuna_adapter import TpeStrategy
from tests.benchmarks.figures import Figure
from tests.benchmarks.stage import Stage
from tracking.ids import new_run_id, new_secret, new_uuid, token_hash
from tracking.records import ClaimedRun, MetricPoint, Outcome, SessionInfo
from tracking.settings import Settings
from tracking.store import Fence, Store, open_store
from tracking.store.listener import Listener

SLOTS: Final = 16
N_MEASURED: Final = 192
N_WARM: Final = 32
SIZES: Final[Mapping[str, tuple[int, ...]]] = {
    "random": (100, 1_000, 4_000, 10_000, 100_000),
    "grid": (100, 1_000, 4_000, 10_000, 100_000),
    "bayes": (100, 1_000, 4_000, 10_000),
}
GOAL_FACTOR: Final = 1.3
GOAL_PLUS_S: Final = 0.001
GOAL_FLAT: Final = 1.3
# Runs are short, so one waits ahead in each slot: this many trials are open while the search is asked.
_IN_FLIGHT: Final = 2 * SLOTS
_SEED: Final = 7
# 161,051 cells.
_CHOICES: Final = {name: {"values": list(range(11))} for name in "abcde"}
_RANGES: Final = {
    "learning_rate": {"distribution": "log_uniform_values", "min": 1e-5, "max": 1.0},
    "momentum": {"min": 0.0, "max": 0.99},
    "layers": {"distribution": "int_uniform", "min": 1, "max": 8},
    "optimizer": {"values": ["sgd", "adam", "lion"]},
    "batch": {"values": [32, 64, 128, 256]},
}


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one trial, in seconds."""

    wall_s: float
    cpu_s: float


@dataclass(slots=True)
class FakeWorker:
    """Claims what is placed on it and ends as many runs as it is told to, through the store."""

    store: Store
    session: SessionInfo
    running: deque[ClaimedRun] = field(default_factory=deque)
    n_ended: int = 0

    def end_some(self, n_runs: int) -> None:
        """End the oldest runs, then claim what fits into the slots."""
        for _ in range(min(n_runs, len(self.running))):
            self._end(self.running.popleft())
        room = self.session.slots - len(self.running)
        for placed in self.store.sessions.look(self.session.session_id).placed[:room]:
            claimed = self.store.attempts.claim(
                placed.run_id, placed.placement, self.session.session_id, claim_id=new_uuid(), secret_hash=token_hash(new_secret())
            )
            if claimed is not None:
                self.running.append(claimed)

    def _end(self, run: ClaimedRun) -> None:
        loss = (run.trial_number or 0) * 43 % 1000 / 1000
        self.store.metrics.log(run.run_id, [MetricPoint("loss", loss)], Fence(run.run_id, run.attempt))
        self.store.attempts.finish(
            run.run_id, run.attempt, self.session.session_id, Outcome("succeeded", "completed", exit_status=0, duration_s=0.01), finish_key=new_uuid()
        )
        self.n_ended += 1


def measure(stage: Stage) -> Iterator[Figure]:
    """Each method at each size; then how flat random and grid are."""
    for method, sizes in SIZES.items():
        costs: dict[int, Cost] = {}
        for n_past in sizes:
            peer_s = _optuna_s(method, n_past) if n_past <= 10_000 else None
            one = _ours(stage, method, n_past, n_at_a_time=1)
            costs[n_past] = batch = _ours(stage, method, n_past, n_at_a_time=SLOTS)
            yield _figure(method, n_past, one, batch, peer_s)
        if method != "bayes":
            yield _flatness(method, costs)


def _figure(method: str, n_past: int, one: Cost, batch: Cost, peer_s: float | None) -> Figure:
    goal_s = None if peer_s is None else GOAL_FACTOR * peer_s + GOAL_PLUS_S
    return Figure(
        f"scheduler per trial, {method} at {n_past:,}: {SLOTS} (1) ended a tick",
        f"{_ms(batch)} ({_ms(one)})",
        "-" if peer_s is None else f"Optuna in memory: {peer_s * 1000:.2f} ms",
        "-" if peer_s is None else f"{batch.wall_s / peer_s:.1f}",
        "" if goal_s is None else f"<= {goal_s * 1000:.2f} ms",
        None if goal_s is None else batch.wall_s <= goal_s,
        {
            "batch_wall_s": batch.wall_s,
            "batch_cpu_s": batch.cpu_s,
            "single_wall_s": one.wall_s,
            "single_cpu_s": one.cpu_s,
            **({} if peer_s is None else {"optuna_s": peer_s}),
        },
    )


def _ms(cost: Cost) -> str:
    return f"{cost.wall_s * 1000:.2f} ms, cpu {cost.cpu_s * 1000:.2f}"


def _flatness(method: str, costs: Mapping[int, Cost]) -> Figure:
    first, last = min(costs), max(costs)
    ratio = costs[last].wall_s / costs[first].wall_s
    return Figure(
        f"  {method}: per trial at {last:,} to that at {first:,}",
        f"{costs[last].wall_s * 1000:.2f} ms",
        f"{costs[first].wall_s * 1000:.2f} ms",
        f"{ratio:.2f}",
        f"<= {GOAL_FLAT}",
        ratio <= GOAL_FLAT,
        {"ratio": ratio},
    )


# --- ours ------------------------------------------------------------------------------------------------------------


def _ours(stage: Stage, method: str, n_past: int, *, n_at_a_time: int) -> Cost:
    with stage.database() as url:
        store = open_store(url, pool_size=2)
        listener = Listener(url)
        try:
            submit_with_past(store, method, n_past)
            worker = _join(store)
            settings = Settings(home=stage.folder, database_url=url)
            scheduler = Scheduler(store, settings, NoDispatcher(), listener)
            return _drive(scheduler, worker, n_at_a_time)
        finally:
            listener.close()
            store.close()


def _drive(scheduler: Scheduler, worker: FakeWorker, n_at_a_time: int) -> Cost:
    # The first tick rebuilds the search; a few more, and every path is warm and every slot taken.
    while worker.n_ended < N_WARM:
        scheduler.tick()
        worker.end_some(SLOTS)
    scheduler.tick()
    costs: list[Cost] = []
    worker.n_ended = 0
    while worker.n_ended < N_MEASURED:
        before = worker.n_ended
        worker.end_some(n_at_a_time)
        n_ended = worker.n_ended - before
        began, cpu_began = time.perf_counter(), time.thread_time()
        scheduler.tick()
        costs.append(Cost((time.perf_counter() - began) / n_ended, (time.thread_time() - cpu_began) / n_ended))
    return Cost(statistics.median(cost.wall_s for cost in costs), statistics.median(cost.cpu_s for cost in costs))


def _join(store: Store) -> FakeWorker:
    session = SessionInfo(
        worker_id=new_uuid(),
        session_id=new_uuid(),
        name="bench",
        hostname="bench",
        celery_queue="bench",
        queues=("default",),
        slots=SLOTS,
        cpus=float(SLOTS),
        memory_bytes=1 << 34,
    )
    store.sessions.open(session, lease_s=3600)
    return FakeWorker(store, session)


def _config(method: str) -> dict[str, Any]:
    return {
        "name": f"bench-{method}",
        "method": method,
        "metric": {"name": "loss", "goal": "minimize"},
        "command": ["true"],
        "strategy": {"seed": _SEED},
        "parameters": _CHOICES if method == "grid" else _RANGES,
    }


def submit_with_past(store: Store, method: str, n_past: int) -> None:
    """A sweep of which `n_past` trials have been run, with all the rows that these leave behind."""
    config = config_from_mapping(_config(method), project_dir=None)
    sweep = store.sweeps.submit(Submission(config, "", Path()).to_new_sweep(None))
    if method == "bayes":
        points = [(params, {"point": point}) for point, params in _random_points(n_past)]
    else:
        strategy = make_strategy(config)
        asked = [strategy.ask(number) for number in range(n_past)]
        points = [(proposal.params, proposal.attrs) for proposal in asked if proposal is not None]
    rows: dict[str, list[str]] = {"runs": [], "trials": [], "params": [], "attempts": [], "metric_latest": [], "events": []}
    head = sweep.sweep_id
    for number, (params, attrs) in enumerate(points):
        run_id, text, value = new_run_id(), json.dumps(params), (number * 37 % 1000) / 1000
        name = f"{sweep.short_id}/{number}"
        rows["runs"].append(f'{run_id}\t{sweep.experiment_id}\tmanaged\t{name}\tfinished\t{head}\t{head}\t{number}\t["true"]\t{text}\t1\t1\t{value}\tnow\tnow')
        rows["trials"].append(f"{head}\t{number}\tfinished\t{text}\t{run_id}\t{value}\t{number + 1}\t{json.dumps(attrs)}\tnow")
        rows["params"] += [f"{run_id}\t{key}\t{value}" for key, value in params.items()]
        rows["attempts"].append(f"{run_id}\t1\tsucceeded\tw\ts\t1\t{run_id}\tx\tnow\tnow")
        rows["metric_latest"].append(f"{run_id}\tloss\t1\t0\t0\t{value}\t{value}\t{value}")
        rows["events"] += [f"run\t{event}\t{head}\t{number}\t{run_id}" for event in ("queue", "place", "claim", "finish")]
    with store.database.transaction() as tx:
        for table, lines in rows.items():
            tx.copy(table, _COLUMNS[table].split(), "".join(f"{line}\n" for line in lines).encode())
        tx.execute("UPDATE sweeps SET told_seq = %(n)s WHERE sweep_id = %(sweep_id)s", {"n": n_past, "sweep_id": head})
        tx.execute("ANALYZE")


_COLUMNS: Final = {
    "runs": "run_id experiment_id kind name state parent_run_id sweep_id trial_number argv params attempt placement value started_at ended_at",
    "trials": "sweep_id number state params run_id value told_seq attrs ended_at",
    "params": "run_id key value",
    "attempts": "run_id attempt state worker_id session_id placement claim_id token_hash started_at ended_at",
    "metric_latest": "run_id key attempt step time_ms value min_value max_value",
    "events": "subject event sweep_id trial_number run_id",
}


# --- Optuna ----------------------------------------------------------------------------------------------------------


def _bayes() -> TpeStrategy:
    strategy = make_strategy(config_from_mapping(_config("bayes"), project_dir=None))
    assert isinstance(strategy, TpeStrategy)
    return strategy


def _random_points(n_points: int) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Points in Optuna's terms, and the parameters that they mean."""
    strategy = _bayes()
    study = optuna.create_study(sampler=RandomSampler(seed=_SEED))
    points = [study.ask(strategy._distributions).params for _ in range(n_points)]
    return [(point, {p.name: p.at(point.get(p.name, 0)) for p in strategy._parameters}) for point in points]


def _optuna_s(method: str, n_past: int) -> float:
    """Seconds for one ask and one tell of plain Optuna with this many finished trials, as many open as ours has."""
    distributions: dict[str, BaseDistribution] = _bayes()._distributions
    sampler: BaseSampler = TPESampler(seed=_SEED) if method == "bayes" else RandomSampler(seed=_SEED)
    study = optuna.create_study(sampler=sampler)
    study.add_trials(
        create_trial(state=TrialState.COMPLETE, value=(n * 37 % 1000) / 1000, params=point, distributions=distributions)
        for n, (point, _) in enumerate(_random_points(n_past))
    )
    n_open = _IN_FLIGHT if method == "bayes" else 1
    waiting = deque(study.ask(distributions) for _ in range(n_open))
    return _seconds_each(study, waiting, distributions)


def _seconds_each(study: optuna.Study, waiting: deque[optuna.Trial], distributions: Mapping[str, BaseDistribution]) -> float:
    times = []
    for n in range(N_MEASURED):
        began = time.perf_counter()
        study.tell(waiting.popleft(), (n * 41 % 1000) / 1000)
        waiting.append(study.ask(dict(distributions)))
        times.append(time.perf_counter() - began)
    return statistics.median(times)
