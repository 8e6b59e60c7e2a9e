"""Verbs that only read: ls, status, trials, best, show, logs, metrics, why."""

import shlex
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, TypeVar

import click

from sweeps.api.shapes import BestAnswer, LogAnswer, RunAnswer, SweepAnswer, SweepSummary, TrialAnswer, TrialList
from sweeps.cli.completion import complete_runs, complete_sweeps, complete_sweeps_and_runs
from sweeps.cli.connection import connected
from sweeps.cli.follow import EXIT_INTERRUPTED, EXIT_NO_SUCCESS, last_failures
from sweeps.cli.picture import failure_lines, status_lines
from sweeps.cli.terminal import as_called, has_colour, is_terminal, json_option, params_text, print_json, print_table, say, watch_option
from sweeps.client import Client, MissingOnServer
from sweeps.looks import POLL_S, waiting_notes
from sweeps.standing import FINAL_STATES, has_settled, progress_text
from sweeps.wording import clean, duration_text, listed, no_best_text, short
from tracking.errors import InvalidValue

_F = TypeVar("_F", bound=Callable[..., Any])
SWEEP_STATES: Final = ("active", "paused", "stopping", "finished", "failed", "cancelled")
TRIAL_STATES: Final = ("open", "finished", "failed", "pruned", "cancelled")
_SWEEP_HEADINGS: Final = ("ID", "NAME", "STATE", "DONE", "RUNNING", "FAILED", "CANCELLED", "USER", "CREATED (UTC)")
_NOT_STARTED: Final = frozenset({"queued", "placed"})

sweep_argument: Callable[[_F], _F] = click.argument("sweep", default="@latest", metavar="[SWEEP]", shell_complete=complete_sweeps)


def _checked(context: click.Context, parameter: click.Parameter, where: str | None) -> str | None:
    """The filter, if it is one: what is wrong with it is told before anybody is asked."""
    del context, parameter
    if where is not None:
        from tracking.filters import parse_filter

        parse_filter(where)
    return where


where_option: Callable[[_F], _F] = click.option(
    "--where", metavar="FILTER", callback=_checked, help="Only trials whose run meets this: 'params.lr < 0.1 AND metrics.loss < 1'."
)


@click.command()
@click.option("--state", type=click.Choice(SWEEP_STATES), help="Only sweeps in this state.")
@click.option("--limit", type=click.IntRange(1, 1000), default=20, show_default=True, help="At most so many.")
@watch_option
@json_option
def ls(*, state: str | None, limit: int, watch: bool, as_json: bool) -> int:
    """List sweeps, newest first.

    DONE counts the trials that finished, failed or were pruned, of those asked for. With --watch, until Ctrl-C: the
    table is redrawn in place on a terminal; elsewhere a sweep is printed again whenever its state or counts have changed.
    """
    with connected() as client:
        if watch:
            return _watch_sweeps(client, state, limit, as_json=as_json)
        answer = client.sweeps(state=state, limit=limit)
    if as_json:
        print_json(answer)
        return 0
    if not answer["sweeps"]:
        say(f"No sweeps in state {state}." if state else "No sweeps yet: `sweep init && sweep run sweep.yaml`.")
        return 0
    print_table(_SWEEP_HEADINGS, [_sweep_row(sweep) for sweep in answer["sweeps"]])
    return 0


def _sweep_row(sweep: SweepSummary) -> tuple[object, ...]:
    return (
        sweep["short_id"],
        sweep["name"],
        sweep["state"],
        progress_text(sweep),
        sweep["counts"]["running"],
        sweep["counts"]["failed"],
        sweep["counts"]["cancelled"],
        sweep["user_name"] or None,
        sweep["created_at"][:16].replace("T", " "),
    )


def _watch_sweeps(client: Client, state: str | None, limit: int, *, as_json: bool) -> int:
    from sweeps.cli.watch import Listing, Manner, watch

    def look() -> Listing[SweepSummary]:
        answer = client.sweeps(state=state, limit=limit)
        return Listing(answer["sweeps"], _SWEEP_HEADINGS, {"schema": answer["schema"]})

    manner: Manner[SweepSummary] = Manner(lambda sweep: sweep["sweep_id"], lambda sweep: (sweep["state"], sweep["counts"]), _sweep_row)
    return watch(look, manner, as_json=as_json, bye="Watched no more; the sweeps go on.") or 0


