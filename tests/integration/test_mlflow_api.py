"""MLflow's protocol as bytes: what is answered to whom, and what is refused how."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.protocol import API, Attempt, connected, end_attempt, get, new_run, open_attempt, pairs, post, refusal, serving
from tracking.artifacts import ArtifactStore
from tracking.ids import new_uuid
from tracking.mlflow_api import build_routes
from tracking.mlflow_api.endpoints import BODY_MAX_BYTES
from tracking.settings import Settings
from tracking.store import Store, open_store


@pytest.fixture(scope="module")
def store(module_database_url: str) -> Iterator[Store]:
    """A record that the tests of this file share; each uses an experiment of its own."""
    opened = open_store(module_database_url)
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def client(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A client of the protocol alone."""
    with serving(store, tmp_path_factory.mktemp("home")) as url, connected(url) as opened:
        yield opened


@pytest.fixture
def experiment_id(store: Store) -> str:
    """An experiment of this test alone."""
    return store.experiments.create(new_uuid()).experiment_id


@pytest.fixture
def attempt(store: Store) -> Attempt:
    """A live attempt."""
    return open_attempt(store)


def test_experiment_is_found_by_name_and_id_when_it_was_created(client: httpx.Client) -> None:
    """A new experiment has the id that get-by-name and get answer with, and keeps its tags."""
    name = new_uuid()
    created = post(client, "/experiments/create", name=name, tags=[{"key": "team", "value": "a"}])
    by_name = get(client, "/experiments/get-by-name", experiment_name=name)["experiment"]
    by_id = get(client, "/experiments/get", experiment_id=created["experiment_id"])["experiment"]
    assert by_name == by_id
    assert (by_id["name"], by_id["lifecycle_stage"], pairs(by_id["tags"])) == (name, "active", {"team": "a"})


def test_experiment_default_exists(client: httpx.Client) -> None:
    """Experiment 0 is called Default and is there from the start."""
    assert get(client, "/experiments/get", experiment_id="0")["experiment"]["name"] == "Default"


@pytest.mark.parametrize(
    ("query", "path"),
    [({"experiment_name": "absent"}, "/experiments/get-by-name"), ({"experiment_id": "77"}, "/experiments/get"), ({"run_id": "absent"}, "/runs/get")],
)
def test_get_answers_not_found_when_there_is_none(client: httpx.Client, query: dict[str, str], path: str) -> None:
    """The client turns exactly this code into None."""
    status, code, _ = refusal(client.get(API + path, params=query))
    assert (status, code) == (404, "RESOURCE_DOES_NOT_EXIST")


def test_experiment_create_is_refused_when_the_name_is_taken(client: httpx.Client) -> None:
    """The client re-reads on this code."""
    name = new_uuid()
    post(client, "/experiments/create", name=name)
    assert refusal(client.post(API + "/experiments/create", json={"name": name}))[:2] == (400, "RESOURCE_ALREADY_EXISTS")


def test_experiment_create_refuses_a_location_of_the_clients_choice(client: httpx.Client) -> None:
    """Where artifacts are stored is the server's to say."""
    status, code, message = refusal(client.post(API + "/experiments/create", json={"name": "x", "artifact_location": "file:///etc"}))
    assert (status, code) == (400, "INVALID_PARAMETER_VALUE")
    assert "artifact_location" in message


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_experiments_search_pages_through_all(client: httpx.Client, method: str) -> None:
    """The pages together hold each experiment once, newest first."""
    made = [new_uuid() for _ in range(3)]
    for name in made:
        post(client, "/experiments/create", name=name)
    names: list[str] = []
    token: str | None = ""
    while token is not None:
        asked = {"max_results": 2, "page_token": token}
        page = get(client, "/experiments/search", **asked) if method == "GET" else post(client, "/experiments/search", **asked)
        names += [each["name"] for each in page["experiments"]]
        token = page.get("next_page_token")
    assert len(names) == len(set(names))
    assert (names[:3], names[-1]) == (made[::-1], "Default")


