"""Verbs of the machinery, against a made-up server."""

import json
from io import StringIO
from pathlib import Path

import pytest

from sweeps.cli import main
from tests.support.fake_server import ACTIVE, RUN_ID, WHY, FakeServer, sweep_answer


def test_cli_asks_nothing_about_a_worker_that_is_not_there(server: FakeServer, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A yes would not help."""
    monkeypatch.setattr("sys.stdin", StringIO())
    server.says("GET /workers", {"schema": 1, "workers": [{"name": "w1", "worker_id": RUN_ID}]})
    assert main(["worker", "drain", "nobody"]) == 3
    assert "There is no worker 'nobody'." in capsys.readouterr().err
    assert main(["worker", "drain", "w1"]) == 2
    assert "--yes" in capsys.readouterr().err


def test_cli_queue_names_what_nobody_serves(server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    """A queue without a worker is told with what to type."""
    server.says("GET /sweeps", {"schema": 1, "sweeps": [sweep_answer(queue="gpu", counts={"total": 3, "open": 3, "queued": 3})]})
    server.says("GET /workers", {"schema": 1, "workers": []})
    server.says(f"GET /why/{ACTIVE['sweep_id']}", WHY)
    assert main(["queue", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)["queues"]
    assert (row["queue"], row["note"]) == ("gpu", WHY["reasons"][0])


def test_cli_server_refuses_the_network_without_open(capsys: pytest.CaptureFixture[str]) -> None:
    """Until there are users, an address others can reach must be asked for."""
    assert main(["server", "--host", "0.0.0.0"]) == 2
    assert "--open" in capsys.readouterr().err


def test_cli_worker_needs_the_database_of_a_server_elsewhere(
    server: FakeServer, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that knows only its server does not start a database of its own."""
    monkeypatch.setenv("SWEEP_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("SWEEP_DATABASE_URL", raising=False)
    assert main(["worker"]) == 2
    assert "SWEEP_DATABASE_URL" in capsys.readouterr().err
    assert not (tmp_path / "home").exists()


def test_cli_down_tells_programs_what_it_has_stopped(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing runs, nothing was stopped, and nothing is made."""
    monkeypatch.setenv("SWEEP_HOME", str(tmp_path / "home"))
    assert main(["down", "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out) == {"schema": 1, "stopped": False, "running": 0}
    assert err == "Nothing was running.\n"
    assert not (tmp_path / "home").exists()
