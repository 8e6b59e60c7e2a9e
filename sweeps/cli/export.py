"""The verb `export`: a sweep with all its trials, in a form that other tools read."""

from collections.abc import Callable, Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import click

from sweeps.address import server_url
from sweeps.cli.files import written
from sweeps.cli.look import sweep_argument
from sweeps.cli.terminal import say
from sweeps.report.reader import Outcome, Reader
from sweeps.standing import FINAL_STATES
from sweeps.wording import counted, listed
from tracking.settings import load_settings

_FORMS: Final = ("csv", "json", "parquet", "optuna")
_BY_ENDING: Final[Mapping[str, str]] = {".csv": "csv", ".json": "json", ".parquet": "parquet", ".db": "optuna", ".sqlite": "optuna", ".sqlite3": "optuna"}
_STDOUT: Final = frozenset({"-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"})


@click.command()
@sweep_argument
@click.option("--format", "form", type=click.Choice(_FORMS), help="As --out ends, else csv.")
@click.option("--out", metavar="FILE", help="Where to; for optuna also a database's address. Standard output for - or unless given.")
@click.option("--force", is_flag=True, help="Overwrite FILE; never a study.")
def export(sweep: str, *, form: str | None, out: str | None, force: bool) -> int:
    """Write a sweep with all its trials for other tools.

    csv, json and parquet: one row a trial, with parameters, latest metrics, state and times. optuna: a study named by the
    sweep's short id, in an SQLite file or any database of Optuna's, for optuna-dashboard and Optuna's plots. A sweep that runs
    is written as it stands.
    """
    form = form or _form_of(out or "")
    out = None if out in _STDOUT else out
    _check_place(form, out, force=force)
    settings = load_settings()
    with Reader(server_url(settings, say), settings.token) as reader:
        outcome = reader.outcome(sweep)
        if form == "optuna" and out is not None:
            _write_study(reader, outcome, out)
        else:
            _WRITERS[form](outcome, None if out is None else Path(out))
    _say_done(outcome, out)
    return 0


def _form_of(out: str) -> str:
    """The form that a name tells; a device or pipe has no ending to tell it by.

    Raises:
        click.UsageError: it ends as none of them does.
    """
    if "://" in out:
        return "optuna"
    ending = Path(out).suffix.lower()
    if ending in _BY_ENDING or not ending or (Path(out).exists() and not Path(out).is_file()):
        return _BY_ENDING.get(ending, "csv")
    raise click.UsageError(f"{out} ends in none of {', '.join(_BY_ENDING)}: say which form it is to have, by --format {'|'.join(_FORMS)}.")


def _check_place(form: str, out: str | None, *, force: bool) -> None:
    """Refuse what can't be written to, or must not without being told.

    Raises:
        click.UsageError: saying why.
    """
    needs_file = form in {"parquet", "optuna"}
    if out == "":
        raise click.UsageError("--out names a file, or '-' for standard output.")
    if out is None and needs_file:
        raise click.UsageError(f"--format {form} needs --out FILE.")
    if out is None or (form == "optuna" and "://" in out):
        return
    path = Path(out)
    if path.is_dir() or out.endswith("/"):
        raise click.UsageError(f"{out} is a folder; name a file in it.")
    if needs_file and path.exists() and not path.is_file():
        raise click.UsageError(f"--format {form} needs --out FILE; {out} is a device or a pipe.")
    if form != "optuna" and not force and (path.is_file() or path.is_block_device()):
        raise click.UsageError(f"{out} is already there; --force overwrites it.")


def _say_done(outcome: Outcome, out: str | None) -> None:
    sweep = outcome.sweep
    if out is not None:
        # An address may hold a password.
        where = out if "://" not in out else "the database"
        say(f"Wrote {counted(len(outcome.trials), 'trial')} of {sweep['short_id']} to {where}.")
    if sweep["state"] not in FINAL_STATES:
        say(f"The sweep is {sweep['state']}: this is how it stands now.")


def _write_study(reader: Reader, outcome: Outcome, out: str) -> None:
    from sweeps.report.study import write_study

    metric = outcome.sweep["metric"]
    write_study(outcome, {} if metric is None else reader.points(outcome, metric), out)


def _write_csv(outcome: Outcome, out: Path | None) -> None:
    from sweeps.report.rows import csv_lines

    _write_text(csv_lines(outcome), out)


def _write_json(outcome: Outcome, out: Path | None) -> None:
    from sweeps.report.rows import json_text

    _write_text(iter((json_text(outcome),)), out)


def _write_text(pieces: Iterator[str], out: Path | None) -> None:
    if out is None:
        for piece in pieces:
            click.echo(piece, nl=False)
        return
    with written(out) as file:
        file.writelines(pieces)


def _write_parquet(outcome: Outcome, out: Path | None) -> None:
    from sweeps.report.frames import parquet_frame

    lacking = [name for name in ("pandas", "pyarrow") if find_spec(name) is None]
    if lacking:
        raise click.UsageError(f"Parquet needs {listed(lacking)}, which this installation lacks: pip install 'sweep-runner[notebook]'.")
    frame = parquet_frame(outcome)
    if out is not None:
        with written(out, "wb") as file:
            frame.to_parquet(file, engine="pyarrow", index=False)


_WRITERS: Final[Mapping[str, Callable[[Outcome, Path | None], None]]] = {"csv": _write_csv, "json": _write_json, "parquet": _write_parquet}
