"""Parameters drawn at random: each distribution's keys, with numbers that W&B takes."""

import math
from typing import Any, Final

from hypothesis import strategies as st

PLAIN = st.none() | st.booleans() | st.integers(-5, 5) | st.sampled_from([0.5, 1e-05, 2.5e20]) | st.text(st.characters(codec="utf-8", exclude_characters="\0"))
VALUES = st.recursive(PLAIN, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", min_size=1), inner, max_size=3), max_leaves=5)
SHARES: Final = st.lists(st.floats(1e-9, 1 - 1e-9), max_size=6).map(lambda more: [1e-9, 0.001, 0.25, 1 / 3, 0.5, 0.9, 0.999, 1 - 1e-9, *more])
STEPS: Final = st.sampled_from([1, 2, 7, 0.1, 0.25, 1.0, 3.5, 1e-3])


def bounds(low: float, high: float) -> st.SearchStrategy[dict[str, Any]]:
    """`min` and `max`, whole numbers among them, in order and far enough apart for W&B."""
    numbers = st.floats(low, high) | st.integers(math.ceil(low), math.floor(high))
    pairs = st.tuples(numbers, numbers).map(sorted).filter(lambda pair: pair[1] - pair[0] > 1e-9 * max(1.0, abs(pair[0]), abs(pair[1])))
    return pairs.map(lambda pair: {"min": pair[0], "max": pair[1]})


def with_optional(**keys: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Keys that may be left out."""
    return st.fixed_dictionaries({}, optional=keys)


MU: Final = st.floats(-20, 20) | st.integers(-20, 20)
SIGMA: Final = st.floats(0.01, 3) | st.integers(1, 3)
SHAPE: Final = st.floats(0.01, 100) | st.integers(1, 100)
WEIGHED: Final = st.lists(st.tuples(VALUES, st.integers(0, 9)), min_size=1, max_size=6).filter(lambda pairs: any(weight for _, weight in pairs))

NUMBERS: Final[dict[str, st.SearchStrategy[dict[str, Any]]]] = {
    "constant": st.fixed_dictionaries({"value": VALUES}),
    "categorical": st.fixed_dictionaries({"values": st.lists(VALUES, min_size=1, max_size=8)}),
    "categorical_w_probabilities": WEIGHED.map(
        lambda pairs: {"values": [value for value, _ in pairs], "probabilities": [weight / sum(each for _, each in pairs) for _, weight in pairs]}
    ),
    "int_uniform": st.tuples(st.integers(-(10**6), 10**6), st.integers(1, 10**6)).map(lambda pair: {"min": pair[0], "max": pair[0] + pair[1]}),
    "uniform": bounds(-1e6, 1e6) | bounds(-1, 1),
    "q_uniform": bounds(-1e4, 1e4),
    "log_uniform": bounds(-30, 30),
    "inv_log_uniform": bounds(-30, 30),
    "q_log_uniform": bounds(-5, 15),
    "log_uniform_values": bounds(1e-9, 1e9) | bounds(1e-9, 1),
    "inv_log_uniform_values": bounds(1e-9, 1e9) | bounds(1e-9, 1),
    "q_log_uniform_values": bounds(0.01, 1e6),
    "normal": with_optional(mu=MU, sigma=SIGMA),
    "q_normal": with_optional(mu=MU, sigma=SIGMA),
    "log_normal": with_optional(mu=MU, sigma=SIGMA),
    "q_log_normal": with_optional(mu=st.floats(-2, 8), sigma=SIGMA),
    "beta": with_optional(a=SHAPE, b=SHAPE),
    "q_beta": with_optional(a=SHAPE, b=SHAPE),
}
"""What stands beside `distribution`, for each."""


def configs(kind: str) -> st.SearchStrategy[dict[str, Any]]:
    """Parameters of one distribution; `q` is given more often than not."""
    whole = NUMBERS[kind].map(lambda numbers: {"distribution": kind, **numbers})
    steps = (st.none() | STEPS | STEPS) if kind.startswith("q_") else st.none()
    return st.builds(lambda config, q: config if q is None else {**config, "q": q}, whole, steps)
