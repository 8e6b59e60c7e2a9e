"""Scripts as W&B's documentation writes them, run unedited with the stand-in for `wandb` that `compat: wandb` puts on a trial's path."""

import ast
import json
import os
import re
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from sweeps.spec import parse_sweep
from tests.support.record import EXITED, SUCCEEDED
from tests.support.services import wait_until
from tests.support.tracking_server import FakeServer, fake_server
from tracking.records import ClaimedRun, Launch
from worker.runtimes.base import WORK
from worker.surroundings import CLIENT_FOLDER, WANDB_EXIT_FILE, heed_wandb, trial_variables, wandb_config

PREFIX: Final = "/api/2.0/mlflow-artifacts/artifacts/7/r1/artifacts/"

Runs = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def server() -> Iterator[FakeServer]:
    """A server that takes everything."""
    with fake_server() as fake:
        yield fake


@pytest.fixture
def run(server: FakeServer, tmp_path: Path) -> Runs:
    """Runs a script as a trial's command: with the variables that a worker sets, in a folder of its own."""

    def go(script: str, *arguments: str, status: int = 0, env: dict[str, str] | None = None, compat: Any = "wandb", strict: bool = True, **params: Any) -> Any:
        (tmp_path / "train.py").write_text(textwrap.dedent(script), encoding="utf-8")
        (tmp_path / "params.json").write_text(json.dumps(params), encoding="utf-8")
        claimed = ClaimedRun("r1", 1, 1, "7", "s1/3", ("python",), params, Launch(env=env or {}, compat=compat), "s1", 3, 42)
        ours = trial_variables(claimed, token="t", server=server.url, files_folder=str(tmp_path), client_folder=str(CLIENT_FOLDER))
        environ = {**os.environ, **ours, "PYTHONDONTWRITEBYTECODE": "1"}
        command = [sys.executable, *(["-W", "error"] if strict else []), "train.py", *arguments]
        done = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=90, check=False)
        assert done.returncode == status, done.stderr
        return done

    return go


def files(server: FakeServer) -> dict[str, bytes]:
    """The artifacts by their path within the run."""
    assert all(path.startswith(PREFIX) for path in server.files), list(server.files)
    return {path[len(PREFIX) :]: content for path, content in server.files.items()}


def test_wandb_config_holds_the_sweeps_parameters_over_the_scripts_defaults(run: Runs, server: FakeServer) -> None:
    """A script that never looks at its arguments: parameters win, defaults fill in, and only the latter are recorded anew."""
    run(
        """
        import wandb

        def main():
            run = wandb.init(project="my-first-sweep", config={"lr": 1.0, "epochs": 3, "optimizer": {"name": "sgd", "momentum": 0.9}})
            assert (wandb.config.lr, wandb.config["epochs"], run.config.get("nope", 7)) == (0.01, 3, 7)
            assert wandb.config.optimizer == {"name": "adam", "momentum": 0.9} and wandb.config["optimizer"]["name"] == "adam"
            assert dict(wandb.config) == run.config.as_dict() and "lr" in wandb.config and len(wandb.config.items()) == 3
            wandb.log({"score": wandb.config.lr * 2})

        main()
        """,
        "--lr=0.01",
        **{"lr": 0.01, "optimizer.name": "adam"},
    )
    assert server.points == [("score", 0.02, 0)]
    assert server.params == {"epochs": "3", "optimizer.momentum": "0.9"}
    assert server.tags["wandb.project"] == "my-first-sweep"


def test_wandb_config_keeps_a_parameter_and_refuses_other_changes(run: Runs, server: FakeServer) -> None:
    """W&B's rules: a sweep's parameter stays and that is said once; other values change only when told so."""
    done = run(
        """
        import argparse, wandb

        parser = argparse.ArgumentParser()
        parser.add_argument("--lr", type=float, default=0.5)
        parser.add_argument("--seed", type=int, default=1)
        args = parser.parse_args()
        run = wandb.init(config=args)
        assert wandb.config.lr == 0.01, wandb.config
        wandb.config.lr = 3
        wandb.config.lr = 4
        wandb.config.setdefaults({"seed": 9, "layers": (1, 2)})
        assert (wandb.config.lr, wandb.config.seed, wandb.config.layers) == (0.01, 1, [1, 2])
        try:
            wandb.config.seed = 2
        except Exception as error:
            assert "allow_val_change" in str(error)
        else:
            raise AssertionError
        wandb.config.update({"seed": 2}, allow_val_change=True)
        assert wandb.config.seed == 2
        """,
        lr=0.01,
    )
    assert server.params == {"seed": "1", "layers": "[1, 2]"}
    assert server.tags["wandb.config.seed"] == "2"
    assert done.stderr.count("'lr' is a parameter of the sweep") == 1


