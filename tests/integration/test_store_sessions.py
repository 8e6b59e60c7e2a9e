"""Workers' sessions, the scheduler's seat, and the leases between them (I3, I4, I6)."""

import msgspec
import pytest

from tests.support.record import EXITED, NOT_LAUNCHED, STOPPED, SUCCEEDED, Hands, Held
from tracking.errors import NotFound, NotNow
from tracking.ids import new_uuid
from tracking.records import OwnedRun, PlacedRun, SessionInfo, WorkerView
from tracking.states import SweepEvent
from tracking.store import Store
from tracking.store.attempts import FinishAnswer


def view(hands: Hands, session: SessionInfo) -> WorkerView:
    """A worker as placement sees it."""
    (found,) = [worker for worker in hands.store.sessions.workers(include_gone=True) if worker.worker_id == session.worker_id]
    return found


def state_of(hands: Hands, session_id: str) -> str:
    """A session's state."""
    ((state,),) = hands.sql("SELECT state FROM sessions WHERE session_id = %(id)s", id=session_id)
    return str(state)


def newer(session: SessionInfo) -> SessionInfo:
    """The next start of the same worker."""
    return msgspec.structs.replace(session, session_id=new_uuid())


# -- sessions ---------------------------------------------------------------------------------------------------


def test_session_open_shows_the_worker(hands: Hands) -> None:
    """What a worker says of itself is what placement sees."""
    session = hands.worker(slots=3, cpus=1.5, gpus=2, queues=("a", "b"), runtimes=("process", "docker"))
    seen = view(hands, session)
    assert (seen.session_id, seen.state, seen.silent, seen.draining, seen.cordoned) == (session.session_id, "live", False, False, None)
    assert (seen.slots, seen.cpus, seen.gpus, seen.queues, seen.runtimes) == (3, 1.5, 2, ("a", "b"), ("process", "docker"))
    assert (seen.running, seen.placed) == ((), ())


def test_session_open_again_after_a_lost_reply_is_the_same_session(hands: Hands) -> None:
    """The commit may have happened though the answer was lost: asking again changes nothing."""
    session = hands.worker()
    placed = hands.place(hands.run_id(hands.sweep()), session)
    assert hands.store.sessions.open(session, lease_s=60) == []
    assert hands.store.sessions.renew(session.session_id, lease_s=60) is not None
    held = hands.claim(placed)
    assert hands.store.sessions.open(session, lease_s=60) == [held.claimed]


@pytest.mark.parametrize("end", ["close", "fence"])
def test_session_open_again_after_its_end_is_refused(hands: Hands, end: str) -> None:
    """A session that is over does not come back under its old id, and fences nobody."""
    session = hands.worker()
    live = newer(session)
    hands.store.sessions.close(session.session_id) if end == "close" else hands.store.sessions.open(live, lease_s=60)
    with pytest.raises(NotNow, match="is over"):
        hands.store.sessions.open(session, lease_s=60)
    assert end == "close" or state_of(hands, live.session_id) == "live"


def test_session_newer_one_fences_the_older_and_adopts(hands: Hands) -> None:
    """A worker started anew goes on with its attempts under their numbers; its old self is told to stop."""
    older = hands.worker()
    sweep = hands.sweep(2)
    held = hands.start(sweep, 0, older)
    waiting = hands.place(hands.run_id(sweep, 1), older)
    session = newer(older)
    assert hands.store.sessions.open(session, lease_s=60) == [held.claimed]
    assert hands.store.sessions.renew(older.session_id, lease_s=60) is None
    assert hands.run_state(waiting.run_id) == "queued"
    answer = hands.store.sessions.renew(session.session_id, lease_s=60)
    assert answer is not None
    assert answer.owned == (OwnedRun(held.run_id, 1),)
    finish = hands.store.attempts.finish
    assert finish(held.run_id, 1, older.session_id, EXITED, finish_key=new_uuid()) is FinishAnswer.REFUSED
    assert finish(held.run_id, 1, session.session_id, SUCCEEDED, finish_key=new_uuid()) is FinishAnswer.RECORDED


def test_session_claim_repeated_by_a_fenced_one_is_refused(hands: Hands) -> None:
    """The attempt was adopted: its old self does not get it back by asking again."""
    older = hands.worker()
    held = hands.start(hands.sweep(), 0, older)
    hands.store.sessions.open(newer(older), lease_s=60)
    assert hands.store.attempts.claim(held.run_id, 1, older.session_id, claim_id=held.claim_id, secret_hash="") is None


