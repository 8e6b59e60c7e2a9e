"""`experiments/...`: named, tagged, searched, deleted and brought back as with MLflow, and what is refused in which words."""

from typing import Any

import httpx
import pytest

from tests.support.protocol import API, FILES, get, new_run, open_attempt, pairs, post, refusal
from tracking.errors import InvalidValue
from tracking.ids import new_uuid
from tracking.records import Launch, NewSweep
from tracking.store import Store

SEE_DOCS = " See the API docs for more information about request parameters."
NOT_PLAIN = (
    "Invalid value \"/a\" for parameter 'key' supplied: Names may be treated as files in certain cases, and must not resolve to other names when "
    "treated as such. This name would resolve to '/a'"
)


def new_experiment(client: httpx.Client, **body: Any) -> str:
    """An experiment of this test alone; its id."""
    return str(post(client, "/experiments/create", **{"name": new_uuid(), **body})["experiment_id"])


def refused(client: httpx.Client, endpoint: str, headers: dict[str, str] | None = None, /, **body: Any) -> tuple[int, str, str]:
    """POST what must be refused; how it was."""
    return refusal(client.post(API + endpoint, json=body, headers=headers))


def stage_of(client: httpx.Client, run_id: str) -> str:
    """A run's stage of life."""
    return str(get(client, "/runs/get", run_id=run_id)["run"]["info"]["lifecycle_stage"])


# -- requests ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "endpoint, body, message",
    [
        ("create", {}, f"Missing value for required parameter 'name'.{SEE_DOCS}"),
        ("create", {"name": ""}, f"Missing value for required parameter 'name'.{SEE_DOCS}"),
        ("create", {"name": None}, f"Missing value for required parameter 'name'.{SEE_DOCS}"),
        ("create", {"name": 5}, f"Invalid value 5 for parameter 'name' supplied:  Hint: Value was of type 'int'.{SEE_DOCS}"),
        ("create", {"name": "x", "tags": "x"}, f"Invalid value \"x\" for parameter 'tags' supplied:  Hint: Value was of type 'str'.{SEE_DOCS}"),
        ("create", {"name": "x" * 501}, "'name' exceeds the maximum length of 500 characters"),
        ("create", {"name": "x", "tags": [{"key": "k", "value": "v" * 20_001}]}, "'value' exceeds the maximum length of 20000 characters"),
        ("delete", {}, f"Missing value for required parameter 'experiment_id'.{SEE_DOCS}"),
        ("update", {"experiment_id": "0"}, f"Missing value for required parameter 'new_name'.{SEE_DOCS}"),
        ("update", {"experiment_id": "x", "new_name": "n"}, "Invalid experiment ID 'x'. Experiment ID must be a valid integer."),
        ("set-experiment-tag", {"experiment_id": "0", "value": "v"}, f"Missing value for required parameter 'key'.{SEE_DOCS}"),
        ("set-experiment-tag", {"experiment_id": "0", "key": "k" * 251}, "'key' exceeds the maximum length of 250 characters"),
        ("set-experiment-tag", {"experiment_id": "0", "key": "/a"}, NOT_PLAIN),
        ("search", {"max_results": 0}, "Invalid value 0 for parameter 'max_results' supplied. It must be a positive integer"),
        ("search", {"max_results": 50_001}, "Invalid value 50001 for parameter 'max_results' supplied. It must be at most 50000"),
    ],
)
def test_experiments_refuse_in_mlflows_words(protocol: httpx.Client, endpoint: str, body: dict[str, Any], message: str) -> None:
    """Code and message are those of MLflow 3.17.2."""
    assert refused(protocol, f"/experiments/{endpoint}", **body) == (400, "INVALID_PARAMETER_VALUE", message)


