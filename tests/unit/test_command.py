"""W&B's command macros, against what W&B itself was measured to produce."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweeps.command import MACROS, Command, MacroCommand, TemplateCommand, argv_bytes, build_argv, why_unbuildable
from sweeps.spec import config_from_mapping
from worker import surroundings

PARAMS = {"a": True, "b": False, "lr": 1e-05, "optimizer": {"lr": 0.1}, "n": None, "s": "x y"}


class Commanded:
    """Something with a command."""

    def __init__(self, *words: str, program: str | None = "train.py") -> None:
        self.command: Command = MacroCommand(words, program)


def test_command_default_is_wandbs() -> None:
    """env, interpreter, program, args."""
    config = config_from_mapping({"program": "train.py", "method": "grid", "parameters": {"lr": {"values": [0.1]}}})
    assert build_argv(config, {"lr": 0.1}) == ("/usr/bin/env", "python", "train.py", "--lr=0.1")


@pytest.mark.parametrize(
    ("macro", "expected"),
    [
        ("${env}", ["/usr/bin/env"]),
        ("${interpreter}", ["python"]),
        ("${program}", ["train.py"]),
        ("${args}", ["--a=True", "--b=False", "--lr=1e-05", "--optimizer={'lr': 0.1}", "--n=None", "--s=x y"]),
        ("${args_no_hyphens}", ["a=True", "b=False", "lr=1e-05", "optimizer={'lr': 0.1}", "n=None", "s=x y"]),
        ("${args_no_boolean_flags}", ["--a", "--lr=1e-05", "--optimizer={'lr': 0.1}", "--n=None", "--s=x y"]),
        (
            "${args_no_equals}",
            ["--a", "True", "--b", "False", "--lr", "1e-05", "--optimizer", "{'lr': 0.1}", "--n", "None", "--s", "x y"],
        ),
        ("${args_append_hydra}", ["+a=True", "+b=False", "+lr=1e-05", "+optimizer={'lr': 0.1}", "+n=None", "+s=x y"]),
        ("${args_override_hydra}", ["++a=True", "++b=False", "++lr=1e-05", "++optimizer={'lr': 0.1}", "++n=None", "++s=x y"]),
        ("${args_json}", [json.dumps(PARAMS)]),
        ("x${args}", ["x${args}"]),
        ("${args} ", ["${args} "]),
        ("$args", ["$args"]),
        ("; rm -rf /", ["; rm -rf /"]),
    ],
)
def test_command_macro_expands_as_wandbs(macro: str, expected: list[str]) -> None:
    """Values by Python's str(), one argument each; a word is expanded only when it is exactly the macro."""
    assert build_argv(Commanded(macro), PARAMS) == tuple(expected)


def test_command_without_parameters_has_no_arguments() -> None:
    """`${args}` of nothing is nothing, and `${args_json}` an empty object."""
    assert build_argv(Commanded("x", "${args}", "${args_json}"), {}) == ("x", "{}")


def test_command_module_is_passed_as_written() -> None:
    """`program` may be a dotted module after -m."""
    assert build_argv(Commanded("${interpreter}", "-m", "${program}", program="pkg.train"), {}) == ("python", "-m", "pkg.train")


def test_command_words_keep_how_they_were_written() -> None:
    """Numbers in a command are words as they stand in the file."""
    mapping: dict[str, Any] = {"command": ["x", 5, "1e-5", True], "method": "grid", "parameters": {"a": {"value": 1}}}
    assert build_argv(config_from_mapping(mapping), {"a": 1}) == ("x", "5", "1e-5", "True")


def test_command_template_fills_pieces_and_appends_the_rest() -> None:
    """Defaults where a sweep gives nothing; what is not declared follows as two words each."""
    config = Commanded()
    config.command = TemplateCommand((("run",), ("--a=", "a", "-", "b", "")), {"b": 2}, ("a", "b"))
    assert build_argv(config, {"a": "x y", "extra": "'; id"}) == ("run", "--a=x y-2", "--extra", "'; id")


SWEEP: dict[str, Any] = {"program": "t.py", "method": "grid", "parameters": {"a": {"value": 1}}, "env": {"DATA": "/d", "n_x": "5"}}