@click.command()
@sweep_argument
@click.option("-w", "--watch", is_flag=True, help="Follow it to its end, as `sweep run` does.")
@json_option
def status(sweep: str, *, watch: bool, as_json: bool) -> int:
    """Counts, best trial and running trials of a sweep."""
    with connected() as client:
        answer = client.sweep(sweep)
        if watch:
            from sweeps.cli.write import finish_following

            return finish_following(client, answer, as_json=as_json)
        if as_json:
            print_json(answer)
            return 0
        _print_status(client, answer)
    return 0


def _print_status(client: Client, answer: SweepAnswer) -> None:
    size = shutil.get_terminal_size((100, 24))
    columns = size.columns if is_terminal() else 10_000
    first, *rest = status_lines(answer, columns, max(size.lines, 24), [as_called(note) for note in waiting_notes(client, answer)])
    click.echo(click.style(first, bold=True) if has_colour() else first)
    for line in [*rest, *failure_lines(answer, last_failures(client, answer))]:
        click.echo(line)


@click.command()
@sweep_argument
@click.option("--state", "states", type=click.Choice(TRIAL_STATES), multiple=True, help="Only trials in this state; may be repeated.")
@click.option("--sort", type=click.Choice(["number", "value"]), default="number", show_default=True, help="By number, or best first.")
@click.option("--top", type=click.IntRange(min=1), metavar="N", help="Only the first N.")
@where_option
@watch_option
@json_option
def trials(sweep: str, *, states: tuple[str, ...], sort: str, top: int | None, where: str | None, watch: bool, as_json: bool) -> int:
    """List the trials of a sweep.

    FILTER is MLflow's search grammar, with OR, NOT and parentheses: parameters, metrics, tags and attributes of the trials' runs (docs/searching.md).

    With --watch, until the sweep has ended: the table is redrawn in place on a terminal, and printed whole at the end;
    elsewhere a trial is printed again whenever something of it has changed. Ctrl-C detaches, the sweep goes on.
    """
    with connected() as client:
        if watch:
            ref = client.sweep(sweep)["sweep_id"]
            status = _watch_trials(client, ref, {"states": states, "sort": sort, "limit": top, "where": where}, as_json=as_json)
            if status is not None or as_json or not is_terminal():
                return status or 0
            sweep = ref
        answer = client.trials(sweep, states=states, sort=sort, limit=top, where=where)
    if as_json:
        print_json(answer)
        return 0
    print_table(_trial_headings(answer), [_trial_row(trial) for trial in answer["trials"]])
    if not answer["trials"]:
        which = (f" in state {listed(list(states))}" if states else "") + (" that meet the filter" if where else "")
        say(f"No trials{which or ' yet'}: `sweep status {answer['short_id']}`.")
    return 0


def _watch_trials(client: Client, sweep_id: str, how: Mapping[str, Any], *, as_json: bool) -> int | None:
    from sweeps.cli.watch import Listing, Manner, watch

    def look() -> Listing[TrialAnswer]:
        # Asked first: what has changed since is in the list.
        is_over = has_settled(client.sweep(sweep_id))
        answer = client.trials(sweep_id, **how)
        more = {key: answer[key] for key in ("schema", "sweep_id", "short_id")}
        return Listing(answer["trials"], _trial_headings(answer), more, is_over)

    def facts(trial: TrialAnswer) -> object:
        return {key: value for key, value in trial.items() if key != "duration_s"}

    manner: Manner[TrialAnswer] = Manner(lambda trial: trial["number"], facts, _trial_row, keeps_last=how["sort"] == "number" and how["limit"] is None)
    return watch(look, manner, as_json=as_json, bye="detached; the sweep goes on.")


def _trial_headings(answer: TrialList) -> tuple[str, ...]:
    return ("TRIAL", "STATE", clean(answer["metric"] or "value").upper(), "TIME", "TRIES", "CAUSE", "PARAMS")


def _trial_row(trial: TrialAnswer) -> tuple[object, ...]:
    exact = not is_terminal()
    state = trial["run_state"] if trial["state"] == "open" else trial["state"]
    value = trial["value"] if exact else short(trial["value"])
    cause = None if trial["cause"] == "completed" else trial["cause"]
    return (
        trial["number"],
        state,
        value,
        duration_text(trial["duration_s"]),
        trial["attempts"],
        cause,
        params_text(trial["params"], exact=exact),
    )


