"""From a trial's parameters to the argument vector that is run. No shell is involved anywhere (I10).

W&B's list of words with macros (`program:` and `command:` of the sweep file), or an MLproject's template (`sweeps.mlproject` parses it), or
several of those of which each trial runs one. They are checked at submission; building can't fail for parameters of the sweep's own space.

What only the trial's own environment tells is left to its worker: `${envvar:NAME}` reaches it as it stands, and nothing else that looks so does.
"""

import json
import re
from collections.abc import Callable, Collection, Mapping
from itertools import pairwise
from typing import Any, Final, Protocol

from msgspec import Struct
from msgspec.structs import replace

from sweeps.spec_source import Item, Source, did_you_mean
from tracking.nesting import nest

DEFAULT_COMMAND: Final = ("${env}", "${interpreter}", "${program}", "${args}")

# As W&B's agent asks: what begins and ends so is a macro, also `${args}-${program}`, which is none that is known.
_MACRO: Final = r"(?s)^\$\{(.*)\}\Z"
_ENVVAR: Final = r"\$\{envvar:[A-Za-z0-9_]*\}"
_ENVVAR_BEGINS: Final = "${envvar:"


class MacroCommand(Struct, frozen=True, tag_field="kind", tag="macros", omit_defaults=True):
    """W&B's command: words, of which those that are exactly `${...}` are expanded.

    Attributes:
        program: what `${program}` stands for: a file or, after `-m`, a module.
        nested: of parameters that the file nests, the keys that lead to each.
    """

    words: tuple[str, ...] = DEFAULT_COMMAND
    program: str | None = None
    nested: dict[str, tuple[str, ...]] = {}


class TemplateCommand(Struct, frozen=True, tag_field="kind", tag="template", omit_defaults=True):
    """An MLproject's command. Parameters that the file nests have names with dots here; the outermost name stands for all that is within.

    Attributes:
        words: each a sequence of pieces; those at odd places are names of parameters, the others text.
        defaults: of the entry point's parameters, for those a sweep does not give.
        declared: all parameters of the entry point; what is given beyond is appended as `--key value`.
        nested: as of the other kind.
    """

    words: tuple[tuple[str, ...], ...]
    defaults: dict[str, Any] = {}
    declared: tuple[str, ...] = ()
    nested: dict[str, tuple[str, ...]] = {}


PlainCommand = MacroCommand | TemplateCommand


class EntryCommands(Struct, frozen=True, tag_field="kind", tag="entry_points", omit_defaults=True):
    """Entry points of an MLproject, of which each trial runs the one that its parameter `entry_point` names.

    Attributes:
        points: the command of each, by its name.
        nested: as of the others.
    """

    points: dict[str, TemplateCommand]
    nested: dict[str, tuple[str, ...]] = {}


Command = PlainCommand | EntryCommands

ENTRY_POINT: Final = "entry_point"
"""The parameter that chooses among several entry points. The commands do not get it."""


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
    "args_no_equals": lambda params: [word for key, value in params.items() for word in (f"--{key}", str(value))],
    "args_append_hydra": lambda params: [f"+{key}={value}" for key, value in params.items()],
    "args_override_hydra": lambda params: [f"++{key}={value}" for key, value in params.items()],
    "args_json": lambda params: [json.dumps(dict(params))],
}
_WORDS: Final[Mapping[str, str]] = {
    "env": "/usr/bin/env",
    # Literally: the worker finds it in the run's own environment.
    "interpreter": "python",
}
ARGS_FILE_WORD: Final = "${envvar:SWEEP_ARGS_FILE}"
"""What `${args_json_file}` becomes: the worker writes the file, and tells the trial where it is."""

MACROS: Final = (*_WORDS, "program", *_ARGS, "args_json_file")
"""What is expanded for each trial."""
WORKER_MACROS: Final = ("envvar:NAME",)
"""What the worker expands, from the trial's environment."""


def with_nested(command: Command, nested: dict[str, tuple[str, ...]]) -> Command:
    """The command for parameters of which some are nested."""
    if isinstance(command, EntryCommands):
        return EntryCommands({name: replace(point, nested=nested) for name, point in command.points.items()}, nested)
    return replace(command, nested=nested)


def as_given(command: Command, params: Mapping[str, Any]) -> Mapping[str, Any]:
    """A trial's parameters as its script gets them: those that the file nests, nested again."""
    return nest(params, command.nested)


def build_argv(config: Commanded, params: Mapping[str, Any]) -> tuple[str, ...]:
    """The argument vector of one trial. The first word is looked up by the worker, in the run's own environment."""
    command = config.command
    if isinstance(command, EntryCommands):
        command, params = command.points[params[ENTRY_POINT]], {name: value for name, value in params.items() if name != ENTRY_POINT}
    if isinstance(command, TemplateCommand):
        return _fill_template(command, params)
    params = as_given(command, params)
    argv: list[str] = []
    for word in command.words:
        match = re.match(_MACRO, word)
        if match is None:
            argv.append(word)
        elif match[1] == "program":
            argv.append(_literal(command.program or ""))
        elif match[1] in _WORDS:
            argv.append(_WORDS[match[1]])
        elif match[1] == "args_json_file":
            argv.append(ARGS_FILE_WORD)
        elif match[1] in _ARGS:
            argv.extend(map(_literal, _ARGS[match[1]](params)))
        else:
            argv.append(word)
    return tuple(argv)


