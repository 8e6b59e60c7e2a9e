"""Metrics and parameters: what is kept, what is latest, what counts as the same."""

import math
import random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.record import Hands
from tracking.errors import InvalidValue, NotFound
from tracking.records import MetricPoint
from tracking.store.metrics import _COPY_FROM, Append

NAN, INF = float("nan"), float("inf")
N_COPIED = _COPY_FROM + 4


def external(hands: Hands) -> str:
    """A run that anybody may write."""
    return hands.store.runs.create_external("0").run_id


def shown(points: list[MetricPoint]) -> list[tuple[str, int, int, str]]:
    """Points in a form that compares NaN as equal to itself."""
    return [(p.key, p.step, p.time_ms, repr(p.value)) for p in points]


def in_order(point: MetricPoint) -> tuple[int, int, bool, float]:
    """MLflow's order: step, time, value; NaN above every number, as in Postgres."""
    return (point.step, point.time_ms, math.isnan(point.value), 0.0 if math.isnan(point.value) else point.value)


def test_metrics_keep_exact_values_either_way_in(hands: Hands) -> None:
    """One by one or by COPY: every double comes back as it was, NaN and infinities too."""
    values = [0.1, 1e-320, 1.7976931348623157e308, 2.0**53 + 2, NAN, INF, -INF]
    for repeats in (1, 3):
        run_id = external(hands)
        points = [MetricPoint("m", value, step, 5) for step, value in enumerate(values * repeats)]
        hands.store.metrics.log(run_id, points)
        assert shown(hands.store.metrics.history(run_id, "m")[0]) == shown(points)


def test_metrics_keys_may_hold_any_character_either_way_in(hands: Hands) -> None:
    """Tabs, backslashes and line ends mean something to COPY; to a key they don't."""
    keys = ["a\tb", "a\\b", "a\nb", "a\\nb", "\\N", "é/ü 漢", "%s %(x)s", "'"]
    for repeats in (1, 3):
        run_id = external(hands)
        hands.store.metrics.log(run_id, [MetricPoint(key, 1.0, step) for key in keys for step in range(repeats)])
        assert sorted(p.key for p in hands.store.metrics.latest(run_id)) == sorted(keys)
        assert all(len(hands.store.metrics.history(run_id, key)[0]) == repeats for key in keys)


@pytest.mark.parametrize("point", [MetricPoint("a\0b", 1.0), MetricPoint("a\ud800", 1.0), MetricPoint("a", 1.0, 2**63), MetricPoint("a", 1.0, 0, -(2**63) - 1)])
@pytest.mark.parametrize("n_others", [0, N_COPIED], ids=["insert", "copy"])
def test_metrics_that_cannot_be_stored_are_refused_by_name(hands: Hands, point: MetricPoint, n_others: int) -> None:
    """NUL, half a surrogate, a step beyond 64 bits: refused, nothing of the batch is kept, and the connection is good."""
    run_id = external(hands)
    with pytest.raises(InvalidValue):
        hands.store.metrics.log(run_id, [MetricPoint("good", 1.0, step) for step in range(n_others)] + [point])
    assert hands.store.metrics.latest(run_id) == []


@pytest.mark.parametrize(
    "points, latest",
    [
        ([(1, 5, 1.0), (0, 9, 2.0)], (1, 5, 1.0)),
        ([(1, 5, 1.0), (1, 6, 0.5)], (1, 6, 0.5)),
        ([(1, 5, 1.0), (1, 5, 2.0), (1, 5, 0.0)], (1, 5, 2.0)),
        ([(1, 5, INF), (1, 5, NAN)], (1, 5, NAN)),
        ([(-1, 5, 1.0), (-2, 6, 2.0)], (-1, 5, 1.0)),
        ([(1, 5, NAN), (2, 5, 1.0)], (2, 5, 1.0)),
    ],
    ids=["step first", "then time", "then value", "NaN above all", "negative steps", "NaN is passed"],
)
@pytest.mark.parametrize("order", [1, -1], ids=["forwards", "backwards"])
@pytest.mark.parametrize("at_once", [True, False], ids=["one batch", "one by one"])
def test_metrics_latest_is_by_step_time_value(hands: Hands, points: list[Any], latest: Any, order: int, at_once: bool) -> None:
    """MLflow's tie-break, whatever the order of arrival."""
    run_id = external(hands)
    batch = [MetricPoint("m", value, step, time_ms) for step, time_ms, value in points][::order]
    for part in [batch] if at_once else [[point] for point in batch]:
        hands.store.metrics.log(run_id, part)
    assert shown(hands.store.metrics.latest(run_id)) == [("m", latest[0], latest[1], repr(latest[2]))]


