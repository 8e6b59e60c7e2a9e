"""Logged models: models that runs wrote down, with files, parameters, tags and metrics under an id of their own (MLflow 3).

Who may write one is decided here (I3, D7): an attempt those of its own experiment that no other managed run made; anybody else those
that no managed run made. Tags are notes, and anybody's.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

import msgspec

from tracking.errors import InvalidValue, NotAllowed, NotFound
from tracking.filters import EVERYTHING, Expression, OrderBy
from tracking.ids import new_model_id, random_name
from tracking.locations import below
from tracking.queries import logged_models as sql
from tracking.queries import search
from tracking.records import LoggedModel, MetricPoint, ModelMetric, ModelOutput
from tracking.store.attempts import Fence, hold_fence
from tracking.store.database import Database, Transaction, json_text
from tracking.store.experiments import active_location, experiment_number
from tracking.store.lineage import write_models
from tracking.store.paging import read_page
from tracking.store.runs import guard_write, write_tags

HISTORY_TAG: Final = "mlflow.log-model.history"
"""The tag that MLflow 2 lists a run's models in."""
HISTORY_MAX_CHARS: Final = 1_000_000

Status = Literal["unspecified", "pending", "ready", "upload_failed"]


class LoggedModels:
    """The logged models."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def create(
        self,
        experiment_id: str,
        *,
        name: str = "",
        model_type: str = "",
        source_run_id: str = "",
        params: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
        fence: Fence | None = None,
    ) -> LoggedModel:
        """A new model, whose files are yet to come.

        Raises:
            NotFound: no such experiment.
            InvalidValue: the experiment is deleted.
            NotAllowed: it is to be a managed run's, and the sender is not its current attempt; or another experiment's than the attempt's.
        """
        values = {"model_id": new_model_id(), "name": name or random_name(), "model_type": model_type, "source_run_id": source_run_id}
        with self._database.transaction() as tx:
            number, location = active_location(tx, experiment_id)
            source = tx.one(sql.SOURCE, {"run_id": source_run_id})
            kind = None if source is None else source.kind
            _guard(tx, number, source_run_id, kind, source, fence)
            # What a managed run makes comes through here, where its right to is seen to.
            root = below(location, "models", values["model_id"], "artifacts") if location and kind != "managed" else None
            tx.execute(sql.INSERT, {**values, "experiment_id": number, "artifact_root": root})
            _write_texts(tx, sql.INSERT_PARAMS, values["model_id"], params or {}, "")
            _write_texts(tx, sql.INSERT_TAGS, values["model_id"], tags or {}, "")
            return _load(tx, [tx.one(sql.GET, values)])[0]

    def get(self, model_id: str, *, allow_deleted: bool = False) -> LoggedModel:
        """One model.

        Raises:
            NotFound: there is none of this id, or it is deleted.
        """
        with self._database.autocommit() as tx:
            row = tx.one(sql.GET, {"model_id": model_id})
            if row is None or (row.lifecycle_stage == "deleted" and not allow_deleted):
                raise _absent(model_id)
            return _load(tx, [row])[0]

    def check_may_write(self, model_id: str, fence: Fence | None) -> LoggedModel:
        """The model, if its files may be written by this sender."""
        with self._database.transaction() as tx:
            _guard_model(tx, model_id, fence)
        return self.get(model_id)

    def set_status(self, model_id: str, status: Status, fence: Fence | None = None) -> LoggedModel:
        """Say how far a model is."""
        with self._database.transaction() as tx:
            _guard_model(tx, model_id, fence)
            tx.execute(sql.SET_STATUS, {"model_id": model_id, "status": status})
            return _load(tx, [tx.one(sql.GET, {"model_id": model_id})])[0]

    def delete(self, model_id: str, fence: Fence | None = None) -> None:
        """Mark a model deleted."""
        with self._database.transaction() as tx:
            _guard_model(tx, model_id, fence)
            tx.execute(sql.DELETE, {"model_id": model_id})

    def set_tags(self, model_id: str, tags: Mapping[str, str], fence: Fence | None = None) -> None:
        """Set tags; by anybody but the attempt of another experiment: a tag is a note, not a result."""
        with self._database.transaction() as tx:
            _guard_model(tx, model_id, fence, tags_only=True)
            _write_texts(tx, sql.INSERT_TAGS, model_id, tags, sql.TAGS_TAIL)

    def delete_tag(self, model_id: str, key: str, fence: Fence | None = None) -> None:
        """Remove one tag.

        Raises:
            NotFound: there is no such model, or it has no such tag.
        """
        with self._database.transaction() as tx:
            _guard_model(tx, model_id, fence, tags_only=True)
            if not tx.execute(sql.DELETE_TAG, {"model_id": model_id, "key": key}):
                raise NotFound(f"No tag with key {key!r} found for model with ID {model_id!r}.")

    def log_params(self, model_id: str, params: Mapping[str, str], fence: Fence | None = None) -> None:
        """Add parameters; the same again is no change.

        Raises:
            InvalidValue: one has another value already.
        """
        with self._database.transaction() as tx:
            _guard_model(tx, model_id, fence)
            _write_texts(tx, sql.INSERT_PARAMS, model_id, params, sql.PARAMS_TAIL)
            for row in tx.rows(sql.PARAMS_OF, {"model_ids": [model_id]}):
                if params.get(row.key, row.value) != row.value:
                    raise InvalidValue(
                        f"Changing param values is not allowed. Param with key='{row.key}' was already logged with value='{row.value}' "
                        f"for model ID='{model_id}'. Attempted logging new value '{params[row.key]}'."
                    )

    def log_outputs(self, run_id: str, models: Sequence[ModelOutput], fence: Fence | None = None) -> None:
        """Note that a run made models; the same again is no change."""
        with self._database.transaction() as tx:
            guard_write(tx, run_id, fence)
            write_models(tx, run_id, fence.attempt if fence is not None and fence.run_id == run_id else 0, "output", models)

    def note(self, run_id: str, model: Mapping[str, Any], fence: Fence | None = None) -> None:
        """Add a model to the list that MLflow 2 keeps in a tag of the run.

        Raises:
            InvalidValue: the tag is no list, or would be too long.
        """
        with self._database.transaction() as tx:
            guard_write(tx, run_id, fence, tags_only=True)
            # Held: two that add at once both stay.
            tx.one("SELECT 1 FROM runs WHERE run_id = %(run_id)s FOR NO KEY UPDATE", {"run_id": run_id})
            before = tx.scalar("SELECT value FROM tags WHERE run_id = %(run_id)s AND key = %(key)s", {"run_id": run_id, "key": HISTORY_TAG})
            try:
                listed = msgspec.json.decode(before or "[]", type=list[Any])
            except msgspec.MsgspecError:
                raise InvalidValue(f"The tag {HISTORY_TAG} of run {run_id} is no list of models.") from None
            value = json_text([*listed, model])
            if len(value) > HISTORY_MAX_CHARS:
                raise InvalidValue(f"The tag {HISTORY_TAG} of run {run_id} would be over {HISTORY_MAX_CHARS:,} characters.")
            write_tags(tx, run_id, {HISTORY_TAG: value}, fence)

    def log_metrics(self, run_id: str, metrics: Sequence[ModelMetric], fence: Fence | None = None) -> None:
        """Note what a run measured of models; the same point again is no change.

        Raises:
            NotFound: there is no such run or model.
            NotAllowed: see `guard_write`; or an attempt names a model of another experiment.
        """
        with self._database.transaction() as tx:
            guard_write(tx, run_id, fence)
            named = {metric.model_id for metric in metrics}
            known = {row.model_id: row.experiment_id for row in tx.rows(sql.KNOWN, {"model_ids": list(named)})}
            own = None if fence is None else _own_experiment(tx, fence)
            for model_id in named:
                if model_id not in known:
                    raise _absent(model_id)
                if own not in (None, known[model_id]):
                    raise _foreign(model_id)
            # In one order, so that two writers can't deadlock.
            rows = sorted((_row(metric) for metric in metrics), key=lambda row: row[:6])
            tx.insert(sql.INSERT_METRICS, rows, sql.METRICS_TAIL)

    def search(
        self,
        experiment_ids: Sequence[str],
        where: Expression = EVERYTHING,
        order_by: tuple[OrderBy, ...] = (),
        datasets: tuple[search.DatasetFilter, ...] = (),
        max_results: int = 50,
        page_token: str = "",
    ) -> tuple[list[LoggedModel], str]:
        """MLflow's logged-models/search: a page of models, and the token of the next page or ''.

        Args:
            datasets: only metrics measured on one of these count, and there must be one.
        """
        numbers = sorted({experiment_number(experiment_id) for experiment_id in experiment_ids})
        asked = ("logged models", numbers, where, order_by, datasets)
        with self._database.autocommit() as tx:
            rows, token = read_page(
                tx,
                asked,
                page_token,
                max_results,
                lambda limit, after: search.logged_models(sql.COLUMNS, numbers, where, order_by, datasets, limit, after),
            )
            return _load(tx, rows), token


def _guard_model(tx: Transaction, model_id: str, fence: Fence | None, *, tags_only: bool = False) -> None:
    """Refuse a write to a model that its sender has no right to.

    Raises:
        NotFound: there is no such model.
        NotAllowed: a managed run made it, and the sender is not that run's current attempt; or it is of another experiment than the
            attempt's.
    """
    row = tx.one(sql.FOR_WRITE, {"model_id": model_id})
    if row is None:
        raise _absent(model_id)
    _guard(tx, row.experiment_id, row.source_run_id, row.source_kind, row, fence, tags_only=tags_only)


def _guard(tx: Transaction, experiment: int, source_run_id: str, kind: str | None, opener: Any, fence: Fence | None, *, tags_only: bool = False) -> None:
    if fence is None:
        if kind == "managed" and not tags_only:
            raise NotAllowed(
                f"Run {source_run_id} is managed: the models it makes are accepted only from its current attempt.",
                hint="Log from inside the trial (its environment holds the token), or from a run of your own.",
            )
        return
    hold_fence(tx, fence)
    if _own_experiment(tx, fence) != experiment:
        raise _foreign(None)
    by_other_run = kind is not None and source_run_id != fence.run_id and (opener.opener_run_id, opener.opener_attempt) != (fence.run_id, fence.attempt)
    if by_other_run and not tags_only:
        raise NotAllowed(f"The attempt of run {fence.run_id} may write the models of that run and of the runs it opened, not of {source_run_id}.")


def _own_experiment(tx: Transaction, fence: Fence) -> int:
    return int(tx.scalar("SELECT experiment_id FROM runs WHERE run_id = %(run_id)s", {"run_id": fence.run_id}))


def _foreign(model_id: str | None) -> NotAllowed:
    return NotAllowed(f"An attempt may write models of its own experiment only{'' if model_id is None else f', not {model_id}'}.")


def _absent(model_id: str) -> NotFound:
    return NotFound(f"Logged model with ID '{model_id[:100]}' not found.")


def _write_texts(tx: Transaction, insert: str, model_id: str, values: Mapping[str, str], tail: str) -> None:
    tx.insert(insert, [(model_id, key, values[key]) for key in sorted(values)], tail)


def _row(metric: ModelMetric) -> tuple[Any, ...]:
    point = metric.point
    return (metric.model_id, point.key, point.time_ms, point.step, metric.run_id, point.value, metric.dataset_name, metric.dataset_digest)


def _load(tx: Transaction, rows: Sequence[Any]) -> list[LoggedModel]:
    """Models with what was logged to them, in three queries."""
    asked = {"model_ids": [row[0] for row in rows]}
    params: dict[str, dict[str, str]] = {model_id: {} for model_id in asked["model_ids"]}
    tags: dict[str, dict[str, str]] = {model_id: {} for model_id in asked["model_ids"]}
    metrics: dict[str, list[ModelMetric]] = {model_id: [] for model_id in asked["model_ids"]}
    if rows:
        for each in tx.rows(sql.PARAMS_OF, asked):
            params[each.model_id][each.key] = each.value
        for each in tx.rows(sql.TAGS_OF, asked):
            tags[each.model_id][each.key] = each.value
        for each in tx.rows(sql.METRICS_OF, asked):
            point = MetricPoint(each.key, each.value, each.step, each.time_ms)
            metrics[each.model_id].append(ModelMetric(each.model_id, each.run_id, point, each.dataset_name, each.dataset_digest))
    return [msgspec.structs.replace(LoggedModel(*row), params=params[row[0]], tags=tags[row[0]], metrics=tuple(metrics[row[0]])) for row in rows]
