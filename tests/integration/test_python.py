"""`import sweeps` and `sweep export` against a real server: a record made by hand, and a script that waits."""

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from io import StringIO
from pathlib import Path
from typing import Any

import matplotlib as mpl
import optuna
import pandas as pd
import pytest

import sweeps
from sweeps.client import MissingOnServer, NoBest, ServerError
from sweeps.report import reader
from sweeps.spec import config_from_mapping
from tests.support.cluster import Cluster
from tests.support.record import EXITED, Hands
from tests.support.services import wait_until
from tracking.records import LogChunk, MetricPoint, NewTrial, Sweep

PARAMETERS = {"lr": {"distribution": "log_uniform_values", "min": 1e-5, "max": 0.1}, "opt": {"values": ["sgd", "adam"]}, "epochs": {"value": 3}}
LRS = (0.01, 0.001, 0.0001, 0.05, 0.02)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, module_database_url: str) -> Iterator[Cluster]:
    """A server alone: trials go as the test plays them."""
    made = Cluster(tmp_path_factory.mktemp("python"), module_database_url, "none")
    made.start_server()
    yield made
    made.stop()
    print(made.logs())  # noqa: T201 - shown when a test failed


@pytest.fixture(autouse=True)
def _server_is_named(server: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SWEEP_SERVER", server.url)


def submitted(hands: Hands, name: str, metric: str | None = "loss", n_trials: int = len(LRS)) -> Sweep:
    """A sweep with open trials."""
    mapping = {"program": "t.py", "method": "random", "name": name, "metric": {"name": "loss"}, "parameters": PARAMETERS}
    config = config_from_mapping(mapping).to_builtins()
    sweep = hands.sweep(0, name=name, config=config, metric_name=metric)
    proposals = [
        NewTrial(number, {"lr": LRS[number % 5], "opt": "adam" if number % 2 else "sgd", "epochs": 3}, ("true",), seed=number) for number in range(n_trials)
    ]
    assert hands.store.trials.create(hands.epoch, sweep, proposals)
    return sweep


@pytest.fixture
def played(hands: Hands, request: pytest.FixtureRequest) -> Sweep:
    """A sweep whose trials are, by number: finished (1.0), finished (0.25) with another metric, failed, running, queued."""
    sweep = submitted(hands, request.node.name)
    for number, last in ((0, 1.0), (1, 0.25)):
        held = hands.start(sweep, number)
        hands.log(held, "loss", 4.0, 2.0, last)
        if number == 1:
            hands.store.metrics.log(held.run_id, [MetricPoint("val/acc", float("nan"), 2, 1002)], held.fence)
            hands.store.logs.append(held.run_id, held.attempt, [LogChunk("stdout", 0, "größer\n".encode())])
        hands.finish(held)
    failing = hands.start(sweep, 2)
    hands.finish(failing, EXITED)
    assert hands.store.queue.fail(hands.epoch, hands.due(failing.run_id))
    assert len(hands.store.trials.conclude(hands.epoch, sweep.sweep_id)) == 3
    hands.log(hands.start(sweep, 3), "loss", 3.0)
    return sweep


def test_submit_sends_a_mapping_a_file_and_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Arguments take the place of the file's words; the project is packed and uploaded once."""
    (tmp_path / "train.py").write_text("print('loss=1')\n")
    mapping = {"program": "train.py", "method": "random", "metric": {"name": "loss"}, "parameters": PARAMETERS}
    first = sweeps.submit(mapping, folder=tmp_path, name="by-mapping", trials=3, parallel=2, queue="gpu")
    seen = first._look()
    assert (seen["name"], seen["trials_asked"], seen["parallel"], seen["queue"], seen["state"]) == ("by-mapping", 3, 2, "gpu", "active")
    assert capsys.readouterr().err.count("Uploading") == 1
    sweeps.submit(mapping, folder=tmp_path, trials=1)
    assert "Uploading" not in capsys.readouterr().err
    (tmp_path / "sweep.yaml").write_text(json.dumps({**mapping, "name": "by-file", "run_cap": 5}))
    for named in (tmp_path, tmp_path / "sweep.yaml"):
        seen = sweeps.submit(named)._look()
        assert (seen["name"], seen["trials_asked"]) == ("by-file", 5)
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "MLproject").write_text("entry_points:\n  again:\n    parameters: {x: float}\n    command: echo loss={x}\n")
    seen = sweeps.submit(folder, params={"x": 0.5}, entry_point="again")._look()
    assert (seen["name"], seen["trials_asked"], seen["config"]["parameters"][0]["value"]) == ("project", 1, "0.5")


def test_sweep_is_found_and_tells_how_it_stands(played: Sweep) -> None:
    """By each of its names; state and counts are asked for anew."""
    for ref in (played.sweep_id, played.short_id, played.name, "@latest"):
        assert sweeps.sweep(ref).id == played.sweep_id
    found = sweeps.sweep(played.short_id)
    assert (found.name, found.short_id, found.state) == (played.name, played.short_id, "active")
    assert (found.counts["finished"], found.counts["running"]) == (2, 1)
    assert found.pause().state == "paused"
    assert found.resume().state == "active"
    assert played.short_id in repr(found)
    assert "best loss <b>0.25</b>" in found._repr_html_()
    listed = sweeps.sweeps()
    assert listed.set_index("short_id").loc[played.short_id, "n_finished"] == 2
    with pytest.raises(MissingOnServer):
        sweeps.sweep("nosuch-sweep-0000")


