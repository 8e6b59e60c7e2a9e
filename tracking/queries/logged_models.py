"""Statements on `logged_models` and what is logged to them."""

from typing import Final

COLUMNS: Final = """
    m.model_id, m.experiment_id::text AS experiment_id, m.name, m.model_type, m.source_run_id, m.status, m.lifecycle_stage,
    m.created_at, m.updated_at, m.artifact_root
"""
"""The first fields of `tracking.records.LoggedModel`, in their order."""

GET: Final = f"SELECT {COLUMNS} FROM logged_models m WHERE m.model_id = %(model_id)s"

INSERT: Final = """
INSERT INTO logged_models (model_id, experiment_id, name, model_type, source_run_id, artifact_root)
VALUES (%(model_id)s, %(experiment_id)s, %(name)s, %(model_type)s, %(source_run_id)s, %(artifact_root)s)
"""

# `source_kind` is null of a model that no run of ours made.
FOR_WRITE: Final = """
SELECT m.experiment_id, m.source_run_id, r.kind AS source_kind, r.opener_run_id, r.opener_attempt
  FROM logged_models m LEFT JOIN runs r ON r.run_id = m.source_run_id WHERE m.model_id = %(model_id)s
"""

SOURCE: Final = "SELECT kind, opener_run_id, opener_attempt FROM runs WHERE run_id = %(run_id)s"

SET_STATUS: Final = "UPDATE logged_models SET status = %(status)s, updated_at = now() WHERE model_id = %(model_id)s"

DELETE: Final = "UPDATE logged_models SET lifecycle_stage = 'deleted', updated_at = now() WHERE model_id = %(model_id)s"

INSERT_TAGS: Final = "INSERT INTO logged_model_tags (model_id, key, value)"
TAGS_TAIL: Final = "ON CONFLICT (model_id, key) DO UPDATE SET value = excluded.value"
DELETE_TAG: Final = "DELETE FROM logged_model_tags WHERE model_id = %(model_id)s AND key = %(key)s"

INSERT_PARAMS: Final = "INSERT INTO logged_model_params (model_id, key, value)"
PARAMS_TAIL: Final = "ON CONFLICT (model_id, key) DO NOTHING"

INSERT_METRICS: Final = "INSERT INTO logged_model_metrics (model_id, key, time_ms, step, run_id, value, dataset_name, dataset_digest)"
METRICS_TAIL: Final = "ON CONFLICT DO NOTHING"

PARAMS_OF: Final = "SELECT model_id, key, value FROM logged_model_params WHERE model_id = ANY(%(model_ids)s) ORDER BY model_id, key"
TAGS_OF: Final = "SELECT model_id, key, value FROM logged_model_tags WHERE model_id = ANY(%(model_ids)s) ORDER BY model_id, key"
METRICS_OF: Final = """
SELECT model_id, run_id, key, value, step, time_ms, dataset_name, dataset_digest FROM logged_model_metrics
 WHERE model_id = ANY(%(model_ids)s) ORDER BY model_id, key, time_ms, step, run_id, value
"""
"""Indexes: the primary keys."""

KNOWN: Final = "SELECT model_id, experiment_id FROM logged_models WHERE model_id = ANY(%(model_ids)s)"
