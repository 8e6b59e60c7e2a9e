"""Sweeps: submitted once, steered by hand, found by many names, ended and registered once."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.support.record import EXITED, SUCCEEDED, Hands, both
from tracking.errors import Contradiction, InvalidValue, NotFound, NotNow
from tracking.ids import new_uuid
from tracking.queries import queue as queue_sql
from tracking.records import Launch, NewSweep, Resources, Sweep, SweepCounts
from tracking.states import SweepEvent
from tracking.store import Store


def new_sweep(**fields: Any) -> NewSweep:
    """A submission."""
    given: dict[str, Any] = {"name": "s", "experiment": "question", "config": {}, "source": "", "launch": Launch()}
    return NewSweep(**{**given, **fields})


def run_states(hands: Hands, sweep: Sweep) -> list[str]:
    """Where a sweep's runs stand, by trial."""
    return [trial.run_state for trial in hands.store.trials.list(sweep.sweep_id)]


def finish(hands: Hands, sweep: Sweep, **fields: Any) -> bool:
    """End a sweep as the scheduler does."""
    return hands.store.sweeps.finish(hands.epoch, sweep, **{"event": SweepEvent.FINISH, "cause": "completed", "detail": None, **fields})


# -- submit --------------------------------------------------------------------------------------------------


def test_submit_keeps_everything_and_opens_the_parent_run(hands: Hands) -> None:
    """What was submitted is read back as it was, numbers exactly; the parent run is an MLflow run of the experiment."""
    config = {"big": 1e22, "int": 2**60, "text": "ü\\", "none": None, "nested": [{"a": [1.0]}]}
    launch = Launch(code_digest="d", env={"A": "b"}, resources=Resources(cpus=0.5, image="i"), metric_keys=("loss",), trial_time_s=5)
    new = new_sweep(
        name="mine",
        experiment="submit",
        config=config,
        source="a: 1\n",
        launch=launch,
        metric_name="loss",
        metric_goal="maximize",
        metric_from="best",
        queue="gpu",
        priority=9,
        parallel=3,
        description="why",
        user_name="ann",
        tags={"team": "x"},
    )
    sweep = hands.store.sweeps.submit(new)
    assert hands.store.sweeps.get(sweep.sweep_id) == sweep
    assert (sweep.config, sweep.launch, sweep.source, sweep.state) == (config, launch, "a: 1\n", "active")
    assert (sweep.metric_name, sweep.metric_goal, sweep.metric_from) == ("loss", "maximize", "best")
    assert (sweep.queue, sweep.priority, sweep.parallel, sweep.user_name) == ("gpu", 9, 3, "ann")
    parent = hands.store.runs.get(sweep.sweep_id)
    assert (parent.kind, parent.state, parent.name) == ("sweep", "running", "mine")
    assert hands.store.experiments.get(parent.experiment_id).name == "submit"
    tags = hands.store.runs.data(sweep.sweep_id).tags
    assert (tags["team"], tags["mlflow.note.content"], tags["mlflow.user"]) == ("x", "why", "ann")
    (event,) = hands.store.sweeps.events(sweep.sweep_id)
    assert (event.subject, event.event, event.to_state) == ("sweep", "submit", "active")


def test_submit_again_gives_the_same_sweep(hands: Hands) -> None:
    """A client that lost the answer asks again, and gets what it got; another id is another sweep."""
    submission_id = new_uuid()
    first = hands.store.sweeps.submit(new_sweep(submission_id=submission_id))
    second = hands.store.sweeps.submit(new_sweep(submission_id=submission_id, name="other"))
    third = hands.store.sweeps.submit(new_sweep())
    assert first == second
    assert third.sweep_id != first.sweep_id


def test_submit_twice_at_once_gives_one_sweep(hands: Hands) -> None:
    """Two requests of one submission at the same moment."""
    for _ in range(5):
        new = new_sweep(submission_id=new_uuid(), experiment=new_uuid())
        one, other = both(*[lambda new=new: hands.store.sweeps.submit(new)] * 2)
        assert one == other


def test_submit_to_one_new_experiment_twice_at_once_creates_it_once(hands: Hands) -> None:
    """Two submissions that both find the experiment missing."""
    for _ in range(5):
        name = new_uuid()
        one, other = both(*[lambda name=name: hands.store.sweeps.submit(new_sweep(experiment=name))] * 2)
        assert one.sweep_id != other.sweep_id
        assert one.experiment_id == other.experiment_id


