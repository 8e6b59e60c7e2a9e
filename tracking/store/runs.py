"""Runs as MLflow sees them: opened by clients, read, searched, tagged. Who may write is decided here (I3)."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from msgspec.json import Decoder

from tracking.errors import InvalidValue, NotAllowed, NotFound, NotNow, SweepError
from tracking.filters import EVERYTHING, Expression, OrderBy
from tracking.ids import RUN_ID, new_run_id, random_name
from tracking.queries import runs as sql
from tracking.queries import search
from tracking.queries.sweeps import RUN_EVENTS
from tracking.records import Event, MetricPoint, Run, RunData
from tracking.states import EXTERNAL_STATE, MLFLOW_STATUS
from tracking.store.attempts import Fence, fence_gone, hold_fence, hold_fences
from tracking.store.database import Database, Transaction
from tracking.store.experiments import active_location, experiment_number
from tracking.store.lineage import NOTHING, load_lineage
from tracking.store.paging import read_page
from tracking.store.sweeps import resolve_sweep

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_LATEST: Final = datetime(9999, 12, 31, tzinfo=UTC)
_MAX_EXPERIMENTS: Final = 10_000
_PARENT_TAG: Final = "mlflow.parentRunId"
_NAME_TAG: Final = "mlflow.runName"
_USER_TAG: Final = "mlflow.user"
COLUMN_TAGS: Final = (_NAME_TAG, _PARENT_TAG, _USER_TAG)
"""Tags that are columns of the run."""
_ARGV: Final = Run.__struct_fields__.index("argv")
_N_FIELDS: Final = len(Run.__struct_fields__)
_TEXTS: Final = Decoder(dict[str, str])
_POINTS: Final = Decoder(list[tuple[str, float | str, int, int]])


@dataclass(frozen=True, slots=True)
class NewRun:
    """A run that a client opens, with what it will be known by. `tags` are those that no column stands for."""

    run_id: str
    experiment_id: int
    name: str
    user_name: str
    started_at: datetime
    parent_run_id: str | None
    tags: Mapping[str, str]

    @classmethod
    def made(cls, experiment_id: str, *, user_name: str, name: str, start_time_ms: int | None, tags: Mapping[str, str], fence: Fence | None = None) -> "NewRun":
        """From what a client asks for; an attempt's is a child of its run if no other is named.

        Raises:
            NotFound: that is no experiment's id.
            InvalidValue: name and name tag differ, or the time is out of range.
        """
        tagged_name = tags.get(_NAME_TAG, "")
        if name and tagged_name and name != tagged_name:
            raise InvalidValue(
                f"Both 'run_name' argument and 'mlflow.runName' tag are specified, but with different values "
                f"(run_name='{name}', mlflow.runName='{tagged_name}')."
            )
        return cls(
            run_id=new_run_id(),
            experiment_id=experiment_number(experiment_id),
            name=name or tagged_name or random_name(),
            user_name=tags.get(_USER_TAG, "") or user_name,
            started_at=datetime.now(UTC) if start_time_ms is None else from_ms(start_time_ms),
            parent_run_id=tags.get(_PARENT_TAG) or (fence.run_id if fence else None),
            tags={key: value for key, value in tags.items() if key not in COLUMN_TAGS},
        )


_GIVEN: Final = ("run_id", "experiment_id", "name", "user_name", "started_at", "parent_run_id")


class Runs:
    """The runs."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def create_external(
        self,
        experiment_id: str,
        *,
        user_name: str = "",
        name: str = "",
        start_time_ms: int | None = None,
        tags: Mapping[str, str] | None = None,
        fence: Fence | None = None,
    ) -> Run:
        """Open a run for a client. With a fence it is a descendant of that attempt's run, and ends with the attempt.

        Raises:
            NotFound: no such experiment.
            InvalidValue: name and name tag differ, or the time is out of range.
            NotAllowed: the fence's attempt has ended, or the asked-for parent is not its own.
        """
        new = NewRun.made(experiment_id, user_name=user_name, name=name, start_time_ms=start_time_ms, tags=tags or {}, fence=fence)
        # One statement is enough for all but an attempt's: round trips and the wait for the disk are what opening a run costs.
        with self._database.autocommit() if fence is None else self._database.transaction() as tx:
            if fence is not None:
                hold_fence(tx, fence)
                if new.parent_run_id not in (None, fence.run_id):
                    guard_write(tx, str(new.parent_run_id), fence)
            (created,) = _create(tx, [new], fence)
        if isinstance(created, SweepError):
            raise created
        return created

    def create_many(self, runs: Sequence["NewRun"]) -> Sequence[Run | SweepError]:
        """Open many clients' runs in one transaction; each, or what it is refused for."""
        with self._database.autocommit() as tx:
            return _create(tx, runs, None)

    def get(self, run_id: str) -> Run:
        """One run.

        Raises:
            NotFound: there is none of this id.
        """
        with self._database.autocommit() as tx:
            return get_run(tx, run_id)

    def data(self, run_id: str) -> RunData:
        """What was logged to a run, its current attempt's view."""
        return self.get_with_data(run_id)[1]

    def get_with_data(self, run_id: str) -> tuple[Run, RunData]:
        """One run with what was logged to it.

        Raises:
            NotFound: there is none of this id.
        """
        with self._database.autocommit() as tx:
            found = _with_data(tx, tx.rows(sql.DATA, {"run_ids": [run_id]}))
        if not found:
            raise NotFound(f"Run with id={run_id} not found")
        return found[0]

    def resolve(self, ref: str) -> Run:
        """A run by its id, a unique prefix of 6 or more characters, or SWEEP/NUMBER.

        Raises:
            NotFound: nothing fits.
            InvalidValue: a prefix fits more than one.
        """
        with self._database.autocommit() as tx:
            sweep, slash, number = ref.rpartition("/")
            if slash and number.isdecimal():
                found = tx.scalar(
                    "SELECT run_id FROM trials WHERE sweep_id = %(sweep_id)s AND number = %(number)s",
                    {"sweep_id": resolve_sweep(tx, sweep), "number": int(number) if len(number) < 10 else -1},
                )
                if found is None:
                    raise NotFound(f"Sweep {sweep!r} has no trial {number}.", hint=f"`sweep trials {sweep}` lists them.")
                return get_run(tx, found)
            row = tx.one(sql.GET, {"run_id": ref})
            if row is None and RUN_ID.match(ref) and len(ref) >= 6:
                rows = tx.rows(sql.BY_PREFIX, {"pattern": re.sub(r"([_%\\])", r"\\\1", ref) + "%"})
                if len(rows) > 1:
                    raise InvalidValue(f"More than one run begins with {ref!r}.", hint="Give more of its id.")
                row = rows[0] if rows else None
        if row is None:
            raise NotFound(f"There is no run {ref!r}.", hint="Name it as SWEEP/NUMBER, or by its run id.")
        return _run(row)

    def update(self, run_id: str, *, status: str | None = None, end_time_ms: int | None = None, name: str | None = None, fence: Fence | None = None) -> Run:
        """MLflow's runs/update. A managed run's status is its worker's to tell (D9): it is left as it is."""
        state = None if status is None else EXTERNAL_STATE.get(status)
        if status is not None and state is None:
            raise InvalidValue(f"Invalid value {status!r} for parameter 'status' supplied: one of {', '.join(sorted(EXTERNAL_STATE))}.")
        with self._database.transaction() as tx:
            kind = guard_write(tx, run_id, fence, tags_only=state is None)
            if kind == "external":
                ended_at = None if end_time_ms is None else from_ms(end_time_ms)
                tx.execute(sql.UPDATE_EXTERNAL, {"run_id": run_id, "state": state, "ended_at": ended_at, "name": name or None})
            elif name:
                tx.execute(sql.RENAME, {"run_id": run_id, "name": name})
            return get_run(tx, run_id)

    def set_tags(self, run_id: str, tags: Mapping[str, str], fence: Fence | None = None) -> None:
        """Set tags; also on managed runs by anybody: a tag is a note, not a result."""
        with self._database.transaction() as tx:
            guard_write(tx, run_id, fence, tags_only=True)
            write_tags(tx, run_id, tags, fence)

    def delete_tag(self, run_id: str, key: str, fence: Fence | None = None) -> None:
        """Remove one tag. The run's name is left as it is: it is more than a tag.

        Raises:
            NotFound: the run has no such tag.
            NotAllowed: it is what a managed run is, not a note about it.
        """
        with self._database.transaction() as tx:
            kind = guard_write(tx, run_id, fence, tags_only=True)
            if key in COLUMN_TAGS:
                _delete_column_tag(tx, run_id, key, kind)
            elif tx.execute("DELETE FROM tags WHERE run_id = %(run_id)s AND key = %(key)s", {"run_id": run_id, "key": key}) == 0:
                raise NotFound(f"No tag with name: {key} in run with id {run_id}")

    def log_params(self, run_id: str, params: Mapping[str, str], fence: Fence | None = None) -> None:
        """Log parameters; a value that is the same, also numerically, is no change.

        Raises:
            InvalidValue: a parameter has another value already.
        """
        with self._database.transaction() as tx:
            guard_write(tx, run_id, fence)
            write_params(tx, run_id, params, fence)

    def delete(self, run_id: str, fence: Fence | None = None) -> None:
        """Mark a run deleted; it can be restored."""
        self._set_lifecycle(run_id, "deleted", fence)

    def restore(self, run_id: str, fence: Fence | None = None) -> None:
        """Bring a deleted run back."""
        self._set_lifecycle(run_id, "active", fence)

    def search(
        self,
        experiment_ids: Sequence[str],
        where: Expression = EVERYTHING,
        order_by: tuple[OrderBy, ...] = (),
        view: search.View = "ACTIVE_ONLY",
        max_results: int = 1000,
        page_token: str = "",
    ) -> tuple[list[tuple[Run, RunData]], str]:
        """MLflow's runs/search: a page of runs with their data, and the token of the next page or ''.

        Raises:
            InvalidValue: an id is none, there are too many, the token is none of this search, or it takes too long.
        """
        numbers = sorted({experiment_number(each) for each in experiment_ids})
        if len(numbers) > _MAX_EXPERIMENTS:
            raise InvalidValue(f"A search can name at most {_MAX_EXPERIMENTS:,} experiments; this one names {len(numbers):,}.")
        asked = ("runs", numbers, where, order_by, view)
        with self._database.autocommit() as tx:
            rows, token = read_page(tx, asked, page_token, max_results, lambda limit, after: search.runs(numbers, where, order_by, view, limit, after))
            return _with_data(tx, rows), token

    def replaced(self, run: Run) -> list[str]:
        """The runs of its trial that retries by hand have replaced before it, the first one first."""
        if not run.generation:
            return []
        with self._database.autocommit() as tx:
            rows = tx.rows(sql.REPLACED, {"sweep_id": run.sweep_id, "number": run.trial_number, "generation": run.generation})
        return [row.run_id for row in rows]

    def events(self, run_id: str) -> list[Event]:
        """A run's history, oldest first."""
        with self._database.autocommit() as tx:
            return [Event(**row._asdict()) for row in tx.rows(RUN_EVENTS, {"run_id": run_id})]

    def _set_lifecycle(self, run_id: str, stage: str, fence: Fence | None) -> None:
        with self._database.transaction() as tx:
            row = tx.one(sql.FOR_WRITE, {"run_id": run_id})
            if row is not None and row.kind != "external" and row.state in ("queued", "placed", "running"):
                raise NotAllowed(f"Run {run_id} is managed and has not ended.", hint="Cancel it first: `sweep cancel`.")
            if row is not None and row.lifecycle_stage == "active":
                guard_write(tx, run_id, fence, tags_only=True)
            elif row is not None and fence is not None:
                _refuse_foreign(run_id, row, fence)
                hold_fence(tx, fence)
            get_run(tx, run_id)
            tx.execute(sql.SET_LIFECYCLE, {"run_id": run_id, "stage": stage})


