"""Statements on `sweeps`."""

from typing import Final

from tracking.queries.moves import from_states, quoted, to_state
from tracking.states import SWEEP_MOVES, SWEEP_RUN_STATE, Move, SweepEvent

SUBMITTED_BEFORE: Final = "SELECT sweep_id FROM sweeps WHERE submission_id = %(submission_id)s"

SHORT_ID_TAKEN: Final = "SELECT 1 FROM sweeps WHERE short_id = %(short_id)s"

INSERT_PARENT: Final = """
INSERT INTO runs (run_id, experiment_id, kind, name, user_name, state, started_at)
VALUES (%(sweep_id)s, %(experiment_id)s, 'sweep', %(name)s, %(user_name)s, 'running', now())
"""

INSERT: Final = """
WITH s AS (
    INSERT INTO sweeps (sweep_id, experiment_id, name, short_id, submission_id, state, user_name, config, source, launch, metric_name,
                        metric_goal, metric_from, queue, priority, parallel, retry, started_at)
    VALUES (%(sweep_id)s, %(experiment_id)s, %(name)s, %(short_id)s, %(submission_id)s, 'active', %(user_name)s, %(config)s, %(source)s,
            %(launch)s, %(metric_name)s, %(metric_goal)s, %(metric_from)s, %(queue)s, %(priority)s, %(parallel)s, %(retry)s, now())
)
INSERT INTO events (subject, event, to_state, sweep_id, run_id, detail) VALUES ('sweep', 'submit', 'active', %(sweep_id)s, %(sweep_id)s, %(user_name)s)
"""

GET: Final = "SELECT * FROM sweeps WHERE sweep_id = %(ref)s"

RESOLVE: Final = """
SELECT sweep_id, 0 AS rank, created_at FROM sweeps WHERE sweep_id = %(ref)s OR short_id = %(ref)s
UNION ALL
(SELECT sweep_id, 1, created_at FROM sweeps WHERE name = %(ref)s ORDER BY created_at DESC LIMIT 1)
UNION ALL
(SELECT sweep_id, 2, created_at FROM sweeps
  WHERE (length(%(ref)s) >= 4 AND starts_with(short_id, %(ref)s)) OR (length(%(ref)s) >= 6 AND starts_with(sweep_id, %(ref)s))
  ORDER BY created_at DESC LIMIT 2)
ORDER BY rank, created_at DESC
"""
"""Indexes: primary key, unique short_id, ix_sweeps_name; the prefixes scan (sweeps are few).
Short ones count for nothing: `9/7` is to be no trial of the sweep whose id begins with 9."""

LATEST: Final = "SELECT sweep_id FROM sweeps ORDER BY created_at DESC LIMIT 1"

_LIVE: Final = quoted(("active", "paused", "stopping"))

ACTIVE: Final = f"SELECT * FROM sweeps WHERE state IN {_LIVE} ORDER BY priority DESC, created_at"
"""Index: ix_sweeps_live."""

LIST: Final = """
SELECT * FROM sweeps
 WHERE (%(state)s::text IS NULL OR state = %(state)s) AND (%(user_name)s::text IS NULL OR user_name = %(user_name)s)
 ORDER BY created_at DESC LIMIT %(limit)s
"""

COUNTS: Final = """
SELECT sweep_id, state, count(*) AS n FROM trials WHERE sweep_id = ANY(%(sweep_ids)s) GROUP BY sweep_id, state
"""
"""Index: ix_trials_state alone."""

N_OPEN: Final = "SELECT count(*) FROM trials WHERE sweep_id = %(sweep_id)s AND state = 'open'"
"""Index: ix_trials_open."""

OPEN_COUNTS: Final = """
SELECT t.sweep_id, r.state AS run_state, count(*) AS n
  FROM trials t JOIN runs r ON r.run_id = t.run_id
 WHERE t.sweep_id = ANY(%(sweep_ids)s) AND t.state = 'open' AND r.state IN ('queued', 'placed', 'running') GROUP BY t.sweep_id, r.state
"""
"""Index: ix_trials_open. Where the runs of open trials are."""

