"""Attempts: claimed once, finished once, fenced (I2, I3), with what they logged."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from msgspec.structs import replace

from tests.support.record import EXITED, NOT_LAUNCHED, STOPPED, SUCCEEDED, Hands, both
from tracking.errors import NotAllowed, RowLocked, Unauthenticated
from tracking.ids import attempt_token, new_secret, new_uuid, token_hash
from tracking.queries import attempts as attempt_sql
from tracking.records import ClaimedRun, Launch, LogChunk, MetricPoint, Outcome
from tracking.states import SweepEvent
from tracking.store import Fence, Store
from tracking.store.attempts import FinishAnswer, hold_fence
from tracking.store.metrics import Append, by_key
from tracking.store.queue import Placed


def claim(store: Store, placed: Placed, **changed: Any) -> ClaimedRun | None:
    """Claim what was placed, or something a little different."""
    values = {"placement": placed.placement, "session_id": placed.session_id, "claim_id": new_uuid(), "secret_hash": token_hash("x"), **changed}
    return store.attempts.claim(placed.run_id, values.pop("placement"), values.pop("session_id"), **values)


def events_of(hands: Hands, run_id: str) -> list[tuple[str, str, str | None, str | None, str | None]]:
    """A run's history in short."""
    return [(e.subject, e.event, e.from_state, e.to_state, e.cause) for e in hands.store.runs.events(run_id)]


# -- claim ------------------------------------------------------------------------------------------------


def test_claim_hands_over_everything_the_worker_needs(hands: Hands) -> None:
    """The claim's answer names the run, its command, its parameters and how to launch it; the attempt is open."""
    sweep = hands.sweep(2, launch=Launch(code_digest="abc", trial_time_s=60))
    worker = hands.worker(gpus=4, host_incarnation="boot-1")
    held = hands.claim(hands.place(hands.run_id(sweep, 1), worker, gpu_ids=(2, 3)))
    assert held.claimed == ClaimedRun(
        run_id=hands.run_id(sweep, 1),
        attempt=1,
        placement=1,
        experiment_id=sweep.experiment_id,
        name=f"{sweep.short_id}/1",
        argv=("true", "1"),
        params={"x": 1},
        launch=Launch(code_digest="abc", trial_time_s=60),
        sweep_id=sweep.sweep_id,
        trial_number=1,
        seed=1,
        gpu_ids=(2, 3),
    )
    (attempt,) = hands.store.attempts.list(held.run_id)
    assert (attempt.state, attempt.worker_id, attempt.worker_name, attempt.gpu_ids) == ("running", worker.worker_id, worker.name, (2, 3))
    assert hands.run_state(held.run_id) == "running"
    assert events_of(hands, held.run_id)[-1] == ("run", "claim", "placed", "running", None)
    assert [row.host_incarnation for row in hands.sql("SELECT host_incarnation FROM attempts WHERE run_id = %(id)s", id=held.run_id)] == ["boot-1"]


def test_claim_again_with_its_id_gets_the_same_answer(hands: Hands) -> None:
    """A lost reply is harmless: the same claim id, the same attempt."""
    held = hands.start(hands.sweep())
    again = hands.store.attempts.claim(held.run_id, 1, held.session_id, claim_id=held.claim_id, secret_hash=token_hash(held.secret))
    assert again == held.claimed
    assert len(hands.store.attempts.list(held.run_id)) == 1


def test_claim_twice_at_once_with_one_id_opens_one_attempt(hands: Hands) -> None:
    """A repeat that overtakes its original finds the same attempt."""
    placed = hands.place(hands.run_id(hands.sweep()), hands.worker())
    claim_id = new_uuid()
    one, other = both(lambda: claim(hands.store, placed, claim_id=claim_id), lambda: claim(hands.store, placed, claim_id=claim_id))
    assert one is not None
    assert one == other
    assert len(hands.store.attempts.list(placed.run_id)) == 1


def test_claim_twice_at_once_with_two_ids_is_won_once(hands: Hands) -> None:
    """A doubled message claims under another id and gets nothing."""
    placed = hands.place(hands.run_id(hands.sweep()), hands.worker())
    answers = both(lambda: claim(hands.store, placed), lambda: claim(hands.store, placed))
    assert sorted(answer is None for answer in answers) == [False, True]


def test_claim_is_refused_for_another_placement(hands: Hands) -> None:
    """Late and forged messages name placements that are not the current one."""
    sweep, worker = hands.sweep(), hands.worker()
    first = hands.place(hands.run_id(sweep), worker)
    assert claim(hands.store, first, placement=2) is None
    hands.store.sweeps.pause(sweep.sweep_id)
    hands.store.sweeps.resume(sweep.sweep_id)
    second = hands.place(hands.run_id(sweep), worker)
    assert claim(hands.store, first) is None
    assert claim(hands.store, second) is not None


