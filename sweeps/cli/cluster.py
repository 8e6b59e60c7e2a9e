"""Verbs of the machinery: up, down, the roles in the foreground, workers, queues, database, Flower, version."""

import logging
import os
import sys
import time
from collections.abc import Iterable
from dataclasses import replace
from typing import Any, Final

import click
from click.shell_completion import CompletionItem

from sweeps.api.shapes import SCHEMA, SweepSummary, WorkerAnswer, WorkerEntry
from sweeps.cli.completion import complete_workers
from sweeps.cli.connection import connected
from sweeps.cli.terminal import as_called, confirm, json_option, print_json, print_table, say, yes_option
from sweeps.client import Client, MissingOnServer, ServerAway, ServerError
from sweeps.wording import bytes_text, clean, counted
from tracking.errors import SettingError
from tracking.settings import Settings, load_settings

_QUEUE_COUNTS: Final = ("queue", "waiting", "running", "sweeps", "workers", "slots")
_STOP_SLACK_S: Final = 15.0
"""For a request to stop to reach a worker, and its answer to come back, beside the trial's own time to stop."""


def _start_logging(settings: Settings) -> None:
    """Log to standard error, as a supervisor of services expects."""
    level = settings.log_level.upper()
    if level not in logging.getLevelNamesMapping():
        raise SettingError(f"SWEEP_LOG_LEVEL={settings.log_level!r} is no level.", hint="Use DEBUG, INFO, WARNING or ERROR.")
    logging.basicConfig(level=level, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr)


def _with_database(settings: Settings) -> Settings:
    """The settings with a database: the embedded one of this machine, at the newest schema, if none is named."""
    if settings.database_url:
        return settings
    from tracking.store import upgrade_schema

    url = _database_url(settings)
    upgrade_schema(url)
    return replace(settings, database_url=url)


def _database_url(settings: Settings) -> str:
    """The database that is named, or the embedded one of this machine, started if need be."""
    if settings.database_url:
        return settings.database_url
    from tracking import embedded

    if not embedded.status(settings.home).is_running:
        say(f"Starting the Postgres of this machine in {settings.home}; `sweep down` stops it.")
    return embedded.ensure_running(settings.home)


@click.command()
@json_option
def up(*, as_json: bool) -> int:
    """Start the cluster of this machine.

    Server, scheduler and a worker over an embedded Postgres under SWEEP_HOME. What already runs is left as it is.
    """
    from sweeps.local import ensure_cluster

    _print_url(ensure_cluster(load_settings(), say=say), as_json=as_json)
    return 0


def _print_url(url: str, *, as_json: bool) -> None:
    if as_json:
        print_json({"schema": SCHEMA, "url": url})
    else:
        click.echo(url)


@click.command()
@click.option("--cancel", "is_cancelling", is_flag=True, help="Cancel the sweeps before, and wait until nothing runs.")
@yes_option
@json_option
def down(*, is_cancelling: bool, yes: bool, as_json: bool) -> int:
    """Stop the cluster of this machine.

    Sweeps stay in the record and go on with the next `sweep up`. Trials that run go on meanwhile, without the cluster,
    unless --cancel ends them before. Exit status 1 if one would not end.
    """
    from sweeps.local import cluster_status, stop_cluster

    settings = load_settings()
    status = cluster_status(settings)
    running: int | None = 0
    if status.is_running and is_cancelling:
        with Client(status.url, timeout_s=30) as client:
            running = _cancel_all(client, settings, yes=yes)
    elif status.is_running:
        running = _running_trials(status.url)
        if running:
            confirm(f"{counted(running, 'trial')} {_verb(running, 'runs', 'run')} here. Stop the cluster?", yes=yes)
    is_stopped = stop_cluster(settings)
    if as_json:
        print_json({"schema": SCHEMA, "stopped": is_stopped, "running": running})
    if not is_stopped:
        say("Nothing was running.")
        return 0
    say("Stopped.")
    _say_what_goes_on(running, is_cancelling=is_cancelling)
    return 1 if is_cancelling and running else 0


def _verb(count: int, one: str, many: str) -> str:
    return one if count == 1 else many


def _say_what_goes_on(running: int | None, *, is_cancelling: bool) -> None:
    if running is None:
        say("The server did not say whether trials run: those that do go on without us, and are taken up by the next `sweep up`.")
    elif running and is_cancelling:
        say(f"{counted(running, 'trial')} did not end in time, and {_verb(running, 'is', 'are')} stopped by the next `sweep up`.")
    elif running:
        say(f"{counted(running, 'trial')} {_verb(running, 'goes', 'go')} on without us and {_verb(running, 'is', 'are')} taken up by the next `sweep up`.")
        say("To end them: `sweep up`, and then `sweep cancel SWEEP` or `sweep down --cancel`.")