def test_run_round_trip(client: httpx.Client) -> None:
    """What create, log-* and set-tag were told is what get tells."""
    run_id = new_run(client, user_id="ada", run_name="first", start_time=1_700_000_000_000, tags=[{"key": "k", "value": "v"}])
    post(client, "/runs/log-parameter", run_id=run_id, run_uuid=run_id, key="lr", value="0.1")
    post(client, "/runs/log-metric", run_id=run_id, key="loss", value=0.5, timestamp=1000, step=3)
    post(client, "/runs/set-tag", run_id=run_id, key="note", value="good")
    run = get(client, "/runs/get", run_id=run_id, run_uuid=run_id)["run"]
    info = run["info"]
    assert (info["run_uuid"], info["run_name"], info["user_id"], info["status"]) == (run_id, "first", "ada", "RUNNING")
    assert (info["start_time"], info["lifecycle_stage"], "end_time" in info) == (1_700_000_000_000, "active", False)
    assert info["artifact_uri"] == f"mlflow-artifacts:/0/{run_id}/artifacts"
    assert pairs(run["data"]["params"]) == {"lr": "0.1"}
    assert run["data"]["metrics"] == [{"key": "loss", "value": 0.5, "timestamp": 1000, "step": 3}]
    assert pairs(run["data"]["tags"]) == {"k": "v", "note": "good", "mlflow.runName": "first", "mlflow.user": "ada"}


def test_run_gets_a_name_when_nobody_gave_one(client: httpx.Client) -> None:
    """The name stands in the run and in its tag, as MLflow has it."""
    run = post(client, "/runs/create", experiment_id="0")["run"]
    assert run["info"]["run_name"]
    assert pairs(run["data"]["tags"])["mlflow.runName"] == run["info"]["run_name"]


def test_run_create_is_refused_when_name_and_tag_differ(client: httpx.Client) -> None:
    """Two names for one run are one too many."""
    body = {"experiment_id": "0", "run_name": "a", "tags": [{"key": "mlflow.runName", "value": "b"}]}
    assert refusal(client.post(API + "/runs/create", json=body))[:2] == (400, "INVALID_PARAMETER_VALUE")


def test_run_update_ends_an_external_run(client: httpx.Client) -> None:
    """Status, end and name are the client's to tell when the run is its own."""
    run_id = new_run(client)
    info = post(client, "/runs/update", run_id=run_id, status="FINISHED", end_time=1_700_000_000_500, run_name="renamed")["run_info"]
    assert (info["status"], info["end_time"], info["run_name"]) == ("FINISHED", 1_700_000_000_500, "renamed")


def test_run_is_hidden_when_deleted_and_back_when_restored(client: httpx.Client, experiment_id: str) -> None:
    """Searches leave deleted runs out unless asked; writing to one is refused with MLflow's words."""
    run_id = new_run(client, experiment_id=experiment_id)
    post(client, "/runs/delete", run_id=run_id)
    assert post(client, "/runs/search", experiment_ids=[experiment_id]) == {}
    assert len(post(client, "/runs/search", experiment_ids=[experiment_id], run_view_type="DELETED_ONLY")["runs"]) == 1
    status, code, message = refusal(client.post(API + "/runs/set-tag", json={"run_id": run_id, "key": "a", "value": "b"}))
    assert (status, code) == (400, "INVALID_PARAMETER_VALUE")
    assert "must be in the 'active' state" in message
    post(client, "/runs/restore", run_id=run_id)
    assert len(post(client, "/runs/search", experiment_ids=[experiment_id])["runs"]) == 1


def test_run_id_must_be_given_and_agree(client: httpx.Client) -> None:
    """A run has two names on the wire; none, or two that differ, is an error of the client."""
    assert refusal(client.get(API + "/runs/get"))[:2] == (400, "INVALID_PARAMETER_VALUE")
    assert refusal(client.get(API + "/runs/get", params={"run_id": "a", "run_uuid": "b"}))[:2] == (400, "INVALID_PARAMETER_VALUE")


