"""What runs read and made: datasets and logged models, as runs tell them."""

from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from typing import Final

import msgspec

from tracking.queries import lineage as sql
from tracking.records import Dataset, DatasetInput, Lineage, ModelOutput, Run
from tracking.store.database import Transaction

NOTHING: Final = Lineage()
_TAGS: Final = msgspec.json.Decoder(dict[str, str])


def load_lineage(tx: Transaction, runs: Sequence[Run]) -> dict[str, Lineage]:
    """The lineage of many runs, of those that have any, in three queries at most.

    What an earlier attempt logged gives way to the current one's, as with parameters.
    """
    asked = {"run_ids": [run.run_id for run in runs]}
    views = {run.run_id: (0, run.attempt) for run in runs}
    inputs = [row for row in tx.rows(sql.INPUTS_OF, asked) if row.attempt in views[row.run_id]]
    datasets = _datasets(tx, {row.dataset_id for row in inputs}) if inputs else {}
    read: dict[str, list[DatasetInput]] = {}
    for row in inputs:
        read.setdefault(row.run_id, []).append(DatasetInput(datasets[row.dataset_id], _TAGS.decode(row.tags)))
    models_in: dict[str, list[str]] = {}
    models_out: dict[str, list[ModelOutput]] = {}
    for row in tx.rows(sql.MODELS_OF, asked):
        if row.attempt not in views[row.run_id]:
            continue
        if row.role == "input":
            models_in.setdefault(row.run_id, []).append(row.model_id)
        else:
            models_out.setdefault(row.run_id, []).append(ModelOutput(row.model_id, row.step))
    return {
        run_id: Lineage(tuple(read.get(run_id, ())), tuple(models_in.get(run_id, ())), tuple(models_out.get(run_id, ())))
        for run_id in {*read, *models_in, *models_out}
    }


def _datasets(tx: Transaction, dataset_ids: AbstractSet[int]) -> dict[int, Dataset]:
    rows = tx.rows(sql.DATASETS, {"dataset_ids": list(dataset_ids)})
    return {row.dataset_id: Dataset(row.name, row.digest, row.source_type, row.source, row.schema, row.profile) for row in rows}


def write_models(tx: Transaction, run_id: str, attempt: int, role: str, models: Iterable[ModelOutput]) -> None:
    """Note models beside a run, within a transaction that holds the right to write; the same again is no change."""
    # In one order, so that two writers can't deadlock; each once, as one statement must.
    steps = {model.model_id: model.step for model in models}
    tx.insert(sql.INSERT_MODELS, [(run_id, role, model_id, steps[model_id], attempt) for model_id in sorted(steps)], sql.MODELS_TAIL)
