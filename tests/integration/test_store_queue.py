"""Managed runs between creation and attempt: placed, taken back, judged; and that only the leader moves them."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.support.record import EXITED, NOT_LAUNCHED, Hands, both
from tracking.errors import Contradiction, NotFound
from tracking.ids import new_uuid
from tracking.queries import trials as trial_sql
from tracking.records import Launch, NewTrial, Outcome, PlacedRun, Resources, Retry
from tracking.states import SweepEvent
from tracking.store import Store
from tracking.store.leader import NotLeader
from tracking.store.queue import DueVerdict, Placement


def waiting(hands: Hands, sweep_id: str) -> list[str]:
    """A sweep's runs that wait to be placed, in order."""
    return [run.run_id for run in hands.store.queue.waiting() if run.sweep_id == sweep_id]


def take_back(hands: Hands, timeout_s: float = 15) -> list[str]:
    """What is overdue now."""
    return hands.store.queue.take_back_overdue(hands.epoch, timeout_s)


def age_placement(hands: Hands, run_id: str, seconds: float) -> None:
    """Let time pass since a run was placed."""
    hands.change("UPDATE runs SET placed_at = placed_at - make_interval(secs => %(s)s) WHERE run_id = %(id)s", s=seconds, id=run_id)


# -- place -----------------------------------------------------------------------------------------------------


def test_waiting_tells_what_placement_needs(hands: Hands) -> None:
    """Queue, priority, user, limits and resources come with the run, by number within a sweep."""
    resources = Resources(cpus=2.5, gpus=1, memory_bytes=7, image="i")
    sweep = hands.sweep(3, launch=Launch(resources=resources), queue="gpu", priority=70, parallel=2, user_name="ann")
    runs = [run for run in hands.store.queue.waiting() if run.sweep_id == sweep.sweep_id]
    assert [run.run_id for run in runs] == [hands.run_id(sweep, number) for number in range(3)]
    assert {(r.queue, r.priority, r.parallel, r.user_name, r.resources, r.avoid_workers) for r in runs} == {("gpu", 70, 2, "ann", resources, ())}


def test_waiting_is_by_priority_then_age(hands: Hands) -> None:
    """Urgent ones first, then those that have waited longest."""
    low, high, low_too = (hands.sweep(priority=priority) for priority in (-7, 999, -7))
    ids = {sweep.sweep_id: sweep for sweep in (low, high, low_too)}
    assert [run.sweep_id for run in hands.store.queue.waiting() if run.sweep_id in ids] == [high.sweep_id, low.sweep_id, low_too.sweep_id]


def test_place_numbers_placements(hands: Hands) -> None:
    """Each placement of a run has a number of its own, and shows on its worker."""
    sweep, worker = hands.sweep(), hands.worker()
    first = hands.place(hands.run_id(sweep), worker)
    assert hands.store.queue.refuse(worker.session_id, PlacedRun(first.run_id, 1), "draining")
    second = hands.place(hands.run_id(sweep), worker)
    assert (first.placement, second.placement) == (1, 2)
    (held,) = [held for held in hands.store.queue.held() if held.run_id == first.run_id]
    assert (held.session_id, held.state) == (worker.session_id, "placed")
    assert waiting(hands, sweep.sweep_id) == []


def test_place_leaves_out_what_changed_meanwhile(hands: Hands) -> None:
    """Placed already, ended, its sweep paused, its worker gone: none of these is placed, the others are."""
    sweep, paused = hands.sweep(3), hands.sweep()
    worker, gone = hands.worker(), hands.worker()
    placed, dropped, free = (hands.run_id(sweep, number) for number in range(3))
    hands.place(placed, worker)
    assert hands.store.queue.request_cancel(dropped)
    hands.store.sweeps.pause(paused.sweep_id)
    hands.store.sessions.close(gone.session_id)
    tries = [(placed, worker), (dropped, worker), (hands.run_id(paused), worker), (free, gone), ("no-such-run", worker)]
    assert hands.store.queue.place(hands.epoch, [Placement(run_id, w.session_id, w.worker_id) for run_id, w in tries]) == []
    assert hands.place(free, worker).placement == 1


