"""Statements on `trials`: created with their runs, concluded when those end, listed, ranked."""

from typing import Final

from tracking.queries.moves import quoted
from tracking.states import FINAL_RUN_STATES

NEXT_NUMBER: Final = "SELECT coalesce(max(number) + 1, 0) FROM trials WHERE sweep_id = %(sweep_id)s"

STANDINGS: Final = """
SELECT s.sweep_id, (SELECT coalesce(max(number) + 1, 0) FROM trials t WHERE t.sweep_id = s.sweep_id) AS next_number,
       (SELECT count(*) FROM trials t WHERE t.sweep_id = s.sweep_id AND t.state = 'open') AS n_open
  FROM sweeps s WHERE s.sweep_id = ANY(%(sweep_ids)s)
"""
"""Indexes: primary keys, ix_trials_open."""

HOLD_SWEEP: Final = "SELECT state FROM sweeps WHERE sweep_id = %(sweep_id)s FOR NO KEY UPDATE"

INSERT_RUNS: Final = (
    "INSERT INTO runs (run_id, experiment_id, kind, name, user_name, state, parent_run_id, sweep_id, trial_number, argv, params, seed, queue, priority)"
)
INSERT_TRIALS: Final = "INSERT INTO trials (sweep_id, number, state, params, run_id, attrs)"
INSERT_PARAMS: Final = "INSERT INTO params (run_id, key, value)"
INSERT_EVENTS: Final = "INSERT INTO events (subject, event, to_state, sweep_id, trial_number, run_id)"

CONCLUDE: Final = f"""
WITH over AS (
    SELECT t.sweep_id, t.number, r.state AS run_state, r.cause, r.detail, r.value, r.started_at, r.ended_at,
           CASE WHEN r.value IS NULL THEN nullif(
               CASE WHEN %(impute)s = 'latest' THEN m.value WHEN s.metric_goal = 'minimize' THEN m.min_value ELSE m.max_value END, 'NaN') END AS imputed
      FROM trials t JOIN runs r ON r.run_id = t.run_id JOIN sweeps s ON s.sweep_id = t.sweep_id
      LEFT JOIN metric_latest m ON %(impute)s IS NOT NULL AND m.run_id = r.run_id AND m.attempt = r.attempt AND m.key = s.metric_name
     WHERE t.sweep_id = %(sweep_id)s AND t.state = 'open' AND r.state IN {quoted(FINAL_RUN_STATES)}
       FOR UPDATE OF t
), numbered AS (
    SELECT *, row_number() OVER (ORDER BY ended_at, number) AS place FROM over
), s AS (
    UPDATE sweeps SET told_seq = told_seq + (SELECT count(*) FROM over) WHERE sweep_id = %(sweep_id)s
    RETURNING told_seq - (SELECT count(*) FROM over) AS base
), t AS (
    UPDATE trials SET state = n.run_state, told_seq = s.base + n.place, value = n.value, imputed = n.imputed, cause = n.cause,
           detail = n.detail, ended_at = n.ended_at
      FROM numbered n, s WHERE trials.sweep_id = n.sweep_id AND trials.number = n.number AND trials.state = 'open'
    RETURNING trials.*, n.started_at
), e AS (
    INSERT INTO events (subject, event, from_state, to_state, sweep_id, trial_number, run_id, cause, detail)
    SELECT 'trial', CASE state WHEN 'finished' THEN 'finish' WHEN 'failed' THEN 'fail' WHEN 'pruned' THEN 'prune' ELSE 'cancel' END,
           'open', state, sweep_id, number, run_id, cause, coalesce(detail, '') FROM t
)
SELECT sweep_id, number, state, params::text AS params, generation, run_id, value, imputed, cause, detail, told_seq, attrs::text AS attrs,
       created_at, started_at, ended_at
  FROM t ORDER BY told_seq
"""
"""Indexes: ix_trials_open, runs' primary key. A run's final states are named as a trial's are. Conclusion and telling
are one row's one move: each generation is told exactly once (I2)."""

REOPENABLE: Final = """
SELECT t.number, t.run_id, t.generation, t.params::text AS params FROM trials t
 WHERE t.sweep_id = %(sweep_id)s AND t.state = ANY(%(states)s) AND (%(numbers)s::int[] IS NULL OR t.number = ANY(%(numbers)s))
 ORDER BY t.number FOR UPDATE
"""
"""Index: ix_trials_state."""

N_CANCELLED: Final = "SELECT count(*) FROM trials WHERE sweep_id = %(sweep_id)s AND state = 'cancelled'"
"""Index: ix_trials_state."""