@pytest.mark.parametrize(("value", "expected"), [("NaN", "NaN"), ("Infinity", "Infinity"), ("-Infinity", "-Infinity"), ("1.5", 1.5), (2, 2.0)])
def test_metric_value_comes_back_as_mlflow_writes_it(client: httpx.Client, value: object, expected: object) -> None:
    """JSON has no NaN: MLflow writes it, and infinities, as strings, and takes numbers as strings."""
    run_id = new_run(client)
    post(client, "/runs/log-metric", run_id=run_id, key="m", value=value, timestamp="1000", step="2")
    (point,) = get(client, "/metrics/get-history", run_id=run_id, metric_key="m")["metrics"]
    assert point == {"key": "m", "value": expected, "timestamp": 1000, "step": 2}


def test_metric_history_pages_without_duplicates(client: httpx.Client) -> None:
    """A batch that a client sent twice is there once, and pages cover it in order of steps."""
    run_id = new_run(client)
    points = [{"key": "m", "value": step / 2, "timestamp": 1000 + step, "step": step} for step in range(5)]
    for _ in range(2):
        post(client, "/runs/log-batch", run_id=run_id, metrics=points)
    steps: list[int] = []
    token: str | None = ""
    while token is not None:
        page = get(client, "/metrics/get-history", run_id=run_id, metric_key="m", max_results=2, page_token=token)
        steps += [point["step"] for point in page["metrics"]]
        token = page.get("next_page_token")
    assert steps == [0, 1, 2, 3, 4]


def test_log_batch_is_all_or_nothing(client: httpx.Client) -> None:
    """A parameter that may not change leaves no metric of its batch behind."""
    run_id = new_run(client)
    post(client, "/runs/log-parameter", run_id=run_id, key="lr", value="1")
    body = {"run_id": run_id, "metrics": [{"key": "m", "value": 1, "timestamp": 1}], "params": [{"key": "lr", "value": "2"}]}
    status, code, message = refusal(client.post(API + "/runs/log-batch", json=body))
    assert (status, code) == (400, "INVALID_PARAMETER_VALUE")
    assert "Changing param values is not allowed" in message
    assert get(client, "/runs/get", run_id=run_id)["run"]["data"].get("metrics") is None


@pytest.mark.parametrize(("first", "again"), [("1", "1.0"), ("0.1", "1e-1"), ("a", "a")])
def test_param_is_no_change_when_numerically_the_same(client: httpx.Client, first: str, again: str) -> None:
    """Scripts log their own parameters again, in their own spelling."""
    run_id = new_run(client)
    post(client, "/runs/log-parameter", run_id=run_id, key="p", value=first)
    post(client, "/runs/log-parameter", run_id=run_id, key="p", value=again)
    assert pairs(get(client, "/runs/get", run_id=run_id)["run"]["data"]["params"]) == {"p": first}


def test_long_values_are_cut(client: httpx.Client) -> None:
    """Parameters keep 6,000 characters and tags 8,000, as MLflow does by default."""
    run_id = new_run(client)
    post(client, "/runs/log-batch", run_id=run_id, params=[{"key": "p", "value": "x" * 9000}], tags=[{"key": "t", "value": "y" * 9000}])
    data = get(client, "/runs/get", run_id=run_id)["run"]["data"]
    assert (len(pairs(data["params"])["p"]), len(pairs(data["tags"])["t"])) == (6000, 8000)