def test_place_at_once_by_two_is_won_once(hands: Hands) -> None:
    """The same run to two workers at the same moment."""
    run_id = hands.run_id(hands.sweep())
    one, other = hands.worker(), hands.worker()
    answers = both(*[lambda w=w: hands.store.queue.place(hands.epoch, [Placement(run_id, w.session_id, w.worker_id)]) for w in (one, other)])
    assert sorted(map(len, answers)) == [0, 1]


def test_place_nothing_is_nothing(hands: Hands) -> None:
    """No placements, no transaction."""
    assert hands.store.queue.place(0, []) == []


# -- take back ---------------------------------------------------------------------------------------------------


def test_overdue_placement_waits_again(hands: Hands) -> None:
    """Not claimed in time although a slot is free: placed anew. Before that it is left alone."""
    sweep = hands.sweep()
    placed = hands.place(hands.run_id(sweep), hands.worker())
    assert placed.run_id not in take_back(hands)
    age_placement(hands, placed.run_id, 16)
    assert placed.run_id in take_back(hands)
    assert waiting(hands, sweep.sweep_id) == [placed.run_id]
    event = hands.store.runs.events(placed.run_id)[-1]
    assert (event.event, event.from_state, event.to_state) == ("unplace", "placed", "queued")
    assert event.worker_id is not None


def test_overdue_claim_of_the_old_placement_is_refused(hands: Hands) -> None:
    """The message that was lost arrives after all, too late."""
    sweep, worker = hands.sweep(), hands.worker()
    placed = hands.place(hands.run_id(sweep), worker)
    age_placement(hands, placed.run_id, 16)
    take_back(hands)
    assert hands.store.attempts.claim(placed.run_id, 1, worker.session_id, claim_id="late", secret_hash="") is None


def test_overdue_not_while_placed_ahead_of_full_slots(hands: Hands) -> None:
    """A run placed ahead waits for a slot without limit, as long as no other worker has one; its time counts from when one frees (D3)."""
    worker = hands.worker(slots=1, queues=("lonely",))
    sweep = hands.sweep(2, queue="lonely")
    held = hands.start(sweep, 0, worker)
    ahead = hands.place(hands.run_id(sweep, 1), worker)
    age_placement(hands, ahead.run_id, 3600)
    assert ahead.run_id not in take_back(hands)
    hands.finish(held)
    assert ahead.run_id not in take_back(hands)
    hands.change("UPDATE sessions SET slot_freed_at = now() - interval '16 seconds' WHERE session_id = %(id)s", id=worker.session_id)
    assert ahead.run_id in take_back(hands)


def test_take_back_of_what_has_stood_placed_for_long(hands: Hands) -> None:
    """A run placed ahead is told of once its time is over, and waits again when it is taken back, once."""
    worker = hands.worker(slots=1, queues=("behind",))
    sweep = hands.sweep(2, queue="behind")
    hands.start(sweep, 0, worker)
    ahead = hands.place(hands.run_id(sweep, 1), worker)
    long_placed = {each.run.run_id: each for each in hands.store.queue.placed_long(15)}
    assert ahead.run_id not in long_placed
    age_placement(hands, ahead.run_id, 16)
    long_placed = {each.run.run_id: each for each in hands.store.queue.placed_long(15)}
    each = long_placed[ahead.run_id]
    assert (each.placement, each.session_id, each.run.queue) == (ahead.placement, worker.session_id, "behind")
    assert [hands.store.queue.take_back(hands.epoch, each, "room elsewhere") for _ in range(2)] == [True, False]
    assert waiting(hands, sweep.sweep_id) == [ahead.run_id]
    assert hands.store.runs.events(ahead.run_id)[-1].detail == "room elsewhere"