def test_claim_is_refused_for_another_session(hands: Hands) -> None:
    """Only the session that the run was placed on may take it, also when it knows the claim's id."""
    placed = hands.place(hands.run_id(hands.sweep()), hands.worker())
    other = hands.worker().session_id
    assert claim(hands.store, placed, session_id=other) is None
    held = hands.claim(placed)
    assert claim(hands.store, placed, session_id=other, claim_id=held.claim_id) is None


def test_claim_is_refused_when_session_is_over(hands: Hands) -> None:
    """A fenced session takes nothing, even what was placed on it."""
    placed = hands.place(hands.run_id(hands.sweep()), hands.worker())
    hands.change("UPDATE sessions SET state = 'fenced' WHERE session_id = %(id)s", id=placed.session_id)
    assert claim(hands.store, placed) is None
    assert hands.run_state(placed.run_id) == "placed"


def test_claim_is_refused_after_cancel(hands: Hands) -> None:
    """A cancelled sweep's placed runs are gone before anybody takes them."""
    sweep = hands.sweep()
    placed = hands.place(hands.run_id(sweep), hands.worker())
    hands.store.sweeps.cancel(sweep.sweep_id)
    assert claim(hands.store, placed) is None
    assert hands.run_state(placed.run_id) == "cancelled"


def test_claim_again_after_the_end_is_refused(hands: Hands) -> None:
    """A very late repeat does not bring an ended attempt back."""
    held = hands.start(hands.sweep())
    hands.finish(held)
    assert hands.store.attempts.claim(held.run_id, 1, held.session_id, claim_id=held.claim_id, secret_hash="") is None


def test_claim_of_unknown_run_is_refused(hands: Hands) -> None:
    """A message about nothing is answered with nothing."""
    assert claim(hands.store, Placed("no-such-run", 1, hands.worker().session_id)) is None


def test_claim_under_way_is_seen_by_a_cancel(hands: Hands) -> None:
    """A run that is being claimed while its sweep is cancelled is asked to stop, not forgotten."""
    sweep = hands.sweep()
    placed = hands.place(hands.run_id(sweep), hands.worker())
    values = {"run_id": placed.run_id, "placement": 1, "session_id": placed.session_id, "claim_id": new_uuid(), "token_hash": ""}
    with ThreadPoolExecutor(1) as pool:
        with hands.store.database.transaction() as tx:
            assert tx.one(attempt_sql.CLAIM, values) is not None
            cancelling = pool.submit(hands.store.sweeps.cancel, sweep.sweep_id)
            hands.wait_for_blocked()
        cancelling.result(60)
    (owned,) = hands.store.sessions.look(placed.session_id).owned
    assert owned.cancel


def test_claim_under_way_is_seen_by_a_newer_session(hands: Hands) -> None:
    """A worker that is started anew while its old self claims adopts that attempt, and nobody waits for it in vain."""
    worker = hands.worker()
    placed = hands.place(hands.run_id(hands.sweep()), worker)
    values = {"run_id": placed.run_id, "placement": 1, "session_id": placed.session_id, "claim_id": new_uuid(), "token_hash": ""}
    with ThreadPoolExecutor(1) as pool:
        with hands.store.database.transaction() as tx:
            assert tx.one(attempt_sql.CLAIM, values) is not None
            opening = pool.submit(hands.worker, worker_id=worker.worker_id)
            hands.wait_for_blocked()
        newer = opening.result(60)
    (owned,) = hands.store.sessions.look(newer.session_id).owned
    assert owned.run_id == placed.run_id


# -- finish -----------------------------------------------------------------------------------------------


def test_finish_success_ends_run_and_attempt(hands: Hands) -> None:
    """A success without an objective to judge finishes the run, with its cause and its times."""
    held = hands.start(hands.sweep())
    hands.finish(held)
    run = hands.store.runs.get(held.run_id)
    assert (run.state, run.cause, run.value) == ("finished", "completed", None)
    assert run.ended_at is not None
    (attempt,) = hands.store.attempts.list(held.run_id)
    assert (attempt.state, attempt.cause, attempt.exit_status, attempt.duration_s) == ("succeeded", "completed", 0, 0.5)
    assert events_of(hands, held.run_id)[-2:] == [
        ("attempt", "succeed", "running", "succeeded", "completed"),
        ("run", "finish", "running", "finished", "completed"),
    ]


def test_finish_repeated_with_its_key_has_no_second_effect(hands: Hands) -> None:
    """A lost reply is harmless; what a repeat says is not even looked at."""
    held = hands.start(hands.sweep())
    key = new_uuid()
    first = hands.store.attempts.finish(held.run_id, 1, held.session_id, SUCCEEDED, finish_key=key)
    before = events_of(hands, held.run_id)
    second = hands.store.attempts.finish(held.run_id, 1, held.session_id, EXITED, finish_key=key)
    assert (first, second) == (FinishAnswer.RECORDED, FinishAnswer.REPEATED)
    assert events_of(hands, held.run_id) == before
    assert hands.run_state(held.run_id) == "finished"


