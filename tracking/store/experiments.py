"""Experiments: named questions that own runs."""

import re
from collections.abc import Mapping
from typing import Any, Final

from tracking.errors import AlreadyExists, InvalidValue, NotFound, NotNow
from tracking.filters import EVERYTHING, Expression, OrderBy
from tracking.queries import search
from tracking.records import Experiment
from tracking.store.database import Database, Transaction
from tracking.store.paging import read_page

_COLUMNS = """
    e.experiment_id::text AS experiment_id, e.name, e.artifact_location, e.lifecycle_stage, e.created_at, e.updated_at,
    coalesce((SELECT json_object_agg(t.key, t.value ORDER BY t.key) FROM experiment_tags t WHERE t.experiment_id = e.experiment_id), '{}') AS tags
"""
"""The fields of `tracking.records.Experiment`, in their order."""
_SELECT = f"SELECT {_COLUMNS} FROM experiments e"
_INSERT = """
INSERT INTO experiments (name, artifact_location) VALUES (%(name)s, %(artifact_location)s) ON CONFLICT (name) DO NOTHING RETURNING experiment_id
"""
_BUSY = """
SELECT (SELECT count(*) FROM sweeps WHERE experiment_id = %(id)s AND state IN ('active', 'paused', 'stopping')) AS n_sweeps,
       (SELECT count(*) FROM runs WHERE experiment_id = %(id)s AND kind = 'managed' AND state IN ('queued', 'placed', 'running')) AS n_runs
"""
"""Indexes: ix_sweeps_live, ix_runs_live."""
_MOVE = "UPDATE experiments SET lifecycle_stage = %(to)s, updated_at = now() WHERE experiment_id = %(id)s"
_MOVE_RUNS = "UPDATE runs SET lifecycle_stage = %(to)s WHERE experiment_id = %(id)s AND lifecycle_stage <> %(to)s"
"""Index: ix_runs_experiment."""
_UPSERT_TAG = """
INSERT INTO experiment_tags (experiment_id, key, value) VALUES (%(id)s, %(key)s, %(value)s)
ON CONFLICT (experiment_id, key) DO UPDATE SET value = excluded.value
"""
_NUMBER: Final = re.compile(r"-?[0-9]+")


class Experiments:
    """The experiments."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def ensure(self, name: str, user_name: str = "") -> Experiment:
        """The experiment of this name, created if need be."""
        del user_name  # ownership comes with users
        with self._database.transaction() as tx:
            return _experiment(tx.one(f"{_SELECT} WHERE e.experiment_id = %(id)s", {"id": ensure_experiment(tx, name)}))

    def create(self, name: str, tags: Mapping[str, str] | None = None, artifact_location: str = "") -> Experiment:
        """A new experiment.

        Raises:
            AlreadyExists: the name is taken, also by a deleted one.
        """
        with self._database.transaction() as tx:
            experiment_id = tx.scalar(_INSERT, {"name": name, "artifact_location": artifact_location})
            if experiment_id is None:
                raise _taken(tx, name)
            rows = [(experiment_id, key, value) for key, value in (tags or {}).items()]
            tx.insert("INSERT INTO experiment_tags (experiment_id, key, value)", rows)
            return _experiment(tx.one(f"{_SELECT} WHERE e.experiment_id = %(id)s", {"id": experiment_id}))

    def get(self, experiment_id: str) -> Experiment:
        """One experiment.

        Raises:
            InvalidValue: this is no experiment's id.
            NotFound: there is none of this id.
        """
        number = experiment_number(experiment_id)
        with self._database.autocommit() as tx:
            row = tx.one(f"{_SELECT} WHERE e.experiment_id = %(id)s", {"id": number})
        if row is None:
            raise _absent(number)
        return _experiment(row)

    def get_by_name(self, name: str) -> Experiment | None:
        """The experiment of this name, or None. Index: unique name."""
        with self._database.autocommit() as tx:
            row = tx.one(f"{_SELECT} WHERE e.name = %(name)s", {"name": name})
        return None if row is None else _experiment(row)

    def search(
        self,
        where: Expression = EVERYTHING,
        order_by: tuple[OrderBy, ...] = (),
        view: search.View = "ACTIVE_ONLY",
        max_results: int = 1000,
        page_token: str = "",
    ) -> tuple[list[Experiment], str]:
        """MLflow's experiments/search: a page of experiments, and the token of the next page or ''."""
        asked = ("experiments", where, order_by, view)
        with self._database.autocommit() as tx:
            rows, token = read_page(tx, asked, page_token, max_results, lambda limit, after: search.experiments(_COLUMNS, where, order_by, view, limit, after))
        return [Experiment(*row) for row in rows], token

    def rename(self, experiment_id: str, name: str) -> None:
        """Give an experiment another name.

        Raises:
            NotFound: there is none of this id.
            InvalidValue: it is deleted.
            AlreadyExists: the name is taken, also by a deleted one.
        """
        number = experiment_number(experiment_id)
        with self._database.transaction() as tx:
            if _stage(tx, number) != "active":
                raise InvalidValue("Cannot rename a non-active experiment.")
            taken = tx.scalar("SELECT experiment_id FROM experiments WHERE name = %(name)s", {"name": name})
            if taken not in (None, number):
                raise _taken(tx, name)
            tx.execute("UPDATE experiments SET name = %(name)s, updated_at = now() WHERE experiment_id = %(id)s", {"id": number, "name": name})

    def delete(self, experiment_id: str) -> None:
        """Mark an experiment and its runs deleted; both can be restored.

        Raises:
            NotFound: there is no active one of this id.
            NotNow: sweeps or trials of it are not over.
        """
        number = experiment_number(experiment_id)
        with self._database.transaction() as tx:
            if _stage(tx, number) != "active":
                raise _absent(number)
            busy = tx.one(_BUSY, {"id": number})
            if busy.n_sweeps or busy.n_runs:
                raise NotNow(
                    f"Experiment {number} can't be deleted now: {busy.n_sweeps} of its sweeps and {busy.n_runs} of its managed runs are not over.",
                    hint="Cancel them, or wait until they have ended.",
                )
            tx.execute(_MOVE, {"id": number, "to": "deleted"})
            tx.execute(_MOVE_RUNS, {"id": number, "to": "deleted"})

    def restore(self, experiment_id: str) -> None:
        """Bring a deleted experiment back, with all of its runs: as with MLflow, also those that were deleted one by one.

        Raises:
            NotFound: there is no deleted one of this id.
        """
        number = experiment_number(experiment_id)
        with self._database.transaction() as tx:
            if _stage(tx, number) != "deleted":
                raise _absent(number)
            tx.execute(_MOVE, {"id": number, "to": "active"})
            tx.execute(_MOVE_RUNS, {"id": number, "to": "active"})

    def set_tag(self, experiment_id: str, key: str, value: str) -> None:
        """Set one tag.

        Raises:
            NotFound: there is none of this id.
            InvalidValue: it is deleted.
        """
        with self._database.transaction() as tx:
            tx.execute(_UPSERT_TAG, {"id": _active(tx, experiment_id), "key": key, "value": value})

    def delete_tag(self, experiment_id: str, key: str) -> None:
        """Remove one tag.

        Raises:
            NotFound: there is no such experiment, or it has no such tag.
            InvalidValue: it is deleted.
        """
        with self._database.transaction() as tx:
            number = _active(tx, experiment_id)
            if not tx.execute("DELETE FROM experiment_tags WHERE experiment_id = %(id)s AND key = %(key)s", {"id": number, "key": key}):
                raise NotFound(f"No tag with name: {key} in experiment with id {number}")


