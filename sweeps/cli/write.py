"""Verbs that start things: init, validate, submit, run."""

import re
import shlex
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from sweeps.api.shapes import SCHEMA, SweepAnswer
from sweeps.cli.connection import connected
from sweeps.cli.files import written
from sweeps.cli.follow import EXIT_INTERRUPTED, exit_status, follow, last_failures
from sweeps.cli.picture import ending_lines, next_lines
from sweeps.cli.plan import manner_text, placement_lines, placement_of, plan_of, print_plan
from sweeps.cli.terminal import as_called, json_option, print_json, program, say
from sweeps.client import Client
from sweeps.wording import clean
from tracking.settings import Settings, load_settings

if TYPE_CHECKING:
    from sweeps.spec import Submission

_F = TypeVar("_F", bound=Callable[..., Any])
_FILE_NAME: Final = "sweep.yaml"
_ADDRESS: Final = r"^(git\+|[A-Za-z][\w+.-]+:/|[\w.-]+@[\w.-]+:)"
"""How addresses begin that `mlflow run` takes. A path has lost one of the two slashes."""


class _NamedPath(click.Path):
    """A path that is not empty, as an unset shell variable is: that would be the current folder."""

    name = "path"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value == "":
            self.fail("The name is empty; '.' is the current folder.", param, ctx)
        return super().convert(value, param, ctx)


def _spec_options(function: _F) -> _F:
    for option in reversed(
        (
            click.argument("file", type=_NamedPath(path_type=Path), metavar="FILE"),
            click.option("-P", "--param", "params", multiple=True, metavar="NAME=VALUE", help="Run a FOLDER's project once, with this; may be repeated."),
            click.option("-e", "--entry-point", metavar="ENTRY", help="Run a FOLDER's project once: which entry point, or .py, .sh or .R file."),
            click.option("--name", help="Name of the sweep, instead of the file's."),
            click.option("--trials", type=click.IntRange(min=1), metavar="N", help="How many trials, instead of the file's limit."),
            click.option("--parallel", type=click.IntRange(min=1), metavar="N", help="How many trials at a time."),
            click.option("--queue", help="Which workers' queue, instead of the file's."),
            click.option("--no-pruning", is_flag=True, help="Accept a file with early_terminate, and do not prune."),
        )
    ):
        function = option(function)
    return function


_dry_run_option: Callable[[_F], _F] = click.option("--dry-run", is_flag=True, help="Print what would be submitted and who could run it now, and stop.")


def _load(file: Path, params: tuple[str, ...], overrides: Mapping[str, Any]) -> "Submission":
    """What the command line asks for, checked; what is probably not meant is told."""
    from sweeps.notes import notes

    submission = _read(file, params, overrides)
    for note in notes(submission.config):
        say(f"note: {note}")
    return submission


def _read(file: Path, params: tuple[str, ...], overrides: Mapping[str, Any]) -> "Submission":
    """A sweep file, that of a folder, or one run of a folder: with `-P` or `-e`, or where there is no sweep file in it."""
    # Imported when a file is read: YAML, and the whole of the search space.
    from sweeps.mlproject import find_mlproject
    from sweeps.spec import Overrides, load_project, load_sweep
    from sweeps.whereabouts import is_archive, why_no_place, why_no_project

    path = file / _FILE_NAME if file.is_dir() else file
    entry_point, overrides = overrides.get("entry_point"), {key: value for key, value in overrides.items() if key != "entry_point"}
    if re.match(_ADDRESS, str(file)) and not file.exists():
        raise click.UsageError("Git and other addresses of projects are not served by this version: clone it, then run its folder.")
    if path.name.lower() == "mlproject" and path.is_file():
        raise click.UsageError(f"{path} describes a project and is no sweep file; run its folder: `sweep run {path.parent}`.")
    if not file.exists() or (file.is_file() and is_archive(file)):
        raise why_no_place(file)
    if path.suffix in {".py", ".sh", ".R"}:
        raise click.UsageError(f"{path} is a script, not a sweep file; `sweep init {path.parent}` writes one.")
    if file.is_dir() and (entry_point is not None or not path.exists() or (params and find_mlproject(file) is not None)):
        if entry_point is None and find_mlproject(file) is None:
            raise why_no_project(file)
        return load_project(file, entry_point=entry_point or "main", params=_named(params), overrides=Overrides(**overrides))
    if entry_point is not None:
        raise click.UsageError(f"-e belongs to a folder, not to a sweep file; in {path} it is 'entry_point: {entry_point}'.")
    if params:
        raise click.UsageError(f"-P belongs to a folder with an MLproject; {path} says itself what the parameters are.")
    return load_sweep(path, overrides=Overrides(**overrides))


