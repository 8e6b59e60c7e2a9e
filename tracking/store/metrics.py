"""Metrics: appended by COPY, latest values by one sorted upsert a batch, history for readers (D6)."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from tracking.queries import runs as sql
from tracking.records import MetricPoint
from tracking.store.attempts import Fence
from tracking.store.database import Database, Transaction
from tracking.store.runs import decode_offset, encode_offset, get_run, guard_write, load_data, write_params, write_tags

# Below this a multi-row INSERT is one round trip less than COPY.
_COPY_FROM = 16
_COLUMNS = ("run_id", "attempt", "key", "step", "time_ms", "value")
_ESCAPES = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})


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
        self.log_batch(run_id, points, {}, {}, fence)

    def log_batch(
        self,
        run_id: str,
        points: Sequence[MetricPoint],
        params: Mapping[str, str],
        tags: Mapping[str, str],
        fence: Fence | None = None,
    ) -> None:
        """Metrics, parameters and tags of one run, all or nothing."""
        with self._database.transaction() as tx:
            guard_write(tx, run_id, fence, tags_only=not points and not params)
            write_params(tx, run_id, params, fence)
            write_tags(tx, run_id, tags, fence)
            attempt = fence.attempt if fence is not None and fence.run_id == run_id else 0
            write_points(tx, run_id, attempt, points)

    def history(self, run_id: str, key: str, max_results: int = 25000, page_token: str = "") -> tuple[list[MetricPoint], str]:
        """One metric's points of the current attempt by step, time and value; and the next page's token or ''."""
        offset = decode_offset(page_token)
        with self._database.autocommit() as tx:
            get_run(tx, run_id)
            rows = tx.rows(sql.HISTORY, {"run_id": run_id, "key": key, "limit": max_results + 1, "offset": offset})
        points = [MetricPoint(key, row.value, row.step, row.time_ms) for row in rows[:max_results]]
        return points, encode_offset(offset + max_results) if len(rows) > max_results else ""

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


def write_points(tx: Transaction, run_id: str, attempt: int, points: Sequence[MetricPoint]) -> None:
    """Append points and move the latest values, within a transaction that holds the right to write."""
    if not points:
        return
    if len(points) < _COPY_FROM:
        rows = [(run_id, attempt, p.key, p.step, p.time_ms, p.value) for p in points]
        tx.insert(f"INSERT INTO metric_points ({', '.join(_COLUMNS)})", rows)
    else:
        head = f"{run_id}\t{attempt}\t"
        keys = {key: key.translate(_ESCAPES) for key in {p.key for p in points}}
        tx.copy("metric_points", _COLUMNS, "".join(f"{head}{keys[p.key]}\t{p.step}\t{p.time_ms}\t{p.value!r}\n" for p in points))
    # Keys in one order: two writers of one run can't deadlock.
    latest = [_latest(run_id, attempt, key, group) for key, group in sorted(_by_key(points).items())]
    tx.insert("INSERT INTO metric_latest (run_id, key, attempt, step, time_ms, value, min_value, max_value)", latest, sql.LATEST_TAIL)


def _by_key(points: Sequence[MetricPoint]) -> dict[str, list[MetricPoint]]:
    groups: dict[str, list[MetricPoint]] = {}
    for point in points:
        groups.setdefault(point.key, []).append(point)
    return groups


def _latest(run_id: str, attempt: int, key: str, points: list[MetricPoint]) -> tuple[object, ...]:
    # NaN sorts above every number, as in Postgres.
    last = max(points, key=lambda p: (p.step, p.time_ms, math.isnan(p.value), p.value))
    numbers = [p.value for p in points if not math.isnan(p.value)]
    return (
        run_id,
        key,
        attempt,
        last.step,
        last.time_ms,
        last.value,
        min(numbers, default=None),
        max(numbers, default=None),
    )