def test_finish_twice_at_once_is_recorded_once(hands: Hands) -> None:
    """Two reports of one end at the same moment: one counts."""
    held = hands.start(hands.sweep())
    key = new_uuid()
    answers = both(*[lambda: hands.store.attempts.finish(held.run_id, 1, held.session_id, SUCCEEDED, finish_key=key)] * 2)
    assert set(answers) == {FinishAnswer.RECORDED, FinishAnswer.REPEATED}


def test_finish_is_refused_to_everybody_else(hands: Hands) -> None:
    """Another session, another attempt, a second opinion: refused, and nothing changes."""
    held = hands.start(hands.sweep())
    finish = hands.store.attempts.finish
    assert finish(held.run_id, 1, hands.worker().session_id, SUCCEEDED, finish_key=new_uuid()) is FinishAnswer.REFUSED
    assert finish(held.run_id, 2, held.session_id, SUCCEEDED, finish_key=new_uuid()) is FinishAnswer.REFUSED
    assert finish("no-such-run", 1, held.session_id, SUCCEEDED, finish_key=new_uuid()) is FinishAnswer.REFUSED
    assert hands.run_state(held.run_id) == "running"
    hands.finish(held)
    assert finish(held.run_id, 1, held.session_id, EXITED, finish_key=new_uuid()) is FinishAnswer.REFUSED
    assert hands.run_state(held.run_id) == "finished"


def test_finish_of_a_superseded_attempt_is_refused(hands: Hands) -> None:
    """A stale worker's late "finished" does not overwrite the next attempt."""
    first = hands.start(hands.sweep(metric_name="loss"))
    hands.lose(first.session_id)
    assert hands.store.queue.requeue(hands.epoch, hands.due(first.run_id), delay_s=0, machinery=True, detail="again")
    second = hands.claim(hands.place(first.run_id, hands.worker()))
    answer = hands.store.attempts.finish(first.run_id, first.attempt, first.session_id, SUCCEEDED, finish_key=new_uuid())
    assert answer is FinishAnswer.REFUSED
    assert [a.state for a in hands.store.attempts.list(first.run_id)] == ["lost", "running"]
    hands.log(second, "loss", 1.0)
    hands.finish(second)
    assert hands.run_state(first.run_id) == "finished"


@pytest.mark.parametrize(
    "goal, from_, values, objective",
    [
        ("minimize", "last", (3.0, 1.0, 2.0), 2.0),
        ("minimize", "best", (3.0, 1.0, 2.0), 1.0),
        ("maximize", "best", (1.0, 3.0, 2.0), 3.0),
        ("minimize", "best", (float("nan"), 5.0, float("nan")), 5.0),
        ("maximize", "best", (float("inf"), 5.0), float("inf")),
        ("minimize", "last", (1.0, float("-inf")), float("-inf")),
    ],
)
def test_finish_objective_is_last_or_best(hands: Hands, goal: Any, from_: Any, values: tuple[float, ...], objective: float) -> None:
    """`metric.from` decides which value counts; NaN is none (D8)."""
    held = hands.start(hands.sweep(metric_name="loss", metric_goal=goal, metric_from=from_))
    hands.log(held, "loss", *values)
    hands.log(held, "other", -99.0)
    hands.finish(held)
    run = hands.store.runs.get(held.run_id)
    assert (run.state, run.value) == ("finished", objective)


@pytest.mark.parametrize(
    "from_, values, reason",
    [("last", (), "never logged"), ("best", (), "never logged"), ("last", (1.0, float("nan")), "NaN"), ("best", (float("nan"),), "NaN")],
)
def test_finish_without_objective_fails_the_run(hands: Hands, from_: Any, values: tuple[float, ...], reason: str) -> None:
    """A command that succeeds without a usable objective has failed, for that cause (D8, I7)."""
    held = hands.start(hands.sweep(metric_name="loss", metric_from=from_))
    hands.log(held, "loss", *values)
    hands.log(held, "Loss", 1.0)
    hands.finish(held)
    run = hands.store.runs.get(held.run_id)
    assert (run.state, run.cause, run.value) == ("failed", "no_objective", None)
    assert run.detail is not None
    assert reason in run.detail
    assert "'loss'" in run.detail
    # The attempt did what it was told; the run is what lacks something.
    (attempt,) = hands.store.attempts.list(held.run_id)
    assert (attempt.state, attempt.cause) == ("succeeded", "completed")
    assert ("attempt", "succeed", "running", "succeeded", "completed") in events_of(hands, held.run_id)


