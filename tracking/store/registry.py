"""Registered models, their versions and aliases, with lineage to sweep, trial and run."""

import re
from typing import Any

from tracking.errors import InvalidValue, NotFound, NotNow
from tracking.queries import trials as trial_sql
from tracking.records import ModelVersion, RegisteredModel, Run, Sweep
from tracking.states import RunState
from tracking.store.database import Database, Transaction, json_text

_ALIAS = re.compile(r"[\w\-]{1,255}")
_VERSION_LIKE = re.compile(r"[vV]\d+")

_VERSIONS = """
SELECT v.name, v.version, v.created_at, v.run_id, v.sweep_id, v.trial_number, v.source, v.description, v.value, v.metric_name, v.params,
       v.size_bytes,
       coalesce((SELECT array_agg(a.alias ORDER BY a.alias) FROM model_aliases a WHERE a.name = v.name AND a.version = v.version), '{}') AS aliases
  FROM model_versions v
"""
_INSERT = """
INSERT INTO model_versions (name, version, run_id, sweep_id, trial_number, source, description, metric_name, value, params)
SELECT %(name)s, coalesce((SELECT max(version) FROM model_versions WHERE name = %(name)s), 0) + 1, %(run_id)s, %(sweep_id)s, %(trial_number)s,
       %(source)s, %(description)s, %(metric_name)s, %(value)s, %(params)s
RETURNING version
"""


class Registry:
    """The registry of models."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def register(self, model: str, *, run: Run, artifact: str = "model", alias: str | None = None, description: str = "") -> ModelVersion:
        """A new version of a model from a run, with its lineage.

        Raises:
            InvalidValue: the model's or the alias's name is not acceptable.
            NotNow: the run has not finished.
        """
        if run.kind == "managed" and run.state != RunState.FINISHED:
            raise NotNow(f"Run {run.name} is {run.state}; only a finished run can be registered.")
        with self._database.transaction() as tx:
            metric = tx.scalar("SELECT metric_name FROM sweeps WHERE sweep_id = %(id)s", {"id": run.sweep_id})
            params = tx.scalar("SELECT params FROM runs WHERE run_id = %(id)s", {"id": run.run_id}) or {}
            version = _insert(
                tx,
                model,
                {
                    "run_id": run.run_id,
                    "sweep_id": run.sweep_id,
                    "trial_number": run.trial_number,
                    "source": f"runs:/{run.run_id}/{artifact}",
                    "description": description,
                    "metric_name": metric,
                    "value": run.value,
                    "params": json_text(params),
                },
                alias,
            )
            return _version(tx.one(f"{_VERSIONS} WHERE v.name = %(name)s AND v.version = %(version)s", {"name": model, "version": version}))

    def models(self) -> list[RegisteredModel]:
        """All models by name, each with its versions, newest first."""
        with self._database.autocommit() as tx:
            return _models(tx, None)

    def model(self, name: str) -> RegisteredModel:
        """One model with its versions.

        Raises:
            NotFound: no such model.
        """
        with self._database.autocommit() as tx:
            found = _models(tx, name)
        if not found:
            raise NotFound(f"Registered Model with name={name} not found", hint="`sweep models ls` lists them.")
        return found[0]

    def of_sweep(self, sweep_id: str) -> list[ModelVersion]:
        """The versions that came out of a sweep, newest first. Index: ix_model_versions_sweep."""
        with self._database.autocommit() as tx:
            rows = tx.rows(f"{_VERSIONS} WHERE v.sweep_id = %(id)s ORDER BY v.created_at DESC, v.version DESC", {"id": sweep_id})
        return [_version(row) for row in rows]

    def of_run(self, run_id: str) -> list[ModelVersion]:
        """The versions that are a run's artifacts, newest first. Index: ix_model_versions_run."""
        with self._database.autocommit() as tx:
            rows = tx.rows(f"{_VERSIONS} WHERE v.run_id = %(id)s ORDER BY v.created_at DESC, v.version DESC", {"id": run_id})
        return [_version(row) for row in rows]

    def set_alias(self, model: str, alias: str, version: int) -> ModelVersion:
        """Point an alias at a version.

        Raises:
            NotFound: no such version.
            InvalidValue: the alias's name is not acceptable.
        """
        with self._database.transaction() as tx:
            row = tx.one(f"{_VERSIONS} WHERE v.name = %(name)s AND v.version = %(version)s FOR SHARE OF v", {"name": model, "version": version})
            if row is None:
                raise NotFound(f"Model Version (name={model}, version={version}) not found")
            _set_alias(tx, model, alias, version)
            return _version(tx.one(f"{_VERSIONS} WHERE v.name = %(name)s AND v.version = %(version)s", {"name": model, "version": version}))


