"""Plays every part of the cluster against a real store, without processes: submits, leads, works, reports."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from sqlalchemy.engine import Row

from tests.support.services import wait_until
from tracking.ids import attempt_token, new_secret, new_uuid, token_hash
from tracking.records import ClaimedRun, Launch, MetricPoint, NewSweep, NewTrial, Outcome, SessionInfo, Sweep
from tracking.store import Fence, Store
from tracking.store.attempts import FinishAnswer
from tracking.store.queue import DueVerdict, Placed, Placement

T = TypeVar("T")

LEASE_S: Final = 600.0
SUCCEEDED: Final = Outcome("succeeded", "completed", exit_status=0, duration_s=0.5)
EXITED: Final = Outcome("failed", "exit_status", "ValueError: no", exit_status=1, duration_s=0.5)
NOT_LAUNCHED: Final = Outcome("failed", "launch", "No such file.")
STOPPED: Final = Outcome("stopped", "cancelled", "Stopped as asked.", signal=15, duration_s=0.5)


@dataclass(frozen=True)
class Held:
    """A live attempt as its worker holds it."""

    claimed: ClaimedRun
    session_id: str
    claim_id: str
    secret: str

    @property
    def run_id(self) -> str:
        """The run."""
        return self.claimed.run_id

    @property
    def attempt(self) -> int:
        """Its number."""
        return self.claimed.attempt

    @property
    def fence(self) -> Fence:
        """What its token proves."""
        return Fence(self.run_id, self.attempt)

    @property
    def token(self) -> str:
        """What its process sends."""
        return attempt_token(self.run_id, self.attempt, self.secret)


class Hands:
    """One scheduler's and many workers' hands on a store; each method must succeed.

    Args:
        leads: whether they are the scheduler's too; beside a real one they are not.
    """

    def __init__(self, store: Store, *, leads: bool = True) -> None:
        self.store = store
        self.epoch = -1
        if leads:
            leadership = store.leader.acquire("hands", lease_s=LEASE_S, suspend_s=0)
            assert leadership is not None
            self.epoch = leadership.epoch

    def sql(self, statement: str, **values: Any) -> Sequence[Row[Any]]:
        """Look into the record behind the store's back."""
        with self.store.database.engine.connect() as connection:
            return connection.exec_driver_sql(statement, values).all()

    def change(self, statement: str, **values: Any) -> None:
        """Change the record behind the store's back: only to let time pass, or to try what must be refused."""
        with self.store.database.transaction() as tx:
            tx.execute(statement, values)

    def sweep(self, n_trials: int = 1, **fields: Any) -> Sweep:
        """An active sweep with open trials 0 to `n_trials` - 1."""
        given: dict[str, Any] = {"name": f"sweep-{new_uuid()}", "experiment": "question", "config": {}, "source": "", "launch": Launch()}
        sweep = self.store.sweeps.submit(NewSweep(**{**given, **fields}))
        if n_trials:
            self.add_trials(sweep, range(n_trials))
        return sweep

    def add_trials(self, sweep: Sweep, numbers: Sequence[int]) -> None:
        """Open trials of these numbers."""
        new = [NewTrial(number, {"x": number}, ("true", str(number)), seed=number) for number in numbers]
        assert self.store.trials.create(self.epoch, sweep, new)

    def run_id(self, sweep: Sweep, number: int = 0) -> str:
        """The run of a trial."""
        return self.store.trials.get(sweep.sweep_id, number).run_id

    def worker(self, **fields: Any) -> SessionInfo:
        """An open session, of a new worker unless told otherwise."""
        worker_id = fields.pop("worker_id", new_uuid())
        given: dict[str, Any] = {
            "name": f"worker-{worker_id}",
            "hostname": "host",
            "celery_queue": f"worker.{worker_id}",
            "queues": ("default",),
            "slots": 2,
            "cpus": 2.0,
            "memory_bytes": 1 << 30,
        }
        info = SessionInfo(**{"worker_id": worker_id, "session_id": new_uuid(), **given, **fields})
        self.store.sessions.open(info, lease_s=60)
        return info

    def place(self, run_id: str, session: SessionInfo, gpu_ids: tuple[int, ...] = ()) -> Placed:
        """Place a run on a session."""
        (placed,) = self.store.queue.place(self.epoch, [Placement(run_id, session.session_id, session.worker_id, gpu_ids)])
        return placed

    def claim(self, placed: Placed) -> Held:
        """Claim what was placed, as its session."""
        claim_id, secret = new_uuid(), new_secret()
        claimed = self.store.attempts.claim(placed.run_id, placed.placement, placed.session_id, claim_id=claim_id, secret_hash=token_hash(secret))
        assert claimed is not None
        return Held(claimed, placed.session_id, claim_id, secret)

    def start(self, sweep: Sweep, number: int = 0, session: SessionInfo | None = None) -> Held:
        """A live attempt of a trial, on a worker of its own unless told otherwise."""
        return self.claim(self.place(self.run_id(sweep, number), session or self.worker()))

    def log(self, held: Held, key: str, *values: float) -> None:
        """Log values at steps 0, 1, ... from within the attempt."""
        self.store.metrics.log(held.run_id, [MetricPoint(key, value, step, 1000 + step) for step, value in enumerate(values)], held.fence)

    def finish(self, held: Held, outcome: Outcome = SUCCEEDED) -> None:
        """Report an attempt's end."""
        answer = self.store.attempts.finish(held.run_id, held.attempt, held.session_id, outcome, finish_key=new_uuid())
        assert answer is FinishAnswer.RECORDED

    def due(self, run_id: str) -> DueVerdict:
        """The verdict that a run waits for."""
        (due,) = [due for due in self.store.queue.verdicts_due() if due.run_id == run_id]
        return due

    def retry(self, held: Held, session: SessionInfo | None = None) -> Held:
        """Fail an attempt by the machinery's fault and start the next one."""
        self.finish(held, NOT_LAUNCHED)
        assert self.store.queue.requeue(self.epoch, self.due(held.run_id), delay_s=0, machinery=True, detail="again")
        return self.claim(self.place(held.run_id, session or self.worker()))

    def lose(self, *session_ids: str) -> list[str]:
        """Let sessions be silent for an hour, and give up those silent for longer than half of that."""
        for session_id in session_ids:
            self.change("UPDATE sessions SET renewed_at = now() - interval '1 hour' WHERE session_id = %(id)s", id=session_id)
        return self.store.sessions.lose_silent(self.epoch, 1800)

    def conclude(self, sweep: Sweep, **values: float) -> None:
        """Bring open trials `n0`, `n1`, ... to their ends with objective values, then tell them."""
        for key, value in values.items():
            held = self.start(sweep, int(key[1:]))
            self.log(held, sweep.metric_name or "loss", value)
            self.finish(held)
        self.store.trials.conclude(self.epoch, sweep.sweep_id)

    def run_state(self, run_id: str) -> str:
        """Where a run stands."""
        return self.store.runs.get(run_id).state

    def wait_for_blocked(self) -> None:
        """Return once some transaction of this record waits for another one's lock."""
        blocked = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        wait_until(lambda: self.sql(blocked), "a transaction waits for a lock", interval_s=0.01)


def both(first: Callable[[], T], second: Callable[[], T]) -> tuple[T, T]:
    """Do two things at once, each in a thread of its own."""
    barrier = threading.Barrier(2)

    def act(what: Callable[[], T]) -> T:
        barrier.wait(30)
        return what()

    with ThreadPoolExecutor(2) as pool:
        one, other = pool.submit(act, first), pool.submit(act, second)
        return one.result(60), other.result(60)