@click.command()
@sweep_argument
@click.option("--top", type=click.IntRange(1, 1000), default=1, show_default=True, help="So many of the best.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "json", "args", "env"]),
    default="table",
    show_default=True,
    help="args: --lr=0.01 --layers=3, as ${args} of the file; env: LR=0.01.",
)
@where_option
@json_option
def best(sweep: str, *, top: int, form: str, where: str | None, as_json: bool) -> int:
    """Show the best trial of a sweep.

    FILTER is MLflow's search grammar, with OR, NOT and parentheses: parameters, metrics, tags and attributes of the trials' runs (docs/searching.md).

    Exit status 6 if no trial has finished with a value.
    """
    with connected() as client:
        answer = client.best(sweep, top=top, where=where)
        given = _given(client, answer) if form == "args" and answer["top"] and not as_json else []
    if as_json or form == "json":
        print_json(answer)
    elif not answer["top"] and where:
        say(f"No trial of {answer['short_id']} that meets the filter has finished with a value. `sweep trials {answer['short_id']}` lists its trials.")
    elif not answer["top"]:
        told = no_best_text(answer["short_id"], answer["metric"], is_over=answer["state"] in FINAL_STATES)
        say(f"{told} `sweep trials {answer['short_id']}` lists its trials.")
    elif form == "table":
        _print_best(answer)
    elif form == "args":
        for params in given:
            click.echo(as_arguments(params))
    else:
        for trial in answer["top"]:
            click.echo(as_environment(trial["params"]))
    return 0 if answer["top"] else EXIT_NO_SUCCESS


def _print_best(answer: BestAnswer) -> None:
    exact = not is_terminal()
    rows = [
        (trial["number"], trial["value"] if exact else short(trial["value"]), trial["run_id"], params_text(trial["params"], exact=exact))
        for trial in answer["top"]
    ]
    print_table(("TRIAL", clean(answer["metric"] or "value").upper(), "RUN", "PARAMS"), rows)


def _given(client: Client, answer: BestAnswer) -> list[Mapping[str, Any]]:
    """The best trials' parameters as `${args}` of the file gives them to the script: nested where the file nests them."""
    # Imported for this alone: the form of a sweep's configuration.
    from sweeps.command import ENTRY_POINT, EntryCommands, MacroCommand, as_given
    from sweeps.spec_config import SweepConfig

    command = SweepConfig.from_builtins(client.sweep(answer["sweep_id"])["config"]).command
    trials: list[Mapping[str, Any]] = [trial["params"] for trial in answer["top"]]
    if isinstance(command, EntryCommands):
        return [{name: value for name, value in params.items() if name != ENTRY_POINT} for params in trials]
    return [as_given(command, params) for params in trials] if isinstance(command, MacroCommand) else trials


def as_arguments(params: Mapping[str, Any]) -> str:
    """`--lr=0.01 --layers=3`, quoted for a shell."""
    return " ".join(shlex.quote(f"--{name}={value}") for name, value in params.items())


def as_environment(params: Mapping[str, Any]) -> str:
    """`LR=0.01`, a line each, quoted for a shell.

    Raises:
        InvalidValue: two parameters would be one variable.
    """
    named: dict[str, str] = {}
    for name in params:
        variable = "".join(char if char.isascii() and char.isalnum() else "_" for char in name.upper())
        variable = f"_{variable}" if variable[:1].isdigit() else variable
        if (other := named.setdefault(variable, name)) != name:
            raise InvalidValue(
                f"Parameters {other!r} and {name!r} would both be the variable {variable}.", hint="--format args and --format json keep the names."
            )
    return "\n".join(f"{variable}={shlex.quote(str(params[name]))}" for variable, name in named.items())


@click.command()
@click.argument("run", shell_complete=complete_runs)
@json_option
def show(run: str, *, as_json: bool) -> int:
    """Show one run: parameters, metrics, attempts.

    RUN is a run id, a unique prefix of one, or SWEEP/NUMBER.
    """
    with connected() as client:
        answer = run_named(client, run, "show")
    if as_json:
        print_json(answer)
    else:
        _print_run(answer)
    return 0


def run_named(client: Client, ref: str, verb: str) -> RunAnswer:
    """The run that `ref` names; a sweep is no run to look at, though it has one.

    Raises:
        MissingOnServer: there is none, or it is a sweep's.
    """
    try:
        run = client.run(ref)
    except MissingOnServer as error:
        try:
            sweep = client.sweep(ref)
        except MissingOnServer:
            raise error from None
    else:
        if run["kind"] != "sweep":
            return run
        sweep = client.sweep(run["run_id"])
    short_id = sweep["short_id"]
    raise MissingOnServer(f"{ref!r} is a sweep; name a trial of it, such as {short_id}/0.", hint=f"`sweep {verb} {short_id}/0`, or `sweep status {short_id}`.")


