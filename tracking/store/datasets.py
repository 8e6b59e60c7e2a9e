"""Datasets: which data runs read."""

from collections.abc import Sequence
from typing import Final

from tracking.queries import lineage as sql
from tracking.records import DatasetInput, DatasetUse, ModelOutput
from tracking.store.attempts import Fence
from tracking.store.database import Database, Transaction, json_text
from tracking.store.lineage import write_models
from tracking.store.runs import guard_write

CONTEXT_TAG: Final = "mlflow.data.context"
"""The tag of an input that says what it was read for."""


class Datasets:
    """The datasets."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def log_inputs(self, run_id: str, inputs: Sequence[DatasetInput], models: Sequence[str] = (), fence: Fence | None = None) -> None:
        """Note what a run read. A dataset is known by name and digest within its experiment; what was said first of one is kept.

        Raises:
            NotFound, InvalidValue, NotAllowed: see `guard_write`.
        """
        with self._database.transaction() as tx:
            guard_write(tx, run_id, fence)
            attempt = fence.attempt if fence is not None and fence.run_id == run_id else 0
            _write_inputs(tx, run_id, attempt, inputs)
            write_models(tx, run_id, attempt, "input", (ModelOutput(model_id) for model_id in models))

    def uses(self, experiment_ids: Sequence[int], limit: int = 1000) -> list[DatasetUse]:
        """Which datasets the runs of some experiments read, and in which contexts, each pair once."""
        with self._database.autocommit() as tx:
            rows = tx.rows(sql.USES, {"experiment_ids": list(experiment_ids), "limit": limit})
        return [DatasetUse(str(row.experiment_id), row.name, row.digest, row.context) for row in rows]


def _write_inputs(tx: Transaction, run_id: str, attempt: int, inputs: Sequence[DatasetInput]) -> None:
    first: dict[tuple[str, str], DatasetInput] = {}
    for each in inputs:
        first.setdefault((each.dataset.name, each.dataset.digest), each)
    if not first:
        return
    experiment_id = tx.scalar("SELECT experiment_id FROM runs WHERE run_id = %(run_id)s", {"run_id": run_id})
    # In one order, so that two writers can't deadlock.
    named = [first[key].dataset for key in sorted(first)]
    rows = [(experiment_id, each.name, each.digest, each.source_type, each.source, each.schema, each.profile) for each in named]
    tx.insert(sql.INSERT_DATASETS, rows, sql.DATASETS_TAIL)
    asked = {"experiment_id": experiment_id, "names": [each.name for each in named], "digests": [each.digest for each in named]}
    ids = {(row.name, row.digest): row.dataset_id for row in tx.rows(sql.DATASET_IDS, asked)}
    uses = sorted(((ids[key], each.tags) for key, each in first.items()), key=lambda use: use[0])
    tx.insert(
        sql.INSERT_INPUTS,
        [(run_id, dataset_id, tags.get(CONTEXT_TAG), json_text(tags), attempt) for dataset_id, tags in uses],
        sql.INPUTS_TAIL,
    )
