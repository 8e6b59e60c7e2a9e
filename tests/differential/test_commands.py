"""Commands mean what they mean at W&B: the argument vector of each trial is the one that W&B's agent starts, byte for byte."""

import json
from collections.abc import Callable
from random import Random
from typing import Any, Final

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sweeps.command import MACROS, as_given, build_argv
from sweeps.spec import config_from_mapping
from sweeps.spec_config import SweepConfig
from worker.surroundings import expand, wandb_config

Ask = Callable[..., dict[str, Any]]

# NUL can't stand in an argument; line breaks of other kinds W&B's own file of parameters loses.
TEXT: Final = st.text(st.characters(codec="utf-8", exclude_characters="\0\x85\u2028\u2029"), max_size=8)
NUMBERS: Final = st.floats(allow_nan=False, allow_infinity=False) | st.sampled_from([1e-05, 1e22, 0.1 + 0.2, -0.0, 1e16, 123456789012345680.0])
_TEXTS: Final = st.sampled_from(["x y", "it's", '"', "ä=ß", "--x", "$HOME", "\n", "", "${envvar:HOME}", "${args}"])
PLAIN: Final = st.none() | st.booleans() | st.integers(-(2**63) + 1, 2**63 - 1) | NUMBERS | TEXT | _TEXTS
VALUES: Final = st.recursive(PLAIN, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3), max_leaves=6)
_LETTERS: Final = st.characters(codec="utf-8", categories=["L", "N", "P", "S"], include_characters=" ", exclude_characters=".")
NAMES: Final = st.text(_LETTERS, min_size=1, max_size=6).filter(str.strip)
TREES: Final[st.SearchStrategy[dict[str, Any]]] = st.recursive(
    st.dictionaries(NAMES, VALUES.map(lambda value: {"value": value}), min_size=1, max_size=4),
    lambda inner: st.dictionaries(NAMES, VALUES.map(lambda value: {"value": value}) | inner.map(lambda group: {"parameters": group}), min_size=1, max_size=4),
    max_leaves=4,
)
"""What may stand under `parameters`: constants, some of them within others."""
_WORDS: Final = ["-m", "torchrun", "--p=${program}", "${args} ", "$args", "${args}\n"]
_VARIABLES: Final = ["--n=${envvar:N_GPUS}", "${envvar:HOME}", "${envvar:HOME}/x-${envvar:N_GPUS}", "${envvar:UNSET}", "${envvar:}"]
WORDS: Final = st.lists(
    st.sampled_from([f"${{{macro}}}" for macro in MACROS]) | st.sampled_from([*_WORDS, *_VARIABLES]) | TEXT.filter(lambda word: "${" not in word), max_size=6
)
ENV: Final = {"N_GPUS": "8", "HOME": "/home/ü"}
EACH = settings(max_examples=100, derandomize=True, suppress_health_check=[HealthCheck.too_slow])


def given_by_agent(tree: dict[str, Any]) -> dict[str, Any]:
    """What W&B's agent is told of a trial whose parameters are all constants."""

    def inner(item: dict[str, Any]) -> Any:
        return item["value"] if "value" in item else {name: inner(below) for name, below in item["parameters"].items()}

    return {name: {"value": inner(item)} for name, item in tree.items()}


def drawn(config: SweepConfig) -> dict[str, Any]:
    """The one point of a space of constants."""
    return config.space.draw(Random(0))  # noqa: S311 -- a point, not a secret


@EACH
@given(tree=TREES, words=WORDS)
def test_command_is_expanded_as_by_wandbs_agent(ask: Ask, tree: dict[str, Any], words: list[str]) -> None:
    """Each macro alone and among others; numbers, booleans, text of any kind, nothing, lists and mappings, parameters within others."""
    command = ["run", *words]
    config = config_from_mapping({"program": "sub dir/train.py", "command": command, "method": "random", "parameters": tree, "env": ENV})
    params = drawn(config)
    ours = expand(build_argv(config, params), {**ENV, "SWEEP_ARGS_FILE": "${args_json_file}"})
    theirs, content = ask("argv", command, "sub dir/train.py", given_by_agent(tree), ENV)["answer"]
    assert list(ours) == theirs
    assert content in {None, json.dumps(as_given(config.command, params))}


@EACH
@given(tree=TREES)
def test_command_that_is_not_given_is_wandbs_default(ask: Ask, tree: dict[str, Any]) -> None:
    """`python program --name=value`, found by `/usr/bin/env`."""
    config = config_from_mapping({"program": "train.py", "method": "random", "parameters": tree})
    theirs, _ = ask("argv", [], "train.py", given_by_agent(tree), {})["answer"]
    assert list(expand(build_argv(config, drawn(config)), {})) == theirs


@EACH
@given(tree=TREES)
def test_command_finds_the_parameters_where_wandbs_client_looks(ask: Ask, tree: dict[str, Any]) -> None:
    """What the worker writes for W&B's client is read by it as what W&B's agent writes."""
    config = config_from_mapping({"program": "train.py", "method": "random", "parameters": tree})
    ours = wandb_config(as_given(config.command, drawn(config)))
    assert ask("read_config", ours) == ask("written_config", given_by_agent(tree))
