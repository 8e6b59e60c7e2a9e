"""Random search: each trial's point follows from the sweep's seed and the trial's number alone."""

from collections.abc import Iterable, Mapping
from random import Random
from typing import Any

from sweeps.space import Space
from sweeps.strategies import Proposal, derive_seed
from tracking.records import Trial


class RandomStrategy:
    """Draws independent points; it may draw the same one twice, as W&B's does."""

    def __init__(self, space: Space, seed: int) -> None:
        self._space = space
        self._seed = seed

    def ask(self, number: int) -> Proposal:
        """The point of that number."""
        rng = Random(derive_seed(self._seed, number, "search"))  # noqa: S311 -- a search, not a secret
        return Proposal(self._space.draw(rng))

    def tell(self, number: int, params: Mapping[str, Any], state: str, value: float | None, attrs: Mapping[str, Any]) -> None:
        """An outcome changes nothing."""

    def replay(self, trials: Iterable[Trial]) -> None:
        """History changes nothing."""
