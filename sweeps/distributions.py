"""The distributions of the search space: what each may yield.

One class a distribution. Each tells four things: its `axis` (where a sampler moves), the value `at` a position of that axis, how to
`draw` from a uniform number, and whether it `holds` a value; `column` lists its grid, and `flaw` tells what is wrong with its own numbers.
A new distribution is a class here, a line in `Parameter`, its words in `sweeps.spec_texts`, and nothing elsewhere, unless it brings keys of
its own (`sweeps.spec_parameters`): the strategies know axes only. The mathematics is W&B's (`params.py` of its package `sweeps`), value for
value at each quantile.
"""

import json
import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, Final, NamedTuple, overload

from msgspec import Struct

from sweeps.quantiles import BETA_MAX, BETA_MIN, beta_quantile, normal_quantile

MAX_EXACT: Final = 2**53
"""Integers beyond are not exact as floats, which samplers compute in."""

MAX_EXPONENT: Final = 700.0
"""e to the power of this is still a float; the same below zero."""

MAX_MAGNITUDE: Final = 1e300
"""Of the numbers of a normal distribution, whose ends lie eight times `sigma` beyond."""


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


class Flaw(NamedTuple):
    """What is wrong with a distribution's numbers: of which key, and how the sentence goes on after it."""

    key: str
    what: str


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

    def flaw(self) -> Flaw | None:
        """None: any value will do."""
        return None


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

    def flaw(self) -> Flaw | None:
        """It needs values."""
        return None if self.values else Flaw("values", "is empty")


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
        return min(max(_between(self.min, self.max, u), self.min), self.max)

    def holds(self, value: Any) -> bool:
        """Whether it is a number between the bounds."""
        return _is_number(value) and self.min <= value <= self.max

    def column(self) -> Sequence[Any] | None:
        """None: a grid can't walk it."""
        return None

    def flaw(self) -> Flaw | None:
        """Its bounds must be in order."""
        return _flaw_of_bounds(self.min, self.max)


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

    def flaw(self) -> Flaw | None:
        """Its bounds must be in order, and exact."""
        for key, bound in (("min", self.min), ("max", self.max)):
            if abs(bound) > MAX_EXACT:
                return Flaw(key, "is beyond 2^53, where floats skip numbers")
        return _flaw_of_bounds(self.min, self.max)


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
        return min(max(math.exp(_between(math.log(self.min), math.log(self.max), u)), self.min), self.max)

    def holds(self, value: Any) -> bool:
        """Whether it is a number between the bounds."""
        return _is_number(value) and self.min <= value <= self.max

    def column(self) -> Sequence[Any] | None:
        """None: a grid can't walk it."""
        return None

    def flaw(self) -> Flaw | None:
        """Its bounds must be in order, and above zero."""
        return _flaw_of_bounds(self.min, self.max) or _flaw_of_values(self.min)


class QUniform(Struct, frozen=True, tag_field="distribution", tag="q_uniform"):
    """A multiple of `q`: round(x / q) * q with x uniform between the bounds, as W&B's.

    As there, a bound that is no multiple of `q` may be rounded past itself, and an integer `q` gives integers. A grid walks all
    multiples that a draw may give (W&B's walks from `min` in steps of `q` and leaves `max` out).
    """

    name: str
    min: float
    max: float
    q: int | float = 1.0

    @property
    def axis(self) -> Axis:
        """How many times `q`."""
        return Integers(_factor(self.min, self.q), _factor(self.max, self.q))

    def at(self, position: float) -> Any:
        """So many times `q`."""
        return int(position) * self.q

    def draw(self, u: float) -> Any:
        """W&B's formula."""
        return _factor(min(max(_between(self.min, self.max, u), self.min), self.max), self.q) * self.q

    def holds(self, value: Any) -> bool:
        """Whether it is one of the multiples."""
        return _is_multiple(value, self.q, self.min, self.max)

    def column(self) -> Sequence[Any]:
        """Every multiple."""
        return _Multiples(range(_factor(self.min, self.q), _factor(self.max, self.q) + 1), self.q)

    def flaw(self) -> Flaw | None:
        """Its bounds must be in order, and exact as multiples."""
        return _flaw_of_bounds(self.min, self.max) or _flaw_of_step(self.q, max(abs(self.min), abs(self.max)))


