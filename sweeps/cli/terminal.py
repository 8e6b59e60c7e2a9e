"""What is printed, and where: data to standard output, everything else to standard error.

On a terminal, aligned columns cut to its width; elsewhere, tab-separated rows without headings, whole and without colour.
"""

import json
import os
import re
import shlex
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import IO, Any, Final, TypeVar

import click

from sweeps.wording import clean, one_line, short

_F = TypeVar("_F", bound=Callable[..., Any])
_NAME: Final = "sweep"

json_option: Callable[[_F], _F] = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
watch_option: Callable[[_F], _F] = click.option("-w", "--watch", is_flag=True, help="Go on showing it; with --json, one object a line at each change.")
yes_option: Callable[[_F], _F] = click.option("-y", "--yes", is_flag=True, help="Do not ask.")


def is_quiet() -> bool:
    """Whether `--quiet` was given."""
    context = click.get_current_context(silent=True)
    return bool(context and context.find_root().params.get("quiet"))


def say(text: str) -> None:
    """Tell the person something that is not data; commands between backticks are told as `program` has them."""
    if not is_quiet():
        click.echo(as_called(text), err=True)


@cache
def program() -> str:
    """What to type for `sweep` in the shell that this command was called from.

    `sweep`, if that is this program there. Otherwise, as in a shell whose virtual environment is not active, the path
    to it, from the current folder if it lies below.
    """
    called = Path(sys.argv[0])
    # `python -m sweeps.cli` has the script beside its interpreter.
    script = called if called.name == _NAME else Path(sys.executable).with_name(_NAME)
    is_ours = (called.name == _NAME or called.parts[-3:] == ("sweeps", "cli", "__main__.py")) and script.is_file()
    found = shutil.which(_NAME)
    if not is_ours or (found is not None and Path(found).samefile(script)):
        return _NAME
    path = Path(os.path.abspath(script))  # noqa: PTH100 - not resolved: a link is the name that was typed
    here = Path.cwd()
    shown = path.relative_to(here) if path.is_relative_to(here) else path
    return shlex.quote(str(shown) if len(shown.parts) > 1 else f"./{shown}")


def as_called(text: str) -> str:
    """A text whose commands between backticks can be typed as they stand."""
    return re.sub(r"`[^`\n]*`", lambda quoted: re.sub(rf"\b{_NAME} (?=[a-z])", lambda _: f"{program()} ", quoted[0]), text)


def print_json(answer: Mapping[str, Any]) -> None:
    """Print one object on one line."""
    click.echo(json.dumps(answer, ensure_ascii=False))


def is_terminal() -> bool:
    """Whether standard output is a terminal."""
    return is_tty(sys.stdout)


def is_tty(stream: IO[str] | None) -> bool:
    """Whether a stream is a terminal; one that was closed by the caller is None, and is not."""
    return stream is not None and stream.isatty()


def has_colour() -> bool:
    """Whether standard output takes colour: a terminal, and NO_COLOR is not set."""
    return is_terminal() and not os.environ.get("NO_COLOR")


def width() -> int:
    """Columns of the terminal; COLUMNS decides where it is set."""
    return shutil.get_terminal_size((100, 24)).columns


def print_table(headings: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print rows: aligned and cut on a terminal, tab-separated elsewhere."""
    if not is_terminal():
        for row in rows:
            click.echo(tabbed(row))
        return
    first, *rest = aligned(headings, rows, width())
    click.echo(click.style(first, bold=True) if has_colour() else first)
    for line in rest:
        click.echo(line)


def tabbed(row: Sequence[object]) -> str:
    """A row whole, for programs."""
    return "\t".join(one_line(cell) for cell in row)


def aligned(headings: Sequence[str], rows: Sequence[Sequence[object]], columns: int) -> list[str]:
    """Headings and rows as lines of at most `columns` characters."""
    table = [list(headings), *([one_line(cell) for cell in row] for row in rows)]
    widths = [max(len(line[index]) for line in table) for index in range(len(headings))]
    lines = ("  ".join(cell.ljust(wide) for cell, wide in zip(line, widths, strict=True)).rstrip() for line in table)
    return [cut(line, columns) for line in lines]


def cut(line: str, columns: int) -> str:
    """A line of at most `columns` characters."""
    return line if len(line) <= columns else line[: max(columns - 1, 0)] + "…"


def params_text(params: Mapping[str, Any], *, exact: bool = False) -> str:
    """Parameters as `name=value name=value`."""
    return " ".join(f"{clean(name)}={clean(str(value)) if exact else short(value)}" for name, value in params.items())


class Unconfirmed(click.ClickException):
    """Something that can't be undone needs a yes, and there is nobody to ask."""

    exit_code = 2

    def show(self, file: IO[Any] | None = None) -> None:
        """Print it as other errors are."""
        click.echo(f"error: {self.message}\nhint: Add --yes to do this without a terminal.", file=file, err=True)


def confirm(question: str, *, yes: bool) -> None:
    """Ask before something that can't be undone.

    Raises:
        Unconfirmed: nobody can be asked, and `--yes` was not given.
        click.Abort: the answer was no.
    """
    if yes:
        return
    if not is_tty(sys.stdin):
        raise Unconfirmed(f"Not done, for nobody can be asked. {question}")
    click.confirm(question, abort=True, err=True)