@pytest.mark.parametrize(
    ("name", "logged", "printed", "told"),
    [
        ("val/loss", ("val.loss", "val.acc"), (), "The nearest name that it logged is 'val.loss'."),
        ("val_loss", (), ("acc", "valloss"), "The nearest name that it printed is 'valloss'."),
        ("val_loss", ("valid_loss",), ("val-loss",), "The nearest name that it logged is 'valid_loss'."),
        ("loss", ("accuracy",), ("seconds",), None),
        ("loss", (), (), None),
    ],
)
def test_finish_without_objective_names_the_nearest_metric(
    hands: Hands, name: str, logged: tuple[str, ...], printed: tuple[str, ...], told: str | None
) -> None:
    """Whoever wrote the name another way reads which one did arrive, of this attempt alone, or else was printed."""
    first = hands.start(hands.sweep(metric_name=name))
    hands.log(first, name.upper(), 1.0)
    held = hands.retry(first)
    for key in logged:
        hands.log(held, key, 1.0)
    hands.finish(held, replace(SUCCEEDED, printed=printed))
    detail = hands.store.runs.get(held.run_id).detail or ""
    assert "it never logged one." in detail
    assert (told or detail) in detail
    assert ("nearest" in detail) is (told is not None)


def test_finish_objective_is_of_the_current_attempt_only(hands: Hands) -> None:
    """What attempt 1 logged does not count for attempt 2, neither last nor best."""
    first = hands.start(hands.sweep(metric_name="loss", metric_from="best"))
    hands.log(first, "loss", 0.001, 0.5)
    second = hands.retry(first)
    hands.log(second, "loss", 7.0)
    hands.finish(second)
    assert hands.store.runs.get(first.run_id).value == 7.0


def test_finish_without_objective_in_the_current_attempt_fails_though_an_earlier_one_had_it(hands: Hands) -> None:
    """A clean view: attempt 2 that logs nothing has no objective."""
    first = hands.start(hands.sweep(metric_name="loss"))
    hands.log(first, "loss", 1.0)
    hands.finish(hands.retry(first))
    assert hands.store.runs.get(first.run_id).cause == "no_objective"


@pytest.mark.parametrize(
    "outcome",
    [
        EXITED,
        NOT_LAUNCHED,
        Outcome("failed", "signal", signal=11),
        Outcome("failed", "out_of_memory"),
        Outcome("failed", "timed_out"),
        Outcome("failed", "environment", "x" * 9000 + "\0"),
    ],
    ids=lambda outcome: outcome.cause,
)
def test_finish_failure_leaves_the_verdict_to_the_scheduler(hands: Hands, outcome: Outcome) -> None:
    """The attempt has failed with its cause; the run waits for a word, and its slot is free."""
    held = hands.start(hands.sweep(metric_name="loss"))
    hands.finish(held, outcome)
    assert hands.run_state(held.run_id) == "running"
    due = hands.due(held.run_id)
    assert (due.attempt, due.cause, due.machinery_faults, due.cancel) == (1, outcome.cause, 0, False)
    (attempt,) = hands.store.attempts.list(held.run_id)
    assert (attempt.state, attempt.cause, attempt.signal) == ("failed", outcome.cause, outcome.signal)
    assert len(attempt.detail or "") <= 4000
    assert hands.store.sessions.look(held.session_id).owned == ()


def test_finish_failure_says_the_final_word_once(hands: Hands) -> None:
    """The scheduler's `fail` ends the run with the attempt's cause; a second verdict finds nothing to judge."""
    held = hands.start(hands.sweep())
    hands.finish(held, EXITED)
    due = hands.due(held.run_id)
    assert hands.store.queue.fail(hands.epoch, due)
    assert not hands.store.queue.fail(hands.epoch, due)
    assert not hands.store.queue.requeue(hands.epoch, due, delay_s=0, machinery=False, detail="")
    run = hands.store.runs.get(held.run_id)
    assert (run.state, run.cause, run.detail) == ("failed", "exit_status", "ValueError: no")


def test_finish_stopped_by_cancel_ends_cancelled(hands: Hands) -> None:
    """The worker stopped it as asked; why it was asked stands on the run."""
    sweep = hands.sweep()
    held = hands.start(sweep)
    assert hands.store.queue.request_cancel(held.run_id, "Cancelled by ann.")
    (owned,) = hands.store.sessions.look(held.session_id).owned
    assert owned.cancel
    hands.finish(held, STOPPED)
    run = hands.store.runs.get(held.run_id)
    assert (run.state, run.cause, run.detail) == ("cancelled", "cancelled", "Cancelled by ann.")
    assert hands.store.attempts.list(held.run_id)[0].state == "stopped"


def test_finish_stopped_over_budget_keeps_that_cause(hands: Hands) -> None:
    """A trial that a limit of the file stopped is told from one that a person stopped (I7)."""
    sweep = hands.sweep()
    held = hands.start(sweep)
    detail = "The sweep has run for 1 s (limits.time)."
    assert hands.store.sweeps.break_off(hands.epoch, sweep, event=SweepEvent.STOP, cause="over_budget", detail=detail)
    hands.finish(held, STOPPED)
    run = hands.store.runs.get(held.run_id)
    assert (run.state, run.cause, run.detail) == ("cancelled", "over_budget", detail)