def test_submit_short_id_that_is_taken_is_not_given_again(hands: Hands, monkeypatch: pytest.MonkeyPatch) -> None:
    """Short ids are random and few: the next free one is taken."""
    ids = iter(["brave-otter-0000", "brave-otter-0000", "brave-otter-0001"])
    monkeypatch.setattr("tracking.store.sweeps.new_short_id", lambda: next(ids))
    assert [hands.sweep(0).short_id for _ in range(2)] == ["brave-otter-0000", "brave-otter-0001"]


# -- references ---------------------------------------------------------------------------------------------------


def test_get_by_id_short_id_name_and_prefix(hands: Hands) -> None:
    """All the names of a sweep lead to it."""
    sweep = hands.sweep(0, name=f"digits {new_uuid()}")
    for ref in (sweep.sweep_id, sweep.short_id, sweep.name, sweep.sweep_id[:20], sweep.short_id[:-1]):
        assert hands.store.sweeps.get(ref).sweep_id == sweep.sweep_id, ref


def test_get_by_a_few_characters_finds_nothing(hands: Hands) -> None:
    """`9/7` is to be no trial of the sweep whose id happens to begin with 9."""
    sweep = hands.sweep(8)
    for ref in (sweep.sweep_id[:1], sweep.sweep_id[:5], sweep.short_id[:3]):
        with pytest.raises(NotFound):
            hands.store.sweeps.get(ref)
        with pytest.raises(NotFound):
            hands.store.runs.resolve(f"{ref}/7")
    assert hands.store.sweeps.get(sweep.sweep_id[:6]).sweep_id == sweep.sweep_id


def test_get_by_name_is_the_newest_of_that_name(hands: Hands) -> None:
    """Names repeat; the last one is meant."""
    name = new_uuid()
    sweeps = [hands.sweep(0, name=name) for _ in range(3)]
    assert hands.store.sweeps.get(name).sweep_id == sweeps[-1].sweep_id


def test_get_by_whole_name_before_prefix(hands: Hands) -> None:
    """A sweep whose name is the beginning of another's id is still found."""
    other = hands.sweep(0)
    named = hands.sweep(0, name=other.sweep_id[:8])
    assert hands.store.sweeps.get(other.sweep_id[:8]).sweep_id == named.sweep_id


def test_get_by_prefix_of_several_is_refused(hands: Hands, monkeypatch: pytest.MonkeyPatch) -> None:
    """An ambiguous prefix says so."""
    ids = iter(["tidy-whale-1111", "tidy-whale-1112"])
    monkeypatch.setattr("tracking.store.sweeps.new_short_id", lambda: next(ids))
    hands.sweep(0), hands.sweep(0)
    with pytest.raises(InvalidValue, match="More than one"):
        hands.store.sweeps.get("tidy-whale")


@pytest.mark.parametrize("ref", ["", "no-such-sweep", "%", "_", "@first", "a/b"])
def test_get_of_unknown_is_not_found(hands: Hands, ref: str) -> None:
    """Also what means something to LIKE, and nothing at all."""
    with pytest.raises(NotFound):
        hands.store.sweeps.get(ref)


def test_get_of_text_no_name_can_hold_is_an_invalid_value(hands: Hands) -> None:
    """A NUL from a URL is no reason for a traceback."""
    with pytest.raises(InvalidValue):
        hands.store.sweeps.get("a\0b")


def test_get_latest(store: Store) -> None:
    """`@latest` is the newest of all; on an empty record the hint says how to begin."""
    with pytest.raises(NotFound, match="no sweep yet"):
        store.sweeps.get("@latest")
    hands = Hands(store)
    sweeps = [hands.sweep() for _ in range(2)]
    assert store.sweeps.get("@latest").sweep_id == sweeps[-1].sweep_id
    assert store.runs.resolve("@latest/0").run_id == hands.run_id(sweeps[-1])
    assert [sweep.sweep_id for sweep, _ in store.sweeps.list()] == [sweep.sweep_id for sweep in reversed(sweeps)]


