"""What a failed attempt means: another one, or the end. Pure (I6)."""

from dataclasses import dataclass
from typing import Final

from tracking.states import MACHINERY_CAUSES
from tracking.store.queue import DueVerdict

_FIRST_DELAY_S: Final = 1.0
_LONGEST_DELAY_S: Final = 60.0


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
    """The verdict on one failed attempt.

    Faults of the machinery have their own budget and back off, doubling from one second to a minute.
    """
    if due.cancel and due.cause in MACHINERY_CAUSES:
        return Cancelled()
    if due.cause not in MACHINERY_CAUSES or due.machinery_faults >= infra_retries:
        return Failed()
    delay_s = min(_FIRST_DELAY_S * 2**due.machinery_faults, _LONGEST_DELAY_S)
    return Again(delay_s, machinery=True, detail=f"The machinery failed ({due.cause}); attempt {due.attempt + 1} follows on another worker if there is one.")
