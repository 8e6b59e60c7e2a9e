"""Statements behind `sweep why`: where things stand, what holds the workers, what happened. They only read."""

from typing import Final

SURROUNDINGS: Final = """
SELECT now() AS now, epoch, holder, renewed_at, lease_until >= now() AS is_led, CASE WHEN suspended_until > now() THEN suspended_until END AS suspended_until
  FROM leader
"""
"""One row; the clock is the database's (I4)."""

STANDING: Final = """
SELECT r.run_id, r.state, r.attempt, r.placement, r.placed_at, r.not_before, r.machinery_faults, r.user_retries, r.avoid_workers, r.verdict_due,
       r.priority, r.queue, r.cancel_requested_at, r.prune_requested_at, r.session_id, w.name AS worker_name, s.state AS session_state,
       s.renewed_at, s.lease_until, s.ended_at AS session_ended_at, coalesce(s.slots, 0) AS slots,
       (SELECT retry::text FROM sweeps WHERE sweeps.sweep_id = r.sweep_id) AS retry,
       (SELECT count(*) FROM runs o JOIN sweeps os ON os.sweep_id = o.sweep_id
         WHERE r.state = 'queued' AND o.kind = 'managed' AND o.state = 'queued' AND o.not_before <= now() AND os.state IN ('active', 'stopping')
           AND o.queue = r.queue AND o.priority > r.priority) AS n_before
  FROM runs r LEFT JOIN sessions s ON s.session_id = r.session_id LEFT JOIN workers w ON w.worker_id = r.worker_id
 WHERE r.run_id = %(run_id)s
"""
"""Indexes: primary keys, ix_runs_live."""

HOLDINGS: Final = """
SELECT r.run_id, r.session_id, r.sweep_id, coalesce(s.short_id, '') AS short_id, r.trial_number, r.user_name, r.state, r.gpu_ids,
       (s.launch -> 'resources')::text AS resources
  FROM runs r LEFT JOIN sweeps s ON s.sweep_id = r.sweep_id
 WHERE r.kind = 'managed' AND r.state IN ('placed', 'running') AND NOT r.verdict_due
 ORDER BY s.short_id, r.trial_number
"""
"""Index: ix_runs_live."""

PROGRESS: Final = """
SELECT count(*) FILTER (WHERE r.state = 'queued' AND r.not_before <= now()) AS n_ready,
       count(*) FILTER (WHERE r.state = 'queued' AND r.not_before > now()) AS n_backing_off,
       min(r.not_before) FILTER (WHERE r.state = 'queued' AND r.not_before > now()) AS next_at,
       count(*) FILTER (WHERE r.verdict_due) AS n_verdicts,
       count(*) FILTER (WHERE r.state = 'running' AND NOT r.verdict_due) AS n_running,
       count(*) FILTER (WHERE r.state = 'placed') AS n_placed,
       count(*) FILTER (WHERE r.state = 'running' AND NOT r.verdict_due AND (s.state <> 'live' OR s.lease_until < now())) AS n_silent,
       min(s.renewed_at) FILTER (WHERE r.state = 'running' AND NOT r.verdict_due AND (s.state <> 'live' OR s.lease_until < now())) AS silent_since,
       count(*) FILTER (WHERE r.state IN ('finished', 'failed', 'pruned', 'cancelled')) AS n_untold
  FROM trials t JOIN runs r ON r.run_id = t.run_id LEFT JOIN sessions s ON s.session_id = r.session_id
 WHERE t.sweep_id = %(sweep_id)s AND t.state = 'open'
"""
"""Index: ix_trials_open."""

FAILURES: Final = """
SELECT coalesce(cause, 'unknown') AS cause, count(*) AS n FROM trials WHERE sweep_id = %(sweep_id)s AND state = 'failed'
 GROUP BY 1 ORDER BY 2 DESC, 1
"""
"""Index: ix_trials_state."""

TRIAL_EVENTS: Final = """
SELECT * FROM (
    SELECT * FROM events
     WHERE run_id = %(run_id)s OR run_id IN (SELECT run_id FROM runs WHERE sweep_id = %(sweep_id)s AND trial_number = %(trial_number)s)
     ORDER BY seq DESC LIMIT %(limit)s
) e ORDER BY seq
"""
"""Indexes: ix_events_run, ix_runs_trial. All runs of a trial: retries by hand are runs of their own."""

SWEEP_EVENTS: Final = """
SELECT * FROM (
    SELECT * FROM events
     WHERE sweep_id = %(sweep_id)s
       AND (subject = 'sweep' OR (subject = 'trial' AND event IN ('fail', 'retry'))
            OR event IN ('requeue', 'unplace', 'reject', 'cancel_requested', 'prune_requested'))
     ORDER BY seq DESC LIMIT %(limit)s
) e ORDER BY seq
"""
"""Index: ix_events_sweep. What is out of the ordinary, for a sweep has some six rows a trial; the newest `limit`, oldest first."""

STAYS: Final = """
SELECT a.run_id, a.attempt, w.name AS worker_name, s.opened_at, s.ended_at, s.state, s.opened_at > a.claimed_at AS is_later,
       s.ended_at < coalesce(a.ended_at, now()) AS is_over
  FROM attempts a JOIN workers w ON w.worker_id = a.worker_id
  JOIN sessions s ON s.worker_id = a.worker_id AND s.opened_at <= coalesce(a.ended_at, now()) AND coalesce(s.ended_at, now()) >= a.claimed_at
 WHERE a.run_id = ANY(%(run_ids)s)
 ORDER BY a.run_id, a.attempt, s.opened_at
"""
"""Indexes: attempts' primary key, ix_sessions_worker. The sessions of each attempt's worker while the attempt was live."""

NAMES: Final = "SELECT worker_id, name FROM workers WHERE worker_id = ANY(%(worker_ids)s)"
