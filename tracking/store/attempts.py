"""Attempts: claimed, finished, adopted. The attempt is the fence (I3)."""

import difflib
import hmac
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

import msgspec
from msgspec import Struct

from tracking.errors import NotAllowed, Unauthenticated
from tracking.failpoints import is_broken
from tracking.ids import parse_attempt_token, token_hash
from tracking.queries import attempts as sql
from tracking.records import ClaimedRun, Launch, Outcome
from tracking.states import ATTEMPT_MOVES, MACHINERY_CAUSES, RUN_MOVES, AttemptEvent, Cause, RunEvent
from tracking.store.database import Database, Transaction


@dataclass(frozen=True, slots=True)
class Fence:
    """Who writes: one attempt of one run, as its token proved."""

    run_id: str
    attempt: int


class FinishAnswer(StrEnum):
    """What became of a report. REFUSED means: no longer yours, stop the work, record nothing, carry on."""

    RECORDED = "recorded"
    REPEATED = "repeated"
    REFUSED = "refused"


class Attempt(Struct, frozen=True):
    """One attempt, for people."""

    run_id: str
    attempt: int
    state: str
    worker_id: str
    worker_name: str | None
    placement: int
    claimed_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    cause: str | None
    detail: str | None
    exit_status: int | None
    signal: int | None
    duration_s: float | None
    gpu_ids: tuple[int, ...]
    info: dict[str, Any]


_ATTEMPT_EVENT = {"succeeded": AttemptEvent.SUCCEED, "failed": AttemptEvent.FAIL, "stopped": AttemptEvent.STOP}


def claimed_run(row: Any) -> ClaimedRun:
    """A row of CLAIM or ADOPT as a record."""
    launch = msgspec.convert(row.launch, Launch) if row.launch is not None else Launch()
    return ClaimedRun(
        run_id=row.run_id,
        attempt=row.attempt,
        placement=row.placement,
        experiment_id=row.experiment_id,
        name=row.name,
        argv=tuple(row.argv),
        params=row.params,
        launch=launch,
        sweep_id=row.sweep_id,
        trial_number=row.trial_number,
        seed=row.seed,
        gpu_ids=tuple(row.gpu_ids),
    )


class Attempts:
    """Moves of attempts, and of their runs where one implies the other."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def claim(self, run_id: str, placement: int, session_id: str, *, claim_id: str, secret_hash: str) -> ClaimedRun | None:
        """Take a run that was placed on this session; None when it is no longer to be had.

        The same `claim_id` gets the same answer, so a lost reply is harmless.
        """
        with self._database.autocommit() as tx:
            row = tx.one(
                sql.CLAIM,
                {"run_id": run_id, "placement": placement, "session_id": session_id, "claim_id": claim_id, "token_hash": secret_hash},
            )
            if row is None and not is_broken("no-claim-id"):
                row = tx.one(sql.CLAIMED_BEFORE, {"claim_id": claim_id, "session_id": session_id})
        return None if row is None else claimed_run(row)

    def started(self, run_id: str, attempt: int, session_id: str, info: dict[str, Any]) -> None:
        """Note that the attempt's process or container has started, and what it is."""
        text = msgspec.json.encode(info).decode()
        with self._database.autocommit() as tx:
            tx.execute(sql.STARTED, {"run_id": run_id, "attempt": attempt, "session_id": session_id, "info": text})

    def note(self, run_id: str, attempt: int, session_id: str, info: dict[str, Any]) -> None:
        """Note how far the attempt has come, beside what it is; what is noted anew takes the place of the old."""
        text = msgspec.json.encode(info).decode()
        with self._database.autocommit() as tx:
            tx.execute(sql.NOTE, {"run_id": run_id, "attempt": attempt, "session_id": session_id, "info": text})

    def finish(self, run_id: str, attempt: int, session_id: str, outcome: Outcome, *, finish_key: str) -> FinishAnswer:
        """Record how an attempt ended.

        A success with an objective, a prune and a cancel end the run; a failure leaves it for the scheduler's
        verdict (again, or failed). The same `finish_key` gets RECORDED or REPEATED, never a second effect.
        """
        event = _ATTEMPT_EVENT[outcome.verdict]
        values: dict[str, Any] = {
            "run_id": run_id,
            "attempt": attempt,
            "session_id": session_id,
            "finish_key": finish_key,
            "state": ATTEMPT_MOVES[event].to,
            "attempt_event": str(event),
            "attempt_state": ATTEMPT_MOVES[event].to,
            "cause": outcome.cause,
            "detail": _clean(outcome.detail),
            "exit_status": outcome.exit_status,
            "signal": outcome.signal,
            "duration_s": outcome.duration_s,
        }
        with self._database.transaction() as tx:
            # Renewals wait for this connection.
            tx.execute("SET LOCAL lock_timeout = '500ms'")
            row = tx.one(sql.END, values)
            if row is None:
                same = tx.scalar(sql.FINISH_KEY, values) == finish_key and not is_broken("no-finish-key")
                return FinishAnswer.REPEATED if same else FinishAnswer.REFUSED
            run_event, cause, detail, value = _run_event(outcome, row)
            if cause == Cause.NO_OBJECTIVE and row.value is None:
                logged = [one.key for one in tx.rows(sql.METRIC_KEYS, values)]
                detail += _nearest(row.metric_name, logged, "logged") or _nearest(row.metric_name, outcome.printed, "printed")
            values.update(cause=cause, detail=_clean(detail), attempt_cause=outcome.cause, attempt_detail=_clean(outcome.detail))
            if run_event is None:
                tx.execute(sql.VERDICT_DUE, {**values, "is_machinery": cause in MACHINERY_CAUSES})
            else:
                tx.execute(sql.RUN_ENDS, {**values, "run_event": str(run_event), "to": RUN_MOVES[run_event].to, "value": value})
        return FinishAnswer.RECORDED

    def authenticate(self, token: str) -> Fence:
        """Who an attempt's token speaks for.

        Raises:
            Unauthenticated: the token is malformed, unknown, or its attempt has ended.
        """
        named = parse_attempt_token(token)
        if named is None:
            raise Unauthenticated("This is no attempt's token.")
        with self._database.autocommit() as tx:
            row = tx.one(sql.AUTHENTICATE, {"run_id": named[0], "attempt": named[1]})
        secret = token.split(".", 2)[2]
        if row is None or not hmac.compare_digest(row.token_hash, token_hash(secret)):
            raise Unauthenticated("The attempt's token is not known here.")
        if row.state != "running" and not is_broken("no-fence"):
            raise Unauthenticated("The attempt that this token belongs to has ended; what it sends is no longer recorded.")
        return Fence(*named)

    def abandoned(self, keys: Sequence[tuple[str, int]]) -> set[tuple[str, int]]:
        """Which of some attempts, (run_id, attempt), have ended, with their worker not there to tidy up after them. They stay so."""
        asked = {"run_ids": [run_id for run_id, _ in keys], "attempts": [attempt for _, attempt in keys]}
        with self._database.autocommit() as tx:
            return {(row.run_id, row.attempt) for row in tx.rows(sql.ABANDONED, asked)}

    def list(self, run_id: str) -> Sequence[Attempt]:
        """All attempts of a run, oldest first."""
        with self._database.autocommit() as tx:
            rows = tx.rows(sql.LIST, {"run_id": run_id})
        return [Attempt(**{name: getattr(row, name) for name in Attempt.__struct_fields__ if name != "gpu_ids"}, gpu_ids=tuple(row.gpu_ids)) for row in rows]