def test_session_of_another_worker_adopts_nothing(hands: Hands) -> None:
    """Attempts go to a newer start of their own worker only."""
    hands.start(hands.sweep())
    assert hands.store.sessions.open(newer(msgspec.structs.replace(hands.worker(), worker_id=new_uuid())), lease_s=60) == []


def test_session_renewal_tells_all_that_is_the_sessions(hands: Hands) -> None:
    """Placed, owned, to cancel, to prune; not what waits for a verdict, not what is another's."""
    session, other = hands.worker(slots=9), hands.worker()
    sweep = hands.sweep(6)
    plain, to_cancel, to_prune, failed = (hands.start(sweep, number, session) for number in range(4))
    placed = hands.place(hands.run_id(sweep, 4), session)
    hands.start(sweep, 5, other)
    assert hands.store.queue.request_cancel(to_cancel.run_id)
    assert hands.store.queue.request_prune(to_prune.run_id, "behind")
    hands.finish(failed, EXITED)
    answer = hands.store.sessions.renew(session.session_id, lease_s=60)
    assert answer is not None
    assert answer.placed == (PlacedRun(placed.run_id, 1),)
    assert set(answer.owned) == {OwnedRun(plain.run_id, 1), OwnedRun(to_cancel.run_id, 1, cancel=True), OwnedRun(to_prune.run_id, 1, prune=True)}
    assert hands.store.sessions.look(session.session_id) == answer


def test_session_renewal_tells_an_idle_worker_that_it_drains(hands: Hands) -> None:
    """Also a worker that holds nothing hears of it."""
    session = hands.worker()
    hands.store.sessions.drain(session.name)
    answer = hands.store.sessions.renew(session.session_id, lease_s=60)
    assert answer is not None
    assert (answer.draining, answer.owned, answer.placed) == (True, (), ())


def test_session_renewal_of_unknown_one_is_none(hands: Hands) -> None:
    """A session that nobody knows owns nothing."""
    assert hands.store.sessions.renew("no-such-session", lease_s=60) is None
    assert hands.store.sessions.look("no-such-session") is None


def test_session_that_was_fenced_is_told_so_and_not_that_it_owns_nothing(hands: Hands) -> None:
    """Or the older of two processes would stop what the newer one has adopted, the moment it looks."""
    sweep = hands.sweep(1)
    older = hands.worker()
    hands.start(sweep, 0, older)
    newer = hands.worker(worker_id=older.worker_id)
    assert hands.store.sessions.look(older.session_id) is None
    assert hands.store.sessions.renew(older.session_id, lease_s=60) is None
    answer = hands.store.sessions.look(newer.session_id)
    assert answer is not None
    assert [run.attempt for run in answer.owned] == [1]


def test_session_silent_until_it_renews(hands: Hands) -> None:
    """Past its lease a worker is silent, still adoptable; one renewal and it is back."""
    session = hands.worker()
    hands.change("UPDATE sessions SET lease_until = now() - interval '1 second' WHERE session_id = %(id)s", id=session.session_id)
    assert view(hands, session).silent
    assert hands.store.sessions.renew(session.session_id, lease_s=60) is not None
    assert not view(hands, session).silent


def test_session_close_gives_back_what_was_placed_and_keeps_what_runs(hands: Hands) -> None:
    """A worker that stops in order leaves its attempts running, to be adopted at its next start (I8)."""
    session = hands.worker()
    sweep = hands.sweep(2)
    held = hands.start(sweep, 0, session)
    placed = hands.place(hands.run_id(sweep, 1), session)
    hands.store.sessions.close(session.session_id)
    assert (hands.run_state(held.run_id), hands.run_state(placed.run_id)) == ("running", "queued")
    assert session.worker_id not in {worker.worker_id for worker in hands.store.sessions.workers()}
    assert view(hands, session).state == "ended"
    assert hands.store.sessions.open(newer(session), lease_s=60) == [held.claimed]


def test_session_close_twice_is_no_change(hands: Hands) -> None:
    """A repeat after a lost reply; and an older one's close does not end the newer."""
    session = hands.worker()
    live = newer(session)
    hands.store.sessions.open(live, lease_s=60)
    for _ in range(2):
        hands.store.sessions.close(session.session_id)
    assert state_of(hands, session.session_id) == "fenced"
    assert state_of(hands, live.session_id) == "live"