def test_run_resolves_by_id_prefix_and_number(hands: Hands) -> None:
    """A run is named by its id, six letters of it, or SWEEP/NUMBER with any name of the sweep."""
    sweep = hands.sweep(2, name=f"a/b {new_uuid()}")
    run_id = hands.run_id(sweep, 1)
    for ref in (run_id, run_id[:12], f"{sweep.short_id}/1", f"{sweep.sweep_id}/1", f"{sweep.name}/1"):
        assert hands.store.runs.resolve(ref).run_id == run_id, ref
    for ref in (f"{sweep.short_id}/9", f"{sweep.short_id}/{10**30}", run_id[:5], "", "%%%%%%", "no-such-sweep/0"):
        with pytest.raises(NotFound):
            hands.store.runs.resolve(ref)


def test_run_prefix_of_several_is_refused(hands: Hands) -> None:
    """An ambiguous prefix says so; `_` stands for itself."""
    ids = [hands.store.runs.create_external("0").run_id for _ in range(2)]
    for n, run_id in enumerate(ids):
        hands.change("UPDATE runs SET run_id = %(new)s WHERE run_id = %(old)s", new=f"same_prefix{n}", old=run_id)
    with pytest.raises(InvalidValue, match="More than one"):
        hands.store.runs.resolve("same_prefix")
    with pytest.raises(NotFound):
        hands.store.runs.resolve("sameXprefix")


# -- list and counts --------------------------------------------------------------------------------------------------


def test_counts_split_open_trials_by_where_they_are(hands: Hands) -> None:
    """Every trial is counted once, open ones also by their run's state."""
    sweep = hands.sweep(6, metric_name="loss")
    hands.conclude(sweep, n0=1.0, n1=2.0)
    hands.finish(hands.start(sweep, 2))
    hands.store.trials.conclude(hands.epoch, sweep.sweep_id)
    hands.start(sweep, 3)
    hands.place(hands.run_id(sweep, 4), hands.worker())
    counts = hands.store.sweeps.counts(sweep.sweep_id)
    assert counts == SweepCounts(open=3, queued=1, placed=1, running=1, finished=2, failed=1)
    assert counts.total == 6
    (listed,) = [counts for listed, counts in hands.store.sweeps.list(limit=1000) if listed.sweep_id == sweep.sweep_id]
    assert listed == counts


def test_list_by_state_and_user(hands: Hands) -> None:
    """Newest first, filtered, limited; without trials the counts are zero."""
    user = new_uuid()
    sweeps = [hands.sweep(0, user_name=user) for _ in range(3)]
    hands.store.sweeps.pause(sweeps[1].sweep_id)

    def listed(**filters: Any) -> list[int]:
        found = hands.store.sweeps.list(user_name=user, **filters)
        assert all(counts == SweepCounts() for _, counts in found)
        return [[s.sweep_id for s in sweeps].index(sweep.sweep_id) for sweep, _ in found]

    assert listed() == [2, 1, 0]
    assert listed(state="active") == [2, 0]
    assert listed(state="paused") == [1]
    assert listed(limit=1) == [2]


# -- by hand -----------------------------------------------------------------------------------------------------------


def test_pause_takes_placements_back_and_leaves_what_runs(hands: Hands) -> None:
    """Nothing new begins; what runs goes on; again is no change."""
    sweep = hands.sweep(3)
    hands.start(sweep, 0)
    hands.place(hands.run_id(sweep, 1), hands.worker())
    for _ in range(2):
        assert hands.store.sweeps.pause(sweep.sweep_id).state == "paused"
    assert run_states(hands, sweep) == ["running", "queued", "queued"]
    assert hands.run_state(sweep.sweep_id) == "running"
    assert sweep.sweep_id not in {run.sweep_id for run in hands.store.queue.waiting()}
    for _ in range(2):
        resumed = hands.store.sweeps.resume(sweep.sweep_id)
        assert (resumed.state, resumed.detail) == ("active", None)
    assert len([run for run in hands.store.queue.waiting() if run.sweep_id == sweep.sweep_id]) == 2


def test_stop_ends_what_waits_and_leaves_what_runs(hands: Hands) -> None:
    """Waiting trials are cancelled with the reason; running ones may end, without being asked to."""
    sweep = hands.sweep(3)
    held = hands.start(sweep, 0)
    hands.place(hands.run_id(sweep, 1), hands.worker())
    for _ in range(2):
        assert hands.store.sweeps.stop(sweep.sweep_id).state == "stopping"
    assert run_states(hands, sweep) == ["running", "cancelled", "cancelled"]
    assert not hands.store.sessions.look(held.session_id).owned[0].cancel
    assert hands.store.runs.get(hands.run_id(sweep, 2)).detail == "The sweep was stopped."


