"""Statements on `workers` and `sessions`."""

from typing import Final

from tracking.failpoints import is_broken

NOW: Final = "to_timestamp(%(own_clock)s)" if is_broken("worker-clock-lease") else "now()"
"""Of leases: the database's clock, whoever asks (I4)."""

UPSERT_WORKER: Final = """
INSERT INTO workers (worker_id, name, hostname) VALUES (%(worker_id)s, %(name)s, %(hostname)s)
ON CONFLICT (worker_id) DO UPDATE SET name = excluded.name, hostname = excluded.hostname, cordoned = NULL, cordoned_at = NULL,
       faults_in_row = 0, draining = false
"""
"""A fresh start of a worker also lifts its cordon: somebody has looked after it."""

FENCE_OLDER: Final = """
UPDATE sessions SET state = 'fenced', ended_at = now()
 WHERE worker_id = %(worker_id)s AND state = 'live' AND session_id <> %(session_id)s RETURNING session_id
"""

STATE: Final = "SELECT state FROM sessions WHERE session_id = %(session_id)s FOR UPDATE"

LOOK: Final = "SELECT state FROM sessions WHERE session_id = %(session_id)s"
"""Index: primary key."""

OPEN: Final = f"""
INSERT INTO sessions (session_id, worker_id, state, celery_queue, queues, slots, cpus, memory_bytes, gpus, runtimes, host_incarnation,
                      version, pid, renewed_at, lease_until)
VALUES (%(session_id)s, %(worker_id)s, 'live', %(celery_queue)s, %(queues)s, %(slots)s, %(cpus)s, %(memory_bytes)s, %(gpus)s, %(runtimes)s,
        %(host_incarnation)s, %(version)s, %(pid)s, {NOW}, {NOW} + make_interval(secs => %(lease_s)s))
ON CONFLICT (session_id) DO UPDATE SET renewed_at = excluded.renewed_at, lease_until = excluded.lease_until
"""
"""Opened again under the same id after a lost reply: the same session."""

RENEW: Final = f"""
UPDATE sessions SET renewed_at = {NOW}, lease_until = {NOW} + make_interval(secs => %(lease_s)s)
 WHERE session_id = %(session_id)s AND state = 'live'
"""

OFFER: Final = "UPDATE sessions SET runtimes = %(runtimes)s WHERE session_id = %(session_id)s"

OURS: Final = """
SELECT r.run_id, r.placement, r.attempt, r.state, r.cancel_requested_at IS NOT NULL AS cancel, r.prune_requested_at IS NOT NULL AS prune,
       w.draining
  FROM sessions s JOIN workers w ON w.worker_id = s.worker_id
  LEFT JOIN runs r ON r.kind = 'managed' AND r.state IN ('placed', 'running') AND r.session_id = s.session_id AND NOT r.verdict_due
 WHERE s.session_id = %(session_id)s AND s.state = 'live'
 ORDER BY r.placed_at
"""
"""Index: ix_runs_live. One row without a run when there is none, for the worker's own state; no row when the session is over: it owns
nothing then, and that is no reason to stop what a newer session of the same worker has adopted."""

CLOSE: Final = "UPDATE sessions SET state = 'ended', ended_at = now() WHERE session_id = %(session_id)s AND state = 'live'"

SILENT: Final = f"""
SELECT session_id FROM sessions
 WHERE session_id IN (SELECT session_id FROM sessions WHERE state = 'live' UNION SELECT session_id FROM attempts WHERE state = 'running')
   AND renewed_at + make_interval(secs => %(reassign_after_s)s) < {NOW}
   FOR NO KEY UPDATE NOWAIT
"""
"""Indexes: uq_sessions_live, ix_attempts_session, sessions' primary key. Not waited for: once the lock that somebody else holds is gone,
the session's own renewal, which has waited as well, is to come first."""