@pytest.mark.parametrize("endpoint", ["delete", "restore", "update", "set-experiment-tag", "delete-experiment-tag"])
def test_experiment_that_is_not_there_is_not_found(protocol: httpx.Client, endpoint: str) -> None:
    """Whatever is asked of it."""
    body = {"experiment_id": "999999", "new_name": new_uuid(), "key": "k"}
    assert refused(protocol, f"/experiments/{endpoint}", **body) == (404, "RESOURCE_DOES_NOT_EXIST", "No Experiment with id=999999 exists")


def test_request_is_read_as_old_clients_send_it(protocol: httpx.Client) -> None:
    """Encoded twice, and with null for what is not there."""
    name = new_uuid()
    answer = protocol.post(f"{API}/experiments/create", json=f'{{"name": "{name}", "tags": null}}')
    assert answer.status_code == 200, answer.text
    assert get(protocol, "/experiments/get-by-name", experiment_name=name)["experiment"]["experiment_id"] == answer.json()["experiment_id"]


@pytest.mark.parametrize("body", [b"{bad", b"null", b'"{}"', b""])
def test_request_that_says_nothing_lacks_its_first_parameter(protocol: httpx.Client, body: bytes) -> None:
    """As with MLflow, what is no JSON is nothing."""
    answer = protocol.post(f"{API}/experiments/delete", content=body, headers={"Content-Type": "application/json"})
    assert refusal(answer) == (400, "INVALID_PARAMETER_VALUE", f"Missing value for required parameter 'experiment_id'.{SEE_DOCS}")


DEEP = b"[" * 100_000


@pytest.mark.parametrize(
    "body",
    [b"[]", b"5", b'"5"', DEEP, b'{"a":' * 100_000, b'{"name": ' + DEEP, b'"' + DEEP + b'"', b'{"name": NaN}', b'{"name": "\\ud800"}'],
    ids=["list", "number", "number in a text", "deep list", "deep object", "deep value", "deep list in a text", "NaN", "half a pair"],
)
def test_request_that_is_no_object_is_refused(protocol: httpx.Client, body: bytes) -> None:
    """MLflow fails on some of these; here they are the client's fault."""
    answer = protocol.post(f"{API}/experiments/delete", content=body, headers={"Content-Type": "application/json"})
    assert refusal(answer)[:2] == (400, "INVALID_PARAMETER_VALUE")


# -- locations ---------------------------------------------------------------------------------------------------------


def test_location_is_told_of_all_that_is_in_its_experiment(protocol: httpx.Client) -> None:
    """A remote store of the experiment's own choice: recorded, and told to clients, who open it."""
    experiment_id = new_experiment(protocol, artifact_location="s3://bucket/p/?region=x")
    run = post(protocol, "/runs/create", experiment_id=experiment_id)["run"]["info"]
    model = post(protocol, "/logged-models", experiment_id=experiment_id)["model"]["info"]
    assert get(protocol, "/experiments/get", experiment_id=experiment_id)["experiment"]["artifact_location"] == "s3://bucket/p/?region=x"
    assert run["artifact_uri"] == f"s3://bucket/p/{run['run_id']}/artifacts?region=x"
    assert get(protocol, "/runs/get", run_id=run["run_id"])["run"]["info"]["artifact_uri"] == run["artifact_uri"]
    assert model["artifact_uri"] == f"s3://bucket/p/models/{model['model_id']}/artifacts?region=x"
    (found,) = post(protocol, "/runs/search", experiment_ids=[experiment_id], filter="artifact_uri LIKE 's3://%'")["runs"]
    assert found["info"]["artifact_uri"] == run["artifact_uri"]


