"""Quantiles: the mathematics of W&B's distributions, value for value, and the functions beneath."""

import math
from itertools import pairwise
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sweeps.quantiles import BETA_MAX, BETA_MIN, U_MIN, beta_quantile, normal_quantile
from sweeps.spec import config_from_mapping

US: Final = (0.01, 0.19, 0.5, 0.77, 0.995)
# What `HyperParameter(...).ppf(u)` of W&B's package `sweeps` 0.3.0 says at each of them.
WANDB: Final[list[tuple[dict[str, Any], list[Any]]]] = [
    ({"values": ["a", "b", "c"], "probabilities": [0.2, 0.0, 0.8]}, ["a", "a", "c", "c", "c"]),
    ({"distribution": "uniform", "min": -2, "max": 3}, [-1.95, -1.05, 0.5, 1.85, 2.9749999999999996]),
    ({"min": 1, "max": 9}, [1, 2, 5, 7, 9]),
    ({"distribution": "q_uniform", "min": 0, "max": 10}, [0.0, 2.0, 5.0, 8.0, 10.0]),
    ({"distribution": "q_uniform", "min": 0, "max": 1, "q": 0.3}, [0.0, 0.3, 0.6, 0.8999999999999999, 0.8999999999999999]),
    ({"distribution": "q_uniform", "min": 0, "max": 10, "q": 2}, [0, 2, 4, 8, 10]),
    (
        {"distribution": "log_uniform", "min": -7, "max": 2},
        [0.000997757796484312, 0.005041760259690979, 0.0820849986238988, 0.9323938199059479, 7.063919023701211],
    ),
    (
        {"distribution": "log_uniform_values", "min": 1e-05, "max": 0.1},
        [1.0964781961431845e-05, 5.754399373371567e-05, 0.0010000000000000002, 0.012022644346174137, 0.09549925860214369],
    ),
    ({"distribution": "q_log_uniform", "min": 0, "max": 5, "q": 2}, [2, 2, 12, 46, 144]),
    ({"distribution": "q_log_uniform_values", "min": 1, "max": 256, "q": 8}, [0, 0, 16, 72, 248]),
    (
        {"distribution": "inv_log_uniform", "min": 1, "max": 4},
        [0.018873433135151493, 0.03238694077290704, 0.0820849986238988, 0.1845195239929893, 0.3624024298324903],
    ),
    (
        {"distribution": "inv_log_uniform_values", "min": 0.001, "max": 2},
        [0.0010789723114019273, 0.004238339085209165, 0.0447213595499958, 0.34817140229436694, 1.9254171937072029],
    ),
    ({"distribution": "normal", "mu": 3, "sigma": 2}, [-1.6526957480816815, 1.2442074098975424, 3.0, 4.477693698370428, 8.1516586070978]),
    ({"distribution": "q_normal", "mu": 3, "sigma": 20, "q": 5}, [-45, -15, 5, 20, 55]),
    (
        {"distribution": "log_normal", "mu": -1, "sigma": 0.5},
        [0.11495966663843464, 0.23717710284499016, 0.3678794411714424, 0.532284810182442, 1.3336434751617827],
    ),
    ({"distribution": "q_log_normal", "mu": 2, "sigma": 1}, [1.0, 3.0, 7.0, 15.0, 97.0]),
    ({"distribution": "beta", "a": 2, "b": 0.5}, [0.15874471294692816, 0.6167207942949706, 0.8793852415718169, 0.9761099130456252, 0.9999888888065833]),
    ({"distribution": "beta"}, [0.01, 0.19, 0.5, 0.77, 0.995]),
    ({"distribution": "q_beta", "a": 2, "b": 5, "q": 0.1}, [0.0, 0.1, 0.30000000000000004, 0.4, 0.7000000000000001]),
]
UNIT: Final = st.floats(0, 1)


@pytest.mark.parametrize(("distribution", "expected"), WANDB, ids=lambda value: value.get("distribution", "inferred") if isinstance(value, dict) else "")
def test_distribution_has_wandbs_quantiles(distribution: dict[str, Any], expected: list[Any]) -> None:
    """The same share of draws lies below the same value, of the same type."""
    (parameter,) = config_from_mapping({"program": "t.py", "method": "random", "parameters": {"x": distribution}}).parameters
    drawn = [parameter.draw(u) for u in US]
    assert [type(value) for value in drawn] == [type(value) for value in expected]
    assert drawn == (expected if isinstance(expected[0], str) else pytest.approx(expected, rel=1e-9))


@given(UNIT, UNIT, st.floats(BETA_MIN, 50), st.floats(BETA_MIN, 50))
def test_quantile_of_beta_rises_within_its_ends(u: float, v: float, a: float, b: float) -> None:
    """A greater share lies below a greater value; nothing lies beyond 0 and 1."""
    low, high = sorted((u, v))
    assert 0 <= beta_quantile(low, a, b) <= beta_quantile(high, a, b) * (1 + 1e-9) <= 1 + 1e-9


@given(st.floats(1e-6, 1 - 1e-6), st.floats(0.01, 100))
def test_quantile_of_beta_is_the_power_where_one_shape_is_one(u: float, shape: float) -> None:
    """The two cases that have a formula: x = u^(1/a), and its mirror image."""
    assert beta_quantile(u, shape, 1.0) == pytest.approx(u ** (1 / shape), rel=1e-9)
    assert beta_quantile(u, 1.0, shape) == pytest.approx(-math.expm1(math.log1p(-u) / shape), rel=1e-9)


@pytest.mark.parametrize(
    ("a", "b", "u", "expected"),
    [(2, 3, 0.25, 0.24302208375607628), (0.5, 0.5, 0.1, 0.024471741852423214), (100, 400, 0.5, 0.19959978778974935), (3.7, 0.1, 0.3, 0.9946727448779757)],
)
def test_quantile_of_beta_is_the_published_one(a: float, b: float, u: float, expected: float) -> None:
    """Against SciPy's."""
    assert beta_quantile(u, a, b) == pytest.approx(expected, rel=1e-10)


@settings(max_examples=30)
@given(st.sampled_from([BETA_MIN, 0.5, 1.0, BETA_MAX]), st.sampled_from([BETA_MIN, 0.5, 1.0, BETA_MAX]), st.sampled_from([0.0, U_MIN, 0.5, 1 - U_MIN, 1.0]))
def test_quantile_of_beta_ends_at_its_bounds(a: float, b: float, u: float) -> None:
    """The extremes of shapes and shares give numbers too."""
    assert 0 <= beta_quantile(u, a, b) <= 1


def test_quantile_of_normal_is_finite_at_the_ends() -> None:
    """0 and 1 lie eight standard deviations out, and everything between rises."""
    found = [normal_quantile(u) for u in (0.0, U_MIN, 0.1, 0.5, 0.9, 1.0)]
    assert all(low <= high for low, high in pairwise(found))
    assert [found[0], found[-1]] == pytest.approx([-8.2, 8.2], abs=0.1)
