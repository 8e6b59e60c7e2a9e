"""`sweep doctor`: each line that is not well says what to do."""

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from sweeps.cli import main
from sweeps.cli.doctor import check_flower, check_home, check_uv
from tests.support.fake_server import FakeServer, sweep_answer

HEALTHY = {
    "schema": 1,
    "version": "0.0.1",
    "time": "2001-01-02T03:04:05.000Z",
    "database_problem": "",
    "artifacts_problem": "",
    "artifact_root": "/a",
    "flower_url": "",
}


def report(capsys: pytest.CaptureFixture[str], expected: int) -> dict[str, dict[str, Any]]:
    """What `doctor --json` finds, by check."""
    assert main(["doctor", "--json"]) == expected
    answer = json.loads(capsys.readouterr().out)
    assert answer["ok"] is (expected == 0)
    assert [check for check in answer["checks"] if check["verdict"] != "OK" and not check["fix"]] == []
    return {check["check"]: check for check in answer["checks"]}


def test_doctor_has_a_fix_for_whatever_is_wrong_with_a_server(server: FakeServer, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Another release, a clock that is off, a database and artifacts that are away, a queue nobody serves, a cordoned worker."""
    worker = {"name": "w1", "state": "cordoned", "queues": ["default"], "slots": 1}
    server.says("GET /server", HEALTHY | {"database_problem": "Postgres is away.", "artifacts_problem": "No such folder."})
    server.says("GET /workers", {"schema": 1, "workers": [worker]})
    server.says("GET /sweeps", {"schema": 1, "sweeps": [sweep_answer(queue="gpu")]})
    found = report(capsys, 1)
    verdicts = {name: found[name]["verdict"] for name in ("server", "clock", "server's database", "artifacts", "workers", "queue gpu")}
    assert verdicts == {
        "server": "WARN",
        "clock": "WARN",
        "server's database": "FAIL",
        "artifacts": "FAIL",
        "workers": "WARN",
        "queue gpu": "FAIL",
    }


@pytest.mark.parametrize(
    ("variable", "value", "check"),
    [
        ("SWEEP_DATABASE_URL", "mysql://h/d", "database"),
        ("SWEEP_DATABASE_URL", "postgresql://127.0.0.1:9/d", "database"),
        ("SWEEP_BROKER_URL", "amqp://h", "broker"),
    ],
)
def test_doctor_has_a_fix_for_a_setting_that_leads_nowhere(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], variable: str, value: str, check: str
) -> None:
    """What stands in a setting is looked at, and told in that check's own line; the other checks are made all the same."""
    monkeypatch.setenv(variable, value)
    server.says("GET /server", HEALTHY)
    server.says("GET /workers", {"schema": 1, "workers": []})
    server.says("GET /sweeps", {"schema": 1, "sweeps": []})
    found = report(capsys, 1)
    assert found[check]["verdict"] == "FAIL"
    assert found["workers"]["verdict"] == "WARN"


def test_doctor_fails_when_the_server_does_not_answer(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """And says where it looked."""
    monkeypatch.setenv("SWEEP_SERVER", "http://127.0.0.1:9")
    assert "http://127.0.0.1:9" in report(capsys, 1)["server"]["message"]


def test_doctor_names_a_home_that_is_no_folder(tmp_path: Path) -> None:
    """A file stands in its place."""
    (tmp_path / "home").touch()
    found = check_home(tmp_path / "home")
    assert (found.verdict, "SWEEP_HOME" in found.fix) == ("FAIL", True)


def test_doctor_names_a_home_that_can_not_be_made(tmp_path: Path) -> None:
    """By trying: nobody, root included, makes a folder in /proc; and what was tried leaves nothing."""
    found = check_home(Path("/proc/sweep/home"))
    assert (found.verdict, "can't be made" in found.message) == ("FAIL", True)
    assert check_home(tmp_path / "new" / "home").verdict != "FAIL"
    assert list(tmp_path.iterdir()) == []


def test_doctor_sends_nobody_to_the_doctor(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Hints of errors that do so elsewhere end before that."""
    monkeypatch.setenv("SWEEP_SERVER", "http://127.0.0.1:9")
    assert report(capsys, 1)["server"]["fix"] == "Check SWEEP_SERVER and that `sweep server` runs."


def test_doctor_misses_uv(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Neither beside the interpreter nor on the PATH."""
    monkeypatch.setattr("sys.executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    found = check_uv()
    assert (found.verdict, bool(found.fix)) == ("WARN", True)


class _Flower(BaseHTTPRequestHandler):
    """As Flower answers under its URL prefix, and beside it a page of others and one that is locked."""

    def do_GET(self) -> None:
        status, text = {"/flower/healthcheck": (200, b"OK"), "/other/healthcheck": (200, b"<html>"), "/locked/healthcheck": (401, b"")}.get(
            self.path, (404, b"")
        )
        self.send_response(status)
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture
def flower() -> Iterator[str]:
    """Where it listens."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Flower) as made:
        thread = Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{made.server_port}"
        made.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("path", "verdict", "told"),
    [
        ("/flower", "OK", "/flower"),
        ("/flower/", "OK", "/flower/"),
        ("/locked", "OK", "/locked"),
        ("/other", "WARN", "/other answers, but not as Flower does: something else"),
        ("", "WARN", "answers, but not as Flower does: status 404"),
    ],
)
def test_doctor_asks_flower_itself(flower: str, path: str, verdict: str, told: str) -> None:
    """By its own check of health, which needs no login; a proxy that asks for one stands before something."""
    found = check_flower(flower + path)
    assert (found.verdict, bool(found.fix)) == (verdict, verdict != "OK")
    assert found.message.endswith(told)


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("http://127.0.0.1:9", "http://127.0.0.1:9 does not answer: [Errno 111] Connection refused"),
        ("http://ops:secret@127.0.0.1:9", "http://ops:***@127.0.0.1:9 does not answer"),
        ("http://127.0.0.1:port", "does not answer: nonnumeric port: 'port'"),
        ("localhost:5555", "is no address of a page"),
        ("http://[oops", "is no address of a page"),
    ],
)
def test_doctor_warns_of_a_flower_that_is_not_there(url: str, told: str) -> None:
    """A link that leads nowhere stops no trial."""
    found = check_flower(url)
    assert (found.check, found.verdict, bool(found.fix)) == ("flower", "WARN", True)
    assert told in found.message


def test_doctor_looks_at_the_flower_of_the_server_and_at_its_own(
    server: FakeServer, flower: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each once; where none is named nothing is said of it."""
    for path in ("workers", "sweeps"):
        server.says(f"GET /{path}", {"schema": 1, path: []})
    for ours, its, expected in (("", "", []), ("", "/other", ["WARN"]), ("/flower", "/flower", ["OK"]), ("/flower", "/other", ["OK", "WARN"])):
        server.says("GET /server", HEALTHY | {"flower_url": its and flower + its})
        monkeypatch.setenv("SWEEP_FLOWER_URL", ours and flower + ours)
        assert main(["doctor", "--json"]) == 0
        checks = json.loads(capsys.readouterr().out)["checks"]
        assert [check["verdict"] for check in checks if check["check"] == "flower"] == expected