def _create(tx: Transaction, runs: Sequence[NewRun], fence: Fence | None) -> Sequence[Run | SweepError]:
    tags = [(run.run_id, key, value) for run in runs for key, value in sorted(run.tags.items())]
    values = {
        "opener_run_id": fence and fence.run_id,
        "opener_attempt": fence and fence.attempt,
        **{f"{name}s": [getattr(run, name) for run in runs] for name in _GIVEN},
        **{f"tag_{name}s": list(column) for name, column in zip(("run_id", "key", "value"), zip(*tags, strict=True) if tags else ((), (), ()), strict=True)},
    }
    created = {row.run_id: _run(row) for row in tx.rows(sql.INSERT_EXTERNAL, values)}
    return [created.get(run.run_id) or _refusal_of_experiment(tx, run.experiment_id) for run in runs]


def _refusal_of_experiment(tx: Transaction, number: int) -> SweepError:
    try:
        active_location(tx, str(number))
    except SweepError as refusal:
        return refusal
    return NotNow(f"The experiment {number} was restored just now.", hint="Try again.")


def guard_write(tx: Transaction, run_id: str, fence: Fence | None, *, tags_only: bool = False) -> str:
    """Refuse a write that its sender has no right to (I3, D7); returns the run's kind.

    Raises:
        NotFound: no such run.
        InvalidValue: the run is deleted.
        NotAllowed: a managed run's metrics, parameters or outcome from anyone but its current attempt, or an
            attempt writing outside its own run and the descendants it opened.
    """
    row = _writable(tx.one(sql.FOR_WRITE, {"run_id": run_id}), run_id, fence, tags_only=tags_only)
    if fence is not None:
        hold_fence(tx, fence)
    return str(row.kind)