def _print_run(run: RunAnswer) -> None:
    ended = f", {run['cause']}" if run["cause"] else ""
    click.echo(f"{clean(run['name']) or run['run_id']}  {run['state'].upper()}{ended}  {duration_text(run['duration_s'])}")
    if run["detail"]:
        click.echo(f"  {clean(run['detail'])}")
    if run["stop_requested_at"]:
        age_s = max(time.time() - datetime.fromisoformat(run["stop_requested_at"]).timestamp(), 0.0)
        click.echo(f"  asked to stop {duration_text(age_s)} ago; it is killed if it does not end by itself")
    click.echo(f"run         {run['run_id']}")
    if run["sweep_short_id"] and run["trial_number"] is not None:
        click.echo(f"trial       {run['sweep_short_id']}/{run['trial_number']}")
        click.echo(f"sweep       {run['sweep_id']}")
    click.echo(f"experiment  {run['experiment_id']}")
    if run["earlier_runs"]:
        click.echo(f"before      {', '.join(run['earlier_runs'])}, until `sweep retry`")
    if run["argv"]:
        click.echo(f"command     {clean(shlex.join(run['argv']))}")
    _print_section("parameters", [f"{clean(key)} = {clean(value)}" for key, value in run["params"].items()])
    _print_section("metrics", [f"{clean(m['key'])} = {short(m['value'])}  (step {m['step']})" for m in run["metrics"]])
    tags = {key: value for key, value in run["tags"].items() if not key.startswith("mlflow.")}
    _print_section("tags", [f"{clean(key)} = {clean(value)}" for key, value in tags.items()])
    _print_section("attempts", [_attempt_text(attempt) for attempt in run["attempts"]])


def _print_section(title: str, lines: Sequence[str]) -> None:
    if lines:
        click.echo(title)
    for line in lines:
        click.echo(f"  {line}")


def _attempt_text(attempt: Any) -> str:
    parts = [
        f"{attempt['attempt']}  {attempt['state']}",
        attempt["cause"] or "",
        f"exit status {attempt['exit_status']}" if attempt["exit_status"] is not None else "",
        f"signal {attempt['signal']}" if attempt["signal"] is not None else "",
        f"on {attempt['worker'] or attempt['worker_id']}",
        duration_text(attempt["duration_s"]),
        clean(attempt["detail"] or ""),
    ]
    return "  ".join(part for part in parts if part and part != "-")


@click.command()
@click.argument("run", shell_complete=complete_runs)
@click.option("-f", "--follow", "is_following", is_flag=True, help="Go on as more is printed, until the run has ended.")
@click.option("--tail", type=click.IntRange(min=0), metavar="N", help="Only the last N lines of each stream.")
@click.option("--attempt", type=click.IntRange(min=1), metavar="K", help="Of this attempt, instead of the latest.")
@click.option("--stream", type=click.Choice(["both", "stdout", "stderr"]), default="both", show_default=True)
@json_option
def logs(run: str, *, is_following: bool, tail: int | None, attempt: int | None, stream: str, as_json: bool) -> int:
    """Print what a run printed.

    Its standard output goes to standard output, its standard error to standard error; one stream alone, chosen by
    --stream, goes to standard output.
    """
    streams = ("stdout", "stderr") if stream == "both" else (stream,)
    with connected() as client:
        found = run_named(client, run, "logs")
        run_id = found["run_id"]
        readers = [_LogReader(client, run_id, name, attempt) for name in streams]
        if as_json:
            print_json({"schema": 1, "run_id": run_id, **_texts(readers, tail)})
            return 0
        if is_following:
            if found["state"] in _NOT_STARTED:
                say(f"The run is {found['state']} and has not started; waiting for it: `sweep why {run}`.")
            try:
                _follow_logs(client, run_id, readers, tail)
            except KeyboardInterrupt:
                say("detached; the run goes on.")
                return EXIT_INTERRUPTED
            return 0
        for reader in readers:
            reader.print(last_lines("".join(reader.pages()), tail), is_alone=len(readers) == 1)
        if not any(reader.offset for reader in readers):
            _say_no_output(client, run_id)
    return 0


