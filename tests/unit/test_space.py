"""The search space: no distribution yields what it does not hold, and a grid yields each cell once."""

import json
import math
from collections.abc import Callable
from random import Random
from typing import TypeVar, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweeps.space import (
    Beta,
    Categorical,
    CategoricalWithProbabilities,
    Choices,
    Constant,
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
    Space,
    Uniform,
)

PLAIN = st.none() | st.booleans() | st.integers(-5, 5) | st.sampled_from([0.5, 1.0, 1e-5]) | st.text(max_size=3)
VALUES = st.recursive(PLAIN, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=2), inner, max_size=2), max_leaves=4)
FLOATS = st.floats(-1e150, 1e150)


Number = TypeVar("Number", int, float)


def _ordered(bounds: tuple[Number, Number]) -> tuple[Number, Number]:
    return min(bounds), max(bounds)


DISCRETE: dict[str, Callable[[str], st.SearchStrategy[Parameter]]] = {
    "constant": lambda name: st.builds(Constant, st.just(name), VALUES),
    "categorical": lambda name: st.builds(Categorical, st.just(name), st.lists(VALUES, min_size=1, max_size=4).map(tuple)),
    "int_uniform": lambda name: st.tuples(st.integers(-9, 9), st.integers(-9, 9)).map(_ordered).map(lambda b: IntUniform(name, *b)),
    "q_uniform": lambda name: st.tuples(
        st.tuples(st.floats(-5, 5), st.floats(-5, 5)).map(_ordered), st.sampled_from([1, 2, 0.25, 0.1, 3.0])
    ).map(lambda b: QUniform(name, *b[0], b[1])),
}  # fmt: skip
CONTINUOUS: dict[str, Callable[[str], st.SearchStrategy[Parameter]]] = {
    "uniform": lambda name: st.tuples(FLOATS, FLOATS).map(_ordered).map(lambda b: Uniform(name, *b)),
    "log_uniform_values": lambda name: st.tuples(st.floats(1e-300, 1e300), st.floats(1e-300, 1e300)).map(_ordered).map(lambda b: LogUniformValues(name, *b)),
}


def _numbers(low: float, high: float) -> st.SearchStrategy[tuple[float, float]]:
    return st.tuples(st.floats(low, high), st.floats(low, high)).map(_ordered)


STEPS = st.sampled_from([1, 3, 0.25, 0.1, 1.0, 7.5])
SIGMAS = st.floats(0, 1e3)
SHAPES = st.floats(0.001, 1e3)
CONTINUOUS |= {
    "log_uniform": lambda name: _numbers(-700, 700).map(lambda b: LogUniform(name, *b)),
    "inv_log_uniform": lambda name: _numbers(-700, 700).map(lambda b: InvLogUniform(name, *b)),
    "inv_log_uniform_values": lambda name: _numbers(1e-300, 1e300).map(lambda b: InvLogUniformValues(name, *b)),
    "q_log_uniform": lambda name: st.tuples(_numbers(-700, 30), STEPS).map(lambda b: QLogUniform(name, *b[0], b[1])),
    "q_log_uniform_values": lambda name: st.tuples(_numbers(1e-300, 1e12), STEPS).map(lambda b: QLogUniformValues(name, *b[0], b[1])),
    "normal": lambda name: st.builds(Normal, st.just(name), FLOATS, SIGMAS),
    "q_normal": lambda name: st.builds(QNormal, st.just(name), st.floats(-1e9, 1e9), SIGMAS, STEPS),
    "log_normal": lambda name: st.builds(LogNormal, st.just(name), st.floats(-700, 700), SIGMAS),
    "q_log_normal": lambda name: st.builds(QLogNormal, st.just(name), st.floats(-700, 30), SIGMAS, STEPS),
    "beta": lambda name: st.builds(Beta, st.just(name), SHAPES, SHAPES),
    "q_beta": lambda name: st.builds(QBeta, st.just(name), SHAPES, SHAPES, STEPS),
    "categorical_w_probabilities": lambda name: (
        st.lists(st.tuples(VALUES, st.floats(0, 1)), min_size=1, max_size=4)
        .filter(lambda pairs: sum(weight for _, weight in pairs) > 1e-9)
        .map(lambda pairs: CategoricalWithProbabilities(name, tuple(v for v, _ in pairs), tuple(w / sum(w for _, w in pairs) for _, w in pairs)))
    ),
}


