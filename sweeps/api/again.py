"""More of a sweep that is there: extended by trials, or with the trials that ended without a result run again."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Final, TypeVar

import msgspec

from sweeps.api.rights import Right
from sweeps.api.routing import Body, Routes, Services, Use, parse_body, wake
from sweeps.api.shapes import SCHEMA, ExtendBody, RetryAnswer, RetryBody, SweepAnswer
from sweeps.api.sweeps import sweep_answer
from sweeps.bounds import NAME_MAX, NUMBER_MAX
from sweeps.spec_config import SweepConfig
from sweeps.wording import counted
from tracking.errors import Contradiction, InvalidValue, NotNow
from tracking.records import Sweep, SweepCounts
from tracking.states import Cause, SweepEvent, SweepState

routes = Routes("sweeps")

T = TypeVar("T")

_TRIES: Final = 8


@routes.post("/sweeps/{ref}/extend", Right.WRITE, answers=SweepAnswer, body=ExtendBody)
def extend_sweep(services: Use, ref: str, body: Body) -> SweepAnswer:
    """Let a sweep have `n_more` trials more than it was to have, or than it has where it has ended; one that has finished goes on.

    What was asked with one `request_id` is done once, however often it is sent.
    """
    asked = parse_body(body, ExtendBody)
    if not 1 <= len(asked["request_id"]) <= NAME_MAX:
        raise InvalidValue(f"'request_id' has 1 to {NAME_MAX} characters.")
    return _patiently(partial(_extend, services, ref, asked["n_more"], asked["request_id"]))


def _patiently(act: Callable[[], T]) -> T:
    """Think again when somebody else, or the scheduler, was faster."""
    for _ in range(_TRIES - 1):
        with suppress(Contradiction):
            return act()
    return act()


def _extend(services: Services, ref: str, n_more: int, request_id: str) -> SweepAnswer:
    sweep = services.store.sweeps.get(ref)
    config = SweepConfig.from_builtins(sweep.config)
    best = services.store.trials.best(sweep.sweep_id)
    counts = services.store.sweeps.counts(sweep.sweep_id)
    if not services.store.sweeps.was_revised(sweep, request_id):
        wanted = extended(sweep, config, counts, n_more, services.store.sweeps.age_s(sweep.sweep_id), best[0].value if best else None)
        note = f"Up to {counted(wanted.limits.trials or 0, 'trial')}" + ("." if config.trials_max is None else f" instead of {config.trials_max}.")
        sweep = services.store.sweeps.extend(sweep, wanted.to_builtins(), note, request_id=request_id)
        wake(services)
    return sweep_answer(services, sweep)


def extended(sweep: Sweep, config: SweepConfig, counts: SweepCounts, n_more: int, age_s: float, best: float | None) -> SweepConfig:
    """The configuration of a sweep that is to have more trials.

    Args:
        counts: what it has.
        age_s: for how long it has been going on.
        best: the best value so far.

    Raises:
        InvalidValue: so many more can't be.
        NotNow: it can have no more at all.
    """
    if n_more < 1:
        raise InvalidValue(f"A sweep can have 1 or more trials more, not {n_more}.")
    least = counts.total if sweep.state == SweepState.FINISHED else config.trials_max
    if least is None:
        raise NotNow(f"Sweep {sweep.short_id} sets no number of trials: it goes on until it is stopped.")
    if why := _why_no_more(sweep, config, counts, least, age_s, best):
        message, hint = why
        raise NotNow(message, hint=hint)
    grid_size = config.space.grid_size() if config.method == "grid" else None
    if grid_size is not None and least + n_more > grid_size:
        raise InvalidValue(f"The grid of sweep {sweep.short_id} has {counted(grid_size - least, 'cell')} more, not {n_more}.")
    if n_more > NUMBER_MAX - least:
        raise InvalidValue(f"A sweep can have 1 to {NUMBER_MAX - least} more trials here, not {n_more}.")
    return _capped(config, least + n_more)


def _why_no_more(sweep: Sweep, config: SweepConfig, counts: SweepCounts, least: int, age_s: float, best: float | None) -> tuple[str, str] | None:
    """Message and hint, if it can have no more trials however many are asked for."""
    again = f"`sweep retry {sweep.short_id}` runs its failed trials again."
    if sweep.state == SweepState.FAILED:
        return f"Sweep {sweep.short_id} has failed; more of the same would too.", again
    if config.metric is not None and config.metric.is_reached(best):
        return f"Sweep {sweep.short_id} has found what its file asks for (metric.target); it proposes nothing more.", "Submit it with another target."
    if _is_over(config, age_s):
        return f"Sweep {sweep.short_id} has run for as long as its file allows (limits.time).", "Submit it with more time."
    if config.method == "grid" and least == config.space.grid_size():
        can_retry = counts.cancelled and sweep.state != SweepState.CANCELLED
        hint = f"`sweep retry {sweep.short_id} --cancelled` runs those that were cancelled." if can_retry else ""
        return f"Sweep {sweep.short_id} has a trial for every cell of its grid, {least} in all.", hint
    return None


@routes.post("/sweeps/{ref}/retry", Right.WRITE, answers=RetryAnswer, body=RetryBody)
def retry_trials(services: Use, ref: str, body: Body) -> RetryAnswer:
    """Run failed or cancelled trials of a sweep again, with the same parameters and seed: each gets a new run, the old one stays on record.

    A sweep that has ended goes on: to what its file asks for if it failed, else until these trials have ended.
    """
    asked = parse_body(body, RetryBody)
    states = ["failed", "cancelled"] if asked["cancelled"] else ["failed"]
    opened = _patiently(partial(_retry, services, ref, asked["trials"], states))
    return RetryAnswer(schema=SCHEMA, trials=list(opened), sweep=sweep_answer(services, services.store.sweeps.get(ref)))


def _retry(services: Services, ref: str, numbers: Sequence[int] | None, states: Sequence[str]) -> Sequence[int]:
    sweep = services.store.sweeps.get(ref)
    for number in numbers or ():
        services.store.trials.get(sweep.sweep_id, number)
    config = SweepConfig.from_builtins(sweep.config)
    event = SweepEvent.REOPEN if is_used_up(sweep, config, services.store.sweeps.age_s(sweep.sweep_id)) else SweepEvent.RETRY
    opened = services.store.sweeps.retry(sweep, numbers, states=states, event=event)
    if opened:
        wake(services)
    return opened


def is_used_up(sweep: Sweep, config: SweepConfig, age_s: float) -> bool:
    """Whether a sweep that has ended may propose nothing more, as it was stopped or has used up its time; `age_s`: for how long it went on."""
    return _is_over(config, age_s) or (sweep.state == SweepState.FINISHED and sweep.cause == Cause.STOPPED)


def _is_over(config: SweepConfig, age_s: float) -> bool:
    return config.limits.time_s is not None and age_s >= config.limits.time_s


def _capped(config: SweepConfig, trials_max: int) -> SweepConfig:
    return msgspec.structs.replace(config, limits=msgspec.structs.replace(config.limits, trials=trials_max))