def test_finish_before_the_stop_arrived_keeps_the_true_outcome(hands: Hands) -> None:
    """A process that ended by itself was not cancelled, though it was about to be."""
    held = hands.start(hands.sweep())
    assert hands.store.queue.request_cancel(held.run_id)
    hands.finish(held)
    run = hands.store.runs.get(held.run_id)
    assert (run.state, run.cause) == ("finished", "completed")


def test_finish_failure_while_a_cancel_is_asked_keeps_its_cause(hands: Hands) -> None:
    """The request stands beside the attempt's true cause until the scheduler has spoken."""
    held = hands.start(hands.sweep())
    hands.finish(held, EXITED)
    assert hands.store.queue.request_cancel(held.run_id)
    due = hands.due(held.run_id)
    assert (due.cause, due.cancel) == ("exit_status", True)
    assert hands.store.queue.fail(hands.epoch, due)
    assert hands.store.runs.get(held.run_id).cause == "exit_status"


def test_finish_pruned_ends_pruned_and_keeps_its_value(hands: Hands) -> None:
    """A pruned trial has a value, and never wins."""
    sweep = hands.sweep(2, metric_name="loss")
    held = hands.start(sweep, 0)
    hands.log(held, "loss", -5.0)
    assert hands.store.queue.request_prune(held.run_id, "behind the median")
    assert not hands.store.queue.request_prune(held.run_id, "again")
    (owned,) = hands.store.sessions.look(held.session_id).owned
    assert (owned.prune, owned.cancel) == (True, False)
    hands.finish(held, Outcome("stopped", "pruned", "behind the median"))
    hands.conclude(sweep, n1=1.0)
    trial = hands.store.trials.get(sweep.sweep_id, 0)
    assert (trial.state, trial.cause, trial.value) == ("pruned", "pruned", -5.0)
    assert [t.number for t in hands.store.trials.best(sweep.sweep_id)] == [1]


@pytest.mark.parametrize("outcome", [SUCCEEDED, EXITED], ids=["finished", "failed"])
def test_finish_kills_open_descendants_of_the_attempt(hands: Hands, outcome: Outcome) -> None:
    """Runs opened with the attempt's token end with it, those that ended before keep their end (D7)."""
    held = hands.start(hands.sweep())
    create = hands.store.runs.create_external
    open_child = create(held.claimed.experiment_id, fence=held.fence)
    ended_child = create(held.claimed.experiment_id, fence=held.fence)
    grandchild = create(held.claimed.experiment_id, fence=held.fence, tags={"mlflow.parentRunId": open_child.run_id})
    stranger = create(held.claimed.experiment_id, tags={"mlflow.parentRunId": held.run_id})
    hands.store.runs.update(ended_child.run_id, status="FINISHED", fence=held.fence)
    hands.finish(held, outcome)
    states = [hands.run_state(run.run_id) for run in (open_child, ended_child, grandchild, stranger)]
    assert states == ["killed", "finished", "killed", "running"]


def test_finish_waits_no_longer_than_half_a_second_for_a_lock(hands: Hands) -> None:
    """The worker's renewals and its other reports wait for the same connection; once the row is free the same report is recorded."""
    worker, sweep = hands.worker(), hands.sweep(2)
    held, other = hands.start(sweep, 0, worker), hands.start(sweep, 1, worker)
    with ThreadPoolExecutor(1) as pool, hands.store.database.transaction() as tx:
        tx.execute("SELECT 1 FROM runs WHERE run_id = %(id)s FOR UPDATE", {"id": held.run_id})
        with pytest.raises(RowLocked):
            pool.submit(hands.finish, held).result(3)
        hands.finish(other)
    assert [hands.run_state(each.run_id) for each in (held, other)] == ["running", "finished"]
    assert [attempt.state for attempt in hands.store.attempts.list(held.run_id)] == ["running"]
    hands.finish(held)
    assert hands.run_state(held.run_id) == "finished"


def test_started_notes_the_process_once(hands: Hands) -> None:
    """Where the attempt runs is kept from the first telling; others' tellings are not."""
    held = hands.start(hands.sweep())
    hands.store.attempts.started(held.run_id, 1, "another session", {"pid": 1})
    hands.store.attempts.started(held.run_id, 1, held.session_id, {"pid": 2})
    hands.store.attempts.started(held.run_id, 1, held.session_id, {"pid": 3})
    (attempt,) = hands.store.attempts.list(held.run_id)
    assert attempt.info == {"pid": 2}
    assert attempt.started_at is not None


def test_note_of_an_attempt_takes_the_place_of_the_last(hands: Hands) -> None:
    """How far it has come stands beside what it is; others' notes, and what comes after its end, are not kept."""
    held = hands.start(hands.sweep())
    note = hands.store.attempts.note
    hands.store.attempts.started(held.run_id, 1, held.session_id, {"pid": 2})
    note(held.run_id, 1, held.session_id, {"read": 1})
    note(held.run_id, 1, held.session_id, {"read": 2})
    note(held.run_id, 1, "another session", {"read": 3})
    hands.finish(held)
    note(held.run_id, 1, held.session_id, {"read": 4})
    assert [attempt.info for attempt in hands.store.attempts.list(held.run_id)] == [{"pid": 2, "read": 2}]


