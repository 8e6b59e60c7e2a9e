"""Trials in containers, on one cluster of real processes: their boundary, how they end, and what is left of them (nothing)."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from sweeps.api.shapes import TrialAnswer
from tests.support.cluster import Cluster, stopped_afterwards
from tests.support.projects import write_project
from tests.support.services import wait_until

if TYPE_CHECKING:
    from docker import DockerClient

LOSS: Final = {"name": "loss", "goal": "minimize"}
SECRET: Final = "no-container-may-see-this"
COMMAND: Final = ["python3", "${program}", "${args}"]

LOOK_AROUND: Final = """
import json, os, pathlib, socket
status = dict(line.split(":", 1) for line in open("/proc/self/status") if line.startswith(("Cap", "NoNewPrivs")))
limits = [path.read_text().strip() for path in map(pathlib.Path, ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")) if path.exists()]
pathlib.Path("written").write_text("by a container")
print(json.dumps({
    "host": socket.gethostname(), "memory": limits, "status": {key: value.strip() for key, value in status.items()},
    "cwd": os.getcwd(), "environ": dict(os.environ), "socket": os.path.exists("/var/run/docker.sock"),
    "told": [json.load(open(os.environ[name])) for name in ("SWEEP_PARAMS_FILE", "SWEEP_ARGS_FILE", "WANDB_SWEEP_PARAM_PATH")],
    "pids": len([p for p in os.listdir("/proc") if p.isdigit()]),
}))
"""


class Site:
    """One cluster, its container engine, and a folder for the projects that are run on it."""

    def __init__(self, cluster: Cluster, engine: "DockerClient", image: str, folder: Path) -> None:
        self.cluster = cluster
        self.engine = engine
        self.image = image
        self._folder = folder
        self._n_projects = 0

    def submit(self, program: str, *, resources: dict[str, Any] | None = None, **keys: Any) -> str:
        """Submit a project of its own, whose trials run in containers; its sweep id."""
        self._n_projects += 1
        asked = {"image": self.image, "cpus": 0.5, "memory": "64m", **(resources or {})}
        return self.cluster.submit(write_project(self._folder / f"project-{self._n_projects}", program, command=COMMAND, resources=asked, **keys))

    def run(self, program: str, **keys: Any) -> list[TrialAnswer]:
        """Run a project of its own to its end; its trials."""
        return self.cluster.wait_for_end(self.submit(program, **keys))

    def output(self, trial: TrialAnswer) -> str:
        """What a trial printed to its standard output."""
        return str(self.cluster.sweep_json("logs", trial["run_id"], "--stream", "stdout")["stdout"])

    def containers(self) -> list[Any]:
        """Containers of this cluster's worker, ended ones too."""
        worker_id = self.cluster.query("SELECT worker_id FROM workers WHERE name = 'w1'")[0].worker_id
        return list(self.engine.containers.list(all=True, ignore_removed=True, filters={"label": f"sweep.worker={worker_id}"}))


@pytest.fixture(scope="module")
def site(module_database_url: str, tmp_path_factory: pytest.TempPathFactory, docker_engine: "DockerClient", base_image: str) -> Iterator[Site]:
    """One worker with two slots, without a broker, whose own environment holds a secret."""
    folder = tmp_path_factory.mktemp("containers")
    environ = {"SWEEP_STOP_GRACE_S": "1", "SWEEP_WATCH_S": "0.2", "PGPASSWORD": SECRET, "MY_OWN": SECRET}
    with stopped_afterwards(Cluster(folder, module_database_url, "none", environ)) as cluster:
        yield Site(cluster.start(worker_arguments=("--slots", "2")), docker_engine, base_image, folder)


@pytest.fixture(autouse=True)
def _nothing_left(site: Site) -> Iterator[None]:
    """After every test: no container, no working folder."""
    yield
    wait_until(lambda: not site.containers(), "the containers are removed")
    wait_until(lambda: not [*site.cluster.folder.glob("home-*/workers/*/runs/*")], "the folders of the attempts are gone")


def test_container_is_a_boundary(site: Site) -> None:
    """One container a trial, with its memory limit, without capabilities or a way to more, and with nothing of the worker's environment."""
    trials = site.run(LOOK_AROUND, limits={"trials": 3})
    seen = [json.loads(site.output(trial)) for trial in trials]
    assert len({look["host"] for look in seen}) == 3
    for trial, look in zip(trials, seen, strict=True):
        assert look["memory"] == [str(64 * 1024 * 1024)]
        assert {int(look["status"][name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {0}
        assert look["status"]["NoNewPrivs"] == "1"
        assert not look["socket"]
        params = trial["params"]
        assert look["told"] == [params, params, {"wandb_version": 1, **{name: {"value": value} for name, value in params.items()}}]
        assert look["pids"] < 5, "it sees its own processes only"
        assert look["cwd"] == "/work"
        assert SECRET not in look["environ"].values()
        assert site.cluster.database_url not in look["environ"].values()
        assert (look["environ"]["SWEEP_RUN_ID"], look["environ"]["SWEEP_ATTEMPT"]) == (trial["run_id"], "1")


def test_container_over_its_memory_ends_out_of_memory(site: Site) -> None:
    """The kernel's verdict is told from other kills; the user's fault is not tried again."""
    (trial,) = site.run("print('loss=1', flush=True)\nhog = [bytearray(b'x' * 2**20) for _ in range(256)]\n", metric=LOSS)
    assert (trial["state"], trial["cause"], trial["attempts"]) == ("failed", "out_of_memory", 1)
    assert site.output(trial) == "loss=1\n"


def test_container_ends_like_a_process(site: Site) -> None:
    """Exit status with the last line of its error, and a program that is not there."""
    (trial,) = site.run("raise SystemExit('no such layer')\n")
    assert (trial["state"], trial["cause"], trial["detail"]) == ("failed", "exit_status", "exit status 1: no such layer")
    (trial,) = site.run("pass\n", limits={"trials": 1, "trial_time": "30s"}, env={"PATH": "/nowhere"})
    assert (trial["state"], trial["attempts"]) == ("failed", 1), trial
    assert "python3" in (trial["detail"] or "")


def test_container_is_removed_when_its_time_is_over_or_it_is_cancelled(site: Site) -> None:
    """Even if it ignores SIGTERM."""
    program = "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint('ready', flush=True)\ntime.sleep(1000)\n"
    timed = site.submit(program, limits={"trials": 1, "trial_time": "2s"})
    cancelled = site.submit(program)
    site.cluster.wait_for_running(cancelled)
    wait_until(lambda: any(b"ready" in container.logs() for container in site.containers() if container.status == "running"), "one ignores SIGTERM")
    site.cluster.sweep("cancel", cancelled, "--yes")
    (trial,) = site.cluster.wait_for_end(timed)
    assert (trial["state"], trial["cause"]) == ("failed", "timed_out")
    ended = "SELECT 1 FROM runs WHERE sweep_id = %(id)s AND kind = 'managed' AND ended_at IS NULL"
    wait_until(lambda: not site.cluster.query(ended, id=cancelled), "the cancelled run has ended")
    (trial,) = site.cluster.sweep_json("trials", cancelled)["trials"]
    assert (trial["state"], trial["cause"]) == ("cancelled", "cancelled")


@pytest.mark.parametrize("end", ["killed", "stopped"])
def test_container_runs_on_without_its_worker(site: Site, end: str) -> None:
    """The same container under the same attempt; not a line is missing or doubled, though half of them came while nobody watched."""
    program = (
        "import os, time\nprint('before', flush=True)\nopen('ready', 'w').close()\n"
        "while not os.path.exists('go'):\n    time.sleep(0.02)\n"
        "for n in range(200):\n    print('line', n, flush=True)\nopen('said', 'w').close()\n"
        "while not os.path.exists('end'):\n    time.sleep(0.02)\nprint('loss=3')\n"
    )
    sweep_id = site.submit(program, metric=LOSS)
    work = wait_for_file(site, "ready").parent
    (container,) = site.containers()
    worker = site.cluster.role("w1")
    worker.kill() if end == "killed" else worker.stop()
    (work / "go").touch()
    wait_for_file(site, "said")
    site.cluster.start_worker("w1", "--slots", "2")
    assert [found.id for found in site.containers()] == [container.id]
    (work / "end").touch()
    (trial,) = site.cluster.wait_for_end(sweep_id)
    assert (trial["state"], trial["value"], trial["attempts"]) == ("finished", 3.0, 1)
    assert site.output(trial).splitlines() == ["before", *(f"line {n}" for n in range(200)), "loss=3"]


def wait_for_file(site: Site, name: str) -> Path:
    """Wait until the trial has made this file in its working folder."""
    found: list[Path] = []
    wait_until(lambda: found.extend(site.cluster.folder.glob(f"home-*/workers/*/runs/*/*/work/{name}")) or found, f"the trial made {name}")
    return found[0]