def test_wandb_log_counts_steps_as_wandb_does(run: Runs, server: FakeServer) -> None:
    """Nested names, `commit=False`, steps of the script's own, one that goes back, and the last row at the end of the process."""
    done = run(
        """
        import wandb

        wandb.init()
        wandb.log({"train": {"loss": 1.0, "acc": {"top1": 0.5}}})
        wandb.log({"a": 1}, commit=False)
        wandb.log({"b": 2})
        assert wandb.run.step == 2
        wandb.log({"c": 3}, step=10)
        wandb.log({"d": True}, step=10)
        wandb.log({"late": 1}, step=4)
        wandb.log({"e": float("nan")}, step=11)
        assert wandb.summary["train"]["acc"]["top1"] == 0.5 and wandb.summary.b == 2 and wandb.run.summary.get("late") is None
        """
    )
    assert server.points == [
        ("train.loss", 1.0, 0),
        ("train.acc.top1", 0.5, 0),
        ("a", 1.0, 1),
        ("b", 2.0, 1),
        ("c", 3.0, 10),
        ("d", 1.0, 10),
        ("e", "NaN", 11),
    ]
    assert done.stderr.count("step 4 is ignored") == 1


def test_wandb_log_replaces_a_value_of_the_same_step(run: Runs, server: FakeServer) -> None:
    """The first is seen at once, the last one counts; values in between are not recorded."""
    run(
        """
        import wandb

        with wandb.init() as run:
            for value in (1, 2, 3):
                run.log({"loss": value}, step=5)
            run.log({"loss": 4}, step=6)
        """
    )
    assert server.points == [("loss", 1.0, 5), ("loss", 3.0, 5), ("loss", 4.0, 6)]


def test_wandb_define_metric_counts_in_its_own_steps(run: Runs, server: FakeServer) -> None:
    """Patterns, a step metric logged after its metric or only before, and one that is no whole number."""
    done = run(
        """
        import wandb

        run = wandb.init()
        epoch = run.define_metric("epoch")
        run.define_metric("val/*", step_metric=epoch)
        run.define_metric("odd", step_metric="half")
        for number in (10, 20):
            wandb.log({"val/loss": number + 0.5}, commit=False)
            wandb.log({"epoch": number, "train": 1})
            wandb.log({"val/late": number})
        wandb.log({"odd": 1, "half": 0.5})
        """
    )
    assert [point for point in server.points if point[0].startswith("val")] == [
        ("val/loss", 10.5, 10),
        ("val/late", 10.0, 10),
        ("val/loss", 20.5, 20),
        ("val/late", 20.0, 20),
    ]
    assert [point[2] for point in server.points if point[0] == "train"] == [0, 2]
    assert ("odd", 1.0, 0) in server.points
    assert "half = 0.5 is no whole number" in done.stderr


def test_wandb_define_metric_counts_on_where_its_own_steps_are_not_whole(run: Runs, server: FakeServer) -> None:
    """As Trainers log fractions of epochs: the last value logged is the last of the series, whole epochs in between included."""
    run(
        """
        import wandb

        run = wandb.init()
        run.define_metric("val/*", step_metric="epoch")
        for number in range(1, 9):
            run.log({"val/loss": 9 - number, "epoch": number / 4})
        run.log({"val/loss": 0.5, "epoch": "third"})
        run.log({"val/loss": 0.25, "epoch": 1})
        run.log({"val/acc": 1, "epoch": 5})
        run.log({"val/acc": 2, "epoch": 3})
        """
    )
    assert [point[1:] for point in server.points if point[0] == "val/loss"] == [
        *((9.0 - number, number - 1) for number in range(1, 9)),
        (0.5, 8),
        (0.25, 9),
    ]
    assert [point[1:] for point in server.points if point[0] == "val/acc"] == [(1.0, 5), (2.0, 3)]


