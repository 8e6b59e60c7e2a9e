"""Sweeps as a server tells them, made up: for what only reads them."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from sweeps.api.shapes import Counts, MetricValue, Number, SweepAnswer, TrialAnswer, Urls
from sweeps.report.reader import Outcome
from sweeps.spec import config_from_mapping

AT: Final = "2026-01-02T03:04:05.250Z"
LATER: Final = "2026-01-02T03:04:07.750Z"


def made_trial(number: int, params: Mapping[str, Any], value: Number = None, state: str = "finished", **changes: Any) -> TrialAnswer:
    """A trial that has ended, or (queued, placed, running) has not."""
    is_open = state in {"queued", "placed", "running"}
    trial = TrialAnswer(
        number=number,
        run_id=f"{number:032x}",
        state="open" if is_open else state,
        run_state=state,
        cause=None if is_open else "completed",
        detail=None,
        value=value,
        params=dict(params),
        attempts=1,
        generation=0,
        duration_s=None if is_open else 2.5,
        worker=None if state == "queued" else "w1",
        created_at=AT,
        started_at=None if state in {"queued", "placed"} else AT,
        ended_at=None if is_open else LATER,
    )
    trial.update(changes)  # type: ignore[typeddict-item]
    return trial


def made_outcome(parameters: Mapping[str, Any], trials: Sequence[TrialAnswer], metrics: Mapping[int, Mapping[str, Number]] | None = None) -> Outcome:
    """A sweep that minimizes `loss` over `parameters` (as the file has them), with the latest metrics of trials by number."""
    config = config_from_mapping({"program": "t.py", "method": "random", "metric": {"name": "loss"}, "parameters": parameters})
    by_run = {
        f"{number:032x}": {key: MetricValue(key=key, value=value, step=4, time_ms=1000) for key, value in values.items()}
        for number, values in (metrics or {}).items()
    }
    return Outcome(made_sweep(config=config.to_builtins()), list(trials), by_run)


def made_sweep(**changes: Any) -> SweepAnswer:
    """A sweep that runs."""
    none = Counts(total=0, open=0, queued=0, placed=0, running=0, finished=0, failed=0, pruned=0, cancelled=0)
    sweep = SweepAnswer(
        schema=1,
        sweep_id="ab" * 16,
        short_id="brave-otter-7f3a",
        name="wine",
        state="active",
        user_name="kim",
        method="random",
        metric="loss",
        goal="minimize",
        trials_asked=4,
        parallel=None,
        queue="default",
        priority=50,
        counts=none,
        cause=None,
        detail=None,
        created_at=AT,
        started_at=AT,
        ended_at=None,
        elapsed_s=12.0,
        eta_s=None,
        experiment_id="1",
        config={},
        best=None,
        running=[],
        models=[],
        urls=Urls(api="/"),
    )
    sweep.update(changes)  # type: ignore[typeddict-item]
    return sweep
