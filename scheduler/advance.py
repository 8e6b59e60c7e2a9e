"""Moves sweeps on: concludes trials, tells the search, asks it, writes proposals, ends sweeps.

The search of each sweep is a view in memory over its trial rows (D2): built when first needed, dropped whenever
a commit was ambiguous, rebuilt from the rows.
"""

import logging
import statistics
import time
from collections import Counter, deque
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

import msgspec

from scheduler.holdback import HoldBack
from scheduler.placement import can_serve, is_open
from sweeps.command import build_argv
from sweeps.spec_config import SweepConfig
from sweeps.strategies import Strategy, derive_seed, make_strategy
from sweeps.wording import counted
from tracking.errors import Contradiction, RowLocked
from tracking.failpoints import hit
from tracking.records import NewTrial, Sweep, Trial, WorkerView
from tracking.states import Cause, SweepEvent, SweepState, TrialState
from tracking.store import Store

_log = logging.getLogger(__name__)

# Runs below this median are "short": one may be placed ahead per slot (D3).
_SHORT_S: Final = 5.0
_ENOUGH_DURATIONS: Final = 3
# A breath spares the machine at hundreds of ends a second; longer than this it would spare nothing more.
_LONGEST_BREATH_S: Final = 0.02
# Proposals of grid and random don't depend on outcomes, unless there is a target: a few more waiting make fewer, larger transactions.
_BUFFER: Final = 8
# However many slots there are, one transaction stays small.
_LARGEST_BATCH: Final = 64
# How long one step, or one search within it, may think before what it found is written and the leadership renewed.
_STEP_S: Final = 0.5


class _SearchBroken(Exception):
    """A strategy raised what it should not: its own sweep ends, nobody else's."""


class _Lacking(Exception):
    """This machine had no descriptor, file or memory for a search just now: nothing is known of the search itself."""


@contextmanager
def _searching() -> Iterator[None]:
    try:
        yield
    except (OSError, MemoryError, ImportError) as error:
        # Strategies read no files: their modules are loaded when the first sweep needs them.
        raise _Lacking(f"{type(error).__name__}: {error}") from error
    except Exception as error:
        message = f"{type(error).__name__}: {error}"
        raise _SearchBroken(message) from error


@dataclass(slots=True)
class Search:
    """One sweep's search and the running counts that would be dear to ask the database for."""

    config: SweepConfig
    trials_max: int | None
    strategy: Strategy
    next_number: int
    n_open: int
    began: float
    revision: int
    n_good: int = 0
    exhausted: bool = False
    causes: Counter[str] = field(default_factory=Counter)
    durations_s: deque[float] = field(default_factory=lambda: deque(maxlen=50))

    @property
    def n_failed(self) -> int:
        """How many trials failed."""
        return self.causes.total()

    @property
    def looks_back(self) -> bool:
        """Whether outcomes decide what is proposed, or that nothing more is."""
        metric = self.config.metric
        return self.config.method == "bayes" or (metric is not None and metric.target is not None)

    @property
    def is_short(self) -> bool:
        """Whether this sweep's runs take so little time that waiting for the scheduler would show."""
        return len(self.durations_s) >= _ENOUGH_DURATIONS and self.median_s < _SHORT_S

    @property
    def median_s(self) -> float:
        """How long its runs take."""
        return statistics.median(self.durations_s)

    def note(self, trial: Trial) -> None:
        """Count an ended trial."""
        if trial.state == TrialState.FAILED:
            self.causes[trial.cause or "unknown"] += 1
        self.n_good += trial.state in (TrialState.FINISHED, TrialState.PRUNED)
        if trial.started_at is not None and trial.ended_at is not None:
            self.durations_s.append((trial.ended_at - trial.started_at).total_seconds())


