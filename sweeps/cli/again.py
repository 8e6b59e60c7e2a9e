"""Verbs that make more of a sweep that is there: extend, retry."""

import click

from sweeps.cli.completion import complete_sweeps, complete_sweeps_and_runs
from sweeps.cli.connection import connected
from sweeps.cli.steer import run_named
from sweeps.cli.terminal import json_option, print_json, program, say
from sweeps.wording import clean, counted
from tracking.errors import NotNow


@click.command()
@click.argument("sweep", shell_complete=complete_sweeps)
@click.option("--trials", "n_more", required=True, type=click.IntRange(min=1), metavar="N", help="How many more than it has or was to have.")
@json_option
def extend(sweep: str, *, n_more: int, as_json: bool) -> int:
    """Let a sweep have N more trials.

    A sweep that has finished goes on where its search had ended; one that was cancelled or has failed does not. A grid can't have
    more trials than cells.
    """
    with connected() as client:
        answer = client.extend(sweep, n_more)
    paused = f", once it is resumed: {program()} resume {answer['short_id']}" if answer["state"] == "paused" else ""
    say(f"Sweep {clean(answer['name'])} ({answer['short_id']}) goes on to {counted(answer['trials_asked'] or 0, 'trial')}{paused}.")
    if as_json:
        print_json(answer)
    return 0


@click.command()
@click.argument("ref", metavar="SWEEP|RUN", shell_complete=complete_sweeps_and_runs)
@click.option("--cancelled", is_flag=True, help="Cancelled trials of a SWEEP too, as a stop leaves them.")
@json_option
def retry(ref: str, *, cancelled: bool, as_json: bool) -> int:
    """Run a sweep's failed trials again, or one failed or cancelled trial.

    Parameters, seed and code are the same; each trial gets a new run, and the old one stays on record. A sweep that has ended
    goes on until they have: one that failed goes on with its search too. One that was cancelled has ended for good.
    """
    with connected() as client:
        run = run_named(client, ref)
        if run is None:
            answer = client.retry(ref, cancelled=cancelled)
        elif run["sweep_id"] is None or run["trial_number"] is None:
            raise NotNow(f"Run {run['run_id']} is no trial of a sweep: nobody but its own program can run it again.")
        else:
            answer = client.retry(run["sweep_id"], [run["trial_number"]], cancelled=True)
    sweep, numbers = answer["sweep"], answer["trials"]
    named = f"{clean(sweep['name'])} ({sweep['short_id']})"
    if numbers:
        say(f"Sweep {named}: {counted(len(numbers), 'trial')} run{'s' if len(numbers) == 1 else ''} again.")
        say(f"  watch:  {program()} status {sweep['short_id']} --watch")
    elif run is None:
        n_cancelled = sweep["counts"]["cancelled"]
        more = f" {counted(n_cancelled, 'trial')} cancelled: --cancelled." if n_cancelled and not cancelled else ""
        what = "has neither failed nor cancelled trials" if cancelled else "has no failed trial"
        say(f"Sweep {named} {what}, or they run again already. Nothing was changed.{more}")
    else:
        say(f"Trial {run['trial_number']} of sweep {named} has neither failed nor been cancelled. Nothing was changed.")
    if as_json:
        print_json(answer)
    return 0
