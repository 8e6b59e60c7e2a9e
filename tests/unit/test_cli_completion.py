"""`sweep completion`: the words that Tab gives, in bash itself, and how long that may take."""

import json
import os
import pty
import select
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import pytest

from sweeps.cli import main
from sweeps.cli.completion import LIMIT_S, complete_models, complete_runs, complete_sweeps
from tests.support import needs
from tests.support.fake_server import BEST, FakeServer, sweep_answer, trial_answer
from tests.support.services import wait_until

Complete = Callable[..., list[str]]
ROOT = Path(__file__).parents[2]
SCRIPT = """\
. "$1"; COMP_LINE=$2; COMP_POINT=${#2}; COMPREPLY=()
_sweep_completion sweep
printf '%s\\n' "${COMPREPLY[@]}"
"""
STARTS: Final = {
    "bash": (["bash", "--norc", "--noprofile", "-i"], "."),
    "zsh": (["zsh", "-f", "-i"], "autoload -U compinit; compinit -u -D; ."),
    "fish": (["fish", "--no-config", "-i"], "source"),
}
TYPED_S: Final = 20.0


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a `sweep` that answers shells, and otherwise only notes what it was called with, and with the scripts of the shells."""
    folder = tmp_path_factory.mktemp("bin")
    program = folder / "sweep"
    program.write_text(
        f"#!{sys.executable}\nimport json, os, sys\nif os.environ.get('CALLED'):\n"
        "    if '_SWEEP_COMPLETE' not in os.environ:\n        sys.exit(open(os.environ['CALLED'], 'w').write(json.dumps(sys.argv[1:]) + '\\n') * 0)\n"
        "from sweeps.cli import main\nsys.exit(main())\n"
    )
    program.chmod(0o755)
    for shell in STARTS:
        done = subprocess.run([program, "completion", shell], env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=True)
        (folder / f"completion.{shell}").write_text(done.stdout)
    return folder


def surroundings(programs: Path, environ: dict[str, str]) -> dict[str, str]:
    """Variables for a shell that finds our `sweep`."""
    return {**os.environ, "PATH": f"{programs}:/usr/bin:/bin", "PYTHONPATH": str(ROOT), **environ}


@pytest.fixture(scope="module")
def bash(programs: Path) -> Complete:
    """What Tab gives in bash at the end of this line."""

    def complete(line: str, **environ: str) -> list[str]:
        command = ["bash", "--norc", "-c", SCRIPT, "bash", str(programs / "completion.bash"), line]
        done = subprocess.run(command, env=surroundings(programs, environ), capture_output=True, text=True, check=True)
        assert done.stderr == ""
        return done.stdout.splitlines() if done.stdout.strip() else []

    return complete


class Terminal:
    """A shell at a terminal, and somebody who types."""

    def __init__(self, shell: str, programs: Path, home: Path, server: str) -> None:
        command, source = STARTS[shell]
        needs.program(command[0])
        self._called = home / "called"
        self._ours, its = pty.openpty()
        environ = {"HOME": str(home), "TERM": "xterm", "LC_ALL": "C.UTF-8", "HISTFILE": "/dev/null", "SWEEP_SERVER": server, "CALLED": str(self._called)}
        env = surroundings(programs, environ)
        self._process = subprocess.Popen(command, env=env, cwd=home, preexec_fn=lambda: os.login_tty(its))  # noqa: PLW1509 - no threads
        os.close(its)
        self._shown = ""
        self._type(f"{source} {programs}/completion.{shell}; printf 'RE''ADY'\n")
        self._read_until(lambda: "READY" in self._shown, "the shell is ready")

    def words(self, typed: str) -> list[str]:
        """What `sweep` is called with once this and the Enter key are typed."""
        self._called.unlink(missing_ok=True)
        self._type(f"{typed}\n")
        self._read_until(lambda: self._called.exists() and self._called.read_text().endswith("\n"), f"{typed!r} calls sweep")
        words: list[str] = json.loads(self._called.read_text())
        return words

    def close(self) -> None:
        """Hang up."""
        self._process.kill()
        self._process.wait()
        os.close(self._ours)

    def _type(self, text: str) -> None:
        os.write(self._ours, text.encode())

    def _read_until(self, is_so: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + TYPED_S
        while not is_so():
            assert time.monotonic() < deadline, f"not within {TYPED_S:g} s: {what}; shown: {self._shown!r}"
            if select.select([self._ours], [], [], 0.02)[0]:
                self._shown += os.read(self._ours, 65536).decode(errors="replace")


SWEEPS = {"schema": 1, "sweeps": [sweep_answer(), sweep_answer(short_id="calm-newt-11aa", name="two words")]}


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("sweep sta", ["status"]),
        ("sweep trials --so", ["--sort"]),
        ("sweep trials --sort ", ["number", "value"]),
        ("sweep trials --sort=va", ["value"]),
        ("sweep status ", ["brave-otter-7f3a", "calm-newt-11aa", "wine", r"two\ words", "@latest"]),
        ("sweep status brave", ["brave-otter-7f3a"]),
        ("sweep status @la", ["@latest"]),
        ("sweep logs ", ["brave-otter-7f3a/", "calm-newt-11aa/", "wine/", r"two\ words/", "@latest/"]),
        ("sweep logs wi", ["wine/0", "wine/1"]),
        ("sweep show wine/", ["wine/0", "wine/1"]),
        ("sweep cancel wine/1", ["wine/1"]),
        ("sweep worker ", ["drain", "ls", "start", "uncordon"]),
        ("sweep worker dr", ["drain"]),
        ("sweep -q worker dr", ["drain"]),
        ("sweep worker --sl", ["--slots"]),
        ("sweep worker --qu", ["--quiet", "--queue"]),
        ("sweep worker --name x --sl", ["--slots"]),
        ("sweep worker drain ", ["w1", "gpu:a"]),
        # What stands before the last colon stays in the line.
        ("sweep worker drain gpu:", ["a"]),
        ("sweep models s", ["show"]),
        ("sweep db u", ["upgrade", "url"]),
        ("sweep register --model d", ["digits"]),
        ("sweep models show ", ["digits"]),
    ],
)
def test_completion_gives_words_in_bash(server: FakeServer, bash: Complete, line: str, expected: list[str]) -> None:
    """Verbs, those of groups and options; from the server sweeps, trials behind a slash, workers and models; quoted where bash needs that."""
    server.says("GET /sweeps", SWEEPS)
    server.says("GET /sweeps/wine/trials", BEST | {"trials": [trial_answer(0), trial_answer(1)]})
    server.says("GET /workers", {"schema": 1, "workers": [{"name": "w1", "state": "live"}, {"name": "gpu:a", "state": "live"}]})
    server.says("GET /models", {"schema": 1, "models": [{"name": "digits"}]})
    # On a machine that is busy the first answer may come too late; that gives no words, and one types Tab again.
    wait_until(lambda: bash(line) == expected, f"Tab gives {expected}")


NAMES: Final = ["two words", "it's", 'say "hi"', "a:b", "cost $5", "x=1", "ro,se", "back\\slash", "wow!", "[gl]*b", "#tag", "ünï"]
TYPED: Final = {
    "tw": "two words",
    "two\\ w": "two words",
    '"two w': "two words",
    "'two w": "two words",
    '"two w"': "two words",
    "it": "it's",
    "'i": "it's",
    '"say': 'say "hi"',
    "a:": "a:b",
    '"cos': "cost $5",
    "x=": "x=1",
    "ro": "ro,se",
    "bac": "back\\slash",
    '"wo': "wow!",
    "\\[": "[gl]*b",
    "\\#": "#tag",
    "ün": "ünï",
    "@l": "@latest",
}


@pytest.fixture(scope="module", params=STARTS)
def shell(request: pytest.FixtureRequest) -> str:
    """Each shell that we complete for."""
    return str(request.param)


def test_completion_of_any_name_reaches_the_command_at_a_terminal(server: FakeServer, shell: str, programs: Path, tmp_path: Path) -> None:
    """Whatever is in a name, and however it was begun: after Tab and Enter the command gets that name, as one word."""
    server.says("GET /sweeps", {"schema": 1, "sweeps": [sweep_answer(short_id=f"calm-newt-{number}", name=name) for number, name in enumerate(NAMES)]})
    with closing(Terminal(shell, programs, tmp_path, server.url)) as terminal:
        for begun, name in TYPED.items():
            wait_until(lambda begun=begun, name=name: terminal.words(f"sweep status {begun}\t") == ["status", name], f"{begun} becomes {name}")
        assert terminal.words("sweep worker dr\t") == ["worker", "drain"]
        assert terminal.words("sweep trials --sort=va\t") == ["trials", "--sort=value"]


def test_completion_is_silent_when_nobody_answers(bash: Complete) -> None:
    """Neither words nor messages; those that need no server are there."""
    assert bash("sweep status ", SWEEP_SERVER="http://127.0.0.1:9") == []
    assert bash("sweep status ", SWEEP_SERVER="nonsense://") == []
    assert bash("sweep statu", SWEEP_SERVER="http://127.0.0.1:9") == ["status"]


def test_completion_starts_no_cluster(bash: Complete, tmp_path: Path) -> None:
    """Where none runs there are no words, and nothing is made."""
    home = tmp_path / "home"
    assert bash("sweep status ", SWEEP_HOME=str(home)) == []
    assert not home.exists()


def test_completion_waits_for_a_silent_server_no_longer_than_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who is typing does not wait for a server that has taken the question and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        monkeypatch.setenv("SWEEP_SERVER", f"http://127.0.0.1:{listener.getsockname()[1]}")
        for complete in (complete_sweeps, complete_runs):
            began = time.monotonic()
            assert complete(Any, Any, "") == []  # type: ignore[arg-type]
            assert time.monotonic() - began < 2 * LIMIT_S


def test_completion_asks_a_refusing_server_once(server: FakeServer) -> None:
    """An error is an answer."""
    server.says("GET /models", {"error_code": "INTERNAL_ERROR", "message": "no"}, 500)
    assert complete_models(Any, Any, "") == []  # type: ignore[arg-type]
    assert server.asked == ["GET /models"]


@pytest.mark.parametrize(
    ("shell", "told"), [("bash", "complete -o nosort -F _sweep_completion sweep"), ("zsh", "#compdef sweep"), ("fish", "complete --no-files")]
)
def test_completion_prints_the_script_of_a_shell(capsys: pytest.CaptureFixture[str], shell: str, told: str) -> None:
    """Each of the three has its own, and the help says where it goes."""
    assert main(["completion", shell]) == 0
    assert told in capsys.readouterr().out
    assert main(["completion", "--help"]) == 0
    assert f"sweep completion {shell}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("shell", "expected"), [("bash", "plain,a:b"), ("zsh", r"told,a\:b:the newest of that name"), ("fish", "plain,a:b\tthe newest of that name")]
)
def test_completion_answers_each_shell_in_its_way(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], shell: str, expected: str
) -> None:
    """As their scripts read it; what is told of a word is for those that show it."""
    server.says("GET /sweeps", {"schema": 1, "sweeps": [sweep_answer(name="a:b")]})
    monkeypatch.setenv("_SWEEP_COMPLETE", f"{shell}_complete")
    monkeypatch.setenv("_SWEEP_LINE", "sweep status a")

    def answer() -> str:
        assert main([]) == 0
        return capsys.readouterr().out

    wait_until(lambda: answer() == f"{expected}\n", f"{shell} is answered {expected!r}")


@pytest.mark.parametrize("instruction", ["nonsense", "tcsh_complete", "bash_nonsense"])
def test_completion_is_silent_about_what_it_does_not_know(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], instruction: str) -> None:
    """A shell that asks for something else gets no words, and no message."""
    monkeypatch.setenv("_SWEEP_COMPLETE", instruction)
    assert main([]) == 1
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("line", ["sweep nope r", "sweep help r"])
def test_completion_after_a_word_that_is_no_verb_is_nothing(line: str) -> None:
    """And no traceback into the shell."""
    environ = {**os.environ, "_SWEEP_LINE": line, "_SWEEP_COMPLETE": "bash_complete"}
    done = subprocess.run([sys.executable, "-m", "sweeps.cli"], env=environ, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "", "")
