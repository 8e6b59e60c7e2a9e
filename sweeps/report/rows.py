"""A sweep's trials as columns, and as CSV and JSON. Needs nothing but the standard library."""

import csv
import json
import math
from collections.abc import Iterator, Sequence
from io import StringIO
from typing import Any, Final

from sweeps.api.shapes import SCHEMA, TrialAnswer
from sweeps.report.reader import Outcome, as_float, as_json_text, shown_state

PARAMS: Final = "params."
METRICS: Final = "metrics."
_FORMULA_SIGNS: Final = ("=", "+", "-", "@", "\t", "\r")
_LAST: Final = ("cause", "detail", "attempts", "generation", "worker", "duration_s", "created_at", "started_at", "ended_at", "run_id")


def columns(outcome: Outcome) -> dict[str, list[Any]]:
    """One value a trial in each: number, state, value, `params.NAME`, `metrics.NAME` (latest), and how it went.

    Values and metrics are floats, NaN and infinities among them; None is what a trial does not have. Times are ISO 8601.
    """
    trials = outcome.trials
    names = list(dict.fromkeys(name for trial in trials for name in trial["params"]))
    found: dict[str, list[Any]] = {
        "number": [trial["number"] for trial in trials],
        "state": [shown_state(trial) for trial in trials],
        "value": [as_float(trial["value"]) for trial in trials],
    }
    found |= {PARAMS + name: [trial["params"].get(name) for trial in trials] for name in names}
    found |= {METRICS + name: [_latest(outcome, trial, name) for trial in trials] for name in outcome.metric_names}
    every: Sequence[dict[str, Any]] = [dict(trial) for trial in trials]
    return found | {name: [trial[name] for trial in every] for name in _LAST}


def _latest(outcome: Outcome, trial: TrialAnswer, name: str) -> float | None:
    point = outcome.metrics_of(trial).get(name)
    return None if point is None else as_float(point["value"])


def csv_lines(outcome: Outcome) -> Iterator[str]:
    """The columns as CSV, a heading and a line for each trial (more, where a text has several).

    What a spreadsheet would take for a formula begins with an apostrophe; numbers do not. Lists and mappings are JSON.
    """
    table = columns(outcome)
    yield _csv_line(list(table))
    for row in zip(*table.values(), strict=True):
        yield _csv_line([csv_cell(value) for value in row])


def _csv_line(cells: Sequence[str]) -> str:
    line = StringIO()
    csv.writer(line, lineterminator="\n").writerow(cells)
    return line.getvalue()


def csv_cell(value: object) -> str:
    """A value as text: nothing for None, `true`, numbers in full, `NaN` and `Infinity`, JSON for lists and mappings."""
    if value is None:
        return ""
    if isinstance(value, float) and not math.isfinite(value):
        return as_json_text(value)
    if isinstance(value, str):
        return f"'{value}" if value.startswith(_FORMULA_SIGNS) and not _is_number(value) else value
    return as_json_text(value)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def json_text(outcome: Outcome) -> str:
    """The sweep and its trials as one JSON object, a line for each trial: what the API tells, with `metrics` (latest values) beside it."""
    head = json.dumps({"schema": SCHEMA, "sweep": _without_schema(outcome)}, ensure_ascii=False)
    trials = ",\n".join(as_json_text({**trial, "metrics": _values(outcome, trial)}) for trial in outcome.trials)
    return f'{head[:-1]}, "trials": [\n{trials}\n]}}\n'


def _without_schema(outcome: Outcome) -> dict[str, Any]:
    # What runs now is among the trials.
    return {key: value for key, value in outcome.sweep.items() if key not in {"schema", "running"}}


def _values(outcome: Outcome, trial: TrialAnswer) -> dict[str, Any]:
    return {name: point["value"] for name, point in outcome.metrics_of(trial).items()}
