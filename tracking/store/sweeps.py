"""Sweeps: submitted once, moved by guarded updates, found by many names."""

import json
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import msgspec

from tracking.errors import Contradiction, InvalidValue, NotFound, NotNow
from tracking.ids import new_run_id, new_short_id, new_uuid
from tracking.queries import queue as queue_sql
from tracking.queries import sweeps as sql
from tracking.queries import trials as trials_sql
from tracking.records import Event, Launch, NewSweep, Sweep, SweepCounts
from tracking.states import FINAL_SWEEP_STATES, SWEEP_MOVES, Cause, SweepEvent, SweepState
from tracking.store.database import Database, Transaction, json_text
from tracking.store.experiments import active_location, ensure_experiment
from tracking.store.leader import hold_leadership
from tracking.store.registry import register_version
from tracking.store.trials import param_text


class Sweeps:
    """The sweeps."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def submit(self, new: NewSweep) -> Sweep:
        """Write a sweep and its parent run; the same `submission_id` gives the same sweep back."""
        submission_id = new.submission_id or new_uuid()
        sweep_id = new_run_id()
        with self._database.transaction() as tx:
            # Two submissions of one id at once: the second waits here, then finds the first.
            tx.execute("SELECT pg_advisory_xact_lock(hashtext(%(id)s))", {"id": submission_id})
            before = tx.scalar(sql.SUBMITTED_BEFORE, {"submission_id": submission_id})
            if before is not None:
                return _sweep(tx.one(sql.GET, {"ref": before}))
            values = {
                "sweep_id": sweep_id,
                "experiment_id": ensure_experiment(tx, new.experiment),
                "name": new.name,
                "short_id": _free_short_id(tx),
                "submission_id": submission_id,
                "user_name": new.user_name,
                "config": json_text(new.config),
                "source": new.source,
                "launch": json_text(new.launch),
                "metric_name": new.metric_name,
                "metric_goal": new.metric_goal,
                "metric_from": new.metric_from,
                "queue": new.queue,
                "priority": new.priority,
                "parallel": new.parallel,
                "retry": json_text(new.retry),
            }
            tx.execute(sql.INSERT_PARENT, values)
            tx.execute(sql.INSERT, values)
            tags = dict(new.tags)
            if new.description:
                tags["mlflow.note.content"] = new.description
            tx.insert("INSERT INTO tags (run_id, key, value)", [(sweep_id, key, str(value)) for key, value in tags.items()])
            return _sweep(tx.one(sql.GET, {"ref": sweep_id}))

    def get(self, ref: str) -> Sweep:
        """A sweep by id, short id, name (the newest of that name), unique prefix, or `@latest`.

        Raises:
            NotFound: nothing fits.
            InvalidValue: a prefix fits more than one.
        """
        with self._database.autocommit() as tx:
            return _sweep(tx.one(sql.GET, {"ref": resolve_sweep(tx, ref)}))

    def list(self, state: str | None = None, limit: int = 50, user_name: str | None = None) -> Sequence[tuple[Sweep, SweepCounts]]:
        """Sweeps, newest first, with their counts."""
        with self._database.autocommit() as tx:
            sweeps = [_sweep(row) for row in tx.rows(sql.LIST, {"state": state, "limit": limit, "user_name": user_name})]
            counts = _counts(tx, [sweep.sweep_id for sweep in sweeps])
        return [(sweep, counts[sweep.sweep_id]) for sweep in sweeps]

    def active(self) -> Sequence[Sweep]:
        """Sweeps that are not over, by priority and age."""
        with self._database.autocommit() as tx:
            return [_sweep(row) for row in tx.rows(sql.ACTIVE)]

    def counts(self, sweep_id: str) -> SweepCounts:
        """Trials by state."""
        with self._database.autocommit() as tx:
            return _counts(tx, [sweep_id])[sweep_id]

    def age_s(self, sweep_id: str) -> float:
        """For how long a sweep has been going on, or went on, by the database's clock."""
        sql_text = "SELECT extract(epoch FROM coalesce(ended_at, now()) - started_at) FROM sweeps WHERE sweep_id = %(id)s"
        with self._database.autocommit() as tx:
            return float(tx.scalar(sql_text, {"id": sweep_id}))

    def events(self, sweep_id: str, limit: int = 1000) -> Sequence[Event]:
        """The newest `limit` rows of a sweep's history, oldest first."""
        with self._database.autocommit() as tx:
            return [Event(**row._asdict()) for row in tx.rows(sql.EVENTS, {"sweep_id": sweep_id, "limit": limit})]

    def pause(self, sweep_id: str) -> Sweep:
        """Propose and place nothing; what runs goes on."""
        with self._database.transaction() as tx:
            sweep = self._by_hand(tx, sweep_id, SweepEvent.PAUSE, "Paused by hand.")
            tx.rows(queue_sql.UNPLACE_SWEEP, {"sweep_id": sweep_id, "detail": "The sweep was paused."})
        return sweep

    def resume(self, sweep_id: str) -> Sweep:
        """Go on after a pause."""
        with self._database.transaction() as tx:
            return self._by_hand(tx, sweep_id, SweepEvent.RESUME, None)

    def stop(self, sweep_id: str) -> Sweep:
        """Propose nothing more; trials that run may end, those that wait are cancelled."""
        with self._database.transaction() as tx:
            sweep = self._by_hand(tx, sweep_id, SweepEvent.STOP, "Stopped by hand.", cause=Cause.STOPPED)
            tx.rows(queue_sql.DROP_WAITING, {"sweep_id": sweep_id, "cause": "cancelled", "detail": "The sweep was stopped."})
        return sweep

    def cancel(self, sweep_id: str) -> Sweep:
        """End the sweep now: waiting trials are cancelled, running ones are stopped."""
        with self._database.transaction() as tx:
            sweep = self._by_hand(tx, sweep_id, SweepEvent.CANCEL, "Cancelled by hand.", cause=Cause.CANCELLED)
            tx.rows(queue_sql.CANCEL_SWEEP, {"sweep_id": sweep_id, "cause": "cancelled", "detail": "The sweep was cancelled."})
        return sweep

    def extend(self, sweep: Sweep, config: Mapping[str, Any], note: str, *, request_id: str = "") -> Sweep:
        """Give a sweep a configuration that asks for more trials; one that has finished is active again.

        Args:
            sweep: as the new configuration was thought out upon it.
            note: what was changed, for the history.
            request_id: of whoever asks; what was done for it once is not done again.

        Raises:
            Contradiction: it was changed meanwhile.
            NotNow: its state takes no more trials.
        """
        with self._database.transaction() as tx:
            if not _was_revised(tx, sweep, request_id):
                _hold(tx, sweep, SweepEvent.EXTEND)
                _revise(tx, sweep, SweepEvent.EXTEND, config, note, request_id=request_id)
            return _sweep(tx.one(sql.GET, {"ref": sweep.sweep_id}))

    def was_revised(self, sweep: Sweep, request_id: str) -> bool:
        """Whether that request was carried out already."""
        with self._database.autocommit() as tx:
            return _was_revised(tx, sweep, request_id)

    def retry(
        self, sweep: Sweep, numbers: Sequence[int] | None = None, *, states: Collection[str] = ("failed",), event: SweepEvent = SweepEvent.RETRY
    ) -> Sequence[int]:
        """Open trials that failed again, each with a new run; a sweep that has ended goes on.

        Args:
            sweep: as it was seen.
            numbers: of which trials; None for all.
            states: that they may be in: failed, cancelled.
            event: how a sweep that has ended moves: RETRY, or REOPEN if it is to propose nothing more.

        Returns:
            the numbers of those opened: others have not ended so, or not yet been concluded.

        Raises:
            Contradiction: the sweep was changed meanwhile.
            NotNow: its state takes no more trials.
        """
        with self._database.transaction() as tx:
            _hold(tx, sweep, event)
            asked = {"sweep_id": sweep.sweep_id, "numbers": None if numbers is None else list(numbers), "states": list(states)}
            ended = tx.rows(trials_sql.REOPENABLE, asked)
            if not ended:
                return []
            new_ids = [new_run_id() for _ in ended]
            values = {"sweep_id": sweep.sweep_id, "run_ids": [row.run_id for row in ended], "new_run_ids": new_ids}
            tx.execute(trials_sql.INSERT_RUNS_AGAIN, values)
            params = [(run_id, key, param_text(value)) for row, run_id in zip(ended, new_ids, strict=True) for key, value in json.loads(row.params).items()]
            tx.insert(trials_sql.INSERT_PARAMS, params)
            tx.execute(trials_sql.REOPEN, values)
            # What had ended it early still has, if some of its trials stay cancelled.
            is_cut_short = event == SweepEvent.REOPEN and tx.scalar(trials_sql.N_CANCELLED, {"sweep_id": sweep.sweep_id}) > 0
            cause, detail = (sweep.cause, sweep.detail) if is_cut_short else (None, None)
            _revise(tx, sweep, event, sweep.config, f"{len(ended)} of its trials run again.", cause=cause, detail=detail)
        return [row.number for row in ended]

    def break_off(self, epoch: int, sweep: Sweep, *, event: SweepEvent, cause: str, detail: str) -> bool:
        """A limit was reached, or the search can't go on: waiting trials are dropped, running ones are stopped.

        Args:
            event: STOP, if the sweep is to end once its trials have, or FAIL, if it has ended with this.
        """
        with self._database.transaction() as tx:
            hold_leadership(tx, epoch)
            won = _move(tx, sweep.sweep_id, event, cause=cause, detail=detail, revision=sweep.revision)
            if won:
                tx.rows(queue_sql.CANCEL_SWEEP, {"sweep_id": sweep.sweep_id, "cause": cause, "detail": detail})
        return won

    def finish(self, epoch: int, sweep: Sweep, *, event: SweepEvent, cause: str, detail: str | None) -> bool:
        """The last trial has ended: end the sweep and, in the same transaction, register its winner if the file says so.

        Raises:
            Contradiction: a trial is open.
        """
        with self._database.transaction() as tx:
            hold_leadership(tx, epoch)
            if tx.scalar(sql.N_OPEN, {"sweep_id": sweep.sweep_id}):
                raise Contradiction(f"Trials of {sweep.short_id} are open; it has not ended.")
            won = _move(tx, sweep.sweep_id, event, cause=cause, detail=detail, revision=sweep.revision)
            if won:
                _register_winner(tx, _sweep(tx.one(sql.GET, {"ref": sweep.sweep_id})))
        return won

    def register_detail(self, sweep_id: str) -> str | None:
        """What became of `register:`, one sentence; None when the file does not ask for it, or not yet."""
        with self._database.autocommit() as tx:
            detail = tx.scalar("SELECT register_detail FROM sweeps WHERE sweep_id = %(id)s", {"id": sweep_id})
        return None if detail is None else str(detail)

    def _by_hand(self, tx: Transaction, sweep_id: str, event: SweepEvent, detail: str | None, *, cause: str | None = None) -> Sweep:
        """Idempotent: a sweep that is already where the event leads is answered as it is."""
        won = _move(tx, sweep_id, event, cause=cause, detail=detail)
        row = tx.one(sql.GET, {"ref": sweep_id})
        if row is None:
            raise NotFound(f"There is no sweep {sweep_id!r}.", hint="`sweep ls` lists them; `@latest` is the newest.")
        sweep = _sweep(row)
        if not won and sweep.state != SWEEP_MOVES[event].to:
            if sweep.state in FINAL_SWEEP_STATES:
                raise NotNow(f"Sweep {sweep.short_id} has already ended ({sweep.state}).")
            raise NotNow(f"Sweep {sweep.short_id} is {sweep.state}; it can't {'retry' if event == SweepEvent.REOPEN else event} now.")
        return sweep