@pytest.mark.parametrize(
    "body",
    [
        {"metrics": [{"key": "m", "value": 1, "timestamp": 1}] * 1001},
        {"params": [{"key": f"p{n}", "value": "v"} for n in range(101)]},
        {"tags": [{"key": f"t{n}", "value": "v"} for n in range(101)]},
        {"metrics": [{"key": "m", "value": 1, "timestamp": 1}] * 1000, "tags": [{"key": "t", "value": "v"}]},
        {"params": [{"key": "p", "value": "v"}, {"key": "p", "value": "v"}]},
        {"metrics": [{"key": "", "value": 1, "timestamp": 1}]},
        {"metrics": [{"key": "a" * 251, "value": 1, "timestamp": 1}]},
        {"metrics": [{"key": "a,b", "value": 1, "timestamp": 1}]},
        {"metrics": [{"key": "m", "value": "many", "timestamp": 1}]},
        {"metrics": [{"key": "m", "value": None, "timestamp": 1}]},
        {"metrics": [{"key": "m", "value": 1}]},
        {"metrics": [{"key": "m", "value": 1, "timestamp": -1}]},
        {"metrics": [{"key": "m", "value": 1, "timestamp": 1, "step": 2**63}]},
        {"params": [{"key": "../up", "value": "v"}]},
        {"params": [{"key": "/abs", "value": "v"}]},
        {"tags": [{"key": "a//b", "value": "v"}]},
        {"tags": [{"key": "a", "value": "\0"}]},
        {"tags": "none"},
    ],
    ids=lambda body: json.dumps(body)[:50],
)
def test_log_batch_refuses_what_mlflow_refuses(client: httpx.Client, body: dict[str, Any]) -> None:
    """Everything out of bounds is a 400, which no client retries, and leaves nothing behind."""
    run_id = new_run(client)
    assert refusal(client.post(API + "/runs/log-batch", json={"run_id": run_id, **body}))[:2] == (400, "INVALID_PARAMETER_VALUE")
    data = get(client, "/runs/get", run_id=run_id)["run"]["data"]
    assert "metrics" not in data
    assert "params" not in data


def test_search_filters_orders_and_pages(client: httpx.Client, experiment_id: str) -> None:
    """Clauses choose, order_by sorts with missing values last, tokens lead through the pages."""
    ids = [new_run(client, experiment_id=experiment_id, run_name=f"r{number}", start_time=number) for number in range(4)]
    for number, run_id in enumerate(ids[:3]):
        post(client, "/runs/log-metric", run_id=run_id, key="loss", value=number, timestamp=1)
    below = post(client, "/runs/search", experiment_ids=[experiment_id], filter="metrics.loss < 1.5 AND attributes.run_name != 'r0'")["runs"]
    assert [run["info"]["run_id"] for run in below] == [ids[1]]
    found: list[str] = []
    token: str | None = ""
    while token is not None:
        page = post(client, "/runs/search", experiment_ids=[experiment_id], order_by=["metrics.loss DESC"], max_results=3, page_token=token)
        found += [run["info"]["run_id"] for run in page["runs"]]
        token = page.get("next_page_token")
    assert found == [ids[2], ids[1], ids[0], ids[3]]


@pytest.mark.parametrize(
    "body",
    [
        {"filter": "metrics.loss"},
        {"order_by": ["metrics.loss UP"]},
        {"max_results": 0},
        {"max_results": 50_001},
        {"page_token": "?"},
        {"run_view_type": "SOME"},
    ],
)
def test_search_refuses_what_it_does_not_understand(client: httpx.Client, body: dict[str, Any]) -> None:
    """A search that can't be done as asked is not done otherwise."""
    assert refusal(client.post(API + "/runs/search", json={"experiment_ids": ["0"], **body}))[:2] == (400, "INVALID_PARAMETER_VALUE")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/api/2.0/mlflow/traces"),
        ("POST", "/ajax-api/2.0/mlflow/registered-models/create"),
        ("PATCH", "/api/2.0/mlflow/runs/create"),
        ("GET", "/api/2.0/mlflow/runs/create"),
        ("GET", "/api/3.0/mlflow/traces/x"),
        ("DELETE", "/api/2.0/mlflow-artifacts/artifacts"),
    ],
)
def test_unknown_endpoint_is_refused_at_once(client: httpx.Client, method: str, path: str) -> None:
    """A client is told in its own terms, and tries another verb or gives up, but never retries."""
    assert refusal(client.request(method, path))[:2] == (404, "ENDPOINT_NOT_FOUND")


def test_both_prefixes_answer_alike(client: httpx.Client) -> None:
    """The UI's prefix is the same protocol."""
    run_id = new_run(client)
    answers = [client.get(f"/{prefix}/2.0/mlflow/runs/get", params={"run_id": run_id}).json() for prefix in ("api", "ajax-api")]
    assert answers[0] == answers[1]


