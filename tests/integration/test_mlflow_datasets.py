"""`runs/log-inputs` and `experiments/search-datasets`: which data runs read, and what is refused in which words."""

from typing import Any

import httpx
import pytest

from tests.support.protocol import API, Attempt, get, new_run, open_attempt, post, refusal
from tracking.ids import new_uuid
from tracking.store import Store

SEE_DOCS = " See the API docs for more information about request parameters."


@pytest.fixture
def experiment_id(shared_store: Store) -> str:
    """An experiment of this test alone."""
    return shared_store.experiments.create(new_uuid()).experiment_id


@pytest.fixture
def attempt(shared_store: Store) -> Attempt:
    """A live attempt."""
    return open_attempt(shared_store)


def read(name: str, digest: str = "d", context: str | None = None, **more: Any) -> dict[str, Any]:
    """An input as clients send it."""
    tags = [] if context is None else [{"key": "mlflow.data.context", "value": context}]
    return {"tags": tags, "dataset": {"name": name, "digest": digest, "source_type": "local", "source": "here", **more}}


def inputs_of(client: httpx.Client, run_id: str) -> Any:
    """What a run is told to have read."""
    return get(client, "/runs/get", run_id=run_id)["run"]["inputs"]


def test_inputs_are_told_with_the_run(protocol: httpx.Client, experiment_id: str) -> None:
    """Alone and in a search, with what was given and nothing else."""
    run_id = new_run(protocol, experiment_id=experiment_id)
    assert inputs_of(protocol, run_id) == {}
    full = read("full", "d1", "train", schema='{"a": 1}', profile='{"rows": 2}')
    assert post(protocol, "/runs/log-inputs", run_id=run_id, datasets=[full, read("bare", "d2")]) == {}
    (found,) = post(protocol, "/runs/search", experiment_ids=[experiment_id])["runs"]
    assert inputs_of(protocol, run_id) == found["inputs"]
    by_name = {each["dataset"]["name"]: each for each in found["inputs"]["dataset_inputs"]}
    assert by_name["full"] == full
    assert by_name["bare"] == {"dataset": {"name": "bare", "digest": "d2", "source_type": "local", "source": "here"}}


def test_inputs_said_first_are_kept(protocol: httpx.Client, experiment_id: str) -> None:
    """As with MLflow: the same data again changes nothing, neither of the dataset nor of the run's words about it."""
    run_id, other_id = new_run(protocol, experiment_id=experiment_id), new_run(protocol, experiment_id=experiment_id)
    post(protocol, "/runs/log-inputs", run_id=run_id, datasets=[read("d", context="train"), read("d", context="ignored")])
    post(protocol, "/runs/log-inputs", run_id=run_id, datasets=[read("d", context="test", source="elsewhere")])
    post(protocol, "/runs/log-inputs", run_id=other_id, datasets=[read("d", context="test", source="elsewhere")])
    assert inputs_of(protocol, run_id) == {"dataset_inputs": [read("d", context="train")]}
    assert inputs_of(protocol, other_id) == {"dataset_inputs": [read("d", context="test")]}


def test_inputs_are_found_by_name_digest_and_context(protocol: httpx.Client, experiment_id: str) -> None:
    """In `runs/search`."""
    run_ids = [new_run(protocol, experiment_id=experiment_id) for _ in range(2)]
    post(protocol, "/runs/log-inputs", run_id=run_ids[0], datasets=[read("a", "d1", "train")])
    post(protocol, "/runs/log-inputs", run_id=run_ids[1], datasets=[read("a", "d2", "test")])

    def found(text: str) -> list[str]:
        page = post(protocol, "/runs/search", experiment_ids=[experiment_id], filter=text, order_by=["start_time ASC"])
        return [run["info"]["run_id"] for run in page.get("runs", [])]

    assert sorted(found("dataset.name = 'a'")) == sorted(run_ids)
    assert found("dataset.digest = 'd2'") == [run_ids[1]]
    assert found("dataset.context LIKE 'tr%'") == [run_ids[0]]
    assert found("dataset.name = 'a' AND dataset.digest = 'none'") == []