class CategoricalWithProbabilities(Struct, frozen=True, tag_field="distribution", tag="categorical_w_probabilities"):
    """One of `values`, each with its own probability."""

    name: str
    values: tuple[Any, ...]
    probabilities: tuple[float, ...]

    @property
    def axis(self) -> Axis:
        """A uniform number, as W&B's: shares of it fall to the values."""
        return Reals(0.0, 1.0)

    def at(self, position: float) -> Any:
        """The value that the position falls on."""
        return self.draw(position)

    def draw(self, u: float) -> Any:
        """The first value below whose end `u` lies; the last possible one where the sum of rounded shares falls short."""
        end, last = 0.0, self.values[0]
        for value, probability in zip(self.values, self.probabilities, strict=True):
            end += probability
            last = value if probability > 0 else last
            if u < end:
                break
        return last

    def holds(self, value: Any) -> bool:
        """Whether it is one of the values that are possible at all."""
        key = exact_key(value)
        return any(probability > 0 and exact_key(own) == key for own, probability in zip(self.values, self.probabilities, strict=True))

    def column(self) -> Sequence[Any] | None:
        """None: a grid takes no probabilities (nor does W&B's)."""
        return None

    def flaw(self) -> Flaw | None:
        """It needs values, and as many probabilities, which make 1."""
        if not self.values:
            return Flaw("values", "is empty")
        if len(self.values) != len(self.probabilities):
            return Flaw("probabilities", f"holds {len(self.probabilities)} numbers for {len(self.values)} values")
        if any(probability < 0 for probability in self.probabilities):
            return Flaw("probabilities", "holds a number below zero")
        total = math.fsum(self.probabilities)
        # NumPy's isclose, which W&B asks.
        return None if abs(total - 1) <= 1e-5 + 1e-8 else Flaw("probabilities", f"makes {total:g} in all, not 1")


class _ByQuantile(Struct, frozen=True):
    """What Optuna has no distribution for: a sampler moves along a uniform number, and the value is its quantile."""

    name: str

    @abstractmethod
    def quantile(self, u: float) -> float:
        """The number below which a share `u` of all draws lies; `u` may be 0 and 1 too."""

    @property
    @abstractmethod
    def ends(self) -> tuple[float, float]:
        """What no value lies beyond, before it is rounded to a multiple."""

    @property
    def step(self) -> int | float | None:
        """What values are multiples of: the field `q`, for those that have it."""
        q: int | float | None = getattr(self, "q", None)
        return q

    @property
    def axis(self) -> Axis:
        """The uniform number."""
        return Reals(0.0, 1.0)

    def at(self, position: float) -> Any:
        """The quantile at that position."""
        return self.draw(position)

    def draw(self, u: float) -> Any:
        """The quantile, kept within the ends where it was rounded past them; an integer `q` gives integers."""
        low, high = self.ends
        value = min(max(self.quantile(u), low), high)
        return value if self.step is None else _factor(value, self.step) * self.step

    def holds(self, value: Any) -> bool:
        """Whether it is a number between the ends, or a multiple."""
        low, high = self.ends
        if self.step is not None:
            return _is_multiple(value, self.step, low, high)
        return _is_number(value) and math.isfinite(value) and low <= value <= high

    def column(self) -> Sequence[Any] | None:
        """None: a grid can't walk it."""
        return None


class _LogRange(_ByQuantile, frozen=True):
    """Powers of e with an exponent that is uniform."""

    min: float
    max: float

    @property
    def exponents(self) -> tuple[float, float]:
        """The least and the greatest exponent."""
        return self.min, self.max

    @property
    def ends(self) -> tuple[float, float]:
        """The least and the greatest power."""
        low, high = self.exponents
        return math.exp(low), math.exp(high)

    def quantile(self, u: float) -> float:
        """Linear in the exponent."""
        return math.exp(_between(*self.exponents, u))

    def flaw(self) -> Flaw | None:
        """Exponents in order, whose powers are floats."""
        for key, bound in (("min", self.min), ("max", self.max)):
            if abs(bound) > MAX_EXPONENT:
                return Flaw(key, f"is an exponent of e from -{MAX_EXPONENT:g} to {MAX_EXPONENT:g}, not {bound:g}")
        flaw = _flaw_of_bounds(self.min, self.max) or _flaw_of_step(self.step, self.ends[1])
        if flaw is None or flaw.key != "q" or self.step is None or self.step <= 0:
            return flaw
        # Values that were meant, given where exponents are asked for, reach farther than any `q`.
        tag = self.__struct_config__.tag
        return Flaw("max", f"is an exponent of e: up to {self.ends[1]:.3g}, too far for this 'q'; '{tag}_values' takes the values themselves")


