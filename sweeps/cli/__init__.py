"""The `sweep` command: the table of its verbs, and the one place where errors become text and an exit status.

`sweep --help` has 120 ms, so a verb's module is imported when the verb is used, and nothing heavier than click before.
This package is the composition root: it alone imports the scheduler and the worker, inside the commands that run them.
"""

import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib import import_module
from typing import Final, NamedTuple

try:
    import click
except KeyboardInterrupt:
    # As `main` does, which is not here yet.
    sys.exit(130)

from tracking.errors import InvalidFilter, SweepError

EXIT_FAILED: Final = 1
EXIT_INTERRUPTED: Final = 130
EXIT_PIPE_CLOSED: Final = 141
_SHOWN_BEFORE: Final = 60
_SHOWN_AFTER: Final = 18
COMPLETE_VARIABLE: Final = "_SWEEP_COMPLETE"
"""By which a shell asks for words; its script is that of `sweep completion`."""


class Verb(NamedTuple):
    """Where a command is defined (`module:attribute`), and its line in the menu."""

    target: str
    summary: str


MENU: Final[Mapping[str, Mapping[str, Verb]]] = {
    "Start": {
        "init": Verb("write:init", "Write a commented sweep.yaml."),
        "schema": Verb("write:schema", "Print the JSON Schema of the sweep file, for editors."),
        "validate": Verb("write:validate", "Check a sweep file; no server needed."),
        "submit": Verb("write:submit", "Submit a sweep and return at once."),
        "run": Verb("write:run", "Submit a sweep and follow it to its end."),
    },
    "Look": {
        "ls": Verb("look:ls", "List sweeps, newest first."),
        "status": Verb("look:status", "Counts, best trial and running trials of a sweep."),
        "trials": Verb("look:trials", "List the trials of a sweep."),
        "best": Verb("look:best", "Show the best trial of a sweep."),
        "show": Verb("look:show", "Show one run: parameters, metrics, attempts."),
        "logs": Verb("look:logs", "Print what a run printed."),
        "metrics": Verb("look:metrics", "Show a run's metrics."),
        "why": Verb("look:why", "Tell why a sweep, trial or run is where it is, and what happened to it."),
    },
    "Steer": {
        "pause": Verb("steer:pause", "Start no more trials until resumed."),
        "resume": Verb("steer:resume", "Go on after a pause."),
        "stop": Verb("steer:stop", "Start no more trials; let running ones end."),
        "cancel": Verb("steer:cancel", "Stop a sweep, or one run, and what runs of it."),
        "extend": Verb("again:extend", "Let a sweep have N more trials."),
        "retry": Verb("again:retry", "Run a sweep's failed trials again, or one failed or cancelled trial."),
        "wait": Verb("steer:wait", "Wait until a sweep has ended."),
    },
    "Keep": {
        "register": Verb("models:register", "Register a sweep's winner as a model version."),
        "models": Verb("models:models", "List and show registered models."),
        "export": Verb("export:export", "Write a sweep with all its trials for other tools."),
    },
    "Cluster": {
        "up": Verb("cluster:up", "Start the cluster of this machine."),
        "down": Verb("cluster:down", "Stop the cluster of this machine."),
        "server": Verb("cluster:server", "Run a server in the foreground."),
        "scheduler": Verb("cluster:scheduler", "Run a scheduler in the foreground."),
        "worker": Verb("cluster:worker", "Run a worker in the foreground; list and drain workers."),
        "queue": Verb("cluster:queue", "Show what waits and who serves it."),
        "flower": Verb("cluster:flower", "Run Flower over the cluster's Redis."),
        "db": Verb("cluster:db", "Check or upgrade the database's schema."),
        "doctor": Verb("doctor:doctor", "Check the installation; say what to do."),
        "config": Verb("config:config", "Print the settings that count, and where each comes from."),
        "completion": Verb("completion:completion", "Print what makes the Tab key complete `sweep`."),
        "version": Verb("cluster:version", "Print the release."),
    },
}

VERBS: Final[Mapping[str, Verb]] = {name: verb for section in MENU.values() for name, verb in section.items()}


