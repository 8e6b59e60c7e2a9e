"""More of a sweep that is there: extended by trials, or with the trials that failed run again."""

import msgspec

from sweeps.api.rights import Right
from sweeps.api.routing import Body, Routes, Use, parse_body, wake
from sweeps.api.shapes import SCHEMA, ExtendBody, RetryAnswer, RetryBody, SweepAnswer
from sweeps.api.sweeps import sweep_answer
from sweeps.bounds import NUMBER_MAX
from sweeps.spec_config import SweepConfig
from sweeps.wording import counted
from tracking.errors import InvalidValue, NotNow
from tracking.records import Sweep
from tracking.states import Cause, SweepState

routes = Routes("sweeps")


@routes.post("/sweeps/{ref}/extend", Right.WRITE, answers=SweepAnswer, body=ExtendBody)
def extend_sweep(services: Use, ref: str, body: Body) -> SweepAnswer:
    """Let a sweep have `trials_max` trials in all; one that has finished goes on.

    Sending the same again changes nothing.
    """
    trials_max = parse_body(body, ExtendBody)["trials_max"]
    sweep = services.store.sweeps.get(ref)
    config = SweepConfig.from_builtins(sweep.config)
    before = config.trials_max
    n_trials = services.store.sweeps.counts(sweep.sweep_id).total
    # A finished sweep that was stopped early has fewer than it was asked for.
    if trials_max != before or (sweep.state == SweepState.FINISHED and n_trials < trials_max):
        wanted = extended(sweep, config, n_trials, trials_max, services.store.sweeps.age_s(sweep.sweep_id))
        note = f"Up to {counted(trials_max, 'trial')}" + ("." if before in (None, trials_max) else f" instead of {before}.")
        sweep = services.store.sweeps.extend(sweep, wanted.to_builtins(), note)
        wake(services)
    return sweep_answer(services, sweep)


def extended(sweep: Sweep, config: SweepConfig, n_trials: int, trials_max: int, age_s: float) -> SweepConfig:
    """The configuration of a sweep that is to have so many trials in all.

    Args:
        n_trials: how many it has.
        age_s: how long ago it was submitted.

    Raises:
        InvalidValue: they are not more than it has or will have.
        NotNow: it can't have more, however many are asked for.
    """
    grid_size = config.space.grid_size() if config.method == "grid" else None
    if sweep.state == SweepState.FAILED:
        raise NotNow(f"Sweep {sweep.short_id} has failed; more of the same would too.", hint=f"`sweep retry {sweep.short_id}` runs its failed trials again.")
    if sweep.state == SweepState.FINISHED:
        least = n_trials
    elif config.trials_max is None:
        raise NotNow(f"Sweep {sweep.short_id} sets no number of trials: it goes on until it is stopped.")
    else:
        least = config.trials_max
    if grid_size is not None and least >= grid_size:
        raise NotNow(f"Sweep {sweep.short_id} tries every cell of its grid, {grid_size} in all; there are no more.")
    if _is_over(config, age_s):
        raise NotNow(f"Sweep {sweep.short_id} has run for as long as its file allows (limits.time); it can have no more trials.")
    most = NUMBER_MAX if grid_size is None else grid_size
    if not least < trials_max <= most:
        raise InvalidValue(f"'trials_max' must be from {least + 1} to {most} here, not {trials_max}: sweep {sweep.short_id} has {least} already.")
    return _capped(config, trials_max)


@routes.post("/sweeps/{ref}/retry", Right.WRITE, answers=RetryAnswer, body=RetryBody)
def retry_trials(services: Use, ref: str, body: Body) -> RetryAnswer:
    """Run failed trials of a sweep again, with the same parameters and seed: each gets a new run; the one that failed stays on record.

    A sweep that has ended goes on: to what its file asks for if it failed, else until these trials have ended.
    """
    numbers = parse_body(body, RetryBody)["trials"]
    sweep = services.store.sweeps.get(ref)
    config = SweepConfig.from_builtins(sweep.config)
    n_trials = services.store.sweeps.counts(sweep.sweep_id).total
    wanted = retried(sweep, config, n_trials, services.store.sweeps.age_s(sweep.sweep_id))
    opened = services.store.sweeps.retry(sweep, wanted.to_builtins(), numbers)
    if opened:
        wake(services)
    return RetryAnswer(schema=SCHEMA, trials=list(opened), sweep=sweep_answer(services, services.store.sweeps.get(sweep.sweep_id)))


def retried(sweep: Sweep, config: SweepConfig, n_trials: int, age_s: float) -> SweepConfig:
    """The configuration of a sweep whose failed trials run again: it proposes nothing that a stop or the end of its time had ended.

    Args:
        n_trials: how many it has.
        age_s: how long ago it was submitted.
    """
    is_over = _is_over(config, age_s)
    if is_over:
        config = msgspec.structs.replace(config, limits=msgspec.structs.replace(config.limits, time_s=None))
    return _capped(config, n_trials) if is_over or (sweep.state == SweepState.FINISHED and sweep.cause == Cause.STOPPED) else config


def _is_over(config: SweepConfig, age_s: float) -> bool:
    return config.limits.time_s is not None and age_s >= config.limits.time_s


def _capped(config: SweepConfig, trials_max: int) -> SweepConfig:
    return msgspec.structs.replace(config, limits=msgspec.structs.replace(config.limits, trials=trials_max))
