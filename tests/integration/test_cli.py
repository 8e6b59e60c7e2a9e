"""The `sweep` command against a whole cluster: server, scheduler and worker."""

import json
import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from sweeps.cli.doctor import check_docker
from tests.support.cluster import Cluster
from tests.support.services import wait_until

SCRIPT = """\
import argparse, sys, time

parser = argparse.ArgumentParser()
parser.add_argument("--x", type=float)
parser.add_argument("--end", default="well")
options = parser.parse_args()
if options.end == "never":
    print("waiting", flush=True)
    time.sleep(600)
print("to the other stream", file=sys.stderr)
for step in range(3):
    print(f"step={step} loss={options.x ** 2 + 1 / (step + 1)}")
sys.exit(0 if options.end == "well" else 3)
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory, module_database_url: str) -> Iterator[Cluster]:
    """All roles, without a broker."""
    made = Cluster(tmp_path_factory.mktemp("cli"), module_database_url, "none", {"SWEEP_RENEW_S": "0.5", "SWEEP_STOP_GRACE_S": "1"})
    made.start()
    yield made
    made.stop()
    print(made.logs())  # noqa: T201 - shown when a test failed


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A script without a sweep file."""
    (tmp_path / "train.py").write_text(SCRIPT)
    return tmp_path


def write_sweep(project: Path, parameters: str, more: str = "") -> None:
    """A grid over these parameters."""
    text = f"name: {project.name}\nprogram: train.py\nmethod: grid\nmetric: {{name: loss, goal: minimize}}\nparameters: {{{parameters}}}\n{more}"
    (project / "sweep.yaml").write_text(text)


def test_cli_runs_a_sweep_to_its_registered_winner(cluster: Cluster, project: Path) -> None:
    """Submitted, waited for, its best found by one query, registered; every view agrees."""
    write_sweep(project, "x: {values: [3, -1, 2]}")
    submitted = cluster.sweep_json("submit", "sweep.yaml", cwd=project)
    ref = submitted["short_id"]
    assert (submitted["name"], submitted["trials_asked"]) == (project.name, 3)
    assert cluster.sweep_json("wait", ref, "--timeout", "90")["counts"]["finished"] == 3

    trials = cluster.sweep_json("trials", ref)["trials"]
    assert [(trial["number"], trial["params"], trial["state"], trial["run_state"], trial["attempts"]) for trial in trials] == [
        (number, {"x": x}, "finished", "finished", 1) for number, x in enumerate((3, -1, 2))
    ]
    assert all(trial["duration_s"] > 0 and trial["cause"] == "completed" for trial in trials)
    best = cluster.sweep_json("best", ref)
    assert best["sweep_id"] == submitted["sweep_id"]
    assert (best["number"], best["params"], best["metric"], best["goal"]) == (1, {"x": -1}, "loss", "minimize")
    assert best["value"] == pytest.approx(1 + 1 / 3)
    assert best["run_id"] == trials[1]["run_id"]
    assert cluster.sweep("best", ref, "--format", "args").stdout == "--x=-1\n"

    version = cluster.sweep_json("register", ref, "--model", "square", "--alias", "champion")
    assert (version["version"], version["aliases"], version["trial_number"], version["run_id"]) == (1, ["champion"], 1, best["run_id"])
    assert cluster.sweep_json("models", "show", "square")["versions"][0]["sweep_id"] == submitted["sweep_id"]
    assert cluster.sweep_json("status", ref)["models"][0]["version"] == 1


def test_cli_shows_a_run_its_logs_and_metrics(cluster: Cluster, project: Path) -> None:
    """`SWEEP/NUMBER` names a run in every verb that takes one."""
    write_sweep(project, "x: {values: [2]}")
    done = cluster.sweep("run", "sweep.yaml", cwd=project)
    assert "best loss" in done.stdout
    run = cluster.sweep_json("show", f"{project.name}/0")
    (trial,) = cluster.sweep_json("trials", project.name)["trials"]
    assert run["duration_s"] == trial["duration_s"] == run["attempts"][0]["duration_s"] > 0
    assert (run["sweep_short_id"], run["stop_requested_at"]) == (cluster.sweep_json("status", project.name)["short_id"], None)
    assert (run["state"], run["params"]["x"], [attempt["exit_status"] for attempt in run["attempts"]]) == ("finished", "2", [0])
    logs = cluster.sweep("logs", f"{project.name}/0")
    assert logs.stdout.splitlines()[-1] == "step=2 loss=4.333333333333333"
    assert logs.stderr == "to the other stream\n"
    assert cluster.sweep("logs", "-f", f"{project.name}/0", "--tail", "1", "--stream", "stderr").stdout == "to the other stream\n"
    history = cluster.sweep_json("metrics", f"{project.name}/0", "--key", "loss")["metrics"]
    assert [(point["step"], point["value"]) for point in history] == [(step, 4 + 1 / (step + 1)) for step in range(3)]
    assert "finished" in cluster.sweep("why", f"{project.name}/0").stdout