# -- lost -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("before", ["live", "ended", "fenced"])
def test_lost_attempts_wait_for_a_verdict(hands: Hands, before: str) -> None:
    """Silent for too long, whatever the session's state: its attempts are lost, told apart from failures, and judged."""
    session = hands.worker()
    held = hands.start(hands.sweep(), 0, session)
    child = hands.store.runs.create_external("0", fence=held.fence)
    hands.change("UPDATE sessions SET state = %(state)s WHERE session_id = %(id)s", state=before, id=session.session_id)
    assert hands.lose(session.session_id) == [session.session_id]
    assert state_of(hands, session.session_id) == ("lost" if before == "live" else before)
    due = hands.due(held.run_id)
    assert (due.cause, due.attempt, due.worker_id) == ("lost", 1, session.worker_id)
    (attempt,) = hands.store.attempts.list(held.run_id)
    assert (attempt.state, attempt.cause) == ("lost", "lost")
    assert hands.run_state(child.run_id) == "killed"
    assert hands.store.sessions.renew(session.session_id, lease_s=60) is None
    assert hands.lose() == []


def test_lost_only_when_silent_for_long_enough(hands: Hands) -> None:
    """A session past its lease keeps its attempts until the longer time is over."""
    session = hands.worker()
    held = hands.start(hands.sweep(), 0, session)
    hands.change(
        "UPDATE sessions SET lease_until = now() - interval '9 minutes', renewed_at = now() - interval '10 minutes' WHERE session_id = %(id)s",
        id=session.session_id,
    )
    assert session.session_id not in hands.lose()
    assert hands.store.sessions.renew(session.session_id, lease_s=60) is not None
    hands.finish(held)


def test_lost_attempt_reports_in_vain(hands: Hands) -> None:
    """A worker that comes back late is refused, and the next attempt is untouched."""
    session = hands.worker()
    held = hands.start(hands.sweep(), 0, session)
    hands.lose(session.session_id)
    assert hands.store.attempts.finish(held.run_id, 1, session.session_id, SUCCEEDED, finish_key=new_uuid()) is FinishAnswer.REFUSED
    assert hands.store.sessions.open(newer(session), lease_s=60) == []


def test_lost_after_a_cancel_is_cancelled(hands: Hands) -> None:
    """There is nothing left to stop, and nothing to try again."""
    session = hands.worker()
    held = hands.start(hands.sweep(), 0, session)
    assert hands.store.queue.request_cancel(held.run_id)
    hands.lose(session.session_id)
    due = hands.due(held.run_id)
    assert due.cancel
    assert not hands.store.queue.requeue(hands.epoch, due, delay_s=0, machinery=True, detail="again")
    assert hands.store.queue.cancel_verdict(hands.epoch, due)
    run = hands.store.runs.get(held.run_id)
    assert (run.state, run.cause) == ("cancelled", "cancelled")


def test_lost_after_a_limit_is_cancelled_for_that_cause(hands: Hands) -> None:
    """Over budget stays over budget, also when the worker did not live to stop the run (I7)."""
    session = hands.worker()
    sweep = hands.sweep()
    held = hands.start(sweep, 0, session)
    assert hands.store.sweeps.break_off(hands.epoch, sweep, event=SweepEvent.STOP, cause="over_budget", detail="too long")
    hands.lose(session.session_id)
    assert hands.store.queue.cancel_verdict(hands.epoch, hands.due(held.run_id))
    run = hands.store.runs.get(held.run_id)
    assert (run.state, run.cause) == ("cancelled", "over_budget")


def test_lost_requeue_yields_to_a_cancel_that_came_after_the_verdict(hands: Hands) -> None:
    """Judged, then cancelled, then requeued: such a run would wait for ever; it is judged again instead."""
    session = hands.worker()
    sweep = hands.sweep()
    held = hands.start(sweep, 0, session)
    hands.lose(session.session_id)
    due = hands.due(held.run_id)
    hands.store.sweeps.cancel(sweep.sweep_id)
    assert not hands.store.queue.requeue(hands.epoch, due, delay_s=0, machinery=True, detail="again")
    assert hands.due(held.run_id).cancel


