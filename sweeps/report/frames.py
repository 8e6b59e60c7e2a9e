"""A sweep as pandas data frames, typed column by column. Needs `sweep-runner[notebook]`."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final

from sweeps.api.shapes import MetricValue, SweepSummary
from sweeps.report.reader import Outcome, as_float, as_json_text
from sweeps.report.rows import METRICS, PARAMS, columns

if TYPE_CHECKING:
    import pandas as pd

_INT64: Final = 2**63
_TIMES: Final = frozenset({"created_at", "started_at", "ended_at"})
_FLOATS: Final = frozenset({"value", "duration_s"})
_WHOLE: Final = frozenset({"number", "attempts", "generation", "step"})
_SUMMARY: Final = ("short_id", "name", "state", "user_name", "method", "metric", "goal", "trials_asked", "created_at", "started_at", "ended_at", "sweep_id")


def require_pandas() -> Any:
    """The module.

    Raises:
        ModuleNotFoundError: it is not installed; says how to.
    """
    try:
        import pandas as pd  # noqa: PLC0415 - an extra, and half a second
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("Data frames need pandas, which is not installed: pip install 'sweep-runner[notebook]'.", name="pandas") from error
    return pd


def trials_frame(outcome: Outcome) -> "pd.DataFrame":
    """One row a trial, by number; the columns are those of `sweeps.report.rows.columns`."""
    return _frame(columns(outcome))


def sweeps_frame(sweeps: Sequence[SweepSummary]) -> "pd.DataFrame":
    """One row a sweep, newest first; `n_STATE` counts its trials."""
    every: list[dict[str, Any]] = [dict(sweep) for sweep in sweeps]
    states = ("finished", "failed", "pruned", "cancelled", "running", "queued")
    found = {name: [sweep[name] for sweep in every] for name in _SUMMARY}
    return _frame(found | {f"n_{state}": [sweep["counts"][state] for sweep in every] for state in states})


def metrics_frame(curves: Iterable[tuple[int, str, Sequence[MetricValue]]]) -> "pd.DataFrame":
    """One row a point: number, key, step, value, time (UTC). `curves` are trial's number, metric's name, points."""
    rows = [(number, key, point["step"], as_float(point["value"]), point["time_ms"]) for number, key, points in curves for point in points]
    pd = require_pandas()
    number, key, step, value, time_ms = zip(*rows, strict=True) if rows else ((),) * 5
    frame = _frame({"number": number, "key": key, "step": step, "value": value})
    frame["time"] = pd.to_datetime(pd.Series(time_ms, dtype="int64"), unit="ms", utc=True)
    return frame


def parquet_frame(outcome: Outcome) -> "pd.DataFrame":
    """`trials_frame` for a format whose columns have one type each: those of mixed values are JSON."""
    frame = trials_frame(outcome)
    for name in frame.columns:
        if frame[name].dtype == object:
            frame[name] = [None if value is None else as_json_text(value) for value in frame[name]]
    return frame


def _frame(found: dict[str, Any]) -> "pd.DataFrame":
    pandas = require_pandas()
    frame: pd.DataFrame = pandas.DataFrame({name: _series(pandas, name, values) for name, values in found.items()})
    return frame


def _series(pd: Any, name: str, values: Sequence[Any]) -> Any:
    if name in _TIMES:
        return pd.to_datetime(pd.Series(values, dtype="str"), utc=True, format="ISO8601")
    return pd.Series(list(values), dtype=_dtype(name, values))


def _dtype(name: str, values: Sequence[Any]) -> str:
    """Of what is known by its column's name, that; of parameters, what all of a column's values are."""
    if name in _FLOATS or name.startswith(METRICS):
        return "float64"
    if name in _WHOLE or name.startswith("n_"):
        return "int64"
    kinds = {type(value) for value in values if value is not None}
    has_gaps = any(value is None for value in values)
    if not name.startswith(PARAMS) and name != "trials_asked":
        return "str"
    if not kinds:
        return "object"
    if kinds == {bool}:
        return "boolean" if has_gaps else "bool"
    if kinds == {int} and all(value is None or -_INT64 <= value < _INT64 for value in values):
        return "Int64" if has_gaps else "int64"
    if kinds == {str}:
        return "str"
    return "float64" if kinds in ({float}, {int, float}) else "object"