def argv_in_trial(mapping: dict[str, Any], params: dict[str, Any], env: dict[str, str]) -> tuple[str, ...]:
    """What is run in the end: as the scheduler builds it, and the worker expands it."""
    config = config_from_mapping(mapping)
    return surroundings.expand(build_argv(config, params), {**config.launch(None).env, **env})


def test_command_variables_are_those_of_the_trial() -> None:
    """Of the file's `env` or the worker's own, within a longer word, several in one; one that is not set leaves its bare name."""
    command = ["${program}", "--data=${envvar:DATA}/${envvar:n_x}", "${envvar:HOME}", "${envvar:NOWHERE}", "${args}"]
    assert argv_in_trial({**SWEEP, "command": command}, {"a": 1}, {"HOME": "/h"}) == ("t.py", "--data=/d/5", "/h", "NOWHERE", "--a=1")


@given(st.lists(st.sampled_from(["$", "{", "envvar:", "A", "}", "${envvar:", "${envvar:A}", "${envvar:}", "${args_json_file}"]), max_size=6).map("".join))
def test_command_values_are_never_taken_for_variables(value: str) -> None:
    """A parameter's value arrives as it is, whatever it looks like; so does an MLproject's."""
    for command in (MacroCommand(("x", "${args_no_equals}")), TemplateCommand((("x",), ("", "a", "")), declared=("a",))):
        config = Commanded()
        config.command = command
        assert surroundings.expand(build_argv(config, {"a": value}), {"A": "seen"})[-1] == value


def test_command_file_of_parameters_is_where_the_worker_writes_it() -> None:
    """Its path is in the trial's environment, on a host and in a container; nested parameters are nested in it."""
    mapping = {**SWEEP, "command": ["x", "${args_json_file}"], "parameters": {"o": {"parameters": {"x": {"value": 1}}}}}
    assert argv_in_trial(mapping, {"o.x": 1}, {"SWEEP_ARGS_FILE": "/f/args.json"}) == ("x", "/f/args.json")
    assert config_from_mapping(mapping).launch(None).nested == {"o.x": ("o", "x")}


def test_command_nests_parameters_again_wherever_they_stand() -> None:
    """JSON, words and an MLproject's template alike; a flat name with dots stays flat."""
    nested: dict[str, tuple[str, ...]] = {"o.lr": ("o", "lr"), "o.deep.x": ("o", "deep", "x")}
    params = {"o.lr": 0.1, "flat.name": 2, "o.deep.x": "y"}
    config = Commanded()
    config.command = MacroCommand(("x", "${args_no_hyphens}", "${args_json}"), None, nested)
    whole = {"o": {"lr": 0.1, "deep": {"x": "y"}}, "flat.name": 2}
    assert build_argv(config, params) == ("x", "o={'lr': 0.1, 'deep': {'x': 'y'}}", "flat.name=2", json.dumps(whole))
    config.command = TemplateCommand((("x",), ("", "o", "")), declared=("o",), nested=nested)
    assert build_argv(config, params) == ("x", "{'lr': 0.1, 'deep': {'x': 'y'}}", "--flat.name", "2")


@pytest.mark.parametrize("nested", [{"b": ("a", "x")}, {"b": ("a",)}, {"b": ()}])
def test_command_that_nests_one_parameter_within_another_is_unbuildable(nested: dict[str, tuple[str, ...]]) -> None:
    """A client can't send what building would stumble over."""
    assert why_unbuildable(MacroCommand(("x",), None, nested), ["a", "b"]) == "nests one parameter within another"


@given(st.dictionaries(st.text(max_size=3), st.text(max_size=5) | st.integers() | st.none(), min_size=1, max_size=4), st.booleans())
def test_command_bound_of_bytes_is_one(params: dict[str, Any], is_nested: bool) -> None:
    """No word is longer, and there are no more words, than was counted."""
    nested: dict[str, tuple[str, ...]] = {name: ("outer", name) for name in params if name != "outer"} if is_nested else {}
    command = MacroCommand(("x", *(f"${{{macro}}}" for macro in MACROS if macro not in ("program", "env", "interpreter"))), None, nested)
    config = Commanded()
    config.command = command
    argv = build_argv(config, params)
    bounds = argv_bytes(command, {name: len(json.dumps(value)) for name, value in params.items()})
    assert len(argv) <= len(bounds)
    assert max(len(word.encode()) for word in argv) <= max(bounds)
    assert sum(len(word.encode()) for word in argv) <= sum(bounds)
