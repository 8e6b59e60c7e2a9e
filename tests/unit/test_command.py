"""W&B's command macros, against what W&B itself was measured to produce."""

import json
from typing import Any

import pytest

from sweeps.command import Command, MacroCommand, TemplateCommand, build_argv
from sweeps.spec import config_from_mapping

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
