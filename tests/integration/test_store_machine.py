"""Two workers, a scheduler, a reconciler, people, and a network that loses, doubles and delays: I2 and I3 hold all the same.

Messages and requests are kept for ever and delivered in any order, any number of times. Each example has a sweep and two workers of its
own on the file's database; at its end everything is brought to rest and the history is checked by SQL.
"""

import contextlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar, cast

import msgspec
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from scheduler.retry import Again, Cancelled, decide
from sweeps.api.routing import Services
from sweeps.api.workers import tell_why
from tests.support.record import EXITED, LEASE_S, NOT_LAUNCHED, STOPPED, SUCCEEDED, Hands
from tracking.artifacts import ArtifactStore
from tracking.errors import NotAllowed, NotNow
from tracking.ids import new_secret, new_uuid, token_hash
from tracking.records import ClaimedRun, MetricPoint, NewTrial, Outcome, Retry, SessionInfo
from tracking.settings import Settings
from tracking.snapshot_store import SnapshotStore
from tracking.states import ATTEMPT_MOVES, FINAL_RUN_STATES, FINAL_TRIAL_STATES, MACHINERY_CAUSES, RUN_MOVES, SWEEP_MOVES, TRIAL_MOVES, SweepEvent
from tracking.store import Fence
from tracking.store.attempts import FinishAnswer
from tracking.store.leader import NotLeader
from tracking.store.queue import DueVerdict, Placed, Placement

T = TypeVar("T")

N_TRIALS: Final = 5
MOVES: Final[dict[str, Any]] = {"run": RUN_MOVES, "attempt": ATTEMPT_MOVES, "trial": TRIAL_MOVES, "sweep": SWEEP_MOVES}
OUTCOMES: Final = (SUCCEEDED, EXITED, NOT_LAUNCHED, NOT_LAUNCHED, NOT_LAUNCHED, NOT_LAUNCHED, STOPPED, Outcome("stopped", "pruned"))

ACTS: Final = (
    "place place place_and_claim place_and_claim place_and_claim take_back judge judge judge_late conclude fail_over deliver deliver deliver_forged "
    "repeat_claim log log report report report repeat_report renew restart close lose request_stop steer end again again"
).split()
"""What may happen, the more often named the likelier."""
STEERING: Final = (*["pause"] * 5, *["resume"] * 12, "stop", "cancel")

any_of = st.integers(0, 1000)
"""An index into whatever there is, by its remainder."""


