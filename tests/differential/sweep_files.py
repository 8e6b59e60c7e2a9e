"""Sweep files drawn at random in W&B's words: whole ones, and ones that something was done to."""

import copy
import itertools
import math
from collections.abc import Iterator
from typing import Any, Final

from hypothesis import strategies as st

from tests.differential.parameters import NUMBERS, configs

TEXTS: Final = st.sampled_from(["resnet", "val/loss", "x y", "ä", "train.py", "7"])
EMPTY_TEXTS: Final = TEXTS | st.just("")
GRID_KINDS: Final = ("constant", "categorical", "int_uniform")
_NUMBERS: Final = [0, 1, -1, 2, 1000, 2**53 + 1, 10**19, 1.0, 1.5, -0.5, 1e-5, 1e30, math.nan, math.inf]
_WORDS: Final = "x 1e-5 0.5 hyperband uniform latest bayes random grid custom local false ${args} ${argz}".split()
ODD: Final = st.sampled_from([None, True, False, "", [], {}, [1], ["a", "b"], [0.5, 0.5], {"a": 1}, {"value": 1}, *_NUMBERS, *_WORDS])
ADDED: Final = st.sampled_from("min max q values value distribution foo metrics mu parameters job run_cap".split())
NAMES: Final = st.sampled_from(["lr", "optimizer", "batch_size", "layers.0", "weight-decay", "_x"])


def parameter(kinds: tuple[str, ...]) -> st.SearchStrategy[dict[str, Any]]:
    """A parameter, named by its distribution or by its keys alone."""
    named = st.sampled_from(kinds).flatmap(configs)
    one = named | named.map(lambda config: {key: value for key, value in config.items() if key != "distribution"} or config)
    return one | st.dictionaries(NAMES, one, min_size=1, max_size=2).map(lambda inner: {"parameters": inner})


def sweep(method: str) -> st.SearchStrategy[dict[str, Any]]:
    """A sweep file that nobody has broken; W&B takes it, and so do we unless the list of differences says otherwise."""
    metric = st.fixed_dictionaries(
        {"name": TEXTS},
        optional={
            "goal": st.sampled_from(["minimize", "maximize"]),
            "target": st.floats(-10, 10) | st.integers(-10, 10),
            "impute": st.sampled_from(["worst", "worst", "latest", "best"]),
            "impute_while_running": st.sampled_from(["false", "false", "latest"]),
        },
    )
    early_terminate = st.fixed_dictionaries(
        {"type": st.just("hyperband")},
        optional={"max_iter": st.integers(1, 100), "s": st.integers(1, 5), "eta": st.floats(1.1, 5) | st.integers(2, 5), "strict": st.booleans()},
    ).flatmap(lambda early: st.just(early) if {"max_iter", "s"} <= early.keys() else st.integers(1, 10).map(lambda n: {**early, "min_iter": n}))
    words = st.sampled_from(["${env}", "${interpreter}", "${program}", "${args}", "${args_json}", "--fast", 3, 1.5])
    return st.fixed_dictionaries(
        {
            "program": TEXTS,
            "method": st.just(method),
            "metric": metric,
            "parameters": st.dictionaries(NAMES, parameter(GRID_KINDS if method == "grid" else tuple(NUMBERS)), min_size=1, max_size=3),
        },
        optional={
            "name": EMPTY_TEXTS,
            "description": EMPTY_TEXTS,
            "project": EMPTY_TEXTS,
            "entity": EMPTY_TEXTS,
            "apiVersion": st.just("v1"),
            "kind": st.just("sweep"),
            "controller": st.sampled_from([{"type": "local"}, {"type": "cloud"}]),
            "run_cap": st.integers(1, 1000),
            "command": st.lists(words, max_size=4).map(lambda more: ["python", *more]),
            "early_terminate": early_terminate,
        },
    )


def whole_sweeps() -> st.SearchStrategy[dict[str, Any]]:
    """Sweep files of each method."""
    return st.sampled_from(["grid", "random", "bayes"]).flatmap(sweep)


def places(node: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """The path of everything in a file."""
    inner = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in inner:
        yield (*path, key)
        yield from places(value, (*path, key))


@st.composite
def broken_sweeps(draw: st.DrawFn) -> dict[str, Any]:
    """Sweep files of which a key or two were dropped, renamed, exchanged or given another value."""
    config: dict[str, Any] = copy.deepcopy(draw(whole_sweeps()))
    for _ in range(draw(st.sampled_from([1, 1, 2]))):
        found = list(places(config))
        if not found:
            break
        *outer, last = draw(st.sampled_from(found))
        node: Any = config
        for key in outer:
            node = node[key]
        act = draw(st.sampled_from(["drop", "rename", "replace", "replace", "replace", "exchange", "add"]))
        if act == "replace" or not isinstance(node, dict):
            node[last] = copy.deepcopy(draw(ODD))
        elif act == "drop":
            del node[last]
        elif act == "rename":
            node[f"{last}s"] = node.pop(last)
        elif act == "add":
            node[draw(ADDED)] = copy.deepcopy(draw(ODD))
        else:
            for one, other in itertools.islice(itertools.combinations(list(node), 2), 1):
                node[one], node[other] = node[other], node[one]
    return config