def test_take_back_comes_too_late_for_a_claimed_run(hands: Hands) -> None:
    """The slot became free while the scheduler thought."""
    worker = hands.worker(slots=1)
    sweep = hands.sweep()
    placed = hands.place(hands.run_id(sweep), worker)
    age_placement(hands, placed.run_id, 16)
    (each,) = [each for each in hands.store.queue.placed_long(15) if each.run.run_id == placed.run_id]
    assert hands.store.attempts.claim(placed.run_id, placed.placement, placed.session_id, claim_id=new_uuid(), secret_hash="h") is not None
    assert not hands.store.queue.take_back(hands.epoch, each, "room elsewhere")
    assert hands.run_state(placed.run_id) == "running"


def test_drain_takes_back_what_was_placed_and_not_claimed(hands: Hands) -> None:
    """It would wait for the worker's running ones, and then not be claimed."""
    worker = hands.worker(slots=1)
    sweep = hands.sweep(2)
    running = hands.start(sweep, 0, worker)
    ahead = hands.place(hands.run_id(sweep, 1), worker)
    hands.store.sessions.drain(worker.worker_id)
    assert (hands.run_state(running.run_id), hands.run_state(ahead.run_id)) == ("running", "queued")


def test_waiting_leaves_out_queues_that_nobody_serves(hands: Hands) -> None:
    """However many runs wait there, they hide nothing."""
    crowd, sweep = hands.sweep(20, queue="nobody", priority=50), hands.sweep(1)
    assert crowd.sweep_id not in {run.sweep_id for run in hands.store.queue.waiting({"default"})}
    assert sweep.sweep_id in {run.sweep_id for run in hands.store.queue.waiting({"default"})}


def test_claim_is_refused_while_the_sweep_is_paused(hands: Hands) -> None:
    """A placement that a pause could not take back, because its row was locked just then, starts nothing."""
    sweep = hands.sweep()
    placed = hands.place(hands.run_id(sweep), hands.worker())
    hands.change("UPDATE sweeps SET state = 'paused' WHERE sweep_id = %(id)s", id=sweep.sweep_id)
    assert hands.store.attempts.claim(placed.run_id, placed.placement, placed.session_id, claim_id=new_uuid(), secret_hash="h") is None
    assert hands.run_state(placed.run_id) == "placed"


@pytest.mark.parametrize("gone", ["state = 'ended'", "state = 'lost'", "lease_until = now() - interval '1 second'"])
def test_overdue_at_once_when_the_worker_went_away(hands: Hands, gone: str) -> None:
    """A session that is over or silent claims nothing in time, even when its slots are full."""
    worker = hands.worker(slots=1)
    sweep = hands.sweep(2)
    hands.start(sweep, 0, worker)
    ahead = hands.place(hands.run_id(sweep, 1), worker)
    hands.change(f"UPDATE sessions SET {gone} WHERE session_id = %(id)s", id=worker.session_id)  # noqa: S608 -- the cases above
    assert ahead.run_id in take_back(hands)


def test_refuse_gives_back_only_this_placement(hands: Hands) -> None:
    """A worker gives back what it was given: not another's, not an older one, not what runs."""
    sweep, worker = hands.sweep(2), hands.worker()
    placed = hands.place(hands.run_id(sweep), worker)
    assert not hands.store.queue.refuse(hands.worker().session_id, PlacedRun(placed.run_id, 1), "no")
    assert not hands.store.queue.refuse(worker.session_id, PlacedRun(placed.run_id, 2), "no")
    assert hands.store.queue.refuse(worker.session_id, PlacedRun(placed.run_id, 1), "draining")
    held = hands.start(sweep, 1, worker)
    assert not hands.store.queue.refuse(worker.session_id, PlacedRun(held.run_id, 1), "no")


# -- verdicts ------------------------------------------------------------------------------------------------------