# -- the fence -------------------------------------------------------------------------------------------------


def test_token_speaks_for_its_attempt_while_it_lives(hands: Hands) -> None:
    """The token proves run and attempt, and dies with the attempt."""
    held = hands.start(hands.sweep())
    assert hands.store.attempts.authenticate(held.token) == Fence(held.run_id, 1)
    hands.finish(held)
    with pytest.raises(Unauthenticated, match="has ended"):
        hands.store.attempts.authenticate(held.token)


def test_token_of_an_earlier_attempt_is_refused(hands: Hands) -> None:
    """The retry has a token of its own; neither opens the other's door."""
    first = hands.start(hands.sweep())
    second = hands.retry(first)
    with pytest.raises(Unauthenticated):
        hands.store.attempts.authenticate(first.token)
    with pytest.raises(Unauthenticated):
        hands.store.attempts.authenticate(attempt_token(second.run_id, 2, first.secret))
    assert hands.store.attempts.authenticate(second.token).attempt == 2


@pytest.mark.parametrize("token", ["", "Bearer x", "sat_", "sat_x.1", "sat_x.one.secret", "sat_no-such-run.1.secret"])
def test_token_that_is_none_is_refused(hands: Hands, token: str) -> None:
    """Malformed and unknown tokens are both refused."""
    with pytest.raises(Unauthenticated):
        hands.store.attempts.authenticate(token)


def test_token_with_a_wrong_secret_is_refused(hands: Hands) -> None:
    """Knowing the run and the attempt is not enough."""
    held = hands.start(hands.sweep())
    with pytest.raises(Unauthenticated):
        hands.store.attempts.authenticate(attempt_token(held.run_id, 1, new_secret()))


POINT = [MetricPoint("loss", 1.0)]
WRITES: dict[str, Any] = {
    "metrics": lambda store, run_id, fence: store.metrics.log(run_id, POINT, fence),
    "batch": lambda store, run_id, fence: store.metrics.log_batch(Append(run_id, by_key(POINT), fence), {"p": "1"}, {"t": "1"}),
    "params": lambda store, run_id, fence: store.runs.log_params(run_id, {"p": "1"}, fence),
    "tags": lambda store, run_id, fence: store.runs.set_tags(run_id, {"t": "1"}, fence),
    "status": lambda store, run_id, fence: store.runs.update(run_id, status="FINISHED", fence=fence),
    "child": lambda store, _, fence: store.runs.create_external("0", fence=fence),
}


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_fence_refuses_writes_of_an_earlier_attempt(hands: Hands, write: Any) -> None:
    """Whatever a superseded attempt sends is not recorded, while the current one writes freely (I3)."""
    first = hands.start(hands.sweep())
    write(hands.store, first.run_id, first.fence)
    second = hands.retry(first)
    before = _written(hands, first.run_id)
    with pytest.raises(NotAllowed, match="no longer"):
        write(hands.store, first.run_id, first.fence)
    assert _written(hands, first.run_id) == before
    write(hands.store, first.run_id, second.fence)


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_fence_refuses_writes_after_the_end(hands: Hands, write: Any) -> None:
    """An attempt that was reported writes no more."""
    held = hands.start(hands.sweep())
    hands.finish(held)
    with pytest.raises(NotAllowed):
        write(hands.store, held.run_id, held.fence)


@pytest.mark.parametrize("write", ["metrics", "batch", "params", "status"])
def test_fence_refuses_results_of_a_managed_run_without_token(hands: Hands, write: str) -> None:
    """Nobody but the attempt says what it found: not before, not while it runs, not afterwards."""
    sweep = hands.sweep()
    run_id = hands.run_id(sweep)
    with pytest.raises(NotAllowed, match="managed"):
        WRITES[write](hands.store, run_id, None)
    held = hands.start(sweep)
    with pytest.raises(NotAllowed, match="managed"):
        WRITES[write](hands.store, run_id, None)
    hands.finish(held)
    with pytest.raises(NotAllowed, match="managed"):
        WRITES[write](hands.store, run_id, None)


def test_fence_allows_anybody_a_tag_on_a_managed_run(hands: Hands) -> None:
    """A tag is a note, not a result."""
    run_id = hands.run_id(hands.sweep())
    hands.store.runs.set_tags(run_id, {"note": "look at this"})
    assert hands.store.runs.data(run_id).tags["note"] == "look at this"