def test_metrics_exact_duplicates_are_invisible(hands: Hands) -> None:
    """A client's repeat of a whole batch is not seen; points that differ in anything are."""
    run_id = external(hands)
    points = [MetricPoint("m", value, step, time_ms) for step in (1, 2) for time_ms in (5, 6) for value in (1.0, NAN)]
    for _ in range(3):
        hands.store.metrics.log(run_id, points + points)
    assert shown(hands.store.metrics.history(run_id, "m")[0]) == shown(points)


def test_curves_of_a_sweep_are_paged_by_whole_trials(hands: Hands) -> None:
    """Each with its current attempt's points, doubles once, in order; one that is longer than a page is named alone."""
    sweep = hands.sweep(4, metric_name="loss")
    held = [hands.start(sweep, number) for number in range(3)]
    hands.log(held[0], "loss", 3.0, 2.0)
    hands.log(held[0], "loss", 3.0, 2.0)
    hands.log(held[0], "acc", 9.0)
    hands.log(held[1], "loss", *map(float, range(5)))
    hands.log(held[2], "loss", 8.0)
    hands.log(hands.retry(held[2]), "loss", 7.0, math.nan)
    curves = hands.store.metrics.curves
    first, rest = curves(sweep.sweep_id, "loss", max_points=3)
    assert [(c.number, c.run_id, [(p.step, p.value) for p in c.points or []]) for c in first] == [(0, held[0].run_id, [(0, 3.0), (1, 2.0)])]
    assert rest == 1
    assert [(c.number, c.points) for c in curves(sweep.sweep_id, "loss", 1, 3)[0]] == [(1, None)]
    last, rest = curves(sweep.sweep_id, "loss", 2, 3)
    assert [(c.number, str([p.value for p in c.points or []])) for c in last] == [(2, "[7.0, nan]")]
    assert rest is None
    assert curves(sweep.sweep_id, "nothing") == ([], None)


def test_metrics_history_is_paged(hands: Hands) -> None:
    """Pages join to the whole, without gaps and repeats, duplicates not counted."""
    run_id = external(hands)
    points = [MetricPoint("m", float(step), step, step) for step in range(25)]
    random.Random(1).shuffle(points)  # noqa: S311 -- a test's dice
    hands.store.metrics.log(run_id, points + points)
    got, token, sizes = [], "", []
    while True:
        page, token = hands.store.metrics.history(run_id, "m", max_results=10, page_token=token)
        got += page
        sizes.append(len(page))
        if not token:
            break
    assert [p.step for p in got] == list(range(25))
    assert sizes == [10, 10, 5]


@pytest.mark.parametrize("token", ["garbage", "e30=", "eyJvZmZzZXQiOiAtMX0="])
def test_metrics_page_token_that_is_none_is_refused(hands: Hands, token: str) -> None:
    """A made-up token is an invalid value, not a first page."""
    with pytest.raises(InvalidValue, match="page token"):
        hands.store.metrics.history(external(hands), "m", page_token=token)


def test_metrics_of_unknown_run_are_not_found(hands: Hands) -> None:
    """Neither written nor read."""
    with pytest.raises(NotFound):
        hands.store.metrics.log("no-such-run", [MetricPoint("m", 1.0)])
    with pytest.raises(NotFound):
        hands.store.metrics.history("no-such-run", "m")


def test_metrics_of_a_deleted_run_are_refused(hands: Hands) -> None:
    """A deleted run takes nothing until it is restored."""
    run_id = external(hands)
    hands.store.runs.delete(run_id)
    with pytest.raises(InvalidValue, match="deleted"):
        hands.store.metrics.log(run_id, [MetricPoint("m", 1.0)])
    hands.store.runs.restore(run_id)
    hands.store.metrics.log(run_id, [MetricPoint("m", 1.0)])
    assert len(hands.store.metrics.latest(run_id)) == 1