def test_stop_lets_a_requeued_trial_end(hands: Hands) -> None:
    """A running trial that the machinery interrupts may still end after a stop: it is placed again."""
    sweep = hands.sweep()
    held = hands.start(sweep)
    hands.store.sweeps.stop(sweep.sweep_id)
    again = hands.retry(held)
    hands.finish(again)
    assert run_states(hands, sweep) == ["finished"]


def test_cancel_ends_the_sweep_and_asks_its_runs_to_stop(hands: Hands) -> None:
    """The sweep is over at once, the parent run with it; running trials hear of it by their renewal."""
    sweep = hands.sweep(3)
    held = hands.start(sweep, 0)
    hands.place(hands.run_id(sweep, 1), hands.worker())
    for _ in range(2):
        cancelled = hands.store.sweeps.cancel(sweep.sweep_id)
        assert (cancelled.state, cancelled.ended_at is not None) == ("cancelled", True)
    assert run_states(hands, sweep) == ["running", "cancelled", "cancelled"]
    assert hands.store.sessions.look(held.session_id).owned[0].cancel
    assert hands.run_state(sweep.sweep_id) == "killed"
    assert [e.event for e in hands.store.sweeps.events(sweep.sweep_id) if e.event.startswith("cancel")] == ["cancel", "cancel_requested"]


def test_cancel_sees_a_requeue_under_way(hands: Hands) -> None:
    """A run that goes back to the queue at that very moment is cancelled there, not left waiting in a sweep that is over."""
    sweep = hands.sweep()
    held = hands.start(sweep)
    hands.finish(held, EXITED)
    values = {"run_id": held.run_id, "attempt": 1, "machinery": 0, "delay_s": 0, "avoid": "", "detail": ""}
    with ThreadPoolExecutor(1) as pool:
        with hands.store.database.transaction() as tx:
            assert tx.execute(queue_sql.REQUEUE, values) == 1
            cancelling = pool.submit(hands.store.sweeps.cancel, sweep.sweep_id)
            hands.wait_for_blocked()
        cancelling.result(60)
    assert run_states(hands, sweep) == ["cancelled"]


STEERED = {"active": [], "paused": ["pause"], "stopping": ["stop"], "cancelled": ["cancel"]}
MOVES = {
    ("active", "pause"): "paused",
    ("active", "resume"): "active",
    ("active", "stop"): "stopping",
    ("active", "cancel"): "cancelled",
    ("paused", "pause"): "paused",
    ("paused", "resume"): "active",
    ("paused", "stop"): "stopping",
    ("paused", "cancel"): "cancelled",
    ("stopping", "stop"): "stopping",
    ("stopping", "cancel"): "cancelled",
    ("cancelled", "cancel"): "cancelled",
}


@pytest.mark.parametrize("move", ["pause", "resume", "stop", "cancel"])
@pytest.mark.parametrize("state", [*STEERED, "finished"])
def test_by_hand_moves_or_says_why_not(hands: Hands, state: str, move: str) -> None:
    """Each hand on each state: moved, already there, or refused with a sentence that names sweep and state."""
    sweep = hands.sweep(0)
    for step in STEERED.get(state, []):
        getattr(hands.store.sweeps, step)(sweep.sweep_id)
    if state == "finished":
        assert finish(hands, sweep)
    expected = MOVES.get((state, move))
    if expected is not None:
        assert getattr(hands.store.sweeps, move)(sweep.sweep_id).state == expected
        return
    with pytest.raises(NotNow) as refused:
        getattr(hands.store.sweeps, move)(sweep.sweep_id)
    text = str(refused.value)
    assert sweep.short_id in text
    assert (f"has already ended ({state})" if state in ("finished", "cancelled") else f"is {state}; it can't {move} now") in text
    assert hands.store.sweeps.get(sweep.sweep_id).state == state


