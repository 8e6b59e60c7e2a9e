"""`metrics/get-history-bulk` and `-bulk-interval`, which MLflow's UI draws curves from; and `server-info`."""

from typing import Any

import httpx
import pytest

from tests.support.protocol import API, new_run, open_attempt, post, refusal
from tracking.errors import InvalidValue
from tracking.records import MetricPoint
from tracking.store import Store

AJAX = "/ajax-api/2.0/mlflow"
SEE_DOCS = " See the API docs for more information about request parameters."


def curve(client: httpx.Client, n_points: int, key: str = "m") -> str:
    """A run with so many points at steps from 0, in batches; its id. Time runs against the steps."""
    run_id = new_run(client)
    points = [{"key": key, "value": step, "timestamp": n_points - step, "step": step} for step in range(n_points)]
    for begin in range(0, n_points, 1000):
        post(client, "/runs/log-batch", run_id=run_id, metrics=points[begin : begin + 1000])
    return run_id


def bulk(client: httpx.Client, **query: Any) -> list[tuple[str, int]]:
    """Run and step of each point that get-history-bulk answers with."""
    answer = client.get(f"{AJAX}/metrics/get-history-bulk", params=query)
    assert answer.status_code == 200, answer.text
    return [(point["run_id"], point["step"]) for point in answer.json()["metrics"]]


def sample(client: httpx.Client, **query: Any) -> list[dict[str, Any]]:
    """The points that get-history-bulk-interval answers with."""
    answer = client.get(f"{AJAX}/metrics/get-history-bulk-interval", params=query)
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json().get("metrics", [])
    return found


def test_bulk_has_the_points_of_many_runs_in_order(protocol: httpx.Client) -> None:
    """By run and time, as many as asked for; runs that are not there have none."""
    first, second = sorted([curve(protocol, 3), curve(protocol, 2)])
    sizes = {first: 3, second: 2} if len(bulk(protocol, run_id=first, metric_key="m")) == 3 else {first: 2, second: 3}
    everything = [(run_id, step) for run_id in (first, second) for step in reversed(range(sizes[run_id]))]
    assert bulk(protocol, run_id=[second, "none", first], metric_key="m") == everything
    assert bulk(protocol, run_id=[second, first], metric_key="m", max_results=4) == everything[:4]
    assert bulk(protocol, run_id=first, metric_key="other") == []


@pytest.mark.parametrize(
    "query, message",
    [
        ({}, "GetMetricHistoryBulk request must specify at least one run_id."),
        ({"run_id": "x"}, "GetMetricHistoryBulk request must specify a metric_key."),
        ({"run_id": ["x"] * 101, "metric_key": "m"}, "GetMetricHistoryBulk request cannot specify more than 100 run_ids. Received 101 run_ids."),
        (
            {"run_id": "x", "metric_key": "m", "max_results": "x"},
            f"Invalid value \"x\" for parameter 'max_results' supplied:  Hint: Value was of type 'str'.{SEE_DOCS}",
        ),
    ],
)
def test_bulk_is_refused_in_mlflows_words(protocol: httpx.Client, query: dict[str, Any], message: str) -> None:
    """Code and message are those of MLflow 3.17.2, which fails on the last."""
    assert refusal(protocol.get(f"{AJAX}/metrics/get-history-bulk", params=query)) == (400, "INVALID_PARAMETER_VALUE", message)


def test_bulk_is_the_uis_alone(protocol: httpx.Client) -> None:
    """As with MLflow."""
    assert refusal(protocol.get(f"{API}/metrics/get-history-bulk"))[:2] == (404, "ENDPOINT_NOT_FOUND")


@pytest.mark.parametrize(
    "n_points, asked, steps",
    [
        (5, {}, [0, 1, 2, 3, 4]),
        (5, {"max_results": 5}, [0, 1, 2, 3, 4]),
        (10, {"max_results": 4}, [0, 3, 6, 9]),
        (10, {"max_results": 3}, [0, 4, 9]),
        (10, {"max_results": 2}, [0, 9]),
        (10, {"max_results": 1}, [9]),
        (10, {"start_step": 2, "end_step": 4}, [2, 3, 4]),
        (10, {"start_step": 2, "end_step": 9, "max_results": 2}, [2, 9]),
        (10, {"start_step": 20, "end_step": 30}, []),
    ],
)
def test_interval_is_an_even_sample_with_the_last_point(protocol: httpx.Client, n_points: int, asked: dict[str, int], steps: list[int]) -> None:
    """The same points as MLflow 3.17.2 takes."""
    run_id = curve(protocol, n_points)
    found = sample(protocol, run_ids=run_id, metric_key="m", **asked)
    assert [point["step"] for point in found] == steps
    assert all(
        point == {"key": "m", "value": float(point["step"]), "timestamp": n_points - point["step"], "step": point["step"], "run_id": run_id} for point in found
    )