def pick(things: Sequence[T], which: int) -> T:
    """One of what has been: half the time one of the last two, which still matter most."""
    return things[-1 - which // 2 % min(2, len(things))] if which % 2 else things[which // 2 % len(things)]


@dataclass
class Claim:
    """A claim that was sent, and what it was answered first."""

    placed: Placed
    claim_id: str
    answer: ClaimedRun | None


@dataclass(frozen=True)
class Report:
    """A report that was sent, and what it was answered first."""

    run_id: str
    attempt: int
    session_id: str
    outcome: Outcome
    finish_key: str
    answer: FinishAnswer


@dataclass(frozen=True)
class Believed:
    """An attempt that a session believes to be its own, rightly or not."""

    run_id: str
    attempt: int
    session_id: str


class Cluster(RuleBasedStateMachine):
    """The cluster; `live` are the workers' newest sessions, whatever became of them."""

    def __init__(self, hands: Hands) -> None:
        super().__init__()
        self.hands = Hands(hands.store)
        self.store = hands.store
        self.messages: list[Placed] = []
        self.claims: list[Claim] = []
        self.believed: list[Believed] = []
        self.reports: list[Report] = []
        self.verdicts: list[DueVerdict] = []

    @initialize(from_=st.sampled_from(["last", "best"]))
    def submit(self, from_: Any) -> None:
        """A sweep and two workers."""
        self.sweep = self.hands.sweep(0, metric_name="loss", metric_from=from_, retry=Retry(2))
        self.hands.add_trials(self.sweep, range(N_TRIALS))
        self.live: list[SessionInfo] = [self.hands.worker(), self.hands.worker()]

    @rule(act=st.sampled_from(ACTS), which=any_of, how=any_of, worker=st.integers(0, 1))
    def happen(self, act: str, which: int, how: int, worker: int) -> None:
        """One thing happens. One rule for all: hypothesis leaves whole rules out of many an example, and here each needs the others."""
        getattr(self, act)(which, how, worker)

    # -- the scheduler ---------------------------------------------------------------------------------------

    def place(self, which: int, how: int, worker: int) -> Placed | None:
        """Place a run that waits, mostly on a worker that lives; the message may or may not arrive, or arrive twice."""
        waiting = [w for w in self.store.queue.waiting() if w.sweep_id == self.sweep.sweep_id]
        if not waiting:
            return None
        if how % 4 and self.store.sessions.renew(self.live[worker].session_id, lease_s=60) is None:
            self.restart(which, how, worker)
        session = self.live[worker]
        choice = Placement(waiting[which % len(waiting)].run_id, session.session_id, session.worker_id)
        placed = self.store.queue.place(self.hands.epoch, [choice])
        self.messages += placed
        return placed[0] if placed else None

    def place_and_claim(self, which: int, how: int, worker: int) -> None:
        """What happens on good days."""
        placed = self.place(which, how, worker)
        if placed is not None:
            self._claim(placed)

    def take_back(self, *_: int) -> None:
        """Nobody claimed in time."""
        self.hands.change("UPDATE runs SET placed_at = now() - interval '1 hour' WHERE sweep_id = %(id)s AND state = 'placed'", id=self.sweep.sweep_id)
        self.store.queue.take_back_overdue(self.hands.epoch, 15)

    def judge(self, *_: int) -> None:
        """Say what becomes of failed attempts."""
        for due in self.store.queue.verdicts_due():
            if due.sweep_id == self.sweep.sweep_id:
                self.verdicts.append(due)
                self._speak(due)

    def judge_late(self, which: int, _how: int, _worker: int) -> None:
        """A verdict that was thought out long ago, or a moment before something else happened."""
        if which % 2:
            self.verdicts += [due for due in self.store.queue.verdicts_due() if due.sweep_id == self.sweep.sweep_id]
        elif self.verdicts:
            self._speak(pick(self.verdicts, which // 2))

    def _speak(self, due: DueVerdict) -> None:
        verdict = decide(due, infra_retries=6)
        if isinstance(verdict, Again):
            self.store.queue.requeue(self.hands.epoch, due, delay_s=0, machinery=verdict.machinery, detail=verdict.detail)
        elif isinstance(verdict, Cancelled):
            self.store.queue.cancel_verdict(self.hands.epoch, due)
        else:
            self.store.queue.fail(self.hands.epoch, due)

    def conclude(self, *_: int) -> None:
        """Tell the search."""
        self.store.trials.conclude(self.hands.epoch, self.sweep.sweep_id)

    def fail_over(self, *_: int) -> None:
        """Another scheduler leads; the old one writes nothing more."""
        before = self.hands.epoch
        won = self.store.leader.acquire("hands", lease_s=LEASE_S, suspend_s=0)
        assert won is not None
        assert won.epoch > before
        self.hands.epoch = won.epoch
        for write in (
            lambda: self.store.trials.conclude(before, self.sweep.sweep_id),
            lambda: self.store.trials.create(before, self.sweep, [NewTrial(99, {}, (), seed=0)]),
            lambda: self.store.queue.take_back_overdue(before, 0),
        ):
            try:
                write()
            except NotLeader:
                continue
            raise AssertionError("an old epoch wrote")

    # -- the workers -------------------------------------------------------------------------------------------

    def deliver(self, which: int, _how: int, _worker: int) -> None:
        """A message arrives, for the first time or once more."""
        if self.messages:
            self._claim(pick(self.messages, which))

    def deliver_forged(self, which: int, how: int, _worker: int) -> None:
        """A message that names another session or another placement opens nothing."""
        if not self.messages:
            return
        placed = pick(self.messages, which)
        if how % 2:
            placed = msgspec.structs.replace(placed, placement=placed.placement + 100)
        else:
            placed = msgspec.structs.replace(placed, session_id=next(s.session_id for s in self.live if s.session_id != placed.session_id))
            if placed in self.messages:
                return
        assert self.store.attempts.claim(placed.run_id, placed.placement, placed.session_id, claim_id=new_uuid(), secret_hash="") is None

    def _claim(self, placed: Placed) -> None:
        claim_id = new_uuid()
        answer = self.store.attempts.claim(placed.run_id, placed.placement, placed.session_id, claim_id=claim_id, secret_hash=token_hash(new_secret()))
        self.claims.append(Claim(placed, claim_id, answer))
        if answer is not None:
            self.believed.append(Believed(placed.run_id, answer.attempt, placed.session_id))
            won = [c for c in self.claims if c.answer is not None and (c.placed.run_id, c.placed.placement) == (placed.run_id, placed.placement)]
            assert len(won) == 1, "one placement, two attempts"

    def repeat_claim(self, which: int, _how: int, _worker: int) -> None:
        """The reply was lost: the same claim gets the same answer, or none any more."""
        if self.claims:
            sent = pick(self.claims, which)
            again = self.store.attempts.claim(
                sent.placed.run_id, sent.placed.placement, sent.placed.session_id, claim_id=sent.claim_id, secret_hash=token_hash(new_secret())
            )
            assert again is None or again == sent.answer

    def log(self, which: int, how: int, _worker: int) -> None:
        """A process logs: accepted from the current attempt, refused from all others."""
        if not self.believed:
            return
        held = pick(self.believed, which)
        is_current = self._live_attempts().get(held.run_id) == held.attempt
        value = (-1.0, 0.5, 2.0, float("nan"))[how % 4]
        try:
            self.store.metrics.log(held.run_id, [MetricPoint("loss", value, 1, 1)], Fence(held.run_id, held.attempt))
        except NotAllowed:
            assert not is_current
        else:
            assert is_current

    def report(self, which: int, how: int, _worker: int) -> None:
        """A session reports an end: recorded once, and only while the attempt is its own."""
        if not self.believed:
            return
        held, outcome = pick(self.believed, which), OUTCOMES[how % len(OUTCOMES)]
        key = new_uuid()
        is_own = self._owners().get((held.run_id, held.attempt)) == held.session_id
        answer = self.store.attempts.finish(held.run_id, held.attempt, held.session_id, outcome, finish_key=key)
        assert answer is (FinishAnswer.RECORDED if is_own else FinishAnswer.REFUSED)
        self.reports.append(Report(held.run_id, held.attempt, held.session_id, outcome, key, answer))

    def repeat_report(self, which: int, _how: int, _worker: int) -> None:
        """The reply was lost: the same report has no second effect."""
        if self.reports:
            sent = pick(self.reports, which)
            again = self.store.attempts.finish(sent.run_id, sent.attempt, sent.session_id, sent.outcome, finish_key=sent.finish_key)
            assert again is (FinishAnswer.REPEATED if sent.answer is FinishAnswer.RECORDED else FinishAnswer.REFUSED)

    def renew(self, _which: int, _how: int, worker: int) -> None:
        """The renewal tells exactly what the record holds for this session."""
        session_id = self.live[worker].session_id
        answer = self.store.sessions.renew(session_id, lease_s=60)
        owned = {(run_id, attempt) for (run_id, attempt), owner in self._owners().items() if owner == session_id}
        assert answer is None or {(run.run_id, run.attempt) for run in answer.owned} == owned

    def restart(self, _which: int, how: int, worker: int) -> None:
        """A worker is started anew (its first answer may be lost): it adopts what is its own, its old self goes on unaware."""
        session = msgspec.structs.replace(self.live[worker], session_id=new_uuid())
        adopted = self.store.sessions.open(session, lease_s=60)
        if how % 2:
            assert self.store.sessions.open(session, lease_s=60) == adopted
        self.live[worker] = session
        self.believed += [Believed(claimed.run_id, claimed.attempt, session.session_id) for claimed in adopted]

    def close(self, _which: int, _how: int, worker: int) -> None:
        """A worker stops in order; what it runs goes on."""
        self.store.sessions.close(self.live[worker].session_id)

    def lose(self, _which: int, _how: int, worker: int) -> None:
        """A worker is silent for too long; it does not know, and goes on."""
        session_id = self.live[worker].session_id
        self.hands.lose(session_id)
        assert session_id not in self._owners().values()

    # -- people -----------------------------------------------------------------------------------------------------

    def request_stop(self, which: int, how: int, _worker: int) -> None:
        """One run is cancelled or pruned."""
        run_id = self.store.trials.get(self.sweep.sweep_id, which % N_TRIALS).run_id
        if how % 2:
            self.store.queue.request_cancel(run_id)
        else:
            self.store.queue.request_prune(run_id, "behind")

    def steer(self, _which: int, how: int, _worker: int) -> None:
        """The sweep is paused and resumed, now and then stopped or cancelled, whatever its state."""
        with contextlib.suppress(NotNow):
            getattr(self.store.sweeps, STEERING[how % len(STEERING)])(self.sweep.sweep_id)

    def end(self, *_: int) -> None:
        """The scheduler ends the sweep if all is told."""
        self.conclude()
        if self.store.sweeps.counts(self.sweep.sweep_id).open == 0:
            self.store.sweeps.finish(self.hands.epoch, self.store.sweeps.get(self.sweep.sweep_id), event=SweepEvent.FINISH, cause="completed", detail=None)

    def again(self, which: int, how: int, _worker: int) -> None:
        """Failed or cancelled trials are run again by hand, all of them or one, whatever the sweep's state; or more trials are asked for."""
        sweep = self.store.sweeps.get(self.sweep.sweep_id)
        numbers = None if how % 3 == 0 else [which % N_TRIALS]
        states = ["failed", "cancelled"] if how % 5 == 0 else ["failed"]
        event = SweepEvent.REOPEN if how % 2 else SweepEvent.RETRY
        ended = {t.number for t in self.store.trials.list(sweep.sweep_id, states=states)}
        with contextlib.suppress(NotNow):
            if how % 7 == 0:
                self.store.sweeps.extend(sweep, sweep.config, "more")
            else:
                opened = self.store.sweeps.retry(sweep, numbers, states=states, event=event)
                assert set(opened) == (ended if numbers is None else ended & set(numbers))

    # -- what holds at every moment ------------------------------------------------------------------------------------

    def _owners(self) -> dict[tuple[str, int], str]:
        rows = self.hands.sql("SELECT a.* FROM attempts a JOIN runs r USING (run_id) WHERE a.state = 'running' AND r.sweep_id = %(id)s", id=self.sweep.sweep_id)
        return {(row.run_id, row.attempt): row.session_id for row in rows}

    def _live_attempts(self) -> dict[str, int]:
        return dict(self._owners().keys())

    @invariant()
    def a_run_is_what_its_attempt_says(self) -> None:
        """A run runs exactly while one attempt is live, its newest, on the same session; or it waits for a verdict."""
        if not hasattr(self, "sweep"):
            return
        wrong = """
            SELECT r.run_id, r.state, r.attempt, r.verdict_due, a.attempt AS live FROM runs r
              LEFT JOIN attempts a ON a.run_id = r.run_id AND a.state = 'running'
             WHERE r.sweep_id = %(id)s AND r.kind = 'managed'
               AND (((r.state = 'running' AND NOT r.verdict_due) <> (a.run_id IS NOT NULL))
                    OR (r.verdict_due AND r.state <> 'running')
                    OR a.attempt <> r.attempt OR a.session_id <> r.session_id
                    OR r.attempt <> (SELECT count(*) FROM attempts WHERE run_id = r.run_id))
        """
        assert self.hands.sql(wrong, id=self.sweep.sweep_id) == []

    # -- the end -----------------------------------------------------------------------------------------------------------

    def teardown(self) -> None:
        """Bring everything to rest and read the history."""
        if not hasattr(self, "sweep"):
            return
        self._check_reasons()
        self._come_to_rest()
        self._check_trials()
        self._check_attempts()
        self._check_history()

    def _check_reasons(self) -> None:
        """I5: whatever has happened, a run that has not ended runs, or `sweep why` knows what it waits for."""
        services = Services(self.store, cast(SnapshotStore, None), cast(ArtifactStore, None), Settings())
        for trial in self.store.trials.list(self.sweep.sweep_id, states=["open"]):
            answer = tell_why(services, trial.run_id)
            assert answer["waits"] or (trial.run_state == "running" and answer["reasons"]), trial
            assert answer["story"]

    def _come_to_rest(self) -> None:
        with contextlib.suppress(NotNow):
            self.store.sweeps.resume(self.sweep.sweep_id)
        for _ in range(40):
            self.judge()
            for worker in (0, 1):
                self.restart(0, 0, worker)
            for (run_id, attempt), session_id in self._owners().items():
                self.store.metrics.log(run_id, [MetricPoint("loss", 7.0, 9, 9)], Fence(run_id, attempt))
                self.store.attempts.finish(run_id, attempt, session_id, SUCCEEDED, finish_key=new_uuid())
            self.take_back()
            self.place_and_claim(0, 1, 0)
            states = {trial.run_state for trial in self.store.trials.list(self.sweep.sweep_id)}
            if states <= FINAL_RUN_STATES:
                break
        else:
            raise AssertionError(f"stuck (I5): {states}")
        self.conclude()
        self.conclude()
        self.end()

    def _check_trials(self) -> None:
        """I2: none lost, none twice, each in one final state, each told once."""
        trials = self.hands.sql("SELECT * FROM audit_trials WHERE sweep_id = %(id)s ORDER BY trial_number", id=self.sweep.sweep_id)
        assert [trial.trial_number for trial in trials] == list(range(N_TRIALS))
        assert {trial.state for trial in trials} <= FINAL_TRIAL_STATES
        assert all(trial.state == trial.run_state for trial in trials)
        assert len({trial.told_seq for trial in trials}) == N_TRIALS
        told = "SELECT count(*) AS n FROM audit_events WHERE sweep_id = %(id)s AND subject = 'trial' AND event <> 'retry'"
        last = "SELECT told_seq FROM sweeps WHERE sweep_id = %(id)s"
        counted, numbered = (self.hands.sql(sql, id=self.sweep.sweep_id)[0][0] for sql in (told, last))
        assert counted == numbered == N_TRIALS + sum(trial.generation for trial in trials), "each generation is told once"
        assert all((trial.value is not None) for trial in trials if trial.state == "finished")
        for trial in trials:
            stored = self.hands.sql(
                "SELECT l.* FROM metric_latest l WHERE run_id = %(id)s AND attempt = %(n)s AND key = 'loss'", id=trial.run_id, n=trial.n_attempts
            )
            if trial.value is not None:
                assert trial.value in ((stored[0].value, stored[0].min_value) if stored else ())

    def _check_attempts(self) -> None:
        """I3: attempts count up, one after the other; a success is recorded once, and only the last can be one."""
        attempts = self.hands.sql("SELECT * FROM audit_attempts WHERE sweep_id = %(id)s ORDER BY run_id, attempt", id=self.sweep.sweep_id)
        last = {attempt.run_id: attempt.attempt for attempt in attempts}
        numbers: Counter[str] = Counter()
        for attempt in attempts:
            numbers[attempt.run_id] += 1
            assert attempt.attempt == numbers[attempt.run_id]
            assert attempt.state in ("succeeded", "failed", "stopped", "lost")
            assert attempt.attempt == last[attempt.run_id] or attempt.state in ("failed", "lost")
        # I6: each further attempt was paid for, by the budget of whoever was to blame for the one before.
        again = self.hands.sql("SELECT run_id, attempt FROM audit_events WHERE sweep_id = %(id)s AND event = 'requeue'", id=self.sweep.sweep_id)
        paid = Counter((a.run_id, a.cause in MACHINERY_CAUSES) for a in attempts if (a.run_id, a.attempt) in again)
        assert {(a.run_id, a.attempt) for a in attempts if a.attempt < last[a.run_id]} <= set(again)
        for trial in self.hands.sql("SELECT * FROM audit_trials WHERE sweep_id = %(id)s", id=self.sweep.sweep_id):
            assert (trial.machinery_faults, trial.user_retries) == (paid[trial.run_id, True], paid[trial.run_id, False])
        keys = [attempt.placement for attempt in attempts]
        assert len({(attempt.run_id, attempt.placement) for attempt in attempts}) == len(keys)
        recorded = Counter((r.run_id, r.attempt) for r in self.reports if r.answer is FinishAnswer.RECORDED)
        assert all(n == 1 for n in recorded.values())

    def _check_history(self) -> None:
        """Every move in the history is one of the tables', begins where the last one ended, and ends where the row stands."""
        events = self.hands.sql("SELECT * FROM audit_events WHERE sweep_id = %(id)s ORDER BY seq", id=self.sweep.sweep_id)
        states: dict[tuple[Any, ...], str | None] = {}
        for event in events:
            if event.to_state is None:
                assert event.event in ("cancel_requested", "prune_requested", "extend", "retry", "reopen")
                continue
            subject_id = event.trial_number if event.subject == "trial" else event.run_id
            about = (event.subject, subject_id, event.attempt if event.subject == "attempt" else None)
            if event.event in ("queue", "submit"):
                assert about not in states
            else:
                move = MOVES[event.subject][event.event]
                assert event.from_state in move.from_, event
                assert event.to_state == move.to, event
                opens = {"attempt": "running", "trial": "open"}.get(event.subject)
                assert states.get(about, opens) == event.from_state, event
            states[about] = event.to_state
        now = {
            ("run", run.run_id, None): run.state
            for run in self.hands.sql("SELECT run_id, state FROM runs WHERE sweep_id = %(id)s AND kind = 'managed'", id=self.sweep.sweep_id)
        }
        now |= {("trial", t.number, None): t.state for t in self.store.trials.list(self.sweep.sweep_id)}
        now |= {
            ("attempt", a.run_id, a.attempt): a.state for a in self.hands.sql("SELECT * FROM audit_attempts WHERE sweep_id = %(id)s", id=self.sweep.sweep_id)
        }
        now |= {("sweep", self.sweep.sweep_id, None): self.store.sweeps.get(self.sweep.sweep_id).state}
        assert states == now


def test_record_holds_whatever_the_cluster_does(hands: Hands) -> None:
    """I2, I3, I5 and I6 under lost, doubled, delayed and forged messages, lost replies, lost sessions, fail-over and steering by hand."""
    run_state_machine_as_test(
        lambda: Cluster(hands),  # type: ignore[arg-type]  # it takes whatever makes one
        settings=settings(
            max_examples=80,
            stateful_step_count=40,
            # Shrinking against a database takes longer than a test may; forty steps are read faster.
            phases=[Phase.explicit, Phase.reuse, Phase.generate],
            suppress_health_check=list(HealthCheck),
        ),
    )