def test_sweep_trials_are_a_frame(played: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    """All trials with values, parameters and latest metrics, also when they come in pages."""
    monkeypatch.setattr(reader, "_PAGE", 2)
    frame = sweeps.sweep(played.sweep_id).trials()
    assert list(frame["number"]) == [0, 1, 2, 3, 4]
    assert list(frame["state"]) == ["finished", "finished", "failed", "running", "queued"]
    assert frame["cause"][2] == "exit_status"
    assert frame["value"].tolist()[:2] == [1.0, 0.25]
    assert frame["params.lr"].tolist() == list(LRS)
    assert frame["metrics.loss"].fillna(-1).tolist() == [1.0, 0.25, -1, 3.0, -1]
    assert str(frame["params.epochs"].dtype) == "int64"
    assert frame["run_id"].is_unique


def test_sweep_best_logs_and_metrics(played: Sweep) -> None:
    """The best trial, what it printed, and every point that it logged."""
    sweep = sweeps.sweep(played.sweep_id)
    best = sweep.best()
    assert (best.number, best.value, best.params) == (1, 0.25, {"lr": 0.001, "opt": "adam", "epochs": 3})
    assert best.run_id == sweep.trials()["run_id"][1]
    assert sweep.logs(1) == "größer\n"
    assert sweep.logs(1, stream="stderr") == ""
    assert sweep.metrics(1, "loss")["value"].tolist() == [4.0, 2.0, 0.25]
    assert set(sweep.metrics(1)["key"]) == {"loss", "val/acc"}
    every = sweep.metrics(key="loss")
    assert every.groupby("number")["step"].count().to_dict() == {0: 3, 1: 3, 3: 1}
    with pytest.raises(MissingOnServer):
        sweep.metrics(77)


def test_sweep_without_a_finished_trial_has_no_best(hands: Hands) -> None:
    """The error says so; the study of a sweep without a metric says what it lacks."""
    sweep = sweeps.sweep(submitted(hands, "nothing-yet").sweep_id)
    with pytest.raises(NoBest, match="no finished trial"):
        sweep.best()
    assert sweep.study().trials[0].state.name == "WAITING"
    without = submitted(hands, "without-metric", metric=None)
    with pytest.raises(NoBest, match="has no metric"):
        sweeps.sweep(without.sweep_id).study()


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning", "ignore::UserWarning", "ignore::DeprecationWarning")
def test_sweep_study_is_drawn_by_optuna(played: Sweep) -> None:
    """Optuna's plots and importances work on it, with matplotlib and with plotly."""
    mpl.use("Agg")
    import matplotlib.pyplot as plt

    study = sweeps.sweep(played.sweep_id).study()
    assert (study.best_trial.number, study.best_params) == (1, {"lr": 0.001, "opt": "adam"})
    assert study.trials[1].intermediate_values == {0: 4.0, 1: 2.0, 2: 0.25}
    assert study.trials[3].intermediate_values == {0: 3.0}
    assert sweeps.sweep(played.sweep_id).study(intermediate_values=False).trials[1].intermediate_values == {}
    assert optuna.importance.get_param_importances(study).keys() == {"lr", "opt"}
    for name in "optimization_history slice parallel_coordinate param_importances intermediate_values timeline edf rank".split():
        axes: Any = getattr(optuna.visualization.matplotlib, f"plot_{name}")(study)
        assert axes is not None
        plt.close("all")
        assert getattr(optuna.visualization, f"plot_{name}")(study).data
    assert optuna.visualization.plot_contour(study).data


WAITING = """
import sys, sweeps
sweep = sweeps.sweep(sys.argv[1])
print("waits", flush=True)
assert sweep.wait() is sweep
print("after", sweep.state, flush=True)
"""


def begin_waiting(ref: str) -> "subprocess.Popen[str]":
    """A script that waits for a sweep, once it does."""
    environ = {**os.environ, "PYTHONPATH": str(Path(sweeps.__file__).parents[1])}
    process = subprocess.Popen([sys.executable, "-c", WAITING, ref], env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.readline() == "waits\n"
    assert ref in process.stderr.readline()
    return process


def test_sweep_wait_ends_with_the_sweep(played: Sweep, hands: Hands) -> None:
    """It shows lines where there is no notebook, and returns the sweep."""
    process = begin_waiting(played.short_id)
    hands.store.sweeps.cancel(played.sweep_id)
    for trial in hands.store.trials.list(played.sweep_id):
        if trial.run_state == "running":
            hands.change("UPDATE runs SET state = 'cancelled', cause = 'cancelled', ended_at = now() WHERE run_id = %(run)s", run=trial.run_id)
            hands.change("UPDATE trials SET state = 'cancelled', cause = 'cancelled', told_seq = 99, ended_at = now() WHERE run_id = %(run)s", run=trial.run_id)
    hands.change("UPDATE sweeps SET state = 'cancelled', ended_at = now() WHERE sweep_id = %(sweep)s", sweep=played.sweep_id)
    output, errors = process.communicate(timeout=60)
    assert (process.returncode, output) == (0, "after cancelled\n"), errors
    assert f"{played.short_id}  cancelled" in errors


def test_sweep_wait_detaches_when_interrupted(played: Sweep) -> None:
    """Ctrl-C ends the waiting, not the sweep, and says how to find it again."""
    process = begin_waiting(played.short_id)
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert output == f"Detached; the sweep goes on. sweeps.sweep({played.short_id!r}) finds it again.\nafter active\n"
    assert "Traceback" not in errors


def test_sweep_wait_gives_up_after_its_timeout(played: Sweep) -> None:
    """The error names the sweep, which goes on."""
    sweep = sweeps.sweep(played.sweep_id)
    began = time.monotonic()
    with pytest.raises(TimeoutError, match=re.escape(played.short_id)):
        sweep.wait(timeout=0.2, progress=False)
    assert time.monotonic() - began < 20
    assert sweep.state == "active"


def test_export_writes_every_form(server: Cluster, played: Sweep, tmp_path: Path) -> None:
    """The same trials as CSV, JSON, Parquet and as a study; the form follows from the name of the file."""
    ref = played.short_id
    printed = server.sweep("export", ref)
    rows = list(csv.DictReader(StringIO(printed.stdout)))
    assert [row["number"] for row in rows] == list("01234")
    assert rows[1]["params.opt"] == "adam"
    assert "The sweep is active: this is how it stands now." in printed.stderr
    told = json.loads(server.sweep("export", ref, "--format", "json", "-q").stdout)
    assert [trial["value"] for trial in told["trials"]][:2] == [1.0, 0.25]
    assert told["trials"][1]["metrics"]["val/acc"] == "NaN"
    for name in ("x.csv", "x.json", "x.parquet", "x.db"):
        assert server.sweep("export", ref, "--out", name, cwd=tmp_path).stdout == ""
    assert (tmp_path / "x.csv").read_text() == printed.stdout
    assert json.loads((tmp_path / "x.json").read_text())["trials"] == told["trials"]
    assert pd.read_parquet(tmp_path / "x.parquet")["value"].tolist()[:2] == [1.0, 0.25]
    study = optuna.load_study(study_name=ref, storage=f"sqlite:///{tmp_path}/x.db")
    assert (len(study.trials), study.best_value, study.trials[1].intermediate_values) == (5, 0.25, {0: 4.0, 1: 2.0, 2: 0.25})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.csv", "x.db", "x.json", "x.parquet"]


def test_export_overwrites_nothing_unless_told(server: Cluster, played: Sweep, tmp_path: Path) -> None:
    """A file that is there stays, and so does a study, with --force too; where a file is needed it is asked for."""
    (tmp_path / "x.csv").write_text("mine")
    assert "already there" in server.sweep("export", played.short_id, "--out", "x.csv", cwd=tmp_path, status=2).stderr
    assert (tmp_path / "x.csv").read_text() == "mine"
    server.sweep("export", played.short_id, "--out", "x.csv", "--force", cwd=tmp_path)
    assert (tmp_path / "x.csv").read_text().startswith("number,state,value")
    server.sweep("export", played.short_id, "--out", "x.db", cwd=tmp_path)
    again = server.sweep("export", played.short_id, "--out", "x.db", "--force", cwd=tmp_path, status=1)
    assert "nothing was written" in again.stderr
    assert "Traceback" not in again.stderr
    for form in ("parquet", "optuna"):
        assert "--out" in server.sweep("export", played.short_id, "--format", form, cwd=tmp_path, status=2).stderr


def test_trials_that_change_are_waited_for(played: Sweep, hands: Hands) -> None:
    """What a Sweep tells is never older than the question."""
    sweep = sweeps.sweep(played.sweep_id)
    before = sweep.counts["running"]
    hands.start(played, 4)
    wait_until(lambda: sweep.counts["running"] == before + 1, "the new trial is counted")


def test_sweep_has_more_trials_and_runs_failed_ones_again(played: Sweep, hands: Hands) -> None:
    """As the commands do: by how many more, and all that failed or some of them."""
    found = sweeps.sweep(played.sweep_id)
    with pytest.raises(ServerError, match="until it is stopped"):
        found.extend(2)
    assert found.retry(0) == []
    assert found.retry() == [2]
    assert found.counts["failed"] == 0
    hands.store.sweeps.extend(hands.store.sweeps.get(found.id), {**played.config, "limits": {"trials": 6}}, "a limit")
    assert found.extend(2)._look()["trials_asked"] == 8
    with ThreadPoolExecutor(4) as people:
        for answer in [people.submit(found.extend, 1) for _ in range(8)]:
            answer.result()
    assert found._look()["trials_asked"] == 16