@pytest.mark.parametrize("move", ["pause", "resume", "stop", "cancel"])
def test_by_hand_of_unknown_sweep_is_not_found(hands: Hands, move: str) -> None:
    """Not a traceback."""
    with pytest.raises(NotFound, match="no-such-sweep"):
        getattr(hands.store.sweeps, move)("no-such-sweep")


def test_by_hand_twice_at_once_is_one_move(hands: Hands) -> None:
    """Two cancels at the same moment: one event, both answered."""
    sweep = hands.sweep(3)
    one, other = both(*[lambda: hands.store.sweeps.cancel(sweep.sweep_id)] * 2)
    assert one.state == other.state == "cancelled"
    events = [e.event for e in hands.store.sweeps.events(sweep.sweep_id) if e.subject == "sweep"]
    assert events == ["submit", "cancel"]


# -- ends ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("event, state, run_state", [(SweepEvent.FAIL, "failed", "cancelled"), (SweepEvent.STOP, "stopping", "cancelled")])
def test_break_off_stops_everything_with_its_cause(hands: Hands, event: SweepEvent, state: str, run_state: str) -> None:
    """A limit was reached: sweep, waiting trials and running ones carry that cause; a second time is nothing."""
    sweep = hands.sweep(2)
    held = hands.start(sweep, 0)
    assert hands.store.sweeps.break_off(hands.epoch, sweep, event=event, cause="over_budget", detail="too long")
    assert not hands.store.sweeps.break_off(hands.epoch, sweep, event=event, cause="over_budget", detail="too long")
    ended = hands.store.sweeps.get(sweep.sweep_id)
    assert (ended.state, ended.cause, ended.detail) == (state, "over_budget", "too long")
    assert hands.store.sessions.look(held.session_id).owned[0].cancel
    waiting = hands.store.runs.get(hands.run_id(sweep, 1))
    assert (waiting.state, waiting.cause, waiting.detail) == (run_state, "over_budget", "too long")


# -- more of it ------------------------------------------------------------------------------------------------------------


def failed_sweep(hands: Hands, n_trials: int = 2) -> Sweep:
    """A sweep whose trials have all failed and been told, and that has failed of it."""
    sweep = hands.sweep(n_trials)
    for number in range(n_trials):
        hands.finish(hands.start(sweep, number), EXITED)
        assert hands.store.queue.fail(hands.epoch, hands.due(hands.run_id(sweep, number)))
    hands.store.trials.conclude(hands.epoch, sweep.sweep_id)
    assert finish(hands, sweep, event=SweepEvent.FAIL, cause="exit_status")
    return hands.store.sweeps.get(sweep.sweep_id)


def test_extend_reopens_a_finished_sweep_with_its_new_configuration(hands: Hands) -> None:
    """Active, without an end or a cause, the parent run with it; the history says so in one row."""
    sweep = hands.sweep(config={"limits": {"trials": 1}})
    hands.conclude(sweep, n0=1.0)
    assert finish(hands, sweep)
    finished = hands.store.sweeps.get(sweep.sweep_id)
    more = hands.store.sweeps.extend(finished, {"limits": {"trials": 3}}, "Up to 3.")
    assert (more.state, more.ended_at, more.cause, more.detail, more.revision) == ("active", None, None, None, finished.revision + 1)
    assert more.config == {"limits": {"trials": 3}}
    assert hands.store.runs.get(sweep.sweep_id).state == "running"
    event = [e for e in hands.store.sweeps.events(sweep.sweep_id) if e.event == "extend"]
    assert [(e.from_state, e.to_state, e.detail) for e in event] == [("finished", "active", "Up to 3.")]


def test_extend_leaves_a_paused_sweep_paused(hands: Hands) -> None:
    """Nothing moves but its number of trials."""
    paused = hands.store.sweeps.pause(hands.sweep().sweep_id)
    more = hands.store.sweeps.extend(paused, {"a": 1}, "more")
    assert (more.state, more.config, more.cause, more.detail) == ("paused", {"a": 1}, paused.cause, paused.detail)
    assert [(e.from_state, e.to_state) for e in hands.store.sweeps.events(paused.sweep_id) if e.event == "extend"] == [(None, None)]