def test_wandb_log_counts_the_last_value_of_a_step(run: Runs, server: FakeServer) -> None:
    """Also where it is not the greatest and comes within the same millisecond; so do the summary and what is set there by hand."""
    run(
        """
        import time, wandb

        time.time = lambda: 50.0
        run = wandb.init()
        for number in range(3):
            run.log({"loss": 9 - number}, step=number)
            assert run.summary["loss"] == 9 - number
            run.log({"loss": 1 - number}, step=number)
            assert run.summary["loss"] == 1 - number
        run.summary["best"] = 0.9
        run.summary["best"] = 0.4
        """
    )
    points = [point for batch in server.batches for point in batch["metrics"]]
    last = {key: max((p for p in points if p["key"] == key), key=lambda p: (p["step"], p["timestamp"], p["value"])) for key in ("loss", "best")}
    assert {key: point["value"] for key, point in last.items()} == {"loss": -1.0, "best": 0.4}


def test_wandb_takes_arrays_of_one_element_and_whatever_else_is_logged(run: Runs, server: FakeServer) -> None:
    """W&B's rule: one element is a number, whatever the shape; nothing that is logged ends training."""
    run(
        """
        import enum, wandb, numpy as np

        class Broken:
            shape, dtype = (None,), "float"

        run = wandb.init()
        run.log({"flat": np.array([1.5]), "deep": np.array([[2.5]]), "zero": np.array(3.5), "large": 10**400, "low": -10**400})
        run.log({"text": np.array(["a"]), "texts": np.array(["a", "b"]), "nothing": np.array([]), "none": np.array([None]), "complex": 1j})
        run.log({"broken": Broken(), "object": object(), "set": {1}, "two": np.array([1.0, 2.0])})
        assert run.summary["text"] == "a", run.summary
        run.summary["best"] = np.array([4.5])
        run.summary.update({"inner": {"deep": np.array([[5.5]])}})
        """
    )
    assert {key: value for key, value, _ in server.points} == {
        "flat": 1.5,
        "deep": 2.5,
        "zero": 3.5,
        "large": "Infinity",
        "low": "-Infinity",
        "best": 4.5,
        "inner.deep": 5.5,
    }


def test_wandb_run_after_another_continues_its_steps(run: Runs, server: FakeServer) -> None:
    """Folds of a cross-validation, a run each: the last value logged is the last of the trial, whichever fold was the longest."""
    run(
        """
        import wandb

        for fold in range(2):
            run = wandb.init(reinit=True, name=f"fold-{fold}")
            run.define_metric("val", step_metric="epoch")
            for number in range(3 - fold):
                run.log({"acc": fold + number / 10, "epoch": number * 5, "val": number})
            assert run.step == 3 - fold
            run.finish()
        run = wandb.init(reinit=True, name="mean")
        run.log({"acc": 0.25, "mean": 1})
        run.summary["val"] = 7
        """
    )
    series = {key: [point[1:] for point in server.points if point[0] == key] for key in ("acc", "val", "mean")}
    assert series["acc"] == [(0.0, 0), (0.1, 1), (0.2, 2), (1.0, 3), (1.1, 4), (0.25, 5)]
    assert series["val"] == [(0.0, 0), (1.0, 5), (2.0, 10), (0.0, 11), (1.0, 16), (7.0, 18)]
    assert series["mean"] == [(1.0, 0)]


def test_wandb_names_that_other_tools_use_are_kept(run: Runs, server: FakeServer) -> None:
    """W&B takes any name."""
    run(
        """
        import wandb

        run = wandb.init(config={"Batch size (per GPU)": 3})
        run.log({"metrics/mAP50(B)": 0.5, "val loss, mean": 2, "a=b": 3})
        run.summary["top-1 %"] = 4
        """
    )
    assert [key for key, _, _ in server.points] == ["metrics/mAP50(B)", "val loss, mean", "a=b", "top-1 %"]
    assert server.params == {"Batch size (per GPU)": "3"}