def _running_trials(url: str) -> int | None:
    """How many trials run on the local cluster; None when its server does not say."""
    try:
        with Client(url, timeout_s=5) as client:
            return _n_running(client)
    except ServerAway:
        return None


def _n_running(client: Client) -> int:
    """By the workers, not by the sweeps: a trial that is being cancelled runs too, and its sweep has ended."""
    return sum(len(each["running"]) for each in client.workers()["workers"])


def _cancel_all(client: Client, settings: Settings, *, yes: bool) -> int:
    """Cancel every live sweep and wait until nothing runs, for as long as a trial may take to stop; how many still run."""
    live = list(_live_sweeps(client))
    if live:
        trials = counted(_n_running(client), "running trial")
        confirm(f"{counted(len(live), 'sweep')} with {trials} will be cancelled. Stop the cluster?", yes=yes)
    for each in live:
        try:
            client.steer(each["sweep_id"], "cancel")
        except ServerError as error:
            if error.error_code != "RESOURCE_CONFLICT":
                raise
            # It has ended meanwhile.
    deadline = time.monotonic() + settings.stop_grace_s + _STOP_SLACK_S
    while (running := _n_running(client)) and time.monotonic() < deadline:
        time.sleep(0.2)
    return running


def _live_sweeps(client: Client) -> Iterable[SweepSummary]:
    for state in ("active", "paused", "stopping"):
        yield from client.sweeps(state=state, limit=1000)["sweeps"]


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), default=8080, show_default=True, help="0 picks a free one.")
@click.option("--open", "is_open", is_flag=True, help="Listen elsewhere than on loopback. Whoever reaches the server may run commands.")
def server(*, host: str, port: int, is_open: bool) -> int:
    """Run a server in the foreground.

    Prints its address once it answers. Ends on SIGTERM or Ctrl-C, after the requests it has begun.
    """
    from sweeps.server import ServerOptions, require_loopback_or_open, run_server

    options = ServerOptions(host=host, port=port, is_open=is_open)
    require_loopback_or_open(options)
    settings = load_settings()
    _start_logging(settings)
    return run_server(settings, options, on_ready=_print_address)


def _print_address(url: str) -> None:
    click.echo(f"Serving on {url}")
    sys.stdout.flush()


@click.command()
def scheduler() -> int:
    """Run a scheduler in the foreground.

    Any number may run: one leads, the others stand by.
    """
    from scheduler.main import run_scheduler

    settings = load_settings()
    _start_logging(settings)
    return run_scheduler(_with_database(settings))


class _WorkerGroup(click.Group):
    """`sweep worker ...` without a known verb means `sweep worker start ...`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put `start` before options that are not the group's own; the Tab key looks at what is there."""
        if not args and ctx.resilient_parsing:
            return super().parse_args(ctx, args)
        at = next((index for index, word in enumerate(args) if word not in ("-q", "--quiet")), len(args))
        if at == len(args) or (args[at] not in self.commands and args[at] not in ("-h", "--help")):
            args = [*args[:at], "start", *args[at:]]
        return super().parse_args(ctx, args)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem[str]]:
        """Its verbs; or options, with those of `start`."""
        found = super().shell_complete(ctx, incomplete)
        known = {item.value for item in found}
        start = self.commands["start"].shell_complete(ctx, incomplete) if incomplete.startswith("-") else []
        return [*found, *(item for item in start if item.value not in known)]


@click.group(cls=_WorkerGroup)
def worker() -> None:
    """Run a worker in the foreground; list and drain workers.

    Without a verb: start.
    """


@worker.command("start")
@click.option("--name", help="Name of the worker; the host's name otherwise.")
@click.option("--queue", "queues", multiple=True, metavar="QUEUE", help="Serve this queue; may be repeated. Otherwise: default.")
@click.option("--slots", type=click.IntRange(min=1), metavar="N", help="So many runs at once; one for each core otherwise.")
@click.option("--cpus", type=click.FloatRange(min=0, min_open=True), metavar="N", help="Cores that may be promised to runs.")
@click.option("--memory", metavar="SIZE", help="Memory that may be promised to runs, such as 8g.")
@click.option("--gpus", type=click.IntRange(min=0), metavar="N", help="GPUs that may be given to runs.")
def start_worker(**given: Any) -> int:
    """Run a worker in the foreground.

    It works for the cluster of this machine, beside its own worker, unless SWEEP_DATABASE_URL and SWEEP_SERVER name
    another. On SIGTERM it takes no more runs and leaves those it has running; started again in the same place, it takes
    them up.
    """
    from worker.main import run_worker

    settings = load_settings()
    _start_logging(settings)
    return run_worker(_attached(settings), _worker_options(**given))


