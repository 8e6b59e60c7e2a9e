"""Statements on `runs` and what is logged to them."""

from collections.abc import Sequence
from typing import Final

RUN_COLUMNS: Final = """
    r.run_id, r.experiment_id::text AS experiment_id, r.kind, r.name, r.user_name, r.state, r.lifecycle_stage, r.attempt, r.created_at,
    r.started_at, r.ended_at, r.parent_run_id, r.sweep_id, r.trial_number, r.generation, r.cause, r.detail, r.worker_id, r.placement,
    r.value, r.argv, r.artifact_root
"""
"""The fields of `tracking.records.Run`, in their order."""

GET: Final = f"SELECT {RUN_COLUMNS} FROM runs r WHERE r.run_id = %(run_id)s"

REPLACED: Final = """
SELECT run_id FROM runs WHERE sweep_id = %(sweep_id)s AND trial_number = %(number)s AND generation < %(generation)s ORDER BY generation
"""
"""Index: ix_runs_trial."""

BY_PREFIX: Final = f"SELECT {RUN_COLUMNS} FROM runs r WHERE r.run_id LIKE %(pattern)s ORDER BY r.run_id LIMIT 2"

# As `tracking.locations.below` has it; null for the folder in our own store.
_ARTIFACT_ROOT: Final = (
    "CASE artifact_location WHEN '' THEN NULL ELSE "
    r"regexp_replace(artifact_location, '/*(\?.*)?$', '/' || run_id || '/artifacts\1') END"
)

INSERT_EXTERNAL: Final = f"""
SET LOCAL lock_timeout = '500ms';
WITH given AS (
    SELECT * FROM unnest(%(run_ids)s::text[], %(experiment_ids)s::bigint[], %(names)s::text[], %(user_names)s::text[],
                         %(started_ats)s::timestamptz[], %(parent_run_ids)s::text[])
               AS given (run_id, experiment_id, name, user_name, started_at, parent_run_id)
), e AS (
    SELECT experiment_id, artifact_location FROM experiments
     WHERE experiment_id = ANY(%(experiment_ids)s::bigint[]) AND lifecycle_stage = 'active' ORDER BY experiment_id FOR KEY SHARE
), r AS (
    INSERT INTO runs (run_id, experiment_id, kind, name, user_name, state, started_at, parent_run_id, opener_run_id, opener_attempt, artifact_root)
    SELECT run_id, experiment_id, 'external', given.name, user_name, 'running', started_at, parent_run_id, %(opener_run_id)s, %(opener_attempt)s,
           {_ARTIFACT_ROOT}
      FROM given JOIN e USING (experiment_id)
    RETURNING *
), t AS (
    INSERT INTO tags (run_id, key, value)
    SELECT run_id, tag.key, tag.value
      FROM unnest(%(tag_run_ids)s::text[], %(tag_keys)s::text[], %(tag_values)s::text[]) AS tag (run_id, key, value) JOIN r USING (run_id)
)
SELECT {RUN_COLUMNS} FROM r
"""
"""Runs that do not come back: there is no such experiment, or it is deleted, also by somebody whose lock was waited for. Not for long:
what one of many waits for, all do."""

_FOR_WRITE: Final = "SELECT run_id, kind, state, lifecycle_stage, attempt, opener_run_id, opener_attempt FROM runs WHERE run_id"
FOR_WRITE: Final = f"{_FOR_WRITE} = %(run_id)s"
FOR_WRITES: Final = f"SET LOCAL lock_timeout = '500ms'; {_FOR_WRITE} = ANY(%(run_ids)s)"
"""What decides who may write to a run, or to many; what one of many waits for, all do."""

UPDATE_EXTERNAL: Final = """
UPDATE runs SET state = coalesce(%(state)s, state), name = coalesce(%(name)s, name),
       ended_at = coalesce(%(ended_at)s, ended_at)
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

DATA_COLUMNS: Final = """
    (SELECT json_object_agg(p.key, p.value)::text FROM (
        SELECT p.key, p.value FROM params p WHERE p.run_id = r.run_id AND p.attempt IN (0, r.attempt) ORDER BY p.key) p) AS params,
    (SELECT json_object_agg(t.key, t.value)::text FROM (SELECT t.key, t.value FROM tags t WHERE t.run_id = r.run_id ORDER BY t.key) t) AS tags,
    (SELECT '[' || string_agg('[' || to_json(l.key) || ',' || CASE WHEN abs(l.value) < 'Infinity' THEN l.value::text ELSE '"' || l.value || '"' END
                              || ',' || l.step || ',' || l.time_ms || ']', ',') || ']'
       FROM (SELECT * FROM metric_latest l WHERE l.run_id = r.run_id AND l.attempt = r.attempt ORDER BY l.key) l) AS metrics,
    (EXISTS (SELECT 1 FROM dataset_inputs d WHERE d.run_id = r.run_id) OR EXISTS (SELECT 1 FROM run_models m WHERE m.run_id = r.run_id)) AS has_lineage