def test_every_route_states_its_right(store: Store, tmp_path: Path) -> None:
    """A route without a stated right would be open by forgetfulness."""
    routes = build_routes(store, ArtifactStore(tmp_path), Settings(home=tmp_path))
    assert {getattr(route.endpoint, "right", None) for route in routes} == {"read", "attempt"}


def test_post_is_refused_when_it_is_not_declared_json(client: httpx.Client) -> None:
    """A browser can't be made to send this type from a foreign page."""
    response = client.post(API + "/runs/create", content=b'{"experiment_id": "0"}', headers={"Content-Type": "text/plain"})
    assert refusal(response)[:2] == (400, "INVALID_PARAMETER_VALUE")
    assert client.post(API + "/runs/create", content=b'{"experiment_id": "0"}', headers={"Content-Type": "application/json; charset=utf-8"}).status_code == 200


@pytest.mark.parametrize("content", [b"{", b"[]", b'{"run_id": "\xff"}', b'{"run_id": "\\ud800"}', b'{"value": NaN}'])
def test_post_is_refused_when_it_is_not_json(client: httpx.Client, content: bytes) -> None:
    """Broken bodies are the client's fault, never a 500."""
    response = client.post(API + "/runs/set-tag", content=content, headers={"Content-Type": "application/json"})
    assert refusal(response)[:2] == (400, "INVALID_PARAMETER_VALUE")


def test_post_is_refused_when_it_is_too_large(client: httpx.Client) -> None:
    """A body is read up to a limit."""
    content = b'{"x": "' + b"a" * BODY_MAX_BYTES + b'"}'
    assert refusal(client.post(API + "/runs/create", content=content, headers={"Content-Type": "application/json"}))[0] == 413


