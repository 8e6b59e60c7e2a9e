"""The life cycles, once: event -> (states it may start from, the state it ends in).

The guarded UPDATE of each store method, the CHECK constraints, the diagrams in docs/states.md and the
state-machine tests all come from these tables. Final states of runs and attempts never reopen.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Final, NamedTuple


class Move(NamedTuple):
    """One allowed move: from any of `from_` to `to`."""

    from_: frozenset[str]
    to: str


class SweepState(StrEnum):
    ACTIVE = "active"
    PAUSED = "paused"
    STOPPING = "stopping"
    FINISHED = "finished"
    FAILED = "failed"
    CANCELLED = "cancelled"


class TrialState(StrEnum):
    OPEN = "open"
    FINISHED = "finished"
    FAILED = "failed"
    PRUNED = "pruned"
    CANCELLED = "cancelled"


class RunState(StrEnum):
    """Of managed runs; external runs use RUNNING, FINISHED, FAILED, KILLED and SCHEDULED by MLflow's own rules."""

    QUEUED = "queued"
    PLACED = "placed"
    RUNNING = "running"
    FINISHED = "finished"
    FAILED = "failed"
    PRUNED = "pruned"
    CANCELLED = "cancelled"


class AttemptState(StrEnum):
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    STOPPED = "stopped"
    LOST = "lost"


class Cause(StrEnum):
    """Why something ended (I7). Shown as it stands, with `detail` beside it."""

    COMPLETED = "completed"
    NO_OBJECTIVE = "no_objective"
    PRUNED = "pruned"
    CANCELLED = "cancelled"
    EXIT_STATUS = "exit_status"
    SIGNAL = "signal"
    OUT_OF_MEMORY = "out_of_memory"
    TIMED_OUT = "timed_out"
    LOST = "lost"
    ENVIRONMENT = "environment"
    IMAGE = "image"
    CODE = "code"
    LAUNCH = "launch"
    OVER_BUDGET = "over_budget"
    STOPPED = "stopped"
    SEARCH_FAILED = "search_failed"

    @property
    def is_machinery(self) -> bool:
        """Whether the machinery, not the user's code, is to blame (I6)."""
        return self in MACHINERY_CAUSES


MACHINERY_CAUSES: Final = frozenset({Cause.LOST, Cause.LAUNCH})


class SweepEvent(StrEnum):
    PAUSE = "pause"
    RESUME = "resume"
    STOP = "stop"
    FINISH = "finish"
    FAIL = "fail"
    CANCEL = "cancel"
    EXTEND = "extend"
    RETRY = "retry"
    REOPEN = "reopen"


class TrialEvent(StrEnum):
    FINISH = "finish"
    FAIL = "fail"
    PRUNE = "prune"
    CANCEL = "cancel"
    RETRY = "retry"


class RunEvent(StrEnum):
    PLACE = "place"
    UNPLACE = "unplace"
    CLAIM = "claim"
    REQUEUE = "requeue"
    FINISH = "finish"
    FAIL = "fail"
    REJECT = "reject"
    PRUNE = "prune"
    CANCEL = "cancel"
    DROP = "drop"


class AttemptEvent(StrEnum):
    SUCCEED = "succeed"
    FAIL = "fail"
    STOP = "stop"
    LOSE = "lose"


def _move(from_: set[StrEnum], to: StrEnum) -> Move:
    return Move(frozenset(str(s) for s in from_), str(to))


_S, _T, _R, _A = SweepState, TrialState, RunState, AttemptState

SWEEP_MOVES: Final[Mapping[SweepEvent, Move]] = {
    SweepEvent.PAUSE: _move({_S.ACTIVE}, _S.PAUSED),
    SweepEvent.RESUME: _move({_S.PAUSED}, _S.ACTIVE),
    SweepEvent.STOP: _move({_S.ACTIVE, _S.PAUSED}, _S.STOPPING),
    SweepEvent.FINISH: _move({_S.ACTIVE, _S.PAUSED, _S.STOPPING}, _S.FINISHED),
    SweepEvent.FAIL: _move({_S.ACTIVE, _S.PAUSED, _S.STOPPING}, _S.FAILED),
    SweepEvent.CANCEL: _move({_S.ACTIVE, _S.PAUSED, _S.STOPPING}, _S.CANCELLED),
    SweepEvent.EXTEND: _move({_S.FINISHED}, _S.ACTIVE),
    # By hand, for trials that failed: they are open again.
    SweepEvent.RETRY: _move({_S.FINISHED, _S.FAILED}, _S.ACTIVE),
    # The same of one that was stopped or has used up its time: these trials, and no new ones.
    SweepEvent.REOPEN: _move({_S.FINISHED, _S.FAILED}, _S.STOPPING),
}

