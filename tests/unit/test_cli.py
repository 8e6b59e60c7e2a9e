"""The `sweep` command as a whole: its menu, its exit statuses, what it prints where, and what it imports."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest

from sweeps.cli import MENU, VERBS, Menu, follow, main, sweep
from sweeps.client import Client, Refused, ServerAway, ServerError
from tests.support.fake_server import ACTIVE, BEST, FakeServer, trial_answer
from tracking.errors import SweepError

DOCS = Path(__file__).parents[2] / "docs" / "commands.md"


HEAVY = "fastapi starlette uvicorn sqlalchemy alembic psycopg2 optuna rich httpx celery kombu docker yaml msgspec redis fsspec pydantic".split()


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


def test_docs_tell_the_fields_of_every_json() -> None:
    """What `--json` prints is a promise, so each command that takes it has a row in the table of fields."""
    text = DOCS.read_text(encoding="utf-8")
    rows = "".join(line.split("|")[1] for line in text[text.index("\n## JSON\n") :].partition("\n## Every option")[0].splitlines() if line.startswith("| `"))
    takers = [" ".join(words) for words, command in ALL_COMMANDS if any("--json" in parameter.opts for parameter in command.params)]
    assert [words for words in takers if f"`{words}`" not in rows] == []


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
    assert set(expected.split()) <= set(VERBS)
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


def test_cli_refuses_an_empty_name(server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    """It is the caller's variable that is empty, most often."""
    assert main(["status", ""]) == 2
    assert "name is empty" in capsys.readouterr().err
    assert server.asked == []


@pytest.mark.parametrize("words", [[], ["best"], ["worker", "drain"]])
def test_cli_help_is_a_word_too(capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    """`sweep help VERB` is `sweep VERB --help`."""
    assert main(["help", *words]) == 0
    told = capsys.readouterr().out
    assert main([*words, "--help"]) == 0
    assert told == capsys.readouterr().out
    assert told.startswith("Usage: sweep " + " ".join(words))
