"""W&B's own code, in a process and an environment of its own; `make peers` builds the environment from requirements.txt."""

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from tests.support.needs import missing

HERE: Final = Path(__file__).parent
ENVIRONMENT: Final = HERE.parents[1] / ".cache" / "peers-venv"

Ask = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def ask(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ask]:
    """Asks a function of peer.py: `ask("infer", {...})` is `{"answer": ...}`, or `{"error": ...}` where W&B's code raises."""
    stamp = ENVIRONMENT / ".installed"
    if not stamp.exists() or stamp.read_text(encoding="utf-8") != (HERE / "requirements.txt").read_text(encoding="utf-8"):
        missing("W&B's packages are not installed, to be compared with (make peers)")
    # Nothing of this session reaches W&B's code: no account, no proxy, no path to our packages.
    environ = {"PATH": os.defpath, "HOME": str(tmp_path_factory.mktemp("peer")), "LANG": "C.UTF-8"}
    command = [ENVIRONMENT / "bin" / "python", "-I", HERE / "peer.py"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8", env=environ) as process:
        if process.stdin is None or process.stdout is None:
            raise AssertionError("both are pipes")
        to_peer, from_peer = process.stdin, process.stdout

        def question(*words: Any) -> dict[str, Any]:
            to_peer.write(json.dumps(words) + "\n")
            to_peer.flush()
            line = from_peer.readline()
            assert line, "W&B's code has ended the process; its last words stand on standard error"
            answer: dict[str, Any] = json.loads(line)
            return answer

        yield question
        to_peer.close()
        assert process.wait(30) == 0