def test_space_properties_cover_every_distribution() -> None:
    """No distribution is left out of what is drawn here."""
    kinds = {str(kind.__struct_config__.tag) for kind in get_args(Parameter)}
    assert (DISCRETE | CONTINUOUS).keys() == kinds


@given(st.deferred(lambda: spaces(DISCRETE | CONTINUOUS)))
def test_space_of_sound_numbers_has_no_flaw(space: Space) -> None:
    """What these properties draw from is what the file's reader and the server let in."""
    assert [parameter.flaw() for parameter in space.parameters] == [None] * len(space.parameters)


def test_space_never_draws_what_has_no_probability() -> None:
    """Not even where the shares fall short of 1 by rounding; the likely value comes up as often as it should."""
    parameter = CategoricalWithProbabilities("a", (1, 2, 3), (0.3, 0.7 - 1e-6, 0.0))
    assert [parameter.draw(u) for u in (0.0, 0.29, 0.3, 1 - 2**-53, 1.0)] == [1, 1, 2, 2, 2]
    assert not parameter.holds(3)


def spaces(makers: dict[str, Callable[[str], st.SearchStrategy[Parameter]]], max_size: int = 4) -> st.SearchStrategy[Space]:
    """Spaces of a few parameters of these kinds."""
    kinds = st.lists(st.sampled_from(sorted(makers)), max_size=max_size)
    return kinds.flatmap(lambda found: st.tuples(*(makers[kind](f"p{place}") for place, kind in enumerate(found)))).map(Space)


@given(spaces(DISCRETE | CONTINUOUS), st.integers(0, 2**32))
def test_space_draw_stays_inside(space: Space, seed: int) -> None:
    """Whatever is drawn is a point of the space, also after the record's JSON."""
    params = space.draw(Random(seed))  # noqa: S311 -- points, not secrets
    assert space.contains(params)
    assert space.contains(json.loads(json.dumps(params)))


@pytest.mark.parametrize("u", [0.0, 1 - 2**-53])
@given(spaces(DISCRETE | CONTINUOUS))
def test_space_draw_stays_inside_at_the_ends(u: float, space: Space) -> None:
    """Rounding does not push the first or the last draw over a bound."""
    assert all(parameter.holds(parameter.draw(u)) for parameter in space.parameters)


@given(spaces(DISCRETE | CONTINUOUS))
def test_space_ends_of_each_axis_are_inside(space: Space) -> None:
    """A sampler that moves along an axis, ends included, yields points of the space."""
    for parameter in space.parameters:
        axis = parameter.axis
        ends = (0, axis.n - 1) if isinstance(axis, Choices) else (axis.low, axis.high) if axis is not None else (0,)
        assert all(parameter.holds(parameter.at(end)) for end in ends)


@given(spaces(DISCRETE, max_size=3))
def test_space_grid_yields_each_cell_once(space: Space) -> None:
    """As many cells as the size says, all different, all inside."""
    size = space.grid_size()
    assert size is not None
    cells = [space.cell(index) for index in range(size)]
    assert len({json.dumps(cell, sort_keys=True) for cell in cells}) == size
    assert all(space.contains(cell) for cell in cells)


@given(spaces(DISCRETE))
def test_space_grid_ends_behind_its_last_cell(space: Space) -> None:
    """There is no cell before the first or behind the last."""
    for index in (-1, space.grid_size() or 0):
        with pytest.raises(IndexError):
            space.cell(index)


def test_space_grid_runs_in_the_order_of_the_file() -> None:
    """Mixed radix: the last parameter changes fastest, values keep their types."""
    space = Space([Categorical("a", ("x", 1.0)), Constant("c", None), IntUniform("b", 1, 3)])
    cells = [space.cell(index) for index in range(6)]
    assert cells == [{"a": a, "c": None, "b": b} for a in ("x", 1.0) for b in (1, 2, 3)]
    assert [list(cell) for cell in cells] == [["a", "c", "b"]] * 6
    assert [type(cell["a"]) for cell in cells] == [str] * 3 + [float] * 3