def test_extend_and_retry_are_refused_in_a_deleted_experiment(hands: Hands) -> None:
    """Its trials would have nowhere to be; once it is restored they go on."""
    sweep = hands.sweep(experiment=new_uuid())
    hands.conclude(sweep, n0=1.0)
    assert finish(hands, sweep)
    finished = hands.store.sweeps.get(sweep.sweep_id)
    hands.store.experiments.delete(sweep.experiment_id)
    with pytest.raises(InvalidValue, match="must be in the 'active' state"):
        hands.store.sweeps.extend(finished, {}, "")
    with pytest.raises(InvalidValue, match="must be in the 'active' state"):
        hands.store.sweeps.retry(finished)
    hands.store.experiments.restore(sweep.experiment_id)
    assert hands.store.sweeps.extend(finished, {}, "").state == "active"


def test_extend_upon_an_old_view_is_refused(hands: Hands) -> None:
    """Two people at once: the second looks again."""
    sweep = hands.sweep()
    hands.store.sweeps.extend(sweep, {"by": "one"}, "")
    with pytest.raises(Contradiction, match="changed meanwhile"):
        hands.store.sweeps.extend(sweep, {"by": "the other"}, "")
    assert hands.store.sweeps.get(sweep.sweep_id).config == {"by": "one"}


@pytest.mark.parametrize(("move", "told"), [("stop", "is stopping; it can't"), ("cancel", "was cancelled, and that is for good")])
def test_extend_and_retry_are_refused_of_what_was_to_end(hands: Hands, move: str, told: str) -> None:
    """Stopping and cancelled sweeps take nothing more."""
    ended = getattr(hands.store.sweeps, move)(hands.sweep().sweep_id)
    with pytest.raises(NotNow, match=told):
        hands.store.sweeps.extend(ended, {}, "")
    with pytest.raises(NotNow, match=told):
        hands.store.sweeps.retry(ended)


def test_extend_of_one_request_is_done_once(hands: Hands) -> None:
    """The reply was lost, and it is sent again, upon what it sees by then."""
    once = hands.store.sweeps.extend(hands.sweep(), {"n": 2}, "two", request_id="r")
    assert hands.store.sweeps.was_revised(once, "r")
    assert not hands.store.sweeps.was_revised(once, "s")
    assert hands.store.sweeps.extend(once, {"n": 3}, "three", request_id="r") == once
    assert hands.store.sweeps.extend(once, {"n": 3}, "three", request_id="s").config == {"n": 3}


def test_retry_opens_cancelled_trials_when_they_are_asked_for(hands: Hands) -> None:
    """What a stop had dropped; the sweep will end again with the cause it had."""
    sweep = hands.sweep(3)
    held = hands.start(sweep, 0)
    hands.store.sweeps.stop(sweep.sweep_id)
    hands.log(held, "loss", 1.0)
    hands.finish(held)
    hands.store.trials.conclude(hands.epoch, sweep.sweep_id)
    assert finish(hands, hands.store.sweeps.get(sweep.sweep_id), cause="stopped", detail="by hand")
    stopped = hands.store.sweeps.get(sweep.sweep_id)
    assert hands.store.sweeps.retry(stopped) == []
    assert hands.store.sweeps.retry(stopped, [1], states=["failed", "cancelled"], event=SweepEvent.REOPEN) == [1]
    again = hands.store.sweeps.get(sweep.sweep_id)
    assert (again.state, again.cause, again.detail, again.ended_at) == ("stopping", "stopped", "by hand", None)
    moves = [(e.from_state, e.to_state) for e in hands.store.sweeps.events(sweep.sweep_id) if (e.subject, e.event) == ("trial", "retry")]
    assert moves == [("cancelled", "open")]
    hands.conclude(sweep, n1=1.0)
    assert finish(hands, again, cause="stopped")
    assert hands.store.sweeps.retry(hands.store.sweeps.get(sweep.sweep_id), states=["cancelled"], event=SweepEvent.REOPEN) == [2]
    last = hands.store.sweeps.get(sweep.sweep_id)
    assert (last.state, last.cause, last.detail) == ("stopping", None, None), "none is missing any more"


def test_reopened_sweep_has_not_aged_meanwhile(hands: Hands) -> None:
    """Its time counts while it goes on."""
    sweep = failed_sweep(hands)
    hands.change("UPDATE sweeps SET started_at = now() - interval '3 hours', ended_at = now() - interval '2 hours' WHERE sweep_id = %(id)s", id=sweep.sweep_id)
    assert hands.store.sweeps.age_s(sweep.sweep_id) == pytest.approx(3600, abs=30)
    hands.store.sweeps.retry(sweep)
    assert hands.store.sweeps.age_s(sweep.sweep_id) == pytest.approx(3600, abs=30)


