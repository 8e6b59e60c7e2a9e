"""The pages of the documentation, as their readers see them: blocks of code, headings, links."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
DOCS: Final = ROOT / "docs"


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block of a page.

    Attributes:
        line: of its first line of text, from 1.
        language: the word behind the fence, or empty.
        text: without the fences, with the line's end.
    """

    page: Path
    line: int
    language: str
    text: str

    @property
    def place(self) -> str:
        """`docs/page.md:12`."""
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    @property
    def filename(self) -> str:
        """The file that the block shows, if its first line names one: `# train.py`."""
        found = re.match(r"# ([\w./-]+\.\w+|MLproject)(?=[\s,])", self.text)
        return found[1] if found else ""


@dataclass(frozen=True, slots=True)
class Command:
    """A command that a page shows, with what it prints there."""

    line: str
    output: tuple[str, ...]


def pages() -> list[Path]:
    """Every page: the README, those of docs/, and whoever else links to them."""
    return [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted(DOCS.rglob("*.md")), *sorted((ROOT / "deploy").rglob("*.md"))]


def blocks(page: Path) -> Iterator[Block]:
    """The fenced blocks of a page, in order."""
    text = page.read_text(encoding="utf-8")
    for found in re.finditer(r"^( *)```(\w*)[^\n]*\n(.*?)^\1```$", text, re.MULTILINE | re.DOTALL):
        yield Block(page, text.count("\n", 0, found.start(3)) + 1, found[2], found[3])


def commands(block: Block) -> list[Command]:
    """The commands of a `console` block: a line after `$ `, then its output."""
    before, *parts = re.split(r"^\$ ", block.text, flags=re.MULTILINE)
    assert not before, f"{block.place}: output before the first command"
    return [Command(lines[0], tuple(lines[1:])) for part in parts if (lines := part.rstrip("\n").split("\n"))]