def test_requeue_waits_backs_off_and_avoids_the_worker(hands: Hands) -> None:
    """The next attempt is not before its time, and placement knows where it failed (I6)."""
    sweep, worker = hands.sweep(), hands.worker()
    held = hands.start(sweep, 0, worker)
    hands.finish(held, NOT_LAUNCHED)
    due = hands.due(held.run_id)
    assert hands.store.queue.requeue(hands.epoch, due, delay_s=3600, machinery=True, detail="again")
    assert not hands.store.queue.requeue(hands.epoch, due, delay_s=0, machinery=True, detail="twice")
    assert waiting(hands, sweep.sweep_id) == []
    hands.change("UPDATE runs SET not_before = now() WHERE run_id = %(id)s", id=held.run_id)
    (run,) = [run for run in hands.store.queue.waiting() if run.run_id == held.run_id]
    assert run.avoid_workers == (worker.worker_id,)
    again = hands.claim(hands.place(held.run_id, worker))
    assert again.attempt == 2
    hands.finish(again, NOT_LAUNCHED)
    assert hands.due(held.run_id).machinery_faults == 1


@pytest.mark.parametrize("machinery", [False, True])
def test_requeue_after_a_stop_is_the_machinerys_alone(hands: Hands, *, machinery: bool) -> None:
    """The stop came between the verdict and its writing: the user's own failure is not tried again, the machinery's is made good."""
    sweep, worker = hands.sweep(), hands.worker()
    held = hands.start(sweep, 0, worker)
    hands.finish(held, EXITED)
    due = hands.due(held.run_id)
    hands.store.sweeps.stop(sweep.sweep_id)
    assert hands.store.queue.requeue(hands.epoch, due, delay_s=0, machinery=machinery, detail="again") == machinery
    assert hands.run_state(held.run_id) == ("queued" if machinery else "running")


def test_requeue_on_the_users_budget_spends_that_one(hands: Hands) -> None:
    """The user's retry neither counts as a fault of the machinery nor avoids the worker (I6)."""
    held = hands.start(hands.sweep())
    hands.finish(held, EXITED)
    assert hands.store.queue.requeue(hands.epoch, hands.due(held.run_id), delay_s=0, machinery=False, detail="again")
    (run,) = [run for run in hands.store.queue.waiting() if run.run_id == held.run_id]
    assert run.avoid_workers == ()
    spent = "SELECT machinery_faults, user_retries FROM runs WHERE run_id = %(id)s"
    assert tuple(hands.sql(spent, id=held.run_id)[0]) == (0, 1)
    again = hands.retry(hands.claim(hands.place(held.run_id, hands.worker())))
    assert tuple(hands.sql(spent, id=held.run_id)[0]) == (1, 1)
    hands.finish(again, EXITED)
    assert (hands.due(held.run_id).machinery_faults, hands.due(held.run_id).user_retries) == (1, 1)


def test_verdict_is_thought_out_over_the_end_and_the_files_budget(hands: Hands) -> None:
    """What `retry:` and the attempt say is what the scheduler decides on."""
    retry = Retry(2, ("exit_1",), 3.0, 7.0)
    sweep = hands.sweep(2, retry=retry)
    exited, killed = hands.start(sweep, 0), hands.start(sweep, 1)
    hands.finish(exited, EXITED)
    hands.finish(killed, Outcome("failed", "signal", signal=9))
    first, second = hands.due(exited.run_id), hands.due(killed.run_id)
    assert (first.exit_status, first.signal, second.exit_status, second.signal) == (1, None, None, 9)
    assert (first.retry, first.user_retries, first.is_stopping) == (retry, 0, False)
    hands.store.sweeps.stop(sweep.sweep_id)
    assert hands.due(exited.run_id).is_stopping


