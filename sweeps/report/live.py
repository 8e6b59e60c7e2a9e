"""A sweep as notebooks and scripts see it while it runs: one picture that is redrawn in place, or a line at each change."""

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Any, Final, Protocol

from sweeps.api.shapes import RunningTrial, SweepAnswer, TrialAnswer
from sweeps.standing import FINAL_STATES, counts_text, done_trials, progress_text
from sweeps.wording import clean, duration_text, short

LINE_EVERY_S: Final = 3.0
_SHOWN_RUNNING: Final = 8
_CELL: Final = "padding:2px 10px 2px 0;text-align:left"
_COLOURS: Final = (("finished", "#2e7d32"), ("pruned", "#b0a000"), ("failed", "#c62828"), ("running", "#64b5f6"))


class View(Protocol):
    """Shows a sweep again and again."""

    def show(self, sweep: SweepAnswer, notes: Sequence[str]) -> None:
        """Show how it stands now; `notes` say what it waits for."""


class Lines:
    """A line on standard error whenever something has changed, not more often than every few seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._shown = ""
        self._shown_at = float("-inf")

    def show(self, sweep: SweepAnswer, notes: Sequence[str]) -> None:
        """Print the line, if it is new and due."""
        line = "  ".join([sweep["short_id"], sweep["state"], progress_text(sweep), counts_text(sweep), *best_text(sweep), *notes])
        is_due = self._clock() - self._shown_at >= LINE_EVERY_S or sweep["state"] in FINAL_STATES
        if line != self._shown and is_due:
            self._shown, self._shown_at = line, self._clock()
            print(line, file=sys.stderr, flush=True)  # noqa: T201 - for people


class Picture:
    """One output of a notebook's cell, redrawn in place."""

    def __init__(self) -> None:
        self._handle: Any = None

    def show(self, sweep: SweepAnswer, notes: Sequence[str]) -> None:
        """Draw it."""
        from IPython.display import HTML, display  # noqa: PLC0415 - there is a notebook, so it is loaded

        drawn = HTML(html(sweep, notes))  # type: ignore[no-untyped-call]
        if self._handle is None:
            self._handle = display(drawn, display_id=True)  # type: ignore[no-untyped-call]
        else:
            self._handle.update(drawn)


def fitting_view() -> View:
    """A picture in a notebook, lines elsewhere."""
    return Picture() if is_notebook() else Lines()


def is_notebook() -> bool:
    """Whether a Jupyter kernel runs this."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return getattr(shell, "kernel", None) is not None


def best_text(sweep: SweepAnswer) -> list[str]:
    """`best loss 0.25 (trial 3)`, or nothing."""
    best = sweep["best"]
    return [] if best is None else [f"best {clean(sweep['metric'] or 'value')} {short(best['value'])} (trial {best['number']})"]


def html(sweep: SweepAnswer, notes: Sequence[str] = ()) -> str:
    """A sweep as a piece of HTML: name, bar, counts, best trial, what runs. Everything of the user's is escaped."""
    times = duration_text(sweep["elapsed_s"]) + (f", about {duration_text(sweep['eta_s'])} left" if sweep["eta_s"] is not None else "")
    head = f"<b>{_text(sweep['name'])}</b> <code>{_text(sweep['short_id'])}</code> {_text(sweep['state'])} &middot; {_text(times)}"
    parts = [head, _bar(sweep), f"{_text(progress_text(sweep))} &middot; {_text(counts_text(sweep))}"]
    parts += [f"<i>{_text(note)}</i>" for note in notes]
    if sweep["best"] is not None:
        parts.append(_best(sweep, sweep["best"]))
    if sweep["running"]:
        parts.append(_running(sweep))
    return f'<div style="font-family:sans-serif;line-height:1.6">{"".join(f"<div>{part}</div>" for part in parts)}</div>'


def _bar(sweep: SweepAnswer) -> str:
    counts: Mapping[str, Any] = {**sweep["counts"]}
    whole = sweep["trials_asked"] or max(done_trials(sweep) + counts["open"], 1)
    pieces = "".join(
        f'<span style="display:inline-block;height:8px;vertical-align:top;background:{colour};width:{100 * counts[state] / whole:.2f}%"></span>'
        for state, colour in _COLOURS
        if counts[state]
    )
    return f'<div style="max-width:480px;height:8px;background:#8884;overflow:hidden;white-space:nowrap">{pieces}</div>'


def _best(sweep: SweepAnswer, best: TrialAnswer) -> str:
    params = ", ".join(f"{_text(name)}={_text(short(value))}" for name, value in best["params"].items())
    return f"best {_text(sweep['metric'] or 'value')} <b>{_text(short(best['value']))}</b> &middot; trial {best['number']} &middot; {params}"


def _running(sweep: SweepAnswer) -> str:
    shown = sweep["running"][:_SHOWN_RUNNING]
    head = "".join(f'<th style="{_CELL}">{_text(title)}</th>' for title in ("trial", sweep["metric"] or "metric", "step", "time", "worker", "parameters"))
    rows = "".join(f"<tr>{_row(trial)}</tr>" for trial in shown)
    hidden = sweep["counts"]["running"] - len(shown)
    more = f"and {hidden} more" if hidden > 0 else ""
    return f'<table style="border-collapse:collapse"><tr>{head}</tr>{rows}</table>{more}'


def _row(trial: RunningTrial) -> str:
    return "".join(f'<td style="{_CELL}">{_text(cell)}</td>' for cell in _cells(trial))


def _cells(trial: RunningTrial) -> list[str]:
    metric = trial["metric"]
    newest = [short(metric["value"]), str(metric["step"])] if metric else ["-", "-"]
    params = ", ".join(f"{name}={short(value)}" for name, value in trial["params"].items())
    return [str(trial["number"]), *newest, duration_text(trial["duration_s"]), trial["worker"] or "-", params]


def _text(text: str) -> str:
    return escape(clean(text))