def _free_short_id(tx: Transaction) -> str:
    while tx.one(sql.SHORT_ID_TAKEN, {"short_id": (short_id := new_short_id())}) is not None:
        pass
    return short_id


def _move(tx: Transaction, sweep_id: str, event: SweepEvent, **values: object) -> bool:
    """Carry out one event; whether it won.

    Args:
        values: `cause` and `detail` of the sweep from now on; the `revision` that the move was thought out upon, where it must be the
            same still.
    """
    unset = {"cause": None, "detail": None, "revision": None}
    won = tx.execute(sql.MOVES[event], {**unset, **values, "sweep_id": sweep_id}) > 0
    if won:
        tx.execute(sql.FOLLOW_PARENT, {"sweep_id": sweep_id})
    return won


def _hold(tx: Transaction, sweep: Sweep, event: SweepEvent) -> None:
    """Keep a sweep as it is while it is revised.

    Raises:
        Contradiction: it is no longer what the caller saw.
        NotNow: its state is none that can be.
        InvalidValue: its experiment is deleted.
    """
    active_location(tx, sweep.experiment_id, is_held=True)
    row = tx.one(sql.HOLD, {"sweep_id": sweep.sweep_id})
    if row is None or (row.state, row.revision) != (sweep.state, sweep.revision):
        raise Contradiction(f"Sweep {sweep.short_id} changed meanwhile.")
    if sweep.state == SweepState.CANCELLED:
        raise NotNow(f"Sweep {sweep.short_id} was cancelled, and that is for good.", hint="Submit its file again.")
    if sweep.state not in SWEEP_MOVES[event].from_ | {SweepState.ACTIVE, SweepState.PAUSED}:
        raise NotNow(
            f"Sweep {sweep.short_id} is {sweep.state}; it can't {'retry' if event == SweepEvent.REOPEN else event} now.",
            hint=f"`sweep wait {sweep.short_id}`, then ask again.",
        )


