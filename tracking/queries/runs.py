"""Statements on `runs` and what is logged to them."""

from typing import Final

RUN_COLUMNS: Final = """
    r.run_id, r.experiment_id::text AS experiment_id, r.kind, r.name, r.user_name, r.state, r.lifecycle_stage, r.attempt, r.created_at,
    r.started_at, r.ended_at, r.parent_run_id, r.sweep_id, r.trial_number, r.generation, r.cause, r.detail, r.worker_id, r.placement,
    r.value, r.argv
"""

GET: Final = f"SELECT {RUN_COLUMNS} FROM runs r WHERE r.run_id = %(run_id)s"

REPLACED: Final = """
SELECT run_id FROM runs WHERE sweep_id = %(sweep_id)s AND trial_number = %(number)s AND generation < %(generation)s ORDER BY generation
"""
"""Index: ix_runs_trial."""

BY_PREFIX: Final = f"SELECT {RUN_COLUMNS} FROM runs r WHERE r.run_id LIKE %(pattern)s ORDER BY r.run_id LIMIT 2"

INSERT_EXTERNAL: Final = """
INSERT INTO runs (run_id, experiment_id, kind, name, user_name, state, started_at, parent_run_id, opener_run_id, opener_attempt)
VALUES (%(run_id)s, %(experiment_id)s, 'external', %(name)s, %(user_name)s, 'running', %(started_at)s, %(parent_run_id)s,
        %(opener_run_id)s, %(opener_attempt)s)
"""

FOR_WRITE: Final = """
SELECT kind, state, lifecycle_stage, attempt, opener_run_id, opener_attempt FROM runs WHERE run_id = %(run_id)s
"""

UPDATE_EXTERNAL: Final = """
UPDATE runs SET state = coalesce(%(state)s, state), name = coalesce(%(name)s, name),
       ended_at = CASE WHEN %(state)s::text IN ('running', 'scheduled') THEN NULL ELSE coalesce(%(ended_at)s, ended_at) END
 WHERE run_id = %(run_id)s AND kind = 'external'
"""

RENAME: Final = "UPDATE runs SET name = %(name)s WHERE run_id = %(run_id)s"

SET_LIFECYCLE: Final = "UPDATE runs SET lifecycle_stage = %(stage)s WHERE run_id = %(run_id)s"

UPSERT_TAG_TAIL: Final = "ON CONFLICT (run_id, key) DO UPDATE SET value = excluded.value"

PARAMS_OF: Final = """
SELECT key, value, attempt FROM params WHERE run_id = %(run_id)s AND key = ANY(%(keys)s)
"""

# A client's parameter of an earlier attempt gives way; the sweep's own (attempt 0) stays.
UPSERT_PARAM_TAIL: Final = """
ON CONFLICT (run_id, key) DO UPDATE SET value = excluded.value, attempt = excluded.attempt
 WHERE params.attempt <> 0 AND params.attempt < excluded.attempt
"""

DATA_PARAMS: Final = """
SELECT p.run_id, p.key, p.value FROM params p JOIN runs r ON r.run_id = p.run_id
 WHERE p.run_id = ANY(%(run_ids)s) AND p.attempt IN (0, r.attempt) ORDER BY p.key
"""
DATA_TAGS: Final = "SELECT run_id, key, value FROM tags WHERE run_id = ANY(%(run_ids)s) ORDER BY key"
DATA_METRICS: Final = """
SELECT l.run_id, l.key, l.value, l.step, l.time_ms FROM metric_latest l JOIN runs r ON r.run_id = l.run_id
 WHERE l.run_id = ANY(%(run_ids)s) AND l.attempt = r.attempt ORDER BY l.key
"""

LATEST_OF: Final = """
SELECT l.run_id, l.key, l.value, l.step, l.time_ms FROM metric_latest l JOIN runs r ON r.run_id = l.run_id
 WHERE l.run_id = ANY(%(run_ids)s) AND l.key = %(key)s AND l.attempt = r.attempt
"""

HISTORY: Final = """
SELECT DISTINCT p.step, p.time_ms, p.value FROM metric_points p JOIN runs r ON r.run_id = p.run_id
 WHERE p.run_id = %(run_id)s AND p.key = %(key)s AND p.attempt = r.attempt
 ORDER BY p.step, p.time_ms, p.value LIMIT %(limit)s OFFSET %(offset)s
"""
"""Index: ix_metric_points_run. Exact duplicates (clients retry) are invisible to readers (D6)."""

CURVES: Final = """
SELECT t.number, t.run_id, p.step, p.time_ms, p.value
  FROM trials t JOIN runs r ON r.run_id = t.run_id
  JOIN LATERAL (
      SELECT DISTINCT step, time_ms, value FROM metric_points
       WHERE run_id = r.run_id AND key = %(key)s AND attempt = r.attempt ORDER BY step, time_ms, value) p ON true
 WHERE t.sweep_id = %(sweep_id)s AND t.number >= %(from_trial)s
 ORDER BY t.number, p.step, p.time_ms, p.value LIMIT %(limit)s
"""
"""Indexes: trials' primary key, walked in order until there are enough, ix_metric_points_run."""

LATEST_TAIL: Final = """
ON CONFLICT (run_id, key) DO UPDATE SET
    attempt = excluded.attempt,
    step = CASE WHEN {newer} THEN excluded.step ELSE metric_latest.step END,
    time_ms = CASE WHEN {newer} THEN excluded.time_ms ELSE metric_latest.time_ms END,
    value = CASE WHEN {newer} THEN excluded.value ELSE metric_latest.value END,
    min_value = CASE WHEN excluded.attempt > metric_latest.attempt THEN excluded.min_value ELSE least(metric_latest.min_value, excluded.min_value) END,
    max_value = CASE WHEN excluded.attempt > metric_latest.attempt THEN excluded.max_value ELSE greatest(metric_latest.max_value, excluded.max_value) END
WHERE excluded.attempt >= metric_latest.attempt
""".replace(
    "{newer}",
    "excluded.attempt > metric_latest.attempt OR (excluded.step, excluded.time_ms, excluded.value) "
    ">= (metric_latest.step, metric_latest.time_ms, metric_latest.value)",
)
"""Latest by (step, time, value), MLflow's tie-break; extremes beside it for `metric.from: best`."""
