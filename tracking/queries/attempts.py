"""Statements on `attempts`: claim, finish, adopt, lose. Each repeats the condition that justifies it."""

from typing import Final

from tracking.failpoints import unless_broken
from tracking.queries.moves import from_states, to_state
from tracking.states import RUN_MOVES, AttemptState, RunEvent

_CLAIM = RUN_MOVES[RunEvent.CLAIM]
_AS_PLACED: Final = unless_broken("claim-without-placement", "runs.session_id = live.session_id AND placement = %(placement)s")
_IS_LIVE: Final = unless_broken("no-fence", "state = 'running'")
_IS_THIS_SESSIONS: Final = unless_broken("no-fence", "session_id = %(session_id)s AND state = 'running'")
_IS_CURRENT: Final = unless_broken("no-fence", "attempt = %(attempt)s AND state = 'running'")

_CLAIMED_COLUMNS: Final = """
    r.run_id, r.attempt, r.placement, r.experiment_id::text AS experiment_id, r.name, r.argv, r.params, r.seed, r.gpu_ids,
    r.sweep_id, r.trial_number, s.launch
"""

CLAIM: Final = f"""
WITH live AS (
    SELECT session_id, host_incarnation FROM sessions WHERE session_id = %(session_id)s AND state = 'live' FOR SHARE
), r AS (
    UPDATE runs SET state = {to_state(_CLAIM)}, attempt = attempt + 1, started_at = coalesce(started_at, now()), verdict_due = false,
           cause = NULL, detail = NULL
      FROM live
     WHERE run_id = %(run_id)s AND state IN {from_states(_CLAIM)} AND {_AS_PLACED}
       AND cancel_requested_at IS NULL
       AND EXISTS (SELECT 1 FROM sweeps s WHERE s.sweep_id = runs.sweep_id AND s.state IN ('active', 'stopping'))
    RETURNING runs.*, live.host_incarnation
), a AS (
    INSERT INTO attempts (run_id, attempt, state, worker_id, session_id, placement, claim_id, token_hash, host_incarnation, gpu_ids)
    SELECT r.run_id, r.attempt, '{AttemptState.RUNNING}', r.worker_id, r.session_id, r.placement, %(claim_id)s, %(token_hash)s,
           r.host_incarnation, r.gpu_ids
      FROM r
), e AS (
    INSERT INTO events (subject, event, from_state, to_state, sweep_id, trial_number, run_id, attempt, worker_id)
    SELECT 'run', 'claim', 'placed', {to_state(_CLAIM)}, sweep_id, trial_number, run_id, attempt, worker_id FROM r
)
SELECT {_CLAIMED_COLUMNS} FROM r LEFT JOIN sweeps s ON s.sweep_id = r.sweep_id
"""
"""Index: primary keys. One row when the claim won, none when it did not. The session is held until the commit: a newer
one that fences it waits, and then sees (and adopts) this attempt."""

CLAIMED_BEFORE: Final = f"""
SELECT {_CLAIMED_COLUMNS}
  FROM attempts a JOIN runs r ON r.run_id = a.run_id LEFT JOIN sweeps s ON s.sweep_id = r.sweep_id
 WHERE a.claim_id = %(claim_id)s AND a.session_id = %(session_id)s AND a.attempt = r.attempt AND a.state = 'running'
"""
"""Index: unique claim_id. The same claim again, after a lost reply."""

STARTED: Final = """
UPDATE attempts SET started_at = now(), info = info || %(info)s::jsonb
 WHERE run_id = %(run_id)s AND attempt = %(attempt)s AND session_id = %(session_id)s AND state = 'running' AND started_at IS NULL
"""

NOTE: Final = """
UPDATE attempts SET info = info || %(info)s::jsonb
 WHERE run_id = %(run_id)s AND attempt = %(attempt)s AND session_id = %(session_id)s AND state = 'running'
"""
"""Index: primary key."""

END: Final = f"""
WITH a AS (
    UPDATE attempts SET state = %(state)s, ended_at = now(), finish_key = %(finish_key)s, cause = %(cause)s, detail = %(detail)s,
           exit_status = %(exit_status)s, signal = %(signal)s, duration_s = %(duration_s)s,
           started_at = coalesce(started_at, now() - make_interval(secs => %(duration_s)s))
     WHERE run_id = %(run_id)s AND attempt = %(attempt)s AND {_IS_THIS_SESSIONS}
    RETURNING run_id, attempt
)
SELECT r.sweep_id, r.trial_number, s.metric_name, s.metric_goal, s.metric_from, l.value, l.min_value, l.max_value,
       r.cancel_requested_at IS NOT NULL AS cancel, r.cancel_cause AS asked_cause, r.detail AS asked_detail
  FROM a JOIN runs r ON r.run_id = a.run_id
  LEFT JOIN sweeps s ON s.sweep_id = r.sweep_id
  LEFT JOIN metric_latest l ON l.run_id = r.run_id AND l.key = s.metric_name AND l.attempt = a.attempt
"""
"""Index: primary key, the fence. None back: the attempt is no longer this session's."""

METRIC_KEYS: Final = """
SELECT key FROM metric_latest WHERE run_id = %(run_id)s AND attempt = %(attempt)s ORDER BY key LIMIT 1000
"""
"""Index: primary key. What an attempt has logged, by name."""

