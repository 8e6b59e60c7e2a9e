"""Every exit status of docs/commands.md comes about, each by what the table says of it."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import pytest

from sweeps.cli import main
from sweeps.client import Client
from tests.support.fake_server import ACTIVE, BEST, CANCELLED, FINISHED, FRUITLESS, NO_BEST, FakeServer, trial_answer

DOCS: Final = Path(__file__).parents[2] / "docs" / "commands.md"


def _refused(server: FakeServer) -> int:
    server.says("GET /sweeps", {"error_code": "PERMISSION_DENIED", "message": "no"}, 403)
    return main(["ls"])


def _away(_: FakeServer) -> int:
    os.environ["SWEEP_SERVER"] = "http://127.0.0.1:9"
    return main(["ls"])


def _ended(server: FakeServer, sweep: Mapping[str, Any], *arguments: str) -> int:
    server.says("GET /sweeps/@latest", sweep)
    server.says(f"GET /sweeps/{ACTIVE['sweep_id']}", sweep)
    return main([*arguments])


def _best(server: FakeServer, answer: Any) -> int:
    server.says("GET /sweeps/@latest/best", answer)
    return main(["best"])


def _elsewhere(server: FakeServer, after: Callable[["subprocess.Popen[str]"], None], *arguments: str) -> int:
    server.says("GET /sweeps/@latest", ACTIVE)
    server.says(f"GET /sweeps/{ACTIVE['sweep_id']}", ACTIVE)
    server.says(f"GET /sweeps/{ACTIVE['sweep_id']}/trials", BEST | {"trials": [trial_answer(number) for number in range(5000)]})
    process = subprocess.Popen([sys.executable, "-m", "sweeps.cli", *arguments], stdout=subprocess.PIPE, text=True)
    with process:
        assert process.stdout is not None
        assert process.stdout.readline()
        after(process)
    return process.returncode


def _interrupt(process: "subprocess.Popen[str]") -> None:
    process.send_signal(signal.SIGINT)


def _hang_up(process: "subprocess.Popen[str]") -> None:
    assert process.stdout is not None
    process.stdout.close()


WAYS: Final[Mapping[int, Callable[[FakeServer], int]]] = {
    0: lambda server: _ended(server, FINISHED, "wait"),
    1: lambda server: _ended(server, CANCELLED, "wait"),
    2: lambda _: main(["trials", "--sort", "colour"]),
    3: lambda _: main(["status", "nothing"]),
    4: _away,
    5: _refused,
    6: lambda server: _ended(server, FRUITLESS, "wait"),
    124: lambda server: _ended(server, ACTIVE, "wait", "--timeout", "0"),
    130: lambda server: _elsewhere(server, _interrupt, "status", "--watch", "--json"),
    141: lambda server: _elsewhere(server, _hang_up, "trials", "--watch"),
}


def test_exit_statuses_of_the_docs_all_have_a_test() -> None:
    """The table and this file speak of the same statuses."""
    assert {int(status) for status in re.findall(r"^\| (\d+) \|", DOCS.read_text(encoding="utf-8"), re.MULTILINE)} == set(WAYS)


@pytest.mark.parametrize("status", WAYS)
def test_exit_status_comes_about(server: FakeServer, monkeypatch: pytest.MonkeyPatch, status: int) -> None:
    """As the table says."""
    monkeypatch.setenv("SWEEP_SERVER", server.url)
    monkeypatch.setattr(Client, "retry_waits_s", ())
    assert WAYS[status](server) == status


@pytest.mark.parametrize(("answer", "expected"), [(BEST, 0), (NO_BEST, 6)])
def test_exit_status_of_best_tells_whether_there_is_one(server: FakeServer, answer: Any, expected: int) -> None:
    """Scripts ask for the best and look at the status."""
    assert _best(server, answer) == expected


def test_cli_says_nothing_when_it_is_interrupted_before_it_has_begun(tmp_path: Path) -> None:
    """While its first modules are read, which takes longest on a busy machine, there is nobody yet to say so."""
    (tmp_path / "click.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n")
    command = [sys.executable, "-c", "import sys; sys.path.insert(0, sys.argv[1]); import sweeps.cli", str(tmp_path)]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, b"", b"")
