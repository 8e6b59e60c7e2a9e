"""Statements that read one metric's points of many runs, as pictures of them need it."""

from typing import Final

_POINTS: Final = """
SELECT DISTINCT p.step, p.time_ms, p.value FROM metric_points p
 WHERE p.series_id = (SELECT l.series_id FROM metric_latest l JOIN runs r ON r.run_id = l.run_id AND r.attempt = l.attempt
                       WHERE l.run_id = %(run_id)s AND l.key = %(key)s)
"""

BULK: Final = f"{_POINTS} ORDER BY p.time_ms, p.step, p.value LIMIT %(limit)s"
"""Indexes: metric_latest's primary key, ix_metric_points_series."""

# The first point of each of so many even parts, and the last point of all.
SAMPLE: Final = f"""
WITH points AS ({_POINTS} AND (%(first)s::bigint IS NULL OR p.step BETWEEN %(first)s AND %(last)s)),
     parted AS (SELECT step, time_ms, value, ntile(%(limit)s) OVER (ORDER BY step, time_ms, value) AS part,
                       row_number() OVER (ORDER BY step, time_ms, value) AS number, count(*) OVER () AS n_points FROM points)
SELECT step, time_ms, value FROM (SELECT *, lag(part) OVER (ORDER BY number) AS before FROM parted) each
 WHERE part IS DISTINCT FROM before OR number = n_points ORDER BY number
"""
"""Indexes: as of `BULK`."""
