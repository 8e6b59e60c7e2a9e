"""The real `mlflow` client, unchanged, against our server: scripts as users write them, outside and inside a trial."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.support.protocol import end_attempt, open_attempt, serving
from tests.support.s3_server import CREDENTIALS, s3_server
from tracking.store import Store, open_store

pytest.importorskip("mlflow", reason="the real client is in the test extra: make install")

SCRIPT_TIME_S = 100

OUTSIDE = """
import json, math, sys
from pathlib import Path
import mlflow
from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag

folder = Path(sys.argv[1])
mlflow.set_experiment("from outside")
with mlflow.start_run(run_name="parent", tags={"team": "a"}, description="a note") as parent:
    mlflow.log_params({"lr": 0.1, "name": "hello world", "empty": ""})
    mlflow.log_param("depth", 3)
    for step in range(5):
        mlflow.log_metric("loss", 1 / (step + 1), step=step)
    mlflow.log_metrics({"nan": math.nan, "inf": math.inf, "low": -math.inf}, step=1)
    mlflow.set_tags({"a": "1", "b": "2"})
    mlflow.set_tag("c", "3")
    mlflow.delete_tag("b")
    with mlflow.start_run(run_name="child", nested=True) as child:
        mlflow.log_metric("score", 7)
    (folder / "report.txt").write_text("fine")
    (folder / "plots" / "deep").mkdir(parents=True)
    (folder / "plots" / "deep" / "a b.bin").write_bytes(bytes(range(256)))
    mlflow.log_artifact(str(folder / "report.txt"))
    mlflow.log_artifacts(str(folder / "plots"), artifact_path="all")
    mlflow.log_text("words", "texts/words.txt")
    mlflow.log_dict({"k": [1, 2]}, "config.json")

client = MlflowClient()
run = mlflow.get_run(parent.info.run_id)
children = mlflow.search_runs(
    experiment_names=["from outside"], filter_string=f"tags.mlflow.parentRunId = '{parent.info.run_id}'", output_format="list"
)
client.log_batch(
    child.info.run_id,
    metrics=[Metric("m", step, 1000 + step, step) for step in range(1000)],
)
client.log_batch(child.info.run_id, params=[Param("p", "1")], tags=[RunTag("t", "2")])
with mlflow.start_run(run_id=child.info.run_id):
    mlflow.log_metric("again", 1)
try:
    client.log_param(parent.info.run_id, "lr", 0.2)
except mlflow.MlflowException as error:
    changed = str(error)
downloaded = Path(client.download_artifacts(parent.info.run_id, "all", str(folder)))
print(json.dumps({
    "run": run.to_dictionary(),
    "children": [each.info.run_id for each in children],
    "child": child.info.run_id,
    "child_status": client.get_run(child.info.run_id).info.status,
    "history": [(point.step, point.value) for point in client.get_metric_history(parent.info.run_id, "loss")],
    "batch": len(client.get_metric_history(child.info.run_id, "m")),
    "nan": [run.data.metrics["nan"] != run.data.metrics["nan"], run.data.metrics["inf"] > 1e300, run.data.metrics["low"] < -1e300],
    "files": sorted(each.path for each in client.list_artifacts(parent.info.run_id)),
    "file_sizes": [each.file_size for each in client.list_artifacts(parent.info.run_id, "all/deep")],
    "of_a_file": client.list_artifacts(parent.info.run_id, "report.txt"),
    "content": list((downloaded / "deep" / "a b.bin").read_bytes()) == list(range(256)),
    "text": mlflow.artifacts.load_text(parent.info.artifact_uri + "/texts/words.txt"),
    "best": [each.info.run_name for each in client.search_runs([run.info.experiment_id], order_by=["metrics.loss ASC"], max_results=1)],
    "experiments": [each.name for each in mlflow.search_experiments()],
    "changed": changed,
}))
"""

MODELS = """
import json, sys
from pathlib import Path
import mlflow
from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, LoggedModelInput, LoggedModelOutput