def test_location_is_never_opened_here(protocol: httpx.Client) -> None:
    """Whoever asks this server for what is there is told where it is."""
    experiment_id = new_experiment(protocol, artifact_location="s3://bucket")
    run_id = new_run(protocol, experiment_id=experiment_id)
    model_id = post(protocol, "/logged-models", experiment_id=experiment_id)["model"]["info"]["model_id"]
    for folder in (f"{experiment_id}/{run_id}/artifacts", f"{experiment_id}/models/{model_id}/artifacts"):
        answers = [
            protocol.get(FILES, params={"path": folder}),
            protocol.get(f"{FILES}/{folder}/a"),
            protocol.put(f"{FILES}/{folder}/a", content=b"x"),
        ]
        for answer in answers:
            status, code, message = refusal(answer)
            assert (status, code) == (400, "INVALID_PARAMETER_VALUE")
            assert "s3://bucket/" in message
    for path, query in (("/artifacts/list", {"run_id": run_id}), (f"/logged-models/{model_id}/artifacts/directories", {})):
        assert "s3://bucket/" in refusal(protocol.get(API + path, params=query))[2]


@pytest.mark.parametrize("location", ["/etc", "file:///etc", "http://10.0.0.1/x", "https://h/x", "mlflow-artifacts:/0", "etc"])
def test_location_that_a_server_could_open_is_refused(protocol: httpx.Client, location: str) -> None:
    """What this server opens, it assigns."""
    name = new_uuid()
    status, code, message = refused(protocol, "/experiments/create", name=name, artifact_location=location)
    assert (status, code) == (400, "INVALID_PARAMETER_VALUE")
    assert location in message
    assert protocol.get(f"{API}/experiments/get-by-name", params={"experiment_name": name}).status_code == 404


def test_location_does_not_reach_managed_runs(protocol: httpx.Client, shared_store: Store) -> None:
    """Their artifacts pass the fence, which only this server keeps (I3)."""
    name = new_uuid()
    new_experiment(protocol, name=name, artifact_location="s3://bucket")
    sweep = shared_store.sweeps.submit(NewSweep(name="s", experiment=name, config={}, source="", launch=Launch(), submission_id=new_uuid()))
    assert shared_store.runs.get(sweep.sweep_id).artifact_root is None


# -- names and tags ----------------------------------------------------------------------------------------------------


def test_experiment_is_renamed(protocol: httpx.Client) -> None:
    """It is found by its new name, and its old one is free again."""
    old, new = new_uuid(), new_uuid()
    experiment_id = new_experiment(protocol, name=old)
    before = get(protocol, "/experiments/get", experiment_id=experiment_id)["experiment"]
    assert post(protocol, "/experiments/update", experiment_id=experiment_id, new_name=new) == {}
    after = get(protocol, "/experiments/get-by-name", experiment_name=new)["experiment"]
    assert after["experiment_id"] == experiment_id
    assert after["last_update_time"] >= before["last_update_time"]
    new_experiment(protocol, name=old)


def test_experiment_name_is_refused_when_it_is_taken(protocol: httpx.Client) -> None:
    """Also by one that is deleted, which the message says."""
    taken = new_uuid()
    experiment_id = new_experiment(protocol, name=taken)
    other = new_experiment(protocol)
    assert refused(protocol, "/experiments/update", experiment_id=other, new_name=taken) == (
        400,
        "RESOURCE_ALREADY_EXISTS",
        f"Experiment(name={taken}) already exists.",
    )
    post(protocol, "/experiments/delete", experiment_id=experiment_id)
    status, code, message = refused(protocol, "/experiments/create", name=taken)
    assert (status, code) == (400, "RESOURCE_ALREADY_EXISTS")
    assert message.startswith(f"Experiment(name={taken}) already exists. It is deleted: restore it (its id is {experiment_id})")


def test_experiment_tags_are_set_and_removed(protocol: httpx.Client) -> None:
    """The last value counts, and a tag that is not there can't be removed."""
    experiment_id = new_experiment(protocol)
    for value in ("1", "2"):
        post(protocol, "/experiments/set-experiment-tag", experiment_id=experiment_id, key="k", value=value)
    post(protocol, "/experiments/set-experiment-tag", experiment_id=experiment_id, key="empty")
    assert pairs(get(protocol, "/experiments/get", experiment_id=experiment_id)["experiment"]["tags"]) == {"k": "2", "empty": ""}
    post(protocol, "/experiments/delete-experiment-tag", experiment_id=experiment_id, key="k")
    assert refused(protocol, "/experiments/delete-experiment-tag", experiment_id=experiment_id, key="k") == (
        404,
        "RESOURCE_DOES_NOT_EXIST",
        f"No tag with name: k in experiment with id {experiment_id}",
    )


