"""Statements of the scheduler on `runs`: what waits, placing, taking back, verdicts."""

from typing import Final

from tracking.queries.moves import from_states, quoted, to_state
from tracking.states import RUN_MOVES, RunEvent

_PLACE = RUN_MOVES[RunEvent.PLACE]
_UNPLACE = RUN_MOVES[RunEvent.UNPLACE]
_REQUEUE = RUN_MOVES[RunEvent.REQUEUE]
_FAIL = RUN_MOVES[RunEvent.FAIL]
_DROP = RUN_MOVES[RunEvent.DROP]
_CANCEL = RUN_MOVES[RunEvent.CANCEL]

QUEUED: Final = """
SELECT r.run_id, r.sweep_id, r.user_name, r.queue, r.priority, r.created_at, r.avoid_workers,
       (s.launch -> 'resources')::text AS resources, s.parallel
  FROM runs r JOIN sweeps s ON s.sweep_id = r.sweep_id
 WHERE r.kind = 'managed' AND r.state = 'queued' AND r.not_before <= now() AND s.state IN ('active', 'stopping')
   AND (%(queues)s::text[] IS NULL OR r.queue = ANY(%(queues)s::text[]))
 ORDER BY r.priority DESC, r.created_at, r.trial_number
 LIMIT %(limit)s
"""
"""Index: ix_runs_live."""

HELD: Final = """
SELECT r.run_id, r.sweep_id, r.user_name, r.session_id, r.state, r.gpu_ids, (s.launch -> 'resources')::text AS resources
  FROM runs r LEFT JOIN sweeps s ON s.sweep_id = r.sweep_id
 WHERE r.kind = 'managed' AND r.state IN ('placed', 'running') AND NOT r.verdict_due
"""
"""Index: ix_runs_live. What sessions hold now."""

PLACE: Final = f"""
WITH v AS (
    SELECT * FROM unnest(%(run_ids)s::text[], %(session_ids)s::text[], %(worker_ids)s::text[], %(gpu_ids)s::text[])
        AS v (run_id, session_id, worker_id, gpu_ids)
), open_sweeps AS MATERIALIZED (
    SELECT sweep_id FROM sweeps
     WHERE state IN ('active', 'stopping') AND sweep_id IN (SELECT runs.sweep_id FROM v JOIN runs ON runs.run_id = v.run_id)
     ORDER BY sweep_id FOR SHARE SKIP LOCKED
), locked AS MATERIALIZED (
    SELECT runs.run_id FROM runs JOIN v ON v.run_id = runs.run_id JOIN open_sweeps ON open_sweeps.sweep_id = runs.sweep_id
     ORDER BY runs.run_id FOR NO KEY UPDATE OF runs SKIP LOCKED
), r AS (
    UPDATE runs SET state = {to_state(_PLACE)}, placement = placement + 1, session_id = v.session_id, worker_id = v.worker_id,
           gpu_ids = v.gpu_ids::int[], placed_at = now()
      FROM v JOIN locked ON locked.run_id = v.run_id
     WHERE runs.run_id = v.run_id AND runs.state IN {from_states(_PLACE)} AND runs.cancel_requested_at IS NULL
       AND EXISTS (SELECT 1 FROM sessions WHERE sessions.session_id = v.session_id AND state = 'live')
    RETURNING runs.run_id, runs.placement, runs.session_id, runs.sweep_id, runs.trial_number, runs.worker_id
), e AS (
    INSERT INTO events (subject, event, from_state, to_state, sweep_id, trial_number, run_id, worker_id)
    SELECT 'run', 'place', 'queued', {to_state(_PLACE)}, sweep_id, trial_number, run_id, worker_id FROM r
)
SELECT run_id, placement, session_id FROM r
"""
"""Index: primary keys. The sweeps are held against a pause or cancel, then the runs. What somebody else holds just now is left out: it
may be for long, and its turn comes with the next poll."""

_UNPLACE_WHERE: Final = f"""
WITH old AS (
    SELECT run_id, worker_id FROM runs r WHERE kind = 'managed' AND state IN {from_states(_UNPLACE)} AND (%s) FOR UPDATE SKIP LOCKED
), r AS (
    UPDATE runs SET state = {to_state(_UNPLACE)}, session_id = NULL, worker_id = NULL, gpu_ids = '{{}}'
      FROM old WHERE runs.run_id = old.run_id AND runs.state IN {from_states(_UNPLACE)}
    RETURNING runs.run_id, runs.sweep_id, runs.trial_number, old.worker_id
), e AS (
    INSERT INTO events (subject, event, from_state, to_state, sweep_id, trial_number, run_id, worker_id, detail)
    SELECT 'run', 'unplace', 'placed', {to_state(_UNPLACE)}, sweep_id, trial_number, run_id, worker_id, %%(detail)s FROM r
)
SELECT run_id FROM r
"""