LOSE_SILENT: Final = f"""
WITH silent AS ({SILENT}), s AS (
    UPDATE sessions SET state = CASE WHEN state = 'live' THEN 'lost' ELSE state END, ended_at = coalesce(ended_at, now())
     WHERE session_id IN (SELECT session_id FROM silent)
       AND EXISTS (SELECT 1 FROM leader WHERE lease_until >= now() AND (suspended_until IS NULL OR suspended_until <= now()))
    RETURNING session_id, worker_id
), e AS (
    INSERT INTO events (subject, event, worker_id, detail) SELECT 'worker', 'session_lost', worker_id, session_id FROM s
)
SELECT session_id FROM s
"""
"""Only while the leader's own lease is good and expiry not suspended, both by the database's clock: a leader that wakes from a gap (a
machine asleep) may ask before it knows of it (I4)."""

_CORDON: Final = "CASE WHEN w.cordoned_at + interval '10 minutes' > now() THEN w.cordoned END"

_VIEW: Final = f"""
SELECT w.worker_id, w.name, w.hostname, w.draining, {_CORDON} AS cordoned, s.session_id, s.state, s.celery_queue, s.queues, s.slots, s.cpus,
       s.memory_bytes, s.gpus, s.runtimes, s.renewed_at, (s.state <> 'live' OR s.lease_until < now()) AS silent,
       coalesce(h.running, '{{}}') AS running, coalesce(h.placed, '{{}}') AS placed
"""

_HELD: Final = """
  LEFT JOIN (
      SELECT session_id, array_agg(run_id) FILTER (WHERE state = 'running') AS running, array_agg(run_id) FILTER (WHERE state = 'placed') AS placed
        FROM runs WHERE kind = 'managed' AND state IN ('placed', 'running') AND NOT verdict_due GROUP BY session_id
  ) h ON h.session_id = s.session_id
 ORDER BY w.name, w.worker_id
"""

WORKERS: Final = f"{_VIEW} FROM sessions s JOIN workers w ON w.worker_id = s.worker_id AND s.state = 'live' {_HELD}"
"""Indexes: uq_sessions_live, ix_runs_live; costs what is live, not what ever was. A cordon lasts ten minutes, then the worker is tried again."""

ALL_WORKERS: Final = f"""
{_VIEW}
  FROM workers w
  JOIN LATERAL (SELECT * FROM sessions s WHERE s.worker_id = w.worker_id ORDER BY s.opened_at DESC LIMIT 1) s ON true
{_HELD}
"""
"""Index: ix_sessions_worker."""

DRAIN: Final = """
UPDATE workers SET draining = %(draining)s
 WHERE worker_id = (SELECT worker_id FROM workers WHERE worker_id = %(ref)s OR name = %(ref)s ORDER BY created_at DESC LIMIT 1)
RETURNING worker_id
"""

LIFT_CORDON: Final = """
WITH before AS (
    SELECT worker_id, cordoned FROM workers WHERE worker_id = %(ref)s OR name = %(ref)s ORDER BY created_at DESC LIMIT 1 FOR UPDATE
)
UPDATE workers SET cordoned = NULL, cordoned_at = NULL, faults_in_row = 0
  FROM before WHERE workers.worker_id = before.worker_id
RETURNING workers.worker_id, before.cordoned IS NOT NULL AS was_cordoned
"""

WORKER_EVENT: Final = """
INSERT INTO events (subject, event, worker_id, detail) VALUES ('worker', %(event)s, %(worker_id)s, %(detail)s)
"""

NOTE_FAULT: Final = """
UPDATE workers SET faults_in_row = faults_in_row + 1,
       cordoned = CASE WHEN faults_in_row + 1 >= %(limit)s THEN %(reason)s ELSE cordoned END,
       cordoned_at = CASE WHEN faults_in_row + 1 >= %(limit)s THEN now() ELSE cordoned_at END
 WHERE worker_id = %(worker_id)s
   AND NOT EXISTS (SELECT 1 FROM runs WHERE run_id = %(run_id)s AND %(worker_id)s = ANY(avoid_workers))
   AND NOT EXISTS (
       SELECT 1 FROM runs r JOIN attempts a ON a.run_id = r.run_id
        WHERE r.sweep_id = (SELECT sweep_id FROM runs WHERE run_id = %(run_id)s) AND r.machinery_faults > 0
          AND a.cause = 'launch' AND a.worker_id <> %(worker_id)s)
RETURNING faults_in_row >= %(limit)s
"""
"""Indexes: primary keys, ix_runs_trial. Different runs count: one that has failed here before does not count again. And a sweep
whose runs can't be started on another worker either is to blame itself, not the workers."""