class LogUniform(_LogRange, frozen=True, tag_field="distribution", tag="log_uniform"):
    """exp(uniform(min, max)): the bounds are exponents of e."""


class QLogUniform(_LogRange, frozen=True, tag_field="distribution", tag="q_log_uniform"):
    """round(exp(uniform(min, max)) / q) * q: the bounds are exponents of e."""

    q: int | float = 1.0


class InvLogUniform(_LogRange, frozen=True, tag_field="distribution", tag="inv_log_uniform"):
    """X such that log(1 / X) is uniform between `min` and `max`."""

    @property
    def exponents(self) -> tuple[float, float]:
        """The bounds with their signs turned."""
        return -self.max, -self.min


class _LogValues(_LogRange, frozen=True):
    """The same between bounds that are given as values."""

    @property
    def exponents(self) -> tuple[float, float]:
        """The logarithms of the bounds."""
        return math.log(self.min), math.log(self.max)

    @property
    def ends(self) -> tuple[float, float]:
        """The bounds."""
        return self.min, self.max

    def flaw(self) -> Flaw | None:
        """Bounds in order, and above zero."""
        return _flaw_of_bounds(self.min, self.max) or _flaw_of_values(self.min) or _flaw_of_step(self.step, self.max)


class QLogUniformValues(_LogValues, frozen=True, tag_field="distribution", tag="q_log_uniform_values"):
    """round(X / q) * q where the logarithm of X is uniform between those of `min` and `max`."""

    q: int | float = 1.0


class InvLogUniformValues(_LogValues, frozen=True, tag_field="distribution", tag="inv_log_uniform_values"):
    """X such that log(1 / X) is uniform between log(1 / max) and log(1 / min): what log_uniform_values yields, too."""


class _Bell(_ByQuantile, frozen=True):
    """What follows from a normal distribution; with a `sigma` of 0, its middle alone."""

    mu: float = 0.0
    sigma: float = 1.0

    @property
    def ends(self) -> tuple[float, float]:
        """None: the normal distribution has none."""
        return -math.inf, math.inf

    def quantile(self, u: float) -> float:
        """So many `sigma` from `mu`."""
        return self.mu + self.sigma * normal_quantile(u)

    def flaw(self) -> Flaw | None:
        """A width that is none below zero, and numbers that leave room."""
        if self.sigma < 0:
            return Flaw("sigma", f"is at least 0, not {self.sigma:g}")
        for key, number in (("mu", self.mu), ("sigma", self.sigma)):
            if abs(number) > MAX_MAGNITUDE:
                return Flaw(key, f"is beyond {MAX_MAGNITUDE:g}")
        return _flaw_of_step(self.step, abs(self.quantile(0.0)), abs(self.quantile(1.0)))


class Normal(_Bell, frozen=True, tag_field="distribution", tag="normal"):
    """A float around `mu`, normally distributed with the standard deviation `sigma`."""


class QNormal(_Bell, frozen=True, tag_field="distribution", tag="q_normal"):
    """round(X / q) * q where X is normal."""

    q: int | float = 1.0


class _LogBell(_Bell, frozen=True):
    """What follows from a number whose logarithm is normal."""

    @property
    def ends(self) -> tuple[float, float]:
        """What floats can hold of it."""
        return math.exp(-MAX_EXPONENT), math.exp(MAX_EXPONENT)

    def quantile(self, u: float) -> float:
        """A normal number, as an exponent of e."""
        return math.exp(min(max(super().quantile(u), -MAX_EXPONENT), MAX_EXPONENT))

    def flaw(self) -> Flaw | None:
        """As of the normal distribution, and a middle that is a float."""
        if abs(self.mu) > MAX_EXPONENT:
            return Flaw("mu", f"is an exponent of e from -{MAX_EXPONENT:g} to {MAX_EXPONENT:g}, not {self.mu:g}")
        # The tail is without end: its multiples stop where they are no longer exact.
        return Normal(self.name, self.mu, self.sigma).flaw() or _flaw_of_step(self.step, math.exp(self.mu))


