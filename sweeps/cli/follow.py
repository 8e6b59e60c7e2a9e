"""Following a sweep: a live table on a terminal, a short line at each change elsewhere.

Ctrl-C detaches: the sweep goes on without its watcher.
"""

import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar

import click

from sweeps.api.shapes import SweepAnswer, TrialAnswer
from sweeps.cli.picture import FINAL_STATES, counts_line, counts_text, has_settled, status_lines, still_running_text
from sweeps.cli.terminal import as_called, clean, is_quiet, is_tty, print_json, program, say, short
from sweeps.client import Client, ServerAway

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

POLL_S: Final = 0.5
LINE_EVERY_S: Final = 3.0
NOTE_AFTER_S: Final = 3.0
"""How long trials wait for what passes by itself before whoever follows is told."""
RIDE_OUT_S: Final = 240.0
"""How long a server may be away before following gives up; clients of runs ride out as much."""

_REST: Final = 4
"""So many times as long as a look took, nobody looks."""
_REST_MAX_S: Final = 5.0
_SHOWN_FAILED: Final = 10
_PASSING: Final = frozenset({"placing", "claim", "scheduler"})
"""Waits that every sweep has for a moment."""

EXIT_FAILED: Final = 1
EXIT_NO_SUCCESS: Final = 6
EXIT_TIMED_OUT: Final = 124
EXIT_INTERRUPTED: Final = 130

_T = TypeVar("_T")
Look = Callable[[], SweepAnswer]
Explain = Callable[[SweepAnswer], Sequence[str]]


def looks(
    look: Look,
    *,
    poll_s: float = POLL_S,
    pause: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
    tell: Callable[[str], None] = say,
) -> Iterator[SweepAnswer]:
    """The sweep, again and again, until it has ended and none of its trials runs any more."""
    return again(look, has_settled, poll_s=poll_s, pause=pause, clock=clock, tell=tell)


def again(
    look: Callable[[], _T],
    is_over: Callable[[_T], bool],
    *,
    poll_s: float = POLL_S,
    pause: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
    tell: Callable[[str], None] = say,
) -> Iterator[_T]:
    """What `look` gives, again and again, until it is over; a server that is away for a while is ridden out.

    Args:
        tell: told once of each absence.

    Raises:
        ServerAway: for longer than `RIDE_OUT_S`.
    """
    away_since: float | None = None
    while True:
        began, rest_s = clock(), poll_s
        try:
            seen = look()
        except ServerAway as error:
            if away_since is None:
                away_since = clock()
                tell(f"{error.message} Trying again; the sweep goes on.")
            elif clock() - away_since > RIDE_OUT_S:
                raise
        else:
            away_since = None
            # Where the answer itself takes long, as of ten thousand trials, the server is not kept busy with nothing else.
            rest_s = max(poll_s, min(_REST * (clock() - began), _REST_MAX_S))
            yield seen
            if is_over(seen):
                return
        pause(rest_s)


def follow(client: Client, sweep: SweepAnswer, *, as_json: bool = False) -> SweepAnswer | None:
    """Show a sweep until it has ended; returns it, or None if the watcher detached."""
    look = partial(client.sweep, sweep["sweep_id"])
    try:
        if as_json:
            return _follow_json(looks(look))
        if is_quiet():
            return _last(looks(look))
        explain = _Patience(partial(waiting_notes, client))
        return _follow_live(look, explain) if is_tty(sys.stderr) else _follow_lines(looks(look), explain)
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
        self._since = (now if self._since is None else self._since) if _only_waits(sweep) else None
        return self._explain(sweep, 0.0 if self._since is None else now - self._since)


def _only_waits(sweep: SweepAnswer) -> bool:
    """Whether trials wait although none runs."""
    counts = sweep["counts"]
    return not counts["running"] and bool(counts["queued"] + counts["placed"]) and sweep["state"] not in FINAL_STATES


def waiting_notes(client: Client, sweep: SweepAnswer, waited_s: float = math.inf) -> list[str]:
    """Why trials wait although none runs, or run although the sweep has ended; nothing where that is not so, or may pass any moment."""
    if sweep["state"] in FINAL_STATES and sweep["counts"]["running"]:
        return [still_running_text(sweep)]
    if not _only_waits(sweep):
        return []
    try:
        answer = client.why(sweep["sweep_id"])
    except ServerAway:
        return []  # whoever follows finds that out with the next look
    passing = {wait["text"] for wait in answer["waits"] if wait["wait"] in _PASSING} if waited_s < NOTE_AFTER_S else set()
    return [f"waits: {as_called(clean(reason))}" for reason in answer["reasons"][:1] if reason not in passing]


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
    """The last of a sweep's failed trials, if it has any."""
    n_failed = sweep["counts"]["failed"]
    return client.trials(sweep["sweep_id"], states=("failed",), limit=_SHOWN_FAILED, offset=max(0, n_failed - _SHOWN_FAILED))["trials"] if n_failed else []


def exit_status(sweep: SweepAnswer) -> int:
    """Of a command that saw a sweep to its end: no successful trial comes before how it ended."""
    if not sweep["counts"]["finished"]:
        return EXIT_NO_SUCCESS
    return 0 if sweep["state"] == "finished" else EXIT_FAILED