def test_wandb_define_metric_keeps_extremes_for_the_sweep_to_ask_for(run: Runs, server: FakeServer) -> None:
    """`loss.min` and its like are metrics of their own, a point for each change; means come at the end."""
    run(
        """
        import wandb

        run = wandb.init()
        wandb.define_metric("loss", summary="min,mean")
        wandb.define_metric("acc", summary="max")
        for loss, acc in ((3, 0.1), (1, 0.7), (2, 0.4)):
            wandb.log({"loss": loss, "acc": acc})
        assert wandb.summary["loss"]["min"] == 1 and wandb.summary.loss["mean"] == 2 and wandb.summary["acc"].max == 0.7
        """
    )
    assert [point for point in server.points if "." in point[0]] == [
        ("loss.min", 3.0, 0),
        ("acc.max", 0.1, 0),
        ("loss.min", 1.0, 1),
        ("acc.max", 0.7, 1),
        ("loss.mean", 2.0, 2),
    ]


def test_wandb_summary_set_by_hand_is_a_metric(run: Runs, server: FakeServer) -> None:
    """A sweep may ask for what a script only writes there; text becomes a tag."""
    run(
        """
        import wandb

        wandb.init()
        wandb.log({"acc": 0.5})
        wandb.run.summary["best_acc"] = 0.9
        wandb.summary.update({"final": {"f1": 0.8}, "verdict": "good"})
        """
    )
    assert server.points == [("acc", 0.5, 0), ("best_acc", 0.9, 1), ("final.f1", 0.8, 1)]
    assert server.tags["wandb.summary.verdict"] == "good"


def test_wandb_artifacts_lie_below_their_names(run: Runs, server: FakeServer) -> None:
    """Files, folders, media and references of an artifact, a bare path, a model; what another run has logged can't be had."""
    run(
        """
        import os, wandb

        run = wandb.init()
        os.makedirs("out/deep")
        for name in ("out/a.txt", "out/deep/b.txt", "model.pt"):
            with open(name, "w") as file:
                file.write(name)
        artifact = wandb.Artifact("my-model", type="model", metadata={"acc": 0.9})
        artifact.add_file("model.pt")
        artifact.add_dir("out", name="extra")
        artifact.add(wandb.Table(columns=["x"], data=[[1]]), "rows")
        artifact.add_reference("s3://bucket/key")
        with artifact.new_file("note.txt") as file:
            file.write("hello")
        run.log_artifact(artifact, aliases=["best"]).wait()
        wandb.log_model("model.pt", name="plain")
        assert os.path.exists(run.use_artifact("my-model:latest").download() + "/model.pt")
        try:
            run.use_artifact("team/other/thing:v3")
        except wandb.CommError as error:
            assert "not logged by this trial" in str(error)
        else:
            raise AssertionError
        """
    )
    kept = files(server)
    facts = json.loads(kept.pop("my-model/wandb-artifact.json"))
    assert (facts["type"], facts["metadata"], facts["aliases"], facts["references"]) == ("model", {"acc": 0.9}, ["best"], {"key": "s3://bucket/key"})
    assert json.loads(kept.pop("my-model/rows.table.json")) == {"columns": ["x"], "data": [[1]]}
    del kept["plain/wandb-artifact.json"]
    assert kept == {
        "my-model/model.pt": b"model.pt",
        "my-model/extra/a.txt": b"out/a.txt",
        "my-model/extra/deep/b.txt": b"out/deep/b.txt",
        "my-model/note.txt": b"hello",
        "plain/model.pt": b"model.pt",
    }


def test_wandb_save_keeps_files_and_what_lies_in_the_runs_folder(run: Runs, server: FakeServer) -> None:
    """A glob, a file that changes afterwards, and `run.dir`, which W&B uploads by itself."""
    run(
        """
        import os, wandb
        from pathlib import Path

        wandb.init()
        os.makedirs("ckpt")
        for name in ("ckpt/1.pt", "ckpt/2.pt", "live.txt"):
            Path(name).write_text("first")
        wandb.save("ckpt/*.pt", policy="now")
        wandb.save("live.txt")
        Path("live.txt").write_text("and last")
        Path("ckpt/1.pt").write_text("not kept")
        Path(os.path.join(wandb.run.dir, "model.h5")).write_text("weights")
        wandb.save(os.path.join(wandb.run.dir, "model.h5"))
        Path(os.path.join(wandb.run.dir, "notes.md")).write_text("notes")
        """
    )
    assert files(server) == {"ckpt/1.pt": b"first", "ckpt/2.pt": b"first", "live.txt": b"and last", "model.h5": b"weights", "notes.md": b"notes"}


