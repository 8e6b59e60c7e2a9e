"""Compiles search clauses to SQL, in this one place. Every value and key is bound."""

from typing import Any, Final

from tracking.filters import Clause, OrderBy
from tracking.queries.runs import RUN_COLUMNS
from tracking.states import MLFLOW_STATUS

_STATUS: Final = "(CASE r.state " + " ".join(f"WHEN '{state}' THEN '{status}'" for state, status in MLFLOW_STATUS.items()) + " END)"
# Whole milliseconds, as clients are told them.
_START: Final = "floor(extract(epoch FROM coalesce(r.started_at, r.created_at)) * 1000)"
_END: Final = "floor(extract(epoch FROM r.ended_at) * 1000)"
_ATTRIBUTES: Final = {
    "run_id": "r.run_id",
    "run_name": "r.name",
    "user_id": "r.user_name",
    "status": _STATUS,
    "start_time": _START,
    "end_time": _END,
    "artifact_uri": "('mlflow-artifacts:/' || r.experiment_id || '/' || r.run_id || '/artifacts')",
}
_COLUMN_TAGS: Final = {
    "mlflow.runName": "r.name",
    "mlflow.user": "r.user_name",
    "mlflow.parentRunId": "r.parent_run_id",
}
_OPERATORS: Final = {"=": "=", "!=": "<>", ">": ">", ">=": ">=", "<": "<", "<=": "<=", "LIKE": "LIKE", "ILIKE": "ILIKE"}
_VIEWS: Final = {"ACTIVE_ONLY": " AND r.lifecycle_stage = 'active'", "DELETED_ONLY": " AND r.lifecycle_stage = 'deleted'", "ALL": ""}


class _Binder:
    """Collects bound values under fresh names."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}

    def __call__(self, value: object) -> str:
        name = f"v{len(self.values)}"
        self.values[name] = value
        return f"%({name})s"


def compile_search(
    experiment_ids: list[int], where: tuple[Clause, ...], order_by: tuple[OrderBy, ...], view: str, limit: int, offset: int
) -> tuple[str, dict[str, Any]]:
    """A SELECT of runs and its bound values. Index: ix_runs_experiment, ix_runs_parent."""
    bind = _Binder()
    conditions = [f"r.experiment_id = ANY({bind(experiment_ids)})"] + [_condition(clause, bind) for clause in where]
    orders = [term for item in order_by for term in _order(item, bind)]
    orders += ["coalesce(r.started_at, r.created_at) DESC", "r.run_id"]
    text = (
        f"SELECT {RUN_COLUMNS} FROM runs r WHERE {' AND '.join(conditions)}{_VIEWS[view]} "
        f"ORDER BY {', '.join(orders)} LIMIT {bind(limit)} OFFSET {bind(offset)}"
    )
    return text, bind.values


def _condition(clause: Clause, bind: _Binder) -> str:
    if clause.entity == "attribute":
        return _compare(_ATTRIBUTES[clause.key], clause, bind)
    if clause.entity == "tag" and clause.key in _COLUMN_TAGS:
        return _compare(_COLUMN_TAGS[clause.key], clause, bind)
    key = bind(clause.key)
    if clause.entity == "metric":
        # NaN equals and exceeds everything in Postgres; in MLflow it only ever differs.
        nan = "" if clause.op == "!=" else "l.value <> 'NaN' AND "
        return (
            f"EXISTS (SELECT 1 FROM metric_latest l WHERE l.run_id = r.run_id AND l.attempt = r.attempt AND l.key = {key}"
            f" AND {nan}{_compare('l.value', clause, bind)})"
        )
    if clause.entity == "param":
        return (
            f"EXISTS (SELECT 1 FROM params p WHERE p.run_id = r.run_id AND p.attempt IN (0, r.attempt) AND p.key = {key}"
            f" AND {_compare('p.value', clause, bind)})"
        )
    return f"EXISTS (SELECT 1 FROM tags t WHERE t.run_id = r.run_id AND t.key = {key} AND {_compare('t.value', clause, bind)})"


def _compare(expression: str, clause: Clause, bind: _Binder) -> str:
    if clause.op == "IN":
        values = clause.value if isinstance(clause.value, tuple) else (clause.value,)
        return f"{expression} = ANY({bind(list(values))})"
    # A backslash in a pattern is a character like others, as with MLflow.
    escape = " ESCAPE ''" if clause.op in ("LIKE", "ILIKE") else ""
    return f"{expression} {_OPERATORS[clause.op]} {bind(clause.value)}{escape}"


def _order(item: OrderBy, bind: _Binder) -> list[str]:
    direction = "DESC" if item.descending else "ASC"
    if item.entity == "attribute":
        return [f"{_ATTRIBUTES[item.key]} {direction} NULLS LAST"]
    if item.entity == "tag" and item.key in _COLUMN_TAGS:
        return [f"{_COLUMN_TAGS[item.key]} {direction} NULLS LAST"]
    key = bind(item.key)
    if item.entity == "metric":
        value = f"(SELECT l.value FROM metric_latest l WHERE l.run_id = r.run_id AND l.attempt = r.attempt AND l.key = {key})"
        # Numbers, then NaN, then nothing, whatever the direction.
        return [f"(CASE WHEN {value} IS NULL THEN 2 WHEN {value} = 'NaN' THEN 1 ELSE 0 END)", f"{value} {direction}"]
    if item.entity == "param":
        value = f"(SELECT p.value FROM params p WHERE p.run_id = r.run_id AND p.attempt IN (0, r.attempt) AND p.key = {key})"
    else:
        value = f"(SELECT t.value FROM tags t WHERE t.run_id = r.run_id AND t.key = {key})"
    return [f"{value} {direction} NULLS LAST"]