def test_verdict_of_an_earlier_attempt_is_void(hands: Hands) -> None:
    """Thought out for attempt 1, spoken after attempt 2 began: without effect."""
    held = hands.start(hands.sweep())
    hands.finish(held, NOT_LAUNCHED)
    old = hands.due(held.run_id)
    assert hands.store.queue.requeue(hands.epoch, old, delay_s=0, machinery=True, detail="again")
    second = hands.claim(hands.place(held.run_id, hands.worker()))
    hands.finish(second, NOT_LAUNCHED)
    for speak in (hands.store.queue.fail, hands.store.queue.cancel_verdict):
        assert not speak(hands.epoch, old)
    assert hands.due(held.run_id).attempt == 2


@pytest.mark.parametrize("state", ["queued", "placed", "running", "finished"])
def test_request_cancel_does_what_the_state_allows(hands: Hands, state: str) -> None:
    """What waits ends at once, what runs is asked to stop, what has ended is left alone; the history says from where."""
    sweep = hands.sweep()
    run_id = hands.run_id(sweep)
    held = None
    if state in ("placed", "running", "finished"):
        placed = hands.place(run_id, hands.worker())
        held = hands.claim(placed) if state != "placed" else None
    if held is not None and state == "finished":
        hands.finish(held)
    assert hands.store.queue.request_cancel(run_id) is (state != "finished")
    assert not hands.store.queue.request_cancel(run_id)
    expected = {"queued": "cancelled", "placed": "cancelled"}.get(state, state)
    assert hands.run_state(run_id) == expected
    last = hands.store.runs.events(run_id)[-1]
    told = {"queued": ("drop", "queued", "cancelled"), "placed": ("drop", "placed", "cancelled"), "running": ("cancel_requested", None, None)}
    assert (last.event, last.from_state, last.to_state) == told.get(state, ("finish", "running", "finished"))


def test_request_prune_only_what_runs(hands: Hands) -> None:
    """A run that waits or has ended can't be stopped early."""
    run_id = hands.run_id(hands.sweep())
    assert not hands.store.queue.request_prune(run_id, "behind")
    held = hands.claim(hands.place(run_id, hands.worker()))
    hands.finish(held)
    assert not hands.store.queue.request_prune(run_id, "behind")


# -- trials ----------------------------------------------------------------------------------------------------------


def test_trials_create_writes_trial_run_params_and_history_together(hands: Hands) -> None:
    """One transaction: the trial, its queued run, its parameters as text, its first event (D2)."""
    sweep = hands.sweep(0)
    params = {"lr": 1e-5, "layers": [1, {"a": None}], "act": "relu", "bias": True}
    assert hands.store.trials.create(hands.epoch, sweep, [NewTrial(0, params, ("run", "it"), seed=2**32 - 1, attrs={"point": {"lr": 0.5}})])
    trial = hands.store.trials.get(sweep.sweep_id, 0)
    assert (trial.params, trial.attrs, trial.state, trial.run_state, trial.attempts) == (params, {"point": {"lr": 0.5}}, "open", "queued", 0)
    run = hands.store.runs.get(trial.run_id)
    assert (run.kind, run.name, run.argv, run.parent_run_id, run.trial_number) == ("managed", f"{sweep.short_id}/0", ("run", "it"), sweep.sweep_id, 0)
    data = hands.store.runs.data(trial.run_id)
    assert data.params == {"lr": "1e-05", "layers": '[1,{"a":null}]', "act": "relu", "bias": "True"}
    assert data.tags["mlflow.parentRunId"] == sweep.sweep_id
    assert [(e.event, e.to_state) for e in hands.store.runs.events(trial.run_id)] == [("queue", "queued")]


def test_trials_create_refuses_a_number_that_exists(hands: Hands) -> None:
    """A scheduler that lost count can't double a trial, and writes nothing of the rest either."""
    sweep = hands.sweep(2)
    with pytest.raises(Contradiction):
        hands.add_trials(sweep, [1, 2])
    assert [trial.number for trial in hands.store.trials.list(sweep.sweep_id)] == [0, 1]
    assert hands.store.trials.next_number(sweep.sweep_id) == 2


