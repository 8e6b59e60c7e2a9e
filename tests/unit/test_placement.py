"""Which worker runs what: order, limits, resources, and what may never happen whatever the cluster looks like."""

from collections import Counter
from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.placement import can_serve, choose_moves, choose_placements, is_open
from tracking.records import Resources, WorkerView
from tracking.store.queue import HeldRun, LongPlaced, Placement, QueuedRun

NOW = datetime(2026, 1, 1, tzinfo=UTC)
GIB = 1 << 30


def worker(name: str = "w", **fields: Any) -> WorkerView:
    """A worker that takes anything."""
    given: dict[str, Any] = {
        "worker_id": name,
        "session_id": f"session-{name}",
        "hostname": "host",
        "state": "live",
        "celery_queue": f"q-{name}",
        "queues": ("default",),
        "slots": 2,
        "cpus": 8.0,
        "memory_bytes": 8 * GIB,
        "gpus": 0,
        "runtimes": ("process",),
        "renewed_at": NOW,
        "silent": False,
    }
    return WorkerView(name=name, **{**given, **fields})


def queued(run_id: str, sweep_id: str = "s", user_name: str = "ann", age_s: float = 0, **fields: Any) -> QueuedRun:
    """A run that waits."""
    given: dict[str, Any] = {"queue": "default", "priority": 50, "resources": Resources()}
    return QueuedRun(run_id, sweep_id, user_name, created_at=NOW - timedelta(seconds=age_s), **{**given, **fields})


def held(run_id: str, on: str = "w", sweep_id: str = "s", user_name: str = "ann", **fields: Any) -> HeldRun:
    """A run that a worker holds."""
    given: dict[str, Any] = {"state": "running", "resources": Resources()}
    return HeldRun(run_id, sweep_id, user_name, f"session-{on}", **{**given, **fields})


def order(placements: list[Placement]) -> list[str]:
    """The runs in the order in which they were chosen."""
    return [placement.run_id for placement in placements]


def test_placement_nothing_waits_gives_nothing() -> None:
    """An empty queue needs no worker."""
    assert choose_placements([], [], [worker()]) == []


def test_placement_names_session_and_worker() -> None:
    """A placement says who, and on which start of it."""
    assert choose_placements([queued("a")], [], [worker("w")]) == [Placement("a", "session-w", "w", ())]


def test_placement_higher_priority_first_when_slots_are_few() -> None:
    """Priority decides before age and fairness."""
    waiting = [queued("old", "s1", age_s=100), queued("urgent", "s2", priority=90)]
    assert order(choose_placements(waiting, [], [worker(slots=1)])) == ["urgent"]


def test_placement_goes_by_age_within_one_sweep() -> None:
    """Of runs that are alike the oldest comes first."""
    waiting = [queued(str(n), age_s=100 - n) for n in range(4)]
    assert order(choose_placements(waiting, [], [worker(slots=2)])) == ["0", "1"]


def test_placement_user_who_holds_least_comes_first() -> None:
    """Fair share between users, whoever asked first."""
    waiting = [queued("ann", "s1", "ann", age_s=100), queued("bob", "s2", "bob")]
    placed = choose_placements(waiting, [held("x", sweep_id="s1", user_name="ann")], [worker(slots=2)])
    assert order(placed) == ["bob"]


def test_placement_users_take_turns() -> None:
    """Two users with many waiting runs get the same number of slots."""
    waiting = [queued(f"a{n}", "s1", "ann", age_s=100) for n in range(6)] + [queued(f"b{n}", "s2", "bob") for n in range(6)]
    placed = choose_placements(waiting, [], [worker("v", slots=2), worker("w", slots=2)])
    assert Counter(run_id[0] for run_id in order(placed)) == {"a": 2, "b": 2}


def test_placement_fair_share_counts_cores_not_runs() -> None:
    """One run of six cores weighs as much as six of one."""
    waiting = [queued("a", "s1", "ann", resources=Resources(cpus=6)), *[queued(f"b{n}", "s2", "bob") for n in range(9)]]
    placed = choose_placements(waiting, [], [worker(slots=9, cpus=12)])
    assert Counter(run_id[0] for run_id in order(placed)) == {"a": 1, "b": 6}


def test_placement_sweeps_of_one_user_take_turns() -> None:
    """Between sweeps of one user the one that holds less comes first."""
    waiting = [queued(f"a{n}", "s1", age_s=100) for n in range(4)] + [queued(f"b{n}", "s2") for n in range(4)]
    assert Counter(run_id[0] for run_id in order(choose_placements(waiting, [], [worker(slots=4)]))) == {"a": 2, "b": 2}