def _named(params: tuple[str, ...]) -> dict[str, str]:
    pairs = [param.partition("=") for param in params]
    if wrong := [param for param, (name, sign, _) in zip(params, pairs, strict=True) if not sign or not name]:
        raise click.BadParameter(f"{wrong[0]!r} is not NAME=VALUE{': it has no name' if '=' in wrong[0] else ''}.", param_hint="-P")
    names = [name for name, _, _ in pairs]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise click.BadParameter(f"{twice!r} is given twice; several values are a search, which takes a sweep file.", param_hint="-P")
    return {name: value for name, _, value in pairs}


@click.command()
@_spec_options
@json_option
def validate(file: Path, *, params: tuple[str, ...], as_json: bool, **overrides: Any) -> int:
    """Check a sweep file; no server needed.

    Prints what was understood: distributions, grid size, the first commands or such as may come, and what it may cost at
    worst. Exit status 2 if anything is wrong.
    """
    from sweeps.errors import SpecProblems

    try:
        submission = _load(file, params, overrides)
    except SpecProblems as error:
        if not as_json:
            raise
        print_json({"schema": SCHEMA, "valid": False, "errors": [_problem(problem) for problem in error.problems]})
        return error.exit_status
    if as_json:
        print_json({"schema": SCHEMA, "valid": True, "errors": [], **plan_of(submission)})
    else:
        print_plan(submission)
    return 0


def _problem(problem: Any) -> dict[str, Any]:
    names = ("message", "filename", "line", "column", "suggestion", "path")
    return {name: getattr(problem, name) for name in names}


@click.command()
@_spec_options
@_dry_run_option
@json_option
def submit(file: Path, *, params: tuple[str, ...], dry_run: bool, as_json: bool, **overrides: Any) -> int:
    """Submit a sweep and return at once.

    Packs the folder of the sweep file (what .gitignore and .sweepignore name is left out), uploads it once, and prints
    the sweep's id and what to type next.
    """
    settings = load_settings()
    submission = _load(file, params, overrides)
    if dry_run:
        return _rehearse(submission, settings, as_json=as_json)
    from sweeps.submission import send

    with connected(settings) as client:
        sweep = send(client, submission, settings, tell=say)
        if as_json:
            print_json(_submitted(sweep, submission))
        else:
            _print_submitted(sweep)
    return 0


def _rehearse(submission: "Submission", settings: Settings, *, as_json: bool) -> int:
    """All that `validate` tells, and who could run it now; nothing is submitted, and no cluster started."""
    placement = placement_of(submission.config, settings)
    if as_json:
        print_json({"schema": SCHEMA, **plan_of(submission), "placement": placement})
    else:
        print_plan(submission)
        for line in placement_lines(placement):
            click.echo(as_called(line))
        say("Nothing was submitted.")
    return 0


def _submitted(sweep: SweepAnswer, submission: "Submission") -> dict[str, Any]:
    from sweeps.notes import notes

    return {
        "schema": SCHEMA,
        "sweep_id": sweep["sweep_id"],
        "name": sweep["name"],
        "short_id": sweep["short_id"],
        "state": sweep["state"],
        "trials_asked": sweep["trials_asked"],
        "urls": sweep["urls"],
        "notes": notes(submission.config),
    }


