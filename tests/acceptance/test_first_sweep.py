"""docs/first-sweep.md, followed to the letter: its files written, its commands typed on a terminal, its output compared."""

import os
import pty
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.support.pages import DOCS, Command, blocks, commands

PAGE: Final = DOCS / "first-sweep.md"
COLUMNS: Final = 160

pytestmark = pytest.mark.timeout(300)

# What differs from one day and machine to the next; everything else on the page must come out as it is shown.
VARIES: Final = (
    r"(?<![\w-])[a-z]+-[a-z]+-[0-9a-f]{4}(?![\w-])",  # a sweep's short id
    r"127\.0\.0\.1:\d+",
    r"\d\d:\d\d:\d\d",
    r"\d{4}-\d\d-\d\d",
    r"\d+(?:\.\d+)? ?(?:ms|s)\b(?!\w)",
    r"/home/you/\.sweep",
    r"\blaptop\b",
)


class Reader:
    """Somebody with a terminal, an empty folder and a home without anything of ours."""

    def __init__(self, folder: Path) -> None:
        self.home, self.folder = folder / "you", folder / "project"
        self.home.mkdir()
        self.folder.mkdir()
        self._environ = {
            "HOME": str(self.home),
            # What `. .venv/bin/activate` does to it.
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]),
            "LANG": "C.UTF-8",
            "COLUMNS": str(COLUMNS),
            "TERM": "dumb",
            "NO_COLOR": "1",
        }

    def type(self, line: str) -> tuple[int, str]:
        """Type a command and wait for its end; (exit status, what the terminal shows)."""
        ours, its = pty.openpty()
        try:
            process = subprocess.Popen(["/bin/sh", "-c", line], cwd=self.folder, env=self._environ, stdin=its, stdout=its, stderr=its, start_new_session=True)
        finally:
            os.close(its)
        shown = b""
        with open(ours, "rb", buffering=0) as screen:  # noqa: PTH123 - a descriptor
            try:
                while chunk := screen.read(65536):
                    shown += chunk
            except OSError:
                pass  # Linux's word for the end: nobody holds the terminal any more
        return process.wait(), shown.decode().replace("\r\n", "\n")


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    """A reader whose cluster is stopped afterwards, however far the reading went."""
    made = Reader(tmp_path)
    yield made
    made.type("sweep down --yes")


def as_pattern(line: str) -> str:
    """A regular expression for a line that the page shows; runs of spaces stand for any."""
    varies = re.compile("|".join(VARIES))
    parts, end = [], 0
    for found in varies.finditer(line):
        kind = next(index for index, pattern in enumerate(VARIES) if re.fullmatch(pattern, found[0]))
        parts += [re.escape(line[end : found.start()]), r"\S+" if VARIES[kind].startswith(("/home", r"\blaptop")) else VARIES[kind]]
        end = found.end()
    return re.sub(r"(?:\\ )+", " +", "".join([*parts, re.escape(line[end:])])) + " *"


def is_shown(command: Command, terminal: str) -> bool:
    """Whether a terminal shows what the page does, and nothing else; `...` on the page stands for any lines."""
    lines = [r"(?:.*\n)*" if line == "..." else as_pattern(line) + r"\n" for line in command.output]
    return re.fullmatch("".join(lines), terminal.rstrip("\n") + "\n") is not None


def test_first_sweep_page_can_be_followed_literally(reader: Reader) -> None:
    """Each file and each command of the page, in its order, in a fresh home: every exit status is 0, and the output is the page's."""
    typed = []
    for block in blocks(PAGE):
        if block.filename:
            (reader.folder / block.filename).write_text(block.text, encoding="utf-8")
        elif block.language == "console":
            for command in commands(block):
                status, shown = reader.type(command.line)
                assert status == 0, f"{block.place}: {command.line}\n{shown}"
                assert is_shown(command, shown), f"{block.place}: {command.line} prints now:\n{shown}"
                typed.append(command.line.split()[1])
    assert typed == ["version", "validate", "run", "trials", "best", "why", "logs", "register", "models", "down"]
    status, shown = reader.type("sweep down")
    assert (status, shown) == (0, "Nothing was running.\n")


def test_first_sweep_page_leaves_only_the_installation_to_others() -> None:
    """What is not typed above is the installation, whose place the tests' own environment takes: `make install` and the script it leaves."""
    untyped = [block.text for block in blocks(PAGE) if not block.filename and block.language != "console"]
    assert untyped == ["make install\n. .venv/bin/activate\n"]


@pytest.mark.parametrize(
    ("page", "terminal", "is_same"),
    [
        ("in 2s (brave-otter-7f3a)", "in 31.5s  (tidy-crab-00ff)", True),
        ("best loss 0.0099", "best loss 0.0098", False),
        ("Placed on laptop.", "Placed on node-7.", True),
        ("done", "not done", False),
        ("done", "done\nWarning: not quite", False),
        ("done\n...", "done\nand more", True),
    ],
)
def test_first_sweep_lines_are_compared_but_for_what_varies(page: str, terminal: str, *, is_same: bool) -> None:
    """Ids, times and places may differ; results and words may not, and nothing may come on top."""
    assert is_shown(Command("sweep", tuple(page.split("\n"))), terminal) is is_same
