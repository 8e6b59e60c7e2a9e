"""What an extension and a retry by hand make of a sweep's configuration, and what they refuse."""

from datetime import UTC, datetime
from typing import Any

import pytest

from sweeps.api.again import extended, is_used_up
from sweeps.spec import config_from_mapping
from sweeps.spec_config import SweepConfig
from tracking.errors import InvalidValue, NotNow
from tracking.records import Launch, Sweep, SweepCounts

RANDOM: dict[str, Any] = {"method": "random", "parameters": {"a": {"min": 0.0, "max": 1.0}}}
GRID: dict[str, Any] = {"method": "grid", "parameters": {"a": {"values": [1, 2, 3, 4, 5, 6]}}}


def sweep_of(state: str, cause: str | None = None) -> Sweep:
    """A sweep in this state."""
    now = datetime(2026, 1, 1, tzinfo=UTC)
    return Sweep("id", "1", "s", "calm-owl-1", state, "ann", {}, "", Launch(), "loss", "minimize", "last", "default", 50, None, now, cause=cause)


def config_of(method: dict[str, Any], **limits: Any) -> SweepConfig:
    """The configuration of a file with these limits."""
    return config_from_mapping({"program": "t.py", "metric": {"name": "loss", "goal": "minimize"}, **method, "limits": limits})


def more(sweep: Sweep, config: SweepConfig, n_more: int, *, total: int = 10, best: float | None = None, cancelled: int = 0) -> SweepConfig:
    """The configuration extended by so many, of a sweep that was submitted a minute ago."""
    return extended(sweep, config, SweepCounts(finished=total - cancelled, cancelled=cancelled), n_more, 60, best)


@pytest.mark.parametrize("state", ["active", "paused", "finished"])
def test_extend_sets_the_number_of_trials_and_nothing_else(state: str) -> None:
    """All other limits stay."""
    config = config_of(RANDOM, trials=10, parallel=2, failures=3)
    assert more(sweep_of(state), config, 5) == config_of(RANDOM, trials=15, parallel=2, failures=3)


def test_extend_counts_from_what_was_asked_for_while_it_goes_on() -> None:
    """Ten were asked for and four are there: three more are thirteen; of one that was stopped, seven."""
    assert more(sweep_of("active"), config_of(RANDOM, trials=10), 3, total=4).trials_max == 13
    assert more(sweep_of("finished", "stopped"), config_of(RANDOM, trials=10), 3, total=4).trials_max == 7


def test_extend_of_a_grid_ends_at_its_last_cell() -> None:
    """All cells, and not one more."""
    config = config_of(GRID, trials=4)
    assert more(sweep_of("active"), config, 2, total=3).trials_max == 6
    with pytest.raises(InvalidValue, match="has 2 cells more, not 3"):
        more(sweep_of("active"), config, 3, total=3)
    with pytest.raises(NotNow, match="every cell of its grid, 6 in all") as refused:
        more(sweep_of("finished", "stopped"), config_of(GRID), 1, total=6, cancelled=2)
    assert "--cancelled" in (refused.value.hint or "")


@pytest.mark.parametrize("n_more", [-1, 0, 2**31])
def test_extend_refuses_numbers_that_are_no_more(n_more: int) -> None:
    """Fewer, as many, or beyond what the record counts."""
    with pytest.raises(InvalidValue, match=r"1 (to|or)"):
        more(sweep_of("active"), config_of(RANDOM, trials=10), n_more)


def test_extend_refuses_what_can_have_no_more() -> None:
    """It sets no number, its time is over, its target is reached, or it has failed: each with the reason."""
    with pytest.raises(NotNow, match="until it is stopped"):
        more(sweep_of("active"), config_of(RANDOM, time="1h"), 9)
    with pytest.raises(NotNow, match=r"limits\.time"):
        more(sweep_of("finished", "over_budget"), config_of(RANDOM, trials=10, time="1m"), 9)
    aimed = {**RANDOM, "metric": {"name": "loss", "goal": "minimize", "target": 0.5}}
    assert more(sweep_of("finished"), config_of(aimed, trials=10), 9, best=0.6).trials_max == 19
    with pytest.raises(NotNow, match=r"metric\.target"):
        more(sweep_of("finished"), config_of(aimed, trials=10), 9, best=0.5)
    with pytest.raises(NotNow, match="has failed") as refused:
        more(sweep_of("failed"), config_of(RANDOM, trials=10), 20)
    assert "sweep retry calm-owl-1" in (refused.value.hint or "")


@pytest.mark.parametrize(
    ("state", "cause", "limits", "expected"),
    [
        ("active", None, {}, False),
        ("failed", "over_budget", {"failures": 2, "time": "1h"}, False),
        ("failed", "exit_status", {"trials": 4}, False),
        ("finished", "completed", {"trials": 4}, False),
        ("finished", "stopped", {"trials": 10}, True),
        ("finished", "over_budget", {"time": "1m"}, True),
        ("failed", "exit_status", {"time": "1m"}, True),
    ],
)
def test_retry_lets_a_sweep_propose_more_unless_that_was_ended(state: str, cause: str | None, limits: dict[str, Any], *, expected: bool) -> None:
    """By a stop, or by the end of its time; one that failed goes on to what its file asks for."""
    assert is_used_up(sweep_of(state, cause), config_of(RANDOM, **limits), 60) is expected
