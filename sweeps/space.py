"""The search space: what each distribution may yield, and the grid over it.

One class a distribution. Each tells four things: its `axis` (where a sampler moves), the value `at` a position of that axis, how to
`draw` from a uniform number, and whether it `holds` a value; `column` lists its grid. A new distribution is a class here, a line in
`Parameter`, and nothing elsewhere: the strategies know axes only.
"""

import json
import math
from collections.abc import Mapping, Sequence
from random import Random
from typing import Any, Final, NamedTuple, overload

from msgspec import Struct

MAX_EXACT: Final = 2**53
"""Integers beyond are not exact as floats, which samplers compute in."""


class Choices(NamedTuple):
    """An axis without order: positions 0 to n - 1."""

    n: int


class Integers(NamedTuple):
    """An axis of whole numbers, both ends included."""

    low: int
    high: int


class Reals(NamedTuple):
    """A continuous axis, both ends included; `log` when ratios matter and not differences."""

    low: float
    high: float
    log: bool = False


Axis = Choices | Integers | Reals


class Constant(Struct, frozen=True, tag_field="distribution", tag="constant"):
    """Always `value`."""

    name: str
    value: Any

    @property
    def axis(self) -> Axis | None:
        """None: there is nothing to move along."""
        return None

    def at(self, _position: float) -> Any:
        """The value, wherever."""
        return self.value

    def draw(self, _u: float) -> Any:
        """The value."""
        return self.value

    def holds(self, value: Any) -> bool:
        """Whether it is this very value."""
        return exact_key(value) == exact_key(self.value)

    def column(self) -> Sequence[Any]:
        """The value alone."""
        return (self.value,)


class Categorical(Struct, frozen=True, tag_field="distribution", tag="categorical"):
    """One of `values`, each as likely as it stands there often."""

    name: str
    values: tuple[Any, ...]

    @property
    def axis(self) -> Axis:
        """The index of the value."""
        return Choices(len(self.values))

    def at(self, position: float) -> Any:
        """The value of that index."""
        return self.values[int(position)]

    def draw(self, u: float) -> Any:
        """The value a `u` in [0, 1) falls on."""
        return self.values[int(u * len(self.values))]

    def holds(self, value: Any) -> bool:
        """Whether it is one of the values, its type included."""
        key = exact_key(value)
        return any(exact_key(own) == key for own in self.values)

    def column(self) -> Sequence[Any]:
        """Each distinct value once, in order (W&B's grid drops doubles too)."""
        distinct: dict[str, Any] = {}
        for value in self.values:
            distinct.setdefault(exact_key(value), value)
        return tuple(distinct.values())


class Uniform(Struct, frozen=True, tag_field="distribution", tag="uniform"):
    """A float between `min` and `max`."""

    name: str
    min: float
    max: float

    @property
    def axis(self) -> Axis:
        """The value itself."""
        return Reals(self.min, self.max)

    def at(self, position: float) -> Any:
        """The position itself."""
        return float(position)

    def draw(self, u: float) -> Any:
        """Linear in `u`; computed so that bounds of opposite sign can't overflow."""
        return min(max(self.min * (1 - u) + self.max * u, self.min), self.max)

    def holds(self, value: Any) -> bool:
        """Whether it is a number between the bounds."""
        return _is_number(value) and self.min <= value <= self.max

    def column(self) -> Sequence[Any] | None:
        """None: a grid can't walk it."""
        return None


class IntUniform(Struct, frozen=True, tag_field="distribution", tag="int_uniform"):
    """A whole number from `min` to `max`, both included."""

    name: str
    min: int
    max: int

    @property
    def axis(self) -> Axis:
        """The value itself."""
        return Integers(self.min, self.max)

    def at(self, position: float) -> Any:
        """The position itself."""
        return int(position)

    def draw(self, u: float) -> Any:
        """The number a `u` in [0, 1) falls on."""
        return min(self.min + int(u * (self.max - self.min + 1)), self.max)

    def holds(self, value: Any) -> bool:
        """Whether it is a whole number between the bounds."""
        return isinstance(value, int) and not isinstance(value, bool) and self.min <= value <= self.max

    def column(self) -> Sequence[Any]:
        """Every number."""
        return range(self.min, self.max + 1)


class LogUniformValues(Struct, frozen=True, tag_field="distribution", tag="log_uniform_values"):
    """A float between `min` and `max` whose logarithm is uniform: exp(uniform(log min, log max)), as W&B's."""

    name: str
    min: float
    max: float

    @property
    def axis(self) -> Axis:
        """The value itself, on a log scale."""
        return Reals(self.min, self.max, log=True)

    def at(self, position: float) -> Any:
        """The position itself."""
        return float(position)

    def draw(self, u: float) -> Any:
        """Linear in the logarithm; the bounds survive rounding."""
        return min(max(math.exp(math.log(self.min) * (1 - u) + math.log(self.max) * u), self.min), self.max)

    def holds(self, value: Any) -> bool:
        """Whether it is a number between the bounds."""
        return _is_number(value) and self.min <= value <= self.max

    def column(self) -> Sequence[Any] | None:
        """None: a grid can't walk it."""
        return None


class QUniform(Struct, frozen=True, tag_field="distribution", tag="q_uniform"):
    """A multiple of `q`: round(x / q) * q with x uniform between the bounds, as W&B's.

    As there, a bound that is no multiple of `q` may be rounded past itself, and an integer `q` gives integers. A grid walks all
    multiples that a draw may give (W&B's walks from `min` in steps of `q` and leaves `max` out).
    """

    name: str
    min: float
    max: float
    q: int | float = 1

    @property
    def axis(self) -> Axis:
        """How many times `q`."""
        return Integers(round(self.min / self.q), round(self.max / self.q))

    def at(self, position: float) -> Any:
        """So many times `q`."""
        return int(position) * self.q

    def draw(self, u: float) -> Any:
        """W&B's formula."""
        return round(min(max(self.min * (1 - u) + self.max * u, self.min), self.max) / self.q) * self.q

    def holds(self, value: Any) -> bool:
        """Whether it is one of the multiples."""
        low, high = round(self.min / self.q), round(self.max / self.q)
        if not _is_number(value) or not abs(value / self.q) <= MAX_EXACT:
            return False
        factor = round(value / self.q)
        return low <= factor <= high and bool(self.at(factor) == value)

    def column(self) -> Sequence[Any]:
        """Every multiple."""
        return _Multiples(range(round(self.min / self.q), round(self.max / self.q) + 1), self.q)


Parameter = Constant | Categorical | Uniform | IntUniform | LogUniformValues | QUniform
"""One parameter of a sweep: its name and its distribution."""


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


class _Multiples(Sequence[Any]):
    """`k * q` for each k of a range, without a list of them."""

    def __init__(self, factors: range, q: float) -> None:
        self._factors = factors
        self._q = q

    def __len__(self) -> int:
        return len(self._factors)

    @overload
    def __getitem__(self, index: int) -> Any: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Any]: ...
    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return _Multiples(self._factors[index], self._q)
        return self._factors[index] * self._q


def exact_key(value: Any) -> str:
    """What makes two values the same: 1, 1.0 and true differ, the order of a mapping's keys does not matter."""
    return json.dumps(value, sort_keys=True)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