def test_interval_has_at_most_so_many_points_of_each_run(protocol: httpx.Client) -> None:
    """In the order in which the runs were named; those that are not there have none."""
    runs = [curve(protocol, 3000), curve(protocol, 3)]
    found = sample(protocol, run_ids=[runs[1], "none", runs[0]], metric_key="m")
    assert [point["run_id"] for point in found] == [runs[1]] * 3 + [runs[0]] * 2500


def test_interval_has_a_run_once_that_is_named_twice(protocol: httpx.Client) -> None:
    """A hundred times the same run is no hundred times the work."""
    runs = [curve(protocol, 2), curve(protocol, 3)]
    found = sample(protocol, run_ids=[runs[1], runs[0], runs[1], runs[1]], metric_key="m")
    assert [point["run_id"] for point in found] == [runs[1]] * 3 + [runs[0]] * 2


def test_histories_are_given_up_when_they_take_too_long(protocol: httpx.Client, shared_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both of them: a 4xx, which clients do not send again."""
    run_id = new_run(protocol)
    for name in ("BULK", "SAMPLE"):
        monkeypatch.setattr(f"tracking.queries.histories.{name}", "SELECT pg_sleep(1)")
    monkeypatch.setattr("tracking.store.database._IN_TIME_MS", 50)
    for read in (shared_store.histories.bulk, shared_store.histories.sampled):
        with pytest.raises(InvalidValue, match="takes too long"):
            read([run_id], "m", 10)


def test_interval_knows_no_point_twice_and_no_earlier_attempt(protocol: httpx.Client, shared_store: Store) -> None:
    """What a client sent twice is one point (D6); infinities and NaN are values like others."""
    run_id = new_run(protocol)
    for _ in range(2):
        points = [{"key": "m", "value": value, "timestamp": 1, "step": step} for step, value in enumerate(["NaN", "Infinity", 1])]
        post(protocol, "/runs/log-batch", run_id=run_id, metrics=points)
    assert [point["value"] for point in sample(protocol, run_ids=run_id, metric_key="m")] == ["NaN", "Infinity", 1.0]
    attempt = open_attempt(shared_store)
    post(protocol, "/runs/log-metric", attempt.headers, run_id=attempt.run_id, key="m", value=7, timestamp=1)
    assert shared_store.histories.bulk([attempt.run_id], "m", 10) == [(attempt.run_id, MetricPoint("m", 7.0, 0, 1))]


@pytest.mark.parametrize(
    "query, message",
    [
        ({}, f"Missing value for required parameter 'run_ids'.{SEE_DOCS}"),
        ({"run_ids": "x"}, f"Missing value for required parameter 'metric_key'.{SEE_DOCS}"),
        (
            {"run_ids": ["x"] * 101, "metric_key": "m"},
            f"GetMetricHistoryBulkInterval request must specify at most 100 run_ids. Received 101 run_ids.{SEE_DOCS}",
        ),
        ({"run_ids": "x", "metric_key": "m", "max_results": 0}, f"max_results must be between 1 and 2500.{SEE_DOCS}"),
        ({"run_ids": "x", "metric_key": "m", "max_results": 2501}, f"max_results must be between 1 and 2500.{SEE_DOCS}"),
        ({"run_ids": "x", "metric_key": "m", "start_step": 1}, "If either start step or end step are specified, both must be specified."),
        (
            {"run_ids": "x", "metric_key": "m", "start_step": 3, "end_step": 1},
            "end_step must be greater than start_step. Found start_step=3 and end_step=1.",
        ),
    ],
)
@pytest.mark.parametrize("prefix", [API, AJAX])
def test_interval_is_refused_in_mlflows_words(protocol: httpx.Client, prefix: str, query: dict[str, Any], message: str) -> None:
    """Code and message are those of MLflow 3.17.2."""
    assert refusal(protocol.get(f"{prefix}/metrics/get-history-bulk-interval", params=query)) == (400, "INVALID_PARAMETER_VALUE", message)


@pytest.mark.parametrize("prefix", ["api", "ajax-api"])
def test_server_info_tells_what_this_server_has(protocol: httpx.Client, prefix: str) -> None:
    """Clients ask before they use workspaces, presigned locations and multipart uploads."""
    told = protocol.get(f"/{prefix}/3.0/mlflow/server-info").json()
    assert (told["store_type"], told["workspaces_enabled"], told["presigned_upload_run_id_supported"]) == ("SqlStore", False, False)
