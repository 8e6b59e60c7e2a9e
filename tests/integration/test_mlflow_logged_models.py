"""`logged-models/...`, `runs/outputs` and what else MLflow 3 works with models by; who may write them, and what is refused in which words."""

import json
from typing import Any

import httpx
import pytest

from tests.support.protocol import API, FILES, Attempt, end_attempt, get, new_run, open_attempt, pairs, post, refusal
from tracking.ids import new_uuid
from tracking.store import Store

SEE_DOCS = " See the API docs for more information about request parameters."
BAD_NAME = (
    "Invalid model name ('a/b') provided. Model name must be a non-empty string and cannot contain the following characters: "
    """('/', ':', '.', '%', '"', "'")"""
)


@pytest.fixture
def experiment_id(shared_store: Store) -> str:
    """An experiment of this test alone."""
    return shared_store.experiments.create(new_uuid()).experiment_id


@pytest.fixture
def attempt(shared_store: Store) -> Attempt:
    """A live attempt."""
    return open_attempt(shared_store)


def new_model(client: httpx.Client, experiment_id: str, headers: dict[str, str] | None = None, **body: Any) -> str:
    """A model; its id."""
    return str(post(client, "/logged-models", headers, experiment_id=experiment_id, **body)["model"]["info"]["model_id"])


def model_of(client: httpx.Client, model_id: str, **query: Any) -> Any:
    """What is told of a model."""
    return get(client, f"/logged-models/{model_id}", **query)["model"]


def send(client: httpx.Client, method: str, path: str, headers: dict[str, str] | None = None, **body: Any) -> httpx.Response:
    """A request with any method."""
    return client.request(method, API + path, json=body, headers=headers)


