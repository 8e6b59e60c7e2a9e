"""Experiments: named questions that own runs."""

from collections.abc import Mapping, Sequence
from typing import Any

from tracking.errors import AlreadyExists, NotFound
from tracking.records import Experiment
from tracking.store.database import Database, Transaction

_SELECT = """
SELECT e.experiment_id::text AS experiment_id, e.name, e.artifact_location, e.lifecycle_stage, e.created_at, e.updated_at,
       coalesce((SELECT json_object_agg(t.key, t.value) FROM experiment_tags t WHERE t.experiment_id = e.experiment_id), '{}') AS tags
  FROM experiments e
"""
_INSERT = """
INSERT INTO experiments (name, artifact_location) VALUES (%(name)s, %(artifact_location)s) ON CONFLICT (name) DO NOTHING RETURNING experiment_id
"""


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
                raise AlreadyExists(f"Experiment(name={name}) already exists.")
            rows = [(experiment_id, key, value) for key, value in (tags or {}).items()]
            tx.insert("INSERT INTO experiment_tags (experiment_id, key, value)", rows)
            return _experiment(tx.one(f"{_SELECT} WHERE e.experiment_id = %(id)s", {"id": experiment_id}))

    def get(self, experiment_id: str) -> Experiment:
        """One experiment.

        Raises:
            NotFound: there is none of this id.
        """
        row = None
        if experiment_id.isdecimal() and len(experiment_id) < 19:
            with self._database.autocommit() as tx:
                row = tx.one(f"{_SELECT} WHERE e.experiment_id = %(id)s", {"id": int(experiment_id)})
        if row is None:
            raise NotFound(f"No Experiment with id={experiment_id} exists")
        return _experiment(row)

    def get_by_name(self, name: str) -> Experiment | None:
        """The experiment of this name, or None. Index: unique name."""
        with self._database.autocommit() as tx:
            row = tx.one(f"{_SELECT} WHERE e.name = %(name)s", {"name": name})
        return None if row is None else _experiment(row)

    def list(self, limit: int = 1000) -> Sequence[Experiment]:
        """Experiments, newest first."""
        with self._database.autocommit() as tx:
            return [_experiment(row) for row in tx.rows(f"{_SELECT} ORDER BY e.experiment_id DESC LIMIT %(limit)s", {"limit": limit})]


def ensure_experiment(tx: Transaction, name: str) -> int:
    """The id of the experiment of this name, created if need be."""
    find = "SELECT experiment_id FROM experiments WHERE name = %(name)s"
    found = tx.scalar(find, {"name": name})
    if found is None:
        found = tx.scalar(_INSERT, {"name": name, "artifact_location": ""})
    # Somebody else's insert won between the two: now it can be seen.
    return int(found if found is not None else tx.scalar(find, {"name": name}))


def _experiment(row: Any) -> Experiment:
    return Experiment(**row._asdict())