def test_error_is_answered_without_details_when_nobody_foresaw_it(
    client: httpx.Client, store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A fault of ours is a 500 with a log entry, and tells a stranger nothing."""

    def fail(*_: object) -> None:
        raise ZeroDivisionError("inner secret")

    monkeypatch.setattr(store.runs, "get_with_data", fail)
    status, code, message = refusal(client.get(API + "/runs/get", params={"run_id": "x"}))
    assert (status, code) == (500, "INTERNAL_ERROR")
    assert "secret" not in message
    assert "inner secret" in caplog.text


def test_managed_run_takes_results_from_its_attempt_only(client: httpx.Client, attempt: Attempt) -> None:
    """Metrics and parameters need the token; with it they are recorded (I3)."""
    bodies = {
        "/runs/log-metric": {"run_id": attempt.run_id, "key": "m", "value": 1, "timestamp": 1},
        "/runs/log-parameter": {"run_id": attempt.run_id, "key": "p", "value": "1"},
        "/runs/log-batch": {"run_id": attempt.run_id, "metrics": [{"key": "m", "value": 2, "timestamp": 2}]},
    }
    for path, body in bodies.items():
        assert refusal(client.post(API + path, json=body))[:2] == (403, "PERMISSION_DENIED")
        post(client, path, attempt.headers, **body)
    data = get(client, "/runs/get", run_id=attempt.run_id)["run"]["data"]
    assert [point["value"] for point in data["metrics"]] == [2.0]
    assert pairs(data["params"])["p"] == "1"


def test_managed_run_keeps_its_parameters_when_the_script_logs_them_again(client: httpx.Client, attempt: Attempt) -> None:
    """The sweep's `1` logged as `1.0` is no change; another value is refused."""
    post(client, "/runs/log-parameter", attempt.headers, run_id=attempt.run_id, key="lr", value="1.0")
    body = {"run_id": attempt.run_id, "key": "lr", "value": "2"}
    assert refusal(client.post(API + "/runs/log-parameter", json=body, headers=attempt.headers))[:2] == (400, "INVALID_PARAMETER_VALUE")
    assert pairs(get(client, "/runs/get", run_id=attempt.run_id)["run"]["data"]["params"])["lr"] == "1"


def test_managed_run_is_not_ended_by_its_client(client: httpx.Client, attempt: Attempt) -> None:
    """`end_run` succeeds, and the run goes on until its worker ends it (D9)."""
    info = post(client, "/runs/update", attempt.headers, run_id=attempt.run_id, status="FAILED", end_time=1)["run_info"]
    assert (info["run_id"], info["status"]) == (attempt.run_id, "RUNNING")


def test_attempt_writes_to_no_other_run(client: httpx.Client, attempt: Attempt) -> None:
    """Its token is good for its own run and what it opened."""
    stranger = new_run(client)
    body = {"run_id": stranger, "key": "m", "value": 1, "timestamp": 1}
    assert refusal(client.post(API + "/runs/log-metric", json=body, headers=attempt.headers))[:2] == (403, "PERMISSION_DENIED")
    tags = [{"key": "mlflow.parentRunId", "value": stranger}]
    body = {"experiment_id": attempt.experiment_id, "tags": tags}
    assert refusal(client.post(API + "/runs/create", json=body, headers=attempt.headers))[:2] == (403, "PERMISSION_DENIED")


def test_attempt_opens_descendants_in_its_own_experiment(client: httpx.Client, attempt: Attempt) -> None:
    """A run without a parent gets the managed one, a nested one its own; both are the attempt's to write."""
    child = new_run(client, attempt.headers)
    grandchild = new_run(client, attempt.headers, tags=[{"key": "mlflow.parentRunId", "value": child}])
    post(client, "/runs/log-metric", attempt.headers, run_id=grandchild, key="m", value=1, timestamp=1)
    found = {run_id: get(client, "/runs/get", run_id=run_id)["run"] for run_id in (child, grandchild)}
    assert pairs(found[child]["data"]["tags"])["mlflow.parentRunId"] == attempt.run_id
    assert pairs(found[child]["data"]["tags"])["sweep.askedExperiment"] == "0"
    assert pairs(found[grandchild]["data"]["tags"])["mlflow.parentRunId"] == child
    assert {run["info"]["experiment_id"] for run in found.values()} == {attempt.experiment_id}


ODD_NAMES = ["metrics/mAP50(B)", "mAP@0.5", "Acc (%)", 'f1>0.5 "top"', "a=b", "val loss, mean", "R²", "../up", "it's `so`"]


def test_attempt_may_use_any_name_that_can_be_printed(client: httpx.Client, attempt: Attempt) -> None:
    """For metrics, parameters and tags of its own run, which are found by them, too."""
    texts = [{"key": name, "value": "v"} for name in ODD_NAMES]
    points = [{"key": name, "value": number, "timestamp": 1, "step": 0} for number, name in enumerate(ODD_NAMES)]
    post(client, "/runs/log-batch", attempt.headers, run_id=attempt.run_id, metrics=points, params=texts, tags=texts)
    post(client, "/runs/log-metric", attempt.headers, run_id=attempt.run_id, key="one (1)", value=1, timestamp=1)
    post(client, "/runs/log-parameter", attempt.headers, run_id=attempt.run_id, key="one (1)", value="v")
    post(client, "/runs/set-tag", attempt.headers, run_id=attempt.run_id, key="one (1)", value="v")
    data = get(client, "/runs/get", run_id=attempt.run_id)["run"]["data"]
    for kind in ("metrics", "params", "tags"):
        assert {*ODD_NAMES, "one (1)"} <= {each["key"] for each in data[kind]}
    for number, name in enumerate(ODD_NAMES):
        quoted = '"' + name.replace('"', '""') + '"'
        asked = f"metrics.{quoted} = {number} AND params.{quoted} = 'v' AND tags.{quoted} = 'v'"
        found = post(client, "/runs/search", experiment_ids=[attempt.experiment_id], filter=asked, order_by=[f"metrics.{quoted} DESC"])["runs"]
        assert [run["info"]["run_id"] for run in found] == [attempt.run_id]
        assert [point["value"] for point in get(client, "/metrics/get-history", run_id=attempt.run_id, metric_key=name)["metrics"]] == [number]


@pytest.mark.parametrize("name", ["", " ", "a\nb", "\u2028", "x" * 251])
def test_attempt_is_refused_a_name_that_can_not_be_printed_or_is_too_long(client: httpx.Client, attempt: Attempt, name: str) -> None:
    """Nobody could ask for it."""
    point = {"key": name, "value": 1, "timestamp": 1, "step": 0}
    for body in ({"metrics": [point]}, {"params": [{"key": name, "value": "v"}]}, {"tags": [{"key": name, "value": "v"}]}):
        answer = client.post(API + "/runs/log-batch", headers=attempt.headers, json={"run_id": attempt.run_id, **body})
        assert refusal(answer)[:2] == (400, "INVALID_PARAMETER_VALUE")


def test_run_of_a_clients_own_keeps_to_the_names_of_mlflow(client: httpx.Client, attempt: Attempt) -> None:
    """Also one that an attempt opens: it is read by MLflow's own tools."""
    for headers in (None, attempt.headers):
        run_id = new_run(client, headers)
        for name in ODD_NAMES[:2]:
            point = {"key": name, "value": 1, "timestamp": 1, "step": 0}
            answer = client.post(API + "/runs/log-batch", headers=headers, json={"run_id": run_id, "metrics": [point]})
            assert "Names may only contain" in refusal(answer)[2]


def test_attempt_sees_its_own_experiment_under_any_name(client: httpx.Client, attempt: Attempt, store: Store) -> None:
    """`set_experiment("x")` in a script changes nothing but a tag, and makes no experiment."""
    by_name = get(client, "/experiments/get-by-name", attempt.headers, experiment_name="x")["experiment"]
    assert by_name["experiment_id"] == attempt.experiment_id
    assert by_name["name"] == store.experiments.get(attempt.experiment_id).name
    assert post(client, "/experiments/create", attempt.headers, name="y")["experiment_id"] == attempt.experiment_id
    assert pairs(get(client, "/runs/get", run_id=attempt.run_id)["run"]["data"]["tags"])["sweep.askedExperiment"] == "y"
    assert {"x", "y"}.isdisjoint(each.name for each in store.experiments.search()[0])


def test_token_dies_with_its_attempt(client: httpx.Client, attempt: Attempt, store: Store) -> None:
    """Once the attempt has ended, its token opens nothing, not even a read."""
    end_attempt(store, attempt)
    response = client.post(API + "/runs/log-metric", json={"run_id": attempt.run_id, "key": "m", "value": 1, "timestamp": 1}, headers=attempt.headers)
    assert refusal(response)[:2] == (401, "UNAUTHENTICATED")
    assert response.headers["WWW-Authenticate"].startswith("Basic")
    assert client.get(API + "/runs/get", params={"run_id": attempt.run_id}, headers=attempt.headers).status_code == 401


@pytest.mark.parametrize("token", ["sat_", "sat_x.1", "sat_{run}.1.wrong", "sat_{run}.2.wrong"])
def test_token_is_refused_when_it_is_made_up(client: httpx.Client, attempt: Attempt, token: str) -> None:
    """What claims to be an attempt's token and is not is nobody's, never anybody's."""
    headers = {"Authorization": f"Bearer {token.format(run=attempt.run_id)}"}
    assert refusal(client.get(API + "/runs/get", params={"run_id": attempt.run_id}, headers=headers))[:2] == (401, "UNAUTHENTICATED")


def test_metric_latest_is_the_largest_step(client: httpx.Client) -> None:
    """A late point of an early step is history, not the latest; infinity is a value like others."""
    run_id = new_run(client)
    post(client, "/runs/log-metric", run_id=run_id, key="m", value="Infinity", timestamp=5, step=2)
    post(client, "/runs/log-metric", run_id=run_id, key="m", value=1, timestamp=9, step=1)
    (point,) = get(client, "/runs/get", run_id=run_id)["run"]["data"]["metrics"]
    assert math.isinf(float(point["value"]))
