"""Many trials at once into an SQLite database of Optuna's. Its own way takes some twenty milliseconds a trial, and more with a curve.

Made for one version of Optuna's tables (`knows`); with any other, Optuna's own way is taken. A test holds the two ways together.
"""

import json
import math
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any, Final, NamedTuple

_SCHEMA: Final = 12
_COLUMNS: Final = {
    "trials": "trial_id, number, study_id, state, datetime_start, datetime_complete",
    "trial_values": "trial_id, objective, value, value_type",
    "trial_params": "trial_id, param_name, param_value, distribution_json",
    "trial_user_attributes": "trial_id, key, value_json",
    "trial_intermediate_values": "trial_id, step, intermediate_value, intermediate_value_type",
}


class StoredTrial(NamedTuple):
    """A trial as the tables have it.

    Attributes:
        params: position on the distribution and the distribution as JSON, by name.
    """

    number: int
    state: str
    value: float | None
    started_at: datetime | None
    ended_at: datetime | None
    params: Mapping[str, tuple[float, str]]
    user_attrs: Mapping[str, Any]
    intermediate_values: Mapping[int, float]


def is_optunas(file: Path) -> bool:
    """Whether a file is a database of Optuna's."""
    try:
        with closing(sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True)) as database:
            return database.execute("SELECT 1 FROM sqlite_master WHERE name = 'studies'").fetchone() is not None
    except sqlite3.DatabaseError:
        return False


def knows(file: Path) -> bool:
    """Whether a database has the tables that this was made for."""
    with closing(sqlite3.connect(file)) as database:
        return database.execute("SELECT schema_version FROM version_info").fetchall() == [(_SCHEMA,)]


def insert(file: Path, study_name: str, trials: Sequence[StoredTrial]) -> None:
    """Add trials to a study that has none, all or nothing.

    Raises:
        sqlite3.Error: the file can't be written, or somebody else does not let go of it.
    """
    with closing(sqlite3.connect(file, isolation_level=None)) as database:
        database.execute("BEGIN IMMEDIATE")
        ((study_id,),) = database.execute("SELECT study_id FROM studies WHERE study_name = ?", (study_name,))
        ((first,),) = database.execute("SELECT coalesce(max(trial_id), 0) + 1 FROM trials")
        for table, rows in _rows(study_id, first, trials).items():
            columns = _COLUMNS[table]
            marks = ", ".join("?" * len(columns.split(",")))
            database.executemany(f"INSERT INTO {table} ({columns}) VALUES ({marks})", rows)  # noqa: S608 - of constants
        database.execute("COMMIT")


def _rows(study_id: int, first: int, trials: Sequence[StoredTrial]) -> dict[str, list[tuple[Any, ...]]]:
    rows: dict[str, list[tuple[Any, ...]]] = {table: [] for table in _COLUMNS}
    for trial_id, trial in enumerate(trials, first):
        rows["trials"].append((trial_id, trial.number, study_id, trial.state, _time(trial.started_at), _time(trial.ended_at)))
        if trial.value is not None:
            rows["trial_values"].append((trial_id, 0, *_stored(trial.value)))
        rows["trial_params"] += [(trial_id, name, position, distribution) for name, (position, distribution) in trial.params.items()]
        rows["trial_user_attributes"] += [(trial_id, name, json.dumps(value)) for name, value in trial.user_attrs.items()]
        rows["trial_intermediate_values"] += [(trial_id, step, *_stored(value)) for step, value in trial.intermediate_values.items()]
    return rows


def _time(at: datetime | None) -> str | None:
    return None if at is None else at.isoformat(sep=" ", timespec="microseconds")


def _stored(value: float) -> tuple[float | None, str]:
    if math.isfinite(value):
        return value, "FINITE"
    return None, "NAN" if math.isnan(value) else "INF_POS" if value > 0 else "INF_NEG"