def test_finish_thought_out_before_an_extension_is_refused(hands: Hands) -> None:
    """The scheduler saw the last trial end; meanwhile there are to be more."""
    sweep = hands.sweep()
    hands.conclude(sweep, n0=1.0)
    hands.store.sweeps.extend(sweep, {}, "more")
    assert not finish(hands, sweep)
    assert not hands.store.sweeps.break_off(hands.epoch, sweep, event=SweepEvent.FAIL, cause="over_budget", detail="")
    assert hands.store.sweeps.get(sweep.sweep_id).state == "active"


def test_retry_opens_failed_trials_with_new_runs(hands: Hands) -> None:
    """A new generation each: same parameters, seed and command, queued; the failed run stays as it was, and each is told anew."""
    sweep = failed_sweep(hands)
    before = hands.store.trials.list(sweep.sweep_id)
    assert hands.store.sweeps.retry(sweep) == [0, 1]
    again = hands.store.sweeps.get(sweep.sweep_id)
    assert (again.state, again.ended_at, again.cause, again.config) == ("active", None, None, sweep.config)
    for old, new in zip(before, hands.store.trials.list(sweep.sweep_id), strict=True):
        assert (new.state, new.run_state, new.generation, new.told_seq, new.cause, new.value) == ("open", "queued", 1, None, None, None)
        assert (new.params, new.run_id != old.run_id, hands.store.runs.get(old.run_id).state) == (old.params, True, "failed")
        of_old, of_new = (hands.sql("SELECT argv::text, params::text, seed, queue, priority FROM runs WHERE run_id = %(id)s", id=t.run_id) for t in (old, new))
        assert of_old == of_new
        assert hands.store.runs.data(new.run_id).params == hands.store.runs.data(old.run_id).params
        assert [e.event for e in hands.store.runs.events(new.run_id)] == ["retry", "queue"]
        assert (hands.store.runs.replaced(hands.store.runs.get(old.run_id)), hands.store.runs.replaced(hands.store.runs.get(new.run_id))) == ([], [old.run_id])
    hands.conclude(sweep, n0=2.0, n1=1.0)
    assert [(t.state, t.generation) for t in hands.store.trials.list(sweep.sweep_id)] == [("finished", 1)] * 2
    assert sorted(t.told_seq or 0 for t in hands.store.trials.list(sweep.sweep_id)) == [3, 4]


def test_retry_of_named_trials_leaves_the_others(hands: Hands) -> None:
    """Numbers of trials that have not failed, or are not there, are left out of the answer."""
    sweep = failed_sweep(hands)
    assert hands.store.sweeps.retry(sweep, [1, 7]) == [1]
    assert [t.state for t in hands.store.trials.list(sweep.sweep_id)] == ["failed", "open"]
    assert hands.store.sweeps.retry(hands.store.sweeps.get(sweep.sweep_id), [1]) == []


def test_retry_without_a_failed_trial_changes_nothing(hands: Hands) -> None:
    """A finished sweep stays finished."""
    sweep = hands.sweep()
    hands.conclude(sweep, n0=1.0)
    finish(hands, sweep)
    finished = hands.store.sweeps.get(sweep.sweep_id)
    assert hands.store.sweeps.retry(finished) == []
    assert hands.store.sweeps.get(sweep.sweep_id) == finished


def test_retry_twice_at_once_opens_each_once(hands: Hands) -> None:
    """Two people press the button."""
    sweep = failed_sweep(hands)

    def press() -> object:
        try:
            return hands.store.sweeps.retry(sweep)
        except Contradiction as error:
            return error.message

    answers = both(press, press)
    assert [0, 1] in answers
    assert {t.generation for t in hands.store.trials.list(sweep.sweep_id)} == {1}


def registering(hands: Hands, model: str, **fields: Any) -> Sweep:
    """A sweep of two concluded trials, of which the second is better, that wants its winner registered."""
    sweep = hands.sweep(2, metric_name="loss", config={"register": {"model": model, "alias": "best", **fields}})
    hands.conclude(sweep, n0=2.0, n1=1.0)
    return sweep