def test_wandb_media_become_artifacts(run: Runs, server: FakeServer) -> None:
    """Images of arrays and files, histograms, tables with pictures in them, charts, text: each in W&B's folder, named by key and step."""
    pytest.importorskip("numpy")
    run(
        """
        import numpy as np
        import wandb

        run = wandb.init()
        pixels = (np.arange(12).reshape(2, 2, 3) * 20).astype("uint8")
        wandb.log({"img": wandb.Image(pixels, caption="four"), "loss": 1})
        wandb.log({"batch": [wandb.Image(pixels), wandb.Image(np.zeros((3, 3)))]})
        table = wandb.Table(columns=["n", "picture"])
        table.add_data(1, wandb.Image(pixels))
        table.add_data(2, None)
        wandb.log({"preds/table": table, "h": wandb.Histogram([1, 2, 2, 3], num_bins=2), "w": np.array([1.0, 2.0])})
        wandb.log({"page": wandb.Html("<b>x</b>"), "roc": wandb.plot.line(wandb.Table(columns=["x", "y"], data=[[1, 2]]), "x", "y")})
        wandb.log({"sound": wandb.Audio(np.zeros(10), sample_rate=8000), "scalar": np.float32(2)})
        assert wandb.summary["img"]["_type"] == "image-file"
        """
    )
    assert [point[:2] for point in server.points] == [("loss", 1.0), ("scalar", 2.0)]
    kept = files(server)
    places = sorted(path.rpartition("_")[0] for path in kept)
    images = ["media/images/img_0", "media/images/batch_0_1", "media/images/batch_1_1", "media/images/preds/table_cell_2_0"]
    others = ["media/table/preds/table_2", "media/histograms/h_2", "media/histograms/w_2", "media/html/page_3", "media/table/roc_3", "media/audio/sound_4"]
    assert places == sorted(images + others)
    by_place = {path.rpartition("_")[0]: content for path, content in kept.items()}
    assert by_place["media/images/img_0"].startswith(b"\x89PNG")
    assert json.loads(by_place["media/histograms/h_2"]) == {"_type": "histogram", "values": [1, 3], "bins": [1.0, 2.0, 3.0]}
    assert json.loads(by_place["media/table/preds/table_2"])["data"][1] == [2, None]
    assert by_place["media/audio/sound_4"].startswith(b"RIFF")


def test_wandb_sweep_and_agent_in_a_script_run_its_function_once(run: Runs, server: FakeServer) -> None:
    """A script that would start its own sweep is one trial of ours instead."""
    done = run(
        """
        import wandb

        def train():
            with wandb.init() as run:
                run.log({"loss": run.config.lr})

        sweep_id = wandb.sweep({"method": "random", "parameters": {"lr": {"min": 0.0, "max": 1.0}}}, project="p")
        wandb.agent(sweep_id, function=train, count=20)
        """,
        lr=0.25,
    )
    assert server.points == [("loss", 0.25, 0)]
    assert "already" in done.stderr


def test_wandb_calls_without_effect_say_so_once_and_are_recorded(run: Runs, server: FakeServer) -> None:
    """`watch`, `alert`, `login` and the like let the script go on."""
    done = run(
        """
        import wandb

        wandb.login(key="secret")
        run = wandb.init(name="baseline", notes="first try", tags=["a", "b"], group="g", job_type="train", settings=wandb.Settings(project="p", silent=True))
        for _ in range(3):
            wandb.watch(object(), log="all")
            run.log_code(".")
        wandb.alert(title="Low accuracy", text="below 0.5", level=wandb.AlertLevel.WARN)
        assert (run.name, run.tags, run.project, run.id, run.sweep_id) == ("baseline", ("a", "b"), "p", "r1", "s1")
        wandb.finish()
        assert wandb.run is None
        """,
        env={"WANDB_MODE": "offline"},
    )
    assert server.tags["wandb.unserved"] == "watch,log_code,alert"
    assert (server.tags["wandb.name"], server.tags["wandb.tags"], server.tags["wandb.group"]) == ("baseline", "a,b", "g")
    assert done.stderr.count("wandb.watch does nothing here") == 1
    assert "ALERT Low accuracy: below 0.5" in done.stderr
    assert "secret" not in done.stderr