@pytest.mark.parametrize(
    "body, message",
    [
        ({"run_id": None}, f"Missing value for required parameter 'run_id'.{SEE_DOCS}"),
        ({"datasets": 5}, f"Invalid value 5 for parameter 'datasets' supplied:  Hint: Value was of type 'int'.{SEE_DOCS}"),
        ({"datasets": [read("n" * 501)]}, "'name' exceeds the maximum length of 500 characters"),
        ({"datasets": [read("n", "d" * 37)]}, "'digest' exceeds the maximum length of 36 characters"),
        ({"datasets": [read("n", source="s" * 65_536)]}, "'source' exceeds the maximum length of 65535 characters"),
        ({"datasets": [read("n", schema="s" * 1_048_576)]}, "'schema' exceeds the maximum length of 1048575 characters"),
        ({"datasets": [{**read("n"), "tags": [{"key": "k" * 256}]}]}, "'key' exceeds the maximum length of 255 characters"),
        ({"datasets": [{**read("n"), "tags": [{"key": "k", "value": "v" * 501}]}]}, "'value' exceeds the maximum length of 500 characters"),
    ],
)
def test_inputs_are_refused_in_mlflows_words(protocol: httpx.Client, experiment_id: str, body: dict[str, Any], message: str) -> None:
    """Code and message are those of MLflow 3.17.2, and nothing of the request is kept."""
    run_id = new_run(protocol, experiment_id=experiment_id)
    asked = {"run_id": run_id, **body, "datasets": [read("first"), *body["datasets"]] if isinstance(body.get("datasets"), list) else body.get("datasets")}
    assert refusal(protocol.post(f"{API}/runs/log-inputs", json=asked)) == (400, "INVALID_PARAMETER_VALUE", message)
    assert inputs_of(protocol, run_id) == {}


def test_inputs_of_a_deleted_run_are_refused(protocol: httpx.Client) -> None:
    """As everything else about it."""
    run_id = new_run(protocol)
    post(protocol, "/runs/delete", run_id=run_id)
    status, code, message = refusal(protocol.post(f"{API}/runs/log-inputs", json={"run_id": run_id, "datasets": []}))
    assert (status, code, message) == (400, "INVALID_PARAMETER_VALUE", f"The run {run_id} must be in the 'active' state. Current state is deleted.")


def test_inputs_of_a_managed_run_are_its_attempts_to_tell(protocol: httpx.Client, attempt: Attempt) -> None:
    """Nobody else's (I3)."""
    body = {"run_id": attempt.run_id, "datasets": [read("d", context="train")]}
    assert refusal(protocol.post(f"{API}/runs/log-inputs", json=body))[:2] == (403, "PERMISSION_DENIED")
    post(protocol, "/runs/log-inputs", attempt.headers, **body)
    assert inputs_of(protocol, attempt.run_id) == {"dataset_inputs": [read("d", context="train")]}


@pytest.mark.parametrize("prefix", ["api", "ajax-api"])
def test_datasets_of_experiments_are_told_once_for_each_context(protocol: httpx.Client, shared_store: Store, experiment_id: str, prefix: str) -> None:
    """However many runs read them; without a context if none was given."""
    other = shared_store.experiments.create(new_uuid()).experiment_id
    for _ in range(2):
        run_id = new_run(protocol, experiment_id=experiment_id)
        post(protocol, "/runs/log-inputs", run_id=run_id, datasets=[read("a", "d1", "train"), read("b", "d2")])
    post(protocol, "/runs/log-inputs", run_id=new_run(protocol, experiment_id=experiment_id), datasets=[read("a", "d1", "test")])
    post(protocol, "/runs/log-inputs", run_id=new_run(protocol, experiment_id=other), datasets=[read("c")])
    answer = protocol.post(f"/{prefix}/2.0/mlflow/experiments/search-datasets", json={"experiment_ids": [experiment_id]})
    own = {"experiment_id": experiment_id}
    assert answer.json() == {
        "dataset_summaries": [
            {**own, "name": "a", "digest": "d1", "context": "test"},
            {**own, "name": "a", "digest": "d1", "context": "train"},
            {**own, "name": "b", "digest": "d2"},
        ]
    }


@pytest.mark.parametrize(
    "body, message",
    [
        ({}, "SearchDatasets request must specify at least one experiment_id."),
        ({"experiment_ids": ["0"] * 21}, "SearchDatasets request cannot specify more than 20 experiment_ids. Received 21 experiment_ids."),
        ({"experiment_ids": ["x"]}, "Invalid experiment ID 'x'. Experiment ID must be a valid integer."),
    ],
)
def test_datasets_search_is_refused_in_mlflows_words(protocol: httpx.Client, body: dict[str, Any], message: str) -> None:
    """Code and message are those of MLflow 3.17.2."""
    assert refusal(protocol.post(f"{API}/experiments/search-datasets", json=body)) == (400, "INVALID_PARAMETER_VALUE", message)
