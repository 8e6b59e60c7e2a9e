"""Trials: proposed, concluded and told, ranked. Trial, run, parameters and history are one transaction (D2)."""

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from tracking.errors import Contradiction, NotFound
from tracking.filters import EVERYTHING, Expression
from tracking.ids import new_run_id
from tracking.queries import trials as sql
from tracking.queries.search import run_condition
from tracking.records import NewTrial, Sweep, Trial
from tracking.store.database import Database, json_text
from tracking.store.leader import hold_leadership


class Standing(NamedTuple):
    """How far a sweep is: the number that its next trial gets, and how many of those before are open."""

    next_number: int
    n_open: int


class Trials:
    """The trials of sweeps."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def next_number(self, sweep_id: str) -> int:
        """The number that the next proposal gets."""
        with self._database.autocommit() as tx:
            return int(tx.scalar(sql.NEXT_NUMBER, {"sweep_id": sweep_id}))

    def create(self, epoch: int, sweep: Sweep, proposals: Sequence[NewTrial]) -> bool:
        """Write proposals as open trials with queued runs; False when the sweep no longer takes any.

        The numbers are the caller's; the primary key refuses one that exists, so a stale scheduler can't double a trial.

        Raises:
            Contradiction: the first number is not the next one: the record is not the one that the search was built on.
        """
        if not proposals:
            return True
        runs: list[tuple[object, ...]] = []
        trials: list[tuple[object, ...]] = []
        params: list[tuple[object, ...]] = []
        events: list[tuple[object, ...]] = []
        for new in proposals:
            run_id = new_run_id()
            text = json_text(new.params)
            name = f"{sweep.short_id}/{new.number}"
            runs.append(
                (
                    run_id,
                    int(sweep.experiment_id),
                    "managed",
                    name,
                    sweep.user_name,
                    "queued",
                    sweep.sweep_id,
                    sweep.sweep_id,
                    new.number,
                    json_text(new.argv),
                    text,
                    new.seed,
                    sweep.queue,
                    sweep.priority,
                )
            )
            trials.append((sweep.sweep_id, new.number, "open", text, run_id, json_text(new.attrs)))
            params.extend((run_id, key, param_text(value)) for key, value in new.params.items())
            events.append(("run", "queue", "queued", sweep.sweep_id, new.number, run_id))
        with self._database.transaction() as tx:
            hold_leadership(tx, epoch)
            if tx.scalar(sql.HOLD_SWEEP, {"sweep_id": sweep.sweep_id}) != "active":
                return False
            if (found := int(tx.scalar(sql.NEXT_NUMBER, {"sweep_id": sweep.sweep_id}))) != proposals[0].number:
                raise Contradiction(f"The next trial of {sweep.short_id} is {found}, not {proposals[0].number}.")
            tx.insert(sql.INSERT_RUNS, runs)
            tx.insert(sql.INSERT_TRIALS, trials)
            tx.insert(sql.INSERT_PARAMS, params)
            tx.insert(sql.INSERT_EVENTS, events)
        return True

    def standings(self, sweep_ids: Collection[str]) -> Mapping[str, Standing]:
        """How far each of these sweeps is; one that is not there is left out."""
        with self._database.autocommit() as tx:
            return {row.sweep_id: Standing(row.next_number, row.n_open) for row in tx.rows(sql.STANDINGS, {"sweep_ids": list(sweep_ids)})}

    def sweeps_with_ended(self) -> Sequence[str]:
        """Sweeps that have open trials whose runs have ended."""
        with self._database.autocommit() as tx:
            return [row.sweep_id for row in tx.rows(sql.OVER)]

    def conclude(self, epoch: int, sweep_id: str, *, impute: Literal["latest", "best"] | None = None) -> Sequence[Trial]:
        """Close every open trial whose run has ended and number it in the order of telling; those closed now.

        Args:
            impute: which of its values of the metric the search is told of a trial that ended without an objective; None for none.
        """
        with self._database.transaction() as tx:
            hold_leadership(tx, epoch)
            rows = tx.rows(sql.CONCLUDE, {"sweep_id": sweep_id, "impute": impute})
        return [
            Trial(
                sweep_id=r.sweep_id,
                number=r.number,
                state=r.state,
                params=json.loads(r.params),
                generation=r.generation,
                run_id=r.run_id,
                run_state=r.state,
                attempts=0,
                created_at=r.created_at,
                value=r.value,
                imputed=r.imputed,
                cause=r.cause,
                detail=r.detail,
                told_seq=r.told_seq,
                attrs=json.loads(r.attrs),
                started_at=r.started_at,
                ended_at=r.ended_at,
            )
            for r in rows
        ]

    def get(self, sweep_id: str, number: int) -> Trial:
        """One trial.

        Raises:
            NotFound: the sweep has no trial of this number.
        """
        with self._database.autocommit() as tx:
            row = tx.one(sql.GET, {"sweep_id": sweep_id, "number": number})
        if row is None:
            raise NotFound(f"The sweep has no trial {number}.", hint="`sweep trials SWEEP` lists them.")
        return _trial(row)

    def list(
        self,
        sweep_id: str,
        *,
        states: Sequence[str] = (),
        sort: Literal["number", "value"] = "number",
        limit: int | None = None,
        offset: int = 0,
        where: Expression = EVERYTHING,
    ) -> Sequence[Trial]:
        """The trials of a sweep whose runs meet a filter, by number or best first."""
        condition, values = run_condition(where)
        values |= {"sweep_id": sweep_id, "states": [str(s) for s in states] or None, "limit": limit, "offset": offset}
        with self._database.autocommit() as tx:
            statement = sql.by_number(condition) if sort == "number" else sql.by_value(_goal(tx, sweep_id), condition)
            return [_trial(row) for row in tx.rows_in_time(statement, values)]

    def best(self, sweep_id: str, top: int = 1, where: Expression = EVERYTHING) -> Sequence[Trial]:
        """The best finished trials of a sweep by its objective (D8), of those whose runs meet a filter; pruned ones never win."""
        condition, values = run_condition(where)
        values |= {"sweep_id": sweep_id, "top": top}
        with self._database.autocommit() as tx:
            return [_trial(row) for row in tx.rows_in_time(sql.best(_goal(tx, sweep_id), condition), values)]

    def running(self, sweep_id: str) -> Sequence[Trial]:
        """The trials that run now."""
        with self._database.autocommit() as tx:
            return [_trial(row) for row in tx.rows(sql.RUNNING, {"sweep_id": sweep_id})]


def _goal(tx: Any, sweep_id: str) -> str:
    return str(tx.scalar("SELECT metric_goal FROM sweeps WHERE sweep_id = %(sweep_id)s", {"sweep_id": sweep_id}))


def _trial(row: Any) -> Trial:
    return Trial(**row._asdict())


def param_text(value: object) -> str:
    """A parameter as MLflow would log it: Python's str(), structures as JSON."""
    return json_text(value) if isinstance(value, dict | list) else str(value)