# -- deleted and restored ----------------------------------------------------------------------------------------------


def test_experiment_takes_its_runs_along_when_deleted_and_restored(protocol: httpx.Client) -> None:
    """As with MLflow, restoring also brings back a run that had been deleted by itself."""
    experiment_id = new_experiment(protocol)
    kept, dropped = new_run(protocol, experiment_id=experiment_id), new_run(protocol, experiment_id=experiment_id)
    post(protocol, "/runs/delete", run_id=dropped)
    post(protocol, "/experiments/delete", experiment_id=experiment_id)
    assert get(protocol, "/experiments/get", experiment_id=experiment_id)["experiment"]["lifecycle_stage"] == "deleted"
    assert [stage_of(protocol, run_id) for run_id in (kept, dropped)] == ["deleted", "deleted"]
    post(protocol, "/experiments/restore", experiment_id=experiment_id)
    assert get(protocol, "/experiments/get", experiment_id=experiment_id)["experiment"]["lifecycle_stage"] == "active"
    assert [stage_of(protocol, run_id) for run_id in (kept, dropped)] == ["active", "active"]


def test_experiment_is_deleted_and_restored_once(protocol: httpx.Client) -> None:
    """There is no active one to delete again, and no deleted one to restore again."""
    experiment_id = new_experiment(protocol)
    for endpoint in ("delete", "restore"):
        post(protocol, f"/experiments/{endpoint}", experiment_id=experiment_id)
        assert refused(protocol, f"/experiments/{endpoint}", experiment_id=experiment_id) == (
            404,
            "RESOURCE_DOES_NOT_EXIST",
            f"No Experiment with id={experiment_id} exists",
        )


def test_experiment_takes_nothing_new_when_it_is_deleted(protocol: httpx.Client, shared_store: Store) -> None:
    """No run, model, tag or sweep; nor another name."""
    name = new_uuid()
    experiment_id = new_experiment(protocol, name=name)
    post(protocol, "/experiments/delete", experiment_id=experiment_id)
    message = f"The experiment {experiment_id} must be in the 'active' state. Current state is deleted."
    for endpoint, body in (
        ("/runs/create", {}),
        ("/logged-models", {"name": "m"}),
        ("/experiments/set-experiment-tag", {"key": "k", "value": "v"}),
        ("/experiments/delete-experiment-tag", {"key": "k"}),
    ):
        assert refused(protocol, endpoint, experiment_id=experiment_id, **body) == (400, "INVALID_PARAMETER_VALUE", message)
    assert refused(protocol, "/experiments/update", experiment_id=experiment_id, new_name="x")[:2] == (400, "INVALID_PARAMETER_VALUE")
    with pytest.raises(InvalidValue, match="is deleted"):
        shared_store.sweeps.submit(NewSweep(name="s", experiment=name, config={}, source="", launch=Launch(), submission_id=new_uuid()))


def test_experiment_is_not_deleted_while_sweeps_of_it_are_not_over(protocol: httpx.Client, shared_store: Store) -> None:
    """Trials that run would lose what they record; the refusal is no error of the server's."""
    attempt = open_attempt(shared_store)
    status, code, message = refused(protocol, "/experiments/delete", experiment_id=attempt.experiment_id)
    assert (status, code) == (409, "RESOURCE_CONFLICT")
    assert "1 of its sweeps and 1 of its managed runs are not over" in message
    assert stage_of(protocol, attempt.run_id) == "active"


