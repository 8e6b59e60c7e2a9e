"""Metrics: appended by COPY, latest values by one sorted upsert a batch, history for readers (D6)."""

import math
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple

from tracking.errors import InvalidValue, NotFound, SweepError
from tracking.queries import runs as sql
from tracking.records import MetricPoint
from tracking.store.attempts import Fence
from tracking.store.database import Database, Transaction
from tracking.store.paging import decode_token, encode_token
from tracking.store.runs import get_run, guard_write, load_data, refusals_to_write, write_params, write_tags

# Below this one statement for points and latest values is cheaper than COPY, which wants the series first.
_COPY_FROM: Final = 16
_COLUMNS: Final = ("series_id", "step", "time_ms", "value")
# COPY's binary format: a header, then rows of a count of columns and, for each, its length and bytes; a count of -1 ends it.
_COPY_HEADER: Final = b"PGCOPY\n\xff\r\n\0" + struct.pack(">ii", 0, 0)
_COPY_ROW: Final = struct.Struct(">hiqiqiqid")
_COPY_TRAILER: Final = struct.pack(">h", -1)

_INT64: Final = range(-(2**63), 2**63)
_ORDERS: Final = {"step": ("step", "time_ms", "value"), "time": ("time_ms", "step", "value")}

Row = tuple[int, int, float]
"""A point within its series: step, time (ms), value."""
Series = tuple[str, str, int]
"""What a series is of: run, key, attempt."""


@dataclass(frozen=True, slots=True)
class Append:
    """Points that somebody sends to one run, by key; at least one a key."""

    run_id: str
    points: Mapping[str, list[Row]]
    fence: Fence | None = None


class Curve(NamedTuple):
    """One metric's points in a trial's current run by step, time and value; None of one that has too many to be told with others."""

    number: int
    run_id: str
    points: list[MetricPoint] | None


class Metrics:
    """Metric points and latest values."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def log(self, run_id: str, points: Sequence[MetricPoint], fence: Fence | None = None) -> None:
        """Append points to a run; see `guard_write` for who may."""
        self.log_batch(Append(run_id, by_key(points), fence), {}, {})

    def log_batch(self, append: Append, params: Mapping[str, str], tags: Mapping[str, str]) -> None:
        """Points, parameters and tags of one run, all or nothing."""
        run_id, fence = append.run_id, append.fence
        with self._database.transaction() as tx:
            guard_write(tx, run_id, fence, tags_only=not append.points and not params)
            write_params(tx, run_id, params, fence)
            write_tags(tx, run_id, tags, fence)
            _write([append], tx)

    def append(self, appends: Sequence[Append]) -> Sequence[SweepError | None]:
        """Many senders' points in one transaction; for each what it is refused for, or None once its points are committed.

        Raises:
            SweepError: the transaction failed; nothing of any of them was recorded, unless `DatabaseAway` leaves that open.
        """
        with self._database.transaction() as tx:
            refusals = refusals_to_write(tx, [(append.run_id, append.fence) for append in appends])
            _write([append for append, refusal in zip(appends, refusals, strict=True) if refusal is None], tx)
        return refusals

    def history(
        self, run_id: str, key: str, max_results: int = 25000, page_token: str = "", order: Literal["step", "time"] = "step"
    ) -> tuple[list[MetricPoint], str]:
        """One metric's points of the current attempt, by step, time and value or by time, step and value; and the next page's token or ''.

        Raises:
            NotFound: there is no such run.
            InvalidValue: the token is of another history.
        """
        columns = _ORDERS[order]
        with self._database.autocommit() as tx:
            series = tx.one(sql.SERIES_OF, {"run_id": run_id, "key": key})
            if series is None:
                raise NotFound(f"Run with id={run_id} not found")
            asked = ("history", order, series.series_id)
            after = _checked(decode_token(page_token, asked))
            if series.series_id is None:
                return [], ""
            values = {"series_id": series.series_id, "limit": max_results + 1}
            values |= {f"after_{number}": value for number, value in enumerate(after)}
            rows = tx.rows(sql.history(columns, is_first=not after), values)
        points = [MetricPoint(key, row.value, row.step, row.time_ms) for row in rows[:max_results]]
        return points, encode_token(asked, rows[max_results - 1]) if len(rows) > max_results else ""

    def curves(self, sweep_id: str, key: str, from_trial: int = 0, max_points: int = 100_000) -> tuple[list[Curve], int | None]:
        """One metric's points in a sweep's trials from a number on, whole trials only; and the number to go on from, None if these were the last.

        A first trial with more points than that is answered without any: its own history has pages.
        """
        values = {"sweep_id": sweep_id, "key": key, "from_trial": from_trial, "limit": max_points + 1}
        with self._database.autocommit() as tx:
            rows = tx.rows(sql.CURVES, values)
        found: dict[int, tuple[str, list[MetricPoint]]] = {}
        for row in rows:
            found.setdefault(row.number, (row.run_id, []))[1].append(MetricPoint(key, row.value, row.step, row.time_ms))
        curves = [Curve(number, run_id, points) for number, (run_id, points) in found.items()]
        if len(rows) <= max_points:
            return curves, None
        if len(curves) == 1:
            return [Curve(curves[0].number, curves[0].run_id, None)], curves[0].number + 1
        return curves[:-1], curves[-1].number

    def latest_of(self, run_ids: Sequence[str], key: str) -> dict[str, MetricPoint]:
        """The latest value of one metric in each of many runs; those without it are left out. Index: metric_latest's primary key."""
        with self._database.autocommit() as tx:
            return {row.run_id: _point(row) for row in tx.rows(sql.LATEST_OF, {"run_ids": list(run_ids), "key": key})}

    def latest(self, run_id: str) -> list[MetricPoint]:
        """The latest value of each metric of the current attempt."""
        with self._database.autocommit() as tx:
            return list(load_data(tx, [get_run(tx, run_id)])[run_id].metrics)


