"""The verdict on a failed attempt: another one, or the end (I6)."""

import random
from statistics import mean
from typing import Any

import pytest

from scheduler.retry import Again, Cancelled, Failed, back_off_s, decide
from tracking.records import Retry
from tracking.states import MACHINERY_CAUSES, Cause
from tracking.store.queue import DueVerdict

USERS_CAUSES = sorted(set(Cause) - MACHINERY_CAUSES)
EVERYTHING = Retry(n_max=2, on=tuple(Cause))


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


# -- the user's budget -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cause", USERS_CAUSES)
@pytest.mark.parametrize("cancel", [False, True])
def test_retry_users_failure_is_final_when_the_file_asks_for_no_retry(cause: str, cancel: bool) -> None:
    """What the user's code did is the run's end, whatever budget the machinery has left; a cancel does not hide it."""
    assert decide(due(cause, cancel=cancel), infra_retries=3) == Failed()


@pytest.mark.parametrize("cause", ["exit_status", "signal", "out_of_memory", "timed_out"])
def test_retry_of_the_file_is_for_failures_of_the_code(cause: str) -> None:
    """`retry: {max: 2}` alone tries again what the command itself did wrong, wherever a worker is free."""
    verdict = decide(due(cause, attempt=2, retry=Retry(n_max=2), user_retries=1), infra_retries=3)
    assert isinstance(verdict, Again)
    assert not verdict.machinery
    assert "attempt 3 follows" in verdict.detail
    assert "retry 2 of 2" in verdict.detail


@pytest.mark.parametrize("cause", ["environment", "image", "code", "no_objective"])
def test_retry_of_the_file_is_not_for_what_it_does_not_name(cause: str) -> None:
    """What would fail in the same way again is tried again only where `on` says so."""
    assert decide(due(cause, retry=Retry(n_max=2)), infra_retries=3) == Failed()
    assert isinstance(decide(due(cause, retry=Retry(n_max=2, on=(cause,))), infra_retries=3), Again)


@pytest.mark.parametrize(
    ("fields", "on", "expected"),
    [
        ({"cause": "exit_status", "exit_status": 75}, ("exit_75",), True),
        ({"cause": "exit_status", "exit_status": 1}, ("exit_75",), False),
        ({"cause": "exit_status", "exit_status": 7}, ("exit_75", "signal_7"), False),
        ({"cause": "exit_status", "exit_status": 1}, ("exit_75", "exit_status"), True),
        ({"cause": "signal", "signal": 9}, ("signal_9",), True),
        ({"cause": "signal", "signal": 11}, ("signal_9", "exit_11"), False),
        # The number alone is not the cause: a killed container reports 137 when its memory ran out.
        ({"cause": "out_of_memory", "exit_status": 137}, ("exit_137",), False),
        ({"cause": "timed_out", "signal": 9}, ("signal_9",), False),
    ],
)
def test_retry_of_the_file_tells_endings_apart(fields: dict[str, Any], on: tuple[str, ...], expected: bool) -> None:
    """`exit_75` is that exit status and no other."""
    assert isinstance(decide(due(**fields, retry=Retry(n_max=1, on=on)), infra_retries=3), Again) is expected


def test_retry_of_the_file_ends_after_so_many() -> None:
    """`max` further attempts, then the failure is final."""
    verdicts = [decide(due("signal", user_retries=n, retry=EVERYTHING), infra_retries=3) for n in range(4)]
    assert [isinstance(verdict, Again) for verdict in verdicts] == [True, True, False, False]


@pytest.mark.parametrize("asked", ["cancel", "prune", "is_stopping"])
def test_retry_of_the_file_is_not_for_what_was_asked_to_end(asked: str) -> None:
    """A run that was to be cancelled or pruned, and any run of a sweep that stops, keeps its failure."""
    assert decide(due("exit_status", retry=EVERYTHING, **{asked: True}), infra_retries=3) == Failed()