def _was_revised(tx: Transaction, sweep: Sweep, request_id: str) -> bool:
    return bool(request_id) and tx.one(sql.REVISED_BEFORE, {"sweep_id": sweep.sweep_id, "request_id": request_id}) is not None


def _revise(tx: Transaction, sweep: Sweep, event: SweepEvent, config: Mapping[str, Any], note: str, **values: str | None) -> None:
    """Write a sweep's new configuration, and make it active where it had ended: with this `cause` and `detail`, for this `request_id`."""
    unset = {"cause": None, "detail": None, "request_id": ""}
    tx.execute(sql.REVISIONS[event], {**unset, **values, "sweep_id": sweep.sweep_id, "config": json_text(config), "note": note})
    tx.execute(sql.FOLLOW_PARENT, {"sweep_id": sweep.sweep_id})


def resolve_sweep(tx: Transaction, ref: str) -> str:
    """The id of the sweep that a reference names (see `Sweeps.get`)."""
    if ref == "@latest":
        latest = tx.scalar(sql.LATEST)
        if latest is None:
            raise NotFound("There is no sweep yet.", hint="`sweep init` writes a sweep.yaml to begin with, `sweep run sweep.yaml` runs it.")
        return str(latest)
    rows = tx.rows(sql.RESOLVE, {"ref": ref}) if ref else []
    if not rows:
        raise NotFound(f"There is no sweep {ref!r}.", hint="`sweep ls` lists them; `@latest` is the newest.")
    found = [row.sweep_id for row in rows if row.rank == rows[0].rank]
    if rows[0].rank == 2 and len(set(found)) > 1:
        raise InvalidValue(f"More than one sweep begins with {ref!r}.", hint="Give more of its id.")
    return str(found[0])


