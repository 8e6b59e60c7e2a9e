"""What a checked sweep file becomes: `SweepConfig`, frozen and canonical. It goes through JSON unchanged."""

import math
from typing import Any, Literal, Self

import msgspec
from msgspec import Struct

from sweeps.command import Command
from sweeps.distributions import Parameter
from sweeps.space import Space
from tracking.records import Collect, Environment, Launch, Resources, Retry

Method = Literal["grid", "random", "bayes"]


class Metric(Struct, frozen=True, omit_defaults=True, rename={"from_": "from"}):
    """The objective (D8).

    Attributes:
        target: the search has found enough once a trial is as good as this.
        impute: what the search makes of a trial that ended without an objective: worse than all others, or as good as its own latest or
            best value.
    """

    name: str
    goal: Literal["minimize", "maximize"] = "minimize"
    from_: Literal["last", "best"] = "last"
    target: float | None = None
    impute: Literal["worst", "latest", "best"] = "worst"

    def is_reached(self, value: float | None) -> bool:
        """Whether a trial with this value is as good as the target."""
        if value is None or self.target is None:
            return False
        return value >= self.target if self.goal == "maximize" else value <= self.target


class Limits(Struct, frozen=True, omit_defaults=True):
    """When a sweep or a trial has had enough. None: no limit.

    Attributes:
        trials: the number of trials, W&B's `run_cap` included.
        parallel: how many run at once.
        time_s: of the sweep.
        trial_time_s: of one attempt.
        failures: so many failed trials end the sweep.
    """

    trials: int | None = None
    parallel: int | None = None
    time_s: float | None = None
    trial_time_s: float | None = None
    failures: int | None = None


class Register(Struct, frozen=True, omit_defaults=True):
    """The model version that the best trial becomes when the sweep ends."""

    model: str
    artifact: str = "model"
    alias: str | None = None


class SweepConfig(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """A sweep, as its file and MLproject say, with every default resolved.

    Attributes:
        experiment: W&B's `project`.
        seed: None until the sweep is submitted, then always a number.
        environment: what the command runs in.
        code: the project folder, relative to the sweep file.
        compat: whose client our stand-in takes the place of.
    """

    name: str
    experiment: str
    method: Method
    parameters: tuple[Parameter, ...]
    command: Command
    description: str = ""
    metric: Metric | None = None
    seed: int | None = None
    limits: Limits = Limits()
    resources: Resources = Resources()
    environment: Environment = Environment()
    queue: str = "default"
    priority: int = 50
    collect: Collect = Collect()
    env: dict[str, str] = {}
    register: Register | None = None
    retry: Retry = Retry()
    tags: dict[str, str] = {}
    code: str = "."
    compat: Literal["wandb"] | None = None

    @property
    def space(self) -> Space:
        """The search space; made anew at each call, so keep it."""
        return Space(self.parameters)

    @property
    def trials_max(self) -> int | None:
        """How many trials there can be at most: the cap, and for a grid its size. None: it goes on until it is stopped."""
        bounds = [self.limits.trials, self.space.grid_size() if self.method == "grid" else None]
        least = min((bound for bound in bounds if bound is not None), default=math.inf)
        return None if least == math.inf else int(least)

    def launch(self, code_digest: str | None) -> Launch:
        """What workers are told of every run of this sweep."""
        return Launch(
            code_digest=code_digest,
            environment=self.environment,
            env=self.env,
            collect=self.collect,
            resources=self.resources,
            metric_keys=(self.metric.name,) if self.metric else (),
            trial_time_s=self.limits.trial_time_s,
            compat=self.compat,
            nested=self.command.nested,
        )

    def to_builtins(self) -> dict[str, Any]:
        """As JSON types, for the record."""
        return dict(msgspec.to_builtins(self))

    @classmethod
    def from_builtins(cls, value: dict[str, Any]) -> Self:
        """Back from the record.

        Raises:
            msgspec.ValidationError: it is no sweep's config.
        """
        return msgspec.convert(value, cls)