INSERT_RUNS_AGAIN: Final = """
INSERT INTO runs (run_id, experiment_id, kind, name, user_name, state, parent_run_id, sweep_id, trial_number, generation, argv, params, seed, queue,
                  priority)
SELECT v.new_run_id, r.experiment_id, r.kind, r.name, r.user_name, 'queued', r.parent_run_id, r.sweep_id, r.trial_number, r.generation + 1, r.argv,
       r.params, r.seed, r.queue, r.priority
  FROM unnest(%(run_ids)s::text[], %(new_run_ids)s::text[]) AS v (run_id, new_run_id) JOIN runs r ON r.run_id = v.run_id
"""

REOPEN: Final = """
WITH t AS (
    UPDATE trials SET state = 'open', generation = generation + 1, run_id = v.new_run_id, told_seq = NULL, value = NULL, imputed = NULL,
           cause = NULL, detail = NULL, ended_at = NULL
      FROM unnest(%(run_ids)s::text[], %(new_run_ids)s::text[]) AS v (run_id, new_run_id)
     WHERE trials.sweep_id = %(sweep_id)s AND trials.run_id = v.run_id
    RETURNING trials.sweep_id, trials.number, trials.run_id, v.run_id AS ended_run_id
)
INSERT INTO events (subject, event, from_state, to_state, sweep_id, trial_number, run_id)
SELECT subject, event, CASE subject WHEN 'trial' THEN r.state END, to_state, t.sweep_id, number, t.run_id
  FROM t JOIN runs r ON r.run_id = t.ended_run_id, (VALUES (1, 'trial', 'retry', 'open'), (2, 'run', 'queue', 'queued')) AS e (place, subject, event, to_state)
 ORDER BY number, place
"""
"""The run that failed stays as it is; its trial is told anew when the next one has ended."""

OVER: Final = f"""
SELECT DISTINCT t.sweep_id FROM trials t JOIN runs r ON r.run_id = t.run_id
 WHERE t.state = 'open' AND r.state IN {quoted(FINAL_RUN_STATES)}
"""
"""Index: ix_trials_open."""

TRIAL_COLUMNS: Final = """
    t.sweep_id, t.number, t.state, t.params, t.generation, t.run_id, r.state AS run_state, r.attempt AS attempts, t.created_at, t.value,
    t.imputed, coalesce(t.cause, r.cause) AS cause, coalesce(t.detail, r.detail) AS detail, t.told_seq, t.attrs, r.started_at,
    coalesce(t.ended_at, r.ended_at) AS ended_at, w.name AS worker_name,
    coalesce(a.duration_s, extract(epoch FROM coalesce(a.ended_at, now()) - a.started_at)::float8) AS duration_s
"""

_FROM: Final = """FROM trials t JOIN runs r ON r.run_id = t.run_id LEFT JOIN workers w ON w.worker_id = r.worker_id
  LEFT JOIN attempts a ON a.run_id = r.run_id AND a.attempt = r.attempt"""

GET: Final = f"SELECT {TRIAL_COLUMNS} {_FROM} WHERE t.sweep_id = %(sweep_id)s AND t.number = %(number)s"

RUNNING: Final = f"""
SELECT {TRIAL_COLUMNS} {_FROM}
 WHERE t.sweep_id = %(sweep_id)s AND t.state = 'open' AND r.state = 'running' ORDER BY t.number
"""
"""Index: ix_trials_open."""


def by_number(where: str) -> str:
    """All trials whose run `r` meets a condition. Index: trials' primary key."""
    return f"""
SELECT {TRIAL_COLUMNS} {_FROM}
 WHERE t.sweep_id = %(sweep_id)s AND (%(states)s::text[] IS NULL OR t.state = ANY(%(states)s)) AND {where}
 ORDER BY t.number LIMIT %(limit)s OFFSET %(offset)s
"""


def best(goal: str, where: str = "true") -> str:
    """The best finished trials, ties by the lower number. Index: ix_trials_value, from the end that `goal` names."""
    direction = "ASC" if goal == "minimize" else "DESC"
    return f"""
SELECT {TRIAL_COLUMNS} {_FROM}
 WHERE t.sweep_id = %(sweep_id)s AND t.state = 'finished' AND t.value IS NOT NULL AND {where}
 ORDER BY t.value {direction}, t.number LIMIT %(top)s
"""


def by_value(goal: str, where: str) -> str:
    """All trials whose run `r` meets a condition, best first, those without a value last."""
    direction = "ASC" if goal == "minimize" else "DESC"
    return f"""
SELECT {TRIAL_COLUMNS} {_FROM}
 WHERE t.sweep_id = %(sweep_id)s AND (%(states)s::text[] IS NULL OR t.state = ANY(%(states)s)) AND {where}
 ORDER BY (t.state = 'finished') DESC, t.value {direction} NULLS LAST, t.number LIMIT %(limit)s OFFSET %(offset)s
"""