@pytest.mark.parametrize("move", ["pause", "stop", "cancel"])
def test_trials_create_is_refused_once_the_sweep_takes_none(hands: Hands, move: str) -> None:
    """Paused or stopped meanwhile: the proposal is not written."""
    sweep = hands.sweep(0)
    getattr(hands.store.sweeps, move)(sweep.sweep_id)
    assert not hands.store.trials.create(hands.epoch, sweep, [NewTrial(0, {}, (), seed=0)])
    assert hands.store.trials.list(sweep.sweep_id) == []


def test_trials_conclude_tells_each_end_once_in_order_without_gaps(hands: Hands) -> None:
    """Ends are numbered in the order in which they are told, across calls; nothing is told twice (I2)."""
    sweep = hands.sweep(6, metric_name="loss")
    told: list[tuple[int, int | None]] = []

    def conclude() -> None:
        told.extend((trial.number, trial.told_seq) for trial in hands.store.trials.conclude(hands.epoch, sweep.sweep_id))

    conclude()
    for group in ([3, 1], [0], []):
        for number in group:
            held = hands.start(sweep, number)
            hands.log(held, "loss", float(number))
            hands.finish(held)
        assert (sweep.sweep_id in hands.store.trials.sweeps_with_ended()) is bool(group)
        conclude()
        conclude()
    hands.store.sweeps.cancel(sweep.sweep_id)
    conclude()
    assert told == [(3, 1), (1, 2), (0, 3), (2, 4), (4, 5), (5, 6)]
    trials = hands.store.trials.list(sweep.sweep_id)
    assert [(t.state, t.value, t.cause) for t in trials] == [
        *[("finished", float(n), "completed") for n in (0, 1)],
        ("cancelled", None, "cancelled"),
        ("finished", 3.0, "completed"),
        *[("cancelled", None, "cancelled")] * 2,
    ]
    events = [(e.event, e.from_state, e.to_state) for e in hands.store.sweeps.events(sweep.sweep_id) if e.subject == "trial"]
    assert events == [("finish", "open", "finished")] * 3 + [("cancel", "open", "cancelled")] * 3


def test_trials_conclude_at_once_by_two_tells_once(hands: Hands) -> None:
    """Two concluders at the same moment share the ends between them."""
    sweep = hands.sweep(4)
    for number in range(4):
        hands.finish(hands.start(sweep, number))
    one, other = both(*[lambda: hands.store.trials.conclude(hands.epoch, sweep.sweep_id)] * 2)
    assert sorted(trial.told_seq or 0 for trial in [*one, *other]) == [1, 2, 3, 4]


def test_trials_conclude_under_way_leaves_no_gap_for_the_next(hands: Hands) -> None:
    """A concluder that waits for another one finds nothing left, and counts nothing."""
    sweep = hands.sweep(3)
    for number in range(3):
        hands.finish(hands.start(sweep, number))
    with ThreadPoolExecutor(1) as pool:
        with hands.store.database.transaction() as tx:
            assert len(tx.rows(trial_sql.CONCLUDE, {"sweep_id": sweep.sweep_id, "impute": None})) == 3
            late = pool.submit(hands.store.trials.conclude, hands.epoch, sweep.sweep_id)
            hands.wait_for_blocked()
        assert late.result(60) == []
    assert [row.told_seq for row in hands.sql("SELECT told_seq FROM sweeps WHERE sweep_id = %(id)s", id=sweep.sweep_id)] == [3]


def test_trials_get_of_unknown_number_is_not_found(hands: Hands) -> None:
    """The number is in the message."""
    with pytest.raises(NotFound, match="7"):
        hands.store.trials.get(hands.sweep().sweep_id, 7)