def refusals_to_write(tx: Transaction, writers: Sequence[tuple[str, Fence | None]]) -> list[SweepError | None]:
    """`guard_write` for the results of many senders at once: what each run and fence is refused for, or None."""
    rows = {row.run_id: row for row in tx.rows(sql.FOR_WRITES, {"run_ids": [run_id for run_id, _ in writers]})}
    live = hold_fences(tx, {fence for _, fence in writers if fence is not None})
    refusals: list[SweepError | None] = []
    for run_id, fence in writers:
        try:
            _writable(rows.get(run_id), run_id, fence)
        except SweepError as refusal:
            refusals.append(refusal)
        else:
            refusals.append(None if fence is None or fence in live else fence_gone())
    return refusals


def _writable(row: Any, run_id: str, fence: Fence | None, *, tags_only: bool = False) -> Any:
    if row is None:
        raise NotFound(f"Run with id={run_id} not found")
    if row.lifecycle_stage != "active":
        raise InvalidValue(f"The run {run_id} must be in the 'active' state. Current state is {row.lifecycle_stage}.")
    if fence is not None:
        _refuse_foreign(run_id, row, fence)
    elif row.kind == "managed" and not tags_only:
        raise NotAllowed(
            f"Run {run_id} is managed: its results are accepted only from its current attempt.",
            hint="Log from inside the trial (its environment holds the token), or to a run of your own.",
        )
    return row


