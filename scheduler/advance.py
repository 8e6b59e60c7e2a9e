"""Moves sweeps on: concludes trials, tells the search, asks it, writes proposals, ends sweeps.

The search of each sweep is a view in memory over its trial rows (D2): built when first needed, dropped whenever
a commit was ambiguous, rebuilt from the rows.
"""

import logging
import statistics
from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

import msgspec

from scheduler.placement import can_serve, is_open
from sweeps.command import build_argv
from sweeps.spec_config import SweepConfig
from sweeps.strategies import Strategy, derive_seed, make_strategy
from tracking.errors import Contradiction, DatabaseAway, SchemaOutdated
from tracking.records import NewTrial, Sweep, Trial, WorkerView
from tracking.states import Cause, SweepEvent, SweepState, TrialState
from tracking.store import Store
from tracking.store.leader import NotLeader

_log = logging.getLogger(__name__)

# Runs below this median are "short": one may be placed ahead per slot (D3).
_SHORT_S: Final = 5.0
_ENOUGH_DURATIONS: Final = 3
# Proposals of grid and random don't depend on outcomes: a few more waiting make fewer, larger transactions.
_BUFFER: Final = 8
# However many slots there are, one transaction stays small.
_LARGEST_BATCH: Final = 64


@dataclass(slots=True)
class Search:
    """One sweep's search and the running counts that would be dear to ask the database for."""

    config: SweepConfig
    trials_max: int | None
    strategy: Strategy
    next_number: int
    n_open: int
    n_failed: int
    n_good: int
    exhausted: bool = False
    durations_s: deque[float] = field(default_factory=lambda: deque(maxlen=50))

    @property
    def is_short(self) -> bool:
        """Whether this sweep's runs take so little time that waiting for the scheduler would show."""
        return len(self.durations_s) >= _ENOUGH_DURATIONS and statistics.median(self.durations_s) < _SHORT_S

    def note(self, trial: Trial) -> None:
        """Count an ended trial."""
        self.n_failed += trial.state == TrialState.FAILED
        self.n_good += trial.state in (TrialState.FINISHED, TrialState.PRUNED)
        if trial.started_at is not None and trial.ended_at is not None:
            self.durations_s.append((trial.ended_at - trial.started_at).total_seconds())


