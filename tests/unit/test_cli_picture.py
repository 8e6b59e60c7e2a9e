"""What people see of a sweep: lines of text, cut to fit."""

from typing import Any

import pytest

from sweeps.cli.picture import bar, ending_lines, failure_lines, next_lines, status_lines
from sweeps.cli.terminal import aligned, cut
from sweeps.standing import progress_text
from sweeps.wording import bytes_text, duration_text


def answer(n_running: int = 2, **changes: Any) -> Any:
    """A sweep in the middle of its work."""
    counts = {"total": 54, "open": 16, "queued": 8, "placed": 0, "running": n_running, "finished": 34, "failed": 1, "pruned": 3, "cancelled": 0}
    best = {"number": 31, "value": 0.75861234, "params": {"alpha": 0.01, "l1": 0.5}}
    trial = {"run_state": "running", "worker": "w1", "duration_s": 12.0, "params": {"alpha": 0.0134567}, "metric": {"key": "rmse", "value": 0.771, "step": 6}}
    return {
        "name": "wine",
        "short_id": "brave-otter-7f3a",
        "state": "active",
        "metric": "rmse",
        "trials_asked": 60,
        "elapsed_s": 252.0,
        "eta_s": 180.0,
        "counts": counts,
        "best": best,
        "running": [trial | {"number": 40 + n} for n in range(n_running)],
        "models": [],
        "cause": None,
        "detail": None,
    } | changes


def test_picture_shows_head_counts_best_and_running() -> None:
    """One line each, then a table of what runs with its last metric."""
    assert status_lines(answer(), 120, 30) == [
        "wine  brave-otter-7f3a  ACTIVE  4m12s  eta ~3m00s",
        "finished 34  running 2  pruned 3  failed 1  queued 8   [===============>----------] 38/60",
        "best rmse 0.75861  trial 31  alpha=0.01 l1=0.5",
        "  TRIAL  STATE    RMSE   STEP  WORKER  AGE  PARAMS",
        "  40     running  0.771  6     w1      12s  alpha=0.013457",
        "  41     running  0.771  6     w1      12s  alpha=0.013457",
    ]


@pytest.mark.parametrize(("columns", "rows"), [(40, 30), (80, 10), (100, 5), (59, 1)])
def test_picture_fits_the_terminal(columns: int, rows: int) -> None:
    """However small, nothing wraps and nothing scrolls."""
    lines = status_lines(answer(n_running=50), columns, rows)
    assert max(map(len, lines)) <= columns
    assert len(lines) <= max(rows, 3)


def test_picture_of_half_a_terminal_keeps_name_counts_and_best() -> None:
    """Below sixty columns the table collapses, and says so."""
    assert status_lines(answer(), 50, 30, ["waits: w1 is draining"]) == [
        "wine  38/60  ACTIVE",
        "finished 34  running 2  pruned 3  failed 1  queue…",
        "best rmse 0.75861  trial 31  alpha=0.01 l1=0.5",
        "waits: w1 is draining",
        "(from 60 columns on: 2 running trials)",
    ]


def test_picture_counts_no_cancelled_trial_as_done() -> None:
    """Cancelled trials are told apart, here and in `sweep ls`."""
    sweep = answer()
    sweep["counts"] |= {"cancelled": 12, "total": 66}
    assert progress_text(sweep) == "38/60"
    assert "cancelled 12" in status_lines(sweep, 120, 30)[1]


def test_picture_says_how_many_it_leaves_out() -> None:
    """Running trials that find no room are counted."""
    assert status_lines(answer(n_running=50), 120, 12)[-1] == "  and 43 more"


def test_picture_shows_no_bar_without_an_end() -> None:
    """A sweep without a limit has no progress to show."""
    assert status_lines(answer(trials_asked=None, eta_s=None), 120, 30)[1].endswith("failed 1  queued 8   38/?")


def test_picture_of_the_end_has_what_to_type_next() -> None:
    """Best trial, its parameters in full, the registered winner; next commands apart, for they are no data."""
    version = {"name": "wine", "version": 3, "aliases": ["champion"], "trial_number": 31, "metric": "rmse", "value": 0.75861234}
    version |= {"size_bytes": 12}
    ended = answer(state="finished", models=[version])
    lines = ending_lines(ended, [])
    assert "best rmse 0.75861  trial 31" in lines
    assert "  alpha = 0.01" in lines
    assert "registered wine v3 (alias champion) from trial 31, rmse 0.75861" in lines
    assert ending_lines(answer(state="finished", models=[version | {"size_bytes": None}]), [])[-1].endswith("rmse 0.75861, without an artifact")
    assert next_lines(ended)[-1] == "  model:     sweep models show wine"


def test_picture_of_a_fruitless_end_points_at_the_logs() -> None:
    """What failed last, why, and where to look."""
    failed = {"number": 17, "cause": "out_of_memory", "detail": "killed at 2 GiB"}
    lines = ending_lines(answer(state="failed", best=None, detail="No trial succeeded."), [failed])  # type: ignore[list-item]
    assert "1 failed: trial 17 out_of_memory: killed at 2 GiB  ->  sweep logs brave-otter-7f3a/17" in lines
    assert lines[0].startswith("Failed (No trial succeeded): wine")


def test_picture_tells_a_failure_whole() -> None:
    """What helps most, such as the metric that was probably meant, stands at the end of the reason."""
    detail = f"The command succeeded, but metric 'val_loss' has no usable value: {'it never logged one. ' * 10}The nearest name is 'val-loss'."
    (line,) = failure_lines(answer(), [{"number": 17, "cause": "no_objective", "detail": detail}])  # type: ignore[list-item]
    assert line == f"1 failed: trial 17 no_objective: {detail}  ->  sweep logs brave-otter-7f3a/17"


@pytest.mark.parametrize(("ended", "asked", "full"), [(0, 10, 0), (1, 1000, 0), (5, 10, 13), (10, 10, 26), (12, 10, 26), (0, 0, 26)])
def test_bar_is_as_full_as_the_sweep(ended: int, asked: int, full: int) -> None:
    """The bar never overflows and is full only at the end."""
    shown = bar(ended, asked)
    assert len(shown) == 28
    assert shown.count("=") + shown.count(">") == full


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "-"), (0.0123, "12ms"), (1.4, "1s"), (59.6, "1m00s"), (252, "4m12s"), (3599.9, "1h00m"), (11100, "3h05m"), (187_200, "2d04h")],
)
def test_duration_text_has_two_units(seconds: float | None, text: str) -> None:
    """Durations read at a glance, also where rounding carries."""
    assert duration_text(seconds) == text


@pytest.mark.parametrize(("size", "text"), [(0, "0 B"), (999, "999 B"), (2100, "2.1 kB"), (3_000_000_000, "3.0 GB"), (5_000_000_000_000, "5000.0 GB")])
def test_bytes_text_scales(size: int, text: str) -> None:
    """Sizes in powers of a thousand."""
    assert bytes_text(size) == text


def test_aligned_cuts_at_the_width() -> None:
    """Columns line up; what is too long ends in an ellipsis."""
    assert aligned(["A", "B"], [["xx", None], ["y", "long value"]], 9) == ["A   B", "xx  -", "y   long…"]
    assert cut("abc", 3) == "abc"