def test_space_grid_drops_doubles_and_keeps_types_apart() -> None:
    """A value that stands twice is one cell; 1, 1.0 and true are three."""
    space = Space([Categorical("a", (1, 2, 1, 1.0, True))])
    assert [repr(space.cell(index)["a"]) for index in range(space.grid_size() or 0)] == ["1", "2", "1.0", "True"]


def test_space_grid_of_large_ranges_is_not_listed() -> None:
    """A grid of 10^30 cells costs nothing to hold."""
    space = Space([IntUniform("a", 1, 10**15), IntUniform("b", 1, 10**15)])
    assert space.grid_size() == 10**30
    assert space.cell(10**30 - 1) == {"a": 10**15, "b": 10**15}


def test_space_with_a_continuous_parameter_has_no_grid() -> None:
    """A float range can't be counted."""
    space = Space([IntUniform("a", 1, 2), Uniform("b", 0.0, 1.0)])
    assert space.grid_size() is None
    with pytest.raises(IndexError):
        space.cell(0)


@pytest.mark.parametrize(("q", "values"), [(0.25, [0.0, 0.25, 0.5, 0.75, 1.0]), (1, [0, 1]), (0.4, [0.0, 0.4, 0.8])])
def test_space_q_uniform_walks_multiples(q: float, values: list[float]) -> None:
    """round(x / q) * q for each x between the bounds; an integer q gives integers."""
    space = Space([QUniform("a", 0.0, 1.0, q)])
    cells = [space.cell(index)["a"] for index in range(space.grid_size() or 0)]
    assert cells == values
    assert {type(cell) for cell in cells} == {type(q)}


def test_space_q_uniform_halves_its_end_bins() -> None:
    """W&B's formula: a draw is rounded, so the ends get half of what the others get."""
    rng = Random(1)  # noqa: S311 -- the same
    parameter = QUniform("a", 0.0, 2.0, 1)
    counts = [0, 0, 0]
    for _ in range(4000):
        counts[parameter.draw(rng.random())] += 1
    assert counts[1] == pytest.approx(2000, abs=150)
    assert counts[0] == pytest.approx(1000, abs=150)


def test_space_log_uniform_values_is_uniform_in_the_logarithm() -> None:
    """exp(uniform(log min, log max)): half of the draws below the geometric mean."""
    parameter = LogUniformValues("a", 1e-6, 1e-2)
    assert parameter.draw(0.5) == pytest.approx(1e-4)
    assert math.isclose(parameter.draw(0.25), 1e-5)


@pytest.mark.parametrize(
    ("parameter", "value"),
    [
        (Constant("a", 1), 1.0),
        (Categorical("a", (1, "x")), True),
        (Categorical("a", (1, "x")), "y"),
        (Uniform("a", 0.0, 1.0), 1.1),
        (Uniform("a", 0.0, 1.0), True),
        (Uniform("a", 0.0, 1.0), "0.5"),
        (IntUniform("a", 0, 3), 1.0),
        (IntUniform("a", 0, 3), 4),
        (LogUniformValues("a", 0.1, 1.0), 0.01),
        (QUniform("a", 0.0, 1.0, 0.25), 0.3),
        (QUniform("a", 0.0, 1.0, 0.25), 1.25),
        (QUniform("a", 0.0, 1.0, 0.25), math.inf),
    ],
)
def test_space_does_not_hold_other_values(parameter: Parameter, value: object) -> None:
    """A wrong type, or a value beyond the bounds, is no point of the space."""
    assert not Space([parameter]).contains({"a": value})


def test_space_needs_exactly_its_names() -> None:
    """A missing or an extra name is no point of the space."""
    space = Space([Constant("a", 1)])
    assert space.contains({"a": 1})
    assert not space.contains({})
    assert not space.contains({"a": 1, "b": 1})


def test_space_axes_tell_a_sampler_how_to_move() -> None:
    """Categories by index, whole numbers and multiples as integers, floats as they are."""
    axes = [p.axis for p in (Categorical("a", ([1], {})), IntUniform("b", 2, 4), QUniform("c", 0.0, 1.0, 0.25), LogUniformValues("d", 0.1, 1.0))]
    assert axes == [Choices(2), Integers(2, 4), Integers(0, 4), Reals(0.1, 1.0, log=True)]