UNPLACE_OVERDUE: Final = (
    _UNPLACE_WHERE
    % """EXISTS (
        SELECT 1 FROM sessions s WHERE s.session_id = r.session_id
           AND (s.state <> 'live' OR s.lease_until < now()
                OR (greatest(r.placed_at, s.slot_freed_at) + make_interval(secs => %(claim_timeout_s)s) < now()
                    AND (SELECT count(*) FROM attempts a WHERE a.session_id = s.session_id AND a.state = 'running') < s.slots)))
    """
)
"""Index: ix_runs_live, ix_attempts_session. A run placed ahead is overdue only once a slot has been free there for that long."""

PLACED_LONG: Final = """
SELECT r.run_id, r.placement, r.session_id, r.sweep_id, r.user_name, r.queue, r.priority, r.created_at, r.avoid_workers,
       (s.launch -> 'resources')::text AS resources, s.parallel
  FROM runs r JOIN sweeps s ON s.sweep_id = r.sweep_id
 WHERE r.kind = 'managed' AND r.state = 'placed' AND r.placed_at + make_interval(secs => %(claim_timeout_s)s) < now()
 ORDER BY r.placed_at, r.trial_number
"""
"""Index: ix_runs_live."""

UNPLACE_SWEEP: Final = _UNPLACE_WHERE % "sweep_id = %(sweep_id)s"
UNPLACE_SESSION: Final = _UNPLACE_WHERE % "session_id = %(session_id)s"
UNPLACE_WORKER: Final = _UNPLACE_WHERE % "worker_id = %(worker_id)s"

UNPLACE_REFUSED: Final = _UNPLACE_WHERE % "run_id = %(run_id)s AND placement = %(placement)s AND session_id = %(session_id)s"

VERDICTS_DUE: Final = """
SELECT r.run_id, r.attempt, r.sweep_id, r.trial_number, r.worker_id, r.cause, r.detail, r.machinery_faults,
       r.cancel_requested_at IS NOT NULL AS cancel, r.prune_requested_at IS NOT NULL AS prune, r.user_retries, a.exit_status, a.signal,
       coalesce(s.retry::text, '{}') AS retry, coalesce(s.state = 'stopping', false) AS is_stopping
  FROM runs r LEFT JOIN sweeps s ON s.sweep_id = r.sweep_id LEFT JOIN attempts a ON a.run_id = r.run_id AND a.attempt = r.attempt
 WHERE r.kind = 'managed' AND r.state = 'running' AND r.verdict_due
"""
"""Indexes: ix_runs_live, primary keys."""

REQUEUE: Final = f"""
WITH s AS MATERIALIZED (
    SELECT sweep_id FROM sweeps WHERE sweep_id = (SELECT sweep_id FROM runs WHERE run_id = %(run_id)s) AND (%(machinery)s = 1 OR state IN ('active', 'paused'))
       FOR SHARE
), r AS (
    UPDATE runs SET state = {to_state(_REQUEUE)}, verdict_due = false, session_id = NULL, worker_id = NULL, gpu_ids = '{{}}',
           machinery_faults = machinery_faults + %(machinery)s, user_retries = user_retries + 1 - %(machinery)s,
           not_before = now() + make_interval(secs => %(delay_s)s), prune_requested_at = NULL,
           avoid_workers = CASE WHEN %(avoid)s = '' THEN avoid_workers ELSE array_append(array_remove(avoid_workers, %(avoid)s), %(avoid)s) END
      FROM s WHERE runs.sweep_id = s.sweep_id
       AND run_id = %(run_id)s AND attempt = %(attempt)s AND state IN {from_states(_REQUEUE)} AND verdict_due AND cancel_requested_at IS NULL
    RETURNING run_id, runs.sweep_id, trial_number, attempt, cause, not_before
)
INSERT INTO events (subject, event, from_state, to_state, sweep_id, trial_number, run_id, attempt, cause, detail, data)
SELECT 'run', 'requeue', 'running', {to_state(_REQUEUE)}, sweep_id, trial_number, run_id, attempt, cause, %(detail)s,
       jsonb_build_object('not_before', not_before) FROM r
"""
"""Not when a cancel came after the verdict was thought out: such a run would wait for ever; nor on the user's budget
when a stop did. A prune was asked of what the ended attempt had logged; the next one starts with a clean view."""