def test_metrics_batch_is_all_or_nothing(hands: Hands) -> None:
    """A refused parameter takes the batch's metrics and tags with it."""
    run_id = external(hands)
    hands.store.runs.log_params(run_id, {"lr": "1"})
    with pytest.raises(InvalidValue, match="Changing param values"):
        hands.store.metrics.log_batch(Append(run_id, {"m": [(0, 0, 1.0)]}), {"lr": "2"}, {"t": "1"})
    data = hands.store.runs.data(run_id)
    assert (data.metrics, data.params, "t" in data.tags) == ((), {"lr": "1"}, False)


VALUES = [-INF, -1e300, -1.5, 0.0, 1e-300, 0.1, 2.0, 1e300, INF, NAN]
point = st.builds(MetricPoint, st.sampled_from(["a", "b"]), st.sampled_from(VALUES), st.integers(-1, 2), st.integers(0, 1))


@settings(max_examples=40, suppress_health_check=list(HealthCheck))
@given(batches=st.lists(st.lists(point, max_size=_COPY_FROM + 3), max_size=3))
def test_metrics_agree_with_a_plain_model(hands: Hands, batches: list[list[MetricPoint]]) -> None:
    """Latest, extremes and history of any batches equal what plain Python makes of all points."""
    run_id = external(hands)
    for batch in batches:
        hands.store.metrics.log(run_id, batch)
    points = [p for batch in batches for p in batch]
    latest = {p.key: p for p in sorted(points, key=in_order)}
    stored = {p.key: p for p in hands.store.metrics.latest(run_id)}
    assert {k: in_order(p) for k, p in stored.items()} == {k: in_order(p) for k, p in latest.items()}
    for key in latest:
        expected = sorted({in_order(p) for p in points if p.key == key})
        assert [in_order(p) for p in hands.store.metrics.history(run_id, key)[0]] == expected
        numbers = [p.value for p in points if p.key == key and not math.isnan(p.value)]
        (row,) = hands.sql("SELECT min_value, max_value FROM metric_latest WHERE run_id = %(id)s AND key = %(key)s", id=run_id, key=key)
        assert (row.min_value, row.max_value) == (min(numbers, default=None), max(numbers, default=None))


# -- parameters ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "old, new", [("1", "1.0"), ("0.001", "1e-3"), ("1e22", "10000000000000000000000"), ("nan", "nan"), ("x", "x"), ("-0.0", "0"), ("True", "True")]
)
def test_params_same_value_again_is_no_change(hands: Hands, old: str, new: str) -> None:
    """A script logs its own parameters again: the same number in another spelling is the same, and the first one stays."""
    run_id = external(hands)
    hands.store.runs.log_params(run_id, {"p": old})
    hands.store.runs.log_params(run_id, {"p": new})
    assert hands.store.runs.data(run_id).params == {"p": old}


@pytest.mark.parametrize(
    "old, new", [("1", "2"), ("1", "True"), ("nan", "1"), ("x", "X"), ("1", "1.0000001"), ("9007199254740993", "9007199254740992"), ("", "0")]
)
def test_params_other_value_is_refused(hands: Hands, old: str, new: str) -> None:
    """A parameter is said once; the refusal names key and both values."""
    run_id = external(hands)
    hands.store.runs.log_params(run_id, {"p": old})
    with pytest.raises(InvalidValue, match="'p'"):
        hands.store.runs.log_params(run_id, {"p": new})
    assert hands.store.runs.data(run_id).params == {"p": old}


def test_params_of_the_sweep_may_be_logged_again_but_not_changed(hands: Hands) -> None:
    """What the sweep gave stays the sweep's: `1` and `1.0` are one, `2` is refused."""
    held = hands.start(hands.sweep(2), 1)
    hands.store.runs.log_params(held.run_id, {"x": "1.0", "own": "a"}, held.fence)
    with pytest.raises(InvalidValue):
        hands.store.runs.log_params(held.run_id, {"x": "2"}, held.fence)
    assert hands.store.runs.data(held.run_id).params == {"x": "1", "own": "a"}


def test_params_of_an_earlier_attempt_may_change(hands: Hands) -> None:
    """A client's parameter of attempt 1 binds nobody in attempt 2, which in turn is bound by its own."""
    first = hands.start(hands.sweep())
    hands.store.runs.log_params(first.run_id, {"p": "1"}, first.fence)
    second = hands.retry(first)
    hands.store.runs.log_params(first.run_id, {"p": "2"}, second.fence)
    with pytest.raises(InvalidValue):
        hands.store.runs.log_params(first.run_id, {"p": "1"}, second.fence)
    assert hands.store.runs.data(first.run_id).params["p"] == "2"
