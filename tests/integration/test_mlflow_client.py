"""The real `mlflow` client, unchanged, against our server: scripts as users write them, outside and inside a trial."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from starlette.applications import Starlette

from tests.integration.test_mlflow_api import Server, end_attempt, open_attempt
from tracking.artifacts import ArtifactStore
from tracking.mlflow_api import build_routes
from tracking.settings import Settings
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
with mlflow.start_run() as second:
    mlflow.log_metric("later", 1)
print(json.dumps({"run": run.info.run_id, "child": child.info.run_id, "second": second.info.run_id}))
"""

TOO_LATE = """
import json, mlflow
from mlflow import MlflowClient
try:
    mlflow.start_run()
except mlflow.MlflowException as error:
    print(json.dumps({"refused": error.error_code}))
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
    home = tmp_path_factory.mktemp("home")
    app = Starlette(routes=build_routes(store, ArtifactStore(home / "artifacts"), Settings(home=home)))
    server = Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_config=None, lifespan="off"))
    thread = threading.Thread(target=server.run)
    thread.start()
    assert server.is_up.wait(30)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join()


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
    descendants = [store.runs.get(told[name]) for name in ("child", "second")]
    assert [(each.parent_run_id, each.experiment_id, each.state) for each in descendants] == [(attempt.run_id, attempt.experiment_id, "finished")] * 2


def test_client_is_refused_when_its_attempt_has_ended(server_url: str, store: Store, tmp_path: Path) -> None:
    """A script that outlives its attempt is told at once, and records nothing."""
    attempt = open_attempt(store)
    end_attempt(store, attempt)
    token = attempt.headers["Authorization"].removeprefix("Bearer ")
    told = run_script(TOO_LATE, tmp_path, server_url, MLFLOW_RUN_ID=attempt.run_id, MLFLOW_TRACKING_TOKEN=token)
    assert told == {"refused": "UNAUTHENTICATED"}
