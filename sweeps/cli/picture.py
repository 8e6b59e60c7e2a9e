"""A sweep as lines of text: what `status` prints and the live table redraws. Pure functions, but for the command's own name."""

import shlex
from collections.abc import Sequence
from typing import Final

from sweeps.api.shapes import RunningTrial, SweepAnswer, SweepSummary, TrialAnswer, VersionEntry
from sweeps.cli.terminal import aligned, cut, params_text, program
from sweeps.standing import counts_text, done_trials, progress_text
from sweeps.wording import clean, counted, duration_text, short

_BAR_WIDTH: Final = 26
_NARROW: Final = 60


def status_lines(sweep: SweepAnswer, columns: int, rows: int, notes: Sequence[str] = ()) -> list[str]:
    """Head, counts, best and running trials in at most `rows` lines of `columns` (three at least).

    On a narrow terminal: name, counts and best, and that this is so.

    Args:
        notes: what else is to be said, such as why nothing runs.
    """
    if columns < _NARROW:
        return [cut(line, columns) for line in _narrow_lines(sweep, notes)[: max(rows - 1, 3)]]
    lines = [head_line(sweep), counts_line(sweep)]
    if sweep["best"] is not None:
        lines.append(best_line(sweep, sweep["best"]))
    lines += notes
    room = max(rows - len(lines) - 2, 0)
    shown = sweep["running"][:room]
    if shown:
        lines += ["  " + line for line in aligned(_headings(sweep), [_cells(trial) for trial in shown], columns - 2)]
    hidden = sweep["counts"]["running"] - len(shown)
    if shown and hidden > 0:
        lines.append(f"  and {hidden} more")
    return [cut(line, columns) for line in lines]


def _narrow_lines(sweep: SweepAnswer, notes: Sequence[str]) -> list[str]:
    """The sweep in lines short enough for half a terminal, the most telling first."""
    best = [best_line(sweep, sweep["best"])] if sweep["best"] is not None else []
    running = sweep["counts"]["running"]
    hidden = [f"(from {_NARROW} columns on: {counted(running, 'running trial')})"] if running else []
    return [f"{clean(sweep['name'])}  {progress_text(sweep)}  {sweep['state'].upper()}", counts_text(sweep), *best, *notes, *hidden]


def head_line(sweep: SweepSummary) -> str:
    """Name, short id, state, how long it has run, and how long it may yet."""
    parts = [clean(sweep["name"]), sweep["short_id"], sweep["state"].upper(), duration_text(sweep["elapsed_s"])]
    if sweep["eta_s"] is not None:
        parts.append(f"eta ~{duration_text(sweep['eta_s'])}")
    return "  ".join(parts)


def counts_line(sweep: SweepSummary) -> str:
    """Counts with a progress bar, where the sweep has an end."""
    asked = sweep["trials_asked"]
    shown = "" if asked is None else f"{bar(done_trials(sweep), asked)} "
    return f"{counts_text(sweep)}   {shown}{progress_text(sweep)}"


def bar(ended: int, asked: int) -> str:
    """`[=====>----]`."""
    full = _BAR_WIDTH if asked == 0 else min(_BAR_WIDTH * ended // asked, _BAR_WIDTH)
    tip = ">" if 0 < full < _BAR_WIDTH else ""
    return f"[{('=' * (full - len(tip)) + tip).ljust(_BAR_WIDTH, '-')}]"


def best_line(sweep: SweepSummary, best: TrialAnswer) -> str:
    """`best rmse 0.7586  trial 31  alpha=0.01`."""
    return f"best {sweep['metric'] or 'value'} {short(best['value'])}  trial {best['number']}  {params_text(best['params'])}"


def _headings(sweep: SweepSummary) -> list[str]:
    return ["TRIAL", "STATE", clean(sweep["metric"] or "METRIC").upper(), "STEP", "WORKER", "AGE", "PARAMS"]


def _cells(trial: RunningTrial) -> list[str]:
    metric = trial["metric"]
    return [
        str(trial["number"]),
        trial["run_state"],
        short(metric["value"]) if metric else "-",
        str(metric["step"]) if metric else "-",
        trial["worker"] or "-",
        duration_text(trial["duration_s"]),
        params_text(trial["params"]),
    ]


def failure_lines(sweep: SweepSummary, failed: list[TrialAnswer]) -> list[str]:
    """What failed last, and where to look."""
    count = sweep["counts"]["failed"]
    if not failed:
        return []
    trial = failed[-1]
    reason = clean(trial["detail"] or "") or trial["cause"] or "unknown"
    told = f"{trial['cause']}: {reason}" if trial["cause"] and reason != trial["cause"] else reason
    return [f"{count} failed: trial {trial['number']} {told}  ->  {program()} logs {sweep['short_id']}/{trial['number']}"]


def version_line(version: VersionEntry) -> str:
    """`wine v3 (alias champion) from trial 31, rmse 0.7586`, and that there is no artifact, if so."""
    aliases = f" (alias {', '.join(version['aliases'])})" if version["aliases"] else ""
    origin = f" from trial {version['trial_number']}" if version["trial_number"] is not None else ""
    value = f", {version['metric']} {short(version['value'])}" if version["metric"] and version["value"] is not None else ""
    lack = ", without an artifact" if version["size_bytes"] is None else ""
    return f"{clean(version['name'])} v{version['version']}{aliases}{origin}{value}{lack}"


def ending_lines(sweep: SweepAnswer, failed: list[TrialAnswer]) -> list[str]:
    """The end of a sweep: how it ended, the best trial with its parameters, the registered winner."""
    why = f" ({clean(sweep['detail'] or sweep['cause'] or '').rstrip('.')})" if sweep["state"] != "finished" else ""
    head = f"{sweep['state'].capitalize()}{why}: {clean(sweep['name'])} ({sweep['short_id']}) in {duration_text(sweep['elapsed_s'])}"
    lines = [head, counts_text(sweep), *failure_lines(sweep, failed)]
    best = sweep["best"]
    if best is not None:
        lines += ["", f"best {sweep['metric'] or 'value'} {short(best['value'])}  trial {best['number']}"]
        lines += [f"  {clean(name)} = {clean(str(value))}" for name, value in best["params"].items()]
    return [*lines, *(f"registered {version_line(version)}" for version in sweep["models"])]


def next_lines(sweep: SweepAnswer) -> list[str]:
    """Commands worth typing after the end of a sweep."""
    called, ref, best = program(), sweep["short_id"], sweep["best"]
    if best is None:
        return [f"  trials:    {called} trials {ref}", f"  why:       {called} why {ref}"]
    lines = [f"  trials:    {called} trials {ref} --sort value", f"  winner:    {called} show {ref}/{best['number']}"]
    if sweep["models"]:
        return [*lines, f"  model:     {called} models show {shlex.quote(sweep['models'][0]['name'])}"]
    return [*lines, f"  register:  {called} register {ref} --model NAME"]