def _counts(tx: Transaction, sweep_ids: Iterable[str]) -> dict[str, SweepCounts]:
    ids = list(sweep_ids)
    sums: dict[str, dict[str, int]] = {sweep_id: defaultdict(int) for sweep_id in ids}
    if ids:
        for row in tx.rows(sql.COUNTS, {"sweep_ids": ids}):
            sums[row.sweep_id][row.state] += row.n
        for row in tx.rows(sql.OPEN_COUNTS, {"sweep_ids": ids}):
            sums[row.sweep_id][row.run_state] += row.n
    return {sweep_id: SweepCounts(**counts) for sweep_id, counts in sums.items()}


def _sweep(row: Any) -> Sweep:
    values = {name: getattr(row, name) for name in Sweep.__struct_fields__}
    values["launch"] = msgspec.convert(row.launch, Launch)
    values["experiment_id"] = str(row.experiment_id)
    return Sweep(**values)


def _register_winner(tx: Transaction, sweep: Sweep) -> None:
    """Carry out `register:` once; the primary record of that is the sweep's own row."""
    wanted = sweep.config.get("register")
    if not wanted or sweep.state == "cancelled":
        return
    try:
        version = register_version(tx, sweep, model=wanted["model"], artifact=wanted.get("artifact", "model"), alias=wanted.get("alias"))
        detail = "No trial finished with a value; nothing was registered." if version is None else f"Registered {wanted['model']} v{version}."
    except InvalidValue as error:
        # The names are checked before anything is written; a sweep must end whatever its file asks for.
        detail = f"Nothing was registered: {error.message}"
    tx.execute(sql.MARK_REGISTERED, {"sweep_id": sweep.sweep_id, "detail": detail})
