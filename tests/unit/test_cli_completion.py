"""`sweep completion`: the words that Tab gives, in bash itself, and how long that may take."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sweeps.cli import main
from sweeps.cli.completion import LIMIT_S, complete_models, complete_runs, complete_sweeps
from tests.support.fake_server import BEST, FakeServer, sweep_answer, trial_answer
from tests.support.services import wait_until

Complete = Callable[..., list[str]]
ROOT = Path(__file__).parents[2]
SCRIPT = """\
. "$1"; shift
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=()
_sweep_completion sweep
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture(scope="module")
def bash(tmp_path_factory: pytest.TempPathFactory) -> Complete:
    """What Tab gives in bash for these words, the last of which is being typed."""
    folder = tmp_path_factory.mktemp("bin")
    program, script = folder / "sweep", folder / "completion.bash"
    program.write_text(f"#!{sys.executable}\nimport sys\nfrom sweeps.cli import main\nsys.exit(main())\n")
    program.chmod(0o755)

    def run(command: list[str], environ: dict[str, str]) -> str:
        env = {**os.environ, "PATH": f"{folder}:/usr/bin:/bin", "PYTHONPATH": str(ROOT), **environ}
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
        assert done.stderr == ""
        return done.stdout

    script.write_text(run(["sweep", "completion", "bash"], {}))
    return lambda *words, **environ: run(["bash", "--norc", "-c", SCRIPT, "bash", str(script), *words], environ).split()


SWEEPS = {"schema": 1, "sweeps": [sweep_answer(), sweep_answer(short_id="calm-newt-11aa", name="two words")]}


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["sweep", "sta"], ["status"]),
        (["sweep", "trials", "--so"], ["--sort"]),
        (["sweep", "trials", "--sort", ""], ["number", "value"]),
        (["sweep", "status", ""], ["brave-otter-7f3a", "calm-newt-11aa", "wine", "@latest"]),
        (["sweep", "status", "brave"], ["brave-otter-7f3a"]),
        # Bash takes `@` for a word of its own.
        (["sweep", "status", "@", "la"], ["@latest"]),
        (["sweep", "logs", ""], ["brave-otter-7f3a/", "calm-newt-11aa/", "wine/", "@latest/"]),
        (["sweep", "logs", "wi"], ["wine/0", "wine/1"]),
        (["sweep", "show", "wine/"], ["wine/0", "wine/1"]),
        (["sweep", "cancel", "wine/1"], ["wine/1"]),
        (["sweep", "worker", "drain", ""], ["w1"]),
        (["sweep", "register", "--model", "d"], ["digits"]),
        (["sweep", "models", "show", ""], ["digits"]),
    ],
)
def test_completion_gives_words_in_bash(server: FakeServer, bash: Complete, words: list[str], expected: list[str]) -> None:
    """Verbs and options; from the server sweeps, trials behind a slash, workers and models; none that would need quotes."""
    server.says("GET /sweeps", SWEEPS)
    server.says("GET /sweeps/wine/trials", BEST | {"trials": [trial_answer(0), trial_answer(1)]})
    server.says("GET /workers", {"schema": 1, "workers": [{"name": "w1", "state": "live"}]})
    server.says("GET /models", {"schema": 1, "models": [{"name": "digits"}]})
    # On a machine that is busy the first answer may come too late; that gives no words, and one types Tab again.
    wait_until(lambda: bash(*words) == expected, f"Tab gives {expected}")


def test_completion_is_silent_when_nobody_answers(bash: Complete) -> None:
    """Neither words nor messages; those that need no server are there."""
    assert bash("sweep", "status", "", SWEEP_SERVER="http://127.0.0.1:9") == []
    assert bash("sweep", "status", "", SWEEP_SERVER="nonsense://") == []
    assert bash("sweep", "statu", SWEEP_SERVER="http://127.0.0.1:9") == ["status"]


def test_completion_starts_no_cluster(bash: Complete, tmp_path: Path) -> None:
    """Where none runs there are no words, and nothing is made."""
    home = tmp_path / "home"
    assert bash("sweep", "status", "", SWEEP_HOME=str(home)) == []
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


@pytest.mark.parametrize(("shell", "words", "word"), [("zsh", "sweep valid", "1"), ("fish", "sweep valid", "valid")])
def test_completion_answers_other_shells(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], shell: str, words: str, word: str) -> None:
    """As their scripts ask."""
    for name, value in (("_SWEEP_COMPLETE", f"{shell}_complete"), ("COMP_WORDS", words), ("COMP_CWORD", word)):
        monkeypatch.setenv(name, value)
    assert main([]) == 0
    assert "validate" in capsys.readouterr().out


@pytest.mark.parametrize("instruction", ["nonsense", "tcsh_complete", "bash_nonsense"])
def test_completion_is_silent_about_what_it_does_not_know(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], instruction: str) -> None:
    """A shell that asks for something else gets no words, and no message."""
    monkeypatch.setenv("_SWEEP_COMPLETE", instruction)
    assert main([]) == 1
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("words", ["sweep nope r", "sweep help r"])
def test_completion_after_a_word_that_is_no_verb_is_nothing(words: str) -> None:
    """And no traceback into the shell."""
    environ = {**os.environ, "COMP_WORDS": words, "COMP_CWORD": "2", "_SWEEP_COMPLETE": "bash_complete"}
    done = subprocess.run([sys.executable, "-m", "sweeps.cli"], env=environ, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "", "")
