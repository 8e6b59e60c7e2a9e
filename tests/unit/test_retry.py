"""The verdict on a failed attempt: another one, or the end (I6)."""

from typing import Any

import pytest

from scheduler.retry import Again, Cancelled, Failed, decide
from tracking.states import MACHINERY_CAUSES, Cause
from tracking.store.queue import DueVerdict

USERS_CAUSES = sorted(set(Cause) - MACHINERY_CAUSES)


def due(cause: str, **fields: Any) -> DueVerdict:
    """A verdict that is due."""
    given: dict[str, Any] = {
        "run_id": "r",
        "attempt": 1,
        "sweep_id": "s",
        "trial_number": 0,
        "worker_id": "w",
        "detail": "",
        "machinery_faults": 0,
        "cancel": False,
        "prune": False,
    }
    return DueVerdict(cause=cause, **{**given, **fields})


@pytest.mark.parametrize("cause", USERS_CAUSES)
@pytest.mark.parametrize("cancel", [False, True])
def test_retry_users_failure_is_final(cause: str, cancel: bool) -> None:
    """What the user's code did is the run's end, whatever budget the machinery has left; a cancel does not hide it."""
    assert decide(due(cause, cancel=cancel), infra_retries=3) == Failed()


@pytest.mark.parametrize("cause", sorted(MACHINERY_CAUSES))
def test_retry_machinery_fault_gives_another_attempt(cause: str) -> None:
    """The machinery's fault is tried again, away from its worker, and the detail says why."""
    verdict = decide(due(cause, attempt=2), infra_retries=3)
    assert isinstance(verdict, Again)
    assert verdict.machinery
    assert cause in verdict.detail
    assert "attempt 3" in verdict.detail


def test_retry_delay_doubles_up_to_a_minute() -> None:
    """Back-off: 1, 2, 4 ... 60 seconds."""
    verdicts = [decide(due("launch", machinery_faults=n), infra_retries=100) for n in range(9)]
    assert [v.delay_s for v in verdicts if isinstance(v, Again)] == [1, 2, 4, 8, 16, 32, 60, 60, 60]


def test_retry_budget_is_spent_after_so_many_faults() -> None:
    """`infra_retries` faults are forgiven, the next one is final."""
    verdicts = [decide(due("lost", machinery_faults=n), infra_retries=3) for n in range(5)]
    assert [isinstance(verdict, Again) for verdict in verdicts] == [True, True, True, False, False]
    assert verdicts[-1] == Failed()


@pytest.mark.parametrize("cause", sorted(MACHINERY_CAUSES))
@pytest.mark.parametrize("faults", [0, 99])
def test_retry_cancelled_run_is_not_tried_again(cause: str, faults: int) -> None:
    """A cancel was asked for and the attempt is gone: there is nothing left to stop."""
    assert decide(due(cause, cancel=True, machinery_faults=faults), infra_retries=3) == Cancelled()
