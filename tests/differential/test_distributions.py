"""Parameters mean what they mean at W&B: the same kind, the same defaults, the same value at each quantile."""

import itertools
from collections.abc import Callable
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from sweeps.space import Categorical, CategoricalWithProbabilities, Constant, IntUniform, Parameter
from sweeps.spec import config_from_mapping
from sweeps.spec_parameters import DISTRIBUTIONS
from tests.differential.parameters import NUMBERS, SHARES, configs

Ask = Callable[..., dict[str, Any]]

KINDS: Final = {
    "param_single_value": "constant",
    "param_categorical": "categorical",
    "param_categorical_w_probabilities": "categorical_w_probabilities",
    "param_int_uniform": "int_uniform",
    "param_uniform": "uniform",
    "param_quniform": "q_uniform",
    "param_loguniform": "log_uniform",
    "param_loguniform_v2": "log_uniform_values",
    "param_qloguniform": "q_log_uniform",
    "param_qloguniform_v2": "q_log_uniform_values",
    "param_inv_loguniform": "inv_log_uniform",
    "param_inv_loguniform_v2": "inv_log_uniform_values",
    "param_normal": "normal",
    "param_qnormal": "q_normal",
    "param_lognormal": "log_normal",
    "param_qlognormal": "q_log_normal",
    "param_beta": "beta",
    "param_qbeta": "q_beta",
}
"""Every distribution, by the names of W&B's schema."""

EACH = settings(max_examples=30, derandomize=True, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much])


def read(config: dict[str, Any]) -> Parameter:
    """What our reader makes of a parameter."""
    (parameter,) = config_from_mapping({"program": "t.py", "method": "random", "parameters": {"x": config}}).parameters
    return parameter


def is_between(parameter: Parameter, share: float) -> bool:
    """Whether a share lies exactly between two values: there, W&B takes the lower one and we the upper one, or rounding decides."""
    if isinstance(parameter, CategoricalWithProbabilities):
        return any(abs(share - end) < 1e-12 for end in itertools.accumulate(parameter.probabilities))
    n = len(parameter.values) if isinstance(parameter, Categorical) else parameter.max - parameter.min + 1 if isinstance(parameter, IntUniform) else 0
    return n > 0 and abs(share * n - round(share * n)) < 1e-8


def test_distributions_are_all_compared() -> None:
    """None is left out of what is drawn here."""
    assert sorted(KINDS.values()) == sorted(NUMBERS) == sorted(DISTRIBUTIONS)


@pytest.mark.parametrize("kind", sorted(NUMBERS))
@EACH
@given(data=st.data())
def test_distribution_has_wandbs_quantiles(ask: Ask, kind: str, data: st.DataObject) -> None:
    """The same value and the same type at each share, random ones and the ends' among them."""
    config, shares = data.draw(configs(kind)), data.draw(SHARES)
    ours = read(config)
    shares = [share for share in shares if not is_between(ours, share)]
    theirs = ask("quantiles", config, shares)["answer"]
    values = [ours.draw(share) for share in shares]
    assert [type(value) for value in values] == [type(value) for value in theirs]
    if isinstance(ours, Constant | Categorical | CategoricalWithProbabilities | IntUniform):
        assert values == theirs
    elif not kind.startswith("q_"):
        # SciPy's and ours are two computations of the same function; where terms cancel out, the last bits of the terms remain.
        terms = [abs(number) for key, number in config.items() if key != "distribution"] if kind in {"uniform", "normal"} else [0.0]
        assert values == pytest.approx(theirs, rel=1e-9, abs=max(1e-12 * max(terms, default=1.0), 1e-300))
    else:
        q = config.pop("q", 1.0)
        unrounded = ask("quantiles", config | {"distribution": kind.removeprefix("q_")}, shares)["answer"]
        for value, expected, raw in zip(values, theirs, unrounded, strict=True):
            # Half way between two multiples, the last bit of those computations decides.
            is_half_way = abs(raw / q % 1 - 0.5) < 1e-6
            assert value == pytest.approx(expected, rel=1e-12, abs=q if is_half_way else 1e-12)


@pytest.mark.parametrize("kind", sorted(NUMBERS))
@EACH
@given(data=st.data(), is_named=st.booleans())
def test_distribution_is_inferred_as_wandb_infers_it(ask: Ask, kind: str, data: st.DataObject, is_named: bool) -> None:
    """With `distribution` or without it: the same kind, and the same numbers once defaults are filled in."""
    config = data.draw(configs(kind))
    if not is_named:
        config.pop("distribution")
        assume(config)
    found = ask("infer", config)["answer"]
    if found is None:
        with pytest.raises(Exception, match="error"):
            read(config)
        return
    theirs, filled = found
    ours = read(config)
    assert str(ours.__struct_config__.tag) == KINDS[theirs]
    for key, value in filled.items():
        if key != "distribution":
            own = getattr(ours, key)
            assert (list(own) if isinstance(own, tuple) else own) == value, key


@pytest.mark.parametrize(
    ("low", "high", "kind"),
    [(1, 10, "int_uniform"), (1, 10.0, "uniform"), (1.0, 10, "uniform"), (1.0, 10.0, "uniform"), (0, 1, "int_uniform"), (-5, -1, "int_uniform")],
)
def test_distribution_of_bounds_follows_from_how_they_are_written(ask: Ask, low: float, high: float, kind: str) -> None:
    """Two whole numbers make whole numbers, any other two floats."""
    config = {"min": low, "max": high}
    assert KINDS[ask("infer", config)["answer"][0]] == kind == str(read(config).__struct_config__.tag)
