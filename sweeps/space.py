"""The search space: all parameters of a sweep together, and the grid over them.

Each parameter is a distribution (`sweeps.distributions`, whose names stand here too).
"""

import math
from collections.abc import Mapping, Sequence
from random import Random
from typing import Any

from sweeps.distributions import (
    Axis,
    Beta,
    Categorical,
    CategoricalWithProbabilities,
    Choices,
    Constant,
    Flaw,
    Integers,
    IntUniform,
    InvLogUniform,
    InvLogUniformValues,
    LogNormal,
    LogUniform,
    LogUniformValues,
    Normal,
    Parameter,
    QBeta,
    QLogNormal,
    QLogUniform,
    QLogUniformValues,
    QNormal,
    QUniform,
    Reals,
    Uniform,
    exact_key,
)

__all__ = [
    "Axis",
    "Beta",
    "Categorical",
    "CategoricalWithProbabilities",
    "Choices",
    "Constant",
    "Flaw",
    "IntUniform",
    "Integers",
    "InvLogUniform",
    "InvLogUniformValues",
    "LogNormal",
    "LogUniform",
    "LogUniformValues",
    "Normal",
    "Parameter",
    "QBeta",
    "QLogNormal",
    "QLogUniform",
    "QLogUniformValues",
    "QNormal",
    "QUniform",
    "Reals",
    "Space",
    "Uniform",
    "exact_key",
    "why_no_grid",
]


def why_no_grid(parameter: Parameter) -> str:
    """Why a grid can't walk a parameter, or nothing."""
    if parameter.column() is not None:
        return ""
    kind = str(parameter.__struct_config__.tag)
    if isinstance(parameter, CategoricalWithProbabilities):
        return "it has probabilities, and a grid tries every value once"
    return f"'{kind}' is continuous" if not kind.startswith("q_") else f"'{kind}' has no list of its values"


class Space:
    """The parameters of a sweep, in the order of its file.

    Attributes:
        parameters: as they stand in the config.
    """

    def __init__(self, parameters: Sequence[Parameter]) -> None:
        self.parameters = tuple(parameters)
        self._columns = [parameter.column() for parameter in self.parameters]

    def grid_size(self) -> int | None:
        """How many cells the grid has; None if a parameter is continuous."""
        sizes = [None if column is None else len(column) for column in self._columns]
        return None if None in sizes else math.prod(size for size in sizes if size is not None)

    def cell(self, index: int) -> dict[str, Any]:
        """The parameters of one cell of the grid: mixed radix, the last parameter changes fastest.

        Raises:
            IndexError: there is no such cell, or no grid.
        """
        size = self.grid_size()
        if size is None or not 0 <= index < size:
            raise IndexError(f"no cell {index} in a grid of {size}")
        values: list[Any] = []
        for column in reversed(self._columns):
            if column is not None:
                index, digit = divmod(index, len(column))
                values.append(column[digit])
        return dict(zip((parameter.name for parameter in self.parameters), reversed(values), strict=True))

    def draw(self, rng: Random) -> dict[str, Any]:
        """One point at random, each parameter by its own distribution."""
        return {parameter.name: parameter.draw(rng.random()) for parameter in self.parameters}

    def contains(self, params: Mapping[str, Any]) -> bool:
        """Whether this is a point of the space: the same names, and each value one its distribution may yield."""
        names = {parameter.name for parameter in self.parameters}
        return params.keys() == names and all(parameter.holds(params[parameter.name]) for parameter in self.parameters)
