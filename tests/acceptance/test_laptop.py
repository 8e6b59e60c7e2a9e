"""One machine and nothing but Python: `sweep run FILE` in an empty home starts everything, `sweep down` ends it."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from tests.support.projects import SHELL, write_project
from tests.support.services import wait_until

LOSS: Final = {"name": "loss", "goal": "minimize"}
WAITS: Final = 'touch "$MEETING/started"\nuntil [ -e "$MEETING/go" ]; do sleep 0.05; done\necho loss=4\n'
DEADLINE_S: Final = 110.0

pytestmark = pytest.mark.timeout(240)


class Laptop:
    """A machine with one home.

    Attributes:
        home: does not exist before the first command.
    """

    def __init__(self, home: Path) -> None:
        self.home = home
        self.begun: list[subprocess.Popen[str]] = []
        self._environ = {name: value for name, value in os.environ.items() if not name.startswith("SWEEP_")} | {"SWEEP_HOME": str(home)}

    def begin(self, *arguments: str) -> "subprocess.Popen[str]":
        """Start a command of `sweep`."""
        command = [sys.executable, "-m", "sweeps.cli", *arguments]
        streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        environ = self._environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[2])}
        self.begun.append(subprocess.Popen(command, cwd=self.home.parent, env=environ, text=True, **streams))
        return self.begun[-1]

    def sweep(self, *arguments: str, status: int = 0) -> tuple[str, str]:
        """Run a command of `sweep` to its end; (output, errors)."""
        return self.end(self.begin(*arguments), status)

    def end(self, process: "subprocess.Popen[str]", status: int = 0) -> tuple[str, str]:
        """Wait for a command's end, and insist on its exit status; (output, errors)."""
        try:
            output, errors = process.communicate(timeout=DEADLINE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            output, errors = process.communicate()
        assert process.returncode == status, f"{output}\n{errors}\n{self.logs()}"
        return output, errors

    def sweep_json(self, *arguments: str) -> Any:
        """What a command says with `--json`."""
        return json.loads(self.sweep(*arguments, "--json")[0])

    def cluster_pids(self) -> dict[str, int]:
        """Process ids of the roles, as the supervisor wrote them down."""
        told = json.loads((self.home / "local" / "cluster.json").read_text())
        return {"supervisor": told["pid"], **{role["name"]: role["pid"] for role in told["roles"]}}

    def processes(self) -> dict[int, str]:
        """Everything that runs for this home: id and command line."""
        ours: dict[int, str] = {}
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                command, environ, folder = (entry / "cmdline").read_bytes(), (entry / "environ").read_bytes(), (entry / "cwd").readlink()
            except OSError:
                continue  # it has ended, or is somebody else's
            if os.fsencode(self.home) in command + environ or folder.is_relative_to(self.home):
                ours[int(entry.name)] = command.replace(b"\0", b" ").decode(errors="replace")
        return ours

    def logs(self) -> str:
        """The ends of all logs."""
        return "\n".join(f"---- {log.name}\n{log.read_text(errors='replace')[-3000:]}" for log in sorted(self.home.glob("logs/*.log")))


@pytest.fixture
def make_laptop(tmp_path: Path) -> Iterator[Callable[[str], Laptop]]:
    """Makes machines with a home of this name; whatever happens, nothing of them stays."""
    made: list[Laptop] = []

    def make(name: str) -> Laptop:
        home = tmp_path / name
        home.parent.mkdir(parents=True, exist_ok=True)
        made.append(Laptop(home))
        return made[-1]

    yield make
    for laptop in made:
        laptop.end(laptop.begin("down", "--yes"))
        # Shown by pytest when the test failed.
        print(laptop.logs())  # noqa: T201
        for pid in laptop.processes():
            os.kill(pid, signal.SIGKILL)
        for process in laptop.begun:
            process.communicate()


def test_laptop_runs_a_sweep_from_nothing_and_stops_without_a_trace(make_laptop: Callable[[str], Laptop], tmp_path: Path) -> None:
    """In a home with spaces and letters of many scripts: the first run starts the cluster, the second finds it, `down` ends all of it."""
    laptop = make_laptop("mein Labor, 実験 é")
    file = write_project(tmp_path / "project", "echo loss=$((3 - SWEEP_TRIAL))\n", command=SHELL, metric=LOSS, limits={"trials": 3})
    output, errors = laptop.sweep("run", str(file))
    assert "Starting the cluster of this machine" in errors
    assert "sweep down" in errors
    assert "best" in output.lower()
    best = laptop.sweep_json("best")
    assert (best["number"], best["value"]) == (2, 1.0)
    pids = laptop.cluster_pids()
    assert set(pids) == {"supervisor", "server", "scheduler", "worker"}

    _, errors = laptop.sweep("run", str(file))
    assert "Starting" not in errors
    assert laptop.cluster_pids() == pids
    assert len(laptop.sweep_json("ls")["sweeps"]) == 2

    assert set(laptop.processes()) >= set(pids.values())
    assert len(laptop.processes()) > len(pids), "Postgres is ours too"
    _, errors = laptop.sweep("down")
    assert "Stopped." in errors
    assert laptop.processes() == {}
    _, errors = laptop.sweep("down")
    assert "Nothing was running." in errors


def test_laptop_two_runs_at_once_share_one_cluster(make_laptop: Callable[[str], Laptop], tmp_path: Path) -> None:
    """Both start in an empty home, under a path longer than any socket's may be; both sweeps are recorded in one place."""
    laptop = make_laptop("/".join(["a-folder-with-a-long-name"] * 7))
    file = write_project(tmp_path / "project", "echo loss=1\n", command=SHELL, metric=LOSS, limits={"trials": 2})
    runs = [laptop.begin("run", str(file), "--name", name) for name in ("one", "two")]
    for run in runs:
        laptop.end(run)
    assert {sweep["name"] for sweep in laptop.sweep_json("ls", "--state", "finished")["sweeps"]} == {"one", "two"}
    workers = laptop.sweep_json("worker", "ls", "--all")["workers"]
    assert len(workers) == 1


def test_laptop_interrupted_run_detaches_and_trials_outlive_the_cluster(make_laptop: Callable[[str], Laptop], tmp_path: Path) -> None:
    """Ctrl-C leaves the sweep running; `sweep down` leaves its trial running, and whoever asks next finds it finished, in one attempt."""
    laptop = make_laptop("home")
    file = write_project(tmp_path / "project", WAITS, command=SHELL, metric=LOSS, env={"MEETING": str(tmp_path)})
    run = laptop.begin("run", str(file))
    wait_until((tmp_path / "started").exists, "the trial runs", deadline_s=DEADLINE_S)
    run.send_signal(signal.SIGINT)
    _, errors = laptop.end(run, status=130)
    assert "detached; the sweep goes on" in errors
    assert laptop.sweep_json("status")["counts"]["running"] == 1

    _, errors = laptop.sweep("down", "--yes")
    assert "1 trial goes on without us and is taken up by the next `" in errors
    assert [command for command in laptop.processes().values() if "program.sh" in command]
    (tmp_path / "go").touch()
    ended = laptop.sweep_json("wait", "--timeout", "100")
    assert (ended["state"], ended["best"]["value"], ended["best"]["attempts"]) == ("finished", 4.0, 1)


def test_laptop_worker_by_hand_serves_what_waits_and_down_cancels(make_laptop: Callable[[str], Laptop], tmp_path: Path) -> None:
    """What `sweep queue` advises works: a second worker finds the cluster. `sweep down --cancel` then leaves nothing running."""
    laptop = make_laptop("home")
    url, errors = laptop.sweep("db", "url")
    assert (url[:13], errors.split(" in ")[0]) == ("postgresql://", "Starting the Postgres of this machine")
    _, errors = laptop.sweep("worker", "--name", "w2", status=4)
    assert "sweep up" in errors
    assert laptop.sweep("db", "url") == (url, "")
    project = {"command": SHELL, "metric": LOSS, "env": {"MEETING": str(tmp_path)}, "queue": "gpuu"}
    laptop.sweep("submit", str(write_project(tmp_path / "project", WAITS, **project)))
    # The reason is a queue's only once the trial has been proposed.
    wait_until(lambda: laptop.sweep_json("queue")["queues"][-1]["waiting"], "the trial waits", deadline_s=DEADLINE_S)
    note = laptop.sweep_json("queue")["queues"][-1]["note"]
    assert "`sweep worker --queue gpuu --name NAME`" in note
    assert "No worker serves queue 'gpuu'" in laptop.sweep("status")[0]

    worker = laptop.begin("worker", "--queue", "gpuu", "--name", "w2")
    wait_until((tmp_path / "started").exists, "the trial runs on the worker by hand", deadline_s=DEADLINE_S)
    _, errors = laptop.sweep("down", status=2)
    assert "1 trial runs here. Stop the cluster?" in errors
    assert "Usage" not in errors
    _, errors = laptop.sweep("down", "--cancel", "--yes")
    assert errors.splitlines()[-1] == "Stopped."
    assert not [command for command in laptop.processes().values() if "program.sh" in command]
    worker.terminate()
    laptop.end(worker)