def _refuse_foreign(run_id: str, row: Any, fence: Fence) -> None:
    own = fence.run_id == run_id or (row.opener_run_id == fence.run_id and row.opener_attempt == fence.attempt)
    if not own:
        raise NotAllowed(f"The attempt of run {fence.run_id} may write that run and the runs it opened, not {run_id}.")


def get_run(tx: Transaction, run_id: str) -> Run:
    """One run, within a transaction."""
    row = tx.one(sql.GET, {"run_id": run_id})
    if row is None:
        raise NotFound(f"Run with id={run_id} not found")
    return _run(row)


def _delete_column_tag(tx: Transaction, run_id: str, key: str, kind: str) -> None:
    if key not in column_tags(get_run(tx, run_id)):
        raise NotFound(f"No tag with name: {key} in run with id {run_id}")
    if key == _NAME_TAG:
        return
    if kind != "external":
        raise NotAllowed(f"The tag {key} of run {run_id} can't be removed: its sweep says so.")
    change = "parent_run_id = NULL" if key == _PARENT_TAG else "user_name = ''"
    tx.execute(f"UPDATE runs SET {change} WHERE run_id = %(run_id)s", {"run_id": run_id})


def write_tags(tx: Transaction, run_id: str, tags: Mapping[str, str], fence: Fence | None) -> None:
    """Upsert tags, in one order so that two writers can't deadlock; the name tag renames the run, parent and user go to their columns.

    Raises:
        NotAllowed: an attempt hangs a run below one that is not its own.
    """
    if fence is not None and _PARENT_TAG in tags and tags[_PARENT_TAG] != fence.run_id:
        guard_write(tx, tags[_PARENT_TAG], fence)
    for key, column in ((_NAME_TAG, "name"), (_PARENT_TAG, "parent_run_id"), (_USER_TAG, "user_name")):
        # An empty name is none, as with MLflow.
        if key in tags and (tags[key] or key != _NAME_TAG):
            where = "run_id = %(run_id)s" + ("" if column == "name" else " AND kind = 'external'")
            tx.execute(f"UPDATE runs SET {column} = %(value)s WHERE {where}", {"run_id": run_id, "value": tags[key]})
    rows = [(run_id, key, tags[key]) for key in sorted(tags) if key not in COLUMN_TAGS]
    tx.insert("INSERT INTO tags (run_id, key, value)", rows, sql.UPSERT_TAG_TAIL)