_RUN_STATE_CASE: Final = "CASE state " + " ".join(f"WHEN '{s}' THEN '{r}'" for s, r in SWEEP_RUN_STATE.items()) + " END"

FOLLOW_PARENT: Final = f"""
UPDATE runs SET state = s.run_state, ended_at = s.ended_at, cause = s.cause, detail = s.detail
  FROM (SELECT sweep_id, {_RUN_STATE_CASE} AS run_state, ended_at, cause, detail FROM sweeps WHERE sweep_id = %(sweep_id)s) s
 WHERE runs.run_id = s.sweep_id
"""


def move(event: str, allowed: Move) -> str:
    """The guarded update of one sweep event; one row back when it won."""
    is_final = "now()" if allowed.to in ("finished", "failed", "cancelled") else "NULL"
    return f"""
WITH old AS (
    SELECT sweep_id, state FROM sweeps
     WHERE sweep_id = %(sweep_id)s AND state IN {from_states(allowed)} AND (%(revision)s::int IS NULL OR revision = %(revision)s) FOR UPDATE
), s AS (
    UPDATE sweeps SET state = {to_state(allowed)}, ended_at = {is_final}, cause = %(cause)s, detail = %(detail)s
      FROM old WHERE sweeps.sweep_id = old.sweep_id RETURNING sweeps.sweep_id, old.state
)
INSERT INTO events (subject, event, from_state, to_state, sweep_id, run_id, cause, detail)
SELECT 'sweep', '{event}', state, {to_state(allowed)}, sweep_id, sweep_id, %(cause)s, coalesce(%(detail)s, '') FROM s
"""


HOLD: Final = "SELECT * FROM sweeps WHERE sweep_id = %(sweep_id)s FOR UPDATE"

REVISED_BEFORE: Final = "SELECT 1 FROM events WHERE sweep_id = %(sweep_id)s AND subject = 'sweep' AND data ->> 'request_id' = %(request_id)s"
"""Index: ix_events_sweep."""


def revise(event: str, allowed: Move) -> str:
    """Write a new configuration; a sweep that has ended moves by `event`, any other stays where it is.

    The time between does not count as its own: its start moves on by as much.
    """
    moves = f"old.state IN {from_states(allowed)}"
    return f"""
WITH old AS (
    SELECT sweep_id, state FROM sweeps WHERE sweep_id = %(sweep_id)s FOR UPDATE
), s AS (
    UPDATE sweeps SET config = %(config)s, revision = revision + 1, ended_at = NULL,
           started_at = CASE WHEN {moves} THEN started_at + (now() - ended_at) ELSE started_at END,
           state = CASE WHEN {moves} THEN {to_state(allowed)} ELSE old.state END,
           cause = CASE WHEN {moves} THEN %(cause)s ELSE cause END, detail = CASE WHEN {moves} THEN %(detail)s ELSE detail END
      FROM old WHERE sweeps.sweep_id = old.sweep_id
    RETURNING sweeps.sweep_id, CASE WHEN {moves} THEN old.state END AS from_state, CASE WHEN {moves} THEN sweeps.state END AS to_state
)
INSERT INTO events (subject, event, from_state, to_state, sweep_id, run_id, detail, data)
SELECT 'sweep', '{event}', from_state, to_state, sweep_id, sweep_id, %(note)s, jsonb_build_object('request_id', %(request_id)s::text) FROM s
"""


MOVES: Final = {event: move(event, allowed) for event, allowed in SWEEP_MOVES.items()}

REVISIONS: Final = {event: revise(event, SWEEP_MOVES[event]) for event in (SweepEvent.EXTEND, SweepEvent.RETRY, SweepEvent.REOPEN)}

EVENTS: Final = """
SELECT * FROM (SELECT * FROM events WHERE sweep_id = %(sweep_id)s ORDER BY seq DESC LIMIT %(limit)s) e ORDER BY seq
"""
"""Index: ix_events_sweep. The newest `limit`, oldest first."""

RUN_EVENTS: Final = "SELECT * FROM events WHERE run_id = %(run_id)s ORDER BY seq"

MARK_REGISTERED: Final = """
UPDATE sweeps SET registered_at = now(), register_detail = %(detail)s WHERE sweep_id = %(sweep_id)s
"""