class _LogReader:
    """Reads one stream of one attempt from where it left off."""

    def __init__(self, client: Client, run_id: str, stream: str, attempt: int | None) -> None:
        self._client = client
        self._run_id = run_id
        self.stream = stream
        self.attempt = attempt
        self.offset = 0

    def page(self) -> LogAnswer:
        """The next piece. The attempt that is read first is kept to."""
        answer = self._client.logs(self._run_id, attempt=self.attempt or None, stream=self.stream, offset=self.offset)
        self.attempt, self.offset = answer["attempt"] or None, answer["next_offset"]
        return answer

    def pages(self) -> Iterator[str]:
        """All there is now."""
        while text := self.page()["text"]:
            yield text

    def print(self, text: str, *, is_alone: bool) -> None:
        """Print to the stream of the same name, or to standard output if it is the only one."""
        click.echo(text, nl=False, err=self.stream == "stderr" and not is_alone)


def _texts(readers: Sequence[_LogReader], tail: int | None) -> dict[str, Any]:
    texts = {reader.stream: last_lines("".join(reader.pages()), tail) for reader in readers}
    return {"attempt": readers[0].attempt, **texts}


def last_lines(text: str, count: int | None) -> str:
    """The last `count` lines of a text; all of it for None."""
    if count is None:
        return text
    return "".join(text.splitlines(keepends=True)[-count:]) if count else ""


def _follow_logs(client: Client, run_id: str, readers: Sequence[_LogReader], tail: int | None) -> None:
    is_alone = len(readers) == 1
    for reader in readers:
        reader.print(last_lines("".join(reader.pages()), tail), is_alone=is_alone)
    is_over = False
    while True:
        pages = [(reader, reader.page()) for reader in readers]
        for reader, page in pages:
            reader.print(page["text"], is_alone=is_alone)
        if any(page["text"] for _, page in pages):
            continue
        # Asked before the last look at the streams, so that what was printed at the very end is not missed.
        if is_over:
            return
        is_over = _has_ended(client, run_id, pages)
        if not is_over:
            time.sleep(POLL_S)


def _has_ended(client: Client, run_id: str, pages: Sequence[tuple[_LogReader, LogAnswer]]) -> bool:
    if pages[0][1]["attempt"] and all(page["is_complete"] for _, page in pages):
        return True
    return client.run(run_id)["ended_at"] is not None


def _say_no_output(client: Client, run_id: str) -> None:
    state = client.run(run_id)["state"]
    say(f"The run is {state} and has not started: `sweep why {run_id}`." if state in _NOT_STARTED else "The run has printed nothing.")


@click.command()
@click.argument("run", shell_complete=complete_runs)
@click.option("--key", help="The whole history of this metric, instead of the latest value of each.")
@json_option
def metrics(run: str, *, key: str | None, as_json: bool) -> int:
    """Show a run's metrics."""
    with connected() as client:
        found = run_named(client, run, "metrics")
        answer = client.metrics(found["run_id"], key=key)
        if key and not answer["metrics"]:
            has = listed([repr(metric["key"]) for metric in found["metrics"]], most=20)
            raise MissingOnServer(f"The run has no metric {key!r}: it has logged {has or 'none'}.")
    if as_json:
        print_json(answer)
        return 0
    rows = [(m["key"], m["step"], m["value"] if not is_terminal() else short(m["value"]), m["time_ms"]) for m in answer["metrics"]]
    if not rows:
        say("The run has logged no metrics.")
        return 0
    print_table(("METRIC", "STEP", "VALUE", "TIME (ms)"), rows)
    return 0


@click.command()
@click.argument("ref", metavar="[SWEEP|TRIAL|RUN]", default="@latest", shell_complete=complete_sweeps_and_runs)
@json_option
def why(ref: str, *, as_json: bool) -> int:
    """Tell why a sweep, trial or run is where it is, and what happened to it.

    First come the reasons, above all what it waits for and until when; then its story, oldest first: of a trial
    every move, of a sweep its own moves and what went wrong. Times are UTC.
    """
    with connected() as client:
        answer = client.why(ref)
    if as_json:
        print_json(answer)
        return 0
    click.echo(f"{answer['subject']} is {answer['state']}.")
    for reason in answer["reasons"]:
        click.echo(f"  {clean(as_called(reason))}")
    if answer["story"]:
        click.echo("story")
    day = ""
    for entry in answer["story"]:
        date, _, time_of_day = entry["at"].partition("T")
        if date != day:
            click.echo(f"  {date}")
            day = date
        click.echo(f"  {time_of_day[:8]}  {clean(entry['text'])}")
    return 0