@pytest.mark.parametrize(
    "gap",
    ["lease_until = now() - interval '1 second'", "suspended_until = now() + interval '1 minute'"],
    ids=["the leader has not renewed", "expiry is suspended"],
)
def test_lost_nobody_when_the_leader_cannot_tell(hands: Hands, gap: str) -> None:
    """A leader that wakes from a gap may ask before it knows of it: the database answers that it is too early (I4)."""
    session = hands.worker()
    hands.start(hands.sweep(), 0, session)
    hands.change(f"UPDATE leader SET {gap}")  # noqa: S608 -- the cases above
    assert hands.lose(session.session_id) == []
    assert state_of(hands, session.session_id) == "live"
    hands.change("UPDATE leader SET lease_until = now() + interval '1 minute', suspended_until = NULL")
    assert hands.lose() == [session.session_id]


# -- drain and cordon ----------------------------------------------------------------------------------------------------


def test_drain_by_name_or_id_and_back(hands: Hands) -> None:
    """A drained worker is shown as such, keeps what it runs, and can be taken back."""
    session = hands.worker()
    held = hands.start(hands.sweep(), 0, session)
    assert hands.store.sessions.drain(session.name).draining
    assert view(hands, session).running == (held.run_id,)
    assert not hands.store.sessions.drain(session.worker_id, draining=False).draining


def test_drain_of_unknown_worker_is_not_found(hands: Hands) -> None:
    """The name is in the message."""
    with pytest.raises(NotFound, match="nobody"):
        hands.store.sessions.drain("nobody")


def fault(hands: Hands, held: Held) -> bool:
    """Fail an attempt by the machinery's fault, count it against the worker, requeue the run; whether the worker was cordoned."""
    hands.finish(held, NOT_LAUNCHED)
    due = hands.due(held.run_id)
    assert due.worker_id is not None
    cordoned = hands.store.sessions.note_fault(hands.epoch, due.worker_id, held.run_id, limit=3, reason="three in a row")
    assert hands.store.queue.requeue(hands.epoch, due, delay_s=0, machinery=True, detail="again")
    return cordoned


def test_cordon_after_three_different_runs_in_a_row(hands: Hands) -> None:
    """The third run that can't be started cordons its worker, with the reason; a fresh start lifts it (I6)."""
    session = hands.worker()
    sweep = hands.sweep(3)
    assert [fault(hands, hands.start(sweep, number, session)) for number in range(3)] == [False, False, True]
    assert view(hands, session).cordoned == "three in a row"
    hands.store.sessions.open(newer(session), lease_s=60)
    assert view(hands, session).cordoned is None


def test_cordon_not_for_one_run_that_fails_again_and_again(hands: Hands) -> None:
    """One run that can't be started anywhere does not take the only worker away from all others."""
    session = hands.worker()
    sweep = hands.sweep()
    assert [fault(hands, hands.start(sweep, 0, session)) for _ in range(4)] == [False] * 4
    assert view(hands, session).cordoned is None


def test_cordon_not_for_a_sweep_that_starts_nowhere(hands: Hands) -> None:
    """Runs that could not be started on another worker either are to blame themselves: one broken sweep cordons one worker at most."""
    first, second = hands.worker(), hands.worker()
    sweep = hands.sweep(6)
    assert [fault(hands, hands.start(sweep, number, first)) for number in range(3)] == [False, False, True]
    assert [fault(hands, hands.start(sweep, number, second)) for number in range(6)] == [False] * 6
    assert view(hands, second).cordoned is None


def test_cordon_ends_after_ten_minutes(hands: Hands) -> None:
    """Then the worker is tried again, and the next fault cordons it anew."""
    session = hands.worker()
    sweep = hands.sweep(4)
    for number in range(3):
        fault(hands, hands.start(sweep, number, session))
    hands.change("UPDATE workers SET cordoned_at = now() - interval '11 minutes' WHERE worker_id = %(id)s", id=session.worker_id)
    assert view(hands, session).cordoned is None
    assert fault(hands, hands.start(sweep, 3, session))
    assert view(hands, session).cordoned is not None


@pytest.mark.parametrize("outcome", [SUCCEEDED, EXITED, STOPPED], ids=lambda outcome: outcome.verdict)
def test_cordon_not_when_a_run_that_started_came_between(hands: Hands, outcome: object) -> None:
    """In a row means in a row: a run that the machinery brought to its own end, good or bad, begins the count anew."""
    session = hands.worker()
    sweep = hands.sweep(5)
    faults = [fault(hands, hands.start(sweep, number, session)) for number in range(2)]
    hands.finish(hands.start(sweep, 2, session), outcome)  # type: ignore[arg-type]
    faults += [fault(hands, hands.start(sweep, number, session)) for number in range(3, 5)]
    assert faults == [False] * 4
    assert view(hands, session).cordoned is None