def test_wandb_init_options_without_effect_say_so_once_and_are_recorded(run: Runs, server: FakeServer) -> None:
    """Options of `init` that record something at W&B are told; those that are left out or off are not."""
    done = run(
        """
        import wandb

        wandb.init(sync_tensorboard=True, monitor_gym=False, save_code=True, settings={"resume": "allow"})
        wandb.init(sync_tensorboard=True)
        """
    )
    assert server.tags["wandb.unserved"] == "init(sync_tensorboard),init(resume)"
    assert done.stderr.count("wandb.init(sync_tensorboard) does nothing here: files of TensorBoard are not read") == 1
    assert "monitor_gym" not in done.stderr


def test_wandb_config_is_copied_and_pickled_as_plain_data(run: Runs, server: FakeServer) -> None:
    """A copy has the values, takes others, and tells the run nothing; the run's deep copy is the run."""
    run(
        """
        import copy, pickle, wandb

        run = wandb.init(config={"layers": {"n": 2}})
        for made in (copy.deepcopy(wandb.config), pickle.loads(pickle.dumps(wandb.config)), copy.copy(wandb.config)):
            assert (made.lr, made["layers"], dict(made)) == (0.1, {"n": 2}, {"layers": {"n": 2}, "lr": 0.1})
            made.lr, made.other = 7, 8
        copy.deepcopy(wandb.config).layers["n"] = 9
        assert (wandb.config.lr, wandb.config.layers, "other" in wandb.config) == (0.1, {"n": 2}, False)
        assert copy.deepcopy({"run": run})["run"] is run
        """,
        lr=0.1,
    )
    assert "wandb.config.other" not in server.tags


def test_wandb_names_that_are_not_served_fail_with_what_to_do(run: Runs) -> None:
    """Attributes, modules, methods; and what W&B refuses before `init` and after `finish`."""
    run(
        """
        import wandb

        def told(kind, what):
            try:
                what()
            except kind as error:
                return str(error)
            raise AssertionError(kind)

        assert "wandb.log()" in told(wandb.Error, lambda: wandb.log({"a": 1}))
        assert "wandb.config.lr" in told(wandb.Error, lambda: wandb.config.lr)
        assert "`compat: wandb`" in told(AttributeError, lambda: wandb.Api)
        assert "`compat: wandb`" in told(ImportError, lambda: __import__("wandb.integration.keras"))
        run = wandb.init()
        assert "not served" in told(AttributeError, lambda: run.no_such_thing)
        assert "'momentum'" in told(AttributeError, lambda: wandb.config.momentum)
        told(TypeError, lambda: wandb.log([1]))
        told(wandb.Error, lambda: wandb.define_metric("a*b"))
        run.finish()
        assert "is finished" in told(wandb.UsageError, lambda: run.log({"a": 1}))
        """
    )


def test_wandb_init_again_is_the_same_run(run: Runs, server: FakeServer) -> None:
    """While one is under way, or after it was finished: steps begin anew as W&B's do, and all of it is this trial's."""
    run(
        """
        import wandb

        first = wandb.init(config={"a": 1})
        assert wandb.init(config={"b": 2}) is first and dict(wandb.config) == {"a": 1}
        wandb.log({"x": 1})
        second = wandb.init(reinit=True)
        assert second is wandb.run is not first and second.id == first.id
        wandb.log({"y": 2})
        """
    )
    assert server.points == [("x", 1.0, 0), ("y", 2.0, 0)]


