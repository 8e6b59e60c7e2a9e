"""`sweep why`: every wait has its reason, every move its sentence. Records in, sentences out."""

from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from msgspec.structs import replace

from scheduler.placement import can_serve, choose_placements
from sweeps.api.story import tell_run, tell_sweep
from sweeps.api.waits import Bounds, Scene, Wish, lacks, openings, why_not_placed
from sweeps.api.why import not_proposed, why_run, why_sweep
from sweeps.wording import clock_text, listed, span_text, until_text
from tracking.records import Event, Launch, Resources, Retry, Run, Sweep, SweepCounts, Trial, WorkerView
from tracking.states import AttemptEvent, RunEvent, SweepEvent, TrialEvent
from tracking.store.attempts import Attempt
from tracking.store.queue import HeldRun, QueuedRun
from tracking.store.why import Holding, Progress, Standing, Stay, Surroundings

GIB: Final = 1 << 30
NOW: Final = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def trial(number: int, state: str = "finished", **fields: Any) -> Trial:
    """A trial that has ended."""
    return Trial("s", number, state, {}, 0, f"r{number}", state, 1, NOW, **fields)


def ago(seconds: float) -> datetime:
    """That long before now; negative: after."""
    return NOW - timedelta(seconds=seconds)


CONFIG: Final = {"name": "w", "experiment": "w", "method": "bayes", "parameters": [], "command": {"kind": "macros", "words": []}, "limits": {"trials": 10}}
SWEEP: Final = Sweep(
    sweep_id="s",
    experiment_id="1",
    name="wine",
    short_id="brave-otter-7f3a",
    state="active",
    user_name="kim",
    config=CONFIG,
    source="",
    launch=Launch(),
    metric_name="rmse",
    metric_goal="minimize",
    metric_from="last",
    queue="gpu",
    priority=50,
    parallel=None,
    created_at=ago(100),
)
WORKER: Final = WorkerView(
    worker_id="w1-id",
    session_id="w1-session",
    name="w1",
    hostname="h",
    state="live",
    celery_queue="q",
    queues=("gpu",),
    slots=1,
    cpus=2.0,
    memory_bytes=GIB,
    gpus=0,
    runtimes=("process",),
    renewed_at=ago(3),
    silent=False,
)
W2: Final = replace(WORKER, worker_id="w2-id", session_id="w2-session", name="w2", slots=2)
RUN: Final = Run(
    run_id="r",
    experiment_id="1",
    kind="managed",
    name="",
    user_name="",
    state="queued",
    lifecycle_stage="active",
    attempt=0,
    created_at=NOW,
    sweep_id=SWEEP.sweep_id,
    trial_number=0,
)
QUEUED: Final = Standing("r", "queued", 0, 0, ago(1), 50, "gpu")
HELD: Final = replace(
    QUEUED, state="running", session_id="w1-session", worker_name="w1", session_state="live", renewed_at=ago(3), lease_until=ago(-57), slots=1, placed_at=ago(4)
)
LED: Final = Surroundings(NOW, 3, "host-17", ago(1), is_led=True)
ATTEMPT: Final = Attempt("r", 1, "running", "w1-id", "w1", 1, ago(60), ago(50), None, None, None, None, None, None, (), {})
RUNNING: Final = replace(RUN, state="running", attempt=1, started_at=ago(60), worker_id="w1-id")


def holding(run_id: str, on: str = "w1", sweep_id: str = "other", **fields: Any) -> Holding:
    """A run that a worker holds."""
    given: dict[str, Any] = {"short_id": f"{sweep_id}-id", "trial_number": 7, "user_name": "ann", "state": "running"}
    return Holding(run_id, f"{on}-session", sweep_id, **{**given, **fields})


def scene(*workers: WorkerView, holdings: tuple[Holding, ...] = (), around: Surroundings = LED, **bounds: Any) -> Scene:
    """The cluster."""
    return Scene(around, workers, holdings, Bounds(**bounds))


def asks(**resources: Any) -> Sweep:
    """The sweep, with trials that ask for this."""
    return replace(SWEEP, launch=Launch(resources=Resources(**resources)))


# -- a run that waits ------------------------------------------------------------------------------------------------