folder = Path(sys.argv[1])
(folder / "weights.bin").write_bytes(b"12345")
client = MlflowClient()
experiment_id = client.create_experiment("models", tags={"team": "a"})
client.set_experiment_tag(experiment_id, "stage", "early")
client.rename_experiment(experiment_id, "renamed")
remote = client.create_experiment("remote", artifact_location="s3://bucket/folder")
mlflow.set_experiment("renamed")
with mlflow.start_run() as run:
    model = mlflow.initialize_logged_model(name="own", params={"depth": "3"}, model_type="tree")
    client.log_model_artifact(model.model_id, str(folder / "weights.bin"))
    mlflow.finalize_logged_model(model.model_id, "READY")
    dataset = Dataset("iris", "d1", "local", "here")
    client.log_inputs(run.info.run_id, [DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])], [LoggedModelInput(model.model_id)])
    client.log_outputs(run.info.run_id, [LoggedModelOutput(model.model_id, step=4)])
    mlflow.log_metric("acc", 0.75, step=1, model_id=model.model_id)
    mlflow.log_metrics({"loss": 0.25}, step=2, model_id=model.model_id)
    many = mlflow.create_external_model(name="many", params={f"p{number}": str(number) for number in range(250)})
client.set_logged_model_tags(model.model_id, {"good": "yes", "bad": "no"})
client.delete_logged_model_tag(model.model_id, "bad")
told = client.get_logged_model(model.model_id)
read = client.get_run(run.info.run_id)
search = lambda **asked: [each.name for each in client.search_logged_models([experiment_id], **asked)]
result = {
    "model": [told.name, str(told.status), told.params, told.tags.get("good"), "bad" in told.tags, {each.key: each.value for each in told.metrics}],
    "uri": told.artifact_location,
    "files": [each.path for each in client.list_logged_model_artifacts(model.model_id)],
    "inputs": [[each.dataset.name, each.tags[0].value] for each in read.inputs.dataset_inputs],
    "read": [each.model_id for each in read.inputs.model_inputs] == [model.model_id],
    "made": [(each.model_id, each.step) for each in read.outputs.model_outputs] == [(model.model_id, 4)],
    "found": [search(filter_string="metrics.acc > 0.5"), search(order_by=[{"field_name": "name", "ascending": False}]), search(max_results=1)],
    "by_data": len(mlflow.search_runs(search_all_experiments=True, filter_string="dataset.name = 'iris'", output_format="list")),
    "n_params": len(client.get_logged_model(many.model_id).params),
    "experiments": [each.name for each in client.search_experiments(filter_string="tags.stage = 'early'", order_by=["name ASC"])],
    "remote": client.create_run(remote).info.artifact_uri.startswith("s3://bucket/folder/"),
}
client.delete_logged_model(many.model_id)
client.delete_experiment(experiment_id)
result["hidden"] = [each.name for each in client.search_experiments(filter_string="name = 'renamed'")]
client.restore_experiment(experiment_id)
result["left"] = search()
print(json.dumps(result))
"""

INSIDE = """
import json, sys
from pathlib import Path
import mlflow

mlflow.set_experiment("a name of the script's own")
with mlflow.start_run(run_name="mine") as run:
    mlflow.log_param("lr", 1.0)
    mlflow.log_params({"name": "x", "extra": "y"})
    for step in range(3):
        mlflow.log_metric("loss", 3 - step, step=step)
    mlflow.set_tag("note", "inside")
    with mlflow.start_run(nested=True) as child:
        mlflow.log_metric("inner", 1)
    Path(sys.argv[1], "weights.bin").write_bytes(b"123")
    mlflow.log_artifact(str(Path(sys.argv[1], "weights.bin")), "model")
    model = mlflow.initialize_logged_model(name="own")
    mlflow.MlflowClient().log_model_artifact(model.model_id, str(Path(sys.argv[1], "weights.bin")))
    mlflow.finalize_logged_model(model.model_id, "READY")
    mlflow.MlflowClient().log_outputs(run.info.run_id, [mlflow.entities.LoggedModelOutput(model.model_id, step=0)])
    mlflow.log_metric("score", 1, model_id=model.model_id)
with mlflow.start_run() as second:
    mlflow.log_metric("later", 1)
print(json.dumps({"run": run.info.run_id, "child": child.info.run_id, "second": second.info.run_id, "model": model.model_id}))
"""

TOO_LATE = """
import json, mlflow
from mlflow import MlflowClient
try:
    mlflow.start_run()
except mlflow.MlflowException as error:
    print(json.dumps({"refused": error.error_code}))