@pytest.mark.parametrize(
    ("lines", "ended"),
    [
        ("wandb.init()\nwandb.finish(exit_code=1)", (1, "the script called wandb.finish(exit_code=1)")),
        ("wandb.init().finish(256 + 7)", (7, "the script called wandb.finish(exit_code=263)")),
        ("wandb.init().finish(256)", (1, "the script called wandb.finish(exit_code=256)")),
        ("wandb.init().finish(exit_code=-1)", (1, "the script called wandb.finish(exit_code=-1)")),
        ("try:\n    with wandb.init():\n        1 / 0\nexcept ZeroDivisionError:\n    pass", (1, "ZeroDivisionError left the script's wandb run")),
        ("with wandb.init():\n    sys.exit()", None),
        ("wandb.init().finish(exit_code=0)\nwandb.finish(exit_code=1)", None),
        ("wandb.init()\nwandb.finish(exit_code=1)\nwandb.init()", None),
        ("wandb.init(mode='disabled')\nwandb.finish(exit_code=1)", None),
    ],
)
def test_wandb_run_that_is_finished_with_an_exit_code_has_failed(run: Runs, tmp_path: Path, lines: str, ended: tuple[int, str] | None) -> None:
    """As at W&B, though the process exits with 0; where a trial has several runs, the last one decides."""
    (tmp_path / WORK).mkdir()
    run(f"import sys\nimport wandb\n{lines}\n", env={"SWEEP_WANDB_EXIT_FILE": str(tmp_path / WORK / WANDB_EXIT_FILE)})
    outcome = heed_wandb(SUCCEEDED, Launch(compat="wandb"), tmp_path)
    if ended is None:
        assert outcome == SUCCEEDED
    else:
        assert (outcome.verdict, outcome.cause, outcome.exit_status) == ("failed", "exit_status", ended[0])
        assert outcome.detail == f"{ended[1]} (its process exited with 0)"
    assert heed_wandb(SUCCEEDED, Launch(), tmp_path) == SUCCEEDED
    assert heed_wandb(EXITED, Launch(compat="wandb"), tmp_path) == EXITED


def test_wandb_mode_disabled_records_nothing(run: Runs, server: FakeServer) -> None:
    """As W&B's: calls are taken and the parameters are there."""
    done = run(
        """
        import wandb

        run = wandb.init(mode="disabled")
        run.log({"a": run.config.lr})
        wandb.summary["b"] = 1
        assert run.disabled
        """,
        lr=1,
    )
    assert (server.points, server.params, server.tags) == ([], {}, {})
    assert "nothing is recorded" in done.stderr


def test_wandb_config_reads_the_files_that_wandb_reads(run: Runs, server: FakeServer, tmp_path: Path) -> None:
    """`config-defaults.yaml` by itself, another by its name; parameters win over both."""
    (tmp_path / "config-defaults.yaml").write_text("wandb_version: 1\nlr:\n  desc: null\n  value: 5\nbatch:\n  value: 32\n", encoding="utf-8")
    (tmp_path / "more.yaml").write_text("depth:\n  value: 3\n", encoding="utf-8")
    run("import wandb\nwandb.init(config='more.yaml')\nassert wandb.config.as_dict() == {'lr': 1, 'batch': 32, 'depth': 3}, wandb.config\n", lr=1)
    assert server.params == {"batch": "32", "depth": "3"}


def test_wandb_that_is_installed_is_used_when_the_file_does_not_ask_for_the_stand_in(run: Runs, tmp_path: Path) -> None:
    """The stand-in is nowhere on the path then; with `compat: wandb` it goes before what is installed."""
    (tmp_path / "site" / "wandb").mkdir(parents=True)
    (tmp_path / "site" / "wandb" / "__init__.py").write_text("whose = 'the real one'\n", encoding="utf-8")
    installed = {"PYTHONPATH": str(tmp_path / "site")}
    run("import wandb\nassert wandb.whose == 'the real one'\n", env=installed, compat=None)
    run("import wandb\nassert 'stands in' in wandb.__doc__.lower()\n", env=installed)
    run("try:\n    import wandb\nexcept ModuleNotFoundError:\n    raise SystemExit(7)\n", compat=None, status=7)


def test_wandb_stand_in_needs_nothing_but_the_standard_library() -> None:
    """All its modules load in a Python that has no other packages, in no time worth telling."""
    path = f"{CLIENT_FOLDER}/compat_wandb:{CLIENT_FOLDER}"
    code = "import sys, wandb, wandb.plot; print(sorted(name for name in sys.modules if name.partition('.')[0] in ('numpy', 'PIL', 'yaml', 'http', 'ssl')))"
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-B", "-c", f"import sys; sys.path[:0] = {path.split(':')!r}; {code}"], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("module", sorted((CLIENT_FOLDER / "compat_wandb" / "wandb").glob("*.py")), ids=lambda module: module.name)
def test_wandb_stand_in_is_written_for_older_pythons(module: Path) -> None:
    """Trials bring their own Python: 3.8 can read every file."""
    ast.parse(module.read_text(encoding="utf-8"), feature_version=(3, 8))


