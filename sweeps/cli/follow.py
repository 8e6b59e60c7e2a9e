"""Following a sweep: a live table on a terminal, a short line at each change elsewhere.

Ctrl-C detaches: the sweep goes on without its watcher.
"""

import shutil
import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final

import click

from sweeps.api.shapes import SweepAnswer, TrialAnswer
from sweeps.cli.picture import FINAL_STATES, counts_line, counts_text, status_lines
from sweeps.cli.terminal import is_quiet, print_json, say, short
from sweeps.client import Client, ServerAway

if TYPE_CHECKING:
    from rich.text import Text

POLL_S: Final = 0.5
LINE_EVERY_S: Final = 3.0
RIDE_OUT_S: Final = 240.0
"""How long a server may be away before following gives up; clients of runs ride out as much."""

_SHOWN_FAILED: Final = 10

EXIT_FAILED: Final = 1
EXIT_NO_SUCCESS: Final = 6
EXIT_TIMED_OUT: Final = 124
EXIT_INTERRUPTED: Final = 130

Look = Callable[[], SweepAnswer]


def looks(
    look: Look, *, poll_s: float = POLL_S, pause: Callable[[float], None] = time.sleep, clock: Callable[[], float] = time.monotonic
) -> Iterator[SweepAnswer]:
    """The sweep, again and again, until it has ended; a server that is away for a while is ridden out.

    Raises:
        ServerAway: for longer than `RIDE_OUT_S`.
    """
    away_since: float | None = None
    while True:
        try:
            sweep = look()
        except ServerAway as error:
            if away_since is None:
                away_since = clock()
                say(f"{error.message} Trying again; the sweep goes on.")
            elif clock() - away_since > RIDE_OUT_S:
                raise
        else:
            away_since = None
            yield sweep
            if sweep["state"] in FINAL_STATES:
                return
        pause(poll_s)


def follow(client: Client, sweep: SweepAnswer, *, as_json: bool = False) -> SweepAnswer | None:
    """Show a sweep until it has ended; returns it, or None if the watcher detached."""
    seen = looks(lambda: client.sweep(sweep["sweep_id"]))
    try:
        if as_json:
            return _follow_json(seen)
        if is_quiet():
            return _last(seen)
        return _follow_live(seen) if sys.stderr.isatty() else _follow_lines(seen)
    except KeyboardInterrupt:
        ref = sweep["short_id"]
        say(f"detached; the sweep goes on.  sweep status {ref} --watch   sweep cancel {ref}")
        return None


def _last(seen: Iterator[SweepAnswer]) -> SweepAnswer:
    *_, last = seen
    return last


def _follow_json(seen: Iterator[SweepAnswer]) -> SweepAnswer:
    """One object a line at each change."""
    last: SweepAnswer | None = None
    for sweep in seen:
        if last is None or _changed(last, sweep):
            print_json(sweep)
        last = sweep
    assert last is not None  # noqa: S101 - `looks` yields at least once
    return last


def _changed(last: SweepAnswer, sweep: SweepAnswer) -> bool:
    return any(last[key] != sweep[key] for key in ("state", "counts", "best"))


def _follow_lines(seen: Iterator[SweepAnswer], clock: Callable[[], float] = time.monotonic) -> SweepAnswer:
    """One short line at each change of counts, not more often than every few seconds."""
    shown, shown_at, sweep = "", float("-inf"), None
    for sweep in seen:
        text = f"{sweep['short_id']}  {sweep['state']}  {counts_line(sweep)}{_best_text(sweep)}"
        if counts_text(sweep) != shown and (clock() - shown_at >= LINE_EVERY_S or sweep["state"] in FINAL_STATES):
            shown, shown_at = counts_text(sweep), clock()
            click.echo(text, err=True)
    assert sweep is not None  # noqa: S101 - `looks` yields at least once
    return sweep


def _best_text(sweep: SweepAnswer) -> str:
    best = sweep["best"]
    return f"  best {sweep['metric'] or 'value'} {short(best['value'])} (trial {best['number']})" if best else ""


def _follow_live(seen: Iterator[SweepAnswer]) -> SweepAnswer:
    """One region, redrawn in place."""
    # Imported here: a tenth of a second that only a live table is worth.
    from rich.console import Console
    from rich.live import Live

    console = Console(stderr=True, highlight=False)
    sweep: SweepAnswer | None = None
    with Live(console=console, auto_refresh=False, transient=True, redirect_stdout=False, redirect_stderr=False) as live:
        for sweep in seen:
            live.update(_drawn(sweep), refresh=True)
    assert sweep is not None  # noqa: S101 - `looks` yields at least once
    return sweep


def _drawn(sweep: SweepAnswer) -> "Text":
    from rich.text import Text

    size = shutil.get_terminal_size((100, 24))
    first, *rest = status_lines(sweep, size.columns, size.lines)
    text = Text(first, style="bold", no_wrap=True)
    for line in rest:
        text.append(f"\n{line}", style="not bold")
    return text


def last_failures(client: Client, sweep: SweepAnswer) -> list[TrialAnswer]:
    """The last of a sweep's failed trials, if it has any."""
    n_failed = sweep["counts"]["failed"]
    return client.trials(sweep["sweep_id"], states=("failed",), limit=_SHOWN_FAILED, offset=max(0, n_failed - _SHOWN_FAILED))["trials"] if n_failed else []


def exit_status(sweep: SweepAnswer) -> int:
    """Of a command that saw a sweep to its end."""
    if not sweep["counts"]["finished"]:
        return EXIT_NO_SUCCESS
    return 0 if sweep["state"] == "finished" else EXIT_FAILED
