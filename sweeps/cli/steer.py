"""Verbs that change the course of a sweep, and `wait`: pause, resume, stop, cancel."""

import re
import time
from contextlib import suppress
from typing import Final

import click

from sweeps.api.shapes import RunAnswer, SweepAnswer
from sweeps.cli.completion import complete_sweeps, complete_sweeps_and_runs
from sweeps.cli.connection import connected
from sweeps.cli.follow import EXIT_INTERRUPTED, EXIT_NO_SUCCESS, EXIT_TIMED_OUT, exit_status
from sweeps.cli.terminal import confirm, json_option, print_json, say, yes_option
from sweeps.client import Client, MissingOnServer
from sweeps.looks import NOTE_AFTER_S, looks
from sweeps.standing import FINAL_STATES, changes_nothing, counts_text, has_settled, still_running_text
from sweeps.wording import clean, names_trial

_ID_LENGTH: Final = 32
_BEGINNING: Final = re.compile(r"[0-9a-f]{6,}")
"""What may be the beginning of a run's id."""
_PAST = {"pause": "is paused", "resume": "goes on", "stop": "is stopping", "cancel": "is cancelled"}
_ALREADY = {"pause": "is already paused", "resume": "is not paused", "stop": "is already stopping"}


@click.command()
@click.argument("sweep", shell_complete=complete_sweeps)
@json_option
def pause(sweep: str, *, as_json: bool) -> int:
    """Start no more trials until resumed.

    Running trials go on.
    """
    with connected() as client:
        return _steer(client, sweep, "pause", as_json=as_json)


@click.command()
@click.argument("sweep", shell_complete=complete_sweeps)
@json_option
def resume(sweep: str, *, as_json: bool) -> int:
    """Go on after a pause."""
    with connected() as client:
        return _steer(client, sweep, "resume", as_json=as_json)


@click.command()
@click.argument("sweep", shell_complete=complete_sweeps)
@yes_option
@json_option
def stop(sweep: str, *, yes: bool, as_json: bool) -> int:
    """Start no more trials; let running ones end.

    The sweep is finished when they are. It cannot be resumed.
    """
    with connected() as client:
        return _steer(client, sweep, "stop", as_json=as_json, ask="Stop it? Its running trials may end.", yes=yes)


@click.command()
@click.argument("ref", metavar="SWEEP|RUN", shell_complete=complete_sweeps_and_runs)
@yes_option
@json_option
def cancel(ref: str, *, yes: bool, as_json: bool) -> int:
    """Stop a sweep, or one run, and what runs of it.

    Cancelling what has already ended changes nothing.
    """
    with connected() as client:
        run = run_named(client, ref)
        if run is not None:
            return _cancel_run(client, run, yes=yes, as_json=as_json)
        return _steer(client, ref, "cancel", as_json=as_json, ask="Cancel it? Its running trials are stopped.", yes=yes)


def run_named(client: Client, ref: str) -> RunAnswer | None:
    """The run, if `ref` is SWEEP/NUMBER, or the id of a run that is no sweep or the beginning of one; anything else means a sweep.

    Raises:
        MissingOnServer: it is SWEEP/NUMBER, and neither a trial nor a sweep is named so.
        InvalidRequest: more than one begins so.
    """
    if not names_trial(ref) and len(ref) != _ID_LENGTH:
        return _run_beginning(client, ref) if _BEGINNING.fullmatch(ref) else None
    try:
        run = client.run(ref)
    except MissingOnServer as error:
        with suppress(MissingOnServer):
            client.sweep(ref)
            return None
        raise error from None
    return None if run["kind"] == "sweep" else run


def _run_beginning(client: Client, ref: str) -> RunAnswer | None:
    """The run whose id begins so, unless a sweep is named so; None if neither is there: it is the sweep that is missed then."""
    with suppress(MissingOnServer):
        client.sweep(ref)
        return None
    with suppress(MissingOnServer):
        run = client.run(ref)
        return None if run["kind"] == "sweep" else run
    return None