def test_placement_respects_parallel() -> None:
    """A sweep never holds more runs than its `parallel`, placed ones included."""
    waiting = [queued(str(n), parallel=3) for n in range(9)]
    assert len(choose_placements(waiting, [held("x", state="placed")], [worker("v", slots=4), worker("w", slots=4)])) == 2


def test_placement_respects_parallel_when_runs_are_on_a_draining_worker() -> None:
    """Runs on a worker that takes nothing new count: what is placed elsewhere would be beyond the limit."""
    waiting = [queued("a", parallel=2), queued("b", parallel=2)]
    on_old = [held("x", "old"), held("y", "old")]
    assert choose_placements(waiting, on_old, [worker("old", draining=True), worker("new")]) == []
    assert len(choose_placements(waiting, on_old[:1], [worker("old", draining=True), worker("new")])) == 1


def test_placement_parallel_of_one_sweep_holds_up_no_other() -> None:
    """A sweep at its limit leaves the slots to others."""
    waiting = [queued("a", "s1", age_s=9, parallel=1), queued("b", "s2")]
    assert order(choose_placements(waiting, [held("x", sweep_id="s1")], [worker(slots=2)])) == ["b"]


@pytest.mark.parametrize(
    "resources",
    [Resources(cpus=9), Resources(memory_bytes=9 * GIB), Resources(gpus=1), Resources(image="python:3.11")],
    ids=["cpus", "memory", "gpus", "image"],
)
def test_placement_worker_that_lacks_what_a_run_needs_is_passed_by(resources: Resources) -> None:
    """Cores, memory, GPUs and containers are asked for; who has less is not asked."""
    small = worker("small")
    big = worker("z-big", cpus=16, memory_bytes=16 * GIB, gpus=2, runtimes=("process", "docker"))
    run = queued("a", resources=resources)
    assert not can_serve(small, "default", resources)
    assert choose_placements([run], [], [small]) == []
    assert [p.worker_id for p in choose_placements([run], [], [small, big])] == ["z-big"]


def test_placement_queue_label_must_be_served() -> None:
    """A run of queue `gpu` goes only where that queue is served."""
    run = queued("a", queue="gpu")
    placed = choose_placements([run], [], [worker("a-plain"), worker("z-gpu", queues=("default", "gpu"))])
    assert [p.worker_id for p in placed] == ["z-gpu"]


def test_placement_memory_and_cores_in_use_are_not_promised_again() -> None:
    """What is held counts against the worker."""
    run = queued("a", resources=Resources(cpus=3, memory_bytes=3 * GIB))
    for in_use in (Resources(cpus=6), Resources(memory_bytes=6 * GIB)):
        assert choose_placements([run], [held("x", resources=in_use)], [worker(slots=4)]) == []


def test_placement_thirds_of_a_core_fill_it() -> None:
    """Three thirds fit one core, though their sum as floats is not exact."""
    waiting = [queued(str(n), resources=Resources(cpus=0.1)) for n in range(11)]
    assert len(choose_placements(waiting, [], [worker(slots=20, cpus=1.0)])) == 10


def test_placement_run_that_fits_nowhere_holds_up_nobody() -> None:
    """A run too large for the cluster waits alone, whatever its priority."""
    waiting = [queued("huge", "s1", priority=99, resources=Resources(cpus=99)), queued("small", "s2")]
    assert order(choose_placements(waiting, [], [worker()])) == ["small"]


def test_placement_gpu_ids_are_distinct_and_free() -> None:
    """Each run gets ids of its own, none that is held."""
    waiting = [queued(str(n), resources=Resources(gpus=1)) for n in range(4)]
    placed = choose_placements(waiting, [held("x", resources=Resources(gpus=1), gpu_ids=(1,))], [worker(slots=9, gpus=4)])
    assert sorted(p.gpu_ids for p in placed) == [(0,), (2,), (3,)]


def test_placement_goes_to_the_emptiest_worker() -> None:
    """Load is spread by the share of slots in use."""
    placed = choose_placements([queued("a")], [held("x", "big"), held("y", "small")], [worker("big", slots=4), worker("small", slots=2)])
    assert [p.worker_id for p in placed] == ["big"]


@pytest.mark.parametrize("state", [{"draining": True}, {"cordoned": "three faults"}, {"silent": True}, {"state": "lost"}], ids=lambda s: next(iter(s)))
def test_placement_closed_worker_gets_nothing(state: dict[str, Any]) -> None:
    """Drained, cordoned, silent and gone workers take nothing new."""
    assert not is_open(worker(**state))
    assert choose_placements([queued("a")], [], [worker(**state)], {"s"}) == []


def test_placement_avoids_workers_it_failed_on() -> None:
    """A run goes elsewhere, even to a fuller worker."""
    run = queued("a", avoid_workers=("bad",))
    placed = choose_placements([run], [held("x", "good")], [worker("bad"), worker("good")])
    assert [p.worker_id for p in placed] == ["good"]


