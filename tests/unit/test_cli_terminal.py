"""The command line on a real terminal: headings, width, colour, one region that is redrawn, Ctrl-C; and what is different elsewhere."""

import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import pytest

from sweeps.cli import main
from tests.support.fake_server import ACTIVE, BEST, FINISHED, FakeServer, sweep_answer, trial_answer
from tests.support.screen import shown_lines

ROOT: Final = Path(__file__).parents[2]
CTRL_C: Final = b"\x03"
BUSY: Final = {"schema": 1, "sweeps": [ACTIVE, sweep_answer(short_id="calm-newt-11aa", sweep_id="ee" * 16)]}


def in_terminal(
    server: FakeServer,
    *arguments: str,
    columns: int = 100,
    rows: int = 30,
    environ: Mapping[str, str] | None = None,
    interrupt_when: Callable[[str], bool] = lambda _: False,
) -> tuple[int, str]:
    """Run a command on a terminal of this size; its exit status and all that it wrote.

    Args:
        interrupt_when: by what it has written so far; Ctrl-C is typed then, once.
    """
    ours, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    env = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES", "NO_COLOR")}
    env |= {"SWEEP_SERVER": server.url, "TERM": "xterm-256color", "PYTHONPATH": str(ROOT), **(environ or {})}
    process = subprocess.Popen([sys.executable, "-m", "sweeps.cli", *arguments], env=env, preexec_fn=lambda: os.login_tty(its))  # noqa: PLW1509 - no threads
    os.close(its)
    written, is_interrupted = "", False
    while True:
        try:
            written += os.read(ours, 65536).decode()
        except OSError:  # the last that had it open has ended
            break
        if not is_interrupted and interrupt_when(written):
            os.write(ours, CTRL_C)
            is_interrupted = True
    os.close(ours)
    return process.wait(30), written


def plain(written: str) -> list[str]:
    """The lines, without escape sequences."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", written).replace("\r", "").splitlines()


def test_terminal_has_headings_and_cut_lines(server: FakeServer) -> None:
    """On a terminal a table fits its width; COLUMNS decides where it is set."""
    server.says("GET /sweeps/@latest/trials", BEST | {"trials": [trial_answer(params={"text": "x" * 300})]})
    for environ, width in (({}, 70), ({"COLUMNS": "50"}, 50)):
        status, written = in_terminal(server, "trials", columns=70, environ=environ)
        heading, row = plain(written)
        assert status == 0
        assert heading.startswith("TRIAL  STATE     RMSE")
        assert (len(row), row[-1]) == (width, "…")


@pytest.mark.parametrize(("no_colour", "expected"), [("", True), ("1", False)])
def test_terminal_is_coloured_unless_NO_COLOR_says_otherwise(server: FakeServer, no_colour: str, expected: bool) -> None:  # noqa: N802 - its name
    """No escape sequence at all then."""
    server.says("GET /sweeps", BUSY)
    server.says("GET /sweeps/@latest", ACTIVE)
    for arguments in (["ls"], ["status"], ["doctor"]):
        _, written = in_terminal(server, *arguments, environ={"NO_COLOR": no_colour})
        assert ("\x1b[" in written) is expected, arguments


def test_terminal_redraws_a_watched_list_in_place(server: FakeServer) -> None:
    """`ls --watch` is one region: its headings stand on the screen once; Ctrl-C leaves the last view, and says what goes on."""
    later = {"schema": 1, "sweeps": [FINISHED]}
    server.says("GET /sweeps", [BUSY, BUSY, later])
    status, written = in_terminal(server, "ls", "--watch", interrupt_when=lambda text: "finished" in text)
    assert status == 130
    screen = shown_lines(written)
    assert [line.split()[:3] for line in screen if "otter" in line] == [["brave-otter-7f3a", "wine", "finished"]]
    assert len([line for line in screen if line.startswith("ID ")]) == 1
    assert not any("calm-newt" in line for line in screen)
    assert screen[-1] == "Watched no more; the sweeps go on."


def test_terminal_prints_watched_trials_whole_at_the_end(server: FakeServer) -> None:
    """A region that had no room for all trials gives way to the whole table when the sweep has ended."""
    trials = [trial_answer(number) for number in range(40)]
    server.says("GET /sweeps/@latest", ACTIVE)
    server.says(f"GET /sweeps/{ACTIVE['sweep_id']}", [ACTIVE, FINISHED])
    server.says(f"GET /sweeps/{ACTIVE['sweep_id']}/trials", BEST | {"trials": trials})
    status, written = in_terminal(server, "trials", "--watch", rows=12)
    assert status == 0
    assert "and 31 before" in written
    screen = shown_lines(written)
    assert [line.split()[0] for line in screen] == ["TRIAL", *(str(number) for number in range(40))]


def test_terminal_ctrl_c_detaches_from_trials(server: FakeServer) -> None:
    """The sweep goes on; exit status 130."""
    server.says("GET /sweeps/@latest", ACTIVE)
    server.says(f"GET /sweeps/{ACTIVE['sweep_id']}", ACTIVE)
    server.says(f"GET /sweeps/{ACTIVE['sweep_id']}/trials", BEST | {"trials": [trial_answer()]})
    status, written = in_terminal(server, "trials", "--watch", interrupt_when=lambda text: "finished" in text)
    assert (status, plain(written)[-1]) == (130, "detached; the sweep goes on.")
    assert all(request.startswith("GET") for request in server.asked)


def test_watched_lists_give_a_line_at_each_change_off_a_terminal(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A trial that has not changed is not printed again, whether as JSON or as a row; how long it has run is no change."""
    monkeypatch.setattr("time.sleep", lambda _: None)
    first, second = trial_answer(0, state="open", run_state="running", value=None, duration_s=1.0), trial_answer(1)
    pages = [[first], [first | {"duration_s": 2.0}, second], [trial_answer(0), second]]
    for more in (["--json"], []):
        server.says("GET /sweeps/@latest", ACTIVE)
        server.says(f"GET /sweeps/{ACTIVE['sweep_id']}", [ACTIVE, ACTIVE, FINISHED])
        server.says(f"GET /sweeps/{ACTIVE['sweep_id']}/trials", [BEST | {"trials": page} for page in pages])
        assert main(["trials", "--watch", *more]) == 0
        lines = capsys.readouterr().out.splitlines()
        found = [numbered(json.loads(line)) for line in lines] if more else [tuple(line.split("\t")[:2]) for line in lines]
        assert found == [("0", "running"), ("1", "finished"), ("0", "finished")]
        if more:
            assert {key: json.loads(lines[0])[key] for key in ("schema", "sweep_id", "short_id")} == {
                key: BEST[key] for key in ("schema", "sweep_id", "short_id")
            }