@pytest.mark.parametrize("write", ["metrics", "batch", "params", "tags", "status"])
def test_fence_refuses_an_attempt_other_runs(hands: Hands, write: str) -> None:
    """A token writes its run and the runs it opened: no other trial, no stranger's run, not its own sweep (D7)."""
    sweep = hands.sweep(2)
    held = hands.start(sweep, 0)
    other = hands.start(sweep, 1)
    others_child = hands.store.runs.create_external(sweep.experiment_id, fence=other.fence)
    stranger = hands.store.runs.create_external(sweep.experiment_id)
    for run_id in (other.run_id, others_child.run_id, stranger.run_id, sweep.sweep_id):
        with pytest.raises(NotAllowed):
            WRITES[write](hands.store, run_id, held.fence)
    own = hands.store.runs.create_external(sweep.experiment_id, fence=held.fence)
    WRITES[write](hands.store, own.run_id, held.fence)


def test_fence_refuses_a_foreign_parent(hands: Hands) -> None:
    """A descendant can't be hung under somebody else's run."""
    held = hands.start(hands.sweep())
    stranger = hands.store.runs.create_external("0")
    with pytest.raises(NotAllowed):
        hands.store.runs.create_external("0", fence=held.fence, tags={"mlflow.parentRunId": stranger.run_id})


def test_fence_refuses_to_restore_or_delete_a_foreign_run(hands: Hands) -> None:
    """Neither way of a life cycle is open to an attempt outside its own runs."""
    held = hands.start(hands.sweep())
    stranger = hands.store.runs.create_external("0")
    with pytest.raises(NotAllowed):
        hands.store.runs.delete(stranger.run_id, held.fence)
    hands.store.runs.delete(stranger.run_id)
    with pytest.raises(NotAllowed):
        hands.store.runs.restore(stranger.run_id, held.fence)
    assert hands.store.runs.get(stranger.run_id).lifecycle_stage == "deleted"


def test_fence_ignores_the_status_of_a_managed_run(hands: Hands) -> None:
    """A client's end_run does not end it; its worker does (D9). Its name may change."""
    held = hands.start(hands.sweep())
    run = hands.store.runs.update(held.run_id, status="FINISHED", end_time_ms=5, name="mine", fence=held.fence)
    assert (run.state, run.ended_at, run.name) == ("running", None, "mine")
    hands.finish(held)
    assert hands.run_state(held.run_id) == "finished"


def test_fence_holds_the_outcome_back_until_a_write_is_done(hands: Hands) -> None:
    """A report waits for a write under way: nothing lands after the end."""
    held = hands.start(hands.sweep())
    with ThreadPoolExecutor(1) as pool:
        with hands.store.database.transaction() as tx:
            hold_fence(tx, Fence(held.run_id, 1))
            finishing = pool.submit(hands.finish, held)
            hands.wait_for_blocked()
            assert not finishing.done()
        finishing.result(60)
    assert hands.run_state(held.run_id) == "finished"


def _written(hands: Hands, run_id: str) -> list[Any]:
    statement = """
        SELECT (SELECT count(*) FROM audit_points WHERE run_id = %(id)s), (SELECT count(*) FROM params WHERE run_id = %(id)s),
               (SELECT count(*) FROM tags WHERE run_id = %(id)s), (SELECT count(*) FROM runs WHERE opener_run_id = %(id)s)
    """
    return [tuple(row) for row in hands.sql(statement, id=run_id)]


# -- what nobody will come back for ------------------------------------------------------------------------


def test_abandoned_is_what_is_over_and_whose_worker_is_not_there(hands: Hands) -> None:
    """A worker that is there tidies up itself; what the record does not know, or has running, is nobody's to end."""
    sweep, worker = hands.sweep(2), hands.worker()
    ended, running = hands.start(sweep, 0, worker), hands.start(sweep, 1, worker)
    hands.finish(ended)
    keys = [(held.run_id, 1) for held in (ended, running)] + [(ended.run_id, 2), (new_uuid(), 1)]
    assert hands.store.attempts.abandoned(keys) == set()
    hands.change("UPDATE sessions SET lease_until = now() - interval '1 second' WHERE session_id = %(id)s", id=worker.session_id)
    assert hands.store.attempts.abandoned(keys) == {keys[0]}
    again = hands.worker(worker_id=worker.worker_id)
    assert hands.store.attempts.abandoned(keys) == set()
    hands.store.sessions.close(again.session_id)
    assert hands.store.attempts.abandoned(keys) == {keys[0]}
    assert hands.store.attempts.abandoned([]) == set()


# -- the clean view ------------------------------------------------------------------------------------------


def test_retry_opens_a_clean_view(hands: Hands) -> None:
    """Metrics and client's parameters of attempt 1 are out of sight once attempt 2 runs; the sweep's own stay (D6)."""
    first = hands.start(hands.sweep())
    hands.log(first, "loss", 1.0, 2.0)
    hands.store.runs.log_params(first.run_id, {"seen": "by the first"}, first.fence)
    second = hands.retry(first)
    data = hands.store.runs.data(first.run_id)
    assert (data.metrics, data.params) == ((), {"x": "0"})
    assert hands.store.metrics.history(first.run_id, "loss") == ([], "")
    assert hands.store.metrics.latest(first.run_id) == []
    hands.log(second, "loss", 9.0)
    hands.store.runs.log_params(first.run_id, {"seen": "by the second"}, second.fence)
    data = hands.store.runs.data(first.run_id)
    assert ([p.value for p in data.metrics], data.params) == ([9.0], {"x": "0", "seen": "by the second"})
    assert [p.value for p in hands.store.metrics.history(first.run_id, "loss")[0]] == [9.0]