def test_cli_run_exits_6_when_no_trial_succeeds(cluster: Cluster, project: Path) -> None:
    """The ending says what failed and where to look."""
    write_sweep(project, "x: {value: 1}, end: {values: [badly]}")
    done = cluster.sweep("run", "sweep.yaml", cwd=project, status=6)
    assert "1 failed: trial 0 exit_status" in done.stdout
    assert "sweep logs" in done.stdout
    assert cluster.sweep("best", project.name, status=6).stdout == ""


def test_cli_runs_failed_trials_again_and_lets_a_sweep_have_more(cluster: Cluster, project: Path) -> None:
    """What was missing is there now: the failed trial succeeds, its first run stays on record; then three trials more."""
    (project / "train.py").write_text(f"import os, sys\nsys.exit(not os.path.exists({str(project / 'data')!r}) or print('loss=1'))\n")
    text = "program: train.py\nmethod: random\nmetric: {name: loss, goal: minimize}\nparameters: {x: {min: 0.0, max: 1.0}}\nrun_cap: 1\n"
    (project / "sweep.yaml").write_text(f"name: {project.name}\n{text}")
    cluster.sweep("run", "sweep.yaml", cwd=project, status=6)
    first = cluster.sweep_json("show", f"{project.name}/0")
    assert "sweep retry" in cluster.sweep("extend", project.name, "--trials", "1", status=1).stderr
    (project / "data").touch()
    assert cluster.sweep_json("retry", f"{project.name}/0")["trials"] == [0]
    assert cluster.sweep_json("wait", project.name, "--timeout", "90")["counts"]["finished"] == 1
    again = cluster.sweep_json("show", f"{project.name}/0")
    assert (again["state"], again["params"], again["run_id"] != first["run_id"]) == ("finished", first["params"], True)
    assert cluster.sweep_json("show", first["run_id"])["state"] == "failed"
    assert "no failed trial" in cluster.sweep("retry", project.name).stderr
    assert "has neither failed nor been cancelled" in cluster.sweep("retry", f"{project.name}/0").stderr
    assert cluster.sweep_json("extend", project.name, "--trials", "3")["trials_asked"] == 4
    assert cluster.sweep_json("wait", project.name, "--timeout", "90")["counts"]["total"] == 4
    story = cluster.sweep("why", project.name).stdout
    assert "Up to 4 trials instead of 1" in story
    assert "run again" in story
    assert "opened again by hand" in cluster.sweep("why", f"{project.name}/0").stdout


def test_cli_tries_failed_code_again_and_tells_the_story(cluster: Cluster, project: Path) -> None:
    """A script that exits by 75 the first time runs again after its wait, as the file says; `sweep why` tells when it waits, and afterwards all of it."""
    seen = project / "seen"
    (project / "train.py").write_text(
        f"import pathlib, sys\nseen = pathlib.Path({str(seen)!r})\nif not seen.exists():\n    seen.touch()\n    sys.exit(75)\nprint('step=0 loss=1')\n"
    )
    write_sweep(project, "x: {values: [1]}", "retry: {max: 1, on: [exit_75], delay: 8s}\n")
    ref = cluster.sweep_json("submit", "sweep.yaml", cwd=project)["short_id"]
    waits: list[Any] = []

    def backs_off() -> bool:
        waits[:] = [wait for wait in cluster.sweep_json("why", f"{ref}/0")["waits"] if wait["wait"] == "back_off"]
        return bool(waits)

    wait_until(backs_off, "the run backs off")
    (wait,) = waits
    assert "It failed (exit_75); attempt 2 follows. The file's retry 1 of 1." in wait["text"]
    assert wait["until"] is not None
    assert cluster.sweep_json("wait", ref, "--timeout", "90")["counts"]["finished"] == 1
    told = cluster.sweep("why", f"{ref}/0").stdout
    order = ["was proposed", "attempt 1 began", "Attempt 1 failed on", "not before", "attempt 2 began", "Attempt 2 succeeded", "the search was told"]
    assert sorted(order, key=told.index) == order


def test_cli_runs_a_folder_with_an_mlproject_once(cluster: Cluster, project: Path) -> None:
    """Without a sweep file there is one run, with the parameters of the command line."""
    (project / "MLproject").write_text("entry_points:\n  main:\n    parameters: {x: float}\n    command: python train.py --x {x}\n")
    assert "needs 'x'" in cluster.sweep("run", str(project), status=2).stderr
    cluster.sweep("run", str(project), "-P", "x=0.50")
    (trial,) = cluster.sweep_json("trials", project.name)["trials"]
    assert (trial["state"], trial["params"]) == ("finished", {"x": "0.50"})