def _attached(settings: Settings) -> Settings:
    """The settings of a worker: those of the cluster that runs on this machine, if no database is named.

    Raises:
        LocalError: no cluster runs here.
        SettingError: it works for a server elsewhere, and only the server is named.
    """
    if settings.database_url:
        return settings
    from sweeps.local import LocalError, cluster_status
    from tracking import embedded

    status, postgres = cluster_status(settings), embedded.status(settings.home)
    if settings.server and settings.server.rstrip("/") != status.url:
        raise SettingError("A worker needs the database of its server.", hint="Set SWEEP_DATABASE_URL as the server has it.")
    if not (status.is_running and status.phase == "running" and postgres.is_running):
        hint = "Start it with `sweep up`, or set SWEEP_DATABASE_URL and SWEEP_SERVER to work for another one."
        raise LocalError(f"No cluster with a database of its own runs in {settings.home}.", hint=hint)
    return replace(settings, database_url=postgres.url, server=status.url, broker_url=settings.broker_url or "filesystem://")


def _worker_options(*, name: str | None, queues: tuple[str, ...], slots: int | None, cpus: float | None, memory: str | None, gpus: int | None) -> Any:
    from sweeps.spec_fields import parse_size
    from worker.main import WorkerOptions

    memory_bytes = parse_size(memory) if memory else None
    if memory and memory_bytes is None:
        raise click.BadParameter(f"{memory!r} is no size; write 512m or 8g.", param_hint="--memory")
    return WorkerOptions(name=name, queues=queues or ("default",), slots=slots, cpus=cpus, memory_bytes=memory_bytes, gpus=gpus or 0)


@worker.command("ls")
@click.option("--all", "include_gone", is_flag=True, help="Also workers that are gone.")
@json_option
def list_workers(*, include_gone: bool, as_json: bool) -> int:
    """List workers and what they run."""
    with connected() as client:
        answer = client.workers(include_gone=include_gone)
    if as_json:
        print_json(answer)
        return 0
    if not answer["workers"]:
        say("No worker is here: `sweep worker` starts one.")
        return 0
    print_table(("WORKER", "STATE", "HOST", "QUEUES", "BUSY", "CPUS", "MEMORY", "GPUS", "NOTE"), [_worker_row(entry) for entry in answer["workers"]])
    return 0


def _worker_row(entry: WorkerEntry) -> tuple[object, ...]:
    return (
        entry["name"],
        entry["state"],
        entry["hostname"],
        ",".join(entry["queues"]),
        f"{len(entry['running'])}/{entry['slots']}",
        f"{entry['cpus']:g}",
        bytes_text(entry["memory_bytes"]),
        entry["gpus"],
        entry["cordoned"],
    )


@worker.command("drain")
@click.argument("name", shell_complete=complete_workers)
@click.option("--undo", is_flag=True, help="Give it runs again.")
@yes_option
@json_option
def drain_worker(name: str, *, undo: bool, yes: bool, as_json: bool) -> int:
    """Give a worker no more runs.

    Those it has go on to their end, and the worker stays up: stop it yourself when nothing runs there any more.
    A drain lasts until --undo, or until the worker is started anew.
    """
    with connected() as client:
        if undo:
            entry = client.undrain_worker(name)
            return _tell_worker(entry, f"is not drained any more; it is {entry['state']}", as_json=as_json)
        _require_worker(client, name)
        confirm(f"Give worker {name} no more runs?", yes=yes)
        entry = client.drain_worker(name)
    return _tell_worker(entry, f"takes no more runs; {len(entry['running'])} still run there", as_json=as_json)


def _require_worker(client: Client, ref: str) -> None:
    """Before a question about a worker: that there is one.

    Raises:
        MissingOnServer: there is none.
    """
    if not any(ref in (each["name"], each["worker_id"]) for each in client.workers(include_gone=True)["workers"]):
        raise MissingOnServer(f"There is no worker {ref!r}.", hint="`sweep worker ls` lists them.")


@worker.command("uncordon")
@click.argument("name", shell_complete=complete_workers)
@json_option
def uncordon_worker(name: str, *, as_json: bool) -> int:
    """Lift the cordon around a worker.

    A worker on which several runs could not be started, one after the other, is cordoned: it gets none for a while.
    """
    with connected() as client:
        entry = client.uncordon_worker(name)
    return _tell_worker(entry, f"is not cordoned any more; it is {entry['state']}", as_json=as_json)


def _tell_worker(entry: WorkerAnswer, told: str, *, as_json: bool) -> int:
    if as_json:
        print_json(entry)
    say(f"Worker {clean(entry['name'])} {told}.")
    return 0


