"""A script written for W&B and its sweep file, with `compat: wandb` added: `sweep run`, against a cluster of real processes."""

from collections.abc import Iterator
from typing import Final

import pytest

from tests.support.cluster import Cluster, stopped_afterwards
from tests.support.projects import write_project

SCRIPT: Final = """
import wandb


def main():
    with wandb.init(project="digits", config={"epochs": 3, "optimizer": {"name": "sgd", "momentum": 0.5}}) as run:
        config = wandb.config
        run.define_metric("val.loss", step_metric="epoch", summary="min")
        for epoch in range(config.epochs):
            run.log({"epoch": epoch, "val": {"loss": config.lr * 10 + abs(epoch - 1)}})
        run.log({"weights": wandb.Histogram([1, 2, 2, 3], num_bins=4), "rows": wandb.Table(columns=["name"], data=[[config["optimizer"]["name"]]])})
        run.watch(object())
        artifact = wandb.Artifact("digits-model", type="model")
        with artifact.new_file("weights.txt") as file:
            file.write(str(config.lr))
        run.log_artifact(artifact)


main()
"""

pytestmark = pytest.mark.timeout(240)


@pytest.fixture(scope="module")
def cluster(module_database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """One server, one scheduler, one worker of two slots, no broker."""
    with stopped_afterwards(Cluster(tmp_path_factory.mktemp("wandb"), module_database_url, "none")) as made:
        yield made.start(worker_arguments=("--slots", "2"))


def test_wandb_script_is_a_sweep_as_it_stands(cluster: Cluster) -> None:
    """Its config holds each trial's parameters, its metrics decide, what it logs is kept, and the winner's artifact becomes a model version."""
    file = write_project(
        cluster.folder / "digits",
        SCRIPT,
        method="grid",
        metric={"name": "val.loss.min", "goal": "minimize"},
        parameters={"lr": {"values": [0.3, 0.1, 0.2]}, "optimizer.name": {"value": "adam"}},
        register={"model": "digits", "artifact": "digits-model"},
        compat="wandb",
        limits={"parallel": 2},
    )
    done = cluster.sweep("run", str(file), status=None, timeout_s=200)
    trials = cluster.sweep_json("trials")["trials"]
    assert done.returncode == 0, "\n".join([done.stderr, *(cluster.sweep("logs", trial["run_id"], status=None).stdout for trial in trials)])
    assert {trial["params"]["lr"]: trial["value"] for trial in trials} == {0.3: 3.0, 0.1: 1.0, 0.2: 2.0}
    best = cluster.sweep_json("best")
    assert (best["value"], best["params"]["lr"]) == (1.0, 0.1)
    points = cluster.sweep_json("metrics", best["run_id"], "--key", "val.loss")["metrics"]
    assert [(point["step"], point["value"]) for point in points] == [(0, 2.0), (1, 1.0), (2, 2.0)]
    recorded = dict(cluster.query("SELECT key, value FROM params WHERE run_id = %(run_id)s", run_id=best["run_id"]))
    assert recorded == {"lr": "0.1", "optimizer.name": "adam", "epochs": "3", "optimizer.momentum": "0.5"}
    kept = {
        path.relative_to(root).as_posix(): path for root in (cluster.folder / "artifacts").rglob(best["run_id"]) for path in root.rglob("*") if path.is_file()
    }
    assert {name.removeprefix("artifacts/").rpartition("_")[0] or name.rpartition("/")[2] for name in kept} == {
        "media/histograms/weights_3",
        "media/table/rows_3",
        "weights.txt",
        "wandb-artifact.json",
    }
    versions = cluster.sweep_json("models", "show", "digits")["versions"]
    assert [version["run_id"] for version in versions] == [best["run_id"]]