def experiment_number(experiment_id: str) -> int:
    """The number that an experiment's id is.

    Raises:
        InvalidValue: it is none.
        NotFound: it is out of any experiment's range.
    """
    if not _NUMBER.fullmatch(experiment_id):
        raise InvalidValue(f"Invalid experiment ID '{experiment_id[:100]}'. Experiment ID must be a valid integer.")
    if len(experiment_id) > 18:
        raise NotFound(f"No Experiment with id={experiment_id[:100]} exists")
    return int(experiment_id)


def active_location(tx: Transaction, experiment_id: str, *, is_held: bool = False) -> tuple[int, str]:
    """The number of an active experiment, and the location of its own choice or ''.

    Args:
        is_held: nobody deletes it until this transaction ends.

    Raises:
        NotFound: there is none of this id.
        InvalidValue: it is deleted.
    """
    number = experiment_number(experiment_id)
    hold = " FOR KEY SHARE" if is_held else ""
    row = tx.one(f"SELECT lifecycle_stage, artifact_location FROM experiments WHERE experiment_id = %(id)s{hold}", {"id": number})
    if row is None:
        raise _absent(number)
    if row.lifecycle_stage != "active":
        raise InvalidValue(f"The experiment {number} must be in the 'active' state. Current state is {row.lifecycle_stage}.")
    return number, row.artifact_location


def ensure_experiment(tx: Transaction, name: str) -> int:
    """The id of the experiment of this name, created if need be.

    Raises:
        InvalidValue: it is deleted.
    """
    # Held: what is deleted meanwhile is seen to be.
    find = "SELECT experiment_id, lifecycle_stage FROM experiments WHERE name = %(name)s FOR KEY SHARE"
    row = tx.one(find, {"name": name})
    if row is None:
        made = tx.scalar(_INSERT, {"name": name, "artifact_location": ""})
        if made is not None:
            return int(made)
        # Somebody else's insert won between the two: now it can be seen.
        row = tx.one(find, {"name": name})
    if row.lifecycle_stage != "active":
        raise InvalidValue(f"The experiment {name!r} is deleted.", hint=f"Restore it (its id is {row.experiment_id}), or choose another name.")
    return int(row.experiment_id)


def _stage(tx: Transaction, number: int) -> str:
    """The stage of an experiment that is to be changed. It is held: runs that are being opened in it come first, others wait.

    Raises:
        NotFound: there is none of this id.
    """
    stage = tx.scalar("SELECT lifecycle_stage FROM experiments WHERE experiment_id = %(id)s FOR UPDATE", {"id": number})
    if stage is None:
        raise _absent(number)
    return str(stage)


def _active(tx: Transaction, experiment_id: str) -> int:
    number, _ = active_location(tx, experiment_id)
    return number


def _absent(number: int) -> NotFound:
    return NotFound(f"No Experiment with id={number} exists")


def _taken(tx: Transaction, name: str) -> AlreadyExists:
    row = tx.one("SELECT experiment_id, lifecycle_stage FROM experiments WHERE name = %(name)s", {"name": name})
    if row is not None and row.lifecycle_stage == "deleted":
        return AlreadyExists(
            f"Experiment(name={name}) already exists.", hint=f"It is deleted: restore it (its id is {row.experiment_id}), or choose another name."
        )
    return AlreadyExists(f"Experiment(name={name}) already exists.")


def _experiment(row: Any) -> Experiment:
    return Experiment(*row)
