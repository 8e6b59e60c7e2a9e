"""What holds for every search over every space: random spaces of all distributions, parameters within others among them, read as a sweep file is."""

import json
import math
from datetime import UTC, datetime
from random import Random
from typing import Any, Final

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sweeps.command import as_given
from sweeps.spec import config_from_mapping
from sweeps.spec_config import SweepConfig
from sweeps.strategies import Proposal, Strategy, make_strategy
from tests.differential.parameters import NUMBERS, configs
from tracking.records import Trial

NOW: Final = datetime(2026, 1, 1, tzinfo=UTC)
WALKED: Final = ("constant", "categorical", "int_uniform", "q_uniform")
CELLS_MAX: Final = 60
NAMES: Final = st.sampled_from(["lr", "opt", "a", "depth", "x.y", "ä"])


def trees(kinds: tuple[str, ...]) -> st.SearchStrategy[dict[str, Any]]:
    """What stands under `parameters`, up to two levels deep."""
    one = st.sampled_from(kinds).flatmap(configs)
    groups = st.dictionaries(NAMES, one, min_size=1, max_size=2).map(lambda inner: {"parameters": inner})
    return st.dictionaries(NAMES, one | one | groups, min_size=1, max_size=4).filter(has_no_twins)


def has_no_twins(tree: dict[str, Any]) -> bool:
    """Whether no two parameters have one name in the record."""
    names = [name if "parameters" not in item else f"{name}.{inner}" for name, item in tree.items() for inner in item.get("parameters", [""])]
    return len({*names}) == len(names)


def make(method: str, tree: dict[str, Any], seed: int) -> SweepConfig:
    """A sweep's config."""
    metric = {"name": "loss"}
    return config_from_mapping({"program": "t.py", "method": method, "metric": metric, "parameters": tree, "strategy": {"seed": seed}, "run_cap": 100})


def kept(number: int, proposal: Proposal, state: str = "open", value: float | None = None) -> Trial:
    """A trial as the record gives it back: through JSON."""
    params, attrs = msgspec.json.decode(msgspec.json.encode([proposal.params, proposal.attrs]))
    return Trial("s", number, state, params, 0, "r", state, 1, NOW, value=value, attrs=attrs)


def search(strategy: Strategy, ends: list[tuple[str, float | None]]) -> list[Trial]:
    """The trials of a search, each told as it ended."""
    rows = []
    for number, (state, value) in enumerate(ends):
        proposal = strategy.ask(number)
        if proposal is None:
            break
        rows.append(kept(number, proposal, state, value))
        if state != "open":
            strategy.tell(number, rows[-1].params, state, value, rows[-1].attrs)
    return rows


ENDS: Final = st.lists(
    st.tuples(st.sampled_from(["finished", "finished", "finished", "failed", "pruned", "open"]), st.floats(-5, 5) | st.none() | st.just(math.nan)),
    min_size=12,
    max_size=16,
)
FEW = settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large])


@pytest.mark.parametrize("method", ["random", "bayes"])
@FEW
@given(tree=trees(tuple(NUMBERS)), ends=ENDS, seed=st.integers(0, 2**31 - 1))
def test_search_stays_inside_its_space_and_follows_from_seed_and_history(method: str, tree: dict[str, Any], ends: list[Any], seed: int) -> None:
    """Every proposal is a point of the space, also after the record's JSON; a second search, and one rebuilt from the rows alone, propose the same."""
    config = make(method, tree, seed)
    first, second, rebuilt = make_strategy(config), make_strategy(config), make_strategy(config)
    rows = search(first, ends)
    assert len(rows) == len(ends)
    assert all(config.space.contains(row.params) for row in rows)
    assert [(row.params, row.attrs) for row in search(second, ends)] == [(row.params, row.attrs) for row in rows]
    rebuilt.replay(Random(seed).sample(rows, len(rows)))  # noqa: S311 -- an order, not a secret
    assert first.ask(len(rows)) == second.ask(len(rows)) == rebuilt.ask(len(rows))


@FEW
@given(tree=trees(WALKED), data=st.data())
def test_grid_search_proposes_each_cell_once(tree: dict[str, Any], data: st.DataObject) -> None:
    """As many as the grid has, all different, all inside, whatever becomes of them and wherever the scheduler is restarted; then nothing."""
    config = make("grid", tree, 0)
    n_cells = config.space.grid_size() or 0
    n_seen = min(n_cells, CELLS_MAX)
    ends = data.draw(st.lists(st.sampled_from([("finished", 1.0), ("failed", None), ("open", None)]), min_size=n_seen, max_size=n_seen))
    rows = search(make_strategy(config), [*ends, ("open", None)])
    assert len(rows) == n_seen + (n_cells > n_seen)
    assert len({json.dumps(row.params, sort_keys=True) for row in rows}) == len(rows)
    assert all(config.space.contains(row.params) for row in rows)
    restarted, place = make_strategy(config), data.draw(st.integers(0, n_seen))
    restarted.replay(rows[:place])
    assert [proposal.params for number in range(place, len(rows)) if (proposal := restarted.ask(number))] == [row.params for row in rows[place:]]


@FEW
@given(tree=trees(tuple(NUMBERS)), seed=st.integers(0, 2**31 - 1))
def test_search_gives_the_script_what_the_file_nests(tree: dict[str, Any], seed: int) -> None:
    """The names of the file, each where it stands there, and nothing else."""
    config = make("random", tree, seed)
    params = config.space.draw(Random(seed))  # noqa: S311 -- a point, not a secret
    whole = as_given(config.command, params)
    assert list(whole) == list(tree)
    for name, item in tree.items():
        if "parameters" in item:
            assert whole[name] == {inner: params[f"{name}.{inner}"] for inner in item["parameters"]}
        else:
            assert whole[name] == params[name]
