"""The sums behind the benchmarks' table; the measuring itself is `make bench`."""

import json
import math
from pathlib import Path

import pytest

from tests.benchmarks.__main__ import BENCHMARKS, main
from tests.benchmarks.figures import Figure, Span, percentile, slot_gaps, table, write_json


def test_percentile_is_a_value_that_was_measured() -> None:
    """Nearest rank: no value between two measured ones is made up."""
    values = [5.0, 1.0, 4.0, 2.0, 3.0]
    assert [percentile(values, share) for share in (0.0, 0.2, 0.5, 0.99, 1.0)] == [1.0, 1.0, 3.0, 5.0, 5.0]


def test_percentile_of_nothing_is_nan() -> None:
    """Nothing measured is no number."""
    assert math.isnan(percentile([], 0.5))


def test_slot_gaps_pair_each_start_with_the_slot_that_was_free_for_longest() -> None:
    """Two slots: the third process starts where the first ended, the fourth where the second did."""
    spans = [Span(0.0, 1.0), Span(0.0, 3.0), Span(1.5, 2.0), Span(2.25, 5.0), Span(4.0, 6.0)]
    assert slot_gaps(spans, 2) == pytest.approx([0.5, 0.25, 1.0])


def test_slot_gaps_are_none_when_no_slot_was_used_twice() -> None:
    """As many processes as slots leave nothing between them."""
    assert slot_gaps([Span(0.0, 1.0), Span(0.5, 2.0)], 2) == []


def test_table_says_whether_each_goal_was_met() -> None:
    """A missed goal stands out; a figure without one claims nothing."""
    lines = table([Figure("a", "1 ms", goal="<= 2 ms", is_met=True), Figure("b", "3 ms", goal="<= 2 ms", is_met=False), Figure("c", "4 ms")]).splitlines()
    assert [line.split()[-1] for line in lines[2:]] == ["yes", "NO", "-"]


def test_write_json_keeps_what_other_benchmarks_measured(tmp_path: Path) -> None:
    """One benchmark run alone replaces its own figures only."""
    path = tmp_path / "cache" / "bench.json"
    write_json(path, [Figure("a", "1", values={"s": 1.0}), Figure("b", "2", values={"s": 2.0})], {"cores": 2})
    write_json(path, [Figure("b", "3", values={"s": 3.0})], {"cores": 2})
    kept = json.loads(path.read_text())
    assert {name: figure["values"]["s"] for name, figure in kept.items()} == {"a": 1.0, "b": 3.0}


def test_main_names_the_benchmarks_when_asked_for_an_unknown_one(capsys: pytest.CaptureFixture[str]) -> None:
    """A wrong name in ONLY measures nothing and tells the right ones."""
    assert main(["no-op"]) == 2
    said = capsys.readouterr().err
    assert all(name in said for name in BENCHMARKS)
