"""Statements on `datasets`, `dataset_inputs` and `run_models`: what runs read and made."""

from typing import Final

INPUTS_OF: Final = """
SELECT run_id, dataset_id, tags::text AS tags, attempt FROM dataset_inputs WHERE run_id = ANY(%(run_ids)s) ORDER BY run_id, dataset_id
"""
"""Index: dataset_inputs' primary key."""

# Apart from who read them: many runs read the same, and what is told of it may be long.
DATASETS: Final = "SELECT dataset_id, name, digest, source_type, source, schema, profile FROM datasets WHERE dataset_id = ANY(%(dataset_ids)s)"

MODELS_OF: Final = "SELECT run_id, role, model_id, step, attempt FROM run_models WHERE run_id = ANY(%(run_ids)s) ORDER BY run_id, role, model_id"
"""Index: run_models' primary key."""

INSERT_DATASETS: Final = "INSERT INTO datasets (experiment_id, name, digest, source_type, source, schema, profile)"
DATASETS_TAIL: Final = "ON CONFLICT (experiment_id, name, digest) DO NOTHING"

DATASET_IDS: Final = """
SELECT d.dataset_id, d.name, d.digest FROM datasets d
  JOIN unnest(%(names)s::text[], %(digests)s::text[]) AS asked (name, digest) USING (name, digest)
 WHERE d.experiment_id = %(experiment_id)s
"""
"""Index: uq_datasets_name."""

INSERT_INPUTS: Final = "INSERT INTO dataset_inputs (run_id, dataset_id, context, tags, attempt)"
# The first to say so of a run is heard, as with MLflow.
INPUTS_TAIL: Final = """
ON CONFLICT (run_id, dataset_id) DO UPDATE SET context = excluded.context, tags = excluded.tags, attempt = excluded.attempt
 WHERE dataset_inputs.attempt < excluded.attempt
"""

INSERT_MODELS: Final = "INSERT INTO run_models (run_id, role, model_id, step, attempt)"
MODELS_TAIL: Final = """
ON CONFLICT (run_id, role, model_id) DO UPDATE SET step = excluded.step, attempt = excluded.attempt
 WHERE run_models.attempt <= excluded.attempt
"""

USES: Final = """
SELECT DISTINCT d.experiment_id, d.name, d.digest, i.context FROM datasets d JOIN dataset_inputs i ON i.dataset_id = d.dataset_id
 WHERE d.experiment_id = ANY(%(experiment_ids)s) ORDER BY 1, 2, 3, 4 LIMIT %(limit)s
"""
"""Indexes: uq_datasets_name, ix_dataset_inputs_dataset."""
