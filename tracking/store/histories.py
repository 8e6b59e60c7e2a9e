"""Histories of one metric in many runs, whole or in samples: what curves are drawn from."""

from collections.abc import Sequence
from typing import Any

from tracking.queries import histories as sql
from tracking.records import MetricPoint
from tracking.store.database import Database

RunPoint = tuple[str, MetricPoint]
"""A run's id, and one of its points."""


class Histories:
    """Points of one metric in many runs. Runs that are not there have none."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def bulk(self, run_ids: Sequence[str], key: str, max_points: int) -> list[RunPoint]:
        """The first points of all runs together, by run, time, step and value."""
        found: list[RunPoint] = []
        with self._database.autocommit() as tx:
            for run_id in sorted(set(run_ids)):
                rows = tx.rows_in_time(sql.BULK, {"run_id": run_id, "key": key, "limit": max_points - len(found)})
                found += [(run_id, _point(key, row)) for row in rows]
                if len(found) == max_points:
                    break
        return found

    def sampled(self, run_ids: Sequence[str], key: str, max_points: int, steps: tuple[int, int] | None = None) -> list[RunPoint]:
        """So many points of each run at most, evenly taken, by step, time and value; the last one is always there. A run named twice counts once.

        Args:
            steps: the first and the last that are looked at, or None for all.
        """
        first, last = steps or (None, None)
        found: list[RunPoint] = []
        with self._database.autocommit() as tx:
            for run_id in dict.fromkeys(run_ids):
                rows = list(tx.rows_in_time(sql.SAMPLE, {"run_id": run_id, "key": key, "limit": max_points, "first": first, "last": last}))
                if len(rows) > max_points:
                    del rows[-2]
                found += [(run_id, _point(key, row)) for row in rows]
        return found


def _point(key: str, row: Any) -> MetricPoint:
    return MetricPoint(key, row.value, row.step, row.time_ms)