def _print_submitted(sweep: SweepAnswer) -> None:
    ref = sweep["short_id"]
    plan = {**sweep, "trials": sweep["trials_asked"]}
    click.echo(f"Submitted {clean(sweep['name'])} ({ref}): {manner_text(plan)}")
    say(f"  watch:  {program()} status {ref} --watch")
    say(f"  best:   {program()} best {ref}")
    say(f"  cancel: {program()} cancel {ref}")


@click.command()
@_spec_options
@_dry_run_option
@json_option
def run(file: Path, *, params: tuple[str, ...], dry_run: bool, as_json: bool, **overrides: Any) -> int:
    """Submit a sweep and follow it to its end.

    A folder with an MLproject is run once where it has no sweep file, or where -P or -e ask for that.
    One table, redrawn in place: counts, best so far, running trials. Ctrl-C detaches, the sweep goes on. Exit status 6
    if no trial succeeded, however it ended; else 1 if it failed or was cancelled; else 0. With --json, one object a line
    at each change.
    """
    from sweeps.notes import notes

    settings = load_settings()
    submission = _load(file, params, overrides)
    if dry_run:
        return _rehearse(submission, settings, as_json=as_json)
    from sweeps.submission import send

    with connected(settings) as client:
        sweep = send(client, submission, settings, tell=say)
        say(f"Submitted {clean(sweep['name'])} ({sweep['short_id']})")
        return finish_following(client, sweep, as_json=as_json, more={"notes": notes(submission.config)})


def finish_following(client: Client, sweep: SweepAnswer, *, as_json: bool, more: Mapping[str, Any] | None = None) -> int:
    """Follow a sweep to its end and tell how it ended; returns the exit status.

    Args:
        more: what each object of `--json` holds besides.
    """
    ended = follow(client, sweep, as_json=as_json, more=more)
    if ended is None:
        return EXIT_INTERRUPTED
    if not as_json:
        click.echo("\n".join(ending_lines(ended, last_failures(client, ended))))
        sys.stdout.flush()
        say("\n".join(["", *next_lines(ended)]))
    return exit_status(ended)


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False, exists=True), default=".")
@click.option("--from", "origin", type=click.Choice(["wandb", "mlproject"]), help="What to begin with, instead of what the folder holds.")
@click.option("--force", is_flag=True, help="Overwrite an existing sweep.yaml.")
def init(folder: Path, *, origin: str | None, force: bool) -> int:
    """Write a commented sweep.yaml.

    Begins with the MLproject of FOLDER, or else with the script in it. Beside it goes sweep.schema.json, which the first
    line names: editors that understand it (VS Code, Neovim and others through yaml-language-server) complete and check the
    file by it, without a network.
    """
    from sweeps.cli.templates import SCHEMA_NAME, script_is_missing, starting_file

    target = folder / _FILE_NAME
    if target.exists() and not force:
        raise click.UsageError(f"{target} is already there; --force overwrites it.")
    text = starting_file(folder, origin)
    schema_file = folder / SCHEMA_NAME
    if force or not schema_file.exists():
        _write(schema_file, _schema_text())
    _write(target, text)
    click.echo(str(target))
    say(f"{SCHEMA_NAME} beside it lets editors complete and check it.")
    if script_is_missing(folder, text):
        say("There is no script here yet: write one, and name it in the file before you run it.")
    shown = shlex.quote(str(target))
    say(f"next:\n  {program()} validate {shown}\n  {program()} run {shown}")
    return 0


def _write(target: Path, text: str) -> None:
    """Write a file whole, or not at all."""
    with written(target) as file:
        file.write(text)


def _schema_text() -> str:
    from importlib.resources import files

    return (files("sweeps") / "sweep.schema.json").read_text(encoding="utf-8")


@click.command()
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE", help="Write it there, instead of printing it.")
def schema(*, out: Path | None) -> int:
    """Print the JSON Schema of the sweep file, for editors.

    A sweep file names it in its first line, as `sweep init` writes it:

        # yaml-language-server: $schema=sweep.schema.json
    """
    if out is None:
        click.echo(_schema_text(), nl=False)
    else:
        _write(out, _schema_text())
        click.echo(str(out))
    return 0
