"""What a sweep file comes to before anything is submitted: the space, the first commands, the cost at worst, who could run it now."""

import shlex
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import click

from sweeps.api.shapes import AskedResources, PlacementAnswer, PlacementBody
from sweeps.client import Client
from sweeps.wording import clean, counted, duration_text, listed
from tracking.settings import Settings

if TYPE_CHECKING:
    from sweeps.spec import Submission
    from sweeps.spec_config import SweepConfig
    from tracking.records import Retry

_SHOWN_COMMANDS: Final = 3
_SHOWN_VALUES: Final = 12


def plan_of(submission: "Submission") -> dict[str, Any]:
    """What was understood of a sweep file, for programs."""
    import msgspec

    from sweeps.notes import notes

    config = submission.config
    grid_size = config.space.grid_size() if config.method == "grid" else None
    return {
        "name": config.name,
        "method": config.method,
        "metric": config.metric.name if config.metric else None,
        "goal": config.metric.goal if config.metric else None,
        "trials": config.trials_max,
        "parallel": config.limits.parallel,
        "queue": config.queue,
        "attempts_max": 1 + (config.retry.n_max if _retried_ends(config.retry) else 0),
        "grid_size": grid_size,
        "budget": budget_of(config),
        "parameters": msgspec.to_builtins(config.parameters),
        "commands": [list(argv) for argv in _first_commands(submission)],
        "notes": notes(config),
        "config": config.to_builtins(),
    }


def _first_commands(submission: "Submission") -> list[tuple[str, ...]]:
    from random import Random

    from sweeps.command import build_argv

    config = submission.config
    space = config.space
    shown = _SHOWN_COMMANDS if config.trials_max is None else min(config.trials_max, _SHOWN_COMMANDS)
    if config.method == "grid":
        points = [space.cell(index) for index in range(shown)]
    else:
        # A sample of what may come, not what will: the search decides that.
        rng = Random(config.seed or 0)  # noqa: S311 - no secret
        points = [space.draw(rng) for _ in range(shown)]
    return [build_argv(config, params) for params in points]


def print_plan(submission: "Submission") -> None:
    """What was understood of a sweep file, for people."""
    plan = plan_of(submission)
    click.echo(f"{clean(plan['name'])}: {manner_text(plan)}")
    for parameter in plan["parameters"]:
        rest = ", ".join(f"{key} {_abbreviated(value)}" for key, value in parameter.items() if key not in ("name", "distribution"))
        click.echo(f"  {clean(str(parameter['name']))}: {parameter['distribution']} {clean(rest)}".rstrip())
    if plan["grid_size"] is not None:
        part = f", of which {plan['trials']} are run (limits.trials)" if plan["trials"] < plan["grid_size"] else ""
        click.echo(f"grid: {counted(plan['grid_size'], 'cell')}{part}")
    click.echo("first commands:" if plan["method"] == "grid" else "commands such as:")
    for argv in plan["commands"]:
        click.echo(f"  {clean(shlex.join(argv))}")
    if submission.config.retry.n_max:
        click.echo(_retry_text(submission.config.retry))
    click.echo(f"at worst: {_budget_text(submission.config, plan['budget'])}")