def test_placement_waits_for_another_worker_while_there_is_one() -> None:
    """The other worker is full: the run waits for it, and others of its sweep don't."""
    waiting = [queued("a", age_s=9, avoid_workers=("bad",)), queued("b")]
    full = [held("x", "good"), held("y", "good")]
    assert [(p.run_id, p.worker_id) for p in choose_placements(waiting, full, [worker("bad"), worker("good")])] == [("b", "bad")]


@pytest.mark.parametrize("other", [{"queues": ("gpu",)}, {"draining": True}], ids=["another queue", "draining"])
def test_placement_returns_to_an_avoided_worker_when_there_is_no_other(other: dict[str, Any]) -> None:
    """Better where it failed than nowhere; workers that can't serve it are no alternative."""
    run = queued("a", avoid_workers=("bad",))
    assert [p.worker_id for p in choose_placements([run], [], [worker("bad"), worker("other", **other)])] == ["bad"]


def test_placement_returns_to_where_it_failed_longest_ago() -> None:
    """It has failed everywhere: the worker of its last failure comes last, however empty it is."""
    run = queued("a", avoid_workers=("first", "second", "last"))
    workers = [worker("last"), worker("second"), worker("first")]
    assert [p.worker_id for p in choose_placements([run], [held("x", "first")], workers)] == ["first"]
    assert [p.worker_id for p in choose_placements([run], [], workers[:2])] == ["second"]


def test_placement_short_runs_wait_at_the_worker_one_a_slot() -> None:
    """Of a short sweep one more run is placed per slot, and no more than that."""
    waiting = [queued(str(n)) for n in range(9)]
    assert len(choose_placements(waiting, [], [worker(slots=2)], {"s"})) == 4
    assert len(choose_placements(waiting, [], [worker(slots=2)], {"another"})) == 2


def test_placement_ahead_only_behind_runs_of_the_same_sweep() -> None:
    """What ends must free just what the waiting run needs."""
    others = [held("x", sweep_id="s"), held("y", sweep_id="other")]
    assert choose_placements([queued("a")], others, [worker(slots=2)], {"s"}) == []


def test_placement_ahead_never_with_gpus() -> None:
    """A GPU is named when it is promised, so it must be free."""
    waiting = [queued(str(n), resources=Resources(gpus=1)) for n in range(4)]
    assert len(choose_placements(waiting, [], [worker(slots=2, gpus=2)], {"s"})) == 2


def test_placement_ahead_only_when_the_slots_are_the_limit() -> None:
    """Where cores run out before slots, a run placed ahead would start beside the others."""
    waiting = [queued(str(n)) for n in range(4)]
    assert len(choose_placements(waiting, [], [worker(slots=4, cpus=2)], {"s"})) == 2


FULL = [held("a1"), held("a2"), held("ahead", state="placed"), held("next", state="placed")]
"""What worker `w` holds: both slots, and one more for each."""


def moved(run: QueuedRun, *others: WorkerView, more: Collection[HeldRun] = ()) -> list[str]:
    """Which of two runs placed ahead on `w` are better off elsewhere; the second is like the first."""
    placed = [LongPlaced(run, 1, "session-w"), LongPlaced(msgspec.structs.replace(run, run_id="next"), 1, "session-w")]
    return [each.run.run_id for each in choose_moves(placed, [*FULL, *more], [worker("w"), *others])]


def test_move_a_run_that_waits_behind_others_to_a_worker_with_room() -> None:
    """As many as there is room for, the oldest first."""
    assert moved(queued("ahead"), worker("v", slots=1)) == ["ahead"]
    assert moved(queued("ahead"), worker("v")) == ["ahead", "next"]


@pytest.mark.parametrize(
    ("other", "run"),
    [
        ({"draining": True}, {}),
        ({"cordoned": "broken"}, {}),
        ({"silent": True}, {}),
        ({"queues": ("gpu",)}, {}),
        ({}, {"avoid_workers": ("v",)}),
        ({}, {"resources": Resources(image="i")}),
        ({"cpus": 0.5}, {}),
        ({}, {"resources": Resources(memory_bytes=9 * GIB)}),
    ],
)
def test_move_not_to_a_worker_that_can_not_take_it(other: dict[str, Any], run: dict[str, Any]) -> None:
    """It would be placed where it stands again, for ever."""
    assert moved(queued("ahead", **run), worker("v", **other)) == []


def test_move_not_to_a_worker_whose_room_is_taken() -> None:
    """By running ones, or in memory alone."""
    assert moved(queued("ahead"), worker("v", slots=1), more=[held("b", on="v")]) == []
    large = Resources(memory_bytes=5 * GIB)
    assert moved(queued("ahead", resources=large), worker("v"), more=[held("b", on="v", resources=large)]) == []


