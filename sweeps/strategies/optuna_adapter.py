"""Bayes by Optuna's TPE, on a study in memory that is a view of the trials' rows (D2).

The only file that imports Optuna for searching. What Optuna sees of a parameter is its axis: an index for a category, a factor for a
multiple, the number itself otherwise. That position is kept in the trial's attributes, so a study is rebuilt from rows without
interpreting values. A new sampler is made for each ask, seeded from the sweep's seed and the trial's number: a rebuilt study then goes on
exactly as the lost one would have.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Any, Literal

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import TPESampler
from optuna.storages import InMemoryStorage
from optuna.trial import FrozenTrial, TrialState, create_trial

from sweeps.distributions import Axis, Choices, Integers
from sweeps.space import Space
from sweeps.strategies import Proposal, derive_seed
from tracking import states
from tracking.records import Trial

optuna.logging.set_verbosity(optuna.logging.WARNING)


class TpeStrategy:
    """Tree-structured Parzen estimator with Optuna's defaults: ten random trials first, open trials held for bad ones (constant liar).

    Optuna orders by trial number, never by the order of telling, so replaying outcomes in any order gives the same study.
    """

    def __init__(self, space: Space, seed: int, *, goal: Literal["minimize", "maximize"]) -> None:
        self._parameters = space.parameters
        self._distributions = {parameter.name: _distribution(parameter.axis) for parameter in space.parameters if parameter.axis is not None}
        self._seed = seed
        self._goal = goal
        self._start()

    def _start(self) -> None:
        # The storage is held beside the study: its methods are public, the study's attribute is not.
        self._storage = InMemoryStorage()
        self._study = optuna.create_study(storage=self._storage, direction=self._goal, pruner=optuna.pruners.NopPruner())
        self._study_id = self._storage.get_study_id_from_name(self._study.study_name)
        self._trial_ids: list[int] = []

    def ask(self, number: int) -> Proposal:
        """A point for trial `number`, which must be the next one.

        Raises:
            ValueError: it is not the next one; this strategy and the record have parted and it must be made anew.
        """
        if number != len(self._trial_ids):
            raise ValueError(f"trial {number} was asked for, but the search stands at {len(self._trial_ids)}; replay the sweep's trials")
        self._study.sampler = _FixedSpaceTpe(self._distributions, derive_seed(self._seed, number, "search"))
        trial = self._study.ask(self._distributions)
        self._remember()
        point = trial.params
        params = {p.name: p.at(point.get(p.name, 0)) for p in self._parameters}
        return Proposal(params, {"point": point})

    def tell(self, number: int, params: Mapping[str, Any], state: str, value: float | None, attrs: Mapping[str, Any]) -> None:
        """Close trial `number`; told again (a retry by hand), the new outcome takes the old one's place."""
        del params, attrs  # the study knows the point
        trial_id = self._trial_ids[number]
        if self._storage.get_trial(trial_id).state.is_finished():
            self._replace(number, state, value)
            return
        final, values = _outcome(state, value)
        if final is TrialState.PRUNED and values:
            # So does Optuna itself: a pruned trial counts by its last intermediate value.
            self._storage.set_trial_intermediate_value(trial_id, 0, values[0])
        self._storage.set_trial_state_values(trial_id, final, values)

    def replay(self, trials: Iterable[Trial]) -> None:
        """Build the study anew from a sweep's rows."""
        self._start()
        for number, trial in enumerate(sorted(trials, key=lambda trial: trial.number)):
            if trial.number != number or "point" not in trial.attrs:
                why = "it has no point" if trial.number == number else "there is a gap before it"
                raise ValueError(f"trial {trial.number} of sweep {trial.sweep_id} can't be replayed: {why}")
            self._add(self._frozen(trial.attrs["point"], trial.state, trial.told))

    def _replace(self, number: int, state: str, value: float | None) -> None:
        """Optuna's finished trials are final, so one that changes means a new study."""
        trials = [self._storage.get_trial(trial_id) for trial_id in self._trial_ids]
        trials[number] = self._frozen(trials[number].params, state, value)
        self._start()
        for trial in trials:
            self._add(trial)

    def _add(self, trial: FrozenTrial) -> None:
        self._study.add_trial(trial)
        self._remember()

    def _remember(self) -> None:
        """Keep the newest trial's id: Optuna's storage speaks in ids, its trials only in numbers."""
        self._trial_ids.append(self._storage.get_trial_id_from_study_id_trial_number(self._study_id, len(self._trial_ids)))

    def _frozen(self, point: Mapping[str, Any], state: str, value: float | None) -> FrozenTrial:
        final, values = _outcome(state, value)
        return create_trial(
            state=final,
            values=values,
            params=dict(point),
            distributions=self._distributions,
            intermediate_values={0: values[0]} if final is TrialState.PRUNED and values else {},
        )


class _FixedSpaceTpe(TPESampler):
    """TPE that is told its space. Optuna's own works it out from all trials again for every new sampler."""

    def __init__(self, distributions: Mapping[str, BaseDistribution], seed: int) -> None:
        super().__init__(seed=seed)
        self._movable = {name: distribution for name, distribution in distributions.items() if not distribution.single()}

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """All parameters that can move; `study` and `trial` are not needed to know them."""
        del study, trial
        return self._movable


def _distribution(axis: Axis) -> BaseDistribution:
    if isinstance(axis, Choices):
        return CategoricalDistribution(range(axis.n))
    if isinstance(axis, Integers):
        return IntDistribution(axis.low, axis.high)
    return FloatDistribution(axis.low, axis.high, log=axis.log)


def _outcome(state: str, value: float | None) -> tuple[TrialState, list[float] | None]:
    """Optuna's state and values for a trial's.

    A trial without an objective, whatever ended it, counts as worse than all that have one, as W&B's `impute: worst` has it. Optuna ranks
    a pruned trial without a value so; no number needs to be made up that a later trial would make wrong. One that failed or was cancelled
    has a value where the file wants that (`impute: latest` or `best`), and then counts as any other.
    """
    values = None if value is None or math.isnan(value) else [value]
    if state == states.TrialState.OPEN:
        return TrialState.RUNNING, None
    return (TrialState.COMPLETE if values and state != states.TrialState.PRUNED else TrialState.PRUNED), values
