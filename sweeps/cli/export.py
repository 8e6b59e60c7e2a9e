"""The verb `export`: a sweep with all its trials, in a form that other tools read."""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import click

from sweeps.cli.connection import server_url
from sweeps.cli.look import sweep_argument
from sweeps.cli.picture import FINAL_STATES
from sweeps.cli.terminal import say
from sweeps.report.reader import Outcome, Reader
from sweeps.wording import counted, listed
from tracking.settings import load_settings

_BY_ENDING: Final[Mapping[str, str]] = {".csv": "csv", ".json": "json", ".parquet": "parquet", ".db": "optuna", ".sqlite": "optuna", ".sqlite3": "optuna"}


@click.command()
@sweep_argument
@click.option("--format", "form", type=click.Choice(["csv", "json", "parquet", "optuna"]), help="As --out ends, else csv.")
@click.option("--out", metavar="FILE", help="Where to; for optuna also a database's address. Standard output unless given.")
@click.option("--force", is_flag=True, help="Overwrite FILE; never a study.")
def export(sweep: str, *, form: str | None, out: str | None, force: bool) -> int:
    """Write a sweep with all its trials for other tools.

    csv, json and parquet: one row a trial, with parameters, latest metrics, state and times. optuna: a study named by the
    sweep's short id, in an SQLite file or any database of Optuna's, for optuna-dashboard and Optuna's plots. A sweep that runs
    is written as it stands.
    """
    form = form or _BY_ENDING.get(Path(out or "").suffix.lower(), "optuna" if "://" in (out or "") else "csv")
    if out == "" or (out is None and form in {"parquet", "optuna"}):
        raise click.UsageError(f"--format {form} needs --out FILE.")
    if out is not None and form != "optuna" and Path(out).exists() and not force:
        raise click.UsageError(f"{out} is already there; --force overwrites it.")
    settings = load_settings()
    with Reader(server_url(settings), settings.token) as reader:
        outcome = reader.outcome(sweep)
        if form == "optuna" and out is not None:
            _write_study(reader, outcome, out)
        else:
            _WRITERS[form](outcome, None if out is None else Path(out))
    _say_done(outcome, out)
    return 0


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
    with _replacing(out) as scratch, scratch.open("w", encoding="utf-8", newline="") as file:
        file.writelines(pieces)


def _write_parquet(outcome: Outcome, out: Path | None) -> None:
    from sweeps.report.frames import parquet_frame

    lacking = [name for name in ("pandas", "pyarrow") if find_spec(name) is None]
    if lacking:
        raise click.UsageError(f"Parquet needs {listed(lacking)}, which this installation lacks: pip install 'sweep-runner[notebook]'.")
    frame = parquet_frame(outcome)
    if out is not None:
        with _replacing(out) as scratch:
            frame.to_parquet(scratch, engine="pyarrow", index=False)


@contextmanager
def _replacing(out: Path) -> Iterator[Path]:
    """A file to write, which takes the place of `out` once it is whole."""
    scratch = out.with_name(f".{out.name}.{os.getpid()}.new")
    try:
        yield scratch
        scratch.replace(out)
    finally:
        scratch.unlink(missing_ok=True)


_WRITERS: Final[Mapping[str, Callable[[Outcome, Path | None], None]]] = {"csv": _write_csv, "json": _write_json, "parquet": _write_parquet}
