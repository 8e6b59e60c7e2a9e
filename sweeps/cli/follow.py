"""Following a sweep: a live table on a terminal, a short line at each change elsewhere.

Ctrl-C detaches: the sweep goes on without its watcher.
"""

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import click

from sweeps.api.shapes import SweepAnswer, TrialAnswer
from sweeps.cli.picture import counts_line, status_lines
from sweeps.cli.terminal import as_called, is_quiet, is_tty, print_json, program, say
from sweeps.client import Client
from sweeps.looks import Look, looks, only_waits, waiting_notes
from sweeps.standing import counts_text, has_settled
from sweeps.wording import short

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

LINE_EVERY_S: Final = 3.0


EXIT_FAILED: Final = 1
EXIT_NO_SUCCESS: Final = 6
EXIT_TIMED_OUT: Final = 124
EXIT_INTERRUPTED: Final = 130

Explain = Callable[[SweepAnswer], Sequence[str]]


def follow(client: Client, sweep: SweepAnswer, *, as_json: bool = False, more: Mapping[str, Any] | None = None) -> SweepAnswer | None:
    """Show a sweep until it has ended; returns it, or None if the watcher detached.

    Args:
        more: what each object of `--json` holds besides.
    """
    look = partial(client.sweep, sweep["sweep_id"])
    try:
        if as_json:
            return _follow_json(looks(look, tell=say), more or {})
        if is_quiet():
            return _last(looks(look, tell=say))
        explain = _Patience(partial(waiting_notes, client))
        return _follow_live(look, explain) if is_tty(sys.stderr) else _follow_lines(looks(look, tell=say), explain)
    except KeyboardInterrupt:
        ref = sweep["short_id"]
        say(f"detached; the sweep goes on.  {program()} status {ref} --watch   {program()} cancel {ref}")
        return None


class _Patience:
    """Explains what waits, and speaks of what passes by itself only once it has not."""

    def __init__(self, explain: Callable[[SweepAnswer, float], Sequence[str]], clock: Callable[[], float] = time.monotonic) -> None:
        self._explain = explain
        self._clock = clock
        self._since: float | None = None

    def __call__(self, sweep: SweepAnswer) -> Sequence[str]:
        now = self._clock()
        self._since = (now if self._since is None else self._since) if only_waits(sweep) else None
        return [as_called(note) for note in self._explain(sweep, 0.0 if self._since is None else now - self._since)]


def _last(seen: Iterator[SweepAnswer]) -> SweepAnswer:
    *_, last = seen
    return last


def _follow_json(seen: Iterator[SweepAnswer], more: Mapping[str, Any]) -> SweepAnswer:
    """One object a line at each change."""
    last: SweepAnswer | None = None
    for sweep in seen:
        if last is None or _changed(last, sweep):
            print_json({**sweep, **more})
        last = sweep
    assert last is not None  # noqa: S101 - `looks` yields at least once
    return last


def _changed(last: SweepAnswer, sweep: SweepAnswer) -> bool:
    return any(last[key] != sweep[key] for key in ("state", "counts", "best"))


def _follow_lines(seen: Iterator[SweepAnswer], explain: Explain, clock: Callable[[], float] = time.monotonic) -> SweepAnswer:
    """One short line at each change of counts or of what it waits for, not more often than every few seconds."""
    shown, shown_at, sweep = "", float("-inf"), None
    for sweep in seen:
        if clock() - shown_at < LINE_EVERY_S and not has_settled(sweep):
            continue
        notes = "".join(f"  {note}" for note in explain(sweep))
        if counts_text(sweep) + notes != shown:
            shown, shown_at = counts_text(sweep) + notes, clock()
            click.echo(f"{sweep['short_id']}  {sweep['state']}  {counts_line(sweep)}{_best_text(sweep)}{notes}", err=True)
    assert sweep is not None  # noqa: S101 - `looks` yields at least once
    return sweep


def _best_text(sweep: SweepAnswer) -> str:
    best = sweep["best"]
    return f"  best {sweep['metric'] or 'value'} {short(best['value'])} (trial {best['number']})" if best else ""


def _follow_live(look: Look, explain: Explain, console: "Console | None" = None) -> SweepAnswer:
    """One region, redrawn in place; what is said meanwhile is said within it, or the terminal would keep pieces of it."""
    # Imported here: a tenth of a second that only a live table is worth.
    from rich.console import Console
    from rich.live import Live

    console = console or Console(stderr=True, highlight=False)
    sweep: SweepAnswer | None = None
    with Live(console=console, auto_refresh=False, transient=True, redirect_stdout=False, redirect_stderr=False) as live:

        def draw(notes: Sequence[str]) -> None:
            shown = status_lines(sweep, console.width, console.height, notes) if sweep is not None else list(notes)
            live.update(_drawn(shown), refresh=True)

        for sweep in looks(look, tell=lambda text: draw([text])):
            draw(explain(sweep))
    assert sweep is not None  # noqa: S101 - `looks` yields at least once
    return sweep


def _drawn(lines: Sequence[str]) -> "Text":
    from rich.text import Text

    first, *rest = lines
    text = Text(first, style="bold", no_wrap=True)
    for line in rest:
        text.append(f"\n{line}", style="not bold")
    return text


def last_failures(client: Client, sweep: SweepAnswer) -> list[TrialAnswer]:
    """The last of a sweep's failed trials by number, as `sweep why` names it, if it has any."""
    n_failed = sweep["counts"]["failed"]
    return client.trials(sweep["sweep_id"], states=("failed",), limit=1, offset=n_failed - 1)["trials"] if n_failed else []


def exit_status(sweep: SweepAnswer) -> int:
    """Of a command that saw a sweep to its end: no successful trial comes before how it ended."""
    if not sweep["counts"]["finished"]:
        return EXIT_NO_SUCCESS
    return 0 if sweep["state"] == "finished" else EXIT_FAILED