# -- search ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_experiments_are_searched_by_filter_order_and_view(protocol: httpx.Client, method: str) -> None:
    """Each of the three counts, and pages follow each other without a gap."""
    mark = new_uuid()
    made = [new_experiment(protocol, name=f"{mark} {number}", tags=[{"key": "even", "value": str(number % 2 == 0)}]) for number in range(5)]
    post(protocol, "/experiments/delete", experiment_id=made[4])

    def search(**asked: Any) -> Any:
        return get(protocol, "/experiments/search", **asked) if method == "GET" else post(protocol, "/experiments/search", **asked)

    def ids(**asked: Any) -> list[str]:
        return [each["experiment_id"] for each in search(max_results=10, **asked).get("experiments", [])]

    own = f"name LIKE '{mark}%'"
    assert ids(filter=own) == made[3::-1]
    assert ids(filter=own, view_type="DELETED_ONLY") == [made[4]]
    assert ids(filter=own, view_type="ALL", order_by=["name ASC"]) == made
    assert ids(filter=f"{own} AND tags.even = 'True'", order_by=["creation_time ASC"]) == [made[0], made[2]]
    assert ids(filter=f"experiment_id IN ('{made[1]}', '{made[2]}')", order_by=["experiment_id DESC"]) == [made[2], made[1]]
    first = search(filter=own, max_results=3)
    second = search(filter=own, max_results=3, page_token=first["next_page_token"])
    assert [each["experiment_id"] for each in first["experiments"] + second["experiments"]] == made[3::-1]
    assert "next_page_token" not in second


@pytest.mark.parametrize(
    "asked",
    [
        {"filter": "metrics.x > 1"},
        {"filter": "bogus = 'x'"},
        {"filter": "name = "},
        {"order_by": ["tags.x"]},
        {"page_token": "zzz"},
        {"view_type": "NONE"},
    ],
)
def test_experiments_search_refuses_what_is_not_of_its_grammar(protocol: httpx.Client, asked: dict[str, Any]) -> None:
    """A client's fault, told at once."""
    assert refused(protocol, "/experiments/search", max_results=5, **asked)[:2] == (400, "INVALID_PARAMETER_VALUE")


def test_experiments_page_is_of_one_search(protocol: httpx.Client) -> None:
    """A token of another filter's page is refused."""
    for _ in range(2):
        new_experiment(protocol)
    token = post(protocol, "/experiments/search", max_results=1)["next_page_token"]
    assert refused(protocol, "/experiments/search", max_results=1, page_token=token, filter="name = 'x'")[:2] == (400, "INVALID_PARAMETER_VALUE")


# -- attempts ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("endpoint", ["update", "delete", "restore"])
def test_experiments_are_not_an_attempts_to_change(protocol: httpx.Client, shared_store: Store, endpoint: str) -> None:
    """Not even its own (D7)."""
    attempt = open_attempt(shared_store)
    answer = refused(protocol, f"/experiments/{endpoint}", attempt.headers, experiment_id=attempt.experiment_id, new_name="x")
    assert answer[:2] == (403, "PERMISSION_DENIED")


def test_experiment_tags_are_an_attempts_in_its_own_experiment_only(protocol: httpx.Client, shared_store: Store) -> None:
    """A script that tags its experiment goes on working; other experiments are out of its reach."""
    attempt = open_attempt(shared_store)
    post(protocol, "/experiments/set-experiment-tag", attempt.headers, experiment_id=attempt.experiment_id, key="k", value="v")
    post(protocol, "/experiments/delete-experiment-tag", attempt.headers, experiment_id=attempt.experiment_id, key="k")
    for endpoint in ("set-experiment-tag", "delete-experiment-tag"):
        answer = refused(protocol, f"/experiments/{endpoint}", attempt.headers, experiment_id="0", key="k")
        assert answer[:2] == (403, "PERMISSION_DENIED")