class LogNormal(_LogBell, frozen=True, tag_field="distribution", tag="log_normal"):
    """A float whose natural logarithm is normal with the mean `mu` and the standard deviation `sigma`."""


class QLogNormal(_LogBell, frozen=True, tag_field="distribution", tag="q_log_normal"):
    """round(X / q) * q where the logarithm of X is normal."""

    q: int | float = 1.0


class _Beta(_ByQuantile, frozen=True):
    """What follows from a beta distribution."""

    a: float = 1.0
    b: float = 1.0

    @property
    def ends(self) -> tuple[float, float]:
        """0 and 1."""
        return 0.0, 1.0

    def quantile(self, u: float) -> float:
        """The beta distribution's own."""
        return beta_quantile(u, self.a, self.b)

    def flaw(self) -> Flaw | None:
        """Shapes that can be computed."""
        for key, shape in (("a", self.a), ("b", self.b)):
            if not BETA_MIN <= shape <= BETA_MAX:
                return Flaw(key, f"is from {BETA_MIN:g} to {BETA_MAX:.0f}, not {shape:g}")
        return _flaw_of_step(self.step, 1.0)


class Beta(_Beta, frozen=True, tag_field="distribution", tag="beta"):
    """A float between 0 and 1, by the beta distribution of the shapes `a` and `b`."""


class QBeta(_Beta, frozen=True, tag_field="distribution", tag="q_beta"):
    """round(X / q) * q where X follows a beta distribution."""

    q: int | float = 1.0


Parameter = (
    Constant
    | Categorical
    | CategoricalWithProbabilities
    | Uniform
    | IntUniform
    | QUniform
    | LogUniform
    | LogUniformValues
    | QLogUniform
    | QLogUniformValues
    | InvLogUniform
    | InvLogUniformValues
    | Normal
    | QNormal
    | LogNormal
    | QLogNormal
    | Beta
    | QBeta
)
"""One parameter of a sweep: its name and its distribution."""


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


def listed_values(parameter: Parameter) -> tuple[Any, ...]:
    """The values that a parameter lists; none for a distribution of numbers."""
    if isinstance(parameter, Constant):
        return (parameter.value,)
    return parameter.values if isinstance(parameter, Categorical | CategoricalWithProbabilities) else ()


def exact_key(value: Any) -> str:
    """What makes two values the same: 1, 1.0 and true differ, the order of a mapping's keys does not matter."""
    return json.dumps(value, sort_keys=True)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _between(low: float, high: float, u: float) -> float:
    """So far from `low` to `high`; computed so that bounds of opposite sign can't overflow."""
    return low * (1 - u) + high * u


def _factor(value: float, q: float) -> int:
    """How many times `q` a value is, rounded half to even as NumPy does it, and kept where floats are exact."""
    return round(min(max(value / q, -MAX_EXACT), MAX_EXACT))


def _is_multiple(value: Any, q: float, low: float, high: float) -> bool:
    """Whether a value is a multiple of `q` that a number between the ends may be rounded to."""
    if not _is_number(value) or not abs(value / q) <= MAX_EXACT:
        return False
    factor = _factor(value, q)
    return _factor(low, q) <= factor <= _factor(high, q) and bool(factor * q == value)


def _flaw_of_bounds(low: float, high: float) -> Flaw | None:
    return Flaw("max", "is below its 'min'") if low > high else None


def _flaw_of_values(low: float) -> Flaw | None:
    return Flaw("min", f"is above zero, not {low:g}: the bounds are the values themselves, not their exponents") if low <= 0 else None


def _flaw_of_step(q: float | None, *greatest: float) -> Flaw | None:
    if q is None:
        return None
    if q <= 0:
        return Flaw("q", f"is above zero, not {q:g}")
    return Flaw("q", "is too small: multiples beyond 2^53 are not exact") if max(greatest) / q > MAX_EXACT else None