def _point(row: Any) -> MetricPoint:
    return MetricPoint(row.key, row.value, row.step, row.time_ms)


def _checked(after: list[Any] | None) -> list[Any]:
    """The point before a page, as its token has it; empty for the first page."""
    if after is None:
        return []
    match after:
        case [int(first), int(second), float()] if first in _INT64 and second in _INT64:
            return after
        case _:
            raise InvalidValue("Invalid page token.")


def by_key(points: Iterable[MetricPoint]) -> dict[str, list[Row]]:
    """Points as an `Append` has them."""
    found: dict[str, list[Row]] = {}
    for point in points:
        found.setdefault(point.key, []).append((point.step, point.time_ms, point.value))
    return found


def _write(appends: Iterable[Append], tx: Transaction) -> None:
    """Append points and move the latest values, within a transaction that holds the right to write."""
    series: dict[Series, list[Row]] = {}
    for append in appends:
        attempt = append.fence.attempt if append.fence is not None and append.fence.run_id == append.run_id else 0
        for key, rows in append.points.items():
            before = series.setdefault((append.run_id, key, attempt), rows)
            if before is not rows:
                series[append.run_id, key, attempt] = before + rows
    if not series:
        return
    # In one order: two writers of one run can't deadlock.
    latest = [_latest(each, series[each]) for each in sorted(series)]
    if sum(map(len, series.values())) < _COPY_FROM:
        points = [(*each, *row) for each, rows in series.items() for row in rows]
        tx.execute_of(sql.APPEND_FEW, latest=latest, points=points)
        return
    ids = {(row.run_id, row.key, row.attempt): row.series_id for row in tx.rows_of(sql.UPSERT_LATEST, latest=latest)}
    tx.copy("metric_points", _COLUMNS, _copy_body(ids, series), "binary")


def _copy_body(ids: Mapping[Series, int], series: Mapping[Series, list[Row]]) -> bytes:
    pack = _COPY_ROW.pack
    parts = [_COPY_HEADER]
    for each, rows in series.items():
        series_id = ids[each]
        parts += [pack(4, 8, series_id, 8, step, 8, time_ms, 8, value) for step, time_ms, value in rows]
    parts.append(_COPY_TRAILER)
    return b"".join(parts)


def _latest(series: Series, rows: list[Row]) -> tuple[object, ...]:
    values = [row[2] for row in rows]
    last = max(rows)
    if math.isnan(sum(values)):
        # NaN sorts above every number, as in Postgres; it compares to nothing in Python.
        last = max(rows, key=lambda row: (row[0], row[1], math.isnan(row[2]), row[2]))
        values = [value for value in values if not math.isnan(value)]
    return (*series, *last, min(values, default=None), max(values, default=None))