def numbered(trial: Mapping[str, Any]) -> tuple[str, str]:
    """A trial's number and where its run is."""
    return str(trial["number"]), str(trial["run_state"])


def test_watched_sweeps_are_json_lines_until_ctrl_c(server: FakeServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Each sweep once at first, then those whose state or counts have changed."""
    answers = iter([BUSY, BUSY, {"schema": 1, "sweeps": [ACTIVE | {"elapsed_s": 300.0}, FINISHED | {"sweep_id": "ee" * 16}]}])

    def sweeps(*_: Any, **__: Any) -> Any:
        answer = next(answers, None)
        if answer is None:
            raise KeyboardInterrupt
        return answer

    monkeypatch.setattr("time.sleep", lambda _: None)
    monkeypatch.setattr("sweeps.client.Client.sweeps", sweeps)
    assert main(["ls", "--watch", "--json"]) == 130
    out, err = capsys.readouterr()
    assert [(line["schema"], line["sweep_id"][:2], line["state"]) for line in map(json.loads, out.splitlines())] == [
        (1, "cd", "active"),
        (1, "ee", "active"),
        (1, "ee", "finished"),
    ]
    assert err == "Watched no more; the sweeps go on.\n"


@pytest.mark.parametrize("arguments", [["trials"], ["ls", "--watch"], ["ls", "--watch", "--json"]])
def test_pipe_that_was_closed_ends_a_command_quietly(server: FakeServer, arguments: Sequence[str]) -> None:
    """`sweep trials | head -1`: no traceback, also in the middle of watching."""
    server.says("GET /sweeps/@latest/trials", BEST | {"trials": [trial_answer(number) for number in range(5000)]})
    sweeps = [[sweep_answer(sweep_id=f"{number:032x}", counts={"failed": failed}) for number in range(200)] for failed in range(20)]
    server.says("GET /sweeps", [{"schema": 1, "sweeps": page} for page in sweeps])
    process = subprocess.Popen(
        [sys.executable, "-m", "sweeps.cli", *arguments],
        env={**os.environ, "SWEEP_SERVER": server.url},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    with process:
        assert process.stdout.readline()
        process.stdout.close()
        told = process.stderr.read()
    assert (process.returncode, told) == (141, b"")