TRIAL_MOVES: Final[Mapping[TrialEvent, Move]] = {
    TrialEvent.FINISH: _move({_T.OPEN}, _T.FINISHED),
    TrialEvent.FAIL: _move({_T.OPEN}, _T.FAILED),
    TrialEvent.PRUNE: _move({_T.OPEN}, _T.PRUNED),
    TrialEvent.CANCEL: _move({_T.OPEN}, _T.CANCELLED),
    # A retry by hand opens a new generation; it is told anew.
    TrialEvent.RETRY: _move({_T.FAILED, _T.CANCELLED}, _T.OPEN),
}

RUN_MOVES: Final[Mapping[RunEvent, Move]] = {
    RunEvent.PLACE: _move({_R.QUEUED}, _R.PLACED),
    # Not claimed in time, worker gone, or sweep paused.
    RunEvent.UNPLACE: _move({_R.PLACED}, _R.QUEUED),
    RunEvent.CLAIM: _move({_R.PLACED}, _R.RUNNING),
    # A retry: the attempt has ended, the run has not.
    RunEvent.REQUEUE: _move({_R.RUNNING}, _R.QUEUED),
    RunEvent.FINISH: _move({_R.RUNNING}, _R.FINISHED),
    RunEvent.FAIL: _move({_R.RUNNING}, _R.FAILED),
    # Failed without ever running: over budget, or nothing can run it.
    RunEvent.REJECT: _move({_R.QUEUED, _R.PLACED}, _R.FAILED),
    RunEvent.PRUNE: _move({_R.RUNNING}, _R.PRUNED),
    RunEvent.CANCEL: _move({_R.RUNNING}, _R.CANCELLED),
    # Cancelled without ever running.
    RunEvent.DROP: _move({_R.QUEUED, _R.PLACED}, _R.CANCELLED),
}

ATTEMPT_MOVES: Final[Mapping[AttemptEvent, Move]] = {
    AttemptEvent.SUCCEED: _move({_A.RUNNING}, _A.SUCCEEDED),
    AttemptEvent.FAIL: _move({_A.RUNNING}, _A.FAILED),
    AttemptEvent.STOP: _move({_A.RUNNING}, _A.STOPPED),
    AttemptEvent.LOSE: _move({_A.RUNNING}, _A.LOST),
}

FINAL_SWEEP_STATES: Final = frozenset({_S.FINISHED, _S.FAILED, _S.CANCELLED})
FINAL_TRIAL_STATES: Final = frozenset({_T.FINISHED, _T.FAILED, _T.PRUNED, _T.CANCELLED})
FINAL_RUN_STATES: Final = frozenset({_R.FINISHED, _R.FAILED, _R.PRUNED, _R.CANCELLED})
FINAL_ATTEMPT_STATES: Final = frozenset({_A.SUCCEEDED, _A.FAILED, _A.STOPPED, _A.LOST})

MLFLOW_STATUS: Final[Mapping[str, str]] = {
    "queued": "SCHEDULED",
    "placed": "SCHEDULED",
    "scheduled": "SCHEDULED",
    "running": "RUNNING",
    "finished": "FINISHED",
    "failed": "FAILED",
    "pruned": "KILLED",
    "cancelled": "KILLED",
    "killed": "KILLED",
}
"""MLflow's status of each state a run may be in, managed or external."""

EXTERNAL_STATE: Final[Mapping[str, str]] = {
    "RUNNING": "running",
    "SCHEDULED": "scheduled",
    "FINISHED": "finished",
    "FAILED": "failed",
    "KILLED": "killed",
}
"""The state an external run is in after a client set MLflow's status."""

SWEEP_RUN_STATE: Final[Mapping[str, str]] = {
    "active": "running",
    "paused": "running",
    "stopping": "running",
    "finished": "finished",
    "failed": "failed",
    "cancelled": "killed",
}
"""The state of a sweep's parent run; it follows from the sweep's."""