def test_retry_forgets_why_the_last_attempt_failed_once_it_runs(hands: Hands) -> None:
    """While it waits the cause is shown; a running attempt has none."""
    held = hands.start(hands.sweep())
    hands.finish(held, NOT_LAUNCHED)
    assert hands.store.queue.requeue(hands.epoch, hands.due(held.run_id), delay_s=0, machinery=True, detail="again")
    assert hands.store.runs.get(held.run_id).cause == "launch"
    hands.claim(hands.place(held.run_id, hands.worker()))
    assert hands.store.runs.get(held.run_id).cause is None


def test_retry_forgets_a_prune_of_the_last_attempt(hands: Hands) -> None:
    """A prune was asked of what attempt 1 had logged; attempt 2 starts without."""
    first = hands.start(hands.sweep())
    assert hands.store.queue.request_prune(first.run_id, "behind")
    second = hands.retry(first)
    (owned,) = hands.store.sessions.look(second.session_id).owned
    assert not owned.prune


# -- logs --------------------------------------------------------------------------------------------------------


def test_logs_are_read_back_by_offset(hands: Hands) -> None:
    """Pieces join; a reader goes on where it stopped; the end is told once nothing follows."""
    held = hands.start(hands.sweep())
    hands.store.logs.append(held.run_id, 1, [LogChunk("stdout", 0, b"one\n"), LogChunk("stderr", 0, b"bad\n"), LogChunk("stdout", 4, b"two\0\n")])
    page = hands.store.logs.read(held.run_id)
    assert (page.data, page.next_offset, page.attempt, page.is_complete) == (b"one\ntwo\0\n", 9, 1, False)
    assert hands.store.logs.read(held.run_id, stream="stderr").data == b"bad\n"
    assert hands.store.logs.read(held.run_id, offset=2, limit=4).data == b"e\ntw"
    assert hands.store.logs.read(held.run_id, offset=2, limit=4).next_offset == 6
    hands.finish(held)
    assert not hands.store.logs.read(held.run_id).is_complete
    end = hands.store.logs.read(held.run_id, offset=9)
    assert (end.data, end.next_offset, end.is_complete) == (b"", 9, True)


def test_logs_same_piece_again_is_no_change(hands: Hands) -> None:
    """A repeated request adds nothing, also within one request."""
    held = hands.start(hands.sweep())
    for _ in range(2):
        hands.store.logs.append(held.run_id, 1, [LogChunk("stdout", 0, b"one\n"), LogChunk("stdout", 0, b"one\n")])
    assert hands.store.logs.read(held.run_id).data == b"one\n"


def test_logs_cut_differently_after_a_restart_lose_and_double_nothing(hands: Hands) -> None:
    """A worker that comes back may send longer pieces from the same offset, over shorter ones that had arrived."""
    held = hands.start(hands.sweep())
    for chunks in ([(0, b"abc"), (3, b"def")], [(0, b"abcdefgh")], [(0, b"ab"), (8, b"ij")]):
        hands.store.logs.append(held.run_id, 1, [LogChunk("stdout", offset, data) for offset, data in chunks])
    page = hands.store.logs.read(held.run_id)
    assert (page.data, page.next_offset) == (b"abcdefghij", 10)


def test_logs_left_out_stretch_is_skipped(hands: Hands) -> None:
    """Behind a gap the reader goes on at the next piece, with its true offset."""
    held = hands.start(hands.sweep())
    hands.store.logs.append(held.run_id, 1, [LogChunk("stdout", 0, b"head"), LogChunk("stdout", 100, b"tail")])
    first = hands.store.logs.read(held.run_id)
    second = hands.store.logs.read(held.run_id, offset=first.next_offset)
    assert (first.data, second.data, second.next_offset) == (b"head", b"tail", 104)


def test_logs_of_a_superseded_attempt_are_refused_and_kept_apart(hands: Hands) -> None:
    """Each attempt has its own output; the current one's is shown unless another is asked for."""
    first = hands.start(hands.sweep())
    hands.store.logs.append(first.run_id, 1, [LogChunk("stdout", 0, b"first")])
    hands.retry(first)
    with pytest.raises(NotAllowed):
        hands.store.logs.append(first.run_id, 1, [LogChunk("stdout", 5, b"late")])
    hands.store.logs.append(first.run_id, 2, [LogChunk("stdout", 0, b"second")])
    assert hands.store.logs.read(first.run_id).data == b"second"
    old = hands.store.logs.read(first.run_id, attempt=1)
    assert (old.data, old.attempt) == (b"first", 1)