class Advance:
    """Keeps every live sweep supplied with proposals and brings it to its end."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._searches: dict[str, Search] = {}

    def forget(self) -> None:
        """Drop every search: a commit was ambiguous, or another scheduler has led meanwhile."""
        self._searches.clear()

    @property
    def short_sweeps(self) -> Collection[str]:
        """Sweeps whose runs may be placed ahead."""
        return {sweep_id for sweep_id, search in self._searches.items() if search.is_short}

    def step(self, epoch: int, workers: Sequence[WorkerView]) -> bool:
        """Conclude, tell, ask, create, end; whether anything was done."""
        ended = set(self._store.trials.sweeps_with_ended())
        live = {sweep.sweep_id: sweep for sweep in self._store.sweeps.active()}
        done = False
        for sweep_id in ended - live.keys():
            # Cancelled or failed sweeps: their last runs still end and are recorded.
            done |= bool(self._store.trials.conclude(epoch, sweep_id))
        for sweep in live.values():
            done |= self._step_safely(epoch, sweep, workers, has_ended=sweep.sweep_id in ended)
        for sweep_id in self._searches.keys() - live.keys():
            del self._searches[sweep_id]
        return done

    def _step_safely(self, epoch: int, sweep: Sweep, workers: Sequence[WorkerView], *, has_ended: bool) -> bool:
        """One sweep's step; a search that breaks ends its own sweep and nobody else's."""
        try:
            search = self._search(sweep)
            concluded = has_ended and self._conclude(epoch, sweep, search)
            return self._move_on(epoch, sweep, search, workers) or concluded
        except (Contradiction, DatabaseAway, NotLeader, SchemaOutdated):
            # The record decides, not the search: what we believe of this sweep is read again.
            self._searches.pop(sweep.sweep_id, None)
            raise
        except Exception as error:  # noqa: BLE001 -- one sweep's search must not stop all others
            _log.exception("The search of sweep %s can't go on", sweep.short_id)
            self._searches.pop(sweep.sweep_id, None)
            detail = f"The search can't go on: {type(error).__name__}: {error}"
            return self._store.sweeps.break_off(epoch, sweep.sweep_id, event=SweepEvent.FAIL, cause=Cause.SEARCH_FAILED, detail=detail[:4000])

    def _search(self, sweep: Sweep) -> Search:
        search = self._searches.get(sweep.sweep_id)
        if search is None:
            search = self._searches[sweep.sweep_id] = _rebuild(sweep, self._store.trials.list(sweep.sweep_id))
        return search

    def _conclude(self, epoch: int, sweep: Sweep, search: Search) -> bool:
        trials = self._store.trials.conclude(epoch, sweep.sweep_id)
        for trial in trials:
            search.strategy.tell(trial.number, trial.params, trial.state, trial.value, trial.attrs)
            search.n_open -= 1
            search.note(trial)
        return bool(trials)

    def _move_on(self, epoch: int, sweep: Sweep, search: Search, workers: Sequence[WorkerView]) -> bool:
        if sweep.state == SweepState.ACTIVE:
            if self._is_over_limit(epoch, sweep, search):
                return True
            if self._propose(epoch, sweep, search, _window(sweep, search, workers) - search.n_open):
                return True
        if search.n_open > 0 or (sweep.state != SweepState.STOPPING and not search.exhausted):
            return False
        return self._end(epoch, sweep, search)

    def _is_over_limit(self, epoch: int, sweep: Sweep, search: Search) -> bool:
        limits = search.config.limits
        if limits.failures is not None and search.n_failed >= limits.failures:
            detail = f"{search.n_failed} trials failed; the file allows fewer than {limits.failures} (limits.failures)."
            return self._store.sweeps.break_off(epoch, sweep.sweep_id, event=SweepEvent.FAIL, cause=Cause.OVER_BUDGET, detail=detail)
        if limits.time_s is not None and (datetime.now(UTC) - sweep.created_at).total_seconds() >= limits.time_s:
            detail = f"The sweep has run for {limits.time_s:g} s (limits.time)."
            return self._store.sweeps.break_off(epoch, sweep.sweep_id, event=SweepEvent.STOP, cause=Cause.OVER_BUDGET, detail=detail)
        return False

    def _propose(self, epoch: int, sweep: Sweep, search: Search, wanted: int) -> bool:
        if search.trials_max is not None:
            wanted = min(wanted, search.trials_max - search.next_number)
            search.exhausted = search.exhausted or search.next_number >= search.trials_max
        if wanted <= 0 or search.exhausted:
            return False
        new: list[NewTrial] = []
        for number in range(search.next_number, search.next_number + min(wanted, _LARGEST_BATCH)):
            proposal = search.strategy.ask(number)
            if proposal is None:
                search.exhausted = True
                break
            argv = build_argv(search.config, proposal.params)
            new.append(NewTrial(number, proposal.params, argv, derive_seed(search.config.seed or 0, number, "trial"), proposal.attrs))
        if new and not self._store.trials.create(epoch, sweep, new):
            # Paused or stopped meanwhile: what was asked was never written, so the search must not know of it.
            del self._searches[sweep.sweep_id]
            return False
        search.next_number += len(new)
        search.n_open += len(new)
        return bool(new)

    def _end(self, epoch: int, sweep: Sweep, search: Search) -> bool:
        if search.n_good == 0 and search.n_failed > 0:
            return self._store.sweeps.finish(epoch, sweep.sweep_id, event=SweepEvent.FAIL, cause="no_objective", detail="No trial succeeded.")
        cause = sweep.cause or "completed"
        return self._store.sweeps.finish(epoch, sweep.sweep_id, event=SweepEvent.FINISH, cause=cause, detail=sweep.detail)


def _rebuild(sweep: Sweep, trials: Sequence[Trial]) -> Search:
    config = msgspec.convert(sweep.config, SweepConfig)
    strategy = make_strategy(config)
    strategy.replay(trials)
    n_open = sum(trial.state == TrialState.OPEN for trial in trials)
    search = Search(config, config.trials_max, strategy, max((trial.number for trial in trials), default=-1) + 1, n_open, 0, 0)
    for trial in trials:
        search.note(trial)
    return search


def _window(sweep: Sweep, search: Search, workers: Sequence[WorkerView]) -> int:
    """How many trials may be open at once: what the slots can take, and for searches that learn no more than that."""
    resources = sweep.launch.resources
    slots = sum(w.slots for w in workers if is_open(w) and can_serve(w, sweep.queue, resources))
    n_running = slots if sweep.parallel is None else min(slots, sweep.parallel)
    if search.config.method != "bayes":
        return max(1, 2 * n_running + _BUFFER)
    takes_ahead = search.is_short and n_running == slots
    return max(1, 2 * n_running if takes_ahead else n_running)