"""
"""What was logged to a run, as JSON in its own row: a fifth of the time that a row for each value takes. Metrics are key, value, step and
time each; what JSON has no number for is a text. Null where there is none. Indexes: primary keys."""

DATA: Final = f"SELECT {RUN_COLUMNS}, {DATA_COLUMNS} FROM runs r WHERE r.run_id = ANY(%(run_ids)s)"

LATEST_OF: Final = """
SELECT l.run_id, l.key, l.value, l.step, l.time_ms FROM metric_latest l JOIN runs r ON r.run_id = l.run_id
 WHERE l.run_id = ANY(%(run_ids)s) AND l.key = %(key)s AND l.attempt = r.attempt
"""

SERIES_OF: Final = """
SELECT l.series_id FROM runs r LEFT JOIN metric_latest l ON l.run_id = r.run_id AND l.attempt = r.attempt AND l.key = %(key)s
 WHERE r.run_id = %(run_id)s
"""
"""Indexes: primary keys. The current attempt's; a row without it where that has logged nothing by this key, none where there is no run."""


def history(columns: Sequence[str], *, is_first: bool) -> str:
    """A page of a series in the order of its columns. Exact duplicates (clients retry) are invisible to readers (D6).

    Index: ix_metric_points_series.
    """
    order = ", ".join(columns)
    after = "" if is_first else f" AND {columns[0]} >= %(after_0)s AND ({order}) > (%(after_0)s, %(after_1)s, %(after_2)s::double precision)"
    return f"SELECT DISTINCT {order} FROM metric_points WHERE series_id = %(series_id)s{after} ORDER BY {order} LIMIT %(limit)s"


CURVES: Final = """
SELECT t.number, t.run_id, p.step, p.time_ms, p.value
  FROM trials t JOIN runs r ON r.run_id = t.run_id
  JOIN metric_latest l ON l.run_id = r.run_id AND l.key = %(key)s AND l.attempt = r.attempt
  JOIN LATERAL (
      SELECT DISTINCT step, time_ms, value FROM metric_points WHERE series_id = l.series_id ORDER BY step, time_ms, value) p ON true
 WHERE t.sweep_id = %(sweep_id)s AND t.number >= %(from_trial)s
 ORDER BY t.number, p.step, p.time_ms, p.value LIMIT %(limit)s
"""
"""Indexes: trials' primary key, walked in order until there are enough, metric_latest's, ix_metric_points_series."""

_NEWER: Final = "(excluded.step, excluded.time_ms, excluded.value) >= (metric_latest.step, metric_latest.time_ms, metric_latest.value)"
UPSERT_LATEST: Final = f"""
INSERT INTO metric_latest (run_id, key, attempt, step, time_ms, value, min_value, max_value) VALUES {{latest}}
ON CONFLICT (run_id, key, attempt) DO UPDATE SET
    step = CASE WHEN {_NEWER} THEN excluded.step ELSE metric_latest.step END,
    time_ms = CASE WHEN {_NEWER} THEN excluded.time_ms ELSE metric_latest.time_ms END,
    value = CASE WHEN {_NEWER} THEN excluded.value ELSE metric_latest.value END,
    min_value = least(metric_latest.min_value, excluded.min_value),
    max_value = greatest(metric_latest.max_value, excluded.max_value)
RETURNING run_id, key, attempt, series_id
"""
"""Latest by (step, time, value), MLflow's tie-break; extremes beside it for `metric.from: best`. `latest` stands for the rows."""

APPEND_FEW: Final = f"""
WITH l AS ({UPSERT_LATEST})
INSERT INTO metric_points (series_id, step, time_ms, value)
SELECT l.series_id, p.step::bigint, p.time_ms::bigint, p.value::double precision
  FROM (VALUES {{points}}) AS p (run_id, key, attempt, step, time_ms, value)
  JOIN l ON l.run_id = p.run_id AND l.key = p.key AND l.attempt = p.attempt
"""
"""The latest values and a few points in one round trip; many points are cheaper by COPY."""
