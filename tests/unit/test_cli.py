"""The `sweep` command against a made-up server: what it prints where, and with which status it exits."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import StringIO
from pathlib import Path
from threading import Thread
from typing import Any

import click
import pytest

from sweeps.cli import MENU, VERBS, Menu, follow, main, steer, sweep
from sweeps.cli.follow import RIDE_OUT_S, looks
from sweeps.client import Client, Refused, ServerAway, ServerError
from tracking.errors import SweepError

DOCS = Path(__file__).parents[2] / "docs" / "commands.md"
HEAVY = "fastapi starlette uvicorn sqlalchemy alembic psycopg2 optuna rich httpx celery kombu docker yaml msgspec redis fsspec pydantic".split()
RUN_ID = "ab" * 16


def trial_answer(number: int = 3, **changes: Any) -> dict[str, Any]:
    """A trial as the API tells it."""
    return {
        "number": number,
        "run_id": RUN_ID,
        "state": "finished",
        "run_state": "finished",
        "cause": "completed",
        "detail": "",
        "value": 0.125,
        "params": {"lr": 0.01, "act": "re lu"},
        "attempts": 1,
        "generation": 0,
        "duration_s": 2.5,
        "worker": "w1",
        "created_at": "2026-01-02T03:04:05.000Z",
        "started_at": None,
        "ended_at": None,
    } | changes


def sweep_answer(**changes: Any) -> dict[str, Any]:
    """A sweep as the API tells it; `counts` given in part."""
    counts = dict.fromkeys("total open queued placed running finished failed pruned cancelled".split(), 0) | changes.pop("counts", {})
    return {
        "schema": 1,
        "sweep_id": "cd" * 16,
        "short_id": "brave-otter-7f3a",
        "name": "wine",
        "state": "active",
        "user_name": "kim",
        "method": "bayes",
        "metric": "rmse",
        "goal": "minimize",
        "trials_asked": 4,
        "parallel": 2,
        "queue": "default",
        "priority": 50,
        "counts": counts,
        "cause": None,
        "detail": None,
        "created_at": "2026-01-02T03:04:05.000Z",
        "started_at": None,
        "ended_at": None,
        "elapsed_s": 252.0,
        "eta_s": 180.0,
        "experiment_id": "1",
        "config": {},
        "best": None,
        "running": [],
        "models": [],
        "urls": {"api": "/api/v1/sweeps/" + "cd" * 16},
    } | changes


ACTIVE = sweep_answer(counts={"total": 2, "open": 1, "running": 1, "finished": 1}, best=trial_answer())
FINISHED = sweep_answer(state="finished", counts={"total": 4, "finished": 4}, best=trial_answer(), eta_s=None)
FRUITLESS = sweep_answer(state="failed", counts={"total": 4, "failed": 4}, eta_s=None)
CANCELLED = sweep_answer(state="cancelled", counts={"total": 4, "finished": 1, "cancelled": 3}, eta_s=None)
BEST = {
    "schema": 1,
    "sweep_id": "cd" * 16,
    "short_id": "brave-otter-7f3a",
    "name": "wine",
    "state": "active",
    "metric": "rmse",
    "goal": "minimize",
    "number": 3,
    "run_id": RUN_ID,
    "value": 0.125,
    "params": {"lr": 0.01, "act": "re lu"},
    "top": [trial_answer()],
}
WHY: dict[str, Any] = {
    "schema": 1,
    "subject": "sweep brave-otter-7f3a",
    "state": "active",
    "reasons": ["w1 serves queue 'gpu', but is draining.", "And more."],
    "waits": [],
    "story": [],
}
RUNNING = {"schema": 1, "run_id": RUN_ID, "kind": "managed", "name": "wine/3", "state": "running", "ended_at": None, "metrics": []}
NO_BEST = BEST | {"number": None, "run_id": None, "value": None, "params": {}, "top": []}


class FakeServer(ThreadingHTTPServer):
    """Answers what it was told to; lists what it was asked."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answers: dict[str, tuple[int, Any]] = {}
        self.asked: list[str] = []

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.server_port}"

    def says(self, request: str, answer: Any, status: int = 200) -> None:
        """Answer `METHOD /path` (under the prefix) from now on; a list is given out one by one, its last item again."""
        self.answers[request] = (status, answer)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FakeServer

    def _answer(self) -> None:
        self.rfile.read(int(self.headers.get("content-length", 0)))
        request = f"{self.command} {self.path.partition('?')[0].removeprefix('/api/v1')}"
        self.server.asked.append(request)
        missing = {"error_code": "RESOURCE_DOES_NOT_EXIST", "message": f"nothing at {request}", "hint": "look elsewhere"}
        status, answer = self.server.answers.get(request, (404, missing))
        if isinstance(answer, list):
            answer = answer.pop(0) if len(answer) > 1 else answer[0]
        body = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_GET = do_POST = do_HEAD = _answer  # noqa: N815 - the names that http.server calls

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeServer]:
    """A made-up server that SWEEP_SERVER names."""
    fake = FakeServer()
    thread = Thread(target=fake.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    monkeypatch.setenv("SWEEP_SERVER", fake.url)
    monkeypatch.setattr(Client, "retry_waits_s", ())
    yield fake
    fake.shutdown()
    fake.server_close()
    thread.join()


def commands(command: click.Command, words: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Every command below a group, by the words that name it."""
    if not isinstance(command, click.Group):
        yield words, command
        return
    context = click.Context(command)
    for name in command.list_commands(context):
        found = command.get_command(context, name)
        assert found is not None
        yield from commands(found, (*words, name))


ALL_COMMANDS = list(commands(sweep))


def fresh(code: str, **environ: str) -> str:
    """What a new interpreter prints."""
    env = {**os.environ, **environ}
    return subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("arguments", [["--help"], ["best"], ["trials", "--json"]])
def test_cli_imports_nothing_heavy(arguments: list[str], server: FakeServer) -> None:
    """The menu and the common reads stay within their milliseconds: no web framework, database or search library."""
    server.says("GET /sweeps/@latest/best", BEST)
    server.says("GET /sweeps/@latest/trials", BEST | {"trials": []})
    code = f"import sys; from sweeps.cli import main; status = main({arguments!r}); print(); print(status, *sys.modules)"
    status, *modules = fresh(code, SWEEP_SERVER=server.url).splitlines()[-1].split()
    assert status == "0"
    assert "sweeps.cli" in modules
    assert [name for name in HEAVY if name in modules] == []


@pytest.mark.parametrize("name", VERBS)
def test_cli_menu_says_what_the_command_says(name: str) -> None:
    """A line of the menu is the first sentence of the command's own help."""
    command = Menu().get_command(click.Context(sweep), name)
    assert command is not None
    assert command.name == name
    assert command.get_short_help_str(limit=200) == VERBS[name].summary


@pytest.mark.parametrize("words", [" ".join(words) for words, _ in ALL_COMMANDS])
def test_docs_tell_every_command(words: str) -> None:
    """docs/commands.md has a row for each command and names each of its options."""
    command = dict(ALL_COMMANDS)[tuple(words.split())]
    shown = "worker [start]" if words == "worker start" else words
    rows = [line for line in DOCS.read_text(encoding="utf-8").splitlines() if line.startswith((f"| `sweep {shown} ", f"| `sweep {shown}`"))]
    assert len(rows) == 1
    text = DOCS.read_text(encoding="utf-8")
    options = [option for parameter in command.params if isinstance(parameter, click.Option) for option in parameter.opts]
    own = rows[0] if words not in ("validate", "submit", "run") else text
    assert [option for option in options if option.startswith("--") and option not in own and option not in {"--json", "--quiet"}] == []


def test_docs_tell_every_exit_status() -> None:
    """Every status that an error or a verb exits with is in the table."""
    statuses = {1, 2, follow.EXIT_NO_SUCCESS, follow.EXIT_TIMED_OUT, follow.EXIT_INTERRUPTED, 141}
    pending = [SweepError]
    while pending:
        kind = pending.pop()
        statuses.add(kind.exit_status)
        pending += kind.__subclasses__()
    text = DOCS.read_text(encoding="utf-8")
    assert [status for status in statuses if f"\n| {status} |" not in text] == []


def test_cli_menu_has_the_verbs_of_the_product() -> None:
    """No verb was lost."""
    expected = (
        "init validate submit run ls status trials best show logs metrics why pause resume stop cancel wait register models "
        "up down server scheduler worker queue flower db doctor version"
    )
    assert set(expected.split()) == set(VERBS)
    assert sum(map(len, MENU.values())) == len(VERBS)


@pytest.mark.parametrize(
    ("code", "status", "expected"),
    [
        ("RESOURCE_DOES_NOT_EXIST", 404, 3),
        ("ENDPOINT_NOT_FOUND", 404, 3),
        ("INVALID_PARAMETER_VALUE", 400, 2),
        ("RESOURCE_CONFLICT", 409, 1),
        ("INTERNAL_ERROR", 500, 1),
        ("UNAUTHENTICATED", 401, 5),
        ("PERMISSION_DENIED", 403, 5),
        ("NO_BEST_TRIAL", 409, 6),
        ("TEMPORARILY_UNAVAILABLE", 503, 4),
    ],
)
def test_cli_exits_by_the_servers_error(server: FakeServer, capsys: pytest.CaptureFixture[str], code: str, status: int, expected: int) -> None:
    """Each kind of refusal has its exit status; message and hint go to standard error, nothing to standard output."""
    server.says("GET /sweeps/x", {"error_code": code, "message": "No.", "hint": "Try y."}, status)
    assert main(["status", "x"]) == expected
    assert capsys.readouterr() == ("", "error: No.\nhint: Try y.\n")


def test_cli_exits_4_when_nobody_answers(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A server that can't be reached is told with its address."""
    monkeypatch.setenv("SWEEP_SERVER", "http://127.0.0.1:9")
    monkeypatch.setattr(Client, "retry_waits_s", ())
    assert main(["ls"]) == 4
    assert "http://127.0.0.1:9 can't be reached" in capsys.readouterr().err


def test_cli_says_so_when_something_else_answers(server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    """JSON of another schema is not taken for ours."""
    server.says("GET /sweeps", {"sweeps": []})
    assert main(["ls"]) == 1
    assert "speaks schema None" in capsys.readouterr().err


def test_cli_suggests_the_verb_that_was_meant(capsys: pytest.CaptureFixture[str]) -> None:
    """A mistyped verb is wrong usage, answered with the likeliest."""
    assert main(["stats"]) == 2
    assert "Did you mean 'status'?" in capsys.readouterr().err


def test_cli_exits_130_when_interrupted(server: FakeServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Ctrl-C ends a command without a traceback."""

    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Client, "sweeps", interrupted)
    assert main(["ls"]) == 130
    assert "Traceback" not in capsys.readouterr().err


def test_cli_ends_quietly_when_its_reader_has_gone(server: FakeServer) -> None:
    """`sweep trials | head` prints no traceback."""
    server.says("GET /sweeps/@latest/trials", BEST | {"trials": [trial_answer(n) for n in range(5000)]})
    environ = {**os.environ, "SWEEP_SERVER": server.url}
    read_end, write_end = os.pipe()
    os.close(read_end)
    done = subprocess.run([sys.executable, "-m", "sweeps.cli", "trials"], env=environ, stdout=write_end, stderr=subprocess.PIPE, text=True, check=False)
    os.close(write_end)
    assert (done.returncode, done.stderr) == (141, "")


def test_cli_best_json_is_stable(server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    """`best --json` gives what scripts rely on."""
    server.says("GET /sweeps/wine/best", BEST)
    assert main(["best", "wine", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    wanted = "schema sweep_id number run_id metric goal value params".split()
    assert {key: answer[key] for key in wanted} == {key: BEST[key] for key in wanted}


def test_cli_trials_json_is_stable(server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    """`trials --json` gives what scripts rely on."""
    server.says("GET /sweeps/@latest/trials", BEST | {"trials": [trial_answer()]})
    assert main(["trials", "--json"]) == 0
    trial = json.loads(capsys.readouterr().out)["trials"][0]
    assert {"number", "run_id", "state", "run_state", "cause", "value", "params", "attempts", "duration_s"} <= trial.keys()


@pytest.mark.parametrize(("form", "expected"), [("args", "--lr=0.01 '--act=re lu'\n"), ("env", "LR=0.01\nACT='re lu'\n")])
def test_cli_best_prints_parameters_for_shells(server: FakeServer, capsys: pytest.CaptureFixture[str], form: str, expected: str) -> None:
    """The winner's parameters can be pasted into a command line."""
    server.says("GET /sweeps/@latest/best", BEST)
    assert main(["best", "--format", form]) == 0
    assert capsys.readouterr().out == expected


def test_cli_best_exits_6_without_a_best(server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    """No finished trial yet is an answer, not an error; the status tells."""
    server.says("GET /sweeps/@latest/best", NO_BEST)
    assert main(["best", "--json"]) == 6
    assert json.loads(capsys.readouterr().out)["number"] is None


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"state": "active"}, "has no finished trial with a value yet."),
        ({"state": "finished"}, "has ended without a finished trial that has a value."),
        ({"state": "finished", "metric": None}, "has no metric to be best by."),
    ],
)
def test_cli_best_says_whether_there_may_be_one_yet(server: FakeServer, capsys: pytest.CaptureFixture[str], changes: dict[str, Any], told: str) -> None:
    """Nobody waits for what never comes."""
    server.says("GET /sweeps/@latest/best", NO_BEST | changes)
    assert main(["best"]) == 6
    assert told in capsys.readouterr().err


def test_cli_best_refuses_parameters_that_would_be_one_variable(server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    """Both are named; formats that keep names still work."""
    server.says("GET /sweeps/@latest/best", BEST | {"top": [trial_answer(params={"lernräte": 1, "lernr.te": 2})]})
    assert main(["best", "--format", "env"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "'lernräte' and 'lernr.te' would both be the variable LERNR_TE" in err
    assert main(["best", "--format", "args"]) == 0


def test_cli_metrics_says_which_there_are(server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    """A key that was never logged is not found, with --json too."""
    server.says("GET /runs/wine/3", RUNNING | {"metrics": [{"key": "loss"}, {"key": "acc"}]})
    server.says(f"GET /runs/{RUN_ID}/metrics", {"schema": 1, "run_id": RUN_ID, "key": "nope", "metrics": [], "next_page_token": ""})
    for more in ([], ["--json"]):
        assert main(["metrics", "wine/3", "--key", "nope", *more]) == 3
        assert capsys.readouterr() == ("", "error: The run has no metric 'nope': it has logged 'loss' and 'acc'.\n")


def test_cli_rows_are_tab_separated_off_a_terminal(server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    """No headings, no colour, no cutting, and no control characters of the user's."""
    trial = trial_answer(params={"text": "a\x1b[31m\tb" + "x" * 300}, value=1 / 3)
    server.says("GET /sweeps/@latest/trials", BEST | {"trials": [trial]})
    assert main(["trials"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert line.split("\t")[:6] == ["3", "finished", repr(1 / 3), "2s", "1", "-"]
    assert line.endswith("x" * 300)
    assert "\x1b" not in line


def test_cli_trials_puts_pages_together(server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    """A sweep with more trials than one answer carries is listed whole."""
    pages = [BEST | {"trials": [trial_answer(0)], "next_offset": 1}, BEST | {"trials": [trial_answer(1)], "next_offset": None}]
    server.says("GET /sweeps/@latest/trials", pages)
    assert main(["trials", "--json"]) == 0
    assert [trial["number"] for trial in json.loads(capsys.readouterr().out)["trials"]] == [0, 1]


@pytest.mark.parametrize(("status", "kind"), [(503, ServerAway), (403, Refused), (500, ServerError)])
def test_client_takes_only_an_answer_for_an_answer(server: FakeServer, status: int, kind: type[ServerError]) -> None:
    """A server that can't say whether it has a snapshot has not said yes: the code would never be uploaded."""
    with Client(server.url) as client:
        assert not client.has_snapshot("0" * 64)
        server.says(f"HEAD /snapshots/{'0' * 64}", {}, 200)
        assert client.has_snapshot("0" * 64)
        server.says(f"HEAD /snapshots/{'0' * 64}", {}, status)
        with pytest.raises(kind, match=f"status {status}"):
            client.has_snapshot("0" * 64)


@pytest.mark.parametrize(("limits", "told"), [("", True), ("run_cap: 5\n", False), ("limits: {time: 1h}\n", False)])
def test_cli_submit_says_when_nothing_ends_a_sweep(
    server: FakeServer, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, limits: str, told: bool
) -> None:
    """Random search without a cap goes on for ever; whoever submits it hears of that."""
    monkeypatch.setattr(Client, "has_snapshot", lambda *_: True)
    (tmp_path / "train.py").touch()
    (tmp_path / "sweep.yaml").write_text(f"program: train.py\nmethod: random\nparameters: {{x: {{min: 0.0, max: 1.0}}}}\n{limits}")
    server.says("POST /sweeps", ACTIVE)
    assert main(["submit", str(tmp_path)]) == 0
    assert ("runs until you stop it" in capsys.readouterr().err) is told


@pytest.mark.parametrize(
    ("arguments", "told"), [((), "neither a sweep.yaml nor an MLproject"), (("-P", "x=1", "--parallel", "1"), "neither"), (("-P", "x"), "NAME=VALUE")]
)
def test_cli_says_what_a_folder_lacks(tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], told: str) -> None:
    """A folder is run by its sweep file, or else by its MLproject with parameters."""
    if arguments == ("-P", "x"):
        (tmp_path / "MLproject").write_text("entry_points: {main: {command: 'true'}}\n")
    assert main(["validate", str(tmp_path), *arguments]) == 2
    assert told in capsys.readouterr().err


@pytest.mark.parametrize("verb", ["validate", "submit", "run"])
def test_cli_refuses_an_empty_file_name(capsys: pytest.CaptureFixture[str], verb: str) -> None:
    """An unset variable of a shell is no name of the current folder."""
    assert main([verb, ""]) == 2
    assert "The name is empty" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["-P", "n=1", "-P", "n=2"], "'n' is given twice"),
        (["--trials", "3"], "--trials 3: a folder without a sweep file is one run"),
    ],
)
def test_cli_refuses_to_search_without_a_sweep_file(tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], told: str) -> None:
    """A bare MLproject is one run; nothing that was asked for is dropped without a word."""
    (tmp_path / "MLproject").write_text("entry_points:\n  main:\n    parameters: {n: {type: int, default: 1}}\n    command: python train.py {n}\n")
    assert main(["validate", str(tmp_path), *arguments]) == 2
    assert told in capsys.readouterr().err
    assert main(["validate", str(tmp_path), "-P", "n=1", "--trials", "1"]) == 0


def test_cli_takes_parameters_for_folders_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A sweep file says itself what its parameters are; ignoring -P would mislead."""
    assert main(["init", str(tmp_path)]) == 0
    assert main(["validate", str(tmp_path), "-P", "x=1"]) == 2
    assert "-P belongs to a folder without a sweep file" in capsys.readouterr().err


def test_cli_quiet_leaves_data_only(server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    """`-q` silences hints."""
    server.says("GET /sweeps", {"schema": 1, "sweeps": []})
    assert main(["ls"]) == 0
    assert capsys.readouterr().err != ""
    assert main(["-q", "ls"]) == 0
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    "arguments", [["ls", "-q"], ["ls", "--quiet"], ["-q", "ls", "-q"], ["worker", "ls", "-q"], ["worker", "-q", "ls"], ["models", "ls", "-q"]]
)
def test_cli_takes_quiet_after_the_verb(server: FakeServer, capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    """Where people type it."""
    server.says("GET /sweeps", {"schema": 1, "sweeps": []})
    server.says("GET /workers", {"schema": 1, "workers": []})
    server.says("GET /models", {"schema": 1, "models": []})
    assert main(arguments) == 0
    assert capsys.readouterr() == ("", "")


def test_cli_asks_nothing_about_a_worker_that_is_not_there(server: FakeServer, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A yes would not help."""
    monkeypatch.setattr("sys.stdin", StringIO())
    server.says("GET /workers", {"schema": 1, "workers": [{"name": "w1", "worker_id": RUN_ID}]})
    assert main(["worker", "drain", "nobody"]) == 3
    assert "There is no worker 'nobody'." in capsys.readouterr().err
    assert main(["worker", "drain", "w1"]) == 2
    assert "--yes" in capsys.readouterr().err


def test_cli_asks_before_it_cancels(server: FakeServer, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a terminal and without --yes nothing is changed."""
    monkeypatch.setattr("sys.stdin", StringIO())
    server.says("GET /sweeps/wine", ACTIVE)
    assert main(["cancel", "wine"]) == 2
    assert "--yes" in capsys.readouterr().err
    assert server.asked == ["GET /sweeps/wine"]


def test_cli_cancels_by_id_what_was_named(server: FakeServer) -> None:
    """What `@latest` means is decided once, before the question."""
    server.says("GET /sweeps/@latest", ACTIVE)
    server.says(f"POST /sweeps/{ACTIVE['sweep_id']}/cancel", CANCELLED)
    assert main(["cancel", "@latest", "--yes"]) == 0
    assert server.asked[-1] == f"POST /sweeps/{ACTIVE['sweep_id']}/cancel"


@pytest.mark.parametrize("verb", ["cancel", "stop"])
def test_cli_leaves_alone_what_has_ended(server: FakeServer, capsys: pytest.CaptureFixture[str], verb: str) -> None:
    """Ending what has ended changes nothing and says so."""
    server.says("GET /sweeps/wine", FINISHED)
    assert main([verb, "wine"]) == 0
    assert "already ended: finished" in capsys.readouterr().err
    assert [request for request in server.asked if request.startswith("POST")] == []


@pytest.mark.parametrize(("answers", "expected"), [([ACTIVE, FINISHED], 0), ([ACTIVE, FRUITLESS], 6), ([CANCELLED], 1)])
def test_cli_wait_exits_by_how_it_ended(server: FakeServer, monkeypatch: pytest.MonkeyPatch, answers: list[Any], expected: int) -> None:
    """0 for a success, 6 for none, 1 for a sweep that was cancelled."""
    monkeypatch.setattr("time.sleep", lambda _: None)
    server.says("GET /sweeps/@latest", answers[0])
    server.says(f"GET /sweeps/{ACTIVE['sweep_id']}", list(answers))
    assert main(["wait"]) == expected


@pytest.mark.parametrize("state", ["finished", "failed", "cancelled"])
@pytest.mark.parametrize("finished", [0, 1])
def test_exit_status_puts_the_missing_success_first(state: str, finished: int) -> None:
    """Whatever a sweep ended as, 6 means that no trial succeeded; 1 that it failed or was cancelled although one did."""
    ended: Any = sweep_answer(state=state, counts={"finished": finished})
    assert follow.exit_status(ended) == (6 if not finished else 0 if state == "finished" else 1)


def test_cli_wait_gives_up_in_time(server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    """`--timeout` ends with 124 while the sweep goes on."""
    server.says("GET /sweeps/@latest", ACTIVE)
    server.says(f"GET /sweeps/{ACTIVE['sweep_id']}", ACTIVE)
    assert main(["wait", "--timeout", "0", "--json"]) == 124
    assert json.loads(capsys.readouterr().out)["state"] == "active"


def test_cli_wait_for_first_success(server: FakeServer) -> None:
    """One finished trial is enough."""
    server.says("GET /sweeps/@latest", ACTIVE)
    server.says(f"GET /sweeps/{ACTIVE['sweep_id']}", ACTIVE)
    assert main(["wait", "--for", "first-success"]) == 0


def test_cli_watch_prints_a_line_at_each_change_and_the_end(server: FakeServer, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Off a terminal: changes on standard error, never twice the same; the ending on standard output."""
    monkeypatch.setattr("time.sleep", lambda _: None)
    monkeypatch.setattr(follow, "LINE_EVERY_S", 0.0)
    monkeypatch.setattr(looks, "__kwdefaults__", {**(looks.__kwdefaults__ or {}), "pause": lambda _: None})
    server.says("GET /sweeps/@latest", ACTIVE)
    server.says(f"GET /sweeps/{ACTIVE['sweep_id']}", [ACTIVE, ACTIVE, FINISHED])
    assert main(["status", "--watch"]) == 0
    out, err = capsys.readouterr()
    assert [line.split("  ")[1] for line in err.splitlines()[:2]] == ["active", "finished"]
    assert "best rmse 0.125  trial 3" in out
    assert "sweep register brave-otter-7f3a --model NAME" in err
    assert "register" not in out


def test_cli_watch_json_is_one_object_a_line(server: FakeServer, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """`--watch --json` can be read line by line."""
    monkeypatch.setattr(looks, "__kwdefaults__", {**(looks.__kwdefaults__ or {}), "pause": lambda _: None})
    server.says("GET /sweeps/@latest", ACTIVE)
    server.says(f"GET /sweeps/{ACTIVE['sweep_id']}", [ACTIVE, ACTIVE, FINISHED])
    assert main(["status", "--watch", "--json"]) == 0
    assert [json.loads(line)["state"] for line in capsys.readouterr().out.splitlines()] == ["active", "finished"]


def test_cli_watch_detaches_on_ctrl_c(server: FakeServer, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C leaves the sweep alone, says so, and exits with 130."""

    def interrupted(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(looks, "__kwdefaults__", {**(looks.__kwdefaults__ or {}), "pause": interrupted})
    server.says("GET /sweeps/@latest", ACTIVE)
    server.says(f"GET /sweeps/{ACTIVE['sweep_id']}", ACTIVE)
    assert main(["status", "--watch"]) == 130
    assert "detached; the sweep goes on" in capsys.readouterr().err
    assert all(request.startswith("GET") for request in server.asked)


def test_following_rides_out_a_server_that_is_away() -> None:
    """A restart of the server costs a line, not the follower; an absence without end is told."""
    now = 0.0
    away = ServerAway("Away.")

    def pause(_: float) -> None:
        nonlocal now
        now += RIDE_OUT_S / 2

    def look(script: Iterator[Any]) -> Any:
        item = next(script)
        if isinstance(item, Exception):
            raise item
        return item

    script = iter([ACTIVE, away, away, FINISHED])
    assert [seen["state"] for seen in looks(lambda: look(script), pause=pause, clock=lambda: now)] == ["active", "finished"]
    for_ever = iter([ACTIVE, *[away] * 9])
    with pytest.raises(ServerAway):
        list(looks(lambda: look(for_ever), pause=pause, clock=lambda: now))


def test_cli_logs_keeps_the_streams_apart(server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    """Each stream of the run goes to its own; `--stream` sends one to standard output."""
    server.says("GET /runs/wine/3", {"schema": 1, "run_id": RUN_ID, "kind": "managed", "state": "finished", "ended_at": "x"})
    page = {"schema": 1, "run_id": RUN_ID, "attempt": 1, "stream": "", "is_complete": True}
    pages = [page | {"text": text, "next_offset": offset} for text, offset in (("one\ntwo\n", 8), ("", 8), ("bad\n", 4), ("", 4))]
    server.says(f"GET /runs/{RUN_ID}/logs", pages)
    assert main(["logs", "wine/3", "--tail", "1"]) == 0
    assert capsys.readouterr() == ("two\n", "bad\n")
    server.says(f"GET /runs/{RUN_ID}/logs", [page | {"text": "bad\n", "next_offset": 4}, page | {"text": "", "next_offset": 4}])
    assert main(["logs", "wine/3", "--stream", "stderr"]) == 0
    assert capsys.readouterr() == ("bad\n", "")


def test_cli_register_names_a_run_when_no_sweep_is_called_so(server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    """A run id works where a sweep's name does."""
    server.says(f"GET /runs/{RUN_ID}", {"schema": 1, "run_id": RUN_ID})
    version = {"name": "m", "version": 2, "aliases": ["champion"], "trial_number": 3, "metric": "rmse", "value": 0.125, "size_bytes": None}
    version |= {"run_id": RUN_ID, "source": f"runs:/{RUN_ID}/model"}
    server.says("POST /models", version | {"schema": 1})
    server.says("GET /models/m", {"schema": 1, "name": "m", "versions": [version, version | {"version": 1}]})
    assert main(["register", RUN_ID, "--model", "m", "--alias", "champion"]) == 0
    out, err = capsys.readouterr()
    assert out == "Registered m v2 (alias champion) from trial 3, rmse 0.125, without an artifact\n"
    assert "Version 1 of m is of the same run and artifact" in err


@pytest.mark.parametrize("more", [[], ["--json"]])
def test_cli_register_says_that_there_is_no_artifact(server: FakeServer, capsys: pytest.CaptureFixture[str], more: list[str]) -> None:
    """With --quiet too: such a version can't be loaded."""
    server.says(f"GET /sweeps/{RUN_ID}", ACTIVE)
    version = {"name": "m", "version": 1, "aliases": [], "trial_number": 3, "metric": None, "value": None, "size_bytes": None, "run_id": RUN_ID, "source": ""}
    server.says("POST /models", version | {"schema": 1})
    assert main(["-q", "register", RUN_ID, "--model", "m", *more]) == 0
    assert capsys.readouterr().err == "warning: The run logged no artifact 'model': the version holds parameters and lineage only.\n"


@pytest.mark.parametrize(
    ("ref", "there", "posted"),
    [
        ("ml/flow", ["GET /sweeps/ml%2Fflow"], {"sweep": ACTIVE["sweep_id"]}),
        ("ml/3", ["GET /runs/ml/3", "GET /sweeps/ml%2F3"], {"run": RUN_ID}),
        ("ml/3", ["GET /sweeps/ml%2F3"], {"sweep": ACTIVE["sweep_id"]}),
    ],
)
def test_cli_register_knows_a_trial_from_a_name_with_slashes(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch, ref: str, there: list[str], posted: Any
) -> None:
    """SWEEP/NUMBER is a run first, anything else a sweep first."""
    for request in there:
        server.says(request, ACTIVE if "sweeps" in request else RUNNING)
    asked: list[dict[str, Any]] = []

    def register(_: Client, body: dict[str, Any]) -> dict[str, Any]:
        asked.append(body)
        raise Refused("seen enough")

    monkeypatch.setattr(Client, "register", register)
    assert main(["register", ref, "--model", "m"]) == 5
    assert asked[0].items() >= posted.items()


def test_cli_why_prints_reasons_and_the_story(server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    """One sentence a line; the story by the day, with the time of each."""
    answer = {
        **WHY,
        "subject": "trial wine/3",
        "state": "queued",
        "reasons": ["No worker is here."],
        "story": [
            {"at": "2026-01-02T23:59:58.500Z", "text": "Trial 3 was proposed."},
            {"at": "2026-01-02T23:59:59.000Z", "text": "Placed on w1."},
            {"at": "2026-01-03T00:00:01.000Z", "text": "Taken back\x1b[31m from w1."},
        ],
    }
    server.says("GET /why/wine/3", answer)
    assert main(["why", "wine/3"]) == 0
    assert capsys.readouterr().out == (
        "trial wine/3 is queued.\n  No worker is here.\nstory\n  2026-01-02\n  23:59:58  Trial 3 was proposed.\n  23:59:59  Placed on w1.\n"
        "  2026-01-03\n  00:00:01  Taken back [31m from w1.\n"
    )
    assert main(["why", "wine/3", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == answer


def test_cli_queue_names_what_nobody_serves(server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    """A queue without a worker is told with what to type."""
    server.says("GET /sweeps", {"schema": 1, "sweeps": [sweep_answer(queue="gpu", counts={"total": 3, "open": 3, "queued": 3})]})
    server.says("GET /workers", {"schema": 1, "workers": []})
    server.says(f"GET /why/{ACTIVE['sweep_id']}", WHY)
    assert main(["queue", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)["queues"]
    assert (row["queue"], row["note"]) == ("gpu", WHY["reasons"][0])


def test_cli_validate_tells_problems_with_their_places(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The sweep file's own error lines are printed as they are; the status is 2."""
    monkeypatch.chdir(tmp_path)
    Path("train.py").write_text("")
    Path("sweep.yaml").write_text("program: train.py\nmethod: grid\nparameters:\n  lr: {distribution: loguniform, min: 1, max: 2}\n")
    assert main(["validate", "sweep.yaml"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("sweep.yaml:4:")
    assert err.endswith("Nothing was submitted.\n")
    assert main(["validate", "sweep.yaml", "--json"]) == 2
    answer = json.loads(capsys.readouterr().out)
    assert (answer["valid"], answer["errors"][0]["line"]) == (False, 4)


@pytest.mark.parametrize(
    ("retry", "told"),
    [
        ("{max: 0}", []),
        (
            "{max: 2, on: [lost, exit_75], delay: 10s}",
            [
                "retry: up to 2 more attempts after exit_75; waits 10s, doubling up to 1m00s; faults of the machinery have a budget of their own",
                "at worst: 12h00m with 1 at a time, 3 attempts each",
            ],
        ),
        (
            "{max: 1, on: [lost]}",
            [
                "retry: no failure of your code; 'on' names faults of the machinery only, which have a budget of their own",
                "at worst: 4h00m with 1 at a time",
            ],
        ),
    ],
)
def test_cli_validate_tells_what_a_retry_comes_to(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, retry: str, told: list[str]
) -> None:
    """How many attempts after what, how long between them, and what all that may take."""
    monkeypatch.chdir(tmp_path)
    Path("train.py").write_text("")
    Path("sweep.yaml").write_text(f"program: train.py\nmethod: grid\nparameters: {{x: {{values: [1, 2, 3, 4]}}}}\nlimits: {{trial_time: 1h}}\nretry: {retry}\n")
    assert main(["validate", "sweep.yaml"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line.startswith(("retry", "at worst"))] == (told or ["at worst: 4h00m with 1 at a time"])
    assert main(["validate", "sweep.yaml", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["attempts_max"] == (3 if "exit_75" in retry else 1)


@pytest.mark.parametrize("origin", [(), ("--from", "wandb")])
def test_cli_init_writes_a_file_that_is_valid(tmp_path: Path, capsys: pytest.CaptureFixture[str], origin: tuple[str, ...]) -> None:
    """What `init` writes passes `validate`, names the script, and is not overwritten."""
    (tmp_path / "train.py").write_text("")
    assert main(["init", str(tmp_path), *origin]) == 0
    assert main(["validate", str(tmp_path), "--json"]) == 0
    plan = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert "train.py" in plan["commands"][0]
    assert (plan["trials"], len(plan["commands"])) == (20, 3)
    assert main(["init", str(tmp_path)]) == 2


def test_cli_init_begins_with_the_mlproject(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Parameters of the entry point become the search space, around their defaults."""
    (tmp_path / "MLproject").write_text(
        "name: p\nentry_points:\n  main:\n    parameters:\n      lr: {type: float, default: 0.1}\n      mode: {type: string, default: fast}\n"
        "    command: python train.py --lr {lr} --mode {mode}\n"
    )
    assert main(["init", str(tmp_path)]) == 0
    assert main(["validate", str(tmp_path), "--json"]) == 0
    plan = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert [(p["name"], p["distribution"]) for p in plan["parameters"]] == [("lr", "log_uniform_values"), ("mode", "constant")]


def test_cli_init_says_so_without_an_mlproject(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`--from mlproject` insists."""
    assert main(["init", str(tmp_path), "--from", "mlproject"]) == 2
    assert "has no MLproject" in capsys.readouterr().err


def test_cli_server_refuses_the_network_without_open(capsys: pytest.CaptureFixture[str]) -> None:
    """Until there are users, an address others can reach must be asked for."""
    assert main(["server", "--host", "0.0.0.0"]) == 2
    assert "--open" in capsys.readouterr().err


def test_cli_cancels_a_run_by_its_number(server: FakeServer) -> None:
    """`SWEEP/NUMBER` means one run, not the sweep."""
    server.says("GET /runs/wine/3", RUNNING)
    server.says(f"POST /runs/{RUN_ID}/cancel", {"schema": 1, "run_id": RUN_ID, "state": "running", "ended_at": None})
    assert main(["cancel", "wine/3", "-y"]) == 0
    assert server.asked[-1] == f"POST /runs/{RUN_ID}/cancel"
    assert {"finished", "failed", "cancelled"} == steer.FINAL_STATES


@pytest.mark.parametrize("ref", ["ml/flow", "ml/3"])
def test_cli_cancels_a_sweep_whose_name_has_slashes(server: FakeServer, ref: str) -> None:
    """Also one that looks like SWEEP/NUMBER, if there is no such trial."""
    server.says(f"GET /sweeps/{ref.replace('/', '%2F')}", ACTIVE)
    server.says(f"POST /sweeps/{ACTIVE['sweep_id']}/cancel", CANCELLED)
    assert main(["cancel", ref, "--yes"]) == 0
    assert server.asked[-1] == f"POST /sweeps/{ACTIVE['sweep_id']}/cancel"


def test_cli_cancel_tells_of_the_trial_that_is_not_there(server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    """Not of a sweep that nobody meant."""
    assert main(["cancel", "wine/99", "--yes"]) == 3
    assert "nothing at GET /runs/wine/99" in capsys.readouterr().err


@pytest.mark.parametrize(("kind", "asked"), [("managed", f"POST /runs/{RUN_ID}/cancel"), ("sweep", f"POST /sweeps/{RUN_ID}/cancel")])
def test_cli_cancels_what_a_whole_id_names(server: FakeServer, kind: str, asked: str) -> None:
    """A sweep is a run too, and is cancelled as a sweep."""
    server.says(f"GET /runs/{RUN_ID}", RUNNING | {"kind": kind})
    server.says(f"GET /sweeps/{RUN_ID}", ACTIVE | {"sweep_id": RUN_ID})
    server.says(f"POST /runs/{RUN_ID}/cancel", RUNNING)
    server.says(f"POST /sweeps/{RUN_ID}/cancel", CANCELLED)
    assert main(["cancel", RUN_ID, "--yes"]) == 0
    assert server.asked[-1] == asked


WAITS = sweep_answer(counts={"total": 1, "open": 1, "queued": 1})


@pytest.mark.parametrize("arguments", [["status"], ["status", "--watch"]])
def test_cli_status_says_why_nothing_runs(
    server: FakeServer, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    """Trials that wait while none runs are told with the first reason of `sweep why`."""
    monkeypatch.setattr(looks, "__kwdefaults__", {**(looks.__kwdefaults__ or {}), "pause": lambda _: None})
    server.says("GET /sweeps/@latest", WAITS)
    server.says(f"GET /sweeps/{WAITS['sweep_id']}", [WAITS, FINISHED])
    server.says(f"GET /why/{WAITS['sweep_id']}", WHY)
    assert main(arguments) == 0
    assert "waits: w1 serves queue 'gpu', but is draining." in "".join(capsys.readouterr())


def test_following_speaks_of_what_passes_only_when_it_stays(server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """That trials are about to be placed is no news at once; what does not pass by itself is; trials that run begin it anew."""
    placing = WHY | {"waits": [{"wait": "placing", "text": WHY["reasons"][0], "until": None}]}
    lasting = WHY | {"waits": [{"wait": "worker", "text": WHY["reasons"][0], "until": None}]}
    clock = [0.0]
    with Client(server.url) as client:
        explain = follow._Patience(partial(follow.waiting_notes, client), lambda: clock[0])

        def told(sweep: Any, answer: Any, at: float) -> bool:
            server.says(f"GET /why/{WAITS['sweep_id']}", answer)
            clock[0] = at
            return bool(explain(sweep))

        assert not told(WAITS, placing, 100.0)
        assert told(WAITS, lasting, 100.1)
        assert not told(WAITS, placing, 100.0 + follow.NOTE_AFTER_S - 0.1)
        assert told(WAITS, placing, 100.0 + follow.NOTE_AFTER_S)
        assert not told(ACTIVE, placing, 110.0)
        assert not told(WAITS, placing, 111.0)


def test_live_table_leaves_nothing_behind_when_the_server_was_away(server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is said of an absence stands in the table, so that each drawing begins where the one before began."""
    from rich.console import Console

    screen = StringIO()
    console = Console(file=screen, force_terminal=True, width=100, height=30, highlight=False)
    script: list[Any] = [ACTIVE, ServerAway("The server is away."), ACTIVE, FINISHED]

    def look() -> Any:
        item = script.pop(0)
        if isinstance(item, Exception):
            raise item
        return item

    monkeypatch.setattr(looks, "__kwdefaults__", {**(looks.__kwdefaults__ or {}), "pause": lambda _: None})
    assert follow._follow_live(look, lambda _: [], console)["state"] == "finished"
    assert "The server is away. Trying again" in screen.getvalue()
    assert shown_lines(screen.getvalue()) == []


def shown_lines(written: str) -> list[str]:
    """What a terminal shows after this was written, by the few sequences that a live table uses."""
    lines: dict[int, str] = {}
    row = 0
    for piece in re.split(r"(\x1b\[[0-9;?]*[A-Za-z]|\r|\n)", written):
        if piece == "\n":
            row += 1
        elif piece == "\x1b[1A":
            row -= 1
        elif piece == "\x1b[2K":
            lines[row] = ""
        elif piece and not piece.startswith("\x1b") and piece != "\r":
            lines[row] = lines.get(row, "") + piece
    return [line for line in lines.values() if line]


def test_cli_submit_prints_one_line_of_data(server: FakeServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The id is data, the commands worth typing are hints, and `-q` silences those."""
    (tmp_path / "train.py").write_text("")
    (tmp_path / "sweep.yaml").write_text("program: train.py\nmethod: grid\nparameters: {x: {values: [1]}}\n")
    server.says("POST /sweeps", ACTIVE, 201)
    server.answers |= {f"{method} /snapshots/{digest}": (200, {"schema": 1}) for method, digest in [("HEAD", digest_of(tmp_path))]}
    assert main(["submit", str(tmp_path)]) == 0
    out, err = capsys.readouterr()
    assert out == "Submitted wine (brave-otter-7f3a): bayes, minimize rmse, 4 trials, 2 at a time, queue default\n"
    assert "sweep cancel brave-otter-7f3a" in err
    assert main(["-q", "submit", str(tmp_path)]) == 0
    assert capsys.readouterr() == (out, "")


def digest_of(folder: Path) -> str:
    """The digest of a folder's snapshot."""
    from tracking.snapshots import pack

    snapshot = pack(folder, max_bytes=2**20)
    snapshot.archive.unlink()
    return snapshot.digest


@pytest.mark.parametrize("arguments", [["version"], ["best", "--json"], ["--help"]])
def test_cli_tells_that_its_output_can_not_be_written(server: FakeServer, arguments: list[str]) -> None:
    """A full disk is an error with a sentence and exit status 1, not a traceback."""
    server.says("GET /sweeps/@latest/best", BEST)
    environ = {**os.environ, "SWEEP_SERVER": server.url}
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([sys.executable, "-m", "sweeps.cli", *arguments], env=environ, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "error: No space left on device.\n")


def test_cli_runs_without_standard_output(server: FakeServer) -> None:
    """`>&-` is no reason for a traceback."""
    server.says("GET /sweeps", {"schema": 1, "sweeps": [ACTIVE]})
    environ = {**os.environ, "SWEEP_SERVER": server.url}
    done = subprocess.run(["/bin/sh", "-c", f"{sys.executable} -m sweeps.cli ls >&-"], env=environ, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(("place", "on_path", "expected"), [("venv", "", "venv/bin/sweep"), ("venv", "venv", "sweep"), ("my venv", "", "'my venv/bin/sweep'")])
def test_cli_hints_can_be_typed_as_they_stand(tmp_path: Path, server: FakeServer, place: str, on_path: str, expected: str) -> None:
    """Where `sweep` on the PATH is not this program, hints name the path that is."""
    script = tmp_path / place / "bin" / "sweep"
    script.parent.mkdir(parents=True)
    script.write_text(f"#!{sys.executable}\nimport sys\nfrom sweeps.cli import main\nsys.exit(main())\n")
    script.chmod(0o755)
    server.says("GET /sweeps", {"schema": 1, "sweeps": []})
    path = f"{tmp_path / on_path / 'bin'}:/usr/bin:/bin" if on_path else "/usr/bin:/bin"
    environ = {**os.environ, "SWEEP_SERVER": server.url, "PATH": path, "PYTHONPATH": str(DOCS.parents[1])}
    done = subprocess.run([str(script), "ls"], cwd=tmp_path, env=environ, capture_output=True, text=True, check=True)
    assert done.stderr == f"No sweeps yet: `{expected} init && {expected} run sweep.yaml`.\n"


def test_cli_ls_names_the_state_that_has_none(server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    """An empty list of one state says nothing of the others."""
    server.says("GET /sweeps", {"schema": 1, "sweeps": []})
    assert main(["ls", "--state", "failed"]) == 0
    assert capsys.readouterr().err == "No sweeps in state failed.\n"


def test_cli_ls_tells_cancelled_trials_apart(server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    """What was cancelled is not done."""
    server.says("GET /sweeps", {"schema": 1, "sweeps": [CANCELLED | {"user_name": ""}]})
    assert main(["ls"]) == 0
    assert capsys.readouterr().out.split("\t")[2:8] == ["cancelled", "1/4", "0", "0", "3", "-"]


@pytest.mark.parametrize("verb", ["show", "logs", "metrics"])
def test_cli_asks_for_a_trial_where_a_sweep_is_named(server: FakeServer, capsys: pytest.CaptureFixture[str], verb: str) -> None:
    """A sweep's name, or its whole id, is answered with how its trials are named."""
    server.says("GET /sweeps/wine", ACTIVE)
    server.says(f"GET /runs/{ACTIVE['sweep_id']}", {"schema": 1, "run_id": ACTIVE["sweep_id"], "kind": "sweep"})
    server.says(f"GET /sweeps/{ACTIVE['sweep_id']}", ACTIVE)
    for ref in ("wine", ACTIVE["sweep_id"]):
        assert main([verb, ref]) == 3
        assert "is a sweep; name a trial of it, such as brave-otter-7f3a/0." in capsys.readouterr().err
    assert main([verb, "nothing"]) == 3
    assert "nothing at GET /runs/nothing" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("verb", "state", "told"), [("pause", "paused", "already paused"), ("resume", "active", "not paused"), ("stop", "stopping", "stopping")]
)
def test_cli_steering_twice_changes_nothing_and_says_so(server: FakeServer, capsys: pytest.CaptureFixture[str], verb: str, state: str, told: str) -> None:
    """What is already so is left alone, unasked."""
    server.says("GET /sweeps/wine", ACTIVE | {"state": state})
    assert main([verb, "wine"]) == 0
    err = capsys.readouterr().err
    assert told in err
    assert "Nothing was changed." in err
    assert server.asked == ["GET /sweeps/wine"]


def test_cli_refuses_an_empty_name(server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    """It is the caller's variable that is empty, most often."""
    assert main(["status", ""]) == 2
    assert "name is empty" in capsys.readouterr().err
    assert server.asked == []


def test_cli_validate_abbreviates_a_large_grid(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A thousand values are told by their first and last, and how many they are."""
    (tmp_path / "train.py").write_text("")
    (tmp_path / "sweep.yaml").write_text(f"program: train.py\nmethod: grid\nparameters: {{x: {{values: {list(range(1000))}}}}}\n")
    assert main(["validate", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "8, 9, ..., 999] (1000 values)" in out
    assert max(map(len, out.splitlines())) < 100


def test_cli_init_says_when_there_is_no_script(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The file names a script that is still to be written."""
    assert main(["init", str(tmp_path)]) == 0
    assert "no script here yet" in capsys.readouterr().err


def test_cli_show_tells_of_a_pending_cancel(server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    """A run that was asked to stop and still runs says so, and is named by its sweep's short id."""
    run = {"schema": 1, "run_id": RUN_ID, "kind": "managed", "name": "", "state": "running", "cause": None, "detail": None, "duration_s": 3.0}
    run |= {"sweep_id": "cd" * 16, "sweep_short_id": "brave-otter-7f3a", "trial_number": 3, "experiment_id": "1", "argv": []}
    run |= {"params": {}, "metrics": [], "tags": {}, "attempts": [], "stop_requested_at": "2026-01-02T03:04:05.000Z"}
    server.says("GET /runs/wine/3", run)
    assert main(["show", "wine/3"]) == 0
    out = capsys.readouterr().out
    assert "asked to stop" in out
    assert "trial       brave-otter-7f3a/3\n" in out


def test_cli_worker_needs_the_database_of_a_server_elsewhere(
    server: FakeServer, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that knows only its server does not start a database of its own."""
    monkeypatch.setenv("SWEEP_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("SWEEP_DATABASE_URL", raising=False)
    assert main(["worker"]) == 2
    assert "SWEEP_DATABASE_URL" in capsys.readouterr().err
    assert not (tmp_path / "home").exists()


def test_cli_confirmation_is_no_wrong_usage(server: FakeServer, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing was mistyped, so no usage is shown."""
    monkeypatch.setattr("sys.stdin", StringIO())
    server.says("GET /sweeps/wine", ACTIVE)
    assert main(["cancel", "wine"]) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: Not done")
    assert err.endswith("hint: Add --yes to do this without a terminal.\n")


def test_cli_logs_follow_says_that_it_waits(server: FakeServer, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that has not started has nothing to print yet, which is said."""
    monkeypatch.setattr("time.sleep", lambda _: None)
    run = {"schema": 1, "run_id": RUN_ID, "kind": "managed", "state": "queued", "ended_at": None}
    server.says("GET /runs/wine/3", run)
    server.says(f"GET /runs/{RUN_ID}", run | {"state": "cancelled", "ended_at": "x"})
    server.says(f"GET /runs/{RUN_ID}/logs", {"schema": 1, "run_id": RUN_ID, "attempt": 0, "text": "", "next_offset": 0, "is_complete": False})
    assert main(["logs", "-f", "wine/3"]) == 0
    assert "queued and has not started; waiting for it" in capsys.readouterr().err


def test_cli_runs_an_entry_point_or_a_script_of_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`-e` names which; a script needs no MLproject."""
    (tmp_path / "train.py").touch()
    assert main(["validate", str(tmp_path), "-e", "train.py", "-P", "x=a b", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["commands"][0] == ["python", "train.py", "--x", "a b"]
    (tmp_path / "MLproject").write_text("entry_points:\n  evaluate:\n    parameters: {n: int}\n    command: python eval.py {n}\n")
    assert main(["validate", str(tmp_path), "-e", "evaluate", "-P", "n=3", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["commands"][0] == ["python", "eval.py", "3"]
    assert main(["validate", str(tmp_path), "-e", "evaluat", "-P", "n=3"]) == 2
    assert "did you mean 'evaluate'?" in capsys.readouterr().err
    assert main(["validate", str(tmp_path), "-e", "evaluate", "-P", "n=x"]) == 2
    assert "'n' is an int in the MLproject, and 'x' is not a whole number" in capsys.readouterr().err


def test_cli_refuses_an_entry_point_for_a_sweep_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A sweep file says itself what it runs."""
    (tmp_path / "sweep.yaml").write_text("program: t.py\nmethod: random\nparameters: {x: {values: [1]}}\n")
    assert main(["validate", str(tmp_path), "-e", "train.py"]) == 2
    assert "-e belongs to a folder without a sweep file" in capsys.readouterr().err