def test_move_not_without_another_worker() -> None:
    """Its own is the best there is."""
    assert moved(queued("ahead")) == []


def test_placement_ahead_stays_within_parallel() -> None:
    """`parallel` below the slots: nothing is placed ahead. At or above them the slots decide."""
    few = [queued(str(n), parallel=3) for n in range(9)]
    many = [queued(str(n), parallel=4) for n in range(9)]
    assert len(choose_placements(few, [], [worker(slots=4)], {"s"})) == 3
    assert len(choose_placements(many, [], [worker(slots=4)], {"s"})) == 8


# -- whatever the cluster looks like -----------------------------------------------------------------------

SWEEPS = {
    "plain": (Resources(), None),
    "narrow": (Resources(), 2),
    "fat": (Resources(cpus=2.5, memory_bytes=3 * GIB), 5),
    "gpu": (Resources(cpus=0.5, gpus=1), None),
    "gpus": (Resources(gpus=2), 3),
}

workers_of_any_kind: st.SearchStrategy[list[dict[str, Any]]] = st.lists(
    st.builds(
        dict,
        slots=st.integers(1, 4),
        cpus=st.sampled_from([1.0, 2.0, 4.0, 8.0]),
        gpus=st.integers(0, 4),
        memory_bytes=st.sampled_from([2 * GIB, 8 * GIB]),
        draining=st.booleans(),
        silent=st.booleans(),
    ),
    max_size=4,
)
runs_of_any_kind = st.lists(
    st.tuples(st.sampled_from(sorted(SWEEPS)), st.sampled_from(["ann", "bob"]), st.sampled_from([10, 50]), st.sampled_from([(), ("w0",)])), max_size=25
)


@given(kinds=workers_of_any_kind, first=runs_of_any_kind, second=runs_of_any_kind, short=st.sets(st.sampled_from(sorted(SWEEPS))), closing=st.integers(0, 3))
def test_placement_promises_nothing_twice_whatever_the_cluster_looks_like(
    kinds: list[dict[str, Any]], first: list[tuple[Any, ...]], second: list[tuple[Any, ...]], short: set[str], closing: int
) -> None:
    """Two rounds, a worker closed between them: capacity, GPUs, labels and `parallel` hold in both, counting what can run at once."""
    workers = [worker(f"w{n}", **kind) for n, kind in enumerate(kinds)]
    standing: list[HeldRun] = []
    for number, wanted in enumerate((first, second)):
        if number and workers:
            index = closing % len(workers)
            workers[index] = worker(f"w{index}", **{**kinds[index], "draining": True})
        waiting = [
            queued(f"{number}.{n}", sweep, user, priority=priority, avoid_workers=avoid, resources=SWEEPS[sweep][0], parallel=SWEEPS[sweep][1])
            for n, (sweep, user, priority, avoid) in enumerate(wanted)
        ]
        by_id = {run.run_id: run for run in waiting}
        placements = choose_placements(waiting, standing, workers, short)
        open_sessions = {w.session_id for w in workers if is_open(w)}
        assert len({p.run_id for p in placements}) == len(placements)
        assert {p.session_id for p in placements} <= open_sessions
        standing += [
            HeldRun(p.run_id, by_id[p.run_id].sweep_id, by_id[p.run_id].user_name, p.session_id, "placed", by_id[p.run_id].resources, p.gpu_ids)
            for p in placements
        ]
        for each in workers:
            check_worker(each, [run for run in standing if run.session_id == each.session_id], short)
        for sweep_id, (_, parallel) in SWEEPS.items():
            assert parallel is None or n_at_once(workers, standing, sweep_id) <= parallel


def check_worker(worker: WorkerView, runs: list[HeldRun], short: set[str]) -> None:
    """What one worker was promised: all at once within its capacity, but for runs of one short sweep that wait their turn."""
    gpu_ids = [gpu for run in runs for gpu in run.gpu_ids]
    assert len(set(gpu_ids)) == len(gpu_ids)
    assert set(gpu_ids) <= set(range(worker.gpus))
    assert all(len(run.gpu_ids) == run.resources.gpus for run in runs)
    if len(runs) > worker.slots:
        assert len(runs) <= 2 * worker.slots
        assert len({run.sweep_id for run in runs}) == 1
        assert runs[0].sweep_id in short
        runs = runs[: worker.slots]
    assert sum(run.resources.cpus for run in runs) <= worker.cpus + 1e-6
    assert sum(run.resources.memory_bytes or 0 for run in runs) <= worker.memory_bytes


def n_at_once(workers: list[WorkerView], runs: list[HeldRun], sweep_id: str) -> int:
    """How many runs of a sweep can run at the same time."""
    return sum(min(each.slots, sum(run.session_id == each.session_id and run.sweep_id == sweep_id for run in runs)) for each in workers)