def write_params(tx: Transaction, run_id: str, params: Mapping[str, str], fence: Fence | None) -> None:
    """Insert parameters; the same value again is no change, another is refused as MLflow does."""
    if not params:
        return
    attempt = fence.attempt if fence is not None and fence.run_id == run_id else 0
    before = _refuse_other_values(tx, run_id, params, attempt)
    rows = [(run_id, key, params[key], attempt) for key in sorted(params)]
    tx.insert("INSERT INTO params (run_id, key, value, attempt)", rows, sql.UPSERT_PARAM_TAIL)
    if before != params.keys():
        # Somebody else may have been first since the look before: what stands there now is what counts.
        _refuse_other_values(tx, run_id, params, attempt)


def _refuse_other_values(tx: Transaction, run_id: str, params: Mapping[str, str], attempt: int) -> set[str]:
    """Refuse parameters that stand in the record with another value; the keys of those that stand there with this one.

    Raises:
        InvalidValue: there is one.
    """
    before = {row.key: row for row in tx.rows(sql.PARAMS_OF, {"run_id": run_id, "keys": list(params)}) if row.attempt in (0, attempt)}
    for key, value in params.items():
        old = before.get(key)
        if old is not None and not _same_value(old.value, value):
            raise InvalidValue(
                f"Changing param values is not allowed. Param with key='{key}' was already logged with value='{old.value}' "
                f"for run ID='{run_id}'. Attempted logging new value '{value}'."
            )
    return set(before)


def load_data(tx: Transaction, runs: Sequence[Run]) -> dict[str, RunData]:
    """Parameters, tags, latest metrics and lineage of runs."""
    rows = tx.rows(sql.DATA, {"run_ids": [run.run_id for run in runs]})
    return {run.run_id: data for run, data in _with_data(tx, rows)}


def _with_data(tx: Transaction, rows: Sequence[Any]) -> list[tuple[Run, RunData]]:
    """Rows of RUN_COLUMNS and DATA_COLUMNS."""
    related = [_run(row[:_N_FIELDS]) for row in rows if row[-1]]
    lineage = load_lineage(tx, related) if related else {}
    found = []
    for row in rows:
        run = _run(row[:_N_FIELDS])
        params, own_tags, metrics = row[_N_FIELDS:-1]
        tags = column_tags(run)
        if own_tags:
            tags.update(_TEXTS.decode(own_tags))
        points = tuple([MetricPoint(key, float(value), step, time_ms) for key, value, step, time_ms in _POINTS.decode(metrics)]) if metrics else ()
        found.append((run, RunData(_TEXTS.decode(params) if params else {}, tags, points, lineage.get(run.run_id, NOTHING))))
    return found


def column_tags(run: Run) -> dict[str, str]:
    """The tags that columns stand for."""
    tags = {_NAME_TAG: run.name}
    if run.user_name:
        tags[_USER_TAG] = run.user_name
    if run.parent_run_id:
        tags[_PARENT_TAG] = run.parent_run_id
    if run.sweep_id and run.trial_number is not None:
        tags["sweep.trial"] = str(run.trial_number)
    if run.cause:
        tags["sweep.cause"] = run.cause
    return tags


def _same_value(old: str, new: str) -> bool:
    if old == new:
        return True
    try:
        # Whole numbers as such: beyond 2**53 neighbours are equal as floats.
        return int(old) == int(new)
    except ValueError:
        pass
    try:
        return float(old) == float(new)
    except ValueError:
        return False


def _run(row: Any) -> Run:
    values = list(row)
    values[_ARGV] = tuple(values[_ARGV])
    return Run(*values)


def mlflow_status(run: Run) -> str:
    """MLflow's status of a run."""
    return MLFLOW_STATUS[run.state]


def from_ms(time_ms: int) -> datetime:
    """An aware time from Unix milliseconds.

    Raises:
        InvalidValue: no calendar reaches that far.
    """
    try:
        time = _EPOCH + timedelta(milliseconds=time_ms)
    except (OverflowError, TypeError):
        time = _LATEST
    # A day less than calendars have: east of Greenwich it is the year 10000 by then, which can't be read back.
    if not _EPOCH <= time < _LATEST:
        raise InvalidValue(f"{time_ms!r} is no time in Unix milliseconds.")
    return time


def to_ms(time: datetime) -> int:
    """Unix milliseconds of an aware time."""
    return (time - _EPOCH) // timedelta(milliseconds=1)