def test_trials_best_by_goal_ties_by_number_others_never(hands: Hands) -> None:
    """Lowest or highest value, the earlier trial of equals; failed, pruned and open ones never win (D8)."""
    for goal, expected in (("minimize", [1, 3, 0, 2]), ("maximize", [2, 0, 1, 3])):
        sweep = hands.sweep(6, metric_name="loss", metric_goal=goal)
        hands.conclude(sweep, n0=2.0, n1=1.0, n2=5.0, n3=1.0)
        failed = hands.start(sweep, 4)
        hands.log(failed, "loss", -99.0 if goal == "minimize" else 99.0)
        hands.finish(failed, EXITED)
        assert hands.store.queue.fail(hands.epoch, hands.due(failed.run_id))
        hands.store.trials.conclude(hands.epoch, sweep.sweep_id)
        assert [t.number for t in hands.store.trials.best(sweep.sweep_id, top=9)] == expected
        assert [t.number for t in hands.store.trials.best(sweep.sweep_id)] == expected[:1]
        assert [t.number for t in hands.store.trials.list(sweep.sweep_id, sort="value")] == [*expected, 4, 5]


def test_trials_best_handles_infinities(hands: Hands) -> None:
    """Infinite values are values: the worst ones rank last, the best first."""
    sweep = hands.sweep(3, metric_name="loss")
    hands.conclude(sweep, n0=float("inf"), n1=1.0, n2=float("-inf"))
    assert [t.number for t in hands.store.trials.best(sweep.sweep_id, top=3)] == [2, 1, 0]


def test_trials_list_filters_and_pages(hands: Hands) -> None:
    """By state, by number, in pages; the running ones apart."""
    sweep = hands.sweep(5)
    hands.conclude(sweep, n1=0.0, n3=0.0)
    hands.start(sweep, 2)
    numbers = [t.number for t in hands.store.trials.list(sweep.sweep_id, states=["finished"])]
    assert numbers == [1, 3]
    assert [t.number for t in hands.store.trials.list(sweep.sweep_id, limit=2, offset=1)] == [1, 2]
    (running,) = hands.store.trials.running(sweep.sweep_id)
    assert (running.number, running.attempts, running.worker_name is not None) == (2, 1, True)


# -- only the leader ---------------------------------------------------------------------------------------------------

DUE = DueVerdict("r", 1, "s", 0, "w", "lost", "", 0, cancel=False, prune=False)
WRITES: dict[str, Callable[[Store, int, Any], object]] = {
    "create": lambda store, epoch, sweep: store.trials.create(epoch, sweep, [NewTrial(0, {}, (), seed=0)]),
    "conclude": lambda store, epoch, sweep: store.trials.conclude(epoch, sweep.sweep_id),
    "place": lambda store, epoch, _: store.queue.place(epoch, [Placement("r", "s", "w")]),
    "take_back_overdue": lambda store, epoch, _: store.queue.take_back_overdue(epoch, 15),
    "requeue": lambda store, epoch, _: store.queue.requeue(epoch, DUE, delay_s=0, machinery=True, detail=""),
    "fail": lambda store, epoch, _: store.queue.fail(epoch, DUE),
    "cancel_verdict": lambda store, epoch, _: store.queue.cancel_verdict(epoch, DUE),
    "lose_silent": lambda store, epoch, _: store.sessions.lose_silent(epoch, 900),
    "note_fault": lambda store, epoch, _: store.sessions.note_fault(epoch, "w", "r", limit=3, reason=""),
    "break_off": lambda store, epoch, sweep: store.sweeps.break_off(epoch, sweep, event=SweepEvent.FAIL, cause="over_budget", detail=""),
    "finish": lambda store, epoch, sweep: store.sweeps.finish(epoch, sweep, event=SweepEvent.FINISH, cause="completed", detail=None),
}


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_leader_of_an_old_epoch_writes_nothing(hands: Hands, write: Callable[[Store, int, Any], object]) -> None:
    """A scheduler that was replaced while it thought is told so at its next write, whatever it is."""
    sweep = hands.sweep(0)
    before = hands.sql("SELECT count(*) FROM events")
    with pytest.raises(NotLeader):
        write(hands.store, hands.epoch - 1, sweep)
    assert hands.sql("SELECT count(*) FROM events") == before
    write(hands.store, hands.epoch, sweep)