def test_wandb_media_do_not_hold_up_training(run: Runs, server: FakeServer, tmp_path: Path) -> None:
    """The server takes nothing until the script has logged everything; in the end all files are there, and none is left behind."""
    server.gate.clear()

    def open_gate() -> None:
        wait_until((tmp_path / "logged").exists, "the script has logged everything")
        server.gate.set()

    opener = threading.Thread(target=open_gate)
    opener.start()
    run(
        """
        import wandb
        from pathlib import Path

        wandb.init()
        for number in range(50):
            wandb.log({"h": wandb.Histogram([number, number + 1], num_bins=2), "n": number})
        Path("logged").touch()
        """
    )
    opener.join()
    assert len(files(server)) == 50
    assert [path for path in (tmp_path / "wandb").rglob("*") if path.is_file()] == []
    assert [value for _, value, _ in server.points] == list(range(50))


def test_wandb_run_in_a_forked_child_ends_with_its_parent(run: Runs, server: FakeServer) -> None:
    """A child that a script forks neither sends the parent's last row again nor finishes its run."""
    run(
        """
        import os, sys, wandb

        wandb.init()
        wandb.log({"x": 1}, step=3)
        child = os.fork()
        if not child:
            sys.exit(0)
        os.waitpid(child, 0)
        wandb.log({"y": 2}, step=3)
        """,
        strict=False,
    )
    assert server.points == [("x", 1.0, 3), ("y", 2.0, 3)]


def test_wandb_config_is_read_from_the_agents_file_outside_a_trial(run: Runs, tmp_path: Path) -> None:
    """Where no worker of ours has told it otherwise, the file that W&B's agent writes says the parameters; it is the same one in a trial."""
    (tmp_path / "agent.yaml").write_text(wandb_config({"lr": 1e-5, "o": {"name": "sgd"}}), encoding="utf-8")
    script = """
        import os
        os.environ.update(SWEEP_RUN_ID="", WANDB_SWEEP_PARAM_PATH="agent.yaml")
        import wandb

        wandb.init(config={"lr": 3, "epochs": 2})
        print(wandb.config)
        """
    assert run(script, lr=7).stdout == "{'lr': 1e-05, 'epochs': 2, 'o': {'name': 'sgd'}}\n"


def test_wandb_page_is_true(run: Runs, server: FakeServer, tmp_path: Path) -> None:
    """The files that docs/coming-from-wandb.md shows are valid, the second asks for the stand-in, and its script does what the page says."""
    page = (CLIENT_FOLDER.parents[1] / "docs" / "coming-from-wandb.md").read_text(encoding="utf-8")
    assert [parse_sweep(text, "sweep.yaml", project_dir=None).compat for text in re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)] == [None, "wandb"]
    (script,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    (tmp_path / "model.pt").write_text("weights", encoding="utf-8")
    run("def train_one(lr, optimizer):\n    return lr, 1 - lr\n\n" + script, lr=0.25)
    assert [point for point in server.points if point[0] == "val.loss"] == [("val.loss", 0.25, step) for step in range(5)]
    assert server.params == {"epochs": "5", "optimizer.name": "sgd"}
    assert files(server)["digits-model/model.pt"] == b"weights"


def test_uploads_wait_when_no_thread_can_be_had(run: Runs, server: FakeServer) -> None:
    """A lack of threads passes, and breaks no training: the next file, or the run's end, tries again."""
    run("""
        import threading
        import wandb

        start, refused = threading.Thread.start, []

        def refuse(thread):
            if thread.name == "wandb-uploads" and len(refused) < 2:
                refused.append(thread)
                raise RuntimeError("can't start new thread")
            start(thread)

        threading.Thread.start = refuse
        with wandb.init() as run:
            run.log({"page": wandb.Html("<p>one</p>")})
        assert len(refused) == 2
    """)
    assert b"<p>one</p>" in b"".join(files(server).values())