class Menu(click.Group):
    """A group whose commands are imported when they are used, and listed without being imported."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All verbs, as the menu has them."""
        del ctx
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return a verb."""
        del ctx
        verb = VERBS.get(cmd_name)
        if verb is None:
            return None
        module, _, attribute = verb.target.partition(":")
        command: click.Command = getattr(import_module(f"{__name__}.{module}"), attribute)
        _let_be_quiet(command)
        return command

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the verb; a mistyped one is answered with the likeliest."""
        name = args[0] if args else ""
        if name and not name.startswith("-") and name not in VERBS:
            raise click.UsageError(f"No such command {name!r}.{_did_you_mean(name)}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the menu by sections."""
        del ctx
        width = max(map(len, VERBS))
        for title, section in MENU.items():
            with formatter.section(title):
                formatter.write_dl([(name.ljust(width), verb.summary) for name, verb in section.items()])


def _let_be_quiet(command: click.Command) -> None:
    """Take `--quiet` after the verb too, where people type it."""
    if not any(parameter.name == "quiet" for parameter in command.params):
        command.params.append(click.Option(["-q", "--quiet"], is_flag=True, expose_value=False, callback=_be_quiet, help=_QUIET_HELP))
    for inner in command.commands.values() if isinstance(command, click.Group) else ():
        _let_be_quiet(inner)


def _be_quiet(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if value:
        ctx.find_root().params["quiet"] = True


def _did_you_mean(name: str) -> str:
    from difflib import get_close_matches

    close = get_close_matches(name, VERBS, n=1)
    return f" Did you mean {close[0]!r}?" if close else ""


def _print_version(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        from sweeps.api.version import DISTRIBUTION, program_version

        click.echo(f"{DISTRIBUTION} {program_version()}")
        ctx.exit()


_QUIET_HELP: Final = "Only data and errors: no progress, no hints."
_HELP: Final = """\
Run hyperparameter sweeps: every trial once, recorded once.

\b
sweep init                  write a commented sweep.yaml
sweep run sweep.yaml        run it here and watch it
sweep best                  the best trial of the latest sweep

SWEEP_SERVER names the server; without it, the cluster of this machine is used and started if needed. A sweep is named
by its id, short id, name, a unique prefix, or @latest; a trial by SWEEP/NUMBER.
"""


@click.group(cls=Menu, help=_HELP, context_settings={"help_option_names": ["-h", "--help"]}, no_args_is_help=True)
@click.option("-q", "--quiet", is_flag=True, help=_QUIET_HELP)
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_print_version, help="Print the release.")
def sweep(quiet: bool) -> None:
    """Hold what all verbs share."""
    del quiet  # read by sweeps.cli.terminal from the context


def main(args: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit status (docs/commands.md lists them)."""
    if instruction := os.environ.get(COMPLETE_VARIABLE):
        from sweeps.cli.completion import answer_shell

        return answer_shell(sweep, instruction)
    try:
        return _run(sys.argv[1:] if args is None else list(args))
    except BrokenPipeError:
        # Whoever read our output has gone (`| head`).
        _give_up_output()
        return EXIT_PIPE_CLOSED
    except OSError as error:
        # A disk that is full, most often the one that standard output goes to.
        _give_up_output()
        with suppress(OSError):
            click.echo(f"error: {': '.join(filter(None, (error.filename, error.strerror or str(error))))}.", err=True)
        return EXIT_FAILED


def _run(args: list[str]) -> int:
    try:
        try:
            status = _invoke(args)
        finally:
            if sys.stdout is not None:  # as it is after `>&-`
                sys.stdout.flush()
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except SweepError as error:
        return show_error(error)
    except (KeyboardInterrupt, click.Abort):
        click.echo("Interrupted.", err=True)
        return EXIT_INTERRUPTED
    return status if isinstance(status, int) else 0


def _give_up_output() -> None:
    """Let what is still to be written go nowhere: the interpreter must not find out again at its end."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in filter(None, (sys.stdout, sys.stderr)):
        try:
            stream.flush()
        except OSError:
            os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def _invoke(args: list[str]) -> object:
    # Not click's own `main`: it turns a closed pipe into status 1, which means something else here.
    try:
        with sweep.make_context("sweep", [*args[1:], "--help"] if args[:1] == ["help"] else args) as context:
            return sweep.invoke(context)
    except click.exceptions.Exit as ended:
        return ended.exit_code


def show_error(error: SweepError) -> int:
    """Print an error and its hint to standard error; returns its exit status."""
    # Errors of the sweep file come with their own lines: file, line, column, caret.
    from sweeps.cli.terminal import as_called
    from sweeps.errors import SpecProblems

    click.echo(error.message if isinstance(error, SpecProblems) else f"error: {as_called(error.message)}", err=True)
    if isinstance(error, InvalidFilter) and error.text is not None:
        begin = max(0, error.position - _SHOWN_BEFORE)
        shown = "".join(letter if letter.isprintable() else " " for letter in error.text[begin : error.position + _SHOWN_AFTER])
        click.echo(f"  {shown}\n  {' ' * (error.position - begin)}^", err=True)
    if error.hint:
        click.echo(f"hint: {as_called(error.hint)}", err=True)
    return error.exit_status