@click.command()
@json_option
def queue(*, as_json: bool) -> int:
    """Show what waits and who serves it."""
    with connected() as client:
        live = list(_live_sweeps(client))
        rows = queue_rows(live, client.workers()["workers"])
        _explain_waiting(client, live, rows)
    if as_json:
        print_json({"schema": SCHEMA, "queues": rows})
        return 0
    if not rows:
        say("Nothing waits, and no worker is here.")
        return 0
    print_table(
        ("QUEUE", "WAITING", "RUNNING", "SWEEPS", "WORKERS", "SLOTS", "NOTE"),
        [(*(row[name] for name in _QUEUE_COUNTS), as_called(row["note"])) for row in rows],
    )
    return 0


def _explain_waiting(client: Client, sweeps: Iterable[SweepSummary], rows: Iterable[dict[str, Any]]) -> None:
    """Note why, where trials wait and none runs; the reason is that of the queue's newest sweep that has one waiting."""
    for row in rows:
        if not row["waiting"] or row["running"]:
            continue
        waiting = [each for each in sweeps if each["queue"] == row["queue"] and each["counts"]["queued"] + each["counts"]["placed"]]
        row["note"] = " ".join(client.why(waiting[0]["sweep_id"])["reasons"][:1]) or row["note"]


def queue_rows(sweeps: Iterable[SweepSummary], workers: Iterable[WorkerEntry]) -> list[dict[str, Any]]:
    """A row for each queue that is asked for or served."""
    found: dict[str, dict[str, Any]] = {}

    def row(name: str) -> dict[str, Any]:
        return found.setdefault(name, {"queue": name, "waiting": 0, "running": 0, "sweeps": 0, "workers": 0, "slots": 0, "note": ""})

    for sweep in sweeps:
        entry = row(sweep["queue"])
        entry["waiting"] += sweep["counts"]["queued"] + sweep["counts"]["placed"]
        entry["running"] += sweep["counts"]["running"]
        entry["sweeps"] += 1
    for each in workers:
        if each["state"] in ("silent", "draining", "cordoned"):
            continue
        for name in each["queues"]:
            entry = row(name)
            entry["workers"] += 1
            entry["slots"] += each["slots"]
    for entry in found.values():
        if entry["sweeps"] and not entry["workers"]:
            entry["note"] = f"No worker takes runs of it: `sweep worker --queue {entry['queue']} --name NAME` starts one."
    return sorted(found.values(), key=lambda entry: str(entry["queue"]))


@click.command()
@click.option("--address", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=click.IntRange(1, 65535), default=5555, show_default=True)
def flower(*, address: str, port: int) -> int:
    """Run Flower over the cluster's Redis.

    A window for operators, read-only: workers, running tasks under their run ids. It has no users: keep it on loopback.
    """
    from tracking.broker import flower_argv, flower_environ

    settings = load_settings()
    argv = flower_argv(settings, address=address, port=port)
    environ = {**os.environ, **flower_environ(settings)}
    click.echo(f"Flower on http://{address}:{port}")
    sys.stdout.flush()
    os.execvpe(argv[0], argv, environ)  # noqa: S606 - an argument vector, no shell


@click.group()
def db() -> None:
    """Check or upgrade the database's schema."""


@db.command("url")
@json_option
def url(*, as_json: bool) -> int:
    """Print the database's URL, for psql and other tools.

    The database of SWEEP_DATABASE_URL, or the embedded one.
    """
    from tracking.store.database import plain_url

    _print_url(plain_url(_database_url(load_settings())), as_json=as_json)
    return 0


@db.command("upgrade")
def upgrade() -> int:
    """Bring the database to the schema of this release.

    The database of SWEEP_DATABASE_URL, or the embedded one. One that fits is given what it lacks beside its tables: the
    time limit on our role's idle transactions, which a restored dump comes without.
    """
    from tracking.store import upgrade_schema

    revision = upgrade_schema(_database_url(load_settings()))
    click.echo(f"The schema is at {revision}.")
    return 0


@db.command("check")
@json_option
def check(*, as_json: bool) -> int:
    """Tell whether the database's schema fits this release; exit status 1 if not."""
    from tracking.store import open_store

    open_store(_database_url(load_settings()), pool_size=1).close()
    if as_json:
        print_json({"schema": SCHEMA, "fits": True})
    else:
        click.echo("The schema fits.")
    return 0


@click.command()
@json_option
def version(*, as_json: bool) -> int:
    """Print the release."""
    from sweeps.api.version import DISTRIBUTION, program_version

    if as_json:
        print_json({"schema": SCHEMA, "name": DISTRIBUTION, "version": program_version(), "python": sys.version.split()[0]})
    else:
        click.echo(f"{DISTRIBUTION} {program_version()}")
    return 0
