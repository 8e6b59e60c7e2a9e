"""Reads a whole sweep from the server: its trials, the latest value of every metric, and curves."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from sweeps.api.shapes import MetricValue, Number, SweepAnswer, TrialAnswer
from sweeps.client import Client

_SEARCH: Final = "/api/2.0/mlflow/runs/search"
_PAGE: Final = 10_000


@dataclass(frozen=True, slots=True)
class Outcome:
    """A sweep as it stood when it was read.

    Attributes:
        trials: by number, without gaps.
        metrics: of each run by its id, the latest point of each metric by name.
    """

    sweep: SweepAnswer
    trials: list[TrialAnswer]
    metrics: Mapping[str, Mapping[str, MetricValue]]

    def metrics_of(self, trial: TrialAnswer) -> Mapping[str, MetricValue]:
        """The latest points of a trial's run."""
        return self.metrics.get(trial["run_id"], {})

    @property
    def metric_names(self) -> list[str]:
        """Every metric that any trial has logged, by name."""
        return sorted({name for trial in self.trials for name in self.metrics_of(trial)})


class Reader(Client):
    """A client that reads sweeps as a whole: three requests for ten thousand trials, and one for each hundred thousand points."""

    def outcome(self, ref: str) -> Outcome:
        """A sweep with its trials and their metrics.

        Raises:
            MissingOnServer: there is no such sweep.
        """
        sweep = self.sweep(ref)
        trials = self.trials(sweep["sweep_id"])["trials"]
        return Outcome(sweep, trials, self._latest(sweep))

    def points(self, outcome: Outcome, name: str) -> dict[str, list[MetricValue]]:
        """The points of one metric, of each run that has it, by the run's id."""
        found = {}
        for curve in self.curves(outcome.sweep["sweep_id"], name):
            if (points := curve["points"]) is None:
                found[curve["run_id"]] = self.metrics(curve["run_id"], key=name)["metrics"]
            else:
                found[curve["run_id"]] = [MetricValue(key=name, value=value, step=step, time_ms=time_ms) for step, time_ms, value in points]
        return found

    def _latest(self, sweep: SweepAnswer) -> dict[str, dict[str, MetricValue]]:
        """By MLflow's search, which answers for all children of a run at once."""
        body = {
            "experiment_ids": [sweep["experiment_id"]],
            "filter": f"tags.`mlflow.parentRunId` = '{sweep['sweep_id']}'",
            "run_view_type": "ALL",
            "max_results": _PAGE,
            # An order that stays while the sweep runs: what is new moves others to a later page, and none is missed.
            "order_by": ["attributes.run_id ASC"],
        }
        found: dict[str, dict[str, MetricValue]] = {}
        while True:
            page = self._json("POST", _SEARCH, body=body, is_repeatable=True)
            for run in page.get("runs", []):
                found[run["info"]["run_id"]] = {point["key"]: _point(point) for point in run["data"].get("metrics", [])}
            if not page.get("next_page_token"):
                return found
            body["page_token"] = page["next_page_token"]


def _point(point: Mapping[str, Any]) -> MetricValue:
    return MetricValue(key=point["key"], value=point["value"], step=point["step"], time_ms=point["timestamp"])


def as_float(value: Number) -> float | None:
    """A number as the API tells it: `NaN`, `Infinity` and `-Infinity` come as text."""
    return None if value is None else float(value)


def shown_state(trial: TrialAnswer) -> str:
    """One word for where a trial is: while it is open, where its run is (queued, placed, running)."""
    return trial["run_state"] if trial["state"] == "open" else trial["state"]


def as_json_text(value: object) -> str:
    """A value in one line of JSON, as people would write it."""
    return json.dumps(value, ensure_ascii=False)
