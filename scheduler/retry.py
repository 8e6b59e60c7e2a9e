"""What a failed attempt means: another one, or the end. Pure (I6).

Two budgets, which never pay for each other: the machinery's (`SWEEP_INFRA_RETRIES`), and the user's for failures of their own code
(`retry:` in the sweep file). Both back off: the wait doubles with each attempt that the budget has paid for, up to a cap.
"""

import hashlib
from dataclasses import dataclass
from typing import Final

from tracking.states import MACHINERY_CAUSES, Cause
from tracking.store.queue import DueVerdict

_FIRST_DELAY_S: Final = 1.0
_LONGEST_DELAY_S: Final = 60.0
# Runs that failed together, as on a file server's bad minute, do not come back together.
_JITTER: Final = 0.25
# 2**30 times any first delay is beyond any cap; more would leave what a float holds.
_DOUBLINGS_MAX: Final = 30


@dataclass(frozen=True, slots=True)
class Again:
    """The run gets another attempt.

    Attributes:
        machinery: on the machinery's budget, away from the worker it happened on.
    """

    delay_s: float
    machinery: bool
    detail: str


@dataclass(frozen=True, slots=True)
class Failed:
    """The run has failed for good, with its attempt's cause."""


@dataclass(frozen=True, slots=True)
class Cancelled:
    """A cancel was asked for and there is nothing left to stop."""


def decide(due: DueVerdict, *, infra_retries: int) -> Again | Failed | Cancelled:
    """The verdict on one failed attempt."""
    return _of_machinery(due, infra_retries) if due.cause in MACHINERY_CAUSES else _of_user(due)


def back_off_s(run_id: str, attempt: int, n_before: int, *, first_s: float, longest_s: float) -> float:
    """How long a run waits after an attempt that failed.

    Args:
        run_id: with `attempt`, what the jitter comes from: the same question has the same answer, whichever scheduler asks.
        attempt: the one that failed.
        n_before: attempts that the same budget has paid for already.
        first_s: the first wait; it doubles with each.
        longest_s: the cap.

    Returns:
        the doubled wait, or up to a quarter less.
    """
    digest = hashlib.blake2b(f"{run_id}:{attempt}".encode(), digest_size=8).digest()
    whole_s: float = min(first_s * 2.0 ** min(n_before, _DOUBLINGS_MAX), longest_s)
    return whole_s * (1 - _JITTER * int.from_bytes(digest, "big") / 2**64)


def _of_machinery(due: DueVerdict, infra_retries: int) -> Again | Failed | Cancelled:
    if due.cancel:
        return Cancelled()
    if due.machinery_faults >= infra_retries:
        return Failed()
    delay_s = back_off_s(due.run_id, due.attempt, due.machinery_faults, first_s=_FIRST_DELAY_S, longest_s=_LONGEST_DELAY_S)
    detail = f"The machinery failed ({due.cause}); attempt {due.attempt + 1} follows on another worker if there is one."
    return Again(delay_s, machinery=True, detail=f"{detail} Machinery's retry {due.machinery_faults + 1} of {infra_retries}.")


def _of_user(due: DueVerdict) -> Again | Failed:
    """Nothing is tried again that somebody asked to end: the run, by a cancel or a prune, or the sweep, by a stop."""
    asked_to_end = due.cancel or due.prune or due.is_stopping
    if asked_to_end or due.user_retries >= due.retry.n_max or not _is_named(due):
        return Failed()
    delay_s = back_off_s(due.run_id, due.attempt, due.user_retries, first_s=due.retry.delay_s, longest_s=due.retry.delay_max_s)
    detail = f"It failed ({_ending(due)}); attempt {due.attempt + 1} follows. The file's retry {due.user_retries + 1} of {due.retry.n_max}."
    return Again(delay_s, machinery=False, detail=detail)


def _is_named(due: DueVerdict) -> bool:
    """Whether `retry.on` names how the attempt ended: by its cause, or by the very number."""
    return due.cause in due.retry.on or _ending(due) in due.retry.on


def _ending(due: DueVerdict) -> str:
    """`exit_75`, `signal_9`, or the cause."""
    if due.cause == Cause.EXIT_STATUS and due.exit_status is not None:
        return f"exit_{due.exit_status}"
    return f"signal_{due.signal}" if due.cause == Cause.SIGNAL and due.signal is not None else due.cause
