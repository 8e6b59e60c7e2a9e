"""Any search, until a trial is as good as `metric.target`: then there is nothing left to try."""

from collections.abc import Iterable, Mapping
from typing import Any

from sweeps.spec_config import Metric
from sweeps.strategies import Proposal, Strategy
from tracking.records import Trial
from tracking.states import TrialState


class UntilTarget:
    """Asks another strategy, as long as no finished trial has reached the target. Trials that are open by then run to their ends.

    A trial that reached it counts until a retry by hand ends otherwise, so the same history always gives the same answer.
    """

    def __init__(self, strategy: Strategy, metric: Metric) -> None:
        self._strategy = strategy
        self._metric = metric
        self._reached: set[int] = set()

    def ask(self, number: int) -> Proposal | None:
        """What the other proposes, or None once the target is reached."""
        return None if self._reached else self._strategy.ask(number)

    def tell(self, number: int, params: Mapping[str, Any], state: str, value: float | None, attrs: Mapping[str, Any]) -> None:
        """The other learns of it, whatever it is."""
        self._note(number, state, value)
        self._strategy.tell(number, params, state, value, attrs)

    def replay(self, trials: Iterable[Trial]) -> None:
        """Look at all outcomes anew."""
        trials = list(trials)
        self._reached.clear()
        for trial in trials:
            self._note(trial.number, trial.state, trial.value)
        self._strategy.replay(trials)

    def _note(self, number: int, state: str, value: float | None) -> None:
        if state == TrialState.FINISHED and self._metric.is_reached(value):
            self._reached.add(number)
        else:
            self._reached.discard(number)
