"""Grid search: trial number n is cell n, so nothing can be proposed twice and nothing is kept."""

from collections.abc import Iterable, Mapping
from typing import Any

from sweeps.space import Space
from sweeps.strategies import Proposal
from tracking.records import Trial


class GridStrategy:
    """Walks the cells of a space in the order of the file, the last parameter fastest."""

    def __init__(self, space: Space) -> None:
        size = space.grid_size()
        if size is None:
            raise ValueError("a grid needs parameters that can be counted")
        self._space = space
        self._size = size

    def ask(self, number: int) -> Proposal | None:
        """Cell `number`, or None behind the last."""
        if number >= self._size:
            return None
        return Proposal(self._space.cell(number), {"cell": number})

    def tell(self, number: int, params: Mapping[str, Any], state: str, value: float | None, attrs: Mapping[str, Any]) -> None:
        """An outcome changes nothing: all cells are tried."""

    def replay(self, trials: Iterable[Trial]) -> None:
        """History changes nothing: the number says the cell."""
