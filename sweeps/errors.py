"""Errors of what people write: the sweep file and the MLproject. The tree stands in `tracking.errors`."""

import unicodedata
from collections.abc import Iterable
from typing import ClassVar

from msgspec import Struct

from tracking.errors import SweepError

SHOWN_WIDTH = 160
"""Longer source lines are shown as a window of this many characters."""


class Problem(Struct, frozen=True, omit_defaults=True):
    """One thing that is wrong, and where.

    Attributes:
        message: what is wrong, without the place.
        filename: of the file, as it was named to us; empty for a mapping made in Python.
        line: from 1, or 0 when the problem has no line.
        column: from 1, in characters.
        width: how many characters are at fault.
        source: the whole line it stands on.
        suggestion: what to write instead.
        path: the key path, `parameters.lr.min`.
    """

    message: str
    filename: str = ""
    line: int = 0
    column: int = 0
    width: int = 1
    source: str = ""
    suggestion: str = ""
    path: str = ""

    @property
    def place(self) -> str:
        """`file:line:column`, as far as known; the key path for a mapping made in Python."""
        if self.line:
            return f"{self.filename}:{self.line}:{self.column}"
        return self.filename or self.path

    def render(self) -> str:
        """The problem for a terminal: one line, and the source line with a caret where there is one."""
        head = ": ".join(part for part in (self.place, "error", self.message) if part)
        if not self.line or not self.source.strip():
            return f"{head} ({self.suggestion})" if self.suggestion else head
        start = max(0, self.column - 60) if len(self.source) > SHOWN_WIDTH else 0
        # What a file holds is shown, never obeyed: no escape sequence reaches the terminal.
        shown = "".join(char if char.isprintable() or char == "\t" else "\N{REPLACEMENT CHARACTER}" for char in self.source[start : start + SHOWN_WIDTH])
        # Not the whole line: marked where it is cut, so that nobody counts columns in it.
        shown = ("\N{HORIZONTAL ELLIPSIS}" + shown[1:]) if start else shown
        shown = shown[:-1] + "\N{HORIZONTAL ELLIPSIS}" if start + SHOWN_WIDTH < len(self.source) else shown
        before, at_fault = shown[: self.column - 1 - start], shown[self.column - 1 - start :][: self.width]
        gutter = f"{self.line:>4} | "
        carets = "^" * max(1, _cells(at_fault))
        caret_line = f"{' ' * (len(gutter) - 2)}| {_blank(before)}{carets} {self.suggestion}"
        return f"{head}\n{gutter}{shown}\n{caret_line.rstrip()}"


class SpecError(SweepError):
    """The sweep file or the MLproject can't be used."""

    exit_status: ClassVar[int] = 2
    error_code: ClassVar[str] = "INVALID_PARAMETER_VALUE"


class SpecProblems(SpecError):
    """Everything that is wrong with a sweep file and its MLproject, found in one pass.

    Attributes:
        problems: in the order of the file.
    """

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        count = len(self.problems)
        summary = f"{count} error{'' if count == 1 else 's'}. Nothing was submitted."
        super().__init__("\n".join([*(problem.render() for problem in self.problems), summary]))


def _blank(text: str) -> str:
    """As much empty room as `text` takes on a terminal; tabs stay tabs."""
    return "".join("\t" if char == "\t" else " " * _cells(char) for char in text)


def _cells(text: str) -> int:
    """How many terminal cells `text` takes: wide characters take two, combining ones none."""
    return sum(0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text)
