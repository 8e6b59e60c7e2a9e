"""From a trial's parameters to the argument vector that is run. No shell is involved anywhere (I10).

Two kinds of command: W&B's list of words with macros (`program:` and `command:` of the sweep file), and an MLproject's template
(`sweeps.mlproject` parses it). Both are checked at submission; building can't fail for parameters of the sweep's own space.
"""

import json
import re
from collections.abc import Callable, Collection, Mapping
from typing import Any, Final, Protocol

from msgspec import Struct

from sweeps.spec_source import Item, Source, did_you_mean

DEFAULT_COMMAND: Final = ("${env}", "${interpreter}", "${program}", "${args}")

_MACRO: Final = r"^\$\{([^}]*)\}$"
_ENVVAR: Final = r"\$\{envvar:[^}]*\}"


class MacroCommand(Struct, frozen=True, tag_field="kind", tag="macros", omit_defaults=True):
    """W&B's command: words, of which those that are exactly `${...}` are expanded.

    Attributes:
        program: what `${program}` stands for: a file or, after `-m`, a module.
    """

    words: tuple[str, ...] = DEFAULT_COMMAND
    program: str | None = None


class TemplateCommand(Struct, frozen=True, tag_field="kind", tag="template", omit_defaults=True):
    """An MLproject's command.

    Attributes:
        words: each a sequence of pieces; those at odd places are names of parameters, the others text.
        defaults: of the entry point's parameters, for those a sweep does not give.
        declared: all parameters of the entry point; what is given beyond is appended as `--key value`.
    """

    words: tuple[tuple[str, ...], ...]
    defaults: dict[str, Any] = {}
    declared: tuple[str, ...] = ()


Command = MacroCommand | TemplateCommand


class Commanded(Protocol):
    """Whatever has a command: a sweep's config."""

    @property
    def command(self) -> Command:
        """How one trial is run."""
        ...


def _no_boolean_flags(params: Mapping[str, Any]) -> list[str]:
    flags = {key: f"--{key}" if isinstance(value, bool) else f"--{key}={value}" for key, value in params.items()}
    return [flag for key, flag in flags.items() if params[key] is not False]


# Source: wandb/sdk/launch/sweeps/utils.py (create_sweep_command_args); values by Python's str(), as there.
_ARGS: Final[Mapping[str, Callable[[Mapping[str, Any]], list[str]]]] = {
    "args": lambda params: [f"--{key}={value}" for key, value in params.items()],
    "args_no_hyphens": lambda params: [f"{key}={value}" for key, value in params.items()],
    "args_no_boolean_flags": _no_boolean_flags,
    "args_json": lambda params: [json.dumps(dict(params))],
}
_WORDS: Final[Mapping[str, str]] = {
    "env": "/usr/bin/env",
    # Literally: the worker finds it in the run's own environment.
    "interpreter": "python",
}
MACROS: Final = (*_WORDS, "program", *_ARGS)
REFUSED_MACROS: Final[Mapping[str, str]] = {
    "args_json_file": "use '${args_json}', which passes the same as one word",
    "args_no_equals": "use '${args}'",
    "args_append_hydra": "use '${args_no_hyphens}' with words for Hydra",
    "args_override_hydra": "use '${args_no_hyphens}' with words for Hydra",
}


def build_argv(config: Commanded, params: Mapping[str, Any]) -> tuple[str, ...]:
    """The argument vector of one trial. The first word is looked up by the worker, in the run's own environment."""
    command = config.command
    if isinstance(command, TemplateCommand):
        return _fill_template(command, params)
    argv: list[str] = []
    for word in command.words:
        match = re.match(_MACRO, word)
        if match is None:
            argv.append(word)
        elif match[1] == "program":
            argv.append(command.program or "")
        elif match[1] in _WORDS:
            argv.append(_WORDS[match[1]])
        else:
            argv.extend(_ARGS[match[1]](params))
    return tuple(argv)


def _fill_template(command: TemplateCommand, params: Mapping[str, Any]) -> tuple[str, ...]:
    given = {**command.defaults, **params}
    argv = ["".join(str(given[piece]) if place % 2 else piece for place, piece in enumerate(word)) for word in command.words]
    for key, value in params.items():
        if key not in command.declared:
            argv += [f"--{key}", str(value)]
    return tuple(argv)


def why_unbuildable(command: Command, names: Collection[str]) -> str:
    """Why `build_argv` could not build this command for parameters of these names, or nothing."""
    if not command.words:
        return "is empty"
    if isinstance(command, TemplateCommand):
        known = {*names, *command.defaults}
        unknown = sorted({piece for word in command.words for piece in word[1::2]} - known)
        return f"names '{unknown[0][:100]}', which is no parameter" if unknown else "" if "".join(command.words[0]).strip() else "begins with an empty word"
    macros = [match[1] for word in command.words if (match := re.match(_MACRO, word))]
    if unknown := [macro for macro in macros if macro not in MACROS]:
        return f"has the unknown macro '{unknown[0][:100]}'"
    if "program" in macros and not command.program:
        return "has '${program}', and there is no program"
    if not command.words[0].strip() or ((first := re.match(_MACRO, command.words[0])) and first[1] in _ARGS):
        return "begins with no program"
    return ""


def argv_bytes(command: Command, sizes: Mapping[str, int]) -> list[int]:
    """A bound of the bytes of each word of the argument vector, by those of each parameter's longest value."""
    extra = [len(f"--{name}=".encode()) + size for name, size in sizes.items()]
    if isinstance(command, TemplateCommand):
        longest = {**{name: len(str(value).encode()) for name, value in command.defaults.items()}, **sizes}
        words = [sum(longest[piece] if place % 2 else len(piece.encode()) for place, piece in enumerate(word)) for word in command.words]
        return [*words, *extra]
    words = [len(word.encode()) for word in (*command.words, command.program or "")]
    as_json = sum(extra) + 4 * len(extra) + 2
    for word in command.words:
        match = re.match(_MACRO, word)
        if match and match[1] in _ARGS:
            words += [as_json] if match[1] == "args_json" else extra
    return words


def read_command(source: Source, words: Item, program: str | None) -> MacroCommand | None:
    """Check a `command:` of the sweep file; None, with the reasons noted, if it can't be used."""
    n_before = len(source.problems)
    if words.elements is None:
        suggestion = "write a list of words, [" + ", ".join((words.text or "").split()) + "]" if words.text else "write a list of words"
        source.add(words, "'command' is not a list", suggestion=suggestion)
        return None
    if not words.elements:
        source.add(words, "'command' is empty")
    for word in words.elements:
        _check_word(source, word, program)
    if len(source.problems) > n_before:
        return None
    return MacroCommand(tuple(word.text or "" for word in words.elements), program)


def _check_word(source: Source, word: Item, program: str | None) -> None:
    if word.text is None or word.value is None:
        source.add(word, "a word of a command is text")
        return
    if envvar := re.search(_ENVVAR, word.text):
        source.add(word, f"the macro '{envvar[0]}' is not served by this version", suggestion="set what the script needs under 'env:'")
        return
    match = re.match(_MACRO, word.text)
    if match is None:
        return
    if match[1] in REFUSED_MACROS:
        source.add(word, f"the macro '{word.text}' is not served by this version", suggestion=REFUSED_MACROS[match[1]])
    elif match[1] not in MACROS:
        source.add(word, f"unknown macro '{word.text}'", suggestion=did_you_mean(word.text, [f"${{{name}}}" for name in MACROS]))
    elif match[1] == "program" and program is None:
        source.add(word, "'${program}' stands for 'program:', which is not given", suggestion="add 'program: train.py', or write the file here")
