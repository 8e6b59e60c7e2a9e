"""Watching a list: one region redrawn in place on a terminal; elsewhere, and with `--json`, what has changed, a line each.

Unlike a sweep that is followed (`sweeps.cli.follow`), a list is shown as its verb shows it once.
"""

import sys
import time
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Generic, NamedTuple, TypeVar

import click

from sweeps.cli.follow import EXIT_INTERRUPTED
from sweeps.cli.terminal import aligned, cut, is_terminal, print_json, say, tabbed
from sweeps.looks import again

if TYPE_CHECKING:
    from rich.console import Console

_T = TypeVar("_T", bound=Mapping[str, Any])
Cells = Sequence[object]

_FRAME: Final = 2
"""Lines of a terminal that are not rows: the headings, and the cursor's."""


class Listing(NamedTuple, Generic[_T]):
    """What is listed now.

    Attributes:
        more: fields that each object carries besides its own with `--json`.
        is_over: nothing in it will change any more.
    """

    entries: Sequence[_T]
    headings: Sequence[str]
    more: Mapping[str, Any]
    is_over: bool = False


class Manner(NamedTuple, Generic[_T]):
    """How a list is watched.

    Attributes:
        name_of: what tells an entry from the others.
        facts_of: what of it counts as a change; not how long it has run.
        cells_of: its row.
        keeps_last: whether the last entries are those to show where not all have room, not the first.
    """

    name_of: Callable[[_T], Hashable]
    facts_of: Callable[[_T], object]
    cells_of: Callable[[_T], Cells]
    keeps_last: bool = False


def watch(look: Callable[[], Listing[_T]], manner: Manner[_T], *, as_json: bool, bye: str) -> int | None:
    """Show a list whenever it changes, until it is over; the exit status 130 on Ctrl-C, else None.

    Args:
        bye: said on Ctrl-C.
    """
    try:
        if as_json or not is_terminal():
            _print_changes(_seen(look), manner, as_json=as_json)
        else:
            _redraw(look, manner)
    except KeyboardInterrupt:
        say(bye)
        return EXIT_INTERRUPTED
    return None


def _seen(look: Callable[[], Listing[_T]], tell: Callable[[str], None] = say) -> Iterator[Listing[_T]]:
    return again(look, lambda listing: listing.is_over, pause=time.sleep, tell=tell)


def _print_changes(listings: Iterator[Listing[_T]], manner: Manner[_T], *, as_json: bool) -> None:
    known: dict[Hashable, object] = {}
    for listing in listings:
        for entry in listing.entries:
            name, facts = manner.name_of(entry), manner.facts_of(entry)
            if known.get(name) == facts:
                continue
            known[name] = facts
            if as_json:
                print_json({**listing.more, **entry})
            else:
                click.echo(tabbed(manner.cells_of(entry)))
        # Whoever reads this through a pipe reads it now, not when 8 kB have come together.
        sys.stdout.flush()


def _redraw(look: Callable[[], Listing[_T]], manner: Manner[_T], console: "Console | None" = None) -> None:
    """One region; it is taken away when the list is over, for its verb then prints it whole, and stays on Ctrl-C."""
    # Imported here: a tenth of a second that only a live table is worth.
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    console = console or Console(highlight=False)
    with Live(console=console, auto_refresh=False, redirect_stdout=False, redirect_stderr=False) as live:

        def draw(lines: Sequence[str]) -> None:
            text = Text(lines[0], style="bold", no_wrap=True)
            text.append("".join(f"\n{line}" for line in lines[1:]), style="not bold")
            live.update(text, refresh=True)

        for listing in _seen(look, tell=lambda told: draw([cut(told, console.width)])):
            draw(_shown(listing, manner, console.width, max(console.height - _FRAME, 1)))
        live.transient = True


def _shown(listing: Listing[_T], manner: Manner[_T], columns: int, rows: int) -> list[str]:
    """Headings and as many entries as there is room for, and how many there are besides."""
    n_hidden = len(listing.entries) - rows
    if n_hidden <= 0:
        kept, note = listing.entries, []
    else:
        room, n_hidden = rows - 1, n_hidden + 1
        kept = listing.entries[-room:] if manner.keeps_last else listing.entries[:room]
        note = [cut(f"and {n_hidden} {'before' if manner.keeps_last else 'more'}", columns)]
    table = aligned(listing.headings, [manner.cells_of(entry) for entry in kept], columns)
    return [table[0], *note, *table[1:]] if manner.keeps_last else [*table, *note]
