"""A grid has the cells of W&B's grid, each once; in its order too, where the file names its parameters alphabetically."""

import json
from collections.abc import Callable
from typing import Any, Final

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sweeps.command import as_given
from sweeps.spec import config_from_mapping
from tests.differential.parameters import VALUES

Ask = Callable[..., dict[str, Any]]

NAMES: Final = st.text("abcXYZ_", min_size=1, max_size=3)
ONE: Final[st.SearchStrategy[dict[str, Any]]] = (
    st.fixed_dictionaries({"value": VALUES})
    | st.fixed_dictionaries({"values": st.lists(VALUES, min_size=1, max_size=4)})
    | st.tuples(st.integers(-5, 5), st.integers(1, 3)).map(lambda pair: {"min": pair[0], "max": pair[0] + pair[1]})
    | st.tuples(st.integers(-5, 5), st.integers(1, 3)).map(lambda pair: {"distribution": "int_uniform", "min": pair[0], "max": pair[0] + pair[1]})
)
TREES: Final[st.SearchStrategy[dict[str, Any]]] = st.recursive(
    st.dictionaries(NAMES, ONE, min_size=1, max_size=3),
    lambda inner: st.dictionaries(NAMES, ONE | inner.map(lambda group: {"parameters": group}), min_size=1, max_size=3),
    max_leaves=3,
)
EACH = settings(max_examples=150, derandomize=True, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])


def alphabetical(tree: dict[str, Any]) -> dict[str, Any]:
    """The same parameters by name, those within others included."""
    return {name: {"parameters": alphabetical(item["parameters"])} if "parameters" in item else item for name, item in sorted(tree.items())}


def ours(parameters: dict[str, Any]) -> list[dict[str, Any]]:
    """Our cells in our order, as the script gets them."""
    config = config_from_mapping({"program": "t.py", "method": "grid", "parameters": parameters})
    return [dict(as_given(config.command, config.space.cell(index))) for index in range(config.space.grid_size() or 0)]


def theirs(ask: Ask, parameters: dict[str, Any]) -> list[dict[str, Any]]:
    """W&B's, asked for more than there are."""
    cells = ask("cells", {"method": "grid", "parameters": parameters}, 10_000)["answer"]
    return [{name: item["value"] for name, item in cell.items()} for cell in cells]


def exact(cells: list[dict[str, Any]]) -> list[str]:
    """Cells as texts, in which 1 and true differ."""
    return [json.dumps(cell, sort_keys=True) for cell in cells]


@EACH
@given(tree=TREES.filter(lambda tree: len(ours(tree)) <= 500))
def test_grid_has_wandbs_cells(ask: Ask, tree: dict[str, Any]) -> None:
    """Constants, categories with doubles, ranges, parameters within others: the same cells, in any order of the file."""
    assert sorted(exact(ours(tree))) == sorted(exact(theirs(ask, tree)))


@EACH
@given(tree=TREES.map(alphabetical).filter(lambda tree: len(ours(tree)) <= 500))
def test_grid_of_alphabetical_file_has_wandbs_order(ask: Ask, tree: dict[str, Any]) -> None:
    """W&B goes through the parameters by name and we in the order of the file; the last one changes fastest in both."""
    assert exact(ours(tree)) == exact(theirs(ask, tree))


@EACH
@given(low=st.integers(-20, 20), n=st.integers(1, 30), q=st.sampled_from([1, 2, 5, 0.5, 0.25, 2.0]))
def test_grid_of_multiples_has_wandbs_cells_and_the_last_one(ask: Ask, low: int, n: int, q: float) -> None:
    """W&B's grid over `q_uniform` leaves `max` out; between multiples of `q`, that is all that differs."""
    parameters = {"x": {"distribution": "q_uniform", "min": low * q, "max": (low + n) * q, "q": q}}
    assert ours(parameters) == [*theirs(ask, parameters), {"x": (low + n) * q}]


def test_grid_tells_1_and_1_0_apart_where_wandbs_does_not(ask: Ask) -> None:
    """Three cells here, two there: the docs say so."""
    parameters = {"x": {"values": [1, 1.0, True]}}
    assert [len(ours(parameters)), len(theirs(ask, parameters))] == [3, 2]