def _clean(detail: str) -> str:
    """What a text column takes, and no more than a person reads."""
    return detail.replace("\0", "\N{REPLACEMENT CHARACTER}").encode("utf-8", "replace").decode()[:4000]


def _run_event(outcome: Outcome, row: Any) -> tuple[RunEvent | None, str, str, float | None]:
    if outcome.verdict == "stopped":
        if outcome.cause == Cause.PRUNED:
            return RunEvent.PRUNE, outcome.cause, outcome.detail, _objective(row)
        # The worker only knows that it was told to stop; why is known here (by hand, over budget).
        cause, detail = (row.asked_cause, row.asked_detail) if row.cancel and row.asked_cause else (outcome.cause, outcome.detail)
        return RunEvent.CANCEL, cause, detail or outcome.detail, _objective(row)
    if outcome.verdict == "failed":
        return None, outcome.cause, outcome.detail, None
    if row.metric_name is None:
        return RunEvent.FINISH, outcome.cause, outcome.detail, None
    value = _objective(row)
    if value is not None:
        return RunEvent.FINISH, outcome.cause, outcome.detail, value
    reason = "it never logged one" if row.value is None else "its value is NaN"
    return RunEvent.FAIL, Cause.NO_OBJECTIVE, f"The command succeeded, but metric {row.metric_name!r} has no usable value: {reason}.", None


def _nearest(name: str, keys: Sequence[str], verb: str) -> str:
    """A sentence about the metric that was probably meant, or nothing. How the parts of a name are joined, and its case, count for nothing."""
    by_bare: dict[str, str] = {}
    for key in keys:
        by_bare.setdefault(_bare(key), key)
    near = difflib.get_close_matches(_bare(name), by_bare, n=1, cutoff=0.6)
    return f" The nearest name that it {verb} is {by_bare[near[0]]!r}." if near else ""


def _bare(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", ".", name.lower())


def _objective(row: Any) -> float | None:
    """The objective by `metric.from` (D8), None if it is missing or NaN."""
    if row.metric_from == "best":
        best: float | None = row.min_value if row.metric_goal == "minimize" else row.max_value
        return best
    value: float | None = row.value
    return None if value is None or math.isnan(value) else value


def hold_fence(tx: Transaction, fence: Fence) -> None:
    """Refuse unless the attempt is live, and keep it so until this transaction ends.

    Raises:
        NotAllowed: the attempt has ended or was superseded.
    """
    if fence not in hold_fences(tx, [fence]):
        raise fence_gone()


def hold_fences(tx: Transaction, fences: Iterable[Fence]) -> set[Fence]:
    """Which of these attempts are live; they are kept so until this transaction ends."""
    asked = sorted((fence.run_id, fence.attempt) for fence in fences)
    if not asked:
        return set()
    rows = tx.rows_of(sql.FENCES, fences=asked)
    return {Fence(row.run_id, row.attempt) for row in rows}


def fence_gone() -> NotAllowed:
    """The refusal of what an attempt sends that is not live any more."""
    return NotAllowed("This attempt is no longer the run's current one; nothing was recorded.", hint="Stop: another attempt has taken over.")