def test_cli_cancels_what_runs(cluster: Cluster, project: Path) -> None:
    """A paused sweep says so; a cancelled one ends with all its trials; a second cancel changes nothing."""
    write_sweep(project, "x: {values: [1, 2]}, end: {value: never}", "limits: {parallel: 1}\n")
    ref = cluster.sweep_json("submit", "sweep.yaml", cwd=project)["short_id"]
    assert cluster.sweep("wait", ref, "--timeout", "0.2", status=124).stdout.startswith(ref)
    cluster.sweep("pause", ref)
    assert "paused" in cluster.sweep("why", ref).stdout
    cluster.sweep("cancel", ref, "--yes")
    ended = json.loads(cluster.sweep("wait", ref, "--timeout", "60", "--json", status=6).stdout)
    assert (ended["state"], ended["counts"]["running"]) == ("cancelled", 0)
    trials = cluster.sweep_json("trials", ref)["trials"]
    assert {trial["state"] for trial in trials} <= {"cancelled"}
    assert "already ended: cancelled" in cluster.sweep("cancel", ref, "--yes").stderr


def test_doctor_is_not_taken_in_by_the_socket_of_an_engine_that_was_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file stays, and nobody listens."""
    path = tmp_path / "docker.sock"
    monkeypatch.setenv("DOCKER_HOST", f"unix://{path}")
    assert check_docker().verdict == "WARN"
    with closing(socket.socket(socket.AF_UNIX)) as listener:
        listener.bind(str(path))
        listener.listen()
        assert check_docker().verdict == "OK"
    found = check_docker()
    assert (found.verdict, "nothing answers" in found.message) == ("WARN", True)


def test_cli_doctor_finds_a_well_cluster(cluster: Cluster) -> None:
    """Every check passes, or says what to do; nothing fails."""
    report = cluster.sweep_json("doctor")
    assert report["ok"]
    verdicts = {check["check"]: check["verdict"] for check in report["checks"]}
    assert (verdicts["database"], verdicts["server"], verdicts["workers"]) == ("OK", "OK", "OK")
    assert all(check["fix"] for check in report["checks"] if check["verdict"] != "OK")


def test_doctor_tells_what_a_copied_database_lacks_and_upgrade_gives_it(cluster: Cluster) -> None:
    """The limit on our role's idle transactions stands beside the tables: a database made from a template comes without."""

    def role() -> list[dict[str, str]]:
        return [check for check in cluster.sweep_json("doctor")["checks"] if check["check"] == "database's role"]

    (found,) = role()
    assert found["verdict"] == "WARN"
    assert "`sweep db upgrade`" in found["fix"]
    assert "SET idle_in_transaction_session_timeout = '10s'" in found["fix"]
    cluster.sweep("db", "upgrade")
    assert role() == []


def test_cli_dry_run_asks_the_cluster_who_could_run_it(cluster: Cluster, project: Path) -> None:
    """Nothing is submitted: no sweep is there afterwards that was not before."""
    write_sweep(project, "x: {values: [1, 2]}", "limits: {parallel: 1}\n")
    before = len(cluster.sweep_json("ls")["sweeps"])
    placement = cluster.sweep_json("submit", "sweep.yaml", "--dry-run", cwd=project)["placement"]
    assert (placement["workers"][0]["name"], placement["trials"], placement["reasons"]) == ("w1", 1, [])
    told = cluster.sweep("run", "sweep.yaml", "--dry-run", "--queue", "nobody", cwd=project).stdout
    assert "placement: no worker could run this now\n  No worker serves queue 'nobody'" in told
    assert len(cluster.sweep_json("ls")["sweeps"]) == before


def test_cli_drains_a_worker(cluster: Cluster) -> None:
    """A drained worker is told as such wherever workers are listed; a queue it leaves is named."""
    cluster.start_worker("w2", "--queue", "spare", "--slots", "1")
    assert json.loads(cluster.sweep("worker", "drain", "w2", "--yes", "--json").stdout)["state"] == "draining"
    workers = {worker["name"]: worker["state"] for worker in cluster.sweep_json("worker", "ls")["workers"]}
    assert workers["w2"] == "draining"
    assert [row["queue"] for row in cluster.sweep_json("queue")["queues"]] == ["default"]
    assert json.loads(cluster.sweep("worker", "drain", "w2", "--undo", "--json").stdout)["state"] == "live"
    assert "w2 is not cordoned any more; it is live" in cluster.sweep("worker", "uncordon", "w2").stderr