def _steer(client: Client, ref: str, move: str, *, as_json: bool, ask: str = "", yes: bool = True) -> int:
    sweep = client.sweep(ref)
    named = f"{clean(sweep['name'])} ({sweep['short_id']})"
    if changes_nothing(move, sweep["state"]):
        told = f"has already ended: {sweep['state']}" if sweep["state"] in FINAL_STATES else _ALREADY[move]
        say(f"Sweep {named} {told}. Nothing was changed.")
    else:
        confirm(f"Sweep {named}: {counts_text(sweep)}. {ask}", yes=yes)
        # By id from here on: what a name or @latest means may change while the question waits.
        sweep = client.steer(sweep["sweep_id"], move)
        still = f"; {still_running_text(sweep)}" if move == "cancel" and sweep["counts"]["running"] else ""
        say(f"Sweep {named} {_PAST[move]}{still}.")
    if as_json:
        print_json(sweep)
    return 0


def _cancel_run(client: Client, run: RunAnswer, *, yes: bool, as_json: bool) -> int:
    named = _run_text(run)
    if run["ended_at"] is not None:
        say(f"{named} has already ended: {run['state']}. Nothing was changed.")
    else:
        confirm(f"{named} is {run['state']}. Cancel it?", yes=yes)
        run = client.cancel_run(run["run_id"])
        say(f"{named} is being cancelled." if run["ended_at"] is None else f"{named} is cancelled.")
    if as_json:
        print_json(run)
    return 0


def _run_text(run: RunAnswer) -> str:
    """`Trial brave-otter-7f3a/3 (run 5f...)`, or `Run wine (5f...)` for one of no sweep."""
    if run["sweep_short_id"] is not None and run["trial_number"] is not None:
        return f"Trial {run['sweep_short_id']}/{run['trial_number']} (run {run['run_id']})"
    return f"Run {clean(run['name'])} ({run['run_id']})"


@click.command()
@click.argument("sweep", default="@latest", metavar="[SWEEP]", shell_complete=complete_sweeps)
@click.option("--timeout", "timeout_s", type=click.FloatRange(min=0), metavar="SECONDS", help="Give up after so long, with exit status 124.")
@click.option("--for", "goal", type=click.Choice(["finished", "first-success"]), default="finished", show_default=True, help="What to wait for.")
@json_option
def wait(sweep: str, *, timeout_s: float | None, goal: str, as_json: bool) -> int:
    """Wait until a sweep has ended.

    And until none of its trials runs any more: after a cancel they have a while to end. Exit status 6 if it ended without
    a successful trial, however that came; else 1 if it failed or was cancelled; else 0.
    """
    with connected() as client:
        sweep_id = client.sweep(sweep)["sweep_id"]
        try:
            seen, is_reached = _wait(client, sweep_id, goal, timeout_s)
        except KeyboardInterrupt:
            say("Interrupted; the sweep goes on.")
            return EXIT_INTERRUPTED
    if as_json:
        print_json(seen)
    else:
        click.echo(f"{seen['short_id']}\t{seen['state']}\t{counts_text(seen)}")
    if not is_reached:
        say(_not_reached_text(seen, timeout_s or 0.0))
        return EXIT_TIMED_OUT
    if goal == "first-success":
        return 0 if seen["counts"]["finished"] else EXIT_NO_SUCCESS
    return exit_status(seen)


def _not_reached_text(seen: SweepAnswer, timeout_s: float) -> str:
    after = f"after {timeout_s:g} s"
    if seen["state"] in FINAL_STATES:
        return f"Sweep {seen['short_id']} is {seen['state']}, but {still_running_text(seen)} {after}: `sweep why {seen['short_id']}`."
    return f"Sweep {seen['short_id']} is still {seen['state']} {after}."


def _wait(client: Client, sweep_id: str, goal: str, timeout_s: float | None) -> tuple[SweepAnswer, bool]:
    """The sweep as last seen, and whether what was waited for came about (or can't any more)."""
    deadline = None if timeout_s is None else time.monotonic() + timeout_s

    def pause_until_next(poll_s: float) -> None:
        time.sleep(poll_s if deadline is None else max(min(poll_s, deadline - time.monotonic()), 0))

    over_since: float | None = None
    is_told = False
    for seen in looks(lambda: client.sweep(sweep_id), tell=say, pause=pause_until_next):
        if has_settled(seen) or (goal == "first-success" and seen["counts"]["finished"]):
            return seen, True
        if deadline is not None and time.monotonic() >= deadline:
            return seen, False
        if seen["state"] in FINAL_STATES and not is_told:
            over_since = over_since or time.monotonic()
            if is_told := time.monotonic() - over_since >= NOTE_AFTER_S:
                say(f"Sweep {seen['short_id']} is {seen['state']}, but {still_running_text(seen)}: `sweep why {seen['short_id']}`. Waiting for that.")
    raise AssertionError("looking ended before the sweep did")