def test_finish_again_registers_a_new_winner_only(hands: Hands) -> None:
    """Extended: the same winner keeps its version, a better one gets the next."""
    sweep = registering(hands, "again")
    finish(hands, sweep)
    for n_more, versions in ((0.5, 2), (9.0, 2)):
        sweep = hands.store.sweeps.get(sweep.sweep_id)
        sweep = hands.store.sweeps.extend(sweep, sweep.config, "more")
        number = hands.store.trials.next_number(sweep.sweep_id)
        hands.add_trials(sweep, [number])
        hands.conclude(sweep, **{f"n{number}": n_more})
        assert finish(hands, sweep)
        assert len(hands.store.registry.of_sweep(sweep.sweep_id)) == versions


def test_finish_registers_the_winner_once(hands: Hands) -> None:
    """The model version names sweep, trial, run, parameters and value; finishing again does nothing."""
    sweep = registering(hands, "once", artifact="weights")
    assert finish(hands, sweep)
    assert not finish(hands, sweep)
    model = hands.store.registry.model("once")
    (version,) = model.versions
    run_id = hands.run_id(sweep, 1)
    assert (version.version, version.run_id, version.sweep_id, version.trial_number) == (1, run_id, sweep.sweep_id, 1)
    assert (version.value, version.metric_name, version.params, version.aliases) == (1.0, "loss", {"x": 1}, ("best",))
    assert version.source == f"runs:/{run_id}/weights"
    assert hands.store.sweeps.register_detail(sweep.sweep_id) == "Registered once v1."
    assert hands.store.registry.of_sweep(sweep.sweep_id) == [version]
    assert hands.run_state(sweep.sweep_id) == "finished"


def test_finish_twice_at_once_registers_once(hands: Hands) -> None:
    """Two schedulers' last words at the same moment."""
    sweep = registering(hands, "race")
    answers = both(*[lambda: finish(hands, sweep)] * 2)
    assert sorted(answers) == [False, True]
    assert len(hands.store.registry.model("race").versions) == 1


def test_finish_of_two_sweeps_at_once_counts_versions_without_gaps(hands: Hands) -> None:
    """Two sweeps of one model end at the same moment: versions 1 and 2, and one alias."""
    one, other = registering(hands, "shared"), registering(hands, "shared")
    assert both(lambda: finish(hands, one), lambda: finish(hands, other)) == (True, True)
    versions = hands.store.registry.model("shared").versions
    assert [version.version for version in versions] == [2, 1]
    assert [version.aliases for version in versions] == [("best",), ()]


def test_finish_without_a_winner_registers_nothing_and_says_so(hands: Hands) -> None:
    """No trial has a value: the sweep still ends, and tells why there is no version."""
    sweep = hands.sweep(1, metric_name="loss", config={"register": {"model": "none"}})
    hands.finish(hands.start(sweep), SUCCEEDED)
    hands.store.trials.conclude(hands.epoch, sweep.sweep_id)
    assert finish(hands, sweep, event=SweepEvent.FAIL, cause="no_objective")
    assert "nothing was registered" in str(hands.store.sweeps.register_detail(sweep.sweep_id))
    with pytest.raises(NotFound):
        hands.store.registry.model("none")


@pytest.mark.parametrize("wanted", [{"model": "a/b"}, {"model": "bad-alias", "alias": "latest"}], ids=["model", "alias"])
def test_finish_ends_the_sweep_whatever_its_file_asks_for(hands: Hands, wanted: dict[str, str]) -> None:
    """A name that the registry refuses costs the version, not the sweep, and leaves nothing half done."""
    sweep = hands.sweep(1, metric_name="loss", config={"register": wanted})
    hands.conclude(sweep, n0=1.0)
    assert finish(hands, sweep)
    assert hands.store.sweeps.get(sweep.sweep_id).state == "finished"
    assert "Nothing was registered" in str(hands.store.sweeps.register_detail(sweep.sweep_id))
    with pytest.raises(NotFound):
        hands.store.registry.model(wanted["model"])


def test_finish_without_register_says_nothing_of_it(hands: Hands) -> None:
    """A file that does not ask for it."""
    sweep = hands.sweep(0)
    assert finish(hands, sweep)
    assert hands.store.sweeps.register_detail(sweep.sweep_id) is None
