"""The checker of invariants catches what it is there for: a healthy sweep passes, and each way to break its history is named."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import pytest

from tests.faults import invariants
from tests.faults.invariants import check, check_ledger
from tests.support.faults import FaultCluster
from tests.support.ledger import Line, ledger_file, read_ledger

ADD_ATTEMPT: Final = """
INSERT INTO attempts (run_id, attempt, state, worker_id, session_id, placement, claim_id, token_hash, claimed_at, ended_at, cause)
SELECT run_id, 2, 'succeeded', worker_id, session_id, placement + 1, 'another', '', {claimed_at}, now(), 'completed' FROM attempts LIMIT 1
"""
QUEUE_AGAIN: Final = """
INSERT INTO events (subject, event, to_state, sweep_id, run_id) SELECT subject, event, to_state, sweep_id, run_id FROM events WHERE event = 'queue'
"""
# How a history is broken, and what the checker says of it.
BREAKS: Final[Mapping[str, str]] = {
    "UPDATE sweeps SET state = 'active'": "the sweep is active",
    "UPDATE sweeps SET cause = NULL": "without a cause",
    "DELETE FROM trials WHERE number = 2": "trials are missing",
    "UPDATE trials SET number = 9 WHERE number = 3": "trials are missing",
    "UPDATE trials SET state = 'open', told_seq = NULL WHERE number = 0": "stuck",
    "UPDATE trials SET cause = NULL WHERE number = 0": "no cause",
    "UPDATE trials SET told_seq = 1": "told in one place",
    "UPDATE trials SET state = 'failed' WHERE number = 1": "different ends",
    "UPDATE runs SET state = 'running' WHERE trial_number = 1": "stuck",
    "UPDATE runs SET verdict_due = true WHERE trial_number = 1": "not over",
    "UPDATE runs SET machinery_faults = 1 WHERE trial_number = 1": "machinery's faults are counted wrongly",
    "UPDATE runs SET user_retries = 1 WHERE trial_number = 1": "user's retries are counted wrongly",
    "UPDATE attempts SET state = 'running' WHERE run_id = (SELECT run_id FROM trials WHERE number = 0)": "still alive",
    "UPDATE attempts SET attempt = 2": "attempts are missing",
    ADD_ATTEMPT.format(claimed_at="claimed_at"): "alive at once",
    ADD_ATTEMPT.format(claimed_at="now()"): "claimed and ended differ|executed, and not|never executed",
    "UPDATE events SET from_state = 'queued' WHERE event = 'finish' AND subject = 'run'": "not allowed from there",
    "UPDATE events SET to_state = 'failed' WHERE event = 'finish' AND subject = 'run'": "does not lead there",
    "DELETE FROM events WHERE event = 'place'": "before",
    "UPDATE events SET worker_id = 'another' WHERE event = 'claim'": "not placed on",
    "DELETE FROM events WHERE subject = 'trial' AND trial_number = 0": "concluded 0 times",
    QUEUE_AGAIN: "began twice",
    "DELETE FROM events WHERE subject = 'attempt'": "claimed and ended differ",
    "INSERT INTO metric_latest SELECT run_id, key, 7, series_id, step, time_ms, value, NULL, NULL FROM metric_latest": "not recorded",
}


def test_invariants_hold_for_a_healthy_sweep_and_name_what_is_broken(fault_cluster: Callable[..., FaultCluster], monkeypatch: pytest.MonkeyPatch) -> None:
    """Each break of the history is made in a copy of the record, and found; so is what is left behind."""
    cluster = fault_cluster(proxies=())
    project = cluster.ledger_project(n_trials=4)
    sweep_id = cluster.submit(project)
    cluster.wait_for_end(sweep_id)
    check(cluster, sweep_id, n_trials=4, ledger=ledger_file(project))
    with pytest.raises(AssertionError, match="trials are missing"):
        check(cluster, sweep_id, n_trials=5)
    check_left_behind(cluster, sweep_id, monkeypatch)
    for role in cluster.roles:
        role.kill()
    for statement, said in BREAKS.items():
        cluster.postgres.execute("DROP DATABASE IF EXISTS broken", database="postgres")
        cluster.postgres.execute("CREATE DATABASE broken TEMPLATE sweep", database="postgres")
        cluster.postgres.execute(statement, database="broken")
        cluster.database_url = cluster.postgres.url.removesuffix("sweep") + "broken"
        with pytest.raises(AssertionError, match=said):
            check(cluster, sweep_id, n_trials=4, ledger=ledger_file(project))


def check_left_behind(cluster: FaultCluster, sweep_id: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder of an attempt that has ended is one too many, on a worker that runs."""
    monkeypatch.setattr(invariants, "_TIDY_S", 0.5)
    (run_id,) = cluster.query("SELECT run_id FROM audit_trials WHERE sweep_id = %(id)s AND trial_number = 0", id=sweep_id)[0]
    (runs,) = cluster.folder.glob("home-w1/workers/*/runs")
    left = runs / run_id / "1"
    left.mkdir(parents=True)
    with pytest.raises(AssertionError, match=r"left behind: .*folder"):
        check(cluster, sweep_id, n_trials=4)
    left.rmdir()
    left.parent.rmdir()


class Recorded:
    """An attempt, as far as a ledger is compared with it."""

    def __init__(self, attempt: int, state: str = "succeeded") -> None:
        self.run_id = "r"
        self.attempt = attempt
        self.state = state


def lines(*entries: tuple[int, str, float]) -> list[Line]:
    """Of one run."""
    return [Line("r", attempt, 0, "start" if what == "start" else "end", at) for attempt, what, at in entries]


def test_ledger_of_two_attempts_one_after_the_other_is_in_order() -> None:
    """A failed one that has run, a given up one that runs on beside the next, one that never started."""
    check_ledger(lines((1, "start", 1), (1, "end", 2), (2, "start", 3), (2, "end", 4)), [Recorded(1, "failed"), Recorded(2)])
    check_ledger(lines((1, "start", 1), (2, "start", 2), (1, "end", 3), (2, "end", 4)), [Recorded(1, "lost"), Recorded(2)])
    check_ledger(lines((2, "start", 2), (2, "end", 4)), [Recorded(1, "lost"), Recorded(2)])


@pytest.mark.parametrize(
    ("entries", "attempts", "said"),
    [
        ([(1, "start", 1), (1, "start", 2), (1, "end", 3)], [Recorded(1)], "executed twice"),
        ([(1, "start", 1), (1, "end", 2), (1, "end", 3)], [Recorded(1)], "executed twice"),
        ([(1, "start", 1), (1, "end", 2), (2, "start", 3)], [Recorded(1)], "not recorded"),
        ([(1, "start", 1)], [Recorded(1)], "never executed to the end"),
        ([], [Recorded(1)], "never executed to the end"),
        ([(1, "start", 1), (2, "start", 2), (1, "end", 3), (2, "end", 4)], [Recorded(1, "failed"), Recorded(2)], "ran at once"),
    ],
)
def test_ledger_that_tells_another_story_than_the_record_is_found(entries: list[tuple[int, str, float]], attempts: list[Recorded], said: str) -> None:
    """Twice, unrecorded, unreal, at once."""
    with pytest.raises(AssertionError, match=said):
        check_ledger(lines(*entries), attempts)


def test_ledger_that_was_never_written_is_empty(tmp_path: Path) -> None:
    """No trial has started yet."""
    assert read_ledger(tmp_path / "ledger") == []