FULL: Final = (holding("x"), holding("y", "w2"), holding("z", "w2", "s", trial_number=4))
WAITS: Final[dict[str, tuple[Sweep, Standing, Scene, str, str]]] = {
    "nobody is here": (SWEEP, QUEUED, scene(), "worker", "No worker is here: start one with `sweep worker`."),
    "nobody serves the queue": (
        SWEEP,
        QUEUED,
        scene(replace(WORKER, queues=("cpu", "default"))),
        "queue",
        "No worker serves queue 'gpu' (served: cpu, default): start one with `sweep worker --queue gpu --name NAME`.",
    ),
    "draining": (
        SWEEP,
        QUEUED,
        scene(replace(WORKER, draining=True)),
        "worker",
        "w1 serves queue 'gpu', but is draining (`sweep worker drain w1 --undo` gives it runs again).",
    ),
    "cordoned": (
        SWEEP,
        QUEUED,
        scene(replace(WORKER, cordoned="3 runs in a row could not be started here.")),
        "worker",
        (
            "w1 serves queue 'gpu', but is cordoned: 3 runs in a row could not be started here (that ends by itself after ten minutes, "
            "or with `sweep worker uncordon w1`)."
        ),
    ),
    "silent": (
        SWEEP,
        QUEUED,
        scene(replace(WORKER, silent=True, renewed_at=ago(125))),
        "worker",
        "w1 serves queue 'gpu', but has not renewed its lease since 03:02:00 UTC (2 min 5 s ago).",
    ),
    "too large": (
        asks(cpus=8, memory_bytes=4 * GIB, gpus=1),
        QUEUED,
        scene(WORKER, replace(W2, cpus=16.0, memory_bytes=2 * GIB, gpus=4)),
        "resources",
        "No worker of queue 'gpu' is large enough: a trial asks for 8 cpus, 4 GiB of memory, 1 gpu. The nearest is w2: it has 2 GiB of 4 GiB of memory.",
    ),
    "too large, two equally near": (
        asks(cpus=8),
        QUEUED,
        scene(WORKER, replace(W2, cpus=4.0)),
        "resources",
        "No worker of queue 'gpu' is large enough: a trial asks for 8 cpus. The nearest is w2: it has 4 of 8 cpus.",
    ),
    "no containers": (
        asks(image="img"),
        QUEUED,
        scene(WORKER),
        "resources",
        "No worker of queue 'gpu' is large enough: a trial asks for 1 cpu, containers. The nearest is w1: it has no containers.",
    ),
    "large enough, but draining": (
        asks(cpus=2),
        QUEUED,
        scene(replace(WORKER, draining=True), replace(W2, cpus=1.0)),
        "worker",
        "w1 serves queue 'gpu', but is draining (`sweep worker drain w1 --undo` gives it runs again).",
    ),
    "the only slot": (
        SWEEP,
        QUEUED,
        scene(WORKER, holdings=FULL[:1]),
        "slot",
        "The only slot of the workers that fit is busy: sweep other-id (ann) has 1.",
    ),
    "all slots": (
        SWEEP,
        QUEUED,
        scene(WORKER, W2, holdings=FULL),
        "slot",
        "All 3 slots of the workers that fit are busy: sweep other-id (ann) has 2 and this sweep has 1.",
    ),
    "a slot is free, cores are not": (
        asks(cpus=2),
        QUEUED,
        scene(W2, holdings=(holding("x", "w2", resources=Resources(cpus=1.5)),)),
        "slot",
        "No worker that fits has room now (w2 has 0.5 of 2 cpus free): sweep other-id (ann) has 1.",
    ),
    "a slot is free, gpus are not": (
        asks(gpus=1, memory_bytes=GIB),
        QUEUED,
        scene(replace(W2, gpus=1), holdings=(holding("x", "w2", gpu_ids=[0], resources=Resources(memory_bytes=GIB // 2)),)),
        "slot",
        "No worker that fits has room now (w2 has 0.5 GiB of 1 GiB of memory and 0 of 1 gpu free): sweep other-id (ann) has 1.",
    ),
    "parallel": (
        replace(SWEEP, parallel=2),
        QUEUED,
        scene(WORKER, W2, holdings=(holding("x", "w2", "s", trial_number=3), holding("y", "w2", "s", trial_number=5))),
        "parallel",
        "The sweep runs at most 2 at a time (limits.parallel), and 2 trials of it are placed or running: 3 and 5.",
    ),
    "parallel, but slots are the tighter limit": (
        replace(SWEEP, parallel=2),
        QUEUED,
        scene(W2, holdings=(holding("x", "w2", "s"), holding("y", "w2", "s"))),
        "slot",
        "All 2 slots of the workers that fit are busy: this sweep has 2.",
    ),
    "the other worker is full": (
        SWEEP,
        replace(QUEUED, avoid_workers=["w1-id"]),
        scene(WORKER, W2, holdings=FULL[1:]),
        "other_worker",
        (
            "It failed on w1 by the machinery's fault, and waits for w2. All 2 slots of the workers that fit are busy: "
            "sweep other-id (ann) has 1 and this sweep has 1."
        ),
    ),
    "failed everywhere": (
        SWEEP,
        replace(QUEUED, avoid_workers=["w1-id", "w2-id"]),
        scene(WORKER, W2, holdings=FULL),
        "slot",
        "All 3 slots of the workers that fit are busy: sweep other-id (ann) has 2 and this sweep has 1.",
    ),
    "room": (SWEEP, QUEUED, scene(WORKER), "placing", "There is room for it: it is about to be placed. If this stays so, check that `sweep scheduler` runs."),
    "room, others first": (
        SWEEP,
        replace(QUEUED, n_before=2),
        scene(WORKER),
        "placing",
        "There is room for it: it is about to be placed; 2 waiting runs of a higher priority come first. If this stays so, check that `sweep scheduler` runs.",
    ),
}


@pytest.mark.parametrize(("sweep", "standing", "here", "wait", "told"), WAITS.values(), ids=WAITS)
def test_why_names_what_a_waiting_run_waits_for(sweep: Sweep, standing: Standing, here: Scene, wait: str, told: str) -> None:
    """The first thing that holds it up, by name, and by whom (I5)."""
    (reason,) = why_run(RUN, sweep, standing, [], [], here)
    assert (reason.wait, reason.text) == (wait, told)


@pytest.mark.parametrize("case", [case for case in WAITS.values() if not case[1].avoid_workers and not case[1].n_before])
def test_why_gives_a_sweep_and_its_waiting_run_the_same_reason(case: tuple[Sweep, Standing, Scene, str, str]) -> None:
    """Whoever asks of the sweep need not find out which of its runs to ask of."""
    sweep, _, here, _, told = case
    reasons = why_sweep(sweep, SweepCounts(open=1, queued=1), Progress(n_ready=1), {}, [], here)
    assert [reason.text for reason in reasons] == [told]


REQUEUED: Final = Event(9, ago(10), "run", "requeue", run_id="r", attempt=1, detail="The machinery failed (launch); attempt 2 follows.")


def test_why_tells_of_a_back_off_until_when_and_after_what() -> None:
    """The time it waits for, what failed, and by whose budget; once that has passed, what else it waits for."""
    waiting, failed = replace(QUEUED, attempt=1, not_before=ago(-20)), replace(ATTEMPT, state="failed", cause="launch", detail="No such file.")
    first, second = why_run(replace(RUN, attempt=1), SWEEP, waiting, [failed], [REQUEUED], scene())
    assert (first.wait, first.until) == ("back_off", ago(-20))
    assert first.text == "It waits until 03:04:25 UTC (in 20 s) before its next attempt. The machinery failed (launch); attempt 2 follows."
    assert second.text == "Attempt 1 failed on w1: launch (No such file)."
    over = why_run(replace(RUN, attempt=1), SWEEP, replace(waiting, not_before=ago(1)), [failed], [REQUEUED], scene())
    assert over[0].wait == "worker"


def test_why_says_first_that_nobody_leads() -> None:
    """Without a scheduler nothing moves, whatever else holds a run up."""
    gone = scene(around=replace(LED, is_led=False, renewed_at=ago(70)))
    told = "No scheduler leads (the last one, host-17, is not heard of since 03:02:55 UTC (1 min 10 s ago)): check that `sweep scheduler` runs."
    assert [reason.wait for reason in why_run(RUN, SWEEP, QUEUED, [], [], gone)] == ["scheduler", "worker"]
    assert why_run(RUN, SWEEP, QUEUED, [], [], gone)[0].text == told
    assert why_sweep(SWEEP, SweepCounts(), Progress(), {}, [], gone)[0].text == told
    never = scene(around=replace(LED, is_led=False, epoch=0, holder=""))
    assert "none has led yet" in why_run(RUN, SWEEP, QUEUED, [], [], never)[0].text


def test_why_tells_of_a_pause() -> None:
    """A pause is the reason, whatever the workers do, and says since when."""
    paused = Event(1, ago(60), "sweep", "pause", sweep_id="s")
    (reason,) = why_run(RUN, replace(SWEEP, state="paused"), QUEUED, [], [paused], scene())
    assert (reason.wait, reason.text) == (
        "resume",
        "The run waits because the sweep is paused since 03:03:05 UTC (1 min ago): no trial starts until `sweep resume`.",
    )
    reasons = why_sweep(replace(SWEEP, state="paused"), SweepCounts(open=1, queued=1), Progress(n_ready=1), {}, [paused], scene())
    assert [reason.wait for reason in reasons] == ["resume"]


PLACED: Final = replace(HELD, state="placed", placement=2)
CLAIMS: Final[dict[str, tuple[Standing, Scene, str, str]]] = {
    "just placed": (
        PLACED,
        scene(WORKER),
        "claim",
        (
            "It is placed on w1 since 03:04:01 UTC (4 s ago) and waits to be claimed; if the broker lost the message, the worker finds it within 5 s. "
            "Not claimed by 03:04:16 UTC (in 11 s), it is placed anew."
        ),
    ),
    "no broker": (
        PLACED,
        scene(WORKER, has_broker=False),
        "claim",
        (
            "It is placed on w1 since 03:04:01 UTC (4 s ago) and waits to be claimed; there is no broker: the worker finds it within 5 s. "
            "Not claimed by 03:04:16 UTC (in 11 s), it is placed anew."
        ),
    ),
    "another worker is busy": (
        PLACED,
        scene(WORKER, holdings=FULL[1:2]),
        "claim",
        (
            "It is placed on w1 since 03:04:01 UTC (4 s ago) and waits to be claimed; if the broker lost the message, the worker finds it within 5 s. "
            "Not claimed by 03:04:16 UTC (in 11 s), it is placed anew."
        ),
    ),
    "ahead": (
        PLACED,
        scene(WORKER, holdings=FULL[:1]),
        "slot",
        "It is placed on w1 ahead of time: its slot is busy, and the next that is free is for it.",
    ),
    "its worker is silent": (
        replace(PLACED, lease_until=ago(1)),
        scene(WORKER),
        "claim",
        "It is placed on w1, which is gone or not heard of; the scheduler places it anew.",
    ),
    "its worker was stopped": (
        replace(PLACED, session_state="ended"),
        scene(WORKER),
        "claim",
        "It is placed on w1, which is gone or not heard of; the scheduler places it anew.",
    ),
}


@pytest.mark.parametrize(("standing", "here", "wait", "told"), CLAIMS.values(), ids=CLAIMS)
def test_why_tells_what_a_placed_run_waits_for(standing: Standing, here: Scene, wait: str, told: str) -> None:
    """Between placement and claim there is a worker, a broker and a deadline."""
    (reason,) = why_run(replace(RUN, state="placed"), SWEEP, standing, [], [], here)
    assert (reason.wait, reason.text) == (wait, told)


# -- a run that runs, or has ended -------------------------------------------------------------------------------------

SUSPENDED: Final = replace(LED, suspended_until=ago(-950))
COURSES: Final[dict[str, tuple[Standing, Attempt, Scene, list[tuple[str, str]]]]] = {
    "runs": (HELD, ATTEMPT, scene(), [("", "Attempt 1 runs on w1 since 03:03:15 UTC (50 s ago).")]),
    "is prepared": (
        HELD,
        replace(ATTEMPT, started_at=None),
        scene(),
        [("start", "Attempt 1 is being prepared on w1 since 03:03:05 UTC (1 min ago): its code and environment, then its command.")],
    ),
    "output is read": (
        HELD,
        replace(ATTEMPT, started_at=None, info={"output_read_bytes": 120_400_000, "output_bytes": 300_000_000}),
        scene(),
        [("output", "Attempt 1 on w1 has ended; its output is being read for metrics: 120 of 300 MB.")],
    ),
    "verdict due": (
        replace(HELD, verdict_due=True),
        ATTEMPT,
        scene(),
        [("verdict", "Attempt 1 has ended: signal (It was killed). What follows, another attempt or the end, is the scheduler's to say.")],
    ),
    "worker silent": (
        replace(HELD, renewed_at=ago(100), lease_until=ago(40)),
        ATTEMPT,
        scene(),
        [
            (
                "worker_back",
                (
                    "w1 is silent since 03:02:25 UTC (1 min 40 s ago). If it does not come back, the attempt is lost and the run given to another worker "
                    "at 03:17:25 UTC (in 13 min 20 s)."
                ),
            ),
            ("", "Attempt 1 ran when last heard of on w1 since 03:03:15 UTC (50 s ago)."),
        ],
    ),
    "worker silent after an outage": (
        replace(HELD, renewed_at=ago(890), lease_until=ago(830)),
        ATTEMPT,
        scene(around=SUSPENDED),
        [
            (
                "worker_back",
                (
                    "w1 is silent since 02:49:15 UTC (14 min 50 s ago). If it does not come back, the attempt is lost and the run given to another worker "
                    "at 03:19:55 UTC (in 15 min 50 s). Nobody is given up just now: the cluster was away, and workers speak first."
                ),
            ),
            ("", "Attempt 1 ran when last heard of on w1 since 03:03:15 UTC (50 s ago)."),
        ],
    ),
    "worker stopped": (
        replace(HELD, session_state="ended", session_ended_at=ago(30), renewed_at=ago(32)),
        ATTEMPT,
        scene(reassign_after_s=40.0),
        [
            (
                "worker_back",
                (
                    "w1 was stopped in order at 03:03:35 UTC and left it running. If it does not come back, the attempt is lost and the run given to "
                    "another worker at 03:04:13 UTC (in 8 s)."
                ),
            ),
            ("", "Attempt 1 ran when last heard of on w1 since 03:03:15 UTC (50 s ago)."),
        ],
    ),
}


@pytest.mark.parametrize(("standing", "attempt", "here", "told"), COURSES.values(), ids=COURSES)
def test_why_tells_how_a_running_run_fares(standing: Standing, attempt: Attempt, here: Scene, told: list[tuple[str, str]]) -> None:
    """Preparing, running, silent, to be judged: what is known, and what happens next at the latest."""
    run = replace(RUNNING, cause="signal", detail="It was killed.") if standing.verdict_due else RUNNING
    assert [(reason.wait, reason.text) for reason in why_run(run, SWEEP, standing, [attempt], [], here)] == told


def test_why_names_a_missing_scheduler_where_it_matters() -> None:
    """A run that runs needs none; one that is to be judged, placed or given to another does."""
    gone = scene(WORKER, around=replace(LED, is_led=False))
    assert "scheduler" not in [reason.wait for reason in why_run(RUNNING, SWEEP, HELD, [ATTEMPT], [], gone)]
    for run, standing in (
        (RUNNING, replace(HELD, verdict_due=True)),
        (RUNNING, replace(HELD, lease_until=ago(1))),
        (replace(RUN, state="placed"), PLACED),
        (replace(RUN, state="finished"), HELD),
    ):
        assert "No scheduler leads" in " ".join(reason.text for reason in why_run(run, SWEEP, standing, [ATTEMPT], [], gone))


def test_why_tells_when_the_time_of_a_run_is_up() -> None:
    """`limits.trial_time` counts from the start of the command."""
    sweep = replace(SWEEP, launch=Launch(trial_time_s=120))
    (reason,) = why_run(RUNNING, sweep, HELD, [ATTEMPT], [], scene())
    assert reason.text.endswith("; its time is up at 03:05:15 UTC (in 1 min 10 s) (limits.trial_time).")


@pytest.mark.parametrize(("event", "who"), [("cancel_requested", "a cancel"), ("prune_requested", "a prune")])
def test_why_tells_who_asked_a_run_to_stop(event: str, who: str) -> None:
    """What was asked of the current attempt is told, with what happens if it does not obey."""
    asked = Event(2, ago(5), "run", event, run_id="r", attempt=1, detail="Cancelled by hand.")
    first, _ = why_run(RUNNING, SWEEP, HELD, [ATTEMPT], [asked], scene(stop_grace_s=7.0))
    told = f"It was asked to stop 5 s ago, by {who} (Cancelled by hand); if it does not end by itself, it is killed 7 s after its worker has heard of that."
    assert (first.wait, first.text) == ("stop", told)
    (only,) = why_run(RUNNING, SWEEP, HELD, [ATTEMPT], [replace(asked, attempt=0)], scene())
    assert only.text.startswith("Attempt 1 runs")


def test_why_lists_earlier_attempts() -> None:
    """What came before explains why this is the second."""
    lost = replace(ATTEMPT, state="lost", cause="lost", detail="Its worker has been silent.")
    reasons = why_run(replace(RUNNING, attempt=2), SWEEP, HELD, [lost, replace(ATTEMPT, attempt=2)], [], scene())
    assert [reason.text for reason in reasons][1:] == ["Attempt 1 lost on w1: lost (Its worker has been silent)."]


TOLD: Final = Event(5, NOW, "trial", "fail", "open", "failed", "s", 0, "r")
ENDS: Final = [
    ("lost", 4, replace(QUEUED, machinery_faults=3), "It was tried 4 times, with 3 of 3 retries on the machinery's budget (SWEEP_INFRA_RETRIES)."),
    ("exit_status", 1, QUEUED, "The sweep file gives failed code no further attempt (retry)."),
    (
        "exit_status",
        3,
        replace(QUEUED, user_retries=2, retry=Retry(2, ("exit_75", "signal"))),
        "It was tried 3 times, with 2 of 2 retries on the file's budget, which is for exit_75 and signal (retry).",
    ),
]


@pytest.mark.parametrize(("cause", "attempt", "standing", "told"), ENDS)
def test_why_tells_why_there_is_no_further_attempt(cause: str, attempt: int, standing: Standing, told: str) -> None:
    """A failure names the budget it was on, and how much of that was used (I6)."""
    run = replace(RUN, state="failed", attempt=attempt, cause=cause, detail="Why.")
    reasons = why_run(run, SWEEP, standing, [], [TOLD], scene())
    assert [reason.text for reason in reasons] == [f"The run is failed, cause {cause} (Why).", told]


def test_why_tells_of_an_end_that_the_search_has_not_heard_of() -> None:
    """Between a run's end and its trial's there is the scheduler."""
    finished = replace(RUN, state="finished", cause="completed", attempt=1)
    assert [r.wait for r in why_run(finished, SWEEP, QUEUED, [], [], scene())] == ["", "scheduler"]
    assert [r.wait for r in why_run(finished, SWEEP, QUEUED, [], [replace(TOLD, event="finish")], scene())] == [""]


def test_why_leaves_external_runs_to_their_clients() -> None:
    """What a client opened is the client's."""
    (reason,) = why_run(replace(RUN, kind="external", state="running"), None, None, [], [], scene())
    assert reason.text == "The run is running; a client opened it and its client ends it."


# -- a sweep -----------------------------------------------------------------------------------------------------------

SWEEPS: Final[dict[str, tuple[Sweep, SweepCounts, Progress, list[tuple[str, str]]]]] = {
    "runs and searches": (
        SWEEP,
        SweepCounts(open=2, running=2, finished=3),
        Progress(n_running=2),
        [
            ("", "2 trials run now."),
            ("search", "The search waits for a result: its next trial is proposed when one of the open ones has ended (5 of 10 proposed)."),
        ],
    ),
    "everything proposed": (SWEEP, SweepCounts(open=1, running=1, finished=9), Progress(n_running=1), [("", "1 trial runs now.")]),
    "everything ended": (
        SWEEP,
        SweepCounts(finished=10),
        Progress(),
        [("scheduler", "All trials have ended; the scheduler is about to end the sweep.")],
    ),
    "nothing yet": (
        replace(SWEEP, config={}),
        SweepCounts(),
        Progress(),
        [("scheduler", "The scheduler has yet to propose the next trial: check that `sweep scheduler` runs.")],
    ),
    "backs off": (
        SWEEP,
        SweepCounts(open=2, queued=2),
        Progress(n_backing_off=2, next_at=ago(-30)),
        [("back_off", "2 trials wait after a failed attempt, the first until 03:04:35 UTC (in 30 s).")],
    ),
    "between": (
        SWEEP,
        SweepCounts(open=3, running=1, placed=1, finished=7),
        Progress(n_placed=1, n_verdicts=1, n_untold=1),
        [
            ("claim", "1 trial is placed and waits to be claimed."),
            ("verdict", "1 failed attempt waits for the scheduler's word: another one, or the end."),
            ("scheduler", "1 trial has ended, and the search has yet to be told."),
        ],
    ),
    "silent workers": (
        replace(SWEEP, state="stopping", detail="Stopped by hand."),
        SweepCounts(open=3, running=3),
        Progress(n_running=3, n_silent=2, silent_since=ago(100)),
        [
            ("trials", "The sweep is stopping (Stopped by hand): 3 open trials may end, no new one starts."),
            ("", "1 trial runs now."),
            (
                "worker_back",
                (
                    "2 trials are on workers that are not heard of, the longest since 03:02:25 UTC (1 min 40 s ago); "
                    "given to others from 03:17:25 UTC (in 13 min 20 s) on."
                ),
            ),
        ],
    ),
}


@pytest.mark.parametrize(("sweep", "counts", "progress", "told"), SWEEPS.values(), ids=SWEEPS)
def test_why_tells_where_the_trials_of_a_sweep_are(sweep: Sweep, counts: SweepCounts, progress: Progress, told: list[tuple[str, str]]) -> None:
    """Everything open is somewhere, and what is not proposed has its reason."""
    assert [(reason.wait, reason.text) for reason in why_sweep(sweep, counts, progress, {}, [], scene())] == told


def test_why_tells_how_a_sweep_ended_and_what_failed() -> None:
    """A sweep's end has a cause; its failures are counted by theirs, and the last one is told."""
    ended = replace(SWEEP, state="failed", cause="over_budget", detail="10 trials failed.")
    last = trial(7, state="failed", cause="signal", detail="signal 9")
    reasons = why_sweep(ended, SweepCounts(failed=10), Progress(), {"exit_status": 9, "signal": 1}, [], scene(), last_failed=last)
    assert [reason.text for reason in reasons] == [
        "The sweep is failed, cause over_budget (10 trials failed).",
        "10 trials failed (9 by exit_status and 1 by signal); the last one, trial 7: signal (signal 9).",
    ]


TARGETED: Final = replace(SWEEP, config=CONFIG | {"metric": {"name": "rmse", "target": 0.5}})
REACHED: Final = "metric.target (0.5) is reached: trial 3 has rmse 0.25. No further trial is proposed (5 of 10 proposed)."


@pytest.mark.parametrize(
    ("sweep", "counts", "value", "told"),
    [
        (
            replace(TARGETED, state="finished", cause="completed"),
            SweepCounts(finished=5),
            0.25,
            [("", "The sweep is finished, cause completed."), ("", REACHED)],
        ),
        (TARGETED, SweepCounts(open=1, running=1, finished=4), 0.25, [("", "1 trial runs now."), ("trials", REACHED)]),
        (TARGETED, SweepCounts(finished=5), 0.25, [("scheduler", REACHED)]),
        # Not for that: nobody was as good, somebody ended it, or all were tried.
        (replace(TARGETED, state="finished", cause="completed"), SweepCounts(finished=5), 0.75, [("", "The sweep is finished, cause completed.")]),
        (replace(TARGETED, state="finished", cause="stopped"), SweepCounts(finished=5), 0.25, [("", "The sweep is finished, cause stopped.")]),
        (replace(TARGETED, state="finished", cause="completed"), SweepCounts(finished=10), 0.25, [("", "The sweep is finished, cause completed.")]),
        (replace(SWEEP, state="finished", cause="completed"), SweepCounts(finished=5), 0.25, [("", "The sweep is finished, cause completed.")]),
    ],
)
def test_why_names_the_target_that_a_sweep_has_reached(sweep: Sweep, counts: SweepCounts, value: float, told: list[tuple[str, str]]) -> None:
    """A search that has found enough proposes nothing more, which is why it ends before its time."""
    reasons = why_sweep(sweep, counts, Progress(n_running=counts.running), {}, [], scene(), best=trial(3, value=value))
    assert [(reason.wait, reason.text) for reason in reasons] == told


def test_why_tells_of_trials_that_have_yet_to_stop() -> None:
    """A cancelled sweep has ended; what runs of it has a while."""
    reasons = why_sweep(replace(SWEEP, state="cancelled", cause="cancelled"), SweepCounts(running=2), Progress(n_running=2), {}, [], scene())
    told = "2 trials were asked to stop and still run; what does not end by itself is killed 30 s after its worker has heard of that."
    assert [(reason.wait, reason.text) for reason in reasons[1:]] == [("stop", told)]


@pytest.mark.parametrize(
    ("state", "number", "told"),
    [
        ("active", 6, "Trial 6 was not proposed yet: 5 of 10 are."),
        ("active", 10, "There is no trial 10: the sweep has 5 trials."),
        ("finished", 6, "There is no trial 6: the sweep has 5 trials and ended at 03:04:04 UTC."),
    ],
)
def test_why_tells_of_a_trial_that_is_not_there(state: str, number: int, told: str) -> None:
    """One that may still come is told from one that never will."""
    sweep = replace(SWEEP, state=state, ended_at=ago(1) if state == "finished" else None)
    assert not_proposed(sweep, SweepCounts(finished=5), number, NOW)[0].text == told


# -- together with placement -------------------------------------------------------------------------------------------

RESOURCES = st.builds(
    Resources,
    cpus=st.sampled_from([0.5, 1.0, 2.0, 3.0]),
    memory_bytes=st.sampled_from([None, GIB // 2, GIB, 2 * GIB]),
    gpus=st.integers(0, 2),
    image=st.sampled_from([None, "img"]),
)
WORKERS = st.builds(
    lambda n, **fields: replace(WORKER, worker_id=f"w{n}-id", session_id=f"w{n}-session", name=f"w{n}", **fields),
    st.integers(0, 2),
    queues=st.sampled_from([("gpu",), ("cpu",), ("gpu", "cpu")]),
    slots=st.integers(1, 2),
    cpus=st.sampled_from([1.0, 2.0, 4.0]),
    memory_bytes=st.sampled_from([GIB, 2 * GIB]),
    gpus=st.integers(0, 2),
    runtimes=st.sampled_from([("process",), ("process", "docker")]),
    silent=st.booleans(),
    draining=st.booleans(),
)


@given(worker=WORKERS, resources=RESOURCES)
def test_why_and_placement_agree_on_what_a_worker_lacks(worker: WorkerView, resources: Resources) -> None:
    """What is told to be too small is what the scheduler passes by."""
    assert can_serve(worker, "gpu", resources) == ("gpu" in worker.queues and not lacks(worker, resources))


@given(
    workers=st.lists(WORKERS, max_size=3, unique_by=lambda worker: worker.worker_id),
    resources=RESOURCES,
    held=st.lists(st.tuples(st.integers(0, 2), RESOURCES, st.sampled_from(["s", "t"])), max_size=3),
    parallel=st.sampled_from([None, 1, 2]),
    avoid=st.lists(st.sampled_from(["w0-id", "w1-id", "w2-id"]), unique=True),
)
# An adopted attempt holds a GPU that its worker does not offer any more.
@example([replace(WORKER, session_id="w1-session", slots=2, cpus=1.0, gpus=0)], Resources(cpus=0.5), [(1, Resources(cpus=0.5, gpus=1), "s")], None, [])
def test_why_says_there_is_room_exactly_where_placement_finds_some(
    workers: list[WorkerView], resources: Resources, held: list[tuple[int, Resources, str]], parallel: int | None, avoid: list[str]
) -> None:
    """Whatever the cluster looks like: a run is placed at once, or told what it waits for (I5)."""
    holdings = [
        Holding(str(n), f"w{on}-session", sweep_id, sweep_id, n, "ann", "running", each, tuple(range(each.gpus))) for n, (on, each, sweep_id) in enumerate(held)
    ]
    runs = [HeldRun(h.run_id, h.sweep_id, "ann", h.session_id, h.state, h.resources, tuple(h.gpu_ids)) for h in holdings]
    waiting = QueuedRun("r", "s", "ann", "gpu", 50, NOW, resources, parallel, tuple(avoid))
    wish = Wish("s", "gpu", resources, parallel, avoid)
    (reason, *_) = why_not_placed(wish, Scene(LED, workers, holdings))
    placed = bool(choose_placements([waiting], runs, workers))
    assert (reason.wait == "placing") == placed


@given(
    workers=st.lists(WORKERS, max_size=3, unique_by=lambda worker: worker.worker_id),
    resources=RESOURCES,
    held=st.lists(st.tuples(st.integers(0, 2), RESOURCES), max_size=3),
)
def test_openings_are_what_placement_would_fill(workers: list[WorkerView], resources: Resources, held: list[tuple[int, Resources]]) -> None:
    """As many runs of a new sweep are placed on each worker as were promised, and no more."""
    holdings = [Holding(str(n), f"w{on}-session", "t", "t", n, "ann", "running", each, tuple(range(each.gpus))) for n, (on, each) in enumerate(held)]
    runs = [HeldRun(h.run_id, h.sweep_id, "ann", h.session_id, h.state, h.resources, tuple(h.gpu_ids)) for h in holdings]
    waiting = [QueuedRun(f"r{n}", "s", "kim", "gpu", 50, NOW, resources, None, ()) for n in range(7)]
    promised = {worker.worker_id: n for worker, n in openings(Wish("", "gpu", resources), Scene(LED, workers, holdings))}
    assert promised == Counter(placement.worker_id for placement in choose_placements(waiting, runs, workers))


# -- the story ---------------------------------------------------------------------------------------------------------

NAMES: Final = {"w1-id": "w1", "w2-id": "w2"}


def moves() -> list[Event]:
    """One event of each kind that a life cycle knows."""
    kinds: list[tuple[Any, Any]] = [("sweep", event) for event in ("submit", *SweepEvent)]
    kinds += [("trial", event) for event in TrialEvent] + [("attempt", event) for event in AttemptEvent]
    kinds += [("run", event) for event in ("queue", "cancel_requested", "prune_requested", *RunEvent)]
    return [Event(n, ago(-n), subject, str(event), run_id="r", attempt=1, trial_number=3, worker_id="w1-id") for n, (subject, event) in enumerate(kinds)]


def test_story_has_a_sentence_for_every_move() -> None:
    """Nothing in a life cycle is told in the record's own words."""
    for told in (tell_run(moves(), [], [], NAMES), tell_sweep(moves(), NAMES)):
        texts = [sentence.text for sentence in told]
        assert len(texts) == len(moves())
        assert all(text.endswith(".") and not text.startswith(("Run:", "Attempt:", "Sweep:")) for text in texts)
        assert len(set(texts)) == len(texts)


def test_story_of_a_run_tells_what_happened_when() -> None:
    """A placement not claimed, a worker lost after a restart, the next attempt after a wait, its end: in order."""
    events = [
        Event(1, ago(100), "run", "queue", None, "queued", "s", 3, "r"),
        Event(2, ago(99), "run", "place", "queued", "placed", "s", 3, "r", worker_id="w1-id"),
        Event(3, ago(84), "run", "unplace", "placed", "queued", "s", 3, "r", worker_id="w1-id", detail="It was not claimed in time."),
        Event(4, ago(83), "run", "place", "queued", "placed", "s", 3, "r", worker_id="w1-id"),
        Event(5, ago(82), "run", "claim", "placed", "running", "s", 3, "r", 1, "w1-id"),
        Event(6, ago(30), "attempt", "lose", "running", "lost", "s", 3, "r", 1, "w1-id", "lost", "Its worker has been silent."),
        Event(7, ago(29), "run", "requeue", "running", "queued", "s", 3, "r", 1, None, "lost", "Attempt 2 follows.", {"not_before": ago(28).isoformat()}),
        Event(8, ago(27), "run", "place", "queued", "placed", "s", 3, "r", worker_id="gone-and-forgotten"),
    ]
    lost = replace(ATTEMPT, state="lost", claimed_at=ago(82), started_at=ago(80), ended_at=ago(30))
    stays = [
        Stay("r", 1, "w1", ago(500), "ended", is_later=False, ended_at=ago(70), is_over=True),
        Stay("r", 1, "w1", ago(60), "lost", is_later=True, ended_at=ago(30), is_over=False),
    ]
    assert [(clock_text(s.at, NOW)[:8], s.text) for s in tell_run(events, [lost], stays, NAMES)] == [
        ("03:02:25", "Trial 3 was proposed, and its run waits for a worker."),
        ("03:02:26", "Placed on w1."),
        ("03:02:41", "Taken back from w1: It was not claimed in time."),
        ("03:02:42", "Placed on w1."),
        ("03:02:43", "w1 claimed it: attempt 1 began."),
        ("03:02:45", "The command of attempt 1 started."),
        ("03:02:55", "Worker w1 was stopped; attempt 1 ran on without it."),
        ("03:03:05", "Worker w1 was started anew and went on with attempt 1."),
        ("03:03:35", "Attempt 1 was lost with w1: lost (Its worker has been silent)."),
        ("03:03:36", "Attempt 2 follows; not before 03:03:37 UTC."),
        ("03:03:38", "Placed on worker gone-and."),
    ]


def test_story_of_a_sweep_names_the_trials() -> None:
    """What went wrong with a trial is told under its number; the sweep's own moves are not."""
    events = [
        Event(1, ago(9), "sweep", "submit", sweep_id="s", detail="kim"),
        Event(2, ago(8), "run", "requeue", sweep_id="s", trial_number=3, detail="It failed (exit_75); attempt 2 follows."),
        Event(3, ago(7), "trial", "fail", "open", "failed", "s", 3, cause="exit_status", detail="ValueError: no"),
    ]
    assert [sentence.text for sentence in tell_sweep(events, {})] == [
        "Submitted by kim.",
        "Trial 3: It failed (exit_75); attempt 2 follows.",
        "Trial 3 ended as failed: exit_status (ValueError: no); the search was told.",
    ]


# -- words -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-3, "0 s"), (0.4, "0 s"), (12.4, "12 s"), (59.7, "1 min"), (252, "4 min 12 s"), (3600, "1 h"), (11_105, "3 h 5 min"), (187_205, "2 d 4 h")],
)
def test_span_text(seconds: float, text: str) -> None:
    """Two units, rounded."""
    assert span_text(seconds) == text


def test_times_name_their_day_where_it_is_another() -> None:
    """A time of today is short; a time that has passed is due."""
    assert clock_text(ago(86_400), NOW) == "2026-01-01 03:04:05 UTC"
    assert until_text(ago(1), NOW) == "03:04:04 UTC (due now)"


@pytest.mark.parametrize(("words", "text"), [([], ""), (["a"], "a"), (["a", "b"], "a and b"), (list("abcdef"), "a, b, c, d and 2 more")])
def test_listed(words: list[str], text: str) -> None:
    """A long list is cut, and says so."""
    assert listed(words) == text
