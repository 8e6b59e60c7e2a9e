"""What an extension and a retry by hand make of a sweep's configuration, and what they refuse."""

from datetime import UTC, datetime
from typing import Any

import pytest

from sweeps.api.again import extended, retried
from sweeps.spec import config_from_mapping
from sweeps.spec_config import SweepConfig
from tracking.errors import InvalidValue, NotNow
from tracking.records import Launch, Sweep

RANDOM: dict[str, Any] = {"method": "random", "parameters": {"a": {"min": 0.0, "max": 1.0}}}
GRID: dict[str, Any] = {"method": "grid", "parameters": {"a": {"values": [1, 2, 3, 4, 5, 6]}}}


def sweep_of(state: str, cause: str | None = None) -> Sweep:
    """A sweep in this state."""
    now = datetime(2026, 1, 1, tzinfo=UTC)
    return Sweep("id", "1", "s", "calm-owl-1", state, "ann", {}, "", Launch(), "loss", "minimize", "last", "default", 50, None, now, cause=cause)


def config_of(method: dict[str, Any], **limits: Any) -> SweepConfig:
    """The configuration of a file with these limits."""
    return config_from_mapping({"program": "t.py", "metric": {"name": "loss", "goal": "minimize"}, **method, "limits": limits})


@pytest.mark.parametrize("state", ["active", "paused", "finished"])
def test_extend_sets_the_number_of_trials_and_nothing_else(state: str) -> None:
    """All other limits stay."""
    config = config_of(RANDOM, trials=10, parallel=2, failures=3)
    assert extended(sweep_of(state), config, 10, 15, 60) == config_of(RANDOM, trials=15, parallel=2, failures=3)


def test_extend_of_a_sweep_that_was_stopped_counts_from_what_it_has() -> None:
    """It was asked for ten and has four: six are more."""
    assert extended(sweep_of("finished", "stopped"), config_of(RANDOM, trials=10), 4, 6, 60).trials_max == 6


def test_extend_of_a_grid_ends_at_its_last_cell() -> None:
    """All cells, and not one more."""
    config = config_of(GRID, trials=2)
    assert extended(sweep_of("active"), config, 2, 6, 60).trials_max == 6
    with pytest.raises(InvalidValue, match="from 3 to 6"):
        extended(sweep_of("active"), config, 2, 7, 60)
    with pytest.raises(NotNow, match="every cell of its grid, 6 in all"):
        extended(sweep_of("finished"), config_of(GRID), 6, 8, 60)


@pytest.mark.parametrize("asked", [-1, 0, 9, 10, 2**31])
def test_extend_refuses_numbers_that_are_no_more(asked: int) -> None:
    """Fewer, as many, or beyond what the record counts."""
    with pytest.raises(InvalidValue, match="from 11 to"):
        extended(sweep_of("active"), config_of(RANDOM, trials=10), 5, asked, 60)


def test_extend_refuses_what_can_have_no_more() -> None:
    """It sets no number, its time is over, or it has failed: each with the reason."""
    with pytest.raises(NotNow, match="until it is stopped"):
        extended(sweep_of("active"), config_of(RANDOM, time="1h"), 5, 9, 60)
    with pytest.raises(NotNow, match=r"limits\.time"):
        extended(sweep_of("finished", "over_budget"), config_of(RANDOM, trials=10, time="1m"), 5, 9, 60)
    with pytest.raises(NotNow, match="has failed") as refused:
        extended(sweep_of("failed"), config_of(RANDOM, trials=10), 5, 20, 60)
    assert "sweep retry calm-owl-1" in (refused.value.hint or "")


@pytest.mark.parametrize(("state", "cause"), [("active", None), ("failed", "over_budget"), ("failed", "exit_status"), ("finished", "completed")])
def test_retry_leaves_the_configuration_as_it_is(state: str, cause: str | None) -> None:
    """A sweep that failed goes on to what its file asks for."""
    config = config_of(RANDOM, trials=10, failures=2, time="1h")
    assert retried(sweep_of(state, cause), config, 4, 60) == config


def test_retry_proposes_nothing_that_a_stop_had_ended() -> None:
    """Its trials are all that there will be."""
    assert retried(sweep_of("finished", "stopped"), config_of(RANDOM, trials=10), 4, 60) == config_of(RANDOM, trials=4)


def test_retry_after_the_time_is_over_has_as_long_as_it_takes() -> None:
    """Else it would be broken off at once; nothing else begins."""
    config = config_of(RANDOM, trials=10, time="1m", trial_time="30s")
    assert retried(sweep_of("finished", "over_budget"), config, 4, 60) == config_of(RANDOM, trials=4, trial_time="30s")