FAIL: Final = f"""
WITH r AS (
    UPDATE runs SET state = {to_state(_FAIL)}, verdict_due = false, ended_at = now()
     WHERE run_id = %(run_id)s AND attempt = %(attempt)s AND state IN {from_states(_FAIL)} AND verdict_due
    RETURNING run_id, sweep_id, trial_number, attempt, cause, detail, worker_id
)
INSERT INTO events (subject, event, from_state, to_state, sweep_id, trial_number, run_id, attempt, worker_id, cause, detail)
SELECT 'run', 'fail', 'running', {to_state(_FAIL)}, sweep_id, trial_number, run_id, attempt, worker_id, cause, detail FROM r
"""

CANCEL_VERDICT: Final = f"""
WITH r AS (
    UPDATE runs SET state = {to_state(_CANCEL)}, verdict_due = false, ended_at = now(), cause = coalesce(cancel_cause, 'cancelled')
     WHERE run_id = %(run_id)s AND attempt = %(attempt)s AND state IN {from_states(_CANCEL)} AND verdict_due
    RETURNING run_id, sweep_id, trial_number, attempt, cause, detail, worker_id
)
INSERT INTO events (subject, event, from_state, to_state, sweep_id, trial_number, run_id, attempt, worker_id, cause, detail)
SELECT 'run', 'cancel', 'running', {to_state(_CANCEL)}, sweep_id, trial_number, run_id, attempt, worker_id, cause, detail FROM r
"""

_WAITING: Final = from_states(_DROP)
_STOPPABLE: Final = quoted(_DROP.from_ | _CANCEL.from_)

_REQUEST_CANCEL: Final = f"""
WITH old AS (
    SELECT run_id, state FROM runs WHERE kind = 'managed' AND state IN {_STOPPABLE} AND %s
     ORDER BY run_id FOR UPDATE
), waiting AS (
    UPDATE runs SET state = {to_state(_DROP)}, ended_at = now(), cause = %%(cause)s, detail = %%(detail)s, cancel_requested_at = now()
      FROM old WHERE runs.run_id = old.run_id AND old.state IN {_WAITING}
    RETURNING runs.run_id, runs.sweep_id, runs.trial_number, old.state
), e AS (
    INSERT INTO events (subject, event, from_state, to_state, sweep_id, trial_number, run_id, cause, detail)
    SELECT 'run', 'drop', state, {to_state(_DROP)}, sweep_id, trial_number, run_id, %%(cause)s, %%(detail)s FROM waiting
), live AS (
    UPDATE runs SET cancel_requested_at = now(), cancel_cause = %%(cause)s, detail = %%(detail)s
      FROM old WHERE runs.run_id = old.run_id AND old.state IN {from_states(_CANCEL)} AND runs.cancel_requested_at IS NULL
       AND NOT runs.verdict_due AND %s
    RETURNING runs.run_id, runs.sweep_id, runs.trial_number, runs.attempt
), judged AS (
    UPDATE runs SET cancel_requested_at = now(), cancel_cause = %%(cause)s
      FROM old WHERE runs.run_id = old.run_id AND old.state IN {from_states(_CANCEL)} AND runs.cancel_requested_at IS NULL
       AND runs.verdict_due AND %s
    RETURNING runs.run_id, runs.sweep_id, runs.trial_number, runs.attempt
), e2 AS (
    INSERT INTO events (subject, event, sweep_id, trial_number, run_id, attempt, cause, detail)
    SELECT 'run', 'cancel_requested', sweep_id, trial_number, run_id, attempt, %%(cause)s, %%(detail)s
      FROM (SELECT * FROM live UNION ALL SELECT * FROM judged) asked
)
SELECT (SELECT count(*) FROM waiting) AS n_dropped, (SELECT count(*) FROM live) + (SELECT count(*) FROM judged) AS n_requested
"""
"""The runs are locked first, whatever of these states they are in: one that is being claimed or requeued just now is seen as
what it becomes, and can't slip between the two updates. A run that awaits a verdict keeps its attempt's cause."""

CANCEL_RUN: Final = _REQUEST_CANCEL % ("run_id = %(run_id)s", "true", "true")
CANCEL_SWEEP: Final = _REQUEST_CANCEL % ("sweep_id = %(sweep_id)s", "true", "true")
DROP_WAITING: Final = _REQUEST_CANCEL % ("sweep_id = %(sweep_id)s", "false", "false")

REQUEST_PRUNE: Final = """
WITH r AS (
    UPDATE runs SET prune_requested_at = now()
     WHERE run_id = %(run_id)s AND kind = 'managed' AND state = 'running' AND prune_requested_at IS NULL
    RETURNING run_id, sweep_id, trial_number, attempt
)
INSERT INTO events (subject, event, sweep_id, trial_number, run_id, attempt, cause, detail)
SELECT 'run', 'prune_requested', sweep_id, trial_number, run_id, attempt, 'pruned', %(detail)s FROM r
"""
