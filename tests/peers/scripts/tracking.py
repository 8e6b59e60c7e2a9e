"""Tracking as users write it: parameters, metrics, tags, nested runs, files, a data set; read back, and what is refused."""

import math
import sys
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag, ViewType
from mlflow.exceptions import MlflowException

folder = Path(sys.argv[1])
client = MlflowClient()
name = f"tracking with {mlflow.__version__}"
experiment = mlflow.set_experiment(name)
mlflow.set_experiment_tag("team", "a")

with mlflow.start_run(run_name="parent", tags={"stage": "first"}, description="a note") as parent:
    mlflow.log_params({"lr": 0.1, "layers": [1, 2], "name": "hello world", "empty": ""})
    for step in range(50):
        mlflow.log_metric("loss", 1 / (step + 1), step=step)
    mlflow.log_metrics({"nan": math.nan, "inf": math.inf, "low": -math.inf, "acc": 0.5}, step=3)
    mlflow.set_tags({"a": "1", "b": "2"})
    mlflow.delete_tag("b")
    frame = pd.DataFrame({"x": np.arange(10), "y": np.arange(10) * 2.0})
    mlflow.log_input(mlflow.data.from_pandas(frame, source="local", name="ten rows"), context="training")
    children = []
    for number in range(5):
        with mlflow.start_run(run_name=f"child {number}", nested=True) as child:
            mlflow.log_param("number", number)
            mlflow.log_metric("score", number**2)
            with mlflow.start_run(run_name=f"grandchild {number}", nested=True):
                mlflow.log_metric("depth", 2)
        children.append(child.info.run_id)
    (folder / "empty.bin").write_bytes(b"")
    (folder / "mebibyte.bin").write_bytes(bytes(range(256)) * 4096)
    (folder / "deep" / "er").mkdir(parents=True)
    (folder / "deep" / "er" / "a b.txt").write_text("words")
    for file in ("empty.bin", "mebibyte.bin"):
        mlflow.log_artifact(str(folder / file))
    mlflow.log_artifacts(str(folder / "deep"), "all")
    mlflow.log_text("text", "texts/text.txt")
    mlflow.log_dict({"k": [1, 2]}, "config.json")

run = mlflow.get_run(parent.info.run_id)
assert (run.info.status, run.info.run_name, run.info.lifecycle_stage) == ("FINISHED", "parent", "active"), run.info
assert run.info.start_time <= run.info.end_time, run.info
assert run.data.params == {"lr": "0.1", "layers": "[1, 2]", "name": "hello world", "empty": ""}, run.data.params
assert (run.data.metrics["loss"], run.data.metrics["acc"]) == (0.02, 0.5), run.data.metrics
assert math.isnan(run.data.metrics["nan"]), run.data.metrics
assert run.data.metrics["inf"] > 1e300 > -1e300 > run.data.metrics["low"], run.data.metrics
assert {key: run.data.tags.get(key) for key in ("a", "b", "stage", "mlflow.note.content")} == {
    "a": "1",
    "b": None,
    "stage": "first",
    "mlflow.note.content": "a note",
}
(dataset,) = run.inputs.dataset_inputs
assert (dataset.dataset.name, dataset.dataset.source_type, dataset.tags[0].value) == ("ten rows", "local", "training"), dataset
history = client.get_metric_history(run.info.run_id, "loss")
assert [(point.step, point.value) for point in history] == [(step, 1 / (step + 1)) for step in range(50)], history

found = mlflow.search_runs([experiment.experiment_id], f"tags.mlflow.parentRunId = '{run.info.run_id}'", order_by=["metrics.score DESC"])
assert list(found["run_id"]) == children[::-1], found
assert list(found["params.number"]) == ["4", "3", "2", "1", "0"], found

assert sorted(file.path for file in client.list_artifacts(run.info.run_id)) == ["all", "config.json", "empty.bin", "mebibyte.bin", "texts"]
assert [(file.path, file.file_size) for file in client.list_artifacts(run.info.run_id, "all/er")] == [("all/er/a b.txt", 5)]
back = Path(client.download_artifacts(run.info.run_id, "", str(folder)))
assert (back / "empty.bin").read_bytes() == b""
assert (back / "mebibyte.bin").read_bytes() == bytes(range(256)) * 4096
assert (back / "all" / "er" / "a b.txt").read_text() == "words"
assert mlflow.artifacts.load_text(run.info.artifact_uri + "/texts/text.txt") == "text"

client.log_batch(children[0], [Metric("many", step, 1000 + step, step) for step in range(1000)], [Param("p", "1")], [RunTag("t", "2")])
client.log_batch(children[0], [Metric("many", step, 1000 + step, step) for step in range(1000)])
assert len(client.get_metric_history(children[0], "many")) == 1000
for refused, code in (
    (lambda: client.log_param(run.info.run_id, "lr", "0.2"), "INVALID_PARAMETER_VALUE"),
    (lambda: client.get_run("0" * 32), "RESOURCE_DOES_NOT_EXIST"),
    (lambda: client.log_metric(run.info.run_id, "a?b", 1), "INVALID_PARAMETER_VALUE"),
    (lambda: client.create_experiment(name), "RESOURCE_ALREADY_EXISTS"),
    (lambda: client.search_runs([experiment.experiment_id], "nothing = 1"), "INVALID_PARAMETER_VALUE"),
):
    try:
        refused()
    except MlflowException as error:
        assert error.error_code == code, error
    else:
        raise AssertionError(code)

client.delete_run(children[4])
assert client.get_run(children[4]).info.lifecycle_stage == "deleted"
assert [each.info.run_id for each in client.search_runs([experiment.experiment_id], "", ViewType.DELETED_ONLY)] == [children[4]]
client.restore_run(children[4])
with mlflow.start_run(run_id=children[4]):
    mlflow.log_metric("again", 1)
client.set_terminated(children[3], "KILLED")
client.update_run(children[2], status="FAILED", name="renamed")
assert [client.get_run(each).info.status for each in children] == ["FINISHED", "FINISHED", "FAILED", "KILLED", "FINISHED"]

other = client.create_experiment(f"{name}, another", tags={"k": "v"})
client.rename_experiment(other, f"{name}, renamed")
client.delete_experiment(other)
assert client.get_experiment(other).lifecycle_stage == "deleted"
client.restore_experiment(other)
assert client.get_experiment_by_name(f"{name}, renamed").tags == {"k": "v"}
assert {each.name for each in client.search_experiments(filter_string=f"name LIKE '{name}%'")} == {name, f"{name}, renamed"}
assert [each.name for each in client.search_experiments(filter_string="tags.team = 'a' AND name = '" + name + "'")] == [name]
print("done")