class Advance:
    """Keeps every live sweep supplied with proposals and brings it to its end."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._searches: dict[str, Search] = {}
        self._locked = HoldBack()
        self._next_turn = ""

    def forget(self) -> None:
        """Drop every search: a commit was ambiguous, or another scheduler has led meanwhile."""
        self._searches.clear()

    @property
    def short_sweeps(self) -> Collection[str]:
        """Sweeps whose runs may be placed ahead."""
        return {sweep_id for sweep_id, search in self._searches.items() if search.is_short}

    @property
    def breath_s(self) -> float:
        """How long to wait before thinking again: zero, unless runs are placed ahead; then what those that wait can spare."""
        return min((min(search.median_s / 2, _LONGEST_BREATH_S) for search in self._searches.values() if search.is_short), default=0.0)

    def step(self, epoch: int, workers: Sequence[WorkerView]) -> bool:
        """Conclude, tell, ask, create, end; whether another step would find more to do.

        What others do meanwhile is no reason for another: they wake the scheduler once they have.
        """
        ended = set(self._store.trials.sweeps_with_ended())
        live = {sweep.sweep_id: sweep for sweep in self._in_turn(self._store.sweeps.active())}
        more = False
        for sweep_id in ended - live.keys():
            # Cancelled or failed sweeps: their last runs still end and are recorded.
            with self._leaving_locked(sweep_id) as is_free:
                if is_free:
                    self._store.trials.conclude(epoch, sweep_id)
        for sweep_id in self._searches.keys() - live.keys():
            del self._searches[sweep_id]
        began = time.monotonic()
        for sweep in live.values():
            if time.monotonic() - began > _STEP_S:
                # Thinking takes long: place what there is and renew the leadership, then go on where this stopped.
                self._next_turn = sweep.sweep_id
                return True
            with self._leaving_locked(sweep.sweep_id) as is_free:
                more |= is_free and self._step_safely(epoch, sweep, workers, has_ended=sweep.sweep_id in ended)
        return more

    @contextmanager
    def _leaving_locked(self, sweep_id: str) -> Iterator[bool]:
        """Tell whether a sweep can be moved on; one that somebody else holds a row of, or that this machine has nothing for, waits alone."""
        try:
            yield not self._locked.holds(sweep_id)
        except (RowLocked, _Lacking) as error:
            _log.warning("Sweep %s waits: %s", sweep_id, error)
            self._locked.put(sweep_id)
            # What was asked or told was not written.
            self._searches.pop(sweep_id, None)

    def check(self) -> None:
        """Drop every search that the record contradicts.

        Nobody else writes trials, so they agree, unless the record itself is another one: restored, or a standby that
        had not heard everything when it took over.
        """
        standings = self._store.trials.standings(self._searches.keys()) if self._searches else {}
        for sweep_id, search in list(self._searches.items()):
            found = standings.get(sweep_id)
            if found != (search.next_number, search.n_open):
                _log.warning("Sweep %s: the record says %s, the search %d and %d; reading it again.", sweep_id, found, search.next_number, search.n_open)
                del self._searches[sweep_id]

    def _in_turn(self, sweeps: Sequence[Sweep]) -> Sequence[Sweep]:
        """The sweeps, beginning where the last step had to stop."""
        first = next((i for i, sweep in enumerate(sweeps) if sweep.sweep_id == self._next_turn), 0)
        return [*sweeps[first:], *sweeps[:first]]

    def _step_safely(self, epoch: int, sweep: Sweep, workers: Sequence[WorkerView], *, has_ended: bool) -> bool:
        """One sweep's step; a search that breaks ends its own sweep and nobody else's."""
        try:
            search = self._search(sweep)
            if has_ended:
                self._conclude(epoch, sweep, search)
            return self._move_on(epoch, sweep, search, workers)
        except Contradiction as error:
            # The record decides, not the search: what we believe of this sweep is read again at the next poll.
            _log.warning("Sweep %s: %s", sweep.short_id, error)
            self._searches.pop(sweep.sweep_id, None)
            return False
        except _SearchBroken as error:
            _log.exception("The search of sweep %s can't go on", sweep.short_id)
            self._searches.pop(sweep.sweep_id, None)
            detail = f"The search can't go on: {error}"
            return self._store.sweeps.break_off(epoch, sweep, event=SweepEvent.FAIL, cause=Cause.SEARCH_FAILED, detail=detail[:4000])

    def _search(self, sweep: Sweep) -> Search:
        search = self._searches.get(sweep.sweep_id)
        if search is None or search.revision != sweep.revision:
            trials = self._store.trials.list(sweep.sweep_id)
            # By the database's clock, and from here on by one that nobody puts forward.
            began = time.monotonic() - self._store.sweeps.age_s(sweep.sweep_id)
            with _searching():
                search = self._searches[sweep.sweep_id] = _rebuild(sweep, trials, began)
        return search

    def _conclude(self, epoch: int, sweep: Sweep, search: Search) -> None:
        metric = search.config.metric
        impute = None if metric is None or metric.impute == "worst" else metric.impute
        for trial in self._store.trials.conclude(epoch, sweep.sweep_id, impute=impute):
            hit("scheduler.concluded")
            with _searching():
                search.strategy.tell(trial.number, trial.params, trial.state, trial.told, trial.attrs)
            hit("scheduler.told")
            search.n_open -= 1
            search.note(trial)

    def _move_on(self, epoch: int, sweep: Sweep, search: Search, workers: Sequence[WorkerView]) -> bool:
        if sweep.state == SweepState.ACTIVE:
            if self._is_over_limit(epoch, sweep, search):
                return True
            wanted = _wanted(search, _window(sweep, search, workers))
            if self._propose(epoch, sweep, search, wanted):
                return wanted > _LARGEST_BATCH
        if search.n_open > 0 or (sweep.state != SweepState.STOPPING and not search.exhausted):
            return False
        has_ended = self._end(epoch, sweep, search)
        hit("scheduler.ended")
        return has_ended

    def _is_over_limit(self, epoch: int, sweep: Sweep, search: Search) -> bool:
        limits = search.config.limits
        if limits.failures is not None and search.n_failed >= limits.failures:
            detail = f"{counted(search.n_failed, 'trial')} failed; the file allows fewer than {limits.failures} (limits.failures)."
            return self._store.sweeps.break_off(epoch, sweep, event=SweepEvent.FAIL, cause=Cause.OVER_BUDGET, detail=detail)
        if limits.time_s is not None and time.monotonic() - search.began >= limits.time_s:
            detail = f"The sweep has run for {limits.time_s:g} s (limits.time)."
            return self._store.sweeps.break_off(epoch, sweep, event=SweepEvent.STOP, cause=Cause.OVER_BUDGET, detail=detail)
        return False

    def _propose(self, epoch: int, sweep: Sweep, search: Search, wanted: int) -> bool:
        if search.trials_max is not None:
            wanted = min(wanted, search.trials_max - search.next_number)
            search.exhausted = search.exhausted or search.next_number >= search.trials_max
        if wanted <= 0 or search.exhausted:
            return False
        new: list[NewTrial] = []
        began = time.monotonic()
        for number in range(search.next_number, search.next_number + min(wanted, _LARGEST_BATCH)):
            if new and time.monotonic() - began > _STEP_S:
                break
            with _searching():
                proposal = search.strategy.ask(number)
                argv = () if proposal is None else build_argv(search.config, proposal.params)
            if proposal is None:
                search.exhausted = True
                break
            new.append(NewTrial(number, proposal.params, argv, derive_seed(search.config.seed or 0, number, "trial"), proposal.attrs))
        hit("scheduler.asked")
        if new and not self._store.trials.create(epoch, sweep, new):
            # Paused or stopped meanwhile: what was asked was never written, so the search must not know of it.
            del self._searches[sweep.sweep_id]
            return False
        hit("scheduler.created")
        search.next_number += len(new)
        search.n_open += len(new)
        return bool(new)

    def _end(self, epoch: int, sweep: Sweep, search: Search) -> bool:
        if sweep.state != SweepState.STOPPING and search.n_good == 0 and search.causes:
            cause, n_trials = search.causes.most_common(1)[0]
            detail = f"No trial succeeded; {n_trials} of {search.n_failed} failed by {cause}."
            return self._store.sweeps.finish(epoch, sweep, event=SweepEvent.FAIL, cause=cause, detail=detail)
        cause = sweep.cause or "completed"
        return self._store.sweeps.finish(epoch, sweep, event=SweepEvent.FINISH, cause=cause, detail=sweep.detail)


def _rebuild(sweep: Sweep, trials: Sequence[Trial], began: float) -> Search:
    config = msgspec.convert(sweep.config, SweepConfig)
    strategy = make_strategy(config)
    strategy.replay(trials)
    n_open = sum(trial.state == TrialState.OPEN for trial in trials)
    search = Search(config, config.trials_max, strategy, max((trial.number for trial in trials), default=-1) + 1, n_open, began, sweep.revision)
    for trial in trials:
        search.note(trial)
    return search


def _wanted(search: Search, window: int) -> int:
    """How many proposals to write now. Where they don't depend on outcomes none, until a whole buffer of them is due."""
    wanted = window - search.n_open
    return wanted if search.looks_back or wanted >= _BUFFER else 0


def _window(sweep: Sweep, search: Search, workers: Sequence[WorkerView]) -> int:
    """How many trials may be open at once: what the slots can take, and for searches that look back no more than that."""
    resources = sweep.launch.resources
    slots = sum(w.slots for w in workers if is_open(w) and can_serve(w, sweep.queue, resources))
    n_running = slots if sweep.parallel is None else min(slots, sweep.parallel)
    if not search.looks_back:
        return max(1, 2 * n_running + _BUFFER)
    takes_ahead = search.is_short and n_running == slots
    return max(1, 2 * n_running if takes_ahead else n_running)
