"""The one-machine cluster: a real supervisor over a real Postgres, with small stand-ins for the roles."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Final

import pytest

from sweeps import local
from sweeps.client import Client
from tracking import embedded
from tracking.errors import EmbeddedError
from tracking.settings import Settings

# Runs as the supervisor, and as each role. A role says how it was started, breaks if the home has a file
# `break-ROLE`, and otherwise stays; the server answers what waiting for a cluster asks.
STAND_IN: Final = """
import json, os, signal, sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

class Answers(BaseHTTPRequestHandler):
    def do_GET(self):
        is_live = (Path(os.environ["SWEEP_HOME"]) / "seen-worker").exists()
        body = json.dumps({"schema": 1, "workers": [{"state": "live"}] if is_live else []}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

def role(name, port):
    home = Path(os.environ["SWEEP_HOME"])
    if (home / f"break-{name}").exists():
        sys.exit(f"{name} has no luck today")
    seen = {key: value for key, value in os.environ.items() if key.startswith("SWEEP_")}
    (home / f"seen-{name}.new").write_text(json.dumps(seen))
    (home / f"seen-{name}.new").rename(home / f"seen-{name}")
    if name == "server":
        signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
        HTTPServer(("127.0.0.1", int(port)), Answers).serve_forever()
    signal.pause()

def commands(port):
    return {name: [sys.executable, __file__, name, str(port)] for name in ("server", "scheduler", "worker")}

if len(sys.argv) > 2:
    role(*sys.argv[1:])
else:
    from sweeps.local import main
    sys.exit(main(sys.argv[1], commands))
"""


class Cluster:
    """A cluster of stand-ins under one home."""

    def __init__(self, home: Path, stand_in: Path) -> None:
        self.settings = Settings(home=home)
        self.supervisor = (sys.executable, str(stand_in))
        self.said: list[str] = []

    @property
    def home(self) -> Path:
        """Where it lives."""
        return self.settings.home

    def ensure(self) -> str:
        """Start it if needed; returns its URL."""
        return local.ensure_cluster(self.settings, say=self.said.append, supervisor=self.supervisor)

    def status(self) -> local.LocalStatus:
        """What its supervisor wrote."""
        return local.cluster_status(self.settings)

    def role(self, name: str) -> local.RoleStatus:
        """What its supervisor wrote of one role."""
        return next(role for role in self.status().roles if role.name == name)

    def seen(self, name: str) -> dict[str, str]:
        """The settings with which a role was started last."""
        seen: dict[str, str] = json.loads((self.home / f"seen-{name}").read_text())
        return seen

    def wait(self, condition: Callable[[], bool]) -> None:
        """Until something is so; the supervisor and its children are not children of the test."""
        assert local._wait_for(condition, 30), self.log("local")

    def log(self, name: str) -> str:
        """What a role or the supervisor said."""
        path = self.home / f"logs/{name}.log"
        return path.read_text() if path.exists() else ""


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """A cluster that does not run yet, and does not run afterwards."""
    stand_in = tmp_path / "stand_in.py"
    stand_in.write_text(STAND_IN)
    made = Cluster(tmp_path / "home", stand_in)
    yield made
    local.stop_cluster(made.settings)
    assert not any(role.is_running for role in made.status().roles)


def test_cluster_works_after_ensure_and_is_gone_after_stop(cluster: Cluster) -> None:
    """Four processes come, say so, answer, and go."""
    url = cluster.ensure()
    assert len(cluster.said) == 2
    assert str(cluster.home) in cluster.said[0]
    assert url in cluster.said[1]
    with Client(url) as client:
        assert client.is_healthy()
    status = cluster.status()
    assert status.is_running
    assert [role.name for role in status.roles if role.is_running] == ["server", "scheduler", "worker"]
    assert embedded.status(cluster.home).is_running
    assert local.stop_cluster(cluster.settings) is True
    assert cluster.status().phase == "stopped"
    assert not cluster.status().is_running
    assert not any(role.is_running for role in cluster.status().roles)
    assert not embedded.status(cluster.home).is_running
    assert local.stop_cluster(cluster.settings) is False


def test_ensure_says_and_starts_nothing_when_the_cluster_runs(cluster: Cluster) -> None:
    """The common case of every command."""
    url = cluster.ensure()
    before = cluster.status()
    cluster.said.clear()
    assert cluster.ensure() == url
    assert cluster.said == []
    assert cluster.status() == before


def test_status_tells_that_there_is_none_and_makes_nothing(cluster: Cluster) -> None:
    """Looking leaves no trace."""
    assert cluster.status() == local.LocalStatus()
    assert local.stop_cluster(cluster.settings) is False
    assert not cluster.home.exists()


def test_roles_get_their_surroundings_by_settings(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """Database, broker, server and home are the cluster's; the caller's other settings hold, its token does not."""
    monkeypatch.setenv("SWEEP_TOKEN", "secret")
    cluster.settings = replace(cluster.settings, renew_s=2.5)
    url = cluster.ensure()
    seen = cluster.seen("worker")
    assert seen["SWEEP_DATABASE_URL"] == embedded.status(cluster.home).url
    assert seen["SWEEP_BROKER_URL"] == "filesystem://"
    assert seen["SWEEP_SERVER"] == url
    assert seen["SWEEP_HOME"] == str(cluster.home)
    assert seen["SWEEP_RENEW_S"] == "2.5"
    assert "SWEEP_TOKEN" not in seen


def test_cluster_uses_the_database_and_broker_it_is_given(cluster: Cluster, empty_database_url: str) -> None:
    """No Postgres of its own then, and the schema is brought up to date there."""
    cluster.settings = replace(cluster.settings, database_url=empty_database_url, broker_url="none")
    cluster.ensure()
    seen = cluster.seen("scheduler")
    assert (seen["SWEEP_DATABASE_URL"], seen["SWEEP_BROKER_URL"]) == (empty_database_url, "none")
    assert not embedded.status(cluster.home).is_initialised
    from tracking.store import open_store

    open_store(empty_database_url).close()


def test_ensure_makes_one_cluster_when_four_processes_call_it(cluster: Cluster) -> None:
    """One supervisor wins; all get its address."""
    with ThreadPoolExecutor(4) as pool:
        urls = set(pool.map(lambda _: cluster.ensure(), range(4)))
    assert urls == {cluster.status().url}
    assert cluster.log("local").count("worker started") == 1


def test_cluster_has_its_address_again_after_a_restart(cluster: Cluster) -> None:
    """Bookmarks go on working."""
    url = cluster.ensure()
    local.stop_cluster(cluster.settings)
    assert cluster.ensure() == url


def test_cluster_takes_another_port_when_its_own_is_taken(cluster: Cluster) -> None:
    """Two homes on one machine do not meet."""
    url = cluster.ensure()
    local.stop_cluster(cluster.settings)
    with socket.create_server((local.HOST, int(url.rpartition(":")[2]))):
        assert cluster.ensure() != url


def test_role_is_started_again_when_it_is_killed(cluster: Cluster) -> None:
    """The others are left alone."""
    cluster.ensure()
    killed, other = cluster.role("worker"), cluster.role("scheduler")
    os.kill(killed.pid, signal.SIGKILL)
    cluster.wait(lambda: cluster.role("worker").pid != killed.pid and cluster.role("worker").is_running)
    assert cluster.role("worker").ended == "signal 9"
    assert cluster.role("scheduler") == other


def test_server_moves_when_its_port_was_taken_meanwhile(cluster: Cluster) -> None:
    """And every role learns the new address."""
    url = cluster.ensure()
    (cluster.home / "break-server").touch()
    os.kill(cluster.role("server").pid, signal.SIGKILL)
    cluster.wait(lambda: "has no luck" in cluster.log("server"))
    with socket.create_server((local.HOST, int(url.rpartition(":")[2]))):
        cluster.wait(lambda: cluster.status().url != url)
    (cluster.home / "break-server").unlink()
    cluster.wait(lambda: local._Probe(cluster.status().url).says_healthy())
    cluster.wait(lambda: cluster.seen("worker")["SWEEP_SERVER"] == cluster.status().url)


def test_postgres_is_started_again_when_it_is_killed(cluster: Cluster) -> None:
    """At the same address, under the same roles."""
    cluster.ensure()
    before = embedded.status(cluster.home)
    roles = cluster.status().roles
    assert before.pid is not None
    os.kill(before.pid, signal.SIGKILL)
    cluster.wait(lambda: embedded.status(cluster.home).pid not in {before.pid, None})
    assert embedded.status(cluster.home).url == before.url
    assert cluster.status().roles == roles


def test_cluster_ends_when_its_home_is_deleted(cluster: Cluster, tmp_path: Path) -> None:
    """It does not go on with the home of a successor."""
    cluster.ensure()
    status = cluster.status()
    postgres = embedded.status(cluster.home).pid
    assert postgres is not None
    cluster.home.rename(tmp_path / "deleted")
    os.kill(postgres, signal.SIGINT)
    cluster.wait(lambda: not status.is_running)
    assert not any(role.is_running for role in status.roles)


def test_ensure_replaces_what_a_killed_supervisor_left_behind(cluster: Cluster) -> None:
    """No second worker beside an unwatched first."""
    cluster.ensure()
    before = cluster.status()
    os.kill(before.pid, signal.SIGKILL)
    cluster.wait(lambda: not before.is_running)
    assert all(role.is_running for role in before.roles)
    cluster.ensure()
    assert not any(role.is_running for role in before.roles)
    assert all(role.is_running for role in cluster.status().roles)


def test_stop_ends_what_a_killed_supervisor_left_behind(cluster: Cluster) -> None:
    """`sweep down` means down."""
    cluster.ensure()
    before = cluster.status()
    os.kill(before.pid, signal.SIGKILL)
    cluster.wait(lambda: not before.is_running)
    assert local.stop_cluster(cluster.settings) is True
    assert not any(role.is_running for role in before.roles)
    assert not embedded.status(cluster.home).is_running


def test_cluster_goes_on_when_its_state_can_not_be_written(cluster: Cluster) -> None:
    """A full home: what ends meanwhile is started again all the same, and told of once there is room."""
    cluster.ensure()
    before = cluster.status()
    in_the_way = cluster.home / "local/cluster.new"
    in_the_way.mkdir()
    os.kill(cluster.role("scheduler").pid, signal.SIGKILL)
    cluster.wait(lambda: cluster.log("local").count("scheduler started") == 2)
    assert cluster.status() == before
    assert before.is_running
    in_the_way.rmdir()
    cluster.wait(lambda: cluster.role("scheduler").ended == "signal 9" and cluster.role("scheduler").is_running)
    assert cluster.role("worker") == next(role for role in before.roles if role.name == "worker")


def test_cluster_tries_again_when_a_role_can_not_be_started(cluster: Cluster) -> None:
    """No descriptor, process or room for it: that passes, and nothing else is ended for it."""
    cluster.ensure()
    before, postgres = cluster.status(), embedded.status(cluster.home).pid
    log = cluster.home / "logs/scheduler.log"
    log.unlink()
    log.mkdir()
    os.kill(cluster.role("scheduler").pid, signal.SIGKILL)
    cluster.wait(lambda: "not started" in cluster.role("scheduler").ended)
    log.rmdir()
    cluster.wait(lambda: cluster.role("scheduler").is_running)
    assert cluster.status().pid == before.pid
    assert [role for role in cluster.status().roles if role.name != "scheduler"] == [role for role in before.roles if role.name != "scheduler"]
    assert embedded.status(cluster.home).pid == postgres


def test_cluster_goes_on_when_postgres_can_not_be_looked_at(cluster: Cluster) -> None:
    """Here its lease can't be read for a while: nothing is concluded from that."""
    cluster.ensure()
    postgres = embedded.status(cluster.home).pid
    lease, kept = cluster.home / "pg/lease.json", cluster.home / "pg/kept.json"
    lease.rename(kept)
    lease.mkdir()
    os.kill(cluster.role("worker").pid, signal.SIGKILL)
    cluster.wait(lambda: cluster.role("worker").ended == "signal 9" and cluster.role("worker").is_running)
    assert "can't be used" in cluster.log("local")
    lease.rmdir()
    kept.rename(lease)
    assert cluster.status().phase == "running"
    assert cluster.status().is_running
    assert embedded.status(cluster.home).pid == postgres


def test_stop_ends_the_roles_when_the_state_can_not_be_written(cluster: Cluster) -> None:
    """That nobody can be told is no reason to leave them behind."""
    cluster.ensure()
    before = cluster.status()
    (cluster.home / "local/cluster.new").mkdir()
    assert local.stop_cluster(cluster.settings) is True
    assert "INFO stopped" in cluster.log("local")
    assert not any(role.is_running for role in before.roles)
    assert not embedded.status(cluster.home).is_running


def test_ensure_starts_over_half_a_state(cluster: Cluster) -> None:
    """A machine that went down as it was written leaves that; while a supervisor lives it is refused."""
    state = cluster.home / "local/cluster.json"
    state.parent.mkdir(parents=True)
    state.write_text('{"phase": "runn')
    assert cluster.status() == local.LocalStatus()
    cluster.ensure()
    kept = state.read_text()
    state.write_text(kept[:40])
    with pytest.raises(local.LocalError, match="can't be understood"):
        cluster.status()
    state.write_text(kept)


def test_ensure_shows_the_log_of_a_role_that_does_not_stay_up(cluster: Cluster) -> None:
    """What it said last, not a time-out."""
    cluster.home.mkdir()
    (cluster.home / "break-worker").touch()
    with pytest.raises(local.LocalError, match="worker of the cluster does not stay up") as failed:
        cluster.ensure()
    assert "worker has no luck today" in failed.value.message
    assert "sweep down" in failed.value.hint


def test_ensure_tells_why_postgres_does_not_start(cluster: Cluster) -> None:
    """The supervisor's error and hint arrive; it leaves nothing running; a second try works once the cause is gone."""
    pg = cluster.home / "pg"
    pg.parent.mkdir()
    pg.write_text("in the way")
    with pytest.raises(local.LocalError, match="is not a folder") as failed:
        cluster.ensure()
    assert failed.value.hint
    assert cluster.status().phase == "failed"
    assert not cluster.status().is_running
    pg.unlink()
    cluster.ensure()


def test_ensure_shows_why_the_schema_can_not_be_upgraded(cluster: Cluster) -> None:
    """Here nobody listens at the given database."""
    cluster.settings = replace(cluster.settings, database_url="postgresql://nobody@127.0.0.1:1/none")
    with pytest.raises(local.LocalError, match="schema can't be brought up to date") as failed:
        cluster.ensure()
    assert "127.0.0.1" in failed.value.message


def test_ensure_tells_when_the_home_can_not_be_made(tmp_path: Path) -> None:
    """A file is in the way."""
    (tmp_path / "file").touch()
    with pytest.raises(local.LocalError, match="can't be used"):
        local.ensure_cluster(Settings(home=tmp_path / "file/home"), say=print)


@pytest.mark.parametrize("name", ["lock", "cluster.new"])
def test_ensure_tells_when_the_supervisor_has_no_way_to_begin(cluster: Cluster, name: str) -> None:
    """No room for its files: a sentence, and a second try works once there is."""
    in_the_way = cluster.home / "local" / name
    in_the_way.mkdir(parents=True)
    with pytest.raises(local.LocalError, match="Is a directory") as failed:
        cluster.ensure()
    assert "File " not in failed.value.message
    in_the_way.rmdir()
    cluster.ensure()


def test_stop_refuses_when_another_host_has_the_data_open(cluster: Cluster) -> None:
    """Its cluster is stopped there."""
    cluster.ensure()
    local.stop_cluster(cluster.settings)
    embedded.ensure_running(cluster.home)
    lease = cluster.home / "pg/lease.json"
    kept = lease.read_text()
    told = json.loads(kept)
    told["host"] = {"machine_id": "m", "hostname": "other", "boot_id": "b", "process_namespace": "p"}
    lease.write_text(json.dumps(told))
    with pytest.raises(EmbeddedError, match="opened by host other"):
        local.stop_cluster(cluster.settings)
    lease.write_text(kept)


def test_supervisor_sleeps_when_nothing_happens(cluster: Cluster) -> None:
    """Not one wake-up: it waits for events, it does not look for them."""
    cluster.ensure()
    status = Path(f"/proc/{cluster.status().pid}/status")
    if not status.exists():
        pytest.skip("this system does not count a process' switches")

    def switches() -> str:
        return next(line for line in status.read_text().splitlines() if line.startswith("voluntary_ctxt_switches"))

    with Client(cluster.status().url) as client:
        before = switches()
        for _ in range(200):
            client.workers()
    assert switches() == before


def test_roles_can_be_loaded_without_docstrings() -> None:
    """The shell that starts the cluster may have `PYTHONOPTIMIZE=2`."""
    script = "import sweeps.cli, sweeps.server, scheduler.main, worker.main"
    subprocess.run([sys.executable, "-OO", "-c", script], check=True)


def test_commands_run_the_roles_of_this_release_wherever_they_are_started() -> None:
    """Not a `worker.py` in the folder of whoever starts the cluster."""
    commands = local.role_commands(1234)
    assert list(commands) == ["server", "scheduler", "worker"]
    for command in (*commands.values(), list(local.SUPERVISOR)):
        assert command[:3] == [sys.executable, "-P", "-m"]
    assert commands["server"][-2:] == ["--port", "1234"]
    for module in {command[3] for command in (*commands.values(), local.SUPERVISOR)}:
        found = "import importlib.util, sys; sys.exit(importlib.util.find_spec(sys.argv[1]) is None)"
        assert subprocess.run([sys.executable, "-P", "-c", found, module], cwd="/", check=False).returncode == 0