"""

FILES = """
import json, sys
from pathlib import Path
import mlflow
from mlflow.artifacts import download_artifacts
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

folder = Path(sys.argv[1])
sizes = {"none.bin": 0, "one.bin": 1 << 20, "many.bin": 12 << 20}
for name, size in sizes.items():
    (folder / name).write_bytes(bytes(range(256)) * (size // 256))
mlflow.set_experiment("files")
with mlflow.start_run() as run:
    for name in sizes:
        mlflow.log_artifact(str(folder / name), "deep/er")
client = mlflow.MlflowClient()
listed = {each.path: each.file_size for each in client.list_artifacts(run.info.run_id, "deep/er")}
back = Path(download_artifacts(run_id=run.info.run_id, artifact_path="deep", dst_path=str(folder / "back")))
same = [(back / "er" / name).read_bytes() == (folder / name).read_bytes() for name in sizes]
get_artifact_repository(run.info.artifact_uri).delete_artifacts("deep/er/one.bin")
left = [each.path for each in client.list_artifacts(run.info.run_id, "deep/er")]
print(json.dumps({"listed": listed, "same": same, "left": left}))
"""


@pytest.fixture(scope="module")
def store(module_database_url: str) -> Iterator[Store]:
    """A record that the tests of this file share."""
    opened = open_store(module_database_url)
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def server_url(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of a server that speaks the protocol."""
    with serving(store, tmp_path_factory.mktemp("home")) as url:
        yield url


def run_script(script: str, folder: Path, server_url: str, **environ: str) -> Any:
    """Run a script with the real client; what it printed last, as JSON."""
    environment = {
        **{name: value for name, value in os.environ.items() if "proxy" not in name.lower()},
        "MLFLOW_TRACKING_URI": server_url,
        # A refusal that the client would retry for minutes fails the test in seconds.
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
        **environ,
    }
    ended = subprocess.run(
        [sys.executable, "-c", script, str(folder)], env=environment, cwd=folder, capture_output=True, text=True, timeout=SCRIPT_TIME_S, check=False
    )
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout.splitlines()[-1])


def test_client_round_trip(server_url: str, tmp_path: Path) -> None:
    """Experiments, runs, nested runs, batches, searches and artifacts: what the client logs is what it reads back."""
    told = run_script(OUTSIDE, tmp_path, server_url)
    run = told["run"]
    assert (run["info"]["run_name"], run["info"]["status"]) == ("parent", "FINISHED")
    assert run["data"]["params"] == {"lr": "0.1", "name": "hello world", "empty": "", "depth": "3"}
    assert {key: run["data"]["tags"].get(key) for key in "abc"} == {"a": "1", "b": None, "c": "3"}
    assert run["data"]["tags"]["mlflow.note.content"] == "a note"
    assert told["history"] == [[step, 1 / (step + 1)] for step in range(5)]
    assert told["nan"] == [True, True, True]
    assert told["children"] == [told["child"]]
    assert (told["child_status"], told["batch"]) == ("FINISHED", 1000)
    assert told["files"] == ["all", "config.json", "report.txt", "texts"]
    assert (told["file_sizes"], told["of_a_file"], told["content"], told["text"]) == ([256], [], True, "words")
    assert told["best"] == ["parent"]
    assert told["experiments"] == ["from outside", "Default"]
    assert "Changing param values is not allowed" in told["changed"]


def test_client_writes_models_datasets_and_experiments(server_url: str, tmp_path: Path) -> None:
    """Logged models with files, parameters and metrics, inputs and outputs of runs, experiments renamed, searched, deleted and restored."""
    told = run_script(MODELS, tmp_path, server_url)
    assert told["model"] == ["own", "READY", {"depth": "3"}, "yes", False, {"acc": 0.75, "loss": 0.25}]
    assert told["uri"].startswith("mlflow-artifacts:/")
    assert told["files"] == ["weights.bin"]
    assert told["inputs"] == [["iris", "training"]]
    assert (told["read"], told["made"], told["remote"]) == (True, True, True)
    assert told["found"] == [["own"], ["own", "many"], ["many"]]
    assert (told["by_data"], told["n_params"], told["experiments"]) == (1, 250, ["renamed"])
    assert (told["hidden"], told["left"]) == ([], ["own"])


def test_client_logs_to_its_trial_when_it_runs_inside_one(server_url: str, store: Store, tmp_path: Path) -> None:
    """The environment points an unchanged script at its managed run; what else it opens are descendants; its end is the worker's."""
    attempt = open_attempt(store)
    token = attempt.headers["Authorization"].removeprefix("Bearer ")
    environ = {"MLFLOW_RUN_ID": attempt.run_id, "MLFLOW_TRACKING_TOKEN": token, "MLFLOW_EXPERIMENT_ID": attempt.experiment_id}
    told = run_script(INSIDE, tmp_path, server_url, **environ)
    run, data = store.runs.get(attempt.run_id), store.runs.data(attempt.run_id)
    assert (told["run"], run.state, run.experiment_id) == (attempt.run_id, "running", attempt.experiment_id)
    assert data.params == {"lr": "1", "name": "x", "extra": "y"}
    assert [point.value for point in store.metrics.history(attempt.run_id, "loss")[0]] == [3.0, 2.0, 1.0]
    assert (data.tags["note"], data.tags["sweep.askedExperiment"]) == ("inside", "a name of the script's own")
    model = store.logged_models.get(told["model"])
    assert (model.name, model.status, model.experiment_id, model.source_run_id) == ("own", "ready", attempt.experiment_id, attempt.run_id)
    assert [(metric.point.key, metric.run_id) for metric in model.metrics] == [("score", attempt.run_id)]
    assert [made.model_id for made in data.lineage.models_out] == [model.model_id]
    descendants = [store.runs.get(told[name]) for name in ("child", "second")]
    assert [(each.parent_run_id, each.experiment_id, each.state) for each in descendants] == [(attempt.run_id, attempt.experiment_id, "finished")] * 2


def test_client_is_refused_when_its_attempt_has_ended(server_url: str, store: Store, tmp_path: Path) -> None:
    """A script that outlives its attempt is told at once, and records nothing."""
    attempt = open_attempt(store)
    end_attempt(store, attempt)
    token = attempt.headers["Authorization"].removeprefix("Bearer ")
    told = run_script(TOO_LATE, tmp_path, server_url, MLFLOW_RUN_ID=attempt.run_id, MLFLOW_TRACKING_TOKEN=token)
    assert told == {"refused": "UNAUTHENTICATED"}


@pytest.mark.parametrize("way", ["folder", "s3", "past the server"])
def test_mlflow_client_keeps_files(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    """Of 0 B, 1 MiB and 12 MiB: logged, listed, read back, deleted; in S3 also past the server, in parts of the client's own size."""
    direct = {
        "MLFLOW_ENABLE_PROXY_MULTIPART_UPLOAD": "true",
        "MLFLOW_ENABLE_PROXY_MULTIPART_DOWNLOAD": "true",
        "MLFLOW_MULTIPART_UPLOAD_MINIMUM_FILE_SIZE": str(10 << 20),
        "MLFLOW_MULTIPART_UPLOAD_CHUNK_SIZE": str(5 << 20),
        "MLFLOW_MULTIPART_DOWNLOAD_CHUNK_SIZE": str(5 << 20),
    }
    settings: dict[str, str] = {}
    listing = ""
    with ExitStack() as stack:
        if way != "folder":
            s3 = stack.enter_context(s3_server(tmp_path))
            for name, value in CREDENTIALS.items():
                monkeypatch.setenv(name, value)
            bucket = s3.new_bucket()
            settings = {"artifact_root": f"s3://{bucket}", "artifact_endpoint": s3.url}
        url = stack.enter_context(serving(store, tmp_path, **settings))
        # In a folder they are told that there is no such way, and go the other one.
        told = run_script(FILES, tmp_path, url, **({} if way == "s3" else direct))
        if settings:
            listing = s3.get(bucket, "list-type=2")
    assert told == {
        "listed": {"deep/er/many.bin": 12 << 20, "deep/er/none.bin": 0, "deep/er/one.bin": 1 << 20},
        "same": [True, True, True],
        "left": ["deep/er/many.bin", "deep/er/none.bin"],
    }
    # S3 says of what was sent in parts how many they were.
    n_parts = re.findall(r'-(\d+)(?:"|&quot;)</ETag>', listing)
    assert n_parts == {"folder": [], "s3": ["2"], "past the server": ["3"]}[way]
