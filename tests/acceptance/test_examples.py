"""Every example, as a user runs it: `sweep run` on its file, against a cluster of real processes."""

import itertools
import math
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from tests.support.cluster import Cluster, stopped_afterwards

EXAMPLES: Final = Path(__file__).resolve().parents[2] / "examples"

# The first trial of an example may have to build its environment.
pytestmark = pytest.mark.timeout(420)


@pytest.fixture(scope="module")
def cluster(module_database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """One server, one scheduler, one worker of two slots, no broker; examples that ask for the same environment share it."""
    with stopped_afterwards(Cluster(tmp_path_factory.mktemp("examples"), module_database_url, "none")) as made:
        yield made.start(worker_arguments=("--slots", "2"))


def run_example(cluster: Cluster, name: str, *arguments: str) -> list[dict[str, Any]]:
    """Run an example to its end; its trials."""
    done = cluster.sweep("run", str(EXAMPLES / name / "sweep.yaml"), *arguments, status=None, timeout_s=410)
    trials: list[dict[str, Any]] = cluster.sweep_json("trials")["trials"]
    bad = [trial for trial in trials if trial["state"] != "finished"]
    assert not bad, "\n".join(cluster.sweep("logs", trial["run_id"], status=None).stderr[-3000:] + str(trial) for trial in bad[:2])
    assert done.returncode == 0, done.stderr
    assert [trial["number"] for trial in trials] == list(range(len(trials)))
    return trials


def history(cluster: Cluster, run_id: str, key: str) -> list[tuple[int, float]]:
    """(step, value) of each point of one metric."""
    return [(point["step"], point["value"]) for point in cluster.sweep_json("metrics", run_id, "--key", key)["metrics"]]


def test_example_digits_learns_logs_curves_and_registers_the_winner(cluster: Cluster) -> None:
    """Each trial logs one point an epoch; the best is registered with its weights, once."""
    trials = run_example(cluster, "digits", "--trials", "4")
    assert len(trials) == 4
    for trial in trials:
        points = history(cluster, trial["run_id"], "val_accuracy")
        assert [step for step, _ in points] == list(range(trial["params"]["epochs"]))
        assert points[-1][1] == trial["value"]
    best = cluster.sweep_json("best")
    assert best["value"] == max(trial["value"] for trial in trials)
    versions = cluster.sweep_json("models", "show", "digits")["versions"]
    assert [(version["version"], version["run_id"]) for version in versions] == [(1, best["run_id"])]
    weights = [path for path in (cluster.folder / "artifacts").rglob("weights.npz") if best["run_id"] in path.parts]
    assert len(weights) == 1


def test_example_bare_is_read_from_what_it_prints(cluster: Cluster) -> None:
    """A W&B file and a script that only prints: the loss of each step is recorded, the last one is the value."""
    trials = run_example(cluster, "bare")
    assert len(trials) == 10
    points = history(cluster, trials[0]["run_id"], "loss")
    assert [step for step, _ in points] == list(range(40))
    assert points[-1][1] == trials[0]["value"]
    assert cluster.sweep_json("best")["value"] == min(trial["value"] for trial in trials)


def test_example_mlflow_script_logs_as_if_there_were_no_sweep(cluster: Cluster) -> None:
    """The unchanged client's parameters, nested runs, metrics and artifact arrive, in the sweep's experiment."""
    trials = run_example(cluster, "mlflow_script")
    assert len(trials) == 6
    for trial in trials:
        assert [step for step, _ in history(cluster, trial["run_id"], "val_rmse")] == [0, 1, 2]
        nested = cluster.query("SELECT name, state FROM runs WHERE parent_run_id = %(run_id)s ORDER BY name", run_id=trial["run_id"])
        assert [tuple(row) for row in nested] == [(f"fold-{fold}", "finished") for fold in range(3)]
        assert trial["run_state"] == "finished"
    uploaded = list((cluster.folder / "artifacts").rglob("coefficients.json"))
    assert {run_id for path in uploaded for run_id in path.parts} >= {trial["run_id"] for trial in trials}
    best = cluster.sweep_json("best")
    assert best["params"]["degree"] == min(trials, key=lambda trial: trial["value"])["params"]["degree"] != 1


def test_example_elasticnet_grid_agrees_with_a_plain_loop(cluster: Cluster, tmp_path: Path) -> None:
    """All twelve cells, each once, each with the value that a plain loop finds; so the best is the same."""
    trials = run_example(cluster, "elasticnet")
    found = {(trial["params"]["alpha"], trial["params"]["l1_ratio"]): trial["value"] for trial in trials}
    expected = plain_loop(tmp_path)
    assert len(trials) == len(found) == len(expected) == 12
    assert all(math.isclose(found[cell], value, rel_tol=1e-9) for cell, value in expected.items())
    best = cluster.sweep_json("best")
    assert (best["params"]["alpha"], best["params"]["l1_ratio"]) == min(expected, key=lambda cell: expected[cell])


def plain_loop(folder: Path) -> dict[tuple[float, float], float]:
    """RMSE of each cell of the ElasticNet grid, by the same script in a loop without us."""
    example = EXAMPLES / "elasticnet"
    wanted = yaml.safe_load((example / "python_env.yaml").read_text(encoding="utf-8"))["dependencies"]
    uv = str(Path(sys.executable).with_name("uv"))
    python = folder / "plain/bin/python"
    subprocess.run([uv, "venv", "--quiet", folder / "plain"], check=True)
    subprocess.run([uv, "pip", "install", "--quiet", "--python", python, *wanted], check=True)
    grid = yaml.safe_load((example / "sweep.yaml").read_text(encoding="utf-8"))["parameters"]
    cells = list(itertools.product(grid["alpha"]["values"], grid["l1_ratio"]["values"]))
    code = "import sys; sys.path.insert(0, sys.argv[1]); import train\nfor cell in eval(sys.argv[2]): print(train.score(*cell)[0].hex())"
    done = subprocess.run([python, "-c", code, example, repr(cells)], capture_output=True, text=True, check=True)
    return dict(zip(cells, map(float.fromhex, done.stdout.split()), strict=True))


def test_example_container_runs_each_trial_in_one_of_its_own_with_its_limit(cluster: Cluster, base_image: str) -> None:
    """Distinct containers, and the memory limit of the file as seen from the inside."""
    trials = run_example(cluster, "container")
    hosts = [cluster.sweep("logs", trial["run_id"], "--stream", "stdout").stdout.split()[1] for trial in trials]
    assert len(set(hosts)) == len(trials) == 4
    limits = {point for trial in trials for point in history(cluster, trial["run_id"], "memory_limit_bytes")}
    assert {value for _, value in limits} == {128 * 1024 * 1024}
    assert cluster.sweep_json("best")["params"]["x"] == 1.0