# -- the leader's seat ----------------------------------------------------------------------------------------------------


def test_leader_holds_the_seat_alone(store: Store) -> None:
    """One leads; others wait until it resigns or its lease runs out. Each leadership has an epoch of its own."""
    first = store.leader.acquire("a", lease_s=60, suspend_s=60)
    assert first is not None
    assert store.leader.acquire("b", lease_s=60, suspend_s=60) is None
    store.leader.resign("b", first.epoch)
    assert store.leader.acquire("b", lease_s=60, suspend_s=60) is None
    store.leader.resign("a", first.epoch)
    second = store.leader.acquire("b", lease_s=60, suspend_s=60)
    assert second is not None
    assert second.epoch > first.epoch
    assert store.leader.renew("a", first.epoch, lease_s=60, suspend_s=60) is None
    assert store.leader.renew("b", second.epoch, lease_s=60, suspend_s=60) == second


def test_leader_who_did_not_renew_is_replaced(store: Store) -> None:
    """Past its lease the seat is free, and the old leader finds out at its next renewal."""
    first = store.leader.acquire("a", lease_s=60, suspend_s=60)
    assert first is not None
    pass_time(store, 61)
    second = store.leader.acquire("b", lease_s=60, suspend_s=60)
    assert second is not None
    assert store.leader.renew("a", first.epoch, lease_s=60, suspend_s=60) is None


def pass_time(store: Store, seconds: float) -> None:
    """Let time pass for the leader's row."""
    with store.database.transaction() as tx:
        tx.execute(
            "UPDATE leader SET renewed_at = renewed_at - make_interval(secs => %(s)s), lease_until = lease_until - make_interval(secs => %(s)s), "
            "suspended_until = suspended_until - make_interval(secs => %(s)s)",
            {"s": seconds},
        )


def vacate(store: Store) -> None:
    """Free the seat as if somebody had led until just now: the first leader of a record that lay idle suspends expiry."""
    with store.database.transaction() as tx:
        tx.execute("UPDATE leader SET lease_until = now() - interval '1 millisecond', suspended_until = NULL")


def test_leader_gap_in_ticking_suspends_expiry_for_a_lease(store: Store) -> None:
    """After a gap workers speak first: nothing expires for `suspend_s`, then again (I4)."""
    vacate(store)
    won = store.leader.acquire("a", lease_s=5, suspend_s=60)
    assert won is not None
    assert not won.expiry_suspended

    def renew() -> bool:
        renewed = store.leader.renew("a", won.epoch, lease_s=5, suspend_s=60)
        assert renewed is not None
        return renewed.expiry_suspended

    pass_time(store, 9)
    assert not renew(), "a hiccup is no gap"
    pass_time(store, 11)
    assert renew()
    for _ in range(11):
        pass_time(store, 5)
        assert renew()
    pass_time(store, 6)
    assert not renew()


def test_leader_who_was_refused_something_suspends_expiry_for_a_lease(store: Store) -> None:
    """Its own row could be written, those of workers perhaps not: an outage that is no gap in its ticking (I4)."""
    vacate(store)
    won = store.leader.acquire("a", lease_s=5, suspend_s=60)
    assert won is not None
    for had_outage, suspended in ((False, False), (True, True), (False, True)):
        pass_time(store, 1)
        renewed = store.leader.renew("a", won.epoch, lease_s=5, suspend_s=60, had_outage=had_outage)
        assert renewed is not None
        assert renewed.expiry_suspended is suspended


@pytest.mark.parametrize("away_s, suspended", [(2, False), (3600, True)], ids=["handed over", "nobody led for an hour"])
def test_leader_who_takes_over_suspends_expiry_only_after_a_gap(store: Store, away_s: float, suspended: bool) -> None:
    """A hand-over is no outage; a long vacancy is."""
    vacate(store)
    first = store.leader.acquire("a", lease_s=5, suspend_s=60)
    assert first is not None
    store.leader.resign("a", first.epoch)
    pass_time(store, away_s)
    second = store.leader.acquire("b", lease_s=5, suspend_s=60)
    assert second is not None
    assert second.expiry_suspended is suspended