def budget_of(config: "SweepConfig") -> dict[str, Any]:
    """What a sweep may cost at worst, faults of the machinery apart; None is without bound.

    `wall_s` is from its first trial to the end of its last, with `limits.parallel` at a time, or one where that is not
    given; the others are sums over all attempts.
    """
    limits, trials = config.limits, config.trials_max
    attempts = 1 + (config.retry.n_max if _retried_ends(config.retry) else 0)
    each_s = None if limits.trial_time_s is None else limits.trial_time_s * attempts
    wall_s = _least(None if each_s is None or trials is None else each_s * -(-trials // (limits.parallel or 1)), limits.time_s)
    trial_s = _least(
        None if each_s is None or trials is None else each_s * trials,
        None if limits.time_s is None or limits.parallel is None else limits.time_s * limits.parallel,
    )
    return {
        "trials": trials,
        "attempts": attempts,
        "wall_s": wall_s,
        "trial_s": trial_s,
        "cpu_s": None if trial_s is None else trial_s * config.resources.cpus,
        "gpu_s": None if trial_s is None else trial_s * config.resources.gpus,
    }


def _least(*bounds: float | None) -> float | None:
    return min((bound for bound in bounds if bound is not None), default=None)


def _budget_text(config: "SweepConfig", budget: Mapping[str, Any]) -> str:
    """`12h00m with 1 at a time, 3 attempts each; 12h00m of trials, 24h00m of cpus`, or what has no bound."""
    limits = config.limits
    if budget["wall_s"] is None:
        lacking = "limits.trials or limits.time" if budget["trials"] is None else "limits.trial_time or limits.time"
        return f"no end; {lacking} would set one"
    if budget["wall_s"] == limits.time_s:
        wall = f"{duration_text(limits.time_s)} (limits.time)"
    else:
        attempts = f", {counted(budget['attempts'], 'attempt')} each" if budget["attempts"] > 1 else ""
        wall = f"{duration_text(budget['wall_s'])} with {limits.parallel or 1} at a time{attempts}"
    if budget["trial_s"] is None:
        return wall
    gpus = f", {duration_text(budget['gpu_s'])} of gpus" if budget["gpu_s"] else ""
    return f"{wall}; {duration_text(budget['trial_s'])} of trials, {duration_text(budget['cpu_s'])} of cpus{gpus}"


def _retried_ends(retry: "Retry") -> list[str]:
    """The failures of one's own code that are tried again; what the machinery does wrong is tried again in any case."""
    from tracking.states import MACHINERY_CAUSES

    return [end for end in retry.on if retry.n_max and end not in MACHINERY_CAUSES]


def _retry_text(retry: "Retry") -> str:
    """`retry: up to 2 more attempts after exit_status, exit_75; waits 1s, doubling up to 1m00s`."""
    ends = _retried_ends(retry)
    if not ends:
        return "retry: no failure of your code; 'on' names faults of the machinery only, which have a budget of their own"
    waits = f"waits {duration_text(retry.delay_s)}, doubling up to {duration_text(retry.delay_max_s)}"
    own = "; faults of the machinery have a budget of their own" if len(ends) < len(retry.on) else ""
    return f"retry: up to {counted(retry.n_max, 'more attempt')} after {', '.join(ends)}; {waits}{own}"


def _abbreviated(value: Any) -> str:
    """A value; of a long list, the first ones and how many there are."""
    if not isinstance(value, list | tuple):
        return str(value)
    if len(value) <= _SHOWN_VALUES:
        return f"[{', '.join(map(repr, value))}]"
    return f"[{', '.join(map(repr, value[: _SHOWN_VALUES - 2]))}, ..., {value[-1]!r}] ({len(value)} values)"


def manner_text(plan: Mapping[str, Any]) -> str:
    """`bayes, minimize rmse, 60 trials, 8 at a time, queue cpu`."""
    parts = [
        str(plan["method"]),
        f"{plan['goal']} {clean(str(plan['metric']))}" if plan["metric"] else "",
        counted(plan["trials"], "trial") if plan["trials"] is not None else "until stopped",
        f"{plan['parallel']} at a time" if plan["parallel"] else "",
        f"queue {clean(str(plan['queue']))}",
    ]
    return ", ".join(part for part in parts if part)


def placement_of(config: "SweepConfig", settings: Settings) -> PlacementAnswer | None:
    """What the server says of it; None where there is none yet."""
    from sweeps.local import cluster_status

    status = None if settings.server else cluster_status(settings)
    if status is not None and not status.is_running:
        return None
    asked = config.resources
    resources = AskedResources(cpus=asked.cpus, memory_bytes=asked.memory_bytes, gpus=asked.gpus, image=asked.image)
    at_once = [count for count in (config.limits.parallel, config.trials_max) if count is not None]
    with Client(settings.server or (status.url if status else ""), settings.token) as client:
        return client.placement(PlacementBody(queue=config.queue, resources=resources, parallel=min(at_once, default=None)))


def placement_lines(placement: PlacementAnswer | None) -> list[str]:
    """`placement: 2 workers could run this now, 5 trials at once: w1 (3), w2 (2)`, or why none could."""
    if placement is None:
        return ["placement: no cluster runs on this machine; the first command starts it, and `sweep up` does"]
    workers, reasons = placement["workers"], [f"  {clean(reason)}" for reason in placement["reasons"]]
    if not workers:
        return ["placement: no worker could run this now", *reasons]
    names = listed([f"{clean(worker['name'])} ({worker['trials']})" for worker in workers])
    return [f"placement: {counted(len(workers), 'worker')} could run this now, {counted(placement['trials'], 'trial')} at once: {names}", *reasons]