# -- the machinery's ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cause", sorted(MACHINERY_CAUSES))
def test_retry_machinery_fault_gives_another_attempt(cause: str) -> None:
    """The machinery's fault is tried again, away from its worker, and the detail says why."""
    verdict = decide(due(cause, attempt=2), infra_retries=3)
    assert isinstance(verdict, Again)
    assert verdict.machinery
    assert cause in verdict.detail
    assert "attempt 3" in verdict.detail


@pytest.mark.parametrize("cause", sorted(MACHINERY_CAUSES))
def test_retry_budgets_never_pay_for_each_other(cause: str) -> None:
    """The machinery's fault counts on its own budget even where `on` names it, and a spent one of the other kind changes nothing (I6)."""
    verdict = decide(due(cause, user_retries=2, retry=EVERYTHING), infra_retries=3)
    assert isinstance(verdict, Again)
    assert verdict.machinery
    assert decide(due(cause, machinery_faults=3, retry=EVERYTHING), infra_retries=3) == Failed()
    users = decide(due("exit_status", machinery_faults=3, retry=EVERYTHING), infra_retries=3)
    assert isinstance(users, Again)
    assert not users.machinery


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


@pytest.mark.parametrize("cause", sorted(MACHINERY_CAUSES))
def test_retry_machinery_fault_is_tried_again_when_the_sweep_stops(cause: str) -> None:
    """What ran when the sweep was stopped may end: an interruption that was not its own doing is no end."""
    assert isinstance(decide(due(cause, is_stopping=True, prune=True), infra_retries=3), Again)


# -- back-off ----------------------------------------------------------------------------------------------------------


def waits(cause: str, count: str, **fields: Any) -> list[float]:
    """How long each of the first nine attempts on one budget waits."""
    verdicts = [decide(due(cause, **{count: n}, **fields), infra_retries=100) for n in range(9)]
    return [v.delay_s for v in verdicts if isinstance(v, Again)]


def test_retry_delay_doubles_up_to_a_cap() -> None:
    """The machinery's: 1, 2, 4 ... 60 seconds; the file's: as it says; each up to a quarter less."""
    retry = Retry(n_max=100, delay_s=10, delay_max_s=45)
    for found, whole in (
        (waits("launch", "machinery_faults"), [1, 2, 4, 8, 16, 32, 60, 60, 60]),
        (waits("signal", "user_retries", retry=retry), [10, 20, 40, 45, 45, 45, 45, 45, 45]),
    ):
        assert len(found) == len(whole)
        assert all(0.75 * most <= delay_s <= most for delay_s, most in zip(found, whole, strict=True))


def test_retry_delay_counts_attempts_of_its_own_budget_only() -> None:
    """Many retries of the user do not make the machinery's first one late, nor the other way round."""
    assert waits("launch", "machinery_faults") == waits("launch", "machinery_faults", user_retries=50)
    retry = Retry(n_max=100)
    assert waits("signal", "user_retries", retry=retry) == waits("signal", "user_retries", retry=retry, machinery_faults=50)


def test_back_off_is_the_same_whoever_asks_and_spread_over_runs() -> None:
    """The jitter comes from run and attempt alone: a scheduler that takes over waits no other time, and runs do not come back together."""
    random.seed(1)
    first = [back_off_s(f"run-{n}", 1, 0, first_s=8, longest_s=60) for n in range(500)]
    random.seed(2)
    assert first == [back_off_s(f"run-{n}", 1, 0, first_s=8, longest_s=60) for n in range(500)]
    assert min(first) >= 6
    assert max(first) <= 8
    assert abs(mean(first) - 7) < 0.1
    assert len(set(first)) == 500
    assert back_off_s("run-1", 2, 0, first_s=8, longest_s=60) != first[1]


def test_back_off_bears_any_number_of_attempts() -> None:
    """A budget of thousands does not leave what a float holds."""
    assert 45 <= back_off_s("r", 1, 100_000, first_s=1, longest_s=60) <= 60