def patch(client: httpx.Client, path: str, headers: dict[str, str] | None = None, /, **body: Any) -> Any:
    """PATCH, which must succeed; the answer."""
    answer = send(client, "PATCH", path, headers, **body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def names(answer: Any) -> list[str]:
    """The names of a page of models."""
    return [model["info"]["name"] for model in answer.get("models", [])]


# -- life --------------------------------------------------------------------------------------------------------------


def test_model_is_written_down_step_by_step(protocol: httpx.Client, experiment_id: str) -> None:
    """As MLflow 3's `log_model` does: made, filled with files, declared ready; each answer tells the whole model."""
    run_id = new_run(protocol, experiment_id=experiment_id)
    body = {"name": "clf", "model_type": "agent", "source_run_id": run_id, "params": [{"key": "a", "value": "1"}], "tags": [{"key": "t"}]}
    made = post(protocol, "/logged-models", experiment_id=experiment_id, **body)["model"]
    model_id = made["info"]["model_id"]
    folder = f"{experiment_id}/models/{model_id}/artifacts"
    assert made["info"] == {
        "model_id": model_id,
        "experiment_id": experiment_id,
        "name": "clf",
        "creation_timestamp_ms": made["info"]["creation_timestamp_ms"],
        "last_updated_timestamp_ms": made["info"]["creation_timestamp_ms"],
        "artifact_uri": f"mlflow-artifacts:/{folder}",
        "status": "LOGGED_MODEL_PENDING",
        "model_type": "agent",
        "source_run_id": run_id,
        "tags": [{"key": "t", "value": ""}],
    }
    assert made["data"] == {"params": [{"key": "a", "value": "1"}]}
    assert protocol.put(f"{FILES}/{folder}/MLmodel", content=b"flavors: {}").status_code == 200
    assert protocol.put(f"{FILES}/{folder}/data/weights", content=b"12345").status_code == 200
    ready = patch(protocol, f"/logged-models/{model_id}", model_id=model_id, status="LOGGED_MODEL_READY")["model"]
    assert ready["info"]["status"] == "LOGGED_MODEL_READY"
    assert ready["info"]["last_updated_timestamp_ms"] >= made["info"]["creation_timestamp_ms"]
    assert ready == model_of(protocol, model_id)
    assert protocol.get(f"{FILES}/{folder}/data/weights").content == b"12345"
    listed = get(protocol, f"/logged-models/{model_id}/artifacts/directories")
    assert listed["root_uri"] == f"mlflow-artifacts:/{folder}"
    assert listed["files"] == [{"path": "MLmodel", "is_dir": False, "file_size": 11}, {"path": "data", "is_dir": True}]
    below = get(protocol, f"/logged-models/{model_id}/artifacts/directories", artifact_directory_path="data")
    assert [each["path"] for each in below["files"]] == ["data/weights"]


def test_model_without_a_name_is_given_one(protocol: httpx.Client, experiment_id: str) -> None:
    """As runs are; an empty name is none."""
    assert model_of(protocol, new_model(protocol, experiment_id, name=""))["info"]["name"].count("-") == 2


@pytest.mark.parametrize(
    "body, status, code, message",
    [
        ({"experiment_id": ""}, 400, "INVALID_PARAMETER_VALUE", f"Missing value for required parameter 'experiment_id'.{SEE_DOCS}"),
        ({"experiment_id": "x"}, 400, "INVALID_PARAMETER_VALUE", "Invalid experiment ID 'x'. Experiment ID must be a valid integer."),
        ({"experiment_id": "999999"}, 404, "RESOURCE_DOES_NOT_EXIST", "No Experiment with id=999999 exists"),
        ({"name": "a/b"}, 400, "INVALID_PARAMETER_VALUE", BAD_NAME),
        ({"name": "n" * 501}, 400, "INVALID_PARAMETER_VALUE", "'name' exceeds the maximum length of 500 characters"),
        ({"tags": [{"key": "k" * 256}]}, 400, "INVALID_PARAMETER_VALUE", "'key' exceeds the maximum length of 255 characters"),
        (
            {"params": [{"key": "a"}, {"key": "a"}]},
            400,
            "INVALID_PARAMETER_VALUE",
            "Duplicate parameter keys have been submitted: ['a']. Please ensure the request contains only one param value per param key.",
        ),
        ({"params": [{"value": "a"}]}, 400, "INVALID_PARAMETER_VALUE", f"Missing value for required parameter 'params[0].key'.{SEE_DOCS}"),
    ],
)
def test_model_is_refused_in_mlflows_words(protocol: httpx.Client, body: dict[str, Any], status: int, code: str, message: str) -> None:
    """Code and message are those of MLflow 3.17.2, as far as it has any."""
    assert refusal(send(protocol, "POST", "/logged-models", **{"experiment_id": "0", **body})) == (status, code, message)


@pytest.mark.parametrize(
    "method, path, body",
    [
        ("GET", "", {}),
        ("PATCH", "", {"status": "LOGGED_MODEL_READY"}),
        ("DELETE", "", {}),
        ("PATCH", "/tags", {"tags": []}),
        ("DELETE", "/tags/t", {}),
        ("POST", "/params", {"params": []}),
        ("GET", "/artifacts/directories", {}),
    ],
)
def test_model_that_is_not_there_is_not_found(protocol: httpx.Client, method: str, path: str, body: dict[str, Any]) -> None:
    """Whatever is asked of it."""
    answer = send(protocol, method, f"/logged-models/m-x{path}", **body)
    assert refusal(answer) == (404, "RESOURCE_DOES_NOT_EXIST", "Logged model with ID 'm-x' not found.")


@pytest.mark.parametrize(
    "body",
    [{}, {"status": "READY"}, {"status": 7}, {"status": "LOGGED_MODEL_READY", "model_id": "m-other"}],
)
def test_model_status_is_refused_when_it_says_nothing_or_contradicts(protocol: httpx.Client, experiment_id: str, body: dict[str, Any]) -> None:
    """Status names are MLflow's, and a body names the model that its path names."""
    model_id = new_model(protocol, experiment_id)
    assert refusal(send(protocol, "PATCH", f"/logged-models/{model_id}", **body))[:2] == (400, "INVALID_PARAMETER_VALUE")
    assert model_of(protocol, model_id)["info"]["status"] == "LOGGED_MODEL_PENDING"


def test_model_tags_are_set_and_removed(protocol: httpx.Client, experiment_id: str) -> None:
    """Of two with one key the later counts; a key may have slashes."""
    model_id = new_model(protocol, experiment_id, tags=[{"key": "a", "value": "1"}])
    patch(protocol, f"/logged-models/{model_id}/tags", tags=[{"key": "a", "value": "2"}, {"key": "a", "value": "3"}, {"key": "b/c", "value": "x"}])
    assert pairs(model_of(protocol, model_id)["info"]["tags"]) == {"a": "3", "b/c": "x"}
    for key in ("a", "b/c"):
        assert send(protocol, "DELETE", f"/logged-models/{model_id}/tags/{key}").json() == {}
    assert "tags" not in model_of(protocol, model_id)["info"]
    answer = send(protocol, "DELETE", f"/logged-models/{model_id}/tags/a")
    assert refusal(answer) == (404, "RESOURCE_DOES_NOT_EXIST", f"No tag with key 'a' found for model with ID '{model_id}'.")


def test_model_params_are_added_once(protocol: httpx.Client, experiment_id: str) -> None:
    """A client that did not hear the answer may send them again; another value is refused, and all that came with it."""
    model_id = new_model(protocol, experiment_id, params=[{"key": "a", "value": "1"}])
    more = [{"key": "b", "value": "2"}, {"key": "c", "value": "3"}]
    for _ in range(2):
        post(protocol, f"/logged-models/{model_id}/params", model_id=model_id, params=more)
    answer = send(protocol, "POST", f"/logged-models/{model_id}/params", params=[{"key": "d", "value": "4"}, {"key": "a", "value": "5"}])
    status, code, message = refusal(answer)
    assert (status, code) == (400, "INVALID_PARAMETER_VALUE")
    assert "key='a' was already logged with value='1'" in message
    assert pairs(model_of(protocol, model_id)["data"]["params"]) == {"a": "1", "b": "2", "c": "3"}


def test_model_is_hidden_when_deleted(protocol: httpx.Client, experiment_id: str) -> None:
    """But for whoever asks for deleted ones too."""
    model_id = new_model(protocol, experiment_id)
    for _ in range(2):
        assert send(protocol, "DELETE", f"/logged-models/{model_id}").json() == {}
    assert refusal(protocol.get(f"{API}/logged-models/{model_id}"))[:2] == (404, "RESOURCE_DOES_NOT_EXIST")
    assert model_of(protocol, model_id, allow_deleted="true")["info"]["model_id"] == model_id
    assert post(protocol, "/logged-models/search", experiment_ids=[experiment_id]) == {}


# -- runs --------------------------------------------------------------------------------------------------------------


def test_runs_tell_the_models_they_made_and_read(protocol: httpx.Client, experiment_id: str) -> None:
    """Alone and in a search; said again, as by a client that did not hear the answer, nothing changes."""
    run_id = new_run(protocol, experiment_id=experiment_id)
    made, read = new_model(protocol, experiment_id), new_model(protocol, experiment_id)
    assert get(protocol, "/runs/get", run_id=run_id)["run"]["outputs"] == {}
    for _ in range(2):
        assert post(protocol, "/runs/outputs", run_id=run_id, models=[{"model_id": made, "step": 3}]) == {}
        assert post(protocol, "/runs/log-inputs", run_id=run_id, models=[{"model_id": read}]) == {}
    (found,) = post(protocol, "/runs/search", experiment_ids=[experiment_id])["runs"]
    for run in (get(protocol, "/runs/get", run_id=run_id)["run"], found):
        assert run["outputs"] == {"model_outputs": [{"model_id": made, "step": 3}]}
        assert run["inputs"] == {"model_inputs": [{"model_id": read}]}


@pytest.mark.parametrize(
    "body, status, message",
    [
        ({"models": []}, 400, f"Missing value for required parameter 'run_id'.{SEE_DOCS}"),
        ({"run_id": "r"}, 400, f"Missing value for required parameter 'models'.{SEE_DOCS}"),
        ({"run_id": "r", "models": [{}]}, 400, f"Missing value for required parameter 'models[0].model_id'.{SEE_DOCS}"),
        ({"run_id": "r", "models": []}, 404, "Run with id=r not found"),
    ],
)
def test_outputs_are_refused_in_mlflows_words(protocol: httpx.Client, body: dict[str, Any], status: int, message: str) -> None:
    """Code and message are those of MLflow 3.17.2."""
    answer = refusal(send(protocol, "POST", "/runs/outputs", **body))
    assert (answer[0], answer[2]) == (status, message)


def test_metrics_are_of_the_run_and_of_the_model(protocol: httpx.Client, experiment_id: str) -> None:
    """One point or a batch: what names a model is told there too, with its data and who measured it; twice sent it is there once."""
    run_id = new_run(protocol, experiment_id=experiment_id)
    model_id = new_model(protocol, experiment_id)
    single = {"key": "acc", "value": 0.5, "timestamp": 1, "step": 1, "model_id": model_id, "dataset_name": "iris", "dataset_digest": "d1"}
    batch = [
        {"key": "acc", "value": 0.6, "timestamp": 2, "step": 2, "model_id": model_id},
        {"key": "loss", "value": "NaN", "timestamp": 2, "model_id": model_id},
    ]
    alone = {"key": "other", "value": 1, "timestamp": 3}
    for _ in range(2):
        post(protocol, "/runs/log-metric", run_id=run_id, **single)
        post(protocol, "/runs/log-batch", run_id=run_id, metrics=[*batch, alone])
    own = {"model_id": model_id, "run_id": run_id}
    assert model_of(protocol, model_id)["data"]["metrics"] == [
        {"key": "acc", "value": 0.5, "timestamp": 1, "step": 1, **own, "dataset_name": "iris", "dataset_digest": "d1"},
        {"key": "acc", "value": 0.6, "timestamp": 2, "step": 2, **own},
        {"key": "loss", "value": "NaN", "timestamp": 2, "step": 0, **own},
    ]
    told = get(protocol, "/runs/get", run_id=run_id)["run"]["data"]["metrics"]
    assert {point["key"]: point["value"] for point in told} == {"acc": 0.6, "loss": "NaN", "other": 1.0}


@pytest.mark.parametrize("endpoint", ["log-metric", "log-batch"])
def test_metrics_of_an_unknown_model_are_refused_as_a_whole(protocol: httpx.Client, experiment_id: str, endpoint: str) -> None:
    """The run keeps nothing of them either."""
    run_id = new_run(protocol, experiment_id=experiment_id)
    point = {"key": "m", "value": 1, "timestamp": 1, "model_id": "m-none"}
    body = point if endpoint == "log-metric" else {"metrics": [point]}
    answer = send(protocol, "POST", f"/runs/{endpoint}", run_id=run_id, **body)
    assert refusal(answer) == (404, "RESOURCE_DOES_NOT_EXIST", "Logged model with ID 'm-none' not found.")
    assert "metrics" not in get(protocol, "/runs/get", run_id=run_id)["run"]["data"]


def test_models_of_mlflow_2_are_listed_in_a_tag(protocol: httpx.Client, experiment_id: str) -> None:
    """`runs/log-model` adds to it what the model's description says of itself, without the flavors' configuration."""
    run_id = new_run(protocol, experiment_id=experiment_id)
    described = {"run_id": run_id, "artifact_path": "m", "utc_time_created": "now", "flavors": {"f": {"a": 1, "config": {}}}, "signature": {}}
    for uuid in ("u1", "u2"):
        assert post(protocol, "/runs/log-model", run_id=run_id, model_json=json.dumps({**described, "model_uuid": uuid})) == {}
    listed = json.loads(pairs(get(protocol, "/runs/get", run_id=run_id)["run"]["data"]["tags"])["mlflow.log-model.history"])
    assert listed == [
        {"run_id": run_id, "artifact_path": "m", "utc_time_created": "now", "model_uuid": uuid, "flavors": {"f": {"a": 1}}} for uuid in ("u1", "u2")
    ]


@pytest.mark.parametrize("model_json", ["", "{", "[]", "{}", '{"run_id": "r", "artifact_path": "m", "flavors": {}}'])
def test_models_of_mlflow_2_are_refused_when_they_are_not_described(protocol: httpx.Client, experiment_id: str, model_json: str) -> None:
    """No JSON, or without what MLflow asks for."""
    run_id = new_run(protocol, experiment_id=experiment_id)
    assert refusal(send(protocol, "POST", "/runs/log-model", run_id=run_id, model_json=model_json))[:2] == (400, "INVALID_PARAMETER_VALUE")


def test_models_of_mlflow_2_are_refused_when_the_tag_is_no_list(protocol: httpx.Client, experiment_id: str) -> None:
    """Somebody else has written it."""
    run_id = new_run(protocol, experiment_id=experiment_id, tags=[{"key": "mlflow.log-model.history", "value": "mine"}])
    described = json.dumps({"run_id": run_id, "artifact_path": "m", "utc_time_created": "now", "flavors": {}})
    assert refusal(send(protocol, "POST", "/runs/log-model", run_id=run_id, model_json=described))[:2] == (400, "INVALID_PARAMETER_VALUE")


# -- search ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def zoo(protocol: httpx.Client, experiment_id: str) -> str:
    """An experiment with models a, b and c, of which a and b were measured, on different data."""
    run_id = new_run(protocol, experiment_id=experiment_id)
    for name, value, digest in (("a", 0.1, "d1"), ("b", 0.9, "d2"), ("c", None, None)):
        model_id = new_model(protocol, experiment_id, name=name, params=[{"key": "p", "value": name}], tags=[{"key": "t", "value": name * 2}])
        if value is not None:
            measured = {"model_id": model_id, "dataset_name": "iris", "dataset_digest": digest}
            post(
                protocol,
                "/runs/log-batch",
                run_id=run_id,
                metrics=[{"key": "acc", "value": value, "timestamp": 1, "step": step, **measured} for step in (1, 2)],
            )
    return experiment_id


@pytest.mark.parametrize(
    "asked, found",
    [
        ({}, ["c", "b", "a"]),
        ({"filter": "name = 'a'"}, ["a"]),
        ({"filter": "name IN ('a', 'c')"}, ["c", "a"]),
        ({"filter": "metrics.acc > 0.05"}, ["b", "a"]),
        ({"filter": "metrics.acc > 0.5 AND params.p = 'b' AND tags.t LIKE 'b%'"}, ["b"]),
        ({"filter": "status = 'PENDING' AND name != 'a'"}, ["c", "b"]),
        ({"datasets": [{"dataset_name": "iris"}]}, ["b", "a"]),
        ({"datasets": [{"dataset_name": "iris", "dataset_digest": "d1"}]}, ["a"]),
        ({"datasets": [{"dataset_name": "iris", "dataset_digest": "d1"}], "filter": "metrics.acc > 0.5"}, []),
        ({"order_by": [{"field_name": "name"}]}, ["a", "b", "c"]),
        ({"order_by": [{"field_name": "metrics.acc", "ascending": False}]}, ["b", "a", "c"]),
        ({"order_by": [{"field_name": "metrics.acc", "dataset_name": "iris", "dataset_digest": "d1"}]}, ["a", "c", "b"]),
    ],
)
def test_models_are_searched(protocol: httpx.Client, zoo: str, asked: dict[str, Any], found: list[str]) -> None:
    """By attributes, metrics, parameters, tags and data; the newest first unless another order is asked for; models without a value last."""
    assert names(post(protocol, "/logged-models/search", experiment_ids=[zoo], **asked)) == found


def test_models_are_searched_page_by_page(protocol: httpx.Client, zoo: str) -> None:
    """Each once; and a page belongs to one search."""
    asked = {"experiment_ids": [zoo], "order_by": [{"field_name": "metrics.acc"}], "max_results": 2}
    first = post(protocol, "/logged-models/search", **asked)
    second = post(protocol, "/logged-models/search", **asked, page_token=first["next_page_token"])
    assert (names(first), names(second), "next_page_token" in second) == (["a", "b"], ["c"], False)
    for other in ({"experiment_ids": [zoo, "0"]}, {"filter": "name != 'x'"}, {"order_by": []}, {"datasets": [{"dataset_name": "iris"}]}):
        answer = send(protocol, "POST", "/logged-models/search", **{**asked, "page_token": first["next_page_token"], **other})
        assert refusal(answer)[:2] == (400, "INVALID_PARAMETER_VALUE")


@pytest.mark.parametrize(
    "asked",
    [
        {"experiment_ids": None},
        {"experiment_ids": ["x"]},
        {"filter": "bogus = 'x'"},
        {"filter": "metrics.a = 'x'"},
        {"order_by": [{}]},
        {"order_by": [{"field_name": "params.p"}]},
        {"order_by": ["name"]},
        {"datasets": [{"dataset_digest": "d"}]},
        {"page_token": "zzz"},
        {"max_results": -1},
    ],
)
def test_models_search_refuses_what_is_not_of_its_grammar(protocol: httpx.Client, asked: dict[str, Any]) -> None:
    """A client's fault, told at once; MLflow fails on some of these."""
    answer = send(protocol, "POST", "/logged-models/search", **{"experiment_ids": ["0"], **asked})
    assert refusal(answer)[:2] == (400, "INVALID_PARAMETER_VALUE")


# -- who may write (I3, D7) --------------------------------------------------------------------------------------------


def test_model_of_an_attempt_is_in_its_own_experiment(protocol: httpx.Client, attempt: Attempt) -> None:
    """Whatever it asks for; and it may do with it what `log_model` does."""
    model_id = new_model(protocol, "0", attempt.headers, name="m", source_run_id=attempt.run_id)
    assert model_of(protocol, model_id)["info"]["experiment_id"] == attempt.experiment_id
    folder = f"{attempt.experiment_id}/models/{model_id}/artifacts"
    assert protocol.put(f"{FILES}/{folder}/MLmodel", content=b"x", headers=attempt.headers).status_code == 200
    post(protocol, "/runs/outputs", attempt.headers, run_id=attempt.run_id, models=[{"model_id": model_id}])
    post(protocol, "/runs/log-metric", attempt.headers, run_id=attempt.run_id, key="m", value=1, timestamp=1, model_id=model_id)
    patch(protocol, f"/logged-models/{model_id}", attempt.headers, status="LOGGED_MODEL_READY")
    assert model_of(protocol, model_id)["info"]["status"] == "LOGGED_MODEL_READY"
    assert get(protocol, "/runs/get", run_id=attempt.run_id)["run"]["outputs"] == {"model_outputs": [{"model_id": model_id, "step": 0}]}


def test_model_of_a_managed_run_is_not_anybodys_to_write(protocol: httpx.Client, attempt: Attempt) -> None:
    """Files, status, parameters and its end are accepted from the run's current attempt only; tags are notes, and anybody's."""
    model_id = new_model(protocol, "0", attempt.headers, source_run_id=attempt.run_id)
    path = f"/logged-models/{model_id}"
    file = f"{FILES}/{attempt.experiment_id}/models/{model_id}/artifacts/MLmodel"
    refused = [
        protocol.put(file, content=b"x"),
        send(protocol, "PATCH", path, status="LOGGED_MODEL_READY"),
        send(protocol, "POST", f"{path}/params", params=[]),
        send(protocol, "DELETE", path),
        send(protocol, "POST", "/logged-models", experiment_id=attempt.experiment_id, source_run_id=attempt.run_id),
        send(protocol, "POST", "/runs/outputs", run_id=attempt.run_id, models=[{"model_id": model_id}]),
    ]
    assert [refusal(answer)[:2] for answer in refused] == [(403, "PERMISSION_DENIED")] * len(refused)
    patch(protocol, f"{path}/tags", tags=[{"key": "mlflow.modelVersions", "value": "[]"}])
    assert pairs(model_of(protocol, model_id)["info"]["tags"]) == {"mlflow.modelVersions": "[]"}


def test_model_of_another_experiment_is_out_of_an_attempts_reach(protocol: httpx.Client, attempt: Attempt, experiment_id: str) -> None:
    """Also its tags, and metrics of it."""
    model_id = new_model(protocol, experiment_id)
    path = f"/logged-models/{model_id}"
    refused = [
        protocol.put(f"{FILES}/{experiment_id}/models/{model_id}/artifacts/MLmodel", content=b"x", headers=attempt.headers),
        send(protocol, "PATCH", path, attempt.headers, status="LOGGED_MODEL_READY"),
        send(protocol, "PATCH", f"{path}/tags", attempt.headers, tags=[]),
        send(protocol, "DELETE", f"{path}/tags/t", attempt.headers),
        send(protocol, "POST", f"{path}/params", attempt.headers, params=[]),
        send(protocol, "DELETE", path, attempt.headers),
        send(protocol, "POST", "/runs/log-metric", attempt.headers, run_id=attempt.run_id, key="m", value=1, timestamp=1, model_id=model_id),
    ]
    assert [refusal(answer)[:2] for answer in refused] == [(403, "PERMISSION_DENIED")] * len(refused)


def test_model_is_not_written_by_an_attempt_that_has_ended(protocol: httpx.Client, attempt: Attempt, shared_store: Store) -> None:
    """Its token died with it."""
    model_id = new_model(protocol, "0", attempt.headers, source_run_id=attempt.run_id)
    end_attempt(shared_store, attempt)
    answer = send(protocol, "PATCH", f"/logged-models/{model_id}", attempt.headers, status="LOGGED_MODEL_READY")
    assert refusal(answer)[:2] == (401, "UNAUTHENTICATED")
    assert model_of(protocol, model_id)["info"]["status"] == "LOGGED_MODEL_PENDING"


def test_model_is_anybodys_when_no_managed_run_made_it(protocol: httpx.Client, experiment_id: str) -> None:
    """As on MLflow, also if it names a run that is not here; but in the experiment that its path names."""
    model_id = new_model(protocol, experiment_id, source_run_id="elsewhere")
    patch(protocol, f"/logged-models/{model_id}", status="LOGGED_MODEL_UPLOAD_FAILED")
    assert protocol.put(f"{FILES}/{experiment_id}/models/{model_id}/artifacts/a", content=b"x").status_code == 200
    assert refusal(protocol.put(f"{FILES}/0/models/{model_id}/artifacts/a", content=b"x"))[:2] == (404, "RESOURCE_DOES_NOT_EXIST")
    assert refusal(protocol.put(f"{FILES}/0/models/m-none/artifacts/a", content=b"x"))[:2] == (404, "RESOURCE_DOES_NOT_EXIST")
