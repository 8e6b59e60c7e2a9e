"""The tables of moves: final states by name, and every (state, event) pair."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from tracking import states
from tracking.states import (
    AttemptEvent,
    AttemptState,
    Cause,
    Move,
    RunEvent,
    RunState,
    SweepEvent,
    SweepState,
    TrialEvent,
    TrialState,
)


@dataclass(frozen=True)
class LifeCycle:
    """One table under test, with what the design says about it, written out by hand.

    Attributes:
        allowed: every allowed move as `state event state`.
    """

    name: str
    states: type[StrEnum]
    events: type[StrEnum]
    moves: Mapping[Any, Move]
    final: Collection[str]
    allowed: str
    finals: str
    reopens: str = ""

    def expected(self) -> set[tuple[str, str, str]]:
        """`allowed`, parsed."""
        words = self.allowed.split()
        return set(zip(words[::3], words[1::3], words[2::3], strict=True))


SWEEP = LifeCycle(
    name="sweep",
    states=SweepState,
    events=SweepEvent,
    moves=states.SWEEP_MOVES,
    final=states.FINAL_SWEEP_STATES,
    finals="finished failed cancelled",
    reopens="finished failed",
    allowed="""
        active pause paused         paused resume active        active stop stopping        paused stop stopping
        active finish finished      paused finish finished      stopping finish finished
        active fail failed          paused fail failed          stopping fail failed
        active cancel cancelled     paused cancel cancelled     stopping cancel cancelled
        finished extend active      finished retry active       failed retry active
        finished reopen stopping    failed reopen stopping
    """,
)
TRIAL = LifeCycle(
    name="trial",
    states=TrialState,
    events=TrialEvent,
    moves=states.TRIAL_MOVES,
    final=states.FINAL_TRIAL_STATES,
    finals="finished failed pruned cancelled",
    reopens="failed cancelled",
    allowed="open finish finished  open fail failed  open prune pruned  open cancel cancelled  failed retry open  cancelled retry open",
)
RUN = LifeCycle(
    name="run",
    states=RunState,
    events=RunEvent,
    moves=states.RUN_MOVES,
    final=states.FINAL_RUN_STATES,
    finals="finished failed pruned cancelled",
    allowed="""
        queued place placed         placed unplace queued       placed claim running        running requeue queued
        running finish finished     running fail failed         running prune pruned        running cancel cancelled
        queued reject failed        placed reject failed        queued drop cancelled       placed drop cancelled
    """,
)
ATTEMPT = LifeCycle(
    name="attempt",
    states=AttemptState,
    events=AttemptEvent,
    moves=states.ATTEMPT_MOVES,
    final=states.FINAL_ATTEMPT_STATES,
    finals="succeeded failed stopped lost",
    allowed="running succeed succeeded  running fail failed  running stop stopped  running lose lost",
)
LIFE_CYCLES: Final = (SWEEP, TRIAL, RUN, ATTEMPT)

life_cycle = pytest.mark.parametrize("cycle", LIFE_CYCLES, ids=lambda cycle: cycle.name)


@life_cycle
def test_states_final_ones_are_those_of_the_design(cycle: LifeCycle) -> None:
    """The final states, by name."""
    assert {str(state) for state in cycle.final} == set(cycle.finals.split())


@life_cycle
def test_states_every_event_has_a_move(cycle: LifeCycle) -> None:
    """No event without a row in the table, no row without an event."""
    assert set(cycle.moves) == set(cycle.events)


@given(pair=st.sampled_from([(cycle, state, event) for cycle in LIFE_CYCLES for state in cycle.states for event in cycle.events]))
def test_states_every_pair_moves_as_written_or_not_at_all(pair: tuple[LifeCycle, StrEnum, StrEnum]) -> None:
    """Each (state, event) pair either moves to the state that the design names or is refused."""
    cycle, state, event = pair
    move = cycle.moves[event]
    moves_to = {(str(state), str(event), move.to)} if state in move.from_ else set()
    assert moves_to == {row for row in cycle.expected() if row[:2] == (state, event)}


@life_cycle
def test_states_all_allowed_moves_are_in_the_table(cycle: LifeCycle) -> None:
    """The table and the list written by hand are the same set."""
    assert {(state, str(event), move.to) for event, move in cycle.moves.items() for state in move.from_} == cycle.expected()


@life_cycle
def test_states_final_ones_never_reopen_except_by_request_of_a_person(cycle: LifeCycle) -> None:
    """Only `extend` and `retry` leave a sweep that has ended, and `retry` a failed or cancelled trial; runs and attempts never reopen."""
    reopened = {state for move in cycle.moves.values() for state in move.from_ if state in cycle.final}
    assert reopened == set(cycle.reopens.split())


@life_cycle
def test_states_every_one_can_reach_an_end(cycle: LifeCycle) -> None:
    """From each state some sequence of events leads to a final one: nothing is stuck by construction (I5)."""
    reached = {str(state) for state in cycle.final}
    while grown := {state for move in cycle.moves.values() if move.to in reached for state in move.from_} - reached:
        reached |= grown
    assert reached == {str(state) for state in cycle.states}


def test_states_every_state_of_a_run_has_an_mlflow_status() -> None:
    """Managed states, external states and a sweep's parent all have an MLflow status."""
    known = {*map(str, RunState), *states.EXTERNAL_STATE.values(), *states.SWEEP_RUN_STATE.values()}
    assert known <= set(states.MLFLOW_STATUS)
    assert set(states.MLFLOW_STATUS.values()) == set(states.EXTERNAL_STATE)


def test_states_mlflow_status_survives_the_way_through_an_external_run() -> None:
    """What a client sets is what it reads back."""
    assert {status: states.MLFLOW_STATUS[state] for status, state in states.EXTERNAL_STATE.items()} == {s: s for s in states.EXTERNAL_STATE}


def test_states_a_sweeps_parent_is_over_exactly_when_the_sweep_is() -> None:
    """The parent run of a sweep is running until the sweep is final."""
    running = {sweep for sweep, run in states.SWEEP_RUN_STATE.items() if run == "running"}
    assert set(map(str, SweepState)) == set(states.SWEEP_RUN_STATE)
    assert running == set(map(str, SweepState)) - set(SWEEP.finals.split())


def test_states_the_machinery_is_to_blame_for_lost_and_unlaunched_runs_only() -> None:
    """A user's retries are never spent on these, and always on the others (I6)."""
    assert {str(cause) for cause in Cause if cause.is_machinery} == {"lost", "launch"}


class RunLife(RuleBasedStateMachine):
    """A run under any sequence of events: guarded moves only, at most one live attempt, one end."""

    def __init__(self) -> None:
        super().__init__()
        self.state: str = RunState.QUEUED
        self.live_attempts = 0
        self.n_ends = 0

    @precondition(lambda self: self.state not in RUN.final)
    @rule(event=st.sampled_from(RunEvent))
    def apply(self, event: RunEvent) -> None:
        """Try one event on a run that has not ended."""
        move = states.RUN_MOVES[event]
        if self.state not in move.from_:
            return
        self.live_attempts += (move.to == RunState.RUNNING) - (self.state == RunState.RUNNING)
        self.state = move.to
        self.n_ends += self.state in RUN.final
        assert self.live_attempts == (self.state == RunState.RUNNING)

    @precondition(lambda self: self.state in RUN.final)
    @rule(event=st.sampled_from(RunEvent))
    def apply_after_the_end(self, event: RunEvent) -> None:
        """A late event moves nothing."""
        assert self.state not in states.RUN_MOVES[event].from_
        assert self.n_ends == 1


TestRunLife = RunLife.TestCase