def register_version(tx: Transaction, sweep: Sweep, *, model: str, artifact: str, alias: str | None) -> int | None:
    """Register a sweep's best trial within the transaction that ends the sweep; None when no trial qualifies.

    A sweep that went on and ended again with the same winner has its version already.
    """
    best = tx.one(trial_sql.best(sweep.metric_goal), {"sweep_id": sweep.sweep_id, "top": 1})
    if best is None:
        return None
    values = {
        "run_id": best.run_id,
        "sweep_id": sweep.sweep_id,
        "trial_number": best.number,
        "source": f"runs:/{best.run_id}/{artifact}",
        "description": f"Best trial of sweep {sweep.name} ({sweep.short_id}).",
        "metric_name": sweep.metric_name,
        "value": best.value,
        "params": json_text(best.params),
    }
    same = "SELECT max(version) FROM model_versions WHERE name = %(name)s AND sweep_id = %(sweep_id)s AND source = %(source)s"
    version = tx.scalar(same, {**values, "name": model})
    return _insert(tx, model, values, alias) if version is None else int(version)


def _check_alias(alias: str) -> None:
    if not _ALIAS.fullmatch(alias) or alias.lower() == "latest" or _VERSION_LIKE.fullmatch(alias):
        raise InvalidValue(f"{alias!r} is no name for an alias: letters, digits, '_' and '-', not 'latest', not like 'v1'.")


def _insert(tx: Transaction, model: str, values: dict[str, Any], alias: str | None) -> int:
    if alias:
        _check_alias(alias)
    if not model or len(model) > 256 or any(c in model for c in "/:\0"):
        raise InvalidValue(f"{model!r} is no name for a model: 1 to 256 characters without '/' and ':'.")
    tx.execute("INSERT INTO registered_models (name) VALUES (%(name)s) ON CONFLICT (name) DO NOTHING", {"name": model})
    # One at a time for each model, so that versions count up without gaps.
    tx.execute("UPDATE registered_models SET updated_at = now() WHERE name = %(name)s", {"name": model})
    version = int(tx.scalar(_INSERT, {**values, "name": model}))
    if alias:
        _set_alias(tx, model, alias, version)
    return version


def _set_alias(tx: Transaction, model: str, alias: str, version: int) -> None:
    _check_alias(alias)
    tx.execute(
        "INSERT INTO model_aliases (name, alias, version) VALUES (%(name)s, %(alias)s, %(version)s) "
        "ON CONFLICT (name, alias) DO UPDATE SET version = excluded.version",
        {"name": model, "alias": alias, "version": version},
    )


def _models(tx: Transaction, name: str | None) -> list[RegisteredModel]:
    where = " WHERE (%(name)s::text IS NULL OR {}.name = %(name)s)"
    models = tx.rows(f"SELECT m.* FROM registered_models m{where.format('m')} ORDER BY m.name", {"name": name})
    versions: dict[str, list[ModelVersion]] = {model.name: [] for model in models}
    for row in tx.rows(f"{_VERSIONS}{where.format('v')} ORDER BY v.version DESC", {"name": name}):
        versions[row.name].append(_version(row))
    return [RegisteredModel(m.name, m.created_at, m.description, tuple(versions[m.name])) for m in models]


def _version(row: Any) -> ModelVersion:
    return ModelVersion(**{**row._asdict(), "aliases": tuple(row.aliases)})
