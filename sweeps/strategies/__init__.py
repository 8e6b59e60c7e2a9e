"""What proposes the next trial. A strategy decides; the scheduler records (D2).

Grid and random need no memory: a proposal follows from the trial's number. Bayes keeps an Optuna study in memory, a view of the trials'
rows; Optuna itself is imported with it only.
"""

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from msgspec import Struct

from sweeps.spec_config import SweepConfig
from tracking.records import Trial


class Proposal(Struct, frozen=True):
    """A point to try.

    Attributes:
        params: what the trial is run with.
        attrs: the strategy's own JSON, kept on the trial's row and given back by `replay`.
    """

    params: dict[str, Any]
    attrs: dict[str, Any] = {}


class Strategy(Protocol):
    """One sweep's search. Numbers are asked for in order, from the first that `replay` has not seen; several may be open at once."""

    def ask(self, number: int) -> Proposal | None:
        """What trial `number` tries, or None when there is nothing left to try."""
        ...

    def tell(self, number: int, params: Mapping[str, Any], state: str, value: float | None, attrs: Mapping[str, Any]) -> None:
        """How trial `number` ended: a final `TrialState` and its objective, or what counts as one (`Trial.told`)."""
        ...

    def replay(self, trials: Iterable[Trial]) -> None:
        """Take in all trials of a sweep that already runs, before the first `ask`. Afterwards it proposes what it would have proposed then."""
        ...


def make_strategy(config: SweepConfig) -> Strategy:
    """The strategy of a sweep, as if nothing had been proposed yet."""
    strategy = _searching(config)
    if config.metric is None or config.metric.target is None:
        return strategy
    from sweeps.strategies.until_target import UntilTarget  # noqa: PLC0415 -- as below

    return UntilTarget(strategy, config.metric)


def _searching(config: SweepConfig) -> Strategy:
    if config.method == "grid":
        from sweeps.strategies.grid import GridStrategy  # noqa: PLC0415 -- each sweep loads its own strategy only

        return GridStrategy(config.space)
    if config.method == "random":
        from sweeps.strategies.random_draw import RandomStrategy  # noqa: PLC0415 -- as above

        return RandomStrategy(config.space, config.seed or 0)
    from sweeps.strategies.optuna_adapter import TpeStrategy  # noqa: PLC0415 -- half a second that only bayes owes

    return TpeStrategy(config.space, config.seed or 0, goal=config.metric.goal if config.metric else "minimize")


def derive_seed(sweep_seed: int, number: int, purpose: str) -> int:
    """A seed of 32 bits that follows from the sweep's seed, the trial's number and what it is for, and from nothing else.

    The strategies use the purpose `search`; `trial` is the seed that the trial itself is given.
    """
    return int.from_bytes(hashlib.sha256(f"{sweep_seed}/{number}/{purpose}".encode()).digest()[:4], "big")