RUN_ENDS: Final = f"""
WITH r AS (
    UPDATE runs SET state = %(to)s, ended_at = now(), cause = %(cause)s, detail = %(detail)s, value = %(value)s, verdict_due = false
     WHERE run_id = %(run_id)s AND {_IS_CURRENT}
    RETURNING run_id, attempt, sweep_id, trial_number, worker_id, session_id
), d AS (
    UPDATE runs SET state = 'killed', ended_at = now()
     WHERE opener_run_id = %(run_id)s AND opener_attempt = %(attempt)s AND state IN ('running', 'scheduled')
), s AS (
    UPDATE sessions SET slot_freed_at = now() WHERE session_id = %(session_id)s
), w AS (
    UPDATE workers SET faults_in_row = 0 WHERE worker_id = (SELECT worker_id FROM r) AND faults_in_row <> 0
)
INSERT INTO events (subject, event, from_state, to_state, sweep_id, trial_number, run_id, attempt, worker_id, cause, detail)
SELECT subject, event, 'running', to_state, sweep_id, trial_number, run_id, attempt, worker_id, v.cause, v.detail
  FROM r, (VALUES ('attempt', %(attempt_event)s, %(attempt_state)s, %(attempt_cause)s, %(attempt_detail)s),
                  ('run', %(run_event)s, %(to)s, %(cause)s, %(detail)s)) AS v (subject, event, to_state, cause, detail)
"""

VERDICT_DUE: Final = f"""
WITH r AS (
    UPDATE runs SET verdict_due = true, cause = %(cause)s, detail = %(detail)s
     WHERE run_id = %(run_id)s AND {_IS_CURRENT}
    RETURNING run_id, attempt, sweep_id, trial_number, worker_id
), d AS (
    UPDATE runs SET state = 'killed', ended_at = now()
     WHERE opener_run_id = %(run_id)s AND opener_attempt = %(attempt)s AND state IN ('running', 'scheduled')
), s AS (
    UPDATE sessions SET slot_freed_at = now() WHERE session_id = %(session_id)s
), w AS (
    UPDATE workers SET faults_in_row = 0 WHERE worker_id = (SELECT worker_id FROM r) AND faults_in_row <> 0 AND NOT %(is_machinery)s
)
INSERT INTO events (subject, event, from_state, to_state, sweep_id, trial_number, run_id, attempt, worker_id, cause, detail)
SELECT 'attempt', %(attempt_event)s, 'running', %(attempt_state)s, sweep_id, trial_number, run_id, attempt, worker_id, %(cause)s, %(detail)s
  FROM r
"""

FINISH_KEY: Final = "SELECT finish_key FROM attempts WHERE run_id = %(run_id)s AND attempt = %(attempt)s"

ADOPT: Final = f"""
WITH a AS (
    UPDATE attempts SET session_id = %(session_id)s WHERE worker_id = %(worker_id)s AND state = 'running' RETURNING run_id
), r AS (
    UPDATE runs SET session_id = %(session_id)s FROM a WHERE runs.run_id = a.run_id RETURNING runs.*
)
SELECT {_CLAIMED_COLUMNS} FROM r LEFT JOIN sweeps s ON s.sweep_id = r.sweep_id
"""
"""A new session of the same worker takes over its live attempts under the same numbers (D5)."""

AUTHENTICATE: Final = """
SELECT token_hash, state FROM attempts WHERE run_id = %(run_id)s AND attempt = %(attempt)s
"""

FENCES: Final = f"""
SELECT run_id, attempt FROM attempts WHERE (run_id, attempt) IN ({{fences}}) AND {_IS_LIVE} ORDER BY run_id, attempt FOR SHARE
"""
"""Holds attempts open until the writer's commit: an outcome can't slip in between. In one order: two writers can't deadlock."""

LIST: Final = """
SELECT a.*, w.name AS worker_name FROM attempts a LEFT JOIN workers w ON w.worker_id = a.worker_id
 WHERE a.run_id = %(run_id)s ORDER BY a.attempt
"""

ABANDONED: Final = """
SELECT a.run_id, a.attempt
  FROM unnest(%(run_ids)s::text[], %(attempts)s::int[]) AS asked (run_id, attempt) JOIN attempts a USING (run_id, attempt)
 WHERE a.state <> 'running'
   AND NOT EXISTS (SELECT 1 FROM sessions s WHERE s.worker_id = a.worker_id AND s.state = 'live' AND s.lease_until >= now())
"""
"""Indexes: primary key, uq_sessions_live. Over, of workers that are not there: one that is may be tidying up this very moment. What
the record does not know may be another cluster's."""

LOSE_OF_SESSIONS: Final = """
WITH a AS (
    UPDATE attempts SET state = 'lost', ended_at = now(), cause = 'lost', detail = %(detail)s
     WHERE session_id = ANY(%(session_ids)s) AND state = 'running'
    RETURNING run_id, attempt, worker_id
), r AS (
    UPDATE runs SET verdict_due = true, cause = 'lost', detail = %(detail)s
      FROM a WHERE runs.run_id = a.run_id AND runs.attempt = a.attempt AND runs.state = 'running'
    RETURNING runs.run_id, runs.attempt, runs.sweep_id, runs.trial_number, a.worker_id
), d AS (
    UPDATE runs SET state = 'killed', ended_at = now()
      FROM a WHERE opener_run_id = a.run_id AND opener_attempt = a.attempt AND state IN ('running', 'scheduled')
)
INSERT INTO events (subject, event, from_state, to_state, sweep_id, trial_number, run_id, attempt, worker_id, cause, detail)
SELECT 'attempt', 'lose', 'running', 'lost', sweep_id, trial_number, run_id, attempt, worker_id, 'lost', %(detail)s FROM r
"""