def _literal(word: str) -> str:
    """A word that means itself to the worker: `${envvar:` is cut in two by a variable without a name, which is nothing."""
    return word.replace(_ENVVAR_BEGINS, "$${envvar:}{envvar:")


def _fill_template(command: TemplateCommand, params: Mapping[str, Any]) -> tuple[str, ...]:
    given = {**command.defaults, **as_given(command, params), **params}
    argv = ["".join(str(given[piece]) if place % 2 else piece for place, piece in enumerate(word)) for word in command.words]
    for key, value in params.items():
        if key not in command.declared and command.nested.get(key, (key,))[0] not in command.declared:
            argv += [f"--{key}", str(value)]
    return tuple(map(_literal, argv))


def why_unbuildable(command: Command, names: Collection[str]) -> str:
    """Why `build_argv` could not build this command for parameters of these names, or nothing."""
    if not isinstance(command, EntryCommands):
        return _why_plain_unbuildable(command, names)
    if ENTRY_POINT not in names:
        return f"has several entry points, and no parameter '{ENTRY_POINT}' to choose one"
    return next((why for point in command.points.values() if (why := _why_plain_unbuildable(point, set(names) - {ENTRY_POINT}))), "")


def _why_plain_unbuildable(command: PlainCommand, names: Collection[str]) -> str:
    if not command.words:
        return "is empty"
    paths = sorted(command.nested.get(name, (name,)) for name in names)
    if not all(paths) or any(later[: len(path)] == path for path, later in pairwise(paths)):
        return "nests one parameter within another"
    if isinstance(command, TemplateCommand):
        known = {*names, *(path[0] for path in paths), *command.defaults}
        unknown = sorted({piece for word in command.words for piece in word[1::2]} - known)
        return f"names '{unknown[0][:100]}', which is no parameter" if unknown else "" if "".join(command.words[0]).strip() else "begins with an empty word"
    macros = [match[1] for word in command.words if (match := re.match(_MACRO, word))]
    if unknown := [macro for macro in macros if macro not in MACROS and not re.match(_ENVVAR, f"${{{macro}}}")]:
        return f"has the unknown macro '{unknown[0][:100]}'"
    if "program" in macros and not command.program:
        return "has '${program}', and there is no program"
    if not command.words[0].strip() or ((first := re.match(_MACRO, command.words[0])) and first[1] in {*_ARGS, "args_json_file"}):
        return "begins with no program"
    return ""


def argv_bytes(command: PlainCommand, sizes: Mapping[str, int]) -> list[int]:
    """A bound of the bytes of each word of the argument vector, by those of each parameter's longest value."""
    given = _sizes_as_given(command, sizes)
    if isinstance(command, TemplateCommand):
        extra = [len(f"--{name}=".encode()) + size for name, size in sizes.items()]
        longest = {**{name: len(str(value).encode()) for name, value in command.defaults.items()}, **given, **sizes}
        words = [sum(longest[piece] if place % 2 else len(piece.encode()) for place, piece in enumerate(word)) for word in command.words]
        return [*words, *extra]
    extra = [len(f"--{name}=".encode()) + size for name, size in given.items()]
    words = [len(word.encode()) for word in (*command.words, command.program or "", ARGS_FILE_WORD)]
    as_json = sum(len(json.dumps(name)) + size + 4 for name, size in given.items()) + 2
    for word in command.words:
        match = re.match(_MACRO, word)
        if match and match[1] in _ARGS:
            words += [as_json] if match[1] == "args_json" else extra
            words += [0] * len(extra) if match[1] == "args_no_equals" else []
    return words


def _sizes_as_given(command: PlainCommand, sizes: Mapping[str, int]) -> dict[str, int]:
    """The bytes of what a script gets under each name."""
    given: dict[str, int] = {}
    for name, size in sizes.items():
        first, *inner = command.nested.get(name, (name,))
        given[first] = given.get(first, 0) + size + sum(len(json.dumps(key)) + 6 for key in inner)
    return given


def read_command(source: Source, words: Item, program: str | None) -> MacroCommand | None:
    """Check a `command:` of the sweep file; None, with the reasons noted, if it can't be used.

    Args:
        source: where problems are noted.
        words: what stands under `command`.
        program: of the file.
    """
    n_before = len(source.problems)
    if words.elements is None:
        suggestion = "write a list of words, [" + ", ".join((words.text or "").split()) + "]" if words.text else "write a list of words"
        source.add(words, "'command' is not a list", suggestion=suggestion)
        return None
    if not words.elements:
        source.add(words, "'command' is empty")
    for word in words.elements:
        _check_word(source, word, program)
    return MacroCommand(tuple(word.text or "" for word in words.elements), program) if len(source.problems) == n_before else None


def _check_word(source: Source, word: Item, program: str | None) -> None:
    if word.text is None or word.value is None:
        source.add(word, "a word of a command is text")
        return
    match = re.match(_MACRO, word.text)
    if match is None or re.match(_ENVVAR, word.text):
        return
    if match[1] not in MACROS:
        known = [f"${{{name}}}" for name in (*MACROS, *WORKER_MACROS)]
        source.add(word, f"unknown macro '{word.text}'", suggestion=did_you_mean(word.text, known))
    elif match[1] == "program" and program is None:
        source.add(word, "'${program}' stands for 'program:', which is not given", suggestion="add 'program: train.py', or write the file here")
